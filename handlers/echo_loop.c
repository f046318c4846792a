/*
 * Echo as a loop: the way to write a handler whose conversation has steps.  It
 * keeps its stack while the client is silent, and thus a small buffer.
 */
#include "handlers.h"

static int echo_loop_handle(struct ss_request *req)
{
	char buf[2048];
	ssize_t n;

	while ((n = ss_read(req, buf, sizeof(buf))) > 0) {
		n = ss_write(req, buf, (size_t)n);
		if (n < 0)
			break;
	}
	return (int)n;
}

const struct ss_handler ss_echo_loop_handler = {
	.name = "echo_loop",
	.handle = echo_loop_handle,
	.rbufsize = SS_NONE,
};
