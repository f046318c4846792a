/*
 * How far a request has come, and what it waits for, as others see it: told by
 * relaxed stores of its runner, in the request, or where a layer shows it to
 * other processes.
 */
#include "internal.h"

/* With TOOK: for how long its handler ran; without, when it began; 0: it has
 * not. */
#define TOOK (1ull << 63)

struct shown {
	struct progress progress;
	atomic_ullong us;
};
static_assert(sizeof(struct shown) == sizeof(struct ss_progress),
	      "what layers give room for");

static struct shown *shown(const struct ss_request *req)
{
	struct progress *progress = progress_of(req);
	return progress == &req->own ? NULL : (struct shown *)progress;
}

/* ---- told -----------------------------------------------------------------*/

void progress_begin(struct ss_request *req)
{
	struct shown *where = shown(req);
	progress_waits(req, SS_WAITS_NOTHING);
	if (!where)
		return;
	atomic_store_explicit(&where->us, (uint64_t)sys_now_us(),
			      memory_order_relaxed);
	if (req->server->child)
		atomic_store_explicit(&where->progress.pid, (int)sys_getpid(),
				      memory_order_relaxed);
}

void progress_end(struct ss_request *req)
{
	struct shown *where = shown(req);
	/* A datagram has no more to do: it ends with its request. */
	if (!where || req->dgram)
		return;
	uint64_t began = atomic_load_explicit(&where->us, memory_order_relaxed);
	atomic_store_explicit(&where->us,
			      ((uint64_t)sys_now_us() - began) | TOOK,
			      memory_order_relaxed);
}

void progress_blocks(struct ss_request *req, short events)
{
	struct ss_request *owner = owner_of(req);
	if (owner != req)
		progress_waits(owner, SS_WAITS_OTHERS);
	else if (events & POLLOUT)
		progress_waits(req, SS_WAITS_OUTPUT);
	else if (events & POLLIN)
		progress_listens(req);
	else
		progress_waits(req, SS_WAITS_TIME);
}

/* ---- looked at ------------------------------------------------------------*/

static void look(const struct progress *progress, struct ss_snapshot *shot)
{
	shot->bytes_in =
		atomic_load_explicit(&progress->bytes_in, memory_order_acquire);
	shot->bytes_out = atomic_load_explicit(&progress->bytes_out,
					       memory_order_acquire);
	shot->waits = (enum ss_waits)atomic_load_explicit(&progress->waits,
							  memory_order_acquire);
	int pid = atomic_load_explicit(&progress->pid, memory_order_acquire);
	if (pid)
		shot->pid = (pid_t)pid;
	shot->idle = shot->waits == SS_WAITS_MESSAGE;
	shot->running = shot->waits != SS_WAITS_TURN;
}

/* What it was shown in may be another's by now: then it has its own again. */
void progress_look(const struct ss_request *req, struct ss_snapshot *shot)
{
	const struct progress *progress;
	do {
		progress = atomic_load(&req->progress);
		look(progress, shot);
	} while (progress != atomic_load(&req->progress));
	if (shot->pid && progress == &req->own)
		shot->waits = SS_WAITS_UNKNOWN;
}

void ss_progress_read(const struct ss_progress *progress,
		      struct ss_snapshot *snapshot, int64_t *began,
		      int64_t *took)
{
	const struct shown *where = (const struct shown *)progress;
	uint64_t us = atomic_load_explicit(&where->us, memory_order_acquire);
	look(&where->progress, snapshot);
	if (began)
		*began = us && !(us & TOOK) ? (int64_t)us : -1;
	if (took)
		*took = us & TOOK ? (int64_t)(us & ~TOOK) : -1;
}

/* But for the pid, which is not the same in both. */
static void move_to(struct progress *to, const struct progress *from)
{
	atomic_store_explicit(&to->bytes_in, atomic_load(&from->bytes_in),
			      memory_order_release);
	atomic_store_explicit(&to->bytes_out, atomic_load(&from->bytes_out),
			      memory_order_release);
	atomic_store_explicit(&to->waits, atomic_load(&from->waits),
			      memory_order_release);
}

void ss_request_show(struct ss_request *req, struct ss_progress *progress)
{
	struct shown *where = (struct shown *)progress;
	struct progress *to = where ? &where->progress : &req->own;
	if (where)
		atomic_store_explicit(&where->us, 0, memory_order_release);
	if (to != progress_of(req)) {
		move_to(to, progress_of(req));
		if (where)
			atomic_store_explicit(&to->pid, 0,
					      memory_order_release);
	}
	atomic_store_explicit(&req->progress, to, memory_order_release);
}

const char *ss_waits_name(int waits)
{
	static const char *const names[SS_WAITS_MAX] = {
		[SS_WAITS_UNKNOWN] = "unknown",	  [SS_WAITS_TURN] = "queued",
		[SS_WAITS_NOTHING] = "running",	  [SS_WAITS_MESSAGE] = "idle",
		[SS_WAITS_INPUT] = "reading",	  [SS_WAITS_OUTPUT] = "writing",
		[SS_WAITS_TIME] = "sleeping",	  [SS_WAITS_OTHERS] = "waiting",
		[SS_WAITS_OFFLOAD] = "offloaded",
	};
	return waits >= 0 && waits < SS_WAITS_MAX ? names[waits] : "unknown";
}
