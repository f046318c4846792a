/*
 * Accepting: no error and no limit of it ends, spins or floods the server, or
 * costs a client more than it must (PROMISES 1 to 4).
 *
 * The system's calls are made to fail in memory that the servers share, so
 * that a test can say from outside when and how often.
 */
#include "support.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>

enum { CLIENTS = 400, ALWAYS = 1 << 30, SILENCE_MS = 40 };

/* ---- what fails -----------------------------------------------------------*/

struct fault {
	atomic_int calls; /* how often the call was made */
	atomic_int left;  /* how many of the next ones fail */
	atomic_int error; /* with this errno */
};

static struct fault *fault;
static struct tape *tape; /* the log */
static struct sys_table real;

static void new_fault(void)
{
	fault = ss_shared_alloc(sizeof(*fault));
	ck_assert_ptr_nonnull(fault);
	tape = tape_new();
}

static void set_up(void)
{
	real = sys_table;
	new_fault();
}

static void tear_down(void)
{
	sys_table = real;
}

static void arm(int error, int times)
{
	atomic_store(&fault->error, error);
	atomic_store(&fault->left, times);
}

static bool fails(void)
{
	atomic_fetch_add(&fault->calls, 1);
	if (atomic_load(&fault->left) <= 0)
		return false;
	atomic_fetch_sub(&fault->left, 1);
	errno = atomic_load(&fault->error);
	return true;
}

static int failing_accept(int fd, struct sockaddr *sa, socklen_t *len,
			  int flags)
{
	return fails() ? -1 : real.accept(fd, sa, len, flags);
}

static int failing_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*run)(void *), void *arg)
{
	return fails() ? errno : real.pthread_create(thread, attr, run, arg);
}

static pid_t failing_fork(void)
{
	return fails() ? -1 : real.fork();
}

/* ---- what is served -------------------------------------------------------*/

/* A line comes back as it is; to "stats" the server's counters answer. */
static int talk(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	struct ss_stats stats;
	ss_server_stats(ss_request_server(req), &stats);
	if (!strcmp(line, "stats\n"))
		n = ss_write(req, &stats, sizeof(stats));
	else
		n = ss_write(req, line, (size_t)n);
	return n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler talker = { .name = "talk", .handle = talk };

static void log_line(void *arg, int level, struct ss_server *server,
		     uint64_t id, const char *text)
{
	(void)level, (void)server, (void)id;
	tape_note(arg, "%s", text);
}

/* How many lines of the log begin so. */
static int lines(const struct tape *log, const char *beginning)
{
	int n = 0;
	for (int i = 0; i < TAPE_LINES && atomic_load(&log->line[i].whole); i++)
		n += !strncmp(log->line[i].text, beginning, strlen(beginning));
	return n;
}

static struct ss_config talking(const struct model *model)
{
	struct ss_config config = config_of(model, &transports[0], &talker);
	config.log = log_line;
	config.log_arg = tape;
	return config;
}

static struct ss_stats stats_of(int fd)
{
	struct ss_stats stats;
	send_text(fd, "stats\n");
	expect_bytes(fd, &stats, sizeof(stats));
	return stats;
}

/* Of a server that has a descriptor, a thread and room for one more. */
static struct ss_stats stats_at(const char *url)
{
	int fd = dial(url);
	struct ss_stats stats = stats_of(fd);
	close(fd);
	return stats;
}

static int ask(const char *url)
{
	int fd = dial(url);
	send_text(fd, "hi\n");
	return fd;
}

static void expect_silence(int fd)
{
	char byte;
	ck_assert_int_eq(recv_within(fd, &byte, 1, SILENCE_MS), -EAGAIN);
}

/* ---- 1: errors of accept --------------------------------------------------*/

static const int own_errors[] = {
	ECONNABORTED, ECONNREFUSED, ECONNRESET, EHOSTDOWN,   EHOSTUNREACH,
	ENETDOWN,     ENETUNREACH,  ENONET,	ENOPROTOOPT, EOPNOTSUPP,
	EPERM,	      EPROTO,	    ETIMEDOUT,
};
enum { OWN_ERRORS = sizeof(own_errors) / sizeof(*own_errors), EACH = 50 };

/* Fifty in a row would take seconds if the server paused after each. */
static void serve_after(const char *url, int error)
{
	arm(error, EACH);
	int64_t from = clock_ms();
	int fd = ask(url);
	expect_text(fd, "hi\n");
	ck_assert_msg(clock_ms() - from < SOON_MS, "%s: after %d ms",
		      strerror(error), (int)(clock_ms() - from));
	ck_assert_int_eq(atomic_load(&fault->left), 0);
	close(fd);
}

START_TEST(accept_goes_on_after_errors_of_a_connection)
{
	sys_table.accept = failing_accept;
	struct ss_config config = talking(&models[_i]);
	struct node node;
	node_start(&node, &config);
	for (int i = 0; i < OWN_ERRORS; i++)
		serve_after(node.url, own_errors[i]);
	struct ss_stats stats = stats_at(node.url);
	ck_assert_uint_eq(stats.errors[SS_PHASE_ACCEPT], OWN_ERRORS * EACH);
	ck_assert_uint_eq(stats.accepted, OWN_ERRORS + 1);
	serve_after(node.url, EINTR);
	serve_after(node.url, EAGAIN);
	stats = stats_at(node.url);
	ck_assert_uint_eq(stats.errors[SS_PHASE_ACCEPT], OWN_ERRORS * EACH);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_str_eq(tape_text(tape), "");
}
END_TEST

/* One server in trouble, with a fault and a log of its own. */
struct trouble {
	int error;
	int model;
	int most; /* calls of accept in a second */
	struct fault *fault;
	struct tape *tape;
	struct node node;
	int client[3];
};

static void begin_trouble(struct trouble *trouble)
{
	new_fault();
	sys_table.accept = failing_accept;
	trouble->fault = fault;
	trouble->tape = tape;
	struct ss_config config = talking(&models[trouble->model]);
	node_start(&trouble->node, &config);
	arm(trouble->error, ALWAYS);
}

/* Once all servers run, which would inherit them. */
static void knock(struct trouble *trouble)
{
	for (int i = 0; i < 3; i++)
		trouble->client[i] = ask(trouble->node.url);
}

static void check_trouble(const struct trouble *trouble, int64_t ms)
{
	const char *error = strerror(trouble->error);
	eventually(atomic_load(&trouble->fault->calls) >= 2);
	int calls = atomic_load(&trouble->fault->calls);
	ck_assert_msg(calls <= trouble->most * (ms / 1000 + 1),
		      "%s: %d calls in %d ms", error, calls, (int)ms);
	ck_assert_msg(lines(trouble->tape, "accept: ") == 1, "%s: %s", error,
		      tape_text(trouble->tape));
	for (int i = 0; i < 3; i++) {
		char byte;
		ck_assert_int_eq(recv_within(trouble->client[i], &byte, 1, 0),
				 -EAGAIN);
	}
}

/* Whether it has been said that accepting works; by another client's coming. */
static bool calm(const struct trouble *trouble)
{
	int fd = ask(trouble->node.url);
	expect_text(fd, "hi\n");
	close(fd);
	return lines(trouble->tape, "accepting clients again") == 1;
}

/* Those who waited are served, and the log says so once. */
static void end_trouble(struct trouble *trouble)
{
	for (int i = 0; i < 3; i++) {
		char got[3];
		ck_assert_msg(
			recv_within(trouble->client[i], got, 3, WAIT_MS) == 3,
			"after %s: client %d was not served",
			strerror(trouble->error), i);
		close(trouble->client[i]);
	}
	eventually(calm(trouble));
	ck_assert_int_eq(node_stop(&trouble->node), 0);
	ck_assert_int_eq(lines(trouble->tape, "accept: "), 1);
}

START_TEST(accept_without_resources_neither_spins_nor_floods)
{
	struct trouble troubles[] = {
		{ .error = EMFILE, .most = 20 },
		{ .error = ENFILE, .most = 20 },
		{ .error = ENOBUFS, .most = 20 },
		{ .error = ENOMEM, .most = 20 },
		{ .error = EMFILE, .model = 1, .most = 20 },
		{ .error = EMFILE, .model = 2, .most = 20 },
		{ .error = EMFILE, .model = 3, .most = 20 },
		{ .error = EINVAL, .most = 20 },
		{ .error = EIO, .model = 1, .most = 20 },
		{ .error = ENOSPC, .model = 2, .most = 20 },
		/* Tried again at once, but not for ever. */
		{ .error = ECONNABORTED, .most = 2000 },
		{ .error = EPERM, .model = 1, .most = 2000 },
		{ .error = EINTR, .model = 2, .most = 2000 },
		{ .error = ECONNABORTED, .model = 3, .most = 2000 },
	};
	enum { COUNT = sizeof(troubles) / sizeof(*troubles) };
	int64_t from = clock_ms();
	for (int i = 0; i < COUNT; i++)
		begin_trouble(&troubles[i]);
	for (int i = 0; i < COUNT; i++)
		knock(&troubles[i]);
	pause_ms(1000);
	for (int i = 0; i < COUNT; i++)
		check_trouble(&troubles[i], clock_ms() - from);
	for (int i = 0; i < COUNT; i++)
		atomic_store(&troubles[i].fault->left, 0);
	for (int i = 0; i < COUNT; i++)
		end_trouble(&troubles[i]);
}
END_TEST

/* By then the next try is 640 ms away: it is the end that brings it on. */
START_TEST(accept_is_tried_again_when_a_request_ends)
{
	if (model_sync(&models[_i]))
		return;
	sys_table.accept = failing_accept;
	slow_clock_install();
	struct ss_config config = talking(&models[_i]);
	struct node node;
	node_start(&node, &config);
	int first = ask(node.url);
	expect_text(first, "hi\n");
	atomic_store(&fault->calls, 0);
	arm(EMFILE, ALWAYS);
	int second = ask(node.url);
	eventually(atomic_load(&fault->calls) >= 7);
	slow_clock_begin();
	arm(0, 0);
	close(first);
	expect_text(second, "hi\n");
	slow_clock_end();
	close(second);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- 1: really no descriptors ---------------------------------------------*/

enum { LIMIT = 64 };

/* Serves with so many descriptors left. */
static int serve_with(struct ss_server *server, int left)
{
	struct rlimit old, low;
	int filler[LIMIT], n = 0, fd;
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = LIMIT;
	setrlimit(RLIMIT_NOFILE, &low);
	while (n < LIMIT && (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		filler[n++] = fd;
	if (n < left)
		return -EMFILE;
	for (int i = 0; i < left; i++)
		close(filler[--n]);
	int r = ss_serve_forever(server);
	while (n > 0)
		close(filler[--n]);
	setrlimit(RLIMIT_NOFILE, &old);
	return r;
}

static int serve_with_none(struct ss_server *server)
{
	return serve_with(server, 0);
}

static int serve_with_three(struct ss_server *server)
{
	return serve_with(server, 3);
}

static const char out_of_files[] = "accept: Too many open files";

START_TEST(accept_serves_one_client_by_the_spare_descriptor)
{
	if (model_supervised(&models[_i]))
		return;
	struct ss_config config = talking(&models[_i]);
	struct node node;
	node_run(&node, &config, serve_with_none);
	for (int i = 0; i < 3; i++) {
		int fd = ask(node.url);
		expect_text(fd, "hi\n");
		close(fd);
	}
	int first = ask(node.url);
	expect_text(first, "hi\n");
	int second = ask(node.url);
	expect_silence(second);
	close(first);
	expect_text(second, "hi\n");
	close(second);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(lines(tape, out_of_files), 1);
}
END_TEST

/* Those models whose requests hold a descriptor each, here: a child has the
 * connection to itself, and is watched when there is time for it. */
static bool holds_descriptors(const struct model *model)
{
	if (model_has(model, &ss_forking_mixin))
		return false;
	/* A supervisor could not even fork. */
	return !model_sync(model) && !model_supervised(model);
}

/* At the limit, each that leaves lets one in: no line for each of them. */
START_TEST(accept_at_the_limit_serves_in_turn_and_says_so_once)
{
	enum { INSIDE = 3, ALL = 5, MORE = 100 };
	if (!holds_descriptors(&models[_i]))
		return;
	struct ss_config config = talking(&models[_i]);
	struct node node;
	int fd[ALL + MORE];
	node_run(&node, &config, serve_with_three);
	for (int i = 0; i < ALL; i++)
		fd[i] = ask(node.url);
	for (int i = 0; i < INSIDE; i++)
		expect_text(fd[i], "hi\n");
	for (int i = INSIDE; i < ALL; i++)
		expect_silence(fd[i]);
	int64_t from = clock_ms();
	for (int i = 0; i < MORE; i++) {
		fd[ALL + i] = ask(node.url);
		close(fd[i]);
		expect_text(fd[INSIDE + i], "hi\n");
	}
	/* By the clock alone each would have waited up to a second. */
	ck_assert_int_lt(clock_ms() - from, 10 * MORE + WAIT_MS);
	for (int i = MORE; i < ALL + MORE; i++) {
		close(fd[i]);
		if (INSIDE + i < ALL + MORE)
			expect_text(fd[INSIDE + i], "hi\n");
	}
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_eq(lines(tape, out_of_files), 1);
}
END_TEST

/* ---- 2: what costs one client ---------------------------------------------*/

struct breakage {
	int model;
	int error;
	void (*install)(void);
};

static void break_threads(void)
{
	sys_table.pthread_create = failing_create;
}

static void break_fork(void)
{
	sys_table.fork = failing_fork;
}

static const struct breakage breakages[] = {
	{ 1, EAGAIN, break_threads },
	{ 2, EAGAIN, break_fork },
	{ 2, ENOMEM, break_fork },
};
enum { BREAKAGES = sizeof(breakages) / sizeof(*breakages) };

START_TEST(accept_gives_up_a_client_that_cannot_be_served)
{
	const struct breakage *breakage = &breakages[_i];
	breakage->install();
	struct ss_config config = talking(&models[breakage->model]);
	config.max_active = 1;
	struct node node;
	node_start(&node, &config);
	for (unsigned i = 1; i <= 3; i++) {
		arm(breakage->error, 1);
		int fd = dial(node.url);
		expect_end(fd);
		close(fd);
		ck_assert_int_eq(atomic_load(&fault->left), 0);
	}
	int next = ask(node.url);
	expect_text(next, "hi\n");
	struct ss_stats stats = stats_of(next);
	close(next);
	ck_assert_uint_eq(stats.accepted, 4);
	ck_assert_uint_eq(stats.active, 1);
	ck_assert_uint_eq(stats.ended, 3);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_PROCESS], 3);
	ck_assert_uint_eq(stats.errors[SS_PHASE_PROCESS], 3);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_msg(tape_find(tape, "accept") < 0, "%s", tape_text(tape));
}
END_TEST

/* Served, or its end, at once. */
static void survive(const char *url)
{
	char got[8];
	int fd = dial(url);
	send(fd, "hi\n", 3, MSG_NOSIGNAL);
	ssize_t n = recv_within(fd, got, sizeof(got), WAIT_MS);
	ck_assert_msg(n == 3 || n == 0 || n == -ECONNRESET, "%zd", n);
	close(fd);
}

static int serve_alone(struct ss_server *server)
{
	return ss_serve(&server, 1);
}

/* Fails the n-th allocation of a client's service; false: there is none. */
static bool survive_without(const struct model *model,
			    int (*body)(struct ss_server *server), int n)
{
	static const struct ss_threading_options fresh = {
		.max_idle = SS_NONE,
	};
	struct ss_config config = talking(model);
	use_options(&config, &ss_threading_mixin, &fresh);
	struct node node;
	node_run(&node, &config, body);
	/* ss_serve itself may say that it has no memory to begin with. */
	if (body == serve_alone)
		survive(node.url);
	atomic_store(&fault->calls, -n);
	survive(node.url);
	bool was_hit = atomic_exchange(&fault->calls, 0) >= 0;
	int fd = ask(node.url);
	expect_text(fd, "hi\n");
	eventually(stats_of(fd).active == 1);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	return was_hit;
}

/* The one for which `calls` comes to 0. */
static bool starves(void)
{
	errno = ENOMEM;
	return atomic_fetch_add(&fault->calls, 1) == -1;
}

static void *starving_malloc(size_t n)
{
	return starves() ? NULL : real.malloc(n);
}

static void *starving_calloc(size_t n, size_t size)
{
	return starves() ? NULL : real.calloc(n, size);
}

static void *starving_realloc(void *memory, size_t n)
{
	return starves() ? NULL : real.realloc(memory, n);
}

START_TEST(accept_survives_the_failure_of_every_allocation)
{
	if (_i % 2 && model_supervised(&models[_i / 2]))
		return;
	sys_table.malloc = starving_malloc;
	sys_table.calloc = starving_calloc;
	sys_table.realloc = starving_realloc;
	int n = 1;
	while (survive_without(&models[_i / 2],
			       _i % 2 ? serve_alone : ss_serve_forever, n))
		ck_assert_int_lt(++n, 50);
	/* A server that has served before may need none. */
	ck_assert(_i % 2 || n > 1);
}
END_TEST

/* ---- 3: the cap -----------------------------------------------------------*/

static void open_clients(int *fd, int count, const char *url)
{
	for (int i = 0; i < count; i++)
		fd[i] = ask(url);
}

/* Ends each in turn; those that come after it get their answer. */
static void end_in_turn(const int *fd, int count, int active)
{
	for (int i = 0; i < count; i++) {
		close(fd[i]);
		if (i + active < count)
			expect_text(fd[i + active], "hi\n");
	}
}

START_TEST(cap_leaves_clients_in_the_backlog)
{
	if (model_sync(&models[_i]))
		return;
	enum { COUNT = 6, MAX = 2 };
	struct ss_config config = talking(&models[_i]);
	config.max_active = MAX;
	config.full = SS_FULL_WAIT;
	struct node node;
	int fd[COUNT];
	node_start(&node, &config);
	open_clients(fd, COUNT, node.url);
	for (int i = 0; i < MAX; i++)
		expect_text(fd[i], "hi\n");
	expect_silence(fd[MAX]);
	struct ss_stats stats = stats_of(fd[0]);
	ck_assert_uint_eq(stats.accepted, MAX);
	ck_assert_uint_eq(stats.active, MAX);
	ck_assert_uint_eq(stats.queued, 0);
	end_in_turn(fd, COUNT, MAX);
	stats = stats_at(node.url);
	ck_assert_uint_eq(stats.accepted, COUNT + 1);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_FULL], 0);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_str_eq(tape_text(tape), "");
}
END_TEST

START_TEST(cap_queues_some_and_leaves_the_rest)
{
	if (model_sync(&models[_i]))
		return;
	enum { COUNT = 7, MAX = 2, QUEUE = 3 };
	struct ss_config config = talking(&models[_i]);
	config.max_active = MAX;
	config.full = SS_FULL_QUEUE;
	config.queue_size = QUEUE;
	struct node node;
	int fd[COUNT];
	node_start(&node, &config);
	open_clients(fd, COUNT, node.url);
	for (int i = 0; i < MAX; i++)
		expect_text(fd[i], "hi\n");
	eventually(stats_of(fd[0]).queued == QUEUE);
	for (int i = MAX; i < COUNT; i++)
		expect_silence(fd[i]);
	struct ss_stats stats = stats_of(fd[0]);
	ck_assert_uint_eq(stats.accepted, MAX + QUEUE);
	ck_assert_uint_eq(stats.active, MAX);
	ck_assert_uint_eq(stats.queued, QUEUE);
	close(fd[0]);
	expect_text(fd[MAX], "hi\n");
	/* Its place in the queue is the next one's. */
	eventually(stats_of(fd[1]).accepted == MAX + QUEUE + 1);
	ck_assert_uint_eq(stats_of(fd[1]).queued, QUEUE);
	end_in_turn(fd + 1, COUNT - 1, MAX);
	stats = stats_at(node.url);
	ck_assert_uint_eq(stats.queued, 0);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_FULL], 0);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_str_eq(tape_text(tape), "");
}
END_TEST

/* A client that is refused hears it, though it has spoken already. */
START_TEST(cap_refuses_with_a_word)
{
	/* Nobody reads the header of who is refused. */
	stack_without(&ss_proxy_mixin);
	if (model_sync(&models[_i]))
		return;
	enum { MAX = 2 };
	struct ss_config config = talking(&models[_i]);
	config.max_active = MAX;
	config.full = SS_FULL_REFUSE;
	config.refusal = "busy\n";
	struct node node;
	int fd[MAX];
	node_start(&node, &config);
	open_clients(fd, MAX, node.url);
	for (int i = 0; i < MAX; i++)
		expect_text(fd[i], "hi\n");
	for (int i = 0; i < 3; i++) {
		int more = i ? dial(node.url) : ask(node.url);
		expect_text(more, "busy\n");
		if (i)
			expect_end(more);
		close(more);
	}
	eventually(stats_of(fd[1]).ended == 3);
	struct ss_stats stats = stats_of(fd[1]);
	ck_assert_uint_eq(stats.accepted, MAX + 3);
	ck_assert_uint_eq(stats.active, MAX);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_FULL], 3);
	close(fd[0]);
	eventually(stats_of(fd[1]).active == 1);
	int next = ask(node.url);
	expect_text(next, "hi\n");
	close(next);
	close(fd[1]);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_str_eq(tape_text(tape), "");
}
END_TEST

START_TEST(cap_refuses_without_a_word)
{
	if (model_sync(&models[_i]))
		return;
	struct ss_config config = talking(&models[_i]);
	config.max_active = 1;
	config.full = SS_FULL_REFUSE;
	struct node node;
	node_start(&node, &config);
	int first = ask(node.url);
	expect_text(first, "hi\n");
	int second = dial(node.url);
	expect_end(second);
	close(second);
	ck_assert_uint_eq(stats_of(first).refused[SS_REFUSED_FULL], 1);
	close(first);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* Sync serves one at a time: whatever the policy, nobody is refused. */
START_TEST(cap_means_nothing_to_sync)
{
	struct ss_config config = talking(&models[0]);
	config.max_active = 1;
	config.full = (enum ss_full)_i;
	config.queue_size = 1;
	struct node node;
	int fd[4];
	node_start(&node, &config);
	open_clients(fd, 4, node.url);
	expect_text(fd[0], "hi\n");
	end_in_turn(fd, 4, 1);
	struct ss_stats stats = stats_at(node.url);
	ck_assert_uint_eq(stats.accepted, 5);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_FULL], 0);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

static void *serve_two(void *servers)
{
	return (void *)(intptr_t)ss_serve(servers, 2);
}

/* The loop of a full server goes on: its neighbour is served, and it stops
 * when told. */
START_TEST(cap_never_blocks_the_loop)
{
	/* Nobody reads the header of who is refused. */
	stack_without(&ss_proxy_mixin);
	/* Threading, pool */
	struct ss_config config = talking(&models[_i % 2 ? 3 : 1]), other;
	other = config;
	config.max_active = 1;
	config.full = (enum ss_full)(_i / 2);
	config.queue_size = 1;
	struct ss_server *servers[] = { made(&config), made(&other) };
	char url[2][SS_ADDRESS_TEXT];
	int fd[3];
	pthread_t thread;
	for (int i = 0; i < 2; i++)
		ss_server_url(servers[i], 0, url[i], sizeof(url[i]));
	pthread_create(&thread, NULL, serve_two, servers);
	open_clients(fd, 3, url[0]);
	expect_text(fd[0], "hi\n");
	for (int i = 0; i < 10; i++)
		close(ask(url[1]));
	int next = ask(url[1]);
	expect_text(next, "hi\n");
	close(next);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(
			ss_shutdown_wait(servers[i], clock_ms() + WAIT_MS), 0);
	void *result;
	pthread_join(thread, &result);
	ck_assert_ptr_null(result);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(ss_server_free(servers[i]), 0);
}
END_TEST

/* ---- counts of who was turned away ----------------------------------------*/

static atomic_int *verdict;

static int judge_verify(struct ss_server *server, struct ss_request *req)
{
	(void)server, (void)req;
	return atomic_load(verdict);
}

static const struct ss_layer judge = {
	.name = "judge",
	.ops = { .verify_request = judge_verify },
};

static void expect_turned_away(const char *url, int how)
{
	atomic_store(verdict, how);
	int fd = dial(url);
	expect_end(fd);
	close(fd);
}

START_TEST(stats_tell_refusals_by_their_reason)
{
	/* It asks another time, in another phase. */
	stack_without(&ss_proxy_mixin);
	verdict = ss_shared_alloc(sizeof(*verdict));
	struct ss_config config = talking(&models[_i]);
	use_first(&config, &judge, NULL);
	struct node node;
	node_start(&node, &config);
	expect_turned_away(node.url, 0);
	expect_turned_away(node.url, 0);
	expect_turned_away(node.url, -EDOM);
	atomic_store(verdict, 1);
	struct ss_stats stats = stats_at(node.url);
	ck_assert_uint_eq(stats.accepted, 4);
	ck_assert_uint_eq(stats.ended, 3);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_VERIFY], 3);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_FULL], 0);
	ck_assert_uint_eq(stats.refused[SS_REFUSED_PROCESS], 0);
	ck_assert_uint_eq(stats.errors[SS_PHASE_VERIFY], 1);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_ptr_nonnull(strstr(tape_text(tape), "verify_request: "));
}
END_TEST

/* ---- 4: many at once ------------------------------------------------------*/

static int at_gate[2]; /* a byte: begin */

static int serve_at_the_gate(struct ss_server *server)
{
	char byte;
	ck_assert_int_eq(read(at_gate[0], &byte, 1), 1);
	return ss_serve_forever(server);
}

/* A server that begins to accept when open_gate() says so. */
static void start_at_gate(struct node *node, const struct ss_config *config,
			  int (*body)(struct ss_server *server))
{
	ck_assert_int_eq(pipe(at_gate), 0);
	node_run(node, config, body);
	close(at_gate[0]);
}

static void open_gate(void)
{
	ck_assert_int_eq(write(at_gate[1], "", 1), 1);
	close(at_gate[1]);
}

static long somaxconn(void)
{
	char text[16] = "0";
	int fd = open("/proc/sys/net/core/somaxconn", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) <= 0)
		text[0] = '\0';
	close(fd);
	return strtol(text, NULL, 10);
}

static void expect_no_retransmission(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	ck_assert_uint_eq(info.tcpi_total_retrans, 0);
}

START_TEST(accept_takes_400_clients_at_once)
{
	if (somaxconn() < CLIENTS)
		return;
	struct ss_config config = talking(&models[_i]);
	struct node node;
	static int fd[CLIENTS];
	start_at_gate(&node, &config, serve_at_the_gate);
	int64_t from = clock_ms();
	open_clients(fd, CLIENTS, node.url);
	open_gate();
	for (int i = 0; i < CLIENTS; i++) {
		expect_text(fd[i], "hi\n");
		expect_no_retransmission(fd[i]);
		close(fd[i]);
	}
	ck_assert_int_lt(clock_ms() - from, WAIT_MS);
	ck_assert_uint_eq(stats_at(node.url).accepted, CLIENTS + 1);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- several listeners ----------------------------------------------------*/

enum { BUSY = 20 };

/* Notes on which port of ours it was reached. */
static int note_port(struct ss_request *req)
{
	struct ss_address local;
	ss_request_local(req, &local);
	tape_note(ss_server_user(ss_request_server(req)), "%d",
		  ss_address_port(&local));
	return 0;
}

static const struct ss_handler noter = { .name = "note", .handle = note_port };

static void tell_urls(struct ss_server *server)
{
	char url[SS_ADDRESS_TEXT];
	for (int i = 0; i < ss_server_listeners(server); i++)
		tape_note(tape, "%s",
			  ss_server_url(server, i, url, sizeof(url)));
}

static int serve_and_tell(struct ss_server *server)
{
	tell_urls(server);
	return serve_at_the_gate(server);
}

/* Those of a busy address do not come before the one of a quiet one. */
START_TEST(accept_takes_listeners_in_turn)
{
	struct ss_config config = talking(&models[0]);
	config.handler = &noter;
	config.user = tape;
	config.addresses[0] = "127.0.0.1:0";
	config.addresses[1] = "127.0.0.2:0";
	struct node node;
	start_at_gate(&node, &config, serve_and_tell);
	tape_wait(tape, 2);
	int fd[BUSY + 1];
	for (int i = 0; i < BUSY; i++)
		fd[i] = dial(tape->line[0].text);
	fd[BUSY] = dial(tape->line[1].text);
	open_gate();
	tape_wait(tape, 2 + BUSY + 1);
	const char *quiet = strrchr(tape->line[1].text, ':') + 1;
	int place = tape_find(tape, quiet) - 2;
	ck_assert_msg(place >= 0 && place <= 1, "%s", tape_text(tape));
	for (int i = 0; i <= BUSY; i++)
		close(fd[i]);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(accept_serves_every_listener)
{
	struct ss_config config = talking(&models[_i]);
	config.addresses[0] = "127.0.0.1:0";
	config.addresses[1] = "127.0.0.2:0";
	config.addresses[2] = "tcp://127.0.0.3:0";
	struct node node;
	start_at_gate(&node, &config, serve_and_tell);
	open_gate();
	tape_wait(tape, 3);
	for (int i = 0; i < 3; i++) {
		int fd = ask(tape->line[i].text);
		expect_text(fd, "hi\n");
		close(fd);
	}
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- holding --------------------------------------------------------------*/

START_TEST(hold_keeps_clients_waiting_until_the_last_reason_goes)
{
	struct ss_config config = talking(&models[1]);
	struct served served;
	served_start(&served, &config);
	struct ss_server *server = served.server;
	const unsigned one = SS_HOLD_USER << _i;
	const unsigned two = SS_HOLD_USER << (_i + 1) % 8;
	ck_assert(!ss_holding(server, ~0u));
	ss_hold(server, one);
	ss_hold(server, two);
	ck_assert(ss_holding(server, one) && ss_holding(server, two));
	ck_assert(!ss_holding(server, SS_HOLD_FULL | SS_HOLD_ERRORS));
	int fd = ask(served.url);
	expect_silence(fd);
	ss_release(server, one);
	ck_assert(!ss_holding(server, one) && ss_holding(server, two));
	expect_silence(fd);
	ss_release(server, two);
	expect_text(fd, "hi\n");
	close(fd);
	served_stop(&served);
	ck_assert_str_eq(tape_text(tape), "");
}
END_TEST

/* A user's own limit, in five lines: two at a time, whatever they do. */
static void quota_check(struct ss_server *server, int change)
{
	atomic_int *inside = ss_server_user(server);
	int n = atomic_fetch_add(inside, change) + change;
	if (n >= 2)
		ss_hold(server, SS_HOLD_USER << 3);
	else
		ss_release(server, SS_HOLD_USER << 3);
}

static int quota_get_request(struct ss_server *server,
			     struct ss_listener *listener,
			     struct ss_request **req);
static void quota_end_request(struct ss_server *server, struct ss_request *req,
			      int status);

static const struct ss_layer quota = {
	.name = "quota",
	.ops = { .get_request = quota_get_request,
		 .end_request = quota_end_request },
};

static int quota_get_request(struct ss_server *server,
			     struct ss_listener *listener,
			     struct ss_request **req)
{
	int r = ss_super(server, &quota)->get_request(server, listener, req);
	if (r >= 0)
		quota_check(server, 1);
	return r;
}

static void quota_end_request(struct ss_server *server, struct ss_request *req,
			      int status)
{
	quota_check(server, -1);
	ss_super(server, &quota)->end_request(server, req, status);
}

START_TEST(hold_serves_a_users_own_limit)
{
	if (model_sync(&models[_i]))
		return;
	enum { COUNT = 6 };
	atomic_int *inside = ss_shared_alloc(sizeof(*inside));
	struct ss_config config = talking(&models[_i]);
	config.user = inside;
	use_first(&config, &quota, NULL);
	struct node node;
	int fd[COUNT];
	node_start(&node, &config);
	open_clients(fd, COUNT, node.url);
	expect_text(fd[0], "hi\n");
	expect_text(fd[1], "hi\n");
	expect_silence(fd[2]);
	ck_assert_uint_eq(stats_of(fd[0]).accepted, 2);
	ck_assert_int_eq(atomic_load(inside), 2);
	end_in_turn(fd, COUNT, 2);
	eventually(atomic_load(inside) == 0);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_errors(Suite *suite)
{
	TCase *tcase = suite_case(suite, "errors", set_up, tear_down);
	tcase_add_loop_test(tcase, accept_goes_on_after_errors_of_a_connection,
			    0, model_count);
	tcase_add_test(tcase,
		       accept_without_resources_neither_spins_nor_floods);
	tcase_add_loop_test(tcase, accept_is_tried_again_when_a_request_ends, 1,
			    model_count);
	tcase_add_loop_test(tcase,
			    accept_serves_one_client_by_the_spare_descriptor, 0,
			    model_count);
	tcase_add_loop_test(tcase,
			    accept_at_the_limit_serves_in_turn_and_says_so_once,
			    0, model_count);
	tcase_add_loop_test(tcase,
			    accept_gives_up_a_client_that_cannot_be_served, 0,
			    BREAKAGES);
	tcase_add_loop_test(tcase,
			    accept_survives_the_failure_of_every_allocation, 0,
			    2 * model_count);
}

static void add_cap(Suite *suite)
{
	TCase *tcase = suite_case(suite, "cap", set_up, tear_down);
	tcase_add_loop_test(tcase, cap_leaves_clients_in_the_backlog, 1,
			    model_count);
	tcase_add_loop_test(tcase, cap_queues_some_and_leaves_the_rest, 1,
			    model_count);
	tcase_add_loop_test(tcase, cap_refuses_with_a_word, 1, model_count);
	tcase_add_loop_test(tcase, cap_refuses_without_a_word, 1, model_count);
	tcase_add_loop_test(tcase, cap_means_nothing_to_sync, 0, 3);
	tcase_add_loop_test(tcase, cap_never_blocks_the_loop, 0, 6);
	tcase_add_loop_test(tcase, stats_tell_refusals_by_their_reason, 0,
			    model_count);
}

static void add_listeners(Suite *suite)
{
	TCase *tcase = suite_case(suite, "listeners", set_up, tear_down);
	tcase_add_loop_test(tcase, accept_takes_400_clients_at_once, 0,
			    model_count);
	tcase_add_loop_test(tcase, accept_serves_every_listener, 0,
			    model_count);
	tcase_add_test(tcase, accept_takes_listeners_in_turn);
	tcase_add_loop_test(
		tcase, hold_keeps_clients_waiting_until_the_last_reason_goes, 0,
		8);
	tcase_add_loop_test(tcase, hold_serves_a_users_own_limit, 1,
			    model_count);
}

Suite *t_accept(void)
{
	Suite *suite = suite_create("t_accept");
	add_errors(suite);
	add_cap(suite);
	add_listeners(suite);
	return suite;
}
