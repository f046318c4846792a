/* Framing: netstrings, and lengths of 1, 2, 4 or 8 bytes before the payload. */
#include "internal.h"

#include <stdio.h>

enum { DIGITS = 10 };

/* n bytes of a frame that begins: 0 and *end if the input ended before it. */
static int need(struct ss_request *req, size_t n, bool *end)
{
	while (stream_buffered(req) < n) {
		size_t room = stream_room(req), there = stream_buffered(req);
		size_t want = n - there;
		if (room > there && room - there > want)
			want = room - there;
		ssize_t r = stream_fill(req, want);
		if (r < 0)
			return (int)r;
		if (r > 0)
			continue;
		if (stream_buffered(req))
			return ss_fail(req, -EPROTO,
				       "the input ended within a frame");
		*end = true;
		return (int)stream_eof(req);
	}
	return 1;
}

/* The header is in the buffer and stays there until the payload is too. */
static ssize_t take_frame(struct ss_request *req, size_t header, size_t n,
			  size_t trailer, void *buf, size_t size)
{
	if (n > size)
		return ss_fail(req, -EMSGSIZE,
			       "a frame of %zu bytes is longer than %zu", n,
			       size);
	bool end = false;
	int r = need(req, header + n + trailer, &end);
	if (r < 0)
		return r;
	if (trailer && stream_data(req)[header + n] != ',')
		return ss_fail(req, -EPROTO, "a netstring ends without ','");
	if (n)
		memcpy(buf, stream_data(req) + header, n);
	stream_consume(req, header + n + trailer);
	stream_message_done(req);
	return (ssize_t)n;
}

/* What no caller's memory holds, where size_t cannot tell it. */
static size_t frame_size(uint64_t n)
{
	return n < SSIZE_MAX - 8 ? (size_t)n : SSIZE_MAX - 8;
}

/* ---- netstrings -----------------------------------------------------------*/

/* LENGTH ":", without leading zeros; *header counts its bytes. */
static int netstring_length(struct ss_request *req, size_t *length,
			    size_t *header, bool *end)
{
	uint64_t n = 0;
	for (size_t i = 0; i <= DIGITS; i++) {
		int r = need(req, i + 1, end);
		if (r < 0 || *end)
			return r;
		unsigned char c = stream_data(req)[i];
		if (c == ':' && i) {
			*header = i + 1;
			*length = frame_size(n);
			return 1;
		}
		if (c < '0' || c > '9' || (i && !n))
			break;
		n = n * 10 + (c - '0');
	}
	return ss_fail(req, -EPROTO, "no netstring: its length is malformed");
}

ssize_t ss_read_netstring(struct ss_request *req, void *buf, size_t size,
			  bool *end)
{
	bool ended = false;
	size_t header = 0, n = 0;
	int r = netstring_length(req, &n, &header, &ended);
	if (end)
		*end = ended;
	if (r < 0 || ended)
		return r;
	return take_frame(req, header, n, 1, buf, size);
}

ssize_t ss_write_netstring(struct ss_request *req, const void *buf, size_t n)
{
	char head[24];
	int length = snprintf(head, sizeof(head), "%zu:", n);
	struct iovec iov[] = {
		{ head, (size_t)length },
		{ (void *)buf, n },
		{ (void *)",", 1 },
	};
	ssize_t r = ss_writev(req, iov, 3);
	return r < 0 ? r : (ssize_t)n;
}

/* ---- length prefixes ------------------------------------------------------*/

static bool width_known(int width)
{
	return width == 1 || width == 2 || width == 4 || width == 8;
}

ssize_t ss_read_frame(struct ss_request *req, int width, void *buf, size_t size,
		      bool *end)
{
	bool ended = false;
	if (!width_known(width))
		return -EINVAL;
	int r = need(req, (size_t)width, &ended);
	if (end)
		*end = ended;
	if (r < 0 || ended)
		return r;
	uint64_t n = 0;
	for (int i = 0; i < width; i++)
		n = n << 8 | stream_data(req)[i];
	return take_frame(req, (size_t)width, frame_size(n), 0, buf, size);
}

ssize_t ss_write_frame(struct ss_request *req, int width, const void *buf,
		       size_t n)
{
	unsigned char head[8];
	if (!width_known(width))
		return -EINVAL;
	if (width < 8 && (uint64_t)n >> (8 * width))
		return -EMSGSIZE;
	for (int i = 0; i < width; i++)
		head[i] = (unsigned char)((uint64_t)n >> (8 * (width - 1 - i)));
	struct iovec iov[] = { { head, (size_t)width }, { (void *)buf, n } };
	ssize_t r = ss_writev(req, iov, 2);
	return r < 0 ? r : (ssize_t)n;
}
