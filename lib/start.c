/*
 * How the process was started, and what it was given: listening sockets by
 * systemd or by whoever speaks its protocol (sd_listen_fds(3)), a listener or
 * a connection as descriptor 0 by inetd(8), a connection as descriptors 0 and
 * 1 by tcpserver(1) and its kin (UCSPI).
 */
#include "start.h"

#include <stdio.h>

#include "diag.h"

enum { FIRST = 3, GIVEN_MAX = 1024 };

/* Decimal digits and nothing else; -1. */
static long number(const char *text)
{
	if (!*text || strspn(text, "0123456789") != strlen(text))
		return -1;
	errno = 0;
	long value = strtol(text, NULL, 10);
	return errno ? -1 : value;
}

static int option_of(int fd, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);
	return sys_getsockopt(fd, SOL_SOCKET, name, &value, &len) == -1 ? -errno
									: value;
}

/* A stream that is connected already. */
static bool is_connection(int fd)
{
	struct ss_address peer = { .len = sizeof(peer.u) };
	return option_of(fd, SO_TYPE) == SOCK_STREAM &&
	       option_of(fd, SO_ACCEPTCONN) == 0 &&
	       sys_getpeername(fd, &peer.u.sa, &peer.len) == 0;
}

/* ---- what was given -------------------------------------------------------*/

static void add(struct ss_start *start, int fd, const char *name, size_t n)
{
	struct given *given = &start->given[start->count++];
	given->fd = fd;
	snprintf(given->address, sizeof(given->address), "fd:%d", fd);
	snprintf(given->name, sizeof(given->name), "%.*s", (int)n, name);
}

static int make_room(struct ss_start *start, long count)
{
	start->given = sys_calloc((size_t)count, sizeof(*start->given));
	return start->given ? 0 : -ENOMEM;
}

/* Names are separated by colons; where there are fewer, the rest has none. */
static int take_listed(struct ss_start *start, long count, const char *names,
		       struct ss_diag *why)
{
	int r = make_room(start, count);
	for (int i = 0; r >= 0 && i < count; i++) {
		int fd = FIRST + i;
		size_t n = strcspn(names, ":");
		if (sys_cloexec(fd) == -1)
			return diag_refuse(
				why, -errno,
				"LISTEN_FDS is %ld: descriptor %d: %s", count,
				fd, strerror(errno));
		if (count == 1 && is_connection(fd))
			start->connection = fd;
		else
			add(start, fd, names, n);
		names += n + (names[n] == ':');
	}
	return r;
}

/* The number that a list of words begins with; -1: there is none. */
static int next_number(const char **text)
{
	size_t n = strspn(*text, "0123456789");
	long value = n ? strtol(*text, NULL, 10) : -1;
	*text += n;
	return value > INT_MAX ? -1 : (int)value;
}

/* What is said of a listener, a letter each. */
static unsigned read_flags(const char **text)
{
	unsigned flags = 0;
	for (;; ++*text)
		if (**text == START_REMOVES)
			flags |= SS_LISTENER_REMOVES;
		else if (**text == START_ANY_PORT)
			flags |= SS_LISTENER_ANY_PORT;
		else
			return flags;
}

/* Of what kind which listeners are, up to the end of the text. */
static bool take_kinds(struct ss_start *start, const char *text)
{
	while (*text == ' ') {
		text++;
		int at = next_number(&text) - FIRST;
		if (at < 0 || at >= start->count)
			return false;
		start->given[at].flags = read_flags(&text);
	}
	return !*text;
}

/* By restart.c's hand: the pipe, and of what kind which listeners are. */
static int read_restarted(struct ss_start *start, struct ss_diag *why)
{
	const char *given = getenv("SS_RESTARTED"), *text = given;
	if (!given)
		return 0;
	int fd = next_number(&text);
	if (fd != FIRST + start->count || sys_cloexec(fd) == -1)
		return diag_refuse(why, -EINVAL, "SS_RESTARTED is '%.40s'",
				   given);
	start->ready_fd = fd;
	if (!take_kinds(start, text))
		return diag_refuse(why, -EINVAL, "SS_RESTARTED is '%.40s'",
				   given);
	return 0;
}

static int take_environment(struct ss_start *start, struct ss_diag *why)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	const char *names = getenv("LISTEN_FDNAMES");
	int r = 0;
	if (pid && fds && number(pid) == sys_getpid()) {
		long count = number(fds);
		if (count < 0 || count > GIVEN_MAX)
			r = diag_refuse(why, -EINVAL, "LISTEN_FDS is '%.40s'",
					fds);
		else if (count > 0)
			r = take_listed(start, count, names ? names : "", why);
		if (r >= 0)
			r = read_restarted(start, why);
	}
	sys_unsetenv("SS_RESTARTED");
	sys_unsetenv("LISTEN_PID");
	sys_unsetenv("LISTEN_FDS");
	sys_unsetenv("LISTEN_FDNAMES");
	return r;
}

/* ---- descriptor 0 ---------------------------------------------------------*/

static bool same_file(int a, int b)
{
	struct stat first, second;
	return sys_fstat(a, &first) == 0 && sys_fstat(b, &second) == 0 &&
	       first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/* The socket keeps no place where what is printed goes to it. */
static int leave_standard(int fd)
{
	int null = sys_open("/dev/null", O_RDWR, 0);
	if (null == -1)
		return -errno;
	int r = 0;
	for (int i = 0; i <= 2 && r == 0; i++)
		if ((i == 0 || same_file(i, fd)) && sys_dup2(null, i) == -1)
			r = -errno;
	sys_close(null);
	return r;
}

/* $NAMEIP and $NAMEPORT, of UCSPI; without them it is as the socket says. */
static int read_address(const char *ip, const char *port,
			struct ss_address *address, struct ss_diag *why)
{
	char text[SS_ADDRESS_TEXT];
	struct ss_endpoint endpoint;
	const char *host = getenv(ip), *service = getenv(port);
	if (!host || !service)
		return 0;
	/* With its scheme: "fd" and "3" would be a descriptor. */
	snprintf(text, sizeof(text),
		 strchr(host, ':') ? "tcp://[%s]:%s" : "tcp://%s:%s", host,
		 service);
	ssize_t n = address_parse(text, SS_SCHEME_TCP, &endpoint, 1, why);
	if (n == -EINPROGRESS)
		n = address_refuse(why, host, -EINVAL, "%s is no address", ip);
	if (n < 0)
		return (int)n;
	*address = endpoint.address;
	return 0;
}

static int read_ucspi(struct ss_start *start, struct ss_diag *why)
{
	if (!getenv("PROTO"))
		return 0;
	if (!same_file(1, 0))
		return diag_refuse(
			why, -ENOTSUP,
			"descriptors 0 and 1 are not the same socket");
	int r = read_address("TCPREMOTEIP", "TCPREMOTEPORT", &start->peer, why);
	if (r >= 0)
		r = read_address("TCPLOCALIP", "TCPLOCALPORT", &start->local,
				 why);
	return r;
}

static int take_stdin(struct ss_start *start, struct ss_diag *why)
{
	int r = option_of(0, SO_TYPE);
	if (r < 0)
		return diag_refuse(why, r, "descriptor 0: %s", strerror(-r));
	bool connection = is_connection(0);
	if (connection && (r = read_ucspi(start, why)) < 0)
		return r;
	if (!connection && (r = make_room(start, 1)) < 0)
		return r;
	int fd = sys_dup(0);
	if (fd == -1)
		return -errno;
	if (connection)
		start->connection = fd;
	else
		add(start, fd, "", 0);
	return leave_standard(fd);
}

/* ---- life -----------------------------------------------------------------*/

int ss_start_new(struct ss_start **result, enum ss_start_mode mode,
		 struct ss_diag *why)
{
	struct ss_start *start = sys_calloc(1, sizeof(*start));
	*result = NULL;
	if (why)
		memset(why, 0, sizeof(*why));
	if (!start)
		return diag_refuse(why, -ENOMEM, "%s", strerror(ENOMEM));
	start->connection = start->notify_fd = start->ready_fd = -1;
	int r = mode == SS_START_STDIN ? take_stdin(start, why)
				       : take_environment(start, why);
	if (r < 0) {
		if (why && !why->text[0])
			diag_refuse(why, r, "%s", strerror(-r));
		ss_start_free(start);
		return r;
	}
	notify_open(start);
	*result = start;
	return 0;
}

void ss_start_free(struct ss_start *start)
{
	if (!start)
		return;
	for (int i = 0; i < start->count; i++)
		if (!start->given[i].taken)
			sys_close(start->given[i].fd);
	if (start->connection >= 0)
		sys_close(start->connection);
	if (start->notify_fd >= 0)
		sys_close(start->notify_fd);
	if (start->ready_fd >= 0)
		sys_close(start->ready_fd);
	sys_free(start->given);
	sys_free(start);
}

int ss_start_left(const struct ss_start *start, struct ss_diag *why)
{
	int left = 0;
	for (int i = 0; i < start->count; i++) {
		const struct given *given = &start->given[i];
		if (!given->taken && !left++)
			diag_refuse(why, -EINVAL,
				    "descriptor %d ('%.80s') was given, and no "
				    "server wants it",
				    given->fd, given->name);
	}
	return left;
}

/* ---- adopting -------------------------------------------------------------*/

static int put(struct ss_config *config, int at, const char *address,
	       struct ss_diag *why)
{
	if (at >= SS_ADDRESSES_MAX)
		return diag_refuse(
			why, -E2BIG,
			"more than %d sockets for one server, given or "
			"asked for",
			SS_ADDRESSES_MAX);
	config->addresses[at] = address;
	return 1;
}

static int take(struct ss_config *config, int at, struct given *given,
		struct ss_diag *why)
{
	int r = put(config, at, given->address, why);
	given->taken = r > 0;
	return r;
}

/* All of that name (NULL: all), in the place of the addresses. */
static int adopt_named(struct ss_start *start, const char *name,
		       struct ss_config *config, struct ss_diag *why)
{
	int n = 0;
	for (int i = 0; i < start->count; i++) {
		struct given *given = &start->given[i];
		if (given->taken || (name && strcmp(given->name, name) != 0))
			continue;
		int r = take(config, n, given, why);
		if (r < 0)
			return r;
		n++;
	}
	for (int i = n; n && i < SS_ADDRESSES_MAX; i++)
		config->addresses[i] = NULL;
	return n;
}

/* After a restart port 0 stands for whichever the kernel chose then; of several
 * they come in order. */
static bool bound_to(const struct given *given,
		     const struct ss_endpoint *endpoint)
{
	struct ss_address address = { .len = sizeof(address.u) };
	struct ss_address wanted = endpoint->address;
	bool stream = endpoint->scheme == SS_SCHEME_TCP ||
		      endpoint->scheme == SS_SCHEME_UNIX;
	if (option_of(given->fd, SO_TYPE) !=
		    (stream ? SOCK_STREAM : SOCK_DGRAM) ||
	    sys_getsockname(given->fd, &address.u.sa, &address.len) == -1)
		return false;
	if (given->flags & SS_LISTENER_ANY_PORT &&
	    ss_address_port(&wanted) == 0 &&
	    address.u.sa.sa_family == wanted.u.sa.sa_family) {
		if (wanted.u.sa.sa_family == AF_INET6)
			wanted.u.in6.sin6_port = address.u.in6.sin6_port;
		else
			wanted.u.in.sin_port = address.u.in.sin_port;
	}
	return ss_address_equal(&address, &wanted);
}

/* Each place of an address has one listener, of which any may be given. */
static int adopt_places(struct ss_start *start, const char *text, int *at,
			struct ss_config *config, struct ss_diag *why)
{
	enum { ENDPOINTS = 32 };
	struct ss_endpoint list[ENDPOINTS];
	ssize_t places = ss_resolve(text, SS_SCHEME_ANY, list, ENDPOINTS, why);
	int n = 0;
	if (places < 0)
		return (int)places;
	for (ssize_t k = 0; k < places && k < ENDPOINTS; k++) {
		struct given *given = start->given;
		while (given < start->given + start->count &&
		       (given->taken || !bound_to(given, &list[k])))
			given++;
		if (given == start->given + start->count)
			continue;
		int r = take(config, *at, given, why);
		if (r < 0)
			return r;
		++*at;
		n++;
	}
	return n;
}

static int adopt_matching(struct ss_start *start, struct ss_config *config,
			  struct ss_diag *why)
{
	const char *wanted[SS_ADDRESSES_MAX + 1];
	int n = 0, at = 0;
	if (!start->count)
		return 0;
	memcpy(wanted, config->addresses, sizeof(wanted));
	memset((void *)config->addresses, 0, sizeof(config->addresses));
	for (int i = 0; i < SS_ADDRESSES_MAX && wanted[i]; i++) {
		int r = adopt_places(start, wanted[i], &at, config, why);
		if (r < 0)
			return r;
		if (r == 0 && put(config, at++, wanted[i], why) < 0)
			return -E2BIG;
		n += r;
	}
	return n;
}

static int adopt(struct ss_start *start, const char *name,
		 struct ss_config *config, struct ss_diag *why)
{
	int n = name ? adopt_named(start, name, config, why) : 0;
	if (n)
		return n;
	if (!config->addresses[0])
		return adopt_named(start, NULL, config, why);
	return adopt_matching(start, config, why);
}

/* What a server was to have that does not get all: nobody has adopted it. */
static void give_back(struct ss_start *start, const struct ss_config *config)
{
	for (int i = 0; i < start->count; i++)
		for (int k = 0; k < SS_ADDRESSES_MAX; k++)
			if (config->addresses[k] == start->given[i].address)
				start->given[i].taken = false;
}

int ss_start_adopt(struct ss_start *start, const char *name,
		   struct ss_config *config, struct ss_diag *why)
{
	if (start->connection >= 0) {
		char address[16];
		snprintf(address, sizeof(address), "fd:%d", start->connection);
		if (!config->transport)
			config->transport = ss_transport_for(address, why);
		memset((void *)config->addresses, 0, sizeof(config->addresses));
		config->no_bind = true;
		return config->transport ? 1 : -EINVAL;
	}
	const char *before[SS_ADDRESSES_MAX + 1];
	memcpy(before, config->addresses, sizeof(before));
	int n = adopt(start, name, config, why);
	if (n < 0) {
		give_back(start, config);
		memcpy((void *)config->addresses, before, sizeof(before));
	}
	return n;
}

/* ---- after a restart ------------------------------------------------------*/

static void take_flags(const struct ss_start *start,
		       struct ss_listener *listener)
{
	for (int i = 0; i < start->count; i++)
		if (start->given[i].fd == listener->watch.fd)
			listener->flags |= start->given[i].flags;
}

void start_take_over(const struct run *run)
{
	struct ss_start *start = run->options.start;
	if (!start || start->ready_fd < 0)
		return;
	for (int i = 0; i < run->count; i++)
		for (int k = 0; k < run->servers[i]->listener_count; k++)
			take_flags(start, run->servers[i]->listeners[k]);
	stop_tell(start->ready_fd);
	sys_close(start->ready_fd);
	start->ready_fd = -1;
}
