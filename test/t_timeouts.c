/*
 * Time-outs: which one strikes, and when: to the millisecond by memory's
 * clock, which jumps; within bounds over sockets, under every model.
 */
#include "support.h"

#include <poll.h>
#include <sys/socket.h>

enum { HOUR = 3600000, LATE_MS = 2000 };

static const char *const kind_names[] = {
	[SS_TIMEOUT_NONE] = "none",
	[SS_TIMEOUT_HANDSHAKE] = "handshake",
	[SS_TIMEOUT_FIRST_BYTE] = "first_byte",
	[SS_TIMEOUT_IO] = "io",
	[SS_TIMEOUT_IDLE] = "idle",
	[SS_TIMEOUT_TOTAL] = "total",
};

static const char *kind_of(const struct ss_request *req)
{
	return kind_names[ss_request_timeout(req)];
}

/* ---- by memory's clock ----------------------------------------------------*/

/*
 * What the client sends before it falls silent, what the handler does before
 * its last read (l: a line, f: two bytes, r: what there is, w: writes, a:
 * returns SS_AGAIN), and what ends that read, when after it began.
 */
struct strike {
	enum ss_timeout kind;
	int ms;
	const char *sent, *steps;
	struct ss_timeouts config, handler, request;
};

static const struct strike strikes[] = {
	/* Each alone. */
	{ SS_TIMEOUT_FIRST_BYTE, HOUR, "", "",
	  .config = { .first_byte_ms = HOUR } },
	{ SS_TIMEOUT_IO, HOUR, "", "", .config = { .io_ms = HOUR } },
	{ SS_TIMEOUT_IDLE, HOUR, "", "", .config = { .idle_ms = HOUR } },
	{ SS_TIMEOUT_TOTAL, HOUR, "", "", .config = { .total_ms = HOUR } },
	{ SS_TIMEOUT_TOTAL, 1, "", "", .config = { .total_ms = 1 } },
	{ SS_TIMEOUT_NONE, 0, "", "", .config = { .handshake_ms = 5 } },
	{ SS_TIMEOUT_NONE, 0, "", "", .config = { .io_ms = 0 } },

	/* first_byte is over once there was a byte. */
	{ SS_TIMEOUT_NONE, 0, "a", "r", .config = { .first_byte_ms = 5 } },
	{ SS_TIMEOUT_IO, 9, "a", "r",
	  .config = { .first_byte_ms = 5, .io_ms = 9 } },

	/* idle, between messages; io, within one. */
	{ SS_TIMEOUT_IDLE, 9, "a\n", "l",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IDLE, 5, "a\n", "l",
	  .config = { .io_ms = 9, .idle_ms = 5 } },
	{ SS_TIMEOUT_IDLE, 9, "a\n", "la",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IDLE, 9, "a\n", "lw",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IDLE, 9, "ab", "fw",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IDLE, 9, "ab", "f",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IDLE, 9, "a", "rw",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IDLE, 9, "a", "ra",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IO, 5, "a", "r", .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IO, 5, "a\nb", "l",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IO, 5, "a\nb", "la",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IO, 5, "a\nb", "lw",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IO, 5, "abc", "fa",
	  .config = { .io_ms = 5, .idle_ms = 9 } },
	{ SS_TIMEOUT_IO, 5, "a\n", "l",
	  .config = { .io_ms = 5, .idle_ms = SS_NONE } },
	{ SS_TIMEOUT_IO, 7, "a\n", "la", .config = { .io_ms = 7 } },
	{ SS_TIMEOUT_FIRST_BYTE, 7, "", "",
	  .config = { .first_byte_ms = 7, .idle_ms = 5, .io_ms = 3 } },

	/* The nearest wins. */
	{ SS_TIMEOUT_TOTAL, 7, "", "",
	  .config = { .first_byte_ms = 8, .total_ms = 7 } },
	{ SS_TIMEOUT_FIRST_BYTE, 7, "", "",
	  .config = { .first_byte_ms = 7, .total_ms = 8 } },
	{ SS_TIMEOUT_TOTAL, 7, "a", "r",
	  .config = { .io_ms = 8, .total_ms = 7 } },
	{ SS_TIMEOUT_IO, 7, "a", "r",
	  .config = { .io_ms = 7, .total_ms = HOUR } },
	{ SS_TIMEOUT_TOTAL, 7, "a\n", "l",
	  .config = { .idle_ms = 8, .total_ms = 7 } },
	{ SS_TIMEOUT_IDLE, 7, "a\n", "l",
	  .config = { .idle_ms = 7, .total_ms = 8 } },

	/* request > handler > config, each member by itself. */
	{ SS_TIMEOUT_IO, 6, "", "", .config = { .io_ms = 5 }, { .io_ms = 6 } },
	{ SS_TIMEOUT_IO,
	  7,
	  "",
	  "",
	  .config = { .io_ms = 5 },
	  { .io_ms = 6 },
	  { .io_ms = 7 } },
	{ SS_TIMEOUT_IO,
	  5,
	  "",
	  "",
	  .config = { .io_ms = 7 },
	  { .io_ms = 6 },
	  { .io_ms = 5 } },
	{ SS_TIMEOUT_IO,
	  5,
	  "",
	  "",
	  .config = { .io_ms = 5 },
	  { .total_ms = 6 } },
	{ SS_TIMEOUT_TOTAL,
	  6,
	  "",
	  "",
	  .config = { .io_ms = 5 },
	  { .total_ms = 6 },
	  { .io_ms = 9 } },
	{ SS_TIMEOUT_NONE,
	  0,
	  "",
	  "",
	  .config = { .io_ms = 5 },
	  { .io_ms = SS_NONE } },
	{ SS_TIMEOUT_IO,
	  5,
	  "",
	  "",
	  .config = { .io_ms = SS_NONE },
	  { .io_ms = 5 } },
	{ SS_TIMEOUT_IO,
	  6,
	  "",
	  "",
	  .config = { .io_ms = 5 },
	  { .io_ms = SS_NONE },
	  { .io_ms = 6 } },
	{ SS_TIMEOUT_TOTAL,
	  9,
	  "",
	  "",
	  .config = { .total_ms = 9 },
	  { .io_ms = 6 },
	  { .io_ms = SS_NONE } },
	{ SS_TIMEOUT_NONE,
	  0,
	  "",
	  "",
	  .config = { .total_ms = 9 },
	  { .io_ms = 6 },
	  { .io_ms = SS_NONE, .total_ms = SS_NONE } },
	{ SS_TIMEOUT_NONE, 0, "", "",
	  .config = { SS_NONE, SS_NONE, SS_NONE, SS_NONE, SS_NONE } },
};
enum { STRIKES = sizeof(strikes) / sizeof(*strikes) };

static struct {
	const struct strike *wanted;
	size_t step;
	enum ss_timeout kind;
	int64_t ms;
	ssize_t result;
} last;

static int take_step(struct ss_request *req, char step)
{
	char line[64];
	if (step == 'l')
		ck_assert_int_gt(ss_read_line(req, line, sizeof(line)), 0);
	else if (step == 'f')
		ck_assert_int_eq(ss_read_full(req, line, 2), 2);
	else if (step == 'r')
		ck_assert_int_gt(ss_read(req, line, sizeof(line)), 0);
	else if (step == 'w')
		ck_assert_int_eq(ss_write(req, "w", 1), 1);
	return step == 'a' ? SS_AGAIN : 0;
}

static int falls_silent(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	char line[64];
	ss_request_set_timeouts(req, &last.wanted->request);
	while (last.wanted->steps[last.step])
		if (take_step(req, last.wanted->steps[last.step++]))
			return SS_AGAIN;
	ck_assert_int_eq(ss_request_timeout(req), SS_TIMEOUT_NONE);
	int64_t began = ss_now(server);
	last.result = ss_read_line(req, line, sizeof(line));
	last.ms = ss_now(server) - began;
	last.kind = ss_request_timeout(req);
	return 0;
}

/* Serves a memory client that sends this and neither more nor its end. */
static void serve_silent(const struct ss_config *config, const char *sent)
{
	struct ss_server *server = made(config);
	struct ss_memory_client *client;
	char byte;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_int_eq(ss_memory_send(client, sent, strlen(sent)),
			 (ssize_t)strlen(sent));
	while (ss_memory_recv(client, &byte, 1) > 0)
		;
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
}

/* What a balancer says comes before what the client does. */
static const struct ss_layer headed;

static int hd_finish_request(struct ss_server *server, struct ss_request *req)
{
	char line[64];
	ck_assert_int_eq(ss_read_line(req, line, sizeof(line)), 5);
	return ss_super(server, &headed)->finish_request(server, req);
}

static const struct ss_layer headed = {
	.name = "headed",
	.ops = { .finish_request = hd_finish_request },
};

static void check_strike(int i, const struct ss_layer *layer)
{
	char sent[64];
	const struct strike *s = &strikes[i];
	struct ss_handler handler = { .handle = falls_silent,
				      .timeouts = s->handler };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &handler,
				    .timeouts = s->config };
	config.mixins[0].layer = layer;
	memset(&last, 0, sizeof(last));
	last.wanted = s;
	snprintf(sent, sizeof(sent), "%s%s", layer ? "head\n" : "", s->sent);
	serve_silent(&config, sent);
	ck_assert_msg(last.kind == s->kind && last.ms == s->ms,
		      "row %d: %s after %lld ms, not %s after %d", i,
		      kind_names[last.kind], (long long)last.ms,
		      kind_names[s->kind], s->ms);
	if (s->kind != SS_TIMEOUT_NONE)
		ck_assert_int_eq(last.result, -ETIMEDOUT);
	else
		ck_assert_int_ge(last.result, 0);
}

START_TEST(timeouts_strike_to_the_millisecond)
{
	int64_t began = clock_ms();
	for (int i = 0; i < STRIKES; i++)
		check_strike(i, NULL);
	ck_assert_int_lt(clock_ms() - began, WAIT_MS);
}
END_TEST

/* Who is silent behind a header is as silent as without. */
START_TEST(timeouts_strike_behind_a_header)
{
	for (int i = 0; i < STRIKES; i++)
		check_strike(i, &headed);
}
END_TEST

/* ---- the same request goes on ---------------------------------------------*/

static int tries_again(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	int64_t began = ss_now(server);
	for (int ms = 10; ms < HOUR; ms *= 10) {
		struct ss_timeouts longer = { .io_ms = ms };
		ss_request_set_timeouts(req, &longer);
		char byte;
		ck_assert_int_eq(ss_read(req, &byte, 1), -ETIMEDOUT);
		ck_assert_int_eq(ss_request_timeout(req), SS_TIMEOUT_IO);
		ck_assert_int_eq(ss_now(server) - began, ms);
		began = ss_now(server);
	}
	struct ss_timeouts total = { .total_ms = 2 * HOUR };
	ss_request_set_timeouts(req, &total);
	char byte;
	struct ss_timeouts none = { .io_ms = SS_NONE };
	ss_request_set_timeouts(req, &none);
	ck_assert_int_eq(ss_read(req, &byte, 1), -ETIMEDOUT);
	ck_assert_int_eq(ss_request_timeout(req), SS_TIMEOUT_TOTAL);
	ck_assert_int_eq(ss_now(server), 1 + 2 * HOUR);
	last.result = 1;
	return 0;
}

START_TEST(timeouts_can_be_changed_between_reads)
{
	struct ss_handler handler = { .handle = tries_again };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &handler };
	last.result = 0;
	serve_silent(&config, "");
	ck_assert_int_eq(last.result, 1);
}
END_TEST

static int loses_nothing(struct ss_request *req)
{
	char buf[16];
	const void *data;
	ck_assert_int_eq(ss_read_full(req, buf, 10), -ETIMEDOUT);
	ck_assert_int_eq(ss_read_line(req, buf, sizeof(buf)), -ETIMEDOUT);
	ck_assert_int_eq(ss_peek(req, &data, 10), -ETIMEDOUT);
	ck_assert_int_eq(ss_read_frame(req, 1, buf, sizeof(buf), NULL),
			 -EMSGSIZE);
	ck_assert_int_eq(ss_try_read(req, buf, sizeof(buf)), 5);
	ck_assert_mem_eq(buf, "12345", 5);
	ck_assert_int_eq(ss_try_read(req, buf, sizeof(buf)), -EAGAIN);
	ck_assert_int_eq(ss_read(req, buf, sizeof(buf)), -ETIMEDOUT);
	last.result = 1;
	return 0;
}

START_TEST(timeouts_consume_nothing)
{
	struct ss_handler handler = { .handle = loses_nothing,
				      .timeouts = { .io_ms = HOUR } };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &handler };
	last.result = 0;
	serve_silent(&config, "12345");
	ck_assert_int_eq(last.result, 1);
}
END_TEST

/* ---- before setup ---------------------------------------------------------*/

/* A layer that wants a line before the handler runs. */
static int knock_finish_request(struct ss_server *server,
				struct ss_request *req);
static const struct ss_layer knock = {
	.name = "knock",
	.ops = { .finish_request = knock_finish_request },
};

static int knock_finish_request(struct ss_server *server,
				struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	last.kind = ss_request_timeout(req);
	if (n < 0)
		return (int)n;
	return ss_super(server, &knock)->finish_request(server, req);
}

static enum ss_phase failed_in;

static void keep_phase(struct ss_server *server, struct ss_request *req,
		       const struct ss_error *error)
{
	(void)server, (void)req;
	failed_in = error->phase;
}

static const struct ss_layer keeper = {
	.name = "keeper",
	.ops = { .handle_error = keep_phase },
};

static void knock_with(const char *sent, struct ss_timeouts timeouts)
{
	struct ss_handler handler = { .handle = falls_silent };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &keeper, NULL },
						{ &knock, NULL } },
				    .handler = &handler,
				    .timeouts = timeouts };
	static const struct strike nothing = { .sent = "", .steps = "" };
	memset(&last, 0, sizeof(last));
	last.wanted = &nothing;
	failed_in = SS_PHASE_MAX;
	serve_silent(&config, sent);
}

START_TEST(timeouts_of_the_handshake_hold_before_setup_alone)
{
	knock_with("", (struct ss_timeouts){ .handshake_ms = HOUR });
	ck_assert_int_eq(last.kind, SS_TIMEOUT_HANDSHAKE);
	ck_assert_int_eq(failed_in, SS_PHASE_HANDSHAKE);
	knock_with("who", (struct ss_timeouts){ .handshake_ms = HOUR });
	ck_assert_int_eq(last.kind, SS_TIMEOUT_HANDSHAKE);
	knock_with("",
		   (struct ss_timeouts){ .handshake_ms = 9, .total_ms = 8 });
	ck_assert_int_eq(last.kind, SS_TIMEOUT_TOTAL);
	knock_with("who\n", (struct ss_timeouts){ .handshake_ms = 8 });
	ck_assert_int_eq(last.kind, SS_TIMEOUT_NONE);
	ck_assert_int_eq(failed_in, SS_PHASE_MAX);
	knock_with("who\n",
		   (struct ss_timeouts){ .handshake_ms = 8, .io_ms = HOUR });
	ck_assert_int_eq(last.kind, SS_TIMEOUT_IO);
	ck_assert_int_eq(last.ms, HOUR);
}
END_TEST

/* ---- computing, and other waits -------------------------------------------*/

static int naps(struct ss_request *req)
{
	int64_t began = ss_now(ss_request_server(req));
	ck_assert_int_eq(ss_sleep(req, HOUR), 0);
	ck_assert_int_eq(ss_now(ss_request_server(req)) - began, HOUR);
	ck_assert_int_eq(ss_sleep(req, 0), 0);
	ck_assert_int_eq(ss_now(ss_request_server(req)) - began, HOUR);
	return 0;
}

/* Time-outs bound input and output, not computing (here: a nap). */
static int reads_late(struct ss_request *req)
{
	char byte;
	last.result = ss_read(req, &byte, 1);
	last.kind = ss_request_timeout(req);
	return 0;
}

static void late_with(struct ss_timeouts timeouts)
{
	struct ss_handler handler = { .setup = naps,
				      .handle = reads_late,
				      .timeouts = timeouts };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &handler };
	memset(&last, 0, sizeof(last));
	serve_silent(&config, "a");
}

START_TEST(timeouts_do_not_take_a_byte_that_is_there)
{
	late_with((struct ss_timeouts){ .io_ms = 5 });
	ck_assert_int_eq(last.result, 1);
	late_with((struct ss_timeouts){ .idle_ms = 5 });
	ck_assert_int_eq(last.result, 1);
	late_with((struct ss_timeouts){ .first_byte_ms = 5 });
	ck_assert_int_eq(last.result, 1);
	late_with((struct ss_timeouts){ .total_ms = HOUR });
	ck_assert_int_eq(last.result, -ETIMEDOUT);
	ck_assert_int_eq(last.kind, SS_TIMEOUT_TOTAL);
}
END_TEST

static int sleeps_long(struct ss_request *req)
{
	last.result = ss_sleep(req, 2 * HOUR);
	last.kind = ss_request_timeout(req);
	last.ms = ss_now(ss_request_server(req));
	return 0;
}

START_TEST(timeouts_of_the_total_bound_sleeping)
{
	struct ss_handler handler = { .handle = sleeps_long,
				      .timeouts = { .total_ms = HOUR } };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &handler };
	memset(&last, 0, sizeof(last));
	serve_silent(&config, "");
	ck_assert_int_eq(last.result, -ETIMEDOUT);
	ck_assert_int_eq(last.kind, SS_TIMEOUT_TOTAL);
	ck_assert_int_eq(last.ms, 1 + HOUR);
}
END_TEST

static struct sys_table real;
static int64_t its_clock;

static int64_t tell_its_clock(void)
{
	return its_clock;
}

static ssize_t send_a_byte_in_an_hour(int fd, const void *buf, size_t n,
				      int flags)
{
	(void)n;
	its_clock += HOUR;
	return real.send(fd, buf, 1, flags);
}

static int writes_two(struct ss_request *req)
{
	last.result = ss_write(req, "ab", 2);
	last.kind = ss_request_timeout(req);
	last.step = (int)ss_sent(req);
	return 0;
}

/* Each part need not wait. */
START_TEST(timeouts_of_the_total_end_what_is_written_in_parts)
{
	static const struct ss_handler handler = { .handle = writes_two,
						   .speaks_first = true };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = &handler,
				    .timeouts = { .total_ms = HOUR } };
	char url[SS_ADDRESS_TEXT];
	memset(&last, 0, sizeof(last));
	its_clock = 1000000;
	real = sys_table;
	sys_table.now_ms = tell_its_clock;
	sys_table.send = send_a_byte_in_an_hour;
	struct ss_server *server = made(&config);
	int fd = dial(ss_server_url(server, 0, url, sizeof(url)));
	ck_assert_int_eq(ss_handle_request(server), 1);
	sys_table = real;
	expect_text(fd, "a");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(last.result, -ETIMEDOUT);
	ck_assert_int_eq(last.kind, SS_TIMEOUT_TOTAL);
	ck_assert_int_eq(last.step, 1);
}
END_TEST

/* ---- over sockets, under every model --------------------------------------*/

static int combinations(void)
{
	int streams = 0;
	for (int i = 0; i < transport_count; i++)
		streams += transports[i].stream;
	return model_count * streams;
}

static struct ss_config combination(int i, const struct ss_handler *handler)
{
	const struct transport *transport = transports;
	for (int skip = i / model_count;; transport++)
		if (transport->stream && skip-- == 0)
			break;
	struct ss_config config =
		config_of(&models[i % model_count], transport, handler);
	return config;
}

static struct tape *tape;

static void check_elapsed(int64_t began, int ms)
{
	int64_t elapsed = clock_ms() - began;
	ck_assert_msg(elapsed >= ms && elapsed < ms + LATE_MS,
		      "%lld ms, not %d", (long long)elapsed, ms);
}

/* Reads lines until a time-out, and notes which. */
static int reads_lines(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n > 0)
		return SS_AGAIN;
	tape_note(tape, "%s", n == -ETIMEDOUT ? kind_of(req) : "?");
	return (int)n;
}

static const struct {
	const char *sent;
	struct ss_timeouts timeouts;
	enum ss_timeout kind;
	int ms;
} silences[] = {
	{ "", { .first_byte_ms = 30 }, SS_TIMEOUT_FIRST_BYTE, 30 },
	{ "x", { .io_ms = 30 }, SS_TIMEOUT_IO, 30 },
	{ "x\n", { .idle_ms = 30, .io_ms = 1 }, SS_TIMEOUT_IDLE, 30 },
	{ "x\nx", { .idle_ms = 9000, .io_ms = 30 }, SS_TIMEOUT_IO, 30 },
	{ "x", { .total_ms = 40, .io_ms = 9000 }, SS_TIMEOUT_TOTAL, 40 },
};
enum { SILENCES = sizeof(silences) / sizeof(*silences) };

static void silence(int combination_index, int i)
{
	static const struct ss_handler handler = { .handle = reads_lines };
	struct ss_config config = combination(combination_index, &handler);
	config.timeouts = silences[i].timeouts;
	tape = tape_new();
	struct node node;
	node_start(&node, &config);
	int64_t began = clock_ms();
	int fd = dial(node.url);
	if (silences[i].sent[0])
		send_text(fd, silences[i].sent);
	expect_end(fd);
	check_elapsed(began, silences[i].ms);
	tape_wait(tape, 1);
	ck_assert_str_eq(tape_text(tape), kind_names[silences[i].kind]);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	ss_shared_free(tape, sizeof(*tape));
}

START_TEST(timeouts_strike_under_every_model)
{
	for (int i = 0; i < SILENCES; i++)
		silence(_i, i);
}
END_TEST

/* ---- a byte at a time -----------------------------------------------------*/

enum { BYTE_MS = 20, SLOW_MS = 150 };

/* Sends a byte now and then until the server hangs up. */
static void send_slowly(int fd)
{
	for (int sent = 0; sent < WAIT_MS / BYTE_MS; sent++) {
		if (send(fd, "x", 1, MSG_NOSIGNAL) != 1)
			return;
		char byte;
		if (recv_within(fd, &byte, 1, BYTE_MS) != -EAGAIN)
			return;
	}
	ck_abort_msg("it outlived its total");
}

static void slow_client(struct ss_config *config, int total_ms)
{
	config->timeouts = (struct ss_timeouts){ .total_ms = total_ms,
						 .first_byte_ms = 9000,
						 .idle_ms = 9000,
						 .io_ms = 5 * BYTE_MS + 1000 };
	tape = tape_new();
	struct node node;
	node_start(&node, config);
	int64_t began = clock_ms();
	int fd = dial(node.url);
	send_slowly(fd);
	check_elapsed(began, total_ms);
	tape_wait(tape, 1);
	ck_assert_str_eq(tape_text(tape), "total");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	ss_shared_free(tape, sizeof(*tape));
}

START_TEST(timeouts_a_byte_at_a_time_does_not_outlive_the_total)
{
	static const struct ss_handler handler = { .handle = reads_lines };
	struct ss_config config = combination(_i, &handler);
	slow_client(&config, SLOW_MS);
}
END_TEST

static int reads_at_length(struct ss_request *req)
{
	char buf[20000];
	ssize_t n = ss_read_full(req, buf, sizeof(buf));
	tape_note(tape, "%s", n == -ETIMEDOUT ? kind_of(req) : "?");
	return (int)n;
}

START_TEST(timeouts_hold_for_reads_beyond_the_buffer)
{
	static const struct ss_handler handler = { .handle = reads_at_length };
	struct ss_config config = combination(_i, &handler);
	slow_client(&config, SLOW_MS / 3);
}
END_TEST

/* Takes every byte at once and throws it away. */
static int takes_bytes(struct ss_request *req)
{
	char byte;
	ssize_t n;
	while ((n = ss_read(req, &byte, 1)) > 0)
		;
	tape_note(tape, "%s", n == -ETIMEDOUT ? kind_of(req) : "?");
	return (int)n;
}

/* No read of this client's bytes ever waits. */
START_TEST(timeouts_a_client_that_never_pauses_does_not_outlive_the_total)
{
	static const struct ss_handler handler = { .handle = takes_bytes,
						   .rbufsize = 64 };
	struct ss_config config = combination(_i, &handler);
	config.timeouts.total_ms = 40;
	tape = tape_new();
	struct node node;
	node_start(&node, &config);
	int64_t began = clock_ms();
	int fd = dial(node.url);
	static const char zeros[4096];
	while (send(fd, zeros, sizeof(zeros), MSG_NOSIGNAL) > 0)
		ck_assert_int_lt(clock_ms() - began, WAIT_MS);
	tape_wait(tape, 1);
	ck_assert_str_eq(tape_text(tape), "total");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- writing --------------------------------------------------------------*/

static int writes_on(struct ss_request *req)
{
	static const char zeros[65536];
	ssize_t n;
	while ((n = ss_write(req, zeros, sizeof(zeros))) > 0)
		;
	tape_note(tape, "%s", n == -ETIMEDOUT ? kind_of(req) : "?");
	return (int)n;
}

static const struct ss_handler writer = { .handle = writes_on };

START_TEST(timeouts_end_a_write_that_nobody_reads)
{
	struct ss_config config = combination(_i, &writer);
	config.timeouts.io_ms = 40;
	tape = tape_new();
	struct node node;
	node_start(&node, &config);
	int64_t began = clock_ms();
	int fd = dial(node.url);
	tape_wait(tape, 1);
	check_elapsed(began, 40);
	ck_assert_str_eq(tape_text(tape), "io");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* Reads `n` bytes at a time, every `ms`, until `lines` are on the tape. */
static void read_until_told(int fd, size_t n, int ms)
{
	static char bytes[65536];
	int64_t until = clock_ms() + WAIT_MS;
	while (atomic_load(&tape->count) == 0 && clock_ms() < until) {
		recv_within(fd, bytes, n, ms);
		if (n == 1)
			pause_ms(ms);
	}
}

static void outlives_not(int i, size_t n, int total_ms)
{
	struct ss_config config = combination(i, &writer);
	config.timeouts.total_ms = total_ms;
	tape = tape_new();
	struct node node;
	node_start(&node, &config);
	int64_t began = clock_ms();
	int fd = dial(node.url);
	read_until_told(fd, n, BYTE_MS);
	check_elapsed(began, total_ms);
	tape_wait(tape, 1);
	ck_assert_str_eq(tape_text(tape), "total");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}

START_TEST(timeouts_a_slow_reader_does_not_outlive_the_total)
{
	outlives_not(_i, 1, SLOW_MS / 3);
}
END_TEST

START_TEST(timeouts_a_fast_reader_does_not_outlive_the_total)
{
	outlives_not(_i, 65536, SLOW_MS / 3);
}
END_TEST

/* ---- after a time-out -----------------------------------------------------*/

static int asks_whether_it_is_there(struct ss_request *req)
{
	char line[64];
	struct ss_timeouts shorter = { .io_ms = 15 };
	struct ss_timeouts longer = { .io_ms = 50 };
	struct ss_timeouts none = { .io_ms = SS_NONE };
	ss_request_set_timeouts(req, &shorter);
	ck_assert_int_eq(ss_read_line(req, line, sizeof(line)), -ETIMEDOUT);
	ss_request_set_timeouts(req, &longer);
	ck_assert_int_eq(ss_read_line(req, line, sizeof(line)), -ETIMEDOUT);
	ss_write(req, "there?\n", 7);
	ss_request_set_timeouts(req, &none);
	ssize_t n = ss_read_line(req, line, sizeof(line));
	ck_assert_int_gt(n, 0);
	ss_write(req, line, (size_t)n);
	return 0;
}

START_TEST(timeouts_leave_the_connection_usable)
{
	static const struct ss_handler handler = {
		.handle = asks_whether_it_is_there, .timeouts = { .io_ms = 10 }
	};
	struct ss_config config = combination(_i, &handler);
	struct node node;
	node_start(&node, &config);
	int64_t began = clock_ms();
	int fd = dial(node.url);
	send_text(fd, "y");
	expect_text(fd, "there?\n");
	check_elapsed(began, 65);
	/* Longer than any time-out that was ever set. */
	pause_ms(60);
	send_text(fd, "es\n");
	expect_text(fd, "yes\n");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- what they cost -------------------------------------------------------*/

static atomic_int recvs, sends, polls, options;

static ssize_t count_recv(int fd, void *buf, size_t n, int flags)
{
	atomic_fetch_add(&recvs, 1);
	return recv(fd, buf, n, flags);
}

static ssize_t count_send(int fd, const void *buf, size_t n, int flags)
{
	atomic_fetch_add(&sends, 1);
	return send(fd, buf, n, flags);
}

static int count_poll(struct pollfd *fds, nfds_t n, int ms)
{
	atomic_fetch_add(&polls, 1);
	return poll(fds, n, ms);
}

static int count_setsockopt(int fd, int level, int name, const void *value,
			    socklen_t len)
{
	atomic_fetch_add(&options, 1);
	return setsockopt(fd, level, name, value, len);
}

static int echo(struct ss_request *req)
{
	char buf[256];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_timeouts costs[] = {
	{ .io_ms = 0 },
	{ .io_ms = 9000 },
	{ .idle_ms = 9000 },
	{ .io_ms = 9000, .idle_ms = 9500, .first_byte_ms = 9900 },
};
enum { COSTS = sizeof(costs) / sizeof(*costs), MESSAGES = 200 };

/* A descriptor that blocks needs no second call to wait. */
START_TEST(timeouts_under_threading_cost_no_call)
{
	/* The header is read, too. */
	stack_without(&ss_proxy_mixin);
	static const struct ss_handler handler = { .handle = echo };
	struct ss_config config = combination(0, &handler);
	config.mixins[0].layer = &ss_threading_mixin;
	config.timeouts = costs[_i];
	sys_table.recv = count_recv;
	sys_table.send = count_send;
	sys_table.poll = count_poll;
	sys_table.setsockopt = count_setsockopt;
	struct served served;
	served_start(&served, &config);
	options = 0;
	int fd = dial(served.url);
	for (int i = 0; i < MESSAGES; i++) {
		send_text(fd, "hello");
		expect_text(fd, "hello");
	}
	shutdown(fd, SHUT_WR);
	expect_end(fd);
	close(fd);
	served_stop(&served);
	ck_assert_int_eq(recvs, MESSAGES + 1);
	ck_assert_int_eq(sends, MESSAGES);
	/* Some: the clock may move on; the portable loop polls to accept. */
	ck_assert_int_lt(polls, MESSAGES / 2);
	ck_assert_int_lt(options, MESSAGES / 2);
}
END_TEST

/* ---- interruptions --------------------------------------------------------*/

enum { STORM_MS = 2, STORM = 1000 };
static int gusts;

static ssize_t gust(void)
{
	pause_ms(STORM_MS);
	errno = EINTR;
	return -1;
}

static ssize_t interrupted_recv(int fd, void *buf, size_t n, int flags)
{
	(void)fd, (void)buf, (void)n, (void)flags;
	return ++gusts < STORM ? gust() : 0;
}

static ssize_t interrupted_send(int fd, const void *buf, size_t n, int flags)
{
	(void)fd, (void)buf, (void)flags;
	return ++gusts < STORM ? gust() : (ssize_t)n;
}

static int is_interrupted(struct ss_request *req)
{
	char byte;
	gusts = 0;
	ck_assert_int_eq(ss_read(req, &byte, 1), -ETIMEDOUT);
	ck_assert_int_eq(ss_request_timeout(req), SS_TIMEOUT_IO);
	gusts = 0;
	ck_assert_int_eq(ss_write(req, "x", 1), -ETIMEDOUT);
	ck_assert_int_eq(ss_sent(req), 0);
	sys_table.send = send;
	ck_assert_int_eq(ss_write(req, "x", 1), 1);
	return 0;
}

/* Each interrupted call is the same call: its time goes on. */
START_TEST(timeouts_hold_through_interruptions)
{
	static const struct ss_handler handler = {
		.handle = is_interrupted, .timeouts = { .io_ms = 40 }
	};
	struct ss_config config = combination(0, &handler);
	struct ss_server *server = made(&config);
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	sys_table.recv = interrupted_recv;
	sys_table.send = interrupted_send;
	ck_assert_int_eq(ss_serve_fd(server, ends[1]), 0);
	sys_table.recv = recv;
	expect_text(ends[0], "x");
	close(ends[0]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Takes whatever is written, so that no write ever waits. */
static ssize_t swallowing_send(int fd, const void *buf, size_t n, int flags)
{
	(void)fd, (void)buf, (void)flags;
	if (++gusts < STORM)
		pause_ms(STORM_MS);
	else
		n = (size_t)-1;
	errno = EPIPE;
	return (ssize_t)n;
}

static int writes_for_ever(struct ss_request *req)
{
	gusts = 0;
	ssize_t n;
	while ((n = ss_write(req, "x", 1)) == 1)
		;
	ck_assert_int_eq(n, -ETIMEDOUT);
	ck_assert_int_eq(ss_request_timeout(req), SS_TIMEOUT_TOTAL);
	return 0;
}

START_TEST(timeouts_of_the_total_end_writes_that_never_wait)
{
	static const struct ss_handler handler = {
		.handle = writes_for_ever, .timeouts = { .total_ms = 40 }
	};
	struct ss_config config = combination(0, &handler);
	struct ss_server *server = made(&config);
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	sys_table.send = swallowing_send;
	ck_assert_int_eq(ss_serve_fd(server, ends[1]), 0);
	sys_table.send = send;
	close(ends[0]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int writes_too_late(struct ss_request *req)
{
	char text[] = "ab";
	struct iovec two[2] = { { text, 1 }, { text + 1, 1 } };
	pause_ms(5);
	ck_assert_int_eq(ss_writev(req, two, 2), -ETIMEDOUT);
	ck_assert_uint_eq(ss_sent(req), 0);
	ck_assert_int_eq(ss_request_timeout(req), SS_TIMEOUT_TOTAL);
	return 0;
}

START_TEST(timeouts_of_the_total_end_gathered_writes_too)
{
	static const struct ss_handler handler = {
		.handle = writes_too_late, .timeouts = { .total_ms = 1 }
	};
	struct ss_config config = combination(0, &handler);
	struct ss_server *server = made(&config);
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	ck_assert_int_eq(ss_serve_fd(server, ends[1]), 0);
	expect_end(ends[0]);
	close(ends[0]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- configuration --------------------------------------------------------*/

START_TEST(timeouts_below_none_are_refused)
{
	static const struct ss_handler handler = { .handle = echo };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &handler };
	config.timeouts.io_ms = -2;
	refused(&config, -EINVAL, "io_ms");
	config.timeouts = (struct ss_timeouts){ .total_ms = -1000 };
	refused(&config, -EINVAL, "total_ms");
}
END_TEST

static void add_by_memory(Suite *suite)
{
	TCase *tcase = tcase_create("memory");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 10);
	tcase_add_test(tcase, timeouts_strike_to_the_millisecond);
	tcase_add_test(tcase, timeouts_strike_behind_a_header);
	tcase_add_test(tcase, timeouts_can_be_changed_between_reads);
	tcase_add_test(tcase, timeouts_consume_nothing);
	tcase_add_test(tcase,
		       timeouts_of_the_handshake_hold_before_setup_alone);
	tcase_add_test(tcase, timeouts_do_not_take_a_byte_that_is_there);
	tcase_add_test(tcase, timeouts_of_the_total_bound_sleeping);
	tcase_add_test(tcase,
		       timeouts_of_the_total_end_what_is_written_in_parts);
	tcase_add_test(tcase, timeouts_below_none_are_refused);
}

static void add_by_sockets(Suite *suite)
{
	TCase *tcase = tcase_create("sockets");
	int n = combinations();
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase, timeouts_strike_under_every_model, 0, n);
	tcase_add_loop_test(
		tcase, timeouts_a_byte_at_a_time_does_not_outlive_the_total, 0,
		n);
	tcase_add_loop_test(tcase, timeouts_hold_for_reads_beyond_the_buffer, 0,
			    n);
	tcase_add_loop_test(
		tcase,
		timeouts_a_client_that_never_pauses_does_not_outlive_the_total,
		0, n);
	tcase_add_loop_test(tcase, timeouts_end_a_write_that_nobody_reads, 0,
			    n);
	tcase_add_loop_test(
		tcase, timeouts_a_slow_reader_does_not_outlive_the_total, 0, n);
	tcase_add_loop_test(
		tcase, timeouts_a_fast_reader_does_not_outlive_the_total, 0, n);
	tcase_add_loop_test(tcase, timeouts_leave_the_connection_usable, 0, n);
	tcase_add_loop_test(tcase, timeouts_under_threading_cost_no_call, 0,
			    COSTS);
	tcase_add_test(tcase, timeouts_hold_through_interruptions);
	tcase_add_test(tcase, timeouts_of_the_total_end_writes_that_never_wait);
	tcase_add_test(tcase, timeouts_of_the_total_end_gathered_writes_too);
}

Suite *t_timeouts(void)
{
	Suite *suite = suite_create("t_timeouts");
	add_by_memory(suite);
	add_by_sockets(suite);
	return suite;
}
