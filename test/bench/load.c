/*
 * The load: N clients in one epoll loop, each with one message under way, and
 * the next as soon as every byte of the reply was compared.  Closed loop: it
 * goes as fast as the server, so that servers compare by what they cost.
 *
 *	pingpong  N connections (or UDP sockets) that stay
 *	connect   N at a time: connect, one message, its echo, half-close, the
 *		  server's end of file; that is one message
 *
 * After a warm-up it counts for some seconds, or until a number of messages;
 * then lets replies under way come in, and prints one line of JSON.  Clients
 * are spread over 127.0.0.1 to .254, or the ports would soon be used up by
 * connections in TIME_WAIT.
 */
#include "bench.h"
#include "histogram.h"
#include "servercpu.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#define MS INT64_C(1000000) /* ns */
#define EVENTS 256
#define POOL 65536
#define DRAIN (2000 * MS)
#define RESEND (200 * MS) /* a datagram not answered by then is lost */
#define SOURCES 254

struct client {
	int fd;
	uint32_t events;
	bool waits;   /* for room in the server's backlog (Unix) */
	bool closing; /* waits for end of file */
	bool busy;    /* a message is under way */
	bool served;  /* once at least */
	uint64_t id, turn;
	const unsigned char *message, *previous;
	size_t sent, got;
	int64_t began;
};

enum phase { WARMUP, MEASURE, DRAINING, DONE };

/* Read when the measured window begins, and when it ends. */
struct edge {
	int64_t now, cpu;
	uint64_t messages;
};

struct load {
	/* what is asked */
	struct bench_address address;
	const char *mode;
	size_t size;
	int clients_max;
	double seconds, warmup;
	uint64_t count, seed;
	pid_t server;
	bool connects;

	/* what happens */
	enum phase phase;
	int64_t phase_end, started;
	int ep, waiting, busy, alive;
	uint64_t source;
	struct client *clients;
	unsigned char *pool;

	/* what is found */
	struct edge begin, end;
	uint64_t messages, errors, lost;
	int64_t slowest_first;
	char error[160];
	struct histogram times;
};

static unsigned char scratch[65536];

/* https://prng.di.unimi.it/splitmix64.c */
static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static void make_pool(struct load *l)
{
	l->pool = malloc(POOL + l->size);
	if (!l->pool)
		bench_die(1, "no memory");
	for (size_t i = 0; i < POOL + l->size; i++)
		l->pool[i] = (unsigned char)mix(l->seed + i);
}

/* ---- one client ----------------------------------------------------------*/

static void watch(struct load *l, struct client *c, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = c };
	const int op = c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (c->events == events)
		return;
	if (epoll_ctl(l->ep, op, c->fd, &event) == -1)
		bench_die(1, "epoll_ctl: %s", strerror(errno));
	c->events = events;
}

static void idle(struct load *l, struct client *c)
{
	if (c->busy)
		l->busy--;
	c->busy = false;
}

static void hang_up(struct load *l, struct client *c)
{
	idle(l, c);
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
	hang_up(l, c);
	l->alive--;
}

static void begin_message(struct load *l, struct client *c, int64_t now)
{
	c->previous = c->message;
	c->message = l->pool + mix(l->seed ^ (c->id << 32) ^ c->turn++) % POOL;
	c->sent = c->got = 0;
	c->began = now;
	c->busy = true;
	l->busy++;
}

static void send_rest(struct load *l, struct client *c)
{
	const ssize_t n = send(c->fd, c->message + c->sent, l->size - c->sent,
			       MSG_NOSIGNAL);

	if (n == -1 && errno != EAGAIN) {
		fail(l, c, "send: %s", strerror(errno));
		return;
	}
	c->sent += n == -1 ? 0 : (size_t)n;
	watch(l, c, c->sent < l->size ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* From 127.0.0.1, .2, ...; the kernel chooses the port when it connects. */
static void bind_source(struct load *l, int fd)
{
	const struct sockaddr_in from = {
		.sin_family = AF_INET,
		.sin_addr.s_addr =
			htonl(0x7f000001 + (uint32_t)(l->source++ % SOURCES)),
	};

	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){ 1 },
		   sizeof(int));
	if (bind(fd, (const struct sockaddr *)&from, sizeof(from)) == -1)
		bench_die(1, "bind: %s", strerror(errno));
}

static void start(struct load *l, struct client *c, int64_t now)
{
	const int family = l->address.u.sa.sa_family;

	c->fd = socket(family, l->address.type | SOCK_NONBLOCK | SOCK_CLOEXEC,
		       0);
	if (c->fd == -1)
		bench_die(1, "socket: %s", strerror(errno));
	if (family == AF_INET && l->address.type == SOCK_STREAM) {
		bind_source(l, c->fd);
		if (!l->connects)
			setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 },
				   sizeof(int));
	}
	c->closing = false;
	const int rc = connect(c->fd, &l->address.u.sa, l->address.len);
	if (rc == -1 && errno == EAGAIN) {
		close(c->fd);
		c->fd = -1;
		c->waits = true;
		l->waiting++;
	} else if (rc == -1 && errno != EINPROGRESS) {
		fail(l, c, "connect: %s", strerror(errno));
	} else {
		begin_message(l, c, now);
		send_rest(l, c);
	}
}

static void go_on(struct load *l, struct client *c, int64_t now)
{
	if (l->phase >= DRAINING)
		return;
	if (l->connects) {
		start(l, c, now);
	} else {
		begin_message(l, c, now);
		send_rest(l, c);
	}
}

static void complete(struct load *l, struct client *c)
{
	const int64_t now = bench_now();

	l->messages++;
	if (l->phase == MEASURE)
		histogram_add(&l->times, (uint64_t)(now - c->began));
	if (!c->served && now - l->started > l->slowest_first)
		l->slowest_first = now - l->started;
	c->served = true;
	if (l->connects)
		hang_up(l, c);
	else
		idle(l, c);
	go_on(l, c, now);
}

/* The answer to a datagram that was sent twice. */
static bool stale(const struct load *l, const struct client *c, size_t n)
{
	return l->address.type == SOCK_DGRAM && l->lost > 0 && c->previous &&
	       n == l->size && memcmp(scratch, c->previous, n) == 0;
}

static void receive(struct load *l, struct client *c)
{
	const ssize_t n = recv(c->fd, scratch, sizeof(scratch), 0);

	if (n == -1 && errno == EAGAIN)
		return;
	if (n == -1)
		fail(l, c, "recv: %s", strerror(errno));
	else if (n == 0 && c->closing)
		complete(l, c);
	else if (n == 0 && l->address.type == SOCK_STREAM)
		fail(l, c, "end of file after %zu of %zu bytes", c->got,
		     l->size);
	else if (stale(l, c, (size_t)n))
		return;
	else if (!c->busy || (size_t)n > c->sent - c->got)
		fail(l, c, "%zd bytes where %zu were to come", n,
		     c->busy ? c->sent - c->got : 0);
	else if (memcmp(scratch, c->message + c->got, (size_t)n) != 0)
		fail(l, c, "wrong bytes, %zu of %zu before them", c->got,
		     l->size);
	else if (l->address.type == SOCK_DGRAM && (size_t)n != l->size)
		fail(l, c, "a datagram of %zd bytes instead of %zu", n,
		     l->size);
	else if ((c->got += (size_t)n) == l->size && !l->connects)
		complete(l, c);
	else if (c->got == l->size) {
		c->closing = true;
		shutdown(c->fd, SHUT_WR);
	}
}

static void on_event(struct load *l, struct client *c, uint32_t events)
{
	if (events & EPOLLOUT && c->busy && c->sent < l->size)
		send_rest(l, c);
	if (c->fd != -1 && events & ~(uint32_t)EPOLLOUT)
		receive(l, c);
}

/* ---- all of them ---------------------------------------------------------*/

/* Those whom the backlog had no room for, and lost datagrams. */
static void tend(struct load *l, int64_t now)
{
	const bool dgram = l->address.type == SOCK_DGRAM;

	if (!dgram && l->waiting == 0)
		return;
	for (int i = 0; i < l->clients_max; i++) {
		struct client *c = &l->clients[i];

		if (c->waits) {
			c->waits = false;
			l->waiting--;
			if (l->phase < DRAINING)
				start(l, c, now);
		} else if (dgram && c->busy && now - c->began > RESEND) {
			l->lost++;
			c->began = now;
			c->sent = 0;
			send_rest(l, c);
		}
	}
}

static void mark(const struct load *l, struct edge *edge)
{
	*edge = (struct edge){
		.cpu = l->server ? cpu_of_server(l->server) : 0,
		.messages = l->messages,
	};
	edge->now = bench_now();
}

/* Whether the phase is over. */
static bool over(const struct load *l, int64_t now)
{
	if (now >= l->phase_end || l->alive == 0)
		return true;
	if (l->phase == MEASURE)
		return l->count && l->messages - l->begin.messages >= l->count;
	return l->phase == DRAINING && l->busy == 0;
}

static void advance(struct load *l, int64_t now)
{
	if (!over(l, now))
		return;
	switch (l->phase++) {
	case WARMUP:
		mark(l, &l->begin);
		l->phase_end = now + (int64_t)(l->seconds * 1e9);
		break;
	case MEASURE:
		mark(l, &l->end);
		l->phase_end = now + DRAIN;
		break;
	default:
		break;
	}
}

/* How long to sleep at most, ms. */
static int patience(const struct load *l, int64_t now)
{
	const int64_t left = (l->phase_end - now + MS - 1) / MS;
	const int64_t tick = l->waiting ? 1 : 100;

	return (int)(left < 0 ? 0 : left < tick ? left : tick);
}

static void run(struct load *l)
{
	struct epoll_event events[EVENTS];
	int64_t tended = l->started = bench_now();

	l->phase_end = l->started + (int64_t)(l->warmup * 1e9);
	l->alive = l->clients_max;
	for (int i = 0; i < l->clients_max; i++) {
		l->clients[i].fd = -1;
		l->clients[i].id = (uint64_t)i;
		start(l, &l->clients[i], bench_now());
	}
	for (int64_t now = l->started; l->phase < DONE; now = bench_now()) {
		advance(l, now);
		const int n =
			epoll_wait(l->ep, events, EVENTS, patience(l, now));
		for (int i = 0; i < n; i++)
			on_event(l, events[i].data.ptr, events[i].events);
		if (l->waiting || now - tended > 50 * MS) {
			tend(l, now);
			tended = now;
		}
	}
	for (int i = 0; i < l->clients_max; i++)
		if (l->clients[i].fd != -1)
			close(l->clients[i].fd);
}

/* ---- what is asked, what is found ----------------------------------------*/

static int report(const struct load *l)
{
	const double seconds = (double)(l->end.now - l->begin.now) / 1e9;
	const uint64_t messages = l->end.messages - l->begin.messages;
	const double cpu = (double)(l->end.cpu - l->begin.cpu) / 1e9;
	int never = 0;

	for (int i = 0; i < l->clients_max; i++)
		never += !l->clients[i].served;
	printf("{\"mode\": \"%s\", \"connections\": %d, \"size\": %zu, "
	       "\"seed\": %llu, \"all_messages\": %llu, \"messages\": %llu, "
	       "\"seconds\": %.6f, \"rate\": %.1f, ",
	       l->mode, l->clients_max, l->size, (unsigned long long)l->seed,
	       (unsigned long long)l->messages, (unsigned long long)messages,
	       seconds, seconds > 0 ? (double)messages / seconds : 0);
	if (l->server)
		printf("\"server_cpu_s\": %.6f, \"server_cpu_us\": %.4f, ", cpu,
		       messages ? cpu * 1e6 / (double)messages : 0);
	printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
	       "\"max_us\": %.1f, ",
	       (double)histogram_at(&l->times, 0.5) / 1e3,
	       (double)histogram_at(&l->times, 0.99) / 1e3,
	       (double)histogram_at(&l->times, 0.999) / 1e3,
	       (double)l->times.max / 1e3);
	printf("\"errors\": %llu, \"error\": \"%s\", \"unanswered\": %d, "
	       "\"lost\": %llu, \"never_served\": %d, "
	       "\"slowest_first_ms\": %.1f}\n",
	       (unsigned long long)l->errors, l->error, l->busy,
	       (unsigned long long)l->lost, never,
	       (double)l->slowest_first / 1e6);
	return l->errors || l->busy || messages == 0 ? 1 : 0;
}

static double number(const char *text, double low, double high)
{
	char *end;
	const double value = strtod(text, &end);

	if (end == text || *end || !(value >= low && value <= high))
		bench_die(2, "'%s' is not between %g and %g", text, low, high);
	return value;
}

static const char usage[] =
	"usage: load [-c CLIENTS] [-s SIZE] [-m pingpong|connect]\n"
	"            [-t SECONDS] [-w WARMUP] [-n MESSAGES] [-S SEED]\n"
	"            [-p SERVER-PID] ADDRESS";

static void parse(struct load *l, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "c:s:m:t:w:n:S:p:")) != -1)
		switch (option) {
		case 'c':
			l->clients_max = (int)number(optarg, 1, 1e6);
			break;
		case 's':
			l->size = (size_t)number(optarg, 1, 1 << 20);
			break;
		case 'm':
			l->mode = optarg;
			break;
		case 't':
			l->seconds = number(optarg, 0.001, 600);
			break;
		case 'w':
			l->warmup = number(optarg, 0, 60);
			break;
		case 'n':
			l->count = (uint64_t)number(optarg, 1, 1e15);
			break;
		case 'S':
			l->seed = (uint64_t)number(optarg, 0, 1e15);
			break;
		case 'p':
			l->server = (pid_t)number(optarg, 1, 1 << 30);
			break;
		default:
			bench_die(2, "%s", usage);
		}
	if (optind != argc - 1)
		bench_die(2, "%s", usage);
	l->address = bench_parse(argv[optind]);
	l->connects = strcmp(l->mode, "connect") == 0;
	if (!l->connects && strcmp(l->mode, "pingpong") != 0)
		bench_die(2, "there is no mode '%s'", l->mode);
	if (l->connects && l->address.type == SOCK_DGRAM)
		bench_die(2, "datagrams do not connect");
	if (l->address.type == SOCK_DGRAM && l->size > 65507)
		bench_die(2, "%zu bytes are too many for a datagram", l->size);
}

/* A descriptor for each client, as far as the system allows. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	static struct load load = {
		.mode = "pingpong",
		.size = 64,
		.clients_max = 64,
		.seconds = 1,
		.warmup = 0.2,
		.seed = 1,
	};

	parse(&load, argc, argv);
	raise_limit();
	make_pool(&load);
	load.clients = calloc((size_t)load.clients_max, sizeof(struct client));
	load.ep = epoll_create1(EPOLL_CLOEXEC);
	if (!load.clients || load.ep == -1)
		bench_die(1, "%s", strerror(errno));
	run(&load);
	return report(&load);
}
