/* What the serving loop waits with on Linux: epoll(7), level-triggered. */
#include "internal.h"

#ifdef SS_LINUX

int engine_init(struct ss_server *server)
{
	server->epfd = sys_epoll_create();
	return server->epfd == -1 ? -errno : 0;
}

void engine_fini(struct ss_server *server)
{
	if (server->epfd >= 0)
		sys_close(server->epfd);
	server->epfd = -1;
}

int engine_add(struct ss_server *server, struct ss_watch *watch)
{
	struct epoll_event event = { .data.ptr = watch };
	if (watch->events & POLLIN)
		event.events |= EPOLLIN;
	if (watch->events & POLLOUT)
		event.events |= EPOLLOUT;
	if (sys_epoll_ctl(server->epfd, EPOLL_CTL_ADD, watch->fd, &event) == -1)
		return -errno;
	return 0;
}

void engine_remove(struct ss_server *server, struct ss_watch *watch)
{
	struct epoll_event unused = { 0 };
	sys_epoll_ctl(server->epfd, EPOLL_CTL_DEL, watch->fd, &unused);
}

int engine_wait(struct ss_server *server, int ms)
{
	struct epoll_event events[LOOP_FIRED];
	int n = sys_epoll_wait(server->epfd, events, LOOP_FIRED, ms);
	if (n == -1)
		return -errno;
	for (int i = 0; i < n; i++)
		server->fired[i] = events[i].data.ptr;
	server->fired_count = n;
	return n;
}

int engine_fd(struct ss_server *server)
{
	return server->epfd;
}

int engine_fill(struct ss_server *server, struct pollfd *fds, int room)
{
	if (room >= 1)
		fds[0] =
			(struct pollfd){ .fd = server->epfd, .events = POLLIN };
	return 1;
}

#endif
