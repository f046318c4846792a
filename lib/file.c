/* A FILE over a request's stream, for code that wants stdio. */
#include "internal.h"

/* glibc and musl have cookies, bionic has not. */
#if defined(__linux__) && !defined(__ANDROID__)

static ssize_t answer(ssize_t r)
{
	if (r >= 0)
		return r;
	errno = (int)-r;
	return -1;
}

static ssize_t file_read(void *cookie, char *buf, size_t n)
{
	struct ss_request *req = cookie;
	/* stdio asks again at end of file; it gets the same answer. */
	ssize_t r = req->eof_told ? 0 : ss_read(req, buf, n);
	return answer(r);
}

/* glibc takes 0 for an error, never -1 (fopencookie(3)); the others -1. */
static ssize_t file_write(void *cookie, const char *buf, size_t n)
{
	ssize_t r = answer(ss_write(cookie, buf, n));
#ifdef __GLIBC__
	return r < 0 ? 0 : r;
#else
	return r;
#endif
}

static int file_forget(void *cookie)
{
	struct ss_request *req = cookie;
	req->rare->file = NULL;
	return 0;
}

FILE *ss_file(struct ss_request *req)
{
	static const cookie_io_functions_t functions = {
		.read = file_read,
		.write = file_write,
		.close = file_forget,
	};
	struct rare *rare = request_rare(req);
	if (!rare) {
		errno = ENOMEM;
		return NULL;
	}
	if (rare->file)
		return rare->file;
	rare->file = fopencookie(req, "r+", functions);
	/* With a buffer, writing after reading would want to seek back. */
	if (rare->file)
		setvbuf(rare->file, NULL, _IONBF, 0);
	return rare->file;
}

#else

/* The same without a FILE of its own kind is not possible in POSIX. */
FILE *ss_file(struct ss_request *req)
{
	(void)req;
	errno = ENOTSUP;
	return NULL;
}

#endif

void file_close(struct ss_request *req)
{
	if (req->rare && req->rare->file)
		fclose(req->rare->file);
}
