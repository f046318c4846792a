/* A binary heap whose entries know their place. */
#include "timers.h"

#include <errno.h>
#include <stddef.h>

#include <socketserver/common.h>

#include "../sys.h"

static void put(struct timers *timers, int at, struct timer timer)
{
	timers->heap[at] = timer;
	*timer.place = at;
}

static void rise(struct timers *timers, int at, struct timer timer)
{
	while (at > 1 && timers->heap[at / 2].at > timer.at) {
		put(timers, at, timers->heap[at / 2]);
		at /= 2;
	}
	put(timers, at, timer);
}

static void sink(struct timers *timers, int at, struct timer timer)
{
	for (;;) {
		int child = 2 * at;
		if (child > timers->count)
			break;
		if (child < timers->count &&
		    timers->heap[child + 1].at < timers->heap[child].at)
			child++;
		if (timers->heap[child].at >= timer.at)
			break;
		put(timers, at, timers->heap[child]);
		at = child;
	}
	put(timers, at, timer);
}

static int make_room(struct timers *timers)
{
	if (timers->count + 1 < timers->room)
		return 0;
	int room = timers->room ? 2 * timers->room : 64;
	struct timer *more =
		sys_realloc(timers->heap, (size_t)room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	timers->heap = more;
	timers->room = room;
	return 0;
}

int timers_arm(struct timers *timers, int *place, int64_t at, void *owner)
{
	struct timer timer = { .at = at, .owner = owner, .place = place };
	if (*place) {
		if (at < timers->heap[*place].at)
			rise(timers, *place, timer);
		return 0;
	}
	if (make_room(timers) < 0)
		return -ENOMEM;
	rise(timers, ++timers->count, timer);
	return 0;
}

void timers_drop(struct timers *timers, int *place)
{
	int at = *place;
	if (!at)
		return;
	*place = 0;
	struct timer last = timers->heap[timers->count--];
	if (at > timers->count)
		return;
	if (at > 1 && timers->heap[at / 2].at > last.at)
		rise(timers, at, last);
	else
		sink(timers, at, last);
}

int64_t timers_next(const struct timers *timers)
{
	return timers->count ? timers->heap[1].at : SS_NONE;
}

void *timers_due(struct timers *timers, int64_t now)
{
	if (!timers->count || timers->heap[1].at > now)
		return NULL;
	void *owner = timers->heap[1].owner;
	timers_drop(timers, timers->heap[1].place);
	return owner;
}

void timers_free(struct timers *timers)
{
	sys_free(timers->heap);
	timers->heap = NULL;
	timers->count = timers->room = 0;
}
