/*
 * PROXY protocol: who connects is a balancer, who tells in a header before the
 * client's bytes where the client is.
 *
 * verify_request asks for the balancer alone.  The header is read where the
 * handler will run, and then the layers below are asked for the client.
 */
#include <errno.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../sys.h"
#include "acl.h"
#include "proxy_header.h"

enum {
	HANDSHAKE_MS = 5000,
	MAX_HEADER = 4096,
	MOST_HEADER = PROXY_FIXED + 65535,
};

struct proxy {
	struct acl *trusted;
	size_t max_header;
	bool optional;
	bool untimed; /* the configuration has no handshake_ms */
};

/* What is kept of a header. */
struct kept {
	struct ss_address balancer;
	const unsigned char *tlvs;
	size_t tlvs_size;
	unsigned char block[];
};

/* A request's. */
struct proxied {
	struct kept *kept; /* heap; NULL: there was no header */
	bool expected;	   /* there is to be one, or may be */
};

static struct proxy *proxy_of(const struct ss_server *server)
{
	return ss_layer_state(server, &ss_proxy_mixin);
}

static struct proxied *proxied_of(const struct ss_request *req)
{
	return ss_request_layer_state(req, &ss_proxy_mixin);
}

static const struct ss_ops *super_of(const struct ss_server *server)
{
	return ss_super(server, &ss_proxy_mixin);
}

/* ---- the server -----------------------------------------------------------*/

static int check(struct ss_server *server,
		 const struct ss_proxy_options *options)
{
	int buffer = ss_server_handler(server)->rbufsize;
	if (!acl_count(options->trusted))
		return ss_refuse(server, -EINVAL,
				 "proxy: no balancer is trusted: list them");
	if (options->max_header < 0 || options->max_header > MOST_HEADER)
		return ss_refuse(server, -EINVAL,
				 "proxy: max_header is %d, and not in 0..%d",
				 options->max_header, MOST_HEADER);
	if (options->optional && buffer > 0 && buffer < PROXY_LEAST)
		return ss_refuse(server, -EINVAL,
				 "proxy: to look for a header takes a read "
				 "buffer of %d bytes, and the handler's has %d",
				 PROXY_LEAST, buffer);
	return 0;
}

static int prx_init(struct ss_server *server, const void *given)
{
	static const struct ss_proxy_options defaults = { .trusted = NULL };
	const struct ss_proxy_options *options = given ? given : &defaults;
	struct proxy *proxy = proxy_of(server);
	struct ss_diag why;
	int r = check(server, options);
	if (r < 0)
		return r;
	proxy->optional = options->optional;
	proxy->max_header =
		options->max_header ? (size_t)options->max_header : MAX_HEADER;
	proxy->untimed = !ss_server_timeouts(server).handshake_ms;
	r = acl_new(&proxy->trusted, acl_count(options->trusted));
	if (r < 0)
		return r;
	r = acl_set(proxy->trusted, options->trusted, NULL, &why);
	if (r == 0)
		return 0;
	acl_free(proxy->trusted);
	/* Without the list's name there: "allow: ". */
	const char *reason = strchr(why.text, '"');
	return ss_refuse(server, r, "proxy: trusted: %s",
			 reason ? reason : why.text);
}

static void prx_fini(struct ss_server *server)
{
	acl_free(proxy_of(server)->trusted);
}

/* ---- the header -----------------------------------------------------------*/

static int fail(struct ss_request *req, const char *why)
{
	return ss_fail(req, -EPROTO, "PROXY header: %s", why);
}

/* Exactly n bytes.  Who has said nothing has only looked whether we are here,
 * as balancers do. */
static int read_all(struct ss_request *req, void *buf, size_t n, size_t before)
{
	ssize_t r = n ? ss_read_full(req, buf, n) : 0;
	if (r == -ETIMEDOUT)
		return ss_fail(req, -ETIMEDOUT,
			       "PROXY header: it did not come "
			       "in time");
	if (r < 0 || (size_t)r == n)
		return r < 0 ? (int)r : 0;
	if (!before && r == 0)
		return ss_fail(req, -ENODATA, "PROXY header: nothing came");
	return fail(req, "the connection ended within it");
}

static struct kept *keep(struct ss_request *req, size_t block)
{
	struct kept *kept = sys_malloc(sizeof(*kept) + block);
	if (!kept)
		return NULL;
	kept->tlvs = NULL;
	kept->tlvs_size = 0;
	/* Who was let in for its address has one. */
	ss_request_peer(req, &kept->balancer);
	proxied_of(req)->kept = kept;
	return kept;
}

/* What remains of a line, one of whose longest possible ones fits. */
static int read_line(struct ss_request *req, const char *first,
		     struct proxy_header *header)
{
	char line[PROXY_LINE_MAX + 1];
	const char *why;
	if (memchr(first, '\n', PROXY_LEAST))
		return fail(req, "the line is too short");
	memcpy(line, first, PROXY_LEAST);
	ssize_t n = ss_read_line(req, line + PROXY_LEAST,
				 sizeof(line) - PROXY_LEAST);
	if (n == -EMSGSIZE)
		return fail(req, "the line is longer than 107 bytes");
	if (n == -ETIMEDOUT)
		return ss_fail(req, -ETIMEDOUT,
			       "PROXY header: it did not come "
			       "in time");
	if (n < 0)
		return (int)n;
	if (n == 0)
		return fail(req, "the connection ended within it");
	int r = proxy_parse_line(line, PROXY_LEAST + (size_t)n, header, &why);
	if (r < 0)
		return fail(req, why);
	return keep(req, 0) ? 0 : -ENOMEM;
}

static int read_block(struct ss_request *req, const char *first,
		      struct proxy_header *header)
{
	const struct proxy *proxy = proxy_of(ss_request_server(req));
	unsigned char fixed[PROXY_FIXED];
	const char *why;
	memcpy(fixed, first, PROXY_LEAST);
	int r = read_all(req, fixed + PROXY_LEAST, PROXY_FIXED - PROXY_LEAST,
			 PROXY_LEAST);
	if (r < 0)
		return r;
	size_t rest = proxy_block_rest(fixed), n = PROXY_FIXED + rest;
	if (n > proxy->max_header)
		return ss_fail(req, -EPROTO,
			       "PROXY header: it has %zu bytes, and %zu are "
			       "allowed",
			       n, proxy->max_header);
	struct kept *kept = keep(req, n);
	if (!kept)
		return -ENOMEM;
	memcpy(kept->block, fixed, PROXY_FIXED);
	r = read_all(req, kept->block + PROXY_FIXED, rest, PROXY_FIXED);
	if (r < 0)
		return r;
	if (proxy_parse_block(kept->block, n, header, &why) < 0)
		return fail(req, why);
	kept->tlvs = header->tlvs;
	kept->tlvs_size = header->tlvs_size;
	return 0;
}

/* Whether a header begins here; what is no header stays to be read. */
static int look_for_header(struct ss_request *req)
{
	for (size_t wanted = 1;;) {
		const void *data;
		ssize_t n = ss_peek(req, &data, wanted);
		if (n == 0)
			return ss_fail(req, -ENODATA, "nothing came");
		if (n < 0)
			return (int)n;
		int version = proxy_version(data, (size_t)n);
		if (version || (size_t)n < wanted)
			return version > 0;
		wanted = (size_t)n + 1;
	}
}

static int read_header(struct ss_request *req)
{
	char first[PROXY_LEAST];
	struct proxy_header header = { .tlvs = NULL };
	int r = read_all(req, first, sizeof(first), 0);
	if (r < 0)
		return r;
	int version = proxy_version(first, sizeof(first));
	if (version < 0)
		return fail(req, "the client does not begin with one");
	r = version == 1 ? read_line(req, first, &header)
			 : read_block(req, first, &header);
	if (r < 0 || !header.source.len)
		return r;
	r = ss_request_set_peer(req, &header.source);
	return r < 0 ? r : ss_request_set_local(req, &header.destination);
}

/* ---- a request ------------------------------------------------------------*/

static int prx_verify_request(struct ss_server *server, struct ss_request *req)
{
	const struct proxy *proxy = proxy_of(server);
	proxied_of(req)->expected = acl_allows(proxy->trusted, req);
	if (proxied_of(req)->expected)
		return 1;
	if (proxy->optional)
		return super_of(server)->verify_request(server, req);
	char peer[SS_ADDRESS_TEXT];
	ss_log(server, SS_LOG_INFO, ss_request_id(req),
	       "%s is no trusted balancer",
	       ss_peer_name(req, peer, sizeof(peer)));
	return 0;
}

static int shake_hands(struct ss_server *server, struct ss_request *req)
{
	const struct proxy *proxy = proxy_of(server);
	const struct ss_timeouts patience = { .handshake_ms = HANDSHAKE_MS };
	int r = proxy->untimed ? ss_request_set_timeouts(req, &patience) : 0;
	if (r < 0)
		return r;
	int found = proxy->optional ? look_for_header(req) : 1;
	r = found > 0 ? read_header(req) : found;
	if (r < 0)
		return r;
	r = super_of(server)->verify_request(server, req);
	return r ? r : -EACCES;
}

static int prx_finish_request(struct ss_server *server, struct ss_request *req)
{
	int r = proxied_of(req)->expected ? shake_hands(server, req) : 0;
	return r < 0 ? r : super_of(server)->finish_request(server, req);
}

static void prx_end_request(struct ss_server *server, struct ss_request *req,
			    int status)
{
	super_of(server)->end_request(server, req, status);
	sys_free(proxied_of(req)->kept);
	proxied_of(req)->kept = NULL;
}

/* ---- for handlers ---------------------------------------------------------*/

static int kept_of(const struct ss_request *req, const struct kept **kept)
{
	if (!ss_server_has(ss_request_server(req), &ss_proxy_mixin))
		return -ENOTSUP;
	*kept = proxied_of(req)->kept;
	return *kept ? 0 : -ENOENT;
}

int ss_proxy_balancer(const struct ss_request *req, struct ss_address *address)
{
	const struct kept *kept;
	int r = kept_of(req, &kept);
	if (r == 0)
		*address = kept->balancer;
	return r;
}

ssize_t ss_proxy_tlv(const struct ss_request *req, int type, const void **value)
{
	const struct kept *kept;
	size_t n;
	*value = NULL;
	int r = kept_of(req, &kept);
	if (r < 0)
		return r;
	*value = proxy_find(kept->tlvs, kept->tlvs_size, type, &n);
	return *value ? (ssize_t)n : -ENOENT;
}

const struct ss_layer ss_proxy_mixin = {
	.name = "proxy",
	.flags = SS_NEEDS_STREAM,
	.server_size = sizeof(struct proxy),
	.request_size = sizeof(struct proxied),
	.init = prx_init,
	.fini = prx_fini,
	.ops = {
		.verify_request = prx_verify_request,
		.finish_request = prx_finish_request,
		.end_request = prx_end_request,
	},
};
