/* Framing: netstrings and length prefixes, whole, broken, cut anywhere. */
#include "support.h"

#include <stdarg.h>
#include <sys/socket.h>

enum { NETSTRING = 0, TEXT = 512 };

/* ---- input that arrives in two pieces -------------------------------------*/

static struct {
	size_t at; /* where the cut is; 0: nowhere */
	size_t seen;
} cut;

static ssize_t cut_recvmsg(int fd, struct msghdr *msg, int flags)
{
	size_t *n = &msg->msg_iov->iov_len;
	if (cut.seen<cut.at && * n> cut.at - cut.seen)
		*n = cut.at - cut.seen;
	ssize_t r = recvmsg(fd, msg, flags);
	if (r > 0)
		cut.seen += (size_t)r;
	return r;
}

/* One end of a connection that already holds `in`, and its end. */
static int holding(const void *in, size_t n, int *client)
{
	int ends[2];
	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	send_bytes(ends[0], in, n);
	shutdown(ends[0], SHUT_WR);
	*client = ends[0];
	return ends[1];
}

/* Serves it in this thread, the input cut at `at`. */
static void over_pair(const struct ss_handler *handler, const void *in,
		      size_t n, size_t at)
{
	struct ss_config config = {
		.addresses = { "127.0.0.1:0" },
		.handler = handler,
		.log_level = SS_NONE,
	};
	struct ss_server *server = made(&config);
	int client, fd = holding(in, n, &client);
	cut.at = at;
	cut.seen = 0;
	sys_table.recvmsg = cut_recvmsg;
	ck_assert_int_eq(ss_serve_fd(server, fd), 0);
	sys_table.recvmsg = recvmsg;
	ck_assert(!n || cut.seen);
	close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
}

/* ---- reading --------------------------------------------------------------*/

/* What the handler below is to read, and what it saw. */
static struct {
	int width;
	size_t size;
	char saw[TEXT];
} reading;

static void saw(const char *fmt, ...) SS_PRINTF(1, 2);
static void saw(const char *fmt, ...)
{
	size_t used = strlen(reading.saw);
	va_list args;
	va_start(args, fmt);
	vsnprintf(reading.saw + used, TEXT - used, fmt, args);
	va_end(args);
}

static const char *code_name(ssize_t code)
{
	switch (-code) {
	case EPROTO:
		return "EPROTO";
	case EMSGSIZE:
		return "EMSGSIZE";
	case ENODATA:
		return "ENODATA";
	case EINVAL:
		return "EINVAL";
	default:
		return strerror((int)-code);
	}
}

static ssize_t read_one(struct ss_request *req, char *buf, bool *end)
{
	if (reading.width == NETSTRING)
		return ss_read_netstring(req, buf, reading.size, end);
	return ss_read_frame(req, reading.width, buf, reading.size, end);
}

/* Everything as <payload>, then how it ended and what was left. */
static int read_all(struct ss_request *req)
{
	char buf[TEXT];
	bool end = false;
	ssize_t n;
	while ((n = read_one(req, buf, &end)) >= 0 && !end)
		saw("<%.*s>", (int)n, buf);
	saw(end && n == 0 ? "end" : "%s", code_name(n));
	if (end) {
		ck_assert_int_eq(read_one(req, buf, NULL), -ENODATA);
		return 0;
	}
	n = ss_read_full(req, buf, sizeof(buf));
	if (n > 0)
		saw(" left %.*s", (int)n, buf);
	return 0;
}

static const struct {
	int width;
	size_t size;
	size_t n; /* of the input; 0: up to its NUL */
	const char *in;
	const char *saw;
} inputs[] = {
	{ 0, 99, 0, "", "end" },
	{ 0, 99, 0, "5:hello,", "<hello>end" },
	{ 0, 5, 0, "5:hello,", "<hello>end" },
	{ 0, 99, 0, "0:,", "<>end" },
	{ 0, 0, 0, "0:,0:,", "<><>end" },
	{ 0, 99, 0, "0:,1:a,2:bc,10:0123456789,", "<><a><bc><0123456789>end" },
	{ 0, 99, 0, "3:,:,,1:1,", "<,:,><1>end" },
	/* Too long: nothing is consumed, however long it claims to be. */
	{ 0, 4, 0, "5:hello,", "EMSGSIZE left 5:hello," },
	{ 0, 4, 0, "4:four,5:hello,", "<four>EMSGSIZE left 5:hello," },
	{ 0, 0, 0, "1:a,", "EMSGSIZE left 1:a," },
	{ 0, 99, 0, "9999999999:a,", "EMSGSIZE left 9999999999:a," },
	{ 0, 99, 0, "4294967297:a,", "EMSGSIZE left 4294967297:a," },
	{ 0, 99, 0, "4294967295:a,", "EMSGSIZE left 4294967295:a," },
	{ 0, 99, 0, "3000000000:a,", "EMSGSIZE left 3000000000:a," },
	/* Ended within. */
	{ 0, 99, 0, "5", "EPROTO left 5" },
	{ 0, 99, 0, "5:", "EPROTO left 5:" },
	{ 0, 99, 0, "5:hel", "EPROTO left 5:hel" },
	{ 0, 99, 0, "5:hello", "EPROTO left 5:hello" },
	{ 0, 99, 0, "1:a,2", "<a>EPROTO left 2" },
	/* Malformed. */
	{ 0, 99, 0, ":", "EPROTO left :" },
	{ 0, 99, 0, ":,", "EPROTO left :," },
	{ 0, 99, 0, "a:b,", "EPROTO left a:b," },
	{ 0, 99, 0, "-1:a,", "EPROTO left -1:a," },
	{ 0, 99, 0, "+1:a,", "EPROTO left +1:a," },
	{ 0, 99, 0, " 1:a,", "EPROTO left  1:a," },
	{ 0, 99, 0, "1 :a,", "EPROTO left 1 :a," },
	{ 0, 99, 0, "01:a,", "EPROTO left 01:a," },
	{ 0, 99, 0, "00:,", "EPROTO left 00:," },
	{ 0, 99, 0, "1;a,", "EPROTO left 1;a," },
	{ 0, 99, 0, "0x1:a,", "EPROTO left 0x1:a," },
	{ 0, 99, 0, "1:ab,", "EPROTO left 1:ab," },
	{ 0, 99, 0, "2:a,,", "<a,>end" },
	{ 0, 99, 0, "1:a;", "EPROTO left 1:a;" },
	{ 0, 99, 0, "1:a,\n1:b,", "<a>EPROTO left \n1:b," },
	{ 0, 99, 0, "99999999999:a,", "EPROTO left 99999999999:a," },
	{ 0, 99, 0, "18446744073709551617:a,",
	  "EPROTO left 18446744073709551617:a," },

	{ 1, 99, 0, "", "end" },
	{ 1, 99, 0, "\5hello", "<hello>end" },
	{ 1, 5, 0, "\5hello\1a", "<hello><a>end" },
	{ 1, 99, 1, "\0", "<>end" },
	{ 1, 0, 2, "\0\0", "<><>end" },
	{ 1, 4, 0, "\5hello", "EMSGSIZE left \5hello" },
	{ 1, 99, 0, "\5hell", "EPROTO left \5hell" },
	{ 1, 99, 0, "\5", "EPROTO left \5" },
	{ 2, 99, 7, "\0\5hello", "<hello>end" },
	{ 2, 99, 2, "\0\0", "<>end" },
	{ 2, 99, 1, "\0", "EPROTO left " },
	{ 2, 99, 5, "\5\0abc", "EMSGSIZE left \5" },
	{ 2, 99, 3, "\xff\xff!", "EMSGSIZE left \xff\xff!" },
	{ 4, 99, 9, "\0\0\0\5hello", "<hello>end" },
	{ 4, 99, 12, "\0\0\0\1a\0\0\0\3bcd", "<a><bcd>end" },
	{ 4, 99, 4, "\xff\xff\xff\xff", "EMSGSIZE left \xff\xff\xff\xff" },
	{ 4, 99, 3, "\0\0\0", "EPROTO left " },
	{ 8, 99, 13, "\0\0\0\0\0\0\0\5hello", "<hello>end" },
	{ 8, 99, 8, "\xff\xff\xff\xff\xff\xff\xff\xff",
	  "EMSGSIZE left \xff\xff\xff\xff\xff\xff\xff\xff" },
	{ 8, 99, 8, "\x7f\xff\xff\xff\xff\xff\xff\xff",
	  "EMSGSIZE left \x7f\xff\xff\xff\xff\xff\xff\xff" },
	{ 8, 99, 8, "\x80\0\0\0\0\0\0\0", "EMSGSIZE left \x80" },
	{ 8, 99, 12, "\0\0\0\0\0\0\0\5hell", "EPROTO left " },
	/* No such width. */
	{ 3, 99, 0, "\1\1\1a", "EINVAL left \1\1\1a" },
	{ -1, 99, 0, "a", "EINVAL left a" },
	{ 16, 99, 0, "a", "EINVAL left a" },
};
enum { INPUTS = sizeof(inputs) / sizeof(*inputs) };

static void reading_of(int i)
{
	reading.width = inputs[i].width;
	reading.size = inputs[i].size;
	reading.saw[0] = '\0';
}

static void check_saw(int i, int rbufsize, size_t at)
{
	ck_assert_msg(strcmp(reading.saw, inputs[i].saw) == 0,
		      "input %d, rbufsize %d, cut at %zu: \"%s\", not \"%s\"",
		      i, rbufsize, at, reading.saw, inputs[i].saw);
}

static size_t size_of(int i)
{
	return inputs[i].n ? inputs[i].n : strlen(inputs[i].in);
}

static const int rbufsizes[] = { 0, SS_NONE, 1, 3, 16 };

START_TEST(frames_read_from_memory)
{
	struct ss_handler handler = { .handle = read_all,
				      .rbufsize = rbufsizes[_i] };
	for (int i = 0; i < INPUTS; i++) {
		reading_of(i);
		ssize_t r = ss_memory_exchange(&handler, inputs[i].in,
					       size_of(i), NULL, 0);
		ck_assert_int_eq(r, 0);
		check_saw(i, rbufsizes[_i], 0);
	}
}
END_TEST

START_TEST(frames_read_with_a_cut_at_every_byte)
{
	/* It needs 12 bytes of buffer. */
	stack_without(&ss_proxy_mixin);
	struct ss_handler handler = { .handle = read_all,
				      .rbufsize = rbufsizes[_i] };
	for (int i = 0; i < INPUTS; i++)
		for (size_t at = 0; at < size_of(i); at++) {
			reading_of(i);
			over_pair(&handler, inputs[i].in, size_of(i), at);
			check_saw(i, rbufsizes[_i], at);
		}
}
END_TEST

/* A datagram is a stream that ends where the packet ends. */
START_TEST(frames_read_from_packets)
{
	struct ss_handler handler = { .handle = read_all };
	for (int i = 0; i < INPUTS; i++) {
		reading_of(i);
		ss_memory_exchange_packet(&handler, inputs[i].in, size_of(i),
					  NULL, 0);
		check_saw(i, 0, 0);
	}
}
END_TEST

/* ---- the input may end, or not --------------------------------------------*/

static int tells_empty_from_end(struct ss_request *req)
{
	char buf[8];
	bool end = true;
	ck_assert_int_eq(ss_read_frame(req, 1, buf, sizeof(buf), &end), 0);
	ck_assert(!end);
	end = true;
	ck_assert_int_eq(ss_read_netstring(req, buf, sizeof(buf), &end), 0);
	ck_assert(!end);
	ck_assert_int_eq(ss_read_netstring(req, buf, sizeof(buf), &end), 0);
	ck_assert(end);
	end = false;
	ck_assert_int_eq(ss_read_frame(req, 1, buf, sizeof(buf), &end),
			 -ENODATA);
	ck_assert_int_eq(ss_read_netstring(req, buf, sizeof(buf), NULL),
			 -ENODATA);
	return 0;
}

START_TEST(frames_tell_empty_from_end)
{
	struct ss_handler handler = { .handle = tells_empty_from_end };
	ck_assert_int_eq(ss_memory_exchange(&handler,
					    "\0"
					    "0:,",
					    4, NULL, 0),
			 0);
}
END_TEST

static int fails_with_a_text(struct ss_request *req)
{
	char buf[8];
	ssize_t n = ss_read_netstring(req, buf, sizeof(buf), NULL);
	ck_assert_int_lt(n, 0);
	return (int)n;
}

static char logged[256];

static void keep_log(void *arg, int level, struct ss_server *server,
		     uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	snprintf(logged, sizeof(logged), "%s", text);
}

static void failure_of(const char *in, const char *part)
{
	struct ss_handler handler = { .handle = fails_with_a_text };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &handler,
				    .log = keep_log };
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	char end;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_int_eq(ss_memory_send(client, in, strlen(in)),
			 (ssize_t)strlen(in));
	ck_assert_int_eq(ss_memory_recv(client, &end, 1), 0);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_msg(strstr(logged, part) != NULL, "\"%s\" lacks \"%s\"",
		      logged, part);
}

START_TEST(frames_say_what_is_wrong)
{
	failure_of("20:", "20 bytes is longer than 8");
	failure_of("x", "malformed");
	failure_of("1:ab,", "','");
	failure_of("5:he", "ended within");
}
END_TEST

/* ---- writing --------------------------------------------------------------*/

static int sends;

static ssize_t count_send(int fd, const void *buf, size_t n, int flags)
{
	sends++;
	return send(fd, buf, n, flags);
}

static ssize_t count_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	sends++;
	return sendmsg(fd, msg, flags);
}

static int writes_frames(struct ss_request *req)
{
	ck_assert_int_eq(ss_write_netstring(req, "hello", 5), 5);
	ck_assert_int_eq(ss_write_netstring(req, NULL, 0), 0);
	ck_assert_int_eq(ss_write_netstring(req, "0123456789", 10), 10);
	ck_assert_int_eq(ss_write_frame(req, 1, "a", 1), 1);
	ck_assert_int_eq(ss_write_frame(req, 2, "bc", 2), 2);
	ck_assert_int_eq(ss_write_frame(req, 4, NULL, 0), 0);
	ck_assert_int_eq(ss_write_frame(req, 8, "d", 1), 1);
	ck_assert_int_eq(sends, 7);
	return 0;
}

static const char frames_written[] = "5:hello,0:,10:0123456789,\1a\0\2bc"
				     "\0\0\0\0\0\0\0\0\0\0\0\1d";

/* Header and payload leave together. */
START_TEST(frames_are_written_in_one_call_each)
{
	struct ss_handler handler = { .handle = writes_frames };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = &handler };
	struct ss_server *server = made(&config);
	int client, fd = holding("", 0, &client);
	sys_table.send = count_send;
	sys_table.sendmsg = count_sendmsg;
	ck_assert_int_eq(ss_serve_fd(server, fd), 0);
	char got[sizeof(frames_written) - 1];
	expect_bytes(client, got, sizeof(got));
	ck_assert_mem_eq(got, frames_written, sizeof(got));
	expect_end(client);
	close(client);
	sys_table.send = send;
	sys_table.sendmsg = sendmsg;
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int writes_too_long(struct ss_request *req)
{
	static const char zeros[65536];
	ck_assert_int_eq(ss_write_frame(req, 1, zeros, 256), -EMSGSIZE);
	ck_assert_int_eq(ss_write_frame(req, 2, zeros, 65536), -EMSGSIZE);
	ck_assert_int_eq(ss_write_frame(req, 3, zeros, 1), -EINVAL);
	ck_assert_int_eq(ss_write_frame(req, 0, zeros, 1), -EINVAL);
	uint64_t out;
	ss_request_bytes(req, NULL, &out);
	ck_assert_uint_eq(out, 0);
	ck_assert_int_eq(ss_write_frame(req, 1, zeros, 255), 255);
	ck_assert_int_eq(ss_write_frame(req, 2, zeros, 65535), 65535);
	return 0;
}

START_TEST(frames_too_long_for_their_width_write_nothing)
{
	struct ss_handler handler = { .handle = writes_too_long };
	static unsigned char out[65793];
	ck_assert_int_eq(
		ss_memory_exchange(&handler, NULL, 0, out, sizeof(out)), 65793);
	ck_assert_int_eq(out[0], 0xff);
	ck_assert_int_eq(out[256], 0xff);
	ck_assert_int_eq(out[257], 0xff);
}
END_TEST

/* ---- there and back -------------------------------------------------------*/

enum { BIG = 40000 };
static const int kinds[] = { NETSTRING, 2, 4, 8 };
static int kind; /* what the handler below is to read */
static unsigned seed;

static unsigned next_random(void)
{
	seed = seed * 1103515245 + 12345;
	return seed >> 8;
}

/* Reads a frame of one kind and answers with it, framed in another. */
static int echo_frame(struct ss_request *req)
{
	static char buf[BIG];
	bool end;
	ssize_t n = kind == NETSTRING
			    ? ss_read_netstring(req, buf, BIG, &end)
			    : ss_read_frame(req, kind, buf, BIG, &end);
	ck_assert_int_ge(n, 0);
	if (end)
		return 0;
	ck_assert_int_eq(ss_write_frame(req, 4, buf, (size_t)n), n);
	return SS_AGAIN;
}

static void send_frame(int fd, const unsigned char *payload, size_t n)
{
	unsigned char head[24];
	for (int i = 0; i < kind; i++)
		head[i] = (unsigned char)((uint64_t)n >> 8 * (kind - 1 - i));
	size_t used = (size_t)kind;
	if (kind == NETSTRING)
		used = (size_t)snprintf((char *)head, sizeof(head), "%zu:", n);
	send_bytes(fd, head, used);
	send_bytes(fd, payload, n);
	if (kind == NETSTRING)
		send_text(fd, ",");
}

static void expect_frame(int fd, const unsigned char *payload, size_t n)
{
	unsigned char length[4];
	static unsigned char got[BIG];
	expect_bytes(fd, length, 4);
	ck_assert_uint_eq((size_t)length[2] << 8 | length[3], n);
	expect_bytes(fd, got, n);
	ck_assert_mem_eq(got, payload, n);
}

/* Two frames in a row, the input cut somewhere. */
static void there_and_back(struct ss_server *server,
			   const unsigned char *payload, size_t n, size_t at)
{
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	send_frame(ends[0], payload, n);
	send_frame(ends[0], payload, n);
	shutdown(ends[0], SHUT_WR);
	cut.at = at;
	cut.seen = 0;
	ck_assert_int_eq(ss_serve_fd(server, ends[1]), 0);
	expect_frame(ends[0], payload, n);
	expect_frame(ends[0], payload, n);
	expect_end(ends[0]);
	close(ends[0]);
}

START_TEST(frames_of_any_size_come_back)
{
	/* It needs 12 bytes of buffer. */
	stack_without(&ss_proxy_mixin);
	struct ss_handler handler = { .handle = echo_frame,
				      .rbufsize = rbufsizes[_i] };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = &handler };
	struct ss_server *server = made(&config);
	static unsigned char payload[BIG];
	sys_table.recvmsg = cut_recvmsg;
	seed = 7 + (unsigned)_i;
	for (int i = 0; i < rounds(40); i++) {
		kind = kinds[next_random() % 4];
		size_t n = next_random() % (i % 4 ? 300 : BIG);
		for (size_t b = 0; b < n; b++)
			payload[b] = (unsigned char)next_random();
		there_and_back(server, payload, n, next_random() % (2 * n + 9));
	}
	sys_table.recvmsg = recvmsg;
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

Suite *t_frames(void)
{
	enum { BUFFERS = sizeof(rbufsizes) / sizeof(*rbufsizes) };
	Suite *suite = suite_create("t_frames");
	TCase *tcase = tcase_create("frames");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase, frames_read_from_memory, 0, BUFFERS);
	tcase_add_loop_test(tcase, frames_read_with_a_cut_at_every_byte, 0,
			    BUFFERS);
	tcase_add_test(tcase, frames_read_from_packets);
	tcase_add_test(tcase, frames_tell_empty_from_end);
	tcase_add_test(tcase, frames_say_what_is_wrong);
	tcase_add_test(tcase, frames_are_written_in_one_call_each);
	tcase_add_test(tcase, frames_too_long_for_their_width_write_nothing);
	tcase_add_loop_test(tcase, frames_of_any_size_come_back, 0, BUFFERS);
	return suite;
}
