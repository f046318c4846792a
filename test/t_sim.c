/*
 * Simulation: some dozens of seeds of each scenario (or, where SS_LONG is set,
 * many more), and of the simulation itself that a seed decides all, that it
 * finds what it must find, and that chaos and the clock serve by themselves.
 */
#include "support.h"

#include <sys/socket.h>

#include <socketserver/fault.h>

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
	char byte;
	(void)arg;
	ck_assert_int_eq(ss_sim_send(client, "x", 1), -ENOTCONN);
	ck_assert_int_eq(ss_sim_recv(client, &byte, 1, 0), -ENOTCONN);
	ss_sim_say(client, "x");
	ck_abort_msg("came back");
}

static void connects_and_says(struct ss_sim_client *client)
{
	ss_sim_connect(client);
	ss_sim_say(client, "well\n");
}

static void expects_other(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	connects_and_says(client);
	ss_sim_hear(client, "when");
}

static void expects_unconnected(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ss_sim_hear(client, "%s", "what\n");
}

static void expects_the_end(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	connects_and_says(client);
	ss_sim_hear_end(client);
}

static void expects_no_reset(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ss_sim_hear_end(client);
}

static void says_too_much(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ss_sim_connect(client);
	ss_sim_say(client, "%5000d", 1);
}

static void fails_by_itself(struct ss_sim_client *client, void *arg)
{
	ck_assert_ptr_eq(ss_sim_of(client), arg);
	ss_sim_fail(ss_sim_of(client), "%d is %s", 7, "enough");
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
	finds(fiber, answer_little, expects_other, -EPROTO,
	      "client 1: expected \"wh");
	finds(fiber, answer_little, expects_other, -EPROTO, "\", got \"wha");
	finds(fiber, answer_little, expects_unconnected, -EPROTO,
	      "expected \"what.\", got Transport endpoint is not connected "
	      "after 0 bytes");
	finds(fiber, answer_little, expects_the_end, -EPROTO,
	      "client 1: expected the end, got \"w");
	finds(fiber, answer_little, expects_no_reset, -EPROTO,
	      "client 1: expected the end, got Transport endpoint is not");
	finds(fiber, answer_little, says_too_much, -EPROTO,
	      "client 1: text of 5000 bytes");
	finds(fiber, answer_little, fails_by_itself, -EPROTO,
	      "client 1: 7 is enough");
}
END_TEST

/* Nobody is left who could end it. */
START_TEST(requests_that_stay_are_found)
{
	finds(_i, wait_always, says_and_goes, -EDEADLK,
	      "requests that wait for ever: 1");
}
END_TEST

static int wait_for_input(struct ss_request *req)
{
	char byte;
	struct ss_wait wait = { .req = req, .events = POLLIN };
	ck_assert_int_eq(ss_wait_any(req, &wait, 1, SS_NONE), 1);
	ck_assert_int_eq(wait.revents, POLLIN);
	ck_assert_int_eq(ss_read(req, &byte, 1), 0);
	return 0;
}

static void says_nothing(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ss_sim_connect(client);
	ss_sim_wait(client, SS_NONE);
}

/* Where there is one after another it ends for want of time. */
START_TEST(input_ends_with_time)
{
	finds(false, wait_for_input, says_nothing, -EDEADLK,
	      "client 1 waits for ever");
}
END_TEST

/* Nor where the server closes, and has all the time that there is. */
static void says_and_stops(struct ss_sim_client *client, void *arg)
{
	connects_and_says(client);
	ss_sim_wait(client, 100);
	ss_shutdown(ss_sim_server(arg));
}

START_TEST(requests_that_outlive_the_server_are_found)
{
	struct ss_handler handler = { .handle = wait_always };
	struct ss_config config = simulated(&handler, true);
	struct ss_diag why;
	config.drain_ms = SS_NONE;
	ck_assert_int_eq(run_client(&config, says_and_stops, &why), -EDEADLK);
	ck_assert_msg(strstr(why.text, "requests that wait for ever: 1"), "%s",
		      why.text);
}
END_TEST

/* ---- a server that does not what it must ----------------------------------*/

static int forget_one(struct ss_server *server);
static int fail_to_close(struct ss_server *server);
static void never_rest(struct ss_server *server);

static const struct ss_layer broken[] = {
	{ .name = "forgetful", .ops = { .server_close = forget_one } },
	{ .name = "open", .ops = { .server_close = fail_to_close } },
	{ .name = "restless", .ops = { .service_actions = never_rest } },
};

static int forget_one(struct ss_server *server)
{
	return ss_super(server, &broken[0])->server_close(server) + 1;
}

static int fail_to_close(struct ss_server *server)
{
	ss_super(server, &broken[1])->server_close(server);
	return -EIO;
}

static void never_rest(struct ss_server *server)
{
	ss_turn_now(server);
}

static const struct {
	int code;
	const char *text;
} breaks[] = {
	{ -EDEADLK, "requests abandoned: 1" },
	{ -EIO, "the server is not closed: Input/output error" },
	{ -ELOOP, "the server turns, and nothing comes of it" },
};
enum { BROKEN = sizeof(breaks) / sizeof(*breaks) };

START_TEST(broken_servers_are_found)
{
	struct ss_config config = simulated(&ss_echo_handler, true);
	struct ss_diag why;
	config.mixins[1] = (struct ss_use){ &broken[_i], NULL };
	ck_assert_int_eq(run_client(&config, says_and_goes, &why),
			 breaks[_i].code);
	ck_assert_msg(strstr(why.text, breaks[_i].text), "%s", why.text);
}
END_TEST

/* Behind the simulation's back; within a turn it is refused. */
static int close_it(void *arg, struct ss_sim *sim)
{
	int *closed = arg;
	*closed += ss_server_close(ss_sim_server(sim)) == 0;
	return 0;
}

START_TEST(servers_that_others_close_are_found)
{
	struct ss_config config = simulated(&ss_echo_handler, _i);
	int closed = 0;
	struct ss_sim_options options = { .check = close_it, .arg = &closed };
	struct ss_sim *sim;
	struct ss_diag why;
	ck_assert_int_eq(ss_sim_new(&sim, &config, &options, &why), 0);
	ck_assert_int_eq(ss_sim_add(sim, 10, says_and_goes, NULL), 1);
	ck_assert_int_eq(ss_sim_run(sim, SS_NONE, &why), -EBADF);
	ck_assert_int_gt(closed, 0);
	ck_assert_msg(strstr(why.text, "the server's turn: Bad file"), "%s",
		      why.text);
	ss_sim_free(sim);
}
END_TEST

/* ---- what a stop cuts off -------------------------------------------------*/

static struct {
	int64_t stopped_at, ended_at;
	ssize_t result;
} cut_off;

static int write_far_too_much(struct ss_request *req)
{
	static char much[300000];
	cut_off.result = ss_write(req, much, sizeof(much));
	cut_off.ended_at = ss_now(ss_request_server(req));
	return (int)cut_off.result;
}

static void never_reads(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ss_sim_connect(client);
	ss_sim_wait(client, 60000);
}

static void stops_it(struct ss_sim_client *client, void *arg)
{
	(void)client;
	cut_off.stopped_at = ss_now(ss_sim_server(arg));
	ss_shutdown(ss_sim_server(arg));
}

/* A moment after it was told that its time is over. */
START_TEST(writes_that_wait_end_with_the_server)
{
	static const struct ss_handler handler = { .handle = write_far_too_much,
						   .speaks_first = true };
	struct ss_config config = simulated(&handler, _i);
	struct ss_sim *sim;
	struct ss_diag why;
	config.drain_ms = 700;
	ck_assert_int_eq(ss_sim_new(&sim, &config, NULL, &why), 0);
	ck_assert_int_eq(ss_sim_add(sim, 10, never_reads, sim), 1);
	ck_assert_int_eq(ss_sim_add(sim, 1000, stops_it, sim), 2);
	ck_assert_msg(ss_sim_run(sim, SS_NONE, &why) == 0, "%s", why.text);
	ss_sim_free(sim);
	ck_assert_int_eq(cut_off.result, -ECANCELED);
	ck_assert_int_eq(cut_off.ended_at - cut_off.stopped_at, 700 + 250);
}
END_TEST

/* ---- clients that outlive the server --------------------------------------*/

static void comes_late(struct ss_sim_client *client, void *arg)
{
	ss_shutdown(ss_sim_server(arg));
	ss_sim_wait(client, 5000);
	ck_assert_int_eq(ss_sim_connect(client), -ECONNREFUSED);
}

static void waits_always(struct ss_sim_client *client, void *arg)
{
	ss_shutdown(ss_sim_server(arg));
	ss_sim_wait(client, SS_NONE);
}

START_TEST(clients_go_on_without_the_server)
{
	struct ss_config config = simulated(&ss_echo_handler, _i);
	struct ss_sim *sim;
	struct ss_diag why;
	ck_assert_int_eq(ss_sim_new(&sim, &config, NULL, &why), 0);
	ck_assert_int_eq(ss_sim_add(sim, 10, comes_late, sim), 1);
	ck_assert_int_eq(ss_sim_run(sim, 1000, &why), 1);
	ck_assert_int_eq(ss_now(ss_sim_server(sim)), 1000);
	ck_assert_int_eq(ss_sim_run(sim, SS_NONE, &why), 0);
	ck_assert_int_ge(ss_now(ss_sim_server(sim)), 5010);
	ss_sim_free(sim);
	ck_assert_int_eq(run_client(&config, waits_always, &why), -EDEADLK);
	ck_assert_msg(strstr(why.text, "client 1 waits for ever"), "%s",
		      why.text);
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
	static const struct ss_layer thread = { .name = "thread",
						.flags = SS_LAYER_DISPATCHES };
	config.mixins[0].layer = &thread;
	ck_assert_int_eq(ss_sim_new(&sim, &config, NULL, &why), -EINVAL);
	ck_assert_msg(strstr(why.text, "one thread"), "%s", why.text);
}
END_TEST

START_TEST(layers_need_room)
{
	static const struct ss_layer plain[SS_MIXINS_MAX];
	struct ss_config config = { .handler = &ss_echo_handler };
	struct ss_sim *sim;
	struct ss_diag why;
	for (int i = 0; i < SS_MIXINS_MAX - 2; i++)
		config.mixins[i].layer = &plain[i];
	ck_assert_int_eq(ss_sim_new(&sim, &config, NULL, &why), -EINVAL);
	ck_assert_str_eq(why.text, "simulation: no room for its layers");
	ck_assert_int_eq(ss_sim_new(&sim, &config, NULL, NULL), -EINVAL);
}
END_TEST

START_TEST(what_is_newer_is_refused)
{
	struct {
		struct ss_config config;
		struct ss_sim_options options;
		int newer;
	} program = { .newer = 1 };
	struct ss_sim *sim;
	struct ss_diag why;
	ck_assert_int_eq(ss_sim_new_sized(&sim, &program.config,
					  sizeof(program.config) + 8, NULL, 0,
					  &why),
			 -E2BIG);
	ck_assert_str_eq(why.text, "simulation: made for a newer library");
	ck_assert_int_eq(ss_sim_new_sized(&sim, &program.config,
					  sizeof(program.config),
					  &program.options,
					  sizeof(program.options) + 8, NULL),
			 -E2BIG);
}
END_TEST

/* ---- by which transport, how fast -----------------------------------------*/

static void sends_packets(struct ss_sim_client *client, void *arg)
{
	char got[TEXT];
	(void)arg;
	ck_assert_int_eq(ss_sim_connect(client), 0);
	ss_sim_say(client, "one");
	ss_sim_say(client, "two");
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(ss_sim_recv(client, got, sizeof(got), 1000),
				 3);
}

/* It is in memory, but of the kind that the addresses say. */
START_TEST(addresses_say_which_transport)
{
	static const struct ss_sim_options calm = { .no_chaos = true };
	struct ss_config config = simulated(&ss_echo_handler, _i);
	struct ss_sim *sim;
	struct ss_diag why;
	config.addresses[0] = "udp://127.0.0.1:7";
	ck_assert_int_eq(ss_sim_new(&sim, &config, &calm, &why), 0);
	ck_assert_int_eq(ss_sim_add(sim, 10, sends_packets, NULL), 1);
	ck_assert_msg(ss_sim_run(sim, SS_NONE, &why) == 0, "%s", why.text);
	ss_sim_free(sim);
}
END_TEST

enum { MUCH = 300000 };

static int answer_much(struct ss_request *req)
{
	static char much[MUCH];
	ssize_t n = ss_write(req, much, sizeof(much));
	ck_assert_int_eq(n, MUCH);
	return 0;
}

static void receives_much(struct ss_sim_client *client, void *arg)
{
	static char got[MUCH];
	ssize_t r, n = 0;
	(void)arg;
	ck_assert_int_eq(ss_sim_connect(client), 0);
	ss_sim_wait(client, 1000);
	while ((r = ss_sim_recv(client, got, sizeof(got), 0)) > 0)
		n += r;
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(n, MUCH);
}

/* Nothing is on its way, and all that is written has room. */
START_TEST(wires_may_be_short_and_wide)
{
	static const struct ss_handler handler = { .handle = answer_much,
						   .speaks_first = true };
	static const struct ss_sim_options options = { .no_chaos = true,
						       .latency_ms = SS_NONE,
						       .window = SS_NONE };
	struct ss_config config = simulated(&handler, _i);
	struct ss_sim *sim;
	struct ss_diag why;
	ck_assert_int_eq(ss_sim_new(&sim, &config, &options, &why), 0);
	ck_assert_int_eq(ss_sim_add(sim, 10, receives_much, NULL), 1);
	ck_assert_msg(ss_sim_run(sim, SS_NONE, &why) == 0, "%s", why.text);
	ck_assert_int_eq(ss_now(ss_sim_server(sim)), 1011);
	ss_sim_free(sim);
}
END_TEST

/* ---- without memory -------------------------------------------------------*/

static void talks(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	if (ss_sim_connect(client) < 0)
		ss_sim_fail(ss_sim_of(client), "not connected");
	ss_sim_say(client, "well\n");
	ss_sim_hear(client, "WELL\n");
	ss_sim_shutdown(client);
	ss_sim_hear_end(client);
}

static void leaves(struct ss_sim_client *client, void *arg)
{
	char byte;
	(void)arg;
	ss_sim_connect(client);
	ss_sim_send(client, "well\n", 5);
	ss_sim_recv(client, &byte, 1, 10);
	ss_sim_reset(client);
	ss_sim_connect(client);
	ss_sim_send(client, "so\n", 3);
}

static int simulate_once(void *arg, struct ss_diag *why)
{
	struct ss_config config =
		simulated(&ss_upper_handler, *(const int *)arg);
	struct ss_sim *sim;
	int r = ss_sim_new(&sim, &config, NULL, why);
	if (r < 0)
		return why->code == r && why->text[0] ? r : SS_FAULT_WRONG;
	for (int i = 0; r >= 0 && i < 70; i++)
		r = ss_sim_add(sim, i, i % 2 ? talks : leaves, NULL);
	if (r >= 0)
		r = ss_sim_run(sim, SS_NONE, why);
	ss_sim_free(sim);
	return r;
}

/* Of what is often asked for, some. */
static const struct ss_fault_options scarce[] = {
	{ .calls = "malloc calloc", .stride = 13 },
	{ .calls = "realloc" },
	{ .calls = "mmap" },
};
enum { SCARCE = sizeof(scarce) / sizeof(*scarce) };

/* It ends, by an error or well.  A fiber waits for its stack as long as there
 * is none. */
START_TEST(simulations_bear_faults)
{
	int fiber = _i % 2;
	struct ss_fault_options options = scarce[_i / 2];
	struct ss_diag why;
	options.modes = fiber ? SS_FAULT_ONCE : 0;
	int faults = ss_fault_sweep(&options, simulate_once, &fiber, &why);
	ck_assert_msg(faults > 1, "%d: %s", faults, why.text);
}
END_TEST

static int make_simulation(void *arg, struct ss_diag *why)
{
	struct ss_config config =
		simulated(&ss_upper_handler, *(const int *)arg);
	struct ss_sim *sim;
	int r = ss_sim_new(&sim, &config, NULL, why);
	if (r < 0 && (sim || why->code != r || !why->text[0]))
		return SS_FAULT_WRONG;
	ss_sim_free(sim);
	return r;
}

START_TEST(simulations_that_cannot_be_are_not_made)
{
	struct ss_diag why;
	int fiber = _i;
	int faults = ss_fault_sweep(NULL, make_simulation, &fiber, &why);
	ck_assert_msg(faults > 10, "%d: %s", faults, why.text);
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

static int sleep_long(struct ss_request *req)
{
	return ss_sleep(req, 3600000);
}

/* One that is held back to be overtaken, and for whom there is no place before
 * the end, goes with the server. */
START_TEST(chaos_keeps_nothing)
{
	static const struct ss_chaos_options swapping = { .reordered = 1000 };
	static const struct ss_handler handler = { .handle = sleep_long };
	struct ss_config config = {
		.transport = &ss_memory_datagram_server,
		.mixins = { { &ss_chaos_mixin, &swapping },
			    { &ss_fiber_mixin, &one_loop } },
		.handler = &handler,
		.max_active = 1,
		.drain_ms = 1,
		.log_level = SS_NONE,
	};
	struct ss_fault_state before;
	struct ss_memory_client *client;
	struct ss_stats stats;
	struct ss_diag why;
	ss_fault_look(&before);
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_int_eq(ss_memory_send(client, "one", 3), 3);
	ck_assert_int_eq(ss_memory_send(client, "two", 3), 3);
	ck_assert_int_ge(ss_server_turn(server, 0), 0);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_close(server), 0);
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.accepted, 1);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_msg(ss_fault_left(&before, &why) == 0, "%s", why.text);
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
	refused(&config, -EINVAL, "clock: time stands still over memory");
	static const struct ss_clock_options past = { .start_ms = -1 };
	config = simulated(&ss_echo_handler, false);
	config.transport = &ss_memory_server;
	use_first(&config, &ss_clock_mixin, &past);
	refused(&config, -EINVAL, "clock: start_ms is below 0");
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
	tcase_add_loop_test(tcase, requests_that_stay_are_found, 0, 2);
	tcase_add_test(tcase, input_ends_with_time);
	tcase_add_test(tcase, requests_that_outlive_the_server_are_found);
	tcase_add_loop_test(tcase, broken_servers_are_found, 0, BROKEN);
	tcase_add_loop_test(tcase, servers_that_others_close_are_found, 0, 2);
	tcase_add_loop_test(tcase, writes_that_wait_end_with_the_server, 0, 2);
	tcase_add_loop_test(tcase, clients_go_on_without_the_server, 0, 2);
	tcase_add_test(tcase, invariants_are_asked);
	tcase_add_test(tcase, what_needs_threads_is_refused);
	tcase_add_test(tcase, layers_need_room);
	tcase_add_test(tcase, what_is_newer_is_refused);
	tcase_add_loop_test(tcase, addresses_say_which_transport, 0, 2);
	tcase_add_loop_test(tcase, wires_may_be_short_and_wide, 0, 2);
	tcase_add_loop_test(tcase, simulations_that_cannot_be_are_not_made, 0,
			    2);
	tcase_add_loop_test(tcase, simulations_bear_faults, 0, 2 * SCARCE);
	tcase = suite_case(suite, "layers", NULL, NULL);
	tcase_add_loop_test(tcase, chaos_loses_nothing, 0, model_count);
	tcase_add_test(tcase, chaos_keeps_its_word);
	tcase_add_test(tcase, chaos_keeps_nothing);
	tcase_add_loop_test(tcase, hours_take_no_time, 0, 2);
	tcase_add_test(tcase, clock_needs_memory);
	tcase = suite_case(suite, "demo", NULL, NULL);
	tcase_add_test(tcase, demo_finds_its_bug);
	return suite;
}
