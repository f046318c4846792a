/*
 * From outside: nothing that the library asks of the system bypasses its table.
 * A server whose calls are marked (test/peers/outside.c) is watched by
 * strace(1), and each system call that lies between no two marks is found.
 */
#include "program.h"

/* As test/peers/outside.c makes them. */
enum { MARK_IN = -2, MARK_OUT = -3, MARK_BEGIN = -4, MARK_END = -5 };

enum { MODELS = 6, TASKS = 1000, NAME = 40, LINE = 4096, KINDS = 100 };

/* A thread or process, by its number. */
struct task {
	int id;
	bool out;	    /* what it does now is not the library's */
	bool begun;	    /* it has made a call that is marked */
	int depth;	    /* of calls that go through the table */
	char pending[NAME]; /* allowed if it ends, and the library does nothing
			     * more */
};

static struct {
	struct task tasks[TASKS];
	int count;
	/* Through the table: so many, of so many kinds. */
	int calls, kinds;
	char kind[KINDS][NAME];
	char past[LINE]; /* the first that goes past it */
} seen;

static struct task *task_of(int id)
{
	for (int i = 0; i < seen.count; i++)
		if (seen.tasks[i].id == id)
			return &seen.tasks[i];
	ck_assert_int_lt(seen.count, TASKS);
	/* The first is the program itself, until it says otherwise. */
	seen.tasks[seen.count] = (struct task){ .id = id, .out = !seen.count };
	return &seen.tasks[seen.count++];
}

static bool one_of(const char *name, const char *const *names)
{
	while (*names && strcmp(*names, name) != 0)
		names++;
	return *names != NULL;
}

/* Locks, what libc begins a thread or a child with, ends and signals. */
static const char *const libcs[] = { "futex",
				     "set_robust_list",
				     "rseq",
				     "exit",
				     "exit_group",
				     "rt_sigreturn",
				     "restart_syscall",
				     "gettid",
				     "set_tid_address",
				     "arch_prctl",
#ifndef __GLIBC__
				     "munmap", /* freeaddrinfo(3) */
#endif
#ifdef __i386__
				     "sigreturn",
				     "sigprocmask", /* swapcontext(3) */
#endif
				     NULL };

/* A thread's last ones give its stack back. */
static const char *const farewells[] = { "rt_sigprocmask", "madvise", "munmap",
					 NULL };

static void note_kind(const char *name)
{
	seen.calls++;
	for (int i = 0; i < seen.kinds; i++)
		if (strcmp(seen.kind[i], name) == 0)
			return;
	ck_assert_int_lt(seen.kinds, KINDS);
	snprintf(seen.kind[seen.kinds++], NAME, "%s", name);
}

static bool saw(const char *name)
{
	for (int i = 0; i < seen.kinds; i++)
		if (strcmp(seen.kind[i], name) == 0)
			return true;
	return false;
}

static bool is_mark(struct task *task, const char *call)
{
	if (strncmp(call, "fcntl(-", 7) != 0)
		return false;
	switch (-(int)strtol(call + 7, NULL, 10)) {
	case MARK_IN:
	case MARK_OUT:
		task->out = -(int)strtol(call + 7, NULL, 10) == MARK_OUT;
		return true;
	case MARK_BEGIN:
		task->depth++;
		task->begun = true;
		return true;
	case MARK_END: /* a child is born in the midst of one */
		task->depth -= task->depth > 0;
		return true;
	default:
		return false;
	}
}

static void goes_past(const char *what)
{
	if (!seen.past[0])
		snprintf(seen.past, sizeof(seen.past), "%s", what);
}

static void look_at(struct task *task, const char *name, const char *line)
{
	if (task->depth > 0)
		note_kind(name);
	if (task->depth > 0 || task->out)
		return;
	/* libc lets signals come once a thread is set up. */
	if (!task->begun && strcmp(name, "rt_sigprocmask") == 0)
		return;
	if (strcmp(name, "exit") == 0)
		task->pending[0] = '\0';
	if (one_of(name, libcs))
		return;
	if (one_of(name, farewells))
		snprintf(task->pending, NAME, "%s", name);
	else
		goes_past(line);
}

/* "123  name(arguments) = 0", or its second half, "123  <... name resumed>" */
static void look_at_line(const char *line)
{
	char *call, name[NAME];
	struct task *task = task_of((int)strtol(line, &call, 10));
	call += strspn(call, " ");
	size_t n = strcspn(call, "(");
	if (*call == '<' || *call == '+' || *call == '-' || call[n] != '(')
		return;
	snprintf(name, sizeof(name), "%.*s", (int)n, call);
	if (!is_mark(task, call))
		look_at(task, name, line);
	else if (task->pending[0])
		goes_past(task->pending);
}

static void look_at_all(const char *path)
{
	char line[LINE];
	FILE *file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		look_at_line(line);
	}
	fclose(file);
	for (int i = 0; i < seen.count; i++)
		if (seen.tasks[i].pending[0])
			goes_past(seen.tasks[i].pending);
}

/* ---- watched --------------------------------------------------------------*/

static struct ended got;

/* A sanitizer's run time has calls of its own. */
static bool watchable(void)
{
	const char *variant = getenv("SS_VARIANT");
	bool own = variant &&
		   (!strcmp(variant, "asan") || !strcmp(variant, "tsan") ||
		    !strcmp(variant, "cov"));
	if (own)
		printf("skipped: strace: this variant has calls of its own\n");
	if (own || !have("strace")) {
		if (!own)
			printf("skipped: strace is not here\n");
		return false;
	}
	program_run(&got, "", ARGV("strace", "-o", "/dev/null", "true"));
	if (got.status != 0)
		printf("skipped: strace is not permitted\n");
	return got.status == 0;
}

static void watch(const char *model, const struct transport *transport)
{
	static const char *const streams[] = { "socket", "bind", "listen",
					       "close", NULL };
	char path[300], peer[300];
	snprintf(path, sizeof(path), "%s/strace", scratch());
	snprintf(peer, sizeof(peer), "%s/test/peers/outside",
		 getenv("SS_BUILD"));
	program_run(&got, "",
		    ARGV("strace", "-f", "-qq", "-e", "signal=none", "-s", "0",
			 "-o", path, peer, model, fresh_address(transport)));
	ck_assert_msg(got.status == 0, "%d: %s", got.status, got.err);
	look_at_all(path);
	ck_assert_msg(!seen.past[0], "past the table: %s", seen.past);
	ck_assert_int_gt(seen.calls, 30);
	for (int i = transport->stream ? 0 : 3; streams[i]; i++)
		ck_assert_msg(saw(streams[i]), "%s was not seen", streams[i]);
	ck_assert(saw("recvfrom") || saw("recvmsg") || saw("recvmmsg") ||
		  saw("recv") || saw("recvmmsg_time64"));
	ck_assert(saw("sendto") || saw("sendmsg") || saw("sendmmsg") ||
		  saw("send"));
}

START_TEST(nothing_bypasses_the_table)
{
	const struct model *model = &models[_i / transport_count];
	if (watchable())
		watch(model->name, &transports[_i % transport_count]);
}
END_TEST

/* Who looks sees: calls that a program of another kind makes. */
START_TEST(what_bypasses_the_table_would_be_seen)
{
	static const char *const lines[] = {
		"1  fcntl(-2, F_GETFD)                = -1 EBADF",
		"1  fcntl(-4, F_GETFD)                = -1 EBADF",
		"1  recvfrom(5, \"\", 64, 0, NULL, NULL) = 1",
		"1  fcntl(-5, F_GETFD)                = -1 EBADF",
		"2  madvise(0x7f, 4096, MADV_DONTNEED) = 0",
		"2  exit(0)                           = ?",
	};
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		look_at_line(lines[i]);
	ck_assert_int_eq(seen.calls, 1);
	ck_assert_str_eq(seen.past, "");
	look_at_line(_i ? "1  recvfrom(5, \"\", 64, 0, NULL, NULL) = 1"
			: "3  madvise(0x7f, 4096, MADV_DONTNEED) = 0");
	look_at_line("3  futex(0x7f, FUTEX_WAIT_PRIVATE, 1, NULL) = 0");
	look_at_line("3  fcntl(-4, F_GETFD)                = -1 EBADF");
	ck_assert_ptr_nonnull(strstr(seen.past, _i ? "recvfrom" : "madvise"));
}
END_TEST

Suite *t_outside(void)
{
	Suite *suite = suite_create("t_outside");
	TCase *outside = suite_case(suite, "outside", NULL, NULL);
	tcase_add_loop_test(outside, nothing_bypasses_the_table, 0,
			    MODELS * transport_count);
	tcase_add_loop_test(outside, what_bypasses_the_table_would_be_seen, 0,
			    2);
	return suite;
}
