/*
 * A simulation's run: one agenda for all that clients and the network do, and a
 * server that is turned until it has nothing to do.  Then, and by lot before,
 * the next entry happens; time is that of the entry.
 *
 * Nothing here asks the system for time, chance, or an order of addresses.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../diag.h"
#include "simulation.h"

enum {
	LATENCY_MS = 20,
	WINDOW = 65536,
	STACK_SIZE = 65536,
	STEPS_MOST = 1000000, /* without time going on */
	TURNS_MOST = 1000000, /* without a client doing anything */
	OWN_LAYERS = 3,
	LINE = 512,
	NUMBER_BITS = 40,
};

static const int64_t NEVER = INT64_MAX;

/* ---- what is told ---------------------------------------------------------*/

/* FNV-1a. */
void sim_mix(struct ss_sim *sim, const void *data, size_t n)
{
	const unsigned char *bytes = data;
	for (size_t i = 0; i < n; i++)
		sim->digest = (sim->digest ^ bytes[i]) * 0x100000001b3;
}

static void tell(struct ss_sim *sim, const char *line)
{
	sim_mix(sim, line, strlen(line) + 1);
	if (sim->options.trace)
		sim->options.trace(sim->options.arg, line);
}

void sim_note(struct ss_sim *sim, const char *who, int number, const char *fmt,
	      ...)
{
	char line[LINE];
	long long now = ss_now(sim->server);
	int n = who ? snprintf(line, sizeof(line), "%lld %s %d ", now, who,
			       number)
		    : snprintf(line, sizeof(line), "%lld ", now);
	va_list args;
	va_start(args, fmt);
	vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, args);
	va_end(args);
	tell(sim, line);
}

static void condemn(struct ss_sim *sim, int code, const char *fmt, va_list args)
{
	struct ss_diag *verdict = &sim->verdict;
	if (verdict->code)
		return;
	verdict->code = code;
	unsigned long long seed = sim->options.seed;
	long long now = ss_now(sim->server);
	int n = snprintf(verdict->text, sizeof(verdict->text),
			 "seed %llu, at %lld ms: ", seed, now);
	if (sim->current)
		n += snprintf(verdict->text + n,
			      sizeof(verdict->text) - (size_t)n,
			      "client %d: ", sim->current->number);
	vsnprintf(verdict->text + n, sizeof(verdict->text) - (size_t)n, fmt,
		  args);
	tell(sim, verdict->text);
}

void sim_fail(struct ss_sim *sim, int code, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	condemn(sim, code, fmt, args);
	va_end(args);
}

int ss_sim_fail(struct ss_sim *sim, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	condemn(sim, -EPROTO, fmt, args);
	va_end(args);
	if (sim->current)
		context_switch(&sim->current->context, sim->back);
	return -EPROTO;
}

uint64_t ss_sim_digest(const struct ss_sim *sim)
{
	return sim->digest;
}

struct ss_server *ss_sim_server(const struct ss_sim *sim)
{
	return sim->server;
}

/* ---- what happens ---------------------------------------------------------*/

void sim_after(struct ss_sim *sim, int64_t ms,
	       void (*happen)(void *what, uint64_t mark), void *what,
	       uint64_t mark)
{
	struct entry entry = {
		.at = ss_now(sim->server) + (ms > 0 ? ms : 0),
		.lot = dice_throw(&sim->dice),
		.happen = happen,
		.what = what,
		.mark = mark,
	};
	if (agenda_add(&sim->agenda, &entry) < 0)
		sim_fail(sim, -ENOMEM, "no memory for what is to happen");
}

int64_t sim_latency(struct ss_sim *sim)
{
	uint64_t most = (uint64_t)sim->options.latency_ms;
	/* Mostly less: much comes together, and some at once. */
	if (dice_below(&sim->dice, 2))
		most /= 8;
	return (int64_t)dice_below(&sim->dice, most + 1);
}

static void check(struct ss_sim *sim)
{
	if (sim->verdict.code || !sim->options.check)
		return;
	int r = sim->options.check(sim->options.arg, sim);
	if (r < 0)
		sim_fail(sim, r, "the check says: %s", strerror(-r));
}

/* The next entry, if its time comes no later than that (SS_NONE). */
static bool step(struct ss_sim *sim, int64_t until)
{
	const struct entry *first = agenda_first(&sim->agenda);
	if (sim->verdict.code || !sim->running || !first ||
	    (until != SS_NONE && first->at > until))
		return false;
	struct entry entry = agenda_take(&sim->agenda);
	ss_clock_set(sim->server, entry.at);
	if (sim->stood_since != ss_now(sim->server)) {
		sim->stood_since = ss_now(sim->server);
		sim->steps = 0;
	} else if (++sim->steps > STEPS_MOST) {
		sim_fail(sim, -ELOOP, "clients go on without time");
	}
	sim->idle_turns = 0;
	entry.happen(entry.what, entry.mark);
	check(sim);
	return true;
}

static bool all_over(const struct ss_sim *sim)
{
	return !sim->left && !agenda_first(&sim->agenda) && !sim->live;
}

/* Nothing is left to happen, and no time-out to come. */
static void judge(struct ss_sim *sim)
{
	const struct ss_sim_client *client = sim->clients;
	while (client && (client->ended || !client->stack))
		client = client->next;
	if (client)
		sim_fail(sim, -EDEADLK, "client %d waits for ever",
			 client->number);
	else if (sim->live)
		sim_fail(sim, -EDEADLK, "requests that wait for ever: %d",
			 sim->live);
}

/* The clock's `idle`. */
static bool next_happens(void *arg, struct ss_server *server, int64_t until)
{
	struct ss_sim *sim = arg;
	if (step(sim, until))
		return true;
	if (until != SS_NONE)
		return false;
	judge(sim);
	if (!sim->closing)
		return false;
	/* It would wait in earnest: now it ends all. */
	ss_shutdown(server);
	return true;
}

/* ---- what the server does -------------------------------------------------*/

static const struct ss_layer sim_layer;

static struct ss_sim *sim_of(struct ss_server *server)
{
	return *(struct ss_sim **)ss_layer_state(server, &sim_layer);
}

/* The number among its server's; above it is which server that is. */
static int number_of(const struct ss_request *req)
{
	uint64_t number = ss_request_id(req);
	return (int)(number & (((uint64_t)1 << NUMBER_BITS) - 1));
}

static int sim_init(struct ss_server *server, const void *options)
{
	struct ss_sim *const *given = options;
	*(struct ss_sim **)ss_layer_state(server, &sim_layer) = *given;
	(*given)->server = server;
	return 0;
}

static int sim_get_request(struct ss_server *server,
			   struct ss_listener *listener,
			   struct ss_request **req)
{
	struct ss_sim *sim = sim_of(server);
	int r = ss_super(server, &sim_layer)
			->get_request(server, listener, req);
	if (r < 0)
		return r;
	sim->live++;
	sim_note(sim, "request", number_of(*req), "is accepted");
	return r;
}

static void sim_handle_error(struct ss_server *server, struct ss_request *req,
			     const struct ss_error *error)
{
	sim_note(sim_of(server), "request", req ? number_of(req) : 0,
		 "fails: %s", error->text);
	ss_super(server, &sim_layer)->handle_error(server, req, error);
}

static void sim_end_request(struct ss_server *server, struct ss_request *req,
			    int status)
{
	struct ss_sim *sim = sim_of(server);
	uint64_t in, out;
	ss_request_bytes(req, &in, &out);
	sim_note(sim, "request", number_of(req),
		 "has ended: %d, after %llu bytes in, %llu out", status,
		 (unsigned long long)in, (unsigned long long)out);
	sim->live--;
	ss_super(server, &sim_layer)->end_request(server, req, status);
}

/* Not finish_request: who overrides that keeps requests on their stacks. */
static const struct ss_layer sim_layer = {
	.name = "simulation",
	.server_size = sizeof(struct ss_sim *),
	.init = sim_init,
	.ops = {
		.get_request = sim_get_request,
		.handle_error = sim_handle_error,
		.end_request = sim_end_request,
	},
};

/* ---- the run --------------------------------------------------------------*/

static void close_server(struct ss_sim *sim)
{
	sim_note(sim, NULL, 0, "the server closes");
	sim->closing = true;
	int r = ss_server_close(sim->server);
	sim->closing = false;
	sim->closed = true;
	if (r < 0)
		sim_fail(sim, r, "the server is not closed: %s", strerror(-r));
	else if (r > 0)
		sim_fail(sim, -EDEADLK, "requests abandoned: %d", r);
	sim_note(sim, NULL, 0, "the server is closed");
	check(sim);
}

static void turn(struct ss_sim *sim, int64_t until)
{
	const struct entry *first;
	while ((first = agenda_first(&sim->agenda)) &&
	       first->at <= ss_now(sim->server) && dice_below(&sim->dice, 2) &&
	       step(sim, first->at))
		;
	int r = ss_server_turn(sim->server, until == SS_NONE ? NEVER : until);
	if (r == -ECANCELED)
		close_server(sim);
	else if (r < 0)
		sim_fail(sim, r, "the server's turn: %s", strerror(-r));
	else if (++sim->idle_turns > TURNS_MOST)
		sim_fail(sim, -ELOOP,
			 "the server turns, and nothing comes of "
			 "it");
	check(sim);
}

/* Without a server: what is left comes later, or there is nothing. */
static void go_to(struct ss_sim *sim, int64_t until)
{
	if (until == SS_NONE || !agenda_first(&sim->agenda))
		judge(sim);
	else
		ss_clock_set(sim->server, until);
}

static int run(struct ss_sim *sim, int64_t until)
{
	while (!sim->verdict.code) {
		if (all_over(sim) && sim->closed)
			return 0;
		if (all_over(sim))
			close_server(sim);
		else if (until != SS_NONE && ss_now(sim->server) >= until)
			return 1;
		else if (!sim->closed)
			turn(sim, until);
		else if (!step(sim, until))
			go_to(sim, until);
	}
	return sim->verdict.code;
}

int ss_sim_run(struct ss_sim *sim, int64_t until, struct ss_diag *why)
{
	sim->running = true;
	int r = run(sim, until);
	sim->running = false;
	if (why)
		*why = sim->verdict;
	return r;
}

/* ---- life -----------------------------------------------------------------*/

/* One thread, and no more: all that is random is here. */
static bool simulable(const struct ss_config *config)
{
	for (int i = 0; i < SS_MIXINS_MAX && config->mixins[i].layer; i++) {
		const struct ss_use *use = &config->mixins[i];
		unsigned flags = use->layer->flags;
		if (flags &
		    (SS_LAYER_THREADS | SS_LAYER_FORKS | SS_LAYER_SUPERVISES))
			return false;
		if ((flags & SS_LAYER_DISPATCHES) && !(flags & SS_LAYER_PARKS))
			return false;
	}
	return true;
}

static bool is_stream(const struct ss_config *config)
{
	const struct ss_layer *transport = config->transport;
	if (!transport && config->addresses[0])
		transport = ss_transport_for(config->addresses[0], NULL);
	return !transport || (transport->flags & SS_LAYER_STREAM);
}

static int put_layers(struct ss_config *config, const struct ss_use *own,
		      int count)
{
	int mixins = 0;
	while (mixins < SS_MIXINS_MAX && config->mixins[mixins].layer)
		mixins++;
	if (mixins + count > SS_MIXINS_MAX)
		return -EINVAL;
	memmove(config->mixins + count, config->mixins,
		(size_t)mixins * sizeof(*own));
	memcpy(config->mixins, own, (size_t)count * sizeof(*own));
	return 0;
}

static int make_server(struct ss_sim *sim, struct ss_config *config,
		       struct ss_diag *why)
{
	struct ss_clock_options clock = { .idle = next_happens, .arg = sim };
	struct ss_chaos_options *chaos = &sim->options.chaos;
	chaos->seed = sim->options.seed;
	struct ss_use own[OWN_LAYERS] = {
		{ &sim_layer, &sim },
		{ &ss_clock_mixin, &clock },
		{ &ss_chaos_mixin, chaos },
	};
	if (!simulable(config))
		return diag_refuse(
			why, -EINVAL,
			"simulation: one thread serves, by sync or fiber");
	config->transport = is_stream(config) ? &ss_memory_server
					      : &ss_memory_datagram_server;
	config->transport_options = NULL;
	memset(config->addresses, 0, sizeof(config->addresses));
	int count = sim->options.no_chaos ? OWN_LAYERS - 1 : OWN_LAYERS;
	if (put_layers(config, own, count) < 0)
		return diag_refuse(why, -EINVAL,
				   "simulation: no room for its layers");
	return ss_server_new(&sim->server, config, why);
}

static void take_options(struct ss_sim *sim,
			 const struct ss_sim_options *options, size_t size)
{
	if (options)
		memcpy(&sim->options, options,
		       size < sizeof(*options) ? size : sizeof(*options));
	if (!sim->options.latency_ms)
		sim->options.latency_ms = LATENCY_MS;
	if (!sim->options.window)
		sim->options.window = WINDOW;
	if (sim->options.latency_ms < 0)
		sim->options.latency_ms = 0;
	if (sim->options.window < 0)
		sim->options.window = 0;
	sim->dice = dice_of(sim->options.seed, UINT64_MAX);
	sim->digest = 0xcbf29ce484222325;
}

int ss_sim_new_sized(struct ss_sim **result, const struct ss_config *given,
		     size_t config_size, const struct ss_sim_options *options,
		     size_t options_size, struct ss_diag *why)
{
	*result = NULL;
	struct ss_config config = { 0 };
	if (config_size > sizeof(config) ||
	    options_size > sizeof(struct ss_sim_options))
		return diag_refuse(why, -E2BIG,
				   "simulation: made for a newer library");
	memcpy(&config, given, config_size);
	struct ss_sim *sim = sys_calloc(1, sizeof(*sim));
	if (!sim)
		return diag_refuse(why, -ENOMEM, "%s", strerror(ENOMEM));
	take_options(sim, options, options_size);
	int r = stacks_new(&sim->stacks, STACK_SIZE * TOOLS_STACKS);
	if (r < 0) {
		sys_free(sim);
		return diag_refuse(why, r, "%s", strerror(-r));
	}
	r = make_server(sim, &config, why);
	if (r < 0) {
		stacks_free(sim->stacks);
		agenda_free(&sim->agenda);
		sys_free(sim);
		return r;
	}
	*result = sim;
	return 0;
}

void ss_sim_free(struct ss_sim *sim)
{
	if (!sim)
		return;
	wires_free(sim);
	ss_server_free(sim->server);
	clients_free(sim);
	stacks_free(sim->stacks);
	agenda_free(&sim->agenda);
	sys_free(sim);
}
