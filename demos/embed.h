/*
 * What the demos that serve inside somebody else's loop have in common: the
 * server, what a turn of it is, and the business that the host has besides,
 * which is a line about its clients at every tick of a timer.
 */
#ifndef EMBED_H
#define EMBED_H

#include "demo.h"

#include <limits.h>
#include <unistd.h>

#include "handlers.h"

struct embed {
	const char *program;
	struct ss_server *server;
	int tick_ms;
};

/* A turn runs sync's handler, so that one must not wait for its client. */
static inline bool embed_model(struct ss_config *config, const char *name)
{
	static const struct ss_fiber_options one_loop = { .loops = 1 };
	static const struct {
		const char *name;
		const struct ss_handler *handler;
		struct ss_use mixin;
	} models[] = {
		{ "sync", &ss_daytime_handler, { NULL, NULL } },
		{ "threading",
		  &ss_echo_handler,
		  { &ss_threading_mixin, NULL } },
		{ "forking", &ss_echo_handler, { &ss_forking_mixin, NULL } },
		{ "pool", &ss_echo_handler, { &ss_pool_mixin, NULL } },
		{ "fiber", &ss_echo_handler, { &ss_fiber_mixin, &one_loop } },
	};

	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
		if (strcmp(models[i].name, name) == 0) {
			config->handler = models[i].handler;
			config->mixins[0] = models[i].mixin;
			return true;
		}
	}
	return false;
}

static inline bool embed_ms(const char *text, int *ms)
{
	char *end = NULL;
	long number = strtol(text, &end, 10);

	*ms = (int)number;
	return *end == '\0' && number > 0 && number <= INT_MAX;
}

static inline bool embed_options(struct embed *embed, struct ss_config *config,
				 int argc, char *argv[])
{
	bool good = true;
	int option;

	while (good && (option = getopt(argc, argv, "i:m:t:")) != -1) {
		if (option == 'i')
			good = embed_ms(optarg, &config->timeouts.idle_ms);
		else if (option == 'm')
			good = embed_model(config, optarg);
		else if (option == 't')
			good = embed_ms(optarg, &embed->tick_ms);
		else
			good = false;
	}
	if (good && optind < argc)
		config->addresses[0] = argv[optind++];
	return good && optind == argc;
}

/* The server, which listens; else the program's exit status. */
static inline int embed_open(struct embed *embed, const char *program, int argc,
			     char *argv[])
{
	struct ss_config config = {
		.addresses = { DEMO_ADDRESS },
		.drain_ms = 2000, /* the loop stands still meanwhile */
	};
	struct ss_diag why;

	*embed = (struct embed){ .program = program, .tick_ms = 1000 };
	embed_model(&config, "threading");
	if (!embed_options(embed, &config, argc, argv)) {
		fprintf(stderr,
			"usage: %s [-m MODEL] [-i IDLE_MS] [-t TICK_MS] "
			"[ADDRESS]\n"
			"MODEL: sync, threading, forking, pool or fiber\n",
			program);
		return 2;
	}
	if (ss_server_new(&embed->server, &config, &why) < 0) {
		fprintf(stderr, "%s: %s\n", program, why.text);
		return why.code == -EINVAL ? 2 : EXIT_FAILURE;
	}
	int fd = ss_server_pollfd(embed->server);

	if (fd < 0)
		fprintf(stderr, "%s: %s\n", program, strerror(-fd));
	else if (demo_announce(program, embed->server) == 0)
		return EXIT_SUCCESS;
	ss_server_free(embed->server);
	return EXIT_FAILURE;
}

/* What the host's loop may sleep: -1: until a descriptor is ready. */
static inline int embed_wait_ms(const struct embed *embed)
{
	int64_t deadline = ss_server_deadline(embed->server);

	if (deadline == SS_NONE)
		return -1;
	deadline -= ss_now(embed->server);
	if (deadline <= 0)
		return 0;
	return deadline < INT_MAX ? (int)deadline : INT_MAX;
}

/* The host's own business; its timer comes whoever is being served. */
static inline void embed_tick(const struct embed *embed)
{
	struct ss_stats stats;

	ss_server_stats(embed->server, &stats);
	printf("%llu clients, %llu active\n",
	       (unsigned long long)stats.accepted,
	       (unsigned long long)stats.active);
	fflush(stdout);
}

/*
 * When the loop has ended, by which code: -ECANCELED is ss_shutdown's.  Those
 * being served may end meanwhile; returns the program's exit status.
 */
static inline int embed_close(const struct embed *embed, int code)
{
	struct ss_stats stats;

	ss_server_stats(embed->server, &stats);
	ss_server_free(embed->server);
	if (code < 0 && code != -ECANCELED) {
		fprintf(stderr, "%s: %s\n", embed->program, strerror(-code));
		return EXIT_FAILURE;
	}
	printf("stopped after %llu clients\n",
	       (unsigned long long)stats.accepted);
	return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
