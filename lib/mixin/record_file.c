/*
 * Recordings, byte by byte.  All that is read here may be anybody's: each
 * number is held against what there is before it is used.
 */
#include "record_file.h"

#include <errno.h>
#include <string.h>

#include "crc32c.h"

static const char magic[8] = { 'S', 'S', 'R', 'E', 'C', 'O', 'R', 'D' };

/* Where things lie in a record's head. */
enum { AT_CHECK = 0, AT_SIZE = 4, AT_ID = 8, AT_TIME = 16, AT_KIND = 24 };

/* A fixed part before the text or bytes. */
enum {
	BEGIN_FIXED = 12,
	ELSEWHERE_FIXED = 2,
	LEFT_OUT_FIXED = 17,
	ERROR_FIXED = 4,
};

/* ---- numbers, in network byte order ---------------------------------------*/

void record_put16(unsigned char *to, uint32_t value)
{
	to[0] = (unsigned char)(value >> 8);
	to[1] = (unsigned char)value;
}

void record_put32(unsigned char *to, uint32_t value)
{
	record_put16(to, value >> 16);
	record_put16(to + 2, value);
}

void record_put64(unsigned char *to, uint64_t value)
{
	record_put32(to, (uint32_t)(value >> 32));
	record_put32(to + 4, (uint32_t)value);
}

static uint32_t get16(const unsigned char *from)
{
	return (uint32_t)from[0] << 8 | from[1];
}

uint32_t record_get32(const unsigned char *from)
{
	return get16(from) << 16 | get16(from + 2);
}

static uint64_t get64(const unsigned char *from)
{
	return (uint64_t)record_get32(from) << 32 | record_get32(from + 4);
}

/* ---- writing --------------------------------------------------------------*/

void record_put_file_head(unsigned char to[RECORD_FILE_HEAD])
{
	memcpy(to, magic, sizeof(magic));
	record_put32(to + 8, RECORD_FILE_VERSION);
	record_put32(to + 12, 0);
}

void record_put_head(unsigned char to[RECORD_HEAD], const struct record *record,
		     const struct iovec *iov, int count, size_t size)
{
	record_put32(to + AT_SIZE, (uint32_t)size);
	record_put64(to + AT_ID, record->id);
	record_put64(to + AT_TIME, record->at_us);
	to[AT_KIND] = (unsigned char)record->kind;
	to[AT_KIND + 1] = (unsigned char)record->flags;
	record_put16(to + AT_KIND + 2, 0);
	uint32_t check = crc32c(0, to + AT_SIZE, RECORD_HEAD - AT_SIZE);
	for (int i = 0; i < count; i++)
		check = crc32c(check, iov[i].iov_base, iov[i].iov_len);
	record_put32(to + AT_CHECK, check);
}

/* ---- reading --------------------------------------------------------------*/

static int bad(const char **why, const char *text)
{
	*why = text;
	return -EBADMSG;
}

int record_check_file_head(const void *bytes, size_t n, const char **why)
{
	const unsigned char *head = bytes;
	if (n < sizeof(magic) || memcmp(head, magic, sizeof(magic)) != 0)
		return bad(why, "this is no recording");
	if (n < RECORD_FILE_HEAD)
		return bad(why, "the file ends in its head");
	if (record_get32(head + 8) != RECORD_FILE_VERSION)
		return bad(why, "it is of another version");
	if (record_get32(head + 12) != 0)
		return bad(why, "the head has what is not known");
	return 0;
}

/* One after another, without touching, within the chunk. */
static int check_stretches(const struct record *record, const char **why)
{
	uint64_t end = 0;
	for (uint32_t i = 0; i < record->hidden_count; i++) {
		const unsigned char *stretch =
			record->hidden + (size_t)i * RECORD_STRETCH;
		uint64_t from = record_get32(stretch);
		uint64_t size = record_get32(stretch + 4);
		if (size == 0 || (i > 0 && from <= end) ||
		    from + size > record->kept)
			return bad(why, "a redacted stretch is not in its "
					"place");
		end = from + size;
	}
	return 0;
}

static int read_redacted(const unsigned char *at, size_t n,
			 struct record *record, const char **why)
{
	if (n < RECORD_REDACTED)
		return bad(why, "it is too short for what it is");
	uint32_t count = record_get32(at + 4);
	record->size = record_get32(at);
	if (count > RECORD_STRETCHES ||
	    n - RECORD_REDACTED < (size_t)count * RECORD_STRETCH)
		return bad(why, "it is too short for what was redacted");
	record->hidden = at + RECORD_REDACTED;
	record->hidden_count = count;
	record->bytes = record->hidden + (size_t)count * RECORD_STRETCH;
	record->kept = n - RECORD_REDACTED - (size_t)count * RECORD_STRETCH;
	if (record->size < record->kept || record->size > RECORD_MOST)
		return bad(why, "more was kept than there was");
	return check_stretches(record, why);
}

static int read_chunk(const unsigned char *at, size_t n, struct record *record,
		      const char **why)
{
	if (record->flags & RECORD_IS_REDACTED)
		return read_redacted(at, n, record, why);
	record->bytes = at;
	record->kept = record->size = n;
	return n > RECORD_MOST ? bad(why, "it is too long") : 0;
}

static int read_elsewhere(const unsigned char *at, size_t n,
			  struct record *record, const char **why)
{
	size_t text = n < ELSEWHERE_FIXED ? n : get16(at);
	if (n < ELSEWHERE_FIXED || n - ELSEWHERE_FIXED < text)
		return bad(why, "it is too short for what it is");
	record->text = at + ELSEWHERE_FIXED;
	record->text_size = text;
	return read_chunk(at + ELSEWHERE_FIXED + text,
			  n - ELSEWHERE_FIXED - text, record, why);
}

static int read_text(const unsigned char *at, size_t n, size_t fixed,
		     struct record *record, const char **why)
{
	if (n < fixed || n - fixed >= SS_ADDRESS_TEXT)
		return bad(why, "its text is not as long as it may be");
	record->text = at + fixed;
	record->text_size = n - fixed;
	if (memchr(record->text, '\0', record->text_size))
		return bad(why, "its text has a NUL");
	return 0;
}

static int read_begin(const unsigned char *at, size_t n, struct record *record,
		      const char **why)
{
	if (n >= BEGIN_FIXED) {
		record->began_ms = get64(at);
		record->pid = record_get32(at + 8);
	}
	return read_text(at, n, BEGIN_FIXED, record, why);
}

static int read_left_out(const unsigned char *at, size_t n,
			 struct record *record, const char **why)
{
	if (n != LEFT_OUT_FIXED)
		return bad(why, "it is not as long as it should be");
	record->left_in = get64(at);
	record->left_out = get64(at + 8);
	record->reason = at[16];
	if (record->reason < SS_RECORDED_ENOUGH ||
	    record->reason > SS_RECORDED_NO_MEMORY)
		return bad(why, "it gives a reason that is not known");
	return 0;
}

static int read_error(const unsigned char *at, size_t n, struct record *record,
		      const char **why)
{
	uint32_t error = n == ERROR_FIXED ? record_get32(at) : UINT32_MAX;
	if (error > 4095)
		return bad(why, "its error is none");
	record->error = -(int)error;
	return 0;
}

static int read_body(const unsigned char *at, size_t n, struct record *record,
		     const char **why)
{
	switch (record->kind) {
	case RECORD_BEGIN:
		return read_begin(at, n, record, why);
	case SS_RECORDED_OPEN:
		return read_text(at, n, 0, record, why);
	case SS_RECORDED_INPUT:
	case SS_RECORDED_OUTPUT:
		return read_chunk(at, n, record, why);
	case SS_RECORDED_ELSEWHERE:
		return read_elsewhere(at, n, record, why);
	case SS_RECORDED_INPUT_END:
	case SS_RECORDED_OUTPUT_END:
		return n > 0 ? bad(why, "it is longer than it should be") : 0;
	case SS_RECORDED_LEFT_OUT:
		return read_left_out(at, n, record, why);
	case SS_RECORDED_BROKEN:
	case SS_RECORDED_END:
		return read_error(at, n, record, why);
	default:
		return bad(why, "it is of a kind that is not known");
	}
}

int record_next(const void *bytes, size_t n, size_t *at, struct record *record,
		const char **why)
{
	const unsigned char *head = (const unsigned char *)bytes + *at;
	size_t left = n - *at;
	if (left == 0)
		return 0;
	if (left < RECORD_HEAD)
		return bad(why, "the file ends in the head of a record");
	size_t size = record_get32(head + AT_SIZE);
	if (size > left - RECORD_HEAD)
		return bad(why, "the file ends in a record, or this is none");
	if (record_get32(head) !=
	    crc32c(0, head + AT_SIZE, RECORD_HEAD - AT_SIZE + size))
		return bad(why, "the check of a record is wrong");
	memset(record, 0, sizeof(*record));
	record->id = get64(head + AT_ID);
	record->at_us = get64(head + AT_TIME);
	record->kind = head[AT_KIND];
	record->flags = head[AT_KIND + 1];
	if (record->flags > 1 || get16(head + AT_KIND + 2) != 0 ||
	    record->at_us > INT64_MAX)
		return bad(why, "a record's head has what is not known");
	int r = read_body(head + RECORD_HEAD, size, record, why);
	if (r < 0)
		return r;
	*at += RECORD_HEAD + size;
	return 1;
}
