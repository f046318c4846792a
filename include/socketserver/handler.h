/*
 * To write handlers: struct ss_handler, and all that one may do with the
 * request that it serves.  The same source runs under every model and over
 * every transport.
 *
 * A request belongs to the thread, fiber or process that runs its handler:
 * every call below that takes one is for its handler alone.  From elsewhere
 * there is its id (server.h: ss_cancel, ss_wake, ss_each).
 *
 * Calls return >= 0, or -errno; errno itself means nothing.  Besides what
 * stands at each call, those that read or write return
 *	-ETIMEDOUT	a time-out of the request; ss_request_timeout says which
 *	-ECANCELED	ss_cancel, or the server is being closed by force
 *	-ECONNRESET, -EPIPE	the peer is gone
 */
#ifndef SOCKETSERVER_HANDLER_H
#define SOCKETSERVER_HANDLER_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/uio.h>

#include <socketserver/address.h>
#include <socketserver/client.h>
#include <socketserver/common.h>

SS_BEGIN_DECLS

/*
 * The bounds of one request, in ms; 0 = as the next one down says (request >
 * handler > config > none), SS_NONE = none.  They bound I/O and ss_ waits, not
 * computing.  The nearest wins.
 */
struct ss_timeouts {
	int handshake_ms;  /* what layers do before setup (TLS, PROXY) */
	int first_byte_ms; /* from accept to the first byte, which a PROXY
			      header is none of */
	int io_ms;	   /* no byte moved in one call; Python's `timeout` */
	int idle_ms;	   /* between messages: in place of io_ms while the
			      client's next message has not begun */
	int total_ms;	   /* from accept to the end */
};

/* Which of them ended a call, for ss_request_timeout. */
enum ss_timeout {
	SS_TIMEOUT_NONE,
	SS_TIMEOUT_HANDSHAKE,
	SS_TIMEOUT_FIRST_BYTE,
	SS_TIMEOUT_IO,
	SS_TIMEOUT_IDLE,
	SS_TIMEOUT_TOTAL,
};

/*
 * A handler: how one request is served.  Constant, shared by all requests, and
 * must outlive the server.  The three functions run one after another where
 * the model runs requests, each returning 0 or -errno (better: ss_fail).
 *
 *	setup	fails: neither handle nor finish runs
 *	handle	0: done; < 0: failed; SS_AGAIN: call me again when there is
 *		input (a fiber gives its stack back in between).  Between such
 *		messages the request is idle: while the server is being closed,
 *		a silent client's next read is end of file.  Any other value
 *		above 0 is taken for -EINVAL, since it is a bug.
 *	finish	runs after handle in any case; then pending output is flushed
 *
 * A failure goes to the server's handle_error.  Members left out are zero, and
 * zero is the default.
 */
struct ss_handler {
	const char *name; /* for logs */
	size_t size;	  /* bytes of zeroed state per request: ss_state */
	int (*setup)(struct ss_request *req);
	int (*handle)(struct ss_request *req); /* required */
	int (*finish)(struct ss_request *req);

	struct ss_timeouts timeouts;

	/*
	 * Bytes.  rbufsize: the read buffer, 0 = 8192, SS_NONE = unbuffered:
	 * then no byte leaves the kernel that the handler did not ask for.
	 * wbufsize: 0 = unbuffered, SS_NONE = 8192.  Datagrams ignore both.
	 */
	int rbufsize;
	int wbufsize;

	bool disable_nagle_algorithm; /* TCP_NODELAY, from accept on */
	bool speaks_first;  /* runs before the client's first byte; needed by
			       handlers that greet, under models that would
			       wait for that byte */
	void *user;	    /* whatever the handler's author wants here */
	size_t struct_size; /* sizeof(struct ss_handler); 0 = that of 0.1 */
};

/* ---- the request --------------------------------------------------------*/

/* The handler's own state: ss_handler.size zeroed bytes; NULL if 0. */
SS_API void *ss_state(struct ss_request *req);

/* Whatever the program wants to carry here; a new request has NULL. */
SS_API void *ss_request_user(const struct ss_request *req);
SS_API void ss_request_set_user(struct ss_request *req, void *user);

SS_API struct ss_server *ss_request_server(const struct ss_request *req);
SS_API const struct ss_handler *
ss_request_handler(const struct ss_request *req);

/* Unique in the process and its children; what the log shows as #ID. */
SS_API uint64_t ss_request_id(const struct ss_request *req);

/* Bytes that came and went so far; in and out may be NULL. */
SS_API void ss_request_bytes(const struct ss_request *req, uint64_t *in,
			     uint64_t *out);

/* Whether it is a datagram. */
SS_API bool ss_request_dgram(const struct ss_request *req);

/*
 * The peer's address and our own, the one that the client asked for.  An
 * unnamed peer (Unix) has len <= sizeof(sa_family_t).  -ENOTSUP: the transport
 * has none (memory).
 */
SS_API int ss_request_peer(struct ss_request *req, struct ss_address *address);
SS_API int ss_request_local(struct ss_request *req, struct ss_address *address);

/* The peer as text, for logs; SS_ADDRESS_TEXT bytes suffice.  Returns buf. */
SS_API char *ss_peer_name(struct ss_request *req, char *buf, size_t size);

/* Whether the server is stopping: finish soon.  A load; call it often. */
SS_API bool ss_stopping(const struct ss_request *req);

/*
 * Records why the handler fails and returns `code`, so that one writes
 *	return ss_fail(req, -EPROTO, "line %d is too long", n);
 * The text, at most 255 bytes, reaches handle_error.
 */
SS_API int ss_fail(struct ss_request *req, int code, const char *fmt, ...)
	SS_PRINTF(3, 4);

/* A line for the server's log, under this request's id; level as in server.h.
 */
SS_API void ss_logf(struct ss_request *req, int level, const char *fmt, ...)
	SS_PRINTF(3, 4);

/* ---- reading ------------------------------------------------------------*/

/*
 * All of these share one buffer, so that they mix without losing a byte.
 * At end of file they return 0, and -ENODATA when called once more: a handler
 * that overlooks the 0 cannot loop for ever.  A datagram is read like a stream
 * that ends where the packet ends.
 */

/* What there is, at most n bytes, waiting for the first.  n = 0 returns 0. */
SS_API ssize_t ss_read(struct ss_request *req, void *buf, size_t n);

/* The same without waiting: -EAGAIN if nothing is there. */
SS_API ssize_t ss_try_read(struct ss_request *req, void *buf, size_t n);

/*
 * Exactly n bytes; fewer only at end of file, and then how many (0 too).  An
 * error consumes nothing if n fits the read buffer; beyond that, what came
 * before it is lost.
 */
SS_API ssize_t ss_read_full(struct ss_request *req, void *buf, size_t n);

/*
 * One line with its '\n', and '\r' where there is one, terminated by a NUL
 * that is not counted; size includes it.  The last line may lack its '\n'.
 * -EMSGSIZE: longer than size - 1; nothing is consumed.
 */
SS_API ssize_t ss_read_line(struct ss_request *req, char *buf, size_t size);

/*
 * Waits until n bytes (at most rbufsize) are in the buffer or the input ends,
 * and points at them; nothing is consumed.  Returns how many there are, which
 * may be more; the pointer is good until the next call that reads.
 * -EMSGSIZE: n is beyond the buffer.
 */
SS_API ssize_t ss_peek(struct ss_request *req, const void **data, size_t n);

/*
 * Drops n bytes of the input, waiting for them if need be; fewer only at its
 * end.  After ss_peek or ss_packet: what was used of it.
 */
SS_API ssize_t ss_skip(struct ss_request *req, size_t n);

/* A datagram's bytes in place, none consumed; -ENOTSUP for streams. */
SS_API ssize_t ss_packet(struct ss_request *req, const void **data);

/* Whether the datagram was longer than max_packet_size, and its end is lost. */
SS_API bool ss_packet_truncated(const struct ss_request *req);

/* ---- writing ------------------------------------------------------------*/

/*
 * All n bytes, or an error; then ss_sent says how many went.  With wbufsize
 * the bytes may wait in the buffer.  n = 0 writes nothing and succeeds; for
 * datagrams it asks for the reply, even an empty one.
 * Datagrams: everything written makes up one reply, which is sent at the end;
 * -EMSGSIZE beyond 65,507 bytes.
 */
SS_API ssize_t ss_write(struct ss_request *req, const void *buf, size_t n);
SS_API ssize_t ss_writev(struct ss_request *req, const struct iovec *iov,
			 int count);
SS_API ssize_t ss_printf(struct ss_request *req, const char *fmt, ...)
	SS_PRINTF(2, 3);

/*
 * What goes without waiting, after what is buffered: how many bytes, perhaps
 * fewer than n; -EAGAIN: none.  Datagrams: as ss_write.
 */
SS_API ssize_t ss_try_write(struct ss_request *req, const void *buf, size_t n);

/* How many bytes of the last write went, or were buffered. */
SS_API size_t ss_sent(const struct ss_request *req);

/*
 * n bytes of the file `fd` from `offset` on; the descriptor's own offset is
 * not moved.  By sendfile(2) where the transport can; elsewhere (datagrams,
 * memory, adopted descriptors, channels that transform) by copying.  Returns
 * the bytes sent, fewer than n only at the end of the file.
 */
SS_API ssize_t ss_sendfile(struct ss_request *req, int fd, int64_t offset,
			   size_t n);

/* Sends what is buffered.  For datagrams: sends the reply now. */
SS_API int ss_flush(struct ss_request *req);

/*
 * One datagram at once, to the client (`to` NULL) or another address, apart
 * from the collected reply.  -ENOTSUP for streams.
 */
SS_API ssize_t ss_send_to(struct ss_request *req, const void *buf, size_t n,
			  const struct ss_address *to);

/* ---- framing ------------------------------------------------------------*/

/*
 * Netstring (https://cr.yp.to/proto/netstrings.txt), and a length of 1, 2, 4
 * or 8 bytes in network byte order before the payload.  Reads return the
 * payload's length, 0 also for an empty one: then *end (may be NULL) tells
 * whether the input ended instead, cleanly, before the frame.
 * -EPROTO: malformed, or the input ended within it.  -EMSGSIZE: longer than
 * size; nothing is consumed.  -EINVAL: no such width.
 */
SS_API ssize_t ss_read_netstring(struct ss_request *req, void *buf, size_t size,
				 bool *end);
SS_API ssize_t ss_write_netstring(struct ss_request *req, const void *buf,
				  size_t n);
SS_API ssize_t ss_read_frame(struct ss_request *req, int width, void *buf,
			     size_t size, bool *end);
SS_API ssize_t ss_write_frame(struct ss_request *req, int width,
			      const void *buf, size_t n);

/* ---- stdio --------------------------------------------------------------*/

/*
 * A FILE for code that wants stdio: "r+" over this request, one per request,
 * closed by the library after finish if the handler does not.  It has no
 * buffer of its own (setvbuf(3) may give it one, for one direction): its reads
 * and writes are those of ss_read and ss_write, and mix with them.  errno is
 * set as stdio's users expect.  NULL: no memory, or no fopencookie(3) here.
 */
SS_API FILE *ss_file(struct ss_request *req);

/* ---- time, and other descriptors ----------------------------------------*/

/* The server's clock, monotonic, in ms. */
SS_API int64_t ss_now(struct ss_server *server);

/* Changes the request's own time-outs; members 0 are left as they are.
 * -ENOMEM. */
SS_API int ss_request_set_timeouts(struct ss_request *req,
				   const struct ss_timeouts *timeouts);
SS_API enum ss_timeout ss_request_timeout(const struct ss_request *req);

/*
 * Calls fn(arg) and returns what it returns: for work that blocks otherwise
 * than by this library's calls, or computes for long.  Where many requests
 * share a thread (fiber) it runs on another one meanwhile, and so must not use
 * the request; elsewhere it is a plain call.  It cannot be cancelled.
 */
SS_API int ss_offload(struct ss_request *req, int (*fn)(void *arg), void *arg);

/* One thing to wait for: a request's stream, or else a descriptor. */
struct ss_wait {
	struct ss_request *req; /* NULL: fd */
	int fd;			/* where req is NULL; -1: left out */
	short events;		/* POLLIN, POLLOUT */
	short revents;		/* the answer, as from poll(2) */
};

/*
 * Waits until one of them is ready; bytes in a stream's buffer count.  Returns
 * how many are, 0 at the deadline, -ETIMEDOUT at that of total_ms, -EINTR after
 * ss_wake, -ECANCELED when the server wants the handler to end, or -EINVAL:
 * more than 64.
 */
SS_API int ss_wait_any(struct ss_request *req, struct ss_wait *waits, int count,
		       int64_t deadline);

/* The same for one descriptor that is not the library's: its revents, > 0. */
SS_API int ss_wait_fd(struct ss_request *req, int fd, short events,
		      int64_t deadline);

/* Sleeps; 0, or -ETIMEDOUT, -EINTR, -ECANCELED as above. */
SS_API int ss_sleep(struct ss_request *req, int ms);

/* ---- further streams ----------------------------------------------------*/

/*
 * A stream of the handler's own beside its client's: a connection to somebody
 * else (ss_connect), or one end of a socketpair(2).  All that reads, writes,
 * frames, waits, half-closes or sets options takes it as it takes the request,
 * and it ends as the request does: it shares the request's handler and state,
 * its time-outs (ss_request_set_timeouts lays others over them for this stream
 * alone; first_byte_ms counts from here, total_ms from the request's
 * beginning), ss_cancel, ss_wake and the server's end.  What ss_fail is told
 * is told of the request.  Bytes, user pointer, addresses and buffers are its
 * own.  To the server it is no request.
 *
 * It owns fd, a connected stream socket, from then on, on failure too.
 * -EPROTOTYPE: it is of another type.  -ENOTSOCK, -EBADF.  -ENOMEM, -EMFILE.
 */
SS_API int ss_stream_new(struct ss_request *req, int fd,
			 struct ss_request **stream);

/*
 * Flushes, closes and frees it; NULL is ignored.  Those that are left when the
 * request has ended, after finish, are freed by the library.
 */
SS_API void ss_stream_free(struct ss_request *stream);

/* ---- the socket ---------------------------------------------------------*/

/* The descriptor, which stays the library's; -ENOTSUP: there is none. */
SS_API int ss_request_fd(const struct ss_request *req);

/* setsockopt(2), getsockopt(2); a datagram's socket is the listener's. */
SS_API int ss_request_setsockopt(struct ss_request *req, int level, int name,
				 const void *value, socklen_t len);
SS_API int ss_request_getsockopt(struct ss_request *req, int level, int name,
				 void *value, socklen_t *len);

/* Half-close: how is SHUT_RD, SHUT_WR (flushes first) or SHUT_RDWR. */
SS_API int ss_shutdown_stream(struct ss_request *req, int how);

/* TCP urgent data (RFC 6093): one byte out; one in, -EAGAIN if none is there.
 */
SS_API int ss_send_oob(struct ss_request *req, unsigned char byte);
SS_API int ss_recv_oob(struct ss_request *req, unsigned char *byte);

/*
 * Takes the connection out of the library: returns the descriptor, now the
 * caller's (its O_NONBLOCK is as the model had it), output flushed.  From then
 * on the request reads end of file.  Unread input that is in the buffer is
 * lost with the request: take it with ss_try_read first.  -ENOTSUP: datagrams,
 * memory, or a channel above the socket.
 */
SS_API int ss_detach(struct ss_request *req);

SS_END_DECLS
#endif
