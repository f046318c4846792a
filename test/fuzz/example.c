/*
 * How a handler's author fuzzes his handler; ss_testing(7) has it.  The input
 * is all that a client sends.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include <socketserver/socketserver.h>

extern const struct ss_handler ss_upper_handler; /* yours */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char *out = malloc(n + 64);
	ssize_t r = ss_memory_exchange(&ss_upper_handler, data, n, out, n + 64);

	for (ssize_t i = 0; i < r && (size_t)r == n; i++)
		assert(out[i] < 'a' || out[i] > 'z');
	free(out);
	return 0;
}
