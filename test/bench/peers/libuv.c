/*
 * Echo by libuv.  All read into one buffer; what goes at once (uv_try_write)
 * needs no more, what does not is copied, and nothing is read until it is gone.
 */
#include "peer.h"

#include <uv.h>

static char buf[65536];

static _Noreturn void give_up(const char *what, int err)
{
	bench_die(1, "%s: %s", what, uv_strerror(err));
}

static void on_closed(uv_handle_t *handle)
{
	free(handle);
}

static void end(uv_stream_t *stream)
{
	uv_close((uv_handle_t *)stream, on_closed);
}

static void use_buf(uv_handle_t *handle, size_t suggested, uv_buf_t *use)
{
	(void)handle;
	(void)suggested;
	*use = uv_buf_init(buf, BENCH_BUFFER);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *read);

static void on_written(uv_write_t *write, int status)
{
	uv_stream_t *stream = write->handle;

	free(write);
	if (uv_is_closing((uv_handle_t *)stream))
		return;
	if (status < 0 || uv_read_start(stream, use_buf, on_read) < 0)
		end(stream);
}

static void write_later(uv_stream_t *stream, const char *bytes, size_t n)
{
	uv_write_t *write = malloc(sizeof(*write) + n);

	if (!write) {
		end(stream);
		return;
	}
	char *copy = (char *)(write + 1);
	memcpy(copy, bytes, n);
	const uv_buf_t rest = uv_buf_init(copy, (unsigned)n);
	uv_read_stop(stream);
	if (uv_write(write, stream, &rest, 1, on_written) < 0) {
		free(write);
		end(stream);
	}
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *read)
{
	if (n < 0)
		end(stream);
	if (n <= 0)
		return;
	const uv_buf_t all = uv_buf_init(read->base, (unsigned)n);
	int sent = uv_try_write(stream, &all, 1);
	if (sent == UV_EAGAIN)
		sent = 0;
	if (sent < 0)
		end(stream);
	else if (sent < n)
		write_later(stream, read->base + sent, (size_t)(n - sent));
}

static uv_stream_t *new_stream(uv_loop_t *loop, uv_handle_type type)
{
	const int tcp = type == UV_TCP;
	uv_stream_t *stream =
		malloc(tcp ? sizeof(uv_tcp_t) : sizeof(uv_pipe_t));

	if (!stream)
		bench_die(1, "no memory");
	if (tcp)
		uv_tcp_init(loop, (uv_tcp_t *)stream);
	else
		uv_pipe_init(loop, (uv_pipe_t *)stream, 0);
	return stream;
}

static void on_client(uv_stream_t *listener, int status)
{
	if (status < 0)
		return;
	uv_stream_t *stream = new_stream(
		listener->loop, uv_handle_get_type((uv_handle_t *)listener));
	if (uv_accept(listener, stream) < 0 ||
	    uv_read_start(stream, use_buf, on_read) < 0)
		end(stream);
}

static void serve_streams(uv_loop_t *loop, int fd, uv_handle_type type)
{
	uv_stream_t *listener = new_stream(loop, type);
	int err = type == UV_TCP ? uv_tcp_open((uv_tcp_t *)listener, fd)
				 : uv_pipe_open((uv_pipe_t *)listener, fd);

	if (err == 0)
		err = uv_listen(listener, SOMAXCONN, on_client);
	if (err < 0)
		give_up("uv_listen", err);
	uv_run(loop, UV_RUN_DEFAULT);
}

/* ---- datagrams -----------------------------------------------------------*/

static void use_all(uv_handle_t *handle, size_t suggested, uv_buf_t *use)
{
	(void)handle;
	(void)suggested;
	*use = uv_buf_init(buf, sizeof(buf));
}

static void on_packet(uv_udp_t *udp, ssize_t n, const uv_buf_t *read,
		      const struct sockaddr *from, unsigned flags)
{
	(void)flags;
	if (n < 0 || !from)
		return;
	const uv_buf_t all = uv_buf_init(read->base, (unsigned)n);
	uv_udp_try_send(udp, &all, 1, from);
}

static void serve_packets(uv_loop_t *loop, int fd)
{
	uv_udp_t udp;
	int err = uv_udp_init(loop, &udp);

	if (err == 0)
		err = uv_udp_open(&udp, fd);
	if (err == 0)
		err = uv_udp_recv_start(&udp, use_all, on_packet);
	if (err < 0)
		give_up("uv_udp_recv_start", err);
	uv_run(loop, UV_RUN_DEFAULT);
}

int main(int argc, char **argv)
{
	const int fd = peer_listen(argc, argv, SOCK_NONBLOCK);
	uv_loop_t *loop = uv_default_loop();

	peer_on_signal(SIGPIPE, SIG_IGN);
	if (strncmp(argv[1], "udp:", 4) == 0)
		serve_packets(loop, fd);
	else if (strncmp(argv[1], "unix:", 5) == 0)
		serve_streams(loop, fd, UV_NAMED_PIPE);
	else
		serve_streams(loop, fd, UV_TCP);
	return 0;
}
