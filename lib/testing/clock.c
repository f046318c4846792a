/*
 * Clock: time that stands still, and goes on by leaps, when nothing else can
 * happen.  Where that is, a loop says by pass_time, and a handler that is
 * served on it, one at a time, by waiting.
 */
#include <errno.h>

#include <socketserver/layers.h>
#include <socketserver/sim.h>

#include "../sys.h"

enum { GRACE_MS = 250 };

/* A turn's deadline that is none (memory). */
static const int64_t NEVER = INT64_MAX;

struct clock {
	struct ss_clock_options options;
	int64_t now;
};

static const struct ss_ops *super(struct ss_server *server)
{
	return ss_super(server, &ss_clock_mixin);
}

static struct clock *state_of(struct ss_server *server)
{
	return ss_layer_state(server, &ss_clock_mixin);
}

int ss_clock_set(struct ss_server *server, int64_t now)
{
	if (!ss_server_has(server, &ss_clock_mixin))
		return -ENOTSUP;
	struct clock *clock = state_of(server);
	if (now < clock->now)
		return -EINVAL;
	clock->now = now;
	return 0;
}

static int64_t clock_now(struct ss_server *server)
{
	return state_of(server)->now;
}

/* Whether somebody has done something, at most until then. */
static bool idle(struct ss_server *server, int64_t until)
{
	const struct clock *clock = state_of(server);
	const struct ss_clock_options *options = &clock->options;
	if (until != SS_NONE && until < clock->now)
		until = clock->now;
	return options->idle && options->idle(options->arg, server, until);
}

static void leap(struct ss_server *server, int64_t until)
{
	struct clock *clock = state_of(server);
	if (clock->now < until)
		clock->now = until;
}

static bool parks(const struct ss_server *server)
{
	return ss_server_flags(server) & SS_LAYER_PARKS;
}

static int clock_pass_time(struct ss_server *server, int64_t until)
{
	bool never = until == SS_NONE || until == NEVER;
	if (idle(server, never ? SS_NONE : until))
		return 0;
	/* Memory hears of it where it has asked. */
	if (until == SS_NONE || (never && parks(server)))
		return super(server)->pass_time(server, until);
	if (never)
		return 0;
	leap(server, until);
	return 0;
}

/* ---- where a handler waits on the loop ------------------------------------*/

/* A server that is to stop becomes less patient as time goes by. */
static int64_t until_ending(struct ss_server *server,
			    const struct ss_request *req, int64_t deadline)
{
	if (!ss_stopping(req))
		return deadline;
	int64_t at = ss_drain_deadline(server);
	if (at != SS_NONE && at <= ss_now(server))
		at += GRACE_MS;
	return at != SS_NONE && (deadline == SS_NONE || at < deadline)
		       ? at
		       : deadline;
}

/* One leap at most; 0: look again. */
static int pass(struct ss_server *server, const struct ss_request *req,
		int64_t deadline)
{
	int64_t until = until_ending(server, req, deadline);
	if (idle(server, until))
		return 0;
	if (until == SS_NONE)
		return -ESHUTDOWN;
	leap(server, until);
	return until == deadline ? -ETIMEDOUT : 0;
}

static int clock_wait(struct ss_server *server, struct ss_request *req,
		      struct ss_source *source, short events, int64_t deadline)
{
	if (parks(server) || !req || (source && source->fd >= 0))
		return super(server)->wait(server, req, source, events,
					   deadline);
	int r = ss_request_ending(req);
	if (r == -ECANCELED || (r < 0 && (events & POLLIN)))
		return r;
	return pass(server, req, deadline);
}

static bool reads(const struct ss_wait *waits, int count)
{
	for (int i = 0; i < count; i++)
		if (waits[i].req && (waits[i].events & POLLIN))
			return true;
	return false;
}

/* Streams see the end of their input.  Who waits for something else would do so
 * in earnest, and for ever where all that can happen is simulated. */
static int at_the_end(struct ss_server *server, struct ss_request *req,
		      struct ss_wait *waits, int count)
{
	if (state_of(server)->options.idle && !reads(waits, count))
		return -ECANCELED;
	return super(server)->wait_any(server, req, waits, count, SS_NONE);
}

/* What is there now is for those to say who know the streams. */
static int clock_wait_any(struct ss_server *server, struct ss_request *req,
			  struct ss_wait *waits, int count, int64_t deadline)
{
	if (parks(server))
		return super(server)->wait_any(server, req, waits, count,
					       deadline);
	for (;;) {
		int r = super(server)->wait_any(server, req, waits, count, 0);
		if (r)
			return r;
		if (deadline != SS_NONE && ss_now(server) >= deadline)
			return 0;
		r = pass(server, req, deadline);
		if (r == -ESHUTDOWN)
			return at_the_end(server, req, waits, count);
	}
}

/* ---- life -----------------------------------------------------------------*/

static int clock_init(struct ss_server *server, const void *options)
{
	struct clock *clock = state_of(server);
	unsigned flags = ss_server_flags(server);
	if (options)
		clock->options = *(const struct ss_clock_options *)options;
	if ((flags & SS_LAYER_SOCKET) ||
	    ((flags & SS_LAYER_DISPATCHES) && !(flags & SS_LAYER_PARKS)))
		return ss_refuse(server, -EINVAL,
				 "clock: time stands still over memory alone, "
				 "without threads");
	if (clock->options.start_ms < 0)
		return ss_refuse(server, -EINVAL, "clock: start_ms is below 0");
	clock->now = clock->options.start_ms ? clock->options.start_ms : 1;
	return 0;
}

const struct ss_layer ss_clock_mixin = {
	.name = "clock",
	.server_size = sizeof(struct clock),
	.init = clock_init,
	.ops = {
		.wait = clock_wait,
		.wait_any = clock_wait_any,
		.now = clock_now,
		.pass_time = clock_pass_time,
	},
};
