/*
 * Simulation: some dozens of seeds of each scenario (or, where SS_LONG is set,
 * many more), and of the simulation itself that a seed decides all, that it
 * finds what it must find, and that chaos and the clock serve by themselves.
 */
#include "support.h"

#include <sys/socket.h>

#include "handlers.h"
#include "program.h"
#include "sim/scenarios.h"

enum { SEEDS = 24, TEXT = 256 };

static void plays(const struct scenario *scenario)
{
	struct ss_diag why;
	uint64_t digest;
	for (int seed = 1; seed <= rounds(SEEDS); seed++) {
		int r = scenario_play(scenario, (uint64_t)seed, NULL, &digest,
				      &why);
		ck_assert_msg(r == 0, "%s: %s", scenario->name, why.text);
	}
}

START_TEST(scenario_holds)
{
	plays(&scenarios[_i]);
}
END_TEST

/* ---- a seed decides all ---------------------------------------------------*/

/* The trace, as long as it fits. */
struct script {
	size_t n;
	char text[1 << 18];
};

static struct script first, second, *filled;

static void keep(void *world, const char *line)
{
	(void)world;
	size_t n = strlen(line);
	if (filled->n + n + 2 > sizeof(filled->text))
		return;
	memcpy(filled->text + filled->n, line, n);
	filled->n += n;
	filled->text[filled->n++] = '\n';
}

START_TEST(one_seed_one_run)
{
	const struct scenario *scenario = scenario_named("words");
	struct ss_diag why;
	uint64_t digests[3];
	filled = &first;
	ck_assert_int_eq(scenario_play(scenario, 7, keep, &digests[0], &why),
			 0);
	filled = &second;
	ck_assert_int_eq(scenario_play(scenario, 7, keep, &digests[1], &why),
			 0);
	ck_assert_int_eq(scenario_play(scenario, 8, NULL, &digests[2], &why),
			 0);
	ck_assert_uint_gt(first.n, 1000);
	ck_assert_str_eq(first.text, second.text);
	ck_assert(digests[0] == digests[1]);
	ck_assert(digests[0] != digests[2]);
}
END_TEST

/* ---- what it must find ----------------------------------------------------*/

static const struct ss_fiber_options one_loop = { .loops = 1 };

static struct ss_config simulated(const struct ss_handler *handler, bool fiber)
{
	struct ss_config config = { .handler = handler, .log_level = SS_NONE };
	if (fiber)
		config.mixins[0] =
			(struct ss_use){ &ss_fiber_mixin, &one_loop };
	return config;
}

/* Runs one client; what comes of it. */
static int run_client(const struct ss_config *config,
		      void (*run)(struct ss_sim_client *client, void *arg),
		      struct ss_diag *why)
{
	static const struct ss_sim_options options = { .seed = 42 };
	struct ss_sim *sim;
	ck_assert_int_eq(ss_sim_new(&sim, config, &options, why), 0);
	ck_assert_int_eq(ss_sim_add(sim, 10, run, sim), 1);
	int r = ss_sim_run(sim, SS_NONE, why);
	ck_assert_int_eq(ss_sim_run(sim, SS_NONE, NULL), r);
	ss_sim_free(sim);
	return r;
}

static int answer_little(struct ss_request *req)
{
	char line[TEXT];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	return n > 0 ? (int)ss_write(req, "what", 4) * 0 : (int)n;
}

static int answer_nothing(struct ss_request *req)
{
	char line[TEXT];
	while (ss_read_line(req, line, sizeof(line)) > 0)
		;
	return ss_sleep(req, 1000);
}

static int wait_always(struct ss_request *req)
{
	return ss_wait_any(req, NULL, 0, SS_NONE);
}

static void expects_more(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ss_sim_connect(client);
	ss_sim_say(client, "%s\n", "well");
	ss_sim_hear(client, "what now");
}

static void says_and_goes(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ss_sim_connect(client);
	ss_sim_say(client, "well\n");
	ss_sim_wait(client, 100);
}

static void goes_round(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	for (;;)
		ss_sim_wait(client, 0);
}

static void has_no_wire(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ck_assert_int_eq(ss_sim_send(client, "x", 1), -ENOTCONN);
	ss_sim_say(client, "x");
	ck_abort_msg("came back");
}

static void finds(bool fiber, int (*handle)(struct ss_request *req),
		  void (*run)(struct ss_sim_client *client, void *arg),
		  int code, const char *text)
{
	struct ss_handler handler = { .handle = handle };
	struct ss_config config = simulated(&handler, fiber);
	struct ss_diag why;
	ck_assert_int_eq(run_client(&config, run, &why), code);
	ck_assert_msg(strstr(why.text, text), "\"%s\" has no \"%s\"", why.text,
		      text);
	ck_assert_msg(strstr(why.text, "seed 42, at "), "%s", why.text);
}

START_TEST(failures_are_told)
{
	bool fiber = _i;
	finds(fiber, answer_little, expects_more, -EPROTO,
	      "client 1: expected \"what now\", got the end after 4 bytes");
	finds(fiber, answer_nothing, expects_more, -EDEADLK,
	      "client 1 waits for ever");
	finds(fiber, answer_nothing, goes_round, -ELOOP, "without time");
	finds(fiber, answer_nothing, has_no_wire, -EPROTO,
	      "client 1: cannot send");
}
END_TEST

/* Nobody is left who could end it. */
START_TEST(requests_that_stay_are_found)
{
	finds(true, wait_always, says_and_goes, -EDEADLK,
	      "requests that wait for ever: 1");
}
END_TEST

static int no_more_than_one(void *arg, struct ss_sim *sim)
{
	int *steps = arg;
	struct ss_stats stats;
	ss_server_stats(ss_sim_server(sim), &stats);
	++*steps;
	return stats.accepted > 1 ? ss_sim_fail(sim, "two came") : 0;
}

START_TEST(invariants_are_asked)
{
	struct ss_config config = simulated(&ss_echo_handler, true);
	int steps = 0;
	struct ss_sim_options options = { .seed = 3,
					  .check = no_more_than_one,
					  .arg = &steps };
	struct ss_sim *sim;
	struct ss_diag why;
	ck_assert_int_eq(ss_sim_new(&sim, &config, &options, &why), 0);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(ss_sim_add(sim, i * 5000, says_and_goes, NULL),
				 i + 1);
	/* By parts, too. */
	ck_assert_int_eq(ss_sim_run(sim, 4000, &why), 1);
	ck_assert_int_eq(ss_now(ss_sim_server(sim)), 4000);
	ck_assert_int_gt(steps, 3);
	ck_assert_int_eq(ss_sim_run(sim, SS_NONE, &why), -EPROTO);
	ck_assert_msg(strstr(why.text, "two came"), "%s", why.text);
	ss_sim_free(sim);
}
END_TEST

START_TEST(what_needs_threads_is_refused)
{
	const struct ss_layer *const threaded[] = { &ss_threading_mixin,
						    &ss_pool_mixin,
						    &ss_forking_mixin,
						    &ss_prefork_mixin };
	struct ss_config config = simulated(&ss_echo_handler, false);
	struct ss_sim *sim;
	struct ss_diag why;
	for (int i = 0; i < 4; i++) {
		config.mixins[0].layer = threaded[i];
		ck_assert_int_eq(ss_sim_new(&sim, &config, NULL, &why),
				 -EINVAL);
		ck_assert_ptr_null(sim);
		ck_assert_msg(strstr(why.text, "one thread"), "%s", why.text);
	}
	ss_sim_free(NULL);
}
END_TEST

/* ---- chaos, by itself -----------------------------------------------------*/

static const struct ss_chaos_options wild = {
	.seed = 5,
	.short_read = 800,
	.short_write = 800,
	.would_block = 400,
	.interrupted = 300,
	.delay_ms = 2,
};

/* Every model over sockets: not a byte is lost. */
START_TEST(chaos_loses_nothing)
{
	const struct model *model = &models[_i];
	struct ss_config config =
		config_of(model, &transports[0], &ss_upper_handler);
	struct node node;
	char text[] = "every byte of this comes back\n";
	use_first(&config, &ss_chaos_mixin, &wild);
	node_start(&node, &config);
	for (int i = 0; i < 3; i++) {
		int fd = dial(node.url);
		for (int k = 0; k < 10; k++) {
			send_text(fd, text);
			expect_text(fd, "EVERY BYTE OF THIS COMES BACK\n");
		}
		shutdown(fd, SHUT_WR);
		expect_end(fd);
		close(fd);
	}
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static ssize_t exchange(const struct ss_chaos_options *options, char *got,
			size_t room)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_chaos_mixin, options } },
				    .handler = &ss_upper_handler,
				    .log_level = SS_NONE };
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	size_t n = 0;
	ssize_t r;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_int_eq(ss_memory_send(client, "one\ntwo\n", 8), 8);
	ss_memory_shutdown(client);
	while ((r = ss_memory_recv(client, got + n, room - n)) > 0)
		n += (size_t)r;
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
	return (ssize_t)n;
}

START_TEST(chaos_keeps_its_word)
{
	char got[TEXT];
	ck_assert_int_eq(exchange(&wild, got, sizeof(got)), 8);
	struct ss_chaos_options cut = wild;
	cut.reset = 1000;
	cut.cut_after = 4;
	ck_assert_int_lt(exchange(&cut, got, sizeof(got)), 8);
	cut.reset = 0;
	cut.half_close = 1000;
	ck_assert_int_lt(exchange(&cut, got, sizeof(got)), 8);
	cut.cut_after = -2;
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_chaos_mixin, &cut } },
				    .handler = &ss_upper_handler };
	refused(&config, -EINVAL, "below 0");
	cut.cut_after = 0;
	cut.short_read = 1001;
	refused(&config, -EINVAL, "1001 of 1000");
}
END_TEST

/* ---- the clock, by itself -------------------------------------------------*/

static int sleep_and_tell(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	int64_t since = ss_now(server);
	int r = ss_sleep(req, 36000000);
	if (r == 0)
		r = (int)ss_printf(req, "%lld\n",
				   (long long)(ss_now(server) - since));
	return r < 0 ? r : 0;
}

START_TEST(hours_take_no_time)
{
	static const struct ss_handler handler = { .handle = sleep_and_tell,
						   .speaks_first = true };
	static const struct ss_clock_options from = { .start_ms = 5000 };
	struct ss_config config = simulated(&handler, _i);
	config.transport = &ss_memory_server;
	use_first(&config, &ss_clock_mixin, &from);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	char got[TEXT] = "";
	ck_assert_int_eq(ss_now(server), 5000);
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_int_gt(ss_memory_recv(client, got, sizeof(got)), 0);
	ck_assert_str_eq(got, "36000000\n");
	ck_assert_int_eq(ss_now(server), 36005000);
	ck_assert_int_eq(ss_clock_set(server, 5), -EINVAL);
	ck_assert_int_eq(ss_clock_set(server, 40000000), 0);
	ck_assert_int_eq(ss_now(server), 40000000);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(clock_needs_memory)
{
	struct ss_config config =
		config_of(&models[0], &transports[0], &ss_echo_handler);
	use_first(&config, &ss_clock_mixin, NULL);
	refused(&config, -EINVAL, "clock");
	config = simulated(&ss_echo_handler, false);
	config.transport = &ss_memory_server;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_clock_set(server, 5), -ENOTSUP);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- the programs ---------------------------------------------------------*/

START_TEST(demo_finds_its_bug)
{
	static struct ended got;
	program_run(&got, "", ARGV(demo("simulate")));
	ck_assert_msg(got.status == 0, "%d: %s", got.status, got.err);
	int seed = 0;
	const char *found = strstr(got.out, "seed ");
	ck_assert_msg(found && sscanf(found, "seed %d, at", &seed) == 1 &&
			      seed > 1,
		      "%s", got.out);
	/* The replay ends alike, and its trace has been shown. */
	char again[TEXT];
	snprintf(again, sizeof(again), "again: seed %d, at ", seed);
	ck_assert_msg(strstr(got.out, again), "%s", got.out);
	ck_assert_msg(strstr(got.out, " client "), "%s", got.out);
	ck_assert_msg(strstr(got.out, "mended: 200 seeds, and nothing found"),
		      "%s", got.out);
}
END_TEST

Suite *t_sim(void)
{
	Suite *suite = suite_create("t_sim");
	TCase *tcase = suite_case(suite, "scenarios", NULL, NULL);
	tcase_add_loop_test(tcase, scenario_holds, 0, scenario_count);
	tcase_add_test(tcase, one_seed_one_run);
	tcase = suite_case(suite, "failures", NULL, NULL);
	tcase_add_loop_test(tcase, failures_are_told, 0, 2);
	tcase_add_test(tcase, requests_that_stay_are_found);
	tcase_add_test(tcase, invariants_are_asked);
	tcase_add_test(tcase, what_needs_threads_is_refused);
	tcase = suite_case(suite, "layers", NULL, NULL);
	tcase_add_loop_test(tcase, chaos_loses_nothing, 0, model_count);
	tcase_add_test(tcase, chaos_keeps_its_word);
	tcase_add_loop_test(tcase, hours_take_no_time, 0, 2);
	tcase_add_test(tcase, clock_needs_memory);
	tcase = suite_case(suite, "demo", NULL, NULL);
	tcase_add_test(tcase, demo_finds_its_bug);
	return suite;
}
