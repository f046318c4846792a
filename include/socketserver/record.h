/*
 * Records: what clients and a server say to each other, in a file; and the same
 * conversations held once more, against a server or a handler.
 *
 *	ss_record_mixin		writes the file, as a layer of the server
 *	ss_replay		a regression test: holds them again in memory
 *	ss_recording_...	reads the file
 *
 * ss_record(3) has the format of the file.
 */
#ifndef SOCKETSERVER_RECORD_H
#define SOCKETSERVER_RECORD_H

#include <socketserver/layer.h>

SS_BEGIN_DECLS

/* ---- to record ------------------------------------------------------------*/

/* What is about to be written: one read's, one write's or one datagram's. */
struct ss_record_chunk {
	uint64_t id;	  /* of the request */
	bool from_client; /* else to it */
	bool dgram;
	uint64_t offset;      /* bytes of that direction that came before it */
	unsigned char *bytes; /* a copy, which may be written over */
	size_t size;	      /* may be made less: the rest is cut off */
};

/*
 * A connection is recorded from verify_request to end_request, as it is seen at
 * the place of the layer: left of ss_proxy_mixin with PROXY headers and the
 * balancer's address, right of it without, and with the client's.  What other
 * layers' channels make of the bytes is not seen.
 */
SS_API extern const struct ss_layer ss_record_mixin;
struct ss_record_options {
	/* Made by ss_server_new, mode 0600; one that is there already is left
	 * alone, and the server refused.  "%p" in it is the process's number.
	 * Required. */
	const char *path;
	int64_t max_connection; /* bytes, both ways; 0: 1 MiB; SS_NONE: any */
	int64_t max_file;	/* bytes; 0: 64 MiB; SS_NONE: any */
	/* A write that took longer is the last: the disk does not keep up.
	 * 0: 2 s; SS_NONE: it may take any time. */
	int stall_ms;
	/*
	 * Where the request runs, several at once: writes over, or cuts off,
	 * what nobody is to see in the file.  What it has changed is marked
	 * there, is no difference in a replay, and keeps its length.
	 */
	void (*redact)(void *arg, struct ss_record_chunk *chunk);
	void *redact_arg;
};

struct ss_record_stats {
	uint64_t connections; /* that are in the file; or datagrams */
	uint64_t bytes;	      /* theirs */
	uint64_t file_size;
	/* What is not: max_connection, max_file, an error, no memory. */
	uint64_t left_out_connections;
	uint64_t left_out_bytes;
	int error; /* -errno, after which nothing was written; 0: none */
};

/* Of all processes; any thread, any of them.  0; -ENOTSUP: the server does not
 * have the layer. */
static inline int ss_record_get(struct ss_server *server,
				struct ss_record_stats *stats);
SS_API int ss_record_get_sized(struct ss_server *server,
			       struct ss_record_stats *stats, size_t size);

static inline int ss_record_get(struct ss_server *server,
				struct ss_record_stats *stats)
{
	return ss_record_get_sized(server, stats, sizeof(*stats));
}

/* ---- to replay ------------------------------------------------------------*/

/*
 * Holds the file's conversations with a handler once more, in memory: every
 * chunk of the clients' at its time, by a clock that does not wait, from the
 * peers as recorded.  Of the configuration count the handler, the mixins, the
 * time-outs and the user pointer; its transport is memory's, its model is
 * fiber.
 *
 * 0: the answers are the recorded ones.  1: they are not, and `why` tells the
 * first difference.  -EBADMSG: the file is damaged, and what comes before is
 * the same.  Else as ss_recording_open and ss_server_new.
 */
static inline int ss_replay(const char *path, const struct ss_config *config,
			    struct ss_diag *why);
SS_API int ss_replay_sized(const char *path, const struct ss_config *config,
			   size_t size, struct ss_diag *why);

static inline int ss_replay(const char *path, const struct ss_config *config,
			    struct ss_diag *why)
{
	return ss_replay_sized(path, config, sizeof(*config), why);
}

/* ---- to read --------------------------------------------------------------*/

/* A file's contents.  Any thread; what it gives out lives as long as it. */
struct ss_recording;

enum ss_recorded_kind {
	SS_RECORDED_OPEN = 1,	/* the connection, or the datagram, came */
	SS_RECORDED_INPUT,	/* the client's bytes, one read; one datagram */
	SS_RECORDED_OUTPUT,	/* the server's, one write; one datagram */
	SS_RECORDED_ELSEWHERE,	/* a datagram to another address */
	SS_RECORDED_INPUT_END,	/* end of file was read */
	SS_RECORDED_OUTPUT_END, /* the server's half-close */
	SS_RECORDED_BROKEN,	/* error: reading or writing failed so */
	SS_RECORDED_LEFT_OUT,	/* nothing further is in the file but END */
	SS_RECORDED_END,	/* error: that of end_request, or 0 */
};

/* Why something is not in the file. */
enum ss_recorded_reason {
	SS_RECORDED_ENOUGH = 1, /* max_connection */
	SS_RECORDED_FULL,	/* max_file */
	SS_RECORDED_NO_MEMORY,	/* to redact it in */
};

struct ss_recorded_event {
	enum ss_recorded_kind kind;
	uint32_t connection; /* its number in the recording, from 0 on */
	int64_t at_us;	     /* since the recording began */
	/* INPUT, OUTPUT, ELSEWHERE: `size` bytes, of which `kept` are here;
	 * the others were cut off. */
	const unsigned char *bytes;
	size_t size, kept;
	uint64_t offset; /* bytes of that direction before these */
	int error;
	bool stopping;			/* END: the server was being stopped */
	enum ss_recorded_reason reason; /* LEFT_OUT, and how many bytes */
	uint64_t left_in, left_out;
	const unsigned char *hidden; /* ss_recorded_hidden */
	uint32_t hidden_count;
};

struct ss_recorded {
	uint64_t id; /* the request's */
	bool dgram;
	bool whole;		/* nothing is missing, to the end */
	const char *peer;	/* as ss_address_format prints it; "-": none */
	uint64_t input, output; /* bytes */
	size_t first;		/* event of its own: OPEN */
};

/*
 * 0, or -errno, -EBADMSG: it is no recording, and why.  Where a file is
 * damaged further on, all that precedes is there, and ss_recording_damage tells
 * what is wrong, and where.  parse copies the bytes.
 */
SS_API int ss_recording_open(struct ss_recording **recording, const char *path,
			     struct ss_diag *why);
SS_API int ss_recording_parse(struct ss_recording **recording,
			      const void *bytes, size_t n, struct ss_diag *why);
SS_API void ss_recording_free(struct ss_recording *recording);
/* NULL: nothing is. */
SS_API const char *ss_recording_damage(const struct ss_recording *recording);
/* "threading > tcp > base"; when it began, in ms of the wall's clock. */
SS_API const char *ss_recording_server(const struct ss_recording *recording);
SS_API int64_t ss_recording_began(const struct ss_recording *recording);

/* By number, from 0 on; NULL: there are not so many.  Events are in the file's
 * order. */
SS_API const struct ss_recorded *
ss_recording_connection(const struct ss_recording *recording, size_t i);
SS_API const struct ss_recorded_event *
ss_recording_event(const struct ss_recording *recording, size_t i);

/* Whether the event's byte i was written over, or cut off. */
SS_API bool ss_recorded_hidden(const struct ss_recorded_event *event, size_t i);

/*
 * Whether n bytes that connection i answered, after `offset` others, are those
 * recorded; of a datagram n bytes are one reply, and `offset` counts the
 * replies before it.  bytes NULL: it has ended there.  1: they are not, and
 * why.  0; -EINVAL.
 */
SS_API int ss_recording_compare(const struct ss_recording *recording, size_t i,
				uint64_t offset, const void *bytes, size_t n,
				struct ss_diag *why);

SS_END_DECLS
#endif
