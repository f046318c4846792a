/*
 * Times in ns, counted in buckets that are at most 1.6 % wide, so that a run's
 * percentiles cost no memory per message.
 */
#ifndef SS_BENCH_HISTOGRAM_H
#define SS_BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
	HISTOGRAM_BITS = 6, /* 64 buckets per power of two */
	HISTOGRAM_STEP = 1 << HISTOGRAM_BITS,
	HISTOGRAM_BUCKETS = (64 - HISTOGRAM_BITS + 1) * HISTOGRAM_STEP,
};

struct histogram {
	uint64_t count, max;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline void histogram_add(struct histogram *h, uint64_t value)
{
	const int top = 63 - __builtin_clzll(value | HISTOGRAM_STEP);
	const int shift = top - HISTOGRAM_BITS;

	h->buckets[((uint64_t)shift << HISTOGRAM_BITS) + (value >> shift)]++;
	h->count++;
	if (value > h->max)
		h->max = value;
}

/* The value that `share` (0..1) of all do not exceed; 0 if there are none. */
static inline uint64_t histogram_at(const struct histogram *h, double share)
{
	uint64_t left = (uint64_t)(share * (double)h->count);

	for (uint64_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (h->buckets[i] <= left) {
			left -= h->buckets[i];
			continue;
		}
		if (i < 2 * HISTOGRAM_STEP)
			return i;
		const int shift = (int)(i >> HISTOGRAM_BITS) - 1;
		return (HISTOGRAM_STEP + i % HISTOGRAM_STEP) << shift;
	}
	return h->max;
}

#endif
