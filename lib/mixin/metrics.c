/*
 * Metrics: how long requests take, and which live now, in memory that all
 * processes of the server share.
 *
 * finish_request is left alone, since a fiber would keep its stack for it: the
 * core itself tells when a handler begins and ends, where a request is shown.
 */
#include <errno.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../sys.h"
#include "histogram.h"
#include "live.h"

enum {
	MAX_SHOWN = 1024,
	MOST_SHOWN = 1 << 20,
	ROWS = 32, /* processes that count apart, so as not to wait for a line
		    */
};

/* What ends is counted: a process that is killed leaves nothing wrong. */
struct row {
	_Alignas(64) struct histogram handler;
	struct histogram request;
};

struct metrics {
	struct ss_metrics_options options;
	struct live *live;
	struct row *rows;
	int row_count;
	atomic_uint cursor; /* where the next place is looked for */
	bool child;
};

/* A request's. */
struct mine {
	struct place *place;
	struct ss_progress own; /* where there is no place */
	int64_t since;
	bool entered;
};

static struct metrics *metrics_of(const struct ss_server *server)
{
	return ss_layer_state(server, &ss_metrics_mixin);
}

static struct mine *mine_of(const struct ss_request *req)
{
	return ss_request_layer_state(req, &ss_metrics_mixin);
}

static const struct ss_ops *super_of(const struct ss_server *server)
{
	return ss_super(server, &ss_metrics_mixin);
}

/* A child serves one request; a worker is a process of its own. */
static bool served_in_children(const struct ss_server *server)
{
	const unsigned both = SS_LAYER_FORKS | SS_LAYER_SUPERVISES;
	return (ss_server_flags(server) & both) == SS_LAYER_FORKS;
}

/* ---- life -----------------------------------------------------------------*/

static int met_init(struct ss_server *server, const void *options)
{
	struct metrics *metrics = metrics_of(server);
	struct ss_metrics_options *o = &metrics->options;
	if (options)
		*o = *(const struct ss_metrics_options *)options;
	if (o->max_shown < SS_NONE || o->max_shown > MOST_SHOWN)
		return ss_refuse(server, -EINVAL,
				 "metrics: max_shown is %d, and not in %d..%d",
				 o->max_shown, SS_NONE, MOST_SHOWN);
	if (!o->max_shown)
		o->max_shown = MAX_SHOWN;
	if (o->max_shown == SS_NONE)
		o->max_shown = 0;
	return 0;
}

static size_t rows_size(const struct metrics *metrics)
{
	return (size_t)metrics->row_count * sizeof(*metrics->rows);
}

static void met_fini(struct ss_server *server)
{
	struct metrics *metrics = metrics_of(server);
	live_free(metrics->live);
	ss_shared_free(metrics->rows, rows_size(metrics));
}

/* A worker looks for places elsewhere than the others; a child that serves one
 * request has none to give. */
static void met_after_fork(struct ss_server *server)
{
	struct metrics *metrics = metrics_of(server);
	unsigned places = (unsigned)metrics->options.max_shown;
	unsigned workers = (unsigned)ss_workers(server) + 1;
	metrics->child = !ss_worker(server);
	if (!metrics->child)
		atomic_store(&metrics->cursor,
			     places / workers * (unsigned)ss_worker(server));
}

/* Once it is known how many workers there may be. */
static int make_tables(struct ss_server *server)
{
	struct metrics *metrics = metrics_of(server);
	int processes = ss_workers(server) + 1;
	if (!metrics->rows) {
		metrics->row_count = processes < ROWS ? processes : ROWS;
		metrics->rows = ss_shared_alloc(rows_size(metrics));
	}
	int r = metrics->rows ? 0 : -ENOMEM;
	if (r == 0 && !metrics->live)
		r = live_new(&metrics->live, metrics->options.max_shown,
			     processes);
	if (r < 0)
		return ss_refuse(server, r,
				 "metrics: no memory to show %d requests",
				 metrics->options.max_shown);
	return 0;
}

static int met_server_bind(struct ss_server *server)
{
	int r = make_tables(server);
	return r < 0 ? r : super_of(server)->server_bind(server);
}

/* A server that is given a connection is not bound. */
static int met_server_activate(struct ss_server *server)
{
	int r = make_tables(server);
	return r < 0 ? r : super_of(server)->server_activate(server);
}

/* ---- a request ------------------------------------------------------------*/

/* Where end_request will be called. */
static void enter(struct ss_server *server, struct ss_request *req,
		  struct mine *mine)
{
	struct metrics *metrics = metrics_of(server);
	if (metrics->child)
		return;
	mine->entered = true;
	mine->since = ss_taken_us(server);
	mine->place =
		live_enter(metrics->live, ss_worker(server), &metrics->cursor,
			   req, mine->since, ss_server_pid(server));
	if (!mine->place && !served_in_children(server))
		ss_request_show(req, &mine->own);
}

/* A second time a layer to the left has learned who the client is. */
static int met_verify_request(struct ss_server *server, struct ss_request *req)
{
	struct mine *mine = mine_of(req);
	if (!mine->entered)
		enter(server, req, mine);
	else if (mine->place)
		live_set_peer(mine->place, req);
	return super_of(server)->verify_request(server, req);
}

/* Whom verify_request has not seen: a layer to the left asks it later. */
static int met_process_request(struct ss_server *server, struct ss_request *req)
{
	struct mine *mine = mine_of(req);
	if (!mine->entered)
		enter(server, req, mine);
	return super_of(server)->process_request(server, req);
}

/* Of a child that was killed it is known when it began, or nothing. */
static int64_t handler_took(const struct ss_server *server,
			    const struct mine *mine, int64_t now)
{
	const struct ss_progress *progress =
		mine->place ? &mine->place->progress : &mine->own;
	struct ss_snapshot unused;
	int64_t began, took;
	if (!mine->place && served_in_children(server))
		return now - mine->since;
	ss_progress_read(progress, &unused, &began, &took);
	return took < 0 && began >= 0 ? now - began : took;
}

static void note(struct ss_server *server, const struct metrics *metrics,
		 const struct mine *mine, int status)
{
	struct row *row =
		&metrics->rows[ss_worker(server) % metrics->row_count];
	int64_t now = sys_now_us();
	int64_t took = handler_took(server, mine, now);
	if (took < 0 || status == -EACCES)
		return;
	histogram_note(&row->handler, took);
	histogram_note(&row->request, now - mine->since);
}

static void met_end_request(struct ss_server *server, struct ss_request *req,
			    int status)
{
	struct mine *mine = mine_of(req);
	if (mine->entered) {
		const struct metrics *metrics = metrics_of(server);
		note(server, metrics, mine, status);
		ss_request_show(req, NULL);
		live_leave(metrics->live, ss_worker(server), mine->place);
	}
	super_of(server)->end_request(server, req, status);
}

/* end_request is not called for what it was serving. */
static void met_worker_ended(struct ss_server *server, int slot)
{
	live_drop(metrics_of(server)->live, slot);
	super_of(server)->worker_ended(server, slot);
}

/* ---- a look from outside --------------------------------------------------*/

static void sum_up(const struct metrics *metrics, struct ss_metrics *to)
{
	struct histogram_sum handler = { 0 }, request = { 0 };
	for (int i = 0; i < metrics->row_count; i++) {
		histogram_add(&handler, &metrics->rows[i].handler);
		histogram_add(&request, &metrics->rows[i].request);
	}
	histogram_tell(&handler, &to->handler);
	histogram_tell(&request, &to->request);
}

int ss_metrics_get_sized(struct ss_server *server, struct ss_metrics *to,
			 size_t size)
{
	struct ss_metrics now = { 0 };
	memset(to, 0, size);
	if (!ss_server_has(server, &ss_metrics_mixin))
		return -ENOTSUP;
	const struct metrics *metrics = metrics_of(server);
	if (metrics->rows)
		sum_up(metrics, &now);
	if (metrics->live)
		live_count(metrics->live, &now.shown, &now.hidden);
	memcpy(to, &now, size < sizeof(now) ? size : sizeof(now));
	return 0;
}

int ss_metrics_each(struct ss_server *server,
		    int (*fn)(void *arg, const struct ss_snapshot *snapshot),
		    void *arg)
{
	if (!ss_server_has(server, &ss_metrics_mixin))
		return -ENOTSUP;
	const struct live *live = metrics_of(server)->live;
	return live ? live_each(live, fn, arg) : 0;
}

const struct ss_layer ss_metrics_mixin = {
	.name = "metrics",
	.server_size = sizeof(struct metrics),
	.request_size = sizeof(struct mine),
	.init = met_init,
	.fini = met_fini,
	.after_fork = met_after_fork,
	.ops = {
		.server_bind = met_server_bind,
		.server_activate = met_server_activate,
		.verify_request = met_verify_request,
		.process_request = met_process_request,
		.end_request = met_end_request,
		.worker_ended = met_worker_ended,
	},
};
