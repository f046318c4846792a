/*
 * Greeting: the server speaks first and hangs up.
 */
#include "handlers.h"

static int greeting_handle(struct ss_request *req)
{
	ssize_t n = ss_printf(req, "Welcome, and goodbye.\n");

	return n < 0 ? (int)n : 0;
}

const struct ss_handler ss_greeting_handler = {
	.name = "greeting",
	.handle = greeting_handle,
	.speaks_first = true,
};
