/*
 * The deadlines of one loop's requests, the nearest first: a heap that moves
 * an entry only when its deadline comes nearer.  One that has moved away, as
 * each read's does, is put where it belongs when it comes up: so a deadline
 * per message costs nothing per message.
 */
#ifndef SS_LIB_FIBER_TIMERS_H
#define SS_LIB_FIBER_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

struct timer {
	int64_t at;  /* ms of ss_now */
	void *owner; /* of the place that the heap keeps up to date */
	int *place;
};

struct timers {
	struct timer *heap; /* heap[0] is not used */
	int count, room;
};

void timers_free(struct timers *timers);

/* Due at this time or sooner; *place (0: none) is the heap's from then on,
 * until it is dropped.  -ENOMEM. */
int timers_arm(struct timers *timers, int *place, int64_t at, void *owner);
void timers_drop(struct timers *timers, int *place);

/* The nearest; SS_NONE. */
int64_t timers_next(const struct timers *timers);
/* Takes off the first that is due; its owner, or NULL. */
void *timers_due(struct timers *timers, int64_t now);

#endif
