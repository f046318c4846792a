/*
 * Threading: a thread per request.
 *
 * Threads that end their request wait a while for the next one, since making
 * one costs more than serving a short request.  Each that exits joins the one
 * that exited before it, so that at most one is ever left to be joined, and
 * server_close joins that.
 */
#include <errno.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../sys.h"
#include "../thread.h"

enum { MAX_IDLE = 64, IDLE_MS = 1000, ACCEPT_BATCH = 64 };

struct worker {
	struct threading *pool;
	struct ss_request *req; /* what it is to serve; pool->lock */
	pthread_t thread;
	pthread_cond_t wanted;
	struct worker *next_idle;
};

struct threading {
	struct ss_threading_options options;
	pthread_mutex_t lock;
	pthread_cond_t ended; /* a worker has left */
	struct worker *idle;
	int idle_count;
	int workers; /* not exited */
	bool closing;
	bool has_exited;
	pthread_t exited; /* the last that did, not joined */
};

static struct threading *pool_of(struct ss_server *server)
{
	return ss_layer_state(server, &ss_threading_mixin);
}

/* ---- a worker's life ------------------------------------------------------*/

/* Out of the idle list; it may have been given a request meanwhile. */
static void unlist(struct threading *pool, struct worker *worker)
{
	struct worker **at = &pool->idle;
	while (*at && *at != worker)
		at = &(*at)->next_idle;
	if (*at) {
		*at = worker->next_idle;
		pool->idle_count--;
	}
}

/* Waits for the next request, with the lock held; NULL: time to leave. */
static struct ss_request *next_request(struct threading *pool,
				       struct worker *worker)
{
	if (pool->closing || pool->idle_count >= pool->options.max_idle)
		return NULL;
	worker->next_idle = pool->idle;
	pool->idle = worker;
	pool->idle_count++;
	int64_t until = sys_now_ms() + pool->options.idle_ms;
	struct timespec at = { .tv_sec = (time_t)(until / 1000),
			       .tv_nsec = (long)(until % 1000) * 1000000 };
	int error = 0;
	while (!worker->req && !pool->closing && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&worker->wanted, &pool->lock,
					       &at);
	if (!worker->req)
		unlist(pool, worker);
	return worker->req;
}

static void leave(struct threading *pool, struct worker *worker)
{
	pthread_t before = pool->exited;
	bool join = pool->has_exited;
	pool->exited = worker->thread;
	pool->has_exited = true;
	pool->workers--;
	pthread_cond_signal(&pool->ended);
	pthread_mutex_unlock(&pool->lock);
	if (join)
		sys_pthread_join(before, NULL);
	pthread_cond_destroy(&worker->wanted);
	sys_free(worker);
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct threading *pool = worker->pool;
	pthread_mutex_lock(&pool->lock);
	do {
		struct ss_request *req = worker->req;
		worker->req = NULL;
		pthread_mutex_unlock(&pool->lock);
		ss_request_run(req);
		pthread_mutex_lock(&pool->lock);
	} while (next_request(pool, worker));
	leave(pool, worker);
	return NULL;
}

/* ---- handing requests to them ---------------------------------------------*/

static bool give_to_idle(struct threading *pool, struct ss_request *req)
{
	pthread_mutex_lock(&pool->lock);
	struct worker *worker = pool->idle;
	if (worker) {
		pool->idle = worker->next_idle;
		pool->idle_count--;
		worker->req = req;
		pthread_cond_signal(&worker->wanted);
	}
	pthread_mutex_unlock(&pool->lock);
	return worker != NULL;
}

static int give_to_new(struct threading *pool, struct ss_request *req)
{
	struct worker *worker = sys_calloc(1, sizeof(*worker));
	if (!worker)
		return -ENOMEM;
	worker->pool = pool;
	worker->req = req;
	int r = thread_cond_init(&worker->wanted);
	if (r < 0)
		goto no_cond;
	/* Its first act is to take the lock: by then all this is in place. */
	pthread_mutex_lock(&pool->lock);
	r = thread_create(&worker->thread, pool->options.stack_size, work,
			  worker);
	if (r == 0)
		pool->workers++;
	pthread_mutex_unlock(&pool->lock);
	if (r == 0)
		return 0; /* NOLINT: the thread owns the worker, and frees it */
	pthread_cond_destroy(&worker->wanted);
no_cond:
	sys_free(worker);
	return r;
}

static int thr_process_request(struct ss_server *server, struct ss_request *req)
{
	struct threading *pool = pool_of(server);
	return give_to_idle(pool, req) ? 0 : give_to_new(pool, req);
}

/* ---- the server's life ----------------------------------------------------*/

static int thr_init(struct ss_server *server, const void *options)
{
	struct threading *pool = pool_of(server);
	if (options)
		pool->options = *(const struct ss_threading_options *)options;
	if (!pool->options.max_idle)
		pool->options.max_idle = MAX_IDLE;
	if (!pool->options.idle_ms)
		pool->options.idle_ms = IDLE_MS;
	int r = thread_cond_init(&pool->ended);
	if (r < 0)
		return r;
	r = -sys_pthread_mutex_init(&pool->lock, NULL);
	if (r < 0)
		pthread_cond_destroy(&pool->ended);
	ss_set_accept_batch(server, ACCEPT_BATCH);
	return r;
}

/* All threads but `busy` abandoned ones leave, and are joined. */
static void join_all(struct threading *pool, int busy)
{
	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	for (struct worker *w = pool->idle; w; w = w->next_idle)
		pthread_cond_signal(&w->wanted);
	while (pool->workers > busy)
		pthread_cond_wait(&pool->ended, &pool->lock);
	bool join = pool->has_exited;
	pthread_t last = pool->exited;
	pool->has_exited = false;
	pthread_mutex_unlock(&pool->lock);
	if (join)
		sys_pthread_join(last, NULL);
}

static int thr_server_close(struct ss_server *server)
{
	int abandoned =
		ss_super(server, &ss_threading_mixin)->server_close(server);
	join_all(pool_of(server), abandoned);
	return abandoned;
}

/* Those that were abandoned and came back are on their way out. */
static void thr_fini(struct ss_server *server)
{
	struct threading *pool = pool_of(server);
	join_all(pool, 0);
	pthread_mutex_destroy(&pool->lock);
	pthread_cond_destroy(&pool->ended);
}

const struct ss_layer ss_threading_mixin = {
	.name = "threading",
	.flags = SS_LAYER_DISPATCHES | SS_LAYER_THREADS,
	.server_size = sizeof(struct threading),
	.init = thr_init,
	.fini = thr_fini,
	.ops = {
		.process_request = thr_process_request,
		.server_close = thr_server_close,
	},
};
