/* A source's `waiter`: a list of notes, or with its lowest bit set a request.
 */
#include "waiter.h"

#include "../sys.h"

enum { REQUEST = 1 };

static bool is_request(const struct ss_source *source)
{
	return (uintptr_t)source->waiter & REQUEST;
}

void waiter_set_request(struct ss_source *source, struct ss_request *req)
{
	source->waiter = (char *)req + REQUEST;
}

struct ss_request *waiter_request(const struct ss_source *source)
{
	char *tagged = source->waiter;
	return is_request(source) ? (struct ss_request *)(tagged - REQUEST)
				  : NULL;
}

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
