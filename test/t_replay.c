/*
 * Replays: in memory, where an answer that differs is told and one that does
 * not is not, whatever the clock says; and by ss-replay, against servers that
 * run, of what real clients have said to others.
 */
#include "program.h"

#include <poll.h>
#include <signal.h>

#include "handlers.h"
#include "mixin/record_file.h"
#include "recordings.h"

Suite *t_replay(void);

static char path[100];

static void begin(void)
{
	snprintf(path, sizeof(path), "%s/r.ssr", scratch());
}

enum {
	OPEN = SS_RECORDED_OPEN,
	IN = SS_RECORDED_INPUT,
	OUT = SS_RECORDED_OUTPUT,
	IN_END = SS_RECORDED_INPUT_END,
	BROKEN = SS_RECORDED_BROKEN,
	LEFT_OUT = SS_RECORDED_LEFT_OUT,
};

static struct ss_diag why;

/* Of what is made up. */
static int replay_config(const struct ss_config *config)
{
	made_up_write(path);
	int r = ss_replay(path, config, &why);
	ck_assert_int_eq(why.code, r);
	ck_assert_msg((r == 0) == (why.text[0] == '\0'), "%d: %s", r, why.text);
	return r;
}

static int replay(const struct ss_handler *handler)
{
	struct ss_config config = { .handler = handler, .log_level = SS_NONE };
	return replay_config(&config);
}

static void same(const struct ss_handler *handler)
{
	int r = replay(handler);
	ck_assert_msg(r == 0, "%d: %s", r, why.text);
}

static void differs(const struct ss_handler *handler, const char *text)
{
	int r = replay(handler);
	ck_assert_msg(r == 1, "%d: %s", r, why.text);
	ck_assert_msg(strstr(why.text, text) != NULL, "\"%s\" lacks \"%s\"",
		      why.text, text);
}

/* ---- time -----------------------------------------------------------------*/

static int ask_name(struct ss_request *req)
{
	char name[64];
	ss_printf(req, "name?\n");
	ssize_t n = ss_read_line(req, name, sizeof(name));
	if (n == -ETIMEDOUT)
		ss_printf(req, "too late\n");
	else if (n > 0)
		ss_printf(req, "hello %s", name);
	return 0;
}

static const struct ss_handler asking[] = {
	{ .name = "asking",
	  .handle = ask_name,
	  .timeouts = { .io_ms = 30000 } },
	{ .name = "patient",
	  .handle = ask_name,
	  .timeouts = { .io_ms = 40000 } },
	{ .name = "impatient",
	  .handle = ask_name,
	  .timeouts = { .io_ms = 20000 } },
};

/* Half a minute takes no time; and it is not ten seconds more or less. */
START_TEST(time_outs_are_at_their_time)
{
	int64_t began = clock_ms();
	make_up();
	add_open(1);
	add_text(OUT, 1, "name?\n");
	made_up.at_ms = 30000;
	add_text(OUT, 1, "too late\n");
	add_end(1);
	same(&asking[0]);
	differs(&asking[1], "recorded \"too late\\n\", answered the end");
	same(&asking[2]);
	make_up();
	add_open(1);
	add_text(OUT, 1, "name?\n");
	made_up.at_ms = 25000;
	add_text(IN, 1, "you\n");
	add_text(OUT, 1, "hello you\n");
	add_end(1);
	same(&asking[0]);
	same(&asking[1]);
	differs(&asking[2], "output byte 6: recorded \"hello you\\n\", "
			    "answered \"too late\\n\"");
	ck_assert_int_lt(clock_ms() - began, 20000);
}
END_TEST

/* Of a hostile file, too. */
START_TEST(time_without_end_passes)
{
	make_up();
	add_open(1);
	made_up.at_ms = (uint64_t)INT64_MAX / 1000;
	add_text(IN, 1, "x");
	add_text(OUT, 1, "x");
	made_up.at_ms = 5;
	add_text(IN, 1, "y");
	add_text(OUT, 1, "y");
	same(&ss_echo_handler);
}
END_TEST

static int tell_sizes(struct ss_request *req)
{
	char buf[100];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n <= 0)
		return (int)n;
	ss_printf(req, "[%zd]", n);
	return SS_AGAIN;
}

static const struct ss_handler sizes = { .name = "sizes",
					 .handle = tell_sizes };

START_TEST(chunks_are_as_they_were)
{
	make_up();
	add_open(1);
	add_text(IN, 1, "ab");
	add_text(IN, 1, "cde");
	add_text(IN, 1, "f");
	add_text(OUT, 1, "[2][3][1]");
	add(IN_END, 0, 1, NULL, 0);
	add_end(1);
	same(&sizes);
}
END_TEST

/* ---- beside each other ----------------------------------------------------*/

static int take_number(struct ss_request *req)
{
	int *number = ss_server_user(ss_request_server(req));
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	if (n > 0)
		ss_printf(req, "%d ", ++*number);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler numbers = { .name = "numbers",
					   .handle = take_number };

START_TEST(clients_come_beside_each_other)
{
	int number = 0;
	struct ss_config config = { .handler = &numbers, .user = &number };
	make_up();
	add_open(1);
	add_open(2);
	add_text(IN, 2, "x");
	add_text(OUT, 2, "1 ");
	add_text(IN, 1, "x");
	add_text(OUT, 1, "2 ");
	add_open(3);
	add_text(IN, 3, "x");
	add_text(OUT, 3, "3 ");
	add_text(IN, 2, "x");
	add_text(OUT, 2, "4 ");
	add(IN_END, 0, 1, NULL, 0);
	add_end(1);
	ck_assert_int_eq(replay_config(&config), 0);
	number = 1;
	ck_assert_int_eq(replay_config(&config), 1);
	ck_assert_ptr_nonnull(strstr(why.text,
				     "connection #2, output byte 0: recorded "
				     "\"1 \", answered \"2 \""));
}
END_TEST

/* What the configuration says of models, places and recordings is left out. */
START_TEST(the_servers_own_configuration_does)
{
	static const struct ss_record_options elsewhere = {
		.path = "/nowhere/at/all"
	};
	static const struct ss_access_options access = { .deny = "192.0.2.2" };
	struct ss_config config = {
		.addresses = { "unix:/nowhere/at/all" },
		.mixins = { { &ss_record_mixin, &elsewhere },
			    { &ss_access_mixin, &access },
			    { &ss_prefork_mixin, NULL },
			    { &ss_threading_mixin, NULL } },
		.transport = &ss_unix_stream_server,
		.handler = &ss_whoami_handler,
		.log_level = SS_NONE,
	};
	make_up();
	add_text(OPEN, 1, "192.0.2.1:77");
	add_text(IN, 1, "WHOAMI\n");
	add_text(OUT, 1, "192.0.2.1 77\n");
	ck_assert_msg(replay_config(&config) == 0, "%s", why.text);
	/* Who is turned away has no answer. */
	add_text(OPEN, 2, "192.0.2.2:77");
	add_end(2);
	ck_assert_msg(replay_config(&config) == 0, "%s", why.text);
	add_text(OPEN, 3, "192.0.2.2:77");
	add_text(IN, 3, "WHOAMI\n");
	add_text(OUT, 3, "192.0.2.2 77\n");
	ck_assert_int_eq(replay_config(&config), 1);
}
END_TEST

/* ---- answers that differ --------------------------------------------------*/

static int say_more(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n > 0)
		ss_printf(req, "%s%s", line, line);
	return n > 0 ? SS_AGAIN : 0;
}

static int end_early(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n > 0)
		ss_write(req, line, (size_t)n);
	return 0;
}

static int say_for_ever(struct ss_request *req)
{
	static const char noise[1000] = "noise";
	ssize_t r;
	do
		r = ss_write(req, noise, sizeof(noise));
	while (r > 0);
	return (int)r;
}

static const struct ss_handler more = { .name = "more", .handle = say_more },
			       early = { .name = "early", .handle = end_early },
			       noisy = { .name = "noisy",
					 .handle = say_for_ever };

static void make_up_lines(void)
{
	make_up();
	add_open(7);
	add_text(IN, 7, "one\n");
	add_text(OUT, 7, "one\n");
	add_text(IN, 7, "two\n");
	add_text(OUT, 7, "two\n");
	add(IN_END, 0, 7, NULL, 0);
	add_end(7);
}

START_TEST(the_first_difference_is_told)
{
	make_up_lines();
	same(&ss_echo_handler);
	differs(&ss_upper_handler, "r.ssr: connection #7, output byte 0: "
				   "recorded \"one\\n\", answered \"ONE\\n\"");
	differs(&more, "output byte 4: recorded \"two\\n\", answered "
		       "\"one\\n\"");
	differs(&early, "output byte 4: recorded \"two\\n\", answered the end");
	differs(&ss_discard_handler,
		"output byte 0: recorded \"one\\n\", answered the end");
	differs(&noisy, "output byte 0");
	ck_assert_int_eq(ss_replay(path,
				   &(struct ss_config){ .handler = &early,
							.log_level = SS_NONE },
				   NULL),
			 1);
}
END_TEST

START_TEST(the_end_is_compared)
{
	/* The server's, which comes, or does not, or too soon. */
	make_up();
	add_open(7);
	add_text(IN, 7, "one\n");
	add_text(OUT, 7, "one\n");
	add_end(7);
	same(&early);
	differs(&ss_echo_handler, "connection #7: recorded the end, the server "
				  "goes on");
	/* In a file that breaks off it may come, or not. */
	make_up();
	add_open(7);
	add_text(IN, 7, "one\n");
	add_text(OUT, 7, "one\n");
	same(&early);
	same(&ss_echo_handler);
	same(&more);
	add_text(OUT, 7, "two\n");
	differs(&ss_echo_handler, "recorded \"two\\n\", answered the end");
	/* The client was gone. */
	make_up();
	add_open(7);
	add_text(IN, 7, "one\n");
	add_text(OUT, 7, "one\n");
	add(BROKEN, 0, 7, "\0\0\0\x68", 4);
	add_end(7);
	same(&ss_echo_handler);
	/* The server was stopped. */
	make_up();
	add_open(7);
	add_text(IN, 7, "one\n");
	add_text(OUT, 7, "one\n");
	add(SS_RECORDED_END, 1, 7, "\0\0\0\0", 4);
	same(&ss_echo_handler);
}
END_TEST

/* All that was recorded of it is wanted, and nothing behind that. */
START_TEST(what_was_left_out_is_not_missed)
{
	static const char why_not[17] = "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x9\1";
	make_up();
	add_open(7);
	add_text(IN, 7, "one\n");
	add_text(OUT, 7, "on");
	add(LEFT_OUT, 0, 7, why_not, sizeof(why_not));
	add_end(7);
	same(&ss_echo_handler);
	same(&more);
	differs(&ss_upper_handler, "output byte 0");
	/* Nor does one who never ends go on for ever. */
	make_up();
	add_open(7);
	add_text(IN, 7, "one\n");
	add_text(OUT, 7, "noise");
	same(&noisy);
}
END_TEST

START_TEST(redacted_bytes_are_the_same)
{
	make_up();
	add_open(7);
	/* "pass ####" of 12 bytes, of which the last 3 were cut. */
	add(IN, 1, 7,
	    "\0\0\0\x0c\0\0\0\1\0\0\0\5\0\0\0\4"
	    "pass ####",
	    25);
	add(OUT, 1, 7,
	    "\0\0\0\x0c\0\0\0\1\0\0\0\5\0\0\0\4"
	    "pass ????",
	    25);
	add_text(IN, 7, "\n");
	add_text(OUT, 7, "\n");
	same(&ss_echo_handler);
	differs(&ss_upper_handler, "output byte 0: recorded \"pass ????\", "
				   "answered \"PASS ####XXX\\n\"");
}
END_TEST

/* ---- datagrams ------------------------------------------------------------*/

static int two_replies(struct ss_request *req)
{
	ss_send_to(req, "a", 1, NULL);
	ss_send_to(req, "b", 1, NULL);
	return 0;
}

static const struct ss_handler twice = { .name = "twice",
					 .handle = two_replies };

START_TEST(each_reply_is_compared)
{
	make_up();
	add(OPEN, 1, 1, "192.0.2.1:9", 11);
	add_text(IN, 1, "q");
	add_text(OUT, 1, "a");
	add_text(OUT, 1, "b");
	add_end(1);
	add(OPEN, 1, 2, "192.0.2.1:9", 11);
	add_text(IN, 2, "");
	add_text(OUT, 2, "a");
	add_text(OUT, 2, "b");
	add_end(2);
	same(&twice);
	differs(&ss_echo_handler, "connection #1, reply 0: recorded \"a\", "
				  "answered \"q\"");
	differs(&ss_discard_handler, "reply 0: recorded \"a\", answered the "
				     "end");
	add(OPEN, 1, 3, "192.0.2.1:9", 11);
	add_text(IN, 3, "q");
	add_text(OUT, 3, "ab");
	add_end(3);
	differs(&twice, "connection #3, reply 0: recorded \"ab\", answered "
			"\"a\"");
}
END_TEST

/* ---- what cannot be replayed ----------------------------------------------*/

/* Until its server is at an end it lets others run, and has always to do. */
static int never_rest(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	while (!ss_stopping(req))
		ss_self(server)->wait(server, req, NULL, 0, 0);
	return 0;
}

static const struct ss_handler restless = { .name = "restless",
					    .handle = never_rest };

START_TEST(handlers_that_never_rest)
{
	make_up();
	add_open(1);
	add_text(IN, 1, "x");
	add_end(1);
	ck_assert_int_eq(replay(&restless), -ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(why.text, "r.ssr: the handler never comes "
					       "to rest"));
}
END_TEST

START_TEST(files_that_cannot_be_replayed)
{
	make_up_lines();
	add(OPEN, 1, 8, "-", 1);
	ck_assert_int_eq(replay(&ss_echo_handler), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why.text, "both streams and datagrams"));
	/* Damaged: what comes before counts. */
	make_up_lines();
	made_up.size--;
	ck_assert_int_eq(replay(&ss_echo_handler), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(why.text, "r.ssr: damaged at offset "));
	differs(&ss_upper_handler, "output byte 0");
	ck_assert_int_eq(
		ss_replay("/nowhere",
			  &(struct ss_config){ .handler = &ss_echo_handler },
			  &why),
		-ENOENT);
	ck_assert_str_eq(why.text, "/nowhere: No such file or directory");
	/* A file without connections is the same as any handler. */
	make_up();
	same(&ss_echo_handler);
}
END_TEST

static int nothing(struct ss_server *server, struct ss_request *req)
{
	(void)server, (void)req;
	return 1;
}

START_TEST(configurations_that_cannot_be)
{
	static struct ss_layer layers[SS_MIXINS_MAX];
	struct ss_config config = { .handler = NULL };
	struct {
		struct ss_config config;
		int newer;
	} newer = { { .handler = &ss_echo_handler }, 1 };
	make_up_lines();
	ck_assert_int_eq(replay_config(&config), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why.text, "needs a handler"));
	config.handler = &ss_echo_handler;
	for (int i = 0; i < SS_MIXINS_MAX - 1; i++) {
		layers[i].name = "x";
		layers[i].ops.verify_request = i % 2 ? nothing : NULL;
		config.mixins[i].layer = &layers[i];
	}
	ck_assert_int_eq(replay_config(&config), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why.text, "more than 14 mixins"));
	config.mixins[SS_MIXINS_MAX - 2].layer = NULL;
	ck_assert_msg(replay_config(&config) == 0, "%s", why.text);
	ck_assert_int_eq(
		ss_replay_sized(path, &newer.config, sizeof(newer), &why),
		-E2BIG);
	newer.newer = 0;
	ck_assert_int_eq(
		ss_replay_sized(path, &newer.config, sizeof(newer), &why), 0);
}
END_TEST

/* ---- ss-replay ------------------------------------------------------------*/

static struct ended ended;
static char url[SS_ADDRESS_TEXT];

static void start_server(struct program *program, const char *const argv[])
{
	*program = (struct program){ .out_to = NULL };
	program_start(program, argv);
	snprintf(url, sizeof(url), "%s", program_listening(program));
}

static void stop_server(struct program *program)
{
	program_stop(program, SIGTERM, &ended);
	ck_assert_int_eq(ended.status, 0);
}

/* One that says nothing before its end, which may take its time where much else
 * goes on.  Its exit status; what it said is in `ended`. */
static int run_to_end(const char *const argv[])
{
	struct program program = { .in_from = "/dev/null" };
	program_start(&program, argv);
	struct pollfd fd = { .fd = program.out, .events = POLLIN };
	poll(&fd, 1, 20 * WAIT_MS);
	program_wait(&program, &ended);
	return ended.status;
}

static void told(const char *text)
{
	ck_assert_msg(strstr(ended.out, text) != NULL, "\"%s\" lacks \"%s\"",
		      ended.out, text);
}

static void complained(const char *text)
{
	ck_assert_msg(strstr(ended.err, text) != NULL, "\"%s\" lacks \"%s\"",
		      ended.err, text);
}

static const char *port_of(const char *address)
{
	const char *colon = strrchr(address, ':');
	return colon ? colon + 1 : address;
}

static void talk_by_nc(const char *kind)
{
	if (!have("nc")) {
		printf("skipped in part: nc is not here\n");
		return;
	}
	const char *const *argv =
		strcmp(kind, "tcp") == 0
			? ARGV("nc", "-N", "127.0.0.1", port_of(url))
		: strcmp(kind, "udp") == 0
			? ARGV("nc", "-u", "-W", "1", "127.0.0.1", port_of(url))
			: ARGV("nc", "-N", "-U", url + strlen("unix:"));
	program_run(&ended, "from nc\nanother\n", argv);
	ck_assert_str_eq(ended.out, "from nc\nanother\n");
}

/* Asks again and again, on one connection. */
static const char script[] =
	"import socket, sys\n"
	"kind, place = sys.argv[1:]\n"
	"if kind == 'unix':\n"
	"    s = socket.socket(socket.AF_UNIX)\n"
	"    s.connect(place)\n"
	"else:\n"
	"    s = socket.socket(type=socket.SOCK_DGRAM if kind == 'udp'\n"
	"                      else socket.SOCK_STREAM)\n"
	"    s.connect(('127.0.0.1', int(place)))\n"
	"for text in b'one', b'two\\0\\xff', b'x' * 5000:\n"
	"    s.sendall(text)\n"
	"    got = b''\n"
	"    while len(got) < len(text):\n"
	"        got += s.recv(65536)\n"
	"    assert got == text\n";

static void talk_by_python(const char *kind)
{
	if (!have("python3")) {
		printf("skipped in part: python3 is not here\n");
		return;
	}
	const char *place = strcmp(kind, "unix") == 0 ? url + strlen("unix:")
						      : port_of(url);
	ck_assert_msg(run_to_end(ARGV("python3", "-c", script, kind, place)) ==
			      0,
		      "%s", ended.err);
}

static const char *const kinds[] = { "tcp", "udp", "unix" };

static const char *address_of(const char *kind)
{
	static char text[120];
	if (strcmp(kind, "unix") == 0)
		snprintf(text, sizeof(text), "unix:%s/sock", scratch());
	else
		snprintf(text, sizeof(text), "%s://127.0.0.1:0", kind);
	return text;
}

/* Of each model, against the next one; and against another handler. */
START_TEST(real_clients_are_replayed)
{
	const struct model *model = &models[_i / 3],
			   *next = &models[(_i / 3 + 1) % plain_count];
	const char *kind = kinds[_i % 3];
	struct program server;
	start_server(&server, ARGV(demo("echo_server"), "-m", model->name,
				   "--record", path, address_of(kind)));
	talk_by_nc(kind);
	talk_by_python(kind);
	stop_server(&server);
	start_server(&server, ARGV(demo("echo_server"), "-m", next->name,
				   address_of(kind)));
	ck_assert_msg(run_to_end(ARGV(demo("ss-replay"), path, url)) == 0,
		      "%s%s", ended.out, ended.err);
	ck_assert_str_eq(ended.out, "");
	ck_assert_str_eq(ended.err, "");
	stop_server(&server);
	struct ss_config config = { .handler = &ss_echo_handler };
	ck_assert_msg(ss_replay(path, &config, &why) == 0, "%s", why.text);
	start_server(&server, ARGV(demo("upper"), address_of(kind)));
	ck_assert_int_eq(run_to_end(ARGV(demo("ss-replay"), path, url)), 1);
	told(strcmp(kind, "udp") == 0 ? ", reply 0: recorded"
				      : ", output byte 0: recorded");
	stop_server(&server);
}
END_TEST

START_TEST(a_file_is_shown)
{
	static const char expected[] =
		"     0.000 #1 begin from -\n"
		"     0.000 #1 in 9\n"
		"  \"one\\n\"\n"
		"  \"two\\r\\n\"\n"
		"     0.250 #1 out 12\n"
		"  \"pass {????}\"\n"
		"  and 3 more, cut off\n"
		"     0.250 #2 begin from \\x1b[m\\\"\n"
		"     0.250 #2 in ends\n"
		"     0.250 #2 broken: Connection reset by peer\n"
		"     0.250 #1 left out from here on: 1 bytes in, 9 out: the "
		"file is full\n"
		"     0.250 #1 end, the server was stopping\n"
		"     0.250 #2 end\n";
	make_up();
	add_open(1);
	add_text(IN, 1, "one\ntwo\r\n");
	made_up.at_ms = 250;
	add(OUT, 1, 1,
	    "\0\0\0\x0c\0\0\0\1\0\0\0\5\0\0\0\4"
	    "pass ????",
	    25);
	add_text(OPEN, 2, "\033[m\"");
	add(IN_END, 0, 2, NULL, 0);
	add(BROKEN, 0, 2, "\0\0\0\x68", 4);
	add(LEFT_OUT, 0, 1, "\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\x9\2", 17);
	add(SS_RECORDED_END, 1, 1, "\0\0\0\0", 4);
	add_end(2);
	made_up_write(path);
	ck_assert_int_eq(run_to_end(ARGV(demo("ss-replay"), "--show", path)),
			 0);
	const char *line = strchr(ended.out, '\n');
	ck_assert_ptr_nonnull(line);
	ck_assert(strncmp(ended.out, "server x, ", 10) == 0);
	told(", 2 connections\n");
	ck_assert_str_eq(line + 1, expected);
	ck_assert_int_eq(run_to_end(ARGV(demo("ss-replay"), "--show", "--only",
					 "2", path)),
			 0);
	ck_assert_ptr_null(strstr(ended.out, "#1"));
	told("#2 broken");
	/* As far as it goes. */
	made_up.size--;
	made_up_write(path);
	ck_assert_int_eq(run_to_end(ARGV(demo("ss-replay"), "--show", path)),
			 2);
	told("#1 end");
	complained("r.ssr: damaged at offset ");
}
END_TEST

/* A server in a thread, for what is made up. */
static void serve(struct served *served, const struct model *model,
		  const struct ss_handler *handler)
{
	struct ss_config config = config_of(model, &transports[0], handler);
	config.log_level = SS_NONE;
	served_start(served, &config);
	made_up_write(path);
}

#define REPLAY(...) run_to_end(ARGV(demo("ss-replay"), __VA_ARGS__))

START_TEST(servers_are_told_from_the_recorded_one)
{
	static const struct {
		const struct ss_handler *handler;
		const char *text; /* NULL: the same */
	} cases[] = {
		{ &ss_echo_handler, NULL },
		{ &ss_upper_handler, "connection #7, output byte 0: recorded "
				     "\"one\\n\", answered \"ONE\\n\"\n" },
		{ &more, "output byte 4: recorded \"two\\n\", answered " },
		{ &early, "output byte 4: recorded \"two\\n\", answered the "
			  "end\n" },
		{ &noisy, "output byte 0" },
		{ &ss_discard_handler, "output byte 0: recorded \"one\\n\", "
				       "answered the end\n" },
	};
	struct served served;
	make_up_lines();
	serve(&served, &models[1], cases[_i].handler);
	int status = REPLAY("--wait", "500", path, served.url);
	ck_assert_msg(status == (cases[_i].text != NULL), "%d: %s%s", status,
		      ended.out, ended.err);
	if (cases[_i].text)
		told(cases[_i].text);
	served_stop(&served);
}
END_TEST
enum { SERVERS = 6 };

START_TEST(the_end_of_a_server_is_waited_for)
{
	struct served served;
	make_up();
	add_open(7);
	add_text(IN, 7, "one\n");
	add_text(OUT, 7, "one\n");
	add_end(7);
	serve(&served, &models[1], &early);
	ck_assert_int_eq(REPLAY(path, served.url), 0);
	served_stop(&served);
	serve(&served, &models[1], &ss_echo_handler);
	ck_assert_int_eq(REPLAY("--wait", "300", path, served.url), 1);
	told("#7, output byte 4: recorded the end, the server goes on\n");
	served_stop(&served);
}
END_TEST

/* One connection waits while the other speaks. */
START_TEST(connections_are_open_beside_each_other)
{
	struct served served;
	make_up();
	add_open(1);
	add_open(2);
	add_text(IN, 2, "x");
	add_text(OUT, 2, "x");
	add_text(IN, 1, "y");
	add_text(OUT, 1, "y");
	add_text(IN, 2, "z");
	add_text(OUT, 2, "z");
	add(IN_END, 0, 1, NULL, 0);
	add_end(1);
	add(IN_END, 0, 2, NULL, 0);
	add_end(2);
	serve(&served, &models[1 + 3 * _i], &ss_echo_handler);
	ck_assert_msg(REPLAY(path, served.url) == 0, "%s%s", ended.out,
		      ended.err);
	ck_assert_int_eq(REPLAY("--only", "2", path, served.url), 0);
	ck_assert_int_eq(REPLAY("--only", "3", path, served.url), 2);
	complained("it has no connection #3");
	served_stop(&served);
}
END_TEST

/* Whose replies come before they are waited for. */
START_TEST(datagrams_are_on_their_way_beside_each_other)
{
	struct ss_config config = config_of(&models[1], &transports[1], &twice);
	struct served served;
	make_up();
	for (uint64_t id = 1; id <= 3; id++) {
		add(OPEN, 1, id, "-", 1);
		add_text(IN, id, "q");
	}
	for (uint64_t id = 3; id >= 1; id--) {
		add_text(OUT, id, "a");
		add_text(OUT, id, "b");
		add_end(id);
	}
	made_up_write(path);
	served_start(&served, &config);
	ck_assert_msg(REPLAY(path, served.url) == 0, "%s%s", ended.out,
		      ended.err);
	served_stop(&served);
}
END_TEST

/* A minute, or a hundredth of that, or none. */
START_TEST(clients_speak_as_fast_as_they_are_told)
{
	struct served served;
	make_up();
	add_open(1);
	made_up.at_ms = 60000;
	add_text(IN, 1, "x");
	add_text(OUT, 1, "x");
	serve(&served, &models[1], &ss_echo_handler);
	int64_t began = clock_ms();
	ck_assert_int_eq(REPLAY("--speed", "100", path, served.url), 0);
	ck_assert_int_ge(clock_ms() - began, 590);
	began = clock_ms();
	ck_assert_int_eq(REPLAY(path, served.url), 0);
	ck_assert_int_lt(clock_ms() - began, 15000);
	served_stop(&served);
	make_up();
	add_open(1);
	made_up.at_ms = 300;
	add_text(IN, 1, "x");
	add_text(OUT, 1, "x");
	serve(&served, &models[1], &ss_echo_handler);
	began = clock_ms();
	ck_assert_int_eq(REPLAY("--speed", "1", path, served.url), 0);
	ck_assert_int_ge(clock_ms() - began, 290);
	served_stop(&served);
}
END_TEST

/* More than sockets hold, both ways at once. */
START_TEST(much_is_said_at_once)
{
	enum { PIECE = 60000, PIECES = 40 };
	static unsigned char file[RECORD_FILE_HEAD + 1000 +
				  2 * PIECES * (RECORD_HEAD + PIECE)];
	static char piece[PIECE];
	size_t used;
	struct served served;
	memset(piece, 'p', PIECE);
	make_up();
	add_open(1);
	memcpy(file, made_up.bytes, used = made_up.size);
	for (int i = 0; i < 2 * PIECES; i++) {
		make_up();
		size_t from = made_up.size;
		add(i < PIECES ? IN : OUT, 0, 1, piece, PIECE);
		memcpy(file + used, made_up.bytes + from, made_up.size - from);
		used += made_up.size - from;
	}
	serve(&served, &models[1], &ss_echo_handler);
	FILE *to = fopen(path, "w");
	ck_assert_ptr_nonnull(to);
	ck_assert_uint_eq(fwrite(file, 1, used, to), used);
	ck_assert_int_eq(fclose(to), 0);
	ck_assert_msg(REPLAY(path, served.url) == 0, "%s%s", ended.out,
		      ended.err);
	served_stop(&served);
}
END_TEST

START_TEST(servers_that_are_not_there_differ)
{
	const char *nobody = fresh_address(&transports[2]);
	make_up_lines();
	made_up_write(path);
	ck_assert_int_eq(REPLAY(path, nobody), 1);
	complained("connection #7: No such file or directory");
}
END_TEST

START_TEST(wrong_use_is_told)
{
	static const struct {
		const char *argv[6];
		const char *text;
	} wrong[] = {
		{ { NULL }, "which file, and which server?" },
		{ { "x" }, "which file, and which server?" },
		{ { "x", "127.0.0.1:1", "y" }, "which file, and which" },
		{ { "--show" }, "which file?" },
		{ { "--show", "x", "y" }, "which file?" },
		{ { "--speed", "fast", "x", "y" }, "--speed 'fast'" },
		{ { "--speed", "1.2.3", "x", "y" }, "--speed '1.2.3'" },
		{ { "--speed", "", "x", "y" }, "--speed ''" },
		{ { "--only", "-1", "x", "y" }, "--only '-1'" },
		{ { "--only", "1x", "x", "y" }, "--only '1x'" },
		{ { "--wait", "99999999", "x", "y" }, "--wait '99999999'" },
		{ { "--what" }, "unrecognized option" },
		{ { "/nowhere", "127.0.0.1:1" }, "/nowhere: No such file" },
		{ { "--show", "/dev/null" }, "/dev/null: this is no record" },
		{ { path, "nonsense" }, "nonsense" },
		{ { path, "udp://127.0.0.1:9" }, "streams were recorded" },
		{ { path, "fd:3" }, "nothing to connect to" },
	};
	const char *argv[8] = { demo("ss-replay") };
	make_up_lines();
	made_up_write(path);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		memcpy(argv + 1, wrong[i].argv, sizeof(wrong[i].argv));
		ck_assert_msg(run_to_end(argv) == 2, "%zu", i);
		ck_assert_str_eq(ended.out, "");
		complained(wrong[i].text);
	}
	ck_assert_int_eq(REPLAY("--help"), 0);
	told("usage: ss-replay");
	struct program program = { .out_to = "/dev/full" };
	program_start(&program, ARGV(demo("ss-replay"), "--show", path));
	program_wait(&program, &ended);
	ck_assert_int_eq(ended.status, 2);
	complained("standard output: No space left");
}
END_TEST

/* Of a recording that is damaged what comes before is played. */
START_TEST(damaged_files_are_played_as_far_as_they_go)
{
	struct served served;
	make_up_lines();
	made_up.size -= 3;
	serve(&served, &models[1], &ss_echo_handler);
	ck_assert_int_eq(REPLAY(path, served.url), 2);
	complained("r.ssr: damaged at offset ");
	served_stop(&served);
	serve(&served, &models[1], &ss_upper_handler);
	ck_assert_int_eq(REPLAY(path, served.url), 1);
	told("output byte 0");
	complained("damaged at offset ");
	served_stop(&served);
}
END_TEST

Suite *t_replay(void)
{
	Suite *suite = suite_create("replay");
	TCase *tcase = suite_case(suite, "memory", begin, NULL);
	tcase_add_test(tcase, time_outs_are_at_their_time);
	tcase_add_test(tcase, time_without_end_passes);
	tcase_add_test(tcase, chunks_are_as_they_were);
	tcase_add_test(tcase, clients_come_beside_each_other);
	tcase_add_test(tcase, the_servers_own_configuration_does);
	tcase_add_test(tcase, the_first_difference_is_told);
	tcase_add_test(tcase, the_end_is_compared);
	tcase_add_test(tcase, what_was_left_out_is_not_missed);
	tcase_add_test(tcase, redacted_bytes_are_the_same);
	tcase_add_test(tcase, each_reply_is_compared);
	tcase_add_test(tcase, handlers_that_never_rest);
	tcase_add_test(tcase, files_that_cannot_be_replayed);
	tcase_add_test(tcase, configurations_that_cannot_be);

	tcase = suite_case(suite, "ss-replay", begin, NULL);
	tcase_add_loop_test(tcase, real_clients_are_replayed, 0,
			    3 * plain_count);
	tcase_add_test(tcase, a_file_is_shown);
	tcase_add_loop_test(tcase, servers_are_told_from_the_recorded_one, 0,
			    SERVERS);
	tcase_add_test(tcase, the_end_of_a_server_is_waited_for);
	tcase_add_loop_test(tcase, connections_are_open_beside_each_other, 0,
			    2);
	tcase_add_test(tcase, datagrams_are_on_their_way_beside_each_other);
	tcase_add_test(tcase, clients_speak_as_fast_as_they_are_told);
	tcase_add_test(tcase, much_is_said_at_once);
	tcase_add_test(tcase, servers_that_are_not_there_differ);
	tcase_add_test(tcase, wrong_use_is_told);
	tcase_add_test(tcase, damaged_files_are_played_as_far_as_they_go);
	return suite;
}
