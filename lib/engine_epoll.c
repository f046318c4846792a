/*
 * What pollers wait with on Linux: epoll(7).  Watches are level-triggered.
 * Sources are edge-triggered and registered once: with what tells of input and
 * its end, and when first a send would block, of room for output.
 */
#include "internal.h"

#ifdef SS_LINUX

/* A source's pointer is told from a watch's by its lowest bit. */
enum { SOURCE = 1 };

int engine_init(struct ss_poller *poller)
{
	poller->epfd = sys_epoll_create();
	return poller->epfd == -1 ? -errno : 0;
}

void engine_fini(struct ss_poller *poller)
{
	if (poller->epfd >= 0)
		sys_close(poller->epfd);
	poller->epfd = -1;
}

static int control(struct ss_poller *poller, int op, int fd,
		   struct epoll_event *event)
{
	return sys_epoll_ctl(poller->epfd, op, fd, event) == -1 ? -errno : 0;
}

int engine_add(struct ss_poller *poller, struct ss_watch *watch)
{
	struct epoll_event event = { .data.ptr = watch };
	if (watch->events & POLLIN)
		event.events |= EPOLLIN;
	if (watch->events & POLLOUT)
		event.events |= EPOLLOUT;
	/* Of the workers of a server one that waits is told (Linux 4.5). */
	if (poller->server->worker && listener_of(watch))
		event.events |= EPOLLEXCLUSIVE;
	return control(poller, EPOLL_CTL_ADD, watch->fd, &event);
}

void engine_remove(struct ss_poller *poller, struct ss_watch *watch)
{
	struct epoll_event unused = { 0 };
	control(poller, EPOLL_CTL_DEL, watch->fd, &unused);
}

int engine_want(struct ss_poller *poller, struct ss_source *source,
		short events)
{
	unsigned flags = SS_SOURCE_WATCHED;
	if (events & POLLOUT)
		flags |= SS_SOURCE_WATCHED_OUT;
	if ((source->flags & flags) == flags)
		return 0;
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET,
		.data.ptr = (char *)source + SOURCE,
	};
	if (events & POLLOUT)
		event.events |= EPOLLOUT;
	bool known = source->flags & SS_SOURCE_WATCHED;
	int r = control(poller, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
			source->fd, &event);
	if (r == 0)
		source->flags |= flags;
	return r;
}

/*
 * Closing the last descriptor would do it too, but one of a child that has
 * just been forked, by whatever part of the program, goes on to be told of,
 * when the source is no more (epoll(7), questions and answers 6).
 */
void engine_forget(struct ss_poller *poller, struct ss_source *source)
{
	struct epoll_event unused = { 0 };
	control(poller, EPOLL_CTL_DEL, source->fd, &unused);
}

int engine_wait(struct ss_poller *poller, int ms)
{
	struct epoll_event events[POLLER_FIRED];
	int n = sys_epoll_wait(poller->epfd, events, POLLER_FIRED, ms);
	if (n == -1)
		return -errno;
	for (int i = 0; i < n; i++) {
		char *what = events[i].data.ptr;
		bool source = (uintptr_t)what & SOURCE;
		poller->fired[i] = (struct fired){
			.what = source ? what - SOURCE : what,
			.revents = (short)events[i].events,
			.source = source,
		};
	}
	poller->fired_count = n;
	return n;
}

int engine_fd(struct ss_poller *poller)
{
	return poller->epfd;
}

int engine_fill(struct ss_poller *poller, struct pollfd *fds, int room)
{
	if (room >= 1)
		fds[0] =
			(struct pollfd){ .fd = poller->epfd, .events = POLLIN };
	return 1;
}

#endif
