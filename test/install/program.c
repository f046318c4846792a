/* Out of the tree: a handler tested in memory, and a server on a socket. */
#include <socketserver/socketserver.h>

#include <stdio.h>
#include <string.h>

static int upper_handle(struct ss_request *req)
{
	char line[64];
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	for (char *c = line; *c; c++)
		if (*c >= 'a' && *c <= 'z')
			*c = (char)(*c - 'a' + 'A');
	n = ss_write(req, line, (size_t)n);
	return n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler upper = {
	.name = "upper",
	.handle = upper_handle,
};

static int in_memory(void)
{
	static const char in[] = "hello\nworld\n", want[] = "HELLO\nWORLD\n";
	char out[64] = "";
	ssize_t n =
		ss_memory_exchange(&upper, in, strlen(in), out, sizeof(out));
	if (n == (ssize_t)strlen(want) && memcmp(out, want, (size_t)n) == 0)
		return 0;
	fprintf(stderr, "in memory: %zd: \"%.*s\"\n", n, n > 0 ? (int)n : 0,
		out);
	return -1;
}

static int on_a_socket(void)
{
	struct ss_config config = {
		.addresses = { "127.0.0.1:0" },
		SS_THREADING_TCP_SERVER,
		.handler = &upper,
	};
	struct ss_server *server;
	struct ss_diag why;
	if (ss_server_new(&server, &config, &why) < 0) {
		fprintf(stderr, "on a socket: %s\n", why.text);
		return -1;
	}
	struct ss_address address;
	int port = ss_server_address(server, 0, &address);
	if (port >= 0)
		port = ss_address_port(&address);
	int left = ss_server_close(server);
	int freed = ss_server_free(server);
	if (port > 0 && left == 0 && freed == 0)
		return 0;
	fprintf(stderr, "on a socket: port %d, close %d, free %d\n", port, left,
		freed);
	return -1;
}

/*
 * A layer's address is its identity: the program's and the library's must be
 * one, even where the linker copies the layer into the program.
 */
static int one_identity(void)
{
	struct ss_diag why;
	if (ss_transport_for("tcp://127.0.0.1:0", &why) == &ss_tcp_server)
		return 0;
	fputs("ss_tcp_server is not the library's\n", stderr);
	return -1;
}

int main(void)
{
	if (strcmp(ss_version(), SS_VERSION) != 0) {
		fprintf(stderr, "header %s, library %s\n", SS_VERSION,
			ss_version());
		return 1;
	}
	if (in_memory() != 0 || on_a_socket() != 0 || one_identity() != 0)
		return 1;
	puts("ok " SS_VERSION);
	return 0;
}
