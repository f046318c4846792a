/* Latencies in log-linear buckets. */
#include "histogram.h"

#include <string.h>

/* ---- buckets --------------------------------------------------------------*/

static int log2_of(uint64_t value)
{
	return 63 - __builtin_clzll(value);
}

static int bucket_of(uint64_t us)
{
	if (us < HISTOGRAM_SUB)
		return (int)us;
	int octave = log2_of(us);
	if (octave >= SS_LATENCY_STEPS)
		return HISTOGRAM_BUCKETS - 1;
	int shift = octave - HISTOGRAM_SUB_BITS;
	return (1 + shift) * HISTOGRAM_SUB + (int)(us >> shift) % HISTOGRAM_SUB;
}

/* The most that is counted there. */
static uint64_t most_in(int bucket)
{
	if (bucket < HISTOGRAM_SUB)
		return (uint64_t)bucket;
	int shift = bucket / HISTOGRAM_SUB - 1;
	uint64_t next = HISTOGRAM_SUB + (uint64_t)bucket % HISTOGRAM_SUB + 1;
	return (next << shift) - 1;
}

/* How many of them are below 2^step. */
static int buckets_below(int step)
{
	if (step <= HISTOGRAM_SUB_BITS)
		return 1 << step;
	return (1 + step - HISTOGRAM_SUB_BITS) * HISTOGRAM_SUB;
}

/* ---- counting -------------------------------------------------------------*/

void histogram_note(struct histogram *histogram, int64_t us)
{
	uint64_t took = us > 0 ? (uint64_t)us : 0;
	atomic_fetch_add_explicit(&histogram->bucket[bucket_of(took)], 1,
				  memory_order_relaxed);
	atomic_fetch_add_explicit(&histogram->sum_us, took,
				  memory_order_relaxed);
}

void histogram_add(struct histogram_sum *sum, const struct histogram *histogram)
{
	sum->sum_us +=
		atomic_load_explicit(&histogram->sum_us, memory_order_relaxed);
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		sum->bucket[i] += atomic_load_explicit(&histogram->bucket[i],
						       memory_order_relaxed);
}

/* ---- telling --------------------------------------------------------------*/

/* Within so many thousandths of all; 0: there are none. */
static uint64_t quantile(const struct histogram_sum *sum, uint64_t count,
			 unsigned thousandths)
{
	uint64_t rank = count / 1000 * thousandths +
			(count % 1000 * thousandths + 999) / 1000;
	uint64_t seen = 0;
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += sum->bucket[i];
		if (count && seen >= rank)
			return most_in(i);
	}
	return 0;
}

void histogram_tell(const struct histogram_sum *sum, struct ss_latency *to)
{
	memset(to, 0, sizeof(*to));
	to->sum_us = sum->sum_us;
	int next = 0;
	for (int step = 0; step < SS_LATENCY_STEPS; step++) {
		for (; next < buckets_below(step); next++)
			to->count += sum->bucket[next];
		to->below[step] = to->count;
	}
	for (; next < HISTOGRAM_BUCKETS; next++)
		to->count += sum->bucket[next];
	to->p50_us = quantile(sum, to->count, 500);
	to->p90_us = quantile(sum, to->count, 900);
	to->p99_us = quantile(sum, to->count, 990);
	to->p999_us = quantile(sum, to->count, 999);
	to->max_us = quantile(sum, to->count, 1000);
}
