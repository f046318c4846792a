/*
 * What the suites of the guards share: a layer that counts who is being served,
 * in all processes, and one whose clients come from wherever a test says.
 */
#ifndef SS_TEST_GUARDS_H
#define SS_TEST_GUARDS_H

#include "support.h"

struct tally {
	atomic_int begun; /* verify_request, whatever came of it */
	atomic_int ended; /* end_request */
};
/* In shared memory; zeroed by tally_begin. */
extern struct tally *tally;
void tally_begin(void);
/* Leftmost: use_first. */
extern const struct ss_layer tally_layer;
/* All that began have ended, `begun` of them; SS_NONE: any number. */
void tally_even(int begun);

/* The peer of whoever comes next, "192.0.2.1:80"; NULL: as it is. */
extern const char *pretended;
extern const struct ss_layer pretend_layer;

/* The address as the library has it. */
struct ss_address address_of(const char *text);

/* served_start, and a worker is there, if it is to have one: who was forked
 * later would have our clients' sockets, too. */
void served_start_ahead(struct served *served, struct ss_config *config);

/* A client over memory sends a byte and its end: whether it came back. */
bool served_in_memory(struct ss_server *server);
/* The same over a socket. */
bool served_at(const char *url);

#endif
