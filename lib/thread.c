/* Threads, conditions and shared locks, as all who need them make them. */
#include "thread.h"

#include <errno.h>

int thread_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int error = pthread_condattr_init(&attr);
	if (!error) {
		pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
		error = sys_pthread_cond_init(cond, &attr);
		pthread_condattr_destroy(&attr);
	}
	return -error;
}

static int create_deaf(pthread_t *thread, const pthread_attr_t *attr,
		       void *(*run)(void *), void *arg)
{
	sigset_t all, old;
	sigfillset(&all);
	sys_pthread_sigmask(SIG_SETMASK, &all, &old);
	int error = sys_pthread_create(thread, attr, run, arg);
	sys_pthread_sigmask(SIG_SETMASK, &old, NULL);
	return error;
}

int thread_create(pthread_t *thread, size_t stack_size, void *(*run)(void *),
		  void *arg)
{
	pthread_attr_t attr;
	int error = pthread_attr_init(&attr);
	if (!error) {
		if (stack_size)
			error = pthread_attr_setstacksize(&attr, stack_size);
		if (!error)
			error = create_deaf(thread, &attr, run, arg);
		pthread_attr_destroy(&attr);
	}
	return -error;
}

static int share_robustly(pthread_mutexattr_t *attr)
{
	int error = pthread_mutexattr_setpshared(attr, PTHREAD_PROCESS_SHARED);
	return error ? error
		     : pthread_mutexattr_setrobust(attr, PTHREAD_MUTEX_ROBUST);
}

int thread_shared_lock_init(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attr;
	int error = pthread_mutexattr_init(&attr);
	if (!error) {
		error = share_robustly(&attr);
		if (!error)
			error = sys_pthread_mutex_init(mutex, &attr);
		pthread_mutexattr_destroy(&attr);
	}
	return -error;
}

bool thread_shared_lock(pthread_mutex_t *mutex)
{
	if (pthread_mutex_lock(mutex) != EOWNERDEAD)
		return false;
	pthread_mutex_consistent(mutex);
	return true;
}
