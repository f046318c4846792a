/*
 * Listeners: which sockets are opened or adopted, with which options, and that
 * a server which cannot be made leaves nothing behind (PROMISES 17, rule 1).
 */
#include "faults.h"
#include "handlers.h"
#include "support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct sys_table real;
static struct tape *tape;

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

/* Who asks, and where: "127.0.0.1:5 127.0.0.1:80\n". */
static int tell_addresses(struct ss_request *req)
{
	struct ss_address local;
	char here[SS_ADDRESS_TEXT], peer[SS_ADDRESS_TEXT];
	int r = ss_request_local(req, &local);
	if (r < 0)
		return r;
	ss_printf(req, "%s %s\n", ss_peer_name(req, peer, sizeof(peer)),
		  ss_address_format(&local, here, sizeof(here)));
	return 0;
}

static const struct ss_handler telling = { .name = "tell",
					   .handle = tell_addresses };

static struct ss_config telling_at(const char *address)
{
	return (struct ss_config){ .addresses = { address },
				   .handler = &telling };
}

/* The same address as the kernel has it on this side. */
static void own_name(int fd, char *text, bool peer)
{
	struct ss_address address = { .len = sizeof(address.u) };
	int r = peer ? getpeername(fd, &address.u.sa, &address.len)
		     : getsockname(fd, &address.u.sa, &address.len);
	ck_assert_int_eq(r, 0);
	ss_address_format(&address, text, SS_ADDRESS_TEXT);
}

/* Connects, and is told the two addresses as the client knows them. */
static void expect_served(const char *url)
{
	char here[SS_ADDRESS_TEXT], there[SS_ADDRESS_TEXT];
	char line[2 * SS_ADDRESS_TEXT + 3];
	int fd = dial(url);
	own_name(fd, here, false);
	own_name(fd, there, true);
	snprintf(line, sizeof(line), "%s %s\n", here, there);
	expect_text(fd, line);
	expect_end(fd);
	close(fd);
}

/* The port of `url` at another host. */
static const char *at_host(const char *url, const char *host)
{
	static char text[SS_ADDRESS_TEXT];
	snprintf(text, sizeof(text), "tcp://%s%s", host, strrchr(url, ':'));
	return text;
}

static bool have_ipv6(void)
{
	struct sockaddr_in6 loopback = { .sin6_family = AF_INET6,
					 .sin6_addr = in6addr_loopback };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool can = fd >= 0 && bind(fd, (struct sockaddr *)&loopback,
				   sizeof(loopback)) == 0;
	if (fd >= 0)
		close(fd);
	return can;
}

static int get_option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);
	ck_assert_int_eq(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static int listener_option(struct ss_server *server, int level, int name)
{
	int fd = ss_server_fileno(server, 0);
	ck_assert_int_ge(fd, 0);
	return get_option(fd, level, name);
}

static void expect_free(struct ss_server *server)
{
	ck_assert_int_eq(ss_server_free(server), 0);
}

/* ---- several addresses ----------------------------------------------------*/

START_TEST(listeners_are_told_with_their_real_addresses)
{
	struct ss_config config = telling_at("127.0.0.1:0");
	config.addresses[1] = "tcp://127.0.0.2:0";
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT], name[SS_ADDRESS_TEXT];
	ck_assert_int_eq(ss_server_listeners(server), 2);
	ck_assert_int_eq(ss_server_socket_type(server), SOCK_STREAM);
	for (int i = 0; i < 2; i++) {
		struct ss_address address;
		int fd = ss_server_fileno(server, i);
		ck_assert_int_eq(ss_server_address(server, i, &address), 0);
		ck_assert_int_gt(ss_address_port(&address), 0);
		own_name(fd, name, false);
		ck_assert_ptr_eq(ss_server_url(server, i, url, sizeof(url)),
				 url);
		ck_assert_str_eq(url + strlen("tcp://"), name);
		ck_assert_int_eq(get_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
	}
	struct ss_address none;
	for (int i = -1; i <= 2; i += 3) {
		ck_assert_int_eq(ss_server_fileno(server, i), -EINVAL);
		ck_assert_int_eq(ss_server_address(server, i, &none), -EINVAL);
		ck_assert_ptr_null(ss_server_url(server, i, url, sizeof(url)));
	}
	expect_free(server);
}
END_TEST

START_TEST(names_with_several_addresses_bind_them_all)
{
	static const char *const all[] = { "127.0.0.1", "127.0.0.2",
					   "127.0.0.3", NULL };
	sys_table.getaddrinfo = several_getaddrinfo;
	several_addresses = all;
	struct ss_config config = telling_at("several.test:0");
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_listeners(server), 3);
	for (int i = 0; i < 3; i++) {
		struct ss_address address;
		char host[SS_ADDRESS_TEXT];
		ss_server_address(server, i, &address);
		ck_assert_str_eq(ss_address_host(&address, host, sizeof(host)),
				 all[i]);
	}
	expect_free(server);
}
END_TEST

/* Some of them alone would be others than were meant. */
START_TEST(names_with_too_many_addresses_are_refused)
{
	enum { MANY = 33 };
	static char text[MANY][24];
	static const char *all[MANY + 1];
	for (int i = 0; i < MANY; i++) {
		snprintf(text[i], sizeof(*text), "127.0.1.%d", i + 1);
		all[i] = text[i];
	}
	sys_table.getaddrinfo = several_getaddrinfo;
	several_addresses = all;
	struct ss_config config = telling_at("several.test:0");
	refused(&config, -E2BIG, "several.test:0: more than 32 addresses");
	all[MANY - 1] = NULL;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_listeners(server), MANY - 1);
	expect_free(server);
}
END_TEST

static int foreign_bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	if (!elsewhere(sa))
		return real.bind(fd, sa, len);
	errno = EADDRNOTAVAIL;
	return -1;
}

START_TEST(names_with_foreign_addresses_bind_the_others)
{
	static const char *const some[] = { "127.0.0.66", "127.0.0.2", NULL };
	static const char *const none[] = { "127.0.0.66", "127.0.0.67", NULL };
	sys_table.getaddrinfo = several_getaddrinfo;
	sys_table.bind = foreign_bind;
	several_addresses = some;
	struct ss_config config = telling_at("several.test:0");
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_listeners(server), 1);
	expect_free(server);
	several_addresses = none;
	refused(&config, -EADDRNOTAVAIL, "127.0.0.67");
	config = telling_at("127.0.0.66:0");
	refused(&config, -EADDRNOTAVAIL,
		"tcp://127.0.0.66:0: bind: Cannot assign requested address");
}
END_TEST

/* ---- both families --------------------------------------------------------*/

static const char *const wildcards[] = { ":0", "[::]:0", "tcp://:0",
					 "tcp://[::]:0" };
enum { WILDCARDS = sizeof(wildcards) / sizeof(*wildcards) };

START_TEST(wildcards_take_both_families)
{
	if (!have_ipv6())
		return;
	struct ss_config config = telling_at(wildcards[_i]);
	struct served served;
	served_start(&served, &config);
	ck_assert_int_eq(ss_server_listeners(served.server), 1);
	expect_served(at_host(served.url, "[::1]"));
	expect_served(at_host(served.url, "127.0.0.1"));
	expect_served(at_host(served.url, "127.0.0.5"));
	served_stop(&served);
}
END_TEST

START_TEST(wildcards_take_ipv6_only_if_told)
{
	static const struct ss_socket_options options = { .ipv6_only = true };
	if (!have_ipv6())
		return;
	struct ss_config config = telling_at(wildcards[_i]);
	config.transport_options = &options;
	struct served served;
	served_start(&served, &config);
	expect_served(at_host(served.url, "[::1]"));
	ck_assert_int_eq(try_dial(at_host(served.url, "127.0.0.1")),
			 -ECONNREFUSED);
	served_stop(&served);
}
END_TEST

START_TEST(wildcards_of_ipv4_take_ipv4_only)
{
	struct ss_config config = telling_at("0.0.0.0:0");
	struct served served;
	served_start(&served, &config);
	expect_served(at_host(served.url, "127.0.0.1"));
	expect_served(at_host(served.url, "127.0.0.5"));
	if (have_ipv6())
		ck_assert_int_eq(try_dial(at_host(served.url, "[::1]")),
				 -ECONNREFUSED);
	served_stop(&served);
}
END_TEST

START_TEST(addresses_of_ipv6_take_ipv6_only)
{
	if (!have_ipv6())
		return;
	struct ss_config config = telling_at("[::1]:0");
	struct served served;
	served_start(&served, &config);
	expect_served(served.url);
	ck_assert_int_eq(
		listener_option(served.server, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	served_stop(&served);
}
END_TEST

static int no_ipv6_socket(int family, int type, int protocol)
{
	if (family != AF_INET6)
		return real.socket(family, type, protocol);
	errno = EAFNOSUPPORT;
	return -1;
}

START_TEST(wildcards_fall_back_to_ipv4)
{
	sys_table.socket = no_ipv6_socket;
	struct ss_config config = telling_at(wildcards[_i]);
	struct served served;
	served_start(&served, &config);
	ck_assert_int_eq(ss_server_listeners(served.server), 1);
	expect_served(at_host(served.url, "127.0.0.1"));
	served_stop(&served);
	config = telling_at("[::1]:0");
	refused(&config, -EAFNOSUPPORT, "tcp://[::1]:0: socket: ");
}
END_TEST

/* ---- adopting -------------------------------------------------------------*/

static const char *name_fd(int fd)
{
	static char text[16];
	snprintf(text, sizeof(text), "fd:%d", fd);
	return text;
}

/* Bound to loopback, or to a path for AF_UNIX. */
static int bound(int family, int type)
{
	static int number;
	struct ss_address at = { .len = sizeof(struct sockaddr_in) };
	at.u.in.sin_family = AF_INET;
	at.u.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (family == AF_UNIX) {
		at.len = sizeof(at.u.un);
		at.u.un.sun_family = AF_UNIX;
		snprintf(at.u.un.sun_path, sizeof(at.u.un.sun_path), "%s/a%d",
			 scratch(), number++);
	}
	int fd = socket(family, type, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, &at.u.sa, at.len), 0);
	return fd;
}

static int listening(int family)
{
	int fd = bound(family, SOCK_STREAM);
	ck_assert_int_eq(listen(fd, 10), 0);
	return fd;
}

/* What the four transports adopt. */
static const struct {
	int family, type;
	const char *transport;
} kinds[] = {
	{ AF_INET, SOCK_STREAM, "tcp" },
	{ AF_INET, SOCK_DGRAM, "udp" },
	{ AF_UNIX, SOCK_STREAM, "unix" },
	{ AF_UNIX, SOCK_DGRAM, "unixgram" },
};
enum { KINDS = sizeof(kinds) / sizeof(*kinds) };

static int new_kind(int i)
{
	int fd = bound(kinds[i].family, kinds[i].type);
	if (kinds[i].type == SOCK_STREAM)
		ck_assert_int_eq(listen(fd, 10), 0);
	return fd;
}

/* A blocking one, whose flags are not ours to change; it closes with us. */
START_TEST(descriptors_are_adopted_as_they_are)
{
	int kind = _i % KINDS;
	bool nonblocking = _i / KINDS;
	int fd = new_kind(kind), watch = dup(fd);
	if (nonblocking)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	int flags = fcntl(fd, F_GETFL);
	struct ss_config config = { .addresses = { name_fd(fd) },
				    .handler = &ss_echo_handler,
				    .timeouts = { .io_ms = 5000 },
				    .mixins = {
					    { &ss_threading_mixin, NULL } } };
	struct served served;
	served_start(&served, &config);
	ck_assert_int_eq(ss_server_fileno(served.server, 0), fd);
	ck_assert_int_eq(ss_server_socket_type(served.server),
			 kinds[kind].type);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	for (int i = 0; i < 3; i++)
		echo_once(served.url, "hello");
	ck_assert_int_eq(fcntl(watch, F_GETFL), flags);
	struct timeval timeout = { .tv_sec = 1 };
	socklen_t len = sizeof(timeout);
	ck_assert_int_eq(
		getsockopt(watch, SOL_SOCKET, SO_RCVTIMEO, &timeout, &len), 0);
	ck_assert_int_eq(timeout.tv_sec, 0);
	int64_t from = clock_ms();
	served_stop(&served);
	ck_assert_int_lt(clock_ms() - from, SOON_MS);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	ck_assert_int_eq(fcntl(watch, F_GETFL), flags);
	close(watch);
}
END_TEST

/* Inetd's way. */
START_TEST(descriptor_0_is_adopted_and_stays)
{
	int fd = listening(AF_INET), out = dup(1);
	ck_assert_int_eq(dup2(fd, 0), 0);
	close(fd);
	close(1);
	struct ss_config config = telling_at("fd:0");
	struct served served;
	served_start(&served, &config);
	dup2(out, 1);
	close(out);
	int own = ss_server_fileno(served.server, 0);
	ck_assert_int_gt(own, 2);
	ck_assert(fcntl(own, F_GETFD) & FD_CLOEXEC);
	expect_served(served.url);
	served_stop(&served);
	ck_assert_int_eq(get_option(0, SOL_SOCKET, SO_ACCEPTCONN), 1);
}
END_TEST

static void refuse_fd(int fd, const struct ss_layer *transport,
		      const char *part)
{
	char address[16], text[64];
	snprintf(address, sizeof(address), "fd:%d", fd);
	snprintf(text, sizeof(text), "%s: %s", address, part);
	struct ss_config config = telling_at(address);
	config.transport = transport;
	refused(&config, -EINVAL, text);
}

START_TEST(descriptors_of_another_kind_are_refused)
{
	int pipes[2], tcp = listening(AF_INET), local = listening(AF_UNIX);
	int udp = bound(AF_INET, SOCK_DGRAM);
	int unixgram = bound(AF_UNIX, SOCK_DGRAM);
	int deaf = bound(AF_INET, SOCK_STREAM);
	int packets = bound(AF_UNIX, SOCK_SEQPACKET);
	ck_assert_int_eq(pipe(pipes), 0);
	refuse_fd(pipes[0], &ss_tcp_server, strerror(ENOTSOCK));
	refuse_fd(9999, &ss_tcp_server, strerror(EBADF));
	refuse_fd(pipes[0], NULL, "not a socket: ");
	refuse_fd(9999, NULL, "not a socket: ");
	refuse_fd(udp, &ss_tcp_server, "not a stream socket");
	refuse_fd(packets, &ss_unix_stream_server, "not a stream socket");
	refuse_fd(tcp, &ss_udp_server, "not a datagram socket");
	refuse_fd(local, &ss_unix_datagram_server, "not a datagram socket");
	refuse_fd(local, &ss_tcp_server, "a Unix socket");
	refuse_fd(unixgram, &ss_udp_server, "a Unix socket");
	refuse_fd(tcp, &ss_unix_stream_server, "not a Unix socket");
	refuse_fd(udp, &ss_unix_datagram_server, "not a Unix socket");
	refuse_fd(deaf, &ss_tcp_server, "not listening");
	/* They are still there. */
	ck_assert_int_eq(get_option(tcp, SOL_SOCKET, SO_ACCEPTCONN), 1);
	ck_assert_int_eq(get_option(deaf, SOL_SOCKET, SO_ACCEPTCONN), 0);
	ck_assert_int_ne(fcntl(pipes[0], F_GETFD), -1);
}
END_TEST

START_TEST(transports_are_found_by_the_address)
{
	static const struct {
		const char *address;
		const char *name; /* NULL: none */
	} table[] = {
		{ "tcp://127.0.0.1:1", "tcp" },
		{ "127.0.0.1:1", "tcp" },
		{ ":1", "tcp" },
		{ "udp://127.0.0.1:1", "udp" },
		{ "unix:/tmp/x", "unix" },
		{ "unix:@x", "unix" },
		{ "unixgram:/tmp/x", "unixgram" },
		{ "memory:x", "memory" },
		{ "nonsense", NULL },
		{ "tcp://127.0.0.1:70000", NULL },
		{ "fd:9999", NULL },
		{ "", NULL },
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		struct ss_diag why = { .code = 1 };
		const struct ss_layer *layer =
			ss_transport_for(table[i].address, &why);
		ck_assert_msg((layer != NULL) == (table[i].name != NULL),
			      "\"%s\": %s", table[i].address,
			      layer ? layer->name : why.text);
		if (layer)
			ck_assert_str_eq(layer->name, table[i].name);
		else
			ck_assert(why.code < 0 && why.text[0]);
	}
	for (int i = 0; i < KINDS; i++) {
		int fd = new_kind(i);
		const struct ss_layer *layer =
			ss_transport_for(name_fd(fd), NULL);
		ck_assert_ptr_nonnull(layer);
		ck_assert_str_eq(layer->name, kinds[i].transport);
		close(fd);
	}
	ck_assert_ptr_null(ss_transport_for("nonsense", NULL));
}
END_TEST

/* ---- options --------------------------------------------------------------*/

struct preparation {
	int calls;
	int result;
	bool bound; /* it was, already */
	char last[SS_ADDRESS_TEXT];
};

static int prepare(void *arg, int fd, const struct ss_address *address)
{
	struct preparation *preparation = arg;
	struct ss_address now = { .len = sizeof(now.u) };
	int one = 1;
	preparation->calls++;
	getsockname(fd, &now.u.sa, &now.len);
	preparation->bound |= ss_address_port(&now) > 0;
	ss_address_format(address, preparation->last,
			  sizeof(preparation->last));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));
	return preparation->result;
}

START_TEST(sockets_may_be_prepared_before_bind)
{
	struct preparation preparation = { 0 };
	struct ss_socket_options options = { .prepare = prepare,
					     .prepare_arg = &preparation };
	struct ss_config config = telling_at("127.0.0.1:0");
	config.addresses[1] = "203.0.113.7:0"; /* by IP_FREEBIND */
	config.transport_options = &options;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(preparation.calls, 2);
	ck_assert(!preparation.bound);
	ck_assert_str_eq(preparation.last, "203.0.113.7:0");
	ck_assert_int_eq(listener_option(server, SOL_SOCKET, SO_KEEPALIVE), 1);
	expect_free(server);
	preparation.result = -EXDEV;
	refused(&config, -EXDEV, "tcp://127.0.0.1:0: ");
	ck_assert_int_eq(preparation.calls, 3);
}
END_TEST

START_TEST(reuse_of_the_address_is_the_default_of_tcp_alone)
{
	struct ss_socket_options options = { .no_reuse_address = true };
	struct ss_config config = telling_at("127.0.0.1:0");
	struct ss_server *server = made(&config);
	ck_assert_int_eq(listener_option(server, SOL_SOCKET, SO_REUSEADDR), 1);
	expect_free(server);
	config.transport_options = &options;
	server = made(&config);
	ck_assert_int_eq(listener_option(server, SOL_SOCKET, SO_REUSEADDR), 0);
	expect_free(server);
	config = telling_at("udp://127.0.0.1:0");
	server = made(&config);
	ck_assert_int_eq(ss_server_socket_type(server), SOCK_DGRAM);
	ck_assert_int_eq(listener_option(server, SOL_SOCKET, SO_REUSEADDR), 0);
	ck_assert_int_eq(listener_option(server, SOL_SOCKET, SO_REUSEPORT), 0);
	expect_free(server);
}
END_TEST

/* The server's end closes first, and keeps the port in TIME_WAIT. */
START_TEST(servers_restart_over_time_wait)
{
	static const struct ss_socket_options strict = {
		.no_reuse_address = true,
	};
	struct ss_config config = telling_at("127.0.0.1:0");
	struct served served;
	char url[SS_ADDRESS_TEXT];
	served_start(&served, &config);
	expect_served(served.url);
	memcpy(url, served.url, sizeof(url));
	served_stop(&served);
	config = telling_at(url);
	config.transport_options = &strict;
	refused(&config, -EADDRINUSE, url);
	config.transport_options = NULL;
	served_start(&served, &config);
	ck_assert_str_eq(served.url, url);
	expect_served(served.url);
	served_stop(&served);
}
END_TEST

START_TEST(ports_are_shared_only_if_asked)
{
	static const struct ss_socket_options shared = { .reuse_port = true };
	const struct transport *transport = &transports[_i];
	struct ss_config config = config_of(&models[0], transport, &telling);
	config.transport_options = &shared;
	struct ss_server *first = made(&config);
	char url[SS_ADDRESS_TEXT];
	ss_server_url(first, 0, url, sizeof(url));
	ck_assert_int_eq(listener_option(first, SOL_SOCKET, SO_REUSEPORT), 1);
	config.addresses[0] = url;
	struct ss_server *second = made(&config);
	config.transport_options = NULL;
	refused(&config, -EADDRINUSE, url);
	expect_free(second);
	expect_free(first);
}
END_TEST

START_TEST(ports_are_no_matter_of_unix_sockets)
{
	static const struct ss_socket_options shared = { .reuse_port = true };
	struct ss_config config =
		config_of(&models[0], &transports[2 + _i], &telling);
	config.transport_options = &shared;
	refused(&config, -EINVAL, "reuse_port");
}
END_TEST

static int backlog; /* as listen(2) was told */

static int noting_listen(int fd, int n)
{
	backlog = n;
	return real.listen(fd, n);
}

static void log_line(void *arg, int level, struct ss_server *server,
		     uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	tape_note(tape, "%s", text);
}

START_TEST(backlogs_are_as_asked)
{
	struct ss_socket_options options = { 0 };
	struct ss_config config =
		config_of(&models[0], &transports[_i ? 2 : 0], &telling);
	config.transport_options = &options;
	config.log = log_line;
	sys_table.listen = noting_listen;
	expect_free(made(&config));
	ck_assert_int_eq(backlog, SOMAXCONN < 4096 ? 4096 : SOMAXCONN);
	options.request_queue_size = 7;
	expect_free(made(&config));
	ck_assert_int_eq(backlog, 7);
	ck_assert_int_eq(atomic_load(&tape->count), 0);
	options.request_queue_size = 1 << 30;
	expect_free(made(&config));
	ck_assert_int_eq(backlog, 1 << 30);
	ck_assert_int_eq(atomic_load(&tape->count), 1);
	ck_assert_ptr_nonnull(strstr(tape_text(tape), "backlog"));
	options.request_queue_size = -1;
	refused(&config, -EINVAL, "request_queue_size");
}
END_TEST

START_TEST(packet_sizes_have_bounds)
{
	struct ss_socket_options options = { .max_packet_size = 65536 };
	struct ss_config config =
		config_of(&models[0], &transports[1], &telling);
	config.transport_options = &options;
	refused(&config, -EINVAL, "max_packet_size");
	options.max_packet_size = -1;
	refused(&config, -EINVAL, "max_packet_size");
	options.max_packet_size = 65535;
	expect_free(made(&config));
}
END_TEST

static int tell_nagle(struct ss_request *req)
{
	int value = -1;
	socklen_t len = sizeof(value);
	int r = ss_request_getsockopt(req, IPPROTO_TCP, TCP_NODELAY, &value,
				      &len);
	ss_printf(req, "%d %d\n", r, value != 0);
	return 0;
}

static const struct ss_handler slow = { .name = "nagle",
					.handle = tell_nagle,
					.speaks_first = true };
static const struct ss_handler quick = { .name = "quick",
					 .handle = tell_nagle,
					 .speaks_first = true,
					 .disable_nagle_algorithm = true };

START_TEST(nagle_is_off_from_accept_on_if_asked)
{
	const struct model *model = &models[_i / 2];
	struct ss_config config =
		config_of(model, &transports[0], _i % 2 ? &quick : &slow);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, _i % 2 ? "0 1\n" : "0 0\n");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* It means nothing to other transports, and hurts none. */
START_TEST(nagle_is_a_matter_of_tcp_alone)
{
	struct ss_config config =
		config_of(&models[0], &transports[_i], &quick);
	expect_free(made(&config));
}
END_TEST

/* ---- rule 1 ---------------------------------------------------------------*/

static int fail_socket(int family, int type, int protocol)
{
	return fails("socket", ENFILE) ? -1
				       : real.socket(family, type, protocol);
}

static int fail_setsockopt(int fd, int level, int name, const void *value,
			   socklen_t len)
{
	return fails("setsockopt", ENOPROTOOPT)
		       ? -1
		       : real.setsockopt(fd, level, name, value, len);
}

static int fail_bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	return fails("bind", EACCES) ? -1 : real.bind(fd, sa, len);
}

static int fail_listen(int fd, int n)
{
	return fails("listen", EADDRINUSE) ? -1 : real.listen(fd, n);
}

static int fail_epoll_create(void)
{
	return fails("epoll_create", EMFILE) ? -1 : real.epoll_create();
}

static int fail_open(const char *path, int flags, mode_t mode)
{
	return fails("open", EMFILE) ? -1 : real.open(path, flags, mode);
}

static int fail_lstat(const char *path, struct stat *st)
{
	return fails("lstat", EACCES) ? -1 : real.lstat(path, st);
}

static int fail_flock(int fd, int operation)
{
	return fails("flock", ENOLCK) ? -1 : real.flock(fd, operation);
}

static int fail_getaddrinfo(const char *host, const char *service,
			    const struct addrinfo *hints,
			    struct addrinfo **result)
{
	return fails("getaddrinfo", 0)
		       ? EAI_MEMORY
		       : real.getaddrinfo(host, service, hints, result);
}

static void install_faults(void)
{
	sys_table.socket = fail_socket;
	sys_table.setsockopt = fail_setsockopt;
	sys_table.bind = fail_bind;
	sys_table.getsockname = fail_getsockname;
	sys_table.listen = fail_listen;
	sys_table.pipe = fail_pipe;
	sys_table.epoll_create = fail_epoll_create;
	sys_table.open = fail_open;
	sys_table.lstat = fail_lstat;
	sys_table.flock = fail_flock;
	sys_table.mmap = fail_mmap;
	fail_memory();
	sys_table.getaddrinfo = fail_getaddrinfo;
}

/* The n-th call fails: a server all the same, or none and why. */
static bool make_without(const struct ss_config *config, int n)
{
	int descriptors = open_descriptors();
	struct ss_server *server = NULL;
	struct ss_diag why = { 0 };
	fault.left = n;
	fault.what = NULL;
	int r = ss_server_new(&server, config, &why);
	fault.left = 0;
	ck_assert_msg((r == 0) == (server != NULL), "%s", fault.what);
	ck_assert_msg(r == 0 || (why.code == r && why.text[0]), "%s: %d, %s",
		      fault.what, r, why.text);
	if (server)
		expect_free(server);
	ck_assert_msg(open_descriptors() == descriptors, "%s: %d descriptors",
		      fault.what, open_descriptors() - descriptors);
	return fault.what != NULL;
}

/* Every call of a start fails in turn, with two listeners. */
START_TEST(starts_that_fail_leave_nothing)
{
	const struct model *model = &models[_i / transport_count];
	struct ss_config config =
		config_of(model, &transports[_i % transport_count], &quick);
	char first[SS_ADDRESS_TEXT];
	snprintf(first, sizeof(first), "%s", config.addresses[0]);
	config.addresses[0] = first;
	config.addresses[1] = fresh_address(&transports[_i % transport_count]);
	config.log_level = SS_NONE;
	install_faults();
	int n = 1;
	while (make_without(&config, n))
		ck_assert_int_lt(++n, 200);
	ck_assert_int_gt(n, 15);
}
END_TEST

/* What there was of it is gone, and the message says what was in the way. */
START_TEST(addresses_in_use_are_named)
{
	struct ss_config other = telling_at("127.0.0.2:0");
	struct ss_server *living = made(&other);
	char url[SS_ADDRESS_TEXT], text[2 * SS_ADDRESS_TEXT];
	char first[SS_ADDRESS_TEXT];
	ss_server_url(living, 0, url, sizeof(url));
	snprintf(first, sizeof(first), "%s", at_host(url, "127.0.0.3"));
	struct ss_config config = telling_at(first);
	config.addresses[1] = url;
	snprintf(text, sizeof(text), "%s: bind: Address already in use", url);
	refused(&config, -EADDRINUSE, text);
	ck_assert_int_eq(try_dial(first), -ECONNREFUSED);
	config.addresses[1] = NULL;
	expect_free(made(&config));
	expect_free(living);
}
END_TEST

START_TEST(bad_addresses_are_named)
{
	static const char *const bad[] = { "127.0.0.1:70000", "127.0.0.1:80x",
					   "127.0.0.1:", "udp://127.0.0.1:1",
					   "unix:/tmp/x" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ss_config config = telling_at("127.0.0.1:0");
		config.transport = &ss_tcp_server;
		config.addresses[1] = bad[i];
		refused(&config, -EINVAL, bad[i]);
	}
	struct ss_config config = { .handler = &telling,
				    .transport = &ss_tcp_server };
	refused(&config, -EINVAL, "address");
}
END_TEST

/* ---- the two steps --------------------------------------------------------*/

START_TEST(servers_are_bound_and_activated_in_two_steps)
{
	struct ss_config config = telling_at("127.0.0.1:0");
	config.no_bind = true;
	struct ss_server *server = made(&config);
	struct ss_diag why;
	char url[SS_ADDRESS_TEXT];
	ck_assert_int_eq(ss_server_listeners(server), 0);
	ck_assert_int_eq(ss_server_activate(server, &why), -EBADF);
	ck_assert_int_eq(ss_server_turn(server, 0), -EBADF);
	ck_assert_int_eq(ss_server_bind(server, &why), 0);
	ck_assert_int_eq(ss_server_listeners(server), 1);
	ck_assert_ptr_nonnull(ss_server_url(server, 0, url, sizeof(url)));
	ck_assert_int_eq(try_dial(url), -ECONNREFUSED);
	ck_assert_int_eq(ss_server_turn(server, 0), -EBADF);
	ck_assert_int_lt(ss_server_bind(server, &why), 0);
	ck_assert_int_eq(ss_server_activate(server, &why), 0);
	ck_assert_int_lt(ss_server_activate(server, &why), 0);
	int fd = dial(url);
	ck_assert_int_eq(ss_server_turn(server, 0), 1);
	close(fd);
	expect_free(server);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_addresses(Suite *suite)
{
	TCase *tcase = suite_case(suite, "addresses", set_up, tear_down);
	tcase_add_test(tcase, listeners_are_told_with_their_real_addresses);
	tcase_add_test(tcase, names_with_several_addresses_bind_them_all);
	tcase_add_test(tcase, names_with_too_many_addresses_are_refused);
	tcase_add_test(tcase, names_with_foreign_addresses_bind_the_others);
	tcase_add_test(tcase, addresses_of_ipv6_take_ipv6_only);
	if (exposed())
		return;
	tcase_add_loop_test(tcase, wildcards_take_both_families, 0, WILDCARDS);
	tcase_add_loop_test(tcase, wildcards_take_ipv6_only_if_told, 0,
			    WILDCARDS);
	tcase_add_test(tcase, wildcards_of_ipv4_take_ipv4_only);
	tcase_add_loop_test(tcase, wildcards_fall_back_to_ipv4, 0, WILDCARDS);
}

static void add_adopting(Suite *suite)
{
	TCase *tcase = suite_case(suite, "adopting", set_up, tear_down);
	tcase_add_loop_test(tcase, descriptors_are_adopted_as_they_are, 0,
			    2 * KINDS);
	tcase_add_test(tcase, descriptor_0_is_adopted_and_stays);
	tcase_add_test(tcase, descriptors_of_another_kind_are_refused);
	tcase_add_test(tcase, transports_are_found_by_the_address);
}

static void add_options(Suite *suite)
{
	TCase *tcase = suite_case(suite, "options", set_up, tear_down);
	tcase_add_test(tcase, sockets_may_be_prepared_before_bind);
	tcase_add_test(tcase, reuse_of_the_address_is_the_default_of_tcp_alone);
	tcase_add_test(tcase, servers_restart_over_time_wait);
	tcase_add_loop_test(tcase, ports_are_shared_only_if_asked, 0, 2);
	tcase_add_loop_test(tcase, ports_are_no_matter_of_unix_sockets, 0, 2);
	tcase_add_loop_test(tcase, backlogs_are_as_asked, 0, 2);
	tcase_add_test(tcase, packet_sizes_have_bounds);
	tcase_add_loop_test(tcase, nagle_is_off_from_accept_on_if_asked, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, nagle_is_a_matter_of_tcp_alone, 0,
			    transport_count);
}

static void add_starts(Suite *suite)
{
	TCase *tcase = suite_case(suite, "starts", set_up, tear_down);
	tcase_add_loop_test(tcase, starts_that_fail_leave_nothing, 0,
			    model_count * transport_count);
	tcase_add_test(tcase, addresses_in_use_are_named);
	tcase_add_test(tcase, bad_addresses_are_named);
	tcase_add_test(tcase, servers_are_bound_and_activated_in_two_steps);
}

Suite *t_sockets(void)
{
	Suite *suite = suite_create("t_sockets");
	add_addresses(suite);
	add_adopting(suite);
	add_options(suite);
	add_starts(suite);
	return suite;
}
