/*
 * Hot restart: the program once more, with the listeners of this one, as
 * systemd would hand them over (LISTEN_FDS).  Once the new process has said
 * that it is ready, through a pipe, this one drains; if it does not, this one
 * goes on.
 *
 * $SS_RESTARTED is that pipe's descriptor, and those of the listeners whose
 * file is now the new one's to remove.
 */
#include "start.h"

#include <stdio.h>

enum { FIRST = 3, ENTRY = 64, READY_MS = 10000, END_MS = 1000, FAILED = 127 };

/* ---- what the new one gets ------------------------------------------------*/

struct legacy {
	int count;	 /* of listeners */
	int *fds;	 /* theirs, and the pipe's */
	char **env;	 /* NULL-terminated */
	char pid[ENTRY]; /* "LISTEN_PID=", to be completed by the child */
	char fds_text[ENTRY];
	char *names, *restarted;
	/* Where the program may lie, one after the other; "" ends them. */
	char *programs;
};

static const char *name_of(const struct ss_start *start, int fd)
{
	for (int i = 0; start && i < start->count; i++)
		if (start->given[i].fd == fd)
			return start->given[i].name;
	return "";
}

static int count_listeners(const struct run *run)
{
	int n = 0;
	for (int i = 0; i < run->count; i++)
		n += run->servers[i]->listener_count;
	return n;
}

static bool ours(const char *entry)
{
	static const char *const names[] = { "LISTEN_PID=", "LISTEN_FDS=",
					     "LISTEN_FDNAMES=", "SS_RESTARTED=",
					     "WATCHDOG_PID=" };
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strncmp(entry, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

static void free_legacy(struct legacy *legacy)
{
	sys_free(legacy->fds);
	sys_free(legacy->env);
	sys_free(legacy->names);
	sys_free(legacy->restarted);
	sys_free(legacy->programs);
}

/* " 4r": by number and letters, or nothing. */
static size_t say_flags(char *text, int fd, unsigned flags)
{
	char letters[3] = "";
	int n = 0;
	if (flags & SS_LISTENER_REMOVES)
		letters[n++] = START_REMOVES;
	if (flags & SS_LISTENER_ANY_PORT)
		letters[n++] = START_ANY_PORT;
	return n ? (size_t)snprintf(text, ENTRY, " %d%s", fd, letters) : 0;
}

static void list_listeners(const struct run *run, struct legacy *legacy)
{
	size_t names = 0, restarted = 0, n = (size_t)legacy->count;
	names += (size_t)snprintf(legacy->names, ENTRY, "LISTEN_FDNAMES=");
	restarted += (size_t)snprintf(legacy->restarted, ENTRY,
				      "SS_RESTARTED=%d", FIRST + (int)n);
	int at = 0;
	for (int i = 0; i < run->count; i++) {
		const struct ss_server *server = run->servers[i];
		for (int k = 0; k < server->listener_count; k++, at++) {
			const struct ss_listener *l = server->listeners[k];
			legacy->fds[at] = l->watch.fd;
			names += (size_t)snprintf(
				legacy->names + names, START_NAME + 1, "%s%s",
				at ? ":" : "",
				name_of(run->options.start, l->watch.fd));
			restarted += say_flags(legacy->restarted + restarted,
					       FIRST + at, l->flags);
		}
	}
}

/* A path, or where execvp(3) looks for a name: a new version may lie there.
 * NULL: no memory. */
static char *list_programs(const char *name)
{
	const char *path = getenv("PATH");
	if (strchr(name, '/'))
		path = "";
	else if (!path)
		path = "/bin:/usr/bin";
	size_t places = 1, used = 0;
	for (const char *p = path; *p; p++)
		places += *p == ':';
	size_t room = strlen(path) + places * (strlen(name) + 2) + 1;
	char *list = sys_calloc(1, room);
	for (; list && places && *name; places--) {
		int n = (int)strcspn(path, ":");
		used += (size_t)snprintf(list + used, room - used, "%.*s%s%s",
					 n, path, n ? "/" : "", name) +
			1;
		path += n + 1;
	}
	return list;
}

/* All memory is had here: the child may only make system calls. */
static int make_legacy(const struct run *run, struct legacy *legacy)
{
	const char *name = run->options.argv[0];
	size_t entries = 0, kept = 0;
	legacy->count = count_listeners(run);
	size_t n = (size_t)legacy->count + 1;
	while (environ[entries])
		entries++;
	legacy->fds = sys_calloc(n, sizeof(*legacy->fds));
	legacy->env = sys_calloc(entries + 5, sizeof(*legacy->env));
	legacy->names = sys_calloc(n + 1, START_NAME + 2);
	legacy->restarted = sys_calloc(n + 1, ENTRY);
	legacy->programs = list_programs(name ? name : "");
	if (!legacy->fds || !legacy->env || !legacy->names ||
	    !legacy->restarted || !legacy->programs)
		return -ENOMEM;
	for (size_t i = 0; i < entries; i++)
		if (!ours(environ[i]))
			legacy->env[kept++] = environ[i];
	list_listeners(run, legacy);
	snprintf(legacy->pid, ENTRY, "LISTEN_PID=");
	snprintf(legacy->fds_text, ENTRY, "LISTEN_FDS=%d", legacy->count);
	legacy->env[kept++] = legacy->pid;
	legacy->env[kept++] = legacy->fds_text;
	legacy->env[kept++] = legacy->names;
	legacy->env[kept] = legacy->restarted;
	return 0;
}

/* ---- the child ------------------------------------------------------------*/

static void append_number(char *text, long number)
{
	char digits[24];
	int n = 0;
	do
		digits[n++] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	text += strlen(text);
	while (n > 0)
		*text++ = digits[--n];
	*text = '\0';
}

/* First out of each other's way, then to where they are looked for. */
static bool place(struct legacy *legacy)
{
	int n = legacy->count + 1;
	for (int i = 0; i < n; i++)
		if ((legacy->fds[i] =
			     sys_dup_above(legacy->fds[i], FIRST + n)) == -1)
			return false;
	for (int i = 0; i < n; i++)
		if (sys_dup2(legacy->fds[i], FIRST + i) == -1)
			return false;
	return true;
}

/* Whether the next place may have it, as execvp(3) sees it. */
static bool not_here(int error)
{
	return error == ENOENT || error == ENOTDIR || error == EACCES ||
	       error == ENODEV || error == ESTALE || error == ETIMEDOUT;
}

/* Returns why it cannot.  A name that is nowhere is whichever file runs. */
static int execute(char *const *argv, const struct legacy *legacy)
{
	bool denied = false;
	const char *at = legacy->programs;
	for (; *at; at += strlen(at) + 1) {
		sys_execve(at, argv, legacy->env);
		if (!not_here(errno))
			return errno;
		denied |= errno == EACCES;
	}
	if (denied)
		return EACCES;
	if (!argv[0] || !strchr(argv[0], '/'))
		sys_execve("/proc/self/exe", argv, legacy->env);
	return errno;
}

static bool tell(int fd, const void *news, size_t n)
{
	return sys_write(fd, news, n) == (ssize_t)n;
}

/* The old one is told which process this is, without which it cannot be; and of
 * a failure, by the byte that else says ready, 0. */
static _Noreturn void be_reborn(char *const *argv, struct legacy *legacy)
{
	pid_t pid = sys_getpid();
	append_number(legacy->pid, (long)pid);
	bool told = tell(legacy->fds[legacy->count], &pid, sizeof(pid));
	if (told && place(legacy)) {
		signals_reset();
		char error = (char)execute(argv, legacy);
		tell(FIRST + legacy->count, &error, 1);
	}
	sys_exit(FAILED);
}

/*
 * By a process between, which ends at once: the new one is then the service
 * manager's child, not this one's.  systemd, when it stops a unit, gives no
 * time to a main process that was not its child when it heard MAINPID=.
 */
static _Noreturn void fork_and_end(char *const *argv, struct legacy *legacy)
{
	pid_t pid = sys_fork();
	if (pid == 0)
		be_reborn(argv, legacy);
	sys_exit(pid == -1 ? errno : 0);
}

/* Signals wait: a handler must not run in the child. */
static int fork_reborn(char *const *argv, struct legacy *legacy)
{
	sigset_t all, old;
	int status = 0;
	sigfillset(&all);
	sys_pthread_sigmask(SIG_SETMASK, &all, &old);
	pid_t pid = sys_fork();
	if (pid == 0)
		fork_and_end(argv, legacy);
	int error = pid == -1 ? errno : 0;
	while (pid > 0 && sys_waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	sys_pthread_sigmask(SIG_SETMASK, &old, NULL);
	return error ? -error : WIFEXITED(status) ? -WEXITSTATUS(status) : 0;
}

/* Said at once, and before all else; ECHILD: it is gone already. */
static pid_t hear_pid(int fd)
{
	struct pollfd said = { .fd = fd, .events = POLLIN };
	pid_t pid;
	ssize_t n;
	do {
		poller_poll(&said, 1, -1);
		n = sys_read(fd, &pid, sizeof(pid));
	} while (n == -1 && (errno == EINTR || errno == EAGAIN));
	return n == sizeof(pid) ? pid : -ECHILD;
}

/* ---- the old one ----------------------------------------------------------*/

static void end_wait(struct run *run)
{
	ss_watch_remove(run->servers[0], &run->ready_watch);
	sys_close(run->ready_watch.fd);
	if (run->reborn_fd >= 0)
		sys_close(run->reborn_fd);
	run->reborn = 0;
}

/* By the number alone where there are no pidfds.  It is reaped by whose child
 * it is: this process, where that is a container's first. */
static void end_reborn(pid_t pid, int pidfd)
{
	struct pollfd end = { .fd = pidfd, .events = POLLIN };
	if (pidfd < 0 || sys_poll(&end, 1, 0) == 0)
		sys_kill(pid, SIGKILL);
	if (pidfd < 0)
		return;
	sys_poll(&end, 1, END_MS);
	sys_close(pidfd);
	sys_waitpid(pid, NULL, WNOHANG);
}

static void goes_on(struct run *run, const char *reason)
{
	pid_t pid = run->reborn;
	int pidfd = run->reborn_fd;
	run->reborn_fd = -1;
	end_wait(run);
	end_reborn(pid, pidfd);
	ss_log(run->servers[0], SS_LOG_ERROR, 0,
	       "restart: process %ld %s: this one goes on", (long)pid, reason);
}

static void cannot_execute(struct run *run, int error)
{
	const char *name = run->options.argv[0];
	char reason[256];
	snprintf(reason, sizeof(reason), "cannot execute %.200s: %s",
		 name ? name : "", strerror(error));
	goes_on(run, reason);
}

/* What it has now is closed here, and no more: not shut down, not removed. */
static void hand_on(struct run *run)
{
	pid_t pid = run->reborn;
	end_wait(run);
	run->handed = true;
	notify(run->options.start, "MAINPID=%ld", (long)pid);
	for (int i = 0; i < run->count; i++) {
		struct ss_server *server = run->servers[i];
		atomic_store(&server->page->handed, true);
		for (int k = 0; k < server->listener_count; k++)
			server->listeners[k]->flags &=
				~(unsigned)SS_LISTENER_REMOVES;
	}
	for (int i = 0; i < run->count; i++)
		ss_shutdown(run->servers[i]);
}

static void ready_came(struct ss_server *server, struct ss_watch *watch)
{
	struct run *run = server->run;
	char byte;
	ssize_t n = sys_read(watch->fd, &byte, 1);
	if (n == 1 && !byte)
		hand_on(run);
	else if (n == 1)
		cannot_execute(run, (unsigned char)byte);
	else if (n == 0)
		goes_on(run, "ended before it was ready");
}

void restart_look(struct run *run, struct ss_server *server)
{
	if (!run->reborn)
		return;
	int64_t left = run->ready_by - sys_now_ms();
	if (left <= 0)
		goes_on(run, "was not ready in time");
	else
		ss_turn_at(server, now(server) + left);
}

void restart_give_up(struct run *run)
{
	if (run->reborn)
		goes_on(run, "came too late");
}

static int start_anew(struct run *run, struct legacy *legacy, int ready[2])
{
	const struct ss_run_options *o = &run->options;
	legacy->fds[legacy->count] = ready[1];
	run->ready_watch = (struct ss_watch){ .fd = ready[0],
					      .events = POLLIN,
					      .ready = ready_came };
	int r = ss_watch_add(run->servers[0], &run->ready_watch);
	if (r < 0)
		return r;
	r = fork_reborn(o->argv, legacy);
	sys_close(ready[1]);
	ready[1] = -1;
	pid_t pid = r < 0 ? r : hear_pid(ready[0]);
	if (pid < 0) {
		ss_watch_remove(run->servers[0], &run->ready_watch);
		return (int)pid;
	}
	run->reborn = pid;
	run->reborn_fd = sys_pidfd_open(pid);
	run->ready_by =
		sys_now_ms() + (o->restart_ms ? o->restart_ms : READY_MS);
	restart_look(run, run->servers[0]);
	return 0;
}

void restart_begin(struct run *run)
{
	struct legacy legacy = { .count = 0 };
	int ready[2] = { -1, -1 };
	if (run->reborn)
		return;
	int r = make_legacy(run, &legacy);
	if (r >= 0 && sys_pipe(ready) == -1)
		r = -errno;
	if (r >= 0)
		r = start_anew(run, &legacy, ready);
	free_legacy(&legacy);
	if (r >= 0)
		return;
	for (int i = 0; i < 2; i++)
		if (ready[i] >= 0)
			sys_close(ready[i]);
	ss_log(run->servers[0], SS_LOG_ERROR, 0,
	       "restart: %s: this process goes on", strerror(-r));
}
