/* Programs run for real; program.h says what it promises. */
#include "program.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

const char *demo(const char *name)
{
	enum { KEPT = 4 };
	static char paths[KEPT][512];
	static unsigned number;
	const char *build = getenv("SS_BUILD");
	char *path = paths[number++ % KEPT];
	snprintf(path, sizeof(*paths), "%s/%s/%s",
		 build ? build : "build/debug", stacked() ? "stacked" : "demos",
		 name);
	ck_assert_msg(access(path, X_OK) == 0, "%s: %s (SS_BUILD is %s)", path,
		      strerror(errno), build ? build : "not set");
	return path;
}

/* ---- starting -------------------------------------------------------------*/

static bool is(const char *where, const char *what)
{
	return where && strcmp(where, what) == 0;
}

static void make_pipe(int fds[2])
{
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
}

static void fill(int fd)
{
	static const char bytes[4096];
	int flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	ck_assert_int_eq(errno, EAGAIN);
	fcntl(fd, F_SETFL, flags);
}

/*
 * The program's side of a descriptor, -1 for none; *ours gets the other one.
 * `side` is 0 where the program reads, 1 where it writes.
 */
static int lead(struct program *program, const char *where, int side, int *ours)
{
	int fds[2];
	*ours = -1;
	if (is(where, TO_CLOSED))
		return -1;
	bool a_pipe = !where || is(where, TO_NOBODY) || is(where, TO_FULL);
	if (!a_pipe) {
		int fd = open(where, O_RDWR | O_CLOEXEC);
		ck_assert_msg(fd >= 0, "%s: %s", where, strerror(errno));
		return fd;
	}
	make_pipe(fds);
	if (!where)
		*ours = fds[!side];
	else if (is(where, TO_NOBODY))
		close(fds[!side]);
	else
		program->kept = fds[!side];
	if (is(where, TO_FULL))
		fill(fds[side]);
	return fds[side];
}

static void take_place(int fd, int place)
{
	if (fd < 0)
		close(place);
	else
		dup2(fd, place);
}

static _Noreturn void become(const struct program *program, const int fds[3],
			     const char *const argv[])
{
	static const int ours[] = { SIGINT, SIGTERM, SIGPIPE, SIGHUP };
	sigset_t none;
	sigemptyset(&none);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (program->own_group)
		setpgid(0, 0);
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		signal(ours[i], SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int i = 0; i < 3; i++)
		take_place(fds[i], i);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

void program_start(struct program *program, const char *const argv[])
{
	program->kept = -1;
	int fds[3] = {
		lead(program, program->in_from, 0, &program->in),
		lead(program, program->out_to, 1, &program->out),
		lead(program, program->err_to, 1, &program->err),
	};
	fflush(NULL);
	program->pid = fork();
	ck_assert_int_ne(program->pid, -1);
	if (program->pid == 0)
		become(program, fds, argv);
	if (program->own_group)
		setpgid(program->pid, program->pid);
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* ---- reading lines --------------------------------------------------------*/

static const char *line_of(int fd)
{
	static char line[PROGRAM_LINE];
	size_t n = 0;
	int64_t until = clock_ms() + WAIT_MS;
	while (n < sizeof(line) - 1) {
		struct pollfd pollfd = { .fd = fd, .events = POLLIN };
		int left = (int)(until - clock_ms());
		line[n] = '\0';
		ck_assert_msg(poll(&pollfd, 1, left > 0 ? left : 0) == 1,
			      "no line in time, but \"%s\"", line);
		ssize_t r = read(fd, line + n, 1);
		ck_assert_msg(r == 1, "no line, but \"%s\" and the end", line);
		if (line[n] == '\n')
			break;
		n++;
	}
	line[n] = '\0';
	return line;
}

const char *program_line(struct program *program)
{
	return line_of(program->out);
}

const char *program_error(struct program *program)
{
	return line_of(program->err);
}

const char *program_listening(struct program *program)
{
	static char url[PROGRAM_LINE];
	const char *line = program_line(program);
	ck_assert_msg(sscanf(line, "listening on %1000s (", url) == 1, "\"%s\"",
		      line);
	return url;
}

const char *program_tells(struct program *program, const char *text)
{
	const char *line;
	do
		line = program_error(program);
	while (!strstr(line, text));
	return line;
}

/* ---- to the end -----------------------------------------------------------*/

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* What is there; closed at its end. */
static void collect(int *fd, short revents, char *text, size_t *size,
		    size_t room)
{
	if (!revents)
		return;
	ck_assert_msg(*size < room, "more than %zu bytes", room);
	ssize_t n = read(*fd, text + *size, room - *size);
	if (n > 0)
		*size += (size_t)n;
	else
		shut(fd);
}

static void feed(int *fd, const char **input, size_t *n)
{
	ssize_t written = *n ? write(*fd, *input, *n < 4096 ? *n : 4096) : 0;
	if (written > 0) {
		*input += written;
		*n -= (size_t)written;
	}
	if (*n == 0 || written < 0)
		shut(fd);
}

/* What a sanitizer slows down may take as much longer as its tests may. */
static int64_t patience(void)
{
	const char *stretch = getenv("CK_TIMEOUT_MULTIPLIER");
	long times = stretch ? strtol(stretch, NULL, 10) : 1;
	return WAIT_MS * (times > 1 ? times : 1);
}

/* A pipe that polls writable takes 4096 bytes without waiting (pipe(7)). */
static void talk(struct program *program, const char *input, size_t n,
		 struct ended *ended)
{
	int64_t until = clock_ms() + patience();
	while (program->in >= 0 || program->out >= 0 || program->err >= 0) {
		struct pollfd fds[3] = {
			{ .fd = program->in, .events = POLLOUT },
			{ .fd = program->out, .events = POLLIN },
			{ .fd = program->err, .events = POLLIN },
		};
		int left = (int)(until - clock_ms());
		ck_assert_msg(
			poll(fds, 3, left > 0 ? left : 0) > 0,
			"it does not end; so far \"%.200s\" and \"%.200s\"",
			ended->out, ended->err);
		if (fds[0].revents)
			feed(&program->in, &input, &n);
		collect(&program->out, fds[1].revents, ended->out,
			&ended->out_size, PROGRAM_OUT);
		collect(&program->err, fds[2].revents, ended->err,
			&ended->err_size, PROGRAM_ERR);
	}
}

static int reap(struct program *program)
{
	int status = 0;
	int64_t until = clock_ms() + WAIT_MS;
	pid_t pid;
	while ((pid = waitpid(program->pid, &status, WNOHANG)) == 0 &&
	       clock_ms() < until)
		pause_ms(2);
	if (pid == 0) {
		kill(program->pid, SIGKILL);
		waitpid(program->pid, &status, 0);
		ck_abort_msg("the program did not end");
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status)
				   : WEXITSTATUS(status);
}

static void leave_out_the_machine(struct ended *ended)
{
	char *line = ended->err, *to = ended->err;
	while (*line) {
		size_t n = strcspn(line, "\n");
		n += line[n] == '\n';
		char after = line[n];
		line[n] = '\0';
		bool machine = log_of_a_busy_machine(line);
		line[n] = after;
		if (!machine) {
			memmove(to, line, n);
			to += n;
		}
		line += n;
	}
	*to = '\0';
	ended->err_size = (size_t)(to - ended->err);
}

void program_feed(struct program *program, const void *input, size_t n,
		  struct ended *ended)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN }, old;
	ended->out_size = ended->err_size = 0;
	ended->out[0] = ended->err[0] = '\0';
	sigaction(SIGPIPE, &ignore, &old);
	talk(program, input, n, ended);
	sigaction(SIGPIPE, &old, NULL);
	ended->out[ended->out_size] = '\0';
	ended->err[ended->err_size] = '\0';
	if (!memchr(ended->err, '\0', ended->err_size))
		leave_out_the_machine(ended);
	ended->status = reap(program);
	shut(&program->kept);
}

void program_wait(struct program *program, struct ended *ended)
{
	program_feed(program, NULL, 0, ended);
}

void program_stop(struct program *program, int signal, struct ended *ended)
{
	ck_assert_int_eq(kill(program->pid, signal), 0);
	program_wait(program, ended);
}

void program_run(struct ended *ended, const char *input,
		 const char *const argv[])
{
	struct program program = { 0 };
	program_start(&program, argv);
	program_feed(&program, input, strlen(input), ended);
}
