/*
 * What fiber alone promises: many handlers a thread that let one another run,
 * a stack only while a request needs one, loops that share the load, and an
 * overflow that is named before it kills.
 */
#include "program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "fiber/machine.h"
#include "fiber/tools.h"

enum { GUARD_INSTALL = 102, PATTERN = 4096 };

static struct sys_table real;

/* What a test, its threads and its nodes share. */
struct board {
	struct tape tape;
	atomic_int begun, inside, ended;
	atomic_int made;     /* stacks, ever */
	atomic_llong mapped; /* bytes */
	atomic_ullong id;    /* of the request that fails */
	atomic_bool go;
	char errors[100]; /* where standard error leads */
};

static struct board *board;

static void set_up(void)
{
	real = sys_table;
	/* The sanitizers have it otherwise. */
	signal(SIGSEGV, SIG_DFL);
	board = ss_shared_alloc(sizeof(*board));
	ck_assert_ptr_nonnull(board);
	snprintf(board->errors, sizeof(board->errors), "%s/errors", scratch());
}

static void tear_down(void)
{
	sys_table = real;
}

static struct ss_config config_for(const struct ss_fiber_options *options,
				   const struct ss_handler *handler)
{
	struct ss_config config = {
		.addresses = { "tcp://127.0.0.1:0" },
		.transport = &ss_tcp_server,
		.handler = handler,
		.mixins = { { &ss_fiber_mixin, options } },
	};
	return config;
}

static const struct ss_fiber_options one_loop = { .loops = 1 };
static const struct ss_fiber_options two_loops = { .loops = 2 };
static const struct ss_fiber_options *const loops[] = { &one_loop, &two_loops };

static const char *url_of(struct ss_server *server)
{
	static char url[SS_ADDRESS_TEXT];
	ck_assert_ptr_nonnull(ss_server_url(server, 0, url, sizeof(url)));
	return url;
}

static bool silent(int fd)
{
	char byte;
	return recv_within(fd, &byte, 1, 0) == -EAGAIN;
}

/* ---- options --------------------------------------------------------------*/

static int echo(struct ss_request *req)
{
	char buf[256];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	while (n > 0 && (n = ss_write(req, buf, (size_t)n)) > 0)
		n = ss_read(req, buf, sizeof(buf));
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler echoing = { .name = "echoing", .handle = echo };

static const struct {
	struct ss_fiber_options options;
	const char *why;
} refusals[] = {
	{ { .loops = -1 }, "fiber: loops is -1, and not in 1..254" },
	{ { .loops = 255 }, "fiber: loops is 255, and not in 1..254" },
	{ { .stack_size = 1 }, "fiber: stack_size is 1, and less than 16384" },
	{ { .stack_size = 16383 }, "fiber: stack_size is 16383, and less" },
	{ { .stack_size = (1 << 30) + 1 },
	  "fiber: stack_size is 1073741825, and more than 1073741824" },
	{ { .stack_size = SIZE_MAX }, ", and more than 1073741824" },
};
enum { REFUSALS = sizeof(refusals) / sizeof(*refusals) };

START_TEST(options_are_refused)
{
	struct ss_config config = config_for(&refusals[_i].options, &echoing);
	refused(&config, -EINVAL, refusals[_i].why);
}
END_TEST

START_TEST(one_loop_is_refused_more)
{
	struct ss_config config = config_for(&two_loops, &echoing);
	use_first(&config, &ss_prefork_mixin, NULL);
	refused(&config, -EINVAL, "fiber: a worker is served by one loop");
	config = config_for(&two_loops, &echoing);
	config.transport = &ss_memory_server;
	config.addresses[0] = NULL;
	refused(&config, -EINVAL, "fiber: memory is served by one loop");
}
END_TEST

/* ---- handle_request -------------------------------------------------------*/

static int echo_slowly(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	int r = ss_sleep(req, 20);
	if (n > 0 && r == 0)
		n = ss_write(req, buf, (size_t)n);
	atomic_fetch_add(&board->ended, 1);
	return n < 0 ? (int)n : r;
}

static const struct ss_handler slow = { .name = "slow", .handle = echo_slowly };

START_TEST(handle_request_serves_one_to_its_end)
{
	int fds[2];
	struct ss_config config = config_for(loops[_i], &slow);
	struct ss_server *server = made(&config);
	for (int i = 0; i < 2; i++) {
		fds[i] = dial(url_of(server));
		send_text(fds[i], "x");
	}
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(ss_handle_request(server), 1);
		ck_assert_int_eq(atomic_load(&board->ended), i + 1);
		expect_text(fds[i], "x");
		expect_end(fds[i]);
		ck_assert(i == 1 || silent(fds[1]));
		close(fds[i]);
	}
	ck_assert(!ss_holding(server, ~0U));
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(handle_request_ends_by_shutdown)
{
	struct ss_config config = config_for(loops[_i], &echoing);
	struct served served = { .server = made(&config) };
	int fd = dial(url_of(served.server));
	send_text(fd, "x");
	pthread_create(&served.thread, NULL, serve_one_request, &served);
	expect_text(fd, "x");
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(served.result, -ECANCELED);
	ck_assert(!ss_holding(served.server, ~0U));
	close(fd);
	ck_assert_int_eq(ss_server_free(served.server), 0);
}
END_TEST

/* ---- stacks ---------------------------------------------------------------*/

/* Each new one has its guard made; one that was given back has it. */
static int count_madvise(void *memory, size_t n, int advice)
{
	int r = real.madvise(memory, n, advice);
	if (r == 0 && advice == GUARD_INSTALL)
		atomic_fetch_add(&board->made, 1);
	return r;
}

static int count_mprotect(void *memory, size_t n, int prot)
{
	atomic_fetch_add(&board->made, 1);
	return real.mprotect(memory, n, prot);
}

static void *count_mmap(void *at, size_t n, int prot, int flags, int fd,
			off_t offset)
{
	void *memory = real.mmap(at, n, prot, flags, fd, offset);
	if (memory != MAP_FAILED)
		atomic_fetch_add(&board->mapped, (long long)n);
	return memory;
}

static int count_munmap(void *memory, size_t n)
{
	atomic_fetch_sub(&board->mapped, (long long)n);
	return real.munmap(memory, n);
}

static void count_stacks(void)
{
	sys_table.madvise = count_madvise;
	sys_table.mprotect = count_mprotect;
	sys_table.mmap = count_mmap;
	sys_table.munmap = count_munmap;
}

static uint64_t accepted(struct ss_server *server)
{
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	return stats.accepted;
}

static int live_requests(struct ss_server *server)
{
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	return (int)stats.active;
}

static int echo_and_rest(struct ss_request *req)
{
	char buf[256];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static int greet(struct ss_request *req)
{
	ssize_t n = ss_write(req, "x", 1);
	return n < 0 ? (int)n : echo(req);
}

/* How many stacks so many clients need, at once: before they say anything, and
 * when each has. */
static const struct {
	struct ss_handler handler;
	bool each_first, each_then;
} needs[] = {
	{ { .name = "loop", .handle = echo }, false, true },
	{ { .name = "rest", .handle = echo_and_rest }, false, false },
	{ { .name = "greet", .handle = greet, .speaks_first = true },
	  true,
	  true },
};
enum { NEEDS = sizeof(needs) / sizeof(*needs) };

enum { NEEDY = 50 };

static void dial_all(const char *url, int fds[NEEDY], bool greeted)
{
	for (int i = 0; i < NEEDY; i++) {
		fds[i] = dial(url);
		if (greeted)
			expect_text(fds[i], "x");
	}
}

static void talk_twice(const int fds[NEEDY])
{
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < NEEDY; i++)
			send_text(fds[i], "hello");
		for (int i = 0; i < NEEDY; i++)
			expect_text(fds[i], "hello");
	}
}

START_TEST(stacks_are_for_who_needs_one)
{
	/* Both keep a frame on the stack. */
	stack_without(&ss_trace_mixin);
	stack_without(&ss_proxy_mixin);
	int fds[NEEDY];
	int first = needs[_i].each_first ? NEEDY : 0;
	int then = needs[_i].each_then ? NEEDY : 1;
	struct ss_config config = config_for(&one_loop, &needs[_i].handler);
	struct served served;
	count_stacks();
	served_start(&served, &config);
	/* The second ones have those of the first. */
	for (int i = 1; i <= 2; i++) {
		dial_all(served.url, fds, needs[_i].each_first);
		eventually(accepted(served.server) == (uint64_t)i * NEEDY);
		ck_assert_int_eq(atomic_load(&board->made),
				 i == 1 ? first : then);
		talk_twice(fds);
		ck_assert_int_eq(atomic_load(&board->made), then);
		for (int k = 0; k < NEEDY; k++)
			close(fds[k]);
		eventually(live_requests(served.server) == 0);
	}
	served_stop(&served);
}
END_TEST

START_TEST(slabs_go_back_after_a_storm)
{
	enum { CLIENTS = 1500 };
	static int fds[CLIENTS];
	struct ss_config config = config_for(&one_loop, &echoing);
	struct served served;
	count_stacks();
	served_start(&served, &config);
	long long before = atomic_load(&board->mapped);
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(served.url);
		send_text(fds[i], "x");
	}
	for (int i = 0; i < CLIENTS; i++)
		expect_text(fds[i], "x");
	long long most = atomic_load(&board->mapped) - before;
	ck_assert_int_ge(most, CLIENTS * 64LL << 10);
	/* In turn, so that those which stay warm lie in the last slab, which
	 * has half of all. */
	for (int i = 0; i < CLIENTS; i++) {
		close(fds[i]);
		if (i % 100 == 99)
			eventually(live_requests(served.server) < CLIENTS - i);
	}
	eventually(atomic_load(&board->mapped) - before < most / 4 * 3);
	served_stop(&served);
	ck_assert_int_le(atomic_load(&board->mapped), before);
}
END_TEST

/* ---- out of memory --------------------------------------------------------*/

enum { FEW = 4, FEW_STACK = 64 << 10 };

/* One slab of a few stacks, and then no more. */
static void *map_few(void *at, size_t n, int prot, int flags, int fd,
		     off_t offset)
{
	static bool mapped;
	bool small = n < (FEW + 1) * (size_t)FEW_STACK;
	if (!atomic_load(&board->go) && (!small || mapped)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	mapped = true;
	return real.mmap(at, n, prot, flags, fd, offset);
}

/* Who finds no stack waits for one, in turn, and nobody else is harmed. */
START_TEST(without_a_stack_clients_wait)
{
	enum { CLIENTS = FEW + 2 };
	struct ss_fiber_options options = { .loops = 1,
					    .stack_size = FEW_STACK };
	struct ss_config config = config_for(&options, &echoing);
	struct served served;
	int fds[CLIENTS];
	served_start(&served, &config);
	sys_table.mmap = map_few;
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(served.url);
		send_text(fds[i], "x");
		if (i < FEW)
			expect_text(fds[i], "x");
	}
	for (int i = 0; i < FEW; i++) {
		send_text(fds[i], "again");
		expect_text(fds[i], "again");
	}
	ck_assert(silent(fds[FEW]) && silent(fds[FEW + 1]));
	close(fds[0]);
	expect_text(fds[FEW], "x");
	ck_assert(silent(fds[FEW + 1]));
	atomic_store(&board->go, true);
	expect_text(fds[FEW + 1], "x");
	for (int i = 1; i < CLIENTS; i++)
		close(fds[i]);
	served_stop(&served);
}
END_TEST

/* A loop's mail box, of which it has none before its first request. */
static void *no_box(size_t n)
{
	bool box = n == 64 * sizeof(struct ss_request *);
	if (box && atomic_fetch_add(&board->made, 1) == 0)
		return NULL;
	return real.malloc(n);
}

START_TEST(who_cannot_be_taken_is_refused_alone)
{
	struct ss_config config = config_for(loops[_i], &echoing);
	struct served served;
	config.log_level = SS_NONE;
	sys_table.malloc = no_box;
	served_start(&served, &config);
	int fd = dial(served.url);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(atomic_load(&board->made), 1);
	for (int i = 0; i < 5; i++)
		echo_once(served.url, "x");
	served_stop(&served);
}
END_TEST

/* For the first timer of a loop; the next one finds some. */
static void *no_timers(void *memory, size_t n)
{
	const size_t timer = sizeof(int64_t) + 2 * sizeof(void *);
	if (!memory && n == 64 * timer &&
	    atomic_fetch_add(&board->made, 1) == 0)
		return NULL;
	return real.realloc(memory, n);
}

static int naps_twice(struct ss_request *req)
{
	/* So long that neither is over before it was begun. */
	int first = ss_sleep(req, WAIT_MS), second = ss_sleep(req, 100);
	return ss_printf(req, "%d %d", first, second) < 0;
}

START_TEST(without_a_timer_nobody_sleeps)
{
	static const struct ss_handler handler = { .handle = naps_twice,
						   .speaks_first = true };
	struct ss_config config = config_for(&one_loop, &handler);
	struct ss_server *server = made(&config);
	char expected[32];
	sys_table.realloc = no_timers;
	int fd = dial(url_of(server));
	ck_assert_int_eq(ss_handle_request(server), 1);
	snprintf(expected, sizeof(expected), "%d 0", -ENOMEM);
	expect_text(fd, expected);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(atomic_load(&board->made), 2);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static void *map_nothing(void *at, size_t n, int prot, int flags, int fd,
			 off_t offset)
{
	(void)at, (void)n, (void)prot, (void)flags, (void)fd, (void)offset;
	errno = ENOMEM;
	return MAP_FAILED;
}

static int is_told_its_end(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	tape_note(&board->tape, "%s", n == -ECANCELED ? "cancelled" : "?");
	return (int)n;
}

/* Who waits for a stack to the end has his handler told of it. */
START_TEST(without_a_stack_the_end_is_told)
{
	enum { CLIENTS = 3 };
	static const struct ss_handler handler = { .handle = is_told_its_end };
	stack_without(&ss_trace_mixin);
	stack_without(&ss_proxy_mixin);
	struct ss_config config = config_for(&one_loop, &handler);
	int fds[CLIENTS];
	config.drain_ms = 20;
	config.log_level = SS_NONE;
	struct ss_server *server = made(&config);
	sys_table.mmap = map_nothing;
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(url_of(server));
		send_text(fds[i], "x");
		ck_assert_int_ge(ss_server_turn(server, 0), 0);
	}
	ck_assert_int_eq(ss_server_close(server), 0);
	sys_table.mmap = real.mmap;
	ck_assert_int_eq(atomic_load(&board->tape.count), CLIENTS);
	for (int i = 0; i < CLIENTS; i++) {
		ck_assert_str_eq(board->tape.line[i].text, "cancelled");
		char byte;
		ck_assert_int_le(recv_within(fds[i], &byte, 1, WAIT_MS), 0);
		close(fds[i]);
	}
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- who runs next --------------------------------------------------------*/

static int answer_the_second(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read_full(req, &byte, 1);
	atomic_fetch_add(&board->inside, 1);
	if (n == 1)
		n = ss_read_full(req, &byte, 1);
	if (n == 1)
		n = ss_write(req, &byte, 1);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler patient = { .name = "patient",
					   .handle = answer_the_second };

START_TEST(handlers_wait_beside_one_another)
{
	enum { CLIENTS = 200 };
	int fds[CLIENTS];
	struct ss_config config = config_for(&one_loop, &patient);
	struct served served;
	served_start(&served, &config);
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(served.url);
		send_text(fds[i], "a");
	}
	eventually(atomic_load(&board->inside) == CLIENTS);
	for (int i = CLIENTS - 1; i >= 0; i--) {
		send_text(fds[i], "b");
		expect_text(fds[i], "b");
		close(fds[i]);
	}
	served_stop(&served);
}
END_TEST

static int sleep_or_answer(struct ss_request *req)
{
	char byte;
	int r = 0;
	ssize_t n = ss_read(req, &byte, 1);
	if (n == 1 && byte == 's')
		r = ss_sleep(req, 20);
	if (n == 1 && r == 0)
		n = ss_write(req, &byte, 1);
	return n == 1 && r == 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler dozing = { .name = "dozing",
					  .handle = sleep_or_answer };

/* Those that are told of by one wait run one after another on one stack, but
 * who waits keeps it, and the next have another. */
START_TEST(a_round_goes_on_beside_who_waits)
{
	/* Both keep a frame on the stack. */
	stack_without(&ss_trace_mixin);
	stack_without(&ss_proxy_mixin);
	static const char said[] = "aassbcsdesf";
	enum { CLIENTS = sizeof(said) - 1, SLEEPERS = 4 };
	int fds[CLIENTS];
	struct ss_config config = config_for(&one_loop, &dozing);
	struct ss_server *server = made(&config);
	count_stacks();
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial(url_of(server));
	while (live_requests(server) < CLIENTS)
		ss_server_turn(server, 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < CLIENTS; i++)
			ck_assert_int_eq(send(fds[i], said + i, 1, 0), 1);
		ss_server_turn(server, 0);
		for (int i = 0; i < CLIENTS; i++)
			ck_assert(silent(fds[i]) == (said[i] == 's'));
		int64_t until = clock_ms() + WAIT_MS;
		for (int i = 0; i < CLIENTS; i++)
			while (said[i] == 's' && silent(fds[i])) {
				ck_assert_int_lt(clock_ms(), until);
				ss_server_turn(server, clock_ms() + 20);
			}
	}
	ck_assert_int_eq(atomic_load(&board->made), SLEEPERS + 1);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

#ifndef NDEBUG
static int keep_the_loop(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	if (n == 1 && byte == 's')
		pause_ms(120); /* not the library's */
	return n == 1 ? SS_AGAIN : (int)n;
}

static void note_keeper(void *arg, int level, struct ss_server *server,
			uint64_t id, const char *text)
{
	(void)arg, (void)server, (void)id;
	if (level == SS_LOG_WARNING &&
	    strstr(text, "handler rude kept its loop for "))
		atomic_fetch_add(&board->ended, 1);
}

/* Whether it leaves its stack to the next, or has it from the one before. */
START_TEST(who_keeps_the_loop_is_named)
{
	static const struct ss_handler rude = { .name = "rude",
						.handle = keep_the_loop };
	struct ss_config config = config_for(&one_loop, &rude);
	config.log = note_keeper;
	struct ss_server *server = made(&config);
	int fds[2];
	for (int i = 0; i < 2; i++)
		fds[i] = dial(url_of(server));
	while (live_requests(server) < 2)
		ss_server_turn(server, 0);
	send_text(fds[0], _i ? "a" : "s");
	send_text(fds[1], _i ? "s" : "a");
	ss_server_turn(server, 0);
	ck_assert_int_ge(atomic_load(&board->ended), 1);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST
#endif

enum { BUSY = 1024, BUDGET = 64 };

/* Who ran last, for how many calls on end, and the most of that. */
static struct {
	const struct ss_request *last;
	int run, longest;
} turns;

static void note_turn(const struct ss_request *req)
{
	turns.run = turns.last == req ? turns.run + 1 : 1;
	turns.last = req;
	if (turns.run > turns.longest)
		turns.longest = turns.run;
}

static int read_busily(struct ss_request *req)
{
	char byte;
	int n = 0;
	while (n < BUSY && ss_read(req, &byte, 1) == 1) {
		note_turn(req);
		n++;
	}
	atomic_fetch_add(&board->ended, n == BUSY);
	return 0;
}

static int write_busily(struct ss_request *req)
{
	int n = 0;
	while (n < BUSY && ss_write(req, "x", 1) == 1) {
		note_turn(req);
		n++;
	}
	atomic_fetch_add(&board->ended, n == BUSY);
	return 0;
}

static const struct ss_handler busy[] = {
	{ .name = "reader", .handle = read_busily, .rbufsize = SS_NONE },
	{ .name = "writer", .handle = write_busily },
};

/* All its input is there, or room for all its output: it need not wait. */
START_TEST(who_need_not_wait_lets_others_run)
{
	enum { CLIENTS = 3 };
	char bytes[BUSY] = "";
	int fds[CLIENTS];
	struct ss_config config = config_for(&one_loop, &busy[_i]);
	struct ss_server *server = made(&config);
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(url_of(server));
		send_bytes(fds[i], bytes, BUSY);
	}
	int64_t until = clock_ms() + WAIT_MS;
	while (atomic_load(&board->ended) < CLIENTS && clock_ms() < until)
		ck_assert_int_ge(ss_server_turn(server, ss_now(server) + 100),
				 0);
	ck_assert_int_eq(atomic_load(&board->ended), CLIENTS);
	ck_assert_int_le(turns.longest, BUDGET);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int bell[2];
static atomic_int *listening;

static int waits_for_the_bell(struct ss_request *req)
{
	atomic_fetch_add(listening, 1);
	int r = ss_wait_fd(req, bell[0], POLLIN, SS_NONE);
	ssize_t n = ss_printf(req, "%d", r == POLLIN);
	return n < 0 ? (int)n : 0;
}

/* epoll(7) takes a descriptor once. */
START_TEST(several_wait_for_one_descriptor)
{
	enum { FIBER1 = 9, SEVERAL = 3 };
	static const struct ss_handler handler = {
		.handle = waits_for_the_bell,
		.speaks_first = true,
	};
	struct ss_config config =
		config_of(&models[FIBER1], &transports[0], &handler);
	int fd[SEVERAL];
	listening = ss_shared_alloc(sizeof(*listening));
	ck_assert_int_eq(pipe2(bell, O_CLOEXEC), 0);
	struct node node;
	node_start(&node, &config);
	for (int i = 0; i < SEVERAL; i++)
		fd[i] = dial(node.url);
	eventually(atomic_load(listening) == SEVERAL);
	pause_ms(20); /* the last has its wait before it */
	ck_assert_int_eq(write(bell[1], "", 1), 1);
	for (int i = 0; i < SEVERAL; i++) {
		expect_text(fd[i], "1");
		expect_end(fd[i]);
		close(fd[i]);
	}
	ck_assert_int_eq(node_stop(&node), 0);
	close(bell[0]);
	close(bell[1]);
}
END_TEST

/* ---- waits that cannot be -------------------------------------------------*/

#ifdef SS_LINUX
static int no_dup(int fd)
{
	(void)fd;
	errno = EMFILE;
	return -1;
}

/* The second one to wait for it needs another descriptor. */
START_TEST(who_cannot_share_a_descriptor_is_told)
{
	static const struct ss_handler handler = {
		.handle = waits_for_the_bell,
		.speaks_first = true,
	};
	struct ss_config config = config_for(&one_loop, &handler);
	struct served served;
	listening = ss_shared_alloc(sizeof(*listening));
	ck_assert_int_eq(pipe2(bell, O_CLOEXEC), 0);
	served_start(&served, &config);
	sys_table.dup = no_dup;
	int first = dial(served.url);
	eventually(atomic_load(listening) == 1);
	int second = dial(served.url);
	expect_text(second, "0");
	expect_end(second);
	ck_assert(silent(first));
	ck_assert_int_eq(write(bell[1], "", 1), 1);
	expect_text(first, "1");
	close(first);
	close(second);
	served_stop(&served);
	close(bell[0]);
	close(bell[1]);
}
END_TEST

static atomic_bool no_epoll;

static int full_epoll(int epfd, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && atomic_exchange(&no_epoll, false)) {
		errno = ENOSPC;
		return -1;
	}
	return real.epoll_ctl(epfd, op, fd, event);
}

static int read_unwatched(struct ss_request *req)
{
	char byte;
	bool first = atomic_fetch_add(&board->begun, 1) == 0;
	atomic_store(&no_epoll, first);
	ssize_t n = ss_read(req, &byte, 1);
	tape_note(&board->tape, "%zd", n);
	return n < 0 ? (int)n : ss_printf(req, "%c", byte) < 0 ? -EIO : 0;
}

static const struct ss_handler unwatched = { .handle = read_unwatched,
					     .speaks_first = true };

/* It costs that client, and no other. */
START_TEST(who_cannot_be_watched_is_told)
{
	struct ss_config config = config_for(loops[_i], &unwatched);
	struct served served;
	config.log_level = SS_NONE;
	sys_table.epoll_ctl = full_epoll;
	served_start(&served, &config);
	int first = dial(served.url);
	expect_end(first);
	int second = dial(served.url);
	send_text(second, "x");
	expect_text(second, "x");
	expect_end(second);
	close(first);
	close(second);
	served_stop(&served);
	char text[20];
	snprintf(text, sizeof(text), "%d 1", -ENOSPC);
	ck_assert_str_eq(tape_text(&board->tape), text);
}
END_TEST
#endif

static void *no_more(void *memory, size_t n)
{
	(void)memory, (void)n;
	errno = ENOMEM;
	return NULL;
}

static int bells_ring(struct ss_request *req, int ms)
{
	struct ss_wait waits[6];
	for (int i = 0; i < 6; i++)
		waits[i] = (struct ss_wait){ .fd = i ? -1 : bell[0],
					     .events = POLLIN };
	return ss_wait_any(req, waits, 6, ss_now(ss_request_server(req)) + ms);
}

static void wait_each_way(struct ss_request *req, int ms)
{
	char byte;
	int64_t soon = ss_now(ss_request_server(req)) + ms;
	struct ss_timeouts brief = { .io_ms = ms };
	ss_request_set_timeouts(req, &brief);
	tape_note(&board->tape, "%d", ss_sleep(req, ms));
	tape_note(&board->tape, "%d", ss_wait_fd(req, bell[0], POLLIN, soon));
	tape_note(&board->tape, "%d", bells_ring(req, ms));
	tape_note(&board->tape, "%d", (int)ss_read(req, &byte, 1));
}

/* What cannot be noted is told at once, and not when its time has come. */
static int wait_without_memory(struct ss_request *req)
{
	sys_table.realloc = no_more;
	wait_each_way(req, WAIT_MS);
	sys_table.realloc = real.realloc;
	wait_each_way(req, 5);
	return 0;
}

/* Each wait with an end to it, without memory to note that, and then with. */
START_TEST(who_cannot_be_woken_in_time_is_told)
{
	static const struct ss_handler handler = { .handle =
							   wait_without_memory,
						   .speaks_first = true,
						   .rbufsize = SS_NONE };
	struct ss_config config = config_for(loops[_i], &handler);
	struct served served;
	char text[100];
	ck_assert_int_eq(pipe2(bell, O_CLOEXEC), 0);
	served_start(&served, &config);
	int fd = dial(served.url);
	expect_end(fd);
	close(fd);
	served_stop(&served);
	snprintf(text, sizeof(text), "%d %d %d %d 0 0 0 %d", -ENOMEM, -ENOMEM,
		 -ENOMEM, -ENOMEM, -ETIMEDOUT);
	ck_assert_str_eq(tape_text(&board->tape), text);
	close(bell[0]);
	close(bell[1]);
}
END_TEST

static int wait_early(struct ss_server *server, struct ss_request *req);

static const struct ss_layer early = {
	.name = "early",
	.ops = { .verify_request = wait_early },
};

/* Before it has a fiber, on whatever thread that is. */
static int wait_early(struct ss_server *server, struct ss_request *req)
{
	char byte;
	tape_note(&board->tape, "%d", (int)ss_read(req, &byte, 1));
	tape_note(&board->tape, "%d", ss_wait_any(req, NULL, 0, SS_NONE));
	return ss_super(server, &early)->verify_request(server, req);
}

/* It would keep the loop: so it fails. */
START_TEST(who_has_no_fiber_yet_cannot_wait)
{
	stack_without(&ss_trace_mixin);
	stack_without(&ss_proxy_mixin);
	struct ss_config config = config_for(loops[_i], &echoing);
	struct served served;
	char text[20];
	use_first(&config, &early, NULL);
	served_start(&served, &config);
	int fd = dial(served.url);
	tape_wait(&board->tape, 2);
	send_text(fd, "x");
	expect_text(fd, "x");
	close(fd);
	served_stop(&served);
	snprintf(text, sizeof(text), "%d %d", -ECANCELED, -ECANCELED);
	ck_assert_str_eq(tape_text(&board->tape), text);
}
END_TEST

static int take_without_source(struct ss_server *server,
			       struct ss_listener *listener,
			       struct ss_request **req);

static const struct ss_layer sourceless = {
	.name = "sourceless",
	.ops = { .get_request = take_without_source },
};

static int take_without_source(struct ss_server *server,
			       struct ss_listener *listener,
			       struct ss_request **req)
{
	int r = ss_super(server, &sourceless)
			->get_request(server, listener, req);
	if (r >= 0)
		ss_request_set_source(*req, NULL);
	return r;
}

static int wait_for_itself(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct ss_wait wait = { .req = req, .events = POLLIN };
	int64_t until = ss_now(server) + 50;
	int r = ss_wait_any(req, &wait, 1, until);
	ck_assert_int_ge(ss_now(server), until);
	return ss_printf(req, "%d", r) < 0 ? -EIO : 0;
}

/* A transport need not have sources: then nothing tells but the time. */
START_TEST(requests_without_a_source_wait_for_the_time)
{
	static const struct ss_handler handler = { .handle = wait_for_itself,
						   .speaks_first = true };
	struct ss_config config = config_for(&one_loop, &handler);
	struct ss_memory_client *client;
	char text[2] = "";
	config.transport = &ss_memory_server;
	config.addresses[0] = NULL;
	use_first(&config, &sourceless, NULL);
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_int_eq(ss_memory_recv(client, text, sizeof(text)), 1);
	ck_assert_str_eq(text, "0");
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int failing_thread; /* the n-th is not begun */

static int one_thread_less(pthread_t *thread, const pthread_attr_t *attr,
			   void *(*run)(void *), void *arg)
{
	if (--failing_thread == 0)
		return EAGAIN;
	return real.pthread_create(thread, attr, run, arg);
}

START_TEST(loops_without_threads_are_refused)
{
	char text[60];
	struct ss_config config = config_for(&two_loops, &echoing);
	int before = threads();
	sys_table.pthread_create = one_thread_less;
	failing_thread = _i;
	snprintf(text, sizeof(text), "fiber: thread %d of 2: Resource temp",
		 _i);
	refused(&config, -EAGAIN, text);
	ck_assert(threads_back(before));
}
END_TEST

/* ---- time -----------------------------------------------------------------*/

static int64_t told_now;
static int64_t woken_last;

static int64_t tell_time(void)
{
	return told_now;
}

static int sleep_as_told(struct ss_request *req)
{
	char word[16];
	if (ss_read_line(req, word, sizeof(word)) <= 0)
		return -EPROTO;
	int64_t due = told_now + atoi(word);
	atomic_fetch_add(&board->inside, 1);
	int r = ss_sleep(req, atoi(word));
	ck_assert_int_ge(told_now, due);
	ck_assert_int_ge(due, woken_last);
	woken_last = due;
	atomic_fetch_add(&board->ended, 1);
	return r;
}

static const struct ss_handler sleeper = { .name = "sleeper",
					   .handle = sleep_as_told };

/* By a clock of ours: which of them are due at once is no accident. */
START_TEST(sleepers_wake_in_turn)
{
	enum { CLIENTS = 300, LONGEST = 1000, STEP = 7 };
	int fds[CLIENTS];
	char word[16];
	struct ss_config config = config_for(&one_loop, &sleeper);
	told_now = 1000000;
	sys_table.now_ms = tell_time;
	struct ss_server *server = made(&config);
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(url_of(server));
		snprintf(word, sizeof(word), "%d\n", 1 + i * 7919 % LONGEST);
		send_text(fds[i], word);
		while (atomic_load(&board->inside) <= i)
			ck_assert_int_ge(ss_server_turn(server, 0), 0);
	}
	ck_assert_int_eq(atomic_load(&board->ended), 0);
	for (int i = 0; i <= LONGEST / STEP; i++) {
		told_now += STEP;
		ck_assert_int_ge(ss_server_turn(server, 0), 0);
	}
	ck_assert_int_eq(atomic_load(&board->ended), CLIENTS);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	sys_table.now_ms = real.now_ms;
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- loops ----------------------------------------------------------------*/

enum { THREADS = 4 };

/* The number of the calling thread. */
static int thread_number(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static pthread_t seen[THREADS];
	static int count;
	pthread_mutex_lock(&lock);
	int i = 0;
	while (i < count && !pthread_equal(seen[i], pthread_self()))
		i++;
	if (i == count && count < THREADS)
		seen[count++] = pthread_self();
	pthread_mutex_unlock(&lock);
	return i;
}

static int tell_thread(struct ss_request *req)
{
	char byte;
	while (ss_read(req, &byte, 1) == 1) {
		byte = (char)('0' + thread_number());
		if (ss_sleep(req, 1) < 0 || ss_write(req, &byte, 1) != 1)
			break;
	}
	return 0;
}

static const struct ss_handler telling = { .name = "telling",
					   .handle = tell_thread };

START_TEST(loops_share_evenly_and_keep_theirs)
{
	enum { EACH = 10, CLIENTS = THREADS * EACH };
	struct ss_fiber_options options = { .loops = THREADS };
	struct ss_config config = config_for(&options, &telling);
	int fds[CLIENTS], has[THREADS + 1] = { 0 };
	char first[CLIENTS], next;
	struct served served;
	served_start(&served, &config);
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial(served.url);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < CLIENTS; i++)
			send_text(fds[i], "?");
		for (int i = 0; i < CLIENTS; i++) {
			expect_bytes(fds[i], &next, 1);
			ck_assert(round == 0 || next == first[i]);
			first[i] = next;
		}
	}
	for (int i = 0; i < CLIENTS; i++) {
		has[first[i] - '0']++;
		close(fds[i]);
	}
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(has[i], EACH);
	served_stop(&served);
}
END_TEST

static char loop_of(int fd)
{
	char number;
	send_text(fd, "?");
	expect_bytes(fd, &number, 1);
	return number;
}

/* New ones come to the loop that has the fewest now, whoever had more before.
 */
START_TEST(loops_that_clients_left_get_the_next)
{
	enum { CLIENTS = THREADS * 10 };
	struct ss_fiber_options options = { .loops = THREADS };
	struct ss_config config = config_for(&options, &telling);
	int fds[CLIENTS];
	char its[CLIENTS];
	unsigned left = 0;
	struct ss_stats stats;
	struct served served;
	served_start(&served, &config);
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial(served.url);
	/* All have theirs before the first one leaves. */
	for (int i = 0; i < CLIENTS; i++)
		its[i] = loop_of(fds[i]);
	char empty = its[0];
	for (int i = 0; i < CLIENTS; i++) {
		if (its[i] != empty)
			continue;
		close(fds[i]);
		fds[i] = -1;
		left++;
	}
	do
		ss_server_stats(served.server, &stats);
	while (stats.ended < left);
	for (int i = 0; i < CLIENTS; i++) {
		if (fds[i] >= 0)
			continue;
		fds[i] = dial(served.url);
		ck_assert_int_eq(loop_of(fds[i]), empty);
	}
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	served_stop(&served);
}
END_TEST

/* ---- offload --------------------------------------------------------------*/

enum { HELPERS = 32 };

static int block(void *arg)
{
	atomic_fetch_add(&board->inside, 1);
	while (!atomic_load(&board->go))
		pause_ms(1);
	atomic_fetch_sub(&board->inside, 1);
	return *(int *)arg;
}

/* "!" echoes; a number is what the call on a helper is to return. */
static int offload_as_told(struct ss_request *req)
{
	char word[16];
	if (ss_read_line(req, word, sizeof(word)) <= 0)
		return 0;
	if (word[0] == '!')
		return ss_write(req, "!\n", 2) < 0 ? -EPIPE : 0;
	int given = atoi(word);
	atomic_store(&board->id, ss_request_id(req));
	atomic_fetch_add(&board->begun, 1);
	int r = ss_offload(req, block, &given);
	tape_note(&board->tape, "%d: %d", given, r);
	r = (int)ss_printf(req, "%d\n", r);
	tape_note(&board->tape, r < 0 ? "failed %d" : "wrote", r);
	return r < 0 ? r : 0;
}

static const struct ss_handler offloading = { .name = "offloading",
					      .handle = offload_as_told };

START_TEST(offload_keeps_the_loop_free)
{
	enum { CLIENTS = 2 * HELPERS };
	int fds[CLIENTS];
	char word[16];
	struct ss_config config = config_for(loops[_i], &offloading);
	struct served served;
	served_start(&served, &config);
	int running = threads();
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(served.url);
		snprintf(word, sizeof(word), "%d\n", i);
		send_text(fds[i], word);
	}
	eventually(atomic_load(&board->begun) == CLIENTS);
	eventually(atomic_load(&board->inside) == HELPERS);
	for (int i = 0; i < 5; i++) {
		int fd = dial(served.url);
		send_text(fd, "!\n");
		expect_text(fd, "!\n");
		close(fd);
	}
	ck_assert_int_eq(atomic_load(&board->inside), HELPERS);
	ck_assert_int_le(threads(), running + HELPERS);
	atomic_store(&board->go, true);
	for (int i = 0; i < CLIENTS; i++) {
		snprintf(word, sizeof(word), "%d\n", i);
		expect_text(fds[i], word);
		close(fds[i]);
	}
	/* They leave when they have had nothing to do for a while. */
	eventually(threads() <= running);
	served_stop(&served);
}
END_TEST

static int no_thread(pthread_t *thread, const pthread_attr_t *attr,
		     void *(*run)(void *), void *arg)
{
	(void)thread, (void)attr, (void)run, (void)arg;
	return EAGAIN;
}

START_TEST(offload_without_threads_calls)
{
	struct ss_config config = config_for(loops[_i], &offloading);
	struct served served;
	served_start(&served, &config);
	int running = threads();
	sys_table.pthread_create = no_thread;
	atomic_store(&board->go, true);
	int fd = dial(served.url);
	send_text(fd, "-5\n");
	expect_text(fd, "-5\n");
	ck_assert_int_eq(threads(), running);
	close(fd);
	served_stop(&served);
}
END_TEST

/* What the call works with is the handler's: it cannot be left alone. */
START_TEST(offload_ends_before_its_request)
{
	struct ss_config config = config_for(loops[_i], &offloading);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	send_text(fd, "7\n");
	eventually(atomic_load(&board->inside) == 1);
	ck_assert_int_eq(ss_cancel(served.server, atomic_load(&board->id)), 0);
	int other = dial(served.url);
	send_text(other, "!\n");
	expect_text(other, "!\n");
	ck_assert_int_eq(atomic_load(&board->tape.count), 0);
	atomic_store(&board->go, true);
	tape_wait(&board->tape, 2);
	ck_assert_str_eq(tape_text(&board->tape), "7: 7 failed -125");
	close(fd);
	close(other);
	served_stop(&served);
}
END_TEST

/* ---- several servers ------------------------------------------------------*/

/* Asks the server behind it, which the same thread serves. */
static int ask_behind(struct ss_request *req)
{
	struct ss_request *behind;
	char byte;
	const char *url = ss_server_user(ss_request_server(req));
	if (ss_read(req, &byte, 1) != 1)
		return -EPROTO;
	int fd = ss_connect(req, url, NULL, NULL);
	int r = fd < 0 ? fd : ss_stream_new(req, fd, &behind);
	if (r < 0)
		return r;
	if (ss_write(behind, &byte, 1) == 1 && ss_read(behind, &byte, 1) == 1)
		r = (int)ss_write(req, &byte, 1);
	ss_stream_free(behind);
	return r < 0 ? r : 0;
}

static const struct ss_handler asking = { .name = "asking",
					  .handle = ask_behind };

struct chain {
	struct ss_server *servers[3];
	int result;
};

static void *serve_chain(void *arg)
{
	struct chain *chain = arg;
	chain->result = ss_serve(chain->servers, 3);
	return NULL;
}

START_TEST(servers_of_one_thread_serve_one_another)
{
	enum { CLIENTS = 20 };
	static const struct ss_handler *const handlers[] = { &asking, &asking,
							     &echoing };
	char urls[3][SS_ADDRESS_TEXT];
	int fds[CLIENTS];
	struct chain chain;
	pthread_t thread;
	for (int i = 2; i >= 0; i--) {
		bool middle = i == 1;
		struct ss_config config =
			config_for(loops[middle && _i], handlers[i]);
		config.user = i < 2 ? urls[i + 1] : NULL;
		chain.servers[i] = made(&config);
		strcpy(urls[i], url_of(chain.servers[i]));
	}
	pthread_create(&thread, NULL, serve_chain, &chain);
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(urls[0]);
		send_text(fds[i], "x");
	}
	for (int i = 0; i < CLIENTS; i++) {
		expect_text(fds[i], "x");
		close(fds[i]);
	}
	for (int i = 0; i < 3; i++)
		ss_shutdown(chain.servers[i]);
	pthread_join(thread, NULL);
	ck_assert_int_eq(chain.result, 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(ss_server_free(chain.servers[i]), 0);
}
END_TEST

/* ---- overflow -------------------------------------------------------------*/

__attribute__((no_sanitize("address"), no_sanitize("thread"),
	       noinline)) static int
sink(volatile int *above)
{
	volatile int here[64];
	here[0] = *above + 1;
	return here[0] ? sink(here) + here[0] : 0;
}

/* Memory of a parked fiber's. */
static volatile unsigned char *neighbour;

/* "deep" overflows the stack, "wild" and "sent" fail otherwise; any other
 * word is answered. */
static int fail_as_told(struct ss_request *req)
{
	volatile unsigned char pattern[PATTERN];
	volatile int zero = 0;
	char word[16] = "";
	for (;;) {
		ssize_t n = ss_read_line(req, word, sizeof(word));
		if (n <= 0)
			return (int)n;
		atomic_store(&board->id, ss_request_id(req));
		if (!strcmp(word, "deep\n"))
			return sink(&zero);
		if (!strcmp(word, "wild\n"))
			*(volatile int *)(uintptr_t)(zero + 16) = 1;
		if (!strcmp(word, "sent\n"))
			kill(getpid(), SIGSEGV);
		for (int i = 0; i < PATTERN; i++)
			pattern[i] = (unsigned char)i;
		neighbour = pattern;
		ss_write(req, word, (size_t)n);
	}
}

#define TEN "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

static const struct ss_handler failing[] = {
	{ .name = "diver", .handle = fail_as_told },
	{ .handle = fail_as_told },
	/* Of which but a part is told. */
	{ .name = HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED,
	  .handle = fail_as_told },
};
enum { FAILING = sizeof(failing) / sizeof(*failing) };

static int refuse_guards(void *memory, size_t n, int advice)
{
	if (advice == GUARD_INSTALL) {
		errno = EINVAL;
		return -1;
	}
	return real.madvise(memory, n, advice);
}

static int serve_to_file(struct ss_server *server)
{
	int fd = open(board->errors, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, STDERR_FILENO);
	close(fd);
	return ss_serve_forever(server);
}

/* As a program does whose signals one thread takes. */
static int serve_blocked(struct ss_server *server)
{
	sigset_t all;
	sigfillset(&all);
	sigdelset(&all, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	return serve_to_file(server);
}

static const char *errors(void)
{
	static char text[4096];
	FILE *file = fopen(board->errors, "r");
	size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
	text[n] = '\0';
	if (file)
		fclose(file);
	/* What an emulator has to say of a signal that kills. */
	char *emulator = strstr(text, "qemu: ");
	if (emulator)
		*emulator = '\0';
	return text;
}

/* A client whose handler is parked, and one that says the word, until the
 * server is no more. */
static void tell_beside(const char *url, const char *word)
{
	char byte;
	int parked = dial(url);
	send_text(parked, "hello\n");
	expect_text(parked, "hello\n");
	int fd = dial(url);
	send_text(fd, word);
	while (recv_within(fd, &byte, 1, WAIT_MS) > 0)
		;
	close(fd);
	close(parked);
}

static void expect_named(const struct ss_handler *handler, size_t size)
{
	char name[32], line[256];
	snprintf(name, sizeof(name), "%p", (void *)(uintptr_t)handler->handle);
	snprintf(line, sizeof(line),
		 "socketserver: error: #%llu handler %s overflowed its stack: "
		 "raise fiber.stack_size, which is %zu\n",
		 atomic_load(&board->id), handler->name ? handler->name : name,
		 size);
	ck_assert_str_eq(errors(), line);
}

enum { NAMED = 2 * 2 * 2 };

START_TEST(overflow_is_named_and_kills)
{
	/* Both keep a frame on the stack. */
	stack_without(&ss_trace_mixin);
	stack_without(&ss_proxy_mixin);
	enum { SIZE = 128 << 10 };
	struct ss_fiber_options options = { .loops = 1 + (_i & 1),
					    .stack_size = SIZE,
					    .report_overflow = true };
	const struct ss_handler *handler = &failing[_i >> 1 & 1];
	struct ss_config config = config_for(&options, handler);
	struct node node;
	if (_i & 4)
		sys_table.madvise = refuse_guards;
	node_run(&node, &config, _i & 2 ? serve_blocked : serve_to_file);
	tell_beside(node.url, "deep\n");
	ck_assert_int_eq(node_wait(&node), 128 + SIGSEGV);
	expect_named(handler, SIZE);
}
END_TEST

START_TEST(overflow_kills_unnamed_where_nobody_asked)
{
	struct ss_config config = config_for(loops[_i], &failing[0]);
	struct node node;
	node_run(&node, &config, serve_to_file);
	tell_beside(node.url, "deep\n");
	ck_assert_int_eq(node_wait(&node), 128 + SIGSEGV);
	ck_assert_str_eq(errors(), "");
}
END_TEST

/* What a worker dies of is the supervisor's to tell. */
static void note_log(void *arg, int level, struct ss_server *server,
		     uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	if (strstr(text, "signal 11"))
		tape_note(&board->tape, "signal 11");
}

START_TEST(overflow_is_named_in_workers)
{
	static const struct ss_prefork_options one = { .workers = 1 };
	struct ss_fiber_options options = { .stack_size = 64 << 10,
					    .report_overflow = true };
	struct ss_config config = config_for(&options, &failing[0]);
	struct node node;
	use_first(&config, &ss_prefork_mixin, &one);
	config.log = note_log;
	node_run(&node, &config, serve_to_file);
	tell_beside(node.url, "deep\n");
	eventually(tape_find(&board->tape, "signal 11") >= 0);
	expect_named(&failing[0], 64 << 10);
	/* Another worker serves. */
	int fd = dial(node.url);
	send_text(fd, "again\n");
	expect_text(fd, "again\n");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- the signal's other users ---------------------------------------------*/

enum { EXIT_GOOD = 42, EXIT_SPOILT, EXIT_PLAIN };

static void on_fault(int signal, siginfo_t *info, void *context)
{
	(void)context;
	bool good = signal == SIGSEGV && info->si_signo == SIGSEGV;
	for (int i = 0; neighbour && i < PATTERN; i++)
		good = good && neighbour[i] == (unsigned char)i;
	sys_exit(good ? EXIT_GOOD : EXIT_SPOILT);
}

static void on_fault_plainly(int signal)
{
	sys_exit(signal == SIGSEGV ? EXIT_PLAIN : EXIT_SPOILT);
}

static void on_fault_never(int signal)
{
	(void)signal;
	_exit(EXIT_SPOILT);
}

static void handle_faults(struct sigaction action)
{
	action.sa_flags |= SA_ONSTACK;
	ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
}

static void do_nothing(struct sigaction action)
{
	ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
}

static const struct {
	const char *word;
	struct sigaction before;
	void (*set)(struct sigaction action);
	int status;
} faults[] = {
	{ "deep\n",
	  { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO },
	  handle_faults,
	  EXIT_GOOD },
	{ "deep\n",
	  { .sa_handler = on_fault_plainly },
	  handle_faults,
	  EXIT_PLAIN },
	{ "wild\n",
	  { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO },
	  handle_faults,
	  EXIT_GOOD },
	{ "wild\n",
	  { .sa_handler = on_fault_plainly },
	  handle_faults,
	  EXIT_PLAIN },
	{ "wild\n", { .sa_handler = SIG_DFL }, do_nothing, 128 + SIGSEGV },
	{ "wild\n", { .sa_handler = SIG_IGN }, do_nothing, 128 + SIGSEGV },
	{ "sent\n",
	  { .sa_handler = on_fault_plainly },
	  handle_faults,
	  EXIT_PLAIN },
	{ "sent\n", { .sa_handler = SIG_DFL }, do_nothing, 128 + SIGSEGV },
};
enum { FAULTS = sizeof(faults) / sizeof(*faults) };

/* Who had the signal has it for what is no overflow, and after one; and finds
 * the memory of others as it was. */
START_TEST(faults_go_to_who_had_them)
{
	struct ss_fiber_options options = { .loops = 1 + _i / FAULTS % 2,
					    .report_overflow = true };
	struct ss_config config = config_for(&options, &failing[_i / FAULTS]);
	struct sigaction was;
	struct node node;
	int i = _i % FAULTS;
	sigaction(SIGSEGV, NULL, &was);
	faults[i].set(faults[i].before);
	node_run(&node, &config, serve_to_file);
	sigaction(SIGSEGV, &was, NULL);
	tell_beside(node.url, faults[i].word);
	ck_assert_int_eq(node_wait(&node), faults[i].status);
	ck_assert_int_eq(errors()[0] != '\0',
			 !strcmp(faults[i].word, "deep\n"));
}
END_TEST

START_TEST(a_signal_that_was_ignored_stays_so)
{
	struct ss_fiber_options options = { .loops = 1 + _i,
					    .stack_size = 64 << 10,
					    .report_overflow = true };
	struct ss_config config = config_for(&options, &failing[0]);
	struct node node;
	struct sigaction was, ignore = { .sa_handler = SIG_IGN };
	sigaction(SIGSEGV, &ignore, &was);
	node_run(&node, &config, serve_to_file);
	sigaction(SIGSEGV, &was, NULL);
	int fd = dial(node.url);
	send_text(fd, "sent\n");
	expect_text(fd, "sent\n");
	close(fd);
	tell_beside(node.url, "deep\n");
	ck_assert_int_eq(node_wait(&node), 128 + SIGSEGV);
	expect_named(&failing[0], 64 << 10);
}
END_TEST

static void *who_has_it(void)
{
	struct sigaction now;
	ck_assert_int_eq(sigaction(SIGSEGV, NULL, &now), 0);
	return (void *)(uintptr_t)now.sa_handler;
}

START_TEST(the_signal_is_had_while_servers_live)
{
	struct ss_fiber_options options = { .report_overflow = true };
	struct ss_config config = config_for(&options, &echoing);
	struct ss_config without = config_for(NULL, &echoing);
	void *before = who_has_it();
	struct ss_server *silent_one = made(&without);
	ck_assert_ptr_eq(who_has_it(), before);
	struct ss_server *first = made(&config), *second = made(&config);
	void *ours = who_has_it();
	ck_assert_ptr_ne(ours, before);
	ck_assert_int_eq(ss_server_close(first), 0);
	ck_assert_int_eq(ss_server_close(first), 0);
	ck_assert_ptr_eq(who_has_it(), ours);
	ck_assert_int_eq(ss_server_close(second), 0);
	ck_assert_ptr_eq(who_has_it(), before);
	ck_assert_int_eq(ss_server_free(first), 0);
	ck_assert_int_eq(ss_server_free(second), 0);
	ck_assert_int_eq(ss_server_free(silent_one), 0);
	ck_assert_ptr_eq(who_has_it(), before);
}
END_TEST

/* Not its handler that the program has set meanwhile; nor is ours asked by
 * itself if it was brought back. */
START_TEST(the_signal_is_left_to_who_took_it)
{
	struct ss_fiber_options options = { .report_overflow = true };
	struct ss_config config = config_for(&options, &failing[0]);
	struct sigaction ours, theirs = { .sa_handler = on_fault_never };
	handle_faults((struct sigaction){ .sa_handler = on_fault_plainly });
	struct ss_server *server = made(&config);
	sigaction(SIGSEGV, &theirs, &ours);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_ptr_eq(who_has_it(), (void *)(uintptr_t)on_fault_never);
	sigaction(SIGSEGV, &ours, NULL);
	struct node node;
	node_run(&node, &config, serve_to_file);
	tell_beside(node.url, "sent\n");
	ck_assert_int_eq(node_wait(&node), EXIT_PLAIN);
}
END_TEST

static int no_sigaction(int signal, const struct sigaction *action,
			struct sigaction *old)
{
	(void)action, (void)old;
	errno = EINVAL;
	return signal == SIGSEGV ? -1 : 0;
}

static void *map_nothing_private(void *at, size_t n, int prot, int flags,
				 int fd, off_t offset)
{
	if (!(flags & MAP_PRIVATE))
		return real.mmap(at, n, prot, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}

START_TEST(a_stack_for_the_signal_that_cannot_be_had_is_told)
{
	struct ss_fiber_options options = { .report_overflow = true };
	struct ss_config config = config_for(&options, &echoing);
	void *before = who_has_it();
	sys_table.mmap = map_nothing_private;
	refused(&config, -ENOMEM, strerror(ENOMEM));
	sys_table.mmap = real.mmap;
	ck_assert_ptr_eq(who_has_it(), before);
}
END_TEST

START_TEST(a_signal_that_cannot_be_had_is_told)
{
	struct ss_fiber_options options = { .report_overflow = true };
	struct ss_config config = config_for(&options, &echoing);
	int running = threads();
	sys_table.sigaction = no_sigaction;
	refused(&config, -EINVAL, "fiber: report_overflow: Invalid argument");
	ck_assert_int_eq(threads(), running);
}
END_TEST

/* The thread's alternate stack and its mask are the program's. */
START_TEST(the_thread_is_given_back)
{
	static char memory[64 << 10];
	stack_t own = { .ss_sp = memory, .ss_size = sizeof(memory) };
	stack_t none = { .ss_flags = SS_DISABLE }, before, after;
	struct ss_fiber_options options = { .loops = 1,
					    .report_overflow = true };
	struct ss_config config = config_for(&options, &slow);
	sigset_t segv, mask;
	ck_assert_int_eq(sigaltstack(_i & 1 ? &own : &none, NULL), 0);
	sigemptyset(&segv);
	sigaddset(&segv, SIGSEGV);
	pthread_sigmask(_i & 2 ? SIG_BLOCK : SIG_UNBLOCK, &segv, NULL);
	sigaltstack(NULL, &before);
	struct ss_server *server = made(&config);
	int fd = dial(url_of(server));
	send_text(fd, "x");
	ck_assert_int_eq(ss_handle_request(server), 1);
	expect_text(fd, "x");
	sigaltstack(NULL, &after);
	ck_assert_int_eq(after.ss_flags, before.ss_flags);
	ck_assert_ptr_eq(after.ss_sp, before.ss_sp);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	ck_assert_int_eq(sigismember(&mask, SIGSEGV), _i >> 1);
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
	sigaltstack(&none, NULL);
}
END_TEST

/* ---- a debugger -----------------------------------------------------------*/

/* Its frames are ours alone, and it knows where the switch parks. */
#if !defined(TOOLS_SWITCH) && defined(CONTEXT_ASSEMBLY)
#define WITH_GDB 1

enum { PEER_FIBERS = 6, PEER_RUNS = 5 };

static const char *peer(void)
{
	static char path[4096];
	snprintf(path, sizeof(path), "%s/test/peers/fibers",
		 getenv("SS_BUILD"));
	return path;
}

/* The next of these words, each after the one before. */
static const char *find_in_turn(const char *at, const char *const words[])
{
	for (; *words; words++) {
		const char *found = strstr(at, *words);
		ck_assert_msg(found, "no %s: %.2000s", *words, at);
		at = found;
	}
	return at;
}

/* All of them, the one that runs too; and one by its id, after which frames are
 * its own, and then the thread's. */
static void expect_fibers(const struct ended *ended)
{
	char head[40];
	for (int id = 1; id <= PEER_FIBERS; id++) {
		bool runs = id == PEER_RUNS;
		snprintf(head, sizeof(head), "request #%d, ", id);
		find_in_turn(ended->out,
			     ARGV(head, "handler patient, loop ",
				  runs ? ": runs\n" : ": parked\n#1 ",
				  runs ? "everyone" : "context_swap",
				  runs ? "handle" : "deepest",
				  runs ? "ss_request_step" : "middle",
				  "context_start", "\n\n"));
	}
	find_in_turn(ended->out,
		     ARGV("loop 1 of fiber > tcp > base", "\n6 fibers\n",
			  "request #3, ", "secret = 4711", "deepest", "ALONE",
			  "everyone"));
	ck_assert_ptr_null(strstr(strstr(ended->out, "ALONE"), "middle"));
}

#define GDB_COMMANDS                                                           \
	"-ex", "source lib/fiber/fibers-gdb.py", "-ex", "fibers", "-ex",       \
		"fiber 3", "-ex", "frame function deepest", "-ex",             \
		"info locals", "-ex", "backtrace", "-ex", "fiber", "-ex",      \
		"echo ALONE\\n", "-ex", "backtrace", peer()

START_TEST(gdb_lists_fibers)
{
	static struct ended ended;
	if (!have("gdb")) {
		printf("skipped: gdb is not here\n");
		return;
	}
	program_run(&ended, "",
		    ARGV("gdb", "-nx", "-batch", "-ex", "break everyone", "-ex",
			 "run", GDB_COMMANDS));
	if (strstr(ended.err, "ptrace")) {
		printf("skipped: gdb may not trace\n");
		return;
	}
	expect_fibers(&ended);
}
END_TEST

START_TEST(gdb_lists_fibers_of_core_files)
{
	static struct ended ended;
	char command[4200];
	if (!have("gdb")) {
		printf("skipped: gdb is not here\n");
		return;
	}
	snprintf(command, sizeof(command),
		 "here=$PWD && cd %s && ulimit -c unlimited && %s dies; "
		 "cd $here && mv %s/core* %s/dump",
		 scratch(), peer(), scratch(), scratch());
	program_run(&ended, "", ARGV("sh", "-c", command));
	if (ended.status != 0) {
		printf("skipped: there are no core files here\n");
		return;
	}
	if (getenv("SS_EMULATED")) {
		printf("skipped: gdb does not find its way in qemu's cores\n");
		return;
	}
	snprintf(command, sizeof(command), "%s/dump", scratch());
	program_run(&ended, "",
		    ARGV("gdb", "-nx", "-batch", GDB_COMMANDS, command));
#ifndef __GLIBC__
	printf("skipped: abort(3) may have no unwind tables here\n");
	return;
#endif
	expect_fibers(&ended);
}
END_TEST
#endif

/* ---- suites ---------------------------------------------------------------*/

static void add_options(Suite *suite)
{
	TCase *tcase = suite_case(suite, "options", set_up, tear_down);
	tcase_add_loop_test(tcase, options_are_refused, 0, REFUSALS);
	tcase_add_test(tcase, one_loop_is_refused_more);
}

static void add_handle_request(Suite *suite)
{
	TCase *tcase = suite_case(suite, "handle_request", set_up, tear_down);
	tcase_add_loop_test(tcase, handle_request_serves_one_to_its_end, 0, 2);
	tcase_add_loop_test(tcase, handle_request_ends_by_shutdown, 0, 2);
}

static void add_stacks(Suite *suite)
{
	TCase *tcase = suite_case(suite, "stacks", set_up, tear_down);
	tcase_add_loop_test(tcase, stacks_are_for_who_needs_one, 0, NEEDS);
	tcase_add_test(tcase, slabs_go_back_after_a_storm);
	tcase_add_test(tcase, without_a_stack_clients_wait);
	tcase_add_test(tcase, without_a_timer_nobody_sleeps);
	tcase_add_test(tcase, without_a_stack_the_end_is_told);
	tcase_add_loop_test(tcase, who_cannot_be_taken_is_refused_alone, 0, 2);
}

static void add_turns(Suite *suite)
{
	TCase *tcase = suite_case(suite, "turns", set_up, tear_down);
	tcase_add_test(tcase, handlers_wait_beside_one_another);
	tcase_add_test(tcase, a_round_goes_on_beside_who_waits);
#ifndef NDEBUG
	tcase_add_loop_test(tcase, who_keeps_the_loop_is_named, 0, 2);
#endif
	tcase_add_loop_test(tcase, who_need_not_wait_lets_others_run, 0, 2);
	tcase_add_test(tcase, several_wait_for_one_descriptor);
#ifdef SS_LINUX
	tcase_add_test(tcase, who_cannot_share_a_descriptor_is_told);
	tcase_add_loop_test(tcase, who_cannot_be_watched_is_told, 0, 2);
#endif
	tcase_add_loop_test(tcase, who_cannot_be_woken_in_time_is_told, 0, 2);
	tcase_add_loop_test(tcase, who_has_no_fiber_yet_cannot_wait, 0, 2);
	tcase_add_test(tcase, requests_without_a_source_wait_for_the_time);
	tcase_add_loop_test(tcase, loops_without_threads_are_refused, 1, 3);
	tcase_add_test(tcase, sleepers_wake_in_turn);
	tcase_add_test(tcase, loops_share_evenly_and_keep_theirs);
	tcase_add_test(tcase, loops_that_clients_left_get_the_next);
	tcase_add_loop_test(tcase, servers_of_one_thread_serve_one_another, 0,
			    2);
}

static void add_offload(Suite *suite)
{
	TCase *tcase = suite_case(suite, "offload", set_up, tear_down);
	tcase_add_loop_test(tcase, offload_keeps_the_loop_free, 0, 2);
	tcase_add_loop_test(tcase, offload_without_threads_calls, 0, 2);
	tcase_add_loop_test(tcase, offload_ends_before_its_request, 0, 2);
}

static void add_overflow(Suite *suite)
{
	TCase *tcase = suite_case(suite, "overflow", set_up, tear_down);
	tcase_add_loop_test(tcase, overflow_is_named_and_kills, 0, NAMED);
	tcase_add_loop_test(tcase, overflow_kills_unnamed_where_nobody_asked, 0,
			    2);
	tcase_add_test(tcase, overflow_is_named_in_workers);
	tcase_add_loop_test(tcase, faults_go_to_who_had_them, 0,
			    FAILING * FAULTS);
	tcase_add_loop_test(tcase, a_signal_that_was_ignored_stays_so, 0, 2);
	tcase_add_test(tcase, the_signal_is_had_while_servers_live);
	tcase_add_test(tcase, the_signal_is_left_to_who_took_it);
	tcase_add_test(tcase, a_signal_that_cannot_be_had_is_told);
	tcase_add_test(tcase,
		       a_stack_for_the_signal_that_cannot_be_had_is_told);
	tcase_add_loop_test(tcase, the_thread_is_given_back, 0, 4);
}

#ifdef WITH_GDB
static void add_debugger(Suite *suite)
{
	TCase *tcase = suite_case(suite, "debugger", set_up, tear_down);
	tcase_add_test(tcase, gdb_lists_fibers);
	tcase_add_test(tcase, gdb_lists_fibers_of_core_files);
}
#endif

Suite *t_fiber(void)
{
	Suite *suite = suite_create("t_fiber");
	add_options(suite);
	add_handle_request(suite);
	add_stacks(suite);
	add_turns(suite);
	add_offload(suite);
	add_overflow(suite);
#ifdef WITH_GDB
	add_debugger(suite);
#endif
	return suite;
}
