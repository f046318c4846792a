/*
 * Layers: checked, put in order, flattened into one complete table a level.
 *
 * A level's table is the one below it, overwritten where its layer has an
 * operation.  So a call through ss_self or ss_super is one load and one
 * indirect call, and NULL costs nothing.
 */
#include "internal.h"

#include <stdio.h>

typedef void (*operation)(void);

enum { OPERATIONS = sizeof(struct ss_ops) / sizeof(operation) };

static void overlay(struct ss_ops *table, const struct ss_ops *partial)
{
	operation full[OPERATIONS], over[OPERATIONS];
	memcpy(full, table, sizeof(full));
	memcpy(over, partial, sizeof(over));
	for (int i = 0; i < OPERATIONS; i++)
		if (over[i])
			full[i] = over[i];
	memcpy(table, full, sizeof(full));
}

static int check_place(struct ss_server *server, int index)
{
	const struct ss_layer *layer = server->levels[index].layer;
	if (!layer->name)
		return ss_refuse(server, -EINVAL, "a layer has no name");
	if (layer->struct_size > sizeof(*layer))
		return ss_refuse(server, -EINVAL,
				 "layer %s was made for a newer library",
				 layer->name);
	for (int i = 0; i < index; i++)
		if (server->levels[i].layer == layer)
			return ss_refuse(server, -EINVAL,
					 "layer %s is named twice",
					 layer->name);
	bool transport = layer->flags & SS_LAYER_TRANSPORT;
	bool last = index == server->level_count - 2;
	if (transport && !last)
		return ss_refuse(server, -EINVAL,
				 "%s is a transport and cannot be a mixin",
				 layer->name);
	if (!transport && last)
		return ss_refuse(server, -EINVAL,
				 "%s is a mixin and cannot be the transport",
				 layer->name);
	return 0;
}

static int check_dispatchers(struct ss_server *server)
{
	const struct ss_layer *first = NULL;
	for (int i = 0; i < server->level_count; i++) {
		const struct ss_layer *layer = server->levels[i].layer;
		if (!(layer->flags & SS_LAYER_DISPATCHES))
			continue;
		if (first)
			return ss_refuse(server, -EINVAL,
					 "%s and %s both run the requests: "
					 "name one of them",
					 first->name, layer->name);
		first = layer;
	}
	return 0;
}

/* Each of its workers is a server of what stands to the right. */
static int check_supervisor(struct ss_server *server)
{
	const unsigned one_each = SS_LAYER_FORKS | SS_LAYER_DISPATCHES;
	const struct ss_layer *supervisor = NULL, *before = NULL;
	for (int i = 0; i < server->level_count; i++) {
		const struct ss_layer *layer = server->levels[i].layer;
		const struct ss_layer *first = supervisor;
		if (layer->flags & SS_LAYER_SUPERVISES)
			supervisor = layer;
		if (first && supervisor == layer)
			return ss_refuse(server, -EINVAL,
					 "%s and %s both have workers: name "
					 "one of them",
					 first->name, layer->name);
		if (supervisor == layer && before)
			return ss_refuse(server, -EINVAL,
					 "%s serves in %s's workers: name it "
					 "to the right of %s",
					 before->name, layer->name,
					 layer->name);
		if (layer->flags & SS_LAYER_DISPATCHES)
			before = layer;
		if (supervisor && (layer->flags & one_each) == one_each)
			return ss_refuse(server, -EINVAL,
					 "%s and %s both fork: name one of "
					 "them",
					 supervisor->name, layer->name);
	}
	return 0;
}

static int check_needs(struct ss_server *server)
{
	static const struct {
		unsigned need, has;
		const char *what;
	} needs[] = {
		{ SS_NEEDS_STREAM, SS_LAYER_STREAM, "a stream transport" },
		{ SS_NEEDS_UNIX, SS_LAYER_UNIX, "a Unix transport" },
		{ SS_NEEDS_SOCKET, SS_LAYER_SOCKET, "a socket transport" },
	};
	const struct ss_layer *transport =
		server->levels[server->level_count - 2].layer;
	for (int i = 0; i < server->level_count - 2; i++) {
		const struct ss_layer *layer = server->levels[i].layer;
		for (size_t k = 0; k < sizeof(needs) / sizeof(*needs); k++)
			if ((layer->flags & needs[k].need) &&
			    !(transport->flags & needs[k].has))
				return ss_refuse(server, -EINVAL,
						 "%s needs %s, and %s is none",
						 layer->name, needs[k].what,
						 transport->name);
	}
	return 0;
}

static size_t aligned(size_t size)
{
	return (size + 15) & ~(size_t)15;
}

static int lay_out(struct ss_server *server)
{
	size_t states = 0, used = 0;
	for (int i = server->level_count - 1; i >= 0; i--) {
		struct level *level = &server->levels[i];
		if (i < server->level_count - 1)
			level->ops = level[1].ops;
		overlay(&level->ops, &level->layer->ops);
		server->flags |= level->layer->flags;
		level->request_offset = server->request_states;
		server->request_states += aligned(level->layer->request_size);
		states += aligned(level->layer->server_size);
	}
	if (!states)
		return 0;
	server->states = server_room(server, states);
	if (!server->states)
		return -ENOMEM;
	for (int i = 0; i < server->level_count; i++) {
		struct level *level = &server->levels[i];
		if (level->layer->server_size)
			level->state = (char *)server->states + used;
		used += aligned(level->layer->server_size);
	}
	return 0;
}

/* "quota > threading > tcp > base" */
static int write_description(struct ss_server *server)
{
	static const char between[] = " > ";
	size_t size = 1;
	for (int i = 0; i < server->level_count; i++)
		size += strlen(server->levels[i].layer->name) + strlen(between);
	server->describe = sys_malloc(size);
	if (!server->describe)
		return -ENOMEM;
	size_t used = 0;
	for (int i = 0; i < server->level_count; i++)
		used += (size_t)snprintf(server->describe + used, size - used,
					 "%s%s", i ? between : "",
					 server->levels[i].layer->name);
	return 0;
}

int layers_build(struct ss_server *server, const struct ss_config *config)
{
	int mixins = 0;
	while (mixins < SS_MIXINS_MAX && config->mixins[mixins].layer)
		mixins++;
	if (config->mixins[mixins].layer)
		return ss_refuse(server, -EINVAL, "more than %d mixins",
				 SS_MIXINS_MAX);
	server->levels =
		sys_calloc((size_t)mixins + 2, sizeof(*server->levels));
	if (!server->levels)
		return -ENOMEM;
	server->level_count = mixins + 2;
	for (int i = 0; i < mixins; i++) {
		server->levels[i].layer = config->mixins[i].layer;
		server->levels[i].options = config->mixins[i].options;
	}
	server->levels[mixins].layer = config->transport;
	server->levels[mixins].options = config->transport_options;
	server->levels[mixins + 1].layer = &ss_base_layer;

	int r = 0;
	for (int i = 0; !r && i <= mixins; i++)
		r = check_place(server, i);
	if (!r)
		r = check_dispatchers(server);
	if (!r)
		r = check_supervisor(server);
	if (!r)
		r = check_needs(server);
	if (!r)
		r = lay_out(server);
	if (!r)
		r = write_description(server);
	return r;
}

int layers_init(struct ss_server *server)
{
	for (int i = server->level_count - 1; i >= 0; i--) {
		struct level *level = &server->levels[i];
		int r = 0;
		if (level->layer->init)
			r = level->layer->init(server, level->options);
		level->options = NULL;
		if (r < 0)
			return r;
		level->ready = true;
	}
	return 0;
}

void layers_fini(struct ss_server *server)
{
	for (int i = 0; i < server->level_count; i++) {
		struct level *level = &server->levels[i];
		if (level->ready && level->layer->fini)
			level->layer->fini(server);
		level->ready = false;
	}
}

void layers_after_fork(struct ss_server *server)
{
	for (int i = server->level_count - 1; i >= 0; i--)
		if (server->levels[i].layer->after_fork)
			server->levels[i].layer->after_fork(server);
}

void layers_free(struct ss_server *server)
{
	server_room_free(server, server->states);
	sys_free(server->levels);
	sys_free(server->describe);
}

bool ss_server_has(const struct ss_server *server, const struct ss_layer *layer)
{
	for (int i = 0; i < server->level_count; i++)
		if (server->levels[i].layer == layer)
			return true;
	return false;
}

static const struct level *level_of(const struct ss_server *server,
				    const struct ss_layer *mine)
{
	const struct level *level = server->levels;
	while (level->layer != mine) {
		level++;
		assert(level < server->levels + server->level_count);
	}
	return level;
}

const struct ss_ops *ss_self(const struct ss_server *server)
{
	return self(server);
}

const struct ss_ops *ss_super(const struct ss_server *server,
			      const struct ss_layer *mine)
{
	return &level_of(server, mine)[1].ops;
}

void *ss_layer_state(const struct ss_server *server,
		     const struct ss_layer *mine)
{
	return level_of(server, mine)->state;
}

size_t ss_request_layer_offset(const struct ss_server *server,
			       const struct ss_layer *mine)
{
	return offsetof(struct ss_request, extra) +
	       level_of(server, mine)->request_offset;
}

void *ss_request_layer_state(const struct ss_request *req,
			     const struct ss_layer *mine)
{
	if (!mine->request_size)
		return NULL;
	const struct level *level = level_of(req->server, mine);
	return (void *)(req->extra + level->request_offset);
}

unsigned ss_server_flags(const struct ss_server *server)
{
	return server->flags;
}

const struct ss_layer *ss_server_transport(const struct ss_server *server)
{
	return server->levels[server->level_count - 2].layer;
}
