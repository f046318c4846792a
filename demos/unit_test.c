/*
 * A handler's unit test: no socket, no thread, no clock.  The whole server runs
 * in memory; one call sends a client's bytes and end of file, and gives back
 * all that the handler answered.
 *
 *	unit_test		prints ok, or says what it expected
 */
#include <stdio.h>
#include <string.h>

#include <socketserver/socketserver.h>

#include "handlers.h"

int main(void)
{
	char got[64];
	ssize_t n = ss_memory_exchange(&ss_upper_handler, "one\ntwo\n", 8, got,
				       sizeof(got));

	if (n == 8 && memcmp(got, "ONE\nTWO\n", 8) == 0)
		return puts("ok") < 0;
	fprintf(stderr, "unit_test: expected 8 bytes in capitals, got %zd\n",
		n);
	return 1;
}
