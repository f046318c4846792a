/*
 * Echo by one level-triggered epoll loop: one recv and one send a message, a
 * share of an epoll_wait.  What the kernel does not take at once is kept with
 * its connection, which then waits for room only.  With -w several processes do
 * so on one listener.
 */
#include "peer.h"

#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#define EVENTS 256
#define ACCEPT_BATCH 16
#define WORKERS_MAX 256

struct pending {
	size_t begin, end;
	char bytes[BENCH_BUFFER];
};

struct conn {
	int fd;
	struct pending *pending; /* NULL: nothing to send */
};

static char buf[BENCH_BUFFER];

static void watch(int ep, int op, struct conn *conn, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = conn };

	if (epoll_ctl(ep, op, conn->fd, &event) == -1)
		bench_die(1, "epoll_ctl: %s", strerror(errno));
}

static void end(struct conn *conn)
{
	close(conn->fd);
	free(conn->pending);
	free(conn);
}

static bool gone(void)
{
	return errno != EAGAIN && errno != EINTR;
}

/* Keeps what was not sent, and waits for room. */
static void keep(int ep, struct conn *conn, const char *bytes, size_t n)
{
	conn->pending = malloc(sizeof(*conn->pending));
	if (!conn->pending) {
		end(conn);
		return;
	}
	conn->pending->begin = 0;
	conn->pending->end = n;
	memcpy(conn->pending->bytes, bytes, n);
	watch(ep, EPOLL_CTL_MOD, conn, EPOLLOUT);
}

static void echo(int ep, struct conn *conn)
{
	const ssize_t n = recv(conn->fd, buf, sizeof(buf), 0);

	if (n <= 0) {
		if (n == 0 || gone())
			end(conn);
		return;
	}
	ssize_t sent = send(conn->fd, buf, (size_t)n, MSG_NOSIGNAL);
	if (sent == n)
		return;
	if (sent == -1 && gone()) {
		end(conn);
		return;
	}
	if (sent == -1)
		sent = 0;
	keep(ep, conn, buf + sent, (size_t)(n - sent));
}

static void resume(int ep, struct conn *conn)
{
	struct pending *pending = conn->pending;
	const ssize_t sent = send(conn->fd, pending->bytes + pending->begin,
				  pending->end - pending->begin, MSG_NOSIGNAL);

	if (sent == -1) {
		if (gone())
			end(conn);
		return;
	}
	pending->begin += (size_t)sent;
	if (pending->begin < pending->end)
		return;
	free(pending);
	conn->pending = NULL;
	watch(ep, EPOLL_CTL_MOD, conn, EPOLLIN);
}

static void welcome(int ep, int listener)
{
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		const int fd = peer_take(listener, SOCK_NONBLOCK);

		if (fd == -1)
			return;
		struct conn *conn = malloc(sizeof(*conn));
		if (!conn) {
			close(fd);
			return;
		}
		*conn = (struct conn){ .fd = fd };
		watch(ep, EPOLL_CTL_ADD, conn, EPOLLIN);
	}
}

_Noreturn static void serve(struct conn *listener, uint32_t exclusive)
{
	const int ep = epoll_create1(EPOLL_CLOEXEC);

	if (ep == -1)
		bench_die(1, "epoll_create1: %s", strerror(errno));
	watch(ep, EPOLL_CTL_ADD, listener, EPOLLIN | exclusive);
	for (;;) {
		struct epoll_event events[EVENTS];
		const int n = epoll_wait(ep, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct conn *conn = events[i].data.ptr;

			if (conn == listener)
				welcome(ep, listener->fd);
			else if (conn->pending)
				resume(ep, conn);
			else
				echo(ep, conn);
		}
	}
}

static pid_t workers[WORKERS_MAX];

static void stop(int sig)
{
	(void)sig;
	for (int i = 0; i < WORKERS_MAX && workers[i] > 0; i++)
		kill(workers[i], SIGKILL);
	_exit(0);
}

/* Several processes, each with its loop, on one listener. */
_Noreturn static void fork_workers(struct conn *listener, int n)
{
	peer_on_signal(SIGTERM, stop);
	for (int i = 0; i < n; i++) {
		workers[i] = fork();
		if (workers[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			serve(listener, EPOLLEXCLUSIVE);
		}
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int n = 1;

	if (argc == 4 && strcmp(argv[1], "-w") == 0) {
		n = (int)strtol(argv[2], NULL, 10);
		argv[2] = argv[0];
		argv += 2;
		argc -= 2;
	}
	if (n < 1 || n > WORKERS_MAX)
		bench_die(2, "usage: epoll [-w WORKERS] ADDRESS");
	struct conn listener = {
		.fd = peer_listen(argc, argv, SOCK_NONBLOCK),
	};
	if (n > 1)
		fork_workers(&listener, n);
	serve(&listener, 0);
}
