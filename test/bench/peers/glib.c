/* Echo by GLib: GThreadedSocketService, blocking streams, a thread a client. */
#include "peer.h"

#include <gio/gio.h>

static gboolean serve(GThreadedSocketService *service,
		      GSocketConnection *connection, GObject *source,
		      gpointer arg)
{
	GInputStream *in =
		g_io_stream_get_input_stream(G_IO_STREAM(connection));
	GOutputStream *out =
		g_io_stream_get_output_stream(G_IO_STREAM(connection));
	char buf[BENCH_BUFFER];
	gssize n;

	(void)service;
	(void)source;
	(void)arg;
	while ((n = g_input_stream_read(in, buf, sizeof(buf), NULL, NULL)) > 0)
		if (!g_output_stream_write_all(out, buf, (gsize)n, NULL, NULL,
					       NULL))
			break;
	return FALSE;
}

int main(int argc, char **argv)
{
	const int fd = peer_listen(argc, argv, 0);
	GSocketService *service = g_threaded_socket_service_new(-1);
	GError *error = NULL;
	GSocket *listener = g_socket_new_from_fd(fd, &error);

	if (!listener ||
	    !g_socket_listener_add_socket(G_SOCKET_LISTENER(service), listener,
					  NULL, &error))
		bench_die(1, "%s", error->message);
	g_signal_connect(service, "run", G_CALLBACK(serve), NULL);
	g_main_loop_run(g_main_loop_new(NULL, FALSE));
	return 0;
}
