/*
 * Servers inside loops that are not ours: the demos for epoll, libevent, GLib
 * and sd-event, under every model that can be turned.
 */
#include "program.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

Suite *t_embed(void);

enum { IDLE_MS = 100, EARLY_MS = 5, SEVERAL = 3 };

static const char *const hosts[] = { "embed_epoll", "embed_event", "embed_glib",
				     "embed_sd_event" };
static const char *const turned[] = { "sync", "threading", "forking", "pool",
				      "fiber" };

enum {
	HOSTS = sizeof(hosts) / sizeof(*hosts),
	MODELS = sizeof(turned) / sizeof(*turned),
	ALL = HOSTS * MODELS,
};

#define NEVER "3600000"
#define IDLE "100"
#define TICK "20"

static struct ended got;

/* What it is made with may be missing, and the library's pollfd. */
static bool there(const char *host)
{
	char path[512];
	const char *build = getenv("SS_BUILD");
	snprintf(path, sizeof(path), "%s/demos/%s",
		 build ? build : "build/debug", host);
	if (access(path, X_OK) == -1) {
		printf("skipped: %s was not built here\n", host);
		return false;
	}
#ifdef SS_LINUX
	return true;
#else
	program_run(&got, "", ARGV(path, fresh_address(&transports[0])));
	ck_assert_ptr_nonnull(strstr(got.err, ": Operation not supported\n"));
	ck_assert_int_eq(got.status, 1);
	return false;
#endif
}

/* Its URL. */
static void start(struct program *host, int i, const char *idle_ms,
		  const char *tick_ms, char url[SS_ADDRESS_TEXT])
{
	program_start(host, ARGV(demo(hosts[i / MODELS]), "-m",
				 turned[i % MODELS], "-i", idle_ms, "-t",
				 tick_ms, fresh_address(&transports[0])));
	snprintf(url, SS_ADDRESS_TEXT, "%s", program_listening(host));
}

static bool talks(int i)
{
	return strcmp(turned[i % MODELS], "sync") != 0;
}

/* Sync's handler does not wait for its client: it tells the time. */
static void served(int i, const char *url)
{
	if (talks(i)) {
		echo_once(url, "hello\n");
		return;
	}
	char line[64];
	int fd = dial(url);
	ck_assert_int_gt(recv_within(fd, line, sizeof(line), WAIT_MS), 0);
	close(fd);
}

/* ---- what it writes -------------------------------------------------------*/

static void await_tick(struct program *host, const char *text)
{
	int64_t until = clock_ms() + WAIT_MS;
	while (strcmp(program_line(host), text) != 0)
		ck_assert_msg(clock_ms() < until, "no \"%s\"", text);
}

/* Nothing else can be written there until we read. */
static void stuff_output(const struct program *host)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%ld/fd/1", (long)host->pid);
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	while (write(fd, ".", 1) == 1)
		;
	ck_assert_int_eq(errno, EAGAIN);
	close(fd);
}

/* ---- its descriptors ------------------------------------------------------*/

/* GLib's worker keeps an eventfd for as long as the process is there; and what
 * the test's own process has without close-on-exec, it was given. */
static bool is_its_own(int fd, const char *path)
{
	char what[128];
	if (fd <= 2 || fcntl(fd, F_GETFD) == 0)
		return false;
	ssize_t n = readlink(path, what, sizeof(what) - 1);
	if (n < 0)
		return false;
	what[n] = '\0';
	return strcmp(what, "anon_inode:[eventfd]") != 0;
}

/* Beyond the standard ones; *lowest is the first number that is free. */
static int descriptors(pid_t pid, int *lowest)
{
	char path[300];
	bool used[1024] = { false };
	int count = 0;
	snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
	DIR *dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		int fd = (int)strtol(entry->d_name, NULL, 10);
		if (entry->d_name[0] == '.' || fd >= 1024)
			continue;
		used[fd] = true;
		snprintf(path, sizeof(path), "/proc/%ld/fd/%s", (long)pid,
			 entry->d_name);
		count += is_its_own(fd, path);
	}
	closedir(dir);
	for (*lowest = 0; *lowest < 1024 && used[*lowest];)
		++*lowest;
	return count;
}

static struct rlimit allow_descriptors(pid_t pid, rlim_t count)
{
	struct rlimit before, limit;
	ck_assert_int_eq(prlimit(pid, RLIMIT_NOFILE, NULL, &before), 0);
	limit = before;
	limit.rlim_cur = count;
	ck_assert_int_eq(prlimit(pid, RLIMIT_NOFILE, &limit, NULL), 0);
	return before;
}

/* ---- tests ----------------------------------------------------------------*/

START_TEST(the_host_goes_on_while_clients_are_served)
{
	struct program host = { 0 };
	char url[SS_ADDRESS_TEXT];
	if (!there(hosts[_i / MODELS]))
		return;
	start(&host, _i, NEVER, TICK, url);
	int silent = -1;
	if (talks(_i)) {
		silent = dial(url);
		send_text(silent, "x\n");
		expect_text(silent, "x\n");
		await_tick(&host, "1 clients, 1 active");
	} else {
		served(_i, url);
		await_tick(&host, "1 clients, 0 active");
	}
	for (int i = 0; i < SEVERAL; i++)
		served(_i, url);
	await_tick(&host,
		   talks(_i) ? "4 clients, 1 active" : "4 clients, 0 active");
	for (int i = 0; i < SEVERAL; i++)
		program_line(&host);
	if (silent >= 0) {
		send_text(silent, "y\n");
		expect_text(silent, "y\n");
	}
	program_stop(&host, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
	ck_assert_ptr_nonnull(strstr(got.out, "stopped after 4 clients\n"));
	if (silent >= 0)
		expect_end(silent);
}
END_TEST

/* Nothing is ready then: neither a descriptor nor the host's timer. */
START_TEST(time_outs_strike_where_no_descriptor_is_ready)
{
	struct program host = { 0 };
	char url[SS_ADDRESS_TEXT];
	if (!there(hosts[_i / MODELS]) || !talks(_i))
		return;
	start(&host, _i, IDLE, NEVER, url);
	int fd = dial(url);
	int64_t since = clock_ms();
	send_text(fd, "x\n");
	expect_text(fd, "x\n");
	expect_end(fd);
	ck_assert_int_ge(clock_ms() - since, IDLE_MS - EARLY_MS);
	close(fd);
	program_stop(&host, SIGTERM, &got);
	ck_assert_str_eq(got.out, "stopped after 1 clients\n");
	ck_assert_int_eq(got.status, 0);
}
END_TEST

/* Its listener is not watched then: the deadline says when to try again. */
START_TEST(accepting_is_tried_again_at_the_deadline)
{
	struct program host = { 0 };
	char url[SS_ADDRESS_TEXT];
	int lowest, threading = _i * MODELS + 1;
	if (!there(hosts[_i]))
		return;
	start(&host, threading, NEVER, NEVER, url);
	int first = dial(url);
	send_text(first, "x\n");
	expect_text(first, "x\n");
	descriptors(host.pid, &lowest);
	struct rlimit before = allow_descriptors(host.pid, (rlim_t)lowest);
	int second = dial(url);
	send_text(second, "y\n");
	program_tells(&host, "accept: Too many open files");
	prlimit(host.pid, RLIMIT_NOFILE, &before, NULL);
	expect_text(second, "y\n");
	close(first);
	close(second);
	program_stop(&host, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
}
END_TEST

/* It is looked at where it cannot write its last line. */
START_TEST(no_descriptor_is_left)
{
	struct program host = { 0 };
	char url[SS_ADDRESS_TEXT];
	int lowest;
	if (!there(hosts[_i / MODELS]))
		return;
	start(&host, _i, NEVER, NEVER, url);
	served(_i, url);
	int fd = dial(url);
	if (talks(_i)) {
		send_text(fd, "x\n");
		expect_text(fd, "x\n");
	}
	stuff_output(&host);
	ck_assert_int_gt(descriptors(host.pid, &lowest), 0);
	ck_assert_int_eq(kill(host.pid, SIGTERM), 0);
	eventually(descriptors(host.pid, &lowest) == 0);
	program_wait(&host, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
	ck_assert_ptr_nonnull(strstr(got.out, ".stopped after 2 clients\n"));
	close(fd);
}
END_TEST

static void complained(int status, const char *text)
{
	ck_assert_str_eq(got.out, "");
	ck_assert_msg(strstr(got.err, text), "\"%s\"", got.err);
	ck_assert_int_eq(got.status, status);
}

START_TEST(they_end_with_the_status_that_they_promise)
{
	const char *name = hosts[_i];
	if (!there(name))
		return;
	static const char *const wrong[][2] = {
		{ "x", "x" },	{ "-m", "prefork" }, { "-t", "0" },
		{ "-t", "1x" }, { "-i", "-1" },
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		program_run(&got, "",
			    ARGV(demo(name), wrong[i][0], wrong[i][1]));
		complained(2, "usage: ");
	}
	program_run(&got, "", ARGV(demo(name), "127.0.0.1:80x"));
	complained(2, "port \"80x\" is not in");
	struct program full = { .out_to = "/dev/full" };
	program_start(&full, ARGV(demo(name), fresh_address(&transports[0])));
	program_wait(&full, &got);
	complained(1, "standard output: No space left on device");
}
END_TEST

Suite *t_embed(void)
{
	Suite *suite = suite_create("t_embed");
	TCase *tcase = suite_case(suite, "loops", NULL, NULL);
	tcase_add_loop_test(tcase, the_host_goes_on_while_clients_are_served, 0,
			    ALL);
	tcase_add_loop_test(
		tcase, time_outs_strike_where_no_descriptor_is_ready, 0, ALL);
	tcase_add_loop_test(tcase, accepting_is_tried_again_at_the_deadline, 0,
			    HOSTS);
	tcase_add_loop_test(tcase, no_descriptor_is_left, 0, ALL);
	tcase_add_loop_test(tcase, they_end_with_the_status_that_they_promise,
			    0, HOSTS);
	return suite;
}
