/*
 * Handlers to use as they are, or to read before writing one's own: each is a
 * constant that goes into ss_config.handler, under any model, on any transport.
 */
#ifndef HANDLERS_H
#define HANDLERS_H

#include <socketserver/handler.h>

SS_BEGIN_DECLS

/* RFC 862, message by message: an idle client costs no stack. */
extern const struct ss_handler ss_echo_handler;

/* The same as a loop; empty datagrams, which look like an end, get no answer.
 */
extern const struct ss_handler ss_echo_loop_handler;

/* RFC 863: takes everything, answers nothing. */
extern const struct ss_handler ss_discard_handler;

/* RFC 867: the time (UTC) in a line, and the connection is closed. */
extern const struct ss_handler ss_daytime_handler;

/*
 * Answers each line with the same in capitals (ASCII).  A line of more than
 * 1023 bytes, its newline included, is answered by a line that begins with
 * "error: ", and the conversation goes on.
 */
extern const struct ss_handler ss_upper_handler;

/* Sends lines back, but for WHOAMI, whose answer is "ADDRESS PORT": the
 * client's, "-" where it has none. */
extern const struct ss_handler ss_whoami_handler;

/* A line of welcome before the client has said a word; then it is closed. */
extern const struct ss_handler ss_greeting_handler;

/*
 * Connects each client to another server and copies both directions, with
 * their ends, until both have ended or nothing has moved for idle_ms.  That
 * server's address, a string that ss_connect takes, is the handler's `user`,
 * in a copy of this one, or else the server's.  Streams only.
 */
extern const struct ss_handler ss_relay_handler;

/*
 * Figures of servers over HTTP: for Prometheus at /metrics, and a page at /.
 * What it shows is its server's `user`: such a struct.
 *
 * It goes into a server of its own, in the process that made the others (a
 * worker of its own is such a process, too): under fiber with one loop, it
 * keeps none of them waiting.  They show most with ss_metrics_mixin.
 */
struct ss_metrics_page {
	struct ss_server *const *servers;
	const char *const *names; /* NULL: by the first address of each */
	int count;
	/*
	 * What the page's button does, after a question: such as to end the
	 * program gracefully.  On the handler's thread, once the answer is
	 * sent.  NULL: there is no button.
	 */
	void (*drain)(void *arg);
	void *drain_arg;
};
extern const struct ss_handler ss_metrics_handler;

/*
 * Tells who is being served, ends them, suspends, drains, sets limits and the
 * log's level, by lines of text: ssctl(1) has the protocol.  For a server of
 * its own on a Unix socket of mode 0600, whose `user` is a struct ss_control;
 * under fiber with one loop, so that it has no thread and silent clients keep
 * nobody waiting, it may be run (ss_run) beside servers of any model.  Only the
 * user who runs the program, and root, are heard (Linux).
 */
extern const struct ss_handler ss_control_handler;
struct ss_control {
	struct ss_server *const *servers; /* those that it controls */
	int count;
	/* What "drain" does, on the handler's thread, once the answer is sent;
	 * NULL: those servers, and its own, are shut down. */
	void (*drain)(void *arg);
	void *drain_arg;
};

SS_END_DECLS
#endif
