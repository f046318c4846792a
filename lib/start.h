/* What the process was given when it was started: start.c, notify.c. */
#ifndef SS_LIB_START_H
#define SS_LIB_START_H

#include "internal.h"

enum { START_NAME = 256 };

/* A socket that was given. */
struct given {
	int fd;
	bool taken;
	char address[16]; /* "fd:N" */
	char name[START_NAME];
};

struct ss_start {
	struct given *given;
	int count;
	/* Given instead of a listener; -1: none.  len 0: as the socket says. */
	int connection;
	struct ss_address peer, local;

	int notify_fd;	 /* connected; < 0: nobody is to be told */
	int watchdog_ms; /* tell at least so often; 0: no need */
};

/* notify.c */
void notify_open(struct ss_start *start);
/* start may be NULL. */
void notify(struct ss_start *start, const char *fmt, ...) SS_PRINTF(2, 3);

#endif
