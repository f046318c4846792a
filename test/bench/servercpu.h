/*
 * What a server has used of the CPU so far, seen from outside.  The process
 * clock counts in ns and has threads that ended in it.  For its children there
 * is their own clock while they live, and once they are reaped the kernel's
 * sum, in ticks of 10 ms: measure forking servers for seconds.
 */
#ifndef SS_BENCH_SERVERCPU_H
#define SS_BENCH_SERVERCPU_H

#include "bench.h"

/* One process, ns; 0 where it is gone. */
static inline int64_t cpu_of(pid_t pid)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0 ||
	    clock_gettime(clock, &ts) == -1)
		return 0;
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* The children that it has; ns. */
static inline int64_t cpu_of_children(pid_t pid)
{
	char path[64];
	int64_t sum = 0;
	int child;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	while (fscanf(file, "%d", &child) == 1)
		sum += cpu_of(child);
	fclose(file);
	return sum;
}

/* The children that it had: cutime and cstime of proc_pid_stat(5); ns. */
static inline int64_t cpu_of_reaped(pid_t pid)
{
	char path[64], line[1024];
	long long user, system;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	const char *text = fgets(line, sizeof(line), file);
	fclose(file);
	/* The name may hold anything, blanks and parentheses too. */
	text = text ? strrchr(line, ')') : NULL;
	if (!text || sscanf(text,
			    ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
			    "%*u %*u %lld %lld",
			    &user, &system) != 2)
		return 0;
	return (user + system) * (INT64_C(1000000000) / sysconf(_SC_CLK_TCK));
}

static inline int64_t cpu_of_server(pid_t pid)
{
	return cpu_of(pid) + cpu_of_children(pid) + cpu_of_reaped(pid);
}

#endif
