/*
 * What every peer needs before it serves: `peer_listen` is its main's first
 * line.  A peer takes one argument, ADDRESS, prints "listening on ADDRESS" with
 * the port it got, and ends with status 0 on SIGTERM.  C and C++.
 */
#ifndef SS_BENCH_PEER_H
#define SS_BENCH_PEER_H

#include "../bench.h"

#include <signal.h>

static inline void peer_exit(int sig)
{
	(void)sig;
	_exit(0);
}

static inline void peer_on_signal(int sig, void (*fn)(int))
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = fn;
	action.sa_flags = SA_RESTART;
	sigemptyset(&action.sa_mask);
	if (sigaction(sig, &action, NULL) == -1)
		bench_die(1, "sigaction: %s", strerror(errno));
}

static inline void peer_announce(int fd, const char *text)
{
	struct sockaddr_in in;
	socklen_t len = sizeof(in);

	if (strncmp(text, "unix:", 5) == 0)
		printf("listening on %s\n", text);
	else if (getsockname(fd, (struct sockaddr *)&in, &len) == -1)
		bench_die(1, "getsockname: %s", strerror(errno));
	else
		printf("listening on %.6s%s:%d\n", text, inet_ntoa(in.sin_addr),
		       ntohs(in.sin_port));
	fflush(stdout);
}

/* The listener, or for udp:// the socket itself; `flags` as SOCK_NONBLOCK. */
static inline int peer_listen(int argc, char **argv, int flags)
{
	if (argc != 2)
		bench_die(2, "usage: %s ADDRESS", argv[0]);
	const struct bench_address address = bench_parse(argv[1]);
	const int family = address.u.sa.sa_family;
	const int fd = socket(family, address.type | SOCK_CLOEXEC | flags, 0);
	const int on = 1;

	if (fd == -1)
		bench_die(1, "socket: %s", strerror(errno));
	if (family == AF_INET && address.type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, &address.u.sa, address.len) == -1)
		bench_die(1, "%s: %s", argv[1], strerror(errno));
	if (address.type == SOCK_STREAM && listen(fd, SOMAXCONN) == -1)
		bench_die(1, "listen: %s", strerror(errno));
	peer_on_signal(SIGTERM, peer_exit);
	peer_announce(fd, argv[1]);
	return fd;
}

/* 0, or -1: the client is gone. */
static inline int peer_send(int fd, const char *buf, size_t n)
{
	while (n > 0) {
		const ssize_t sent = send(fd, buf, n, MSG_NOSIGNAL);

		if (sent == -1 && errno != EINTR)
			return -1;
		if (sent > 0) {
			buf += sent;
			n -= (size_t)sent;
		}
	}
	return 0;
}

/* Echoes on a blocking descriptor to its end, and closes it. */
static inline void peer_echo(int fd)
{
	char buf[BENCH_BUFFER];

	for (;;) {
		const ssize_t n = recv(fd, buf, sizeof(buf), 0);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0 || peer_send(fd, buf, (size_t)n) == -1)
			break;
	}
	close(fd);
}

/* accept4(2) for those who do not ask who it is. */
static inline int peer_take(int listener, int flags)
{
	/* cppcheck-suppress nullPointer ; it may be NULL */
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC | flags);
}

/* The next connection of a blocking listener. */
static inline int peer_accept(int listener)
{
	for (;;) {
		const int fd = peer_take(listener, 0);

		if (fd != -1)
			return fd;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
		    errno == ENOMEM)
			usleep(10000);
		else if (errno != EINTR && errno != ECONNABORTED)
			bench_die(1, "accept: %s", strerror(errno));
	}
}

#endif
