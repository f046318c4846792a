/*
 * Workers: processes that are the server once more, over the same listeners.
 *
 * What a worker is to do stands in its slot of the shared page, and a byte in
 * its pipe tells it to look; the end of that pipe says that its supervisor is
 * gone.  The kernel wakes one idle worker for each client.  That one may die,
 * leave, or have no descriptor left before it has accepted: then all are told
 * to look, since nobody else will wake them for that client.
 */
#include "internal.h"

enum {
	BATCH = 4,   /* clients a turn: more would be taken from idle workers */
	RETRY_MS = 1 /* another worker is in accept(2) */
};

static void close_end(int *fd)
{
	if (*fd >= 0)
		sys_close(*fd);
	*fd = -1;
}

bool supervising(const struct ss_server *server)
{
	return server->order_pipes && !server->worker && !server->child;
}

int worker_order(const struct ss_server *server)
{
	return server->worker ? atomic_load(&server->slot->order)
			      : SS_ORDER_SERVE;
}

int ss_workers(const struct ss_server *server)
{
	return server->page->slots - 1;
}

int ss_worker(const struct ss_server *server)
{
	return server->worker;
}

pid_t ss_server_pid(struct ss_server *server)
{
	if (!server->pid)
		server->pid = sys_getpid();
	return server->pid;
}

/* ---- the supervisor's side ------------------------------------------------*/

int ss_set_workers(struct ss_server *server, int n)
{
	struct page *old = server->page;
	struct page *page = ss_shared_alloc(page_size(n + 1));
	int *pipes = sys_calloc((size_t)n + 1, sizeof(*pipes));
	if (!page || !pipes) {
		ss_shared_free(page, page_size(n + 1));
		sys_free(pipes);
		return -ENOMEM;
	}
	for (int i = 0; i <= n; i++)
		pipes[i] = -1;
	page->slots = n + 1;
	atomic_init(&page->next_id, atomic_load(&old->next_id));
	atomic_init(&page->log_level, atomic_load(&old->log_level));
	atomic_init(&page->log_tally.untold,
		    atomic_load(&old->log_tally.untold));
	server->page = page;
	server->slot = &page->slot[0];
	server->order_pipes = pipes;
	atomic_fetch_or(&server->holds, SS_HOLD_WORKERS);
	ss_shared_free(old, page_size(old->slots));
	return 0;
}

static void find_top(struct page *page)
{
	int top = page->slots - 1;
	while (top > 0 && !atomic_load(&page->slot[top].live))
		top--;
	atomic_store(&page->top, top);
}

int worker_prepare(struct ss_server *server, int slot, int order[2])
{
	struct slot *s = &server->page->slot[slot];
	assert(slot > 0 && slot < server->page->slots);
	assert(server->order_pipes[slot] < 0);
	if (sys_pipe(order) == -1)
		return -errno;
	atomic_store(&s->phase, STOP_OPEN);
	atomic_store(&s->order, SS_ORDER_SERVE);
	atomic_store(&s->errands, atomic_load(&server->page->errands));
	atomic_store(&s->live, true);
	find_top(server->page);
	return 0;
}

/* In the supervisor. */
void worker_forked(struct ss_server *server, int slot, int order[2], pid_t pid)
{
	close_end(&order[0]);
	server->order_pipes[slot] = order[1];
	if (pid < 0)
		ss_worker_ended(server, slot);
}

void ss_worker_ended(struct ss_server *server, int slot)
{
	struct slot *s = &server->page->slot[slot];
	close_end(&server->order_pipes[slot]);
	atomic_store(&s->live, false);
	atomic_store(&s->active, 0);
	atomic_store(&s->queued, 0);
	atomic_store(&s->ended, atomic_load(&s->accepted));
	find_top(server->page);
	int gone = slot;
	atomic_compare_exchange_strong(&server->page->accepting, &gone, 0);
	atomic_store(&server->page->news, true);
	self(server)->worker_ended(server, slot);
}

/* All of them are told before the first one is woken. */
static void give(struct ss_server *server, int slot, enum ss_order order)
{
	struct slot *s = &server->page->slot[slot];
	if (server->order_pipes[slot] >= 0 &&
	    atomic_load(&s->order) < (int)order)
		atomic_store(&s->order, (int)order);
}

/* That of a slot, or all.  One may have died. */
static void wake_workers(struct ss_server *server, int slot)
{
	struct sys_sigpipe saved;
	sys_sigpipe_block(&saved);
	for (int i = 1; i < server->page->slots; i++)
		if ((!slot || i == slot) && server->order_pipes[i] >= 0)
			stop_tell(server->order_pipes[i]);
	sys_sigpipe_restore(&saved);
}

void ss_order_workers(struct ss_server *server, int slot, enum ss_order order)
{
	if (order >= SS_ORDER_CLOSE)
		atomic_store(&server->page->drain_at,
			     stop_drain_deadline(server));
	for (int i = 1; i < server->page->slots; i++)
		if (!slot || i == slot)
			give(server, i, order);
	wake_workers(server, slot);
}

void workers_news(struct ss_server *server)
{
	if (supervising(server) && atomic_exchange(&server->page->news, false))
		wake_workers(server, 0);
}

void workers_look(struct ss_server *server)
{
	if (supervising(server))
		atomic_store(&server->page->news, true);
	ss_turn_now(server);
}

/* Whether a worker has yet to say of that errand. */
static bool awaited(const struct page *page, unsigned long long errand)
{
	for (int i = 1; i < page->slots; i++)
		if (atomic_load(&page->slot[i].live) &&
		    atomic_load(&page->slot[i].errands) <= errand)
			return true;
	return false;
}

static int give_errand(struct ss_server *server, uint64_t id)
{
	struct page *page = server->page;
	unsigned long long n = atomic_load(&page->errands);
	struct errand *errand = &page->errand[n % ERRANDS];
	if (n >= ERRANDS && awaited(page, n - ERRANDS))
		return -EBUSY;
	atomic_store(&errand->done, false);
	atomic_store(&errand->id, id);
	atomic_store(&page->errands, n + 1);
	workers_look(server);
	return -EINPROGRESS;
}

int workers_cancel(struct ss_server *server, uint64_t id)
{
	struct page *page = server->page;
	unsigned long long n = atomic_load(&page->errands);
	unsigned long long first = n > ERRANDS ? n - ERRANDS : 0;
	while (n > first &&
	       atomic_load(&page->errand[(n - 1) % ERRANDS].id) != id)
		n--;
	if (!id || n == first)
		return id ? give_errand(server, id) : -ENOENT;
	struct errand *errand = &page->errand[(n - 1) % ERRANDS];
	/* In this order: who has done it says so first. */
	bool open = awaited(page, n - 1), done = atomic_load(&errand->done);
	if (open && !done)
		return -EINPROGRESS;
	atomic_store(&errand->id, 0);
	return done ? 0 : -ENOENT;
}

void workers_close(struct ss_server *server)
{
	for (int i = 0; server->order_pipes && i < server->page->slots; i++)
		close_end(&server->order_pipes[i]);
	close_end(&server->order_fd);
	close_end(&server->boss_fd);
}

/* ---- becoming one ---------------------------------------------------------*/

static void order_came(struct ss_server *server, struct ss_watch *watch)
{
	(void)watch;
	worker_hear(server);
}

/* What the supervisor was about is not the worker's. */
static void begin_anew(struct ss_server *server, int slot)
{
	server->worker = slot;
	server->slot = &server->page->slot[slot];
	server->owned = true;
	server->owned_depth = 1;
	server->owner = pthread_self();
	server->turning = false;
	server->run = NULL;
	server->pid = 0;
	server->hurried = false;
	server->drain_at = 0;
	server->hurry_above = 0;
	server->turn_at = SS_NONE;
	atomic_store(&server->turn_wanted, false);
	atomic_store(&server->holds, 0);
	if (server->batch > BATCH)
		server->batch = BATCH;
	for (int i = 0; i < server->listener_count; i++) {
		server->listeners[i]->watched = false;
		server->listeners[i]->watch.place = 0;
		atomic_store(&server->listeners[i]->ready, false);
	}
}

/* A loop of its own, with whom a model has it attend. */
static int renew_loop(struct ss_server *server)
{
	const struct ss_poller_ops *ops = server->poller.ops;
	void *arg = server->poller.arg;
	int r = loop_init(server);
	ss_poller_attend(&server->poller, ops, arg);
	return r;
}

int worker_become(struct ss_server *server, int slot, const int order[2])
{
	struct leaving leaving = { .count = 0 };
	begin_anew(server, slot);
	workers_close(server);
	sys_close(order[1]);
	server->order_fd = order[0];
	server->boss_fd = server->wake_pipe[1];
	server->wake_pipe[1] = -1;
	loop_after_fork(server, &leaving);
	stop_after_fork(server, false, &leaving);
	leave_all(&leaving);
	poller_fini(&server->poller);
	int r = stop_pipes(server);
	if (r >= 0)
		r = renew_loop(server);
	server->order_watch = (struct ss_watch){
		.fd = order[0],
		.events = POLLIN,
		.ready = order_came,
	};
	return r < 0 ? r : ss_watch_add(server, &server->order_watch);
}

/* ---- being one ------------------------------------------------------------*/

/* Whoever restarts the server wants its place, at once: what is queued is lost,
 * as it is where no model has workers. */
static void orphaned(struct ss_server *server)
{
	ss_watch_remove(server, &server->order_watch);
	close_end(&server->order_fd);
	atomic_store(&server->orphaned_at, now(server));
	if (worker_order(server) < SS_ORDER_CLOSE)
		atomic_store(&server->slot->order, SS_ORDER_CLOSE);
	listeners_close(server, false);
}

static void run_errands(struct ss_server *server)
{
	struct page *page = server->page;
	atomic_ullong *mine = &server->slot->errands;
	unsigned long long n = atomic_load(mine);
	for (; n < atomic_load(&page->errands); n++) {
		struct errand *errand = &page->errand[n % ERRANDS];
		uint64_t id = atomic_load(&errand->id);
		if (id && ss_cancel(server, id) == 0)
			atomic_store(&errand->done, true);
		atomic_store(mine, n + 1);
	}
}

/* On the serving thread: orders stand in the slot already. */
void worker_hear(struct ss_server *server)
{
	char bytes[64];
	ssize_t n;
	do
		n = sys_read(server->order_fd, bytes, sizeof(bytes));
	while (n == (ssize_t)sizeof(bytes));
	if (n == 0)
		orphaned(server);
	gate_changed(server);
	run_errands(server);
	for (int i = 0; i < server->listener_count; i++)
		atomic_store(&server->listeners[i]->ready, true);
}

void ss_turn_supervisor(struct ss_server *server)
{
	stop_tell(server->boss_fd);
}

/* The client for whom this worker was woken is another one's now. */
void worker_pass_on(struct ss_server *server)
{
	if (!server->worker)
		return;
	atomic_store(&server->page->news, true);
	ss_turn_supervisor(server);
}

static bool above_mean(const struct ss_server *server)
{
	const struct page *page = server->page;
	unsigned long long sum = 0, n = 0;
	int top = atomic_load(&page->top);
	for (int i = 1; i <= top; i++) {
		const struct slot *s = &page->slot[i];
		if (!atomic_load(&s->live) ||
		    atomic_load(&s->order) != SS_ORDER_SERVE)
			continue;
		sum += atomic_load_explicit(&s->active, memory_order_relaxed);
		n++;
	}
	return atomic_load(&server->slot->active) * n > sum;
}

/*
 * Of the idle workers the kernel wakes the one that has waited longest, and to
 * wait is to be registered: so the first one would get every client who comes
 * alone, and keep those that stay.  Who has more than its share goes to the end
 * of the queue.
 */
void worker_make_way(struct ss_server *server)
{
	if (!server->worker || !(server->flags & SS_LAYER_DISPATCHES) ||
	    !above_mean(server))
		return;
	for (int i = 0; i < server->listener_count; i++)
		listener_unwatch(server, server->listeners[i]);
}

/*
 * An adopted listener may block in accept(2), and its flags are not ours to
 * change: then only one worker at a time may find a client there.
 */
static bool one_at_a_time(const struct ss_server *server,
			  const struct ss_listener *listener)
{
	return server->worker && (listener->flags & SS_LISTENER_ADOPTED) &&
	       !(listener->flags & SS_LISTENER_DGRAM);
}

bool worker_may_accept(struct ss_server *server,
		       const struct ss_listener *listener)
{
	int none = 0;
	if (!one_at_a_time(server, listener) ||
	    atomic_compare_exchange_strong(&server->page->accepting, &none,
					   server->worker))
		return true;
	atomic_store(&((struct ss_listener *)listener)->ready, true);
	ss_turn_at(server, now(server) + RETRY_MS);
	return false;
}

void worker_accepted(struct ss_server *server,
		     const struct ss_listener *listener)
{
	if (one_at_a_time(server, listener))
		atomic_store(&server->page->accepting, 0);
}

/*
 * The queue was taken.  A worker that is busy holds the listener open, and who
 * connected now would wait for it in vain: so it ends for all of them at once.
 */
void worker_stop_listening(struct ss_server *server,
			   const struct ss_listener *listener)
{
	const unsigned shared = SS_LISTENER_DGRAM | SS_LISTENER_ADOPTED;
	if (worker_order(server) >= SS_ORDER_CLOSE &&
	    !atomic_load(&server->page->handed) &&
	    !(listener->flags & shared) && listener->watch.fd >= 0)
		sys_shutdown(listener->watch.fd, SHUT_RD);
}
