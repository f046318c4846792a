/*
 * Echo, line by line; but the line WHOAMI is answered by the client's address
 * and port, as the server has them.
 */
#include "handlers.h"

#include <errno.h>
#include <string.h>

enum { LINE = 1024 };

static ssize_t tell_address(struct ss_request *req)
{
	struct ss_address peer;
	char host[SS_ADDRESS_TEXT] = "-";
	int port = -1;

	if (ss_request_peer(req, &peer) == 0) {
		ss_address_host(&peer, host, sizeof(host));
		port = ss_address_port(&peer);
	}
	if (port < 0)
		return ss_printf(req, "%s -\n", host);
	return ss_printf(req, "%s %d\n", host, port);
}

static int whoami_handle(struct ss_request *req)
{
	char line[LINE];
	ssize_t n = ss_read_line(req, line, sizeof(line));

	/* One that is too long goes back in pieces. */
	if (n == -EMSGSIZE)
		n = ss_read(req, line, sizeof(line) - 1);
	if (n > 0)
		line[n] = '\0';
	if (n <= 0)
		return (int)n;
	if (strcmp(line, "WHOAMI\n") == 0 || strcmp(line, "WHOAMI\r\n") == 0)
		n = tell_address(req);
	else
		n = ss_write(req, line, (size_t)n);
	return n < 0 ? (int)n : SS_AGAIN;
}

const struct ss_handler ss_whoami_handler = {
	.name = "whoami",
	.handle = whoami_handle,
};
