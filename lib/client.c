/*
 * Connecting out.  Every address of a name in turn, the next one begun while
 * the former is still tried (RFC 8305 5, without its sorting: getaddrinfo has
 * sorted by RFC 6724).
 */
#include "internal.h"

#include <netinet/tcp.h>
#include <stdio.h>

enum {
	TIMEOUT_MS = 30000,
	STAGGER_MS = 250, /* RFC 8305 8 */
	RETRY_MIN_MS = 1,
	RETRY_MAX_MS = 64,
	ENDPOINTS = 16,
	SOURCES = 4,
	TEXT = 512,
};

/* One address that is being tried. */
struct attempt {
	int fd;
	const struct ss_endpoint *to;
	int retry_ms;	  /* a full backlog: the last delay */
	int64_t retry_at; /* 0: it is being answered */
};

/* One call of ss_connect. */
struct dialing {
	struct ss_request *req; /* or NULL */
	const struct ss_connect_options *options;
	const char *text;
	bool named; /* the text is a name, which says not all */
	struct ss_diag *why;
	int64_t deadline;
	int64_t next_at; /* when the next one begins at the latest */
	int count, next; /* of `list` */
	int sources;
	int live; /* attempts */
	int code; /* the failure that `why` tells of */
	int won;  /* the descriptor; -1 */
	struct attempt attempts[ENDPOINTS];
	struct ss_endpoint list[ENDPOINTS];
	struct ss_endpoint source[SOURCES];
};

static int64_t clock_of(const struct dialing *d)
{
	return d->req ? now(d->req->server) : sys_now_ms();
}

/* ---- what failed ----------------------------------------------------------*/

/* Some say more than that there is no way there. */
static bool telling(int code)
{
	return code != -ENETUNREACH && code != -EHOSTUNREACH &&
	       code != -EAFNOSUPPORT && code != -EADDRNOTAVAIL;
}

static int refuse(struct dialing *d, const struct ss_endpoint *to, int code,
		  const char *step)
{
	if (d->code && !telling(code) && telling(d->code))
		return code;
	d->code = code;
	char url[SS_ADDRESS_TEXT];
	ss_url_format(to->scheme, &to->address, url, sizeof(url));
	if (d->named)
		return address_refuse(d->why, d->text, code, "%s: %s: %s", url,
				      step, strerror(-code));
	return address_refuse(d->why, url, code, "%s: %s", step,
			      strerror(-code));
}

/* ---- addresses ------------------------------------------------------------*/

struct lookup {
	const char *text;
	enum ss_scheme expect;
	struct ss_endpoint *list;
	size_t room;
	struct ss_diag *why;
};

static int look_up(void *arg)
{
	const struct lookup *l = arg;
	return (int)ss_resolve(l->text, l->expect, l->list, l->room, l->why);
}

/* How many are stored.  What is numeric needs nobody's help. */
static int resolve(struct dialing *d, struct lookup *l)
{
	l->why = d->why;
	int n = (int)address_parse(l->text, l->expect, l->list, l->room,
				   l->why);
	if (n == -EINPROGRESS) {
		d->named = d->named || l->text == d->text;
		n = d->req ? ss_offload(d->req, look_up, l) : look_up(l);
	}
	return n > (int)l->room ? (int)l->room : n;
}

static bool is_inet(enum ss_scheme scheme)
{
	return scheme == SS_SCHEME_TCP || scheme == SS_SCHEME_UDP;
}

static bool is_dgram(enum ss_scheme scheme)
{
	return scheme == SS_SCHEME_UDP || scheme == SS_SCHEME_UNIXGRAM;
}

static bool has_port(const char *text)
{
	const char *host = strstr(text, "://");
	host = host ? host + 3 : text;
	if (*host == '[')
		host += strcspn(host, "]");
	return strchr(host, ':');
}

static int resolve_source(struct dialing *d)
{
	const char *given = d->options->source;
	enum ss_scheme scheme = d->list[0].scheme;
	char text[TEXT];
	if (!given)
		return 0;
	bool any_port = is_inet(scheme) && !has_port(given);
	int n = snprintf(text, sizeof(text), "%s%s", given,
			 any_port ? ":0" : "");
	if (n < 0 || (size_t)n >= sizeof(text))
		return address_refuse(d->why, given, -ENAMETOOLONG,
				      "the source is too long");
	struct lookup l = { text, scheme, d->source, SOURCES, NULL };
	n = resolve(d, &l);
	if (n > 0 && d->source[0].scheme != scheme)
		return address_refuse(d->why, given, -EINVAL,
				      "no source for such an address");
	d->sources = n;
	return n;
}

static int resolve_all(struct dialing *d)
{
	struct lookup l = { d->text, SS_SCHEME_ANY, d->list, ENDPOINTS, NULL };
	int n = resolve(d, &l);
	if (n < 0)
		return n;
	d->count = n;
	if (!d->list[0].address.len)
		return address_refuse(d->why, d->text, -EINVAL,
				      "not an address to connect to");
	return resolve_source(d);
}

/* ---- one attempt ----------------------------------------------------------*/

static int set_on(int fd, int level, int name)
{
	int on = 1;
	return sys_setsockopt(fd, level, name, &on, sizeof(on)) == -1 ? -errno
								      : 0;
}

/* The source of the address's family. */
static const struct ss_address *source_for(const struct dialing *d,
					   const struct ss_endpoint *to)
{
	for (int i = 0; i < d->sources; i++)
		if (d->source[i].address.u.sa.sa_family ==
		    to->address.u.sa.sa_family)
			return &d->source[i].address;
	return NULL;
}

/* Without a name of its own nobody could reply to it (unix(7), autobind). */
static void bind_for_replies(int fd)
{
	static const struct sockaddr any = { .sa_family = AF_UNIX };
	sys_bind(fd, &any, sizeof(any.sa_family));
}

static int bind_source(const struct dialing *d, int fd,
		       const struct ss_endpoint *to)
{
	const struct ss_address *source = source_for(d, to);
	if (!source && d->sources)
		return -EAFNOSUPPORT;
	if (!source) {
		if (to->scheme == SS_SCHEME_UNIXGRAM)
			bind_for_replies(fd);
		return 0;
	}
#ifdef IP_BIND_ADDRESS_NO_PORT
	/* Many may then have one port, to several peers (ip(7)). */
	if (is_inet(to->scheme) && ss_address_port(source) == 0)
		set_on(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
#endif
	return sys_bind(fd, &source->u.sa, source->len) == -1 ? -errno : 0;
}

/* A socket that is ready to connect, or -errno. */
static int open_to(struct dialing *d, const struct ss_endpoint *to)
{
	const struct ss_connect_options *o = d->options;
	int type = is_dgram(to->scheme) ? SOCK_DGRAM : SOCK_STREAM;
	int fd =
		sys_socket(to->address.u.sa.sa_family, type | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return refuse(d, to, -errno, "socket");
	const char *step = "TCP_NODELAY";
	int r = 0;
	if (o->disable_nagle_algorithm && to->scheme == SS_SCHEME_TCP)
		r = set_on(fd, IPPROTO_TCP, TCP_NODELAY);
	if (r >= 0 && o->prepare) {
		step = "prepare";
		r = o->prepare(o->arg, fd);
	}
	if (r >= 0) {
		step = "bind";
		r = bind_source(d, fd, to);
	}
	if (r >= 0)
		return fd;
	sys_close(fd);
	return refuse(d, to, r, step);
}

/*
 * Without a listener, a port of our own may be chosen as the source of a
 * connection to that very port, and be answered: by itself (RFC 9293 3.5).
 */
static int refuse_itself(int fd)
{
	struct ss_address peer = { .len = sizeof(peer.u) }, local = peer;
	if (sys_getpeername(fd, &peer.u.sa, &peer.len) == -1 ||
	    sys_getsockname(fd, &local.u.sa, &local.len) == -1)
		return -errno;
	return ss_address_equal(&peer, &local) ? -ECONNREFUSED : 0;
}

static int answer_to(const struct attempt *a)
{
	int error = 0;
	socklen_t len = sizeof(error);
	if (sys_getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
		return -errno;
	if (error)
		return -error;
	return a->to->scheme == SS_SCHEME_TCP ? refuse_itself(a->fd) : 0;
}

/* It has an answer: it wins, or the next one begins. */
static void settle(struct dialing *d, int i, int r)
{
	struct attempt a = d->attempts[i];
	d->attempts[i] = d->attempts[--d->live];
	if (r == 0 && d->won < 0) {
		d->won = a.fd;
		return;
	}
	sys_close(a.fd);
	if (r == 0)
		return;
	refuse(d, a.to, r, "connect");
	d->next_at = 0;
}

static void knock(struct dialing *d, int i)
{
	struct attempt *a = &d->attempts[i];
	const struct ss_address *to = &a->to->address;
	int r = sys_connect(a->fd, &to->u.sa, to->len) == -1 ? -errno : 0;
	a->retry_at = 0;
	if (r == -EINPROGRESS || r == -EINTR)
		return;
	/* A full backlog, and nothing that would tell when it is not
	 * (connect(2)). */
	if (r == -EAGAIN && !is_inet(a->to->scheme)) {
		a->retry_ms = a->retry_ms ? 2 * a->retry_ms : RETRY_MIN_MS;
		if (a->retry_ms > RETRY_MAX_MS)
			a->retry_ms = RETRY_MAX_MS;
		a->retry_at = clock_of(d) + a->retry_ms;
		return;
	}
	settle(d, i, r == 0 ? answer_to(a) : r);
}

static void begin_next(struct dialing *d)
{
	const struct ss_endpoint *to = &d->list[d->next++];
	d->next_at = clock_of(d) + STAGGER_MS;
	int fd = open_to(d, to);
	if (fd < 0) {
		d->next_at = 0;
		return;
	}
	d->attempts[d->live++] = (struct attempt){ .fd = fd, .to = to };
	knock(d, d->live - 1);
}

/* ---- all of them ----------------------------------------------------------*/

/* ss_wait_any's for who has no request.  An interrupted one is an empty one. */
static int wait_alone(struct ss_wait *waits, int count, int64_t until)
{
	struct pollfd fds[ENDPOINTS];
	for (int i = 0; i < count; i++)
		fds[i] = (struct pollfd){ .fd = waits[i].fd,
					  .events = waits[i].events };
	int64_t ms = until == SS_NONE ? -1 : until - sys_now_ms();
	if (until != SS_NONE)
		ms = ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : ms;
	int n = sys_poll(fds, (nfds_t)count, (int)ms);
	if (n == -1)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < count; i++)
		waits[i].revents = fds[i].revents;
	return n;
}

static int64_t next_event(const struct dialing *d)
{
	int64_t at = d->deadline;
	if (d->next < d->count)
		at = nearest(at, d->next_at);
	for (int i = 0; i < d->live; i++)
		if (d->attempts[i].retry_at)
			at = nearest(at, d->attempts[i].retry_at);
	return at;
}

/* From the last on, since settling one puts the last in its place. */
static int wait_for_answers(struct dialing *d)
{
	struct ss_wait waits[ENDPOINTS] = { { 0 } };
	const int live = d->live;
	for (int i = 0; i < live; i++) {
		const struct attempt *a = &d->attempts[i];
		waits[i] = (struct ss_wait){ .fd = a->retry_at ? -1 : a->fd,
					     .events = POLLOUT };
	}
	int64_t until = next_event(d);
	int r = d->req ? ss_wait_any(d->req, waits, live, until)
		       : wait_alone(waits, live, until);
	if (r < 0)
		return r;
	int64_t at = clock_of(d);
	for (int i = live - 1; i >= 0; i--) {
		const struct attempt *a = &d->attempts[i];
		if (a->retry_at && a->retry_at <= at)
			knock(d, i);
		else if (waits[i].revents)
			settle(d, i, answer_to(a));
	}
	return 0;
}

static int dial(struct dialing *d)
{
	while (d->won < 0) {
		int64_t at = clock_of(d);
		int r = 0;
		if (d->deadline != SS_NONE && at >= d->deadline)
			r = -ETIMEDOUT;
		else if (d->next < d->count && (!d->live || at >= d->next_at))
			begin_next(d);
		else if (d->live)
			r = wait_for_answers(d);
		else
			return d->code;
		if (r < 0)
			return refuse(d,
				      d->live ? d->attempts[d->live - 1].to
					      : &d->list[0],
				      r, "connect");
	}
	return d->won;
}

int ss_connect(struct ss_request *req, const char *address,
	       const struct ss_connect_options *options, struct ss_diag *why)
{
	static const struct ss_connect_options defaults;
	if (why)
		*why = (struct ss_diag){ 0 };
	if (!options)
		options = &defaults;
	if (options->struct_size > sizeof(*options))
		return address_refuse(why, address, -EINVAL,
				      "options of a later version");
	/* Not on a stack, which may be small. */
	struct dialing *d = sys_calloc(1, sizeof(*d));
	if (!d)
		return address_refuse(why, address, -ENOMEM, "%s",
				      strerror(ENOMEM));
	d->req = req;
	d->text = address;
	d->options = options;
	d->why = why;
	d->won = -1;
	int ms = options->timeout_ms ? options->timeout_ms : TIMEOUT_MS;
	d->deadline = ms < 0 ? SS_NONE : clock_of(d) + ms;
	int r = resolve_all(d);
	if (r >= 0)
		r = dial(d);
	for (int i = 0; i < d->live; i++)
		sys_close(d->attempts[i].fd);
	if (r >= 0 && why)
		*why = (struct ss_diag){ 0 };
	sys_free(d);
	return r;
}
