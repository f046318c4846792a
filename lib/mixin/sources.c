/*
 * The table of sources.  What a process has is written in a row of its own,
 * and the sum stands at the source: a process that is killed leaves its row,
 * which is taken off; one that is killed within the lock leaves sums that may
 * be wrong, which are made anew from the rows.
 */
#include <errno.h>
#include <string.h>

#include <socketserver/layer.h>

#include "../sys.h"
#include "../thread.h"
#include "sources.h"

enum {
	WAYS = 8,    /* places that a source may have */
	PROBES = 32, /* places that a borrowed request may have */
};

struct borrowed {
	uint64_t id;
	uint32_t name; /* of its source, as in `hold`; 0: free */
};

struct sources {
	size_t size;
	uint32_t places, borrowed_room;
	int processes;
	uint64_t seed; /* so that nobody can choose who shares his places */
	pthread_mutex_t lock;
	struct borrowed *borrowed; /* the same address in every process */
	uint32_t *rows;		   /* [process][place] */
	struct source source[];
};

/* ---- life -----------------------------------------------------------------*/

static uint32_t rounded(uint32_t places)
{
	return (places + WAYS - 1) / WAYS * WAYS;
}

/* The mapping is made before any fork, so that pointers into it hold in all. */
static void lay_out(struct sources *s)
{
	unsigned char *at = (unsigned char *)&s->source[s->places];
	s->borrowed = (struct borrowed *)(void *)at;
	s->rows = (uint32_t *)(void *)(s->borrowed + s->borrowed_room);
}

int sources_new(struct sources **sources, uint32_t places, int processes,
		uint32_t borrowed)
{
	places = rounded(places);
	size_t size = sizeof(struct sources) + places * sizeof(struct source) +
		      borrowed * sizeof(struct borrowed) +
		      (size_t)processes * places * sizeof(uint32_t);
	struct sources *s = ss_shared_alloc(size);
	*sources = s;
	if (!s)
		return -ENOMEM;
	s->size = size;
	s->places = places;
	s->borrowed_room = borrowed;
	s->processes = processes;
	s->seed = (uint64_t)(uintptr_t)s ^ (uint64_t)sys_now_ms() << 32 ^
		  (uint64_t)sys_getpid();
	lay_out(s);
	bool shared = processes > 1 || borrowed;
	int r = shared ? thread_shared_lock_init(&s->lock)
		       : -sys_pthread_mutex_init(&s->lock, NULL);
	if (r < 0) {
		ss_shared_free(s, size);
		*sources = NULL;
	}
	return r;
}

void sources_free(struct sources *sources)
{
	if (!sources)
		return;
	pthread_mutex_destroy(&sources->lock);
	ss_shared_free(sources, sources->size);
}

/* ---- the lock -------------------------------------------------------------*/

static uint32_t *row_of(const struct sources *s, int process)
{
	return &s->rows[(size_t)process * s->places];
}

/* Who had the lock was killed: the rows say how many there are, and what is
 * borrowed says it for the row of process 0. */
static void recount(struct sources *s)
{
	uint32_t *first = row_of(s, 0);
	if (s->borrowed_room)
		memset(first, 0, s->places * sizeof(*first));
	for (uint32_t i = 0; i < s->borrowed_room; i++)
		if (s->borrowed[i].name)
			first[s->borrowed[i].name - 1]++;
	for (uint32_t at = 0; at < s->places; at++) {
		s->source[at].held = 0;
		for (int p = 0; p < s->processes; p++)
			s->source[at].held += row_of(s, p)[at];
	}
}

void sources_lock(struct sources *sources)
{
	if (thread_shared_lock(&sources->lock))
		recount(sources);
}

void sources_unlock(struct sources *sources)
{
	pthread_mutex_unlock(&sources->lock);
}

/* ---- finding --------------------------------------------------------------*/

/* The finisher of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mixed(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static struct source *set_of(struct sources *s, const struct cidr *key)
{
	uint64_t hash = mixed(s->seed ^ key->hi);
	hash = mixed((hash + (uint64_t)key->kind) ^ key->lo);
	return &s->source[((hash >> 32) * (s->places / WAYS) >> 32) * WAYS];
}

/* Whether a is the better one to make way; that of nobody first. */
static bool rather(const struct source *a, const struct source *b)
{
	if (!a->key.kind || !b->key.kind)
		return !a->key.kind;
	return a->bucket.full_at < b->bucket.full_at;
}

struct source *sources_find(struct sources *sources, const struct cidr *key)
{
	struct source *set = set_of(sources, key), *free = NULL;
	for (struct source *s = set; s < set + WAYS; s++) {
		if (s->key.kind && cidr_compare(&s->key, key) == 0)
			return s;
		if (!s->held && (!free || rather(s, free)))
			free = s;
	}
	if (free)
		*free = (struct source){ .key = *key };
	return free;
}

/* ---- counting -------------------------------------------------------------*/

uint32_t sources_hold(struct sources *sources, struct source *source,
		      int process)
{
	uint32_t at = (uint32_t)(source - sources->source);
	row_of(sources, process)[at]++;
	source->held++;
	return at + 1;
}

void sources_release(struct sources *sources, uint32_t name, int process)
{
	row_of(sources, process)[name - 1]--;
	sources->source[name - 1].held--;
}

/* The first that fits, of the places that the id may have. */
static struct borrowed *find_borrowed(struct sources *s, uint64_t id,
				      bool (*fits)(const struct borrowed *b,
						   uint64_t id))
{
	for (uint32_t i = 0; i < PROBES && i < s->borrowed_room; i++) {
		struct borrowed *b = &s->borrowed[(id + i) % s->borrowed_room];
		if (fits(b, id))
			return b;
	}
	return NULL;
}

static bool is_free(const struct borrowed *b, uint64_t id)
{
	(void)id;
	return !b->name;
}

static bool is_that(const struct borrowed *b, uint64_t id)
{
	return b->name && b->id == id;
}

bool sources_borrow(struct sources *sources, struct source *source, uint64_t id)
{
	struct borrowed *b = find_borrowed(sources, id, is_free);
	if (!b)
		return false;
	b->id = id;
	b->name = (uint32_t)(source - sources->source) + 1;
	sources_hold(sources, source, 0);
	return true;
}

void sources_give_back(struct sources *sources, uint64_t id)
{
	struct borrowed *b = find_borrowed(sources, id, is_that);
	if (!b)
		return;
	sources_release(sources, b->name, 0);
	b->name = 0;
}

void sources_drop(struct sources *sources, int process)
{
	uint32_t *row = row_of(sources, process);
	for (uint32_t at = 0; at < sources->places; at++) {
		if (!row[at])
			continue;
		sources->source[at].held -= row[at];
		row[at] = 0;
	}
}

void sources_count(const struct sources *sources, uint64_t *held,
		   uint64_t *known)
{
	*held = *known = 0;
	for (uint32_t at = 0; at < sources->places; at++) {
		*held += sources->source[at].held;
		*known += sources->source[at].key.kind != CIDR_NONE;
	}
}
