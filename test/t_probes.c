/*
 * The static probes: what the library notes of each, and that a debugger sees
 * them in the order of a request's life, in every process that serves it.
 */
#include "program.h"

#include <sys/ptrace.h>
#include <sys/wait.h>

#include "../lib/fiber/tools.h"

Suite *t_probes(void);

static struct ended got;

static const struct {
	const char *name;
	int arguments;
	const char *shown; /* the second and those behind it */
} probes[] = {
	{ "accept", 3, "%d %d" },     { "verify", 3, "%d %d" },
	{ "process", 2, "%d" },	      { "handle_begin", 2, "%d" },
	{ "handle_end", 3, "%d %d" }, { "error", 5, "%d %d %d %s" },
	{ "close", 3, "%d %d" },
};

enum { PROBES = sizeof(probes) / sizeof(*probes) };

static bool compiled_in(void)
{
#ifdef SS_PROBES
	return true;
#else
	printf("skipped: no probes without sys/sdt.h\n");
	return false;
#endif
}

/* ---- notes ----------------------------------------------------------------*/

/* "8@%rbx -4@%eax": as many as there are @. */
static int count_arguments(const char *line)
{
	int n = 0;
	for (; *line && *line != '\n'; line++)
		n += *line == '@';
	return n;
}

static void note_found(const char *name, const char *arguments, int found[])
{
	for (int i = 0; i < PROBES; i++) {
		if (strcmp(probes[i].name, name) != 0)
			continue;
		found[i]++;
		ck_assert_msg(count_arguments(arguments) == probes[i].arguments,
			      "%s: %.80s", name, arguments);
		return;
	}
	ck_abort_msg("%s", name);
}

START_TEST(the_library_notes_each_with_its_arguments)
{
	static const char provider[] = "Provider: socketserver\n";
	char path[512], name[64];
	int found[PROBES] = { 0 };
	if (!compiled_in())
		return;
	if (!have("readelf")) {
		printf("skipped: readelf is not here\n");
		return;
	}
	snprintf(path, sizeof(path), "%s/libsocketserver.so",
		 getenv("SS_BUILD"));
	program_run(&got, "", ARGV("readelf", "-n", path));
	const char *at = got.out;
	while ((at = strstr(at, provider))) {
		at += sizeof(provider) - 1;
		ck_assert_int_eq(sscanf(at, " Name: %63s", name), 1);
		const char *arguments = strstr(at, "Arguments: ");
		ck_assert_ptr_nonnull(arguments);
		note_found(name, arguments, found);
	}
	for (int i = 0; i < PROBES; i++)
		ck_assert_msg(found[i] >= 1, "%s: %s", probes[i].name, got.out);
}
END_TEST

/* ---- a debugger -----------------------------------------------------------*/

/* The sanitizers do not like to be traced. */
#if !defined(TOOLS_ASAN) && !defined(TOOLS_TSAN)
#define WITH_GDB 1

static const char *const traced[] = { "sync", "threading", "forking", "fiber" };

enum { TRACED = sizeof(traced) / sizeof(*traced) };

static bool may_trace(void)
{
	if (!have("gdb")) {
		printf("skipped: gdb is not here\n");
		return false;
	}
	int status = 0;
	pid_t pid = fork();
	if (pid == 0)
		_exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (status != 0)
		printf("skipped: gdb may not trace\n");
	return status == 0;
}

/* A line for each probe that is passed, in whichever process. */
static const char *script(bool forks)
{
	static char path[512];
	snprintf(path, sizeof(path), "%s/script", scratch());
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fputs("set pagination off\nset detach-on-fork off\n"
	      "set schedule-multiple on\n",
	      file);
	for (int i = 0; i < PROBES; i++) {
		fprintf(file,
			"break -probe-stap socketserver:%s\ncommands\nsilent\n"
			"printf \"probe %s %s\\n\"",
			probes[i].name, probes[i].name, probes[i].shown);
		for (int k = 1; k < probes[i].arguments; k++)
			fprintf(file, ", $_probe_arg%d", k);
		fputs("\ncontinue\nend\n", file);
	}
	fputs("info probes stap socketserver\nrun\n", file);
	/* It stops where the child has ended. */
	if (forks)
		fputs("inferior 1\ncontinue\n", file);
	ck_assert_int_eq(fclose(file), 0);
	return path;
}

static void listening(struct program *gdb, char url[SS_ADDRESS_TEXT])
{
	const char *line;
	do
		line = program_line(gdb);
	while (sscanf(line, "listening on %400s (", url) != 1);
}

/* Those lines alone, one after the other.  Where another process has an event
 * meanwhile, gdb may stop at a place twice. */
static const char *passed(char *out)
{
	static char text[1024];
	const char *last = "";
	size_t n = 0;
	for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n")) {
		if (strncmp(line, "probe ", 6) != 0 || strcmp(line, last) == 0)
			continue;
		last = line;
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\n",
				      line + 6);
	}
	return text;
}

/* A message, and silence until the time-out; as a loop it is never idle, so
 * that
 * --once lets it go on until then. */
START_TEST(a_debugger_sees_them_in_order)
{
	struct program gdb = { 0 };
	char url[SS_ADDRESS_TEXT], expected[512];
	bool forks = strcmp(traced[_i], "forking") == 0;
	if (!compiled_in() || !may_trace())
		return;
	program_start(&gdb, ARGV("gdb", "-nx", "-batch", "-x", script(forks),
				 "--args", demo("echo_server"), "-m",
				 traced[_i], "--once", "--loop", "--timeout",
				 "0.2", fresh_address(&transports[0])));
	listening(&gdb, url);
	int fd = dial(url);
	send_text(fd, "hello\n");
	expect_text(fd, "hello\n");
	expect_end(fd);
	close(fd);
	program_wait(&gdb, &got);
	const char *text = passed(got.out);
	ck_assert_msg(sscanf(text, "accept 1 %d", &fd) == 1 && fd > 2, "%s",
		      text);
	snprintf(expected, sizeof(expected),
		 "accept 1 %d\nverify 1 1\nprocess 1\nhandle_begin 1\n"
		 "handle_end 1 %d\n"
		 "error 1 %d %d %s\nclose 1 %d\n",
		 fd, -ETIMEDOUT, SS_PHASE_HANDLE, -ETIMEDOUT,
		 strerror(ETIMEDOUT), forks ? -ECHILD : -ETIMEDOUT);
	ck_assert_str_eq(text, expected);
}
END_TEST

/* ---- the page's examples --------------------------------------------------*/

static const char *const tracers[] = { "bpftrace", "perf", "gdb" };

enum { TRACERS = sizeof(tracers) / sizeof(*tracers) };

START_TEST(the_pages_examples_are_true)
{
	char command[1024];
	if (!compiled_in())
		return;
	if (!have(tracers[_i])) {
		printf("skipped: %s is not here\n", tracers[_i]);
		return;
	}
	snprintf(command, sizeof(command), "test/probes/run.sh %s '%s/demos'",
		 tracers[_i], getenv("SS_BUILD"));
	ck_assert_int_eq(system(command), 0);
}
END_TEST
#endif

Suite *t_probes(void)
{
	Suite *suite = suite_create("t_probes");
	TCase *tcase = suite_case(suite, "probes", NULL, NULL);
	tcase_add_test(tcase, the_library_notes_each_with_its_arguments);
#ifdef WITH_GDB
	tcase_add_loop_test(tcase, a_debugger_sees_them_in_order, 0, TRACED);
	tcase = suite_case(suite, "page", NULL, NULL);
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, the_pages_examples_are_true, 0, TRACERS);
#endif
	return suite;
}
