/*
 * Simulation: a server, hundreds of clients, the network between them and
 * time, all in one thread, and every turn that they take decided by one
 * number, the seed.  The same seed gives the same run, byte for byte; another
 * one gives another order of events, other pauses, other places where a read
 * comes back short.  A run that fails names its seed.
 *
 * The server is what an ss_config makes, its transport replaced by memory; it
 * runs handlers one after another (sync) or as fibers on one loop.  Clients are
 * functions that wait as handlers do.  Two layers do the rest, and serve by
 * themselves, too: chaos over any transport, the clock over memory.
 */
#ifndef SOCKETSERVER_SIM_H
#define SOCKETSERVER_SIM_H

#include <stdbool.h>

#include <socketserver/layer.h>

SS_BEGIN_DECLS

/* ---- chaos ----------------------------------------------------------------*/

/*
 * Chaos: a channel that lies above the transport's, and does to a server's
 * reads and writes what kernels and networks may do.  Stands leftmost, under
 * any model, over any transport.  What happens to a request is decided by the
 * seed and the request's number (the order of accept), and for the rest by its
 * own calls alone.  Connections given by ss_serve_fd are spared.
 */
SS_API extern const struct ss_layer ss_chaos_mixin;
struct ss_chaos_options {
	uint64_t seed;
	/* Of 1000 reads or writes of a stream, so many; SS_NONE: none. */
	int short_read;	 /* move less than they could; 0: 250 */
	int short_write; /* 0: 250 */
	int would_block; /* wait first, though they need not; 0: 100 */
	int interrupted; /* are, by a signal (EINTR); 0: 50 */
	/* Such a wait lasts up to so long, or until something else ends it; 0:
	 * 5; SS_NONE: it only lets others go first. */
	int delay_ms;
	/* Of 1000 streams, so many; 0 and SS_NONE: none. */
	int reset;	/* end in -ECONNRESET and -EPIPE, and at the client */
	int half_close; /* see their input's end, whatever else is sent */
	int cut_after;	/* and that within so many bytes; 0: 4096 */
	/* Of 1000 datagrams, so many; 0 and SS_NONE: none. */
	int lost;	/* that came, and replies */
	int duplicated; /* replies: go twice */
	int reordered;	/* that came: after the next, if one is there */
};

/* ---- the clock ------------------------------------------------------------*/

/*
 * Clock: ss_now stands still, and jumps to the next deadline when nothing else
 * can happen.  Over memory, under sync and fiber: there the transport's own
 * time does no more by itself, but here others can have a hand in it.
 */
SS_API extern const struct ss_layer ss_clock_mixin;
struct ss_clock_options {
	int64_t start_ms; /* what ss_now says at first; 0: 1 */
	/*
	 * Serving thread, where nothing can happen before `until` (SS_NONE: at
	 * all).  True: it has done something, at a time that it may have set
	 * by ss_clock_set, no later than `until`.  False: time goes there, and
	 * where there is no such time, who waits for input sees its end.
	 */
	bool (*idle)(void *arg, struct ss_server *server, int64_t until);
	void *arg;
};

/* Serving thread: what ss_now says from now on.  -EINVAL: that is past;
 * -ENOTSUP: the server does not have the layer. */
SS_API int ss_clock_set(struct ss_server *server, int64_t now);

/* ---- a simulation ---------------------------------------------------------*/

struct ss_sim;
struct ss_sim_client;

struct ss_sim_options {
	uint64_t seed;
	struct ss_chaos_options chaos; /* with the simulation's seed */
	bool no_chaos;
	int latency_ms; /* what is sent is up to so long on its way; 0: 20;
			   SS_NONE: none */
	int window;	/* bytes that the server may be ahead of a client; 0:
			   65536; SS_NONE: any number */
	/* After each step, of a client or of the server: an invariant of the
	 * program's own.  < 0, or ss_sim_fail, ends the run. */
	int (*check)(void *arg, struct ss_sim *sim);
	/* What happens, a line each, without its newline. */
	void (*trace)(void *arg, const char *line);
	void *arg;
};

/*
 * Makes a server of the configuration, whose addresses do not count, over
 * memory.  Its errors, and -EINVAL, with the reason: the model is neither sync
 * nor fiber on one loop, or there is no room for three layers of ours.
 */
static inline int ss_sim_new(struct ss_sim **sim,
			     const struct ss_config *config,
			     const struct ss_sim_options *options,
			     struct ss_diag *why);
SS_API int ss_sim_new_sized(struct ss_sim **sim, const struct ss_config *config,
			    size_t config_size,
			    const struct ss_sim_options *options,
			    size_t options_size, struct ss_diag *why);
SS_API void ss_sim_free(struct ss_sim *sim);

static inline int ss_sim_new(struct ss_sim **sim,
			     const struct ss_config *config,
			     const struct ss_sim_options *options,
			     struct ss_diag *why)
{
	return ss_sim_new_sized(sim, config, sizeof(*config), options,
				sizeof(*options), why);
}

/*
 * A client that begins so many ms from now: `run` is called on a stack of its
 * own (64 KiB), and what waits in it is only this client.  When it returns, its
 * connection is closed.  Its number, from 1 on; -ENOMEM.
 */
SS_API int ss_sim_add(struct ss_sim *sim, int64_t in_ms,
		      void (*run)(struct ss_sim_client *client, void *arg),
		      void *arg);

/*
 * Lets it all happen.  0: all clients have returned, all requests have ended,
 * and the server has been closed, in good order; so it is, before, once
 * ss_shutdown has been called.  1: `until` has come before that (ms of ss_now;
 * SS_NONE): call again.  Else what went wrong, and `why` says it with the seed
 * and the time: -EPROTO, an expectation or invariant; -EDEADLK, somebody waits
 * for ever; -ELOOP, so much happens that time does not go on; -ENOMEM; or what
 * the server said.
 */
SS_API int ss_sim_run(struct ss_sim *sim, int64_t until, struct ss_diag *why);

/* A number that differs where two runs differ: of the trace, and of all bytes
 * that went to and fro. */
SS_API uint64_t ss_sim_digest(const struct ss_sim *sim);
SS_API struct ss_server *ss_sim_server(const struct ss_sim *sim);

/* The run fails, for this reason; from handlers, too.  Returns -EPROTO, but not
 * to clients: they go no further. */
SS_API int ss_sim_fail(struct ss_sim *sim, const char *fmt, ...)
	SS_PRINTF(2, 3);

/* ---- what clients do ------------------------------------------------------*/

/*
 * One connection at a time; what an earlier one has sent still arrives.  Calls
 * return >= 0, or -errno; those that return nothing fail the run instead, and
 * do not come back from that.
 */
SS_API struct ss_sim *ss_sim_of(const struct ss_sim_client *client);

/* -ECONNREFUSED: the server is closed. */
SS_API int ss_sim_connect(struct ss_sim_client *client);

/* Never waits; arrives in pieces, each at its time.  Datagrams: one, which may
 * be lost, doubled, or overtaken, as the chaos options have it.  -ENOTCONN. */
SS_API ssize_t ss_sim_send(struct ss_sim_client *client, const void *data,
			   size_t n);
/* What there is, at most n bytes; 0 at its end.  -ETIMEDOUT: nothing within so
 * many ms (SS_NONE: for ever).  -ENOTCONN. */
SS_API ssize_t ss_sim_recv(struct ss_sim_client *client, void *buf, size_t n,
			   int64_t ms);

/* Text, of at most 4095 bytes: sends it; must receive exactly that next; must
 * receive the end next. */
SS_API void ss_sim_say(struct ss_sim_client *client, const char *fmt, ...)
	SS_PRINTF(2, 3);
SS_API void ss_sim_hear(struct ss_sim_client *client, const char *fmt, ...)
	SS_PRINTF(2, 3);
SS_API void ss_sim_hear_end(struct ss_sim_client *client);

SS_API void ss_sim_wait(struct ss_sim_client *client, int64_t ms);
/* No more will be sent; the answer is still to come. */
SS_API void ss_sim_shutdown(struct ss_sim_client *client);
/* Ends the connection without further ado: what has arrived and is not yet read
 * is lost to the server, which sees -ECONNRESET. */
SS_API void ss_sim_reset(struct ss_sim_client *client);
/* Ends it; what was sent arrives. */
SS_API void ss_sim_close(struct ss_sim_client *client);

/* A number below n, of those that the seed decides. */
SS_API unsigned ss_sim_random(struct ss_sim_client *client, unsigned n);

SS_END_DECLS
#endif
