/* What the fuzz targets share. */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>

void fuzz_fail(const char *file, int line, const char *condition,
	       const char *fmt, ...)
{
	va_list args;
	fprintf(stderr, "%s:%d: must hold: %s: ", file, line, condition);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	abort();
}

/* ---- an input, taken apart ------------------------------------------------*/

uint8_t take_byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

struct input take_until(struct input *in, uint8_t end)
{
	struct input part = *in;
	const uint8_t *found = in->left ? memchr(in->at, end, in->left) : NULL;
	if (found)
		part.left = (size_t)(found - in->at);
	size_t used = part.left + (found != NULL);
	if (used)
		in->at += used;
	in->left -= used;
	return part;
}

void *exact_copy(const void *bytes, size_t n)
{
	void *copy = malloc(n ? n : 1);
	must(copy, "no memory");
	if (n)
		memcpy(copy, bytes, n);
	return copy;
}

char *exact_text(struct input text)
{
	size_t n = text.left ? strnlen((const char *)text.at, text.left) : 0;
	char *copy = malloc(n + 1);
	must(copy, "no memory");
	if (n)
		memcpy(copy, text.at, n);
	copy[n] = '\0';
	return copy;
}

bool plain_text(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return true;
}

/* ---- reads that stop short ------------------------------------------------*/

const char *const way_names[] = { "whole", "in pieces", "parked" };

/* Of the one client there is. */
static struct {
	struct input cuts;
	size_t left; /* of the piece */
	int begun, ended, status;
} now;

static size_t next_piece(void)
{
	return now.cuts.left ? (size_t)take_byte(&now.cuts) + 1 : SIZE_MAX;
}

/* Before each piece it would block, for no time. */
static ssize_t cut_read(struct ss_channel *channel, void *buf, size_t n,
			struct ss_block *block)
{
	if (!now.left) {
		now.left = next_piece();
		*block = (struct ss_block){
			.until = ss_now(ss_request_server(channel->req)),
		};
		return now.left % 3 ? -EAGAIN : -EINTR;
	}
	ssize_t r = ss_channel_read(channel->next, buf,
				    n < now.left ? n : now.left, block);
	if (r > 0 && now.left != SIZE_MAX)
		now.left -= (size_t)r;
	return r;
}

static const struct ss_channel_ops cut_ops = { .read = cut_read };

static const struct ss_layer cut_layer;

static int cut_finish(struct ss_server *server, struct ss_request *req)
{
	ss_channel_push(req, ss_request_layer_state(req, &cut_layer), &cut_ops);
	return ss_super(server, &cut_layer)->finish_request(server, req);
}

static const struct ss_layer cut_layer = {
	.name = "cut",
	.request_size = sizeof(struct ss_channel),
	.ops = { .finish_request = cut_finish },
};

/* ---- a client over memory -------------------------------------------------*/

static const struct ss_layer count_layer;

static int count_verify(struct ss_server *server, struct ss_request *req)
{
	now.begun++;
	return ss_super(server, &count_layer)->verify_request(server, req);
}

static void count_end(struct ss_server *server, struct ss_request *req,
		      int status)
{
	now.ended++;
	now.status = status;
	ss_super(server, &count_layer)->end_request(server, req, status);
}

static const struct ss_layer count_layer = {
	.name = "count",
	.ops = { .verify_request = count_verify, .end_request = count_end },
};

/* The layers of the configuration, and ours around them. */
static struct ss_config with_layers(const struct ss_config *given, enum way way)
{
	static const struct ss_fiber_options one_loop = { .loops = 1 };
	struct ss_config config = *given;
	struct ss_use *use = config.mixins;
	*use++ = (struct ss_use){ .layer = &count_layer };
	if (way == PIECES)
		*use++ = (struct ss_use){ .layer = &cut_layer };
	for (const struct ss_use *more = given->mixins; more->layer; more++)
		*use++ = *more;
	if (way == PARKED)
		*use++ = (struct ss_use){ &ss_fiber_mixin, &one_loop };
	*use = (struct ss_use){ .layer = NULL };
	config.transport = &ss_memory_server;
	config.addresses[0] = NULL;
	config.log_level = SS_NONE;
	return config;
}

static void send_pieces(struct ss_server *server,
			struct ss_memory_client *client, enum way way,
			const unsigned char *bytes, size_t n)
{
	while (n) {
		size_t piece = way == PARKED ? next_piece() : n;
		if (piece > n)
			piece = n;
		ssize_t r = ss_memory_send(client, bytes, piece);
		if (r == -EPIPE)
			break; /* the handler has heard enough */
		must(r == (ssize_t)piece, "send: %zd", r);
		bytes += piece;
		n -= piece;
		if (way == PARKED)
			must(ss_server_turn(server, 0) >= 0, "turn");
	}
	ss_memory_shutdown(client);
}

static struct served hear_out(struct ss_memory_client *client)
{
	struct served served = { .answer = NULL };
	size_t room = 0;
	ssize_t r;
	do {
		if (room - served.n < 4096) {
			room += 65536;
			served.answer = realloc(served.answer, room);
			must(served.answer, "no memory");
		}
		r = ss_memory_recv(client, served.answer + served.n,
				   room - served.n);
		if (r > 0)
			served.n += (size_t)r;
	} while (r > 0);
	must(r == 0, "recv: %zd", r);
	return served;
}

struct served serve_one(const struct ss_config *given, enum way way,
			struct input cuts, const void *bytes, size_t n)
{
	struct ss_config config = with_layers(given, way);
	struct ss_server *server;
	struct ss_memory_client *client;
	struct ss_diag why;
	memset(&now, 0, sizeof(now));
	now.cuts = cuts;
	must(ss_server_new(&server, &config, &why) == 0, "%s", why.text);
	must(ss_memory_connect(server, &client) == 0, "connect");
	send_pieces(server, client, way, bytes, n);
	struct served served = hear_out(client);
	ss_memory_close(client);
	must(ss_server_free(server) == 0, "free");
	must(now.begun == 1 && now.ended == 1, "%d began, %d ended", now.begun,
	     now.ended);
	served.status = now.status;
	return served;
}

void served_free(struct served *served)
{
	free(served->answer);
}

void must_be_same(const struct served *one, const struct served *other,
		  enum way way)
{
	must(one->status == other->status, "%d whole, %d %s", one->status,
	     other->status, way_names[way]);
	must(one->n == other->n &&
		     memcmp(one->answer, other->answer, one->n) == 0,
	     "%s: '%.*s' whole, '%.*s'", way_names[way], (int)one->n,
	     (const char *)one->answer, (int)other->n,
	     (const char *)other->answer);
}
