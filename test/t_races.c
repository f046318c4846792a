/*
 * Races, looped: each round makes a server, lets two things happen at once, and
 * takes it down.  Every system call of the library yields at random before and
 * after; SS_SEED repeats a run's choices.
 */
#include "support.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

/* A sync server has one thread less to race with, a forking one is dear. */
enum { ROUNDS = 200, SYNC_ROUNDS = 50, FORKING_ROUNDS = 8, CLIENTS = 3 };
enum { BRIEF_MS = 1 };
enum { SYNC, THREADING, FORKING, POOL, FIBER, FIBER1 = 9 };

/* Those that serve in this process. */
static const int raced[] = { SYNC, THREADING, POOL, FIBER, FIBER1 };
enum { RACED = sizeof(raced) / sizeof(*raced) };

/* ---- chance ---------------------------------------------------------------*/

static uint64_t seed;
static atomic_ullong drawn;

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t chance(void)
{
	uint64_t z =
		seed + 0x9e3779b97f4a7c15u * (atomic_fetch_add(&drawn, 1) + 1);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void yield(void)
{
	uint64_t r = chance();
	int times = (int)(r >> 8 & 1);
	if ((r & 63) == 0)
		usleep((useconds_t)(r >> 16) % 50);
	for (int i = 0; i < times; i++)
		sched_yield();
}

static void long_yield(void)
{
	int times = (int)(chance() % 16);
	for (int i = 0; i < times; i++)
		yield();
}

/* ---- calls that yield -----------------------------------------------------*/

static int y_accept(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	yield();
	int r = sys_do_accept(fd, sa, len, flags);
	yield();
	return r;
}

static ssize_t y_recv(int fd, void *buf, size_t n, int flags)
{
	yield();
	ssize_t r = recv(fd, buf, n, flags);
	int error = errno;
	yield();
	errno = error;
	return r;
}

static ssize_t y_recvmsg(int fd, struct msghdr *msg, int flags)
{
	yield();
	ssize_t r = recvmsg(fd, msg, flags);
	int error = errno;
	yield();
	errno = error;
	return r;
}

static ssize_t y_write(int fd, const void *buf, size_t n)
{
	yield();
	return write(fd, buf, n);
}

static ssize_t y_read(int fd, void *buf, size_t n)
{
	yield();
	return read(fd, buf, n);
}

static int y_close(int fd)
{
	yield();
	return close(fd);
}

static int y_shutdown(int fd, int how)
{
	yield();
	return shutdown(fd, how);
}

static int y_poll(struct pollfd *fds, nfds_t n, int ms)
{
	yield();
	int r = poll(fds, n, ms);
	int error = errno;
	yield();
	errno = error;
	return r;
}

#ifdef SS_LINUX
static int y_epoll_wait(int epfd, struct epoll_event *events, int n, int ms)
{
	yield();
	int r = epoll_wait(epfd, events, n, ms);
	int error = errno;
	yield();
	errno = error;
	return r;
}
#endif

static int y_create(pthread_t *thread, const pthread_attr_t *attr,
		    void *(*run)(void *), void *arg)
{
	yield();
	int r = pthread_create(thread, attr, run, arg);
	yield();
	return r;
}

static pid_t y_waitpid(pid_t pid, int *status, int options)
{
	yield();
	pid_t r = waitpid(pid, status, options);
	int error = errno;
	yield();
	errno = error;
	return r;
}

static int y_kill(pid_t pid, int signal)
{
	yield();
	return kill(pid, signal);
}

static void yield_everywhere(void)
{
	sys_table.accept = y_accept;
	sys_table.recv = y_recv;
	sys_table.recvmsg = y_recvmsg;
	sys_table.write = y_write;
	sys_table.read = y_read;
	sys_table.close = y_close;
	sys_table.shutdown = y_shutdown;
	sys_table.poll = y_poll;
#ifdef SS_LINUX
	sys_table.epoll_wait = y_epoll_wait;
#endif
	sys_table.pthread_create = y_create;
	sys_table.waitpid = y_waitpid;
	sys_table.kill = y_kill;
}

/* ---- servers and clients --------------------------------------------------*/

/* Echoes line by line; "sleep" sleeps until it is told to end. */
static atomic_int wakes;

static int serve_line(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	while (!strcmp(line, "sleep\n")) {
		int r = ss_sleep(req, 2 * WAIT_MS);
		if (r != -EINTR)
			return r;
		atomic_fetch_add(&wakes, 1);
	}
	n = ss_write(req, line, (size_t)n);
	return n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler liner = { .name = "liner",
					 .handle = serve_line };

/* Ends with the first line, so that servers close first. */
static int serve_one_line(struct ss_request *req)
{
	int r = serve_line(req);
	return r == SS_AGAIN ? 0 : r;
}

static const struct ss_handler one_liner = { .name = "one_liner",
					     .handle = serve_one_line };

static struct ss_config config_for(int model, const struct ss_handler *handler)
{
	struct ss_config config =
		config_of(&models[model], &transports[0], handler);
	config.log_level = SS_NONE;
	return config;
}

/* drain_ms 0: far away. */
static void begin(struct served *served, int model,
		  const struct ss_handler *handler, int drain_ms)
{
	/* So few that some requests wait in it. */
	static const struct ss_pool_options few = { .threads = 2, .ahead = 1 };
	struct ss_config config = config_for(model, handler);
	use_options(&config, &ss_pool_mixin, &few);
	config.drain_ms = drain_ms;
	served_start(served, &config);
}

/* What every round ends with. */
static void end(struct served *served)
{
	pthread_join(served->thread, NULL);
	ck_assert_int_eq(served->result, 0);
	ck_assert_int_eq(ss_server_close(served->server), 0);
	ck_assert_int_eq(ss_server_free(served->server), 0);
}

static int dial_with(const char *url, const char *text)
{
	int fd = dial(url);
	send_text(fd, text);
	return fd;
}

static pthread_t start(void *(*run)(void *), void *arg)
{
	pthread_t thread;
	ck_assert_int_eq(pthread_create(&thread, NULL, run, arg), 0);
	return thread;
}

static void *shut_down(void *server)
{
	long_yield();
	ss_shutdown(server);
	return NULL;
}

/* Descriptors and threads are the same after as before. */
struct census {
	int descriptors;
	int threads;
};

static struct census census(void)
{
	return (struct census){ open_descriptors(), threads() };
}

static void expect_census(struct census before)
{
	eventually(threads() == before.threads);
	ck_assert_int_eq(open_descriptors(), before.descriptors);
}

/* ---- rounds ---------------------------------------------------------------*/

/* Whoever connected before the close is served, wherever the loop was. */
static void shutdown_against_accept(int model)
{
	struct served served;
	int fds[CLIENTS];
	begin(&served, model, &one_liner, 0);
	pthread_t other = start(shut_down, served.server);
	for (int i = 0; i < CLIENTS; i++) {
		yield();
		fds[i] = dial_with(served.url, "x\n");
	}
	pthread_join(other, NULL);
	end(&served);
	for (int i = 0; i < CLIENTS; i++) {
		expect_text(fds[i], "x\n");
		expect_end(fds[i]);
		close(fds[i]);
	}
}

/* The last byte is out, and the handler on its way. */
static void shutdown_against_handlers_end(int model)
{
	struct served served;
	begin(&served, model, &one_liner, 0);
	pthread_t other = start(shut_down, served.server);
	int fd = dial_with(served.url, "x\n");
	pthread_join(other, NULL);
	pthread_join(served.thread, NULL);
	if (model != SYNC && chance() % 2)
		shutdown(fd, SHUT_RDWR);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	close(fd);
}

static void *shut_down_twice(void *server)
{
	long_yield();
	ss_shutdown(server);
	long_yield();
	ss_shutdown(server);
	return NULL;
}

/* One idle client, one silent, and a second request somewhere in between. */
static void second_shutdown(int model)
{
	struct served served;
	begin(&served, model, &liner, BRIEF_MS);
	int idle = dial_with(served.url, "x\n");
	expect_text(idle, "x\n");
	int silent = dial(served.url);
	pthread_t other = start(shut_down_twice, served.server);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(served.result, 0);
	ck_assert_int_eq(ss_server_close(served.server), 0);
	pthread_join(other, NULL);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	expect_end(idle);
	ssize_t r = recv_within(silent, &(char){ 0 }, 1, WAIT_MS);
	ck_assert(r == 0 || r == -ECONNRESET);
	close(idle);
	close(silent);
}

static void last_words(int model)
{
	struct served served;
	begin(&served, model, &one_liner, 0);
	int fds[CLIENTS];
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial_with(served.url, "x\n");
	for (int i = 0; i < CLIENTS; i++)
		expect_text(fds[i], "x\n");
	for (int i = 0; i < CLIENTS; i++)
		expect_end(fds[i]);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
}

/* ---- reaching in while it ends --------------------------------------------*/

struct reacher {
	struct ss_server *server;
	int (*reach)(struct ss_server *server, uint64_t id);
	atomic_bool stop;
	int walks;
};

struct ids {
	int count;
	uint64_t id[64];
};

static int collect(void *arg, const struct ss_snapshot *snapshot)
{
	struct ids *ids = arg;
	if (ids->count < 64)
		ids->id[ids->count++] = snapshot->id;
	return 0;
}

static bool ascending(const struct ids *ids)
{
	for (int i = 1; i < ids->count; i++)
		if (ids->id[i] <= ids->id[i - 1])
			return false;
	return true;
}

static void *reach(void *arg)
{
	struct reacher *reacher = arg;
	do {
		struct ids ids = { 0 };
		ss_each(reacher->server, collect, &ids);
		if (!ascending(&ids))
			abort();
		for (int i = 0; reacher->reach && i < ids.count; i++) {
			yield();
			int r = reacher->reach(reacher->server, ids.id[i]);
			if (r != 0 && r != -ENOENT && r != -ENOTSUP)
				abort();
		}
		yield();
		reacher->walks++;
	} while (!atomic_load(&reacher->stop));
	return NULL;
}

/* Clients come and go, some are asleep, and then the server closes. */
static void reach_into(int model,
		       int (*how)(struct ss_server *server, uint64_t id))
{
	static const char *const lines[] = { "x\n", "sleep\n", "y\n" };
	struct served served;
	begin(&served, model, &liner, BRIEF_MS);
	struct reacher reacher = { .server = served.server, .reach = how };
	int fds[CLIENTS];
	pthread_t other = start(reach, &reacher);
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(served.url);
		send(fds[i], lines[i], strlen(lines[i]), MSG_NOSIGNAL);
	}
	long_yield();
	close(fds[0]);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(ss_server_close(served.server), 0);
	atomic_store(&reacher.stop, true);
	pthread_join(other, NULL);
	ck_assert_int_ge(reacher.walks, 1);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	close(fds[1]);
	close(fds[2]);
}

static void each_during_ends(int model)
{
	reach_into(model, NULL);
}

static void cancel_during_close(int model)
{
	reach_into(model, ss_cancel);
}

static void wake_during_close(int model)
{
	reach_into(model, ss_wake);
}

/* ---- the loop left and entered --------------------------------------------*/

static void *serve_again(void *arg)
{
	struct served *served = arg;
	served->result = ss_serve_forever(served->server);
	return NULL;
}

static void serving_again(int model)
{
	struct served served;
	begin(&served, model, &one_liner, 0);
	for (int i = 0; i < CLIENTS; i++) {
		int fd = dial_with(served.url, "x\n");
		yield();
		ck_assert_int_eq(ss_shutdown_wait(served.server, SS_NONE), 0);
		pthread_join(served.thread, NULL);
		ck_assert_int_eq(served.result, 0);
		served.thread = start(serve_again, &served);
		expect_text(fd, "x\n");
		close(fd);
	}
	ss_shutdown(served.server);
	end(&served);
}

static void *hold_and_release(void *server)
{
	for (int i = 0; i < 10; i++) {
		ss_hold(server, SS_HOLD_SUSPENDED);
		yield();
		ss_release(server, SS_HOLD_SUSPENDED);
		yield();
	}
	return NULL;
}

static void holding(int model)
{
	struct served served;
	begin(&served, model, &one_liner, 0);
	pthread_t other = start(hold_and_release, served.server);
	for (int i = 0; i < CLIENTS; i++)
		echo_once(served.url, "x\n");
	pthread_join(other, NULL);
	echo_once(served.url, "y\n");
	ss_shutdown(served.server);
	end(&served);
}

/* ---- in one server --------------------------------------------------------*/

static int first_id(struct ss_server *server, uint64_t *id)
{
	struct ids ids = { 0 };
	ss_each(server, collect, &ids);
	*id = ids.id[0];
	return ids.count;
}

/* No wake-up is lost, however it meets the sleep. */
START_TEST(every_wake_wakes)
{
	struct served served;
	uint64_t id;
	yield_everywhere();
	begin(&served, raced[_i], &liner, 0);
	int fd = dial_with(served.url, "sleep\n");
	eventually(first_id(served.server, &id) == 1);
	for (int i = 0; i < rounds(ROUNDS); i++) {
		int before = atomic_load(&wakes);
		yield();
		ck_assert_int_eq(ss_wake(served.server, id), 0);
		int64_t until = clock_ms() + SOON_MS;
		while (atomic_load(&wakes) == before && clock_ms() < until)
			sched_yield();
		ck_assert_int_gt(atomic_load(&wakes), before);
	}
	ck_assert_int_eq(ss_cancel(served.server, id), 0);
	close(fd);
	ss_shutdown(served.server);
	end(&served);
}
END_TEST

/* Threads that are about to leave are given requests. */
START_TEST(threads_come_and_go)
{
	static const struct ss_threading_options options[] = {
		{ .max_idle = 1, .idle_ms = 1 },
		{ .max_idle = SS_NONE },
		{ .max_idle = 2, .idle_ms = 1, .stack_size = 256 * 1024 },
	};
	struct census before = census();
	yield_everywhere();
	struct ss_config config = config_for(THREADING, &one_liner);
	use_options(&config, &ss_threading_mixin, &options[_i]);
	struct served served;
	served_start(&served, &config);
	for (int i = 0; i < rounds(ROUNDS); i++) {
		int fds[2] = { dial_with(served.url, "x\n"),
			       dial_with(served.url, "y\n") };
		expect_text(fds[0], "x\n");
		expect_text(fds[1], "y\n");
		close(fds[0]);
		close(fds[1]);
		/* About as long as the first of these waits. */
		usleep(900 + (useconds_t)chance() % 200);
	}
	served_stop(&served);
	expect_census(before);
}
END_TEST

/* ---- each in its loop -----------------------------------------------------*/

static void (*const races[])(int model) = {
	shutdown_against_accept,
	shutdown_against_handlers_end,
	second_shutdown,
	last_words,
	each_during_ends,
	cancel_during_close,
	wake_during_close,
	serving_again,
	holding,
};
enum { RACES = sizeof(races) / sizeof(*races) };

START_TEST(race)
{
	int model = raced[_i % RACED];
	yield_everywhere();
	/* One round first: libc and the sanitizers keep what they open. */
	races[_i / RACED](model);
	struct census before = census();
	for (int i = 0; i < rounds(model == SYNC ? SYNC_ROUNDS : ROUNDS); i++)
		races[_i / RACED](model);
	expect_census(before);
}
END_TEST

/* ---- forking --------------------------------------------------------------*/

/* Who connected before the signal is served, and the node leaks nothing. */
START_TEST(forking_stops_at_any_moment)
{
	yield_everywhere();
	for (int i = 0; i < rounds(FORKING_ROUNDS); i++) {
		int fds[CLIENTS];
		struct ss_config config = config_for(FORKING, &liner);
		struct node node;
		node_start(&node, &config);
		for (int j = 0; j < CLIENTS; j++) {
			yield();
			fds[j] = dial_with(node.url, "x\n");
		}
		long_yield();
		kill(node.pid, SIGTERM);
		for (int j = 0; j < CLIENTS; j++) {
			expect_text(fds[j], "x\n");
			expect_end(fds[j]);
		}
		ck_assert_int_eq(node_wait(&node), 0);
		for (int j = 0; j < CLIENTS; j++)
			close(fds[j]);
	}
}
END_TEST

/* One silent client, and a second signal at any moment. */
START_TEST(forking_second_signal)
{
	yield_everywhere();
	for (int i = 0; i < rounds(FORKING_ROUNDS); i++) {
		struct ss_config config = config_for(FORKING, &liner);
		struct node node;
		config.drain_ms = 100;
		node_start(&node, &config);
		int idle = dial_with(node.url, "x\n");
		expect_text(idle, "x\n");
		int silent = dial(node.url);
		int64_t before = clock_ms();
		kill(node.pid, SIGTERM);
		long_yield();
		kill(node.pid, SIGTERM);
		ck_assert_int_eq(node_wait(&node), 0);
		ck_assert_int_lt(clock_ms() - before, SOON_MS);
		close(idle);
		close(silent);
	}
}
END_TEST

/* A thread of the program's own, beside the one that forks. */
static int serve_and_be_reached(struct ss_server *server)
{
	struct reacher reacher = { .server = server, .reach = ss_cancel };
	pthread_t other = start(reach, &reacher);
	int r = ss_serve_forever(server);
	if (r == 0)
		r = ss_server_close(server);
	atomic_store(&reacher.stop, true);
	pthread_join(other, NULL);
	return r;
}

/* Children are killed by one thread and reaped by another. */
START_TEST(forking_cancel_against_reaping)
{
	yield_everywhere();
	struct ss_config config = config_for(FORKING, &liner);
	struct node node;
	node_run(&node, &config, serve_and_be_reached);
	for (int i = 0; i < rounds(10 * FORKING_ROUNDS); i++) {
		int fds[CLIENTS];
		for (int j = 0; j < CLIENTS; j++) {
			fds[j] = dial(node.url);
			if (j == 0)
				send(fds[j], "x\n", 2, MSG_NOSIGNAL);
		}
		for (int j = 0; j < CLIENTS; j++) {
			char buf[4];
			while (recv(fds[j], buf, sizeof(buf), 0) > 0)
				;
			close(fds[j]);
		}
	}
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- suite ----------------------------------------------------------------*/

static void choose_seed(void)
{
	const char *given = getenv("SS_SEED");
	seed = given ? strtoull(given, NULL, 10)
		     : (uint64_t)clock_ms() * 1000003u ^ (uint64_t)getpid();
	printf("t_races: SS_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
}

Suite *t_races(void)
{
	begin_threads();
	Suite *suite = suite_create("t_races");
	choose_seed();
	TCase *tcase = tcase_create("races");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, getenv("SS_LONG") ? 600 : 30);
	tcase_add_loop_test(tcase, race, 0, RACED * RACES);
	tcase_add_loop_test(tcase, every_wake_wakes, 0, RACED);
	tcase_add_loop_test(tcase, threads_come_and_go, 0, 3);
	tcase_add_test(tcase, forking_stops_at_any_moment);
	tcase_add_test(tcase, forking_second_signal);
	tcase_add_test(tcase, forking_cancel_against_reaping);
	return suite;
}
