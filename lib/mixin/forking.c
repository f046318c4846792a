/*
 * Forking: a process per request.
 */
#include <errno.h>

#include <socketserver/layers.h>

#include "../sys.h"
#include "reaper.h"

/* A request's: the process that serves it. */
struct served {
	struct child child; /* first: the reaper's view of it */
	struct ss_request *req;
};

static struct reaper *reaper_of(struct ss_server *server)
{
	return ss_layer_state(server, &ss_forking_mixin);
}

/* ---- reaping --------------------------------------------------------------*/

static void child_ended(struct ss_server *server, struct child *child,
			pid_t pid, int status)
{
	struct ss_request *req = ((struct served *)child)->req;
	char text[64];
	if (status != -1 && WIFSIGNALED(status))
		ss_log(server, SS_LOG_WARNING, ss_request_id(req),
		       "child %ld %s", (long)pid,
		       reaper_tell(status, text, sizeof(text)));
	bool well =
		status == -1 || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
	ss_request_end(req, well ? 0 : -ECHILD);
}

/* Not service_actions: who only ever calls handle_request has none. */
static void frk_waited(void *server)
{
	reaper_waited(server, reaper_of(server));
}

static const struct ss_poller_ops attends = { .waited = frk_waited };

/* ---- the child ------------------------------------------------------------*/

static _Noreturn void serve_in_child(struct ss_request *req)
{
	int status = ss_request_finish(req);
	sys_flush();
	sys_exit(status < 0 ? 1 : 0);
}

/* ---- the parent -----------------------------------------------------------*/

static int frk_process_request(struct ss_server *server, struct ss_request *req)
{
	struct reaper *reaper = reaper_of(server);
	int pipe[2];
	reaper_prepare(reaper, pipe);
	/* What is in stdio's buffers is ours to print, not every child's. */
	sys_flush();
	pid_t pid = ss_fork(req);
	if (pid < 0) {
		reaper_cancel(pipe);
		return pid;
	}
	if (pid == 0) {
		reaper_in_child(pipe);
		serve_in_child(req);
	}
	struct served *served = ss_request_layer_state(req, &ss_forking_mixin);
	served->req = req;
	reaper_adopt(reaper, &served->child, pid);
	ss_request_set_pid(req, pid);
	ss_self(server)->close_request(server, req);
	reaper_watch_later(server, &served->child, pipe);
	return 0;
}

/* Under the lock.  End of file reaches the child by the stop pipes. */
static int frk_cancel_request(struct ss_server *server, struct ss_request *req,
			      bool force)
{
	struct served *served = ss_request_layer_state(req, &ss_forking_mixin);
	int r = reaper_kill(reaper_of(server), &served->child,
			    force ? SIGKILL : 0);
	if (r != 0)
		return r < 0 ? r : 0;
	return ss_super(server, &ss_forking_mixin)
		->cancel_request(server, req, force);
}

/* ---- the server's life ----------------------------------------------------*/

static int frk_init(struct ss_server *server, const void *options)
{
	(void)options;
	ss_poller_attend(ss_server_poller(server), &attends, server);
	return reaper_init(reaper_of(server), child_ended);
}

static void frk_fini(struct ss_server *server)
{
	reaper_fini(reaper_of(server));
}

static void frk_after_fork(struct ss_server *server)
{
	reaper_after_fork(reaper_of(server));
}

const struct ss_layer ss_forking_mixin = {
	.name = "forking",
	.flags = SS_LAYER_DISPATCHES | SS_LAYER_FORKS | SS_NEEDS_SOCKET,
	.server_size = sizeof(struct reaper),
	.request_size = sizeof(struct served),
	.init = frk_init,
	.fini = frk_fini,
	.after_fork = frk_after_fork,
	.ops = {
		.process_request = frk_process_request,
		.cancel_request = frk_cancel_request,
	},
};
