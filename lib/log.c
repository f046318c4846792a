/*
 * The log: through the program's callback, or a line on standard error that
 * never blocks, never kills, and is dropped and counted where it does not fit.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

enum { LINE = 1024 };

static const char *level_name(int level)
{
	switch (level) {
	case SS_LOG_ERROR:
		return "error";
	case SS_LOG_WARNING:
		return "warning";
	case SS_LOG_INFO:
		return "info";
	default:
		return "debug";
	}
}

/*
 * Its O_NONBLOCK is the program's to set, not ours.  Hence a description of
 * our own, without which a terminal that has room for a byte blocks the rest
 * of the line, and a pipe's last room may be taken since it was asked.  A
 * file's would write elsewhere, and a socket has none.  -1: so it must go.
 */
static int reopen_stderr(const struct stat *st)
{
#ifdef SS_LINUX
	if (S_ISFIFO(st->st_mode) || S_ISCHR(st->st_mode))
		return sys_open("/proc/self/fd/2",
				O_WRONLY | O_NONBLOCK | O_NOCTTY, 0);
#else
	(void)st;
#endif
	return -1;
}

/* Is there a standard error, and is it the program's?  See log_init. */
static bool may_write(const struct ss_server *server, struct stat *st)
{
	return !server->no_stderr && sys_fstat(STDERR_FILENO, st) == 0 &&
	       (!S_ISSOCK(st->st_mode) || st->st_ino == server->stderr_socket);
}

/* A pipe that is writable takes a whole line (pipe(7), PIPE_BUF). */
static bool write_line(const struct ss_server *server, const char *line,
		       size_t n)
{
	struct pollfd err = { .fd = STDERR_FILENO, .events = POLLOUT };
	struct stat st;
	if (!may_write(server, &st))
		return false;
	if (sys_poll(&err, 1, 0) != 1 || !(err.revents & POLLOUT))
		return false;
	int own = reopen_stderr(&st);
	struct sys_sigpipe saved;
	sys_sigpipe_block(&saved);
	ssize_t r = sys_write(own >= 0 ? own : STDERR_FILENO, line, n);
	sys_sigpipe_restore(&saved);
	if (own >= 0)
		sys_close(own);
	return r == (ssize_t)n;
}

/* What a client sent may be in it: no second line, no escape sequences. */
static void make_plain(char *text)
{
	for (; *text; text++)
		if ((*text > 0 && *text < ' ') || *text == '\177')
			*text = '?';
}

/*
 * A program may have none.  Then a client's socket can be descriptor 2 for a
 * moment, until it is moved up, and a line written in that moment would reach
 * the client: so who had none at the start gets no line, and of sockets only
 * the one that was there then, since it may have been closed later.
 */
void log_init(struct ss_server *server)
{
	struct stat st;
	server->no_stderr = sys_fstat(STDERR_FILENO, &st) == -1;
	if (!server->no_stderr && S_ISSOCK(st.st_mode))
		server->stderr_socket = st.st_ino;
}

static void log_to_stderr(struct ss_server *server, int level, uint64_t id,
			  const char *text)
{
	char line[LINE], number[24] = "";
	if (id)
		snprintf(number, sizeof(number), "#%llu ",
			 (unsigned long long)id);
	int n = snprintf(line, sizeof(line) - 1, "socketserver: %s: %s%s",
			 level_name(level), number, text);
	if (n < 0)
		return;
	if ((size_t)n > sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	make_plain(line);
	line[n++] = '\n';
	if (!write_line(server, line, (size_t)n))
		count(&server->slot->log_dropped);
}

int ss_set_log_level(struct ss_server *server, int level)
{
	if (level < SS_NONE || level > SS_LOG_DEBUG)
		return -EINVAL;
	atomic_store(&server->page->log_level,
		     level ? level : server->config.log_level);
	return 0;
}

int ss_log_level(const struct ss_server *server)
{
	return atomic_load_explicit(&server->page->log_level,
				    memory_order_relaxed);
}

static bool wanted(const struct ss_server *server, int level)
{
	return level <= ss_log_level(server);
}

/* errno is the caller's own: a log line must not change what it reports. */
static void log_text(struct ss_server *server, int level, uint64_t id,
		     const char *fmt, va_list args)
{
	int error = errno;
	char text[LINE];
	vsnprintf(text, sizeof(text), fmt, args);
	if (server->config.log)
		server->config.log(server->config.log_arg, level, server, id,
				   text);
	else
		log_to_stderr(server, level, id, text);
	errno = error;
}

void ss_log(struct ss_server *server, int level, uint64_t id, const char *fmt,
	    ...)
{
	if (!wanted(server, level))
		return;
	va_list args;
	va_start(args, fmt);
	log_text(server, level, id, fmt, args);
	va_end(args);
}

void ss_logf(struct ss_request *req, int level, const char *fmt, ...)
{
	if (!wanted(req->server, level))
		return;
	va_list args;
	va_start(args, fmt);
	log_text(req->server, level, req->id, fmt, args);
	va_end(args);
}
