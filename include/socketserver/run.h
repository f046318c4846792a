/*
 * The main of a daemon: servers run until a signal says stop.  Optional; who
 * does not call it has a library that touches no signal.
 */
#ifndef SOCKETSERVER_RUN_H
#define SOCKETSERVER_RUN_H

#include <socketserver/server.h>

SS_BEGIN_DECLS

/* Zero is the default of every member. */
struct ss_run_options {
	void *arg; /* of the functions below */

	/*
	 * Once, when signals are minded and before the first client is taken:
	 * for announcements.  < 0 ends the run, with exit status 1.
	 */
	int (*ready)(void *arg);
	/*
	 * At SIGHUP, on the serving thread, between requests.  < 0 is logged,
	 * and nothing else happens.  Else the workers of those servers that
	 * have some are replaced by new ones, which know what it changed.
	 * NULL: SIGHUP is left as it was.
	 */
	int (*reload)(void *arg);

	bool once; /* one request of one server, then the end */
};

/*
 * Serves `count` servers, which are activated, in this thread until SIGTERM or
 * SIGINT, or until each was shut down; then closes them, all at the same time.
 * A second signal means now.  Every disposition, and the thread's mask, is put
 * back as it was; the servers are the caller's to free.
 *
 * Returns the program's exit status: 0; 1 where something failed, of which a
 * line in the first server's log tells; 2 for members that this library does
 * not know, or no server.  One at a time in a process.
 */
static inline int ss_run(struct ss_server *const *servers, int count,
			 const struct ss_run_options *options);
SS_API int ss_run_sized(struct ss_server *const *servers, int count,
			const struct ss_run_options *options, size_t size);

/* options may be NULL. */
static inline int ss_run(struct ss_server *const *servers, int count,
			 const struct ss_run_options *options)
{
	return ss_run_sized(servers, count, options, sizeof(*options));
}

SS_END_DECLS
#endif
