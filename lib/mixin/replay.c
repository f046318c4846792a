/*
 * Replay: a recording's clients once more, in memory, against a handler.
 *
 * One thread, fibers, and a clock that goes on only when nothing else can
 * happen: each event of the file comes at its time, when all that came before
 * it has been taken in.  What is answered is held against the file as it is
 * written, by a channel of this layer.
 */
#include <errno.h>
#include <string.h>

#include <socketserver/layers.h>
#include <socketserver/record.h>

#include "../diag.h"
#include "../sys.h"

enum {
	GRACE_MS = 1000,     /* for what the server does after the last event */
	BEYOND = 1 << 16,    /* bytes behind a recording that breaks off */
	TURNS_MAX = 1 << 20, /* of a server that never comes to rest */
	CHUNK_OF_FILL = 4096, /* for what was cut off */
};

static const struct ss_layer replaying;

/* A connection of the recording. */
struct client {
	struct ss_memory_client *memory;
	uint64_t got; /* bytes, or datagrams */
	bool served, ended, hung_up;
};

struct replay {
	const struct ss_recording *recording;
	struct ss_server *server;
	struct client *clients;
	size_t *waiting; /* to be taken from the queue: connections */
	size_t first, last;
	int64_t began;
	bool resting; /* the clock is not to go on */
	bool rested;
	bool different;
	struct ss_diag why;
};

/* A request's. */
struct replayed {
	struct ss_channel channel; /* first */
	size_t number;
};

static struct replay *replay_of(const struct ss_server *server)
{
	return *(struct replay **)ss_layer_state(server, &replaying);
}

static struct replayed *replayed_of(const struct ss_request *req)
{
	return ss_request_layer_state(req, &replaying);
}

static const struct ss_recorded *recorded(const struct replay *replay, size_t i)
{
	return ss_recording_connection(replay->recording, i);
}

/* ---- what is answered -----------------------------------------------------*/

/* bytes NULL: the end.  The first difference is told. */
static int hold_against(struct replay *replay, size_t number, const void *bytes,
			size_t n)
{
	const struct client *client = &replay->clients[number];
	struct ss_diag why;
	int r = ss_recording_compare(replay->recording, number, client->got,
				     bytes, n, &why);
	if (r > 0 && !replay->different) {
		replay->different = true;
		replay->why = why;
	}
	return r;
}

/* Who has been told all that the file knows need not be told more. */
static bool is_beyond(const struct replay *replay, size_t number)
{
	const struct ss_recorded *told = recorded(replay, number);
	return !told->dgram &&
	       replay->clients[number].got > told->output + BEYOND;
}

static ssize_t take(struct ss_channel *channel, const void *bytes, size_t n)
{
	struct replay *replay = replay_of(ss_request_server(channel->req));
	size_t number = ((struct replayed *)channel)->number;
	struct client *client = &replay->clients[number];
	if (client->hung_up || replay->different || is_beyond(replay, number))
		return -EPIPE;
	hold_against(replay, number, bytes, n);
	client->got += recorded(replay, number)->dgram ? 1 : n;
	return (ssize_t)n;
}

static ssize_t rpl_writev(struct ss_channel *channel, const struct iovec *iov,
			  int count, struct ss_block *block)
{
	(void)block;
	static const char nothing[1];
	size_t done = 0;
	if (ss_request_dgram(channel->req))
		return take(channel,
			    count > 0 && iov->iov_base ? iov->iov_base
						       : nothing,
			    count > 0 ? iov->iov_len : 0);
	for (int i = 0; i < count; i++) {
		ssize_t r = iov[i].iov_len ? take(channel, iov[i].iov_base,
						  iov[i].iov_len)
					   : 0;
		if (r < 0)
			return done ? (ssize_t)done : r;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

static ssize_t rpl_send_to(struct ss_channel *channel, const void *buf,
			   size_t n, const struct ss_address *to,
			   struct ss_block *block)
{
	struct iovec iov = { (void *)buf, n };
	return to ? (ssize_t)n : rpl_writev(channel, &iov, 1, block);
}

static const struct ss_channel_ops rpl_ops = { .writev = rpl_writev,
					       .send_to = rpl_send_to };

/* ---- the layer ------------------------------------------------------------*/

static int rpl_init(struct ss_server *server, const void *options)
{
	memcpy(ss_layer_state(server, &replaying), options,
	       sizeof(struct replay *));
	return 0;
}

/* From where it came when it was recorded; else from nowhere. */
static void set_peer(struct ss_request *req, const char *peer)
{
	char text[SS_ADDRESS_TEXT + sizeof("unix:")];
	struct ss_endpoint place;
	bool local = *peer == '/' || *peer == '@';
	snprintf(text, sizeof(text), "%s%s", local ? "unix:" : "", peer);
	if (strcmp(peer, "-") != 0 &&
	    ss_resolve(text, SS_SCHEME_ANY, &place, 1, NULL) > 0)
		ss_request_set_peer(req, &place.address);
}

static int rpl_get_request(struct ss_server *server,
			   struct ss_listener *listener,
			   struct ss_request **req)
{
	struct replay *replay = replay_of(server);
	int r = ss_super(server, &replaying)
			->get_request(server, listener, req);
	if (r == -EAGAIN || replay->first == replay->last)
		return r;
	size_t number = replay->waiting[replay->first++];
	if (r < 0)
		return r;
	struct replayed *mine = replayed_of(*req);
	mine->number = number;
	replay->clients[number].served = true;
	set_peer(*req, recorded(replay, number)->peer);
	ss_channel_push(*req, &mine->channel, &rpl_ops);
	return r;
}

/* With it a handler begins at once, as under all models but fiber: it may speak
 * first, whatever it says. */
static int rpl_finish_request(struct ss_server *server, struct ss_request *req)
{
	return ss_super(server, &replaying)->finish_request(server, req);
}

static void rpl_end_request(struct ss_server *server, struct ss_request *req,
			    int status)
{
	struct replay *replay = replay_of(server);
	size_t number = replayed_of(req)->number;
	if (!replay->clients[number].hung_up)
		hold_against(replay, number, NULL, 0);
	replay->clients[number].ended = true;
	ss_super(server, &replaying)->end_request(server, req, status);
}

static int rpl_pass_time(struct ss_server *server, int64_t until)
{
	struct replay *replay = replay_of(server);
	if (!replay->resting)
		return ss_super(server, &replaying)->pass_time(server, until);
	replay->rested = true;
	return 0;
}

static const struct ss_layer replaying = {
	.name = "replay",
	.server_size = sizeof(struct replay *),
	.request_size = sizeof(struct replayed),
	.init = rpl_init,
	.ops = {
		.get_request = rpl_get_request,
		.finish_request = rpl_finish_request,
		.end_request = rpl_end_request,
		.pass_time = rpl_pass_time,
	},
};

/* ---- time -----------------------------------------------------------------*/

static int never_rests(struct replay *replay)
{
	return diag_refuse(&replay->why, -ETIMEDOUT,
			   "the handler never comes to rest");
}

/* All that can happen now has happened. */
static int settle(struct replay *replay)
{
	int r = 0;
	replay->resting = true;
	replay->rested = false;
	for (int turns = 0; r >= 0 && !replay->rested; turns++) {
		if (turns == TURNS_MAX)
			r = never_rests(replay);
		else
			r = ss_server_turn(replay->server,
					   ss_now(replay->server) + 1);
	}
	replay->resting = false;
	return r < 0 ? r : 0;
}

static int advance(struct replay *replay, int64_t until)
{
	int r = 0;
	for (int turns = 0; r >= 0 && ss_now(replay->server) < until; turns++)
		r = turns == TURNS_MAX ? never_rests(replay)
				       : ss_server_turn(replay->server, until);
	return r < 0 ? r : settle(replay);
}

/* ---- the clients ----------------------------------------------------------*/

static int connect_client(struct replay *replay, size_t number)
{
	struct client *client = &replay->clients[number];
	int r = ss_memory_connect(replay->server, &client->memory);
	if (r < 0)
		return r;
	replay->waiting[replay->last++] = number;
	return 0;
}

/* What was cut off has its length. */
static int send_fill(struct ss_memory_client *memory, size_t n)
{
	char fill[CHUNK_OF_FILL];
	ssize_t r = 0;
	memset(fill, 'x', sizeof(fill));
	while (n > 0 && r >= 0) {
		size_t part = n < sizeof(fill) ? n : sizeof(fill);
		r = ss_memory_send(memory, fill, part);
		n -= part;
	}
	return r < 0 ? (int)r : 0;
}

static int send_packet(struct ss_memory_client *memory,
		       const struct ss_recorded_event *event)
{
	unsigned char *whole = sys_malloc(event->size ? event->size : 1);
	if (!whole)
		return -ENOMEM;
	memset(whole, 'x', event->size);
	if (event->kept)
		memcpy(whole, event->bytes, event->kept);
	ssize_t r = ss_memory_send(memory, whole, event->size);
	sys_free(whole);
	return r < 0 ? (int)r : 0;
}

/* Whom the server has left can be told nothing. */
static int send_input(struct ss_memory_client *memory, bool dgram,
		      const struct ss_recorded_event *event)
{
	if (dgram)
		return send_packet(memory, event);
	ssize_t r = ss_memory_send(memory, event->bytes, event->kept);
	if (r >= 0)
		r = send_fill(memory, event->size - event->kept);
	return r == -EPIPE ? 0 : (int)(r < 0 ? r : 0);
}

static void hang_up(struct client *client)
{
	client->hung_up = true;
	ss_memory_close(client->memory);
	client->memory = NULL;
}

static int do_event(struct replay *replay,
		    const struct ss_recorded_event *event)
{
	struct client *client = &replay->clients[event->connection];
	bool dgram = recorded(replay, event->connection)->dgram;
	if (event->kind == SS_RECORDED_OPEN)
		return connect_client(replay, event->connection);
	if (!client->memory)
		return 0;
	switch (event->kind) {
	case SS_RECORDED_INPUT:
		return send_input(client->memory, dgram, event);
	case SS_RECORDED_BROKEN:
		hang_up(client);
		return 0;
	case SS_RECORDED_INPUT_END:
	case SS_RECORDED_LEFT_OUT:
		ss_memory_shutdown(client->memory);
		return 0;
	case SS_RECORDED_END:
		if (event->stopping)
			ss_memory_shutdown(client->memory);
		return 0;
	default:
		return 0;
	}
}

static int do_events(struct replay *replay)
{
	const struct ss_recorded_event *event;
	int r = 0;
	for (size_t i = 0; r >= 0 && !replay->different &&
			   (event = ss_recording_event(replay->recording, i));
	     i++) {
		r = advance(replay, replay->began + event->at_us / 1000);
		if (r >= 0)
			r = do_event(replay, event);
		if (r >= 0)
			r = settle(replay);
	}
	if (r >= 0 && !replay->different)
		r = advance(replay, ss_now(replay->server) + GRACE_MS);
	return r;
}

/* ---- what is missing at the end -------------------------------------------*/

static int missing(struct replay *replay, size_t number, const char *what)
{
	replay->different = true;
	return diag_refuse(&replay->why, 1, "connection #%llu: %s",
			   (unsigned long long)recorded(replay, number)->id,
			   what);
}

static void look_for_missing(struct replay *replay)
{
	const struct ss_recorded *told;
	for (size_t i = 0; !replay->different && (told = recorded(replay, i));
	     i++) {
		const struct client *client = &replay->clients[i];
		if (!client->served)
			missing(replay, i, "it was not served");
		else if (!client->ended && !client->hung_up &&
			 hold_against(replay, i, NULL, 0) == 0 && told->whole)
			missing(replay, i,
				"recorded the end, the server goes on");
	}
}

/* ---- the server -----------------------------------------------------------*/

/* The transport is that of all connections. */
static int choose_transport(const struct ss_recording *recording,
			    struct ss_config *config, struct ss_diag *why)
{
	const struct ss_recorded *first = ss_recording_connection(recording, 0);
	const struct ss_recorded *other;
	bool dgram = first && first->dgram;
	for (size_t i = 0; (other = ss_recording_connection(recording, i)); i++)
		if (other->dgram != dgram)
			return diag_refuse(why, -EINVAL,
					   "it has both streams and datagrams");
	config->transport =
		dgram ? &ss_memory_datagram_server : &ss_memory_server;
	return 0;
}

static int choose_mixins(struct ss_config *config, struct replay *const *replay,
			 struct ss_diag *why)
{
	static const struct ss_fiber_options one_loop = { .loops = 1 };
	const unsigned models = SS_LAYER_DISPATCHES | SS_LAYER_SUPERVISES;
	struct ss_use uses[SS_MIXINS_MAX + 3] = { { &replaying, replay } };
	int n = 1;
	for (int i = 0; i < SS_MIXINS_MAX && config->mixins[i].layer; i++)
		if (!(config->mixins[i].layer->flags & models) &&
		    config->mixins[i].layer != &ss_record_mixin)
			uses[n++] = config->mixins[i];
	uses[n++] = (struct ss_use){ &ss_fiber_mixin, &one_loop };
	if (n > SS_MIXINS_MAX)
		return diag_refuse(why, -EINVAL, "more than %d mixins",
				   SS_MIXINS_MAX - 2);
	memcpy(config->mixins, uses, sizeof(config->mixins));
	return 0;
}

static int make_server(struct replay *replay, const struct ss_config *given,
		       struct ss_diag *why)
{
	struct ss_config config = *given;
	int r = choose_transport(replay->recording, &config, why);
	if (r == 0)
		r = choose_mixins(&config, &replay, why);
	if (r < 0)
		return r;
	memset((void *)config.addresses, 0, sizeof(config.addresses));
	config.transport_options = NULL;
	config.poll_interval_ms = 0;
	config.no_bind = false;
	return ss_server_new(&replay->server, &config, why);
}

static int run(struct replay *replay)
{
	replay->began = ss_now(replay->server);
	int r = do_events(replay);
	if (r >= 0)
		look_for_missing(replay);
	return r;
}

static void hang_up_all(struct replay *replay, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (replay->clients[i].memory)
			hang_up(&replay->clients[i]);
}

static size_t count_connections(const struct ss_recording *recording)
{
	size_t n = 0;
	while (ss_recording_connection(recording, n))
		n++;
	return n;
}

/* 0, 1 or < 0; and why. */
static int replay_recording(const struct ss_recording *recording,
			    const struct ss_config *config, struct ss_diag *why)
{
	size_t n = count_connections(recording);
	struct replay replay = { .recording = recording };
	replay.clients = sys_calloc(n + 1, sizeof(*replay.clients));
	replay.waiting = sys_calloc(n + 1, sizeof(*replay.waiting));
	int r = -ENOMEM;
	if (replay.clients && replay.waiting)
		r = make_server(&replay, config, why);
	else
		diag_refuse(why, r, "%s", strerror(ENOMEM));
	if (r == 0) {
		r = run(&replay);
		hang_up_all(&replay, n);
		ss_server_free(replay.server);
		if (r < 0 && !replay.why.code)
			diag_refuse(&replay.why, r, "%s", strerror(-r));
		if (r >= 0)
			r = replay.different;
		*why = replay.why;
	}
	sys_free(replay.clients);
	sys_free(replay.waiting);
	return r;
}

/* What a newer program asks for must be unset. */
static int read_config(const struct ss_config *given, size_t size,
		       struct ss_config *config, struct ss_diag *why)
{
	const unsigned char *bytes = (const unsigned char *)given;
	memset(config, 0, sizeof(*config));
	memcpy(config, given, size < sizeof(*config) ? size : sizeof(*config));
	for (size_t i = sizeof(*config); i < size; i++)
		if (bytes[i])
			return diag_refuse(why, -E2BIG,
					   "the configuration is of a newer "
					   "library");
	return 0;
}

static int replay_file(const char *path, const struct ss_config *config,
		       struct ss_diag *why)
{
	struct ss_recording *recording;
	struct ss_diag reason = { .code = 0 };
	int r = ss_recording_open(&recording, path, why);
	if (r < 0)
		return r;
	const char *damage = ss_recording_damage(recording);
	r = replay_recording(recording, config, &reason);
	if (r != 0)
		diag_refuse(why, r, "%.90s: %.160s", path, reason.text);
	else if (damage)
		r = diag_refuse(why, -EBADMSG, "%.90s: %.160s", path, damage);
	ss_recording_free(recording);
	return r;
}

int ss_replay_sized(const char *path, const struct ss_config *given,
		    size_t size, struct ss_diag *why)
{
	struct ss_diag unwanted;
	struct ss_config config;
	if (!why)
		why = &unwanted;
	*why = (struct ss_diag){ .code = 0 };
	int r = read_config(given, size, &config, why);
	return r < 0 ? r : replay_file(path, &config, why);
}
