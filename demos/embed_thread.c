/*
 * A server inside a thread of a larger program, and its clean stop.  The
 * program counts the lines that it reads; whoever connects is told the count,
 * which the handler finds by ss_server_user.
 *
 *	embed_thread [ADDRESS]	lines here are counted, end of file ends;
 *				elsewhere: echo_client </dev/null
 */
#include "demo.h"

#include <pthread.h>
#include <stdatomic.h>

struct program {
	atomic_long lines;
};

static int tell_count(struct ss_request *req)
{
	struct program *program = ss_server_user(ss_request_server(req));
	ssize_t n = ss_printf(req, "%ld lines so far\n",
			      atomic_load(&program->lines));

	return n < 0 ? (int)n : 0;
}

static void *serve(void *arg)
{
	struct ss_server *server = arg;

	ss_serve_forever(server);
	return NULL;
}

static void read_lines(struct program *program)
{
	int c;

	while ((c = getchar()) != EOF)
		if (c == '\n')
			atomic_fetch_add(&program->lines, 1);
}

/*
 * ss_shutdown_wait ends the loop, the join the thread, ss_server_close what
 * clients are still being served.
 */
static int stop(struct ss_server *server, pthread_t thread)
{
	int err = ss_shutdown_wait(server, ss_now(server) + 1000);

	if (err < 0)
		return err;
	pthread_join(thread, NULL);
	return ss_server_close(server);
}

static int run(struct program *program, struct ss_server *server)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, serve, server);

	if (err != 0)
		return -err;
	read_lines(program);
	return stop(server, thread);
}

int main(int argc, char *argv[])
{
	static const struct ss_handler handler = {
		.name = "count",
		.handle = tell_count,
		.speaks_first = true,
	};
	struct program program = { .lines = 0 };
	const struct ss_config config = {
		.addresses = { demo_address(argc, argv) },
		.mixins = { { &ss_threading_mixin, NULL } },
		.handler = &handler,
		.user = &program,
	};
	struct ss_server *server;
	struct ss_diag why;

	if (ss_server_new(&server, &config, &why) < 0) {
		fprintf(stderr, "embed_thread: %s\n", why.text);
		return why.code == -EINVAL ? 2 : EXIT_FAILURE;
	}
	int err = -1;

	if (demo_announce("embed_thread", server) == 0) {
		err = run(&program, server);
		if (err < 0)
			fprintf(stderr, "embed_thread: %s\n", strerror(-err));
	}
	ss_server_free(server);
	return err < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
