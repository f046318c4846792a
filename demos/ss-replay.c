/*
 * ss-replay: holds what was recorded by ss_record_mixin with a live server once
 * more, and says where its answers differ; or shows what a recording has.
 *
 * The events of the file come one after another, so that connections are open
 * beside each other as they were: bytes are sent, and what was answered then is
 * waited for, before the next.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <socketserver/record.h>

enum {
	SAME,
	DIFFERENT,
	WRONG_USE,
	PATIENCE_MS = 5000,
	QUIET_MS = 200, /* for datagrams that were not recorded */
	ROOM = 65536,
	ENDPOINTS = 8,
};

#define NOBODY SIZE_MAX

struct client {
	int fd;		  /* -1: not open */
	uint64_t got;	  /* bytes, or datagrams */
	uint64_t awaited; /* events of output */
	bool ended;	  /* by the server */
};

struct replay {
	struct ss_recording *recording;
	struct client *clients;
	size_t count;
	struct ss_endpoint place;
	double speed; /* 0: as fast as it goes */
	int64_t only; /* an id; -1: all */
	int patience_ms;
	int64_t began;
	struct pollfd *fds;
	size_t *whose;
	unsigned char *room;
};

static void complain(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));

static void complain(const char *fmt, ...)
{
	va_list args;

	fflush(stdout);
	fputs("ss-replay: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const struct ss_recorded *told(const struct replay *replay, size_t i)
{
	return ss_recording_connection(replay->recording, i);
}

/* ---- what is answered -----------------------------------------------------*/

/* bytes NULL: the end. */
static int hold_against(const struct replay *replay, size_t number,
			const void *bytes, size_t n)
{
	struct ss_diag why;
	int r = ss_recording_compare(replay->recording, number,
				     replay->clients[number].got, bytes, n,
				     &why);

	if (r > 0)
		printf("%s\n", why.text);
	return r > 0 ? DIFFERENT : SAME;
}

/* What came; 0 also where nothing did. */
static int hear(struct replay *replay, size_t number)
{
	struct client *client = &replay->clients[number];
	bool dgram = told(replay, number)->dgram;
	ssize_t n = recv(client->fd, replay->room, ROOM, MSG_DONTWAIT);
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return SAME;
	if (n <= 0 && !(n == 0 && dgram)) {
		client->ended = true;
		return dgram ? SAME : hold_against(replay, number, NULL, 0);
	}
	r = hold_against(replay, number, replay->room, (size_t)n);
	client->got += dgram ? 1 : (uint64_t)n;
	return r;
}

/* All that are open, until the time has come or one of them is ready: the
 * sender for output, or anybody for input. */
static int hear_all(struct replay *replay, size_t sender, int64_t until)
{
	nfds_t n = 0;
	int64_t left = until - now_ms();

	for (size_t i = 0; i < replay->count; i++) {
		const struct client *client = &replay->clients[i];
		short events = (short)(client->ended ? 0 : POLLIN);

		if (i == sender)
			events |= POLLOUT;
		if (client->fd < 0 || events == 0)
			continue;
		replay->fds[n] = (struct pollfd){ client->fd, events, 0 };
		replay->whose[n++] = i;
	}
	if (left < 0)
		left = 0;
	if (poll(replay->fds, n, left > 60000 ? 60000 : (int)left) <= 0)
		return SAME;
	for (nfds_t i = 0; i < n; i++) {
		short came = replay->fds[i].revents;

		if ((came & ~POLLOUT) == 0)
			continue;
		if (replay->clients[replay->whose[i]].ended)
			continue;
		int r = hear(replay, replay->whose[i]);

		if (r != SAME)
			return r;
	}
	return SAME;
}

static int wait_until(struct replay *replay, int64_t until)
{
	int r;

	do
		r = hear_all(replay, NOBODY, until);
	while (r == SAME && now_ms() < until);
	return r;
}

/* ---- what a client does ---------------------------------------------------*/

static int open_client(struct replay *replay, size_t number)
{
	const struct ss_address *to = &replay->place.address;
	bool dgram = told(replay, number)->dgram;
	struct client *client = &replay->clients[number];
	const int on = 1;
	int fd = socket(to->u.sa.sa_family,
			(dgram ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);

	/* So that there is an address to answer to. */
	const struct sockaddr_un own = { .sun_family = AF_UNIX };
	bool named = !dgram || to->u.sa.sa_family != AF_UNIX ||
		     bind(fd, (const struct sockaddr *)&own,
			  sizeof(sa_family_t)) == 0;

	if (fd < 0 || !named || connect(fd, &to->u.sa, to->len) != 0) {
		complain("connection #%" PRIu64 ": %s",
			 told(replay, number)->id, strerror(errno));
		if (fd >= 0)
			close(fd);
		return DIFFERENT;
	}
	if (!dgram && to->u.sa.sa_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	client->fd = fd;
	return SAME;
}

/* Whom the server has left can be told nothing. */
static int say(struct replay *replay, struct client *client,
	       const unsigned char *bytes, size_t n)
{
	int64_t until = now_ms() + replay->patience_ms;
	size_t number = (size_t)(client - replay->clients);
	size_t done = 0;
	int r = SAME;

	do {
		ssize_t sent = send(client->fd, bytes + done, n - done,
				    MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent >= 0) {
			done += (size_t)sent;
			until = now_ms() + replay->patience_ms;
		} else if (errno != EAGAIN && errno != EINTR) {
			return SAME;
		} else if (now_ms() >= until) {
			complain("the server takes no input");
			return DIFFERENT;
		} else {
			r = hear_all(replay, number, until);
		}
	} while (r == SAME && done < n && !client->ended);
	return r;
}

/* What was cut off has its length. */
static int say_input(struct replay *replay, struct client *client,
		     const struct ss_recorded_event *event)
{
	unsigned char *whole = malloc(event->size > 0 ? event->size : 1);
	int r;

	if (whole == NULL) {
		complain("%s", strerror(ENOMEM));
		return WRONG_USE;
	}
	memset(whole, 'x', event->size);
	if (event->kept > 0)
		memcpy(whole, event->bytes, event->kept);
	r = say(replay, client, whole, event->size);
	free(whole);
	return r;
}

static void hang_up(struct client *client, bool reset)
{
	const struct linger now = { .l_onoff = 1 };

	if (client->fd < 0)
		return;
	if (reset)
		setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &now,
			   sizeof(now));
	close(client->fd);
	client->fd = -1;
}

/* What had been answered until then. */
static int await_output(struct replay *replay,
			const struct ss_recorded_event *event, int64_t until)
{
	struct client *client = &replay->clients[event->connection];
	bool dgram = told(replay, event->connection)->dgram;
	uint64_t number = ++client->awaited;
	uint64_t wanted = dgram ? number : event->offset + event->size;
	int r = SAME;

	while (r == SAME && client->got < wanted && !client->ended) {
		if (now_ms() >= until)
			return hold_against(replay, event->connection, NULL, 0);
		r = hear_all(replay, NOBODY, until);
	}
	return r;
}

static int await_end(struct replay *replay,
		     const struct ss_recorded_event *event, int64_t until)
{
	struct client *client = &replay->clients[event->connection];
	const struct ss_recorded *connection = told(replay, event->connection);
	int r = SAME;

	if (event->stopping && !connection->dgram)
		shutdown(client->fd, SHUT_WR);
	if (connection->dgram)
		until = now_ms() + QUIET_MS;
	while (r == SAME && connection->whole && !client->ended &&
	       now_ms() < until)
		r = hear_all(replay, NOBODY, until);
	if (r == SAME && connection->whole && !connection->dgram &&
	    !client->ended) {
		printf("connection #%" PRIu64 ", output byte %" PRIu64
		       ": recorded the end, the server goes on\n",
		       connection->id, client->got);
		r = DIFFERENT;
	}
	hang_up(client, false);
	return r;
}

/* ---- events ---------------------------------------------------------------*/

/* How long it took then, and some more. */
static int64_t patience(const struct replay *replay, size_t i)
{
	const struct ss_recorded_event *event =
		ss_recording_event(replay->recording, i);
	int64_t before =
		i > 0 ? ss_recording_event(replay->recording, i - 1)->at_us : 0;
	int64_t took = (event->at_us - before) / 1000;

	return now_ms() + (took > 0 ? took : 0) + replay->patience_ms;
}

static int do_event(struct replay *replay, size_t i)
{
	const struct ss_recorded_event *event =
		ss_recording_event(replay->recording, i);
	struct client *client = &replay->clients[event->connection];

	if (event->kind == SS_RECORDED_OPEN)
		return open_client(replay, event->connection);
	if (client->fd < 0)
		return SAME;
	switch (event->kind) {
	case SS_RECORDED_INPUT:
		return say_input(replay, client, event);
	case SS_RECORDED_OUTPUT:
		return await_output(replay, event, patience(replay, i));
	case SS_RECORDED_INPUT_END:
		shutdown(client->fd, SHUT_WR);
		return SAME;
	case SS_RECORDED_BROKEN:
	case SS_RECORDED_LEFT_OUT:
		hang_up(client, event->kind == SS_RECORDED_BROKEN);
		return SAME;
	case SS_RECORDED_END:
		return await_end(replay, event, patience(replay, i));
	default:
		return SAME;
	}
}

static bool is_clients(enum ss_recorded_kind kind)
{
	return kind == SS_RECORDED_OPEN || kind == SS_RECORDED_INPUT ||
	       kind == SS_RECORDED_INPUT_END || kind == SS_RECORDED_BROKEN;
}

static int do_events(struct replay *replay)
{
	const struct ss_recorded_event *event;
	int64_t first = -1;
	int r = SAME;

	replay->began = now_ms();
	for (size_t i = 0;
	     r == SAME &&
	     (event = ss_recording_event(replay->recording, i)) != NULL;
	     i++) {
		uint64_t id = told(replay, event->connection)->id;

		if (replay->only >= 0 && id != (uint64_t)replay->only)
			continue;
		if (first < 0)
			first = event->at_us;
		if (replay->speed > 0 && is_clients(event->kind))
			r = wait_until(replay,
				       replay->began +
					       (int64_t)((double)(event->at_us -
								  first) /
							 1000 / replay->speed));
		if (r == SAME)
			r = do_event(replay, i);
	}
	for (size_t i = 0; i < replay->count; i++)
		hang_up(&replay->clients[i], false);
	return r;
}

static int play(struct replay *replay)
{
	int status = WRONG_USE;
	size_t n = replay->count + 1;

	replay->clients = malloc(n * sizeof(*replay->clients));
	replay->fds = malloc(n * sizeof(*replay->fds));
	replay->whose = malloc(n * sizeof(*replay->whose));
	replay->room = malloc(ROOM);
	if (replay->clients == NULL || replay->fds == NULL ||
	    replay->whose == NULL || replay->room == NULL) {
		complain("%s", strerror(ENOMEM));
	} else {
		for (size_t i = 0; i < n; i++)
			replay->clients[i] = (struct client){ .fd = -1 };
		status = do_events(replay);
	}
	free(replay->clients);
	free(replay->fds);
	free(replay->whose);
	free(replay->room);
	return status;
}

/* ---- showing --------------------------------------------------------------*/

static void show_byte(unsigned char byte)
{
	if (byte == '\\' || byte == '"')
		printf("\\%c", byte);
	else if (byte >= ' ' && byte <= '~')
		putchar(byte);
	else
		printf("\\x%02x", byte);
}

/* A line of the text on a line; what was redacted is so many full stops
 * between braces. */
static void show_bytes(const struct ss_recorded_event *event)
{
	bool hidden = false;

	fputs("  \"", stdout);
	for (size_t i = 0; i < event->kept; i++) {
		bool hides =
			event->hidden_count > 0 && ss_recorded_hidden(event, i);

		if (hides != hidden)
			putchar(hides ? '{' : '}');
		hidden = hides;
		if (event->bytes[i] == '\n') {
			fputs("\\n", stdout);
			if (i + 1 < event->kept)
				fputs("\"\n  \"", stdout);
		} else if (event->bytes[i] == '\r') {
			fputs("\\r", stdout);
		} else {
			show_byte(event->bytes[i]);
		}
	}
	printf("%s\"\n", hidden ? "}" : "");
	if (event->kept < event->size)
		printf("  and %zu more, cut off\n", event->size - event->kept);
}

static const char *name_of(enum ss_recorded_kind kind)
{
	static const char *const names[] = {
		[SS_RECORDED_OPEN] = "begin",
		[SS_RECORDED_INPUT] = "in",
		[SS_RECORDED_OUTPUT] = "out",
		[SS_RECORDED_ELSEWHERE] = "out elsewhere",
		[SS_RECORDED_INPUT_END] = "in ends",
		[SS_RECORDED_OUTPUT_END] = "out ends",
		[SS_RECORDED_BROKEN] = "broken",
		[SS_RECORDED_LEFT_OUT] = "left out",
		[SS_RECORDED_END] = "end",
	};

	return names[kind];
}

static const char *reason_of(enum ss_recorded_reason reason)
{
	return reason == SS_RECORDED_ENOUGH ? "the connection is long"
	       : reason == SS_RECORDED_FULL ? "the file is full"
					    : "no memory";
}

/* From anywhere: a terminal gets no control characters. */
static void show_text(const char *text)
{
	for (; *text != '\0'; text++)
		show_byte((unsigned char)*text);
}

static void show_event(const struct replay *replay,
		       const struct ss_recorded_event *event)
{
	const struct ss_recorded *connection = told(replay, event->connection);

	printf("%10.3f #%" PRIu64 " %s", (double)event->at_us / 1e6,
	       connection->id, name_of(event->kind));
	switch (event->kind) {
	case SS_RECORDED_OPEN:
		printf("%s from ", connection->dgram ? " of a datagram" : "");
		show_text(connection->peer);
		putchar('\n');
		break;
	case SS_RECORDED_INPUT:
	case SS_RECORDED_OUTPUT:
	case SS_RECORDED_ELSEWHERE:
		printf(" %zu\n", event->size);
		show_bytes(event);
		break;
	case SS_RECORDED_LEFT_OUT:
		printf(" from here on: %" PRIu64 " bytes in, %" PRIu64
		       " out: %s\n",
		       event->left_in, event->left_out,
		       reason_of(event->reason));
		break;
	default:
		printf("%s%s%s\n", event->error != 0 ? ": " : "",
		       event->error != 0 ? strerror(-event->error) : "",
		       event->stopping ? ", the server was stopping" : "");
	}
}

static int show(const struct replay *replay)
{
	const struct ss_recorded_event *event;
	time_t began = (time_t)(ss_recording_began(replay->recording) / 1000);
	struct tm tm;
	char when[40] = "?";

	if (localtime_r(&began, &tm) != NULL)
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S %z", &tm);
	fputs("server ", stdout);
	show_text(ss_recording_server(replay->recording));
	printf(", %s, %zu connections\n", when, replay->count);
	for (size_t i = 0;
	     (event = ss_recording_event(replay->recording, i)) != NULL; i++)
		if (replay->only < 0 || told(replay, event->connection)->id ==
						(uint64_t)replay->only)
			show_event(replay, event);
	return SAME;
}

/* ---- the command line -----------------------------------------------------*/

static const char usage[] =
	"usage: ss-replay [OPTION]... FILE ADDRESS\n"
	"       ss-replay --show [--only ID] FILE\n"
	"Holds what FILE has recorded with the server at ADDRESS once more, "
	"and\n"
	"says where its answers differ.\n"
	"  --speed N    N times as fast; 0, the default: without pauses\n"
	"  --only ID    this connection alone\n"
	"  --wait MS    for an answer, beyond what it took then (5000)\n"
	"  --show       what the file has, and no server\n"
	"  --help       this\n"
	"Exit status: 0 the same, 1 it differs, 2 wrong use, or a bad file.\n";

static int wrong_use(const char *fmt, const char *text)
{
	complain(fmt, text);
	fputs(usage, stderr);
	return WRONG_USE;
}

static bool parse_whole(const char *text, int64_t most, int64_t *number)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*number = strtoll(text, &end, 10);
	return *end == '\0' && errno == 0 && *number <= most;
}

static bool parse_speed(const char *text, double *speed)
{
	char *end;

	if (text[strspn(text, "0123456789.")] != '\0' || *text == '\0')
		return false;
	*speed = strtod(text, &end);
	return *end == '\0' && *speed < 1e9 && (*speed == 0 || *speed > 1e-6);
}

static bool find_place(struct replay *replay, const char *address)
{
	struct ss_endpoint list[ENDPOINTS];
	const struct ss_recorded *first = told(replay, 0);
	bool dgram = first != NULL && first->dgram;
	struct ss_diag why;
	bool dgram_there;

	if (ss_resolve(address, SS_SCHEME_ANY, list, ENDPOINTS, &why) < 1) {
		complain("%s", why.text);
		return false;
	}
	replay->place = list[0];
	if (list[0].scheme == SS_SCHEME_FD ||
	    list[0].scheme == SS_SCHEME_MEMORY) {
		complain("%s: there is nothing to connect to", address);
		return false;
	}
	dgram_there = list[0].scheme == SS_SCHEME_UDP ||
		      list[0].scheme == SS_SCHEME_UNIXGRAM;
	if (first != NULL && dgram != dgram_there) {
		complain("%s: %s were recorded", address,
			 dgram ? "datagrams" : "streams");
		return false;
	}
	return true;
}

static bool has_only(const struct replay *replay)
{
	for (size_t i = 0; i < replay->count; i++)
		if (replay->only >= 0 &&
		    told(replay, i)->id == (uint64_t)replay->only)
			return true;
	return replay->only < 0;
}

/* A damaged file is played as far as it goes. */
static int run(struct replay *replay, const char *path, const char *address)
{
	struct ss_diag why;
	const char *damage;
	int status = WRONG_USE;

	if (ss_recording_open(&replay->recording, path, &why) < 0) {
		complain("%s", why.text);
		return WRONG_USE;
	}
	while (told(replay, replay->count) != NULL)
		replay->count++;
	damage = ss_recording_damage(replay->recording);
	if (!has_only(replay))
		complain("%s: it has no connection #%" PRId64, path,
			 replay->only);
	else if (address == NULL)
		status = show(replay);
	else if (find_place(replay, address))
		status = play(replay);
	if (damage != NULL) {
		complain("%s: %s", path, damage);
		status = status == SAME ? WRONG_USE : status;
	}
	ss_recording_free(replay->recording);
	return status;
}

static int flushed(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	complain("standard output: %s", strerror(errno));
	return WRONG_USE;
}

int main(int argc, char *argv[])
{
	static const struct option options[] = {
		{ "speed", required_argument, NULL, 's' },
		{ "only", required_argument, NULL, 'o' },
		{ "wait", required_argument, NULL, 'w' },
		{ "show", no_argument, NULL, 'S' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct replay replay = { .only = -1, .patience_ms = PATIENCE_MS };
	bool shows = false;
	int64_t number;
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 's':
			if (!parse_speed(optarg, &replay.speed))
				return wrong_use("--speed '%s': expected a "
						 "number such as 2 or 0.5",
						 optarg);
			break;
		case 'o':
			if (!parse_whole(optarg, INT64_MAX, &replay.only))
				return wrong_use("--only '%s': expected a "
						 "connection's number",
						 optarg);
			break;
		case 'w':
			if (!parse_whole(optarg, 3600000, &number))
				return wrong_use("--wait '%s': expected "
						 "milliseconds",
						 optarg);
			replay.patience_ms = (int)number;
			break;
		case 'S':
			shows = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return flushed(SAME);
		default:
			return WRONG_USE;
		}
	}
	if (argc - optind != (shows ? 1 : 2))
		return wrong_use("%s", shows ? "which file?"
					     : "which file, and which server?");
	return flushed(
		run(&replay, argv[optind], shows ? NULL : argv[optind + 1]));
}
