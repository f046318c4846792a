/* The log: what is told, and to whom: the program's callback, or standard error
 * (sink.c). */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

/* What a handler's own stack has to hold, beside the line made of it. */
enum { TEXT = LINE_PLAIN };

void log_init(struct ss_server *server)
{
	sink_init(&server->log_sink);
}

static void log_to_stderr(struct ss_server *server, int level, uint64_t id,
			  const char *text)
{
	const struct told told = { level, server, id, text };
	if (!sink_write(&server->log_sink, &server->page->log_tally, &told))
		count(&server->slot->log_dropped);
}

int ss_set_log_level(struct ss_server *server, int level)
{
	if (level < SS_NONE || level > SS_LOG_DEBUG)
		return -EINVAL;
	atomic_store(&server->page->log_level,
		     level ? level : server->config.log_level);
	return 0;
}

int ss_log_level(const struct ss_server *server)
{
	return atomic_load_explicit(&server->page->log_level,
				    memory_order_relaxed);
}

static bool wanted(const struct ss_server *server, int level)
{
	return level <= ss_log_level(server);
}

/* errno is the caller's own: a log line must not change what it reports. */
static void log_text(struct ss_server *server, int level, uint64_t id,
		     const char *fmt, va_list args)
{
	int error = errno;
	char text[TEXT];
	vsnprintf(text, sizeof(text), fmt, args);
	if (server->config.log)
		server->config.log(server->config.log_arg, level, server, id,
				   text);
	else
		log_to_stderr(server, level, id, text);
	errno = error;
}

void ss_log(struct ss_server *server, int level, uint64_t id, const char *fmt,
	    ...)
{
	if (!wanted(server, level))
		return;
	va_list args;
	va_start(args, fmt);
	log_text(server, level, id, fmt, args);
	va_end(args);
}

void ss_logf(struct ss_request *req, int level, const char *fmt, ...)
{
	if (!wanted(req->server, level))
		return;
	va_list args;
	va_start(args, fmt);
	log_text(req->server, level, req->id, fmt, args);
	va_end(args);
}
