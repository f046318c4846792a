/*
 * Pollers: what a loop waits with, and who is told of what.  The serving loop
 * has one; a model with more loops makes more.  The platform's part is
 * engine_epoll.c or engine_poll.c.
 */
#include "internal.h"

enum { STARVED_MS = 10 };

/* poll(2), for loops: where the kernel has no memory for it, nothing has come,
 * after a while. */
int poller_poll(struct pollfd *fds, int count, int ms)
{
	int n = sys_poll(fds, (nfds_t)count, ms);
	if (n >= 0 || errno != ENOMEM)
		return n >= 0 ? n : -errno;
	sys_poll(NULL, 0, ms >= 0 && ms < STARVED_MS ? ms : STARVED_MS);
	return 0;
}

/* ---- watches --------------------------------------------------------------*/

static int make_room(struct ss_poller *poller)
{
	if (poller->watch_count < poller->watch_room)
		return 0;
	int room = poller->watch_room ? 2 * poller->watch_room : 8;
	struct ss_watch **more =
		sys_realloc(poller->watches, (size_t)room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	poller->watches = more;
	poller->watch_room = room;
	return 0;
}

int ss_poller_watch(struct ss_poller *poller, struct ss_watch *watch)
{
	int r = make_room(poller);
	if (r == 0)
		r = engine_add(poller, watch);
	if (r < 0)
		return r;
	poller->watches[poller->watch_count] = watch;
	watch->place = ++poller->watch_count;
	return 0;
}

/* What is told of it in this turn, it is told no more. */
static void unfire(struct ss_poller *poller, const void *what)
{
	for (int i = poller->fired_at; i < poller->fired_count; i++)
		if (poller->fired[i].what == what)
			poller->fired[i].what = NULL;
}

void ss_poller_unwatch(struct ss_poller *poller, struct ss_watch *watch)
{
	if (!watch->place)
		return;
	struct ss_watch *last = poller->watches[--poller->watch_count];
	poller->watches[watch->place - 1] = last;
	last->place = watch->place;
	watch->place = 0;
	engine_remove(poller, watch);
	unfire(poller, watch);
}

/* ---- sources --------------------------------------------------------------*/

int ss_poller_want(struct ss_poller *poller, struct ss_source *source,
		   short events)
{
	return engine_want(poller, source, events);
}

void ss_poller_forget(struct ss_poller *poller, struct ss_source *source)
{
	if (!(source->flags & SS_SOURCE_WATCHED))
		return;
	engine_forget(poller, source);
	source->flags &= ~(unsigned)(SS_SOURCE_WATCHED | SS_SOURCE_WATCHED_OUT);
	unfire(poller, source);
}

/* ---- waiting --------------------------------------------------------------*/

static void tell(struct ss_poller *poller, const struct fired *fired)
{
	struct ss_watch *watch = fired->what;
	if (fired->source)
		poller->ops->source_ready(poller->arg, fired->what,
					  fired->revents);
	else
		watch->ready(poller->server, watch);
}

/* Sockets have peers, and they live by the one clock that there is. */
static int wait_until(struct ss_poller *poller, int64_t deadline)
{
	struct ss_server *server = poller->server;
	int ms = loop_timeout(server, deadline);
	if (ms == 0 || (server->flags & SS_LAYER_SOCKET))
		return engine_wait(poller, ms);
	int r = engine_wait(poller, 0);
	if (r == 0 && (ms = self(server)->pass_time(server, deadline)) != 0)
		r = engine_wait(poller, ms);
	return r;
}

int ss_poller_wait(struct ss_poller *poller, int64_t deadline)
{
	deadline = nearest(deadline, poller->at);
	poller->fired_at = poller->fired_count = 0;
	int r = wait_until(poller, deadline);
	while (poller->fired_at < poller->fired_count) {
		const struct fired *fired = &poller->fired[poller->fired_at++];
		if (fired->what)
			tell(poller, fired);
	}
	poller->fired_at = poller->fired_count = 0;
	if (poller->ops)
		poller->ops->waited(poller->arg);
	return r == -EINTR ? 0 : r;
}

void ss_poller_at(struct ss_poller *poller, int64_t deadline)
{
	poller->at = deadline;
}

/* ---- life -----------------------------------------------------------------*/

int poller_init(struct ss_poller *poller, struct ss_server *server)
{
	memset(poller, 0, sizeof(*poller));
	poller->server = server;
	poller->at = SS_NONE;
	poller->epfd = -1;
	return engine_init(poller);
}

void poller_fini(struct ss_poller *poller)
{
	engine_fini(poller);
	sys_free(poller->watches);
	sys_free(poller->sources);
	poller->watches = NULL;
	poller->sources = NULL;
	poller->watch_count = poller->watch_room = 0;
	poller->source_count = poller->source_room = 0;
}

int ss_poller_new(struct ss_server *server, struct ss_poller **result)
{
	*result = NULL;
	struct ss_poller *poller = sys_malloc(sizeof(*poller));
	if (!poller)
		return -ENOMEM;
	int r = poller_init(poller, server);
	if (r < 0)
		sys_free(poller);
	else
		*result = poller;
	return r;
}

void ss_poller_free(struct ss_poller *poller)
{
	if (!poller)
		return;
	poller_fini(poller);
	sys_free(poller);
}

struct ss_poller *ss_server_poller(struct ss_server *server)
{
	return &server->poller;
}

void ss_poller_attend(struct ss_poller *poller, const struct ss_poller_ops *ops,
		      void *arg)
{
	poller->ops = ops;
	poller->arg = arg;
}
