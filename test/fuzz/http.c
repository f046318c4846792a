/*
 * The reader of HTTP requests, and the page about servers that is behind it.
 * The input: how it is cut (up to a NUL), and what is sent.
 */
#include "fuzz.h"

#include <stdio.h>

#include "../../handlers/handlers.h"
#include "../../handlers/http.h"

enum { ROOM = 4096 };

/* ---- what is read ---------------------------------------------------------*/

static struct http seen;

static int read_one(struct ss_request *req)
{
	int status = http_read(req, &seen);
	ssize_t r = ss_printf(req, "%d %s|%s|%s|%s|%d|%zu", status, seen.method,
			      seen.path, seen.host, seen.origin, seen.asked,
			      seen.body);
	return r < 0 ? (int)r : 0;
}

static const struct ss_handler reader = { .handle = read_one };

static bool known(int status)
{
	static const int all[] = { 0, 200, 400, 413, 414, 431, 501, 505 };
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (all[i] == status)
			return true;
	return false;
}

/* What was understood, said plainly, is understood the same. */
static void must_read_back(const struct served *served)
{
	static const struct ss_config config = { .handler = &reader };
	const struct input uncut = { .left = 0 };
	char *text = malloc(ROOM);
	must(text, "no memory");
	int n = snprintf(text, ROOM,
			 "%s %s HTTP/1.0\r\nHost:%s\r\n%s%s%s%s"
			 "Content-Length: %zu\r\n\r\n",
			 seen.method, seen.path, seen.host,
			 seen.origin[0] ? "Origin: " : "", seen.origin,
			 seen.origin[0] ? "\r\n" : "",
			 seen.asked ? "X-Drain: 1\r\n" : "", seen.body);
	must(n > 0 && (size_t)n + seen.body < ROOM, "%d bytes", n);
	memset(text + n, 'x', seen.body);
	if (!seen.host[0] || !seen.method[0]) {
		free(text);
		return;
	}
	struct served again =
		serve_one(&config, WHOLE, uncut, text, (size_t)n + seen.body);
	must_be_same(served, &again, WHOLE);
	served_free(&again);
	free(text);
}

/* Up to its empty line, where it was taken: RFC 9112 2.2, RFC 9110 5.5. */
static void must_be_clean(struct input in)
{
	struct input line;
	do {
		line = take_until(&in, '\n');
		must(line.left && line.at[line.left - 1] == '\r',
		     "a line without CR LF");
		for (size_t i = 0; i + 1 < line.left; i++)
			must((line.at[i] >= ' ' && line.at[i] != 0x7f) ||
				     line.at[i] == '\t',
			     "byte %d is taken", line.at[i]);
	} while (line.left > 1);
}

static void must_make_sense(const struct served *served, struct input in)
{
	const char *text = (const char *)served->answer;
	int status = atoi(text);
	must(served->status == 0 && known(status), "%d", status);
	if (status != 200)
		return;
	must_be_clean(in);
	must(memchr(seen.method, '\0', sizeof(seen.method)) &&
		     memchr(seen.path, '\0', sizeof(seen.path)) &&
		     memchr(seen.host, '\0', sizeof(seen.host)) &&
		     memchr(seen.origin, '\0', sizeof(seen.origin)),
	     "a text without an end");
	must(seen.path[0] == '/' && plain_text(seen.path, strlen(seen.path)) &&
		     !strpbrk(seen.path, " ?"),
	     "the path '%s'", seen.path);
	must(seen.body <= 1024, "%zu bytes", seen.body);
	if (http_own_page(&seen)) {
		must(seen.asked && strlen(seen.host) > 0, "nobody asked");
		must(!seen.origin[0] || strstr(seen.origin, "://"),
		     "the origin '%s'", seen.origin);
		must(seen.host[0] == '[' || seen.host[0] == 'l' ||
			     seen.host[0] == '.' ||
			     (seen.host[0] >= '0' && seen.host[0] <= '9'),
		     "the host '%s'", seen.host);
	}
	must_read_back(served);
}

/* ---- what is answered -----------------------------------------------------*/

static int drained;

static void drain(void *arg)
{
	(void)arg;
	drained++;
}

/* A status line, fields, and a body that is as long as they say. */
static void must_be_http(const struct served *served)
{
	char head[ROOM];
	const char *end =
		served->n ? memmem(served->answer, served->n, "\r\n\r\n", 4)
			  : NULL;
	if (!served->n)
		return;
	must(end, "an answer without an end: '%.*s'", (int)served->n,
	     (const char *)served->answer);
	size_t n = (size_t)(end - (const char *)served->answer) + 4;
	must(n < sizeof(head), "a head of %zu bytes", n);
	memcpy(head, served->answer, n);
	head[n] = '\0';
	int status = 0;
	size_t length = 0;
	const char *field = strstr(head, "\r\nContent-Length: ");
	must(sscanf(head, "HTTP/1.1 %3d ", &status) == 1 && status >= 200 &&
		     status < 600,
	     "'%s'", head);
	must(field && sscanf(field, "\r\nContent-Length: %zu", &length) == 1,
	     "'%s'", head);
	must(served->n - n == length || served->n == n,
	     "%zu bytes instead of %zu", served->n - n, length);
	if (status == 200 && strstr(head, "application/json") && served->n > n)
		must(json_value(end + 4, length) + 1 >= length, "'%s'",
		     end + 4);
	for (const char *c = head; *c; c++)
		must((*c >= ' ' && *c <= '~') || strchr("\r\n", *c),
		     "byte %d in the head", *c);
}

/* Of a server whose name is what a server's may be. */
static void must_answer(struct input cuts, enum way way, struct input in)
{
	static const struct ss_handler echo = { .handle = read_one };
	const struct ss_config shown = {
		.transport = &ss_memory_server,
		.mixins = { { &ss_metrics_mixin,
			      &(struct ss_metrics_options){ .max_shown =
								    4 } } },
		.handler = &echo,
	};
	struct ss_server *server;
	must(ss_server_new(&server, &shown, NULL) == 0, "server");
	const struct ss_metrics_page page = { .servers = &server,
					      .count = 1,
					      .drain = drain };
	const struct ss_config config = { .handler = &ss_metrics_handler,
					  .user = (void *)&page };
	drained = 0;
	memset(&seen, 0, sizeof(seen));
	struct served served = serve_one(&config, way, cuts, in.at, in.left);
	must_be_http(&served);
	must(!drained || (served.n > 12 &&
			  memcmp(served.answer, "HTTP/1.1 202", 12) == 0),
	     "drained, and it answers otherwise");
	served_free(&served);
	must(ss_server_free(server) == 0, "free");
}

FUZZ_TARGET(http)(const uint8_t *data, size_t n)
{
	static const struct ss_config config = { .handler = &reader };
	struct input in = { data, n };
	struct input cuts = take_until(&in, '\0');
	struct served whole = serve_one(&config, WHOLE, cuts, in.at, in.left);
	struct served other =
		serve_one(&config, way_of(cuts), cuts, in.at, in.left);
	must_be_same(&whole, &other, way_of(cuts));
	served_free(&other);
	must_make_sense(&whole, in);
	served_free(&whole);
	must_answer(cuts, cuts.left ? PARKED : WHOLE, in);
	return 0;
}
