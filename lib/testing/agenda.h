/* What is to happen when: at one time, in an order that is drawn by lot. */
#ifndef SS_LIB_TESTING_AGENDA_H
#define SS_LIB_TESTING_AGENDA_H

#include <stdint.h>

struct entry {
	int64_t at;
	uint64_t lot; /* the order of those at one time */
	void (*happen)(void *what, uint64_t mark);
	void *what;
	uint64_t mark;
};

struct agenda {
	struct entry *heap; /* from 1 on */
	int count, room;
};

/* -ENOMEM. */
int agenda_add(struct agenda *agenda, const struct entry *entry);
/* The first; NULL: there is none. */
const struct entry *agenda_first(const struct agenda *agenda);
/* Takes it off. */
struct entry agenda_take(struct agenda *agenda);
void agenda_free(struct agenda *agenda);

#endif
