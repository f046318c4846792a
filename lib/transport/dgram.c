/*
 * Datagrams: a request is one packet, its channel the way back.
 *
 * The reply leaves through the listener's own socket, without waiting for it
 * in the kernel, from the address that the packet was sent to.
 */
#include "sock.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "../sys.h"

enum {
	RETRY_MS = 5,
	GIVE_UP_MS = 1000,
	LOOPBACK_INDEX = 1, /* in every network namespace of Linux */
};

/* What recvmsg(2) says of the packet's destination, and sendmsg(2) takes. */
struct destination {
	_Alignas(struct cmsghdr) unsigned char room[64];
};

struct dgram {
	struct ss_channel channel;
	struct ss_source source;
	int64_t give_up_at;
	size_t destination_len; /* 0: the socket has one address */
	struct destination destination;
};

/* ---- the way back ---------------------------------------------------------*/

/*
 * A Unix receiver's full queue is not seen by poll(2) on our side: tried
 * again after a while, and given up like a packet that was lost.
 */
static int block_on(struct dgram *dgram, int family, struct ss_block *block)
{
	struct ss_server *server = ss_request_server(dgram->channel.req);
	*block = (struct ss_block){ .source = &dgram->source,
				    .events = POLLOUT,
				    .until = SS_NONE };
	if (family != AF_UNIX)
		return -EAGAIN;
	int64_t now = ss_now(server);
	if (!dgram->give_up_at)
		dgram->give_up_at = now + GIVE_UP_MS;
	if (now >= dgram->give_up_at)
		return -ENOBUFS;
	block->source = NULL;
	block->until = now + RETRY_MS;
	return -EAGAIN;
}

static ssize_t send_to(struct dgram *dgram, struct iovec *iov, int count,
		       const struct ss_address *to, bool from_destination,
		       struct ss_block *block)
{
	if (to->len <= sizeof(sa_family_t))
		return -ENOTCONN;
	struct msghdr msg = {
		.msg_name = (void *)&to->u.sa,
		.msg_namelen = to->len,
		.msg_iov = iov,
		.msg_iovlen = (size_t)count,
	};
	if (from_destination && dgram->destination_len) {
		msg.msg_control = &dgram->destination;
		msg.msg_controllen = dgram->destination_len;
	}
	ssize_t r = sys_sendmsg(dgram->source.fd, &msg,
				MSG_DONTWAIT | MSG_NOSIGNAL);
	if (r >= 0)
		dgram->give_up_at = 0;
	if (r == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return block_on(dgram, to->u.sa.sa_family, block);
	return r == -1 ? -errno : r;
}

static ssize_t dgram_writev(struct ss_channel *channel, const struct iovec *iov,
			    int count, struct ss_block *block)
{
	struct ss_address peer;
	ss_request_peer(channel->req, &peer);
	return send_to((struct dgram *)channel, (struct iovec *)iov, count,
		       &peer, true, block);
}

static ssize_t dgram_send_to(struct ss_channel *channel, const void *buf,
			     size_t n, const struct ss_address *to,
			     struct ss_block *block)
{
	struct iovec iov = { (void *)buf, n };
	if (!to)
		return dgram_writev(channel, &iov, 1, block);
	return send_to((struct dgram *)channel, &iov, 1, to, false, block);
}

static const struct ss_channel_ops dgram_ops = {
	.writev = dgram_writev,
	.send_to = dgram_send_to,
};

/* ---- get_request ----------------------------------------------------------*/

struct packet {
	struct ss_address from, local;
	size_t size;
	bool truncated;
	bool looped; /* it came from this machine */
};

static void keep_v4(struct dgram *dgram, const struct cmsghdr *from,
		    struct packet *packet)
{
#ifdef IP_PKTINFO
	struct in_pktinfo info;
	memcpy(&info, CMSG_DATA(from), sizeof(info));
	packet->local.u.in.sin_addr = info.ipi_addr;
	packet->looped = info.ipi_ifindex == LOOPBACK_INDEX;
	/* By the routing table, from the address; not by the interface. */
	info.ipi_ifindex = 0;
	struct cmsghdr *to = (struct cmsghdr *)&dgram->destination;
	to->cmsg_level = IPPROTO_IP;
	to->cmsg_type = IP_PKTINFO;
	to->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(to), &info, sizeof(info));
	dgram->destination_len = CMSG_SPACE(sizeof(info));
#else
	(void)dgram, (void)from, (void)packet;
#endif
}

static void keep_v6(struct dgram *dgram, const struct cmsghdr *from,
		    struct packet *packet)
{
#ifdef IPV6_PKTINFO
	struct in6_pktinfo info;
	memcpy(&info, CMSG_DATA(from), sizeof(info));
	packet->local.u.in6.sin6_addr = info.ipi6_addr;
	packet->looped = info.ipi6_ifindex == LOOPBACK_INDEX;
	/* Multicast is no address to speak from; the interface stays. */
	if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
		info.ipi6_addr = in6addr_any;
	if (IN6_IS_ADDR_V4MAPPED(&info.ipi6_addr))
		info.ipi6_ifindex = 0;
	struct cmsghdr *to = (struct cmsghdr *)&dgram->destination;
	to->cmsg_level = IPPROTO_IPV6;
	to->cmsg_type = IPV6_PKTINFO;
	to->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(to), &info, sizeof(info));
	dgram->destination_len = CMSG_SPACE(sizeof(info));
#else
	(void)dgram, (void)from, (void)packet;
#endif
}

/* Whether the packet tells where it was sent to. */
static bool keep_destination(struct dgram *dgram, struct msghdr *msg,
			     struct packet *packet)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c;
	     c = CMSG_NXTHDR(msg, c)) {
#ifdef IP_PKTINFO
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
			keep_v4(dgram, c, packet);
#endif
#ifdef IPV6_PKTINFO
		if (c->cmsg_level == IPPROTO_IPV6 &&
		    c->cmsg_type == IPV6_PKTINFO)
			keep_v6(dgram, c, packet);
#endif
	}
	return dgram->destination_len != 0;
}

static int make_request(struct ss_server *server, struct ss_listener *listener,
			struct msghdr *msg, struct packet *packet,
			struct ss_request **result)
{
	struct ss_request *req;
	int r = ss_request_new(server, listener, sizeof(struct dgram), &req);
	if (r < 0)
		return r;
	struct dgram *dgram = ss_request_space(req);
	dgram->source.fd = ss_listener_fd(listener);
	dgram->source.flags = SS_SOURCE_DGRAM;
	ss_channel_push(req, &dgram->channel, &dgram_ops);
	ss_request_set_source(req, &dgram->source);
	if (keep_destination(dgram, msg, packet))
		r = ss_request_set_local(req, &packet->local);
	if (r >= 0 && packet->from.len)
		r = ss_request_set_peer(req, &packet->from);
	if (r >= 0)
		r = ss_request_set_packet(req, sock_state(server)->packet,
					  packet->size, packet->truncated);
	if (r < 0)
		ss_request_drop(req);
	else
		*result = req;
	return r;
}

/* What listens at every address has many, and one port. */
static bool is_address_of(const struct ss_listener *listener,
			  const struct packet *packet)
{
	const struct ss_address *own = ss_listener_address(listener);
	if (packet->from.len <= sizeof(sa_family_t) ||
	    ss_address_port(&packet->from) != ss_address_port(own))
		return false;
	if (!sock_is_wildcard(own))
		return ss_address_equal(&packet->from, own);
	return packet->looped ||
	       ss_address_equal(&packet->from, &packet->local);
}

/*
 * A packet that bears an address of ours would be answered for ever, by one
 * listener or between two of them.
 */
static bool from_ourselves(const struct ss_server *server,
			   const struct packet *packet)
{
	for (int i = 0; i < ss_server_listeners(server); i++)
		if (is_address_of(ss_server_listener(server, i), packet))
			return true;
	return false;
}

int dgram_get_request(struct ss_server *server, struct ss_listener *listener,
		      struct ss_request **req)
{
	struct sock_state *state = sock_state(server);
	struct packet packet = { .local = *ss_listener_address(listener) };
	struct destination control;
	struct iovec iov = { state->packet,
			     (size_t)state->options.max_packet_size };
	struct msghdr msg = {
		.msg_name = &packet.from.u,
		.msg_namelen = sizeof(packet.from.u),
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	/* Not for Unix sockets, where descriptors would come that way. */
	if (packet.local.u.sa.sa_family != AF_UNIX) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	ssize_t n = sys_recvmsg(ss_listener_fd(listener), &msg, MSG_DONTWAIT);
	if (n == -1)
		return -errno;
	packet.from.len = msg.msg_namelen;
	packet.size = (size_t)n;
	packet.truncated = msg.msg_flags & MSG_TRUNC;
	int r = make_request(server, listener, &msg, &packet, req);
	if (r < 0 || !from_ourselves(server, &packet))
		return r;
	ss_request_drop(*req);
	ss_log(server, SS_LOG_DEBUG, 0,
	       "a packet from our own address was "
	       "dropped");
	return -ECONNABORTED;
}
