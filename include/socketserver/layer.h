/*
 * To extend servers: layers, which are mixins and transports, the operations
 * that they override, and the channels below a request's stream.
 *
 * A server is a list of layers in Python's method resolution order: the
 * leftmost mixin first, one transport last, and under it `base`, which the
 * library appends and whose table is complete.  A layer's table is partial:
 * NULL inherits.
 *
 *	ss_self(server)->op(server, ...)          Python's self.op(...)
 *	ss_super(server, &my_layer)->op(...)      Python's super().op(...)
 *
 * Call through ss_self what another layer may have overridden, through
 * ss_super what you extend yourself.
 */
#ifndef SOCKETSERVER_LAYER_H
#define SOCKETSERVER_LAYER_H

#include <socketserver/server.h>

SS_BEGIN_DECLS

/* ---- sources: what can be waited for --------------------------------------*/

enum ss_source_flags {
	SS_SOURCE_BLOCKS = 1 << 0,  /* reads may block in the kernel */
	SS_SOURCE_ADOPTED = 1 << 1, /* others share it: leave its flags alone */
	SS_SOURCE_DRY = 1 << 2,	    /* nothing more was there: wait first */
	SS_SOURCE_URGENT = 1 << 3,  /* reads may stop short: try again first */
	SS_SOURCE_NONBLOCK = 1 << 5, /* O_NONBLOCK is set, by us */
	SS_SOURCE_DGRAM = 1 << 4,    /* the listener's own descriptor, shared */
	SS_SOURCE_WATCHED = 1 << 6,  /* a poller has it (and for POLLOUT) */
	SS_SOURCE_WATCHED_OUT = 1 << 7,
	SS_SOURCE_WHOLE = 1 << 8, /* a recv(2) that came back short has taken
				     all there was, unless URGENT (TCP) */
};

/*
 * A descriptor and what is known of its readiness.  Zeroed but for fd; the
 * model that waits for it owns `ready` and `waiter`.
 */
struct ss_source {
	int fd;		/* -1: none (memory) */
	int timeout_ms; /* SO_RCVTIMEO in force; 0: none */
	unsigned flags;
	short ready;  /* events that came while nobody waited */
	short wanted; /* the poller's */
	void *waiter; /* who is parked here */
};

/* What "would block" means: wait for these events here, or until then. */
struct ss_block {
	struct ss_source *source; /* NULL: only `until` */
	short events;		  /* POLLIN, POLLOUT */
	int64_t until;		  /* a delay; SS_NONE: none */
};

/* ---- channels: the bytes below the stream ---------------------------------*/

enum { SS_REPLIES_MAX = 16 };

/*
 * One element of the stack below a stream, the socket at the bottom.  None of
 * them waits: where a call would, it fills in *block and answers -EAGAIN.
 * -EINTR is answered as such.  NULL hands on to `next`.  All run where the
 * request runs.
 */
struct ss_channel_ops {
	/* > 0 bytes; 0 end of file; -errno. */
	ssize_t (*read)(struct ss_channel *channel, void *buf, size_t n,
			struct ss_block *block);
	/* >= 0 bytes taken, perhaps fewer than asked; -errno.  For datagrams
	 * one call is one datagram, taken whole. */
	ssize_t (*writev)(struct ss_channel *channel, const struct iovec *iov,
			  int count, struct ss_block *block);
	/* Bytes that a read gives without the descriptor. */
	size_t (*pending)(struct ss_channel *channel);
	/* Where sendfile(2) may go past this channel; NULL: it must copy. */
	struct ss_source *(*raw)(struct ss_channel *channel);
	/* shutdown(2); -EAGAIN as above. */
	int (*shutdown)(struct ss_channel *channel, int how,
			struct ss_block *block);
	/* A datagram to another address; -ENOTSUP for streams. */
	ssize_t (*send_to)(struct ss_channel *channel, const void *buf,
			   size_t n, const struct ss_address *to,
			   struct ss_block *block);
	/*
	 * A datagram of each of n channels (SS_REPLIES_MAX) that have this
	 * operation at their top, for who need not hear of it: how many were
	 * taken, from the first on; where that is not one, -errno.
	 */
	int (*write_each)(struct ss_channel *const *channels,
			  const struct iovec *iov, int n);
	/* Releases what it holds; `next` is closed after it, by the library. */
	void (*close)(struct ss_channel *channel);
};

/* Embedded in the channel's own struct; filled in by ss_channel_push. */
struct ss_channel {
	const struct ss_channel_ops *ops;
	struct ss_channel *next;
	struct ss_request *req;
};

/*
 * Puts a channel on top of the request's; from finish_request, before super.
 * The memory is the caller's until `close`.
 */
SS_API void ss_channel_push(struct ss_request *req, struct ss_channel *channel,
			    const struct ss_channel_ops *ops);

/*
 * This channel, or the next one down that has the operation, does it.  Where
 * none has: 0 bytes, -EPIPE, 0, -ENOTSUP.
 */
SS_API ssize_t ss_channel_read(struct ss_channel *channel, void *buf, size_t n,
			       struct ss_block *block);
SS_API ssize_t ss_channel_writev(struct ss_channel *channel,
				 const struct iovec *iov, int count,
				 struct ss_block *block);
SS_API int ss_channel_shutdown(struct ss_channel *channel, int how,
			       struct ss_block *block);
SS_API ssize_t ss_channel_send_to(struct ss_channel *channel, const void *buf,
				  size_t n, const struct ss_address *to,
				  struct ss_block *block);

/* ---- operations -----------------------------------------------------------*/

/* An error on its way to handle_error. */
struct ss_error {
	int code; /* -errno */
	enum ss_phase phase;
	const char *text; /* never NULL; good during the call */
};

struct ss_ops {
	/*
	 * The server: by the thread that calls the public function of the same
	 * name.  -errno; the reason by ss_refuse.
	 */

	/* Opens and binds the listeners: ss_listener_add for each. */
	int (*server_bind)(struct ss_server *server);
	/* Makes them listen; nothing to do for datagrams. */
	int (*server_activate)(struct ss_server *server);
	/* Turns (ss_turn) until ss_shutdown; 0. */
	int (*serve_forever)(struct ss_server *server);
	/*
	 * One turn of ss_serve, which serves several servers in a thread:
	 * ss_turn, and whatever else serve_forever does around it.  A layer
	 * that SS_LAYER_SUPERVISES has one of its own, or ss_serve answers
	 * -ENOTSUP.
	 */
	int (*serve_turn)(struct ss_server *server, int64_t deadline);
	/* Once a turn, on the serving thread, after its requests. */
	void (*service_actions)(struct ss_server *server);
	/* ss_handle_request saw no request in time. */
	void (*handle_timeout)(struct ss_server *server);
	/* The graceful stop; how many requests were abandoned.  A mixin asks
	 * super first, and then gives back its own. */
	int (*server_close)(struct ss_server *server);
	/* Closes one listener, during server_close or a failed bind. */
	void (*listener_close)(struct ss_server *server,
			       struct ss_listener *listener);

	/* Supervisor: the worker of that slot has ended, with all that it was
	 * serving, for which end_request will not be called. */
	void (*worker_ended)(struct ss_server *server, int slot);

	/*
	 * A request, from its beginning to its end.
	 */

	/*
	 * Serving thread.  Takes one request from the listener, by
	 * ss_request_accept or ss_request_new, without waiting.  -EAGAIN: there
	 * is none.  Other errors are judged by the library: those of the
	 * connection alone are counted and the next is taken, those of
	 * resources stop the listeners for a while.
	 */
	int (*get_request)(struct ss_server *server,
			   struct ss_listener *listener,
			   struct ss_request **req);
	/*
	 * Any thread, several at once; in the child where a layer asks it
	 * there.  > 0: serve it; 0: turn it away; < 0: the same, and logged.
	 */
	int (*verify_request)(struct ss_server *server, struct ss_request *req);
	/*
	 * Serving thread.  0: has taken the request, and sees to it that
	 * ss_request_run (or its halves, or ss_request_refuse) is called
	 * once.  < 0: has not, and
	 * the library reports and ends it.  Base runs it here and now.
	 */
	int (*process_request)(struct ss_server *server,
			       struct ss_request *req);
	/*
	 * Where the handler will run.  setup, handle, finish; returns their
	 * error.  May choose another handler (ss_request_set_handler) and push
	 * channels first.  -EACCES before setup turns the client away, as
	 * verify_request does: it is counted as that, and no error.
	 */
	int (*finish_request)(struct ss_server *server, struct ss_request *req);
	/* Where it ran: says the end to the peer, then ss_self close_request.
	 */
	void (*shutdown_request)(struct ss_server *server,
				 struct ss_request *req);
	/* Closes the descriptor in this process; for datagrams nothing. */
	void (*close_request)(struct ss_server *server, struct ss_request *req);
	/*
	 * Where the error arose; `req` is NULL for SS_PHASE_ACCEPT.  Logs.  A
	 * client that went away is a debug line.
	 */
	void (*handle_error)(struct ss_server *server, struct ss_request *req,
			     const struct ss_error *error);
	/*
	 * Exactly once for each request that get_request returned or that
	 * ss_serve_fd was given (count in verify_request to see both), in the
	 * process that accepted it, on the thread of whoever served it
	 * (forking: where the child was reaped).  status: 0, or the -errno
	 * that ended it; -ECHILD: its process failed or was killed.  The
	 * request is freed after it.
	 */
	void (*end_request)(struct ss_server *server, struct ss_request *req,
			    int status);
	/*
	 * Any thread, under the server's lock: no call back.  Makes a request
	 * that runs elsewhere return: `force` false is end of file for its
	 * reads, true the failure of everything.  0 or -errno.
	 */
	int (*cancel_request)(struct ss_server *server, struct ss_request *req,
			      bool force);
	/* Any thread, under the server's lock: ss_wake.  0 or -errno. */
	int (*wake_request)(struct ss_server *server, struct ss_request *req);
	/*
	 * Any thread, of a request that cannot end meanwhile.  What its channel
	 * waits for has come, and no descriptor tells of it: transports without
	 * them call it where the model parks.
	 */
	void (*stir_request)(struct ss_server *server, struct ss_request *req);

	/*
	 * Blocking: where the request runs.
	 */

	/*
	 * Waits for POLLIN or POLLOUT of the source until the deadline
	 * (SS_NONE: for ever).  0: try again, perhaps in vain; -ETIMEDOUT;
	 * -ESHUTDOWN: reads are to see end of file now; -ECANCELED.  No source,
	 * no events, 0: where the model parks, others run first.
	 */
	int (*wait)(struct ss_server *server, struct ss_request *req,
		    struct ss_source *source, short events, int64_t deadline);
	/* ss_wait_any, after the streams' own buffers were asked. */
	int (*wait_any)(struct ss_server *server, struct ss_request *req,
			struct ss_wait *waits, int count, int64_t deadline);
	/* ss_offload: runs fn(arg) and returns what it does, keeping nobody
	 * else waiting. */
	int (*offload)(struct ss_server *server, struct ss_request *req,
		       int (*fn)(void *arg), void *arg);
	/* The source is about to be closed: drop what is known of it. */
	void (*forget)(struct ss_server *server, struct ss_source *source);
	/* The only clock: monotonic ms.  Any thread. */
	int64_t (*now)(struct ss_server *server);
	/*
	 * A loop's thread, where nothing can run before `until` (SS_NONE: for
	 * ever) and the transport is none of sockets.  How many ms the loop is
	 * to wait, -1: for ever; or, where the clock is the transport's own,
	 * sets it forward to that and says 0.
	 */
	int (*pass_time)(struct ss_server *server, int64_t until);
};

/* ---- layers ---------------------------------------------------------------*/

enum ss_layer_flags {
	SS_LAYER_TRANSPORT = 1 << 0,  /* is the one that stands last */
	SS_LAYER_DISPATCHES = 1 << 1, /* its process_request ends the chain */
	SS_LAYER_THREADS = 1 << 2, /* a thread per request: reads may block */
	SS_LAYER_PARKS = 1 << 3,   /* many a thread: descriptors do not block */
	SS_LAYER_FORKS = 1 << 4,   /* serves in children */
	SS_LAYER_SUPERVISES = 1 << 5, /* in workers: ss_fork_worker */

	SS_LAYER_STREAM = 1 << 8, /* a transport's: what it is */
	SS_LAYER_UNIX = 1 << 9,
	SS_LAYER_SOCKET = 1 << 10,

	SS_NEEDS_STREAM = 1 << 16, /* a mixin's: what its transport must be */
	SS_NEEDS_UNIX = 1 << 17,
	SS_NEEDS_SOCKET = 1 << 18,
};

/*
 * A layer.  Constant; its address is its identity, so that it stands in one
 * server only once.  Members left out are zero.
 */
struct ss_layer {
	const char *name;
	unsigned flags;
	size_t server_size;  /* bytes of zeroed state: ss_layer_state */
	size_t request_size; /* the same per request: ss_request_layer_state */

	/*
	 * Called for every layer by itself, not through super.  init: from
	 * base upwards, in ss_server_new; `options` are those of its ss_use.
	 * < 0 refuses the server (ss_refuse).  fini: the other way round, after
	 * server_close, for those whose init succeeded.
	 */
	int (*init)(struct ss_server *server, const void *options);
	void (*fini)(struct ss_server *server);
	/*
	 * In every child that the library forks, of whichever server of the
	 * process it is, before it serves.  What the loop watched is closed
	 * there.  In a worker (ss_worker) of this server the loop is a new
	 * one, which may be given watches now; of the operations of the
	 * server, those of the layers to the right of the one that supervises
	 * are called there next: server_activate, serve_forever, server_close.
	 */
	void (*after_fork)(struct ss_server *server);

	size_t struct_size; /* sizeof(struct ss_layer); 0 = that of 0.1 */
	struct ss_ops ops;
};

/* The whole table, from the top; and from the level below mine. */
SS_API const struct ss_ops *ss_self(const struct ss_server *server);
SS_API const struct ss_ops *ss_super(const struct ss_server *server,
				     const struct ss_layer *mine);

/* A layer's private state; NULL if its size is 0. */
SS_API void *ss_layer_state(const struct ss_server *server,
			    const struct ss_layer *mine);
SS_API void *ss_request_layer_state(const struct ss_request *req,
				    const struct ss_layer *mine);

/* How far from a request that state lies: the same for all of a server's. */
SS_API size_t ss_request_layer_offset(const struct ss_server *server,
				      const struct ss_layer *mine);

/* Whether the layer is one of the server's. */
SS_API bool ss_server_has(const struct ss_server *server,
			  const struct ss_layer *layer);

/* The flags of all layers of the server, or-ed; its transport. */
SS_API unsigned ss_server_flags(const struct ss_server *server);
SS_API const struct ss_layer *
ss_server_transport(const struct ss_server *server);

/* Records why an operation of the server fails, and returns `code`. */
SS_API int ss_refuse(struct ss_server *server, int code, const char *fmt, ...)
	SS_PRINTF(3, 4);

/* A line for the log; id 0: the server's own.  Any thread. */
SS_API void ss_log(struct ss_server *server, int level, uint64_t id,
		   const char *fmt, ...) SS_PRINTF(4, 5);

/* How many requests a turn takes at most; 1 unless set, from init. */
SS_API void ss_set_accept_batch(struct ss_server *server, int batch);

/*
 * From init: the model takes n requests at a time, of which it serves all but
 * `ahead`.  Lowers max_active, never raises it.
 */
SS_API void ss_set_max_active(struct ss_server *server, int n, int ahead);

/* The time-outs as the configuration and its handler have them. */
SS_API struct ss_timeouts ss_server_timeouts(const struct ss_server *server);

/* ---- for transports -------------------------------------------------------*/

/* The addresses of the configuration, NULL-terminated. */
SS_API const char *const *ss_server_addresses(const struct ss_server *server);

enum ss_listener_flags {
	SS_LISTENER_DGRAM = 1 << 0,    /* it is read, not accepted from */
	SS_LISTENER_ADOPTED = 1 << 1,  /* others may share it */
	SS_LISTENER_REMOVES = 1 << 2,  /* its file goes when it is closed */
	SS_LISTENER_ANY_PORT = 1 << 3, /* the kernel chose its port */
	SS_LISTENER_WHOLE = 1 << 4,    /* its streams are SS_SOURCE_WHOLE */
};

/*
 * A listener of this server, in server_bind.  It owns fd (-1: none, see
 * ss_listener_ready) from then on, on failure too.  -ENOMEM, also beyond 65,535
 * of them.
 */
SS_API int ss_listener_add(struct ss_server *server, int fd,
			   enum ss_scheme scheme,
			   const struct ss_address *address, unsigned flags,
			   size_t data_size, struct ss_listener **listener);
SS_API struct ss_listener *ss_server_listener(const struct ss_server *server,
					      int index);
SS_API int ss_listener_fd(const struct ss_listener *listener);
SS_API unsigned ss_listener_flags(const struct ss_listener *listener);
SS_API const struct ss_address *
ss_listener_address(const struct ss_listener *listener);
/* data_size zeroed bytes for the transport. */
SS_API void *ss_listener_data(const struct ss_listener *listener);
/* Its SO_RCVTIMEO, which what it accepts inherits; ms. */
SS_API void ss_listener_set_timeout(struct ss_listener *listener, int ms);
/* Without a descriptor: requests are there.  Any thread. */
SS_API void ss_listener_ready(struct ss_server *server,
			      struct ss_listener *listener);
/*
 * From get_request: so many more it can return of which the descriptor does not
 * tell, since they were read already.
 */
SS_API void ss_listener_set_ahead(struct ss_listener *listener, int n);

/*
 * A request, for get_request.  The first form has a socket channel over the
 * connected `fd`, which it owns from then on, also on failure; `flags` are
 * ss_source_flags.  The second has `channel_size` zeroed bytes for the
 * transport's own channel, which it pushes (ss_request_space).  -ENOMEM.
 */
SS_API int ss_request_accept(struct ss_server *server,
			     struct ss_listener *listener, int fd,
			     unsigned flags, const struct ss_address *peer,
			     struct ss_request **req);
SS_API int ss_request_new(struct ss_server *server,
			  struct ss_listener *listener, size_t channel_size,
			  struct ss_request **req);
SS_API void *ss_request_space(struct ss_request *req);
/* Closes and frees a request that get_request will not return after all. */
SS_API void ss_request_drop(struct ss_request *req);
/* Addresses are copied; -ENOMEM. */
SS_API int ss_request_set_peer(struct ss_request *req,
			       const struct ss_address *peer);
SS_API int ss_request_set_local(struct ss_request *req,
				const struct ss_address *local);
/* It is a datagram: n bytes, copied, at their true size. */
SS_API int ss_request_set_packet(struct ss_request *req, const void *data,
				 size_t n, bool truncated);
/* The source that ss_request_fd and cancel_request use. */
SS_API void ss_request_set_source(struct ss_request *req,
				  struct ss_source *source);
SS_API struct ss_source *ss_request_source(const struct ss_request *req);
SS_API struct ss_listener *ss_request_listener(const struct ss_request *req);
/* Until when the stream call in progress may last; SS_NONE. */
SS_API int64_t ss_request_deadline(const struct ss_request *req);
/* Closes a source's descriptor, in exclusion of cancel_request. */
SS_API void ss_source_close(struct ss_server *server, struct ss_source *source);

/* ---- for models -----------------------------------------------------------*/

/*
 * Serves a request to its end: ss_request_finish and ss_request_end.  After
 * it the request is gone.
 */
SS_API void ss_request_run(struct ss_request *req);
/* finish_request, handle_error, shutdown_request; the -errno of the first. */
SS_API int ss_request_finish(struct ss_request *req);
/*
 * For a model that parks (SS_LAYER_PARKS).  Like ss_request_run, but returns
 * SS_AGAIN, without keeping anything on the stack, where the request has
 * nothing to do until its source is readable or ss_request_deadline has come:
 * then it is to be called again, by the same thread.  So, too, when
 * ss_request_ending tells of something.  0: it has ended and is gone.
 * SS_REPLY: all that is left is to send a datagram's reply, with others:
 * ss_requests_reply.
 */
#define SS_REPLY 0x53535250
SS_API int ss_request_step(struct ss_request *req);
/*
 * Of n requests, at most SS_REPLIES_MAX, whose step has said SS_REPLY, on its
 * thread and soon after it: how many have been sent and are gone, from the
 * first on.  The others are to be stepped again, and then wait by themselves
 * for what kept them.
 */
SS_API int ss_requests_reply(struct ss_request *const *reqs, int n);
/* Whether its first step may wait for the same: its client speaks first. */
SS_API bool ss_request_defer(struct ss_request *req);
/* What its end, or the server's, makes of its waits: as `wait` says; 0. */
SS_API int ss_request_ending(const struct ss_request *req);
/* Takes one ss_wake off: `wait_any` then returns -EINTR. */
SS_API bool ss_request_take_wake(struct ss_request *req);
/* end_request, then frees; the accepting process. */
SS_API void ss_request_end(struct ss_request *req, int status);
/*
 * In place of ss_request_run, for one that is not to be served after all: its
 * client is closed, and it counts as SS_REFUSED_FULL.
 */
SS_API void ss_request_refuse(struct ss_request *req, int status);
/* Another handler for this request; from finish_request, before super. */
SS_API int ss_request_set_handler(struct ss_request *req,
				  const struct ss_handler *handler);
/*
 * ss_request_peer without a copy: the request's until it ends or another is
 * set.  NULL: it has none.  On the thread that has the request.
 */
SS_API const struct sockaddr *
ss_request_peer_sockaddr(const struct ss_request *req, socklen_t *len);
/* The process that serves it, for ss_each. */
SS_API void ss_request_set_pid(struct ss_request *req, pid_t pid);

/*
 * How far a request has come: where it is told to others.  For layers that lay
 * it in ss_shared_alloc memory, so that other processes can look.
 */
struct ss_progress {
	uint64_t opaque[4];
};
/*
 * From now on it is told there; NULL: where only this process sees it, as in
 * the beginning.  In the process that accepts, on the thread that has the
 * request: before it is served, and when it has ended.
 */
SS_API void ss_request_show(struct ss_request *req,
			    struct ss_progress *progress);
/*
 * When what is accepted now was taken, the same for all that were taken
 * together: ms of ss_now, and us of the monotonic clock.  Serving thread, from
 * get_request to process_request.
 */
SS_API int64_t ss_taken_at(const struct ss_server *server);
SS_API int64_t ss_taken_us(struct ss_server *server);
/*
 * Any process.  Fills in bytes_in, bytes_out, running, idle and waits, and pid
 * where a child serves it.  began: when the handler did, in us of the monotonic
 * clock; took: for how many us it ran; -1: it has not.  Both may be NULL.
 */
SS_API void ss_progress_read(const struct ss_progress *progress,
			     struct ss_snapshot *snapshot, int64_t *began,
			     int64_t *took);

/* A descriptor that the serving loop watches; the caller's memory. */
struct ss_watch {
	int fd;
	short events; /* POLLIN, POLLOUT */
	/* Serving thread; may remove and free the watch. */
	void (*ready)(struct ss_server *server, struct ss_watch *watch);
	int place; /* the poller's; 0: not watched */
};
/* Serving thread.  As ss_poller_watch, and with its errors. */
SS_API int ss_watch_add(struct ss_server *server, struct ss_watch *watch);
SS_API void ss_watch_remove(struct ss_server *server, struct ss_watch *watch);

/*
 * What a loop waits with.  The serving loop has one; a model that has loops of
 * its own makes more, each for one thread: that which waits with it calls all
 * of these, but for new and free.
 */
struct ss_poller;

struct ss_poller_ops {
	/* Something of what was wanted of the source, or the end or an error:
	 * POLLIN, POLLOUT, POLLPRI, POLLERR, POLLHUP, POLLRDHUP. */
	void (*source_ready)(void *arg, struct ss_source *source,
			     short revents);
	/* After each wait, when all have been told. */
	void (*waited)(void *arg);
};

/* -ENOMEM, -EMFILE.  NULL is ignored by free, which closes nothing of others.
 */
SS_API int ss_poller_new(struct ss_server *server, struct ss_poller **poller);
SS_API void ss_poller_free(struct ss_poller *poller);
/* The serving loop's own; ss_watch_add is for that one. */
SS_API struct ss_poller *ss_server_poller(struct ss_server *server);
/* Who is told of sources, before the first is wanted; ops NULL: nobody. */
SS_API void ss_poller_attend(struct ss_poller *poller,
			     const struct ss_poller_ops *ops, void *arg);
/* It is told of as long as it is ready.  -ENOMEM, or -errno of epoll_ctl(2):
 * -EEXIST, this poller watches the descriptor already; -EPERM, a file. */
SS_API int ss_poller_watch(struct ss_poller *poller, struct ss_watch *watch);
SS_API void ss_poller_unwatch(struct ss_poller *poller, struct ss_watch *watch);

/*
 * Somebody now waits for these events of a source.  Edges: it is told once, and
 * again when more comes, so that who is told tries until it would block before
 * it wants more.  A source is registered at the first call and belongs to this
 * poller until ss_poller_forget, which must precede its close.  -errno of
 * epoll_ctl(2).
 */
SS_API int ss_poller_want(struct ss_poller *poller, struct ss_source *source,
			  short events);
SS_API void ss_poller_forget(struct ss_poller *poller,
			     struct ss_source *source);

/*
 * Waits until the deadline, or until what ss_poller_at has set (kept until it
 * is set again; SS_NONE), and tells.  How many, 0 also when interrupted;
 * -errno.
 */
SS_API int ss_poller_wait(struct ss_poller *poller, int64_t deadline);
SS_API void ss_poller_at(struct ss_poller *poller, int64_t deadline);

/* The next turn begins no later than this; then it is forgotten. */
SS_API void ss_turn_at(struct ss_server *server, int64_t deadline);
/* Ends the serving loop's wait: a turn begins.  Any thread. */
SS_API void ss_turn_now(struct ss_server *server);

/*
 * fork(2) for a model: in the child every listener and every other connection
 * is closed, of all servers of the process, except the request's own; SIGPIPE
 * is blocked; every layer's after_fork has run.  Returns as fork, or -errno.
 */
SS_API pid_t ss_fork(struct ss_request *keep);

/*
 * Threads of this server will be started in this process, now: -EBUSY, with a
 * reason, where a server of the process forks, and from then on no such server
 * is made there.  Always allowed in a worker.
 */
SS_API int ss_start_threads(struct ss_server *server);

/*
 * One turn, for serve_forever: ss_server_turn without its claim on the loop,
 * and in a supervisor too.
 */
SS_API int ss_turn(struct ss_server *server, int64_t deadline);

/*
 * For server_close, after super's: one wait of the loop, whose watches fire; it
 * ends at the deadline.  1 where somebody has asked again: be quick.
 */
SS_API int ss_turn_closing(struct ss_server *server, int64_t deadline);
/* Until when server_close is patient: SS_NONE, or ms. */
SS_API int64_t ss_drain_deadline(struct ss_server *server);

/* ---- for models of worker processes ---------------------------------------*/

/*
 * A server that SS_LAYER_SUPERVISES has workers: processes that are the server
 * once more, with a loop, threads, a stop and counters (a slot, 1..n) of their
 * own, and share its listeners.  The process that forks them, slot 0, takes no
 * clients.
 */

/* From init: there will be n slots at most.  -ENOMEM. */
SS_API int ss_set_workers(struct ss_server *server, int n);
/* How many slots there may be, once every layer's init has run; 0: it has no
 * workers. */
SS_API int ss_workers(const struct ss_server *server);
/* The slot of the process: 0 in the supervisor. */
SS_API int ss_worker(const struct ss_server *server);
/* getpid(2) of the process, asked once.  Serving thread, while it serves. */
SS_API pid_t ss_server_pid(struct ss_server *server);

/*
 * Forks the worker of a free slot, from serve_forever: returns as fork, or
 * -errno.  Other servers of the process are closed there, SIGPIPE is blocked,
 * after_fork has run; its ss_shutdown does nothing.  It calls server_activate,
 * serve_forever and server_close of ss_super, and exits.
 */
SS_API pid_t ss_fork_worker(struct ss_server *server, int slot);
/* It has ended: what it was serving counts as ended, layers are told
 * (worker_ended), and the slot is free. */
SS_API void ss_worker_ended(struct ss_server *server, int slot);

/* What a worker is to do; each only after those before it. */
enum ss_order {
	SS_ORDER_SERVE,
	SS_ORDER_PAUSE,	 /* takes no clients, serves those it has */
	SS_ORDER_RETIRE, /* the same, and ends when they have ended */
	SS_ORDER_CLOSE,	 /* server_close: the queue too, until the deadline */
	SS_ORDER_NOW,	 /* whatever it serves fails */
};
/*
 * To the workers of all slots that have been given a lesser one, or only to
 * that of `slot`, if it is not 0.  A worker whose supervisor is gone closes by
 * itself, and leaves the queue.
 */
SS_API void ss_order_workers(struct ss_server *server, int slot,
			     enum ss_order order);
/* In a worker: makes the supervisor's loop turn. */
SS_API void ss_turn_supervisor(struct ss_server *server);

SS_END_DECLS
#endif
