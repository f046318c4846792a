/*
 * What a server has used of the CPU so far, seen from outside.  The process
 * clock counts in ns and has threads that ended in it.  For its descendants
 * there is their own clock while they live, and once they are reaped the
 * kernel's sum, in ticks of 10 ms: measure forking servers by their whole life.
 */
#ifndef SS_BENCH_SERVERCPU_H
#define SS_BENCH_SERVERCPU_H

#include "../bench.h"

#include <dirent.h>

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

static inline int64_t cpu_of_server(pid_t pid);

/* The children that one of its threads has, and theirs. */
static inline int64_t cpu_of_children(pid_t pid, const char *thread)
{
	char path[128];
	int64_t sum = 0;
	int child;

	snprintf(path, sizeof(path), "/proc/%d/task/%.32s/children", pid,
		 thread);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	while (fscanf(file, "%d", &child) == 1)
		sum += cpu_of_server(child);
	fclose(file);
	return sum;
}

static inline int64_t cpu_of_server(pid_t pid)
{
	int64_t sum = cpu_of(pid) + cpu_of_reaped(pid);
	const struct dirent *entry;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *tasks = opendir(path);
	/* cppcheck-suppress readdirCalled ; one thread, its own directory */
	while (tasks && (entry = readdir(tasks)))
		if (entry->d_name[0] != '.')
			sum += cpu_of_children(pid, entry->d_name);
	if (tasks)
		closedir(tasks);
	return sum;
}

#endif
