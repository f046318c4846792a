/*
 * Discard (RFC 863): takes what comes and throws it away.
 */
#include "handlers.h"

static int discard_handle(struct ss_request *req)
{
	char buf[16384];
	ssize_t n = ss_read(req, buf, sizeof(buf));

	return n > 0 ? SS_AGAIN : (int)n;
}

const struct ss_handler ss_discard_handler = {
	.name = "discard",
	.handle = discard_handle,
	.rbufsize = SS_NONE,
};
