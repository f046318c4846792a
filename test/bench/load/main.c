/*
 * The load, for any echo server, over TCP, UDP or Unix sockets.
 *
 *	pingpong  clients that stay, each with -d messages under way
 *	connect   connect, one message, its echo, half-close, the server's end
 *		  of file: that is one message
 *	hold	  clients that stay and are silent unless told: see hold.c
 *
 * It is one thread, and costs less than the servers that it is for; a run is
 * reported as a line of JSON.  Clients are spread over the addresses of
 * 127.0.0.0/8, or the ports would soon be used up by TIME_WAIT.
 */
#include "load.h"

#include <sys/resource.h>

static const char usage[] =
	"usage: load [-m pingpong|connect|hold] [-c CLIENTS] [-s SIZE]\n"
	"            [-d DEPTH] [-t SECONDS] [-w WARMUP] [-n MESSAGES]\n"
	"            [-f SERVED-IN-SECONDS] [-a SOURCES] [-o FIRST-SOURCE]\n"
	"            [-S SEED] [-p SERVER-PID] ADDRESS";

static double number(const char *text, double low, double high)
{
	char *end;
	const double value = strtod(text, &end);

	if (end == text || *end || !(value >= low && value <= high))
		bench_die(2, "'%s' is not between %g and %g", text, low, high);
	return value;
}

static void set(struct load *l, struct measure *m, int option)
{
	switch (option) {
	case 'm':
		m->mode = optarg;
		break;
	case 'c':
		l->clients_max = (int)number(optarg, 1, 1e6);
		break;
	case 's':
		l->size = (size_t)number(optarg, 1, 1 << 20);
		break;
	case 'd':
		l->depth = (int)number(optarg, 1, LOAD_DEPTH);
		break;
	case 't':
		m->seconds = number(optarg, 0.001, 3600);
		break;
	case 'w':
		m->warmup = number(optarg, 0, 60);
		break;
	case 'n':
		m->count = (uint64_t)number(optarg, 1, 1e15);
		break;
	case 'f':
		m->in_time = number(optarg, 0, 60);
		break;
	case 'a':
		l->sources = (int)number(optarg, 1, 60000);
		break;
	case 'o':
		l->first_source = (int)number(optarg, 0, 60000);
		break;
	case 'S':
		l->seed = (uint64_t)number(optarg, 0, 1e15);
		break;
	case 'p':
		m->server = (pid_t)number(optarg, 1, 1 << 30);
		break;
	default:
		bench_die(2, "%s", usage);
	}
}

static void check(struct load *l, const struct measure *m)
{
	const bool dgram = l->address.type == SOCK_DGRAM;
	const bool holds = strcmp(m->mode, "hold") == 0;

	l->connects = strcmp(m->mode, "connect") == 0;
	if (!l->connects && !holds && strcmp(m->mode, "pingpong") != 0)
		bench_die(2, "there is no mode '%s'", m->mode);
	if (dgram && (l->connects || holds))
		bench_die(2, "datagrams do not connect");
	if (dgram && l->size > 65507)
		bench_die(2, "%zu bytes are too many for a datagram", l->size);
	if (l->depth > 1 && (dgram || l->connects || holds))
		bench_die(2, "only streams in pingpong have several messages");
	if (l->size * (size_t)l->depth > 1 << 22)
		bench_die(2, "more than 4 MiB under way");
}

/* A descriptor for each client, as far as the system allows. */
static void raise_limit(const struct load *l)
{
	const rlim_t needed = (rlim_t)l->clients_max + 16;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max < needed)
		bench_die(1, "%d clients, but a process may open %llu files",
			  l->clients_max, (unsigned long long)limit.rlim_max);
}

int main(int argc, char **argv)
{
	static struct load load = {
		.size = 64,
		.depth = 1,
		.clients_max = 64,
		.seed = 1,
		.sources = 254,
	};
	struct measure measure = {
		.mode = "pingpong",
		.seconds = 1,
		.warmup = 0.1,
		.in_time = 2,
	};
	int option;

	while ((option = getopt(argc, argv, "m:c:s:d:t:w:n:f:a:o:S:p:")) != -1)
		set(&load, &measure, option);
	if (optind != argc - 1)
		bench_die(2, "%s", usage);
	load.address = bench_parse(argv[optind]);
	check(&load, &measure);
	raise_limit(&load);
	load_init(&load);
	return strcmp(measure.mode, "hold") == 0
		       ? !hold_run(&load)
		       : !measure_run(&load, &measure);
}
