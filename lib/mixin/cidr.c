/* Networks, users and groups; cidr.h says what they are. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "cidr.h"

enum { MAPPED_BITS = 96 };

static uint64_t load64(const unsigned char *bytes)
{
	uint32_t halves[2];
	memcpy(halves, bytes, sizeof(halves));
	return (uint64_t)ntohl(halves[0]) << 32 | ntohl(halves[1]);
}

/* ---- addresses ------------------------------------------------------------*/

static struct cidr short_one(enum cidr_kind kind, uint64_t value)
{
	return (struct cidr){ .kind = kind, .hi = value << 32, .bits = 32 };
}

static struct cidr of_ipv4(const struct in_addr *in)
{
	return short_one(CIDR_IPV4, ntohl(in->s_addr));
}

static struct cidr of_ipv6(const struct in6_addr *in6)
{
	return (struct cidr){ .kind = CIDR_IPV6,
			      .hi = load64(in6->s6_addr),
			      .lo = load64(in6->s6_addr + 8),
			      .bits = 128 };
}

static bool mapped(const struct cidr *cidr)
{
	return cidr->kind == CIDR_IPV6 && cidr->bits >= MAPPED_BITS &&
	       !cidr->hi && cidr->lo >> 32 == 0xffff;
}

static struct cidr unmapped(struct cidr cidr)
{
	if (!mapped(&cidr))
		return cidr;
	struct cidr plain = short_one(CIDR_IPV4, cidr.lo & UINT32_MAX);
	plain.bits = cidr.bits - MAPPED_BITS;
	return plain;
}

bool cidr_of_sockaddr(const struct sockaddr *sa, socklen_t len,
		      struct cidr *cidr)
{
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;
	if (len >= sizeof(*in) && sa->sa_family == AF_INET)
		*cidr = of_ipv4(&in->sin_addr);
	else if (len >= sizeof(*in6) && sa->sa_family == AF_INET6)
		*cidr = unmapped(of_ipv6(&in6->sin6_addr));
	else
		return false;
	return true;
}

#ifdef SO_PEERCRED
static int of_credentials(struct ss_request *req,
			  struct cidr peer[CIDR_PEER_MAX])
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	/* A datagram's socket is the listener's, whose peer is nobody. */
	if (ss_request_dgram(req) ||
	    ss_request_getsockopt(req, SOL_SOCKET, SO_PEERCRED, &cred, &len) <
		    0)
		return 0;
	peer[0] = short_one(CIDR_UID, cred.uid);
	peer[1] = short_one(CIDR_GID, cred.gid);
	return 2;
}
#else
static int of_credentials(struct ss_request *req,
			  struct cidr peer[CIDR_PEER_MAX])
{
	(void)req, (void)peer;
	return 0;
}
#endif

int cidr_of_peer(struct ss_request *req, struct cidr peer[CIDR_PEER_MAX])
{
	socklen_t len;
	const struct sockaddr *sa = ss_request_peer_sockaddr(req, &len);
	if (!sa)
		return 0;
	if (cidr_of_sockaddr(sa, len, peer))
		return 1;
	return sa->sa_family == AF_UNIX ? of_credentials(req, peer) : 0;
}

/* ---- sets -----------------------------------------------------------------*/

static uint64_t first_bits(uint64_t value, int bits)
{
	if (bits <= 0)
		return 0;
	return bits >= 64 ? value : value & ~(UINT64_MAX >> bits);
}

struct cidr cidr_shortened(struct cidr cidr, int bits)
{
	if (bits >= cidr.bits)
		return cidr;
	cidr.bits = bits;
	cidr.hi = first_bits(cidr.hi, bits);
	cidr.lo = first_bits(cidr.lo, bits - 64);
	return cidr;
}

bool cidr_contains(const struct cidr *outer, const struct cidr *inner)
{
	if (outer->kind != inner->kind || outer->bits > inner->bits)
		return false;
	struct cidr cut = cidr_shortened(*inner, outer->bits);
	return cut.hi == outer->hi && cut.lo == outer->lo;
}

static int order(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

int cidr_compare(const struct cidr *a, const struct cidr *b)
{
	if (a->kind != b->kind)
		return order(a->kind, b->kind);
	if (a->hi != b->hi)
		return order(a->hi, b->hi);
	if (a->lo != b->lo)
		return order(a->lo, b->lo);
	return a->bits - b->bits;
}

/* ---- text -----------------------------------------------------------------*/

/* Decimal digits, nothing else, no zero before others. */
static bool number(const char *text, uint32_t max, uint32_t *value)
{
	uint64_t sum = 0;
	if (!*text || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		sum = sum * 10 + (uint64_t)(*text - '0');
		if (sum > max)
			return false;
	}
	*value = (uint32_t)sum;
	return true;
}

static const char *parse_id(const char *text, struct cidr *cidr)
{
	uint32_t id;
	enum cidr_kind kind = text[0] == 'u' ? CIDR_UID : CIDR_GID;
	/* The last one is nobody's: chown(2) takes it for "as it is". */
	if (!number(text + strlen("uid:"), UINT32_MAX - 1, &id))
		return "a user's or group's number is expected";
	*cidr = short_one(kind, id);
	return NULL;
}

static const char *parse_network(char *text, struct cidr *cidr)
{
	struct in_addr in;
	struct in6_addr in6;
	uint32_t bits = 0;
	char *slash = strchr(text, '/');
	if (slash)
		*slash = '\0';
	if (inet_pton(AF_INET, text, &in) == 1)
		*cidr = of_ipv4(&in);
	else if (inet_pton(AF_INET6, text, &in6) == 1)
		*cidr = of_ipv6(&in6);
	else
		return "not an address, network, uid:N or gid:N";
	if (slash && !number(slash + 1, (uint32_t)cidr->bits, &bits))
		return cidr->kind == CIDR_IPV4
			       ? "the prefix length is not in 0..32"
			       : "the prefix length is not in 0..128";
	struct cidr network =
		cidr_shortened(*cidr, slash ? (int)bits : cidr->bits);
	if (network.hi != cidr->hi || network.lo != cidr->lo)
		return "bits are set beyond the prefix length";
	*cidr = unmapped(network);
	return NULL;
}

int cidr_parse(const char *text, size_t n, struct cidr *cidr, const char **why)
{
	char word[INET6_ADDRSTRLEN + sizeof("/128")];
	if (n >= sizeof(word) || memchr(text, '\0', n)) {
		*why = "not an address, network, uid:N or gid:N";
		return -EINVAL;
	}
	memcpy(word, text, n);
	word[n] = '\0';
	bool id =
		strncmp(word, "uid:", 4) == 0 || strncmp(word, "gid:", 4) == 0;
	*why = id ? parse_id(word, cidr) : parse_network(word, cidr);
	return *why ? -EINVAL : 0;
}
