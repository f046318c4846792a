/*
 * How a daemon is started: by systemd's sockets, by inetd and tcpserver, and
 * what it tells the service manager.  The echo server is started so, by other
 * people's programs too; what it does not show is seen in a child of the test.
 */
#include "faults.h"
#include "program.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

Suite *t_daemon(void);

enum { PLACE = 9, OTHER_PLACE = 8, TEXT = 2048 };

static struct ended got;

/* ---- sockets to give ------------------------------------------------------*/

/* At that descriptor, for the programs that are started from here on. */
static int placed(int fd, int place)
{
	ck_assert_int_eq(fcntl(place, F_GETFD), -1);
	ck_assert_int_eq(dup2(fd, place), place);
	close(fd);
	return place;
}

static int bound_tcp(int type, char *url, size_t size)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, len), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	if (type == SOCK_STREAM)
		ck_assert_int_eq(listen(fd, 16), 0);
	snprintf(url, size, "%s://127.0.0.1:%d",
		 type == SOCK_STREAM ? "tcp" : "udp", ntohs(address.sin_port));
	return fd;
}

/* A client's end, and the one that was accepted. */
static int connected_pair(int *accepted)
{
	char url[SS_ADDRESS_TEXT];
	int listener = bound_tcp(SOCK_STREAM, url, sizeof(url));
	int client = dial(url);
	*accepted = accept(listener, NULL, NULL);
	ck_assert_int_ge(*accepted, 0);
	fcntl(*accepted, F_SETFD, FD_CLOEXEC);
	close(listener);
	return client;
}

/* ---- programs -------------------------------------------------------------*/

SS_PRINTF(2, 3)
static void start_by_shell(struct program *program, const char *fmt, ...)
{
	static char command[TEXT];
	va_list args;
	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	program_start(program, ARGV("sh", "-c", command));
}

static void quit(struct program *server)
{
	program_stop(server, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_str_eq(got.out, "");
	ck_assert_int_eq(got.status, 0);
}

static void complained(const char *text)
{
	ck_assert_msg(strstr(got.err, text) != NULL, "\"%s\" lacks \"%s\"",
		      got.err, text);
	const char *newline = strchr(got.err, '\n');
	ck_assert_msg(newline && !newline[1], "not one line: \"%s\"", got.err);
	ck_assert_int_ne(got.status, 0);
}

/* The shell's own process becomes the program, so that $$ is its pid. */
#define ACTIVATED                                                              \
	"LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES=%s exec %s -m %s %s "      \
	"3<&9 9<&-"

/* ---- systemd's sockets ----------------------------------------------------*/

/* Given by our own hand: every model. */
START_TEST(daemon_takes_a_listener_that_is_given)
{
	char url[SS_ADDRESS_TEXT];
	const struct model *model = &models[_i];
	int place = placed(bound_tcp(SOCK_STREAM, url, sizeof(url)), PLACE);
	struct program server = { 0 };
	start_by_shell(&server, ACTIVATED, 1, "", demo("echo_server"),
		       model->name, "");
	ck_assert_str_eq(program_listening(&server), url);
	echo_once(url, "hello\n");
	quit(&server);
	/* It is still there: who connects now is the next one's. */
	int fd = dial(url);
	send_text(fd, "again\n");
	start_by_shell(&server, ACTIVATED, 1, "", demo("echo_server"),
		       model->name, "");
	expect_text(fd, "again\n");
	close(fd);
	program_listening(&server);
	quit(&server);
	close(place);
}
END_TEST

START_TEST(daemon_takes_datagram_sockets_too)
{
	char url[SS_ADDRESS_TEXT];
	int place = placed(bound_tcp(SOCK_DGRAM, url, sizeof(url)), PLACE);
	struct program server = { 0 };
	start_by_shell(&server, ACTIVATED, 1, "", demo("echo_server"), "sync",
		       "");
	ck_assert_str_eq(program_listening(&server), url);
	echo_once(url, "hello\n");
	quit(&server);
	close(place);
}
END_TEST

/* Which of its addresses it is; the others are bound as ever. */
START_TEST(daemon_matches_listeners_by_address)
{
	char url[SS_ADDRESS_TEXT], both[2 * SS_ADDRESS_TEXT];
	int place = placed(bound_tcp(SOCK_STREAM, url, sizeof(url)), PLACE);
	struct program server = { 0 };
	snprintf(both, sizeof(both), "tcp://127.0.0.1:0 %s", url);
	start_by_shell(&server, ACTIVATED, 1, "x", demo("echo_server"),
		       "threading", both);
	char other[SS_ADDRESS_TEXT];
	snprintf(other, sizeof(other), "%s", program_listening(&server));
	ck_assert_str_ne(other, url);
	ck_assert_str_eq(program_listening(&server), url);
	echo_once(other, "one\n");
	echo_once(url, "two\n");
	quit(&server);
	close(place);
}
END_TEST

#define TWO                                                                    \
	"LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:admin exec %s %s "      \
	"3<&9 4<&8 9<&- 8<&-"

/* By its name alone; and one that nobody wants is a mistake. */
START_TEST(daemon_matches_listeners_by_name)
{
	char url[2][SS_ADDRESS_TEXT], args[2 * SS_ADDRESS_TEXT];
	int places[2] = {
		placed(bound_tcp(SOCK_STREAM, url[0], SS_ADDRESS_TEXT), PLACE),
		placed(bound_tcp(SOCK_STREAM, url[1], SS_ADDRESS_TEXT),
		       OTHER_PLACE),
	};
	struct program server = { 0 };
	start_by_shell(&server, TWO, demo("echo_server"), "");
	ck_assert_str_eq(program_listening(&server), url[0]);
	ck_assert_str_eq(program_listening(&server), url[1]);
	quit(&server);
	start_by_shell(&server, TWO, demo("echo_server"), "--name admin");
	program_wait(&server, &got);
	complained("descriptor 3 ('web') was given, and no server wants it");
	ck_assert_int_eq(got.status, 2);
	snprintf(args, sizeof(args), "%s tcp://127.0.0.1:0", url[1]);
	start_by_shell(&server, TWO, demo("echo_server"), args);
	program_wait(&server, &got);
	complained("descriptor 3 ('web')");
	for (int i = 0; i < 2; i++)
		close(places[i]);
}
END_TEST

/* As after a restart: port 0 is none that somebody had asked for by number. */
START_TEST(daemon_knows_ports_that_the_kernel_chose)
{
	char url[2][SS_ADDRESS_TEXT];
	int places[2] = {
		placed(bound_tcp(SOCK_STREAM, url[0], SS_ADDRESS_TEXT), PLACE),
		placed(bound_tcp(SOCK_STREAM, url[1], SS_ADDRESS_TEXT),
		       OTHER_PLACE),
	};
	struct program server = { 0 };
	start_by_shell(&server, "SS_RESTARTED='5 %dp' " TWO " 5>/dev/null",
		       3 + _i, demo("echo_server"), "127.0.0.1:0");
	program_wait(&server, &got);
	complained(_i ? "descriptor 3 ('web')" : "descriptor 4 ('admin')");
	for (int i = 0; i < 2; i++)
		close(places[i]);
}
END_TEST

/* What is meant for another process, and what makes no sense. */
START_TEST(daemon_refuses_a_strange_environment)
{
	struct program server = { 0 };
	start_by_shell(&server,
		       "LISTEN_PID=1 LISTEN_FDS=1 exec %s tcp://127.0.0.1:0",
		       demo("echo_server"));
	echo_once(program_listening(&server), "hello\n");
	quit(&server);
	start_by_shell(&server,
		       "LISTEN_PID=$$ LISTEN_FDS=1x exec %s tcp://127.0.0.1:0",
		       demo("echo_server"));
	program_wait(&server, &got);
	complained("LISTEN_FDS is '1x'");
	start_by_shell(
		&server,
		"LISTEN_PID=$$ LISTEN_FDS=1 exec %s tcp://127.0.0.1:0 3<&-",
		demo("echo_server"));
	program_wait(&server, &got);
	complained("LISTEN_FDS is 1: descriptor 3: Bad file descriptor");
	start_by_shell(&server,
		       "LISTEN_PID=$$ LISTEN_FDS=1 exec %s 3</dev/null",
		       demo("echo_server"));
	program_wait(&server, &got);
	complained("fd:3: not a socket");
}
END_TEST

/* Of one listener, 3, behind which the pipe has to be. */
static const char *const strange_restarts[] = {
	"",    "x",    "3",    "5",	"4 2",
	"4 4", "4 3x", "4  3", "4 3r ", "4 99999999999",
};

enum { RESTARTS = sizeof(strange_restarts) / sizeof(*strange_restarts) };

START_TEST(daemon_refuses_a_strange_restart)
{
	char url[SS_ADDRESS_TEXT], expected[64];
	int place = placed(bound_tcp(SOCK_STREAM, url, sizeof(url)), PLACE);
	struct program server = { 0 };
	start_by_shell(&server,
		       "SS_RESTARTED='%s' LISTEN_PID=$$ LISTEN_FDS=1 exec %s "
		       "3<&9 9<&- 4>/dev/null 5>/dev/null",
		       strange_restarts[_i], demo("echo_server"));
	program_wait(&server, &got);
	snprintf(expected, sizeof(expected), "SS_RESTARTED is '%s'",
		 strange_restarts[_i]);
	complained(expected);
	ck_assert_int_eq(got.status, 2);
	close(place);
}
END_TEST

/* In a child: of a TCP socket 'a', a UDP socket at the same port, and another
 * TCP socket, each goes to whom it is for.  Exits with what went wrong. */
static _Noreturn void be_shared_out(const int fds[3],
				    char urls[3][SS_ADDRESS_TEXT])
{
	struct ss_start *start;
	struct ss_diag why;
	char pid[16];
	struct ss_config named = { .addresses = { "127.0.0.1:1", urls[1] } };
	struct ss_config udp = { .addresses = { urls[1] } };
	struct ss_config rest = { .addresses = { NULL } };
	for (int i = 0; i < 3; i++)
		dup2(fds[i], 3 + i);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "3", 1);
	setenv("LISTEN_FDNAMES", "a:b:c", 1);
	if (ss_start_new(&start, SS_START_AUTO, &why) < 0)
		_exit(1);
	if (ss_start_left(start, &why) != 3 || !strstr(why.text, "3 ('a')"))
		_exit(2);
	if (ss_start_adopt(start, NULL, &udp, &why) != 1 ||
	    strcmp(udp.addresses[0], "fd:4") != 0)
		_exit(3);
	if (ss_start_adopt(start, "a", &named, &why) != 1 ||
	    strcmp(named.addresses[0], "fd:3") != 0 || named.addresses[1])
		_exit(4);
	if (ss_start_adopt(start, NULL, &rest, &why) != 1 ||
	    strcmp(rest.addresses[0], "fd:5") != 0 || rest.addresses[1])
		_exit(5);
	_exit(ss_start_left(start, &why));
}

/* The UDP one at the port of the first. */
START_TEST(daemon_shares_its_sockets_out)
{
	char urls[3][SS_ADDRESS_TEXT];
	int status = 0, fds[3] = { -1, -1, -1 };
	struct sockaddr_in address;
	socklen_t len = sizeof(address);
	fds[0] = bound_tcp(SOCK_STREAM, urls[0], SS_ADDRESS_TEXT);
	fds[2] = bound_tcp(SOCK_STREAM, urls[2], SS_ADDRESS_TEXT);
	fds[1] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	getsockname(fds[0], (struct sockaddr *)&address, &len);
	snprintf(urls[1], SS_ADDRESS_TEXT, "udp://127.0.0.1:%d",
		 ntohs(address.sin_port));
	if (bind(fds[1], (struct sockaddr *)&address, len) == -1)
		return;
	for (int i = 0; i < 3; i++)
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 20);
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		be_shared_out(fds, urls);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* By systemd's own tool, which becomes the program at the first client. */
static const struct {
	const char *model, *scheme;
} activations[] = {
	{ "sync", "unix" },	 { "threading", "unix" },
	{ "forking", "unix" },	 { "pool", "unix" },
	{ "fiber", "unix" },	 { "prefork", "unix" },
	{ "sync", "unixgram" },	 { "threading", "unixgram" },
	{ "fiber", "unixgram" }, { "prefork", "unixgram" },
};

START_TEST(daemon_is_started_by_systemd_socket_activate)
{
	char path[SS_ADDRESS_TEXT / 2], url[SS_ADDRESS_TEXT];
	if (missing("systemd-socket-activate"))
		return;
	bool dgram = strcmp(activations[_i].scheme, "unixgram") == 0;
	snprintf(path, sizeof(path), "%s/given", scratch());
	snprintf(url, sizeof(url), "%s:%s", activations[_i].scheme, path);
	struct program server = { 0 };
	program_start(&server,
		      ARGV("systemd-socket-activate",
			   dgram ? "-d" : "--fdname=echo", "-l", path,
			   demo("echo_server"), "-m", activations[_i].model));
	program_tells(&server, "Listening on");
	echo_once(url, "hello\n");
	ck_assert_str_eq(program_listening(&server), url);
	program_stop(&server, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
	/* It was not ours to remove. */
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

/* Accept=yes: a process for each connection. */
START_TEST(daemon_serves_a_connection_of_systemd)
{
	char path[SS_ADDRESS_TEXT / 2], url[SS_ADDRESS_TEXT];
	if (missing("systemd-socket-activate"))
		return;
	snprintf(path, sizeof(path), "%s/given", scratch());
	snprintf(url, sizeof(url), "unix:%s", path);
	struct program manager = { 0 };
	program_start(&manager, ARGV("systemd-socket-activate", "-a", "-l",
				     path, demo("echo_server")));
	program_tells(&manager, "Listening on");
	int fds[2] = { dial(url), dial(url) };
	for (int i = 1; i >= 0; i--) {
		send_text(fds[i], "hello\n");
		expect_text(fds[i], "hello\n");
		shutdown(fds[i], SHUT_WR);
		expect_end(fds[i]);
		close(fds[i]);
	}
	program_tells(&manager, "died with code 0");
	program_stop(&manager, SIGTERM, &got);
	unlink(path);
}
END_TEST

/* ---- inetd and tcpserver --------------------------------------------------*/

START_TEST(daemon_listens_at_descriptor_0)
{
	char url[SS_ADDRESS_TEXT];
	int type = _i % 2 ? SOCK_DGRAM : SOCK_STREAM;
	int place = placed(bound_tcp(type, url, sizeof(url)), PLACE);
	struct program server = { 0 };
	start_by_shell(&server, "exec %s --stdin -m %s <&9 9<&-",
		       demo("echo_server"), models[_i / 2].name);
	ck_assert_str_eq(program_listening(&server), url);
	echo_once(url, "hello\n");
	quit(&server);
	close(place);
}
END_TEST

/* Nothing but the answer comes back, whatever is logged. */
static void start_for_connection(struct program *server, int accepted,
				 const char *options)
{
	int place = placed(accepted, PLACE);
	start_by_shell(server, "exec %s --stdin %s <&9 >&9 2>&9 9<&-",
		       demo("echo_server"), options);
	close(place);
}

static const char *option_m(const struct model *model)
{
	static char text[128];
	snprintf(text, sizeof(text),
		 "-v --deny 192.0.2.1 --per-source 9 --rate 9 -m %s",
		 model->name);
	return text;
}

START_TEST(daemon_serves_the_connection_at_descriptor_0)
{
	const struct model *model = &models[_i];
	int accepted, client = connected_pair(&accepted);
	struct program server = { 0 };
	start_for_connection(&server, accepted, option_m(model));
	if (!model_supervised(model)) {
		send_text(client, "hello\n");
		expect_text(client, "hello\n");
		send_text(client, "again");
		shutdown(client, SHUT_WR);
		expect_text(client, "again");
	}
	expect_end(client);
	program_wait(&server, &got);
	ck_assert_str_eq(got.out, "");
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, model_supervised(model));
	close(client);
}
END_TEST

/* It drains as any other: an idle client is sent away. */
START_TEST(daemon_ends_a_connection_when_told)
{
	int accepted, client = connected_pair(&accepted);
	struct program server = { 0 };
	if (model_supervised(&models[_i]))
		return;
	start_for_connection(&server, accepted, option_m(&models[_i]));
	send_text(client, "hello\n");
	expect_text(client, "hello\n");
	kill(server.pid, SIGTERM);
	expect_end(client);
	program_wait(&server, &got);
	ck_assert_int_eq(got.status, 0);
	close(client);
}
END_TEST

START_TEST(daemon_serves_by_socat)
{
	char exec[TEXT];
	if (missing("socat"))
		return;
	snprintf(exec, sizeof(exec), "EXEC:%s --stdin", demo("echo_server"));
	program_run(&got, "through socat\n",
		    ARGV("socat", "-t", "5", "STDIO", exec));
	ck_assert_str_eq(got.out, "through socat\n");
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
}
END_TEST

START_TEST(daemon_refuses_what_is_no_socket)
{
	program_run(&got, "", ARGV(demo("echo_server"), "--stdin"));
	complained("descriptor 0: Socket operation on non-socket");
	ck_assert_int_eq(got.status, 2);
}
END_TEST

/* ---- in a child of the test -----------------------------------------------*/

static int tell_addresses(struct ss_request *req)
{
	char peer[SS_ADDRESS_TEXT], local[SS_ADDRESS_TEXT];
	struct ss_address address;
	ss_request_local(req, &address);
	ss_printf(req, "%s %s\n", ss_peer_name(req, peer, sizeof(peer)),
		  ss_address_format(&address, local, sizeof(local)));
	return 0;
}

static const struct ss_handler telling = { .handle = tell_addresses,
					   .speaks_first = true };

/* As tcpserver starts it: with such variables, and these as 0 and 1. */
static const char *const *variables;
static int standard[2];

static void set_variables(void)
{
	for (int i = 0; variables[i]; i += 2)
		setenv(variables[i], variables[i + 1], 1);
	for (int i = 0; i < 2; i++)
		dup2(standard[i], i);
}

/* Whose descriptors have the numbers of those that were closed: nobody may
 * close them once more. */
enum { NUMBERS = 8 };

static int numbers[NUMBERS];

static void take_numbers(void)
{
	for (int i = 0; i < NUMBERS; i++)
		numbers[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static const struct ss_layer *its_mixin;

/* Exits with ss_run's status, or 100 where it is refused, and the client told
 * why. */
static _Noreturn void be_started(void)
{
	struct ss_start *start;
	struct ss_server *server;
	struct ss_diag why;
	struct ss_config config = { .handler = &telling,
				    .mixins = { { its_mixin, NULL } },
				    .log_level = its_mixin ? SS_NONE : 0 };
	set_variables();
	if (ss_start_new(&start, SS_START_STDIN, &why) < 0) {
		dprintf(standard[0], "%s\n", why.text);
		sys_exit(100);
	}
	if (ss_start_adopt(start, NULL, &config, &why) != 1 ||
	    ss_server_new(&server, &config, &why) < 0)
		sys_exit(101);
	const struct ss_run_options o = { .start = start };
	int status = ss_run(&server, 1, &o);
	ss_server_free(server);
	take_numbers();
	ss_start_free(start);
	for (int i = 0; i < NUMBERS; i++)
		if (fcntl(numbers[i], F_GETFD) == -1)
			sys_exit(102);
	sys_exit(status);
}

static int started(const char *const list[], int in, int out)
{
	variables = list;
	standard[0] = in;
	standard[1] = out;
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		be_started();
	int status = 0;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static const struct {
	const char *remote, *local, *expected;
} peers[] = {
	{ "192.0.2.7", "192.0.2.1", "192.0.2.7:4711 192.0.2.1:80\n" },
	{ "2001:db8::7", "::1", "[2001:db8::7]:4711 [::1]:80\n" },
};

START_TEST(daemon_knows_the_addresses_of_ucspi)
{
	const char *const list[] = {
		"PROTO",	 "TCP",	 "TCPREMOTEIP", peers[_i].remote,
		"TCPREMOTEPORT", "4711", "TCPLOCALIP",	peers[_i].local,
		"TCPLOCALPORT",	 "80",	 NULL,
	};
	int accepted, client = connected_pair(&accepted);
	ck_assert_int_eq(started(list, accepted, accepted), 0);
	close(accepted);
	expect_text(client, peers[_i].expected);
	expect_end(client);
	close(client);
}
END_TEST

START_TEST(daemon_refuses_a_strange_ucspi)
{
	const char *const wrong[] = {
		"PROTO",	 "TCP", "TCPREMOTEIP", "nowhere",
		"TCPREMOTEPORT", "1",	NULL,
	};
	int accepted, client = connected_pair(&accepted);
	ck_assert_int_eq(started(wrong, accepted, accepted), 100);
	expect_text(client, "nowhere: TCPREMOTEIP is no address\n");
	const char *const plain[] = { "PROTO", "TCP", NULL };
	ck_assert_int_eq(started(plain, accepted, 2), 100);
	expect_text(client, "descriptors 0 and 1 are not the same socket\n");
	close(accepted);
	close(client);
}
END_TEST

static int activate_nothing(struct ss_server *server)
{
	return ss_refuse(server, -EXDEV, "not today");
}

/* What cannot serve its only connection ends, and so does that. */
START_TEST(daemon_does_not_keep_what_it_cannot_serve)
{
	static const struct ss_layer broken = {
		.name = "broken",
		.ops.server_activate = activate_nothing,
	};
	const char *const list[] = { "PROTO", "TCP", NULL };
	int accepted, client = connected_pair(&accepted);
	its_mixin = &broken;
	int status = started(list, accepted, accepted);
	its_mixin = NULL;
	ck_assert_int_eq(status, 1);
	close(accepted);
	expect_end(client);
	close(client);
}
END_TEST

/* By the program itself, which says its port, and how each child ended. */
START_TEST(daemon_is_started_by_tcpserver)
{
	char url[SS_ADDRESS_TEXT], expected[SS_ADDRESS_TEXT];
	struct sockaddr_in own;
	socklen_t len = sizeof(own);
	if (missing("tcpserver") || model_supervised(&models[_i]))
		return;
	struct program server = { 0 };
	program_start(&server,
		      ARGV("tcpserver", "-1", "-v", "-H", "-R", "-llocalhost",
			   "127.0.0.1", "0", demo("echo_server"), "--stdin",
			   "--whoami", "-m", models[_i].name));
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%s", program_line(&server));
	int fd = dial(url);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&own, &len), 0);
	snprintf(expected, sizeof(expected), "127.0.0.1 %d\n",
		 ntohs(own.sin_port));
	send_text(fd, "WHOAMI\n");
	expect_text(fd, expected);
	send_text(fd, "hello\n");
	expect_text(fd, "hello\n");
	shutdown(fd, SHUT_WR);
	expect_end(fd);
	close(fd);
	program_tells(&server, " status 0");
	program_stop(&server, SIGTERM, &got);
}
END_TEST

/* By inetd itself, for a client each (nowait), or with the socket for as long
 * as it is told to serve (wait).  The last is there when all are. */
static const struct {
	int transport;
	const char *fields, *options;
} services[] = {
	{ 0, "stream tcp wait", "--once" },  { 1, "dgram udp wait", "--once" },
	{ 2, "stream unix wait", "--once" }, { 3, "dgram unix wait", "--once" },
	{ 2, "stream unix nowait", "-v" },   { 0, "stream tcp nowait", "-v" },
};

enum { SERVICES = sizeof(services) / sizeof(*services) };

/* The kernel's choices at a host of our own, free again. */
static void choose_addresses(char urls[SERVICES][SS_ADDRESS_TEXT])
{
	struct ss_server *servers[SERVICES];
	for (int i = 0; i < SERVICES; i++) {
		struct ss_config config =
			config_of(&models[0],
				  &transports[services[i].transport], &telling);
		servers[i] = made(&config);
		ss_server_url(servers[i], 0, urls[i], SS_ADDRESS_TEXT);
	}
	for (int i = 0; i < SERVICES; i++)
		ss_server_free(servers[i]);
}

/* inetd.conf(5): an address, how it is served, by whom, and the program. */
static const char *services_file(char urls[SERVICES][SS_ADDRESS_TEXT],
				 const char *model)
{
	static char path[SS_ADDRESS_TEXT];
	program_run(&got, "", ARGV("id", "-un"));
	snprintf(path, sizeof(path), "%s/inetd.conf", scratch());
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	for (int i = 0; i < SERVICES; i++) {
		const char *at = strchr(urls[i], ':') + 1;
		fprintf(file, "%s %s %.*s %s echo_server --stdin -m %s %s\n",
			at + 2 * (strncmp(at, "//", 2) == 0),
			services[i].fields, (int)strcspn(got.out, "\n"),
			got.out, demo("echo_server"), model,
			services[i].options);
	}
	ck_assert_int_eq(fclose(file), 0);
	return path;
}

/* As root it writes /run/inetd.pid, which may be the machine's inetd's: hence
 * with a /run of its own. */
static bool start_inetd(struct program *inetd, const char *file)
{
	const char *program = have("inetd") ? "inetd" : "/usr/sbin/inetd";
	if (access(program, X_OK) != 0 && missing("inetd"))
		return false;
	if (geteuid() != 0) {
		program_start(inetd, ARGV(program, "-d", "-i", file));
		return true;
	}
	program_run(&got, "", ARGV("unshare", "--mount", "true"));
	if (got.status != 0) {
		printf("skipped: inetd would write to the machine's /run\n");
		return false;
	}
	program_start(inetd,
		      ARGV("unshare", "--mount", "sh", "-c",
			   "mount -t tmpfs tmpfs /run && exec $0 -d -i $1",
			   program, file));
	return true;
}

/* Twice each: it has its socket back. */
START_TEST(daemon_is_started_by_inetd)
{
	char urls[SERVICES][SS_ADDRESS_TEXT];
	struct program inetd = { 0 };
	int fd;
	if (model_supervised(&models[_i]))
		return;
	choose_addresses(urls);
	if (!start_inetd(&inetd, services_file(urls, models[_i].name)))
		return;
	eventually((fd = try_dial(urls[SERVICES - 1])) >= 0);
	close(fd);
	program_tells(&inetd, " reaped, status 0");
	for (int i = 0; i < 2 * SERVICES; i++) {
		echo_once(urls[i % SERVICES], "hello\n");
		program_tells(&inetd, " reaped, status 0");
	}
	program_stop(&inetd, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
}
END_TEST

/* ---- more than fits together ----------------------------------------------*/

enum { MOST = SS_ADDRESSES_MAX, FIRST = 3, ASIDE = 100 };

/* In a child, which is given the first socket, the second, and the first again
 * and again; 0, or the line where it was wrong. */
static int with_given(int fd, int second, int count, const char *restarted,
		      int (*body)(struct ss_start *start))
{
	char text[16];
	struct ss_start *start;
	struct ss_diag why;
	int aside = fcntl(fd, F_DUPFD, ASIDE), status = 0;
	int another = fcntl(second, F_DUPFD, ASIDE);
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		for (int i = 0; i <= count; i++)
			dup2(i == 1 ? another : aside, FIRST + i);
		snprintf(text, sizeof(text), "%d", (int)getpid());
		setenv("LISTEN_PID", text, 1);
		snprintf(text, sizeof(text), "%d", count);
		setenv("LISTEN_FDS", text, 1);
		if (restarted)
			setenv("SS_RESTARTED", restarted, 1);
		if (ss_start_new(&start, SS_START_AUTO, &why) < 0)
			sys_exit(255);
		int line = body(start);
		ss_start_free(start);
		for (int i = 0; i < count && !line; i++)
			line = fcntl(FIRST + i, F_GETFD) == -1 ? 0 : __LINE__;
		if (line)
			dprintf(2, "t_daemon.c:%d\n", line);
		sys_exit(line != 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	close(aside);
	close(another);
	return status;
}

#define must(condition)                                                        \
	do {                                                                   \
		if (!(condition))                                              \
			return __LINE__;                                       \
	} while (0)

static char its_address[SS_ADDRESS_TEXT]; /* as several.test has it */
static const char *its_url;
static char beside[INET_ADDRSTRLEN]; /* the second's address */

static int is_given_too_many(struct ss_start *start)
{
	struct ss_config config = { .handler = &telling };
	struct ss_diag why = { 0 };
	must(ss_start_adopt(start, NULL, &config, &why) == -E2BIG);
	must(why.code == -E2BIG && strstr(why.text, "more than 16 sockets"));
	must(!config.addresses[0] && ss_start_left(start, &why) == MOST + 1);
	must(ss_start_adopt(start, NULL, &config, NULL) == -E2BIG);
	config.addresses[0] = its_address;
	for (int i = 1; i < MOST; i++)
		config.addresses[i] = its_url;
	must(ss_start_adopt(start, NULL, &config, &why) == -E2BIG);
	must(config.addresses[0] == its_address);
	must(config.addresses[MOST - 1] == its_url);
	must(ss_start_left(start, &why) == MOST + 1);
	return 0;
}

/* It takes two of the places that it has for sixteen addresses. */
static int asks_for_too_many(struct ss_start *start)
{
	struct ss_config config = { .addresses = { its_address } };
	struct ss_diag why = { 0 };
	for (int i = 1; i < MOST; i++)
		config.addresses[i] = "127.0.0.1:0";
	must(ss_start_adopt(start, NULL, &config, &why) == -E2BIG);
	must(strstr(why.text, "more than 16 sockets"));
	must(ss_start_left(start, &why) == 2);
	config.addresses[MOST - 1] = NULL;
	must(ss_start_adopt(start, NULL, &config, &why) == 2);
	must(ss_start_left(start, &why) == 0);
	must(strcmp(config.addresses[0], "fd:3") == 0);
	must(strcmp(config.addresses[1], "fd:4") == 0);
	must(strcmp(config.addresses[MOST - 1], "127.0.0.1:0") == 0);
	/* Which a server would close. */
	close(FIRST);
	close(FIRST + 1);
	return 0;
}

static int asks_for_nonsense_too(struct ss_start *start)
{
	struct ss_config config = { .addresses = { its_url, "127.0.0.1:80x" } };
	struct ss_diag why = { 0 };
	must(ss_start_adopt(start, NULL, &config, &why) == -EINVAL);
	must(strstr(why.text, "80x") && ss_start_left(start, NULL) == 1);
	must(config.addresses[0] == its_url);
	return 0;
}

/* The same port of another address. */
static int bound_beside(const char *url)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_port =
		htons((uint16_t)strtol(strrchr(url, ':') + 1, NULL, 10));
	for (in_addr_t other = INADDR_LOOPBACK + 1;; other++) {
		address.sin_addr.s_addr = htonl(other);
		ck_assert_int_lt(other, INADDR_LOOPBACK + 100);
		if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			break;
	}
	ck_assert_int_eq(listen(fd, 1), 0);
	inet_ntop(AF_INET, &address.sin_addr, beside, sizeof(beside));
	return fd;
}

/* Those that it does not get all are given to nobody, and closed. */
START_TEST(daemon_is_given_all_or_nothing)
{
	static const char *const both[] = { "127.0.0.1", beside, NULL };
	char url[SS_ADDRESS_TEXT];
	int fd = bound_tcp(SOCK_STREAM, url, sizeof(url));
	int other = bound_beside(url);
	its_url = url;
	snprintf(its_address, sizeof(its_address), "several.test%s",
		 strrchr(url, ':'));
	sys_table.getaddrinfo = several_getaddrinfo;
	several_addresses = both;
	ck_assert_int_eq(
		with_given(fd, other, MOST + 1, NULL, is_given_too_many), 0);
	ck_assert_int_eq(with_given(fd, other, 2, NULL, asks_for_too_many), 0);
	ck_assert_int_eq(with_given(fd, fd, 1, NULL, asks_for_nonsense_too), 0);
	sys_table.getaddrinfo = getaddrinfo;
	close(fd);
	close(other);
}
END_TEST

/* Neither of its kind, nor of its family. */
static int is_another_socket(struct ss_start *start)
{
	char stream[SS_ADDRESS_TEXT];
	snprintf(stream, sizeof(stream), "tcp%s", its_url + 3);
	struct ss_config config = { .addresses = { stream, "[::1]:0" } };
	struct ss_diag why = { 0 };
	must(ss_start_adopt(start, NULL, &config, &why) == 0);
	must(ss_start_left(start, &why) == 1);
	must(config.addresses[0] == stream);
	return 0;
}

static int is_that_of_ipv6(struct ss_start *start)
{
	struct ss_config config = { .addresses = { "127.0.0.1:0", "[::1]:0" } };
	struct ss_diag why = { 0 };
	must(ss_start_adopt(start, NULL, &config, &why) == 1);
	must(strcmp(config.addresses[0], "127.0.0.1:0") == 0);
	must(strcmp(config.addresses[1], "fd:3") == 0);
	close(FIRST);
	return 0;
}

START_TEST(daemon_takes_what_is_of_its_kind_alone)
{
	char url[SS_ADDRESS_TEXT];
	struct sockaddr_in6 loopback = { .sin6_family = AF_INET6,
					 .sin6_addr = in6addr_loopback };
	int fd = bound_tcp(SOCK_DGRAM, url, sizeof(url));
	its_url = url;
	ck_assert_int_eq(with_given(fd, fd, 1, NULL, is_another_socket), 0);
	close(fd);
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1 ||
	    bind(fd, (struct sockaddr *)&loopback, sizeof(loopback)) == -1) {
		printf("skipped: no IPv6 here\n");
		return;
	}
	ck_assert_int_eq(listen(fd, 1), 0);
	ck_assert_int_eq(with_given(fd, fd, 1, "4 3p", is_that_of_ipv6), 0);
	close(fd);
}
END_TEST

/* Whoever is started by it is not taken for whom it was meant. */
START_TEST(daemon_takes_its_sockets_from_the_environment)
{
	static const char *const names[] = { "LISTEN_PID", "LISTEN_FDS",
					     "LISTEN_FDNAMES" };
	char pid[16];
	struct ss_start *start;
	struct ss_diag why;
	snprintf(pid, sizeof(pid), "%d", _i ? 1 : (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "0", 1);
	setenv("LISTEN_FDNAMES", "x", 1);
	ck_assert_int_eq(ss_start_new(&start, SS_START_AUTO, &why), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_ptr_null(getenv(names[i]));
	ck_assert_int_eq(ss_start_left(start, &why), 0);
	ck_assert_int_eq(ss_start_notify(start, "STATUS=x"), -ENOENT);
	ss_start_free(start);
	ss_start_free(NULL);
}
END_TEST

/* ---- the service manager --------------------------------------------------*/

/* A socket as NOTIFY_SOCKET names it: a path, or an abstract name. */
static int manager(char *name, size_t size, bool abstract)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	snprintf(name, size, "%s/notify", scratch());
	if (abstract)
		name[0] = '@';
	memcpy(un.sun_path, name, strlen(name));
	if (abstract)
		un.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(
		bind(fd, (struct sockaddr *)&un,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
				 strlen(name))),
		0);
	return fd;
}

/* What it is told next, and with which descriptor. */
static const char *told(int fd, int *passed)
{
	static char text[TEXT];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	ck_assert_msg(poll(&ready, 1, WAIT_MS) == 1, "it is told nothing");
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	const struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
	if (passed)
		*passed = -1;
	if (passed && header)
		memcpy(passed, CMSG_DATA(header), sizeof(*passed));
	return text;
}

START_TEST(daemon_tells_that_it_is_ready_and_stops)
{
	char name[SS_ADDRESS_TEXT], expected[TEXT];
	int fd = manager(name, sizeof(name), _i % 2);
	struct program server = { 0 };
	start_by_shell(&server,
		       "NOTIFY_SOCKET=%s exec %s -m %s tcp://127.0.0.1:0", name,
		       demo("echo_server"), models[_i / 2].name);
	const char *url = program_listening(&server);
	snprintf(expected, sizeof(expected), "READY=1\nSTATUS=serving %s", url);
	ck_assert_str_eq(told(fd, NULL), expected);
	echo_once(url, "hello\n");
	kill(server.pid, SIGTERM);
	ck_assert_str_eq(told(fd, NULL), "STOPPING=1\nSTATUS=stopping");
	program_wait(&server, &got);
	ck_assert_int_eq(got.status, 0);
	close(fd);
}
END_TEST

/* A stale one, or one of a kind that it does not know, is none. */
/* As many addresses as fit, each of them whole. */
START_TEST(daemon_tells_whole_addresses)
{
	char name[SS_ADDRESS_TEXT], list[TEXT] = "", last[SS_ADDRESS_TEXT];
	struct program server = { 0 };
	int fd = manager(name, sizeof(name), true);
	size_t used = 0;
	for (int i = 0; i < MOST; i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used,
					 " unix:%s/%0*d", scratch(), 60, i);
	start_by_shell(&server, "NOTIFY_SOCKET=%s exec %s%s", name,
		       demo("echo_server"), list);
	const char *text = told(fd, NULL);
	ck_assert_ptr_nonnull(strstr(text, "READY=1\nSTATUS=serving unix:"));
	int n = (int)strcspn(text, "\n") + 1;
	size_t length = strlen(text + n);
	ck_assert_uint_lt(length, 1000);
	ck_assert_uint_gt(length, 800);
	snprintf(last, sizeof(last), "%s ", strrchr(text, ' '));
	ck_assert_msg(strstr(list, last), "\"%s\" is none of them", last);
	program_stop(&server, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
	close(fd);
}
END_TEST

START_TEST(daemon_does_without_a_service_manager)
{
	static const char *const names[] = { "/nowhere/at/all", "vsock:2:9", "",
					     "x" };
	struct program server = { 0 };
	start_by_shell(&server, "NOTIFY_SOCKET=%s exec %s tcp://127.0.0.1:0",
		       names[_i], demo("echo_server"));
	echo_once(program_listening(&server), "hello\n");
	quit(&server);
}
END_TEST

static ssize_t interrupted(int fd, const struct msghdr *msg, int flags)
{
	sys_table.sendmsg = sendmsg;
	(void)fd, (void)msg, (void)flags;
	errno = EINTR;
	return -1;
}

START_TEST(daemon_tells_it_although_signals_come)
{
	char name[SS_ADDRESS_TEXT];
	struct ss_start *start;
	int fd = manager(name, sizeof(name), false);
	setenv("NOTIFY_SOCKET", name, 1);
	ck_assert_int_eq(ss_start_new(&start, SS_START_AUTO, NULL), 0);
	sys_table.sendmsg = interrupted;
	ck_assert_int_eq(ss_start_notify(start, "STATUS=x"), 0);
	ck_assert_str_eq(told(fd, NULL), "STATUS=x");
	ss_start_free(start);
	close(fd);
}
END_TEST

/* What it has no room for within a second is lost. */
START_TEST(daemon_is_not_kept_by_its_service_manager)
{
	enum { MANY = 10000 };
	char name[SS_ADDRESS_TEXT];
	struct ss_start *start;
	int n = 0, r = 0, fd = manager(name, sizeof(name), false);
	setenv("NOTIFY_SOCKET", name, 1);
	ck_assert_int_eq(ss_start_new(&start, SS_START_AUTO, NULL), 0);
	while (r == 0 && n++ < MANY)
		r = ss_start_notify(start, "STATUS=x");
	ck_assert_int_eq(r, -EAGAIN);
	ck_assert_str_eq(told(fd, NULL), "STATUS=x");
	ck_assert_int_eq(ss_start_notify(start, "STATUS=x"), 0);
	ss_start_free(start);
	close(fd);
}
END_TEST

static int reload_nothing(void *arg)
{
	(void)arg;
	return 0;
}

static struct ss_start *node_start_of;

static int run_told(struct ss_server *server)
{
	const struct ss_run_options o = { .start = node_start_of,
					  .reload = reload_nothing };
	return -ss_run(&server, 1, &o);
}

/* A node whose service manager is fd. */
static void told_node(struct node *node, const struct model *model)
{
	struct ss_config config = config_of(model, &transports[0], &telling);
	ck_assert_int_eq(ss_start_new(&node_start_of, SS_START_AUTO, NULL), 0);
	node_run(node, &config, run_told);
}

static void told_stopped(int fd, struct node *node)
{
	kill(node->pid, SIGTERM);
	while (strcmp(told(fd, NULL), "STOPPING=1\nSTATUS=stopping") != 0)
		;
	ck_assert_int_eq(node_wait(node), 0);
	ss_start_free(node_start_of);
	close(fd);
}

START_TEST(daemon_tells_that_it_reloads)
{
	char name[SS_ADDRESS_TEXT], ready[TEXT];
	struct node node;
	struct timespec before;
	long long us = 0;
	int fd = manager(name, sizeof(name), false);
	setenv("NOTIFY_SOCKET", name, 1);
	told_node(&node, &models[_i]);
	snprintf(ready, sizeof(ready), "READY=1\nSTATUS=serving %s", node.url);
	ck_assert_str_eq(told(fd, NULL), ready);
	clock_gettime(CLOCK_MONOTONIC, &before);
	kill(node.pid, SIGHUP);
	const char *text = told(fd, NULL);
	ck_assert_msg(sscanf(text, "RELOADING=1\nMONOTONIC_USEC=%lld\n", &us) ==
			      1,
		      "\"%s\"", text);
	/* systemd holds an earlier one for another reload. */
	ck_assert_int_ge(us, (long long)before.tv_sec * 1000000 +
				     before.tv_nsec / 1000);
	ck_assert_str_eq(told(fd, NULL), ready);
	told_stopped(fd, &node);
}
END_TEST

/* Its manager has a watchdog, and knows that it is ready; the manager. */
static int watched_node(struct node *node, const struct model *model,
			const char *us)
{
	char name[SS_ADDRESS_TEXT];
	int fd = manager(name, sizeof(name), false);
	setenv("NOTIFY_SOCKET", name, 1);
	setenv("WATCHDOG_USEC", us, 1);
	told_node(node, model);
	ck_assert_ptr_nonnull(strstr(told(fd, NULL), "READY=1"));
	return fd;
}

static void expect_fed(int fd, int times)
{
	for (int i = 0; i < times; i++)
		ck_assert_str_eq(told(fd, NULL), "WATCHDOG=1");
}

/* Half of 60 ms, also while nothing else happens. */
START_TEST(daemon_feeds_the_watchdog)
{
	struct node node;
	int fd = watched_node(&node, &models[_i], "60000");
	expect_fed(fd, 5);
	told_stopped(fd, &node);
}
END_TEST

/* Half of 6 s, and not all of them; told() waits for 5. */
START_TEST(daemon_feeds_the_watchdog_in_time)
{
	struct node node;
	int fd = watched_node(&node, &models[0], "6000000");
	expect_fed(fd, 2);
	told_stopped(fd, &node);
}
END_TEST

/* Less than a millisecond is one, and what no int holds is long. */
START_TEST(daemon_knows_the_watchdogs_limits)
{
	struct node node;
	int fd = watched_node(&node, &models[0],
			      _i ? "18446744073709551615" : "1");
	expect_fed(fd, _i ? 1 : 3);
	close(dial(node.url));
	kill(node.pid, SIGTERM);
	int more = 0;
	while (strcmp(told(fd, NULL), "STOPPING=1\nSTATUS=stopping") != 0)
		more++;
	ck_assert(!_i || more == 0);
	ck_assert_int_eq(node_wait(&node), 0);
	ss_start_free(node_start_of);
	close(fd);
}
END_TEST

/* It is another's, or none: nothing is said between the first and the last
 * word. */
START_TEST(daemon_feeds_no_watchdog_that_is_not_there)
{
	static const char *const times[] = { "1000", "0", "-1", "soon" };
	struct node node;
	if (_i == 0)
		setenv("WATCHDOG_PID", "1", 1);
	int fd = watched_node(&node, &models[0], times[_i]);
	pause_ms(50);
	kill(node.pid, SIGTERM);
	ck_assert_str_eq(told(fd, NULL), "STOPPING=1\nSTATUS=stopping");
	ck_assert_int_eq(node_wait(&node), 0);
	ss_start_free(node_start_of);
	close(fd);
}
END_TEST

START_TEST(daemon_stores_descriptors)
{
	char name[SS_ADDRESS_TEXT], url[SS_ADDRESS_TEXT];
	struct ss_start *start;
	struct stat ours, theirs;
	int passed, fd = manager(name, sizeof(name), true);
	setenv("NOTIFY_SOCKET", name, 1);
	ck_assert_int_eq(ss_start_new(&start, SS_START_AUTO, NULL), 0);
	int listener = bound_tcp(SOCK_STREAM, url, sizeof(url));
	ck_assert_int_eq(ss_start_store(start, "echo", listener), 0);
	ck_assert_str_eq(told(fd, &passed), "FDSTORE=1\nFDNAME=echo");
	ck_assert_int_ge(passed, 0);
	fstat(listener, &ours);
	fstat(passed, &theirs);
	ck_assert(ours.st_ino == theirs.st_ino);
	ck_assert_int_eq(ss_start_store(start, "echo", -1), 0);
	ck_assert_str_eq(told(fd, &passed), "FDSTOREREMOVE=1\nFDNAME=echo");
	ck_assert_int_eq(passed, -1);
	ck_assert_int_eq(ss_start_store(start, "a:b", listener), -EINVAL);
	ck_assert_int_eq(ss_start_store(start, "", listener), -EINVAL);
	ck_assert_int_eq(ss_start_store(start, "a\nb", listener), -EINVAL);
	memset(url, 'x', sizeof(url) - 1);
	url[sizeof(url) - 1] = '\0';
	ck_assert_int_eq(ss_start_store(start, url, listener), -EINVAL);
	ck_assert_int_eq(ss_start_notify(start, "STATUS=well\nX=1"), 0);
	ck_assert_str_eq(told(fd, NULL), "STATUS=well\nX=1");
	ss_start_free(start);
	close(listener);
	close(fd);
}
END_TEST

/* ---- the units of demos/systemd -------------------------------------------*/

#define UNITS "demos/systemd/"

/* A unit file's command, with our program and a port of the kernel's. */
static const char *command_of(const char *unit)
{
	static char command[TEXT];
	char script[TEXT];
	snprintf(script, sizeof(script),
		 "sed -n 's|^ExecStart=[^ ]*|%s|p' " UNITS
		 "%s | sed 's|:7777|:0|; s|:9100|:0|; s|/run/echo|%s|'",
		 demo("echo_server"), unit, scratch());
	program_run(&got, "", ARGV("sh", "-c", script));
	ck_assert_str_eq(got.err, "");
	snprintf(command, sizeof(command), "%.*s", (int)strcspn(got.out, "\n"),
		 got.out);
	ck_assert_ptr_nonnull(strstr(command, "echo_server"));
	return command;
}

START_TEST(daemon_is_started_by_its_unit)
{
	struct program server = { 0 };
	start_by_shell(&server, "exec %s", command_of("echo.service"));
	echo_once(program_listening(&server), "hello\n");
	/* Its figures', and its control's. */
	for (int i = 0; i < 2; i++)
		ck_assert_ptr_nonnull(strstr(program_line(&server), "fiber"));
	quit(&server);
}
END_TEST

START_TEST(daemon_is_started_by_its_socket_unit)
{
	char url[SS_ADDRESS_TEXT];
	int place = placed(bound_tcp(SOCK_STREAM, url, sizeof(url)), PLACE);
	struct program server = { 0 };
	start_by_shell(&server,
		       "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=echo "
		       "exec %s 3<&9 9<&-",
		       command_of("echo-activated.service"));
	ck_assert_str_eq(program_listening(&server), url);
	echo_once(url, "hello\n");
	quit(&server);
	close(place);
}
END_TEST

/* It looks for the program, which is not installed. */
START_TEST(daemon_units_are_verified)
{
	char script[TEXT];
	if (missing("systemd-analyze"))
		return;
	snprintf(script, sizeof(script),
		 "for unit in " UNITS "*; do "
		 "sed 's|=/usr/local/bin/echo_server|=%s|' $unit "
		 ">%s/${unit##*/}; done; cd %s; "
		 "systemd-analyze verify --man=no ./echo*; "
		 "status=$?; rm -f echo*; exit $status",
		 demo("echo_server"), scratch(), scratch());
	program_run(&got, "", ARGV("sh", "-c", script));
	ck_assert_str_eq(got.out, "");
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
}
END_TEST

static void add_given(Suite *suite)
{
	const int all = (int)(sizeof(activations) / sizeof(*activations));
	TCase *tcase = suite_case(suite, "given", NULL, NULL);
	tcase_add_loop_test(tcase, daemon_takes_a_listener_that_is_given, 0,
			    plain_count);
	tcase_add_test(tcase, daemon_takes_datagram_sockets_too);
	tcase_add_test(tcase, daemon_matches_listeners_by_address);
	tcase_add_test(tcase, daemon_matches_listeners_by_name);
	tcase_add_loop_test(tcase, daemon_knows_ports_that_the_kernel_chose, 0,
			    2);
	tcase_add_test(tcase, daemon_refuses_a_strange_environment);
	tcase_add_test(tcase, daemon_shares_its_sockets_out);
	tcase_add_loop_test(tcase, daemon_refuses_a_strange_restart, 0,
			    RESTARTS);
	tcase_add_loop_test(tcase, daemon_is_started_by_systemd_socket_activate,
			    0, all);
	tcase_add_test(tcase, daemon_serves_a_connection_of_systemd);
	tcase_add_test(tcase, daemon_is_given_all_or_nothing);
	tcase_add_test(tcase, daemon_takes_what_is_of_its_kind_alone);
	tcase_add_loop_test(
		tcase, daemon_takes_its_sockets_from_the_environment, 0, 2);
}

static void add_stdin(Suite *suite)
{
	TCase *tcase = suite_case(suite, "descriptor 0", NULL, NULL);
	tcase_add_loop_test(tcase, daemon_listens_at_descriptor_0, 0,
			    2 * plain_count);
	tcase_add_loop_test(tcase, daemon_serves_the_connection_at_descriptor_0,
			    0, plain_count);
	tcase_add_loop_test(tcase, daemon_ends_a_connection_when_told, 0,
			    plain_count);
	tcase_add_test(tcase, daemon_serves_by_socat);
	tcase_add_test(tcase, daemon_refuses_what_is_no_socket);
	tcase_add_loop_test(tcase, daemon_knows_the_addresses_of_ucspi, 0, 2);
	tcase_add_test(tcase, daemon_refuses_a_strange_ucspi);
	tcase_add_test(tcase, daemon_does_not_keep_what_it_cannot_serve);
	tcase_add_loop_test(tcase, daemon_is_started_by_tcpserver, 0,
			    plain_count);
	tcase_add_loop_test(tcase, daemon_is_started_by_inetd, 0, plain_count);
}

static void add_manager(Suite *suite)
{
	TCase *tcase = suite_case(suite, "manager", NULL, NULL);
	tcase_add_loop_test(tcase, daemon_tells_that_it_is_ready_and_stops, 0,
			    2 * plain_count);
	tcase_add_test(tcase, daemon_tells_whole_addresses);
	tcase_add_loop_test(tcase, daemon_does_without_a_service_manager, 0, 4);
	tcase_add_test(tcase, daemon_tells_it_although_signals_come);
	tcase_add_test(tcase, daemon_is_not_kept_by_its_service_manager);
	tcase_add_loop_test(tcase, daemon_tells_that_it_reloads, 0,
			    model_count);
	tcase_add_loop_test(tcase, daemon_feeds_the_watchdog, 0, model_count);
	tcase_add_test(tcase, daemon_feeds_the_watchdog_in_time);
	tcase_add_loop_test(tcase, daemon_knows_the_watchdogs_limits, 0, 2);
	tcase_add_loop_test(tcase, daemon_feeds_no_watchdog_that_is_not_there,
			    0, 4);
	tcase_add_test(tcase, daemon_stores_descriptors);
}

static void add_units(Suite *suite)
{
	TCase *tcase = suite_case(suite, "units", NULL, NULL);
	tcase_add_test(tcase, daemon_is_started_by_its_unit);
	tcase_add_test(tcase, daemon_is_started_by_its_socket_unit);
	tcase_add_test(tcase, daemon_units_are_verified);
}

Suite *t_daemon(void)
{
	Suite *suite = suite_create("t_daemon");
	add_given(suite);
	add_stdin(suite);
	add_manager(suite);
	add_units(suite);
	return suite;
}
