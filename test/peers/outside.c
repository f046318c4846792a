/*
 * A server whose calls are marked, for who looks on from outside by strace(1):
 * every call of the library that goes through its table is between two marks,
 * which are system calls that do nothing.
 *
 *	outside MODEL ADDRESS	serves three clients, and ends
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <socketserver/socketserver.h>

#include "../../lib/sys.h"

/* As test/t_outside.c has them: fcntl(2) of no descriptor. */
enum { MARK_IN = -2, MARK_OUT = -3, MARK_BEGIN = -4, MARK_END = -5 };

static void mark(int mark)
{
	int error = errno;
	syscall(SYS_fcntl, mark, F_GETFD);
	errno = error;
}

/* ---- the table ------------------------------------------------------------*/

static struct sys_table real;

#define MARKED(type, name, params, args)                                       \
	static type marked_##name params                                       \
	{                                                                      \
		mark(MARK_BEGIN);                                              \
		type answer_ = real.name args;                                 \
		mark(MARK_END);                                                \
		return answer_;                                                \
	}
#define MARKED_FD(name, params, args) MARKED(int, name, params, args)
SYS_DESCRIPTORS(MARKED_FD)
SYS_WRAPPED(MARKED)
SYS_PLAIN(MARKED)
SYS_LINUX(MARKED)

static void marked_free(void *memory)
{
	mark(MARK_BEGIN);
	real.free(memory);
	mark(MARK_END);
}

#define ENTRY_FD(name, params, args) .name = marked_##name,
#define ENTRY(type, name, params, args) .name = marked_##name,

static void mark_calls(void)
{
	real = sys_table;
	/* clang-format off */
	sys_table = (struct sys_table){
		SYS_DESCRIPTORS(ENTRY_FD)
		SYS_WRAPPED(ENTRY)
		SYS_PLAIN(ENTRY)
		SYS_LINUX(ENTRY)
		.free = marked_free,
	};
	/* clang-format on */
}

/* ---- the server -----------------------------------------------------------*/

static const struct {
	const char *name;
	const struct ss_layer *mixin;
} models[] = {
	{ "sync", NULL },
	{ "threading", &ss_threading_mixin },
	{ "forking", &ss_forking_mixin },
	{ "pool", &ss_pool_mixin },
	{ "prefork", &ss_prefork_mixin },
	{ "fiber", &ss_fiber_mixin },
};

static struct ss_server *server;

static void on_term(int signal)
{
	(void)signal;
	ss_shutdown(server);
}

static int echo(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler handler = { .handle = echo };

static void quiet(void *arg, int level, struct ss_server *of, uint64_t id,
		  const char *text)
{
	(void)arg, (void)level, (void)of, (void)id, (void)text;
}

static int serve(const char *model, const char *address, int to)
{
	char url[SS_ADDRESS_TEXT];
	struct ss_config config = {
		.addresses = { address },
		.handler = &handler,
		.log = quiet,
	};
	for (size_t i = 0; i < sizeof(models) / sizeof(*models); i++)
		if (strcmp(models[i].name, model) == 0)
			config.mixins[0].layer = models[i].mixin;
	mark(MARK_IN);
	int r = ss_server_new(&server, &config, NULL);
	mark(MARK_OUT);
	if (r < 0)
		return r;
	signal(SIGTERM, on_term);
	dprintf(to, "%s\n", ss_server_url(server, 0, url, sizeof(url)));
	mark(MARK_IN);
	r = ss_serve_forever(server);
	ss_server_free(server);
	mark(MARK_OUT);
	return r;
}

/* ---- its clients ----------------------------------------------------------*/

static int exchange(const struct ss_endpoint *to)
{
	const struct sockaddr *sa = &to->address.u.sa;
	const sa_family_t unnamed = AF_UNIX;
	char byte = 'x';
	struct timeval patience = { .tv_sec = 10 };
	bool stream =
		to->scheme == SS_SCHEME_TCP || to->scheme == SS_SCHEME_UNIX;
	int fd = socket(sa->sa_family, stream ? SOCK_STREAM : SOCK_DGRAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (sa->sa_family == AF_UNIX)
		bind(fd, (const struct sockaddr *)&unnamed, sizeof(unnamed));
	int good = connect(fd, sa, to->address.len) == 0 &&
		   send(fd, &byte, 1, MSG_NOSIGNAL) == 1 &&
		   recv(fd, &byte, 1, 0) == 1;
	close(fd);
	return good;
}

static int be_clients(int from)
{
	char url[SS_ADDRESS_TEXT];
	struct ss_endpoint to;
	FILE *in = fdopen(from, "r");
	int good = 0;
	bool told = in && fgets(url, sizeof(url), in);
	if (in)
		fclose(in);
	if (told) {
		url[strcspn(url, "\n")] = '\0';
		if (ss_resolve(url, SS_SCHEME_ANY, &to, 1, NULL) >= 1)
			for (int i = 0; i < 3; i++)
				good += exchange(&to);
	}
	kill(getppid(), SIGTERM);
	return good == 3 ? 0 : 1;
}

int main(int argc, char **argv)
{
	int fds[2], status = 1;
	if (argc != 3 || pipe(fds) == -1)
		return 2;
	pid_t pid = fork();
	if (pid == 0) {
		mark(MARK_OUT);
		close(fds[1]);
		_exit(be_clients(fds[0]));
	}
	close(fds[0]);
	mark_calls();
	int r = serve(argv[1], argv[2], fds[1]);
	close(fds[1]);
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	return r < 0 || status != 0;
}
