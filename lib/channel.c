/*
 * Channels: the stack below a stream, and the one at its bottom, a connected
 * socket.  Everything about a socket's readiness is known here and nowhere
 * above.
 */
#include "internal.h"

#include <limits.h>

void ss_channel_push(struct ss_request *req, struct ss_channel *channel,
		     const struct ss_channel_ops *ops)
{
	channel->ops = ops;
	channel->req = req;
	channel->next = req->top;
	req->top = channel;
}

ssize_t ss_channel_read(struct ss_channel *channel, void *buf, size_t n,
			struct ss_block *block)
{
	while (channel && !channel->ops->read)
		channel = channel->next;
	return channel ? channel->ops->read(channel, buf, n, block) : 0;
}

ssize_t ss_channel_writev(struct ss_channel *channel, const struct iovec *iov,
			  int count, struct ss_block *block)
{
	while (channel && !channel->ops->writev)
		channel = channel->next;
	return channel ? channel->ops->writev(channel, iov, count, block)
		       : -EPIPE;
}

ssize_t ss_channel_send_to(struct ss_channel *channel, const void *buf,
			   size_t n, const struct ss_address *to,
			   struct ss_block *block)
{
	while (channel && !channel->ops->send_to)
		channel = channel->next;
	return channel ? channel->ops->send_to(channel, buf, n, to, block)
		       : -ENOTSUP;
}

int ss_channel_shutdown(struct ss_channel *channel, int how,
			struct ss_block *block)
{
	while (channel && !channel->ops->shutdown)
		channel = channel->next;
	return channel ? channel->ops->shutdown(channel, how, block) : 0;
}

void channels_close(struct ss_request *req)
{
	while (req->top) {
		struct ss_channel *channel = req->top;
		req->top = channel->next;
		if (channel->ops->close)
			channel->ops->close(channel);
	}
}

/* ---- the socket -----------------------------------------------------------*/

struct sock {
	struct ss_channel channel;
	struct ss_source source;
};

APART static int block_on(struct sock *sock, short events,
			  struct ss_block *block)
{
	*block = (struct ss_block){ .source = &sock->source,
				    .events = events,
				    .until = SS_NONE };
	return -EAGAIN;
}

/*
 * A read that blocks in the kernel must come back at the call's deadline.  The
 * listener's SO_RCVTIMEO, inherited, is right for most; a longer one than
 * needed is shortened, a shorter one only wakes too early.
 */
static void bound_read(struct sock *sock)
{
	struct ss_request *req = sock->channel.req;
	int64_t deadline = req->deadline;
	if (deadline == SS_NONE && !sock->source.timeout_ms)
		return;
	int64_t ms = 0;
	if (deadline != SS_NONE) {
		ms = deadline - now(req->server);
		ms = ms < 1 ? 1 : ms > INT_MAX ? INT_MAX : ms;
		if (sock->source.timeout_ms && sock->source.timeout_ms <= ms)
			return;
	}
	struct timeval tv = { .tv_sec = (time_t)(ms / 1000),
			      .tv_usec = (suseconds_t)(ms % 1000) * 1000 };
	if (sys_setsockopt(sock->source.fd, SOL_SOCKET, SO_RCVTIMEO, &tv,
			   sizeof(tv)) == 0)
		sock->source.timeout_ms = (int)ms;
	else
		sock->source.flags &= ~(unsigned)SS_SOURCE_BLOCKS;
}

/* Descriptors may be passed along (Unix): without room for them the kernel
 * closes them, comes back short, and says MSG_CTRUNC. */
APART static ssize_t take_message(const struct ss_source *source, void *buf,
				  size_t n, int flags, bool *whole)
{
	struct iovec iov = { buf, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t r = sys_recvmsg(source->fd, &msg, flags);
	*whole = r >= 0 && !(msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC));
	return r;
}

/* Whether it has taken all there was if it comes back short. */
static inline ssize_t take(const struct ss_source *source, void *buf, size_t n,
			   int flags, bool *whole)
{
	*whole = true;
	if (source->flags & SS_SOURCE_WHOLE)
		return sys_recv(source->fd, buf, n, flags);
	return take_message(source, buf, n, flags, whole);
}

/* After a call that failed. */
APART static ssize_t failed(struct sock *sock, short events,
			    struct ss_block *block)
{
	return errno == EAGAIN || errno == EWOULDBLOCK
		       ? block_on(sock, events, block)
		       : -errno;
}

/* What there is. */
static inline ssize_t read_now(struct sock *sock, void *buf, size_t n,
			       struct ss_block *block)
{
	bool whole;
	ssize_t r = take(&sock->source, buf, n, MSG_DONTWAIT, &whole);
	if (r < 0)
		return failed(sock, POLLIN, block);
	if (r > 0 && (size_t)r < n && whole)
		sock->source.flags |= SS_SOURCE_DRY;
	return r;
}

/* The same, waited for in the kernel. */
APART static ssize_t read_there(struct sock *sock, void *buf, size_t n,
				struct ss_block *block)
{
	struct ss_request *req = sock->channel.req;
	bound_read(sock);
	if (!(sock->source.flags & SS_SOURCE_BLOCKS))
		return read_now(sock, buf, n, block);
	progress_blocks(req, POLLIN);
	bool whole;
	ssize_t r = take(&sock->source, buf, n, 0, &whole);
	progress_waits(req, SS_WAITS_NOTHING);
	return r < 0 ? failed(sock, POLLIN, block) : r;
}

static ssize_t sock_read(struct ss_channel *channel, void *buf, size_t n,
			 struct ss_block *block)
{
	struct sock *sock = (struct sock *)channel;
	if (sock->source.flags & SS_SOURCE_DRY)
		return block_on(sock, POLLIN, block);
	if (sock->source.flags & SS_SOURCE_BLOCKS)
		return read_there(sock, buf, n, block);
	return read_now(sock, buf, n, block);
}

static ssize_t sock_writev(struct ss_channel *channel, const struct iovec *iov,
			   int count, struct ss_block *block)
{
	struct sock *sock = (struct sock *)channel;
	if (sock->source.fd < 0)
		return -EPIPE;
	ssize_t r;
	if (count == 1) {
		r = sys_send(sock->source.fd, iov->iov_base, iov->iov_len,
			     MSG_DONTWAIT | MSG_NOSIGNAL);
	} else {
		struct msghdr msg = { .msg_iov = (struct iovec *)iov,
				      .msg_iovlen = (size_t)count };
		r = sys_sendmsg(sock->source.fd, &msg,
				MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	return r < 0 ? failed(sock, POLLOUT, block) : r;
}

static struct ss_source *sock_raw(struct ss_channel *channel)
{
	struct ss_source *source = &((struct sock *)channel)->source;
	return source->flags & SS_SOURCE_ADOPTED ? NULL : source;
}

static int sock_shutdown(struct ss_channel *channel, int how,
			 struct ss_block *block)
{
	(void)block;
	struct ss_source *source = &((struct sock *)channel)->source;
	if (source->fd < 0)
		return 0;
	return sys_shutdown(source->fd, how) == -1 ? -errno : 0;
}

static void sock_close(struct ss_channel *channel)
{
	struct ss_server *server = channel->req->server;
	struct ss_source *source = &((struct sock *)channel)->source;
	if (source->fd < 0)
		return;
	self(server)->forget(server, source);
	ss_source_close(server, source);
}

static const struct ss_channel_ops sock_ops = {
	.read = sock_read,
	.writev = sock_writev,
	.raw = sock_raw,
	.shutdown = sock_shutdown,
	.close = sock_close,
};

void ss_source_close(struct ss_server *server, struct ss_source *source)
{
	pthread_mutex_lock(&server->lock);
	int fd = source->fd;
	source->fd = -1;
	pthread_mutex_unlock(&server->lock);
	if (fd >= 0)
		sys_close(fd);
}

size_t channel_socket_size(void)
{
	return sizeof(struct sock);
}

void channel_push_socket(struct ss_request *req, int fd, unsigned flags)
{
	struct sock *sock = ss_request_space(req);
	sock->source.fd = fd;
	sock->source.flags = flags;
	ss_channel_push(req, &sock->channel, &sock_ops);
	req->source = &sock->source;
}

int ss_request_accept(struct ss_server *server, struct ss_listener *listener,
		      int fd, unsigned flags, const struct ss_address *peer,
		      struct ss_request **result)
{
	struct ss_request *req;
	int r = request_new(server, listener, sizeof(struct sock), &req);
	if (r < 0) {
		sys_close(fd);
		return r;
	}
	if ((server->flags & SS_LAYER_THREADS) && !(flags & SS_SOURCE_ADOPTED))
		flags |= SS_SOURCE_BLOCKS;
	channel_push_socket(req, fd, flags);
	if (listener)
		req->source->timeout_ms = listener->timeout_ms;
	if (peer && ss_request_set_peer(req, peer) < 0) {
		ss_request_drop(req);
		return -ENOMEM;
	}
	*result = req;
	return 0;
}
