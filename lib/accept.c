/*
 * From a listener to process_request, and what to do when that fails.
 *
 * No accept error ends, spins or floods the server: those of one connection
 * are counted and the next is taken; those of resources stop the listeners for
 * 10 ms, doubling to 1 s, or until a request ends.  (accept(2), "Error
 * handling": pending network errors are reported as errors of accept.)
 */
#include "internal.h"
#include "probes.h"

enum {
	BACKOFF_MIN_MS = 10,
	BACKOFF_MAX_MS = 1000,
	CALM_MS = 500, /* without a failure: it works again */
	STRIKES = 100, /* of connections' own errors in a row */
};

/* To handle_error, in ss_fail's words if they were about this. */
void accept_error(struct ss_server *server, struct ss_request *req, int code,
		  enum ss_phase phase)
{
	const struct failure *said =
		req && req->rare ? &req->rare->failure : NULL;
	struct ss_error error = {
		.code = code,
		.phase = phase,
		.text = said && said->code == code ? said->text
						   : strerror(-code),
	};
	count(&server->slot->errors[phase]);
	PROBE(5, error, server, req ? req->id : 0, phase, code, error.text);
	self(server)->handle_error(server, req, &error);
}

/* ---- errors of accept -----------------------------------------------------*/

static bool connections_own(int code)
{
	switch (-code) {
	case ECONNABORTED:
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTDOWN:
	case EHOSTUNREACH:
	case EMSGSIZE:
	case ENETDOWN:
	case ENETUNREACH:
#ifdef ENONET
	case ENONET:
#endif
	case ENOPROTOOPT:
	case EOPNOTSUPP:
	case EPERM:
	case EPROTO:
	case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

/*
 * Said once.  At the limit every request that ends lets one client in, and the
 * next one fails again: that is no news.
 */
static void note_failure(struct ss_server *server, int code)
{
	server->failed_at = now(server);
	if (server->failing)
		return;
	server->failing = true;
	accept_error(server, NULL, code, SS_PHASE_ACCEPT);
}

/*
 * No descriptor is left, and no request of ours will give one back: the spare
 * one serves this client.  True: try again.
 */
static bool use_spare(struct ss_server *server, int code)
{
	if ((code != -EMFILE && code != -ENFILE) || server->spare_fd < 0)
		return false;
	pthread_mutex_lock(&server->lock);
	int live = server->live;
	pthread_mutex_unlock(&server->lock);
	if (live)
		return false;
	note_failure(server, code);
	sys_close(server->spare_fd);
	server->spare_fd = -1;
	server->on_spare = true;
	return true;
}

static void back_off(struct ss_server *server, int code)
{
	note_failure(server, code);
	int ms = server->backoff_ms ? 2 * server->backoff_ms : BACKOFF_MIN_MS;
	server->backoff_ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
	server->retry_at = server->failed_at + server->backoff_ms;
	atomic_fetch_or(&server->holds, SS_HOLD_ERRORS);
	worker_pass_on(server);
}

static void works_again(struct ss_server *server)
{
	if (server->on_spare) {
		server->on_spare = false;
		return;
	}
	server->backoff_ms = 0;
	if (!server->failing || now(server) < server->failed_at + CALM_MS)
		return;
	server->failing = false;
	ss_log(server, SS_LOG_WARNING, 0, "accepting clients again");
}

/* Once a turn: is it time to try again? */
void accept_recover(struct ss_server *server)
{
	if (server->activated && server->spare_fd < 0)
		server->spare_fd = sys_open("/dev/null", O_RDONLY, 0);
	if (ss_holding(server, SS_HOLD_ERRORS) &&
	    now(server) >= server->retry_at)
		atomic_fetch_and(&server->holds, ~(unsigned)SS_HOLD_ERRORS);
}

/* 1: a request; 0: none now; < 0: try the next one. */
static int take_one(struct ss_server *server, struct ss_listener *listener,
		    struct ss_request **req)
{
	if (!worker_may_accept(server, listener))
		return 0;
	int r = self(server)->get_request(server, listener, req);
	worker_accepted(server, listener);
	if (r >= 0) {
		works_again(server);
		return 1;
	}
	if (r == -EINTR)
		return r;
	/* -EINVAL: another worker has seen its end (worker_stop_listening). */
	if (r == -EAGAIN || r == -EWOULDBLOCK ||
	    (r == -EINVAL && worker_order(server) >= SS_ORDER_CLOSE)) {
		server->on_spare = false;
		return 0;
	}
	if (connections_own(r)) {
		count(&server->slot->errors[SS_PHASE_ACCEPT]);
		ss_log(server, SS_LOG_DEBUG, 0,
		       "a client was lost in accept: %s", strerror(-r));
		return r;
	}
	if (use_spare(server, r))
		return r;
	server->on_spare = false;
	back_off(server, r);
	return 0;
}

/* ---- requests -------------------------------------------------------------*/

void accept_dispatch(struct ss_server *server, struct ss_request *req)
{
	req->phase = SS_PHASE_PROCESS;
	PROBE(2, process, server, req->id);
	int r = self(server)->process_request(server, req);
	if (r >= 0)
		return;
	accept_error(server, req, r, SS_PHASE_PROCESS);
	request_refuse(req, SS_REFUSED_PROCESS, r);
}

void accept_admit(struct ss_server *server, struct ss_request *req)
{
	req->phase = SS_PHASE_VERIFY;
	int r = self(server)->verify_request(server, req);
	PROBE(3, verify, server, req->id, r);
	if (r < 0)
		accept_error(server, req, r, SS_PHASE_VERIFY);
	if (r <= 0)
		request_refuse(req, SS_REFUSED_VERIFY, r < 0 ? r : -EACCES);
	else if (gate_enter(server, req))
		accept_dispatch(server, req);
	else if (server->config.full == SS_FULL_REFUSE)
		gate_refuse(server, req);
	else
		gate_queue(server, req);
}

static bool may_take(struct ss_server *server)
{
	bool stopping = atomic_load(&server->slot->phase) == STOP_OPEN &&
			stop_asked(server);
	return !stopping && gate_open(server);
}

static void takes_now(struct ss_server *server)
{
	server->taken_at = now(server);
	server->taken_us = 0;
}

int64_t ss_taken_at(const struct ss_server *server)
{
	return server->taken_at;
}

int64_t ss_taken_us(struct ss_server *server)
{
	if (!server->taken_us)
		server->taken_us = sys_now_us();
	return server->taken_us;
}

/* Up to `budget` requests; *empty: the listener has no more. */
int accept_from(struct ss_server *server, struct ss_listener *listener,
		int budget, bool *empty)
{
	int taken = 0;
	*empty = false;
	for (int strikes = 0; taken < budget && strikes < STRIKES;) {
		if (!may_take(server))
			return taken;
		/* Where handlers do not run meanwhile, all at one time. */
		if (!taken || !(server->flags & SS_LAYER_PARKS))
			takes_now(server);
		struct ss_request *req = NULL;
		int r = take_one(server, listener, &req);
		if (r < 0) {
			if (++strikes == STRIKES)
				back_off(server, r);
			continue;
		}
		if (r == 0) {
			*empty = !ss_holding(server, SS_HOLD_ERRORS);
			return taken;
		}
		request_register(req);
		accept_admit(server, req);
		taken++;
		strikes = 0;
	}
	return taken;
}

/* Each listener that is ready in its turn, beginning with the next one. */
int accept_ready(struct ss_server *server, int budget)
{
	int taken = 0, count = server->listener_count;
	int first = server->next_listener;
	for (int i = 0; i < count && taken < budget; i++) {
		int at = (first + i) % count;
		struct ss_listener *listener = server->listeners[at];
		if (!atomic_load(&listener->ready))
			continue;
		/* What is watched is asked for anew each turn; what is not has
		 * told of it once. */
		atomic_store(&listener->ready, false);
		bool empty;
		taken += accept_from(server, listener, budget - taken, &empty);
		/* It would fire at once, and in vain. */
		if (ss_holding(server, SS_HOLD_ERRORS))
			listener_unwatch(server, listener);
		if (!empty && (!listener->watched || listener->ahead))
			atomic_store(&listener->ready, true);
		server->next_listener = (at + 1) % count;
	}
	return taken;
}

int accept_given(struct ss_server *server, int fd,
		 const struct ss_address *given, const struct ss_address *local)
{
	int type = 0, r = server_drivable(server);
	socklen_t len = sizeof(type);
	if (r >= 0 && !(server->flags & SS_LAYER_SOCKET))
		r = -ENOTSUP;
	if (r < 0)
		goto refused;
	r = -EINVAL;
	if (sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == -1)
		r = -errno;
	else if (type == SOCK_STREAM)
		r = 0;
	if (r < 0)
		goto refused;
	struct ss_address peer = { .len = sizeof(peer.u) };
	if (sys_getpeername(fd, &peer.u.sa, &peer.len) == -1) {
		r = -errno;
		goto refused;
	}
	if (given && given->len)
		peer = *given;
	struct ss_request *req;
	takes_now(server);
	r = ss_request_accept(server, NULL, fd, SS_SOURCE_ADOPTED, &peer, &req);
	if (r < 0)
		return r;
	if (local && local->len)
		r = ss_request_set_local(req, local);
	if (r < 0) {
		ss_request_drop(req);
		return r;
	}
	request_register(req);
	accept_admit(server, req);
	return 0;

refused:
	if (fd >= 0)
		sys_close(fd);
	return r;
}

int ss_serve_fd(struct ss_server *server, int fd)
{
	return accept_given(server, fd, NULL, NULL);
}
