/*
 * Time-outs: which of a request's bounds is the nearest, and which one struck.
 *
 * While the client's next message has not begun, first_byte_ms (before any
 * byte) or idle_ms stands in place of io_ms, if it is set.
 */
#include "internal.h"

static int over(int first, int second)
{
	return first ? first : second;
}

struct ss_timeouts timeouts_over(const struct ss_timeouts *first,
				 const struct ss_timeouts *second)
{
	return (struct ss_timeouts){
		.handshake_ms = over(first->handshake_ms, second->handshake_ms),
		.first_byte_ms =
			over(first->first_byte_ms, second->first_byte_ms),
		.io_ms = over(first->io_ms, second->io_ms),
		.idle_ms = over(first->idle_ms, second->idle_ms),
		.total_ms = over(first->total_ms, second->total_ms),
	};
}

static const struct ss_timeouts *in_force(const struct ss_request *req)
{
	return req->rare ? &req->rare->timeouts : &req->server->timeouts;
}

static void note_timed(struct ss_request *req)
{
	const struct ss_timeouts *t = in_force(req);
	req->timed = t->handshake_ms > 0 || t->first_byte_ms > 0 ||
		     t->io_ms > 0 || t->idle_ms > 0 || t->total_ms > 0;
}

/*
 * The request's own over the handler's over the configuration's; again when
 * another handler is chosen, who must not undo what a layer has set.
 *
 * A further stream has its owner's time-outs under its own, as they are now,
 * and its owner's total; the first byte is counted from its own beginning.
 */
void timeout_merge(struct ss_request *req)
{
	struct rare *rare = req->rare;
	if (rare && rare->owner)
		rare->timeouts = *in_force(rare->owner);
	else if (rare)
		rare->timeouts = timeouts_over(&rare->handler->timeouts,
					       &req->server->config.timeouts);
	if (rare)
		rare->timeouts =
			timeouts_over(&rare->own_timeouts, &rare->timeouts);
	note_timed(req);
}

int ss_request_set_timeouts(struct ss_request *req,
			    const struct ss_timeouts *timeouts)
{
	struct rare *rare = request_rare(req);
	if (!rare)
		return -ENOMEM;
	rare->own_timeouts = timeouts_over(timeouts, &rare->own_timeouts);
	timeout_merge(req);
	return 0;
}

static void offer(struct ss_request *req, int64_t from, int ms,
		  enum ss_timeout kind)
{
	if (ms <= 0)
		return;
	if (req->deadline != SS_NONE && req->deadline <= from + ms)
		return;
	req->deadline = from + ms;
	req->timeout_kind = (unsigned char)kind;
}

/* A read that was waited for in advance goes on with that wait's deadline. */
int64_t timeout_compute(struct ss_request *req, short events)
{
	bool kept = req->resumed && (events & POLLIN);
	req->resumed = false;
	if (kept)
		return req->deadline;
	req->deadline = SS_NONE;
	const struct ss_request *owner = owner_of(req);
	if (owner != req)
		timeout_merge(req);
	if (!req->timed)
		return SS_NONE;
	const struct ss_timeouts *t = in_force(req);
	int64_t at = now(req->server);
	offer(req, owner->accepted_at, t->total_ms, SS_TIMEOUT_TOTAL);
	if (owner->phase < SS_PHASE_SETUP)
		offer(req, owner->accepted_at, t->handshake_ms,
		      SS_TIMEOUT_HANDSHAKE);
	if ((events & POLLIN) && !heard(req) && t->first_byte_ms > 0)
		offer(req, req->accepted_at, t->first_byte_ms,
		      SS_TIMEOUT_FIRST_BYTE);
	else if ((events & POLLIN) && between_messages(req) && t->idle_ms > 0)
		offer(req, at, t->idle_ms, SS_TIMEOUT_IDLE);
	else
		offer(req, at, t->io_ms, SS_TIMEOUT_IO);
	return req->deadline;
}

/* Whether the request's end comes before the deadline, which it then is. */
bool timeout_total(struct ss_request *req, int64_t *deadline)
{
	req->resumed = false;
	req->deadline = *deadline;
	offer(req, req->accepted_at, in_force(req)->total_ms, SS_TIMEOUT_TOTAL);
	bool nearer = req->deadline != *deadline;
	*deadline = req->deadline;
	return nearer;
}

/* Whether it has passed while the call was interrupted again and again. */
int timeout_interrupted(struct ss_request *req)
{
	if (req->deadline == SS_NONE || now(req->server) < req->deadline)
		return 0;
	return timeout_struck(req);
}

/* A total that has passed ends calls that need not wait, too. */
int timeout_overdue(struct ss_request *req)
{
	bool total = req->timeout_kind == SS_TIMEOUT_TOTAL ||
		     req->timeout_kind == SS_TIMEOUT_HANDSHAKE;
	return total ? timeout_interrupted(req) : 0;
}

int timeout_struck(struct ss_request *req)
{
	owner_of(req)->timeout = req->timeout = req->timeout_kind;
	return -ETIMEDOUT;
}

enum ss_timeout ss_request_timeout(const struct ss_request *req)
{
	return (enum ss_timeout)req->timeout;
}

int64_t ss_request_deadline(const struct ss_request *req)
{
	return req->deadline;
}
