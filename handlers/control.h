/* Between control.c, which speaks the protocol, and its commands. */
#ifndef CONTROL_H
#define CONTROL_H

#include <socketserver/layers.h>

#include "handlers.h"

enum { CONTROL_WORDS = 6, CONTROL_WHY = 200 };

/* One line, and what becomes of it. */
struct call {
	struct ss_request *req;
	const struct ss_control *control;
	int argc;
	const char *argv[CONTROL_WORDS + 1]; /* argv[0]: the command */
	char why[CONTROL_WHY];		     /* not empty: it has failed */
	bool drain;			     /* once it is answered */
};

/* Commands return < 0 where nobody hears their answer any more, else 0. */
struct command {
	const char *name;
	const char *arguments, *help;
	int (*run)(struct call *call);
};
extern const struct command control_commands[]; /* up to a name of NULL */

/* Records why a command fails; 0. */
int control_fail(struct call *call, const char *fmt, ...) SS_PRINTF(2, 3);

/* A line, or a part of it, of the answer; < 0: nobody hears it. */
int control_say(struct call *call, const char *fmt, ...) SS_PRINTF(2, 3);

/* What others have named, as one word without escape sequences; in place. */
char *control_clean(char *text);

/* The servers that an argument names: all where it is NULL.  Of those from
 * *first to *last; false: it has been refused. */
bool control_servers(struct call *call, const char *name, int *first,
		     int *last);

/* Digits alone. */
bool control_number(const char *text, unsigned long long max,
		    unsigned long long *number);

#endif
