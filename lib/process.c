/*
 * The process: which servers live in it, and forking it.
 *
 * A child must close what belongs to every server, not only to its own, and
 * request ids must differ between servers.  Neither is possible without a list
 * of them: the library's only mutable state outside a server.
 */
#include "internal.h"

static struct {
	pthread_mutex_t lock;
	struct ss_server *servers;
	unsigned made;
} process = { .lock = PTHREAD_MUTEX_INITIALIZER };

unsigned process_enter(struct ss_server *server)
{
	pthread_mutex_lock(&process.lock);
	unsigned number = process.made++;
	server->next_in_process = process.servers;
	process.servers = server;
	pthread_mutex_unlock(&process.lock);
	return number;
}

/*
 * A child of a process with threads inherits the locks that they held, and
 * nobody to release them (fork(2)).  A server in workers has its threads there.
 */
static bool forks_here(const struct ss_server *server)
{
	return (server->flags & SS_LAYER_FORKS) && !server->child &&
	       !server->worker;
}

static bool threads_here(const struct ss_server *server)
{
	bool elsewhere =
		(server->flags & SS_LAYER_SUPERVISES) && !server->worker;
	return server->threaded ||
	       ((server->flags & SS_LAYER_THREADS) && !elsewhere);
}

static int refuse_beside(struct ss_server *server, int code,
			 const struct ss_server *clash)
{
	return ss_refuse(server, code,
			 "%s and %s in one process: one forks, and the other "
			 "has threads",
			 server->describe, clash->describe);
}

int process_admit(struct ss_server *server)
{
	const struct ss_server *clash = NULL;
	pthread_mutex_lock(&process.lock);
	for (struct ss_server *s = process.servers; s; s = s->next_in_process)
		if (s != server && ((forks_here(server) && threads_here(s)) ||
				    (threads_here(server) && forks_here(s))))
			clash = s;
	pthread_mutex_unlock(&process.lock);
	return clash ? refuse_beside(server, -EINVAL, clash) : 0;
}

int ss_start_threads(struct ss_server *server)
{
	const struct ss_server *clash = NULL;
	pthread_mutex_lock(&process.lock);
	for (struct ss_server *s = process.servers; s; s = s->next_in_process)
		if (!server->worker && forks_here(s))
			clash = s;
	if (!clash)
		server->threaded = true;
	pthread_mutex_unlock(&process.lock);
	return clash ? refuse_beside(server, -EBUSY, clash) : 0;
}

void process_leave(struct ss_server *server)
{
	pthread_mutex_lock(&process.lock);
	struct ss_server **at = &process.servers;
	while (*at && *at != server)
		at = &(*at)->next_in_process;
	if (*at)
		*at = server->next_in_process;
	pthread_mutex_unlock(&process.lock);
}

/* Held over the fork, so that the child finds every list whole. */
static void lock_all(void)
{
	pthread_mutex_lock(&process.lock);
	for (struct ss_server *s = process.servers; s; s = s->next_in_process)
		pthread_mutex_lock(&s->lock);
}

static void unlock_all(void)
{
	for (struct ss_server *s = process.servers; s; s = s->next_in_process)
		pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&process.lock);
}

/* ---- what a child leaves --------------------------------------------------*/

static void close_run(int first, int last)
{
	if (first < last && sys_close_range(first, last) == 0)
		return;
	for (int fd = first; fd <= last; fd++)
		sys_close(fd);
}

void leave_all(struct leaving *leaving)
{
	const int *fds = leaving->fds;
	for (int i = 0, next; i < leaving->count; i = next) {
		next = i + 1;
		while (next < leaving->count && fds[next] == fds[next - 1] + 1)
			next++;
		close_run(fds[i], fds[next - 1]);
	}
	leaving->count = 0;
}

void leave(struct leaving *leaving, int fd)
{
	if (leaving->count == LEAVING_MAX)
		leave_all(leaving);
	int at = leaving->count++;
	for (; at > 0 && leaving->fds[at - 1] > fd; at--)
		leaving->fds[at] = leaving->fds[at - 1];
	leaving->fds[at] = fd;
}

/* Writes only where something changes: a child shares with its parent, and its
 * siblings, each page that it does not write. */
void leave_end(struct leaving *leaving, int *fd)
{
	if (*fd < 0)
		return;
	leave(leaving, *fd);
	*fd = -1;
}

static void leave_requests(struct ss_server *server,
			   const struct ss_request *keep,
			   struct leaving *leaving)
{
	for (struct ss_request *r = server->requests.first; r; r = r->next) {
		if (r == keep)
			continue;
		if (r->rare) {
			leave_end(leaving, &r->rare->wake_pipe[0]);
			leave_end(leaving, &r->rare->wake_pipe[1]);
		}
		if (r->source && !(r->source->flags & SS_SOURCE_DGRAM))
			leave_end(leaving, &r->source->fd);
		for (struct ss_request *further = r->rare ? r->rare->streams
							  : NULL;
		     further; further = further->next)
			leave_end(leaving, &further->source->fd);
	}
}

/* keep NULL: nothing of this server. */
static void become_child_of(struct ss_server *server,
			    const struct ss_request *keep)
{
	struct leaving leaving = { .count = 0 };
	bool own = keep && keep->server == server;
	server->child = true;
	server->run = NULL;
	server->pid = 0;
	for (int i = 0; i < server->listener_count; i++) {
		struct ss_listener *listener = server->listeners[i];
		if (!own || !keep->dgram || keep->listener != listener->number)
			leave_end(&leaving, &listener->watch.fd);
	}
	leave_requests(server, keep, &leaving);
	loop_after_fork(server, &leaving);
	leave_end(&leaving, &server->spare_fd);
	workers_close(server);
	stop_after_fork(server, own, &leaving);
	leave_all(&leaving);
}

/* What a child is forked for: a request, or to be a server's worker. */
struct heir {
	const struct ss_request *keep;
	struct ss_server *server;
	int slot;
	int order[2];
	int result;
};

static void become(struct ss_server *server, struct heir *heir)
{
	if (server == heir->server)
		heir->result = worker_become(server, heir->slot, heir->order);
	else
		become_child_of(server, heir->keep);
}

/*
 * Signals wait until the child knows that it is one: its ss_shutdown would
 * stop the parent, where the whole group is told (^C).
 */
static pid_t fork_for(struct heir *heir)
{
	sigset_t mask, old;
	sigfillset(&mask);
	sys_pthread_sigmask(SIG_SETMASK, &mask, &old);
	mask = old;
	sigaddset(&mask, SIGPIPE);
	/* A lock that keeps nobody out would only be written, on pages that
	 * parent and child then have to copy. */
	bool alone = sys_alone();
	if (!alone)
		lock_all();
	pid_t pid = sys_fork();
	if (pid == -1)
		pid = -errno;
	for (struct ss_server *s = process.servers; s && pid == 0;
	     s = s->next_in_process)
		become(s, heir);
	if (!alone)
		unlock_all();
	sys_pthread_sigmask(SIG_SETMASK, pid == 0 ? &mask : &old, NULL);
	for (struct ss_server *s = process.servers; s && pid == 0;
	     s = s->next_in_process)
		layers_after_fork(s);
	return pid;
}

pid_t ss_fork(struct ss_request *keep)
{
	struct heir heir = { .keep = keep };
	return fork_for(&heir);
}

pid_t ss_fork_worker(struct ss_server *server, int slot)
{
	struct heir heir = { .server = server, .slot = slot };
	int r = worker_prepare(server, slot, heir.order);
	if (r < 0)
		return r;
	pid_t pid = fork_for(&heir);
	if (pid != 0) {
		worker_forked(server, slot, heir.order, pid);
	} else if (heir.result < 0) {
		ss_log(server, SS_LOG_ERROR, 0, "a worker cannot begin: %s",
		       strerror(-heir.result));
		sys_exit(1);
	}
	return pid;
}
