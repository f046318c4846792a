/*
 * What demos that are servers have in common: to say where they listen, and to
 * serve until Ctrl-C or SIGTERM.  Written as a program of yours would do it.
 */
#ifndef DEMO_H
#define DEMO_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* sigaction; so this header comes first */
#endif
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
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

static _Atomic(struct ss_server *) demo_server;

/* The first signal ends serve_forever, one more during the drain means now. */
static inline void demo_on_signal(int sig)
{
	int saved = errno;
	struct ss_server *server = atomic_load(&demo_server);

	(void)sig;
	if (server != NULL)
		ss_shutdown(server);
	errno = saved;
}

/* SIGPIPE: so that a standard output without reader is an error like others. */
static inline void demo_stop_on_signals(struct ss_server *server)
{
	struct sigaction stop = { .sa_handler = demo_on_signal };
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	atomic_store(&demo_server, server);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
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

/* ss_serve_forever or ss_handle_request, and the graceful stop. */
static inline int demo_serve(const char *program, struct ss_server *server,
			     int (*serve)(struct ss_server *server))
{
	int err = serve(server);
	int abandoned = ss_server_close(server);

	if (abandoned > 0)
		fprintf(stderr, "%s: %d requests abandoned\n", program,
			abandoned);
	if (err >= 0 || err == -ECANCELED)
		return EXIT_SUCCESS;
	fprintf(stderr, "%s: %s\n", program, strerror(-err));
	return EXIT_FAILURE;
}

/*
 * A server's whole life; returns the program's exit status: 0, 1 where the
 * system refused, 2 where the configuration makes no sense.
 */
static inline int demo_run(const char *program, const struct ss_config *config,
			   int (*serve)(struct ss_server *server))
{
	struct ss_server *server;
	struct ss_diag why;
	int status = EXIT_FAILURE;

	if (ss_server_new(&server, config, &why) < 0) {
		fprintf(stderr, "%s: %s\n", program, why.text);
		return why.code == -EINVAL ? 2 : EXIT_FAILURE;
	}
	demo_stop_on_signals(server);
	if (demo_announce(program, server) == 0)
		status = demo_serve(program, server, serve);
	atomic_store(&demo_server, NULL);
	ss_server_free(server);
	return status;
}

#endif
