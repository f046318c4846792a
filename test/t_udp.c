/*
 * Datagrams, over UDP and Unix sockets: what arrives, what is sent back and
 * from where, and whom a lost client disturbs (PROMISES 14).
 */
#include "support.h"
#include "user_layers.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/un.h>

enum { PACKET_MAX = 65507, MANY = 200 };

static struct tape *tape;
static struct sys_table real;
static const struct transport *const udp = &transports[1];
static const struct transport *const unixgram = &transports[3];

static void set_up(void)
{
	real = sys_table;
	tape = tape_new();
}

static void tear_down(void)
{
	sys_table = real;
}

/* ---- what is served -------------------------------------------------------*/

/* What a packet asks for, in its first word; the rest is `text`. */
struct order {
	const char *word;
	int (*obey)(struct ss_request *req, const char *text);
};

static int answer(struct ss_request *req, const char *text)
{
	ssize_t n = ss_write(req, text, strlen(text));
	return n < 0 ? (int)n : 0;
}

static int obey_quiet(struct ss_request *req, const char *text)
{
	(void)req, (void)text;
	return 0;
}

static int obey_empty(struct ss_request *req, const char *text)
{
	(void)text;
	return answer(req, "");
}

static int obey_fail(struct ss_request *req, const char *text)
{
	answer(req, text);
	return -EPROTO;
}

static int obey_fail_quietly(struct ss_request *req, const char *text)
{
	(void)req, (void)text;
	return -EPROTO;
}

/* Now, and what is written later as another one. */
static int obey_flush(struct ss_request *req, const char *text)
{
	int r = answer(req, text);
	if (r == 0)
		r = ss_flush(req);
	if (r == 0)
		r = ss_flush(req);
	return r < 0 ? r : answer(req, "later");
}

static int obey_three(struct ss_request *req, const char *text)
{
	for (int i = 0; i < 2; i++)
		if (ss_send_to(req, text, strlen(text), NULL) < 0)
			return -EIO;
	return answer(req, "and more");
}

/* The reply, and that nothing more fits into it. */
static int obey_big(struct ss_request *req, const char *text)
{
	static char bytes[PACKET_MAX + 1];
	(void)text;
	memset(bytes, 'b', sizeof(bytes));
	tape_note(tape, "%zd", ss_write(req, bytes, PACKET_MAX + 1));
	tape_note(tape, "%zd", ss_write(req, bytes, PACKET_MAX - 5));
	tape_note(tape, "%zd", ss_write(req, bytes, 6));
	tape_note(tape, "%zd", ss_send_to(req, bytes, PACKET_MAX + 1, NULL));
	return answer(req, "12345");
}

/* Our own address, as the client asked for it. */
static int obey_local(struct ss_request *req, const char *text)
{
	struct ss_address local;
	char name[SS_ADDRESS_TEXT];
	(void)text;
	int r = ss_request_local(req, &local);
	return r < 0 ? r
		     : answer(req,
			      ss_address_format(&local, name, sizeof(name)));
}

static int obey_peer(struct ss_request *req, const char *text)
{
	char name[SS_ADDRESS_TEXT];
	(void)text;
	return answer(req, ss_peer_name(req, name, sizeof(name)));
}

/* To an address that the client names. */
static int obey_to(struct ss_request *req, const char *text)
{
	struct ss_endpoint to;
	if (ss_resolve(text, SS_SCHEME_ANY, &to, 1, NULL) < 1)
		return -EINVAL;
	for (int i = 0; i < 2; i++)
		if (ss_send_to(req, "stray", 5, &to.address) != 5)
			return -EIO;
	return answer(req, "sent");
}

/* What became of a reply that is sent at once. */
static int obey_result(struct ss_request *req, const char *text)
{
	int r = answer(req, text);
	if (r == 0)
		r = ss_flush(req);
	tape_note(tape, "%d", r);
	return 0;
}

/* In two pieces. */
static int obey_pieces(struct ss_request *req, const char *text)
{
	size_t n = strlen(text);
	struct iovec iov[2] = { { (void *)text, n / 2 },
				{ (void *)(text + n / 2), n - n / 2 } };
	ssize_t r = ss_writev(req, iov, 2);
	tape_note(tape, "%zd %zu", r, ss_sent(req));
	return r < 0 ? (int)r : 0;
}

static const struct order orders[] = {
	{ "quiet", obey_quiet },   { "empty", obey_empty },
	{ "fail", obey_fail },	   { "fail-quietly", obey_fail_quietly },
	{ "flush", obey_flush },   { "three", obey_three },
	{ "big", obey_big },	   { "local", obey_local },
	{ "peer", obey_peer },	   { "to", obey_to },
	{ "result", obey_result }, { "pieces", obey_pieces },
};

static int obey(struct ss_request *req)
{
	char packet[256];
	ssize_t n = ss_read(req, packet, sizeof(packet) - 1);
	packet[n > 0 ? n : 0] = '\0';
	char *text = strchr(packet, ' ');
	if (text)
		*text++ = '\0';
	for (size_t i = 0; i < sizeof(orders) / sizeof(*orders); i++)
		if (!strcmp(packet, orders[i].word))
			return orders[i].obey(req, text ? text : "");
	return -EINVAL;
}

static const struct ss_handler obedient = { .name = "obey", .handle = obey };

/* The packet as it came, an empty one too. */
static int echo(struct ss_request *req)
{
	const void *data;
	ssize_t n = ss_packet(req, &data);
	if (n >= 0)
		n = ss_write(req, data, (size_t)n);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler echoing = { .name = "echo", .handle = echo };

/* Its length, and whether its end was lost. */
static int measure(struct ss_request *req)
{
	const void *data;
	ssize_t n = ss_packet(req, &data);
	n = ss_printf(req, "%zd %s", n,
		      ss_packet_truncated(req) ? "cut" : "whole");
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler measuring = { .name = "measure",
					     .handle = measure };

/* Every packet is noted. */
static int note(struct ss_request *req)
{
	char packet[TAPE_TEXT] = "";
	ss_read(req, packet, sizeof(packet) - 1);
	tape_note(tape, "%s", packet);
	return answer(req, packet);
}

static const struct ss_handler noting = { .name = "note", .handle = note };

/* ---- clients --------------------------------------------------------------*/

/* Models, times the two transports. */
static const struct model *model_of(int i)
{
	return &models[i / 2];
}

static const struct transport *transport_of(int i)
{
	return i % 2 ? unixgram : udp;
}
enum { BOTH = 2 };

/* One datagram comes, and it is this one. */
static void expect_packet(int fd, const char *text)
{
	char got[256];
	ssize_t n = recv_within(fd, got, sizeof(got) - 1, WAIT_MS);
	ck_assert_int_ge(n, 0);
	got[n] = '\0';
	ck_assert_str_eq(got, text);
}

static void tell(int fd, const char *order)
{
	send_text(fd, order);
}

static void demand(int fd, const char *order, const char *reply)
{
	tell(fd, order);
	expect_packet(fd, reply);
}

/* ---- what arrives ---------------------------------------------------------*/

static void fill(unsigned char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (unsigned char)(i * 31 + n);
}

START_TEST(packets_of_every_size_come_back_whole)
{
	static const size_t sizes[] = { 0, 1, 1472, 8192, 65506, PACKET_MAX };
	static unsigned char out[PACKET_MAX], in[PACKET_MAX + 1];
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &echoing);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		fill(out, sizes[i]);
		ck_assert_int_eq(send(fd, out, sizes[i], 0), (ssize_t)sizes[i]);
		ck_assert_int_eq(recv_within(fd, in, sizeof(in), WAIT_MS),
				 (ssize_t)sizes[i]);
		ck_assert_mem_eq(in, out, sizes[i]);
	}
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(packets_that_are_cut_say_so)
{
	static const struct ss_socket_options options = {
		.max_packet_size = 100,
	};
	char bytes[200] = "";
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &measuring);
	config.transport_options = &options;
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	send(fd, bytes, 99, 0);
	expect_packet(fd, "99 whole");
	send(fd, bytes, 100, 0);
	expect_packet(fd, "100 whole");
	send(fd, bytes, 101, 0);
	expect_packet(fd, "100 cut");
	send(fd, bytes, 200, 0);
	expect_packet(fd, "100 cut");
	send(fd, bytes, 0, 0);
	expect_packet(fd, "0 whole");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* A datagram is a stream that ends where the packet ends. */
static int read_through(struct ss_request *req)
{
	char bytes[4];
	for (int i = 0; i < 4; i++)
		tape_note(tape, "%zd", ss_read(req, bytes, sizeof(bytes)));
	return SS_AGAIN;
}

static const struct ss_handler reading = { .name = "read",
					   .handle = read_through };

START_TEST(packets_end_like_streams)
{
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &reading);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_bytes(fd, "123456", 6);
	char expected[32];
	snprintf(expected, sizeof(expected), "4 2 0 %d", -ENODATA);
	tape_wait(tape, 4);
	ck_assert_str_eq(tape_text(tape), expected);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static void send_many(int fd)
{
	char text[16];
	for (int i = 0; i < MANY; i++) {
		snprintf(text, sizeof(text), "%d", i);
		send_text(fd, text);
	}
}

START_TEST(packets_keep_their_order_under_sync)
{
	struct ss_config config =
		config_of(&models[0], transport_of(_i), &noting);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_many(fd);
	for (int i = 0; i < MANY; i++) {
		char text[16];
		snprintf(text, sizeof(text), "%d", i);
		expect_packet(fd, text);
		ck_assert_str_eq(tape->line[i].text, text);
	}
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- what is sent back ----------------------------------------------------*/

START_TEST(replies_are_sent_only_when_something_was_written)
{
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &obedient);
	config.log_level = SS_NONE;
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	tell(fd, "quiet");
	tell(fd, "fail-quietly");
	expect_end(fd);
	demand(fd, "empty", "");
	demand(fd, "fail though", "though");
	demand(fd, "flush now", "now");
	expect_packet(fd, "later");
	demand(fd, "three times", "times");
	expect_packet(fd, "times");
	expect_packet(fd, "and more");
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(replies_fit_into_one_packet_or_are_refused)
{
	static char in[PACKET_MAX + 1];
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &obedient);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	tell(fd, "big");
	ck_assert_int_eq(recv_within(fd, in, sizeof(in), WAIT_MS), PACKET_MAX);
	ck_assert_mem_eq(in + PACKET_MAX - 6, "b12345", 6);
	char expected[64];
	snprintf(expected, sizeof(expected), "%d %d %d %d", -EMSGSIZE,
		 PACKET_MAX - 5, -EMSGSIZE, -EMSGSIZE);
	ck_assert_str_eq(tape_text(tape), expected);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* A bound socket that is connected to nobody, and its address as text. */
static int bystander(const struct transport *transport, char *text)
{
	static int number;
	struct ss_endpoint at;
	struct ss_address real_address = { .len = sizeof(real_address.u) };
	if (transport == unixgram)
		snprintf(text, SS_ADDRESS_TEXT, "unixgram:%s/by%d", scratch(),
			 number++);
	else
		snprintf(text, SS_ADDRESS_TEXT, "udp://127.0.0.1:0");
	ck_assert_int_eq(ss_resolve(text, SS_SCHEME_ANY, &at, 1, NULL), 1);
	int fd =
		socket(at.address.u.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &at.address.u.sa, at.address.len), 0);
	getsockname(fd, &real_address.u.sa, &real_address.len);
	ss_url_format(at.scheme, &real_address, text, SS_ADDRESS_TEXT);
	return fd;
}

START_TEST(packets_may_go_to_another_address)
{
	char url[SS_ADDRESS_TEXT], order[SS_ADDRESS_TEXT + 8];
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &obedient);
	struct node node;
	node_start(&node, &config);
	int other = bystander(transport_of(_i), url);
	int fd = dial(node.url);
	snprintf(order, sizeof(order), "to %s", url);
	demand(fd, order, "sent");
	expect_packet(other, "stray");
	expect_packet(other, "stray");
	char byte;
	ck_assert_int_eq(recv_within(fd, &byte, 1, 0), -EAGAIN);
	ck_assert_int_eq(recv_within(other, &byte, 1, 0), -EAGAIN);
	close(fd);
	close(other);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(replies_may_be_written_in_pieces)
{
	struct ss_config config =
		config_of(&models[0], transport_of(_i), &obedient);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	demand(fd, "pieces 12345", "12345");
	tape_wait(tape, 1);
	ck_assert_str_eq(tape_text(tape), "5 5");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* There is no room first, then a signal comes. */
static int hindrances;

static ssize_t hindered_sendto(int fd, const void *buf, size_t n, int flags,
			       const struct sockaddr *sa, socklen_t len)
{
	if (hindrances == 0)
		return real.sendto(fd, buf, n, flags, sa, len);
	errno = hindrances-- == 2 ? EAGAIN : EINTR;
	return -1;
}

START_TEST(packets_that_are_sent_at_once_wait_for_room)
{
	struct ss_config config = config_of(&models[0], udp, &obedient);
	config.timeouts.io_ms = WAIT_MS;
	struct node node;
	hindrances = 2;
	sys_table.sendto = hindered_sendto;
	node_start(&node, &config);
	int fd = dial(node.url);
	demand(fd, "three at once", "at once");
	expect_packet(fd, "at once");
	expect_packet(fd, "and more");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* A channel that overrides nothing is in nobody's way. */
START_TEST(packets_go_through_channels)
{
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &obedient);
	struct node node;
	use_last(&config, &pass_layer, NULL);
	node_start(&node, &config);
	int fd = dial(node.url);
	demand(fd, "three at once", "at once");
	expect_packet(fd, "at once");
	expect_packet(fd, "and more");
	demand(fd, "flush now", "now");
	expect_packet(fd, "later");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- from where -----------------------------------------------------------*/

static bool have_ipv6(void)
{
	struct sockaddr_in6 loopback = { .sin6_family = AF_INET6,
					 .sin6_addr = in6addr_loopback };
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool can = fd >= 0 && bind(fd, (struct sockaddr *)&loopback,
				   sizeof(loopback)) == 0;
	if (fd >= 0)
		close(fd);
	return can;
}

/* A connected socket takes only what comes from where it is connected to. */
static void expect_from(const char *url, const char *host)
{
	char at[SS_ADDRESS_TEXT], name[SS_ADDRESS_TEXT];
	const char *port = strrchr(url, ':');
	snprintf(at, sizeof(at), "udp://%s%s", host, port);
	snprintf(name, sizeof(name), "%s%s", host, port);
	int fd = dial(at);
	demand(fd, "local", name);
	demand(fd, "flush now", "now");
	expect_packet(fd, "later");
	demand(fd, "three at once", "at once");
	expect_packet(fd, "at once");
	expect_packet(fd, "and more");
	close(fd);
}

static void expect_wildcard(const struct model *model, const char *address,
			    const char *const *hosts)
{
	struct ss_config config = config_of(model, udp, &obedient);
	config.addresses[0] = address;
	struct node node;
	if (!strstr(address, "127.") && exposed())
		return;
	node_start(&node, &config);
	for (int i = 0; hosts[i]; i++)
		expect_from(node.url, hosts[i]);
	ck_assert_int_eq(node_stop(&node), 0);
}

START_TEST(replies_leave_from_the_address_asked)
{
	static const char *const hosts[] = { "127.0.0.1", "127.0.0.2",
					     "127.1.2.3", NULL };
	expect_wildcard(&models[_i], "udp://0.0.0.0:0", hosts);
	expect_wildcard(&models[_i], "udp://127.0.0.4:0",
			(const char *const[]){ "127.0.0.4", NULL });
}
END_TEST

#ifdef SS_LINUX
/* The kernel as it is where the way back goes by another interface. */
static ssize_t routing_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	const struct cmsghdr *from = CMSG_FIRSTHDR(msg);
	struct in_pktinfo info = { .ipi_ifindex = 0 };
	if (from && from->cmsg_type == IP_PKTINFO)
		memcpy(&info, CMSG_DATA(from), sizeof(info));
	if (!info.ipi_ifindex)
		return sendmsg(fd, msg, flags);
	errno = ENETUNREACH;
	return -1;
}

START_TEST(replies_leave_by_any_interface)
{
	static const char *const hosts[] = { "127.0.0.1", NULL };
	sys_table.sendmsg = routing_sendmsg;
	expect_wildcard(&models[0], "udp://0.0.0.0:0", hosts);
}
END_TEST
#endif

START_TEST(replies_leave_from_the_address_asked_ipv6)
{
	static const char *const hosts[] = { "[::1]", "127.0.0.1", "127.0.0.2",
					     NULL };
	if (!have_ipv6())
		return;
	expect_wildcard(&models[_i], "udp://[::]:0", hosts);
	expect_wildcard(&models[_i], "udp://:0", hosts);
}
END_TEST

#ifdef SS_LINUX
/* As if it had been sent to all nodes of the link. */
static int multicast_recv(int fd, struct sys_packet *packets, int count)
{
	int n = real.recv_packets(fd, packets, count);
	for (int i = 0; i < n; i++) {
		struct cmsghdr *to = CMSG_FIRSTHDR(&packets[i].msg);
		struct in6_pktinfo info;
		if (!to || to->cmsg_type != IPV6_PKTINFO)
			continue;
		memcpy(&info, CMSG_DATA(to), sizeof(info));
		inet_pton(AF_INET6, "ff02::1", &info.ipi6_addr);
		memcpy(CMSG_DATA(to), &info, sizeof(info));
	}
	return n;
}

/* From an address of the interface that it came by. */
START_TEST(replies_leave_from_no_multicast_address)
{
	struct ss_config config = config_of(&models[0], udp, &obedient);
	struct node node;
	if (!have_ipv6() || exposed())
		return;
	config.addresses[0] = "udp://[::]:0";
	sys_table.recv_packets = multicast_recv;
	node_start(&node, &config);
	int fd = dial(node.url);
	demand(fd, "flush now", "now");
	expect_packet(fd, "later");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST
#endif

START_TEST(peers_are_told_as_they_are)
{
	char name[SS_ADDRESS_TEXT];
	struct ss_address own = { .len = sizeof(own.u) };
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &obedient);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	ck_assert_int_eq(getsockname(fd, &own.u.sa, &own.len), 0);
	demand(fd, "peer", ss_address_format(&own, name, sizeof(name)));
	if (transport_of(_i) == unixgram)
		demand(fd, "local", strchr(node.url, ':') + 1);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- loops and thieves ----------------------------------------------------*/

static bool by_its_own_name;

/* One that is not the address by which the kernel would speak to itself, or
 * just that one. */
static void name_it(struct ss_address *wildcard)
{
	if (by_its_own_name) {
		wildcard->u.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return;
	}
	struct sockaddr_in6 *in6 = &wildcard->u.in6;
	if (wildcard->u.sa.sa_family == AF_INET &&
	    wildcard->u.in.sin_addr.s_addr == htonl(INADDR_ANY))
		wildcard->u.in.sin_addr.s_addr = htonl(0x7f000002);
	if (wildcard->u.sa.sa_family == AF_INET6 &&
	    IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr))
		inet_pton(AF_INET6, "::ffff:127.0.0.2", &in6->sin6_addr);
}

/* A handler that speaks to its own server would never end it.  It answers with
 * the last of the server's addresses. */
static int speak_to_self(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	struct ss_address own;
	char packet[16] = "", url[SS_ADDRESS_TEXT];
	ss_read(req, packet, sizeof(packet) - 1);
	tape_note(tape, "%s", packet);
	if (!strcmp(packet, "end"))
		return answer(req, "ended");
	for (int i = 0; i < ss_server_listeners(server); i++) {
		ss_server_address(server, i, &own);
		name_it(&own);
		ss_send_to(req, "self", 4, &own);
	}
	int last = ss_server_listeners(server) - 1;
	return answer(req, ss_server_url(server, last, url, sizeof(url)));
}

static const struct ss_handler to_self = { .name = "self",
					   .handle = speak_to_self };

/* Neither from the first of its addresses nor from the last. */
static void expect_no_loop(const struct ss_config *config)
{
	struct node node;
	node_start(&node, config);
	char last[SS_ADDRESS_TEXT] = "";
	int fd = dial(node.url);
	tell(fd, "begin");
	ck_assert_int_gt(recv_within(fd, last, sizeof(last) - 1, WAIT_MS), 0);
	int other = dial(last);
	demand(other, "begin", last);
	demand(other, "end", "ended");
	demand(fd, "end", "ended");
	close(other);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&tape->count), 4);
}

START_TEST(packets_from_our_own_address_are_dropped)
{
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &to_self);
	expect_no_loop(&config);
}
END_TEST

START_TEST(packets_from_our_other_addresses_are_dropped)
{
	struct ss_config config = config_of(&models[_i], udp, &to_self);
	config.addresses[0] = "udp://127.0.0.1:0";
	config.addresses[1] = "udp://127.0.0.2:0";
	expect_no_loop(&config);
}
END_TEST

START_TEST(packets_from_our_own_wildcard_are_dropped)
{
	bool ipv6 = _i % 2;
	if ((ipv6 && !have_ipv6()) || exposed())
		return;
	struct ss_config config = config_of(&models[_i / 2], udp, &to_self);
	config.addresses[0] = ipv6 ? "udp://[::]:0" : "udp://0.0.0.0:0";
	expect_no_loop(&config);
}
END_TEST

#ifdef SS_LINUX
/* As it is for an address of another interface. */
static int recv_by_another(int fd, struct sys_packet *packets, int count)
{
	int n = real.recv_packets(fd, packets, count);
	for (int i = 0; i < n; i++) {
		struct cmsghdr *to = CMSG_FIRSTHDR(&packets[i].msg);
		struct in_pktinfo info;
		if (!to || to->cmsg_type != IP_PKTINFO)
			continue;
		memcpy(&info, CMSG_DATA(to), sizeof(info));
		info.ipi_ifindex = 2;
		memcpy(CMSG_DATA(to), &info, sizeof(info));
	}
	return n;
}

START_TEST(packets_from_and_to_an_address_are_dropped)
{
	struct ss_config config = config_of(&models[0], udp, &to_self);
	if (exposed())
		return;
	by_its_own_name = true;
	config.addresses[0] = "udp://0.0.0.0:0";
	sys_table.recv_packets = recv_by_another;
	expect_no_loop(&config);
}
END_TEST
#endif

/* The same port of another host is a peer like any other. */
START_TEST(packets_from_the_same_port_elsewhere_are_served)
{
	struct ss_config config = config_of(&models[0], udp, &echoing);
	struct node node;
	node_start(&node, &config);
	struct ss_endpoint to;
	ck_assert_int_eq(ss_resolve(node.url, SS_SCHEME_ANY, &to, 1, NULL), 1);
	struct ss_endpoint from = to;
	from.address.u.in.sin_addr.s_addr = htonl(0x7f000009);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &from.address.u.sa, from.address.len), 0);
	ck_assert_int_eq(connect(fd, &to.address.u.sa, to.address.len), 0);
	send_text(fd, "hello");
	expect_packet(fd, "hello");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(a_second_server_cannot_take_the_port)
{
	struct ss_config config =
		config_of(&models[0], transport_of(_i), &echoing);
	struct node node;
	char url[SS_ADDRESS_TEXT];
	node_start(&node, &config);
	snprintf(url, sizeof(url), "%s", node.url);
	config.addresses[0] = url;
	refused(&config, -EADDRINUSE,
		_i ? "another server lives there" : "Address already in use");
	int fd = dial(node.url);
	demand(fd, "still mine", "still mine");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- lost clients ---------------------------------------------------------*/

/* Inherited by the server: so many of its next calls fail. */
static struct {
	atomic_int left, error;
} * fault;

static bool fails(void)
{
	if (atomic_load(&fault->left) <= 0)
		return false;
	atomic_fetch_sub(&fault->left, 1);
	errno = atomic_load(&fault->error);
	return true;
}

static int failing_recv_packets(int fd, struct sys_packet *packets, int n)
{
	return fails() ? -1 : real.recv_packets(fd, packets, n);
}

static ssize_t failing_sendto(int fd, const void *buf, size_t n, int flags,
			      const struct sockaddr *sa, socklen_t len)
{
	return fails() ? -1 : real.sendto(fd, buf, n, flags, sa, len);
}

static ssize_t failing_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return fails() ? -1 : real.sendmsg(fd, msg, flags);
}

static void arm(int error, int times)
{
	atomic_store(&fault->error, error);
	atomic_store(&fault->left, times);
}

static const int icmp[] = { ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN,
			    EMSGSIZE,	  EPROTO,	ECONNRESET };

/* The next packet is served, as soon as ever. */
static void disturb(int fd, int error)
{
	arm(error, 50);
	int64_t from = clock_ms();
	demand(fd, "hello", "hello");
	ck_assert_int_lt(clock_ms() - from, SOON_MS);
	ck_assert_int_eq(atomic_load(&fault->left), 0);
}

START_TEST(errors_of_lost_clients_stop_nothing)
{
	fault = ss_shared_alloc(sizeof(*fault));
	sys_table.recv_packets = failing_recv_packets;
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &echoing);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	for (size_t i = 0; i < sizeof(icmp) / sizeof(*icmp); i++)
		disturb(fd, icmp[i]);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* One reply is lost, and the handler hears of it; the next one is not. */
START_TEST(errors_of_replies_cost_one_reply)
{
	fault = ss_shared_alloc(sizeof(*fault));
	sys_table.sendto = failing_sendto;
	sys_table.sendmsg = failing_sendmsg;
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &obedient);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	for (size_t i = 0; i < sizeof(icmp) / sizeof(*icmp); i++) {
		arm(icmp[i], 1);
		tell(fd, "result lost");
		tape_wait(tape, (int)(2 * i) + 1);
		ck_assert_int_eq(strtol(tape->line[2 * i].text, NULL, 10),
				 -icmp[i]);
		demand(fd, "result kept", "kept");
		tape_wait(tape, (int)(2 * i) + 2);
		ck_assert_str_eq(tape->line[2 * i + 1].text, "0");
	}
	arm(EINTR, 3);
	demand(fd, "result again", "again");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* Gone before the reply: the kernel answers with an ICMP error (udp(7)), for
 * a Unix socket with one of its own.  The client that stays was there before,
 * for its port not to be that of one who vanished. */
START_TEST(clients_that_vanish_stop_nothing)
{
	struct ss_config config =
		config_of(model_of(_i), transport_of(_i), &echoing);
	struct node node;
	node_start(&node, &config);
	int stays = dial(node.url);
	for (int i = 0; i < 50; i++) {
		int fd = dial(node.url);
		send_text(fd, "hello");
		close(fd);
		if (i % 10 == 9) {
			send_text(stays, "still here");
			expect_text(stays, "still here");
		}
	}
	close(stays);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* A client without a name cannot be answered, and nobody minds. */
START_TEST(clients_without_a_name_are_served_unanswered)
{
	struct ss_config config = config_of(&models[_i], unixgram, &obedient);
	struct node node;
	node_start(&node, &config);
	struct ss_endpoint to;
	ck_assert_int_eq(ss_resolve(node.url, SS_SCHEME_ANY, &to, 1, NULL), 1);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd, &to.address.u.sa, to.address.len), 0);
	tell(fd, "peer");
	tell(fd, "result none");
	tape_wait(tape, 1);
	ck_assert_int_eq(strtol(tape->line[0].text, NULL, 10), -ENOTCONN);
	close(fd);
	int named = dial(node.url);
	demand(named, "result one", "one");
	close(named);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static int queue_length(void)
{
	char text[16] = "";
	int fd =
		open("/proc/sys/net/unix/max_dgram_qlen", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return (int)strtol(text, NULL, 10);
}

/*
 * A client that never reads has its queue filled: the replies to it wait,
 * those to others do not, and after a second it is given up.  It is connected
 * to nobody, since a connected one has no such bound in Linux.
 */
START_TEST(clients_that_never_read_keep_nobody_waiting)
{
	enum { BEYOND = 4 };
	int most = queue_length() + 1;
	if (most > 200)
		return;
	struct ss_config config = config_of(&models[1], unixgram, &obedient);
	struct served served;
	char url[SS_ADDRESS_TEXT];
	struct ss_endpoint to;
	slow_clock_install();
	served_start(&served, &config);
	ck_assert_int_eq(ss_resolve(served.url, SS_SCHEME_ANY, &to, 1, NULL),
			 1);
	int silent = bystander(unixgram, url);
	for (int i = 0; i < most + BEYOND; i++)
		ck_assert_int_eq(sendto(silent, "result x", 8, 0,
					&to.address.u.sa, to.address.len),
				 8);
	tape_wait(tape, most);
	slow_clock_begin();
	for (int i = 0; i < 20; i++) {
		int fd = dial(served.url);
		demand(fd, "local", strchr(served.url, ':') + 1);
		close(fd);
	}
	slow_clock_end();
	tape_wait(tape, most + BEYOND);
	for (int i = 0; i < most + BEYOND; i++)
		ck_assert_int_eq(strtol(tape->line[i].text, NULL, 10),
				 i < most ? 0 : -ENOBUFS);
	close(silent);
	served_stop(&served);
}
END_TEST

static atomic_int *full; /* so often the socket takes nothing */

static ssize_t full_sendto(int fd, const void *buf, size_t n, int flags,
			   const struct sockaddr *to, socklen_t len)
{
	if (atomic_fetch_sub(full, 1) <= 0)
		return real.sendto(fd, buf, n, flags, to, len);
	errno = EAGAIN;
	return -1;
}

/* Between two looks of a handler that sends it may have become empty. */
static int send_three(struct ss_request *req)
{
	for (int i = 1; i <= 3; i++) {
		char text[2] = { (char)('0' + i) };
		ssize_t n = ss_send_to(req, text, 1, NULL);
		if (n < 0)
			return (int)n;
		atomic_store(full, i);
	}
	return 0;
}

static const struct ss_handler three = { .name = "three",
					 .handle = send_three };

START_TEST(a_full_socket_is_waited_for)
{
	struct ss_config config = config_of(&models[_i], udp, &three);
	struct node node;
	full = ss_shared_alloc(sizeof(*full));
	ck_assert_ptr_nonnull(full);
	sys_table.sendto = full_sendto;
	node_start(&node, &config);
	int fd = dial(node.url);
	send_text(fd, "x");
	expect_packet(fd, "1");
	expect_packet(fd, "2");
	expect_packet(fd, "3");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* One that reads after a while gets what waited for it. */
START_TEST(clients_that_read_late_get_what_waited)
{
	int most = queue_length() + 1;
	if (most > 200)
		return;
	struct ss_config config = config_of(&models[1], unixgram, &obedient);
	struct served served;
	char url[SS_ADDRESS_TEXT];
	struct ss_endpoint to;
	served_start(&served, &config);
	ck_assert_int_eq(ss_resolve(served.url, SS_SCHEME_ANY, &to, 1, NULL),
			 1);
	int late = bystander(unixgram, url);
	for (int i = 0; i < most + 1; i++)
		ck_assert_int_eq(sendto(late, "result x", 8, 0,
					&to.address.u.sa, to.address.len),
				 8);
	tape_wait(tape, most);
	for (int i = 0; i < most + 1; i++)
		expect_packet(late, "x");
	tape_wait(tape, most + 1);
	for (int i = 0; i < most + 1; i++)
		ck_assert_str_eq(tape->line[i].text, "0");
	close(late);
	served_stop(&served);
}
END_TEST

/* ---- several at a time ----------------------------------------------------*/

enum { AT_ONCE = 40 };

/* Of this process's server. */
static struct {
	int receives, most_received, sends, most_sent;
	int left;  /* of the next sends, what the kernel takes; -1: all */
	int error; /* what it says then */
} calls;

static int counting_recv_packets(int fd, struct sys_packet *packets, int n)
{
	int r = real.recv_packets(fd, packets, n);
	calls.receives++;
	if (r > calls.most_received)
		calls.most_received = r;
	return r;
}

static int counting_send_packets(int fd, struct sys_packet *packets, int n)
{
	calls.sends++;
	if (!calls.left) {
		errno = calls.error;
		return -1;
	}
	if (calls.left > 0 && n > calls.left)
		n = calls.left;
	int r = real.send_packets(fd, packets, n);
	if (r > 0 && calls.left > 0)
		calls.left -= r;
	if (r > calls.most_sent)
		calls.most_sent = r;
	return r;
}

static void count_calls(int left, int error)
{
	memset(&calls, 0, sizeof(calls));
	calls.left = left;
	calls.error = error;
	sys_table.recv_packets = counting_recv_packets;
	sys_table.send_packets = counting_send_packets;
}

/* So many packets wait before the server first looks. */
static int send_ahead(struct ss_server *server, const char *url)
{
	int fd = dial(url);
	for (int i = 0; i < AT_ONCE; i++) {
		char text[16];
		snprintf(text, sizeof(text), "%d", i);
		send_text(fd, text);
	}
	await_client(server);
	return fd;
}

static void expect_all(int fd)
{
	bool came[AT_ONCE] = { false };
	for (int i = 0; i < AT_ONCE; i++) {
		char text[16];
		ssize_t n = recv_within(fd, text, sizeof(text) - 1, 5000);
		ck_assert_int_gt(n, 0);
		text[n] = '\0';
		int number = (int)strtol(text, NULL, 10);
		ck_assert(!came[number]);
		came[number] = true;
	}
	expect_end(fd);
}

static struct ss_server *bound(const struct ss_config *config, char *url)
{
	struct ss_server *server = made(config);
	ck_assert_ptr_nonnull(ss_server_url(server, 0, url, SS_ADDRESS_TEXT));
	return server;
}

static void turn_until(struct ss_server *server, unsigned long long ended)
{
	struct ss_stats stats;
	int64_t give_up = clock_ms() + 5000;
	do {
		ck_assert_int_lt(clock_ms(), give_up);
		ck_assert_int_ge(ss_server_turn(server, clock_ms() + 100), 0);
		ss_server_stats(server, &stats);
	} while (stats.ended < ended);
}

static void close_and_free(struct ss_server *server)
{
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}

static const struct ss_fiber_options one_loop = { .loops = 1 };

static struct ss_config fibers(void)
{
	struct ss_config config = config_of(&models[0], udp, &echoing);
	config.mixins[0] = (struct ss_use){ &ss_fiber_mixin, &one_loop };
	return config;
}

START_TEST(fibers_take_and_answer_many_at_once)
{
	/* They see each reply alone. */
	stack_without(&ss_record_mixin);
	stack_without(&ss_trace_mixin);
	struct ss_config config = fibers();
	char url[SS_ADDRESS_TEXT];
	count_calls(-1, 0);
	struct ss_server *server = bound(&config, url);
	int fd = send_ahead(server, url);
	turn_until(server, AT_ONCE);
	expect_all(fd);
#ifdef SS_LINUX
	ck_assert_int_gt(calls.most_received, 8);
	ck_assert_int_gt(calls.most_sent, 8);
	ck_assert_int_lt(calls.receives, AT_ONCE / 2);
	ck_assert_int_lt(calls.sends, AT_ONCE / 2);
#endif
	close(fd);
	close_and_free(server);
}
END_TEST

/* Wherever in the row it happens, the others are sent all the same. */
START_TEST(replies_that_cannot_leave_together_leave_alone)
{
	static const int errors[] = { EAGAIN, ECONNREFUSED, EPERM, ENOBUFS,
				      EINTR };
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		struct ss_config config = fibers();
		char url[SS_ADDRESS_TEXT];
		count_calls(_i, errors[i]);
		struct ss_server *server = bound(&config, url);
		int fd = send_ahead(server, url);
		turn_until(server, AT_ONCE);
		expect_all(fd);
		close(fd);
		close_and_free(server);
	}
}
END_TEST

/* What was read ahead waits for the gate as what was not, and is served when
 * nobody sends any more. */
static int note_and_hold(struct ss_request *req)
{
	ss_hold(ss_request_server(req), SS_HOLD_USER);
	return note(req);
}

static const struct ss_handler holding = { .name = "hold",
					   .handle = note_and_hold };

START_TEST(packets_read_ahead_wait_for_the_gate)
{
	struct ss_config config = config_of(&models[0], udp, &holding);
	char url[SS_ADDRESS_TEXT];
	struct ss_server *server = bound(&config, url);
	int fd = send_ahead(server, url);
	for (int i = 0; i < AT_ONCE; i++) {
		ss_release(server, SS_HOLD_USER);
		turn_until(server, (unsigned)i + 1);
		ck_assert_int_eq(ss_server_turn(server, 0), 0);
		ck_assert_int_eq(atomic_load(&tape->count), i + 1);
	}
	close(fd);
	close_and_free(server);
}
END_TEST

START_TEST(packets_that_came_behind_the_gate_are_served)
{
	struct ss_config config = config_of(&models[0], udp, &echoing);
	char url[SS_ADDRESS_TEXT];
	struct ss_server *server = bound(&config, url);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ss_hold(server, SS_HOLD_USER);
	int fd = send_ahead(server, url);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ss_release(server, SS_HOLD_USER);
	turn_until(server, AT_ONCE);
	expect_all(fd);
	close(fd);
	close_and_free(server);
}
END_TEST

static int note_and_stop(struct ss_request *req)
{
	if (!atomic_load(&tape->count))
		ss_shutdown(ss_request_server(req));
	return note(req);
}

static const struct ss_handler stopping = { .name = "stop",
					    .handle = note_and_stop };

START_TEST(packets_read_ahead_are_served_by_a_closing_server)
{
	struct ss_config config = config_of(&models[0], udp, &stopping);
	char url[SS_ADDRESS_TEXT];
	struct ss_server *server = bound(&config, url);
	int fd = send_ahead(server, url);
	ck_assert_int_eq(ss_serve_forever(server), 0);
	ck_assert_int_eq(atomic_load(&tape->count), 1);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(atomic_load(&tape->count), AT_ONCE);
	ck_assert_int_eq(ss_server_free(server), 0);
	close(fd);
}
END_TEST

/* Each listener's packets are answered by itself. */
START_TEST(listeners_are_read_in_turn)
{
	struct ss_config config = config_of(&models[0], udp, &obedient);
	config.addresses[0] = "udp://127.0.0.1:0";
	config.addresses[1] = "udp://127.0.0.1:0";
	struct served served;
	char other[SS_ADDRESS_TEXT];
	served_start(&served, &config);
	ss_server_url(served.server, 1, other, sizeof(other));
	int fds[] = { dial(served.url), dial(other) };
	for (int i = 0; i < AT_ONCE; i++)
		for (int k = 0; k < 2; k++)
			tell(fds[k], "local");
	for (int i = 0; i < AT_ONCE; i++) {
		expect_packet(fds[0], strchr(served.url, '/') + 2);
		expect_packet(fds[1], strchr(other, '/') + 2);
	}
	close(fds[0]);
	close(fds[1]);
	served_stop(&served);
}
END_TEST

/* A socket that others have too: what is read there is theirs no more. */
START_TEST(adopted_sockets_are_read_one_by_one)
{
	int own = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	ck_assert_int_eq(bind(own, (struct sockaddr *)&in, sizeof(in)), 0);
	char address[32], url[SS_ADDRESS_TEXT];
	snprintf(address, sizeof(address), "fd:%d", own);
	struct ss_config config = config_of(&models[0], udp, &echoing);
	config.addresses[0] = address;
	count_calls(-1, 0);
	struct ss_server *server = bound(&config, url);
	int fd = send_ahead(server, url);
	turn_until(server, AT_ONCE);
	ck_assert_int_eq(calls.most_received, 1);
	expect_all(fd);
	close(fd);
	close_and_free(server);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_arriving(Suite *suite)
{
	TCase *tcase = suite_case(suite, "arriving", set_up, tear_down);
	int all = BOTH * model_count;
	tcase_add_loop_test(tcase, packets_of_every_size_come_back_whole, 0,
			    all);
	tcase_add_loop_test(tcase, packets_that_are_cut_say_so, 0, all);
	tcase_add_loop_test(tcase, packets_end_like_streams, 0, all);
	tcase_add_loop_test(tcase, packets_keep_their_order_under_sync, 0,
			    BOTH);
}

static void add_replies(Suite *suite)
{
	TCase *tcase = suite_case(suite, "replies", set_up, tear_down);
	int all = BOTH * model_count;
	tcase_add_loop_test(tcase,
			    replies_are_sent_only_when_something_was_written, 0,
			    BOTH);
	tcase_add_loop_test(tcase, replies_fit_into_one_packet_or_are_refused,
			    0, all);
	tcase_add_loop_test(tcase, packets_may_go_to_another_address, 0, all);
	tcase_add_loop_test(tcase, replies_may_be_written_in_pieces, 0, BOTH);
	tcase_add_test(tcase, packets_that_are_sent_at_once_wait_for_room);
	tcase_add_loop_test(tcase, packets_go_through_channels, 0, all);
	tcase_add_loop_test(tcase, replies_leave_from_the_address_asked, 0,
			    model_count);
#ifdef SS_LINUX
	tcase_add_test(tcase, replies_leave_by_any_interface);
	tcase_add_test(tcase, replies_leave_from_no_multicast_address);
#endif
	tcase_add_loop_test(tcase, replies_leave_from_the_address_asked_ipv6, 0,
			    model_count);
	tcase_add_loop_test(tcase, peers_are_told_as_they_are, 0, all);
}

static void add_loops(Suite *suite)
{
	TCase *tcase = suite_case(suite, "loops", set_up, tear_down);
	tcase_add_loop_test(tcase, packets_from_our_own_address_are_dropped, 0,
			    BOTH * model_count);
	tcase_add_loop_test(tcase, packets_from_our_other_addresses_are_dropped,
			    0, model_count);
	tcase_add_loop_test(tcase, packets_from_our_own_wildcard_are_dropped, 0,
			    2 * model_count);
#ifdef SS_LINUX
	tcase_add_test(tcase, packets_from_and_to_an_address_are_dropped);
#endif
	tcase_add_test(tcase, packets_from_the_same_port_elsewhere_are_served);
	tcase_add_loop_test(tcase, a_second_server_cannot_take_the_port, 0,
			    BOTH);
}

static void add_lost(Suite *suite)
{
	TCase *tcase = suite_case(suite, "lost", set_up, tear_down);
	int all = BOTH * model_count;
	tcase_add_loop_test(tcase, errors_of_lost_clients_stop_nothing, 0, all);
	tcase_add_loop_test(tcase, errors_of_replies_cost_one_reply, 0, all);
	tcase_add_loop_test(tcase, clients_that_vanish_stop_nothing, 0, all);
	tcase_add_loop_test(tcase, clients_without_a_name_are_served_unanswered,
			    0, model_count);
	tcase_add_loop_test(tcase, a_full_socket_is_waited_for, 0, model_count);
	tcase_add_test(tcase, clients_that_never_read_keep_nobody_waiting);
	tcase_add_test(tcase, clients_that_read_late_get_what_waited);
}

static void add_several(Suite *suite)
{
	TCase *tcase = suite_case(suite, "several", set_up, tear_down);
	tcase_add_test(tcase, fibers_take_and_answer_many_at_once);
	tcase_add_loop_test(
		tcase, replies_that_cannot_leave_together_leave_alone, 0, 18);
	tcase_add_test(tcase, packets_read_ahead_wait_for_the_gate);
	tcase_add_test(tcase, packets_that_came_behind_the_gate_are_served);
	tcase_add_test(tcase,
		       packets_read_ahead_are_served_by_a_closing_server);
	tcase_add_test(tcase, listeners_are_read_in_turn);
	tcase_add_test(tcase, adopted_sockets_are_read_one_by_one);
}

Suite *t_udp(void)
{
	Suite *suite = suite_create("t_udp");
	add_arriving(suite);
	add_replies(suite);
	add_loops(suite);
	add_lost(suite);
	add_several(suite);
	return suite;
}
