/*
 * Access: which lists there are, who comes in by them, on every transport and
 * under every model, and what becomes of lists that change meanwhile.
 */
#include "guards.h"

#include "faults.h"
#include "handlers.h"
#include "testing/dice.h"

Suite *t_access(void);

static void begin(void)
{
	tally_begin();
	pretended = NULL;
}

/* ---- lists ----------------------------------------------------------------*/

static struct ss_server *in_memory(const char *allow, const char *deny)
{
	struct ss_access_options options = { .allow = allow, .deny = deny };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &pretend_layer, NULL },
						{ &ss_access_mixin,
						  &options } },
				    .handler = &ss_echo_handler };
	return made(&config);
}

static void dispose(struct ss_server *server)
{
	ck_assert_int_eq(ss_server_free(server), 0);
}

static const char *const good[] = {
	"",
	"0.0.0.0/0",
	"255.255.255.255/32",
	"10.0.0.0/8,192.0.2.1",
	" 10.0.0.0/8 , 192.0.2.1\t::1\n",
	",,,",
	"::/0",
	"::1/128",
	"2001:db8::/32",
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
	"::ffff:192.0.2.0/120",
	"::ffff:192.0.2.1",
	"uid:0",
	"gid:4294967294",
	"10.0.0.0/8,10.0.0.0/8",
};
enum { GOOD = sizeof(good) / sizeof(*good) };

START_TEST(lists_that_are_right)
{
	struct ss_diag why = { .code = 1 };
	struct ss_server *server = in_memory(good[_i], good[_i]);
	ck_assert_int_eq(ss_access_set(server, NULL, good[_i], &why), 0);
	ck_assert_int_eq(why.code, 0);
	ck_assert_int_eq(ss_access_set(server, good[_i], NULL, NULL), 0);
	dispose(server);
}
END_TEST

#define NO_ENTRY "\": not an address, network, uid:N or gid:N"
static const struct {
	const char *list, *why;
} bad[] = {
	{ "10.0.0.0/8,10.0.0", "\"10.0.0" NO_ENTRY },
	{ "10", "\"10" NO_ENTRY },
	{ "256.0.0.1", "\"256.0.0.1" NO_ENTRY },
	{ "010.0.0.1", "\"010.0.0.1" NO_ENTRY },
	{ "0x7f.0.0.1", "\"0x7f.0.0.1" NO_ENTRY },
	{ "127.1", "\"127.1" NO_ENTRY },
	{ "localhost", "\"localhost" NO_ENTRY },
	{ "/8", "\"/8" NO_ENTRY },
	{ "[::1]", "\"[::1]" NO_ENTRY },
	{ "fe80::1%lo", "\"fe80::1%lo" NO_ENTRY },
	{ "1:2:3", "\"1:2:3" NO_ENTRY },
	{ "::1;::2", "\"::1;::2" NO_ENTRY },
	{ "uid", "\"uid" NO_ENTRY },
	{ "\x1b[31m", "\"?[31m" NO_ENTRY },
	{ "1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111",
	  "1111:1" },
	{ "10.0.0.0/", "\"10.0.0.0/\": the prefix length is not in 0..32" },
	{ "10.0.0.0/33", "the prefix length is not in 0..32" },
	{ "10.0.0.0/08", "the prefix length is not in 0..32" },
	{ "10.0.0.0/-1", "the prefix length is not in 0..32" },
	{ "10.0.0.0/8x", "the prefix length is not in 0..32" },
	{ "10.0.0.0/255.0.0.0", "the prefix length is not in 0..32" },
	{ "::/129", "\"::/129\": the prefix length is not in 0..128" },
	{ "::/99999999999999999999", "the prefix length is not in 0..128" },
	{ "10.0.0.1/8", "\"10.0.0.1/8\": bits are set beyond the prefix" },
	{ "::1/127", "\"::1/127\": bits are set beyond the prefix" },
	{ "2001:db8::1/64", "bits are set beyond the prefix" },
	{ "::ffff:192.0.2.1/120", "bits are set beyond the prefix" },
	{ "uid:", "\"uid:\": a user's or group's number is expected" },
	{ "uid:root", "\"uid:root\": a user's or group's number" },
	{ "uid:-1", "a user's or group's number" },
	{ "gid:01", "a user's or group's number" },
	{ "gid:4294967295", "a user's or group's number" },
	{ "uid:1000/8", "a user's or group's number" },
};
enum { BAD = sizeof(bad) / sizeof(*bad) };

static void says(const struct ss_diag *why, const char *part)
{
	ck_assert_msg(strstr(why->text, part) != NULL, "\"%s\" lacks \"%s\"",
		      why->text, part);
}

/* Nothing changes where a list is wrong; no server begins with one. */
START_TEST(lists_that_are_wrong_are_named)
{
	struct ss_diag why;
	pretended = "192.0.2.1:1";
	struct ss_server *server = in_memory("192.0.2.1", NULL);
	ck_assert_int_eq(ss_access_set(server, NULL, bad[_i].list, &why),
			 -EINVAL);
	ck_assert_int_eq(why.code, -EINVAL);
	ck_assert_int_eq(strncmp(why.text, "deny: ", 6), 0);
	says(&why, bad[_i].why);
	ck_assert_int_eq(ss_access_set(server, bad[_i].list, "192.0.2.1", &why),
			 -EINVAL);
	ck_assert_int_eq(strncmp(why.text, "allow: ", 7), 0);
	ck_assert(served_in_memory(server));
	dispose(server);
	struct ss_access_options options = { .deny = bad[_i].list };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_access_mixin,
						  &options } },
				    .handler = &ss_echo_handler };
	refused(&config, -EINVAL, bad[_i].why);
	refused(&config, -EINVAL, "access: deny: ");
}
END_TEST

START_TEST(lists_have_room_for_so_many)
{
	struct ss_access_options options = { .deny = "::1,::2",
					     .max_entries = 2 };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_access_mixin,
						  &options } },
				    .handler = &ss_echo_handler };
	struct ss_diag why;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_access_set(server, "::3", "::4", NULL), 0);
	ck_assert_int_eq(ss_access_set(server, "::3", "::4,::5", &why),
			 -ENOSPC);
	says(&why, "3 entries, and there is room for 2");
	dispose(server);
	options.max_entries = 1;
	refused(&config, -ENOSPC, "access: 2 entries, and there is room for 1");
	options.max_entries = SS_NONE;
	refused(&config, -EINVAL, "max_entries is -1");
}
END_TEST

/* ---- who comes in ---------------------------------------------------------*/

static const struct {
	const char *allow, *deny, *peer;
	bool served;
} cases[] = {
	{ NULL, NULL, "192.0.2.1:1", true },
	{ "", "", "192.0.2.1:1", true },
	{ " ", NULL, "192.0.2.1:1", true },
	{ "192.0.2.0/24", NULL, "192.0.2.0:1", true },
	{ "192.0.2.0/24", NULL, "192.0.2.255:1", true },
	{ "192.0.2.0/24", NULL, "192.0.3.0:1", false },
	{ "192.0.2.0/24", NULL, "192.0.1.255:1", false },
	{ "192.0.2.0/24", NULL, "[::1]:1", false },
	{ NULL, "192.0.2.0/24", "192.0.2.9:1", false },
	{ NULL, "192.0.2.0/24", "192.0.3.9:1", true },
	{ NULL, "192.0.2.0/24", "[2001:db8::1]:1", true },
	/* The closer one, in whichever list. */
	{ "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3:1", false },
	{ "10.0.0.0/8", "10.1.0.0/16", "10.2.2.3:1", true },
	{ "10.1.0.0/16", "10.0.0.0/8", "10.1.2.3:1", true },
	{ "10.1.0.0/16", "10.0.0.0/8", "10.2.2.3:1", false },
	{ "10.1.2.3", "10.1.0.0/16,10.1.2.0/24", "10.1.2.3:1", true },
	{ "10.1.2.3", "10.1.0.0/16,10.1.2.0/24", "10.1.2.4:1", false },
	{ "10.0.0.0/8,10.1.2.0/24", "10.1.0.0/16,10.1.2.9", "10.1.2.9:1",
	  false },
	{ "10.0.0.0/8,10.1.2.0/24", "10.1.0.0/16,10.1.2.9", "10.1.2.10:1",
	  true },
	{ "10.0.0.0/8,10.1.2.0/24", "10.1.0.0/16,10.1.2.9", "10.1.3.0:1",
	  false },
	{ "10.0.0.0/8,10.1.2.0/24", "10.1.0.0/16,10.1.2.9", "10.2.0.0:1",
	  true },
	/* Behind one that is no relation. */
	{ "10.0.0.0/8,10.1.1.1,10.1.1.3", NULL, "10.1.1.2:1", true },
	{ "10.0.0.0/8,10.1.1.0/24,10.1.3.0/24", "10.1.0.0/16", "10.1.2.1:1",
	  false },
	{ "0.0.0.0/0", "128.0.0.0/1", "127.255.255.255:1", true },
	{ "0.0.0.0/0", "128.0.0.0/1", "128.0.0.0:1", false },
	{ "0.0.0.0/0", "128.0.0.0/1", "255.255.255.255:1", false },
	/* The same in both. */
	{ "10.0.0.0/8", "10.0.0.0/8", "10.1.2.3:1", false },
	{ "10.0.0.0/8", "::ffff:10.0.0.0/104", "10.1.2.3:1", false },
	{ "10.0.0.0/8,10.1.0.0/16", "10.0.0.0/8", "10.1.2.3:1", true },
	/* Families. */
	{ "0.0.0.0/0", NULL, "[::2]:1", false },
	{ "::/0", NULL, "192.0.2.1:1", false },
	{ "::/0", NULL, "[::ffff:192.0.2.1]:1", false },
	{ NULL, "0.0.0.0/0", "[::ffff:192.0.2.1]:1", false },
	{ "0.0.0.0/0,::/0", NULL, "[ffff::]:1", true },
	{ "::ffff:192.0.2.0/120", NULL, "192.0.2.7:1", true },
	{ "192.0.2.0/24", NULL, "[::ffff:192.0.2.7]:1", true },
	{ NULL, "192.0.2.0/24", "[::ffff:192.0.2.7]:1", false },
	/* IPv6, on both sides of its middle. */
	{ "2001:db8::/32", "2001:db8:1::/48", "[2001:db8:1::1]:1", false },
	{ "2001:db8::/32", "2001:db8:1::/48", "[2001:db8:2::1]:1", true },
	{ "2001:db8::/63", NULL, "[2001:db8:0:1:ffff::]:1", true },
	{ "2001:db8::/63", NULL, "[2001:db8:0:2::]:1", false },
	{ "2001:db8::/64", NULL, "[2001:db8::ffff:ffff:ffff:ffff]:1", true },
	{ "2001:db8::/64", NULL, "[2001:db8:0:1::]:1", false },
	{ "2001:db8::/65", NULL, "[2001:db8::7fff:0:0:0]:1", true },
	{ "2001:db8::/65", NULL, "[2001:db8::8000:0:0:0]:1", false },
	{ "2001:db8::/127", "2001:db8::1", "[2001:db8::1]:1", false },
	{ "2001:db8::/127", "2001:db8::1", "[2001:db8::]:1", true },
	/* Of the other kind are those without an address. */
	{ NULL, "uid:0,gid:0", "0.0.0.0:1", true },
	{ "uid:0,gid:0", NULL, "0.0.0.0:1", false },
	{ NULL, "0.0.0.0/0,::/0", NULL, true },
	{ "0.0.0.0/0,::/0", NULL, NULL, false },
	{ NULL, "0.0.0.0/0,::/0", "unix:/x", true },
	{ "0.0.0.0/0,::/0", NULL, "unix:/x", false },
};
enum { CASES = sizeof(cases) / sizeof(*cases) };

START_TEST(the_closest_entry_decides)
{
	pretended = cases[_i].peer;
	struct ss_server *server = in_memory(cases[_i].allow, cases[_i].deny);
	ck_assert_int_eq(served_in_memory(server), cases[_i].served);
	ck_assert_uint_eq(ss_access_refused(server), !cases[_i].served);
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_VERIFY], !cases[_i].served);
	dispose(server);
}
END_TEST

/* ---- against a plain search -----------------------------------------------*/

enum { NETWORKS = 4000, ASKED = 2000 };

static struct {
	uint32_t first;
	int bits;
	bool deny;
} networks[NETWORKS];

static struct dice dice;

static uint32_t draw(void)
{
	return (uint32_t)dice_throw(&dice);
}

static uint32_t masked(uint32_t address, int bits)
{
	return bits ? address & (UINT32_MAX << (32 - bits)) : 0;
}

/* Of few addresses, so that networks lie in one another. */
static uint32_t some_address(void)
{
	return (draw() & 0x03000000) | (draw() & 0x000f0f0f);
}

static bool expected(uint32_t address)
{
	int bits = -1;
	bool deny = true;
	for (int i = 0; i < NETWORKS; i++) {
		if (masked(address, networks[i].bits) != networks[i].first)
			continue;
		if (networks[i].bits == bits)
			deny |= networks[i].deny;
		if (networks[i].bits > bits) {
			bits = networks[i].bits;
			deny = networks[i].deny;
		}
	}
	return !deny;
}

static void list_of(char *list, size_t size, bool deny)
{
	size_t used = 0;
	for (int i = 0; i < NETWORKS; i++) {
		uint32_t a = networks[i].first;
		if (networks[i].deny == deny)
			used += (size_t)snprintf(list + used, size - used,
						 "%u.%u.%u.%u/%d ", a >> 24,
						 a >> 16 & 255, a >> 8 & 255,
						 a & 255, networks[i].bits);
	}
	ck_assert_uint_lt(used, size);
}

START_TEST(large_lists_say_what_a_plain_search_says)
{
	static char allow[NETWORKS * 20], deny[NETWORKS * 20], peer[40];
	int in = 0;
	dice = dice_of(88172645, (uint64_t)_i);
	for (int i = 0; i < NETWORKS; i++) {
		networks[i].bits = 4 + (int)(draw() % 29);
		networks[i].first = masked(some_address(), networks[i].bits);
		networks[i].deny = draw() & 1;
	}
	list_of(allow, sizeof(allow), false);
	list_of(deny, sizeof(deny), true);
	struct ss_server *server = in_memory(allow, deny);
	pretended = peer;
	for (int i = 0; i < ASKED; i++) {
		uint32_t a = some_address();
		snprintf(peer, sizeof(peer), "%u.%u.%u.%u:1", a >> 24,
			 a >> 16 & 255, a >> 8 & 255, a & 255);
		ck_assert_msg(served_in_memory(server) == expected(a), "%s",
			      peer);
		in += expected(a);
	}
	ck_assert(in > ASKED / 10 && in < ASKED - ASKED / 10);
	dispose(server);
}
END_TEST

/* ---- everywhere, and changed from there -----------------------------------*/

static atomic_ullong *counted; /* ss_access_refused, as a handler saw it */

/* Replaces `deny` by what the client says; "-" is none. */
static int change_lists(struct ss_request *req)
{
	char list[200] = "";
	struct ss_diag why;
	struct ss_server *server = ss_request_server(req);
	ssize_t n = ss_read(req, list, sizeof(list) - 1);
	if (n <= 0)
		return (int)n;
	atomic_store(counted, ss_access_refused(server));
	if (list[0] == 'x')
		return ss_write(req, "x", 1) < 0 ? -EPIPE : SS_AGAIN;
	if (ss_access_set(server, NULL, list[0] == '-' ? NULL : list, &why) < 0)
		return ss_fail(req, -EINVAL, "%s", why.text);
	return ss_write(req, "ok", 2) < 0 ? -EPIPE : SS_AGAIN;
}

static const struct ss_handler changing = { .name = "changing",
					    .handle = change_lists };

static const char *me(const struct transport *transport)
{
	static char text[40];
	snprintf(text, sizeof(text), "uid:%ld", (long)geteuid());
	return transport->layer->flags & SS_LAYER_UNIX ? text : "127.0.0.0/8";
}

static void told(int fd, const char *list)
{
	send_text(fd, list);
	expect_text(fd, "ok");
}

/* From the child or worker that serves the one who asks for it. */
START_TEST(lists_hold_in_every_process)
{
	const struct model *model = &models[_i / transport_count];
	const struct transport *transport = &transports[_i % transport_count];
	if (transport->layer == &ss_unix_datagram_server ||
	    (model->at_once == 1 && transport->stream))
		return;
	counted = ss_shared_alloc(sizeof(*counted));
	struct ss_config config = config_of(model, transport, &changing);
	use_first(&config, &ss_access_mixin, NULL);
	use_first(&config, &tally_layer, NULL);
	struct node node;
	node_start(&node, &config);
	ck_assert(served_at(node.url));
	int fd = dial(node.url);
	told(fd, me(transport));
	ck_assert(!served_at(node.url));
	ck_assert(!served_at(node.url));
	if (transport->stream) {
		told(fd, "-");
		ck_assert(served_at(node.url));
		ck_assert_uint_eq(atomic_load(counted), 2);
	}
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	tally_even(transport->stream ? 5 : 4);
}
END_TEST

START_TEST(lists_hold_under_models_of_one_at_a_time)
{
	const struct model *model = &models[_i / transport_count];
	const struct transport *transport = &transports[_i % transport_count];
	struct ss_access_options options = { .allow = "203.0.113.1" };
	struct ss_config config = config_of(model, transport, &ss_echo_handler);
	use_first(&config, &ss_access_mixin, &options);
	use_first(&config, &tally_layer, NULL);
	struct node node;
	node_start(&node, &config);
	for (int i = 0; i < 3; i++)
		ck_assert(!served_at(node.url));
	ck_assert_int_eq(node_stop(&node), 0);
	tally_even(3);
}
END_TEST

/* A second generation of workers is forked from the supervisor. */
START_TEST(lists_hold_in_all_workers)
{
	struct ss_prefork_options workers = { .workers = 3 };
	struct ss_config config = {
		.addresses = { "127.0.0.1:0" },
		.mixins = { { &ss_access_mixin, NULL },
			    { &ss_prefork_mixin, &workers },
			    { &ss_threading_mixin, NULL } },
		.handler = &changing,
	};
	struct served served;
	counted = ss_shared_alloc(sizeof(*counted));
	served_start(&served, &config);
	int fd = dial(served.url);
	told(fd, "127.0.0.0/8");
	for (int i = 0; i < 30; i++)
		ck_assert(!served_at(served.url));
	ck_assert_uint_eq(ss_access_refused(served.server), 30);
	ck_assert_int_eq(ss_access_set(served.server, NULL, NULL, NULL), 0);
	for (int i = 0; i < 30; i++)
		ck_assert(served_at(served.url));
	close(fd);
	served_stop(&served);
}
END_TEST

START_TEST(peers_of_unix_sockets_are_users_and_groups)
{
	static const struct {
		const char *allow, *deny; /* U, G: this process's own */
		bool served;
	} people[] = {
		{ "U", NULL, true },  { "G", NULL, true },
		{ NULL, "U", false }, { NULL, "G", false },
		{ "U", "G", true },   { "G", "U", false },
		{ "U", "U", false },  { "127.0.0.0/8", NULL, false },
	};
	char user[40], group[40];
	snprintf(user, sizeof(user), "uid:%ld", (long)geteuid());
	snprintf(group, sizeof(group), "gid:%ld", (long)getegid());
	for (size_t i = 0; i < sizeof(people) / sizeof(*people); i++) {
		const char *lists[2] = { people[i].allow, people[i].deny };
		for (int k = 0; k < 2; k++)
			if (lists[k] && strlen(lists[k]) == 1)
				lists[k] = *lists[k] == 'U' ? user : group;
		struct ss_access_options options = { .allow = lists[0],
						     .deny = lists[1] };
		struct ss_config config = config_of(&models[_i], &transports[2],
						    &ss_echo_handler);
		use_first(&config, &ss_access_mixin, &options);
		struct node node;
		node_start(&node, &config);
		ck_assert_msg(served_at(node.url) == people[i].served,
			      "case %zu", i);
		ck_assert_int_eq(node_stop(&node), 0);
	}
}
END_TEST

/* ---- while they are asked -------------------------------------------------*/

enum { LOOKING_MS = 300 };

static atomic_bool flipping;

/* Both have the friend, and not the stranger; but what they have besides lies
 * otherwise. */
static void *flip(void *server)
{
	char wide[40 * 256];
	size_t used = 0;
	for (int i = 0; i < 256; i++)
		used += (size_t)snprintf(wide + used, sizeof(wide) - used,
					 "10.%d.0.0/16 ", i);
	while (atomic_load(&flipping)) {
		ck_assert_int_eq(
			ss_access_set(server, wide, "11.0.0.0/8", NULL), 0);
		ck_assert_int_eq(ss_access_set(server,
					       "10.9.0.1, 10.9.0.0/24, "
					       "11.0.0.0/8",
					       "11.2.0.0/16", NULL),
				 0);
	}
	return NULL;
}

static bool may_enter(struct ss_request *req, const struct ss_address *peer)
{
	struct ss_server *server = ss_request_server(req);
	return ss_request_set_peer(req, peer) == 0 &&
	       ss_super(server, &pretend_layer)->verify_request(server, req);
}

static int ask_on_and_on(struct ss_request *req)
{
	const struct ss_address friend = address_of("10.9.0.1:1"),
				stranger = address_of("11.2.0.1:1");
	int64_t until = clock_ms() + rounds(LOOKING_MS);
	bool right = true; /* an assertion each time would take all the time */
	while (right && clock_ms() < until)
		for (int i = 0; i < 1000; i++)
			right &= may_enter(req, &friend) &&
				 !may_enter(req, &stranger);
	ck_assert(right);
	return 0;
}

static const struct ss_handler asking = { .name = "asking",
					  .handle = ask_on_and_on };

START_TEST(lists_change_while_they_are_asked)
{
	struct ss_access_options options = { .allow = "10.9.0.0/16" };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &pretend_layer, NULL },
						{ &ss_access_mixin,
						  &options } },
				    .handler = &asking };
	struct ss_server *server = made(&config);
	pthread_t thread[2];
	atomic_store(&flipping, true);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, flip, server),
				 0);
	pretended = "10.9.0.1:1";
	ck_assert(!served_in_memory(server));
	atomic_store(&flipping, false);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	dispose(server);
}
END_TEST

/* ---- what cannot be -------------------------------------------------------*/

START_TEST(servers_without_the_layer_say_so)
{
	stack_nothing();
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &ss_echo_handler };
	struct ss_diag why;
	struct ss_server *server = made(&config);
	ck_assert(!ss_server_has(server, &ss_access_mixin));
	ck_assert(ss_server_has(server, &ss_memory_server));
	ck_assert_int_eq(ss_access_set(server, NULL, NULL, &why), -ENOTSUP);
	says(&why, "does not have the layer access");
	ck_assert_int_eq(ss_access_set(server, NULL, NULL, NULL), -ENOTSUP);
	ck_assert_uint_eq(ss_access_refused(server), 0);
	dispose(server);
}
END_TEST

/* Whatever cannot be had: no server, nothing lost, and the next one works. */
START_TEST(servers_without_memory_are_not_made)
{
	struct ss_access_options options = { .deny = "127.0.0.0/8" };
	struct ss_config config = { .transport = &ss_memory_server,
				    .mixins = { { &ss_access_mixin,
						  &options } },
				    .handler = &ss_echo_handler };
	struct sys_table real = sys_table;
	struct ss_server *server = made_at_last(&config);
	fail_memory();
	fault.left = 1;
	ck_assert_int_eq(ss_access_set(server, "::1", NULL, NULL), -ENOMEM);
	sys_table = real;
	ck_assert(served_in_memory(server));
	dispose(server);
}
END_TEST

Suite *t_access(void)
{
	Suite *suite = suite_create("access");
	TCase *tcase = suite_case(suite, "lists", begin, NULL);
	tcase_add_loop_test(tcase, lists_that_are_right, 0, GOOD);
	tcase_add_loop_test(tcase, lists_that_are_wrong_are_named, 0, BAD);
	tcase_add_test(tcase, lists_have_room_for_so_many);

	tcase = suite_case(suite, "who comes in", begin, NULL);
	tcase_add_loop_test(tcase, the_closest_entry_decides, 0, CASES);
	tcase_add_loop_test(tcase, large_lists_say_what_a_plain_search_says, 0,
			    3);

	tcase = suite_case(suite, "everywhere", begin, NULL);
	tcase_add_loop_test(tcase, lists_hold_in_every_process, 0,
			    model_count * transport_count);
	tcase_add_loop_test(tcase, lists_hold_under_models_of_one_at_a_time, 0,
			    model_count * transport_count);
	tcase_add_test(tcase, lists_hold_in_all_workers);
	tcase_add_loop_test(tcase, peers_of_unix_sockets_are_users_and_groups,
			    0, model_count);
	tcase_add_test(tcase, lists_change_while_they_are_asked);

	tcase = suite_case(suite, "what cannot be", begin, NULL);
	tcase_add_test(tcase, servers_without_the_layer_say_so);
	tcase_add_test(tcase, servers_without_memory_are_not_made);
	return suite;
}
