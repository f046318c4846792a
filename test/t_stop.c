/*
 * Stopping: ss_shutdown from everywhere, the graceful stop and its deadlines,
 * what children hold and when they end, and reaching requests by their id.
 *
 * One handler serves them all: it does what the client's line says, and answers
 * with a number.
 */
#include "support.h"

#include <dirent.h>
#include <netinet/in.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { PONG = 7, MANY = 5 };

/* What a test, its servers and their children share. */
struct board {
	struct tape tape;
	sem_t release; /* for who holds */
	sem_t go;      /* for the server's body */
	atomic_int held;
	atomic_int counter;
	atomic_int taken; /* by get_request */
	atomic_ullong id;
	atomic_bool wanted; /* the body is to reach in */
	atomic_int answer;
	char url[SS_ADDRESS_TEXT]; /* of a second server */
};

static struct board *board;

static void board_new(void)
{
	board = ss_shared_alloc(sizeof(*board));
	ck_assert_ptr_nonnull(board);
	sem_init(&board->release, 1, 0);
	sem_init(&board->go, 1, 0);
}

/* Bounded, and not moved by signals. */
static void take(sem_t *sem)
{
	int64_t until = clock_ms() + WAIT_MS;
	while (sem_trywait(sem) == -1 && clock_ms() < until)
		pause_ms(1);
}

static bool noted(const char *text)
{
	return tape_find(&board->tape, text) >= 0;
}

/* ---- the handler ----------------------------------------------------------*/

static int say_pong(struct ss_request *req)
{
	(void)req;
	return PONG;
}

static int say_pid(struct ss_request *req)
{
	(void)req;
	return getpid();
}

static int give_id(struct ss_request *req)
{
	atomic_store(&board->id, ss_request_id(req));
	return 0;
}

static int say_stopping(struct ss_request *req)
{
	return ss_stopping(req);
}

/* Until it sees it, by loads alone. */
static int await_stop(struct ss_request *req)
{
	int64_t until = clock_ms() + WAIT_MS;
	atomic_fetch_add(&board->held, 1);
	while (!ss_stopping(req) && clock_ms() < until)
		sched_yield();
	return ss_stopping(req);
}

/* Where the thread has others to run too, they run, as long as it may wait. */
static void pause_here(struct ss_request *req)
{
	bool parks = ss_server_flags(ss_request_server(req)) & SS_LAYER_PARKS;
	if (!parks || ss_sleep(req, 10) < 0)
		pause_ms(1);
}

/* Blocks where the library cannot reach it. */
static int hold(struct ss_request *req)
{
	atomic_fetch_add(&board->held, 1);
	int64_t until = clock_ms() + WAIT_MS;
	bool told = false;
	while (sem_trywait(&board->release) == -1 && clock_ms() < until) {
		if (!told && ss_stopping(req))
			tape_note(&board->tape, "stopping");
		told = ss_stopping(req);
		pause_here(req);
	}
	return PONG;
}

static int sleep_long(struct ss_request *req)
{
	atomic_fetch_add(&board->held, 1);
	int r = ss_sleep(req, 2 * WAIT_MS);
	tape_note(&board->tape, "sleep %d", r);
	return r;
}

/* Its own stream is one of those that it waits for. */
static int wait_long(struct ss_request *req)
{
	struct ss_wait own = { .req = req, .events = POLLIN };
	atomic_fetch_add(&board->held, 1);
	int r = ss_wait_any(req, &own, 1,
			    ss_now(ss_request_server(req)) + WAIT_MS);
	tape_note(&board->tape, "wait_any %d", r);
	return r;
}

/* Writes until it fails. */
static int flood(struct ss_request *req)
{
	static const char block[65536];
	ssize_t r;
	atomic_fetch_add(&board->held, 1);
	do
		r = ss_write(req, block, sizeof(block));
	while (r > 0);
	tape_note(&board->tape, "flood %zd", r);
	return (int)r;
}

static int ask_shutdown(struct ss_request *req)
{
	ss_shutdown(ss_request_server(req));
	return PONG;
}

static int ask_shutdown_wait(struct ss_request *req)
{
	return ss_shutdown_wait(ss_request_server(req), SS_NONE);
}

static int ask_close(struct ss_request *req)
{
	return ss_server_close(ss_request_server(req));
}

static int ask_free(struct ss_request *req)
{
	return ss_server_free(ss_request_server(req));
}

static int ask_serve(struct ss_request *req)
{
	return ss_serve_forever(ss_request_server(req));
}

static int ask_turn(struct ss_request *req)
{
	return ss_server_turn(ss_request_server(req), 0);
}

static int ask_handle(struct ss_request *req)
{
	return ss_handle_request(ss_request_server(req));
}

static const struct {
	const char *word;
	int (*run)(struct ss_request *req);
} words[] = {
	{ "ping", say_pong },
	{ "pid", say_pid },
	{ "id", give_id },
	{ "stopping", say_stopping },
	{ "await", await_stop },
	{ "hold", hold },
	{ "sleep", sleep_long },
	{ "wait", wait_long },
	{ "flood", flood },
	{ "shutdown", ask_shutdown },
	{ "shutdown_wait", ask_shutdown_wait },
	{ "close", ask_close },
	{ "free", ask_free },
	{ "serve", ask_serve },
	{ "turn", ask_turn },
	{ "handle", ask_handle },
};

static int obey(struct ss_request *req, const char *word)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (!strcmp(words[i].word, word))
			return words[i].run(req);
	return -EPROTO;
}

static int greet(struct ss_request *req)
{
	(void)req;
	tape_note(&board->tape, "begun");
	return 0;
}

static int serve_line(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0) {
		tape_note(&board->tape, "read %zd", n);
		return (int)n;
	}
	line[strcspn(line, "\n")] = '\0';
	int r = obey(req, line);
	n = ss_printf(req, "%d\n", r);
	return n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler obedient = {
	.name = "obedient",
	.setup = greet,
	.handle = serve_line,
};

/* ---- its clients ----------------------------------------------------------*/

static void tell(int fd, const char *word)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "%s\n", word);
	send_bytes(fd, line, (size_t)n);
}

static int hear(int fd)
{
	char line[32] = "";
	int type = 0;
	socklen_t len = sizeof(type);
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
	if (type == SOCK_DGRAM) {
		ssize_t n = recv(fd, line, sizeof(line) - 1, 0);
		ck_assert_msg(n > 0, "no answer: %s", strerror(errno));
		return atoi(line);
	}
	size_t n = 0;
	do
		expect_bytes(fd, line + n, 1);
	while (line[n] != '\n' && ++n < sizeof(line) - 1);
	return atoi(line);
}

static int ask(int fd, const char *word)
{
	tell(fd, word);
	return hear(fd);
}

static int ask_once(const char *url, const char *word)
{
	int fd = dial(url);
	int r = ask(fd, word);
	close(fd);
	return r;
}

/* Whether a client could connect. */
static bool answers(const char *url)
{
	int fd = try_dial(url);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* Each that asks is another one to be served first: more and more seldom. */
static void expect_refusal(const char *url)
{
	int pause = 1;
	for (int64_t until = clock_ms() + WAIT_MS; answers(url); pause *= 2) {
		ck_assert_msg(clock_ms() < until, "%s still answers", url);
		pause_ms(pause);
	}
}

static struct ss_config config_for(const struct model *model,
				   const struct transport *transport)
{
	struct ss_config config = config_of(model, transport, &obedient);
	config.log_level = SS_LOG_ERROR;
	return config;
}

enum { SYNC, THREADING, FORKING, POOL, FIBER, PREFORK, FIBER1 = 9 };
enum { TCP, UDP, UNIX, UNIXGRAM };

/* ---- layers that tell -----------------------------------------------------*/

static const struct ss_layer teller;

static void teller_end_request(struct ss_server *server, struct ss_request *req,
			       int status)
{
	tape_note(&board->tape, "ended %d", status);
	ss_super(server, &teller)->end_request(server, req, status);
}

static int teller_get_request(struct ss_server *server,
			      struct ss_listener *listener,
			      struct ss_request **req)
{
	int r = ss_super(server, &teller)->get_request(server, listener, req);
	if (r >= 0)
		atomic_fetch_add(&board->taken, 1);
	return r;
}

static const struct ss_layer teller = {
	.name = "teller",
	.ops = { .get_request = teller_get_request,
		 .end_request = teller_end_request },
};

/* ---- bodies of nodes ------------------------------------------------------*/

/* Between the loop and the close, clients queue. */
static int serve_then_pause(struct ss_server *server)
{
	int r = ss_serve_forever(server);
	tape_note(&board->tape, "loop ended");
	take(&board->go);
	return r;
}

/* ---- ss_shutdown ----------------------------------------------------------*/

/* Those that serve in the server's own process. */
static const struct model *served_models(int i)
{
	static const int served[] = { SYNC, FIBER1, THREADING, POOL, FIBER };
	return &models[served[i]];
}
enum { SERVED = 5, SERVED_APART = 2 }; /* from that one on: by threads */

/* Fiber by threads on a machine of one processor, too. */
static struct ss_config config_served(int i)
{
	static const struct ss_fiber_options two_loops = { .loops = 2 };
	struct ss_config config =
		config_for(served_models(i), &transports[TCP]);
	if (i >= SERVED_APART)
		use_options(&config, &ss_fiber_mixin, &two_loops);
	return config;
}

static int64_t clock_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static int64_t time_of_shutdown(const struct ss_config *config)
{
	struct served served;
	served_start(&served, config);
	ck_assert_int_eq(ask_once(served.url, "ping"), PONG);
	int64_t before = clock_us();
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	int64_t took = clock_us() - before;
	ck_assert_int_eq(served.result, 0);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	return took;
}

START_TEST(shutdown_of_an_idle_server_is_at_once)
{
	enum { TIMES = 31 };
	int64_t took[TIMES];
	board_new();
	for (int i = 0; i < TIMES; i++) {
		struct ss_config config = config_served(_i);
		took[i] = time_of_shutdown(&config);
	}
	qsort(took, TIMES, sizeof(*took), by_value);
	printf("t_stop: %s, shutdown of an idle server: median %ld us\n",
	       served_models(_i)->name, (long)took[TIMES / 2]);
	ck_assert_int_lt(took[TIMES / 2], 200000);
}
END_TEST

static void *shut_down(void *server)
{
	ss_shutdown(server);
	return NULL;
}

START_TEST(shutdown_from_another_thread)
{
	board_new();
	struct ss_config config = config_served(_i);
	struct served served;
	served_start(&served, &config);
	pthread_t other;
	pthread_create(&other, NULL, shut_down, served.server);
	pthread_join(other, NULL);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(served.result, 0);
	ck_assert_int_eq(ss_server_free(served.server), 0);
}
END_TEST

static struct ss_server *signalled;

static void on_signal(int signal)
{
	(void)signal;
	ss_shutdown(signalled);
}

/* On the thread that sleeps in the loop, and on one that does not. */
START_TEST(shutdown_from_a_signal_handler)
{
	board_new();
	struct ss_config config = config_for(&models[SYNC], &transports[TCP]);
	struct served served;
	struct sigaction action = { .sa_handler = on_signal };
	sigaction(SIGUSR1, &action, NULL);
	served_start(&served, &config);
	signalled = served.server;
	ck_assert_int_eq(ask_once(served.url, "ping"), PONG);
	if (_i == 0)
		pthread_kill(served.thread, SIGUSR1);
	else
		raise(SIGUSR1);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(served.result, 0);
	ck_assert_int_eq(ss_server_free(served.server), 0);
}
END_TEST

static ssize_t full_write(int fd, const void *buf, size_t n)
{
	(void)fd, (void)buf, (void)n;
	errno = EAGAIN;
	return -1;
}

/* What a signal handler interrupted goes on with its own errno, even where the
 * pipe is full; and the shutdown counts. */
START_TEST(shutdown_leaves_errno_alone)
{
	struct ss_config config = config_for(&models[SYNC], &transports[TCP]);
	struct ss_server *server = made(&config);
	sys_table.write = full_write;
	errno = ENOENT;
	ss_shutdown(server);
	ck_assert_int_eq(errno, ENOENT);
	sys_table.write = write;
	ck_assert_int_eq(ss_serve_forever(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(shutdown_from_a_handler)
{
	board_new();
	struct ss_config config = config_served(_i);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	ck_assert_int_eq(ask(fd, "shutdown"), PONG);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(served.result, 0);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	expect_end(fd);
	close(fd);
}
END_TEST

START_TEST(shutdown_before_serving_counts)
{
	board_new();
	struct ss_config config = config_served(_i);
	struct ss_server *server = made(&config);
	ss_shutdown(server);
	ss_shutdown(server);
	ck_assert_int_eq(ss_serve_forever(server), 0);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), -ECANCELED);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ss_shutdown(server);
	ck_assert_int_eq(ss_handle_request(server), -ECANCELED);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

static void *serve_again(void *arg)
{
	struct served *served = arg;
	served->result = ss_serve_forever(served->server);
	return NULL;
}

/* Requests in flight go on, and who connects in between is served after it. */
START_TEST(shutdown_leaves_a_server_that_can_serve_again)
{
	board_new();
	struct ss_config config = config_served(_i);
	struct served served;
	served_start(&served, &config);
	for (int i = 0; i < 3; i++) {
		int before = dial(served.url);
		ck_assert_int_eq(ask(before, "ping"), PONG);
		if (_i == SYNC)
			close(before);
		ck_assert_int_eq(ss_shutdown_wait(served.server, SS_NONE), 0);
		pthread_join(served.thread, NULL);
		ck_assert_int_eq(served.result, 0);
		if (_i != SYNC)
			tell(before, "ping");
		if (_i >= SERVED_APART)
			ck_assert_int_eq(hear(before), PONG);
		int between = dial(served.url);
		tell(between, "ping");
		pthread_create(&served.thread, NULL, serve_again, &served);
		ck_assert_int_eq(hear(between), PONG);
		close(between);
		/* Its fiber goes on when the loop does. */
		if (_i != SYNC && _i < SERVED_APART)
			ck_assert_int_eq(hear(before), PONG);
		if (_i != SYNC)
			close(before);
	}
	served_stop(&served);
}
END_TEST

START_TEST(shutdown_wait_waits)
{
	board_new();
	struct ss_config config = config_for(&models[SYNC], &transports[TCP]);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	int64_t before = clock_ms();
	ck_assert_int_eq(
		ss_shutdown_wait(served.server, ss_now(served.server) + 50),
		-ETIMEDOUT);
	ck_assert_int_ge(clock_ms(), before + 50);
	ck_assert_int_eq(ss_shutdown_wait(served.server, 0), -ETIMEDOUT);
	sem_post(&board->release);
	ck_assert_int_eq(ss_shutdown_wait(served.server, before + WAIT_MS), 0);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	close(fd);
}
END_TEST

/* Nobody serves: it need not wait, and ends the next serve_forever. */
START_TEST(shutdown_wait_of_who_does_not_serve)
{
	board_new();
	struct ss_config config = config_for(&models[SYNC], &transports[TCP]);
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_shutdown_wait(server, SS_NONE), 0);
	ck_assert_int_eq(ss_serve_forever(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- what a handler may not -----------------------------------------------*/

START_TEST(handlers_get_edeadlk)
{
	static const char *const calls[] = {
		"close", "free", "serve", "turn", "handle", "shutdown_wait"
	};
	board_new();
	struct ss_config config = config_for(&models[_i], &transports[TCP]);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		int r = ask(fd, calls[i]);
		ck_assert_msg(r == -EDEADLK, "%s: %d", calls[i], r);
	}
	/* None of them has stopped it. */
	ck_assert_int_eq(ask(fd, "stopping"), 0);
	close(fd);
	ck_assert_int_eq(ask_once(node.url, "ping"), PONG);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* A threading handler, while nobody is in the loop. */
START_TEST(handlers_get_edeadlk_between_loops)
{
	board_new();
	struct ss_config config = config_served(_i);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	ck_assert_int_eq(ask(fd, "ping"), PONG);
	ck_assert_int_eq(ss_shutdown_wait(served.server, SS_NONE), 0);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(ask(fd, "close"), -EDEADLK);
	ck_assert_int_eq(ask(fd, "serve"), -EDEADLK);
	ck_assert_int_eq(ask(fd, "shutdown_wait"), -EDEADLK);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	close(fd);
}
END_TEST

static void deadlocked_service_actions(struct ss_server *server)
{
	tape_note(&board->tape, "close %d", ss_server_close(server));
	tape_note(&board->tape, "wait %d", ss_shutdown_wait(server, SS_NONE));
	tape_note(&board->tape, "serve %d", ss_serve_forever(server));
	ss_shutdown(server);
}

static const struct ss_layer deadlocked = {
	.name = "deadlocked",
	.ops = { .service_actions = deadlocked_service_actions },
};

START_TEST(serving_thread_gets_edeadlk)
{
	board_new();
	struct ss_config config = config_served(_i);
	use_first(&config, &deadlocked, NULL);
	struct ss_server *server = made(&config);
	ss_turn_now(server);
	ck_assert_int_eq(ss_serve_forever(server), 0);
	char all[64];
	snprintf(all, sizeof(all), "close %d wait %d serve %d", -EDEADLK,
		 -EDEADLK, -EDEADLK);
	ck_assert_str_eq(tape_text(&board->tape), all);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- an idle server -------------------------------------------------------*/

static int counted_poll(struct pollfd *fds, nfds_t n, int ms)
{
	atomic_fetch_add(&board->counter, 1);
	return poll(fds, n, ms);
}

#ifdef SS_LINUX
static int counted_epoll_wait(int epfd, struct epoll_event *events, int n,
			      int ms)
{
	atomic_fetch_add(&board->counter, 1);
	return epoll_wait(epfd, events, n, ms);
}
#endif

static void count_waits(void)
{
	sys_table.poll = counted_poll;
#ifdef SS_LINUX
	sys_table.epoll_wait = counted_epoll_wait;
#endif
}

/* How often the threads of a process have gone to sleep. */
static long switches(pid_t pid)
{
	char path[64], line[128];
	snprintf(path, sizeof(path), "/proc/%ld/task", (long)pid);
	DIR *dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	long sum = 0, n;
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		char name[sizeof(path) + sizeof(entry->d_name) + 8];
		snprintf(name, sizeof(name), "%s/%s/status", path,
			 entry->d_name);
		FILE *file = fopen(name, "r");
		while (file && fgets(line, sizeof(line), file))
			if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) ==
			    1)
				sum += n;
		if (file)
			fclose(file);
	}
	closedir(dir);
	return sum;
}

struct idler {
	struct node node;
	int client;
	pid_t child;
	long switches;
};

/* Every model, without a client and with one that says no more. */
static void idler_start(struct idler *idler, int i)
{
	struct ss_config config =
		config_for(&models[i % model_count], &transports[TCP]);
	node_start(&idler->node, &config);
	idler->client = i < model_count ? -1 : dial(idler->node.url);
	idler->child = 0;
	if (idler->client >= 0)
		idler->child = ask(idler->client, "pid");
	if (idler->child == idler->node.pid)
		idler->child = 0;
}

static long idler_switches(const struct idler *idler)
{
	return switches(idler->node.pid) +
	       (idler->child ? switches(idler->child) : 0);
}

/* How many waits there were once all wait, and a while later no other. */
static int settled(int idlers)
{
	enum { SETTLE_MS = 200 };
	int64_t until = clock_ms() + WAIT_MS;
	int waits, before;
	do {
		before = atomic_load(&board->counter);
		pause_ms(SETTLE_MS);
		waits = atomic_load(&board->counter);
	} while ((waits < idlers || waits > before) && clock_ms() < until);
	ck_assert_int_ge(waits, idlers);
	return waits;
}

/* Longer than Python's half a second. */
START_TEST(idle_servers_make_no_wakeups)
{
	enum { IDLERS = 20, WINDOW_MS = 1100 };
	struct idler idlers[IDLERS];
	ck_assert_int_eq(IDLERS, 2 * model_count);
	board_new();
	count_waits();
	for (int i = 0; i < IDLERS; i++)
		idler_start(&idlers[i], i);
	int waits = settled(IDLERS);
	for (int i = 0; i < IDLERS; i++)
		idlers[i].switches = idler_switches(&idlers[i]);
	pause_ms(WINDOW_MS);
	ck_assert_int_eq(atomic_load(&board->counter), waits);
	for (int i = 0; i < IDLERS; i++) {
#ifndef SYS_TSAN /* which has a thread of its own */
		ck_assert_int_eq(idler_switches(&idlers[i]),
				 idlers[i].switches);
#endif
		if (idlers[i].client >= 0)
			close(idlers[i].client);
		ck_assert_int_eq(node_stop(&idlers[i].node), 0);
	}
}
END_TEST

/* ---- ss_server_close ------------------------------------------------------*/

START_TEST(close_may_be_repeated)
{
	board_new();
	struct ss_config config = config_for(&models[_i / transport_count],
					     &transports[_i % transport_count]);
	struct ss_server *server = made(&config);
	if (!model_supervised(&models[_i / transport_count]))
		ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_serve_forever(server), -EBADF);
	ck_assert_int_eq(ss_server_turn(server, 0), -EBADF);
	ck_assert_int_eq(ss_handle_request(server), -EBADF);
	ck_assert_int_eq(ss_server_pollfd(server), -EBADF);
	ck_assert_int_eq(ss_server_fileno(server, 0), -ENOTSUP);
	ss_shutdown(server);
	ck_assert_int_eq(ss_shutdown_wait(server, SS_NONE), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(ss_server_free(NULL), 0);
}
END_TEST

START_TEST(close_of_what_was_never_activated)
{
	board_new();
	struct ss_config config =
		config_for(&models[SYNC], &transports[_i / 2]);
	config.no_bind = true;
	int descriptors = open_descriptors();
	struct ss_server *server = made(&config);
	if (_i % 2)
		ck_assert_int_eq(ss_server_bind(server, NULL), 0);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_activate(server, NULL), -EBADF);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(open_descriptors(), descriptors);
}
END_TEST

static atomic_int created, joined;

static int counting_create(pthread_t *thread, const pthread_attr_t *attr,
			   void *(*run)(void *), void *arg)
{
	atomic_fetch_add(&created, 1);
	return pthread_create(thread, attr, run, arg);
}

static int counting_join(pthread_t thread, void **result)
{
	atomic_fetch_add(&joined, 1);
	return pthread_join(thread, result);
}

/* Those that wait for more to do, too: theirs is a long patience. */
START_TEST(close_joins_threads)
{
	sys_table.pthread_create = counting_create;
	sys_table.pthread_join = counting_join;
	static const struct ss_threading_options patient = { .idle_ms = 60000 };
	board_new();
	struct ss_config config =
		config_for(&models[THREADING], &transports[TCP]);
	use_options(&config, &ss_threading_mixin, &patient);
	struct ss_server *server = made(&config);
	int running = threads(), fds[MANY];
	for (int i = 0; i < MANY; i++) {
		fds[i] = dial(ss_server_url(server, 0, board->url,
					    sizeof(board->url)));
		tell(fds[i], "ping");
		ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
		ck_assert_int_eq(hear(fds[i]), PONG);
	}
	ck_assert_int_ge(threads(), running + MANY);
	close(fds[0]);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_ge(atomic_load(&created), MANY);
	ck_assert_int_eq(atomic_load(&joined), atomic_load(&created));
	eventually(threads() == running);
	expect_end(fds[1]);
	ck_assert_int_eq(ss_server_free(server), 0);
	for (int i = 1; i < MANY; i++)
		close(fds[i]);
	sys_table.pthread_create = pthread_create;
	sys_table.pthread_join = pthread_join;
}
END_TEST

/* However patient: no more of them wait than are asked for. */
START_TEST(threads_beyond_max_idle_leave)
{
	static const struct ss_threading_options two = { .max_idle = 2,
							 .idle_ms = 60000 };
	sys_table.pthread_create = counting_create;
	board_new();
	struct ss_config config =
		config_for(&models[THREADING], &transports[TCP]);
	use_options(&config, &ss_threading_mixin, &two);
	struct served served;
	served_start(&served, &config);
	int running = threads(), fds[MANY];
	for (int i = 0; i < MANY; i++) {
		fds[i] = dial(served.url);
		ck_assert_int_eq(ask(fds[i], "ping"), PONG);
	}
	ck_assert_int_eq(threads(), running + MANY);
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	eventually(threads() == running + two.max_idle);
	/* Those that stay serve. */
	ck_assert_int_eq(ask_once(served.url, "ping"), PONG);
	ck_assert_int_eq(atomic_load(&created), MANY);
	served_stop(&served);
	sys_table.pthread_create = pthread_create;
}
END_TEST

START_TEST(close_while_another_thread_serves)
{
	board_new();
	struct ss_config config = config_served(_i);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	ck_assert_int_eq(ask(fd, "ping"), PONG);
	ck_assert_int_eq(ss_server_close(served.server), -EBUSY);
	ck_assert_int_eq(ss_server_free(served.server), -EBUSY);
	ck_assert_int_eq(ask(fd, "ping"), PONG);
	close(fd);
	served_stop(&served);
}
END_TEST

/* In flight, and queued: connected, not accepted, with their data sent. */
static void queue_clients(const char *url, int *queued)
{
	for (int i = 0; i < MANY; i++) {
		queued[i] = dial(url);
		tell(queued[i], "ping");
	}
}

static void expect_served(const int *queued)
{
	for (int i = 0; i < MANY; i++)
		ck_assert_int_eq(hear(queued[i]), PONG);
}

static void expect_ends(const int *queued)
{
	for (int i = 0; i < MANY; i++) {
		expect_end(queued[i]);
		close(queued[i]);
	}
}

START_TEST(close_loses_nobody)
{
	const struct model *model = &models[_i / transport_count];
	const struct transport *transport = &transports[_i % transport_count];
	bool sync = model_sync(model);
	int queued[MANY];
	board_new();
	struct ss_config config = config_for(model, transport);
	struct node node;
	node_run(&node, &config, serve_then_pause);
	int in_flight = dial(node.url);
	tell(in_flight, "hold");
	eventually(atomic_load(&board->held) == 1);
	kill(node.pid, SIGTERM);
	bool supervised = model_supervised(model);
	eventually(noted(sync && !supervised ? "stopping" : "loop ended"));
	queue_clients(node.url, queued);
	sem_post(sync ? &board->release : &board->go);
	if (!sync) {
		/* The one in flight keeps neither them nor the door. */
		expect_served(queued);
		if (transport->stream)
			expect_refusal(node.url);
	}
	sem_post(sync ? &board->go : &board->release);
	ck_assert_int_eq(hear(in_flight), PONG);
	if (sync)
		expect_served(queued);
	if (transport->stream) {
		expect_end(in_flight);
		expect_ends(queued);
	}
	ck_assert_int_eq(node_wait(&node), 0);
	if (transport->stream)
		ck_assert(!answers(node.url));
}
END_TEST

#ifdef SS_LINUX
/* Another one comes as soon as one is served. */
static struct {
	struct ss_address server;
	int fds[100];
	int count, served;
} comers;

static void one_more_comes(void)
{
	enum { MOST = sizeof(comers.fds) / sizeof(*comers.fds) };
	if (comers.count == MOST)
		return;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, &comers.server.u.sa, comers.server.len),
			 0);
	comers.fds[comers.count++] = fd;
}

static int serve_comer(struct ss_request *req)
{
	(void)req;
	comers.served++;
	one_more_comes();
	return 0;
}

/* Who is queued when the stop begins is served; a stop has an end. */
START_TEST(close_takes_no_more_than_were_queued)
{
	/* They say nothing. */
	stack_without(&ss_proxy_mixin);
	static const struct ss_handler handler = { .handle = serve_comer };
	struct ss_config config =
		config_of(&models[SYNC], &transports[TCP], &handler);
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_address(server, 0, &comers.server), 0);
	for (int i = 0; i < MANY; i++)
		one_more_comes();
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(comers.served, MANY);
	for (int i = 0; i < comers.count; i++)
		close(comers.fds[i]);
}
END_TEST
#endif

/* Those that serve several at a time. */
static const struct model *capped_models(int i)
{
	static const int capped[] = { THREADING, FORKING, POOL, FIBER, FIBER1 };
	return &models[capped[i]];
}
enum { CAPPED = 5 };

/* The same beyond max_active: they wait their turn. */
static void close_at_the_cap(const struct model *model, enum ss_full full,
			     const char *busy)
{
	int queued[MANY];
	board_new();
	struct ss_config config = config_for(model, &transports[TCP]);
	config.max_active = 1;
	config.full = full;
	struct node node;
	node_run(&node, &config, serve_then_pause);
	int in_flight = dial(node.url);
	tell(in_flight, busy);
	if (!strcmp(busy, "hold"))
		eventually(atomic_load(&board->held) == 1);
	else
		ck_assert_int_eq(hear(in_flight), PONG);
	queue_clients(node.url, queued);
	int64_t before = clock_ms();
	kill(node.pid, SIGTERM);
	eventually(noted("loop ended"));
	sem_post(&board->go);
	sem_post(&board->release);
	expect_served(queued);
	expect_ends(queued);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	close(in_flight);
}

START_TEST(close_loses_nobody_at_the_cap)
{
	close_at_the_cap(capped_models(_i % CAPPED),
			 _i / CAPPED ? SS_FULL_QUEUE : SS_FULL_WAIT, "hold");
}
END_TEST

/* An idle client has the only place: it makes room for those in the queue. */
START_TEST(close_loses_nobody_behind_an_idle_client)
{
	close_at_the_cap(capped_models(_i % CAPPED),
			 _i / CAPPED ? SS_FULL_QUEUE : SS_FULL_WAIT, "ping");
}
END_TEST

/* ---- the drain deadline ---------------------------------------------------*/

START_TEST(silent_clients_see_the_deadline)
{
	enum { DRAIN_MS = 120 };
	const struct transport *transport = &transports[_i % 2 ? UNIX : TCP];
	board_new();
	struct ss_config config = config_for(&models[_i / 2], transport);
	config.drain_ms = DRAIN_MS;
	use_first(&config, &teller, NULL);
	struct node node;
	node_start(&node, &config);
	int first = dial(node.url), second = dial(node.url);
	int at_once = model_sync(&models[_i / 2]) ? 1 : 2;
	eventually(atomic_load(&board->taken) == at_once);
	int64_t before = clock_ms();
	kill(node.pid, SIGTERM);
	expect_end(first);
	ck_assert_int_ge(clock_ms() - before, DRAIN_MS - 5);
	expect_end(second);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_lt(clock_ms() - before, DRAIN_MS + SOON_MS);
	/* Both of them, and neither was forced. */
	ck_assert_int_ge(tape_find(&board->tape, "read 0"), 0);
	ck_assert_ptr_null(strstr(tape_text(&board->tape), "read -"));
	close(first);
	close(second);
}
END_TEST

/* A handler that overlooks the end of file is forced a little later. */
START_TEST(stubborn_handlers_are_forced)
{
	enum { DRAIN_MS = 50 };
	char expected[32];
	board_new();
	struct ss_config config = config_for(&models[_i], &transports[TCP]);
	config.drain_ms = DRAIN_MS;
	use_first(&config, &teller, NULL);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	tell(fd, "flood");
	eventually(atomic_load(&board->held) == 1);
	int64_t before = clock_ms();
	kill(node.pid, SIGTERM);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_ge(clock_ms() - before, DRAIN_MS - 5);
	ck_assert_int_lt(clock_ms() - before, DRAIN_MS + SOON_MS);
	int status = _i == FORKING ? -ECHILD : -ECANCELED;
	snprintf(expected, sizeof(expected), "ended %d", status);
	ck_assert_msg(noted(expected), "%s", tape_text(&board->tape));
	snprintf(expected, sizeof(expected), "flood %d", -ECANCELED);
	if (_i != FORKING)
		ck_assert_msg(noted(expected), "%s", tape_text(&board->tape));
	close(fd);
}
END_TEST

/* Who still waits for a place then does not get one, but its end: in our queue,
 * or, unaccepted, in the kernel's. */
START_TEST(who_waits_for_a_place_sees_the_deadline)
{
	board_new();
	struct ss_config config =
		config_for(capped_models(_i / 2), &transports[TCP]);
	config.drain_ms = 50;
	config.max_active = 1;
	config.full = _i % 2 ? SS_FULL_QUEUE : SS_FULL_WAIT;
	config.log_level = SS_NONE;
	use_first(&config, &teller, NULL);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	int other = dial(node.url);
	eventually(atomic_load(&board->taken) == 1 + _i % 2);
	kill(node.pid, SIGTERM);
	ssize_t n = recv_within(other, &(char){ 0 }, 1, WAIT_MS / 2);
	ck_assert_msg(n == 0 || n == -ECONNRESET, "no end: %zd", n);
	sem_post(&board->release);
	ck_assert_int_eq(node_wait(&node), 0);
	close(other);
	close(fd);
}
END_TEST

/* The library reaches neither who holds in a child nor in a worker. */
START_TEST(processes_that_do_not_come_back_are_killed)
{
	static const int killed[] = { FORKING, PREFORK };
	board_new();
	struct ss_config config =
		config_for(&models[killed[_i]], &transports[TCP]);
	config.drain_ms = 50;
	config.log_level = SS_NONE;
	use_first(&config, &teller, NULL);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	int64_t before = clock_ms();
	kill(node.pid, SIGTERM);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	expect_end(fd);
	if (killed[_i] == FORKING) {
		char expected[32];
		snprintf(expected, sizeof(expected), "ended %d", -ECHILD);
		ck_assert_msg(noted(expected), "%s", tape_text(&board->tape));
	}
	close(fd);
}
END_TEST

/* ss_sleep and ss_wait_any are ended where reads see end of file. */
START_TEST(sleepers_are_woken_at_the_deadline)
{
	const char *word = _i % 2 ? "wait" : "sleep";
	char expected[32];
	board_new();
	struct ss_config config = config_for(&models[_i / 2], &transports[TCP]);
	config.drain_ms = 50;
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	int64_t before = clock_ms();
	tell(fd, word);
	eventually(atomic_load(&board->held) == 1);
	kill(node.pid, SIGTERM);
	ck_assert_int_eq(hear(fd), -ECANCELED);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	snprintf(expected, sizeof(expected), "%s %d",
		 _i % 2 ? "wait_any" : "sleep", -ECANCELED);
	ck_assert(noted(expected));
	close(fd);
}
END_TEST

static void free_at_last(struct ss_server *server)
{
	int r;
	int64_t until = clock_ms() + WAIT_MS;
	while ((r = ss_server_free(server)) == -EBUSY && clock_ms() < until)
		pause_ms(2);
	ck_assert_int_eq(r, 0);
}

/* Memory is checked by the asan variant, at the end of this process. */
START_TEST(abandoned_threads_are_counted)
{
	board_new();
	struct ss_config config = config_served(_i);
	config.drain_ms = 20;
	config.log_level = SS_NONE;
	int descriptors = open_descriptors(), running = threads();
	struct served served;
	served_start(&served, &config);
	int fds[2] = { dial(served.url), dial(served.url) };
	tell(fds[0], "hold");
	tell(fds[1], "hold");
	eventually(atomic_load(&board->held) == 2);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	int64_t before = clock_ms();
	ck_assert_int_eq(ss_server_close(served.server), 2);
	ck_assert_int_ge(clock_ms() - before, 1000);
	ck_assert_int_lt(clock_ms() - before, 1000 + SOON_MS);
	ck_assert_int_eq(ss_server_close(served.server), 2);
	ck_assert_int_eq(ss_server_free(served.server), -EBUSY);
	sem_post(&board->release);
	struct ss_stats stats;
	do
		ss_server_stats(served.server, &stats);
	while (stats.ended < 1);
	ck_assert_int_eq(ss_server_free(served.server), -EBUSY);
	sem_post(&board->release);
	free_at_last(served.server);
	close(fds[0]);
	close(fds[1]);
	ck_assert_int_eq(open_descriptors(), descriptors);
	eventually(threads() == running);
}
END_TEST

static void ask_twice(const struct model *model, int drain_ms)
{
	board_new();
	struct ss_config config = config_for(model, &transports[TCP]);
	config.drain_ms = drain_ms;
	use_first(&config, &teller, NULL);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	eventually(atomic_load(&board->taken) == 1);
	int64_t before = clock_ms();
	kill(node.pid, SIGTERM);
	expect_refusal(node.url);
	ck_assert_int_eq(recv_within(fd, &(char){ 0 }, 1, 0), -EAGAIN);
	kill(node.pid, SIGTERM);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	ck_assert_ptr_nonnull(strstr(tape_text(&board->tape), "ended -"));
	close(fd);
}

/* The drain deadline is the default, ten seconds, or none at all. */
START_TEST(second_request_means_now)
{
	ask_twice(capped_models(_i % CAPPED), _i / CAPPED ? SS_NONE : 0);
}
END_TEST

static void *release_later(void *arg)
{
	(void)arg;
	pause_ms(50);
	sem_post(&board->release);
	return NULL;
}

/* It was shut down before, and has served since: that is over. */
START_TEST(first_request_of_another_stop_is_no_hurry)
{
	pthread_t releaser;
	board_new();
	struct ss_config config =
		config_for(&models[THREADING], &transports[TCP]);
	struct ss_server *server = made(&config);
	ss_server_url(server, 0, board->url, sizeof(board->url));
	ss_shutdown(server);
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), -ECANCELED);
	int fd = dial(board->url);
	tell(fd, "hold");
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	eventually(atomic_load(&board->held) == 1);
	ss_shutdown(server);
	pthread_create(&releaser, NULL, release_later, NULL);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(hear(fd), PONG);
	pthread_join(releaser, NULL);
	ck_assert_int_eq(ss_server_free(server), 0);
	close(fd);
}
END_TEST

/* Workers see to it themselves: who had to be killed would end nothing. */
START_TEST(second_request_means_now_to_workers)
{
	const struct model *model = &models[_i / 2];
	if (model_supervised(model) && !model_sync(model))
		ask_twice(model, _i % 2 ? SS_NONE : 0);
}
END_TEST

/* The handler blocks the loop, which the first request therefore cannot end. */
START_TEST(second_signal_under_sync_means_now)
{
	board_new();
	struct ss_config config = config_for(&models[SYNC], &transports[TCP]);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	int64_t before = clock_ms();
	kill(node.pid, SIGTERM);
	eventually(noted("stopping"));
	kill(node.pid, SIGTERM);
	sem_post(&board->release);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	ck_assert_ptr_null(strstr(tape_text(&board->tape), "read 0"));
	close(fd);
}
END_TEST

START_TEST(second_shutdown_wakes_a_blocked_sync_handler)
{
	char expected[32];
	board_new();
	struct ss_config config = config_for(&models[SYNC], &transports[TCP]);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	eventually(noted("begun"));
	int queued = dial(served.url);
	int64_t before = clock_ms();
	ss_shutdown(served.server);
	ck_assert_int_eq(recv_within(fd, &(char){ 0 }, 1, 30), -EAGAIN);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(served.result, 0);
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	snprintf(expected, sizeof(expected), "read %d", -ECANCELED);
	ck_assert_msg(noted(expected), "%s", tape_text(&board->tape));
	/* Those in the queue are not waited for either. */
	ck_assert_int_eq(ss_server_free(served.server), 0);
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	close(queued);
	close(fd);
}
END_TEST

/* ---- what is idle ---------------------------------------------------------*/

/* Between messages it ends at once, though the deadline is far. */
START_TEST(idle_clients_end_at_once)
{
	const struct transport *transport = &transports[_i % 2 ? UNIX : TCP];
	board_new();
	struct ss_config config = config_for(&models[_i / 2], transport);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	ck_assert_int_eq(ask(fd, "ping"), PONG);
	int64_t before = clock_ms();
	kill(node.pid, SIGTERM);
	expect_end(fd);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_lt(clock_ms() - before, SOON_MS);
	ck_assert(noted("read 0"));
	close(fd);
}
END_TEST

/* Between accept and its first byte a client is in flight. */
START_TEST(clients_before_their_first_byte_are_served)
{
	board_new();
	struct ss_config config = config_for(&models[_i], &transports[TCP]);
	use_first(&config, &teller, NULL);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	eventually(atomic_load(&board->taken) == 1);
	kill(node.pid, SIGTERM);
	if (model_sync(&models[_i]))
		ck_assert_int_eq(recv_within(fd, &(char){ 0 }, 1, 30), -EAGAIN);
	else
		expect_refusal(node.url);
	ck_assert_int_eq(ask(fd, "ping"), PONG);
	expect_end(fd);
	ck_assert_int_eq(node_wait(&node), 0);
	close(fd);
}
END_TEST

/* Not idle: its next message lies in the kernel already. */
START_TEST(messages_that_came_before_the_stop_are_served)
{
	const struct transport *transport = &transports[_i % 2 ? UNIX : TCP];
	board_new();
	struct ss_config config = config_for(&models[_i / 2], transport);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	tell(fd, "ping");
	kill(node.pid, SIGTERM);
	eventually(noted("stopping"));
	if (!model_sync(&models[_i / 2]))
		expect_refusal(node.url);
	sem_post(&board->release);
	ck_assert_int_eq(hear(fd), PONG);
	ck_assert_int_eq(hear(fd), PONG);
	expect_end(fd);
	ck_assert_int_eq(node_wait(&node), 0);
	close(fd);
}
END_TEST

START_TEST(handlers_see_the_stop)
{
	const struct model *model = &models[_i / transport_count];
	const struct transport *transport = &transports[_i % transport_count];
	board_new();
	struct ss_config config = config_for(model, transport);
	struct node node;
	node_start(&node, &config);
	ck_assert_int_eq(ask_once(node.url, "stopping"), 0);
	int fd = dial(node.url);
	tell(fd, "await");
	eventually(atomic_load(&board->held) == 1);
	kill(node.pid, SIGTERM);
	ck_assert_int_eq(hear(fd), 1);
	ck_assert_int_eq(node_wait(&node), 0);
	close(fd);
}
END_TEST

/* ---- turns while closing --------------------------------------------------*/

static const struct ss_layer ticker;

static void ticker_service_actions(struct ss_server *server)
{
	atomic_fetch_add(&board->counter, 1);
	ss_turn_at(server, ss_now(server) + 10);
	ss_super(server, &ticker)->service_actions(server);
}

static const struct ss_layer ticker = {
	.name = "ticker",
	.ops = { .service_actions = ticker_service_actions },
};

static void *close_server(void *arg)
{
	struct served *served = arg;
	served->result = ss_server_close(served->server);
	return NULL;
}

START_TEST(closing_keeps_time_and_does_not_spin)
{
	enum { WINDOW_MS = 200, TICK_MS = 10 };
	board_new();
	struct ss_config config = config_served(_i);
	use_first(&config, &ticker, NULL);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	ss_shutdown(served.server);
	pthread_join(served.thread, NULL);
	pthread_create(&served.thread, NULL, close_server, &served);
	expect_refusal(served.url);
	int64_t from = clock_ms();
	int before = atomic_load(&board->counter);
	pause_ms(WINDOW_MS);
	eventually(atomic_load(&board->counter) >= before + 2);
	int ticks = atomic_load(&board->counter) - before;
	ck_assert_int_le(ticks, 4 * (clock_ms() - from) / TICK_MS);
	sem_post(&board->release);
	pthread_join(served.thread, NULL);
	ck_assert_int_eq(served.result, 0);
	ck_assert_int_eq(ss_server_free(served.server), 0);
	close(fd);
}
END_TEST

/* ---- starting again -------------------------------------------------------*/

static int start_on(const char *url, bool no_reuse)
{
	struct ss_socket_options options = { .no_reuse_address = no_reuse };
	struct ss_config config = { .addresses = { url },
				    .handler = &obedient,
				    .transport_options = &options };
	struct ss_server *server;
	int r = ss_server_new(&server, &config, NULL);
	ss_server_free(server);
	return r;
}

/* How often this machine had no room for a TIME_WAIT; whoever else makes many
 * connections takes it away (proc(5), tcp_max_tw_buckets). */
static long time_waits_lost(void)
{
	static char names[16384], values[16384];
	FILE *file = fopen("/proc/net/netstat", "r");
	long lost = 0;
	if (!file || !fgets(names, sizeof(names), file) ||
	    !fgets(values, sizeof(values), file))
		names[0] = values[0] = '\0';
	if (file)
		fclose(file);
	char *rest[2], *value = strtok_r(values, " ", &rest[1]);
	for (char *name = strtok_r(names, " ", &rest[0]); name && value;
	     name = strtok_r(NULL, " ", &rest[0])) {
		if (!strcmp(name, "TCPTimeWaitOverflow"))
			lost = strtol(value, NULL, 10);
		value = strtok_r(NULL, " ", &rest[1]);
	}
	return lost;
}

/* Who closes first has the TIME_WAIT: the server, at its end. */
START_TEST(restart_over_time_wait)
{
	board_new();
	struct ss_config config = config_for(&models[_i], &transports[TCP]);
	struct node node, again;
	node_start(&node, &config);
	int fd = dial(node.url);
	ck_assert_int_eq(ask(fd, "ping"), PONG);
	long lost = time_waits_lost();
	kill(node.pid, SIGTERM);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(node_wait(&node), 0);
	int r = start_on(node.url, true);
	if (time_waits_lost() == lost)
		ck_assert_int_eq(r, -EADDRINUSE);
	config.addresses[0] = node.url;
	node_start(&again, &config);
	ck_assert_str_eq(again.url, node.url);
	ck_assert_int_eq(ask_once(again.url, "ping"), PONG);
	ck_assert_int_eq(node_stop(&again), 0);
}
END_TEST

/* With a client that was being served; a child of the dead still serves it. */
/* A child has the socket, to answer from it; a worker that runs a handler only
 * sees what becomes of the supervisor when that waits for input. */
static bool kept_by_children(const struct model *model,
			     const struct transport *transport)
{
	if (model_supervised(model))
		return model_sync(model) || !transport->stream ||
		       model_has(model, &ss_fiber_mixin);
	return model_has(model, &ss_forking_mixin) && !transport->stream;
}

START_TEST(restart_after_kill_9)
{
	const struct transport *transport = &transports[_i % transport_count];
	const struct model *model = &models[_i / transport_count];
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	board_new();
	struct ss_config config = config_for(model, transport);
	struct node node, again;
	node_start(&node, &config);
	int fd = dial(node.url);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	kill(node.pid, SIGKILL);
	ck_assert_int_eq(node_wait(&node), 128 + SIGKILL);
	config.addresses[0] = node.url;
	if (model_supervised(model) && !kept_by_children(model, transport))
		expect_refusal(node.url);
	if (kept_by_children(model, transport)) {
		sem_post(&board->release);
		ck_assert_int_eq(hear(fd), PONG);
		ck_assert_int_gt(waitpid(-1, NULL, 0), 0);
	}
	node_start(&again, &config);
	ck_assert_str_eq(again.url, node.url);
	ck_assert_int_eq(ask_once(again.url, "ping"), PONG);
	sem_post(&board->release);
	ck_assert_int_eq(node_stop(&again), 0);
	close(fd);
}
END_TEST

/* ---- children of a dead parent --------------------------------------------*/

/* The subreaper inherits it. */
static int orphan_wait(pid_t pid)
{
	int status = 0;
	pid_t r;
	int64_t until = clock_ms() + SOON_MS;
	while ((r = waitpid(pid, &status, WNOHANG)) == 0 && clock_ms() < until)
		pause_ms(2);
	if (r == 0)
		kill(pid, SIGKILL);
	ck_assert_msg(r == pid, "the orphan lives on");
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static pid_t orphan(struct node *node, int *fd, const char *word)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[TCP]);
	node_start(node, &config);
	*fd = dial(node->url);
	pid_t child = ask(*fd, "pid");
	ck_assert_int_ne(child, node->pid);
	if (word) {
		tell(*fd, word);
		eventually(atomic_load(&board->held) == 1);
	}
	kill(node->pid, SIGKILL);
	ck_assert_int_eq(node_wait(node), 128 + SIGKILL);
	return child;
}

START_TEST(orphans_see_end_of_file)
{
	struct node node;
	int fd;
	pid_t child = orphan(&node, &fd, NULL);
	expect_end(fd);
	ck_assert_int_eq(orphan_wait(child), 0);
	ck_assert(noted("read 0"));
	close(fd);
}
END_TEST

static int read_first(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	tape_note(&board->tape, "read %zd", n);
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler reader = {
	.name = "reader",
	.setup = greet,
	.handle = read_first,
};

static bool starts(const struct ss_config *config)
{
	struct ss_server *server;
	return ss_server_new(&server, config, NULL) == 0 &&
	       ss_server_free(server) == 0;
}

/* Who restarts the server need not wait for a worker's last client. */
START_TEST(orphaned_workers_give_up_their_address_at_once)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	board_new();
	struct ss_config config =
		config_of(&models[PREFORK], &transports[TCP], &reader);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	eventually(noted("begun"));
	pid_t worker = board->tape.line[0].pid;
	kill(node.pid, SIGKILL);
	ck_assert_int_eq(node_wait(&node), 128 + SIGKILL);
	config.addresses[0] = node.url;
	eventually(starts(&config));
	send_text(fd, "x");
	expect_end(fd);
	ck_assert_int_eq(orphan_wait(worker), 0);
	close(fd);
}
END_TEST

/* Before its first byte a client is not idle; it is alone all the same. */
START_TEST(orphans_before_the_first_byte_see_end_of_file)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	board_new();
	struct ss_config config =
		config_of(&models[FORKING], &transports[UNIX], &reader);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	eventually(noted("begun"));
	pid_t child = board->tape.line[0].pid;
	kill(node.pid, SIGKILL);
	ck_assert_int_eq(node_wait(&node), 128 + SIGKILL);
	expect_end(fd);
	ck_assert_int_eq(orphan_wait(child), 0);
	ck_assert(noted("read 0"));
	close(fd);
}
END_TEST

START_TEST(orphans_that_block_are_forced)
{
	static const char *const ways[] = { "flood", "sleep" };
	struct node node;
	int fd;
	pid_t child = orphan(&node, &fd, ways[_i]);
	int status = orphan_wait(child);
	ck_assert_int_eq(status, _i == 0 ? 1 : 0);
	char expected[32];
	snprintf(expected, sizeof(expected), "%s %d", ways[_i], -ECANCELED);
	ck_assert_msg(noted(expected), "%s", tape_text(&board->tape));
	close(fd);
}
END_TEST

static atomic_bool *killed;

static int kill_in_vain(pid_t pid, int signal)
{
	if (signal != SIGKILL)
		return kill(pid, signal);
	atomic_store(killed, true);
	return 0;
}

static int compute(struct ss_request *req)
{
	int late = 0, r;
	do {
		bool over = atomic_load(killed);
		r = ss_request_ending(req);
		late += over && r != -ECANCELED;
		pause_ms(1);
	} while (r != -ECANCELED);
	tape_note(&board->tape, "late %d", late);
	return r;
}

static const struct ss_handler computer = {
	.name = "computer",
	.setup = greet,
	.handle = compute,
};

/* It is told no later than the signal would have come. */
START_TEST(who_is_not_killed_in_time_is_told)
{
	board_new();
	killed = ss_shared_alloc(sizeof(*killed));
	sys_table.kill = kill_in_vain;
	struct ss_config config =
		config_of(&models[FORKING], &transports[TCP], &computer);
	config.drain_ms = 1;
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	eventually(noted("begun"));
	kill(node.pid, SIGTERM);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert(atomic_load(killed));
	ck_assert_msg(noted("late 0"), "%s", tape_text(&board->tape));
	close(fd);
}
END_TEST

/* ---- what a child holds ---------------------------------------------------*/

struct holding {
	int sockets;
	int pipes_read;
	int pipes_write;
	int others;
};

/* 0-2 are the same here and there, and may well be /dev/null, as the spare one
 * is that no child has a use for. */
static bool is_standard(const char *fd)
{
	return strtol(fd, NULL, 10) <= STDERR_FILENO;
}

static bool is_ours(const char *link)
{
	DIR *dir = opendir("/proc/self/fd");
	bool found = false;
	struct dirent *entry;
	while (!found && (entry = readdir(dir))) {
		char path[300], target[256] = "";
		if (is_standard(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		if (readlink(path, target, sizeof(target) - 1) > 0)
			found = !strcmp(target, link);
	}
	closedir(dir);
	return found;
}

static bool writable(pid_t pid, const char *fd)
{
	char path[300], line[128];
	unsigned flags = 0;
	snprintf(path, sizeof(path), "/proc/%ld/fdinfo/%s", (long)pid, fd);
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "flags: %o", &flags) == 1)
			break;
	if (file)
		fclose(file);
	return (flags & O_ACCMODE) != O_RDONLY;
}

static void add_holding(struct holding *holding, const char *link, bool write)
{
	if (!strncmp(link, "socket:", 7))
		holding->sockets++;
	else if (!strncmp(link, "pipe:", 5) && write)
		holding->pipes_write++;
	else if (!strncmp(link, "pipe:", 5))
		holding->pipes_read++;
	else
		holding->others++;
}

/* All that it has and this process has not. */
static struct holding held_by(pid_t pid)
{
	struct holding holding = { 0 };
	char path[300], link[256];
	snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
	DIR *dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		if (is_standard(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%ld/fd/%s", (long)pid,
			 entry->d_name);
		ssize_t n = readlink(path, link, sizeof(link) - 1);
		if (n <= 0)
			continue;
		link[n] = '\0';
		if (!is_ours(link))
			add_holding(&holding, link,
				    writable(pid, entry->d_name));
	}
	closedir(dir);
	return holding;
}

/* Of `servers` in its process. */
static void expect_bare(pid_t child, int servers)
{
	struct holding holding = held_by(child);
	ck_assert_int_eq(holding.sockets, 1);
	ck_assert_int_eq(holding.pipes_read, 2);
#ifdef SS_LINUX
	ck_assert_int_eq(holding.pipes_write, 0);
#else
	ck_assert_int_eq(holding.pipes_write, 1);
#endif
	/* Records are written by children, too. */
	ck_assert_int_eq(holding.others, stacked() ? servers : 0);
}

static int turn_both(struct ss_server *first, struct ss_server *second)
{
	bool first_on = true, second_on = true;
	while (first_on || second_on) {
		if (first_on && ss_server_turn(first, ss_now(first) + 2) < 0)
			first_on = false;
		if (second_on && ss_server_turn(second, ss_now(second) + 2) < 0)
			second_on = false;
		/* SIGTERM tells the node's own server alone. */
		if (!first_on && second_on)
			ss_shutdown(second);
	}
	return 0;
}

static const struct ss_layer herald;

/* The first server's end is that of the second. */
static void herald_service_actions(struct ss_server *server)
{
	ss_super(server, &herald)->service_actions(server);
	if (atomic_load(&board->wanted))
		ss_shutdown(server);
}

static const struct ss_layer herald = {
	.name = "herald",
	.ops = { .service_actions = herald_service_actions },
};

static int with_second(struct ss_server *server, const struct model *model,
		       bool turns)
{
	struct ss_config config = config_for(model, &transports[TCP]);
	config.poll_interval_ms = 5;
	use_first(&config, &herald, NULL);
	struct ss_server *second = made(&config);
	ss_server_url(second, 0, board->url, sizeof(board->url));
	tape_note(&board->tape, "second");
	struct ss_server *both[] = { server, second };
	int r = turns ? turn_both(server, second) : ss_serve(both, 2);
	tape_note(&board->tape, "both ended");
	return r < 0 ? r : ss_server_free(second);
}

static int serve_beside_sync(struct ss_server *server)
{
	return with_second(server, &models[SYNC], false);
}

static int turn_beside_sync(struct ss_server *server)
{
	return with_second(server, &models[SYNC], true);
}

static int serve_beside_forking(struct ss_server *server)
{
	return with_second(server, &models[FORKING], false);
}

static int turn_beside_forking(struct ss_server *server)
{
	return with_second(server, &models[FORKING], true);
}

static int (*const beside[])(struct ss_server *) = {
	serve_beside_sync,
	turn_beside_sync,
	serve_beside_forking,
	turn_beside_forking,
};

START_TEST(children_hold_what_they_serve_and_nothing_else)
{
	bool forking = _i >= 2;
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[TCP]);
	struct node node;
	node_run(&node, &config, beside[_i]);
	eventually(noted("second"));
	int first = dial(node.url);
	int other = forking ? dial(board->url) : -1;
	pid_t one = ask(first, "pid");
	if (forking)
		ck_assert_int_ne(ask(other, "pid"), node.pid);
	else
		ck_assert_int_eq(ask_once(board->url, "pid"), node.pid);
	int third = dial(node.url);
	pid_t three = ask(third, "pid");
	ck_assert_int_ne(three, one);
	expect_bare(one, 2);
	expect_bare(three, 2);
	if (forking)
		expect_bare(ask(other, "pid"), 2);
	/* Its descriptor is nowhere else: the client sees the end. */
	kill(one, SIGKILL);
	expect_end(first);
	ck_assert_int_eq(ask(third, "ping"), PONG);
	atomic_store(&board->wanted, true);
	if (forking)
		close(other);
	ck_assert_int_eq(node_stop(&node), 0);
	close(first);
	close(third);
}
END_TEST

/* The one whose datagram it serves, to answer from. */
START_TEST(children_of_datagrams_hold_one_listener)
{
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[_i ? UNIXGRAM : UDP]);
	config.addresses[1] =
		_i ? "unixgram:@ss-stop-two" : "udp://127.0.0.1:0";
	struct node node;
	node_run(&node, &config, serve_beside_sync);
	eventually(noted("second"));
	int fd = dial(node.url);
	pid_t before = ask(fd, "pid");
	ck_assert_int_ne(before, node.pid);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	pid_t child = board->tape.line[board->tape.count - 1].pid;
	ck_assert_int_ne(child, node.pid);
	expect_bare(child, 2);
	sem_post(&board->release);
	ck_assert_int_eq(hear(fd), PONG);
	atomic_store(&board->wanted, true);
	ck_assert_int_eq(node_stop(&node), 0);
	close(fd);
}
END_TEST

/* One that waits in the parent's queue is no child's: it ends with it. */
START_TEST(queued_connections_end_with_the_parent)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[TCP]);
	struct node node;
	config.max_active = 2;
	config.full = SS_FULL_QUEUE;
	use_first(&config, &teller, NULL);
	node_start(&node, &config);
	int first = dial(node.url);
	pid_t one = ask(first, "pid");
	tell(first, "hold");
	eventually(atomic_load(&board->held) == 1);
	int second = dial(node.url);
	pid_t two = ask(second, "pid");
	int third = dial(node.url), fourth = dial(node.url);
	eventually(atomic_load(&board->taken) == 4);
	/* Makes room for the third, while the fourth waits. */
	kill(two, SIGKILL);
	pid_t three = ask(third, "pid");
	tell(third, "hold");
	eventually(atomic_load(&board->held) == 2);
	expect_bare(one, 1);
	expect_bare(three, 1);
	kill(node.pid, SIGKILL);
	ck_assert_int_eq(node_wait(&node), 128 + SIGKILL);
	ssize_t r = recv_within(fourth, &(char){ 0 }, 1, SOON_MS);
	ck_assert_msg(r == 0 || r == -ECONNRESET, "%zd", r);
	for (int i = 0; i < 2; i++)
		sem_post(&board->release);
	ck_assert_int_eq(hear(first), PONG);
	ck_assert_int_eq(hear(third), PONG);
	ck_assert_int_eq(orphan_wait(one), 0);
	ck_assert_int_eq(orphan_wait(three), 0);
	close(first);
	close(second);
	close(third);
	close(fourth);
}
END_TEST

/* ---- signals --------------------------------------------------------------*/

static pid_t fork_and_be_told(void)
{
	pid_t pid = fork();
	if (pid == 0)
		raise(SIGTERM);
	return pid;
}

/* ^C reaches the whole group: a child that was born this moment, too. */
START_TEST(signals_to_a_newborn_child_do_not_stop_its_parent)
{
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[TCP]);
	struct node node;
	sys_table.fork = fork_and_be_told;
	node_start(&node, &config);
	sys_table.fork = fork;
	int fd = dial(node.url);
	ck_assert_int_eq(ask(fd, "stopping"), 0);
	ck_assert_int_eq(ask_once(node.url, "ping"), PONG);
	ck_assert_int_eq(ask(fd, "stopping"), 0);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* To a child later on: the parent's business. */
START_TEST(signals_to_a_child_do_not_stop_its_parent)
{
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[TCP]);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	pid_t child = ask(fd, "pid");
	kill(child, SIGTERM);
	ck_assert_int_eq(ask(fd, "ping"), PONG);
	ck_assert_int_eq(ask(fd, "stopping"), 0);
	ck_assert_int_eq(ask_once(node.url, "ping"), PONG);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static void on_storm(int signal)
{
	(void)signal;
	atomic_fetch_add(&board->counter, 1);
}

static int serve_in_storm(struct ss_server *server)
{
	struct sigaction action = { .sa_handler = on_storm };
	sigaction(SIGUSR1, &action, NULL);
	tape_note(&board->tape, "ready");
	return ss_serve_forever(server);
}

static pid_t storm(pid_t target)
{
	pid_t pid = fork();
	ck_assert_int_ne(pid, -1);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (kill(target, SIGUSR1) == 0)
			usleep(20);
		_exit(0);
	}
	return pid;
}

static void calm(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

START_TEST(signal_storms_change_nothing)
{
	const struct model *model = &models[_i / transport_count];
	const struct transport *transport = &transports[_i % transport_count];
	board_new();
	struct ss_config config = config_for(model, transport);
	struct node node;
	node_run(&node, &config, serve_in_storm);
	eventually(noted("ready"));
	pid_t parent = storm(node.pid), second = -1;
	for (int i = 0; i < 10; i++) {
		int fd = dial(node.url);
		pid_t child = ask(fd, "pid");
		if (i == 0 && child != node.pid && transport->stream)
			second = storm(child);
		for (int j = 0; j < 10; j++)
			ck_assert_int_eq(ask(fd, "ping"), PONG);
		close(fd);
		if (second > 0)
			calm(second);
		second = -1;
	}
	eventually(atomic_load(&board->counter) >= 20);
	/* In the storm, too. */
	ck_assert_int_eq(node_stop(&node), 0);
	calm(parent);
}
END_TEST

START_TEST(stop_and_continue_change_nothing)
{
	board_new();
	struct ss_config config = config_for(&models[_i], &transports[TCP]);
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	pid_t serving = ask(fd, "pid");
	for (int i = 0; i < 3; i++) {
		kill(node.pid, SIGSTOP);
		kill(serving, SIGSTOP);
		tell(fd, "ping");
		kill(node.pid, SIGCONT);
		kill(serving, SIGCONT);
		ck_assert_int_eq(hear(fd), PONG);
		kill(serving, SIGSTOP);
		kill(serving, SIGCONT);
		ck_assert_int_eq(ask(fd, "stopping"), 0);
	}
	close(fd);
	ck_assert_int_eq(ask_once(node.url, "ping"), PONG);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- ss_cancel, ss_wake ---------------------------------------------------*/

START_TEST(cancel_ends_a_request_that)
{
	static const char *const ways[] = { "read", "sleep", "wait_any",
					    "flood" };
	static const char *const asked[] = { NULL, "sleep", "wait", "flood" };
	int way = _i / SERVED;
	char expected[32];
	board_new();
	struct ss_config config =
		config_for(served_models(_i % SERVED), &transports[TCP]);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	ck_assert_int_eq(ask(fd, "id"), 0);
	if (asked[way]) {
		tell(fd, asked[way]);
		eventually(atomic_load(&board->held) == 1);
	}
	uint64_t id = atomic_load(&board->id);
	ck_assert_int_eq(ss_cancel(served.server, id + 1), -ENOENT);
	ck_assert_int_eq(ss_cancel(served.server, id), 0);
	snprintf(expected, sizeof(expected), "%s %d", ways[way], -ECANCELED);
	eventually(noted(expected));
	eventually(ss_cancel(served.server, id) == -ENOENT);
	ck_assert_int_eq(ask_once(served.url, "ping"), PONG);
	close(fd);
	served_stop(&served);
}
END_TEST

/* Turns, and reaches in between them as the board says. */
static int turn_and_reach(struct ss_server *server,
			  int (*reach)(struct ss_server *server, uint64_t id))
{
	int r;
	while ((r = ss_server_turn(server, ss_now(server) + 5)) >= 0)
		if (atomic_load(&board->wanted)) {
			int answer = reach(server, atomic_load(&board->id));
			atomic_store(&board->answer, answer);
			atomic_store(&board->wanted, false);
		}
	return r == -ECANCELED ? 0 : r;
}

static int turn_and_cancel(struct ss_server *server)
{
	return turn_and_reach(server, ss_cancel);
}

static int turn_and_wake(struct ss_server *server)
{
	return turn_and_reach(server, ss_wake);
}

static int reach_in(void)
{
	atomic_store(&board->wanted, true);
	eventually(!atomic_load(&board->wanted));
	return atomic_load(&board->answer);
}

static void note_line(void *arg, int level, struct ss_server *server,
		      uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id;
	tape_note(&board->tape, "%s", text);
}

START_TEST(cancel_kills_a_child)
{
	char expected[32];
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[TCP]);
	config.log = note_line;
	config.log_level = SS_LOG_WARNING;
	use_first(&config, &teller, NULL);
	struct node node;
	node_run(&node, &config, turn_and_cancel);
	int fd = dial(node.url), other = dial(node.url);
	ck_assert_int_eq(ask(other, "ping"), PONG);
	ck_assert_int_eq(ask(fd, "id"), 0);
	tell(fd, "hold");
	eventually(atomic_load(&board->held) == 1);
	ck_assert_int_eq(reach_in(), 0);
	expect_end(fd);
	snprintf(expected, sizeof(expected), "ended %d", -ECHILD);
	eventually(noted(expected));
	ck_assert_msg(strstr(tape_text(&board->tape), "killed by signal 9"),
		      "%s", tape_text(&board->tape));
	ck_assert_int_eq(reach_in(), -ENOENT);
	ck_assert_int_eq(ask(other, "ping"), PONG);
	close(fd);
	close(other);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(wake_does_not_reach_a_child)
{
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[TCP]);
	struct node node;
	node_run(&node, &config, turn_and_wake);
	int fd = dial(node.url);
	ck_assert_int_eq(ask(fd, "id"), 0);
	ck_assert_int_eq(reach_in(), -ENOTSUP);
	atomic_store(&board->id, 0);
	ck_assert_int_eq(reach_in(), -ENOENT);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(wake_ends_one_wait)
{
	board_new();
	struct ss_config config =
		config_for(served_models(_i % SERVED), &transports[TCP]);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	ck_assert_int_eq(ask(fd, "id"), 0);
	uint64_t id = atomic_load(&board->id);
	const char *word = _i / SERVED ? "wait" : "sleep";
	for (int i = 1; i <= 3; i++) {
		tell(fd, word);
		eventually(atomic_load(&board->held) == i);
		ck_assert_int_eq(ss_wake(served.server, id), 0);
		ck_assert_int_eq(hear(fd), -EINTR);
	}
	/* Not a read; the next wait, once. */
	ck_assert_int_eq(ss_wake(served.server, id), 0);
	ck_assert_int_eq(ss_wake(served.server, id), 0);
	ck_assert_int_eq(ask(fd, "ping"), PONG);
	ck_assert_int_eq(ask(fd, word), -EINTR);
	tell(fd, "wait");
	eventually(atomic_load(&board->held) == 5);
	tell(fd, "ping");
	ck_assert_int_eq(hear(fd), 1);
	ck_assert_int_eq(hear(fd), PONG);
	ck_assert_int_eq(ss_wake(served.server, id + 1), -ENOENT);
	close(fd);
	served_stop(&served);
}
END_TEST

/* ---- a wake-up that arrives late ------------------------------------------*/

static int naps(struct ss_request *req)
{
	int r = ss_sleep(req, 1);
	while (r == 0)
		r = ss_sleep(req, 0);
	tape_note(&board->tape, "woken %d", r);
	take(&board->go);
	int before = atomic_load(&board->counter);
	r = ss_sleep(req, 100);
	atomic_store(&board->answer, atomic_load(&board->counter) - before);
	return r;
}

static int nap_once(struct ss_request *req)
{
	give_id(req);
	tape_note(&board->tape, "napping");
	tape_note(&board->tape, "slept %d", naps(req));
	return 0;
}

static const struct ss_handler napper = { .name = "napper",
					  .handle = nap_once };

/* Of the pipe that wakes: only once the sleeper has seen the flag. */
static ssize_t late_write(int fd, const void *buf, size_t n)
{
	int64_t until = clock_ms() + 200;
	while (atomic_load(&board->wanted) &&
	       !strstr(tape_text(&board->tape), "woken") && clock_ms() < until)
		sched_yield();
	return write(fd, buf, n);
}

START_TEST(late_wakeups_do_not_spin)
{
	char expected[64];
	board_new();
	sys_table.write = late_write;
	count_waits();
	struct ss_config config =
		config_of(&models[THREADING], &transports[TCP], &napper);
	struct served served;
	served_start(&served, &config);
	int fd = dial(served.url);
	eventually(noted("napping"));
	atomic_store(&board->wanted, true);
	ck_assert_int_eq(ss_wake(served.server, atomic_load(&board->id)), 0);
	atomic_store(&board->wanted, false);
	sem_post(&board->go);
	expect_end(fd);
	snprintf(expected, sizeof(expected), "napping woken %d slept 0",
		 -EINTR);
	ck_assert_str_eq(tape_text(&board->tape), expected);
	ck_assert_int_le(atomic_load(&board->answer), 5);
	close(fd);
	served_stop(&served);
}
END_TEST

/* ---- ss_each --------------------------------------------------------------*/

struct seen {
	int count;
	int stop_at;
	struct ss_snapshot shots[8];
};

static int see(void *arg, const struct ss_snapshot *snapshot)
{
	struct seen *seen = arg;
	ck_assert_int_lt(seen->count, 8);
	seen->shots[seen->count++] = *snapshot;
	return seen->count == seen->stop_at ? 99 : 0;
}

static struct seen look(struct ss_server *server)
{
	struct seen seen = { 0 };
	ck_assert_int_eq(ss_each(server, see, &seen), 0);
	return seen;
}

static void expect_peer(const struct ss_snapshot *shot, int fd)
{
	struct ss_address own = { .len = sizeof(own.u) };
	ck_assert_int_eq(getsockname(fd, &own.u.sa, &own.len), 0);
	ck_assert(ss_address_equal(&own, &shot->peer));
}

START_TEST(each_shows_the_living)
{
	/* The header counts, too. */
	stack_without(&ss_proxy_mixin);
	static const uint64_t came[] = { 5, 10, 0 };
	int64_t started = clock_ms();
	board_new();
	struct ss_config config = config_served(_i);
	config.max_active = 2;
	config.full = SS_FULL_QUEUE;
	struct served served;
	served_start(&served, &config);
	ck_assert_int_eq(look(served.server).count, 0);
	int fds[3];
	for (int i = 0; i < 3; i++) {
		fds[i] = dial(served.url);
		if (i < 2)
			ck_assert_int_eq(ask(fds[i], "ping"), PONG);
		eventually(look(served.server).count == i + 1);
	}
	tell(fds[1], "hold");
	eventually(atomic_load(&board->held) == 1);
	eventually(look(served.server).shots[0].idle);
	struct seen seen = look(served.server);
	for (int i = 0; i < 3; i++) {
		const struct ss_snapshot *shot = &seen.shots[i];
		expect_peer(shot, fds[i]);
		ck_assert_int_eq(shot->running, i < 2);
		ck_assert_int_eq(shot->idle, i == 0);
		ck_assert_int_eq(shot->pid, 0);
		ck_assert_int_ge(shot->age_ms, 0);
		ck_assert_int_le(shot->age_ms, clock_ms() - started);
		ck_assert_uint_eq(shot->bytes_out, i < 2 ? 2 : 0);
		ck_assert_uint_eq(shot->bytes_in, came[i]);
	}
	ck_assert_uint_lt(seen.shots[0].id, seen.shots[1].id);
	ck_assert_uint_lt(seen.shots[1].id, seen.shots[2].id);
	struct seen some = { .stop_at = 2 };
	ck_assert_int_eq(ss_each(served.server, see, &some), 99);
	ck_assert_int_eq(some.count, 2);
	sem_post(&board->release);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	eventually(look(served.server).count == 0);
	served_stop(&served);
}
END_TEST

static int note_pid(void *arg, const struct ss_snapshot *snapshot)
{
	(void)arg;
	tape_note(&board->tape, "pid %ld", (long)snapshot->pid);
	return 0;
}

static int each_child(struct ss_server *server, uint64_t id)
{
	(void)id;
	return ss_each(server, note_pid, NULL);
}

static int turn_and_look(struct ss_server *server)
{
	return turn_and_reach(server, each_child);
}

START_TEST(each_shows_children)
{
	char expected[32];
	board_new();
	struct ss_config config =
		config_for(&models[FORKING], &transports[TCP]);
	struct node node;
	node_run(&node, &config, turn_and_look);
	int fd = dial(node.url);
	pid_t child = ask(fd, "pid");
	ck_assert_int_eq(reach_in(), 0);
	snprintf(expected, sizeof(expected), "pid %ld", (long)child);
	ck_assert_msg(noted(expected), "%s", tape_text(&board->tape));
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- ss_hold, ss_release --------------------------------------------------*/

START_TEST(holding_leaves_clients_in_the_backlog)
{
	const struct model *model = served_models(_i / transport_count);
	const struct transport *transport = &transports[_i % transport_count];
	char bytes[8];
	board_new();
	struct ss_config config = config_for(model, transport);
	struct served served;
	served_start(&served, &config);
	struct ss_server *server = served.server;
	ck_assert_int_eq(ask_once(served.url, "ping"), PONG);
	ck_assert(!ss_holding(server, SS_HOLD_SUSPENDED));
	ss_hold(server, SS_HOLD_SUSPENDED | SS_HOLD_USER << 7);
	ck_assert(ss_holding(server, SS_HOLD_SUSPENDED));
	ck_assert(!ss_holding(server, SS_HOLD_USER));
	int fd = dial(served.url);
	tell(fd, "ping");
	ck_assert_int_eq(recv_within(fd, bytes, 8, 20), -EAGAIN);
	ss_release(server, SS_HOLD_SUSPENDED);
	ss_release(server, SS_HOLD_SUSPENDED);
	ck_assert(!ss_holding(server, SS_HOLD_SUSPENDED));
	ck_assert_int_eq(recv_within(fd, bytes, 8, 20), -EAGAIN);
	ss_release(server, SS_HOLD_USER << 7);
	ck_assert_int_eq(hear(fd), PONG);
	close(fd);
	served_stop(&served);
}
END_TEST

static int serve_then_hold(struct ss_server *server)
{
	int r = ss_serve_forever(server);
	ss_hold(server, SS_HOLD_SUSPENDED | SS_HOLD_USER);
	tape_note(&board->tape, "loop ended");
	take(&board->go);
	return r;
}

/* Those that a suspended server left waiting are served when it closes. */
START_TEST(closing_takes_what_was_held)
{
	const struct model *model = &models[_i / transport_count];
	const struct transport *transport = &transports[_i % transport_count];
	int queued[MANY];
	board_new();
	struct ss_config config = config_for(model, transport);
	struct node node;
	node_run(&node, &config, serve_then_hold);
	ck_assert_int_eq(ask_once(node.url, "ping"), PONG);
	kill(node.pid, SIGTERM);
	eventually(noted("loop ended"));
	queue_clients(node.url, queued);
	sem_post(&board->go);
	expect_served(queued);
	ck_assert_int_eq(node_wait(&node), 0);
	for (int i = 0; i < MANY; i++)
		close(queued[i]);
}
END_TEST

/* ---- a stop long ago ------------------------------------------------------*/

static int64_t its_clock;

static int64_t tell_its_clock(void)
{
	return its_clock++;
}

static int stops_and_echoes(struct ss_request *req)
{
	char text[8] = "";
	ssize_t n = ss_read(req, text, sizeof(text));
	if (strcmp(text, "stop") == 0)
		ss_shutdown(ss_request_server(req));
	ck_assert_int_eq(ss_sleep(req, 1), 0);
	if (n > 0)
		n = ss_write(req, text, (size_t)n);
	return n < 0 ? (int)n : 0;
}

/* Its deadline is over, and not that of the close an hour later: who is queued
 * then has all the time that there is. */
START_TEST(a_deadline_is_of_one_stop)
{
	static const struct ss_handler handler = { .handle = stops_and_echoes };
	struct ss_config config = { .addresses = { "127.0.0.1:0" },
				    .handler = &handler,
				    .drain_ms = 1000 };
	char url[SS_ADDRESS_TEXT];
	const struct sys_table real = sys_table;
	its_clock = 1000000;
	sys_table.now_ms = tell_its_clock;
	struct ss_server *server = made(&config);
	int fds[3];
	fds[0] = dial(ss_server_url(server, 0, url, sizeof(url)));
	send_text(fds[0], "stop");
	ck_assert_int_eq(ss_serve_forever(server), 0);
	expect_text(fds[0], "stop");
	its_clock += 3600000;
	for (int i = 1; i < 3; i++) {
		fds[i] = dial(url);
		send_text(fds[i], "hello");
	}
	ck_assert_int_eq(ss_server_close(server), 0);
	for (int i = 1; i < 3; i++)
		expect_text(fds[i], "hello");
	for (int i = 0; i < 3; i++) {
		expect_end(fds[i]);
		close(fds[i]);
	}
	sys_table = real;
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- suites ---------------------------------------------------------------*/

static void add_shutdown(Suite *suite)
{
	TCase *tcase = suite_case(suite, "shutdown", NULL, NULL);
	tcase_add_loop_test(tcase, shutdown_of_an_idle_server_is_at_once, 0,
			    SERVED);
	tcase_add_loop_test(tcase, shutdown_from_another_thread, 0, SERVED);
	tcase_add_loop_test(tcase, shutdown_from_a_signal_handler, 0, 2);
	tcase_add_test(tcase, shutdown_leaves_errno_alone);
	tcase_add_loop_test(tcase, shutdown_from_a_handler, 0, SERVED);
	tcase_add_loop_test(tcase, shutdown_before_serving_counts, 0, SERVED);
	tcase_add_loop_test(tcase,
			    shutdown_leaves_a_server_that_can_serve_again, 0,
			    SERVED);
	tcase_add_test(tcase, shutdown_wait_waits);
	tcase_add_test(tcase, shutdown_wait_of_who_does_not_serve);
	tcase_add_loop_test(tcase, handlers_get_edeadlk, 0, model_count);
	tcase_add_loop_test(tcase, handlers_get_edeadlk_between_loops,
			    SERVED_APART, SERVED);
	tcase_add_loop_test(tcase, serving_thread_gets_edeadlk, 0, SERVED);
	tcase_add_test(tcase, idle_servers_make_no_wakeups);
}

static void add_close(Suite *suite)
{
	int all = model_count * transport_count;
	TCase *tcase = suite_case(suite, "close", NULL, NULL);
	tcase_add_loop_test(tcase, close_may_be_repeated, 0, all);
	tcase_add_loop_test(tcase, close_of_what_was_never_activated, 0,
			    2 * transport_count);
	tcase_add_test(tcase, close_joins_threads);
	tcase_add_test(tcase, threads_beyond_max_idle_leave);
	tcase_add_loop_test(tcase, close_while_another_thread_serves, 0,
			    SERVED);
	tcase_add_loop_test(tcase, close_loses_nobody, 0, all);
#ifdef SS_LINUX
	tcase_add_test(tcase, close_takes_no_more_than_were_queued);
#endif
	tcase_add_loop_test(tcase, close_loses_nobody_at_the_cap, 0,
			    2 * CAPPED);
	tcase_add_loop_test(tcase, close_loses_nobody_behind_an_idle_client, 0,
			    2 * CAPPED);
	tcase_add_loop_test(tcase, closing_takes_what_was_held, 0, all);
	tcase_add_loop_test(tcase, closing_keeps_time_and_does_not_spin, 1,
			    SERVED);
}

static void add_deadlines(Suite *suite)
{
	TCase *tcase = suite_case(suite, "deadlines", NULL, NULL);
	tcase_add_test(tcase, a_deadline_is_of_one_stop);
	tcase_add_loop_test(tcase, silent_clients_see_the_deadline, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, stubborn_handlers_are_forced, 0,
			    model_count);
	/* But for the last, whose loop the handler holds. */
	tcase_add_loop_test(tcase, who_waits_for_a_place_sees_the_deadline, 0,
			    2 * (CAPPED - 1));
	tcase_add_loop_test(tcase, processes_that_do_not_come_back_are_killed,
			    0, 2);
	tcase_add_loop_test(tcase, sleepers_are_woken_at_the_deadline, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, abandoned_threads_are_counted, SERVED_APART,
			    SERVED);
	tcase_add_loop_test(tcase, second_request_means_now, 0, 2 * CAPPED);
	tcase_add_test(tcase, first_request_of_another_stop_is_no_hurry);
	tcase_add_loop_test(tcase, second_request_means_now_to_workers,
			    2 * PREFORK, 2 * model_count);
	tcase_add_test(tcase, second_signal_under_sync_means_now);
	tcase_add_test(tcase, second_shutdown_wakes_a_blocked_sync_handler);
}

static void add_idle(Suite *suite)
{
	TCase *tcase = suite_case(suite, "idle", NULL, NULL);
	tcase_add_loop_test(tcase, idle_clients_end_at_once, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, clients_before_their_first_byte_are_served,
			    0, model_count);
	tcase_add_loop_test(tcase,
			    messages_that_came_before_the_stop_are_served, 0,
			    2 * model_count);
	tcase_add_loop_test(tcase, handlers_see_the_stop, 0,
			    model_count * transport_count);
}

static void add_children(Suite *suite)
{
	TCase *tcase = suite_case(suite, "restart", NULL, NULL);
	tcase_add_loop_test(tcase, restart_over_time_wait, 0, model_count);
	tcase_add_loop_test(tcase, restart_after_kill_9, 0,
			    model_count * transport_count);
	tcase = suite_case(suite, "children", NULL, NULL);
	tcase_add_test(tcase, orphans_see_end_of_file);
	tcase_add_test(tcase, orphans_before_the_first_byte_see_end_of_file);
	tcase_add_loop_test(tcase, orphans_that_block_are_forced, 0, 2);
	tcase_add_test(tcase, who_is_not_killed_in_time_is_told);
	tcase_add_test(tcase, orphaned_workers_give_up_their_address_at_once);
	tcase_add_loop_test(
		tcase, children_hold_what_they_serve_and_nothing_else, 0, 4);
	tcase_add_loop_test(tcase, children_of_datagrams_hold_one_listener, 0,
			    2);
	tcase_add_test(tcase, queued_connections_end_with_the_parent);
}

static void add_signals(Suite *suite)
{
	TCase *tcase = suite_case(suite, "signals", NULL, NULL);
	tcase_add_test(tcase,
		       signals_to_a_newborn_child_do_not_stop_its_parent);
	tcase_add_test(tcase, signals_to_a_child_do_not_stop_its_parent);
	tcase_add_loop_test(tcase, signal_storms_change_nothing, 0,
			    model_count * transport_count);
	tcase_add_loop_test(tcase, stop_and_continue_change_nothing, 0,
			    model_count);
}

static void add_reaching(Suite *suite)
{
	TCase *tcase = suite_case(suite, "reaching in", NULL, NULL);
	tcase_add_loop_test(tcase, cancel_ends_a_request_that, 0, 4 * SERVED);
	tcase_add_test(tcase, cancel_kills_a_child);
	tcase_add_test(tcase, wake_does_not_reach_a_child);
	tcase_add_loop_test(tcase, wake_ends_one_wait, 0, 2 * SERVED);
	tcase_add_test(tcase, late_wakeups_do_not_spin);
	tcase_add_loop_test(tcase, each_shows_the_living, 1, SERVED);
	tcase_add_test(tcase, each_shows_children);
	tcase_add_loop_test(tcase, holding_leaves_clients_in_the_backlog, 0,
			    SERVED * transport_count);
}

Suite *t_stop(void)
{
	begin_threads();
	Suite *suite = suite_create("t_stop");
	add_shutdown(suite);
	add_close(suite);
	add_deadlines(suite);
	add_idle(suite);
	add_children(suite);
	add_signals(suite);
	add_reaching(suite);
	return suite;
}
