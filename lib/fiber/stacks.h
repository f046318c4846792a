/*
 * Stacks for one loop's fibers, each above a guard page: mapped by the slab, no
 * page of theirs touched before it is used, the last given back taken first.
 * Not for several threads at once.
 */
#ifndef SS_LIB_FIBER_STACKS_H
#define SS_LIB_FIBER_STACKS_H

#include <stdbool.h>
#include <stddef.h>

struct stacks;

/* Of `size` usable bytes each, rounded up to pages.  -ENOMEM. */
int stacks_new(struct stacks **result, size_t size);

/* With all their memory, in use or not; NULL allowed. */
void stacks_free(struct stacks *stacks);

/* The lowest usable address of a stack; NULL: out of memory. */
void *stacks_take(struct stacks *stacks);

/* What stacks_take returned, and nothing runs on.  What lay in it is lost. */
void stacks_give(struct stacks *stacks, void *base);

/* Usable bytes of each. */
size_t stacks_size(const struct stacks *stacks);

/* Does the address lie in a guard page, and in that of which stack?  For the
 * handler of a SIGSEGV that a fiber of this loop caused: async-signal-safe. */
bool stacks_guard_hit(const struct stacks *stacks, const void *address,
		      void **base);

#endif
