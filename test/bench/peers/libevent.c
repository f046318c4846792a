/*
 * Echo by libevent: plain events, which call recv and send themselves, or with
 * -b bufferevents, in the way of its manual's echo server.
 */
#include "peer.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/tcp.h>
#include <stdbool.h>

#define ACCEPT_BATCH 16

static struct event_base *base;

/* ---- plain events --------------------------------------------------------*/

struct pending {
	size_t begin, end;
	char bytes[BENCH_BUFFER];
};

struct conn {
	struct event event;
	struct pending *pending; /* NULL: nothing to send */
};

static char buf[BENCH_BUFFER];

static void end(struct conn *conn)
{
	const int fd = event_get_fd(&conn->event);

	event_del(&conn->event);
	close(fd);
	free(conn->pending);
	free(conn);
}

static void on_event(evutil_socket_t fd, short events, void *arg);

static void watch(struct conn *conn, int fd, short events)
{
	if (event_assign(&conn->event, base, fd, events | EV_PERSIST, on_event,
			 conn) == -1 ||
	    event_add(&conn->event, NULL) == -1)
		bench_die(1, "event_add fails");
}

static bool gone(ssize_t n)
{
	return n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR);
}

static void keep(struct conn *conn, int fd, const char *bytes, size_t n)
{
	conn->pending = malloc(sizeof(*conn->pending));
	if (!conn->pending) {
		end(conn);
		return;
	}
	conn->pending->begin = 0;
	conn->pending->end = n;
	memcpy(conn->pending->bytes, bytes, n);
	event_del(&conn->event);
	watch(conn, fd, EV_WRITE);
}

static void resume(struct conn *conn, int fd)
{
	struct pending *pending = conn->pending;
	const ssize_t sent = send(fd, pending->bytes + pending->begin,
				  pending->end - pending->begin, MSG_NOSIGNAL);

	if (gone(sent)) {
		end(conn);
		return;
	}
	pending->begin += sent == -1 ? 0 : (size_t)sent;
	if (pending->begin < pending->end)
		return;
	free(pending);
	conn->pending = NULL;
	event_del(&conn->event);
	watch(conn, fd, EV_READ);
}

static void echo(struct conn *conn, int fd)
{
	const ssize_t n = recv(fd, buf, sizeof(buf), 0);

	if (gone(n))
		end(conn);
	if (n <= 0)
		return;
	ssize_t sent = send(fd, buf, (size_t)n, MSG_NOSIGNAL);
	if (sent == n)
		return;
	if (gone(sent)) {
		end(conn);
		return;
	}
	if (sent == -1)
		sent = 0;
	keep(conn, fd, buf + sent, (size_t)(n - sent));
}

static void on_event(evutil_socket_t fd, short events, void *arg)
{
	struct conn *conn = arg;

	(void)events;
	if (conn->pending)
		resume(conn, fd);
	else
		echo(conn, fd);
}

static void welcome_plain(int fd)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (conn)
		watch(conn, fd, EV_READ);
	else
		close(fd);
}

/* ---- bufferevents --------------------------------------------------------*/

static void on_read(struct bufferevent *bev, void *arg)
{
	(void)arg;
	evbuffer_add_buffer(bufferevent_get_output(bev),
			    bufferevent_get_input(bev));
}

static void on_end(struct bufferevent *bev, short what, void *arg)
{
	(void)arg;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		bufferevent_free(bev);
}

static void welcome_buffered(int fd)
{
	struct bufferevent *bev =
		bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);

	if (!bev) {
		close(fd);
		return;
	}
	bufferevent_setcb(bev, on_read, NULL, on_end, NULL);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

/* ---- both ----------------------------------------------------------------*/

static void on_listener(evutil_socket_t listener, short events, void *arg)
{
	const bool *buffered = arg;

	(void)events;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		const int fd = peer_take(listener, SOCK_NONBLOCK);

		if (fd == -1)
			return;
		if (*buffered)
			welcome_buffered(fd);
		else
			welcome_plain(fd);
	}
}

int main(int argc, char **argv)
{
	bool buffered = argc == 3 && strcmp(argv[1], "-b") == 0;
	struct event event;

	argv += buffered;
	argc -= buffered;
	const int listener = peer_listen(argc, argv, SOCK_NONBLOCK);

	/* It writes a long message in pieces, the second of which would wait
	 * for the first one's acknowledgement. */
	if (buffered)
		setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 },
			   sizeof(int));
	/* It writes without MSG_NOSIGNAL. */
	peer_on_signal(SIGPIPE, SIG_IGN);
	base = event_base_new();
	if (!base ||
	    event_assign(&event, base, listener, EV_READ | EV_PERSIST,
			 on_listener, &buffered) == -1 ||
	    event_add(&event, NULL) == -1)
		bench_die(1, "libevent does not start");
	return event_base_dispatch(base) == -1;
}
