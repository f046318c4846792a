/*
 * Sets of clients as one word names them: a network (RFC 4632, RFC 4291 2.3),
 * or the user or group at the other end of a Unix socket.
 *
 *	192.0.2.0/24  2001:db8::/32  192.0.2.1  ::1     uid:1000  gid:100
 *
 * IPv4-mapped IPv6 is IPv4; neither "0.0.0.0/0" nor "::/0" has addresses of the
 * other family.
 */
#ifndef SS_MIXIN_CIDR_H
#define SS_MIXIN_CIDR_H

#include <socketserver/layer.h>

#include <stdint.h>

/* In the order of a sorted table. */
enum cidr_kind { CIDR_NONE, CIDR_UID, CIDR_GID, CIDR_IPV4, CIDR_IPV6 };

/*
 * A set by the bits that its members begin with: `bits` of hi and, behind it,
 * lo, of which those beyond are 0.
 */
struct cidr {
	uint64_t hi, lo;
	enum cidr_kind kind;
	int bits; /* of a single address: 128 for IPv6, else 32 */
};

/* Strictly the n bytes at text.  0, or -EINVAL and, in a word, why. */
int cidr_parse(const char *text, size_t n, struct cidr *cidr, const char **why);

/* The address alone; false: it is none of the internet. */
bool cidr_of_sockaddr(const struct sockaddr *sa, socklen_t len,
		      struct cidr *cidr);

enum { CIDR_PEER_MAX = 2 };
/*
 * Who a request's peer is, the more telling first: its address; or user and
 * group (SO_PEERCRED) where it is a Unix socket and they are known.  How many.
 */
int cidr_of_peer(struct ss_request *req, struct cidr peer[CIDR_PEER_MAX]);

/* The network of that many bits that it lies in. */
struct cidr cidr_shortened(struct cidr cidr, int bits);
bool cidr_contains(const struct cidr *outer, const struct cidr *inner);
/* < 0, 0, > 0: by kind, address and bits, so that a network comes right before
 * all that it contains. */
int cidr_compare(const struct cidr *a, const struct cidr *b);

#endif
