/*
 * Pool: so many threads, from server_activate to server_close.
 *
 * Who has nothing to do sleeps.  process_request gives a request to the thread
 * that fell asleep last, or, when all are awake, appends it to a list, from
 * which a thread that ends a request takes its next one without a system call.
 * The list has as much as the accept gate lets in (ss_set_max_active): beyond
 * it the server's own policy holds.
 *
 * A request that is cancelled while it waits in the list is not served, but
 * turned away: by the serving thread, since all threads here may be busy.
 *
 * The server's lock comes before the pool's (cancel_request).
 */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../sys.h"
#include "../thread.h"

/*
 * A thread waits for its client more than it computes; a few silent clients
 * are not to stop a server on a small machine.
 */
enum { THREADS_EACH = 4, THREADS_MIN = 8 };

enum { ACCEPT_BATCH = 64 };

/* A request's, under the pool's lock. */
struct place {
	struct ss_request *next; /* in the list */
	bool listed, cancelled;
};

struct worker {
	struct pool *pool;
	struct ss_request *req; /* given while it slept */
	pthread_t thread;
	pthread_cond_t wanted;
	struct worker *next; /* asleep */
	bool left;	     /* to be joined */
};

struct pool {
	struct ss_pool_options options;
	struct worker *workers; /* options.threads of them */
	atomic_int cancelled;	/* in the list; under lock, but for a look */
	pthread_mutex_t lock;
	pthread_cond_t ended; /* a worker has left */
	struct ss_request *first, **last;
	struct worker *asleep;
	int running; /* workers that have not left */
	bool closing;
};

static struct pool *pool_of(const struct ss_server *server)
{
	return ss_layer_state(server, &ss_pool_mixin);
}

static struct place *place_of(const struct ss_request *req)
{
	return ss_request_layer_state(req, &ss_pool_mixin);
}

/* ---- the list -------------------------------------------------------------*/

/* All with the lock held. */
static void append(struct pool *pool, struct ss_request *req)
{
	place_of(req)->listed = true;
	*pool->last = req;
	pool->last = &place_of(req)->next;
}

static struct ss_request *unlink_at(struct pool *pool, struct ss_request **at)
{
	struct ss_request *req = *at;
	struct place *place = place_of(req);
	*at = place->next;
	if (!*at)
		pool->last = at;
	place->listed = false;
	if (place->cancelled)
		atomic_fetch_sub(&pool->cancelled, 1);
	return req;
}

static struct ss_request *take_first(struct pool *pool)
{
	return pool->first ? unlink_at(pool, &pool->first) : NULL;
}

static struct ss_request *take_cancelled(struct pool *pool)
{
	struct ss_request **at = &pool->first;
	pthread_mutex_lock(&pool->lock);
	while (*at && !place_of(*at)->cancelled)
		at = &place_of(*at)->next;
	struct ss_request *req = *at ? unlink_at(pool, at) : NULL;
	pthread_mutex_unlock(&pool->lock);
	return req;
}

/* ---- a worker's life ------------------------------------------------------*/

/* With the lock held; NULL: time to leave. */
static struct ss_request *next_request(struct pool *pool, struct worker *worker)
{
	struct ss_request *req = take_first(pool);
	if (req || pool->closing)
		return req;
	worker->req = NULL;
	worker->next = pool->asleep;
	pool->asleep = worker;
	while (!worker->req && !pool->closing)
		pthread_cond_wait(&worker->wanted, &pool->lock);
	return worker->req;
}

static void serve(struct ss_request *req)
{
	if (place_of(req)->cancelled)
		ss_request_refuse(req, -ECANCELED);
	else
		ss_request_run(req);
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct pool *pool = worker->pool;
	struct ss_request *req;
	pthread_mutex_lock(&pool->lock);
	while ((req = next_request(pool, worker))) {
		pthread_mutex_unlock(&pool->lock);
		serve(req);
		pthread_mutex_lock(&pool->lock);
	}
	pool->running--;
	worker->left = true;
	pthread_cond_signal(&pool->ended);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static int start_worker(struct pool *pool, struct worker *worker)
{
	int r = thread_cond_init(&worker->wanted);
	if (r < 0)
		return r;
	worker->pool = pool;
	worker->left = false;
	pthread_mutex_lock(&pool->lock);
	r = thread_create(&worker->thread, pool->options.stack_size, work,
			  worker);
	if (r == 0)
		pool->running++;
	pthread_mutex_unlock(&pool->lock);
	if (r < 0)
		pthread_cond_destroy(&worker->wanted);
	return r;
}

static void join(struct pool *pool, struct worker *worker)
{
	pthread_mutex_lock(&pool->lock);
	bool left = worker->left;
	worker->left = false;
	pthread_mutex_unlock(&pool->lock);
	if (!left)
		return;
	sys_pthread_join(worker->thread, NULL);
	pthread_cond_destroy(&worker->wanted);
}

/* All workers but `busy` abandoned ones leave, and are joined. */
static void join_all(struct pool *pool, int busy)
{
	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	for (struct worker *w = pool->asleep; w; w = w->next)
		pthread_cond_signal(&w->wanted);
	while (pool->running > busy)
		pthread_cond_wait(&pool->ended, &pool->lock);
	pool->asleep = NULL;
	pthread_mutex_unlock(&pool->lock);
	for (int i = 0; i < pool->options.threads; i++)
		join(pool, &pool->workers[i]);
}

/* ---- requests -------------------------------------------------------------*/

static int pool_process_request(struct ss_server *server,
				struct ss_request *req)
{
	struct pool *pool = pool_of(server);
	pthread_mutex_lock(&pool->lock);
	struct worker *worker = pool->asleep;
	if (worker) {
		pool->asleep = worker->next;
		worker->req = req;
	} else {
		append(pool, req);
	}
	pthread_mutex_unlock(&pool->lock);
	if (worker)
		pthread_cond_signal(&worker->wanted);
	return 0;
}

static int pool_cancel_request(struct ss_server *server, struct ss_request *req,
			       bool force)
{
	struct pool *pool = pool_of(server);
	struct place *place = place_of(req);
	pthread_mutex_lock(&pool->lock);
	bool cancelled = place->listed && !place->cancelled;
	if (cancelled) {
		place->cancelled = true;
		atomic_fetch_add(&pool->cancelled, 1);
	}
	pthread_mutex_unlock(&pool->lock);
	if (cancelled)
		ss_turn_now(server);
	return ss_super(server, &ss_pool_mixin)
		->cancel_request(server, req, force);
}

static void pool_service_actions(struct ss_server *server)
{
	struct pool *pool = pool_of(server);
	struct ss_request *req;
	ss_super(server, &ss_pool_mixin)->service_actions(server);
	while (atomic_load(&pool->cancelled) && (req = take_cancelled(pool)))
		ss_request_refuse(req, -ECANCELED);
}

/* ---- the server's life ----------------------------------------------------*/

static int default_threads(void)
{
	int threads = THREADS_EACH * sys_processors();
	return threads > THREADS_MIN ? threads : THREADS_MIN;
}

static int take_options(struct ss_server *server,
			struct ss_pool_options *options)
{
	if (options->threads < 0)
		return ss_refuse(server, -EINVAL, "the pool's threads is %d",
				 options->threads);
	if (options->ahead < SS_NONE)
		return ss_refuse(server, -EINVAL, "the pool's ahead is %d",
				 options->ahead);
	if (!options->threads)
		options->threads = default_threads();
	if (!options->ahead)
		options->ahead = options->threads;
	if (options->ahead == SS_NONE)
		options->ahead = 0;
	if (options->ahead > INT_MAX - options->threads)
		options->ahead = INT_MAX - options->threads;
	return 0;
}

static int pool_init(struct ss_server *server, const void *options)
{
	struct pool *pool = pool_of(server);
	if (options)
		pool->options = *(const struct ss_pool_options *)options;
	pool->last = &pool->first;
	int r = take_options(server, &pool->options);
	if (r < 0)
		return r;
	int threads = pool->options.threads, ahead = pool->options.ahead;
	pool->workers = sys_calloc((size_t)threads, sizeof(*pool->workers));
	if (!pool->workers)
		return -ENOMEM;
	r = thread_cond_init(&pool->ended);
	if (r < 0)
		goto no_cond;
	r = -sys_pthread_mutex_init(&pool->lock, NULL);
	if (r < 0)
		goto no_lock;
	ss_set_max_active(server, threads + ahead, ahead);
	ss_set_accept_batch(server, ACCEPT_BATCH);
	return 0;

no_lock:
	pthread_cond_destroy(&pool->ended);
no_cond:
	sys_free(pool->workers);
	return r;
}

static int pool_server_activate(struct ss_server *server)
{
	struct pool *pool = pool_of(server);
	int r = ss_super(server, &ss_pool_mixin)->server_activate(server);
	if (r < 0)
		return r;
	int i = 0;
	while (i < pool->options.threads &&
	       (r = start_worker(pool, &pool->workers[i])) == 0)
		i++;
	if (r == 0)
		return 0;
	join_all(pool, 0);
	pool->closing = false;
	return ss_refuse(server, r, "thread %d of the pool's %d: %s", i + 1,
			 pool->options.threads, strerror(-r));
}

static int pool_server_close(struct ss_server *server)
{
	int abandoned = ss_super(server, &ss_pool_mixin)->server_close(server);
	join_all(pool_of(server), abandoned);
	return abandoned;
}

/* Those that were abandoned and came back are on their way out. */
static void pool_fini(struct ss_server *server)
{
	struct pool *pool = pool_of(server);
	join_all(pool, 0);
	pthread_mutex_destroy(&pool->lock);
	pthread_cond_destroy(&pool->ended);
	sys_free(pool->workers);
}

const struct ss_layer ss_pool_mixin = {
	.name = "pool",
	.flags = SS_LAYER_DISPATCHES | SS_LAYER_THREADS,
	.server_size = sizeof(struct pool),
	.request_size = sizeof(struct place),
	.init = pool_init,
	.fini = pool_fini,
	.ops = {
		.server_activate = pool_server_activate,
		.server_close = pool_server_close,
		.service_actions = pool_service_actions,
		.process_request = pool_process_request,
		.cancel_request = pool_cancel_request,
	},
};
