/*
 * Headers of the PROXY protocol, versions 1 and 2, as they lie in memory:
 * HAProxy's doc/proxy-protocol.txt.
 */
#ifndef SS_MIXIN_PROXY_HEADER_H
#define SS_MIXIN_PROXY_HEADER_H

#include <socketserver/address.h>

enum {
	PROXY_LINE_MAX = 107, /* version 1, with its CR LF */
	PROXY_LEAST = 12,     /* either version has more */
	PROXY_FIXED = 16,     /* version 2: and so many tell how many follow */
};

struct proxy_header {
	/* len 0: those of the connection itself count (LOCAL, UNKNOWN). */
	struct ss_address source, destination;
	const unsigned char *tlvs; /* in the block, and valid */
	size_t tlvs_size;
};

/*
 * Which version n bytes begin: 1 or 2; 0: it may be one, more are needed;
 * -EPROTO: neither.
 */
int proxy_version(const void *data, size_t n);

/* A line of n bytes, CR LF included.  0, or -EPROTO and why. */
int proxy_parse_line(const char *line, size_t n, struct proxy_header *header,
		     const char **why);

/* How many bytes follow the fixed ones. */
size_t proxy_block_rest(const unsigned char fixed[PROXY_FIXED]);
/* A block of n bytes, the fixed ones and the rest; as above. */
int proxy_parse_block(const unsigned char *block, size_t n,
		      struct proxy_header *header, const char **why);

/* The first value of a type, or NULL; *n is its length. */
const unsigned char *proxy_find(const unsigned char *tlvs, size_t size,
				int type, size_t *n);

#endif
