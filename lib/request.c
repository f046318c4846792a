/*
 * Requests: born by a transport, registered, served to their end, freed; and
 * what other threads may do to them by their id.
 */
#include "internal.h"
#include "probes.h"

#include <stdarg.h>
#include <stdio.h>

enum { SPARES = 64 };

/* With a fiber's part, a socket's, and malloc(3)'s own word: 17 times 16. */
static_assert(sizeof(void *) != 8 || sizeof(struct ss_request) <= 192,
	      "a million of them are held");

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

/* With the lock held.  False: it is to be freed. */
static bool keep_spare(struct ss_server *server, struct ss_request *req)
{
	if (server->spare_count >= SPARES)
		return false;
	req->queue_next = server->spares;
	server->spares = req;
	server->spare_count++;
	return true;
}

struct ss_request *request_alloc(struct ss_server *server, size_t space)
{
	struct ss_request *req = take_spare(server, space);
	struct rare *rare = req ? req->rare : NULL;
	struct buffer *in = req ? req->in : NULL, *out = req ? req->out : NULL;
	if (req)
		space = req->space;
	else
		req = sys_malloc(sizeof(*req) + server->request_states + space);
	if (!req)
		return NULL;
	memset(req, 0, sizeof(*req) + server->request_states + space);
	req->rare = rare;
	req->in = in;
	req->out = out;
	req->server = server;
	req->space = space < UINT16_MAX ? (uint16_t)space : UINT16_MAX;
	req->deadline = SS_NONE;
	atomic_init(&req->own.waits, SS_WAITS_TURN);
	atomic_init(&req->progress, &req->own);
	return req;
}

int request_new(struct ss_server *server, struct ss_listener *listener,
		size_t space, struct ss_request **result)
{
	struct ss_request *req = request_alloc(server, space);
	if (!req)
		return -ENOMEM;
	req->listener = listener ? listener->number : 0;
	req->id = atomic_fetch_add(&server->page->next_id, 1);
	req->accepted_at = server->taken_at;
	timeout_merge(req);
	*result = req;
	return 0;
}

/* As if there were none. */
static void rare_reset(const struct ss_server *server, struct rare *rare)
{
	memset(rare, 0, sizeof(*rare));
	rare->handler = server->config.handler;
	rare->timeouts = server->timeouts;
	rare->wake_pipe[0] = rare->wake_pipe[1] = -1;
}

struct rare *request_rare(struct ss_request *req)
{
	if (req->rare)
		return req->rare;
	struct rare *rare = sys_malloc(sizeof(*rare));
	if (!rare)
		return NULL;
	rare_reset(req->server, rare);
	pthread_mutex_lock(&req->server->lock);
	req->rare = rare;
	pthread_mutex_unlock(&req->server->lock);
	return rare;
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
	req->registered = true;
	PROBE(3, accept, server, req->id, ss_request_fd(req));
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
		if (r->holds_thread && pthread_equal(r->runner, pthread_self()))
			return true;
	return false;
}

static void begin_running(struct ss_request *req)
{
	struct ss_server *server = req->server;
	pthread_mutex_lock(&server->lock);
	req->running = true;
	if (req->entered)
		crowd_begun(server);
	bool on_loop = !server->child && server->owned &&
		       pthread_equal(server->owner, pthread_self());
	bool parks = server->flags & SS_LAYER_PARKS;
	/* One that parks leaves the loop to see to its deadlines. */
	req->on_loop = on_loop && !parks;
	req->holds_thread = !(on_loop && parks);
	req->runner = pthread_self();
	pthread_mutex_unlock(&server->lock);
	req->phase = SS_PHASE_HANDSHAKE;
	progress_begin(req);
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

/* The tail of finish_request, whatever came of it. */
static int conclude(struct ss_request *req, int r)
{
	struct ss_server *server = req->server;
	if (r == -EACCES && req->phase == SS_PHASE_HANDSHAKE)
		count(&server->slot->refused[SS_REFUSED_VERIFY]);
	else if (r < 0)
		accept_error(server, req, r, (enum ss_phase)req->phase);
	streams_free(req);
	progress_end(req);
	self(server)->shutdown_request(server, req);
	count_bytes(req);
	return r;
}

int ss_request_finish(struct ss_request *req)
{
	begin_running(req);
	return conclude(req,
			self(req->server)->finish_request(req->server, req));
}

/* Whether finish_request is base's alone: nothing of another layer's is on the
 * stack while the handler runs. */
static bool only_base(const struct ss_server *server)
{
	return self(server)->finish_request == ss_base_layer.ops.finish_request;
}

/* Between here and the next step it waits for its client. */
static int step_aside(struct ss_request *req)
{
	stream_rest(req);
	timeout_deadline(req, POLLIN);
	progress_listens(req);
	req->resumed = true;
	return SS_AGAIN;
}

int ss_request_step(struct ss_request *req)
{
	struct ss_server *server = req->server;
	int r = 0;
	if (req->replying) {
		req->replying = false;
		write_finish(req);
	} else if (req->steps) {
		progress_waits(req, SS_WAITS_NOTHING);
		r = base_resume(server, req);
	} else {
		begin_running(req);
		req->steps = only_base(server);
		r = self(server)->finish_request(server, req);
	}
	if (r == SS_AGAIN)
		return step_aside(req);
	if (req->replying)
		return SS_REPLY;
	ss_request_end(req, conclude(req, r));
	return 0;
}

int ss_requests_reply(struct ss_request *const *reqs, int n)
{
	int sent = write_together(reqs, n);
	for (int i = 0; i < sent; i++)
		ss_request_end(reqs[i], conclude(reqs[i], 0));
	return sent;
}

bool ss_request_defer(struct ss_request *req)
{
	if (req->dgram || handler_of(req)->speaks_first ||
	    channels_pending(req) || !only_base(req->server))
		return false;
	req->phase = SS_PHASE_HANDLE;
	step_aside(req);
	return true;
}

void ss_request_run(struct ss_request *req)
{
	int status = ss_request_finish(req);
	ss_request_end(req, status);
}

/* ---- end ------------------------------------------------------------------*/

/* Its server may be gone. */
static void free_memory(struct ss_request *req)
{
	sys_free(req->in);
	sys_free(req->out);
	sys_free(req->state);
	sys_free(req->rare);
	sys_free(req);
}

void ss_request_drop(struct ss_request *req)
{
	channels_close(req);
	free_memory(req);
}

void requests_free_spares(struct ss_server *server)
{
	while (server->spares) {
		struct ss_request *req = server->spares;
		server->spares = req->queue_next;
		free_memory(req);
	}
}

static void close_pipe(struct rare *rare)
{
	for (int i = 0; i < 2; i++)
		if (rare->wake_pipe[i] >= 0)
			sys_close(rare->wake_pipe[i]);
}

void ss_request_end(struct ss_request *req, int status)
{
	struct ss_server *server = req->server;
	PROBE(3, close, server, req->id, status);
	self(server)->end_request(server, req, status);
	stream_end(req);
	sys_free(req->state);
	req->state = NULL;
	pthread_mutex_lock(&server->lock);
	bool on_loop =
		server->owned && pthread_equal(server->owner, pthread_self());
	unsigned held = atomic_load(&server->holds);
	unregister(req);
	if (req->rare) {
		close_pipe(req->rare);
		rare_reset(server, req->rare);
	}
	gate_leave(server, req);
	/* Who sees that it has ended sees its place free. */
	count(&server->slot->ended);
	/* It gives back what accepting lacked. */
	if (held & SS_HOLD_ERRORS)
		atomic_fetch_and(&server->holds, ~(unsigned)SS_HOLD_ERRORS);
	bool wanted = (held & ~(unsigned)SS_HOLD_FULL) ||
		      gate_wanted(server, held) ||
		      atomic_load(&server->slot->phase) != STOP_OPEN;
	/* A wake-up under the lock: after it the server may be freed. */
	if (wanted && !on_loop)
		ss_turn_now(server);
	bool spare = keep_spare(server, req);
	pthread_mutex_unlock(&server->lock);
	if (!spare)
		free_memory(req);
}

void request_release(struct ss_request *req)
{
	struct ss_server *server = req->server;
	stream_free(req);
	pthread_mutex_lock(&server->lock);
	if (req->rare)
		rare_reset(server, req->rare);
	bool spare = keep_spare(server, req);
	pthread_mutex_unlock(&server->lock);
	if (!spare)
		free_memory(req);
}

/* Turned away before it was served; where it was accepted. */
void request_refuse(struct ss_request *req, enum ss_refused reason, int status)
{
	struct ss_server *server = req->server;
	count(&server->slot->refused[reason]);
	self(server)->shutdown_request(server, req);
	ss_request_end(req, status);
}

void ss_request_refuse(struct ss_request *req, int status)
{
	request_refuse(req, SS_REFUSED_FULL, status);
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
	int r = -ENOENT;
	if (req)
		r = self(server)->cancel_request(server, req, true);
	else if (supervising(server))
		r = workers_cancel(server, id);
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
	shot->pid = (pid_t)atomic_load(&req->own.pid);
	progress_look(req, shot);
	shot->running = req->entered;
	shot->idle |= atomic_load(&req->idle);
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
	atomic_store(&req->own.pid, (int)pid);
	pthread_mutex_unlock(&req->server->lock);
}

/* ---- addresses ------------------------------------------------------------*/

/* Bytes of a family's compact form; 0: it has none. */
static socklen_t compact_length(sa_family_t family)
{
	switch (family) {
	case AF_INET:
		return sizeof(struct sockaddr_in);
	case AF_INET6:
		return sizeof(struct sockaddr_in6);
	case AF_UNIX: /* unnamed */
		return sizeof(sa_family_t);
	default:
		return 0;
	}
}

static sa_family_t family_of(const struct compact *compact)
{
	return ((const struct sockaddr *)compact->bytes)->sa_family;
}

/* Inlined for most of them. */
static void copy_compact(void *to, const void *from, socklen_t len)
{
	if (len == sizeof(struct sockaddr_in))
		memcpy(to, from, sizeof(struct sockaddr_in));
	else
		memcpy(to, from, len);
}

int ss_request_set_peer(struct ss_request *req, const struct ss_address *peer)
{
	bool near =
		peer->len && compact_length(peer->u.sa.sa_family) == peer->len;
	struct rare *rare = near ? req->rare : request_rare(req);
	if (!near && !rare)
		return -ENOMEM;
	/* Nobody else knows one that is only being made. */
	if (req->registered)
		pthread_mutex_lock(&req->server->lock);
	req->peer = (struct compact){ { 0 } };
	if (near)
		copy_compact(req->peer.bytes, &peer->u, peer->len);
	if (rare)
		rare->peer = *peer;
	if (req->registered)
		pthread_mutex_unlock(&req->server->lock);
	return 0;
}

int ss_request_set_local(struct ss_request *req, const struct ss_address *local)
{
	struct rare *rare = request_rare(req);
	if (!rare)
		return -ENOMEM;
	rare->local = *local;
	return 0;
}

/* Of further streams; of those that were accepted it is known. */
static int ask_peer(struct ss_request *req, struct ss_address *address)
{
	int fd = owner_of(req) == req ? -ENOTSUP : ss_request_fd(req);
	if (fd < 0)
		return fd;
	address->len = sizeof(address->u);
	if (sys_getpeername(fd, &address->u.sa, &address->len) == 0)
		return 0;
	address->len = 0;
	return -errno;
}

const struct sockaddr *ss_request_peer_sockaddr(const struct ss_request *req,
						socklen_t *len)
{
	*len = 0;
	if (req->rare)
		*len = req->rare->peer.len;
	if (*len)
		return &req->rare->peer.u.sa;
	*len = compact_length(family_of(&req->peer));
	return *len ? (const struct sockaddr *)req->peer.bytes : NULL;
}

int ss_request_peer(struct ss_request *req, struct ss_address *address)
{
	socklen_t len;
	const struct sockaddr *peer = ss_request_peer_sockaddr(req, &len);
	memset(address, 0, sizeof(*address));
	if (!peer)
		return ask_peer(req, address);
	address->len = len;
	copy_compact(&address->u, peer, len);
	return 0;
}

int ss_request_local(struct ss_request *req, struct ss_address *address)
{
	if (req->rare && req->rare->local.len) {
		*address = req->rare->local;
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
	return owner_of(req)->state;
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
	return handler_of(req);
}

int ss_request_set_handler(struct ss_request *req,
			   const struct ss_handler *handler)
{
	if (!handler->handle || handler->struct_size > sizeof(*handler))
		return -EINVAL;
	struct rare *rare = request_rare(req);
	if (!rare)
		return -ENOMEM;
	rare->handler = handler;
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
		*in = bytes_in(req);
	if (out)
		*out = atomic_load_explicit(&progress_of(req)->bytes_out,
					    memory_order_relaxed);
}

bool ss_request_dgram(const struct ss_request *req)
{
	return req->dgram;
}

struct ss_listener *ss_request_listener(const struct ss_request *req)
{
	return ss_server_listener(req->server, (int)req->listener - 1);
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
	struct rare *rare = request_rare(owner_of(req));
	if (!rare)
		return code;
	rare->failure.code = code;
	va_list args;
	va_start(args, fmt);
	vsnprintf(rare->failure.text, sizeof(rare->failure.text), fmt, args);
	va_end(args);
	return code;
}
