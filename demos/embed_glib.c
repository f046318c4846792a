/*
 * A server inside a GLib main loop, as a source of its own: GLib asks before
 * each sleep how long it may last, and dispatches when it is time.
 *
 *	embed_glib -m fiber	tells once a second how many clients there are;
 *				elsewhere: echo_client
 */
#include "embed.h"

#include <glib-unix.h>
#include <glib.h>

struct host {
	struct embed embed;
	GMainLoop *loop;
	int result;
};

/* A GSource, and what it is about. */
struct serving {
	GSource source; /* first */
	struct host *host;
	gpointer tag;
};

static gboolean serving_prepare(GSource *source, gint *timeout)
{
	const struct serving *serving = (const struct serving *)source;

	*timeout = embed_wait_ms(&serving->host->embed);
	return *timeout == 0;
}

static gboolean serving_check(GSource *source)
{
	const struct serving *serving = (const struct serving *)source;

	return g_source_query_unix_fd(source, serving->tag) != 0 ||
	       embed_wait_ms(&serving->host->embed) == 0;
}

static gboolean serving_dispatch(GSource *source, GSourceFunc callback,
				 gpointer data)
{
	struct host *host = ((struct serving *)source)->host;

	(void)callback;
	(void)data;
	host->result = ss_server_turn(host->embed.server, 0);
	if (host->result >= 0)
		return G_SOURCE_CONTINUE;
	g_main_loop_quit(host->loop);
	return G_SOURCE_REMOVE;
}

static GSourceFuncs serving_functions = {
	.prepare = serving_prepare,
	.check = serving_check,
	.dispatch = serving_dispatch,
};

static GSource *serving_new(struct host *host)
{
	GSource *source =
		g_source_new(&serving_functions, sizeof(struct serving));
	struct serving *serving = (struct serving *)source;

	serving->host = host;
	serving->tag = g_source_add_unix_fd(
		source, ss_server_pollfd(host->embed.server), G_IO_IN);
	return source;
}

static gboolean tick(gpointer data)
{
	const struct host *host = data;

	embed_tick(&host->embed);
	return G_SOURCE_CONTINUE;
}

static gboolean stop(gpointer data)
{
	const struct host *host = data;

	ss_shutdown(host->embed.server);
	return G_SOURCE_CONTINUE;
}

static int run(struct host *host)
{
	GSource *source = serving_new(host);
	guint ids[] = {
		g_timeout_add((guint)host->embed.tick_ms, tick, host),
		g_unix_signal_add(SIGTERM, stop, host),
		g_unix_signal_add(SIGINT, stop, host),
	};

	host->loop = g_main_loop_new(NULL, FALSE);
	g_source_attach(source, NULL);
	g_main_loop_run(host->loop);
	for (size_t i = 0; i < G_N_ELEMENTS(ids); i++)
		g_source_remove(ids[i]);
	g_source_destroy(source);
	g_source_unref(source);
	g_main_loop_unref(host->loop);
	return host->result;
}

int main(int argc, char *argv[])
{
	struct host host;
	int status = embed_open(&host.embed, "embed_glib", argc, argv);

	if (status != EXIT_SUCCESS)
		return status;
	return embed_close(&host.embed, run(&host));
}
