/*
 * Echo to one client at a time, with the system calls of the library's sync
 * model written out: epoll(7) for the listener, the client's address from
 * accept4(2), and since it can be told to stop while it waits, poll(2) for the
 * connection and a stop pipe, but only where nothing more is to be expected.
 * What the library takes beyond this is the framework's cost.
 */
#include "peer.h"

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/epoll.h>

static int stop_pipe[2];

static void stop(int sig)
{
	const int saved = errno;

	(void)sig;
	if (write(stop_pipe[1], "", 1) == -1)
		_exit(1);
	errno = saved;
}

/* Waits for input; false: to stop. */
static bool ready(int fd)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN },
				{ .fd = stop_pipe[0], .events = POLLIN } };

	while (poll(fds, 2, -1) == -1)
		if (errno != EINTR)
			bench_die(1, "poll: %s", strerror(errno));
	return !fds[1].revents;
}

static void serve(int fd)
{
	char buf[BENCH_BUFFER];
	bool dry = false; /* nothing more was there: wait first */

	for (;;) {
		if (dry && !ready(fd))
			return;
		const ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n == -1 && (errno == EINTR || errno == EAGAIN)) {
			dry = errno == EAGAIN;
			continue;
		}
		if (n <= 0 || peer_send(fd, buf, (size_t)n) == -1)
			return;
		dry = (size_t)n < sizeof(buf);
	}
}

static void watch(int ep, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event) == -1)
		bench_die(1, "epoll_ctl: %s", strerror(errno));
}

/* Waits for a client; false: to stop. */
static bool client(int ep)
{
	struct epoll_event events[2];
	int n;

	while ((n = epoll_wait(ep, events, 2, -1)) == -1)
		if (errno != EINTR)
			bench_die(1, "epoll_wait: %s", strerror(errno));
	return events[0].data.fd != stop_pipe[0] &&
	       events[n - 1].data.fd != stop_pipe[0];
}

int main(int argc, char **argv)
{
	if (pipe2(stop_pipe, O_CLOEXEC) == -1)
		bench_die(1, "pipe2: %s", strerror(errno));
	const int listener = peer_listen(argc, argv, SOCK_NONBLOCK);
	const int ep = epoll_create1(EPOLL_CLOEXEC);

	peer_on_signal(SIGTERM, stop);
	if (ep == -1)
		bench_die(1, "epoll_create1: %s", strerror(errno));
	watch(ep, listener);
	watch(ep, stop_pipe[0]);
	while (client(ep)) {
		struct sockaddr_storage from;
		socklen_t len = sizeof(from);
		const int fd = accept4(listener, (struct sockaddr *)&from, &len,
				       SOCK_CLOEXEC);

		if (fd == -1)
			continue;
		serve(fd);
		close(fd);
	}
	return 0;
}
