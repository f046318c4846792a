/*
 * The log (PROMISES 18): the program's callback, or a line on standard error
 * that costs nobody anything; and what handle_error writes into it.
 */
#include "support.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/mman.h>

Suite *t_log(void);

enum { LINE_MAX_BYTES = 1024, THREADS = 8 };

/* ---- what was logged ------------------------------------------------------*/

/* In shared memory: children log here too. */
struct logged {
	atomic_int count;
	struct line {
		int level;
		struct ss_server *server;
		uint64_t id;
		pid_t pid, tid;
		char text[LINE_MAX_BYTES];
		atomic_bool whole;
	} line[512];
};
static struct logged *logged;

static void note(void *arg, int level, struct ss_server *server, uint64_t id,
		 const char *text)
{
	struct logged *to = arg;
	if (log_of_a_busy_machine(text))
		return;
	struct line *line = &to->line[atomic_fetch_add(&to->count, 1) % 512];
	line->level = level;
	line->server = server;
	line->id = id;
	line->pid = getpid();
	line->tid = gettid();
	snprintf(line->text, sizeof(line->text), "%s", text);
	atomic_store(&line->whole, true);
	errno = EXDEV; /* nobody is to notice */
}

static const struct line *logged_line(int i)
{
	eventually(atomic_load(&logged->line[i].whole));
	return &logged->line[i];
}

static int echo(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		ss_logf(req, SS_LOG_INFO, "%d bytes, \"%.*s\"", (int)n, (int)n,
			buf);
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler echo_handler = { .handle = echo };

/* By the callback, everything. */
static struct ss_config noted(const struct model *model,
			      const struct ss_handler *handler)
{
	logged = ss_shared_alloc(sizeof(*logged));
	ck_assert_ptr_nonnull(logged);
	struct ss_config config = config_of(model, &transports[0], handler);
	config.log_level = SS_LOG_DEBUG;
	config.log = note;
	config.log_arg = logged;
	return config;
}

/* A server that nobody serves: it is there to log. */
static struct ss_server *quiet_server(int level)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &echo_handler,
				    .log_level = level };
	return made(&config);
}

static uint64_t dropped(struct ss_server *server)
{
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	return stats.log_dropped;
}

/* ---- the callback ---------------------------------------------------------*/

START_TEST(log_callback_is_told_all_there_is)
{
	if (model_supervised(&models[_i]))
		return; /* workers would have this process's clients */
	struct ss_config config = noted(&models[_i], &echo_handler);
	struct served served;
	served_start(&served, &config);
	echo_once(served.url, "hello");
	const struct line *line = logged_line(0);
	ck_assert_int_eq(line->level, SS_LOG_INFO);
	ck_assert_ptr_eq(line->server, served.server);
	ck_assert_uint_eq(line->id & 0xffff, 1);
	ck_assert_str_eq(line->text, "5 bytes, \"hello\"");
	ck_assert_int_eq(line->pid == getpid(),
			 !model_has(&models[_i], &ss_forking_mixin));
	ck_assert_int_ne(line->tid, gettid());
	ss_log(served.server, SS_LOG_WARNING, 0, "no%c%d", 'w', 1);
	line = logged_line(1);
	ck_assert_int_eq(line->level, SS_LOG_WARNING);
	ck_assert_ptr_eq(line->server, served.server);
	ck_assert_uint_eq(line->id, 0);
	ck_assert_str_eq(line->text, "now1");
	ck_assert_int_eq(line->tid, gettid());
	served_stop(&served);
	ck_assert_int_eq(atomic_load(&logged->count), 2);
}
END_TEST

/* Threads run in the callback at the same time: nothing serialises them. */
static pthread_barrier_t all_inside;

static void meet(void *arg, int level, struct ss_server *server, uint64_t id,
		 const char *text)
{
	pthread_barrier_wait(&all_inside);
	note(arg, level, server, id, text);
}

START_TEST(log_callback_runs_on_several_threads_at_once)
{
	struct ss_config config = noted(&models[1], &echo_handler);
	config.log = meet;
	pthread_barrier_init(&all_inside, NULL, THREADS);
	struct served served;
	served_start(&served, &config);
	int fds[THREADS];
	char text[THREADS][16];
	for (int i = 0; i < THREADS; i++) {
		fds[i] = dial(served.url);
		snprintf(text[i], sizeof(text[i]), "client %d", i % 10);
		send_text(fds[i], text[i]);
	}
	for (int i = 0; i < THREADS; i++) {
		expect_text(fds[i], text[i]);
		close(fds[i]);
	}
	served_stop(&served);
	ck_assert_int_eq(atomic_load(&logged->count), THREADS);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(
			strncmp(logged_line(i)->text, "8 bytes, \"client ", 17),
			0);
	pthread_barrier_destroy(&all_inside);
}
END_TEST

/* ---- levels ---------------------------------------------------------------*/

/* Text that who reads it dies of. */
static const char *unreadable(void)
{
	void *page =
		mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(page, MAP_FAILED);
	return page;
}

static int log_levels(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	int configured = *(int *)ss_server_user(server);
	const char *fatal = unreadable();
	for (int level = SS_LOG_ERROR; level <= SS_LOG_DEBUG; level++) {
		int before = atomic_load(&logged->count);
		bool wanted = level <= configured;
		ss_logf(req, level, "a %s", wanted ? "word" : fatal);
		ss_log(server, level, 7, "a %s", wanted ? "word" : fatal);
		ck_assert_int_eq(atomic_load(&logged->count) - before,
				 wanted ? 2 : 0);
		if (!wanted)
			continue;
		ck_assert_str_eq(logged_line(before)->text, "a word");
		ck_assert_int_eq(logged_line(before)->level, level);
		ck_assert_uint_eq(logged_line(before)->id, ss_request_id(req));
		ck_assert_uint_eq(logged_line(before + 1)->id, 7);
	}
	return 0;
}

START_TEST(log_tests_the_level_before_it_formats)
{
	static const struct {
		int given, effective;
	} configured[] = {
		{ SS_NONE, 0 },
		{ SS_LOG_ERROR, SS_LOG_ERROR },
		{ 0, SS_LOG_WARNING },
		{ SS_LOG_WARNING, SS_LOG_WARNING },
		{ SS_LOG_INFO, SS_LOG_INFO },
		{ SS_LOG_DEBUG, SS_LOG_DEBUG },
	};
	int effective = configured[_i].effective;
	static const struct ss_handler handler = { .handle = log_levels };
	struct ss_config config = noted(&models[0], &handler);
	config.addresses[0] = NULL;
	config.transport = &ss_memory_server;
	config.log_level = configured[_i].given;
	config.user = &effective;
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	char byte;
	ck_assert_int_eq(ss_memory_recv(client, &byte, 1), 0);
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(atomic_load(&logged->count), 2 * effective);
}
END_TEST

START_TEST(log_level_is_one_of_them)
{
	struct ss_server *server = quiet_server(SS_LOG_INFO);
	ck_assert_int_eq(ss_log_level(server), SS_LOG_INFO);
	for (int level = SS_NONE; level <= SS_LOG_DEBUG; level++) {
		ck_assert_int_eq(ss_set_log_level(server, level), 0);
		ck_assert_int_eq(ss_log_level(server),
				 level ? level : SS_LOG_INFO);
	}
	ck_assert_int_eq(ss_set_log_level(server, SS_NONE - 1), -EINVAL);
	ck_assert_int_eq(ss_set_log_level(server, SS_LOG_DEBUG + 1), -EINVAL);
	ck_assert_int_eq(ss_log_level(server), SS_LOG_DEBUG);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* In the process that made the server; `levels` is shared. */
static struct levels {
	_Atomic(struct ss_server *) server;
	atomic_int found; /* when it was told to be as configured */
	atomic_int changes;
} * levels;

static void change_level(int signal)
{
	struct ss_server *server = atomic_load(&levels->server);
	if (signal == SIGUSR2)
		atomic_store(&levels->found, ss_log_level(server));
	ss_set_log_level(server, signal == SIGUSR1 ? SS_LOG_INFO : 0);
	atomic_fetch_add(&levels->changes, 1);
}

static int minding_levels(struct ss_server *server)
{
	struct sigaction action = { .sa_handler = change_level };
	atomic_store(&levels->server, server);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	return ss_serve_forever(server);
}

/* Where the request is served: a thread, a child, a worker. */
static int quieten(struct ss_request *req)
{
	char word[8];
	ssize_t n = ss_read(req, word, sizeof(word));
	if (n > 0 && word[0] == 'q')
		ss_set_log_level(ss_request_server(req), SS_LOG_ERROR);
	ss_logf(req, SS_LOG_INFO, "%d bytes", (int)n);
	if (n > 0)
		n = ss_write(req, word, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static void say(int fd, const char *word)
{
	send_text(fd, word);
	expect_text(fd, word);
}

START_TEST(log_level_is_the_same_in_all_processes)
{
	static const struct ss_handler handler = { .handle = quieten };
	struct ss_config config = noted(&models[_i], &handler);
	config.log_level = 0;
	levels = ss_shared_alloc(sizeof(*levels));
	struct node node;
	node_run(&node, &config, minding_levels);
	int fd = dial(node.url);
	say(fd, "a");
	ck_assert_int_eq(atomic_load(&logged->count), 0);
	kill(node.pid, SIGUSR1);
	eventually(atomic_load(&levels->changes) == 1);
	say(fd, "b");
	ck_assert_int_eq(atomic_load(&logged->count), 1);
	say(fd, "quiet");
	ck_assert_int_eq(atomic_load(&logged->count), 1);
	kill(node.pid, SIGUSR2);
	eventually(atomic_load(&levels->changes) == 2);
	ck_assert_int_eq(atomic_load(&levels->found), SS_LOG_ERROR);
	say(fd, "c");
	ck_assert_int_eq(atomic_load(&logged->count), 1);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- standard error -------------------------------------------------------*/

/* Descriptor 2 leads into a pipe of ours meanwhile. */
struct sink {
	int saved, reader;
};

static struct sink capture(void)
{
	int fds[2];
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	struct sink sink = { .saved = dup(2), .reader = fds[0] };
	ck_assert_int_eq(dup2(fds[1], 2), 2);
	close(fds[1]);
	return sink;
}

static void restore(const struct sink *sink)
{
	ck_assert_int_eq(dup2(sink->saved, 2), 2);
	close(sink->saved);
	if (sink->reader >= 0)
		close(sink->reader);
}

/* What is in the pipe, in a static buffer. */
static const char *taken(const struct sink *sink, size_t *size)
{
	static char text[1 << 17]; /* more than a pipe holds */
	size_t n = 0;
	struct pollfd fd = { .fd = sink->reader, .events = POLLIN };
	while (poll(&fd, 1, 0) == 1 && (fd.revents & POLLIN)) {
		ssize_t r = read(sink->reader, text + n, sizeof(text) - 1 - n);
		if (r <= 0)
			break;
		n += (size_t)r;
	}
	text[n] = '\0';
	if (size)
		*size = n;
	return text;
}

static int lines_in(const char *text)
{
	int n = 0;
	for (; *text; text++)
		n += *text == '\n';
	return n;
}

START_TEST(log_writes_a_line_to_standard_error)
{
	struct ss_server *server = quiet_server(SS_LOG_DEBUG);
	struct sink sink = capture();
	ss_log(server, SS_LOG_ERROR, 0, "one %d", 1);
	ss_log(server, SS_LOG_WARNING, 7, "two");
	ss_log(server, SS_LOG_INFO, 18446744073709551615U, "%s", "three");
	ss_log(server, SS_LOG_DEBUG, 0, "%s", "");
	ck_assert_str_eq(taken(&sink, NULL),
			 "socketserver: error: one 1\n"
			 "socketserver: warning: #7 two\n"
			 "socketserver: info: #18446744073709551615 three\n"
			 "socketserver: debug: \n");
	restore(&sink);
	ck_assert_uint_eq(dropped(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(log_lines_have_at_most_1024_bytes)
{
	static char text[5001];
	static const char start[] = "socketserver: error: ";
	struct ss_server *server = quiet_server(0);
	struct sink sink = capture();
	memset(text, 'x', sizeof(text) - 1);
	for (int n = 900; n <= 5000; n += n < 1100 ? 1 : 1300) {
		size_t size, whole = sizeof(start) + (size_t)n;
		ss_log(server, SS_LOG_ERROR, 0, "%.*s", n, text);
		const char *line = taken(&sink, &size);
		ck_assert_uint_le(size, LINE_MAX_BYTES);
		/* A byte is for the NUL, as it is customary. */
		size_t least = LINE_MAX_BYTES - 1;
		ck_assert_uint_ge(size, whole < least ? whole : least);
		ck_assert_int_eq(lines_in(line), 1);
		ck_assert_int_eq(line[size - 1], '\n');
		ck_assert_int_eq(strncmp(line, start, sizeof(start) - 1), 0);
		ck_assert_uint_eq(strspn(line + sizeof(start) - 1, "x"),
				  size - sizeof(start));
	}
	restore(&sink);
	ck_assert_uint_eq(dropped(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* What a client sent may be in it: no second line, no escape sequences. */
START_TEST(log_keeps_to_one_line)
{
	struct ss_server *server = quiet_server(0);
	struct sink sink = capture();
	ss_log(server, SS_LOG_ERROR, 0, "%s",
	       "a\nsocketserver: b\r\33[2J\t\177");
	size_t size;
	const char *line = taken(&sink, &size);
	ck_assert_int_eq(lines_in(line), 1);
	ck_assert_int_eq(line[size - 1], '\n');
	for (size_t i = 0; i < size - 1; i++)
		ck_assert_msg(line[i] >= ' ' && line[i] != '\177',
			      "byte %zu is %d", i, line[i]);
	ck_assert_int_eq(strncmp(line, "socketserver: error: a", 22), 0);
	/* But names are not ASCII everywhere. */
	ss_log(server, SS_LOG_ERROR, 0, "%s", "gr\303\274\303\237e");
	ck_assert_str_eq(taken(&sink, NULL),
			 "socketserver: error: gr\303\274\303\237e\n");
	restore(&sink);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(log_none_is_silence)
{
	struct ss_server *server = quiet_server(SS_NONE);
	struct sink sink = capture();
	for (int level = SS_LOG_ERROR; level <= SS_LOG_DEBUG; level++)
		ss_log(server, level, 0, "%s", unreadable());
	ck_assert_str_eq(taken(&sink, NULL), "");
	restore(&sink);
	ck_assert_uint_eq(dropped(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- standard error that takes nothing ------------------------------------*/

/* All but `left` bytes of the pipe's room are taken; how many that are. */
static size_t fill(int fd, size_t left)
{
	static const char bytes[4096];
	int flags = fcntl(fd, F_GETFL), room = fcntl(fd, F_GETPIPE_SZ);
	ck_assert_int_gt(room, 4096);
	ck_assert_int_eq(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 0);
	size_t filled = 0;
	ssize_t n = 0;
	while (n >= 0 && filled + left < (size_t)room) {
		n = write(fd, bytes, sizeof(bytes));
		filled += n > 0 ? (size_t)n : 0;
	}
	ck_assert_int_eq(fcntl(fd, F_SETFL, flags), 0);
	return filled;
}

/* How many lines this one says were dropped; 0: it does not. */
static int reported(const char *line)
{
	int n;
	char word[6];
	return sscanf(line, "socketserver: warning: %d %5s", &n, word) == 2 &&
			       strncmp(word, "line", 4) == 0
		       ? n
		       : 0;
}

/* What was said to be dropped, and delivered, since the last one. */
struct sums {
	int sent, delivered, reported;
};

/* Whole lines alone, and as many as the counter does not have. */
static void lines_add_up(struct sums *sums, const struct sink *sink,
			 size_t filled, struct ss_server *server)
{
	size_t size;
	const char *text = taken(sink, &size) + filled;
	ck_assert_uint_ge(size, filled);
	while (*text) {
		const char *end = strchr(text, '\n');
		ck_assert_ptr_nonnull(end);
		int n = reported(text);
		if (!n)
			ck_assert_int_eq(
				strncmp(text, "socketserver: error: ", 21), 0);
		text = end + 1;
		sums->reported += n;
		sums->delivered += !n;
	}
	ck_assert_int_eq(sums->delivered + (int)dropped(server), sums->sent);
}

/* One more line tells of all that were dropped. */
static void all_are_told(struct sums *sums, const struct sink *sink,
			 struct ss_server *server)
{
	ss_log(server, SS_LOG_ERROR, 0, "there is room");
	sums->sent++;
	lines_add_up(sums, sink, 0, server);
	ck_assert_int_eq(sums->reported, (int)dropped(server));
	ck_assert_int_eq(sums->delivered + sums->reported, sums->sent);
}

START_TEST(log_drops_and_counts_what_a_full_pipe_does_not_take)
{
	enum { MANY = 100 };
	struct ss_server *server = quiet_server(0);
	struct sink sink = capture();
	int nonblocking = _i ? O_NONBLOCK : 0;
	int flags = fcntl(2, F_GETFL) | nonblocking;
	ck_assert_int_eq(fcntl(2, F_SETFL, flags), 0);
	size_t filled = fill(2, 0);
	struct sums sums = { .sent = MANY };
	int64_t from = clock_ms();
	for (int i = 0; i < MANY; i++)
		ss_log(server, SS_LOG_ERROR, 0, "nobody reads this");
	ck_assert_int_lt(clock_ms() - from, SOON_MS);
	ck_assert_uint_eq(dropped(server), MANY);
	lines_add_up(&sums, &sink, filled, server);
	/* It is the program's, not ours. */
	ck_assert_int_eq(fcntl(2, F_GETFL), flags);
	ss_log(server, SS_LOG_ERROR, 0, "there is room again");
	ck_assert_str_eq(taken(&sink, NULL),
			 "socketserver: warning: 100 lines were dropped\n"
			 "socketserver: error: there is room again\n");
	ck_assert_uint_eq(dropped(server), MANY);
	sums = (struct sums){ 2 * MANY + 1, 1, MANY };
	/* Where there is room for some, those are whole. */
	filled = fill(2, 8192);
	for (int i = 0; i < MANY; i++)
		ss_log(server, SS_LOG_ERROR, 0, "%0900d", i);
	ck_assert_uint_lt(dropped(server), 2 * MANY);
	lines_add_up(&sums, &sink, filled, server);
	all_are_told(&sums, &sink, server);
	ck_assert_int_eq(fcntl(2, F_GETFL), flags);
	restore(&sink);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Room for four lines is left, and many want it. */
enum { STORM = 40 };

static void *log_storm(void *server)
{
	pthread_barrier_wait(&all_inside);
	for (int i = 0; i < STORM; i++)
		ss_log(server, SS_LOG_ERROR, 0, "%0900d", i);
	return NULL;
}

static void storm(struct ss_server *server)
{
	pthread_t thread[THREADS];
	pthread_barrier_init(&all_inside, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(
			pthread_create(&thread[i], NULL, log_storm, server), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&all_inside);
}

START_TEST(log_lines_of_a_storm_are_whole_or_counted)
{
	struct ss_server *server = quiet_server(0);
	struct sink sink = capture();
	struct sums sums = { .sent = 0 };
	for (int round = 0; round < rounds(20); round++) {
		size_t filled = fill(2, 4096);
		sums.sent += THREADS * STORM;
		storm(server);
		lines_add_up(&sums, &sink, filled, server);
	}
	all_are_told(&sums, &sink, server);
	restore(&sink);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

#ifdef SS_LINUX

/* As it was a moment ago, before another thread took the room. */
static int says_writable(struct pollfd *fds, nfds_t n, int ms)
{
	(void)ms;
	for (nfds_t i = 0; i < n; i++)
		fds[i].revents = fds[i].events;
	return (int)n;
}

START_TEST(log_never_blocks_where_the_room_is_taken_meanwhile)
{
	struct ss_server *server = quiet_server(0);
	struct sink sink = capture();
	struct sys_table real = sys_table;
	size_t filled = fill(2, 0);
	sys_table.poll = says_writable;
	for (int i = 0; i < 5; i++)
		ss_log(server, SS_LOG_ERROR, 0, "nobody reads this");
	sys_table = real;
	struct sums sums = { .sent = 5 };
	lines_add_up(&sums, &sink, filled, server);
	restore(&sink);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* A terminal that nobody reads: it polls writable with room for one byte. */
START_TEST(log_never_blocks_on_a_terminal)
{
	int master, slave;
	if (openpty(&master, &slave, NULL, NULL, NULL) != 0) {
		printf("skipped: no terminal to be had\n");
		return;
	}
	struct ss_server *server = quiet_server(0);
	struct sink sink = { .saved = dup(2), .reader = -1 };
	ck_assert_int_eq(dup2(slave, 2), 2);
	for (int i = 0; i < 100; i++)
		ss_log(server, SS_LOG_ERROR, 0, "%0900d", i);
	ck_assert_uint_gt(dropped(server), 0);
	ck_assert_uint_lt(dropped(server), 100);
	restore(&sink);
	close(slave);
	close(master);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

#endif

static bool pending(int signal)
{
	sigset_t set;
	ck_assert_int_eq(sigpending(&set), 0);
	return sigismember(&set, signal) == 1;
}

/* With SIGPIPE as it is by default: who gets one is dead. */
START_TEST(log_survives_a_pipe_without_reader)
{
	signal(SIGPIPE, SIG_DFL);
	struct ss_server *server = quiet_server(0);
	struct sink sink = capture();
	close(sink.reader);
	sink.reader = -1;
	for (int i = 0; i < 5; i++)
		ss_log(server, SS_LOG_ERROR, 0, "nobody is there");
	ck_assert_uint_eq(dropped(server), 5);
	ck_assert(!pending(SIGPIPE));
	sigset_t mask;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	ck_assert_int_eq(sigismember(&mask, SIGPIPE), 0);
	struct sigaction action;
	sigaction(SIGPIPE, NULL, &action);
	ck_assert(action.sa_handler == SIG_DFL);
	/* One that was there before stays. */
	sigset_t pipe_only;
	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	sigprocmask(SIG_BLOCK, &pipe_only, NULL);
	raise(SIGPIPE);
	ss_log(server, SS_LOG_ERROR, 0, "nobody is there");
	ck_assert(pending(SIGPIPE));
	int taken_signal;
	ck_assert_int_eq(sigwait(&pipe_only, &taken_signal), 0);
	restore(&sink);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(log_survives_standard_error_closed_or_on_a_full_disk)
{
	struct ss_server *server = quiet_server(0);
	struct sink sink = capture();
	close(2);
	for (int i = 0; i < 5; i++)
		ss_log(server, SS_LOG_ERROR, 0, "nobody is there");
	ck_assert_uint_eq(dropped(server), 5);
	ck_assert_int_eq(fcntl(2, F_GETFD), -1);
	int full = open("/dev/full", O_WRONLY);
	ck_assert_int_eq(full, 2);
	for (int i = 0; i < 5; i++)
		ss_log(server, SS_LOG_ERROR, 0, "no space left");
	ck_assert_uint_eq(dropped(server), 10);
	restore(&sink);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* As a service manager has it: one that was there from the start. */
START_TEST(log_writes_to_the_socket_that_standard_error_is)
{
	int fds[2];
	char line[100];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	struct sink sink = { .saved = dup(2), .reader = fds[0] };
	ck_assert_int_eq(dup2(fds[1], 2), 2);
	struct ss_server *server = quiet_server(0);
	ss_log(server, SS_LOG_ERROR, 0, "hello");
	expect_bytes(fds[0], line, 27);
	ck_assert_mem_eq(line, "socketserver: error: hello\n", 27);
	for (int i = 0; i < 10000 && !dropped(server); i++)
		ss_log(server, SS_LOG_ERROR, 0, "%0900d", i);
	ck_assert_uint_eq(dropped(server), 1);
	restore(&sink);
	close(fds[1]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Closed since, its number may be a client's for a moment. */
START_TEST(log_spares_a_socket_in_the_place_of_standard_error)
{
	int fds[2];
	char line[100];
	struct ss_server *server = quiet_server(0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	struct sink sink = { .saved = dup(2), .reader = fds[0] };
	ck_assert_int_eq(dup2(fds[1], 2), 2);
	ss_log(server, SS_LOG_ERROR, 0, "not for clients");
	ck_assert_int_eq(recv_within(fds[0], line, sizeof(line), 0), -EAGAIN);
	ck_assert_uint_eq(dropped(server), 1);
	restore(&sink);
	close(fds[1]);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Who had none has a file of its own there, perhaps. */
START_TEST(log_spares_a_file_in_the_place_of_standard_error)
{
	char path[100];
	struct stat st;
	snprintf(path, sizeof(path), "%s/data", scratch());
	struct sink sink = { .saved = dup(2), .reader = -1 };
	close(2);
	struct ss_server *server = quiet_server(0);
	int file = open(path, O_CREAT | O_RDWR, 0600);
	ck_assert_int_eq(file, 2);
	ss_log(server, SS_LOG_ERROR, 0, "not for data");
	ck_assert_int_eq(fstat(file, &st), 0);
	restore(&sink);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert_uint_eq(dropped(server), 1);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(log_appends_to_files)
{
	char path[100], text[200] = "";
	snprintf(path, sizeof(path), "%s/log", scratch());
	struct ss_server *server = quiet_server(0);
	struct sink sink = { .saved = dup(2), .reader = -1 };
	int file = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(dup2(file, 2), 2);
	ck_assert_int_eq(write(2, "first\n", 6), 6);
	ss_log(server, SS_LOG_ERROR, 0, "second");
	ck_assert_int_eq(write(2, "third\n", 6), 6);
	ck_assert_int_gt(pread(file, text, sizeof(text) - 1, 0), 0);
	ck_assert_str_eq(text, "first\nsocketserver: error: second\nthird\n");
	restore(&sink);
	close(file);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- the same while serving -----------------------------------------------*/

static struct ss_config to_stderr(const struct model *model)
{
	struct ss_config config =
		config_of(model, &transports[0], &echo_handler);
	config.log_level = SS_LOG_INFO;
	return config;
}

/* Threads and children write whole lines, each its own. */
START_TEST(log_lines_of_threads_and_children_are_whole)
{
	if (model_supervised(&models[_i]))
		return; /* workers would have this process's clients */
	enum { CLIENTS = 16, WORDS = 10 };
	struct ss_config config = to_stderr(&models[_i]);
	struct sink sink = capture();
	struct served served;
	served_start(&served, &config);
	for (int i = 0; i < CLIENTS; i++)
		for (int k = 0; k < WORDS; k += WORDS)
			echo_once(served.url, "hello");
	served_stop(&served);
	const char *text = taken(&sink, NULL);
	bool seen[CLIENTS + 1] = { false };
	for (int i = 0; i < CLIENTS; i++) {
		unsigned long long id;
		ck_assert_int_eq(sscanf(text,
					"socketserver: info: #%llu 5 bytes, "
					"\"hello\"\n",
					&id),
				 1);
		ck_assert_uint_le(id & 0xffff, CLIENTS);
		ck_assert(!seen[id & 0xffff]);
		seen[id & 0xffff] = true;
		text = strchr(text, '\n') + 1;
	}
	ck_assert_str_eq(text, "");
	restore(&sink);
}
END_TEST

/* 0: full; 1: a pipe without reader; 2: closed. */
static void spoil(struct sink *sink, int how)
{
	if (how == 0)
		fill(2, 0);
	else
		close(how == 1 ? sink->reader : 2);
	if (how == 1)
		sink->reader = -1;
}

/* A child's end would interrupt our own recv. */
static void block_sigchld(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	ck_assert_int_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
}

/* They connect before it is closed, so that descriptor 2 is not theirs then,
 * and are taken after it, so that no child has what it had before. */
START_TEST(log_that_goes_nowhere_does_not_stop_the_server)
{
	if (model_supervised(&models[_i / 3]))
		return; /* workers have their own */
	enum { CLIENTS = 10 };
	int fds[CLIENTS];
	signal(SIGPIPE, SIG_DFL);
	block_sigchld();
	struct ss_config config = to_stderr(&models[_i / 3]);
	struct sink sink = capture();
	struct served served;
	served_start(&served, &config);
	ss_hold(served.server, SS_HOLD_SUSPENDED);
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial(served.url);
	spoil(&sink, _i % 3);
	ss_release(served.server, SS_HOLD_SUSPENDED);
	for (int i = 0; i < CLIENTS; i++) {
		send_text(fds[i], "hello");
		expect_text(fds[i], "hello");
		shutdown(fds[i], SHUT_WR);
		expect_end(fds[i]);
	}
	/* Children count in memory that is shared. */
	eventually(dropped(served.server) >= CLIENTS);
	ck_assert_uint_eq(dropped(served.server), CLIENTS);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	served_stop(&served);
	restore(&sink);
}
END_TEST

/* ---- handle_error ---------------------------------------------------------*/

static const struct mishap {
	const char *name;
	int setup, handle, finish, verify, process, shake; /* 0: goes well */
	const char *why; /* by ss_fail, where it goes wrong */
	int level;
	const char *text; /* after the peer */
} mishaps[] = {
	{ "setup", .setup = -EIO, .level = SS_LOG_ERROR,
	  .text = "setup: Input/output error" },
	{ "handle", .handle = -EIO, .level = SS_LOG_ERROR,
	  .text = "handle: Input/output error" },
	{ "finish", .finish = -EIO, .level = SS_LOG_ERROR,
	  .text = "finish: Input/output error" },
	{ "verify", .verify = -EIO, .level = SS_LOG_ERROR,
	  .text = "verify_request: Input/output error" },
	{ "process", .process = -EAGAIN, .level = SS_LOG_ERROR,
	  .text = "process_request: Resource temporarily unavailable" },
	{ "handshake", .shake = -EPROTO, .level = SS_LOG_ERROR,
	  .text = "handshake: Protocol error" },
	{ "why setup", .setup = -EIO, .why = "no disk", .level = SS_LOG_ERROR,
	  .text = "setup: no disk" },
	{ "why handle", .handle = -EPROTO, .why = "line 7 is too long",
	  .level = SS_LOG_ERROR, .text = "handle: line 7 is too long" },
	{ "why finish", .finish = -EIO, .why = "lost", .level = SS_LOG_ERROR,
	  .text = "finish: lost" },
	{ "why verify", .verify = -EIO, .why = "no list", .level = SS_LOG_ERROR,
	  .text = "verify_request: no list" },
	{ "why handshake", .shake = -EPROTO, .why = "no header",
	  .level = SS_LOG_ERROR, .text = "handshake: no header" },
	{ "ENOMEM", .handle = -ENOMEM, .level = SS_LOG_ERROR,
	  .text = "handle: Cannot allocate memory" },
	{ "handle, then finish", .handle = -EIO, .finish = -EPERM,
	  .level = SS_LOG_ERROR, .text = "handle: Input/output error" },
	{ "neither", .handle = 7, .level = SS_LOG_ERROR,
	  .text = "handle: handle returned 7, which is neither an error nor "
		  "SS_AGAIN" },
	/* The client went away. */
	{ "EPIPE", .handle = -EPIPE, .level = SS_LOG_DEBUG,
	  .text = "handle: Broken pipe" },
	{ "ECONNRESET", .handle = -ECONNRESET, .level = SS_LOG_DEBUG,
	  .text = "handle: Connection reset by peer" },
	{ "ECANCELED", .handle = -ECANCELED, .level = SS_LOG_DEBUG,
	  .text = "handle: Operation canceled" },
	{ "ENODATA", .handle = -ENODATA, .level = SS_LOG_DEBUG,
	  .text = "handle: No data available" },
	{ "ETIMEDOUT", .handle = -ETIMEDOUT, .level = SS_LOG_INFO,
	  .text = "handle: Connection timed out" },
	{ "why ETIMEDOUT", .handle = -ETIMEDOUT, .why = "no answer",
	  .level = SS_LOG_INFO, .text = "handle: no answer" },
};

enum { MISHAPS = sizeof(mishaps) / sizeof(*mishaps) };

static const struct mishap *mishap_of(struct ss_server *server)
{
	return ss_server_user(server);
}

static int befall(struct ss_request *req, int code)
{
	const char *why = mishap_of(ss_request_server(req))->why;
	return code < 0 && why ? ss_fail(req, code, "%s", why) : code;
}

static int bad_setup(struct ss_request *req)
{
	return befall(req, mishap_of(ss_request_server(req))->setup);
}

static int bad_handle(struct ss_request *req)
{
	return befall(req, mishap_of(ss_request_server(req))->handle);
}

static int bad_finish(struct ss_request *req)
{
	return befall(req, mishap_of(ss_request_server(req))->finish);
}

static const struct ss_handler bad_handler = { .setup = bad_setup,
					       .handle = bad_handle,
					       .finish = bad_finish };

static const struct ss_layer bad_layer;

static int bad_verify(struct ss_server *server, struct ss_request *req)
{
	int code = befall(req, mishap_of(server)->verify);
	return code ? code
		    : ss_super(server, &bad_layer)->verify_request(server, req);
}

static int bad_process(struct ss_server *server, struct ss_request *req)
{
	int code = befall(req, mishap_of(server)->process);
	return code ? code
		    : ss_super(server, &bad_layer)
			       ->process_request(server, req);
}

static int bad_shake(struct ss_server *server, struct ss_request *req)
{
	int code = befall(req, mishap_of(server)->shake);
	return code ? code
		    : ss_super(server, &bad_layer)->finish_request(server, req);
}

static const struct ss_layer bad_layer = {
	.name = "bad",
	.ops.verify_request = bad_verify,
	.ops.process_request = bad_process,
	.ops.finish_request = bad_shake,
};

static struct ss_config bad_server(const struct model *model,
				   const struct mishap *mishap)
{
	struct ss_config config = noted(model, &bad_handler);
	use_first(&config, &bad_layer, NULL);
	config.user = (void *)mishap;
	return config;
}

/* "127.0.0.1:41234", of our side. */
static const char *own_name(int fd)
{
	static char text[SS_ADDRESS_TEXT];
	struct ss_address own = { .len = sizeof(own.u) };
	ck_assert_int_eq(getsockname(fd, &own.u.sa, &own.len), 0);
	return ss_address_format(&own, text, sizeof(text));
}

START_TEST(log_of_handle_error_has_peer_phase_and_reason)
{
	/* It asks in another phase. */
	stack_without(&ss_proxy_mixin);
	const struct mishap *mishap = &mishaps[_i / model_count];
	struct ss_config config = bad_server(&models[_i % model_count], mishap);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	char expected[300];
	snprintf(expected, sizeof(expected), "%s, %s", own_name(fd),
		 mishap->text);
	expect_end(fd);
	close(fd);
	const struct line *line = logged_line(0);
	ck_assert_str_eq(line->text, expected);
	ck_assert_int_eq(line->level, mishap->level);
	ck_assert_uint_eq(line->id & 0xffff, 1);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(atomic_load(&logged->count), 1);
}
END_TEST

/* Nobody is told at the default level of clients that went away. */
START_TEST(log_is_quiet_about_clients_by_default)
{
	const struct mishap *mishap = &mishaps[_i];
	struct ss_config config = bad_server(&models[0], mishap);
	config.log_level = 0;
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	expect_end(fd);
	close(fd);
	served_stop(&served);
	ck_assert_int_eq(atomic_load(&logged->count),
			 mishap->level == SS_LOG_ERROR);
}
END_TEST

/* ss_fail's 255 bytes arrive; what is beyond is cut. */
static int fail_at_length(struct ss_request *req)
{
	return ss_fail(req, -EIO, "%0300d", 1);
}

/* A reason that was overcome is not the next one's. */
static int fail_twice(struct ss_request *req)
{
	char frame[4];
	bool end;
	ssize_t n = ss_read_frame(req, 1, frame, sizeof(frame), &end);
	ck_assert_int_eq(n, -EMSGSIZE);
	return -EIO;
}

START_TEST(log_has_the_reason_of_this_failure)
{
	static const struct ss_handler lengthy = { .handle = fail_at_length },
				       twice = { .handle = fail_twice };
	struct ss_config config = noted(&models[0], _i ? &twice : &lengthy);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	send_text(fd, "\5hello");
	const char *text = logged_line(0)->text;
	text = strstr(text, ", handle: ");
	ck_assert_ptr_nonnull(text);
	text += strlen(", handle: ");
	if (_i)
		ck_assert_str_eq(text, "Input/output error");
	else
		ck_assert_uint_eq(strspn(text, "0"), 255);
	close(fd);
	served_stop(&served);
}
END_TEST

static int failing_accept(int fd, struct sockaddr *sa, socklen_t *len,
			  int flags)
{
	(void)fd, (void)sa, (void)len, (void)flags;
	errno = EIO;
	return -1;
}

static int stop_at(struct ss_server *server)
{
	int64_t until = ss_now(server) + WAIT_MS;
	while (!atomic_load(&logged->count) && ss_now(server) < until)
		ck_assert_int_eq(ss_server_turn(server, ss_now(server) + 20),
				 0);
	return 0;
}

START_TEST(log_of_an_accept_error_is_the_servers_own)
{
	struct ss_config config = noted(&models[0], &echo_handler);
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT];
	int fd = dial(ss_server_url(server, 0, url, sizeof(url)));
	struct sys_table real = sys_table;
	sys_table.accept = failing_accept;
	stop_at(server);
	sys_table = real;
	ck_assert_str_eq(logged_line(0)->text, "accept: Input/output error");
	ck_assert_int_eq(logged_line(0)->level, SS_LOG_ERROR);
	ck_assert_uint_eq(logged_line(0)->id, 0);
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Really so, not by a handler's word. */
START_TEST(log_of_real_resets_and_time_outs)
{
	struct ss_config config = noted(&models[_i], &echo_handler);
	config.timeouts.io_ms = 100;
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(logged_line(0)->level, SS_LOG_INFO);
	ck_assert_ptr_nonnull(
		strstr(logged_line(0)->text, ", handle: Connection timed out"));
	fd = dial(node.url);
	send_text(fd, "hello");
	expect_text(fd, "hello");
	struct linger reset = { .l_onoff = 1 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	ck_assert_int_eq(logged_line(2)->level, SS_LOG_DEBUG);
	ck_assert_ptr_nonnull(strstr(logged_line(2)->text,
				     ", handle: Connection reset by peer"));
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- errno ----------------------------------------------------------------*/

static void keeps_errno(struct ss_server *server)
{
	static const char *format = "%m"; /* glibc's: strerror(errno) */
	for (int level = SS_LOG_ERROR; level <= SS_LOG_DEBUG; level++) {
		errno = ENOTTY;
		ss_log(server, level, 0, format, 0);
		ck_assert_int_eq(errno, ENOTTY);
	}
}

START_TEST(log_leaves_errno_alone)
{
	struct ss_config config = noted(&models[0], &echo_handler);
	config.log_level = SS_LOG_INFO;
	struct ss_server *server = made(&config);
	keeps_errno(server);
	ck_assert_str_eq(logged_line(0)->text, strerror(ENOTTY));
	ck_assert_int_eq(ss_server_free(server), 0);
	server = quiet_server(0);
	struct sink sink = capture();
	keeps_errno(server);
	fill(2, 0);
	keeps_errno(server);
	close(sink.reader);
	sink.reader = -1;
	keeps_errno(server);
	close(2);
	keeps_errno(server);
	restore(&sink);
	ck_assert_uint_gt(dropped(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_callback(Suite *suite)
{
	TCase *tcase = suite_case(suite, "callback", NULL, NULL);
	tcase_add_loop_test(tcase, log_callback_is_told_all_there_is, 0,
			    model_count);
	tcase_add_test(tcase, log_callback_runs_on_several_threads_at_once);
	tcase_add_loop_test(tcase, log_tests_the_level_before_it_formats, 0, 6);
	tcase_add_test(tcase, log_level_is_one_of_them);
	tcase_add_loop_test(tcase, log_level_is_the_same_in_all_processes, 0,
			    model_count);
	tcase_add_test(tcase, log_leaves_errno_alone);
}

static void add_stderr(Suite *suite)
{
	TCase *tcase = suite_case(suite, "stderr", NULL, NULL);
	tcase_add_test(tcase, log_writes_a_line_to_standard_error);
	tcase_add_test(tcase, log_lines_have_at_most_1024_bytes);
	tcase_add_test(tcase, log_keeps_to_one_line);
	tcase_add_test(tcase, log_none_is_silence);
	tcase_add_loop_test(tcase,
			    log_drops_and_counts_what_a_full_pipe_does_not_take,
			    0, 2);
	tcase_add_test(tcase, log_lines_of_a_storm_are_whole_or_counted);
#ifdef SS_LINUX
	tcase_add_test(tcase,
		       log_never_blocks_where_the_room_is_taken_meanwhile);
	tcase_add_test(tcase, log_never_blocks_on_a_terminal);
#endif
	tcase_add_test(tcase, log_survives_a_pipe_without_reader);
	tcase_add_test(tcase,
		       log_survives_standard_error_closed_or_on_a_full_disk);
	tcase_add_test(tcase, log_spares_a_file_in_the_place_of_standard_error);
	tcase_add_test(tcase, log_appends_to_files);
	tcase_add_test(tcase, log_writes_to_the_socket_that_standard_error_is);
	tcase_add_test(tcase,
		       log_spares_a_socket_in_the_place_of_standard_error);
	tcase_add_loop_test(tcase, log_lines_of_threads_and_children_are_whole,
			    0, model_count);
	tcase_add_loop_test(tcase,
			    log_that_goes_nowhere_does_not_stop_the_server, 0,
			    3 * model_count);
}

static void add_errors(Suite *suite)
{
	TCase *tcase = suite_case(suite, "handle_error", NULL, NULL);
	tcase_add_loop_test(tcase,
			    log_of_handle_error_has_peer_phase_and_reason, 0,
			    MISHAPS * model_count);
	tcase_add_loop_test(tcase, log_is_quiet_about_clients_by_default, 0,
			    MISHAPS);
	tcase_add_loop_test(tcase, log_has_the_reason_of_this_failure, 0, 2);
	tcase_add_test(tcase, log_of_an_accept_error_is_the_servers_own);
	tcase_add_loop_test(tcase, log_of_real_resets_and_time_outs, 0,
			    model_count);
}

Suite *t_log(void)
{
	Suite *suite = suite_create("t_log");
	add_callback(suite);
	add_stderr(suite);
	add_errors(suite);
	return suite;
}
