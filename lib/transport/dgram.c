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

/* sendmsg(2), or, for most packets, what costs less. */
static ssize_t send_packet(struct dgram *dgram, struct iovec *iov, int count,
			   const struct ss_address *to, bool from_destination)
{
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	from_destination = from_destination && dgram->destination_len;
	if (count == 1 && !from_destination)
		return sys_sendto(dgram->source.fd, iov->iov_base, iov->iov_len,
				  flags, &to->u.sa, to->len);
	struct msghdr msg = {
		.msg_name = (void *)&to->u.sa,
		.msg_namelen = to->len,
		.msg_iov = iov,
		.msg_iovlen = (size_t)count,
	};
	if (from_destination) {
		msg.msg_control = &dgram->destination;
		msg.msg_controllen = dgram->destination_len;
	}
	return sys_sendmsg(dgram->source.fd, &msg, flags);
}

static ssize_t send_to(struct dgram *dgram, struct iovec *iov, int count,
		       const struct ss_address *to, bool from_destination,
		       struct ss_block *block)
{
	if (to->len <= sizeof(sa_family_t))
		return -ENOTCONN;
	ssize_t r = send_packet(dgram, iov, count, to, from_destination);
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

/* One of several, whose peer's address is copied to `to`. */
static struct msghdr message(struct dgram *dgram, const struct iovec *iov,
			     struct ss_address *to)
{
	ss_request_peer(dgram->channel.req, to);
	size_t control_len = dgram->destination_len;
	return (struct msghdr){
		.msg_name = &to->u.sa,
		.msg_namelen = to->len,
		.msg_iov = (struct iovec *)iov,
		.msg_iovlen = 1,
		.msg_control = control_len ? &dgram->destination : NULL,
		.msg_controllen = control_len,
	};
}

/* As many of them as leave through the same socket. */
static int dgram_write_each(struct ss_channel *const *channels,
			    const struct iovec *iov, int n)
{
	struct ss_address to[SS_REPLIES_MAX];
	struct sys_packet packets[SS_REPLIES_MAX];
	int fd = ((struct dgram *)channels[0])->source.fd, count = 0;
	while (count < n) {
		struct dgram *dgram = (struct dgram *)channels[count];
		packets[count].msg = message(dgram, &iov[count], &to[count]);
		if (dgram->source.fd != fd ||
		    to[count].len <= sizeof(sa_family_t))
			break;
		count++;
	}
	if (!count)
		return -ENOTCONN;
	int r = sys_send_packets(fd, packets, count);
	return r == -1 ? -errno : r;
}

static const struct ss_channel_ops dgram_ops = {
	.writev = dgram_writev,
	.write_each = dgram_write_each,
	.send_to = dgram_send_to,
};

/* ---- what has arrived -----------------------------------------------------*/

enum { AHEAD = 16 };

/* Where a packet arrives. */
struct slot {
	struct ss_address from;
	struct destination control;
	struct iovec iov;
};

/*
 * Packets that were read and not asked for yet, of one listener; the last
 * place is for the others' meanwhile.
 */
struct inbox {
	const struct ss_listener *listener;
	int at, count;
	socklen_t control_len;
	struct sys_packet packets[AHEAD + 1];
	struct slot slots[AHEAD + 1];
	unsigned char bytes[];
};

/* What the kernel has filled in is as it was again. */
static void empty(struct inbox *inbox, int i)
{
	struct msghdr *msg = &inbox->packets[i].msg;
	msg->msg_namelen = sizeof(inbox->slots[i].from.u);
	msg->msg_controllen = inbox->control_len;
}

static void set_up(struct inbox *inbox, int i, size_t size)
{
	struct slot *slot = &inbox->slots[i];
	slot->iov = (struct iovec){ inbox->bytes + (size_t)i * size, size };
	inbox->packets[i].msg = (struct msghdr){
		.msg_name = &slot->from.u,
		.msg_iov = &slot->iov,
		.msg_iovlen = 1,
		.msg_control = inbox->control_len ? &slot->control : NULL,
	};
	empty(inbox, i);
}

struct inbox *dgram_inbox_new(struct ss_server *server, size_t size)
{
	struct inbox *inbox = sys_malloc(sizeof(*inbox) + (AHEAD + 1) * size);
	if (!inbox)
		return NULL;
	inbox->at = inbox->count = 0;
	/* Not for Unix sockets, where descriptors would come that way. */
	bool local = ss_server_transport(server)->flags & SS_LAYER_UNIX;
	inbox->control_len = local ? 0 : sizeof(struct destination);
	for (int i = 0; i <= AHEAD; i++)
		set_up(inbox, i, size);
	return inbox;
}

/*
 * As many as there are, in one call.  But where other processes read from the
 * socket too, what one of them has taken no other can serve.
 */
static int fill(struct ss_server *server, struct inbox *inbox,
		const struct ss_listener *listener)
{
	bool shared = ss_worker(server) ||
		      (ss_listener_flags(listener) & SS_LISTENER_ADOPTED);
	int n = sys_recv_packets(ss_listener_fd(listener), inbox->packets,
				 shared ? 1 : AHEAD);
	if (n == -1)
		return -errno;
	inbox->listener = listener;
	inbox->at = 0;
	inbox->count = n;
	return 0;
}

/* The place of the listener's next packet; -errno. */
static int next_packet(struct ss_server *server, struct inbox *inbox,
		       struct ss_listener *listener)
{
	if (inbox->at < inbox->count && inbox->listener != listener) {
		int n = sys_recv_packets(ss_listener_fd(listener),
					 &inbox->packets[AHEAD], 1);
		return n == -1 ? -errno : AHEAD;
	}
	if (inbox->at == inbox->count) {
		int r = fill(server, inbox, listener);
		if (r < 0)
			return r;
	}
	int i = inbox->at++;
	ss_listener_set_ahead(listener, inbox->count - inbox->at);
	return i;
}

/* ---- get_request ----------------------------------------------------------*/

struct packet {
	const struct ss_address *from;
	const unsigned char *bytes;
	size_t size;
	bool truncated;
	bool looped; /* it came from this machine */
	/* Where it was sent to, if it tells. */
	struct ss_address local;
	size_t destination_len;
	struct destination destination;
};

/* To be sent along with the reply. */
static void keep(struct packet *packet, int level, int type, const void *info,
		 size_t size)
{
	struct cmsghdr *to = (struct cmsghdr *)&packet->destination;
	to->cmsg_level = level;
	to->cmsg_type = type;
	to->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(to), info, size);
	packet->destination_len = CMSG_SPACE(size);
}

static void keep_v4(struct packet *packet, const struct cmsghdr *from)
{
#ifdef IP_PKTINFO
	struct in_pktinfo info;
	memcpy(&info, CMSG_DATA(from), sizeof(info));
	packet->local.u.in.sin_addr = info.ipi_addr;
	packet->looped = info.ipi_ifindex == LOOPBACK_INDEX;
	/* By the routing table, from the address; not by the interface. */
	info.ipi_ifindex = 0;
	keep(packet, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
#else
	(void)packet, (void)from;
#endif
}

static void keep_v6(struct packet *packet, const struct cmsghdr *from)
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
	keep(packet, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
#else
	(void)packet, (void)from;
#endif
}

static void keep_destination(struct packet *packet, struct msghdr *msg,
			     const struct ss_listener *listener)
{
	if (!msg->msg_controllen)
		return;
	packet->local = *ss_listener_address(listener);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c;
	     c = CMSG_NXTHDR(msg, c)) {
#ifdef IP_PKTINFO
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
			keep_v4(packet, c);
#endif
#ifdef IPV6_PKTINFO
		if (c->cmsg_level == IPPROTO_IPV6 &&
		    c->cmsg_type == IPV6_PKTINFO)
			keep_v6(packet, c);
#endif
	}
}

/* What listens at every address has many, and one port. */
static bool is_address_of(const struct ss_listener *listener,
			  const struct packet *packet)
{
	const struct ss_address *own = ss_listener_address(listener);
	if (packet->from->len <= sizeof(sa_family_t) ||
	    ss_address_port(packet->from) != ss_address_port(own))
		return false;
	if (!sock_is_wildcard(own))
		return ss_address_equal(packet->from, own);
	return packet->looped ||
	       (packet->destination_len &&
		ss_address_equal(packet->from, &packet->local));
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

static int make_request(struct ss_server *server, struct ss_listener *listener,
			const struct packet *packet, struct ss_request **result)
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
	if (packet->destination_len) {
		dgram->destination_len = packet->destination_len;
		dgram->destination = packet->destination;
		r = ss_request_set_local(req, &packet->local);
	}
	if (r >= 0 && packet->from->len)
		r = ss_request_set_peer(req, packet->from);
	if (r >= 0)
		r = ss_request_set_packet(req, packet->bytes, packet->size,
					  packet->truncated);
	if (r < 0)
		ss_request_drop(req);
	else
		*result = req;
	return r;
}

int dgram_get_request(struct ss_server *server, struct ss_listener *listener,
		      struct ss_request **req)
{
	struct inbox *inbox = sock_state(server)->inbox;
	int i = next_packet(server, inbox, listener);
	if (i < 0)
		return i;
	struct slot *slot = &inbox->slots[i];
	struct msghdr *msg = &inbox->packets[i].msg;
	slot->from.len = msg->msg_namelen;
	struct packet packet;
	packet.from = &slot->from;
	packet.bytes = slot->iov.iov_base;
	packet.size = inbox->packets[i].size;
	packet.truncated = msg->msg_flags & MSG_TRUNC;
	packet.looped = false;
	packet.destination_len = 0;
	keep_destination(&packet, msg, listener);
	int r = -ECONNABORTED;
	if (!from_ourselves(server, &packet))
		r = make_request(server, listener, &packet, req);
	else
		ss_log(server, SS_LOG_DEBUG, 0,
		       "a packet from our own address was "
		       "dropped");
	empty(inbox, i);
	return r;
}
