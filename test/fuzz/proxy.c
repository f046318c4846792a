/*
 * Headers of the PROXY protocol, by themselves and before a client's bytes.
 * The input: options, how it is cut (up to a NUL), and what is sent.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "../../lib/mixin/proxy_header.h"

enum { MAX_HEADER = 300, TEXT = 1024 };

static bool same(const struct ss_address *a, const struct ss_address *b)
{
	return a->len == b->len && ss_address_equal(a, b);
}

/* ---- version 1 ------------------------------------------------------------*/

/* Another way to write it is none: such a header is as long as it must be. */
static void must_read_back(const char *line, size_t n,
			   const struct proxy_header *header)
{
	char from[SS_ADDRESS_TEXT], to[SS_ADDRESS_TEXT], text[PROXY_LINE_MAX];
	const char *why;
	struct proxy_header again;
	int family = header->source.u.sa.sa_family == AF_INET ? 4 : 6;
	const void *source = family == 4
				     ? (void *)&header->source.u.in.sin_addr
				     : (void *)&header->source.u.in6.sin6_addr;
	const void *target =
		family == 4 ? (void *)&header->destination.u.in.sin_addr
			    : (void *)&header->destination.u.in6.sin6_addr;
	int af = family == 4 ? AF_INET : AF_INET6;
	inet_ntop(af, source, from, sizeof(from));
	inet_ntop(af, target, to, sizeof(to));
	int size = snprintf(text, sizeof(text), "PROXY TCP%d %s %s %d %d\r\n",
			    family, from, to, ss_address_port(&header->source),
			    ss_address_port(&header->destination));
	must(size > 0 && size <= PROXY_LINE_MAX, "%d bytes", size);
	must(family == 6 || ((size_t)size == n && !memcmp(text, line, n)),
	     "'%.*s' taken for '%s'", (int)n, line, text);
	must(proxy_parse_line(text, (size_t)size, &again, &why) == 0 &&
		     same(&again.source, &header->source) &&
		     same(&again.destination, &header->destination),
	     "'%s' is another", text);
}

/* As far as its newline. */
static int parse_line(struct input stream, struct proxy_header *header,
		      size_t *used)
{
	const char *why = NULL;
	*used = take_until(&stream, '\n').left + 1;
	stream.at -= *used;
	char *line = exact_copy(stream.at, *used);
	int r = proxy_parse_line(line, *used, header, &why);
	must(r == 0 || (r == -EPROTO && why), "%d", r);
	must(r < 0 || !header->tlvs, "values in a line");
	if (r == 0 && header->source.len)
		must_read_back(line, *used, header);
	free(line);
	return r;
}

/* ---- version 2 ------------------------------------------------------------*/

static void must_be_addresses(const uint8_t *at, int family,
			      const struct proxy_header *header)
{
	const struct ss_address *a = &header->source, *b = &header->destination;
	if (family == 1)
		must(!memcmp(at, &a->u.in.sin_addr, 4) &&
			     !memcmp(at + 4, &b->u.in.sin_addr, 4) &&
			     !memcmp(at + 8, &a->u.in.sin_port, 2) &&
			     !memcmp(at + 10, &b->u.in.sin_port, 2),
		     "other IPv4 addresses");
	if (family == 2)
		must(!memcmp(at, &a->u.in6.sin6_addr, 16) &&
			     !memcmp(at + 16, &b->u.in6.sin6_addr, 16) &&
			     !memcmp(at + 32, &a->u.in6.sin6_port, 2) &&
			     !memcmp(at + 34, &b->u.in6.sin6_port, 2),
		     "other IPv6 addresses");
	if (family == 3)
		must(a->u.sa.sa_family == AF_UNIX &&
			     a->len <= sizeof(a->u.un) &&
			     !memcmp(at, a->u.un.sun_path,
				     a->len - sizeof(sa_family_t)),
		     "another path");
}

/* They fill the header, and each is found if it is the first of its type. */
static void must_find(const uint8_t *tlvs, size_t size)
{
	bool seen[256] = { false };
	size_t n;
	for (size_t at = 0; at < size;) {
		must(size - at >= 3, "half a value");
		size_t length = (size_t)tlvs[at + 1] << 8 | tlvs[at + 2];
		must(length <= size - at - 3, "a value goes on");
		const unsigned char *found =
			proxy_find(tlvs, size, tlvs[at], &n);
		must(found && (seen[tlvs[at]] ||
			       (found == tlvs + at + 3 && n == length)),
		     "type %d is not found", tlvs[at]);
		seen[tlvs[at]] = true;
		at += 3 + length;
	}
	for (int type = 0; type < 256; type++)
		must(seen[type] || !proxy_find(tlvs, size, type, &n),
		     "type %d is found", type);
}

static int parse_block(const uint8_t *bytes, size_t n,
		       struct proxy_header *header)
{
	const char *why = NULL;
	uint8_t *block = exact_copy(bytes, n);
	int r = proxy_parse_block(block, n, header, &why);
	must(r == 0 || (r == -EPROTO && why), "%d", r);
	if (r == 0 && header->source.len)
		must_be_addresses(block + PROXY_FIXED, block[13] >> 4, header);
	if (r == 0 && header->tlvs) {
		must(header->tlvs + header->tlvs_size == block + n,
		     "the values do not end where the header does");
		must_find(header->tlvs, header->tlvs_size);
	}
	header->tlvs = NULL;
	free(block);
	return r;
}

/* ---- before a client's bytes ----------------------------------------------*/

static int version_of(struct input stream)
{
	int version = 0;
	for (size_t n = 1; n <= stream.left && n <= PROXY_LEAST + 4; n++) {
		uint8_t *part = exact_copy(stream.at, n);
		int now = proxy_version(part, n);
		free(part);
		must(!version || version == now, "version %d, then %d", version,
		     now);
		version = now;
	}
	return version;
}

/* What comes of it: how many bytes are the header's, or -errno. */
static ssize_t header_of(struct input stream, bool optional,
			 struct proxy_header *header)
{
	int version = version_of(stream);
	size_t used = 0;
	if (!stream.left)
		return -ENODATA;
	if (optional && version <= 0)
		return 0;
	if (version < 0 || stream.left < PROXY_FIXED)
		return -EPROTO;
	if (version == 1) {
		if (memchr(stream.at, '\n', PROXY_LEAST) ||
		    !memchr(stream.at, '\n', stream.left) ||
		    parse_line(stream, header, &used) < 0)
			return -EPROTO;
		return (ssize_t)used;
	}
	used = PROXY_FIXED + proxy_block_rest(stream.at);
	if (used > stream.left || used > MAX_HEADER ||
	    parse_block(stream.at, used, header) < 0)
		return -EPROTO;
	return (ssize_t)used;
}

/* Who it is said to be, then all that comes. */
static int handle(struct ss_request *req)
{
	struct ss_address local;
	char peer[SS_ADDRESS_TEXT], to[SS_ADDRESS_TEXT] = "none", buf[64];
	ssize_t r = ss_request_local(req, &local);
	if (r == 0)
		ss_address_format(&local, to, sizeof(to));
	r = ss_printf(req, "%s %s\n", ss_peer_name(req, peer, sizeof(peer)),
		      to);
	while (r > 0 && (r = ss_read(req, buf, sizeof(buf))) > 0)
		r = ss_write(req, buf, (size_t)r);
	return r < 0 ? (int)r : 0;
}

static void must_be_served(struct input stream, ssize_t header_size,
			   const struct proxy_header *header,
			   const struct served *served, enum way way)
{
	char from[SS_ADDRESS_TEXT], to[SS_ADDRESS_TEXT] = "none", head[TEXT];
	bool told = header_size > 0 && header->source.len;
	must(served->status == (header_size < 0 ? header_size : 0),
	     "%s: %d instead of %zd", way_names[way], served->status,
	     header_size);
	if (header_size < 0) {
		must(served->n == 0, "an answer");
		return;
	}
	ss_address_format(told ? &header->source : &fuzz_peer, from,
			  sizeof(from));
	if (told)
		ss_address_format(&header->destination, to, sizeof(to));
	size_t n = (size_t)snprintf(head, sizeof(head), "%s %s\n", from, to);
	size_t rest = stream.left - (size_t)header_size;
	must(served->n >= n && !memcmp(served->answer, head, n),
	     "%s: '%.*s' instead of '%s'", way_names[way], (int)served->n,
	     (char *)served->answer, head);
	must(served->n == n + rest &&
		     (!rest || !memcmp(served->answer + n,
				       stream.at + header_size, rest)),
	     "%s: %zu bytes of %zu behind it", way_names[way], served->n - n,
	     rest);
}

FUZZ_TARGET(proxy)(const uint8_t *data, size_t n)
{
	struct input in = { data, n };
	uint8_t flags = take_byte(&in);
	struct input cuts = take_until(&in, '\0');
	const struct ss_proxy_options options = {
		.trusted = "10.0.0.1",
		.optional = flags & 1,
		.max_header = MAX_HEADER,
	};
	const struct ss_handler handler = {
		.handle = handle,
		.rbufsize = flags & 2 ? 12 + (flags >> 4) : 0,
	};
	const struct ss_config config = {
		.mixins = { { &fuzz_peer_layer, NULL },
			    { &ss_proxy_mixin, &options } },
		.handler = &handler,
	};
	struct proxy_header header = { .tlvs = NULL };
	fuzz_peer = (struct ss_address){ .len = sizeof(struct sockaddr_in) };
	fuzz_peer.u.in.sin_family = AF_INET;
	fuzz_peer.u.in.sin_addr.s_addr = htonl(0x0a000001);
	ssize_t header_size = header_of(in, options.optional, &header);
	enum way way = flags & 4 ? WHOLE : way_of(cuts);
	struct served served = serve_one(&config, way, cuts, in.at, in.left);
	must_be_served(in, header_size, &header, &served, way);
	served_free(&served);
	return 0;
}
