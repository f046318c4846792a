/*
 * Networks, users and groups, and the lists of them.  The input is two lists,
 * allow and deny, and behind them addresses to ask for, a NUL after each.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "../../lib/mixin/cidr.h"

enum { ENTRIES = 16, BYTES = 16 };

/* ---- an entry, byte by byte -----------------------------------------------*/

struct member {
	enum cidr_kind kind;
	unsigned char bytes[BYTES];
	int bits;
	bool deny;
};

static struct member member_of(const struct cidr *cidr)
{
	struct member m = { .kind = cidr->kind, .bits = cidr->bits };
	for (int i = 0; i < 8; i++) {
		m.bytes[i] = (unsigned char)(cidr->hi >> (56 - 8 * i));
		m.bytes[8 + i] = (unsigned char)(cidr->lo >> (56 - 8 * i));
	}
	return m;
}

static bool bit_of(const struct member *m, int i)
{
	return m->bytes[i / 8] >> (7 - i % 8) & 1;
}

static bool has(const struct member *outer, const struct member *inner)
{
	if (outer->kind != inner->kind || outer->bits > inner->bits)
		return false;
	for (int i = 0; i < outer->bits; i++)
		if (bit_of(outer, i) != bit_of(inner, i))
			return false;
	return true;
}

static void must_be_canonical(const struct member *m)
{
	int width = m->kind == CIDR_IPV6 ? 128 : 32;
	must(m->kind != CIDR_NONE && m->bits >= 0 && m->bits <= width,
	     "kind %d, %d bits", (int)m->kind, m->bits);
	for (int i = m->bits; i < 8 * BYTES; i++)
		must(!bit_of(m, i), "bit %d is beyond %d", i, m->bits);
}

static void format(const struct member *m, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN];
	uint32_t id;
	memcpy(&id, m->bytes, sizeof(id));
	if (m->kind == CIDR_UID || m->kind == CIDR_GID) {
		snprintf(text, size, "%s:%u",
			 m->kind == CIDR_UID ? "uid" : "gid", ntohl(id));
		return;
	}
	inet_ntop(m->kind == CIDR_IPV4 ? AF_INET : AF_INET6, m->bytes, host,
		  sizeof(host));
	snprintf(text, size, "%s/%d", host, m->bits);
}

/* ---- parsing --------------------------------------------------------------*/

static bool parse(struct input word, struct cidr *cidr)
{
	const char *why = NULL;
	char *text = exact_copy(word.at, word.left), again[64];
	struct cidr same;
	int r = cidr_parse(text, word.left, cidr, &why);
	free(text);
	must(r == 0 || (r == -EINVAL && why && *why), "%d", r);
	if (r < 0)
		return false;
	struct member m = member_of(cidr);
	must_be_canonical(&m);
	format(&m, again, sizeof(again));
	must(cidr_parse(again, strlen(again), &same, &why) == 0 &&
		     cidr_compare(cidr, &same) == 0,
	     "'%.*s' is %s, and that is not the same", (int)word.left,
	     (const char *)word.at, again);
	return true;
}

static bool between(uint8_t c)
{
	return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static struct input next_word(struct input *list)
{
	struct input word;
	while (list->left && between(*list->at))
		take_byte(list);
	word = (struct input){ list->at, 0 };
	while (list->left && !between(*list->at)) {
		take_byte(list);
		word.left++;
	}
	return word;
}

/* The lists as they should be taken: 0, -EINVAL or -ENOSPC. */
struct lists {
	struct member member[ENTRIES];
	int count, result;
	size_t words;
	bool closed;
};

static void read_list(struct lists *lists, struct input list, bool deny)
{
	for (struct input w; (w = next_word(&list)).left;) {
		struct cidr cidr;
		lists->closed |= !deny;
		if (!parse(w, &cidr))
			lists->result = -EINVAL;
		else if (lists->count < ENTRIES) {
			struct member *m = &lists->member[lists->count++];
			*m = member_of(&cidr);
			m->deny = deny;
		}
		lists->words++;
	}
}

static bool expected(const struct lists *lists, const struct member *who)
{
	const struct member *best = NULL;
	for (int i = 0; i < lists->count; i++) {
		const struct member *m = &lists->member[i];
		if (has(m, who) &&
		    (!best || m->bits > best->bits ||
		     (m->bits == best->bits && m->deny && !best->deny)))
			best = m;
	}
	return best ? !best->deny : !lists->closed;
}

/* ---- asking ---------------------------------------------------------------*/

static int handle(struct ss_request *req)
{
	return ss_write(req, "y", 1) < 0 ? -EPIPE : 0;
}

static bool allowed(struct ss_server *server, const struct ss_address *who)
{
	struct ss_memory_client *client;
	char byte;
	fuzz_peer = *who;
	must(ss_memory_connect(server, &client) == 0, "connect");
	ss_memory_shutdown(client);
	ssize_t n = ss_memory_recv(client, &byte, 1);
	must(n == 0 || n == 1, "recv: %zd", n);
	ss_memory_close(client);
	return n == 1;
}

static void must_agree(struct ss_server *server, const struct lists *lists,
		       const struct ss_address *who)
{
	char text[SS_ADDRESS_TEXT];
	struct cidr cidr;
	if (!cidr_of_sockaddr(&who->u.sa, who->len, &cidr))
		return;
	struct member m = member_of(&cidr);
	bool yes = allowed(server, who);
	ss_address_host(who, text, sizeof(text));
	must(yes == expected(lists, &m), "%s came in: %d", text, yes);
}

static struct ss_address address_of(const struct member *m, bool mapped)
{
	struct ss_address a = { .len = 0 };
	if (m->kind == CIDR_IPV4 && !mapped) {
		a.len = sizeof(a.u.in);
		a.u.in.sin_family = AF_INET;
		memcpy(&a.u.in.sin_addr, m->bytes, 4);
		return a;
	}
	a.len = sizeof(a.u.in6);
	a.u.in6.sin6_family = AF_INET6;
	memcpy(&a.u.in6.sin6_addr, m->bytes, 16);
	if (m->kind == CIDR_IPV4) {
		memset(&a.u.in6.sin6_addr, 0, 16);
		memset((char *)&a.u.in6.sin6_addr + 10, 0xff, 2);
		memcpy((char *)&a.u.in6.sin6_addr + 12, m->bytes, 4);
	}
	return a;
}

/* The first and the last of a network, and those beside them. */
static void ask_around(struct ss_server *server, const struct lists *lists,
		       struct member m)
{
	int width = m.kind == CIDR_IPV6 ? 128 : 32;
	if (m.kind != CIDR_IPV4 && m.kind != CIDR_IPV6)
		return;
	for (int round = 0; round < 4; round++) {
		struct ss_address who = address_of(&m, round % 2);
		must_agree(server, lists, &who);
		if (round == 1)
			for (int i = m.bits; i < width; i++)
				m.bytes[i / 8] |=
					(unsigned char)(1 << (7 - i % 8));
		if (round == 2 && m.bits)
			m.bytes[(m.bits - 1) / 8] ^=
				(unsigned char)(1 << (7 - (m.bits - 1) % 8));
	}
}

static void ask(struct ss_server *server, const struct lists *lists,
		struct input in)
{
	for (int i = 0; i < lists->count; i++)
		ask_around(server, lists, lists->member[i]);
	while (in.left) {
		struct cidr cidr;
		struct input word = take_until(&in, '\0');
		if (parse(word, &cidr))
			ask_around(server, lists, member_of(&cidr));
	}
}

static struct ss_server *make(void)
{
	static const struct ss_access_options room = { .max_entries = ENTRIES };
	static const struct ss_handler handler = { .handle = handle };
	static const struct ss_config config = {
		.transport = &ss_memory_server,
		.mixins = { { &fuzz_peer_layer, NULL },
			    { &ss_access_mixin, &room } },
		.handler = &handler,
		.log_level = SS_NONE,
	};
	struct ss_server *server;
	struct ss_diag why;
	must(ss_server_new(&server, &config, &why) == 0, "%s", why.text);
	return server;
}

FUZZ_TARGET(access)(const uint8_t *data, size_t n)
{
	struct input in = { data, n };
	struct input allow = take_until(&in, '\0');
	struct input deny = take_until(&in, '\0');
	struct lists lists = { .count = 0 };
	struct ss_diag why = { .code = 0 };
	read_list(&lists, allow, false);
	read_list(&lists, deny, true);
	if (lists.words > ENTRIES)
		lists.result = -ENOSPC;
	struct ss_server *server = make();
	char *allow_text = exact_text(allow), *deny_text = exact_text(deny);
	int r = ss_access_set(server, allow_text, deny_text, &why);
	must(r == lists.result, "%d instead of %d", r, lists.result);
	must(r == 0 || (why.code == r && *why.text &&
			plain_text(why.text, strlen(why.text))),
	     "%d, and the reason: %d, '%s'", r, why.code, why.text);
	/* What is refused changes nothing. */
	static const struct lists none;
	ask(server, r == 0 ? &lists : &none, in);
	must(ss_server_free(server) == 0, "free");
	free(allow_text);
	free(deny_text);
	return 0;
}
