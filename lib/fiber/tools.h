/*
 * What the sanitizers and valgrind want to be told of stacks; of the switches
 * context.c tells them.  Without them all of it is empty, and with valgrind's
 * header alone nothing happens after a stack's first use.
 */
#ifndef SS_LIB_FIBER_TOOLS_H
#define SS_LIB_FIBER_TOOLS_H

#include <stddef.h>

#include "../sys.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define TOOLS_ASAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define TOOLS_ASAN 1
#endif
#ifdef SYS_TSAN
#define TOOLS_TSAN 1
#endif
#if defined(TOOLS_ASAN) || defined(TOOLS_TSAN)
#define TOOLS_SWITCH 1 /* they are told of each switch */
#endif

#if !defined(NVALGRIND) && !defined(TOOLS_SWITCH) && defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#define TOOLS_VALGRIND 1
#include <valgrind/valgrind.h>
#endif
#endif

#ifdef TOOLS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#ifdef TOOLS_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* How many times the stack a function needs under them. */
#ifdef TOOLS_SWITCH
#define TOOLS_STACKS 4
#else
#define TOOLS_STACKS 1
#endif

/* What they know of one stack; zeroed, and kept as long as its memory. */
struct tools_stack {
	unsigned id; /* valgrind's */
#ifdef TOOLS_TSAN
	unsigned runs; /* contexts begun on it */
	void *fiber;   /* the thread sanitizer's */
#endif
};

/* Before its first use. */
static inline void tools_stack_made(struct tools_stack *stack, char *base,
				    size_t size)
{
	(void)stack, (void)base, (void)size;
#ifdef TOOLS_VALGRIND
	stack->id = VALGRIND_STACK_REGISTER(base, base + size);
#endif
}

/* Before its memory goes. */
static inline void tools_stack_gone(struct tools_stack *stack)
{
	(void)stack;
#ifdef TOOLS_VALGRIND
	VALGRIND_STACK_DEREGISTER(stack->id);
#endif
#ifdef TOOLS_TSAN
	if (stack->fiber)
		__tsan_destroy_fiber(stack->fiber);
#endif
}

static inline void tools_stack_taken(struct tools_stack *stack, void *base,
				     size_t size)
{
	(void)stack, (void)base, (void)size;
#ifdef TOOLS_ASAN
	/* What is reachable from a parked fiber is no leak. */
	__lsan_register_root_region(base, size);
#endif
#ifdef TOOLS_TSAN
	/* For context_init to find. */
	*(struct tools_stack **)base = stack;
#endif
}

static inline void tools_stack_given(void *base, size_t size)
{
	(void)base, (void)size;
#ifdef TOOLS_ASAN
	__lsan_unregister_root_region(base, size);
	/* Frames that were never left keep their redzones poisoned. */
	__asan_unpoison_memory_region(base, size);
#endif
}

#endif
