/*
 * Starting (PROMISES 17): one call resolves, binds and listens, or returns one
 * error that names the address and the reason, and leaves nothing behind,
 * whichever step of it fails.  The same torture for a request that is served:
 * whichever step fails, it costs at most that client.
 *
 * As SQLite and curl do it: the N-th fallible call fails, N = 1, 2, ... until
 * a run needs no fault.
 */
#include "support.h"

#include <poll.h>
#include <sys/stat.h>

#include <socketserver/fault.h>

Suite *t_start(void);

/* ---- what has failed ------------------------------------------------------*/

/* Calls without which the server may come up. */
static const char *const tolerated[] = {
	"open",	 "pidfd_open", "read",	  "fstat",	 "flock",
	"close", "epoll_ctl",  "madvise", "sigaltstack", NULL
};

static bool any_of(const char *const *names, const char *name)
{
	while (*names && strcmp(*names, name) != 0)
		names++;
	return *names != NULL;
}

static bool hit_is(const char *name)
{
	struct ss_fault hit;
	return ss_fault_struck(&hit) && strcmp(hit.call, name) == 0;
}

static bool onward(void)
{
	struct ss_fault hit;
	return ss_fault_struck(&hit) && hit.mode == SS_FAULT_ALL;
}

/* For messages: which call failed, and how. */
static const char *what(const char *scenario)
{
	static char text[200];
	snprintf(text, sizeof(text), "%s, %s", scenario, ss_fault_tell());
	return text;
}

static int highest; /* of the calls that failed in a sweep */

static void note_highest(void)
{
	struct ss_fault hit;
	if (ss_fault_struck(&hit) && hit.at > highest)
		highest = hit.at;
}

/* Runs it for each fault; from its ss_fault_arm on, and what is left it looks
 * at itself.  More calls than these can fail. */
static void sweep(const char *name, int modes,
		  int (*scenario)(void *arg, struct ss_diag *why), void *arg,
		  int calls)
{
	const struct ss_fault_options options = {
		.modes = modes,
		.unarmed = true,
		.unchecked = SS_FAULT_CHECKS,
	};
	struct ss_diag why;
	highest = 0;
	int r = ss_fault_sweep(&options, scenario, arg, &why);
	ck_assert_msg(r >= 0, "%s: %s", name, why.text);
	ck_assert_msg(highest >= calls, "%s: only %d calls", name, highest);
}

/* ---- a layer that knows where it is ---------------------------------------*/

static const struct ss_layer aware;
static bool hit_binding; /* a call has failed in server_bind or _activate */

static int aware_bind(struct ss_server *server)
{
	bool hit_before = ss_fault_struck(NULL);
	int r = ss_super(server, &aware)->server_bind(server);
	hit_binding |= !hit_before && ss_fault_struck(NULL);
	return r;
}

static int aware_activate(struct ss_server *server)
{
	bool hit_before = ss_fault_struck(NULL);
	int r = ss_super(server, &aware)->server_activate(server);
	hit_binding |= !hit_before && ss_fault_struck(NULL);
	return r;
}

static const struct ss_layer aware = {
	.name = "aware",
	.server_size = 10000, /* it does not lie beside the server's own */
	.request_size = 100,
	.ops.server_bind = aware_bind,
	.ops.server_activate = aware_activate,
};

/* ---- scenarios ------------------------------------------------------------*/

static int echo(struct ss_request *req)
{
	char buf[100];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler echo_handler = { .handle = echo };
static const struct ss_handler prompt_handler = {
	.handle = echo,
	.disable_nagle_algorithm = true,
};

static void quiet(void *arg, int level, struct ss_server *server, uint64_t id,
		  const char *text)
{
	(void)arg, (void)level, (void)server, (void)id, (void)text;
}

/* A server to be made; `address` is what its errors must name. */
struct scenario {
	const char *name;
	const char *address; /* "%s": scratch() */
	const char *more;    /* a second one */
	bool stale;	     /* a dead server's file is in the way */
	bool adopted;	     /* a listening socket at that descriptor */
	bool everywhere;     /* a wildcard */
	struct ss_socket_options options;
	bool prompt, timed, threading, forking;
};

static const struct scenario scenarios[] = {
	{ .name = "tcp", .address = "tcp://127.0.0.1:0" },
	{ .name = "tcp, all",
	  .address = "tcp://127.0.0.1:0",
	  .prompt = true,
	  .timed = true,
	  .threading = true,
	  .options = { .reuse_port = true, .request_queue_size = 100000 } },
	{ .name = "tcp, two addresses",
	  .address = "tcp://127.0.0.1:0",
	  .more = "tcp://127.0.0.2:0",
	  .forking = true },
	{ .name = "tcp, every interface",
	  .address = "tcp://:0",
	  .everywhere = true },
	{ .name = "udp", .address = "udp://127.0.0.1:0" },
	{ .name = "udp, every interface",
	  .address = "udp://:0",
	  .everywhere = true,
	  .threading = true },
	{ .name = "udp, IPv4",
	  .address = "udp://0.0.0.0:0",
	  .everywhere = true,
	  .forking = true },
	{ .name = "unix", .address = "unix:%s/a" },
	{ .name = "unix, stale",
	  .address = "unix:%s/a",
	  .stale = true,
	  .threading = true },
	{ .name = "unix, mode and owner",
	  .address = "unix:%s/a",
	  .options = { .set_mode = true,
		       .mode = 0600,
		       .set_uid = true,
		       .set_gid = true } },
	{ .name = "unix, abstract", .address = "unix:@ss-start" },
	{ .name = "unix, two", .address = "unix:%s/a", .more = "unix:%s/b" },
	{ .name = "unixgram", .address = "unixgram:%s/a" },
	{ .name = "unixgram, stale",
	  .address = "unixgram:%s/a",
	  .stale = true,
	  .forking = true },
	{ .name = "adopted", .address = "fd:9", .adopted = true },
	{ .name = "adopted at 0", .address = "fd:0", .adopted = true },
};

enum { SCENARIOS = sizeof(scenarios) / sizeof(*scenarios) };

static const char *in_scratch(const char *text)
{
	static char result[2][100];
	static int turn;
	if (!text)
		return NULL;
	const char *at = strstr(text, "%s");
	char *to = result[turn++ % 2];
	if (at)
		snprintf(to, sizeof(*result), "%.*s%s%s", (int)(at - text),
			 text, scratch(), at + 2);
	else
		snprintf(to, sizeof(*result), "%s", text);
	return to;
}

static struct ss_config config_for(const struct scenario *scenario)
{
	static struct ss_socket_options options;
	options = scenario->options;
	options.uid = geteuid();
	options.gid = getegid();
	struct ss_config config = {
		.addresses = { in_scratch(scenario->address),
			       in_scratch(scenario->more) },
		.mixins = { { &aware, NULL },
			    { scenario->threading ? &ss_threading_mixin
			      : scenario->forking ? &ss_forking_mixin
						  : NULL,
			      NULL } },
		.handler = scenario->prompt ? &prompt_handler : &echo_handler,
		.refusal = "no\n",
		.transport_options = &options,
		.log = quiet,
	};
	if (scenario->timed)
		config.timeouts.io_ms = WAIT_MS;
	return config;
}

static void bind_unix(const char *path, int type)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	int fd = socket(AF_UNIX, type, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
}

/* What is there before it starts. */
static void set_scene(const struct scenario *scenario)
{
	const char *address = in_scratch(scenario->address);
	if (scenario->stale && access(strchr(address, '/'), F_OK) != 0)
		bind_unix(strchr(address, '/'),
			  address[4] == ':' ? SOCK_STREAM : SOCK_DGRAM);
	if (!scenario->adopted)
		return;
	struct sockaddr_in loopback = { .sin_family = AF_INET };
	loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(
		bind(fd, (struct sockaddr *)&loopback, sizeof(loopback)), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	int place = (int)strtol(address + 3, NULL, 10);
	if (fd != place) {
		ck_assert_int_eq(dup2(fd, place), place);
		close(fd);
	}
}

static bool readable(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	return poll(&pollfd, 1, 0) == 1;
}

/* It answers a client; without a thread, so that who fails is plain.  Who
 * looked whether it is alive may have come first. */
static void serves(struct ss_server *server)
{
	char url[SS_ADDRESS_TEXT];
	int fd = dial(ss_server_url(server, 0, url, sizeof(url)));
	send_text(fd, "hello");
	int type = ss_server_socket_type(server);
	if (type == SOCK_STREAM)
		shutdown(fd, SHUT_WR);
	int64_t until = ss_now(server) + WAIT_MS;
	while (!readable(fd) && ss_now(server) < until)
		ck_assert_int_ge(ss_server_turn(server, ss_now(server) + 1), 0);
	expect_text(fd, "hello");
	if (type == SOCK_STREAM)
		expect_end(fd);
	close(fd);
}

static void starts_and_serves(const struct scenario *scenario)
{
	set_scene(scenario);
	struct ss_config config = config_for(scenario);
	struct ss_server *server = made(&config);
	if (scenario->options.request_queue_size == 0 ||
	    ss_server_socket_type(server) == SOCK_STREAM)
		serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
}

/* ---- one call, or nothing -------------------------------------------------*/

/* Codes that are answered in other words. */
static bool right_code(const struct scenario *scenario, int code)
{
	struct ss_fault hit = { 0 };
	ss_fault_struck(&hit);
	if (hit_is("connect")) /* so it may be alive */
		return code == -EADDRINUSE;
	if (scenario->adopted && code == -EINVAL) /* not such a socket */
		return hit_is("getsockopt") || hit_is("getsockname");
	return code == -hit.error;
}

/* An address is named as it was given, or as it is: with its real port, and
 * every interface as one or the other. */
static bool names(const char *text, const char *address)
{
	if (!address)
		return false;
	const char *all = strstr(address, "//:0");
	if (all)
		return strstr(text, "//[::]:") || strstr(text, "//0.0.0.0:") ||
		       strstr(text, address);
	char start[SS_ADDRESS_TEXT];
	snprintf(start, sizeof(start), "%s", address);
	if (address[0] == 't' || strncmp(address, "udp", 3) == 0)
		*strrchr(start, ':') = '\0';
	return strstr(text, start);
}

static void check_words(const struct scenario *scenario,
			const struct ss_diag *why, const char *context)
{
	const char *reason = strerror(-why->code);
	ck_assert_msg(why->text[0] && !strchr(why->text, '\n'), "%s: \"%s\"",
		      context, why->text);
	if (onward())
		return; /* what failed first need not be what mattered */
	if (!hit_binding && !hit_is("getaddrinfo")) {
		ck_assert_msg(strstr(why->text, reason) ||
				      strstr(why->text, "no memory") ||
				      scenario->adopted,
			      "%s: \"%s\"", context, why->text);
		return;
	}
	bool named = names(why->text, in_scratch(scenario->address)) ||
		     names(why->text, in_scratch(scenario->more));
	ck_assert_msg(named, "%s: \"%s\" names no address", context, why->text);
	bool said = strstr(why->text, reason) ||
		    strstr(why->text, "another server") ||
		    strstr(why->text, "Memory allocation failure") ||
		    strstr(why->text, "Temporary failure in name resolution") ||
		    scenario->adopted;
	ck_assert_msg(said, "%s: \"%s\" does not say %s", context, why->text,
		      reason);
}

/* Sockets that lie in scratch(); locks are let lie. */
static int sockets_left(void)
{
	char path[100];
	struct stat st;
	int n = 0;
	for (const char *name = "ab"; *name; name++) {
		snprintf(path, sizeof(path), "%s/%c", scratch(), *name);
		n += lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
	}
	return n;
}

struct before {
	struct ss_fault_state state;
	int sockets;
};

static struct before look(void)
{
	struct before before = { .sockets = sockets_left() };
	ss_fault_look(&before.state);
	return before;
}

/* A stale file may be gone; and where unlink fails for ever, nobody can help.
 */
static void nothing_is_left(const struct before *before, const char *context)
{
	struct ss_diag why;
	int r = ss_fault_left(&before->state, &why);
	ck_assert_msg(r == 0, "%s: %s", context, why.text);
	ck_assert_msg(sockets_left() <= before->sockets || onward(),
		      "%s: a socket is left", context);
}

/* What was given may be closed. */
static void look_again_at_adopted(const struct scenario *scenario,
				  struct before *before)
{
	if (scenario->adopted &&
	    fcntl((int)strtol(scenario->address + 3, NULL, 10), F_GETFD) == -1)
		before->state.descriptors--;
}

static int start_with_fault(void *arg, struct ss_diag *unused)
{
	const struct scenario *scenario = arg;
	set_scene(scenario);
	struct ss_config config = config_for(scenario);
	struct before before = look();
	struct ss_server *server = (struct ss_server *)&config;
	struct ss_diag why = { .code = 1 };
	hit_binding = false;
	ss_fault_arm();
	int r = ss_server_new(&server, &config, &why);
	ss_fault_disarm();
	(void)unused;
	const char *context = what(scenario->name);
	struct ss_fault hit;
	bool struck = ss_fault_struck(&hit);
	ck_assert_int_eq(why.code, r);
	if (r == 0) {
		ck_assert_msg(!struck || any_of(tolerated, hit.call) ||
				      scenario->timed,
			      "%s: it was not noticed", context);
		serves(server);
		ck_assert_int_eq(ss_server_free(server), 0);
	} else {
		ck_assert_ptr_null(server);
		ck_assert_msg(struck, "%s: %s", context, why.text);
		ck_assert_msg(onward() || right_code(scenario, r),
			      "%s: code %d, \"%s\"", context, r, why.text);
		check_words(scenario, &why, context);
	}
	look_again_at_adopted(scenario, &before);
	nothing_is_left(&before, context);
	starts_and_serves(scenario);
	note_highest();
	return 0;
}

START_TEST(start_fails_at_any_step_and_leaves_nothing)
{
	struct scenario scenario = scenarios[_i / 2];
	if (scenario.everywhere && exposed())
		return;
	starts_and_serves(&scenario); /* libc's first time */
	sweep(scenario.name, _i % 2 ? SS_FAULT_ALL : SS_FAULT_ONCE,
	      start_with_fault, &scenario, 15);
}
END_TEST

/* Nothing but the listeners' end may be lost where closing is disturbed. */
static int end_with_fault(void *arg, struct ss_diag *unused)
{
	const struct scenario *scenario = arg;
	set_scene(scenario);
	struct before before = look();
	struct ss_config config = config_for(scenario);
	struct ss_server *server = made(&config);
	ss_fault_arm();
	int r = ss_server_free(server);
	ss_fault_disarm();
	(void)unused;
	const char *context = what(scenario->name);
	ck_assert_msg(r == 0, "%s: %d", context, r);
	before.sockets += 2; /* unlink may be what failed */
	look_again_at_adopted(scenario, &before);
	nothing_is_left(&before, context);
	starts_and_serves(scenario);
	return 0;
}

START_TEST(start_can_be_undone_whatever_fails)
{
	struct scenario scenario = scenarios[_i];
	if (scenario.everywhere && exposed())
		return;
	starts_and_serves(&scenario);
	sweep(scenario.name, SS_FAULT_ONCE, end_with_fault, &scenario, 0);
}
END_TEST

/* In two steps, as bind_and_activate = False. */
static int start_in_two_steps(void *arg, struct ss_diag *unused)
{
	const struct scenario *scenario = arg;
	set_scene(scenario);
	struct before before = look();
	struct ss_config config = config_for(scenario);
	config.no_bind = true;
	struct ss_server *server = made(&config);
	struct ss_diag why = { 0 };
	hit_binding = false;
	ss_fault_arm();
	int r = ss_server_bind(server, &why);
	if (r == 0)
		r = ss_server_activate(server, &why);
	ss_fault_disarm();
	(void)unused;
	const char *context = what(scenario->name);
	ck_assert_int_eq(why.code, r);
	if (r < 0)
		check_words(scenario, &why, context);
	else
		serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
	look_again_at_adopted(scenario, &before);
	nothing_is_left(&before, context);
	return 0;
}

START_TEST(start_in_two_steps_fails_cleanly_too)
{
	struct scenario scenario = scenarios[_i];
	if (scenario.everywhere && exposed())
		return;
	starts_and_serves(&scenario);
	sweep(scenario.name, SS_FAULT_ONCE, start_in_two_steps, &scenario, 0);
}
END_TEST

/* ---- without faults -------------------------------------------------------*/

static void refused_at(const char *address, int code, const char *part)
{
	struct ss_config config = { .addresses = { address },
				    .handler = &echo_handler };
	refused(&config, code, address);
	refused(&config, code, part);
	/* Who does not want to know need not. */
	struct ss_server *server = (struct ss_server *)&config;
	ck_assert_int_eq(ss_server_new(&server, &config, NULL), code);
	ck_assert_ptr_null(server);
}

START_TEST(start_refuses_with_address_and_reason)
{
	refused_at("tcp://127.0.0.1:80x", -EINVAL, "port \"80x\"");
	refused_at("tcp://127.0.0.1:70000", -EINVAL, "not in 0..65535");
	refused_at("tcp://127.0.0.1:", -EINVAL, "port \"\"");
	refused_at("127.0.0.1:no-such-service", -ENOENT, "no-such-service");
	refused_at("tcp://192.0.2.1:0", -EADDRNOTAVAIL, "Cannot assign");
	refused_at("udp://192.0.2.1:0", -EADDRNOTAVAIL, "Cannot assign");
	refused_at("unix:/nonexistent/x", -ENOENT, "No such file");
	refused_at("unixgram:/nonexistent/x", -ENOENT, "No such file");
	refused_at("unix:/proc/x", -ENOENT, "No such file");
	refused_at("fd:77", -EINVAL, "Bad file descriptor");
	refused_at("unix:", -EINVAL, "the path is empty");
	struct ss_config none = { .handler = &echo_handler };
	refused(&none, -EINVAL, "address");
	none.addresses[0] = "";
	refused(&none, -EINVAL, "\"\"");
}
END_TEST

/* A living server is named, and goes on. */
START_TEST(start_refuses_an_address_in_use)
{
	const struct transport *transport = &transports[_i];
	struct ss_config config =
		config_of(&models[0], transport, &echo_handler);
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT];
	ss_server_url(server, 0, url, sizeof(url));
	refused_at(url, -EADDRINUSE,
		   transport->layer->flags & SS_LAYER_UNIX
			   ? "another server"
			   : "Address already in use");
	serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
	config.addresses[0] = url;
	server = made(&config);
	serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* By the time it returns clients may connect, and it has its real address. */
START_TEST(start_means_that_clients_may_connect)
{
	const struct transport *transport = &transports[_i];
	struct ss_config config =
		config_of(&models[0], transport, &echo_handler);
	struct ss_diag why = { .code = 1, .text = "old" };
	struct ss_server *server;
	ck_assert_int_eq(ss_server_new(&server, &config, &why), 0);
	ck_assert_int_eq(why.code, 0);
	ck_assert_str_eq(why.text, "");
	struct ss_address address;
	ck_assert_int_eq(ss_server_address(server, 0, &address), 0);
	ck_assert_int_ne(ss_address_port(&address), 0);
	serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- a request ------------------------------------------------------------*/

enum { BUSY_STATE = 500 };

/*
 * A handler that needs much: state, buffers, a long text, a file, a pipe to
 * sleep on, its own address.
 */
static int busy_handle(struct ss_request *req)
{
	char line[100];
	memset(ss_state(req), 1, BUSY_STATE);
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	struct ss_address own;
	int r = ss_sleep(req, 1);
	if (r >= 0)
		r = ss_request_local(req, &own);
	if (r >= 0)
		n = ss_printf(req, "%s%0600d\n", line, 1);
	if (r >= 0 && n >= 0 && !ss_request_dgram(req)) {
		int fd = *(int *)ss_server_user(ss_request_server(req));
		n = ss_sendfile(req, fd, 0, 7);
	}
	return r < 0 ? r : n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler busy = {
	.handle = busy_handle,
	.size = BUSY_STATE,
	.wbufsize = SS_NONE,
};

static int file_of_seven_bytes(void)
{
	char path[100];
	snprintf(path, sizeof(path), "%s/file", scratch());
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, "a file\n", 7), 7);
	return fd;
}

static uint64_t stat_of(struct ss_server *server, bool ended)
{
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	return ended ? stats.ended : stats.accepted;
}

/* Without a call that could be made to fail; a Unix client has a name. */
static int dial_plainly(const struct served *served, bool stream)
{
	struct ss_address to;
	sa_family_t unnamed = AF_UNIX;
	ck_assert_int_eq(ss_server_address(served->server, 0, &to), 0);
	int family = to.u.sa.sa_family;
	int fd = socket(family, stream ? SOCK_STREAM : SOCK_DGRAM, 0);
	if (family == AF_UNIX)
		ck_assert_int_eq(
			bind(fd, (struct sockaddr *)&unnamed, sizeof(unnamed)),
			0);
	ck_assert_int_eq(connect(fd, &to.u.sa, to.len), 0);
	return fd;
}

/* Nothing failed, or nothing that who tries again would notice. */
static bool unharmed(void)
{
	struct ss_fault hit;
	return !ss_fault_struck(&hit) || hit.error == EINTR;
}

/* A stream's answer or none, but its end; who has seen it was accepted. */
static size_t until_end(int fd)
{
	char reply[2000];
	size_t total = 0;
	ssize_t n;
	shutdown(fd, SHUT_WR);
	while ((n = recv_within(fd, reply, sizeof(reply), WAIT_MS)) > 0)
		total += (size_t)n;
	ck_assert_msg(n == 0 || n == -ECONNRESET, "no end: %s",
		      strerror((int)-n));
	return total;
}

/* A datagram's answer, unless the fault has met it. */
static size_t until_lost(int fd)
{
	char reply[2000];
	int64_t until = clock_ms() + WAIT_MS;
	ssize_t n;
	do
		n = recv_within(fd, reply, sizeof(reply), 2);
	while (n < 0 && clock_ms() < until && unharmed());
	return n < 0 ? 0 : (size_t)n;
}

/* Answer, end or silence: whatever the fault makes of it. */
static void any_exchange(struct served *served, bool stream)
{
	size_t whole = strlen("hello\n") + 601 + (stream ? 7 : 0);
	int fd = dial_plainly(served, stream);
	send(fd, "hello\n", 6, MSG_NOSIGNAL);
	size_t n = stream ? until_end(fd) : until_lost(fd);
	ck_assert_msg(n == whole || !unharmed(), "%zu bytes of %zu: %s", n,
		      whole, what("request"));
	close(fd);
	eventually(stat_of(served->server, true) ==
		   stat_of(served->server, false));
}

static void good_exchange(const struct served *served, bool stream)
{
	char expected[700];
	snprintf(expected, sizeof(expected), "hello\n%0600d\n%s", 1,
		 stream ? "a file\n" : "");
	int fd = dial(served->url);
	send_text(fd, "hello\n");
	if (stream)
		shutdown(fd, SHUT_WR);
	expect_text(fd, expected);
	if (stream)
		expect_end(fd);
	close(fd);
}

/* Its end would interrupt our own recv. */
static void block_sigchld(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	ck_assert_int_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
}

struct subject {
	const struct ss_config *config; /* of a new server for each run */
	struct served served;
	bool stream;
};

static int request_with_fault(void *arg, struct ss_diag *why)
{
	struct subject *subject = arg;
	(void)why;
	ss_fault_arm();
	any_exchange(&subject->served, subject->stream);
	ss_fault_disarm();
	good_exchange(&subject->served, subject->stream);
	note_highest();
	return 0;
}

/* Each time a new server's first: later ones find memory that it has kept. */
static int first_request_with_fault(void *arg, struct ss_diag *why)
{
	struct subject *subject = arg;
	struct before before = look();
	served_start(&subject->served, subject->config);
	request_with_fault(arg, why);
	served_stop(&subject->served);
	nothing_is_left(&before, what("first request"));
	return 0;
}

START_TEST(request_costs_at_most_its_client_whatever_fails)
{
	const struct model *model = &models[_i / transport_count];
	const struct transport *transport = &transports[_i % transport_count];
	struct subject subject = { .stream = transport->stream };
	block_sigchld();
	look();
	begin_threads();
	int file = file_of_seven_bytes();
	struct ss_config config = config_of(model, transport, &busy);
	/* No thread is at hand: each request needs one made. */
	static const struct ss_threading_options none = { .max_idle = SS_NONE };
	use_options(&config, &ss_threading_mixin, &none);
	config.user = &file;
	config.timeouts.io_ms = WAIT_MS;
	config.log = quiet;
	struct before before = look();
	served_start(&subject.served, &config);
	good_exchange(&subject.served, transport->stream);
	sweep(model->name, SS_FAULT_ONCE, request_with_fault, &subject, 3);
	served_stop(&subject.served);
	nothing_is_left(&before, model->name);
	close(file);
}
END_TEST

START_TEST(first_request_costs_at_most_its_client_whatever_fails)
{
	const struct transport *transport = &transports[_i];
	block_sigchld();
	look();
	begin_threads();
	int file = file_of_seven_bytes();
	struct ss_config config = config_of(&models[0], transport, &busy);
	config.user = &file;
	config.timeouts.io_ms = WAIT_MS;
	config.log = quiet;
	struct subject subject = { .config = &config,
				   .stream = transport->stream };
	sweep(transport->name, SS_FAULT_ONCE, first_request_with_fault,
	      &subject, 6);
	close(file);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

Suite *t_start(void)
{
	Suite *suite = suite_create("t_start");
	TCase *tcase = tcase_create("start");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase, start_means_that_clients_may_connect, 0,
			    transport_count);
	tcase_add_test(tcase, start_refuses_with_address_and_reason);
	tcase_add_loop_test(tcase, start_refuses_an_address_in_use, 0,
			    transport_count);
	tcase_add_loop_test(tcase, start_fails_at_any_step_and_leaves_nothing,
			    0, SCENARIOS * 2);
	tcase_add_loop_test(tcase, start_can_be_undone_whatever_fails, 0,
			    SCENARIOS);
	tcase_add_loop_test(tcase, start_in_two_steps_fails_cleanly_too, 0,
			    SCENARIOS);
	tcase = tcase_create("request");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase,
			    request_costs_at_most_its_client_whatever_fails, 0,
			    model_count * transport_count);
	tcase_add_loop_test(
		tcase, first_request_costs_at_most_its_client_whatever_fails, 0,
		transport_count);
	return suite;
}
