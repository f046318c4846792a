/*
 * The bytes of a request: read, written, sent from files, half-closed, handed
 * over, under every model, whatever the kernel makes of them on the way.
 */
#include "support.h"
#include "user_layers.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/utsname.h>

enum { TEXT = 256, LINGER_MS = 1000, LATE_MS = 2000 };

/* ---- random numbers, from a seed that a failure names ---------------------*/

static unsigned seed;

static unsigned next_random(void)
{
	seed = seed * 1103515245 + 12345;
	return seed >> 8;
}

static void fill(unsigned char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned r = next_random();
		bytes[i] = r % 16 ? (unsigned char)(r >> 4) : '\n';
	}
}

/* Of the connection below; for handlers that look at it, or close it. */
static int peer_end;

/* ---- one connection, served in this thread --------------------------------*/

static void pair_of(int ends[2])
{
	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	struct timeval patience = { .tv_sec = WAIT_MS / 1000 };
	for (int i = 0; i < 2; i++) {
		setsockopt(ends[i], SOL_SOCKET, SO_RCVTIMEO, &patience,
			   sizeof(patience));
		setsockopt(ends[i], SOL_SOCKET, SO_SNDTIMEO, &patience,
			   sizeof(patience));
	}
}

static struct ss_config quiet(const struct ss_handler *handler)
{
	struct ss_config config = {
		.addresses = { "127.0.0.1:0" },
		.handler = handler,
		.log_level = SS_NONE,
	};
	return config;
}

/*
 * Serves `fd` here and now, so that a handler may assert, and look at what is
 * left in the kernel.
 */
static void serve_here(const struct ss_handler *handler, int fd)
{
	struct ss_config config = quiet(handler);
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_serve_fd(server, fd), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}

/* A handler over a connection that holds this text, and its end. */
static int serve_text(const struct ss_handler *handler, const char *text)
{
	int ends[2];
	pair_of(ends);
	send_text(ends[0], text);
	shutdown(ends[0], SHUT_WR);
	serve_here(handler, ends[1]);
	return ends[0];
}

static void with_text(int (*handle)(struct ss_request *), const char *text)
{
	struct ss_handler handler = { .handle = handle };
	close(serve_text(&handler, text));
	ssize_t r = ss_memory_exchange(&handler, text, strlen(text), NULL, 0);
	ck_assert_msg(r >= 0, "%zd", r);
}

static int in_kernel(struct ss_request *req)
{
	int n = -1;
	ck_assert_int_eq(ioctl(ss_request_fd(req), FIONREAD, &n), 0);
	return n;
}

/* ---- over sockets, under every model --------------------------------------*/

static int stream_count(void)
{
	int n = 0;
	for (int i = 0; i < transport_count; i++)
		n += transports[i].stream;
	return n;
}

static int combinations(void)
{
	return model_count * stream_count();
}

static const struct transport *transport_at(int i)
{
	const struct transport *transport = transports;
	for (int skip = i / model_count;; transport++)
		if (transport->stream && skip-- == 0)
			return transport;
}

static struct ss_config combination(int i, const struct ss_handler *handler)
{
	return config_of(&models[i % model_count], transport_at(i), handler);
}

/* Written by handlers in any process. */
static struct tape *tape;

static const char *code_name(ssize_t code)
{
	switch (-code) {
	case EPIPE:
		return "EPIPE";
	case ECONNRESET:
		return "ECONNRESET";
	case ETIMEDOUT:
		return "ETIMEDOUT";
	case ENODATA:
		return "ENODATA";
	default:
		return code < 0 ? strerror((int)-code) : "none";
	}
}

static bool is_gone(ssize_t code)
{
	return code == -EPIPE || code == -ECONNRESET;
}

static int echo(struct ss_request *req)
{
	char buf[4096];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler echo_handler = { .name = "echo",
						.handle = echo };

static int echo_line(struct ss_request *req)
{
	char line[4096];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n > 0)
		n = ss_write(req, line, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler line_handler = { .handle = echo_line };

/* ---- reading --------------------------------------------------------------*/

static void expect_line(struct ss_request *req, size_t size, const char *line)
{
	char buf[TEXT];
	memset(buf, '#', sizeof(buf));
	ssize_t n = ss_read_line(req, buf, size);
	ck_assert_int_eq(n, (ssize_t)strlen(line));
	ck_assert_mem_eq(buf, line, (size_t)n + 1);
	ck_assert_int_eq(buf[n + 1], '#');
}

static int reads_lines(struct ss_request *req)
{
	char buf[TEXT];
	expect_line(req, TEXT, "one\n");
	expect_line(req, TEXT, "two\r\n");
	expect_line(req, TEXT, "\n");
	expect_line(req, TEXT, "\r\n");
	expect_line(req, TEXT, "last");
	ck_assert_int_eq(ss_read_line(req, buf, TEXT), 0);
	ck_assert_int_eq(ss_read_line(req, buf, TEXT), -ENODATA);
	return 0;
}

START_TEST(stream_reads_lines)
{
	with_text(reads_lines, "one\ntwo\r\n\n\r\nlast");
}
END_TEST

static int reads_lines_within_limits(struct ss_request *req)
{
	char buf[TEXT];
	ck_assert_int_eq(ss_read_line(req, buf, 0), -EINVAL);
	ck_assert_int_eq(ss_read_line(req, buf, 1), -EINVAL);
	/* "four\n" is five bytes, and a NUL. */
	ck_assert_int_eq(ss_read_line(req, buf, 2), -EMSGSIZE);
	ck_assert_int_eq(ss_read_line(req, buf, 5), -EMSGSIZE);
	expect_line(req, 6, "four\n");
	ck_assert_int_eq(ss_read_line(req, buf, 5), -EMSGSIZE);
	ck_assert_int_eq(ss_read(req, buf, 3), 3);
	ck_assert_mem_eq(buf, "fiv", 3);
	expect_line(req, 3, "e\n");
	expect_line(req, 2, "\n");
	/* The last one has no end, and just fits. */
	ck_assert_int_eq(ss_read_line(req, buf, 4), -EMSGSIZE);
	expect_line(req, 5, "last");
	ck_assert_int_eq(ss_read_line(req, buf, 2), 0);
	return 0;
}

START_TEST(stream_reads_lines_within_limits)
{
	/* It needs 12 bytes of buffer. */
	stack_without(&ss_proxy_mixin);
	static const int buffers[] = { 0, SS_NONE, 1, 2, 5 };
	for (size_t i = 0; i < sizeof(buffers) / sizeof(*buffers); i++) {
		struct ss_handler handler = {
			.handle = reads_lines_within_limits,
			.rbufsize = buffers[i],
		};
		close(serve_text(&handler, "four\nfive\n\nlast"));
	}
	with_text(reads_lines_within_limits, "four\nfive\n\nlast");
	struct ss_handler handler = { .handle = reads_lines_within_limits };
	ss_memory_exchange_packet(&handler, "four\nfive\n\nlast", 15, NULL, 0);
}
END_TEST

enum { LONG_LINE = 30000 };

/* Longer than the buffer: the limit is the caller's, not ours. */
static int reads_a_long_line(struct ss_request *req)
{
	static char buf[LONG_LINE + 2];
	ck_assert_int_eq(ss_read_line(req, buf, LONG_LINE), -EMSGSIZE);
	ck_assert_int_eq(ss_read_line(req, buf, LONG_LINE + 1), -EMSGSIZE);
	ck_assert_int_eq(ss_read_line(req, buf, LONG_LINE + 2), LONG_LINE + 1);
	for (int i = 0; i < LONG_LINE; i++)
		ck_assert_int_eq(buf[i], 'l');
	ck_assert_int_eq(buf[LONG_LINE], '\n');
	expect_line(req, 8, "next");
	return 0;
}

START_TEST(stream_reads_lines_beyond_its_buffer)
{
	static char text[LONG_LINE + 6];
	memset(text, 'l', LONG_LINE);
	strcpy(text + LONG_LINE, "\nnext");
	with_text(reads_a_long_line, text);
	struct ss_handler handler = { .handle = reads_a_long_line,
				      .rbufsize = SS_NONE };
	close(serve_text(&handler, text));
}
END_TEST

static int reads_nul_bytes(struct ss_request *req)
{
	char buf[8];
	ck_assert_int_eq(ss_read_line(req, buf, sizeof(buf)), 4);
	ck_assert_mem_eq(buf, "a\0b\n", 5);
	ck_assert_int_eq(ss_read_line(req, buf, sizeof(buf)), 1);
	ck_assert_mem_eq(buf, "\0", 2);
	return 0;
}

START_TEST(stream_reads_lines_with_nul_bytes)
{
	struct ss_handler handler = { .handle = reads_nul_bytes };
	ck_assert_int_eq(ss_memory_exchange(&handler, "a\0b\n\0", 5, NULL, 0),
			 0);
}
END_TEST

static int reads_and_peeks(struct ss_request *req)
{
	char buf[TEXT];
	const void *data;
	ck_assert_int_eq(ss_read(req, buf, 0), 0);
	ck_assert_int_ge(ss_peek(req, &data, 0), 0);
	ck_assert_int_eq(ss_peek(req, &data, 3), 10);
	ck_assert_mem_eq(data, "0123456789", 10);
	ck_assert_int_eq(ss_read(req, buf, 2), 2);
	ck_assert_int_eq(ss_peek(req, &data, 8), 8);
	ck_assert_mem_eq(data, "23456789", 8);
	ck_assert_int_eq(ss_read_full(req, buf, 3), 3);
	ck_assert_mem_eq(buf, "234", 3);
	ck_assert_int_eq(ss_try_read(req, buf, 1), 1);
	ck_assert_int_eq(buf[0], '5');
	ck_assert_int_eq(ss_skip(req, 1), 1);
	/* More than there is: what there is. */
	ck_assert_int_eq(ss_peek(req, &data, 8192), 3);
	ck_assert_mem_eq(data, "789", 3);
	ck_assert_int_eq(ss_peek(req, &data, 8193), -EMSGSIZE);
	ck_assert_ptr_null(data);
	ck_assert_int_eq(ss_read_full(req, buf, TEXT), 3);
	ck_assert_int_eq(ss_read_full(req, buf, TEXT), 0);
	ck_assert_int_eq(ss_read_full(req, buf, TEXT), -ENODATA);
	ck_assert_int_eq(ss_packet(req, &data), -ENOTSUP);
	ck_assert(!ss_packet_truncated(req));
	return 0;
}

START_TEST(stream_reads_and_peeks)
{
	with_text(reads_and_peeks, "0123456789");
}
END_TEST

/* ---- the end --------------------------------------------------------------*/

enum { WAYS = 8 };

/* The ways of reading; each says the end once, and then an error. */
static ssize_t read_somehow(struct ss_request *req, int way)
{
	char buf[8];
	bool end;
	const void *data;
	switch (way) {
	case 0:
		return ss_read(req, buf, sizeof(buf));
	case 1:
		return ss_try_read(req, buf, sizeof(buf));
	case 2:
		return ss_read_full(req, buf, sizeof(buf));
	case 3:
		return ss_read_line(req, buf, sizeof(buf));
	case 4:
		return ss_peek(req, &data, 1);
	case 5:
		return ss_read_netstring(req, buf, sizeof(buf), &end);
	case 6:
		return ss_read_frame(req, 4, buf, sizeof(buf), &end);
	default:
		return ss_skip(req, 1);
	}
}

static int first_way, second_way;

static int reads_the_end(struct ss_request *req)
{
	ck_assert_int_eq(read_somehow(req, first_way), 0);
	ck_assert_int_eq(read_somehow(req, second_way), -ENODATA);
	ck_assert_int_eq(read_somehow(req, first_way), -ENODATA);
	ck_assert_int_eq(ss_write(req, "ok", 2), 2);
	return 0;
}

START_TEST(stream_says_its_end_once)
{
	struct ss_handler handler = { .handle = reads_the_end };
	char out[2];
	for (int i = 0; i < WAYS * WAYS; i++) {
		first_way = i / WAYS;
		second_way = i % WAYS;
		int fd = serve_text(&handler, "");
		expect_text(fd, "ok");
		close(fd);
		ck_assert_int_eq(ss_memory_exchange(&handler, "", 0, out, 2),
				 2);
		ck_assert_int_eq(
			ss_memory_exchange_packet(&handler, "", 0, out, 2), 2);
	}
}
END_TEST

static int calls;

static int ignores_the_end(struct ss_request *req)
{
	read_somehow(req, first_way);
	ck_assert_int_lt(++calls, 10);
	return SS_AGAIN;
}

/* A handler that overlooks the end cannot loop for ever. */
START_TEST(stream_ends_handlers_that_overlook_its_end)
{
	struct ss_handler handler = { .handle = ignores_the_end };
	for (first_way = 0; first_way < WAYS; first_way++) {
		calls = 0;
		close(serve_text(&handler, ""));
		calls = 0;
		ss_memory_exchange(&handler, "", 0, NULL, 0);
	}
}
END_TEST

/* ---- without a buffer -----------------------------------------------------*/

static const char eighty[] = "0123456789abcdefghi\n"
			     "5:hello,\0\2hi"
			     "rest of it, which stays in the kernel\n"
			     "1234567";

static int takes_no_more_than_asked(struct ss_request *req)
{
	char buf[TEXT];
	const void *data;
	int left = (int)sizeof(eighty) - 1;
	ck_assert_int_eq(in_kernel(req), left);
	ck_assert_int_eq(ss_read(req, buf, 4), 4);
	ck_assert_int_eq(in_kernel(req), left -= 4);
	ck_assert_int_eq(ss_read_full(req, buf, 4), 4);
	ck_assert_int_eq(in_kernel(req), left -= 4);
	ck_assert_int_eq(ss_peek(req, &data, 2), 2);
	ck_assert_int_eq(in_kernel(req), left -= 2);
	ck_assert_int_eq(ss_read_full(req, buf, 3), 3);
	ck_assert_mem_eq(buf, "89a", 3);
	ck_assert_int_eq(in_kernel(req), left -= 1);
	ck_assert_int_eq(ss_skip(req, 2), 2);
	ck_assert_int_eq(in_kernel(req), left -= 2);
	ck_assert_int_eq(ss_read_line(req, buf, TEXT), 7);
	ck_assert_str_eq(buf, "defghi\n");
	ck_assert_int_eq(in_kernel(req), left -= 7);
	ck_assert_int_eq(ss_read_netstring(req, buf, TEXT, NULL), 5);
	ck_assert_int_eq(in_kernel(req), left -= 8);
	ck_assert_int_eq(ss_read_frame(req, 2, buf, TEXT, NULL), 2);
	ck_assert_int_eq(in_kernel(req), left -= 4);
	ck_assert_int_eq(ss_try_read(req, buf, 5), 5);
	ck_assert_int_eq(in_kernel(req), left -= 5);
	ck_assert_int_eq(ss_read_line(req, buf, 6), -EMSGSIZE);
	ck_assert_int_eq(in_kernel(req), left -= 6);
	ck_assert_int_eq(ss_read(req, buf, 3), 3);
	ck_assert_mem_eq(buf, "of ", 3);
	ck_assert_int_eq(in_kernel(req), left);
	/* Nobody is there any more for whom to read on. */
	close(peer_end);
	return 0;
}

START_TEST(stream_unbuffered_takes_no_more_than_asked)
{
	struct ss_handler handler = { .handle = takes_no_more_than_asked,
				      .rbufsize = SS_NONE };
	int ends[2];
	pair_of(ends);
	peer_end = ends[0];
	send_bytes(ends[0], eighty, sizeof(eighty) - 1);
	serve_here(&handler, ends[1]);
}
END_TEST

/* ---- every way of reading, mixed ------------------------------------------*/

enum { MIXED = 20000 };

static struct {
	unsigned char in[MIXED];
	size_t n, got;
	const char *where;
} mixed;

static void matches(const void *data, size_t n, const char *what)
{
	ck_assert_msg(mixed.got + n <= mixed.n &&
			      !memcmp(data, mixed.in + mixed.got, n),
		      "%s: %s differs at %zu, %zu bytes", mixed.where, what,
		      mixed.got, n);
}

/* One random read; whether the input goes on. */
static bool mix(struct ss_request *req)
{
	static unsigned char buf[6002];
	const void *data = NULL;
	size_t size = 1 + next_random() % (next_random() % 4 ? 40 : 6000);
	ssize_t n;
	unsigned way = next_random() % 6;
	if (way == 0)
		n = ss_read(req, buf, size);
	else if (way == 1)
		n = ss_try_read(req, buf, size);
	else if (way == 2)
		n = ss_read_full(req, buf, size);
	else if (way == 3)
		n = ss_read_line(req, (char *)buf, size + 1);
	else if (way == 4)
		n = ss_peek(req, &data, size);
	else
		n = ss_read_frame(req, 1, buf, 0, NULL);
	if (n == -EAGAIN || n == -EMSGSIZE || n == -EPROTO)
		return true;
	if (n == -ENODATA || (n == 0 && mixed.got == mixed.n))
		return false;
	ck_assert_msg(n >= 0, "%s: way %u: %s", mixed.where, way,
		      strerror((int)-n));
	if (way == 5)
		/* An empty frame: a byte that is 0. */
		matches("", mixed.got < mixed.n, "frame");
	else
		matches(data ? data : buf, (size_t)n, "read");
	if (way == 3)
		ck_assert(!memchr(buf, '\n', (size_t)n - 1) && !buf[n]);
	if (way == 2 && (size_t)n < size)
		ck_assert_uint_eq(mixed.got + (size_t)n, mixed.n);
	mixed.got += way == 4 ? 0 : way == 5 ? 1 : (size_t)n;
	return true;
}

static int mixes(struct ss_request *req)
{
	while (mix(req))
		;
	ck_assert_msg(mixed.got == mixed.n, "%s: %zu bytes of %zu", mixed.where,
		      mixed.got, mixed.n);
	return 0;
}

static const int mixed_buffers[] = { 0, SS_NONE, 1, 7, 100, 65536 };
enum { MIXED_BUFFERS = sizeof(mixed_buffers) / sizeof(*mixed_buffers) };

static struct ss_handler mixing(unsigned round, const char *over)
{
	static char where[TEXT];
	seed = 1 + round;
	mixed.n = next_random() % MIXED;
	fill(mixed.in, mixed.n);
	mixed.got = 0;
	struct ss_handler handler = {
		.handle = mixes,
		.rbufsize = mixed_buffers[round % MIXED_BUFFERS],
	};
	snprintf(where, sizeof(where), "seed %u over %s", 1 + round, over);
	mixed.where = where;
	return handler;
}

START_TEST(stream_reads_mixed_lose_no_byte_of_memory)
{
	for (int i = 0; i < rounds(60); i++) {
		struct ss_handler handler = mixing((unsigned)i, "memory");
		ssize_t r = ss_memory_exchange(&handler, mixed.in, mixed.n,
					       NULL, 0);
		ck_assert_int_eq(r, 0);
	}
}
END_TEST

/* Sends what is mixed, some bytes at a time. */
struct feeder {
	int fd;
	size_t chunk;
};

static void *feed(void *arg)
{
	const struct feeder *feeder = arg;
	for (size_t sent = 0; sent < mixed.n; sent += feeder->chunk) {
		size_t left = mixed.n - sent;
		send_bytes(feeder->fd, mixed.in + sent,
			   left < feeder->chunk ? left : feeder->chunk);
	}
	shutdown(feeder->fd, SHUT_WR);
	return NULL;
}

static void tcp_pair(int ends[2])
{
	struct ss_address at = { .len = sizeof(at.u.in) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	at.u.in.sin_family = AF_INET;
	at.u.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(listener, &at.u.sa, at.len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, &at.u.sa, &at.len), 0);
	ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(ends[0], &at.u.sa, at.len), 0);
	setsockopt(ends[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	ends[1] = accept(listener, NULL, NULL);
	ck_assert_int_ge(ends[1], 0);
	close(listener);
}

START_TEST(stream_reads_mixed_lose_no_byte_of_a_socket)
{
	/* It needs 12 bytes of buffer. */
	stack_without(&ss_proxy_mixin);
	static const size_t chunks[] = { 1, 1, 3, 100, 5000 };
	for (int i = 0; i < rounds(30); i++) {
		struct ss_handler handler =
			mixing((unsigned)i, i % 2 ? "tcp" : "a socketpair");
		int ends[2];
		if (i % 2)
			tcp_pair(ends);
		else
			pair_of(ends);
		struct feeder feeder = { ends[0], chunks[i % 5] };
		pthread_t thread;
		if (feeder.chunk == 1)
			mixed.n /= 8;
		ck_assert_int_eq(pthread_create(&thread, NULL, feed, &feeder),
				 0);
		serve_here(&handler, ends[1]);
		pthread_join(thread, NULL);
		close(ends[0]);
	}
}
END_TEST

/* ---- writing --------------------------------------------------------------*/

static atomic_int sends;

static ssize_t count_send(int fd, const void *buf, size_t n, int flags)
{
	atomic_fetch_add(&sends, 1);
	return send(fd, buf, n, flags);
}

static ssize_t count_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	atomic_fetch_add(&sends, 1);
	return sendmsg(fd, msg, flags);
}

static void count_sends(void)
{
	sends = 0;
	sys_table.send = count_send;
	sys_table.sendmsg = count_sendmsg;
}

static void count_no_sends(void)
{
	sys_table.send = send;
	sys_table.sendmsg = sendmsg;
}

/* What a handler writes, and in how many calls. */
static void writes(int (*handle)(struct ss_request *), int wbufsize,
		   const char *text, int in_calls)
{
	struct ss_handler handler = { .handle = handle, .wbufsize = wbufsize };
	count_sends();
	int fd = serve_text(&handler, "");
	count_no_sends();
	expect_text(fd, text);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(sends, in_calls);
	static char out[65536];
	ssize_t n = ss_memory_exchange(&handler, "", 0, out, sizeof(out));
	ck_assert_int_eq(n, (ssize_t)strlen(text));
	ck_assert_mem_eq(out, text, (size_t)n);
}

static int writes_this_and_that(struct ss_request *req)
{
	ck_assert_int_eq(ss_write(req, "", 0), 0);
	ck_assert_int_eq(ss_write(req, NULL, 0), 0);
	ck_assert_uint_eq(ss_sent(req), 0);
	ck_assert_int_eq(ss_write(req, "one ", 4), 4);
	ck_assert_uint_eq(ss_sent(req), 4);
	ck_assert_int_eq(ss_writev(req, NULL, 0), 0);
	ck_assert_uint_eq(ss_sent(req), 0);
	struct iovec empty[] = { { NULL, 0 }, { NULL, 0 } };
	ck_assert_int_eq(ss_writev(req, empty, 2), 0);
	struct iovec iov[] = { { NULL, 0 },
			       { (char *)"tw", 2 },
			       { (char *)"", 0 },
			       { (char *)"o ", 2 },
			       { NULL, 0 } };
	ck_assert_int_eq(ss_writev(req, iov, 5), 4);
	ck_assert_uint_eq(ss_sent(req), 4);
	ck_assert_mem_eq(iov[1].iov_base, "tw", 2);
	ck_assert_int_eq(ss_printf(req, "%s", ""), 0);
	ck_assert_int_eq(ss_printf(req, "%d%c", 3, ' '), 2);
	ck_assert_int_eq(ss_flush(req), 0);
	ck_assert_int_eq(ss_flush(req), 0);
	uint64_t out;
	ss_request_bytes(req, NULL, &out);
	ck_assert_uint_eq(out, 10);
	ck_assert_int_eq(ss_write(req, "four", 4), 4);
	return 0;
}

START_TEST(stream_writes)
{
	writes(writes_this_and_that, 0, "one two 3 four", 4);
	writes(writes_this_and_that, SS_NONE, "one two 3 four", 2);
	writes(writes_this_and_that, 5, "one two 3 four", 4);
	writes(writes_this_and_that, 4, "one two 3 four", 4);
}
END_TEST

enum { MANY = 3000 };

static int writes_many_elements(struct ss_request *req)
{
	static struct iovec iov[MANY];
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
	for (int i = 0; i < MANY; i++)
		iov[i] = (struct iovec){ (char *)letters + i % 26,
					 i % 3 ? 1 : 0 };
	ck_assert_int_eq(ss_writev(req, iov, MANY), MANY / 3 * 2);
	ck_assert_uint_eq(ss_sent(req), MANY / 3 * 2);
	iov[0].iov_len = SSIZE_MAX;
	iov[1].iov_len = 1;
	ck_assert_int_eq(ss_writev(req, iov, 2), -EINVAL);
	ck_assert_uint_eq(ss_sent(req), 0);
	return 0;
}

/* More of them than one call takes (IOV_MAX). */
START_TEST(stream_writes_many_elements)
{
	static const int buffers[] = { 0, 7, SS_NONE };
	struct ss_handler handler = { .handle = writes_many_elements,
				      .wbufsize = buffers[_i] };
	static char text[MANY + 1], got[MANY + 1];
	size_t used = 0;
	for (int i = 0; i < MANY; i++)
		if (i % 3)
			text[used++] = (char)('a' + i % 26);
	int fd = serve_text(&handler, "");
	expect_bytes(fd, got, used);
	ck_assert_str_eq(got, text);
	expect_end(fd);
	close(fd);
}
END_TEST

static int prints_at_length(struct ss_request *req)
{
	static const int lengths[] = {
		1, 510, 511, 512, 513, 600, 8192, 30000
	};
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		ck_assert_int_eq(ss_printf(req, "%*s\n", lengths[i], "x"),
				 lengths[i] + 1);
	return 0;
}

START_TEST(stream_prints_at_any_length)
{
	static char out[50000];
	struct ss_handler handler = { .handle = prints_at_length };
	ssize_t n = ss_memory_exchange(&handler, "", 0, out, sizeof(out));
	ck_assert_int_eq(n, 1 + 510 + 511 + 512 + 513 + 600 + 8192 + 30000 + 8);
	size_t at = 0, lines = 0;
	for (char *end; (end = memchr(out + at, '\n', (size_t)n - at));) {
		ck_assert_int_eq(end[-1], 'x');
		at = (size_t)(end - out) + 1;
		lines++;
	}
	ck_assert_uint_eq(lines, 8);
	ck_assert_uint_eq(at, (size_t)n);
}
END_TEST

static int at_peer(void)
{
	int n = -1;
	ck_assert_int_eq(ioctl(peer_end, FIONREAD, &n), 0);
	return n;
}

static int buffers_output(struct ss_request *req)
{
	ck_assert_int_eq(ss_write(req, "1234", 4), 4);
	ck_assert_int_eq(at_peer(), 0);
	ck_assert_int_eq(ss_printf(req, "%s", "5678"), 4);
	ck_assert_int_eq(at_peer(), 0);
	/* It does not fit beside them: they go first. */
	ck_assert_int_eq(ss_write(req, "9abcdef", 7), 7);
	ck_assert_int_eq(at_peer(), 8);
	ck_assert_uint_eq(ss_sent(req), 7);
	ck_assert_int_eq(ss_flush(req), 0);
	ck_assert_int_eq(at_peer(), 15);
	/* Larger than the buffer: at once, behind what waits. */
	ck_assert_int_eq(ss_write(req, "x", 1), 1);
	ck_assert_int_eq(ss_write(req, "0123456789", 10), 10);
	ck_assert_int_eq(at_peer(), 26);
	ck_assert_int_eq(ss_write(req, "y", 1), 1);
	ck_assert_int_eq(at_peer(), 26);
	ck_assert_int_eq(ss_shutdown_stream(req, SHUT_WR), 0);
	ck_assert_int_eq(at_peer(), 27);
	return 0;
}

START_TEST(stream_buffers_output)
{
	struct ss_handler handler = { .handle = buffers_output,
				      .wbufsize = 10 };
	int ends[2];
	pair_of(ends);
	peer_end = ends[0];
	serve_here(&handler, ends[1]);
	expect_text(ends[0], "123456789abcdefx0123456789y");
	expect_end(ends[0]);
	close(ends[0]);
}
END_TEST

static int finishes_with_a_word(struct ss_request *req)
{
	return (int)ss_printf(req, "bye") == 3 ? 0 : -EIO;
}

static int fails_with_a_word(struct ss_request *req)
{
	ss_printf(req, "sorry, ");
	return -EDOM;
}

START_TEST(stream_flushes_at_the_end)
{
	struct ss_handler handler = { .handle = fails_with_a_word,
				      .finish = finishes_with_a_word,
				      .wbufsize = SS_NONE };
	count_sends();
	int fd = serve_text(&handler, "");
	count_no_sends();
	expect_text(fd, "sorry, bye");
	expect_end(fd);
	ck_assert_int_eq(sends, 1);
	close(fd);
}
END_TEST

/* ---- what went, when it fails ---------------------------------------------*/

enum { HUGE_WRITE = 32 << 20 };

static int writes_too_much(struct ss_request *req)
{
	char *zeros = ss_shared_alloc(HUGE_WRITE);
	ck_assert_ptr_nonnull(zeros);
	struct iovec iov[] = { { zeros, HUGE_WRITE / 2 },
			       { zeros, HUGE_WRITE / 2 } };
	ssize_t n = ss_writev(req, iov, 2);
	size_t sent = ss_sent(req);
	ck_assert_int_eq(n, -ETIMEDOUT);
	ck_assert_uint_gt(sent, 0);
	ck_assert_uint_lt(sent, HUGE_WRITE);
	ss_shared_free(zeros, HUGE_WRITE);
	uint64_t out;
	ss_request_bytes(req, NULL, &out);
	ck_assert_uint_eq(out, sent);
	tape_note(tape, "%zu", sent);
	return 0;
}

/* The client reads it all afterwards: just what was said to have gone. */
START_TEST(stream_tells_how_much_went)
{
	static const struct ss_handler handler = {
		.handle = writes_too_much,
		.speaks_first = true,
		.timeouts = { .io_ms = 20 },
	};
	struct ss_config config = combination(_i, &handler);
	struct node node;
	tape = tape_new();
	node_start(&node, &config);
	int fd = dial(node.url);
	tape_wait(tape, 1);
	size_t sent = strtoul(tape_text(tape), NULL, 10), got = 0;
	static char bytes[65536];
	ssize_t n;
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		got += (size_t)n;
	ck_assert_int_eq(n, 0);
	ck_assert_uint_eq(got, sent);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static int writes_to_a_dead_peer(struct ss_request *req)
{
	close(peer_end);
	ck_assert_int_eq(ss_write(req, "x", 1), -EPIPE);
	ck_assert_uint_eq(ss_sent(req), 0);
	ck_assert_int_eq(ss_printf(req, "%d", 1), -EPIPE);
	ck_assert_uint_eq(ss_sent(req), 0);
	ck_assert_int_eq(ss_write(req, "x", 0), 0);
	uint64_t out;
	ss_request_bytes(req, NULL, &out);
	ck_assert_uint_eq(out, 0);
	return 0;
}

static int buffers_for_a_dead_peer(struct ss_request *req)
{
	close(peer_end);
	ck_assert_int_eq(ss_write(req, "x", 1), 1);
	ck_assert_uint_eq(ss_sent(req), 1);
	ck_assert_int_eq(ss_flush(req), -EPIPE);
	ck_assert_int_eq(ss_write(req, "0123456789", 10), -EPIPE);
	ck_assert_uint_eq(ss_sent(req), 0);
	return 0;
}

START_TEST(stream_says_that_the_peer_is_gone)
{
	struct ss_handler handler = { .handle = writes_to_a_dead_peer };
	int ends[2];
	pair_of(ends);
	peer_end = ends[0];
	serve_here(&handler, ends[1]);
	pair_of(ends);
	peer_end = ends[0];
	handler.handle = buffers_for_a_dead_peer;
	handler.wbufsize = 8;
	serve_here(&handler, ends[1]);
}
END_TEST

/* ---- half-close -----------------------------------------------------------*/

static int reads_then_writes(struct ss_request *req)
{
	char buf[TEXT];
	ssize_t n = ss_read_full(req, buf, sizeof(buf));
	return (int)(n < 0 ? n : ss_write(req, buf, (size_t)n) - n);
}

START_TEST(stream_answers_after_the_end_of_input)
{
	static const struct ss_handler handler = { .handle =
							   reads_then_writes };
	struct ss_config config = combination(_i, &handler);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "all that I have");
	shutdown(fd, SHUT_WR);
	expect_text(fd, "all that I have");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* The first read came short, so that the next one has to be told of more. */
static int sleeps_between_reads(struct ss_request *req)
{
	char buf[TEXT];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	ss_write(req, buf, n > 0 ? (size_t)n : 0);
	int r = ss_sleep(req, 50);
	n = r < 0 ? r : ss_read(req, buf, sizeof(buf));
	return (int)(n < 0 ? n : ss_write(req, buf, (size_t)n) - n);
}

START_TEST(stream_reads_what_came_while_it_slept)
{
	static const struct ss_handler handler = {
		.handle = sleeps_between_reads
	};
	struct ss_config config = combination(_i, &handler);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "ping");
	expect_text(fd, "ping");
	send_text(fd, "pong");
	expect_text(fd, "pong");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static int ends_then_reads(struct ss_request *req)
{
	char buf[TEXT];
	ss_write(req, "bye", 3);
	int r = ss_shutdown_stream(req, SHUT_WR);
	ssize_t n = ss_write(req, "x", 1);
	tape_note(tape, "%d %s", r, code_name(n));
	n = ss_read_full(req, buf, 5);
	tape_note(tape, "%.*s", n > 0 ? (int)n : 0, buf);
	tape_note(tape, "%d", (int)ss_read(req, buf, 1));
	return 0;
}

START_TEST(stream_reads_on_after_its_own_end)
{
	static const struct ss_handler handler = {
		.handle = ends_then_reads,
		.wbufsize = SS_NONE,
		.speaks_first = true,
	};
	struct ss_config config = combination(_i, &handler);
	struct node node;
	tape = tape_new();
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, "bye");
	expect_end(fd);
	send_text(fd, "after");
	shutdown(fd, SHUT_WR);
	tape_wait(tape, 3);
	/* With a buffer, the write that cannot go out any more may succeed. */
	ck_assert_str_eq(tape_text(tape), "0 none after 0");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static int shuts_each_side(struct ss_request *req)
{
	char byte;
	ck_assert_int_eq(ss_read(req, &byte, 1), 1);
	ck_assert_int_eq(ss_shutdown_stream(req, SHUT_RD), 0);
	ck_assert_int_eq(ss_read(req, &byte, 1), 0);
	ck_assert_int_eq(ss_read(req, &byte, 1), -ENODATA);
	ck_assert_int_eq(ss_write(req, "still here", 10), 10);
	ck_assert_int_eq(ss_shutdown_stream(req, SHUT_WR), 0);
	ck_assert_int_eq(ss_write(req, "x", 1), -EPIPE);
	ck_assert_int_eq(ss_shutdown_stream(req, SHUT_RDWR), 0);
	ck_assert_int_eq(ss_shutdown_stream(req, 77), -EINVAL);
	return 0;
}

START_TEST(stream_shuts_each_side)
{
	struct ss_handler handler = { .handle = shuts_each_side };
	int ends[2];
	pair_of(ends);
	send_text(ends[0], "a");
	serve_here(&handler, ends[1]);
	expect_text(ends[0], "still here");
	expect_end(ends[0]);
	close(ends[0]);
}
END_TEST

/* ---- files ----------------------------------------------------------------*/

enum { FILE_SIZE = 3000000 };

static unsigned char file_byte(size_t i)
{
	return (unsigned char)(i * 7 + i / 251);
}

/* A file of that many bytes, and no name. */
static int file_of(size_t n)
{
	char path[TEXT];
	snprintf(path, sizeof(path), "%s/file", scratch());
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	unlink(path);
	static unsigned char bytes[65536];
	for (size_t at = 0; at < n;) {
		size_t part = n - at < sizeof(bytes) ? n - at : sizeof(bytes);
		for (size_t i = 0; i < part; i++)
			bytes[i] = file_byte(at + i);
		ck_assert_int_eq(write(fd, bytes, part), (ssize_t)part);
		at += part;
	}
	return fd;
}

static void expect_file(int fd, size_t from, size_t n)
{
	static unsigned char bytes[65536];
	while (n) {
		size_t part = n < sizeof(bytes) ? n : sizeof(bytes);
		expect_bytes(fd, bytes, part);
		for (size_t i = 0; i < part; i++)
			if (bytes[i] != file_byte(from + i))
				ck_abort_msg("byte %zu differs", from + i);
		from += part;
		n -= part;
	}
}

static int file;

/* Asks for what a line says: OFFSET and how many. */
static int sends_file(struct ss_request *req)
{
	char line[TEXT];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	char *end;
	long offset = strtol(line, &end, 10);
	size_t count = strtoul(end, NULL, 10);
	n = ss_sendfile(req, file, offset, count);
	tape_note(tape, "%zd/%zu", n, ss_sent(req));
	return n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler file_handler = { .handle = sends_file };

static const struct {
	const char *asked, *told;
	size_t from, n;
} parts[] = {
	{ "0 3000000\n", "3000000/3000000", 0, 3000000 },
	{ "0 0\n", "0/0", 0, 0 },
	{ "0 1\n", "1/1", 0, 1 },
	{ "1000000 5\n", "5/5", 1000000, 5 },
	{ "2999999 1\n", "1/1", 2999999, 1 },
	{ "2999990 500\n", "10/10", 2999990, 10 },
	{ "3000000 500\n", "0/0", 0, 0 },
	{ "9000000 500\n", "0/0", 0, 0 },
	{ "7 18446744073709551615\n", "2999993/2999993", 7, 2999993 },
	{ "100000 1000000\n", "1000000/1000000", 100000, 1000000 },
};
enum { PARTS = sizeof(parts) / sizeof(*parts) };

static void ask_for_parts(int fd)
{
	char told[TEXT * PARTS] = "";
	for (int i = 0; i < PARTS; i++) {
		send_text(fd, parts[i].asked);
		expect_file(fd, parts[i].from, parts[i].n);
		strcat(told, i ? " " : "");
		strcat(told, parts[i].told);
	}
	tape_wait(tape, PARTS);
	ck_assert_str_eq(tape_text(tape), told);
}

START_TEST(stream_sends_files)
{
	struct ss_config config = combination(_i, &file_handler);
	struct node node;
	file = file_of(FILE_SIZE);
	ck_assert_int_eq(lseek(file, 1234, SEEK_SET), 1234);
	tape = tape_new();
	node_start(&node, &config);
	int fd = dial(node.url);
	ask_for_parts(fd);
	close(fd);
	ck_assert_int_eq(lseek(file, 0, SEEK_CUR), 1234);
	ck_assert_int_eq(node_stop(&node), 0);
	close(file);
}
END_TEST

static int send_file_errno;

static ssize_t failing_send_file(int to, int from, off_t *offset, size_t n)
{
	(void)to, (void)from, (void)offset, (void)n;
	errno = send_file_errno;
	return -1;
}

/* Where the kernel cannot, we copy; other errors are errors. */
START_TEST(stream_copies_files_where_the_kernel_cannot)
{
	static const int errors[] = { EINVAL, ENOSYS, EIO };
	struct ss_config config = combination(0, &file_handler);
	struct node node;
	file = file_of(FILE_SIZE);
	tape = tape_new();
	send_file_errno = errors[_i];
	sys_table.send_file = failing_send_file;
	config.log_level = SS_NONE;
	node_start(&node, &config);
	int fd = dial(node.url);
	/* What is recorded is copied anyway. */
	if (errors[_i] == EIO && !stacked()) {
		send_text(fd, "0 5\n");
		expect_end(fd);
		tape_wait(tape, 1);
		ck_assert_str_eq(tape_text(tape), "-5/0");
	} else {
		ask_for_parts(fd);
	}
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	close(file);
}
END_TEST

/* What is no file: an error, and the connection goes on. */
static int sends_odd_files(struct ss_request *req)
{
	int pipe_ends[2];
	ck_assert_int_eq(pipe(pipe_ends), 0);
	ck_assert_int_eq(write(pipe_ends[1], "in a pipe", 9), 9);
	ck_assert_int_lt(ss_sendfile(req, pipe_ends[0], 0, 9), 0);
	ck_assert_uint_eq(ss_sent(req), 0);
	ck_assert_int_lt(ss_sendfile(req, pipe_ends[1], 0, 9), 0);
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	ck_assert_int_eq(ss_sendfile(req, -1, 0, 9), -EBADF);
	ck_assert_int_eq(ss_sendfile(req, file, -1, 9), -EINVAL);
	int directory = open("/", O_RDONLY | O_DIRECTORY);
	ck_assert_int_lt(ss_sendfile(req, directory, 0, 9), 0);
	close(directory);
	int socket = dial(ss_server_user(ss_request_server(req)));
	ck_assert_int_lt(ss_sendfile(req, socket, 0, 9), 0);
	close(socket);
	int zero = open("/dev/zero", O_RDONLY);
	ck_assert_int_eq(ss_sendfile(req, zero, 0, 9), 9);
	close(zero);
	int status = open("/proc/self/status", O_RDONLY);
	ck_assert_int_eq(ss_sendfile(req, status, 0, 5), 5);
	close(status);
	ck_assert_int_eq(ss_write(req, "!", 1), 1);
	return 0;
}

static void check_odd_files(int fd)
{
	char got[15];
	expect_bytes(fd, got, sizeof(got));
	ck_assert_mem_eq(got, "\0\0\0\0\0\0\0\0\0Name:!", 15);
	expect_end(fd);
	close(fd);
}

START_TEST(stream_survives_odd_files)
{
	struct ss_handler handler = { .handle = sends_odd_files };
	struct ss_config other = quiet(&echo_handler);
	struct ss_server *served = made(&other);
	char url[SS_ADDRESS_TEXT];
	ss_server_url(served, 0, url, sizeof(url));
	file = file_of(10);
	/* Accepted: by the kernel's means. */
	struct ss_config config = quiet(&handler);
	config.user = url;
	struct ss_server *server = made(&config);
	char own[SS_ADDRESS_TEXT];
	int fd = dial(ss_server_url(server, 0, own, sizeof(own)));
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	check_odd_files(fd);
	/* Adopted: by copying. */
	int ends[2];
	pair_of(ends);
	ck_assert_int_eq(ss_serve_fd(server, ends[1]), 0);
	check_odd_files(ends[0]);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(ss_server_free(served), 0);
	close(file);
}
END_TEST

static int sends_a_whole_file(struct ss_request *req)
{
	ck_assert_int_eq(ss_write(req, "<", 1), 1);
	ck_assert_int_eq(ss_sendfile(req, file, 0, 99999), 50000);
	ck_assert_uint_eq(ss_sent(req), 50000);
	ck_assert_int_eq(ss_write(req, ">", 1), 1);
	return 0;
}

static void check_copy(const char *out)
{
	ck_assert_int_eq(out[0], '<');
	for (size_t i = 0; i < 50000; i++)
		ck_assert_int_eq((unsigned char)out[i + 1], file_byte(i));
	ck_assert_int_eq(out[50001], '>');
}

START_TEST(stream_copies_files_to_memory_and_datagrams)
{
	static char out[65507];
	struct ss_handler handler = { .handle = sends_a_whole_file,
				      .wbufsize = _i ? SS_NONE : 0 };
	file = file_of(50000);
	ck_assert_int_eq(ss_memory_exchange(&handler, "", 0, out, sizeof(out)),
			 50002);
	check_copy(out);
	memset(out, 0, sizeof(out));
	ck_assert_int_eq(
		ss_memory_exchange_packet(&handler, "", 0, out, sizeof(out)),
		50002);
	check_copy(out);
	int fd = serve_text(&handler, "");
	expect_text(fd, "<");
	expect_file(fd, 0, 50000);
	expect_text(fd, ">");
	expect_end(fd);
	close(fd);
	close(file);
}
END_TEST

static int sends_a_file_too_large(struct ss_request *req)
{
	ck_assert_int_eq(ss_sendfile(req, file, 0, 70000), -EMSGSIZE);
	return -EMSGSIZE;
}

START_TEST(stream_files_beyond_a_datagram_are_refused)
{
	struct ss_handler handler = { .handle = sends_a_file_too_large };
	file = file_of(70000);
	ck_assert_int_eq(ss_memory_exchange_packet(&handler, "", 0, NULL, 0),
			 -EMSGSIZE);
	close(file);
}
END_TEST

/* The flags of an adopted descriptor are its owner's. */
START_TEST(stream_leaves_the_flags_of_adopted_descriptors)
{
	struct ss_handler handler = { .handle = sends_a_whole_file };
	file = file_of(50000);
	for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
		int ends[2];
		pair_of(ends);
		int flags = fcntl(ends[1], F_GETFL);
		if (nonblocking)
			flags |= O_NONBLOCK;
		fcntl(ends[1], F_SETFL, flags);
		int twin = dup(ends[1]);
		serve_here(&handler, ends[1]);
		ck_assert_int_eq(fcntl(twin, F_GETFL), flags);
		close(twin);
		close(ends[0]);
	}
	close(file);
}
END_TEST

enum { LARGE = 24 << 20 };

static int sends_a_large_file(struct ss_request *req)
{
	ssize_t n = ss_sendfile(req, file, 0, LARGE);
	tape_note(tape, "%zd", n);
	return n < 0 ? (int)n : 0;
}

START_TEST(stream_sends_files_to_a_client_that_pauses)
{
	static const struct ss_handler handler = { .handle = sends_a_large_file,
						   .speaks_first = true };
	struct ss_config config = combination(_i, &handler);
	struct node node;
	file = file_of(0);
	ck_assert_int_eq(ftruncate(file, LARGE), 0);
	tape = tape_new();
	node_start(&node, &config);
	int fd = dial(node.url);
	static char bytes[65536];
	size_t got = 0;
	ssize_t n;
	expect_bytes(fd, bytes, 1);
	for (got = 1; (n = recv(fd, bytes, sizeof(bytes), 0)) > 0;) {
		size_t before = got;
		got += (size_t)n;
		if (before / (LARGE / 3) != got / (LARGE / 3))
			pause_ms(5);
	}
	ck_assert_int_eq(n, 0);
	ck_assert_uint_eq(got, LARGE);
	tape_wait(tape, 1);
	ck_assert_str_eq(tape_text(tape), "25165824");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	close(file);
}
END_TEST

/* ---- a hostile kernel -----------------------------------------------------*/

/* Each call may be interrupted, would block, or does only a little. */
static atomic_uint faults;

enum fault { NO_FAULT, LITTLE, INTERRUPTED, WOULD_BLOCK };

/* Who parks is told by edges what has come: a kernel that makes none does not
 * say "would block" before, nor stop short but where it may. */
static bool edges, whole;

static enum fault next_fault(unsigned *r)
{
	unsigned x = atomic_fetch_add(&faults, 1) * 2654435761U;
	x ^= x >> 15;
	*r = x >> 8;
	switch (x % 8) {
	case 0:
		errno = EINTR;
		return INTERRUPTED;
	case 1:
		errno = edges ? EINTR : EAGAIN;
		return edges ? INTERRUPTED : WOULD_BLOCK;
	case 2:
	case 3:
	case 4:
		return LITTLE;
	default:
		return NO_FAULT;
	}
}

static size_t little(unsigned r, size_t n, size_t unit)
{
	size_t some = (1 + r % 7) * unit;
	return some < n ? some : n;
}

static ssize_t faulty_recv(int fd, void *buf, size_t n, int flags)
{
	unsigned r;
	enum fault fault = next_fault(&r);
	if (fault == INTERRUPTED ||
	    (fault == WOULD_BLOCK && (flags & MSG_DONTWAIT)))
		return -1;
	bool short_of = fault == LITTLE && !whole;
	return recv(fd, buf, short_of ? little(r, n, 1) : n, flags);
}

static ssize_t faulty_send(int fd, const void *buf, size_t n, int flags)
{
	unsigned r;
	enum fault fault = next_fault(&r);
	if (fault == INTERRUPTED || fault == WOULD_BLOCK)
		return -1;
	return send(fd, buf, fault == LITTLE ? little(r, n, 1) : n, flags);
}

static ssize_t faulty_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	unsigned r;
	enum fault fault = next_fault(&r);
	if (fault == INTERRUPTED || fault == WOULD_BLOCK)
		return -1;
	if (fault == NO_FAULT)
		return sendmsg(fd, msg, flags);
	const struct iovec *iov = msg->msg_iov;
	return send(fd, iov->iov_base, little(r, iov->iov_len, 1), flags);
}

static ssize_t faulty_send_file(int to, int from, off_t *offset, size_t n)
{
	unsigned r;
	enum fault fault = next_fault(&r);
	if (fault == INTERRUPTED || fault == WOULD_BLOCK)
		return -1;
	return sys_do_send_file(to, from, offset,
				fault == LITTLE ? little(r, n, 500) : n);
}

static ssize_t faulty_pread(int fd, void *buf, size_t n, off_t offset)
{
	unsigned r;
	enum fault fault = next_fault(&r);
	if (fault == INTERRUPTED)
		return -1;
	return pread(fd, buf, fault == LITTLE ? little(r, n, 500) : n, offset);
}

static int faulty_poll(struct pollfd *fds, nfds_t n, int ms)
{
	unsigned r;
	if (next_fault(&r) == INTERRUPTED)
		return -1;
	return poll(fds, n, ms);
}

static void make_faulty(void)
{
	sys_table.recv = faulty_recv;
	sys_table.send = faulty_send;
	sys_table.sendmsg = faulty_sendmsg;
	sys_table.send_file = faulty_send_file;
	sys_table.pread = faulty_pread;
	sys_table.poll = faulty_poll;
}

static void make_faulty_for(const struct ss_config *config)
{
	edges = false;
	for (const struct ss_use *use = config->mixins; use->layer; use++)
		edges |= (use->layer->flags & SS_LAYER_PARKS) != 0;
	whole = edges && config->transport == &ss_tcp_server;
	make_faulty();
}

/* Sends all that is mixed and wants it back, whatever order both come in. */
static void there_and_back(const char *url)
{
	int fd = dial(url);
	struct feeder feeder = { fd, 997 };
	pthread_t thread;
	static unsigned char got[MIXED];
	ck_assert_int_eq(pthread_create(&thread, NULL, feed, &feeder), 0);
	expect_bytes(fd, got, mixed.n);
	pthread_join(thread, NULL);
	ck_assert_mem_eq(got, mixed.in, mixed.n);
	expect_end(fd);
	close(fd);
}

/* Sends it back in two halves, by one call. */
static int echo_halves(struct ss_request *req)
{
	char buf[1000];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n <= 0)
		return (int)n;
	size_t half = (size_t)n / 2;
	struct iovec iov[] = { { buf, half },
			       { buf + half, (size_t)n - half } };
	n = ss_writev(req, iov, 2);
	return n < 0 ? (int)n : SS_AGAIN;
}

static void prepare_mixed(unsigned with_seed)
{
	seed = with_seed;
	mixed.n = MIXED;
	fill(mixed.in, MIXED);
}

START_TEST(stream_survives_a_hostile_kernel)
{
	static const struct ss_handler handlers[] = {
		{ .handle = echo_halves },
		{ .handle = echo_halves, .rbufsize = SS_NONE, .wbufsize = 900 },
	};
	prepare_mixed(11);
	for (int i = 0; i < 2; i++) {
		struct ss_config config = combination(_i, &handlers[i]);
		struct node node;
		make_faulty_for(&config);
		node_start(&node, &config);
		there_and_back(node.url);
		ck_assert_int_eq(node_stop(&node), 0);
	}
}
END_TEST

START_TEST(stream_sends_files_through_a_hostile_kernel)
{
	struct ss_config config = combination(_i, &file_handler);
	struct node node;
	file = file_of(FILE_SIZE);
	tape = tape_new();
	make_faulty_for(&config);
	node_start(&node, &config);
	int fd = dial(node.url);
	ask_for_parts(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	close(file);
}
END_TEST

START_TEST(stream_reads_mixed_through_a_hostile_kernel)
{
	/* It needs 12 bytes of buffer. */
	stack_without(&ss_proxy_mixin);
	for (int i = 0; i < rounds(20); i++) {
		struct ss_handler handler = mixing((unsigned)i, "faults");
		int ends[2];
		pair_of(ends);
		send_bytes(ends[0], mixed.in, mixed.n);
		shutdown(ends[0], SHUT_WR);
		make_faulty();
		serve_here(&handler, ends[1]);
		close(ends[0]);
	}
}
END_TEST

enum { SMALL = 8000 }; /* fits a socket that nobody reads yet */

static int sends_a_small_file(struct ss_request *req)
{
	ck_assert_int_eq(ss_sendfile(req, file, 0, 99999), SMALL);
	ck_assert_uint_eq(ss_sent(req), SMALL);
	return 0;
}

/* Where they are copied, too. */
START_TEST(stream_copies_files_through_a_hostile_kernel)
{
	struct ss_handler handler = { .handle = sends_a_small_file };
	file = file_of(SMALL);
	for (int i = 0; i < rounds(20); i++) {
		make_faulty();
		int fd = serve_text(&handler, "");
		expect_file(fd, 0, SMALL);
		expect_end(fd);
		close(fd);
	}
	close(file);
}
END_TEST

static int naps(struct ss_request *req)
{
	int64_t began = clock_ms();
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(ss_sleep(req, 3), 0);
	ck_assert_int_ge(clock_ms() - began, 30);
	return 0;
}

START_TEST(stream_naps_through_a_hostile_kernel)
{
	struct ss_handler handler = { .handle = naps };
	make_faulty();
	close(serve_text(&handler, ""));
}
END_TEST

static void on_alarm(int number)
{
	(void)number;
}

/* Interrupted a thousand times a second, without SA_RESTART. */
static int serve_in_a_storm(struct ss_server *server)
{
	struct sigaction action = { .sa_handler = on_alarm };
	sigaction(SIGALRM, &action, NULL);
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } };
	setitimer(ITIMER_REAL, &often, NULL);
	return ss_serve_forever(server);
}

START_TEST(stream_survives_a_storm_of_signals)
{
	struct ss_config config = combination(_i, &echo_handler);
	struct node node;
	prepare_mixed(12);
	node_run(&node, &config, serve_in_a_storm);
	for (int i = 0; i < 5; i++)
		there_and_back(node.url);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- urgent data ----------------------------------------------------------*/

/* Whether the kernel takes it there: Unix sockets from Linux 5.15 on. */
static bool send_urgent(int fd, const char *byte)
{
	ssize_t n = send(fd, byte, 1, MSG_OOB | MSG_NOSIGNAL);
	ck_assert(n == 1 || errno == EOPNOTSUPP);
	return n == 1;
}

/* The byte is skipped where it is not asked for, and holds up nothing. */
START_TEST(stream_urgent_data_hangs_nothing)
{
	struct ss_config config = combination(_i, &line_handler);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "abc");
	if (send_urgent(fd, "!")) {
		send_text(fd, "def\n");
		expect_text(fd, "abcdef\n");
		send_urgent(fd, "!");
		send_text(fd, "ghi\n");
		expect_text(fd, "ghi\n");
		send_text(fd, "jkl\n");
		send_urgent(fd, "!");
		expect_text(fd, "jkl\n");
		send_text(fd, "mno\n");
		expect_text(fd, "mno\n");
		send_urgent(fd, "!");
	}
	shutdown(fd, SHUT_WR);
	ssize_t n;
	char rest[TEXT];
	while ((n = recv_within(fd, rest, sizeof(rest), WAIT_MS)) > 0)
		;
	ck_assert_int_eq(n, 0);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static int passes_urgent_data_on(struct ss_request *req)
{
	unsigned char byte = '?';
	int r = ss_recv_oob(req, &byte);
	tape_note(tape, "%s", r == -EAGAIN ? "none" : "?");
	ss_write(req, "ready\n", 6);
	while ((r = ss_recv_oob(req, &byte)) == -EAGAIN)
		ss_sleep(req, 1);
	tape_note(tape, "%d", r);
	r = ss_send_oob(req, (unsigned char)(byte + 1));
	tape_note(tape, "%d", r);
	r = ss_recv_oob(req, &byte);
	tape_note(tape, "%s", r == -EAGAIN ? "none" : "?");
	char line[TEXT];
	ss_read_line(req, line, sizeof(line));
	return 0;
}

START_TEST(stream_urgent_data_can_be_sent_and_received)
{
	static const struct ss_handler handler = {
		.handle = passes_urgent_data_on,
		.wbufsize = SS_NONE,
		.speaks_first = true,
	};
	struct ss_config config =
		config_of(&models[_i], &transports[0], &handler);
	struct node node;
	tape = tape_new();
	config.handler = &handler;
	node_start(&node, &config);
	int fd = dial(node.url);
	tape_wait(tape, 1);
	/* What is buffered goes before the urgent byte. */
	send_urgent(fd, "A");
	struct pollfd urgent = { .fd = fd, .events = POLLPRI };
	ck_assert_int_eq(poll(&urgent, 1, WAIT_MS), 1);
	char byte;
	ck_assert_int_eq(recv(fd, &byte, 1, MSG_OOB), 1);
	ck_assert_int_eq(byte, 'B');
	expect_text(fd, "ready\n");
	send_text(fd, "bye\n");
	expect_end(fd);
	tape_wait(tape, 4);
	ck_assert_str_eq(tape_text(tape), "none 0 0 none");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static int roomless; /* so often there is none in the socket */

static ssize_t send_without_room(int fd, const void *buf, size_t n, int flags)
{
	if (!(flags & MSG_OOB) || !roomless)
		return send(fd, buf, n, flags);
	roomless--;
	errno = EAGAIN;
	return -1;
}

static int sends_urgently(struct ss_request *req)
{
	ck_assert_int_eq(ss_write(req, "first", 5), 5);
	ck_assert_int_eq(ss_send_oob(req, '!'), 0);
	ck_assert_int_eq(roomless, 0);
	return 0;
}

START_TEST(stream_urgent_data_waits_for_room)
{
	struct ss_handler handler = { .handle = sends_urgently,
				      .wbufsize = SS_NONE };
	struct ss_config config = quiet(&handler);
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT], byte;
	int fd = dial(ss_server_url(server, 0, url, sizeof(url)));
	shutdown(fd, SHUT_WR);
	sys_table.send = send_without_room;
	roomless = 2;
	ck_assert_int_eq(ss_handle_request(server), 1);
	sys_table.send = send;
	struct pollfd urgent = { .fd = fd, .events = POLLPRI };
	ck_assert_int_eq(poll(&urgent, 1, WAIT_MS), 1);
	ck_assert_int_eq(recv(fd, &byte, 1, MSG_OOB), 1);
	ck_assert_int_eq(byte, '!');
	expect_text(fd, "first");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int asks_for_nothing(struct ss_request *req)
{
	struct ss_wait waits[65] = { { .req = req, .events = POLLOUT } };
	char buf[TEXT];
	ck_assert_int_eq(ss_read_full(req, buf, 0), 0);
	ck_assert_int_eq(ss_skip(req, 0), 0);
	ck_assert_int_eq(ss_write(req, buf, 0), 0);
	ck_assert_int_eq(ss_send_to(req, "a", 1, NULL), -ENOTSUP);
	ck_assert_int_eq(ss_wait_any(req, waits, 65, SS_NONE), -EINVAL);
	ck_assert_int_eq(ss_wait_any(req, waits, -1, SS_NONE), -EINVAL);
	ck_assert_int_eq(ss_read_full(req, buf, 5), 5);
	ck_assert_int_eq(ss_read_full(req, buf, 0), 0);
	return 0;
}

/* The end of the input is said to who asks for some. */
START_TEST(stream_does_nothing_for_nothing)
{
	with_text(asks_for_nothing, "hello");
}
END_TEST

/* A datagram's socket is the listener's, with others' packets in it. */
static int looks_for_urgent_data(struct ss_request *req)
{
	unsigned char byte;
	tape_note(tape, "%d", ss_recv_oob(req, &byte) == -ENOTSUP);
	tape_note(tape, "%d", ss_send_oob(req, 'x') == -ENOTSUP);
	tape_note(tape, "%d", ss_shutdown_stream(req, SHUT_WR) == -ENOTSUP);
	tape_note(tape, "%d", ss_detach(req) == -ENOTSUP);
	return 0;
}

START_TEST(stream_calls_leave_others_datagrams_alone)
{
	static const struct ss_handler handler = {
		.handle = looks_for_urgent_data
	};
	struct ss_config config =
		config_of(&models[0], &transports[_i], &handler);
	tape = tape_new();
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT];
	int fd = dial(ss_server_url(server, 0, url, sizeof(url)));
	for (int i = 0; i < 3; i++)
		send_text(fd, "packet");
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(ss_server_turn(server, clock_ms() + WAIT_MS),
				 1);
	ck_assert_str_eq(tape_text(tape), "1 1 1 1 1 1 1 1 1 1 1 1");
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- passed descriptors ---------------------------------------------------*/

enum { PASSED = 10 };

static ssize_t try_send_with_descriptors(int fd, const char *text, int passed,
					 int n)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(PASSED * sizeof(int))];
	} control;
	memset(&control, 0, sizeof(control));
	struct iovec iov = { (char *)text, strlen(text) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
	for (int i = 0; i < n; i++)
		memcpy(CMSG_DATA(header) + (size_t)i * sizeof(int), &passed,
		       sizeof(int));
	return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static void send_with_descriptors(int fd, const char *text, int passed, int n)
{
	ck_assert_int_eq(try_send_with_descriptors(fd, text, passed, n),
			 (ssize_t)strlen(text));
}

enum { PASSRIGHTS = 83 }; /* SO_PASSRIGHTS, which older headers do not have */

/* Since Linux 6.16; not where the library goes without what Linux alone has. */
static bool kernel_refuses_descriptors(void)
{
#if defined(__linux__) && !defined(SS_PORTABLE)
	struct utsname name;
	int major, minor;
	return uname(&name) == 0 &&
	       sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 16));
#else
	return false;
#endif
}

static const struct transport *unix_transport(bool stream)
{
	const struct transport *t = transports;
	while (!(t->layer->flags & SS_LAYER_UNIX) || t->stream != stream)
		t++;
	return t;
}

/* The last writer's end is gone: nobody has kept what was passed. */
static void expect_hang_up(int fd)
{
	struct pollfd end = { .fd = fd, .events = POLLIN };
	ck_assert_int_eq(poll(&end, 1, WAIT_MS), 1);
	ck_assert_int_eq(end.revents & POLLHUP, POLLHUP);
}

START_TEST(stream_passed_descriptors_hang_nothing)
{
	struct ss_config config =
		config_of(&models[_i], unix_transport(true), &line_handler);
	struct node node;
	int ends[2];
	node_start(&node, &config);
	ck_assert_int_eq(pipe(ends), 0);
	int fd = dial(node.url);
	send_text(fd, "ab");
	send_with_descriptors(fd, "cd", ends[1], 1);
	send_text(fd, "ef\n");
	expect_text(fd, "abcdef\n");
	send_with_descriptors(fd, "gh\n", ends[1], PASSED);
	expect_text(fd, "gh\n");
	send_with_descriptors(fd, "ij", ends[1], PASSED);
	send_with_descriptors(fd, "kl\n", ends[1], 1);
	expect_text(fd, "ijkl\n");
	close(ends[1]);
	expect_hang_up(ends[0]);
	/* Its own end, after some that nobody read. */
	send_text(fd, "rest\n");
	expect_text(fd, "rest\n");
	close(ends[0]);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* A listener that another program has set up so. */
static const char *given_without_descriptors(struct ss_config *config)
{
	static char text[32];
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	const int no = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(
		setsockopt(fd, SOL_SOCKET, PASSRIGHTS, &no, sizeof(no)), 0);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s/given", scratch());
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	snprintf(text, sizeof(text), "fd:%d", fd);
	config->transport_options = NULL;
	return text;
}

/* The kernel keeps them away, where it can; and the rest comes through. */
START_TEST(stream_passed_descriptors_are_refused)
{
	static const struct ss_socket_options options = { .no_descriptors =
								  true };
	struct ss_config config =
		config_of(&models[_i / 2], unix_transport(true), &line_handler);
	struct node node;
	config.transport_options = &options;
	bool given = _i % 2 && kernel_refuses_descriptors();
	if (given)
		config.addresses[0] = given_without_descriptors(&config);
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "ab");
	if (kernel_refuses_descriptors()) {
		ck_assert_int_eq(try_send_with_descriptors(fd, "no", fd, 1),
				 -1);
		ck_assert_int_eq(errno, EPERM);
	} else {
		printf("skipped: the kernel does not refuse descriptors\n");
	}
	for (int i = 0; i < 3; i++) {
		send_text(fd, "cd\nef");
		expect_text(fd, i ? "efcd\n" : "abcd\n");
	}
	close(fd);
	/* What it was given it has closed: it has one less than before. */
	ck_assert_int_eq(node_stop(&node), given ? 3 : 0);
}
END_TEST

static int waits;
static const struct ss_layer counting_waits;

static int count_wait(struct ss_server *server, struct ss_request *req,
		      struct ss_source *source, short events, int64_t deadline)
{
	waits++;
	return ss_super(server, &counting_waits)
		->wait(server, req, source, events, deadline);
}

static const struct ss_layer counting_waits = {
	.name = "counting",
	.ops.wait = count_wait,
};

static int reads_around_descriptors(struct ss_request *req)
{
	char buf[TEXT];
	ck_assert_int_eq(ss_read(req, buf, sizeof(buf)), 4);
	ck_assert_mem_eq(buf, "abcd", 4);
	ck_assert_int_eq(waits, 0);
	ck_assert_int_eq(ss_read(req, buf, sizeof(buf)), 2);
	ck_assert_mem_eq(buf, "ef", 2);
	ck_assert_int_eq(waits, 0);
	ck_assert_int_eq(ss_read(req, buf, sizeof(buf)), 0);
	ck_assert_int_eq(waits, 1);
	return 0;
}

/* A read stops at them, and is not taken for one that has read all. */
START_TEST(stream_passed_descriptors_leave_more_to_read)
{
	/* It has read before. */
	stack_without(&ss_proxy_mixin);
	struct ss_handler handler = { .handle = reads_around_descriptors,
				      .rbufsize = SS_NONE };
	struct ss_config config =
		config_of(&models[0], unix_transport(true), &handler);
	config.mixins[0].layer = &counting_waits;
	struct ss_server *server = made(&config);
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	send_text(ends[1], "ab");
	send_with_descriptors(ends[1], "cd", ends[1], 1);
	send_text(ends[1], "ef");
	close(ends[1]);
	waits = 0;
	ck_assert_int_eq(ss_serve_fd(server, ends[0]), 0);
	ck_assert_int_eq(waits, 1);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(stream_passed_descriptors_come_with_no_packet)
{
	struct ss_config config =
		config_of(&models[_i], unix_transport(false), &echo_handler);
	struct node node;
	int ends[2];
	node_start(&node, &config);
	ck_assert_int_eq(pipe(ends), 0);
	int fd = dial(node.url);
	send_with_descriptors(fd, "packet", ends[1], PASSED);
	expect_text(fd, "packet");
	close(ends[1]);
	expect_hang_up(ends[0]);
	close(ends[0]);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- taken out of the library ---------------------------------------------*/

static int detached;

static int detaches(struct ss_request *req)
{
	char line[TEXT];
	ck_assert_int_eq(ss_read_line(req, line, sizeof(line)), 5);
	ck_assert_int_eq(ss_write(req, "and ", 4), 4);
	detached = ss_detach(req);
	ck_assert_int_ge(detached, 0);
	ck_assert_int_eq(ss_request_fd(req), -ENOTSUP);
	ck_assert_int_eq(ss_detach(req), -ENOTSUP);
	/* What was read ahead is still here; then nothing is. */
	ck_assert_int_eq(ss_try_read(req, line, sizeof(line)), 5);
	ck_assert_mem_eq(line, "ahead", 5);
	ck_assert_int_eq(ss_read(req, line, sizeof(line)), 0);
	ck_assert_int_eq(ss_read(req, line, sizeof(line)), -ENODATA);
	ssize_t n = ss_write(req, "lost", 4);
	ck_assert_int_eq(n == 4 ? ss_flush(req) : n, -EPIPE);
	ck_assert_int_eq(ss_shutdown_stream(req, SHUT_RD), 0);
	ck_assert_int_eq(ss_request_setsockopt(req, SOL_SOCKET, SO_KEEPALIVE,
					       &detached, sizeof(detached)),
			 -ENOTSUP);
	return 0;
}

static void use_detached(int fd)
{
	expect_text(fd, "and ");
	ck_assert_int_eq(write(detached, "after", 5), 5);
	expect_text(fd, "after");
	send_text(fd, "back");
	expect_text(detached, "back");
	close(detached);
	expect_end(fd);
	close(fd);
}

START_TEST(stream_can_be_detached)
{
	/* What is recorded stays. */
	stack_without(&ss_record_mixin);
	struct ss_handler handler = { .handle = detaches, .wbufsize = SS_NONE };
	int ends[2];
	pair_of(ends);
	send_text(ends[0], "line\nahead");
	serve_here(&handler, ends[1]);
	ck_assert_int_eq(detached, ends[1]);
	use_detached(ends[0]);
}
END_TEST

/* Its time-outs stay with the library. */
START_TEST(stream_detached_has_no_time_outs_of_ours)
{
	/* What is recorded stays. */
	stack_without(&ss_record_mixin);
	struct ss_handler handler = { .handle = detaches,
				      .timeouts = { .io_ms = 7000,
						    .total_ms = 9000 } };
	struct ss_config config = quiet(&handler);
	config.mixins[0].layer = _i ? &ss_threading_mixin : NULL;
	struct served served;
	detached = -1;
	served_start(&served, &config);
	int fd = dial(served.url);
	send_text(fd, "line\nahead");
	expect_text(fd, "and ");
	served_stop(&served);
	struct timeval tv = { .tv_sec = -1 };
	socklen_t len = sizeof(tv);
	ck_assert_int_eq(
		getsockopt(detached, SOL_SOCKET, SO_RCVTIMEO, &tv, &len), 0);
	ck_assert_int_eq(tv.tv_sec, 0);
	ck_assert_int_eq(tv.tv_usec, 0);
	ck_assert_int_eq(fcntl(detached, F_GETFL) & O_NONBLOCK, 0);
	close(detached);
	expect_end(fd);
	close(fd);
}
END_TEST

static int detaches_and_serves(struct ss_request *req)
{
	int fd = ss_detach(req);
	char line[5];
	ck_assert_int_ge(fd, 0);
	send_text(fd, "mine");
	/* Whether it blocks is the model's affair. */
	struct ss_wait input = { .fd = fd, .events = POLLIN };
	ck_assert_int_eq(ss_wait_any(req, &input, 1, clock_ms() + WAIT_MS), 1);
	expect_bytes(fd, line, sizeof(line));
	send_bytes(fd, line, sizeof(line));
	close(fd);
	return 0;
}

START_TEST(stream_can_be_detached_under_every_model)
{
	/* What is recorded stays. */
	stack_without(&ss_record_mixin);
	static const struct ss_handler handler = { .handle =
							   detaches_and_serves,
						   .speaks_first = true };
	struct ss_config config = combination(_i, &handler);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, "mine");
	send_text(fd, "hello");
	expect_text(fd, "hello");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* Above the socket something else has a say. */
static int cannot_detach(struct ss_request *req)
{
	ck_assert_int_eq(ss_detach(req), -ENOTSUP);
	ck_assert_int_eq(ss_sendfile(req, file, 0, 1000), 1000);
	return echo_line(req) == SS_AGAIN ? 0 : -EIO;
}

/* It hands on what it does not override; files are copied through it. */
START_TEST(stream_goes_through_channels)
{
	struct ss_handler handler = { .handle = cannot_detach };
	struct ss_config config = quiet(&handler);
	config.mixins[0].layer = &pass_layer;
	struct ss_server *server = made(&config);
	int ends[2];
	file = file_of(1000);
	pair_of(ends);
	send_text(ends[0], "hello\n");
	sys_table.send_file = failing_send_file;
	send_file_errno = EIO;
	ck_assert_int_eq(ss_serve_fd(server, ends[1]), 0);
	expect_file(ends[0], 0, 1000);
	expect_text(ends[0], "hello\n");
	expect_end(ends[0]);
	close(ends[0]);
	ck_assert_int_eq(ss_server_free(server), 0);
	sys_table.send_file = sys_do_send_file;
	close(file);
}
END_TEST

/* One that says good-bye first, and waits for it: a while, interrupted, or for
 * ever. */
static int farewell_finish_request(struct ss_server *server,
				   struct ss_request *req);
static const struct ss_layer farewell = {
	.name = "farewell",
	.request_size = sizeof(struct ss_channel),
	.ops = { .finish_request = farewell_finish_request },
};
static int farewells;
static bool endless;

static int say_farewell(struct ss_channel *channel, int how,
			struct ss_block *block)
{
	struct ss_request *req = channel->req;
	struct ss_server *server = ss_request_server(req);
	*block = (struct ss_block){ .until = SS_NONE };
	if (!endless && farewells == 0)
		block->until = ss_now(server) + 1;
	farewells++;
	if (!endless && farewells == 2)
		return -EINTR;
	if (!endless && farewells == 3)
		return shutdown(ss_request_fd(req), how) == -1 ? -errno : 0;
	return -EAGAIN;
}

static const struct ss_channel_ops farewell_ops = { .shutdown = say_farewell };

static int farewell_finish_request(struct ss_server *server,
				   struct ss_request *req)
{
	ss_channel_push(req, ss_request_layer_state(req, &farewell),
			&farewell_ops);
	return ss_super(server, &farewell)->finish_request(server, req);
}

static int shuts_through_it(struct ss_request *req)
{
	ck_assert_int_eq(ss_write(req, "bye", 3), 3);
	ck_assert_int_eq(ss_shutdown_stream(req, SHUT_WR),
			 endless ? -ETIMEDOUT : 0);
	ck_assert_int_eq(ss_request_timeout(req),
			 endless ? SS_TIMEOUT_IO : SS_TIMEOUT_NONE);
	ck_assert_int_eq(farewells, endless ? 1 : 3);
	return 0;
}

START_TEST(stream_is_shut_by_channels_that_wait)
{
	struct ss_handler handler = { .handle = shuts_through_it,
				      .timeouts.io_ms = 20 };
	struct ss_config config = quiet(&handler);
	config.mixins[0].layer = &farewell;
	struct ss_server *server = made(&config);
	int ends[2];
	endless = _i;
	farewells = 0;
	pair_of(ends);
	ck_assert_int_eq(ss_serve_fd(server, ends[1]), 0);
	expect_text(ends[0], "bye");
	expect_end(ends[0]);
	close(ends[0]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- sent away while there is still something to read ---------------------*/

static int is_cancelled(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	char a = 'a', b = 'b';
	struct iovec two[2] = { { .iov_base = &a, .iov_len = 1 },
				{ .iov_base = &b, .iov_len = 1 } };
	char buf[TEXT];
	ck_assert_int_eq(ss_read(req, buf, 1), 1);
	ck_assert_int_eq(ss_cancel(server, ss_request_id(req)), 0);
	ck_assert_int_eq(ss_read(req, buf, 1), -ECANCELED);
	ck_assert_int_eq(ss_try_read(req, buf, 1), -ECANCELED);
	ck_assert_int_eq(ss_writev(req, two, 2), -ECANCELED);
	ck_assert_int_eq(ss_write(req, "a", 1), -ECANCELED);
	ck_assert_int_eq(ss_try_write(req, "a", 1), -ECANCELED);
	ck_assert_int_eq(ss_sendfile(req, file, 0, 10), -ECANCELED);
	ck_assert_int_eq(ss_sent(req), 0);
	return 0;
}

/* While it writes, which then fails by what has shut it down. */
static struct ss_request *written;

static ssize_t cancelled_send(int fd, const void *buf, size_t n, int flags)
{
	(void)fd, (void)buf, (void)n, (void)flags;
	ck_assert_int_eq(
		ss_cancel(ss_request_server(written), ss_request_id(written)),
		0);
	errno = EPIPE;
	return -1;
}

static int is_cancelled_within(struct ss_request *req)
{
	written = req;
	sys_table.send = cancelled_send;
	ck_assert_int_eq(ss_write(req, "a", 1), -ECANCELED);
	sys_table.send = send;
	return 0;
}

static int is_cancelled_unread(struct ss_request *req)
{
	char byte;
	ck_assert_int_eq(ss_cancel(ss_request_server(req), ss_request_id(req)),
			 0);
	ck_assert_int_eq(ss_try_read(req, &byte, 1), -ECANCELED);
	ck_assert_int_eq(ss_read_full(req, &byte, 1), -ECANCELED);
	return 0;
}

/* Over a socket of its own: files are sent, not copied. */
START_TEST(stream_calls_end_when_cancelled)
{
	static int (*const handles[])(struct ss_request *) = {
		is_cancelled, is_cancelled_unread, is_cancelled_within
	};
	stack_without(&ss_proxy_mixin);
	struct ss_handler handler = { .handle = handles[_i] };
	struct ss_config config = quiet(&handler);
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT];
	file = file_of(10);
	int fd = dial(ss_server_url(server, 0, url, sizeof(url)));
	send_text(fd, "hello");
	ck_assert_int_eq(ss_handle_request(server), 1);
	expect_end(fd);
	close(fd);
	close(file);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- the socket and its addresses -----------------------------------------*/

static int sets_options(struct ss_request *req)
{
	int on = 1, value = 0;
	socklen_t len = sizeof(value);
	ck_assert_int_ge(ss_request_fd(req), 0);
	ck_assert_int_eq(ss_request_setsockopt(req, SOL_SOCKET, SO_KEEPALIVE,
					       &on, sizeof(on)),
			 0);
	ck_assert_int_eq(ss_request_getsockopt(req, SOL_SOCKET, SO_KEEPALIVE,
					       &value, &len),
			 0);
	ck_assert_int_eq(value, 1);
	ck_assert_int_eq(getsockopt(ss_request_fd(req), SOL_SOCKET,
				    SO_KEEPALIVE, &value, &len),
			 0);
	ck_assert_int_eq(value, 1);
	ck_assert_int_eq(
		ss_request_getsockopt(req, SOL_SOCKET, 9999, &value, &len),
		-ENOPROTOOPT);
	ck_assert_int_eq(
		ss_request_setsockopt(req, SOL_SOCKET, SO_KEEPALIVE, &on, 1),
		-EINVAL);
	return 0;
}

START_TEST(stream_has_socket_options)
{
	struct ss_handler handler = { .handle = sets_options };
	close(serve_text(&handler, ""));
}
END_TEST

/* Both addresses, in one line. */
static int tells_addresses(struct ss_request *req)
{
	char buf[TEXT], text[2][SS_ADDRESS_TEXT], host[SS_ADDRESS_TEXT];
	struct ss_address peer, local;
	if (ss_read(req, buf, sizeof(buf)) <= 0)
		return 0;
	int r = ss_request_peer(req, &peer);
	int s = ss_request_local(req, &local);
	ss_address_format(&peer, text[0], SS_ADDRESS_TEXT);
	ss_address_format(&local, text[1], SS_ADDRESS_TEXT);
	ss_printf(req, "%d %d %s %s %s %d %s\n", r, s, text[0], text[1],
		  ss_address_host(&peer, host, sizeof(host)),
		  ss_address_port(&peer), ss_peer_name(req, buf, sizeof(buf)));
	return 0;
}

static void address_of(int (*get)(int, struct sockaddr *, socklen_t *), int fd,
		       struct ss_address *address)
{
	address->len = sizeof(address->u);
	ck_assert_int_eq(get(fd, &address->u.sa, &address->len), 0);
}

static void expect_addresses(int fd)
{
	char line[8 * SS_ADDRESS_TEXT], mine[SS_ADDRESS_TEXT],
		its[SS_ADDRESS_TEXT], host[SS_ADDRESS_TEXT],
		got[8 * SS_ADDRESS_TEXT] = "";
	struct ss_address own, peer;
	address_of(getsockname, fd, &own);
	address_of(getpeername, fd, &peer);
	ss_address_format(&own, mine, sizeof(mine));
	ss_address_format(&peer, its, sizeof(its));
	snprintf(line, sizeof(line), "0 0 %s %s %s %d %s\n", mine, its,
		 ss_address_host(&own, host, sizeof(host)),
		 ss_address_port(&own), mine);
	send_text(fd, "who?");
	ssize_t n = recv_within(fd, got, sizeof(got) - 1, WAIT_MS);
	ck_assert_int_gt(n, 0);
	ck_assert_str_eq(got, line);
}

START_TEST(stream_knows_both_addresses)
{
	static const struct ss_handler handler = { .handle = tells_addresses };
	const struct transport *transport = &transports[_i / model_count];
	struct ss_config config =
		config_of(&models[_i % model_count], transport, &handler);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_addresses(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static bool have_ipv6(void)
{
	struct ss_address at = { .len = sizeof(at.u.in6) };
	at.u.in6.sin6_family = AF_INET6;
	at.u.in6.sin6_addr = in6addr_loopback;
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool works = fd >= 0 && bind(fd, &at.u.sa, at.len) == 0;
	close(fd);
	return works;
}

/* IPv6, and a client with a path. */
START_TEST(stream_knows_other_addresses)
{
	static const struct ss_handler handler = { .handle = tells_addresses };
	struct ss_config config = combination(0, &handler);
	struct node node;
	if (have_ipv6()) {
		config.addresses[0] = "[::1]:0";
		node_start(&node, &config);
		int fd = dial(node.url);
		expect_addresses(fd);
		close(fd);
		ck_assert_int_eq(node_stop(&node), 0);
	}
	config = config_of(&models[0], unix_transport(true), &handler);
	node_start(&node, &config);
	struct ss_endpoint to;
	ck_assert_int_eq(ss_resolve(node.url, SS_SCHEME_ANY, &to, 1, NULL), 1);
	struct ss_address own = { .len = sizeof(own.u.un) };
	own.u.un.sun_family = AF_UNIX;
	snprintf(own.u.un.sun_path, sizeof(own.u.un.sun_path), "%s/client",
		 scratch());
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, &own.u.sa, own.len), 0);
	ck_assert_int_eq(connect(fd, &to.address.u.sa, to.address.len), 0);
	expect_addresses(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- descriptors handed in ------------------------------------------------*/

static int handed[2];

/* The counts are to come out even: two have left this process by then. */
static int serve_handed(struct ss_server *server)
{
	close(handed[0]);
	if (ss_serve_fd(server, handed[1]) < 0)
		return -EIO;
	int r = ss_serve_forever(server);
	ck_assert_int_ge(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
	ck_assert_int_ge(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
	return r;
}

START_TEST(stream_serves_descriptors_under_every_model)
{
	if (model_supervised(&models[_i % model_count]))
		return;
	struct ss_config config = combination(_i, &echo_handler);
	struct node node;
	pair_of(handed);
	if (strcmp(models[_i % model_count].name, "sync") == 0) {
		/* It serves before it returns. */
		send_text(handed[0], "hello");
		shutdown(handed[0], SHUT_WR);
	}
	node_run(&node, &config, serve_handed);
	close(handed[1]);
	if (strcmp(models[_i % model_count].name, "sync") != 0) {
		send_text(handed[0], "hello");
		expect_text(handed[0], "hello");
		shutdown(handed[0], SHUT_WR);
	} else {
		expect_text(handed[0], "hello");
	}
	expect_end(handed[0]);
	close(handed[0]);
	echo_once(node.url, "others too");
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* It is the server's from then on, so it is closed. */
static void not_served(struct ss_server *server, int fd, int code)
{
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ss_serve_fd(server, fd), code);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
}

static int connected(int type)
{
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, type, 0, ends), 0);
	close(ends[0]);
	return ends[1];
}

static int listening(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

START_TEST(stream_refuses_other_descriptors)
{
	if (model_supervised(&models[_i % model_count]))
		return;
	struct ss_config config = combination(_i, &echo_handler);
	struct ss_server *server = made(&config);
	int descriptors = open_descriptors(), ends[2];
	ck_assert_int_eq(ss_serve_fd(server, -1), -EBADF);
	ck_assert_int_eq(ss_serve_fd(server, 9999), -EBADF);
	ck_assert_int_eq(pipe(ends), 0);
	not_served(server, ends[0], -ENOTSOCK);
	not_served(server, ends[1], -ENOTSOCK);
	not_served(server, open("/dev/null", O_RDWR), -ENOTSOCK);
	not_served(server, connected(SOCK_DGRAM), -EINVAL);
	not_served(server, connected(SOCK_SEQPACKET), -EINVAL);
	not_served(server, socket(AF_INET, SOCK_STREAM, 0), -ENOTCONN);
	not_served(server, socket(AF_INET, SOCK_DGRAM, 0), -EINVAL);
	not_served(server, listening(), -ENOTCONN);
	ck_assert_int_eq(open_descriptors(), descriptors);
	ck_assert_int_eq(ss_server_close(server), 0);
	not_served(server, connected(SOCK_STREAM), -EBADF);
	ck_assert_int_eq(ss_server_free(server), 0);
	config.no_bind = true;
	server = made(&config);
	not_served(server, connected(SOCK_STREAM), -EBADF);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Any sort of stream: here one whose client has left already. */
START_TEST(stream_serves_who_has_left)
{
	struct ss_handler handler = { .handle = reads_the_end };
	first_way = second_way = 0;
	int ends[2];
	pair_of(ends);
	close(ends[0]);
	handler.handle = echo;
	serve_here(&handler, ends[1]);
}
END_TEST

/* ---- stdio ----------------------------------------------------------------*/

static int talks_stdio(struct ss_request *req)
{
	FILE *f = ss_file(req);
	char line[TEXT];
	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_eq(ss_file(req), f);
	while (fgets(line, sizeof(line), f)) {
		ck_assert_int_gt(fprintf(f, "<%s>", line), 0);
		ck_assert_int_eq(fflush(f), 0);
	}
	ck_assert(feof(f) && !ferror(f));
	ck_assert_ptr_null(fgets(line, sizeof(line), f));
	ck_assert(feof(f) && !ferror(f));
	fprintf(f, "unflushed");
	return 0;
}

/* All at once, so that stdio could read ahead. */
START_TEST(stream_speaks_stdio)
{
	struct ss_handler handler = {
		.handle = talks_stdio,
		.rbufsize = _i & 1 ? SS_NONE : 0,
		.wbufsize = _i & 2 ? SS_NONE : 0,
	};
	static const char answer[] = "<one\n><two\n><three>unflushed";
	int fd = serve_text(&handler, "one\ntwo\nthree");
	expect_text(fd, answer);
	expect_end(fd);
	close(fd);
	char out[TEXT];
	ck_assert_int_eq(ss_memory_exchange(&handler, "one\ntwo\nthree", 13,
					    out, sizeof(out)),
			 (ssize_t)strlen(answer));
	ck_assert_int_eq(ss_memory_exchange_packet(&handler, "one\ntwo\nthree",
						   13, out, sizeof(out)),
			 (ssize_t)strlen(answer));
}
END_TEST

START_TEST(stream_speaks_stdio_under_every_model)
{
	static const struct ss_handler handler = { .handle = talks_stdio };
	struct ss_config config = combination(_i, &handler);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "one\n");
	expect_text(fd, "<one\n>");
	send_text(fd, "two\nthree\n");
	expect_text(fd, "<two\n><three\n>");
	shutdown(fd, SHUT_WR);
	expect_text(fd, "unflushed");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static int mixes_with_stdio(struct ss_request *req)
{
	FILE *f = ss_file(req);
	char buf[TEXT];
	ck_assert_int_eq(ss_read_line(req, buf, sizeof(buf)), 6);
	ck_assert_int_eq(ss_write(req, "1", 1), 1);
	fprintf(f, "2");
	ck_assert_int_eq(fflush(f), 0);
	ck_assert_int_eq(ss_write(req, "3", 1), 1);
	/* What ss_read_line has read ahead is there for stdio. */
	ck_assert_int_eq(fscanf(f, "%255s", buf), 1);
	ck_assert_str_eq(buf, "second");
	ck_assert_int_ge(fputs("4", f), 0);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(ss_write(req, "5", 1), 1);
	f = ss_file(req);
	ck_assert_ptr_nonnull(f);
	fputs("6", f);
	return 0;
}

START_TEST(stream_mixes_with_stdio)
{
	struct ss_handler handler = { .handle = mixes_with_stdio };
	int fd = serve_text(&handler, "first\nsecond");
	expect_text(fd, "123456");
	expect_end(fd);
	close(fd);
}
END_TEST

static int fails_in_stdio(struct ss_request *req)
{
	FILE *f = ss_file(req);
	errno = 0;
	ck_assert_int_eq(fgetc(f), EOF);
	ck_assert(ferror(f) && !feof(f));
	ck_assert_int_eq(errno, ETIMEDOUT);
	clearerr(f);
	close(peer_end);
	errno = 0;
	ck_assert(fputs("nobody reads this", f) == EOF || fflush(f) == EOF);
	ck_assert(ferror(f));
	ck_assert_int_eq(errno, EPIPE);
	return 0;
}

START_TEST(stream_tells_stdio_of_errors)
{
	struct ss_handler handler = { .handle = fails_in_stdio,
				      .timeouts = { .io_ms = 10 } };
	int ends[2];
	pair_of(ends);
	peer_end = ends[0];
	serve_here(&handler, ends[1]);
}
END_TEST

static int fails_in_setup(struct ss_request *req)
{
	fprintf(ss_file(req), "not today\n");
	return -EACCES;
}

START_TEST(stream_speaks_stdio_when_setup_fails)
{
	struct ss_handler handler = { .setup = fails_in_setup, .handle = echo };
	int fd = serve_text(&handler, "");
	expect_text(fd, "not today\n");
	expect_end(fd);
	close(fd);
}
END_TEST

/* Nobody else would see: open ones are on a list of stdio's own. */
START_TEST(stream_closes_stdio)
{
	struct ss_handler handlers[] = {
		{ .handle = talks_stdio },
		{ .setup = fails_in_setup, .handle = echo },
	};
	size_t before = 0;
	if (!heap_in_use()) {
		printf("skipped: the C library does not tell of its heap\n");
		return;
	}
	for (int i = 0; i < 110; i++) {
		if (i == 10)
			before = heap_in_use();
		ss_memory_exchange(&handlers[_i], "one\n", 4, NULL, 0);
	}
	ck_assert_uint_lt(heap_in_use(), before + 10000);
}
END_TEST

/* A pipelined exchange of records, not lines. */
static int counts_records(struct ss_request *req)
{
	FILE *f = ss_file(req);
	char record[4];
	while (fread(record, 1, sizeof(record), f) == sizeof(record)) {
		ck_assert_int_gt(fprintf(f, "[%.4s]", record), 0);
		ck_assert_int_eq(fflush(f), 0);
	}
	return ferror(f) ? -EIO : 0;
}

START_TEST(stream_speaks_stdio_in_records)
{
	struct ss_handler handler = { .handle = counts_records };
	int fd = serve_text(&handler, "aaaabbbbcccc");
	expect_text(fd, "[aaaa][bbbb][cccc]");
	expect_end(fd);
	close(fd);
}
END_TEST

/* ---- closing with unread input --------------------------------------------*/

enum { UNREAD = 30000 };

static int answers_without_reading(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	if (n == 1)
		n = ss_write(req, "no, thank you", 13);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler refuser = { .handle = answers_without_reading,
					   .rbufsize = SS_NONE };

/* Without care, what is unread makes the close a reset (RFC 1122, 4.2.2.13). */
START_TEST(stream_close_does_not_destroy_the_answer)
{
	struct ss_config config = combination(_i, &refuser);
	struct node node;
	static char bytes[UNREAD];
	node_start(&node, &config);
	for (int i = 0; i < 5; i++) {
		int fd = dial(node.url);
		send_bytes(fd, bytes, sizeof(bytes));
		expect_text(fd, "no, thank you");
		expect_end(fd);
		close(fd);
	}
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* Sends until the server hangs up; how many bytes went. */
static size_t send_on(int fd)
{
	static char bytes[1024];
	size_t sent = 0;
	int64_t until = clock_ms() + WAIT_MS;
	ssize_t n;
	while ((n = send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL)) > 0) {
		sent += (size_t)n;
		ck_assert_int_lt(clock_ms(), until);
	}
	return sent;
}

/* Somebody who sends for ever is not listened to for ever. */
START_TEST(stream_close_reads_on_within_bounds)
{
	struct ss_config config = combination(_i, &refuser);
	struct node node;
	node_start(&node, &config);
	int64_t began = clock_ms();
	int fd = dial(node.url);
	size_t sent = send_on(fd);
	ck_assert_uint_gt(sent, 0);
	/* 64 KiB, and what fits the sockets; theirs of TCP grow. */
	if (transport_at(_i)->layer->flags & SS_LAYER_UNIX)
		ck_assert_uint_lt(sent, 1 << 20);
	ck_assert_int_lt(clock_ms() - began, LINGER_MS + LATE_MS);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

enum { NODES_MAX = 16 };

static int leave_unread(const char *url)
{
	int fd = dial(url);
	send_text(fd, "hello");
	expect_text(fd, "no, thank you");
	expect_end(fd);
	return fd;
}

/* How long the next one waits while such a client is being waited for. */
static int64_t wait_behind(const char *url)
{
	int first = leave_unread(url);
	int64_t before = clock_ms();
	close(leave_unread(url));
	close(first);
	return clock_ms() - before;
}

/* Who says nothing more has a second, or 100 ms where others wait for it. */
START_TEST(stream_close_does_not_wait_for_the_silent)
{
	struct node nodes[NODES_MAX];
	int fds[NODES_MAX];
	ck_assert_int_le(model_count, NODES_MAX);
	for (int i = 0; i < model_count; i++) {
		struct ss_config config =
			config_of(&models[i], &transports[0], &refuser);
		node_start(&nodes[i], &config);
	}
	int tries = 5;
	while (wait_behind(nodes[0].url) > LINGER_MS - 100)
		ck_assert_int_gt(--tries, 0);
	int64_t began = clock_ms();
	for (int i = 0; i < model_count; i++) {
		fds[i] = leave_unread(nodes[i].url);
		kill(nodes[i].pid, SIGTERM);
	}
	for (int i = 0; i < model_count; i++) {
		ck_assert_int_eq(node_wait(&nodes[i]), 0);
		close(fds[i]);
	}
	ck_assert_int_lt(clock_ms() - began, LINGER_MS + WAIT_MS);
}
END_TEST

static struct linger_board {
	atomic_int waits, parent;
	atomic_bool seen; /* by the client: its end */
} * linger_board;

static const struct ss_layer patient;

static int patient_wait(struct ss_server *server, struct ss_request *req,
			struct ss_source *source, short events,
			int64_t deadline)
{
	atomic_fetch_add(&linger_board->waits, 1);
	return ss_super(server, &patient)
		->wait(server, req, source, events, deadline);
}

static const struct ss_layer patient = {
	.name = "patient",
	.ops = { .wait = patient_wait },
};

static int says_bye(struct ss_request *req)
{
	ssize_t n = ss_write(req, "bye", 3);
	return n < 0 ? (int)n : 0;
}

/* Nothing is unread: one look tells, and nobody waits for more. */
START_TEST(stream_close_looks_once)
{
	/* It has read before. */
	stack_without(&ss_proxy_mixin);
	static const struct ss_handler handler = { .handle = says_bye,
						   .speaks_first = true };
	struct ss_config config = combination(_i, &handler);
	linger_board = ss_shared_alloc(sizeof(*linger_board));
	use_first(&config, &patient, NULL);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, "bye");
	expect_end(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&linger_board->waits), 0);
	close(fd);
}
END_TEST

/* Who has sent something. */
static int refuse_all(struct ss_server *server, struct ss_request *req)
{
	struct pollfd fd = { .fd = ss_request_fd(req), .events = POLLIN };
	(void)server;
	return poll(&fd, 1, WAIT_MS) == 1 ? 0 : -ETIMEDOUT;
}

static const struct ss_layer refusing = {
	.name = "refusing",
	.ops = { .verify_request = refuse_all },
};

/* Others wait to be accepted: who is refused is not read from till its end. */
START_TEST(stream_refusal_looks_once)
{
	/* It has read before. */
	stack_without(&ss_proxy_mixin);
	struct ss_config config = combination(_i, &echo_handler);
	linger_board = ss_shared_alloc(sizeof(*linger_board));
	use_first(&config, &patient, NULL);
	use_first(&config, &refusing, NULL);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "hello");
	expect_end(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&linger_board->waits), 0);
	close(fd);
}
END_TEST

static const struct ss_layer late;

/* The parent's: the child has its own descriptor, and ends before. */
static void late_close_request(struct ss_server *server, struct ss_request *req)
{
	bool parent = atomic_load(&linger_board->parent) == getpid();
	int64_t until = clock_ms() + 2 * WAIT_MS;
	while (parent && !atomic_load(&linger_board->seen) &&
	       clock_ms() < until)
		pause_ms(1);
	ss_super(server, &late)->close_request(server, req);
}

static const struct ss_layer late = {
	.name = "late",
	.ops = { .close_request = late_close_request },
};

/* A child's end is the client's, whoever else has the descriptor. */
START_TEST(stream_of_a_child_ends_with_it)
{
	struct ss_config config =
		config_of(&models[2], &transports[_i * 2], &echo_handler);
	linger_board = ss_shared_alloc(sizeof(*linger_board));
	use_first(&config, &late, NULL);
	struct node node;
	node_start(&node, &config);
	atomic_store(&linger_board->parent, node.pid);
	int fd = dial(node.url);
	send_text(fd, "hello");
	shutdown(fd, SHUT_WR);
	expect_text(fd, "hello");
	expect_end(fd);
	atomic_store(&linger_board->seen, true);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- a client that does not read ------------------------------------------*/

static int writes_without_end(struct ss_request *req)
{
	static char bytes[65536];
	struct rusage before, after;
	getrusage(RUSAGE_SELF, &before);
	ssize_t n;
	while ((n = ss_write(req, bytes, sizeof(bytes))) > 0)
		;
	getrusage(RUSAGE_SELF, &after);
	long grown_kib = after.ru_maxrss - before.ru_maxrss;
	tape_note(tape, "%s %s", code_name(n),
		  grown_kib < 8192 ? "bounded" : "swollen");
	return (int)n;
}

START_TEST(stream_output_is_bounded)
{
	static const struct ss_handler handlers[] = {
		{ .handle = writes_without_end,
		  .speaks_first = true,
		  .timeouts = { .io_ms = 50 } },
		{ .handle = writes_without_end,
		  .speaks_first = true,
		  .timeouts = { .io_ms = 50 },
		  .wbufsize = 100000 },
	};
	struct ss_config config = combination(_i, &handlers[_i % 2]);
	struct node node;
	tape = tape_new();
	node_start(&node, &config);
	int fd = dial(node.url);
	tape_wait(tape, 1);
	ck_assert_str_eq(tape_text(tape), "ETIMEDOUT bounded");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- SIGPIPE --------------------------------------------------------------*/

static ssize_t write_somehow(struct ss_request *req, char way)
{
	static char bytes[50000];
	struct iovec iov[] = { { bytes, 10 }, { bytes, sizeof(bytes) } };
	FILE *f;
	ssize_t n;
	switch (way) {
	case 'w':
		return ss_write(req, bytes, sizeof(bytes));
	case 'v':
		return ss_writev(req, iov, 2);
	case 'p':
		return ss_printf(req, "%50000s", "x");
	case 's':
		return ss_sendfile(req, file, 0, 100000);
	case 'o':
		return ss_send_oob(req, 'x');
	case 'h':
		n = ss_write(req, bytes, sizeof(bytes));
		ss_shutdown_stream(req, SHUT_WR);
		return n;
	default:
		f = ss_file(req);
		return fwrite(bytes, 1, sizeof(bytes), f) == sizeof(bytes) &&
				       fflush(f) == 0
			       ? 1
			       : -errno;
	}
}

/* Writes, in the way that its client asked for, after that one is gone. */
static int writes_into_the_void(struct ss_request *req)
{
	char way = 0, byte;
	if (ss_read(req, &way, 1) != 1 || way == 'e')
		return (int)ss_write(req, &way, 1) == 1 ? 0 : -EIO;
	while (ss_read(req, &byte, 1) > 0)
		;
	ssize_t n = 0;
	for (int i = 0; i < 10000 && !is_gone(n); i++)
		n = write_somehow(req, way);
	if (way == 'o' && n == -EOPNOTSUPP)
		n = -EPIPE;
	tape_note(tape, "%c%s", way, is_gone(n) ? "" : code_name(n));
	return 0;
}

static const struct ss_handler void_handler = { .handle =
							writes_into_the_void };
static const char ways[] = "wvpsohf";

static void ask_and_leave(const char *url, char way, bool reset)
{
	int fd = dial(url);
	struct linger hard = { .l_onoff = reset };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	send_bytes(fd, &way, 1);
	close(fd);
}

static int serve_with_default_signals(struct ss_server *server)
{
	signal(SIGPIPE, SIG_DFL);
	return ss_serve_forever(server);
}

START_TEST(stream_never_raises_sigpipe)
{
	/* A client that resets may be gone before its header was read. */
	stack_without(&ss_proxy_mixin);
	struct ss_config config = combination(_i, &void_handler);
	struct node node;
	char expected[TEXT] = "";
	file = file_of(100000);
	tape = tape_new();
	config.log_level = SS_NONE;
	node_run(&node, &config, serve_with_default_signals);
	for (int i = 0; ways[i]; i++) {
		for (int reset = 0; reset < 2; reset++) {
			ask_and_leave(node.url, ways[i], reset);
			tape_wait(tape, 2 * i + reset + 1);
			size_t used = strlen(expected);
			snprintf(expected + used, sizeof(expected) - used,
				 used ? " %c" : "%c", ways[i]);
		}
	}
	ck_assert_str_eq(tape_text(tape), expected);
	echo_once(node.url, "e");
	ck_assert_int_eq(node_stop(&node), 0);
	close(file);
}
END_TEST

/* On the caller's thread its mask and what was pending come back. */
START_TEST(stream_leaves_sigpipe_as_it_was)
{
	struct ss_config config = quiet(&void_handler);
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT];
	sigset_t pipe_only, before, after, pending;
	ss_server_url(server, 0, url, sizeof(url));
	file = file_of(100000);
	tape = tape_new();
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	for (int blocked = 0; blocked < 2; blocked++) {
		if (blocked) {
			sigprocmask(SIG_BLOCK, &pipe_only, NULL);
			raise(SIGPIPE);
		}
		sigprocmask(SIG_BLOCK, NULL, &before);
		for (int i = 0; ways[i]; i++) {
			ask_and_leave(url, ways[i], true);
			ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
		}
		sigprocmask(SIG_BLOCK, NULL, &after);
		for (int signal = 1; signal <= SIGRTMAX; signal++)
			ck_assert_int_eq(sigismember(&before, signal),
					 sigismember(&after, signal));
		sigpending(&pending);
		ck_assert_int_eq(sigismember(&pending, SIGPIPE), blocked);
	}
	static const struct timespec at_once;
	ck_assert_int_eq(sigtimedwait(&pipe_only, NULL, &at_once), SIGPIPE);
	sigprocmask(SIG_UNBLOCK, &pipe_only, NULL);
	ck_assert_int_eq(ss_server_free(server), 0);
	close(file);
}
END_TEST

static int tells_whether_blocked(struct ss_request *req)
{
	sigset_t mask;
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	return (int)ss_printf(req, "%d", sigismember(&mask, SIGPIPE)) - 1;
}

/* In our threads and children handlers may write(2) wherever they like. */
START_TEST(stream_blocks_sigpipe_where_it_is_not_the_programs)
{
	static const struct ss_handler handler = {
		.handle = tells_whether_blocked,
		.speaks_first = true,
	};
	const struct model *model = &models[_i % model_count];
	struct ss_config config = combination(_i, &handler);
	bool programs = on_serving_thread(model, transport_at(_i)) &&
			!model_supervised(model);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, programs ? "0" : "1");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static atomic_int pipe_signals;

static void count_pipe_signal(int signal)
{
	(void)signal;
	atomic_fetch_add(&pipe_signals, 1);
}

static int late_sigpending(sigset_t *set)
{
	raise(SIGPIPE);
	return sigpending(set);
}

/* One that somebody sends as we block it is the program's, and stays so. */
START_TEST(stream_leaves_sigpipes_of_others)
{
	struct sys_sigpipe saved;
	signal(SIGPIPE, count_pipe_signal);
	sys_table.sigpending = late_sigpending;
	sys_sigpipe_block(&saved);
	sys_sigpipe_restore(&saved);
	sys_table.sigpending = sigpending;
	ck_assert_int_eq(atomic_load(&pipe_signals), 1);
	signal(SIGPIPE, SIG_DFL);
}
END_TEST

/* ---- an answer that is not lost -------------------------------------------*/

static bool blocked_once;

static bool blocks_once(void)
{
	bool blocks = !blocked_once;
	blocked_once = true;
	errno = EAGAIN;
	return blocks;
}

static ssize_t once_blocked_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return blocks_once() ? -1 : sendmsg(fd, msg, flags);
}

static ssize_t once_blocked_sendto(int fd, const void *buf, size_t n, int flags,
				   const struct sockaddr *sa, socklen_t len)
{
	return blocks_once() ? -1 : sendto(fd, buf, n, flags, sa, len);
}

static int answers_emptily(struct ss_request *req)
{
	return (int)ss_write(req, NULL, 0);
}

/* Even one without a byte. */
START_TEST(stream_empty_packets_survive_a_full_queue)
{
	static const struct ss_handler handler = { .handle = answers_emptily };
	struct ss_config config =
		config_of(&models[0], &transports[_i], &handler);
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT], byte;
	int fd = dial(ss_server_url(server, 0, url, sizeof(url)));
	blocked_once = false;
	sys_table.sendmsg = once_blocked_sendmsg;
	sys_table.sendto = once_blocked_sendto;
	send_text(fd, "a");
	ck_assert_int_eq(ss_server_turn(server, clock_ms() + WAIT_MS), 1);
	sys_table.sendmsg = sendmsg;
	sys_table.sendto = sendto;
	ck_assert(blocked_once);
	ck_assert_int_eq(recv_within(fd, &byte, 1, 1000), 0);
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static void add_reading(TCase *tcase)
{
	tcase_add_test(tcase, stream_reads_lines);
	tcase_add_test(tcase, stream_reads_lines_within_limits);
	tcase_add_test(tcase, stream_reads_lines_beyond_its_buffer);
	tcase_add_test(tcase, stream_reads_lines_with_nul_bytes);
	tcase_add_test(tcase, stream_reads_and_peeks);
	tcase_add_test(tcase, stream_says_its_end_once);
	tcase_add_test(tcase, stream_ends_handlers_that_overlook_its_end);
	tcase_add_test(tcase, stream_unbuffered_takes_no_more_than_asked);
	tcase_add_test(tcase, stream_reads_mixed_lose_no_byte_of_memory);
	tcase_add_test(tcase, stream_reads_mixed_lose_no_byte_of_a_socket);
	tcase_add_test(tcase, stream_reads_mixed_through_a_hostile_kernel);
}

static void add_writing(TCase *tcase, int n)
{
	tcase_add_test(tcase, stream_writes);
	tcase_add_loop_test(tcase, stream_writes_many_elements, 0, 3);
	tcase_add_test(tcase, stream_prints_at_any_length);
	tcase_add_test(tcase, stream_buffers_output);
	tcase_add_test(tcase, stream_flushes_at_the_end);
	tcase_add_loop_test(tcase, stream_tells_how_much_went, 0, n);
	tcase_add_test(tcase, stream_says_that_the_peer_is_gone);
	tcase_add_loop_test(tcase, stream_answers_after_the_end_of_input, 0, n);
	tcase_add_loop_test(tcase, stream_reads_what_came_while_it_slept, 0, n);
	tcase_add_loop_test(tcase, stream_reads_on_after_its_own_end, 0, n);
	tcase_add_test(tcase, stream_shuts_each_side);
	tcase_add_loop_test(tcase, stream_output_is_bounded, 0, n);
}

static void add_files(TCase *tcase, int n)
{
	tcase_add_loop_test(tcase, stream_sends_files, 0, n);
	tcase_add_loop_test(tcase, stream_copies_files_where_the_kernel_cannot,
			    0, 3);
	tcase_add_test(tcase, stream_survives_odd_files);
	tcase_add_loop_test(tcase, stream_copies_files_to_memory_and_datagrams,
			    0, 2);
	tcase_add_test(tcase, stream_files_beyond_a_datagram_are_refused);
	tcase_add_test(tcase, stream_leaves_the_flags_of_adopted_descriptors);
	tcase_add_loop_test(tcase, stream_sends_files_to_a_client_that_pauses,
			    0, n);
	tcase_add_loop_test(tcase, stream_sends_files_through_a_hostile_kernel,
			    0, n);
}

static void add_hostility(TCase *tcase, int n)
{
	tcase_add_loop_test(tcase, stream_survives_a_hostile_kernel, 0, n);
	tcase_add_test(tcase, stream_copies_files_through_a_hostile_kernel);
	tcase_add_test(tcase, stream_naps_through_a_hostile_kernel);
	tcase_add_loop_test(tcase, stream_survives_a_storm_of_signals, 0, n);
	tcase_add_loop_test(tcase, stream_urgent_data_hangs_nothing, 0, n);
	tcase_add_loop_test(tcase, stream_urgent_data_can_be_sent_and_received,
			    0, model_count);
	tcase_add_test(tcase, stream_passed_descriptors_leave_more_to_read);
	tcase_add_loop_test(tcase, stream_passed_descriptors_are_refused, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, stream_passed_descriptors_hang_nothing, 0,
			    model_count);
	tcase_add_loop_test(tcase,
			    stream_passed_descriptors_come_with_no_packet, 0,
			    model_count);
	tcase_add_loop_test(tcase, stream_close_does_not_destroy_the_answer, 0,
			    n);
	tcase_add_loop_test(tcase, stream_close_reads_on_within_bounds, 0, n);
	tcase_add_test(tcase, stream_close_does_not_wait_for_the_silent);
	tcase_add_loop_test(tcase, stream_close_looks_once, 0, n);
	tcase_add_loop_test(tcase, stream_refusal_looks_once, 0, n);
	tcase_add_loop_test(tcase, stream_of_a_child_ends_with_it, 0, 2);
	tcase_add_loop_test(tcase, stream_never_raises_sigpipe, 0, n);
	tcase_add_test(tcase, stream_leaves_sigpipe_as_it_was);
	tcase_add_test(tcase, stream_leaves_sigpipes_of_others);
	tcase_add_loop_test(tcase,
			    stream_blocks_sigpipe_where_it_is_not_the_programs,
			    0, n);
}

static void add_sockets(TCase *tcase, int n)
{
	tcase_add_test(tcase, stream_can_be_detached);
	tcase_add_loop_test(tcase, stream_detached_has_no_time_outs_of_ours, 0,
			    2);
	tcase_add_loop_test(tcase, stream_can_be_detached_under_every_model, 0,
			    n);
	tcase_add_test(tcase, stream_goes_through_channels);
	tcase_add_loop_test(tcase, stream_is_shut_by_channels_that_wait, 0, 2);
	tcase_add_loop_test(tcase, stream_calls_end_when_cancelled, 0, 3);
	tcase_add_test(tcase, stream_urgent_data_waits_for_room);
	tcase_add_test(tcase, stream_does_nothing_for_nothing);
	tcase_add_test(tcase, stream_has_socket_options);
	tcase_add_loop_test(tcase, stream_knows_both_addresses, 0,
			    model_count * transport_count);
	tcase_add_test(tcase, stream_knows_other_addresses);
	tcase_add_loop_test(tcase, stream_serves_descriptors_under_every_model,
			    0, n);
	tcase_add_loop_test(tcase, stream_refuses_other_descriptors, 0, n);
	tcase_add_test(tcase, stream_serves_who_has_left);
	for (int i = 0; i < transport_count; i++)
		if (!transports[i].stream) {
			tcase_add_loop_test(
				tcase,
				stream_calls_leave_others_datagrams_alone, i,
				i + 1);
			tcase_add_loop_test(
				tcase,
				stream_empty_packets_survive_a_full_queue, i,
				i + 1);
		}
}

static void add_stdio(TCase *tcase, int n)
{
	tcase_add_loop_test(tcase, stream_speaks_stdio, 0, 4);
	tcase_add_loop_test(tcase, stream_speaks_stdio_under_every_model, 0, n);
	tcase_add_test(tcase, stream_speaks_stdio_in_records);
	tcase_add_test(tcase, stream_mixes_with_stdio);
	tcase_add_test(tcase, stream_tells_stdio_of_errors);
	tcase_add_test(tcase, stream_speaks_stdio_when_setup_fails);
	tcase_add_loop_test(tcase, stream_closes_stdio, 0, 2);
}

Suite *t_stream(void)
{
	Suite *suite = suite_create("t_stream");
	int n = combinations();
	add_reading(suite_case(suite, "reading", NULL, NULL));
	add_writing(suite_case(suite, "writing", NULL, NULL), n);
	add_files(suite_case(suite, "files", NULL, NULL), n);
	add_hostility(suite_case(suite, "hostility", NULL, NULL), n);
	add_sockets(suite_case(suite, "sockets", NULL, NULL), n);
	add_stdio(suite_case(suite, "stdio", NULL, NULL), n);
	return suite;
}
