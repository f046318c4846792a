/* What the process was given when it was started: start.c, notify.c. */
#ifndef SS_LIB_START_H
#define SS_LIB_START_H

#include "internal.h"

enum { START_NAME = 256 };

/* What SS_RESTARTED says of a listener: SS_LISTENER_REMOVES, _ANY_PORT. */
enum { START_REMOVES = 'r', START_ANY_PORT = 'p' };

/* A socket that was given. */
struct given {
	int fd;
	bool taken;
	unsigned flags;	  /* of SS_LISTENER_*, those that came along */
	char address[16]; /* "fd:N" */
	char name[START_NAME];
};

struct ss_start {
	struct given *given;
	int count;
	/* Given instead of a listener; -1: none.  len 0: as the socket says. */
	int connection;
	struct ss_address peer, local;

	int ready_fd; /* who waits for us to be ready; -1: nobody */

	int notify_fd;	 /* connected; < 0: nobody is to be told */
	int watchdog_ms; /* tell at least so often; 0: no need */
};

/* start.c: the servers of a run are what the process was restarted for. */
void start_take_over(const struct run *run);

/* notify.c */
void notify_open(struct ss_start *start);
/* start may be NULL. */
void notify(struct ss_start *start, const char *fmt, ...) SS_PRINTF(2, 3);

#endif
