/* Recordings that a test makes up. */
#include "recordings.h"

#include "mixin/record_file.h"

struct made_up made_up;

void make_up(void)
{
	static const char began[13] = "\0\0\1\2\3\4\5\6\0\0\0\7x";
	made_up.at_ms = 0;
	made_up.size = RECORD_FILE_HEAD;
	record_put_file_head(made_up.bytes);
	add(RECORD_BEGIN, 0, 0, began, sizeof(began));
}

void add(unsigned kind, unsigned flags, uint64_t id, const void *body, size_t n)
{
	unsigned char *to = made_up.bytes + made_up.size;
	struct record record = { .kind = kind,
				 .flags = flags,
				 .id = id,
				 .at_us = made_up.at_ms * 1000 };
	struct iovec iov = { (void *)body, n };
	ck_assert_uint_lt(made_up.size + RECORD_HEAD + n,
			  sizeof(made_up.bytes));
	record_put_head(to, &record, &iov, 1, n);
	if (n)
		memcpy(to + RECORD_HEAD, body, n);
	made_up.size += RECORD_HEAD + n;
}

void add_text(unsigned kind, uint64_t id, const char *text)
{
	add(kind, 0, id, text, strlen(text));
}

void add_open(uint64_t id)
{
	add_text(SS_RECORDED_OPEN, id, "-");
}

void add_end(uint64_t id)
{
	add(SS_RECORDED_END, 0, id, "\0\0\0\0", 4);
}

void made_up_write(const char *path)
{
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(made_up.bytes, 1, made_up.size, file),
			  made_up.size);
	ck_assert_int_eq(fclose(file), 0);
}
