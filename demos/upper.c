/*
 * Many exchanges on one connection: each line comes back in capitals.  The
 * handler, with its limit on lines, is handlers/upper.c.
 *
 *	upper [ADDRESS]		then, elsewhere: echo_client
 */
#include "demo.h"
#include "handlers.h"

int main(int argc, char *argv[])
{
	const struct ss_config config = {
		.addresses = { demo_address(argc, argv) },
		.mixins = { { &ss_threading_mixin, NULL } },
		.handler = &ss_upper_handler,
	};

	return demo_run("upper", &config, NULL);
}
