/*
 * The accept gate: whether clients are taken at all, and what happens to those
 * beyond max_active.  Once, in front of process_request, for every model.
 */
#include "internal.h"

/* What the program may ask for, and which holds for its workers then. */
enum { ASKED = SS_HOLD_SUSPENDED | 0xff * SS_HOLD_USER };

void ss_hold(struct ss_server *server, unsigned reason)
{
	atomic_fetch_or(&server->holds, reason);
	if (supervising(server))
		atomic_fetch_or(&server->page->holds, reason & ASKED);
	workers_look(server);
}

void ss_release(struct ss_server *server, unsigned reason)
{
	if (supervising(server))
		atomic_fetch_and(&server->page->holds, ~(reason & ASKED));
	if (atomic_fetch_and(&server->holds, ~reason) & reason)
		workers_look(server);
}

static unsigned all_holds(const struct ss_server *server)
{
	unsigned holds = atomic_load(&server->holds);
	return server->worker ? holds | atomic_load(&server->page->holds)
			      : holds;
}

bool ss_holding(const struct ss_server *server, unsigned reason)
{
	return all_holds(server) & reason;
}

/* While closing, what is queued is taken whoever has suspended the server. */
bool gate_open(const struct ss_server *server)
{
	unsigned holds = all_holds(server);
	int order = worker_order(server);
	if (order == SS_ORDER_PAUSE || order == SS_ORDER_RETIRE)
		return false;
	if (holds && atomic_load(&server->slot->phase) != STOP_OPEN)
		holds &= SS_HOLD_ERRORS | SS_HOLD_FULL | SS_HOLD_STOPPING |
			 SS_HOLD_WORKERS;
	return !holds;
}

/* 0: any number. */
static int max_active(const struct ss_server *server)
{
	int max = atomic_load_explicit(&server->page->max_active,
				       memory_order_relaxed);
	if (!max)
		max = server->config.max_active;
	if (max <= 0 || (server->most && max > server->most))
		return server->most;
	return max;
}

static bool full(const struct ss_server *server)
{
	int max = max_active(server);
	return max && server->active >= max;
}

void ss_set_max_active(struct ss_server *server, int n, int ahead)
{
	if (!server->most || server->most > n)
		server->most = n;
	server->served = n - ahead;
}

/*
 * Whether there is so much room that the loop is worth waking: not while half
 * of those that may wait in the model still do, since then nobody is idle.
 */
static bool roomy(const struct ss_server *server)
{
	int max = max_active(server);
	int ahead = server->served ? max - server->served : 0;
	return !max || server->active < max - (ahead > 0 ? (ahead - 1) / 2 : 0);
}

/* Takes the next ones only where they have somewhere to go. */
static void adjust(struct ss_server *server)
{
	bool held = atomic_load(&server->holds) & SS_HOLD_FULL, hold = false;
	if (server->config.full == SS_FULL_WAIT)
		hold = held ? !roomy(server) : full(server);
	else if (server->config.full == SS_FULL_QUEUE)
		hold = server->config.queue_size != SS_NONE &&
		       server->waiting_count >= server->config.queue_size;
	if (hold && !held)
		atomic_fetch_or(&server->holds, SS_HOLD_FULL);
	else if (held && !hold)
		atomic_fetch_and(&server->holds, ~(unsigned)SS_HOLD_FULL);
}

void gate_changed(struct ss_server *server)
{
	pthread_mutex_lock(&server->lock);
	adjust(server);
	pthread_mutex_unlock(&server->lock);
}

int ss_limit_active(struct ss_server *server, int n)
{
	if (n < 0)
		return -EINVAL;
	atomic_store(&server->page->max_active, n ? n : SS_NONE);
	gate_changed(server);
	workers_look(server);
	worker_pass_on(server);
	return 0;
}

int ss_active_limit(const struct ss_server *server)
{
	return max_active(server);
}

static void enter(struct ss_server *server, struct ss_request *req)
{
	server->active++;
	req->entered = true;
	count(&server->slot->active);
	crowd_join(server);
	adjust(server);
}

bool gate_enter(struct ss_server *server, struct ss_request *req)
{
	pthread_mutex_lock(&server->lock);
	bool room = !full(server) && !server->waiting;
	if (room)
		enter(server, req);
	pthread_mutex_unlock(&server->lock);
	return room;
}

void gate_leave(struct ss_server *server, struct ss_request *req)
{
	if (!req->entered)
		return;
	req->entered = false;
	server->active--;
	if (!req->running)
		crowd_begun(server);
	atomic_fetch_sub(&server->slot->active, 1);
	adjust(server);
}

void gate_queue(struct ss_server *server, struct ss_request *req)
{
	pthread_mutex_lock(&server->lock);
	req->queue_next = NULL;
	*server->waiting_end = req;
	server->waiting_end = &req->queue_next;
	server->waiting_count++;
	count(&server->slot->queued);
	adjust(server);
	pthread_mutex_unlock(&server->lock);
}

static struct ss_request *pop(struct ss_server *server)
{
	struct ss_request *req = server->waiting;
	if (!req)
		return NULL;
	server->waiting = req->queue_next;
	if (!server->waiting)
		server->waiting_end = &server->waiting;
	server->waiting_count--;
	atomic_fetch_sub(&server->slot->queued, 1);
	return req;
}

/* The oldest that waits, counted as active, if there is room for it.  Who
 * waits is for the serving thread alone to change. */
struct ss_request *gate_next(struct ss_server *server)
{
	if (!server->waiting)
		return NULL;
	pthread_mutex_lock(&server->lock);
	struct ss_request *req = full(server) ? NULL : pop(server);
	if (req)
		enter(server, req);
	pthread_mutex_unlock(&server->lock);
	return req;
}

/* The oldest that waits, room or not: the server gives it up. */
struct ss_request *gate_evict(struct ss_server *server)
{
	pthread_mutex_lock(&server->lock);
	struct ss_request *req = pop(server);
	adjust(server);
	pthread_mutex_unlock(&server->lock);
	return req;
}

/* A request has left: is the loop to take another?  With the lock held. */
bool gate_wanted(struct ss_server *server, unsigned held)
{
	if (server->waiting && roomy(server))
		return true;
	return held & ~atomic_load(&server->holds) & SS_HOLD_FULL;
}

bool gate_ready(struct ss_server *server)
{
	if (!server->waiting)
		return false;
	pthread_mutex_lock(&server->lock);
	bool ready = server->waiting && !full(server);
	pthread_mutex_unlock(&server->lock);
	return ready;
}

/* A word before the door closes: what the socket takes at once, no more. */
void gate_refuse(struct ss_server *server, struct ss_request *req)
{
	const char *text = server->config.refusal;
	if (text) {
		struct iovec iov = { (void *)text, strlen(text) };
		struct ss_block block;
		ss_channel_writev(req->top, &iov, 1, &block);
	}
	ss_request_refuse(req, -EBUSY);
}
