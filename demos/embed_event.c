/*
 * A server inside a libevent loop: one persistent event for its descriptor,
 * whose time-out is the server's deadline.
 *
 *	embed_event -m fiber	tells once a second how many clients there are;
 *				elsewhere: echo_client
 */
#include "embed.h"

#include <event2/event.h>

enum { EVENTS = 4 };

struct host {
	struct embed embed;
	struct event_base *base;
	struct event *serve;
	int result;
};

/* libevent asks nobody before it sleeps: so after each turn. */
static int arm(const struct host *host)
{
	int ms = embed_wait_ms(&host->embed);
	const struct timeval left = { ms / 1000, ms % 1000 * 1000 };

	if (ms >= 0)
		return event_add(host->serve, &left);
	event_remove_timer(host->serve);
	return event_add(host->serve, NULL);
}

static void serve(evutil_socket_t fd, short what, void *arg)
{
	struct host *host = arg;

	(void)fd;
	(void)what;
	host->result = ss_server_turn(host->embed.server, 0);
	if (host->result >= 0 && arm(host) == -1)
		host->result = -ENOMEM;
	if (host->result < 0)
		event_base_loopbreak(host->base);
}

static void tick(evutil_socket_t fd, short what, void *arg)
{
	const struct host *host = arg;

	(void)fd;
	(void)what;
	embed_tick(&host->embed);
}

/* The server's descriptor tells of this too. */
static void stop(evutil_socket_t fd, short what, void *arg)
{
	const struct host *host = arg;

	(void)fd;
	(void)what;
	ss_shutdown(host->embed.server);
}

static int run(struct host *host)
{
	int ms = host->embed.tick_ms;
	const struct timeval every = { ms / 1000, ms % 1000 * 1000 };
	struct event_base *base = host->base;
	struct event *events[EVENTS] = {
		event_new(base, ss_server_pollfd(host->embed.server),
			  EV_READ | EV_PERSIST, serve, host),
		event_new(base, -1, EV_PERSIST, tick, host),
		evsignal_new(base, SIGTERM, stop, host),
		evsignal_new(base, SIGINT, stop, host),
	};
	bool good = true;

	for (int i = 0; i < EVENTS; i++)
		good = good && events[i] != NULL &&
		       event_add(events[i], i == 1 ? &every : NULL) == 0;
	host->serve = events[0];
	host->result = -ENOMEM;
	if (good && arm(host) == 0)
		event_base_dispatch(base);
	for (int i = 0; i < EVENTS; i++)
		if (events[i] != NULL)
			event_free(events[i]);
	return host->result;
}

int main(int argc, char *argv[])
{
	struct host host;
	int status = embed_open(&host.embed, "embed_event", argc, argv);

	if (status != EXIT_SUCCESS)
		return status;
	int r = -ENOMEM;

	host.base = event_base_new();
	if (host.base != NULL) {
		r = run(&host);
		event_base_free(host.base);
	}
	libevent_global_shutdown();
	return embed_close(&host.embed, r);
}
