/*
 * The file of a recording, as it is written.
 *
 * All processes of the server append to one open file, a record by one
 * writev(2) (O_APPEND: each goes to the end that the one before it has made).
 * Nothing is kept back, so that a crash loses nothing that a handler has seen.
 * How much may be written is claimed beforehand in memory that they share.
 */
#ifndef SS_MIXIN_RECORD_WRITER_H
#define SS_MIXIN_RECORD_WRITER_H

#include <stdatomic.h>

#include "record_file.h"

/* What a connection's end may take, and the file's: claimed at once. */
enum { WRITER_LEFT_OUT = RECORD_HEAD + 17, WRITER_END = RECORD_HEAD + 4 };

struct writer_shared {
	atomic_ullong connections, bytes, claimed;
	atomic_ullong left_connections, left_bytes;
	atomic_int error;
};

struct writer {
	struct ss_server *server;
	int64_t max_file;
	int stall_ms;
	/* By writer_open. */
	struct writer_shared *shared;
	char *path;
	int fd;
	int64_t began;
	bool begun;
};

/* Makes the file, and begins it: 0, or why the server is refused; then there is
 * nothing to close. */
int writer_open(struct writer *writer, const char *path);
void writer_close(struct writer *writer, bool unlinks);

/* By the server's clock, once all layers have begun. */
void writer_begin_clock(struct writer *writer);

/* Whether so many bytes are still to have a place there. */
bool writer_claim(struct writer *writer, uint64_t n);
/* iov[0] is for the head; the place has been claimed. */
void writer_put(struct writer *writer, struct record *record, struct iovec *iov,
		int count, size_t size);
/* A record of a fixed size. */
void writer_put_small(struct writer *writer, struct record record,
		      const void *body, size_t size);
void writer_put_left_out(struct writer *writer, uint64_t id, uint64_t in,
			 uint64_t out, unsigned char reason);
void writer_put_error(struct writer *writer, uint64_t id, unsigned kind,
		      unsigned flags, int error);

/* At the end: in the file and in the log. */
void writer_tell_left_out(struct writer *writer);

#endif
