/*
 * To run servers: a configuration, a life, and what may be asked from outside.
 */
#ifndef SOCKETSERVER_SERVER_H
#define SOCKETSERVER_SERVER_H

#include <stdbool.h>

#include <socketserver/address.h>
#include <socketserver/common.h>
#include <socketserver/handler.h>

SS_BEGIN_DECLS

enum ss_log_level {
	SS_LOG_ERROR = 1,
	SS_LOG_WARNING,
	SS_LOG_INFO,
	SS_LOG_DEBUG,
};

/* What happens to a client beyond max_active. */
enum ss_full {
	SS_FULL_WAIT,	/* stays in the kernel's backlog */
	SS_FULL_QUEUE,	/* is accepted and waits here, up to queue_size */
	SS_FULL_REFUSE, /* gets `refusal`, and is closed */
};

/* A layer in use, with its options (each layer's header says which struct). */
struct ss_use {
	const struct ss_layer *layer;
	const void *options; /* copied; NULL = defaults */
};

#define SS_ADDRESSES_MAX 16
#define SS_MIXINS_MAX 16

/*
 * What a server is made of.  Zero is the default of every member.  Everything
 * is copied; layers and handlers are constants that outlive the server.
 */
struct ss_config {
	const char *addresses[SS_ADDRESSES_MAX + 1];

	const struct ss_layer *transport; /* NULL: by the first address */
	struct ss_use mixins[SS_MIXINS_MAX + 1]; /* leftmost first, as Python */
	const struct ss_handler *handler;
	const void *transport_options;
	void *user; /* ss_server_user */

	int timeout_ms;	      /* of ss_handle_request; 0: none */
	int poll_interval_ms; /* at least so often a turn; 0: none */
	int drain_ms;	      /* how long ss_server_close waits; 0: 10 s */
	struct ss_timeouts timeouts;

	int max_active;	     /* requests served at a time; 0: no limit */
	enum ss_full full;   /* and what happens beyond it */
	int queue_size;	     /* for SS_FULL_QUEUE; 0: 128 */
	const char *refusal; /* for SS_FULL_REFUSE; NULL: nothing is said */

	int log_level; /* enum ss_log_level; 0: warnings; SS_NONE: silence;
			  ss_set_log_level changes it */
	/*
	 * Called on any thread and in children, several at once; `id` is the
	 * request's or 0.  NULL: a line of at most 1024 bytes to standard
	 * error, never blocking; what does not fit is dropped and counted, as
	 * is all where there was no standard error when the server was made,
	 * and the next line that fits says so.  log.h has other places.
	 */
	void (*log)(void *arg, int level, struct ss_server *server, uint64_t id,
		    const char *text);
	void *log_arg;

	bool no_bind; /* the caller calls ss_server_bind and _activate */
};

/* ---- life ---------------------------------------------------------------*/

/*
 * Makes a server: checks the layers, resolves, binds, listens.  On success
 * clients may connect.  On failure nothing is left behind, *server is NULL,
 * `why` says in a line what was wrong: -EINVAL for the configuration, -E2BIG
 * for members of it that this library does not know or a name of more than 32
 * addresses, else what the system said.
 */
static inline int ss_server_new(struct ss_server **server,
				const struct ss_config *config,
				struct ss_diag *why);
SS_API int ss_server_new_sized(struct ss_server **server,
			       const struct ss_config *config, size_t size,
			       struct ss_diag *why);

static inline int ss_server_new(struct ss_server **server,
				const struct ss_config *config,
				struct ss_diag *why)
{
	return ss_server_new_sized(server, config, sizeof(*config), why);
}

/* For no_bind: the two steps of Python's constructor. */
SS_API int ss_server_bind(struct ss_server *server, struct ss_diag *why);
SS_API int ss_server_activate(struct ss_server *server, struct ss_diag *why);

/*
 * Serves until ss_shutdown; the caller's thread is the serving thread until it
 * returns 0.  The server can serve again then, until it is closed.
 * -EBUSY: it is being served already.  -EBADF: not activated, or closed.
 * -EDEADLK: called from a handler.
 */
SS_API int ss_serve_forever(struct ss_server *server);

/*
 * Takes one request (ss_server_close takes what else is queued), under sync
 * and fiber serves it to its end.  1; 0 when timeout_ms ran out first (after
 * handle_timeout); -ECANCELED after ss_shutdown; -ENOTSUP: workers serve it, as
 * long as ss_serve_forever runs; else as ss_serve_forever.
 */
SS_API int ss_handle_request(struct ss_server *server);

/*
 * Serves several servers in this thread until every one of them was shut
 * down.  The errors are those of ss_serve_forever.
 */
SS_API int ss_serve(struct ss_server *const *servers, int count);

/*
 * One turn of the loop: waits until the deadline (SS_NONE: for ever, 0: not at
 * all), takes what there is, runs service_actions.  Returns how many requests
 * it took, or -ECANCELED after ss_shutdown (one is taken off its count), else
 * as ss_handle_request.
 */
SS_API int ss_server_turn(struct ss_server *server, int64_t deadline);

/*
 * For a foreign loop: call ss_server_turn(server, 0) whenever the descriptor
 * is readable (by level) or the deadline (ms of ss_now, SS_NONE: none) has
 * come.  The deadline is to be asked for after each turn and each ss_serve_fd;
 * the descriptor is the same until ss_server_close.
 * -ENOTSUP: this build has no epoll(7), or workers serve.
 */
SS_API int ss_server_pollfd(struct ss_server *server);
SS_API int64_t ss_server_deadline(struct ss_server *server);

/*
 * Asks serve_forever to return, at once, and never waits: for any thread,
 * handler or signal handler.  It counts: each call ends one serve_forever, be
 * it the next.  A further call while the server is being closed means now.
 */
SS_API void ss_shutdown(struct ss_server *server);

/*
 * The same, and waits until the loop has ended.  -ETIMEDOUT at the deadline;
 * -EDEADLK from the serving thread or a handler.
 */
SS_API int ss_shutdown_wait(struct ss_server *server, int64_t deadline);

/*
 * The graceful stop: takes what is queued, closes the listeners, waits up to
 * drain_ms for what is being served, then half-closes, then forces.  Returns
 * how many requests had to be abandoned, which did not come back within a
 * second of being forced: normally 0.  Again: the same number.  -EDEADLK: from
 * a handler.  -EBUSY: it is still being served; ss_shutdown_wait first.
 */
SS_API int ss_server_close(struct ss_server *server);

/*
 * Closes if need be and frees; NULL does nothing.  -EBUSY: it is still being
 * served, or abandoned requests still run, and the server stays; -EDEADLK: from
 * a handler.
 */
SS_API int ss_server_free(struct ss_server *server);

/* ---- what it is ---------------------------------------------------------*/

SS_API void *ss_server_user(const struct ss_server *server);
SS_API const struct ss_handler *
ss_server_handler(const struct ss_server *server);

/* "threading > tcp > base". */
SS_API const char *ss_server_describe(const struct ss_server *server);

/*
 * The listeners: how many, and each one's real address (port 0 resolved) as
 * "tcp://127.0.0.1:41234"; its descriptor, address, family and socket type.
 * Errors: -EINVAL for an index out of range, -ENOTSUP without a socket.
 */
SS_API int ss_server_listeners(const struct ss_server *server);
SS_API char *ss_server_url(const struct ss_server *server, int index, char *buf,
			   size_t size);
SS_API int ss_server_address(const struct ss_server *server, int index,
			     struct ss_address *address);
SS_API int ss_server_fileno(const struct ss_server *server, int index);
SS_API int ss_server_socket_type(const struct ss_server *server);

/* ---- looking in, reaching in: from any thread ----------------------------*/

/* Why a client was turned away. */
enum ss_refused {
	SS_REFUSED_VERIFY,  /* verify_request said no */
	SS_REFUSED_FULL,    /* max_active under SS_FULL_REFUSE, or given up
			       while it waited for a place */
	SS_REFUSED_PROCESS, /* no thread, process or memory for it */
	SS_REFUSED_MAX,
};

/* Where an error arose. */
enum ss_phase {
	SS_PHASE_ACCEPT,
	SS_PHASE_VERIFY,
	SS_PHASE_PROCESS,
	SS_PHASE_HANDSHAKE,
	SS_PHASE_SETUP,
	SS_PHASE_HANDLE,
	SS_PHASE_FINISH,
	SS_PHASE_MAX,
};

struct ss_stats {
	uint64_t accepted; /* requests that get_request returned */
	uint64_t active;   /* being served now */
	uint64_t queued;   /* accepted, and waiting for their turn */
	uint64_t ended;
	uint64_t refused[SS_REFUSED_MAX];
	uint64_t errors[SS_PHASE_MAX];
	uint64_t bytes_in;
	uint64_t bytes_out;
	uint64_t log_dropped; /* lines that its sink did not take */
};

/* The sum over all workers; callable from any thread or child. */
static inline void ss_server_stats(struct ss_server *server,
				   struct ss_stats *stats);
SS_API void ss_server_stats_sized(struct ss_server *server,
				  struct ss_stats *stats, size_t size);

static inline void ss_server_stats(struct ss_server *server,
				   struct ss_stats *stats)
{
	ss_server_stats_sized(server, stats, sizeof(*stats));
}

/* What a request is waiting for. */
enum ss_waits {
	SS_WAITS_UNKNOWN, /* a child serves it, and tells nobody */
	SS_WAITS_TURN,	  /* to be served: a place, a thread, a processor */
	SS_WAITS_NOTHING, /* its handler runs, or blocks on its own account */
	SS_WAITS_MESSAGE, /* between messages: for its client's next one */
	SS_WAITS_INPUT,	  /* for more from its client, or the first byte */
	SS_WAITS_OUTPUT,  /* for its client to take what is written */
	SS_WAITS_TIME,	  /* it sleeps */
	SS_WAITS_OTHERS,  /* for several at once, or other descriptors */
	SS_WAITS_OFFLOAD, /* for what it has given to ss_offload */
	SS_WAITS_MAX,
};

/* In a word: "unknown", "queued", "running", "idle", "reading", "writing",
 * "sleeping", "waiting", "offloaded". */
SS_API const char *ss_waits_name(int waits);

/*
 * What is told to the log from now on, in this process and in every worker and
 * child of the server, whichever of them calls: an enum ss_log_level, SS_NONE:
 * nothing, 0: as it was configured.  Any thread, any signal handler.
 * -EINVAL: no such level.
 */
SS_API int ss_set_log_level(struct ss_server *server, int level);
/* The level in force; SS_NONE: nothing is told. */
SS_API int ss_log_level(const struct ss_server *server);

/*
 * A live request, as it was a moment ago.  Where a child serves it, its bytes,
 * its idleness and what it waits for are seen from here only where a layer
 * shows them (ss_metrics_mixin).  The library may add members at the end.
 */
struct ss_snapshot {
	uint64_t id;
	struct ss_address peer;
	int64_t age_ms;
	uint64_t bytes_in;
	uint64_t bytes_out;
	bool running; /* false: queued */
	bool idle;    /* between messages */
	pid_t pid;    /* forking: the child; else 0 */
	enum ss_waits waits;
};

/*
 * Calls fn for every live request, under the server's lock: fn must be short
 * and must not call back into the server.  fn returning non-zero ends the walk
 * and is the result.
 */
SS_API int ss_each(struct ss_server *server,
		   int (*fn)(void *arg, const struct ss_snapshot *snapshot),
		   void *arg);

/*
 * Ends a request by force: its calls answer -ECANCELED.  -ENOENT: no such.  In
 * a supervisor, -EINPROGRESS: the workers have been asked, and end it if one
 * has it; the same call again tells what came of it, once all have answered,
 * who do so between messages, or where a handler waits.  -EBUSY: too much was
 * asked of one that does not answer.
 */
SS_API int ss_cancel(struct ss_server *server, uint64_t id);

/*
 * Ends the request's current or next ss_wait_any or ss_sleep with -EINTR.
 * -ENOENT: no such request; -ENOTSUP: it runs in another process.
 */
SS_API int ss_wake(struct ss_server *server, uint64_t id);

/*
 * Stops and resumes taking clients, who stay in the backlog meanwhile; one bit
 * a reason, watching resumes when no bit is left.  SS_HOLD_USER << 0..7 are
 * for users' layers; the others are the library's.
 */
enum ss_hold {
	SS_HOLD_ERRORS = 1 << 0,
	SS_HOLD_FULL = 1 << 1,
	SS_HOLD_SUSPENDED = 1 << 2,
	SS_HOLD_STOPPING = 1 << 3,
	SS_HOLD_WORKERS = 1 << 4, /* they take the clients, not this process */
	SS_HOLD_ONE = 1 << 5,	  /* ss_handle_request has taken its one */
	SS_HOLD_USER = 1 << 8,
};
SS_API void ss_hold(struct ss_server *server, unsigned reason);
SS_API void ss_release(struct ss_server *server, unsigned reason);
/* Whether any of these reasons holds it now. */
SS_API bool ss_holding(const struct ss_server *server, unsigned reason);

/*
 * Another max_active, from now on; 0: no limit.  Those that are being served
 * stay.  A supervisor's holds for all workers, each of which counts its own; a
 * pool of threads takes no more than it has room for.  -EINVAL: below 0.
 */
SS_API int ss_limit_active(struct ss_server *server, int n);
/* The one that is in force; 0: none. */
SS_API int ss_active_limit(const struct ss_server *server);

/*
 * Serves a connected stream socket (socketpair(2), accepted elsewhere) as if
 * it had been accepted here; for the serving thread, or before serving.  The
 * descriptor is the server's from then on, also on failure; its flags are not
 * changed.  0 also where it is then turned away like any other client.
 * -ENOTSOCK, -EINVAL: no stream socket; -ENOTCONN; -EBADF: the server is
 * closed; -ENOTSUP: the transport is memory, or workers serve; -ENOMEM.
 */
SS_API int ss_serve_fd(struct ss_server *server, int fd);

/*
 * Memory that the processes of a server share: zeroed, page-aligned, inherited
 * by every fork.  NULL: none.  For counters across processes use atomics.
 */
SS_API void *ss_shared_alloc(size_t size);
SS_API void ss_shared_free(void *memory, size_t size);

SS_END_DECLS
#endif
