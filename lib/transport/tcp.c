/* TCP. */
#include "sock.h"

const struct ss_layer ss_tcp_server = {
	.name = "tcp",
	.flags = SS_LAYER_TRANSPORT | SS_LAYER_STREAM | SS_LAYER_SOCKET,
	.server_size = sizeof(struct sock_state),
	.init = sock_init,
	.fini = sock_fini,
	.ops = {
		.server_bind = sock_server_bind,
		.server_activate = sock_server_activate,
		.get_request = sock_get_request,
	},
};
