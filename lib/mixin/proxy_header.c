/* The PROXY protocol's headers; proxy_header.h says whose. */
#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "crc32c.h"
#include "proxy_header.h"

static const unsigned char signature[PROXY_LEAST] = {
	0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
};
static const char word[] = "PROXY ";
enum { WORD = sizeof(word) - 1 };

static int wrong(const char **why, const char *reason)
{
	*why = reason;
	return -EPROTO;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

int proxy_version(const void *data, size_t n)
{
	if (memcmp(data, word, least(n, WORD)) == 0)
		return n >= WORD ? 1 : 0;
	if (memcmp(data, signature, least(n, sizeof(signature))) == 0)
		return n >= sizeof(signature) ? 2 : 0;
	return -EPROTO;
}

static struct ss_address inet4(const void *address, in_port_t port)
{
	struct ss_address a = { .len = sizeof(a.u.in) };
	a.u.in.sin_family = AF_INET;
	a.u.in.sin_port = port;
	memcpy(&a.u.in.sin_addr, address, sizeof(a.u.in.sin_addr));
	return a;
}

static struct ss_address inet6(const void *address, in_port_t port)
{
	struct ss_address a = { .len = sizeof(a.u.in6) };
	a.u.in6.sin6_family = AF_INET6;
	a.u.in6.sin6_port = port;
	memcpy(&a.u.in6.sin6_addr, address, sizeof(a.u.in6.sin6_addr));
	return a;
}

/* ---- version 1 ------------------------------------------------------------*/

/* The next word, which ends at a space or at the end; NULL: there is none. */
static const char *next_word(char **rest)
{
	char *begin = *rest;
	if (!begin || !*begin || *begin == ' ')
		return NULL;
	*rest = strchr(begin, ' ');
	if (*rest)
		*(*rest)++ = '\0';
	return begin;
}

/* Decimal, without leading zeros; network byte order. */
static bool parse_port(const char *text, in_port_t *port)
{
	unsigned value = 0;
	if (!text || !*text || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned)(*text - '0');
		if (value > UINT16_MAX)
			return false;
	}
	*port = htons((uint16_t)value);
	return true;
}

static bool parse_address(int family, const char *host, const char *port,
			  struct ss_address *address)
{
	struct in6_addr in6;
	struct in_addr in;
	in_port_t number;
	if (!host || !parse_port(port, &number))
		return false;
	if (family == AF_INET) {
		if (inet_pton(AF_INET, host, &in) != 1)
			return false;
		*address = inet4(&in, number);
		return true;
	}
	if (inet_pton(AF_INET6, host, &in6) != 1)
		return false;
	*address = inet6(&in6, number);
	return true;
}

int proxy_parse_line(const char *line, size_t n, struct proxy_header *header,
		     const char **why)
{
	char text[PROXY_LINE_MAX + 1];
	*header = (struct proxy_header){ .tlvs = NULL };
	if (n > PROXY_LINE_MAX)
		return wrong(why, "the line is longer than 107 bytes");
	if (n < WORD + 2 || memcmp(line + n - 2, "\r\n", 2) != 0)
		return wrong(why, "the line does not end in CR LF");
	memcpy(text, line, n);
	text[n - 2] = '\0';
	char *rest = text + WORD;
	const char *kind = next_word(&rest);
	if (kind && strcmp(kind, "UNKNOWN") == 0)
		return 0;
	if (memchr(line, '\0', n))
		return wrong(why, "there is a NUL in the line");
	if (!kind || (strcmp(kind, "TCP4") != 0 && strcmp(kind, "TCP6") != 0))
		return wrong(why, "TCP4, TCP6 or UNKNOWN is expected");
	int family = kind[3] == '4' ? AF_INET : AF_INET6;
	const char *from = next_word(&rest), *to = next_word(&rest);
	const char *from_port = next_word(&rest), *to_port = next_word(&rest);
	if (rest || !parse_address(family, from, from_port, &header->source) ||
	    !parse_address(family, to, to_port, &header->destination))
		return wrong(why, "two addresses and two ports are expected");
	return 0;
}

/* ---- version 2 ------------------------------------------------------------*/

static size_t load16(const unsigned char *bytes)
{
	return (size_t)bytes[0] << 8 | bytes[1];
}

size_t proxy_block_rest(const unsigned char fixed[PROXY_FIXED])
{
	return load16(fixed + 14);
}

static in_port_t port_at(const unsigned char *bytes)
{
	in_port_t port;
	memcpy(&port, bytes, sizeof(port));
	return port;
}

/* A path ends at its NUL; the end of an abstract name is not told, so that NULs
 * there are none of it. */
static struct ss_address unix_address(const unsigned char *bytes)
{
	struct ss_address a = { .len = offsetof(struct sockaddr_un, sun_path) };
	size_t room = sizeof(a.u.un.sun_path), n = room;
	a.u.un.sun_family = AF_UNIX;
	while (n && !bytes[n - 1])
		n--;
	if (bytes[0])
		n = least(strnlen((const char *)bytes, room) + 1, room);
	memcpy(a.u.un.sun_path, bytes, n);
	a.len += (socklen_t)n;
	return a;
}

enum { IPV4_SIZE = 12, IPV6_SIZE = 36, UNIX_SIZE = 216, PATH_SIZE = 108 };

static void take_addresses(int family, const unsigned char *at,
			   struct proxy_header *header)
{
	if (family == 1) {
		header->source = inet4(at, port_at(at + 8));
		header->destination = inet4(at + 4, port_at(at + 10));
	} else if (family == 2) {
		header->source = inet6(at, port_at(at + 32));
		header->destination = inet6(at + 16, port_at(at + 34));
	} else {
		header->source = unix_address(at);
		header->destination = unix_address(at + PATH_SIZE);
	}
}

enum { TYPE_CRC32C = 0x03, TLV_HEAD = 3 };

/* The length of the value at tlvs; -1: it does not fit. */
static ptrdiff_t value_length(const unsigned char *tlvs, size_t size)
{
	if (size < TLV_HEAD)
		return -1;
	size_t n = load16(tlvs + 1);
	return n <= size - TLV_HEAD ? (ptrdiff_t)n : -1;
}

const unsigned char *proxy_find(const unsigned char *tlvs, size_t size,
				int type, size_t *n)
{
	ptrdiff_t length;
	while ((length = value_length(tlvs, size)) >= 0) {
		*n = (size_t)length;
		if (*tlvs == type)
			return tlvs + TLV_HEAD;
		tlvs += TLV_HEAD + *n;
		size -= TLV_HEAD + *n;
	}
	return NULL;
}

static bool all_fit(const unsigned char *tlvs, size_t size)
{
	while (size) {
		ptrdiff_t length = value_length(tlvs, size);
		if (length < 0)
			return false;
		tlvs += TLV_HEAD + length;
		size -= TLV_HEAD + (size_t)length;
	}
	return true;
}

/* Of the whole header, its own four bytes taken as 0. */
static bool sum_is_right(const unsigned char *block, size_t n,
			 const unsigned char *sum)
{
	static const unsigned char zeros[4];
	size_t before = (size_t)(sum - block), after = before + sizeof(zeros);
	uint32_t crc = crc32c(0, block, before);
	crc = crc32c(crc, zeros, sizeof(zeros));
	crc = crc32c(crc, block + after, n - after);
	return crc == ((uint32_t)load16(sum) << 16 | load16(sum + 2));
}

static int check_tlvs(const unsigned char *block, size_t n,
		      const struct proxy_header *header, const char **why)
{
	if (!all_fit(header->tlvs, header->tlvs_size))
		return wrong(why, "a value goes beyond the header");
	size_t length;
	const unsigned char *sum = proxy_find(header->tlvs, header->tlvs_size,
					      TYPE_CRC32C, &length);
	if (sum && (length != 4 || !sum_is_right(block, n, sum)))
		return wrong(why, "the checksum is wrong");
	return 0;
}

int proxy_parse_block(const unsigned char *block, size_t n,
		      struct proxy_header *header, const char **why)
{
	static const size_t sizes[] = { 0, IPV4_SIZE, IPV6_SIZE, UNIX_SIZE };
	int version = block[12] >> 4, command = block[12] & 15;
	int family = block[13] >> 4, protocol = block[13] & 15;
	*header = (struct proxy_header){ .tlvs = NULL };
	if (version != 2)
		return wrong(why, "its version is not 2");
	if (command > 1)
		return wrong(why, "its command is neither LOCAL nor PROXY");
	if (command == 0)
		return 0;
	if (family > 3 || protocol > 2)
		return wrong(why, "its family or protocol is unknown");
	if (family == 0 || protocol == 0)
		return 0;
	size_t skip = PROXY_FIXED + sizes[family];
	if (n < skip)
		return wrong(why, "it is too short for its addresses");
	header->tlvs = block + skip;
	header->tlvs_size = n - skip;
	int r = check_tlvs(block, n, header, why);
	if (r == 0)
		take_addresses(family, block + PROXY_FIXED, header);
	return r;
}
