/*
 * A server inside an sd-event(3) loop, systemd's: a source for its descriptor,
 * and one for its deadline, which is set before each sleep.
 *
 *	embed_sd_event -m fiber	tells once a second how many clients there are;
 *				elsewhere: echo_client
 */
#include "embed.h"

#include <systemd/sd-event.h>
#include <time.h>

struct host {
	struct embed embed;
	sd_event *event;
	sd_event_source *deadline;
};

static int turn(const struct host *host)
{
	int r = ss_server_turn(host->embed.server, 0);

	return r < 0 ? sd_event_exit(host->event, r) : 0;
}

static int readable(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	(void)source;
	(void)fd;
	(void)events;
	return turn(arg);
}

static int expired(sd_event_source *source, uint64_t at, void *arg)
{
	(void)source;
	(void)at;
	return turn(arg);
}

/* Microseconds from now. */
static int set_timer(sd_event_source *source, int64_t us, int enabled)
{
	int r = sd_event_source_set_time_relative(source, (uint64_t)us);

	return r < 0 ? r : sd_event_source_set_enabled(source, enabled);
}

static int prepare(sd_event_source *source, void *arg)
{
	const struct host *host = arg;
	int ms = embed_wait_ms(&host->embed);

	(void)source;
	if (ms < 0)
		return sd_event_source_set_enabled(host->deadline,
						   SD_EVENT_OFF);
	return set_timer(host->deadline, ms * INT64_C(1000), SD_EVENT_ONESHOT);
}

static int tick(sd_event_source *source, uint64_t at, void *arg)
{
	const struct host *host = arg;

	(void)at;
	embed_tick(&host->embed);
	return set_timer(source, host->embed.tick_ms * INT64_C(1000),
			 SD_EVENT_ONESHOT);
}

static int stop(sd_event_source *source, const struct signalfd_siginfo *signal,
		void *arg)
{
	const struct host *host = arg;

	(void)source;
	(void)signal;
	ss_shutdown(host->embed.server);
	return 0;
}

/* 1 us of slack: else sd-event rounds timers up to a quarter of a second. */
static int add_timer(const struct host *host, sd_event_source **source,
		     uint64_t us, sd_event_time_handler_t handler)
{
	return sd_event_add_time_relative(host->event, source, CLOCK_MONOTONIC,
					  us, 1, handler, (void *)host);
}

static int add_sources(struct host *host)
{
	uint64_t tick_us = (uint64_t)host->embed.tick_ms * 1000;
	sd_event_source *io = NULL;
	int r = sd_event_add_io(host->event, &io,
				ss_server_pollfd(host->embed.server), EPOLLIN,
				readable, host);

	if (r >= 0)
		r = sd_event_source_set_floating(io, 1);
	if (r >= 0)
		r = sd_event_source_set_prepare(io, prepare);
	sd_event_source_unref(io); /* the loop has it */
	if (r >= 0)
		r = add_timer(host, &host->deadline, 0, expired);
	if (r >= 0)
		r = add_timer(host, NULL, tick_us, tick);
	if (r >= 0)
		r = sd_event_add_signal(host->event, NULL, SIGTERM, stop, host);
	if (r >= 0)
		r = sd_event_add_signal(host->event, NULL, SIGINT, stop, host);
	return r;
}

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

int main(int argc, char *argv[])
{
	struct host host = { .event = NULL, .deadline = NULL };
	int status = embed_open(&host.embed, "embed_sd_event", argc, argv);

	if (status != EXIT_SUCCESS)
		return status;
	block_signals();
	int r = sd_event_new(&host.event);

	if (r >= 0)
		r = add_sources(&host);
	if (r >= 0)
		r = sd_event_loop(host.event);
	sd_event_source_unref(host.deadline);
	sd_event_unref(host.event);
	return embed_close(&host.embed, r);
}
