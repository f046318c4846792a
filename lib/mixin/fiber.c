/*
 * Fiber: handlers in blocking style, many on a thread.
 *
 * With one loop it is the serving loop itself; with more, each has a thread,
 * and the serving thread accepts for all of them.  A connection stays on its
 * loop.  What happens there is told in lib/fiber/loop.h; here stand the
 * operations by which requests come to it and wait.
 */
#include <errno.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../fiber/offload.h"
#include "../fiber/overflow.h"
#include "../fiber/waiter.h"
#include "../sys.h"
#include "../thread.h"

enum {
	STACK_SIZE = 65536,
	STACK_MIN = 16384,
	STACK_MAX = 1 << 30,
	ACCEPT_BATCH = 16,
	WAITS_FEW = 4,
};

struct fibers {
	struct ss_fiber_options options;
	struct fiber_loop *loops;
	int count;
	struct helpers helpers;
	bool helped;   /* helpers is there */
	bool watching; /* for overflows */
};

static struct fibers *state_of(const struct ss_server *server)
{
	return ss_layer_state(server, &ss_fiber_mixin);
}

static struct task *task_of(struct ss_server *server,
			    const struct ss_request *req)
{
	return fiber_task(&state_of(server)->loops[0], req);
}

static struct fiber_loop *loop_of(struct ss_server *server,
				  const struct ss_request *req)
{
	int number = atomic_load(&task_of(server, req)->loop);
	return number ? &state_of(server)->loops[number - 1] : NULL;
}

static struct fiber *fiber_of(struct ss_server *server,
			      const struct ss_request *req)
{
	const struct task *task = task_of(server, req);
	return task->state == TASK_FIBER ? task->fiber : NULL;
}

/* ---- requests come and go -------------------------------------------------*/

static struct fiber_loop *least_loaded(const struct fibers *fibers)
{
	struct fiber_loop *least = &fibers->loops[0];
	for (int i = 1; i < fibers->count; i++)
		if (atomic_load(&fibers->loops[i].load) <
		    atomic_load(&least->load))
			least = &fibers->loops[i];
	return least;
}

static int fbr_process_request(struct ss_server *server, struct ss_request *req)
{
	struct fiber_loop *loop = least_loaded(state_of(server));
	if (loop->own_thread)
		return fiber_loop_hand(loop, req);
	return fiber_loop_take(loop, req);
}

static void fbr_end_request(struct ss_server *server, struct ss_request *req,
			    int status)
{
	struct fiber_loop *loop = loop_of(server, req);
	ss_super(server, &ss_fiber_mixin)->end_request(server, req, status);
	if (loop)
		fiber_loop_leave(loop, req);
}

static void look_again(struct ss_server *server, struct ss_request *req)
{
	struct fiber_loop *loop = loop_of(server, req);
	if (loop)
		fiber_loop_post(loop, req);
}

static int fbr_cancel_request(struct ss_server *server, struct ss_request *req,
			      bool force)
{
	int r = ss_super(server, &ss_fiber_mixin)
			->cancel_request(server, req, force);
	look_again(server, req);
	return r;
}

static int fbr_wake_request(struct ss_server *server, struct ss_request *req)
{
	int r = ss_super(server, &ss_fiber_mixin)->wake_request(server, req);
	look_again(server, req);
	return r;
}

static void fbr_stir_request(struct ss_server *server, struct ss_request *req)
{
	look_again(server, req);
}

/* ---- places where a fiber waits -------------------------------------------*/

/* One of them: a stream's source, or a descriptor of somebody else's. */
struct place {
	struct ss_watch watch; /* first */
	struct fiber *fiber;
	struct waiter waiter;
	struct ss_source *source;
	int twin; /* the descriptor was taken: this one instead; -1 */
	bool watched;
};

static void place_fired(struct ss_server *server, struct ss_watch *watch)
{
	(void)server;
	fiber_wake(((struct place *)watch)->fiber);
}

static int watch_place(struct place *place, struct ss_poller *poller, int fd,
		       short events)
{
	place->watch = (struct ss_watch){ .fd = fd,
					  .events = events,
					  .ready = place_fired };
	int r = ss_poller_watch(poller, &place->watch);
	/* Somebody else's wait has it: a twin is another to epoll(7). */
	if (r == -EEXIST) {
		place->twin = place->watch.fd = sys_dup(fd);
		r = place->twin < 0 ? -errno
				    : ss_poller_watch(poller, &place->watch);
	}
	place->watched = r == 0;
	/* Regular files are always ready, and poll(2) has just said no. */
	return r;
}

static int begin_waiting(struct place *place, struct fiber *fiber,
			 const struct ss_wait *wait)
{
	struct ss_poller *poller = fiber->loop->poller;
	*place = (struct place){ .fiber = fiber, .twin = -1 };
	if (!wait->req)
		return wait->fd < 0 ? 0
				    : watch_place(place, poller, wait->fd,
						  wait->events);
	place->source = ss_request_source(wait->req);
	if (!place->source)
		return 0;
	waiter_add(&place->waiter, fiber, place->source, wait->events);
	if (place->source->fd < 0)
		return 0;
	return ss_poller_want(poller, place->source, wait->events);
}

static void end_waiting(struct place *place)
{
	if (place->source)
		waiter_remove(&place->waiter);
	if (place->watched)
		ss_poller_unwatch(place->fiber->loop->poller, &place->watch);
	if (place->twin >= 0)
		sys_close(place->twin);
}

static int park_at(struct place *places, struct fiber *fiber,
		   const struct ss_wait *waits, int count, int64_t deadline)
{
	int r = 0, begun = 0;
	for (; r == 0 && begun < count; begun++)
		r = begin_waiting(&places[begun], fiber, &waits[begun]);
	if (r == 0 && !fiber_park(fiber, deadline))
		r = -ENOMEM;
	while (begun > 0)
		end_waiting(&places[--begun]);
	return r;
}

/* ---- waiting --------------------------------------------------------------*/

/* Whether an edge will tell when to try again; else it is now. */
static bool worth_waiting(struct ss_source *source, short events)
{
	bool untried = source->flags & SS_SOURCE_DRY;
	if ((events & POLLIN) && untried && (source->flags & SS_SOURCE_URGENT))
		return false;
	short came = source->ready & (events | POLLERR | POLLHUP | POLLRDHUP);
	source->ready = 0;
	return !came;
}

static bool expired(struct ss_server *server, int64_t deadline)
{
	return deadline != SS_NONE && ss_now(server) >= deadline;
}

/* A datagram's source is one of many over the listener's descriptor. */
static int park_for_dgram(struct fiber *fiber, const struct ss_source *source,
			  short events, int64_t deadline)
{
	struct ss_wait wait = { .fd = source->fd, .events = events };
	struct place place;
	int r = park_at(&place, fiber, &wait, 1, deadline);
	return r < 0 ? r : 1;
}

static int park_for(struct ss_server *server, struct fiber *fiber,
		    struct ss_source *source, short events, int64_t deadline)
{
	struct waiter waiter;
	if (source && source->fd >= 0) {
		int r = ss_poller_want(fiber->loop->poller, source, events);
		if (r < 0)
			return r;
	}
	if (expired(server, deadline))
		return -ETIMEDOUT;
	if (source)
		waiter_add(&waiter, fiber, source, events);
	bool parked = fiber_park(fiber, deadline);
	if (source)
		waiter_remove(&waiter);
	if (!parked)
		return -ENOMEM;
	/* Without a descriptor there is only trying. */
	return source && (waiter.told || source->fd < 0) ? 1 : 0;
}

/* Whether there may be input that the last read has not seen. */
static bool untried(struct ss_server *server, struct ss_request *req,
		    struct ss_source *source)
{
	return source->fd < 0 ? fiber_source_readable(server, req, source)
			      : source->flags & SS_SOURCE_DRY;
}

static int fbr_wait(struct ss_server *server, struct ss_request *req,
		    struct ss_source *source, short events, int64_t deadline)
{
	struct fiber *fiber = fiber_of(server, req);
	if (!source && deadline == 0) {
		if (fiber)
			fiber_yield(fiber);
		return 0;
	}
	for (;;) {
		int r = ss_request_ending(req);
		/* What came before the end is read before it. */
		if (r == -ESHUTDOWN && (events & POLLIN) && source &&
		    untried(server, req, source))
			return 0;
		if (r == -ECANCELED || (r < 0 && (events & POLLIN)))
			return r;
		if (!fiber)
			return -ECANCELED;
		if (source && !worth_waiting(source, events))
			return 0;
		if (source && (source->flags & SS_SOURCE_DGRAM))
			r = park_for_dgram(fiber, source, events, deadline);
		else
			r = park_for(server, fiber, source, events, deadline);
		if (r)
			return r < 0 ? r : 0;
		if (expired(server, deadline))
			return -ETIMEDOUT;
	}
}

/* ---- waiting for several --------------------------------------------------*/

/* Few of them on the stack, which a million fibers may have. */
static int park_for_any(struct fiber *fiber, const struct ss_wait *waits,
			int count, int64_t deadline)
{
	struct place few[WAITS_FEW];
	if (count <= WAITS_FEW)
		return park_at(few, fiber, waits, count, deadline);
	struct place *many = sys_calloc((size_t)count, sizeof(*many));
	if (!many)
		return -ENOMEM;
	int r = park_at(many, fiber, waits, count, deadline);
	sys_free(many);
	return r;
}

/* Who waits by poll(2), or knows of streams without a descriptor, tells what is
 * there now. */
static int ask(struct ss_server *server, struct ss_request *req,
	       struct ss_wait *waits, int count)
{
	if (count <= 0)
		return 0;
	return ss_super(server, &ss_fiber_mixin)
		->wait_any(server, req, waits, count, 0);
}

static int fbr_wait_any(struct ss_server *server, struct ss_request *req,
			struct ss_wait *waits, int count, int64_t deadline)
{
	struct fiber *fiber = fiber_of(server, req);
	for (;;) {
		if (ss_request_take_wake(req))
			return -EINTR;
		if (ss_request_ending(req) || !fiber)
			return -ECANCELED;
		int r = ask(server, req, waits, count);
		if (r)
			return r;
		if (expired(server, deadline))
			return 0;
		r = park_for_any(fiber, waits, count, deadline);
		if (r < 0)
			return r;
	}
}

/* By the loop that watches it. */
static void fbr_forget(struct ss_server *server, struct ss_source *source)
{
	const struct fibers *fibers = state_of(server);
	int i = 0;
	while (i < fibers->count - 1 &&
	       !pthread_equal(fibers->loops[i].thread, pthread_self()))
		i++;
	ss_poller_forget(fibers->loops[i].poller, source);
	ss_super(server, &ss_fiber_mixin)->forget(server, source);
}

/* ---- other people's blocking calls ----------------------------------------*/

/* On the loop again, which alone may wake its fibers. */
static void job_done(struct job *job)
{
	struct fiber *fiber = job->owner;
	fiber_loop_finish(fiber->loop, job);
}

static int fbr_offload(struct ss_server *server, struct ss_request *req,
		       int (*fn)(void *arg), void *arg)
{
	struct fibers *fibers = state_of(server);
	struct fiber *fiber = fiber_of(server, req);
	struct job job = {
		.fn = fn, .arg = arg, .tell = job_done, .owner = fiber
	};
	/* A clock that stands still is not to move on meanwhile. */
	if (!fiber || !(ss_server_flags(server) & SS_LAYER_SOCKET) ||
	    helpers_do(&fibers->helpers, &job) < 0)
		return fn(arg);
	while (!job.done)
		fiber_park(fiber, SS_NONE);
	return job.result;
}

/* ---- the server's life ----------------------------------------------------*/

static int default_loops(void)
{
	int processors = sys_processors();
	return processors < LOOPS_MAX ? processors : LOOPS_MAX;
}

static int check_options(struct ss_server *server, struct ss_fiber_options *o)
{
	if (o->loops < 0 || o->loops > LOOPS_MAX)
		return ss_refuse(server, -EINVAL,
				 "fiber: loops is %d, and not in 1..%d",
				 o->loops, LOOPS_MAX);
	if (o->stack_size && o->stack_size < STACK_MIN)
		return ss_refuse(server, -EINVAL,
				 "fiber: stack_size is %zu, and less than %d",
				 o->stack_size, STACK_MIN);
	if (o->stack_size > STACK_MAX)
		return ss_refuse(server, -EINVAL,
				 "fiber: stack_size is %zu, and more than %d",
				 o->stack_size, STACK_MAX);
	if (!o->stack_size)
		o->stack_size = STACK_SIZE * TOOLS_STACKS;
	unsigned flags = ss_server_flags(server);
	bool socket = flags & SS_LAYER_SOCKET;
	bool worker = flags & SS_LAYER_SUPERVISES;
	if ((!socket || worker) && o->loops > 1)
		return ss_refuse(server, -EINVAL,
				 "fiber: %s is served by one loop",
				 socket ? "a worker" : "memory");
	if (!o->loops)
		o->loops = socket && !worker ? default_loops() : 1;
	return 0;
}

static int make_loops(struct ss_server *server, struct fibers *fibers)
{
	int count = fibers->options.loops;
	fibers->loops = sys_calloc((size_t)count, sizeof(*fibers->loops));
	if (!fibers->loops)
		return -ENOMEM;
	struct ss_poller *own = count == 1 ? ss_server_poller(server) : NULL;
	int r = 0;
	while (r == 0 && fibers->count < count) {
		r = fiber_loop_init(&fibers->loops[fibers->count],
				    fibers->count + 1, server, own,
				    &fibers->options);
		fibers->count++;
	}
	return r;
}

static void stop_loops(struct fibers *fibers)
{
	for (int i = 0; i < fibers->count; i++)
		if (fibers->loops[i].running)
			fiber_loop_stop(&fibers->loops[i]);
	for (int i = 0; i < fibers->count; i++) {
		if (fibers->loops[i].running)
			sys_pthread_join(fibers->loops[i].thread, NULL);
		fibers->loops[i].running = false;
	}
	if (fibers->watching)
		overflow_unwatch();
	fibers->watching = false;
}

static void fbr_fini(struct ss_server *server)
{
	struct fibers *fibers = state_of(server);
	stop_loops(fibers);
	if (fibers->helped)
		helpers_fini(&fibers->helpers);
	for (int i = 0; i < fibers->count; i++)
		fiber_loop_fini(&fibers->loops[i]);
	sys_free(fibers->loops);
}

static int fbr_init(struct ss_server *server, const void *options)
{
	struct fibers *fibers = state_of(server);
	if (options)
		fibers->options = *(const struct ss_fiber_options *)options;
	int r = check_options(server, &fibers->options);
	if (r == 0)
		r = helpers_init(&fibers->helpers);
	if (r < 0)
		return r;
	fibers->helped = true;
	r = make_loops(server, fibers);
	if (r < 0)
		fbr_fini(server);
	else
		ss_set_accept_batch(server, ACCEPT_BATCH);
	return r;
}

static void *run_loop(void *arg)
{
	fiber_loop_run(arg);
	return NULL;
}

static int watch_overflows(struct ss_server *server, struct fibers *fibers)
{
	if (!fibers->options.report_overflow)
		return 0;
	int r = overflow_watch();
	fibers->watching = r == 0;
	return r == 0 ? 0
		      : ss_refuse(server, r, "fiber: report_overflow: %s",
				  strerror(-r));
}

static int start_loops(struct ss_server *server, struct fibers *fibers)
{
	int r = 0;
	for (int i = 0; r == 0 && i < fibers->count; i++) {
		struct fiber_loop *loop = &fibers->loops[i];
		if (!loop->own_thread)
			break;
		r = thread_create(&loop->thread, 0, run_loop, loop);
		loop->running = r == 0;
		if (r < 0)
			ss_refuse(server, r, "fiber: thread %d of %d: %s",
				  i + 1, fibers->count, strerror(-r));
	}
	return r;
}

static int fbr_server_activate(struct ss_server *server)
{
	struct fibers *fibers = state_of(server);
	int r = ss_super(server, &ss_fiber_mixin)->server_activate(server);
	if (r == 0)
		r = watch_overflows(server, fibers);
	if (r == 0)
		r = start_loops(server, fibers);
	if (r < 0)
		stop_loops(fibers);
	return r;
}

/* Loops that abandoned requests may come back to go on until fini. */
static int fbr_server_close(struct ss_server *server)
{
	int abandoned = ss_super(server, &ss_fiber_mixin)->server_close(server);
	if (!abandoned)
		stop_loops(state_of(server));
	return abandoned;
}

const struct ss_layer ss_fiber_mixin = {
	.name = "fiber",
	.flags = SS_LAYER_DISPATCHES | SS_LAYER_PARKS,
	.server_size = sizeof(struct fibers),
	.request_size = sizeof(struct task),
	.init = fbr_init,
	.fini = fbr_fini,
	.ops = {
		.server_activate = fbr_server_activate,
		.server_close = fbr_server_close,
		.process_request = fbr_process_request,
		.end_request = fbr_end_request,
		.cancel_request = fbr_cancel_request,
		.wake_request = fbr_wake_request,
		.stir_request = fbr_stir_request,
		.wait = fbr_wait,
		.wait_any = fbr_wait_any,
		.offload = fbr_offload,
		.forget = fbr_forget,
	},
};
