/* For a debugger: a server of two loops with four handlers, which are parked
 * three calls deep, and a fifth, which runs; with an argument it dies there. */
#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <socketserver/socketserver.h>

enum { CLIENTS = 5 };

static atomic_int parked;
static bool dies;

__attribute__((noinline)) void everyone(int count);
void everyone(int count)
{
	printf("%d\n", count);
	if (dies)
		abort();
}

__attribute__((noinline)) static ssize_t deepest(struct ss_request *req,
						 char *buf, size_t size)
{
	volatile int secret = 4711;
	atomic_fetch_add(&parked, 1);
	ssize_t n = ss_read(req, buf, size);
	return secret ? n : 0;
}

__attribute__((noinline)) static int middle(struct ss_request *req)
{
	char buf[16];
	ssize_t n = deepest(req, buf, sizeof(buf));
	return n < 0 ? (int)n : 0;
}

static int handle(struct ss_request *req)
{
	char byte;
	if (ss_read(req, &byte, 1) == 1 && byte == 'p')
		return middle(req);
	/* The last one, when the others are parked. */
	everyone(atomic_load(&parked));
	ss_shutdown(ss_request_server(req));
	return 0;
}

static const struct ss_handler handler = { .name = "patient",
					   .handle = handle,
					   .rbufsize = SS_NONE };

static int client(const struct ss_address *address, char byte)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, &address->u.sa, address->len) == -1 ||
	    send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	(void)argv;
	dies = argc > 1;
	struct ss_fiber_options options = { .loops = 2 };
	struct ss_config config = {
		.addresses = { "tcp://127.0.0.1:0" },
		.handler = &handler,
		.mixins = { { &ss_fiber_mixin, &options } },
		.drain_ms = 1,
	};
	struct ss_server *server;
	struct ss_address address;
	if (ss_server_new(&server, &config, NULL) < 0)
		return 1;
	ss_server_address(server, 0, &address);
	for (int i = 0; i < CLIENTS - 1; i++)
		if (client(&address, 'p') < 0)
			return 1;
	while (atomic_load(&parked) < CLIENTS - 1)
		ss_server_turn(server, ss_now(server) + 1);
	if (client(&address, 'x') < 0)
		return 1;
	int r = ss_serve_forever(server);
	ss_server_close(server);
	ss_server_free(server);
	return r < 0;
}
