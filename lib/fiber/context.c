/* Contexts: how they begin, and what the tools are told of them. */
#include "context.h"

#include <assert.h>
#include <stdint.h>

#ifdef CONTEXT_ASSEMBLY
extern const char context_start[] __attribute__((visibility("hidden")));

/* The frame from which the first switch returns to context_start. */
void *context_frame(char *top, void (*entry)(void *arg), void *arg)
{
	uintptr_t *frame = (uintptr_t *)((uintptr_t)top & ~(uintptr_t)15);
	frame -= CONTEXT_WORDS;
	for (int i = 0; i < CONTEXT_WORDS; i++)
		frame[i] = 0;
	frame[CONTEXT_ENTRY] = (uintptr_t)entry;
	frame[CONTEXT_ARG] = (uintptr_t)arg;
	frame[CONTEXT_RETURN] = (uintptr_t)context_start;
	return frame;
}
#endif

void context_init(struct context *context, void *base, size_t size,
		  void (*entry)(void *arg), void *arg)
{
	context->sp = context_frame((char *)base + size, entry, arg);
}
