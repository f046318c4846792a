/* Token buckets; bucket.h says how. */
#include "bucket.h"

enum { NS_PER_MS = 1000000 };
static const int64_t long_ns = INT64_MAX / 4; /* decades: no sum overflows */

struct bucket_rate bucket_rate(int tokens, int per_ms, int burst)
{
	struct bucket_rate rate = { 0, 0 };
	if (tokens <= 0)
		return rate;
	rate.each = (int64_t)per_ms * NS_PER_MS / tokens;
	if (!rate.each)
		rate.each = 1;
	rate.all = burst < long_ns / rate.each ? rate.each * burst : long_ns;
	return rate;
}

bool bucket_has(const struct bucket *bucket, const struct bucket_rate *rate,
		int64_t now_ns)
{
	return !rate->each ||
	       bucket->full_at + rate->each <= now_ns + rate->all;
}

void bucket_take(struct bucket *bucket, const struct bucket_rate *rate,
		 int64_t now_ns)
{
	if (bucket->full_at < now_ns)
		bucket->full_at = now_ns;
	bucket->full_at += rate->each;
}
