/* Recordings that a test makes up, record by record. */
#ifndef SS_TEST_RECORDINGS_H
#define SS_TEST_RECORDINGS_H

#include "support.h"

/* The file so far. */
struct made_up {
	unsigned char bytes[1 << 16];
	size_t size;
	uint64_t at_ms; /* of what is added from now on */
};
extern struct made_up made_up;

/* Begins it. */
void make_up(void);
/* A record of that kind, with its check; one of no more than a text. */
void add(unsigned kind, unsigned flags, uint64_t id, const void *body,
	 size_t n);
void add_text(unsigned kind, uint64_t id, const char *text);
/* OPEN, of a stream from nowhere, and END without an error. */
void add_open(uint64_t id);
void add_end(uint64_t id);
void made_up_write(const char *path);

#endif
