/*
 * The reader of a stream, and the one loop that reads: try; interrupted:
 * again; would block: wait, and again.
 *
 * One buffer serves every way of reading, so that they mix.  With an empty
 * buffer and a large enough destination the bytes go straight to the caller.
 */
#include "internal.h"

enum {
	RBUF = 8192,
	DIRECT = 1024,
	LENT_MAX = 64,
};

/* ---- buffers --------------------------------------------------------------*/

/* Room for so many bytes beyond what there is, at the buffer's end. */
struct buffer *buffer_grow(struct buffer **buffer, size_t room)
{
	struct buffer *b = *buffer;
	if (b && !b->head && b->room - b->tail >= room)
		return b;
	size_t held = b ? b->tail - b->head : 0;
	if (b && b->head) {
		memmove(b->data, b->data + b->head, held);
		b->head = 0;
		b->tail = held;
	}
	if (b && b->room - b->tail >= room)
		return b;
	b = sys_realloc(b, sizeof(*b) + held + room);
	if (!b)
		return NULL;
	if (!*buffer)
		b->head = b->tail = 0;
	b->room = held + room;
	return *buffer = b;
}

/*
 * Where many requests wait on one thread, those that wait have no buffer: it
 * is lent to the next one that reads.
 */
static struct buffer *borrow(struct ss_server *server)
{
	pthread_mutex_lock(&server->lock);
	struct buffer *b = server->lent;
	if (b) {
		server->lent = b->next;
		server->lent_count--;
	}
	pthread_mutex_unlock(&server->lock);
	return b;
}

static void give_back(struct ss_server *server, struct buffer **buffer)
{
	struct buffer *b = *buffer;
	if (!b || b->tail != b->head)
		return;
	*buffer = NULL;
	b->head = b->tail = 0;
	pthread_mutex_lock(&server->lock);
	bool keep = b->room == RBUF && server->lent_count < LENT_MAX;
	if (keep) {
		b->next = server->lent;
		server->lent = b;
		server->lent_count++;
	}
	pthread_mutex_unlock(&server->lock);
	if (!keep)
		sys_free(b);
}

void stream_give_back(struct ss_request *req)
{
	if (!(req->server->flags & SS_LAYER_PARKS))
		return;
	give_back(req->server, &req->in);
	give_back(req->server, &req->out);
}

void buffers_free(struct ss_server *server)
{
	while (server->lent) {
		struct buffer *b = server->lent;
		server->lent = b->next;
		sys_free(b);
	}
}

struct buffer *stream_buffer(struct ss_request *req, struct buffer **buffer,
			     size_t room)
{
	if (!*buffer && room == RBUF && (req->server->flags & SS_LAYER_PARKS))
		*buffer = borrow(req->server);
	return buffer_grow(buffer, room);
}

void stream_free(struct ss_request *req)
{
	stream_rest(req);
	sys_free(req->in);
	sys_free(req->out);
	req->in = req->out = NULL;
}

/* Small ones stay with an ended request, for the next that it will be. */
static void keep_buffer(struct buffer **buffer)
{
	struct buffer *b = *buffer;
	if (!b)
		return;
	b->head = b->tail = 0;
	if (b->room <= RBUF)
		return;
	sys_free(b);
	*buffer = NULL;
}

void stream_end(struct ss_request *req)
{
	if (!req->dgram) {
		stream_free(req);
		return;
	}
	keep_buffer(&req->in);
	keep_buffer(&req->out);
}

const unsigned char *stream_data(const struct ss_request *req)
{
	static const unsigned char none;
	return req->in ? req->in->data + req->in->head : &none;
}

void stream_consume(struct ss_request *req, size_t n)
{
	if (!n)
		return;
	req->in->head += n;
	if (req->in->head == req->in->tail)
		req->in->head = req->in->tail = 0;
}

/* How much the reader takes ahead; 0: unbuffered. */
size_t stream_room(const struct ss_request *req)
{
	int size = handler_of(req)->rbufsize;
	return size == SS_NONE ? 0 : size > 0 ? (size_t)size : RBUF;
}

/* ---- the loop -------------------------------------------------------------*/

/* After "would block": 0: try again; else as the op `wait`. */
int stream_wait(struct ss_request *req, const struct ss_block *block)
{
	struct ss_server *server = req->server;
	struct ss_request *owner = owner_of(req);
	int64_t deadline = nearest(req->deadline, block->until);
	req->streak = 0;
	progress_blocks(req, block->events);
	int r = self(server)->wait(server, owner, block->source, block->events,
				   deadline);
	progress_waits(owner, SS_WAITS_NOTHING);
	if (block->source)
		block->source->flags &= ~(unsigned)SS_SOURCE_DRY;
	if (r != -ETIMEDOUT)
		return r;
	bool delay_over = block->until != SS_NONE && deadline == block->until;
	return delay_over ? 0 : timeout_struck(req);
}

/* The input has ended: said once, then an error. */
ssize_t stream_eof(struct ss_request *req)
{
	if (req->eof_told)
		return -ENODATA;
	req->eof_told = true;
	return 0;
}

static void note_input(struct ss_request *req, size_t n)
{
	atomic_store_explicit(&progress_of(req)->bytes_in, bytes_in(req) + n,
			      memory_order_relaxed);
	req->midway = true;
	if (atomic_load_explicit(&req->idle, memory_order_relaxed))
		atomic_store_explicit(&req->idle, false, memory_order_release);
}

void stream_yield(struct ss_request *req)
{
	struct ss_server *server = req->server;
	req->streak = 0;
	if (server->flags & SS_LAYER_PARKS)
		self(server)->wait(server, owner_of(req), NULL, 0, 0);
}

/* After a read that brought nothing: 1: to be tried again; else as read_some.
 */
APART static int await_input(struct ss_request *req, int r,
			     const struct ss_block *block)
{
	if (r == -EAGAIN) {
		stream_rest(req);
		r = stream_wait(req, block);
		if (r == 0)
			return 1;
	}
	if (r == -ESHUTDOWN || (r == 0 && !stream_forced(req))) {
		req->eof = true;
		return 0;
	}
	if (r == -EINTR)
		r = timeout_interrupted(req);
	return r < 0 ? r : 1;
}

/*
 * > 0 bytes; 0: the input has ended; < 0.  Into `given`, or, if that is NULL,
 * at the end of the buffer, which a wait may take away while it is empty.
 */
static ssize_t read_some(struct ss_request *req, void *given, size_t n)
{
	if (req->eof || req->dgram) {
		req->eof = true;
		return 0;
	}
	if (timeout_deadline(req, POLLIN) != SS_NONE && timeout_overdue(req))
		return -ETIMEDOUT;
	stream_pause(req);
	if (atomic_load_explicit(&req->server->crowded, memory_order_relaxed))
		crowd_make_way(req);
	for (;;) {
		if (stream_forced(req))
			return -ECANCELED;
		if (!given && !stream_buffer(req, &req->in, n))
			return -ENOMEM;
		void *buf = given ? given : req->in->data + req->in->tail;
		struct ss_block block;
		ssize_t r = ss_channel_read(req->top, buf, n, &block);
		if (r > 0) {
			note_input(req, (size_t)r);
			return r;
		}
		r = await_input(req, (int)r, &block);
		if (r <= 0)
			return r;
	}
}

/* Reads more into the buffer, at most `room` bytes. */
ssize_t stream_fill(struct ss_request *req, size_t room)
{
	ssize_t r = read_some(req, NULL, room);
	if (r > 0)
		req->in->tail += (size_t)r;
	return r;
}

/* A whole message was read, and nothing of the next one. */
void stream_message_done(struct ss_request *req)
{
	if (!stream_buffered(req))
		req->midway = false;
}

/* ---- reading --------------------------------------------------------------*/

static size_t take(struct ss_request *req, void *buf, size_t n)
{
	size_t there = stream_buffered(req);
	if (n > there)
		n = there;
	if (n)
		memcpy(buf, stream_data(req), n);
	stream_consume(req, n);
	return n;
}

ssize_t ss_read(struct ss_request *req, void *buf, size_t n)
{
	if (!n)
		return 0;
	if (stream_buffered(req)) {
		if (stream_forced(req))
			return -ECANCELED;
		return (ssize_t)take(req, buf, n);
	}
	ssize_t r;
	if (n >= DIRECT || n >= stream_room(req)) {
		r = read_some(req, buf, n);
	} else {
		r = stream_fill(req, stream_room(req));
		if (r > 0)
			r = (ssize_t)take(req, buf, n);
	}
	return r ? r : stream_eof(req);
}

ssize_t ss_try_read(struct ss_request *req, void *buf, size_t n)
{
	if (!n || stream_buffered(req) || req->eof || req->dgram)
		return ss_read(req, buf, n);
	if (stream_forced(req))
		return -ECANCELED;
	unsigned kept = 0;
	if (req->source) {
		kept = req->source->flags & SS_SOURCE_BLOCKS;
		req->source->flags &=
			~(unsigned)(SS_SOURCE_BLOCKS | SS_SOURCE_DRY);
	}
	struct ss_block block;
	ssize_t r;
	do
		r = ss_channel_read(req->top, buf, n, &block);
	while (r == -EINTR);
	if (req->source)
		req->source->flags |= kept;
	if (r > 0)
		note_input(req, (size_t)r);
	if (r)
		return r;
	req->eof = true;
	return stream_eof(req);
}

static ssize_t read_long(struct ss_request *req, char *buf, size_t n)
{
	size_t got = take(req, buf, n);
	while (got < n) {
		ssize_t r = read_some(req, buf + got, n - got);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		got += (size_t)r;
	}
	return (ssize_t)got;
}

ssize_t ss_read_full(struct ss_request *req, void *buf, size_t n)
{
	if (!n)
		return 0;
	size_t room = stream_room(req);
	ssize_t r = 0;
	if (n > room || !room) {
		r = read_long(req, buf, n);
	} else {
		while (stream_buffered(req) < n) {
			r = stream_fill(req, room - stream_buffered(req));
			if (r <= 0)
				break;
		}
		if (r >= 0)
			r = (ssize_t)take(req, buf, n);
	}
	if (r == 0)
		return stream_eof(req);
	if (r == (ssize_t)n)
		stream_message_done(req);
	return r;
}

/* How long the first line is with its '\n'; 0: its end is not there yet. */
static size_t line_length(const struct ss_request *req, size_t searched)
{
	const struct buffer *in = req->in;
	size_t from = in ? in->head + searched : 0;
	if (!in || from >= in->tail)
		return 0;
	const unsigned char *end =
		memchr(in->data + from, '\n', in->tail - from);
	return end ? (size_t)(end - in->data) + 1 - in->head : 0;
}

/* As many bytes as a line may still need: one by one where unbuffered. */
static ssize_t fill_line(struct ss_request *req, size_t size)
{
	size_t room = stream_room(req), there = stream_buffered(req);
	if (!room)
		return stream_fill(req, 1);
	if (there < room)
		return stream_fill(req, room - there);
	size_t more = size - there < room ? size - there : room;
	return stream_fill(req, more);
}

ssize_t ss_read_line(struct ss_request *req, char *buf, size_t size)
{
	if (size < 2)
		return -EINVAL;
	size_t length, searched = 0;
	while (!(length = line_length(req, searched))) {
		searched = stream_buffered(req);
		/* One that just fits may be the last, without its end. */
		if (searched >= size)
			return -EMSGSIZE;
		ssize_t r = fill_line(req, size);
		if (r < 0)
			return r;
		if (r == 0) {
			length = stream_buffered(req);
			break;
		}
	}
	if (!length)
		return stream_eof(req);
	if (length > size - 1)
		return -EMSGSIZE;
	take(req, buf, length);
	buf[length] = '\0';
	stream_message_done(req);
	return (ssize_t)length;
}

ssize_t ss_peek(struct ss_request *req, const void **data, size_t n)
{
	size_t room = stream_room(req) ? stream_room(req) : RBUF;
	*data = NULL;
	if (n > room && !req->dgram)
		return -EMSGSIZE;
	while (stream_buffered(req) < n) {
		size_t there = stream_buffered(req);
		ssize_t r = stream_fill(req, stream_room(req) ? room - there
							      : n - there);
		if (r < 0)
			return r;
		if (r == 0)
			break;
	}
	if (n && !stream_buffered(req))
		return stream_eof(req);
	*data = stream_data(req);
	return (ssize_t)stream_buffered(req);
}

ssize_t ss_skip(struct ss_request *req, size_t n)
{
	size_t room = stream_room(req) ? stream_room(req) : RBUF, done = 0;
	while (done < n) {
		size_t there = stream_buffered(req), left = n - done;
		if (there) {
			size_t used = there < left ? there : left;
			stream_consume(req, used);
			done += used;
			continue;
		}
		ssize_t r = stream_fill(
			req, left < room && !stream_room(req) ? left : room);
		if (r < 0)
			return r;
		if (r == 0)
			break;
	}
	return done || !n ? (ssize_t)done : stream_eof(req);
}

/* ---- datagrams ------------------------------------------------------------*/

int ss_request_set_packet(struct ss_request *req, const void *data, size_t n,
			  bool truncated)
{
	req->dgram = true;
	req->truncated = truncated;
	atomic_store_explicit(&progress_of(req)->bytes_in, n,
			      memory_order_relaxed);
	if (!n)
		return 0;
	struct buffer *in = buffer_grow(&req->in, n);
	if (!in)
		return -ENOMEM;
	memcpy(in->data, data, n);
	in->tail = n;
	return 0;
}

ssize_t ss_packet(struct ss_request *req, const void **data)
{
	*data = NULL;
	if (!req->dgram)
		return -ENOTSUP;
	*data = stream_data(req);
	return (ssize_t)stream_buffered(req);
}

bool ss_packet_truncated(const struct ss_request *req)
{
	return req->truncated;
}
