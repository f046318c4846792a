/* Threads and conditions, as all that has threads makes them. */
#include "thread.h"

int thread_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int error = pthread_condattr_init(&attr);
	if (error)
		return -error;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	error = pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
	return -error;
}

int thread_create(pthread_t *thread, size_t stack_size, void *(*run)(void *),
		  void *arg)
{
	pthread_attr_t attr;
	int error = pthread_attr_init(&attr);
	if (error)
		return -error;
	if (stack_size)
		error = pthread_attr_setstacksize(&attr, stack_size);
	sigset_t all, old;
	sigfillset(&all);
	if (!error) {
		sys_pthread_sigmask(SIG_SETMASK, &all, &old);
		error = sys_pthread_create(thread, &attr, run, arg);
		sys_pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	pthread_attr_destroy(&attr);
	return -error;
}
