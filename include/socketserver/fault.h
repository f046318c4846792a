/*
 * Every call of the library that can fail, made to fail: a scenario is run
 * again and again, and in each run the N-th such call fails, with each of the
 * errors that it may plausibly have, once or from then on, N = 1, 2, ... until
 * a run needs no fault any more.
 *
 * This is in libsocketserver-test.a alone (pkg-config socketserver-test), which
 * a test is linked with in the place of the library: it is the same, but that
 * its calls go through a table.  The first call of these functions comes before
 * the program has other threads; and there is one sweep at a time in it.
 */
#ifndef SOCKETSERVER_FAULT_H
#define SOCKETSERVER_FAULT_H

#include <stdbool.h>

#include <socketserver/common.h>

SS_BEGIN_DECLS

enum ss_fault_mode {
	SS_FAULT_ONCE = 1,    /* that call alone */
	SS_FAULT_LASTING = 2, /* it and, from then on, all of its name */
	SS_FAULT_ALL = 4,     /* it and, from then on, every other too */
};

/* What is looked at after each run. */
enum ss_fault_check {
	SS_FAULT_DESCRIPTORS = 1,
	SS_FAULT_THREADS = 2,
	SS_FAULT_CHILDREN = 4,
	SS_FAULT_MEMORY = 8, /* the library's own */
	SS_FAULT_CHECKS = 15,
};

struct ss_fault_options {
	/* The first call that fails, from 1 on, and then every so many'th;
	 * 0: the first, and every one. */
	int first, stride;
	/* Which calls may fail, and are counted: words such as "accept malloc".
	 * NULL: all that can. */
	const char *calls;
	/* What they fail with, an errno; 0: with each that is plausible. */
	int error;
	/* Of enum ss_fault_mode, or'ed; 0: ONCE and LASTING. */
	int modes;
	/* Of enum ss_fault_check, or'ed: what is not looked at. */
	int unchecked;
	/* How long what is on its way back is waited for; 0: 5000, SS_NONE: not
	 * at all. */
	int patience_ms;
	/* Nothing is counted, and nothing fails, until ss_fault_arm. */
	bool unarmed;
	/* Nothing fails in the process that sweeps, only in those that the
	 * scenario forks. */
	bool elsewhere;
};

/* Which call failed in this run. */
struct ss_fault {
	const char *call; /* its name */
	int at;		  /* which it was of those that may, from 1 on */
	int error;	  /* its errno */
	enum ss_fault_mode mode;
};

/* What a scenario returns where it has seen something that no fault excuses;
 * why->text says what. */
#define SS_FAULT_WRONG 1

/*
 * Runs the scenario twice without a fault, and then once for each fault.  It
 * returns
 *	0	all went as it should;
 *	< 0	it was told an error, -errno: right where a fault has struck;
 *	> 0	it has seen something wrong, whatever has struck.
 * It begins with nothing that the run before has left, and gives back all that
 * it takes.  `options` NULL: the defaults.
 *
 * Returns how many faults have struck.  -EPROTO: a run went wrong, and
 * why->text says which fault was in it, and what was wrong; no others are
 * tried.  -EINVAL: the options make no sense.  -ENOMEM.
 */
int ss_fault_sweep(const struct ss_fault_options *options,
		   int (*scenario)(void *arg, struct ss_diag *why), void *arg,
		   struct ss_diag *why);

/* ---- within a scenario, in any of its processes and threads ---------------*/

/* From here on, and up to here, calls may fail and are counted. */
void ss_fault_arm(void);
void ss_fault_disarm(void);

/* Whether a call has failed in this run; which, unless `fault` is NULL. */
bool ss_fault_struck(struct ss_fault *fault);

/* The same in words, "call 12, accept: Too many open files, from then on", in
 * a buffer of this thread's; "no call failed". */
const char *ss_fault_tell(void);

/* ---- what must come back --------------------------------------------------*/

/* What this process has; -1 where the system does not tell. */
struct ss_fault_state {
	int descriptors, threads, children;
	long bytes; /* of memory that the library has taken, mapped too */
};

/* Bytes are counted from the first call on. */
void ss_fault_look(struct ss_fault_state *state);

/* 0, or -EPROTO and what is more now, or of descriptors fewer; what is on its
 * way back is waited for, 5 s. */
int ss_fault_left(const struct ss_fault_state *before, struct ss_diag *why);

SS_END_DECLS
#endif
