/*
 * Children of a model, reaped by their own pids as soon as they end: each is
 * watched by the serving loop, through its pidfd or, where there are none, a
 * pipe of which it holds the other end; or looked after now and then where
 * neither can be had.  So the program's own children, its SIGCHLD and whatever
 * it makes of both are left alone.
 */
#ifndef SS_MIXIN_REAPER_H
#define SS_MIXIN_REAPER_H

#include <socketserver/layer.h>

#include "../sys.h"

/* The caller's memory. */
struct child {
	struct ss_watch watch; /* fd -1: it could not be watched */
	struct reaper *reaper;
	pid_t pid; /* 0: none, not yet or no longer; reaper->lock */
	struct child *prev, *next;
	int64_t watch_at; /* a later one's: at this time at the latest */
};

struct reaper {
	/*
	 * Serving thread: it has ended, is forgotten, and may be freed.
	 * status as waitpid(2) has it; -1: somebody else has reaped it.
	 */
	void (*ended)(struct ss_server *server, struct child *child, pid_t pid,
		      int status);
	pthread_mutex_t lock; /* a pid that is being reaped is not signalled */
	struct child *children, *last;
	struct child *later; /* and those after it: not watched yet */
	int count, unwatched;
	bool pidfds; /* the kernel has them */
	bool forked; /* since the last wait */
};

int reaper_init(struct reaper *reaper,
		void (*ended)(struct ss_server *server, struct child *child,
			      pid_t pid, int status));
void reaper_fini(struct reaper *reaper);
/* A child has no children. */
void reaper_after_fork(struct reaper *reaper);

/*
 * Before the fork; in the child, which keeps its end; in the parent, where the
 * fork has failed; and where it has not: the child is ours from reaper_adopt
 * on, and its end is seen from reaper_watch on; or from reaper_watch_later on,
 * which needs reaper_waited: while one child is forked after the other, the
 * oldest are asked instead; before the loop sleeps, the oldest is watched, and
 * the others 20 ms after their fork, or at once where an end is waited for.
 * Most have ended by then.
 */
void reaper_prepare(const struct reaper *reaper, int pipe[2]);
void reaper_in_child(int pipe[2]);
void reaper_cancel(int pipe[2]);
void reaper_adopt(struct reaper *reaper, struct child *child, pid_t pid);
void reaper_watch(struct ss_server *server, struct child *child, int pipe[2]);
void reaper_watch_later(struct ss_server *server, struct child *child,
			int pipe[2]);
/* After each wait of the serving loop, instead of reaper_ask. */
void reaper_waited(struct ss_server *server, struct reaper *reaper);

/* Asks those that nothing watches; from service_actions. */
void reaper_ask(struct ss_server *server, struct reaper *reaper);
/* Any thread.  1; 0: there is no such child, not yet or no longer; -errno.
 * Signal 0 only asks. */
int reaper_kill(struct reaper *reaper, struct child *child, int signal);

/* "was killed by signal 11 (Segmentation fault)". */
char *reaper_tell(int status, char *buf, size_t size);

#endif
