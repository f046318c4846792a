/*
 * TCP carries bytes, not messages: two writes may arrive as one read, and one
 * write as several reads.  A handler that takes a read for a message works
 * until then; one that puts each message's length before it always does.
 *
 *	sticky			is server and client at once, and ends
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <socketserver/socketserver.h>

/* Takes each read for a message. */
static int naive_handle(struct ss_request *req)
{
	char text[64];
	ssize_t n;

	for (int i = 1; (n = ss_read(req, text, sizeof(text))) > 0; i++)
		printf("    read %d: \"%.*s\"\n", i, (int)n, text);
	return (int)n;
}

/* Takes two bytes of length, then as many of message. */
static int framed_handle(struct ss_request *req)
{
	char text[64];
	bool end = false;
	ssize_t n;

	for (int i = 1;; i++) {
		n = ss_read_frame(req, 2, text, sizeof(text), &end);
		if (n < 0 || end)
			return (int)n;
		printf("    frame %d: \"%.*s\"\n", i, (int)n, text);
	}
}

struct message {
	const char *bytes;
	size_t n;
};

/* Says two messages in two writes, and that there are no more. */
static int talk(int fd, const struct ss_address *server,
		const struct message messages[2])
{
	if (connect(fd, &server->u.sa, server->len) == -1)
		return -errno;
	for (int i = 0; i < 2; i++)
		if (write(fd, messages[i].bytes, messages[i].n) == -1)
			return -errno;
	return shutdown(fd, SHUT_WR) == -1 ? -errno : 0;
}

/*
 * One client is served once it has said all.  That needs no thread: the kernel
 * accepts it and keeps its bytes until ss_handle_request takes it.
 */
static int demonstrate(const struct ss_handler *handler,
		       const struct message messages[2])
{
	const struct ss_config config = {
		.addresses = { "127.0.0.1:0" },
		.transport = &ss_tcp_server,
		.handler = handler,
	};
	struct ss_server *server;
	struct ss_address address;
	struct ss_diag why;

	if (ss_server_new(&server, &config, &why) < 0) {
		fprintf(stderr, "sticky: %s\n", why.text);
		return -1;
	}
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int err = ss_server_address(server, 0, &address);

	if (err >= 0)
		err = talk(fd, &address, messages);
	if (err >= 0)
		err = ss_handle_request(server);
	if (err < 0)
		fprintf(stderr, "sticky: %s\n", strerror(-err));
	if (fd != -1)
		close(fd);
	ss_server_free(server);
	return err < 0 ? -1 : 0;
}

int main(void)
{
	static const struct ss_handler naive = { .handle = naive_handle };
	static const struct ss_handler framed = { .handle = framed_handle };
	const struct message plain[2] = { { "hello", 5 }, { "world", 5 } };
	const struct message counted[2] = { { "\0\5hello", 7 },
					    { "\0\5world", 7 } };

	puts("two messages, \"hello\" and \"world\", in two writes\n"
	     "a handler that takes each read for a message sees");
	if (demonstrate(&naive, plain) < 0)
		return EXIT_FAILURE;
	puts("a handler that reads each message by its length sees");
	if (demonstrate(&framed, counted) < 0)
		return EXIT_FAILURE;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return EXIT_SUCCESS;
	perror("sticky: standard output");
	return EXIT_FAILURE;
}
