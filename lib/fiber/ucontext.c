/*
 * The switch by ucontext(3), for machines that switch.S does not know.  Each
 * switch asks the kernel for the signal mask, to set the one it has: several
 * hundred nanoseconds.  What is parked lies on its own stack.
 */
#include "context.h"

#ifndef CONTEXT_ASSEMBLY
#include <stdint.h>
#include <ucontext.h>

struct first {
	ucontext_t context;
	void (*entry)(void *arg);
	void *arg;
};

/* makecontext(3) passes ints. */
static void start(unsigned high, unsigned low)
{
	const struct first *first =
		(const struct first *)((uintptr_t)high << 16 << 16 | low);
	first->entry(first->arg);
}

void *context_frame(char *base, size_t size, void (*entry)(void *arg),
		    void *arg)
{
	size -= sizeof(struct first) + (uintptr_t)(base + size) % 64;
	size -= (uintptr_t)(base + size) % 64;
	struct first *first = (struct first *)(base + size);
	first->entry = entry;
	first->arg = arg;
	/* cppcheck-suppress getcontextCalled */
	getcontext(&first->context);
	first->context.uc_stack.ss_sp = base;
	first->context.uc_stack.ss_size = size;
	first->context.uc_link = NULL;
	/* cppcheck-suppress makecontextCalled */
	makecontext(&first->context, (void (*)(void))start, 2,
		    (unsigned)((uintptr_t)first >> 16 >> 16),
		    (unsigned)(uintptr_t)first);
	return &first->context;
}

/* Not by the address sanitizer, whose frames may lie on its fake stack. */
__attribute__((no_sanitize("address"))) void context_swap(void **save, void *sp)
{
	ucontext_t here = { .uc_link = NULL };
	/* cppcheck-suppress autoVariables ; it is there as long as it is parked
	 */
	*save = &here;
	/* cppcheck-suppress swapcontextCalled */
	swapcontext(&here, sp);
}
#endif
