/*
 * Record: what connections say, written to a file as it is read and written.
 *
 * All processes of the server append to one open file, a record by one
 * writev(2) (O_APPEND: each goes to the end that the one before it has made).
 * Nothing is kept back, so that a crash loses nothing that a handler has seen.
 * How much may be written is claimed beforehand in memory that they share.
 *
 * finish_request is left alone, since a fiber would keep its stack for it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <socketserver/record.h>

#include "../sys.h"
#include "record_file.h"

enum {
	CONNECTION = 1 << 20,
	FILE_SIZE = 64 << 20,
	STALL_MS = 2000,
	PIECES = 17, /* of a record: its head, and what a write has at once */
	NEAR = 8,    /* what was redacted so close to each other is one */
	PATH_ROOM = 4096,
	/* What a connection's end may take, and the file's: claimed at once. */
	LEFT_OUT = RECORD_HEAD + 17,
	END = RECORD_HEAD + 4,
};

struct shared {
	atomic_ullong connections, bytes, claimed;
	atomic_ullong left_connections, left_bytes;
	atomic_int error;
};

struct recorder {
	struct ss_record_options options;
	struct shared *shared;
	char *path;
	int fd;
	int64_t began;
	bool begun;
	bool bound; /* or else the file goes with a server that never was */
	bool child; /* of a request: end_request runs elsewhere */
};

/* A request's. */
struct recorded {
	struct ss_channel channel; /* first */
	uint64_t in, out;	   /* seen, before anything was left out too */
	uint64_t left_in, left_out;
	int64_t room; /* that max_connection leaves; SS_NONE */
	bool seen;    /* verify_request has been here */
	bool open;    /* it is in the file */
	bool own;     /* it was opened in a child, which tells its end, too */
	bool in_ended, out_ended, broken;
	unsigned char reason; /* it is left out from here on; 0: it is not */
};

static struct recorder *recorder_of(const struct ss_server *server)
{
	return ss_layer_state(server, &ss_record_mixin);
}

static struct recorded *recorded_of(const struct ss_request *req)
{
	return ss_request_layer_state(req, &ss_record_mixin);
}

static const struct ss_ops *super_of(const struct ss_server *server)
{
	return ss_super(server, &ss_record_mixin);
}

/* ---- the file -------------------------------------------------------------*/

/* Whether so many bytes are still to have a place there. */
static bool claim(struct recorder *recorder, uint64_t n)
{
	struct shared *shared = recorder->shared;
	int64_t most = recorder->options.max_file;
	if (atomic_load(&shared->error))
		return false;
	uint64_t end = atomic_fetch_add(&shared->claimed, n) + n;
	if (most == SS_NONE || end <= (uint64_t)most)
		return true;
	atomic_fetch_sub(&shared->claimed, n);
	return false;
}

/* The first one says it. */
static void fail(struct ss_server *server, int code, const char *what)
{
	int none = 0;
	if (atomic_compare_exchange_strong(&recorder_of(server)->shared->error,
					   &none, code))
		ss_log(server, SS_LOG_ERROR, 0,
		       "record: %s: nothing is written from here on",
		       what ? what : strerror(-code));
}

/* What stands behind it is of no use where only a part was written, but nobody
 * may wait here for others to write no more. */
static void append(struct ss_server *server, const struct iovec *iov, int count,
		   size_t size)
{
	const struct recorder *recorder = recorder_of(server);
	int stall = recorder->options.stall_ms;
	int64_t before = sys_now_ms();
	ssize_t n;
	do
		n = sys_writev(recorder->fd, iov, count);
	while (n == -1 && errno == EINTR);
	if (n == -1)
		fail(server, -errno, NULL);
	else if ((size_t)n < size)
		fail(server, -ENOSPC, NULL);
	else if (stall != SS_NONE && sys_now_ms() - before > stall)
		fail(server, -ETIMEDOUT, "the disk does not keep up");
}

/* iov[0] is for the head; the place has been claimed. */
static void put(struct ss_server *server, struct record *record,
		struct iovec *iov, int count, size_t size)
{
	const struct recorder *recorder = recorder_of(server);
	unsigned char head[RECORD_HEAD];
	int64_t passed = ss_self(server)->now(server) - recorder->began;
	if (atomic_load(&recorder->shared->error))
		return;
	record->at_us = passed > 0 ? (uint64_t)passed * 1000 : 0;
	record_put_head(head, record, iov + 1, count - 1, size);
	iov[0] = (struct iovec){ head, sizeof(head) };
	append(server, iov, count, sizeof(head) + size);
	iov[0] = (struct iovec){ NULL, 0 };
}

/* A record of a fixed size. */
static void put_small(struct ss_server *server, struct record record,
		      const void *body, size_t size)
{
	struct iovec iov[2] = { { NULL, 0 }, { (void *)body, size } };
	put(server, &record, iov, 2, size);
}

static void put_left_out(struct ss_server *server, uint64_t id, uint64_t in,
			 uint64_t out, unsigned char reason)
{
	unsigned char body[LEFT_OUT - RECORD_HEAD];
	record_put64(body, in);
	record_put64(body + 8, out);
	body[16] = reason;
	put_small(server,
		  (struct record){ .kind = SS_RECORDED_LEFT_OUT, .id = id },
		  body, sizeof(body));
}

static void put_error(struct ss_server *server, uint64_t id, unsigned kind,
		      unsigned flags, int error)
{
	unsigned char body[END - RECORD_HEAD];
	record_put32(body, error < 0 && error > -4096 ? (uint32_t)-error : 0);
	put_small(server,
		  (struct record){ .kind = kind, .flags = flags, .id = id },
		  body, sizeof(body));
}

/* ---- life -----------------------------------------------------------------*/

static int bad(struct ss_server *server, const char *name, long long value)
{
	return ss_refuse(server, -EINVAL,
			 "record: %s is %lld: bytes, or SS_NONE", name, value);
}

static int read_options(struct ss_server *server,
			const struct ss_record_options *given)
{
	struct ss_record_options *o = &recorder_of(server)->options;
	if (!given || !given->path || !*given->path)
		return ss_refuse(server, -EINVAL,
				 "record: it takes the path of a file");
	*o = *given;
	if (o->max_connection < SS_NONE)
		return bad(server, "max_connection", o->max_connection);
	if (o->max_file < SS_NONE)
		return bad(server, "max_file", o->max_file);
	if (o->stall_ms < SS_NONE)
		return ss_refuse(server, -EINVAL,
				 "record: stall_ms is %d: ms, or SS_NONE",
				 o->stall_ms);
	if (!o->max_connection)
		o->max_connection = CONNECTION;
	if (!o->max_file)
		o->max_file = FILE_SIZE;
	if (!o->stall_ms)
		o->stall_ms = STALL_MS;
	return 0;
}

/* With the process's number for "%p"; NULL: no memory. */
static char *name_file(const char *path)
{
	char number[24];
	const char *place = strstr(path, "%p");
	size_t room = strlen(path) + sizeof(number);
	char *name = sys_malloc(room);
	if (!name)
		return NULL;
	snprintf(number, sizeof(number), "%ld", (long)sys_getpid());
	if (place)
		snprintf(name, room, "%.*s%s%s", (int)(place - path), path,
			 number, place + 2);
	else
		snprintf(name, room, "%s", path);
	return name;
}

static int make_file(struct ss_server *server, const char *path)
{
	struct recorder *recorder = recorder_of(server);
	const int flags =
		O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY;
	recorder->path = name_file(path);
	if (!recorder->path)
		return -ENOMEM;
	recorder->fd = sys_open(recorder->path, flags, 0600);
	if (recorder->fd != -1)
		return 0;
	return ss_refuse(server, -errno, "record: %s: %s", recorder->path,
			 strerror(errno));
}

/* By the server's clock, once all layers have begun. */
static void begin_clock(struct ss_server *server)
{
	struct recorder *recorder = recorder_of(server);
	if (!recorder->begun)
		recorder->began = ss_self(server)->now(server);
	recorder->begun = true;
}

static int begin_file(struct ss_server *server)
{
	struct recorder *recorder = recorder_of(server);
	const char *text = ss_server_describe(server);
	unsigned char file[RECORD_FILE_HEAD], head[RECORD_HEAD], fixed[12];
	size_t n = strlen(text);
	struct record record = { .kind = RECORD_BEGIN };
	if (n >= SS_ADDRESS_TEXT)
		n = SS_ADDRESS_TEXT - 1;
	struct iovec iov[4] = { { file, sizeof(file) },
				{ head, sizeof(head) },
				{ fixed, sizeof(fixed) },
				{ (void *)text, n } };
	size_t size = sizeof(file) + sizeof(head) + sizeof(fixed) + n;
	record_put_file_head(file);
	record_put64(fixed, (uint64_t)sys_wall_ms());
	record_put32(fixed + 8, (uint32_t)sys_getpid());
	record_put_head(head, &record, iov + 2, 2, sizeof(fixed) + n);
	/* With what tells at the end what was left out. */
	if (!claim(recorder, size + LEFT_OUT))
		return ss_refuse(server, -EINVAL,
				 "record: max_file is %lld: too little",
				 (long long)recorder->options.max_file);
	append(server, iov, 4, size);
	int error = atomic_load(&recorder->shared->error);
	return error ? ss_refuse(server, error, "record: %s: %s",
				 recorder->path, strerror(-error))
		     : 0;
}

static void tell_left_out(struct ss_server *server)
{
	struct shared *shared = recorder_of(server)->shared;
	uint64_t connections = atomic_load(&shared->left_connections);
	uint64_t bytes = atomic_load(&shared->left_bytes);
	if (!connections && !bytes)
		return;
	put_left_out(server, 0, connections, bytes, SS_RECORDED_FULL);
	ss_log(server, SS_LOG_WARNING, 0,
	       "record: %llu bytes were left out, and %llu connections wholly",
	       (unsigned long long)bytes, (unsigned long long)connections);
}

static void release(struct recorder *recorder, bool unlinks)
{
	if (recorder->fd >= 0 && unlinks)
		sys_unlink(recorder->path);
	if (recorder->fd >= 0)
		sys_close(recorder->fd);
	sys_free(recorder->path);
	if (recorder->shared)
		ss_shared_free(recorder->shared, sizeof(*recorder->shared));
}

static void rec_fini(struct ss_server *server)
{
	struct recorder *recorder = recorder_of(server);
	bool first = !recorder->child && !ss_worker(server);
	if (first)
		tell_left_out(server);
	release(recorder, first && !recorder->bound &&
				  !atomic_load(&recorder->shared->connections));
}

static int rec_init(struct ss_server *server, const void *options)
{
	struct recorder *recorder = recorder_of(server);
	recorder->fd = -1;
	int r = read_options(server, options);
	if (r == 0 &&
	    !(recorder->shared = ss_shared_alloc(sizeof(*recorder->shared))))
		r = -ENOMEM;
	if (r == 0)
		r = make_file(server, recorder->options.path);
	if (r == 0)
		r = begin_file(server);
	recorder->options.path = NULL; /* the caller's */
	if (r < 0)
		release(recorder, true);
	return r;
}

static void rec_after_fork(struct ss_server *server)
{
	recorder_of(server)->child = !ss_worker(server);
}

/* ---- redacting ------------------------------------------------------------*/

static void flatten(unsigned char *to, const struct iovec *iov, int count,
		    size_t n)
{
	for (int i = 0; i < count && n > 0; i++) {
		size_t part = iov[i].iov_len < n ? iov[i].iov_len : n;
		if (part)
			memcpy(to, iov[i].iov_base, part);
		to += part;
		n -= part;
	}
}

/* Where the copy differs, behind the two numbers; how many stretches.  Too many
 * are one. */
static uint32_t find_stretches(const unsigned char *from,
			       const unsigned char *copy, size_t n,
			       unsigned char *to)
{
	uint32_t count = 0;
	size_t begin = 0, end = 0;
	for (size_t i = 0; i < n; i++) {
		if (from[i] == copy[i])
			continue;
		bool joins = count > 0 &&
			     (i < end + NEAR || count == RECORD_STRETCHES);
		if (!joins) {
			begin = i;
			count++;
		}
		end = i + 1;
		unsigned char *stretch = to + (count - 1) * RECORD_STRETCH;
		record_put32(stretch, (uint32_t)begin);
		record_put32(stretch + 4, (uint32_t)(end - begin));
	}
	return count;
}

/* Numbers, stretches, the original and the copy, in one piece of memory. */
enum { REDACTING = RECORD_REDACTED + RECORD_STRETCHES * RECORD_STRETCH };

/* What is to be written of the chunk, as iov[0] and iov[1]; NULL: no memory,
 * and nothing may be.  To be freed. */
static unsigned char *redact(const struct recorder *recorder,
			     struct ss_record_chunk *chunk,
			     const struct iovec *from, int from_count,
			     struct record *record, struct iovec *iov)
{
	size_t n = chunk->size;
	unsigned char *memory = sys_malloc(REDACTING + 2 * n);
	if (!memory)
		return NULL;
	unsigned char *original = memory + REDACTING, *copy = original + n;
	flatten(original, from, from_count, n);
	memcpy(copy, original, n);
	chunk->bytes = copy;
	recorder->options.redact(recorder->options.redact_arg, chunk);
	size_t kept = chunk->size < n ? chunk->size : n;
	uint32_t count =
		find_stretches(original, copy, kept, memory + RECORD_REDACTED);
	iov[0] = (struct iovec){ memory, 0 };
	iov[1] = (struct iovec){ copy, kept };
	if (count == 0 && kept == n)
		return memory;
	record->flags = RECORD_IS_REDACTED;
	record_put32(memory, (uint32_t)n);
	record_put32(memory + 4, count);
	iov[0].iov_len = RECORD_REDACTED + (size_t)count * RECORD_STRETCH;
	return memory;
}

/* ---- bytes ----------------------------------------------------------------*/

/* Nothing more of it is written. */
static void leave_out(struct ss_request *req, bool in, size_t n,
		      unsigned char reason)
{
	struct recorded *mine = recorded_of(req);
	const struct recorder *recorder = recorder_of(ss_request_server(req));
	atomic_fetch_add(&recorder->shared->left_bytes, n);
	if (!mine->reason)
		mine->reason = reason;
	if (in)
		mine->left_in += n;
	else
		mine->left_out += n;
}

static bool is_input(const struct record *record)
{
	return record->kind == SS_RECORDED_INPUT;
}

/* How many of n bytes max_connection lets pass; of a datagram all or none. */
static size_t let_pass(const struct recorded *mine, size_t n, bool dgram)
{
	if (mine->room == SS_NONE || (int64_t)n <= mine->room)
		return n;
	return dgram ? 0 : (size_t)mine->room;
}

/* Up to n bytes of the pieces; how many pieces that are. */
static int clip(struct iovec *to, const struct iovec *from, int count, size_t n)
{
	int i = 0;
	for (; i < count && i < PIECES - 1 && n > 0; i++) {
		to[i] = from[i];
		if (to[i].iov_len > n)
			to[i].iov_len = n;
		n -= to[i].iov_len;
	}
	return i;
}

/* iov[0] is for the head; n bytes of the connection are in it. */
static void write_pieces(struct ss_request *req, struct record *record,
			 struct iovec *iov, int count, size_t n)
{
	struct ss_server *server = ss_request_server(req);
	size_t size = 0;
	for (int i = 1; i < count; i++)
		size += iov[i].iov_len;
	if (claim(recorder_of(server), RECORD_HEAD + size))
		put(server, record, iov, count, size);
	else
		leave_out(req, is_input(record), n, SS_RECORDED_FULL);
}

/* At most RECORD_MOST bytes, and with what the record has before them. */
static void write_chunk(struct ss_request *req, struct record *record,
			const struct iovec *extra, const struct iovec *from,
			int count, size_t n)
{
	const struct recorder *recorder = recorder_of(ss_request_server(req));
	const struct recorded *mine = recorded_of(req);
	struct iovec iov[PIECES + 2];
	struct ss_record_chunk chunk = {
		.id = record->id,
		.from_client = is_input(record),
		.dgram = ss_request_dgram(req),
		.offset = is_input(record) ? mine->in : mine->out,
		.size = n,
	};
	int used = 1;
	if (extra)
		iov[used++] = *extra;
	if (!recorder->options.redact) {
		used += clip(iov + used, from, count, n);
		write_pieces(req, record, iov, used, n);
		return;
	}
	unsigned char *memory =
		redact(recorder, &chunk, from, count, record, iov + used);
	if (memory)
		write_pieces(req, record, iov, used + 2, n);
	else
		leave_out(req, is_input(record), n, SS_RECORDED_NO_MEMORY);
	sys_free(memory);
}

static void count_chunk(struct ss_request *req, unsigned kind, size_t n)
{
	struct recorded *mine = recorded_of(req);
	const struct recorder *recorder = recorder_of(ss_request_server(req));
	if (mine->reason)
		return;
	atomic_fetch_add(&recorder->shared->bytes, n);
	if (mine->room != SS_NONE)
		mine->room -= (int64_t)n;
	if (kind == SS_RECORDED_INPUT)
		mine->in += n;
	else if (kind == SS_RECORDED_OUTPUT)
		mine->out += n;
}

/* As many as pass, in so many records as it takes. */
static void note_bytes(struct ss_request *req, unsigned kind,
		       const struct iovec *extra, const struct iovec *iov,
		       int count, size_t n)
{
	struct recorded *mine = recorded_of(req);
	bool in = kind == SS_RECORDED_INPUT, dgram = ss_request_dgram(req);
	struct record record = { .kind = kind, .id = ss_request_id(req) };
	if (!mine->reason) {
		size_t pass = let_pass(mine, n, dgram);
		if (pass > 0 || (dgram && n == 0)) {
			write_chunk(req, &record, extra, iov, count, pass);
			count_chunk(req, kind, pass);
		}
		n -= pass;
		if (n == 0)
			return;
	}
	leave_out(req, in, n, SS_RECORDED_ENOUGH);
}

/* One element after another, by pieces that a record can hold. */
static void note_pieces(struct ss_request *req, unsigned kind,
			const struct iovec *iov, int count, size_t n)
{
	for (; count > 0 && n > 0; iov++, count--) {
		struct iovec rest = *iov;
		if (rest.iov_len > n)
			rest.iov_len = n;
		n -= rest.iov_len;
		while (rest.iov_len > 0) {
			size_t part = rest.iov_len < RECORD_MOST ? rest.iov_len
								 : RECORD_MOST;
			note_bytes(req, kind, NULL, &rest, 1, part);
			rest.iov_base = (char *)rest.iov_base + part;
			rest.iov_len -= part;
		}
	}
}

/* A datagram of more pieces than a record takes. */
static void note_joined(struct ss_request *req, unsigned kind,
			const struct iovec *iov, int count, size_t n)
{
	unsigned char *memory = sys_malloc(n ? n : 1);
	struct iovec joined = { memory, n };
	if (memory) {
		flatten(memory, iov, count, n);
		note_bytes(req, kind, NULL, &joined, 1, n);
	} else {
		leave_out(req, false, n, SS_RECORDED_NO_MEMORY);
	}
	sys_free(memory);
}

static void note_moved(struct ss_request *req, unsigned kind,
		       const struct iovec *iov, int count, size_t n)
{
	if (n <= RECORD_MOST && count < PIECES)
		note_bytes(req, kind, NULL, iov, count, n);
	else if (ss_request_dgram(req))
		note_joined(req, kind, iov, count, n);
	else
		note_pieces(req, kind, iov, count, n);
}

/* ---- other events ---------------------------------------------------------*/

static void note_event(struct ss_request *req, unsigned kind)
{
	struct ss_server *server = ss_request_server(req);
	if (!recorded_of(req)->reason &&
	    claim(recorder_of(server), RECORD_HEAD))
		put_small(server,
			  (struct record){ .kind = kind,
					   .id = ss_request_id(req) },
			  NULL, 0);
}

static void note_broken(struct ss_request *req, int error)
{
	struct ss_server *server = ss_request_server(req);
	struct recorded *mine = recorded_of(req);
	if (mine->broken || error == -EAGAIN || error == -EINTR)
		return;
	mine->broken = true;
	if (!mine->reason && claim(recorder_of(server), END))
		put_error(server, ss_request_id(req), SS_RECORDED_BROKEN, 0,
			  error);
}

/* ---- the channel ----------------------------------------------------------*/

static ssize_t rec_read(struct ss_channel *channel, void *buf, size_t n,
			struct ss_block *block)
{
	struct recorded *mine = (struct recorded *)channel;
	ssize_t r = ss_channel_read(channel->next, buf, n, block);
	if (r > 0) {
		struct iovec iov = { buf, (size_t)r };
		note_moved(channel->req, SS_RECORDED_INPUT, &iov, 1, (size_t)r);
	} else if (r < 0) {
		note_broken(channel->req, (int)r);
	} else if (!mine->in_ended) {
		mine->in_ended = true;
		note_event(channel->req, SS_RECORDED_INPUT_END);
	}
	return r;
}

static ssize_t rec_writev(struct ss_channel *channel, const struct iovec *iov,
			  int count, struct ss_block *block)
{
	ssize_t r = ss_channel_writev(channel->next, iov, count, block);
	if (r > 0 || (r == 0 && ss_request_dgram(channel->req)))
		note_moved(channel->req, SS_RECORDED_OUTPUT, iov, count,
			   (size_t)r);
	else if (r < 0)
		note_broken(channel->req, (int)r);
	return r;
}

static int rec_shutdown(struct ss_channel *channel, int how,
			struct ss_block *block)
{
	struct recorded *mine = (struct recorded *)channel;
	int r = ss_channel_shutdown(channel->next, how, block);
	if (r == 0 && how != SHUT_RD && !mine->out_ended) {
		mine->out_ended = true;
		note_event(channel->req, SS_RECORDED_OUTPUT_END);
	}
	return r;
}

static ssize_t rec_send_to(struct ss_channel *channel, const void *buf,
			   size_t n, const struct ss_address *to,
			   struct ss_block *block)
{
	struct ss_request *req = channel->req;
	struct iovec iov = { (void *)buf, n };
	unsigned char text[2 + SS_ADDRESS_TEXT];
	ssize_t r = ss_channel_send_to(channel->next, buf, n, to, block);
	if (r < 0)
		return r;
	if (!to) {
		note_bytes(req, SS_RECORDED_OUTPUT, NULL, &iov, 1, n);
		return r;
	}
	ss_address_format(to, (char *)text + 2, SS_ADDRESS_TEXT);
	size_t size = strlen((char *)text + 2);
	record_put16(text, (uint32_t)size);
	struct iovec extra = { text, 2 + size };
	note_bytes(req, SS_RECORDED_ELSEWHERE, &extra, &iov, 1, n);
	return r;
}

/* In the process that has served it. */
static void rec_close(struct ss_channel *channel)
{
	struct recorded *mine = (struct recorded *)channel;
	struct ss_request *req = channel->req;
	struct ss_server *server = ss_request_server(req);
	uint64_t id = ss_request_id(req);
	if (mine->reason)
		put_left_out(server, id, mine->left_in, mine->left_out,
			     mine->reason);
	if (mine->own)
		put_error(server, id, SS_RECORDED_END, 0, 0);
}

/* No write_each: replies go one by one, and past nobody. */
static const struct ss_channel_ops rec_ops = {
	.read = rec_read,
	.writev = rec_writev,
	.shutdown = rec_shutdown,
	.send_to = rec_send_to,
	.close = rec_close,
};

/* ---- a request ------------------------------------------------------------*/

static void put_open(struct ss_request *req)
{
	char peer[SS_ADDRESS_TEXT];
	struct iovec iov[2] = {
		{ NULL, 0 },
		{ ss_peer_name(req, peer, sizeof(peer)), 0 },
	};
	struct record record = {
		.kind = SS_RECORDED_OPEN,
		.flags = ss_request_dgram(req) ? RECORD_IS_DGRAM : 0,
		.id = ss_request_id(req),
	};
	iov[1].iov_len = strlen(peer);
	put(ss_request_server(req), &record, iov, 2, iov[1].iov_len);
}

/* What a layer to the left has read ahead is input, too. */
static void open_request(struct ss_server *server, struct ss_request *req)
{
	struct recorder *recorder = recorder_of(server);
	struct shared *shared = recorder->shared;
	struct recorded *mine = recorded_of(req);
	const size_t most = RECORD_HEAD + SS_ADDRESS_TEXT + LEFT_OUT + END;
	mine->seen = true;
	begin_clock(server);
	if (!claim(recorder, most)) {
		atomic_fetch_add(&shared->left_connections, 1);
		return;
	}
	atomic_fetch_add(&shared->connections, 1);
	mine->open = true;
	mine->own = recorder->child;
	mine->room = recorder->options.max_connection;
	put_open(req);
	ss_channel_push(req, &mine->channel, &rec_ops);
	const void *data;
	ssize_t n = ss_peek(req, &data, 0);
	struct iovec iov = { (void *)data, n > 0 ? (size_t)n : 0 };
	if (n > 0 || ss_request_dgram(req))
		note_moved(req, SS_RECORDED_INPUT, &iov, 1, iov.iov_len);
}

static int rec_verify_request(struct ss_server *server, struct ss_request *req)
{
	if (!recorded_of(req)->seen)
		open_request(server, req);
	return super_of(server)->verify_request(server, req);
}

static void rec_end_request(struct ss_server *server, struct ss_request *req,
			    int status)
{
	const struct recorded *mine = recorded_of(req);
	if (mine->open && !mine->own)
		put_error(server, ss_request_id(req), SS_RECORDED_END,
			  ss_stopping(req) ? RECORD_STOPPING : 0, status);
	super_of(server)->end_request(server, req, status);
}

static int rec_server_bind(struct ss_server *server)
{
	begin_clock(server);
	int r = super_of(server)->server_bind(server);
	recorder_of(server)->bound = r == 0;
	return r;
}

static int rec_server_activate(struct ss_server *server)
{
	int r = super_of(server)->server_activate(server);
	if (r < 0)
		recorder_of(server)->bound = false;
	return r;
}

/* ---- what was written -----------------------------------------------------*/

int ss_record_get_sized(struct ss_server *server, struct ss_record_stats *to,
			size_t size)
{
	struct ss_record_stats now = { 0 };
	memset(to, 0, size);
	if (!ss_server_has(server, &ss_record_mixin))
		return -ENOTSUP;
	struct shared *shared = recorder_of(server)->shared;
	struct stat st = { .st_size = 0 };
	now.connections = atomic_load(&shared->connections);
	now.bytes = atomic_load(&shared->bytes);
	now.left_out_connections = atomic_load(&shared->left_connections);
	now.left_out_bytes = atomic_load(&shared->left_bytes);
	now.error = atomic_load(&shared->error);
	if (sys_fstat(recorder_of(server)->fd, &st) == 0)
		now.file_size = (uint64_t)st.st_size;
	memcpy(to, &now, size < sizeof(now) ? size : sizeof(now));
	return 0;
}

const struct ss_layer ss_record_mixin = {
	.name = "record",
	.server_size = sizeof(struct recorder),
	.request_size = sizeof(struct recorded),
	.init = rec_init,
	.fini = rec_fini,
	.after_fork = rec_after_fork,
	.ops = {
		.server_bind = rec_server_bind,
		.server_activate = rec_server_activate,
		.verify_request = rec_verify_request,
		.end_request = rec_end_request,
	},
};
