/*
 * Forking: a process per request.
 *
 * Children are reaped by their own pids, as soon as they end: each is watched
 * by the serving loop, through its pidfd or, where there are none, a pipe of
 * which it holds the other end.  So the program's own children, its SIGCHLD
 * and whatever it makes of both are left alone.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../sys.h"

enum { LOOK_MS = 100 };

/* A request's: the process that serves it. */
struct child {
	struct ss_watch watch; /* fd -1: it could not be watched */
	struct ss_request *req;
	pid_t pid; /* 0: none, not yet or no longer; state->lock */
	struct child *prev, *next;
};

struct forking {
	pthread_mutex_t lock; /* a pid that is being reaped is not signalled */
	struct child *children;
	int unwatched;
	bool pidfds; /* the kernel has them */
};

static struct forking *state_of(struct ss_server *server)
{
	return ss_layer_state(server, &ss_forking_mixin);
}

/* ---- reaping --------------------------------------------------------------*/

static int status_of(struct ss_server *server, const struct child *child,
		     pid_t pid, int status)
{
	uint64_t id = ss_request_id(child->req);
	if (WIFSIGNALED(status))
		ss_log(server, SS_LOG_WARNING, id,
		       "child %ld was killed by signal %d (%s)", (long)pid,
		       WTERMSIG(status), strsignal(WTERMSIG(status)));
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

static void forget_child(struct ss_server *server, struct child *child)
{
	struct forking *state = state_of(server);
	if (child->watch.fd >= 0) {
		ss_watch_remove(server, &child->watch);
		sys_close(child->watch.fd);
	} else {
		state->unwatched--;
	}
	if (child->prev)
		child->prev->next = child->next;
	else
		state->children = child->next;
	if (child->next)
		child->next->prev = child->prev;
}

/* Whether it has ended; one that somebody else reaped loses its status. */
static bool reap(struct ss_server *server, struct child *child, int options)
{
	int status = 0;
	pid_t pid;
	struct forking *state = state_of(server);
	pthread_mutex_lock(&state->lock);
	do
		pid = sys_waitpid(child->pid, &status, options);
	while (pid == -1 && errno == EINTR);
	if (pid != 0)
		child->pid = 0;
	pthread_mutex_unlock(&state->lock);
	if (pid == 0)
		return false;
	struct ss_request *req = child->req;
	int result = pid == -1 ? 0 : status_of(server, child, pid, status);
	forget_child(server, child);
	ss_request_end(req, result);
	return true;
}

/* A pidfd is readable once it is dead; a pipe may end a little before. */
static void child_ended(struct ss_server *server, struct ss_watch *watch)
{
	bool pidfds = state_of(server)->pidfds;
	reap(server, (struct child *)watch, pidfds ? WNOHANG : 0);
}

/* Those that no descriptor watches are asked, turn by turn. */
static void ask_unwatched(struct ss_server *server)
{
	struct forking *state = state_of(server);
	struct child *next;
	for (struct child *c = state->unwatched ? state->children : NULL; c;
	     c = next) {
		next = c->next;
		if (c->watch.fd < 0)
			reap(server, c, WNOHANG);
	}
	if (state->unwatched)
		ss_turn_at(server, ss_now(server) + LOOK_MS);
}

static void frk_service_actions(struct ss_server *server)
{
	ask_unwatched(server);
	ss_super(server, &ss_forking_mixin)->service_actions(server);
}

/* Who only ever calls handle_request has no service_actions. */
static void frk_handle_timeout(struct ss_server *server)
{
	ask_unwatched(server);
	ss_super(server, &ss_forking_mixin)->handle_timeout(server);
}

/* ---- the child ------------------------------------------------------------*/

static _Noreturn void serve_in_child(struct ss_request *req)
{
	int status = ss_request_finish(req);
	fflush(NULL);
	sys_exit(status < 0 ? 1 : 0);
}

/* ---- the parent -----------------------------------------------------------*/

/* What the child keeps open for us to see its end, unless a pidfd will; where
 * neither can be had, we look now and then. */
static void prepare_pipe(const struct forking *state, int pipe[2])
{
	if (state->pidfds || sys_pipe(pipe) == -1)
		pipe[0] = pipe[1] = -1;
}

static void watch_child(struct ss_server *server, struct child *child, int fd)
{
	struct forking *state = state_of(server);
	if (state->pidfds)
		fd = sys_pidfd_open(child->pid);
	child->watch = (struct ss_watch){ .fd = fd,
					  .events = POLLIN,
					  .ready = child_ended };
	if (fd >= 0 && ss_watch_add(server, &child->watch) < 0) {
		sys_close(fd);
		child->watch.fd = fd = -1;
	}
	if (fd < 0) {
		child->watch.fd = -1;
		state->unwatched++;
		ss_turn_at(server, ss_now(server) + LOOK_MS);
	}
}

static void adopt_child(struct ss_server *server, struct child *child,
			pid_t pid, int fd)
{
	struct forking *state = state_of(server);
	pthread_mutex_lock(&state->lock);
	child->pid = pid;
	pthread_mutex_unlock(&state->lock);
	child->next = state->children;
	if (child->next)
		child->next->prev = child;
	state->children = child;
	ss_request_set_pid(child->req, pid);
	/* First, so that a descriptor is free to watch it with. */
	ss_self(server)->close_request(server, child->req);
	watch_child(server, child, fd);
}

static void close_pipe(int pipe[2])
{
	for (int i = 0; i < 2; i++)
		if (pipe[i] >= 0)
			sys_close(pipe[i]);
}

static int frk_process_request(struct ss_server *server, struct ss_request *req)
{
	int pipe[2];
	ask_unwatched(server);
	prepare_pipe(state_of(server), pipe);
	/* What is in stdio's buffers is ours to print, not every child's. */
	fflush(NULL);
	pid_t pid = ss_fork(req);
	if (pid < 0) {
		close_pipe(pipe);
		return pid;
	}
	if (pid == 0) {
		if (pipe[0] >= 0)
			sys_close(pipe[0]);
		serve_in_child(req);
	}
	if (pipe[1] >= 0)
		sys_close(pipe[1]);
	struct child *child = ss_request_layer_state(req, &ss_forking_mixin);
	child->req = req;
	adopt_child(server, child, pid, pipe[0]);
	return 0;
}

/* Under the lock.  End of file reaches the child by the stop pipes. */
static int frk_cancel_request(struct ss_server *server, struct ss_request *req,
			      bool force)
{
	const struct child *child =
		ss_request_layer_state(req, &ss_forking_mixin);
	struct forking *state = state_of(server);
	pthread_mutex_lock(&state->lock);
	bool has_child = child->pid != 0;
	int r = 0;
	if (has_child && force && sys_kill(child->pid, SIGKILL) == -1)
		r = -errno;
	pthread_mutex_unlock(&state->lock);
	if (has_child)
		return r;
	return ss_super(server, &ss_forking_mixin)
		->cancel_request(server, req, force);
}

/* ---- the server's life ----------------------------------------------------*/

static int frk_init(struct ss_server *server, const void *options)
{
	(void)options;
	int fd = sys_pidfd_open(sys_getpid());
	state_of(server)->pidfds = fd >= 0;
	if (fd >= 0)
		sys_close(fd);
	return -pthread_mutex_init(&state_of(server)->lock, NULL);
}

static void frk_fini(struct ss_server *server)
{
	pthread_mutex_destroy(&state_of(server)->lock);
}

/* A child has no children. */
static void frk_after_fork(struct ss_server *server)
{
	struct forking *state = state_of(server);
	state->children = NULL;
	state->unwatched = 0;
}

const struct ss_layer ss_forking_mixin = {
	.name = "forking",
	.flags = SS_LAYER_DISPATCHES | SS_LAYER_FORKS | SS_NEEDS_SOCKET,
	.server_size = sizeof(struct forking),
	.request_size = sizeof(struct child),
	.init = frk_init,
	.fini = frk_fini,
	.after_fork = frk_after_fork,
	.ops = {
		.process_request = frk_process_request,
		.cancel_request = frk_cancel_request,
		.service_actions = frk_service_actions,
		.handle_timeout = frk_handle_timeout,
	},
};
