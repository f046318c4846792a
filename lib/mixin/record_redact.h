/*
 * What is written of a chunk that the user's function has changed: the copy
 * that he was given, and before it where that differs.
 */
#ifndef SS_MIXIN_RECORD_REDACT_H
#define SS_MIXIN_RECORD_REDACT_H

#include "record_file.h"

/* The first n bytes of them, in one piece. */
void redact_flatten(unsigned char *to, const struct iovec *iov, int count,
		    size_t n);

/* What is to be written of the chunk, as iov[0] and iov[1]; NULL: no memory,
 * and nothing may be.  To be freed. */
unsigned char *redact_chunk(const struct ss_record_options *options,
			    struct ss_record_chunk *chunk,
			    const struct iovec *from, int from_count,
			    struct record *record, struct iovec *iov);

#endif
