/* The table of live requests. */
#include "live.h"

#include <errno.h>
#include <string.h>

#include "../sys.h"

enum {
	PROBES = 64, /* places that are tried for a request */
	LOOKS = 8,   /* and times that a changing one is read */
};

struct live {
	size_t size;
	unsigned places;
	int processes;
	/* The same addresses in every process. */
	atomic_uint *owner; /* by place: 1 + the process; 0: free */
	atomic_int *hidden; /* by process */
	struct place place[];
};

/* ---- life -----------------------------------------------------------------*/

int live_new(struct live **live, int places, int processes)
{
	size_t size =
		sizeof(struct live) +
		(size_t)places * (sizeof(struct place) + sizeof(atomic_uint)) +
		(size_t)processes * sizeof(atomic_int);
	struct live *l = ss_shared_alloc(size);
	*live = l;
	if (!l)
		return -ENOMEM;
	l->size = size;
	l->places = (unsigned)places;
	l->processes = processes;
	l->owner = (atomic_uint *)(void *)&l->place[places];
	l->hidden = (atomic_int *)(void *)&l->owner[places];
	return 0;
}

void live_free(struct live *live)
{
	if (live)
		ss_shared_free(live, live->size);
}

/* ---- an entry -------------------------------------------------------------*/

/*
 * Whoever reads one of the words that are written between these two finds the
 * version changed: each is released after the odd one, and acquired before the
 * version is read again.
 */
static void begin_writing(struct place *place)
{
	atomic_store_explicit(&place->version, atomic_load(&place->version) | 1,
			      memory_order_relaxed);
}

static void end_writing(struct place *place)
{
	atomic_store_explicit(&place->version, atomic_load(&place->version) + 1,
			      memory_order_release);
}

static void write_peer(struct place *place, struct ss_request *req)
{
	socklen_t len;
	const struct sockaddr *peer = ss_request_peer_sockaddr(req, &len);
	size_t count = (offsetof(struct ss_address, u) + len + 7) / 8;
	uint64_t words[LIVE_PEER_WORDS];
	memset(words, 0, count * sizeof(*words));
	unsigned char *bytes = (unsigned char *)words;
	memcpy(bytes + offsetof(struct ss_address, len), &len, sizeof(len));
	if (peer)
		memcpy(bytes + offsetof(struct ss_address, u), peer, len);
	for (size_t i = 0; i < count; i++)
		atomic_store_explicit(&place->peer[i], words[i],
				      memory_order_release);
}

static void read_peer(const struct place *place, struct ss_address *peer)
{
	uint64_t words[LIVE_PEER_WORDS] = { 0 };
	size_t count = LIVE_PEER_WORDS;
	for (size_t i = 0; i < count; i++) {
		words[i] = atomic_load_explicit(&place->peer[i],
						memory_order_acquire);
		if (i > 0)
			continue;
		memcpy(peer, words, offsetof(struct ss_address, u));
		/* Torn, it may be anything; then it is read again. */
		size_t used = offsetof(struct ss_address, u) + peer->len;
		if (used < sizeof(*peer))
			count = (used + 7) / 8;
	}
	memcpy(peer, words, sizeof(*peer));
}

/* ---- coming and going -----------------------------------------------------*/

static struct place *claim(struct live *live, int process, atomic_uint *cursor)
{
	unsigned first = atomic_load_explicit(cursor, memory_order_relaxed);
	for (unsigned i = 0; i < PROBES && i < live->places; i++) {
		unsigned at = (first + i) % live->places, none = 0;
		atomic_uint *owner = &live->owner[at];
		if (atomic_load_explicit(owner, memory_order_relaxed) ||
		    !atomic_compare_exchange_strong(owner, &none,
						    (unsigned)process + 1))
			continue;
		atomic_store_explicit(cursor, at + 1, memory_order_relaxed);
		return &live->place[at];
	}
	atomic_store_explicit(cursor, first + PROBES, memory_order_relaxed);
	return NULL;
}

struct place *live_enter(struct live *live, int process, atomic_uint *cursor,
			 struct ss_request *req, int64_t since, pid_t pid)
{
	struct place *place = claim(live, process, cursor);
	if (!place) {
		atomic_fetch_add(&live->hidden[process], 1);
		return NULL;
	}
	begin_writing(place);
	atomic_store_explicit(&place->id, ss_request_id(req),
			      memory_order_release);
	atomic_store_explicit(&place->since, since, memory_order_release);
	atomic_store_explicit(&place->pid, (int)pid, memory_order_release);
	write_peer(place, req);
	ss_request_show(req, &place->progress);
	end_writing(place);
	return place;
}

void live_set_peer(struct place *place, struct ss_request *req)
{
	begin_writing(place);
	write_peer(place, req);
	end_writing(place);
}

void live_leave(struct live *live, int process, struct place *place)
{
	if (place)
		atomic_store_explicit(&live->owner[place - live->place], 0,
				      memory_order_release);
	else
		atomic_fetch_sub(&live->hidden[process], 1);
}

void live_drop(struct live *live, int process)
{
	for (unsigned at = 0; at < live->places; at++) {
		unsigned its = (unsigned)process + 1;
		atomic_compare_exchange_strong(&live->owner[at], &its, 0);
	}
	atomic_store(&live->hidden[process], 0);
}

/* ---- looking --------------------------------------------------------------*/

void live_count(const struct live *live, uint64_t *shown, uint64_t *hidden)
{
	*shown = *hidden = 0;
	for (unsigned at = 0; at < live->places; at++)
		*shown += atomic_load(&live->owner[at]) != 0;
	for (int i = 0; i < live->processes; i++)
		*hidden += (uint64_t)atomic_load(&live->hidden[i]);
}

/* 1; 0: it is another one's now, or being written. */
static int try_read(const struct live *live, unsigned at,
		    struct ss_snapshot *shot)
{
	const struct place *place = &live->place[at];
	uint64_t version =
		atomic_load_explicit(&place->version, memory_order_acquire);
	memset(shot, 0, sizeof(*shot));
	shot->id = atomic_load_explicit(&place->id, memory_order_acquire);
	shot->age_ms =
		sys_now_us() / 1000 -
		atomic_load_explicit(&place->since, memory_order_acquire) /
			1000;
	shot->pid = atomic_load_explicit(&place->pid, memory_order_acquire);
	read_peer(place, &shot->peer);
	ss_progress_read(&place->progress, shot, NULL, NULL);
	return !(version & 1) && atomic_load(&place->version) == version;
}

/* What ends within a look was no more than a moment there. */
static bool read_place(const struct live *live, unsigned at,
		       struct ss_snapshot *shot)
{
	for (int i = 0; i < LOOKS; i++) {
		if (!atomic_load(&live->owner[at]))
			return false;
		if (try_read(live, at, shot))
			return atomic_load(&live->owner[at]) != 0;
	}
	return false;
}

int live_each(const struct live *live,
	      int (*fn)(void *arg, const struct ss_snapshot *snapshot),
	      void *arg)
{
	int r = 0;
	for (unsigned at = 0; at < live->places && !r; at++) {
		struct ss_snapshot shot;
		if (read_place(live, at, &shot))
			r = fn(arg, &shot);
	}
	return r;
}
