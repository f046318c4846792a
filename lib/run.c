/*
 * The main of a daemon: several servers served in one thread, until a signal.
 *
 * What signals asked for is noted by their handler (signals.c) and done here,
 * after a wait of the loop, on the serving thread.  A supervisor's workers are
 * replaced by serving once more: who was forked before retires then.
 */
#include "start.h"

#include <stdio.h>

static struct ss_server *first(const struct run *run)
{
	return run->servers[0];
}

static int refuse(const struct run *run, int code, const char *what)
{
	const struct ss_diag *why = &first(run)->why;
	ss_log(first(run), SS_LOG_ERROR, 0, "%s: %s", what,
	       why->code == code ? why->text : strerror(-code));
	return code;
}

static int connection_of(const struct run *run)
{
	return run->options.start ? run->options.start->connection : -1;
}

/* ---- what the service manager is told -------------------------------------*/

enum { STATUS = 900 };

static void tell_ready(const struct run *run)
{
	char text[STATUS] = "";
	size_t used = 0;
	for (int i = 0; i < run->count; i++) {
		for (int k = 0; k < ss_server_listeners(run->servers[i]); k++) {
			char url[SS_ADDRESS_TEXT];
			ss_server_url(run->servers[i], k, url, sizeof(url));
			int n = snprintf(text + used, sizeof(text) - used,
					 " %s", url);
			if ((size_t)n >= sizeof(text) - used)
				break;
			used += (size_t)n;
		}
	}
	notify(run->options.start, "READY=1\nSTATUS=serving%.*s", (int)used,
	       text);
}

/* Whichever loop waits, and soon enough. */
static void feed_watchdog(struct run *run, struct ss_server *server)
{
	const struct ss_start *start = run->options.start;
	if (!start || !start->watchdog_ms)
		return;
	int64_t at = sys_now_ms();
	if (at >= run->watchdog_at) {
		notify(run->options.start, "WATCHDOG=1");
		run->watchdog_at = at + start->watchdog_ms;
	}
	ss_turn_at(server, now(server) + (run->watchdog_at - at));
}

/* ---- on the serving thread, while they serve ------------------------------*/

static void renew_workers(struct run *run)
{
	bool any = false;
	for (int i = 0; i < run->count; i++)
		any |= supervising(run->servers[i]);
	if (!any)
		return;
	run->again = true;
	for (int i = 0; i < run->count; i++)
		ss_shutdown(run->servers[i]);
}

static void reload(struct run *run)
{
	notify(run->options.start,
	       "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reloading",
	       (long long)sys_now_us());
	int r = run->options.reload(run->options.arg);
	tell_ready(run);
	if (r < 0)
		ss_log(first(run), SS_LOG_ERROR, 0, "reload: %s", strerror(-r));
	else if (!run->again)
		renew_workers(run);
}

void run_look(struct ss_server *server)
{
	struct run *run = server->run;
	feed_watchdog(run, server);
	/* What follows is for between requests. */
	if (run->beside)
		return;
	restart_look(run, server);
	if (!run->serving || !atomic_load(&run->asked))
		return;
	unsigned asked = atomic_exchange(&run->asked, 0);
	if (asked & RUN_STOP)
		return;
	if (asked & RUN_RELOAD)
		reload(run);
	if (asked & RUN_RESTART)
		restart_begin(run);
}

/* ---- from beginning to end ------------------------------------------------*/

/* It has no listener: what it is given is all that it serves. */
static int serve_connection(struct run *run)
{
	struct ss_start *start = run->options.start;
	struct ss_server *server = first(run);
	int fd = start->connection, r = 0;
	if (!server->activated) {
		server->bound = true;
		r = ss_server_activate(server, NULL);
	}
	if (r < 0)
		return r;
	start->connection = -1;
	server->turning = true;
	r = accept_given(server, fd, &start->peer, &start->local);
	server->turning = false;
	return r < 0 ? r : loop_until_idle(server);
}

static int serve(struct run *run)
{
	if (connection_of(run) >= 0)
		return serve_connection(run);
	if (run->options.once)
		return ss_handle_request(first(run));
	if (run->count == 1)
		return ss_serve_forever(first(run));
	return ss_serve(run->servers, run->count);
}

/* Each ss_shutdown ends one serving: one that was not for the end is followed
 * by another. */
static int serve_all(struct run *run)
{
	int r = 0;
	run->serving = true;
	do {
		run->again = false;
		r = serve(run);
	} while (r >= 0 && run->again);
	run->serving = false;
	return r == -ECANCELED || r > 0 ? 0 : r;
}

static int drop(const struct run *run)
{
	struct ss_diag why;
	if (!run->options.privileges)
		return 0;
	int r = ss_drop_privileges(run->options.privileges, &why);
	if (r < 0)
		ss_log(first(run), SS_LOG_ERROR, 0, "%s", why.text);
	return r;
}

static int run_through(struct run *run)
{
	const struct ss_run_options *o = &run->options;
	unsigned minded = RUN_STOP | (o->reload ? RUN_RELOAD : 0) |
			  (o->argv ? RUN_RESTART : 0);
	int r = signals_take(run, minded);
	if (r < 0)
		return refuse(run, r, "another ss_run");
	r = drop(run);
	if (r >= 0 && o->ready)
		r = o->ready(o->arg);
	if (r >= 0) {
		start_take_over(run);
		tell_ready(run);
		feed_watchdog(run, first(run));
		r = serve_all(run);
		if (r < 0)
			refuse(run, r, "cannot serve");
	}
	restart_give_up(run);
	if (!run->handed)
		notify(o->start, "STOPPING=1\nSTATUS=stopping");
	servers_close(run);
	signals_give_back();
	return r;
}

static void leave_all_servers(struct run *run, int entered)
{
	for (int i = 0; i < entered; i++) {
		run->servers[i]->run = NULL;
		server_unclaim(run->servers[i]);
	}
}

/* This thread has them until the end, so that nobody closes one meanwhile. */
static int run_all(struct run *run)
{
	int r = 0, entered = 0;
	bool one = run->options.once || connection_of(run) >= 0;
	if (one && run->count > 1)
		return refuse(run, -EINVAL, "one request, and several servers");
	while (entered < run->count && r >= 0) {
		r = server_claim(run->servers[entered]);
		if (r >= 0)
			run->servers[entered++]->run = run;
	}
	r = r < 0 ? refuse(run, r, "cannot serve") : run_through(run);
	leave_all_servers(run, entered);
	return r;
}

/* What a newer program sets and this library does not know. */
static bool unknown(const void *options, size_t size)
{
	const unsigned char *bytes = options;
	for (size_t i = sizeof(struct ss_run_options); i < size; i++)
		if (bytes[i])
			return true;
	return false;
}

int ss_run_sized(struct ss_server *const *servers, int count,
		 const struct ss_run_options *options, size_t size)
{
	struct run run = { .servers = servers,
			   .count = count,
			   .pid = sys_getpid() };
	if (count < 1 || (options && unknown(options, size)))
		return 2;
	if (options)
		memcpy(&run.options, options,
		       size < sizeof(run.options) ? size : sizeof(run.options));
	run.chosen = sys_calloc((size_t)count, sizeof(*run.chosen));
	int r = run.chosen ? run_all(&run) : refuse(&run, -ENOMEM, "ss_run");
	sys_free(run.chosen);
	return r < 0 ? 1 : 0;
}
