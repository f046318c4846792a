/*
 * Threads that run what would block a loop.  Made when first wanted, at most a
 * few, and gone when they have had nothing to do for a while.
 */
#ifndef SS_LIB_FIBER_OFFLOAD_H
#define SS_LIB_FIBER_OFFLOAD_H

#include <pthread.h>
#include <stdbool.h>

struct helpers {
	pthread_mutex_t lock;
	pthread_cond_t wanted; /* a job, or their end */
	pthread_cond_t gone;   /* one of them has left */
	struct job *first, **last;
	int threads, idle;
	bool closing;
};

/* On the stack of who waits for it. */
struct job {
	int (*fn)(void *arg);
	void *arg;
	void (*tell)(struct job *job); /* on the helper, at its end */
	void *owner;
	int result;
	bool done; /* the owner's to set */
	struct job *next;
};

int helpers_init(struct helpers *helpers);
/* Waits for all of them. */
void helpers_fini(struct helpers *helpers);
/* -errno: no thread can be had, and the job is not taken. */
int helpers_do(struct helpers *helpers, struct job *job);

#endif
