/*
 * Scenarios for simulations of the library itself: servers, their clients, and
 * what must hold whatever the seed.  Played by the runner (main.c, `make
 * simulate`) and, for some dozens of seeds, by the suite t_sim.
 */
#ifndef SS_TEST_SIM_SCENARIOS_H
#define SS_TEST_SIM_SCENARIOS_H

#include <socketserver/socketserver.h>

enum { CAST_MOST = 128 };

/* One play of one of them. */
struct world {
	struct ss_sim *sim;
	uint64_t lots; /* of what is chosen before it begins */
	bool fiber;
	struct ss_config config;
	struct ss_handler handler;
	struct ss_fiber_options fibers;
	struct ss_limits_options limits;
	struct ss_trace_options unheard;
	struct ss_sim_options options;
	int cast;  /* clients */
	int style; /* what else the scenario has chosen */
	int active, most_active, begun, done, refused;
	int64_t stopped_at; /* 0: it was not */
	int64_t last_end;
	struct part {
		uint64_t id; /* of its request; 0: none */
		int64_t struck_at;
		bool struck, woken;
		int mail[256], from[256], posted, read;
	} parts[CAST_MOST];
};

struct scenario {
	const char *name;
	/* The configuration and options; the clients; what holds at each step,
	 * and in the end.  The last two may be NULL. */
	void (*prepare)(struct world *world);
	void (*enter)(struct world *world);
	int (*check)(void *world, struct ss_sim *sim);
	void (*judge)(struct world *world);
	bool fiber; /* it needs fibers */
};
extern const struct scenario scenarios[];
extern const int scenario_count;

const struct scenario *scenario_named(const char *name);

/* 0, or < 0 and why; the digest of the run.  trace may be NULL. */
int scenario_play(const struct scenario *scenario, uint64_t seed,
		  void (*trace)(void *world, const char *line),
		  uint64_t *digest, struct ss_diag *why);

#endif
