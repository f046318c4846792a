/*
 * Upper: a line in, the same line in capitals out, as often as the client
 * likes.  A line that is too long is answered once and its rest skipped, so
 * that neither memory nor the conversation depends on a newline that may never
 * come.
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>

#include "handlers.h"

enum { LINE_SIZE = 1024 }; /* as ss_read_line counts: with the NUL */

struct upper {
	bool skipping; /* the rest of a line that was too long */
};

/* Nothing was consumed, and what would fill the buffer has no newline. */
static int too_long(struct ss_request *req, char *line)
{
	struct upper *upper = ss_state(req);
	ssize_t n = ss_read_full(req, line, LINE_SIZE - 1);

	if (n > 0 && !upper->skipping)
		n = ss_printf(req, "error: a line has at most %d bytes\n",
			      LINE_SIZE - 1);
	upper->skipping = true;
	return n < 0 ? (int)n : SS_AGAIN;
}

static int upper_handle(struct ss_request *req)
{
	struct upper *upper = ss_state(req);
	char line[LINE_SIZE];
	ssize_t n = ss_read_line(req, line, sizeof(line));

	if (n == -EMSGSIZE)
		return too_long(req, line);
	if (n <= 0)
		return (int)n;
	if (upper->skipping) {
		upper->skipping = false;
		return SS_AGAIN;
	}
	for (ssize_t i = 0; i < n; i++)
		line[i] = (char)toupper((unsigned char)line[i]);
	n = ss_write(req, line, (size_t)n);
	return n < 0 ? (int)n : SS_AGAIN;
}

const struct ss_handler ss_upper_handler = {
	.name = "upper",
	.size = sizeof(struct upper),
	.handle = upper_handle,
};
