/*
 * Limits: how many come in from one place, and how fast, in every process; and
 * that what was counted is given back, whoever died with it.
 */
#include "guards.h"

#include <signal.h>
#include <sys/wait.h>

#include "faults.h"
#include "handlers.h"
#include "mixin/sources.h"
#include "user_layers.h"

Suite *t_limits(void);

/* ---- what there was at the end --------------------------------------------*/

static struct ss_limits_stats *last; /* in shared memory */

/* Leftmost: it ends before the others. */
static void note_stats(struct ss_server *server)
{
	ss_limits_get(server, last);
}

static const struct ss_layer noting = { .name = "noting", .fini = note_stats };

static void begin(void)
{
	tally_begin();
	pretended = NULL;
	last = ss_shared_alloc(sizeof(*last));
	last->active = 99;
}

static void use_limits(struct ss_config *config,
		       const struct ss_limits_options *options)
{
	use_first(config, &ss_limits_mixin, options);
	use_first(config, &pretend_layer, NULL);
	use_first(config, &tally_layer, NULL);
	use_first(config, &noting, NULL);
}

static struct ss_limits_stats stats_of(struct ss_server *server)
{
	struct ss_limits_stats stats;
	ck_assert_int_eq(ss_limits_get(server, &stats), 0);
	return stats;
}

/* ---- a clock of our own ---------------------------------------------------*/

static atomic_llong clock_at;

static int64_t our_now(struct ss_server *server)
{
	(void)server;
	return atomic_load(&clock_at);
}

static const struct ss_layer our_clock = { .name = "clock",
					   .ops = { .now = our_now } };

static struct ss_server *in_memory(const struct ss_limits_options *options)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler };
	atomic_store(&clock_at, 0);
	use_limits(&config, options);
	use_first(&config, &our_clock, NULL);
	return made(&config);
}

static void dispose(struct ss_server *server)
{
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_uint_eq(last->active, 0);
	tally_even(SS_NONE);
}

static const struct ss_limits_options two_a_second = { .rate = 2 };
static const struct ss_limits_options burst_of_three = { .rate = 1,
							 .burst = 3,
							 .per_ms = 100 };
static const struct ss_limits_options each_one = { .source_rate = 1 };
static const struct ss_limits_options each_and_all = { .rate = 3,
						       .source_rate = 2 };
static const struct ss_limits_options each_slash_24 = { .source_rate = 1,
							.ipv4_prefix = 24 };
static const struct ss_limits_options one_of_each_family = {
	.source_rate = 1, .ipv4_prefix = SS_NONE, .ipv6_prefix = SS_NONE
};
/* More than one a nanosecond. */
static const struct ss_limits_options dense = { .rate = INT32_MAX,
						.burst = 2,
						.per_ms = 1 };
static const struct ss_limits_options rare = { .rate = 1,
					       .burst = INT32_MAX,
					       .per_ms = 86400000 };

#define A "192.0.2.1:1"
#define A2 "192.0.2.1:2"
#define B "192.0.2.2:1"
#define C "198.51.100.1:1"

static const struct {
	const struct ss_limits_options *options;
	struct {
		int64_t at;
		const char *peer;
		char outcome; /* y: served; r: rate; s: source_rate */
	} step[10];
} schedules[] = {
	{ &two_a_second,
	  { { 0, A, 'y' },
	    { 0, A, 'y' },
	    { 0, A, 'r' },
	    { 499, B, 'r' },
	    { 500, B, 'y' },
	    { 501, A, 'r' },
	    { 10000, A, 'y' },
	    { 10000, A, 'y' },
	    { 10000, A, 'r' } } },
	{ &burst_of_three,
	  { { 1000, A, 'y' },
	    { 1000, B, 'y' },
	    { 1000, C, 'y' },
	    { 1000, A, 'r' },
	    { 1099, A, 'r' },
	    { 1100, A, 'y' },
	    { 1199, A, 'r' },
	    { 1350, A, 'y' },
	    { 1350, A, 'y' },
	    { 1350, A, 'r' } } },
	{ &each_one,
	  { { 5, A, 'y' },
	    { 5, B, 'y' },
	    { 5, A2, 's' },
	    { 5, "[::ffff:192.0.2.1]:9", 's' },
	    { 1004, A, 's' },
	    { 1005, A, 'y' },
	    { 1005, B, 'y' },
	    { 1005, NULL, 'y' },
	    { 1005, NULL, 'y' },
	    { 1005, "unix:/x", 'y' } } },
	/* Who is refused takes nothing from the others. */
	{ &each_and_all,
	  { { 0, A, 'y' },
	    { 0, A, 'y' },
	    { 0, A, 's' },
	    { 0, A, 's' },
	    { 0, B, 'y' },
	    { 0, C, 'r' },
	    { 0, C, 'r' },
	    { 334, C, 'y' },
	    { 668, C, 'y' } } },
	{ &each_one,
	  { { 0, "[2001:db8::1]:1", 'y' },
	    { 0, "[2001:db8::ffff:2]:1", 's' },
	    { 0, "[2001:db8:0:1::1]:1", 'y' },
	    { 0, "[2001:db8:0:1:8000::]:1", 's' } } },
	{ &each_slash_24, { { 0, A, 'y' }, { 0, B, 's' }, { 0, C, 'y' } } },
	{ &one_of_each_family,
	  { { 0, A, 'y' },
	    { 0, C, 's' },
	    { 0, "[::1]:1", 'y' },
	    { 0, "[ffff::1]:1", 's' } } },
	{ &dense,
	  { { 0, A, 'y' },
	    { 0, A, 'y' },
	    { 0, A, 'r' },
	    { 1, B, 'y' },
	    { 1, B, 'y' },
	    { 1, B, 'r' } } },
	{ &rare,
	  { { 0, A, 'y' }, { 0, A, 'y' }, { 0, A, 'y' }, { 9, A, 'y' } } },
};
enum { SCHEDULES = sizeof(schedules) / sizeof(*schedules) };

START_TEST(tokens_come_back_in_time)
{
	struct ss_server *server = in_memory(schedules[_i].options);
	uint64_t n[3] = { 0 };
	for (int i = 0; i < 10 && schedules[_i].step[i].outcome; i++) {
		char outcome = schedules[_i].step[i].outcome;
		atomic_store(&clock_at, schedules[_i].step[i].at);
		pretended = schedules[_i].step[i].peer;
		ck_assert_msg(served_in_memory(server) == (outcome == 'y'),
			      "step %d", i);
		n[outcome == 'y' ? 0 : outcome == 'r' ? 1 : 2]++;
		struct ss_limits_stats stats = stats_of(server);
		ck_assert_uint_eq(stats.admitted, n[0]);
		ck_assert_uint_eq(stats.refused_rate, n[1]);
		ck_assert_uint_eq(stats.refused_source_rate, n[2]);
		ck_assert_uint_eq(stats.untracked, 0);
		ck_assert_uint_eq(stats.active, 0);
	}
	dispose(server);
}
END_TEST

/* ---- so many at a time ----------------------------------------------------*/

/* Tells who serves it, then echoes. */
static int tell_pid(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_printf(req, "%9ld\n", (long)getpid());
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler telling = { .name = "telling",
					   .handle = tell_pid };

/* A client who stays; who serves him, or 0: he was turned away. */
static int stay(const char *url, pid_t *pid)
{
	char text[11] = "";
	size_t got = 0;
	int fd = dial(url);
	send(fd, "x", 1, MSG_NOSIGNAL);
	while (got < 10) {
		ssize_t n = recv_within(fd, text + got, 10 - got, WAIT_MS);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	*pid = got == 10 ? (pid_t)atol(text) : 0;
	return fd;
}

static bool comes_in(const char *url)
{
	pid_t pid;
	close(stay(url, &pid));
	return pid != 0;
}

static const struct ss_limits_options two_at_a_time = { .max_per_source = 2 };

START_TEST(a_source_has_so_many_at_a_time)
{
	const struct model *model = &models[_i / 2];
	const struct transport *transport = &transports[_i % 2 * 2];
	int many = model->at_once == 1 ? 1 : 2;
	struct ss_limits_options options = { .max_per_source = many };
	struct ss_config config = config_of(model, transport, &telling);
	struct node node;
	pid_t pid[2];
	int fd[2];
	use_limits(&config, &options);
	node_start(&node, &config);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < many; i++) {
			eventually((fd[i] = stay(node.url, &pid[i]),
				    pid[i] || (close(fd[i]), false)));
		}
		if (model->at_once != 1) {
			ck_assert(!comes_in(node.url));
			ck_assert(!comes_in(node.url));
		}
		for (int i = 0; i < many; i++)
			close(fd[i]);
	}
	eventually(comes_in(node.url));
	ck_assert_int_eq(node_stop(&node), 0);
	tally_even(SS_NONE);
	ck_assert_uint_eq(last->active, 0);
	if (model->at_once != 1)
		ck_assert_uint_ge(last->refused_full, 4);
	ck_assert_uint_ge(last->admitted, 2 * (uint64_t)many + 1);
	ck_assert_uint_eq(last->sources, 1);
}
END_TEST

/* A child or a worker is killed with what it has. */
START_TEST(who_is_killed_leaves_nothing_counted)
{
	static const struct ss_prefork_options three = { .workers = 3,
							 .respawn_ms = 1 };
	const struct model *model = &models[_i];
	if (!model_supervised(model) && !model_has(model, &ss_forking_mixin))
		return;
	struct ss_config config = config_of(model, &transports[0], &telling);
	config.log_level = SS_NONE; /* of each who is killed */
	struct node node;
	use_options(&config, &ss_prefork_mixin, &three);
	use_limits(&config, &two_at_a_time);
	node_start(&node, &config);
	for (int round = 0; round < 3; round++) {
		pid_t pid[2];
		int fd[2];
		for (int i = 0; i < 2; i++)
			eventually((fd[i] = stay(node.url, &pid[i]),
				    pid[i] || (close(fd[i]), false)));
		ck_assert(!comes_in(node.url));
		for (int i = 0; i < 2; i++) {
			ck_assert_int_ne(pid[i], node.pid);
			kill(pid[i], SIGKILL);
		}
		for (int i = 0; i < 2; i++)
			close(fd[i]);
	}
	eventually(comes_in(node.url));
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_uint_eq(last->active, 0);
	ck_assert_uint_ge(last->refused_full, 3);
	if (model_has(model, &ss_forking_mixin))
		tally_even(SS_NONE);
}
END_TEST

/* Over all workers, since each alone would have let them in. */
START_TEST(workers_count_together)
{
	static const struct ss_prefork_options four = { .workers = 4 };
	static const struct ss_limits_options five = { .rate = 5,
						       .per_ms = 3600000 };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .mixins = { { &ss_prefork_mixin, &four } },
				    .handler = &telling };
	struct served served;
	use_limits(&config, &five);
	served_start(&served, &config);
	int in = 0;
	for (int i = 0; i < 40; i++)
		in += comes_in(served.url);
	ck_assert_int_eq(in, 5);
	struct ss_limits_stats stats = stats_of(served.server);
	ck_assert_uint_eq(stats.admitted, 5);
	ck_assert_uint_eq(stats.refused_rate, 35);
	served_stop(&served);
	tally_even(40);
}
END_TEST

/* In a worker what the supervisor sets holds, too. */
START_TEST(limits_change_while_it_serves)
{
	static const struct ss_limits_options none = { .burst = 0 },
					      five = { .rate = 5,
						       .per_ms = 3600000 },
					      wrong = { .rate = -1 };
	struct ss_limits_options now;
	struct ss_config config =
		config_of(&models[_i], &transports[0], &telling);
	struct ss_diag why;
	struct served served;
	use_limits(&config, &none);
	served_start_ahead(&served, &config);
	for (int i = 0; i < 10; i++)
		ck_assert(comes_in(served.url));
	ck_assert_int_eq(ss_limits_set(served.server, &five, &why), 0);
	int in = 0;
	for (int i = 0; i < 10; i++)
		in += comes_in(served.url);
	ck_assert_int_eq(in, 5);
	ck_assert_int_eq(ss_limits_set(served.server, &wrong, &why), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why.text, "rate is -1"));
	ck_assert_int_eq(ss_limits_current(served.server, &now), 0);
	ck_assert_int_eq(now.rate, 5);
	ck_assert_int_eq(now.burst, 5);
	ck_assert_int_eq(now.per_ms, 3600000);
	ck_assert_int_eq(now.ipv6_prefix, 64);
	ck_assert_int_eq(ss_limits_set(served.server, &none, NULL), 0);
	ck_assert(comes_in(served.url));
	served_stop(&served);
	tally_even(21);
}
END_TEST

START_TEST(who_is_refused_is_told_why)
{
	const struct ss_limits_options options = { .max_per_source = 1,
						   .refusal = "later\n" };
	const struct transport *transport = &transports[_i % 2 * 2];
	const struct model *model = &models[_i / 2];
	if (model->at_once == 1)
		return;
	struct ss_config config = config_of(model, transport, &telling);
	struct node node;
	pid_t pid;
	use_limits(&config, &options);
	node_start(&node, &config);
	int stays = stay(node.url, &pid);
	int fd = dial(node.url);
	expect_text(fd, "later\n");
	expect_end(fd);
	close(fd);
	close(stays);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* One that the peer of a datagram might forge is never answered. */
START_TEST(datagrams_are_limited_too)
{
	static const struct ss_limits_options three = { .rate = 3,
							.per_ms = 3600000,
							.refusal = "no\n" };
	struct ss_config config = config_of(
		&models[_i / 2], &transports[1 + _i % 2 * 2], &ss_echo_handler);
	struct node node;
	use_limits(&config, &three);
	node_start(&node, &config);
	for (int i = 0; i < 3; i++)
		echo_once(node.url, "hello");
	for (int i = 0; i < 2; i++) {
		int fd = dial(node.url);
		send_text(fd, "hello");
		expect_end(fd);
		close(fd);
	}
	ck_assert_int_eq(node_stop(&node), 0);
	tally_even(5);
	ck_assert_uint_eq(last->admitted, 3);
	ck_assert_uint_eq(last->refused_rate, 2);
}
END_TEST

/* ---- a table that is full -------------------------------------------------*/

enum { PLACES = 8 };

START_TEST(sources_beyond_the_table_are_let_in_or_not)
{
	struct ss_limits_options options = { .max_per_source = 1,
					     .max_sources = PLACES,
					     .refuse_untracked = _i };
	struct ss_config config =
		config_of(&models[1], &transports[0], &telling);
	struct served served;
	char peer[40];
	int fd[PLACES];
	pid_t pid;
	use_limits(&config, &options);
	served_start(&served, &config);
	pretended = peer;
	for (int i = 0; i < PLACES; i++) {
		snprintf(peer, sizeof(peer), "192.0.2.%d:1", i);
		fd[i] = stay(served.url, &pid);
		ck_assert_int_ne(pid, 0);
	}
	ck_assert(!comes_in(served.url)); /* the last one, once more */
	snprintf(peer, sizeof(peer), "192.0.2.%d:1", PLACES);
	ck_assert_int_eq(comes_in(served.url), !_i);
	ck_assert_int_eq(comes_in(served.url), !_i);
	struct ss_limits_stats stats = stats_of(served.server);
	ck_assert_uint_eq(stats.untracked, 2);
	ck_assert_uint_eq(stats.active, PLACES);
	ck_assert_uint_eq(stats.sources, PLACES);
	ck_assert_uint_eq(stats.refused_full, 1);
	ck_assert_uint_eq(stats.admitted, PLACES + 2 * !_i);
	close(fd[3]);
	eventually(stats_of(served.server).active == PLACES - 1);
	ck_assert(comes_in(served.url));
	for (int i = 0; i < PLACES; i++)
		if (i != 3)
			close(fd[i]);
	eventually(stats_of(served.server).active == 0);
	ck_assert_uint_eq(stats_of(served.server).untracked, 2);
	served_stop(&served);
}
END_TEST

/* Of those without a request the one whose tokens are back goes first. */
START_TEST(sources_that_are_forgotten_are_the_quiet_ones)
{
	const struct ss_limits_options options = { .source_rate = 1,
						   .max_sources = PLACES };
	struct ss_server *server = in_memory(&options);
	char peer[40];
	pretended = peer;
	for (int i = 0; i < PLACES; i++) {
		atomic_store(&clock_at, i);
		snprintf(peer, sizeof(peer), "192.0.2.%d:1", i);
		ck_assert(served_in_memory(server));
	}
	for (int i = 0; i < PLACES; i++) {
		snprintf(peer, sizeof(peer), "192.0.2.%d:1", i);
		ck_assert(!served_in_memory(server));
	}
	snprintf(peer, sizeof(peer), "192.0.2.200:1");
	ck_assert(served_in_memory(server));
	for (int i = 1; i < PLACES; i++) {
		snprintf(peer, sizeof(peer), "192.0.2.%d:1", i);
		ck_assert(!served_in_memory(server));
	}
	snprintf(peer, sizeof(peer), "192.0.2.0:1");
	ck_assert(served_in_memory(server));
	ck_assert_uint_eq(stats_of(server).sources, PLACES);
	dispose(server);
}
END_TEST

/* ---- the table itself -----------------------------------------------------*/

static struct cidr client(unsigned n)
{
	return (struct cidr){ .kind = CIDR_IPV4,
			      .hi = (uint64_t)n << 32,
			      .bits = 32 };
}

static uint64_t held(struct sources *sources)
{
	uint64_t active, known;
	sources_lock(sources);
	sources_count(sources, &active, &known);
	sources_unlock(sources);
	return active;
}

/* Killed in the midst of counting. */
static void die_with_the_lock(struct sources *sources, struct source *source)
{
	pid_t pid = fork();
	if (pid == 0) {
		sources_lock(sources);
		source->held += 5;
		kill(getpid(), SIGKILL);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
}

START_TEST(sums_are_made_anew_where_a_process_died_within_them)
{
	struct sources *sources;
	struct cidr key = client(7);
	ck_assert_int_eq(sources_new(&sources, 16, 3, _i ? 64 : 0), 0);
	sources_lock(sources);
	struct source *source = sources_find(sources, &key);
	ck_assert_ptr_nonnull(source);
	uint32_t name = sources_hold(sources, source, 1);
	sources_hold(sources, source, 2);
	if (_i)
		ck_assert(sources_borrow(sources, source, 1000));
	sources_unlock(sources);
	die_with_the_lock(sources, source);
	ck_assert_uint_eq(held(sources), _i ? 3 : 2);
	sources_lock(sources);
	ck_assert_ptr_eq(sources_find(sources, &key), source);
	sources_release(sources, name, 1);
	sources_drop(sources, 2);
	sources_drop(sources, 2);
	sources_give_back(sources, 999);
	sources_give_back(sources, 1000);
	sources_give_back(sources, 1000);
	sources_unlock(sources);
	ck_assert_uint_eq(held(sources), 0);
	sources_free(sources);
}
END_TEST

START_TEST(requests_are_borrowed_up_to_the_room_for_them)
{
	enum { ROOM = 64 };
	struct sources *sources;
	struct cidr key = client(7);
	ck_assert_int_eq(sources_new(&sources, 8, 1, ROOM), 0);
	sources_lock(sources);
	struct source *source = sources_find(sources, &key);
	for (uint64_t id = 100; id < 100 + ROOM; id++)
		ck_assert(sources_borrow(sources, source, id));
	ck_assert(!sources_borrow(sources, source, 100 + ROOM));
	ck_assert_uint_eq(source->held, ROOM);
	for (uint64_t id = 100; id < 100 + ROOM; id++)
		sources_give_back(sources, id);
	ck_assert_uint_eq(source->held, 0);
	ck_assert(sources_borrow(sources, source, 100 + ROOM));
	sources_unlock(sources);
	sources_free(sources);
	sources_free(NULL);
}
END_TEST

/* Every source finds its own again, as long as there is room. */
START_TEST(sources_are_found_again)
{
	enum { MANY = 4096, FEW = 400 };
	struct sources *sources;
	struct source *at[FEW];
	ck_assert_int_eq(sources_new(&sources, MANY, 1, 0), 0);
	sources_lock(sources);
	for (unsigned i = 0; i < FEW; i++) {
		struct cidr key = client(i * 65537);
		at[i] = sources_find(sources, &key);
		ck_assert_ptr_nonnull(at[i]);
		sources_hold(sources, at[i], 0);
		ck_assert_uint_eq(at[i]->held, 1);
	}
	for (unsigned i = 0; i < FEW; i++) {
		struct cidr key = client(i * 65537);
		ck_assert_ptr_eq(sources_find(sources, &key), at[i]);
	}
	sources_unlock(sources);
	sources_free(sources);
}
END_TEST

/* ---- many at once ---------------------------------------------------------*/

enum { CALLERS = 4, CALLS = 50 };

static void *call(void *url)
{
	for (int i = 0; i < CALLS; i++)
		close(dial(url));
	return NULL;
}

START_TEST(nothing_stays_counted_after_a_storm)
{
	static const struct ss_limits_options options = {
		.max_per_source = 3, .rate = 1000000, .source_rate = 1000000
	};
	struct ss_config config =
		config_of(&models[_i], &transports[0], &ss_echo_handler);
	struct node node;
	pthread_t caller[CALLERS];
	use_limits(&config, &options);
	node_start(&node, &config);
	for (int i = 0; i < CALLERS; i++)
		ck_assert_int_eq(
			pthread_create(&caller[i], NULL, call, node.url), 0);
	for (int i = 0; i < CALLERS; i++)
		pthread_join(caller[i], NULL);
	ck_assert_int_eq(node_stop(&node), 0);
	tally_even(CALLERS * CALLS);
	ck_assert_uint_eq(last->active, 0);
	ck_assert_uint_eq(last->admitted + last->refused_full +
				  last->refused_rate +
				  last->refused_source_rate,
			  CALLERS * CALLS);
}
END_TEST

/* ---- what cannot be -------------------------------------------------------*/

START_TEST(options_out_of_range_are_named)
{
	static const struct {
		struct ss_limits_options options;
		const char *why;
	} wrong[] = {
		{ { .max_per_source = SS_NONE }, "max_per_source is -1" },
		{ { .rate = -2 }, "rate is -2" },
		{ { .burst = -1 }, "burst is -1" },
		{ { .source_rate = -1 }, "source_rate is -1" },
		{ { .source_burst = -1 }, "source_burst is -1" },
		{ { .per_ms = 86400001 },
		  "per_ms is 86400001, and not in 0..86400000" },
		{ { .ipv4_prefix = 33 }, "ipv4_prefix is 33" },
		{ { .ipv6_prefix = 129 }, "ipv6_prefix is 129" },
		{ { .max_sources = (1 << 24) + 1 }, "max_sources is 16777217" },
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct ss_config config = { .transport = &ss_memory_server,
					    .mixins = { { &ss_limits_mixin,
							  &wrong[i].options } },
					    .handler = &ss_echo_handler };
		refused(&config, -EINVAL, wrong[i].why);
	}
}
END_TEST

START_TEST(servers_without_the_layer_say_so)
{
	stack_nothing();
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler };
	struct ss_server *server = made(&config);
	struct ss_limits_stats stats = { .admitted = 5 };
	ck_assert_int_eq(ss_limits_get(server, &stats), -ENOTSUP);
	ck_assert_uint_eq(stats.admitted, 0);
	struct ss_limits_options options = { .rate = 5 };
	ck_assert_int_eq(ss_limits_set(server, &options, NULL), -ENOTSUP);
	ck_assert_int_eq(ss_limits_current(server, &options), -ENOTSUP);
	ck_assert_int_eq(options.rate, 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(servers_that_are_not_bound_say_so)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_limits_mixin,
						  &two_a_second } },
				    .handler = &ss_echo_handler,
				    .no_bind = true };
	struct ss_server *server = made(&config);
	struct ss_limits_options options = { .rate = 5 };
	ck_assert_int_eq(ss_limits_set(server, &options, NULL), -EBADF);
	ck_assert_int_eq(ss_limits_current(server, &options), -EBADF);
	ck_assert_int_eq(ss_server_bind(server, NULL), 0);
	ck_assert_int_eq(ss_limits_current(server, &options), 0);
	ck_assert_int_eq(options.rate, 2);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(who_is_asked_for_twice_counts_once)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler };
	atomic_store(&clock_at, 0);
	use_limits(&config, &two_a_second);
	use_first(&config, &our_clock, NULL);
	use_first(&config, &twice_layer, NULL);
	struct ss_server *server = made(&config);
	ck_assert(served_in_memory(server));
	ck_assert(served_in_memory(server));
	ck_assert(!served_in_memory(server));
	ck_assert_uint_eq(stats_of(server).admitted, 2);
	ck_assert_uint_eq(stats_of(server).refused_rate, 1);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(servers_without_memory_are_not_made)
{
	struct ss_limits_options options = { .rate = 1, .refusal = "no" };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_limits_mixin,
						  &options } },
				    .handler = &ss_echo_handler };
	struct ss_server *server = made_at_last(&config);
	ck_assert(served_in_memory(server));
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

Suite *t_limits(void)
{
	Suite *suite = suite_create("limits");
	TCase *tcase = suite_case(suite, "rates", begin, NULL);
	tcase_add_loop_test(tcase, tokens_come_back_in_time, 0, SCHEDULES);
	tcase_add_test(tcase, who_is_asked_for_twice_counts_once);

	tcase = suite_case(suite, "at a time", begin, NULL);
	tcase_add_loop_test(tcase, a_source_has_so_many_at_a_time, 0,
			    2 * model_count);
	tcase_add_test(tcase, workers_count_together);
	tcase_add_loop_test(tcase, limits_change_while_it_serves, 0,
			    model_count);
	tcase_add_loop_test(tcase, who_is_refused_is_told_why, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, datagrams_are_limited_too, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, nothing_stays_counted_after_a_storm, 0,
			    model_count);

	tcase = suite_case(suite, "killed", begin, NULL);
	tcase_add_loop_test(tcase, who_is_killed_leaves_nothing_counted, 0,
			    model_count);

	tcase = suite_case(suite, "the table", begin, NULL);
	tcase_add_loop_test(tcase, sources_beyond_the_table_are_let_in_or_not,
			    0, 2);
	tcase_add_test(tcase, sources_that_are_forgotten_are_the_quiet_ones);
	tcase_add_loop_test(tcase,
			    sums_are_made_anew_where_a_process_died_within_them,
			    0, 2);
	tcase_add_test(tcase, requests_are_borrowed_up_to_the_room_for_them);
	tcase_add_test(tcase, sources_are_found_again);

	tcase = suite_case(suite, "what cannot be", begin, NULL);
	tcase_add_test(tcase, options_out_of_range_are_named);
	tcase_add_test(tcase, servers_without_the_layer_say_so);
	tcase_add_test(tcase, servers_that_are_not_bound_say_so);
	tcase_add_test(tcase, servers_without_memory_are_not_made);
	return suite;
}
