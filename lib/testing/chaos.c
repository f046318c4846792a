/*
 * Chaos: a channel above the transport's that makes of reads and writes what
 * kernels and networks may make of them.
 *
 * It takes fewer bytes by asking for fewer, so that a source's edges stay what
 * the kernel says: what is left is read next time.  A wait that was not needed
 * is answered once, with a time; whoever asks again, be it earlier, is served.
 * So nobody waits for an edge that does not come, and nobody who only tries,
 * again and again, does so for ever.
 *
 * The channel is pushed in get_request, not in finish_request: a layer that
 * overrides the latter keeps requests from waiting without a stack.
 */
#include <errno.h>
#include <string.h>

#include <socketserver/sim.h>

#include "../sys.h"
#include "dice.h"

enum { PIECES = 16, NUMBER_BITS = 40, CUT_AFTER = 4096, DELAY_MS = 5 };

enum cut { CUT_NONE, CUT_RESET, CUT_HALF };

struct chaos {
	struct ss_chaos_options options;
	struct dice dice;	 /* the serving thread's, for datagrams */
	struct ss_request *held; /* one that the next overtakes */
};

struct chaos_channel {
	struct ss_channel channel;
	struct dice dice;
	const struct ss_chaos_options *options;
	enum cut cut;
	size_t left; /* bytes until then */
	bool is_cut;
	bool read_waited, write_waited; /* the next one goes through */
};

static const struct ss_ops *super(struct ss_server *server)
{
	return ss_super(server, &ss_chaos_mixin);
}

static struct chaos *state_of(struct ss_server *server)
{
	return ss_layer_state(server, &ss_chaos_mixin);
}

/* ---- one call -------------------------------------------------------------*/

/* Where it waits or is interrupted instead: -errno; else 0. */
static int disturb(struct chaos_channel *mine, short events, bool *waited,
		   struct ss_block *block)
{
	const struct ss_chaos_options *options = mine->options;
	struct ss_server *server = ss_request_server(mine->channel.req);
	if (*waited) {
		*waited = false;
		return 0;
	}
	if (dice_chance(&mine->dice, options->interrupted)) {
		*waited = true;
		return -EINTR;
	}
	if (!dice_chance(&mine->dice, options->would_block))
		return 0;
	*waited = true;
	/* 0: others go first. */
	int64_t ms = 0;
	if (options->delay_ms > 0)
		ms = (int64_t)dice_below(&mine->dice,
					 (uint64_t)options->delay_ms + 1);
	struct ss_source *source = ss_request_source(mine->channel.req);
	bool dgram = ss_request_dgram(mine->channel.req);
	*block = (struct ss_block){ .source = ms && !dgram ? source : NULL,
				    .events = events,
				    .until = ms ? ss_now(server) + ms : 0 };
	return -EAGAIN;
}

/* How many of n bytes this call may move. */
static size_t shorten(struct chaos_channel *mine, size_t n, int of_1000)
{
	if (mine->cut && n > mine->left)
		n = mine->left;
	if (n > 1 && dice_chance(&mine->dice, of_1000)) {
		/* Mostly few: it is at small numbers that things go wrong. */
		size_t most = dice_below(&mine->dice, 2) ? n - 1 : PIECES;
		n = 1 + (size_t)dice_below(&mine->dice, most < n ? most : n);
	}
	return n;
}

/* The connection ends here: for the client, too, if it is a reset. */
static void cut(struct chaos_channel *mine)
{
	struct ss_block block;
	mine->is_cut = true;
	if (mine->cut == CUT_RESET)
		ss_channel_shutdown(mine->channel.next, SHUT_RDWR, &block);
}

static bool at_cut(struct chaos_channel *mine, size_t moved)
{
	if (!mine->cut)
		return false;
	mine->left -= moved;
	if (!mine->left && !mine->is_cut)
		cut(mine);
	return mine->is_cut;
}

static ssize_t chaos_read(struct ss_channel *channel, void *buf, size_t n,
			  struct ss_block *block)
{
	struct chaos_channel *mine = (struct chaos_channel *)channel;
	if (at_cut(mine, 0))
		return mine->cut == CUT_RESET ? -ECONNRESET : 0;
	int r = disturb(mine, POLLIN, &mine->read_waited, block);
	if (r < 0)
		return r;
	n = shorten(mine, n, mine->options->short_read);
	ssize_t got = ss_channel_read(channel->next, buf, n, block);
	if (got > 0)
		at_cut(mine, (size_t)got);
	return got;
}

/* The first n bytes of them, as far as PIECES go. */
static int front(struct iovec *part, const struct iovec *iov, int count,
		 size_t n)
{
	int i = 0;
	for (; i < count && i < PIECES && n; i++) {
		part[i] = iov[i];
		if (part[i].iov_len > n)
			part[i].iov_len = n;
		n -= part[i].iov_len;
	}
	return i;
}

static ssize_t write_stream(struct chaos_channel *mine, const struct iovec *iov,
			    int count, struct ss_block *block)
{
	struct iovec part[PIECES];
	size_t n = 0;
	for (int i = 0; i < count; i++)
		n += iov[i].iov_len;
	if (mine->cut == CUT_RESET && at_cut(mine, 0))
		return -EPIPE;
	enum cut kept = mine->cut;
	if (kept == CUT_HALF)
		mine->cut = CUT_NONE;
	n = shorten(mine, n, mine->options->short_write);
	mine->cut = kept;
	count = front(part, iov, count, n);
	ssize_t sent =
		ss_channel_writev(mine->channel.next, part, count, block);
	if (sent > 0 && mine->cut == CUT_RESET)
		at_cut(mine, (size_t)sent);
	return sent;
}

static ssize_t write_packet(struct chaos_channel *mine, const struct iovec *iov,
			    int count, struct ss_block *block)
{
	size_t n = 0;
	for (int i = 0; i < count; i++)
		n += iov[i].iov_len;
	if (dice_chance(&mine->dice, mine->options->lost))
		return (ssize_t)n;
	struct ss_channel *next = mine->channel.next;
	ssize_t sent = ss_channel_writev(next, iov, count, block);
	struct ss_block second;
	if (sent >= 0 && dice_chance(&mine->dice, mine->options->duplicated))
		ss_channel_writev(next, iov, count, &second);
	return sent;
}

static ssize_t chaos_writev(struct ss_channel *channel, const struct iovec *iov,
			    int count, struct ss_block *block)
{
	struct chaos_channel *mine = (struct chaos_channel *)channel;
	int r = disturb(mine, POLLOUT, &mine->write_waited, block);
	if (r < 0)
		return r;
	if (ss_request_dgram(channel->req))
		return write_packet(mine, iov, count, block);
	return write_stream(mine, iov, count, block);
}

static const struct ss_channel_ops chaos_ops = {
	.read = chaos_read,
	.writev = chaos_writev,
};

/* ---- requests -------------------------------------------------------------*/

static void attach(struct chaos *chaos, struct ss_request *req)
{
	const struct ss_chaos_options *options = &chaos->options;
	struct chaos_channel *mine =
		ss_request_layer_state(req, &ss_chaos_mixin);
	/* The number among its server's; above it is which server that is. */
	uint64_t number =
		ss_request_id(req) & (((uint64_t)1 << NUMBER_BITS) - 1);
	*mine = (struct chaos_channel){ .options = options };
	mine->dice = dice_of(options->seed, number);
	if (dice_chance(&mine->dice, options->reset))
		mine->cut = CUT_RESET;
	else if (dice_chance(&mine->dice, options->half_close))
		mine->cut = CUT_HALF;
	mine->left = (size_t)dice_below(&mine->dice,
					(uint64_t)options->cut_after + 1);
	ss_channel_push(req, &mine->channel, &chaos_ops);
}

/* One that is not lost; -errno: there is none. */
static int next_request(struct ss_server *server, struct ss_listener *listener,
			struct ss_request **req)
{
	struct chaos *chaos = state_of(server);
	for (;;) {
		int r = super(server)->get_request(server, listener, req);
		if (r < 0)
			return r;
		bool dgram = ss_request_dgram(*req);
		if (!dgram || !dice_chance(&chaos->dice, chaos->options.lost)) {
			attach(chaos, *req);
			return 0;
		}
		ss_request_drop(*req);
	}
}

static int chaos_get_request(struct ss_server *server,
			     struct ss_listener *listener,
			     struct ss_request **req)
{
	struct chaos *chaos = state_of(server);
	struct ss_request *held = chaos->held;
	int r = next_request(server, listener, req);
	if (held && r < 0) {
		*req = held;
		chaos->held = NULL;
		return 0;
	}
	if (r < 0 || held || !ss_request_dgram(*req) ||
	    !dice_chance(&chaos->dice, chaos->options.reordered))
		return r;
	held = *req;
	if (next_request(server, listener, req) < 0) {
		*req = held;
		return 0;
	}
	chaos->held = held;
	/* No descriptor tells that there is one more. */
	ss_listener_ready(server, listener);
	return 0;
}

/* ---- life -----------------------------------------------------------------*/

static void choose(int *member, int otherwise)
{
	if (*member == 0)
		*member = otherwise;
	if (*member == SS_NONE)
		*member = 0;
}

static int chaos_init(struct ss_server *server, const void *given)
{
	struct chaos *chaos = state_of(server);
	struct ss_chaos_options *options = &chaos->options;
	if (given)
		*options = *(const struct ss_chaos_options *)given;
	int *const rates[] = {
		&options->short_read,  &options->short_write,
		&options->would_block, &options->interrupted,
		&options->reset,       &options->half_close,
		&options->lost,	       &options->duplicated,
		&options->reordered,
	};
	static const int otherwise[] = { 250, 250, 100, 50 };
	for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
		if (*rates[i] < SS_NONE || *rates[i] > 1000)
			return ss_refuse(server, -EINVAL,
					 "chaos: %d of 1000 are not possible",
					 *rates[i]);
		choose(rates[i], i < 4 ? otherwise[i] : 0);
	}
	choose(&options->delay_ms, DELAY_MS);
	choose(&options->cut_after, CUT_AFTER);
	if (options->delay_ms < 0 || options->cut_after < 0)
		return ss_refuse(server, -EINVAL,
				 "chaos: delay_ms or cut_after is below 0");
	chaos->dice = dice_of(options->seed, 0);
	return 0;
}

static void chaos_fini(struct ss_server *server)
{
	struct chaos *chaos = state_of(server);
	if (chaos->held)
		ss_request_drop(chaos->held);
	chaos->held = NULL;
}

const struct ss_layer ss_chaos_mixin = {
	.name = "chaos",
	.server_size = sizeof(struct chaos),
	.request_size = sizeof(struct chaos_channel),
	.init = chaos_init,
	.fini = chaos_fini,
	.ops = { .get_request = chaos_get_request },
};
