/*
 * What demos that are servers have in common: to say where they listen, and to
 * serve until Ctrl-C or SIGTERM.  Written as a program of yours would do it.
 */
#ifndef DEMO_H
#define DEMO_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* signal; so this header comes first */
#endif
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <socketserver/socketserver.h>

#define DEMO_ADDRESS "tcp://127.0.0.1:7777"

/* The program's only argument, an address; or else the one above. */
static inline const char *demo_address(int argc, char *argv[])
{
	if (argc > 2) {
		fprintf(stderr, "usage: %s [ADDRESS]\n", argv[0]);
		exit(2);
	}
	return argc == 2 ? argv[1] : DEMO_ADDRESS;
}

/* A line for each listener, so that a script knows the port and when to go. */
static inline int demo_announce(const char *program, struct ss_server *server)
{
	for (int i = 0; i < ss_server_listeners(server); i++) {
		char url[SS_ADDRESS_TEXT];

		printf("listening on %s (%s)\n",
		       ss_server_url(server, i, url, sizeof(url)),
		       ss_server_describe(server));
	}
	if (fflush(stdout) == 0)
		return 0;
	fprintf(stderr, "%s: standard output: %s\n", program, strerror(errno));
	return -1;
}

struct demo {
	const char *program;
	struct ss_server *server;
	struct ss_log_sink *log; /* NULL: none */
};

static inline int demo_ready(void *arg)
{
	const struct demo *demo = arg;

	return demo_announce(demo->program, demo->server);
}

/* At SIGHUP: the log's file may have been rotated. */
static inline int demo_reload(void *arg)
{
	const struct demo *demo = arg;

	return ss_log_sink_reopen(demo->log);
}

/* 0, or the program's exit status: 1 where the system refused, 2 where the
 * configuration makes no sense. */
static inline int demo_new(const char *program, const struct ss_config *config,
			   struct ss_server **server)
{
	struct ss_diag why;

	if (ss_server_new(server, config, &why) == 0)
		return 0;
	fprintf(stderr, "%s: %s\n", program, why.text);
	return why.code == -EINVAL ? 2 : EXIT_FAILURE;
}

/*
 * Servers, of which the first, of that configuration, is announced, until
 * Ctrl-C or SIGTERM; frees them, and returns the program's exit status.
 * `wanted` may be NULL.
 */
static inline int demo_serve(const char *program,
			     const struct ss_config *config,
			     struct ss_server *const *all, int count,
			     const struct ss_run_options *wanted)
{
	struct demo demo = { .program = program, .server = all[0] };
	struct ss_run_options options = { .once = false };

	if (wanted != NULL)
		options = *wanted;
	options.ready = demo_ready;
	options.arg = &demo;
	if (config->log == ss_log_sink_write) {
		demo.log = config->log_arg;
		options.reload = demo_reload;
	}
	/* A standard output without reader is an error like others. */
	signal(SIGPIPE, SIG_IGN);
	int status = ss_run(all, count, &options);

	while (count > 0)
		ss_server_free(all[--count]);
	return status;
}

/* A server's whole life. */
static inline int demo_run(const char *program, const struct ss_config *config,
			   const struct ss_run_options *wanted)
{
	struct ss_server *server;
	int status = demo_new(program, config, &server);

	return status != 0 ? status
			   : demo_serve(program, config, &server, 1, wanted);
}

#endif
