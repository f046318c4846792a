/* Listeners: what a transport has opened, and what may be asked of it. */
#include "internal.h"

void listener_unwatch(struct ss_server *server, struct ss_listener *listener)
{
	if (listener->watched)
		ss_watch_remove(server, &listener->watch);
	listener->watched = false;
}

/* Behind a closed gate it would fire for ever: it is remembered instead. */
static void listener_fired(struct ss_server *server, struct ss_watch *watch)
{
	struct ss_listener *listener = (struct ss_listener *)watch;
	atomic_store(&listener->ready, true);
	if (gate_open(server))
		return;
	listener_unwatch(server, listener);
	worker_pass_on(server);
}

struct ss_listener *listener_of(const struct ss_watch *watch)
{
	return watch->ready == listener_fired ? (struct ss_listener *)watch
					      : NULL;
}

static int append(struct ss_server *server, struct ss_listener *listener)
{
	size_t room = (size_t)server->listener_count + 1;
	if (room > UINT16_MAX)
		return -ENOMEM;
	struct ss_listener **more =
		sys_realloc(server->listeners, room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	server->listeners = more;
	server->listeners[server->listener_count++] = listener;
	listener->number = (uint16_t)room;
	return 0;
}

int ss_listener_add(struct ss_server *server, int fd, enum ss_scheme scheme,
		    const struct ss_address *address, unsigned flags,
		    size_t data_size, struct ss_listener **result)
{
	struct ss_listener *listener = server_room(server, sizeof(*listener));
	if (!listener)
		goto no_listener;
	if (data_size && !(listener->data = sys_calloc(1, data_size)))
		goto no_data;
	listener->watch.fd = fd;
	listener->watch.events = POLLIN;
	listener->watch.ready = listener_fired;
	listener->scheme = scheme;
	listener->flags = flags;
	if (address)
		listener->address = *address;
	if (append(server, listener) < 0)
		goto no_room;
	*result = listener;
	return 0;

no_room:
	sys_free(listener->data);
no_data:
	server_room_free(server, listener);
no_listener:
	if (fd >= 0)
		sys_close(fd);
	return -ENOMEM;
}

/* Streams first: a datagram's reply leaves through its listener. */
void listeners_close(struct ss_server *server, bool dgram)
{
	for (int i = 0; i < server->listener_count; i++) {
		struct ss_listener *listener = server->listeners[i];
		if (dgram != !!(listener->flags & SS_LISTENER_DGRAM))
			continue;
		listener_unwatch(server, listener);
		atomic_store(&listener->ready, false);
		self(server)->listener_close(server, listener);
	}
}

void listeners_free(struct ss_server *server)
{
	for (int i = 0; i < server->listener_count; i++) {
		sys_free(server->listeners[i]->data);
		server_room_free(server, server->listeners[i]);
	}
	sys_free(server->listeners);
	server->listeners = NULL;
	server->listener_count = 0;
}

/* Those of a bind that failed: it may be tried again. */
void listeners_drop(struct ss_server *server)
{
	listeners_close(server, false);
	listeners_close(server, true);
	listeners_free(server);
}

void ss_listener_ready(struct ss_server *server, struct ss_listener *listener)
{
	atomic_store(&listener->ready, true);
	ss_turn_now(server);
}

void ss_listener_set_ahead(struct ss_listener *listener, int n)
{
	listener->ahead = n;
}

int ss_listener_fd(const struct ss_listener *listener)
{
	return listener->watch.fd;
}

unsigned ss_listener_flags(const struct ss_listener *listener)
{
	return listener->flags;
}

const struct ss_address *ss_listener_address(const struct ss_listener *listener)
{
	return &listener->address;
}

void *ss_listener_data(const struct ss_listener *listener)
{
	return listener->data;
}

void ss_listener_set_timeout(struct ss_listener *listener, int ms)
{
	listener->timeout_ms = ms;
}

struct ss_listener *ss_server_listener(const struct ss_server *server,
				       int index)
{
	if (index < 0 || index >= server->listener_count)
		return NULL;
	return server->listeners[index];
}

int ss_server_listeners(const struct ss_server *server)
{
	return server->listener_count;
}

char *ss_server_url(const struct ss_server *server, int index, char *buf,
		    size_t size)
{
	const struct ss_listener *listener = ss_server_listener(server, index);
	if (!listener)
		return NULL;
	return ss_url_format(listener->scheme, &listener->address, buf, size);
}

int ss_server_address(const struct ss_server *server, int index,
		      struct ss_address *address)
{
	const struct ss_listener *listener = ss_server_listener(server, index);
	if (!listener)
		return -EINVAL;
	if (!listener->address.len)
		return -ENOTSUP;
	*address = listener->address;
	return 0;
}

int ss_server_fileno(const struct ss_server *server, int index)
{
	const struct ss_listener *listener = ss_server_listener(server, index);
	if (!listener)
		return -EINVAL;
	return listener->watch.fd < 0 ? -ENOTSUP : listener->watch.fd;
}

int ss_server_socket_type(const struct ss_server *server)
{
	int fd = ss_server_fileno(server, 0);
	if (fd < 0)
		return fd;
	int type = 0;
	socklen_t len = sizeof(type);
	if (sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == -1)
		return -errno;
	return type;
}
