/*
 * Requests: born by a transport, registered, served to their end, freed; and
 * what other threads may do to them by their id.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

enum { SPARES = 64 };

/* ---- birth ----------------------------------------------------------------*/

/* Requests of a server have one size, so that an ended one serves the next. */
static struct ss_request *take_spare(struct ss_server *server, size_t space)
{
	pthread_mutex_lock(&server->lock);
	struct ss_request *req = server->spares;
	if (req && req->space >= space) {
		server->spares = req->queue_next;
		server->spare_count--;
	} else {
		req = NULL;
	}
	pthread_mutex_unlock(&server->lock);
	return req;
}

int request_new(struct ss_server *server, struct ss_listener *listener,
		size_t space, struct ss_request **result)
{
	size_t extra = server->request_states + space;
	struct ss_request *req = take_spare(server, space);
	if (req)
		space = req->space;
	else
		req = sys_malloc(sizeof(*req) + extra);
	if (!req)
		return -ENOMEM;
	memset(req, 0, sizeof(*req) + server->request_states + space);
	req->server = server;
	req->listener = listener;
	req->space = space;
	req->id = atomic_fetch_add(&server->page->next_id, 1);
	req->handler = server->config.handler;
	req->accepted_at = now(server);
	req->deadline = SS_NONE;
	req->wake_pipe[0] = req->wake_pipe[1] = -1;
	timeout_merge(req);
	*result = req;
	return 0;
}

int ss_request_new(struct ss_server *server, struct ss_listener *listener,
		   size_t channel_size, struct ss_request **req)
{
	return request_new(server, listener, channel_size, req);
}

void *ss_request_space(struct ss_request *req)
{
	return req->extra + req->server->request_states;
}

void request_register(struct ss_request *req)
{
	struct ss_server *server = req->server;
	pthread_mutex_lock(&server->lock);
	req->prev = server->requests.last;
	if (req->prev)
		req->prev->next = req;
	else
		server->requests.first = req;
	server->requests.last = req;
	server->live++;
	pthread_mutex_unlock(&server->lock);
	count(&server->slot->accepted);
}

static void unregister(struct ss_request *req)
{
	struct ss_server *server = req->server;
	if (req->prev)
		req->prev->next = req->next;
	else
		server->requests.first = req->next;
	if (req->next)
		req->next->prev = req->prev;
	else
		server->requests.last = req->prev;
	server->live--;
}

/* ---- being served ---------------------------------------------------------*/

bool request_runs_here(struct ss_server *server)
{
	for (struct ss_request *r = server->requests.first; r; r = r->next)
		if (r->running && pthread_equal(r->runner, pthread_self()))
			return true;
	return false;
}

static void begin_running(struct ss_request *req)
{
	struct ss_server *server = req->server;
	pthread_mutex_lock(&server->lock);
	req->running = true;
	req->runner = pthread_self();
	req->on_loop = !server->child && server->owned &&
		       pthread_equal(server->owner, req->runner);
	pthread_mutex_unlock(&server->lock);
	req->phase = SS_PHASE_HANDSHAKE;
}

static void count_bytes(struct ss_request *req)
{
	struct slot *slot = req->server->slot;
	uint64_t in, out;
	ss_request_bytes(req, &in, &out);
	if (in)
		atomic_fetch_add(&slot->bytes_in, in);
	if (out)
		atomic_fetch_add(&slot->bytes_out, out);
}

int ss_request_finish(struct ss_request *req)
{
	struct ss_server *server = req->server;
	begin_running(req);
	int r = self(server)->finish_request(server, req);
	if (r < 0)
		accept_error(server, req, r, (enum ss_phase)req->phase);
	self(server)->shutdown_request(server, req);
	count_bytes(req);
	return r;
}

void ss_request_run(struct ss_request *req)
{
	int status = ss_request_finish(req);
	ss_request_end(req, status);
}

/* ---- end ------------------------------------------------------------------*/

static void release_parts(struct ss_request *req)
{
	stream_free(req);
	sys_free(req->state);
	sys_free(req->failure);
	sys_free(req->far_peer);
	sys_free(req->local);
}

static void request_free(struct ss_request *req)
{
	release_parts(req);
	sys_free(req);
}

void ss_request_drop(struct ss_request *req)
{
	channels_close(req);
	request_free(req);
}

void requests_free_spares(struct ss_server *server)
{
	while (server->spares) {
		struct ss_request *req = server->spares;
		server->spares = req->queue_next;
		sys_free(req);
	}
}

static void close_pipe(struct ss_request *req)
{
	for (int i = 0; i < 2; i++)
		if (req->wake_pipe[i] >= 0)
			sys_close(req->wake_pipe[i]);
}

void ss_request_end(struct ss_request *req, int status)
{
	struct ss_server *server = req->server;
	self(server)->end_request(server, req, status);
	count(&server->slot->ended);
	pthread_mutex_lock(&server->lock);
	bool on_loop =
		server->owned && pthread_equal(server->owner, pthread_self());
	unsigned held = atomic_load(&server->holds);
	unregister(req);
	close_pipe(req);
	gate_leave(server, req);
	release_parts(req);
	/* It gives back what accepting lacked. */
	if (held & SS_HOLD_ERRORS)
		atomic_fetch_and(&server->holds, ~(unsigned)SS_HOLD_ERRORS);
	bool wanted = held || server->waiting ||
		      atomic_load(&server->page->phase) != STOP_OPEN;
	/* A wake-up under the lock: after it the server may be freed. */
	if (wanted && !on_loop)
		ss_turn_now(server);
	bool spare = server->spare_count < SPARES;
	if (spare) {
		req->queue_next = server->spares;
		server->spares = req;
		server->spare_count++;
	}
	pthread_mutex_unlock(&server->lock);
	if (!spare)
		sys_free(req);
}

/* Turned away before it was served; where it was accepted. */
void request_refuse(struct ss_request *req, enum ss_refused reason, int status)
{
	struct ss_server *server = req->server;
	count(&server->slot->refused[reason]);
	self(server)->shutdown_request(server, req);
	ss_request_end(req, status);
}

/* ---- from elsewhere, by id ------------------------------------------------*/

static struct ss_request *find(struct ss_server *server, uint64_t id)
{
	struct ss_request *r = server->requests.first;
	while (r && r->id != id)
		r = r->next;
	return r;
}

int ss_cancel(struct ss_server *server, uint64_t id)
{
	pthread_mutex_lock(&server->lock);
	struct ss_request *req = find(server, id);
	int r = req ? self(server)->cancel_request(server, req, true) : -ENOENT;
	pthread_mutex_unlock(&server->lock);
	return r;
}

int ss_wake(struct ss_server *server, uint64_t id)
{
	pthread_mutex_lock(&server->lock);
	struct ss_request *req = find(server, id);
	int r = req ? self(server)->wake_request(server, req) : -ENOENT;
	pthread_mutex_unlock(&server->lock);
	return r;
}

void requests_cancel(struct ss_server *server, bool force, bool idle_only)
{
	pthread_mutex_lock(&server->lock);
	for (struct ss_request *r = server->requests.first; r; r = r->next)
		if (!idle_only || atomic_load(&r->idle))
			self(server)->cancel_request(server, r, force);
	pthread_mutex_unlock(&server->lock);
}

static void take_snapshot(struct ss_request *req, struct ss_snapshot *shot)
{
	memset(shot, 0, sizeof(*shot));
	shot->id = req->id;
	ss_request_peer(req, &shot->peer);
	shot->age_ms = now(req->server) - req->accepted_at;
	ss_request_bytes(req, &shot->bytes_in, &shot->bytes_out);
	shot->running = req->entered;
	shot->idle = atomic_load(&req->idle);
	shot->pid = req->pid;
}

int ss_each(struct ss_server *server,
	    int (*fn)(void *arg, const struct ss_snapshot *snapshot), void *arg)
{
	int r = 0;
	pthread_mutex_lock(&server->lock);
	for (struct ss_request *req = server->requests.first; req && !r;
	     req = req->next) {
		struct ss_snapshot shot;
		take_snapshot(req, &shot);
		r = fn(arg, &shot);
	}
	pthread_mutex_unlock(&server->lock);
	return r;
}

void ss_request_set_pid(struct ss_request *req, pid_t pid)
{
	pthread_mutex_lock(&req->server->lock);
	req->pid = pid;
	pthread_mutex_unlock(&req->server->lock);
}

/* ---- addresses ------------------------------------------------------------*/

static int copy_address(struct ss_address **to, const struct ss_address *from)
{
	if (!*to && !(*to = sys_malloc(sizeof(**to))))
		return -ENOMEM;
	**to = *from;
	return 0;
}

int ss_request_set_peer(struct ss_request *req, const struct ss_address *peer)
{
	int r = 0;
	pthread_mutex_lock(&req->server->lock);
	if (peer->len > sizeof(req->peer.bytes)) {
		r = copy_address(&req->far_peer, peer);
	} else {
		sys_free(req->far_peer);
		req->far_peer = NULL;
		memcpy(req->peer.bytes, &peer->u, peer->len);
		req->peer.len = (uint16_t)peer->len;
	}
	pthread_mutex_unlock(&req->server->lock);
	return r;
}

int ss_request_set_local(struct ss_request *req, const struct ss_address *local)
{
	return copy_address(&req->local, local);
}

int ss_request_peer(struct ss_request *req, struct ss_address *address)
{
	if (req->far_peer) {
		*address = *req->far_peer;
		return 0;
	}
	memset(address, 0, sizeof(*address));
	if (!req->peer.len)
		return -ENOTSUP;
	memcpy(&address->u, req->peer.bytes, req->peer.len);
	address->len = req->peer.len;
	return 0;
}

int ss_request_local(struct ss_request *req, struct ss_address *address)
{
	if (req->local) {
		*address = *req->local;
		return 0;
	}
	memset(address, 0, sizeof(*address));
	int fd = ss_request_fd(req);
	if (fd < 0)
		return fd;
	address->len = sizeof(address->u);
	if (sys_getsockname(fd, &address->u.sa, &address->len) == -1)
		return -errno;
	return 0;
}

char *ss_peer_name(struct ss_request *req, char *buf, size_t size)
{
	struct ss_address peer;
	ss_request_peer(req, &peer);
	return ss_address_format(&peer, buf, size);
}

/* ---- what it is -----------------------------------------------------------*/

void *ss_state(struct ss_request *req)
{
	return req->state;
}

void *ss_request_user(const struct ss_request *req)
{
	return req->user;
}

void ss_request_set_user(struct ss_request *req, void *user)
{
	req->user = user;
}

struct ss_server *ss_request_server(const struct ss_request *req)
{
	return req->server;
}

const struct ss_handler *ss_request_handler(const struct ss_request *req)
{
	return req->handler;
}

int ss_request_set_handler(struct ss_request *req,
			   const struct ss_handler *handler)
{
	if (!handler->handle || handler->struct_size > sizeof(*handler))
		return -EINVAL;
	req->handler = handler;
	timeout_merge(req);
	return 0;
}

uint64_t ss_request_id(const struct ss_request *req)
{
	return req->id;
}

void ss_request_bytes(const struct ss_request *req, uint64_t *in, uint64_t *out)
{
	if (in)
		*in = atomic_load_explicit(&req->bytes_in,
					   memory_order_relaxed);
	if (out)
		*out = atomic_load_explicit(&req->bytes_out,
					    memory_order_relaxed);
}

bool ss_request_dgram(const struct ss_request *req)
{
	return req->dgram;
}

struct ss_listener *ss_request_listener(const struct ss_request *req)
{
	return req->listener;
}

void ss_request_set_source(struct ss_request *req, struct ss_source *source)
{
	req->source = source;
}

struct ss_source *ss_request_source(const struct ss_request *req)
{
	return req->source;
}

int ss_request_fd(const struct ss_request *req)
{
	return req->source && req->source->fd >= 0 ? req->source->fd : -ENOTSUP;
}

int ss_fail(struct ss_request *req, int code, const char *fmt, ...)
{
	if (!req->failure)
		req->failure = sys_malloc(sizeof(*req->failure));
	if (!req->failure)
		return code;
	req->failure->code = code;
	va_list args;
	va_start(args, fmt);
	vsnprintf(req->failure->text, sizeof(req->failure->text), fmt, args);
	va_end(args);
	return code;
}
