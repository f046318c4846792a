/* Addresses as text and back.  The input is the text, and a struct ss_address.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "../../lib/internal.h"

enum { ROOM = 4 };

/* ---- a resolver that asks nobody ------------------------------------------*/

static bool looked_up;

static unsigned hash(const char *text)
{
	unsigned value = 0;
	for (; *text; text++)
		value = value * 31 + (unsigned char)*text;
	return value;
}

/* Names have one or two addresses, perhaps the same one twice, or none. */
static int resolve(const char *host, const char *service,
		   const struct addrinfo *hints, struct addrinfo **result)
{
	static const char *const known[] = { "127.0.0.1", "::1",
					     "::", "::ffff:127.0.0.1",
					     "fe80::1" };
	static const int errors[] = { EAI_NONAME, EAI_AGAIN, EAI_SERVICE,
				      EAI_MEMORY, EAI_FAIL };
	const unsigned count = sizeof(known) / sizeof(*known);
	bool named = !(hints->ai_flags & AI_NUMERICSERV);
	struct addrinfo ours = *hints, *more = NULL;
	char port[8];
	snprintf(port, sizeof(port), "%u", hash(service) % 65536);
	ours.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	looked_up = true;
	if (hints->ai_flags & AI_NUMERICHOST) {
		looked_up = named;
		return getaddrinfo(host, named ? port : service, &ours, result);
	}
	unsigned which = hash(host);
	if (which % 7 == 0)
		return errors[which / 7 % 5];
	int error = getaddrinfo(known[which % count], port, &ours, result);
	if (error || which % 2)
		return error;
	error = getaddrinfo(known[which / count % count], port, &ours, &more);
	(*result)->ai_next = more;
	return error;
}

/* ---- text -----------------------------------------------------------------*/

/* For the kernel, a name that cannot be shown cannot be read back either. */
static bool shown(const struct ss_endpoint *endpoint)
{
	const struct sockaddr_un *un = &endpoint->address.u.un;
	size_t skip = offsetof(struct sockaddr_un, sun_path);
	if (endpoint->address.u.sa.sa_family != AF_UNIX)
		return true;
	size_t n = endpoint->address.len - skip, from = !un->sun_path[0];
	if (!from)
		n = strnlen(un->sun_path, n);
	return plain_text(un->sun_path + from, n - from);
}

static void must_round_trip(const struct ss_endpoint *endpoint)
{
	char text[SS_ADDRESS_TEXT + 16], again[SS_ADDRESS_TEXT + 16];
	struct ss_endpoint list[ROOM];
	struct ss_diag why;
	if (endpoint->scheme == SS_SCHEME_FD ||
	    endpoint->scheme == SS_SCHEME_MEMORY || !shown(endpoint))
		return;
	ss_url_format(endpoint->scheme, &endpoint->address, text, sizeof(text));
	ssize_t n = ss_resolve(text, SS_SCHEME_ANY, list, ROOM, &why);
	must(n >= 1, "'%s' is refused: %s", text, why.text);
	must(list[0].scheme == endpoint->scheme, "'%s': another scheme", text);
	must(ss_address_equal(&list[0].address, &endpoint->address),
	     "'%s' is another address", text);
	ss_url_format(list[0].scheme, &list[0].address, again, sizeof(again));
	must(strcmp(text, again) == 0, "'%s' becomes '%s'", text, again);
}

/* IPv4 is written in one way alone, but for zeros before the port. */
static void must_be_strict(const char *text, const struct ss_endpoint *endpoint)
{
	char host[SS_ADDRESS_TEXT];
	const char *at = strstr(text, "://");
	at = at ? at + 3 : text;
	if (endpoint->address.u.sa.sa_family != AF_INET || looked_up ||
	    *at == '[' || *at == ':' || *at == '*')
		return;
	ss_address_host(&endpoint->address, host, sizeof(host));
	size_t n = strlen(host);
	must(strncmp(at, host, n) == 0 && at[n] == ':', "'%s' taken for %s",
	     text, host);
	must(strtol(at + n + 1, NULL, 10) ==
		     ss_address_port(&endpoint->address),
	     "'%s': port %d", text, ss_address_port(&endpoint->address));
}

static void must_be_told(const char *text, const struct ss_diag *why, ssize_t r)
{
	size_t n = strnlen(why->text, sizeof(why->text));
	must(why->code == r, "'%s': %zd, and the reason's code is %d", text, r,
	     why->code);
	must(n > 0 && n < sizeof(why->text) && plain_text(why->text, n),
	     "'%s': the reason is '%.*s'", text, (int)n, why->text);
}

static void must_parse(const char *text, enum ss_scheme expect)
{
	struct ss_endpoint list[ROOM], one[1];
	struct ss_diag why;
	looked_up = false;
	ssize_t r = ss_resolve(text, expect, list, ROOM, &why);
	must(r != 0 && r <= ROOM, "'%s': %zd", text, r);
	if (r < 0) {
		must_be_told(text, &why, r);
		must(ss_resolve(text, expect, NULL, 0, NULL) == r, "'%s'",
		     text);
		return;
	}
	bool names = looked_up;
	must(ss_resolve(text, expect, one, 1, &why) == r &&
		     memcmp(&one[0].address, &list[0].address,
			    sizeof(one[0].address)) == 0,
	     "'%s' differs where there is room for one", text);
	ssize_t numeric = address_parse(text, expect, one, 1, &why);
	must(numeric == (names ? -EINPROGRESS : r), "'%s': %zd by numbers",
	     text, numeric);
	for (ssize_t i = 0; i < r; i++) {
		must(expect == SS_SCHEME_ANY ||
			     list[i].scheme == SS_SCHEME_FD ||
			     list[i].scheme == expect,
		     "'%s': another scheme", text);
		must(!list[i].fallback || (i && list[i - 1].dual_stack),
		     "'%s': a fallback of nothing", text);
		looked_up = names;
		must_be_strict(text, &list[i]);
		must_round_trip(&list[i]);
	}
}

/* ---- addresses ------------------------------------------------------------*/

static void must_format(const struct ss_address *address, size_t size)
{
	char whole[SS_ADDRESS_TEXT];
	char *part = malloc(size);
	must(part, "no memory");
	ss_address_format(address, whole, sizeof(whole));
	must(plain_text(whole, strlen(whole)), "'%s'", whole);
	ss_address_format(address, part, size);
	must(strlen(part) < size && strncmp(part, whole, strlen(part)) == 0,
	     "'%s' in %zu bytes is '%s'", whole, size, part);
	ss_address_host(address, part, size);
	ss_url_format(SS_SCHEME_UNIX, address, part, size);
	free(part);
}

static void must_be_address(const uint8_t *data, size_t n)
{
	struct ss_address one = { .len = 0 }, other = { .len = 0 };
	if (n < 2)
		return;
	size_t bytes = n - 2 < sizeof(one.u) ? n - 2 : sizeof(one.u);
	one.len = data[0] % (sizeof(one.u) + 2);
	memcpy(&one.u, data + 2, bytes);
	other.len = data[1] % (sizeof(one.u) + 2);
	memcpy(&other.u, data + 2, bytes);
	must(ss_address_equal(&one, &one), "it does not equal itself");
	must(ss_address_equal(&one, &other) == ss_address_equal(&other, &one),
	     "equal one way alone");
	must_format(&one, 1 + data[1] % 64);
	int port = ss_address_port(&one);
	must(port == -EAFNOSUPPORT || (port >= 0 && port <= 65535), "port %d",
	     port);
}

FUZZ_TARGET(address)(const uint8_t *data, size_t n)
{
	char *text = exact_text((struct input){ data, n });
	sys_table.getaddrinfo = resolve;
	for (enum ss_scheme expect = SS_SCHEME_ANY; expect <= SS_SCHEME_MEMORY;
	     expect++)
		must_parse(text, expect);
	sys_table.getaddrinfo = getaddrinfo;
	free(text);
	must_be_address(data, n);
	return 0;
}
