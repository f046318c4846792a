/* Contexts: how they begin, and what the sanitizers are told of them. */
#include "context.h"

#include <stdint.h>

#include "../sys.h"

#ifdef CONTEXT_ASSEMBLY
extern char context_start[] __attribute__((visibility("hidden")));

/* The first switch returns from this frame to context_start.  (It skips the
 * first instruction: unwinders look for a caller one byte before.) */
void *context_frame(char *base, size_t size, void (*entry)(void *arg),
		    void *arg)
{
	uintptr_t top = ((uintptr_t)base + size) & ~(uintptr_t)15;
	uintptr_t *frame = (uintptr_t *)top - CONTEXT_WORDS;
	for (int i = 0; i < CONTEXT_WORDS; i++)
		frame[i] = 0;
	frame[CONTEXT_ENTRY] = (uintptr_t)entry;
	frame[CONTEXT_ARG] = (uintptr_t)arg;
	frame[CONTEXT_RETURN] = (uintptr_t)context_start + CONTEXT_SKIP;
	return frame;
}
#endif

#ifdef TOOLS_SWITCH

/* Between the two calls the sanitizers have another stack in mind than the one
 * that these functions run on. */
#define UNSEEN __attribute__((no_sanitize("address"), no_sanitize("thread")))

#ifdef TOOLS_TSAN
enum { FIBER_RUNS = 256 };

/*
 * Made once for each stack and used again: to make one is dear.  But a context
 * that exits leaves its calls on the fiber's shadow stack, which has room for
 * 65,536 and is not checked: so it is renewed now and then.
 */
static void *fiber_of(struct tools_stack *stack)
{
	if (stack->fiber && stack->runs++ < FIBER_RUNS)
		return stack->fiber;
	if (stack->fiber)
		__tsan_destroy_fiber(stack->fiber);
	stack->runs = 0;
	stack->fiber = __tsan_create_fiber(0);
	return stack->fiber;
}
#endif

/* Inlined, or the thread sanitizer would see its return in another fiber. */
UNSEEN __attribute__((always_inline)) static inline void
leave(struct context *from, struct context *to, void **fake)
{
	to->from = from;
#ifdef TOOLS_ASAN
	__sanitizer_start_switch_fiber(fake, to->bottom, to->size);
#else
	(void)fake;
#endif
#ifdef TOOLS_TSAN
	/* Another thread than the last time may turn a loop. */
	if (!from->entry)
		from->fiber = __tsan_get_current_fiber();
	/* One that comes meanwhile would be kept for the fiber to handle when
	 * it runs again; this call has it handle those that it has. */
	sigset_t all;
	sigfillset(&all);
	sys_pthread_sigmask(SIG_SETMASK, &all, &from->mask);
	__tsan_switch_to_fiber(to->fiber, 0);
#endif
}

/* Who left is still there; where its stack is, is news if it is a thread. */
UNSEEN static void arrive(struct context *context)
{
#ifdef TOOLS_ASAN
	__sanitizer_finish_switch_fiber(context->fake, &context->from->bottom,
					&context->from->size);
#endif
#ifdef TOOLS_TSAN
	sys_pthread_sigmask(SIG_SETMASK, &context->from->mask, NULL);
#endif
}

UNSEEN static void begin(void *arg)
{
	struct context *context = arg;
#ifdef TOOLS_TSAN
	sys_poll(NULL, 0, 0); /* as in sys.c; each fiber is a thread to it */
#endif
	arrive(context);
	context->entry(context->arg);
}

void context_init(struct context *context, void *base, size_t size,
		  void (*entry)(void *arg), void *arg)
{
	*context = (struct context){
		.entry = entry,
		.arg = arg,
		.bottom = base,
		.size = size,
	};
#ifdef TOOLS_ASAN
	/* Frames that were never left keep their redzones poisoned. */
	__asan_unpoison_memory_region(base, size);
#endif
#ifdef TOOLS_TSAN
	context->fiber = fiber_of(*(struct tools_stack **)base);
#endif
	context->sp = context_frame(base, size, begin, context);
}

UNSEEN void context_switch(struct context *from, struct context *to)
{
	leave(from, to, &from->fake);
	context_swap(&from->sp, to->sp);
	arrive(from);
}

UNSEEN void context_exit(struct context *from, struct context *to)
{
	leave(from, to, NULL);
	context_swap(&from->sp, to->sp);
	__builtin_unreachable();
}

#undef UNSEEN

#else

void context_init(struct context *context, void *base, size_t size,
		  void (*entry)(void *arg), void *arg)
{
	context->sp = context_frame(base, size, entry, arg);
}

#endif
