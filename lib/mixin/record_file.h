/*
 * A recording as it lies in a file: from bytes to records and back, without
 * files or memory of its own.  ss_record(3) has the format.
 */
#ifndef SS_MIXIN_RECORD_FILE_H
#define SS_MIXIN_RECORD_FILE_H

#include <socketserver/record.h>

enum {
	RECORD_FILE_HEAD = 16,
	RECORD_FILE_VERSION = 1,
	RECORD_HEAD = 28,
	RECORD_MOST = 1 << 20,	/* bytes of a chunk; longer ones are several */
	RECORD_STRETCH = 8,	/* two numbers: what was redacted */
	RECORD_STRETCHES = 256, /* of a chunk, at most */
	RECORD_REDACTED = 8,	/* two numbers before those */
	RECORD_BEGIN = 0,	/* beside enum ss_recorded_kind */
};

enum record_flags {
	RECORD_IS_DGRAM = 1,	/* OPEN */
	RECORD_STOPPING = 1,	/* END */
	RECORD_IS_REDACTED = 1, /* INPUT, OUTPUT, ELSEWHERE */
};

/* What a record says; of its kind only what that has. */
struct record {
	unsigned kind, flags;
	uint64_t id;
	uint64_t at_us;
	const unsigned char *text; /* BEGIN: server; OPEN: peer; ELSEWHERE: to
				    */
	size_t text_size;
	const unsigned char *bytes; /* kept */
	size_t kept, size;
	const unsigned char *hidden; /* stretches, as they lie there */
	uint32_t hidden_count;
	int error;
	uint64_t began_ms; /* BEGIN, and its process */
	uint32_t pid;
	unsigned reason;	    /* LEFT_OUT */
	uint64_t left_in, left_out; /* id 0: connections, bytes */
};

void record_put_file_head(unsigned char to[RECORD_FILE_HEAD]);
/* 0, or -EBADMSG and why. */
int record_check_file_head(const void *bytes, size_t n, const char **why);

/* The head of a record whose `size` bytes are in iov. */
void record_put_head(unsigned char to[RECORD_HEAD], const struct record *record,
		     const struct iovec *iov, int count, size_t size);

/*
 * The record at *at of n bytes, of which the head of the file is the first
 * part; *at is behind it then.  1; 0: there is none, n is the end; -EBADMSG and
 * why: it is damaged, and *at stays.
 */
int record_next(const void *bytes, size_t n, size_t *at, struct record *record,
		const char **why);

void record_put16(unsigned char *to, uint32_t value);
void record_put32(unsigned char *to, uint32_t value);
void record_put64(unsigned char *to, uint64_t value);
uint32_t record_get32(const unsigned char *from);

#endif
