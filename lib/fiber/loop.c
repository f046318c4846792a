/* The scheduler: a list of fibers that may run, one of requests that may
 * start, and a round after each wait of the loop's poller. */
#include "loop.h"

#include <errno.h>
#include <stdint.h>

#include "../sys.h"
#include "overflow.h"
#include "waiter.h"

enum {
	STARVED_MS = 10,
	BLOCKED_MS = 100, /* a fiber that keeps its loop so long is named */
};

/* ---- who runs next --------------------------------------------------------*/

static void append(struct fiber_list *list, struct fiber *fiber)
{
	fiber->next = NULL;
	*list->last = fiber;
	list->last = &fiber->next;
}

static void reset(struct fiber_list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

/* The round that runs it comes after the wait, which is not to last then. */
static void make_ready(struct fiber_loop *loop, struct fiber *fiber)
{
	append(&loop->ready, fiber);
	ss_poller_at(loop->poller, 0);
}

static void queue_start(struct fiber_loop *loop, struct ss_request *req)
{
	struct task *task = fiber_task(loop, req);
	task->state = TASK_QUEUED;
	task->next = NULL;
	if (loop->starting.first)
		fiber_task(loop, loop->starting.last)->next = req;
	else
		loop->starting.first = req;
	loop->starting.last = req;
	if (!loop->starved_until)
		ss_poller_at(loop->poller, 0);
}

void fiber_wake(struct fiber *fiber)
{
	if (!fiber->parked || fiber->woken)
		return;
	fiber->woken = true;
	make_ready(fiber->loop, fiber);
}

/* ---- switching ------------------------------------------------------------*/

/* Whoever waits otherwise than by the library's calls stops all the others:
 * between these two it is timed, in debug builds. */
static void begin_turn(struct fiber_loop *loop)
{
	(void)loop;
#ifndef NDEBUG
	loop->turn_began = sys_now_ms();
#endif
}

static void end_turn(struct fiber_loop *loop, const struct ss_request *req)
{
	(void)loop, (void)req;
#ifndef NDEBUG
	int64_t ms = sys_now_ms() - loop->turn_began;
	const struct ss_handler *handler = ss_server_handler(loop->server);
	if (ms < BLOCKED_MS)
		return;
	ss_log(loop->server, SS_LOG_WARNING, req ? ss_request_id(req) : 0,
	       "handler %s kept its loop for %lld ms",
	       handler->name ? handler->name : "?", (long long)ms);
#endif
}

/* The last one is kept at hand, but where the sanitizers must be told. */
static void give_stack(struct fiber_loop *loop, char *base)
{
#ifndef TOOLS_SWITCH
	if (!loop->spare) {
		loop->spare = base;
		return;
	}
#endif
	stacks_give(loop->stacks, base);
}

static char *take_stack(struct fiber_loop *loop)
{
	char *base = loop->spare;
	loop->spare = NULL;
	return base ? base : stacks_take(loop->stacks);
}

/* Who cannot be sent along with the others waits for that on a stack. */
static void send_replies(struct fiber_loop *loop)
{
	int n = loop->reply_count;
	if (!n)
		return;
	loop->reply_count = 0;
	for (int i = ss_requests_reply(loop->replies, n); i < n; i++)
		queue_start(loop, loop->replies[i]);
}

/* Those of a round leave together, but not later for handlers that take their
 * time. */
static void keep_reply(struct fiber_loop *loop, struct ss_request *req)
{
	fiber_task(loop, req)->state = TASK_REPLY;
	loop->replies[loop->reply_count++] = req;
}

static void look_at_replies(struct fiber_loop *loop)
{
	if (!loop->reply_count)
		return;
	int64_t now = ss_now(loop->server);
	if (loop->reply_count < SS_REPLIES_MAX && now == loop->replied_at)
		return;
	loop->replied_at = now;
	send_replies(loop);
}

static void resume(struct fiber_loop *loop, struct fiber *fiber)
{
	begin_turn(loop);
	loop->current = fiber;
	context_switch(&loop->context, &fiber->context);
	loop->current = NULL;
	const struct fiber *done = loop->done;
	end_turn(loop, done ? NULL : fiber->req);
	if (!done)
		return;
	loop->done = NULL;
	give_stack(loop, done->base);
	look_at_replies(loop);
}

static void leave_fiber(struct fiber *fiber)
{
	context_switch(&fiber->context, &fiber->loop->context);
}

bool fiber_park(struct fiber *fiber, int64_t deadline)
{
	struct fiber_loop *loop = fiber->loop;
	fiber->deadline = deadline;
	if (deadline != SS_NONE &&
	    timers_arm(&loop->timers, &fiber->task->timer, deadline,
		       fiber->req) < 0)
		return false;
	fiber->parked = true;
	fiber->woken = false;
	leave_fiber(fiber);
	fiber->parked = false;
	return true;
}

void fiber_yield(struct fiber *fiber)
{
	make_ready(fiber->loop, fiber);
	leave_fiber(fiber);
}

/* ---- without a stack ------------------------------------------------------*/

bool fiber_source_readable(struct ss_server *server, struct ss_request *req,
			   struct ss_source *source)
{
	return ss_super(server, &ss_fiber_mixin)
		       ->wait(server, req, source, POLLIN, 0) == 0;
}

APART static bool look_for_input(struct ss_server *server,
				 struct ss_request *req,
				 struct ss_source *source)
{
	if (source->fd < 0)
		return fiber_source_readable(server, req, source);
	if (source->ready & POLLIN)
		return true;
	struct pollfd fd = { .fd = source->fd, .events = POLLIN };
	return sys_poll(&fd, 1, 0) != 0;
}

/* Whether there is input that no edge will tell of any more: the last read may
 * not have taken all. */
static inline bool has_input(struct ss_server *server, struct ss_request *req,
			     struct ss_source *source, bool fresh)
{
	const unsigned dry = SS_SOURCE_DRY, all = dry | SS_SOURCE_URGENT;
	bool told = (source->flags & all) == dry && !(source->ready & POLLIN);
	if (source->fd >= 0 && (fresh || told))
		return false;
	return look_for_input(server, req, source);
}

/* Until its source is readable, its deadline, or its end. */
static void set_aside(struct fiber_loop *loop, struct ss_request *req,
		      bool fresh)
{
	struct ss_source *source = ss_request_source(req);
	struct task *task = fiber_task(loop, req);
	task->state = TASK_ASIDE;
	task->fiber = NULL;
	bool wait = source && !ss_request_ending(req) &&
		    !has_input(loop->server, req, source, fresh);
	if (wait && source->fd >= 0)
		wait = ss_poller_want(loop->poller, source, POLLIN) == 0;
	int64_t deadline = wait ? ss_request_deadline(req) : SS_NONE;
	if (deadline != SS_NONE)
		wait = timers_arm(&loop->timers, &task->timer, deadline, req) ==
		       0;
	if (!wait) {
		queue_start(loop, req);
		return;
	}
	source->ready = 0;
	waiter_set_request(source, req);
}

static void start_again(struct fiber_loop *loop, struct ss_request *req,
			struct ss_source *source)
{
	source->waiter = NULL;
	/* To be read before it is waited for. */
	source->flags &= ~(unsigned)SS_SOURCE_DRY;
	queue_start(loop, req);
}

/* Its client speaks first, or it begins at once. */
static void begin(struct fiber_loop *loop, struct ss_request *req)
{
	if (ss_request_defer(req))
		set_aside(loop, req, true);
	else
		queue_start(loop, req);
}

/* ---- a fiber's life -------------------------------------------------------*/

static void step(struct fiber_loop *loop, struct ss_request *req)
{
	int r = ss_request_step(req);
	if (r == SS_AGAIN)
		set_aside(loop, req, false);
	else if (r == SS_REPLY)
		keep_reply(loop, req);
}

static struct ss_request *next_of_round(struct fiber_loop *loop)
{
	struct ss_request *req = loop->round;
	if (req)
		loop->round = fiber_task(loop, req)->next;
	return req;
}

static void inhabit(struct fiber *fiber, struct ss_request *req)
{
	struct task *task = fiber_task(fiber->loop, req);
	task->state = TASK_FIBER;
	task->fiber = fiber;
	fiber->req = req;
	fiber->task = task;
}

/* Who ends before it has to wait leaves the stack to the next of the round:
 * that spares both two switches.  Replies are sent from the loop's. */
static bool pass_on(struct fiber *fiber)
{
	struct fiber_loop *loop = fiber->loop;
	struct ss_request *next =
		loop->reply_count ? NULL : next_of_round(loop);
	if (!next)
		return false;
	end_turn(loop, NULL);
	begin_turn(loop);
	inhabit(fiber, next);
	return true;
}

static void live(void *arg)
{
	struct fiber *fiber = arg;
	struct fiber_loop *loop = fiber->loop;
	do
		step(loop, fiber->req);
	while (pass_on(fiber));
	loop->done = fiber;
	context_exit(&fiber->context, &loop->context);
}

static struct fiber *new_fiber(struct fiber_loop *loop)
{
	char *base = take_stack(loop);
	if (!base)
		return NULL;
	size_t room = stacks_size(loop->stacks) - sizeof(struct fiber);
	room &= ~(size_t)15;
	struct fiber *fiber = (struct fiber *)(base + room);
	*fiber = (struct fiber){ .loop = loop,
				 .base = base,
				 .deadline = SS_NONE };
	context_init(&fiber->context, base, room, live, fiber);
	return fiber;
}

/* Without memory for a stack it is served only to its forced end, of which
 * every call tells it at once. */
static bool start(struct fiber_loop *loop, struct ss_request *req)
{
	struct task *task = fiber_task(loop, req);
	struct fiber *fiber = new_fiber(loop);
	if (fiber) {
		inhabit(fiber, req);
		resume(loop, fiber);
		return true;
	}
	if (ss_request_ending(req) != -ECANCELED)
		return false;
	task->state = TASK_FIBER;
	task->fiber = NULL;
	step(loop, req);
	look_at_replies(loop);
	return true;
}

/* ---- a round --------------------------------------------------------------*/

/* Those that are ready now; who becomes so meanwhile waits for the next. */
static void run_ready(struct fiber_loop *loop)
{
	struct fiber *next = loop->ready.first;
	reset(&loop->ready);
	while (next) {
		struct fiber *fiber = next;
		next = fiber->next;
		if (next)
			__builtin_prefetch(next->context.sp);
		resume(loop, fiber);
	}
}

static void run_starting(struct fiber_loop *loop)
{
	struct ss_request *req, *last = loop->starting.last;
	loop->round = loop->starting.first;
	loop->starting = (struct request_queue){ NULL, NULL };
	loop->starved_until = 0;
	while ((req = next_of_round(loop))) {
		if (start(loop, req))
			continue;
		/* The rest waits for memory, before any newer one. */
		loop->round = NULL;
		fiber_task(loop, last)->next = loop->starting.first;
		if (!loop->starting.first)
			loop->starting.last = last;
		loop->starting.first = req;
		loop->starved_until = ss_now(loop->server) + STARVED_MS;
		return;
	}
}

static void ring(struct fiber_loop *loop, struct ss_request *req)
{
	struct task *task = fiber_task(loop, req);
	struct ss_source *source = ss_request_source(req);
	if (task->state == TASK_ASIDE) {
		start_again(loop, req, source);
		return;
	}
	if (task->state == TASK_FIBER && task->fiber)
		fiber_wake(task->fiber);
	/* Others that wait for this stream, of which no descriptor tells. */
	if (source && source->fd < 0)
		waiters_tell(source, POLLIN);
}

static void fire_timers(struct fiber_loop *loop)
{
	if (timers_next(&loop->timers) == SS_NONE)
		return;
	int64_t now = ss_now(loop->server);
	struct ss_request *req;
	while ((req = timers_due(&loop->timers, now))) {
		struct task *task = fiber_task(loop, req);
		const struct fiber *fiber =
			task->state == TASK_FIBER ? task->fiber : NULL;
		bool waits = fiber ? fiber->parked : task->state == TASK_ASIDE;
		int64_t deadline =
			fiber ? fiber->deadline : ss_request_deadline(req);
		if (!waits || deadline == SS_NONE)
			continue;
		if (deadline <= now)
			ring(loop, req);
		else /* there is room: one has just gone */
			timers_arm(&loop->timers, &task->timer, deadline, req);
	}
}

static void run_all(struct fiber_loop *loop)
{
	run_ready(loop);
	run_starting(loop);
	send_replies(loop);
}

/* On the program's own thread, which has other things to do too. */
static void run_watched(struct fiber_loop *loop)
{
	struct overflow_saved saved;
	if (!loop->ready.first && !loop->starting.first)
		return;
	overflow_arm(loop, &saved);
	run_all(loop);
	overflow_disarm(&saved);
}

/* ---- mail -----------------------------------------------------------------*/

/* Where the i-th of those that wait lies. */
static struct ss_request **mail_at(struct fiber_loop *loop, int i)
{
	return &loop->mail[(loop->mail_first + i) % loop->mail_room];
}

/* One more request: for each there is room, so that no wake-up is ever lost. */
static int make_room(struct fiber_loop *loop)
{
	/* The serving thread alone adds requests, and room for them. */
	if (atomic_load(&loop->load) < loop->mail_room)
		return 0;
	int room = loop->mail_room ? 2 * loop->mail_room : 64;
	struct ss_request **more =
		sys_malloc((size_t)room * sizeof(struct ss_request *));
	if (!more)
		return -ENOMEM;
	pthread_mutex_lock(&loop->lock);
	for (int i = 0; i < loop->mail_count; i++)
		more[i] = *mail_at(loop, i);
	sys_free(loop->mail);
	loop->mail = more;
	loop->mail_room = room;
	loop->mail_first = 0;
	pthread_mutex_unlock(&loop->lock);
	return 0;
}

/* With the lock held. */
static void append_mail(struct fiber_loop *loop, struct ss_request *req)
{
	*mail_at(loop, loop->mail_count++) = req;
}

static void ring_bell(struct fiber_loop *loop)
{
	if (atomic_exchange(&loop->has_mail, true))
		return;
	if (loop->own_thread)
		sys_ring(loop->wake[1]);
	else
		ss_turn_now(loop->server);
}

/* From the moment that it is known whose it is, others may post it, and it may
 * end. */
int fiber_loop_hand(struct fiber_loop *loop, struct ss_request *req)
{
	int r = make_room(loop);
	if (r < 0)
		return r;
	pthread_mutex_lock(&loop->lock);
	append_mail(loop, req);
	atomic_store(&fiber_task(loop, req)->mail, MAIL_POSTED);
	atomic_fetch_add(&loop->load, 1);
	atomic_store(&fiber_task(loop, req)->loop, (unsigned char)loop->number);
	pthread_mutex_unlock(&loop->lock);
	ring_bell(loop);
	return 0;
}

void fiber_loop_post(struct fiber_loop *loop, struct ss_request *req)
{
	struct task *task = fiber_task(loop, req);
	unsigned char none = MAIL_NONE;
	pthread_mutex_lock(&loop->lock);
	if (atomic_compare_exchange_strong(&task->mail, &none, MAIL_POSTED))
		append_mail(loop, req);
	pthread_mutex_unlock(&loop->lock);
	ring_bell(loop);
}

static struct ss_request *take_mail(struct fiber_loop *loop)
{
	struct ss_request *req = NULL;
	pthread_mutex_lock(&loop->lock);
	if (loop->mail_count) {
		req = *mail_at(loop, 0);
		loop->mail_first = (loop->mail_first + 1) % loop->mail_room;
		loop->mail_count--;
		atomic_store(&fiber_task(loop, req)->mail, MAIL_NONE);
	} else {
		atomic_store(&loop->has_mail, false);
	}
	pthread_mutex_unlock(&loop->lock);
	return req;
}

static struct job *take_finished(struct fiber_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	struct job *job = loop->finished;
	if (job)
		loop->finished = job->next;
	pthread_mutex_unlock(&loop->lock);
	return job;
}

void fiber_loop_finish(struct fiber_loop *loop, struct job *job)
{
	pthread_mutex_lock(&loop->lock);
	job->next = loop->finished;
	loop->finished = job;
	ring_bell(loop);
	pthread_mutex_unlock(&loop->lock);
}

static void read_mail(struct fiber_loop *loop)
{
	struct ss_request *req;
	if (!atomic_load(&loop->has_mail))
		return;
	struct job *job;
	while ((job = take_finished(loop))) {
		job->done = true;
		fiber_wake(job->owner);
	}
	while ((req = take_mail(loop))) {
		if (fiber_task(loop, req)->state == TASK_NEW)
			begin(loop, req);
		else
			ring(loop, req);
	}
}

/* Until when the next wait may last. */
static void limit_wait(struct fiber_loop *loop)
{
	bool busy = loop->ready.first ||
		    (loop->starting.first && !loop->starved_until);
	int64_t at = busy ? 0 : timers_next(&loop->timers);
	if (!busy && loop->starved_until &&
	    (at == SS_NONE || at > loop->starved_until))
		at = loop->starved_until;
	ss_poller_at(loop->poller, at);
}

/* Between two waits: what it arms is the next one's. */
int fiber_loop_take(struct fiber_loop *loop, struct ss_request *req)
{
	int r = make_room(loop);
	if (r < 0)
		return r;
	atomic_fetch_add(&loop->load, 1);
	atomic_store(&fiber_task(loop, req)->loop, (unsigned char)loop->number);
	begin(loop, req);
	limit_wait(loop);
	return 0;
}

/* Those behind it move up. */
static void take_out(struct fiber_loop *loop, const struct ss_request *req)
{
	pthread_mutex_lock(&loop->lock);
	int i = 0;
	while (i < loop->mail_count && *mail_at(loop, i) != req)
		i++;
	if (i < loop->mail_count)
		loop->mail_count--;
	for (; i < loop->mail_count; i++)
		*mail_at(loop, i) = *mail_at(loop, i + 1);
	pthread_mutex_unlock(&loop->lock);
}

void fiber_loop_leave(struct fiber_loop *loop, struct ss_request *req)
{
	struct task *task = fiber_task(loop, req);
	timers_drop(&loop->timers, &task->timer);
	if (atomic_exchange(&task->mail, MAIL_REFUSED) == MAIL_POSTED)
		take_out(loop, req);
	atomic_fetch_sub(&loop->load, 1);
}

/* ---- the poller's news ----------------------------------------------------*/

static void source_ready(void *arg, struct ss_source *source, short revents)
{
	struct fiber_loop *loop = arg;
	if (revents & (POLLHUP | POLLERR | POLLPRI | POLLRDHUP))
		source->flags |= SS_SOURCE_URGENT;
	struct ss_request *req = waiter_request(source);
	if (req)
		start_again(loop, req, source);
	else
		source->ready |= waiters_tell(source, revents);
}

static void waited(void *arg)
{
	struct fiber_loop *loop = arg;
	read_mail(loop);
	fire_timers(loop);
	ss_poller_at(loop->poller, SS_NONE);
	if (loop->alternate.ss_sp && !loop->own_thread)
		run_watched(loop);
	else
		run_all(loop);
	limit_wait(loop);
}

static const struct ss_poller_ops poller_ops = {
	.source_ready = source_ready,
	.waited = waited,
};

/* ---- life -----------------------------------------------------------------*/

static void woken(struct ss_server *server, struct ss_watch *watch)
{
	(void)server;
	char bytes[64];
	while (sys_read(watch->fd, bytes, sizeof(bytes)) ==
	       (ssize_t)sizeof(bytes))
		;
}

static int init_own_poller(struct fiber_loop *loop)
{
	int r = ss_poller_new(loop->server, &loop->poller);
	if (r < 0)
		return r;
	if (sys_pipe(loop->wake) == -1) {
		loop->wake[0] = loop->wake[1] = -1;
		return -errno;
	}
	loop->wake_watch = (struct ss_watch){ .fd = loop->wake[0],
					      .events = POLLIN,
					      .ready = woken };
	return ss_poller_watch(loop->poller, &loop->wake_watch);
}

int fiber_loop_init(struct fiber_loop *loop, int number,
		    struct ss_server *server, struct ss_poller *poller,
		    const struct ss_fiber_options *options)
{
	loop->number = number;
	loop->task_offset = ss_request_layer_offset(server, &ss_fiber_mixin);
	loop->server = server;
	loop->poller = poller;
	loop->own_thread = !poller;
	loop->wake[0] = loop->wake[1] = -1;
	reset(&loop->ready);
	int r = -sys_pthread_mutex_init(&loop->lock, NULL);
	if (r == 0)
		r = stacks_new(&loop->stacks, options->stack_size);
	if (r == 0 && options->report_overflow)
		r = overflow_stack_new(&loop->alternate);
	if (r == 0 && loop->own_thread)
		r = init_own_poller(loop);
	if (r == 0)
		ss_poller_attend(loop->poller, &poller_ops, loop);
	return r;
}

void fiber_loop_fini(struct fiber_loop *loop)
{
	if (loop->own_thread)
		ss_poller_free(loop->poller);
	else
		ss_poller_attend(loop->poller, NULL, NULL);
	for (int i = 0; i < 2; i++)
		if (loop->wake[i] >= 0)
			sys_close(loop->wake[i]);
	stacks_free(loop->stacks);
	overflow_stack_free(&loop->alternate);
	timers_free(&loop->timers);
	sys_free(loop->mail);
	pthread_mutex_destroy(&loop->lock);
}

void fiber_loop_run(struct fiber_loop *loop)
{
	struct overflow_saved saved;
	if (loop->alternate.ss_sp)
		overflow_arm(loop, &saved);
	while (!atomic_load(&loop->stopping))
		ss_poller_wait(loop->poller, SS_NONE);
	if (loop->alternate.ss_sp)
		overflow_disarm(&saved);
}

void fiber_loop_stop(struct fiber_loop *loop)
{
	atomic_store(&loop->stopping, true);
	sys_ring(loop->wake[1]);
}
