/* What the models that have threads share. */
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

#endif
