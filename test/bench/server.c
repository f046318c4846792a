/*
 * Our server as the benchmark wants it: an echo handler of one's choice, under
 * any model, the sizes of those that have some, and with all guards or none.
 *
 *	server -m threading -H loop -g tcp://127.0.0.1:0
 */
#include "../../demos/demo.h"

#include <getopt.h>
#include <limits.h>

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

/* Of the models that have some; what is 0 is their default. */
struct sizes {
	struct ss_fiber_options fiber;
	struct ss_pool_options pool;
	struct ss_prefork_options prefork;
};

static struct ss_use find_model(const char *name, size_t len,
				const struct sizes *sizes)
{
	const struct {
		const char *name;
		struct ss_use use;
	} models[] = {
		{ "sync", { NULL, NULL } },
		{ "threading", { &ss_threading_mixin, NULL } },
		{ "forking", { &ss_forking_mixin, NULL } },
		{ "pool", { &ss_pool_mixin, &sizes->pool } },
		{ "prefork", { &ss_prefork_mixin, &sizes->prefork } },
		{ "fiber", { &ss_fiber_mixin, &sizes->fiber } },
	};

	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
		if (strlen(models[i].name) == len &&
		    memcmp(models[i].name, name, len) == 0)
			return models[i].use;
	wrong("model", name);
}

/* MODEL:MODEL, leftmost first; `to` is where there is room. */
static void use_models(struct ss_use *to, int room, const char *names,
		       const struct sizes *sizes)
{
	for (int i = 0; i < room; i++) {
		const size_t len = strcspn(names, ":");

		to[i] = find_model(names, len, sizes);
		if (names[len] == '\0')
			return;
		names += len + 1;
	}
}

/* ---- guards --------------------------------------------------------------*/

/* What a daemon has in front of its handler: of each, all that its clients can
 * pass. */
enum { GUARDS = 3 };
static const struct ss_access_options access_lists = {
	.allow = "127.0.0.0/8,::1",
	.deny = "192.0.2.0/24",
};
static const struct ss_limits_options limits = {
	.max_per_source = INT_MAX,
	.rate = INT_MAX,
	.source_rate = INT_MAX,
};
static const struct ss_use guards[GUARDS] = {
	{ &ss_metrics_mixin, NULL },
	{ &ss_access_mixin, &access_lists },
	{ &ss_limits_mixin, &limits },
};

/* Its handlers take none. */
static const struct ss_socket_options socket_options = {
	.no_descriptors = true,
};

/* They stand leftmost.  How many there are. */
static int use_guards(struct ss_config *config)
{
	memcpy(config->mixins, guards, sizeof(guards));
	config->log_level = SS_LOG_INFO;
	return GUARDS;
}

/* ---- the program ---------------------------------------------------------*/

struct settings {
	struct ss_config config;
	struct sizes sizes;
	const char *model, *handler;
	bool guarded;
};

_Noreturn static void wrong_use(void)
{
	fputs("usage: server [-m MODEL[:MODEL]] [-H echo|loop|lend]\n"
	      "              [-l LOOPS] [-t THREADS] [-w WORKERS]\n"
	      "              [-x MAX-ACTIVE] [-g] ADDRESS\n",
	      stderr);
	exit(2);
}

static int number(const char *text)
{
	char *end;
	const long value = strtol(text, &end, 10);

	if (end == text || *end != '\0' || value < 0 || value > INT_MAX)
		wrong_use();
	return (int)value;
}

static void parse(struct settings *settings, int argc, char *argv[])
{
	int option;

	while ((option = getopt(argc, argv, "m:H:l:t:w:x:g")) != -1)
		switch (option) {
		case 'm':
			settings->model = optarg;
			break;
		case 'H':
			settings->handler = optarg;
			break;
		case 'l':
			settings->sizes.fiber.loops = number(optarg);
			break;
		case 't':
			settings->sizes.pool.threads = number(optarg);
			break;
		case 'w':
			settings->sizes.prefork.workers = number(optarg);
			break;
		case 'x':
			settings->config.max_active = number(optarg);
			break;
		case 'g':
			settings->guarded = true;
			break;
		default:
			wrong_use();
		}
	if (optind != argc - 1)
		wrong_use();
	settings->config.addresses[0] = argv[optind];
}

int main(int argc, char *argv[])
{
	struct settings settings = { .model = "sync", .handler = "echo" };
	struct ss_config *config = &settings.config;

	parse(&settings, argc, argv);
	config->handler = find_handler(settings.handler);
	config->transport_options = &socket_options;
	int first = settings.guarded ? use_guards(config) : 0;
	use_models(config->mixins + first, SS_MIXINS_MAX - first,
		   settings.model, &settings.sizes);
	return demo_run("server", config, NULL);
}
