/* Children: watched, reaped, signalled. */
#include "reaper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 100, LATER_MS = 20 };

int reaper_init(struct reaper *reaper,
		void (*ended)(struct ss_server *server, struct child *child,
			      pid_t pid, int status))
{
	reaper->ended = ended;
	int fd = sys_pidfd_open(sys_getpid());
	reaper->pidfds = fd >= 0;
	if (fd >= 0)
		sys_close(fd);
	return -sys_pthread_mutex_init(&reaper->lock, NULL);
}

void reaper_fini(struct reaper *reaper)
{
	pthread_mutex_destroy(&reaper->lock);
}

void reaper_after_fork(struct reaper *reaper)
{
	reaper->children = reaper->last = reaper->later = NULL;
	reaper->unwatched = reaper->count = 0;
	reaper->forked = false;
}

/* ---- reaping --------------------------------------------------------------*/

static void forget(struct ss_server *server, struct child *child)
{
	struct reaper *reaper = child->reaper;
	reaper->count--;
	if (child->watch.fd >= 0) {
		ss_watch_remove(server, &child->watch);
		sys_close(child->watch.fd);
	} else if (child == reaper->later) {
		reaper->later = child->next;
	} else {
		reaper->unwatched--;
	}
	if (child->prev)
		child->prev->next = child->next;
	else
		reaper->children = child->next;
	if (child->next)
		child->next->prev = child->prev;
	else
		reaper->last = child->prev;
}

/* Whether it has ended.  One that somebody else has reaped loses its status. */
static bool reap(struct ss_server *server, struct child *child, int options)
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
		return false;
	forget(server, child);
	reaper->ended(server, child, pid, r == -1 ? -1 : status);
	return true;
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
	for (struct child *c = reaper->unwatched ? reaper->children : NULL;
	     c && c != reaper->later; c = next) {
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
	child->next = NULL;
	child->prev = reaper->last;
	if (child->prev)
		child->prev->next = child;
	else
		reaper->children = child;
	reaper->last = child;
	reaper->count++;
}

/* ---- watching -------------------------------------------------------------*/

static void watch(struct ss_server *server, struct child *child, int fd)
{
	child->watch =
		(struct ss_watch){ .fd = fd, .events = POLLIN, .ready = fired };
	if (fd >= 0 && ss_watch_add(server, &child->watch) < 0) {
		sys_close(fd);
		child->watch.fd = fd = -1;
	}
	if (fd < 0) {
		child->watch.fd = -1;
		child->reaper->unwatched++;
		ss_turn_at(server, ss_now(server) + LOOK_MS);
	}
}

void reaper_watch(struct ss_server *server, struct child *child, int pipe[2])
{
	if (pipe[1] >= 0)
		sys_close(pipe[1]);
	watch(server, child,
	      child->reaper->pidfds ? sys_pidfd_open(child->pid) : pipe[0]);
}

void reaper_watch_later(struct ss_server *server, struct child *child,
			int pipe[2])
{
	struct reaper *reaper = child->reaper;
	if (!reaper->pidfds) {
		reaper_watch(server, child, pipe);
		return;
	}
	child->watch_at = ss_now(server) + LATER_MS;
	if (!reaper->later)
		reaper->later = child;
	reaper->forked = true;
	ss_turn_at(server, 0);
}

/* Just asked: its pid is this child's. */
static void watch_oldest(struct ss_server *server, struct reaper *reaper)
{
	struct child *child = reaper->later;
	reaper->later = child->next;
	watch(server, child, sys_pidfd_open(child->pid));
}

/* The oldest first, as far as they have ended or their time to be watched has
 * come. */
static void ask_later(struct ss_server *server, struct reaper *reaper,
		      int64_t time)
{
	struct child *child;
	while ((child = reaper->later)) {
		if (reap(server, child, WNOHANG))
			continue;
		if (time < child->watch_at)
			return;
		watch_oldest(server, reaper);
	}
}

/* Whether a client or the server's end may wait for one of them to end. */
static bool awaited(const struct ss_server *server, const struct reaper *reaper)
{
	int limit = ss_active_limit(server);
	return (limit > 0 && reaper->count >= limit) || ss_holding(server, ~0u);
}

/* Without a fork since the last wait, the next one may be a long one. */
void reaper_waited(struct ss_server *server, struct reaper *reaper)
{
	bool forked = reaper->forked;
	reaper->forked = false;
	reaper_ask(server, reaper);
	if (!reaper->later)
		return;
	ask_later(server, reaper,
		  awaited(server, reaper) ? INT64_MAX : ss_now(server));
	if (reaper->later && !forked)
		watch_oldest(server, reaper);
	if (reaper->later)
		ss_turn_at(server, forked ? 0 : reaper->later->watch_at);
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
