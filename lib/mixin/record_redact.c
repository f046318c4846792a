/* What is written of a chunk that the user's function has changed. */
#include "record_redact.h"

#include <string.h>

#include "../sys.h"

/* What was redacted so close to each other is one. */
enum { NEAR = 8 };

void redact_flatten(unsigned char *to, const struct iovec *iov, int count,
		    size_t n)
{
	for (int i = 0; i < count && n > 0; i++) {
		size_t part = iov[i].iov_len < n ? iov[i].iov_len : n;
		if (part)
			memcpy(to, iov[i].iov_base, part);
		to += part;
		n -= part;
	}
}

/* Where the copy differs, behind the two numbers; how many stretches.  Too many
 * are one. */
static uint32_t find_stretches(const unsigned char *from,
			       const unsigned char *copy, size_t n,
			       unsigned char *to)
{
	uint32_t count = 0;
	size_t begin = 0, end = 0;
	for (size_t i = 0; i < n; i++) {
		if (from[i] == copy[i])
			continue;
		bool joins = count > 0 &&
			     (i < end + NEAR || count == RECORD_STRETCHES);
		if (!joins) {
			begin = i;
			count++;
		}
		end = i + 1;
		unsigned char *stretch = to + (count - 1) * RECORD_STRETCH;
		record_put32(stretch, (uint32_t)begin);
		record_put32(stretch + 4, (uint32_t)(end - begin));
	}
	return count;
}

/* Numbers, stretches, the original and the copy, in one piece of memory. */
enum { REDACTING = RECORD_REDACTED + RECORD_STRETCHES * RECORD_STRETCH };

unsigned char *redact_chunk(const struct ss_record_options *options,
			    struct ss_record_chunk *chunk,
			    const struct iovec *from, int from_count,
			    struct record *record, struct iovec *iov)
{
	size_t n = chunk->size;
	unsigned char *memory = sys_malloc(REDACTING + 2 * n);
	if (!memory)
		return NULL;
	unsigned char *original = memory + REDACTING, *copy = original + n;
	redact_flatten(original, from, from_count, n);
	memcpy(copy, original, n);
	chunk->bytes = copy;
	options->redact(options->redact_arg, chunk);
	size_t kept = chunk->size < n ? chunk->size : n;
	uint32_t count =
		find_stretches(original, copy, kept, memory + RECORD_REDACTED);
	iov[0] = (struct iovec){ memory, 0 };
	iov[1] = (struct iovec){ copy, kept };
	if (count == 0 && kept == n)
		return memory;
	record->flags = RECORD_IS_REDACTED;
	record_put32(memory, (uint32_t)n);
	record_put32(memory + 4, count);
	iov[0].iov_len = RECORD_REDACTED + (size_t)count * RECORD_STRETCH;
	return memory;
}
