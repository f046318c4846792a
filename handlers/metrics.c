/*
 * Metrics over HTTP: for Prometheus at /metrics, and a page for people at /,
 * which asks for /status.json.  Who may look is the server's to say: by its
 * address, or by ss_access_mixin.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <socketserver/server.h>

#include "handlers.h"
#include "http.h"
#include "status.h"

/* By their digests, so that nothing else on the page is run or obeyed. */
#define SCRIPT_HASH "sha256-7mNOBqrqbP1yTdmVmeEGnnGT0YVhd5miXxmfxa5bcUU="
#define STYLE_HASH "sha256-eFBi9mCiBrGSYH1ENTomqZlh++9uAPcyiPRGe/iivRM="

static const char policy[] =
	"Content-Security-Policy: default-src 'none'; script-src '" SCRIPT_HASH
	"'; style-src '" STYLE_HASH "'; connect-src 'self'; img-src data:; "
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
	"Referrer-Policy: no-referrer\r\n";

static const struct ss_metrics_page *page_of(struct ss_request *req)
{
	return ss_server_user(ss_request_server(req));
}

static int reply_status(struct ss_request *req, const struct http *http,
			int status)
{
	const struct http_answer answer = {
		.status = status,
		.extra = status == 405 ? "Allow: GET, HEAD\r\n" : NULL,
	};

	return http_reply(req, http, &answer);
}

/* ---- what there is --------------------------------------------------------*/

static int
show_text(struct ss_request *req, const struct http *http, const char *type,
	  int (*write)(FILE *out, const struct ss_metrics_page *page))
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int r = out != NULL ? write(out, page_of(req)) : -ENOMEM;

	if (out != NULL && fclose(out) != 0)
		r = -ENOMEM;
	const struct http_answer answer = {
		.status = 200, .type = type, .body = text, .size = size
	};
	r = r < 0 ? reply_status(req, http, 503)
		  : http_reply(req, http, &answer);
	free(text);
	return r;
}

static int show_metrics(struct ss_request *req, const struct http *http)
{
	return show_text(req, http, "text/plain; version=0.0.4; charset=utf-8",
			 status_prometheus);
}

static int show_json(struct ss_request *req, const struct http *http)
{
	return show_text(req, http, "application/json", status_json);
}

static int show_page(struct ss_request *req, const struct http *http)
{
	const struct http_answer answer = {
		.status = 200,
		.type = "text/html; charset=utf-8",
		.extra = policy,
		.body = status_page,
		.size = (uintptr_t)status_page_end - (uintptr_t)status_page,
	};

	return http_reply(req, http, &answer);
}

static const struct {
	const char *path;
	int (*show)(struct ss_request *req, const struct http *http);
} places[] = {
	{ "/", show_page },
	{ "/metrics", show_metrics },
	{ "/status.json", show_json },
};

/* ---- what may be asked for ------------------------------------------------*/

static int drain(struct ss_request *req, const struct http *http)
{
	const struct ss_metrics_page *page = page_of(req);
	static const char text[] = "draining\n";
	const struct http_answer done = { .status = 202,
					  .body = text,
					  .size = sizeof(text) - 1 };

	if (page->drain == NULL)
		return reply_status(req, http, 404);
	if (strcmp(http->method, "POST") != 0) {
		const struct http_answer not = { .status = 405,
						 .extra = "Allow: POST\r\n" };
		return http_reply(req, http, &not );
	}
	if (!http_own_page(http))
		return reply_status(req, http, 403);
	ss_logf(req, SS_LOG_WARNING, "drained by its page");
	int r = http_reply(req, http, &done);

	page->drain(page->drain_arg);
	return r;
}

static int answer(struct ss_request *req, const struct http *http)
{
	bool reads = strcmp(http->method, "GET") == 0 ||
		     strcmp(http->method, "HEAD") == 0;

	if (strcmp(http->path, "/drain") == 0)
		return drain(req, http);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (strcmp(http->path, places[i].path) == 0)
			return reads ? places[i].show(req, http)
				     : reply_status(req, http, 405);
	return reply_status(req, http, reads ? 404 : 405);
}

static int metrics_handle(struct ss_request *req)
{
	struct http http;

	if (page_of(req) == NULL || ss_request_dgram(req))
		return ss_fail(req, -EINVAL, "no page of servers to show");
	int status = http_read(req, &http);

	if (status == -ETIMEDOUT)
		return reply_status(req, NULL, 408);
	if (status <= 0)
		return status;
	return status == 200 ? answer(req, &http)
			     : reply_status(req, NULL, status);
}

const struct ss_handler ss_metrics_handler = {
	.name = "metrics",
	.handle = metrics_handle,
	.timeouts = { .first_byte_ms = 10000,
		      .io_ms = 5000,
		      .total_ms = 30000 },
	.disable_nagle_algorithm = true,
};
