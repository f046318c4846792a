/*
 * Lines of execution on stacks of their own, and the switch from one to
 * another: a dozen instructions, no system call.
 *
 * What a function call keeps is kept: the registers that the platform's calling
 * convention gives to the callee.  The rest is the thread's and shared by all
 * its contexts: signal mask, errno, thread-local variables, and the floating
 * point environment (rounding mode, exceptions): who changes it sets it back
 * before switching.
 */
#ifndef SS_LIB_FIBER_CONTEXT_H
#define SS_LIB_FIBER_CONTEXT_H

#include <signal.h>
#include <stddef.h>

#include "machine.h"
#include "tools.h"

/* A line of execution on a stack of its own, or (zeroed) the thread's own. */
struct context {
	/* While it does not run: the lowest word of its parked frame (see
	 * machine.h), or the ucontext_t on its stack. */
	void *sp;
#ifdef TOOLS_SWITCH
	void (*entry)(void *arg);
	void *arg;
	struct context *from; /* who switched here last */
	const void *bottom;
	size_t size;
	void *fake;    /* the address sanitizer's fake stack */
	void *fiber;   /* the thread sanitizer's */
	sigset_t mask; /* the thread's, while the fiber is told */
#endif
};

/* The machine's part, of switch.S or ucontext.c: a parked frame at the top of
 * this memory that will run entry(arg), and the switch itself. */
void *context_frame(char *base, size_t size, void (*entry)(void *arg),
		    void *arg);
void context_swap(void **save, void *sp);

/*
 * Prepares `context` to run entry(arg) at the first switch to it, on the memory
 * [base, base + size): what stacks_take gave, or less of it at the top.  It is
 * written at its top alone.  entry never returns: its last act is context_exit;
 * or it is never gone back to and its stack used anew.  No system call (but
 * for ucontext's).
 */
void context_init(struct context *context, void *base, size_t size,
		  void (*entry)(void *arg), void *arg);

#ifdef TOOLS_SWITCH
void context_switch(struct context *from, struct context *to);
_Noreturn void context_exit(struct context *from, struct context *to);
#else
/* Saves where we are in `from` and goes on in `to`, on the same thread. */
static inline void context_switch(struct context *from, struct context *to)
{
	context_swap(&from->sp, to->sp);
}

/* The same, for the last time in `from`: once in `to`, its stack is free. */
_Noreturn static inline void context_exit(struct context *from,
					  struct context *to)
{
	context_swap(&from->sp, to->sp);
	__builtin_unreachable();
}
#endif

#endif
