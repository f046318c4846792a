/* The scenarios, each after its handler and its clients. */
#include "scenarios.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"

enum { HOUR_MS = 3600000 };

/* Before the simulation's own lots are drawn: SplitMix64. */
static unsigned pick(struct world *world, unsigned n)
{
	uint64_t z = world->lots += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (unsigned)((z ^ (z >> 31)) % n);
}

static struct world *world_of(const struct ss_request *req)
{
	return ss_server_user(ss_request_server(req));
}

static int64_t now_of(const struct world *world)
{
	return ss_now(ss_sim_server(world->sim));
}

static void use(struct world *world, const struct ss_layer *layer,
		const void *options)
{
	struct ss_use *use = world->config.mixins;
	while (use->layer)
		use++;
	*use = (struct ss_use){ layer, options };
}

static void enter_all(struct world *world, int within_ms,
		      void (*run)(struct ss_sim_client *client, void *arg))
{
	for (int i = 0; i < world->cast; i++)
		ss_sim_add(world->sim, pick(world, (unsigned)within_ms), run,
			   world);
}

/* What stands at a place of what somebody sends. */
static char pattern(int who, size_t at)
{
	return (char)('a' + (at * 7 + at / 26 + (size_t)who) % 26);
}

static void fill(char *buf, size_t n, int who, size_t at)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = pattern(who, at + i);
}

/* Receives up to n bytes of the pattern; how many came before its end. */
static size_t receive_pattern(struct ss_sim_client *client, int who, size_t at,
			      size_t n)
{
	char buf[2048];
	size_t have = 0;
	while (have < n) {
		size_t want = n - have < sizeof(buf) ? n - have : sizeof(buf);
		ssize_t r = ss_sim_recv(client, buf, want, SS_NONE);
		if (r <= 0)
			break;
		for (size_t i = 0; i < (size_t)r; i++)
			if (buf[i] != pattern(who, at + have + i))
				ss_sim_fail(ss_sim_of(client),
					    "byte %zu is '%c', not '%c'",
					    at + have + i, buf[i],
					    pattern(who, at + have + i));
		have += (size_t)r;
	}
	return have;
}

static void must(struct ss_sim_client *client, bool holds, const char *what)
{
	if (!holds)
		ss_sim_fail(ss_sim_of(client), "not so: %s", what);
}

/* ---- echo -----------------------------------------------------------------*/

static void echo_prepare(struct world *world)
{
	world->cast = 2 + (int)pick(world, 40);
	world->config.handler = &ss_echo_handler;
	if (pick(world, 2))
		world->options.window = 1 + (int)pick(world, 5000);
}

/* Leaves in one way or another, with so many bytes of answer still to come. */
static void leave(struct ss_sim_client *client, int who, size_t at, size_t n)
{
	switch (ss_sim_random(client, 4)) {
	case 0:
		ss_sim_reset(client);
		return;
	case 1:
		ss_sim_close(client);
		return;
	}
	ss_sim_shutdown(client);
	must(client, receive_pattern(client, who, at, n) == n,
	     "all comes back");
	ss_sim_hear_end(client);
}

static void echo_client(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	int who = (int)ss_sim_random(client, 26);
	char buf[20000];
	size_t sent = 0, got = 0;
	if (ss_sim_connect(client) < 0)
		ss_sim_fail(ss_sim_of(client), "cannot connect");
	for (unsigned left = ss_sim_random(client, 8); left; left--) {
		size_t n = 1 + ss_sim_random(client, 40);
		if (!ss_sim_random(client, 6))
			n = 1 + ss_sim_random(client, sizeof(buf));
		fill(buf, n, who, sent);
		ss_sim_send(client, buf, n);
		sent += n;
		if (ss_sim_random(client, 3))
			got += receive_pattern(client, who, got, sent - got);
		if (!ss_sim_random(client, 3))
			ss_sim_wait(client, ss_sim_random(client, HOUR_MS));
	}
	leave(client, who, got, sent - got);
}

static void echo_enter(struct world *world)
{
	enter_all(world, 1000, echo_client);
}

/* ---- cuts: connections that end where they like ---------------------------*/

static void cuts_prepare(struct world *world)
{
	echo_prepare(world);
	world->options.chaos.reset = 300;
	world->options.chaos.half_close = 300;
	world->options.chaos.cut_after = 1 + (int)pick(world, 3000);
}

static void cuts_client(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	int who = (int)ss_sim_random(client, 26);
	char buf[3000];
	size_t sent = 0, got = 0;
	ss_sim_connect(client);
	for (unsigned left = ss_sim_random(client, 8); left; left--) {
		size_t n = 1 + ss_sim_random(client, sizeof(buf));
		fill(buf, n, who, sent);
		ss_sim_send(client, buf, n);
		sent += n;
		got += receive_pattern(client, who, got, sent - got);
		if (got < sent)
			break;
	}
}

static void cuts_enter(struct world *world)
{
	enter_all(world, 1000, cuts_client);
}

/* ---- words: every way of reading, mixed -----------------------------------*/

static ssize_t try_all(struct ss_request *req, char *buf, size_t n)
{
	size_t have = 0;
	while (have < n) {
		struct ss_wait wait = { .req = req, .events = POLLIN };
		int r = ss_wait_any(req, &wait, 1, SS_NONE);
		ssize_t got =
			r < 0 ? r : ss_try_read(req, buf + have, n - have);
		if (got <= 0 && got != -EAGAIN)
			return got ? got : -ENODATA;
		if (got > 0)
			have += (size_t)got;
	}
	return (ssize_t)have;
}

/* A byte that says how, one that says how much, and that. */
static int word_of(struct ss_request *req, char how, size_t n)
{
	char buf[256];
	const void *data;
	ssize_t r = -EPROTO;
	switch (how) {
	case 'L':
		r = ss_read_line(req, buf, sizeof(buf));
		break;
	case 'R':
		r = ss_read_full(req, buf, n);
		break;
	case 'F':
		r = ss_read_frame(req, 2, buf, sizeof(buf), NULL);
		break;
	case 'N':
		r = ss_read_netstring(req, buf, sizeof(buf), NULL);
		break;
	case 'T':
		r = try_all(req, buf, n);
		break;
	case 'P':
		r = ss_peek(req, &data, n);
		if (r >= (ssize_t)n)
			memcpy(buf, data, n);
		if (r >= 0)
			r = ss_skip(req, n);
		break;
	}
	if (r != (ssize_t)n)
		return r < 0 ? (int)r : -EPROTO;
	r = ss_write(req, buf, n);
	return r < 0 ? (int)r : ss_flush(req);
}

static int words_once(struct ss_request *req)
{
	unsigned char head[2];
	ssize_t r = ss_read(req, head, 1);
	if (r <= 0)
		return (int)r;
	r = ss_read_full(req, head + 1, 1);
	if (r == 1)
		r = word_of(req, (char)head[0], head[1]);
	return r < 0 ? (int)r : SS_AGAIN;
}

static int words_handle(struct ss_request *req)
{
	struct world *world = world_of(req);
	int r;
	do
		r = words_once(req);
	while (r == SS_AGAIN && world->style);
	if (r < 0)
		ss_sim_fail(world->sim, "words: %s", strerror(-r));
	return r;
}

static void words_prepare(struct world *world)
{
	static const int sizes[] = { 0, 16, 40, SS_NONE };
	world->cast = 2 + (int)pick(world, 30);
	world->style = (int)pick(world, 2);
	world->handler = (struct ss_handler){
		.name = "words",
		.handle = words_handle,
		.rbufsize = sizes[pick(world, 4)],
		.wbufsize = sizes[pick(world, 4)],
	};
	if (world->handler.wbufsize == 0 && pick(world, 2))
		world->options.window = 1 + (int)pick(world, 100);
}

static size_t make_word(struct ss_sim_client *client, char *out, char *word,
			size_t *length)
{
	static const char ways[] = "LRFNTP";
	char how = ways[ss_sim_random(client, 6)];
	size_t n = 1 + ss_sim_random(client, how == 'P' ? 16 : 200);
	fill(word, n, (int)ss_sim_random(client, 26), 0);
	if (how == 'L')
		word[n - 1] = '\n';
	size_t at = 0;
	out[at++] = how;
	out[at++] = (char)n;
	if (how == 'F') {
		out[at++] = 0;
		out[at++] = (char)n;
	}
	if (how == 'N')
		at += (size_t)sprintf(out + at, "%zu:", n);
	memcpy(out + at, word, n);
	at += n;
	if (how == 'N')
		out[at++] = ',';
	*length = n;
	return at;
}

static void words_client(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	char out[2048], words[1024];
	ss_sim_connect(client);
	for (unsigned left = 1 + ss_sim_random(client, 8); left; left--) {
		size_t n = 0, length = 0, more;
		for (unsigned k = 1 + ss_sim_random(client, 4); k; k--) {
			n += make_word(client, out + n, words + length, &more);
			length += more;
		}
		ss_sim_send(client, out, n);
		ss_sim_hear(client, "%.*s", (int)length, words);
	}
	ss_sim_shutdown(client);
	ss_sim_hear_end(client);
}

static void words_enter(struct world *world)
{
	enter_all(world, 300, words_client);
}

/* ---- patience: every kind of time-out -------------------------------------*/

enum { FIRST_MS = 5000, IO_MS = 20000, IDLE_MS = 60000, TOTAL_MS = 200000 };

static void must_strike(struct world *world, const struct ss_request *req,
			int64_t since)
{
	static const int kinds[] = {
		[SS_TIMEOUT_IO] = IO_MS, [SS_TIMEOUT_IDLE] = IDLE_MS
	};
	enum ss_timeout kind = ss_request_timeout(req);
	int64_t took = now_of(world) - since;
	if (kind != SS_TIMEOUT_IO && kind != SS_TIMEOUT_IDLE)
		return;
	if (took != kinds[kind])
		ss_sim_fail(world->sim, "time-out %d after %lld ms", (int)kind,
			    (long long)took);
}

/* Reads byte by byte, so that each wait's beginning is known. */
static int patience_handle(struct ss_request *req)
{
	struct world *world = world_of(req);
	char byte = 0;
	while (byte != '\n') {
		int64_t since = now_of(world);
		ssize_t r = ss_read(req, &byte, 1);
		if (r == -ETIMEDOUT && !world->style)
			must_strike(world, req, since);
		if (r <= 0)
			return (int)r;
	}
	int r = (int)ss_write(req, "ok\n", 3);
	return r < 0 ? r : SS_AGAIN;
}

static int patience_loop(struct ss_request *req)
{
	int r;
	while ((r = patience_handle(req)) == SS_AGAIN)
		;
	return r;
}

static void patience_prepare(struct world *world)
{
	world->cast = 1 + (int)pick(world, world->fiber ? 60 : 6);
	world->style = (int)pick(world, 2);
	world->handler = (struct ss_handler){
		.name = "patience",
		.handle = world->style ? patience_handle : patience_loop,
		.timeouts = { .first_byte_ms = FIRST_MS,
			      .io_ms = IO_MS,
			      .idle_ms = IDLE_MS,
			      .total_ms = TOTAL_MS },
	};
}

/* The end comes then, as far as latency lets one say. */
static void must_end(struct ss_sim_client *client, struct world *world,
		     int64_t from, int64_t ms)
{
	const int slack = 100;
	ss_sim_hear_end(client);
	int64_t took = now_of(world) - from;
	if (world->fiber && (took < ms - slack || took > ms + slack))
		ss_sim_fail(world->sim, "the end after %lld ms, not %lld",
			    (long long)took, (long long)ms);
}

static void drip(struct ss_sim_client *client, struct world *world)
{
	int64_t begin = now_of(world), over = begin + TOTAL_MS;
	char byte;
	ssize_t r = -ETIMEDOUT;
	while (r == -ETIMEDOUT &&
	       (!world->fiber || now_of(world) < over + 2 * IO_MS)) {
		ss_sim_say(client, "x");
		r = ss_sim_recv(client, &byte, 1, IO_MS / 2);
	}
	must(client, r == 0, "who drips is ended");
	must(client, !world->fiber || now_of(world) <= over + 100,
	     "in time, too");
}

static void patience_client(struct ss_sim_client *client, void *arg)
{
	struct world *world = arg;
	ss_sim_connect(client);
	int64_t from = now_of(world);
	if (!ss_sim_random(client, 4)) {
		must_end(client, world, from, FIRST_MS);
		return;
	}
	if (!ss_sim_random(client, 4)) {
		drip(client, world);
		return;
	}
	ss_sim_say(client, "hello\n");
	if (!world->fiber) {
		char buf[8];
		while (ss_sim_recv(client, buf, sizeof(buf), SS_NONE) > 0)
			;
		return;
	}
	ss_sim_hear(client, "ok\n");
	ss_sim_wait(client, ss_sim_random(client, IO_MS));
	from = now_of(world);
	if (ss_sim_random(client, 2)) {
		ss_sim_say(client, "hel");
		must_end(client, world, from, IO_MS);
	} else {
		ss_sim_say(client, "hello\n");
		ss_sim_hear(client, "ok\n");
		must_end(client, world, from, IDLE_MS);
	}
}

/* Few at a time, or all. */
static void patience_enter(struct world *world)
{
	enter_all(world, pick(world, 2) ? HOUR_MS : IO_MS, patience_client);
}

/* ---- full: max_active, and what happens beyond it -------------------------*/

static int full_handle(struct ss_request *req)
{
	struct world *world = world_of(req);
	if (++world->active > world->most_active)
		ss_sim_fail(world->sim, "%d at a time, %d allowed",
			    world->active, world->most_active);
	int r = ss_sleep(req, 1 + world->begun++ * 37 % 400);
	if (r == 0)
		r = (int)ss_write(req, "done\n", 5);
	world->active--;
	return r < 0 ? r : 0;
}

static void full_prepare(struct world *world)
{
	static const enum ss_full ways[] = { SS_FULL_WAIT, SS_FULL_QUEUE,
					     SS_FULL_REFUSE };
	world->cast = 3 + (int)pick(world, 60);
	world->most_active = 1 + (int)pick(world, 6);
	world->handler = (struct ss_handler){ .name = "full",
					      .handle = full_handle,
					      .speaks_first = true };
	world->config.max_active = world->most_active;
	world->config.full = ways[pick(world, 3)];
	world->config.queue_size = 1 + (int)pick(world, 10);
	world->config.refusal = "full\n";
}

static void full_client(struct ss_sim_client *client, void *arg)
{
	struct world *world = arg;
	char got[6] = "";
	size_t have = 0;
	ssize_t r = 0;
	ss_sim_connect(client);
	while (have < 5 &&
	       (r = ss_sim_recv(client, got + have, 5 - have, SS_NONE)) > 0)
		have += (size_t)r;
	/* Of a refusal goes what goes without waiting. */
	if (strncmp(got, "full\n", have) == 0)
		world->refused++;
	else if (strcmp(got, "done\n") == 0)
		world->done++;
	else
		ss_sim_fail(world->sim, "it says \"%s\"", got);
	if (r > 0)
		ss_sim_hear_end(client);
}

static void full_enter(struct world *world)
{
	enter_all(world, 300, full_client);
}

static void full_judge(struct world *world)
{
	bool refuses = world->config.full == SS_FULL_REFUSE;
	if (world->refused + world->done != world->cast ||
	    (world->refused && !refuses))
		ss_sim_fail(world->sim, "%d done, %d refused, of %d",
			    world->done, world->refused, world->cast);
}

/* ---- drain: the server is stopped at the busiest time ---------------------*/

static int drain_handle(struct ss_request *req)
{
	struct world *world = world_of(req);
	char line[32];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	world->begun++;
	int ms = (int)strtol(line, NULL, 10), r = 0;
	for (int i = 0; i < 3 && r >= 0; i++) {
		r = ss_sleep(req, ms / 3);
		if (r >= 0)
			r = (int)ss_printf(req, "part %d\n", i);
	}
	if (r >= 0)
		world->done++;
	return r < 0 ? r : SS_AGAIN;
}

static int drain_finish(struct ss_request *req)
{
	struct world *world = world_of(req);
	world->last_end = now_of(world);
	return 0;
}

static void drain_prepare(struct world *world)
{
	world->cast = 2 + (int)pick(world, 40);
	world->style = (int)pick(world, 2); /* 1: all jobs have the time */
	world->config.drain_ms = world->style ? HOUR_MS : 500;
	world->options.window = 1 + (int)pick(world, 30);
	if (pick(world, 2)) {
		world->config.max_active = 1 + (int)pick(world, 6);
		world->config.full =
			pick(world, 2) ? SS_FULL_QUEUE : SS_FULL_WAIT;
	}
	world->handler = (struct ss_handler){ .name = "drain",
					      .handle = drain_handle,
					      .finish = drain_finish };
}

static void drain_client(struct ss_sim_client *client, void *arg)
{
	static const char answer[] = "part 0\npart 1\npart 2\n";
	struct world *world = arg;
	char got[sizeof(answer)] = "";
	while ((!world->stopped_at || ss_sim_random(client, 4)) &&
	       ss_sim_connect(client) == 0) {
		size_t have = 0, all = sizeof(answer) - 1;
		bool before = !world->stopped_at;
		ss_sim_say(client, "%u\n", ss_sim_random(client, 900));
		while (have < all) {
			ssize_t r = ss_sim_recv(client, got + have, all - have,
						SS_NONE);
			if (r <= 0)
				break;
			have += (size_t)r;
		}
		must(client, memcmp(got, answer, have) == 0, "as it answers");
		if (have < all && !world->stopped_at)
			ss_sim_fail(world->sim, "no answer before the stop");
		must(client, have == all || !world->style || !before,
		     "who came before the stop is served");
	}
}

/* Has an answer written that it never receives. */
static void drain_deaf(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	ss_sim_wait(client, ss_sim_random(client, 1000));
	if (ss_sim_connect(client) == 0)
		ss_sim_say(client, "1\n");
	ss_sim_wait(client, HOUR_MS);
}

static void drain_stopper(struct ss_sim_client *client, void *arg)
{
	struct world *world = arg;
	ss_sim_wait(client, ss_sim_random(client, 3000));
	world->stopped_at = now_of(world);
	ss_shutdown(ss_sim_server(world->sim));
	if (ss_sim_random(client, 4))
		return;
	ss_sim_wait(client, ss_sim_random(client, 1500));
	/* Now. */
	world->style = 0;
	ss_shutdown(ss_sim_server(world->sim));
}

static void drain_enter(struct world *world)
{
	enter_all(world, 1000, drain_client);
	ss_sim_add(world->sim, 0, drain_stopper, world);
	for (unsigned deaf = pick(world, 3); deaf && !world->style; deaf--)
		ss_sim_add(world->sim, 0, drain_deaf, world);
}

static void drain_judge(struct world *world)
{
	const int patience = 500 + 250 + 10;
	if (world->style && world->begun != world->done)
		ss_sim_fail(world->sim, "%d begun, %d done", world->begun,
			    world->done);
	if (world->config.drain_ms == 500 &&
	    world->last_end > world->stopped_at + patience)
		ss_sim_fail(world->sim, "the last ends %lld ms after the stop",
			    (long long)(world->last_end - world->stopped_at));
}

/* ---- strikes: ss_cancel and ss_wake, at any time --------------------------*/

static int struck_wait(struct ss_request *req, int how)
{
	char byte;
	switch (how) {
	case 0:
		return ss_sleep(req, 100 * HOUR_MS);
	case 1:
		return (int)ss_read(req, &byte, 1);
	}
	struct ss_wait wait = { .req = req, .events = POLLIN };
	return ss_wait_any(req, &wait, 1, SS_NONE);
}

/* Its client says which part it has. */
static int strikes_handle(struct ss_request *req)
{
	struct world *world = world_of(req);
	char line[32];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	struct part *part = &world->parts[strtol(line, NULL, 10)];
	int how = (int)(part - world->parts) % 3;
	part->id = ss_request_id(req);
	ss_write(req, "ok\n", 3);
	for (;;) {
		int r = struck_wait(req, how);
		bool right = part->struck ? r == -ECANCELED
					  : part->woken && r == -EINTR;
		if (!right || part->struck_at != now_of(world))
			ss_sim_fail(
				world->sim,
				"wait %d says %d, struck: %d "
				"%d, %lld ms ago",
				how, r, part->struck, part->woken,
				(long long)(now_of(world) - part->struck_at));
		part->woken = false;
		if (r == -ECANCELED || !right)
			return r;
	}
}

static void strikes_prepare(struct world *world)
{
	world->cast = 1 + (int)pick(world, 60);
	world->handler = (struct ss_handler){ .name = "strikes",
					      .handle = strikes_handle };
}

static void strikes_client(struct ss_sim_client *client, void *arg)
{
	struct world *world = arg;
	int number = world->begun++;
	struct ss_server *server = ss_sim_server(world->sim);
	struct part *part = &world->parts[number];
	ss_sim_connect(client);
	ss_sim_say(client, "%d\n", number);
	ss_sim_hear(client, "ok\n");
	for (unsigned left = ss_sim_random(client, 4); left; left--) {
		ss_sim_wait(client, 1 + ss_sim_random(client, HOUR_MS));
		if (number % 3 == 1)
			continue;
		part->woken = true;
		part->struck_at = now_of(world);
		must(client, ss_wake(server, part->id) == 0, "it is woken");
	}
	ss_sim_wait(client, 1 + ss_sim_random(client, HOUR_MS));
	part->struck = true;
	part->struck_at = now_of(world);
	must(client, ss_cancel(server, part->id) == 0, "it is cancelled");
	ss_sim_hear_end(client);
	must(client, ss_wake(server, part->id) == -ENOENT, "it has ended");
}

static void strikes_enter(struct world *world)
{
	enter_all(world, 1000, strikes_client);
}

/* ---- flood: clients that take their time to read --------------------------*/

static int flood_handle(struct ss_request *req)
{
	struct world *world = world_of(req);
	char line[32], buf[4000];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	size_t size = (size_t)strtol(line, NULL, 10), sent = 0;
	while (sent < size) {
		size_t part = 1 + (size * 31 + sent * 17) % sizeof(buf);
		if (part > size - sent)
			part = size - sent;
		fill(buf, part, 0, sent);
		int64_t since = now_of(world);
		struct iovec iov[3] = { { buf, part / 3 },
					{ buf + part / 3, part / 3 },
					{ buf + 2 * (part / 3),
					  part - 2 * (part / 3) } };
		n = part % 2 ? ss_writev(req, iov, 3)
			     : ss_write(req, buf, part);
		if (n == -ETIMEDOUT && now_of(world) < since + IO_MS)
			ss_sim_fail(world->sim, "out of patience early");
		if (n < 0)
			return (int)n;
		sent += part;
	}
	return SS_AGAIN;
}

static void flood_prepare(struct world *world)
{
	world->cast = 1 + (int)pick(world, 20);
	world->options.window = 1 + (int)pick(world, 4000);
	world->handler = (struct ss_handler){
		.name = "flood",
		.handle = flood_handle,
		.wbufsize = pick(world, 2) ? (int)pick(world, 3000) : 0,
		.timeouts = { .io_ms = IO_MS },
	};
}

static void flood_client(struct ss_sim_client *client, void *arg)
{
	struct world *world = arg;
	size_t n = 1 + ss_sim_random(client, 40000), got = 0;
	ss_sim_connect(client);
	ss_sim_say(client, "%zu\n", n);
	while (got < n) {
		size_t part = 1 + ss_sim_random(client, 8000);
		if (!ss_sim_random(client, 30)) {
			/* It was, for too long: what comes then ends early. */
			ss_sim_wait(client, 2 * IO_MS);
			receive_pattern(client, 0, got, n - got);
			return;
		}
		ss_sim_wait(client, ss_sim_random(client, IO_MS / 4));
		if (part > n - got)
			part = n - got;
		size_t r = receive_pattern(client, 0, got, part);
		got += r;
		must(client, r == part || !world->fiber, "all of it comes");
		if (r < part)
			return;
	}
	ss_sim_shutdown(client);
	if (!world->handler.wbufsize)
		ss_sim_hear_end(client);
}

static void flood_enter(struct world *world)
{
	enter_all(world, 1000, flood_client);
}

/* ---- room: handlers that wake one another ---------------------------------*/

static void room_tell(struct world *world, int from, int what)
{
	struct ss_server *server = ss_sim_server(world->sim);
	for (int i = 0; i < world->cast; i++) {
		struct part *part = &world->parts[i];
		if (i == from || !part->id)
			continue;
		part->from[part->posted % 256] = from;
		part->mail[part->posted++ % 256] = what;
		if (ss_wake(server, part->id) < 0)
			ss_sim_fail(world->sim, "%d is not woken", i);
	}
}

/* What is posted while it is told of by ss_wake alone. */
static int room_read_mail(struct ss_request *req, struct part *part)
{
	for (int there = part->posted; part->read < there;) {
		int i = part->read++ % 256;
		ssize_t r =
			ss_printf(req, "%d %d\n", part->from[i], part->mail[i]);
		if (r < 0)
			return (int)r;
	}
	return 0;
}

static int room_listen(struct ss_request *req, struct world *world, int number)
{
	struct part *part = &world->parts[number];
	for (;;) {
		struct ss_wait wait = { .req = req, .events = POLLIN };
		int r = room_read_mail(req, part);
		if (r == 0)
			r = ss_wait_any(req, &wait, 1, SS_NONE);
		if (r == -EINTR)
			continue;
		unsigned char byte;
		ssize_t n = r < 0 ? r : ss_try_read(req, &byte, 1);
		if (n == -EAGAIN)
			continue;
		if (n <= 0)
			return (int)n;
		room_tell(world, number, byte);
	}
}

static int room_handle(struct ss_request *req)
{
	struct world *world = world_of(req);
	int number = world->active++;
	struct part *part = &world->parts[number];
	part->id = ss_request_id(req);
	int r = (int)ss_printf(req, "%d\n", number);
	if (r >= 0)
		r = room_listen(req, world, number);
	part->id = 0;
	return r;
}

static void room_prepare(struct world *world)
{
	world->cast = 2 + (int)pick(world, 12);
	world->style = 1 + (int)pick(world, 15); /* words of each */
	world->handler = (struct ss_handler){ .name = "room",
					      .handle = room_handle,
					      .speaks_first = true };
}

static int read_number(struct ss_sim_client *client)
{
	int number = 0;
	for (;;) {
		char byte;
		if (ss_sim_recv(client, &byte, 1, SS_NONE) != 1)
			ss_sim_fail(ss_sim_of(client), "expected a number");
		if (byte < '0' || byte > '9')
			return number;
		number = 10 * number + byte - '0';
	}
}

static void room_client(struct ss_sim_client *client, void *arg)
{
	struct world *world = arg;
	int last[CAST_MOST] = { 0 };
	ss_sim_connect(client);
	int me = read_number(client);
	while (world->active < world->cast)
		ss_sim_wait(client, 1 + ss_sim_random(client, 50));
	for (int word = 1; word <= world->style; word++) {
		unsigned char byte = (unsigned char)word;
		ss_sim_send(client, &byte, 1);
		ss_sim_wait(client, ss_sim_random(client, 30));
	}
	for (int left = (world->cast - 1) * world->style; left; left--) {
		int from = read_number(client), word = read_number(client);
		if (from == me || word != ++last[from])
			ss_sim_fail(world->sim, "%d hears %d from %d", me, word,
				    from);
	}
	world->done++;
	while (world->done < world->cast) {
		ss_sim_wait(client, 1 + ss_sim_random(client, 50));
		must(client, now_of(world) < HOUR_MS, "all hear all");
	}
}

static void room_enter(struct world *world)
{
	enter_all(world, 100, room_client);
}

/* ---- packets --------------------------------------------------------------*/

static void packets_prepare(struct world *world)
{
	struct ss_chaos_options *chaos = &world->options.chaos;
	world->cast = 1 + (int)pick(world, 30);
	world->config.handler = &ss_echo_handler;
	world->config.transport = &ss_udp_server;
	chaos->lost = (int)pick(world, 300);
	chaos->duplicated = (int)pick(world, 300);
	chaos->reordered = (int)pick(world, 500);
}

/* Asks again until there is an answer, as one does. */
static void packets_client(struct ss_sim_client *client, void *arg)
{
	(void)arg;
	char asked[32], got[32];
	ss_sim_connect(client);
	for (int i = 0; i < 10; i++) {
		int n = snprintf(asked, sizeof(asked), "question %d", i), tries;
		for (tries = 0; tries < 200; tries++) {
			ss_sim_send(client, asked, (size_t)n + 1);
			ssize_t r = ss_sim_recv(client, got, sizeof(got), 100);
			while (r > 0 && strcmp(got, asked) != 0) {
				must(client, strtol(got + 9, NULL, 10) < i,
				     "an answer to an earlier question");
				r = ss_sim_recv(client, got, sizeof(got), 100);
			}
			if (r > 0)
				break;
		}
		must(client, tries < 200, "one of 200 is answered");
	}
}

static void packets_enter(struct world *world)
{
	enter_all(world, 100, packets_client);
}

/* ---- rate: what the limits layer lets in ----------------------------------*/

static void rate_prepare(struct world *world)
{
	world->cast = 20 + (int)pick(world, 100);
	world->config.handler = &ss_echo_handler;
	world->limits = (struct ss_limits_options){
		.rate = 1 + (int)pick(world, 20),
		.burst = 1 + (int)pick(world, 10),
		.refusal = "slow\n",
	};
	use(world, &ss_limits_mixin, &world->limits);
}

static void rate_client(struct ss_sim_client *client, void *arg)
{
	struct world *world = arg;
	char got[8];
	ss_sim_connect(client);
	ss_sim_say(client, "fast\n");
	ss_sim_shutdown(client);
	ssize_t n = 0, r;
	while (n < 5 &&
	       (r = ss_sim_recv(client, got + n, 5 - (size_t)n, SS_NONE)) > 0)
		n += r;
	if (n == 5 && memcmp(got, "fast\n", 5) == 0)
		world->done++;
	else
		world->refused++;
}

static void rate_enter(struct world *world)
{
	enter_all(world, 10000, rate_client);
}

static int rate_check(void *arg, struct ss_sim *sim)
{
	struct world *world = arg;
	struct ss_limits_stats stats;
	int r = ss_limits_get(ss_sim_server(sim), &stats);
	int64_t most = world->limits.burst +
		       now_of(world) * world->limits.rate / 1000 + 1;
	if (r == 0 && (int64_t)stats.admitted > most)
		return ss_sim_fail(sim, "%llu came in, and not %lld",
				   (unsigned long long)stats.admitted,
				   (long long)most);
	return r;
}

static void rate_judge(struct world *world)
{
	if (!world->done)
		ss_sim_fail(world->sim, "nobody came in");
}

/* ---- the list, and one play -----------------------------------------------*/

#define SCENARIO(name) .prepare = name##_prepare, .enter = name##_enter
const struct scenario scenarios[] = {
	{ "echo", SCENARIO(echo) },
	{ "cuts", SCENARIO(cuts) },
	{ "words", SCENARIO(words) },
	{ "patience", SCENARIO(patience) },
	{ "full", SCENARIO(full), .judge = full_judge },
	{ "drain", SCENARIO(drain), .judge = drain_judge },
	{ "strikes", SCENARIO(strikes), .fiber = true },
	{ "flood", SCENARIO(flood) },
	{ "room", SCENARIO(room), .fiber = true },
	{ "packets", SCENARIO(packets) },
	{ "rate", SCENARIO(rate), .check = rate_check, .judge = rate_judge },
};
#undef SCENARIO
const int scenario_count = sizeof(scenarios) / sizeof(*scenarios);

const struct scenario *scenario_named(const char *name)
{
	for (int i = 0; i < scenario_count; i++)
		if (strcmp(scenarios[i].name, name) == 0)
			return &scenarios[i];
	return NULL;
}

static void tell_nobody(void *arg, struct ss_server *server, uint64_t id,
			const char *operation)
{
	(void)arg, (void)server, (void)id, (void)operation;
}

/* Layers that change nothing but the way that requests take. */
static void prepare(struct world *world, const struct scenario *scenario)
{
	world->fiber = scenario->fiber || pick(world, 4);
	world->unheard.tell = tell_nobody;
	world->config.user = world;
	world->config.handler = &world->handler;
	world->config.log_level = SS_NONE;
	world->fibers.loops = 1;
	scenario->prepare(world);
	if (!pick(world, 4))
		use(world, &ss_metrics_mixin, NULL);
	if (!pick(world, 4))
		use(world, &ss_trace_mixin, &world->unheard);
	if (world->fiber)
		use(world, &ss_fiber_mixin, &world->fibers);
	world->options.no_chaos = !pick(world, 8);
	world->options.latency_ms = pick(world, 4) ? 0 : SS_NONE;
	world->options.check = scenario->check;
}

int scenario_play(const struct scenario *scenario, uint64_t seed,
		  void (*trace)(void *world, const char *line),
		  uint64_t *digest, struct ss_diag *why)
{
	struct world *world = calloc(1, sizeof(*world));
	if (!world)
		return -ENOMEM;
	world->lots = seed;
	world->options.seed = seed;
	prepare(world, scenario);
	world->options.trace = trace;
	world->options.arg = world;
	int r = ss_sim_new(&world->sim, &world->config, &world->options, why);
	if (r < 0) {
		free(world);
		return r;
	}
	scenario->enter(world);
	r = ss_sim_run(world->sim, SS_NONE, why);
	if (r == 0 && scenario->judge)
		scenario->judge(world);
	if (r == 0)
		r = ss_sim_run(world->sim, SS_NONE, why);
	*digest = ss_sim_digest(world->sim);
	ss_sim_free(world->sim);
	free(world);
	return r;
}
