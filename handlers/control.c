/*
 * Control: a line is a command, its answer is lines of text and then "ok" or
 * "error: REASON"; ssctl(1) has the protocol.  Only the user who runs the
 * program, and root, are heard.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* struct ucred */
#endif
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"

enum { LINE = 512 };

int control_fail(struct call *call, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(call->why, sizeof(call->why), fmt, args);
	va_end(args);
	return 0;
}

int control_say(struct call *call, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, args);

	va_end(args);
	if (n >= (int)sizeof(text)) {
		n = sizeof(text) - 1;
		text[n - 1] = '\n';
	}
	ssize_t r = ss_write(call->req, text, (size_t)n);

	return r < 0 ? (int)r : 0;
}

char *control_clean(char *text)
{
	for (char *c = text; *c != '\0'; c++)
		if (*c <= ' ' || *c > '~')
			*c = '?';
	return text;
}

bool control_number(const char *text, unsigned long long max,
		    unsigned long long *number)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 &&
	       *number <= max;
}

static bool has_url(struct ss_server *server, const char *url)
{
	char text[SS_ADDRESS_TEXT];

	for (int i = 0; i < ss_server_listeners(server); i++)
		if (strcmp(ss_server_url(server, i, text, sizeof(text)), url) ==
		    0)
			return true;
	return false;
}

bool control_servers(struct call *call, const char *name, int *first, int *last)
{
	const struct ss_control *control = call->control;
	unsigned long long number;

	*first = 0;
	*last = control->count - 1;
	if (name == NULL)
		return true;
	for (int i = 0; i < control->count; i++) {
		bool named = control_number(name, INT32_MAX, &number) &&
			     number == (unsigned long long)i;

		if (!named && !has_url(control->servers[i], name))
			continue;
		*first = *last = i;
		return true;
	}
	control_fail(call, "no server '%.60s'", name);
	return false;
}

/* ---- a line ---------------------------------------------------------------*/

static void split(struct call *call, char *line)
{
	char *rest = NULL;

	for (char *word = strtok_r(line, " \t\r\n", &rest); word != NULL;
	     word = strtok_r(NULL, " \t\r\n", &rest)) {
		if (call->argc == CONTROL_WORDS) {
			control_fail(call, "too many words");
			return;
		}
		call->argv[call->argc++] = control_clean(word);
	}
}

static int run(struct call *call)
{
	const struct command *command = control_commands;

	if (call->why[0] != '\0')
		return 0;
	if (call->argc == 0)
		return control_fail(call, "no command: try help");
	while (command->name != NULL &&
	       strcmp(command->name, call->argv[0]) != 0)
		command++;
	if (command->name == NULL)
		return control_fail(call, "unknown command '%.60s': try help",
				    call->argv[0]);
	return command->run(call);
}

static void drain(const struct call *call)
{
	const struct ss_control *control = call->control;

	if (control->drain != NULL) {
		control->drain(control->drain_arg);
		return;
	}
	for (int i = 0; i < control->count; i++)
		ss_shutdown(control->servers[i]);
	ss_shutdown(ss_request_server(call->req));
}

static int answer(struct call *call)
{
	int r = run(call);

	if (r == 0 && call->why[0] != '\0')
		r = control_say(call, "error: %s\n", call->why);
	else if (r == 0)
		r = control_say(call, "ok\n");
	if (r == 0)
		r = ss_flush(call->req);
	if (call->drain)
		drain(call);
	return r < 0 ? r : SS_AGAIN;
}

/* ---- the connection -------------------------------------------------------*/

/* Who has no credentials is on no Unix socket. */
static bool allowed(struct ss_request *req)
{
#ifdef SO_PEERCRED
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (ss_request_getsockopt(req, SOL_SOCKET, SO_PEERCRED, &peer, &len) <
	    0)
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
#else
	(void)req;
	return true; /* the mode of the socket's file decides */
#endif
}

static int control_setup(struct ss_request *req)
{
	const struct ss_control *control =
		ss_server_user(ss_request_server(req));

	if (control == NULL)
		return ss_fail(req, -EINVAL, "no struct ss_control");
	if (allowed(req))
		return 0;
	ss_printf(req, "error: only for the user who runs it, and root\n");
	ss_flush(req);
	return ss_fail(req, -EACCES, "another user");
}

/* What follows cannot be told from its rest: it is the last one. */
static int refuse_line(struct ss_request *req, const char *why)
{
	ssize_t n = ss_printf(req, "error: %s\n", why);

	return n < 0 ? (int)n : 0;
}

static int control_handle(struct ss_request *req)
{
	struct call call = {
		.req = req,
		.control = ss_server_user(ss_request_server(req)),
	};
	char line[LINE];
	ssize_t n = ss_read_line(req, line, sizeof(line));

	if (n == -EMSGSIZE)
		return refuse_line(req, "the line is too long");
	if (n <= 0)
		return (int)n;
	if (strlen(line) != (size_t)n)
		return refuse_line(req, "the line has a NUL");
	if (line[n - 1] != '\n')
		return refuse_line(req, "the line has no end");
	split(&call, line);
	return answer(&call);
}

const struct ss_handler ss_control_handler = {
	.name = "control",
	.setup = control_setup,
	.handle = control_handle,
	.timeouts = { .first_byte_ms = 60000,
		      .io_ms = 10000,
		      .idle_ms = 600000 },
	.wbufsize = SS_NONE,
};
