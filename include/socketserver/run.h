/*
 * The main of a daemon: servers run until a signal says stop.  Optional; who
 * does not call it has a library that touches no signal.
 */
#ifndef SOCKETSERVER_RUN_H
#define SOCKETSERVER_RUN_H

#include <socketserver/server.h>

SS_BEGIN_DECLS

/* ---- how it was started ---------------------------------------------------*/

enum ss_start_mode {
	SS_START_AUTO,	/* by the environment: systemd's sockets, or nothing */
	SS_START_STDIN, /* descriptor 0 is the listener, or the connection:
			   inetd(8), tcpserver(1) */
};

struct ss_start;

/*
 * Looks at what the process was given, before there are servers or threads.
 * Sockets of systemd (sd_listen_fds(3)) become close-on-exec, and LISTEN_PID
 * and its kin are taken from the environment.  Under SS_START_STDIN descriptor
 * 0 is moved, and /dev/null is put in its place, in that of 1, and of 2 where
 * it was the same socket: what is printed does not reach clients.
 * -EINVAL: the environment makes no sense, or descriptor 0 is no such socket.
 */
SS_API int ss_start_new(struct ss_start **start, enum ss_start_mode mode,
			struct ss_diag *why);

/*
 * Gives a server what was given to the process: in the place of those of its
 * addresses to which such a socket is bound, that socket; all that are called
 * `name`, if any are; all that are left, if it has no address.  Returns how
 * many.  A connection is given to the first who asks: it serves that alone,
 * and binds nothing.  The texts in config->addresses are good until
 * ss_start_free.  As ss_resolve, and -E2BIG: more than SS_ADDRESSES_MAX; where
 * it fails, nothing is given, and the addresses are as they were.
 */
SS_API int ss_start_adopt(struct ss_start *start, const char *name,
			  struct ss_config *config, struct ss_diag *why);

/* How many sockets nobody has adopted; `why` names one. */
SS_API int ss_start_left(const struct ss_start *start, struct ss_diag *why);

/*
 * Tells the service manager something (sd_notify(3)): "STATUS=resting", or
 * several such lines.  ss_run tells READY, RELOADING, STOPPING, STATUS and
 * WATCHDOG by itself.  -ENOENT: there is nobody to tell ($NOTIFY_SOCKET).
 */
SS_API int ss_start_notify(struct ss_start *start, const char *lines);

/*
 * Has the service manager keep a descriptor under that name, over the end of
 * this process; the next one is given it.  fd -1: no longer.  As
 * ss_start_notify.
 */
SS_API int ss_start_store(struct ss_start *start, const char *name, int fd);

/* After the run.  Closes what nobody has adopted; NULL does nothing. */
SS_API void ss_start_free(struct ss_start *start);

/* ---- who it is ------------------------------------------------------------*/

/* Zero: all stays. */
struct ss_privileges {
	const char *user;   /* a name or a number */
	const char *group;  /* the same; NULL: that of the user */
	const char *chroot; /* a directory that is / from then on */
	bool no_new_privs;  /* no program that is executed gets more */
};

/*
 * Becomes that, for good, in every thread: after the listeners are bound, as
 * root.  Other groups are given up.  Looks whether it has worked, and whether
 * there is a way back.  -ENOENT: no such user or group; -EPERM; else what the
 * system says.  Who fails may be half-way: exit.
 */
static inline int ss_drop_privileges(const struct ss_privileges *privileges,
				     struct ss_diag *why);
SS_API int ss_drop_privileges_sized(const struct ss_privileges *privileges,
				    size_t size, struct ss_diag *why);

static inline int ss_drop_privileges(const struct ss_privileges *privileges,
				     struct ss_diag *why)
{
	return ss_drop_privileges_sized(privileges, sizeof(*privileges), why);
}

/*
 * Whether those can be told at all, and changes nothing: users and groups are
 * known, chroot is a directory.  For a program's options, before there is a
 * server.  As ss_drop_privileges; it may still lack the right to become that.
 */
static inline int ss_check_privileges(const struct ss_privileges *privileges,
				      struct ss_diag *why);
SS_API int ss_check_privileges_sized(const struct ss_privileges *privileges,
				     size_t size, struct ss_diag *why);

static inline int ss_check_privileges(const struct ss_privileges *privileges,
				      struct ss_diag *why)
{
	return ss_check_privileges_sized(privileges, sizeof(*privileges), why);
}

/* ---- running --------------------------------------------------------------*/

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

	/*
	 * At SIGUSR2 this program is started once more, with these arguments
	 * and the listeners that it has; when the new process is ready
	 * (ss_run, with `start`) this one stops as by SIGTERM.  If it ends
	 * before, or is not ready in time, it is killed, a line in the log
	 * says so, and this one goes on.  argv[0] is what is executed: a path,
	 * or a name that is looked for in $PATH (execvp(3)), and where it is
	 * not found, the file that runs.  NULL: SIGUSR2 is left as it was.
	 */
	char *const *argv;
	int restart_ms; /* that time; 0: 10 s */

	bool once; /* one request of one server, then the end */

	/* Dropped before `ready`; NULL: none. */
	const struct ss_privileges *privileges;

	/* The service manager is told of what happens; a connection that the
	 * process was given is served, and then it ends.  NULL: neither. */
	struct ss_start *start;
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
