/*
 * Further streams of a handler: read, written, framed and waited for like its
 * own, and ended with it, in every model.
 */
#include "faults.h"
#include "handlers.h"
#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

static struct sys_table real;

static void set_up(void)
{
	real = sys_table;
}

static void tear_down(void)
{
	sys_table = real;
}

/* ---- somebody to talk to --------------------------------------------------*/

/* Connected stream sockets; `kind` 0: Unix, 1: TCP. */
enum { KINDS = 2 };

static void new_pair(int kind, int ends[2])
{
	if (kind == 0) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC,
					    0, ends),
				 0);
		return;
	}
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t len = sizeof(in);
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&in, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	getsockname(listener, (struct sockaddr *)&in, &len);
	ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(ends[0], (struct sockaddr *)&in, len), 0);
	ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(ends[1], 0);
	close(listener);
}

static struct ss_request *stream_over(struct ss_request *req, int fd)
{
	struct ss_request *stream;
	ck_assert_int_eq(ss_stream_new(req, fd, &stream), 0);
	ck_assert_ptr_nonnull(stream);
	return stream;
}

static int kind;

/* The handler's end as a stream; the other one is the test's. */
static struct ss_request *new_stream(struct ss_request *req, int *other)
{
	int ends[2];
	new_pair(kind, ends);
	*other = ends[1];
	return stream_over(req, ends[0]);
}

static int ran; /* how many handlers came to their end */

/* Serves one client in a server of its own, sync, and looks for leaks. */
static void serve_one(const struct ss_handler *handler)
{
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = handler,
				    .log_level = SS_NONE };
	int descriptors = open_descriptors();
	ran = 0;
	struct ss_server *server = made(&config);
	int ends[2];
	new_pair(0, ends);
	send_text(ends[1], "client\n");
	shutdown(ends[1], SHUT_WR); /* or its end is waited for */
	ck_assert_int_eq(ss_serve_fd(server, ends[0]), 0);
	close(ends[1]);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(open_descriptors(), descriptors);
	ck_assert_int_eq(ran, 1);
}

static void serve(int (*handle)(struct ss_request *req))
{
	struct ss_handler handler = { .handle = handle };
	serve_one(&handler);
}

/* ---- it is like the request's own -----------------------------------------*/

static int reads_and_writes(struct ss_request *req)
{
	int other;
	struct ss_request *stream = new_stream(req, &other);
	char buf[64];
	const void *data;
	ck_assert_int_eq(ss_write(stream, "abc", 3), 3);
	ck_assert_int_eq(ss_printf(stream, "%d\n", 42), 3);
	expect_text(other, "abc42\n");
	send_text(other, "line\nfull5:hello,");
	send_bytes(other, "\0\2ok", 4);
	ck_assert_int_eq(ss_read_line(stream, buf, sizeof(buf)), 5);
	ck_assert_str_eq(buf, "line\n");
	ck_assert_int_ge(ss_peek(stream, &data, 4), 4);
	ck_assert_mem_eq(data, "full", 4);
	ck_assert_int_eq(ss_read_full(stream, buf, 4), 4);
	ck_assert_int_eq(ss_read_netstring(stream, buf, sizeof(buf), NULL), 5);
	ck_assert_int_eq(ss_read_frame(stream, 2, buf, sizeof(buf), NULL), 2);
	ck_assert_mem_eq(buf, "ok", 2);
	ck_assert_int_eq(ss_try_read(stream, buf, 1), -EAGAIN);
	ck_assert_int_eq(ss_shutdown_stream(stream, SHUT_WR), 0);
	expect_end(other);
	send_text(other, "rest");
	close(other);
	ck_assert_int_eq(ss_read(stream, buf, sizeof(buf)), 4);
	ck_assert_int_eq(ss_read(stream, buf, sizeof(buf)), 0);
	ck_assert_int_eq(ss_read(stream, buf, sizeof(buf)), -ENODATA);
	/* Nothing of it has touched the client's. */
	ck_assert_int_eq(ss_read_line(req, buf, sizeof(buf)), 7);
	ck_assert_str_eq(buf, "client\n");
	ss_stream_free(stream);
	ran++;
	return 0;
}

START_TEST(streams_are_read_and_written)
{
	kind = _i;
	serve(reads_and_writes);
}
END_TEST

static int uses_stdio(struct ss_request *req)
{
	int other;
	struct ss_request *stream = new_stream(req, &other);
	FILE *own = ss_file(req), *file = ss_file(stream);
	char line[64];
	ran++;
	if (!file)
		return 0;
	ck_assert_ptr_ne(own, file);
	fprintf(file, "hello %s\n", "there");
	expect_text(other, "hello there\n");
	send_text(other, "and back\n");
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), file));
	ck_assert_str_eq(line, "and back\n");
	close(other);
	stream = new_stream(req, &other);
	file = ss_file(stream);
	ck_assert_int_eq(setvbuf(file, line, _IOFBF, sizeof(line)), 0);
	/* The GNU C library keeps nothing back at first. */
	fprintf(file, "half of it is ");
	fprintf(file, "buffered");
	ss_stream_free(stream);
	expect_text(other, "half of it is buffered");
	expect_end(other);
	close(other);
	return 0; /* what is open still is closed */
}

START_TEST(streams_have_a_file)
{
	serve(uses_stdio);
}
END_TEST

static int sends_file(struct ss_request *req)
{
	int other;
	struct ss_request *stream = new_stream(req, &other);
	char buf[64];
	FILE *file = tmpfile();
	fputs("from a file", file);
	fflush(file);
	ck_assert_int_eq(ss_sendfile(stream, fileno(file), 5, 100), 6);
	expect_text(other, "a file");
	fclose(file);
	/* And is the handler's again. */
	send_text(other, "unread");
	int fd = ss_detach(stream);
	ck_assert_int_ge(fd, 0);
	expect_text(fd, "unread");
	ck_assert_int_eq(ss_read(stream, buf, sizeof(buf)), 0);
	ck_assert_int_eq(ss_request_fd(stream), -ENOTSUP);
	ss_stream_free(stream);
	send_text(fd, "still open");
	expect_text(other, "still open");
	close(fd);
	close(other);
	ran++;
	return 0;
}

START_TEST(streams_send_files_and_are_detached)
{
	kind = _i;
	serve(sends_file);
}
END_TEST

static int tells_itself(struct ss_request *req)
{
	int other, mark;
	struct ss_request *stream = new_stream(req, &other);
	struct ss_address a, b;
	uint64_t in, out;
	ss_request_set_user(req, &mark);
	ck_assert_ptr_null(ss_request_user(stream));
	ss_request_set_user(stream, &in);
	ck_assert_ptr_eq(ss_request_user(req), &mark);
	ck_assert_ptr_eq(ss_state(stream), ss_state(req));
	ck_assert_ptr_eq(ss_request_server(stream), ss_request_server(req));
	ck_assert_ptr_eq(ss_request_handler(stream), ss_request_handler(req));
	ck_assert_uint_eq(ss_request_id(stream), ss_request_id(req));
	ck_assert(!ss_request_dgram(stream) && !ss_stopping(stream));
	ck_assert_int_ge(ss_request_fd(stream), 0);
	b.len = sizeof(b.u);
	ck_assert_int_eq(getsockname(other, &b.u.sa, &b.len), 0);
	ck_assert_int_eq(ss_request_peer(stream, &a), 0);
	ck_assert(ss_address_equal(&a, &b));
	b.len = sizeof(b.u);
	ck_assert_int_eq(getpeername(other, &b.u.sa, &b.len), 0);
	ck_assert_int_eq(ss_request_local(stream, &a), 0);
	ck_assert(ss_address_equal(&a, &b));
	ss_write(stream, "12345", 5);
	send_text(other, "123");
	ss_skip(stream, 3);
	ss_request_bytes(stream, &in, &out);
	ck_assert_uint_eq(in, 3);
	ck_assert_uint_eq(out, 5);
	ss_request_bytes(req, &in, &out);
	ck_assert_uint_eq(in + out, 0);
	close(other);
	/* A stream of a stream is the request's. */
	struct ss_request *another;
	int ends[2];
	new_pair(0, ends);
	ck_assert_int_eq(ss_stream_new(stream, ends[0], &another), 0);
	ss_stream_free(stream);
	send_text(ends[1], "x");
	ck_assert_int_eq(ss_skip(another, 1), 1);
	close(ends[1]);
	ran++;
	return 0;
}

START_TEST(streams_know_what_is_theirs)
{
	kind = _i;
	struct ss_handler handler = { .handle = tells_itself, .size = 10 };
	serve_one(&handler);
}
END_TEST

static int one_snapshot(void *arg, const struct ss_snapshot *snapshot)
{
	(void)snapshot;
	++*(int *)arg;
	return 0;
}

static int counts_requests(struct ss_request *req)
{
	int other, count = 0;
	struct ss_request *stream = new_stream(req, &other);
	struct ss_server *server = ss_request_server(req);
	struct ss_stats stats;
	ss_each(server, one_snapshot, &count);
	ck_assert_int_eq(count, 1);
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.accepted, 1);
	ck_assert_uint_eq(stats.active, 1);
	ss_stream_free(stream);
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.ended, 0);
	close(other);
	ran++;
	return 0;
}

START_TEST(streams_are_no_requests)
{
	serve(counts_requests);
}
END_TEST

/* More than what is kept for the next ones. */
static int has_many(struct ss_request *req)
{
	enum { MANY = 100 };
	struct ss_request *streams[MANY];
	int others[MANY];
	for (int i = 0; i < MANY; i++) {
		streams[i] = new_stream(req, &others[i]);
		ck_assert_int_eq(ss_printf(streams[i], "%d", i),
				 i < 10 ? 1 : 2);
	}
	for (int i = 0; i < MANY; i++) {
		char text[16];
		ss_stream_free(streams[i]);
		snprintf(text, sizeof(text), "%d", i);
		expect_text(others[i], text);
		expect_end(others[i]);
		close(others[i]);
	}
	ran++;
	return 0;
}

START_TEST(streams_may_be_many)
{
	kind = 0;
	serve(has_many);
}
END_TEST

/* ---- their end ------------------------------------------------------------*/

static int frees_in_order(struct ss_request *req)
{
	enum { STREAMS = 3 };
	static const int orders[][STREAMS] = {
		{ 0, 1, 2 }, { 2, 1, 0 }, { 1, 0, 2 }, { 1, 2, 0 }
	};
	ss_stream_free(NULL);
	for (size_t o = 0; o < sizeof(orders) / sizeof(*orders); o++) {
		struct ss_request *streams[STREAMS];
		int others[STREAMS];
		for (int i = 0; i < STREAMS; i++)
			streams[i] = new_stream(req, &others[i]);
		for (int i = 0; i < STREAMS; i++) {
			int at = orders[o][i];
			ss_stream_free(streams[at]);
			expect_end(others[at]);
			close(others[at]);
		}
	}
	ran++;
	return 0;
}

START_TEST(streams_are_freed_in_any_order)
{
	kind = _i;
	serve(frees_in_order);
}
END_TEST

static int left_other;

static int leaves_streams(struct ss_request *req)
{
	int closed, left;
	struct ss_request *first = new_stream(req, &left);
	struct ss_request *second = new_stream(req, &closed);
	close(closed);
	ss_write(first, "buffered", 8);
	ss_write(second, "for nobody", 10);
	left_other = left;
	ran++;
	return -EPROTO;
}

/* What they hold goes out first, as the client's does. */
START_TEST(streams_that_are_left_are_flushed_and_closed)
{
	struct ss_handler handler = { .handle = leaves_streams,
				      .wbufsize = SS_NONE };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = &handler,
				    .log_level = SS_NONE };
	struct ss_server *server = made(&config);
	int ends[2];
	new_pair(0, ends);
	ck_assert_int_eq(ss_serve_fd(server, ends[0]), 0);
	ck_assert_int_eq(ran, 1);
	expect_text(left_other, "buffered");
	expect_end(left_other);
	close(left_other);
	close(ends[1]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int fails_in_setup(struct ss_request *req)
{
	left_other = -1;
	new_stream(req, &left_other);
	return -EPERM;
}

static int never(struct ss_request *req)
{
	(void)req;
	ck_abort();
	return 0;
}

START_TEST(streams_of_a_failed_setup_are_closed)
{
	struct ss_handler handler = { .setup = fails_in_setup,
				      .handle = never };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = &handler,
				    .log_level = SS_NONE };
	struct ss_server *server = made(&config);
	int ends[2];
	new_pair(0, ends);
	ck_assert_int_eq(ss_serve_fd(server, ends[0]), 0);
	expect_end(left_other);
	close(left_other);
	close(ends[1]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static void expect_no_stream(struct ss_request *req, int fd, int code)
{
	struct ss_request *stream = req;
	ck_assert_int_eq(ss_stream_new(req, fd, &stream), code);
	ck_assert_ptr_null(stream);
	ck_assert(fd < 0 || fcntl(fd, F_GETFD) == -1);
}

static int refuses_others(struct ss_request *req)
{
	int fds[2];
	expect_no_stream(req, -1, -EBADF);
	ck_assert_int_eq(pipe(fds), 0);
	expect_no_stream(req, fds[0], -ENOTSOCK);
	close(fds[1]);
	expect_no_stream(req, socket(AF_INET, SOCK_DGRAM, 0), -EPROTOTYPE);
	ran++;
	return 0;
}

START_TEST(streams_are_over_stream_sockets)
{
	serve(refuses_others);
}
END_TEST

/* ---- what may fail --------------------------------------------------------*/

static int works_or_fails(struct ss_request *req)
{
	int ends[2];
	char buf[8];
	struct ss_request *stream;
	/* Who the client is, access would like to know, but need not. */
	bool borne = fault.what;
	new_pair(0, ends);
	send_text(ends[1], "text");
	int r = ss_stream_new(req, ends[0], &stream);
	if (r == 0)
		r = (int)ss_read(stream, buf, sizeof(buf));
	close(ends[1]);
	ran++;
	fault.left = 0;
	ck_assert_msg(fault.what && !borne ? r < 0 : r == 4, "%s: %d",
		      fault.what, r);
	return 0;
}

/* A new server each time, so that nothing is there from the last one. */
START_TEST(failures_leave_nothing)
{
	struct ss_handler handler = { .handle = works_or_fails };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = &handler,
				    .log_level = SS_NONE };
	sys_table.getsockopt = fail_getsockopt;
	sys_table.getsockname = fail_getsockname;
	sys_table.pipe = fail_pipe;
	fail_memory();
	int n = 0, before;
	do {
		int descriptors = open_descriptors(), ends[2];
		struct ss_server *server = made(&config);
		new_pair(0, ends);
		fault.what = NULL;
		fault.left = ++n;
		before = ran;
		ss_serve_fd(server, ends[0]);
		fault.left = 0;
		close(ends[1]);
		ck_assert_int_eq(ss_server_free(server), 0);
		ck_assert_msg(open_descriptors() == descriptors, "%s",
			      fault.what);
		/* The first fail before the handler runs. */
	} while (fault.what || ran == before);
	ck_assert_int_gt(n, 7);
}
END_TEST

/* ---- waiting --------------------------------------------------------------*/

static int waits_for_pipe(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	int fds[2];
	ck_assert_int_eq(pipe(fds), 0);
	int64_t begun = clock_ms();
	ck_assert_int_eq(ss_wait_fd(req, fds[0], POLLIN, ss_now(server) + 50),
			 0);
	ck_assert_int_ge(clock_ms() - begun, 49);
	ck_assert_int_eq(ss_wait_fd(req, fds[1], POLLOUT, SS_NONE), POLLOUT);
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	ck_assert_int_eq(ss_wait_fd(req, fds[0], POLLIN, 0) & POLLIN, POLLIN);
	close(fds[1]);
	ck_assert_int_eq(read(fds[0], (char[1]){ 0 }, 1), 1);
	ck_assert_int_ne(ss_wait_fd(req, fds[0], POLLIN, SS_NONE) & POLLHUP, 0);
	close(fds[0]);
	return ss_printf(req, "waited\n") < 0 ? -EIO : 0;
}

/* One of several: the stream's bytes, in its buffer too, and its room. */
static int waits_for_streams(struct ss_request *req)
{
	int other;
	char buf[4];
	struct ss_request *stream = new_stream(req, &other);
	struct ss_wait waits[] = { { .req = req, .events = POLLIN },
				   { .req = stream, .events = POLLIN } };
	int64_t soon = ss_now(ss_request_server(req)) + 20;
	ck_assert_int_eq(ss_wait_any(req, waits, 2, soon), 0);
	send_text(other, "12345678");
	ck_assert_int_eq(ss_wait_any(req, waits, 2, SS_NONE), 1);
	ck_assert_int_eq(waits[0].revents, 0);
	ck_assert_int_eq(waits[1].revents, POLLIN);
	ck_assert_int_eq(ss_read_full(stream, buf, 4), 4);
	ck_assert_int_eq(ss_wait_any(stream, waits, 2, SS_NONE), 1);
	ck_assert_int_eq(waits[1].revents, POLLIN);
	ck_assert_int_eq(ss_read_full(stream, buf, 4), 4);
	soon = ss_now(ss_request_server(req)) + 20;
	ck_assert_int_eq(ss_wait_any(stream, waits, 2, soon), 0);
	waits[1].events = POLLOUT;
	ck_assert_int_eq(ss_wait_any(req, waits, 2, SS_NONE), 1);
	ck_assert_int_eq(waits[1].revents, POLLOUT);
	close(other);
	ss_stream_free(stream);
	return ss_printf(req, "waited\n") < 0 ? -EIO : 0;
}

/* As much as fits, then nothing, then again once the other end has read. */
static int tries_to_write(struct ss_request *req)
{
	static char bytes[65536];
	int other;
	struct ss_request *stream = new_stream(req, &other);
	struct ss_server *server = ss_request_server(req);
	size_t there = 0, sent = 0;
	ssize_t n;
	/* TCP may have room once more, a little later. */
	do {
		while ((n = ss_try_write(stream, bytes, sizeof(bytes))) > 0) {
			ck_assert_uint_eq(ss_sent(stream), (size_t)n);
			sent += (size_t)n;
		}
		ck_assert_int_eq(n, -EAGAIN);
	} while (ss_wait_fd(req, ss_request_fd(stream), POLLOUT,
			    ss_now(server) + 100) == POLLOUT);
	while (there < sent) {
		n = recv(other, bytes, sizeof(bytes), 0);
		ck_assert_int_gt(n, 0);
		there += (size_t)n;
	}
	struct ss_wait wait = { .req = stream, .events = POLLOUT };
	ck_assert_int_eq(ss_wait_any(req, &wait, 1, SS_NONE), 1);
	ck_assert_int_eq(ss_try_write(stream, "again", 5), 5);
	expect_text(other, "again");
	close(other);
	n = ss_try_write(stream, "x", 1);
	ck_assert(n == 1 || n == -EPIPE || n == -ECONNRESET);
	ss_stream_free(stream);
	return ss_printf(req, "waited\n") < 0 ? -EIO : 0;
}

static int (*const waiting[])(struct ss_request *req) = {
	waits_for_pipe,
	waits_for_streams,
	tries_to_write,
};
enum { WAITING = sizeof(waiting) / sizeof(*waiting) };

START_TEST(streams_are_waited_for)
{
	struct ss_handler handler = { .handle = waiting[_i % WAITING],
				      .speaks_first = true };
	const struct model *model = &models[_i / WAITING % model_count];
	struct ss_config config = config_of(model, &transports[0], &handler);
	struct node node;
	kind = _i / WAITING / model_count;
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, "waited\n");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static void send_with_descriptor(int fd, const char *text)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { { 0 } };
	struct iovec iov = { (void *)text, strlen(text) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	ck_assert_int_eq(sendmsg(fd, &msg, 0), (ssize_t)iov.iov_len);
}

static int parent_end; /* of a pair that the test has made */

static int reads_three(struct ss_request *req)
{
	char buf[64];
	struct ss_request *stream = stream_over(req, dup(parent_end));
	if (ss_printf(req, "ready\n") < 0)
		return -EIO;
	ck_assert_int_eq(ss_read_full(stream, buf, 3), 3);
	return ss_printf(req, "%.3s\n", buf) < 0 ? -EIO : 0;
}

/*
 * A read comes back short where a descriptor is passed, though there is more
 * (unix(7)), of which no edge tells: all has come while nobody looked.
 */
START_TEST(streams_are_read_past_descriptors)
{
	struct ss_handler handler = { .handle = reads_three,
				      .speaks_first = true };
	struct ss_config config =
		config_of(&models[_i], &transports[0], &handler);
	struct node node;
	int ends[2];
	new_pair(0, ends);
	parent_end = ends[0];
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, "ready\n");
	pause_ms(20);
	kill(node.pid, SIGSTOP);
	send_with_descriptor(ends[1], "ab");
	send_text(ends[1], "c");
	kill(node.pid, SIGCONT);
	expect_text(fd, "abc\n");
	expect_end(fd);
	close(fd);
	close(ends[0]);
	close(ends[1]);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static int buffers_then_tries(struct ss_request *req)
{
	int other;
	struct ss_request *stream = new_stream(req, &other);
	ck_assert_int_eq(ss_write(stream, "held", 4), 4);
	ck_assert_int_eq(ss_try_write(stream, "", 0), 0);
	ck_assert_int_eq(ss_try_write(stream, " back", 5), 5);
	expect_text(other, "held back");
	close(other);
	ran++;
	return 0;
}

START_TEST(tried_writes_come_after_what_is_buffered)
{
	struct ss_handler handler = { .handle = buffers_then_tries,
				      .wbufsize = SS_NONE };
	serve_one(&handler);
}
END_TEST

/* Nothing is taken, and nothing of it goes, before that. */
static int fills_then_tries(struct ss_request *req)
{
	int other;
	char chunk[1000] = "";
	struct ss_request *stream = new_stream(req, &other);
	size_t filled = 0, drained = 0;
	ssize_t n;
	while ((n = ss_try_write(stream, chunk, sizeof(chunk))) > 0)
		filled += (size_t)n;
	ck_assert_int_eq(n, -EAGAIN);
	ck_assert_int_eq(ss_write(stream, "held", 4), 4);
	ck_assert_int_eq(ss_try_write(stream, " back", 5), -EAGAIN);
	ck_assert_uint_eq(ss_sent(stream), 0);
	while (drained < filled) {
		size_t left = filled - drained;
		n = recv_within(other, chunk,
				left < sizeof(chunk) ? left : sizeof(chunk),
				WAIT_MS);
		ck_assert_int_gt(n, 0);
		drained += (size_t)n;
	}
	ck_assert_int_eq(ss_try_write(stream, " back", 5), 5);
	expect_text(other, "held back");
	close(other);
	ran++;
	return 0;
}

START_TEST(tried_writes_wait_for_room_with_what_is_buffered)
{
	struct ss_handler handler = { .handle = fills_then_tries,
				      .wbufsize = SS_NONE };
	kind = 0;
	serve_one(&handler);
}
END_TEST

static int interruptions;

static bool interrupted(void)
{
	errno = EINTR;
	return interruptions > 0 && interruptions--;
}

static ssize_t interrupted_recv(int fd, void *buf, size_t n, int flags)
{
	return interrupted() ? -1 : recv(fd, buf, n, flags);
}

static ssize_t interrupted_recvmsg(int fd, struct msghdr *msg, int flags)
{
	return interrupted() ? -1 : recvmsg(fd, msg, flags);
}

static ssize_t interrupted_send(int fd, const void *buf, size_t n, int flags)
{
	return interrupted() ? -1 : send(fd, buf, n, flags);
}

static int tries_on(struct ss_request *req)
{
	int other;
	char buf[8];
	struct ss_request *stream = new_stream(req, &other);
	send_text(other, "ping");
	interruptions = 2;
	ck_assert_int_eq(ss_try_read(stream, buf, sizeof(buf)), 4);
	ck_assert_int_eq(interruptions, 0);
	interruptions = 2;
	ck_assert_int_eq(ss_try_write(stream, "pong", 4), 4);
	ck_assert_int_eq(interruptions, 0);
	expect_text(other, "pong");
	close(other);
	ran++;
	return 0;
}

START_TEST(tried_calls_go_on_after_interruptions)
{
	struct ss_handler handler = { .handle = tries_on };
	sys_table.recv = interrupted_recv;
	sys_table.recvmsg = interrupted_recvmsg;
	sys_table.send = interrupted_send;
	serve_one(&handler);
}
END_TEST

/* ---- conversations --------------------------------------------------------*/

/* A server behind: echoes lines, in a process of its own. */
static struct node behind;

static void start_behind(void)
{
	struct ss_config config = config_of(
		&models[1], &transports[kind ? 0 : 2], &ss_echo_handler);
	node_start(&behind, &config);
}

struct asking {
	struct ss_request *behind;
};

/* A line: there, and back, by a stream that lasts. */
static int asks_behind(struct ss_request *req)
{
	struct asking *state = ss_state(req);
	struct ss_diag why;
	char line[256];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	if (!state->behind) {
		int fd = ss_connect(req, behind.url, NULL, &why);
		if (fd < 0)
			return ss_fail(req, fd, "%s", why.text);
		int r = ss_stream_new(req, fd, &state->behind);
		if (r < 0)
			return r;
	}
	n = ss_write(state->behind, line, (size_t)n);
	if (n > 0)
		n = ss_read_line(state->behind, line, sizeof(line));
	if (n > 0)
		n = ss_write(req, line, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

START_TEST(streams_last_from_message_to_message)
{
	enum { CLIENTS = 6, LINES = 20 };
	struct ss_handler handler = { .handle = asks_behind,
				      .size = sizeof(struct asking) };
	const struct model *model = &models[_i % model_count];
	struct node node;
	int clients = model_sync(model) ? 1 : CLIENTS, fds[CLIENTS];
	kind = _i / model_count;
	start_behind();
	struct ss_config config = config_of(model, &transports[0], &handler);
	node_start(&node, &config);
	for (int c = 0; c < clients; c++)
		fds[c] = dial(node.url);
	for (int i = 0; i < LINES; i++)
		for (int c = 0; c < clients; c++) {
			char line[64];
			snprintf(line, sizeof(line), "%d of %d\n", i, c);
			send_text(fds[c], line);
			expect_text(fds[c], line);
		}
	for (int c = 0; c < clients; c++)
		close(fds[c]);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(node_stop(&behind), 0);
}
END_TEST

/* An end of one of the streams is not missed by who was not waiting. */
START_TEST(streams_end_while_nobody_looks)
{
	struct ss_handler handler = { .handle = asks_behind,
				      .size = sizeof(struct asking) };
	struct node node;
	kind = _i / model_count;
	start_behind();
	struct ss_config config =
		config_of(&models[_i % model_count], &transports[0], &handler);
	config.log_level = SS_NONE;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "one\n");
	expect_text(fd, "one\n");
	ck_assert_int_eq(node_stop(&behind), 0);
	send_text(fd, "two\n");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- time-outs ------------------------------------------------------------*/

static struct ss_timeouts own_timeouts;
static int late_ms; /* how long after the request a stream is made */

/* Tells what ended a read of a stream on which nothing comes. */
static int reads_in_vain(struct ss_request *req)
{
	static const char *const names[] = {
		[SS_TIMEOUT_NONE] = "none",
		[SS_TIMEOUT_HANDSHAKE] = "handshake",
		[SS_TIMEOUT_FIRST_BYTE] = "first byte",
		[SS_TIMEOUT_IO] = "io",
		[SS_TIMEOUT_IDLE] = "idle",
		[SS_TIMEOUT_TOTAL] = "total",
	};
	int other;
	char buf[8];
	ss_sleep(req, late_ms);
	struct ss_request *stream = new_stream(req, &other);
	ss_request_set_timeouts(stream, &own_timeouts);
	ssize_t r = ss_read(stream, buf, sizeof(buf));
	ck_assert_int_eq(ss_request_timeout(stream), ss_request_timeout(req));
	own_timeouts.total_ms = SS_NONE;
	ss_request_set_timeouts(req, &own_timeouts);
	close(other);
	return ss_printf(req, "%s, %s\n", strerror((int)-r),
			 names[ss_request_timeout(stream)]) < 0
		       ? -EIO
		       : 0;
}

/* No sooner than ms from when the client came: each bound counts from there, or
 * from later, and the server may be late to begin. */
static void expect_timeout(int model, struct ss_timeouts timeouts,
			   const char *which, int ms)
{
	struct ss_handler handler = { .handle = reads_in_vain,
				      .speaks_first = true };
	struct ss_config config =
		config_of(&models[model], &transports[0], &handler);
	struct node node;
	char expected[128];
	config.timeouts = timeouts;
	node_start(&node, &config);
	int64_t begun = clock_ms();
	int fd = dial(node.url);
	snprintf(expected, sizeof(expected), "Connection timed out, %s\n",
		 which);
	expect_text(fd, expected);
	ck_assert_int_ge(clock_ms() - begun, ms - 5);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}

START_TEST(streams_time_out_as_the_request_does)
{
	struct ss_timeouts t = { .io_ms = 100 };
	expect_timeout(_i, t, "io", 100);
	t = (struct ss_timeouts){ .io_ms = 60000, .idle_ms = 100 };
	expect_timeout(_i, t, "idle", 100);
	/* Were it counted from the request's beginning, it would be over. */
	late_ms = 150;
	t = (struct ss_timeouts){ .io_ms = 60000, .first_byte_ms = 120 };
	expect_timeout(_i, t, "first byte", 150 + 120);
	late_ms = 0;
	t = (struct ss_timeouts){ .io_ms = 60000, .total_ms = 150 };
	expect_timeout(_i, t, "total", 150);
	own_timeouts = (struct ss_timeouts){ .io_ms = 100 };
	t = (struct ss_timeouts){ .io_ms = 60000 };
	expect_timeout(_i, t, "io", 100);
	t = (struct ss_timeouts){ 0 };
	expect_timeout(_i, t, "io", 100);
}
END_TEST

/* Those that the request is given later hold for its streams too. */
static int changes_its_mind(struct ss_request *req)
{
	int other;
	char buf[8];
	struct ss_request *stream = new_stream(req, &other);
	struct ss_timeouts t = { .io_ms = 50 };
	ck_assert_int_eq(ss_request_set_timeouts(req, &t), 0);
	ck_assert_int_eq(ss_read(stream, buf, sizeof(buf)), -ETIMEDOUT);
	ck_assert_int_eq(ss_request_timeout(req), SS_TIMEOUT_IO);
	t.io_ms = SS_NONE;
	ck_assert_int_eq(ss_request_set_timeouts(stream, &t), 0);
	t.io_ms = 20;
	ck_assert_int_eq(ss_request_set_timeouts(req, &t), 0);
	send_text(other, "x");
	ck_assert_int_eq(ss_read(stream, buf, sizeof(buf)), 1);
	close(other);
	ck_assert_int_eq(ss_read(stream, buf, sizeof(buf)), 0);
	ran++;
	return 0;
}

START_TEST(streams_follow_the_requests_timeouts)
{
	serve(changes_its_mind);
}
END_TEST

/* ---- the end of the request, and of the server ----------------------------*/

static atomic_int result;
static _Atomic uint64_t reading;

/* A call that blocks and one that waits. */
static int reads_for_ever(struct ss_request *req)
{
	int other;
	char byte;
	struct ss_request *stream = new_stream(req, &other);
	struct ss_wait wait = { .req = stream, .events = POLLIN };
	atomic_store(&reading, ss_request_id(req));
	ssize_t r = kind ? ss_read(stream, &byte, 1)
			 : ss_wait_any(stream, &wait, 1, SS_NONE);
	atomic_store(&result, r == 0 ? 1 : (int)r);
	close(other);
	return 0;
}

enum { CANCEL_WAIT, CANCEL_READ, WAKE_WAIT, CALLS };

START_TEST(streams_hear_what_the_request_is_told)
{
	struct ss_handler handler = { .handle = reads_for_ever,
				      .speaks_first = true };
	struct ss_config config =
		config_of(&models[_i / CALLS], &transports[0], &handler);
	struct served server;
	bool wake = _i % CALLS == WAKE_WAIT;
	kind = _i % CALLS == CANCEL_READ;
	config.log_level = SS_NONE;
	served_start(&server, &config);
	int fd = dial(server.url);
	eventually(atomic_load(&reading));
	pause_ms(50);
	uint64_t id = atomic_load(&reading);
	ck_assert_int_eq(wake ? ss_wake(server.server, id)
			      : ss_cancel(server.server, id),
			 0);
	eventually(atomic_load(&result));
	ck_assert_int_eq(atomic_load(&result), wake ? -EINTR : -ECANCELED);
	expect_end(fd);
	close(fd);
	served_stop(&server);
}
END_TEST

static void expect_end_by_server(const struct model *model,
				 const struct ss_handler *handler)
{
	struct ss_config config = config_of(model, &transports[0], handler);
	struct node node;
	config.drain_ms = 100;
	config.log_level = SS_NONE;
	node_start(&node, &config);
	int fd = dial(node.url);
	pause_ms(100);
	int64_t begun = clock_ms();
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_lt(clock_ms() - begun, SOON_MS);
	close(fd);
}

START_TEST(streams_end_with_the_server)
{
	struct ss_handler handler = { .handle = reads_for_ever,
				      .speaks_first = true };
	kind = _i % 2;
	expect_end_by_server(&models[_i / 2], &handler);
}
END_TEST

/* Writing to who reads nothing, too. */
static int writes_for_ever(struct ss_request *req)
{
	static const char bytes[65536];
	int other;
	struct ss_request *stream = new_stream(req, &other);
	while (ss_write(stream, bytes, sizeof(bytes)) > 0)
		;
	close(other);
	return 0;
}

START_TEST(writes_to_streams_end_with_the_server)
{
	struct ss_handler handler = { .handle = writes_for_ever,
				      .speaks_first = true };
	expect_end_by_server(&models[_i], &handler);
}
END_TEST

/* The child of another server outlives the stream, and does not hold it. */
static int forks_beside(struct ss_request *req)
{
	int ends[2], other;
	struct ss_request *stream = new_stream(req, &other);
	struct ss_server *forking = ss_server_user(ss_request_server(req));
	new_pair(0, ends);
	ck_assert_int_eq(ss_serve_fd(forking, ends[0]), 0);
	expect_text(ends[1], "child");
	ss_stream_free(stream);
	expect_end(other);
	close(other);
	close(ends[1]);
	ran++;
	return 0;
}

static int stays(struct ss_request *req)
{
	char byte;
	ss_write(req, "child", 5);
	return (int)ss_read(req, &byte, 1);
}

START_TEST(streams_are_not_left_open_in_children)
{
	struct ss_handler child = { .handle = stays };
	struct ss_handler handler = { .handle = forks_beside };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .mixins = { { &ss_forking_mixin, NULL } },
				    .handler = &child,
				    .drain_ms = 100, /* it ends no sooner */
				    .log_level = SS_NONE };
	struct ss_server *forking = made(&config);
	config.mixins[0].layer = NULL;
	config.handler = &handler;
	config.user = forking;
	struct ss_server *server = made(&config);
	int ends[2];
	new_pair(0, ends);
	ck_assert_int_eq(ss_serve_fd(server, ends[0]), 0);
	ck_assert_int_eq(ran, 1);
	close(ends[1]);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(ss_server_close(forking), 0);
	ck_assert_int_eq(ss_server_free(forking), 0);
}
END_TEST

/* ---- in memory ------------------------------------------------------------*/

/* Where its clock stands still, an hour of it is soon over. */
static const struct in_memory {
	struct ss_use mixin;
	int patience_ms;
} in_memory[] = {
	{ { NULL, NULL }, 3600000 },
	{ { &ss_fiber_mixin, NULL }, 3600000 },
	{ { &ss_threading_mixin, NULL }, 50 },
};
enum { IN_MEMORY = sizeof(in_memory) / sizeof(*in_memory) };

/* Its time jumps; what a socket has to say comes before. */
static int talks_in_memory(struct ss_request *req)
{
	int other;
	char line[64];
	const struct in_memory *how = ss_server_user(ss_request_server(req));
	struct ss_timeouts t = { .io_ms = how->patience_ms };
	struct ss_request *stream = new_stream(req, &other);
	struct ss_wait waits[] = { { .req = req, .events = POLLIN },
				   { .req = stream, .events = POLLIN } };
	ck_assert_int_gt(ss_read_line(req, line, sizeof(line)), 0);
	ck_assert_int_gt(ss_printf(stream, "%s", line), 0);
	expect_text(other, line);
	send_text(other, "back\n");
	ck_assert_int_eq(ss_wait_any(req, waits, 2, SS_NONE), 1);
	ck_assert_int_eq(waits[0].revents, 0);
	ck_assert_int_eq(waits[1].revents, POLLIN);
	ck_assert_int_eq(ss_read_line(stream, line, sizeof(line)), 5);
	ss_request_set_timeouts(stream, &t);
	ck_assert_int_eq(ss_read(stream, line + 5, 1), -ETIMEDOUT);
	close(other);
	ck_assert_int_eq(ss_read(stream, line + 5, 1), 0);
	return ss_printf(req, "%s", line) < 0 ? -EIO : 0;
}

START_TEST(streams_of_requests_in_memory)
{
	struct ss_handler handler = { .handle = talks_in_memory };
	const struct in_memory *how = &in_memory[_i / KINDS];
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { how->mixin },
				    .handler = &handler,
				    .user = (void *)how,
				    .log_level = SS_NONE };
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	char out[64];
	kind = _i % KINDS;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_int_eq(ss_memory_send(client, "there\n", 6), 6);
	ck_assert_int_eq(ss_memory_recv(client, out, sizeof(out)), 5);
	ck_assert_mem_eq(out, "back\n", 5);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int counts_time(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct ss_timeouts t = { .first_byte_ms = 300 };
	int64_t begun = ss_now(server);
	int other;
	char byte;
	ck_assert_int_eq(ss_sleep(req, 1000), 0);
	struct ss_request *stream = new_stream(req, &other);
	ss_request_set_timeouts(stream, &t);
	ck_assert_int_eq(ss_read(stream, &byte, 1), -ETIMEDOUT);
	ck_assert_int_eq(ss_request_timeout(stream), SS_TIMEOUT_FIRST_BYTE);
	ck_assert_int_eq(ss_now(server) - begun, 1300);
	t.first_byte_ms = SS_NONE;
	ss_request_set_timeouts(stream, &t);
	ck_assert_int_eq(ss_read(stream, &byte, 1), -ETIMEDOUT);
	ck_assert_int_eq(ss_request_timeout(stream), SS_TIMEOUT_TOTAL);
	ck_assert_int_eq(ss_now(server) - begun, 5000);
	close(other);
	ran++;
	return 0;
}

START_TEST(streams_count_from_where_it_is_said)
{
	struct ss_handler handler = { .handle = counts_time,
				      .timeouts = { .total_ms = 5000 } };
	char out[1];
	ck_assert_int_eq(ss_memory_exchange(&handler, "", 0, out, sizeof(out)),
			 0);
	ck_assert_int_eq(ran, 1);
}
END_TEST

Suite *t_streams(void)
{
	Suite *suite = suite_create("t_streams");
	TCase *tcase = suite_case(suite, "one", set_up, tear_down);
	tcase_add_loop_test(tcase, streams_are_read_and_written, 0, KINDS);
	tcase_add_test(tcase, streams_have_a_file);
	tcase_add_loop_test(tcase, streams_send_files_and_are_detached, 0,
			    KINDS);
	tcase_add_loop_test(tcase, streams_know_what_is_theirs, 0, KINDS);
	tcase_add_test(tcase, streams_are_no_requests);
	tcase_add_test(tcase, streams_may_be_many);
	tcase_add_loop_test(tcase, streams_are_freed_in_any_order, 0, KINDS);
	tcase_add_test(tcase, streams_that_are_left_are_flushed_and_closed);
	tcase_add_test(tcase, streams_of_a_failed_setup_are_closed);
	tcase_add_test(tcase, streams_are_over_stream_sockets);
	tcase_add_test(tcase, failures_leave_nothing);
	tcase_add_test(tcase, tried_writes_come_after_what_is_buffered);
	tcase_add_test(tcase, tried_writes_wait_for_room_with_what_is_buffered);
	tcase_add_test(tcase, tried_calls_go_on_after_interruptions);
	tcase_add_test(tcase, streams_follow_the_requests_timeouts);
	tcase_add_test(tcase, streams_are_not_left_open_in_children);
	tcase_add_test(tcase, streams_count_from_where_it_is_said);
	tcase_add_loop_test(tcase, streams_of_requests_in_memory, 0,
			    IN_MEMORY * KINDS);
	tcase = suite_case(suite, "every model", set_up, tear_down);
	tcase_add_loop_test(tcase, streams_are_waited_for, 0,
			    WAITING * model_count * KINDS);
	tcase_add_loop_test(tcase, streams_are_read_past_descriptors, 0,
			    model_count);
	tcase_add_loop_test(tcase, streams_last_from_message_to_message, 0,
			    model_count * KINDS);
	tcase_add_loop_test(tcase, streams_end_while_nobody_looks, 0,
			    model_count * KINDS);
	tcase_add_loop_test(tcase, streams_time_out_as_the_request_does, 0,
			    model_count);
	for (int i = 0; i < model_count; i++)
		if (!model_has(&models[i], &ss_forking_mixin) &&
		    !model_supervised(&models[i]))
			tcase_add_loop_test(
				tcase, streams_hear_what_the_request_is_told,
				CALLS * i, CALLS * i + CALLS);
	tcase_add_loop_test(tcase, streams_end_with_the_server, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, writes_to_streams_end_with_the_server, 0,
			    model_count);
	return suite;
}
