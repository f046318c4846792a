/* What the parts of a simulation share: the run, and its clients. */
#ifndef SS_LIB_TESTING_SIMULATION_H
#define SS_LIB_TESTING_SIMULATION_H

#include <socketserver/layers.h>
#include <socketserver/sim.h>

#include "../fiber/context.h"
#include "../fiber/stacks.h"
#include "agenda.h"
#include "dice.h"

struct ss_sim {
	struct ss_sim_options options;
	struct ss_server *server;
	struct dice dice;
	struct agenda agenda;
	uint64_t digest;
	struct ss_diag verdict; /* code 0: none yet */

	bool running;	      /* within ss_sim_run */
	bool closing, closed; /* the server is */
	int64_t stood_since;  /* the time at which so much has happened: */
	long steps;
	long idle_turns; /* of the server, since a client did something */
	int live;	 /* requests */

	struct stacks *stacks;
	struct context *back;	       /* who let a client go on */
	struct ss_sim_client *current; /* and which; NULL: none does */
	struct ss_sim_client *clients;
	struct wire *wires;
	int count; /* clients, ever */
	int left;  /* of those, not yet at their end */
};

/* How a client waits. */
enum pause {
	PAUSE_NONE,
	PAUSE_TIME,
	PAUSE_INPUT,
};

struct ss_sim_client {
	struct ss_sim *sim;
	struct ss_sim_client *next;
	int number;
	void (*run)(struct ss_sim_client *client, void *arg);
	void *arg;
	struct context context;
	void *stack; /* NULL: not begun, or ended */
	bool ended;
	enum pause pause;
	bool told;	/* that there is input: it is on its way to it */
	uint64_t waits; /* so many: what was to end an earlier one is late */
	struct wire *wire;
};

/* A line of the trace; who NULL: nobody in particular. */
void sim_note(struct ss_sim *sim, const char *who, int number, const char *fmt,
	      ...) SS_PRINTF(4, 5);
void sim_mix(struct ss_sim *sim, const void *data, size_t n);

/* The run has failed; the first reason counts. */
void sim_fail(struct ss_sim *sim, int code, const char *fmt, ...)
	SS_PRINTF(3, 4);

/* So many ms from now. */
void sim_after(struct ss_sim *sim, int64_t ms,
	       void (*happen)(void *what, uint64_t mark), void *what,
	       uint64_t mark);
/* On its way for so long. */
int64_t sim_latency(struct ss_sim *sim);

void clients_free(struct ss_sim *sim);
void wires_free(struct ss_sim *sim);

#endif
