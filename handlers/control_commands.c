/* What can be commanded; control.c speaks the protocol. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"

enum { KILL_MS = 2000, LOOK_MS = 5, MORE = 64 };

static struct ss_server *server_at(const struct call *call, int index)
{
	return call->control->servers[index];
}

/* ---- help, servers, stats -------------------------------------------------*/

static int run_help(struct call *call)
{
	int r = 0;

	for (const struct command *c = control_commands; c->name && r == 0; c++)
		r = control_say(call, "%s%s%s: %s\n", c->name,
				c->arguments[0] != '\0' ? " " : "",
				c->arguments, c->help);
	return r;
}

static int run_servers(struct call *call)
{
	int r = control_say(call, "SERVER STATE URL MODEL\n");

	for (int i = 0; i < call->control->count && r == 0; i++) {
		struct ss_server *server = server_at(call, i);
		bool held = ss_holding(server, SS_HOLD_SUSPENDED);
		char url[SS_ADDRESS_TEXT] = "-";

		ss_server_url(server, 0, url, sizeof(url));
		r = control_say(call, "%d %s %s %s\n", i,
				held ? "suspended" : "serving",
				control_clean(url), ss_server_describe(server));
	}
	return r;
}

struct figure {
	const char *name;
	uint64_t value;
};

static int say_figures(struct call *call, int index,
		       const struct figure *figures, size_t count)
{
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++)
		r = control_say(call, "%d %s %llu\n", index, figures[i].name,
				(unsigned long long)figures[i].value);
	return r;
}

static int say_stats(struct call *call, int index)
{
	struct ss_stats stats;

	ss_server_stats(server_at(call, index), &stats);
	uint64_t errors = 0;

	for (int i = 0; i < SS_PHASE_MAX; i++)
		errors += stats.errors[i];
	const struct figure figures[] = {
		{ "accepted", stats.accepted },
		{ "active", stats.active },
		{ "queued", stats.queued },
		{ "ended", stats.ended },
		{ "refused-verify", stats.refused[SS_REFUSED_VERIFY] },
		{ "refused-full", stats.refused[SS_REFUSED_FULL] },
		{ "refused-process", stats.refused[SS_REFUSED_PROCESS] },
		{ "errors", errors },
		{ "bytes-in", stats.bytes_in },
		{ "bytes-out", stats.bytes_out },
		{ "log-dropped", stats.log_dropped },
	};

	return say_figures(call, index, figures,
			   sizeof(figures) / sizeof(figures[0]));
}

/* Calls what says something of a server for each that is named. */
static int of_each(struct call *call, const char *name,
		   int (*say)(struct call *call, int index))
{
	int first, last, r = 0;

	if (!control_servers(call, name, &first, &last))
		return 0;
	for (int i = first; i <= last && r == 0; i++)
		r = say(call, i);
	return r;
}

static int run_stats(struct call *call)
{
	return of_each(call, call->argv[1], say_stats);
}

/* ---- who is being served --------------------------------------------------*/

struct rows {
	struct ss_snapshot *row;
	size_t count, room;
};

/* Under the server's lock. */
static int take_row(void *arg, const struct ss_snapshot *snapshot)
{
	struct rows *rows = arg;

	if (rows->count < rows->room)
		rows->row[rows->count] = *snapshot;
	rows->count++;
	return 0;
}

/* The one place that knows how live requests are found. */
static void take_rows(struct ss_server *server, struct rows *rows)
{
	rows->count = 0;
	if (ss_metrics_each(server, take_row, rows) == -ENOTSUP)
		ss_each(server, take_row, rows);
}

/* All of them at once, since writing waits; false: no memory. */
static bool collect(struct ss_server *server, struct rows *rows)
{
	struct ss_stats stats;

	ss_server_stats(server, &stats);
	rows->room = (size_t)(stats.active + stats.queued);
	do {
		free(rows->row);
		rows->room += MORE;
		rows->row = calloc(rows->room, sizeof(*rows->row));
		if (rows->row == NULL)
			return false;
		take_rows(server, rows);
		if (rows->count <= rows->room)
			return true;
		rows->room = rows->count;
	} while (1);
}

static int say_row(struct call *call, int index, const struct ss_snapshot *row)
{
	char peer[SS_ADDRESS_TEXT] = "-", pid[24] = "-";

	if (row->peer.len > sizeof(sa_family_t))
		ss_address_format(&row->peer, peer, sizeof(peer));
	if (row->pid != 0)
		snprintf(pid, sizeof(pid), "%ld", (long)row->pid);
	return control_say(
		call, "%d %llu %s %s %lld.%03d %llu %llu %s\n", index,
		(unsigned long long)row->id, pid, control_clean(peer),
		(long long)(row->age_ms / 1000), (int)(row->age_ms % 1000),
		(unsigned long long)row->bytes_in,
		(unsigned long long)row->bytes_out, ss_waits_name(row->waits));
}

static int say_list(struct call *call, int index)
{
	struct rows rows = { NULL, 0, 0 };
	int r = 0;

	if (!collect(server_at(call, index), &rows))
		return control_fail(call, "no memory");
	for (size_t i = 0; i < rows.count && r == 0; i++)
		r = say_row(call, index, &rows.row[i]);
	free(rows.row);
	return r;
}

static int run_list(struct call *call)
{
	int r = control_say(call, "SERVER ID PID PEER AGE IN OUT STATE\n");

	return r < 0 ? r : of_each(call, call->argv[1], say_list);
}

/* Of all servers: ids differ.  What came of it, -EINPROGRESS as long as
 * processes have yet to answer. */
static int kill_anywhere(struct call *call, uint64_t id)
{
	int result = -ENOENT;

	for (int i = 0; i < call->control->count; i++) {
		int r = ss_cancel(server_at(call, i), id);

		if (r == 0)
			return 0;
		if (r != -ENOENT)
			result = r;
	}
	return result;
}

static int run_kill(struct call *call)
{
	struct ss_server *own = ss_request_server(call->req);
	int64_t until = ss_now(own) + KILL_MS;
	unsigned long long id;

	if (call->argc != 2 || !control_number(call->argv[1], UINT64_MAX, &id))
		return control_fail(call, "usage: kill ID");
	int r = kill_anywhere(call, id);

	while (r == -EINPROGRESS && ss_now(own) < until) {
		r = ss_sleep(call->req, LOOK_MS);
		if (r < 0)
			return r;
		r = kill_anywhere(call, id);
	}
	if (r == -ENOENT)
		return control_fail(call, "no request %llu", id);
	if (r == -EINPROGRESS)
		return control_fail(call,
				    "not all workers have answered: if one of "
				    "them has it, it ends when that one does");
	return r < 0 ? control_fail(call, "%s", strerror(-r)) : 0;
}

/* ---- taking clients -------------------------------------------------------*/

static int suspend(struct call *call, int index)
{
	ss_hold(server_at(call, index), SS_HOLD_SUSPENDED);
	return 0;
}

static int run_suspend(struct call *call)
{
	return of_each(call, call->argv[1], suspend);
}

static int resume(struct call *call, int index)
{
	ss_release(server_at(call, index), SS_HOLD_SUSPENDED);
	return 0;
}

static int run_resume(struct call *call)
{
	return of_each(call, call->argv[1], resume);
}

static int run_drain(struct call *call)
{
	if (call->argc != 1)
		return control_fail(call, "usage: drain");
	call->drain = true;
	return 0;
}

/* ---- the log --------------------------------------------------------------*/

static const struct level {
	const char *name;
	int level;
} levels[] = {
	{ "none", SS_NONE },	       { "error", SS_LOG_ERROR },
	{ "warning", SS_LOG_WARNING }, { "info", SS_LOG_INFO },
	{ "debug", SS_LOG_DEBUG },
};

enum { LEVELS = sizeof(levels) / sizeof(levels[0]) };

static int say_level(struct call *call, int index)
{
	int level = ss_log_level(server_at(call, index));
	const char *name = "none";

	for (int i = 0; i < LEVELS; i++)
		if (levels[i].level == level)
			name = levels[i].name;
	return control_say(call, "%d log %s\n", index, name);
}

static int run_log(struct call *call)
{
	int first, last, i = 0;

	if (call->argc == 1)
		return of_each(call, NULL, say_level);
	while (i < LEVELS && strcmp(levels[i].name, call->argv[1]) != 0)
		i++;
	if (i == LEVELS)
		return control_fail(
			call,
			"no level '%.60s': error, warning, info, debug or none",
			call->argv[1]);
	if (!control_servers(call, call->argv[2], &first, &last))
		return 0;
	for (; first <= last; first++)
		ss_set_log_level(server_at(call, first), levels[i].level);
	return 0;
}

/* ---- limits ---------------------------------------------------------------*/

static const struct limit {
	const char *name;
	size_t offset; /* in struct ss_limits_options */
} limits[] = {
	{ "per-source", offsetof(struct ss_limits_options, max_per_source) },
	{ "rate", offsetof(struct ss_limits_options, rate) },
	{ "burst", offsetof(struct ss_limits_options, burst) },
	{ "source-rate", offsetof(struct ss_limits_options, source_rate) },
	{ "source-burst", offsetof(struct ss_limits_options, source_burst) },
	{ "per-ms", offsetof(struct ss_limits_options, per_ms) },
};

enum { LIMITS = sizeof(limits) / sizeof(limits[0]) };

static int *value_of(struct ss_limits_options *options,
		     const struct limit *limit)
{
	return (int *)(void *)((char *)options + limit->offset);
}

static const struct limit *find_limit(const char *name)
{
	for (int i = 0; i < LIMITS; i++)
		if (strcmp(limits[i].name, name) == 0)
			return &limits[i];
	return NULL;
}

static int say_limits(struct call *call, int index)
{
	struct ss_server *server = server_at(call, index);
	struct ss_limits_options now;
	int r = control_say(call, "%d max-active %d\n", index,
			    ss_active_limit(server));

	if (r < 0 || ss_limits_current(server, &now) < 0)
		return r;
	for (int i = 0; i < LIMITS && r == 0; i++)
		r = control_say(call, "%d %s %d\n", index, limits[i].name,
				*value_of(&now, &limits[i]));
	return r;
}

/* A burst that was as the rate is so again. */
static int set_limit(struct ss_server *server, const struct limit *limit,
		     int value, struct ss_diag *why)
{
	struct ss_limits_options now;
	int r = ss_limits_current(server, &now);

	if (r < 0)
		return r;
	if (now.burst == now.rate)
		now.burst = 0;
	if (now.source_burst == now.source_rate)
		now.source_burst = 0;
	*value_of(&now, limit) = value;
	return ss_limits_set(server, &now, why);
}

static int change_limit(struct call *call, int index, const char *name,
			int value)
{
	struct ss_server *server = server_at(call, index);
	const struct limit *limit = find_limit(name);
	struct ss_diag why = { .text = "" };
	int r = limit != NULL ? set_limit(server, limit, value, &why)
			      : ss_limit_active(server, value);

	if (r == -ENOTSUP)
		return control_fail(call, "server %d has no limits layer",
				    index);
	return r < 0 ? control_fail(call, "%s", why.text) : 0;
}

/* limits [SERVER] [NAME VALUE] */
static int run_limits(struct call *call)
{
	int at = call->argc % 2 == 0 ? 1 : 0, first, last;
	const char *of = at != 0 ? call->argv[1] : NULL;
	unsigned long long value;

	if (call->argc <= 2)
		return of_each(call, of, say_limits);
	const char *name = call->argv[1 + at], *text = call->argv[2 + at];

	if (call->argc > 4)
		return control_fail(call,
				    "usage: limits [SERVER] [NAME VALUE]");
	if (strcmp(name, "max-active") != 0 && find_limit(name) == NULL)
		return control_fail(call, "no limit '%.60s'", name);
	if (!control_number(text, INT32_MAX, &value))
		return control_fail(call, "'%.60s' is no number", text);
	if (!control_servers(call, of, &first, &last))
		return 0;
	for (; first <= last && call->why[0] == '\0'; first++)
		change_limit(call, first, name, (int)value);
	return 0;
}

const struct command control_commands[] = {
	{ "servers", "", "what is controlled", run_servers },
	{ "list", "[SERVER]", "who is being served", run_list },
	{ "kill", "ID", "end a request of the list by force", run_kill },
	{ "suspend", "[SERVER]", "leave new clients waiting", run_suspend },
	{ "resume", "[SERVER]", "take clients again", run_resume },
	{ "drain", "", "stop, as by SIGTERM", run_drain },
	{ "limits", "[SERVER] [NAME VALUE]",
	  "show or change them; 0 is no limit", run_limits },
	{ "log", "[LEVEL [SERVER]]", "show or change what is logged", run_log },
	{ "stats", "[SERVER]", "what was counted", run_stats },
	{ "help", "", "this", run_help },
	{ NULL, NULL, NULL, NULL },
};
