/*
 * Sockets: opened, bound, adopted, listened on and accepted from, for every
 * transport that has them.
 */
#include "sock.h"

#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "../sys.h"

/* musl says 128, and so do others; the kernel knows its own limit. */
enum { BACKLOG = SOMAXCONN < 4096 ? 4096 : SOMAXCONN };
enum { PACKET_SIZE = 65535, ENDPOINTS = 32 };

struct sock_state *sock_state(const struct ss_server *server)
{
	return ss_layer_state(server, ss_server_transport(server));
}

static bool is_stream(const struct ss_server *server)
{
	return ss_server_transport(server)->flags & SS_LAYER_STREAM;
}

static bool is_unix(const struct ss_server *server)
{
	return ss_server_transport(server)->flags & SS_LAYER_UNIX;
}

static int socket_type(const struct ss_server *server)
{
	return is_stream(server) ? SOCK_STREAM : SOCK_DGRAM;
}

static enum ss_scheme scheme_of(const struct ss_server *server)
{
	if (is_unix(server))
		return is_stream(server) ? SS_SCHEME_UNIX : SS_SCHEME_UNIXGRAM;
	return is_stream(server) ? SS_SCHEME_TCP : SS_SCHEME_UDP;
}

int sock_init(struct ss_server *server, const void *options)
{
	struct sock_state *state = sock_state(server);
	if (options)
		state->options = *(const struct ss_socket_options *)options;
	struct ss_socket_options *o = &state->options;
	if (o->reuse_port && is_unix(server))
		return ss_refuse(server, -EINVAL,
				 "reuse_port: Unix sockets have no ports");
	if ((o->set_mode || o->set_uid || o->set_gid) && !is_unix(server))
		return ss_refuse(server, -EINVAL,
				 "mode and owner: only Unix sockets have them");
	if (o->request_queue_size < 0)
		return ss_refuse(server, -EINVAL, "request_queue_size is %d",
				 o->request_queue_size);
	if (o->max_packet_size < 0 || o->max_packet_size > PACKET_SIZE)
		return ss_refuse(server, -EINVAL,
				 "max_packet_size is %d, and not in 1..%d",
				 o->max_packet_size, PACKET_SIZE);
	if (!o->max_packet_size)
		o->max_packet_size = PACKET_SIZE;
	if (is_stream(server))
		return 0;
	state->inbox = dgram_inbox_new(server, (size_t)o->max_packet_size);
	return state->inbox ? 0 : -ENOMEM;
}

void sock_fini(struct ss_server *server)
{
	sys_free(sock_state(server)->inbox);
}

/* ---- options --------------------------------------------------------------*/

static int set_int(int fd, int level, int name, int value)
{
	if (sys_setsockopt(fd, level, name, &value, sizeof(value)) == -1)
		return -errno;
	return 0;
}

bool sock_is_wildcard(const struct ss_address *address)
{
	if (address->u.sa.sa_family == AF_INET)
		return address->u.in.sin_addr.s_addr == htonl(INADDR_ANY);
	return address->u.sa.sa_family == AF_INET6 &&
	       IN6_IS_ADDR_UNSPECIFIED(&address->u.in6.sin6_addr);
}

/* So that a reply leaves from the address that was asked (ip(7), ipv6(7)). */
static int ask_for_destination(int fd, int family)
{
	int r = 0;
#ifdef IP_PKTINFO
	if (family == AF_INET)
		r = set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
#endif
#ifdef IPV6_RECVPKTINFO
	if (family == AF_INET6)
		r = set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
#endif
	return r;
}

static int set_internet_options(struct ss_server *server, int fd,
				const struct ss_endpoint *endpoint)
{
	const struct ss_socket_options *o = &sock_state(server)->options;
	int family = endpoint->address.u.sa.sa_family, r = 0;
	if (is_stream(server) && !o->no_reuse_address)
		r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
#ifdef SO_REUSEPORT
	if (!r && o->reuse_port)
		r = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#endif
	if (!r && family == AF_INET6)
		r = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY,
			    !endpoint->dual_stack || o->ipv6_only);
	if (!r && is_stream(server) &&
	    ss_server_handler(server)->disable_nagle_algorithm)
		r = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (!r && !is_stream(server) && sock_is_wildcard(&endpoint->address))
		r = ask_for_destination(fd, family);
	return r;
}

/*
 * The time-out of most reads, which connections inherit where the kernel does
 * that (Linux: TCP), so that no accepted socket needs a call of its own.  An
 * adopted listener is others' too, and stays as it is.
 */
static void set_read_timeout(struct ss_server *server,
			     struct ss_listener *listener)
{
	struct ss_timeouts t = ss_server_timeouts(server);
	int ms = t.idle_ms > 0 ? t.idle_ms : t.io_ms;
	if (ms <= 0 || !(ss_server_flags(server) & SS_LAYER_THREADS) ||
	    scheme_of(server) != SS_SCHEME_TCP ||
	    (ss_listener_flags(listener) & SS_LISTENER_ADOPTED))
		return;
#ifdef __linux__
	struct timeval tv = { .tv_sec = ms / 1000,
			      .tv_usec = ms % 1000 * 1000 };
	if (sys_setsockopt(ss_listener_fd(listener), SOL_SOCKET, SO_RCVTIMEO,
			   &tv, sizeof(tv)) == 0)
		ss_listener_set_timeout(listener, ms);
#else
	(void)listener;
#endif
}

/* ---- descriptors that clients pass ----------------------------------------*/

/* Linux 6.16: older headers do not have it, older kernels refuse it. */
#if defined(SS_LINUX) && !defined(SO_PASSRIGHTS) && !defined(__sparc__) &&     \
	!defined(__hppa__)
#define SO_PASSRIGHTS 83
#endif

static int get_int(int fd, int name, int *value)
{
	socklen_t len = sizeof(*value);
	return sys_getsockopt(fd, SOL_SOCKET, name, value, &len) == -1 ? -errno
								       : 0;
}

#ifdef SO_PASSRIGHTS
/* Before it listens: what it accepts inherits that from it as it connects. */
static bool refuse_descriptors(int fd)
{
	const int no = 0;
	return sys_setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof(no)) ==
	       0;
}

static bool descriptors_refused(int fd)
{
	int value;
	return get_int(fd, SO_PASSRIGHTS, &value) == 0 && !value;
}
#else
static bool refuse_descriptors(int fd)
{
	(void)fd;
	return false;
}

static bool descriptors_refused(int fd)
{
	(void)fd;
	return false;
}
#endif

/* ---- opening --------------------------------------------------------------*/

/* "tcp://127.0.0.1:80: STEP: REASON" */
static int refuse(struct ss_server *server, const struct ss_endpoint *endpoint,
		  int code, const char *step)
{
	char where[SS_ADDRESS_TEXT];
	if (endpoint->scheme == SS_SCHEME_FD)
		snprintf(where, sizeof(where), "fd:%d", endpoint->fd);
	else
		ss_url_format(scheme_of(server), &endpoint->address, where,
			      sizeof(where));
	return ss_refuse(server, code, "%s: %s: %s", where, step,
			 strerror(-code));
}

/* Made and bound; the step that failed is named. */
static int open_bound(struct ss_server *server,
		      const struct ss_endpoint *endpoint, const char **step)
{
	const struct ss_socket_options *o = &sock_state(server)->options;
	const struct ss_address *address = &endpoint->address;
	*step = "socket";
	int fd = sys_socket(address->u.sa.sa_family,
			    socket_type(server) | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return -errno;
	*step = "socket options";
	int r = 0;
	if (!is_unix(server))
		r = set_internet_options(server, fd, endpoint);
	if (!r && o->prepare)
		r = o->prepare(o->prepare_arg, fd, address);
	if (r >= 0) {
		*step = "bind";
		r = sys_bind(fd, &address->u.sa, address->len) == -1 ? -errno
								     : 0;
	}
	if (r >= 0)
		return fd;
	sys_close(fd);
	return r;
}

/* The descriptor is the listener's, or closed. */
static int add_listener(struct ss_server *server,
			const struct ss_endpoint *endpoint, int fd,
			unsigned flags, size_t data_size,
			struct ss_listener **result)
{
	struct ss_address real = { .len = sizeof(real.u) };
	if (sys_getsockname(fd, &real.u.sa, &real.len) == -1) {
		int r = -errno;
		sys_close(fd);
		return refuse(server, endpoint, r, "getsockname");
	}
	if (!is_stream(server))
		flags |= SS_LISTENER_DGRAM;
	if (!is_unix(server))
		flags |= SS_LISTENER_WHOLE;
	int r = ss_listener_add(server, fd, scheme_of(server), &real, flags,
				data_size, result);
	if (r < 0)
		return refuse(server, endpoint, r, "listener");
	set_read_timeout(server, *result);
	return 0;
}

static unsigned flags_of(const struct ss_server *server,
			 const struct ss_endpoint *endpoint, size_t data_size)
{
	if (!is_unix(server))
		return ss_address_port(&endpoint->address) == 0
			       ? SS_LISTENER_ANY_PORT
			       : 0;
	return data_size ? SS_LISTENER_REMOVES : 0;
}

int sock_open(struct ss_server *server, const struct ss_endpoint *endpoint,
	      size_t data_size, struct ss_listener **listener)
{
	const char *step;
	int fd = open_bound(server, endpoint, &step);
	if (fd < 0)
		return refuse(server, endpoint, fd, step);
	unsigned flags = flags_of(server, endpoint, data_size);
	if (is_unix(server) && sock_state(server)->options.no_descriptors &&
	    refuse_descriptors(fd))
		flags |= SS_LISTENER_WHOLE;
	return add_listener(server, endpoint, fd, flags, data_size, listener);
}

static int open_plain(struct ss_server *server,
		      const struct ss_endpoint *endpoint)
{
	struct ss_listener *listener;
	return sock_open(server, endpoint, 0, &listener);
}

/* ---- adopting -------------------------------------------------------------*/

static const char *mismatch(const struct ss_server *server, int fd)
{
	int value;
	if (get_int(fd, SO_TYPE, &value) < 0)
		return strerror(errno);
	if (value != socket_type(server))
		return is_stream(server) ? "not a stream socket"
					 : "not a datagram socket";
	struct ss_address address = { .len = sizeof(address.u) };
	if (sys_getsockname(fd, &address.u.sa, &address.len) == -1)
		return strerror(errno);
	bool local = address.u.sa.sa_family == AF_UNIX;
	if (local != is_unix(server))
		return local ? "a Unix socket" : "not a Unix socket";
	if (is_stream(server) &&
	    (get_int(fd, SO_ACCEPTCONN, &value) < 0 || !value))
		return "not listening";
	return NULL;
}

static int adopt(struct ss_server *server, const struct ss_endpoint *endpoint,
		 size_t data_size)
{
	int fd = endpoint->fd;
	const char *wrong = mismatch(server, fd);
	if (wrong)
		return ss_refuse(server, -EINVAL, "fd:%d: %s", fd, wrong);
	/* Descriptors 0-2 stay, so that nothing else takes their place. */
	if (fd <= 2) {
		fd = sys_dup(fd);
		if (fd == -1)
			return refuse(server, endpoint, -errno, "dup");
	} else if (sys_cloexec(fd) == -1) {
		return refuse(server, endpoint, -errno, "close-on-exec");
	}
	unsigned flags = SS_LISTENER_ADOPTED;
	if (is_unix(server) && descriptors_refused(fd))
		flags |= SS_LISTENER_WHOLE;
	struct ss_listener *listener;
	return add_listener(server, endpoint, fd, flags, data_size, &listener);
}

/* ---- server_bind, server_activate -----------------------------------------*/

static bool no_such_family(int r)
{
	return r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL;
}

/* All endpoints of one address; those of a family that the machine lacks are
 * left out if another one is there. */
static int bind_text(struct ss_server *server, const char *text,
		     int (*open)(struct ss_server *,
				 const struct ss_endpoint *),
		     size_t data_size)
{
	struct ss_endpoint list[ENDPOINTS];
	struct ss_diag why;
	ssize_t n = ss_resolve(text, scheme_of(server), list, ENDPOINTS, &why);
	if (n < 0)
		return ss_refuse(server, (int)n, "%s", why.text);
	if (n > ENDPOINTS)
		return ss_refuse(server, -E2BIG, "%s: more than %d addresses",
				 text, ENDPOINTS);
	int bound = 0, last = 0;
	for (ssize_t i = 0; i < n; i++) {
		if (list[i].fallback && bound)
			continue;
		int r = list[i].scheme == SS_SCHEME_FD
				? adopt(server, &list[i], data_size)
				: open(server, &list[i]);
		if (r >= 0)
			bound++;
		else if (!no_such_family(r))
			return r;
		else
			last = r;
	}
	return bound ? 0 : last;
}

int sock_bind_all(struct ss_server *server,
		  int (*open)(struct ss_server *, const struct ss_endpoint *),
		  size_t data_size)
{
	const char *const *addresses = ss_server_addresses(server);
	if (!addresses[0])
		return ss_refuse(server, -EINVAL, "%s needs an address",
				 ss_server_transport(server)->name);
	int r = 0;
	for (int i = 0; r >= 0 && addresses[i]; i++)
		r = bind_text(server, addresses[i], open, data_size);
	return r;
}

int sock_server_bind(struct ss_server *server)
{
	return sock_bind_all(server, open_plain, 0);
}

/* Linux cuts a longer backlog down without a word (listen(2)). */
static void check_backlog(struct ss_server *server, int backlog)
{
	char text[16] = "";
	int fd = sys_open("/proc/sys/net/core/somaxconn", O_RDONLY, 0);
	if (fd == -1)
		return;
	ssize_t n = sys_read(fd, text, sizeof(text) - 1);
	sys_close(fd);
	long cap = n > 0 ? strtol(text, NULL, 10) : 0;
	if (cap > 0 && cap < backlog)
		ss_log(server, SS_LOG_WARNING, 0,
		       "a backlog of %d was asked for, and "
		       "net.core.somaxconn caps it at %ld",
		       backlog, cap);
}

/* A worker's listen already. */
int sock_server_activate(struct ss_server *server)
{
	if (ss_worker(server))
		return 0;
	int backlog = sock_state(server)->options.request_queue_size;
	if (backlog)
		check_backlog(server, backlog);
	else
		backlog = BACKLOG;
	for (int i = 0; i < ss_server_listeners(server); i++) {
		struct ss_listener *listener = ss_server_listener(server, i);
		if (ss_listener_flags(listener) & SS_LISTENER_ADOPTED)
			continue;
		if (sys_listen(ss_listener_fd(listener), backlog) == -1) {
			int r = -errno;
			char where[SS_ADDRESS_TEXT];
			return ss_refuse(
				server, r, "%s: listen: %s",
				ss_server_url(server, i, where, sizeof(where)),
				strerror(-r));
		}
	}
	return 0;
}

/* ---- get_request ----------------------------------------------------------*/

/* An adopted listener may block, and its flags are not ours to change. */
static bool would_block(const struct ss_listener *listener)
{
	if (!(ss_listener_flags(listener) & SS_LISTENER_ADOPTED))
		return false;
	struct pollfd fd = { .fd = ss_listener_fd(listener), .events = POLLIN };
	return sys_poll(&fd, 1, 0) != 1;
}

int sock_get_request(struct ss_server *server, struct ss_listener *listener,
		     struct ss_request **req)
{
	if (would_block(listener))
		return -EAGAIN;
	bool parks = ss_server_flags(server) & SS_LAYER_PARKS;
	struct ss_address peer;
	peer.len = sizeof(peer.u);
	int fd = sys_accept(ss_listener_fd(listener), &peer.u.sa, &peer.len,
			    parks ? SOCK_NONBLOCK : 0);
	if (fd == -1)
		return -errno;
	unsigned flags = parks ? SS_SOURCE_NONBLOCK : 0;
	if (ss_listener_flags(listener) & SS_LISTENER_WHOLE)
		flags |= SS_SOURCE_WHOLE;
	return ss_request_accept(server, listener, fd, flags, &peer, req);
}
