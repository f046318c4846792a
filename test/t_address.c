/* Addresses as text: what is taken, what is refused and why, what is shown. */
#include <socketserver/address.h>

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "../lib/sys.h"

Suite *t_address(void);

enum { ROOM = 8, PATH_MAX_UN = sizeof(((struct sockaddr_un *)0)->sun_path) };

/* A resolver that answers as it is told, and notes what it was asked. */
static struct {
	int calls;
	int error;
	int error_number;
	const char *answer[ROOM]; /* numeric hosts */
	char host[64];
	char service[64];
	struct addrinfo hints;
} fake;

/* Nodes joined like this are what freeaddrinfo frees in glibc. */
static int fake_getaddrinfo(const char *host, const char *service,
			    const struct addrinfo *hints,
			    struct addrinfo **result)
{
	fake.calls++;
	fake.hints = *hints;
	snprintf(fake.host, sizeof(fake.host), "%s", host);
	snprintf(fake.service, sizeof(fake.service), "%s", service);
	errno = fake.error_number;
	if (fake.error)
		return fake.error;
	if (hints->ai_flags & AI_NUMERICHOST)
		return getaddrinfo(host, service, hints, result);
	struct addrinfo numeric = *hints;
	numeric.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	struct addrinfo **end = result;
	bool number = (hints->ai_flags & AI_NUMERICSERV) != 0;
	for (int i = 0; i < ROOM && fake.answer[i]; i++) {
		int error = getaddrinfo(fake.answer[i], number ? service : "7",
					&numeric, end);
		ck_assert_int_eq(error, 0);
		end = &(*end)->ai_next;
	}
	return 0;
}

static void fake_on(void)
{
	memset(&fake, 0, sizeof(fake));
	sys_table.getaddrinfo = fake_getaddrinfo;
}

static void fake_off(void)
{
	sys_table.getaddrinfo = getaddrinfo;
}

/* Resolves what must resolve. */
static size_t resolve(const char *text, enum ss_scheme expect,
		      struct ss_endpoint list[ROOM])
{
	struct ss_diag why = { .code = 1, .text = "stale" };
	ssize_t n = ss_resolve(text, expect, list, ROOM, &why);
	ck_assert_msg(n > 0 && n <= ROOM, "\"%s\": %zd, \"%s\"", text, n,
		      why.text);
	ck_assert_int_eq(why.code, 0);
	ck_assert_str_eq(why.text, "");
	return (size_t)n;
}

static struct ss_address one(const char *text)
{
	struct ss_endpoint list[ROOM];
	resolve(text, SS_SCHEME_ANY, list);
	return list[0].address;
}

/* An IPv4-mapped address, which the parser never hands out. */
static struct ss_address mapped(const char *host, unsigned short port)
{
	struct ss_address a = { .len = sizeof(a.u.in6) };
	a.u.in6.sin6_family = AF_INET6;
	a.u.in6.sin6_port = htons(port);
	ck_assert_int_eq(inet_pton(AF_INET6, host, &a.u.in6.sin6_addr), 1);
	return a;
}

static struct ss_address unix_bytes(const char *bytes, size_t n, size_t len)
{
	struct ss_address a = {
		.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)
	};
	a.u.un.sun_family = AF_UNIX;
	memcpy(a.u.un.sun_path, bytes, n);
	return a;
}

static const struct {
	const char *text;
	enum ss_scheme expect;
	enum ss_scheme scheme;
	const char *printed; /* by ss_address_format */
} good[] = {
	{ "127.0.0.1:80", SS_SCHEME_ANY, SS_SCHEME_TCP, "127.0.0.1:80" },
	{ "127.0.0.1:80", SS_SCHEME_TCP, SS_SCHEME_TCP, "127.0.0.1:80" },
	{ "127.0.0.1:80", SS_SCHEME_UDP, SS_SCHEME_UDP, "127.0.0.1:80" },
	{ "tcp://127.0.0.1:0", SS_SCHEME_TCP, SS_SCHEME_TCP, "127.0.0.1:0" },
	{ "tcp://127.0.0.1:1", SS_SCHEME_ANY, SS_SCHEME_TCP, "127.0.0.1:1" },
	{ "udp://127.0.0.1:65535", SS_SCHEME_ANY, SS_SCHEME_UDP,
	  "127.0.0.1:65535" },
	{ "udp://127.0.0.1:53", SS_SCHEME_UDP, SS_SCHEME_UDP, "127.0.0.1:53" },
	{ "127.0.0.1:0080", SS_SCHEME_ANY, SS_SCHEME_TCP, "127.0.0.1:80" },
	{ "127.0.0.1:00000000000000000000010", SS_SCHEME_ANY, SS_SCHEME_TCP,
	  "127.0.0.1:10" },
	{ "0.0.0.0:80", SS_SCHEME_ANY, SS_SCHEME_TCP, "0.0.0.0:80" },
	{ "[::1]:80", SS_SCHEME_ANY, SS_SCHEME_TCP, "[::1]:80" },
	{ "tcp://[::1]:80", SS_SCHEME_TCP, SS_SCHEME_TCP, "[::1]:80" },
	{ "[2001:DB8:0::0:1]:443", SS_SCHEME_ANY, SS_SCHEME_TCP,
	  "[2001:db8::1]:443" },
	{ "[fe80::1%1]:80", SS_SCHEME_ANY, SS_SCHEME_TCP, "[fe80::1%1]:80" },
	{ "[::ffff:192.0.2.1]:80", SS_SCHEME_ANY, SS_SCHEME_TCP,
	  "192.0.2.1:80" },
	{ "[::ffff:0.0.0.0]:80", SS_SCHEME_ANY, SS_SCHEME_TCP, "0.0.0.0:80" },
	{ "unix:/run/x", SS_SCHEME_ANY, SS_SCHEME_UNIX, "/run/x" },
	{ "unix:/run/x", SS_SCHEME_UNIX, SS_SCHEME_UNIX, "/run/x" },
	{ "unix:///run/x", SS_SCHEME_ANY, SS_SCHEME_UNIX, "/run/x" },
	{ "unixgram:///run/x", SS_SCHEME_ANY, SS_SCHEME_UNIXGRAM, "/run/x" },
	{ "unix:x", SS_SCHEME_ANY, SS_SCHEME_UNIX, "x" },
	{ "unix:./x:80", SS_SCHEME_ANY, SS_SCHEME_UNIX, "./x:80" },
	{ "unix:/a b\n\x7f\xc3", SS_SCHEME_ANY, SS_SCHEME_UNIX,
	  "/a b\\x0a\\x7f\\xc3" },
	{ "unix:@x", SS_SCHEME_ANY, SS_SCHEME_UNIX, "@x" },
	{ "unixgram:@@x/y", SS_SCHEME_ANY, SS_SCHEME_UNIXGRAM, "@@x/y" },
	{ "unixgram:/x", SS_SCHEME_UNIXGRAM, SS_SCHEME_UNIXGRAM, "/x" },
	{ "/run/x", SS_SCHEME_UNIX, SS_SCHEME_UNIX, "/run/x" },
	{ "//run/x", SS_SCHEME_UNIX, SS_SCHEME_UNIX, "//run/x" },
	{ "/x://y", SS_SCHEME_UNIX, SS_SCHEME_UNIX, "/x://y" },
	{ "/run/x", SS_SCHEME_UNIXGRAM, SS_SCHEME_UNIXGRAM, "/run/x" },
	{ "@x", SS_SCHEME_UNIX, SS_SCHEME_UNIX, "@x" },
	{ "@x://y", SS_SCHEME_UNIXGRAM, SS_SCHEME_UNIXGRAM, "@x://y" },
	{ "memory:m", SS_SCHEME_ANY, SS_SCHEME_MEMORY, "-" },
	{ "memory:m", SS_SCHEME_MEMORY, SS_SCHEME_MEMORY, "-" },
	{ "m", SS_SCHEME_MEMORY, SS_SCHEME_MEMORY, "-" },
};

START_TEST(test_good)
{
	struct ss_endpoint list[ROOM];
	ck_assert_uint_eq(resolve(good[_i].text, good[_i].expect, list), 1);
	char text[SS_ADDRESS_TEXT];
	ss_address_format(&list[0].address, text, sizeof(text));
	ck_assert_str_eq(text, good[_i].printed);
	ck_assert_int_eq((int)list[0].scheme, (int)good[_i].scheme);
	ck_assert_int_eq(list[0].fd, -1);
	ck_assert(!list[0].dual_stack);
	ck_assert(!list[0].fallback);
}
END_TEST

START_TEST(test_fd)
{
	static const struct {
		const char *text;
		enum ss_scheme expect;
		int fd;
	} fds[] = {
		{ "fd:0", SS_SCHEME_ANY, 0 },
		{ "fd:3", SS_SCHEME_TCP, 3 },
		{ "fd:3", SS_SCHEME_UDP, 3 },
		{ "fd:3", SS_SCHEME_UNIX, 3 },
		{ "fd:3", SS_SCHEME_UNIXGRAM, 3 },
		{ "fd:3", SS_SCHEME_MEMORY, 3 },
		{ "fd:007", SS_SCHEME_FD, 7 },
		{ "3", SS_SCHEME_FD, 3 },
		{ "fd:2147483647", SS_SCHEME_ANY, 2147483647 },
	};
	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		struct ss_endpoint list[ROOM];
		ck_assert_uint_eq(resolve(fds[i].text, fds[i].expect, list), 1);
		ck_assert_int_eq((int)list[0].scheme, (int)SS_SCHEME_FD);
		ck_assert_int_eq(list[0].fd, fds[i].fd);
		ck_assert_uint_eq(list[0].address.len, 0);
	}
}
END_TEST

static const struct {
	const char *text;
	enum ss_scheme expect;
	int code;
	const char *why;
} bad[] = {
	{ "", SS_SCHEME_ANY, -EINVAL, "\"\": no port" },
	{ "host", SS_SCHEME_ANY, -EINVAL, "host: no port" },
	{ "host", SS_SCHEME_TCP, -EINVAL, "host: no port" },
	{ "80", SS_SCHEME_UDP, -EINVAL, "80: no port" },
	{ "tcp://", SS_SCHEME_ANY, -EINVAL, "tcp://: no port" },
	{ "tcp://host", SS_SCHEME_ANY, -EINVAL, "no port" },
	{ "tcp:127.0.0.1:80", SS_SCHEME_ANY, -EINVAL, "\"tcp://\" is" },
	{ "udp:80", SS_SCHEME_UDP, -EINVAL, "\"udp://\" is expected" },
	{ "TCP://127.0.0.1:80", SS_SCHEME_ANY, -EINVAL, "\"TCP\" is not a" },
	{ "foo://x:1", SS_SCHEME_ANY, -EINVAL, "\"foo\" is not a known" },
	{ "foo://x:1", SS_SCHEME_UNIX, -EINVAL, "\"foo\" is not a known" },
	{ "://x:1", SS_SCHEME_ANY, -EINVAL, "\"\" is not a known scheme" },

	{ "tcp://127.0.0.1:70000", SS_SCHEME_ANY, -EINVAL,
	  "tcp://127.0.0.1:70000: port \"70000\" is not in 0..65535" },
	{ "127.0.0.1:", SS_SCHEME_ANY, -EINVAL, "port \"\" is not in" },
	{ "127.0.0.1:80x", SS_SCHEME_ANY, -EINVAL, "port \"80x\" is not" },
	{ "127.0.0.1:65536", SS_SCHEME_ANY, -EINVAL, "port \"65536\"" },
	{ "127.0.0.1:-1", SS_SCHEME_ANY, -EINVAL, "port \"-1\" is not in" },
	{ "127.0.0.1:+80", SS_SCHEME_ANY, -EINVAL, "port \"+80\" is not" },
	{ "127.0.0.1: 80", SS_SCHEME_ANY, -EINVAL, "port \" 80\" is not" },
	{ "127.0.0.1:80 ", SS_SCHEME_ANY, -EINVAL, "port \"80 \" is not" },
	{ "127.0.0.1:80/", SS_SCHEME_ANY, -EINVAL, "port \"80/\" is not" },
	{ "127.0.0.1:0x50", SS_SCHEME_ANY, -EINVAL, "port \"0x50\"" },
	{ "127.0.0.1:80\n", SS_SCHEME_ANY, -EINVAL, "port \"80\\x0a\"" },
	{ "127.0.0.1:4294967376", SS_SCHEME_ANY, -EINVAL, "4294967376" },
	{ "127.0.0.1:18446744073709551696", SS_SCHEME_ANY, -EINVAL, "0..6" },
	{ ":70000", SS_SCHEME_ANY, -EINVAL, "port \"70000\" is not in" },
	{ ":", SS_SCHEME_ANY, -EINVAL, "port \"\" is not in" },
	{ "[::1]:70000", SS_SCHEME_ANY, -EINVAL, "port \"70000\" is not" },

	{ "[::1", SS_SCHEME_ANY, -EINVAL, "\"[\" has no \"]\"" },
	{ "[::1]", SS_SCHEME_ANY, -EINVAL, "no \":PORT\" after" },
	{ "[::1]80", SS_SCHEME_ANY, -EINVAL, "no \":PORT\" after" },
	{ "::1:80", SS_SCHEME_ANY, -EINVAL, "brackets" },
	{ "tcp://::1:80", SS_SCHEME_ANY, -EINVAL, "brackets" },
	{ "::", SS_SCHEME_ANY, -EINVAL, "brackets" },
	{ "host:80:80", SS_SCHEME_ANY, -EINVAL, "more than one \":\"" },
	{ "x[::1]:80", SS_SCHEME_ANY, -EINVAL, "more than one \":\"" },
	{ "[]:80", SS_SCHEME_ANY, -EINVAL, "\"\" is not an IPv6 address" },
	{ "[host]:80", SS_SCHEME_ANY, -EINVAL, "\"host\" is not an IPv6" },
	{ "[*]:80", SS_SCHEME_ANY, -EINVAL, "\"*\" is not an IPv6" },
	{ "[127.0.0.1]:80", SS_SCHEME_ANY, -EINVAL, "not an IPv6 address" },
	{ "[::1::]:80", SS_SCHEME_ANY, -EINVAL, "not an IPv6 address" },
	{ "[12345::]:80", SS_SCHEME_ANY, -EINVAL, "not an IPv6 address" },
	{ "[fe80::1%]:80", SS_SCHEME_ANY, -EINVAL, "not an IPv6 address" },
	{ "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]:80",
	  SS_SCHEME_ANY, -EINVAL, "not an IPv6 address" },
	{ "[fe80::1%no such]:80", SS_SCHEME_ANY, -ENOENT, "fe80::1%no such" },

	{ "127.1:80", SS_SCHEME_ANY, -EINVAL, "\"127.1\" is not an IPv4" },
	{ "1:80", SS_SCHEME_ANY, -EINVAL, "\"1\" is not an IPv4 address" },
	{ "256.0.0.1:80", SS_SCHEME_ANY, -EINVAL, "not an IPv4 address" },
	{ "1.2.3.4.5:80", SS_SCHEME_ANY, -EINVAL, "not an IPv4 address" },
	{ "010.0.0.1:80", SS_SCHEME_ANY, -EINVAL, "not an IPv4 address" },
	{ "0x7f000001:80", SS_SCHEME_ANY, -EINVAL, "not an IPv4 address" },
	{ "127.0.0.0X1:80", SS_SCHEME_ANY, -EINVAL, "not an IPv4 address" },
	{ "host.0:80", SS_SCHEME_ANY, -EINVAL, "not an IPv4 address" },
	{ "127.0.0.1 :80", SS_SCHEME_ANY, -EINVAL, "not a host name" },
	{ " localhost:80", SS_SCHEME_ANY, -EINVAL, "not a host name" },
	{ "ho\nst:80", SS_SCHEME_ANY, -EINVAL, "\"ho\\x0ast\" is not a host" },
	{ "user@host:80", SS_SCHEME_ANY, -EINVAL, "\"user@host\" is not" },
	{ "**:80", SS_SCHEME_ANY, -EINVAL, "\"**\" is not a host name" },
	{ "tcp:///x:80", SS_SCHEME_ANY, -EINVAL, "\"/x\" is not a host" },

	{ "/run/x", SS_SCHEME_ANY, -EINVAL, "unix:" },
	{ "/run/x:80", SS_SCHEME_TCP, -EINVAL, "unix:" },
	{ "@x:80", SS_SCHEME_ANY, -EINVAL, "unix:" },
	{ "unix:", SS_SCHEME_ANY, -EINVAL, "the path is empty" },
	{ "unixgram:", SS_SCHEME_ANY, -EINVAL, "the path is empty" },
	{ "unix:@", SS_SCHEME_ANY, -EINVAL, "the name is empty" },
	{ "@", SS_SCHEME_UNIX, -EINVAL, "the name is empty" },
	{ "unix://", SS_SCHEME_ANY, -EINVAL, "absolute path" },
	{ "unix://run/x", SS_SCHEME_ANY, -EINVAL, "absolute path" },
	{ "unix://@x", SS_SCHEME_ANY, -EINVAL, "absolute path" },
	{ "", SS_SCHEME_UNIX, -EINVAL, "\"\": /PATH or @NAME" },
	{ "x", SS_SCHEME_UNIX, -EINVAL, "/PATH or @NAME is expected" },
	{ "localhost:80", SS_SCHEME_UNIXGRAM, -EINVAL, "/PATH or @NAME" },

	{ "fd:", SS_SCHEME_ANY, -EINVAL, "descriptor \"\"" },
	{ "fd:x", SS_SCHEME_ANY, -EINVAL, "descriptor \"x\"" },
	{ "fd:-1", SS_SCHEME_ANY, -EINVAL, "descriptor \"-1\"" },
	{ "fd:+1", SS_SCHEME_ANY, -EINVAL, "descriptor \"+1\"" },
	{ "fd:3 ", SS_SCHEME_ANY, -EINVAL, "descriptor \"3 \"" },
	{ "fd://3", SS_SCHEME_ANY, -EINVAL, "descriptor \"//3\"" },
	{ "fd:2147483648", SS_SCHEME_ANY, -EINVAL, "0..2147483647" },
	{ "fd:99999999999", SS_SCHEME_ANY, -EINVAL, "0..2147483647" },
	{ "x", SS_SCHEME_FD, -EINVAL, "descriptor \"x\"" },
	{ "memory:", SS_SCHEME_ANY, -EINVAL, "the name is empty" },
	{ "", SS_SCHEME_MEMORY, -EINVAL, "the name is empty" },

	{ "unix:/x", SS_SCHEME_TCP, -EINVAL,
	  "unix:/x: a tcp address is expected, not unix" },
	{ "udp://127.0.0.1:80", SS_SCHEME_TCP, -EINVAL, "a tcp address is" },
	{ "tcp://127.0.0.1:80", SS_SCHEME_UDP, -EINVAL,
	  "a udp address is expected, not tcp" },
	{ "unixgram:/x", SS_SCHEME_UNIX, -EINVAL, "a unix address is" },
	{ "unix:/x", SS_SCHEME_UNIXGRAM, -EINVAL, "a unixgram address is" },
	{ "memory:m", SS_SCHEME_TCP, -EINVAL, "a tcp address is" },
	{ "tcp://127.0.0.1:80", SS_SCHEME_FD, -EINVAL, "a fd address is" },
	{ "tcp://127.0.0.1:80", SS_SCHEME_MEMORY, -EINVAL, "a memory addr" },
};

START_TEST(test_bad)
{
	const char *text = bad[_i].text;
	struct ss_endpoint list[ROOM];
	struct ss_diag why;
	ssize_t rc = ss_resolve(text, bad[_i].expect, list, ROOM, &why);
	ck_assert_msg(rc == bad[_i].code, "\"%s\": got %zd, expected %d", text,
		      rc, bad[_i].code);
	ck_assert_int_eq(why.code, bad[_i].code);
	ck_assert_msg(strstr(why.text, bad[_i].why) != NULL,
		      "\"%s\": got \"%s\", expected \"%s\" in it", text,
		      why.text, bad[_i].why);
	/* the text comes first, unless it had to be escaped */
	if (!strchr(text, '\n'))
		ck_assert_msg(strncmp(why.text, *text ? text : "\"\"",
				      *text ? strlen(text) : 2) == 0,
			      "\"%s\" does not begin with the text", why.text);
	ck_assert_ptr_null(strchr(why.text, '\n'));
	ck_assert_int_eq(
		(int)ss_resolve(text, bad[_i].expect, list, ROOM, NULL),
		bad[_i].code);
}
END_TEST

/* The longest that sockaddr_un takes, and one byte more. */
START_TEST(test_path_limit)
{
	for (int abstract = 0; abstract <= 1; abstract++) {
		size_t max = PATH_MAX_UN - !abstract;
		char text[256] = "unix:";
		memset(text + 5, 'x', max);
		text[5] = abstract ? '@' : '/';
		struct ss_endpoint list[ROOM];
		resolve(text, SS_SCHEME_ANY, list);
		ck_assert_uint_eq(list[0].address.len,
				  sizeof(struct sockaddr_un));
		char printed[SS_ADDRESS_TEXT];
		ss_url_format(SS_SCHEME_UNIX, &list[0].address, printed,
			      sizeof(printed));
		ck_assert_str_eq(printed, text);

		text[5 + max] = 'x';
		struct ss_diag why;
		ck_assert_int_eq(
			(int)ss_resolve(text, SS_SCHEME_ANY, list, ROOM, &why),
			-ENAMETOOLONG);
		char limit[32];
		snprintf(limit, sizeof(limit), "sockaddr_un takes %zu", max);
		ck_assert_ptr_nonnull(strstr(why.text, limit));
	}
}
END_TEST

START_TEST(test_host_limit)
{
	fake.answer[0] = "192.0.2.1";
	char text[512];
	memset(text, 'h', 255);
	snprintf(text + 255, sizeof(text) - 255, ":80");
	struct ss_endpoint list[ROOM];
	resolve(text, SS_SCHEME_ANY, list);
	memset(text, 'h', 256);
	snprintf(text + 256, sizeof(text) - 256, ":80");
	struct ss_diag why;
	ck_assert_int_eq((int)ss_resolve(text, SS_SCHEME_ANY, list, ROOM, &why),
			 -ENAMETOOLONG);
	ck_assert_ptr_nonnull(strstr(why.text, "256 bytes, at most 255"));
}
END_TEST

/* However long or odd the text, the reason still fits behind it. */
START_TEST(test_long_diagnosis)
{
	char text[2000];
	for (int odd = 0; odd <= 1; odd++) {
		memset(text, odd ? '\x01' : 'x', sizeof(text) - 1);
		text[sizeof(text) - 1] = '\0';
		memcpy(text, ":", 1);
		struct ss_endpoint list[ROOM];
		struct ss_diag why;
		memset(&why, 'z', sizeof(why));
		fake.error = EAI_SERVICE;
		ssize_t rc = ss_resolve(text, SS_SCHEME_TCP, list, ROOM, &why);
		ck_assert_int_eq((int)rc, odd ? -EINVAL : -ENOENT);
		ck_assert_ptr_nonnull(memchr(why.text, 0, sizeof(why.text)));
		ck_assert_ptr_nonnull(strstr(why.text, ": port \""));
	}
}
END_TEST

START_TEST(test_unix_bytes)
{
	struct ss_address path = one("unix:/run/x");
	size_t skip = offsetof(struct sockaddr_un, sun_path);
	ck_assert_int_eq(path.u.un.sun_family, AF_UNIX);
	ck_assert_uint_eq(path.len, skip + 7);
	ck_assert_str_eq(path.u.un.sun_path, "/run/x");

	struct ss_address name = one("unix:@abc");
	ck_assert_uint_eq(name.len, skip + 4);
	ck_assert_int_eq(memcmp(name.u.un.sun_path, "\0abc", 4), 0);
}
END_TEST

/* A socket for IPv6 alone could not bind the mapped form. */
START_TEST(test_mapped_is_ipv4)
{
	struct ss_address a = one("[::ffff:192.0.2.1]:80");
	ck_assert_int_eq(a.u.sa.sa_family, AF_INET);
	ck_assert_uint_eq(a.len, sizeof(struct sockaddr_in));
	ck_assert_int_eq(ntohs(a.u.in.sin_port), 80);
}
END_TEST

START_TEST(test_wildcard)
{
	static const char *const texts[] = {
		":80",	    "*:80",	      "[::]:80",    "tcp://:80",
		"[::0]:80", "[0:0:0:0::]:80", "tcp://*:80", "tcp://[::]:80",
	};
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct ss_endpoint list[ROOM];
		ck_assert_uint_eq(resolve(texts[i], SS_SCHEME_TCP, list), 2);
		char text[SS_ADDRESS_TEXT];
		ss_address_format(&list[0].address, text, sizeof(text));
		ck_assert_str_eq(text, "[::]:80");
		ck_assert(list[0].dual_stack);
		ck_assert(!list[0].fallback);
		ss_address_format(&list[1].address, text, sizeof(text));
		ck_assert_str_eq(text, "0.0.0.0:80");
		ck_assert(!list[1].dual_stack);
		ck_assert(list[1].fallback);
		for (int j = 0; j < 2; j++) {
			ck_assert_int_eq((int)list[j].scheme,
					 (int)SS_SCHEME_TCP);
			ck_assert_int_eq(list[j].fd, -1);
		}
	}
	struct ss_endpoint list[ROOM];
	ck_assert_uint_eq(resolve("udp://:53", SS_SCHEME_ANY, list), 2);
	ck_assert_int_eq((int)list[1].scheme, (int)SS_SCHEME_UDP);
}
END_TEST

/* What does not fit is counted, and not written. */
START_TEST(test_room)
{
	struct ss_endpoint list[2];
	memset(list, 0x5a, sizeof(list));
	struct ss_endpoint untouched = list[1];
	ck_assert_int_eq((int)ss_resolve(":80", SS_SCHEME_TCP, list, 1, NULL),
			 2);
	ck_assert(list[0].dual_stack);
	ck_assert_int_eq(memcmp(&list[1], &untouched, sizeof(untouched)), 0);
	ck_assert_int_eq((int)ss_resolve(":80", SS_SCHEME_TCP, NULL, 0, NULL),
			 2);

	fake.answer[0] = "192.0.2.1";
	fake.answer[1] = "192.0.2.2";
	fake.answer[2] = "192.0.2.1";
	fake.answer[3] = "192.0.2.2";
	ck_assert_int_eq((int)ss_resolve("h:1", SS_SCHEME_TCP, list, 1, NULL),
			 2);
	ck_assert_int_eq((int)ss_resolve("h:1", SS_SCHEME_TCP, NULL, 0, NULL),
			 2);
}
END_TEST

START_TEST(test_scope_name)
{
	char name[IF_NAMESIZE];
	if (!if_indextoname(1, name))
		return;
	char text[64];
	snprintf(text, sizeof(text), "[fe80::1%%%s]:80", name);
	struct ss_address a = one(text);
	ck_assert_uint_eq(a.u.in6.sin6_scope_id, 1);
	ss_address_format(&a, text, sizeof(text));
	ck_assert_str_eq(text, "[fe80::1%1]:80");
}
END_TEST

START_TEST(test_localhost)
{
	struct ss_endpoint list[ROOM];
	size_t n = resolve("localhost:80", SS_SCHEME_TCP, list);
	for (size_t i = 0; i < n; i++) {
		char host[SS_ADDRESS_TEXT];
		ss_address_host(&list[i].address, host, sizeof(host));
		ck_assert_msg(strncmp(host, "127.", 4) == 0 ||
				      strcmp(host, "::1") == 0,
			      "localhost is %s", host);
		ck_assert_int_eq(ss_address_port(&list[i].address), 80);
		for (size_t j = 0; j < i; j++)
			ck_assert(!ss_address_equal(&list[i].address,
						    &list[j].address));
	}
}
END_TEST

START_TEST(test_several)
{
	static const char *const answer[] = {
		"192.0.2.7",	    "::1",	 "192.0.2.7", "::",
		"::ffff:192.0.2.7", "192.0.2.1", "::1",
	};
	memcpy(fake.answer, answer, sizeof(answer));
	static const char *const printed[] = {
		"192.0.2.7:80",
		"[::1]:80",
		"[::]:80",
		"192.0.2.1:80",
	};
	struct ss_endpoint list[ROOM];
	ck_assert_uint_eq(resolve("name:80", SS_SCHEME_TCP, list), 4);
	for (int i = 0; i < 4; i++) {
		char text[SS_ADDRESS_TEXT];
		ss_address_format(&list[i].address, text, sizeof(text));
		ck_assert_str_eq(text, printed[i]);
		ck_assert(!list[i].dual_stack);
		ck_assert(!list[i].fallback);
		ck_assert_int_eq(list[i].fd, -1);
	}
}
END_TEST

/* What is a number already is never looked up. */
START_TEST(test_questions)
{
	static const struct {
		const char *text;
		const char *host;
		const char *service;
		int family;
		int socktype;
		int flags;
	} asked[] = {
		{ "192.0.2.1:80", "192.0.2.1", "80", AF_INET, SOCK_STREAM,
		  AI_NUMERICHOST | AI_NUMERICSERV },
		{ "udp://[::1]:80", "::1", "80", AF_INET6, SOCK_DGRAM,
		  AI_NUMERICHOST | AI_NUMERICSERV },
		{ "a-b_c.example.:80", "a-b_c.example.", "80", AF_UNSPEC,
		  SOCK_STREAM, AI_NUMERICSERV },
		{ "\xc3\xa4:80", "\xc3\xa4", "80", AF_UNSPEC, SOCK_STREAM,
		  AI_NUMERICSERV },
		{ "0xhost:80", "0xhost", "80", AF_UNSPEC, SOCK_STREAM,
		  AI_NUMERICSERV },
		{ "name:http", "name", "http", AF_UNSPEC, SOCK_STREAM, 0 },
		{ "udp://name:syslog", "name", "syslog", AF_UNSPEC, SOCK_DGRAM,
		  0 },
	};
	fake.answer[0] = "192.0.2.1";
	for (size_t i = 0; i < sizeof(asked) / sizeof(*asked); i++) {
		struct ss_endpoint list[ROOM];
		resolve(asked[i].text, SS_SCHEME_ANY, list);
		ck_assert_str_eq(fake.host, asked[i].host);
		ck_assert_str_eq(fake.service, asked[i].service);
		ck_assert_int_eq(fake.hints.ai_family, asked[i].family);
		ck_assert_int_eq(fake.hints.ai_socktype, asked[i].socktype);
		ck_assert_int_eq(fake.hints.ai_flags, asked[i].flags);
		ck_assert_int_eq(fake.calls, (int)i + 1);
	}
}
END_TEST

/* The resolver hears of nothing that is wrong, or that is no host. */
START_TEST(test_no_question)
{
	static const char *const texts[] = {
		"256.0.0.1:80", "[zz]:80", "ho st:80", "host:80x",
		"unix:/x",	"fd:3",	   "memory:m", "host",
	};
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		ss_resolve(texts[i], SS_SCHEME_ANY, NULL, 0, NULL);
	ck_assert_int_eq(fake.calls, 0);
}
END_TEST

START_TEST(test_service)
{
	const struct servent *http = getservbyname("http", "tcp");
	if (http) {
		struct ss_address a = one("tcp://127.0.0.1:http");
		ck_assert_int_eq(ss_address_port(&a),
				 ntohs((unsigned short)http->s_port));
	}
	struct ss_diag why;
	ck_assert_int_eq((int)ss_resolve("127.0.0.1:no-such", SS_SCHEME_TCP,
					 NULL, 0, &why),
			 -ENOENT);
	ck_assert_ptr_nonnull(strstr(why.text, "port \"no-such\": "));
	ck_assert_int_eq(
		(int)ss_resolve(":no-such", SS_SCHEME_TCP, NULL, 0, NULL),
		-ENOENT);
}
END_TEST

static const struct {
	int error;
	int error_number;
	int code;
} faults[] = {
	{ EAI_NONAME, EIO, -ENOENT },	 { EAI_SERVICE, EIO, -ENOENT },
#ifdef EAI_NODATA
	{ EAI_NODATA, EIO, -ENOENT },
#endif
	{ EAI_AGAIN, EIO, -EAGAIN },	 { EAI_MEMORY, EIO, -ENOMEM },
	{ EAI_SYSTEM, EMFILE, -EMFILE }, { EAI_SYSTEM, 0, -EINVAL },
	{ EAI_FAIL, EIO, -EINVAL },	 { EAI_FAMILY, EIO, -EINVAL },
	{ EAI_BADFLAGS, EIO, -EINVAL },
};

START_TEST(test_fault)
{
	static const char *const texts[] = { "name:80", "127.0.0.1:80", ":80",
					     "udp://[::1]:80" };
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		fake.error = faults[_i].error;
		fake.error_number = faults[_i].error_number;
		struct ss_endpoint list[ROOM];
		struct ss_diag why;
		ck_assert_int_eq((int)ss_resolve(texts[i], SS_SCHEME_ANY, list,
						 ROOM, &why),
				 faults[_i].code);
		ck_assert_int_eq(why.code, faults[_i].code);
		ck_assert_int_eq(strncmp(why.text, texts[i], strlen(texts[i])),
				 0);
		ck_assert_msg(strstr(why.text, gai_strerror(fake.error)) !=
				      NULL,
			      "\"%s\" is without \"%s\"", why.text,
			      gai_strerror(fake.error));
	}
}
END_TEST

/* Families that we do not know are passed over; none left is no host. */
static int strange_getaddrinfo(const char *host, const char *service,
			       const struct addrinfo *hints,
			       struct addrinfo **result)
{
	int error = fake_getaddrinfo(host, service, hints, result);
	if (!error && !(hints->ai_flags & AI_NUMERICHOST))
		(*result)->ai_addr->sa_family = AF_APPLETALK;
	return error;
}

/* A length that no address of ours has room for. */
static int huge_getaddrinfo(const char *host, const char *service,
			    const struct addrinfo *hints,
			    struct addrinfo **result)
{
	int error = fake_getaddrinfo(host, service, hints, result);
	if (!error && !(hints->ai_flags & AI_NUMERICHOST))
		(*result)->ai_addrlen = 4096;
	return error;
}

START_TEST(test_strange_family)
{
	sys_table.getaddrinfo = strange_getaddrinfo;
	fake.answer[0] = "192.0.2.1";
	struct ss_endpoint list[ROOM];
	struct ss_diag why;
	ck_assert_int_eq(
		(int)ss_resolve("name:80", SS_SCHEME_TCP, list, ROOM, &why),
		-ENOENT);
	ck_assert_str_eq(why.text,
			 "name:80: host \"name\" has no internet address");
	fake.answer[1] = "192.0.2.2";
	ck_assert_uint_eq(resolve("name:80", SS_SCHEME_TCP, list), 1);
	struct ss_address second = one("192.0.2.2:80");
	ck_assert(ss_address_equal(&list[0].address, &second));
	sys_table.getaddrinfo = huge_getaddrinfo;
	ck_assert_uint_eq(resolve("name:80", SS_SCHEME_TCP, list), 1);
	ck_assert(ss_address_equal(&list[0].address, &second));
}
END_TEST

START_TEST(test_round_trip)
{
	static const char *const urls[] = {
		"tcp://127.0.0.1:80",
		"udp://255.255.255.255:65535",
		"tcp://0.0.0.0:0",
		"tcp://[::1]:80",
		"udp://[::]:53",
		"tcp://[fe80::1%1]:80",
		"tcp://[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
		"unix:/run/x",
		"unix:relative",
		"unix:/a b:c\\d",
		"unix:@name",
		"unixgram:/run/x",
		"unixgram:@@",
	};
	for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
		struct ss_endpoint list[ROOM];
		resolve(urls[i], SS_SCHEME_ANY, list);
		char text[SS_ADDRESS_TEXT];
		ck_assert_ptr_eq(ss_url_format(list[0].scheme, &list[0].address,
					       text, sizeof(text)),
				 text);
		ck_assert_str_eq(text, urls[i]);
		struct ss_endpoint again[ROOM];
		resolve(text, list[0].scheme, again);
		ck_assert(
			ss_address_equal(&list[0].address, &again[0].address));
		ck_assert_int_eq((int)list[0].scheme, (int)again[0].scheme);
	}
}
END_TEST

static void ck_prints(const struct ss_address *a, const char *whole,
		      const char *host, int port)
{
	char text[512];
	ck_assert_ptr_eq(ss_address_format(a, text, sizeof(text)), text);
	ck_assert_str_eq(text, whole);
	ck_assert_ptr_eq(ss_address_host(a, text, sizeof(text)), text);
	ck_assert_str_eq(text, host);
	ck_assert_int_eq(ss_address_port(a), port);
}

START_TEST(test_print_inet)
{
	struct ss_address a = one("192.0.2.1:8080");
	ck_prints(&a, "192.0.2.1:8080", "192.0.2.1", 8080);
	a = one("[2001:db8::1]:65535");
	ck_prints(&a, "[2001:db8::1]:65535", "2001:db8::1", 65535);
	a = one("[fe80::1%1]:1");
	ck_prints(&a, "[fe80::1%1]:1", "fe80::1%1", 1);
	a.u.in6.sin6_scope_id = UINT32_MAX;
	ck_prints(&a, "[fe80::1%4294967295]:1", "fe80::1%4294967295", 1);
	a = mapped("::ffff:192.0.2.1", 80);
	ck_prints(&a, "192.0.2.1:80", "192.0.2.1", 80);
	char text[SS_ADDRESS_TEXT];
	ss_url_format(SS_SCHEME_UDP, &a, text, sizeof(text));
	ck_assert_str_eq(text, "udp://192.0.2.1:80");
	ss_url_format(SS_SCHEME_ANY, &a, text, sizeof(text));
	ck_assert_str_eq(text, "192.0.2.1:80");
}
END_TEST

START_TEST(test_print_unix)
{
	struct ss_address a = unix_bytes("/run/x", 7, 7);
	ck_prints(&a, "/run/x", "/run/x", -EAFNOSUPPORT);
	a = unix_bytes("/run/x", 6, 6); /* bound without its NUL */
	ck_prints(&a, "/run/x", "/run/x", -EAFNOSUPPORT);
	a = unix_bytes("/run/x", 7, PATH_MAX_UN); /* as many programs do */
	ck_prints(&a, "/run/x", "/run/x", -EAFNOSUPPORT);
	a = unix_bytes("\0a\0\x01\xff\nz", 7, 7);
	ck_prints(&a, "@a\\x00\\x01\\xff\\x0az", "@a\\x00\\x01\\xff\\x0az",
		  -EAFNOSUPPORT);
	a = unix_bytes("", 0, 1);
	ck_prints(&a, "@", "@", -EAFNOSUPPORT);
	a = unix_bytes("", 0, 0);
	ck_prints(&a, "-", "-", -EAFNOSUPPORT);

	/* all of sun_path and no NUL, whose length getsockname overstates */
	char longest[PATH_MAX_UN + 1];
	memset(longest, 'x', PATH_MAX_UN);
	longest[PATH_MAX_UN] = '\0';
	memset(&a, 'x', sizeof(a));
	a.len = sizeof(a.u.un) + 1;
	a.u.un.sun_family = AF_UNIX;
	ck_prints(&a, longest, longest, -EAFNOSUPPORT);
}
END_TEST

START_TEST(test_print_nothing)
{
	struct ss_address a = { 0 };
	ck_prints(&a, "-", "-", -EAFNOSUPPORT);
	a.u.sa.sa_family = AF_INET; /* len 0 still means none */
	ck_prints(&a, "-", "-", -EAFNOSUPPORT);
	a = one("127.0.0.1:80");
	a.len--;
	ck_prints(&a, "-", "-", -EAFNOSUPPORT);
	a = one("[::1]:80");
	a.len--;
	ck_prints(&a, "-", "-", -EAFNOSUPPORT);
	a = (struct ss_address){ .len = sizeof(struct sockaddr) };
	a.u.sa.sa_family = AF_APPLETALK;
	ck_prints(&a, "-", "-", -EAFNOSUPPORT);
}
END_TEST

/* Every size from 1 up: terminated, a beginning of the whole. */
START_TEST(test_tiny)
{
	const struct ss_address list[] = {
		one("127.0.0.1:80"),
		one("[fe80::1%1]:80"),
		one("unix:/a\x01z"),
		one("unix:@a\x01z"),
		{ 0 },
	};
	for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++) {
		char whole[3][64];
		ss_address_format(&list[i], whole[0], 64);
		ss_address_host(&list[i], whole[1], 64);
		ss_url_format(SS_SCHEME_UNIX, &list[i], whole[2], 64);
		for (size_t size = 1; size < 40; size++) {
			char buf[3][64];
			memset(buf, '#', sizeof(buf));
			ss_address_format(&list[i], buf[0], size);
			ss_address_host(&list[i], buf[1], size);
			ss_url_format(SS_SCHEME_UNIX, &list[i], buf[2], size);
			for (int j = 0; j < 3; j++) {
				size_t n = strnlen(buf[j], 64);
				ck_assert_uint_lt(n, size);
				ck_assert_int_eq(memcmp(buf[j], whole[j], n),
						 0);
				ck_assert_int_eq(buf[j][size], '#');
				const char *half = strrchr(buf[j], '\\');
				ck_assert(!half || strlen(half) >= 4);
			}
		}
	}
}
END_TEST

START_TEST(test_equal)
{
	const struct ss_address different[] = {
		one("127.0.0.1:80"),
		one("127.0.0.1:81"),
		one("127.0.0.2:80"),
		one("[::1]:80"),
		one("[::1]:81"),
		one("[::2]:80"),
		one("[fe80::1%1]:80"),
		mapped("fe80::1", 80),
		one("0.0.0.0:80"),
		one("[::]:80"),
		one("unix:/x"),
		one("unix:/xy"),
		one("unix:@x"),
		one("unix:@xy"),
		unix_bytes("\0x\0", 3, 3),
		unix_bytes("", 0, 0),
		{ 0 },
		{ .len = sizeof(struct sockaddr),
		  .u.sa = { .sa_family = AF_APPLETALK } },
		{ .len = sizeof(struct sockaddr),
		  .u.sa = { .sa_family = AF_APPLETALK, .sa_data = "x" } },
		{ .len = sizeof(struct sockaddr) + 1,
		  .u.sa = { .sa_family = AF_APPLETALK } },
		{ .len = 4096, .u.sa = { .sa_family = AF_APPLETALK } },
	};
	size_t n = sizeof(different) / sizeof(*different);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++)
			ck_assert_msg(ss_address_equal(&different[i],
						       &different[j]) ==
					      (i == j),
				      "addresses %zu and %zu", i, j);
}
END_TEST

START_TEST(test_equal_in_disguise)
{
	struct ss_address plain = one("192.0.2.1:80");
	struct ss_address same = mapped("::ffff:192.0.2.1", 80);
	struct ss_address other = mapped("::ffff:192.0.2.1", 81);
	ck_assert(ss_address_equal(&plain, &same));
	ck_assert(ss_address_equal(&same, &plain));
	ck_assert(!ss_address_equal(&plain, &other));

	same = plain;
	memset(same.u.in.sin_zero, 'x', sizeof(same.u.in.sin_zero));
	ck_assert(ss_address_equal(&plain, &same));
	plain = one("[::1]:80");
	same = plain;
	same.u.in6.sin6_flowinfo = 7;
	ck_assert(ss_address_equal(&plain, &same));

	plain = (struct ss_address){ 0 };
	same = plain;
	same.u.sa.sa_family = AF_UNIX; /* left over: len 0 is none */
	ck_assert(ss_address_equal(&plain, &same));

	plain = one("unix:/run/x");
	same = unix_bytes("/run/x", 6, 6);
	ck_assert(ss_address_equal(&plain, &same));
	same = unix_bytes("/run/x\0yz", 9, PATH_MAX_UN);
	ck_assert(ss_address_equal(&plain, &same));
}
END_TEST

/* Text from nowhere: an answer or one clean line, the same on every run. */
START_TEST(test_noise)
{
	static const char *const bits[] = {
		"tcp://", "udp://", "unix:", "unixgram:", "fd:", "memory:",
		"[",	  "]",	    ":",     "::",	  "%",	 "1",
		"65535",  "x",	    "/",     "@",	  "*",	 ".",
		"\n",	  "\xff",   "0x",
	};
	fake.error = EAI_NONAME;
	uint32_t state = 1;
	for (int round = 0; round < 20000; round++) {
		char text[128] = "";
		size_t at = 0;
		state = state * 1664525 + 1013904223;
		for (uint32_t n = (state >> 28) % 8; n > 0; n--) {
			state = state * 1664525 + 1013904223;
			const char *bit = bits[(state >> 16) %
					       (sizeof(bits) / sizeof(*bits))];
			at += (size_t)snprintf(text + at, sizeof(text) - at,
					       "%s", bit);
		}
		enum ss_scheme expect = (enum ss_scheme)((state >> 8) % 7);
		struct ss_endpoint list[2];
		struct ss_diag why;
		ssize_t rc = ss_resolve(text, expect, list, 2, &why);
		ck_assert_msg(rc != 0 && rc <= 2, "round %d", round);
		ck_assert_int_eq(why.code, rc < 0 ? (int)rc : 0);
		ck_assert_msg((rc < 0) == (*why.text != '\0'), "round %d",
			      round);
		for (const char *c = why.text; *c; c++)
			ck_assert_msg(*c >= ' ' && *c <= '~', "round %d",
				      round);
	}
}
END_TEST

Suite *t_address(void)
{
	Suite *suite = suite_create("address");
	TCase *parse = tcase_create("parse");
	tcase_set_timeout(parse, 20);
	tcase_add_loop_test(parse, test_good, 0, sizeof(good) / sizeof(*good));
	tcase_add_loop_test(parse, test_bad, 0, sizeof(bad) / sizeof(*bad));
	tcase_add_test(parse, test_fd);
	tcase_add_test(parse, test_path_limit);
	tcase_add_test(parse, test_unix_bytes);
	tcase_add_test(parse, test_mapped_is_ipv4);
	tcase_add_test(parse, test_wildcard);
	tcase_add_test(parse, test_scope_name);
	tcase_add_test(parse, test_localhost);
	tcase_add_test(parse, test_service);
	suite_add_tcase(suite, parse);

	TCase *resolver = tcase_create("resolver");
	tcase_set_timeout(resolver, 20);
	tcase_add_checked_fixture(resolver, fake_on, fake_off);
	tcase_add_test(resolver, test_host_limit);
	tcase_add_test(resolver, test_long_diagnosis);
	tcase_add_test(resolver, test_room);
	tcase_add_test(resolver, test_several);
	tcase_add_test(resolver, test_questions);
	tcase_add_test(resolver, test_no_question);
	tcase_add_loop_test(resolver, test_fault, 0,
			    sizeof(faults) / sizeof(*faults));
	tcase_add_test(resolver, test_strange_family);
	tcase_add_test(resolver, test_noise);
	suite_add_tcase(suite, resolver);

	TCase *print = tcase_create("print");
	tcase_set_timeout(print, 20);
	tcase_add_test(print, test_round_trip);
	tcase_add_test(print, test_print_inet);
	tcase_add_test(print, test_print_unix);
	tcase_add_test(print, test_print_nothing);
	tcase_add_test(print, test_tiny);
	tcase_add_test(print, test_equal);
	tcase_add_test(print, test_equal_in_disguise);
	suite_add_tcase(suite, print);
	return suite;
}
