/*
 * The pool: how many threads it has and when, what waits for them, in which
 * order, and how that ends.  What it has in common with all models the other
 * suites test.
 */
#include "support.h"

#include <limits.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <signal.h>

enum { TCP, UDP, UNIX, UNIXGRAM };
enum { QUIET_MS = 50 };

/* ---- what is served -------------------------------------------------------*/

static sem_t release;	    /* one who holds goes on */
static atomic_int begun;    /* requests whose setup has run */
static atomic_int held;	    /* requests that wait for `release` */
static atomic_int canceled; /* requests that ended with -ECANCELED */
static struct tape *tape;

static int begin_setup(struct ss_request *req)
{
	(void)req;
	atomic_fetch_add(&begun, 1);
	return 0;
}

/* A line comes back; before "hold" does, its thread is blocked. */
static int obey(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	if (!strcmp(line, "hold\n")) {
		atomic_fetch_add(&held, 1);
		while (sem_wait(&release) == -1 && errno == EINTR)
			;
	}
	tape_note(tape, "%.*s", (int)n - 1, line);
	n = ss_write(req, line, (size_t)n);
	return n < 0 ? (int)n : ss_request_dgram(req) ? 0 : SS_AGAIN;
}

static const struct ss_handler obedient = {
	.name = "obey",
	.setup = begin_setup,
	.handle = obey,
};

static void end_end_request(struct ss_server *server, struct ss_request *req,
			    int status);

static const struct ss_layer ender = {
	.name = "ender",
	.ops = { .end_request = end_end_request },
};

static void end_end_request(struct ss_server *server, struct ss_request *req,
			    int status)
{
	if (status == -ECANCELED)
		atomic_fetch_add(&canceled, 1);
	ss_super(server, &ender)->end_request(server, req, status);
}

static struct sys_table real;

static void set_up(void)
{
	real = sys_table;
	sem_init(&release, 0, 0);
	tape = tape_new();
}

static void tear_down(void)
{
	sys_table = real;
}

static struct ss_config pool_of(int transport,
				const struct ss_pool_options *options)
{
	struct ss_config config = {
		.addresses = { fresh_address(&transports[transport]) },
		.transport = transports[transport].layer,
		.mixins = { { &ender, NULL }, { &ss_pool_mixin, options } },
		.handler = &obedient,
		.log_level = SS_NONE,
	};
	return config;
}

static void say(int fd, const char *word)
{
	char line[64];
	snprintf(line, sizeof(line), "%s\n", word);
	send_text(fd, line);
}

static int client(const struct served *served, const char *word)
{
	int fd = dial(served->url);
	if (word)
		say(fd, word);
	return fd;
}

static void expect_silence(int fd)
{
	char byte;
	ck_assert_int_eq(recv_within(fd, &byte, 1, QUIET_MS), -EAGAIN);
}

static struct ss_stats stats_of(struct ss_server *server)
{
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	return stats;
}

/* Clients that keep all threads busy. */
static void occupy(const struct served *served, int *fds, int count)
{
	for (int i = 0; i < count; i++) {
		fds[i] = client(served, "hold");
		eventually(atomic_load(&held) == i + 1);
	}
}

static void let_go(int count)
{
	for (int i = 0; i < count; i++)
		sem_post(&release);
}

static void close_all(const int *fds, int count)
{
	for (int i = 0; i < count; i++)
		close(fds[i]);
}

/* ---- its threads ----------------------------------------------------------*/

/* One that was joined may be listed for a moment more. */
static void expect_threads(int count)
{
	eventually(threads() == count);
	pause_ms(5);
	ck_assert_int_eq(threads(), count);
}

START_TEST(pool_has_its_threads_from_activation_to_close)
{
	enum { THREADS = 5, REQUESTS = 1000 };
	static const struct ss_pool_options options = { .threads = THREADS };
	struct ss_config config = pool_of(_i, &options);
	config.no_bind = true;
	int before = threads();
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_bind(server, NULL), 0);
	ck_assert_int_eq(threads(), before);
	ck_assert_int_eq(ss_server_activate(server, NULL), 0);
	ck_assert_int_eq(threads(), before + THREADS);
	char url[SS_ADDRESS_TEXT];
	ss_server_url(server, 0, url, sizeof(url));
	for (int i = 0; i < REQUESTS; i++) {
		int fd = dial(url);
		say(fd, "x");
		ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
		expect_text(fd, "x\n");
		close(fd);
	}
	ck_assert_int_eq(threads(), before + THREADS);
	ck_assert_int_eq(ss_server_close(server), 0);
	expect_threads(before);
	ck_assert_int_eq(stats_of(server).ended, REQUESTS);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static int no_more; /* calls of pthread_create until one fails; 0: none */

static int failing_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*run)(void *), void *arg)
{
	if (no_more && --no_more == 0)
		return EAGAIN;
	return real.pthread_create(thread, attr, run, arg);
}

START_TEST(pool_that_lacks_a_thread_is_refused)
{
	enum { THREADS = 4 };
	static const struct ss_pool_options options = { .threads = THREADS };
	struct ss_config config = pool_of(TCP, &options);
	int before = threads(), descriptors = open_descriptors();
	sys_table.pthread_create = failing_create;
	for (int i = 1; i <= THREADS; i++) {
		char part[64];
		snprintf(part, sizeof(part), "thread %d of the pool's %d", i,
			 THREADS);
		no_more = i;
		refused(&config, -EAGAIN, part);
		expect_threads(before);
	}
	ck_assert_int_eq(open_descriptors(), descriptors);
}
END_TEST

START_TEST(pool_that_lacked_a_thread_may_be_activated_again)
{
	static const struct ss_pool_options options = { .threads = 4 };
	struct ss_config config = pool_of(TCP, &options);
	config.no_bind = true;
	int before = threads();
	sys_table.pthread_create = failing_create;
	struct ss_diag why;
	struct served served = { .server = made(&config) };
	ck_assert_int_eq(ss_server_bind(served.server, NULL), 0);
	no_more = 3;
	ck_assert_int_eq(ss_server_activate(served.server, &why), -EAGAIN);
	ck_assert_ptr_nonnull(strstr(why.text, "thread 3 of the pool's 4"));
	expect_threads(before);
	ck_assert_int_eq(ss_server_activate(served.server, &why), 0);
	ck_assert_int_eq(threads(), before + 4);
	ss_server_url(served.server, 0, served.url, sizeof(served.url));
	int fd = client(&served, "x");
	ck_assert_int_eq(ss_server_turn(served.server, SS_NONE), 1);
	expect_text(fd, "x\n");
	close(fd);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	expect_threads(before);
}
END_TEST

static int faked_processors;

static int fake_processors(void)
{
	return faked_processors;
}

static int threads_of(const struct ss_pool_options *options)
{
	struct ss_config config = pool_of(TCP, options);
	int before = threads();
	struct ss_server *server = made(&config);
	int count = threads() - before;
	ck_assert_int_eq(ss_server_free(server), 0);
	expect_threads(before);
	return count;
}

START_TEST(pool_has_four_threads_a_processor_but_eight_at_least)
{
	sys_table.processors = fake_processors;
	faked_processors = 1;
	ck_assert_int_eq(threads_of(NULL), 8);
	faked_processors = 5;
	ck_assert_int_eq(threads_of(NULL), 20);
	ck_assert_int_eq(threads_of(&(struct ss_pool_options){ 0 }), 20);
	ck_assert_int_eq(threads_of(&(struct ss_pool_options){ 1, 0, 0 }), 1);
}
END_TEST

START_TEST(pool_counts_the_processors_that_it_may_use)
{
	int n = sys_do_processors();
	ck_assert_int_ge(n, 1);
	ck_assert_int_le(n, (int)sysconf(_SC_NPROCESSORS_CONF));
#ifdef SS_LINUX
	cpu_set_t all, one;
	CPU_ZERO(&one);
	ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	for (int i = 0; CPU_COUNT(&one) == 0; i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	ck_assert_int_eq(sys_do_processors(), 1);
#endif
}
END_TEST

START_TEST(pool_refuses_impossible_options)
{
	static const struct {
		struct ss_pool_options options;
		const char *why;
	} wrong[] = {
		{ { .threads = -1 }, "the pool's threads is -1" },
		{ { .ahead = -2 }, "the pool's ahead is -2" },
		{ { .stack_size = 1 }, "thread 1 of the pool's" },
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct ss_config config = pool_of(TCP, &wrong[i].options);
		refused(&config, -EINVAL, wrong[i].why);
	}
}
END_TEST

/* Any number, which with the threads is more than there are numbers for. */
START_TEST(pool_may_have_any_number_ahead)
{
	static const struct ss_pool_options endless = { .threads = 2,
							.ahead = INT_MAX };
	struct ss_config config = pool_of(TCP, &endless);
	struct served served;
	served_start(&served, &config);
	echo_once(served.url, "x\n");
	served_stop(&served);
}
END_TEST

enum { STACK = 512 * 1024 };

static int tell_thread(struct ss_request *req)
{
	sigset_t set;
	pthread_attr_t attr;
	size_t size = 0;
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	for (int signal = 1; signal < 32; signal++)
		if (signal != SIGKILL && signal != SIGSTOP &&
		    sigismember(&set, signal) != 1)
			return ss_fail(req, -EPROTO, "signal %d", signal);
	pthread_getattr_np(pthread_self(), &attr);
	pthread_attr_getstacksize(&attr, &size);
	pthread_attr_destroy(&attr);
	/* Sanitizers add some of their own. */
	if (size < STACK || size >= 4 * (size_t)STACK)
		return ss_fail(req, -EPROTO, "a stack of %zu", size);
	return (int)ss_write(req, "ok", 2);
}

START_TEST(pool_threads_block_signals_and_have_their_stack)
{
	static const struct ss_pool_options options = { .stack_size = STACK };
	static const struct ss_handler telling = { .handle = tell_thread };
	struct ss_config config = pool_of(TCP, &options);
	config.handler = &telling;
	struct served served;
	served_start(&served, &config);
	int fd = client(&served, NULL);
	expect_text(fd, "ok");
	close(fd);
	served_stop(&served);
}
END_TEST

/* ---- places ---------------------------------------------------------------*/

/* As many as it has threads are served at once, and the next one waits: in the
 * kernel, or in the pool; whatever max_active says beyond that. */
START_TEST(pool_serves_so_many_at_once)
{
	enum { THREADS = 3 };
	static const struct ss_pool_options each[] = {
		{ .threads = THREADS, .ahead = SS_NONE },
		{ .threads = THREADS, .ahead = 1 },
		{ .threads = THREADS, .ahead = 2 },
		{ .threads = THREADS },
	};
	static const int aheads[] = { 0, 1, 2, THREADS };
	int ahead = aheads[_i % 4];
	struct ss_config config = pool_of(TCP, &each[_i % 4]);
	config.max_active = _i / 4 ? 100 : 0;
	struct served served;
	served_start(&served, &config);
	int fds[THREADS], more[THREADS + 1];
	occupy(&served, fds, THREADS);
	for (int i = 0; i <= THREADS; i++)
		more[i] = client(&served, "x");
	unsigned inside = (unsigned)(THREADS + ahead);
	eventually(stats_of(served.server).active == inside);
	for (int i = 0; i <= THREADS; i++)
		expect_silence(more[i]);
	ck_assert_int_eq(atomic_load(&begun), THREADS);
	ck_assert_uint_eq(stats_of(served.server).accepted, inside);
	ck_assert_uint_eq(stats_of(served.server).queued, 0);
	/* Between messages a client keeps its thread; one thread is enough for
	 * all who do not stay. */
	let_go(THREADS);
	for (int i = 0; i < THREADS; i++)
		expect_text(fds[i], "hold\n");
	expect_silence(more[0]);
	close(fds[0]);
	for (int i = 0; i <= THREADS; i++) {
		expect_text(more[i], "x\n");
		close(more[i]);
	}
	close_all(fds + 1, THREADS - 1);
	served_stop(&served);
}
END_TEST

START_TEST(pool_has_as_few_places_as_max_active_says)
{
	static const struct ss_pool_options options = { .threads = 4 };
	struct ss_config config = pool_of(TCP, &options);
	config.max_active = 2;
	struct served served;
	served_start(&served, &config);
	int fds[2];
	occupy(&served, fds, 2);
	int more = client(&served, "x");
	expect_silence(more);
	ck_assert_uint_eq(stats_of(served.server).accepted, 2);
	let_go(2);
	close(fds[0]);
	expect_text(more, "x\n");
	close(more);
	close(fds[1]);
	served_stop(&served);
}
END_TEST

/* Silent clients have all threads; those who come are accepted nevertheless,
 * and none of them hurts the loop. */
START_TEST(pool_queues_beyond_its_places)
{
	enum { THREADS = 2, QUEUE = 3, ALL = THREADS + 1 + QUEUE };
	static const struct ss_pool_options options = { .threads = THREADS,
							.ahead = 1 };
	struct ss_config config = pool_of(TCP, &options);
	config.full = SS_FULL_QUEUE;
	config.queue_size = QUEUE;
	struct served served;
	served_start(&served, &config);
	int fds[ALL + 1];
	for (int i = 0; i <= ALL; i++)
		fds[i] = client(&served, NULL);
	eventually(stats_of(served.server).queued == QUEUE);
	ck_assert_uint_eq(stats_of(served.server).active, THREADS + 1);
	ck_assert_uint_eq(stats_of(served.server).accepted, ALL);
	eventually(atomic_load(&begun) == THREADS);
	/* Each that leaves lets one in. */
	for (int i = 0; i <= ALL; i++) {
		say(fds[i], "x");
		expect_text(fds[i], "x\n");
		close(fds[i]);
	}
	eventually(stats_of(served.server).ended == ALL + 1);
	served_stop(&served);
}
END_TEST

START_TEST(pool_refuses_beyond_its_places)
{
	enum { THREADS = 2, AHEAD = 1, ALL = THREADS + AHEAD };
	static const struct ss_pool_options options = { .threads = THREADS,
							.ahead = AHEAD };
	struct ss_config config = pool_of(TCP, &options);
	config.full = SS_FULL_REFUSE;
	config.refusal = "busy\n";
	struct served served;
	served_start(&served, &config);
	int fds[ALL];
	for (int i = 0; i < ALL; i++)
		fds[i] = client(&served, NULL);
	int more = client(&served, NULL);
	expect_text(more, "busy\n");
	expect_end(more);
	close(more);
	ck_assert_uint_eq(stats_of(served.server).refused[SS_REFUSED_FULL], 1);
	for (int i = 0; i < ALL; i++) {
		say(fds[i], "x");
		expect_text(fds[i], "x\n");
		close(fds[i]);
	}
	served_stop(&served);
}
END_TEST

#ifdef SS_LINUX
static atomic_int waits;

static int counted_epoll_wait(int epfd, struct epoll_event *events, int n,
			      int ms)
{
	atomic_fetch_add(&waits, 1);
	return epoll_wait(epfd, events, n, ms);
}

/* The loop is woken to fill the list up again, not for each that leaves it. */
START_TEST(pool_does_not_wake_the_loop_for_each)
{
	enum { AHEAD = 9, BEYOND = 20, ALL = 1 + AHEAD + BEYOND };
	static const struct ss_pool_options options = { .threads = 1,
							.ahead = AHEAD };
	sys_table.epoll_wait = counted_epoll_wait;
	struct ss_config config = pool_of(TCP, &options);
	struct served served;
	served_start(&served, &config);
	int fds[ALL];
	for (int i = 0; i < ALL; i++)
		fds[i] = client(&served, NULL);
	eventually(stats_of(served.server).active == 1 + AHEAD);
	int before = atomic_load(&waits);
	for (int i = 0; i < ALL; i++) {
		say(fds[i], "x");
		expect_text(fds[i], "x\n");
		close(fds[i]);
		eventually(stats_of(served.server).ended == (unsigned)i + 1);
		pause_ms(1);
	}
	/* Half of the list at a time; one wait more to find that all are in. */
	int woken = atomic_load(&waits) - before;
	ck_assert_msg(woken >= 2 && woken <= BEYOND / 5 + 4, "%d waits", woken);
	served_stop(&served);
}
END_TEST
#endif

/* ---- order ----------------------------------------------------------------*/

static void expect_numbers(int count)
{
	tape_wait(tape, count);
	for (int i = 0; i < count; i++) {
		char number[16];
		snprintf(number, sizeof(number), "%d", i);
		ck_assert_str_eq(tape->line[i].text, number);
	}
}

/* So few at a time that no receive buffer overflows. */
START_TEST(pool_of_one_keeps_datagrams_in_order)
{
	enum { BURSTS = 20, EACH = 50 };
	static const struct ss_pool_options options[] = {
		{ .threads = 1 },
		{ .threads = 1, .ahead = 7 },
		{ .threads = 1, .ahead = SS_NONE },
	};
	struct ss_config config =
		pool_of(_i % 2 ? UNIXGRAM : UDP, &options[_i / 2]);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	for (int i = 0; i < BURSTS; i++) {
		for (int k = 0; k < EACH; k++) {
			char number[16];
			snprintf(number, sizeof(number), "%d", i * EACH + k);
			say(fd, number);
		}
		for (int k = 0; k < EACH; k++) {
			char line[16], expected[16];
			ssize_t n = recv_within(fd, line, sizeof(line) - 1,
						WAIT_MS);
			ck_assert_int_gt(n, 0);
			line[n] = '\0';
			snprintf(expected, sizeof(expected), "%d\n",
				 i * EACH + k);
			ck_assert_str_eq(line, expected);
		}
	}
	expect_numbers(BURSTS * EACH);
	close(fd);
	served_stop(&served);
}
END_TEST

/* In the pool, in the queue, in the kernel: first come, first served. */
START_TEST(pool_serves_clients_in_their_order)
{
	enum { CLIENTS = 12 };
	static const struct ss_pool_options options = { .threads = 1,
							.ahead = 3 };
	struct ss_config config = pool_of(TCP, &options);
	config.full = _i ? SS_FULL_QUEUE : SS_FULL_WAIT;
	config.queue_size = 3;
	struct served served;
	served_start(&served, &config);
	int first, fds[CLIENTS];
	occupy(&served, &first, 1);
	for (int i = 0; i < CLIENTS; i++) {
		char number[16];
		snprintf(number, sizeof(number), "%d", i);
		fds[i] = client(&served, number);
		shutdown(fds[i], SHUT_WR);
	}
	close(first);
	let_go(1);
	tape_wait(tape, CLIENTS + 1);
	for (int i = 0; i < CLIENTS; i++) {
		char number[16];
		snprintf(number, sizeof(number), "%d", i);
		ck_assert_str_eq(tape->line[i + 1].text, number);
		close(fds[i]);
	}
	served_stop(&served);
}
END_TEST

/* ---- cancelling -----------------------------------------------------------*/

struct found {
	uint64_t id[8];
	int count;
};

static int find(void *arg, const struct ss_snapshot *snapshot)
{
	struct found *found = arg;
	if (found->count < 8)
		found->id[found->count++] = snapshot->id;
	return 0;
}

static struct found look(struct ss_server *server)
{
	struct found found = { 0 };
	ss_each(server, find, &found);
	return found;
}

/* Its client sees the end though all threads are busy, and no handler sees the
 * request. */
START_TEST(cancelled_while_it_waits_is_not_served)
{
	static const struct ss_pool_options options = { .threads = 1,
							.ahead = 3 };
	struct ss_config config = pool_of(_i ? UNIX : TCP, &options);
	struct served served;
	served_start(&served, &config);
	int first, fds[3];
	occupy(&served, &first, 1);
	for (int i = 0; i < 3; i++) {
		fds[i] = client(&served, "x");
		eventually(look(served.server).count == i + 2);
	}
	uint64_t id = look(served.server).id[2];
	ck_assert_int_eq(ss_cancel(served.server, id), 0);
	char byte;
	ssize_t n = recv_within(fds[1], &byte, 1, WAIT_MS);
	ck_assert_msg(n == 0 || n == -ECONNRESET, "%zd", n);
	eventually(ss_cancel(served.server, id) == -ENOENT);
	ck_assert_int_eq(atomic_load(&canceled), 1);
	ck_assert_int_eq(atomic_load(&held), 1);
	ck_assert_uint_eq(stats_of(served.server).refused[SS_REFUSED_FULL], 1);
	ck_assert_uint_eq(stats_of(served.server).active, 3);
	let_go(1);
	close(first);
	expect_text(fds[0], "x\n");
	close(fds[0]);
	expect_text(fds[2], "x\n");
	ck_assert_int_eq(atomic_load(&begun), 3);
	close_all(fds + 1, 2);
	served_stop(&served);
}
END_TEST

/* Nobody is in the loop: the thread that comes to it turns it away. */
START_TEST(cancelled_between_loops_is_not_served)
{
	static const struct ss_pool_options options = { .threads = 1 };
	struct ss_config config = pool_of(TCP, &options);
	struct served served;
	served_start(&served, &config);
	int first, second;
	occupy(&served, &first, 1);
	second = client(&served, "x");
	eventually(look(served.server).count == 2);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(ss_cancel(served.server, look(served.server).id[1]),
			 0);
	pause_ms(20);
	ck_assert_int_eq(look(served.server).count, 2);
	close(first);
	let_go(1);
	eventually(look(served.server).count == 0);
	ck_assert_int_eq(atomic_load(&canceled), 1);
	ck_assert_int_eq(atomic_load(&begun), 1);
	close(second);
	ck_assert_int_eq(ss_server_free(served.server), 0);
}
END_TEST

/* ---- the end --------------------------------------------------------------*/

enum { BUSY = 2, LISTED = 2 };
static const struct ss_pool_options brimful = { .threads = BUSY,
						.ahead = LISTED };

/* All threads busy as `word` says, the list full, the loop at its end. */
static void fill(struct served *served, int drain_ms, const char *word,
		 int *fds)
{
	struct ss_config config = pool_of(TCP, &brimful);
	config.drain_ms = drain_ms;
	served_start(served, &config);
	for (int i = 0; i < BUSY + LISTED; i++)
		fds[i] = client(served, word && i < BUSY ? word : NULL);
	eventually(stats_of(served->server).active == BUSY + LISTED);
	eventually(atomic_load(&begun) == BUSY);
	if (word)
		eventually(atomic_load(&held) == BUSY);
	ss_shutdown(served->server);
	pthread_join(served->thread, NULL);
}

static void expect_ends(const int *fds, int count)
{
	for (int i = 0; i < count; i++) {
		char byte;
		ssize_t n = recv_within(fds[i], &byte, 1, WAIT_MS);
		ck_assert_msg(n == 0 || n == -ECONNRESET, "%zd", n);
	}
}

/* Silent clients have the threads until the drain deadline; those in the list,
 * who have no time left to speak, are turned away. */
START_TEST(close_of_a_full_pool_keeps_to_the_drain_deadline)
{
	enum { DRAIN_MS = 60 };
	int fds[BUSY + LISTED], before = threads();
	struct served served;
	fill(&served, DRAIN_MS, NULL, fds);
	int64_t began = clock_ms();
	ck_assert_int_eq(ss_server_close(served.server), 0);
	ck_assert_int_ge(clock_ms() - began, DRAIN_MS - 30);
	ck_assert_int_lt(clock_ms() - began, SOON_MS);
	expect_threads(before);
	expect_ends(fds, BUSY + LISTED);
	ck_assert_int_eq(atomic_load(&begun), BUSY);
	ck_assert_int_eq(atomic_load(&canceled), LISTED);
	ck_assert_uint_eq(stats_of(served.server).ended, BUSY + LISTED);
	ck_assert_uint_eq(stats_of(served.server).refused[SS_REFUSED_FULL],
			  LISTED);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	close_all(fds, BUSY + LISTED);
}
END_TEST

static void *shut_down(void *server)
{
	pause_ms(50);
	ss_shutdown(server);
	return NULL;
}

/* The deadline is none, but somebody is in a hurry. */
START_TEST(close_of_a_full_pool_hurries)
{
	int fds[BUSY + LISTED];
	struct served served;
	fill(&served, SS_NONE, NULL, fds);
	int64_t began = clock_ms();
	pthread_create(&served.thread, NULL, shut_down, served.server);
	ck_assert_int_eq(ss_server_close(served.server), 0);
	ck_assert_int_lt(clock_ms() - began, SOON_MS);
	pthread_join(served.thread, NULL);
	expect_ends(fds, BUSY + LISTED);
	ck_assert_int_eq(atomic_load(&begun), BUSY);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	close_all(fds, BUSY + LISTED);
}
END_TEST

/* Threads that do not come back are abandoned; what waited for them is not. */
START_TEST(close_of_a_full_pool_abandons_its_threads_alone)
{
	int fds[BUSY + LISTED], before = threads();
	struct served served;
	fill(&served, 20, "hold", fds);
	ck_assert_int_eq(ss_server_close(served.server), BUSY);
	ck_assert_int_eq(ss_server_close(served.server), BUSY);
	ck_assert_int_eq(ss_server_free(served.server), -EBUSY);
	expect_ends(fds + BUSY, LISTED);
	ck_assert_uint_eq(stats_of(served.server).ended, LISTED);
	let_go(BUSY);
	int r;
	int64_t until = clock_ms() + WAIT_MS;
	while ((r = ss_server_free(served.server)) == -EBUSY &&
	       clock_ms() < until)
		pause_ms(2);
	ck_assert_int_eq(r, 0);
	expect_threads(before);
	close_all(fds, BUSY + LISTED);
}
END_TEST

/* Clients between messages make room at once for those in the list. */
START_TEST(close_serves_who_waits_behind_idle_clients)
{
	enum { ALL = BUSY + LISTED + 3 };
	struct ss_config config = pool_of(TCP, &brimful);
	struct served served;
	served_start(&served, &config);
	int fds[ALL];
	for (int i = 0; i < ALL; i++) {
		fds[i] = client(&served, "x");
		if (i < BUSY)
			expect_text(fds[i], "x\n");
	}
	eventually(stats_of(served.server).active == BUSY + LISTED);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	int64_t began = clock_ms();
	ck_assert_int_eq(ss_server_close(served.server), 0);
	ck_assert_int_lt(clock_ms() - began, SOON_MS);
	for (int i = BUSY; i < ALL; i++)
		expect_text(fds[i], "x\n");
	ck_assert_int_eq(atomic_load(&begun), ALL);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	close_all(fds, ALL);
}
END_TEST

/* ---- all at once ----------------------------------------------------------*/

enum { TALKERS = 5, TALKS = 150 };

struct talker {
	struct served *served;
	pthread_t thread;
	unsigned seed;
};

/* Most talk; some leave before, some are cancelled. */
static void *talk(void *arg)
{
	struct talker *talker = arg;
	struct served *served = talker->served;
	for (int i = 0; i < TALKS; i++) {
		int fate = rand_r(&talker->seed) % 8, fd = dial(served->url);
		struct linger reset = { .l_onoff = 1 };
		if (fate == 0)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset,
				   sizeof(reset));
		if (fate > 1)
			send(fd, "x\n", 2, MSG_NOSIGNAL);
		struct found found = { 0 };
		if (fate == 2)
			ss_each(served->server, find, &found);
		if (found.count)
			ss_cancel(served->server, found.id[found.count - 1]);
		char bytes[4];
		if (fate > 1)
			recv_within(fd, bytes, sizeof(bytes), WAIT_MS);
		close(fd);
	}
	return NULL;
}

/* With few places, so that threads sleep and lists are full in turn. */
START_TEST(pool_under_stress)
{
	static const struct ss_pool_options options[] = {
		{ .threads = 2, .ahead = SS_NONE },
		{ .threads = 2, .ahead = 2 },
		{ .threads = 8 },
	};
	struct ss_config config = pool_of(TCP, &options[_i % 3]);
	config.full = (enum ss_full)(_i / 3);
	config.queue_size = 2;
	struct served served;
	struct talker talkers[TALKERS];
	served_start(&served, &config);
	for (int i = 0; i < TALKERS; i++) {
		talkers[i] = (struct talker){ .served = &served,
					      .seed = (unsigned)i };
		pthread_create(&talkers[i].thread, NULL, talk, &talkers[i]);
	}
	for (int i = 0; i < TALKERS; i++)
		pthread_join(talkers[i].thread, NULL);
	int fd = client(&served, "last");
	if (config.full != SS_FULL_REFUSE)
		expect_text(fd, "last\n");
	close(fd);
	eventually(stats_of(served.server).ended ==
		   stats_of(served.server).accepted);
	struct ss_stats stats = stats_of(served.server);
	ck_assert_uint_eq(stats.active, 0);
	ck_assert_uint_eq(stats.queued, 0);
	served_stop(&served);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_threads(Suite *suite)
{
	TCase *tcase = suite_case(suite, "threads", set_up, tear_down);
	tcase_add_loop_test(tcase,
			    pool_has_its_threads_from_activation_to_close, 0,
			    transport_count);
	tcase_add_test(tcase, pool_that_lacks_a_thread_is_refused);
	tcase_add_test(tcase, pool_that_lacked_a_thread_may_be_activated_again);
	tcase_add_test(tcase,
		       pool_has_four_threads_a_processor_but_eight_at_least);
	tcase_add_test(tcase, pool_counts_the_processors_that_it_may_use);
	tcase_add_test(tcase, pool_refuses_impossible_options);
	tcase_add_test(tcase, pool_may_have_any_number_ahead);
	tcase_add_test(tcase, pool_threads_block_signals_and_have_their_stack);
}

static void add_places(Suite *suite)
{
	TCase *tcase = suite_case(suite, "places", set_up, tear_down);
	tcase_add_loop_test(tcase, pool_serves_so_many_at_once, 0, 8);
	tcase_add_test(tcase, pool_has_as_few_places_as_max_active_says);
	tcase_add_test(tcase, pool_queues_beyond_its_places);
	tcase_add_test(tcase, pool_refuses_beyond_its_places);
#ifdef SS_LINUX
	tcase_add_test(tcase, pool_does_not_wake_the_loop_for_each);
#endif
	tcase = suite_case(suite, "order", set_up, tear_down);
	tcase_add_loop_test(tcase, pool_of_one_keeps_datagrams_in_order, 0, 6);
	tcase_add_loop_test(tcase, pool_serves_clients_in_their_order, 0, 2);
}

static void add_ends(Suite *suite)
{
	TCase *tcase = suite_case(suite, "cancel", set_up, tear_down);
	tcase_add_loop_test(tcase, cancelled_while_it_waits_is_not_served, 0,
			    2);
	tcase_add_test(tcase, cancelled_between_loops_is_not_served);
	tcase = suite_case(suite, "close", set_up, tear_down);
	tcase_add_test(tcase, close_of_a_full_pool_keeps_to_the_drain_deadline);
	tcase_add_test(tcase, close_of_a_full_pool_hurries);
	tcase_add_test(tcase, close_of_a_full_pool_abandons_its_threads_alone);
	tcase_add_test(tcase, close_serves_who_waits_behind_idle_clients);
	tcase = suite_case(suite, "stress", set_up, tear_down);
	tcase_add_loop_test(tcase, pool_under_stress, 0, 9);
}

Suite *t_pool(void)
{
	begin_threads();
	Suite *suite = suite_create("t_pool");
	add_threads(suite);
	add_places(suite);
	add_ends(suite);
	return suite;
}
