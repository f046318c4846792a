/* The file of a recording, as it is written. */
#include "record_writer.h"

#include <errno.h>
#include <string.h>

#include "../sys.h"

/* ---- records --------------------------------------------------------------*/

bool writer_claim(struct writer *writer, uint64_t n)
{
	struct writer_shared *shared = writer->shared;
	int64_t most = writer->max_file;
	if (atomic_load(&shared->error))
		return false;
	uint64_t end = atomic_fetch_add(&shared->claimed, n) + n;
	if (most == SS_NONE || end <= (uint64_t)most)
		return true;
	atomic_fetch_sub(&shared->claimed, n);
	return false;
}

/* The first one says it. */
static void fail(struct writer *writer, int code, const char *what)
{
	int none = 0;
	if (atomic_compare_exchange_strong(&writer->shared->error, &none, code))
		ss_log(writer->server, SS_LOG_ERROR, 0,
		       "record: %s: nothing is written from here on",
		       what ? what : strerror(-code));
}

/* What stands behind it is of no use where only a part was written, but nobody
 * may wait here for others to write no more. */
static void append(struct writer *writer, const struct iovec *iov, int count,
		   size_t size)
{
	int stall = writer->stall_ms;
	int64_t before = sys_now_ms();
	ssize_t n;
	do
		n = sys_writev(writer->fd, iov, count);
	while (n == -1 && errno == EINTR);
	if (n == -1)
		fail(writer, -errno, NULL);
	else if ((size_t)n < size)
		fail(writer, -ENOSPC, NULL);
	else if (stall != SS_NONE && sys_now_ms() - before > stall)
		fail(writer, -ETIMEDOUT, "the disk does not keep up");
}

void writer_put(struct writer *writer, struct record *record, struct iovec *iov,
		int count, size_t size)
{
	unsigned char head[RECORD_HEAD];
	int64_t passed =
		ss_self(writer->server)->now(writer->server) - writer->began;
	if (atomic_load(&writer->shared->error))
		return;
	record->at_us = passed > 0 ? (uint64_t)passed * 1000 : 0;
	record_put_head(head, record, iov + 1, count - 1, size);
	iov[0] = (struct iovec){ head, sizeof(head) };
	append(writer, iov, count, sizeof(head) + size);
	iov[0] = (struct iovec){ NULL, 0 };
}

void writer_put_small(struct writer *writer, struct record record,
		      const void *body, size_t size)
{
	struct iovec iov[2] = { { NULL, 0 }, { (void *)body, size } };
	writer_put(writer, &record, iov, 2, size);
}

void writer_put_left_out(struct writer *writer, uint64_t id, uint64_t in,
			 uint64_t out, unsigned char reason)
{
	unsigned char body[WRITER_LEFT_OUT - RECORD_HEAD];
	record_put64(body, in);
	record_put64(body + 8, out);
	body[16] = reason;
	writer_put_small(
		writer,
		(struct record){ .kind = SS_RECORDED_LEFT_OUT, .id = id }, body,
		sizeof(body));
}

void writer_put_error(struct writer *writer, uint64_t id, unsigned kind,
		      unsigned flags, int error)
{
	unsigned char body[WRITER_END - RECORD_HEAD];
	record_put32(body, error < 0 && error > -4096 ? (uint32_t)-error : 0);
	writer_put_small(
		writer,
		(struct record){ .kind = kind, .flags = flags, .id = id }, body,
		sizeof(body));
}

/* ---- the file -------------------------------------------------------------*/

/* With the process's number for "%p"; NULL: no memory. */
static char *name_file(const char *path)
{
	char number[24];
	const char *place = strstr(path, "%p");
	size_t room = strlen(path) + sizeof(number);
	char *name = sys_malloc(room);
	if (!name)
		return NULL;
	snprintf(number, sizeof(number), "%ld", (long)sys_getpid());
	if (place)
		snprintf(name, room, "%.*s%s%s", (int)(place - path), path,
			 number, place + 2);
	else
		snprintf(name, room, "%s", path);
	return name;
}

static int make_file(struct writer *writer, const char *path)
{
	const int flags =
		O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY;
	writer->path = name_file(path);
	if (!writer->path)
		return -ENOMEM;
	writer->fd = sys_open(writer->path, flags, 0600);
	if (writer->fd != -1)
		return 0;
	return ss_refuse(writer->server, -errno, "record: %s: %s", writer->path,
			 strerror(errno));
}

static int begin_file(struct writer *writer)
{
	const char *text = ss_server_describe(writer->server);
	unsigned char file[RECORD_FILE_HEAD], head[RECORD_HEAD], fixed[12];
	size_t n = strlen(text);
	struct record record = { .kind = RECORD_BEGIN };
	if (n >= SS_ADDRESS_TEXT)
		n = SS_ADDRESS_TEXT - 1;
	struct iovec iov[4] = { { file, sizeof(file) },
				{ head, sizeof(head) },
				{ fixed, sizeof(fixed) },
				{ (void *)text, n } };
	size_t size = sizeof(file) + sizeof(head) + sizeof(fixed) + n;
	record_put_file_head(file);
	record_put64(fixed, (uint64_t)sys_wall_ms());
	record_put32(fixed + 8, (uint32_t)sys_getpid());
	record_put_head(head, &record, iov + 2, 2, sizeof(fixed) + n);
	/* With what tells at the end what was left out. */
	if (!writer_claim(writer, size + WRITER_LEFT_OUT))
		return ss_refuse(writer->server, -EINVAL,
				 "record: max_file is %lld: too little",
				 (long long)writer->max_file);
	append(writer, iov, 4, size);
	int error = atomic_load(&writer->shared->error);
	return error ? ss_refuse(writer->server, error, "record: %s: %s",
				 writer->path, strerror(-error))
		     : 0;
}

void writer_close(struct writer *writer, bool unlinks)
{
	if (writer->fd >= 0 && unlinks)
		sys_unlink(writer->path);
	if (writer->fd >= 0)
		sys_close(writer->fd);
	sys_free(writer->path);
	if (writer->shared)
		ss_shared_free(writer->shared, sizeof(*writer->shared));
}

int writer_open(struct writer *writer, const char *path)
{
	writer->fd = -1;
	writer->shared = ss_shared_alloc(sizeof(*writer->shared));
	int r = writer->shared ? make_file(writer, path) : -ENOMEM;
	if (r == 0)
		r = begin_file(writer);
	if (r < 0)
		writer_close(writer, true);
	return r;
}

void writer_begin_clock(struct writer *writer)
{
	if (!writer->begun)
		writer->began = ss_self(writer->server)->now(writer->server);
	writer->begun = true;
}

void writer_tell_left_out(struct writer *writer)
{
	struct writer_shared *shared = writer->shared;
	uint64_t connections = atomic_load(&shared->left_connections);
	uint64_t bytes = atomic_load(&shared->left_bytes);
	if (!connections && !bytes)
		return;
	writer_put_left_out(writer, 0, connections, bytes, SS_RECORDED_FULL);
	ss_log(writer->server, SS_LOG_WARNING, 0,
	       "record: %llu bytes were left out, and %llu connections wholly",
	       (unsigned long long)bytes, (unsigned long long)connections);
}
