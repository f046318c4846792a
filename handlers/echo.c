/*
 * Echo (RFC 862): what comes goes back.  A call serves what there is and
 * returns SS_AGAIN, so that no model keeps a stack for a silent client.
 */
#include "handlers.h"

/* Not by ss_read, for which an empty datagram is an end, not a message. */
static int echo_packet(struct ss_request *req)
{
	const void *data;
	ssize_t n = ss_packet(req, &data);

	if (n >= 0)
		n = ss_write(req, data, (size_t)n);
	return n < 0 ? (int)n : 0;
}

static int echo_handle(struct ss_request *req)
{
	if (ss_request_dgram(req))
		return echo_packet(req);

	/* More than most messages have: a read that does not fill it has told
	 * that there is no more, and nobody looks again. */
	char buf[32768];
	ssize_t n = ss_read(req, buf, sizeof(buf));

	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

const struct ss_handler ss_echo_handler = {
	.name = "echo",
	.handle = echo_handle,
	.rbufsize = SS_NONE,
};
