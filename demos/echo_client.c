/*
 * A client to talk to the servers here, by hand or in a pipe: lines go out,
 * replies are shown as they come, with \xHH for what does not print.  Plain
 * sockets and poll(2); of the library only its parser of addresses.
 *
 *	echo_client			talks to tcp://127.0.0.1:7777
 *	echo hello | echo_client udp://127.0.0.1:7777
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <socketserver/socketserver.h>

#define PROGRAM "echo_client"

enum {
	EXIT_WRONG_USE = 2,
	BUFFER_SIZE = 262144, /* datagrams are shorter */
	ENDPOINTS = 16,
};

struct client {
	const char *address; /* as the user wrote it */
	int timeout_ms;
	bool raw;
	bool dgram;
	int fd;
	bool input_ended;
	bool server_ended;
	int send_errno; /* why nothing more can be sent; 0: it can */
	size_t pending; /* bytes of `out` to be sent, */
	size_t sent;	/* and how many of them were */
	char out[BUFFER_SIZE];
	char in[BUFFER_SIZE];
};

SS_PRINTF(2, 3)
_Noreturn static void die(int status, const char *fmt, ...)
{
	va_list args;

	fputs(PROGRAM ": ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(status);
}

/* The system's reason, with what it was that failed. */
_Noreturn static void die_errno(const char *what)
{
	die(EXIT_FAILURE, "%s: %s", what, strerror(errno));
}

/* One byte, so that no other sequence of bytes looks the same. */
static void show_byte(const struct client *client, unsigned char byte)
{
	static const char escaped[] = "\\\n\r\t";
	static const char letters[] = "\\nrt";
	const char *at = byte != '\0' ? strchr(escaped, byte) : NULL;

	if (client->raw || (byte == '\n' && !client->dgram))
		putchar(byte);
	else if (at != NULL)
		printf("\\%c", letters[at - escaped]);
	else if (byte >= ' ' && byte <= '~')
		putchar(byte);
	else
		printf("\\x%02x", byte);
}

/* What arrived; a datagram is a line, and has its own newlines escaped. */
static void show(const struct client *client, size_t n)
{
	for (size_t i = 0; i < n; i++)
		show_byte(client, (unsigned char)client->in[i]);
	if (client->dgram && !client->raw)
		putchar('\n');
	if (fflush(stdout) == EOF || ferror(stdout))
		die_errno("standard output");
}

static void take_input(struct client *client)
{
	ssize_t n = read(STDIN_FILENO, client->out, sizeof(client->out));

	if (n == -1 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n == -1)
		die_errno("standard input");
	client->input_ended = n == 0;
	client->pending = (size_t)n;
	client->sent = 0;
	if (n == 0)
		shutdown(client->fd, SHUT_WR);
}

/* A server that takes no more may have said why: that is read first. */
static void send_pending(struct client *client)
{
	ssize_t n = send(client->fd, client->out + client->sent,
			 client->pending, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n == -1 &&
	    (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n == -1) {
		client->send_errno = errno;
		client->pending = 0;
		return;
	}
	client->sent += (size_t)n;
	client->pending -= (size_t)n;
}

static void receive(struct client *client)
{
	ssize_t n =
		recv(client->fd, client->in, sizeof(client->in), MSG_DONTWAIT);

	if (n == -1 &&
	    (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n == -1)
		die_errno(client->address);
	if (n == 0)
		client->server_ended = true;
	else
		show(client, (size_t)n);
}

/* Both directions at once, so that neither side waits for the other. */
static void talk_stream(struct client *client)
{
	while (!client->server_ended) {
		bool wants_input = !client->input_ended &&
				   client->send_errno == 0 &&
				   client->pending == 0;
		struct pollfd fds[2] = {
			{ wants_input ? STDIN_FILENO : -1, POLLIN, 0 },
			{ client->fd, POLLIN, 0 },
		};

		if (client->pending > 0)
			fds[1].events |= POLLOUT;
		if (poll(fds, 2, -1) == -1) {
			if (errno != EINTR)
				die_errno("poll");
			continue;
		}
		if (fds[0].revents != 0)
			take_input(client);
		if (client->pending > 0)
			send_pending(client);
		if ((fds[1].revents & ~POLLOUT) != 0)
			receive(client);
	}
	if (client->send_errno != 0)
		die(EXIT_FAILURE, "%s: not all was sent: %s", client->address,
		    strerror(client->send_errno));
	if (!client->input_ended || client->pending > 0)
		die(EXIT_FAILURE,
		    "%s: the server closed the connection before the input "
		    "ended",
		    client->address);
}

/* Ready for `events`, or the end of the program. */
static void wait_for(struct client *client, short events, const char *what)
{
	struct pollfd fd = { client->fd, events, 0 };
	int n;

	do
		n = poll(&fd, 1, client->timeout_ms);
	while (n == -1 && errno == EINTR);
	if (n == -1)
		die_errno("poll");
	if (n == 0)
		die(EXIT_FAILURE, "%s: %s within %g s", client->address, what,
		    client->timeout_ms / 1000.0);
}

/* A line, and its reply. */
static void exchange(struct client *client, const char *line, size_t len)
{
	ssize_t n;

	do {
		wait_for(client, POLLOUT, "the server took nothing");
		n = send(client->fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n == -1 && (errno == EINTR || errno == EAGAIN));
	if (n == -1)
		die_errno(client->address);
	do {
		wait_for(client, POLLIN, "no reply");
		n = recv(client->fd, client->in, sizeof(client->in),
			 MSG_DONTWAIT);
	} while (n == -1 && (errno == EINTR || errno == EAGAIN));
	if (n == -1)
		die_errno(client->address);
	show(client, (size_t)n);
}

/* Shown, a reply is a line; raw, the newline travels with the bytes. */
static void talk_dgram(struct client *client)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	while ((n = getline(&line, &size, stdin)) > 0) {
		if (!client->raw && line[n - 1] == '\n')
			n--;
		exchange(client, line, (size_t)n);
	}
	if (ferror(stdin))
		die_errno("standard input");
	free(line);
}

/*
 * A socket above 0-2, which a shell may have closed: what we print must not
 * reach the server.
 */
static int open_socket(int family, int type)
{
	int fd = socket(family, type, 0);

	if (fd == -1 || fd > STDERR_FILENO)
		return fd;
	int above = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

	close(fd);
	return above;
}

/* On Linux a name that is none has the kernel choose an abstract one. */
static int bind_for_replies(int fd)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX };

	return bind(fd, (struct sockaddr *)&any, sizeof(any.sun_family));
}

/* The connected socket, or -1 and errno. */
static int connect_to(const struct ss_endpoint *endpoint)
{
	const struct ss_address *address = &endpoint->address;
	bool dgram = endpoint->scheme == SS_SCHEME_UDP ||
		     endpoint->scheme == SS_SCHEME_UNIXGRAM;
	int fd = open_socket(address->u.sa.sa_family,
			     dgram ? SOCK_DGRAM : SOCK_STREAM);

	if (fd == -1)
		return -1;
	if ((endpoint->scheme != SS_SCHEME_UNIXGRAM ||
	     bind_for_replies(fd) == 0) &&
	    connect(fd, &address->u.sa, address->len) == 0)
		return fd;
	int err = errno;

	close(fd);
	errno = err;
	return -1;
}

/* A host may have several addresses: the first that answers. */
static void connect_any(struct client *client)
{
	struct ss_endpoint endpoints[ENDPOINTS];
	struct ss_diag why;
	ssize_t n = ss_resolve(client->address, SS_SCHEME_ANY, endpoints,
			       ENDPOINTS, &why);

	if (n < 0)
		die(n == -EINVAL ? EXIT_WRONG_USE : EXIT_FAILURE, "%s",
		    why.text);
	if (endpoints[0].address.len == 0)
		die(EXIT_WRONG_USE, "%s: not an address to connect to",
		    client->address);
	client->dgram = endpoints[0].scheme == SS_SCHEME_UDP ||
			endpoints[0].scheme == SS_SCHEME_UNIXGRAM;
	client->fd = -1;
	for (ssize_t i = 0; i < n && i < ENDPOINTS && client->fd == -1; i++)
		client->fd = connect_to(&endpoints[i]);
	if (client->fd == -1)
		die_errno(client->address);
}

static int parse_timeout(const char *text)
{
	char *end = NULL;
	double seconds = strtod(text, &end);

	if (!isdigit((unsigned char)text[0]) || *end != '\0' ||
	    text[strspn(text, "0123456789.")] != '\0' || seconds <= 0 ||
	    seconds > INT_MAX / 1000)
		die(EXIT_WRONG_USE,
		    "--timeout '%s': expected seconds, such as 2 or 0.5", text);
	int ms = (int)(seconds * 1000 + 0.5);

	return ms > 0 ? ms : 1;
}

_Noreturn static void exit_flushed(void)
{
	if (fflush(stdout) == EOF || ferror(stdout))
		die_errno("standard output");
	exit(EXIT_SUCCESS);
}

_Noreturn static void show_version(void)
{
	printf(PROGRAM " %s\n", ss_version());
	exit_flushed();
}

_Noreturn static void show_help(void)
{
	printf("usage: " PROGRAM " [OPTION]... [ADDRESS]\n"
	       "Sends standard input to ADDRESS and shows the replies.\n"
	       "  -r, --raw             bytes as they are\n"
	       "  -t, --timeout SECONDS a datagram's reply may take (2)\n"
	       "  -V, --version         show the version\n"
	       "  -h, --help            show this\n");
	exit_flushed();
}

static void parse_options(struct client *client, int argc, char *argv[])
{
	static const struct option options[] = {
		{ "raw", no_argument, NULL, 'r' },
		{ "timeout", required_argument, NULL, 't' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int code;

	while ((code = getopt_long(argc, argv, "rt:Vh", options, NULL)) != -1) {
		if (code == 'r')
			client->raw = true;
		else if (code == 't')
			client->timeout_ms = parse_timeout(optarg);
		else if (code == 'V')
			show_version();
		else if (code == 'h')
			show_help();
		else
			exit(EXIT_WRONG_USE);
	}
	if (argc - optind > 1)
		die(EXIT_WRONG_USE, "'%s': one address is enough",
		    argv[optind + 1]);
	if (optind < argc)
		client->address = argv[optind];
}

int main(int argc, char *argv[])
{
	static struct client client = {
		.address = "tcp://127.0.0.1:7777",
		.timeout_ms = 2000,
	};

	signal(SIGPIPE, SIG_IGN); /* a closed standard output is an error */
	parse_options(&client, argc, argv);
	connect_any(&client);
	if (client.dgram)
		talk_dgram(&client);
	else
		talk_stream(&client);
	return EXIT_SUCCESS;
}
