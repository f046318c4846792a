/*
 * Prefork: worker processes, each of which is a server of what stands to the
 * right, and a supervisor that takes no clients and has no threads.
 *
 * serve_forever forks the workers, and another one for each that has ended, or
 * asks to leave since it has served enough: at once, but with growing pauses
 * where they die young.  When it returns they serve those clients whom they
 * have, and take no more.  What was queued is theirs to take in server_close;
 * served once more it is a new generation's, and the old one retires.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../sys.h"
#include "reaper.h"

enum {
	WORKERS_MAX = 10000,
	SPARE_SLOTS = 8, /* a worker: for those that retire meanwhile */
	JITTER_PERCENT = 10,
	YOUNG_MS = 1000,
	PAUSE_MIN_MS = 10,
	PAUSE_MAX_MS = 10000,
	/* From the drain deadline until a worker should have ended by itself:
	 * half-closed, forced, and a little more. */
	FORCE_MS = 1000 + 250,
	KILL_MS = 250 + FORCE_MS,
	REAP_MS = 1000,
};

struct worker {
	struct child child; /* first: the reaper's view of it */
	int slot;
	bool alive;
	bool leaving; /* it is of no use any more, and will be told so */
	int64_t born;
};

struct prefork {
	struct ss_prefork_options options;
	struct reaper reaper;
	struct worker *workers; /* slot 1 is the first */
	int slots;
	atomic_bool *asks;	 /* by slot: it has served enough */
	unsigned long long born; /* so many were forked */
	bool serving; /* the workers that there are, are of this time */
	bool closing;

	/* Where they die young, or cannot be forked. */
	int strikes; /* in a row */
	int64_t due; /* the next one; SS_NONE: when `probe` has lived a while */
	struct worker *probe; /* the last that was forked, if it lives */
	bool crowded;	      /* that all slots are taken was said */

	/* In a worker. */
	int limit; /* requests; 0: none */
	int taken;
};

static struct prefork *state_of(struct ss_server *server)
{
	return ss_layer_state(server, &ss_prefork_mixin);
}

static const struct ss_ops *super_of(struct ss_server *server)
{
	return ss_super(server, &ss_prefork_mixin);
}

/* ---- those that die young -------------------------------------------------*/

static void strike(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	int pause = 0;
	if (++state->strikes > 1)
		pause = PAUSE_MIN_MS;
	for (int i = 2; i < state->strikes && pause < state->options.respawn_ms;
	     i++)
		pause *= 2;
	if (pause > state->options.respawn_ms)
		pause = state->options.respawn_ms;
	state->due = ss_now(server) + pause;
	state->probe = NULL;
	if (state->strikes == 2)
		ss_log(server, SS_LOG_WARNING, 0,
		       "workers die young, or cannot be forked: there will be "
		       "pauses of up to %d ms",
		       state->options.respawn_ms);
}

/* Once one has lived for a while, the others may come too. */
static void look_at_probe(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	if (!state->strikes || !state->probe)
		return;
	int64_t grown = state->probe->born + YOUNG_MS;
	if (ss_now(server) < grown) {
		ss_turn_at(server, grown);
		return;
	}
	if (state->strikes > 1)
		ss_log(server, SS_LOG_WARNING, 0, "workers live again");
	state->strikes = 0;
}

static bool may_fork(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	if (state->strikes < 2)
		return true;
	if (state->probe)
		return false;
	if (ss_now(server) >= state->due)
		return true;
	ss_turn_at(server, state->due);
	return false;
}

/* ---- a worker -------------------------------------------------------------*/

/* Each its own, so that they do not all leave at once. */
static int draw_limit(const struct prefork *state)
{
	int max = state->options.max_requests;
	int percent = state->options.jitter_percent;
	if (max <= 0)
		return 0;
	unsigned long long less = percent > 0 ? (unsigned)percent : 0;
	less = less * (unsigned)max / 100;
	unsigned long long drawn = state->born * 0x9e3779b97f4a7c15u >> 33;
	int limit = max - (int)(drawn % (less + 1));
	return limit > 0 ? limit : 1;
}

static _Noreturn void work(struct ss_server *server)
{
	const struct ss_ops *super = super_of(server);
	int r = super->server_activate(server);
	if (r >= 0)
		r = super->serve_forever(server);
	if (r >= 0)
		super->server_close(server);
	else
		ss_log(server, SS_LOG_ERROR, 0, "a worker cannot serve: %s",
		       strerror(-r));
	sys_flush();
	sys_exit(r < 0 ? 1 : 0);
}

/* It serves on until there is another one in its place. */
static int prf_get_request(struct ss_server *server,
			   struct ss_listener *listener,
			   struct ss_request **req)
{
	struct prefork *state = state_of(server);
	int r = super_of(server)->get_request(server, listener, req);
	if (r >= 0 && state->limit && ++state->taken == state->limit) {
		atomic_store(&state->asks[ss_worker(server)], true);
		ss_turn_supervisor(server);
	}
	return r;
}

/* ---- the supervisor: forking ----------------------------------------------*/

static struct worker *free_slot(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	for (int i = 0; i < state->slots; i++) {
		if (!state->workers[i].alive) {
			state->crowded = false;
			return &state->workers[i];
		}
	}
	if (!state->crowded)
		ss_log(server, SS_LOG_WARNING, 0,
		       "%d workers still serve their last clients: no more "
		       "are forked until some have ended",
		       state->slots);
	state->crowded = true;
	return NULL;
}

static int fork_one(struct ss_server *server, struct worker *worker)
{
	struct prefork *state = state_of(server);
	struct reaper *reaper = &state->reaper;
	int pipe[2];
	reaper_prepare(reaper, pipe);
	atomic_store(&state->asks[worker->slot], false);
	state->born++;
	/* What is in stdio's buffers is ours to print, not every worker's. */
	sys_flush();
	pid_t pid = ss_fork_worker(server, worker->slot);
	if (pid < 0) {
		reaper_cancel(pipe);
		return pid;
	}
	if (pid == 0) {
		reaper_in_child(pipe);
		state->limit = draw_limit(state);
		work(server);
	}
	worker->alive = true;
	worker->leaving = false;
	worker->born = ss_now(server);
	reaper_adopt(reaper, &worker->child, pid);
	reaper_watch(server, &worker->child, pipe);
	return 0;
}

static void fork_worker(struct ss_server *server, struct worker *worker)
{
	struct prefork *state = state_of(server);
	int r = fork_one(server, worker);
	if (r >= 0) {
		state->probe = worker;
		return;
	}
	ss_log(server, SS_LOG_WARNING, 0, "fork: %s", strerror(-r));
	strike(server);
}

/* Of those that serve on, and those that will be told to leave. */
static int missing(struct prefork *state)
{
	int left = state->options.workers;
	for (int i = 0; i < state->slots; i++) {
		struct worker *w = &state->workers[i];
		if (w->alive && atomic_load(&state->asks[w->slot]))
			w->leaving = true;
		if (w->alive && !w->leaving)
			left--;
	}
	return left;
}

static void tend(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	look_at_probe(server);
	while (missing(state) > 0) {
		struct worker *slot =
			may_fork(server) ? free_slot(server) : NULL;
		if (!slot)
			return;
		fork_worker(server, slot);
		look_at_probe(server);
	}
	for (int i = 0; i < state->slots; i++)
		if (state->workers[i].alive && state->workers[i].leaving)
			ss_order_workers(server, i + 1, SS_ORDER_RETIRE);
}

/* ---- the supervisor: their end --------------------------------------------*/

static void tell_end(struct ss_server *server, const struct worker *worker,
		     pid_t pid, int status)
{
	bool asked = worker->leaving || state_of(server)->closing;
	char text[64];
	if (asked && (status == 0 || status == -1))
		return;
	ss_log(server, SS_LOG_WARNING, 0, "worker %d, process %ld, %s%s",
	       worker->slot, (long)pid, reaper_tell(status, text, sizeof(text)),
	       asked ? "" : ", unasked");
}

static void worker_ended(struct ss_server *server, struct child *child,
			 pid_t pid, int status)
{
	struct prefork *state = state_of(server);
	struct worker *worker = (struct worker *)child;
	tell_end(server, worker, pid, status);
	ss_worker_ended(server, worker->slot);
	worker->alive = false;
	if (state->probe == worker)
		state->probe = NULL;
	if (!worker->leaving && !state->closing &&
	    ss_now(server) < worker->born + YOUNG_MS)
		strike(server);
}

static int alive(const struct prefork *state)
{
	int n = 0;
	for (int i = 0; i < state->slots; i++)
		n += state->workers[i].alive;
	return n;
}

static void kill_all(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	for (int i = 0; i < state->slots; i++)
		if (state->workers[i].alive)
			reaper_kill(&state->reaper, &state->workers[i].child,
				    SIGKILL);
}

/* The deadline is theirs to keep.  Who is too busy for that is killed. */
static void await_all(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	int64_t until = ss_drain_deadline(server);
	bool hurry = false, killed = false;
	if (!alive(state))
		return;
	if (until != SS_NONE)
		until += KILL_MS;
	for (int now = ss_turn_closing(server, 0); alive(state) > 0;
	     now = ss_turn_closing(server, until)) {
		if (now && !hurry) {
			hurry = true;
			ss_order_workers(server, 0, SS_ORDER_NOW);
			int64_t soon = ss_now(server) + FORCE_MS;
			if (until == SS_NONE || soon < until)
				until = soon;
		}
		if (until == SS_NONE || ss_now(server) < until)
			continue;
		if (killed)
			return;
		killed = true;
		kill_all(server);
		until = ss_now(server) + REAP_MS;
	}
}

/* ---- the server's life ----------------------------------------------------*/

static int check(struct ss_server *server, const struct ss_prefork_options *o)
{
	if (o->workers < 0 || o->workers > WORKERS_MAX)
		return ss_refuse(server, -EINVAL,
				 "prefork: workers is %d, and not in 0..%d",
				 o->workers, WORKERS_MAX);
	if (o->max_requests < SS_NONE)
		return ss_refuse(server, -EINVAL, "prefork: max_requests is %d",
				 o->max_requests);
	if (o->jitter_percent < SS_NONE || o->jitter_percent > 100)
		return ss_refuse(server, -EINVAL,
				 "prefork: jitter_percent is %d",
				 o->jitter_percent);
	if (o->respawn_ms < 0)
		return ss_refuse(server, -EINVAL, "prefork: respawn_ms is %d",
				 o->respawn_ms);
	return 0;
}

static int take_options(struct ss_server *server, const void *options)
{
	struct ss_prefork_options *o = &state_of(server)->options;
	if (options)
		*o = *(const struct ss_prefork_options *)options;
	int r = check(server, o);
	if (!o->workers)
		o->workers = sys_processors();
	if (!o->jitter_percent)
		o->jitter_percent = JITTER_PERCENT;
	if (!o->respawn_ms)
		o->respawn_ms = PAUSE_MAX_MS;
	return r;
}

static size_t asks_size(const struct prefork *state)
{
	return (size_t)(state->slots + 1) * sizeof(*state->asks);
}

static int prf_init(struct ss_server *server, const void *options)
{
	struct prefork *state = state_of(server);
	int r = take_options(server, options);
	if (r < 0)
		return r;
	state->slots = SPARE_SLOTS * state->options.workers;
	state->workers =
		sys_calloc((size_t)state->slots, sizeof(*state->workers));
	if (!state->workers)
		return -ENOMEM;
	for (int i = 0; i < state->slots; i++)
		state->workers[i].slot = i + 1;
	r = -ENOMEM;
	state->asks = ss_shared_alloc(asks_size(state));
	if (!state->asks)
		goto no_asks;
	r = ss_set_workers(server, state->slots);
	if (r >= 0)
		r = reaper_init(&state->reaper, worker_ended);
	if (r >= 0)
		return 0;
	ss_shared_free(state->asks, asks_size(state));
no_asks:
	sys_free(state->workers);
	return r;
}

static void prf_fini(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	reaper_fini(&state->reaper);
	ss_shared_free(state->asks, asks_size(state));
	sys_free(state->workers);
}

static void prf_after_fork(struct ss_server *server)
{
	reaper_after_fork(&state_of(server)->reaper);
}

/* The listeners alone: what is activated to the right is so in the workers. */
static int prf_server_activate(struct ss_server *server)
{
	const struct ss_layer *transport = ss_server_transport(server);
	return transport->ops.server_activate
		       ? transport->ops.server_activate(server)
		       : 0;
}

static void begin_serving(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	for (int i = 0; i < state->slots; i++)
		state->workers[i].leaving = true;
	state->strikes = 0;
	state->probe = NULL;
	state->serving = true;
	tend(server);
}

/* Those that ended in a turn are replaced before the next one's wait. */
static int prf_serve_turn(struct ss_server *server, int64_t deadline)
{
	struct prefork *state = state_of(server);
	if (!state->serving)
		begin_serving(server);
	int r = ss_turn(server, deadline);
	if (r >= 0) {
		tend(server);
	} else {
		ss_order_workers(server, 0, SS_ORDER_PAUSE);
		state->serving = false;
	}
	return r;
}

static int prf_serve_forever(struct ss_server *server)
{
	int r;
	do
		r = prf_serve_turn(server, SS_NONE);
	while (r >= 0);
	return r == -ECANCELED ? 0 : r;
}

static void prf_service_actions(struct ss_server *server)
{
	reaper_ask(server, &state_of(server)->reaper);
	super_of(server)->service_actions(server);
}

static int prf_server_close(struct ss_server *server)
{
	struct prefork *state = state_of(server);
	state->closing = true;
	ss_order_workers(server, 0, SS_ORDER_CLOSE);
	int abandoned = super_of(server)->server_close(server);
	await_all(server);
	return abandoned + alive(state);
}

const struct ss_layer ss_prefork_mixin = {
	.name = "prefork",
	.flags = SS_LAYER_FORKS | SS_LAYER_SUPERVISES | SS_NEEDS_SOCKET,
	.server_size = sizeof(struct prefork),
	.init = prf_init,
	.fini = prf_fini,
	.after_fork = prf_after_fork,
	.ops = {
		.server_activate = prf_server_activate,
		.serve_forever = prf_serve_forever,
		.serve_turn = prf_serve_turn,
		.service_actions = prf_service_actions,
		.server_close = prf_server_close,
		.get_request = prf_get_request,
	},
};
