/*
 * ss_run: servers of every model served until a signal, drained together,
 * reloaded, and all signals as they were afterwards.
 */
#include "support.h"

#include <signal.h>
#include <sys/wait.h>

Suite *t_run(void);

enum { SERVERS = 2, LONG_MS = 60000, DRAIN_MS = 2000, LINES = 64 };

/* What a test and its daemon share. */
struct board {
	struct tape tape;
	char url[SERVERS][SS_ADDRESS_TEXT];
	atomic_int ready;
	atomic_int reloads;
	atomic_int saying, said; /* lines of the log */
	char line[LINES][256];
};

static struct board *board;

static void board_new(void)
{
	board = ss_shared_alloc(sizeof(*board));
	ck_assert_ptr_nonnull(board);
}

static const struct transport *const tcp = &transports[0];

static const struct model *model_named(const char *name)
{
	for (int i = 0; i < model_count; i++)
		if (strcmp(models[i].name, name) == 0)
			return &models[i];
	ck_abort_msg("no model %s", name);
}

/* ---- what it serves -------------------------------------------------------*/

/* A plain static: each process has its own. */
static atomic_int version = 1;

/* A line in, the same line out; "version" is answered by its number. */
static int converse(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	if (strcmp(line, "version\n") == 0)
		n = ss_printf(req, "%d\n", atomic_load(&version));
	else
		n = ss_write(req, line, (size_t)n);
	return n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler conversation = { .name = "conversation",
						.handle = converse };

static void note_line(void *arg, int level, struct ss_server *server,
		      uint64_t id, const char *text)
{
	(void)arg, (void)server, (void)id;
	if (level > SS_LOG_WARNING)
		return;
	int i = atomic_fetch_add(&board->saying, 1);
	if (i < LINES)
		snprintf(board->line[i], sizeof(board->line[i]), "%s", text);
	atomic_fetch_add(&board->said, 1);
}

static struct ss_config config_for(const struct model *model)
{
	struct ss_config config = config_of(model, tcp, &conversation);
	config.log = note_line;
	config.drain_ms = LONG_MS;
	return config;
}

/* ---- daemons --------------------------------------------------------------*/

static int note_ready(void *arg)
{
	(void)arg;
	atomic_fetch_add(&board->ready, 1);
	return 0;
}

static int count_reload(void *arg)
{
	(void)arg;
	atomic_fetch_add(&version, 1);
	atomic_fetch_add(&board->reloads, 1);
	return 0;
}

static struct ss_run_options run_options = { .ready = note_ready,
					     .reload = count_reload };

static int run_alone(struct ss_server *server)
{
	return -ss_run(&server, 1, &run_options);
}

/* A daemon of one server, which minds signals. */
static void daemon_start(struct node *node, const struct ss_config *config)
{
	node_run(node, config, run_alone);
	eventually(atomic_load(&board->ready) == 1);
}

/* The other servers of a daemon, whose first one is node_run's. */
static const struct ss_config *others;
static int other_count;

static int run_with_others(struct ss_server *server)
{
	struct ss_server *all[SERVERS] = { server };
	int count = 1;
	for (int i = 0; i < other_count; i++)
		all[count++] = made(&others[i]);
	for (int i = 0; i < count; i++)
		ss_server_url(all[i], 0, board->url[i], SS_ADDRESS_TEXT);
	int status = ss_run(all, count, &run_options);
	for (int i = 1; i < count; i++)
		ck_assert_int_eq(ss_server_free(all[i]), 0);
	return -status;
}

static void pair_start(struct node *node, const struct ss_config configs[2])
{
	others = &configs[1];
	other_count = 1;
	node_run(node, &configs[0], run_with_others);
	eventually(atomic_load(&board->ready) == 1);
}

/* Connected, and in the middle of a message. */
static int half_way(const char *url)
{
	int fd = dial(url);
	send_text(fd, "one\nha");
	expect_text(fd, "one\n");
	return fd;
}

static void expect_rest(int fd)
{
	send_text(fd, "lf\n");
	expect_text(fd, "half\n");
	expect_end(fd);
	close(fd);
}

/* End of file in the middle of a line ends that line. */
static void expect_cut(int fd)
{
	expect_text(fd, "ha");
	expect_end(fd);
}

static bool refuses(const char *url)
{
	int fd = try_dial(url);
	if (fd >= 0)
		close(fd);
	return fd < 0;
}

/* ---- stopping -------------------------------------------------------------*/

static const int stops[] = { SIGTERM, SIGINT };

/* Every model, both signals. */
START_TEST(run_ends_well_by_a_signal)
{
	board_new();
	struct node node;
	struct ss_config config = config_for(&models[_i / 2]);
	daemon_start(&node, &config);
	echo_once(node.url, "hello\n");
	kill(node.pid, stops[_i % 2]);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_eq(atomic_load(&board->said), 0);
}
END_TEST

/* A daemon that was told to stop in the middle of a conversation, and goes on
 * with nothing else. */
static int stop_half_way(struct node *node, const struct model *model)
{
	board_new();
	struct ss_config config = config_for(model);
	daemon_start(node, &config);
	int fd = half_way(node->url);
	kill(node->pid, SIGTERM);
	if (!model_sync(model))
		eventually(refuses(node->url));
	return fd;
}

START_TEST(run_lets_conversations_end)
{
	struct node node;
	int fd = stop_half_way(&node, &models[_i]);
	expect_rest(fd);
	ck_assert_int_eq(node_wait(&node), 0);
}
END_TEST

/* Without it the test would take a minute. */
START_TEST(run_ends_at_once_by_two_signals)
{
	struct node node;
	int fd = stop_half_way(&node, &models[_i]);
	kill(node.pid, SIGINT);
	/* Pending, they are one. */
	kill(node.pid, SIGTERM);
	ck_assert_int_eq(node_wait(&node), 0);
	close(fd);
}
END_TEST

/* A terminal's Ctrl-C reaches the children too. */
START_TEST(run_minds_one_signal_for_the_whole_group)
{
	board_new();
	struct node node;
	struct ss_config config = config_for(&models[_i]);
	daemon_start(&node, &config);
	ck_assert_int_eq(setpgid(node.pid, node.pid), 0);
	/* Workers were forked before, and are in our group. */
	bool supervised = model_supervised(&models[_i]);
	int fd = half_way(node.url);
	if (supervised)
		kill(node.pid, SIGINT);
	else
		kill(-node.pid, SIGINT);
	expect_rest(fd);
	ck_assert_int_eq(node_wait(&node), 0);
}
END_TEST

static int say_pid(struct ss_request *req)
{
	char line[8];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n > 0)
		n = ss_printf(req, "%d\n", (int)getpid());
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler pids = { .name = "pids", .handle = say_pid };

static pid_t pid_of(int fd)
{
	char text[16] = "";
	send_text(fd, "?\n");
	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		expect_bytes(fd, text + n, 1);
		if (text[n] == '\n')
			break;
	}
	return (pid_t)strtol(text, NULL, 10);
}

/* Their signals are nothing to the daemon. */
START_TEST(run_leaves_signals_of_children_alone)
{
	static const char *const forking[] = { "forking", "prefork",
					       "prefork:threading" };
	board_new();
	struct node node;
	struct ss_config config = config_for(model_named(forking[_i]));
	config.handler = &pids;
	daemon_start(&node, &config);
	int fd = dial(node.url);
	pid_t child = pid_of(fd);
	ck_assert_int_ne(child, node.pid);
	kill(child, SIGTERM);
	kill(child, SIGHUP);
	kill(child, SIGINT);
	ck_assert_int_eq(pid_of(fd), child);
	ck_assert_int_eq(atomic_load(&board->reloads), 0);
	close(fd);
	int again = dial(node.url);
	ck_assert_int_ne(pid_of(again), 0);
	close(again);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- several servers ------------------------------------------------------*/

/* Those that may live in one process: with threads, and with children. */
static const char *const together[][2] = {
	{ "sync", "sync" },
	{ "sync", "threading" },
	{ "threading", "pool" },
	{ "fiber", "sync" },
	{ "fiber", "fiber" },
	{ "fiber, one loop", "fiber, one loop" },
	{ "forking", "sync" },
	{ "prefork", "sync" },
	{ "forking", "prefork" },
	{ "prefork", "prefork" },
	{ "prefork:threading", "prefork:fiber" },
	{ "fiber, one loop", "prefork:pool" },
	{ "prefork:threading", "fiber, one loop" },
};

enum { PAIRS = sizeof(together) / sizeof(*together) };

static void configure_pair(struct ss_config configs[2], int pair)
{
	for (int i = 0; i < 2; i++)
		configs[i] = config_for(model_named(together[pair][i]));
}

static void converses(const char *url)
{
	int fd = dial(url);
	send_text(fd, "hello\n");
	expect_text(fd, "hello\n");
	close(fd);
}

START_TEST(run_serves_several_servers)
{
	board_new();
	struct node node;
	struct ss_config configs[2];
	configure_pair(configs, _i);
	pair_start(&node, configs);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 2; i++)
			converses(board->url[i]);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&board->said), 0);
}
END_TEST

/* Sync ones have one thread between them, and a worker that is busy listens
 * until it has served its client. */
static bool both_at_once(int pair)
{
	for (int i = 0; i < 2; i++)
		if (model_sync(model_named(together[pair][i])))
			return false;
	return true;
}

/* So often there is no memory for what is waited for. */
static atomic_int *starving;

static void *starving_calloc(size_t n, size_t size)
{
	if (size != sizeof(struct pollfd) || atomic_load(starving) == 0)
		return calloc(n, size);
	atomic_fetch_sub(starving, 1);
	return NULL;
}

/* Others wait then, and a little longer. */
START_TEST(run_serves_others_where_memory_is_short)
{
	const struct ss_config configs[2] = {
		config_for(model_named("sync")),
		config_for(model_named("fiber, one loop")),
	};
	struct node node;
	board_new();
	starving = ss_shared_alloc(sizeof(*starving));
	ck_assert_ptr_nonnull(starving);
	sys_table.calloc = starving_calloc;
	pair_start(&node, configs);
	sys_table.calloc = calloc;
	int fd = dial(board->url[0]);
	send_text(fd, "one\n");
	expect_text(fd, "one\n");
	for (int i = 0; i < 3; i++) {
		atomic_store(starving, 2);
		echo_once(board->url[1], "beside\n");
		eventually(atomic_load(starving) == 0);
	}
	send_text(fd, "two\n");
	expect_text(fd, "two\n");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* None of them listens any more, and each goes on, in whichever order. */
static void drain_in_order(int pair, int first)
{
	board_new();
	struct node node;
	struct ss_config configs[2];
	configure_pair(configs, pair);
	pair_start(&node, configs);
	int fds[2] = { half_way(board->url[0]), half_way(board->url[1]) };
	kill(node.pid, SIGTERM);
	for (int i = 0; i < 2; i++)
		eventually(refuses(board->url[i]));
	expect_rest(fds[first]);
	expect_rest(fds[!first]);
	ck_assert_int_eq(node_wait(&node), 0);
}

static const char *const beside_sync[] = { "threading", "pool", "fiber",
					   "fiber, one loop" };
enum { BESIDE = sizeof(beside_sync) / sizeof(*beside_sync) };

/* A sync server's client keeps the thread; reloads are for when he has gone. */
START_TEST(run_serves_others_while_a_handler_waits)
{
	const struct ss_config configs[2] = {
		config_for(model_named("sync")),
		config_for(model_named(beside_sync[_i])),
	};
	struct node node;
	board_new();
	pair_start(&node, configs);
	int fd = dial(board->url[0]);
	send_text(fd, "one\n");
	expect_text(fd, "one\n");
	for (int i = 0; i < 3; i++) {
		echo_once(board->url[1], "beside\n");
		kill(node.pid, SIGHUP);
	}
	echo_once(board->url[1], "beside\n");
	ck_assert_int_eq(atomic_load(&board->reloads), 0);
	send_text(fd, "two\n");
	expect_text(fd, "two\n");
	int other = dial(board->url[1]);
	send_text(other, "one\n");
	expect_text(other, "one\n");
	close(fd);
	eventually(atomic_load(&board->reloads) > 0);
	echo_once(board->url[0], "after\n");
	send_text(other, "two\n");
	expect_text(other, "two\n");
	fd = dial(board->url[0]);
	send_text(fd, "one\n");
	expect_text(fd, "one\n");
	ck_assert_int_eq(node_stop(&node), 0);
	expect_end(fd);
	expect_end(other);
}
END_TEST

START_TEST(run_drains_all_servers_at_the_same_time)
{
	if (!both_at_once(_i / 2))
		return;
	drain_in_order(_i / 2, _i % 2);
}
END_TEST

/* The second does not begin when the first has ended. */
START_TEST(run_has_one_deadline_for_all)
{
	if (!both_at_once(_i))
		return;
	board_new();
	struct node node;
	struct ss_config configs[2];
	configure_pair(configs, _i);
	configs[0].drain_ms = configs[1].drain_ms = DRAIN_MS;
	pair_start(&node, configs);
	int fds[2] = { half_way(board->url[0]), half_way(board->url[1]) };
	int64_t began = clock_ms();
	kill(node.pid, SIGTERM);
	expect_cut(fds[0]);
	int64_t first = clock_ms();
	expect_cut(fds[1]);
	ck_assert_int_ge(first - began, DRAIN_MS - 1);
	ck_assert_int_lt(clock_ms() - first, DRAIN_MS - 500);
	ck_assert_int_eq(node_wait(&node), 0);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(run_ends_several_at_once_by_two_signals)
{
	if (!both_at_once(_i))
		return;
	board_new();
	struct node node;
	struct ss_config configs[2];
	configure_pair(configs, _i);
	pair_start(&node, configs);
	int fds[2] = { half_way(board->url[0]), half_way(board->url[1]) };
	kill(node.pid, SIGTERM);
	for (int i = 0; i < 2; i++)
		eventually(refuses(board->url[i]));
	kill(node.pid, SIGTERM);
	ck_assert_int_eq(node_wait(&node), 0);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* A line that says why, before anything runs. */
START_TEST(run_has_no_threads_beside_forks)
{
	static const char *const apart[][2] = {
		{ "prefork", "threading" },
		{ "pool", "prefork:threading" },
		{ "forking", "threading" },
	};
	struct ss_config first = config_for(model_named(apart[_i][0]));
	struct ss_config second = config_for(model_named(apart[_i][1]));
	struct ss_server *server = made(&first);
	refused(&second, -EINVAL, "one forks, and the other has threads");
	ss_server_free(server);
}
END_TEST

/* ---- reload ---------------------------------------------------------------*/

static int version_at(const char *url)
{
	char text[2];
	int fd = dial(url);
	send_text(fd, "version\n");
	expect_bytes(fd, text, 2);
	close(fd);
	return text[0] - '0';
}

/* Those that were being served are not disturbed. */
START_TEST(run_reloads)
{
	const struct model *model = &models[_i];
	board_new();
	struct node node;
	struct ss_config config = config_for(model);
	daemon_start(&node, &config);
	ck_assert_int_eq(version_at(node.url), 1);
	int fd = model_sync(model) ? -1 : half_way(node.url);
	kill(node.pid, SIGHUP);
	eventually(atomic_load(&board->reloads) == 1);
	eventually(version_at(node.url) == 2);
	kill(node.pid, SIGHUP);
	eventually(version_at(node.url) == 3);
	if (fd >= 0) {
		send_text(fd, "lf\n");
		expect_text(fd, "half\n");
		close(fd);
	}
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&board->reloads), 2);
	ck_assert_int_eq(atomic_load(&board->said), 0);
}
END_TEST

/* Whom the daemon's first process has reaped is not there any more. */
static bool gone(pid_t pid)
{
	return kill(pid, 0) == -1 && errno == ESRCH;
}

/* The drain deadline is not what ends them. */
START_TEST(run_ends_the_workers_that_are_replaced)
{
	static const char *const supervised[] = {
		"prefork", "prefork:threading", "prefork:pool", "prefork:fiber"
	};
	board_new();
	struct node node;
	struct ss_config config = config_for(model_named(supervised[_i]));
	config.handler = &pids;
	daemon_start(&node, &config);
	int fd = dial(node.url);
	pid_t worker = pid_of(fd);
	close(fd);
	kill(node.pid, SIGHUP);
	eventually(gone(worker));
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(run_reloads_several_servers)
{
	board_new();
	struct node node;
	struct ss_config configs[2];
	configure_pair(configs, _i);
	pair_start(&node, configs);
	kill(node.pid, SIGHUP);
	for (int i = 0; i < 2; i++)
		eventually(version_at(board->url[i]) == 2);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&board->reloads), 1);
}
END_TEST

/* The shutdown by which workers are renewed is not taken for a first signal. */
START_TEST(run_drains_after_a_storm_of_reloads)
{
	board_new();
	struct node node;
	struct ss_config config = config_for(&models[_i]);
	daemon_start(&node, &config);
	for (int i = 0; i < 20; i++)
		kill(node.pid, SIGHUP);
	eventually(atomic_load(&board->reloads) >= 1);
	int fd = half_way(node.url);
	kill(node.pid, SIGHUP);
	kill(node.pid, SIGTERM);
	if (!model_sync(&models[_i]))
		eventually(refuses(node.url));
	expect_rest(fd);
	ck_assert_int_eq(node_wait(&node), 0);
}
END_TEST

/* Asked for both at once, it ends. */
START_TEST(run_reloads_nothing_when_it_is_to_end)
{
	int status;
	board_new();
	struct node node;
	struct ss_config config = config_for(&models[_i]);
	daemon_start(&node, &config);
	kill(node.pid, SIGSTOP);
	ck_assert_int_eq(waitpid(node.pid, &status, WUNTRACED), node.pid);
	kill(node.pid, SIGHUP);
	kill(node.pid, SIGTERM);
	kill(node.pid, SIGCONT);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_eq(atomic_load(&board->reloads), 0);
}
END_TEST

START_TEST(run_reloads_nothing_while_it_drains)
{
	board_new();
	struct node node;
	struct ss_config config = config_for(&models[_i]);
	if (model_sync(&models[_i]))
		return;
	daemon_start(&node, &config);
	int fd = half_way(node.url);
	kill(node.pid, SIGTERM);
	eventually(refuses(node.url));
	kill(node.pid, SIGHUP);
	expect_rest(fd);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_eq(atomic_load(&board->reloads), 0);
}
END_TEST

static int reload_again(void *arg)
{
	if (atomic_load(&board->reloads) == 0)
		kill(getpid(), SIGHUP);
	return count_reload(arg);
}

/* Asked anew while it reloads: workers are renewed, and nobody takes that for
 * two signals to end. */
START_TEST(run_reloads_once_more)
{
	board_new();
	struct node node;
	struct ss_config configs[2];
	configure_pair(configs, _i);
	run_options.reload = reload_again;
	pair_start(&node, configs);
	kill(node.pid, SIGHUP);
	for (int i = 0; i < 2; i++)
		eventually(version_at(board->url[i]) == 3);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&board->reloads), 2);
}
END_TEST

static int fail_reload(void *arg)
{
	(void)arg;
	atomic_fetch_add(&board->reloads, 1);
	return -ENOENT;
}

static int run_badly_reloading(struct ss_server *server)
{
	const struct ss_run_options bad = { .ready = note_ready,
					    .reload = fail_reload };
	return -ss_run(&server, 1, &bad);
}

START_TEST(run_goes_on_after_a_reload_that_failed)
{
	board_new();
	struct node node;
	struct ss_config config = config_for(model_named("prefork"));
	config.handler = &pids;
	node_run(&node, &config, run_badly_reloading);
	eventually(atomic_load(&board->ready) == 1);
	int fd = dial(node.url);
	pid_t worker = pid_of(fd);
	close(fd);
	kill(node.pid, SIGHUP);
	eventually(atomic_load(&board->said) == 1);
	ck_assert_str_eq(board->line[0], "reload: No such file or directory");
	fd = dial(node.url);
	ck_assert_int_eq(pid_of(fd), worker);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- signals as they were -------------------------------------------------*/

static const int touched[] = { SIGTERM, SIGINT, SIGHUP };
enum { TOUCHED = sizeof(touched) / sizeof(*touched) };

static void theirs(int sig)
{
	(void)sig;
}

struct dispositions {
	struct sigaction action[TOUCHED];
	sigset_t mask;
};

static void look(struct dispositions *found)
{
	for (int i = 0; i < TOUCHED; i++)
		sigaction(touched[i], NULL, &found->action[i]);
	pthread_sigmask(SIG_SETMASK, NULL, &found->mask);
}

struct visit {
	struct ss_server *server;
	struct dispositions seen;
	int result;
};

static int look_and_end(void *arg)
{
	struct visit *visit = arg;
	look(&visit->seen);
	if (visit->result < 0)
		return visit->result;
	ss_shutdown(visit->server);
	return 0;
}

static int never(void *arg)
{
	(void)arg;
	ck_abort_msg("nobody asked");
}

/* With and without reload, and where it does not begin. */
START_TEST(run_puts_all_signals_back)
{
	struct sigaction action = { .sa_handler = theirs,
				    .sa_flags = SA_NODEFER };
	struct dispositions before, after;
	board_new();
	struct ss_config config = config_for(model_named("sync"));
	struct visit visit = { .server = made(&config),
			       .result = _i == 2 ? -EIO : 0 };
	struct ss_run_options o = { .arg = &visit,
				    .ready = look_and_end,
				    .reload = _i == 1 ? never : NULL };
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGINT, SIG_IGN);
	look(&before);
	ck_assert_int_eq(ss_run(&visit.server, 1, &o), _i == 2);
	look(&after);
	for (int i = 0; i < TOUCHED; i++) {
		ck_assert(before.action[i].sa_handler ==
			  after.action[i].sa_handler);
		ck_assert_int_eq(before.action[i].sa_flags,
				 after.action[i].sa_flags);
		bool minded = touched[i] != SIGHUP || _i == 1;
		ck_assert_int_eq(before.action[i].sa_handler !=
					 visit.seen.action[i].sa_handler,
				 minded);
		ck_assert_int_eq(sigismember(&after.mask, touched[i]),
				 touched[i] != SIGINT);
		ck_assert_int_eq(sigismember(&visit.seen.mask, touched[i]),
				 !minded);
	}
	ck_assert_int_eq(sigismember(&after.mask, SIGUSR1), 1);
	ck_assert_int_eq(ss_serve_forever(visit.server), -EBADF);
	ck_assert_int_eq(ss_server_free(visit.server), 0);
}
END_TEST

/* A thread that is still in the handler when the run is over is waited for. */
static pthread_t slow_thread;
static _Thread_local bool slow;
static atomic_bool within, let_go;

static ssize_t slow_write(int fd, const void *buf, size_t n)
{
	ssize_t r = write(fd, buf, n);
	if (!slow)
		return r;
	atomic_store(&within, true);
	while (!atomic_load(&let_go))
		pause_ms(1);
	return r;
}

/* It is just that which waits for nothing. */
static int letting_poll(struct pollfd *fds, nfds_t n, int ms)
{
	if (!fds && n == 0 && atomic_load(&within))
		atomic_store(&let_go, true);
	return poll(fds, n, ms);
}

static void *be_signalled(void *arg)
{
	slow = true;
	pthread_kill(pthread_self(), SIGTERM);
	return arg;
}

static int signal_a_thread(void *arg)
{
	(void)arg;
	return -pthread_create(&slow_thread, NULL, be_signalled, NULL);
}

START_TEST(run_outlives_its_handlers)
{
	const struct sys_table real = sys_table;
	const struct ss_run_options o = { .ready = signal_a_thread };
	board_new();
	struct ss_config config = config_for(model_named("sync"));
	struct ss_server *server = made(&config);
	sys_table.write = slow_write;
	sys_table.poll = letting_poll;
	ck_assert_int_eq(ss_run(&server, 1, &o), 0);
	ck_assert(atomic_load(&within) && atomic_load(&let_go));
	pthread_join(slow_thread, NULL);
	sys_table = real;
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Whoever starts it may have them blocked. */
static int run_blocked(struct ss_server *server)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	return run_alone(server);
}

START_TEST(run_minds_signals_that_were_blocked)
{
	board_new();
	struct node node;
	struct ss_config config = config_for(model_named("threading"));
	node_run(&node, &config, run_blocked);
	eventually(atomic_load(&board->ready) == 1);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- one request ----------------------------------------------------------*/

static int run_once(struct ss_server *server)
{
	const struct ss_run_options o = { .ready = note_ready, .once = true };
	return -ss_run(&server, 1, &o);
}

static int refuse_once(struct ss_server *server)
{
	return run_once(server) == -1 ? 0 : -EPROTO;
}

START_TEST(run_once_ends_after_one_request)
{
	const struct model *model = &models[_i];
	board_new();
	struct node node;
	struct ss_config config = config_for(model);
	node_run(&node, &config,
		 model_supervised(model) ? refuse_once : run_once);
	if (model_supervised(model)) {
		ck_assert_int_eq(node_wait(&node), 0);
		ck_assert_ptr_nonnull(strstr(board->line[0], "workers serve"));
		ck_assert_int_eq(atomic_load(&board->said), 1);
		return;
	}
	converses(node.url);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_eq(atomic_load(&board->said), 0);
}
END_TEST

START_TEST(run_once_ends_by_a_signal_too)
{
	if (model_supervised(&models[_i]))
		return;
	board_new();
	struct node node;
	struct ss_config config = config_for(&models[_i]);
	node_run(&node, &config, run_once);
	eventually(atomic_load(&board->ready) == 1);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- what cannot be -------------------------------------------------------*/

static void said(const char *text)
{
	ck_assert_int_eq(atomic_load(&board->said), 1);
	ck_assert_str_eq(board->line[0], text);
	atomic_store(&board->said, 0);
	atomic_store(&board->saying, 0);
}

START_TEST(run_refuses_what_makes_no_sense)
{
	struct {
		struct ss_run_options known;
		long more;
	} newer = { .more = 1 };
	const struct ss_run_options once = { .once = true };
	board_new();
	struct ss_config config = config_for(model_named("sync"));
	struct ss_server *servers[2] = { made(&config) };
	config = config_for(model_named("sync"));
	servers[1] = made(&config);
	ck_assert_int_eq(ss_run(servers, 0, NULL), 2);
	ck_assert_int_eq(ss_run_sized(servers, 1, &newer.known, sizeof(newer)),
			 2);
	ck_assert_int_eq(ss_run(servers, 2, &once), 1);
	said("one request, and several servers: Invalid argument");
	ss_server_close(servers[0]);
	ck_assert_int_eq(ss_run(servers, 1, NULL), 1);
	said("cannot serve: Bad file descriptor");
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(ss_server_free(servers[i]), 0);
}
END_TEST

static int run_in_handler(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	ss_printf(req, "%d\n", ss_run(&server, 1, NULL));
	return 0;
}

/* It stays as it was: the server goes on. */
START_TEST(run_refuses_to_run_in_a_handler)
{
	static const struct ss_handler nested = { .handle = run_in_handler,
						  .speaks_first = true };
	board_new();
	struct node node;
	struct ss_config config = config_for(&models[_i]);
	config.handler = &nested;
	daemon_start(&node, &config);
	for (int i = 0; i < 2; i++) {
		int fd = dial(node.url);
		expect_text(fd, "1\n");
		expect_end(fd);
		close(fd);
	}
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_str_eq(board->line[0],
			 "cannot serve: Resource deadlock avoided");
}
END_TEST

struct other_run {
	struct ss_server *server;
	int status;
};

static void *run_beside(void *arg)
{
	struct other_run *other = arg;
	const struct ss_run_options o = { .ready = note_ready };
	other->status = ss_run(&other->server, 1, &o);
	return NULL;
}

START_TEST(run_is_one_at_a_time)
{
	board_new();
	pthread_t thread;
	struct ss_config config = config_for(model_named("sync"));
	struct other_run other = { .server = made(&config) };
	config = config_for(model_named("sync"));
	struct ss_server *server = made(&config);
	ck_assert_int_eq(pthread_create(&thread, NULL, run_beside, &other), 0);
	eventually(atomic_load(&board->ready) == 1);
	ck_assert_int_eq(ss_run(&other.server, 1, NULL), 1);
	said("cannot serve: Device or resource busy");
	ck_assert_int_eq(ss_run(&server, 1, NULL), 1);
	said("another ss_run: Device or resource busy");
	ss_shutdown(other.server);
	pthread_join(thread, NULL);
	ck_assert_int_eq(other.status, 0);
	/* It is the next one's. */
	ss_shutdown(server);
	ck_assert_int_eq(ss_run(&server, 1, NULL), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(ss_server_free(other.server), 0);
}
END_TEST

Suite *t_run(void)
{
	Suite *suite = suite_create("t_run");
	TCase *tcase = suite_case(suite, "stopping", NULL, NULL);
	tcase_add_loop_test(tcase, run_ends_well_by_a_signal, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, run_lets_conversations_end, 0, model_count);
	tcase_add_loop_test(tcase, run_ends_at_once_by_two_signals, 0,
			    model_count);
	tcase_add_loop_test(tcase, run_minds_one_signal_for_the_whole_group, 0,
			    model_count);
	tcase_add_loop_test(tcase, run_leaves_signals_of_children_alone, 0, 3);
	tcase = suite_case(suite, "several", NULL, NULL);
	tcase_add_loop_test(tcase, run_serves_several_servers, 0, PAIRS);
	tcase_add_loop_test(tcase, run_serves_others_while_a_handler_waits, 0,
			    BESIDE);
	tcase_add_test(tcase, run_serves_others_where_memory_is_short);
	tcase_add_loop_test(tcase, run_drains_all_servers_at_the_same_time, 0,
			    2 * PAIRS);
	tcase_add_loop_test(tcase, run_has_one_deadline_for_all, 0, PAIRS);
	tcase_add_loop_test(tcase, run_ends_several_at_once_by_two_signals, 0,
			    PAIRS);
	tcase_add_loop_test(tcase, run_has_no_threads_beside_forks, 0, 3);
	tcase = suite_case(suite, "reload", NULL, NULL);
	tcase_add_loop_test(tcase, run_reloads, 0, model_count);
	tcase_add_loop_test(tcase, run_ends_the_workers_that_are_replaced, 0,
			    4);
	tcase_add_loop_test(tcase, run_reloads_several_servers, 0, PAIRS);
	tcase_add_loop_test(tcase, run_drains_after_a_storm_of_reloads, 0,
			    model_count);
	tcase_add_loop_test(tcase, run_reloads_nothing_when_it_is_to_end, 0,
			    model_count);
	tcase_add_loop_test(tcase, run_reloads_nothing_while_it_drains, 0,
			    model_count);
	tcase_add_loop_test(tcase, run_reloads_once_more, 0, PAIRS);
	tcase_add_test(tcase, run_goes_on_after_a_reload_that_failed);
	tcase = suite_case(suite, "signals", NULL, NULL);
	tcase_add_loop_test(tcase, run_puts_all_signals_back, 0, 3);
	tcase_add_test(tcase, run_outlives_its_handlers);
	tcase_add_test(tcase, run_minds_signals_that_were_blocked);
	tcase_add_loop_test(tcase, run_once_ends_after_one_request, 0,
			    model_count);
	tcase_add_loop_test(tcase, run_once_ends_by_a_signal_too, 0,
			    model_count);
	tcase = suite_case(suite, "refusals", NULL, NULL);
	tcase_add_test(tcase, run_refuses_what_makes_no_sense);
	tcase_add_loop_test(tcase, run_refuses_to_run_in_a_handler, 0,
			    model_count);
	tcase_add_test(tcase, run_is_one_at_a_time);
	return suite;
}
