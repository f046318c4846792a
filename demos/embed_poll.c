/*
 * Two servers inside a poll(2) loop that belongs to somebody else.  The loop
 * watches ss_server_pollfd, waits no longer than ss_server_deadline, and calls
 * ss_server_turn when either says so.  A turn must not wait for a client: a
 * handler that answers at once may run in it, others get a thread.
 *
 *	embed_poll		a line here shows numbers, end of file ends;
 *				elsewhere: echo_client </dev/null, or
 *				echo_client tcp://127.0.0.1:7778
 */
#include "demo.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "handlers.h"

enum { SERVERS = 2 };

/* What poll(2) may wait: until the nearest deadline. */
static int wait_ms(struct ss_server *servers[])
{
	int64_t nearest = INT_MAX;

	for (int i = 0; i < SERVERS; i++) {
		int64_t deadline = ss_server_deadline(servers[i]);

		if (deadline == SS_NONE)
			continue;
		deadline -= ss_now(servers[i]);
		if (deadline < nearest)
			nearest = deadline > 0 ? deadline : 0;
	}
	return nearest == INT_MAX ? -1 : (int)nearest;
}

/* A turn costs nothing where there is nothing to do. */
static int turn_all(struct ss_server *servers[])
{
	for (int i = 0; i < SERVERS; i++) {
		int err = ss_server_turn(servers[i], 0);

		if (err < 0)
			return err;
	}
	return 0;
}

/* The host's own business: 0 at the end of its input. */
static ssize_t host_input(struct ss_server *servers[])
{
	char line[256];
	ssize_t n = read(STDIN_FILENO, line, sizeof(line));

	for (int i = 0; n > 0 && i < SERVERS; i++) {
		struct ss_stats stats;

		ss_server_stats(servers[i], &stats);
		printf("%s: %llu clients, %llu active\n",
		       ss_server_handler(servers[i])->name,
		       (unsigned long long)stats.accepted,
		       (unsigned long long)stats.active);
	}
	fflush(stdout);
	return n == -1 ? -errno : n;
}

static int host_loop(struct ss_server *servers[])
{
	struct pollfd fds[1 + SERVERS] = { { STDIN_FILENO, POLLIN, 0 } };
	ssize_t n = 1;

	for (int i = 0; i < SERVERS; i++) {
		fds[1 + i].fd = ss_server_pollfd(servers[i]);
		fds[1 + i].events = POLLIN;
		if (fds[1 + i].fd < 0)
			return fds[1 + i].fd;
	}
	while (n > 0) {
		int ready = poll(fds, 1 + SERVERS, wait_ms(servers));

		if (ready == -1 && errno != EINTR)
			return -errno;
		n = turn_all(servers);
		if (n == 0)
			n = ready > 0 && fds[0].revents != 0
				    ? host_input(servers)
				    : 1;
	}
	return (int)n;
}

/* Returns the program's exit status. */
static int open_servers(struct ss_server *servers[],
			const char *const addresses[])
{
	const struct ss_config configs[SERVERS] = {
		{
			.addresses = { addresses[0] },
			.handler = &ss_daytime_handler,
		},
		{
			.addresses = { addresses[1] },
			.mixins = { { &ss_threading_mixin, NULL } },
			.handler = &ss_upper_handler,
		},
	};
	struct ss_diag why;

	for (int i = 0; i < SERVERS; i++) {
		if (ss_server_new(&servers[i], &configs[i], &why) < 0) {
			fprintf(stderr, "embed_poll: %s\n", why.text);
			return why.code == -EINVAL ? 2 : EXIT_FAILURE;
		}
		if (demo_announce("embed_poll", servers[i]) < 0)
			return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

int main(int argc, char *argv[])
{
	const char *const addresses[SERVERS] = {
		argc > 1 ? argv[1] : DEMO_ADDRESS,
		argc > 2 ? argv[2] : "tcp://127.0.0.1:7778",
	};
	struct ss_server *servers[SERVERS] = { NULL };

	if (argc > 1 + SERVERS) {
		fputs("usage: embed_poll [ADDRESS [ADDRESS]]\n", stderr);
		return 2;
	}
	int status = open_servers(servers, addresses);

	if (status == EXIT_SUCCESS) {
		int err = host_loop(servers);

		if (err < 0) {
			fprintf(stderr, "embed_poll: %s\n", strerror(-err));
			status = EXIT_FAILURE;
		}
	}
	for (int i = 0; i < SERVERS; i++)
		ss_server_free(servers[i]); /* stops gracefully first */
	return status;
}
