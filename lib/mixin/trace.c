/*
 * Trace: every operation told by its name as it begins, then done by super.
 * The handler's own steps are told by a handler that stands in for it.
 */
#include <socketserver/layers.h>

struct trace {
	struct ss_trace_options options;
};

/* The handler in whose place another one stands, and that one. */
struct traced {
	const struct ss_handler *handler;
	struct ss_handler stand_in;
};

static const struct ss_ops *super(struct ss_server *server)
{
	return ss_super(server, &ss_trace_mixin);
}

static void tell(struct ss_server *server, enum ss_trace_kind kind,
		 const struct ss_request *req, const char *operation)
{
	const struct trace *trace = ss_layer_state(server, &ss_trace_mixin);
	uint64_t id = req ? ss_request_id(req) : 0;
	if (!(trace->options.kinds & kind))
		return;
	if (trace->options.tell)
		trace->options.tell(trace->options.arg, server, id, operation);
	else
		ss_log(server, SS_LOG_DEBUG, id, "%s", operation);
}

static int trace_init(struct ss_server *server, const void *options)
{
	struct trace *trace = ss_layer_state(server, &ss_trace_mixin);
	if (options)
		trace->options = *(const struct ss_trace_options *)options;
	if (!trace->options.kinds)
		trace->options.kinds = SS_TRACE_SERVER | SS_TRACE_REQUEST;
	return 0;
}

/* ---- the server -----------------------------------------------------------*/

static int trace_server_bind(struct ss_server *server)
{
	tell(server, SS_TRACE_SERVER, NULL, "server_bind");
	return super(server)->server_bind(server);
}

static int trace_server_activate(struct ss_server *server)
{
	tell(server, SS_TRACE_SERVER, NULL, "server_activate");
	return super(server)->server_activate(server);
}

static int trace_serve_forever(struct ss_server *server)
{
	tell(server, SS_TRACE_SERVER, NULL, "serve_forever");
	return super(server)->serve_forever(server);
}

static int trace_serve_turn(struct ss_server *server, int64_t deadline)
{
	tell(server, SS_TRACE_SERVER, NULL, "serve_turn");
	return super(server)->serve_turn(server, deadline);
}

static void trace_service_actions(struct ss_server *server)
{
	tell(server, SS_TRACE_SERVER, NULL, "service_actions");
	super(server)->service_actions(server);
}

static void trace_handle_timeout(struct ss_server *server)
{
	tell(server, SS_TRACE_SERVER, NULL, "handle_timeout");
	super(server)->handle_timeout(server);
}

static int trace_server_close(struct ss_server *server)
{
	tell(server, SS_TRACE_SERVER, NULL, "server_close");
	return super(server)->server_close(server);
}

static void trace_listener_close(struct ss_server *server,
				 struct ss_listener *listener)
{
	tell(server, SS_TRACE_SERVER, NULL, "listener_close");
	super(server)->listener_close(server, listener);
}

static void trace_worker_ended(struct ss_server *server, int slot)
{
	tell(server, SS_TRACE_WAITS, NULL, "worker_ended");
	super(server)->worker_ended(server, slot);
}

/* ---- a request ------------------------------------------------------------*/

/* Told only where there was one: the id is not known before. */
static int trace_get_request(struct ss_server *server,
			     struct ss_listener *listener,
			     struct ss_request **req)
{
	int r = super(server)->get_request(server, listener, req);
	if (r >= 0)
		tell(server, SS_TRACE_REQUEST, *req, "get_request");
	return r;
}

static int trace_verify_request(struct ss_server *server,
				struct ss_request *req)
{
	tell(server, SS_TRACE_REQUEST, req, "verify_request");
	return super(server)->verify_request(server, req);
}

static int trace_process_request(struct ss_server *server,
				 struct ss_request *req)
{
	tell(server, SS_TRACE_REQUEST, req, "process_request");
	return super(server)->process_request(server, req);
}

static const struct ss_handler *step(struct ss_request *req, const char *name)
{
	const struct traced *traced =
		ss_request_layer_state(req, &ss_trace_mixin);
	tell(ss_request_server(req), SS_TRACE_REQUEST, req, name);
	return traced->handler;
}

static int step_setup(struct ss_request *req)
{
	const struct ss_handler *handler = step(req, "setup");
	return handler->setup ? handler->setup(req) : 0;
}

static int step_handle(struct ss_request *req)
{
	return step(req, "handle")->handle(req);
}

static int step_finish(struct ss_request *req)
{
	const struct ss_handler *handler = step(req, "finish");
	return handler->finish ? handler->finish(req) : 0;
}

static int trace_finish_request(struct ss_server *server,
				struct ss_request *req)
{
	tell(server, SS_TRACE_REQUEST, req, "finish_request");
	struct traced *traced = ss_request_layer_state(req, &ss_trace_mixin);
	traced->handler = ss_request_handler(req);
	traced->stand_in = *traced->handler;
	traced->stand_in.setup = step_setup;
	traced->stand_in.handle = step_handle;
	traced->stand_in.finish = step_finish;
	int r = ss_request_set_handler(req, &traced->stand_in);
	return r < 0 ? r : super(server)->finish_request(server, req);
}

static void trace_shutdown_request(struct ss_server *server,
				   struct ss_request *req)
{
	tell(server, SS_TRACE_REQUEST, req, "shutdown_request");
	super(server)->shutdown_request(server, req);
}

static void trace_close_request(struct ss_server *server,
				struct ss_request *req)
{
	tell(server, SS_TRACE_REQUEST, req, "close_request");
	super(server)->close_request(server, req);
}

static void trace_handle_error(struct ss_server *server, struct ss_request *req,
			       const struct ss_error *error)
{
	tell(server, SS_TRACE_REQUEST, req, "handle_error");
	super(server)->handle_error(server, req, error);
}

static void trace_end_request(struct ss_server *server, struct ss_request *req,
			      int status)
{
	tell(server, SS_TRACE_REQUEST, req, "end_request");
	super(server)->end_request(server, req, status);
}

static int trace_cancel_request(struct ss_server *server,
				struct ss_request *req, bool force)
{
	tell(server, SS_TRACE_WAITS, req, "cancel_request");
	return super(server)->cancel_request(server, req, force);
}

static int trace_wake_request(struct ss_server *server, struct ss_request *req)
{
	tell(server, SS_TRACE_WAITS, req, "wake_request");
	return super(server)->wake_request(server, req);
}

static void trace_stir_request(struct ss_server *server, struct ss_request *req)
{
	tell(server, SS_TRACE_WAITS, req, "stir_request");
	super(server)->stir_request(server, req);
}

/* ---- blocking -------------------------------------------------------------*/

static int trace_wait(struct ss_server *server, struct ss_request *req,
		      struct ss_source *source, short events, int64_t deadline)
{
	tell(server, SS_TRACE_WAITS, req, "wait");
	return super(server)->wait(server, req, source, events, deadline);
}

static int trace_wait_any(struct ss_server *server, struct ss_request *req,
			  struct ss_wait *waits, int count, int64_t deadline)
{
	tell(server, SS_TRACE_WAITS, req, "wait_any");
	return super(server)->wait_any(server, req, waits, count, deadline);
}

static int trace_offload(struct ss_server *server, struct ss_request *req,
			 int (*fn)(void *arg), void *arg)
{
	tell(server, SS_TRACE_WAITS, req, "offload");
	return super(server)->offload(server, req, fn, arg);
}

static void trace_forget(struct ss_server *server, struct ss_source *source)
{
	tell(server, SS_TRACE_WAITS, NULL, "forget");
	super(server)->forget(server, source);
}

static int64_t trace_now(struct ss_server *server)
{
	tell(server, SS_TRACE_WAITS, NULL, "now");
	return super(server)->now(server);
}

static int trace_pass_time(struct ss_server *server, int64_t until)
{
	tell(server, SS_TRACE_WAITS, NULL, "pass_time");
	return super(server)->pass_time(server, until);
}

const struct ss_layer ss_trace_mixin = {
	.name = "trace",
	.server_size = sizeof(struct trace),
	.request_size = sizeof(struct traced),
	.init = trace_init,
	.ops = {
		.server_bind = trace_server_bind,
		.server_activate = trace_server_activate,
		.serve_forever = trace_serve_forever,
		.serve_turn = trace_serve_turn,
		.service_actions = trace_service_actions,
		.handle_timeout = trace_handle_timeout,
		.server_close = trace_server_close,
		.listener_close = trace_listener_close,
		.worker_ended = trace_worker_ended,
		.get_request = trace_get_request,
		.verify_request = trace_verify_request,
		.process_request = trace_process_request,
		.finish_request = trace_finish_request,
		.shutdown_request = trace_shutdown_request,
		.close_request = trace_close_request,
		.handle_error = trace_handle_error,
		.end_request = trace_end_request,
		.cancel_request = trace_cancel_request,
		.wake_request = trace_wake_request,
		.stir_request = trace_stir_request,
		.wait = trace_wait,
		.wait_any = trace_wait_any,
		.offload = trace_offload,
		.forget = trace_forget,
		.now = trace_now,
		.pass_time = trace_pass_time,
	},
};
