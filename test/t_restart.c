/*
 * Hot restart: the program once more over the same listeners, while clients
 * come and go without an error; and what becomes of one that fails.
 */
#include "program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

Suite *t_restart(void);

enum { CLIENTS = 2, QUICK = 4, LONG = 100, SHORT_MS = 300 };

static struct ended got;

/* What the test, its clients and its daemons share. */
struct board {
	atomic_bool stop;
	atomic_long exchanges, errors;
	atomic_int ready, said;
	char error[128], line[256];
};

static struct board *board;

static void board_new(void)
{
	board = ss_shared_alloc(sizeof(*board));
	ck_assert_ptr_nonnull(board);
}

/* ---- clients --------------------------------------------------------------*/

static bool exchange(const char *url)
{
	char text[6];
	size_t n = 0;
	int fd = try_dial(url);
	if (fd < 0) {
		errno = -fd;
		return false;
	}
	ssize_t r = send(fd, "hello\n", 6, MSG_NOSIGNAL);
	for (; r > 0 && n < sizeof(text); n += (size_t)r) {
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		if (poll(&ready, 1, WAIT_MS) != 1)
			break;
		r = recv(fd, text + n, sizeof(text) - n, 0);
		if (r <= 0)
			break;
	}
	int error = r < 0 ? errno : 0;
	close(fd);
	errno = error;
	return n == sizeof(text) && memcmp(text, "hello\n", n) == 0;
}

static pid_t client_start(const char *url)
{
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!atomic_load(&board->stop)) {
		if (exchange(url)) {
			atomic_fetch_add(&board->exchanges, 1);
		} else {
			snprintf(board->error, sizeof(board->error), "%s",
				 strerror(errno));
			atomic_fetch_add(&board->errors, 1);
		}
	}
	_exit(0);
}

/* ---- the echo server ------------------------------------------------------*/

/* It is told who serves now. */
static int manager(char *name, size_t size)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	snprintf(name, size, "%s/notify", scratch());
	memcpy(un.sun_path, name, strlen(name));
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

/* A manager that kills it would not wait for another's child. */
static pid_t of_ours(pid_t pid)
{
	siginfo_t info;
	ck_assert_msg(waitid(P_PID, (id_t)pid, &info,
			     WEXITED | WNOHANG | WNOWAIT) == 0,
		      "%d is not the manager's child", (int)pid);
	return pid;
}

static pid_t next_main(int fd)
{
	char text[1024];
	for (;;) {
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		ck_assert_msg(poll(&ready, 1, WAIT_MS) == 1, "no new process");
		ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
		ck_assert_int_gt(n, 0);
		text[n] = '\0';
		if (strncmp(text, "MAINPID=", 8) == 0)
			return of_ours((pid_t)strtol(text + 8, NULL, 10));
		ck_assert_msg(strstr(text, "STOPPING") == NULL, "\"%s\"", text);
	}
}

/* Those whose parent has ended are ours. */
static void adopt_orphans(void)
{
	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

static int ended_with(pid_t pid)
{
	int status = 0;
	int64_t until = clock_ms() + WAIT_MS;
	pid_t r;
	while ((r = waitpid(pid, &status, WNOHANG)) != pid &&
	       clock_ms() < until)
		pause_ms(1);
	if (r != pid)
		kill(pid, SIGKILL);
	ck_assert_msg(r == pid, "process %d did not end", (int)pid);
	return status;
}

/* One restart: the old one has ended well, and the new one is known. */
static pid_t restarted(struct program *server, pid_t pid, int fd,
		       const char *url)
{
	ck_assert_int_eq(kill(pid, SIGUSR2), 0);
	pid_t next = next_main(fd);
	ck_assert_int_ne(next, pid);
	ck_assert_str_eq(program_listening(server), url);
	ck_assert_int_eq(ended_with(pid), 0);
	return next;
}

static void await_exchanges(long n)
{
	long until = atomic_load(&board->exchanges) + n;
	eventually(atomic_load(&board->exchanges) >= until);
}

static void clients_start(pid_t clients[CLIENTS], const char *even,
			  const char *odd)
{
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = client_start(i % 2 ? odd : even);
}

/* All of their exchanges went well. */
static void clients_end(const pid_t clients[CLIENTS])
{
	await_exchanges(20);
	atomic_store(&board->stop, true);
	for (int i = 0; i < CLIENTS; i++)
		ck_assert_int_eq(ended_with(clients[i]), 0);
	ck_assert_msg(atomic_load(&board->errors) == 0, "%ld errors: %s",
		      atomic_load(&board->errors), board->error);
}

static void restart_often(const struct model *model,
			  const struct transport *transport)
{
	char name[SS_ADDRESS_TEXT], url[SS_ADDRESS_TEXT];
	struct program server = { 0 };
	pid_t clients[CLIENTS];
	board_new();
	adopt_orphans();
	int fd = manager(name, sizeof(name));
	setenv("NOTIFY_SOCKET", name, 1);
	program_start(&server, ARGV(demo("echo_server"), "-m", model->name,
				    fresh_address(transport)));
	snprintf(url, sizeof(url), "%s", program_listening(&server));
	clients_start(clients, url, url);
	pid_t pid = server.pid;
	int restarts = getenv("SS_LONG") ? LONG : QUICK;
	for (int i = 0; i < restarts; i++) {
		await_exchanges(20);
		pid = restarted(&server, pid, fd, url);
	}
	clients_end(clients);
	server.pid = pid;
	program_stop(&server, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
	/* The last one has removed it, and none before. */
	if (strncmp(url, "unix:", 5) == 0)
		ck_assert_int_eq(access(url + 5, F_OK), -1);
	close(fd);
}

START_TEST(restart_loses_no_client)
{
	static const int streams[] = { 0, 2 };
	const struct transport *transport = &transports[streams[_i % 2]];
	ck_assert(transport->stream);
	restart_often(&models[_i / 2], transport);
}
END_TEST

/* The servers of one program, in the order of what they say. */
enum { FIRST, SECOND, FIGURES, CONTROL, SERVERS };

static void http_begins(const char *url, char *line, size_t size)
{
	int fd = dial(url);
	send_text(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	ck_assert_int_gt(recv_within(fd, line, size, WAIT_MS), 0);
	close(fd);
}

/* What each of them is for. */
static void all_serve(char urls[SERVERS][SS_ADDRESS_TEXT])
{
	char line[64];
	http_begins(urls[FIGURES], line, sizeof(line));
	ck_assert_int_eq(strncmp(line, "HTTP/1.1 200 ", 13), 0);
	program_run(
		&got, "",
		ARGV(demo("ssctl"), "-s", strchr(urls[CONTROL], '/'), "stats"));
	ck_assert_msg(got.status == 0, "%s", got.err);
	echo_once(urls[FIRST], "hello\n");
	echo_once(urls[SECOND], "hello\n");
}

/* Of two addresses, of figures and of control, by other models than the one:
 * they go over together, and the clients of each lose nothing. */
START_TEST(restart_takes_all_servers_along)
{
	char name[SS_ADDRESS_TEXT], urls[SERVERS][SS_ADDRESS_TEXT];
	char control[SS_ADDRESS_TEXT];
	struct program server = { 0 };
	pid_t clients[CLIENTS];
	board_new();
	adopt_orphans();
	int fd = manager(name, sizeof(name));
	setenv("NOTIFY_SOCKET", name, 1);
	snprintf(control, sizeof(control), "%s/control", scratch());
	program_start(&server, ARGV(demo("echo_server"), "-m", models[_i].name,
				    "--metrics", "127.0.0.1:0", "--control",
				    control, "127.0.0.1:0", "127.0.0.1:0"));
	for (int i = 0; i < SERVERS; i++)
		snprintf(urls[i], sizeof(urls[i]), "%s",
			 program_listening(&server));
	clients_start(clients, urls[FIRST], urls[SECOND]);
	all_serve(urls);
	for (int i = 0; i < QUICK; i++) {
		await_exchanges(20);
		server.pid = restarted(&server, server.pid, fd, urls[FIRST]);
		for (int k = SECOND; k < SERVERS; k++)
			ck_assert_str_eq(program_listening(&server), urls[k]);
		all_serve(urls);
	}
	clients_end(clients);
	program_stop(&server, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
	ck_assert_int_eq(access(control, F_OK), -1);
	close(fd);
}
END_TEST

/* A conversation with the old one goes on beside the new one. */
START_TEST(restart_lets_conversations_end)
{
	char name[SS_ADDRESS_TEXT], url[SS_ADDRESS_TEXT];
	struct program server = { 0 };
	adopt_orphans();
	int fd = manager(name, sizeof(name));
	setenv("NOTIFY_SOCKET", name, 1);
	program_start(&server,
		      ARGV(demo("echo_server"), "-m", models[_i].name, "--loop",
			   "--drain", "30", "tcp://127.0.0.1:0"));
	snprintf(url, sizeof(url), "%s", program_listening(&server));
	int client = dial(url);
	send_text(client, "one\n");
	expect_text(client, "one\n");
	ck_assert_int_eq(kill(server.pid, SIGUSR2), 0);
	if (!model_sync(&models[_i]) || model_supervised(&models[_i])) {
		pid_t next = next_main(fd);
		ck_assert_str_eq(program_listening(&server), url);
		ck_assert(exchange(url));
		shutdown(client, SHUT_WR);
		expect_end(client);
		ck_assert_int_eq(ended_with(server.pid), 0);
		server.pid = next;
	} else {
		/* That one client is all that it can do. */
		shutdown(client, SHUT_WR);
		expect_end(client);
		pid_t next = next_main(fd);
		ck_assert_int_eq(ended_with(server.pid), 0);
		server.pid = next;
	}
	close(client);
	kill(server.pid, SIGTERM);
	ck_assert_int_eq(ended_with(server.pid), 0);
	close(fd);
}
END_TEST

/* ---- where it lies --------------------------------------------------------*/

/* A name, and a PATH of which but the last place has it. */
static const char *installed(void)
{
	static char path[300];
	char places[400];
	snprintf(path, sizeof(path), "%s/echo_server", scratch());
	program_run(&got, "", ARGV("cp", demo("echo_server"), path));
	ck_assert_int_eq(got.status, 0);
	snprintf(places, sizeof(places), "/no/such/place:/dev/null::%s",
		 scratch());
	setenv("PATH", places, 1);
	return path;
}

static void install_anew(const char *path)
{
	char next[300];
	snprintf(next, sizeof(next), "%s.new", path);
	setenv("PATH", "/bin:/usr/bin", 1);
	program_run(&got, "", ARGV("cp", path, next));
	ck_assert_int_eq(got.status, 0);
	ck_assert_int_eq(rename(next, path), 0);
}

static const char *file_of(pid_t pid)
{
	static char file[512];
	char link[64];
	snprintf(link, sizeof(link), "/proc/%ld/exe", (long)pid);
	ssize_t n = readlink(link, file, sizeof(file) - 1);
	ck_assert_int_gt(n, 0);
	file[n] = '\0';
	return file;
}

/* How many such variables it was started with. */
static int entries_of(pid_t pid, const char *name)
{
	static char text[1 << 16];
	char path[64];
	int count = 0;
	snprintf(path, sizeof(path), "/proc/%ld/environ", (long)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	size_t n = 0;
	ssize_t r;
	while ((r = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)r;
	close(fd);
	text[n] = '\0';
	for (const char *at = text; at < text + n; at += strlen(at) + 1)
		count += strncmp(at, name, strlen(name)) == 0;
	return count;
}

/* Of a program that is known by its name; there is none: the one that runs. */
START_TEST(restart_takes_the_new_version_in_path)
{
	char name[SS_ADDRESS_TEXT], url[SS_ADDRESS_TEXT];
	struct program server = { 0 };
	bool removed = _i;
	adopt_orphans();
	int fd = manager(name, sizeof(name));
	setenv("NOTIFY_SOCKET", name, 1);
	const char *path = installed();
	setenv("WATCHDOG_PID", "1", 1);
	program_start(&server,
		      ARGV("echo_server", fresh_address(&transports[0])));
	unsetenv("WATCHDOG_PID");
	snprintf(url, sizeof(url), "%s", program_listening(&server));
	ck_assert_str_eq(file_of(server.pid), path);
	ck_assert_int_eq(entries_of(server.pid, "WATCHDOG_PID="), 1);
	if (removed)
		ck_assert_int_eq(unlink(path), 0);
	else
		install_anew(path);
	ck_assert_ptr_nonnull(strstr(file_of(server.pid), " (deleted)"));
	server.pid = restarted(&server, server.pid, fd, url);
	/* What was about the old process is not the new one's. */
	ck_assert_int_eq(entries_of(server.pid, "WATCHDOG_PID="), 0);
	ck_assert_int_eq(entries_of(server.pid, "LISTEN_PID="), 1);
	if (removed)
		ck_assert_ptr_nonnull(
			strstr(file_of(server.pid), " (deleted)"));
	else
		ck_assert_str_eq(file_of(server.pid), path);
	ck_assert(exchange(url));
	program_stop(&server, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
	close(fd);
}
END_TEST

static void cannot_restart(struct program *server, const char *listening,
			   const char *why)
{
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s", listening);
	for (int i = 0; i < 2; i++) {
		kill(server->pid, SIGUSR2);
		const char *line = program_error(server);
		ck_assert_msg(strstr(line, why), "\"%s\"", line);
		ck_assert(exchange(url));
	}
	program_stop(server, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
}

START_TEST(restart_of_what_may_not_be_executed)
{
	struct program server = { 0 };
	const char *path = installed();
	program_start(&server,
		      ARGV("echo_server", fresh_address(&transports[0])));
	const char *url = program_listening(&server);
	ck_assert_int_eq(chmod(path, 0644), 0);
	cannot_restart(&server, url,
		       " cannot execute echo_server: Permission "
		       "denied: this one goes on");
}
END_TEST

/* By its path, and by its name: there is no /proc in there either. */
START_TEST(restart_after_chroot)
{
	struct program server = { 0 };
	if (geteuid() != 0) {
		printf("skipped: the tests do not run as root\n");
		return;
	}
	const char *path = installed(), *program = _i ? "echo_server" : path;
	char room[300], why[400];
	snprintf(room, sizeof(room), "%s/room", scratch());
	ck_assert_int_eq(mkdir(room, 0700), 0);
	/* Nobody may look into it then, its own leak checker neither. */
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
	program_start(&server, ARGV(program, "--chroot", room,
				    fresh_address(&transports[0])));
	snprintf(why, sizeof(why),
		 " cannot execute %s: No such file or directory: this one goes "
		 "on",
		 program);
	cannot_restart(&server, program_listening(&server), why);
}
END_TEST

/* ---- one that fails -------------------------------------------------------*/

static int echo_line(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n > 0)
		n = ss_write(req, line, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler handler = { .handle = echo_line };

static void note_line(void *arg, int level, struct ss_server *server,
		      uint64_t id, const char *text)
{
	(void)arg, (void)server, (void)id;
	if (level > SS_LOG_WARNING)
		return;
	snprintf(board->line, sizeof(board->line), "%s", text);
	atomic_fetch_add(&board->said, 1);
}

static int note_ready(void *arg)
{
	(void)arg;
	atomic_fetch_add(&board->ready, 1);
	return 0;
}

static const char *const *next_argv;
static void (*prepare)(void); /* in its process, or NULL */

static int run_restartable(struct ss_server *server)
{
	const struct ss_run_options o = { .argv = (char *const *)next_argv,
					  .restart_ms = SHORT_MS,
					  .ready = note_ready };
	if (prepare)
		prepare();
	return -ss_run(&server, 1, &o);
}

static int execve_errno;

static int failing_execve(const char *path, char *const *argv, char *const *env)
{
	(void)path, (void)argv, (void)env;
	errno = execve_errno;
	return -1;
}

/* Neither where it is looked for, nor what runs now. */
static void lose_programs(void)
{
	execve_errno = ENOENT;
	sys_table.execve = failing_execve;
}

static void starve(void)
{
	execve_errno = ENOMEM;
	sys_table.execve = failing_execve;
}

static int no_pidfd(pid_t pid)
{
	(void)pid;
	errno = ENOSYS;
	return -1;
}

static void take_pidfds(void)
{
	sys_table.pidfd_open = no_pidfd;
}

/* A name is looked for in /bin all the same (execvp(3)). */
static void take_path(void)
{
	unsetenv("PATH");
}

static const char *const nowhere[] = { "/no/such/program", NULL };
static const char *const failing[] = { "/bin/false", NULL };
static const char *const silent[] = { "/bin/sleep", "60", NULL };
static const char *const by_name[] = { "false", NULL };

static const struct {
	const char *const *argv;
	const char *said;
	void (*prepare)(void);
} failures[] = {
	{ nowhere,
	  " cannot execute /no/such/program: No such file or "
	  "directory: this one goes on",
	  NULL },
	{ by_name,
	  " cannot execute false: No such file or directory: this one goes on",
	  lose_programs },
	{ by_name,
	  " cannot execute false: Cannot allocate memory: this one goes on",
	  starve },
	{ failing, "ended before it was ready: this one goes on", NULL },
	{ by_name, "ended before it was ready: this one goes on", take_path },
	{ silent, "was not ready in time: this one goes on", NULL },
	{ silent, "was not ready in time: this one goes on", take_pidfds },
};

enum { FAILURES = sizeof(failures) / sizeof(*failures) };

/* One line, again and again; and no process is left. */
START_TEST(restart_that_fails_changes_nothing)
{
	const struct model *model = &models[_i / FAILURES];
	struct node node;
	board_new();
	struct ss_config config = config_of(model, &transports[0], &handler);
	config.log = note_line;
	next_argv = failures[_i % FAILURES].argv;
	prepare = failures[_i % FAILURES].prepare;
	node_run(&node, &config, run_restartable);
	eventually(atomic_load(&board->ready) == 1);
	for (int i = 1; i <= 2; i++) {
		kill(node.pid, SIGUSR2);
		eventually(atomic_load(&board->said) == i);
		ck_assert_ptr_nonnull(
			strstr(board->line, failures[_i % FAILURES].said));
		ck_assert(exchange(node.url));
	}
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* It is told to restart as argv, and says this of it. */
static void restart_says(const char *const argv[], const char *text)
{
	struct node node;
	board_new();
	struct ss_config config =
		config_of(&models[0], &transports[0], &handler);
	config.log = note_line;
	next_argv = argv;
	node_run(&node, &config, run_restartable);
	eventually(atomic_load(&board->ready) == 1);
	kill(node.pid, SIGUSR2);
	eventually(atomic_load(&board->said) == 1);
	ck_assert_msg(strstr(board->line, text) != NULL, "%s", board->line);
	ck_assert_int_eq(node_stop(&node), 0);
}

/* Where there is no PATH, as execvp(3) has it. */
START_TEST(restart_looks_for_a_name_without_path)
{
	unsetenv("PATH");
	restart_says(ARGV("false"), "ended before it was ready");
}
END_TEST

/* Past a file that may not be executed, which is told where there is no other.
 */
START_TEST(restart_looks_further_in_path)
{
	char path[2 * SS_ADDRESS_TEXT], file[SS_ADDRESS_TEXT];
	snprintf(file, sizeof(file), "%s/false", scratch());
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	snprintf(path, sizeof(path), "%s%s", scratch(),
		 _i ? "" : ":/bin:/usr/bin");
	setenv("PATH", path, 1);
	restart_says(ARGV("false"),
		     _i ? "cannot execute false: Permission denied"
			: "ended before it was ready");
	unlink(file);
}
END_TEST

/* By the byte that else says that it cannot be executed, the new one says that
 * it has no signal blocked. */
START_TEST(restart_blocks_no_signals)
{
	restart_says(ARGV("/bin/sh", "-c",
			  "while read -r name value; do "
			  "case $name$value in SigBlk:*[!0]*) ;; "
			  "SigBlk:*) printf '\\001' >&4;; esac; "
			  "done </proc/$$/status"),
		     strerror(1));
}
END_TEST

START_TEST(restart_that_has_begun_ends_with_the_daemon)
{
	struct node node;
	board_new();
	struct ss_config config =
		config_of(&models[_i], &transports[0], &handler);
	config.log = note_line;
	next_argv = silent;
	node_run(&node, &config, run_restartable);
	eventually(atomic_load(&board->ready) == 1);
	kill(node.pid, SIGUSR2);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_le(atomic_load(&board->said), 1);
}
END_TEST

/* One that is not ready when the daemon is told to end, ends with it. */
START_TEST(restart_that_comes_too_late_is_ended)
{
	static char script[300], shell[] = "/bin/sh", how[] = "-c";
	const char *const late[] = { shell, how, script, NULL };
	char marker[200];
	struct node node;
	board_new();
	struct ss_config config =
		config_of(&models[_i], &transports[0], &handler);
	config.log = note_line;
	snprintf(marker, sizeof(marker), "%s/begun", scratch());
	snprintf(script, sizeof(script), ": >%s; exec sleep 60", marker);
	next_argv = late;
	node_run(&node, &config, run_restartable);
	eventually(atomic_load(&board->ready) == 1);
	kill(node.pid, SIGUSR2);
	eventually(access(marker, F_OK) == 0);
	ck_assert_int_eq(node_stop(&node), 0);
	/* Its time may just have been up. */
	ck_assert_int_eq(atomic_load(&board->said), 1);
	ck_assert_ptr_nonnull(strstr(board->line, ": this one goes on"));
	unlink(marker);
}
END_TEST

Suite *t_restart(void)
{
	Suite *suite = suite_create("t_restart");
	TCase *tcase = suite_case(suite, "load", NULL, NULL);
	if (getenv("SS_LONG"))
		tcase_set_timeout(tcase, 300);
	tcase_add_loop_test(tcase, restart_loses_no_client, 0, 2 * plain_count);
	tcase_add_loop_test(tcase, restart_takes_all_servers_along, 0,
			    plain_count);
	tcase_add_loop_test(tcase, restart_lets_conversations_end, 0,
			    plain_count);
	tcase = suite_case(suite, "program", NULL, NULL);
	tcase_add_loop_test(tcase, restart_takes_the_new_version_in_path, 0, 2);
	tcase_add_test(tcase, restart_of_what_may_not_be_executed);
	tcase_add_loop_test(tcase, restart_after_chroot, 0, 2);
	tcase = suite_case(suite, "failures", NULL, NULL);
	tcase_add_loop_test(tcase, restart_that_fails_changes_nothing, 0,
			    FAILURES * model_count);
	tcase_add_test(tcase, restart_looks_for_a_name_without_path);
	tcase_add_loop_test(tcase, restart_looks_further_in_path, 0, 2);
	tcase_add_test(tcase, restart_blocks_no_signals);
	tcase_add_loop_test(tcase, restart_that_has_begun_ends_with_the_daemon,
			    0, model_count);
	tcase_add_loop_test(tcase, restart_that_comes_too_late_is_ended, 0,
			    model_count);
	return suite;
}
