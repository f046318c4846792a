/*
 * struct ss_server and struct ss_request, and what the files of lib/ offer one
 * another: for lib/(name).c alone.  Layers use the public layer.h.
 */
#ifndef SS_LIB_INTERNAL_H
#define SS_LIB_INTERNAL_H

#include <socketserver/run.h>
#include <socketserver/socketserver.h>

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include "sink.h"
#include "sys.h"

extern const struct ss_layer ss_base_layer;

/* ---- the page shared with children (stop.c, worker.c, stats.c) ------------*/

/* How far the server's end has come; only ever upwards. */
enum stop_phase {
	STOP_OPEN,
	STOP_CLOSING, /* what is idle ends; the rest goes on */
	STOP_HALF,    /* reads see end of file */
	STOP_FORCED,  /* every call fails */
};

/*
 * One process that serves: this one, or one of its workers; and its children,
 * if it has such.  On cache lines of its own.
 */
struct slot {
	_Alignas(64) atomic_uint shutdowns; /* asked, and not yet taken by a
					       loop; never in a worker */
	atomic_int phase;		    /* enum stop_phase */
	atomic_int order;		    /* a worker's, enum ss_order */
	atomic_bool live;		    /* a worker has it */
	atomic_ullong errands;		    /* of the page's, run or left */

	_Alignas(64) atomic_ullong accepted;
	atomic_ullong active;
	atomic_ullong queued;
	atomic_ullong ended;
	atomic_ullong refused[SS_REFUSED_MAX];
	atomic_ullong errors[SS_PHASE_MAX];
	atomic_ullong bytes_in;
	atomic_ullong bytes_out;
	atomic_ullong log_dropped;
};

/* A request that is to be cancelled by whichever worker has it. */
struct errand {
	atomic_ullong id; /* 0: nobody wants to know any more */
	atomic_bool done;
};
enum { ERRANDS = 64 };

struct page {
	atomic_ullong next_id;
	/* For workers, by the process that has forked them. */
	atomic_llong drain_at; /* of a closing server; SS_NONE: never */
	atomic_uint holds;     /* what the program has asked for there */
	atomic_int max_active; /* ss_limit_active's; 0: as configured */
	atomic_int top;	       /* no worker has a slot beyond it */
	atomic_int accepting;  /* the slot that is, where only one may */
	atomic_bool news;      /* all workers are to look again */
	atomic_bool handed;    /* the listeners are another program's too */
	atomic_int log_level;  /* SS_NONE: silence */
	struct tally log_tally;
	atomic_ullong errands; /* so many were given; the last ERRANDS: */
	struct errand errand[ERRANDS];
	int slots;
	struct slot slot[]; /* 0: the process that was not forked */
};

/* ---- the server -----------------------------------------------------------*/

/* One layer in its server; levels[0] is the top, the last one is base. */
struct level {
	const struct ss_layer *layer;
	const void *options;
	void *state;
	size_t request_offset;
	bool ready;	   /* its init has succeeded */
	struct ss_ops ops; /* complete: this layer's over those below it */
};

struct ss_listener {
	struct ss_watch watch; /* first: the loop's view of it */
	uint16_t number;       /* 1 + its place among the server's */
	enum ss_scheme scheme;
	struct ss_address address;
	unsigned flags;
	int timeout_ms;
	bool watched;
	atomic_bool ready; /* worth a get_request */
	int ahead;	   /* requests that its descriptor does not tell of */
	void *data;
};

struct request_list {
	struct ss_request *first, *last;
};

enum { POLLER_FIRED = 128 };

/* What a wait has found, and its turn to be told of it. */
struct fired {
	void *what; /* a watch or a source; NULL: gone meanwhile */
	short revents;
	bool source;
};

struct ss_poller {
	struct ss_server *server;
	const struct ss_poller_ops *ops;
	void *arg;
	int64_t at;
	int epfd;
	struct ss_watch **watches;
	int watch_count, watch_room;
	struct ss_source **sources; /* poll(2) alone */
	int source_count, source_room, first;
	int fired_at, fired_count;
	struct fired fired[POLLER_FIRED];
};

/* run.c: servers that ss_run serves together. */
enum run_ask {
	RUN_STOP = 1 << 0,
	RUN_RELOAD = 1 << 1,
	RUN_RESTART = 1 << 2,
};
struct run {
	struct ss_server *const *servers;
	int count;
	struct ss_run_options options;
	pid_t pid;
	atomic_uint asked; /* enum run_ask; by handlers of signals */
	bool serving;
	bool beside; /* a handler waits, and others have a turn */
	int64_t watchdog_at;
	/* restart.c */
	pid_t reborn;	  /* the new process that is not ready yet; 0: none */
	int reborn_fd;	  /* its pidfd; -1: none */
	int64_t ready_by; /* ms of the system's clock */
	struct ss_watch ready_watch;
	bool handed; /* it is ready, and has the listeners */
	bool again;  /* the shutdown on its way is not for the end */
	struct ss_server **chosen; /* those that wait together now */
};

struct ss_server {
	/* What it is: fixed once made. */
	struct ss_config config;
	struct level *levels;
	int level_count;
	unsigned flags;
	/* crowd.c; written under lock */
	atomic_bool crowded;
	atomic_llong crowd_since;

	size_t request_states; /* bytes of all layers' request states */
	void *states;
	char *describe;
	struct ss_timeouts
		timeouts;     /* the handler's over the configuration's */
	unsigned number;      /* of this server in the process */
	struct sink log_sink; /* where the program gave no `log` */
	struct ss_server *next_in_process;
	struct ss_diag why; /* of the call in progress: ss_refuse */

	/* Its listeners: fixed between server_bind and server_close. */
	struct ss_listener **listeners;
	int listener_count;
	bool bound, activated, closed;
	bool closing;	 /* close_begin has been called */
	struct run *run; /* whose loops turn together; NULL: none */
	int abandoned;

	/* stop.c */
	struct page *page;
	struct slot *slot; /* this process's */
	int stop_pipe[2];  /* readable, or at its end, from STOP_CLOSING on */
	int now_pipe[2];   /* the same from STOP_HALF on */
	int wake_pipe[2];  /* the loop: look again */
	bool child;	   /* forked by ss_fork: serves, but decides nothing */

	/* worker.c */
	int worker;	  /* forked by ss_fork_worker: its slot; else 0 */
	int order_fd;	  /* worker: readable when there is an order */
	int boss_fd;	  /* worker: wakes the loop of who forked it */
	int *order_pipes; /* by slot, the writing ends; -1: no such worker */
	struct ss_watch order_watch;
	bool threaded; /* ss_start_threads has allowed it; process lock */

	/* stop.c */
	atomic_llong orphaned_at;   /* child: when the parent was seen gone */
	int64_t drain_at, force_at; /* serving thread; 0: not stopping */
	unsigned hurry_above;	    /* this many shutdowns mean now */
	bool hurried; /* the next one means now: the loop has had its own */

	/* loop.c: the serving thread */
	struct ss_poller poller;
	struct ss_watch wake_watch;
	atomic_bool turn_wanted;
	int64_t turn_at;
	int64_t turned_at; /* the last turn, for poll_interval_ms */
	int batch;
	int most;   /* requests that the model takes; 0: any number */
	int served; /* of those; the rest wait in the model; 0: all are */
	int next_listener; /* whose turn it is, for fairness */

	/* accept.c: the serving thread */
	int64_t taken_at; /* what is accepted now */
	int64_t taken_us; /* the same by sys_now_us; 0: nobody has asked */
	pid_t pid;	  /* of this process; 0: nobody has asked */
	int in_a_row;	  /* let in since the listeners had no more */
	bool failing; /* it was said, and has not worked for a while since */
	int64_t failed_at; /* the last time */
	int backoff_ms;	   /* how long it rested; 0: not since it worked */
	int64_t retry_at;
	int spare_fd;  /* given up for one client where none would end */
	bool on_spare; /* that client is being accepted */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* the loop has ended */
	/* Under lock, from here on. */
	bool owned; /* some thread is in the loop */
	bool turning;
	int owned_depth;
	pthread_t owner;
	atomic_uint holds;
	int active; /* process_request has them */
	int live;   /* accepted and not ended */
	struct request_list requests;
	struct ss_request
		*waiting; /* accepted, beyond max_active: the oldest */
	struct ss_request **waiting_end;
	int waiting_count;
	/* crowd.c */
	pthread_cond_t dispersed;
	bool taking;   /* the serving thread is not at the crowd's end */
	int not_begun; /* let in, and nothing runs them yet */
	struct ss_request *spares; /* ended ones, for the next */
	int spare_count;
	struct buffer *lent; /* read buffers that nobody has now */
	int lent_count;

	/* To the end of its last page: server_room. */
	size_t room_used;
	_Alignas(16) unsigned char room[];
};

/* process.c: descriptors that a child leaves to its parent, closed in runs by
 * few calls; leave_all comes last. */
enum { LEAVING_MAX = 32 };
struct leaving {
	int count;
	int fds[LEAVING_MAX]; /* in order */
};
void leave(struct leaving *leaving, int fd);
void leave_end(struct leaving *leaving, int *fd); /* -1: there is none */
void leave_all(struct leaving *leaving);

/* layers.c */
int layers_build(struct ss_server *server, const struct ss_config *config);
int layers_init(struct ss_server *server);
void layers_fini(struct ss_server *server);
void layers_after_fork(struct ss_server *server);
void layers_free(struct ss_server *server);

/*
 * server.c: zeroed memory that lives as long as the server, for what is written
 * at every turn; beside the server itself if it fits there.  After a fork,
 * parent and child each have a copy to make of each page that they write.
 */
void *server_room(struct ss_server *server, size_t size);
void server_room_free(struct ss_server *server, void *memory);

/* server.c: who may be in the loop.  -EBUSY: another thread is; -EDEADLK: this
 * one already, or it runs a handler, or is a child. */
int server_claim(struct ss_server *server);
void server_unclaim(struct ss_server *server);
int server_usable(const struct ss_server *server);
int server_drivable(struct ss_server *server);

/* listener.c */
/* The listener that is watched so; NULL: it is another's watch. */
struct ss_listener *listener_of(const struct ss_watch *watch);
void listener_unwatch(struct ss_server *server, struct ss_listener *listener);
void listeners_close(struct ss_server *server, bool dgram);
void listeners_drop(struct ss_server *server);
void listeners_free(struct ss_server *server);

/* stop.c */
int stop_init(struct ss_server *server);
void stop_fini(struct ss_server *server);
void stop_after_fork(struct ss_server *server, bool own,
		     struct leaving *leaving);
int stop_pipes(struct ss_server *server);
void stop_tell(int fd);
size_t page_size(int slots);
void stop_advance(struct ss_server *server, enum stop_phase phase);
void stop_wake(struct ss_server *server);
void stop_drain_wake(struct ss_server *server);
bool stop_asked(const struct ss_server *server);
bool stop_hurried(const struct ss_server *server);
void stop_take(struct ss_server *server);
/* The phase as `req` is to see it, and which pipe tells of the next one, until
 * when (SS_NONE) it holds by itself. */
struct stop_view {
	enum stop_phase phase;
	int pipe; /* -1: none */
	int64_t until;
};
struct stop_view stop_look(struct ss_server *server,
			   const struct ss_request *req);
/* What it makes of a wait of the request (NULL: none); 0: go on. */
int stop_ending(const struct ss_request *req, const struct stop_view *view);
/* The view's pipe was readable or at its end. */
void stop_told(struct ss_server *server, const struct ss_request *req,
	       short revents);
int64_t stop_drain_deadline(struct ss_server *server);

/* loop.c */
int loop_init(struct ss_server *server);
void loop_fini(struct ss_server *server);
void loop_after_fork(struct ss_server *server, struct leaving *leaving);
int loop_wait(struct ss_server *server, int64_t deadline);
/*
 * Waits for any of them (NULL: none), and tells nobody: loop_wait is next.
 * Without memory it waits a while, and each looks for itself.
 */
int loop_wait_any(struct ss_server *const *servers, int count,
		  int64_t deadline);
/*
 * poll(2) for a handler on the serving thread, until the deadline.  Servers
 * that ss_run serves beside, and that never keep their thread waiting, have
 * their turns meanwhile.
 */
int loop_poll(struct ss_server *server, struct pollfd *fds, int count,
	      int64_t deadline);
int loop_step(struct ss_server *server, int64_t deadline, int budget);
void loop_listen(struct ss_server *server);
/* Takes nobody, and serves until all requests have ended, or ss_shutdown. */
int loop_until_idle(struct ss_server *server);
int64_t nearest(int64_t a, int64_t b);
int loop_timeout(struct ss_server *server, int64_t deadline);

/* poller.c */
int poller_init(struct ss_poller *poller, struct ss_server *server);
void poller_fini(struct ss_poller *poller);
int poller_poll(struct pollfd *fds, int count, int ms);

/* engine_epoll.c or engine_poll.c: the platform's part of pollers */
int engine_init(struct ss_poller *poller);
void engine_fini(struct ss_poller *poller);
int engine_add(struct ss_poller *poller, struct ss_watch *watch);
void engine_remove(struct ss_poller *poller, struct ss_watch *watch);
int engine_want(struct ss_poller *poller, struct ss_source *source,
		short events);
void engine_forget(struct ss_poller *poller, struct ss_source *source);
int engine_wait(struct ss_poller *poller, int ms);
int engine_fd(struct ss_poller *poller);
int engine_fill(struct ss_poller *poller, struct pollfd *fds, int room);

/* worker.c: a server's workers, and being one */
int worker_prepare(struct ss_server *server, int slot, int order[2]);
void worker_forked(struct ss_server *server, int slot, int order[2], pid_t pid);
int worker_become(struct ss_server *server, int slot, const int order[2]);
void workers_close(struct ss_server *server);
/* ss_cancel, where it is none of the supervisor's own; lock. */
int workers_cancel(struct ss_server *server, uint64_t id);
void workers_news(struct ss_server *server);
/* The loop, and those of its workers, are to look again.  Any thread. */
void workers_look(struct ss_server *server);
bool supervising(const struct ss_server *server);
int worker_order(const struct ss_server *server);
void worker_hear(struct ss_server *server);
void worker_pass_on(struct ss_server *server);
void worker_make_way(struct ss_server *server);
bool worker_may_accept(struct ss_server *server,
		       const struct ss_listener *listener);
void worker_accepted(struct ss_server *server,
		     const struct ss_listener *listener);
void worker_stop_listening(struct ss_server *server,
			   const struct ss_listener *listener);

/* accept.c */
int accept_ready(struct ss_server *server, int budget);
/* ss_serve_fd, with addresses other than the socket's; NULL or len 0: those. */
int accept_given(struct ss_server *server, int fd,
		 const struct ss_address *given,
		 const struct ss_address *local);
int accept_from(struct ss_server *server, struct ss_listener *listener,
		int budget, bool *empty);
void accept_admit(struct ss_server *server, struct ss_request *req);
void accept_dispatch(struct ss_server *server, struct ss_request *req);
void accept_recover(struct ss_server *server);
void accept_error(struct ss_server *server, struct ss_request *req, int code,
		  enum ss_phase phase);

/* crowd.c */
/* With the lock held, on the serving thread: one more is let in. */
void crowd_join(struct ss_server *server);
/* With the lock held: one that was let in runs, or has ended without. */
void crowd_begun(struct ss_server *server);
/* The serving thread: those who can be taken have been. */
void crowd_taken(struct ss_server *server);
/* Before a request reads in a crowd: it may have to wait. */
void crowd_make_way(struct ss_request *req);

/* gate.c */
bool gate_open(const struct ss_server *server);
bool gate_enter(struct ss_server *server, struct ss_request *req);
void gate_leave(struct ss_server *server, struct ss_request *req); /* lock */
void gate_queue(struct ss_server *server, struct ss_request *req);
struct ss_request *gate_next(struct ss_server *server);
struct ss_request *gate_evict(struct ss_server *server);
bool gate_wanted(struct ss_server *server, unsigned held); /* lock */
bool gate_ready(struct ss_server *server);
/* Another limit holds from now on. */
void gate_changed(struct ss_server *server);
void gate_refuse(struct ss_server *server, struct ss_request *req);

/* linger.c: base's shutdown_request and close_request */
void linger_shutdown(struct ss_server *server, struct ss_request *req);
void linger_close(struct ss_server *server, struct ss_request *req);

/* close.c */
int close_gracefully(struct ss_server *server);
/* The servers of a run, which this thread has claimed. */
void servers_close(const struct run *run);

/* run.c, after a wait: what signals have asked for. */
void run_look(struct ss_server *server);

/* signals.c: minded are those of enum run_ask.  -EBUSY. */
int signals_take(struct run *run, unsigned minded);
void signals_give_back(void);
/* In a child that will execute a program: as they were. */
void signals_reset(void);

/* restart.c: the program once more.  After a wait; and at the end. */
void restart_begin(struct run *run);
void restart_look(struct run *run, struct ss_server *server);
void restart_give_up(struct run *run);

/* address.c */
/* ss_resolve without looking up names: -EINPROGRESS where there is one. */
ssize_t address_parse(const char *text, enum ss_scheme expect,
		      struct ss_endpoint *list, size_t room,
		      struct ss_diag *why);

/* "TEXT: WHY", clean and cut to fit; returns code.  why may be NULL. */
int address_refuse(struct ss_diag *why, const char *text, int code,
		   const char *fmt, ...) SS_PRINTF(4, 5);

/* log.c */
void log_init(struct ss_server *server);

/* process.c */
unsigned process_enter(struct ss_server *server);
int process_admit(struct ss_server *server);
void process_leave(struct ss_server *server);

/* ---- the request ----------------------------------------------------------*/

/* Bytes on their way: data[head..tail). */
struct buffer {
	size_t room, head, tail;
	struct buffer *next; /* among those that nobody has now */
	unsigned char data[];
};

/* An address in as few bytes as internet ones need; its length follows from
 * its family, of which 0 is none. */
struct compact {
	_Alignas(4) unsigned char bytes[sizeof(struct sockaddr_in6)];
};

/* What ss_fail was told, and with which code. */
struct failure {
	int code;
	char text[256];
};

/* What few requests need, so that the others do not carry it: made when it is
 * first wanted, and kept with the spare request. */
struct rare {
	const struct ss_handler *handler;
	struct ss_request *owner; /* of a further stream; NULL: a request */
	FILE *file;
	struct failure failure;		 /* ss_fail's last */
	struct ss_address peer;		 /* where compact is too small */
	struct ss_address local;	 /* len 0: ask */
	struct ss_timeouts own_timeouts; /* ss_request_set_timeouts */
	struct ss_timeouts timeouts;	 /* in force */
	int wake_pipe[2];		 /* lock; -1: none */
	uint64_t handshake_in;	    /* bytes that layers read, before setup */
	struct ss_request *streams; /* a request's further ones; lock */
};

/* How far it has come: written by its runner alone, read by anybody. */
struct progress {
	atomic_ullong bytes_in, bytes_out;
	atomic_uchar waits; /* enum ss_waits */
	/* Of the child that serves it, 0: none.  In the request's own its
	 * parent writes it, under the lock; where it is shown the child. */
	atomic_int pid;
};

enum request_cancel {
	CANCEL_NONE,
	CANCEL_HALF,
	CANCEL_FORCED,
};

struct ss_request {
	/* What comes and goes with it. */
	uint64_t id;
	struct ss_request *prev, *next; /* registry, lock */
	union {
		/* Until it runs, and once it has ended: in the gate's queue,
		 * among the spares. */
		struct ss_request *queue_next;
		pthread_t runner; /* while it runs; lock */
	};
	void *user;
	int64_t accepted_at : 48; /* ms: four thousand years */
	uint64_t listener : 16;	  /* its number; 0: none */
	struct compact peer;
	/* Written under the lock. */
	bool running : 1;
	bool entered : 1;	  /* counts as active */
	bool holds_thread : 1;	  /* its thread runs nothing else */
	bool on_loop : 1;	  /* the serving one, and nothing beside it */
	unsigned char free_reads; /* in crowds */
	uint16_t space;		  /* bytes of the channel's, at least */

	/* What messages touch, as they do the fiber's and the socket's parts of
	 * `extra`. */
	struct ss_server *server;
	void *state; /* the handler's; heap */
	struct ss_channel *top;
	struct ss_source *source;
	struct buffer *in, *out;
	struct rare *rare; /* heap, or NULL; lock to set it */
	int64_t deadline;  /* of the call in progress */
	size_t sent;
	struct progress *_Atomic progress; /* its own, or what is shown */
	struct progress own;

	atomic_uchar cancel;		/* enum request_cancel */
	atomic_bool idle;		/* between messages */
	atomic_bool woken;		/* ss_wake */
	unsigned char phase;		/* enum ss_phase of what runs */
	unsigned char timeout : 4;	/* enum ss_timeout that struck */
	unsigned char timeout_kind : 4; /* that `deadline` stands for */
	bool timed : 1;			/* some time-out is set */
	bool reply_wanted : 1;		/* datagram: even an empty one */
	bool eof : 1, eof_told : 1;
	bool midway : 1;      /* within a message: io_ms, not idle_ms */
	bool resumed : 1;     /* the deadline is set for the next read */
	bool steps : 1;	      /* ss_request_step: its stack is given back */
	bool replying : 1;    /* ss_request_step: its reply is left to send */
	unsigned char streak; /* calls that did not wait, one after another */
	/* Set before others see it; bits that change later would share a byte
	 * with these, which other threads read. */
	bool dgram : 1, truncated : 1, registered : 1;

	_Alignas(16) unsigned char extra[]; /* layers' states, channel */
};

/* request.c */
int base_resume(struct ss_server *server, struct ss_request *req);
int request_new(struct ss_server *server, struct ss_listener *listener,
		size_t space, struct ss_request **result);
/* One that is nothing yet; NULL: no memory.  And back. */
struct ss_request *request_alloc(struct ss_server *server, size_t space);
void request_release(struct ss_request *req);
void request_register(struct ss_request *req);
bool request_runs_here(struct ss_server *server); /* lock */
void requests_cancel(struct ss_server *server, bool force, bool idle_only);
void request_refuse(struct ss_request *req, enum ss_refused reason, int status);
void requests_free_spares(struct ss_server *server);
struct rare *request_rare(struct ss_request *req);

/* progress.c */
/* Its handler begins, has ended: timed where that is shown. */
void progress_begin(struct ss_request *req);
void progress_end(struct ss_request *req);
/* A call of this stream, a request or a further one, waits for that. */
void progress_blocks(struct ss_request *req, short events);
/* What another thread sees of a request that lives. */
void progress_look(const struct ss_request *req, struct ss_snapshot *shot);

/* streams.c */
void streams_free(struct ss_request *req);

/* timeout.c */
struct ss_timeouts timeouts_over(const struct ss_timeouts *first,
				 const struct ss_timeouts *second);
void timeout_merge(struct ss_request *req);
int64_t timeout_compute(struct ss_request *req, short events);
int timeout_struck(struct ss_request *req);
int timeout_interrupted(struct ss_request *req);
bool timeout_total(struct ss_request *req, int64_t *deadline);
int timeout_overdue(struct ss_request *req);

/* channel.c */
size_t channel_socket_size(void);
void channel_push_socket(struct ss_request *req, int fd, unsigned flags);
void channels_close(struct ss_request *req);

/* stream.c */
void stream_free(struct ss_request *req);
/* The same of one that may be a spare: a datagram's may be used again. */
void stream_end(struct ss_request *req);
void buffers_free(struct ss_server *server);
int stream_wait(struct ss_request *req, const struct ss_block *block);
ssize_t stream_fill(struct ss_request *req, size_t room);
const unsigned char *stream_data(const struct ss_request *req);
void stream_consume(struct ss_request *req, size_t n);
void stream_message_done(struct ss_request *req);
ssize_t stream_eof(struct ss_request *req);
size_t stream_room(const struct ss_request *req);
struct buffer *buffer_grow(struct buffer **buffer, size_t room);
struct buffer *stream_buffer(struct ss_request *req, struct buffer **buffer,
			     size_t room);
void stream_give_back(struct ss_request *req); /* its empty buffers */
enum { STREAK = 64 }; /* calls in a row that need not wait, before a pause */
void stream_yield(struct ss_request *req);

/* write.c */
int write_finish(struct ss_request *req);
/* Whether write_finish is to send a datagram that may go along with others. */
bool write_may_join(const struct ss_request *req);
/* Sends those; how many went, from the first on. */
int write_together(struct ss_request *const *reqs, int n);

/* file.c */
void file_close(struct ss_request *req);

/* wait.c */
int wait_source(struct ss_server *server, struct ss_request *req,
		struct ss_source *source, short events, int64_t deadline);
int wait_several(struct ss_server *server, struct ss_request *req,
		 struct ss_wait *waits, int count, int64_t deadline);
int wait_wake(struct ss_server *server, struct ss_request *req);
void wait_ring(struct ss_request *req); /* lock */
/* From now on wait_ring ends its waits.  -errno. */
int wait_wakeable(struct ss_request *req);

static inline const struct ss_ops *self(const struct ss_server *server)
{
	return &server->levels[0].ops;
}

/* Whether everything is to fail now. */
static inline bool stream_forced(const struct ss_request *req)
{
	if (req->rare && req->rare->owner)
		req = req->rare->owner;
	return atomic_load_explicit(&req->cancel, memory_order_relaxed) ==
		       CANCEL_FORCED ||
	       atomic_load_explicit(&req->server->slot->phase,
				    memory_order_relaxed) == STOP_FORCED;
}

/*
 * Until when a call that begins now may wait for these events; kept in the
 * request.  SS_NONE without a look at the clock where nothing is bounded.
 */
static inline int64_t timeout_deadline(struct ss_request *req, short events)
{
	if (req->timed || req->rare)
		return timeout_compute(req, events);
	return req->deadline = SS_NONE;
}

static inline int64_t now(struct ss_server *server)
{
	return self(server)->now(server);
}

/* Whose stream it is: who waits, is cancelled and fails in its place. */
static inline struct ss_request *owner_of(struct ss_request *req)
{
	return req->rare && req->rare->owner ? req->rare->owner : req;
}

static inline const struct ss_handler *handler_of(const struct ss_request *req)
{
	return req->rare ? req->rare->handler : req->server->config.handler;
}

/* By who runs it. */
static inline struct progress *progress_of(const struct ss_request *req)
{
	return atomic_load_explicit(&req->progress, memory_order_relaxed);
}

static inline void progress_waits(struct ss_request *req, enum ss_waits waits)
{
	atomic_store_explicit(&progress_of(req)->waits, (unsigned char)waits,
			      memory_order_relaxed);
}

static inline uint64_t bytes_in(const struct ss_request *req)
{
	return atomic_load_explicit(&progress_of(req)->bytes_in,
				    memory_order_relaxed);
}

/* Its client has said something, who is not the balancer before it. */
static inline bool heard(const struct ss_request *req)
{
	uint64_t in = bytes_in(req);
	return in && (!req->rare || in > req->rare->handshake_in);
}

/* What has been read, and not taken yet: here, and below. */
static inline size_t stream_buffered(const struct ss_request *req)
{
	return req->in ? req->in->tail - req->in->head : 0;
}

static inline size_t channels_pending(const struct ss_request *req)
{
	size_t pending = 0;
	for (struct ss_channel *c = req->top; c; c = c->next)
		if (c->ops->pending)
			pending += c->ops->pending(c);
	return pending;
}

/* A message that is in the buffer in part has begun. */
static inline bool between_messages(const struct ss_request *req)
{
	return !req->midway && !stream_buffered(req);
}

/* It waits: what buffers are empty are given back where many wait so. */
static inline void stream_rest(struct ss_request *req)
{
	if (req->in || req->out)
		stream_give_back(req);
}

/* One whose peer is always faster lets others have their turn. */
static inline void stream_pause(struct ss_request *req)
{
	if (++req->streak >= STREAK)
		stream_yield(req);
}

/* It waits for its client. */
static inline void progress_listens(struct ss_request *req)
{
	progress_waits(req, heard(req) && between_messages(req)
				    ? SS_WAITS_MESSAGE
				    : SS_WAITS_INPUT);
}

static inline void count(atomic_ullong *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
