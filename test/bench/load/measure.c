/*
 * The closed loop: every client has its messages under way, and the next as
 * soon as one is back.  So it goes as fast as the server, and servers compare
 * by what they cost.  First a warm-up, in which each client is served once;
 * then the window that counts, of a message for each client at least; then what
 * is under way may come in.
 */
#include "load.h"
#include "servercpu.h"

#define DRAIN (2000 * MS)
#define WARMUP_MAX (5000 * MS) /* for those who are not served */
#define WINDOW_MAX (2000 * MS) /* later, for a message a client */

enum phase { WARMUP, MEASURE, DRAINING, DONE };

/* Read when the measured window begins, and when it ends. */
struct edge {
	int64_t now, server, load; /* ns */
	uint64_t messages;
};

/* One a process; `next` finds it. */
static struct run {
	const struct measure *asked;
	enum phase phase;
	int64_t started, phase_end;
	int unserved;
	struct edge begin, end;
} run;

static void mark(const struct load *l, struct edge *edge)
{
	const pid_t server = run.asked->server;

	*edge = (struct edge){
		.server = server ? cpu_of_server(server) : 0,
		.load = cpu_of(getpid()),
		.messages = l->messages,
	};
	edge->now = bench_now();
}

static void go_on(struct load *l, struct client *c, int64_t now)
{
	if (run.unserved > 0 && c->served == now)
		run.unserved--;
	if (run.phase >= DRAINING)
		return;
	if (l->connects)
		client_start(l, c, now);
	else
		client_say(l, c,
			   l->depth - (int)((c->limit - c->got + l->size - 1) /
					    l->size),
			   now);
}

static bool over(const struct load *l, int64_t now)
{
	const uint64_t count = run.asked->count;
	const uint64_t counted = l->messages - run.begin.messages;

	if (l->alive == 0)
		return true;
	switch (run.phase) {
	case WARMUP:
		return now >= run.phase_end &&
		       (run.unserved == 0 || now >= run.started + WARMUP_MAX);
	case MEASURE:
		if (count && counted >= count)
			return true;
		return now >= run.phase_end + WINDOW_MAX ||
		       (now >= run.phase_end &&
			counted >= (uint64_t)l->clients_max);
	default:
		return now >= run.phase_end || l->under_way == 0;
	}
}

static void advance(struct load *l, int64_t now)
{
	if (!over(l, now))
		return;
	switch (run.phase++) {
	case WARMUP:
		mark(l, &run.begin);
		l->timed = true;
		run.phase_end = now + (int64_t)(run.asked->seconds * 1e9);
		break;
	case MEASURE:
		mark(l, &run.end);
		l->timed = false;
		run.phase_end = now + DRAIN;
		break;
	default:
		break;
	}
}

/* How long to sleep at most, ms. */
static int patience(const struct load *l, int64_t now)
{
	const int64_t left = (run.phase_end - now + MS - 1) / MS;
	const int64_t tick = l->waiting || run.phase == WARMUP ? 1 : 100;

	return (int)(left < 0 ? 0 : left < tick ? left : tick);
}

static void loop(struct load *l)
{
	int64_t tended = run.started;

	for (int64_t now = tended; run.phase < DONE; now = bench_now()) {
		advance(l, now);
		load_turn(l, patience(l, now));
		if (l->waiting || now - tended > 50 * MS) {
			load_tend(l, now, run.phase < DRAINING);
			tended = now;
		}
	}
}

/* Of the clients: how long they waited for their first echo. */
static void print_service(const struct load *l)
{
	const int64_t limit = (int64_t)(run.asked->in_time * 1e9);
	int in_time = 0, never = 0;
	int64_t slowest = 0;

	for (int i = 0; i < l->clients_max; i++) {
		const struct client *c = &l->clients[i];
		const int64_t waited = c->served - c->connected;

		never += !c->served;
		in_time += c->served && waited <= limit;
		if (c->served && waited > slowest)
			slowest = waited;
	}
	printf("\"served_in_time\": %d, \"never_served\": %d, "
	       "\"slowest_first_ms\": %.1f, ",
	       in_time, never, (double)slowest / 1e6);
}

static void print_times(const struct histogram *times)
{
	printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
	       "\"max_us\": %.1f, ",
	       (double)histogram_at(times, 0.5) / 1e3,
	       (double)histogram_at(times, 0.99) / 1e3,
	       (double)histogram_at(times, 0.999) / 1e3,
	       (double)times->max / 1e3);
}

static uint64_t report(const struct load *l)
{
	const uint64_t messages = run.end.messages - run.begin.messages;
	const double seconds = (double)(run.end.now - run.begin.now) / 1e9;

	printf("{\"mode\": \"%s\", \"connections\": %d, \"size\": %zu, "
	       "\"depth\": %d, \"seed\": %llu, ",
	       run.asked->mode, l->clients_max, l->size, l->depth,
	       (unsigned long long)l->seed);
	printf("\"all_messages\": %llu, \"messages\": %llu, "
	       "\"seconds\": %.6f, \"rate\": %.1f, ",
	       (unsigned long long)l->messages, (unsigned long long)messages,
	       seconds, seconds > 0 ? (double)messages / seconds : 0);
	if (run.asked->server)
		printf("\"server_cpu_s\": %.6f, ",
		       (double)(run.end.server - run.begin.server) / 1e9);
	printf("\"load_cpu_s\": %.6f, ",
	       (double)(run.end.load - run.begin.load) / 1e9);
	print_times(&l->times);
	print_service(l);
	printf("\"errors\": %llu, \"error\": \"%s\", \"unanswered\": %llu, "
	       "\"lost\": %llu}\n",
	       (unsigned long long)l->errors, l->error,
	       (unsigned long long)l->under_way, (unsigned long long)l->lost);
	return messages;
}

bool measure_run(struct load *l, const struct measure *asked)
{
	run.asked = asked;
	run.unserved = l->clients_max;
	run.started = bench_now();
	run.phase_end = run.started + (int64_t)(asked->warmup * 1e9);
	l->next = go_on;
	for (int i = 0; i < l->clients_max; i++)
		client_start(l, &l->clients[i], bench_now());
	loop(l);
	const bool right = report(l) > 0 && l->errors == 0 && !l->under_way;
	for (int i = 0; i < l->clients_max; i++)
		client_hang_up(l, &l->clients[i]);
	return right;
}
