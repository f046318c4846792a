/*
 * Relay: what a client says goes to another server, and what that one says
 * comes back, both at once, until both have said all.  Where one side takes
 * nothing, the other is not read either.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include <socketserver/layer.h>

#include "handlers.h"

enum { SIZE = 16384 };

/* One direction. */
struct half {
	struct ss_request *from, *to;
	size_t begin, end; /* of `bytes`: what is on its way */
	bool ended;	   /* from has said all */
	bool closed;	   /* and to knows */
	char bytes[SIZE];
};

struct relay {
	struct half up, down;
};

/* As long as nothing moves; the server's where the handler has none. */
static int idle_ms(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	int ms = ss_request_handler(req)->timeouts.idle_ms;

	return ms != 0 ? ms : ss_server_timeouts(server).idle_ms;
}

static int take(struct half *half)
{
	ssize_t n = ss_try_read(half->from, half->bytes, sizeof(half->bytes));

	if (n == -EAGAIN)
		return 0;
	if (n < 0)
		return (int)n;
	half->ended = n == 0;
	half->begin = 0;
	half->end = (size_t)n;
	return 0;
}

static int give(struct half *half)
{
	ssize_t n = ss_try_write(half->to, half->bytes + half->begin,
				 half->end - half->begin);

	if (n == -EAGAIN)
		return 0;
	if (n < 0)
		return (int)n;
	half->begin += (size_t)n;
	return 0;
}

static bool holds(const struct half *half)
{
	return half->begin < half->end;
}

/* As far as it goes without waiting. */
static int move(struct half *half)
{
	int r = 0;

	if (!holds(half) && !half->ended)
		r = take(half);
	if (r == 0 && holds(half))
		r = give(half);
	if (r < 0 || holds(half) || !half->ended || half->closed)
		return r;
	half->closed = true;
	r = ss_shutdown_stream(half->to, SHUT_WR);
	/* Who has gone meanwhile has no more to hear. */
	return r == -ENOTCONN ? 0 : r;
}

/* Where nothing is wanted nothing is asked, not even for an end: poll(2)
 * would tell of it again and again. */
static struct ss_wait wanted(struct half *in, const struct half *out)
{
	struct ss_wait wait = { .req = in->from };

	if (!in->ended && !holds(in))
		wait.events |= POLLIN;
	if (holds(out))
		wait.events |= POLLOUT;
	if (wait.events == 0)
		return (struct ss_wait){ .fd = -1 };
	return wait;
}

static int wait_for_more(struct ss_request *req, struct relay *relay)
{
	int ms = idle_ms(req);
	struct ss_wait waits[] = {
		wanted(&relay->up, &relay->down),
		wanted(&relay->down, &relay->up),
	};
	int64_t deadline =
		ms > 0 ? ss_now(ss_request_server(req)) + ms : SS_NONE;
	int r = ss_wait_any(req, waits, 2, deadline);

	if (r == 0)
		return ss_fail(req, -ETIMEDOUT, "nothing moved for %d ms", ms);
	return r;
}

/* Until both directions are at their end. */
static int copy(struct ss_request *req, struct relay *relay)
{
	for (;;) {
		int up = move(&relay->up);
		int down = move(&relay->down);

		if (up < 0 || down < 0)
			return up < 0 ? up : down;
		if (relay->up.closed && relay->down.closed)
			return 0;
		int r = wait_for_more(req, relay);

		if (r < 0)
			return r;
	}
}

static int relay_handle(struct ss_request *req)
{
	const struct ss_connect_options options = {
		.disable_nagle_algorithm = true,
	};
	const char *upstream = ss_request_handler(req)->user;
	struct relay *relay = ss_state(req);
	struct ss_diag why;

	if (upstream == NULL)
		upstream = ss_server_user(ss_request_server(req));
	if (upstream == NULL || ss_request_dgram(req))
		return ss_fail(req, -EINVAL, "no %s to relay",
			       upstream == NULL ? "address" : "stream");
	int fd = ss_connect(req, upstream, &options, &why);

	if (fd < 0)
		return ss_fail(req, fd, "%s", why.text);
	struct ss_request *other;
	int r = ss_stream_new(req, fd, &other);

	if (r < 0)
		return r;
	relay->up.from = relay->down.to = req;
	relay->up.to = relay->down.from = other;
	return copy(req, relay);
}

const struct ss_handler ss_relay_handler = {
	.name = "relay",
	.size = sizeof(struct relay),
	.handle = relay_handle,
	.rbufsize = SS_NONE,
	.disable_nagle_algorithm = true,
	.speaks_first = true, /* perhaps the other server does */
};
