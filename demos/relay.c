/*
 * Clients of one address are connected to a server at another one: the relay
 * of handlers/relay.c, under a model to choose.
 *
 *	relay :8080 tcp://192.0.2.1:80
 *	relay -m threading unix:/run/front tcp://localhost:7777
 */
#include "demo.h"

#include <unistd.h>

#include "handlers.h"

enum { WRONG_USE = 2, IDLE_MS = 600000 };

static const struct model {
	const char *name;
	const struct ss_layer *mixin; /* NULL: one client at a time */
} models[] = {
	{ "fiber", &ss_fiber_mixin },	      { "sync", NULL },
	{ "threading", &ss_threading_mixin }, { "forking", &ss_forking_mixin },
	{ "pool", &ss_pool_mixin },
};

enum { MODELS = sizeof(models) / sizeof(models[0]) };

_Noreturn static void wrong_use(void)
{
	fputs("usage: relay [-m fiber|sync|threading|forking|pool] "
	      "LISTEN-ADDRESS UPSTREAM-ADDRESS\n",
	      stderr);
	exit(WRONG_USE);
}

static const struct ss_layer *mixin_of(const char *name)
{
	for (size_t i = 0; i < MODELS; i++)
		if (strcmp(models[i].name, name) == 0)
			return models[i].mixin;
	wrong_use();
}

/* What is malformed is said now, and not to the first client. */
static void check(const char *upstream)
{
	struct ss_diag why;

	if (ss_resolve(upstream, SS_SCHEME_ANY, NULL, 0, &why) != -EINVAL)
		return;
	fprintf(stderr, "relay: %s\n", why.text);
	exit(WRONG_USE);
}

int main(int argc, char *argv[])
{
	struct ss_handler handler = ss_relay_handler;
	struct ss_config config = {
		.mixins = { { models[0].mixin, NULL } },
		.handler = &handler,
		.timeouts = { .idle_ms = IDLE_MS },
	};
	int option;

	while ((option = getopt(argc, argv, "m:")) != -1) {
		if (option != 'm')
			wrong_use();
		config.mixins[0].layer = mixin_of(optarg);
	}
	if (argc - optind != 2)
		wrong_use();
	config.addresses[0] = argv[optind];
	handler.user = argv[optind + 1];
	check(handler.user);
	return demo_run("relay", &config, NULL);
}
