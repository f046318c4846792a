/* The sinks of programs: their options, and what they hold open. */
#include "internal.h"

#include <socketserver/log.h>

#include <stdio.h>
#include <syslog.h>

#include "sink.h"

enum { IDENT = 48, FILE_MODE = 0640 };

struct ss_log_sink {
	struct sink sink;
	struct ss_address daemon; /* syslog's */
	struct tally *tally;
	char *path;
	char *ident;
};

/* ---- options --------------------------------------------------------------*/

static bool good_ident(const char *ident)
{
	size_t n = strlen(ident);
	for (size_t i = 0; i < n; i++)
		if (ident[i] <= ' ' || ident[i] > '~' ||
		    strchr("[]:", ident[i]))
			return false;
	return n > 0 && n <= IDENT;
}

static int check_path(const struct ss_log_options *options, struct ss_diag *why)
{
	const struct sockaddr_un *un;
	bool syslog = options->to == SS_LOG_TO_SYSLOG;
	const char *path = options->path;
	if (!path)
		return 0;
	if (!syslog && options->to != SS_LOG_TO_JSON)
		return address_refuse(why, path, -EINVAL,
				      "standard error has no path");
	if (*path != '/')
		return address_refuse(why, path, -EINVAL,
				      "expected an absolute path");
	if (syslog && strlen(path) >= sizeof(un->sun_path))
		return address_refuse(why, path, -EINVAL, "is too long");
	return 0;
}

static int check(const struct ss_log_options *options, struct ss_diag *why)
{
	if ((unsigned)options->to > SS_LOG_TO_JSON)
		return address_refuse(why, "to", -EINVAL, "is %d",
				      (int)options->to);
	if (options->ident && !good_ident(options->ident))
		return address_refuse(why, options->ident, -EINVAL,
				      "is no name for a log");
	if (options->facility & ~LOG_FACMASK)
		return address_refuse(why, "facility", -EINVAL, "is %d",
				      options->facility);
	return check_path(options, why);
}

/* Larger than ours is a newer program's; what we do not know must be unset. */
static int read_options(const struct ss_log_options *options, size_t size,
			struct ss_log_options *ours, struct ss_diag *why)
{
	const unsigned char *bytes = (const unsigned char *)options;
	memset(ours, 0, sizeof(*ours));
	if (!options)
		return 0;
	memcpy(ours, options, size < sizeof(*ours) ? size : sizeof(*ours));
	for (size_t i = sizeof(*ours); i < size; i++)
		if (bytes[i])
			return address_refuse(why, "the options of a log",
					      -E2BIG, "are of a newer library");
	return check(ours, why);
}

/* ---- what it holds open ---------------------------------------------------*/

/* A pipe's reader, or a terminal, must not keep who writes. */
static int open_file(const char *path)
{
	int fd = sys_open(path,
			  O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY,
			  FILE_MODE);
	return fd == -1 ? -errno : fd;
}

static int open_syslog(struct ss_log_sink *log)
{
	struct sink *sink = &log->sink;
	struct sockaddr_un *un = &log->daemon.u.un;
	size_t n = strlen(log->path);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, log->path, n + 1);
	log->daemon.len =
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	sink->daemon = &log->daemon;
	sink->fd = sys_socket(AF_UNIX, SOCK_DGRAM, 0);
	if (sink->fd == -1)
		return -errno;
	int r = sink_connect(sink);
	return r == -ENOENT || r == -ECONNREFUSED ? 0 : r;
}

static int open_sink(struct ss_log_sink *log)
{
	struct sink *sink = &log->sink;
	if (sink->to == SS_LOG_TO_SYSLOG)
		return open_syslog(log);
	if (!log->path)
		return 0;
	int fd = open_file(log->path);
	if (fd >= 0)
		sink->fd = fd;
	return fd < 0 ? fd : 0;
}

static char *copy(const char *text)
{
	size_t size = strlen(text) + 1;
	char *to = sys_malloc(size);
	return to ? memcpy(to, text, size) : NULL;
}

static int fill(struct ss_log_sink *log, const struct ss_log_options *options)
{
	struct sink *sink = &log->sink;
	const char *path = options->path;
	sink_init(sink);
	sink->to = options->to;
	sink->facility = options->facility ? options->facility : LOG_DAEMON;
	if (!path && sink->to == SS_LOG_TO_SYSLOG)
		path = "/dev/log";
	log->tally = ss_shared_alloc(sizeof(*log->tally));
	if (!log->tally || (path && !(log->path = copy(path))))
		return -ENOMEM;
	if (options->ident) {
		sink->ident = log->ident = copy(options->ident);
		if (!log->ident)
			return -ENOMEM;
	}
	return open_sink(log);
}

static void destroy(struct ss_log_sink *log)
{
	if (log->sink.fd >= 0)
		sys_close(log->sink.fd);
	ss_shared_free(log->tally, sizeof(*log->tally));
	sys_free(log->path);
	sys_free(log->ident);
	sys_free(log);
}

int ss_log_sink_new_sized(struct ss_log_sink **result,
			  const struct ss_log_options *given, size_t size,
			  struct ss_diag *why)
{
	struct ss_log_options options;
	*result = NULL;
	if (why)
		memset(why, 0, sizeof(*why));
	int r = read_options(given, size, &options, why);
	if (r < 0)
		return r;
	struct ss_log_sink *log = sys_calloc(1, sizeof(*log));
	r = log ? fill(log, &options) : -ENOMEM;
	if (r >= 0) {
		*result = log;
		return 0;
	}
	address_refuse(why, log && log->path ? log->path : "a log", r, "%s",
		       strerror(-r));
	if (log)
		destroy(log);
	return r;
}

/* ---- in use ---------------------------------------------------------------*/

void ss_log_sink_write(void *sink, int level, struct ss_server *server,
		       uint64_t id, const char *text)
{
	struct ss_log_sink *log = sink;
	const struct told told = { level, server, id, text };
	if (!sink_write(&log->sink, log->tally, &told) && server)
		count(&server->slot->log_dropped);
}

/* Under the same number: who writes meanwhile writes to the one or the other.
 */
int ss_log_sink_reopen(struct ss_log_sink *log)
{
	if (log->sink.to == SS_LOG_TO_SYSLOG)
		return sink_connect(&log->sink);
	if (log->sink.fd < 0)
		return 0;
	int fd = open_file(log->path);
	if (fd < 0)
		return fd;
	int r = sys_replace(fd, log->sink.fd) == -1 ? -errno : 0;
	if (r == 0)
		atomic_store(&log->tally->torn, false);
	sys_close(fd);
	return r;
}

uint64_t ss_log_sink_dropped(const struct ss_log_sink *log)
{
	return atomic_load(&log->tally->dropped);
}

void ss_log_sink_free(struct ss_log_sink *log)
{
	if (!log)
		return;
	sink_settle(&log->sink, log->tally);
	destroy(log);
}
