/*
 * The mechanism that makes calls fail (ss_fault(3)): which call, by which
 * error, for how long, and what it says of a run that went wrong.
 */
#include "support.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <socketserver/fault.h>

enum { SEEN = 100 };

/* Each run's fault, as it was told. */
static struct {
	int count;
	char text[SEEN][100];
} seen;

static void note(void)
{
	ck_assert_int_lt(seen.count, SEEN);
	snprintf(seen.text[seen.count++], sizeof(*seen.text), "%s",
		 ss_fault_tell());
}

/* Those that were seen, from that one on, up to NULL. */
static void expect_seen(int from, const char *const *texts)
{
	for (int i = 0; texts[i]; i++) {
		ck_assert_int_lt(from + i, seen.count);
		ck_assert_str_eq(seen.text[from + i], texts[i]);
	}
}

static void expect_wrong(const struct ss_fault_options *options,
			 int (*scenario)(void *arg, struct ss_diag *why),
			 void *arg, const char *begin, const char *part)
{
	struct ss_diag why;
	ck_assert_int_eq(ss_fault_sweep(options, scenario, arg, &why), -EPROTO);
	ck_assert_int_eq(why.code, -EPROTO);
	ck_assert_msg(strncmp(why.text, begin, strlen(begin)) == 0,
		      "\"%s\" does not begin with \"%s\"", why.text, begin);
	ck_assert_msg(strstr(why.text, part) != NULL, "\"%s\" lacks \"%s\"",
		      why.text, part);
	/* Who does not want to know need not. */
	ck_assert_int_eq(ss_fault_sweep(options, scenario, arg, NULL), -EPROTO);
}

/* ---- which call -----------------------------------------------------------*/

/* Three allocations and two descriptors: a digit for each that it got. */
static char got[6];

static int five_calls(void *arg, struct ss_diag *why)
{
	(void)arg, (void)why;
	void *memory[3];
	int fds[2];
	for (int i = 0; i < 3; i++)
		memory[i] = sys_malloc(1);
	for (int i = 0; i < 2; i++)
		fds[i] = sys_dup(STDIN_FILENO);
	snprintf(got, sizeof(got), "%d%d%d%d%d", memory[0] != NULL,
		 memory[1] != NULL, memory[2] != NULL, fds[0] != -1,
		 fds[1] != -1);
	for (int i = 0; i < 3; i++)
		sys_free(memory[i]);
	for (int i = 0; i < 2; i++)
		if (fds[i] != -1)
			close(fds[i]);
	ck_assert_int_lt(seen.count, SEEN);
	snprintf(seen.text[seen.count++], sizeof(*seen.text), "%s %s", got,
		 ss_fault_tell());
	return 0;
}

#define NO_MEMORY "malloc: Cannot allocate memory"
#define NO_FILES "dup: Too many open files"

START_TEST(fault_strikes_each_call_in_turn)
{
	static const char *const texts[][9] = {
		{ "11111 no call failed", "11111 no call failed",
		  "01111 call 1, " NO_MEMORY, "10111 call 2, " NO_MEMORY,
		  "11011 call 3, " NO_MEMORY, "11101 call 4, " NO_FILES,
		  "11110 call 5, " NO_FILES, "11111 no call failed", NULL },
		{ "11111 no call failed", "11111 no call failed",
		  "00011 call 1, " NO_MEMORY ", from then on",
		  "10011 call 2, " NO_MEMORY ", from then on",
		  "11011 call 3, " NO_MEMORY ", from then on",
		  "11100 call 4, " NO_FILES ", from then on",
		  "11110 call 5, " NO_FILES ", from then on",
		  "11111 no call failed", NULL },
		{ "11111 no call failed", "11111 no call failed",
		  "00000 call 1, " NO_MEMORY ", and all after it",
		  "10000 call 2, " NO_MEMORY ", and all after it",
		  "11000 call 3, " NO_MEMORY ", and all after it",
		  "11100 call 4, " NO_FILES ", and all after it",
		  "11110 call 5, " NO_FILES ", and all after it",
		  "11111 no call failed", NULL },
	};
	const struct ss_fault_options options = { .modes = 1 << _i };
	ck_assert_int_eq(ss_fault_sweep(&options, five_calls, NULL, NULL), 5);
	expect_seen(0, texts[_i]);
	ck_assert_int_eq(seen.count, 8);
}
END_TEST

/* Once and lasting, and nothing of the first sweep is in the second. */
START_TEST(fault_sweeps_by_default_once_and_lasting)
{
	struct ss_diag why = { .code = 1, .text = "old" };
	for (int i = 0; i < 2; i++) {
		seen.count = 0;
		ck_assert_int_eq(ss_fault_sweep(NULL, five_calls, NULL, &why),
				 10);
		ck_assert_int_eq(seen.count, 14);
		ck_assert_int_eq(why.code, 0);
		ck_assert_str_eq(why.text, "");
	}
}
END_TEST

START_TEST(fault_takes_every_so_manyth)
{
	static const char *const texts[] = { "10111 call 2, " NO_MEMORY,
					     "11110 call 5, " NO_FILES,
					     "11111 no call failed", NULL };
	const struct ss_fault_options options = { .first = 2,
						  .stride = 3,
						  .modes = SS_FAULT_ONCE };
	ck_assert_int_eq(ss_fault_sweep(&options, five_calls, NULL, NULL), 2);
	expect_seen(2, texts);
}
END_TEST

START_TEST(fault_strikes_those_that_are_named)
{
	static const char *const texts[] = {
		"11101 call 1, dup: Input/output error",
		"11110 call 2, dup: Input/output error", "11111 no call failed",
		NULL
	};
	const struct ss_fault_options options = { .calls = " accept  dup ",
						  .error = EIO,
						  .modes = SS_FAULT_ONCE };
	ck_assert_int_eq(ss_fault_sweep(&options, five_calls, NULL, NULL), 2);
	expect_seen(2, texts);
}
END_TEST

/* What is over by itself at once is not told to last. */
START_TEST(fault_does_not_last_where_it_would_hang)
{
	const struct ss_fault_options options = { .calls = "dup",
						  .error = EINTR };
	ck_assert_int_eq(ss_fault_sweep(&options, five_calls, NULL, NULL), 2);
}
END_TEST

static int each_errno(void *arg, struct ss_diag *why)
{
	(void)arg, (void)why;
	int fd = sys_socket(AF_INET, SOCK_STREAM, 0);
	if (fd != -1)
		close(fd);
	note();
	return fd == -1 ? -errno : 0;
}

START_TEST(fault_fails_by_each_errno_that_is_plausible)
{
	static const char *const texts[] = {
		"call 1, socket: Too many open files",
		"call 1, socket: No buffer space available",
		"call 1, socket: Permission denied", NULL
	};
	const struct ss_fault_options options = { .modes = SS_FAULT_ONCE };
	ck_assert_int_eq(ss_fault_sweep(&options, each_errno, NULL, NULL), 3);
	expect_seen(2, texts);
}
END_TEST

static int where_armed(void *arg, struct ss_diag *why)
{
	(void)arg, (void)why;
	int before = sys_dup(STDIN_FILENO);
	ss_fault_arm();
	int within = sys_dup(STDIN_FILENO);
	ss_fault_disarm();
	int after = sys_dup(STDIN_FILENO);
	struct ss_fault fault;
	ck_assert_int_eq(ss_fault_struck(&fault), within == -1);
	ck_assert_int_ne(before, -1);
	ck_assert_int_ne(after, -1);
	if (within == -1) {
		ck_assert_str_eq(fault.call, "dup");
		ck_assert_int_eq(fault.at, 1);
		ck_assert_int_eq(fault.error, EMFILE);
	} else {
		close(within);
	}
	close(before);
	close(after);
	return 0;
}

START_TEST(fault_strikes_where_it_is_armed)
{
	const struct ss_fault_options options = { .unarmed = true };
	ck_assert_int_eq(ss_fault_sweep(&options, where_armed, NULL, NULL), 2);
}
END_TEST

static int in_a_child(void *arg, struct ss_diag *why)
{
	int fd = sys_dup(STDIN_FILENO), status;
	(void)arg, (void)why;
	ck_assert_int_ne(fd, -1);
	close(fd);
	pid_t pid = fork();
	if (pid == 0)
		_exit(sys_dup(STDIN_FILENO) == -1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), ss_fault_struck(NULL));
	note();
	return 0;
}

START_TEST(fault_strikes_in_children_alone_if_told_to)
{
	const struct ss_fault_options options = { .elsewhere = true,
						  .modes = SS_FAULT_ONCE };
	ck_assert_int_eq(ss_fault_sweep(&options, in_a_child, NULL, NULL), 1);
	ck_assert_str_eq(seen.text[2], "call 1, " NO_FILES);
}
END_TEST

START_TEST(fault_refuses_options_that_make_no_sense)
{
	static const struct {
		struct ss_fault_options options;
		const char *part;
	} bad[] = {
		{ { .calls = "accept frobnicate" }, "frobnicate" },
		{ { .calls = "getpid" }, "getpid" },
		{ { .first = -1 }, "" },
		{ { .stride = -1 }, "" },
		{ { .error = -EIO }, "" },
		{ { .modes = 8 }, "" },
		{ { .unchecked = 16 }, "" },
		{ { .patience_ms = -2 }, "" },
	};
	struct ss_diag why;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		ck_assert_int_eq(
			ss_fault_sweep(&bad[i].options, five_calls, NULL, &why),
			-EINVAL);
		ck_assert_int_eq(why.code, -EINVAL);
		ck_assert(why.text[0] && strstr(why.text, bad[i].part));
	}
	ck_assert_int_eq(seen.count, 0);
}
END_TEST

/* ---- what was wrong -------------------------------------------------------*/

static int tells(void *arg, struct ss_diag *why)
{
	void *memory = sys_malloc(1);
	int answer = memory ? 0 : *(int *)arg;
	sys_free(memory);
	if (answer > 0)
		snprintf(why->text, sizeof(why->text), "a wrong answer");
	return answer;
}

static int complains_always(void *arg, struct ss_diag *why)
{
	(void)arg, (void)why;
	return -ENOTCONN;
}

START_TEST(fault_excuses_errors_and_nothing_else)
{
	int answer = -EIO;
	struct ss_diag why;
	ck_assert_int_eq(ss_fault_sweep(NULL, tells, &answer, &why), 2);
	answer = SS_FAULT_WRONG;
	expect_wrong(NULL, tells, &answer, "call 1, " NO_MEMORY ": ",
		     "a wrong answer");
	expect_wrong(NULL, complains_always, NULL,
		     "no call failed: ", strerror(ENOTCONN));
}
END_TEST

enum leak { DESCRIPTOR, CLOSED, THREAD, CHILD, ALLOCATED, MAPPED, LEAKS };

static void *for_ever(void *arg)
{
	for (;;)
		pause();
	return arg;
}

/* For the address sanitizer they are not lost. */
static void *kept[SEEN];

static void leave(enum leak leak)
{
	static int count;
	pthread_t thread;
	switch (leak) {
	case DESCRIPTOR:
		ck_assert_int_ne(dup(STDIN_FILENO), -1);
		break;
	case CLOSED: {
		static int next = 100;
		close(next++);
		break;
	}
	case THREAD: /* one may be the thread sanitizer's own */
		pthread_create(&thread, NULL, for_ever, NULL);
		pthread_create(&thread, NULL, for_ever, NULL);
		break;
	case CHILD:
		if (fork() == 0)
			for_ever(NULL);
		break;
	case ALLOCATED:
		ck_assert_ptr_nonnull(kept[count++] = sys_malloc(1000));
		break;
	default:
		ck_assert_ptr_nonnull(ss_shared_alloc(1000));
	}
}

/* Where a call has failed, or always. */
struct leaking {
	enum leak leak;
	bool always;
};

static int leaks(void *arg, struct ss_diag *why)
{
	const struct leaking *leaking = arg;
	void *memory = sys_malloc(1);
	(void)why;
	ss_fault_disarm();
	if (!memory || leaking->always)
		leave(leaking->leak);
	sys_free(memory);
	return 0;
}

/* Their children end with the process group that is check's for a test. */
START_TEST(fault_finds_what_is_left)
{
	static const char *const words[LEAKS] = {
		"descriptors", "descriptors", "threads",
		"children",    "bytes",	      "bytes",
	};
	struct leaking leaking = { .leak = (enum leak)(_i / 2),
				   .always = _i % 2 };
	const struct ss_fault_options options = { .patience_ms = 20 };
	if (leaking.leak == THREAD)
		begin_threads();
	for (int fd = 100; leaking.leak == CLOSED && fd < 110; fd++)
		ck_assert_int_eq(dup2(STDIN_FILENO, fd), fd);
	expect_wrong(&options, leaks, &leaking,
		     leaking.always ? "no call failed: "
				    : "call 1, " NO_MEMORY ": ",
		     words[_i / 2]);
}
END_TEST

START_TEST(fault_does_not_look_where_it_is_told_so)
{
	struct leaking leaking = { .leak = ALLOCATED };
	struct ss_fault_options options = { .unchecked = SS_FAULT_MEMORY,
					    .patience_ms = SS_NONE };
	struct ss_diag why;
	ck_assert_int_eq(ss_fault_sweep(&options, leaks, &leaking, &why), 2);
	options.unchecked = SS_FAULT_CHECKS & ~SS_FAULT_MEMORY;
	expect_wrong(&options, leaks, &leaking, "call 1, ", "bytes");
}
END_TEST

START_TEST(fault_looks_by_itself_too)
{
	struct ss_fault_state before;
	struct ss_diag why;
	ss_fault_look(&before);
	ck_assert_int_eq(ss_fault_left(&before, &why), 0);
	int fd = dup(STDIN_FILENO);
	ck_assert_int_eq(ss_fault_left(&before, NULL), -EPROTO);
	close(fd);
	ck_assert_int_eq(ss_fault_left(&before, &why), 0);
	ck_assert(!ss_fault_struck(NULL));
	ck_assert_str_eq(ss_fault_tell(), "no call failed");
}
END_TEST

static void *no_mmap(void *at, size_t n, int prot, int flags, int fd,
		     off_t offset)
{
	(void)at, (void)n, (void)prot, (void)flags, (void)fd, (void)offset;
	errno = ENOMEM;
	return MAP_FAILED;
}

/* Then it is so once there is some. */
START_TEST(fault_needs_memory_of_its_own)
{
	struct sys_table real = sys_table;
	struct ss_fault_state state;
	struct ss_diag why;
	sys_table.mmap = no_mmap;
	ss_fault_look(&state);
	ck_assert_int_eq(ss_fault_sweep(NULL, five_calls, NULL, &why), -ENOMEM);
	ck_assert_str_eq(why.text, "Cannot allocate memory");
	ck_assert(!ss_fault_struck(NULL));
	ss_fault_arm();
	ss_fault_disarm();
	sys_table = real;
}
END_TEST

/* All but so many descriptors are taken. */
static void leave_descriptors(int left)
{
	int next = dup(STDIN_FILENO);
	ck_assert_int_ge(next, 0);
	close(next);
	struct rlimit limit;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)(next + left);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void leave_more(void)
{
	struct rlimit limit;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* What cannot be seen is not missed. */
START_TEST(fault_looks_as_far_as_it_can)
{
	struct ss_fault_state before, blind;
	struct ss_diag why;
	ss_fault_look(&before);
	leave_descriptors(_i);
	ss_fault_look(&blind);
	ck_assert_int_eq(ss_fault_left(&before, &why), 0);
	leave_more();
	ck_assert_int_eq(blind.descriptors, _i ? before.descriptors : -1);
	ck_assert_int_eq(blind.threads, _i ? before.threads : -1);
	ck_assert_int_eq(ss_fault_left(&blind, &why), 0);
}
END_TEST

/* ---- as a user has it -----------------------------------------------------*/

static int echo(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static void quiet(void *arg, int level, struct ss_server *server, uint64_t id,
		  const char *text)
{
	(void)arg, (void)level, (void)server, (void)id, (void)text;
}

/* The same, after each kind of wait that there is. */
static int wait_and_echo(struct ss_request *req)
{
	int64_t soon = ss_now(ss_request_server(req)) + 2;
	struct ss_wait waits[6];
	for (int i = 0; i < 6; i++)
		waits[i] = (struct ss_wait){ .fd = -1, .events = POLLIN };
	int r = ss_sleep(req, 1);
	if (r == 0)
		r = ss_wait_any(req, waits, 6, soon);
	return r < 0 ? r : echo(req);
}

static const struct ss_handler handlers[] = {
	{ .handle = echo },
	{ .handle = wait_and_echo },
};
enum { HANDLERS = sizeof(handlers) / sizeof(*handlers) };

static int exchange(struct ss_server *server, struct ss_diag *why)
{
	struct ss_memory_client *client;
	char byte[2] = "";
	int r = ss_memory_connect(server, &client);
	if (r < 0)
		return r;
	ss_memory_send(client, "x", 1);
	ss_memory_shutdown(client);
	ssize_t n = ss_memory_recv(client, byte, sizeof(byte));
	ss_memory_close(client);
	if (n != 1 || byte[0] == 'x')
		return n < 0 ? (int)n : 0; /* closed at once, perhaps */
	snprintf(why->text, sizeof(why->text), "it answered '%c'", byte[0]);
	return SS_FAULT_WRONG;
}

static int in_memory(void *arg, struct ss_diag *why)
{
	int which = *(const int *)arg;
	const struct model *model = &models[which / HANDLERS];
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &handlers[which % HANDLERS],
				    .log = quiet };
	struct ss_server *server;
	use_model(&config, model);
	int r = ss_server_new(&server, &config, why);
	if (r < 0)
		return r;
	r = exchange(server, why);
	int freed = ss_server_free(server);
	return r ? r : freed;
}

START_TEST(fault_is_borne_in_memory)
{
	const struct model *model = &models[_i / HANDLERS];
	struct ss_diag why;
	/* A fiber without memory for its stack waits until there is some: in
	 * vain, and for a million turns. */
	const struct ss_fault_options options = {
		.modes = model_has(model, &ss_fiber_mixin) ? SS_FAULT_ONCE : 0,
	};
	if (model_has(model, &ss_forking_mixin) || model_supervised(model))
		return;
	int faults = ss_fault_sweep(&options, in_memory, &_i, &why);
	ck_assert_msg(faults > 20, "%d: %s", faults, why.text);
}
END_TEST

/* What a layer must be given. */
static struct ss_proxy_options trusting = { .trusted = "127.0.0.0/8" };
static struct ss_access_options open_to_all = { .allow = "127.0.0.0/8" };
static struct ss_limits_options rated = { .rate = 5, .refusal = "no\n" };
static struct ss_prefork_options few = { .workers = 2 };
static struct ss_pool_options small = { .threads = 2, .stack_size = 1 << 20 };
static struct ss_fiber_options two = { .loops = 2, .report_overflow = true };
static struct ss_record_options recording;

static const struct ss_use makings[] = {
	{ NULL, NULL },
	{ &ss_threading_mixin, NULL },
	{ &ss_forking_mixin, NULL },
	{ &ss_pool_mixin, &small },
	{ &ss_prefork_mixin, &few },
	{ &ss_fiber_mixin, &two },
	{ &ss_proxy_mixin, &trusting },
	{ &ss_access_mixin, &open_to_all },
	{ &ss_limits_mixin, &rated },
	{ &ss_metrics_mixin, NULL },
	{ &ss_record_mixin, &recording },
	{ &ss_chaos_mixin, NULL },
};
enum { MAKINGS = sizeof(makings) / sizeof(*makings) };

/* Where the kernel does not say that nobody is queued, who closes asks, and if
 * it is told that there is no descriptor it asks again, for so long. */
enum { DRAIN_MS = 20 };

static int make_and_free(void *arg, struct ss_diag *why)
{
	struct ss_config config = { .addresses = { "tcp://127.0.0.1:0" },
				    .handler = &handlers[0],
				    .drain_ms = DRAIN_MS,
				    .log = quiet,
				    .mixins = { *(const struct ss_use *)arg } };
	struct ss_server *server;
	int r = ss_server_new(&server, &config, why);
	if (r < 0 && (server || why->code != r || !why->text[0]))
		return SS_FAULT_WRONG;
	if (r == 0)
		r = ss_server_free(server);
	if (recording.path)
		unlink(recording.path);
	return r;
}

START_TEST(fault_is_borne_by_servers_that_are_made)
{
	struct ss_diag why;
	char path[100];
	snprintf(path, sizeof(path), "%s/r.ssr", scratch());
	recording.path = path;
	begin_threads();
	int faults =
		ss_fault_sweep(NULL, make_and_free, (void *)&makings[_i], &why);
	ck_assert_msg(faults > 30, "%d: %s", faults, why.text);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void begin_test(void)
{
	seen.count = 0;
}

Suite *t_fault(void)
{
	Suite *suite = suite_create("t_fault");
	TCase *which = suite_case(suite, "which", begin_test, NULL);
	tcase_add_loop_test(which, fault_strikes_each_call_in_turn, 0, 3);
	tcase_add_test(which, fault_sweeps_by_default_once_and_lasting);
	tcase_add_test(which, fault_takes_every_so_manyth);
	tcase_add_test(which, fault_strikes_those_that_are_named);
	tcase_add_test(which, fault_does_not_last_where_it_would_hang);
	tcase_add_test(which, fault_fails_by_each_errno_that_is_plausible);
	tcase_add_test(which, fault_strikes_where_it_is_armed);
	tcase_add_test(which, fault_strikes_in_children_alone_if_told_to);
	tcase_add_test(which, fault_refuses_options_that_make_no_sense);
	TCase *wrong = suite_case(suite, "wrong", begin_test, NULL);
	tcase_add_test(wrong, fault_excuses_errors_and_nothing_else);
	tcase_add_loop_test(wrong, fault_finds_what_is_left, 0, 2 * LEAKS);
	tcase_add_test(wrong, fault_does_not_look_where_it_is_told_so);
	tcase_add_test(wrong, fault_looks_by_itself_too);
	tcase_add_test(wrong, fault_needs_memory_of_its_own);
	tcase_add_loop_test(wrong, fault_looks_as_far_as_it_can, 0, 2);
	TCase *borne = suite_case(suite, "borne", NULL, NULL);
	tcase_add_loop_test(borne, fault_is_borne_in_memory, 0,
			    model_count * HANDLERS);
	tcase_add_loop_test(borne, fault_is_borne_by_servers_that_are_made, 0,
			    MAKINGS);
	return suite;
}
