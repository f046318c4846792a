/*
 * The base layer: the whole table, as Python's BaseServer has it.  Requests
 * are served here and now, one after the other, and wait by poll(2).
 */
#include "internal.h"
#include "probes.h"

/* ---- the server -----------------------------------------------------------*/

/* Transports bind and listen; a server without one cannot be made. */
static int base_nothing(struct ss_server *server)
{
	(void)server;
	return 0;
}

static int base_serve_forever(struct ss_server *server)
{
	int r;
	do
		r = ss_turn(server, SS_NONE);
	while (r >= 0);
	return r == -ECANCELED ? 0 : r;
}

static void base_no_action(struct ss_server *server)
{
	(void)server;
}

static void base_worker_ended(struct ss_server *server, int slot)
{
	(void)server, (void)slot;
}

static void base_listener_close(struct ss_server *server,
				struct ss_listener *listener)
{
	(void)server;
	if (listener->watch.fd >= 0)
		sys_close(listener->watch.fd);
	listener->watch.fd = -1;
}

/* ---- a request ------------------------------------------------------------*/

static int base_get_request(struct ss_server *server,
			    struct ss_listener *listener,
			    struct ss_request **req)
{
	(void)server, (void)listener, (void)req;
	return -EAGAIN;
}

static int base_verify_request(struct ss_server *server, struct ss_request *req)
{
	(void)server, (void)req;
	return 1;
}

static int base_process_request(struct ss_server *server,
				struct ss_request *req)
{
	(void)server;
	ss_request_run(req);
	return 0;
}

APART static void cancel_idle(struct ss_server *server, struct ss_request *req)
{
	pthread_mutex_lock(&server->lock);
	self(server)->cancel_request(server, req, false);
	pthread_mutex_unlock(&server->lock);
}

/*
 * Between messages.  A server that is being closed has looked for idle
 * requests already, so this one looks after itself.
 */
static void become_idle(struct ss_server *server, struct ss_request *req)
{
	req->midway = false;
	if (stream_buffered(req) || channels_pending(req))
		return;
	atomic_store(&req->idle, true);
	if (atomic_load(&server->slot->phase) >= STOP_CLOSING)
		cancel_idle(server, req);
}

/*
 * Whether the reply may be left to ss_requests_reply, and what follows it, too:
 * there is no stack any more on which another layer's could wait.
 */
static bool reply_later(const struct ss_server *server,
			const struct ss_request *req)
{
	const struct ss_ops *ops = self(server);
	return req->steps && ops->shutdown_request == linger_shutdown &&
	       ops->close_request == linger_close && write_may_join(req);
}

APART static int finish(struct ss_server *server, struct ss_request *req,
			const struct ss_handler *handler, int r)
{
	if (r == SS_AGAIN)
		r = 0;
	if (r > 0)
		r = ss_fail(req, -EINVAL,
			    "handle returned %d, which is neither an error "
			    "nor SS_AGAIN",
			    r);
	req->phase = SS_PHASE_FINISH;
	int finished = handler->finish ? handler->finish(req) : 0;
	file_close(req);
	req->replying = !r && !finished && reply_later(server, req);
	if (!req->replying)
		write_finish(req);
	if (r < 0)
		req->phase = SS_PHASE_HANDLE;
	return r < 0 ? r : finished;
}

/* From handle to the end; SS_AGAIN: it goes on here when there is input. */
int base_resume(struct ss_server *server, struct ss_request *req)
{
	const struct ss_handler *handler = handler_of(req);
	req->phase = SS_PHASE_HANDLE;
	for (;;) {
		PROBE(2, handle_begin, server, req->id);
		int r = handler_of(req)->handle(req);
		PROBE(3, handle_end, server, req->id, r);
		if (r != SS_AGAIN || req->dgram || req->eof_told)
			return finish(server, req, handler, r);
		become_idle(server, req);
		if (req->steps && atomic_load(&req->idle))
			return SS_AGAIN;
	}
}

/* What layers have read up to here was none of the client's messages, nor its
 * first byte. */
static int end_handshake(struct ss_request *req)
{
	size_t ahead = stream_buffered(req);
	uint64_t in = bytes_in(req) - ahead;
	struct rare *rare = in ? request_rare(req) : NULL;
	if (!in)
		return 0;
	if (!rare)
		return -ENOMEM;
	rare->handshake_in = in;
	req->midway = ahead > 0;
	return 0;
}

static int base_finish_request(struct ss_server *server, struct ss_request *req)
{
	const struct ss_handler *handler = handler_of(req);
	if (!req->dgram && bytes_in(req) && end_handshake(req) < 0)
		return -ENOMEM;
	req->phase = SS_PHASE_SETUP;
	if (handler->size && !(req->state = sys_calloc(1, handler->size)))
		return -ENOMEM;
	int r = handler->setup ? handler->setup(req) : 0;
	if (r < 0) {
		file_close(req);
		return r;
	}
	return base_resume(server, req);
}

static void base_handle_error(struct ss_server *server, struct ss_request *req,
			      const struct ss_error *error)
{
	static const char *const phases[SS_PHASE_MAX] = {
		[SS_PHASE_ACCEPT] = "accept",
		[SS_PHASE_VERIFY] = "verify_request",
		[SS_PHASE_PROCESS] = "process_request",
		[SS_PHASE_HANDSHAKE] = "handshake",
		[SS_PHASE_SETUP] = "setup",
		[SS_PHASE_HANDLE] = "handle",
		[SS_PHASE_FINISH] = "finish",
	};
	int level = SS_LOG_ERROR;
	if (error->code == -EPIPE || error->code == -ECONNRESET ||
	    error->code == -ECANCELED || error->code == -ENODATA)
		level = SS_LOG_DEBUG;
	else if (error->code == -ETIMEDOUT)
		level = SS_LOG_INFO;
	char peer[SS_ADDRESS_TEXT];
	if (!req)
		ss_log(server, level, 0, "%s: %s", phases[error->phase],
		       error->text);
	else
		ss_log(server, level, req->id, "%s, %s: %s",
		       ss_peer_name(req, peer, sizeof(peer)),
		       phases[error->phase], error->text);
}

static void base_end_request(struct ss_server *server, struct ss_request *req,
			     int status)
{
	(void)server, (void)req, (void)status;
}

/* A blocked thread wakes when its socket is shut down under it. */
static int base_cancel_request(struct ss_server *server, struct ss_request *req,
			       bool force)
{
	(void)server;
	atomic_store(&req->cancel, force ? CANCEL_FORCED : CANCEL_HALF);
	wait_ring(req);
	const struct ss_source *source = req->source;
	/* Not by the source's flags, which are its runner's alone. */
	if (source && source->fd >= 0 && !req->dgram)
		sys_shutdown(source->fd, force ? SHUT_RDWR : SHUT_RD);
	return 0;
}

static void base_stir_request(struct ss_server *server, struct ss_request *req)
{
	(void)server, (void)req;
}

static int base_offload(struct ss_server *server, struct ss_request *req,
			int (*fn)(void *arg), void *arg)
{
	(void)server, (void)req;
	return fn(arg);
}

static void base_forget(struct ss_server *server, struct ss_source *source)
{
	(void)server, (void)source;
}

static int64_t base_now(struct ss_server *server)
{
	(void)server;
	return sys_now_ms();
}

static int base_pass_time(struct ss_server *server, int64_t until)
{
	return loop_timeout(server, until);
}

const struct ss_layer ss_base_layer = {
	.name = "base",
	.ops = {
		.server_bind = base_nothing,
		.server_activate = base_nothing,
		.serve_forever = base_serve_forever,
		.serve_turn = ss_turn,
		.service_actions = base_no_action,
		.handle_timeout = base_no_action,
		.server_close = close_gracefully,
		.listener_close = base_listener_close,
		.worker_ended = base_worker_ended,
		.get_request = base_get_request,
		.verify_request = base_verify_request,
		.process_request = base_process_request,
		.finish_request = base_finish_request,
		.shutdown_request = linger_shutdown,
		.close_request = linger_close,
		.handle_error = base_handle_error,
		.end_request = base_end_request,
		.cancel_request = base_cancel_request,
		.wake_request = wait_wake,
		.stir_request = base_stir_request,
		.wait = wait_source,
		.wait_any = wait_several,
		.offload = base_offload,
		.forget = base_forget,
		.now = base_now,
		.pass_time = base_pass_time,
	},
};
