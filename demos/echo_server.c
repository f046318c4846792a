/*
 * The echo server: any transport, any model, and what the library lets a
 * program choose, as options.  It is made of a table of options, a table of
 * models, and a layer of its own that tells what happens (-v).
 *
 *	echo_server -m threading	then, elsewhere: echo_client
 *	echo_server --help
 */
#include "demo.h"

#include <ctype.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <unistd.h>

#include "handlers.h"

#define PROGRAM "echo_server"

enum { BESIDE_MAX = 2 };
enum proxy_wanted { PROXY_NO, PROXY_REQUIRED, PROXY_OPTIONAL };

struct settings {
	struct ss_config config;
	struct ss_socket_options sockets;
	struct ss_prefork_options prefork;
	struct ss_access_options access;
	struct ss_limits_options limits;
	struct ss_proxy_options proxy;
	struct ss_record_options record;
	int proxy_wanted; /* enum proxy_wanted */
	struct ss_log_options log;
	bool log_wanted;
	bool whoami;
	const char *metrics; /* where its figures are; NULL: nowhere */
	bool metrics_drain;
	struct ss_metrics_page page;
	const char *control; /* a path; NULL: none */
	char control_url[SS_ADDRESS_TEXT];
	struct ss_control controlled;
	struct ss_config beside[BESIDE_MAX]; /* servers that tell of this one */
	int beside_count;
	struct ss_server *servers[1 + BESIDE_MAX]; /* this is the first */
	const char *model;
	bool verbose;
	bool trace;
	bool loop;
	bool from_stdin;
	const char *name;
	struct ss_privileges privileges;
	struct ss_run_options run;
};

SS_PRINTF(1, 2)
_Noreturn static void wrong_use(const char *fmt, ...)
{
	va_list args;

	fputs(PROGRAM ": ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

/* What -m knows; a mixin of yours is a line here. */
static const struct model {
	const char *name;
	const struct ss_layer *mixin; /* NULL: base serves, one at a time */
} models[] = {
	{ "sync", NULL },
	{ "threading", &ss_threading_mixin },
	{ "forking", &ss_forking_mixin },
	{ "pool", &ss_pool_mixin },
	{ "fiber", &ss_fiber_mixin },
	{ "prefork", &ss_prefork_mixin },
};

enum { MODELS = sizeof(models) / sizeof(models[0]) };

/* Adds to the text in buf; what has no room is cut off. */
static void append(char *buf, size_t size, const char *text)
{
	size_t used = strlen(buf);

	snprintf(buf + used, size - used, "%s", text);
}

static void list_models(char *buf, size_t size)
{
	for (size_t i = 0; i < MODELS; i++) {
		append(buf, size, i > 0 ? ", " : "");
		append(buf, size, models[i].name);
	}
}

static const struct model *find_model(const char *name, size_t len)
{
	for (size_t i = 0; i < MODELS; i++)
		if (strlen(models[i].name) == len &&
		    memcmp(models[i].name, name, len) == 0)
			return &models[i];
	char known[256] = "";

	list_models(known, sizeof(known));
	wrong_use("unknown model '%.*s'; there are: %s", (int)len, name, known);
}

static void use_mixin(struct settings *settings, const struct ss_layer *mixin)
{
	struct ss_use *use = settings->config.mixins;

	while (use->layer != NULL)
		use++;
	if (use == &settings->config.mixins[SS_MIXINS_MAX])
		wrong_use("--model '%s': too many", settings->model);
	use->layer = mixin;
	if (mixin == &ss_prefork_mixin)
		use->options = &settings->prefork;
	if (mixin == &ss_access_mixin)
		use->options = &settings->access;
	if (mixin == &ss_limits_mixin)
		use->options = &settings->limits;
	if (mixin == &ss_proxy_mixin)
		use->options = &settings->proxy;
	if (mixin == &ss_record_mixin)
		use->options = &settings->record;
}

/* A list, leftmost first, as Python lists base classes. */
static void use_models(struct settings *settings)
{
	const char *name = settings->model;

	for (;;) {
		size_t len = strcspn(name, ",:");
		const struct model *model = find_model(name, len);

		if (model->mixin != NULL)
			use_mixin(settings, model->mixin);
		if (name[len] == '\0')
			return;
		name += len + 1;
	}
}

/* Tells what happens (-v), and calls super. */
static const struct ss_layer verbose_layer;

static int verbose_get_request(struct ss_server *server,
			       struct ss_listener *listener,
			       struct ss_request **req)
{
	const struct ss_ops *super = ss_super(server, &verbose_layer);
	int err = super->get_request(server, listener, req);
	char peer[SS_ADDRESS_TEXT];

	if (err >= 0)
		ss_log(server, SS_LOG_INFO, ss_request_id(*req),
		       "request from %s",
		       ss_peer_name(*req, peer, sizeof(peer)));
	return err;
}

/* Here and not in end_request: a child counts its bytes for itself. */
static int verbose_finish_request(struct ss_server *server,
				  struct ss_request *req)
{
	int err = ss_super(server, &verbose_layer)->finish_request(server, req);
	uint64_t in, out;

	ss_request_bytes(req, &in, &out);
	ss_log(server, SS_LOG_INFO, ss_request_id(req),
	       "%llu bytes in, %llu bytes out", (unsigned long long)in,
	       (unsigned long long)out);
	return err;
}

static void verbose_end_request(struct ss_server *server,
				struct ss_request *req, int status)
{
	ss_log(server, SS_LOG_INFO, ss_request_id(req), "end, status %d",
	       status);
	ss_super(server, &verbose_layer)->end_request(server, req, status);
}

static const struct ss_layer verbose_layer = {
	.name = "verbose",
	.ops.get_request = verbose_get_request,
	.ops.finish_request = verbose_finish_request,
	.ops.end_request = verbose_end_request,
};

struct choice {
	const char *name; /* NULL: the end */
	int value;
};

/* An option, and where in struct settings its value goes. */
struct option_row {
	const char *name;
	char letter;	      /* 0: long only */
	const char *argument; /* as --help calls it; NULL: takes none */
	const char *help;
	void (*set)(const struct option_row *row, const char *text,
		    void *value);
	size_t offset;
	int min, max;
	int zero; /* seconds: what 0 stands for */
	const struct choice *choices;
};

_Noreturn static void wrong_value(const struct option_row *row,
				  const char *text, const char *expected)
{
	wrong_use("--%s '%s': %s", row->name, text, expected);
}

static void set_true(const struct option_row *row, const char *text,
		     void *value)
{
	(void)row;
	(void)text;
	*(bool *)value = true;
}

static void set_text(const struct option_row *row, const char *text,
		     void *value)
{
	(void)row;
	*(const char **)value = text;
}

/* Digits of the base and nothing else; no sign, no space, no 0x. */
static bool parse_number(const char *text, const char *digits, int base,
			 long *number)
{
	if (*text == '\0' || text[strspn(text, digits)] != '\0')
		return false;
	errno = 0;
	*number = strtol(text, NULL, base);
	return errno == 0;
}

static void set_number(const struct option_row *row, const char *text,
		       void *value)
{
	char expected[80];
	long number;

	snprintf(expected, sizeof(expected),
		 "expected a whole number from %d to %d", row->min, row->max);
	if (!parse_number(text, "0123456789", 10, &number) ||
	    number < row->min || number > row->max)
		wrong_value(row, text, expected);
	*(int *)value = (int)number;
}

/* Seconds with or without a fraction, to ms; the least above 0 is 1 ms. */
static void set_seconds(const struct option_row *row, const char *text,
			void *value)
{
	char *end = NULL;
	double seconds = strtod(text, &end);

	if (!isdigit((unsigned char)text[0]) || *end != '\0' ||
	    text[strspn(text, "0123456789.")] != '\0' ||
	    seconds > INT_MAX / 1000)
		wrong_value(row, text, "expected seconds, such as 2 or 0.5");
	int ms = (int)(seconds * 1000 + 0.5);

	if (seconds <= 0)
		*(int *)value = row->zero;
	else
		*(int *)value = ms > 0 ? ms : 1;
}

static void set_choice(const struct option_row *row, const char *text,
		       void *value)
{
	char expected[80] = "expected one of";

	for (const struct choice *c = row->choices; c->name != NULL; c++) {
		if (strcmp(c->name, text) == 0) {
			*(int *)value = c->value;
			return;
		}
		append(expected, sizeof(expected), " ");
		append(expected, sizeof(expected), c->name);
	}
	wrong_value(row, text, expected);
}

static void set_mode(const struct option_row *row, const char *text,
		     void *value)
{
	struct ss_socket_options *sockets = value;
	long mode;

	if (!parse_number(text, "01234567", 8, &mode) || mode > 07777)
		wrong_value(row, text, "expected octal digits, such as 0660");
	sockets->set_mode = true;
	sockets->mode = (mode_t)mode;
}

static const struct choice log_places[] = {
	{ "stderr", SS_LOG_TO_STDERR },	  { "plain", SS_LOG_TO_PLAIN },
	{ "journal", SS_LOG_TO_JOURNAL }, { "syslog", SS_LOG_TO_SYSLOG },
	{ "json", SS_LOG_TO_JSON },	  { NULL, 0 },
};

/* One of them, those with a path as json:/var/log/echo.json too. */
static void set_log_to(const struct option_row *row, const char *text,
		       void *value)
{
	struct settings *settings = value;
	size_t len = strcspn(text, ":");
	const char *path = text[len] == ':' ? text + len + 1 : NULL;

	for (const struct choice *c = log_places; c->name != NULL; c++) {
		bool takes = c->value >= SS_LOG_TO_SYSLOG;

		if (strlen(c->name) != len || memcmp(c->name, text, len) != 0 ||
		    (path != NULL && !(takes && *path == '/')))
			continue;
		settings->log.to = (enum ss_log_to)c->value;
		settings->log.path = path;
		settings->log_wanted = true;
		return;
	}
	wrong_value(row, text,
		    "expected stderr, plain, journal, syslog, json, "
		    "syslog:/PATH or json:/PATH");
}

static void show_version(const struct option_row *row, const char *text,
			 void *value);
static void show_help(const struct option_row *row, const char *text,
		      void *value);

static const struct choice levels[] = {
	{ "error", SS_LOG_ERROR }, { "warning", SS_LOG_WARNING },
	{ "info", SS_LOG_INFO },   { "debug", SS_LOG_DEBUG },
	{ "none", SS_NONE },	   { NULL, 0 },
};

static const struct choice policies[] = {
	{ "wait", SS_FULL_WAIT },
	{ "queue", SS_FULL_QUEUE },
	{ "refuse", SS_FULL_REFUSE },
	{ NULL, 0 },
};

static const struct choice proxies[] = {
	{ "required", PROXY_REQUIRED },
	{ "optional", PROXY_OPTIONAL },
	{ NULL, 0 },
};

#define AT(member) offsetof(struct settings, member)

static const struct option_row rows[] = {
	{ "model", 'm', "MODEL", "how requests are served (sync)", set_text,
	  .offset = AT(model) },
	{ "workers", 0, "N", "processes of prefork (one a processor)",
	  set_number, .offset = AT(prefork.workers), .min = 1, .max = 10000 },
	{ "loop", 0, NULL, "the handler as a straight loop", set_true,
	  .offset = AT(loop) },
	{ "once", 0, NULL, "serve one request, then exit", set_true,
	  .offset = AT(run.once) },
	{ "timeout", 0, "SECONDS", "a read or write may take; 0: for ever",
	  set_seconds, .offset = AT(config.timeouts.io_ms), .zero = SS_NONE },
	{ "idle", 0, "SECONDS", "a client may be silent between messages",
	  set_seconds, .offset = AT(config.timeouts.idle_ms), .zero = SS_NONE },
	{ "total", 0, "SECONDS", "a connection may last", set_seconds,
	  .offset = AT(config.timeouts.total_ms), .zero = SS_NONE },
	{ "drain", 0, "SECONDS", "clients have to end when it stops (10)",
	  set_seconds, .offset = AT(config.drain_ms), .zero = 1 },
	{ "max-active", 0, "N", "requests served at a time", set_number,
	  .offset = AT(config.max_active), .min = 1, .max = INT_MAX },
	{ "full", 0, "WHAT", "beyond those: wait, queue or refuse", set_choice,
	  .offset = AT(config.full), .choices = policies },
	{ "backlog", 0, "N", "clients that may wait in the kernel", set_number,
	  .offset = AT(sockets.request_queue_size), .min = 1, .max = INT_MAX },
	{ "max-packet", 0, "N", "bytes of a datagram; longer ones are cut",
	  set_number, .offset = AT(sockets.max_packet_size), .min = 1,
	  .max = 65535 },
	{ "reuse-port", 0, NULL, "let other servers bind the port too",
	  set_true, .offset = AT(sockets.reuse_port) },
	{ "mode", 0, "OCTAL", "of a Unix socket's file", set_mode,
	  .offset = AT(sockets) },
	{ "allow", 0, "LIST", "serve these clients only: 10.0.0.0/8,::1",
	  set_text, .offset = AT(access.allow) },
	{ "deny", 0, "LIST", "and not these; the closer match counts", set_text,
	  .offset = AT(access.deny) },
	{ "per-source", 0, "N", "requests of one address at a time", set_number,
	  .offset = AT(limits.max_per_source), .min = 1, .max = INT_MAX },
	{ "rate", 0, "N", "requests in a second", set_number,
	  .offset = AT(limits.rate), .min = 1, .max = INT_MAX },
	{ "source-rate", 0, "N", "requests of one address in a second",
	  set_number, .offset = AT(limits.source_rate), .min = 1,
	  .max = INT_MAX },
	{ "proxy", 0, "WHEN", "PROXY headers are required or optional",
	  set_choice, .offset = AT(proxy_wanted), .choices = proxies },
	{ "proxy-trust", 0, "LIST", "of these, such as 10.0.0.1,::1", set_text,
	  .offset = AT(proxy.trusted) },
	{ "proxy-timeout", 0, "SECONDS", "they may take to come (5)",
	  set_seconds, .offset = AT(config.timeouts.handshake_ms),
	  .zero = SS_NONE },
	{ "whoami", 0, NULL, "answer WHOAMI by the client's address", set_true,
	  .offset = AT(whoami) },
	{ "metrics", 0, "ADDRESS", "serve figures by HTTP: a page, /metrics",
	  set_text, .offset = AT(metrics) },
	{ "metrics-drain", 0, NULL, "with a button there that stops the server",
	  set_true, .offset = AT(metrics_drain) },
	{ "control", 0, "PATH", "a Unix socket for ssctl", set_text,
	  .offset = AT(control) },
	{ "record", 0, "FILE", "write what is said to it, for ss-replay",
	  set_text, .offset = AT(record.path) },
	{ "stdin", 0, NULL, "serve descriptor 0: for inetd, tcpserver",
	  set_true, .offset = AT(from_stdin) },
	{ "name", 0, "NAME", "of those sockets of systemd's that are meant",
	  set_text, .offset = AT(name) },
	{ "user", 0, "USER", "whom it becomes once it listens", set_text,
	  .offset = AT(privileges.user) },
	{ "group", 0, "GROUP", "the same (that of the user)", set_text,
	  .offset = AT(privileges.group) },
	{ "chroot", 0, "DIR", "what is / then", set_text,
	  .offset = AT(privileges.chroot) },
	{ "no-new-privs", 0, NULL, "never has more privileges", set_true,
	  .offset = AT(privileges.no_new_privs) },
	{ "verbose", 'v', NULL, "tell connects, bytes, ends", set_true,
	  .offset = AT(verbose) },
	{ "trace", 0, NULL, "tell every operation", set_true,
	  .offset = AT(trace) },
	{ "log", 0, "LEVEL", "error, warning, info, debug or none", set_choice,
	  .offset = AT(config.log_level), .choices = levels },
	{ "log-to", 0, "WHERE", "stderr, journal, syslog, json, json:/PATH",
	  set_log_to, .offset = 0 },
	{ "version", 'V', NULL, "show the version", .set = show_version },
	{ "help", 'h', NULL, "show this", .set = show_help },
};

#undef AT

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

_Noreturn static void exit_flushed(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		exit(EXIT_SUCCESS);
	fprintf(stderr, PROGRAM ": standard output: %s\n", strerror(errno));
	exit(EXIT_FAILURE);
}

static void show_version(const struct option_row *row, const char *text,
			 void *value)
{
	(void)row;
	(void)text;
	(void)value;
	printf(PROGRAM " %s\n", ss_version());
	exit_flushed();
}

static void show_help(const struct option_row *row, const char *text,
		      void *value)
{
	char known[256] = "";

	(void)text;
	(void)value;
	list_models(known, sizeof(known));
	printf("usage: " PROGRAM " [OPTION]... [ADDRESS]...\n"
	       "Sends back what clients send, at every ADDRESS (default %s).\n"
	       "MODEL: one of %s; prefork,threading is both\n",
	       DEMO_ADDRESS, known);
	for (row = rows; row < rows + ROWS; row++)
		printf("  %c%c%c --%-12s %-8s %s\n", row->letter ? '-' : ' ',
		       row->letter ? row->letter : ' ', row->letter ? ',' : ' ',
		       row->name, row->argument ? row->argument : "",
		       row->help);
	exit_flushed();
}

static const struct option_row *find_row(int code)
{
	for (const struct option_row *row = rows; row < rows + ROWS; row++)
		if (row->letter == code || code == UCHAR_MAX + 1 + (row - rows))
			return row;
	exit(2); /* getopt_long has said what is wrong */
}

/* The table as getopt_long wants it; codes beyond a char are row numbers. */
static void parse_options(struct settings *settings, int argc, char *argv[])
{
	struct option options[ROWS + 1] = { { NULL, 0, NULL, 0 } };
	char letters[2 * ROWS + 1] = "";
	int code;

	for (int i = 0; i < ROWS; i++) {
		const char letter[] = { rows[i].letter, '\0' };
		bool takes = rows[i].argument != NULL;

		options[i].name = rows[i].name;
		options[i].has_arg = takes ? required_argument : no_argument;
		options[i].val = UCHAR_MAX + 1 + i;
		append(letters, sizeof(letters), letter);
		if (takes && rows[i].letter != 0)
			append(letters, sizeof(letters), ":");
	}
	while ((code = getopt_long(argc, argv, letters, options, NULL)) != -1) {
		const struct option_row *row = find_row(code);

		row->set(row, optarg, (char *)settings + row->offset);
	}
}

static void parse_addresses(struct settings *settings, int count, char *argv[])
{
	if (count > SS_ADDRESSES_MAX)
		wrong_use("%d addresses, at most %d", count, SS_ADDRESSES_MAX);
	for (int i = 0; i < count; i++)
		settings->config.addresses[i] = argv[i];
}

/* In the order in which they are asked. */
static void use_guards(struct settings *settings)
{
	const struct ss_limits_options *limits = &settings->limits;

	settings->proxy.optional = settings->proxy_wanted == PROXY_OPTIONAL;
	if (settings->proxy.trusted != NULL &&
	    settings->proxy_wanted == PROXY_NO)
		wrong_use("--proxy-trust is for --proxy");
	if (settings->proxy_wanted != PROXY_NO)
		use_mixin(settings, &ss_proxy_mixin);
	if (settings->metrics != NULL || settings->control != NULL)
		use_mixin(settings, &ss_metrics_mixin);
	if (settings->access.allow != NULL || settings->access.deny != NULL)
		use_mixin(settings, &ss_access_mixin);
	if (limits->max_per_source != 0 || limits->rate != 0 ||
	    limits->source_rate != 0)
		use_mixin(settings, &ss_limits_mixin);
}

/* Before anything listens; they are dropped when all does. */
static void check_privileges(const struct settings *settings)
{
	struct ss_diag why;

	if (ss_check_privileges(&settings->privileges, &why) < 0)
		wrong_use("%s", why.text);
}

/* This process: by its signal, as by hand. */
static void drain(void *arg)
{
	(void)arg;
	kill(getpid(), SIGTERM);
}

/* A server of its own beside this one: fibers on the serving thread, which keep
 * nobody waiting. */
static struct ss_config *begin_beside(struct settings *settings,
				      const char *address,
				      const struct ss_handler *handler,
				      void *user)
{
	static const struct ss_fiber_options one_loop = { .loops = 1 };
	struct ss_config *config = &settings->beside[settings->beside_count++];

	*config = (struct ss_config){
		.addresses = { address },
		.mixins = { { &ss_fiber_mixin, &one_loop } },
		.handler = handler,
		.user = user,
	};
	return config;
}

static void use_metrics(struct settings *settings)
{
	struct ss_metrics_page *page = &settings->page;

	if (settings->metrics_drain && settings->metrics == NULL)
		wrong_use("--metrics-drain is for --metrics");
	if (settings->metrics == NULL)
		return;
	if (settings->run.once || settings->from_stdin)
		wrong_use("--metrics is for servers that stay");
	begin_beside(settings, settings->metrics, &ss_metrics_handler, page)
		->max_active = 64;
	page->servers = settings->servers;
	page->count = 1;
	if (settings->metrics_drain)
		page->drain = drain;
}

static void use_control(struct settings *settings)
{
	static const struct ss_socket_options private = { .set_mode = true,
							  .mode = 0600 };
	struct ss_config *config;

	if (settings->control == NULL)
		return;
	if (settings->run.once || settings->from_stdin)
		wrong_use("--control is for servers that stay");
	snprintf(settings->control_url, sizeof(settings->control_url),
		 "unix:%s", settings->control);
	config = begin_beside(settings, settings->control_url,
			      &ss_control_handler, &settings->controlled);
	config->transport = &ss_unix_stream_server;
	config->transport_options = &private;
	config->max_active = 16;
	config->full = SS_FULL_REFUSE;
	config->refusal = "error: too many are in control\n";
	settings->controlled.servers = settings->servers;
	settings->controlled.count = 1;
	settings->controlled.drain = drain;
}

static int adopt_main(struct settings *settings, struct ss_diag *why)
{
	return ss_start_adopt(settings->run.start, settings->name,
			      &settings->config, why);
}

static int adopt_beside(struct settings *settings, struct ss_diag *why)
{
	for (int i = 0; i < settings->beside_count; i++)
		if (ss_start_adopt(settings->run.start, NULL,
				   &settings->beside[i], why) < 0)
			return -1;
	return 0;
}

/* What systemd, inetd or tcpserver gives takes the place of addresses. */
static void adopt(struct settings *settings)
{
	struct ss_config *config = &settings->config;
	struct ss_start **start = &settings->run.start;
	enum ss_start_mode mode =
		settings->from_stdin ? SS_START_STDIN : SS_START_AUTO;
	/* The one that takes whatever is left comes last. */
	const bool first = config->addresses[0] != NULL;
	struct ss_diag why;

	if (ss_start_new(start, mode, &why) < 0 ||
	    (first && adopt_main(settings, &why) < 0) ||
	    adopt_beside(settings, &why) < 0 ||
	    (!first && adopt_main(settings, &why) < 0) ||
	    ss_start_left(*start, &why) > 0)
		wrong_use("%s", why.text);
	if (config->addresses[0] == NULL && !config->no_bind)
		config->addresses[0] = DEMO_ADDRESS;
}

/* Before there are servers. */
static struct ss_log_sink *open_log(struct settings *settings)
{
	struct ss_config *config = &settings->config;
	struct ss_log_sink *sink;
	struct ss_diag why;

	if (!settings->log_wanted)
		return NULL;
	if (ss_log_sink_new(&sink, &settings->log, &why) < 0) {
		fprintf(stderr, PROGRAM ": --log-to: %s\n", why.text);
		exit(why.code == -EINVAL ? 2 : EXIT_FAILURE);
	}
	config->log = ss_log_sink_write;
	config->log_arg = sink;
	return sink;
}

/* What looks on stands leftmost, so that it sees all. */
static void compose(struct settings *settings)
{
	int wanted = settings->trace	 ? SS_LOG_DEBUG
		     : settings->verbose ? SS_LOG_INFO
					 : settings->config.log_level;

	if (settings->trace)
		use_mixin(settings, &ss_trace_mixin);
	if (settings->verbose)
		use_mixin(settings, &verbose_layer);
	if (settings->record.path != NULL)
		use_mixin(settings, &ss_record_mixin);
	use_guards(settings);
	use_models(settings);
	if (settings->config.log_level < wanted)
		settings->config.log_level = wanted;
	if (settings->loop)
		settings->config.handler = &ss_echo_loop_handler;
	if (settings->whoami)
		settings->config.handler = &ss_whoami_handler;
	settings->config.transport_options = &settings->sockets;
}

/* All log to the same place. */
static int serve(struct settings *settings)
{
	const struct ss_config *configs[1 + BESIDE_MAX] = { &settings->config };

	for (int i = 0; i < settings->beside_count; i++) {
		struct ss_config *config = &settings->beside[i];

		config->log_level = settings->config.log_level;
		config->log = settings->config.log;
		config->log_arg = settings->config.log_arg;
		configs[1 + i] = config;
	}
	return demo_run_all(PROGRAM, settings->servers, configs,
			    1 + settings->beside_count, &settings->run);
}

int main(int argc, char *argv[])
{
	struct settings settings = {
		.config.handler = &ss_echo_handler,
		.config.refusal = "busy, try again later\n",
		.limits.refusal = "too many, try again later\n",
		.log.ident = PROGRAM,
		.model = "sync",
	};

	parse_options(&settings, argc, argv);
	parse_addresses(&settings, argc - optind, argv + optind);
	check_privileges(&settings);
	use_metrics(&settings);
	use_control(&settings);
	adopt(&settings);
	settings.run.privileges = &settings.privileges;
	settings.run.argv = argv;
	compose(&settings);
	struct ss_log_sink *sink = open_log(&settings);
	int status = serve(&settings);

	ss_log_sink_free(sink);
	ss_start_free(settings.run.start);
	return status;
}
