/*
 * A simulation's clients: functions on stacks of their own, which wait by
 * switching back to whoever let them go on, and the wires between them and the
 * server, on which what they send is on its way for a while.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "simulation.h"

enum { TEXT = 4096, QUOTED = 60, PIECES = 8 };

enum parcel_kind { PARCEL_DATA, PARCEL_END, PARCEL_RESET, PARCEL_CLOSE };

struct parcel {
	struct parcel *next;
	enum parcel_kind kind;
	size_t n;
	unsigned char bytes[];
};

/* A connection, and what is on its way to the server, in order. */
struct wire {
	struct ss_sim *sim;
	struct wire *next;
	struct ss_sim_client *client;	 /* NULL: has let go */
	struct ss_memory_client *memory; /* NULL: closed */
	int number;			 /* its client's */
	struct parcel *first, **last;
	int64_t last_at; /* when the last of them arrives */
};

/* ---- going on, and waiting ------------------------------------------------*/

static void finish(struct ss_sim_client *client)
{
	ss_sim_close(client);
	sim_note(client->sim, "client", client->number, "returns");
	client->ended = true;
	client->sim->left--;
}

static void live(void *arg)
{
	struct ss_sim_client *client = arg;
	client->run(client, client->arg);
	finish(client);
	context_exit(&client->context, client->sim->back);
}

static void go_on(struct ss_sim_client *client)
{
	struct ss_sim *sim = client->sim;
	struct context here = { 0 }, *back = sim->back;
	struct ss_sim_client *current = sim->current;
	sim->back = &here;
	sim->current = client;
	context_switch(&here, &client->context);
	sim->back = back;
	sim->current = current;
	if (!client->ended)
		return;
	stacks_give(sim->stacks, client->stack);
	client->stack = NULL;
}

static void begin(void *what, uint64_t mark)
{
	(void)mark;
	struct ss_sim_client *client = what;
	struct ss_sim *sim = client->sim;
	client->stack = stacks_take(sim->stacks);
	if (!client->stack) {
		sim_fail(sim, -ENOMEM, "no stack for client %d",
			 client->number);
		return;
	}
	sim_note(sim, "client", client->number, "begins");
	context_init(&client->context, client->stack, stacks_size(sim->stacks),
		     live, client);
	go_on(client);
}

/* What ends a wait; later ones of the same are in vain. */
static void wake(void *what, uint64_t mark)
{
	struct ss_sim_client *client = what;
	if (!client->ended && client->waits == mark &&
	    client->pause != PAUSE_NONE)
		go_on(client);
}

/* Within the client: until `ms` have gone by (SS_NONE), or wake. */
static void wait_for(struct ss_sim_client *client, enum pause pause, int64_t ms)
{
	client->waits++;
	client->told = false;
	client->pause = pause;
	if (ms != SS_NONE)
		sim_after(client->sim, ms, wake, client, client->waits);
	context_switch(&client->context, client->sim->back);
	client->pause = PAUSE_NONE;
}

/* Under the memory's lock. */
static void answer_changed(void *arg)
{
	const struct wire *wire = arg;
	struct ss_sim_client *client = wire->client;
	if (!client || client->pause != PAUSE_INPUT || client->told)
		return;
	client->told = true;
	sim_after(wire->sim, sim_latency(wire->sim), wake, client,
		  client->waits);
}

/* ---- wires ----------------------------------------------------------------*/

static void close_memory(struct wire *wire)
{
	if (wire->memory)
		ss_memory_close(wire->memory);
	wire->memory = NULL;
}

static struct parcel *take_parcel(struct wire *wire)
{
	struct parcel *parcel = wire->first;
	if (!parcel)
		return NULL;
	wire->first = parcel->next;
	if (!wire->first)
		wire->last = &wire->first;
	return parcel;
}

static void arrive(void *what, uint64_t mark)
{
	(void)mark;
	static const char *const names[] = { "bytes", "its end", "its reset",
					     "its close" };
	struct wire *wire = what;
	struct parcel *parcel = take_parcel(wire);
	if (!parcel || !wire->memory) {
		sys_free(parcel);
		return;
	}
	sim_note(wire->sim, "client", wire->number, "delivers %s, %zu",
		 names[parcel->kind], parcel->n);
	switch (parcel->kind) {
	case PARCEL_DATA:
		sim_mix(wire->sim, parcel->bytes, parcel->n);
		ss_memory_send(wire->memory, parcel->bytes, parcel->n);
		break;
	case PARCEL_END:
		ss_memory_shutdown(wire->memory);
		break;
	case PARCEL_RESET:
		ss_memory_reset(wire->memory);
		close_memory(wire);
		break;
	case PARCEL_CLOSE:
		close_memory(wire);
		break;
	}
	sys_free(parcel);
}

/* After all that is on its way; with `overtakes`, before the last of it. */
static int post(struct wire *wire, enum parcel_kind kind, const void *data,
		size_t n, bool overtakes)
{
	struct ss_sim *sim = wire->sim;
	struct parcel *parcel = sys_malloc(sizeof(*parcel) + n);
	if (!parcel)
		return -ENOMEM;
	*parcel = (struct parcel){ .kind = kind, .n = n };
	if (n)
		memcpy(parcel->bytes, data, n);
	struct parcel **at = wire->last;
	if (overtakes && wire->first)
		for (at = &wire->first; (*at)->next; at = &(*at)->next)
			;
	parcel->next = *at;
	*at = parcel;
	if (!parcel->next)
		wire->last = &parcel->next;
	int64_t now = ss_now(sim->server), when = now + sim_latency(sim);
	if (when < wire->last_at)
		when = wire->last_at;
	wire->last_at = when;
	sim_after(sim, when - now, arrive, wire, 0);
	return 0;
}

static void let_go(struct ss_sim_client *client, enum parcel_kind kind)
{
	struct wire *wire = client->wire;
	if (!wire)
		return;
	client->wire = NULL;
	wire->client = NULL;
	if (post(wire, kind, NULL, 0, false) < 0)
		close_memory(wire);
}

void wires_free(struct ss_sim *sim)
{
	while (sim->wires) {
		struct wire *wire = sim->wires;
		struct parcel *parcel;
		sim->wires = wire->next;
		close_memory(wire);
		while ((parcel = take_parcel(wire)))
			sys_free(parcel);
		sys_free(wire);
	}
}

/* ---- clients --------------------------------------------------------------*/

int ss_sim_add(struct ss_sim *sim, int64_t in_ms,
	       void (*run)(struct ss_sim_client *client, void *arg), void *arg)
{
	struct ss_sim_client *client = sys_calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	*client = (struct ss_sim_client){ .sim = sim,
					  .next = sim->clients,
					  .number = ++sim->count,
					  .run = run,
					  .arg = arg };
	sim->clients = client;
	sim->left++;
	sim_after(sim, in_ms, begin, client, 0);
	return client->number;
}

void clients_free(struct ss_sim *sim)
{
	while (sim->clients) {
		struct ss_sim_client *client = sim->clients;
		sim->clients = client->next;
		if (client->stack)
			stacks_give(sim->stacks, client->stack);
		sys_free(client);
	}
}

struct ss_sim *ss_sim_of(const struct ss_sim_client *client)
{
	return client->sim;
}

unsigned ss_sim_random(struct ss_sim_client *client, unsigned n)
{
	return (unsigned)dice_below(&client->sim->dice, n);
}

void ss_sim_wait(struct ss_sim_client *client, int64_t ms)
{
	wait_for(client, PAUSE_TIME, ms);
}

/* ---- a connection ---------------------------------------------------------*/

static bool is_stream(const struct ss_sim *sim)
{
	return ss_server_transport(sim->server)->flags & SS_LAYER_STREAM;
}

static int make_wire(struct ss_sim_client *client)
{
	struct ss_sim *sim = client->sim;
	struct wire *wire = sys_calloc(1, sizeof(*wire));
	if (!wire)
		return -ENOMEM;
	int r = ss_memory_connect(sim->server, &wire->memory);
	if (r < 0) {
		sys_free(wire);
		return r == -EBADF ? -ECONNREFUSED : r;
	}
	wire->sim = sim;
	wire->client = client;
	wire->number = client->number;
	wire->last = &wire->first;
	wire->next = sim->wires;
	sim->wires = wire;
	client->wire = wire;
	ss_memory_limit(wire->memory, (size_t)sim->options.window);
	ss_memory_watch(wire->memory, answer_changed, wire);
	return 0;
}

int ss_sim_connect(struct ss_sim_client *client)
{
	struct ss_sim *sim = client->sim;
	ss_sim_close(client);
	wait_for(client, PAUSE_TIME, sim_latency(sim));
	int r = make_wire(client);
	sim_note(sim, "client", client->number,
		 r < 0 ? "is not connected" : "is connected");
	return r;
}

static ssize_t send_stream(struct wire *wire, const unsigned char *data,
			   size_t n)
{
	struct dice *dice = &wire->sim->dice;
	for (size_t at = 0; at < n;) {
		size_t piece = n - at;
		/* Whole, or in a few pieces, or nearly byte by byte. */
		switch (dice_below(dice, 4)) {
		case 0:
			piece = (size_t)dice_below(dice, piece) + 1;
			break;
		case 1:
			piece = (size_t)dice_below(
					dice, piece < PIECES ? piece : PIECES) +
				1;
			break;
		}
		int r = post(wire, PARCEL_DATA, data + at, piece, false);
		if (r < 0)
			return r;
		at += piece;
	}
	return (ssize_t)n;
}

static ssize_t send_packet(struct wire *wire, const void *data, size_t n)
{
	struct ss_sim *sim = wire->sim;
	const struct ss_chaos_options *chaos = &sim->options.chaos;
	bool calm = sim->options.no_chaos;
	if (!calm && dice_chance(&sim->dice, chaos->lost)) {
		sim_note(sim, "client", wire->number, "loses a packet");
		return (ssize_t)n;
	}
	bool overtakes = !calm && dice_chance(&sim->dice, chaos->reordered);
	int r = post(wire, PARCEL_DATA, data, n, overtakes);
	if (r == 0 && !calm && dice_chance(&sim->dice, chaos->duplicated))
		r = post(wire, PARCEL_DATA, data, n, false);
	return r < 0 ? r : (ssize_t)n;
}

ssize_t ss_sim_send(struct ss_sim_client *client, const void *data, size_t n)
{
	if (!client->wire)
		return -ENOTCONN;
	sim_note(client->sim, "client", client->number, "sends %zu", n);
	return is_stream(client->sim) ? send_stream(client->wire, data, n)
				      : send_packet(client->wire, data, n);
}

static ssize_t try_recv(struct ss_sim_client *client, void *buf, size_t n)
{
	struct ss_sim *sim = client->sim;
	size_t most = n;
	if (n > 1 && is_stream(sim) && !dice_below(&sim->dice, 4))
		most = (size_t)dice_below(&sim->dice, n) + 1;
	ssize_t r = ss_memory_try_recv(client->wire->memory, buf, most);
	if (r > 0)
		sim_mix(sim, buf, (size_t)r);
	if (r != -EAGAIN)
		sim_note(sim, "client", client->number, "receives %zd", r);
	return r;
}

ssize_t ss_sim_recv(struct ss_sim_client *client, void *buf, size_t n,
		    int64_t ms)
{
	struct ss_sim *sim = client->sim;
	int64_t until = ms == SS_NONE ? SS_NONE : ss_now(sim->server) + ms;
	for (;;) {
		if (!client->wire || !client->wire->memory)
			return -ENOTCONN;
		ssize_t r = try_recv(client, buf, n);
		if (r != -EAGAIN)
			return r;
		int64_t now = ss_now(sim->server);
		if (until != SS_NONE && now >= until)
			return -ETIMEDOUT;
		wait_for(client, PAUSE_INPUT,
			 until == SS_NONE ? SS_NONE : until - now);
	}
}

void ss_sim_shutdown(struct ss_sim_client *client)
{
	if (client->wire && is_stream(client->sim))
		post(client->wire, PARCEL_END, NULL, 0, false);
}

void ss_sim_reset(struct ss_sim_client *client)
{
	let_go(client, PARCEL_RESET);
}

void ss_sim_close(struct ss_sim_client *client)
{
	let_go(client, PARCEL_CLOSE);
}

/* ---- text -----------------------------------------------------------------*/

static size_t format(struct ss_sim_client *client, char *text, const char *fmt,
		     va_list args)
{
	int n = vsnprintf(text, TEXT, fmt, args);
	if (n < 0 || n >= TEXT)
		ss_sim_fail(client->sim, "text of %d bytes", n);
	return (size_t)n;
}

void ss_sim_say(struct ss_sim_client *client, const char *fmt, ...)
{
	char text[TEXT];
	va_list args;
	va_start(args, fmt);
	size_t n = format(client, text, fmt, args);
	va_end(args);
	ssize_t r = ss_sim_send(client, text, n);
	if (r < 0)
		ss_sim_fail(client->sim, "cannot send: %s", strerror((int)-r));
}

/* For a message. */
static const char *quoted(char *buf, const char *text, size_t n)
{
	size_t i = 0;
	for (; i < n && i < QUOTED; i++)
		buf[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '.';
	buf[i] = '\0';
	return buf;
}

static void must_match(struct ss_sim_client *client, const char *got,
		       const char *wanted, size_t n)
{
	char shown[QUOTED + 1], hoped[QUOTED + 1];
	if (memcmp(got, wanted, n) == 0)
		return;
	ss_sim_fail(client->sim, "expected \"%s\", got \"%s\"",
		    quoted(hoped, wanted, n), quoted(shown, got, n));
}

void ss_sim_hear(struct ss_sim_client *client, const char *fmt, ...)
{
	char wanted[TEXT], got[TEXT], shown[QUOTED + 1];
	va_list args;
	va_start(args, fmt);
	size_t n = format(client, wanted, fmt, args);
	va_end(args);
	for (size_t have = 0; have < n;) {
		ssize_t r = ss_sim_recv(client, got + have, n - have, SS_NONE);
		if (r <= 0)
			ss_sim_fail(client->sim,
				    "expected \"%s\", got %s after %zu bytes",
				    quoted(shown, wanted, n),
				    r ? strerror((int)-r) : "the end", have);
		have += (size_t)r;
		must_match(client, got, wanted, have);
	}
}

void ss_sim_hear_end(struct ss_sim_client *client)
{
	char got[QUOTED], shown[QUOTED + 1];
	ssize_t r = ss_sim_recv(client, got, sizeof(got), SS_NONE);
	if (r > 0)
		ss_sim_fail(client->sim, "expected the end, got \"%s\"",
			    quoted(shown, got, (size_t)r));
	if (r < 0)
		ss_sim_fail(client->sim, "expected the end, got %s",
			    strerror((int)-r));
}
