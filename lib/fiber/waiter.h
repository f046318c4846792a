/*
 * Who waits for a source: one request without a stack, or any number of
 * fibers, each with a note on its own stack.
 */
#ifndef SS_LIB_FIBER_WAITER_H
#define SS_LIB_FIBER_WAITER_H

#include "loop.h"

/* A source's `waiter`: a list of notes, or with this bit set a request. */
enum { WAITER_REQUEST = 1 };

struct waiter {
	struct fiber *fiber;
	struct ss_source *source;
	struct waiter *next;
	short events;
	bool told;
};

void waiter_add(struct waiter *waiter, struct fiber *fiber,
		struct ss_source *source, short events);
void waiter_remove(struct waiter *waiter);

/* Wakes those who wait for these events; those that nobody waited for. */
short waiters_tell(struct ss_source *source, short revents);

static inline void waiter_set_request(struct ss_source *source,
				      struct ss_request *req)
{
	source->waiter = (char *)req + WAITER_REQUEST;
}

static inline struct ss_request *waiter_request(const struct ss_source *source)
{
	char *tagged = source->waiter;
	bool request = (uintptr_t)tagged & WAITER_REQUEST;
	return request ? (struct ss_request *)(tagged - WAITER_REQUEST) : NULL;
}

#endif
