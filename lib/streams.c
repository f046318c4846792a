/*
 * Further streams of a handler: connections of its own beside its client's.
 * Each looks like a request to all calls that read, write and wait; what it
 * shares with the request that it belongs to, it asks of owner_of().
 *
 * Their reads never block in the kernel: nobody would shut them down there.
 */
#include "internal.h"

/* SS_SOURCE_WHOLE: a short read of TCP has taken all (channel.c). */
static int flags_of(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);
	if (sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == -1)
		return -errno;
	if (type != SOCK_STREAM)
		return -EPROTOTYPE;
	/* Not its peer's, who may be gone already: reads tell of that. */
	struct ss_address local = { .len = sizeof(local.u) };
	if (sys_getsockname(fd, &local.u.sa, &local.len) == -1)
		return -errno;
	int family = local.u.sa.sa_family;
	return family == AF_INET || family == AF_INET6 ? SS_SOURCE_WHOLE : 0;
}

static void link_stream(struct ss_request *owner, struct ss_request *stream)
{
	struct rare *rare = owner->rare;
	pthread_mutex_lock(&owner->server->lock);
	stream->next = rare->streams;
	if (stream->next)
		stream->next->prev = stream;
	rare->streams = stream;
	pthread_mutex_unlock(&owner->server->lock);
}

static void unlink_stream(struct ss_request *owner, struct ss_request *stream)
{
	pthread_mutex_lock(&owner->server->lock);
	if (stream->prev)
		stream->prev->next = stream->next;
	else
		owner->rare->streams = stream->next;
	if (stream->next)
		stream->next->prev = stream->prev;
	pthread_mutex_unlock(&owner->server->lock);
}

static struct ss_request *new_stream(struct ss_request *owner)
{
	struct ss_server *server = owner->server;
	struct ss_request *stream =
		request_alloc(server, channel_socket_size());
	if (!stream)
		return NULL;
	struct rare *rare = request_rare(stream);
	if (!rare) {
		request_release(stream);
		return NULL;
	}
	rare->owner = owner;
	rare->handler = owner->rare->handler;
	stream->id = owner->id;
	stream->accepted_at = now(server);
	timeout_merge(stream);
	return stream;
}

int ss_stream_new(struct ss_request *req, int fd, struct ss_request **result)
{
	struct ss_request *owner = owner_of(req);
	*result = NULL;
	int flags = flags_of(fd);
	int r = flags < 0 ? flags : wait_wakeable(owner);
	struct ss_request *stream = NULL;
	if (r == 0 && (!request_rare(owner) || !(stream = new_stream(owner))))
		r = -ENOMEM;
	if (!stream) {
		if (fd >= 0)
			sys_close(fd);
		return r;
	}
	channel_push_socket(stream, fd, (unsigned)flags);
	link_stream(owner, stream);
	*result = stream;
	return 0;
}

void ss_stream_free(struct ss_request *stream)
{
	if (!stream)
		return;
	file_close(stream);
	ss_flush(stream);
	channels_close(stream);
	unlink_stream(stream->rare->owner, stream);
	request_release(stream);
}

void streams_free(struct ss_request *req)
{
	while (req->rare && req->rare->streams)
		ss_stream_free(req->rare->streams);
}
