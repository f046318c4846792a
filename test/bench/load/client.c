/* One client: connects, says its part of the stream, compares the echo. */
#include "load.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>

#define EVENTS 256
#define PERIOD 65521	  /* of the stream; prime, so that no size divides it */
#define RESEND (200 * MS) /* a datagram not answered by then is lost */
#define SOURCES 254	  /* in each 127.0.x.0/24 */

static unsigned char scratch[65536];

/* https://prng.di.unimi.it/splitmix64.c */
static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* The stream goes on behind its period, so that all there is to be sent or
 * compared at a time lies in one piece. */
static void make_pool(struct load *l)
{
	const size_t window = l->size * (size_t)l->depth;
	const size_t n =
		PERIOD + (window > sizeof(scratch) ? window : sizeof(scratch));

	l->pool = malloc(n);
	if (!l->pool)
		bench_die(1, "no memory");
	for (size_t i = 0; i < n; i++)
		l->pool[i] = (unsigned char)mix(l->seed + i % PERIOD);
}

void load_init(struct load *l)
{
	const size_t n = (size_t)l->clients_max, depth = (size_t)l->depth;
	int64_t *began = calloc(n * depth, sizeof(*began));

	make_pool(l);
	l->clients = calloc(n, sizeof(*l->clients));
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	if (!l->clients || !began || l->ep == -1)
		bench_die(1, "%s", strerror(errno));
	for (size_t i = 0; i < n; i++) {
		l->clients[i].fd = -1;
		l->clients[i].base = mix(l->seed ^ (i << 32)) % PERIOD;
		l->clients[i].began = began + i * depth;
	}
	l->alive = l->clients_max;
}

static const unsigned char *stream(const struct load *l, const struct client *c,
				   uint64_t at)
{
	return l->pool + (c->base + at) % PERIOD;
}

/* Edge-triggered: one recv an event, as long as it stops short of its room. */
static void watch(struct load *l, struct client *c, uint32_t events)
{
	struct epoll_event event = {
		.events = events | EPOLLRDHUP | EPOLLET,
		.data.ptr = c,
	};
	const int op = c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (c->events == events)
		return;
	if (epoll_ctl(l->ep, op, c->fd, &event) == -1)
		bench_die(1, "epoll_ctl: %s", strerror(errno));
	c->events = events;
}

static uint64_t messages_of(const struct load *l, const struct client *c)
{
	return c->closing ? 1 : (c->limit - c->got + l->size - 1) / l->size;
}

void client_hang_up(struct load *l, struct client *c)
{
	l->under_way -= messages_of(l, c);
	c->sent = c->got = c->limit;
	c->closing = false;
	if (c->fd != -1)
		close(c->fd);
	c->fd = -1;
	c->events = 0;
}

/* The client is given up; the others go on. */
__attribute__((format(printf, 3, 4))) static void
fail(struct load *l, struct client *c, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (l->errors++ == 0)
		vsnprintf(l->error, sizeof(l->error), fmt, args);
	va_end(args);
	client_hang_up(l, c);
	l->alive--;
}

static void send_rest(struct load *l, struct client *c)
{
	const ssize_t n =
		send(c->fd, stream(l, c, c->sent), (size_t)(c->limit - c->sent),
		     MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n == -1 && errno != EAGAIN) {
		fail(l, c, "send: %s", strerror(errno));
		return;
	}
	c->sent += n == -1 ? 0 : (uint64_t)n;
	watch(l, c, c->sent < c->limit ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void client_say(struct load *l, struct client *c, int n, int64_t now)
{
	for (int i = 0; i < n; i++) {
		c->began[c->limit / l->size % (uint64_t)l->depth] = now;
		c->limit += l->size;
	}
	l->under_way += (uint64_t)n;
	send_rest(l, c);
}

/* ---- connecting ----------------------------------------------------------*/

/* The kernel chooses the port when it connects: only then it knows that the
 * pair of addresses is its own. */
static void bind_source(struct load *l, int fd)
{
	const uint32_t n = (uint32_t)l->first_source +
			   (uint32_t)(l->source++ % (uint64_t)l->sources);
	const struct sockaddr_in from = {
		.sin_family = AF_INET,
		.sin_addr.s_addr =
			htonl(0x7f000001 + (n / SOURCES << 8) + n % SOURCES),
	};

	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){ 1 },
		   sizeof(int));
	if (bind(fd, (const struct sockaddr *)&from, sizeof(from)) == -1)
		bench_die(1, "bind: %s", strerror(errno));
}

static int open_socket(struct load *l, int flags)
{
	const int family = l->address.u.sa.sa_family;
	const int fd =
		socket(family, l->address.type | flags | SOCK_CLOEXEC, 0);

	if (fd == -1)
		bench_die(1, "socket: %s", strerror(errno));
	if (family == AF_INET && l->address.type == SOCK_STREAM) {
		bind_source(l, fd);
		if (!l->connects)
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 },
				   sizeof(int));
	}
	return fd;
}

void client_start(struct load *l, struct client *c, int64_t now)
{
	c->fd = open_socket(l, SOCK_NONBLOCK);
	const int rc = connect(c->fd, &l->address.u.sa, l->address.len);
	if (rc == -1 && errno == EAGAIN) {
		close(c->fd);
		c->fd = -1;
		c->waits = true;
		l->waiting++;
	} else if (rc == -1 && errno != EINPROGRESS) {
		fail(l, c, "connect: %s", strerror(errno));
	} else {
		if (!c->connected)
			c->connected = now;
		client_say(l, c, l->depth, now);
	}
}

bool client_connect(struct load *l, struct client *c)
{
	const struct timeval patience = { .tv_sec = 30 };

	c->fd = open_socket(l, 0);
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(c->fd, &l->address.u.sa, l->address.len) == -1) {
		fail(l, c, "connect: %s", strerror(errno));
		return false;
	}
	c->connected = bench_now();
	watch(l, c, EPOLLIN);
	return true;
}

/* ---- the echo ------------------------------------------------------------*/

static void complete(struct load *l, struct client *c, uint64_t from)
{
	const int64_t now = bench_now();
	const uint64_t depth = (uint64_t)l->depth;

	for (uint64_t i = from / l->size; i < c->got / l->size; i++) {
		l->messages++;
		l->under_way--;
		if (l->timed)
			histogram_add(&l->times,
				      (uint64_t)(now - c->began[i % depth]));
	}
	if (!c->served)
		c->served = now;
	c->closing = false;
	if (l->connects)
		client_hang_up(l, c);
	l->next(l, c, now);
}

/* The answer to a datagram that was sent twice. */
static bool stale(const struct load *l, const struct client *c, size_t n)
{
	return l->address.type == SOCK_DGRAM && l->lost > 0 && n == l->size &&
	       c->got >= n && memcmp(scratch, stream(l, c, c->got - n), n) == 0;
}

/* All that was asked for is back; a server that loses it would be caught by
 * the end of file that comes too early, one that adds to it by what follows. */
static void half_close(struct client *c)
{
	c->closing = true;
	shutdown(c->fd, SHUT_WR);
}

static void compare(struct load *l, struct client *c, size_t n)
{
	const uint64_t from = c->got;

	if (stale(l, c, n))
		return;
	if (n > c->sent - c->got) {
		fail(l, c, "%zu bytes where %llu were to come", n,
		     (unsigned long long)(c->sent - c->got));
	} else if (memcmp(scratch, stream(l, c, c->got), n) != 0) {
		fail(l, c, "wrong bytes, %llu right before them",
		     (unsigned long long)c->got);
	} else if (l->address.type == SOCK_DGRAM && n != l->size) {
		fail(l, c, "a datagram of %zu bytes instead of %zu", n,
		     l->size);
	} else {
		c->got += n;
		if (l->connects && c->got == c->limit)
			half_close(c);
		else if (!l->connects && c->got / l->size > from / l->size)
			complete(l, c, from);
	}
}

/* True: once more, there may be more.  A short read was the last, unless a FIN
 * rides with the data, which then has no event of its own. */
static bool receive(struct load *l, struct client *c, bool hup)
{
	const ssize_t n = recv(c->fd, scratch, sizeof(scratch), MSG_DONTWAIT);
	const bool dgram = l->address.type == SOCK_DGRAM;

	if (n == -1 && errno == EAGAIN)
		return false;
	if (n == -1) {
		fail(l, c, "recv: %s", strerror(errno));
	} else if (n == 0 && c->closing) {
		complete(l, c, c->got - l->size);
		return false;
	} else if (n == 0 && !dgram) {
		fail(l, c, "end of file, %llu bytes early",
		     (unsigned long long)(c->limit - c->got));
	} else {
		compare(l, c, (size_t)n);
		return hup || n == sizeof(scratch) || (dgram && l->lost > 0);
	}
	return false;
}

static void on_event(struct load *l, struct client *c, uint32_t events)
{
	const bool hup = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);

	if (events & EPOLLOUT && c->sent < c->limit)
		send_rest(l, c);
	if (events & ~(uint32_t)EPOLLOUT)
		while (c->fd != -1 && receive(l, c, hup))
			;
}

void load_turn(struct load *l, int wait_ms)
{
	struct epoll_event events[EVENTS];
	const int n = epoll_wait(l->ep, events, EVENTS, wait_ms);

	for (int i = 0; i < n; i++)
		on_event(l, events[i].data.ptr, events[i].events);
}

void load_tend(struct load *l, int64_t now, bool start)
{
	const bool dgram = l->address.type == SOCK_DGRAM;

	for (int i = 0; (dgram || l->waiting) && i < l->clients_max; i++) {
		struct client *c = &l->clients[i];

		if (c->waits) {
			c->waits = false;
			l->waiting--;
			if (start)
				client_start(l, c, now);
		} else if (dgram && c->got < c->limit &&
			   now - c->began[0] > RESEND) {
			l->lost++;
			c->began[0] = now;
			c->sent = c->got;
			send_rest(l, c);
		}
	}
}
