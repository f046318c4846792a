/*
 * The serving loop: what it watches, one turn of it, and the ways to drive it.
 */
#include "internal.h"

#include <limits.h>

enum { STARVED_MS = 10 };

/* ---- what it watches ------------------------------------------------------*/

static void woken(struct ss_server *server, struct ss_watch *watch)
{
	(void)watch;
	stop_drain_wake(server);
	/* By this turn; who asks from now on writes to the pipe again. */
	atomic_store(&server->turn_wanted, false);
}

int loop_init(struct ss_server *server)
{
	int r = poller_init(&server->poller, server);
	if (r < 0)
		return r;
	server->wake_watch = (struct ss_watch){
		.fd = server->wake_pipe[0],
		.events = POLLIN,
		.ready = woken,
	};
	return ss_watch_add(server, &server->wake_watch);
}

void loop_fini(struct ss_server *server)
{
	poller_fini(&server->poller);
	if (server->spare_fd >= 0)
		sys_close(server->spare_fd);
}

/* What the supervisor watches is nothing to its child; the listeners and the
 * wake pipe are closed with their own kind. */
void loop_after_fork(struct ss_server *server, struct leaving *leaving)
{
	struct ss_poller *poller = &server->poller;
	for (int i = 0; i < poller->watch_count; i++) {
		const struct ss_watch *watch = poller->watches[i];
		if (watch != &server->wake_watch && !listener_of(watch))
			leave(leaving, watch->fd);
	}
	leave_end(leaving, &poller->epfd);
}

int ss_watch_add(struct ss_server *server, struct ss_watch *watch)
{
	return ss_poller_watch(&server->poller, watch);
}

void ss_watch_remove(struct ss_server *server, struct ss_watch *watch)
{
	ss_poller_unwatch(&server->poller, watch);
}

/*
 * Has the listeners watched if the gate is open.  One that fires behind a
 * closed gate is watched no longer, but stays ready, to be accepted from as
 * soon as the gate opens.  A worker's are unwatched at once: it would be told
 * of clients whom an idle one can take.
 */
void loop_listen(struct ss_server *server)
{
	if (!gate_open(server)) {
		crowd_taken(server);
		for (int i = 0; server->worker && i < server->listener_count;
		     i++)
			listener_unwatch(server, server->listeners[i]);
		return;
	}
	for (int i = 0; i < server->listener_count; i++) {
		struct ss_listener *listener = server->listeners[i];
		if (listener->watch.fd < 0 || listener->watched)
			continue;
		if (ss_watch_add(server, &listener->watch) < 0) {
			ss_turn_at(server, now(server) + 100);
			continue;
		}
		listener->watched = true;
		atomic_store(&listener->ready, listener->ahead > 0);
	}
}

/* Whether one is ready that no wait will tell of. */
static bool silently_ready(const struct ss_server *server)
{
	for (int i = 0; i < server->listener_count; i++) {
		const struct ss_listener *listener = server->listeners[i];
		if ((!listener->watched || listener->ahead) &&
		    atomic_load(&listener->ready))
			return gate_open(server);
	}
	return false;
}

/* ---- waiting --------------------------------------------------------------*/

int64_t nearest(int64_t a, int64_t b)
{
	if (a == SS_NONE || b == SS_NONE)
		return a == SS_NONE ? b : a;
	return a < b ? a : b;
}

int loop_timeout(struct ss_server *server, int64_t deadline)
{
	if (deadline == SS_NONE)
		return -1;
	if (deadline == 0)
		return 0;
	int64_t left = deadline - now(server);
	if (left <= 0)
		return 0;
	return left > INT_MAX ? INT_MAX : (int)left;
}

/* One wait; what fired has been told.  An interrupted one is an empty one. */
int loop_wait(struct ss_server *server, int64_t deadline)
{
	deadline = nearest(deadline, server->turn_at);
	server->turn_at = SS_NONE;
	if (atomic_exchange(&server->turn_wanted, false))
		deadline = 0;
	int r = ss_poller_wait(&server->poller, deadline);
	if (server->run)
		run_look(server);
	return r < 0 ? r : 0;
}

/* A turn's wait.  What was read ahead is served first, in turns without one,
 * but where they are what lets fibers run. */
static int turn_wait(struct ss_server *server, int64_t deadline)
{
	bool parks = server->flags & SS_LAYER_PARKS;
	for (int i = 0; !parks && i < server->listener_count; i++)
		if (server->listeners[i]->ahead && gate_open(server))
			return 0;
	return loop_wait(server, deadline);
}

void ss_turn_now(struct ss_server *server)
{
	if (!atomic_exchange(&server->turn_wanted, true))
		stop_wake(server);
}

void ss_turn_at(struct ss_server *server, int64_t deadline)
{
	server->turn_at = nearest(server->turn_at, deadline);
}

int64_t ss_server_deadline(struct ss_server *server)
{
	if (atomic_load(&server->turn_wanted) || gate_ready(server) ||
	    silently_ready(server))
		return 0;
	int64_t at = nearest(server->turn_at, server->poller.at);
	if (ss_holding(server, SS_HOLD_ERRORS))
		at = nearest(at, server->retry_at);
	if (server->config.poll_interval_ms != SS_NONE)
		at = nearest(at, server->turned_at +
					 server->config.poll_interval_ms);
	return at;
}

int ss_server_pollfd(struct ss_server *server)
{
	int r = server_drivable(server);
	return r < 0 ? r : engine_fd(&server->poller);
}

/* ---- a turn ---------------------------------------------------------------*/

/* A turn without service_actions. */
int loop_step(struct ss_server *server, int64_t deadline, int budget)
{
	workers_news(server);
	accept_recover(server);
	/* Those are accepted from first, and then seldom need watching: a
	 * server at its cap whose clients queue up does without epoll_ctl. */
	if (!silently_ready(server))
		loop_listen(server);
	deadline = nearest(deadline, ss_server_deadline(server));
	if (!stop_asked(server)) {
		server->drain_at = 0;
		server->hurried = false;
		int r = turn_wait(server, deadline);
		if (r < 0)
			return r;
	}
	if (server->config.poll_interval_ms != SS_NONE)
		server->turned_at = now(server);
	if (stop_asked(server))
		return -ECANCELED;
	accept_recover(server);
	struct ss_request *waiting;
	while ((waiting = gate_next(server)))
		accept_dispatch(server, waiting);
	int taken = accept_ready(server, budget);
	/* By turns of one nobody learns how many there are. */
	if (taken < budget || budget == 1)
		crowd_taken(server);
	if (taken > 0)
		worker_make_way(server);
	/* A foreign loop waits on the descriptor as it is left here. */
	loop_listen(server);
	return taken;
}

static int turn(struct ss_server *server, int64_t deadline)
{
	int r = loop_step(server, deadline, server->batch);
	if (r >= 0)
		self(server)->service_actions(server);
	return r;
}

static int claimed(struct ss_server *server,
		   int (*run)(struct ss_server *, int64_t), int64_t deadline)
{
	server->turning = true;
	int r = run(server, deadline);
	server->turning = false;
	if (r == -ECANCELED) {
		crowd_taken(server);
		stop_take(server);
	}
	return r;
}

static int guarded(struct ss_server *server,
		   int (*run)(struct ss_server *, int64_t), int64_t deadline)
{
	int r = server_drivable(server);
	if (r >= 0)
		r = server_claim(server);
	if (r < 0)
		return r;
	r = claimed(server, run, deadline);
	server_unclaim(server);
	return r;
}

int ss_server_turn(struct ss_server *server, int64_t deadline)
{
	return guarded(server, turn, deadline);
}

int ss_turn(struct ss_server *server, int64_t deadline)
{
	return claimed(server, turn, deadline);
}

/* ---- ways to drive it -----------------------------------------------------*/

int ss_serve_forever(struct ss_server *server)
{
	int r = server_usable(server);
	if (r >= 0)
		r = server_claim(server);
	if (r < 0)
		return r;
	r = self(server)->serve_forever(server);
	server_unclaim(server);
	return r;
}

/* Whether one that was accepted since the next was to have this id lives.  The
 * last of them has the highest. */
static bool lives_since(struct ss_server *server, uint64_t id)
{
	pthread_mutex_lock(&server->lock);
	const struct ss_request *req = server->requests.last;
	bool lives = req && req->id >= id;
	pthread_mutex_unlock(&server->lock);
	return lives;
}

/* Where requests park, one that was taken is served by turning the loop. */
static int see_through(struct ss_server *server, uint64_t id)
{
	int r = 0;
	ss_hold(server, SS_HOLD_ONE);
	while (r >= 0 && lives_since(server, id))
		r = loop_step(server, SS_NONE, 0);
	ss_release(server, SS_HOLD_ONE);
	return r < 0 ? r : 1;
}

static int until_idle(struct ss_server *server, int64_t deadline)
{
	(void)deadline;
	return see_through(server, 0);
}

int loop_until_idle(struct ss_server *server)
{
	return claimed(server, until_idle, SS_NONE);
}

/* Memory's clock stands still while nobody is served: there the wait itself
 * tells the time. */
static int one_request(struct ss_server *server, int64_t deadline)
{
	int64_t until = sys_now_ms() + loop_timeout(server, deadline);
	for (;;) {
		uint64_t id = atomic_load(&server->page->next_id);
		int r = loop_step(server, deadline, 1);
		if (r > 0 && (server->flags & SS_LAYER_PARKS))
			return see_through(server, id);
		if (r)
			return r;
		if (deadline != SS_NONE &&
		    (now(server) >= deadline || sys_now_ms() >= until))
			break;
	}
	self(server)->handle_timeout(server);
	return 0;
}

int ss_handle_request(struct ss_server *server)
{
	int ms = server->config.timeout_ms;
	return guarded(server, one_request,
		       ms == SS_NONE ? SS_NONE : now(server) + ms);
}

int loop_wait_any(struct ss_server *const *servers, int count, int64_t deadline)
{
	int need = 0;
	for (int i = 0; i < count; i++)
		if (servers[i])
			need += engine_fill(&servers[i]->poller, NULL, 0);
	struct pollfd *fds = sys_calloc((size_t)need + 1, sizeof(*fds));
	if (!fds) {
		sys_poll(NULL, 0, STARVED_MS);
		return 0;
	}
	struct ss_server *any = NULL;
	for (int i = 0, n = 0; i < count; i++) {
		if (!servers[i])
			continue;
		any = servers[i];
		n += engine_fill(&any->poller, fds + n, need - n);
	}
	int r = poller_poll(fds, need, loop_timeout(any, deadline));
	sys_free(fds);
	return r < 0 && r != -EINTR ? r : 0;
}

/* Whether a turn of it keeps nobody waiting, and may be had now. */
static bool turns_beside(struct ss_server *server)
{
	return (server->flags & (SS_LAYER_PARKS | SS_LAYER_THREADS)) &&
	       !(server->flags & SS_LAYER_SUPERVISES) && server->activated &&
	       !server->turning && !server->closing && !stop_asked(server);
}

/* How many descriptors their loops have. */
static int choose_beside(struct run *run, int64_t *deadline)
{
	int need = 0;
	for (int i = 0; i < run->count; i++) {
		struct ss_server *other = run->servers[i];
		run->chosen[i] = turns_beside(other) ? other : NULL;
		if (!run->chosen[i])
			continue;
		need += engine_fill(&other->poller, NULL, 0);
		*deadline = nearest(*deadline, ss_server_deadline(other));
	}
	return need;
}

/* Leaves those of whom poll(2) has told, or whose time has come. */
static void choose_fired(struct run *run, const struct pollfd *fds)
{
	for (int i = 0; i < run->count; i++) {
		struct ss_server *other = run->chosen[i];
		if (!other)
			continue;
		int64_t at = ss_server_deadline(other);
		bool fired = at != SS_NONE && now(other) >= at;
		for (int n = engine_fill(&other->poller, NULL, 0); n > 0; n--)
			fired |= fds++->revents != 0;
		if (!fired)
			run->chosen[i] = NULL;
	}
}

static void turn_beside(struct run *run)
{
	run->beside = true;
	for (int i = 0; i < run->count; i++) {
		struct ss_server *other = run->chosen[i];
		/* A shutdown is for the loop to take. */
		if (other && self(other)->serve_turn(other, 0) == -ECANCELED)
			ss_shutdown(other);
	}
	run->beside = false;
}

int loop_poll(struct ss_server *server, struct pollfd *fds, int count,
	      int64_t deadline)
{
	struct run *run = server->run;
	int need = 0;
	if (run->serving && !run->beside && run->count > 1)
		need = choose_beside(run, &deadline);
	if (!need)
		return sys_poll(fds, (nfds_t)count,
				loop_timeout(server, deadline));
	int total = count + need;
	struct pollfd *all = sys_calloc((size_t)total, sizeof(*all));
	if (!all)
		return sys_poll(fds, (nfds_t)count, STARVED_MS);
	memcpy(all, fds, (size_t)count * sizeof(*all));
	for (int i = 0, n = count; i < run->count; i++)
		if (run->chosen[i])
			n += engine_fill(&run->chosen[i]->poller, all + n,
					 total - n);
	int ready =
		sys_poll(all, (nfds_t)total, loop_timeout(server, deadline));
	memcpy(fds, all, (size_t)count * sizeof(*fds));
	if (ready >= 0)
		choose_fired(run, all + count);
	sys_free(all);
	if (ready >= 0)
		turn_beside(run);
	return ready;
}

/* Any of those that are left; NULL: it has been shut down. */
static int wait_for_any(struct ss_server *const *servers, int count)
{
	int64_t deadline = SS_NONE;
	for (int i = 0; i < count; i++)
		if (servers[i])
			deadline = nearest(deadline,
					   ss_server_deadline(servers[i]));
	return loop_wait_any(servers, count, deadline);
}

/* One turn of each; how many are left. */
static int turn_all(struct ss_server **servers, int count)
{
	int left = 0;
	for (int i = 0; i < count; i++) {
		if (!servers[i])
			continue;
		int r = self(servers[i])->serve_turn(servers[i], 0);
		if (r < 0 && r != -ECANCELED)
			return r;
		if (r == -ECANCELED) {
			server_unclaim(servers[i]);
			servers[i] = NULL;
		} else {
			left++;
		}
	}
	return left;
}

/* A supervisor that has no turn of its own has but serve_forever. */
static int together(struct ss_server *server)
{
	for (int i = 0; i < server->level_count; i++) {
		const struct ss_layer *layer = server->levels[i].layer;
		if ((layer->flags & SS_LAYER_SUPERVISES) &&
		    layer->ops.serve_turn)
			return server_usable(server);
	}
	return server_drivable(server);
}

int ss_serve(struct ss_server *const *given, int count)
{
	struct ss_server **servers =
		sys_calloc((size_t)count + 1, sizeof(*servers));
	if (!servers)
		return -ENOMEM;
	int r = 0;
	for (int i = 0; r >= 0 && i < count; i++) {
		r = together(given[i]);
		if (r >= 0)
			r = server_claim(given[i]);
		if (r >= 0)
			servers[i] = given[i];
	}
	while (r >= 0 && (r = turn_all(servers, count)) > 0)
		r = wait_for_any(servers, count);
	for (int i = 0; i < count; i++)
		if (servers[i])
			server_unclaim(servers[i]);
	sys_free(servers);
	return r;
}
