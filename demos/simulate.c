/*
 * A bug that nearly never shows, found by a simulation.  A box office sells ten
 * seats: its handler looks whether one is left, answers, and then takes it.
 * While it answers it may have to wait, and somebody else may be sold the same
 * seat.  By hand that takes a customer whose connection is clogged at the very
 * moment; a simulation tries orders of events until it has one, tells its seed,
 * and plays that again, with all that happens.
 *
 *	simulate	finds it, plays it again, and tries the mended handler
 *	simulate SEED	plays that seed, with all that happens
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <socketserver/socketserver.h>

enum { SEATS = 10, CUSTOMERS = 12, SEEDS = 200 };

struct office {
	int left;
};

static struct office *office_of(struct ss_request *req)
{
	return ss_server_user(ss_request_server(req));
}

static int sell(struct ss_request *req)
{
	struct office *office = office_of(req);
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));

	if (n <= 0)
		return (int)n;
	if (office->left == 0)
		return ss_printf(req, "sold out\n") < 0 ? -EPIPE : 0;
	n = ss_printf(req, "seat %d is yours\n", office->left);
	office->left--;
	return n < 0 ? (int)n : 0;
}

/* What is looked at and what is done about it, with no call between. */
static int sell_mended(struct ss_request *req)
{
	struct office *office = office_of(req);
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));

	if (n <= 0)
		return (int)n;
	int seat = office->left;
	if (seat > 0)
		office->left--;
	n = seat > 0 ? ss_printf(req, "seat %d is yours\n", seat)
		     : ss_printf(req, "sold out\n");
	return n < 0 ? (int)n : 0;
}

static void customer(struct ss_sim_client *client, void *arg)
{
	char answer[64];

	(void)arg;
	ss_sim_connect(client);
	ss_sim_say(client, "one, please\n");
	while (ss_sim_recv(client, answer, sizeof(answer), SS_NONE) > 0)
		;
}

/* Asked after every step. */
static int honest(void *arg, struct ss_sim *sim)
{
	const struct office *office = arg;

	if (office->left >= 0)
		return 0;
	return ss_sim_fail(sim, "%d seats sold, of %d", SEATS - office->left,
			   SEATS);
}

static void print(void *arg, const char *line)
{
	(void)arg;
	printf("    %s\n", line);
}

/* 0, or what went wrong. */
static int play(int (*handle)(struct ss_request *req), uint64_t seed, bool show,
		struct ss_diag *why)
{
	const struct ss_handler handler = { .name = "box office",
					    .handle = handle };
	struct office office = { SEATS };
	const struct ss_config config = {
		.mixins = { { &ss_fiber_mixin, NULL } },
		.handler = &handler,
		.user = &office,
		.log_level = SS_NONE,
	};
	const struct ss_sim_options options = {
		.seed = seed,
		.check = honest,
		.trace = show ? print : NULL,
		.arg = &office,
	};
	struct ss_sim *sim;
	int r = ss_sim_new(&sim, &config, &options, why);

	if (r < 0)
		return r;
	for (int i = 0; i < CUSTOMERS; i++)
		ss_sim_add(sim, 0, customer, NULL);
	r = ss_sim_run(sim, SS_NONE, why);
	ss_sim_free(sim);
	return r;
}

int main(int argc, char **argv)
{
	struct ss_diag why;
	uint64_t seed = 1;

	if (argc > 1) {
		char *end;

		seed = strtoull(argv[1], &end, 10);
		if (argc > 2 || end == argv[1] || *end != '\0') {
			fputs("usage: simulate [SEED]\n", stderr);
			return 2;
		}
		int r = play(sell, seed, true, &why);
		printf("%s\n", r < 0 ? why.text : "nothing found");
		return r < 0;
	}
	while (seed <= SEEDS && play(sell, seed, false, &why) == 0)
		seed++;
	if (seed > SEEDS) {
		fprintf(stderr, "simulate: nothing found\n");
		return 1;
	}
	printf("found: %s\n", why.text);
	play(sell, seed, true, &why);
	printf("again: %s\n", why.text);
	for (seed = 1; seed <= SEEDS; seed++)
		if (play(sell_mended, seed, false, &why) < 0) {
			fprintf(stderr, "simulate: mended: %s\n", why.text);
			return 1;
		}
	printf("mended: %d seeds, and nothing found\n", SEEDS);
	return 0;
}
