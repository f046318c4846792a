/*
 * The serving loop and the ways to drive it: serve_forever, handle_request,
 * single turns in a foreign loop, several servers in one thread; and what a
 * layer may hang into it.
 */
#include "support.h"

#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

enum { SYNC, THREADING, FORKING, POOL, FIBER, FIBER1 = 9 };
enum { TCP, UDP, UNIX, UNIXGRAM };

/* What a test, its threads and its nodes share. */
struct board {
	struct tape tape;
	atomic_int served;
	atomic_int actions;
	atomic_int timeouts;
	atomic_bool go;
	atomic_int answer;
	atomic_int ready;
	struct ss_watch *other;
	char url[3][SS_ADDRESS_TEXT];
};

static struct board *board;

static void board_new(void)
{
	board = ss_shared_alloc(sizeof(*board));
	ck_assert_ptr_nonnull(board);
}

/* ---- handlers, layers -----------------------------------------------------*/

/* Echoes once; what begins with "stop" stops the server, "wait" holds. */
static int serve_once(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n <= 0)
		return (int)n;
	atomic_fetch_add(&board->served, 1);
	if (!strncmp(buf, "stop", 4))
		ss_shutdown(ss_request_server(req));
	while (!strncmp(buf, "wait", 4) && !atomic_load(&board->go))
		pause_ms(1);
	n = ss_write(req, buf, (size_t)n);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler once = { .name = "once", .handle = serve_once };

static const struct ss_layer counting;

static void count_action(struct ss_server *server)
{
	atomic_fetch_add(&board->actions, 1);
	ss_super(server, &counting)->service_actions(server);
}

static void count_timeout(struct ss_server *server)
{
	atomic_fetch_add(&board->timeouts, 1);
	ss_super(server, &counting)->handle_timeout(server);
}

static const struct ss_layer counting = {
	.name = "counting",
	.ops = { .service_actions = count_action,
		 .handle_timeout = count_timeout },
};

static int batch_init(struct ss_server *server, const void *options)
{
	ss_set_accept_batch(server, *(const int *)options);
	return 0;
}

static const struct ss_layer batching = { .name = "batching",
					  .init = batch_init };

static struct ss_config config_for(int model, int transport)
{
	struct ss_config config =
		config_of(&models[model], &transports[transport], &once);
	config.log_level = SS_LOG_ERROR;
	return config;
}

static const char *url_of(struct ss_server *server)
{
	static char url[SS_ADDRESS_TEXT];
	ck_assert_ptr_nonnull(ss_server_url(server, 0, url, sizeof(url)));
	return url;
}

/* A client that has sent this. */
static int dial_with(const char *url, const char *text)
{
	int fd = dial(url);
	send_text(fd, text);
	return fd;
}

static bool silent(int fd)
{
	char byte;
	return recv_within(fd, &byte, 1, 0) == -EAGAIN;
}

/* ---- handle_request -------------------------------------------------------*/

START_TEST(handle_request_takes_one)
{
	board_new();
	struct ss_config config = config_for(SYNC, _i);
	use_first(&config, &counting, NULL);
	struct ss_server *server = made(&config);
	int first = dial_with(url_of(server), "first");
	int second = dial_with(url_of(server), "second");
	ck_assert_int_eq(ss_handle_request(server), 1);
	expect_text(first, "first");
	ck_assert(silent(second));
	ck_assert_int_eq(ss_handle_request(server), 1);
	expect_text(second, "second");
	ck_assert_int_eq(atomic_load(&board->served), 2);
	ck_assert_int_eq(atomic_load(&board->actions), 0);
	ck_assert_int_eq(atomic_load(&board->timeouts), 0);
	close(first);
	close(second);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static void on_alarm(int signal)
{
	(void)signal;
}

/* One that interrupts whatever waits, for as long as told. */
static void alarms(int every_ms)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval timer = { .it_interval.tv_usec = every_ms * 1000,
				   .it_value.tv_usec = every_ms * 1000 };
	sigaction(SIGALRM, &action, NULL);
	ck_assert_int_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

START_TEST(handle_request_keeps_its_timeout)
{
	enum { TIMEOUT_MS = 120 };
	board_new();
	struct ss_config config = config_for(_i / 2, TCP);
	config.timeout_ms = TIMEOUT_MS;
	use_first(&config, &counting, NULL);
	struct ss_server *server = made(&config);
	if (_i % 2)
		alarms(7);
	int64_t before = clock_ms();
	ck_assert_int_eq(ss_handle_request(server), 0);
	int64_t took = clock_ms() - before;
	alarms(0);
	ck_assert_int_ge(took, TIMEOUT_MS);
	ck_assert_int_lt(took, TIMEOUT_MS + SOON_MS);
	ck_assert_int_eq(atomic_load(&board->timeouts), 1);
	ck_assert_int_eq(atomic_load(&board->actions), 0);
	/* The next one begins anew, and need not wait. */
	int fd = dial_with(url_of(server), "next");
	ck_assert_int_eq(ss_handle_request(server), 1);
	ck_assert_int_eq(atomic_load(&board->timeouts), 1);
	expect_text(fd, "next");
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(handle_request_ends_by_shutdown)
{
	board_new();
	struct ss_config config = config_for(SYNC, TCP);
	struct served served = { .server = made(&config) };
	pthread_create(&served.thread, NULL, serve_one_request, &served);
	eventually(ss_server_turn(served.server, 0) == -EBUSY);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(served.result, -ECANCELED);
	/* Taken off: the next one works. */
	int fd = dial_with(url_of(served.server), "next");
	ck_assert_int_eq(ss_handle_request(served.server), 1);
	close(fd);
	ck_assert_int_eq(ss_server_free(served.server), 0);
}
END_TEST

/* Dead for certain, and not reaped yet. */
static void await_dead_child(void)
{
	siginfo_t info;
	while (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == -1 &&
	       errno == EINTR)
		;
}

static int handle_and_reap(struct ss_server *server)
{
	for (int i = 0; i < 2; i++) {
		await_client(server);
		int r = ss_handle_request(server);
		if (r != 1)
			return -EPROTO;
		await_dead_child();
		tape_note(&board->tape, "children %d", children());
		r = ss_handle_request(server);
		tape_note(&board->tape, "then %d, %d", r, children());
	}
	return ss_serve_forever(server);
}

START_TEST(handle_request_reaps_children)
{
	board_new();
	struct ss_config config = config_for(FORKING, TCP);
	config.timeout_ms = 30;
	struct ss_trace_options options = { .tell = tape_tell,
					    .arg = &board->tape };
	use_first(&config, &ss_trace_mixin, &options);
	struct node node;
	node_run(&node, &config, handle_and_reap);
	int first = dial_with(node.url, "first");
	expect_text(first, "first");
	eventually(tape_find(&board->tape, "then 0, 0") >= 0);
	int second = dial_with(node.url, "second");
	expect_text(second, "second");
	close(first);
	close(second);
	eventually(tape_find(&board->tape, "serve_forever") >= 0);
	static const char once_more[] =
		"get_request verify_request process_request close_request "
		"children 1 end_request handle_timeout then 0, 0";
	char all[512];
	snprintf(all, sizeof(all),
		 "server_bind server_activate %s %s serve_forever", once_more,
		 once_more);
	ck_assert_str_eq(tape_text_of(&board->tape, node.pid), all);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- turns ----------------------------------------------------------------*/

START_TEST(turn_waits_until_its_deadline)
{
	board_new();
	struct ss_config config = config_for(_i, TCP);
	struct ss_server *server = made(&config);
	int64_t before = ss_now(server);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_int_eq(ss_server_turn(server, before), 0);
	before = ss_now(server);
	ck_assert_int_eq(ss_server_turn(server, before + 60), 0);
	ck_assert_int_ge(ss_now(server), before + 60);
	ck_assert_int_lt(ss_now(server), before + 60 + SOON_MS);
	int fd = dial_with(url_of(server), "x");
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	expect_text(fd, "x");
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(turn_takes_a_batch)
{
	static const int batch = 3;
	int fds[5];
	board_new();
	struct ss_config config = config_for(SYNC, _i / 2);
	if (_i % 2)
		use_first(&config, &batching, &batch);
	use_first(&config, &counting, NULL);
	struct ss_server *server = made(&config);
	for (int i = 0; i < 5; i++)
		fds[i] = dial_with(url_of(server), "x");
	if (_i % 2) {
		ck_assert_int_eq(ss_server_turn(server, SS_NONE), 3);
		ck_assert_int_eq(ss_server_turn(server, SS_NONE), 2);
		ck_assert_int_eq(atomic_load(&board->actions), 2);
	} else {
		for (int i = 0; i < 5; i++)
			ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
		ck_assert_int_eq(atomic_load(&board->actions), 5);
	}
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	for (int i = 0; i < 5; i++) {
		expect_text(fds[i], "x");
		close(fds[i]);
	}
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Before each request of a batch, too. */
START_TEST(shutdown_is_tested_before_each_request)
{
	static const int batch = 8;
	board_new();
	struct ss_config config = config_for(SYNC, _i);
	use_first(&config, &batching, &batch);
	struct ss_server *server = made(&config);
	int first = dial_with(url_of(server), "first");
	int stop = dial_with(url_of(server), "stop");
	int later = dial_with(url_of(server), "later");
	ck_assert_int_eq(ss_serve_forever(server), 0);
	ck_assert_int_eq(atomic_load(&board->served), 2);
	expect_text(first, "first");
	expect_text(stop, "stop");
	ck_assert(silent(later));
	ss_shutdown(server);
	ck_assert_int_eq(ss_serve_forever(server), 0);
	ck_assert(silent(later));
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	expect_text(later, "later");
	close(first);
	close(stop);
	close(later);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static struct ss_server *to_stop;

/* The request and the shutdown come out of the same wait. */
#ifdef SS_LINUX
static int stopping_wait(int epfd, struct epoll_event *events, int n, int ms)
{
	int r = epoll_wait(epfd, events, n, ms);
	ss_shutdown(to_stop);
	return r;
}
#else
static int stopping_wait(struct pollfd *fds, nfds_t n, int ms)
{
	int r = poll(fds, n, ms);
	ss_shutdown(to_stop);
	return r;
}
#endif

static void stop_in_waits(struct ss_server *server)
{
	to_stop = server;
#ifdef SS_LINUX
	sys_table.epoll_wait = server ? stopping_wait : epoll_wait;
#else
	sys_table.poll = server ? stopping_wait : poll;
#endif
}

START_TEST(shutdown_is_tested_after_the_wait)
{
	board_new();
	struct ss_config config = config_for(_i, TCP);
	struct ss_server *server = made(&config);
	int fd = dial_with(url_of(server), "x");
	stop_in_waits(server);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), -ECANCELED);
	stop_in_waits(NULL);
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.accepted, 0);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	expect_text(fd, "x");
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- foreign loops --------------------------------------------------------*/

#ifdef SS_LINUX

static int timeout_until(struct ss_server *server, int64_t deadline)
{
	if (deadline == SS_NONE)
		return WAIT_MS;
	int64_t left = deadline - ss_now(server);
	return left < 0 ? 0 : left > WAIT_MS ? WAIT_MS : (int)left;
}

/* One round of a poll(2) loop, by the letter of server.h.  False: one of the
 * servers has ended. */
static bool foreign_round(struct ss_server **servers, int count,
			  const int *pollfds)
{
	struct pollfd fds[4];
	int ms = WAIT_MS;
	for (int i = 0; i < count; i++) {
		fds[i] = (struct pollfd){ .fd = pollfds[i], .events = POLLIN };
		int own = timeout_until(servers[i],
					ss_server_deadline(servers[i]));
		ms = own < ms ? own : ms;
	}
	poll(fds, (nfds_t)count, ms);
	for (int i = 0; i < count; i++) {
		int64_t due = ss_server_deadline(servers[i]);
		if (!fds[i].revents &&
		    (due == SS_NONE || due > ss_now(servers[i])))
			continue;
		int r = ss_server_turn(servers[i], 0);
		if (r < 0)
			return false;
	}
	return true;
}

static void foreign_loop(struct ss_server **servers, int count)
{
	int pollfds[4];
	for (int i = 0; i < count; i++)
		pollfds[i] = ss_server_pollfd(servers[i]);
	while (foreign_round(servers, count, pollfds))
		;
}

struct pair {
	struct ss_server *servers[2];
	pthread_t thread;
};

static void *run_pair(void *arg)
{
	struct pair *pair = arg;
	foreign_loop(pair->servers, 2);
	return NULL;
}

START_TEST(foreign_loop_turns_two_servers)
{
	board_new();
	struct pair pair;
	struct ss_config config = config_for(_i % 2, _i / 2 ? UDP : TCP);
	pair.servers[0] = made(&config);
	config = config_for(SYNC, UNIX);
	pair.servers[1] = made(&config);
	char urls[2][SS_ADDRESS_TEXT];
	for (int i = 0; i < 2; i++)
		ss_server_url(pair.servers[i], 0, urls[i], sizeof(urls[i]));
	pthread_create(&pair.thread, NULL, run_pair, &pair);
	for (int i = 0; i < 10; i++) {
		echo_once(urls[1], "second");
		echo_once(urls[0], "first");
		echo_once(urls[0], "again");
	}
	ss_shutdown(pair.servers[1]);
	pthread_join(pair.thread, NULL);
	ck_assert_int_eq(ss_server_free(pair.servers[0]), 0);
	ck_assert_int_eq(ss_server_free(pair.servers[1]), 0);
}
END_TEST

static int serve_by_foreign_loop(struct ss_server *server)
{
	foreign_loop(&server, 1);
	return 0;
}

static int serve_by_ss_serve(struct ss_server *server)
{
	struct ss_config config = config_for(SYNC, TCP);
	struct ss_server *second = made(&config);
	struct ss_server *both[] = { server, second };
	ss_shutdown(second);
	int r = ss_serve(both, 2);
	ck_assert_int_eq(ss_server_free(second), 0);
	return r;
}

static int (*const bodies[])(struct ss_server *) = {
	serve_by_foreign_loop,
	serve_by_ss_serve,
	ss_serve_forever,
};

enum { CAPPED = 5 };

/* Who waits outside of the library sees the gate open again. */
START_TEST(the_cap_opens_under_every_loop)
{
	static const enum ss_full fulls[] = { SS_FULL_WAIT, SS_FULL_QUEUE };
	static const int capped[CAPPED] = { THREADING, FORKING, POOL, FIBER,
					    FIBER1 };
	int fds[4];
	board_new();
	struct ss_config config = config_for(capped[_i % CAPPED], TCP);
	config.max_active = 1;
	config.full = fulls[_i / CAPPED % 2];
	struct node node;
	node_run(&node, &config, bodies[_i / CAPPED / 2]);
	for (int i = 0; i < 4; i++)
		fds[i] = dial_with(node.url, i ? "x" : "wait");
	eventually(atomic_load(&board->served) == 1);
	ck_assert(silent(fds[1]));
	atomic_store(&board->go, true);
	expect_text(fds[0], "wait");
	for (int i = 1; i < 4; i++)
		expect_text(fds[i], "x");
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

#else

START_TEST(pollfd_is_not_supported)
{
	board_new();
	struct ss_config config = config_for(SYNC, TCP);
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_pollfd(server), -ENOTSUP);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

#endif

/* Memory has no descriptor that could tell of those that are left. */
START_TEST(deadline_is_now_while_memory_has_clients)
{
	static const char *const texts[] = { "one", "two" };
	struct ss_memory_client *clients[2];
	char buf[8];
	board_new();
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &once };
	struct ss_server *server = made(&config);
	while (ss_server_turn(server, 0) > 0)
		;
	ck_assert_int_eq(ss_server_deadline(server), SS_NONE);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(ss_memory_connect(server, &clients[i]), 0);
		ck_assert_int_eq(ss_memory_send(clients[i], texts[i], 3), 3);
	}
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(ss_server_deadline(server), 0);
		ck_assert_int_eq(ss_server_turn(server, 0), 1);
	}
	ss_server_turn(server, 0);
	ck_assert_int_eq(ss_server_deadline(server), SS_NONE);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(ss_memory_recv(clients[i], buf, 8), 3);
		ck_assert_mem_eq(buf, texts[i], 3);
		ss_memory_close(clients[i]);
	}
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- the deadline ---------------------------------------------------------*/

START_TEST(deadline_of_an_idle_server_is_none)
{
	board_new();
	struct ss_config config = config_for(_i, TCP);
	struct ss_server *server = made(&config);
	ss_server_turn(server, 0);
	ck_assert_int_eq(ss_server_deadline(server), SS_NONE);
	int64_t at = ss_now(server);
	ss_turn_at(server, at + 9 * WAIT_MS);
	ss_turn_at(server, at + 40);
	ss_turn_at(server, at + WAIT_MS);
	ck_assert_int_eq(ss_server_deadline(server), at + 40);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
	ck_assert_int_ge(ss_now(server), at + 40);
	ck_assert_int_lt(ss_now(server), at + WAIT_MS);
	/* Forgotten, all three. */
	ck_assert_int_eq(ss_server_deadline(server), SS_NONE);
	ss_turn_now(server);
	ck_assert_int_eq(ss_server_deadline(server), 0);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_int_eq(ss_server_deadline(server), SS_NONE);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* A foreign loop asks often; the interval runs from the last turn. */
START_TEST(deadline_of_an_interval_stands_still)
{
	enum { INTERVAL_MS = 60 };
	board_new();
	struct ss_config config = config_for(SYNC, TCP);
	config.poll_interval_ms = INTERVAL_MS;
	struct ss_server *server = made(&config);
	int64_t before = ss_now(server);
	ss_server_turn(server, 0);
	int64_t at = ss_server_deadline(server);
	ck_assert_int_ge(at, before + INTERVAL_MS);
	ck_assert_int_le(at, ss_now(server) + INTERVAL_MS);
	eventually(ss_now(server) > before + INTERVAL_MS / 2);
	ck_assert_int_eq(ss_server_deadline(server), at);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
	ck_assert_int_ge(ss_now(server), at);
	ck_assert_int_gt(ss_server_deadline(server), at);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int no_accept(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	if (atomic_load(&board->go))
		return sys_do_accept(fd, sa, len, flags);
	errno = ENOBUFS;
	return -1;
}

START_TEST(deadline_of_a_failing_accept_is_soon)
{
	board_new();
	sys_table.accept = no_accept;
	struct ss_config config = config_for(_i, TCP);
	config.log_level = SS_NONE;
	struct ss_server *server = made(&config);
	int fd = dial_with(url_of(server), "x");
	int64_t before = ss_now(server);
	for (int i = 0; i < 3; i++) {
		while (!ss_holding(server, SS_HOLD_ERRORS))
			ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
		int64_t at = ss_server_deadline(server);
		ck_assert_int_ge(at, before + (10 << i));
		ck_assert_int_le(at, ss_now(server) + (10 << i));
		ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
		ck_assert_int_ge(ss_now(server), at);
		before = at; /* that turn may have tried again, or not */
	}
	atomic_store(&board->go, true);
	before = clock_ms();
	while (ss_server_turn(server, SS_NONE) == 0)
		;
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	expect_text(fd, "x");
	ck_assert_int_eq(ss_server_deadline(server), SS_NONE);
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* A clock that the test sets. */
static int64_t set_time;

static int64_t tell_set_time(struct ss_server *server)
{
	(void)server;
	return set_time;
}

static const struct ss_layer set_clock = { .name = "clock",
					   .ops = { .now = tell_set_time } };

START_TEST(deadline_of_a_failing_accept_is_a_second_at_most)
{
	static const int pauses[] = { 10,  20,	40,   80,   160,
				      320, 640, 1000, 1000, 1000 };
	board_new();
	sys_table.accept = no_accept;
	struct ss_config config = config_for(_i, TCP);
	config.log_level = SS_NONE;
	use_first(&config, &set_clock, NULL);
	set_time = 1000;
	struct ss_server *server = made(&config);
	int fd = dial_with(url_of(server), "x");
	for (size_t i = 0; i < sizeof(pauses) / sizeof(*pauses); i++) {
		do
			ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
		while (!ss_holding(server, SS_HOLD_ERRORS));
		ck_assert_int_eq(ss_server_deadline(server),
				 set_time + pauses[i]);
		set_time += pauses[i];
	}
	atomic_store(&board->go, true);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	expect_text(fd, "x");
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- service_actions ------------------------------------------------------*/

START_TEST(service_actions_run_once_a_turn)
{
	board_new();
	struct ss_config config = config_for(_i, TCP);
	use_first(&config, &counting, NULL);
	struct ss_server *server = made(&config);
	for (int i = 1; i <= 3; i++) {
		ck_assert_int_eq(ss_server_turn(server, 0), 0);
		ck_assert_int_eq(atomic_load(&board->actions), i);
	}
	int fd = dial_with(url_of(server), "x");
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	ck_assert_int_eq(atomic_load(&board->actions), 4);
	expect_text(fd, "x");
	close(fd);
	/* Not where it was shut down. */
	ss_shutdown(server);
	ck_assert_int_eq(ss_server_turn(server, 0), -ECANCELED);
	ck_assert_int_eq(atomic_load(&board->actions), 4);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(an_interval_makes_turns)
{
	enum { INTERVAL_MS = 10, WINDOW_MS = 150 };
	board_new();
	struct ss_config config = config_for(_i, TCP);
	config.poll_interval_ms = INTERVAL_MS;
	use_first(&config, &counting, NULL);
	struct served served;
	served_start(&served, &config);
	eventually(atomic_load(&board->actions) >= 1);
	int64_t began = clock_ms();
	int before = atomic_load(&board->actions);
	pause_ms(WINDOW_MS);
	eventually(atomic_load(&board->actions) >= before + 3);
	int turns = atomic_load(&board->actions) - before;
	int64_t window = clock_ms() - began;
	/* Some may come late, and then close to the next. */
	ck_assert_int_le(turns, 2 * window / INTERVAL_MS);
	served_stop(&served);
}
END_TEST

/* ---- several listeners ----------------------------------------------------*/

static int note_listener(struct ss_request *req)
{
	char buf[8];
	struct ss_address own, address;
	struct ss_server *server = ss_request_server(req);
	ss_request_local(req, &own);
	for (int i = 0; i < ss_server_listeners(server); i++)
		if (ss_server_address(server, i, &address) == 0 &&
		    ss_address_equal(&own, &address))
			tape_note(&board->tape, "%d", i);
	return (int)ss_read(req, buf, sizeof(buf)) < 0 ? -EIO : 0;
}

static const struct ss_handler noting = { .name = "noting",
					  .handle = note_listener };

/* Turn about, whoever has more clients. */
START_TEST(listeners_take_turns)
{
	static const int clients[] = { 6, 2, 3 };
	int fds[11], n = 0;
	board_new();
	struct ss_config config = config_for(SYNC, TCP);
	config.addresses[1] = "127.0.0.1:0";
	config.addresses[2] = "127.0.0.1:0";
	config.handler = &noting;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_listeners(server), 3);
	for (int i = 0; i < 3; i++) {
		char url[SS_ADDRESS_TEXT];
		ss_server_url(server, i, url, sizeof(url));
		for (int j = 0; j < clients[i]; j++)
			fds[n++] = dial_with(url, "x");
	}
	for (int i = 0; i < n; i++)
		ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	ck_assert_str_eq(tape_text(&board->tape), "0 1 2 0 1 2 0 2 0 0 0");
	for (int i = 0; i < n; i++)
		close(fds[i]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- ss_serve -------------------------------------------------------------*/

struct trio {
	struct ss_server *servers[3];
	char urls[3][SS_ADDRESS_TEXT];
	pthread_t thread;
	int result;
};

static void *serve_trio(void *arg)
{
	struct trio *trio = arg;
	trio->result = ss_serve(trio->servers, 3);
	return NULL;
}

static void trio_make(struct trio *trio)
{
	static const int kinds[] = { TCP, UDP, UNIX };
	for (int i = 0; i < 3; i++) {
		struct ss_config config =
			config_for(i == 2 ? THREADING : SYNC, kinds[i]);
		trio->servers[i] = made(&config);
		ss_server_url(trio->servers[i], 0, trio->urls[i],
			      sizeof(trio->urls[i]));
	}
}

static void trio_free(struct trio *trio)
{
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(ss_server_free(trio->servers[i]), 0);
}

START_TEST(serve_ends_with_the_last_server)
{
	struct trio trio;
	board_new();
	trio_make(&trio);
	pthread_create(&trio.thread, NULL, serve_trio, &trio);
	for (int i = 0; i < 3; i++)
		echo_once(trio.urls[i], "all");
	ck_assert_int_eq(ss_shutdown_wait(trio.servers[1], SS_NONE), 0);
	echo_once(trio.urls[0], "two");
	echo_once(trio.urls[2], "two");
	ck_assert_int_eq(ss_serve_forever(trio.servers[0]), -EBUSY);
	/* That one is free to be served elsewhere. */
	int fd = dial_with(trio.urls[1], "here");
	ck_assert_int_eq(ss_server_turn(trio.servers[1], SS_NONE), 1);
	expect_text(fd, "here");
	close(fd);
	ck_assert_int_eq(ss_shutdown_wait(trio.servers[0], SS_NONE), 0);
	echo_once(trio.urls[2], "one");
	ck_assert_int_eq(ss_shutdown_wait(trio.servers[2], SS_NONE), 0);
	pthread_join(trio.thread, NULL);
	ck_assert_int_eq(trio.result, 0);
	trio_free(&trio);
}
END_TEST

/* One that cannot be served keeps nobody. */
START_TEST(serve_refuses_all_or_none)
{
	struct trio trio;
	board_new();
	trio_make(&trio);
	ck_assert_int_eq(ss_server_close(trio.servers[2]), 0);
	ck_assert_int_eq(ss_serve(trio.servers, 3), -EBADF);
	for (int i = 0; i < 2; i++) {
		ss_shutdown(trio.servers[i]);
		ck_assert_int_eq(ss_serve_forever(trio.servers[i]), 0);
	}
	struct served served = { .server = trio.servers[1] };
	pthread_create(&served.thread, NULL, serve_one_request, &served);
	eventually(ss_server_turn(trio.servers[1], 0) == -EBUSY);
	ck_assert_int_eq(ss_serve(trio.servers, 2), -EBUSY);
	ss_shutdown(trio.servers[0]);
	ck_assert_int_eq(ss_serve_forever(trio.servers[0]), 0);
	ss_shutdown(trio.servers[1]);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(ss_serve(trio.servers, 0), 0);
	trio_free(&trio);
}
END_TEST

/* A loop that cannot wait says so; it is nobody's then. */
static int broken_poll(struct pollfd *fds, nfds_t n, int ms)
{
	(void)fds, (void)n, (void)ms;
	errno = EBADF;
	return -1;
}

#ifdef SS_LINUX
static int broken_wait(int epfd, struct epoll_event *events, int n, int ms)
{
	(void)epfd, (void)events, (void)n, (void)ms;
	errno = EBADF;
	return -1;
}
#endif

START_TEST(serve_ends_where_waiting_fails)
{
	const struct sys_table real = sys_table;
	struct trio trio;
	board_new();
	trio_make(&trio);
	sys_table.poll = broken_poll;
#ifdef SS_LINUX
	sys_table.epoll_wait = broken_wait;
#endif
	ck_assert_int_eq(ss_serve(trio.servers, 3), -EBADF);
	ck_assert_int_eq(ss_serve_forever(trio.servers[0]), -EBADF);
	ck_assert_int_eq(ss_server_turn(trio.servers[1], 0), -EBADF);
	sys_table = real;
	int fd = dial_with(trio.urls[0], "x");
	ck_assert_int_eq(ss_server_turn(trio.servers[0], SS_NONE), 1);
	expect_text(fd, "x");
	close(fd);
	trio_free(&trio);
}
END_TEST

/* All deadlines count, of whichever server. */
START_TEST(serve_honours_intervals)
{
	board_new();
	struct trio trio;
	for (int i = 0; i < 3; i++) {
		struct ss_config config = config_for(SYNC, UNIX);
		config.poll_interval_ms = i == 1 ? 5 : 0;
		if (i == 1)
			use_first(&config, &counting, NULL);
		trio.servers[i] = made(&config);
	}
	pthread_create(&trio.thread, NULL, serve_trio, &trio);
	eventually(atomic_load(&board->actions) >= 5);
	for (int i = 0; i < 3; i++)
		ss_shutdown(trio.servers[i]);
	pthread_join(trio.thread, NULL);
	ck_assert_int_eq(trio.result, 0);
	trio_free(&trio);
}
END_TEST

/* ---- who serves -----------------------------------------------------------*/

START_TEST(one_thread_serves)
{
	board_new();
	struct ss_config config = config_for(_i, TCP);
	struct served served;
	served_start(&served, &config);
	echo_once(served.url, "x");
	ck_assert_int_eq(ss_serve_forever(served.server), -EBUSY);
	ck_assert_int_eq(ss_handle_request(served.server), -EBUSY);
	ck_assert_int_eq(ss_server_turn(served.server, 0), -EBUSY);
	ck_assert_int_eq(ss_serve(&served.server, 1), -EBUSY);
	echo_once(served.url, "y");
	ck_assert_int_eq(ss_shutdown_wait(served.server, SS_NONE), 0);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(ss_server_turn(served.server, 0), 0);
	ck_assert_int_eq(ss_server_free(served.server), 0);
}
END_TEST

/* ---- bind and activate by the caller --------------------------------------*/

START_TEST(caller_binds_and_activates)
{
	struct ss_diag why;
	board_new();
	struct ss_config config =
		config_for(_i / transport_count, _i % transport_count);
	config.no_bind = true;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_listeners(server), 0);
	ck_assert_int_eq(ss_server_activate(server, &why), -EBADF);
	ck_assert_int_eq(why.code, -EBADF);
	ck_assert_int_eq(ss_serve_forever(server), -EBADF);
	ck_assert_int_eq(ss_server_bind(server, &why), 0);
	ck_assert_int_eq(why.code, 0);
	ck_assert_int_eq(ss_server_listeners(server), 1);
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s", url_of(server));
	ck_assert_ptr_null(strstr(url, ":0"));
	ck_assert_int_eq(ss_server_bind(server, &why), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why.text, "bound"));
	ck_assert_int_eq(ss_server_turn(server, 0), -EBADF);
	ck_assert_int_eq(ss_handle_request(server), -EBADF);
	if (transports[_i % transport_count].stream)
		ck_assert_int_eq(try_dial(url), -ECONNREFUSED);
	ck_assert_int_eq(ss_server_activate(server, &why), 0);
	ck_assert_int_eq(ss_server_activate(server, &why), -EBADF);
	ck_assert_int_eq(ss_server_bind(server, NULL), -EINVAL);
	int fd = dial_with(url, "x");
	ck_assert_int_eq(ss_handle_request(server), 1);
	expect_text(fd, "x");
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Python closes what it had; then the caller may try again. */
START_TEST(bind_that_failed_may_be_repeated)
{
	char taken_url[SS_ADDRESS_TEXT];
	struct ss_diag why;
	board_new();
	struct ss_config config = config_for(SYNC, _i);
	struct ss_server *holder = made(&config);
	snprintf(taken_url, sizeof(taken_url), "%s", url_of(holder));
	/* Where it is free, its port may not be the one that port 0 gets. */
	config.addresses[0] = transports[_i].layer->flags & SS_LAYER_UNIX
				      ? fresh_address(&transports[_i])
				      : "127.0.0.1:0";
	config.addresses[1] = taken_url;
	config.no_bind = true;
	struct ss_server *server = made(&config);
	int descriptors = open_descriptors();
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(ss_server_bind(server, &why), -EADDRINUSE);
		ck_assert_ptr_nonnull(
			strstr(why.text, strchr(taken_url, ':') + 1));
		ck_assert_int_eq(ss_server_listeners(server), 0);
		ck_assert_int_eq(open_descriptors(), descriptors);
		ck_assert_int_eq(ss_server_activate(server, NULL), -EBADF);
	}
	ck_assert_int_eq(ss_server_free(holder), 0);
	ck_assert_int_eq(ss_server_bind(server, &why), 0);
	ck_assert_int_eq(ss_server_listeners(server), 2);
	ck_assert_int_eq(ss_server_activate(server, &why), 0);
	int fd = dial_with(taken_url, "x");
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	expect_text(fd, "x");
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- what it is -----------------------------------------------------------*/

static int no_getsockopt(int fd, int level, int name, void *value,
			 socklen_t *len)
{
	(void)fd, (void)level, (void)name, (void)value, (void)len;
	errno = ENOBUFS;
	return -1;
}

START_TEST(servers_tell_what_they_are)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_STREAM,
				     SOCK_DGRAM };
	board_new();
	struct ss_config config =
		config_for(_i / transport_count, _i % transport_count);
	const struct transport *transport = &transports[_i % transport_count];
	const struct model *model = &models[_i / transport_count];
	config.user = board;
	struct ss_server *server = made(&config);
	struct ss_address real = { .len = sizeof(real.u) }, told;
	char url[SS_ADDRESS_TEXT];
	int fd = ss_server_fileno(server, 0);
	ck_assert_int_gt(fd, 2);
	ck_assert_int_eq(getsockname(fd, &real.u.sa, &real.len), 0);
	ck_assert_int_eq(ss_server_address(server, 0, &told), 0);
	ck_assert(ss_address_equal(&real, &told));
	ck_assert_str_eq(url_of(server),
			 ss_url_format(SS_SCHEME_TCP + _i % transport_count,
				       &real, url, sizeof(url)));
	ck_assert_int_eq(ss_server_socket_type(server),
			 types[_i % transport_count]);
	ck_assert_int_eq(ss_server_listeners(server), 1);
	static const int wrong[] = { -1, 1, 99 };
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(ss_server_fileno(server, wrong[i]), -EINVAL);
		ck_assert_int_eq(ss_server_address(server, wrong[i], &told),
				 -EINVAL);
		ck_assert_ptr_null(
			ss_server_url(server, wrong[i], url, sizeof(url)));
	}
	sys_table.getsockopt = no_getsockopt;
	ck_assert_int_eq(ss_server_socket_type(server), -ENOBUFS);
	sys_table.getsockopt = getsockopt;
	ck_assert_ptr_eq(ss_server_user(server), board);
	ck_assert_ptr_eq(ss_server_handler(server), &once);
	ck_assert_str_eq(ss_server_describe(server),
			 model_described(model, transport));
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(memory_has_no_socket_to_tell_of)
{
	struct ss_address address;
	board_new();
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &once };
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_fileno(server, 0), -ENOTSUP);
	ck_assert_int_eq(ss_server_socket_type(server), -ENOTSUP);
	ck_assert_int_eq(ss_server_address(server, 0, &address), -ENOTSUP);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- what a layer hangs in ------------------------------------------------*/

struct bell {
	struct ss_watch watch;
	int fds[2];
	int rung;
	struct bell *silence; /* removed when this one rings */
};

static void ring(struct ss_server *server, struct ss_watch *watch)
{
	struct bell *bell = (struct bell *)watch;
	char byte;
	bell->rung++;
	if (watch->events & POLLIN)
		ck_assert_int_eq(read(bell->fds[0], &byte, 1), 1);
	if (bell->silence)
		ss_watch_remove(server, &bell->silence->watch);
}

static void bell_hang(struct ss_server *server, struct bell *bell, short events)
{
	*bell = (struct bell){ .watch = { .events = events, .ready = ring } };
	ck_assert_int_eq(pipe(bell->fds), 0);
	bell->watch.fd = bell->fds[events & POLLIN ? 0 : 1];
	ck_assert_int_eq(ss_watch_add(server, &bell->watch), 0);
}

static void bell_pull(struct bell *bell)
{
	ck_assert_int_eq(write(bell->fds[1], "", 1), 1);
}

static void bell_take_down(struct ss_server *server, struct bell *bell)
{
	ss_watch_remove(server, &bell->watch);
	close(bell->fds[0]);
	close(bell->fds[1]);
}

START_TEST(watches_are_told)
{
	enum { BELLS = 100 };
	struct bell bells[BELLS];
	board_new();
	struct ss_config config = config_for(_i, TCP);
	struct ss_server *server = made(&config);
	for (int i = 0; i < BELLS; i++)
		bell_hang(server, &bells[i], POLLIN);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	for (int i = 0; i < BELLS; i += 3)
		bell_pull(&bells[i]);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
	for (int i = 0; i < BELLS; i++)
		ck_assert_int_eq(bells[i].rung, i % 3 == 0);
	/* More of them than one wait tells of. */
	for (int i = 0; i < BELLS; i++)
		bell_pull(&bells[i]);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(ss_server_turn(server, 0), 0);
	for (int i = 0; i < BELLS; i++)
		ck_assert_int_eq(bells[i].rung, 1 + (i % 3 == 0));
	/* Beside clients. */
	int fd = dial_with(url_of(server), "x");
	bell_pull(&bells[1]);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	ck_assert_int_eq(bells[1].rung, 2);
	expect_text(fd, "x");
	close(fd);
	for (int i = 0; i < BELLS; i++)
		bell_take_down(server, &bells[i]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(removed_watches_are_not_told)
{
	struct bell bells[3];
	board_new();
	struct ss_config config = config_for(SYNC, TCP);
	struct ss_server *server = made(&config);
	for (int i = 0; i < 3; i++)
		bell_hang(server, &bells[i], POLLIN);
	/* Whichever of two comes first takes the other off. */
	bells[0].silence = &bells[1];
	bells[1].silence = &bells[0];
	bells[2].silence = &bells[2];
	for (int i = 0; i < 3; i++)
		bell_pull(&bells[i]);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_int_eq(bells[0].rung + bells[1].rung, 1);
	ck_assert_int_eq(bells[2].rung, 1);
	bell_pull(&bells[2]);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_int_eq(bells[2].rung, 1);
	/* Once more is nothing; hung up again it rings. */
	ss_watch_remove(server, &bells[2].watch);
	ck_assert_int_eq(ss_watch_add(server, &bells[2].watch), 0);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
	ck_assert_int_eq(bells[2].rung, 2);
	for (int i = 0; i < 3; i++)
		bell_take_down(server, &bells[i]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(watches_for_output_are_told)
{
	struct bell bell;
	board_new();
	struct ss_config config = config_for(SYNC, TCP);
	struct ss_server *server = made(&config);
	bell_hang(server, &bell, POLLOUT);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
	ck_assert_int_eq(bell.rung, 1);
	bell_take_down(server, &bell);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_int_eq(bell.rung, 1);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* From any thread, while the loop sleeps; many of them are one turn. */
START_TEST(turn_now_ends_the_wait)
{
	board_new();
	struct ss_config config = config_for(_i, TCP);
	use_first(&config, &counting, NULL);
	struct served served;
	served_start(&served, &config);
	echo_once(served.url, "x");
	for (int i = 0; i < 20; i++) {
		int before = atomic_load(&board->actions);
		ss_turn_now(served.server);
		eventually(atomic_load(&board->actions) > before);
	}
	served_stop(&served);
	/* A hundred calls, one turn; then it sleeps. */
	config.addresses[0] = "127.0.0.1:0";
	struct ss_server *server = made(&config);
	ss_server_turn(server, 0);
	for (int i = 0; i < 100; i++)
		ss_turn_now(server);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 0);
	int64_t before = ss_now(server);
	ck_assert_int_eq(ss_server_turn(server, before + 30), 0);
	ck_assert_int_ge(ss_now(server), before + 30);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- suites ---------------------------------------------------------------*/

static void add_turns(Suite *suite)
{
	TCase *tcase = suite_case(suite, "turns", NULL, NULL);
	tcase_add_loop_test(tcase, turn_waits_until_its_deadline, 0, 2);
	tcase_add_loop_test(tcase, turn_takes_a_batch, 0, 2 * transport_count);
	tcase_add_loop_test(tcase, shutdown_is_tested_before_each_request, 0,
			    transport_count);
	tcase_add_loop_test(tcase, shutdown_is_tested_after_the_wait, 0, 2);
	tcase_add_loop_test(tcase, service_actions_run_once_a_turn, 0, 2);
	tcase_add_loop_test(tcase, an_interval_makes_turns, 0, 2);
	tcase_add_test(tcase, listeners_take_turns);
	tcase_add_loop_test(tcase, one_thread_serves, 0, 2);
}

static void add_requests(Suite *suite)
{
	TCase *tcase = suite_case(suite, "handle_request", NULL, NULL);
	tcase_add_loop_test(tcase, handle_request_takes_one, 0,
			    transport_count);
	tcase_add_loop_test(tcase, handle_request_keeps_its_timeout, 0, 4);
	tcase_add_test(tcase, handle_request_ends_by_shutdown);
	tcase_add_test(tcase, handle_request_reaps_children);
}

static void add_foreign(Suite *suite)
{
	TCase *tcase = suite_case(suite, "foreign loops", NULL, NULL);
#ifdef SS_LINUX
	tcase_add_loop_test(tcase, foreign_loop_turns_two_servers, 0, 4);
	tcase_add_loop_test(tcase, the_cap_opens_under_every_loop, 0,
			    6 * CAPPED);
#else
	tcase_add_test(tcase, pollfd_is_not_supported);
#endif
	tcase_add_loop_test(tcase, deadline_of_an_idle_server_is_none, 0, 2);
	tcase_add_test(tcase, deadline_of_an_interval_stands_still);
	tcase_add_loop_test(tcase, deadline_of_a_failing_accept_is_soon, 0, 2);
	tcase_add_loop_test(
		tcase, deadline_of_a_failing_accept_is_a_second_at_most, 0, 2);
	tcase_add_test(tcase, deadline_is_now_while_memory_has_clients);
	tcase_add_test(tcase, serve_ends_with_the_last_server);
	tcase_add_test(tcase, serve_refuses_all_or_none);
	tcase_add_test(tcase, serve_ends_where_waiting_fails);
	tcase_add_test(tcase, serve_honours_intervals);
}

static void add_making(Suite *suite)
{
	int all = model_count * transport_count;
	TCase *tcase = suite_case(suite, "making", NULL, NULL);
	tcase_add_loop_test(tcase, caller_binds_and_activates, 0,
			    2 * transport_count);
	tcase_add_loop_test(tcase, bind_that_failed_may_be_repeated, 0,
			    transport_count);
	tcase_add_loop_test(tcase, servers_tell_what_they_are, 0, all);
	tcase_add_test(tcase, memory_has_no_socket_to_tell_of);
}

static void add_hanging(Suite *suite)
{
	TCase *tcase = suite_case(suite, "watches", NULL, NULL);
	tcase_add_loop_test(tcase, watches_are_told, 0, 2);
	tcase_add_test(tcase, removed_watches_are_not_told);
	tcase_add_test(tcase, watches_for_output_are_told);
	tcase_add_loop_test(tcase, turn_now_ends_the_wait, 0, 2);
}

Suite *t_loop(void)
{
	begin_threads();
	Suite *suite = suite_create("t_loop");
	add_turns(suite);
	add_requests(suite);
	add_foreign(suite);
	add_making(suite);
	add_hanging(suite);
	return suite;
}
