/*
 * Metrics: what is counted of requests, which of them are shown, and what they
 * wait for, in every process.
 */
#include "guards.h"

#include <signal.h>
#include <sys/wait.h>

#include "faults.h"
#include "handlers.h"
#include "mixin/histogram.h"
#include "mixin/live.h"

Suite *t_metrics(void);

/* ---- latencies ------------------------------------------------------------*/

static struct ss_latency latency_of(const int64_t *us, int count)
{
	static struct histogram histogram;
	struct histogram_sum sum = { 0 };
	struct ss_latency latency;
	memset(&histogram, 0, sizeof(histogram));
	for (int i = 0; i < count; i++)
		histogram_note(&histogram, us[i]);
	histogram_add(&sum, &histogram);
	histogram_tell(&sum, &latency);
	return latency;
}

/* Never below what was noted, and at most a sixteenth above. */
START_TEST(latencies_are_told_within_a_sixteenth)
{
	for (int64_t us = 0; us < (int64_t)1 << 36; us += 1 + us / 7) {
		struct ss_latency got = latency_of(&us, 1);
		ck_assert_uint_eq(got.count, 1);
		ck_assert_uint_eq(got.sum_us, (uint64_t)us);
		ck_assert_uint_eq(got.p50_us, got.max_us);
		ck_assert_uint_ge(got.max_us, (uint64_t)us);
		ck_assert_uint_le(got.max_us, (uint64_t)us + (uint64_t)us / 16);
		for (int i = 0; i < SS_LATENCY_STEPS; i++)
			ck_assert_uint_eq(got.below[i], us < (int64_t)1 << i);
	}
}
END_TEST

START_TEST(what_no_bucket_has_is_in_the_last)
{
	const int64_t us[] = { -5, INT64_MAX, (int64_t)1 << 36 };
	struct ss_latency got = latency_of(us, 3);
	ck_assert_uint_eq(got.count, 3);
	ck_assert_uint_eq(got.below[0], 1);
	ck_assert_uint_eq(got.below[SS_LATENCY_STEPS - 1], 1);
	ck_assert_uint_eq(got.max_us, ((uint64_t)1 << 36) - 1);
	got = latency_of(us, 0);
	ck_assert_uint_eq(got.p99_us + got.max_us + got.count, 0);
}
END_TEST

START_TEST(so_many_percent_took_no_longer)
{
	int64_t us[1000];
	for (int i = 0; i < 1000; i++)
		us[i] = (i * 7919 + 13) % 1000 + 1;
	struct ss_latency got = latency_of(us, 1000);
	const struct {
		uint64_t got, exact;
	} figures[] = { { got.p50_us, 500 },
			{ got.p90_us, 900 },
			{ got.p99_us, 990 },
			{ got.p999_us, 999 },
			{ got.max_us, 1000 } };
	for (int i = 0; i < 5; i++) {
		ck_assert_uint_ge(figures[i].got, figures[i].exact);
		ck_assert_uint_le(figures[i].got, figures[i].exact * 17 / 16);
	}
	ck_assert_uint_eq(got.sum_us, 500500);
	ck_assert_uint_eq(got.below[9], 511);
}
END_TEST

/* ---- servers to look at ---------------------------------------------------*/

/* What the process that tests sees of a server in another: what it shares was
 * mapped before the fork. */
struct seen {
	struct ss_metrics metrics;
	struct ss_stats stats;
	int count;
	struct ss_snapshot shots[64];
};

static int see(void *arg, const struct ss_snapshot *shot)
{
	struct seen *seen = arg;
	if (seen->count < 64)
		seen->shots[seen->count++] = *shot;
	return 0;
}

static struct seen *look(struct ss_server *server)
{
	static struct seen seen;
	seen.count = 0;
	ck_assert_int_eq(ss_metrics_get(server, &seen.metrics), 0);
	ck_assert_int_eq(ss_metrics_each(server, see, &seen), 0);
	ss_server_stats(server, &seen.stats);
	return &seen;
}

/* ---- a handler that waits as it is told -----------------------------------*/

static struct board {
	atomic_bool serves;  /* clients may come */
	atomic_bool release; /* whoever waits goes on */
	atomic_bool refuse;  /* whoever comes is turned away */
	atomic_bool whole;   /* what ss_each has seen */
	struct ss_snapshot shot;
} * board; /* in shared memory */

static bool released(void)
{
	return atomic_load(&board->release);
}

static int await_release(void *arg)
{
	(void)arg;
	while (!released())
		pause_ms(2);
	return 0;
}

static int wait_for_nothing(struct ss_request *req)
{
	int fds[2], r = 0;
	ck_assert_int_eq(pipe(fds), 0);
	while (r >= 0 && !released())
		r = ss_wait_fd(req, fds[0], POLLIN,
			       ss_now(ss_request_server(req)) + 20);
	close(fds[0]);
	close(fds[1]);
	return r < 0 ? r : 0;
}

static int write_for_ever(struct ss_request *req)
{
	static char much[1 << 16];
	ssize_t r = 0;
	while (r >= 0)
		r = ss_write(req, much, sizeof(much));
	return (int)r;
}

static int sleep_often(struct ss_request *req)
{
	int r = 0;
	while (r >= 0 && !released())
		r = ss_sleep(req, 20);
	return r;
}

/* Its first letter says what to do; each word is answered before. */
static int obey(struct ss_request *req)
{
	char word[16];
	ssize_t n = ss_read_line(req, word, sizeof(word));
	if (n <= 0)
		return (int)n;
	ss_write(req, word, (size_t)n);
	switch (word[0]) {
	case 'b':
		return await_release(NULL);
	case 'c':
		kill(getpid(), SIGKILL);
		return 0;
	case 'd':
		return wait_for_nothing(req);
	case 'f':
		return ss_fail(req, -EPROTO, "as was asked");
	case 'o':
		return ss_offload(req, await_release, NULL);
	case 'r':
		n = ss_read_full(req, word, 10);
		return n < 0 ? (int)n : 0;
	case 's':
		return sleep_often(req);
	case 'w':
		return write_for_ever(req);
	default:
		return SS_AGAIN;
	}
}

static const struct ss_handler obedient = { .name = "obedient",
					    .handle = obey };

static int maybe_refuse(struct ss_server *server, struct ss_request *req);
static const struct ss_layer refusing = {
	.name = "refusing",
	.ops = { .verify_request = maybe_refuse },
};

static int maybe_refuse(struct ss_server *server, struct ss_request *req)
{
	if (atomic_load(&board->refuse))
		return 0;
	return ss_super(server, &refusing)->verify_request(server, req);
}

/* Every model over tcp and unix. */
static const struct transport *stream_of(int i)
{
	return &transports[i % 2 * 2];
}

static struct ss_config config_for(int i,
				   const struct ss_metrics_options *options)
{
	struct ss_config config =
		config_of(&models[i / 2], stream_of(i), &obedient);
	config.log_level = SS_NONE;
	config.drain_ms = 100;
	use_first(&config, &refusing, NULL);
	use_first(&config, &ss_metrics_mixin, options);
	return config;
}

/*
 * A server in a process of its own, which holds none of the clients' ends; here
 * is a copy of it that shares with it what its processes share.
 */
struct aside {
	struct ss_server *server;
	pid_t pid;
	char url[SS_ADDRESS_TEXT];
};

static _Noreturn void serve_aside(struct ss_server *server)
{
	int r = ss_server_activate(server, NULL);
	atomic_store(&board->serves, r == 0);
	if (r == 0)
		r = ss_serve_forever(server);
	if (r == 0)
		r = ss_server_free(server);
	sys_exit(r == 0 ? 0 : 1);
}

static void aside_start(struct aside *aside, struct ss_config *config)
{
	config->no_bind = true;
	aside->server = made(config);
	ck_assert_int_eq(ss_server_bind(aside->server, NULL), 0);
	ss_server_url(aside->server, 0, aside->url, sizeof(aside->url));
	aside->pid = fork();
	if (aside->pid == 0)
		serve_aside(aside->server);
	eventually(atomic_load(&board->serves));
}

static void aside_stop(struct aside *aside)
{
	int status = -1;
	ss_shutdown(aside->server);
	eventually(waitpid(aside->pid, &status, WNOHANG) == aside->pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(ss_server_free(aside->server), 0);
}

static void begin(void)
{
	board = ss_shared_alloc(sizeof(*board));
	ck_assert_ptr_nonnull(board);
}

static int say(const char *url, const char *word)
{
	int fd = dial(url);
	send_text(fd, word);
	expect_text(fd, word);
	return fd;
}

static bool none_lives(struct ss_server *server)
{
	const struct seen *seen = look(server);
	return seen->count == 0 && seen->metrics.shown == 0 &&
	       seen->metrics.hidden == 0 && seen->stats.active == 0;
}

static void expect_served(struct ss_server *server, uint64_t served)
{
	eventually(none_lives(server));
	eventually(look(server)->metrics.handler.count == served);
	const struct ss_metrics *got = &look(server)->metrics;
	ck_assert_uint_eq(got->request.count, served);
	ck_assert_uint_ge(got->request.sum_us, got->handler.sum_us);
}

START_TEST(what_was_served_is_counted)
{
	struct ss_config config = config_for(_i, NULL);
	struct aside served;
	aside_start(&served, &config);
	for (int i = 0; i < 3; i++)
		close(say(served.url, "echo\n"));
	for (int i = 0; i < 2; i++) {
		int fd = say(served.url, "fail\n");
		expect_end(fd);
		close(fd);
	}
	expect_served(served.server, 5);
	atomic_store(&board->refuse, true);
	for (int i = 0; i < 2; i++) {
		int fd = dial(served.url);
		expect_end(fd);
		close(fd);
	}
	expect_served(served.server, 5);
	const struct ss_stats *stats = &look(served.server)->stats;
	ck_assert_uint_eq(stats->accepted, 7);
	ck_assert_uint_eq(stats->ended, 7);
	ck_assert_uint_eq(stats->refused[SS_REFUSED_VERIFY], 2);
	ck_assert_uint_eq(stats->errors[SS_PHASE_HANDLE], 2);
	ck_assert_uint_eq(stats->bytes_in, 25);
	ck_assert_uint_eq(stats->bytes_out, 25);
	aside_stop(&served);
}
END_TEST

/* The handler's time is that from its client's first byte on where it began
 * then, and all is counted from accept. */
START_TEST(time_is_measured)
{
	enum { MS = 50 };
	struct ss_config config = config_for(_i, NULL);
	struct aside served;
	aside_start(&served, &config);
	int fd = say(served.url, "echo\n");
	pause_ms(MS);
	close(fd);
	expect_served(served.server, 1);
	const struct ss_metrics *got = &look(served.server)->metrics;
	ck_assert_uint_ge(got->handler.sum_us, MS * 1000);
	ck_assert_uint_ge(got->handler.p50_us, MS * 1000);
	ck_assert_uint_lt(got->handler.sum_us, WAIT_MS * 1000);
	ck_assert_uint_lt(got->request.sum_us, WAIT_MS * 1000);
	ck_assert_uint_eq(got->handler.below[15], 0);
	ck_assert_uint_eq(got->handler.below[25], 1);
	aside_stop(&served);
}
END_TEST

START_TEST(datagrams_are_measured_too)
{
	struct ss_config config = config_of(
		&models[_i / 2], &transports[1 + _i % 2 * 2], &ss_echo_handler);
	struct aside served;
	use_first(&config, &ss_metrics_mixin, NULL);
	aside_start(&served, &config);
	for (int i = 0; i < 5; i++)
		echo_once(served.url, "hello");
	expect_served(served.server, 5);
	aside_stop(&served);
}
END_TEST

/* ---- what they wait for ---------------------------------------------------*/

static void expect_pid(const struct model *model, pid_t own, pid_t pid)
{
	bool elsewhere =
		model_supervised(model) || model_has(model, &ss_forking_mixin);
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq((int)(pid == own), (int)!elsewhere);
}

/* Until it waits so, and all that was sent has been counted. */
static const struct ss_snapshot *await_waits(struct ss_server *server,
					     enum ss_waits waits, uint64_t in)
{
	const struct ss_snapshot *shot = look(server)->shots;
	eventually(look(server)->count == 1 && shot->waits == waits &&
		   shot->bytes_in == in);
	return shot;
}

START_TEST(what_each_waits_for_is_seen)
{
	static const struct {
		const char *word;
		enum ss_waits waits;
		const char *more; /* that the word's echo does not tell of */
	} steps[] = {
		{ "", SS_WAITS_INPUT, "" },
		{ "echo\n", SS_WAITS_MESSAGE, "" },
		{ "busy\n", SS_WAITS_NOTHING, "" },
		{ "read\n", SS_WAITS_INPUT, "half" },
		{ "write\n", SS_WAITS_OUTPUT, "" },
		{ "sleep\n", SS_WAITS_TIME, "" },
		{ "descriptor\n", SS_WAITS_OTHERS, "" },
		{ "offload\n", SS_WAITS_OFFLOAD, "" },
	};
	struct ss_config config = config_for(_i, NULL);
	struct aside served;
	aside_start(&served, &config);
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		int fd = say(served.url, steps[i].word);
		size_t sent = strlen(steps[i].word) + strlen(steps[i].more);
		send_text(fd, steps[i].more);
		const struct ss_snapshot *shot =
			await_waits(served.server, steps[i].waits, sent);
		expect_pid(&models[_i / 2], served.pid, shot->pid);
		ck_assert_int_eq(shot->idle, shot->waits == SS_WAITS_MESSAGE);
		ck_assert(shot->running);
		ck_assert_int_lt(shot->age_ms, WAIT_MS);
		struct ss_address own = { .len = sizeof(own.u) };
		ck_assert_int_eq(getsockname(fd, &own.u.sa, &own.len), 0);
		ck_assert(ss_address_equal(&own, &shot->peer));
		atomic_store(&board->release, true);
		close(fd);
		eventually(none_lives(served.server));
		atomic_store(&board->release, false);
	}
	aside_stop(&served);
}
END_TEST

/* Those whose turn has not come. */
START_TEST(who_is_queued_is_seen_to_be)
{
	struct ss_config config = config_for(_i, NULL);
	struct aside served;
	if (models[_i / 2].at_once == 1)
		return;
	config.max_active = 1;
	config.full = SS_FULL_QUEUE;
	aside_start(&served, &config);
	int first = say(served.url, "echo\n"), second = dial(served.url);
	eventually(look(served.server)->count == 2);
	const struct ss_snapshot *shots = look(served.server)->shots;
	int queued = shots[0].waits == SS_WAITS_TURN ? 0 : 1;
	ck_assert_int_eq(shots[queued].waits, SS_WAITS_TURN);
	ck_assert(!shots[queued].running);
	ck_assert(shots[!queued].running);
	close(first);
	close(second);
	expect_served(served.server, 2);
	aside_stop(&served);
}
END_TEST

static int keep(void *arg, const struct ss_snapshot *shot)
{
	*(struct ss_snapshot *)arg = *shot;
	return 1;
}

static void look_by_each(struct ss_server *server);
static const struct ss_layer looking = {
	.name = "looking",
	.ops = { .service_actions = look_by_each },
};

/* Once it waits. */
static void look_by_each(struct ss_server *server)
{
	enum ss_waits waits;
	ss_super(server, &looking)->service_actions(server);
	if (atomic_load(&board->whole) ||
	    ss_each(server, keep, &board->shot) != 1)
		return;
	waits = board->shot.waits;
	if (waits == SS_WAITS_MESSAGE || waits == SS_WAITS_UNKNOWN)
		atomic_store(&board->whole, true);
}

/* Where children serve, the core alone does not know. */
START_TEST(each_sees_into_children_with_metrics)
{
	stack_nothing(); /* and without */
	struct ss_config config =
		config_of(&models[2], stream_of(_i), &obedient);
	struct aside served;
	config.poll_interval_ms = 10;
	use_first(&config, &looking, NULL);
	if (_i < 2)
		use_first(&config, &ss_metrics_mixin, NULL);
	aside_start(&served, &config);
	int fd = say(served.url, "echo\n");
	eventually(atomic_load(&board->whole));
	const struct ss_snapshot *shot = &board->shot;
	ck_assert_int_ne(shot->pid, served.pid);
	ck_assert_int_eq(shot->idle, _i < 2);
	ck_assert_uint_eq(shot->bytes_in, _i < 2 ? 5 : 0);
	ck_assert_uint_eq(shot->bytes_out, _i < 2 ? 5 : 0);
	ck_assert_int_eq(shot->waits,
			 _i < 2 ? SS_WAITS_MESSAGE : SS_WAITS_UNKNOWN);
	close(fd);
	aside_stop(&served);
}
END_TEST

START_TEST(waits_have_names)
{
	for (int i = 0; i < SS_WAITS_MAX; i++) {
		ck_assert_ptr_nonnull(ss_waits_name(i));
		for (int j = 0; j < i; j++)
			ck_assert_str_ne(ss_waits_name(i), ss_waits_name(j));
	}
	ck_assert_str_eq(ss_waits_name(-1), "unknown");
	ck_assert_str_eq(ss_waits_name(SS_WAITS_MAX), "unknown");
}
END_TEST

/* ---- a table that is full -------------------------------------------------*/

enum { PLACES = 8, CLIENTS = 12 };
static const struct ss_metrics_options few = { .max_shown = PLACES };
static const struct ss_metrics_options nobody = { .max_shown = SS_NONE };

START_TEST(more_than_there_are_places_for_are_counted)
{
	int places = _i % 2 ? 0 : PLACES;
	struct ss_config config =
		config_for(_i / 2 * 2, places ? &few : &nobody);
	struct aside served;
	int fd[CLIENTS];
	if (models[_i / 2].at_once)
		return;
	aside_start(&served, &config);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < CLIENTS; i++)
			fd[i] = say(served.url, "echo\n");
		const struct seen *seen = look(served.server);
		ck_assert_int_eq(seen->count, places);
		ck_assert_uint_eq(seen->metrics.shown, (uint64_t)places);
		ck_assert_uint_eq(seen->metrics.hidden,
				  (uint64_t)(CLIENTS - places));
		for (int i = 0; i < CLIENTS; i++)
			close(fd[i]);
		expect_served(served.server, (uint64_t)(round + 1) * CLIENTS);
	}
	aside_stop(&served);
}
END_TEST

/* ---- who is killed --------------------------------------------------------*/

/* Its place, and what was counted without one. */
START_TEST(who_is_killed_gives_his_place_back)
{
	static const struct ss_prefork_options two = { .workers = 2,
						       .respawn_ms = 1 };
	static const struct ss_metrics_options single = { .max_shown = 1 };
	const struct model *model = &models[_i];
	if (!model_supervised(model) && !model_has(model, &ss_forking_mixin))
		return;
	struct ss_config config = config_for(2 * _i, &single);
	struct aside served;
	use_options(&config, &ss_prefork_mixin, &two);
	aside_start(&served, &config);
	for (int round = 0; round < 3; round++) {
		int fd[2];
		for (int i = 0; i < 2; i++)
			fd[i] = say(served.url, "echo\n");
		const struct seen *seen = look(served.server);
		ck_assert_uint_eq(seen->metrics.shown, 1);
		ck_assert_uint_eq(seen->metrics.hidden, 1);
		for (int i = 0; i < 2; i++)
			send(fd[i], "crash\n", 6, MSG_NOSIGNAL);
		eventually(none_lives(served.server));
		for (int i = 0; i < 2; i++)
			close(fd[i]);
	}
	close(say(served.url, "echo\n"));
	eventually(none_lives(served.server));
	aside_stop(&served);
}
END_TEST

/* ---- behind a balancer ----------------------------------------------------*/

START_TEST(the_client_is_shown_and_not_the_balancer)
{
	static const struct ss_proxy_options trusting = { "127.0.0.0/8", true,
							  0 };
	struct ss_config config =
		config_of(&models[_i], &transports[0], &obedient);
	struct aside served;
	use_first(&config, &ss_metrics_mixin, NULL);
	use_first(&config, &ss_proxy_mixin, &trusting);
	aside_start(&served, &config);
	int fd = dial(served.url);
	send_text(fd, "PROXY TCP4 192.0.2.5 192.0.2.1 8080 80\r\necho\n");
	expect_text(fd, "echo\n");
	const struct ss_snapshot *shot = look(served.server)->shots;
	char peer[SS_ADDRESS_TEXT];
	ck_assert_str_eq(ss_address_format(&shot->peer, peer, sizeof(peer)),
			 "192.0.2.5:8080");
	close(fd);
	expect_served(served.server, 1);
	aside_stop(&served);
}
END_TEST

/* In a child that asks at last who the client is, and that tells nobody when
 * it has ended. */
START_TEST(children_take_no_places)
{
	static const struct ss_proxy_options trusting = { "127.0.0.0/8", true,
							  0 };
	struct ss_config config =
		config_of(&models[0], &transports[0], &obedient);
	struct aside served;
	use_first(&config, &ss_metrics_mixin, NULL);
	use_first(&config, &ss_forking_mixin, NULL);
	use_first(&config, &ss_proxy_mixin, &trusting);
	aside_start(&served, &config);
	int fd = dial(served.url);
	send_text(fd, "PROXY TCP4 192.0.2.5 192.0.2.1 8080 80\r\necho\n");
	expect_text(fd, "echo\n");
	const struct seen *seen = look(served.server);
	ck_assert_uint_eq(seen->metrics.shown, 0);
	ck_assert_uint_eq(seen->metrics.hidden, 0);
	close(fd);
	aside_stop(&served);
}
END_TEST

/* ---- what cannot be -------------------------------------------------------*/

START_TEST(without_the_layer_there_is_nothing)
{
	stack_nothing();
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler };
	struct ss_server *server = made(&config);
	struct ss_metrics metrics = { .shown = 9 };
	struct seen seen = { 0 };
	ck_assert_int_eq(ss_metrics_get(server, &metrics), -ENOTSUP);
	ck_assert_uint_eq(metrics.shown, 0);
	ck_assert_int_eq(ss_metrics_each(server, see, &seen), -ENOTSUP);
	ss_server_free(server);
}
END_TEST

START_TEST(options_that_make_no_sense_are_refused)
{
	static const struct ss_metrics_options bad[] = { { -2 },
							 { (1 << 20) + 1 } };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler };
	use_first(&config, &ss_metrics_mixin, &bad[_i]);
	refused(&config, -EINVAL, "max_shown");
}
END_TEST

/* A client of an older library asks for less, one of a newer for more. */
START_TEST(structs_may_be_of_another_size)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler };
	use_first(&config, &ss_metrics_mixin, NULL);
	struct ss_server *server = made(&config);
	struct {
		struct ss_metrics metrics;
		uint64_t more;
	} large = { .more = 7 };
	uint64_t small[2] = { 5, 5 };
	ck_assert(served_in_memory(server));
	ck_assert_int_eq(
		ss_metrics_get_sized(server, &large.metrics, sizeof(large)), 0);
	ck_assert_uint_eq(large.metrics.handler.count, 1);
	ck_assert_uint_eq(large.more, 0);
	ck_assert_int_eq(ss_metrics_get_sized(server, (void *)small, 8), 0);
	ck_assert_uint_eq(small[1], 5);
	ss_server_free(server);
}
END_TEST

START_TEST(memory_that_runs_out_refuses_the_server)
{
	struct ss_config config = config_for(2 * _i, NULL);
	struct ss_server *server = NULL;
	struct ss_diag why;
	int n = 0, r;
	sys_table.mmap = fail_mmap;
	do {
		fault.left = ++n;
		r = ss_server_new(&server, &config, &why);
		ck_assert_int_eq(r, fault.left == 0 ? -ENOMEM : 0);
	} while (r < 0);
	fault.left = 0;
	ck_assert_int_ge(n, 4); /* the page, rows, the table; and none */
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- the table, by itself -------------------------------------------------*/

static struct live *table;

static int count_one(void *arg, const struct ss_snapshot *snapshot)
{
	(void)snapshot;
	++*(int *)arg;
	return 0;
}

static int seen(void)
{
	int count = 0;
	ck_assert_int_eq(live_each(table, count_one, &count), 0);
	return count;
}

/* Who was killed while he wrote it has left an entry that is not whole. */
static int enter_it(struct ss_request *req)
{
	atomic_uint cursor = 0;
	struct place *place = live_enter(table, 1, &cursor, req, 5, 7);
	ck_assert_ptr_nonnull(place);
	ck_assert_int_eq(seen(), 1);
	atomic_fetch_add(&place->version, 1);
	ck_assert_int_eq(seen(), 0);
	atomic_fetch_add(&place->version, 1);
	ck_assert_int_eq(seen(), 1);
	live_drop(table, 1);
	ck_assert_int_eq(seen(), 0);
	return ss_write(req, "ok", 2) < 0 ? -EIO : 0;
}

START_TEST(entries_are_seen_whole_or_not_at_all)
{
	static const struct ss_handler handler = { .handle = enter_it };
	char out[3] = "";
	ck_assert_int_eq(live_new(&table, 4, 2), 0);
	ck_assert_int_eq(ss_memory_exchange(&handler, "", 0, out, 2), 2);
	ck_assert_str_eq(out, "ok");
	live_free(table);
	live_free(NULL);
}
END_TEST

Suite *t_metrics(void)
{
	Suite *suite = suite_create("metrics");
	TCase *latencies = suite_case(suite, "latencies", NULL, NULL);
	tcase_add_test(latencies, latencies_are_told_within_a_sixteenth);
	tcase_add_test(latencies, what_no_bucket_has_is_in_the_last);
	tcase_add_test(latencies, so_many_percent_took_no_longer);
	TCase *entries = suite_case(suite, "entries", NULL, NULL);
	tcase_add_test(entries, entries_are_seen_whole_or_not_at_all);
	TCase *served = suite_case(suite, "served", begin, NULL);
	tcase_add_loop_test(served, what_was_served_is_counted, 0,
			    2 * model_count);
	tcase_add_loop_test(served, time_is_measured, 0, 2 * model_count);
	tcase_add_loop_test(served, datagrams_are_measured_too, 0,
			    2 * model_count);
	TCase *live = suite_case(suite, "live", begin, NULL);
	tcase_add_loop_test(live, what_each_waits_for_is_seen, 0,
			    2 * model_count);
	tcase_add_loop_test(live, who_is_queued_is_seen_to_be, 0,
			    2 * model_count);
	tcase_add_loop_test(live, each_sees_into_children_with_metrics, 0, 4);
	tcase_add_test(live, waits_have_names);
	tcase_add_loop_test(live, more_than_there_are_places_for_are_counted, 0,
			    2 * model_count);
	tcase_add_loop_test(live, who_is_killed_gives_his_place_back, 0,
			    model_count);
	tcase_add_loop_test(live, the_client_is_shown_and_not_the_balancer, 0,
			    model_count);
	tcase_add_test(live, children_take_no_places);
	TCase *not = suite_case(suite, "not", begin, NULL);
	tcase_add_test(not, without_the_layer_there_is_nothing);
	tcase_add_loop_test(not, options_that_make_no_sense_are_refused, 0, 2);
	tcase_add_test(not, structs_may_be_of_another_size);
	tcase_add_loop_test(not, memory_that_runs_out_refuses_the_server, 0,
			    model_count);
	return suite;
}
