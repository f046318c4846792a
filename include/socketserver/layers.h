/*
 * The layers that come with the library: transports and mixins, each with its
 * options, which may be left out.
 */
#ifndef SOCKETSERVER_LAYERS_H
#define SOCKETSERVER_LAYERS_H

#include <socketserver/layer.h>

SS_BEGIN_DECLS

/* ---- transports -----------------------------------------------------------*/

SS_API extern const struct ss_layer ss_tcp_server;
SS_API extern const struct ss_layer ss_udp_server;
SS_API extern const struct ss_layer ss_unix_stream_server;
SS_API extern const struct ss_layer ss_unix_datagram_server;

/* transport_options of these four. */
struct ss_socket_options {
	int request_queue_size; /* listen(2) backlog; 0: 4096 or SOMAXCONN */
	int max_packet_size;	/* datagrams, bytes; 0: 65535 */
	bool no_reuse_address;	/* TCP sets SO_REUSEADDR unless told not to */
	bool reuse_port;	/* SO_REUSEPORT; -EINVAL on Unix sockets */
	bool ipv6_only;		/* "[::]:80" and ":80" take no IPv4 */
	bool no_descriptors;	/* Unix sockets: clients can pass none (Linux
				   6.16, SO_PASSRIGHTS; else they are dropped),
				   which makes reads of streams cheaper */
	bool set_mode, set_uid, set_gid; /* Unix paths: use the next three */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	/*
	 * Called before bind(2) for each listener, to set socket options.
	 * < 0 refuses the server.
	 */
	int (*prepare)(void *arg, int fd, const struct ss_address *address);
	void *prepare_arg;
};

/* The transport that speaks an address's scheme; NULL, and why. */
SS_API const struct ss_layer *ss_transport_for(const char *address,
					       struct ss_diag *why);

/*
 * Memory: a server and its clients in one process, without socket or thread,
 * under sync without a clock: time stands still, and jumps to the deadline
 * that a handler waits for.  There a handler that wants more than its client
 * sent sees end of file.  Under fiber it is parked, and time jumps when nothing
 * else can happen; under threads it waits.  No address is needed.
 */
SS_API extern const struct ss_layer ss_memory_server;
SS_API extern const struct ss_layer ss_memory_datagram_server;

struct ss_memory_client;

/* A client that has connected.  Any thread.  -ENOMEM; -EBADF: not bound, or
 * closed. */
SS_API int ss_memory_connect(struct ss_server *server,
			     struct ss_memory_client **client);
/* Streams: more input.  Datagrams: one packet, a request of its own. */
SS_API ssize_t ss_memory_send(struct ss_memory_client *client, const void *data,
			      size_t n);
/* No more input will come. */
SS_API void ss_memory_shutdown(struct ss_memory_client *client);
/*
 * What the server wrote; for datagrams one packet, its end cut off at n.
 * Serves the server first where nobody else does (sync).  0: end of file.
 * -EAGAIN: nothing yet; under threads it waits up to a second for it.
 */
SS_API ssize_t ss_memory_recv(struct ss_memory_client *client, void *buf,
			      size_t n);
/* The same without waiting, and without serving. */
SS_API ssize_t ss_memory_try_recv(struct ss_memory_client *client, void *buf,
				  size_t n);
/*
 * From now on a stream's client takes so many bytes that it has not received
 * yet, and a handler that writes more waits; 0: any number.  (Under sync, where
 * nobody could receive, such a write fails with -ETIMEDOUT or -ESHUTDOWN.)
 */
SS_API void ss_memory_limit(struct ss_memory_client *client, size_t n);
/* `changed` is called when there may be something to receive: on any thread,
 * under a lock, so that it calls nothing of this server's.  NULL: no longer. */
SS_API void ss_memory_watch(struct ss_memory_client *client,
			    void (*changed)(void *arg), void *arg);
/* A stream's client ends the connection: what the server has not read is lost
 * to it, and it sees -ECONNRESET and -EPIPE.  To be closed still. */
SS_API void ss_memory_reset(struct ss_memory_client *client);
/* Closes and frees; before ss_server_free. */
SS_API void ss_memory_close(struct ss_memory_client *client);

/*
 * A handler's test in one call: a client sends `in` and end of file, and all
 * that the handler answers is in `out`.  Returns how many bytes that is, of
 * which at most `room` are stored, or what the handler failed with.
 */
SS_API ssize_t ss_memory_exchange(const struct ss_handler *handler,
				  const void *in, size_t n, void *out,
				  size_t room);
/* The same for one datagram and its reply; -EAGAIN: none was sent. */
SS_API ssize_t ss_memory_exchange_packet(const struct ss_handler *handler,
					 const void *in, size_t n, void *out,
					 size_t room);

/* ---- models ---------------------------------------------------------------*/

/* A thread per request; those that are served make way for crowds. */
SS_API extern const struct ss_layer ss_threading_mixin;
struct ss_threading_options {
	size_t stack_size; /* bytes; 0: the system's default */
	int max_idle;	   /* threads kept for the next requests; 0: 64,
			      SS_NONE: none */
	int idle_ms;	   /* for how long; 0: 1 s */
};

/* So many threads, from server_activate to server_close. */
SS_API extern const struct ss_layer ss_pool_mixin;
struct ss_pool_options {
	int threads; /* 0: 4 for each processor, at least 8 */
	int ahead;   /* requests that wait in the pool for a thread; 0: as many
			as threads, SS_NONE: none */
	size_t stack_size; /* bytes; 0: the system's default */
};

/* A process per request. */
SS_API extern const struct ss_layer ss_forking_mixin;

/*
 * Fibers: many requests a thread, each on a stack of its own while its handler
 * runs, and written as if it blocked.  Handlers that keep to the list in
 * ss_handler(3) need not know.  Those that speak before their client does say
 * so by speaks_first.
 */
SS_API extern const struct ss_layer ss_fiber_mixin;
struct ss_fiber_options {
	int loops; /* threads; 0: one per online core, where there are sockets
		      and no worker processes; 1: the serving thread */
	size_t stack_size;    /* bytes; 0: 64 KiB; at least 16 KiB */
	bool report_overflow; /* a stack overflow is named before it kills; sets
				 SIGSEGV's handler while the server lives */
};

/*
 * Worker processes, each of which serves as what stands to the right of it:
 * one request at a time, or as threading has it.
 */
SS_API extern const struct ss_layer ss_prefork_mixin;
struct ss_prefork_options {
	int workers;	    /* 0: one for each processor that may be used */
	int max_requests;   /* after about so many a worker is replaced; 0 or
			       SS_NONE: never */
	int jitter_percent; /* up to so much earlier, so that they do not all
			       leave at once; 0: 10, SS_NONE: none */
	int respawn_ms;	    /* where workers die young, the longest pause before
			       the next; 0: 10 s */
};

/* ---- guards ---------------------------------------------------------------*/

/*
 * Access: who may come in, by lists of entries between commas or white space:
 *
 *	192.0.2.0/24  2001:db8::/32	networks (RFC 4632, RFC 4291 2.3)
 *	192.0.2.1  ::1			single addresses
 *	uid:1000  gid:100		the peer of a Unix stream, by number
 *					(unix(7), SO_PEERCRED: the group is the
 *					effective one; Linux)
 *
 * The most specific entry that has the client decides, a user before a group;
 * where both lists have that same entry, deny does.  Who is in neither list
 * comes in only if there is no `allow`.  IPv4-mapped addresses are IPv4, and
 * neither 0.0.0.0/0 nor ::/0 has addresses of the other family.  Whose address
 * is not known (memory, datagrams of Unix sockets) is in no list.
 *
 * In verify_request, by ss_request_peer: the client's own address where a layer
 * to the left has found that out (ss_proxy_mixin).
 */
SS_API extern const struct ss_layer ss_access_mixin;
struct ss_access_options {
	const char *allow; /* NULL, or empty: there is no such list */
	const char *deny;
	int max_entries; /* of both, also later; 0: 1024, or what they have */
};

/*
 * Replaces both lists at once, as the options would have them, or leaves them
 * as they are.  Any thread; also seen by, and from, children and workers of
 * the server.  Requests that have come in stay.  -EINVAL: an entry is none, and
 * `why` quotes it.  -ENOSPC: more than max_entries.  -ENOMEM.  -ENOTSUP: the
 * server does not have the layer.
 */
SS_API int ss_access_set(struct ss_server *server, const char *allow,
			 const char *deny, struct ss_diag *why);
/* How many it has turned away, in all processes; 0 without the layer. */
SS_API uint64_t ss_access_refused(const struct ss_server *server);

/*
 * PROXY protocol, versions 1 and 2 (HAProxy's doc/proxy-protocol.txt): who
 * connects is a balancer, who tells in a header where its client is.  From then
 * on ss_request_peer is the client's address, and ss_request_local the one that
 * the client asked for; where the header tells none (LOCAL, UNKNOWN, UNSPEC)
 * they are the connection's own.
 *
 * verify_request asks for the balancer.  The header is read in finish_request,
 * before other layers' bytes, under handshake_ms (5 s where the configuration
 * has none), and then the verify_request of the layers to the right is asked:
 * of access and limits, those see the client.  Streams only.  A malformed
 * header fails the request with -EPROTO.
 */
SS_API extern const struct ss_layer ss_proxy_mixin;
struct ss_proxy_options {
	const char *trusted; /* balancers, as a list of ss_access_mixin's.
				Required: the server is refused without */
	/*
	 * Who is not trusted is served as is, and not believed, instead of
	 * turned away; who is, and begins otherwise than a header does, too.
	 * For handlers whose clients speak first, and whose rbufsize is not
	 * 1 to 11.
	 */
	bool optional;
	int max_header; /* bytes of version 2; 0: 4096; at most 65551 */
};

/* Types of what a header of version 2 may have besides. */
enum ss_proxy_type {
	SS_PROXY_ALPN = 0x01,
	SS_PROXY_AUTHORITY = 0x02, /* the host that the client asked for */
	SS_PROXY_CRC32C = 0x03,	   /* has been checked */
	SS_PROXY_NOOP = 0x04,
	SS_PROXY_UNIQUE_ID = 0x05,
	SS_PROXY_SSL = 0x20, /* a byte, 32 bits, and further values */
	SS_PROXY_NETNS = 0x30,
};

/*
 * For handlers: the first value of a type, in place, until the request ends.
 * Its length, perhaps 0; -ENOENT: there is none; -ENOTSUP: the server does not
 * have the layer.
 */
SS_API ssize_t ss_proxy_tlv(const struct ss_request *req, int type,
			    const void **value);
/* The address of who connected; len 0: it has none.  Errors as above: without a
 * header it is ss_request_peer. */
SS_API int ss_proxy_balancer(const struct ss_request *req,
			     struct ss_address *address);

/*
 * Limits: how many requests a source may have at a time, and how fast requests
 * may come, over all processes of the server.  A source is an IPv4 address, an
 * IPv6 network, or a user (peers of Unix streams); who has no known address is
 * not limited as a source.
 *
 * In verify_request, by ss_request_peer: the client's own address where a layer
 * to the left has found that out (ss_proxy_mixin).  Who is turned away takes no
 * token, but one whom a layer to the right turns away has taken it.
 */
SS_API extern const struct ss_layer ss_limits_mixin;
struct ss_limits_options {
	int max_per_source; /* requests at a time; 0: any number */
	/* Tokens: so many requests come in in per_ms, and `burst` at once after
	 * a pause.  Of all sources together, and of each. */
	int rate;  /* 0: any number */
	int burst; /* 0: as rate */
	int source_rate;
	int source_burst;
	int per_ms;	 /* 0: 1 s; at most a day */
	int ipv4_prefix; /* bits that make a source; 0: 32; SS_NONE: no bit */
	int ipv6_prefix; /* 0: 64; SS_NONE: no bit */
	/*
	 * That are known at a time; 0: 4096; at most 2^24.  40 bytes each, and
	 * 4 for each worker that there may be (9 times as many as serve), of
	 * which only those that are used are touched.  A new source takes the
	 * place of one that has no request.  Where there is none, the request
	 * is not limited as of a source, or, with refuse_untracked, turned
	 * away.
	 */
	int max_sources;
	bool refuse_untracked;
	/* To a stream's client who is turned away: what goes without waiting.
	 * NULL: nothing. */
	const char *refusal;
};

struct ss_limits_stats {
	uint64_t admitted;
	uint64_t refused_full;	      /* max_per_source */
	uint64_t refused_rate;	      /* rate */
	uint64_t refused_source_rate; /* source_rate */
	uint64_t untracked;	      /* there was no place for their source */
	uint64_t active;  /* requests that count as their sources' now */
	uint64_t sources; /* that are known now */
};

/* Of all processes; any thread, any of them.  0; -ENOTSUP: the server does not
 * have the layer. */
static inline int ss_limits_get(struct ss_server *server,
				struct ss_limits_stats *stats);
SS_API int ss_limits_get_sized(struct ss_server *server,
			       struct ss_limits_stats *stats, size_t size);

static inline int ss_limits_get(struct ss_server *server,
				struct ss_limits_stats *stats)
{
	return ss_limits_get_sized(server, stats, sizeof(*stats));
}

/*
 * Other limits from now on, in all processes: those of the options that are
 * rates, bursts, per_ms or max_per_source, all of them at once, zero being no
 * limit; the others stay as they were.  Any thread.  Buckets are as full as
 * before, and requests that came while nothing depended on their source do not
 * count as that source's.  -EINVAL, and why (may be NULL); -ENOTSUP: the server
 * does not have the layer; -EBADF: it is not bound.
 */
static inline int ss_limits_set(struct ss_server *server,
				const struct ss_limits_options *options,
				struct ss_diag *why);
SS_API int ss_limits_set_sized(struct ss_server *server,
			       const struct ss_limits_options *options,
			       size_t size, struct ss_diag *why);

/* Those that are in force, defaults filled in.  0; -ENOTSUP, -EBADF. */
static inline int ss_limits_current(struct ss_server *server,
				    struct ss_limits_options *options);
SS_API int ss_limits_current_sized(struct ss_server *server,
				   struct ss_limits_options *options,
				   size_t size);

static inline int ss_limits_set(struct ss_server *server,
				const struct ss_limits_options *options,
				struct ss_diag *why)
{
	return ss_limits_set_sized(server, options, sizeof(*options), why);
}

static inline int ss_limits_current(struct ss_server *server,
				    struct ss_limits_options *options)
{
	return ss_limits_current_sized(server, options, sizeof(*options));
}

/* ---- a look inside --------------------------------------------------------*/

/*
 * Metrics: how long requests take, and which there are now, over all processes
 * of the server, from any of them.  Stands where it sees who is turned away:
 * left of access and limits, but right of ss_proxy_mixin, so that it shows the
 * client and not the balancer.
 */
SS_API extern const struct ss_layer ss_metrics_mixin;
struct ss_metrics_options {
	/* Requests that are told of at a time, 192 bytes each; 0: 1024;
	 * SS_NONE: none; at most 2^20.  All others are counted. */
	int max_shown;
};

/* How long so many took, in microseconds. */
enum { SS_LATENCY_STEPS = 36 };
struct ss_latency {
	uint64_t count;
	uint64_t sum_us;
	/* So many percent took no longer; at most a sixteenth too high. */
	uint64_t p50_us, p90_us, p99_us, p999_us, max_us;
	uint64_t below[SS_LATENCY_STEPS]; /* [i]: took less than 2^i */
};

struct ss_metrics {
	uint64_t shown;	 /* live requests that ss_metrics_each tells of */
	uint64_t hidden; /* others, for which there was no place */
	/* Of requests that were served, and have ended: from setup to finish,
	 * and from accept to the end. */
	struct ss_latency handler;
	struct ss_latency request;
};

/* Of all processes; any thread, any of them.  0; -ENOTSUP: the server does not
 * have the layer. */
static inline int ss_metrics_get(struct ss_server *server,
				 struct ss_metrics *metrics);
SS_API int ss_metrics_get_sized(struct ss_server *server,
				struct ss_metrics *metrics, size_t size);

static inline int ss_metrics_get(struct ss_server *server,
				 struct ss_metrics *metrics)
{
	return ss_metrics_get_sized(server, metrics, sizeof(*metrics));
}

/*
 * As ss_each, but for the live requests of all processes, as far as there are
 * places for them; `pid` is the process that serves it.  No lock is held: fn
 * may take its time.  -ENOTSUP as above.
 */
SS_API int ss_metrics_each(struct ss_server *server,
			   int (*fn)(void *arg,
				     const struct ss_snapshot *snapshot),
			   void *arg);

/*
 * Tells every operation by name, as it begins, to a function, by default to
 * the log (level debug).  Stands anywhere in the list, and tells what reaches
 * that place.
 */
SS_API extern const struct ss_layer ss_trace_mixin;
enum ss_trace_kind {
	SS_TRACE_SERVER = 1 << 0,  /* server_bind ... server_close */
	SS_TRACE_REQUEST = 1 << 1, /* get_request ... end_request, and the
				      handler's setup, handle, finish */
	SS_TRACE_WAITS = 1 << 2,   /* wait, wait_any, forget, now, ... */
};
struct ss_trace_options {
	unsigned kinds; /* 0: SS_TRACE_SERVER | SS_TRACE_REQUEST */
	/* Where the operation runs: any thread, children too. */
	void (*tell)(void *arg, struct ss_server *server, uint64_t id,
		     const char *operation);
	void *arg;
};
/* For ss_config.mixins. */
#define SS_TRACE                                                               \
	{                                                                      \
		&ss_trace_mixin, NULL                                          \
	}

/* ---- Python's predefined servers, as members of an ss_config --------------*/

#define SS_THREADING_TCP_SERVER                                                \
	.transport = &ss_tcp_server, .mixins = { { &ss_threading_mixin, NULL } }
#define SS_THREADING_UDP_SERVER                                                \
	.transport = &ss_udp_server, .mixins = { { &ss_threading_mixin, NULL } }
#define SS_THREADING_UNIX_STREAM_SERVER                                        \
	.transport = &ss_unix_stream_server,                                   \
	.mixins = { { &ss_threading_mixin, NULL } }
#define SS_THREADING_UNIX_DATAGRAM_SERVER                                      \
	.transport = &ss_unix_datagram_server,                                 \
	.mixins = { { &ss_threading_mixin, NULL } }
#define SS_FORKING_TCP_SERVER                                                  \
	.transport = &ss_tcp_server, .mixins = { { &ss_forking_mixin, NULL } }
#define SS_FORKING_UDP_SERVER                                                  \
	.transport = &ss_udp_server, .mixins = { { &ss_forking_mixin, NULL } }
#define SS_FORKING_UNIX_STREAM_SERVER                                          \
	.transport = &ss_unix_stream_server,                                   \
	.mixins = { { &ss_forking_mixin, NULL } }
#define SS_FORKING_UNIX_DATAGRAM_SERVER                                        \
	.transport = &ss_unix_datagram_server,                                 \
	.mixins = { { &ss_forking_mixin, NULL } }

SS_END_DECLS
#endif
