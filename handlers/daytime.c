/*
 * Daytime (RFC 867): the time as a line of text, to whoever connects or sends
 * a datagram.  UTC, so that the answer does not depend on where the server is.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* gmtime_r */
#endif
#include <errno.h>
#include <time.h>

#include "handlers.h"

static int daytime_handle(struct ss_request *req)
{
	time_t now = time(NULL);
	struct tm tm;
	char text[64];

	if (gmtime_r(&now, &tm) == NULL)
		return ss_fail(req, -EOVERFLOW, "the year has no number");
	strftime(text, sizeof(text), "%A, %B %d, %Y %H:%M:%S-UTC", &tm);

	ssize_t n = ss_printf(req, "%s\r\n", text);

	return n < 0 ? (int)n : 0;
}

const struct ss_handler ss_daytime_handler = {
	.name = "daytime",
	.handle = daytime_handle,
	.speaks_first = true,
};
