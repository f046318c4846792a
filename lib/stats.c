/* Counters: the sum of all workers' slots, readable from anywhere. */
#include "internal.h"

static void add(uint64_t *to, const atomic_ullong *from)
{
	*to += atomic_load_explicit(from, memory_order_relaxed);
}

static void add_slot(struct ss_stats *stats, const struct slot *slot)
{
	add(&stats->accepted, &slot->accepted);
	add(&stats->active, &slot->active);
	add(&stats->queued, &slot->queued);
	add(&stats->ended, &slot->ended);
	for (int i = 0; i < SS_REFUSED_MAX; i++)
		add(&stats->refused[i], &slot->refused[i]);
	for (int i = 0; i < SS_PHASE_MAX; i++)
		add(&stats->errors[i], &slot->errors[i]);
	add(&stats->bytes_in, &slot->bytes_in);
	add(&stats->bytes_out, &slot->bytes_out);
	add(&stats->log_dropped, &slot->log_dropped);
}

void ss_server_stats_sized(struct ss_server *server, struct ss_stats *stats,
			   size_t size)
{
	struct ss_stats sum = { 0 };
	for (int i = 0; i < server->page->slots; i++)
		add_slot(&sum, &server->page->slot[i]);
	memset(stats, 0, size);
	memcpy(stats, &sum, size < sizeof(sum) ? size : sizeof(sum));
}
