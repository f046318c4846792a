/* The clients of servers in memory, and handlers tested by one. */
#include "memory.h"

#include <errno.h>
#include <string.h>

#include "../sys.h"

enum {
	PATIENCE_MS = 1000,
	PATIENCE_TURNS = 1 << 20, /* of a server that has always more to do */
	TURN_MS = 10,
	PACKET_MAX = 65507,
};

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
	if (!closed && memory_is_stream(server))
		memory_enqueue(memory, client);
	pthread_mutex_unlock(&memory->lock);
	if (closed) {
		sys_free(client);
		return -EBADF;
	}
	if (memory_is_stream(server))
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
	int r = bytes_append_packet(&client->to_server, &iov, 1);
	if (r == 0 && !client->queued)
		memory_enqueue(memory, client);
	return r < 0 ? r : (ssize_t)n;
}

ssize_t ss_memory_send(struct ss_memory_client *client, const void *data,
		       size_t n)
{
	struct memory *memory = client->memory;
	ssize_t r;
	bool stream = memory_is_stream(client->server);
	pthread_mutex_lock(&memory->lock);
	if (!stream) {
		r = send_packet(client, data, n);
	} else if (client->sent_all || client->unheard) {
		r = -EPIPE;
	} else {
		r = bytes_make_room(&client->to_server, n);
		if (r == 0) {
			bytes_append(&client->to_server, data, n);
			r = (ssize_t)n;
		}
	}
	memory_tell(memory, client->channel);
	pthread_mutex_unlock(&memory->lock);
	if (!stream && r >= 0)
		ss_listener_ready(client->server, memory->listener);
	return r;
}

void ss_memory_shutdown(struct ss_memory_client *client)
{
	pthread_mutex_lock(&client->memory->lock);
	client->sent_all = true;
	memory_tell(client->memory, client->channel);
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
	memory_tell(memory, client->channel);
	memory_let_go(client);
	pthread_mutex_unlock(&memory->lock);
}

void ss_memory_reset(struct ss_memory_client *client)
{
	struct memory *memory = client->memory;
	pthread_mutex_lock(&memory->lock);
	if (memory_is_stream(client->server)) {
		client->reset = client->sent_all = client->closed = true;
		client->to_server.head = client->to_server.tail;
	}
	memory_tell(memory, client->channel);
	pthread_mutex_unlock(&memory->lock);
}

void ss_memory_limit(struct ss_memory_client *client, size_t n)
{
	pthread_mutex_lock(&client->memory->lock);
	client->room = memory_is_stream(client->server) ? n : 0;
	memory_tell(client->memory, client->channel);
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

/* ---- answers --------------------------------------------------------------*/

/* With the lock held: bytes, 0 at the end, -EAGAIN: nothing yet. */
static ssize_t take_answer(struct ss_memory_client *client, void *buf, size_t n)
{
	if (!bytes_held(&client->to_client))
		return client->answered_all ? 0 : -EAGAIN;
	if (!memory_is_stream(client->server))
		return (ssize_t)bytes_take_packet(&client->to_client, buf, n);
	ssize_t r = (ssize_t)bytes_take(&client->to_client, buf, n);
	if (client->room)
		memory_tell(client->memory, client->channel);
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
	int64_t until = MEMORY_NEVER;
	if (atomic_load(&memory->goes))
		until = ss_now(server) + TURN_MS;
	int turned = ss_server_turn(server, until);
	if (turned == -EBUSY)
		memory_let_time_go(server);
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
