/* Servers' figures as text: for Prometheus, and for the page. */
#include "status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <socketserver/layers.h>

enum { ROWS = 1000, FIRST_STEP = 6, LAST_STEP = 30, STEP = 2 };

/* A server as it was a moment ago. */
struct view {
	struct ss_server *server;
	const char *name;
	char url[SS_ADDRESS_TEXT];
	struct ss_stats stats;
	struct ss_metrics metrics;
	struct ss_limits_stats limits;
	bool measured, limited;
	uint64_t waits[SS_WAITS_MAX];
	/* Live ones: what ss_server_stats does not have yet. */
	uint64_t rows, in, out;
	FILE *to; /* where they are told as rows; NULL: nowhere */
};

static const char *const refusals[SS_REFUSED_MAX] = {
	[SS_REFUSED_VERIFY] = "verify",
	[SS_REFUSED_FULL] = "full",
	[SS_REFUSED_PROCESS] = "process",
};

static const char *const phases[SS_PHASE_MAX] = {
	[SS_PHASE_ACCEPT] = "accept",	[SS_PHASE_VERIFY] = "verify",
	[SS_PHASE_PROCESS] = "process", [SS_PHASE_HANDSHAKE] = "handshake",
	[SS_PHASE_SETUP] = "setup",	[SS_PHASE_HANDLE] = "handle",
	[SS_PHASE_FINISH] = "finish",
};

/* ---- texts ----------------------------------------------------------------*/

/* A label's value: backslash, quote and newline are escaped. */
static void put_label(FILE *out, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '\n')
			fputs("\\n", out);
		else if (*text == '\\' || *text == '"')
			fprintf(out, "\\%c", *text);
		else
			fputc(*text, out);
	}
}

/* RFC 8259; what is not ASCII as if each byte were a character. */
static void put_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < ' ' || c > '~')
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

static unsigned long long llu(uint64_t n)
{
	return n;
}

/* ---- looking --------------------------------------------------------------*/

static void put_row(FILE *out, const struct ss_snapshot *shot, bool first)
{
	char peer[SS_ADDRESS_TEXT];

	fprintf(out, "%s\n{\"id\":\"%llu\",\"peer\":", first ? "" : ",",
		llu(shot->id));
	put_string(out, ss_address_format(&shot->peer, peer, sizeof(peer)));
	fprintf(out,
		",\"age_ms\":%lld,\"in\":%llu,\"out\":%llu,\"waits\":\"%s\","
		"\"pid\":%ld}",
		(long long)shot->age_ms, llu(shot->bytes_in),
		llu(shot->bytes_out), ss_waits_name(shot->waits),
		(long)shot->pid);
}

static int look(void *arg, const struct ss_snapshot *shot)
{
	struct view *view = arg;

	view->waits[shot->waits]++;
	view->in += shot->bytes_in;
	view->out += shot->bytes_out;
	if (view->to != NULL && view->rows < ROWS)
		put_row(view->to, shot, view->rows == 0);
	view->rows++;
	return 0;
}

/* Without the layer: those whom this process itself has accepted. */
static void look_at_live(struct view *view, FILE *rows)
{
	view->to = rows;
	if (ss_metrics_each(view->server, look, view) < 0)
		ss_each(view->server, look, view);
}

static void fill_view(struct view *view, const struct ss_metrics_page *page,
		      int i)
{
	view->server = page->servers[i];
	ss_server_url(view->server, 0, view->url, sizeof(view->url));
	view->name = page->names != NULL ? page->names[i] : view->url;
	ss_server_stats(view->server, &view->stats);
	view->measured = ss_metrics_get(view->server, &view->metrics) == 0;
	view->limited = ss_limits_get(view->server, &view->limits) == 0;
}

static struct view *views_of(const struct ss_metrics_page *page)
{
	struct view *views = calloc((size_t)page->count + 1, sizeof(*views));

	for (int i = 0; views != NULL && i < page->count; i++)
		fill_view(&views[i], page, i);
	return views;
}

/* ---- for Prometheus -------------------------------------------------------*/

/*
 * A family's head, and one of its samples.  (Text-based format, 0.0.4: all of a
 * family stand together.)
 */
static void put_head(FILE *out, const char *name, const char *type,
		     const char *help)
{
	fprintf(out, "# HELP socketserver_%s %s\n# TYPE socketserver_%s %s\n",
		name, help, name, type);
}

static void put_sample(FILE *out, const struct view *view, const char *name,
		       const char *label, const char *value, uint64_t n)
{
	fprintf(out, "socketserver_%s{server=\"", name);
	put_label(out, view->name);
	if (label != NULL)
		fprintf(out, "\",%s=\"%s", label, value);
	fprintf(out, "\"} %llu\n", llu(n));
}

static const struct family {
	const char *name, *type, *help;
	size_t offset; /* in struct view */
	bool limits;   /* of those that have the layer alone */
} families[] = {
#define AT(member) offsetof(struct view, member)
	{ "accepted_total", "counter", "Requests that were accepted.",
	  AT(stats.accepted), false },
	{ "ended_total", "counter", "Requests that have ended.",
	  AT(stats.ended), false },
	{ "active", "gauge", "Requests that are being served.",
	  AT(stats.active), false },
	{ "queued", "gauge", "Requests that wait for their turn.",
	  AT(stats.queued), false },
	{ "received_bytes_total", "counter",
	  "Bytes that came in requests that have ended.", AT(stats.bytes_in),
	  false },
	{ "sent_bytes_total", "counter",
	  "Bytes that went in requests that have ended.", AT(stats.bytes_out),
	  false },
	{ "log_dropped_total", "counter",
	  "Lines that standard error did not take.", AT(stats.log_dropped),
	  false },
	{ "limits_admitted_total", "counter", "Requests that limits let in.",
	  AT(limits.admitted), true },
	{ "limits_refused_full_total", "counter",
	  "Requests of sources that had as many as they may.",
	  AT(limits.refused_full), true },
	{ "limits_refused_rate_total", "counter",
	  "Requests that came too fast together.", AT(limits.refused_rate),
	  true },
	{ "limits_refused_source_rate_total", "counter",
	  "Requests that came too fast from their source.",
	  AT(limits.refused_source_rate), true },
	{ "limits_sources", "gauge", "Sources that are remembered.",
	  AT(limits.sources), true },
#undef AT
};

static void put_family(FILE *out, const struct family *family,
		       const struct view *views, int count)
{
	bool any = !family->limits;

	for (int i = 0; i < count; i++)
		any |= views[i].limited;
	if (!any)
		return;
	put_head(out, family->name, family->type, family->help);
	for (int i = 0; i < count; i++) {
		uint64_t n;

		memcpy(&n, (const char *)&views[i] + family->offset, sizeof(n));
		if (!family->limits || views[i].limited)
			put_sample(out, &views[i], family->name, NULL, NULL, n);
	}
}

static void put_labelled(FILE *out, const struct view *views, int count)
{
	put_head(out, "refused_total", "counter",
		 "Clients that were turned away.");
	for (int i = 0; i < count; i++)
		for (int k = 0; k < SS_REFUSED_MAX; k++)
			put_sample(out, &views[i], "refused_total", "reason",
				   refusals[k], views[i].stats.refused[k]);
	put_head(out, "errors_total", "counter",
		 "Errors, by where they arose.");
	for (int i = 0; i < count; i++)
		for (int k = 0; k < SS_PHASE_MAX; k++)
			put_sample(out, &views[i], "errors_total", "phase",
				   phases[k], views[i].stats.errors[k]);
	put_head(out, "waiting", "gauge",
		 "Live requests that are shown, by what they wait for.");
	for (int i = 0; i < count; i++)
		for (int k = 0; k < SS_WAITS_MAX; k++)
			put_sample(out, &views[i], "waiting", "for",
				   ss_waits_name(k), views[i].waits[k]);
}

static void put_buckets(FILE *out, const struct view *view, const char *name,
			const struct ss_latency *latency)
{
	char text[64], le[32];

	snprintf(text, sizeof(text), "%s_bucket", name);
	for (int i = FIRST_STEP; i <= LAST_STEP; i += STEP) {
		snprintf(le, sizeof(le), "%llu.%06llu", (1ull << i) / 1000000,
			 (1ull << i) % 1000000);
		put_sample(out, view, text, "le", le, latency->below[i]);
	}
	put_sample(out, view, text, "le", "+Inf", latency->count);
	fprintf(out, "socketserver_%s_sum{server=\"", name);
	put_label(out, view->name);
	fprintf(out, "\"} %llu.%06llu\n", llu(latency->sum_us / 1000000),
		llu(latency->sum_us % 1000000));
	snprintf(text, sizeof(text), "%s_count", name);
	put_sample(out, view, text, NULL, NULL, latency->count);
}

static void put_histograms(FILE *out, const struct view *views, int count)
{
	bool any = false;

	for (int i = 0; i < count; i++)
		any |= views[i].measured;
	if (!any)
		return;
	put_head(out, "handler_seconds", "histogram",
		 "How long handlers ran, of requests that have ended.");
	for (int i = 0; i < count; i++)
		if (views[i].measured)
			put_buckets(out, &views[i], "handler_seconds",
				    &views[i].metrics.handler);
	put_head(out, "request_seconds", "histogram",
		 "How long requests took, from accept to their end.");
	for (int i = 0; i < count; i++)
		if (views[i].measured)
			put_buckets(out, &views[i], "request_seconds",
				    &views[i].metrics.request);
	put_head(out, "not_shown", "gauge",
		 "Live requests for which there is no place to be shown.");
	for (int i = 0; i < count; i++)
		if (views[i].measured)
			put_sample(out, &views[i], "not_shown", NULL, NULL,
				   views[i].metrics.hidden);
}

static void put_info(FILE *out, const struct view *views, int count)
{
	put_head(out, "info", "gauge", "What each server is made of.");
	for (int i = 0; i < count; i++) {
		fputs("socketserver_info{server=\"", out);
		put_label(out, views[i].name);
		fputs("\",layers=\"", out);
		put_label(out, ss_server_describe(views[i].server));
		fprintf(out, "\",version=\"%s\"} 1\n", ss_version());
	}
}

int status_prometheus(FILE *out, const struct ss_metrics_page *page)
{
	struct view *views = views_of(page);

	if (views == NULL)
		return -ENOMEM;
	for (int i = 0; i < page->count; i++)
		look_at_live(&views[i], NULL);
	put_info(out, views, page->count);
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
		put_family(out, &families[i], views, page->count);
	put_labelled(out, views, page->count);
	put_histograms(out, views, page->count);
	free(views);
	return 0;
}

/* ---- for the page ---------------------------------------------------------*/

static void put_number(FILE *out, const char *name, uint64_t n)
{
	fprintf(out, ",\"%s\":%llu", name, llu(n));
}

static void put_numbers(FILE *out, const char *name, const char *const *names,
			const uint64_t *values, int count)
{
	fprintf(out, ",\"%s\":{", name);
	for (int i = 0; i < count; i++)
		fprintf(out, "%s\"%s\":%llu", i > 0 ? "," : "", names[i],
			llu(values[i]));
	fputc('}', out);
}

static void put_latency(FILE *out, const char *name,
			const struct ss_latency *latency)
{
	fprintf(out,
		",\"%s\":{\"count\":%llu,\"sum\":%llu,\"p50\":%llu,"
		"\"p90\":%llu,\"p99\":%llu,\"p999\":%llu,\"max\":%llu,"
		"\"below\":[",
		name, llu(latency->count), llu(latency->sum_us),
		llu(latency->p50_us), llu(latency->p90_us),
		llu(latency->p99_us), llu(latency->p999_us),
		llu(latency->max_us));
	for (int i = 0; i < SS_LATENCY_STEPS; i++)
		fprintf(out, "%s%llu", i > 0 ? "," : "",
			llu(latency->below[i]));
	fputs("]}", out);
}

static void put_limits(FILE *out, const struct ss_limits_stats *limits)
{
	static const char *const names[] = { "admitted",  "too many at a time",
					     "too fast",  "too fast from one",
					     "untracked", "active",
					     "sources" };
	const uint64_t values[] = {
		limits->admitted,     limits->refused_full,
		limits->refused_rate, limits->refused_source_rate,
		limits->untracked,    limits->active,
		limits->sources,
	};

	put_numbers(out, "limits", names, values,
		    sizeof(values) / sizeof(values[0]));
}

static void put_urls(FILE *out, const struct ss_server *server)
{
	char url[SS_ADDRESS_TEXT];

	fputs(",\"urls\":[", out);
	for (int i = 0; i < ss_server_listeners(server); i++) {
		fputs(i > 0 ? "," : "", out);
		put_string(out, ss_server_url(server, i, url, sizeof(url)));
	}
	fputc(']', out);
}

static void put_server(FILE *out, struct view *view)
{
	const struct ss_stats *stats = &view->stats;

	fputs("{\"name\":", out);
	put_string(out, view->name);
	fputs(",\"layers\":", out);
	put_string(out, ss_server_describe(view->server));
	put_urls(out, view->server);
	put_number(out, "accepted", stats->accepted);
	put_number(out, "active", stats->active);
	put_number(out, "queued", stats->queued);
	put_number(out, "ended", stats->ended);
	put_number(out, "log_dropped", stats->log_dropped);
	put_numbers(out, "refused", refusals, stats->refused, SS_REFUSED_MAX);
	put_numbers(out, "errors", phases, stats->errors, SS_PHASE_MAX);
	if (view->measured) {
		put_latency(out, "handler", &view->metrics.handler);
		put_latency(out, "request", &view->metrics.request);
	}
	if (view->limited)
		put_limits(out, &view->limits);
	put_number(out, "access_refused", ss_access_refused(view->server));
	fputs(",\"requests\":[", out);
	look_at_live(view, out);
	uint64_t told = view->rows < ROWS ? view->rows : ROWS;

	fputc(']', out);
	put_number(out, "not_shown", view->metrics.hidden + view->rows - told);
	put_number(out, "bytes_in", stats->bytes_in + view->in);
	put_number(out, "bytes_out", stats->bytes_out + view->out);
	fputc('}', out);
}

int status_json(FILE *out, const struct ss_metrics_page *page)
{
	struct view *views = views_of(page);

	if (views == NULL)
		return -ENOMEM;
	fprintf(out, "{\"version\":\"%s\",\"drain\":%s,\"servers\":[",
		ss_version(), page->drain != NULL ? "true" : "false");
	for (int i = 0; i < page->count; i++) {
		fputs(i > 0 ? ",\n" : "\n", out);
		put_server(out, &views[i]);
	}
	fputs("]}\n", out);
	free(views);
	return 0;
}
