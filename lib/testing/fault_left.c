/* What must come back: descriptors, threads, children, memory. */
#include "fault_left.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>

#include "../diag.h"
#include "fault_calls.h"

enum { PATIENCE_MS = 5000 /* as fault.h has it */, CHILDREN_TEXT = 4096 };

/* -1: there is no such directory here. */
static int entries(const char *path, int (*each)(const char *name))
{
	DIR *dir = opendir(path);
	int n = 0;
	if (!dir)
		return -1;
	struct dirent *entry;
	/* Of a directory of one's own it is safe. */
	while ((entry = readdir(dir))) /* cppcheck-suppress readdirCalled */
		if (entry->d_name[0] != '.')
			n += each(entry->d_name);
	closedir(dir);
	return n;
}

static int one(const char *name)
{
	(void)name;
	return 1;
}

/* Numbers with a blank behind each. */
static int children_of(const char *thread)
{
	char path[64], text[CHILDREN_TEXT];
	snprintf(path, sizeof(path), "/proc/self/task/%s/children", thread);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	size_t size = fread(text, 1, sizeof(text), file);
	fclose(file);
	int n = 0;
	for (size_t i = 0; i < size; i++)
		n += text[i] == ' ';
	return n;
}

void look(struct ss_fault_state *state)
{
	*state = (struct ss_fault_state){
		.descriptors = entries("/proc/self/fd", one),
		.threads = entries("/proc/self/task", one),
		.children = entries("/proc/self/task", children_of),
		.bytes = calls_bytes(),
	};
}

/* ---- then and now ---------------------------------------------------------*/

static int differ(struct ss_diag *why, const char *what, long before, long now)
{
	return diag_refuse(why, -EPROTO, "%ld %s, and before it %ld", now, what,
			   before);
}

/* What could not be counted is not compared. */
static bool known(long before, long now)
{
	return before != -1 && now != -1;
}

static int compare(const struct ss_fault_state *before, int unchecked,
		   struct ss_diag *why)
{
	struct ss_fault_state now;
	look(&now);
	int threads = before->threads;
#ifdef SYS_TSAN
	threads++; /* its own, which begins with the first other one */
#endif
	if (!(unchecked & SS_FAULT_THREADS) &&
	    known(before->threads, now.threads) && now.threads > threads)
		return differ(why, "threads", threads, now.threads);
	if (!(unchecked & SS_FAULT_CHILDREN) &&
	    known(before->children, now.children) &&
	    now.children > before->children)
		return differ(why, "children", before->children, now.children);
	if (!(unchecked & SS_FAULT_DESCRIPTORS) &&
	    known(before->descriptors, now.descriptors) &&
	    now.descriptors != before->descriptors)
		return differ(why, "descriptors", before->descriptors,
			      now.descriptors);
	if (!(unchecked & SS_FAULT_MEMORY) && now.bytes > before->bytes)
		return differ(why, "bytes of the library's", before->bytes,
			      now.bytes);
	return 0;
}

/* A thread that was joined may be listed a moment longer. */
int left_of(const struct ss_fault_state *before,
	    const struct ss_fault_options *options, struct ss_diag *why)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };
	int patience =
		options->patience_ms ? options->patience_ms : PATIENCE_MS;
	int r;
	for (int ms = 0; (r = compare(before, options->unchecked, why)) < 0;
	     ms++)
		if (ms >= patience || nanosleep(&pause, NULL) == -1)
			break;
	return r;
}

int ss_fault_left(const struct ss_fault_state *before, struct ss_diag *why)
{
	static const struct ss_fault_options all;
	return left_of(before, &all, why);
}
