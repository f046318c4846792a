/*
 * All that reads a stream, in any order, against a reader that has all of the
 * input before it.  The input: the read buffer's size, how the rest is cut,
 * what to call, each a NUL-terminated list of bytes; behind them the stream.
 */
#include "fuzz.h"

#include <stdio.h>

enum { SIZE = 300, CALLS = 200 };

enum call {
	LINE,
	NETSTRING,
	FRAME1,
	FRAME2,
	FRAME4,
	FRAME8,
	FULL,
	PEEK,
	SKIP,
	READ,
	TRY_READ,
	CALL_KINDS
};

/* What one call is to answer. */
struct answer {
	ssize_t r;
	size_t consumed;
	const uint8_t *bytes; /* that it stores */
	bool end;
};

/* The reader that has it all. */
struct model {
	struct input stream;
	bool told; /* of the end */
	size_t room;
};

static struct input script;
static struct model model;

/* ---- what is right --------------------------------------------------------*/

static struct answer at_end(struct model *m)
{
	struct answer a = { .r = m->told ? -ENODATA : 0, .end = true };
	m->told = true;
	return a;
}

static struct answer taken(const struct model *m, size_t skip, size_t n,
			   size_t trailer)
{
	return (struct answer){ .r = (ssize_t)n,
				.consumed = skip + n + trailer,
				.bytes = m->stream.at + skip };
}

static struct answer fails(int code)
{
	return (struct answer){ .r = code };
}

static struct answer line(struct model *m, size_t size)
{
	struct input rest = m->stream;
	size_t n = take_until(&rest, '\n').left;
	n += n < m->stream.left;
	if (size < 2)
		return fails(-EINVAL);
	if (n > size - 1)
		return fails(-EMSGSIZE);
	return n ? taken(m, 0, n, 0) : at_end(m);
}

/* As the RFC-like text at cr.yp.to has it: no leading zeros, nine digits and
 * one more that is allowed. */
static struct answer netstring(struct model *m, size_t size)
{
	const struct input *s = &m->stream;
	uint64_t n = 0;
	size_t i = 0;
	if (!s->left)
		return at_end(m);
	for (; i < s->left && s->at[i] >= '0' && s->at[i] <= '9'; i++) {
		if ((i && !n) || i == 10)
			return fails(-EPROTO);
		n = n * 10 + (s->at[i] - '0');
	}
	if (i == 0 || (i < s->left && s->at[i] != ':') || i == s->left)
		return fails(-EPROTO);
	if (n > size)
		return fails(-EMSGSIZE);
	if (s->left - i - 1 < n + 1 || s->at[i + 1 + n] != ',')
		return fails(-EPROTO);
	return taken(m, i + 1, n, 1);
}

static struct answer frame(struct model *m, size_t width, size_t size)
{
	const struct input *s = &m->stream;
	uint64_t n = 0;
	if (!s->left)
		return at_end(m);
	if (s->left < width)
		return fails(-EPROTO);
	for (size_t i = 0; i < width; i++)
		n = n << 8 | s->at[i];
	if (n > size)
		return fails(-EMSGSIZE);
	if (s->left - width < n)
		return fails(-EPROTO);
	return taken(m, width, n, 0);
}

static struct answer at_most(struct model *m, size_t n)
{
	if (!n)
		return taken(m, 0, 0, 0);
	if (!m->stream.left)
		return at_end(m);
	return taken(m, 0, n < m->stream.left ? n : m->stream.left, 0);
}

/* How many it points at depends on how they came. */
static struct answer peek(struct model *m, size_t n)
{
	struct answer a;
	if (n > m->room)
		return fails(-EMSGSIZE);
	a = at_most(m, n);
	a.consumed = 0;
	return a;
}

static struct answer expected(enum call call, struct model *m, size_t size)
{
	switch (call) {
	case LINE:
		return line(m, size);
	case NETSTRING:
		return netstring(m, size);
	case FRAME1:
	case FRAME2:
	case FRAME4:
	case FRAME8:
		return frame(m, (size_t)1 << (call - FRAME1), size);
	case PEEK:
		return peek(m, size);
	default:
		return at_most(m, size);
	}
}

/* ---- what is done ---------------------------------------------------------*/

/* The buffer is no longer than it is said to be. */
static ssize_t call_it(struct ss_request *req, enum call call, char *buf,
		       size_t size, bool *end)
{
	const void *data = NULL;
	ssize_t r;
	switch (call) {
	case LINE:
		r = ss_read_line(req, buf, size);
		must(r <= 0 || buf[r] == '\0', "a line is not terminated");
		return r;
	case NETSTRING:
		return ss_read_netstring(req, buf, size, end);
	case FRAME1:
	case FRAME2:
	case FRAME4:
	case FRAME8:
		return ss_read_frame(req, 1 << (call - FRAME1), buf, size, end);
	case FULL:
		return ss_read_full(req, buf, size);
	case PEEK:
		r = ss_peek(req, &data, size);
		if (r > 0 && size)
			memcpy(buf, data, (size_t)r < size ? (size_t)r : size);
		return r;
	case SKIP:
		return ss_skip(req, size);
	case READ:
		return ss_read(req, buf, size);
	default:
		return ss_try_read(req, buf, size);
	}
}

/* Those that may answer with less than there is are believed, within limits. */
static void believe(enum call call, ssize_t r, size_t size, struct answer *a)
{
	bool less = call == READ || call == TRY_READ;
	if (call == TRY_READ && r == -EAGAIN) {
		model.told &= a->r != 0;
		*a = fails(-EAGAIN);
	}
	if (less && r > 0 && r < a->r) {
		a->r = r;
		a->consumed = (size_t)r;
	}
	if (call == PEEK && a->r >= 0 && r >= 0 && (a->r > 0 || !size)) {
		must(r >= a->r && (size_t)r <= model.stream.left,
		     "peek(%zu): %zd", size, r);
		a->r = r;
	}
}

static void step(struct ss_request *req, enum call call, size_t size)
{
	bool end = false, framed = call >= NETSTRING && call <= FRAME8;
	char *buf = malloc(size ? size : 1);
	must(buf, "no memory");
	bool told = model.told;
	struct answer a = expected(call, &model, size);
	ssize_t r = call_it(req, call, buf, size, &end);
	if (call == TRY_READ && r == -EAGAIN)
		model.told = told;
	believe(call, r, size, &a);
	must(r == a.r, "call %d of %zu: %zd instead of %zd, %zu bytes left",
	     (int)call, size, r, a.r, model.stream.left);
	must(!framed || end == a.end, "call %d: end %d", (int)call, end);
	size_t stored = call == SKIP || r < 0 ? 0 : (size_t)r;
	if (call == PEEK && stored > size)
		stored = size;
	must(!stored || memcmp(buf, a.bytes, stored) == 0,
	     "call %d of %zu: other bytes", (int)call, size);
	free(buf);
	if (a.consumed)
		model.stream.at += a.consumed;
	model.stream.left -= a.consumed;
}

/* As the script has it, over and over while it reads on. */
static int handle(struct ss_request *req)
{
	struct input rest = script;
	for (int i = 0; i < CALLS && rest.left; i++) {
		enum call call = (enum call)(take_byte(&rest) % CALL_KINDS);
		size_t size = take_byte(&rest);
		size_t before = model.stream.left;
		step(req, call, size > 200 ? (size - 200) * 6 : size);
		if (!rest.left && model.stream.left < before)
			rest = script;
	}
	struct iovec all = { NULL, 0 };
	return ss_writev(req, &all, 1) < 0 ? -EPIPE : 0;
}

static int buffer_size(uint8_t byte)
{
	return byte == 0 ? 0 : byte == 1 ? SS_NONE : byte - 1;
}

FUZZ_TARGET(readers)(const uint8_t *data, size_t n)
{
	struct input in = { data, n };
	struct ss_handler handler = { .handle = handle,
				      .rbufsize = buffer_size(take_byte(&in)) };
	const struct ss_config config = { .handler = &handler };
	struct input cuts = take_until(&in, '\0');
	script = take_until(&in, '\0');
	const enum way ways[] = { WHOLE, way_of(cuts) };
	for (size_t i = 0; i < 2; i++) {
		model = (struct model){
			.stream = in,
			.room = handler.rbufsize > 0 ? (size_t)handler.rbufsize
						     : 8192,
		};
		struct served served =
			serve_one(&config, ways[i], cuts, in.at, in.left);
		must(served.status == 0, "%s: %d", way_names[ways[i]],
		     served.status);
		served_free(&served);
	}
	return 0;
}
