/*
 * The public calls in any order that their contracts allow, and those that they
 * answer with an error: two servers in one thread, and their clients, whose
 * bytes are what the handler does.  The input: two bytes for each server that
 * is made, and then calls with their arguments.
 */
#include "fuzz.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../lib/sys.h"

enum { SERVERS = 2, CLIENTS = 5, CALLS = 300, BYTES = 12 };

/* Memory, or a socket. */
struct client {
	struct ss_memory_client *memory;
	int fd;
};

struct world {
	struct ss_server *server;
	bool memory, dgram, fiber, activated, closed;
	int shutdowns; /* that no loop has taken yet */
	int begun, ended;
	struct client client[CLIENTS];
};

static struct world worlds[SERVERS];
static int listeners_made;

static struct world *world_of(const struct ss_server *server)
{
	return ss_server_user(server);
}

/* ---- time, which passes only where somebody waits for it ------------------*/

static int64_t clock_ms;

static int64_t fake_now_ms(void)
{
	return clock_ms;
}

static int64_t fake_now_us(void)
{
	return clock_ms * 1000;
}

static void pass(int ms)
{
	must(ms >= 0, "it waits for ever, and nobody else is there");
	clock_ms += ms;
}

static int fake_poll(struct pollfd *fds, nfds_t n, int ms)
{
	int r = poll(fds, n, 0);
	if (r == 0)
		pass(ms);
	return r;
}

#ifdef SS_LINUX
static int fake_epoll_wait(int epfd, struct epoll_event *events, int n, int ms)
{
	int r = epoll_wait(epfd, events, n, 0);
	if (r == 0)
		pass(ms);
	return r;
}
#endif

static void stop_time(void)
{
	clock_ms = 1000;
	sys_table.now_ms = fake_now_ms;
	sys_table.now_us = fake_now_us;
	sys_table.poll = fake_poll;
#ifdef SS_LINUX
	sys_table.epoll_wait = fake_epoll_wait;
#endif
}

/* ---- each request, once ---------------------------------------------------*/

struct counted {
	bool ended;
	bool set_up, finished;
};

static const struct ss_layer count_layer;

static int count_get(struct ss_server *server, struct ss_listener *listener,
		     struct ss_request **req)
{
	int r = ss_super(server, &count_layer)
			->get_request(server, listener, req);
	world_of(server)->begun += r >= 0;
	return r;
}

static void count_end(struct ss_server *server, struct ss_request *req,
		      int status)
{
	struct counted *counted = ss_request_layer_state(req, &count_layer);
	must(!counted->ended, "a request ends twice");
	must(status <= 0, "a status of %d", status);
	must(counted->set_up == counted->finished, "finish has not run");
	counted->ended = true;
	world_of(server)->ended++;
	ss_super(server, &count_layer)->end_request(server, req, status);
}

static const struct ss_layer count_layer = {
	.name = "count",
	.request_size = sizeof(struct counted),
	.ops = { .get_request = count_get, .end_request = count_end },
};

/* ---- the handler ----------------------------------------------------------*/

static int setup(struct ss_request *req)
{
	struct counted *counted = ss_request_layer_state(req, &count_layer);
	must(!counted->set_up, "setup runs twice");
	counted->set_up = true;
	return 0;
}

static int finish(struct ss_request *req)
{
	struct counted *counted = ss_request_layer_state(req, &count_layer);
	must(counted->set_up && !counted->finished, "finish runs twice");
	counted->finished = true;
	return 0;
}

/* What a handler must not do is said to it. */
static void must_not(struct ss_server *server)
{
	int r = ss_server_turn(server, 0);
	must(r == -EDEADLK || r == -EBADF, "turn: %d", r);
	r = ss_serve_forever(server);
	must(r == -EDEADLK || r == -EBADF, "serve_forever: %d", r);
	r = ss_handle_request(server);
	must(r == -EDEADLK || r == -EBADF, "handle_request: %d", r);
	must(ss_server_close(server) == -EDEADLK, "it closes");
	must(ss_server_free(server) == -EDEADLK, "it is freed");
	r = ss_shutdown_wait(server, ss_now(server) + 1);
	must(r == -EDEADLK, "shutdown_wait: %d", r);
}

static ssize_t look_around(struct ss_request *req)
{
	struct ss_wait wait = { .req = req, .events = POLLIN };
	struct ss_server *server = ss_request_server(req);
	return ss_wait_any(req, &wait, 1, ss_now(server) + 2);
}

static ssize_t leave(struct ss_request *req)
{
	int fd = ss_detach(req);
	if (fd >= 0)
		close(fd);
	return 0;
}

static ssize_t act(struct ss_request *req, uint8_t what)
{
	static const char zeros[600];
	const struct ss_timeouts short_ones = { .io_ms = 2 };
	struct ss_server *server = ss_request_server(req);
	char buf[8];
	switch (what % 16) {
	case 1:
		return ss_sleep(req, 3);
	case 2:
		return ss_fail(req, -EPROTO, "as was asked");
	case 3:
		ss_shutdown(server);
		world_of(server)->shutdowns++;
		return 0;
	case 4:
		must_not(server);
		return 0;
	case 5:
		return ss_request_set_timeouts(req, &short_ones);
	case 6:
		return ss_shutdown_stream(req, SHUT_WR);
	case 7:
		return ss_read_full(req, buf, 5);
	case 8:
		return ss_write(req, zeros, sizeof(zeros));
	case 9:
		return leave(req);
	case 10:
		return ss_cancel(server, ss_request_id(req));
	case 11:
		must(ss_wake(server, ss_request_id(req)) == 0, "wake");
		must(ss_sleep(req, 2) < 0, "it sleeps on");
		return 0;
	case 12:
		ss_hold(server, SS_HOLD_USER << (what >> 5));
		return 0;
	case 13:
		ss_release(server, SS_HOLD_USER << (what >> 5));
		return 0;
	case 14:
		return look_around(req);
	case 15:
		return -ECONNRESET;
	default:
		return ss_write(req, &what, 1);
	}
}

/* A byte a call, or all of them. */
static int handle(struct ss_request *req)
{
	bool straight = ss_request_handler(req)->user;
	ssize_t r;
	uint8_t what;
	do {
		r = ss_read(req, &what, 1);
		if (r <= 0)
			return (int)r;
		r = act(req, what);
	} while (straight && r >= 0);
	return r < 0 ? (int)r : SS_AGAIN;
}

/* ---- servers --------------------------------------------------------------*/

static void quiet(void *arg, struct ss_server *server, uint64_t id,
		  const char *operation)
{
	(void)arg, (void)server, (void)id, (void)operation;
}

static void add_layers(struct ss_config *config, uint8_t choice)
{
	static const struct ss_trace_options trace = { .kinds = 7,
						       .tell = quiet };
	static const struct ss_limits_options limits = { .max_per_source = 2,
							 .max_sources = 4 };
	static const struct ss_metrics_options metrics = { .max_shown = 2 };
	static const struct ss_fiber_options one_loop = { .loops = 1 };
	struct ss_use *use = config->mixins;
	*use++ = (struct ss_use){ &count_layer, NULL };
	if (choice & 1)
		*use++ = (struct ss_use){ &ss_fiber_mixin, &one_loop };
	if (choice & 2)
		*use++ = (struct ss_use){ &ss_metrics_mixin, &metrics };
	if (choice & 4)
		*use++ = (struct ss_use){ &ss_access_mixin, NULL };
	if (choice & 8)
		*use++ = (struct ss_use){ &ss_limits_mixin, &limits };
	if (choice & 16)
		*use++ = (struct ss_use){ &ss_trace_mixin, &trace };
}

static void make(struct world *w, struct input *in)
{
	static const struct ss_handler handlers[] = {
		{ .setup = setup, .handle = handle, .finish = finish },
		{ .setup = setup,
		  .handle = handle,
		  .finish = finish,
		  .wbufsize = SS_NONE,
		  .speaks_first = true,
		  .user = worlds },
	};
	static const struct ss_layer *const transports[] = {
		&ss_memory_server, &ss_memory_server,
		&ss_memory_datagram_server, &ss_unix_stream_server
	};
	uint8_t layers = take_byte(in), choice = take_byte(in);
	char address[64];
	struct ss_diag why;
	*w = (struct world){ .memory = (choice & 3) != 3,
			     .dgram = (choice & 3) == 2,
			     .fiber = layers & 1 };
	struct ss_config config = {
		.transport = transports[choice & 3],
		.handler = &handlers[layers >> 7],
		.user = w,
		.timeout_ms = 1,
		.drain_ms = 4,
		.max_active = layers >> 5 & 3,
		.full = (enum ss_full)((choice >> 2) % 3),
		.queue_size = choice & 16,
		.refusal = choice & 32 ? "full\n" : NULL,
		.log_level = SS_NONE,
		.no_bind = choice & 64,
	};
	if (!w->memory) {
		/* Nobody but this thread could send what a handler awaits. */
		config.timeouts = (struct ss_timeouts){ .first_byte_ms = 2,
							.io_ms = 2,
							.idle_ms = 2 };
		snprintf(address, sizeof(address), "unix:@ss-fuzz-%ld-%d",
			 (long)getpid(), listeners_made++);
		config.addresses[0] = address;
	}
	for (int i = 0; i < CLIENTS; i++)
		w->client[i].fd = -1;
	add_layers(&config, layers);
	must(ss_server_new(&w->server, &config, &why) == 0, "%s", why.text);
	w->activated = !config.no_bind;
}

static int count_one(void *arg, const struct ss_snapshot *snapshot)
{
	++*(uint64_t *)arg;
	must(snapshot->id > 0 && snapshot->age_ms >= 0, "a snapshot");
	return 0;
}

static void must_add_up(struct world *w)
{
	struct ss_stats s;
	uint64_t live = 0;
	ss_server_stats(w->server, &s);
	ss_each(w->server, count_one, &live);
	must(s.ended == (uint64_t)w->ended, "%d ended, and %llu are counted",
	     w->ended, (unsigned long long)s.ended);
	must(s.accepted == s.ended + s.active + s.queued,
	     "%llu accepted, %llu ended, %llu active, %llu queued",
	     (unsigned long long)s.accepted, (unsigned long long)s.ended,
	     (unsigned long long)s.active, (unsigned long long)s.queued);
	must(live == s.active + s.queued, "%llu live, %llu active, %llu queued",
	     (unsigned long long)live, (unsigned long long)s.active,
	     (unsigned long long)s.queued);
	must(!w->closed || live == 0, "closed, and %llu live",
	     (unsigned long long)live);
}

static void close_server(struct world *w)
{
	int r = ss_server_close(w->server);
	must(r == 0, "%d abandoned", r);
	w->closed = true;
	must_add_up(w);
	must(w->begun == w->ended, "%d began, %d ended", w->begun, w->ended);
}

/* ---- clients --------------------------------------------------------------*/

static bool is_open(const struct client *c)
{
	return c->memory || c->fd >= 0;
}

static int dial(const struct world *w)
{
	struct ss_address to;
	if (ss_server_address(w->server, 0, &to) < 0)
		return -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	must(fd >= 0, "socket: %s", strerror(errno));
	if (connect(fd, &to.u.sa, to.len) == 0)
		return fd;
	close(fd);
	return -1;
}

static void client_open(const struct world *w, struct client *c)
{
	if (is_open(c))
		return;
	if (!w->memory) {
		c->fd = dial(w);
		must(c->fd < 0 || !w->closed, "it connects to a closed server");
		return;
	}
	int r = ss_memory_connect(w->server, &c->memory);
	must(r == (w->closed || !ss_server_listeners(w->server) ? -EBADF : 0),
	     "connect: %d", r);
}

static void client_send(const struct client *c, struct input bytes)
{
	if (c->memory) {
		ssize_t r = ss_memory_send(c->memory, bytes.at, bytes.left);
		must(r == (ssize_t)bytes.left || r == -EPIPE || r == -EBADF,
		     "send: %zd", r);
	} else if (c->fd >= 0) {
		send(c->fd, bytes.at, bytes.left, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
}

static void client_shutdown(const struct client *c)
{
	if (c->memory)
		ss_memory_shutdown(c->memory);
	else if (c->fd >= 0)
		shutdown(c->fd, SHUT_WR);
}

static void client_recv(struct world *w, const struct client *c)
{
	char buf[400];
	if (!c->memory) {
		if (c->fd >= 0)
			recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);
		return;
	}
	ssize_t r = ss_memory_recv(c->memory, buf, sizeof(buf));
	must(r >= 0 || r == -EAGAIN || r == -ECANCELED || r == -EBADF,
	     "recv: %zd", r);
	must(r != -ECANCELED || w->shutdowns, "nobody has shut it down");
	must(r != -EBADF || w->closed, "it is not closed");
	w->shutdowns -= r == -ECANCELED;
}

static void client_close(struct client *c)
{
	if (c->memory)
		ss_memory_close(c->memory);
	if (c->fd >= 0)
		close(c->fd);
	*c = (struct client){ .fd = -1 };
}

static void client_give(struct world *w, struct client *c)
{
	int ends[2];
	if (is_open(c) || !w->activated)
		return;
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0,
	     "socketpair: %s", strerror(errno));
	c->fd = ends[0];
	int r = ss_serve_fd(w->server, ends[1]);
	must(r == (w->closed   ? -EBADF
		   : w->memory ? -ENOTSUP
			       : 0) ||
		     (w->closed && w->memory),
	     "serve_fd: %d", r);
	w->begun += r == 0;
	if (w->memory)
		client_close(c);
}

/* ---- calls ----------------------------------------------------------------*/

static void turned(struct world *w, int r, int before)
{
	int wanted = w->closed || !w->activated ? -EBADF
		     : before			? -ECANCELED
						: 0;
	if (wanted)
		must(r == wanted, "%d instead of %d", r, wanted);
	must(r >= 0 || wanted || (r == -ECANCELED && w->shutdowns), "turn: %d",
	     r);
	w->shutdowns -= r == -ECANCELED;
}

static void turn(struct world *w, int64_t ahead)
{
	int before = w->shutdowns;
	int64_t deadline = ahead ? ss_now(w->server) + ahead : 0;
	turned(w, ss_server_turn(w->server, deadline), before);
}

static void serve_forever(struct world *w)
{
	ss_shutdown(w->server);
	w->shutdowns++;
	int r = ss_serve_forever(w->server);
	must(r == (w->closed || !w->activated ? -EBADF : 0), "serve: %d", r);
	w->shutdowns -= r == 0;
}

/* Under fiber it serves the one to its end. */
static void handle_request(struct world *w)
{
	int before = w->shutdowns;
	for (int i = 0; w->fiber && i < CLIENTS; i++)
		client_shutdown(&w->client[i]);
	turned(w, ss_handle_request(w->server), before);
}

static void serve_both(void)
{
	struct ss_server *both[SERVERS];
	bool usable = true;
	for (int i = 0; i < SERVERS; i++) {
		both[i] = worlds[i].server;
		usable &= worlds[i].activated && !worlds[i].closed;
	}
	for (int i = 0; i < SERVERS; i++) {
		ss_shutdown(both[i]);
		worlds[i].shutdowns++;
	}
	int r = ss_serve(both, SERVERS);
	must(r == (usable ? 0 : -EBADF), "serve: %d", r);
	for (int i = 0; i < SERVERS; i++)
		worlds[i].shutdowns -= r == 0;
}

static void hold(struct world *w, uint8_t what)
{
	unsigned reason = what & 8 ? (unsigned)SS_HOLD_SUSPENDED
				   : (unsigned)SS_HOLD_USER << (what & 7);
	if (what & 16)
		ss_hold(w->server, reason);
	else
		ss_release(w->server, reason);
	must(ss_holding(w->server, reason) == !!(what & 16), "hold %u", reason);
}

struct pick {
	int left;
	uint64_t id;
};

static int pick_one(void *arg, const struct ss_snapshot *snapshot)
{
	struct pick *pick = arg;
	pick->id = snapshot->id;
	return pick->left-- == 0;
}

/* Of a live request, or, if there is none, of any. */
static void reach_in(struct world *w, uint8_t what)
{
	struct pick pick = { .left = what & 7, .id = 0 };
	ss_each(w->server, pick_one, &pick);
	bool live = pick.id != 0;
	int r = what & 8 ? ss_cancel(w->server, live ? pick.id : what)
			 : ss_wake(w->server, live ? pick.id : what);
	must(live ? r == 0 : r == -ENOENT || r == 0, "%d", r);
}

static void set_limits(struct world *w, struct input *in)
{
	struct ss_diag why;
	int n = (int)(take_byte(in) % 8) - 1;
	int r = ss_limit_active(w->server, n);
	must(r == (n < 0 ? -EINVAL : 0), "limit_active(%d): %d", n, r);
	must(n < 0 || ss_active_limit(w->server) == n, "%d instead of %d",
	     ss_active_limit(w->server), n);
	const struct ss_limits_options limits = {
		.max_per_source = take_byte(in) % 4,
		.rate = take_byte(in) % 4,
	};
	bool has = ss_server_has(w->server, &ss_limits_mixin);
	r = ss_limits_set(w->server, &limits, &why);
	must(has ? r == 0 || r == -EBADF : r == -ENOTSUP, "limits_set: %d", r);
	has = ss_server_has(w->server, &ss_access_mixin);
	r = ss_access_set(w->server, NULL, n ? "uid:1" : "uid:0 gid:0", &why);
	must(r == (has ? 0 : -ENOTSUP), "access_set: %d", r);
}

static void set_level(struct world *w, uint8_t what)
{
	int level = (int)(what % 8) - 2, before = ss_log_level(w->server);
	int r = ss_set_log_level(w->server, level);
	bool known = level >= SS_NONE && level <= SS_LOG_DEBUG;
	must(r == (known ? 0 : -EINVAL), "log level %d: %d", level, r);
	must(known || ss_log_level(w->server) == before, "it has changed");
	ss_set_log_level(w->server, SS_NONE);
}

static void ask(struct world *w, uint8_t index)
{
	char text[SS_ADDRESS_TEXT];
	struct ss_address address;
	int at = (int)index - 2, count = ss_server_listeners(w->server);
	bool there = at >= 0 && at < count;
	must(!ss_server_url(w->server, at, text, sizeof(text)) == !there,
	     "the URL of %d", at);
	int r = ss_server_address(w->server, at, &address);
	must((r == -EINVAL) == !there, "the address of %d: %d", at, r);
	r = ss_server_fileno(w->server, at);
	must(r >= 0 ? there && !w->memory : r == -EINVAL || r == -ENOTSUP,
	     "the descriptor of %d: %d", at, r);
	must(*ss_server_describe(w->server), "it has no description");
}

static void bind_it(struct world *w)
{
	struct ss_diag why;
	bool bound = ss_server_listeners(w->server) > 0;
	int r = ss_server_bind(w->server, &why);
	must(bound || w->closed ? r < 0 && why.code == r : r == 0, "bind: %d",
	     r);
	r = ss_server_activate(w->server, &why);
	must(w->activated || w->closed ? r == -EBADF : r == 0, "activate: %d",
	     r);
	w->activated |= r == 0;
}

static void end(struct world *w)
{
	for (int i = 0; w->memory && i < CLIENTS; i++)
		client_close(&w->client[i]);
	close_server(w);
	must(ss_server_free(w->server) == 0, "free");
	for (int i = 0; i < CLIENTS; i++)
		client_close(&w->client[i]);
	w->server = NULL;
}

static void call(struct world *w, struct input *in)
{
	uint8_t what = take_byte(in), more = take_byte(in);
	struct client *c = &w->client[more % CLIENTS];
	struct input bytes = { in->at, more >> 4 };
	switch (what % 22) {
	case 0:
	case 1:
		client_open(w, c);
		return;
	case 2:
	case 3:
		if (bytes.left > in->left)
			bytes.left = in->left;
		for (size_t i = 0; i < bytes.left; i++)
			take_byte(in);
		client_send(c, bytes);
		return;
	case 4:
		client_shutdown(c);
		return;
	case 5:
		client_recv(w, c);
		return;
	case 6:
		client_close(c);
		return;
	case 7:
		turn(w, 0);
		return;
	case 8:
		turn(w, 1);
		return;
	case 9:
		if (more & 1)
			ss_shutdown(w->server);
		else
			must(ss_shutdown_wait(w->server, SS_NONE) == 0, "wait");
		w->shutdowns++;
		return;
	case 10:
		serve_forever(w);
		return;
	case 11:
		handle_request(w);
		return;
	case 12:
		close_server(w);
		return;
	case 13:
		hold(w, more);
		return;
	case 14:
		set_limits(w, in);
		return;
	case 15:
		reach_in(w, more);
		return;
	case 16:
		set_level(w, more);
		return;
	case 17:
		client_give(w, c);
		return;
	case 18:
		serve_both();
		return;
	case 19:
		end(w);
		make(w, in);
		return;
	case 20:
		bind_it(w);
		return;
	default:
		ask(w, more % 6);
	}
}

/* ---- all of it ------------------------------------------------------------*/

static int open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;
	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

FUZZ_TARGET(sequence)(const uint8_t *data, size_t n)
{
	struct input in = { data, n };
	int before = open_descriptors();
	struct sys_table saved = sys_table;
	stop_time();
	for (int i = 0; i < SERVERS; i++)
		make(&worlds[i], &in);
	for (int i = 0; i < CALLS && in.left; i++) {
		struct world *w = &worlds[take_byte(&in) % SERVERS];
		call(w, &in);
		must_add_up(w);
	}
	for (int i = 0; i < SERVERS; i++)
		end(&worlds[i]);
	sys_table = saved;
	must(open_descriptors() == before, "%d descriptors, and then %d",
	     before, open_descriptors());
	return 0;
}
