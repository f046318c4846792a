/*
 * A table of where clients come from, of a fixed size, in memory that all
 * processes of a server share: how many requests each source has, by the
 * process that accepted them, and its bucket.
 *
 * A source is looked for in few places, by its hash.  Where those are all
 * taken, one that has no request makes way, the one whose bucket is full, or
 * will be soonest; where all have requests, there is no place.
 */
#ifndef SS_MIXIN_SOURCES_H
#define SS_MIXIN_SOURCES_H

#include "bucket.h"
#include "cidr.h"

struct sources;

struct source {
	struct cidr key;
	uint32_t held; /* requests, of all processes */
	struct bucket bucket;
};

/*
 * `places` in the table; for processes 0..`processes` - 1; room to remember
 * `borrowed` requests that are counted by one process and given back by
 * another.  With one process, and nothing borrowed, it is that process's alone.
 * -ENOMEM.  NULL is ignored by free.
 */
int sources_new(struct sources **sources, uint32_t places, int processes,
		uint32_t borrowed);
void sources_free(struct sources *sources);

/* All that follow are between these; any thread, any process. */
void sources_lock(struct sources *sources);
void sources_unlock(struct sources *sources);

/* That of the key, new or old; NULL: there is no place. */
struct source *sources_find(struct sources *sources, const struct cidr *key);

/* One more request of the process; how it is to be named when it has ended. */
uint32_t sources_hold(struct sources *sources, struct source *source,
		      int process);
void sources_release(struct sources *sources, uint32_t name, int process);

/*
 * The same for process 0, where it may be counted in another one: by the
 * request's id.  False: too many are counted so.  Releasing one that is not
 * counted does nothing.
 */
bool sources_borrow(struct sources *sources, struct source *source,
		    uint64_t id);
void sources_give_back(struct sources *sources, uint64_t id);

/* A process has ended: all that it had. */
void sources_drop(struct sources *sources, int process);

/* What there is: requests, and sources that are remembered. */
void sources_count(const struct sources *sources, uint64_t *held,
		   uint64_t *known);

#endif
