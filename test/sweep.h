/*
 * Every call of the library that can fail, made to fail: a scenario is run
 * again and again, and in each run the n-th such call since `armed` fails, by
 * one of the errors that it may have, once or from then on, until a run needs
 * no fault any more.
 */
#ifndef SS_TEST_SWEEP_H
#define SS_TEST_SWEEP_H

#include "support.h"

/* In memory that all processes of a run share. */
struct sweep {
	atomic_bool armed;
	atomic_int count; /* of calls since then that can fail */
	int at;		  /* the one that does */
	int way;	  /* by this one of its errors */
	bool lasting;	  /* others of its name do, too, from then on */
	pid_t spared;	  /* the test's own process, where nothing fails */
	atomic_int call;  /* which it was; 0: there were not so many */
	atomic_int code;  /* its errno; 0: it has no such way to fail */
};
extern struct sweep *sweep;

/* Takes the place of the table, in this process and its children. */
void sweep_install(void);

/* Runs the scenario for every fault, or for every so many'th call's from the
 * first on.  Returns how many there were. */
int sweep_all(void (*scenario)(void *arg), void *arg, int first, int stride);

/* "call 12, accept: Too many open files, from then on" */
const char *sweep_tell(void);

#endif
