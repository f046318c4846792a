/* Children: watched, reaped, signalled. */
#include "reaper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 100 };

int reaper_init(struct reaper *reaper,
		void (*ended)(struct ss_server *server, struct child *child,
			      pid_t pid, int status))
{
	reaper->ended = ended;
	int fd = sys_pidfd_open(sys_getpid());
	reaper->pidfds = fd >= 0;
	if (fd >= 0)
		sys_close(fd);
	return -pthread_mutex_init(&reaper->lock, NULL);
}

void reaper_fini(struct reaper *reaper)
{
	pthread_mutex_destroy(&reaper->lock);
}

void reaper_after_fork(struct reaper *reaper)
{
	reaper->children = NULL;
	reaper->unwatched = 0;
}

/* ---- reaping --------------------------------------------------------------*/

static void forget(struct ss_server *server, struct child *child)
{
	struct reaper *reaper = child->reaper;
	if (child->watch.fd >= 0) {
		ss_watch_remove(server, &child->watch);
		sys_close(child->watch.fd);
	} else {
		reaper->unwatched--;
	}
	if (child->prev)
		child->prev->next = child->next;
	else
		reaper->children = child->next;
	if (child->next)
		child->next->prev = child->prev;
}

/* One that somebody else has reaped loses its status. */
static void reap(struct ss_server *server, struct child *child, int options)
{
	struct reaper *reaper = child->reaper;
	pid_t pid = child->pid, r;
	int status = 0;
	pthread_mutex_lock(&reaper->lock);
	do
		r = sys_waitpid(pid, &status, options);
	while (r == -1 && errno == EINTR);
	if (r != 0)
		child->pid = 0;
	pthread_mutex_unlock(&reaper->lock);
	if (r == 0)
		return;
	forget(server, child);
	reaper->ended(server, child, pid, r == -1 ? -1 : status);
}

/* A pidfd is readable once it is dead; a pipe may end a little before. */
static void fired(struct ss_server *server, struct ss_watch *watch)
{
	struct child *child = (struct child *)watch;
	reap(server, child, child->reaper->pidfds ? WNOHANG : 0);
}

void reaper_ask(struct ss_server *server, struct reaper *reaper)
{
	struct child *next;
	for (struct child *c = reaper->unwatched ? reaper->children : NULL; c;
	     c = next) {
		next = c->next;
		if (c->watch.fd < 0)
			reap(server, c, WNOHANG);
	}
	if (reaper->unwatched)
		ss_turn_at(server, ss_now(server) + LOOK_MS);
}

/* ---- forking --------------------------------------------------------------*/

void reaper_prepare(const struct reaper *reaper, int pipe[2])
{
	if (reaper->pidfds || sys_pipe(pipe) == -1)
		pipe[0] = pipe[1] = -1;
}

void reaper_in_child(int pipe[2])
{
	if (pipe[0] >= 0)
		sys_close(pipe[0]);
}

void reaper_cancel(int pipe[2])
{
	for (int i = 0; i < 2; i++)
		if (pipe[i] >= 0)
			sys_close(pipe[i]);
}

void reaper_adopt(struct reaper *reaper, struct child *child, pid_t pid)
{
	pthread_mutex_lock(&reaper->lock);
	child->pid = pid;
	pthread_mutex_unlock(&reaper->lock);
	child->reaper = reaper;
	child->watch.fd = -1;
	child->prev = NULL;
	child->next = reaper->children;
	if (child->next)
		child->next->prev = child;
	reaper->children = child;
}

void reaper_watch(struct ss_server *server, struct child *child, int pipe[2])
{
	struct reaper *reaper = child->reaper;
	if (pipe[1] >= 0)
		sys_close(pipe[1]);
	int fd = reaper->pidfds ? sys_pidfd_open(child->pid) : pipe[0];
	child->watch =
		(struct ss_watch){ .fd = fd, .events = POLLIN, .ready = fired };
	if (fd >= 0 && ss_watch_add(server, &child->watch) < 0) {
		sys_close(fd);
		child->watch.fd = fd = -1;
	}
	if (fd < 0) {
		child->watch.fd = -1;
		reaper->unwatched++;
		ss_turn_at(server, ss_now(server) + LOOK_MS);
	}
}

/* ---- asking ---------------------------------------------------------------*/

int reaper_kill(struct reaper *reaper, struct child *child, int signal)
{
	pthread_mutex_lock(&reaper->lock);
	int r = child->pid != 0;
	if (r && signal && sys_kill(child->pid, signal) == -1)
		r = -errno;
	pthread_mutex_unlock(&reaper->lock);
	return r;
}

char *reaper_tell(int status, char *buf, size_t size)
{
	if (status == -1)
		snprintf(buf, size, "was reaped by somebody else");
	else if (WIFSIGNALED(status))
		snprintf(buf, size, "was killed by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(buf, size, "exited with status %d",
			 WEXITSTATUS(status));
	return buf;
}
