/*
 * Runs all suites, or those that SS_SUITE names (t_NAME or NAME).  Each
 * test/t_NAME.c defines `Suite *t_NAME(void)`; the Makefile lists them in
 * suites.inc, a line SUITE(t_NAME) each.  check's environment is honoured:
 * CK_RUN_SUITE (by the name given to suite_create), CK_RUN_CASE, CK_FORK=no
 * (for valgrind and debuggers), CK_VERBOSITY.
 *
 * Most tests wait more than they work: several suites run at a time, SS_JOBS
 * or one for each processor, each in a process of its own; as root in a network
 * of its own too.  What they print comes as they end, those that failed last.
 */
#include <check.h>
#include <grp.h>
#include <net/if.h>
#include <pwd.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SUITE(name) Suite *name(void);
#include "suites.inc"
#undef SUITE

/* Written by the suite's process. */
struct tally {
	int run, failures, errors; /* run -1: it did not get that far */
};

struct job {
	const char *name;
	Suite *(*make)(void);
	pid_t pid;
	FILE *output;
	struct tally *tally;
};

#define SUITE(suite) { .name = #suite, .make = suite },
static const struct job suites[] = {
#include "suites.inc"
	{ .name = NULL },
};
#undef SUITE

static bool wanted(const char *name)
{
	const char *only = getenv("SS_SUITE"), *word = only;
	if (!only)
		return true;
	for (size_t n; *word; word += n + (word[n] == ' ')) {
		n = strcspn(word, " ");
		for (size_t skip = 0; skip <= strlen("t_"); skip += 2)
			if (strlen(name + skip) == n &&
			    strncmp(name + skip, word, n) == 0)
				return true;
	}
	return false;
}

static void run(struct job *job)
{
	SRunner *runner = srunner_create(job->make());
	srunner_run_all(runner, CK_ENV);
	TestResult **results = srunner_failures(runner);
	int failed = srunner_ntests_failed(runner), failures = 0;
	for (int i = 0; i < failed; i++)
		failures += tr_rtype(results[i]) == CK_FAILURE;
	free(results);
	*job->tally = (struct tally){ .run = srunner_ntests_run(runner),
				      .failures = failures,
				      .errors = failed - failures };
	srunner_free(runner);
}

/* ---- several at a time ----------------------------------------------------*/

/* Nobody else's ports, names and TIME_WAITs; where that is not allowed, it
 * shares the machine's. */
static bool own_network(void)
{
#ifdef __linux__
	struct ifreq loopback = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	if (unshare(CLONE_NEWNET) == -1)
		return false;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1 || ioctl(fd, SIOCSIFFLAGS, &loopback) == -1)
		perror("a network of its own");
	close(fd);
	return true;
#else
	return false;
#endif
}

/* SS_USER: whom tests are run by, in the network that root has made. */
static void become_user(void)
{
	const char *name = getenv("SS_USER");
	struct passwd *user = name ? getpwnam(name) : NULL;
	if (!name)
		return;
	bool done = user && setgroups(0, NULL) == 0 &&
		    setgid(user->pw_gid) == 0 && setuid(user->pw_uid) == 0;
#ifdef __linux__
	/* Who has changed may not look at itself in proc(5) otherwise. */
	done = done && prctl(PR_SET_DUMPABLE, 1) == 0;
#endif
	if (done)
		return;
	fprintf(stderr, "SS_USER=%s: cannot become that\n", name);
	exit(EXIT_FAILURE);
}

/* In a suite's process: what the others' print is not among its descriptors. */
static void take_output(const struct job *job, const struct job *jobs,
			int count)
{
	dup2(fileno(job->output), STDOUT_FILENO);
	dup2(fileno(job->output), STDERR_FILENO);
	for (int i = 0; i < count; i++)
		if (jobs[i].output)
			close(fileno(jobs[i].output));
}

static void start(struct job *job, const struct job *jobs, int count)
{
	job->output = tmpfile();
	if (!job->output) {
		perror("tmpfile");
		exit(EXIT_FAILURE);
	}
	fflush(NULL);
	pid_t pid = fork();
	if (pid == -1) {
		perror("fork");
		exit(EXIT_FAILURE);
	}
	if (pid > 0) {
		job->pid = pid;
		return;
	}
	take_output(job, jobs, count);
	own_network();
	become_user();
	run(job);
	exit(EXIT_SUCCESS);
}

static bool good(const struct job *job)
{
	const struct tally *tally = job->tally;
	return tally->run >= 0 && tally->failures == 0 && tally->errors == 0;
}

static void show(struct job *job)
{
	char bytes[4096];
	size_t n;
	rewind(job->output);
	while ((n = fread(bytes, 1, sizeof(bytes), job->output)) > 0)
		fwrite(bytes, 1, n, stdout);
	fclose(job->output);
	job->output = NULL;
	if (job->tally->run < 0)
		printf("%s: it did not come to its end\n", job->name);
	fflush(stdout);
}

/* False: none is running. */
static bool await(struct job *jobs, int count)
{
	int status;
	pid_t pid = wait(&status);
	for (int i = 0; pid > 0 && i < count; i++) {
		if (jobs[i].pid != pid)
			continue;
		jobs[i].pid = 0; /* another's may have that number later */
		if (status != 0)
			jobs[i].tally->run = -1;
		if (good(&jobs[i]))
			show(&jobs[i]);
	}
	return pid > 0;
}

static void run_at_a_time(struct job *jobs, int count, int most)
{
	int running = 0;
	for (int i = 0; i < count; i++) {
		if (running == most)
			running -= await(jobs, count);
		start(&jobs[i], jobs, count);
		running++;
	}
	while (await(jobs, count))
		;
	for (int i = 0; i < count; i++)
		if (jobs[i].output)
			show(&jobs[i]);
}

/* As check has it, of all. */
static int sum_up(const struct job *jobs, int count)
{
	int run = 0, failures = 0, errors = 0;
	for (int i = 0; i < count; i++) {
		const struct tally *tally = jobs[i].tally;
		if (tally->run < 0) {
			errors++;
			continue;
		}
		run += tally->run;
		failures += tally->failures;
		errors += tally->errors;
	}
	if (run == 0) {
		fputs("no such test: nothing was run\n", stderr);
		return EXIT_FAILURE;
	}
	int failed = failures + errors;
	if (count > 1)
		printf("All suites:\n%d%%: Checks: %d, Failures: %d, "
		       "Errors: %d\n",
		       failed < run ? (run - failed) * 100 / run : 0, run,
		       failures, errors);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int at_a_time(void)
{
	const char *jobs = getenv("SS_JOBS"), *forking = getenv("CK_FORK");
	if (forking && !strcmp(forking, "no"))
		return 0;
	int most = jobs ? atoi(jobs) : (int)sysconf(_SC_NPROCESSORS_ONLN);
	return most > 1 ? most : 1;
}

int main(void)
{
	static struct job jobs[sizeof(suites) / sizeof(*suites)];
	int count = 0, most = at_a_time();
	/* What a suite's process counts is read here. */
	struct tally *tallies = mmap(NULL, sizeof(jobs), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (tallies == MAP_FAILED) {
		perror("mmap");
		return EXIT_FAILURE;
	}
	for (const struct job *suite = suites; suite->name; suite++) {
		if (!wanted(suite->name))
			continue;
		jobs[count] = *suite;
		jobs[count].tally = &tallies[count];
		jobs[count].tally->run = -1;
		count++;
	}
	if (!own_network())
		puts("skipped: every interface: no network of its own");
	if (count > 1 && most > 0)
		run_at_a_time(jobs, count, most);
	else {
		become_user();
		for (int i = 0; i < count; i++)
			run(&jobs[i]);
	}
	return sum_up(jobs, count);
}
