/*
 * Token buckets: so many requests in a time, and so many at once.  A bucket is
 * one number, when it will be full again (the generic cell rate algorithm,
 * ITU-T I.371), so that nothing has to fill it, and a zeroed one is full.
 */
#ifndef SS_MIXIN_BUCKET_H
#define SS_MIXIN_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct bucket {
	int64_t full_at; /* ns */
};

struct bucket_rate {
	int64_t each; /* ns that a token takes to come back; 0: no limit */
	int64_t all;  /* and all of them */
};

/* `tokens` come in per_ms; it holds `burst`. */
struct bucket_rate bucket_rate(int tokens, int per_ms, int burst);
/* Whether there is a token; and takes it. */
bool bucket_has(const struct bucket *bucket, const struct bucket_rate *rate,
		int64_t now_ns);
void bucket_take(struct bucket *bucket, const struct bucket_rate *rate,
		 int64_t now_ns);

#endif
