/* Which transport speaks an address's scheme; for "fd:N", the socket's. */
#include <errno.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../diag.h"
#include "../sys.h"

static enum ss_scheme scheme_of_socket(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);
	struct ss_address address = { .len = sizeof(address.u) };
	if (sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == -1 ||
	    sys_getsockname(fd, &address.u.sa, &address.len) == -1)
		return SS_SCHEME_ANY;
	if (address.u.sa.sa_family == AF_UNIX)
		return type == SOCK_DGRAM ? SS_SCHEME_UNIXGRAM : SS_SCHEME_UNIX;
	return type == SOCK_DGRAM ? SS_SCHEME_UDP : SS_SCHEME_TCP;
}

const struct ss_layer *ss_transport_for(const char *address,
					struct ss_diag *why)
{
	struct ss_endpoint endpoint;
	if (ss_resolve(address, SS_SCHEME_ANY, &endpoint, 1, why) < 0)
		return NULL;
	if (endpoint.scheme == SS_SCHEME_FD)
		endpoint.scheme = scheme_of_socket(endpoint.fd);
	switch (endpoint.scheme) {
	case SS_SCHEME_TCP:
		return &ss_tcp_server;
	case SS_SCHEME_UDP:
		return &ss_udp_server;
	case SS_SCHEME_UNIX:
		return &ss_unix_stream_server;
	case SS_SCHEME_UNIXGRAM:
		return &ss_unix_datagram_server;
	case SS_SCHEME_MEMORY:
		return &ss_memory_server;
	default:
		break;
	}
	diag_refuse(why, -EINVAL, "%s: not a socket: %s", address,
		    strerror(errno));
	return NULL;
}
