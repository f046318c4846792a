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
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../sys.h"
#include "../thread.h"

enum {
	PATIENCE_MS = 1000,
	PATIENCE_TURNS = 1 << 20, /* of a server that has always more to do */
	TURN_MS = 10,
	WAITS_MAX = 64,
	PACKET_MAX = 65507,
};

/* A turn's deadline of which the clock shall not know. */
static const int64_t NEVER = INT64_MAX;

struct bytes {
	unsigned char *data;
	size_t head, tail, room;
};

struct ss_memory_client {
	struct ss_server *server;
	struct memory *memory;
	struct ss_memory_client *next; /* waiting to be accepted */
	int references;		       /* its owner, the queue, requests */
	struct bytes to_server;	       /* datagrams: each after its size */
	struct bytes to_client;
	bool sent_all;	   /* the client's end of file */
	bool answered_all; /* the server's */
	bool closed;	   /* by its owner */
	bool unheard;	   /* nobody will read what it sends */
	bool reset;	   /* by the client */
	bool queued;
	size_t room; /* bytes that it takes before it receives; 0: any number */
	void (*changed)(void *arg);
	void *changed_arg;
	struct memory_channel *channel; /* of its stream's request */
	int status; /* of its request's end; the first that failed */
};

/* A server's; everything of its clients is under its lock. */
struct memory {
	struct ss_listener *listener;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct ss_memory_client *first, **last; /* waiting */
	bool concurrent; /* handlers run beside the clients */
	bool parks;	 /* they wait, and the clients' thread goes on */
	bool closed;
	atomic_llong clock; /* while it stands */
	atomic_bool stuck;  /* a turn until NEVER: nothing is left to do */
	/* Under fiber, from when a thread of its own serves: the clock goes, so
	 * far ahead of the real one (below 0: behind). */
	atomic_bool goes;
	atomic_llong ahead;
};

struct memory_channel {
	struct ss_channel channel;
	struct ss_source source;
	struct ss_memory_client *client;
	bool half, forced; /* cancel_request; lock */
	int bell[2];	   /* under threads, for wait_any; 0: none; lock */
};

static struct memory *memory_of(const struct ss_server *server)
{
	return ss_layer_state(server, ss_server_transport(server));
}

static bool is_stream(const struct ss_server *server)
{
	return ss_server_transport(server)->flags & SS_LAYER_STREAM;
}

/* With the lock held: something has changed for who waits. */
static void tell(struct memory *memory, struct memory_channel *channel)
{
	pthread_cond_broadcast(&memory->changed);
	if (channel && channel->bell[1])
		sys_ring(channel->bell[1]);
	if (channel && memory->parks) {
		struct ss_server *server = channel->client->server;
		ss_self(server)->stir_request(server, channel->channel.req);
	}
}

/* The same for its client: there is an answer. */
static void tell_client(struct ss_memory_client *client)
{
	pthread_cond_broadcast(&client->memory->changed);
	if (client->changed)
		client->changed(client->changed_arg);
}

static const struct ss_ops *below(const struct ss_server *server)
{
	return ss_super(server, ss_server_transport(server));
}

/* ---- bytes ----------------------------------------------------------------*/

static size_t held(const struct bytes *bytes)
{
	return bytes->tail - bytes->head;
}

static int make_room(struct bytes *bytes, size_t n)
{
	size_t kept = held(bytes);
	if (bytes->head) {
		memmove(bytes->data, bytes->data + bytes->head, kept);
		bytes->head = 0;
		bytes->tail = kept;
	}
	if (bytes->room - kept >= n)
		return 0;
	size_t room = 2 * (kept + n);
	unsigned char *data = sys_realloc(bytes->data, room);
	if (!data)
		return -ENOMEM;
	bytes->data = data;
	bytes->room = room;
	return 0;
}

static void append(struct bytes *bytes, const void *data, size_t n)
{
	assert(!n || bytes->data);
	if (n)
		memcpy(bytes->data + bytes->tail, data, n);
	bytes->tail += n;
}

static size_t take(struct bytes *bytes, void *buf, size_t n)
{
	if (n > held(bytes))
		n = held(bytes);
	if (n)
		memcpy(buf, bytes->data + bytes->head, n);
	bytes->head += n;
	return n;
}

static size_t total_of(const struct iovec *iov, int count)
{
	size_t total = 0;
	for (int i = 0; i < count; i++)
		total += iov[i].iov_len;
	return total;
}

/* A packet stands after its size. */
static int append_packet(struct bytes *bytes, const struct iovec *iov,
			 int count)
{
	size_t n = total_of(iov, count);
	if (make_room(bytes, sizeof(n) + n) < 0)
		return -ENOMEM;
	append(bytes, &n, sizeof(n));
	for (int i = 0; i < count; i++)
		append(bytes, iov[i].iov_base, iov[i].iov_len);
	return 0;
}

static size_t packet_size(const struct bytes *bytes)
{
	size_t n;
	memcpy(&n, bytes->data + bytes->head, sizeof(n));
	return n;
}

static size_t take_packet(struct bytes *bytes, void *buf, size_t n)
{
	size_t size;
	take(bytes, &size, sizeof(size));
	size_t taken = take(bytes, buf, n < size ? n : size);
	bytes->head += size - taken;
	return taken;
}

/* ---- clients --------------------------------------------------------------*/

/* With the lock held. */
static void let_go(struct ss_memory_client *client)
{
	if (--client->references)
		return;
	sys_free(client->to_server.data);
	sys_free(client->to_client.data);
	sys_free(client);
}

static void enqueue(struct memory *memory, struct ss_memory_client *client)
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

int ss_memory_connect(struct ss_server *server,
		      struct ss_memory_client **result)
{
	*result = NULL;
	const struct ss_layer *transport = ss_server_transport(server);
	if (transport != &ss_memory_server &&
	    transport != &ss_memory_datagram_server)
		return -EINVAL;
	struct memory *memory = memory_of(server);
	struct ss_memory_client *client = sys_calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->server = server;
	client->memory = memory;
	client->references = 1;
	pthread_mutex_lock(&memory->lock);
	bool closed = memory->closed || !memory->listener;
	if (!closed && is_stream(server))
		enqueue(memory, client);
	pthread_mutex_unlock(&memory->lock);
	if (closed) {
		sys_free(client);
		return -EBADF;
	}
	if (is_stream(server))
		ss_listener_ready(server, memory->listener);
	*result = client;
	return 0;
}

static ssize_t send_packet(struct ss_memory_client *client, const void *data,
			   size_t n)
{
	struct memory *memory = client->memory;
	struct iovec iov = { (void *)data, n };
	if (memory->closed)
		return -EBADF;
	int r = append_packet(&client->to_server, &iov, 1);
	if (r == 0 && !client->queued)
		enqueue(memory, client);
	return r < 0 ? r : (ssize_t)n;
}

ssize_t ss_memory_send(struct ss_memory_client *client, const void *data,
		       size_t n)
{
	struct memory *memory = client->memory;
	ssize_t r;
	bool stream = is_stream(client->server);
	pthread_mutex_lock(&memory->lock);
	if (!stream) {
		r = send_packet(client, data, n);
	} else if (client->sent_all || client->unheard) {
		r = -EPIPE;
	} else {
		r = make_room(&client->to_server, n);
		if (r == 0) {
			append(&client->to_server, data, n);
			r = (ssize_t)n;
		}
	}
	tell(memory, client->channel);
	pthread_mutex_unlock(&memory->lock);
	if (!stream && r >= 0)
		ss_listener_ready(client->server, memory->listener);
	return r;
}

void ss_memory_shutdown(struct ss_memory_client *client)
{
	pthread_mutex_lock(&client->memory->lock);
	client->sent_all = true;
	tell(client->memory, client->channel);
	pthread_mutex_unlock(&client->memory->lock);
}

void ss_memory_close(struct ss_memory_client *client)
{
	if (!client)
		return;
	struct memory *memory = client->memory;
	pthread_mutex_lock(&memory->lock);
	client->sent_all = client->closed = true;
	client->changed = NULL;
	tell(memory, client->channel);
	let_go(client);
	pthread_mutex_unlock(&memory->lock);
}

void ss_memory_reset(struct ss_memory_client *client)
{
	struct memory *memory = client->memory;
	pthread_mutex_lock(&memory->lock);
	if (is_stream(client->server)) {
		client->reset = client->sent_all = client->closed = true;
		client->to_server.head = client->to_server.tail;
	}
	tell(memory, client->channel);
	pthread_mutex_unlock(&memory->lock);
}

void ss_memory_limit(struct ss_memory_client *client, size_t n)
{
	pthread_mutex_lock(&client->memory->lock);
	client->room = is_stream(client->server) ? n : 0;
	tell(client->memory, client->channel);
	pthread_mutex_unlock(&client->memory->lock);
}

void ss_memory_watch(struct ss_memory_client *client,
		     void (*changed)(void *arg), void *arg)
{
	pthread_mutex_lock(&client->memory->lock);
	client->changed = changed;
	client->changed_arg = arg;
	pthread_mutex_unlock(&client->memory->lock);
}

/* With the lock held: bytes, 0 at the end, -EAGAIN: nothing yet. */
static ssize_t take_answer(struct ss_memory_client *client, void *buf, size_t n)
{
	if (!held(&client->to_client))
		return client->answered_all ? 0 : -EAGAIN;
	if (!is_stream(client->server))
		return (ssize_t)take_packet(&client->to_client, buf, n);
	ssize_t r = (ssize_t)take(&client->to_client, buf, n);
	if (client->room)
		tell(client->memory, client->channel);
	return r;
}

ssize_t ss_memory_try_recv(struct ss_memory_client *client, void *buf, size_t n)
{
	pthread_mutex_lock(&client->memory->lock);
	ssize_t r = take_answer(client, buf, n);
	pthread_mutex_unlock(&client->memory->lock);
	return r;
}

/* Until then for real; 0: looks only. */
static ssize_t wait_for_answer(struct ss_memory_client *client, void *buf,
			       size_t n, int64_t until)
{
	struct memory *memory = client->memory;
	struct timespec at = { .tv_sec = (time_t)(until / 1000),
			       .tv_nsec = (long)(until % 1000) * 1000000 };
	pthread_mutex_lock(&memory->lock);
	ssize_t r;
	int error = until ? 0 : ETIMEDOUT;
	while ((r = take_answer(client, buf, n)) == -EAGAIN && !error)
		error = pthread_cond_timedwait(&memory->changed, &memory->lock,
					       &at);
	pthread_mutex_unlock(&memory->lock);
	return r;
}

/* The thread that serves has a life of its own: time is real from now on. */
static void let_time_go(struct ss_server *server)
{
	struct memory *memory = memory_of(server);
	pthread_mutex_lock(&memory->lock);
	if (memory->parks && !atomic_load(&memory->goes)) {
		memory->ahead = memory->clock - below(server)->now(server);
		atomic_store(&memory->goes, true);
	}
	pthread_mutex_unlock(&memory->lock);
}

/*
 * One turn in the client's own thread.  Where handlers park, it takes the clock
 * along to what they wait for, once nothing else can happen.  > 0: perhaps
 * there is an answer now; 0: no other turn will help; < 0.
 */
static int serve(struct ss_server *server)
{
	struct memory *memory = memory_of(server);
	if (!memory->parks)
		return ss_server_turn(server, 0);
	int64_t until = NEVER;
	if (atomic_load(&memory->goes))
		until = ss_now(server) + TURN_MS;
	int turned = ss_server_turn(server, until);
	if (turned == -EBUSY)
		let_time_go(server);
	if (turned < 0)
		return turned;
	return !atomic_exchange(&memory->stuck, false);
}

static bool patient(const struct memory *memory, int turns, int64_t began)
{
	if (memory->concurrent || atomic_load(&memory->goes))
		return sys_now_ms() < began + PATIENCE_MS;
	return turns < PATIENCE_TURNS;
}

ssize_t ss_memory_recv(struct ss_memory_client *client, void *buf, size_t n)
{
	struct memory *memory = client->memory;
	int64_t began = sys_now_ms(), until = 0;
	bool over = false;
	for (int turns = 0;; turns++) {
		ssize_t r = wait_for_answer(client, buf, n, until);
		if (r != -EAGAIN || over)
			return r;
		int turned = serve(client->server);
		if (turned < 0 && turned != -EBUSY)
			return turned;
		/* Those who wait for a place of the server's get one only by a
		 * turn, which nobody else may make. */
		bool beside =
			turned == -EBUSY || (turned == 0 && memory->concurrent);
		until = beside ? sys_now_ms() + TURN_MS : 0;
		over = (turned == 0 && !beside) ||
		       !patient(memory, turns, began);
	}
}

/* ---- the channel ----------------------------------------------------------*/

static ssize_t memory_read(struct ss_channel *channel, void *buf, size_t n,
			   struct ss_block *block)
{
	struct memory_channel *mine = (struct memory_channel *)channel;
	struct ss_memory_client *client = mine->client;
	pthread_mutex_lock(&client->memory->lock);
	ssize_t r = (ssize_t)take(&client->to_server, buf, n);
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
	if (is_stream(client->server))
		pending = held(&client->to_server);
	pthread_mutex_unlock(&client->memory->lock);
	return pending;
}

/* How many bytes a stream's client takes now. */
static size_t room_of(const struct ss_memory_client *client)
{
	size_t there = held(&client->to_client);
	if (!client->room || client->closed || client->answered_all)
		return SIZE_MAX;
	return there < client->room ? client->room - there : 0;
}

static ssize_t append_some(struct ss_memory_client *client,
			   const struct iovec *iov, int count)
{
	size_t total = total_of(iov, count), room = room_of(client);
	if (total && !room)
		return -EAGAIN;
	total = total < room ? total : room;
	int r = make_room(&client->to_client, total);
	if (r < 0)
		return r;
	size_t left = total;
	for (int i = 0; left; i++) {
		size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
		append(&client->to_client, iov[i].iov_base, n);
		left -= n;
	}
	return (ssize_t)total;
}

static ssize_t write_to_client(struct memory_channel *mine,
			       const struct iovec *iov, int count)
{
	struct ss_memory_client *client = mine->client;
	bool stream = is_stream(client->server);
	if (client->closed || mine->forced || (stream && client->answered_all))
		return stream ? -EPIPE : -ECONNREFUSED;
	if (stream)
		return append_some(client, iov, count);
	int r = append_packet(&client->to_client, iov, count);
	return r < 0 ? r : (ssize_t)total_of(iov, count);
}

static ssize_t memory_writev(struct ss_channel *channel,
			     const struct iovec *iov, int count,
			     struct ss_block *block)
{
	struct memory_channel *mine = (struct memory_channel *)channel;
	struct memory *memory = mine->client->memory;
	pthread_mutex_lock(&memory->lock);
	ssize_t r = write_to_client(mine, iov, count);
	tell_client(mine->client);
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
	tell_client(mine->client);
	pthread_mutex_unlock(&memory->lock);
	return 0;
}

static void memory_close(struct ss_channel *channel)
{
	struct memory_channel *mine = (struct memory_channel *)channel;
	struct ss_memory_client *client = mine->client;
	struct memory *memory = client->memory;
	pthread_mutex_lock(&memory->lock);
	if (is_stream(client->server))
		client->answered_all = client->unheard = true;
	client->channel = NULL;
	for (int i = 0; i < 2; i++)
		if (mine->bell[i])
			sys_close(mine->bell[i]);
	mine->client = NULL;
	tell_client(client);
	let_go(client);
	pthread_mutex_unlock(&memory->lock);
}

static const struct ss_channel_ops memory_ops = {
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
	unsigned flags = is_stream(server) ? 0 : SS_LISTENER_DGRAM;
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
		tell_client(client);
		let_go(client);
	}
	pthread_mutex_unlock(&memory->lock);
	below(server)->listener_close(server, listener);
}

/* With the lock held: the request's own copy of the packet. */
static int give_packet(struct ss_request *req, struct ss_memory_client *client)
{
	struct bytes *bytes = &client->to_server;
	size_t n = packet_size(bytes);
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
	if (is_stream(client->server)) {
		client->channel = mine;
		return 0;
	}
	int r = give_packet(req, client);
	if (held(&client->to_server))
		enqueue(client->memory, client);
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
		size_t n = packet_size(&client->to_server);
		client->to_server.head += sizeof(n) + n;
		if (held(&client->to_server))
			enqueue(memory, client);
	}
	tell_client(client);
	let_go(client);
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
		return lose_first(memory, is_stream(server), r);
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
	below(server)->handle_error(server, req, error);
}

static int mem_cancel_request(struct ss_server *server, struct ss_request *req,
			      bool force)
{
	struct memory *memory = memory_of(server);
	struct memory_channel *mine = ss_request_space(req);
	/* First, so that who is woken by the rest knows why. */
	int r = below(server)->cancel_request(server, req, force);
	pthread_mutex_lock(&memory->lock);
	mine->half = true;
	mine->forced = mine->forced || force;
	tell(memory, mine);
	pthread_mutex_unlock(&memory->lock);
	return r;
}

/* ---- waiting --------------------------------------------------------------*/

/* Nobody else runs: either time passes, or nothing ever comes. */
static int wait_alone(struct memory *memory, int64_t deadline)
{
	if (deadline == SS_NONE)
		return -ESHUTDOWN;
	if (memory->clock < deadline)
		memory->clock = deadline;
	return -ETIMEDOUT;
}

/* With the lock held: bytes, or their end. */
static bool input_is_there(const struct memory_channel *mine)
{
	const struct ss_memory_client *client = mine->client;
	return held(&client->to_server) || client->sent_all || mine->half;
}

/* With the lock held: what the channel would not block for. */
static short channel_ready(const struct memory_channel *mine)
{
	short in = input_is_there(mine) ? POLLIN : 0;
	return in | (room_of(mine->client) || mine->forced ? POLLOUT : 0);
}

static int wait_for_events(struct memory *memory, struct memory_channel *mine,
			   short events, int64_t deadline)
{
	struct timespec at = { .tv_sec = (time_t)(deadline / 1000),
			       .tv_nsec = (long)(deadline % 1000) * 1000000 };
	int error = 0;
	pthread_mutex_lock(&memory->lock);
	while (!(channel_ready(mine) & events) && !error) {
		if (deadline == SS_NONE)
			pthread_cond_wait(&memory->changed, &memory->lock);
		else
			error = pthread_cond_timedwait(&memory->changed,
						       &memory->lock, &at);
	}
	int r = mine->forced				   ? -ECANCELED
		: error && !(channel_ready(mine) & events) ? -ETIMEDOUT
							   : 0;
	pthread_mutex_unlock(&memory->lock);
	return r;
}

/* A further stream's socket is looked at once; then time jumps. */
static int wait_alone_for(struct ss_server *server, struct ss_request *req,
			  struct ss_source *source, short events,
			  int64_t deadline)
{
	struct memory *memory = memory_of(server);
	int64_t at = deadline == SS_NONE ? SS_NONE : memory->clock;
	int r = below(server)->wait(server, req, source, events, at);
	return r == -ETIMEDOUT ? wait_alone(memory, deadline) : r;
}

/* The model waits, and asks what there is. */
static int look(struct memory *memory, const struct memory_channel *mine,
		short events)
{
	pthread_mutex_lock(&memory->lock);
	bool ready = channel_ready(mine) & events;
	pthread_mutex_unlock(&memory->lock);
	return ready ? 0 : -ETIMEDOUT;
}

static int mem_wait(struct ss_server *server, struct ss_request *req,
		    struct ss_source *source, short events, int64_t deadline)
{
	struct memory *memory = memory_of(server);
	struct memory_channel *mine = req ? ss_request_space(req) : NULL;
	bool other = !mine || source != &mine->source;
	if (other && !memory->parks && !memory->concurrent)
		return wait_alone_for(server, req, source, events, deadline);
	if (other)
		return below(server)->wait(server, req, source, events,
					   deadline);
	if (memory->parks)
		return look(memory, mine, events);
	if (!memory->concurrent)
		return wait_alone(memory, deadline);
	return wait_for_events(memory, mine, events, deadline);
}

static struct memory_channel *channel_of(struct ss_request *req)
{
	const struct ss_layer *transport =
		req ? ss_server_transport(ss_request_server(req)) : NULL;
	if (transport != &ss_memory_server &&
	    transport != &ss_memory_datagram_server)
		return NULL;
	/* A further stream is a socket here, too; its space begins with the
	 * channel of one. */
	struct memory_channel *mine = ss_request_space(req);
	return mine->channel.ops == &memory_ops ? mine : NULL;
}

/* With the lock held.  Reading a packet never waits. */
static short readiness(struct memory_channel *mine)
{
	char bytes[8];
	while (mine->bell[0] &&
	       sys_read(mine->bell[0], bytes, sizeof(bytes)) > 0)
		;
	short packet = is_stream(mine->client->server) ? 0 : POLLIN;
	return channel_ready(mine) | packet;
}

/* How many of the memory streams among them are ready. */
static int streams_ready(struct memory *memory, struct ss_wait *waits,
			 int count)
{
	int ready = 0;
	pthread_mutex_lock(&memory->lock);
	for (int i = 0; i < count; i++) {
		struct memory_channel *mine = channel_of(waits[i].req);
		if (mine)
			waits[i].revents = readiness(mine) & waits[i].events;
		ready += mine && waits[i].revents;
	}
	pthread_mutex_unlock(&memory->lock);
	return ready;
}

/* Time jumps, or, where it has no end, so does the input. */
static int wait_any_alone(struct ss_server *server, struct ss_request *req,
			  struct ss_wait *waits, int count, int64_t deadline)
{
	struct memory *memory = memory_of(server);
	int r = below(server)->wait_any(server, req, waits, count,
					memory->clock);
	if (r >= 0)
		r += streams_ready(memory, waits, count);
	if (r)
		return r;
	for (int i = 0; deadline == SS_NONE && i < count; i++)
		if (channel_of(waits[i].req)) {
			waits[i].revents = waits[i].events & POLLIN;
			r += waits[i].revents != 0;
		}
	if (r)
		return r;
	if (deadline == SS_NONE)
		return below(server)->wait_any(server, req, waits, count,
					       SS_NONE);
	if (memory->clock < deadline)
		memory->clock = deadline;
	return 0;
}

/* In place of streams, the pipes that ring when their input changes. */
static int hang_bells(struct memory *memory, const struct ss_wait *waits,
		      int count, struct ss_wait *bells)
{
	int r = 0;
	pthread_mutex_lock(&memory->lock);
	for (int i = 0; r == 0 && i < count; i++) {
		struct memory_channel *mine = channel_of(waits[i].req);
		int pipe[2];
		bells[i] = waits[i];
		if (mine && !mine->bell[0]) {
			r = sys_pipe(pipe) == -1 ? -errno : 0;
			if (r == 0)
				memcpy(mine->bell, pipe, sizeof(pipe));
		}
		if (mine)
			bells[i] = (struct ss_wait){ .fd = mine->bell[0],
						     .events = POLLIN };
	}
	pthread_mutex_unlock(&memory->lock);
	return r;
}

static int wait_any_beside(struct ss_server *server, struct ss_request *req,
			   struct ss_wait *waits, int count, int64_t deadline)
{
	struct memory *memory = memory_of(server);
	struct ss_wait bells[WAITS_MAX];
	for (;;) {
		int r = hang_bells(memory, waits, count, bells);
		if (r == 0)
			r = streams_ready(memory, waits, count);
		if (r)
			return r;
		r = below(server)->wait_any(server, req, bells, count,
					    deadline);
		if (r <= 0)
			return r;
		r = streams_ready(memory, waits, count);
		for (int i = 0; i < count; i++)
			if (!channel_of(waits[i].req)) {
				waits[i].revents = bells[i].revents;
				r += waits[i].revents != 0;
			}
		if (r)
			return r;
	}
}

static int mem_wait_any(struct ss_server *server, struct ss_request *req,
			struct ss_wait *waits, int count, int64_t deadline)
{
	if (!memory_of(server)->concurrent)
		return wait_any_alone(server, req, waits, count, deadline);
	return wait_any_beside(server, req, waits, count, deadline);
}

static int64_t mem_now(struct ss_server *server)
{
	struct memory *memory = memory_of(server);
	if (memory->concurrent)
		return below(server)->now(server);
	if (atomic_load(&memory->goes))
		return below(server)->now(server) + memory->ahead;
	return memory->clock;
}

static int mem_pass_time(struct ss_server *server, int64_t until)
{
	struct memory *memory = memory_of(server);
	if (!memory->parks || atomic_load(&memory->goes) || until == SS_NONE)
		return below(server)->pass_time(server, until);
	if (until == NEVER)
		atomic_store(&memory->stuck, true);
	else if (memory->clock < until)
		memory->clock = until;
	return 0;
}

static int mem_serve_forever(struct ss_server *server)
{
	let_time_go(server);
	return below(server)->serve_forever(server);
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
		.wait = mem_wait,                                              \
		.wait_any = mem_wait_any,                                      \
		.now = mem_now,                                                \
		.pass_time = mem_pass_time,                                    \
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

/* ---- a handler's test -----------------------------------------------------*/

static int start(const struct ss_handler *handler,
		 const struct ss_layer *transport, struct ss_server **server,
		 struct ss_memory_client **client)
{
	struct ss_config config = {
		.transport = transport,
		.handler = handler,
		.log_level = SS_NONE,
	};
	int r = ss_server_new(server, &config, NULL);
	if (r < 0)
		return r;
	r = ss_memory_connect(*server, client);
	if (r < 0)
		ss_server_free(*server);
	return r;
}

/* The handler's failure, if it failed, before what it answered. */
static ssize_t end(struct ss_server *server, struct ss_memory_client *client,
		   ssize_t answer)
{
	if (client->status < 0)
		answer = client->status;
	ss_memory_close(client);
	ss_server_free(server);
	return answer;
}

ssize_t ss_memory_exchange(const struct ss_handler *handler, const void *in,
			   size_t n, void *out, size_t room)
{
	struct ss_server *server;
	struct ss_memory_client *client;
	int made = start(handler, &ss_memory_server, &server, &client);
	if (made < 0)
		return made;
	size_t got = 0;
	ssize_t r = ss_memory_send(client, in, n);
	ss_memory_shutdown(client);
	while (r >= 0) {
		char rest[512];
		bool fits = got < room;
		r = ss_memory_recv(client, fits ? (char *)out + got : rest,
				   fits ? room - got : sizeof(rest));
		if (r == 0)
			break;
		if (r > 0)
			got += (size_t)r;
	}
	return end(server, client, r < 0 ? r : (ssize_t)got);
}

ssize_t ss_memory_exchange_packet(const struct ss_handler *handler,
				  const void *in, size_t n, void *out,
				  size_t room)
{
	struct ss_server *server;
	struct ss_memory_client *client;
	int made = start(handler, &ss_memory_datagram_server, &server, &client);
	if (made < 0)
		return made;
	unsigned char *reply = sys_malloc(PACKET_MAX);
	ssize_t r = reply ? ss_memory_send(client, in, n) : -ENOMEM;
	if (r >= 0)
		r = ss_memory_recv(client, reply, PACKET_MAX);
	size_t stored = r > 0 && (size_t)r > room ? room : (size_t)r;
	if (r > 0 && stored)
		memcpy(out, reply, stored);
	sys_free(reply);
	return end(server, client, r);
}
