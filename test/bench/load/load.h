/*
 * The load generator: many clients in one epoll loop, as cheap as they get.
 * What a client says is a stretch of one random stream, so that every byte of
 * the echo can be compared in place.
 */
#ifndef SS_BENCH_LOAD_H
#define SS_BENCH_LOAD_H

#include "../bench.h"
#include "histogram.h"

#include <stdbool.h>

#define MS INT64_C(1000000) /* ns */

enum { LOAD_DEPTH = 1024 }; /* messages that a client may have under way */

struct client {
	int fd;
	uint32_t events;
	bool waits;    /* for room in the server's backlog (Unix) */
	bool closing;  /* waits for end of file */
	uint64_t base; /* where in the pool its stream begins */
	/* Bytes of its stream, over all its connections: may go, gone, back. */
	uint64_t limit, sent, got;
	int64_t connected; /* when it did so first */
	int64_t served;	   /* when its first echo was complete; 0: never */
	int64_t *began;	   /* of the messages under way, a ring of `depth` */
};

struct load {
	/* what is asked */
	struct bench_address address;
	size_t size;
	int depth, clients_max;
	uint64_t seed;
	int sources, first_source; /* 127.0.0.0/8, from 127.0.0.1 on */
	bool connects;		   /* a connection per message */
	bool timed;		   /* times are counted */
	/* A client's message came back whole; it may begin the next. */
	void (*next)(struct load *load, struct client *client, int64_t now);

	/* what happens */
	int ep, waiting, alive;
	uint64_t under_way; /* messages */
	uint64_t source;
	struct client *clients;
	unsigned char *pool;

	/* what is found */
	uint64_t messages, errors, lost;
	char error[160];
	struct histogram times;
};

/* Allocates what the numbers asked for need. */
void load_init(struct load *load);

/* Connects; later where the backlog is full, and then `next` is called. */
void client_start(struct load *load, struct client *client, int64_t now);
/* Connects, waiting; false: it failed. */
bool client_connect(struct load *load, struct client *client);
/* Sends n more messages. */
void client_say(struct load *load, struct client *client, int n, int64_t now);
void client_hang_up(struct load *load, struct client *client);

/* Waits for events, at most so long, and handles them. */
void load_turn(struct load *load, int wait_ms);
/* Those whom the backlog had no room for, and lost datagrams. */
void load_tend(struct load *load, int64_t now, bool start);

/* A closed loop over all clients; true: no error.  Prints what it found. */
struct measure {
	const char *mode;
	double seconds, warmup;
	uint64_t count; /* of messages, 0: no limit */
	pid_t server;
	double in_time; /* seconds that a client may wait to be served */
};
bool measure_run(struct load *load, const struct measure *measure);

/* Holds all clients, and does what standard input says. */
bool hold_run(struct load *load);

#endif
