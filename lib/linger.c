/*
 * The end of a connection, without destroying the last reply.
 *
 * A socket closed with unread input resets the connection, and the reset can
 * overtake what was sent (RFC 1122 4.2.2.13).  So where end of file was not
 * seen: shut down our side, look once, and only if input is there read on for
 * a while before closing.
 */
#include "internal.h"

enum { LINGER_BYTES = 65536, LINGER_MS = 1000, LINGER_SYNC_MS = 100 };

/* 1: some input was thrown away; 0: none now; -1: its end, or an error. */
static int discard(struct ss_source *source, size_t *left)
{
	char bytes[4096];
	size_t n = *left < sizeof(bytes) ? *left : sizeof(bytes);
	ssize_t r = sys_recv(source->fd, bytes, n, MSG_DONTWAIT);
	if (r > 0) {
		*left -= (size_t)r;
		return 1;
	}
	return r == -1 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static void linger(struct ss_server *server, struct ss_request *req)
{
	struct ss_source *source = req->source;
	size_t left = LINGER_BYTES;
	if (discard(source, &left) != 1)
		return;
	/* Never where clients are accepted: there one look is all. */
	if (!req->running)
		return;
	int ms = req->on_loop ? LINGER_SYNC_MS : LINGER_MS;
	int64_t deadline = now(server) + ms;
	while (left > 0 && !stream_forced(req)) {
		int r = discard(source, &left);
		if (r < 0)
			return;
		progress_waits(req, SS_WAITS_INPUT);
		if (r == 0 && self(server)->wait(server, req, source, POLLIN,
						 deadline) < 0)
			return;
	}
}

void linger_shutdown(struct ss_server *server, struct ss_request *req)
{
	const struct ss_source *source = req->source;
	bool stream = source && source->fd >= 0 && !req->dgram;
	/* Where end of file was read, close alone says ours, unless another
	 * process has the descriptor too. */
	if (stream && (!req->eof || server->child)) {
		struct ss_block block;
		ss_channel_shutdown(req->top, SHUT_WR, &block);
		if (!req->eof)
			linger(server, req);
	}
	self(server)->close_request(server, req);
}

void linger_close(struct ss_server *server, struct ss_request *req)
{
	(void)server;
	channels_close(req);
}
