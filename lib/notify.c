/*
 * News for the service manager, as sd_notify(3) has it: datagrams of lines
 * NAME=VALUE to the Unix socket that $NOTIFY_SOCKET names.
 */
#include "start.h"

#include <stdarg.h>
#include <stdio.h>

enum { LINES = 1024, SEND_MS = 1000, US_A_MS = 1000 };

/* -errno where nobody is there. */
static int connected(const struct ss_address *address)
{
	const struct timeval limit = { .tv_sec = SEND_MS / 1000 };
	int fd = sys_socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd == -1)
		return -errno;
	/* A manager that does not read must not keep a daemon. */
	sys_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (sys_connect(fd, &address->u.sa, address->len) == 0)
		return fd;
	int r = -errno;
	sys_close(fd);
	return r;
}

/* A path, or an abstract name with @ in the place of its first byte. */
static bool parse_path(const char *path, struct ss_address *address)
{
	size_t n = strlen(path);
	struct sockaddr_un *un = &address->u.un;
	memset(address, 0, sizeof(*address));
	if ((*path != '/' && *path != '@') || n < 2 ||
	    n >= sizeof(un->sun_path))
		return false;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, n);
	address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	if (*path == '@')
		un->sun_path[0] = '\0';
	return true;
}

static int watchdog_ms(void)
{
	const char *pid = getenv("WATCHDOG_PID");
	const char *us = getenv("WATCHDOG_USEC");
	if (!us || (pid && strtol(pid, NULL, 10) != sys_getpid()))
		return 0;
	long long limit = strtoll(us, NULL, 10), ms = limit / US_A_MS / 2;
	if (limit <= 0)
		return 0;
	return ms < 1 ? 1 : ms > INT_MAX ? INT_MAX : (int)ms;
}

/* One that is not there was some other process's. */
void notify_open(struct ss_start *start)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct ss_address address;
	if (path && parse_path(path, &address))
		start->notify_fd = connected(&address);
	if (start->notify_fd >= 0)
		start->watchdog_ms = watchdog_ms();
}

static int send_with(struct ss_start *start, const char *lines, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = (void *)lines,
			     .iov_len = strlen(lines) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (start->notify_fd < 0)
		return -ENOENT;
	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
		struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
	}
	ssize_t n;
	do
		n = sys_sendmsg(start->notify_fd, &msg, MSG_NOSIGNAL);
	while (n == -1 && errno == EINTR);
	return n == -1 ? -errno : 0;
}

int ss_start_notify(struct ss_start *start, const char *lines)
{
	return send_with(start, lines, -1);
}

void notify(struct ss_start *start, const char *fmt, ...)
{
	char lines[LINES];
	if (!start || start->notify_fd < 0)
		return;
	va_list args;
	va_start(args, fmt);
	vsnprintf(lines, sizeof(lines), fmt, args);
	va_end(args);
	send_with(start, lines, -1);
}

int ss_start_store(struct ss_start *start, const char *name, int fd)
{
	char lines[LINES];
	int n = snprintf(lines, sizeof(lines), "%s=1\nFDNAME=%s",
			 fd < 0 ? "FDSTOREREMOVE" : "FDSTORE", name);
	if (n < 0 || (size_t)n >= sizeof(lines) || strpbrk(name, ":\n") ||
	    !*name || strlen(name) >= START_NAME)
		return -EINVAL;
	return send_with(start, lines, fd);
}
