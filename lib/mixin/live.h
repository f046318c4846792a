/*
 * A table of live requests, of a fixed size, in memory that all processes of a
 * server share: anybody looks, and nobody locks.
 *
 * A place belongs to a process, by its owner's word, from live_enter until
 * live_leave, or until the process has ended.  Who looks meanwhile sees a whole
 * entry or none.
 */
#ifndef SS_MIXIN_LIVE_H
#define SS_MIXIN_LIVE_H

#include <stdatomic.h>

#include <socketserver/layer.h>

enum { LIVE_PEER_WORDS = (sizeof(struct ss_address) + 7) / 8 };

struct live;

struct place {
	_Alignas(64) struct ss_progress progress;
	atomic_ullong version; /* odd: it is being written */
	atomic_ullong id;
	atomic_llong since; /* us */
	atomic_int pid;
	atomic_ullong peer[LIVE_PEER_WORDS];
};

/* For processes 0..`processes` - 1; -ENOMEM.  NULL is ignored by free. */
int live_new(struct live **live, int places, int processes);
void live_free(struct live *live);

/*
 * A place for a request of the process, looked for from *cursor on.  Accepted
 * at `since`, by `pid`.  NULL: there is none; it is counted.
 */
struct place *live_enter(struct live *live, int process, atomic_uint *cursor,
			 struct ss_request *req, int64_t since, pid_t pid);
/* The peer, once more. */
void live_set_peer(struct place *place, struct ss_request *req);
/* place NULL: one that was counted. */
void live_leave(struct live *live, int process, struct place *place);
/* The process has ended: all that it had. */
void live_drop(struct live *live, int process);

void live_count(const struct live *live, uint64_t *shown, uint64_t *hidden);
/* As ss_metrics_each. */
int live_each(const struct live *live,
	      int (*fn)(void *arg, const struct ss_snapshot *snapshot),
	      void *arg);

#endif
