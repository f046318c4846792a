/*
 * Memory, descriptors, threads, children: all of them come back, none is
 * where it must not be, and what belongs to the program is left alone
 * (PROMISES 2, 8, 10, 11).
 */
#include "support.h"

#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <wchar.h>

static struct tape *tape;
static struct sys_table real;
static int one_thread; /* what threads() says of a process with one */

static void set_up(void)
{
	real = sys_table;
	tape = tape_new();
	one_thread = threads();
}

static void tear_down(void)
{
	sys_table = real;
}

/* ---- counts, as the server's process has them -----------------------------*/

struct counts {
	int descriptors, threads, children;
	int ours, misplaced; /* descriptors, see look() */
	size_t bytes;
	struct ss_stats stats;
};

/* What the program had open before it made its server. */
static bool inherited[1024];

/* How many of those that came since are on 0 to 2, or survive an exec. */
static int look(int *ours)
{
	int misplaced = 0;
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	*ours = 0;
	while (dir && (entry = readdir(dir))) {
		long fd = strtol(entry->d_name, NULL, 10);
		if (entry->d_name[0] == '.' || fd == dirfd(dir) ||
		    inherited[fd])
			continue;
		++*ours;
		misplaced += fd <= 2 || !(fcntl((int)fd, F_GETFD) & FD_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return misplaced;
}

/* Asked in one process, answered by the other's serving thread. */
struct question {
	atomic_int asked, answered;
	struct counts counts;
};
static struct question *question;

static void answer_service_actions(struct ss_server *server);

static const struct ss_layer answerer = {
	.name = "answerer",
	.ops = { .service_actions = answer_service_actions },
};

/* A supervisor serves nobody. */
static bool serves(const struct ss_server *server)
{
	return !(ss_server_flags(server) & SS_LAYER_SUPERVISES) ||
	       ss_worker(server) > 0;
}

static void answer_service_actions(struct ss_server *server)
{
	int asked = atomic_load(&question->asked);
	if (asked != atomic_load(&question->answered) && serves(server)) {
		struct counts *counts = &question->counts;
		/* First what tells that the rest is at rest. */
		ss_server_stats(server, &counts->stats);
		counts->threads = threads();
		counts->children = children();
		counts->descriptors = open_descriptors();
		counts->bytes = heap_in_use();
		counts->misplaced = look(&counts->ours);
		atomic_store(&question->answered, asked);
	}
	ss_super(server, &answerer)->service_actions(server);
}

static struct counts counts_now(void)
{
	int asked = atomic_fetch_add(&question->asked, 1) + 1;
	eventually(atomic_load(&question->answered) == asked);
	return question->counts;
}

static int kept_threads; /* a model's that stay while it serves */

/* Its own thread comes with the first of the program's. */
#ifdef SYS_TSAN
enum { SANITIZERS = 1 };
#else
enum { SANITIZERS = 0 };
#endif

/* Nothing is being served any more. */
static bool is_quiet(const struct counts *counts)
{
	return counts->stats.active == 0 && counts->stats.queued == 0 &&
	       counts->stats.ended == counts->stats.accepted &&
	       counts->threads <= one_thread + kept_threads + SANITIZERS &&
	       counts->children == 0;
}

static struct counts quiet_counts(void)
{
	struct counts counts;
	int64_t until = clock_ms() + WAIT_MS;
	do
		counts = counts_now();
	while (!is_quiet(&counts) && clock_ms() < until);
	ck_assert_msg(is_quiet(&counts),
		      "%d threads, %d children, %d accepted, %d ended",
		      counts.threads, counts.children,
		      (int)counts.stats.accepted, (int)counts.stats.ended);
	return counts;
}

/* ---- 8: storms ------------------------------------------------------------*/

enum { TOGETHER = 8, CROWD = 100, STORM = 10, STORMS = 20 };

static int echo(struct ss_request *req)
{
	char buf[512];
	ssize_t n = ss_read_line(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

/* It uses what a request may own: state, a reason to fail, a FILE. */
static int rich_setup(struct ss_request *req)
{
	memset(ss_state(req), 1, 100);
	return 0;
}

static int rich_handle(struct ss_request *req)
{
	FILE *file = ss_request_dgram(req) ? NULL : ss_file(req);
	char line[512];
	if (!file)
		return echo(req);
	while (fgets(line, sizeof(line), file)) {
		fputs(line, file);
		fflush(file);
	}
	return ss_fail(req, -EPIPE, "%s", "it left");
}

static const struct ss_handler rich = {
	.name = "rich",
	.size = 100,
	.setup = rich_setup,
	.handle = rich_handle,
};

static void part(int fd, bool reset)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };
	if (reset)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

/* Past those that were for who had its port before. */
static void expect_packet(int fd, const char *text)
{
	char packet[512];
	ssize_t n;
	do
		ck_assert_int_gt(
			n = recv_within(fd, packet, sizeof(packet), WAIT_MS),
			0);
	while ((size_t)n != strlen(text) || memcmp(packet, text, (size_t)n));
}

/* Clients of every kind: served, silent, in the middle of a line, reset. */
static void gust(const char *url, bool stream, int together)
{
	int fd[CROWD];
	for (int i = 0; i < together; i++)
		fd[i] = dial(url);
	for (int i = 0; i < together; i++) {
		if (i % 4 == 0 || !stream)
			send_text(fd[i], "hello\n");
		if (i % 4 == 1)
			send_text(fd[i], "hel");
	}
	for (int i = 0; i < together; i++)
		part(fd[i], stream && i % 4 == 3);
	int last = dial(url);
	send_text(last, "last\n");
	if (stream)
		expect_text(last, "last\n");
	else
		expect_packet(last, "last\n");
	close(last);
}

/* A few again and again, or very many at a time. */
static void storm(const char *url, bool stream, bool crowd)
{
	for (int i = 0; i < (crowd ? 1 : STORM); i++)
		gust(url, stream, crowd ? CROWD : TOGETHER);
}

static const struct ss_threading_options hasty = { .idle_ms = 20 };
static const struct ss_pool_options eight = { .threads = 8 };
static const struct ss_fiber_options two = { .loops = 2 };

static struct ss_config counted(const struct model *model,
				const struct transport *transport,
				const struct ss_handler *handler)
{
	question = ss_shared_alloc(sizeof(*question));
	struct ss_config config = config_of(model, transport, handler);
	use_options(&config, &ss_threading_mixin, &hasty);
	if (model_has(model, &ss_pool_mixin)) {
		use_options(&config, &ss_pool_mixin, &eight);
		kept_threads = eight.threads;
	}
	if (model_has(model, &ss_fiber_mixin) &&
	    !on_serving_thread(model, transport)) {
		use_options(&config, &ss_fiber_mixin, &two);
		kept_threads = two.loops;
	}
	use_last(&config, &answerer, NULL);
	config.poll_interval_ms = 5;
	config.log_level = SS_NONE;
	return config;
}

/*
 * The allocator's caches and our spare requests make the sum waver, but what
 * leaks grows with every storm: one allocation for each client of one kind is
 * 640 bytes.  So one storm that adds nothing is proof enough.
 */
static void weather(const struct ss_config *config, bool stream, bool crowd)
{
	struct node node;
	long least = LONG_MAX;
	node_start(&node, config);
	storm(node.url, stream, crowd);
	struct counts before = quiet_counts();
	for (int i = 0; i < STORMS && least >= 400; i++) {
		storm(node.url, stream, crowd);
		struct counts after = quiet_counts();
		long grown = (long)after.bytes - (long)before.bytes;
		least = grown < least ? grown : least;
		ck_assert_int_eq(after.descriptors, before.descriptors);
		before = after;
	}
	ck_assert_msg(least < 400, "%ld bytes more after each storm", least);
	ck_assert_int_eq(node_stop(&node), 0);
}

START_TEST(everything_comes_back_after_storms)
{
	const struct transport *transport = &transports[_i % transport_count];
	struct ss_config config =
		counted(&models[_i / transport_count], transport, &rich);
	weather(&config, transport->stream, false);
}
END_TEST

/* More at a time than are kept for the next ones. */
START_TEST(everything_comes_back_from_a_crowd)
{
	struct ss_config config = counted(&models[_i], &transports[0], &rich);
	weather(&config, true, true);
}
END_TEST

static const struct ss_layer large = { .name = "large", .request_size = 8192 };

static const struct ss_handler plain = { .name = "plain", .handle = echo };

/* Each has a request, and a buffer with the begin of a line, at the same time:
 * what is kept of that is for a few only. */
START_TEST(most_of_a_crowds_memory_goes_back)
{
	enum { FIBER1 = 9, ALL = 500, KEPT = 2 << 20 };
	struct ss_config config =
		counted(&models[FIBER1], &transports[0], &plain);
	use_last(&config, &large, NULL);
	struct node node;
	int fd[ALL];
	node_start(&node, &config);
	storm(node.url, true, false);
	struct counts before = quiet_counts();
	for (int i = 0; i < ALL; i++) {
		fd[i] = dial(node.url);
		send_text(fd[i], "hello\nhel");
		expect_text(fd[i], "hello\n");
	}
	for (int i = 0; i < ALL; i++)
		close(fd[i]);
	struct counts after = quiet_counts();
	ck_assert_int_le((long)after.bytes, (long)before.bytes + KEPT);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* What tells where a packet was sent to is kept with it. */
START_TEST(everything_comes_back_of_addresses)
{
	if (exposed())
		return;
	struct ss_config config = counted(&models[_i], &transports[1], &rich);
	config.addresses[0] = "udp://0.0.0.0:0";
	weather(&config, false, false);
}
END_TEST

/* Threads that are kept, and requests that wait, come back too. */
START_TEST(everything_comes_back_from_the_queue)
{
	struct ss_config config = counted(&models[_i], &transports[0], &rich);
	config.max_active = 3;
	config.full = SS_FULL_QUEUE;
	config.queue_size = 2;
	weather(&config, true, false);
}
END_TEST

/* ---- ways to have children
 * -------------------------------------------------*/

static int no_pidfd(pid_t pid)
{
	(void)pid;
	errno = ENOSYS;
	return -1;
}

/* The kernel has them, but there is no descriptor left for one. */
static int late_pidfd(pid_t pid)
{
	static int calls;
	if (calls++ == 0)
		return real.pidfd_open(pid);
	errno = EMFILE;
	return -1;
}

/* The kernel cannot close several at once. */
static int no_close_range(int first, int last)
{
	(void)first, (void)last;
	errno = ENOSYS;
	return -1;
}

static bool never_alone(void)
{
	return false;
}

enum { WAYS = 4 };

static void watch_children_by(int way)
{
	if (way == 1)
		sys_table.pidfd_open = no_pidfd;
	if (way == 2)
		sys_table.pidfd_open = late_pidfd;
	if (way == 3) {
		sys_table.close_range = no_close_range;
		sys_table.alone = never_alone;
	}
}

START_TEST(everything_comes_back_whatever_the_kernel_lacks)
{
	watch_children_by(_i);
	struct ss_config config = counted(&models[2], &transports[0], &rich);
	weather(&config, true, false);
}
END_TEST

/* ---- 10: where descriptors are --------------------------------------------*/

static int tell_look(struct ss_request *req)
{
	char line[16];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	ss_sleep(req, 1);
	int ours, misplaced = look(&ours);
	n = ss_printf(req, "%d of %d\n", misplaced, ours);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler looker = { .name = "look", .handle = tell_look };

static struct ss_server *bare_server;

static void stop_bare(int signal)
{
	(void)signal;
	ss_shutdown(bare_server);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) != -1;
}

/* Exits with 0 if 0 to 2 are as before. */
static _Noreturn void live_bare(const struct ss_config *config, bool bare,
				int to)
{
	char url[SS_ADDRESS_TEXT];
	for (int fd = 0; fd <= 2; fd++) {
		if (bare)
			close(fd);
		else if (!is_open(fd))
			dup2(to, fd);
	}
	for (int fd = 0; fd < 1024; fd++)
		inherited[fd] = is_open(fd);
	if (ss_server_new(&bare_server, config, NULL) < 0)
		sys_exit(2);
	struct sigaction action = { .sa_handler = stop_bare };
	sigaction(SIGTERM, &action, NULL);
	ss_server_url(bare_server, 0, url, sizeof(url));
	dprintf(to, "%s\n", url);
	int r = ss_serve_forever(bare_server);
	ss_server_free(bare_server);
	for (int fd = 0; fd <= 2; fd++)
		if (is_open(fd) == bare)
			r = -EBADF;
	sys_exit(r == 0 ? 0 : 3);
}

/* A server's process, without standard descriptors or with them. */
static void bare_start(struct node *node, const struct ss_config *config,
		       bool bare)
{
	int fds[2];
	ck_assert_int_eq(pipe(fds), 0);
	fflush(NULL);
	node->pid = fork();
	ck_assert_int_ne(node->pid, -1);
	if (node->pid == 0)
		live_bare(config, bare, fds[1]);
	close(fds[1]);
	node->lines = fds[0];
	ssize_t n = read(fds[0], node->url, sizeof(node->url));
	ck_assert_int_gt(n, 1);
	node->url[n - 1] = '\0';
}

static void expect_in_place(const char *who, int misplaced, int ours)
{
	ck_assert_msg(misplaced == 0, "%s: %d of %d descriptors", who,
		      misplaced, ours);
	ck_assert_int_ge(ours, 3);
}

static void expect_all_in_place(const struct ss_config *config, bool sync,
				bool bare)
{
	char text[32];
	int misplaced = -1, ours = -1;
	struct node node;
	bare_start(&node, config, bare);
	int fd = dial(node.url);
	send_text(fd, "look\n");
	ssize_t n = recv_within(fd, text, sizeof(text) - 1, WAIT_MS);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	ck_assert_int_eq(sscanf(text, "%d of %d", &misplaced, &ours), 2);
	expect_in_place("handler", misplaced, ours);
	if (sync)
		close(fd);
	struct counts counts = counts_now();
	expect_in_place("server", counts.misplaced, counts.ours);
	if (!sync)
		close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}

START_TEST(descriptors_are_close_on_exec_and_above_2)
{
	const struct model *model = &models[_i / transport_count];
	struct ss_config config =
		counted(model, &transports[_i % transport_count], &looker);
	expect_all_in_place(&config, model_sync(model), true);
	expect_all_in_place(&config, model_sync(model), false);
}
END_TEST

/* Nor is one left where there is no other place. */
START_TEST(pipes_are_in_place_or_not_at_all)
{
	struct rlimit before, few;
	int ends[2], kept = dup(STDIN_FILENO);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	/* All that are below are taken, but for the one to come. */
	int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
	few.rlim_cur = (rlim_t)next + 1;
	close(next);
	close(STDIN_FILENO);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	int r = sys_do_pipe(ends), error = errno;
	bool left = fcntl(STDIN_FILENO, F_GETFD) != -1 ||
		    fcntl(next, F_GETFD) != -1;
	few.rlim_cur = (rlim_t)next;
	setrlimit(RLIMIT_NOFILE, &few);
	int none = sys_do_pipe(ends), why = errno;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_int_eq(dup2(kept, STDIN_FILENO), STDIN_FILENO);
	close(kept);
	ck_assert_int_eq(r, -1);
	ck_assert_int_eq(error, EMFILE);
	ck_assert(!left);
	ck_assert_int_eq(none, -1);
	ck_assert_int_eq(why, EMFILE);
}
END_TEST

START_TEST(descriptors_are_in_place_without_pidfds)
{
	watch_children_by(1);
	struct ss_config config = counted(&models[2], &transports[_i], &looker);
	expect_all_in_place(&config, false, true);
	expect_all_in_place(&config, false, false);
}
END_TEST

/* ---- 11: children ---------------------------------------------------------*/

/* Nothing happens meanwhile that could make the server look. */
static void expect_reaped(const struct node *node)
{
	eventually(children_of(node->pid) == 0);
}

static int fate(struct ss_request *req)
{
	char line[16];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n > 0 && !strcmp(line, "fail\n"))
		return ss_fail(req, -EPROTO, "as it was told");
	if (n > 0 && !strcmp(line, "die\n"))
		kill(getpid(), SIGKILL);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler fateful = { .name = "fate", .handle = fate };

static void note_end_request(struct ss_server *server, struct ss_request *req,
			     int status);

static const struct ss_layer bookkeeper = {
	.name = "bookkeeper",
	.ops = { .end_request = note_end_request },
};

static void note_end_request(struct ss_server *server, struct ss_request *req,
			     int status)
{
	tape_note(tape, "%d", status);
	ss_super(server, &bookkeeper)->end_request(server, req, status);
}

static struct ss_config forking(void)
{
	struct ss_config config =
		config_of(&models[2], &transports[0], &fateful);
	config.mixins[1].layer = &bookkeeper;
	config.log_level = SS_NONE;
	return config;
}

static void tempt(const char *url, const char *line)
{
	int fd = dial(url);
	send_text(fd, line);
	expect_end(fd);
	close(fd);
}

static void tempt_all(const struct node *node)
{
	static const char *const fates[] = { "ok\n", "fail\n", "die\n" };
	for (int i = 0; i < 3; i++) {
		tempt(node->url, fates[i]);
		tape_wait(tape, i + 1);
		expect_reaped(node);
	}
}

START_TEST(children_are_reaped_at_once_with_their_status)
{
	watch_children_by(_i);
	struct ss_config config = forking();
	struct node node;
	node_start(&node, &config);
	tempt_all(&node);
	/* One that outlives the first look at it. */
	int fd = dial(node.url);
	pause_ms(250);
	send_text(fd, "ok\n");
	expect_end(fd);
	close(fd);
	expect_reaped(&node);
	ck_assert_int_eq(node_stop(&node), 0);
	char expected[32];
	snprintf(expected, sizeof(expected), "0 %d %d 0", -ECHILD, -ECHILD);
	ck_assert_str_eq(tape_text(tape), expected);
}
END_TEST

/* ---- 11: what they print --------------------------------------------------*/

static FILE *book;
static bool wide; /* its characters: they have a buffer of their own */

static void print(const char *text)
{
	if (wide)
		fwprintf(book, L"%s", text);
	else
		fputs(text, book);
}

static int print_in_book(struct ss_request *req)
{
	(void)req;
	print("child\n");
	return 0;
}

static int serve_with_print(struct ss_server *server)
{
	print("parent\n");
	return ss_serve_forever(server);
}

START_TEST(children_print_what_is_theirs_once)
{
	static const struct ss_handler printer = { .handle = print_in_book,
						   .speaks_first = true };
	static const char expected[] = "parent\nchild\nchild\n";
	char text[64] = "";
	watch_children_by(_i % WAYS);
	wide = _i / WAYS;
	ck_assert_ptr_nonnull(book = tmpfile());
	struct ss_config config =
		config_of(&models[2], &transports[0], &printer);
	struct node node;
	node_run(&node, &config, serve_with_print);
	for (int i = 0; i < 2; i++)
		tempt(node.url, "");
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_ge(pread(fileno(book), text, sizeof(text) - 1, 0), 0);
	ck_assert_str_eq(text, expected);
	fclose(book);
}
END_TEST

static int serve_beside_a_child(struct ss_server *server)
{
	pid_t own = fork();
	if (own == 0)
		_exit(7);
	siginfo_t info;
	waitid(P_PID, (id_t)own, &info, WEXITED | WNOWAIT);
	int r = ss_serve_forever(server), status = 0;
	if (waitpid(own, &status, WNOHANG) != own || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != 7)
		return -ECHILD;
	return r;
}

START_TEST(children_of_the_program_are_left_alone)
{
	watch_children_by(_i % WAYS);
	struct ss_config config =
		config_of(&models[_i / WAYS], &transports[0], &fateful);
	struct node node;
	config.log_level = SS_NONE;
	node_run(&node, &config, serve_beside_a_child);
	for (int i = 0; i < 3; i++)
		tempt(node.url, "ok\n");
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- 11: SIGCHLD ----------------------------------------------------------*/

static atomic_int *signals; /* taken by the program's handler */

static void count_signal(int signal)
{
	(void)signal;
	atomic_fetch_add(signals, 1);
}

static void reap_everything(int signal)
{
	int error = errno;
	(void)signal;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		atomic_fetch_add(signals, 1);
	errno = error;
}

/* What it was when the server was made. */
static void earlier(int signal)
{
	(void)signal;
}

static int serve_under(struct ss_server *server, void (*disposition)(int))
{
	struct sigaction action = { .sa_handler = disposition }, old, after;
	sigaction(SIGCHLD, &action, &old);
	int r = ss_serve_forever(server);
	sigaction(SIGCHLD, &old, &after);
	bool kept =
		old.sa_handler == earlier && after.sa_handler == disposition;
	return kept ? r : -EINVAL;
}

static int serve_under_default(struct ss_server *server)
{
	return serve_under(server, SIG_DFL);
}

static int serve_under_ignore(struct ss_server *server)
{
	return serve_under(server, SIG_IGN);
}

static int serve_under_count(struct ss_server *server)
{
	return serve_under(server, count_signal);
}

static int serve_under_reaper(struct ss_server *server)
{
	return serve_under(server, reap_everything);
}

static const struct disposition {
	int (*serve)(struct ss_server *server);
	bool takes_status; /* what our children exited with may be lost */
	bool tells;	   /* the program's handler runs */
} dispositions[] = {
	{ serve_under_default, false, false },
	{ serve_under_ignore, true, false },
	{ serve_under_count, false, true },
	{ serve_under_reaper, true, false },
};
enum { DISPOSITIONS = sizeof(dispositions) / sizeof(*dispositions) };

START_TEST(sigchld_is_the_programs)
{
	const struct disposition *how = &dispositions[_i / WAYS];
	signals = ss_shared_alloc(sizeof(*signals));
	watch_children_by(_i % WAYS);
	struct ss_config config = forking();
	struct sigaction action = { .sa_handler = earlier,
				    .sa_flags = SA_RESTART };
	struct node node;
	sigaction(SIGCHLD, &action, NULL);
	node_run(&node, &config, how->serve);
	tempt_all(&node);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&tape->count), 3);
	for (int i = 0; i < 3; i++) {
		long status = strtol(tape->line[i].text, NULL, 10);
		ck_assert_msg(status == (i ? -ECHILD : 0) ||
				      (how->takes_status && status == 0),
			      "%d: %ld", i, status);
	}
	if (how->tells)
		ck_assert_int_ge(atomic_load(signals), 3);
}
END_TEST

/* ---- 11: who only ever calls handle_request -------------------------------*/

static int serve_one_by_one(struct ss_server *server)
{
	int r;
	do
		r = ss_handle_request(server);
	while (r >= 0);
	return r == -ECANCELED ? 0 : r;
}

START_TEST(children_are_reaped_under_handle_request)
{
	watch_children_by(_i);
	struct ss_config config = forking();
	config.timeout_ms = 50;
	struct node node;
	node_run(&node, &config, serve_one_by_one);
	for (int i = 0; i < 5; i++)
		tempt(node.url, "ok\n");
	expect_reaped(&node);
	tape_wait(tape, 5);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- 11: one behind the other ---------------------------------------------*/

#ifdef SS_LINUX
static int endless(int epfd, struct epoll_event *events, int n, int ms)
{
	return real.epoll_wait(epfd, events, n, ms > 0 ? -1 : ms);
}
#else
static int endless(struct pollfd *fds, nfds_t n, int ms)
{
	return real.poll(fds, n, ms > 0 ? -1 : ms);
}
#endif

/* No wait of the loop ends by itself. */
static void wait_for_events(void)
{
#ifdef SS_LINUX
	sys_table.epoll_wait = endless;
#else
	sys_table.poll = endless;
#endif
}

enum { BURST = 4 };

/* Accepted at one go.  While the server sleeps, all but the first are told to
 * end, which lives on. */
static void burst(const struct node *node, int *fds)
{
	kill(node->pid, SIGSTOP);
	for (int i = 0; i < BURST; i++)
		fds[i] = dial(node->url);
	kill(node->pid, SIGCONT);
	pause_ms(100);
	for (int i = 1; i < BURST; i++)
		send_text(fds[i], "ok\n");
	for (int i = 1; i < BURST; i++)
		expect_end(fds[i]);
}

static void expect_one_left(struct node *node, const int *fds)
{
	eventually(children_of(node->pid) == 1);
	send_text(fds[0], "ok\n");
	expect_end(fds[0]);
	for (int i = 0; i < BURST; i++)
		close(fds[i]);
	expect_reaped(node);
	ck_assert_int_eq(node_stop(node), 0);
}

START_TEST(children_are_reaped_behind_an_older_one)
{
	int fds[BURST];
	watch_children_by(_i);
	struct ss_config config = forking();
	struct node node;
	node_start(&node, &config);
	burst(&node, fds);
	expect_one_left(&node, fds);
}
END_TEST

/* Their age cannot be what frees it. */
START_TEST(children_are_reaped_at_once_where_a_place_is_wanted)
{
	static const enum ss_full policies[] = { SS_FULL_WAIT, SS_FULL_QUEUE };
	int fds[BURST];
	wait_for_events();
	struct ss_config config = forking();
	config.max_active = BURST - 1;
	config.full = policies[_i];
	struct node node;
	node_start(&node, &config);
	burst(&node, fds);
	expect_one_left(&node, fds);
}
END_TEST

/* ---- 11: neither pidfd nor pipe
 * --------------------------------------------*/

static atomic_bool *pipes_fail;

static int failing_pipe(int fds[2])
{
	if (!atomic_load(pipes_fail))
		return real.pipe(fds);
	errno = EMFILE;
	return -1;
}

START_TEST(children_that_nothing_watches_are_reaped)
{
	pipes_fail = ss_shared_alloc(sizeof(*pipes_fail));
	watch_children_by(1);
	sys_table.pipe = failing_pipe;
	struct ss_config config = forking();
	struct node node;
	node_start(&node, &config);
	atomic_store(pipes_fail, true);
	tempt_all(&node);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&tape->count), 3);
}
END_TEST

/* ---- workers that die young -----------------------------------------------*/

static atomic_int *births;

static int no_activate(struct ss_server *server)
{
	(void)server;
	atomic_fetch_add(births, 1);
	return -EIO;
}

static const struct ss_layer stillborn = {
	.name = "stillborn",
	.ops = { .server_activate = no_activate },
};

static void note_warning(void *arg, int level, struct ss_server *server,
			 uint64_t id, const char *text)
{
	(void)server, (void)id;
	if (level == SS_LOG_WARNING && strstr(text, "die young"))
		tape_note(arg, "%s", text);
}

/* The pauses grow: eight take a second, and not a moment. */
START_TEST(workers_that_die_young_are_forked_more_and_more_seldom)
{
	enum { PREFORK = 5 };
	births = ss_shared_alloc(sizeof(*births));
	struct ss_config config =
		config_of(&models[PREFORK], &transports[0], &rich);
	use_last(&config, &stillborn, NULL);
	config.log = note_warning;
	config.log_arg = tape;
	struct node node;
	int64_t from = clock_ms();
	node_start(&node, &config);
	eventually(atomic_load(births) >= 5);
	ck_assert_int_ge(clock_ms() - from, 10 + 20 + 40);
	pause_ms(200);
	ck_assert_int_le(atomic_load(births), 5 + (clock_ms() - from) / 80);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&tape->count), 1);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

Suite *t_resources(void)
{
	Suite *suite = suite_create("t_resources");
	TCase *tcase = suite_case(suite, "storms", set_up, tear_down);
	tcase_add_loop_test(tcase, everything_comes_back_after_storms, 0,
			    model_count * transport_count);
	tcase_add_loop_test(tcase, everything_comes_back_from_a_crowd, 0,
			    model_count);
	tcase_add_test(tcase, most_of_a_crowds_memory_goes_back);
	tcase_add_loop_test(tcase, everything_comes_back_of_addresses, 0,
			    model_count);
	tcase_add_loop_test(tcase, everything_comes_back_from_the_queue, 1,
			    model_count);
	tcase_add_loop_test(tcase,
			    everything_comes_back_whatever_the_kernel_lacks, 1,
			    WAYS);

	tcase = suite_case(suite, "descriptors", set_up, tear_down);
	tcase_add_loop_test(tcase, descriptors_are_close_on_exec_and_above_2, 0,
			    model_count * transport_count);
	tcase_add_loop_test(tcase, descriptors_are_in_place_without_pidfds, 0,
			    transport_count);
	tcase_add_test(tcase, pipes_are_in_place_or_not_at_all);

	tcase = suite_case(suite, "children", set_up, tear_down);
	tcase_add_test(tcase,
		       workers_that_die_young_are_forked_more_and_more_seldom);
	tcase_add_loop_test(
		tcase, children_are_reaped_at_once_with_their_status, 0, WAYS);
	tcase_add_loop_test(tcase, children_print_what_is_theirs_once, 0,
			    2 * WAYS);
	tcase_add_loop_test(tcase, children_of_the_program_are_left_alone, 0,
			    model_count * WAYS);
	tcase_add_loop_test(tcase, sigchld_is_the_programs, 0,
			    DISPOSITIONS * WAYS);
	tcase_add_loop_test(tcase, children_are_reaped_under_handle_request, 0,
			    WAYS);
	tcase_add_loop_test(tcase, children_are_reaped_behind_an_older_one, 0,
			    WAYS);
	tcase_add_loop_test(tcase,
			    children_are_reaped_at_once_where_a_place_is_wanted,
			    0, 2);
	tcase_add_test(tcase, children_that_nothing_watches_are_reaped);
	return suite;
}
