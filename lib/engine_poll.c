/* What the serving loop waits with where there is no epoll: poll(2). */
#include "internal.h"

#ifndef SS_LINUX

enum { STARVED_MS = 100 };

int engine_init(struct ss_server *server)
{
	(void)server;
	return 0;
}

void engine_fini(struct ss_server *server)
{
	(void)server;
}

/* The watches are read anew before each wait. */
int engine_add(struct ss_server *server, struct ss_watch *watch)
{
	(void)server, (void)watch;
	return 0;
}

void engine_remove(struct ss_server *server, struct ss_watch *watch)
{
	(void)server, (void)watch;
}

static int put(struct pollfd *fds, int at, int room,
	       const struct ss_watch *watch)
{
	if (at < room)
		fds[at] = (struct pollfd){ .fd = watch->fd,
					   .events = watch->events };
	return at + 1;
}

int engine_fill(struct ss_server *server, struct pollfd *fds, int room)
{
	int n = 0;
	for (int i = 0; i < server->watch_count; i++)
		n = put(fds, n, room, server->watches[i]);
	for (int i = 0; i < server->listener_count; i++)
		if (server->listeners[i]->watched)
			n = put(fds, n, room, &server->listeners[i]->watch);
	return n;
}

static struct ss_watch *watch_of(struct ss_server *server, int fd)
{
	for (int i = 0; i < server->watch_count; i++)
		if (server->watches[i]->fd == fd)
			return server->watches[i];
	for (int i = 0; i < server->listener_count; i++)
		if (server->listeners[i]->watch.fd == fd)
			return &server->listeners[i]->watch;
	return NULL;
}

/* Without memory for all of them the first are asked, and the rest later. */
static struct pollfd *make_room(struct pollfd *few, int *room, int *ms)
{
	if (*room <= LOOP_FIRED)
		return few;
	struct pollfd *all = sys_calloc((size_t)*room, sizeof(*all));
	if (all)
		return all;
	*room = LOOP_FIRED;
	if (*ms < 0 || *ms > STARVED_MS)
		*ms = STARVED_MS;
	return few;
}

int engine_wait(struct ss_server *server, int ms)
{
	struct pollfd few[LOOP_FIRED];
	int room = server->watch_count + server->listener_count;
	struct pollfd *fds = make_room(few, &room, &ms);
	int count = engine_fill(server, fds, room);
	if (count > room)
		count = room;
	int n = sys_poll(fds, (nfds_t)count, ms);
	int r = n == -1 ? -errno : 0;
	server->fired_count = 0;
	for (int i = 0; n > 0 && i < count; i++)
		if (fds[i].revents && server->fired_count < LOOP_FIRED)
			server->fired[server->fired_count++] =
				watch_of(server, fds[i].fd);
	if (fds != few)
		sys_free(fds);
	return r < 0 ? r : server->fired_count;
}

int engine_fd(struct ss_server *server)
{
	return ss_refuse(server, -ENOTSUP, "this build has no epoll");
}

#endif
