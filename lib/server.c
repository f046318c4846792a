/* Servers: made, claimed by the thread that serves, asked about, freed. */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

#include "thread.h"

enum { DRAIN_MS = 10000, QUEUE_SIZE = 128 };
enum {
	PAGE = 4096,
	SERVER_SIZE = (sizeof(struct ss_server) / PAGE + 1) * PAGE
};

const char *ss_version(void)
{
	return SS_VERSION;
}

int ss_refuse(struct ss_server *server, int code, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	vsnprintf(server->why.text, sizeof(server->why.text), fmt, args);
	va_end(args);
	server->why.code = code;
	return code;
}

/* What the caller is told; a layer that gave no reason gets the code's. */
static void explain(const struct ss_server *server, int code,
		    struct ss_diag *why)
{
	if (!why)
		return;
	memset(why, 0, sizeof(*why));
	why->code = code < 0 ? code : 0;
	if (code >= 0)
		return;
	if (server && server->why.code == code && server->why.text[0])
		memcpy(why->text, server->why.text, sizeof(why->text));
	else
		snprintf(why->text, sizeof(why->text), "%s", strerror(-code));
}

/* ---- configuration --------------------------------------------------------*/

static char *copy_text(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = sys_malloc(size);
	if (copy)
		memcpy(copy, text, size);
	return copy;
}

struct limit {
	const char *name;
	int value;
};

static int check_each(struct ss_server *server, const char *whose,
		      const struct limit *limits, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (limits[i].value < SS_NONE)
			return ss_refuse(server, -EINVAL, "%s%s is %d", whose,
					 limits[i].name, limits[i].value);
	return 0;
}

static int check_timeouts(struct ss_server *server, const char *whose,
			  const struct ss_timeouts *timeouts)
{
	const struct limit limits[] = {
		{ "timeouts.handshake_ms", timeouts->handshake_ms },
		{ "timeouts.first_byte_ms", timeouts->first_byte_ms },
		{ "timeouts.io_ms", timeouts->io_ms },
		{ "timeouts.idle_ms", timeouts->idle_ms },
		{ "timeouts.total_ms", timeouts->total_ms },
	};
	return check_each(server, whose, limits,
			  sizeof(limits) / sizeof(*limits));
}

static int check_handler(struct ss_server *server,
			 const struct ss_handler *handler)
{
	if (!handler || !handler->handle)
		return ss_refuse(server, -EINVAL,
				 "a server needs a handler with handle()");
	if (handler->struct_size > sizeof(struct ss_handler))
		return ss_refuse(server, -EINVAL,
				 "the handler was made for a newer library");
	const struct limit limits[] = {
		{ "rbufsize", handler->rbufsize },
		{ "wbufsize", handler->wbufsize },
	};
	int r = check_each(server, "the handler's ", limits,
			   sizeof(limits) / sizeof(*limits));
	return r < 0 ? r
		     : check_timeouts(server, "the handler's ",
				      &handler->timeouts);
}

static int check_limits(struct ss_server *server,
			const struct ss_config *config)
{
	const struct limit limits[] = {
		{ "timeout_ms", config->timeout_ms },
		{ "poll_interval_ms", config->poll_interval_ms },
		{ "drain_ms", config->drain_ms },
		{ "max_active", config->max_active },
		{ "queue_size", config->queue_size },
		{ "log_level", config->log_level },
	};
	int r = check_each(server, "", limits,
			   sizeof(limits) / sizeof(*limits));
	if (r >= 0)
		r = check_timeouts(server, "", &config->timeouts);
	return r < 0 ? r : check_handler(server, config->handler);
}

/* A transport that needs no address has none to tell it by. */
static int choose_transport(struct ss_server *server, struct ss_config *config)
{
	if (config->transport)
		return 0;
	if (!config->addresses[0])
		return ss_refuse(server, -EINVAL,
				 "a server needs a transport or an address");
	struct ss_diag why;
	config->transport = ss_transport_for(config->addresses[0], &why);
	if (!config->transport)
		return ss_refuse(server, why.code, "%s", why.text);
	return 0;
}

static void default_limits(struct ss_config *config)
{
	if (!config->drain_ms)
		config->drain_ms = DRAIN_MS;
	if (!config->queue_size)
		config->queue_size = QUEUE_SIZE;
	if (!config->log_level)
		config->log_level = SS_LOG_WARNING;
	if (config->timeout_ms == 0)
		config->timeout_ms = SS_NONE;
	if (config->poll_interval_ms == 0)
		config->poll_interval_ms = SS_NONE;
}

static int take_config(struct ss_server *server, const struct ss_config *given)
{
	struct ss_config *config = &server->config;
	*config = *given;
	memset((void *)config->addresses, 0, sizeof(config->addresses));
	config->refusal = NULL;
	default_limits(config);
	if (given->addresses[SS_ADDRESSES_MAX])
		return ss_refuse(server, -EINVAL, "more than %d addresses",
				 SS_ADDRESSES_MAX);
	for (int i = 0; given->addresses[i]; i++) {
		config->addresses[i] = copy_text(given->addresses[i]);
		if (!config->addresses[i])
			return -ENOMEM;
	}
	if (given->refusal && !(config->refusal = copy_text(given->refusal)))
		return -ENOMEM;
	int r = check_limits(server, config);
	if (r < 0)
		return r;
	server->timeouts =
		timeouts_over(&config->handler->timeouts, &config->timeouts);
	return choose_transport(server, config);
}

static void free_config(struct ss_config *config)
{
	for (int i = 0; i < SS_ADDRESSES_MAX; i++)
		sys_free((void *)config->addresses[i]);
	sys_free((void *)config->refusal);
}

/* ---- making and freeing ---------------------------------------------------*/

static int init_lock(struct ss_server *server)
{
	int r = thread_cond_init(&server->changed);
	if (r < 0)
		return r;
	r = thread_cond_init(&server->dispersed);
	if (r < 0)
		goto no_dispersed;
	r = -sys_pthread_mutex_init(&server->lock, NULL);
	if (r == 0)
		return 0;
	pthread_cond_destroy(&server->dispersed);
no_dispersed:
	pthread_cond_destroy(&server->changed);
	return r;
}

static void destroy(struct ss_server *server)
{
	layers_fini(server);
	listeners_free(server);
	requests_free_spares(server);
	buffers_free(server);
	loop_fini(server);
	workers_close(server);
	sys_free(server->order_pipes);
	stop_fini(server);
	process_leave(server);
	layers_free(server);
	free_config(&server->config);
	pthread_mutex_destroy(&server->lock);
	pthread_cond_destroy(&server->dispersed);
	pthread_cond_destroy(&server->changed);
	sys_free(server);
}

void *server_room(struct ss_server *server, size_t size)
{
	size_t left = SERVER_SIZE - offsetof(struct ss_server, room) -
		      server->room_used;
	if (size > left)
		return sys_calloc(1, size);
	void *memory = server->room + server->room_used;
	server->room_used += (size + 15) & ~(size_t)15;
	return memory;
}

void server_room_free(struct ss_server *server, void *memory)
{
	uintptr_t from = (uintptr_t)server->room, at = (uintptr_t)memory;
	if (at < from || at >= from + server->room_used)
		sys_free(memory);
}

/* Its memory, in the state that destroy() can always take back. */
static int make_empty(struct ss_server **result)
{
	struct ss_server *server = sys_aligned_alloc(PAGE, SERVER_SIZE);
	if (!server)
		return -ENOMEM;
	memset(server, 0, SERVER_SIZE);
	int r = init_lock(server);
	if (r < 0) {
		sys_free(server);
		return r;
	}
	for (int i = 0; i < 2; i++)
		server->stop_pipe[i] = server->now_pipe[i] =
			server->wake_pipe[i] = -1;
	server->poller.epfd = server->spare_fd = -1;
	server->order_fd = server->boss_fd = -1;
	server->turn_at = SS_NONE;
	server->batch = 1;
	server->waiting_end = &server->waiting;
	server->number = process_enter(server);
	log_init(server);
	*result = server;
	return 0;
}

static int make(struct ss_server *server, const struct ss_config *config)
{
	int r = take_config(server, config);
	if (r >= 0)
		r = layers_build(server, &server->config);
	if (r >= 0)
		r = process_admit(server);
	if (r >= 0)
		r = stop_init(server);
	if (r >= 0)
		r = loop_init(server);
	if (r >= 0)
		r = layers_init(server);
	if (r >= 0 && !config->no_bind)
		r = ss_server_bind(server, NULL);
	if (r >= 0 && !config->no_bind)
		r = ss_server_activate(server, NULL);
	return r;
}

/* Larger than ours is a newer program's; what we do not know must be unset. */
static int read_config(const struct ss_config *config, size_t size,
		       struct ss_config *ours)
{
	memset(ours, 0, sizeof(*ours));
	memcpy(ours, config, size < sizeof(*ours) ? size : sizeof(*ours));
	const unsigned char *bytes = (const unsigned char *)config;
	for (size_t i = sizeof(*ours); i < size; i++)
		if (bytes[i])
			return -E2BIG;
	return 0;
}

int ss_server_new_sized(struct ss_server **result,
			const struct ss_config *config, size_t size,
			struct ss_diag *why)
{
	*result = NULL;
	struct ss_config ours;
	struct ss_server *server = NULL;
	int r = read_config(config, size, &ours);
	if (r >= 0)
		r = make_empty(&server);
	if (r < 0) {
		explain(NULL, r, why);
		return r;
	}
	r = make(server, &ours);
	explain(server, r, why);
	if (r < 0) {
		listeners_close(server, false);
		listeners_close(server, true);
		destroy(server);
		return r;
	}
	*result = server;
	return 0;
}

int ss_server_bind(struct ss_server *server, struct ss_diag *why)
{
	server->why.code = 0;
	int r = -EBADF;
	if (!server->closed && !server->bound)
		r = self(server)->server_bind(server);
	if (r >= 0)
		server->bound = true;
	else if (server->bound)
		r = ss_refuse(server, -EINVAL, "the server is bound already");
	else
		listeners_drop(server);
	explain(server, r, why);
	return r < 0 ? r : 0;
}

int ss_server_activate(struct ss_server *server, struct ss_diag *why)
{
	server->why.code = 0;
	int r = -EBADF;
	if (server->bound && !server->closed && !server->activated)
		r = self(server)->server_activate(server);
	if (r >= 0) {
		server->spare_fd = sys_open("/dev/null", O_RDONLY, 0);
		server->activated = true;
		server->turned_at = now(server);
		loop_listen(server);
	}
	explain(server, r, why);
	return r < 0 ? r : 0;
}

int ss_server_free(struct ss_server *server)
{
	if (!server)
		return 0;
	int r = ss_server_close(server);
	if (r < 0)
		return r;
	pthread_mutex_lock(&server->lock);
	int live = server->live;
	pthread_mutex_unlock(&server->lock);
	if (live)
		return -EBUSY;
	destroy(server);
	return 0;
}

/* ---- who serves -----------------------------------------------------------*/

int server_usable(const struct ss_server *server)
{
	return server->activated && !server->closed ? 0 : -EBADF;
}

/* By the program, turn by turn. */
int server_drivable(struct ss_server *server)
{
	int r = server_usable(server);
	if (r < 0 || !(server->flags & SS_LAYER_SUPERVISES))
		return r;
	if (server->worker)
		return -EDEADLK;
	return ss_refuse(server, -ENOTSUP,
			 "%s: workers serve, as long as ss_serve_forever runs",
			 server->describe);
}

int server_claim(struct ss_server *server)
{
	if (server->child || server->worker)
		return -EDEADLK;
	pthread_mutex_lock(&server->lock);
	int r = 0;
	bool mine =
		server->owned && pthread_equal(server->owner, pthread_self());
	/* The serving thread runs requests while it turns, and then alone. */
	if (mine)
		r = server->turning ? -EDEADLK : 0;
	else if (request_runs_here(server))
		r = -EDEADLK;
	else if (server->owned)
		r = -EBUSY;
	if (!r) {
		if (!server->owned)
			server->pid = 0;
		server->owned = true;
		server->owner = pthread_self();
		server->owned_depth++;
	}
	pthread_mutex_unlock(&server->lock);
	return r;
}

void server_unclaim(struct ss_server *server)
{
	pthread_mutex_lock(&server->lock);
	if (--server->owned_depth == 0) {
		server->owned = false;
		pthread_cond_broadcast(&server->changed);
	}
	pthread_mutex_unlock(&server->lock);
}

/* ---- asking ---------------------------------------------------------------*/

void *ss_server_user(const struct ss_server *server)
{
	return server->config.user;
}

const struct ss_handler *ss_server_handler(const struct ss_server *server)
{
	return server->config.handler;
}

const char *ss_server_describe(const struct ss_server *server)
{
	return server->describe;
}

const char *const *ss_server_addresses(const struct ss_server *server)
{
	return server->config.addresses;
}

struct ss_timeouts ss_server_timeouts(const struct ss_server *server)
{
	return server->timeouts;
}

void ss_set_accept_batch(struct ss_server *server, int batch)
{
	server->batch = batch > 0 ? batch : 1;
}

int64_t ss_now(struct ss_server *server)
{
	return now(server);
}
