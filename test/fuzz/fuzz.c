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

/* ---- JSON -----------------------------------------------------------------*/

/* The bytes of one character, strictly (RFC 3629); 0: it is none. */
static size_t character(const unsigned char *s, size_t n)
{
	size_t more = s[0] < 0x80 ? 0 : s[0] < 0xe0 ? 1 : s[0] < 0xf0 ? 2 : 3;
	uint32_t value = more ? s[0] & (0x3fu >> more) : s[0];
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	if (s[0] >= 0xf8 || (s[0] >= 0x80 && s[0] < 0xc0) || more >= n)
		return 0;
	for (size_t i = 1; i <= more; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (s[i] & 0x3f);
	}
	bool surrogate = value >= 0xd800 && value <= 0xdfff;
	return value < least[more] || value > 0x10ffff || surrogate ? 0
								    : more + 1;
}

static size_t escape_length(const char *s, size_t n)
{
	if (n < 2 || !strchr("\"\\/bfnrtu", s[1]) || !s[1])
		return 0;
	if (s[1] != 'u')
		return 2;
	return n >= 6 && strspn(s + 2, "0123456789abcdefABCDEF") >= 4 ? 6 : 0;
}

static size_t json_string(const char *s, size_t n)
{
	size_t i = 1, used;
	for (; i < n && s[i] != '"'; i += used) {
		used = s[i] == '\\' ? escape_length(s + i, n - i)
				    : character((const void *)(s + i), n - i);
		if (!used || (unsigned char)s[i] < ' ')
			return 0;
	}
	return i < n ? i + 1 : 0;
}

static size_t json_number(const char *s, size_t n)
{
	size_t i = s[0] == '-', from = i;
	while (i < n && s[i] >= '0' && s[i] <= '9')
		i++;
	if (i == from || (s[from] == '0' && i > from + 1))
		return 0;
	if (i + 1 < n && s[i] == '.' && s[i + 1] >= '0' && s[i + 1] <= '9')
		for (i++; i < n && s[i] >= '0' && s[i] <= '9';)
			i++;
	return i;
}

static size_t blank(const char *s, size_t n)
{
	size_t i = 0;
	while (i < n && s[i] && strchr(" \t\r\n", s[i]))
		i++;
	return i;
}

/* [ ... ] or { "...": ... }. */
static size_t json_list(const char *s, size_t n)
{
	char end = s[0] == '[' ? ']' : '}';
	size_t i = 1 + blank(s + 1, n - 1), used;
	if (i < n && s[i] == end)
		return i + 1;
	for (; i < n; i++) {
		i += blank(s + i, n - i);
		if (end == '}') {
			used = i < n && s[i] == '"' ? json_string(s + i, n - i)
						    : 0;
			i += used;
			i += blank(s + i, n - i);
			if (!used || i >= n || s[i++] != ':')
				return 0;
			i += blank(s + i, n - i);
		}
		used = json_value(s + i, n - i);
		i += used;
		i += blank(s + i, n - i);
		if (!used || i >= n || (s[i] != ',' && s[i] != end))
			return 0;
		if (s[i] == end)
			return i + 1;
	}
	return 0;
}

size_t json_value(const char *s, size_t n)
{
	static const char *const words[] = { "true", "false", "null" };
	if (!n)
		return 0;
	if (s[0] == '"')
		return json_string(s, n);
	if (s[0] == '[' || s[0] == '{')
		return json_list(s, n);
	for (size_t i = 0; i < 3; i++)
		if (n >= strlen(words[i]) &&
		    memcmp(s, words[i], strlen(words[i])) == 0)
			return strlen(words[i]);
	return json_number(s, n);
}

/* ---- reads that stop short ------------------------------------------------*/

const char *const way_names[] = { "whole", "in pieces", "parked" };

enum way way_of(struct input cuts)
{
	return cuts.left % 2 ? PIECES : PARKED;
}

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

struct ss_address fuzz_peer;

static int peer_verify(struct ss_server *server, struct ss_request *req)
{
	must(ss_request_set_peer(req, &fuzz_peer) == 0, "no memory");
	return ss_super(server, &fuzz_peer_layer)->verify_request(server, req);
}

const struct ss_layer fuzz_peer_layer = {
	.name = "peer",
	.ops = { .verify_request = peer_verify },
};

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
