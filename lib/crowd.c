/*
 * A crowd: clients come faster than the serving thread gets to take them.
 *
 * Where each request has a thread, the system shares the processors among all
 * that are busy.  The serving thread is only one of those, and so is each that
 * is to serve a new client: some hundred clients who are served already would
 * keep the others waiting for seconds.  So until all clients are taken and
 * their threads have begun, the threads of the former hold back every other
 * PHASE_MS, when they are about to read.
 */
#include "internal.h"

enum {
	CROWD = 4, /* taken one after another: it is one */
	PHASE_MS = 50,
	CROWD_MS = 20 * PHASE_MS, /* for so long, or until the next is taken */
	FREE_READS = 2, /* of a request, in crowds: a message, and the end */
};

static bool is_crowded(const struct ss_server *server)
{
	return atomic_load_explicit(&server->crowded, memory_order_relaxed);
}

/* One goes on and lets the next go (hold_back): if all went at once, those who
 * have only just begun would wait for them again. */
static void disperse(struct ss_server *server)
{
	atomic_store_explicit(&server->crowded, false, memory_order_relaxed);
	pthread_cond_signal(&server->dispersed);
}

static void look(struct ss_server *server)
{
	if (is_crowded(server) && !server->taking && !server->not_begun)
		disperse(server);
}

/* Not where those who are taken wait in the model for a thread. */
static bool thread_for_each(const struct ss_server *server)
{
	return (server->flags & SS_LAYER_THREADS) && !server->served;
}

void crowd_join(struct ss_server *server)
{
	server->not_begun++;
	if (!thread_for_each(server) || ++server->in_a_row < CROWD)
		return;
	server->in_a_row = CROWD;
	server->taking = true;
	if (is_crowded(server))
		return;
	atomic_store_explicit(&server->crowd_since, sys_now_ms(),
			      memory_order_relaxed);
	atomic_store_explicit(&server->crowded, true, memory_order_relaxed);
}

void crowd_begun(struct ss_server *server)
{
	server->not_begun--;
	look(server);
}

void crowd_taken(struct ss_server *server)
{
	server->in_a_row = 0;
	if (!server->taking)
		return;
	pthread_mutex_lock(&server->lock);
	server->taking = false;
	look(server);
	pthread_mutex_unlock(&server->lock);
}

static void hold_back(struct ss_server *server, int64_t until)
{
	struct timespec at = { .tv_sec = (time_t)(until / 1000),
			       .tv_nsec = (long)(until % 1000) * 1000000 };
	int error = 0;
	while (is_crowded(server) && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&server->dispersed,
					       &server->lock, &at);
	if (!is_crowded(server))
		pthread_cond_signal(&server->dispersed);
}

void crowd_make_way(struct ss_request *req)
{
	struct ss_server *server = req->server;
	/* What a handler reads elsewhere is for a client whom it serves; what a
	 * layer reads before setup, for one who is not served yet. */
	if (owner_of(req) != req || req->phase < SS_PHASE_SETUP)
		return;
	if (req->free_reads < FREE_READS) {
		req->free_reads++;
		return;
	}
	int64_t since = atomic_load_explicit(&server->crowd_since,
					     memory_order_relaxed);
	int64_t phase = (sys_now_ms() - since) / PHASE_MS;
	if (phase % 2)
		return;
	pthread_mutex_lock(&server->lock);
	if (phase * PHASE_MS < CROWD_MS)
		hold_back(server, since + (phase + 1) * PHASE_MS);
	else if (server->crowd_since == since)
		disperse(server);
	pthread_mutex_unlock(&server->lock);
}
