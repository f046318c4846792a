/*
 * Stopping: asking for it from anywhere, and how far it has come, seen alike
 * by the serving thread, other threads and forked children.
 *
 * The state lies in a page shared with the children.  Three pipes wake who
 * sleeps: `wake` the loop (private to it), `stop` from STOP_CLOSING on those
 * that are idle, `now` from STOP_HALF on everybody else.  Each of the latter
 * is written once, and nobody waits for one that has told its news.  Children
 * keep the read ends: their end of file says that the parent is gone.
 */
#include "internal.h"

enum {
	GRACE_MS = 250,	  /* from half-closing to force */
	ORPHAN_MS = 1000, /* the same, for a child that enforces it itself */
};

size_t page_size(int slots)
{
	return sizeof(struct page) + (size_t)slots * sizeof(struct slot);
}

int stop_init(struct ss_server *server)
{
	server->page = ss_shared_alloc(page_size(1));
	if (!server->page)
		return -ENOMEM;
	server->page->slots = 1;
	server->slot = &server->page->slot[0];
	atomic_init(&server->page->next_id,
		    ((unsigned long long)server->number << 40) + 1);
	atomic_init(&server->page->log_level, server->config.log_level);
	return stop_pipes(server);
}

int stop_pipes(struct ss_server *server)
{
	if (sys_pipe(server->stop_pipe) == -1 ||
	    sys_pipe(server->now_pipe) == -1 ||
	    sys_pipe(server->wake_pipe) == -1)
		return -errno;
	return 0;
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		sys_close(*fd);
	*fd = -1;
}

void stop_fini(struct ss_server *server)
{
	for (int i = 0; i < 2; i++) {
		close_end(&server->stop_pipe[i]);
		close_end(&server->now_pipe[i]);
		close_end(&server->wake_pipe[i]);
	}
	if (server->page)
		ss_shared_free(server->page, page_size(server->page->slots));
}

void stop_after_fork(struct ss_server *server, bool own,
		     struct leaving *leaving)
{
	leave_end(leaving, &server->stop_pipe[1]);
	leave_end(leaving, &server->now_pipe[1]);
	leave_end(leaving, &server->wake_pipe[0]);
	leave_end(leaving, &server->wake_pipe[1]);
	if (!own) {
		leave_end(leaving, &server->stop_pipe[0]);
		leave_end(leaving, &server->now_pipe[0]);
	}
}

/* A full pipe has told its news already. */
void stop_tell(int fd)
{
	if (fd >= 0)
		sys_ring(fd);
}

void stop_wake(struct ss_server *server)
{
	stop_tell(server->wake_pipe[1]);
}

void stop_drain_wake(struct ss_server *server)
{
	char bytes[64];
	while (sys_read(server->wake_pipe[0], bytes, sizeof(bytes)) ==
	       (ssize_t)sizeof(bytes))
		;
}

/* Async-signal-safe: one lock-free atomic and one write(2). */
void ss_shutdown(struct ss_server *server)
{
	if (server->child || server->worker)
		return;
	atomic_fetch_add(&server->slot->shutdowns, 1);
	stop_wake(server);
}

bool stop_asked(const struct ss_server *server)
{
	if (server->worker)
		return worker_order(server) >= SS_ORDER_RETIRE;
	return atomic_load(&server->slot->shutdowns) > 0;
}

/* Whether somebody has asked again, while it was ending. */
bool stop_hurried(const struct ss_server *server)
{
	if (server->worker)
		return worker_order(server) >= SS_ORDER_NOW;
	bool open = atomic_load(&server->slot->phase) == STOP_OPEN;
	return atomic_load(&server->slot->shutdowns) >
	       (open ? 1 : server->hurry_above);
}

/* Who asks again from then on, or has already, is in a hurry. */
void stop_take(struct ss_server *server)
{
	unsigned asked = atomic_load(&server->slot->shutdowns);
	while (asked && !atomic_compare_exchange_weak(&server->slot->shutdowns,
						      &asked, asked - 1))
		;
	if (asked)
		server->hurried = true;
}

int ss_shutdown_wait(struct ss_server *server, int64_t deadline)
{
	if (server->child || server->worker)
		return -EDEADLK;
	pthread_mutex_lock(&server->lock);
	int r = 0;
	if ((server->owned && pthread_equal(server->owner, pthread_self())) ||
	    request_runs_here(server))
		r = -EDEADLK;
	else
		ss_shutdown(server);
	struct timespec at = {
		.tv_sec = (time_t)(deadline / 1000),
		.tv_nsec = (long)(deadline % 1000) * 1000000,
	};
	while (!r && server->owned) {
		int error = 0;
		if (deadline == SS_NONE)
			pthread_cond_wait(&server->changed, &server->lock);
		else
			error = pthread_cond_timedwait(&server->changed,
						       &server->lock, &at);
		if (error == ETIMEDOUT && server->owned)
			r = -ETIMEDOUT;
	}
	pthread_mutex_unlock(&server->lock);
	return r;
}

void stop_advance(struct ss_server *server, enum stop_phase phase)
{
	if (atomic_load(&server->slot->phase) >= (int)phase)
		return;
	atomic_store(&server->slot->phase, (int)phase);
	if (phase >= STOP_CLOSING)
		stop_tell(server->stop_pipe[1]);
	if (phase >= STOP_HALF)
		stop_tell(server->now_pipe[1]);
}

/* A worker's is its supervisor's, as long as there is one. */
int64_t stop_drain_deadline(struct ss_server *server)
{
	if (server->worker && !atomic_load(&server->orphaned_at))
		return worker_order(server) >= SS_ORDER_CLOSE
			       ? atomic_load(&server->page->drain_at)
			       : SS_NONE;
	if (!server->drain_at) {
		int ms = server->config.drain_ms;
		server->drain_at = ms == SS_NONE ? SS_NONE : now(server) + ms;
	}
	return server->drain_at;
}

/*
 * The serving thread runs a handler itself: nobody else can enforce the
 * deadline, so it looks at the clock.
 */
static struct stop_view look_on_loop(struct ss_server *server)
{
	struct stop_view view = { .pipe = server->worker ? server->order_fd
							 : server->wake_pipe[0],
				  .until = SS_NONE };
	int phase = atomic_load(&server->slot->phase);
	if (phase == STOP_OPEN &&
	    (!stop_asked(server) || worker_order(server) == SS_ORDER_RETIRE))
		return view;
	if (phase == STOP_FORCED || stop_hurried(server)) {
		server->hurried = true;
		view.phase = STOP_FORCED;
		return view;
	}
	view.phase = STOP_CLOSING;
	view.until = stop_drain_deadline(server);
	if (view.until == SS_NONE || now(server) < view.until)
		return view;
	view.until += GRACE_MS;
	view.phase = now(server) < view.until ? STOP_HALF : STOP_FORCED;
	return view;
}

/* A child whose parent is gone, or slow to kill it, ends by itself. */
static struct stop_view look_as_child(struct ss_server *server, int phase)
{
	int64_t since = atomic_load(&server->orphaned_at);
	if (!since) {
		since = now(server);
		atomic_store(&server->orphaned_at, since);
	}
	struct stop_view view = { .pipe = -1, .until = since + ORPHAN_MS };
	view.phase = now(server) < view.until ? STOP_HALF : STOP_FORCED;
	if (phase == STOP_FORCED)
		view.phase = STOP_FORCED;
	return view;
}

struct stop_view stop_look(struct ss_server *server,
			   const struct ss_request *req)
{
	if (req && req->on_loop)
		return look_on_loop(server);
	int phase = atomic_load(&server->slot->phase);
	if (server->child &&
	    (phase >= STOP_HALF || atomic_load(&server->orphaned_at)))
		return look_as_child(server, phase);
	struct stop_view view = { .phase = (enum stop_phase)phase,
				  .pipe = server->now_pipe[0],
				  .until = SS_NONE };
	if (phase >= STOP_HALF)
		view.pipe = -1;
	else if (phase == STOP_OPEN && req && atomic_load(&req->idle))
		view.pipe = server->stop_pipe[0];
	return view;
}

int stop_ending(const struct ss_request *req, const struct stop_view *view)
{
	int cancel = req ? atomic_load(&req->cancel) : CANCEL_NONE;
	if (view->phase == STOP_FORCED || cancel == CANCEL_FORCED)
		return -ECANCELED;
	bool idle = req && atomic_load(&req->idle);
	if (view->phase == STOP_HALF || cancel == CANCEL_HALF ||
	    (view->phase == STOP_CLOSING && idle))
		return -ESHUTDOWN;
	return 0;
}

int ss_request_ending(const struct ss_request *req)
{
	const struct ss_server *server = req->server;
	if (!req->on_loop && !server->child &&
	    atomic_load(&req->cancel) == CANCEL_NONE &&
	    atomic_load(&server->slot->phase) == STOP_OPEN)
		return 0;
	struct stop_view view = stop_look(req->server, req);
	return stop_ending(req, &view);
}

void stop_told(struct ss_server *server, const struct ss_request *req,
	       short revents)
{
	if (req && req->on_loop) {
		if (server->worker)
			worker_hear(server);
		else
			stop_drain_wake(server);
		atomic_store(&server->turn_wanted, true);
	} else if (server->child && (revents & (POLLHUP | POLLERR))) {
		atomic_store(&server->orphaned_at, now(server));
	}
}

bool ss_stopping(const struct ss_request *req)
{
	const struct ss_server *server = req->server;
	return atomic_load_explicit(&server->slot->shutdowns,
				    memory_order_relaxed) > 0 ||
	       atomic_load_explicit(&server->slot->phase,
				    memory_order_relaxed) > STOP_OPEN ||
	       atomic_load_explicit(&server->orphaned_at,
				    memory_order_relaxed) > 0 ||
	       worker_order(server) >= SS_ORDER_RETIRE;
}

/* ---- shared memory --------------------------------------------------------*/

void *ss_shared_alloc(size_t size)
{
	void *memory = sys_mmap(NULL, size, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

void ss_shared_free(void *memory, size_t size)
{
	if (memory)
		sys_munmap(memory, size);
}
