/*
 * The programs of demos/, run for real and talked to by our client and by
 * other people's; what they print, where, and with which status they end.
 */
#include "program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

Suite *t_programs(void);

static struct ended got;

enum { SILENCE_MS = 60 };

/* ---- the echo server ------------------------------------------------------*/

static const char *serve(struct program *server, const char *const argv[])
{
	program_start(server, argv);
	return program_listening(server);
}

#define ECHO_SERVER(...) ARGV(demo("echo_server"), __VA_ARGS__)

/* It says no more, and ends well. */
static void quit(struct program *server)
{
	program_stop(server, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_str_eq(got.out, "");
	ck_assert_int_eq(got.status, 0);
}

/* Whatever it told on standard error. */
static void quit_told(struct program *server)
{
	program_stop(server, SIGTERM, &got);
	ck_assert_str_eq(got.out, "");
	ck_assert_int_eq(got.status, 0);
}

/* One clean line there, with this text in it, and that status. */
static void complained(int status, const char *text)
{
	ck_assert_str_eq(got.out, "");
	ck_assert_msg(strstr(got.err, text) != NULL, "\"%s\" lacks \"%s\"",
		      got.err, text);
	const char *newline = strchr(got.err, '\n');
	ck_assert_msg(newline && !newline[1], "not one line: \"%s\"", got.err);
	ck_assert_msg(got.status == status, "status %d, not %d, after: %s",
		      got.status, status, got.err);
}

static void answered(const char *text)
{
	ck_assert_str_eq(got.err, "");
	ck_assert_str_eq(got.out, text);
	ck_assert_int_eq(got.status, 0);
}

static const struct model *model_of(int i)
{
	return &models[i / transport_count];
}

static const struct transport *transport_of(int i)
{
	return &transports[i % transport_count];
}

/* The line as a whole; returns the URL in it. */
static const char *check_line(struct program *server, const struct model *model,
			      const struct transport *transport,
			      const char *address)
{
	static char url[SS_ADDRESS_TEXT];
	char expected[PROGRAM_LINE];
	const char *line = program_line(server);
	int port = 0;
	snprintf(url, sizeof(url), "%s", address);
	char *colon = strrchr(url, ':');
	if (!strcmp(colon, ":0")) {
		size_t at = strlen("listening on ") + (size_t)(colon - url);
		ck_assert_uint_gt(strlen(line), at);
		sscanf(line + at, ":%d", &port);
		ck_assert_msg(port > 0 && port < 65536, "\"%s\"", line);
		snprintf(colon, 8, ":%d", port);
	}
	snprintf(expected, sizeof(expected), "listening on %s (%s)", url,
		 model_described(model, transport));
	ck_assert_str_eq(line, expected);
	return url;
}

static void echoes(const char *url)
{
	program_run(&got, "hello\n", ARGV(demo("echo_client"), url));
	answered("hello\n");
}

START_TEST(programs_echo_over_every_transport_under_every_model)
{
	static const char *const handlers[] = { "--timeout=0", "--loop" };
	const struct model *model = model_of(_i / 2);
	const struct transport *transport = transport_of(_i / 2);
	const char *address = fresh_address(transport);
	struct program server = { 0 };
	program_start(&server, ECHO_SERVER("-m", model->name, handlers[_i % 2],
					   address));
	const char *url = check_line(&server, model, transport, address);
	for (int i = 0; i < 3; i++)
		echoes(url);
	quit(&server);
	if (strncmp(url, "unix", 4) == 0)
		ck_assert_int_eq(access(strchr(url, '/'), F_OK), -1);
}
END_TEST

/* ---- other people's clients -----------------------------------------------*/

static const char *port_in(const char *url)
{
	return strrchr(url, ':') + 1;
}

static const char *host_in(const char *url)
{
	static char host[INET_ADDRSTRLEN];
	const char *at = strstr(url, "://") + 3;
	snprintf(host, sizeof(host), "%.*s", (int)strcspn(at, ":"), at);
	return host;
}

static const char *path_in(const char *url)
{
	return strchr(url, '/');
}

/* Where unixgram clients are to be answered. */
static const char *own_path(void)
{
	static char path[100];
	snprintf(path, sizeof(path), "%s/peer", scratch());
	return path;
}

static void by_hand(const char *const argv[])
{
	struct program peer = { 0 };
	program_start(&peer, argv);
	ck_assert_int_eq(write(peer.in, "hello\n", 6), 6);
	ck_assert_str_eq(program_line(&peer), "hello");
	program_wait(&peer, &got);
	answered("");
}

static void by_socat(const char *kind, const char *url)
{
	char to[300];
	if (!strcmp(kind, "tcp"))
		snprintf(to, sizeof(to), "TCP:%s:%s", host_in(url),
			 port_in(url));
	else if (!strcmp(kind, "udp"))
		snprintf(to, sizeof(to), "UDP:%s:%s", host_in(url),
			 port_in(url));
	else if (!strcmp(kind, "unix"))
		snprintf(to, sizeof(to), "UNIX-CONNECT:%s", path_in(url));
	else
		snprintf(to, sizeof(to), "UNIX-SENDTO:%s,bind=%s", path_in(url),
			 own_path());
	by_hand(ARGV("socat", "-t", "0.05", "-", to));
}

static void by_nc(const char *kind, const char *url)
{
	if (!strcmp(kind, "tcp"))
		by_hand(ARGV("nc", "-N", host_in(url), port_in(url)));
	else if (!strcmp(kind, "udp"))
		by_hand(ARGV("nc", "-u", "-W", "1", host_in(url),
			     port_in(url)));
	else if (!strcmp(kind, "unix"))
		by_hand(ARGV("nc", "-N", "-U", path_in(url)));
	else
		by_hand(ARGV("nc", "-u", "-W", "1", "-U", "-s", own_path(),
			     path_in(url)));
}

static void by_python(const char *kind, const char *url)
{
	static const char script[] =
		"import socket, sys\n"
		"kind, url = sys.argv[1:]\n"
		"local, dgram = 'unix' in kind, kind in ('udp', 'unixgram')\n"
		"s = socket.socket(\n"
		"    socket.AF_UNIX if local else socket.AF_INET,\n"
		"    socket.SOCK_DGRAM if dgram else socket.SOCK_STREAM)\n"
		"s.settimeout(5)\n"
		"if kind == 'unixgram':\n"
		"    s.bind('')\n"
		"if local:\n"
		"    s.connect(url.split(':', 1)[1])\n"
		"else:\n"
		"    host, port = url.split('://')[1].rsplit(':', 1)\n"
		"    s.connect((host, int(port)))\n"
		"for text in (b'hello', b'again'):\n"
		"    s.sendall(text)\n"
		"    print(s.recv(100).decode())\n"
		"if not dgram:\n"
		"    s.shutdown(socket.SHUT_WR)\n"
		"    assert s.recv(100) == b''\n";
	program_run(&got, "", ARGV("python3", "-c", script, kind, url));
	answered("hello\nagain\n");
}

static const struct peer {
	const char *program;
	void (*talk)(const char *kind, const char *url);
} peers[] = {
	{ "socat", by_socat },
	{ "nc", by_nc },
	{ "python3", by_python },
};

enum { PEERS = sizeof(peers) / sizeof(*peers) };

START_TEST(programs_other_peoples_clients_are_served)
{
	const struct peer *peer = &peers[_i % PEERS];
	const struct model *model = model_of(_i / PEERS);
	const struct transport *transport = transport_of(_i / PEERS);
	if (missing(peer->program))
		return;
	struct program server = { 0 };
	const char *url = serve(&server, ECHO_SERVER("-m", model->name,
						     fresh_address(transport)));
	peer->talk(transport->name, url);
	quit(&server);
}
END_TEST

/* ---- where it listens -----------------------------------------------------*/

START_TEST(programs_serve_several_addresses)
{
	const struct transport *transport = &transports[_i];
	char address[3][SS_ADDRESS_TEXT], url[3][SS_ADDRESS_TEXT];
	for (int i = 0; i < 3; i++)
		snprintf(address[i], sizeof(address[i]), "%s",
			 fresh_address(transport));
	struct program server = { 0 };
	program_start(&server, ECHO_SERVER("--model=threading", address[0],
					   address[1], address[2]));
	for (int i = 0; i < 3; i++)
		snprintf(
			url[i], sizeof(url[i]), "%s",
			check_line(&server, &models[1], transport, address[i]));
	for (int i = 2; i >= 0; i--)
		echoes(url[i]);
	ck_assert_str_ne(url[0], url[1]);
	quit(&server);
}
END_TEST

START_TEST(programs_know_ipv6_abstract_names_and_descriptors)
{
	struct program server = { 0 };
	char name[100];
	snprintf(name, sizeof(name), "unix:@ss-test-%ld", (long)getpid());
	echoes(serve(&server, ECHO_SERVER(name)));
	quit(&server);
	program_start(&server, ECHO_SERVER("[::1]:0"));
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s", program_listening(&server));
	ck_assert_int_eq(strncmp(url, "tcp://[::1]:", 12), 0);
	echoes(url);
	quit(&server);
}
END_TEST

START_TEST(programs_have_a_default_address)
{
	struct program server = { 0 };
	program_start(&server, ARGV(demo("echo_server")));
	char first[2] = "";
	ssize_t n = read(server.out, first, 1);
	program_stop(&server, SIGTERM, &got);
	if (n == 1) {
		char expected[PROGRAM_LINE];
		snprintf(expected, sizeof(expected),
			 "istening on tcp://127.0.0.1:7777 (%s)\n",
			 model_described(&models[0], &transports[0]));
		ck_assert_str_eq(got.out, expected);
		ck_assert_int_eq(got.status, 0);
	} else {
		printf("skipped in part: port 7777 is taken\n");
		complained(1, "echo_server: tcp://127.0.0.1:7777: bind: ");
	}
}
END_TEST

static mode_t mode_of(const char *path)
{
	struct stat st;
	ck_assert_int_eq(lstat(path, &st), 0);
	return st.st_mode & 07777;
}

START_TEST(programs_options_reach_the_sockets)
{
	struct program one = { 0 }, two = { 0 };
	const char *url =
		serve(&one, ECHO_SERVER("--mode", "0640", "--backlog", "5",
					fresh_address(&transports[2 + _i])));
	ck_assert_int_eq(mode_of(path_in(url)), 0640);
	quit(&one);
	url = serve(&one, ECHO_SERVER("--reuse-port",
				      fresh_address(&transports[_i])));
	char again[SS_ADDRESS_TEXT];
	snprintf(again, sizeof(again), "%s", url);
	serve(&two, ECHO_SERVER("--reuse-port", again));
	program_run(&got, "", ECHO_SERVER(again));
	complained(1, "Address already in use");
	quit(&one);
	quit(&two);
}
END_TEST

/* ---- stopping -------------------------------------------------------------*/

/* A client whose handler runs, and waits for its next word. */
static int silent_client(const char *url)
{
	int fd = dial(url);
	send_text(fd, "hi");
	expect_text(fd, "hi");
	return fd;
}

/* Its end, by end of file or by force. */
static void expect_gone(int fd)
{
	char byte;
	ssize_t n = recv_within(fd, &byte, 1, WAIT_MS);
	ck_assert_msg(n == 0 || n == -ECONNRESET, "%zd", n);
	close(fd);
}

START_TEST(programs_stop_when_told_to)
{
	static const int signals[] = { SIGTERM, SIGINT };
	const struct model *model = model_of(_i);
	const struct transport *transport = transport_of(_i);
	for (int i = 0; i < 2; i++) {
		struct program server = { 0 };
		const char *address = fresh_address(transport);
		serve(&server, ECHO_SERVER("-m", model->name, address));
		int64_t from = clock_ms();
		program_stop(&server, signals[i], &got);
		answered("");
		ck_assert_int_lt(clock_ms() - from, SOON_MS);
	}
}
END_TEST

/* A client between two messages holds nothing up. */
START_TEST(programs_stop_ends_idle_clients)
{
	struct program server = { 0 };
	int fd =
		silent_client(serve(&server, ECHO_SERVER("-m", models[_i].name,
							 "tcp://127.0.0.1:0")));
	int64_t from = clock_ms();
	quit(&server);
	ck_assert_int_lt(clock_ms() - from, SOON_MS);
	expect_gone(fd);
}
END_TEST

/* Who is in the middle of a conversation may end it; new clients find nobody.
 */
START_TEST(programs_stop_lets_conversations_end)
{
	struct program server = { .own_group = true };
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s",
		 serve(&server, ECHO_SERVER("-m", models[_i].name, "--loop",
					    fresh_address(&transports[2]))));
	int fd = silent_client(url);
	/* As the terminal's Ctrl-C: children get it too. */
	ck_assert_int_eq(kill(-server.pid, SIGINT), 0);
	for (int i = 0; i < 5; i++) {
		send_text(fd, "still");
		expect_text(fd, "still");
		pause_ms(10);
	}
	close(fd);
	program_wait(&server, &got);
	answered("");
	ck_assert_int_eq(try_dial(url), -ENOENT);
}
END_TEST

START_TEST(programs_stop_drains_no_longer_than_allowed)
{
	struct program server = { 0 };
	int fd = silent_client(serve(
		&server, ECHO_SERVER("-m", models[_i].name, "--loop", "--drain",
				     "0.25", "tcp://127.0.0.1:0")));
	int64_t from = clock_ms();
	program_stop(&server, SIGTERM, &got);
	int64_t took = clock_ms() - from;
	ck_assert_msg(took >= 250 && took < SOON_MS, "%d ms", (int)took);
	ck_assert_int_eq(got.status, 0);
	expect_gone(fd);
}
END_TEST

START_TEST(programs_stop_does_not_wait_for_a_drain_of_zero)
{
	struct program server = { 0 };
	int fd = silent_client(serve(
		&server, ECHO_SERVER("-m", models[_i].name, "--loop", "--drain",
				     "0", "tcp://127.0.0.1:0")));
	int64_t from = clock_ms();
	program_stop(&server, SIGTERM, &got);
	ck_assert_int_lt(clock_ms() - from, SOON_MS);
	ck_assert_int_eq(got.status, 0);
	expect_gone(fd);
}
END_TEST

/* In the midst of the drain; sync has no word for when that begins. */
START_TEST(programs_stop_at_once_at_the_second_signal)
{
	struct program server = { 0 };
	int fd = silent_client(serve(
		&server, ECHO_SERVER("-m", models[_i].name, "--loop", "--drain",
				     "60", "--trace", "tcp://127.0.0.1:0")));
	int64_t from = clock_ms();
	kill(server.pid, SIGTERM);
	if (!model_sync(&models[_i]))
		program_tells(&server, "listener_close");
	program_stop(&server, SIGINT, &got);
	ck_assert_int_lt(clock_ms() - from, SOON_MS);
	ck_assert_int_eq(got.status, 0);
	expect_gone(fd);
}
END_TEST

/* Both before the loop, or the drain, has seen the first. */
START_TEST(programs_stop_at_once_at_two_signals)
{
	for (int round = 0; round < rounds(10); round++) {
		struct program server = { 0 };
		int fd = silent_client(
			serve(&server, ECHO_SERVER("-m", models[_i].name,
						   "--loop", "--drain", "60",
						   "tcp://127.0.0.1:0")));
		kill(server.pid, SIGTERM);
		program_stop(&server, SIGINT, &got);
		ck_assert_int_eq(got.status, 0);
		expect_gone(fd);
	}
}
END_TEST

START_TEST(programs_once_serve_one_request)
{
	if (model_supervised(model_of(_i)))
		return;
	const struct model *model = model_of(_i);
	const struct transport *transport = transport_of(_i);
	struct program server = { 0 };
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s",
		 serve(&server, ECHO_SERVER("-m", model->name, "--once",
					    fresh_address(transport))));
	echoes(url);
	program_wait(&server, &got);
	answered("");
	if (transport->layer->flags & SS_LAYER_UNIX)
		ck_assert_int_eq(try_dial(url), -ENOENT);
	serve(&server, ECHO_SERVER("-m", model->name, "--once",
				   fresh_address(transport)));
	quit(&server);
}
END_TEST

/* ---- words ----------------------------------------------------------------*/

START_TEST(programs_show_version_and_help)
{
	static const char *const options[] = {
		"model",       "loop",		"once",	       "timeout",
		"idle",	       "total",		"drain",       "full",
		"max-active",  "backlog",	"verbose",     "mode",
		"log",	       "max-packet",	"reuse-port",  "trace",
		"version",     "help",		"sync",	       "threading",
		"forking",     "ADDRESS",	"allow",       "deny",
		"per-source",  "rate",		"source-rate", "proxy",
		"proxy-trust", "proxy-timeout", "whoami",
	};
	static const char *const asked[] = { "--help", "-h" };
	for (int i = 0; i < 2; i++) {
		program_run(&got, "", ECHO_SERVER(asked[i]));
		ck_assert_int_eq(got.status, 0);
		ck_assert_str_eq(got.err, "");
		for (size_t k = 0; k < sizeof(options) / sizeof(*options); k++)
			ck_assert_msg(strstr(got.out, options[k]) != NULL,
				      "--help lacks %s", options[k]);
		program_run(&got, "", ARGV(demo("echo_client"), asked[i]));
		ck_assert_int_eq(got.status, 0);
		ck_assert_ptr_nonnull(strstr(got.out, "--raw"));
		ck_assert_ptr_nonnull(strstr(got.out, "--timeout"));
	}
	program_run(&got, "", ECHO_SERVER("--version"));
	answered("echo_server " SS_VERSION "\n");
	program_run(&got, "", ECHO_SERVER("-V"));
	answered("echo_server " SS_VERSION "\n");
	program_run(&got, "", ARGV(demo("echo_client"), "--version"));
	answered("echo_client " SS_VERSION "\n");
}
END_TEST

static const struct wrong {
	const char *argument[3];
	const char *text; /* in what it says */
} wrongs[] = {
	{ { "-m", "nonsense" }, "echo_server: unknown model 'nonsense'" },
	{ { "-m", "" }, "unknown model ''; there are: sync, threading" },
	{ { "-m", "threading," }, "unknown model ''" },
	{ { "-m", "Threading" }, "unknown model 'Threading'" },
	{ { "-m", "threading,forking" }, "threading and forking both run" },
	{ { "-m", "forking,forking" }, "layer forking is named twice" },
	{ { "-m" }, "requires an argument" },
	{ { "--frob" }, "unrecognized option" },
	{ { "-z" }, " option" },
	{ { "--once=1" }, " an argument" },
	{ { "--backlog", "80x" }, "--backlog '80x': expected a whole number" },
	{ { "--backlog", "" }, "--backlog '': expected a whole number" },
	{ { "--backlog", "0" }, "--backlog '0': expected" },
	{ { "--backlog", "-1" }, "--backlog '-1': expected" },
	{ { "--backlog", " 1" }, "--backlog ' 1': expected" },
	{ { "--backlog", "0x10" }, "--backlog '0x10': expected" },
	{ { "--backlog", "99999999999999999999" }, "expected" },
	{ { "--max-active", "many" }, "--max-active 'many': expected" },
	{ { "--max-packet", "0" }, "--max-packet '0': expected" },
	{ { "--max-packet", "70000", "udp://127.0.0.1:0" },
	  "--max-packet '70000': expected a whole number from 1 to 65535" },
	{ { "--idle", "abc" }, "--idle 'abc': expected seconds" },
	{ { "--idle", "" }, "--idle '': expected seconds" },
	{ { "--timeout", "-1" }, "--timeout '-1': expected seconds" },
	{ { "--timeout", "1e3" }, "--timeout '1e3': expected seconds" },
	{ { "--total", "0x10" }, "--total '0x10': expected seconds" },
	{ { "--total", "inf" }, "--total 'inf': expected seconds" },
	{ { "--drain", "1.2.3" }, "--drain '1.2.3': expected seconds" },
	{ { "--drain", "99999999999" }, "--drain '99999999999': expected" },
	{ { "--drain", "1s" }, "--drain '1s': expected seconds" },
	{ { "--full", "often" }, "expected one of wait queue refuse" },
	{ { "--log", "loud" }, "expected one of error warning info debug" },
	{ { "--mode", "0888", "unix:/x" }, "--mode '0888': expected octal" },
	{ { "--mode", "", "unix:/x" }, "--mode '': expected octal" },
	{ { "--mode", "17777", "unix:/x" }, "--mode '17777': expected octal" },
	{ { "--mode", "0600" }, "only Unix sockets have them" },
	{ { "--allow", "10.0.0.1/8" },
	  "access: allow: \"10.0.0.1/8\": bits are set beyond" },
	{ { "--deny", "local" }, "access: deny: \"local\": not an address" },
	{ { "--proxy", "often" }, "expected one of required optional" },
	{ { "--proxy-trust", "::1" }, "--proxy-trust is for --proxy" },
	{ { "--proxy-timeout", "soon" }, "expected seconds" },
	{ { "--rate", "0" }, "--rate '0': expected a whole number" },
	{ { "--source-rate", "x" }, "--source-rate 'x': expected" },
	{ { "--per-source", "-1" }, "--per-source '-1': expected" },
	{ { "--proxy", "required" }, "proxy: no balancer is trusted" },
	{ { "--reuse-port", "unix:/x" }, "Unix sockets have no ports" },
	{ { "" }, "\"\"" },
	{ { "127.0.0.1" }, "127.0.0.1: no port" },
	{ { "127.0.0.1:" }, "127.0.0.1:: port \"\" is not in 0..65535" },
	{ { "127.0.0.1:80x" }, "port \"80x\" is not in 0..65535" },
	{ { "127.0.0.1:70000" }, "port \"70000\" is not in 0..65535" },
	{ { "127.0.0.1:-1" }, "port \"-1\" is not in 0..65535" },
	{ { "256.0.0.1:0" }, "\"256.0.0.1\" is not an IPv4 address" },
	{ { "::1:80" }, "more than one \":\"" },
	{ { "[::1:80" }, "\"[\" has no \"]\"" },
	{ { "http://127.0.0.1:80" }, "\"http\" is not a known scheme" },
	{ { "tcp:127.0.0.1:80" }, "\"tcp://\" is expected" },
	{ { "unix:" }, "the path is empty" },
	{ { "fd:x" }, "descriptor \"x\"" },
	{ { "fd:99" }, "fd:99" },
	{ { "fd:0" }, "fd:0" },
	{ { "tcp://127.0.0.1:0", "udp://127.0.0.1:0" },
	  "a tcp address is expected, not udp" },
};

enum { WRONGS = sizeof(wrongs) / sizeof(*wrongs) };

START_TEST(programs_refuse_wrong_use)
{
	for (int i = _i; i < WRONGS; i += 4) {
		const char *const *a = wrongs[i].argument;
		program_run(&got, "", ECHO_SERVER(a[0], a[1], a[2]));
		complained(2, wrongs[i].text);
	}
	char path[SS_ADDRESS_TEXT];
	snprintf(path, sizeof(path), "unix:%s/x", scratch());
	program_run(&got, "", ECHO_SERVER(path, "127.0.0.1:0"));
	complained(2, "127.0.0.1:0");
}
END_TEST

START_TEST(programs_serve_whom_they_are_told_to)
{
	struct program server = { 0 };
	int fd = dial(
		serve(&server, ECHO_SERVER("-m", models[_i].name, "--deny",
					   "127.0.0.0/8,10.0.0.0/8", "--allow",
					   "0.0.0.0/0", "tcp://127.0.0.1:0")));
	expect_gone(fd);
	quit(&server);
	echoes(serve(&server,
		     ECHO_SERVER("-m", models[_i].name, "--deny", "10.0.0.0/8",
				 "--allow", "127.0.0.1", "127.0.0.1:0")));
	quit(&server);
}
END_TEST

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	ck_assert_int_eq(fclose(file), 0);
}

static const char *haproxy(void)
{
	if (have("haproxy"))
		return "haproxy";
	return access("/usr/sbin/haproxy", X_OK) == 0 ? "/usr/sbin/haproxy"
						      : NULL;
}

/* A listener that the balancer inherits, so that clients need not wait for it;
 * close-on-exec is off. */
static int open_front(char url[SS_ADDRESS_TEXT])
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, len), 0);
	ck_assert_int_eq(listen(fd, 16), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	snprintf(url, SS_ADDRESS_TEXT, "tcp://127.0.0.1:%d",
		 ntohs(at.sin_port));
	return fd;
}

static void balance(struct program *balancer, int front, const char *back,
		    const char *options)
{
	char path[100], text[1000];
	snprintf(path, sizeof(path), "%s/haproxy.cfg", scratch());
	snprintf(text, sizeof(text),
		 "defaults\n mode tcp\n timeout connect 10s\n"
		 " timeout client 10s\n timeout server 10s\n"
		 "listen echo\n unique-id-format client-%%ci\n"
		 " bind fd@%d\n server echo %s %s\n",
		 front, back, options);
	write_file(path, text);
	program_start(balancer, ARGV(haproxy(), "-q", "-db", "-f", path));
}

static const char *const balancings[] = {
	"send-proxy",
	"send-proxy-v2",
	"send-proxy-v2 proxy-v2-options crc32c,unique-id",
};
enum { BALANCINGS = sizeof(balancings) / sizeof(*balancings) };

START_TEST(programs_know_clients_behind_haproxy)
{
	if (!haproxy()) {
		printf("skipped: haproxy is not here\n");
		return;
	}
	const struct model *model = &models[_i / BALANCINGS];
	struct program server = { 0 }, balancer = { 0 };
	char front[SS_ADDRESS_TEXT], expected[64];
	const char *when = _i % 2 ? "required" : "optional";
	const char *back =
		serve(&server, ECHO_SERVER("-m", model->name, "--whoami",
					   "--proxy", when, "--proxy-trust",
					   "127.0.0.1", "tcp://127.0.0.1:0"));
	int listener = open_front(front);
	balance(&balancer, listener, back + strlen("tcp://"),
		balancings[_i % BALANCINGS]);
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in at;
		socklen_t len = sizeof(at);
		int fd = dial(front);
		ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &len),
				 0);
		snprintf(expected, sizeof(expected), "127.0.0.1 %d\n",
			 ntohs(at.sin_port));
		send_text(fd, "WHOAMI\n");
		expect_text(fd, expected);
		send_text(fd, "something else\n");
		expect_text(fd, "something else\n");
		close(fd);
	}
	close(listener);
	program_stop(&balancer, SIGTERM, &got);
	quit(&server);
}
END_TEST

static bool told_to_come_later(const char *url)
{
	char text[64] = "";
	int fd = dial(url);
	ssize_t n = recv_within(fd, text, sizeof(text) - 1, SILENCE_MS);
	close(fd);
	return n > 0 && !strcmp(text, "too many, try again later\n");
}

START_TEST(programs_serve_as_often_as_they_are_told_to)
{
	struct program server = { 0 };
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s",
		 serve(&server,
		       ECHO_SERVER("-m", models[_i].name, "--source-rate", "1",
				   "--rate", "100", "--per-source", "9",
				   "tcp://127.0.0.1:0")));
	echoes(url);
	eventually(told_to_come_later(url));
	quit(&server);
}
END_TEST

START_TEST(programs_take_sixteen_addresses)
{
	const char *argv[19] = { demo("echo_server") };
	for (int i = 1; i <= 17; i++)
		argv[i] = "127.0.0.1:0";
	program_run(&got, "", argv);
	complained(2, "17 addresses, at most 16");
	argv[17] = NULL;
	struct program server = { 0 };
	program_start(&server, argv);
	for (int i = 0; i < 16; i++)
		echoes(program_listening(&server));
	quit(&server);
}
END_TEST

/* ---- where it cannot ------------------------------------------------------*/

/* The whole line: the program, the address as the user wrote it, the reason. */
static void cannot(const char *address, const char *reason)
{
	char line[PROGRAM_LINE];
	program_run(&got, "", ECHO_SERVER(address));
	snprintf(line, sizeof(line), "echo_server: %s: %s\n", address, reason);
	ck_assert_str_eq(got.err, line);
	complained(1, address);
}

START_TEST(programs_name_the_address_in_use)
{
	const struct transport *transport = &transports[_i];
	struct program server = { 0 };
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s",
		 serve(&server, ECHO_SERVER(fresh_address(transport))));
	if (transport->layer->flags & SS_LAYER_UNIX)
		cannot(url, "another server lives there");
	else
		cannot(url, "bind: Address already in use");
	echoes(url);
	quit(&server);
	cannot(_i == 0 ? "tcp://192.0.2.1:80" : "udp://192.0.2.1:80",
	       "bind: Cannot assign requested address");
}
END_TEST

static void file_holds(const char *path, const char *text)
{
	char line[100] = "";
	FILE *file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), file));
	fclose(file);
	ck_assert_str_eq(line, text);
}

START_TEST(programs_name_the_path_and_the_reason)
{
	const char *scheme = transports[2 + _i].name;
	char address[300], path[100];
	snprintf(address, sizeof(address), "%s:/nonexistent/x", scheme);
	cannot(address, "lock: No such file or directory");
	snprintf(address, sizeof(address), "%s:/%0200d", scheme, 1);
	program_run(&got, "", ECHO_SERVER(address));
	complained(1, "201 bytes, and sockaddr_un takes 107");
	snprintf(path, sizeof(path), "%s/file", scratch());
	snprintf(address, sizeof(address), "%s:%s", scheme, path);
	write_file(path, "mine");
	cannot(address, "a file that is no socket is in the way");
	file_holds(path, "mine");
	/* Not scratch() itself: the lock lies beside the path. */
	snprintf(path, sizeof(path), "%s/directory", scratch());
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(address, sizeof(address), "%s:%s", scheme, path);
	cannot(address, "a file that is no socket is in the way");
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

/* What it had opened before is gone. */
START_TEST(programs_leave_nothing_when_the_second_address_fails)
{
	char address[100];
	snprintf(address, sizeof(address), "%s", fresh_address(&transports[2]));
	program_run(&got, "", ECHO_SERVER(address, "unix:/nonexistent/x"));
	complained(1, "unix:/nonexistent/x: ");
	ck_assert_int_eq(access(path_in(address), F_OK), -1);
}
END_TEST

START_TEST(programs_say_when_standard_output_fails)
{
	static const struct {
		const char *to, *reason;
	} outputs[] = {
		{ "/dev/full", "standard output: No space left on device" },
		{ TO_CLOSED, "standard output: Bad file descriptor" },
		{ TO_NOBODY, "standard output: Broken pipe" },
	};
	static const char *const arguments[] = { "127.0.0.1:0", "--help",
						 "--version" };
	for (int i = 0; i < 9; i++) {
		/* There SIGPIPE may end it, as it does others. */
		if (i / 3 == 2 && i % 3 != 0)
			continue;
		struct program server = { .out_to = outputs[i / 3].to };
		program_start(&server, ECHO_SERVER(arguments[i % 3]));
		program_wait(&server, &got);
		complained(1, outputs[i / 3].reason);
	}
}
END_TEST

/* ---- what it tells --------------------------------------------------------*/

START_TEST(programs_verbose_tells_of_each_request)
{
	const struct model *model = &models[_i];
	struct program server = { 0 };
	int fd = dial(serve(&server, ECHO_SERVER("-v", "-m", model->name,
						 "tcp://127.0.0.1:0")));
	struct ss_address own = { .len = sizeof(own.u) };
	ck_assert_int_eq(getsockname(fd, &own.u.sa, &own.len), 0);
	char expected[200];
	snprintf(expected, sizeof(expected),
		 "socketserver: info: #1 request from 127.0.0.1:%d",
		 ss_address_port(&own));
	ck_assert_str_eq(program_error(&server), expected);
	send_text(fd, "hello");
	expect_text(fd, "hello");
	shutdown(fd, SHUT_WR);
	expect_end(fd);
	ck_assert_str_eq(program_error(&server),
			 "socketserver: info: #1 5 bytes in, 5 bytes out");
	ck_assert_str_eq(program_error(&server),
			 "socketserver: info: #1 end, status 0");
	close(fd);
	quit(&server);
}
END_TEST

START_TEST(programs_tell_as_much_as_asked)
{
	struct program server = { 0 };
	int fd = dial(serve(&server, ECHO_SERVER("--trace", "--model=threading",
						 "tcp://127.0.0.1:0")));
	program_tells(&server, "socketserver: debug: #1 setup");
	program_tells(&server, "socketserver: debug: #1 handle");
	close(fd);
	program_tells(&server, "socketserver: debug: #1 end_request");
	quit_told(&server);
	ck_assert_ptr_nonnull(strstr(got.err, "debug: server_close\n"));
	/* A client that is cut off is worth a line only to who asks for it. */
	fd = dial(serve(&server, ECHO_SERVER("--idle", "0.02", "--log", "info",
					     "tcp://127.0.0.1:0")));
	program_tells(&server, "handle: Connection timed out");
	close(fd);
	quit(&server);
	fd = dial(serve(&server,
			ECHO_SERVER("--idle", "0.02", "tcp://127.0.0.1:0")));
	expect_gone(fd);
	quit(&server);
}
END_TEST

/* It goes on where standard error, or input, is of no use. */
START_TEST(programs_serve_without_standard_error)
{
	static const char *const places[] = { TO_CLOSED, TO_NOBODY, TO_FULL,
					      "/dev/full" };
	const struct model *model = &models[_i];
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		struct program server = { .err_to = places[i],
					  .in_from = TO_CLOSED };
		char url[SS_ADDRESS_TEXT];
		snprintf(url, sizeof(url), "%s",
			 serve(&server,
			       ECHO_SERVER("--trace", "-v", "-m", model->name,
					   "tcp://127.0.0.1:0")));
		for (int k = 0; k < 5; k++)
			echo_once(url, "hello");
		quit(&server);
	}
}
END_TEST

/* ---- limits ---------------------------------------------------------------*/

START_TEST(programs_cut_datagrams_at_max_packet)
{
	struct program server = { 0 };
	const struct transport *transport = &transports[_i ? 3 : 1];
	int fd = dial(serve(&server,
			    ECHO_SERVER("--max-packet", "4", "-m", "threading",
					fresh_address(transport))));
	char reply[16];
	send_text(fd, "abcdefgh");
	ck_assert_int_eq(recv_within(fd, reply, sizeof(reply), WAIT_MS), 4);
	ck_assert_mem_eq(reply, "abcd", 4);
	send_text(fd, "ok");
	expect_text(fd, "ok");
	close(fd);
	quit(&server);
}
END_TEST

static void expect_silence(int fd)
{
	char byte;
	ck_assert_int_eq(recv_within(fd, &byte, 1, SILENCE_MS), -EAGAIN);
}

/* Threading and forking; "wait" is the default. */
START_TEST(programs_full_keeps_the_next_client_waiting)
{
	if (model_supervised(&models[1 + _i / 3]))
		return; /* each worker has its own */
	static const char *const policies[] = { "--full=wait", "--loop",
						"--full=queue" };
	const char *model = models[1 + _i / 3].name;
	const char *policy = policies[_i % 3];
	struct program server = { 0 };
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s",
		 serve(&server, ECHO_SERVER("-v", "-m", model, "--max-active",
					    "1", policy, "tcp://127.0.0.1:0")));
	int first = silent_client(url), second = dial(url);
	program_tells(&server, "#1 request from");
	send_text(second, "me too");
	expect_silence(second);
	if (_i % 3 == 2) /* the server has it, not the kernel */
		program_tells(&server, "#2 request from");
	close(first);
	expect_text(second, "me too");
	program_tells(&server, "#1 end");
	if (_i % 3 != 2)
		program_tells(&server, "#2 request from");
	close(second);
	quit_told(&server);
}
END_TEST

START_TEST(programs_full_refuses_the_next_client)
{
	if (model_supervised(&models[1 + _i]))
		return; /* the same */
	const char *model = models[1 + _i].name;
	struct program server = { 0 };
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s",
		 serve(&server,
		       ECHO_SERVER("-v", "-m", model, "--max-active=1",
				   "--full=refuse", "tcp://127.0.0.1:0")));
	int first = silent_client(url);
	for (int i = 0; i < 3; i++) {
		int next = dial(url);
		expect_text(next, "busy, try again later\n");
		expect_end(next);
		close(next);
	}
	close(first);
	program_tells(&server, "#1 end");
	close(silent_client(url));
	quit_told(&server);
}
END_TEST

/* It is cut off after so long, and no sooner. */
static void cut_off_between(int fd, int64_t from, int least, int most)
{
	expect_gone(fd);
	int took = (int)(clock_ms() - from);
	ck_assert_msg(took >= least && took <= most, "after %d ms, not %d..%d",
		      took, least, most);
}

START_TEST(programs_end_silent_clients)
{
	static const char *const options[] = { "--idle=0.1", "--timeout=0.1",
					       "--total=0.1" };
	const char *model = models[_i / 3].name;
	struct program server = { 0 };
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s",
		 serve(&server, ECHO_SERVER(options[_i % 3], "-m", model,
					    "tcp://127.0.0.1:0")));
	int64_t from = clock_ms();
	int fd = silent_client(url);
	cut_off_between(fd, from, 95, SOON_MS);
	/* Who never says a word is cut off too. */
	from = clock_ms();
	cut_off_between(dial(url), from, 95, SOON_MS);
	quit(&server);
}
END_TEST

/* A word now and then saves from the idle time-out, not from the total. */
START_TEST(programs_end_slow_clients_at_the_total)
{
	struct program server = { 0 };
	const char *url =
		serve(&server,
		      ECHO_SERVER("--idle=0.5", "--timeout=0.5", "--total=0.9",
				  "-m", models[_i].name, "tcp://127.0.0.1:0"));
	int64_t from = clock_ms();
	int fd = dial(url);
	char byte = 'x';
	ssize_t n;
	do {
		send(fd, &byte, 1, MSG_NOSIGNAL);
		n = recv_within(fd, &byte, 1, WAIT_MS);
		pause_ms(n == 1 ? 20 : 0);
	} while (n == 1 && clock_ms() - from < WAIT_MS);
	cut_off_between(fd, from, 890, SOON_MS);
	quit(&server);
}
END_TEST

/* ---- the client -----------------------------------------------------------*/

#define ECHO_CLIENT(...) ARGV(demo("echo_client"), __VA_ARGS__)

START_TEST(client_carries_much_through_a_pipe)
{
	enum { MUCH = 1 << 20 };
	char *bytes = ss_shared_alloc(MUCH);
	ck_assert_ptr_nonnull(bytes);
	for (int i = 0; i < MUCH; i++)
		bytes[i] = (char)(i * 7 + i / 251);
	struct program server = { 0 }, client = { 0 };
	const char *url = serve(&server, ECHO_SERVER("-m", models[_i].name,
						     "tcp://127.0.0.1:0"));
	program_start(&client, ECHO_CLIENT("--raw", url));
	program_feed(&client, bytes, MUCH, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
	ck_assert_uint_eq(got.out_size, MUCH);
	ck_assert_int_eq(memcmp(got.out, bytes, MUCH), 0);
	quit(&server);
}
END_TEST

static const char odd[] = "a\\b\r\t\0\1\33[1m\177\200\377z\n";
static const char shown[] = "a\\\\b\\r\\t\\x00\\x01\\x1b[1m\\x7f\\x80\\xffz\n";

static void feed_odd(const char *option, const char *url)
{
	struct program client = { 0 };
	program_start(&client, ECHO_CLIENT(option, url));
	program_feed(&client, odd, sizeof(odd) - 1, &got);
}

START_TEST(client_shows_every_byte)
{
	struct program server = { 0 };
	const char *url =
		serve(&server, ECHO_SERVER(fresh_address(&transports[_i])));
	feed_odd("--timeout=5", url);
	answered(shown);
	feed_odd("-r", url);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
	ck_assert_uint_eq(got.out_size, sizeof(odd) - 1);
	ck_assert_mem_eq(got.out, odd, sizeof(odd) - 1);
	/* A last line need not end in a newline, and empty ones count. */
	program_run(&got, "one\n\ntwo", ECHO_CLIENT(url));
	answered(transports[_i].stream ? "one\n\ntwo" : "one\n\ntwo\n");
	quit(&server);
}
END_TEST

/* A socket of ours that is there and says nothing. */
static int bound(int type, char *url, size_t size)
{
	struct ss_address address = { .len = sizeof(address.u.in) };
	address.u.in.sin_family = AF_INET;
	address.u.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &address.u.sa, address.len), 0);
	ck_assert_int_eq(getsockname(fd, &address.u.sa, &address.len), 0);
	ss_url_format(type == SOCK_DGRAM ? SS_SCHEME_UDP : SS_SCHEME_TCP,
		      &address, url, size);
	return fd;
}

/* The whole line: the client, the address as the user wrote it, the reason. */
static void client_failed(const char *url, const char *reason)
{
	char line[PROGRAM_LINE];
	snprintf(line, sizeof(line), "echo_client: %s: %s\n", url, reason);
	ck_assert_str_eq(got.err, line);
	complained(1, url);
}

START_TEST(client_says_that_no_datagram_came_back)
{
	char url[SS_ADDRESS_TEXT];
	int fd = bound(SOCK_DGRAM, url, sizeof(url));
	int64_t from = clock_ms();
	program_run(&got, "hello\n", ECHO_CLIENT("-t", "0.1", url));
	client_failed(url, "no reply within 0.1 s");
	ck_assert_int_ge(clock_ms() - from, 100);
	char text[16];
	ck_assert_int_eq(recv_within(fd, text, sizeof(text), WAIT_MS), 5);
	ck_assert_mem_eq(text, "hello", 5);
	close(fd);
}
END_TEST

START_TEST(client_escapes_newlines_of_datagrams)
{
	char url[SS_ADDRESS_TEXT], text[16];
	int fd = bound(SOCK_DGRAM, url, sizeof(url));
	struct program client = { 0 };
	program_start(&client, ECHO_CLIENT(url));
	ck_assert_int_eq(write(client.in, "hi\n", 3), 3);
	struct ss_address from = { .len = sizeof(from.u) };
	ck_assert_int_eq(
		recvfrom(fd, text, sizeof(text), 0, &from.u.sa, &from.len), 2);
	sendto(fd, "x\ny", 3, 0, &from.u.sa, from.len);
	ck_assert_str_eq(program_line(&client), "x\\ny");
	program_wait(&client, &got);
	answered("");
	close(fd);
}
END_TEST

START_TEST(client_says_that_nobody_is_there)
{
	char url[SS_ADDRESS_TEXT];
	close(bound(SOCK_DGRAM, url, sizeof(url)));
	program_run(&got, "hello\n", ECHO_CLIENT(url));
	client_failed(url, "Connection refused");
	close(bound(SOCK_STREAM, url, sizeof(url)));
	program_run(&got, "hello\n", ECHO_CLIENT(url));
	client_failed(url, "Connection refused");
	snprintf(url, sizeof(url), "unix:%s/none", scratch());
	program_run(&got, "hello\n", ECHO_CLIENT(url));
	client_failed(url, "No such file or directory");
	snprintf(url, sizeof(url), "unixgram:%s/none", scratch());
	program_run(&got, "hello\n", ECHO_CLIENT(url));
	client_failed(url, "No such file or directory");
}
END_TEST

/* Its input goes on, and nobody listens any more. */
START_TEST(client_says_that_the_server_hung_up)
{
	char url[SS_ADDRESS_TEXT];
	int listener = bound(SOCK_STREAM, url, sizeof(url));
	ck_assert_int_eq(listen(listener, 5), 0);
	struct program client = { 0 };
	program_start(&client, ECHO_CLIENT(url));
	int fd = accept(listener, NULL, NULL);
	send_text(fd, "bye\n");
	close(fd);
	ck_assert_str_eq(program_line(&client), "bye");
	ck_assert_str_eq(program_error(&client) + strlen("echo_client: ") +
				 strlen(url),
			 ": the server closed the connection before the input "
			 "ended");
	program_wait(&client, &got);
	ck_assert_int_eq(got.status, 1);

	program_start(&client, ECHO_CLIENT(url));
	fd = accept(listener, NULL, NULL);
	struct linger reset = { .l_onoff = 1 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	program_wait(&client, &got);
	client_failed(url, "Connection reset by peer");
	close(listener);
}
END_TEST

START_TEST(client_says_when_its_own_input_or_output_fails)
{
	struct program server = { 0 };
	const char *url = serve(
		&server, ECHO_SERVER("-m", "threading", "tcp://127.0.0.1:0"));
	static const struct {
		const char *from, *to, *text;
	} ways[] = {
		{ NULL, "/dev/full", "standard output: No space left" },
		{ NULL, TO_NOBODY, "standard output: Broken pipe" },
		{ NULL, TO_CLOSED, "standard output: Bad file descriptor" },
		{ TO_CLOSED, NULL, "standard input: Bad file descriptor" },
	};
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		struct program client = { .in_from = ways[i].from,
					  .out_to = ways[i].to };
		program_start(&client, ECHO_CLIENT(url));
		program_feed(&client, "hello\n", 6, &got);
		complained(1, ways[i].text);
	}
	quit(&server);
}
END_TEST

START_TEST(client_refuses_wrong_use)
{
	static const struct wrong uses[] = {
		{ { "--frob" }, "unrecognized option" },
		{ { "-t" }, "requires an argument" },
		{ { "-t", "0" }, "--timeout '0': expected seconds" },
		{ { "-t", "soon" }, "--timeout 'soon': expected seconds" },
		{ { "-t", "-1" }, "--timeout '-1': expected seconds" },
		{ { "127.0.0.1:1", "127.0.0.1:2" }, "'127.0.0.1:2': one" },
		{ { "nonsense" }, "nonsense: no port" },
		{ { "127.0.0.1:80x" }, "port \"80x\"" },
		{ { "" }, "\"\"" },
		{ { "fd:0" }, "fd:0: not an address to connect to" },
	};
	for (size_t i = 0; i < sizeof(uses) / sizeof(*uses); i++) {
		const char *const *a = uses[i].argument;
		program_run(&got, "", ECHO_CLIENT(a[0], a[1]));
		complained(2, uses[i].text);
	}
}
END_TEST

/* ---- the other demos ------------------------------------------------------*/

static bool serves(const char *url, const char *text)
{
	int fd = try_dial(url);
	if (fd < 0)
		return false;
	char reply[100];
	send(fd, text, strlen(text), MSG_NOSIGNAL);
	ssize_t n = recv_within(fd, reply, sizeof(reply), WAIT_MS);
	close(fd);
	return n == (ssize_t)strlen(text) &&
	       memcmp(reply, text, (size_t)n) == 0;
}

/* Its port is fixed, so that it is short; somebody may have it. */
START_TEST(demo_hello)
{
	const char *url = "tcp://127.0.0.1:7777";
	int taken = try_dial(url);
	if (taken >= 0) {
		close(taken);
		printf("skipped: hello: port 7777 is taken\n");
		return;
	}
	struct program hello = { 0 };
	program_start(&hello, ARGV(demo("hello")));
	eventually(serves(url, "hello"));
	int silent = silent_client(url);
	echo_once(url, "world");
	close(silent);
	program_run(&got, "", ARGV(demo("hello")));
	complained(1, "hello: tcp://127.0.0.1:7777: bind: Address already");
	program_stop(&hello, SIGINT, &got);
	ck_assert_int_eq(got.status, 128 + SIGINT);
	ck_assert_str_eq(got.out, "");
}
END_TEST

START_TEST(demo_upper)
{
	static char line[3000];
	memset(line, 'x', 2000);
	snprintf(line + 2000, sizeof(line) - 2000, "\nand on\n");
	struct program server = { 0 };
	const char *url =
		serve(&server, ARGV(demo("upper"), "tcp://127.0.0.1:0"));
	program_run(&got, "one\nTwo, three!\n\nfour", ECHO_CLIENT(url));
	answered("ONE\nTWO, THREE!\n\nFOUR");
	program_run(&got, line, ECHO_CLIENT(url));
	answered("error: a line has at most 1023 bytes\nAND ON\n");
	quit(&server);
}
END_TEST

START_TEST(demo_greeting)
{
	struct program server = { 0 };
	const char *url =
		serve(&server, ARGV(demo("greeting"), "tcp://127.0.0.1:0"));
	struct program client = { .in_from = "/dev/null" };
	program_start(&client, ECHO_CLIENT(url));
	program_wait(&client, &got);
	answered("Welcome, and goodbye.\n");
	/* It does not wait for a word. */
	int fd = dial(url);
	expect_text(fd, "Welcome, and goodbye.\n");
	expect_end(fd);
	close(fd);
	quit(&server);
}
END_TEST

START_TEST(demo_sticky)
{
	program_run(&got, "", ARGV(demo("sticky")));
	answered("two messages, \"hello\" and \"world\", in two writes\n"
		 "a handler that takes each read for a message sees\n"
		 "    read 1: \"helloworld\"\n"
		 "a handler that reads each message by its length sees\n"
		 "    frame 1: \"hello\"\n"
		 "    frame 2: \"world\"\n");
}
END_TEST

START_TEST(demo_unit_test)
{
	program_run(&got, "", ARGV(demo("unit_test")));
	answered("ok\n");
}
END_TEST

START_TEST(demo_quota)
{
	struct program server = { 0 };
	program_start(&server, ARGV(demo("quota"), "tcp://127.0.0.1:0"));
	const char *line = program_line(&server);
	ck_assert_ptr_nonnull(strstr(line, "quota > threading > tcp > base)"));
	char url[SS_ADDRESS_TEXT];
	ck_assert_int_eq(sscanf(line, "listening on %400s (", url), 1);
	int first = silent_client(url), second = silent_client(url);
	for (int i = 0; i < 3; i++) {
		int third = dial(url);
		expect_end(third);
		close(third);
	}
	close(first);
	int64_t until = clock_ms() + WAIT_MS;
	bool free = false;
	while (!free && clock_ms() < until)
		free = serves(url, "the place is free again");
	ck_assert(free);
	close(second);
	quit(&server);
}
END_TEST

/* Two lines at once, one for each server. */
static void counts(struct program *host, int daytime, int upper)
{
	char expected[100];
	ck_assert_int_eq(write(host->in, "\n", 1), 1);
	snprintf(expected, sizeof(expected), "daytime: %d clients, 0 active",
		 daytime);
	ck_assert_str_eq(program_line(host), expected);
	snprintf(expected, sizeof(expected), "upper: %d clients, 0 active",
		 upper);
	ck_assert_str_eq(program_line(host), expected);
}

START_TEST(demo_embed_poll)
{
	struct program host = { 0 };
	char daytime[SS_ADDRESS_TEXT], upper[SS_ADDRESS_TEXT];
	program_start(&host, ARGV(demo("embed_poll"), "tcp://127.0.0.1:0",
				  "tcp://127.0.0.1:0"));
#ifndef SS_LINUX
	program_wait(&host, &got);
	ck_assert_str_eq(got.err, "embed_poll: Operation not supported\n");
	ck_assert_int_eq(got.status, 1);
	return;
#endif
	snprintf(daytime, sizeof(daytime), "%s", program_listening(&host));
	snprintf(upper, sizeof(upper), "%s", program_listening(&host));
	counts(&host, 0, 0);
	for (int i = 0; i < 3; i++) {
		struct program client = { .in_from = "/dev/null" };
		program_start(&client, ECHO_CLIENT(daytime));
		program_wait(&client, &got);
		ck_assert_int_eq(got.status, 0);
		ck_assert_ptr_nonnull(strstr(got.out, "-UTC\\r\n"));
	}
	counts(&host, 3, 0);
	program_run(&got, "abc\n", ECHO_CLIENT(upper));
	answered("ABC\n");
	int fd = dial(upper);
	send_text(fd, "x\n");
	expect_text(fd, "X\n");
	program_wait(&host, &got);
	answered("");
	expect_gone(fd);
}
END_TEST

START_TEST(demo_embed_thread)
{
	struct program host = { 0 }, client = { .in_from = "/dev/null" };
	char url[SS_ADDRESS_TEXT];
	program_start(&host, ARGV(demo("embed_thread"), "tcp://127.0.0.1:0"));
	snprintf(url, sizeof(url), "%s", program_listening(&host));
	program_start(&client, ECHO_CLIENT(url));
	program_wait(&client, &got);
	answered("0 lines so far\n");
	ck_assert_int_eq(write(host.in, "a\nb\nc\n", 6), 6);
	int64_t until = clock_ms() + WAIT_MS;
	do {
		program_start(&client, ECHO_CLIENT(url));
		program_wait(&client, &got);
	} while (strcmp(got.out, "3 lines so far\n") && clock_ms() < until);
	answered("3 lines so far\n");
	program_wait(&host, &got);
	answered("");
}
END_TEST

/* As their man pages have it. */
START_TEST(demos_end_with_the_status_that_they_promise)
{
	static const struct {
		const char *name;
		int addresses;
	} servers[] = {
		{ "upper", 1 },	     { "greeting", 1 },	    { "quota", 1 },
		{ "embed_poll", 2 }, { "embed_thread", 1 },
	};
	char taken[SS_ADDRESS_TEXT];
	int fd = bound(SOCK_STREAM, taken, sizeof(taken));
	for (size_t i = 0; i < sizeof(servers) / sizeof(*servers); i++) {
		const char *program = demo(servers[i].name);
		const char *more = servers[i].addresses == 2 ? "x" : NULL;
		program_run(&got, "", ARGV(program, "x", "x", more));
		complained(2, "usage: ");
		program_run(&got, "", ARGV(program, "127.0.0.1:80x"));
		complained(2, "port \"80x\" is not in");
		program_run(&got, "", ARGV(program, taken));
		complained(1, "bind: Address already in use");
		struct program full = { .out_to = "/dev/full" };
		program_start(&full, ARGV(program, "tcp://127.0.0.1:0"));
		program_wait(&full, &got);
		complained(1, "standard output: No space left on device");
	}
	close(fd);
}
END_TEST

/* ---- what it costs --------------------------------------------------------*/

/* strace's -c writes: time, seconds, usecs/call, calls, [errors,] name. */
static int calls(const char *table, const char *name)
{
	FILE *file = fopen(table, "r");
	ck_assert_ptr_nonnull(file);
	char line[200], last[100];
	int count = 0, n;
	while (fgets(line, sizeof(line), file)) {
		char *space = strrchr(line, ' ');
		if (space && sscanf(space, "%99s", last) == 1 &&
		    !strcmp(last, name) &&
		    sscanf(line, "%*s %*s %*s %d", &n) == 1)
			count += n;
	}
	fclose(file);
	return count;
}

static bool strace_works(void)
{
	if (missing("strace"))
		return false;
	program_run(&got, "", ARGV("strace", "-o", "/dev/null", "true"));
	if (got.status != 0)
		printf("skipped: strace is not permitted\n");
	return got.status == 0;
}

/* Sixty-four clients, each in turn. */
static void ping_pong(const char *url, int clients, int messages)
{
	static const char message[65] = "sixty-four bytes";
	int fds[64];
	for (int i = 0; i < clients; i++)
		fds[i] = dial(url);
	for (int k = 0; k < messages; k++) {
		char reply[64];
		for (int i = 0; i < clients; i++)
			send_bytes(fds[i], message, 64);
		for (int i = 0; i < clients; i++)
			expect_bytes(fds[i], reply, 64);
	}
	for (int i = 0; i < clients; i++)
		shutdown(fds[i], SHUT_WR);
	for (int i = 0; i < clients; i++) {
		expect_end(fds[i]);
		close(fds[i]);
	}
}

START_TEST(programs_cost_one_recv_and_one_send_a_message)
{
	enum { CLIENTS = 64, MESSAGES = 10, ALL = CLIENTS * MESSAGES };
	/* What starting, stopping and waiting for threads may take: it does not
	 * grow with the messages. */
	enum { LOOP = ALL / 4 };
	if (!strace_works())
		return;
#ifdef SS_COVERAGE
	printf("skipped: counting calls: coverage is written by some, too\n");
	return;
#endif
	char table[100];
	snprintf(table, sizeof(table), "%s/strace", scratch());
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* it would trace too */
	struct program server = { 0 };
	/* -D: the tracer is the grandchild, and the server our child. */
	const char *url = serve(
		&server,
		ARGV("strace", "-D", "-f", "-c", "-o", table, "-e",
		     "trace=recvfrom,recvmsg,read,sendto,sendmsg,write,poll,"
		     "ppoll,setsockopt,accept4,?recv,?send",
		     demo("echo_server"), "-m", _i ? "threading" : "sync",
		     "tcp://127.0.0.1:0"));
	ping_pong(url, _i ? CLIENTS : 1, _i ? MESSAGES : ALL);
	quit(&server);
	eventually(access(table, F_OK) == 0 && calls(table, "total") > 0);
	int ends = _i ? CLIENTS : 1;
	/* Some 32-bit machines have shorter ones. */
	ck_assert_int_eq(calls(table, "sendto") + calls(table, "send"), ALL);
	/* The first of sync's may come too early. */
	int recvs = calls(table, "recvfrom") + calls(table, "recv");
	ck_assert_int_ge(recvs, ALL + ends);
	ck_assert_int_le(recvs, ALL + ends + !_i);
	ck_assert_int_eq(calls(table, "sendmsg") + calls(table, "recvmsg"), 0);
	ck_assert_int_le(calls(table, "write") + calls(table, "read"), LOOP);
	/* Sync waits for its next message or the stop; threads just read. */
	ck_assert_int_le(calls(table, "poll") + calls(table, "ppoll"),
			 (_i ? 2 * ends : ALL + ends) + LOOP);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_serving(Suite *suite)
{
	TCase *tcase = suite_case(suite, "serving", NULL, NULL);
	int all = plain_count * transport_count;
	tcase_add_loop_test(
		tcase, programs_echo_over_every_transport_under_every_model, 0,
		2 * all);
	tcase_add_loop_test(tcase, programs_other_peoples_clients_are_served, 0,
			    PEERS * all);
	tcase_add_loop_test(tcase, programs_serve_several_addresses, 0,
			    transport_count);
	tcase_add_test(tcase,
		       programs_know_ipv6_abstract_names_and_descriptors);
	tcase_add_test(tcase, programs_have_a_default_address);
	tcase_add_loop_test(tcase, programs_options_reach_the_sockets, 0, 2);
	tcase_add_loop_test(
		tcase, programs_cost_one_recv_and_one_send_a_message, 0, 2);
}

static void add_stopping(Suite *suite)
{
	TCase *tcase = suite_case(suite, "stopping", NULL, NULL);
	int all = plain_count * transport_count;
	tcase_add_loop_test(tcase, programs_stop_when_told_to, 0, all);
	tcase_add_loop_test(tcase, programs_stop_ends_idle_clients, 0,
			    plain_count);
	tcase_add_loop_test(tcase, programs_stop_lets_conversations_end, 0,
			    plain_count);
	tcase_add_loop_test(tcase, programs_stop_drains_no_longer_than_allowed,
			    0, plain_count);
	tcase_add_loop_test(tcase,
			    programs_stop_does_not_wait_for_a_drain_of_zero, 0,
			    plain_count);
	tcase_add_loop_test(tcase, programs_stop_at_once_at_the_second_signal,
			    0, plain_count);
	tcase_add_loop_test(tcase, programs_stop_at_once_at_two_signals, 0,
			    plain_count);
	tcase_add_loop_test(tcase, programs_once_serve_one_request, 0, all);
}

static void add_words(Suite *suite)
{
	TCase *tcase = suite_case(suite, "words", NULL, NULL);
	tcase_add_test(tcase, programs_show_version_and_help);
	tcase_add_loop_test(tcase, programs_refuse_wrong_use, 0, 4);
	tcase_add_loop_test(tcase, programs_serve_whom_they_are_told_to, 0,
			    plain_count);
	tcase_add_loop_test(tcase, programs_serve_as_often_as_they_are_told_to,
			    0, plain_count);
	tcase_add_loop_test(tcase, programs_know_clients_behind_haproxy, 0,
			    BALANCINGS * plain_count);
	tcase_add_test(tcase, programs_take_sixteen_addresses);
	tcase_add_loop_test(tcase, programs_name_the_address_in_use, 0,
			    transport_count);
	tcase_add_loop_test(tcase, programs_name_the_path_and_the_reason, 0, 2);
	tcase_add_test(tcase,
		       programs_leave_nothing_when_the_second_address_fails);
	tcase_add_test(tcase, programs_say_when_standard_output_fails);
	tcase_add_loop_test(tcase, programs_verbose_tells_of_each_request, 0,
			    plain_count);
	tcase_add_test(tcase, programs_tell_as_much_as_asked);
	tcase_add_loop_test(tcase, programs_serve_without_standard_error, 0,
			    plain_count);
}

static void add_limits(Suite *suite)
{
	TCase *tcase = suite_case(suite, "limits", NULL, NULL);
	tcase_add_loop_test(tcase, programs_cut_datagrams_at_max_packet, 0, 2);
	tcase_add_loop_test(tcase, programs_full_keeps_the_next_client_waiting,
			    0, 3 * (plain_count - 1));
	tcase_add_loop_test(tcase, programs_full_refuses_the_next_client, 0,
			    plain_count - 1);
	tcase_add_loop_test(tcase, programs_end_silent_clients, 0,
			    3 * plain_count);
	tcase_add_loop_test(tcase, programs_end_slow_clients_at_the_total, 0,
			    plain_count);
}

static void add_client(Suite *suite)
{
	TCase *tcase = suite_case(suite, "client", NULL, NULL);
	tcase_add_loop_test(tcase, client_carries_much_through_a_pipe, 0,
			    plain_count);
	tcase_add_loop_test(tcase, client_shows_every_byte, 0, transport_count);
	tcase_add_test(tcase, client_says_that_no_datagram_came_back);
	tcase_add_test(tcase, client_escapes_newlines_of_datagrams);
	tcase_add_test(tcase, client_says_that_nobody_is_there);
	tcase_add_test(tcase, client_says_that_the_server_hung_up);
	tcase_add_test(tcase, client_says_when_its_own_input_or_output_fails);
	tcase_add_test(tcase, client_refuses_wrong_use);
}

static void add_demos(Suite *suite)
{
	TCase *tcase = suite_case(suite, "demos", NULL, NULL);
	tcase_add_test(tcase, demo_hello);
	tcase_add_test(tcase, demo_upper);
	tcase_add_test(tcase, demo_greeting);
	tcase_add_test(tcase, demo_sticky);
	tcase_add_test(tcase, demo_unit_test);
	tcase_add_test(tcase, demo_quota);
	tcase_add_test(tcase, demo_embed_poll);
	tcase_add_test(tcase, demo_embed_thread);
	tcase_add_test(tcase, demos_end_with_the_status_that_they_promise);
}

Suite *t_programs(void)
{
	Suite *suite = suite_create("t_programs");
	add_serving(suite);
	add_stopping(suite);
	add_words(suite);
	add_limits(suite);
	add_client(suite);
	add_demos(suite);
	return suite;
}
