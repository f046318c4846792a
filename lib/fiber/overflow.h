/*
 * A stack overflow, named before it kills: by a handler of SIGSEGV, which runs
 * on an alternate stack and knows the guard page of the fiber that runs.  The
 * fault then strikes again, as if nobody had looked; and what is no overflow
 * goes to whoever had the signal before.
 */
#ifndef SS_LIB_FIBER_OVERFLOW_H
#define SS_LIB_FIBER_OVERFLOW_H

#include <signal.h>
#include <stdbool.h>

struct fiber_loop;

/* Sets the process's handler, until as many have unset it.  -errno. */
int overflow_watch(void);
void overflow_unwatch(void);

/* A loop's alternate stack; of none, ss_sp is NULL.  -ENOMEM. */
int overflow_stack_new(stack_t *stack);
void overflow_stack_free(stack_t *stack);

/* What a thread had before it watched. */
struct overflow_saved {
	struct fiber_loop *loop;
	bool own_stack; /* the program has given it one */
	bool blocked;	/* the signal */
};

/* While this thread runs the loop's fibers; nests. */
void overflow_arm(struct fiber_loop *loop, struct overflow_saved *saved);
void overflow_disarm(const struct overflow_saved *saved);

#endif
