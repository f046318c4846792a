/*
 * A layer of one's own: at most two connections at a time for each client
 * address.  It counts in verify_request and gives back in end_request, which
 * runs once for every request, however it ended; all else is inherited.
 *
 *	quota [ADDRESS]		then, in three terminals: echo_client
 */
#include "demo.h"

#include <stdatomic.h>
#include <stdint.h>

#include "handlers.h"

enum { QUOTA_SLOTS = 1024 };

struct quota_options {
	int per_client;
};

/*
 * Clients share a slot where their addresses' hashes meet: a little unjust,
 * but the memory is bounded whoever connects.  verify_request and end_request
 * run on any thread, hence atomics.
 */
struct quota {
	int limit;
	atomic_int live[QUOTA_SLOTS];
};

struct quota_request {
	atomic_int *counted; /* NULL: not yet */
};

static const struct ss_layer quota_layer;

static int quota_init(struct ss_server *server, const void *options)
{
	struct quota *quota = ss_layer_state(server, &quota_layer);
	const struct quota_options *given = options;

	quota->limit = given != NULL ? given->per_client : 1;
	return 0;
}

/* The slot of a client's host, whatever its port; by FNV-1a. */
static atomic_int *slot_of(struct quota *quota, struct ss_request *req)
{
	struct ss_address peer;
	char host[SS_ADDRESS_TEXT] = "";
	uint32_t hash = 2166136261U;

	if (ss_request_peer(req, &peer) == 0)
		ss_address_host(&peer, host, sizeof(host));
	for (const char *c = host; *c != '\0'; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619U;
	return &quota->live[hash % QUOTA_SLOTS];
}

static int quota_verify(struct ss_server *server, struct ss_request *req)
{
	struct quota *quota = ss_layer_state(server, &quota_layer);
	struct quota_request *mine = ss_request_layer_state(req, &quota_layer);

	mine->counted = slot_of(quota, req);
	if (atomic_fetch_add(mine->counted, 1) >= quota->limit)
		return 0;
	return ss_super(server, &quota_layer)->verify_request(server, req);
}

static void quota_end(struct ss_server *server, struct ss_request *req,
		      int status)
{
	struct quota_request *mine = ss_request_layer_state(req, &quota_layer);

	if (mine->counted != NULL)
		atomic_fetch_sub(mine->counted, 1);
	ss_super(server, &quota_layer)->end_request(server, req, status);
}

static const struct ss_layer quota_layer = {
	.name = "quota",
	.server_size = sizeof(struct quota),
	.request_size = sizeof(struct quota_request),
	.init = quota_init,
	.ops.verify_request = quota_verify,
	.ops.end_request = quota_end,
};

int main(int argc, char *argv[])
{
	static const struct quota_options options = { .per_client = 2 };
	const struct ss_config config = {
		.addresses = { demo_address(argc, argv) },
		.mixins = { { &quota_layer, &options },
			    { &ss_threading_mixin, NULL } },
		.handler = &ss_echo_handler,
	};

	return demo_run("quota", &config, NULL);
}
