/* How handlers wait for clients in memory, and how time passes there. */
#include "memory.h"

#include <errno.h>
#include <string.h>

#include "../sys.h"

enum { WAITS_MAX = 64 };

/* ---- waiting --------------------------------------------------------------*/

/* Nobody else runs: either time passes, or nothing ever comes. */
static int wait_alone(struct memory *memory, int64_t deadline)
{
	if (deadline == SS_NONE)
		return -ESHUTDOWN;
	if (memory->clock < deadline)
		memory->clock = deadline;
	return -ETIMEDOUT;
}

/* With the lock held: bytes, or their end. */
static bool input_is_there(const struct memory_channel *mine)
{
	const struct ss_memory_client *client = mine->client;
	return bytes_held(&client->to_server) || client->sent_all || mine->half;
}

/* With the lock held: what the channel would not block for. */
static short channel_ready(const struct memory_channel *mine)
{
	short in = input_is_there(mine) ? POLLIN : 0;
	return in | (memory_room(mine->client) || mine->forced ? POLLOUT : 0);
}

static int wait_for_events(struct memory *memory, struct memory_channel *mine,
			   short events, int64_t deadline)
{
	struct timespec at = { .tv_sec = (time_t)(deadline / 1000),
			       .tv_nsec = (long)(deadline % 1000) * 1000000 };
	int error = 0;
	pthread_mutex_lock(&memory->lock);
	while (!(channel_ready(mine) & events) && !error) {
		if (deadline == SS_NONE)
			pthread_cond_wait(&memory->changed, &memory->lock);
		else
			error = pthread_cond_timedwait(&memory->changed,
						       &memory->lock, &at);
	}
	int r = mine->forced				   ? -ECANCELED
		: error && !(channel_ready(mine) & events) ? -ETIMEDOUT
							   : 0;
	pthread_mutex_unlock(&memory->lock);
	return r;
}

/* A further stream's socket is looked at once; then time jumps. */
static int wait_alone_for(struct ss_server *server, struct ss_request *req,
			  struct ss_source *source, short events,
			  int64_t deadline)
{
	struct memory *memory = memory_of(server);
	int64_t at = deadline == SS_NONE ? SS_NONE : memory->clock;
	int r = memory_below(server)->wait(server, req, source, events, at);
	return r == -ETIMEDOUT ? wait_alone(memory, deadline) : r;
}

/* The model waits, and asks what there is. */
static int look(struct memory *memory, const struct memory_channel *mine,
		short events)
{
	pthread_mutex_lock(&memory->lock);
	bool ready = channel_ready(mine) & events;
	pthread_mutex_unlock(&memory->lock);
	return ready ? 0 : -ETIMEDOUT;
}

int memory_wait(struct ss_server *server, struct ss_request *req,
		struct ss_source *source, short events, int64_t deadline)
{
	struct memory *memory = memory_of(server);
	struct memory_channel *mine = req ? ss_request_space(req) : NULL;
	bool other = !mine || source != &mine->source;
	if (other && !memory->parks && !memory->concurrent)
		return wait_alone_for(server, req, source, events, deadline);
	if (other)
		return memory_below(server)->wait(server, req, source, events,
						  deadline);
	if (memory->parks)
		return look(memory, mine, events);
	if (!memory->concurrent)
		return wait_alone(memory, deadline);
	return wait_for_events(memory, mine, events, deadline);
}

static struct memory_channel *channel_of(struct ss_request *req)
{
	const struct ss_layer *transport =
		req ? ss_server_transport(ss_request_server(req)) : NULL;
	if (transport != &ss_memory_server &&
	    transport != &ss_memory_datagram_server)
		return NULL;
	/* A further stream is a socket here, too; its space begins with the
	 * channel of one. */
	struct memory_channel *mine = ss_request_space(req);
	return mine->channel.ops == &memory_ops ? mine : NULL;
}

/* With the lock held.  Reading a packet never waits. */
static short readiness(struct memory_channel *mine)
{
	char bytes[8];
	while (mine->bell[0] &&
	       sys_read(mine->bell[0], bytes, sizeof(bytes)) > 0)
		;
	short packet = memory_is_stream(mine->client->server) ? 0 : POLLIN;
	return channel_ready(mine) | packet;
}

/* How many of the memory streams among them are ready. */
static int streams_ready(struct memory *memory, struct ss_wait *waits,
			 int count)
{
	int ready = 0;
	pthread_mutex_lock(&memory->lock);
	for (int i = 0; i < count; i++) {
		struct memory_channel *mine = channel_of(waits[i].req);
		if (mine)
			waits[i].revents = readiness(mine) & waits[i].events;
		ready += mine && waits[i].revents;
	}
	pthread_mutex_unlock(&memory->lock);
	return ready;
}

/* Time jumps, or, where it has no end, so does the input. */
static int wait_any_alone(struct ss_server *server, struct ss_request *req,
			  struct ss_wait *waits, int count, int64_t deadline)
{
	struct memory *memory = memory_of(server);
	int r = memory_below(server)->wait_any(server, req, waits, count,
					       memory->clock);
	if (r >= 0)
		r += streams_ready(memory, waits, count);
	if (r)
		return r;
	for (int i = 0; deadline == SS_NONE && i < count; i++)
		if (channel_of(waits[i].req)) {
			waits[i].revents = waits[i].events & POLLIN;
			r += waits[i].revents != 0;
		}
	if (r)
		return r;
	if (deadline == SS_NONE)
		return memory_below(server)->wait_any(server, req, waits, count,
						      SS_NONE);
	if (memory->clock < deadline)
		memory->clock = deadline;
	return 0;
}

/* In place of streams, the pipes that ring when their input changes. */
static int hang_bells(struct memory *memory, const struct ss_wait *waits,
		      int count, struct ss_wait *bells)
{
	int r = 0;
	pthread_mutex_lock(&memory->lock);
	for (int i = 0; r == 0 && i < count; i++) {
		struct memory_channel *mine = channel_of(waits[i].req);
		int pipe[2];
		bells[i] = waits[i];
		if (mine && !mine->bell[0]) {
			r = sys_pipe(pipe) == -1 ? -errno : 0;
			if (r == 0)
				memcpy(mine->bell, pipe, sizeof(pipe));
		}
		if (mine)
			bells[i] = (struct ss_wait){ .fd = mine->bell[0],
						     .events = POLLIN };
	}
	pthread_mutex_unlock(&memory->lock);
	return r;
}

static int wait_any_beside(struct ss_server *server, struct ss_request *req,
			   struct ss_wait *waits, int count, int64_t deadline)
{
	struct memory *memory = memory_of(server);
	struct ss_wait bells[WAITS_MAX];
	for (;;) {
		int r = hang_bells(memory, waits, count, bells);
		if (r == 0)
			r = streams_ready(memory, waits, count);
		if (r)
			return r;
		r = memory_below(server)->wait_any(server, req, bells, count,
						   deadline);
		if (r <= 0)
			return r;
		r = streams_ready(memory, waits, count);
		for (int i = 0; i < count; i++)
			if (!channel_of(waits[i].req)) {
				waits[i].revents = bells[i].revents;
				r += waits[i].revents != 0;
			}
		if (r)
			return r;
	}
}

int memory_wait_any(struct ss_server *server, struct ss_request *req,
		    struct ss_wait *waits, int count, int64_t deadline)
{
	if (!memory_of(server)->concurrent)
		return wait_any_alone(server, req, waits, count, deadline);
	return wait_any_beside(server, req, waits, count, deadline);
}

/* ---- time -----------------------------------------------------------------*/

int64_t memory_now(struct ss_server *server)
{
	struct memory *memory = memory_of(server);
	if (memory->concurrent)
		return memory_below(server)->now(server);
	if (atomic_load(&memory->goes))
		return memory_below(server)->now(server) + memory->ahead;
	return memory->clock;
}

int memory_pass_time(struct ss_server *server, int64_t until)
{
	struct memory *memory = memory_of(server);
	if (!memory->parks || atomic_load(&memory->goes) || until == SS_NONE)
		return memory_below(server)->pass_time(server, until);
	if (until == MEMORY_NEVER)
		atomic_store(&memory->stuck, true);
	else if (memory->clock < until)
		memory->clock = until;
	return 0;
}

void memory_let_time_go(struct ss_server *server)
{
	struct memory *memory = memory_of(server);
	pthread_mutex_lock(&memory->lock);
	if (memory->parks && !atomic_load(&memory->goes)) {
		memory->ahead =
			memory->clock - memory_below(server)->now(server);
		atomic_store(&memory->goes, true);
	}
	pthread_mutex_unlock(&memory->lock);
}
