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
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	fprintf(stderr, "%s: standard output: %s\n", program, strerror(errno));
	return -1;
}

struct demo {
	const char *program;
	struct ss_server *const *servers;
	int count;
	struct ss_log_sink *log; /* NULL: none */
};

static inline int demo_ready(void *arg)
{
	const struct demo *demo = arg;

	for (int i = 0; i < demo->count; i++)
		if (demo_announce(demo->program, demo->servers[i]) < 0)
			return -1;
	return 0;
}

/* All of them, or none: then the program's exit status is 1 where the system
 * refused, 2 where the configuration makes no sense. */
static inline int demo_make(const char *program, struct ss_server **servers,
			    const struct ss_config *const *configs, int count)
{
	struct ss_diag why;

	for (int i = 0; i < count; i++) {
		if (ss_server_new(&servers[i], configs[i], &why) >= 0)
			continue;
		fprintf(stderr, "%s: %s\n", program, why.text);
		while (i-- > 0)
			ss_server_free(servers[i]);
		return why.code == -EINVAL ? 2 : EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

/* At SIGHUP: the log's file may have been rotated. */
static inline int demo_reload(void *arg)
{
	const struct demo *demo = arg;

	return ss_log_sink_reopen(demo->log);
}

/*
 * Servers' whole life, until Ctrl-C or SIGTERM; returns the program's exit
 * status.  `servers` has room for them; `wanted` may be NULL.
 */
static inline int demo_run_all(const char *program, struct ss_server **servers,
			       const struct ss_config *const *configs,
			       int count, const struct ss_run_options *wanted)
{
	struct demo demo = { program, servers, count, NULL };
	const struct ss_config *config = configs[0];
	struct ss_run_options options = { .once = false };
	int status = demo_make(program, servers, configs, count);

	if (status != EXIT_SUCCESS)
		return status;
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
	status = ss_run(servers, count, &options);
	while (count-- > 0)
		ss_server_free(servers[count]);
	return status;
}

/* The same of one. */
static inline int demo_run(const char *program, const struct ss_config *config,
			   const struct ss_run_options *wanted)
{
	struct ss_server *server = NULL;

	return demo_run_all(program, &server, &config, 1, wanted);
}

#endif
