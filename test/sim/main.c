/*
 * Plays the scenarios over many seeds:
 *
 *	simulate [-n SEEDS] [-s SEED] [-t] [SCENARIO ...]
 *
 * Seeds from 1 on, or that one alone, which -t traces to standard output.  Each
 * seed is played twice now and then: the same seed must give the same run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scenarios.h"

enum { TWICE = 16 };

static void print(void *world, const char *line)
{
	(void)world;
	puts(line);
}

static int play(const struct scenario *scenario, uint64_t seed, bool trace)
{
	struct ss_diag why;
	uint64_t digest = 0, again = 0;
	int r = scenario_play(scenario, seed, trace ? print : NULL, &digest,
			      &why);
	bool twice = r == 0 && (trace || seed % TWICE == 0);
	if (twice && (scenario_play(scenario, seed, NULL, &again, &why) ||
		      again != digest)) {
		snprintf(why.text, sizeof(why.text),
			 "seed %llu: a second run is another",
			 (unsigned long long)seed);
		r = -1;
	}
	if (r == 0)
		return 0;
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", scenario->name, why.text);
	fprintf(stderr, "again: make simulate SCENARIO=%s SEED=%llu\n",
		scenario->name, (unsigned long long)seed);
	return 1;
}

static int play_all(const struct scenario *scenario, uint64_t first,
		    uint64_t count)
{
	int failures = 0;
	for (uint64_t i = 0; i < count && failures < 3; i++)
		failures += play(scenario, first + i, false);
	printf("%-10s %llu seeds from %llu%s\n", scenario->name,
	       (unsigned long long)count, (unsigned long long)first,
	       failures ? ": FAILED" : "");
	fflush(stdout);
	return failures;
}

int main(int argc, char **argv)
{
	uint64_t count = 100, first = 1;
	bool trace = false;
	for (int c; (c = getopt(argc, argv, "n:s:f:t")) != -1;) {
		if (c == 'n')
			count = strtoull(optarg, NULL, 10);
		else if (c == 's' || c == 'f')
			first = strtoull(optarg, NULL, 10);
		else if (c == 't')
			trace = true;
		else
			return 2;
		if (c == 's')
			count = 1;
	}
	int failures = 0, named = argc - optind;
	for (int i = 0; i < (named ? named : scenario_count); i++) {
		const struct scenario *scenario =
			named ? scenario_named(argv[optind + i])
			      : &scenarios[i];
		if (!scenario) {
			fprintf(stderr, "no scenario %s\n", argv[optind + i]);
			return 2;
		}
		failures += trace ? play(scenario, first, true)
				  : play_all(scenario, first, count);
	}
	return failures != 0;
}
