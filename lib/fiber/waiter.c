/* Fibers that wait for a source: a list of notes on their stacks. */
#include "waiter.h"

#include "../sys.h"

void waiter_add(struct waiter *waiter, struct fiber *fiber,
		struct ss_source *source, short events)
{
	*waiter = (struct waiter){ .fiber = fiber,
				   .source = source,
				   .next = source->waiter,
				   .events = events };
	source->waiter = waiter;
}

void waiter_remove(struct waiter *waiter)
{
	struct waiter *first = waiter->source->waiter;
	if (first == waiter) {
		waiter->source->waiter = waiter->next;
		return;
	}
	while (first && first->next != waiter)
		first = first->next;
	if (first)
		first->next = waiter->next;
}

/* What is of concern to whoever waits for these events. */
static short meaning(short events)
{
	short means = events | POLLERR | POLLHUP;
	return events & POLLIN ? means | POLLPRI | POLLRDHUP : means;
}

short waiters_tell(struct ss_source *source, short revents)
{
	short left = revents;
	for (struct waiter *w = source->waiter; w; w = w->next) {
		if (!(revents & meaning(w->events)))
			continue;
		left &= (short)~w->events;
		w->told = true;
		fiber_wake(w->fiber);
	}
	return left;
}
