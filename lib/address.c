/*
 * Addresses as text and back.  What is numeric is checked here before libc
 * sees it: getaddrinfo(3) takes "127.1", "0x7f000001" and "010.0.0.1" for
 * addresses, and asks the name servers for "256.0.0.1".
 */
#include "internal.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>

enum {
	PORT_MAX = 65535,
	HOST_SIZE = 256,  /* RFC 1035 3.1: a name has at most 255 bytes */
	QUOTE_SIZE = 128, /* of a diagnosis, for the text that was given */
	INET_SIZE = INET6_ADDRSTRLEN + 1 + 10, /* ADDRESS%SCOPE */
};

/* One call of ss_resolve. */
struct question {
	const char *text;
	const char *rest; /* what follows the scheme */
	enum ss_scheme scheme;
	bool bare;    /* the text names no scheme */
	bool numeric; /* names are not looked up */
	struct ss_endpoint *list;
	size_t room;
	size_t found;
	struct ss_diag *why;
};

/* HOST:PORT, taken apart but not understood yet. */
struct place {
	const char *host;
	size_t len;
	const char *port;
	bool bracketed;
};

static const char *const prefixes[] = {
	[SS_SCHEME_ANY] = "",
	[SS_SCHEME_TCP] = "tcp://",
	[SS_SCHEME_UDP] = "udp://",
	[SS_SCHEME_UNIX] = "unix:",
	[SS_SCHEME_UNIXGRAM] = "unixgram:",
	[SS_SCHEME_FD] = "fd:",
	[SS_SCHEME_MEMORY] = "memory:",
};

/* The locale has no say in what an address is: no isdigit(3) and the like. */
static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* As much as fits, but never half an escape.  Returns its length. */
static size_t escape(char *buf, size_t size, const char *bytes, size_t n)
{
	size_t at = 0;
	for (size_t i = 0; i < n; i++) {
		bool prints = bytes[i] >= ' ' && bytes[i] <= '~';
		if (at + (prints ? 1 : 4) >= size)
			break;
		if (prints)
			buf[at++] = bytes[i];
		else
			at += (size_t)snprintf(buf + at, size - at, "\\x%02x",
					       (unsigned char)bytes[i]);
	}
	buf[at] = '\0';
	return at;
}

/* The text may come from anywhere; the diagnosis must stay one clean line. */
SS_PRINTF(4, 0)
static void diagnose(struct ss_diag *why, const char *text, int code,
		     const char *fmt, va_list args)
{
	if (!why)
		return;
	char detail[sizeof(why->text)];
	vsnprintf(detail, sizeof(detail), fmt, args);
	if (!*text)
		text = "\"\"";
	size_t at = escape(why->text, QUOTE_SIZE, text, strlen(text));
	at += (size_t)snprintf(why->text + at, sizeof(why->text) - at, ": ");
	escape(why->text + at, sizeof(why->text) - at, detail, strlen(detail));
	why->code = code;
}

int address_refuse(struct ss_diag *why, const char *text, int code,
		   const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	diagnose(why, text, code, fmt, args);
	va_end(args);
	return code;
}

SS_PRINTF(3, 4)
static int refuse(const struct question *q, int code, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	diagnose(q->why, q->text, code, fmt, args);
	va_end(args);
	return code;
}

/* -1 unless it is a decimal number, and nothing else, in 0..max. */
static int number(const char *text, int max)
{
	if (!*text)
		return -1;
	int64_t value = 0;
	for (; *text; text++) {
		if (!digit(*text))
			return -1;
		value = value * 10 + (*text - '0');
		if (value > max)
			return -1;
	}
	return (int)value;
}

static void add(struct question *q, const struct ss_endpoint *endpoint)
{
	if (q->found < q->room)
		q->list[q->found] = *endpoint;
	q->found++;
}

/* The family, if all of such an address is there. */
static int family_of(const struct ss_address *address)
{
	if (address->len < offsetof(struct sockaddr, sa_data))
		return AF_UNSPEC;
	int said = address->u.sa.sa_family;
	if (said == AF_INET && address->len < sizeof(address->u.in))
		return AF_UNSPEC;
	if (said == AF_INET6 && address->len < sizeof(address->u.in6))
		return AF_UNSPEC;
	return said;
}

/* An IPv4 address that came through an IPv6 socket, as what it is. */
static struct ss_address unmapped(const struct ss_address *address)
{
	const struct in6_addr *in6 = &address->u.in6.sin6_addr;
	if (family_of(address) != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(in6))
		return *address;
	struct ss_address plain = { .len = sizeof(plain.u.in) };
	plain.u.in.sin_family = AF_INET;
	plain.u.in.sin_port = address->u.in6.sin6_port;
	memcpy(&plain.u.in.sin_addr, &in6->s6_addr[12], 4);
	return plain;
}

/* Returns its length; an abstract name begins with NUL, 0 is unnamed. */
static size_t unix_name(const struct ss_address *address, const char **name)
{
	const struct sockaddr_un *un = &address->u.un;
	*name = un->sun_path;
	size_t skip = offsetof(struct sockaddr_un, sun_path);
	size_t len = address->len;
	if (len <= skip)
		return 0;
	/* unix(7): a path that fills sun_path is reported one byte longer */
	if (len > sizeof(*un))
		len = sizeof(*un);
	len -= skip;
	return un->sun_path[0] ? strnlen(un->sun_path, len) : len;
}

static int refuse_lookup(const struct question *q, int error, int saved_errno,
			 const char *host, const char *port)
{
	int code = -EINVAL;
	if (error == EAI_NONAME || error == EAI_SERVICE)
		code = -ENOENT;
#ifdef EAI_NODATA
	if (error == EAI_NODATA)
		code = -ENOENT;
#endif
	if (error == EAI_AGAIN)
		code = -EAGAIN;
	if (error == EAI_MEMORY)
		code = -ENOMEM;
	if (error == EAI_SYSTEM && saved_errno > 0)
		code = -saved_errno;
	bool service = error == EAI_SERVICE;
	return refuse(q, code, "%s \"%.60s\": %s", service ? "port" : "host",
		      service ? port : host, gai_strerror(error));
}

/* False for what is no internet address. */
static bool convert(const struct addrinfo *info, struct ss_address *address)
{
	*address = (struct ss_address){ 0 };
	if (info->ai_addrlen > sizeof(address->u))
		return false;
	address->len = info->ai_addrlen;
	memcpy(&address->u, info->ai_addr, info->ai_addrlen);
	*address = unmapped(address);
	return family_of(address) == AF_INET || family_of(address) == AF_INET6;
}

/* glibc answers twice when /etc/hosts has a name under 127.0.0.1 and ::1. */
static bool seen(const struct addrinfo *list, const struct addrinfo *info,
		 const struct ss_address *address)
{
	for (; list != info; list = list->ai_next) {
		struct ss_address earlier;
		if (convert(list, &earlier) &&
		    ss_address_equal(&earlier, address))
			return true;
	}
	return false;
}

static void add_inet(struct question *q, const struct ss_address *address,
		     bool literal)
{
	struct ss_endpoint endpoint = { .scheme = q->scheme,
					.fd = -1,
					.address = *address };
	const struct sockaddr_in6 *in6 = &address->u.in6;
	endpoint.dual_stack = literal && family_of(address) == AF_INET6 &&
			      IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
	add(q, &endpoint);
	if (!endpoint.dual_stack)
		return;
	endpoint.dual_stack = false;
	endpoint.fallback = true;
	endpoint.address =
		(struct ss_address){ .len = sizeof(struct sockaddr_in) };
	endpoint.address.u.in.sin_family = AF_INET;
	endpoint.address.u.in.sin_port = in6->sin6_port;
	add(q, &endpoint);
}

static int look_up(struct question *q, const char *host, const char *port,
		   const struct addrinfo *hints)
{
	struct addrinfo *list = NULL;
	int error = sys_getaddrinfo(host, port, hints, &list);
	if (error)
		return refuse_lookup(q, error, errno, host, port);
	for (const struct addrinfo *info = list; info; info = info->ai_next) {
		struct ss_address address;
		if (convert(info, &address) && !seen(list, info, &address))
			add_inet(q, &address,
				 (hints->ai_flags & AI_NUMERICHOST) != 0);
	}
	freeaddrinfo(list);
	if (!q->found)
		return refuse(q, -ENOENT,
			      "host \"%.60s\" has no internet address", host);
	return 0;
}

static int split(const struct question *q, struct place *place)
{
	const char *rest = q->rest;
	bool bracketed = *rest == '[';
	const char *end = strchr(rest, bracketed ? ']' : ':');
	const char *wrong = NULL;
	if (q->bare && (*rest == '/' || *rest == '@'))
		wrong = "HOST:PORT is expected; a path is unix:PATH";
	else if (!end)
		wrong = bracketed ? "\"[\" has no \"]\""
				  : "no port; HOST:PORT is expected";
	else if (bracketed && end[1] != ':')
		wrong = "no \":PORT\" after \"]\"";
	else if (!bracketed && strchr(end + 1, ':'))
		wrong = "more than one \":\"; IPv6 addresses go in brackets,"
			" as in [::1]:80";
	if (wrong || !end)
		return refuse(q, -EINVAL, "%s", wrong);
	place->bracketed = bracketed;
	place->host = rest + bracketed;
	place->len = (size_t)(end - place->host);
	place->port = end + 1 + bracketed;
	return 0;
}

static bool is_in4(const char *host)
{
	struct in_addr ignored;
	return inet_pton(AF_INET, host, &ignored) == 1;
}

/* The scope, if any, is left to getaddrinfo: it knows the interfaces. */
static bool is_in6(const char *host)
{
	size_t len = strcspn(host, "%");
	char text[INET6_ADDRSTRLEN];
	if (len >= sizeof(text) || (host[len] && !host[len + 1]))
		return false;
	memcpy(text, host, len);
	text[len] = '\0';
	struct in6_addr ignored;
	return inet_pton(AF_INET6, text, &ignored) == 1;
}

/* No host name ends in a number (RFC 1123 2.1): what does means an address. */
static bool ends_in_number(const char *host)
{
	const char *dot = strrchr(host, '.');
	const char *last = dot ? dot + 1 : host;
	if (last[0] == '0' && (last[1] == 'x' || last[1] == 'X'))
		return !last[2 + strspn(last + 2, "0123456789abcdefABCDEF")];
	return *last && !last[strspn(last, "0123456789")];
}

/* Whether a name beyond ASCII exists is the resolver's to say. */
static bool is_name(const char *host)
{
	for (; *host; host++)
		if (!letter(*host) && !digit(*host) && !strchr("-._", *host) &&
		    (unsigned char)*host < 0x80)
			return false;
	return true;
}

/* Copies it to `host`; the family is AF_UNSPEC if it must be looked up. */
static int check_host(const struct question *q, const struct place *place,
		      char host[HOST_SIZE], int *family)
{
	assert(place->host && place->port);
	if (place->len >= HOST_SIZE)
		return refuse(q, -ENAMETOOLONG,
			      "the host has %zu bytes, at most %d are possible",
			      place->len, HOST_SIZE - 1);
	memcpy(host, place->host, place->len);
	host[place->len] = '\0';
	bool every = !place->bracketed && (!*host || strcmp(host, "*") == 0);
	if (every)
		snprintf(host, HOST_SIZE, "::");

	const char *wanted = NULL;
	*family = AF_UNSPEC;
	if (every || place->bracketed) {
		*family = AF_INET6;
		wanted = is_in6(host) ? NULL : "an IPv6 address";
	} else if (ends_in_number(host)) {
		*family = AF_INET;
		wanted = is_in4(host) ? NULL : "an IPv4 address";
	} else {
		wanted = is_name(host) ? NULL : "a host name";
	}
	return wanted ? refuse(q, -EINVAL, "\"%.60s\" is not %s", host, wanted)
		      : 0;
}

/* What begins with a letter is a service; libc knows whether there is one. */
static int check_port(const struct question *q, const char *port)
{
	assert(port);
	if (letter(*port) || number(port, PORT_MAX) != -1)
		return 0;
	return refuse(q, -EINVAL, "port \"%.60s\" is not in 0..%d", port,
		      PORT_MAX);
}

static int parse_inet(struct question *q)
{
	struct place place = { 0 };
	char host[HOST_SIZE];
	int family = AF_UNSPEC;
	int rc;
	if ((rc = split(q, &place)) < 0 ||
	    (rc = check_host(q, &place, host, &family)) < 0 ||
	    (rc = check_port(q, place.port)) < 0)
		return rc;
	if (q->numeric && (family == AF_UNSPEC || letter(*place.port)))
		return -EINPROGRESS;
	bool dgram = q->scheme == SS_SCHEME_UDP;
	struct addrinfo hints = {
		.ai_flags = (family == AF_UNSPEC ? 0 : AI_NUMERICHOST) |
			    (letter(*place.port) ? 0 : AI_NUMERICSERV),
		.ai_family = family,
		.ai_socktype = dgram ? SOCK_DGRAM : SOCK_STREAM,
	};
	return look_up(q, host, place.port, &hints);
}

static int parse_unix(struct question *q)
{
	const char *path = q->rest;
	if (q->bare && *path != '/' && *path != '@')
		return refuse(q, -EINVAL, "/PATH or @NAME is expected");
	/* unix:///PATH, as URLs have it; unix://PATH would name a host */
	if (!q->bare && strncmp(path, "//", 2) == 0) {
		path += 2;
		if (*path != '/')
			return refuse(q, -EINVAL,
				      "an absolute path belongs after \"//\"");
	}
	bool abstract = *path == '@';
	if (!path[abstract])
		return refuse(q, -EINVAL, "the %s is empty",
			      abstract ? "name" : "path");

	struct ss_endpoint endpoint = { .scheme = q->scheme, .fd = -1 };
	struct sockaddr_un *un = &endpoint.address.u.un;
	size_t len = strlen(path) + !abstract; /* a path with its NUL */
	if (len > sizeof(un->sun_path))
		return refuse(q, -ENAMETOOLONG,
			      "%zu bytes, and sockaddr_un takes %zu",
			      strlen(path), sizeof(un->sun_path) - !abstract);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len);
	if (abstract)
		un->sun_path[0] = '\0';
	endpoint.address.len =
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	add(q, &endpoint);
	return 0;
}

static int parse_fd(struct question *q)
{
	int fd = number(q->rest, INT_MAX);
	if (fd == -1)
		return refuse(q, -EINVAL,
			      "descriptor \"%.60s\" is not in 0..%d", q->rest,
			      INT_MAX);
	struct ss_endpoint endpoint = { .scheme = SS_SCHEME_FD, .fd = fd };
	add(q, &endpoint);
	return 0;
}

static int parse_memory(struct question *q)
{
	if (!*q->rest)
		return refuse(q, -EINVAL, "the name is empty");
	struct ss_endpoint endpoint = { .scheme = SS_SCHEME_MEMORY, .fd = -1 };
	add(q, &endpoint);
	return 0;
}

/* The length of a scheme's name: of "tcp" in "tcp://". */
static int name_len(enum ss_scheme scheme)
{
	return (int)strcspn(prefixes[scheme], ":");
}

static int parse_scheme(struct question *q)
{
	for (enum ss_scheme scheme = SS_SCHEME_TCP; scheme <= SS_SCHEME_MEMORY;
	     scheme++) {
		const char *prefix = prefixes[scheme];
		if (strncmp(q->text, prefix, (size_t)name_len(scheme) + 1) != 0)
			continue;
		size_t len = strlen(prefix);
		if (strncmp(q->text, prefix, len) != 0)
			return refuse(q, -EINVAL, "\"%s\" is expected", prefix);
		q->scheme = scheme;
		q->rest = q->text + len;
		return 0;
	}
	size_t len = strcspn(q->text, ":/@");
	if (strncmp(q->text + len, "://", 3) == 0)
		return refuse(q, -EINVAL, "\"%.*s\" is not a known scheme",
			      (int)(len < 60 ? len : 60), q->text);
	q->bare = true;
	return 0;
}

static int check_scheme(struct question *q, enum ss_scheme expect)
{
	if (q->bare) {
		q->scheme = expect == SS_SCHEME_ANY ? SS_SCHEME_TCP : expect;
		return 0;
	}
	if (expect == SS_SCHEME_ANY || q->scheme == SS_SCHEME_FD ||
	    q->scheme == expect)
		return 0;
	return refuse(q, -EINVAL, "a %.*s address is expected, not %.*s",
		      name_len(expect), prefixes[expect], name_len(q->scheme),
		      prefixes[q->scheme]);
}

static ssize_t answer(struct question *q, enum ss_scheme expect)
{
	static int (*const parse[])(struct question *) = {
		[SS_SCHEME_ANY] = parse_inet,
		[SS_SCHEME_TCP] = parse_inet,
		[SS_SCHEME_UDP] = parse_inet,
		[SS_SCHEME_UNIX] = parse_unix,
		[SS_SCHEME_UNIXGRAM] = parse_unix,
		[SS_SCHEME_FD] = parse_fd,
		[SS_SCHEME_MEMORY] = parse_memory,
	};
	if (q->why)
		*q->why = (struct ss_diag){ 0 };
	int rc;
	if ((rc = parse_scheme(q)) < 0 || (rc = check_scheme(q, expect)) < 0 ||
	    (rc = parse[q->scheme](q)) < 0)
		return rc;
	return (ssize_t)q->found;
}

ssize_t ss_resolve(const char *text, enum ss_scheme expect,
		   struct ss_endpoint *list, size_t room, struct ss_diag *why)
{
	struct question q = { .text = text,
			      .rest = text,
			      .list = list,
			      .room = room,
			      .why = why };
	return answer(&q, expect);
}

ssize_t address_parse(const char *text, enum ss_scheme expect,
		      struct ss_endpoint *list, size_t room,
		      struct ss_diag *why)
{
	struct question q = { .text = text,
			      .rest = text,
			      .numeric = true,
			      .list = list,
			      .room = room,
			      .why = why };
	return answer(&q, expect);
}

/*
 * The scope is a number (RFC 4007 11.2): its name would cost a socket and an
 * ioctl for each line of a log.
 */
static char *print_host(const struct ss_address *address, char *buf,
			size_t size)
{
	const char *name;
	size_t len;
	char text[INET6_ADDRSTRLEN];
	switch (family_of(address)) {
	case AF_INET:
		inet_ntop(AF_INET, &address->u.in.sin_addr, text, sizeof(text));
		snprintf(buf, size, "%s", text);
		return buf;
	case AF_INET6:
		inet_ntop(AF_INET6, &address->u.in6.sin6_addr, text,
			  sizeof(text));
		uint32_t scope = address->u.in6.sin6_scope_id;
		snprintf(buf, size, scope ? "%s%%%u" : "%s", text, scope);
		return buf;
	case AF_UNIX:
		len = unix_name(address, &name);
		if (!len)
			break;
		if (!*name && size > 1) {
			buf[0] = '@';
			escape(buf + 1, size - 1, name + 1, len - 1);
			return buf;
		}
		escape(buf, size, name, len);
		return buf;
	}
	snprintf(buf, size, "-");
	return buf;
}

char *ss_address_host(const struct ss_address *address, char *buf, size_t size)
{
	assert(size > 0);
	struct ss_address plain = unmapped(address);
	return print_host(&plain, buf, size);
}

char *ss_address_format(const struct ss_address *address, char *buf,
			size_t size)
{
	assert(size > 0);
	struct ss_address plain = unmapped(address);
	int port = ss_address_port(&plain);
	if (port < 0)
		return print_host(&plain, buf, size);
	char host[INET_SIZE];
	print_host(&plain, host, sizeof(host));
	bool bracketed = family_of(&plain) == AF_INET6;
	snprintf(buf, size, bracketed ? "[%s]:%d" : "%s:%d", host, port);
	return buf;
}

/* A path of which a URL would take the beginning for a host. */
static bool seems_host(const struct ss_address *address)
{
	const char *name;
	return family_of(address) == AF_UNIX && unix_name(address, &name) > 1 &&
	       name[0] == '/' && name[1] == '/';
}

char *ss_url_format(enum ss_scheme scheme, const struct ss_address *address,
		    char *buf, size_t size)
{
	assert(size > 0);
	const char *host = seems_host(address) ? "//" : "";
	size_t len = strlen(prefixes[scheme]) + strlen(host);
	snprintf(buf, size, "%s%s", prefixes[scheme], host);
	if (len < size)
		ss_address_format(address, buf + len, size - len);
	return buf;
}

int ss_address_port(const struct ss_address *address)
{
	switch (family_of(address)) {
	case AF_INET:
		return ntohs(address->u.in.sin_port);
	case AF_INET6:
		return ntohs(address->u.in6.sin6_port);
	}
	return -EAFNOSUPPORT;
}

/* Two addresses without a name are equal: an address always equals itself. */
bool ss_address_equal(const struct ss_address *a, const struct ss_address *b)
{
	struct ss_address x = unmapped(a);
	struct ss_address y = unmapped(b);
	if (family_of(&x) != family_of(&y) ||
	    ss_address_port(&x) != ss_address_port(&y))
		return false;
	const char *one;
	const char *two;
	switch (family_of(&x)) {
	case AF_INET:
		return x.u.in.sin_addr.s_addr == y.u.in.sin_addr.s_addr;
	case AF_INET6:
		return x.u.in6.sin6_scope_id == y.u.in6.sin6_scope_id &&
		       memcmp(&x.u.in6.sin6_addr, &y.u.in6.sin6_addr, 16) == 0;
	case AF_UNIX:
		return unix_name(&x, &one) == unix_name(&y, &two) &&
		       memcmp(one, two, unix_name(&x, &one)) == 0;
	}
	size_t len = x.len < sizeof(x.u) ? x.len : sizeof(x.u);
	return x.len == y.len && memcmp(&x.u, &y.u, len) == 0;
}
