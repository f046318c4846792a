/*
 * Record: what connections say, written to a file as it is read and written.
 *
 * finish_request is left alone, since a fiber would keep its stack for it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <socketserver/record.h>

#include "../sys.h"
#include "record_redact.h"
#include "record_writer.h"

enum {
	CONNECTION = 1 << 20,
	FILE_SIZE = 64 << 20,
	STALL_MS = 2000,
	PIECES = 17, /* of a record: its head, and what a write has at once */
};

struct recorder {
	struct ss_record_options options;
	struct writer writer;
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

static struct writer *writer_of(const struct ss_server *server)
{
	return &recorder_of(server)->writer;
}

static struct recorded *recorded_of(const struct ss_request *req)
{
	return ss_request_layer_state(req, &ss_record_mixin);
}

static const struct ss_ops *super_of(const struct ss_server *server)
{
	return ss_super(server, &ss_record_mixin);
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

static void rec_fini(struct ss_server *server)
{
	struct recorder *recorder = recorder_of(server);
	struct writer *writer = &recorder->writer;
	bool first = !recorder->child && !ss_worker(server);
	if (first)
		writer_tell_left_out(writer);
	writer_close(writer,
		     first && !recorder->bound &&
			     !atomic_load(&writer->shared->connections));
}

static int rec_init(struct ss_server *server, const void *options)
{
	struct recorder *recorder = recorder_of(server);
	int r = read_options(server, options);
	recorder->writer = (struct writer){
		.server = server,
		.max_file = recorder->options.max_file,
		.stall_ms = recorder->options.stall_ms,
	};
	if (r == 0)
		r = writer_open(&recorder->writer, recorder->options.path);
	recorder->options.path = NULL; /* the caller's */
	return r;
}

static void rec_after_fork(struct ss_server *server)
{
	recorder_of(server)->child = !ss_worker(server);
}

/* ---- bytes ----------------------------------------------------------------*/

/* Nothing more of it is written. */
static void leave_out(struct ss_request *req, bool in, size_t n,
		      unsigned char reason)
{
	struct recorded *mine = recorded_of(req);
	const struct recorder *recorder = recorder_of(ss_request_server(req));
	atomic_fetch_add(&recorder->writer.shared->left_bytes, n);
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
	if (writer_claim(writer_of(server), RECORD_HEAD + size))
		writer_put(writer_of(server), record, iov, count, size);
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
	unsigned char *memory = redact_chunk(&recorder->options, &chunk, from,
					     count, record, iov + used);
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
	atomic_fetch_add(&recorder->writer.shared->bytes, n);
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
		redact_flatten(memory, iov, count, n);
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
	    writer_claim(writer_of(server), RECORD_HEAD))
		writer_put_small(writer_of(server),
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
	if (!mine->reason && writer_claim(writer_of(server), WRITER_END))
		writer_put_error(writer_of(server), ss_request_id(req),
				 SS_RECORDED_BROKEN, 0, error);
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
		writer_put_left_out(writer_of(server), id, mine->left_in,
				    mine->left_out, mine->reason);
	if (mine->own)
		writer_put_error(writer_of(server), id, SS_RECORDED_END, 0, 0);
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
	writer_put(writer_of(ss_request_server(req)), &record, iov, 2,
		   iov[1].iov_len);
}

/* What a layer to the left has read ahead is input, too. */
static void open_request(struct ss_server *server, struct ss_request *req)
{
	struct recorder *recorder = recorder_of(server);
	struct writer_shared *shared = recorder->writer.shared;
	struct recorded *mine = recorded_of(req);
	const size_t most =
		RECORD_HEAD + SS_ADDRESS_TEXT + WRITER_LEFT_OUT + WRITER_END;
	mine->seen = true;
	writer_begin_clock(writer_of(server));
	if (!writer_claim(&recorder->writer, most)) {
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
	unsigned flags = ss_stopping(req) ? RECORD_STOPPING : 0;
	if (mine->open && !mine->own)
		writer_put_error(writer_of(server), ss_request_id(req),
				 SS_RECORDED_END, flags, status);
	super_of(server)->end_request(server, req, status);
}

static int rec_server_bind(struct ss_server *server)
{
	writer_begin_clock(writer_of(server));
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
	struct writer_shared *shared = writer_of(server)->shared;
	struct stat st = { .st_size = 0 };
	now.connections = atomic_load(&shared->connections);
	now.bytes = atomic_load(&shared->bytes);
	now.left_out_connections = atomic_load(&shared->left_connections);
	now.left_out_bytes = atomic_load(&shared->left_bytes);
	now.error = atomic_load(&shared->error);
	if (sys_fstat(writer_of(server)->fd, &st) == 0)
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
