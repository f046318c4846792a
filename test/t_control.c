/*
 * Control: who is being served, ended one by one; taking clients suspended,
 * limits and levels changed, while they are served, in every process; by the
 * library's calls, by the handler's lines, and by ssctl.
 */
#include "guards.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>

#include "handlers.h"
#include "program.h"

Suite *t_control(void);

enum { QUIET_MS = 100 };

/* ---- clients --------------------------------------------------------------*/

/* Tells its id, then echoes. */
static int say_id(struct ss_request *req)
{
	ssize_t n = ss_printf(req, "%llu %d\n",
			      (unsigned long long)ss_request_id(req),
			      (int)getpid());
	return n < 0 ? (int)n : 0;
}

static int echo(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler telling = {
	.name = "telling", .setup = say_id, .handle = echo, .speaks_first = true
};

struct visitor {
	int fd;
	unsigned long long id;
	pid_t pid; /* who serves him */
};

static void line_of(int fd, char *line, size_t size)
{
	size_t n = 0;
	do {
		ck_assert_uint_lt(n, size - 1);
		expect_bytes(fd, line + n, 1);
	} while (line[n++] != '\n');
	line[n - 1] = '\0';
}

static struct visitor visit(const char *url)
{
	char line[64];
	struct visitor visitor = { .fd = dial(url) };
	line_of(visitor.fd, line, sizeof(line));
	visitor.id = strtoull(line, NULL, 10);
	visitor.pid = (pid_t)strtol(strchr(line, ' '), NULL, 10);
	ck_assert_uint_gt(visitor.id, 0);
	return visitor;
}

static void still_served(const struct visitor *visitor)
{
	send_text(visitor->fd, "still");
	expect_text(visitor->fd, "still");
}

/* What is asked of workers takes a moment to reach them: a client who is not
 * served, though others may have been meanwhile. */
static int left_waiting(const char *url)
{
	char byte;
	int fd;
	eventually((fd = dial(url),
		    recv_within(fd, &byte, 1, QUIET_MS) == -EAGAIN ||
			    (close(fd), false)));
	return fd;
}

static void is_served_now(int fd)
{
	char line[64];
	line_of(fd, line, sizeof(line));
}

static void still_open(const struct visitor *visitor)
{
	char byte;
	ck_assert_int_eq(recv_within(visitor->fd, &byte, 1, 0), -EAGAIN);
}

/* Its connection ends, by a reset or not. */
static void has_ended(int fd)
{
	char buf[64];
	ssize_t n;
	while ((n = recv_within(fd, buf, sizeof(buf), WAIT_MS)) > 0)
		;
	ck_assert_msg(n == 0 || n == -ECONNRESET, "%zd", n);
}

/* ---- the library's calls --------------------------------------------------*/

static void start(struct served *served, int model, int active)
{
	struct ss_config config =
		config_of(&models[model], &transports[0], &telling);
	config.max_active = active;
	/* A child is forked from here, and has our clients' sockets. */
	if (model_has(&models[model], &ss_forking_mixin))
		config.drain_ms = 200;
	served_start_ahead(served, &config);
}

static int cancel(struct ss_server *server, uint64_t id)
{
	int r;
	eventually((r = ss_cancel(server, id)) != -EINPROGRESS);
	return r;
}

START_TEST(a_request_is_cancelled_wherever_it_runs)
{
	const struct model *model = &models[_i];
	struct served served;
	start(&served, _i, 0);
	struct visitor a = visit(served.url), b = { .fd = -1 };
	if (model->at_once != 1)
		b = visit(served.url);
	ck_assert_int_eq(cancel(served.server, 12345), -ENOENT);
	still_served(&a);
	ck_assert_int_eq(cancel(served.server, a.id), 0);
	has_ended(a.fd);
	if (b.fd >= 0) {
		still_served(&b);
		close(b.fd);
	}
	eventually(cancel(served.server, a.id) == -ENOENT);
	/* More of them than are remembered. */
	for (int i = 0; i < 100; i++) {
		int r;
		eventually((r = ss_cancel(served.server, 1u << 20 | i)) !=
			   -EBUSY);
		ck_assert(r == -EINPROGRESS || r == -ENOENT);
	}
	struct visitor c = visit(served.url);
	ck_assert_int_eq(cancel(served.server, c.id), 0);
	has_ended(c.fd);
	close(a.fd);
	close(c.fd);
	served_stop(&served);
}
END_TEST

/* Whether it has been cancelled nobody knows before its worker says so. */
START_TEST(a_request_is_cancelled_once_its_worker_says_so)
{
	struct served served;
	if (!model_supervised(&models[_i]))
		return;
	start(&served, _i, 0);
	struct visitor a = visit(served.url);
	ck_assert_int_eq(kill(a.pid, SIGSTOP), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(ss_cancel(served.server, a.id), -EINPROGRESS);
	still_open(&a);
	ck_assert_int_eq(kill(a.pid, SIGCONT), 0);
	ck_assert_int_eq(cancel(served.server, a.id), 0);
	has_ended(a.fd);
	close(a.fd);
	served_stop(&served);
}
END_TEST

START_TEST(suspended_clients_wait_and_others_go_on)
{
	bool alone = models[_i].at_once == 1;
	struct served served;
	start(&served, _i, 0);
	struct visitor a = visit(served.url);
	ss_hold(served.server, SS_HOLD_SUSPENDED);
	if (alone)
		close(a.fd);
	int fd = left_waiting(served.url);
	if (!alone)
		still_served(&a);
	ck_assert(ss_holding(served.server, SS_HOLD_SUSPENDED));
	ss_release(served.server, SS_HOLD_SUSPENDED);
	is_served_now(fd);
	close(fd);
	if (!alone)
		close(a.fd);
	served_stop(&served);
}
END_TEST

START_TEST(max_active_changes_while_it_serves)
{
	if (models[_i].at_once == 1)
		return;
	struct served served;
	start(&served, _i, 1);
	struct visitor a = visit(served.url);
	ck_assert_int_eq(ss_active_limit(served.server), 1);
	int fd = left_waiting(served.url);
	ck_assert_int_eq(ss_limit_active(served.server, 2), 0);
	is_served_now(fd);
	ck_assert_int_eq(ss_limit_active(served.server, 1), 0);
	int further = left_waiting(served.url);
	/* Two leave, and one may come. */
	close(fd);
	still_served(&a);
	ck_assert_int_eq(ss_limit_active(served.server, 0), 0);
	is_served_now(further);
	struct visitor b = visit(served.url);
	still_served(&a);
	still_served(&b);
	ck_assert_int_eq(ss_limit_active(served.server, -1), -EINVAL);
	close(a.fd);
	close(b.fd);
	close(further);
	served_stop(&served);
}
END_TEST

/* Those of a pool are not more than it has threads for. */
START_TEST(a_pool_keeps_its_own_cap)
{
	static const struct ss_pool_options two = { .threads = 2,
						    .ahead = SS_NONE };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .mixins = { { &ss_pool_mixin, &two } },
				    .handler = &telling };
	struct served served;
	served_start(&served, &config);
	ck_assert_int_eq(ss_active_limit(served.server), 2);
	ck_assert_int_eq(ss_limit_active(served.server, 5), 0);
	ck_assert_int_eq(ss_active_limit(served.server), 2);
	struct visitor a = visit(served.url), b = visit(served.url);
	int fd = left_waiting(served.url);
	ck_assert_int_eq(ss_limit_active(served.server, 1), 0);
	ck_assert_int_eq(ss_active_limit(served.server), 1);
	close(a.fd);
	still_served(&b);
	close(b.fd);
	is_served_now(fd);
	close(fd);
	served_stop(&served);
}
END_TEST

/* ---- the handler's lines --------------------------------------------------*/

enum { ANSWER = 1 << 16 };

static char control_path[100];
static struct program server;
static struct ended got;

/* The echo server, under its control, its figures beside it; its URL. */
static const char *serve(const char *model, const char *address)
{
	snprintf(control_path, sizeof(control_path), "%s/control", scratch());
	memset(&server, 0, sizeof(server));
	program_start(&server,
		      ARGV(demo("echo_server"), "-m", model, "--workers", "2",
			   "--rate", "100000", "--metrics", "127.0.0.1:0",
			   "--control", control_path, address));
	return program_listening(&server);
}

static void ends_well(void)
{
	program_stop(&server, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
}

static int dial_control(void)
{
	char url[120];
	snprintf(url, sizeof(url), "unix:%s", control_path);
	return dial(url);
}

/* All that comes, until a line that ends an answer or the connection's end. */
static const char *answer_from(int fd)
{
	static char text[ANSWER];
	size_t n = 0, line = 0;
	for (;;) {
		ck_assert_uint_lt(n, sizeof(text) - 1);
		ssize_t r = recv_within(fd, text + n, 1, WAIT_MS);
		ck_assert_msg(r >= 0 || r == -ECONNRESET, "%zd", r);
		text[n + (r > 0)] = '\0';
		if (r <= 0)
			return text;
		if (text[n++] != '\n')
			continue;
		if (strcmp(text + line, "ok\n") == 0 ||
		    strncmp(text + line, "error: ", 7) == 0)
			return text;
		line = n;
	}
}

static const char *command(const char *text)
{
	int fd = dial_control();
	send_text(fd, text);
	send_text(fd, "\n");
	const char *answer = answer_from(fd);
	close(fd);
	return answer;
}

/* The id that the list has for that client; 0: it is not there. */
static unsigned long long listed(int fd)
{
	struct sockaddr_in name;
	socklen_t len = sizeof(name);
	char peer[40], host[INET_ADDRSTRLEN];
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	inet_ntop(AF_INET, &name.sin_addr, host, sizeof(host));
	snprintf(peer, sizeof(peer), " %s:%d ", host, ntohs(name.sin_port));
	const char *list = command("list");
	const char *at = strstr(list, peer);
	if (!at)
		return 0;
	while (at > list && at[-1] != '\n')
		at--;
	unsigned long long id = 0;
	ck_assert_int_eq(sscanf(at, "0 %llu ", &id), 1);
	return id;
}

static int echoing(const char *url)
{
	int fd = dial(url);
	send_text(fd, "hello");
	expect_text(fd, "hello");
	return fd;
}

START_TEST(one_is_listed_and_killed)
{
	const struct model *model = &models[_i];
	const char *url = serve(model->name, fresh_address(&transports[0]));
	char line[64];
	/* With two workers of one client each. */
	bool both = strcmp(model->name, "sync") != 0;
	int a = echoing(url), b = both ? echoing(url) : -1;
	unsigned long long id = listed(a);
	ck_assert_uint_gt(id, 0);
	snprintf(line, sizeof(line), "kill %llu", id);
	ck_assert_str_eq(command(line), "ok\n");
	has_ended(a);
	if (both) {
		send_text(b, "still");
		expect_text(b, "still");
		close(b);
	}
	eventually(strncmp(command(line), "error: no request", 17) == 0);
	echo_once(url, "after");
	close(a);
	ends_well();
}
END_TEST

START_TEST(suspended_and_resumed_by_lines)
{
	const struct model *model = &models[_i];
	const char *url = serve(model->name, fresh_address(&transports[0]));
	int a = model->at_once == 1 ? -1 : echoing(url), fd;
	char byte;
	ck_assert_str_eq(command("suspend 0"), "ok\n");
	ck_assert_ptr_nonnull(strstr(command("servers"), "\n0 suspended tcp:"));
	eventually((fd = dial(url), send_text(fd, "x"),
		    recv_within(fd, &byte, 1, QUIET_MS) == -EAGAIN ||
			    (close(fd), false)));
	if (a >= 0) {
		send_text(a, "still");
		expect_text(a, "still");
		close(a);
	}
	ck_assert_str_eq(command("resume"), "ok\n");
	expect_text(fd, "x");
	close(fd);
	ck_assert_ptr_nonnull(strstr(command("servers"), "\n0 serving tcp:"));
	ends_well();
}
END_TEST

START_TEST(drained_by_a_line)
{
	const char *url = serve(models[_i].name, fresh_address(&transports[0]));
	int fd = echoing(url);
	ck_assert_str_eq(command("drain"), "ok\n");
	expect_end(fd);
	program_wait(&server, &got);
	ck_assert_int_eq(got.status, 0);
	ck_assert_int_eq(access(control_path, F_OK), -1);
}
END_TEST

START_TEST(limits_and_level_change_by_lines)
{
	const char *url = serve(models[_i].name, fresh_address(&transports[0]));
	ck_assert_ptr_nonnull(strstr(command("limits"), "0 rate 100000\n"));
	ck_assert_str_eq(command("limits 0 per-ms 3600000"), "ok\n");
	ck_assert_str_eq(command("limits rate 3"), "ok\n");
	ck_assert_ptr_nonnull(
		strstr(command("limits"), "0 rate 3\n0 burst 3\n"));
	int in = 0;
	for (int i = 0; i < 6; i++) {
		char byte = 0;
		int fd = dial(url);
		send(fd, "x", 1, MSG_NOSIGNAL);
		in += recv_within(fd, &byte, 1, WAIT_MS) == 1 && byte == 'x';
		close(fd);
	}
	ck_assert_int_eq(in, 3);
	ck_assert_str_eq(command("limits max-active 7"), "ok\n");
	ck_assert_ptr_nonnull(strstr(command("limits 0"), "0 max-active 7\n"));
	ck_assert_str_eq(command("limits rate 0"), "ok\n");
	ck_assert_str_eq(command("limits max-active 0"), "ok\n");
	/* Whom a limit turns away is told of at the level of information. */
	ck_assert_str_eq(command("log info"), "ok\n");
	ck_assert_str_eq(command("log"), "0 log info\nok\n");
	ck_assert_str_eq(command("limits burst 0"), "ok\n");
	ck_assert_str_eq(command("limits rate 1"), "ok\n");
	for (int i = 0; i < 2; i++) {
		char bytes[64];
		int fd = dial(url);
		send(fd, "x", 1, MSG_NOSIGNAL);
		ck_assert_int_ge(recv_within(fd, bytes, 64, WAIT_MS), 0);
		close(fd);
	}
	program_tells(&server, "comes when too many do");
	ck_assert_ptr_nonnull(strstr(command("stats"), "0 refused-verify "));
	ends_well();
}
END_TEST

static const struct {
	const char *line, *answer;
} wrong_lines[] = {
	{ "", "error: no command: try help\n" },
	{ "nonsense", "error: unknown command 'nonsense': try help\n" },
	{ "\033[2J", "error: unknown command '?[2J': try help\n" },
	{ "\303x", "error: unknown command '?x': try help\n" },
	{ "a b c d e f g", "error: too many words\n" },
	{ "kill", "error: usage: kill ID\n" },
	{ "kill -1", "error: usage: kill ID\n" },
	{ "kill 1x", "error: usage: kill ID\n" },
	{ "kill 99999999999999999999", "error: usage: kill ID\n" },
	{ "kill 4711", "error: no request 4711\n" },
	{ "suspend 1", "error: no server '1'\n" },
	{ "resume tcp://127.0.0.1:1",
	  "error: no server 'tcp://127.0.0.1:1'\n" },
	{ "drain now", "error: usage: drain\n" },
	{ "limits rate", "error: no server 'rate'\n" },
	{ "limits rat 5", "error: no limit 'rat'\n" },
	{ "limits rate -5", "error: '-5' is no number\n" },
	{ "limits rate 2147483648", "error: '2147483648' is no number\n" },
	{ "limits per-ms 86400001",
	  "error: limits: per_ms is 86400001, and not in 0..86400000\n" },
	{ "log loud", "error: no level 'loud': error, warning, info, debug or "
		      "none\n" },
};

START_TEST(wrong_lines_are_answered)
{
	char text[700];
	serve("sync", fresh_address(&transports[0]));
	int fd = dial_control();
	for (size_t i = 0; i < sizeof(wrong_lines) / sizeof(*wrong_lines);
	     i++) {
		send_text(fd, wrong_lines[i].line);
		send_text(fd, "\n");
		ck_assert_str_eq(answer_from(fd), wrong_lines[i].answer);
	}
	/* As many as are sent at once, in turn. */
	send_text(fd, "log\r\n\tlog \nfoo\n");
	ck_assert_str_eq(answer_from(fd), "0 log warning\nok\n");
	ck_assert_str_eq(answer_from(fd), "0 log warning\nok\n");
	ck_assert_ptr_nonnull(strstr(answer_from(fd), "unknown command"));
	memset(text, 'x', sizeof(text));
	send_bytes(fd, text, sizeof(text));
	ck_assert_str_eq(answer_from(fd), "error: the line is too long\n");
	has_ended(fd);
	close(fd);
	fd = dial_control();
	send_bytes(fd, "lo\0g\n", 5);
	ck_assert_str_eq(answer_from(fd), "error: the line has a NUL\n");
	has_ended(fd);
	close(fd);
	fd = dial_control();
	send_text(fd, "drain");
	shutdown(fd, SHUT_WR);
	ck_assert_str_eq(answer_from(fd), "error: the line has no end\n");
	close(fd);
	ends_well();
}
END_TEST

/* Not by its mode alone. */
START_TEST(other_users_are_refused)
{
	struct stat st;
	serve("sync", fresh_address(&transports[0]));
	ck_assert_int_eq(stat(control_path, &st), 0);
	ck_assert_int_eq(st.st_mode & 0777, 0600);
	/* Their PROXY header is not believed then, but answered. */
	if (geteuid() != 0 || stack_has(&ss_proxy_mixin)) {
		printf("skipped: %s\n",
		       geteuid() ? "not root" : "behind a balancer");
		ends_well();
		return;
	}
	ck_assert_int_eq(chmod(control_path, 0666), 0);
	ck_assert_int_eq(chmod(scratch(), 0755), 0);
	pid_t pid = fork();
	if (pid == 0) {
		if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
			_exit(2);
		const char *answer = command("drain");
		_exit(strncmp(answer, "error: only for", 15) != 0);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_str_eq(command("log"), "0 log warning\nok\n");
	ends_well();
}
END_TEST

START_TEST(silent_clients_hold_nobody_up)
{
	const char *url = serve(models[_i].name, fresh_address(&transports[0]));
	int silent[10];
	for (int i = 0; i < 10; i++) {
		silent[i] = dial_control();
		if (i % 2)
			send_text(silent[i], "lo");
	}
	ck_assert_str_eq(command("log"), "0 log warning\nok\n");
	int fd = echoing(url);
	ck_assert_str_eq(command("log"), "0 log warning\nok\n");
	send_text(fd, "still");
	expect_text(fd, "still");
	/* One who is kept waiting by who does not read is another fiber. */
	for (int i = 0; i < 10; i++)
		close(silent[i]);
	close(fd);
	ends_well();
}
END_TEST

/* ---- programs -------------------------------------------------------------*/

static void ssctl(const char *first, const char *second)
{
	program_run(&got, "",
		    ARGV(demo("ssctl"), "-s", control_path, first, second));
}

START_TEST(ssctl_says_what_came_of_it)
{
	const char *url = serve("threading", fresh_address(&transports[0]));
	int fd = echoing(url);
	ssctl("list", NULL);
	ck_assert_int_eq(got.status, 0);
	ck_assert_ptr_nonnull(strstr(got.out, " 127."));
	ck_assert_ptr_null(strstr(got.out, "ok\n"));
	ssctl("top", NULL);
	ck_assert_int_eq(got.status, 0);
	ck_assert_ptr_nonnull(strstr(got.out, " 127."));
	ck_assert_ptr_null(strchr(got.out, '\033'));
	ssctl("kill", "4711");
	ck_assert_int_eq(got.status, 1);
	ck_assert_str_eq(got.err, "ssctl: no request 4711\n");
	ssctl("log\nlog", NULL);
	ck_assert_int_eq(got.status, 2);
	program_run(&got, "", ARGV(demo("ssctl"), "-s", "/nowhere", "list"));
	ck_assert_int_eq(got.status, 1);
	program_run(&got, "", ARGV(demo("ssctl"), "-s", control_path));
	ck_assert_int_eq(got.status, 2);
	ssctl("drain", NULL);
	ck_assert_int_eq(got.status, 0);
	expect_end(fd);
	program_wait(&server, &got);
	ck_assert_int_eq(got.status, 0);
}
END_TEST

/* A client may be called what it likes. */
START_TEST(names_of_clients_do_no_harm)
{
	char address[120];
	struct sockaddr_un name = { .sun_family = AF_UNIX }, to = name;
	snprintf(address, sizeof(address), "unix:%s/served", scratch());
	serve("threading", address);
	snprintf(name.sun_path, sizeof(name.sun_path), "%s/\033[31m x\ny",
		 scratch());
	snprintf(to.sun_path, sizeof(to.sun_path), "%s/served", scratch());
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	send_text(fd, "hello");
	expect_text(fd, "hello");
	const char *list = command("list");
	ck_assert_ptr_null(strchr(list, '\033'));
	ck_assert_ptr_nonnull(strstr(list, "[31m"));
	ck_assert_ptr_null(strstr(list, " x"));
	eventually(strstr(command("list"), " idle\nok\n"));
	close(fd);
	ends_well();
}
END_TEST

START_TEST(socat_can_say_it)
{
	char to[120];
	if (!have("socat")) {
		printf("skipped: socat is not here\n");
		return;
	}
	serve("prefork", fresh_address(&transports[0]));
	snprintf(to, sizeof(to), "UNIX-CONNECT:%s", control_path);
	program_run(&got, "log\nnonsense\nlog debug\nlog\n",
		    ARGV("socat", "-t5", "-", to));
	ck_assert_int_eq(got.status, 0);
	ck_assert_str_eq(got.out,
			 "0 log warning\nok\n"
			 "error: unknown command 'nonsense': try help\n"
			 "ok\n0 log debug\nok\n");
	ends_well();
}
END_TEST

/* ---- a terminal -----------------------------------------------------------*/

struct terminal {
	int fd, slave;
	pid_t pid;
	size_t size;
	char text[1 << 18];
};

static struct terminal terminal;

static void terminal_run(unsigned short rows, unsigned short columns)
{
	struct winsize size = { .ws_row = rows, .ws_col = columns };
	struct terminal *t = &terminal;
	t->size = 0;
	t->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_ge(t->fd, 0);
	ck_assert_int_eq(grantpt(t->fd), 0);
	ck_assert_int_eq(unlockpt(t->fd), 0);
	t->slave = open(ptsname(t->fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_ge(t->slave, 0);
	ck_assert_int_eq(ioctl(t->fd, TIOCSWINSZ, &size), 0);
	const char *program = demo("ssctl");
	t->pid = fork();
	if (t->pid == 0) {
		setsid();
		ioctl(t->slave, TIOCSCTTY, 0);
		for (int i = 0; i < 3; i++)
			dup2(t->slave, i);
		execl(program, program, "-s", control_path, "top",
		      (char *)NULL);
		_exit(127);
	}
}

/* More of what it shows, until that is there, after `from`. */
static void terminal_shows(size_t from, const char *text)
{
	struct terminal *t = &terminal;
	int64_t until = clock_ms() + WAIT_MS;
	for (;;) {
		struct pollfd fd = { .fd = t->fd, .events = POLLIN };
		t->text[t->size] = '\0';
		if (strstr(t->text + from, text))
			return;
		ck_assert_msg(clock_ms() < until, "no '%s' in '%s'", text,
			      t->text + from);
		if (poll(&fd, 1, 50) < 1)
			continue;
		ssize_t n = read(t->fd, t->text + t->size,
				 sizeof(t->text) - 1 - t->size);
		if (n > 0)
			t->size += (size_t)n;
	}
}

static bool terminal_cooked(void)
{
	struct termios now;
	ck_assert_int_eq(tcgetattr(terminal.slave, &now), 0);
	return (now.c_lflag & (ICANON | ECHO)) == (ICANON | ECHO);
}

/* How it ended, and that the terminal is as it was. */
static int terminal_ended(size_t from)
{
	int status;
	terminal_shows(from, "\033[?25h\033[?1049l");
	ck_assert_int_eq(waitpid(terminal.pid, &status, 0), terminal.pid);
	ck_assert(terminal_cooked());
	close(terminal.fd);
	close(terminal.slave);
	return status;
}

START_TEST(top_shows_and_leaves_the_terminal_as_it_was)
{
	const char *url = serve("fiber", fresh_address(&transports[0]));
	struct winsize small = { .ws_row = 5, .ws_col = 30 };
	int fd[10];
	for (int i = 0; i < 10; i++)
		fd[i] = echoing(url);
	terminal_run(24, 100);
	terminal_shows(0, "10 active");
	terminal_shows(0, " 127.");
	ck_assert(!terminal_cooked());
	terminal_shows(0, "by bytes");
	size_t from = terminal.size;
	ck_assert_int_eq(write(terminal.fd, "a", 1), 1);
	terminal_shows(from, "by age");
	/* Bytes that move have a rate by the next time. */
	for (int i = 0; i < 1000; i++) {
		send_text(fd[3], "hello");
		expect_text(fd[3], "hello");
	}
	/* Each of a screen's first bytes. */
	from = terminal.size;
	terminal_shows(from, "\033[H");
	ck_assert_int_eq(ioctl(terminal.fd, TIOCSWINSZ, &small), 0);
	from = terminal.size;
	terminal_shows(from, "\033[Htcp://127.");
	terminal_shows(from, "\033[J");
	from = terminal.size;
	terminal_shows(from, "\033[J");
	int lines = 0, widest = 0, width = 0;
	const char *at = strstr(terminal.text + from, "\033[H");
	if (!at) {
		terminal_shows(from, "\033[H");
		at = strstr(terminal.text + from, "\033[H");
	}
	from = (size_t)(at - terminal.text);
	terminal_shows(from, "\033[J");
	for (at += 3; strncmp(at, "\033[J", 3) != 0; at++) {
		if (strncmp(at, "\033[K", 3) == 0)
			at += 2;
		else if (*at == '\n')
			lines++, width = 0;
		else if (*at >= ' ' && ++width > widest)
			widest = width;
	}
	ck_assert_int_eq(lines, 4);
	ck_assert_int_le(widest, 30);
	from = terminal.size;
	ck_assert_int_eq(write(terminal.fd, "q", 1), 1);
	ck_assert_int_eq(terminal_ended(from), 0);
	for (int i = 0; i < 10; i++)
		close(fd[i]);
	ends_well();
}
END_TEST

static const int fatal[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };

START_TEST(top_leaves_the_terminal_when_it_is_killed)
{
	serve("sync", fresh_address(&transports[0]));
	terminal_run(24, 80);
	terminal_shows(0, "0 active");
	size_t from = terminal.size;
	kill(terminal.pid, fatal[_i]);
	int status = terminal_ended(from);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), fatal[_i]);
	ends_well();
}
END_TEST

START_TEST(top_ends_with_its_server)
{
	serve("sync", fresh_address(&transports[0]));
	terminal_run(24, 80);
	terminal_shows(0, "0 active");
	size_t from = terminal.size;
	ends_well();
	terminal_shows(from, "ssctl: ");
	ck_assert_int_eq(terminal_ended(from), 1 << 8);
}
END_TEST

Suite *t_control(void)
{
	Suite *suite = suite_create("control");
	TCase *calls = suite_case(suite, "calls", begin_threads, NULL);
	tcase_add_loop_test(calls, a_request_is_cancelled_wherever_it_runs, 0,
			    model_count);
	tcase_add_loop_test(calls,
			    a_request_is_cancelled_once_its_worker_says_so, 0,
			    model_count);
	tcase_add_loop_test(calls, suspended_clients_wait_and_others_go_on, 0,
			    model_count);
	tcase_add_loop_test(calls, max_active_changes_while_it_serves, 0,
			    model_count);
	tcase_add_test(calls, a_pool_keeps_its_own_cap);
	TCase *lines = suite_case(suite, "lines", NULL, NULL);
	tcase_add_loop_test(lines, one_is_listed_and_killed, 0, plain_count);
	tcase_add_loop_test(lines, suspended_and_resumed_by_lines, 0,
			    plain_count);
	tcase_add_loop_test(lines, drained_by_a_line, 0, plain_count);
	tcase_add_loop_test(lines, limits_and_level_change_by_lines, 0,
			    plain_count);
	tcase_add_test(lines, wrong_lines_are_answered);
	tcase_add_test(lines, other_users_are_refused);
	tcase_add_loop_test(lines, silent_clients_hold_nobody_up, 0,
			    plain_count);
	TCase *programs = suite_case(suite, "programs", NULL, NULL);
	tcase_add_test(programs, ssctl_says_what_came_of_it);
	tcase_add_test(programs, names_of_clients_do_no_harm);
	tcase_add_test(programs, socat_can_say_it);
	tcase_add_test(programs, top_shows_and_leaves_the_terminal_as_it_was);
	tcase_add_loop_test(programs, top_leaves_the_terminal_when_it_is_killed,
			    0, sizeof(fatal) / sizeof(*fatal));
	tcase_add_test(programs, top_ends_with_its_server);
	return suite;
}
