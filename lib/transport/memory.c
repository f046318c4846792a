/*
 * Memory: clients and server in one process, joined by byte queues.
 *
 * Under sync nobody can feed a handler that waits, since the thread that would
 * is the one that serves.  So it sees end of file, or, if it has a time-out,
 * the clock jumps to it: such a server's clock stands still otherwise, and
 * the same input gives the same run.
 *
 * Under fiber a handler that waits is parked, and any number of clients and
 * handlers take turns in one thread; the clock jumps when nothing else can
 * happen.  With a thread that serves beside the clients there is no such
 * moment, and from then on time is real.
 *
 * Under threads handlers wait in earnest.
 */
#include "memory.h"

#include <errno.h>
#include <string.h>

#include "../sys.h"
#include "../thread.h"

/* ---- between both ends ----------------------------------------------------*/

void memory_tell(struct memory *memory, struct memory_channel *channel)
{
	pthread_cond_broadcast(&memory->changed);
	if (channel && channel->bell[1])
		sys_ring(channel->bell[1]);
	if (channel && memory->parks) {
		struct ss_server *server = channel->client->server;
		ss_self(server)->stir_request(server, channel->channel.req);
	}
}

void memory_tell_client(struct ss_memory_client *client)
{
	pthread_cond_broadcast(&client->memory->changed);
	if (client->changed)
		client->changed(client->changed_arg);
}

void memory_let_go(struct ss_memory_client *client)
{
	if (--client->references)
		return;
	sys_free(client->to_server.data);
	sys_free(client->to_client.data);
	sys_free(client);
}

void memory_enqueue(struct memory *memory, struct ss_memory_client *client)
{
	client->queued = true;
	client->references++;
	client->next = NULL;
	*memory->last = client;
	memory->last = &client->next;
}

static struct ss_memory_client *dequeue(struct memory *memory)
{
	struct ss_memory_client *client = memory->first;
	if (!client)
		return NULL;
	memory->first = client->next;
	if (!memory->first)
		memory->last = &memory->first;
	client->queued = false;
	return client;
}

size_t memory_room(const struct ss_memory_client *client)
{
	size_t there = bytes_held(&client->to_client);
	if (!client->room || client->closed || client->answered_all)
		return SIZE_MAX;
	return there < client->room ? client->room - there : 0;
}

/* ---- the channel ----------------------------------------------------------*/

static ssize_t memory_read(struct ss_channel *channel, void *buf, size_t n,
			   struct ss_block *block)
{
	struct memory_channel *mine = (struct memory_channel *)channel;
	struct ss_memory_client *client = mine->client;
	pthread_mutex_lock(&client->memory->lock);
	ssize_t r = (ssize_t)bytes_take(&client->to_server, buf, n);
	if (client->reset)
		r = -ECONNRESET;
	else if (r == 0 && !client->sent_all && !mine->half && !mine->forced)
		r = -EAGAIN;
	pthread_mutex_unlock(&client->memory->lock);
	*block = (struct ss_block){ .source = &mine->source,
				    .events = POLLIN,
				    .until = SS_NONE };
	return r;
}

static size_t memory_pending(struct ss_channel *channel)
{
	struct ss_memory_client *client =
		((struct memory_channel *)channel)->client;
	size_t pending = 0;
	pthread_mutex_lock(&client->memory->lock);
	if (memory_is_stream(client->server))
		pending = bytes_held(&client->to_server);
	pthread_mutex_unlock(&client->memory->lock);
	return pending;
}

static ssize_t append_some(struct ss_memory_client *client,
			   const struct iovec *iov, int count)
{
	size_t total = bytes_of(iov, count), room = memory_room(client);
	if (total && !room)
		return -EAGAIN;
	total = total < room ? total : room;
	int r = bytes_make_room(&client->to_client, total);
	if (r < 0)
		return r;
	size_t left = total;
	for (int i = 0; left && i < count; i++) {
		size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
		bytes_append(&client->to_client, iov[i].iov_base, n);
		left -= n;
	}
	return (ssize_t)total;
}

static ssize_t write_to_client(struct memory_channel *mine,
			       const struct iovec *iov, int count)
{
	struct ss_memory_client *client = mine->client;
	bool stream = memory_is_stream(client->server);
	if (client->closed || mine->forced || (stream && client->answered_all))
		return stream ? -EPIPE : -ECONNREFUSED;
	if (stream)
		return append_some(client, iov, count);
	int r = bytes_append_packet(&client->to_client, iov, count);
	return r < 0 ? r : (ssize_t)bytes_of(iov, count);
}

static ssize_t memory_writev(struct ss_channel *channel,
			     const struct iovec *iov, int count,
			     struct ss_block *block)
{
	struct memory_channel *mine = (struct memory_channel *)channel;
	struct memory *memory = mine->client->memory;
	pthread_mutex_lock(&memory->lock);
	ssize_t r = write_to_client(mine, iov, count);
	memory_tell_client(mine->client);
	pthread_mutex_unlock(&memory->lock);
	*block = (struct ss_block){ .source = &mine->source,
				    .events = POLLOUT,
				    .until = SS_NONE };
	return r;
}

/* Only the client has an address here, and it is none. */
static ssize_t memory_send_to(struct ss_channel *channel, const void *buf,
			      size_t n, const struct ss_address *to,
			      struct ss_block *block)
{
	struct iovec iov = { (void *)buf, n };
	return to ? -ENOTSUP : memory_writev(channel, &iov, 1, block);
}

static int memory_shutdown(struct ss_channel *channel, int how,
			   struct ss_block *block)
{
	(void)block;
	struct memory_channel *mine = (struct memory_channel *)channel;
	struct memory *memory = mine->client->memory;
	pthread_mutex_lock(&memory->lock);
	if (how != SHUT_RD)
		mine->client->answered_all = true;
	if (how != SHUT_WR)
		mine->half = true;
	memory_tell_client(mine->client);
	pthread_mutex_unlock(&memory->lock);
	return 0;
}

static void memory_close(struct ss_channel *channel)
{
	struct memory_channel *mine = (struct memory_channel *)channel;
	struct ss_memory_client *client = mine->client;
	struct memory *memory = client->memory;
	pthread_mutex_lock(&memory->lock);
	if (memory_is_stream(client->server))
		client->answered_all = client->unheard = true;
	client->channel = NULL;
	for (int i = 0; i < 2; i++)
		if (mine->bell[i])
			sys_close(mine->bell[i]);
	mine->client = NULL;
	memory_tell_client(client);
	memory_let_go(client);
	pthread_mutex_unlock(&memory->lock);
}

const struct ss_channel_ops memory_ops = {
	.read = memory_read,
	.writev = memory_writev,
	.pending = memory_pending,
	.send_to = memory_send_to,
	.shutdown = memory_shutdown,
	.close = memory_close,
};

/* ---- operations -----------------------------------------------------------*/

static int mem_init(struct ss_server *server, const void *options)
{
	(void)options;
	struct memory *memory = memory_of(server);
	memory->last = &memory->first;
	memory->parks = ss_server_flags(server) & SS_LAYER_PARKS;
	memory->concurrent = !memory->parks &&
			     (ss_server_flags(server) & SS_LAYER_DISPATCHES);
	memory->clock = 1;
	int r = thread_cond_init(&memory->changed);
	if (r < 0)
		return r;
	r = -sys_pthread_mutex_init(&memory->lock, NULL);
	if (r < 0)
		pthread_cond_destroy(&memory->changed);
	return r;
}

static void mem_fini(struct ss_server *server)
{
	struct memory *memory = memory_of(server);
	pthread_mutex_destroy(&memory->lock);
	pthread_cond_destroy(&memory->changed);
}

static int mem_server_bind(struct ss_server *server)
{
	const char *const *addresses = ss_server_addresses(server);
	for (int i = 0; addresses[i]; i++) {
		struct ss_endpoint endpoint;
		struct ss_diag why;
		ssize_t n = ss_resolve(addresses[i], SS_SCHEME_MEMORY,
				       &endpoint, 1, &why);
		if (n >= 0 && endpoint.scheme != SS_SCHEME_MEMORY)
			return ss_refuse(server, -EINVAL,
					 "%s: memory has no descriptors",
					 addresses[i]);
		if (n < 0)
			return ss_refuse(server, (int)n, "%s", why.text);
	}
	unsigned flags = memory_is_stream(server) ? 0 : SS_LISTENER_DGRAM;
	return ss_listener_add(server, -1, SS_SCHEME_MEMORY, NULL, flags, 0,
			       &memory_of(server)->listener);
}

/* Those that still wait are not going to be served. */
static void mem_listener_close(struct ss_server *server,
			       struct ss_listener *listener)
{
	struct memory *memory = memory_of(server);
	pthread_mutex_lock(&memory->lock);
	memory->closed = true;
	struct ss_memory_client *client;
	while ((client = dequeue(memory))) {
		client->answered_all = client->unheard = true;
		memory_tell_client(client);
		memory_let_go(client);
	}
	pthread_mutex_unlock(&memory->lock);
	memory_below(server)->listener_close(server, listener);
}

/* With the lock held: the request's own copy of the packet. */
static int give_packet(struct ss_request *req, struct ss_memory_client *client)
{
	struct bytes *bytes = &client->to_server;
	size_t n = bytes_packet_size(bytes);
	bytes->head += sizeof(n);
	int r = ss_request_set_packet(req, bytes->data + bytes->head, n, false);
	bytes->head += n;
	return r;
}

/* With the lock held.  The queue's reference becomes the request's. */
static int attach(struct ss_request *req, struct ss_memory_client *client)
{
	struct memory_channel *mine = ss_request_space(req);
	mine->client = client;
	mine->source.fd = -1;
	ss_channel_push(req, &mine->channel, &memory_ops);
	ss_request_set_source(req, &mine->source);
	if (memory_is_stream(client->server)) {
		client->channel = mine;
		return 0;
	}
	int r = give_packet(req, client);
	if (bytes_held(&client->to_server))
		memory_enqueue(client->memory, client);
	return r;
}

/*
 * There is no memory for it: its own loss and nobody else's, since a clock
 * that stands still never comes to a second try.
 */
static int lose_first(struct memory *memory, bool stream, int code)
{
	pthread_mutex_lock(&memory->lock);
	struct ss_memory_client *client = dequeue(memory);
	client->status = code;
	if (stream) {
		client->answered_all = client->unheard = true;
	} else {
		size_t n = bytes_packet_size(&client->to_server);
		client->to_server.head += sizeof(n) + n;
		if (bytes_held(&client->to_server))
			memory_enqueue(memory, client);
	}
	memory_tell_client(client);
	memory_let_go(client);
	pthread_mutex_unlock(&memory->lock);
	return -ECONNABORTED;
}

static int mem_get_request(struct ss_server *server,
			   struct ss_listener *listener,
			   struct ss_request **req)
{
	struct memory *memory = memory_of(server);
	pthread_mutex_lock(&memory->lock);
	bool any = memory->first;
	pthread_mutex_unlock(&memory->lock);
	if (!any)
		return -EAGAIN;
	int r = ss_request_new(server, listener, sizeof(struct memory_channel),
			       req);
	if (r < 0)
		return lose_first(memory, memory_is_stream(server), r);
	pthread_mutex_lock(&memory->lock);
	struct ss_memory_client *client = dequeue(memory);
	r = attach(*req, client);
	if (r < 0)
		client->status = r;
	pthread_mutex_unlock(&memory->lock);
	if (r >= 0)
		return r;
	ss_request_drop(*req);
	return -ECONNABORTED;
}

/* Its client is still there: close_request has not run. */
static void mem_handle_error(struct ss_server *server, struct ss_request *req,
			     const struct ss_error *error)
{
	struct memory_channel *mine = req ? ss_request_space(req) : NULL;
	if (mine && mine->client) {
		struct memory *memory = memory_of(server);
		pthread_mutex_lock(&memory->lock);
		if (!mine->client->status)
			mine->client->status = error->code;
		pthread_mutex_unlock(&memory->lock);
	}
	memory_below(server)->handle_error(server, req, error);
}

static int mem_cancel_request(struct ss_server *server, struct ss_request *req,
			      bool force)
{
	struct memory *memory = memory_of(server);
	struct memory_channel *mine = ss_request_space(req);
	/* First, so that who is woken by the rest knows why. */
	int r = memory_below(server)->cancel_request(server, req, force);
	pthread_mutex_lock(&memory->lock);
	mine->half = true;
	mine->forced = mine->forced || force;
	memory_tell(memory, mine);
	pthread_mutex_unlock(&memory->lock);
	return r;
}

static int mem_serve_forever(struct ss_server *server)
{
	memory_let_time_go(server);
	return memory_below(server)->serve_forever(server);
}

/* What both have. */
#define MEMORY_LAYER                                                           \
	.server_size = sizeof(struct memory), .init = mem_init,                \
	.fini = mem_fini,                                                      \
	.ops = {                                                               \
		.server_bind = mem_server_bind,                                \
		.serve_forever = mem_serve_forever,                            \
		.listener_close = mem_listener_close,                          \
		.get_request = mem_get_request,                                \
		.handle_error = mem_handle_error,                              \
		.cancel_request = mem_cancel_request,                          \
		.wait = memory_wait,                                           \
		.wait_any = memory_wait_any,                                   \
		.now = memory_now,                                             \
		.pass_time = memory_pass_time,                                 \
	}

const struct ss_layer ss_memory_server = {
	.name = "memory",
	.flags = SS_LAYER_TRANSPORT | SS_LAYER_STREAM,
	MEMORY_LAYER,
};

const struct ss_layer ss_memory_datagram_server = {
	.name = "memory-datagram",
	.flags = SS_LAYER_TRANSPORT,
	MEMORY_LAYER,
};

#undef MEMORY_LAYER
