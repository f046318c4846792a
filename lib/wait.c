/*
 * Waiting by poll(2): how base's requests, threads and children sleep, and what
 * wakes them besides what they wait for.
 */
#include "internal.h"

enum { WAITS_MAX = 64 };

static void drain(int fd)
{
	char bytes[8];
	while (sys_read(fd, bytes, sizeof(bytes)) > 0)
		;
}

/* fds[count] is for the stop pipe, fds[count + 1] for ss_wake's. */
static int poll_once(struct ss_server *server, struct ss_request *req,
		     struct pollfd *fds, int count, int64_t deadline,
		     const struct stop_view *view)
{
	fds[count] = (struct pollfd){ .fd = view->pipe, .events = POLLIN };
	bool wakeable = req && req->rare;
	fds[count + 1] = (struct pollfd){
		.fd = wakeable ? req->rare->wake_pipe[0] : -1,
		.events = POLLIN,
	};
	deadline = nearest(deadline, view->until);
	int n = req && req->on_loop && server->run
			? loop_poll(server, fds, count + 2, deadline)
			: sys_poll(fds, (nfds_t)count + 2,
				   loop_timeout(server, deadline));
	if (n == -1)
		return errno == EINTR ? 0 : -errno;
	if (fds[count].revents)
		stop_told(server, req, fds[count].revents);
	/* Here, since the byte comes after what it tells of: one that was left
	 * would keep the next wait from sleeping. */
	if (fds[count + 1].revents)
		drain(fds[count + 1].fd);
	int ready = 0;
	for (int i = 0; i < count; i++)
		ready += fds[i].revents != 0;
	return ready;
}

/* What came before the end is read before it. */
static bool has_input(const struct ss_source *source)
{
	struct pollfd fd = { .fd = source ? source->fd : -1, .events = POLLIN };
	return sys_poll(&fd, 1, 0) == 1;
}

int wait_source(struct ss_server *server, struct ss_request *req,
		struct ss_source *source, short events, int64_t deadline)
{
	for (;;) {
		struct stop_view view = stop_look(server, req);
		int r = stop_ending(req, &view);
		if (r == -ECANCELED)
			return r;
		if (r < 0 && (events & POLLIN))
			return has_input(source) ? 0 : r;
		struct pollfd fds[3] = { { .fd = source ? source->fd : -1,
					   .events = events } };
		r = poll_once(server, req, fds, 1, deadline, &view);
		if (r)
			return r < 0 ? r : 0;
		if (deadline != SS_NONE && now(server) >= deadline)
			return -ETIMEDOUT;
	}
}

int wait_several(struct ss_server *server, struct ss_request *req,
		 struct ss_wait *waits, int count, int64_t deadline)
{
	struct pollfd fds[WAITS_MAX + 2];
	for (int i = 0; i < count; i++) {
		fds[i].fd = waits[i].req ? ss_request_fd(waits[i].req)
					 : waits[i].fd;
		fds[i].events = waits[i].events;
		waits[i].revents = 0;
	}
	for (;;) {
		struct stop_view view = stop_look(server, req);
		if (ss_request_take_wake(req))
			return -EINTR;
		if (stop_ending(req, &view))
			return -ECANCELED;
		int r = poll_once(server, req, fds, count, deadline, &view);
		/* Which makes a stream readable, too. */
		view = stop_look(server, req);
		if (r > 0 && stop_ending(req, &view))
			return -ECANCELED;
		for (int i = 0; r > 0 && i < count; i++) {
			waits[i].revents = fds[i].revents;
			if (waits[i].req && waits[i].req->source)
				waits[i].req->source->flags &=
					~(unsigned)SS_SOURCE_DRY;
		}
		if (r)
			return r;
		if (deadline != SS_NONE && now(server) >= deadline)
			return 0;
	}
}

void wait_ring(struct ss_request *req)
{
	if (req->rare && req->rare->wake_pipe[1] >= 0)
		sys_ring(req->rare->wake_pipe[1]);
}

bool ss_request_take_wake(struct ss_request *req)
{
	return atomic_exchange(&req->woken, false);
}

/* Under the lock.  The pipe is made by the first wait that it could end. */
int wait_wake(struct ss_server *server, struct ss_request *req)
{
	(void)server;
	if (atomic_load(&req->own.pid))
		return -ENOTSUP;
	atomic_store(&req->woken, true);
	wait_ring(req);
	return 0;
}

int wait_wakeable(struct ss_request *req)
{
	if (req->server->flags & SS_LAYER_PARKS)
		return 0;
	struct rare *rare = request_rare(req);
	if (!rare)
		return -ENOMEM;
	if (rare->wake_pipe[0] >= 0)
		return 0;
	int fds[2];
	if (sys_pipe(fds) == -1)
		return -errno;
	pthread_mutex_lock(&req->server->lock);
	rare->wake_pipe[0] = fds[0];
	rare->wake_pipe[1] = fds[1];
	pthread_mutex_unlock(&req->server->lock);
	return 0;
}

/* Streams that have bytes without their descriptor are ready at once. */
static int ready_already(struct ss_wait *waits, int count)
{
	int ready = 0;
	for (int i = 0; i < count; i++) {
		struct ss_request *req = waits[i].req;
		waits[i].revents = 0;
		if (!req || !(waits[i].events & POLLIN))
			continue;
		if (stream_buffered(req) || channels_pending(req) || req->eof)
			waits[i].revents = POLLIN;
		ready += waits[i].revents != 0;
	}
	return ready;
}

int ss_wait_any(struct ss_request *req, struct ss_wait *waits, int count,
		int64_t deadline)
{
	req = owner_of(req);
	if (count < 0 || count > WAITS_MAX)
		return -EINVAL;
	stream_pause(req);
	int ready = ready_already(waits, count);
	if (ready)
		return ready;
	struct ss_server *server = req->server;
	int r = wait_wakeable(req);
	if (r < 0)
		return r;
	bool bounded = timeout_total(req, &deadline);
	progress_waits(req, count ? SS_WAITS_OTHERS : SS_WAITS_TIME);
	r = self(server)->wait_any(server, req, waits, count, deadline);
	progress_waits(req, SS_WAITS_NOTHING);
	return r == 0 && bounded ? timeout_struck(req) : r;
}

int ss_wait_fd(struct ss_request *req, int fd, short events, int64_t deadline)
{
	struct ss_wait wait = { .fd = fd, .events = events };
	int r = ss_wait_any(req, &wait, 1, deadline);
	return r > 0 ? wait.revents : r;
}

int ss_offload(struct ss_request *req, int (*fn)(void *arg), void *arg)
{
	req = owner_of(req);
	progress_waits(req, SS_WAITS_OFFLOAD);
	int r = self(req->server)->offload(req->server, req, fn, arg);
	progress_waits(req, SS_WAITS_NOTHING);
	return r;
}

int ss_sleep(struct ss_request *req, int ms)
{
	return ss_wait_any(req, NULL, 0, now(req->server) + ms);
}
