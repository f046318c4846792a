/* UDP: no SO_REUSEADDR, so that no second server takes the port. */
#include "sock.h"

const struct ss_layer ss_udp_server = {
	.name = "udp",
	.flags = SS_LAYER_TRANSPORT | SS_LAYER_SOCKET,
	.server_size = sizeof(struct sock_state),
	.init = sock_init,
	.fini = sock_fini,
	.ops = {
		.server_bind = sock_server_bind,
		.get_request = dgram_get_request,
	},
};
