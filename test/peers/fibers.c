/*
 * For a debugger: a server of two loops with five handlers that are parked
 * three calls deep, one that runs, and a stack that another has left there.
 * With an argument it dies then.
 */
#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <socketserver/socketserver.h>

static atomic_int parked, waiting;
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

static uint64_t ended(struct ss_server *server)
{
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	return stats.ended;
}

/* Until the others are where they are to be. */
static int wait_and_tell(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	atomic_store(&waiting, 1);
	while (!ended(server))
		ss_sleep(req, 1);
	ss_sleep(req, 100);
	everyone(atomic_load(&parked));
	ss_shutdown(server);
	return 0;
}

static int handle(struct ss_request *req)
{
	char byte;
	if (ss_read(req, &byte, 1) != 1 || byte == 'q')
		return 0;
	return byte == 'p' ? middle(req) : wait_and_tell(req);
}

static const struct ss_handler handler = { .name = "patient",
					   .handle = handle,
					   .rbufsize = SS_NONE };

/* A client that says this, and stays. */
static void client(struct ss_server *server, char byte)
{
	struct ss_address to;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ss_server_address(server, 0, &to);
	if (connect(fd, &to.u.sa, to.len) == -1 ||
	    send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
		exit(1);
}

static void turn_until(struct ss_server *server, atomic_int *count, int enough)
{
	while (atomic_load(count) < enough)
		ss_server_turn(server, ss_now(server) + 1);
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
	if (ss_server_new(&server, &config, NULL) < 0)
		return 1;
	for (int i = 0; i < 4; i++)
		client(server, 'p');
	turn_until(server, &parked, 4);
	client(server, 'x');
	turn_until(server, &waiting, 1);
	client(server, 'p');
	turn_until(server, &parked, 5);
	client(server, 'q');
	int r = ss_serve_forever(server);
	ss_server_close(server);
	ss_server_free(server);
	return r < 0;
}
