/*
 * The writer of a stream, and the one loop that writes.  Datagrams collect
 * what is written; it leaves as one packet.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

enum { WBUF = 8192, PACKET_MAX = 65507, CHUNK = 16, COPY = 16384 };

static size_t held(const struct ss_request *req)
{
	return req->out ? req->out->tail - req->out->head : 0;
}

static size_t write_room(const struct ss_request *req)
{
	int size = handler_of(req)->wbufsize;
	return size == SS_NONE ? WBUF : size > 0 ? (size_t)size : 0;
}

static void note_output(struct ss_request *req, size_t n)
{
	atomic_ullong *bytes = &progress_of(req)->bytes_out;
	uint64_t out = atomic_load_explicit(bytes, memory_order_relaxed);
	atomic_store_explicit(bytes, out + n, memory_order_relaxed);
}

/* ---- the loop -------------------------------------------------------------*/

/* A total that is over ends what need not wait, too. */
static inline int begin_moving(struct ss_request *req)
{
	stream_pause(req);
	return timeout_deadline(req, POLLOUT) == SS_NONE ? 0
							 : timeout_overdue(req);
}

/* After a write that took nothing: as push_some. */
APART static int await_room(struct ss_request *req, int r,
			    const struct ss_block *block)
{
	if (r == -EAGAIN)
		return stream_wait(req, block);
	if (r == -EINTR)
		return timeout_interrupted(req);
	return r < 0 && stream_forced(req) ? -ECANCELED : r;
}

/* One step of it, until the deadline: bytes that went, 0 after a wait; < 0. */
static inline ssize_t push_some(struct ss_request *req, const struct iovec *iov,
				int count)
{
	if (stream_forced(req))
		return -ECANCELED;
	struct ss_block block;
	ssize_t r = ss_channel_writev(req->top, iov, count, &block);
	if (r <= 0)
		return await_room(req, (int)r, &block);
	note_output(req, (size_t)r);
	return r;
}

/* Drops n bytes from the front; how many elements are left. */
static int advance(struct iovec *iov, int count, size_t n)
{
	int first = 0;
	while (first < count && n >= iov[first].iov_len)
		n -= iov[first++].iov_len;
	memmove(iov, iov + first, (size_t)(count - first) * sizeof(*iov));
	if (first < count) {
		iov[0].iov_base = (char *)iov[0].iov_base + n;
		iov[0].iov_len -= n;
	}
	return count - first;
}

/* The same, begun anew if the last step moved something. */
static inline ssize_t push_next(struct ss_request *req, const struct iovec *iov,
				int count, bool moved)
{
	if (moved && begin_moving(req) < 0)
		return -ETIMEDOUT;
	return push_some(req, iov, count);
}

/* One buffer, of which `r` bytes have gone; < 0: what came of it. */
APART static int push_rest(struct ss_request *req, const char *buf, size_t n,
			   ssize_t r, size_t *sent)
{
	for (;;) {
		if (r < 0)
			return (int)r;
		*sent += (size_t)r;
		buf += r;
		n -= (size_t)r;
		if (!n)
			return 0;
		struct iovec iov = { (void *)buf, n };
		r = push_next(req, &iov, 1, r > 0);
	}
}

/* Most calls: it goes at once. */
static inline int push_one(struct ss_request *req, const void *buf, size_t n,
			   size_t *sent)
{
	struct iovec iov = { (void *)buf, n };
	ssize_t r = push_next(req, &iov, 1, true);
	if (r != (ssize_t)n)
		return push_rest(req, buf, n, r, sent);
	*sent += n;
	return 0;
}

/* All of it; *sent counts what went, also when it fails. */
static int push_all(struct ss_request *req, const struct iovec *given,
		    int count, size_t *sent)
{
	struct iovec iov[CHUNK];
	bool moved = true;
	if (count == 1)
		return push_one(req, given->iov_base, given->iov_len, sent);
	while (count > 0) {
		int n = count < CHUNK ? count : CHUNK;
		memcpy(iov, given, (size_t)n * sizeof(*iov));
		given += n;
		count -= n;
		n = advance(iov, n, 0);
		while (n > 0) {
			ssize_t r = push_next(req, iov, n, moved);
			if (r < 0)
				return (int)r;
			moved = r > 0;
			*sent += (size_t)r;
			n = advance(iov, n, (size_t)r);
		}
	}
	return 0;
}

/* ---- collecting -----------------------------------------------------------*/

static int collect(struct ss_request *req, const struct iovec *iov, int count,
		   size_t room)
{
	struct buffer *out = stream_buffer(req, &req->out, room);
	if (!out)
		return -ENOMEM;
	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len)
			memcpy(out->data + out->tail, iov[i].iov_base,
			       iov[i].iov_len);
		out->tail += iov[i].iov_len;
	}
	return 0;
}

/* One packet, taken whole, however often it has to be tried. */
static int send_packet(struct ss_request *req)
{
	size_t n = held(req);
	struct iovec iov = { req->out ? req->out->data : NULL, n };
	if (req->out)
		req->out->head = req->out->tail = 0;
	req->reply_wanted = false;
	timeout_deadline(req, POLLOUT);
	for (;;) {
		if (stream_forced(req))
			return -ECANCELED;
		struct ss_block block;
		ssize_t r = ss_channel_writev(req->top, &iov, 1, &block);
		if (r >= 0) {
			note_output(req, n);
			return 0;
		}
		if (r == -EAGAIN)
			r = stream_wait(req, &block);
		if (r == -EINTR)
			r = timeout_interrupted(req);
		if (r < 0)
			return (int)r;
	}
}

static int flush_stream(struct ss_request *req)
{
	if (!held(req))
		return 0;
	struct iovec iov = { req->out->data + req->out->head, held(req) };
	size_t sent = 0;
	int r = push_all(req, &iov, 1, &sent);
	req->out->head += sent;
	if (req->out->head == req->out->tail)
		req->out->head = req->out->tail = 0;
	return r;
}

int ss_flush(struct ss_request *req)
{
	if (!req->dgram)
		return flush_stream(req);
	return held(req) || req->reply_wanted ? send_packet(req) : 0;
}

/* At the end: what is left goes; nobody is there to hear of an error. */
int write_finish(struct ss_request *req)
{
	return ss_flush(req);
}

bool write_may_join(const struct ss_request *req)
{
	return req->dgram && (held(req) || req->reply_wanted) &&
	       req->top->ops->write_each;
}

int write_together(struct ss_request *const *reqs, int n)
{
	struct ss_channel *channels[SS_REPLIES_MAX];
	struct iovec iov[SS_REPLIES_MAX];
	int sent = 0, r = 1;
	for (int i = 0; i < n; i++) {
		struct buffer *out = reqs[i]->out;
		channels[i] = reqs[i]->top;
		iov[i] =
			(struct iovec){ out ? out->data : NULL, held(reqs[i]) };
	}
	while (sent < n && r > 0) {
		r = channels[sent]->ops->write_each(channels + sent, iov + sent,
						    n - sent);
		for (int end = r > 0 ? sent + r : sent; sent < end; sent++)
			note_output(reqs[sent], iov[sent].iov_len);
	}
	return sent;
}

/* What goes without waiting, and the same in bytes; -EAGAIN: nothing. */
static ssize_t push_now(struct ss_request *req, const void *buf, size_t n)
{
	struct iovec iov = { (void *)buf, n };
	struct ss_block block;
	ssize_t r;
	do
		r = ss_channel_writev(req->top, &iov, 1, &block);
	while (r == -EINTR);
	if (r > 0)
		note_output(req, (size_t)r);
	return r;
}

static ssize_t flush_now(struct ss_request *req)
{
	while (held(req)) {
		ssize_t r = push_now(req, req->out->data + req->out->head,
				     held(req));
		if (r <= 0)
			return r ? r : -EAGAIN;
		req->out->head += (size_t)r;
		if (!held(req))
			req->out->head = req->out->tail = 0;
	}
	return 0;
}

/* ---- writing --------------------------------------------------------------*/

static ssize_t total_of(const struct iovec *iov, int count)
{
	size_t total = 0;
	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len > SSIZE_MAX - total)
			return -EINVAL;
		total += iov[i].iov_len;
	}
	return (ssize_t)total;
}

static ssize_t write_packet(struct ss_request *req, const struct iovec *iov,
			    int count, size_t total)
{
	if (held(req) + total > PACKET_MAX)
		return -EMSGSIZE;
	int r = collect(req, iov, count, total);
	if (r < 0)
		return r;
	req->reply_wanted = true;
	req->sent = total;
	return (ssize_t)total;
}

static ssize_t write_stream(struct ss_request *req, const struct iovec *iov,
			    int count, size_t total)
{
	size_t room = write_room(req);
	int r = 0;
	req->midway = false;
	if (room && held(req) + total > room)
		r = flush_stream(req);
	if (r < 0)
		return r;
	if (total < room) {
		r = collect(req, iov, count, room - held(req));
		req->sent = r < 0 ? 0 : total;
	} else {
		r = push_all(req, iov, count, &req->sent);
	}
	return r < 0 ? r : (ssize_t)total;
}

ssize_t ss_writev(struct ss_request *req, const struct iovec *iov, int count)
{
	req->sent = 0;
	ssize_t total = total_of(iov, count);
	if (total < 0)
		return total;
	if (req->dgram)
		return write_packet(req, iov, count, (size_t)total);
	if (!total)
		return 0;
	if (stream_forced(req))
		return -ECANCELED;
	return write_stream(req, iov, count, (size_t)total);
}

APART static ssize_t write_else(struct ss_request *req, const void *buf,
				size_t n)
{
	struct iovec iov = { (void *)buf, n };
	return ss_writev(req, &iov, 1);
}

ssize_t ss_write(struct ss_request *req, const void *buf, size_t n)
{
	if (req->dgram || !n || n > SSIZE_MAX || write_room(req))
		return write_else(req, buf, n);
	/* Nothing to collect. */
	req->sent = 0;
	req->midway = false;
	int r = push_one(req, buf, n, &req->sent);
	return r < 0 ? r : (ssize_t)n;
}

ssize_t ss_try_write(struct ss_request *req, const void *buf, size_t n)
{
	if (!n || req->dgram)
		return ss_write(req, buf, n);
	req->sent = 0;
	if (stream_forced(req))
		return -ECANCELED;
	req->midway = false;
	ssize_t r = flush_now(req);
	if (r == 0)
		r = push_now(req, buf, n);
	if (r > 0)
		req->sent = (size_t)r;
	return r;
}

size_t ss_sent(const struct ss_request *req)
{
	return req->sent;
}

ssize_t ss_printf(struct ss_request *req, const char *fmt, ...)
{
	char small[512];
	va_list args, again;
	va_start(args, fmt);
	va_copy(again, args);
	int n = vsnprintf(small, sizeof(small), fmt, args);
	va_end(args);
	ssize_t r = n < 0 ? -EINVAL : 0;
	if (n >= 0 && (size_t)n < sizeof(small)) {
		r = ss_write(req, small, (size_t)n);
	} else if (n >= 0) {
		char *large = sys_malloc((size_t)n + 1);
		r = -ENOMEM;
		if (large) {
			vsnprintf(large, (size_t)n + 1, fmt, again);
			r = ss_write(req, large, (size_t)n);
			sys_free(large);
		}
	}
	va_end(again);
	return r;
}

ssize_t ss_send_to(struct ss_request *req, const void *buf, size_t n,
		   const struct ss_address *to)
{
	if (!req->dgram)
		return -ENOTSUP;
	if (n > PACKET_MAX)
		return -EMSGSIZE;
	stream_pause(req);
	timeout_deadline(req, POLLOUT);
	for (;;) {
		if (stream_forced(req))
			return -ECANCELED;
		struct ss_block block;
		ssize_t r = ss_channel_send_to(req->top, buf, n, to, &block);
		if (r >= 0) {
			note_output(req, (size_t)r);
			return r;
		}
		if (r == -EAGAIN)
			r = stream_wait(req, &block);
		if (r == -EINTR)
			r = timeout_interrupted(req);
		if (r < 0)
			return r;
	}
}

/* ---- files ----------------------------------------------------------------*/

/* More is refused; a call never moves more (sendfile(2)). */
enum { AT_ONCE = 0x7ffff000 };

/* Where sendfile(2) may go, or NULL.  It has no MSG_DONTWAIT: the descriptor
 * itself must not block from then on. */
static struct ss_source *raw_source(struct ss_request *req)
{
	struct ss_channel *top = req->top;
	if (req->dgram || !top || !top->ops->raw)
		return NULL;
	struct ss_source *source = top->ops->raw(top);
	if (!source || source->fd < 0)
		return NULL;
	if (source->flags & SS_SOURCE_NONBLOCK)
		return source;
	if (sys_nonblock(source->fd) == -1)
		return NULL;
	source->flags |= SS_SOURCE_NONBLOCK;
	source->flags &= ~(unsigned)SS_SOURCE_BLOCKS;
	return source;
}

static ssize_t send_file_some(struct ss_source *source, int fd, off_t *offset,
			      size_t n)
{
	struct sys_sigpipe saved;
	sys_sigpipe_block(&saved);
	ssize_t r = sys_send_file(source->fd, fd, offset, n);
	if (r == -1)
		r = -errno;
	sys_sigpipe_restore(&saved);
	return r;
}

static ssize_t send_file(struct ss_request *req, struct ss_source *source,
			 int fd, off_t offset, size_t n)
{
	bool moved = true;
	while (req->sent < n) {
		if (moved && begin_moving(req) < 0)
			return -ETIMEDOUT;
		if (stream_forced(req))
			return -ECANCELED;
		size_t want = n - req->sent;
		if (want > AT_ONCE)
			want = AT_ONCE;
		ssize_t r = send_file_some(source, fd, &offset, want);
		if (r == 0)
			break;
		if (r > 0) {
			req->sent += (size_t)r;
			note_output(req, (size_t)r);
			moved = true;
			continue;
		}
		moved = false;
		struct ss_block block = { source, POLLOUT, SS_NONE };
		if (r == -EAGAIN)
			r = stream_wait(req, &block);
		if (r == -EINTR)
			r = timeout_interrupted(req);
		if (r < 0)
			return r;
	}
	return (ssize_t)req->sent;
}

static ssize_t copy_file(struct ss_request *req, int fd, off_t offset, size_t n)
{
	char *bytes = sys_malloc(COPY);
	if (!bytes)
		return -ENOMEM;
	size_t done = 0;
	ssize_t r = 0;
	while (done < n) {
		size_t want = n - done < COPY ? n - done : COPY;
		r = sys_pread(fd, bytes, want, offset + (off_t)done);
		if (r == -1 && errno == EINTR)
			continue;
		if (r == -1)
			r = -errno;
		if (r <= 0)
			break;
		r = ss_write(req, bytes, (size_t)r);
		done += req->sent;
		if (r < 0)
			break;
	}
	sys_free(bytes);
	req->sent = done;
	return r < 0 ? r : (ssize_t)done;
}

ssize_t ss_sendfile(struct ss_request *req, int fd, off_t offset, size_t n)
{
	req->sent = 0;
	int r = req->dgram ? 0 : ss_flush(req);
	if (r < 0)
		return r;
	req->midway = false;
	struct ss_source *source = raw_source(req);
	ssize_t sent = source ? send_file(req, source, fd, offset, n) : -EINVAL;
	/* Not every file can be sent so (sendfile(2), EINVAL). */
	if (!req->sent && (sent == -EINVAL || sent == -ENOSYS))
		return copy_file(req, fd, offset, n);
	return sent;
}

/* ---- the end of either side, urgent data, letting go ----------------------*/

int ss_shutdown_stream(struct ss_request *req, int how)
{
	if (req->dgram)
		return -ENOTSUP;
	int r = how == SHUT_RD ? 0 : ss_flush(req);
	if (r < 0)
		return r;
	for (;;) {
		struct ss_block block;
		timeout_deadline(req, POLLOUT);
		r = ss_channel_shutdown(req->top, how, &block);
		if (r == -EAGAIN)
			r = stream_wait(req, &block);
		else if (r != -EINTR)
			return r;
		if (r < 0 && r != -EINTR)
			return r;
	}
}

/* A datagram's descriptor is the listener's: its bytes are other requests'. */
static int oob_fd(const struct ss_request *req)
{
	return req->dgram ? -ENOTSUP : ss_request_fd(req);
}

int ss_send_oob(struct ss_request *req, unsigned char byte)
{
	int fd = oob_fd(req);
	if (fd < 0)
		return fd;
	int r = ss_flush(req);
	while (r == 0) {
		timeout_deadline(req, POLLOUT);
		if (sys_send(fd, &byte, 1,
			     MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
			return 0;
		struct ss_block block = { req->source, POLLOUT, SS_NONE };
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			r = stream_wait(req, &block);
		else if (errno != EINTR)
			r = -errno;
	}
	return r;
}

int ss_recv_oob(struct ss_request *req, unsigned char *byte)
{
	int fd = oob_fd(req);
	if (fd < 0)
		return fd;
	ssize_t n = sys_recv(fd, byte, 1, MSG_OOB | MSG_DONTWAIT);
	if (n == 1)
		return 0;
	/* Linux says EINVAL where none was announced (tcp(7)). */
	if (n == 0 || errno == EINVAL)
		return -EAGAIN;
	return -errno;
}

int ss_detach(struct ss_request *req)
{
	struct ss_server *server = req->server;
	struct ss_source *source = req->source;
	if (req->dgram || !source || source->fd < 0 || !req->top ||
	    req->top->next)
		return -ENOTSUP;
	int r = ss_flush(req);
	if (r < 0)
		return r;
	self(server)->forget(server, source);
	/* Ours, or inherited from the listener; not the caller's to expect. */
	static const struct timeval none;
	if (source->timeout_ms)
		sys_setsockopt(source->fd, SOL_SOCKET, SO_RCVTIMEO, &none,
			       sizeof(none));
	pthread_mutex_lock(&server->lock);
	int fd = source->fd;
	source->fd = -1;
	pthread_mutex_unlock(&server->lock);
	req->eof = true;
	return fd;
}

/* ---- socket options -------------------------------------------------------*/

int ss_request_setsockopt(struct ss_request *req, int level, int name,
			  const void *value, socklen_t len)
{
	int fd = ss_request_fd(req);
	if (fd < 0)
		return fd;
	return sys_setsockopt(fd, level, name, value, len) == -1 ? -errno : 0;
}

int ss_request_getsockopt(struct ss_request *req, int level, int name,
			  void *value, socklen_t *len)
{
	int fd = ss_request_fd(req);
	if (fd < 0)
		return fd;
	return sys_getsockopt(fd, level, name, value, len) == -1 ? -errno : 0;
}
