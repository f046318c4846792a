/*
 * What pollers wait with where there is no epoll: poll(2).  Sources are looked
 * at while somebody wants something of them, and so look edge-triggered.
 */
#include "internal.h"

#ifndef SS_LINUX

enum { STARVED_MS = 100 };

int engine_init(struct ss_poller *poller)
{
	(void)poller;
	return 0;
}

void engine_fini(struct ss_poller *poller)
{
	(void)poller;
}

/* The watches are read anew before each wait. */
int engine_add(struct ss_poller *poller, struct ss_watch *watch)
{
	(void)poller, (void)watch;
	return 0;
}

void engine_remove(struct ss_poller *poller, struct ss_watch *watch)
{
	(void)poller, (void)watch;
}

static int append(struct ss_poller *poller, struct ss_source *source)
{
	if (poller->source_count == poller->source_room) {
		int room = poller->source_room ? 2 * poller->source_room : 16;
		struct ss_source **more = sys_realloc(
			poller->sources, (size_t)room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		poller->sources = more;
		poller->source_room = room;
	}
	poller->sources[poller->source_count++] = source;
	source->flags |= SS_SOURCE_WATCHED;
	return 0;
}

int engine_want(struct ss_poller *poller, struct ss_source *source,
		short events)
{
	if (!(source->flags & SS_SOURCE_WATCHED)) {
		int r = append(poller, source);
		if (r < 0)
			return r;
	}
	source->wanted = events;
	return 0;
}

void engine_forget(struct ss_poller *poller, struct ss_source *source)
{
	int i = 0;
	while (poller->sources[i] != source)
		i++;
	poller->sources[i] = poller->sources[--poller->source_count];
}

/* ---- waiting --------------------------------------------------------------*/

/* The i-th of all: the watches first, then the sources, beginning with another
 * one each time, since not all may find room in `fired`. */
static struct ss_source *source_at(const struct ss_poller *poller, int i)
{
	i += poller->first - poller->watch_count;
	return poller->sources[i % poller->source_count];
}

static struct pollfd look_at(const struct ss_poller *poller, int i)
{
	if (i < poller->watch_count)
		return (struct pollfd){
			.fd = poller->watches[i]->fd,
			.events = poller->watches[i]->events,
		};
	const struct ss_source *source = source_at(poller, i);
	return (struct pollfd){ .fd = source->wanted ? source->fd : -1,
				.events = source->wanted };
}

int engine_fill(struct ss_poller *poller, struct pollfd *fds, int room)
{
	int count = poller->watch_count + poller->source_count;
	for (int i = 0; i < count && i < room; i++)
		fds[i] = look_at(poller, i);
	return count;
}

static struct fired fire(const struct ss_poller *poller, int i, short revents)
{
	if (i < poller->watch_count)
		return (struct fired){ .what = poller->watches[i],
				       .revents = revents };
	struct ss_source *source = source_at(poller, i);
	source->wanted = 0;
	return (struct fired){ .what = source,
			       .revents = revents,
			       .source = true };
}

/* Without memory for all of them the first are asked, and the rest later. */
static struct pollfd *make_room(struct pollfd *few, int *room, int *ms)
{
	if (*room <= POLLER_FIRED)
		return few;
	struct pollfd *all = sys_calloc((size_t)*room, sizeof(*all));
	if (all)
		return all;
	*room = POLLER_FIRED;
	if (*ms < 0 || *ms > STARVED_MS)
		*ms = STARVED_MS;
	return few;
}

int engine_wait(struct ss_poller *poller, int ms)
{
	struct pollfd few[POLLER_FIRED];
	int room = poller->watch_count + poller->source_count;
	poller->first = poller->source_count
				? (poller->first + 1) % poller->source_count
				: 0;
	struct pollfd *fds = make_room(few, &room, &ms);
	int count = engine_fill(poller, fds, room);
	if (count > room)
		count = room;
	int r = poller_poll(fds, count, ms);
	for (int i = 0; r > 0 && i < count; i++)
		if (fds[i].revents && poller->fired_count < POLLER_FIRED)
			poller->fired[poller->fired_count++] =
				fire(poller, i, fds[i].revents);
	if (fds != few)
		sys_free(fds);
	return r < 0 ? r : poller->fired_count;
}

int engine_fd(struct ss_poller *poller)
{
	return ss_refuse(poller->server, -ENOTSUP, "this build has no epoll");
}

#endif
