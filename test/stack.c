/* All layers in each server; stack.h says when. */
#include "stack.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <socketserver/socketserver.h>

/* ld(1) has these two names. */
int __real_ss_server_new_sized(struct ss_server **server,
			       const struct ss_config *config, size_t size,
			       struct ss_diag *why);
int __wrap_ss_server_new_sized(struct ss_server **server,
			       const struct ss_config *config, size_t size,
			       struct ss_diag *why);

bool stacked(void)
{
	return getenv("SS_STACKED") != NULL;
}

static bool proxied(void)
{
	const char *which = getenv("SS_STACKED");
	return which && !strcmp(which, "proxy");
}

static void untold(void *arg, struct ss_server *server, uint64_t id,
		   const char *operation)
{
	(void)arg, (void)server, (void)id, (void)operation;
}

enum { PIECES = 6 };

/* What the test that runs does without. */
static const struct ss_layer *unwanted[PIECES];
static int unwanted_count;
static bool nothing_wanted;

static bool is_unwanted(const struct ss_layer *layer)
{
	for (int i = 0; i < unwanted_count; i++)
		if (unwanted[i] == layer)
			return true;
	return false;
}

void stack_without(const struct ss_layer *layer)
{
	if (!is_unwanted(layer) && unwanted_count < PIECES)
		unwanted[unwanted_count++] = layer;
}

void stack_nothing(void)
{
	nothing_wanted = true;
}

bool stack_has(const struct ss_layer *layer)
{
	bool above = layer == &ss_proxy_mixin || layer == &ss_trace_mixin;
	return (above ? proxied() : stacked()) && !nothing_wanted &&
	       !is_unwanted(layer);
}

/* Before `at`, unless it is there; where the next one may stand. */
static int put(struct ss_config *config, int at, const struct ss_layer *layer,
	       const void *options)
{
	struct ss_use *mixins = config->mixins;
	int count = 0;
	for (; count < SS_MIXINS_MAX && mixins[count].layer; count++)
		if (mixins[count].layer == layer)
			return count < at ? at : count + 1;
	if (count == SS_MIXINS_MAX || is_unwanted(layer))
		return at;
	memmove(mixins + at + 1, mixins + at,
		(size_t)(count - at) * sizeof(*mixins));
	mixins[at] = (struct ss_use){ layer, options };
	return at + 1;
}

static unsigned flags_of(const struct ss_config *config)
{
	const struct ss_layer *transport = config->transport;
	struct ss_diag why;
	if (!transport && config->addresses[0])
		transport = ss_transport_for(config->addresses[0], &why);
	return transport ? transport->flags : 0;
}

static bool takes_header(unsigned flags)
{
	const unsigned both = SS_LAYER_STREAM | SS_LAYER_SOCKET;
	return proxied() && (flags & both) == both;
}

const char *stack_described(const struct ss_layer *transport)
{
	if (!stacked() || nothing_wanted)
		return "";
	if (!proxied())
		return "record > metrics > access > limits > ";
	return takes_header(transport->flags)
		       ? "trace > record > proxy > metrics > access > limits > "
		       : "trace > record > metrics > access > limits > ";
}

/* What options lead to until the server is made. */
struct texts {
	char file[64], trusted[64];
	struct ss_record_options record;
	struct ss_proxy_options proxy;
};

static void write_texts(struct texts *texts, bool local)
{
	static atomic_int number;
	snprintf(texts->file, sizeof(texts->file), "/tmp/ss-stacked-%ld-%d.ssr",
		 (long)getpid(), atomic_fetch_add(&number, 1));
	snprintf(texts->trusted, sizeof(texts->trusted), "uid:%ld",
		 (long)geteuid());
	texts->record = (struct ss_record_options){ .path = texts->file,
						    .max_connection = SS_NONE,
						    .max_file = SS_NONE };
	texts->proxy.trusted = local ? texts->trusted : "127.0.0.0/8, ::1";
	texts->proxy.optional = true;
}

/* In the order that echo_server has them in: each client of a test passes all
 * of them. */
static void stack(struct ss_config *config, const struct texts *texts)
{
	static const struct ss_trace_options trace = {
		.kinds = SS_TRACE_SERVER | SS_TRACE_REQUEST | SS_TRACE_WAITS,
		.tell = untold,
	};
	static const struct ss_access_options access = {
		.deny = "240.0.0.0/4"
	};
	static const struct ss_limits_options limits = {
		.max_per_source = 1000000,
		.rate = 1000000000,
		.source_rate = 1000000000,
	};
	int at = 0;
	if (proxied())
		at = put(config, at, &ss_trace_mixin, &trace);
	at = put(config, at, &ss_record_mixin, &texts->record);
	if (proxied() && takes_header(flags_of(config)))
		at = put(config, at, &ss_proxy_mixin, &texts->proxy);
	at = put(config, at, &ss_metrics_mixin, NULL);
	at = put(config, at, &ss_access_mixin, &access);
	put(config, at, &ss_limits_mixin, &limits);
}

/* The record goes with the server. */
int __wrap_ss_server_new_sized(struct ss_server **server,
			       const struct ss_config *config, size_t size,
			       struct ss_diag *why)
{
	if (!stacked() || nothing_wanted || size != sizeof(*config))
		return __real_ss_server_new_sized(server, config, size, why);
	struct ss_config ours = *config;
	struct texts texts = { .file = "" };
	write_texts(&texts, proxied() && (flags_of(config) & SS_LAYER_UNIX));
	stack(&ours, &texts);
	int r = __real_ss_server_new_sized(server, &ours, size, why);
	unlink(texts.file);
	return r;
}
