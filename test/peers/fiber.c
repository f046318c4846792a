/* For a debugger: a fiber three calls deep, running and then parked. */
#include <stdio.h>

#include "fiber/context.h"
#include "fiber/stacks.h"

static struct context thread, fiber;
static volatile int depth;

__attribute__((noinline)) void deepest(void);
void deepest(void)
{
	depth = 3;
	context_switch(&fiber, &thread);
	depth = 0;
}

__attribute__((noinline)) static void middle(void)
{
	deepest();
	depth--;
}

static void fiber_entry(void *arg)
{
	(void)arg;
	middle();
	context_exit(&fiber, &thread);
}

__attribute__((noinline)) void parked(void *sp);
void parked(void *sp)
{
	printf("%p\n", sp);
}

int main(void)
{
	struct stacks *stacks;
	if (stacks_new(&stacks, 65536) < 0)
		return 1;
	void *base = stacks_take(stacks);
	if (!base)
		return 1;
	context_init(&fiber, base, stacks_size(stacks), fiber_entry, NULL);
	context_switch(&thread, &fiber);
	parked(fiber.sp);
	context_switch(&thread, &fiber);
	stacks_free(stacks);
	return 0;
}
