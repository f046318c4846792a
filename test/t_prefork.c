/*
 * Prefork: how many workers there are and when, how long each serves, what
 * comes of those that die, hang or cannot be forked.  What it has in common
 * with all models the other suites test.
 */
#include "support.h"

#include <signal.h>
#include <sys/wait.h>

static struct tape *tape; /* of the log */
static struct sys_table real;

static void keep_line(void *arg, int level, struct ss_server *server,
		      uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	if (!log_of_a_busy_machine(text))
		tape_note(tape, "%s", text);
}

static void set_up(void)
{
	real = sys_table;
	tape = tape_new();
}

static void tear_down(void)
{
	sys_table = real;
}

/* ---- a server, and who serves ---------------------------------------------*/

/* Says which process serves, and then nothing until its client goes. */
static int say_who(struct ss_request *req)
{
	char byte;
	int r = ss_printf(req, "%ld\n", (long)getpid()) < 0 ? -EPIPE : 0;
	while (r == 0 && ss_read(req, &byte, 1) > 0)
		;
	return r;
}

static const struct ss_handler telling = { .handle = say_who,
					   .speaks_first = true };

static struct ss_config prefork_of(const struct ss_prefork_options *options)
{
	return (struct ss_config){
		.addresses = { fresh_address(&transports[0]) },
		.mixins = { { &ss_prefork_mixin, options } },
		.handler = &telling,
		.log = keep_line,
		.log_level = SS_LOG_WARNING,
	};
}

/* A client who stays; who serves it. */
static int stay(const char *url, pid_t *pid)
{
	char line[20] = "";
	int fd = dial(url);
	for (size_t n = 0; n < sizeof(line) - 1 && !strchr(line, '\n'); n++)
		expect_bytes(fd, line + n, 1);
	*pid = (pid_t)atol(line);
	ck_assert_int_gt(*pid, 0);
	return fd;
}

static pid_t serves(const char *url)
{
	pid_t pid;
	close(stay(url, &pid));
	return pid;
}

static int lines_with(const char *text)
{
	int n = 0, count = atomic_load(&tape->count);
	for (int i = 0; i < count; i++)
		n += strstr(tape->line[i].text, text) != NULL;
	return n;
}

/* ---- options --------------------------------------------------------------*/

START_TEST(options_that_make_no_sense_are_refused)
{
	static const struct {
		struct ss_prefork_options options;
		const char *text;
	} bad[] = {
		{ { .workers = -1 }, "prefork: workers is -1, and not in 0.." },
		{ { .workers = 10001 },
		  "workers is 10001, and not in 0..10000" },
		{ { .max_requests = -2 }, "prefork: max_requests is -2" },
		{ { .jitter_percent = -2 }, "prefork: jitter_percent is -2" },
		{ { .jitter_percent = 101 }, "jitter_percent is 101" },
		{ { .respawn_ms = -1 }, "prefork: respawn_ms is -1" },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ss_config config = prefork_of(&bad[i].options);
		refused(&config, -EINVAL, bad[i].text);
	}
}
END_TEST

/* ---- how long a worker serves ---------------------------------------------*/

/* So many were served by the first one when another comes. */
static int first_serves(const struct ss_prefork_options *options)
{
	struct ss_config config = prefork_of(options);
	struct node node;
	node_start(&node, &config);
	pid_t first = serves(node.url);
	int n = 1;
	int64_t until = clock_ms() + WAIT_MS;
	while (serves(node.url) == first) {
		ck_assert_msg(clock_ms() < until, "%d, and the same one", n);
		if (++n >= options->max_requests)
			pause_ms(2);
	}
	eventually(kill(first, 0) == -1);
	ck_assert_int_eq(node_stop(&node), 0);
	/* That is no death to be told. */
	ck_assert_int_eq(atomic_load(&tape->count), 0);
	return n;
}

START_TEST(who_has_served_enough_is_replaced)
{
	static const struct ss_prefork_options twenty = {
		.workers = 1, .max_requests = 20, .jitter_percent = SS_NONE
	};
	ck_assert_int_ge(first_serves(&twenty), 20);
}
END_TEST

/* Each limit is drawn by the worker's number: this one's is a small one. */
START_TEST(some_are_replaced_earlier)
{
	static const struct ss_prefork_options spread = {
		.workers = 1, .max_requests = 1001, .jitter_percent = 100
	};
	struct ss_config config = prefork_of(&spread);
	struct node node;
	node_start(&node, &config);
	pid_t first = serves(node.url);
	int n = 1;
	for (; n < 1000 && serves(node.url) == first; n++)
		pause_ms(n < 20 ? 0 : 10);
	ck_assert_int_lt(n, 1000);
	ck_assert_int_eq(node_stop(&node), 0);
	/* Even of one request all may go. */
	static const struct ss_prefork_options one = { .workers = 1,
						       .max_requests = 1,
						       .jitter_percent = 100 };
	ck_assert_int_ge(first_serves(&one), 1);
}
END_TEST

START_TEST(none_is_replaced_unasked)
{
	static const struct ss_prefork_options never[] = {
		{ .workers = 1 },
		{ .workers = 1, .max_requests = SS_NONE, .jitter_percent = 50 },
	};
	struct ss_config config = prefork_of(&never[_i]);
	struct node node;
	node_start(&node, &config);
	pid_t first = serves(node.url);
	for (int i = 0; i < 50; i++)
		ck_assert_int_eq(serves(node.url), first);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* Those that have served enough stay with their last clients, and each has
 * another one in its place: but no more than eight for each that is to be. */
START_TEST(places_are_as_many_as_may_be)
{
	static const struct ss_prefork_options each_one = {
		.workers = 1, .max_requests = 1, .jitter_percent = SS_NONE
	};
	enum { PLACES = 8 };
	struct ss_config config = prefork_of(&each_one);
	config.poll_interval_ms = 5; /* it looks again and again */
	struct node node;
	int fd[PLACES];
	pid_t pid[PLACES], next;
	node_start(&node, &config);
	for (int i = 0; i < PLACES; i++) {
		fd[i] = stay(node.url, &pid[i]);
		for (int k = 0; k < i; k++)
			ck_assert_int_ne(pid[i], pid[k]);
	}
	eventually(lines_with("8 workers still serve their last clients"));
	/* Its place is the next one's, and so again. */
	for (int i = 0; i < 2; i++) {
		close(fd[i]);
		fd[i] = stay(node.url, &next);
		for (int k = 0; k < PLACES; k++)
			ck_assert_int_ne(next, pid[k]);
		pid[i] = next;
		eventually(lines_with("8 workers still") == i + 2);
	}
	ck_assert_int_eq(lines_with("8 workers still"), 3);
	for (int i = 0; i < PLACES; i++)
		close(fd[i]);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- those that die, or hang ----------------------------------------------*/

static atomic_int *lives; /* workers that are still to die, shared */

static int die_in_a_worker(struct ss_server *server);

static const struct ss_layer mortal = {
	.name = "mortal",
	.ops = { .server_activate = die_in_a_worker },
};

static int die_in_a_worker(struct ss_server *server)
{
	if (atomic_fetch_sub(lives, 1) > 0)
		return -EUCLEAN;
	return ss_super(server, &mortal)->server_activate(server);
}

/* It goes on until one lives, and says so once; the first death is none of
 * many. */
START_TEST(who_dies_young_is_replaced_more_slowly)
{
	static const struct ss_prefork_options one = { .workers = 1,
						       .respawn_ms = 20 };
	int deaths = _i, said = deaths > 1;
	struct ss_config config = prefork_of(&one);
	struct node node;
	lives = ss_shared_alloc(sizeof(*lives));
	atomic_store(lives, deaths);
	use_last(&config, &mortal, NULL);
	node_start(&node, &config);
	pid_t pid = serves(node.url);
	ck_assert_int_eq(lines_with("a worker cannot serve: "), deaths);
	ck_assert_int_eq(lines_with("exited with status 1, unasked"), deaths);
	eventually(!said || lines_with("workers live again"));
	ck_assert_int_eq(serves(node.url), pid);
	ck_assert_int_eq(lines_with("workers die young, or cannot be forked"),
			 said);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(lines_with("workers live again"), said);
}
END_TEST

static int serve_without_children(struct ss_server *server)
{
	signal(SIGCHLD, SIG_IGN);
	return ss_serve_forever(server);
}

/* The program may have told the kernel to do that. */
START_TEST(who_was_reaped_elsewhere_is_replaced)
{
	static const struct ss_prefork_options one = { .workers = 1,
						       .respawn_ms = 1 };
	struct ss_config config = prefork_of(&one);
	struct node node;
	node_run(&node, &config, serve_without_children);
	pid_t first = serves(node.url);
	kill(first, SIGKILL);
	eventually(lines_with("was reaped by somebody"));
	ck_assert_int_ne(serves(node.url), first);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(lines_with("was reaped by somebody"), 1);
}
END_TEST

static int no_pidfd(pid_t pid)
{
	(void)pid;
	errno = ENOSYS;
	return -1;
}

static int no_fork_for_now;

static pid_t fork_sometimes(void)
{
	if (no_fork_for_now-- <= 0)
		return real.fork();
	errno = EAGAIN;
	return -1;
}

START_TEST(who_cannot_be_forked_is_so_later)
{
	static const struct ss_prefork_options two = { .workers = 2,
						       .respawn_ms = 20 };
	struct ss_config config = prefork_of(&two);
	struct node node;
	if (_i)
		sys_table.pidfd_open = no_pidfd;
	sys_table.fork = fork_sometimes;
	no_fork_for_now = 4;
	node_start(&node, &config);
	serves(node.url);
	ck_assert_int_eq(lines_with("fork: Resource temporarily"), 4);
	ck_assert_int_eq(lines_with("workers die young, or cannot be forked"),
			 1);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* Says which process it is, and does not come back. */
static int hang(struct ss_request *req)
{
	ss_printf(req, "%ld\n", (long)getpid());
	while (pause() == -1)
		;
	return 0;
}

static const struct ss_handler hanging = { .handle = hang,
					   .speaks_first = true };

static int kill_nobody(pid_t pid, int signal)
{
	return pid > 0 && signal == SIGKILL ? 0 : real.kill(pid, signal);
}

static int may_not_kill(pid_t pid, int signal)
{
	(void)pid, (void)signal;
	errno = EPERM;
	return -1;
}

/* Who bears even SIGKILL, as in a wait for a disk, or has become another user,
 * is left behind. */
START_TEST(who_cannot_be_killed_is_abandoned)
{
	static const struct ss_prefork_options one = { .workers = 1 };
	struct ss_config config = prefork_of(&one);
	struct served served;
	pid_t pid;
	config.handler = &hanging;
	config.drain_ms = 1;
	sys_table.kill = _i ? may_not_kill : kill_nobody;
	served_start(&served, &config);
	int fd = stay(served.url, &pid);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(ss_server_close(served.server), 1);
	ck_assert_int_eq(kill(pid, 0), 0);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	close(fd);
	ck_assert_int_eq(ss_server_free(served.server), 0);
}
END_TEST

Suite *t_prefork(void)
{
	Suite *suite = suite_create("t_prefork");
	TCase *tcase = suite_case(suite, "life", set_up, tear_down);
	tcase_add_test(tcase, options_that_make_no_sense_are_refused);
	tcase_add_test(tcase, who_has_served_enough_is_replaced);
	tcase_add_test(tcase, some_are_replaced_earlier);
	tcase_add_loop_test(tcase, none_is_replaced_unasked, 0, 2);
	tcase_add_test(tcase, places_are_as_many_as_may_be);
	TCase *death = suite_case(suite, "death", set_up, tear_down);
	tcase_add_loop_test(death, who_dies_young_is_replaced_more_slowly, 1,
			    6);
	tcase_add_test(death, who_was_reaped_elsewhere_is_replaced);
	tcase_add_loop_test(death, who_cannot_be_forked_is_so_later, 0, 2);
	tcase_add_loop_test(death, who_cannot_be_killed_is_abandoned, 0, 2);
	return suite;
}
