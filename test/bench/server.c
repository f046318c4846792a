/*
 * Our server as the benchmark wants it: an echo handler of one's choice, under
 * any model, and the sizes of those that have some.
 *
 *	server -m threading -H loop tcp://127.0.0.1:0
 */
#include "../../demos/demo.h"

#include <getopt.h>

#include "handlers.h"

_Noreturn static void wrong(const char *what, const char *name)
{
	fprintf(stderr, "server: unknown %s '%s'\n", what, name);
	exit(2);
}

/* ---- handlers ------------------------------------------------------------*/

/* What there is goes back from where the library has it. */
static int lend_handle(struct ss_request *req)
{
	const void *data;
	ssize_t n = ss_peek(req, &data, 1);

	if (n > 0)
		n = ss_write(req, data, (size_t)n);
	return n > 0 && ss_skip(req, (size_t)n) >= 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler lend_handler = {
	.name = "lend",
	.handle = lend_handle,
	.rbufsize = 16384,
};

static const struct {
	const char *name;
	const struct ss_handler *handler;
} handlers[] = {
	{ "echo", &ss_echo_handler },
	{ "loop", &ss_echo_loop_handler },
	{ "lend", &lend_handler },
};

static const struct ss_handler *find_handler(const char *name)
{
	for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
		if (strcmp(handlers[i].name, name) == 0)
			return handlers[i].handler;
	wrong("handler", name);
}

/* ---- models --------------------------------------------------------------*/

static const struct {
	const char *name;
	struct ss_use use;
} models[] = {
	{ "sync", { NULL, NULL } },
	{ "threading", { &ss_threading_mixin, NULL } },
	{ "forking", { &ss_forking_mixin, NULL } },
};

static struct ss_use find_model(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
		if (strlen(models[i].name) == len &&
		    memcmp(models[i].name, name, len) == 0)
			return models[i].use;
	wrong("model", name);
}

/* MODEL:MODEL, leftmost first. */
static void use_models(struct ss_config *config, const char *names)
{
	for (int i = 0; i < SS_MIXINS_MAX; i++) {
		const size_t len = strcspn(names, ":");
		const struct ss_use use = find_model(names, len);

		config->mixins[i] = use;
		if (names[len] == '\0')
			return;
		names += len + 1;
	}
}

static const char usage[] =
	"usage: server [-m MODEL[:MODEL]] [-H echo|loop|lend]\n"
	"              [-x MAX-ACTIVE] ADDRESS\n";

static void parse(struct ss_config *config, int argc, char *argv[])
{
	const char *model = "sync", *handler = "echo";
	int option;

	while ((option = getopt(argc, argv, "m:H:x:")) != -1)
		switch (option) {
		case 'm':
			model = optarg;
			break;
		case 'H':
			handler = optarg;
			break;
		case 'x':
			config->max_active = (int)strtol(optarg, NULL, 10);
			break;
		default:
			optind = argc;
		}
	if (optind != argc - 1) {
		fputs(usage, stderr);
		exit(2);
	}
	config->addresses[0] = argv[optind];
	config->handler = find_handler(handler);
	use_models(config, model);
}

int main(int argc, char *argv[])
{
	struct ss_config config = { 0 };

	parse(&config, argc, argv);
	return demo_run("server", &config, ss_serve_forever);
}
