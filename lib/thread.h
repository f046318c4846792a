/* What those share that have threads, or locks that processes share. */
#ifndef SS_LIB_THREAD_H
#define SS_LIB_THREAD_H

#include <socketserver/layer.h>

#include "sys.h"

/*
 * A thread with every signal blocked: they are the program's threads' to take.
 * stack_size 0: the system's default.  -errno.
 */
int thread_create(pthread_t *thread, size_t stack_size, void *(*run)(void *),
		  void *arg);

/* A condition whose timed waits are by the monotonic clock; -errno. */
int thread_cond_init(pthread_cond_t *cond);

/*
 * A mutex in memory that processes share; -errno.  It is locked also where the
 * one who had it died with it: true, the first time after that.
 */
int thread_shared_lock_init(pthread_mutex_t *mutex);
bool thread_shared_lock(pthread_mutex_t *mutex);

#endif
