/*
 * The smallest echo server: a handler, a configuration, a server.  Start it,
 * and in other terminals talk to it: nc 127.0.0.1 7777.  Ctrl-C ends it.
 */
#include <socketserver/socketserver.h>

static int echo(struct ss_request *req)
{
	char buf[4096];
	ssize_t n = ss_read(req, buf, sizeof(buf));

	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

int main(void)
{
	static const struct ss_handler handler = { .handle = echo };
	static const struct ss_config config = {
		.addresses = { "127.0.0.1:7777" },
		SS_THREADING_TCP_SERVER,
		.handler = &handler,
	};
	struct ss_server *server;
	struct ss_diag why;

	if (ss_server_new(&server, &config, &why) < 0) {
		fprintf(stderr, "hello: %s\n", why.text);
		return 1;
	}
	ss_serve_forever(server);
	ss_server_free(server);
	return 0;
}
