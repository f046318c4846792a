/*
 * What daemons do beside serving, with every call failing in turn: start with
 * sockets that they were given, drop their privileges, log, and restart over
 * the same listeners.  Each says that it cannot, or has done it, and leaves
 * nothing behind.
 */
#include "handlers.h"
#include "support.h"

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <socketserver/fault.h>

enum { FIRST_GIVEN = 3, RESTART_MS = 300, SOME = 7 };

static int wrong(struct ss_diag *why, const char *what)
{
	snprintf(why->text, sizeof(why->text), "%s", what);
	return SS_FAULT_WRONG;
}

static void sweep(int (*scenario)(void *arg, struct ss_diag *why), void *arg,
		  struct ss_fault_options options, int least)
{
	struct ss_diag why;
	int faults = ss_fault_sweep(&options, scenario, arg, &why);
	ck_assert_msg(faults >= least, "%d: %s", faults, why.text);
}

/* ---- in a process of its own ----------------------------------------------*/

static struct ss_diag *told; /* in shared memory: by that process */

static const char *new_root; /* which it goes to */

static _Noreturn void be_child(int (*body)(struct ss_diag *why))
{
	struct ss_fault_state before;
	ss_fault_look(&before);
	ss_fault_arm();
	int r = body(told);
	ss_fault_disarm();
	if (r <= 0 && ss_fault_left(&before, told) < 0)
		r = SS_FAULT_WRONG;
	/* Below another root coverage cannot be written. */
	(new_root ? _exit : sys_exit)(r < 0 ? 2 : r > 0 ? 3 : 0);
}

static int forked(int (*body)(struct ss_diag *why), struct ss_diag *why)
{
	int status;
	if (!told)
		told = ss_shared_alloc(sizeof(*told));
	ck_assert_ptr_nonnull(told);
	*told = (struct ss_diag){ 0 };
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		be_child(body);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	*why = *told;
	if (!WIFEXITED(status) || WEXITSTATUS(status) == 3)
		return why->text[0] ? SS_FAULT_WRONG : wrong(why, "it died");
	return WEXITSTATUS(status) ? -ECANCELED : 0;
}

/* ---- privileges -----------------------------------------------------------*/

static int be_another(struct ss_diag *why)
{
	const struct ss_privileges privileges = {
		.user = "12345",
		.group = "12345",
		.chroot = new_root,
#ifdef SS_LINUX
		.no_new_privs = true,
#endif
	};
	int r = ss_check_privileges(&privileges, why);
	if (r >= 0)
		r = ss_drop_privileges(&privileges, why);
	ss_fault_disarm();
	if (r < 0)
		return why->text[0] ? r : wrong(why, "no reason");
	if (getuid() == 0 || geteuid() == 0 || setuid(0) == 0 ||
	    getgid() == 0 || access("/proc", F_OK) == 0)
		return wrong(why, "it is root still");
	return 0;
}

static int drop_privileges(void *arg, struct ss_diag *why)
{
	(void)arg;
	return forked(be_another, why);
}

START_TEST(privileges_are_dropped_or_it_is_said)
{
	if (geteuid() != 0) {
		printf("skipped: privileges: not root\n");
		return;
	}
	new_root = scratch();
	sweep(drop_privileges, NULL,
	      (struct ss_fault_options){ .unarmed = true }, 8);
}
END_TEST

/* ---- a listener that is given ---------------------------------------------*/

static atomic_int *stays; /* lines that say so of a restart; shared memory */

static void look_at_line(void *arg, int level, struct ss_server *server,
			 uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	if (strncmp(text, "restart: ", 9) == 0)
		atomic_fetch_add(stays, 1);
}

static int given; /* a listener, or a connection that it is told of */

/* As systemd starts it, or inetd. */
static const struct {
	enum ss_start_mode mode;
	bool connected;
} starts[] = {
	{ SS_START_AUTO, false },
	{ SS_START_STDIN, false },
	{ SS_START_STDIN, true },
};
enum { STARTS = sizeof(starts) / sizeof(*starts) };
static int started; /* by that one */

/* What was meant for a server that could not be made may be closed. */
static void lose(const char *address)
{
	int fd = address ? (int)strtol(address + 3, NULL, 10) : -1;
	ss_fault_disarm();
	if (fcntl(fd, F_GETFD) != -1)
		close(fd);
}

static int start_with(struct ss_start *start, struct ss_diag *why)
{
	struct ss_config config = { .handler = &ss_echo_handler,
				    .log = look_at_line };
	const struct ss_run_options options = { .start = start };
	struct ss_server *server;
	int r = ss_start_adopt(start, NULL, &config, why);
	if (r >= 0) {
		r = ss_server_new(&server, &config, why);
		if (r < 0)
			lose(config.addresses[0]);
	}
	if (r < 0)
		return why->text[0] ? r : wrong(why, "no reason");
	if (starts[started].connected && ss_run(&server, 1, &options) != 0)
		r = -ECANCELED;
	ss_fault_disarm();
	int freed = ss_server_free(server);
	return freed < 0 ? freed : r < 0 ? r : 0;
}

static void set_environment(void)
{
	char pid[20];
	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	if (starts[started].mode == SS_START_AUTO) {
		setenv("NOTIFY_SOCKET", "@ss-bearing-nobody", 1);
		setenv("LISTEN_PID", pid, 1);
		setenv("LISTEN_FDS", "1", 1);
	} else if (starts[started].connected) {
		setenv("PROTO", "TCP", 1);
		setenv("TCPLOCALIP", "192.0.2.1", 1);
		setenv("TCPLOCALPORT", "80", 1);
	}
}

/* Descriptor 3, or 0 and 1, are its own from here on. */
static int start_daemon(struct ss_diag *why)
{
	bool listed = starts[started].mode == SS_START_AUTO;
	int first = listed ? FIRST_GIVEN : 0;
	struct ss_start *start;
	ss_fault_disarm();
	set_environment();
	int place = fcntl(first, F_GETFD);
	dup2(given, first);
	if (!listed)
		dup2(given, 1);
	ss_fault_arm();
	int r = ss_start_new(&start, starts[started].mode, why);
	if (r >= 0) {
		r = start_with(start, why);
		ss_start_free(start);
	} else if (!why->text[0]) {
		r = wrong(why, "no reason");
	}
	ss_fault_disarm();
	if (place == -1)
		close(first);
	else if (listed)
		dup2(STDIN_FILENO, first);
	return r;
}

static int be_started(void *arg, struct ss_diag *why)
{
	(void)arg;
	return forked(start_daemon, why);
}

static int tcp_listener(void)
{
	struct sockaddr_in loopback = { .sin_family = AF_INET };
	loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(
		bind(fd, (struct sockaddr *)&loopback, sizeof(loopback)), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	return fd;
}

static void begin_log(void)
{
	stays = ss_shared_alloc(sizeof(*stays));
	ck_assert_ptr_nonnull(stays);
}

/* Its client is answered, or has an end. */
static int be_started_for_a_client(void *arg, struct ss_diag *why)
{
	char got[8] = "";
	int listener = *(int *)arg;
	struct sockaddr_in at;
	socklen_t len = sizeof(at);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&at, &len),
			 0);
	ck_assert_int_eq(connect(client, (struct sockaddr *)&at, len), 0);
	given = accept(listener, NULL, NULL);
	ck_assert_int_ge(given, 0);
	send_text(client, "hello");
	shutdown(client, SHUT_WR);
	int r = forked(start_daemon, why);
	close(given);
	ssize_t n = recv_within(client, got, sizeof(got) - 1, WAIT_MS);
	close(client);
	if (r == 0 && !ss_fault_struck(NULL) && strcmp(got, "hello") != 0)
		return wrong(why, "no answer");
	if (n == -EAGAIN)
		return wrong(why, "its client waits for ever");
	return r;
}

START_TEST(daemons_start_or_say_why_not)
{
	begin_log();
	started = _i;
	given = tcp_listener();
	sweep(starts[_i].connected ? be_started_for_a_client : be_started,
	      &(int){ given }, (struct ss_fault_options){ .unarmed = true },
	      20);
}
END_TEST

/* ---- what a handler asks for ----------------------------------------------*/

/*
 * A call that a handler makes: it is told what failed, by the error that was
 * had, and where it asks again it is done, once, with nothing lost or doubled.
 */
struct deed {
	const char *name;
	int (*act)(struct ss_request *req);
	const char *input, *answer; /* the client says, and hears, but blanks */
	bool tcp;
};
static const struct deed *deed;
static char told_of_deed[100];
static int file; /* "a file\n" */
static char urgent[] = "!";

static int has_a_file(struct ss_request *req)
{
	FILE *f = ss_file(req);
	if (!f)
		return -errno;
	clearerr(f);
	return fprintf(f, "printed") == 7 ? 0 : -errno;
}

static int handled(struct ss_request *req)
{
	(void)req;
	return 0;
}

static int chooses_a_handler(struct ss_request *req)
{
	static const struct ss_handler other = { .handle = handled,
						 .timeouts.io_ms = WAIT_MS };
	const struct ss_handler *before = ss_request_handler(req);
	int r = ss_request_set_handler(req, &other);
	ck_assert_ptr_eq(ss_request_handler(req), r < 0 ? before : &other);
	return r;
}

/* The error that it is about is told, even where there is no room for words. */
static int says_what_failed(struct ss_request *req)
{
	ck_assert_int_eq(ss_fail(req, -EPROTO, "line %d", 7), -EPROTO);
	return 0;
}

static int sets_its_address(struct ss_request *req)
{
	struct ss_address own = { .u.in.sin_family = AF_INET,
				  .len = sizeof(own.u.in) };
	struct ss_address back;
	int r = ss_request_set_local(req, &own);
	if (r == 0)
		r = ss_request_local(req, &back);
	ck_assert(r < 0 || ss_address_equal(&own, &back));
	return r;
}

static int prints_much(struct ss_request *req)
{
	ssize_t n = ss_printf(req, "%600d", 7);
	ck_assert_int_eq(ss_sent(req), n < 0 ? 0 : 600);
	return n < 0 ? (int)n : 0;
}

static int sends_a_file(struct ss_request *req)
{
	static size_t sent;
	if (!ss_fault_struck(NULL))
		sent = 0;
	ssize_t n = ss_sendfile(req, file, (off_t)sent, 7 - sent);
	sent += ss_sent(req);
	ck_assert(n < 0 || sent == 7);
	sent = n < 0 ? sent : 0;
	return n < 0 ? (int)n : 0;
}

static int write_once(struct ss_request *req)
{
	if (ss_request_user(req))
		return 0;
	ssize_t n = ss_write(req, "answer", 6);
	ss_request_set_user(req, n == 6 ? req : NULL);
	return n < 0 ? (int)n : 0;
}

static int ends_its_output(struct ss_request *req)
{
	int r = write_once(req);
	return r < 0 ? r : ss_shutdown_stream(req, SHUT_WR);
}

static int lets_go(struct ss_request *req)
{
	int fd = write_once(req);
	if (fd == 0)
		fd = ss_detach(req);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static int skips(struct ss_request *req)
{
	char rest[3] = "";
	ssize_t n = ss_skip(req, 4);
	if (n == 4)
		n = ss_read_full(req, rest, 2);
	ck_assert(n < 0 || strcmp(rest, "56") == 0);
	return n < 0 ? (int)n : 0;
}

static int reads_a_frame(struct ss_request *req)
{
	char frame[10] = "";
	ssize_t n = ss_read_frame(req, 1, frame, sizeof(frame), NULL);
	ck_assert(n < 0 || strcmp(frame, "frame") == 0);
	return n < 0 ? (int)n : 0;
}

static int hears_the_urgent(struct ss_request *req)
{
	unsigned char byte = 0;
	int r;
	do
		r = ss_recv_oob(req, &byte);
	while (r == -EAGAIN || r == -EINTR);
	ck_assert(r < 0 || byte == urgent[0]);
	return r;
}

static int is_urgent(struct ss_request *req)
{
	int r = write_once(req);
	return r < 0 ? r : ss_send_oob(req, '!');
}

static int knows_the_other_end(struct ss_request *req)
{
	struct ss_request *stream;
	struct ss_address peer;
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	int r = ss_stream_new(req, ends[0], &stream);
	close(ends[1]);
	if (r < 0)
		return r;
	r = ss_request_peer(stream, &peer);
	ck_assert_int_eq((int)peer.len, r < 0 ? 0 : (int)sizeof(sa_family_t));
	ss_stream_free(stream);
	return r;
}

static const struct deed deeds[] = {
	{ "file", has_a_file, "", "printed", false },
	{ "handler", chooses_a_handler, "", "", false },
	{ "failure", says_what_failed, "", "", false },
	{ "address", sets_its_address, "", "", false },
	{ "long line", prints_much, "", "7", false },
	{ "sendfile", sends_a_file, "", "a file\n", false },
	{ "shutdown", ends_its_output, "", "answer", false },
	{ "detach", lets_go, "", "answer", false },
	{ "skip", skips, "123456", "", false },
	{ "frame", reads_a_frame, "\5frame", "", false },
	{ "urgent input", hears_the_urgent, urgent, "", true },
	{ "urgent output", is_urgent, "", "answer", true },
	{ "peer", knows_the_other_end, "", "", false },
};
enum { DEEDS = sizeof(deeds) / sizeof(*deeds) };

static int do_deed(struct ss_request *req)
{
	struct ss_fault fault = { 0 };
	ss_fault_arm();
	int r = deed->act(req);
	ss_fault_disarm();
	bool struck = ss_fault_struck(&fault);
	if (r < 0 && (!struck || r != -fault.error))
		snprintf(told_of_deed, sizeof(told_of_deed), "%s says %s",
			 deed->name, strerror(-r));
	if (r < 0)
		r = deed->act(req);
	if (r < 0)
		snprintf(told_of_deed, sizeof(told_of_deed),
			 "%s, again, says %s", deed->name, strerror(-r));
	return r;
}

/* Connected: the server's end, the client's. */
static void new_ends(int ends[2])
{
	if (!deed->tcp) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC,
					    0, ends),
				 0);
		return;
	}
	struct sockaddr_in at;
	socklen_t len = sizeof(at);
	int listener = tcp_listener();
	ends[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&at, &len),
			 0);
	ck_assert_int_eq(connect(ends[1], (struct sockaddr *)&at, len), 0);
	ends[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(ends[0], 0);
	close(listener);
}

static int serve_deed(void *arg, struct ss_diag *why)
{
	static const struct ss_handler handler = { .handle = do_deed,
						   .wbufsize = SS_NONE };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = &handler,
				    .log_level = SS_NONE };
	char heard[1000] = "";
	int ends[2];
	size_t n = 0;
	(void)arg;
	told_of_deed[0] = '\0';
	struct ss_server *server = made(&config);
	new_ends(ends);
	if (deed->input == urgent)
		ck_assert_int_eq(send(ends[1], urgent, 1, MSG_OOB), 1);
	else
		send_text(ends[1], deed->input);
	shutdown(ends[1], SHUT_WR);
	ck_assert_int_eq(ss_serve_fd(server, ends[0]), 0);
	ssize_t r;
	while ((r = recv_within(ends[1], heard + n, sizeof(heard) - 1 - n,
				WAIT_MS)) > 0)
		n += (size_t)r;
	close(ends[1]);
	ck_assert_int_eq(ss_server_free(server), 0);
	if (told_of_deed[0])
		return wrong(why, told_of_deed);
	if (strcmp(heard + strspn(heard, " "), deed->answer) != 0)
		return wrong(why, heard[0] ? heard : "no answer");
	return 0;
}

START_TEST(handlers_are_told_and_may_ask_again)
{
	char path[100];
	deed = &deeds[_i];
	if (deed->act == lets_go)
		stack_without(&ss_record_mixin);
	snprintf(path, sizeof(path), "%s/file", scratch());
	file = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(file, "a file\n", 7), 7);
	sweep(serve_deed, NULL, (struct ss_fault_options){ .unarmed = true },
	      1);
	close(file);
}
END_TEST

/* ---- several in one thread ------------------------------------------------*/

enum { GIVE_UP_MS = 100 };

static struct ss_server *pair[2];
static bool served[2]; /* whether it has served somebody */
static int64_t give_up_at;

static int index_of(const struct ss_server *server)
{
	return server == pair[1];
}

static const char *said; /* by whom this is about */

static int naps_and_echoes(struct ss_request *req)
{
	char text[8] = "";
	int r = ss_sleep(req, 2);
	ssize_t n = r < 0 ? r : ss_read(req, text, sizeof(text) - 1);
	if (n > 0)
		n = ss_write(req, text, (size_t)n);
	if (n > 0 && strcmp(text, said) == 0)
		served[index_of(ss_request_server(req))] = true;
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler napping = { .handle = naps_and_echoes };

static const struct ss_layer once;

/* Each leaves after a client, or where none can be served. */
static void look_for_end(struct ss_server *server)
{
	if (served[index_of(server)] || clock_ms() >= give_up_at)
		ss_shutdown(server);
	ss_super(server, &once)->service_actions(server);
}

static const struct ss_layer once = {
	.name = "once",
	.ops = { .service_actions = look_for_end },
};

static void connect_both(int fds[2], const char *text, int ms)
{
	said = text;
	char url[SS_ADDRESS_TEXT];
	for (int i = 0; i < 2; i++) {
		served[i] = false;
		fds[i] = dial(ss_server_url(pair[i], 0, url, sizeof(url)));
		send_text(fds[i], text);
		shutdown(fds[i], SHUT_WR);
	}
	give_up_at = clock_ms() + ms;
}

static const struct ss_fiber_options one_loop = { .loops = 1 };

static int serve_two(void *arg, struct ss_diag *why)
{
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .mixins = { { &once, NULL } },
				    .handler = &napping,
				    .log = look_at_line,
				    .poll_interval_ms = 1 };
	struct ss_fault fault = { 0 };
	int first[2], next[2];
	(void)arg;
	pair[0] = made(&config);
	/* Which is served while a handler of the other one waits. */
	config.mixins[1] = (struct ss_use){ &ss_fiber_mixin, &one_loop };
	pair[1] = made(&config);
	connect_both(first, "hello", GIVE_UP_MS);
	ss_fault_arm();
	int r = ss_serve(pair, 2);
	ss_fault_disarm();
	if (r < 0 && (!ss_fault_struck(&fault) || r != -fault.error))
		return wrong(why, "another error");
	for (int i = 0; i < 2; i++)
		close(first[i]);
	connect_both(next, "again", WAIT_MS);
	r = ss_serve(pair, 2);
	for (int i = 0; i < 2 && r == 0; i++) {
		expect_text(next[i], "again");
		expect_end(next[i]);
	}
	for (int i = 0; i < 2; i++) {
		close(next[i]);
		ck_assert_int_eq(ss_server_free(pair[i]), 0);
	}
	return r == 0 ? 0 : wrong(why, "the next ones are not served");
}

START_TEST(servers_of_one_thread_go_on)
{
	begin_log();
	sweep(serve_two, NULL,
	      (struct ss_fault_options){ .unarmed = true,
					 .patience_ms = WAIT_MS },
	      10);
}
END_TEST

/* ---- logs -----------------------------------------------------------------*/

static const char *log_path;

/* What is written once nothing fails any more arrives. */
static int has_line(int daemon, const char *text)
{
	char got[4096] = "";
	if (daemon >= 0) {
		while (recv(daemon, got, sizeof(got) - 1, MSG_DONTWAIT) > 0)
			if (strstr(got, text))
				return 1;
		return 0;
	}
	int fd = open(log_path, O_RDONLY);
	if (fd == -1)
		return 0;
	ssize_t n = read(fd, got, sizeof(got) - 1);
	close(fd);
	return n > 0 && strstr(got, text) != NULL;
}

static int write_log(void *arg, struct ss_diag *why)
{
	struct ss_log_sink *sink;
	int daemon = *(int *)arg;
	const struct ss_log_options options = {
		.to = daemon >= 0 ? SS_LOG_TO_SYSLOG : SS_LOG_TO_JSON,
		.path = log_path,
		.ident = "bearing",
	};
	if (daemon < 0)
		unlink(log_path);
	int r = ss_log_sink_new(&sink, &options, why);
	if (r < 0)
		return why->text[0] ? r : wrong(why, "no reason");
	ss_log_sink_write(sink, SS_LOG_INFO, NULL, 1, "one");
	r = ss_log_sink_reopen(sink);
	ss_log_sink_write(sink, SS_LOG_INFO, NULL, 2, "two");
	ss_fault_disarm();
	ss_log_sink_write(sink, SS_LOG_INFO, NULL, 3, "at last");
	bool there = has_line(daemon, "at last");
	ss_fault_arm();
	ss_log_sink_free(sink);
	return there ? r : wrong(why, "a line is lost");
}

static int syslog_daemon(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", log_path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

START_TEST(logs_say_that_they_fail_and_then_go_on)
{
	char path[100];
	snprintf(path, sizeof(path), "%s/log", scratch());
	log_path = path;
	int daemon = _i ? syslog_daemon() : -1;
	sweep(write_log, &daemon, (struct ss_fault_options){ 0 }, 8);
}
END_TEST

/* ---- hot restart ----------------------------------------------------------*/

static struct ss_server *old;
static int tell;

/* Once signals are minded. */
static int tell_url(void *arg)
{
	char url[SS_ADDRESS_TEXT];
	(void)arg;
	dprintf(tell, "%s\n", ss_server_url(old, 0, url, sizeof(url)));
	return 0;
}

/* The next one says that it is ready, to descriptor 4, and ends. */
static int run_restarting(const struct model *model)
{
	static char shell[] = "/bin/sh", how[] = "-c";
	static char what[] = "printf '\\0' >&4";
	static char *const argv[] = { shell, how, what, NULL };
	const struct ss_run_options options = {
		.ready = tell_url,
		.argv = argv,
		.restart_ms = RESTART_MS,
	};
	struct ss_config config =
		config_of(model, &transports[0], &ss_echo_handler);
	struct ss_fault_state before;
	config.log = look_at_line;
	config.drain_ms = 1000;
	ss_fault_look(&before);
	if (ss_server_new(&old, &config, told) < 0)
		return 1;
	int status = ss_run(&old, 1, &options);
	int freed = ss_server_free(old);
	ss_fault_disarm();
	if (status != 0 || freed != 0)
		return 2;
	/* Who replaces this one is its child; who could not was reaped. */
	while (!atomic_load(stays) && waitpid(-1, NULL, 0) > 0)
		;
	return ss_fault_left(&before, told) < 0 ? 3 : 0;
}

static bool has_ended(pid_t pid, int *status)
{
	return waitpid(pid, status, WNOHANG) == pid;
}

/* It goes on: whoever comes is served, until it is told to stop. */
static void goes_on(const char *url, pid_t pid)
{
	int fd = try_dial(url);
	char byte = 0;
	ck_assert_msg(fd >= 0, "%s: nobody listens", ss_fault_tell());
	ck_assert_int_eq(send(fd, "x", 1, MSG_NOSIGNAL), 1);
	ck_assert_msg(recv_within(fd, &byte, 1, WAIT_MS) == 1,
		      "%s: the next is not served", ss_fault_tell());
	close(fd);
	kill(pid, SIGTERM);
}

static int restart(void *arg, struct ss_diag *why)
{
	char url[SS_ADDRESS_TEXT];
	int fds[2], status = -1;
	size_t n = 0;
	told->text[0] = '\0';
	atomic_store(stays, 0);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		tell = fds[1];
		sys_exit(run_restarting(arg));
	}
	close(fds[1]);
	while (n < sizeof(url) - 1 && read(fds[0], url + n, 1) == 1 &&
	       url[n] != '\n')
		n++;
	url[n] = '\0';
	ss_fault_arm();
	kill(pid, SIGUSR2);
	bool ended = false;
	int64_t until = clock_ms() + WAIT_MS;
	while (!(ended = has_ended(pid, &status)) && !atomic_load(stays) &&
	       clock_ms() < until)
		pause_ms(1);
	ss_fault_disarm();
	if (!ended && !atomic_load(stays)) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		close(fds[0]);
		return wrong(why, "neither went on nor was replaced");
	}
	if (!ended)
		goes_on(url, pid);
	until = clock_ms() + 2 * WAIT_MS;
	while (!ended && !(ended = has_ended(pid, &status)) &&
	       clock_ms() < until)
		pause_ms(1);
	if (!ended)
		kill(pid, SIGKILL);
	close(fds[0]);
	if (ended && status == 0)
		return 0;
	snprintf(why->text, sizeof(why->text), "%s, %#x %.100s",
		 ended ? "ended badly" : "does not end", (unsigned)status,
		 told->text);
	return SS_FAULT_WRONG;
}

START_TEST(restarts_succeed_or_this_one_goes_on)
{
	const struct model *model = &models[_i];
	int stride = rounds(1) > 1 ? 1 : SOME;
	begin_log();
	told = ss_shared_alloc(sizeof(*told));
	ck_assert_ptr_nonnull(told);
	sweep(restart, (void *)model,
	      (struct ss_fault_options){ .unarmed = true,
					 .elsewhere = true,
					 .first = 1 + _i % stride,
					 .stride = stride },
	      2);
}
END_TEST

Suite *t_bearing(void)
{
	Suite *suite = suite_create("t_bearing");
	TCase *bearing = suite_case(suite, "bearing", NULL, NULL);
	tcase_set_timeout(bearing, 300);
	tcase_add_test(bearing, privileges_are_dropped_or_it_is_said);
	tcase_add_loop_test(bearing, daemons_start_or_say_why_not, 0, STARTS);
	tcase_add_loop_test(bearing, handlers_are_told_and_may_ask_again, 0,
			    DEEDS);
	tcase_add_test(bearing, servers_of_one_thread_go_on);
	tcase_add_loop_test(bearing, logs_say_that_they_fail_and_then_go_on, 0,
			    2);
	tcase_add_loop_test(bearing, restarts_succeed_or_this_one_goes_on, 0,
			    model_count);
	return suite;
}
