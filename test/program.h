/*
 * Programs run for real: started with their standard descriptors at hand, fed,
 * read line by line, ended by their pid.  Every wait is bounded by WAIT_MS,
 * and none of them outlives the test.
 */
#ifndef SS_TEST_PROGRAM_H
#define SS_TEST_PROGRAM_H

#include "support.h"

/* Where a standard descriptor may lead instead of to a pipe of ours; any other
 * text is a file's path. */
#define TO_CLOSED "-" /* it is not open */
#define TO_NOBODY "|" /* a pipe without a reader */
#define TO_FULL "||"  /* a pipe that is full and has a reader who does not */
#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })

struct program {
	/* Set before the start; zero: a pipe of ours. */
	const char *in_from, *out_to, *err_to;
	bool own_group; /* a process group of its own, as a terminal's job */

	pid_t pid;
	int in, out, err; /* our ends of the pipes; -1: none */
	int kept;	  /* TO_FULL's reading end */
};

enum { PROGRAM_OUT = 2 << 20, PROGRAM_ERR = 1 << 16, PROGRAM_LINE = 1024 };

/* What became of a program: how it ended (128 + signal if killed), and what
 * it printed that was not read before, without what its log tells of the
 * machine (log_of_a_busy_machine); both texts end in NUL. */
struct ended {
	int status;
	size_t out_size, err_size;
	char out[PROGRAM_OUT + 1];
	char err[PROGRAM_ERR + 1];
};

/* $SS_BUILD/demos/NAME, or stacked/NAME (stack.h); good until the fourth call
 * after it. */
const char *demo(const char *name);

/* argv[0] is looked for in PATH. */
void program_start(struct program *program, const char *const argv[]);

/* The next line of standard output, of standard error; without its newline,
 * good until the next call. */
const char *program_line(struct program *program);
const char *program_error(struct program *program);
/* Reads standard error up to a line with this text in it; that line. */
const char *program_tells(struct program *program, const char *text);

/* A demo server's first line, that it listens: its URL, good until the next
 * call. */
const char *program_listening(struct program *program);

/* Feeds n bytes and end of file, collects what it prints, waits for its end. */
void program_feed(struct program *program, const void *input, size_t n,
		  struct ended *ended);
/* The same without input. */
void program_wait(struct program *program, struct ended *ended);
/* The same after a signal. */
void program_stop(struct program *program, int signal, struct ended *ended);
/* From start to end: `input` is all that it reads. */
void program_run(struct ended *ended, const char *input,
		 const char *const argv[]);

#endif
