/*
 * Where a server's log goes: sinks for `log` of struct ss_config.  Optional; a
 * server without one writes lines to standard error.
 */
#ifndef SOCKETSERVER_LOG_H
#define SOCKETSERVER_LOG_H

#include <socketserver/server.h>

SS_BEGIN_DECLS

enum ss_log_to {
	SS_LOG_TO_STDERR,  /* as a server without a sink: lines, and where
			      journald reads them ($JOURNAL_STREAM) with <N>
			      before each, its priority (sd-daemon(3)) */
	SS_LOG_TO_PLAIN,   /* the same without <N>, whoever reads */
	SS_LOG_TO_JOURNAL, /* the same with <N>, whoever reads */
	SS_LOG_TO_SYSLOG,  /* the machine's syslog daemon */
	SS_LOG_TO_JSON,	   /* an object a line, to standard error or a file */
};

/* Zero is the default of every member. */
struct ss_log_options {
	enum ss_log_to to;
	/*
	 * JSON: a file, made if need be and appended to; NULL: standard error.
	 * Syslog: the daemon's datagram socket; NULL: /dev/log.  Absolute.
	 */
	const char *path;
	/* Who it is: printable ASCII, at most 48 bytes, without [ ] and :.
	 * NULL: socketserver. */
	const char *ident;
	int facility; /* syslog's, of <syslog.h>; 0: LOG_DAEMON */
};

struct ss_log_sink;

/*
 * Makes one, before the servers that use it, and before chroot(2): of the
 * process and of those forked from it, in which threads and fibers use it at
 * will.  A syslog daemon that is not there yet is no error.  -EINVAL: options
 * that make no sense; -E2BIG: members that this library does not know; else
 * what the system says of the file or socket.
 */
static inline int ss_log_sink_new(struct ss_log_sink **sink,
				  const struct ss_log_options *options,
				  struct ss_diag *why);
SS_API int ss_log_sink_new_sized(struct ss_log_sink **sink,
				 const struct ss_log_options *options,
				 size_t size, struct ss_diag *why);

/* options may be NULL. */
static inline int ss_log_sink_new(struct ss_log_sink **sink,
				  const struct ss_log_options *options,
				  struct ss_diag *why)
{
	return ss_log_sink_new_sized(sink, options, sizeof(*options), why);
}

/*
 * For `log`, with the sink as `log_arg`; or by the program itself, where
 * `server` may be NULL.  Never waits: a line that does not fit is dropped and
 * counted, in ss_stats.log_dropped of its server too; and the next one that
 * fits comes after one that says how many were.
 */
SS_API void ss_log_sink_write(void *sink, int level, struct ss_server *server,
			      uint64_t id, const char *text);

/*
 * Opens the file anew by its path, or looks for the syslog daemon again: when a
 * log was rotated, from ss_run's `reload`.  Any thread.  On failure what was
 * open stays, and -errno is the reason.
 */
SS_API int ss_log_sink_reopen(struct ss_log_sink *sink);

/* Lines dropped since it was made, in all processes. */
SS_API uint64_t ss_log_sink_dropped(const struct ss_log_sink *sink);

/* After its servers.  Says how many lines were dropped since that was said, if
 * there is room; NULL does nothing. */
SS_API void ss_log_sink_free(struct ss_log_sink *sink);

SS_END_DECLS
#endif
