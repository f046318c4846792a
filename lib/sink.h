/*
 * Where the lines of a log go: for log.c, which keeps each server's own, and
 * log_sink.c, which makes those of programs.
 */
#ifndef SS_LIB_SINK_H
#define SS_LIB_SINK_H

#include <socketserver/log.h>

#include <stdatomic.h>

#include "sys.h"

/*
 * A line is at most so long, its newline included, and so one that tells what
 * was dropped: both are written at once, and pipes take that as a whole
 * (PIPE_BUF).  In JSON all but the message has room in NOTE_JSON.
 */
enum { LINE_PLAIN = 1024, NOTE_PLAIN = 160, LINE_JSON = 2048, NOTE_JSON = 640 };

/* What did not fit; in memory that the processes share. */
struct tally {
	atomic_ullong dropped; /* ever */
	atomic_ullong untold;  /* of those, not told of in the log yet */
	atomic_bool torn;      /* the last line has no end */
};

struct sink {
	enum ss_log_to to;
	int facility;
	const char *ident;
	int fd;		     /* a file or socket; -1: standard error */
	bool no_stderr;	     /* when it was made */
	ino_t stderr_socket; /* the same; 0: it was none */
	dev_t journal_dev;   /* of $JOURNAL_STREAM */
	ino_t journal_ino;   /* 0: none */
	const struct ss_address *daemon; /* syslog's */
};

/* What a line tells. */
struct told {
	int level;
	const struct ss_server *server; /* NULL: none */
	uint64_t id;			/* 0: none */
	const char *text;
};

/* sink.c */
void sink_init(struct sink *sink);
/* Whether it went; if not it was counted. */
bool sink_write(const struct sink *sink, struct tally *tally,
		const struct told *told);
/* What was not told yet, if anything. */
void sink_settle(const struct sink *sink, struct tally *tally);
/* -errno */
int sink_connect(const struct sink *sink);

/* line.c: into a buffer of that size, with a newline but for syslog; how long
 * it is.  `journal`: with its priority. */
size_t line_make(char *buf, size_t size, const struct sink *sink, bool journal,
		 const struct told *told);

#endif
