/*
 * The graceful stop: what is queued is taken, the listeners close, what is
 * being served may finish until the drain deadline; then its reads see end of
 * file, then all its calls fail, and who does not come back is abandoned.
 */
#include "internal.h"

#ifdef SS_LINUX
#include <netinet/tcp.h>
#endif

enum { GRACE_MS = 250, FORCE_MS = 1000 };

static bool overdue(struct ss_server *server)
{
	int64_t at = stop_drain_deadline(server);
	return at != SS_NONE && now(server) >= at;
}

static int live(struct ss_server *server)
{
	pthread_mutex_lock(&server->lock);
	int n = server->live;
	pthread_mutex_unlock(&server->lock);
	return n;
}

static void dispatch_waiting(struct ss_server *server)
{
	struct ss_request *req;
	while ((req = gate_next(server)))
		accept_dispatch(server, req);
}

/* ---- waiting --------------------------------------------------------------*/

/* Whether its loop has to turn while another server closes first. */
static bool closes_beside(const struct ss_server *server)
{
	return server->run && server->closing && !server->closed &&
	       !(server->flags & SS_LAYER_SUPERVISES);
}

static int64_t loop_deadline(struct ss_server *server)
{
	return atomic_load(&server->turn_wanted)
		       ? 0
		       : nearest(server->turn_at, server->poller.at);
}

/* The others of its run have clients too, who may be on their loops. */
static void wait_beside(struct ss_server *server, int64_t deadline)
{
	const struct run *run = server->run;
	deadline = nearest(deadline, loop_deadline(server));
	for (int i = 0; i < run->count; i++) {
		struct ss_server *other = run->servers[i];
		run->chosen[i] =
			other == server || closes_beside(other) ? other : NULL;
		if (run->chosen[i])
			deadline = nearest(deadline, loop_deadline(other));
	}
	loop_wait_any(run->chosen, run->count, deadline);
	for (int i = 0; i < run->count; i++) {
		struct ss_server *other = run->chosen[i];
		if (!other || other == server)
			continue;
		loop_wait(other, 0);
		dispatch_waiting(other);
		self(other)->service_actions(other);
	}
}

/* One wait of a closing server's loop; what fired has been told. */
static void close_wait(struct ss_server *server, int64_t deadline)
{
	if (server->run && server->run->count > 1) {
		wait_beside(server, deadline);
		deadline = 0;
	}
	loop_wait(server, deadline);
}

/* ---- what is queued -------------------------------------------------------*/

/*
 * How many may be queued now.  A bound is needed: clients that connect anew
 * as soon as they are served would keep a closing server open.
 */
static int queued(const struct ss_listener *listener)
{
#ifdef SS_LINUX
	struct tcp_info info;
	socklen_t len = sizeof(info);
	if (listener->scheme == SS_SCHEME_TCP && listener->watch.fd >= 0 &&
	    sys_getsockopt(listener->watch.fd, IPPROTO_TCP, TCP_INFO, &info,
			   &len) == 0)
		return (int)info.tcpi_unacked;
#else
	(void)listener;
#endif
	return SOMAXCONN;
}

static void wait_at_gate(struct ss_server *server)
{
	int64_t until = stop_drain_deadline(server);
	if (ss_holding(server, SS_HOLD_ERRORS))
		until = nearest(until, server->retry_at);
	close_wait(server, until);
	accept_recover(server);
	dispatch_waiting(server);
}

/* Held listeners are waited for, as long as the drain deadline allows. */
static void take_from(struct ss_server *server, struct ss_listener *listener)
{
	int left = queued(listener);
	bool empty = false;
	while (left > 0 && !empty && !stop_hurried(server)) {
		left -= accept_from(server, listener, left, &empty);
		if (empty || left <= 0)
			return;
		if (overdue(server))
			return;
		if (!gate_open(server))
			wait_at_gate(server);
	}
}

/*
 * A supervisor's is its workers' to take, that of a worker who has retired the
 * others', and an orphan's is lost.
 */
static void take_queued(struct ss_server *server)
{
	const unsigned not_ours = SS_HOLD_WORKERS | SS_HOLD_STOPPING;
	bool ours = server->activated && !ss_holding(server, not_ours) &&
		    !atomic_load(&server->orphaned_at);
	for (int i = 0; i < server->listener_count; i++) {
		struct ss_listener *listener = server->listeners[i];
		listener_unwatch(server, listener);
		if (ours)
			take_from(server, listener);
		worker_stop_listening(server, listener);
	}
	crowd_taken(server);
	ss_hold(server, SS_HOLD_STOPPING);
}

/* ---- what is being served -------------------------------------------------*/

/* Whether nothing lives. */
static bool drain_turn(struct ss_server *server)
{
	dispatch_waiting(server);
	self(server)->service_actions(server);
	return !live(server);
}

/* Until nothing lives, the deadline, or somebody in a hurry. */
static bool drained(struct ss_server *server, int64_t deadline, bool patient)
{
	for (;;) {
		if (drain_turn(server))
			return true;
		if (!patient && stop_hurried(server))
			return false;
		if (deadline != SS_NONE && now(server) >= deadline)
			return false;
		close_wait(server, deadline);
	}
}

/* The workers that stay take what is queued, and nobody is in a hurry. */
static void retire(struct ss_server *server)
{
	ss_hold(server, SS_HOLD_STOPPING);
	listeners_close(server, false);
	while (worker_order(server) == SS_ORDER_RETIRE && !drain_turn(server))
		loop_wait(server, SS_NONE);
}

static void give_up_waiting(struct ss_server *server)
{
	struct ss_request *req;
	while ((req = gate_evict(server)))
		ss_request_refuse(req, -ECANCELED);
}

static void force(struct ss_server *server)
{
	if (!stop_hurried(server)) {
		stop_advance(server, STOP_HALF);
		requests_cancel(server, false, false);
		give_up_waiting(server);
		if (drained(server, now(server) + GRACE_MS, false))
			return;
	}
	give_up_waiting(server);
	stop_advance(server, STOP_FORCED);
	requests_cancel(server, true, false);
	drained(server, now(server) + FORCE_MS, true);
}

/*
 * A deadline that began with ss_shutdown holds on, so that no client has it
 * twice; one that ended long ago was for another stop.
 */
static void begin_draining(struct ss_server *server)
{
	if (server->drain_at > 0 && now(server) > server->drain_at + FORCE_MS)
		server->drain_at = 0;
	stop_drain_deadline(server);
}

static void close_begin(struct ss_server *server)
{
	if (server->closing)
		return;
	server->closing = true;
	/* Who was in a hurry already is not made to ask again. */
	server->hurry_above =
		server->hurried ? 0 : atomic_load(&server->slot->shutdowns);
	begin_draining(server);
	stop_advance(server, STOP_CLOSING);
	/* First, since those in the queue may want their places. */
	requests_cancel(server, false, true);
	take_queued(server);
	listeners_close(server, false);
}

int close_gracefully(struct ss_server *server)
{
	if (worker_order(server) == SS_ORDER_RETIRE)
		retire(server);
	close_begin(server);
	if (!drained(server, stop_drain_deadline(server), false))
		force(server);
	listeners_close(server, true);
	stop_advance(server, STOP_FORCED);
	int abandoned = live(server);
	if (abandoned)
		ss_log(server, SS_LOG_ERROR, 0, "requests abandoned: %d",
		       abandoned);
	return abandoned;
}

int64_t ss_drain_deadline(struct ss_server *server)
{
	return stop_drain_deadline(server);
}

int ss_turn_closing(struct ss_server *server, int64_t deadline)
{
	close_wait(server, deadline);
	self(server)->service_actions(server);
	return stop_hurried(server);
}

int ss_server_close(struct ss_server *server)
{
	int r = server_claim(server);
	if (r < 0)
		return r;
	server->turning = true;
	if (!server->closed) {
		server->abandoned = self(server)->server_close(server);
		server->closed = true;
	}
	server->turning = false;
	r = server->abandoned;
	server_unclaim(server);
	return r;
}

/* ---- several --------------------------------------------------------------*/

/* All end to listen first, and their deadlines begin together. */
void servers_close(const struct run *run)
{
	for (int i = 0; i < run->count; i++) {
		struct ss_server *server = run->servers[i];
		if (server->closed)
			continue;
		server->turning = true;
		if (supervising(server))
			ss_order_workers(server, 0, SS_ORDER_CLOSE);
		close_begin(server);
	}
	for (int i = 0; i < run->count; i++) {
		run->servers[i]->turning = false;
		ss_server_close(run->servers[i]);
	}
}
