/* Layers such as users write. */
#include "user_layers.h"

static int twice_verify(struct ss_server *server, struct ss_request *req)
{
	const struct ss_ops *super = ss_super(server, &twice_layer);
	int r = super->verify_request(server, req);
	return r > 0 ? super->verify_request(server, req) : r;
}

const struct ss_layer twice_layer = {
	.name = "twice",
	.ops = { .verify_request = twice_verify },
};

static int pass_finish(struct ss_server *server, struct ss_request *req)
{
	static const struct ss_channel_ops none = { .close = NULL };
	ss_channel_push(req, ss_request_layer_state(req, &pass_layer), &none);
	return ss_super(server, &pass_layer)->finish_request(server, req);
}

const struct ss_layer pass_layer = {
	.name = "pass",
	.request_size = sizeof(struct ss_channel),
	.ops = { .finish_request = pass_finish },
};
