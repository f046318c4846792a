/*
 * ssctl: says a command to a server's control socket and shows the answer; and
 * `ssctl top`, which shows who is being served, again and again.  The protocol
 * is ssctl(1)'s; the other end is ss_control_handler.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
	DONE,
	REFUSED, /* or nobody is there */
	WRONG_USE,
	ANSWER_MS = 10000,
	REFRESH_MS = 1000,
	LINE = 2048,
	WIDTH = 512,
};

/* ---- signals, which come only while we wait -------------------------------*/

static volatile sig_atomic_t ended_by, resized, stopped;
static sigset_t waiting_mask;

static void on_signal(int number)
{
	if (number == SIGWINCH)
		resized = 1;
	else if (number == SIGTSTP)
		stopped = 1;
	else
		ended_by = number;
}

static void take_signals(void)
{
	static const int numbers[] = { SIGINT,	SIGTERM, SIGHUP,
				       SIGQUIT, SIGTSTP, SIGWINCH };
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t mask;

	sigemptyset(&mask);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		sigaddset(&mask, numbers[i]);
		sigaction(numbers[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &mask, &waiting_mask);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether the descriptor is readable before the time, or a signal, comes. */
static bool wait_for(int fd, int64_t until)
{
	int64_t left = until - now_ms();
	struct timespec timeout;
	fd_set fds;

	if (left < 0)
		left = 0;
	timeout.tv_sec = (time_t)(left / 1000);
	timeout.tv_nsec = (long)(left % 1000) * 1000000;
	FD_ZERO(&fds);
	FD_SET(fd, &fds);
	return pselect(fd + 1, &fds, NULL, NULL, &timeout, &waiting_mask) > 0;
}

/* ---- the other end --------------------------------------------------------*/

struct link {
	int fd;
	size_t from, to;
	char bytes[4 * LINE];
};

static void restore(void);

static void complain(const char *why)
{
	restore();
	fprintf(stderr, "ssctl: %s\n", why);
}

/* It has not answered, or is gone. */
static bool lost(const char *why)
{
	if (ended_by == 0)
		complain(why);
	return false;
}

static bool link_open(struct link *link, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (len >= sizeof(address.sun_path)) {
		fprintf(stderr, "ssctl: %s: the path is too long\n", path);
		return false;
	}
	memcpy(address.sun_path, path, len);
	link->from = link->to = 0;
	link->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (link->fd >= 0 && link->fd < FD_SETSIZE &&
	    connect(link->fd, (struct sockaddr *)&address, sizeof(address)) ==
		    0)
		return true;
	fprintf(stderr, "ssctl: %s: %s\n", path, strerror(errno));
	return false;
}

static bool link_say(struct link *link, const char *text, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(link->fd, text, n, MSG_NOSIGNAL);

		if (sent < 0)
			return lost(strerror(errno));
		text += sent;
		n -= (size_t)sent;
	}
	return true;
}

static bool link_fill(struct link *link)
{
	int64_t until = now_ms() + ANSWER_MS;

	memmove(link->bytes, link->bytes + link->from, link->to - link->from);
	link->to -= link->from;
	link->from = 0;
	if (link->to == sizeof(link->bytes))
		return lost("a line of the answer has no end");
	while (!wait_for(link->fd, until))
		if (ended_by != 0 || now_ms() >= until)
			return lost("no answer");
	ssize_t n = recv(link->fd, link->bytes + link->to,
			 sizeof(link->bytes) - link->to, 0);

	if (n <= 0)
		return lost(n == 0 ? "the server has hung up"
				   : strerror(errno));
	link->to += (size_t)n;
	return true;
}

/* The next line, printable and without its end; good until the next call.
 * NULL: there is none. */
static char *link_line(struct link *link)
{
	char *end, *line;

	while ((end = memchr(link->bytes + link->from, '\n',
			     link->to - link->from)) == NULL)
		if (!link_fill(link))
			return NULL;
	line = link->bytes + link->from;
	link->from = (size_t)(end + 1 - link->bytes);
	*end = '\0';
	for (char *c = line; c < end; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return line;
}

/* Asks; each line of the answer goes to `take`.  The exit status. */
static int ask(struct link *link, const char *command,
	       void (*take)(void *arg, char *line), void *arg)
{
	char *line;

	if (!link_say(link, command, strlen(command)) ||
	    !link_say(link, "\n", 1))
		return REFUSED;
	while ((line = link_line(link)) != NULL) {
		if (strcmp(line, "ok") == 0)
			return DONE;
		if (strncmp(line, "error: ", 7) == 0) {
			complain(line + 7);
			return REFUSED;
		}
		take(arg, line);
	}
	return REFUSED;
}

static void print_line(void *arg, char *line)
{
	(void)arg;
	puts(line);
}

/* ---- top: what there is ---------------------------------------------------*/

struct client {
	uint64_t id, in, out, rate_in, rate_out;
	double age;
	int server;
	bool known; /* it was there the last time, too: it has rates */
	char peer[128], state[16], pid[16];
};

struct view {
	struct client *client;
	size_t count, room;
	int64_t at;
	uint64_t in, out; /* of all */
	char head[WIDTH]; /* of the servers */
	uint64_t active, accepted, queued;
};

/* The words of a line, in place: how many, at most `room`. */
static int split(char *line, char *words[], int room)
{
	char *rest = NULL;
	int n = 0;

	for (char *word = strtok_r(line, " ", &rest); word != NULL && n < room;
	     word = strtok_r(NULL, " ", &rest))
		words[n++] = word;
	return n;
}

static void take_server(void *arg, char *line)
{
	struct view *view = arg;
	size_t used = strlen(view->head);
	char *words[3];

	if (split(line, words, 3) == 3 && strcmp(words[0], "SERVER") != 0)
		snprintf(view->head + used, sizeof(view->head) - used, "%s%s%s",
			 used > 0 ? "  " : "", words[2],
			 strcmp(words[1], "serving") == 0 ? ""
							  : " (suspended)");
}

static void take_figure(void *arg, char *line)
{
	struct view *view = arg;
	char *words[3];

	if (split(line, words, 3) != 3)
		return;
	uint64_t value = strtoull(words[2], NULL, 10);

	if (strcmp(words[1], "active") == 0)
		view->active += value;
	else if (strcmp(words[1], "accepted") == 0)
		view->accepted += value;
	else if (strcmp(words[1], "queued") == 0)
		view->queued += value;
}

static bool grow(struct view *view)
{
	size_t room = view->room > 0 ? 2 * view->room : 256;
	struct client *more = realloc(view->client, room * sizeof(*more));

	if (more == NULL)
		return false;
	view->client = more;
	view->room = room;
	return true;
}

static void take_client(void *arg, char *line)
{
	enum { SERVER, ID, PID, PEER, AGE, IN, OUT, STATE, WORDS };
	struct view *view = arg;
	char *words[WORDS];

	if (split(line, words, WORDS) != WORDS ||
	    strcmp(words[SERVER], "SERVER") == 0)
		return;
	if (view->count == view->room && !grow(view))
		return;
	struct client *c = &view->client[view->count++];

	*c = (struct client){
		.id = strtoull(words[ID], NULL, 10),
		.in = strtoull(words[IN], NULL, 10),
		.out = strtoull(words[OUT], NULL, 10),
		.age = strtod(words[AGE], NULL),
		.server = (int)strtol(words[SERVER], NULL, 10),
	};
	snprintf(c->peer, sizeof(c->peer), "%s", words[PEER]);
	snprintf(c->state, sizeof(c->state), "%s", words[STATE]);
	snprintf(c->pid, sizeof(c->pid), "%s", words[PID]);
}

static int by_id(const void *a, const void *b)
{
	const struct client *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int by_age(const void *a, const void *b)
{
	const struct client *x = a, *y = b;

	return x->age > y->age ? -1 : x->age < y->age ? 1 : by_id(a, b);
}

static int by_bytes(const void *a, const void *b)
{
	const struct client *x = a, *y = b;
	uint64_t rate_x = x->rate_in + x->rate_out;
	uint64_t rate_y = y->rate_in + y->rate_out;

	if (rate_x != rate_y)
		return rate_x > rate_y ? -1 : 1;
	if (x->in + x->out != y->in + y->out)
		return x->in + x->out > y->in + y->out ? -1 : 1;
	return by_id(a, b);
}

static uint64_t a_second(uint64_t now, uint64_t before, int64_t ms)
{
	return now > before && ms > 0 ? (now - before) * 1000 / (uint64_t)ms
				      : 0;
}

/* Both are sorted by id. */
static void compare(struct view *view, const struct view *before)
{
	int64_t ms = view->at - before->at;

	for (size_t i = 0; i < view->count; i++) {
		struct client *c = &view->client[i];
		const struct client *old =
			before->count > 0
				? bsearch(c, before->client, before->count,
					  sizeof(*c), by_id)
				: NULL;

		c->known = old != NULL;
		if (old == NULL)
			continue;
		c->rate_in = a_second(c->in, old->in, ms);
		c->rate_out = a_second(c->out, old->out, ms);
		view->in += c->rate_in;
		view->out += c->rate_out;
	}
}

static int look(struct link *link, struct view *view)
{
	int status = ask(link, "servers", take_server, view);

	if (status == DONE)
		status = ask(link, "stats", take_figure, view);
	if (status == DONE)
		status = ask(link, "list", take_client, view);
	view->at = now_ms();
	if (view->count > 1)
		qsort(view->client, view->count, sizeof(*view->client), by_id);
	return status;
}

/* ---- top: showing it ------------------------------------------------------*/

/* "1234", "12.3M". */
static const char *amount(uint64_t n, char *text, size_t size)
{
	static const char units[] = "kMGTPE";
	double value = (double)n;
	int unit = -1;

	while (value >= 10000 && unit < 5) {
		value /= 1000;
		unit++;
	}
	if (unit < 0)
		snprintf(text, size, "%" PRIu64, n);
	else
		snprintf(text, size, "%.*f%c", value < 100 ? 1 : 0, value,
			 units[unit]);
	return text;
}

static void format_client(const struct client *c, char *line)
{
	char in[24], out[24], rate_in[24] = "-", rate_out[24] = "-";

	if (c->known) {
		amount(c->rate_in, rate_in, sizeof(rate_in));
		amount(c->rate_out, rate_out, sizeof(rate_out));
	}
	snprintf(line, WIDTH,
		 "%14" PRIu64 " %2d %7s %9.1f %7s %7s %7s %7s %-6s %s", c->id,
		 c->server, c->pid, c->age, amount(c->in, in, sizeof(in)),
		 amount(c->out, out, sizeof(out)), rate_in, rate_out, c->state,
		 c->peer);
}

struct screen {
	bool tty;
	int rows, columns;
	int shown; /* lines so far */
};

/* Cut to the width; on a terminal the rest of its line is wiped. */
static void show(struct screen *screen, const char *line)
{
	if (screen->tty && screen->shown >= screen->rows)
		return;
	if (screen->tty)
		printf("%s%.*s\033[K", screen->shown > 0 ? "\n" : "",
		       screen->columns, line);
	else
		printf("%s\n", line);
	screen->shown++;
}

static void measure(struct screen *screen)
{
	struct winsize size;

	screen->shown = 0;
	screen->rows = 24;
	screen->columns = 80;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 &&
	    size.ws_col > 0) {
		screen->rows = size.ws_row;
		screen->columns = size.ws_col;
	}
}

static void draw(const struct view *view, const struct view *before,
		 struct screen *screen, const char *sorted)
{
	char line[WIDTH], in[24], out[24];
	bool first = before->at == 0;

	measure(screen);
	if (screen->tty)
		fputs("\033[H", stdout);
	show(screen, view->head);
	snprintf(line, sizeof(line),
		 "%" PRIu64 " active, %" PRIu64 " queued, %" PRIu64
		 " accepted; a second: %s accepted, %s in, %s out%s%s",
		 view->active, view->queued, view->accepted,
		 first ? "-"
		       : amount(a_second(view->accepted, before->accepted,
					 view->at - before->at),
				(char[24]){ "" }, 24),
		 first ? "-" : amount(view->in, in, sizeof(in)),
		 first ? "-" : amount(view->out, out, sizeof(out)),
		 screen->tty ? "; by " : "", screen->tty ? sorted : "");
	show(screen, line);
	show(screen,
	     "            ID  S     PID       AGE      IN     OUT    IN/s   "
	     "OUT/s STATE  PEER");
	for (size_t i = 0; i < view->count; i++) {
		if (screen->tty && screen->shown >= screen->rows)
			break;
		format_client(&view->client[i], line);
		show(screen, line);
	}
	if (screen->tty)
		fputs("\033[J", stdout);
	fflush(stdout);
}

/* ---- top: the terminal ----------------------------------------------------*/

static struct termios cooked;
static bool is_raw;

static void restore(void)
{
	if (!is_raw)
		return;
	is_raw = false;
	tcsetattr(STDIN_FILENO, TCSANOW, &cooked);
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
}

/* Keys come one by one; another screen, without a cursor. */
static void make_raw(void)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &cooked) == 0) {
		raw = cooked;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	is_raw = true;
	fputs("\033[?1049h\033[?25l\033[2J", stdout);
}

static void stop_here(void)
{
	stopped = 0;
	restore();
	raise(SIGSTOP);
	make_raw();
}

/* Until it is time to look again: false, to end. */
static bool keys(const char **sorted, bool *again)
{
	int64_t until = now_ms() + REFRESH_MS;
	char key;

	*again = false;
	while (ended_by == 0 && resized == 0 && now_ms() < until) {
		bool came = wait_for(STDIN_FILENO, until);

		if (stopped != 0)
			stop_here();
		if (!came)
			continue;
		if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q')
			return false;
		if (key == 'a' || key == 'b') {
			*sorted = key == 'a' ? "age" : "bytes";
			*again = true;
			return true;
		}
	}
	*again = resized != 0;
	resized = 0;
	return ended_by == 0;
}

static void sort(struct view *view, const char *sorted)
{
	if (view->count > 1)
		qsort(view->client, view->count, sizeof(*view->client),
		      sorted[0] == 'a' ? by_age : by_bytes);
}

static int watch(struct link *link, struct screen *screen)
{
	struct view before = { .at = 0 };
	const char *sorted = "bytes";
	bool more = true, again;
	int status;

	do {
		struct view view = { .at = 0 };

		status = look(link, &view);
		if (status == DONE) {
			compare(&view, &before);
			do {
				sort(&view, sorted);
				draw(&view, &before, screen, sorted);
			} while (screen->tty &&
				 (more = keys(&sorted, &again)) && again);
			if (view.count > 1)
				qsort(view.client, view.count,
				      sizeof(*view.client), by_id);
		}
		free(before.client);
		before = view;
	} while (screen->tty && status == DONE && more);
	free(before.client);
	return status;
}

static int top(struct link *link)
{
	struct screen screen = { .tty = isatty(STDOUT_FILENO) == 1 &&
					isatty(STDIN_FILENO) == 1 };

	if (screen.tty) {
		take_signals();
		atexit(restore);
		make_raw();
	}
	int status = watch(link, &screen);

	restore();
	if (ended_by == 0)
		return status;
	/* As it would have ended without us. */
	signal(ended_by, SIG_DFL);
	sigprocmask(SIG_SETMASK, &waiting_mask, NULL);
	raise(ended_by);
	return REFUSED;
}

/* ---- the command line -----------------------------------------------------*/

static const char usage[] =
	"usage: ssctl [-s SOCKET] COMMAND [ARGUMENT]...\n"
	"Says COMMAND to the server that has SOCKET (default $SSCTL_SOCKET):\n"
	"  top    shows who is being served: q quits, b and a sort\n"
	"  help   shows what else there is, as the server has it\n";

static int wrong_use(const char *why)
{
	fprintf(stderr, "ssctl: %s\n%s", why, usage);
	return WRONG_USE;
}

/* The words, with a blank between them; false: too much, or no line. */
static bool join(char *argv[], char *line, size_t size)
{
	size_t used = 0;

	for (; *argv != NULL; argv++) {
		int n = snprintf(line + used, size - used, "%s%s",
				 used > 0 ? " " : "", *argv);

		used += (size_t)n;
		if (used >= size)
			return false;
	}
	return strpbrk(line, "\r\n") == NULL;
}

static int flushed(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "ssctl: standard output: %s\n", strerror(errno));
	return REFUSED;
}

int main(int argc, char *argv[])
{
	const char *path = getenv("SSCTL_SOCKET");
	char command[LINE];
	struct link link = { .fd = -1 };
	int option;

	while ((option = getopt(argc, argv, "+s:h")) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return flushed(DONE);
		}
		if (option != 's')
			return WRONG_USE;
		path = optarg;
	}
	if (path == NULL || *path == '\0')
		return wrong_use("which socket?");
	if (optind == argc)
		return wrong_use("which command?");
	if (!join(argv + optind, command, sizeof(command)))
		return wrong_use("the command is no line");
	sigprocmask(SIG_SETMASK, NULL, &waiting_mask);
	if (!link_open(&link, path))
		return REFUSED;
	int status = strcmp(command, "top") == 0
			     ? top(&link)
			     : ask(&link, command, print_line, NULL);

	close(link.fd);
	return flushed(status);
}
