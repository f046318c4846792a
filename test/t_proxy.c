/*
 * The PROXY protocol: headers good and bad, whole and in pieces, and who is
 * believed; what the layers beside it see; and that nothing of a client's own
 * bytes is lost.
 */
#include "guards.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>

#include "faults.h"
#include "handlers.h"
#include "mixin/crc32c.h"
#include "mixin/proxy_header.h"
#include "testing/dice.h"

Suite *t_proxy(void);

#define BALANCER "10.0.0.1:7"
static const struct ss_proxy_options trusting = { .trusted = "10.0.0.1" };
static const struct ss_proxy_options optional = { .trusted = "10.0.0.1",
						  .optional = true };

static void begin(void)
{
	tally_begin();
	pretended = BALANCER;
}

/* ---- headers --------------------------------------------------------------*/

enum { ROOM = 70000 };
struct header {
	size_t n;
	unsigned char bytes[ROOM];
};

static const unsigned char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

static void put(struct header *h, const void *bytes, size_t n)
{
	ck_assert_uint_le(h->n + n, sizeof(h->bytes));
	memcpy(h->bytes + h->n, bytes, n);
	h->n += n;
}

static void set_length(struct header *h)
{
	h->bytes[14] = (unsigned char)((h->n - 16) >> 8);
	h->bytes[15] = (unsigned char)(h->n - 16);
}

static void put_value(struct header *h, int type, const void *value, size_t n)
{
	unsigned char head[3] = { (unsigned char)type, (unsigned char)(n >> 8),
				  (unsigned char)n };
	put(h, head, sizeof(head));
	put(h, value, n);
	set_length(h);
}

static void begin_block(struct header *h, int command, int family)
{
	unsigned char rest[4] = { (unsigned char)command, (unsigned char)family,
				  0, 0 };
	h->n = 0;
	put(h, signature, sizeof(signature));
	put(h, rest, sizeof(rest));
}

static void put_sum(struct header *h)
{
	put_value(h, SS_PROXY_CRC32C, "\0\0\0\0", 4);
	uint32_t sum = htonl(crc32c(0, h->bytes, h->n));
	memcpy(h->bytes + h->n - 4, &sum, 4);
}

#define IPV4_BLOCK "\xc0\x00\x02\x05\xc0\x00\x02\x01\x1f\x90\x00\x50"

static void put_ipv4(struct header *h)
{
	begin_block(h, 0x21, 0x11);
	put(h, IPV4_BLOCK, 12);
	set_length(h);
}

/* What a header says, as WHOAMI has it. */
enum kind {
	LINE4,
	LINE6,
	LINE_UNKNOWN,
	LINE_UNKNOWN_MORE,
	LINE_LONGEST,
	BLOCK4,
	BLOCK4_DGRAM,
	BLOCK6,
	BLOCK_UNIX,
	BLOCK_ABSTRACT,
	BLOCK_UNNAMED,
	BLOCK_LOCAL,
	BLOCK_LOCAL_MORE,
	BLOCK_UNSPEC,
	BLOCK_UNSPEC_MORE,
	BLOCK4_UNSPEC,
	BLOCK_VALUES,
	KINDS
};

static void put_text(struct header *h, const char *text)
{
	h->n = 0;
	put(h, text, strlen(text));
}

static void put_unix(struct header *h, const char *name, size_t n)
{
	char paths[216] = "";
	memcpy(paths, name, n);
	memcpy(paths + 108, "/to", 4);
	begin_block(h, 0x21, 0x31);
	put(h, paths, sizeof(paths));
	set_length(h);
}

static const char *make_line(enum kind kind, struct header *h)
{
	switch (kind) {
	case LINE4:
		put_text(h, "PROXY TCP4 192.0.2.5 192.0.2.1 8080 80\r\n");
		return "192.0.2.5 8080\n";
	case LINE6:
		put_text(h, "PROXY TCP6 2001:db8::5 ::1 65535 0\r\n");
		return "2001:db8::5 65535\n";
	case LINE_UNKNOWN:
		put_text(h, "PROXY UNKNOWN\r\n");
		return "10.0.0.1 7\n";
	case LINE_UNKNOWN_MORE:
		put_text(h, "PROXY UNKNOWN one \r two\r\n");
		return "10.0.0.1 7\n";
	default:
		put_text(h, "PROXY UNKNOWN "
			    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
			    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
			    "65535 65535\r\n");
		ck_assert_uint_eq(h->n, 107);
		return "10.0.0.1 7\n";
	}
}

static const char *make_local(enum kind kind, struct header *h)
{
	if (kind == BLOCK_LOCAL || kind == BLOCK_LOCAL_MORE)
		begin_block(h, 0x20, kind == BLOCK_LOCAL ? 0 : 0xff);
	else
		begin_block(h, 0x21, kind == BLOCK4_UNSPEC ? 0x10 : 0);
	if (kind == BLOCK_LOCAL_MORE || kind == BLOCK_UNSPEC_MORE ||
	    kind == BLOCK4_UNSPEC)
		put(h, IPV4_BLOCK "rubbish", 19);
	set_length(h);
	return "10.0.0.1 7\n";
}

static const char *make(enum kind kind, struct header *h)
{
	if (kind <= LINE_LONGEST)
		return make_line(kind, h);
	switch (kind) {
	case BLOCK4:
		put_ipv4(h);
		return "192.0.2.5 8080\n";
	case BLOCK4_DGRAM:
		put_ipv4(h);
		h->bytes[13] = 0x12;
		return "192.0.2.5 8080\n";
	case BLOCK6:
		begin_block(h, 0x21, 0x21);
		put(h,
		    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x05"
		    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xff\xff\0\x50",
		    36);
		set_length(h);
		return "2001:db8::5 65535\n";
	case BLOCK_UNIX:
		put_unix(h, "/from/here", 10);
		return "/from/here -\n";
	case BLOCK_ABSTRACT:
		put_unix(h, "\0name", 5);
		return "@name -\n";
	case BLOCK_UNNAMED:
		put_unix(h, "", 0);
		return "- -\n";
	case BLOCK_VALUES:
		put_ipv4(h);
		put_value(h, SS_PROXY_NOOP, "", 0);
		put_value(h, SS_PROXY_UNIQUE_ID, "id-1", 4);
		put_value(h, SS_PROXY_UNIQUE_ID, "id-2", 4);
		put_sum(h);
		put_value(h, 0xe0, "own", 3);
		/* Anew, since there is more now. */
		memset(h->bytes + h->n - 10, 0, 4);
		uint32_t sum = htonl(crc32c(0, h->bytes, h->n));
		memcpy(h->bytes + h->n - 10, &sum, 4);
		return "192.0.2.5 8080\n";
	default:
		return make_local(kind, h);
	}
}

START_TEST(checksums_are_those_of_the_rfc)
{
	unsigned char bytes[32];
	ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283);
	ck_assert_uint_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	ck_assert_uint_eq(crc32c(0, "", 0), 0);
	memset(bytes, 0, sizeof(bytes)); /* RFC 3720 B.4 */
	ck_assert_uint_eq(crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	ck_assert_uint_eq(crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43);
}
END_TEST

/* ---- a server in memory ---------------------------------------------------*/

static char logged[4096]; /* lines of level error */

static void keep_log(void *arg, int level, struct ss_server *server,
		     uint64_t id, const char *text)
{
	(void)arg, (void)server, (void)id;
	if (level <= SS_LOG_ERROR)
		snprintf(logged, sizeof(logged), "%s", text);
}

/* Time does not jump to the header's deadline, since there is none. */
static struct ss_config in_memory(const struct ss_proxy_options *options)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_whoami_handler,
				    .timeouts.handshake_ms = SS_NONE,
				    .log = keep_log };
	use_last(&config, &tally_layer, NULL);
	use_last(&config, &pretend_layer, NULL);
	use_last(&config, &ss_proxy_mixin, options);
	use_last(&config, &ss_fiber_mixin, NULL);
	logged[0] = '\0';
	return config;
}

static void dispose(struct ss_server *server, int begun)
{
	ck_assert_int_eq(ss_server_free(server), 0);
	tally_even(begun);
}

static struct ss_memory_client *connect_to(struct ss_server *server)
{
	struct ss_memory_client *client;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	return client;
}

static void give(struct ss_memory_client *client, const void *bytes, size_t n)
{
	if (n)
		ck_assert_int_eq(ss_memory_send(client, bytes, n), (ssize_t)n);
}

/* It says nothing yet: it waits for more. */
static void waits(struct ss_memory_client *client)
{
	char byte;
	ck_assert_int_eq(ss_memory_recv(client, &byte, 1), -EAGAIN);
}

static void answers(struct ss_memory_client *client, const char *text)
{
	char got[200] = "";
	size_t n = 0;
	while (n < strlen(text)) {
		ssize_t r = ss_memory_recv(client, got + n, strlen(text) - n);
		ck_assert_msg(r > 0, "%zd after \"%s\"", r, got);
		n += (size_t)r;
	}
	ck_assert_str_eq(got, text);
}

static void ends(struct ss_memory_client *client)
{
	char byte;
	ck_assert_int_eq(ss_memory_recv(client, &byte, 1), 0);
	ss_memory_close(client);
}

static struct header header; /* large */

/* Both when it may and when it must come. */
static const struct ss_proxy_options *options_of(int i)
{
	return i ? &optional : &trusting;
}

START_TEST(headers_are_taken_at_every_boundary)
{
	const char *who = make((enum kind)(_i / 2), &header);
	struct ss_config config = in_memory(options_of(_i % 2));
	struct ss_server *server = made(&config);
	for (size_t split = 0; split <= header.n; split++) {
		struct ss_memory_client *client = connect_to(server);
		give(client, header.bytes, split);
		waits(client);
		give(client, header.bytes + split, header.n - split);
		give(client, "WHOAMI\nmore\n", 12);
		answers(client, who);
		answers(client, "more\n");
		ss_memory_shutdown(client);
		ends(client);
	}
	ck_assert_str_eq(logged, "");
	dispose(server, (int)header.n + 1);
}
END_TEST

START_TEST(headers_are_taken_byte_by_byte)
{
	const char *who = make((enum kind)(_i / 2), &header);
	struct ss_config config = in_memory(options_of(_i % 2));
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	for (size_t i = 0; i < header.n; i++) {
		give(client, header.bytes + i, 1);
		waits(client);
	}
	give(client, "WHOAMI\n", 7);
	answers(client, who);
	ss_memory_close(client);
	dispose(server, 1);
}
END_TEST

/* Whatever the handler's buffer, which may be none. */
START_TEST(headers_leave_the_buffer_to_the_handler)
{
	static const int sizes[] = { SS_NONE, 12, 13, 64, 1, 5, 11 };
	for (int i = 0; i < 7; i++) {
		struct ss_handler handler = ss_whoami_handler;
		handler.rbufsize = sizes[i];
		const char *who = make((enum kind)_i, &header);
		struct ss_config config =
			in_memory(options_of(i < 4 && _i % 2));
		config.handler = &handler;
		struct ss_server *server = made(&config);
		struct ss_memory_client *client = connect_to(server);
		give(client, header.bytes, header.n);
		give(client, "WHOAMI\n", 7);
		answers(client, who);
		ss_memory_close(client);
		dispose(server, SS_NONE);
	}
}
END_TEST

/* ---- headers that are none ------------------------------------------------*/

static const struct {
	const char *line, *why;
} bad_lines[] = {
	{ "GET / HTTP/1.1\r\n\r\n", "does not begin with one" },
	{ "PROXY_UNKNOWN\r\n", "does not begin with one" },
	{ "proxy UNKNOWN\r\n", "does not begin with one" },
	{ "PROXY TCP4\r\nabcdef", "too short" },
	{ "PROXY \r\n123456\r\n", "too short" },
	{ "PROXY UNKNOWN\n", "CR LF" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "CR LF" },
	{ "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "TCP4, TCP6 or UNKNOWN" },
	{ "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "TCP4, TCP6 or UNKNOWN" },
	{ "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "TCP4, TCP6 or UNKNOWN" },
	{ "PROXY UNKNOWNS 1.2.3.4\r\n", "TCP4, TCP6 or UNKNOWN" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\t\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", "two addresses and two" },
	{ "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", "two addresses and two" },
	{ "PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", "two addresses and two" },
	{ "PROXY TCP4 ::1 1.2.3.4 1 2\r\n", "two addresses and two" },
	{ "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "two addresses and two" },
	{ "PROXY TCP6 ::1 :::1 1 2\r\n", "two addresses and two" },
	{ "PROXY UNKNOWN fffffffffffffffffffffffffffffffffffffffffffffffff"
	  "ffffffffffffffffffffffffffffffffffffffffffffff\r\n",
	  "longer than 107 bytes" },
	{ "PROXY UNKNOWN aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	  "longer than 107 bytes" },
};
enum { BAD_LINES = sizeof(bad_lines) / sizeof(*bad_lines) };

/* The request fails, and with this reason. */
static void is_refused(const void *bytes, size_t n, const char *why)
{
	struct ss_config config = in_memory(&trusting);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	give(client, bytes, n);
	ends(client);
	ck_assert_msg(strstr(logged, "handshake: PROXY header: ") != NULL,
		      "\"%s\"", logged);
	ck_assert_msg(strstr(logged, why) != NULL, "\"%s\" lacks \"%s\"",
		      logged, why);
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.errors[SS_PHASE_HANDSHAKE], 1);
	dispose(server, 1);
}

START_TEST(lines_that_are_wrong_are_refused)
{
	is_refused(bad_lines[_i].line, strlen(bad_lines[_i].line),
		   bad_lines[_i].why);
}
END_TEST

START_TEST(lines_with_a_nul_are_refused)
{
	static const char line[] = "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\0\r\n";
	is_refused(line, sizeof(line) - 1, "NUL");
}
END_TEST

enum { BAD_BLOCKS = 14 };

static const char *bad_block(int i, struct header *h)
{
	put_ipv4(h);
	switch (i) {
	case 0:
		h->bytes[12] = 0x11;
		return "version is not 2";
	case 1:
		h->bytes[12] = 0x31;
		return "version is not 2";
	case 2:
		h->bytes[12] = 0x22;
		return "neither LOCAL nor PROXY";
	case 3:
		h->bytes[13] = 0x41;
		return "family or protocol";
	case 4:
		h->bytes[13] = 0x13;
		return "family or protocol";
	case 5:
		h->n--;
		set_length(h);
		return "too short for its addresses";
	case 6:
		h->bytes[13] = 0x21;
		return "too short for its addresses";
	case 7:
		h->bytes[13] = 0x31;
		return "too short for its addresses";
	case 8:
		put(h, "\x05", 1);
		break;
	case 9:
		put(h, "\x05\x00\x01", 3);
		break;
	case 10:
		put(h,
		    "\x05\xff\xff"
		    "abc",
		    6);
		break;
	case 11:
		put_sum(h);
		h->bytes[17] ^= 1;
		return "checksum is wrong";
	case 12:
		put_sum(h);
		h->bytes[h->n - 1] ^= 0x80;
		return "checksum is wrong";
	default:
		put_value(h, SS_PROXY_CRC32C, "\0\0\0", 3);
		return "checksum is wrong";
	}
	set_length(h);
	return "goes beyond the header";
}

START_TEST(blocks_that_are_wrong_are_refused)
{
	const char *why = bad_block(_i, &header);
	is_refused(header.bytes, header.n, why);
}
END_TEST

/* Any bit of it that is turned. */
START_TEST(checksums_cover_every_bit)
{
	struct proxy_header parsed;
	const char *why;
	make(BLOCK_VALUES, &header);
	ck_assert_int_eq(
		proxy_parse_block(header.bytes, header.n, &parsed, &why), 0);
	for (size_t bit = 12 * 8; bit < header.n * 8; bit++) {
		struct header turned = header;
		/* Of the length the caller has made sure; LOCAL and UNSPEC, and
		 * the sum's own type, leave it unchecked. */
		if (bit / 8 == 12 || bit / 8 == 13 || bit / 8 == 14 ||
		    bit / 8 == 15)
			continue;
		turned.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
		size_t n;
		int r = proxy_parse_block(turned.bytes, turned.n, &parsed,
					  &why);
		ck_assert_msg(r == -EPROTO ||
				      !proxy_find(parsed.tlvs, parsed.tlvs_size,
						  SS_PROXY_CRC32C, &n),
			      "bit %zu", bit);
	}
}
END_TEST

START_TEST(headers_have_a_size_limit)
{
	struct ss_proxy_options options = trusting;
	static char value[65536];
	options.max_header = _i ? 65551 : 0;
	size_t most = _i ? 65535 - 12 - 3 : 4096 - 16 - 12 - 3;
	struct ss_config config = in_memory(&options);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	put_ipv4(&header);
	put_value(&header, SS_PROXY_NOOP, value, most);
	give(client, header.bytes, header.n);
	give(client, "WHOAMI\n", 7);
	answers(client, "192.0.2.5 8080\n");
	ss_memory_close(client);
	dispose(server, 1);
	tally_begin();
	if (_i == 0) {
		put_ipv4(&header);
		put_value(&header, SS_PROXY_NOOP, value, most + 1);
		is_refused(header.bytes, header.n,
			   "it has 4097 bytes, and 4096 are allowed");
	}
}
END_TEST

/* Cut short anywhere; but who has said nothing is no error. */
START_TEST(headers_that_end_early_are_refused)
{
	make((enum kind)_i, &header);
	for (size_t n = 0; n < header.n; n++) {
		struct ss_config config = in_memory(&trusting);
		struct ss_server *server = made(&config);
		struct ss_memory_client *client = connect_to(server);
		give(client, header.bytes, n);
		ss_memory_shutdown(client);
		ends(client);
		if (n)
			ck_assert_ptr_nonnull(strstr(logged, "PROXY header: "));
		else
			ck_assert_str_eq(logged, "");
		ck_assert_int_eq(ss_server_free(server), 0);
	}
	tally_even((int)header.n);
}
END_TEST

START_TEST(headers_have_a_deadline)
{
	struct ss_config config = in_memory(options_of(_i));
	/* The configuration's, and the layer's own. */
	config.timeouts.handshake_ms = _i ? 700 : 0;
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	int64_t from = ss_now(server);
	give(client, "PROX", 4);
	ends(client);
	ck_assert_int_eq(ss_now(server) - from, _i ? 700 : 5000);
	dispose(server, 1);
}
END_TEST

static bool late;

static void keep_lateness(void *arg, int level, struct ss_server *server,
			  uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	late |= strstr(text, "PROXY header: it did not come in time") != NULL;
}

/* A line that stops where its rest is looked for. */
START_TEST(lines_have_a_deadline)
{
	struct ss_config config = in_memory(options_of(_i));
	config.timeouts.handshake_ms = 700;
	config.log = keep_lateness;
	config.log_level = SS_LOG_DEBUG;
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	int64_t from = ss_now(server);
	give(client, "PROXY TCP4 192.0.2.1", 20);
	ends(client);
	ck_assert_int_eq(ss_now(server) - from, 700);
	ck_assert(late);
	dispose(server, 1);
}
END_TEST

/* Nor is it an error to tell of, where the balancer has gone. */
START_TEST(lines_may_be_cut_off)
{
	struct ss_config config = in_memory(options_of(_i));
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	give(client, "PROXY TCP4 192.0.2.1", 20);
	for (int i = 0; i < 5; i++)
		ck_assert_int_ge(ss_server_turn(server, 0), 0);
	ss_memory_reset(client);
	ends(client);
	ck_assert_str_eq(logged, "");
	dispose(server, 1);
}
END_TEST

/* ---- any bytes ------------------------------------------------------------*/

/* In memory of exactly its size, so that a sanitizer sees a byte too much. */
static void parse_exactly(const struct header *h)
{
	struct proxy_header parsed;
	const char *why;
	unsigned char *bytes = malloc(h->n);
	memcpy(bytes, h->bytes, h->n);
	if (h->n >= PROXY_FIXED &&
	    proxy_parse_block(bytes, h->n, &parsed, &why) == 0) {
		size_t n;
		for (int type = 0; type < 256; type += 5)
			proxy_find(parsed.tlvs, parsed.tlvs_size, type, &n);
	}
	if (h->n >= PROXY_LEAST)
		proxy_parse_line((const char *)bytes, h->n, &parsed, &why);
	proxy_version(bytes, h->n);
	free(bytes);
}

START_TEST(any_bytes_are_parsed_within_their_bounds)
{
	struct dice dice = dice_of(2463534242, (uint64_t)_i);
	for (int round = 0; round < rounds(2000); round++) {
		make((enum kind)dice_below(&dice, KINDS), &header);
		for (uint64_t turns = dice_below(&dice, 8); turns; turns--)
			header.bytes[dice_below(&dice, header.n)] =
				(unsigned char)dice_throw(&dice);
		header.n -= dice_below(&dice, header.n - 1);
		parse_exactly(&header);
	}
}
END_TEST

/* ---- optional -------------------------------------------------------------*/

static const char *const plain[] = {
	"hello\n",
	"P\n",
	"PROX",
	"PROXY",
	"PROXY",
	"PROXYS\n",
	"\r\n",
	"\r\n\r\n",
	"\r\n\r\n\r",
	"\n",
	"GET / HTTP/1.0\r\n",
	"PROXYPROXY ",
};
enum { PLAIN = sizeof(plain) / sizeof(*plain) };

/* What is no header goes to the handler, however it comes. */
START_TEST(clients_without_a_header_lose_nothing)
{
	size_t n = strlen(plain[_i]);
	struct ss_config config = in_memory(&optional);
	struct ss_handler handler = ss_echo_handler;
	struct ss_server *server;
	char got[64];
	for (size_t split = 0; split <= 2 * n; split++) {
		handler.rbufsize = split > n ? 64 : SS_NONE;
		config.handler = &handler;
		server = made(&config);
		struct ss_memory_client *client = connect_to(server);
		size_t first = split > n ? split - n : split, back = 0;
		ssize_t r;
		give(client, plain[_i], first);
		do {
			r = ss_memory_recv(client, got + back,
					   sizeof(got) - back);
			back += r > 0 ? (size_t)r : 0;
		} while (r > 0);
		ck_assert_int_eq(r, -EAGAIN);
		give(client, plain[_i] + first, n - first);
		ss_memory_shutdown(client);
		while ((r = ss_memory_recv(client, got + back,
					   sizeof(got) - back)) > 0)
			back += (size_t)r;
		ck_assert_int_eq(r, 0);
		ck_assert_uint_eq(back, n);
		ck_assert_int_eq(memcmp(got, plain[_i], n), 0);
		ss_memory_close(client);
		ck_assert_int_eq(ss_server_free(server), 0);
	}
	ck_assert_str_eq(logged, "");
	tally_even((int)(2 * n + 1));
}
END_TEST

/* As soon as it is sure that there is none. */
START_TEST(clients_without_a_header_need_not_say_more)
{
	static const char *const said[][2] = {
		{ "", "hi\n" },
		{ "P", "\n" },
		{ "PROX", "ys\n" },
		{ "\r\n", "\n" },
	};
	struct ss_config config = in_memory(&optional);
	struct ss_server *server = made(&config);
	for (int i = 0; i < 4; i++) {
		struct ss_memory_client *client = connect_to(server);
		char whole[16];
		snprintf(whole, sizeof(whole), "%s%s", said[i][0], said[i][1]);
		give(client, said[i][0], strlen(said[i][0]));
		waits(client);
		give(client, said[i][1], strlen(said[i][1]));
		answers(client, whole);
		ss_memory_close(client);
	}
	dispose(server, 4);
}
END_TEST

/* Once it is sure that there is one, it must be right. */
START_TEST(optional_headers_must_be_right)
{
	struct ss_config config = in_memory(&optional);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	give(client, "PROXY what is this\r\n", 20);
	ends(client);
	ck_assert_ptr_nonnull(strstr(logged, "TCP4, TCP6 or UNKNOWN"));
	dispose(server, 1);
}
END_TEST

/* ---- who is believed ------------------------------------------------------*/

START_TEST(strangers_are_not_believed)
{
	struct ss_config config = in_memory(options_of(_i));
	struct ss_server *server = made(&config);
	pretended = "10.0.0.2:7";
	struct ss_memory_client *client = connect_to(server);
	make(LINE4, &header);
	if (_i) {
		give(client, header.bytes, header.n);
		give(client, "WHOAMI\n", 7);
		answers(client, "PROXY TCP4 192.0.2.5 192.0.2.1 8080 80\r\n"
				"10.0.0.2 7\n");
		ss_memory_close(client);
	} else {
		ends(client);
	}
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_VERIFY], !_i);
	dispose(server, 1);
}
END_TEST

/* To the left the balancer counts, to the right the client. */
START_TEST(layers_see_who_stands_before_them)
{
	static const struct ss_access_options no_client = {
		.deny = "192.0.2.0/24"
	};
	static const struct ss_access_options no_other = { .allow =
								   "10.0.0.1" };
	static const struct ss_limits_options one = { .source_rate = 1,
						      .per_ms = 86400000 };
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_whoami_handler,
				    .timeouts.handshake_ms = SS_NONE,
				    .log = keep_log,
				    .mixins = {
					    { &tally_layer, NULL },
					    { &pretend_layer, NULL },
					    { &ss_access_mixin, &no_other },
					    { &ss_proxy_mixin, &trusting },
					    { &ss_limits_mixin, &one },
					    { &ss_fiber_mixin, NULL },
				    } };
	struct ss_stats stats;
	struct ss_server *server = made(&config);
	for (int i = 0; i < 4; i++) {
		/* Two clients, each of whom may come once. */
		struct ss_memory_client *client = connect_to(server);
		make(i % 2 ? LINE6 : BLOCK4, &header);
		give(client, header.bytes, header.n);
		if (i >= 2) {
			ends(client);
			continue;
		}
		give(client, "WHOAMI\n", 7);
		answers(client, i ? "2001:db8::5 65535\n" : "192.0.2.5 8080\n");
		ss_memory_close(client);
	}
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_VERIFY], 2);
	ck_assert_uint_eq(stats.errors[SS_PHASE_HANDSHAKE], 0);
	dispose(server, 4);
	ck_assert_str_eq(logged, "");
	config.mixins[2].layer = &ss_proxy_mixin;
	config.mixins[2].options = &trusting;
	config.mixins[3].layer = &ss_access_mixin;
	config.mixins[3].options = &no_client;
	tally_begin();
	server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	make(BLOCK4, &header);
	give(client, header.bytes, header.n);
	ends(client);
	ck_assert_uint_eq(ss_access_refused(server), 1);
	dispose(server, 1);
}
END_TEST

/* ---- what a handler may ask -----------------------------------------------*/

static int tell_values(struct ss_request *req)
{
	struct ss_address balancer, local;
	char line[64], at[SS_ADDRESS_TEXT] = "none", to[SS_ADDRESS_TEXT] = "-";
	const void *id, *own, *empty, *none;
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	if (ss_proxy_balancer(req, &balancer) == 0)
		ss_address_format(&balancer, at, sizeof(at));
	if (ss_request_local(req, &local) == 0)
		ss_address_format(&local, to, sizeof(to));
	ssize_t id_size = ss_proxy_tlv(req, SS_PROXY_UNIQUE_ID, &id);
	ssize_t own_size = ss_proxy_tlv(req, 0xe0, &own);
	ssize_t empty_size = ss_proxy_tlv(req, SS_PROXY_NOOP, &empty);
	ssize_t missing = ss_proxy_tlv(req, SS_PROXY_ALPN, &none);
	n = ss_printf(req, "%s %s %.*s %.*s %d %d\n", at, to,
		      id_size > 0 ? (int)id_size : 0, (const char *)id,
		      own_size > 0 ? (int)own_size : 0, (const char *)own,
		      (int)empty_size, missing == -ENOENT && !none);
	return n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler telling = { .name = "telling",
					   .handle = tell_values };

START_TEST(handlers_are_told_what_a_header_has)
{
	struct ss_config config = in_memory(&optional);
	config.handler = &telling;
	struct ss_server *server = made(&config);
	struct ss_memory_client *client = connect_to(server);
	make(BLOCK_VALUES, &header);
	give(client, header.bytes, header.n);
	give(client, "?\n", 2);
	answers(client, "10.0.0.1:7 192.0.2.1:80 id-1 own 0 1\n");
	ss_memory_close(client);
	client = connect_to(server);
	give(client, "?\n", 2);
	answers(client, "none -   -2 1\n");
	ss_memory_close(client);
	dispose(server, 2);
}
END_TEST

static int ask_without(struct ss_request *req)
{
	struct ss_address address;
	const void *value;
	char byte;
	ck_assert_int_eq(ss_proxy_tlv(req, SS_PROXY_ALPN, &value), -ENOTSUP);
	ck_assert_int_eq(ss_proxy_balancer(req, &address), -ENOTSUP);
	return (int)ss_read(req, &byte, 1);
}

START_TEST(handlers_without_the_layer_are_told_so)
{
	static const struct ss_handler asking = { .handle = ask_without };
	char out[8];
	ck_assert_int_eq(ss_memory_exchange(&asking, "", 0, out, sizeof(out)),
			 0);
}
END_TEST

/* ---- everywhere -----------------------------------------------------------*/

static const char *self(const struct transport *transport)
{
	static char text[40];
	snprintf(text, sizeof(text), "uid:%ld", (long)geteuid());
	return transport->layer->flags & SS_LAYER_UNIX ? text : "127.0.0.1";
}

/* Sends a header in single bytes, and asks. */
static int introduced(const char *url, enum kind kind)
{
	int fd = dial(url), one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	make(kind, &header);
	for (size_t i = 0; i < header.n; i++)
		send(fd, header.bytes + i, 1, MSG_NOSIGNAL);
	send(fd, "WHOAMI\n", 7, MSG_NOSIGNAL);
	return fd;
}

START_TEST(clients_are_known_under_every_model)
{
	const struct model *model = &models[_i / 2];
	const struct transport *transport = &transports[_i % 2 * 2];
	const struct ss_proxy_options options = { .trusted = self(transport) };
	static const struct ss_access_options access = {
		.deny = "2001:db8::5"
	};
	struct ss_config config =
		config_of(model, transport, &ss_whoami_handler);
	struct node node;
	pretended = NULL;
	use_first(&config, &ss_access_mixin, &access);
	use_first(&config, &ss_proxy_mixin, &options);
	use_first(&config, &tally_layer, NULL);
	node_start(&node, &config);
	for (int i = 0; i < 3; i++) {
		int fd = introduced(node.url, i ? LINE4 : BLOCK_VALUES);
		expect_text(fd, "192.0.2.5 8080\n");
		close(fd);
		fd = introduced(node.url, i ? LINE6 : BLOCK6);
		char byte;
		ssize_t n = recv_within(fd, &byte, 1, WAIT_MS);
		ck_assert_msg(n == 0 || n == -ECONNRESET, "%zd", n);
		close(fd);
	}
	ck_assert_int_eq(node_stop(&node), 0);
	tally_even(6);
}
END_TEST

/* The child that counted them is killed. */
START_TEST(clients_that_a_child_counted_are_given_back)
{
	static const struct ss_proxy_options options = { .trusted =
								 "127.0.0.1" };
	static const struct ss_limits_options one = { .max_per_source = 1 };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .mixins = { { &tally_layer, NULL },
						{ &ss_proxy_mixin, &options },
						{ &ss_limits_mixin, &one },
						{ &ss_forking_mixin, NULL } },
				    .log_level = SS_NONE,
				    .handler = &ss_whoami_handler };
	struct node node;
	char line[16];
	pretended = NULL;
	node_start(&node, &config);
	for (int i = 0; i < 3; i++) {
		int stays = introduced(node.url, LINE4);
		expect_text(stays, "192.0.2.5 8080\n");
		int fd = introduced(node.url, LINE4);
		ck_assert_int_le(recv_within(fd, line, 1, WAIT_MS), 0);
		close(fd);
		fd = introduced(node.url, LINE6);
		expect_text(fd, "2001:db8::5 65535\n");
		close(fd);
		char command[64];
		snprintf(command, sizeof(command),
			 "/proc/%ld/task/%ld/children", (long)node.pid,
			 (long)node.pid);
		FILE *list = fopen(command, "r");
		long child;
		while (list && fscanf(list, "%ld", &child) == 1)
			kill((pid_t)child, SIGKILL);
		if (list)
			fclose(list);
		close(stays);
		eventually(atomic_load(&tally->begun) ==
			   atomic_load(&tally->ended));
	}
	ck_assert_int_eq(node_stop(&node), 0);
	tally_even(9);
}
END_TEST

/* ---- what cannot be -------------------------------------------------------*/

START_TEST(servers_that_trust_nobody_are_refused)
{
	struct ss_proxy_options options = { .trusted = NULL };
	struct ss_config config = in_memory(NULL);
	refused(&config, -EINVAL, "proxy: no balancer is trusted");
	config = in_memory(&options);
	refused(&config, -EINVAL, "proxy: no balancer is trusted");
	options.trusted = " , ";
	refused(&config, -EINVAL, "proxy: no balancer is trusted");
	options.trusted = "10.0.0.1/8";
	refused(&config, -EINVAL,
		"proxy: trusted: \"10.0.0.1/8\": bits are set beyond");
	options.trusted = "10.0.0.1";
	options.max_header = 65552;
	refused(&config, -EINVAL, "max_header is 65552");
	options.max_header = -1;
	refused(&config, -EINVAL, "max_header is -1");
	options.max_header = 0;
	options.optional = true;
	struct ss_handler handler = ss_echo_handler;
	handler.rbufsize = 11;
	config.handler = &handler;
	refused(&config, -EINVAL, "a read buffer of 12 bytes");
	config.handler = &ss_echo_handler;
	config.transport = &ss_memory_datagram_server;
	refused(&config, -EINVAL, "stream");
}
END_TEST

static struct sys_table real;

/* Whether its client is served where the n-th allocation fails (0: none). */
static bool served_without(struct ss_memory_client *client, int n)
{
	char got[64];
	sys_table.malloc = fail_malloc;
	fault.left = n;
	fault.what = NULL;
	bool served = ss_memory_recv(client, got, sizeof(got)) > 0;
	fault.left = 0;
	sys_table = real;
	ss_memory_close(client);
	ck_assert(served || fault.what);
	return served;
}

/* It costs the one client. */
START_TEST(headers_that_cannot_be_kept_fail_their_request)
{
	struct ss_config config = in_memory(&trusting);
	config.log_level = SS_NONE;
	struct ss_server *server = made(&config);
	real = sys_table;
	int n = -1, failed = 0;
	do {
		struct ss_memory_client *client = connect_to(server);
		make(_i ? LINE4 : BLOCK_UNIX, &header);
		give(client, header.bytes, header.n);
		give(client, "WHOAMI\n", 7);
		failed += !served_without(client, ++n);
		/* The first has no fault: what is made once is there then. */
	} while (fault.what || n < 1);
	ck_assert_int_gt(failed, 0);
	dispose(server, SS_NONE);
}
END_TEST

/* How much of what came was the header's is kept where nothing else is. */
START_TEST(headers_that_tell_nothing_need_memory)
{
	struct ss_config config = in_memory(&trusting);
	config.log_level = SS_NONE;
	real = sys_table;
	int n = 0, failed = 0;
	do {
		struct ss_server *server = made(&config);
		struct ss_memory_client *client = connect_to(server);
		give(client, "PROXY UNKNOWN\r\nWHOAMI\n", 22);
		failed += !served_without(client, ++n);
		dispose(server, SS_NONE);
	} while (fault.what);
	ck_assert_int_gt(failed, 1);
}
END_TEST

Suite *t_proxy(void)
{
	Suite *suite = suite_create("proxy");
	TCase *tcase = suite_case(suite, "headers", begin, NULL);
	tcase_add_test(tcase, checksums_are_those_of_the_rfc);
	tcase_add_loop_test(tcase, headers_are_taken_at_every_boundary, 0,
			    2 * KINDS);
	tcase_add_loop_test(tcase, headers_are_taken_byte_by_byte, 0,
			    2 * KINDS);
	tcase_add_loop_test(tcase, headers_leave_the_buffer_to_the_handler, 0,
			    KINDS);
	tcase_add_loop_test(tcase, headers_have_a_size_limit, 0, 2);
	tcase_add_loop_test(tcase, headers_have_a_deadline, 0, 2);
	tcase_add_loop_test(tcase, lines_have_a_deadline, 0, 2);
	tcase_add_loop_test(tcase, lines_may_be_cut_off, 0, 2);

	tcase = suite_case(suite, "wrong ones", begin, NULL);
	tcase_add_loop_test(tcase, lines_that_are_wrong_are_refused, 0,
			    BAD_LINES);
	tcase_add_test(tcase, lines_with_a_nul_are_refused);
	tcase_add_loop_test(tcase, blocks_that_are_wrong_are_refused, 0,
			    BAD_BLOCKS);
	tcase_add_test(tcase, checksums_cover_every_bit);
	tcase_add_loop_test(tcase, headers_that_end_early_are_refused, 0,
			    KINDS);
	tcase_add_loop_test(tcase, any_bytes_are_parsed_within_their_bounds, 0,
			    4);

	tcase = suite_case(suite, "who is believed", begin, NULL);
	tcase_add_loop_test(tcase, clients_without_a_header_lose_nothing, 0,
			    PLAIN);
	tcase_add_test(tcase, clients_without_a_header_need_not_say_more);
	tcase_add_test(tcase, optional_headers_must_be_right);
	tcase_add_loop_test(tcase, strangers_are_not_believed, 0, 2);
	tcase_add_test(tcase, layers_see_who_stands_before_them);
	tcase_add_test(tcase, handlers_are_told_what_a_header_has);
	tcase_add_test(tcase, handlers_without_the_layer_are_told_so);

	tcase = suite_case(suite, "everywhere", begin, NULL);
	tcase_add_loop_test(tcase, clients_are_known_under_every_model, 0,
			    2 * model_count);
	tcase_add_test(tcase, clients_that_a_child_counted_are_given_back);

	tcase = suite_case(suite, "what cannot be", begin, NULL);
	tcase_add_test(tcase, servers_that_trust_nobody_are_refused);
	tcase_add_loop_test(
		tcase, headers_that_cannot_be_kept_fail_their_request, 0, 2);
	tcase_add_test(tcase, headers_that_tell_nothing_need_memory);
	return suite;
}
