/*
 * The server speaks first, and hangs up.  The handler says so by speaks_first,
 * for models that would wait for the client; see handlers/greeting.c.
 *
 *	greeting [ADDRESS]	then, elsewhere: echo_client </dev/null
 */
#include "demo.h"
#include "handlers.h"

int main(int argc, char *argv[])
{
	const struct ss_config config = {
		.addresses = { demo_address(argc, argv) },
		.mixins = { { &ss_threading_mixin, NULL } },
		.handler = &ss_greeting_handler,
	};

	return demo_run("greeting", &config, NULL);
}
