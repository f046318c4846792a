/*
 * How long things took, in buckets each of which is a sixteenth of its octave
 * wide: exact below 16 us, and up to 2^36 us (19 hours) at most a sixteenth too
 * high.  Any thread, any process that shares the memory; no lock.
 */
#ifndef SS_MIXIN_HISTOGRAM_H
#define SS_MIXIN_HISTOGRAM_H

#include <stdatomic.h>

#include <socketserver/layers.h>

enum {
	HISTOGRAM_SUB_BITS = 4,
	HISTOGRAM_SUB = 1 << HISTOGRAM_SUB_BITS,
	HISTOGRAM_BUCKETS =
		(1 + SS_LATENCY_STEPS - HISTOGRAM_SUB_BITS) * HISTOGRAM_SUB,
};

struct histogram {
	atomic_ullong sum_us;
	atomic_ullong bucket[HISTOGRAM_BUCKETS];
};

/* The same, of several together. */
struct histogram_sum {
	uint64_t sum_us;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_note(struct histogram *histogram, int64_t us);
void histogram_add(struct histogram_sum *sum,
		   const struct histogram *histogram);
void histogram_tell(const struct histogram_sum *sum, struct ss_latency *to);

#endif
