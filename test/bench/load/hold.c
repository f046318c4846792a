/*
 * Many connections that are held and mostly silent.  Each line of standard
 * input asks for something, and is answered by a line of JSON; its end ends
 *all.
 *
 *	hold		makes the connections; the first thing to ask for
 *	echo		an echo on each of them, some at a time
 *	active K S	K of them go on echoing for S seconds
 */
#include "load.h"

#include <poll.h>

#define AT_A_TIME 256
#define PATIENCE (60000 * MS) /* without any progress */

static int64_t until; /* clients say more until then */
static int following; /* the next client to echo; -1: none has to */

static int64_t started;

static void begin_answer(struct load *l)
{
	memset(&l->times, 0, sizeof(l->times));
	l->messages = 0;
	started = bench_now();
}

static bool answer(const struct load *l, const char *what)
{
	const bool right = l->errors == 0 && l->under_way == 0;

	printf("{\"did\": \"%s\", \"connections\": %d, \"alive\": %d, "
	       "\"seconds\": %.3f, \"messages\": %llu, \"p50_us\": %.1f, "
	       "\"p99_us\": %.1f, \"max_us\": %.1f, \"errors\": %llu, "
	       "\"error\": \"%s\", \"unanswered\": %llu}\n",
	       what, l->clients_max, l->alive,
	       (double)(bench_now() - started) / 1e9,
	       (unsigned long long)l->messages,
	       (double)histogram_at(&l->times, 0.5) / 1e3,
	       (double)histogram_at(&l->times, 0.99) / 1e3,
	       (double)l->times.max / 1e3, (unsigned long long)l->errors,
	       l->error, (unsigned long long)l->under_way);
	fflush(stdout);
	return right;
}

/* The next one that is alive. */
static void follow(struct load *l, int64_t now)
{
	while (following >= 0 && following < l->clients_max) {
		struct client *c = &l->clients[following++];

		if (c->fd == -1)
			continue;
		client_say(l, c, 1, now);
		return;
	}
}

static void go_on(struct load *l, struct client *c, int64_t now)
{
	if (following >= 0)
		follow(l, now);
	else if (now < until)
		client_say(l, c, 1, now);
}

/* Until nothing is under way any more, or it does not get on. */
static void settle(struct load *l)
{
	uint64_t seen = l->messages;
	int64_t since = bench_now();

	while (l->under_way > 0 && bench_now() - since < PATIENCE) {
		load_turn(l, 100);
		if (l->messages != seen) {
			seen = l->messages;
			since = bench_now();
		}
	}
}

static bool connect_all(struct load *l)
{
	begin_answer(l);
	for (int i = 0; i < l->clients_max && l->errors == 0; i++)
		client_connect(l, &l->clients[i]);
	return answer(l, "hold");
}

static bool echo_all(struct load *l)
{
	begin_answer(l);
	following = 0;
	for (int i = 0; i < AT_A_TIME; i++)
		follow(l, bench_now());
	settle(l);
	following = -1;
	return answer(l, "echo");
}

static bool stay_active(struct load *l, int clients, double seconds)
{
	const int n = clients < l->clients_max ? clients : l->clients_max;

	begin_answer(l);
	until = started + (int64_t)(seconds * 1e9);
	for (int i = 0; i < n; i++) {
		/* Spread, so that they meet every part of the server. */
		struct client *c = &l->clients[(int64_t)i * l->clients_max / n];

		if (c->fd != -1)
			client_say(l, c, 1, started);
	}
	settle(l);
	return answer(l, "active");
}

/* While nothing is asked for, nothing may happen: an event is an error. */
static bool next_line(struct load *l, char *line, int size)
{
	struct pollfd fds[] = {
		{ .fd = STDIN_FILENO, .events = POLLIN },
		{ .fd = l->ep, .events = POLLIN },
	};

	while (poll(fds, 2, -1) != -1 || errno == EINTR) {
		if (fds[1].revents)
			load_turn(l, 0);
		if (fds[0].revents)
			return fgets(line, size, stdin) != NULL;
	}
	return false;
}

static bool obey(struct load *l, const char *line)
{
	double seconds;
	int clients;

	if (strcmp(line, "hold\n") == 0)
		return connect_all(l);
	if (strcmp(line, "echo\n") == 0)
		return echo_all(l);
	if (sscanf(line, "active %d %lf", &clients, &seconds) == 2)
		return stay_active(l, clients, seconds);
	bench_die(2, "what is '%s'?", line);
}

bool hold_run(struct load *l)
{
	char line[80];

	l->next = go_on;
	l->timed = true;
	following = -1;
	/* Line by line, as poll(2) sees it. */
	setvbuf(stdin, NULL, _IONBF, 0);
	bool right = true;
	while (right && next_line(l, line, sizeof(line)))
		right = obey(l, line);
	return right;
}
