/*
 * Limits: how many requests a source may have at a time, and how fast they may
 * come, over all processes of the server.  Counted in verify_request, given
 * back in end_request.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <socketserver/layers.h>

#include "../diag.h"
#include "../sys.h"
#include "sources.h"

enum {
	PER_MS = 1000,
	IPV4_PREFIX = 32,
	IPV6_PREFIX = 64,
	MAX_SOURCES = 4096,
	MOST_SOURCES = 1 << 24,
	BORROWED = 1 << 15, /* children of a forking server, at a time */
	NS_PER_MS = 1000000,
};

enum outcome { ADMITTED, FULL, RATE, SOURCE_RATE, UNTRACKED, OUTCOMES };

/* What may change, in all processes; under the lock of the sources. */
struct current {
	int max_per_source, per_ms;
	int rate, burst, source_rate, source_burst;
	struct bucket_rate all, each;
};

struct shared {
	struct current current;
	atomic_bool by_source; /* something depends on who it is */
	struct bucket bucket;  /* of all; under the lock of the sources */
	atomic_ullong count[OUTCOMES];
};

struct limits {
	struct ss_limits_options options;
	char *refusal;
	struct shared *shared;
	struct sources *sources;
};

/* A request's. */
struct counted {
	uint32_t name; /* of its source; 0: none */
	bool judged;
};

static struct limits *limits_of(const struct ss_server *server)
{
	return ss_layer_state(server, &ss_limits_mixin);
}

/* A request may be counted in its child; workers count their own. */
static bool counted_in_children(const struct ss_server *server)
{
	const unsigned both = SS_LAYER_FORKS | SS_LAYER_SUPERVISES;
	return (ss_server_flags(server) & both) == SS_LAYER_FORKS;
}

/* ---- life -----------------------------------------------------------------*/

static int over(int value, int fallback)
{
	return value ? value : fallback;
}

/* SS_NONE: no bit, all are one source. */
static int prefix(int value, int fallback)
{
	return value == SS_NONE ? 0 : over(value, fallback);
}

static void fill_in(struct limits *limits)
{
	struct ss_limits_options *o = &limits->options;
	o->ipv4_prefix = prefix(o->ipv4_prefix, IPV4_PREFIX);
	o->ipv6_prefix = prefix(o->ipv6_prefix, IPV6_PREFIX);
	o->max_sources = over(o->max_sources, MAX_SOURCES);
}

/* Buckets stay as full as they are. */
static void make_current(struct shared *shared,
			 const struct ss_limits_options *o)
{
	struct current *c = &shared->current;
	*c = (struct current){
		.max_per_source = o->max_per_source,
		.per_ms = over(o->per_ms, PER_MS),
		.rate = o->rate,
		.burst = over(o->burst, o->rate),
		.source_rate = o->source_rate,
		.source_burst = over(o->source_burst, o->source_rate),
	};
	c->all = bucket_rate(c->rate, c->per_ms, c->burst);
	c->each = bucket_rate(c->source_rate, c->per_ms, c->source_burst);
	atomic_store(&shared->by_source, c->max_per_source || c->source_rate);
}

struct range {
	const char *name;
	int value, min, max;
};

/* The first that is out of its range, to `why`. */
static int check(const struct ss_limits_options *o, struct ss_diag *why)
{
	const struct range ranges[] = {
		{ "max_per_source", o->max_per_source, 0, INT32_MAX },
		{ "rate", o->rate, 0, INT32_MAX },
		{ "burst", o->burst, 0, INT32_MAX },
		{ "source_rate", o->source_rate, 0, INT32_MAX },
		{ "source_burst", o->source_burst, 0, INT32_MAX },
		{ "per_ms", o->per_ms, 0, 24 * 3600 * 1000 },
		{ "ipv4_prefix", o->ipv4_prefix, SS_NONE, 32 },
		{ "ipv6_prefix", o->ipv6_prefix, SS_NONE, 128 },
		{ "max_sources", o->max_sources, 0, MOST_SOURCES },
	};
	for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++)
		if (ranges[i].value < ranges[i].min ||
		    ranges[i].value > ranges[i].max)
			return diag_refuse(
				why, -EINVAL,
				"limits: %s is %d, and not in %d..%d",
				ranges[i].name, ranges[i].value, ranges[i].min,
				ranges[i].max);
	return 0;
}

static int copy_refusal(struct limits *limits)
{
	const char *text = limits->options.refusal;
	if (!text)
		return 0;
	size_t size = strlen(text) + 1;
	limits->refusal = sys_malloc(size);
	if (!limits->refusal)
		return -ENOMEM;
	memcpy(limits->refusal, text, size);
	return 0;
}

static int lim_init(struct ss_server *server, const void *options)
{
	struct limits *limits = limits_of(server);
	if (options)
		limits->options = *(const struct ss_limits_options *)options;
	struct ss_diag why;
	int r = check(&limits->options, &why);
	if (r < 0)
		return ss_refuse(server, r, "%s", why.text);
	r = copy_refusal(limits);
	if (r < 0)
		return r;
	fill_in(limits);
	limits->shared = ss_shared_alloc(sizeof(*limits->shared));
	if (limits->shared) {
		make_current(limits->shared, &limits->options);
		return 0;
	}
	sys_free(limits->refusal);
	return -ENOMEM;
}

static void lim_fini(struct ss_server *server)
{
	struct limits *limits = limits_of(server);
	sources_free(limits->sources);
	ss_shared_free(limits->shared, sizeof(*limits->shared));
	sys_free(limits->refusal);
}

/* Not from init: a layer to the left may have workers. */
static int make_sources(struct ss_server *server)
{
	struct limits *limits = limits_of(server);
	bool forks = counted_in_children(server);
	int r = limits->sources
			? 0
			: sources_new(&limits->sources,
				      (uint32_t)limits->options.max_sources,
				      ss_workers(server) + 1,
				      forks ? BORROWED : 0);
	if (r < 0)
		return ss_refuse(server, r, "limits: no memory for %d sources",
				 limits->options.max_sources);
	return 0;
}

static int lim_server_bind(struct ss_server *server)
{
	int r = make_sources(server);
	return r < 0 ? r
		     : ss_super(server, &ss_limits_mixin)->server_bind(server);
}

/* A server that is given a connection is not bound. */
static int lim_server_activate(struct ss_server *server)
{
	int r = make_sources(server);
	return r < 0 ? r
		     : ss_super(server, &ss_limits_mixin)
			       ->server_activate(server);
}

/* ---- a client comes -------------------------------------------------------*/

/* False: it is not known, or nothing depends on it. */
static bool key_of(const struct limits *limits, struct ss_request *req,
		   struct cidr *key)
{
	const struct ss_limits_options *o = &limits->options;
	struct cidr peer[CIDR_PEER_MAX];
	if (!atomic_load(&limits->shared->by_source) ||
	    !cidr_of_peer(req, peer))
		return false;
	int bits = peer->kind == CIDR_IPV4   ? o->ipv4_prefix
		   : peer->kind == CIDR_IPV6 ? o->ipv6_prefix
					     : peer->bits;
	*key = cidr_shortened(*peer, bits);
	return true;
}

static bool hold(struct sources *sources, struct ss_request *req,
		 struct counted *mine, struct source *source)
{
	struct ss_server *server = ss_request_server(req);
	if (counted_in_children(server))
		return sources_borrow(sources, source, ss_request_id(req));
	mine->name = sources_hold(sources, source, ss_worker(server));
	return true;
}

/* With the lock held; NULL: its source is not limited. */
static enum outcome judge(struct limits *limits, const struct source *source,
			  int64_t now_ns)
{
	const struct current *c = &limits->shared->current;
	uint32_t at_once = (uint32_t)c->max_per_source;
	if (source && at_once && source->held >= at_once)
		return FULL;
	if (source && !bucket_has(&source->bucket, &c->each, now_ns))
		return SOURCE_RATE;
	if (!bucket_has(&limits->shared->bucket, &c->all, now_ns))
		return RATE;
	return ADMITTED;
}

static void note(struct limits *limits, enum outcome outcome)
{
	atomic_fetch_add(&limits->shared->count[outcome], 1);
}

/* With the lock held. */
static enum outcome admit(struct limits *limits, struct ss_request *req,
			  struct counted *mine, const struct cidr *key,
			  int64_t now_ns)
{
	const struct current *c = &limits->shared->current;
	struct source *source = key ? sources_find(limits->sources, key) : NULL;
	enum outcome outcome = judge(limits, source, now_ns);
	bool tracked = !key || source;
	if (outcome == ADMITTED && source)
		tracked = hold(limits->sources, req, mine, source);
	if (!tracked) {
		note(limits, UNTRACKED);
		if (limits->options.refuse_untracked)
			return UNTRACKED;
	}
	if (outcome != ADMITTED)
		return outcome;
	bucket_take(&limits->shared->bucket, &c->all, now_ns);
	if (source)
		bucket_take(&source->bucket, &c->each, now_ns);
	return outcome;
}

/* What the socket takes at once.  A datagram is no answer to one that may be
 * forged. */
static void refuse(struct ss_server *server, struct ss_request *req,
		   enum outcome outcome)
{
	static const char *const why[OUTCOMES] = {
		[FULL] = "has as many requests as it may",
		[RATE] = "comes when too many do",
		[SOURCE_RATE] = "comes too often",
		[UNTRACKED] = "comes when too many sources have requests",
	};
	const char *text = limits_of(server)->refusal;
	char peer[SS_ADDRESS_TEXT];
	ss_log(server, SS_LOG_INFO, ss_request_id(req), "%s %s",
	       ss_peer_name(req, peer, sizeof(peer)), why[outcome]);
	if (text && !ss_request_dgram(req))
		ss_try_write(req, text, strlen(text));
}

/* A stream may have had to say first who it is. */
static int64_t came_ns(struct ss_server *server, const struct ss_request *req)
{
	int64_t at =
		ss_request_dgram(req) ? ss_taken_at(server) : ss_now(server);
	return at * NS_PER_MS;
}

static int lim_verify_request(struct ss_server *server, struct ss_request *req)
{
	struct limits *limits = limits_of(server);
	struct counted *mine = ss_request_layer_state(req, &ss_limits_mixin);
	const struct ss_ops *super = ss_super(server, &ss_limits_mixin);
	if (mine->judged)
		return super->verify_request(server, req);
	mine->judged = true;
	int64_t now_ns = came_ns(server, req);
	struct cidr key;
	bool known = key_of(limits, req, &key);
	sources_lock(limits->sources);
	enum outcome outcome =
		admit(limits, req, mine, known ? &key : NULL, now_ns);
	sources_unlock(limits->sources);
	if (outcome != UNTRACKED)
		note(limits, outcome);
	if (outcome == ADMITTED)
		return super->verify_request(server, req);
	refuse(server, req, outcome);
	return 0;
}

/* ---- a client goes --------------------------------------------------------*/

static void lim_end_request(struct ss_server *server, struct ss_request *req,
			    int status)
{
	struct limits *limits = limits_of(server);
	const struct counted *mine =
		ss_request_layer_state(req, &ss_limits_mixin);
	bool forks = counted_in_children(server);
	if (forks || mine->name) {
		sources_lock(limits->sources);
		if (forks)
			sources_give_back(limits->sources, ss_request_id(req));
		else
			sources_release(limits->sources, mine->name,
					ss_worker(server));
		sources_unlock(limits->sources);
	}
	ss_super(server, &ss_limits_mixin)->end_request(server, req, status);
}

/* end_request is not called for what it was serving. */
static void lim_worker_ended(struct ss_server *server, int slot)
{
	struct limits *limits = limits_of(server);
	sources_lock(limits->sources);
	sources_drop(limits->sources, slot);
	sources_unlock(limits->sources);
	ss_super(server, &ss_limits_mixin)->worker_ended(server, slot);
}

/* ---- from outside ---------------------------------------------------------*/

int ss_limits_set_sized(struct ss_server *server,
			const struct ss_limits_options *options, size_t size,
			struct ss_diag *why)
{
	struct ss_limits_options wanted = { 0 };
	struct ss_diag own;
	if (!ss_server_has(server, &ss_limits_mixin))
		return -ENOTSUP;
	memcpy(&wanted, options, size < sizeof(wanted) ? size : sizeof(wanted));
	int r = check(&wanted, why ? why : &own);
	if (r < 0)
		return r;
	struct limits *limits = limits_of(server);
	if (!limits->sources)
		return -EBADF;
	sources_lock(limits->sources);
	make_current(limits->shared, &wanted);
	sources_unlock(limits->sources);
	return 0;
}

int ss_limits_current_sized(struct ss_server *server,
			    struct ss_limits_options *options, size_t size)
{
	memset(options, 0, size);
	if (!ss_server_has(server, &ss_limits_mixin))
		return -ENOTSUP;
	const struct limits *limits = limits_of(server);
	struct ss_limits_options all = limits->options;
	if (!limits->sources)
		return -EBADF;
	sources_lock(limits->sources);
	const struct current *c = &limits->shared->current;
	all.max_per_source = c->max_per_source;
	all.per_ms = c->per_ms;
	all.rate = c->rate;
	all.burst = c->burst;
	all.source_rate = c->source_rate;
	all.source_burst = c->source_burst;
	sources_unlock(limits->sources);
	all.refusal = limits->refusal;
	memcpy(options, &all, size < sizeof(all) ? size : sizeof(all));
	return 0;
}

int ss_limits_get_sized(struct ss_server *server, struct ss_limits_stats *stats,
			size_t size)
{
	struct ss_limits_stats now = { 0 };
	memset(stats, 0, size);
	if (!ss_server_has(server, &ss_limits_mixin))
		return -ENOTSUP;
	struct limits *limits = limits_of(server);
	atomic_ullong *count = limits->shared->count;
	now.admitted = atomic_load(&count[ADMITTED]);
	now.refused_full = atomic_load(&count[FULL]);
	now.refused_rate = atomic_load(&count[RATE]);
	now.refused_source_rate = atomic_load(&count[SOURCE_RATE]);
	now.untracked = atomic_load(&count[UNTRACKED]);
	if (limits->sources) {
		sources_lock(limits->sources);
		sources_count(limits->sources, &now.active, &now.sources);
		sources_unlock(limits->sources);
	}
	memcpy(stats, &now, size < sizeof(now) ? size : sizeof(now));
	return 0;
}

const struct ss_layer ss_limits_mixin = {
	.name = "limits",
	.server_size = sizeof(struct limits),
	.request_size = sizeof(struct counted),
	.init = lim_init,
	.fini = lim_fini,
	.ops = {
		.server_bind = lim_server_bind,
		.server_activate = lim_server_activate,
		.verify_request = lim_verify_request,
		.end_request = lim_end_request,
		.worker_ended = lim_worker_ended,
	},
};
