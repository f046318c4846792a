/*
 * What the load generator and the peers share: addresses as the library prints
 * them, on loopback only, and a way to give up.  Linux.
 */
#ifndef SS_BENCH_BENCH_H
#define SS_BENCH_BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* The peers' read size, and that of handlers/echo.c. */
#define BENCH_BUFFER 16384

struct bench_address {
	int type; /* SOCK_STREAM, SOCK_DGRAM */
	socklen_t len;
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_un un;
	} u;
};

/* Says why and ends the program: status 2 for wrong use, else 1. */
__attribute__((noreturn, format(printf, 2, 3))) static inline void
bench_die(int status, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	exit(status);
}

/* Monotonic, ns. */
static inline int64_t bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static inline void bench_unix(const char *path, struct bench_address *address)
{
	const size_t n = strlen(path);

	if (n == 0 || n >= sizeof(address->u.un.sun_path))
		bench_die(2, "'%s' is no path for a Unix socket", path);
	address->u.un.sun_family = AF_UNIX;
	memcpy(address->u.un.sun_path, path, n);
	address->len =
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	if (path[0] == '@') {
		address->u.un.sun_path[0] = '\0';
		address->len--;
	}
}

static inline void bench_inet(const char *text, struct bench_address *address)
{
	char host[INET_ADDRSTRLEN];
	const char *colon = strchr(text, ':');
	char *end;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		bench_die(2, "'%s' is not HOST:PORT", text);
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	const unsigned long port = strtoul(colon + 1, &end, 10);
	if (end == colon + 1 || *end || port > 65535)
		bench_die(2, "'%s' has no port", text);
	address->u.in.sin_family = AF_INET;
	address->u.in.sin_port = htons((uint16_t)port);
	if (inet_pton(AF_INET, host, &address->u.in.sin_addr) != 1 ||
	    ntohl(address->u.in.sin_addr.s_addr) >> 24 != 127)
		bench_die(2, "'%s' is not in 127.0.0.0/8", host);
	address->len = sizeof(address->u.in);
}

/* tcp://127.x.y.z:PORT, udp://..., unix:/PATH, unix:@NAME; or gives up. */
static inline struct bench_address bench_parse(const char *text)
{
	struct bench_address address;

	memset(&address, 0, sizeof(address));
	address.type = SOCK_STREAM;
	if (strncmp(text, "unix:", 5) == 0)
		bench_unix(text + 5, &address);
	else if (strncmp(text, "tcp://", 6) == 0)
		bench_inet(text + 6, &address);
	else if (strncmp(text, "udp://", 6) == 0) {
		address.type = SOCK_DGRAM;
		bench_inet(text + 6, &address);
	} else
		bench_die(2, "'%s' is not tcp://, udp:// or unix:", text);
	return address;
}

#endif
