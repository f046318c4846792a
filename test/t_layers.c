/*
 * Layers: how they are put together, what each of them is given and keeps,
 * which servers are refused, and that what one counts is given back, whatever
 * becomes of a request.
 */
#include "support.h"

#include <stddef.h>
#include <sys/resource.h>
#include <sys/wait.h>

Suite *t_layers(void);

/* So that a failing assertion shows the name alone. */
static int get(const atomic_int *n)
{
	return atomic_load(n);
}

static int do_nothing(struct ss_request *req)
{
	(void)req;
	return 0;
}

static const struct ss_handler quiet = { .name = "quiet",
					 .handle = do_nothing };

/* No socket: made and served in this process. */
static struct ss_config in_memory(void)
{
	return (struct ss_config){ .transport = &ss_memory_server,
				   .handler = &quiet };
}

static struct ss_config over_tcp(void)
{
	return (struct ss_config){ .addresses = { "127.0.0.1:0" },
				   .transport = &ss_tcp_server,
				   .handler = &quiet };
}

static void serve_one(struct ss_server *server)
{
	struct ss_memory_client *client;
	char byte;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ss_memory_shutdown(client);
	ck_assert_int_eq(ss_memory_recv(client, &byte, 1), 0);
	ss_memory_close(client);
}

static void dispose(struct ss_server *server)
{
	ck_assert_int_eq(ss_server_free(server), 0);
}

static struct tape *tape;

static void begin(void)
{
	if (!tape)
		tape = tape_new();
	memset(tape, 0, sizeof(*tape));
}

/* ---- tables ---------------------------------------------------------------*/

typedef void (*operation)(void);
enum { OPERATIONS = sizeof(struct ss_ops) / sizeof(operation) };

static void unpack(const struct ss_ops *ops, operation list[OPERATIONS])
{
	memcpy(list, ops, sizeof(*ops));
}

static void marker(void)
{
}

START_TEST(layers_null_inherits_everything)
{
	stack_nothing();
	static const struct ss_layer empty = { .name = "empty" };
	struct ss_config config = in_memory();
	config.mixins[0].layer = &empty;
	struct ss_server *server = made(&config);
	operation mine[OPERATIONS], below[OPERATIONS];
	unpack(ss_self(server), mine);
	unpack(ss_super(server, &empty), below);
	for (int i = 0; i < OPERATIONS; i++) {
		ck_assert_msg(mine[i] != NULL, "operation %d is missing", i);
		ck_assert_msg(mine[i] == below[i], "operation %d differs", i);
	}
	dispose(server);
}
END_TEST

/* What it does not override, it cannot tell of. */
START_TEST(layers_trace_overrides_every_operation)
{
	operation list[OPERATIONS];
	unpack(&ss_trace_mixin.ops, list);
	for (int i = 0; i < OPERATIONS; i++)
		ck_assert_msg(list[i] != NULL, "operation %d is missing", i);
}
END_TEST

/* Each operation by itself: it alone is replaced, and only from there up. */
START_TEST(layers_one_operation_is_overridden)
{
	stack_nothing();
	static struct ss_layer over = { .name = "over" };
	static const struct ss_layer under = { .name = "under" };
	operation list[OPERATIONS] = { NULL };
	list[_i] = marker;
	memcpy(&over.ops, list, sizeof(over.ops));
	struct ss_config config = in_memory();
	config.no_bind = true;
	config.mixins[0].layer = &over;
	config.mixins[1].layer = &under;
	struct ss_server *server = made(&config);
	operation top[OPERATIONS], middle[OPERATIONS], below[OPERATIONS];
	unpack(ss_self(server), top);
	unpack(ss_super(server, &over), middle);
	unpack(ss_super(server, &under), below);
	for (int i = 0; i < OPERATIONS; i++) {
		ck_assert(middle[i] == below[i] && middle[i] != marker);
		ck_assert((top[i] == marker) == (i == _i));
		ck_assert(i == _i || top[i] == below[i]);
	}
	/* The server is left as it is: marker must not be run. */
}
END_TEST

/* ---- self and super -------------------------------------------------------*/

/* A layer that notes NAME.OPERATION and goes on; operations are not told which
 * layer they run for, so each has its own. */
#define CHAINED(x)                                                             \
	static const struct ss_layer x;                                        \
	static int x##_verify(struct ss_server *server,                        \
			      struct ss_request *req)                          \
	{                                                                      \
		tape_note(tape, #x ".verify");                                 \
		return ss_super(server, &x)->verify_request(server, req);      \
	}                                                                      \
	static int x##_process(struct ss_server *server,                       \
			       struct ss_request *req)                         \
	{                                                                      \
		tape_note(tape, #x ".process");                                \
		return ss_super(server, &x)->process_request(server, req);     \
	}                                                                      \
	static int x##_finish(struct ss_server *server,                        \
			      struct ss_request *req)                          \
	{                                                                      \
		tape_note(tape, #x ".finish");                                 \
		return ss_super(server, &x)->finish_request(server, req);      \
	}                                                                      \
	static void x##_end(struct ss_server *server, struct ss_request *req,  \
			    int status)                                        \
	{                                                                      \
		tape_note(tape, #x ".end");                                    \
		ss_super(server, &x)->end_request(server, req, status);        \
	}                                                                      \
	static int x##_init(struct ss_server *server, const void *options)     \
	{                                                                      \
		(void)server;                                                  \
		tape_note(tape, #x ".init");                                   \
		return options ? *(const int *)options : 0;                    \
	}                                                                      \
	static void x##_fini(struct ss_server *server)                         \
	{                                                                      \
		(void)server;                                                  \
		tape_note(tape, #x ".fini");                                   \
	}                                                                      \
	static void x##_after_fork(struct ss_server *server)                   \
	{                                                                      \
		(void)server;                                                  \
		tape_note(tape, #x ".after_fork");                             \
	}                                                                      \
	static const struct ss_layer x = { .name = #x,                         \
					   .init = x##_init,                   \
					   .fini = x##_fini,                   \
					   .after_fork = x##_after_fork,       \
					   .ops = {                            \
						   .verify_request =           \
							   x##_verify,         \
						   .process_request =          \
							   x##_process,        \
						   .finish_request =           \
							   x##_finish,         \
						   .end_request = x##_end,     \
					   } };
CHAINED(a)
CHAINED(b)
CHAINED(c)
#undef CHAINED

static int note_handle(struct ss_request *req)
{
	(void)req;
	tape_note(tape, "handle");
	return 0;
}

static const struct ss_handler noting = { .name = "noting",
					  .handle = note_handle };

static struct ss_config chained(void)
{
	struct ss_config config = in_memory();
	config.handler = &noting;
	config.mixins[0].layer = &a;
	config.mixins[1].layer = &b;
	config.mixins[2].layer = &c;
	return config;
}

START_TEST(layers_super_goes_left_to_right)
{
	begin();
	struct ss_config config = chained();
	struct ss_server *server = made(&config);
	memset(tape, 0, sizeof(*tape));
	serve_one(server);
	ck_assert_str_eq(tape_text(tape), "a.verify b.verify c.verify "
					  "a.process b.process c.process "
					  "a.finish b.finish c.finish handle "
					  "a.end b.end c.end");
	memset(tape, 0, sizeof(*tape));
	dispose(server);
	ck_assert_str_eq(tape_text(tape), "a.fini b.fini c.fini");
}
END_TEST

/* A model ends the chain of process_request alone, wherever it stands. */
START_TEST(layers_on_both_sides_of_a_model)
{
	begin();
	struct ss_config config = chained();
	config.mixins[1].layer = &ss_threading_mixin;
	config.mixins[2].layer = &b;
	struct ss_server *server = made(&config);
	serve_one(server);
	dispose(server);
	ck_assert_str_eq(tape_text(tape), "b.init a.init a.verify b.verify "
					  "a.process a.finish b.finish handle "
					  "a.end b.end a.fini b.fini");
}
END_TEST

static const struct ss_layer upper, lower;

static void lower_timeout(struct ss_server *server)
{
	tape_note(tape, "lower.timeout");
	ss_super(server, &lower)->handle_timeout(server);
}

static void lower_actions(struct ss_server *server)
{
	tape_note(tape, "lower.actions");
	ss_self(server)->handle_timeout(server);
	ss_super(server, &lower)->service_actions(server);
}

static const struct ss_layer lower = {
	.name = "lower",
	.ops = { .handle_timeout = lower_timeout,
		 .service_actions = lower_actions },
};

static void upper_timeout(struct ss_server *server)
{
	tape_note(tape, "upper.timeout");
	ss_super(server, &upper)->handle_timeout(server);
}

static void upper_close(struct ss_server *server, struct ss_request *req)
{
	tape_note(tape, "upper.close");
	ss_super(server, &upper)->close_request(server, req);
}

static int64_t upper_now(struct ss_server *server)
{
	return ss_super(server, &upper)->now(server) + 1000000;
}

static const struct ss_layer upper = {
	.name = "upper",
	.ops = { .handle_timeout = upper_timeout,
		 .close_request = upper_close,
		 .now = upper_now },
};

/* self begins at the top again: for a lower layer, for base's own
 * shutdown_request, for the public functions. */
START_TEST(layers_self_binds_late)
{
	begin();
	struct ss_config config = in_memory();
	config.mixins[0].layer = &upper;
	config.mixins[1].layer = &lower;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_str_eq(tape_text(tape),
			 "lower.actions upper.timeout lower.timeout");
	memset(tape, 0, sizeof(*tape));
	serve_one(server);
	ck_assert_int_eq(tape_find(tape, "upper.close"), 0);
	ck_assert_int_gt(ss_now(server), 1000000);
	dispose(server);
}
END_TEST

/* ---- private state --------------------------------------------------------*/

static const struct ss_layer sized[] = {
	{ .name = "s1", .server_size = 1, .request_size = 3 },
	{ .name = "s0" },
	{ .name = "s17", .server_size = 17, .request_size = 100 },
	{ .name = "s64", .server_size = 64, .request_size = 1 },
	{ .name = "s5000", .server_size = 5000, .request_size = 4000 },
};
enum { SIZED = sizeof(sized) / sizeof(*sized) };

static bool filled(const void *memory, size_t n, int byte)
{
	const unsigned char *bytes = memory;
	for (size_t i = 0; i < n; i++)
		if (bytes[i] != byte)
			return false;
	return true;
}

static bool whole(const void *memory, size_t n, int byte)
{
	if (!n)
		return !memory;
	return memory && (uintptr_t)memory % _Alignof(max_align_t) == 0 &&
	       filled(memory, n, byte);
}

/* Zeroed at first, then each with a byte of its own that nobody else's write
 * changes. */
static int fill_states(struct ss_request *req)
{
	for (int i = 0; i < SIZED; i++) {
		void *state = ss_request_layer_state(req, &sized[i]);
		ck_assert(whole(state, sized[i].request_size, 0));
		if (state)
			memset(state, 'a' + i, sized[i].request_size);
	}
	ck_assert(whole(ss_state(req), 33, 0));
	memset(ss_state(req), 'z', 33);
	return 0;
}

static int check_states(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	if (n > 0)
		ss_write(req, &byte, 1);
	for (int i = 0; i < SIZED; i++)
		ck_assert(whole(ss_request_layer_state(req, &sized[i]),
				sized[i].request_size, 'a' + i));
	ck_assert(whole(ss_state(req), 33, 'z'));
	return n < 0 ? (int)n : 0;
}

static const struct ss_handler filling = {
	.name = "filling",
	.size = 33,
	.setup = fill_states,
	.handle = check_states,
	.finish = check_states,
};

static struct ss_config with_states(const struct ss_layer *model)
{
	struct ss_config config = in_memory();
	config.handler = &filling;
	for (int i = 0; i < SIZED; i++)
		config.mixins[i].layer = &sized[i];
	config.mixins[SIZED].layer = model;
	return config;
}

START_TEST(layers_have_state_for_each_server)
{
	enum { SERVERS = 3 };
	struct ss_server *servers[SERVERS];
	struct ss_config config = with_states(NULL);
	for (int s = 0; s < SERVERS; s++) {
		servers[s] = made(&config);
		for (int i = 0; i < SIZED; i++) {
			void *state = ss_layer_state(servers[s], &sized[i]);
			ck_assert(whole(state, sized[i].server_size, 0));
			if (state)
				memset(state, 16 * s + i + 1,
				       sized[i].server_size);
		}
		serve_one(servers[s]);
	}
	for (int s = 0; s < SERVERS; s++) {
		for (int i = 0; i < SIZED; i++)
			ck_assert(whole(ss_layer_state(servers[s], &sized[i]),
					sized[i].server_size, 16 * s + i + 1));
		dispose(servers[s]);
	}
}
END_TEST

/* The memory of one that ended serves the next, which must not see it. */
START_TEST(layers_have_state_for_each_request)
{
	enum { AT_ONCE = 20 };
	struct ss_config config = with_states(_i ? &ss_threading_mixin : NULL);
	struct ss_server *server = made(&config);
	for (int round = 0; round < 5; round++) {
		struct ss_memory_client *clients[AT_ONCE];
		char byte;
		for (int i = 0; i < AT_ONCE; i++)
			ck_assert_int_eq(ss_memory_connect(server, &clients[i]),
					 0);
		ck_assert_int_ge(ss_server_turn(server, 0), 1);
		for (int i = 0; i < AT_ONCE; i++)
			ck_assert_int_ge(ss_memory_send(clients[i], "x", 1),
					 _i ? 1 : -EPIPE);
		for (int i = 0; i < AT_ONCE; i++) {
			ck_assert_int_ge(ss_memory_recv(clients[i], &byte, 1),
					 _i ? 1 : 0);
			ss_memory_shutdown(clients[i]);
			ck_assert_int_ge(ss_memory_recv(clients[i], &byte, 1),
					 0);
			ss_memory_close(clients[i]);
		}
	}
	struct ss_stats stats;
	ck_assert_int_eq(ss_server_close(server), 0);
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.ended, 5 * AT_ONCE);
	ck_assert_uint_eq(stats.errors[SS_PHASE_SETUP], 0);
	dispose(server);
}
END_TEST

/* ---- options --------------------------------------------------------------*/

struct number {
	int value;
};

static const struct ss_layer keeper, other_keeper;

static int keep(struct ss_server *server, const struct ss_layer *mine,
		const void *options)
{
	struct number *kept = ss_layer_state(server, mine);
	kept->value = -1;
	if (options)
		*kept = *(const struct number *)options;
	return 0;
}

static int keeper_init(struct ss_server *server, const void *options)
{
	return keep(server, &keeper, options);
}

static int other_init(struct ss_server *server, const void *options)
{
	return keep(server, &other_keeper, options);
}

static int own_init(struct ss_server *server, const void *options)
{
	return keep(server, ss_server_transport(server), options);
}

static const struct ss_layer keeper = { .name = "keeper",
					.server_size = sizeof(struct number),
					.init = keeper_init };
static const struct ss_layer other_keeper = {
	.name = "other keeper",
	.server_size = sizeof(struct number),
	.init = other_init,
};
/* A user's own: no listener, no request. */
static const struct ss_layer own_transport = {
	.name = "own",
	.flags = SS_LAYER_TRANSPORT,
	.server_size = sizeof(struct number),
	.init = own_init,
};

static int kept_by(struct ss_server *server, const struct ss_layer *layer)
{
	return ((struct number *)ss_layer_state(server, layer))->value;
}

START_TEST(layers_are_given_their_options)
{
	stack_nothing();
	struct number seven = { 7 }, eight = { 8 };
	struct ss_config config = {
		.transport = &own_transport,
		.transport_options = &eight,
		.mixins = { { &keeper, &seven }, { &other_keeper, NULL } },
		.handler = &quiet,
	};
	struct ss_server *server = made(&config);
	seven.value = eight.value = 0;
	memset(&config, 0xff, sizeof(config));
	ck_assert_int_eq(kept_by(server, &keeper), 7);
	ck_assert_int_eq(kept_by(server, &other_keeper), -1);
	ck_assert_int_eq(kept_by(server, &own_transport), 8);
	ck_assert_ptr_eq(ss_server_transport(server), &own_transport);
	ck_assert_str_eq(ss_server_describe(server),
			 "keeper > other keeper > own > base");
	ck_assert_int_eq(ss_server_listeners(server), 0);
	ck_assert_int_eq(ss_server_turn(server, 0), 0);
	dispose(server);
}
END_TEST

/* ---- init and fini --------------------------------------------------------*/

START_TEST(layers_init_upwards_fini_downwards)
{
	begin();
	struct ss_config config = chained();
	struct ss_server *server = made(&config);
	ck_assert_str_eq(tape_text(tape), "c.init b.init a.init");
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_str_eq(tape_text(tape), "c.init b.init a.init");
	dispose(server);
	ck_assert_str_eq(tape_text(tape),
			 "c.init b.init a.init a.fini b.fini c.fini");
}
END_TEST

/* Only those whose init has succeeded are taken back, and nothing leaks. */
START_TEST(layers_init_fails_on_the_way)
{
	static const struct {
		int failing;
		const char *told;
	} cases[] = {
		{ 0, "c.init b.init a.init b.fini c.fini" },
		{ 1, "c.init b.init c.fini" },
		{ 2, "c.init" },
	};
	begin();
	int code = -ENOTDIR;
	struct ss_config config = chained();
	config.addresses[0] = "127.0.0.1:0";
	config.transport = &ss_tcp_server;
	config.mixins[cases[_i].failing].options = &code;
	refused(&config, -ENOTDIR, strerror(ENOTDIR));
	ck_assert_str_eq(tape_text(tape), cases[_i].told);
}
END_TEST

static int refuse_init(struct ss_server *server, const void *options)
{
	(void)options;
	return ss_refuse(server, -ERANGE, "%d is %s", 12, "too much");
}

static int refuse_bind(struct ss_server *server)
{
	return ss_refuse(server, -EROFS, "no %s today", "binding");
}

static int refuse_activate(struct ss_server *server)
{
	return ss_refuse(server, -EXDEV, "no listening either");
}

static const struct ss_layer bad_init = { .name = "bad init",
					  .init = refuse_init };
static const struct ss_layer bad_bind = {
	.name = "bad bind", .ops = { .server_bind = refuse_bind }
};
static const struct ss_layer bad_activate = {
	.name = "bad activate", .ops = { .server_activate = refuse_activate }
};

START_TEST(layers_give_their_reason)
{
	static const struct {
		const struct ss_layer *layer;
		int code;
		const char *text;
		const char *told;
	} cases[] = {
		{ &bad_init, -ERANGE, "12 is too much", "" },
		{ &bad_bind, -EROFS, "no binding today",
		  "b.init a.init a.fini b.fini" },
		{ &bad_activate, -EXDEV, "no listening either",
		  "b.init a.init a.fini b.fini" },
	};
	begin();
	struct ss_config config = chained();
	config.addresses[0] = "127.0.0.1:0";
	config.transport = &ss_tcp_server;
	config.mixins[2].layer = cases[_i].layer;
	refused(&config, cases[_i].code, cases[_i].text);
	ck_assert_str_eq(tape_text(tape), cases[_i].told);
	/* Nor is a reason owed. */
	struct ss_server *server;
	ck_assert_int_eq(ss_server_new(&server, &config, NULL), cases[_i].code);
	ck_assert_ptr_null(server);
}
END_TEST

/* The transport's init comes before the mixins', its fini after theirs; what
 * cannot be bound has been inited whole. */
START_TEST(layers_fini_after_a_failed_bind)
{
	begin();
	struct ss_config config = chained();
	struct ss_server *server = made(&(struct ss_config){
		.addresses = { "127.0.0.1:0" }, .handler = &quiet });
	char taken[SS_ADDRESS_TEXT];
	ss_server_url(server, 0, taken, sizeof(taken));
	config.transport = &ss_tcp_server;
	config.addresses[0] = taken;
	refused(&config, -EADDRINUSE, taken);
	ck_assert_str_eq(tape_text(tape),
			 "c.init b.init a.init a.fini b.fini c.fini");
	dispose(server);
}
END_TEST

/* ---- what a request is to them --------------------------------------------*/

static const struct ss_layer looker;
static char looked_at[SS_ADDRESS_TEXT];

/* What base has where no transport does more: nothing to accept, and nothing
 * to tell. */
static int look_around(struct ss_server *server, struct ss_request *req)
{
	const struct ss_ops *base =
		ss_super(server, ss_server_transport(server));
	struct ss_listener *listener = ss_request_listener(req);
	struct ss_request *other;
	ck_assert_ptr_nonnull(listener);
	ss_address_format(ss_listener_address(listener), looked_at,
			  sizeof(looked_at));
	ck_assert_int_eq(base->get_request(server, listener, &other), -EAGAIN);
	base->stir_request(server, req);
	return ss_super(server, &looker)->finish_request(server, req);
}

static const struct ss_layer looker = {
	.name = "looker",
	.ops.finish_request = look_around,
};

/* Of several the one that it came by. */
START_TEST(layers_know_a_requests_listener)
{
	struct ss_config config = over_tcp();
	config.addresses[1] = "127.0.0.1:0";
	config.mixins[0].layer = &looker;
	struct ss_server *server = made(&config);
	for (int i = 0; i < 2; i++) {
		char url[SS_ADDRESS_TEXT];
		int fd = dial(ss_server_url(server, i, url, sizeof(url)));
		ck_assert_int_eq(ss_handle_request(server), 1);
		expect_end(fd);
		close(fd);
		ck_assert_str_eq(looked_at, url + strlen("tcp://"));
	}
	dispose(server);
}
END_TEST

/* As many as there is room for, and no more. */
static int bind_all(struct ss_server *server)
{
	struct ss_listener *listener;
	int r;
	do
		r = ss_listener_add(server, -1, SS_SCHEME_ANY, NULL, 0, 0,
				    &listener);
	while (r == 0 && ss_server_listeners(server) <= UINT16_MAX);
	return r == -ENOMEM ? 0 : ss_refuse(server, -EPROTO, "%d", r);
}

static const struct ss_layer broad = {
	.name = "broad",
	.flags = SS_LAYER_TRANSPORT | SS_LAYER_STREAM,
	.ops.server_bind = bind_all,
};

/* A request keeps its listener's number in 16 bits. */
START_TEST(layers_know_the_last_of_many_listeners)
{
	struct ss_config config = { .transport = &broad, .handler = &quiet };
	struct ss_server *server = made(&config);
	int count = ss_server_listeners(server);
	ck_assert_int_eq(count, UINT16_MAX);
	int numbers[] = { -1, 0, count - 1 };
	for (int i = 0; i < 3; i++) {
		struct ss_listener *listener =
			ss_server_listener(server, numbers[i]);
		struct ss_request *req;
		ck_assert_int_eq(ss_request_new(server, listener, 0, &req), 0);
		ck_assert_ptr_eq(ss_request_listener(req), listener);
		ss_request_drop(req);
	}
	dispose(server);
}
END_TEST

static size_t channel_size; /* of the next request; 0: there is none */

static int get_sized(struct ss_server *server, struct ss_listener *listener,
		     struct ss_request **req)
{
	size_t size = channel_size;
	if (!size)
		return -EAGAIN;
	channel_size = 0;
	ck_assert_int_eq(ss_request_new(server, listener, size, req), 0);
	ck_assert(whole(ss_request_space(*req), size, 0));
	memset(ss_request_space(*req), 'x', size);
	return 0;
}

static int bind_one(struct ss_server *server)
{
	struct ss_listener *listener;
	return ss_listener_add(server, -1, SS_SCHEME_ANY, NULL, 0, 0,
			       &listener);
}

static const struct ss_layer spacious = {
	.name = "spacious",
	.flags = SS_LAYER_TRANSPORT | SS_LAYER_STREAM,
	.ops.server_bind = bind_one,
	.ops.get_request = get_sized,
};

/* An ended request serves the next where its channel has room, and what lay
 * there is gone. */
START_TEST(layers_find_a_channels_space_zeroed)
{
	static const size_t sizes[] = {
		16, 65534, 65534, 65535, 65536, 65536, 200000, 65537, 65535, 1,
	};
	struct ss_config config = { .transport = &spacious, .handler = &quiet };
	struct ss_server *server = made(&config);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		channel_size = sizes[i];
		ss_listener_ready(server, ss_server_listener(server, 0));
		ck_assert_int_eq(ss_handle_request(server), 1);
	}
	dispose(server);
}
END_TEST

/* ---- after_fork -----------------------------------------------------------*/

/* In each child, for every layer, before anything is served there. */
START_TEST(layers_after_fork_in_every_child)
{
	enum { VISITS = 3 };
	begin();
	struct ss_config config = chained();
	config.addresses[0] = "127.0.0.1:0";
	config.transport = &ss_tcp_server;
	config.mixins[3].layer = &ss_forking_mixin;
	struct node node;
	node_start(&node, &config);
	for (int i = 0; i < VISITS; i++) {
		int fd = dial(node.url);
		expect_end(fd);
		close(fd);
	}
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_ptr_null(strstr(tape_text_of(tape, node.pid), "after_fork"));
	pid_t last = node.pid;
	int seen = 0;
	for (int i = 0; i < get(&tape->count); i++) {
		pid_t pid = tape->line[i].pid;
		if (pid == node.pid || pid == last)
			continue;
		last = pid;
		seen++;
		ck_assert_str_eq(tape_text_of(tape, pid),
				 "c.after_fork b.after_fork a.after_fork "
				 "a.finish b.finish c.finish handle");
	}
	ck_assert_int_eq(seen, VISITS);
}
END_TEST

/* ---- refusals -------------------------------------------------------------*/

static const struct ss_layer stream_only = { .name = "stream-only",
					     .flags = SS_NEEDS_STREAM };
static const struct ss_layer unix_only = { .name = "unix-only",
					   .flags = SS_NEEDS_UNIX };
static const struct ss_layer socket_only = { .name = "socket-only",
					     .flags = SS_NEEDS_SOCKET };
static const struct ss_layer dispatcher = { .name = "dispatcher",
					    .flags = SS_LAYER_DISPATCHES };

START_TEST(layers_two_that_dispatch_are_refused)
{
	struct ss_config config = over_tcp();
	config.mixins[0].layer = &ss_threading_mixin;
	config.mixins[1].layer = &a;
	config.mixins[2].layer = &ss_forking_mixin;
	refused(&config, -EINVAL, "threading and forking");
	config.mixins[0].layer = &dispatcher;
	refused(&config, -EINVAL, "dispatcher and forking");
	begin();
	config.mixins[2].layer = NULL;
	dispose(made(&config));
}
END_TEST

/* Workers are one layer's, and what runs in them stands to its right. */
START_TEST(layers_with_workers_in_the_wrong_place_are_refused)
{
	static const struct ss_layer crew = { .name = "crew",
					      .flags = SS_LAYER_SUPERVISES };
	static const struct ss_layer gang = {
		.name = "gang", .flags = SS_LAYER_SUPERVISES | SS_LAYER_FORKS
	};
	struct ss_config config = over_tcp();
	config.mixins[0].layer = &crew;
	config.mixins[1].layer = &gang;
	refused(&config, -EINVAL, "crew and gang both have workers");
	config.mixins[0].layer = &dispatcher;
	refused(&config, -EINVAL,
		"dispatcher serves in gang's workers: name it to the right of "
		"gang");
	config.mixins[0].layer = &gang;
	config.mixins[1].layer = &ss_forking_mixin;
	refused(&config, -EINVAL, "gang and forking both fork");
	config.mixins[1].layer = &dispatcher;
	dispose(made(&config));
}
END_TEST

START_TEST(layers_in_the_wrong_place_are_refused)
{
	struct ss_config config = over_tcp();
	config.mixins[0].layer = &ss_udp_server;
	refused(&config, -EINVAL, "udp is a transport");
	config.mixins[0].layer = &ss_tcp_server;
	refused(&config, -EINVAL, "tcp is a transport");
	config = over_tcp();
	config.transport = &ss_threading_mixin;
	refused(&config, -EINVAL, "threading is a mixin");
	config = over_tcp();
	config.mixins[0].layer = &unix_only;
	config.mixins[1].layer = &stream_only;
	config.mixins[2].layer = &stream_only;
	refused(&config, -EINVAL, "stream-only is named twice");
	static const struct ss_layer nameless = { .flags = 0 };
	config = over_tcp();
	config.mixins[0].layer = &nameless;
	refused(&config, -EINVAL, "no name");
}
END_TEST

START_TEST(layers_start_threads_where_nobody_forks)
{
	struct ss_config config = in_memory(), forking = over_tcp();
	forking.mixins[0].layer = &ss_forking_mixin;
	struct ss_server *server = made(&config), *other = made(&forking);
	ck_assert_int_eq(ss_start_threads(server), -EBUSY);
	dispose(other);
	ck_assert_int_eq(ss_start_threads(server), 0);
	refused(&forking, -EINVAL, "one forks, and the other has threads");
	dispose(server);
	dispose(made(&forking));
}
END_TEST

static void start_there(struct ss_server *server)
{
	tape_note(tape, "%d", ss_start_threads(server));
}

static const struct ss_layer starter = {
	.name = "starter",
	.after_fork = start_there,
};

/* Of which its supervisor is none that forks beside them. */
START_TEST(layers_start_threads_in_workers)
{
	static const struct ss_prefork_options one = { .workers = 1 };
	struct ss_config config = over_tcp();
	struct node node;
	begin();
	config.mixins[0] = (struct ss_use){ &ss_prefork_mixin, &one };
	config.mixins[1].layer = &starter;
	node_start(&node, &config);
	tape_wait(tape, 1);
	ck_assert_str_eq(tape_text(tape), "0");
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(layers_whose_needs_are_not_met_are_refused)
{
	static const struct {
		const struct ss_layer *layer, *transport;
		const char *text; /* NULL: taken */
	} cases[] = {
		{ &stream_only, &ss_tcp_server, NULL },
		{ &stream_only, &ss_unix_stream_server, NULL },
		{ &stream_only, &ss_memory_server, NULL },
		{ &stream_only, &ss_udp_server,
		  "stream-only needs a stream transport, and udp is none" },
		{ &stream_only, &ss_unix_datagram_server, "unixgram is none" },
		{ &stream_only, &ss_memory_datagram_server, "is none" },
		{ &unix_only, &ss_unix_stream_server, NULL },
		{ &unix_only, &ss_unix_datagram_server, NULL },
		{ &unix_only, &ss_tcp_server,
		  "unix-only needs a Unix transport, and tcp is none" },
		{ &unix_only, &ss_udp_server, "udp is none" },
		{ &unix_only, &ss_memory_server, "memory is none" },
		{ &socket_only, &ss_tcp_server, NULL },
		{ &socket_only, &ss_udp_server, NULL },
		{ &socket_only, &ss_memory_server,
		  "socket-only needs a socket transport, and memory is none" },
		{ &ss_forking_mixin, &ss_udp_server, NULL },
		{ &ss_forking_mixin, &ss_memory_server,
		  "forking needs a socket transport, and memory is none" },
		{ &ss_forking_mixin, &ss_memory_datagram_server, "is none" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ss_config config = {
			.transport = cases[i].transport,
			.mixins = { { &other_keeper, NULL },
				    { cases[i].layer, NULL } },
			.handler = &quiet,
			.no_bind = true,
		};
		if (cases[i].text)
			refused(&config, -EINVAL, cases[i].text);
		else
			dispose(made(&config));
	}
}
END_TEST

START_TEST(layers_handlers_that_are_refused)
{
	struct ss_config config = over_tcp();
	config.handler = NULL;
	refused(&config, -EINVAL, "handle()");
	static const struct ss_handler empty = { .name = "empty",
						 .setup = do_nothing };
	config.handler = &empty;
	refused(&config, -EINVAL, "handle()");
	struct ss_handler newer = quiet;
	newer.struct_size = sizeof(newer) + 1;
	config.handler = &newer;
	refused(&config, -EINVAL, "newer library");
	newer.struct_size = sizeof(newer);
	dispose(made(&config));
}
END_TEST

START_TEST(layers_neither_transport_nor_address_is_refused)
{
	struct ss_config config = { .handler = &quiet };
	refused(&config, -EINVAL, "needs a transport or an address");
	config.transport = &ss_tcp_server;
	refused(&config, -EINVAL, "tcp needs an address");
	config.transport = NULL;
	config.addresses[0] = "127.0.0.1:0";
	struct ss_server *server = made(&config);
	ck_assert_ptr_eq(ss_server_transport(server), &ss_tcp_server);
	dispose(server);
	config.addresses[0] = "udp://127.0.0.1:0";
	server = made(&config);
	ck_assert_ptr_eq(ss_server_transport(server), &ss_udp_server);
	dispose(server);
	config.addresses[1] = "tcp://127.0.0.1:0";
	refused(&config, -EINVAL, "tcp://127.0.0.1:0");
	config.addresses[0] = "nonsense://";
	refused(&config, -EINVAL, "nonsense");
}
END_TEST

START_TEST(layers_too_many_are_refused)
{
	struct ss_layer many[SS_MIXINS_MAX + 1];
	struct ss_config config = over_tcp();
	memset(many, 0, sizeof(many));
	for (int i = 0; i <= SS_MIXINS_MAX; i++) {
		many[i].name = "one of many";
		config.mixins[i].layer = &many[i];
	}
	refused(&config, -EINVAL, "more than 16 mixins");
	config.mixins[SS_MIXINS_MAX].layer = NULL;
	dispose(made(&config));

	config = over_tcp();
	for (int i = 0; i <= SS_ADDRESSES_MAX; i++)
		config.addresses[i] = "127.0.0.1:0";
	refused(&config, -EINVAL, "more than 16 addresses");
	config.addresses[SS_ADDRESSES_MAX] = NULL;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_listeners(server), SS_ADDRESSES_MAX);
	dispose(server);
}
END_TEST

/* -1 is none, below that is nothing. */
START_TEST(layers_negative_limits_are_refused)
{
	static const struct {
		size_t offset;
		const char *name;
	} limits[] = {
		{ offsetof(struct ss_config, timeout_ms), "timeout_ms" },
		{ offsetof(struct ss_config, poll_interval_ms),
		  "poll_interval_ms" },
		{ offsetof(struct ss_config, drain_ms), "drain_ms" },
		{ offsetof(struct ss_config, max_active), "max_active" },
		{ offsetof(struct ss_config, queue_size), "queue_size" },
		{ offsetof(struct ss_config, log_level), "log_level" },
		{ offsetof(struct ss_config, timeouts.handshake_ms),
		  "timeouts.handshake_ms" },
		{ offsetof(struct ss_config, timeouts.first_byte_ms),
		  "timeouts.first_byte_ms" },
		{ offsetof(struct ss_config, timeouts.io_ms),
		  "timeouts.io_ms" },
		{ offsetof(struct ss_config, timeouts.idle_ms),
		  "timeouts.idle_ms" },
		{ offsetof(struct ss_config, timeouts.total_ms),
		  "timeouts.total_ms" },
	};
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		struct ss_config config = in_memory();
		int *limit = (int *)((char *)&config + limits[i].offset);
		char text[64];
		*limit = -2;
		snprintf(text, sizeof(text), "%s is -2", limits[i].name);
		refused(&config, -EINVAL, text);
		*limit = SS_NONE;
		dispose(made(&config));
	}
}
END_TEST

/* ---- sizes that differ ----------------------------------------------------*/

struct newer_config {
	struct ss_config config;
	int unknown[4];
};

START_TEST(layers_config_of_a_newer_program)
{
	struct newer_config newer;
	memset(&newer, 0, sizeof(newer));
	newer.config = over_tcp();
	struct ss_server *server = NULL;
	struct ss_diag why;
	ck_assert_int_eq(ss_server_new_sized(&server, &newer.config,
					     sizeof(newer), &why),
			 0);
	ck_assert_int_eq(why.code, 0);
	dispose(server);
	int descriptors = open_descriptors();
	newer.unknown[3] = 1 << 24;
	ck_assert_int_eq(ss_server_new_sized(&server, &newer.config,
					     sizeof(newer), &why),
			 -E2BIG);
	ck_assert_ptr_null(server);
	ck_assert_int_eq(why.code, -E2BIG);
	ck_assert_str_ne(why.text, "");
	ck_assert_int_eq(ss_server_new_sized(&server, &newer.config,
					     sizeof(newer), NULL),
			 -E2BIG);
	ck_assert_int_eq(open_descriptors(), descriptors);
}
END_TEST

/* What an older program did not know of is not looked at. */
START_TEST(layers_config_of_an_older_program)
{
	struct ss_config config = over_tcp();
	config.max_active = -7;
	config.no_bind = true;
	struct ss_server *server = NULL;
	ck_assert_int_eq(ss_server_new_sized(
				 &server, &config,
				 offsetof(struct ss_config, max_active), NULL),
			 0);
	ck_assert_int_eq(ss_server_listeners(server), 1);
	dispose(server);
}
END_TEST

START_TEST(layers_made_for_a_newer_library_are_refused)
{
	struct ss_layer layer = { .name = "futuristic",
				  .struct_size = sizeof(layer) + 8 };
	struct ss_config config = over_tcp();
	config.mixins[0].layer = &layer;
	refused(&config, -EINVAL, "futuristic was made for a newer library");
	layer.struct_size = sizeof(layer);
	dispose(made(&config));
	layer = own_transport;
	layer.struct_size = sizeof(layer) + 8;
	config = (struct ss_config){ .transport = &layer, .handler = &quiet };
	refused(&config, -EINVAL, "own was made for a newer library");
}
END_TEST

START_TEST(layers_stats_of_other_sizes)
{
	struct {
		struct ss_stats stats;
		uint64_t unknown;
	} newer;
	memset(&newer, 0xff, sizeof(newer));
	struct ss_config config = in_memory();
	struct ss_server *server = made(&config);
	serve_one(server);
	ss_server_stats_sized(server, &newer.stats, sizeof(newer));
	ck_assert_uint_eq(newer.stats.ended, 1);
	ck_assert_uint_eq(newer.unknown, 0);
	memset(&newer, 0xff, sizeof(newer));
	ss_server_stats_sized(server, &newer.stats,
			      offsetof(struct ss_stats, ended));
	ck_assert_uint_eq(newer.stats.accepted, 1);
	ck_assert_uint_eq(newer.stats.ended, UINT64_MAX);
	dispose(server);
}
END_TEST

/* ---- what a server is -----------------------------------------------------*/

START_TEST(layers_describe)
{
	stack_nothing();
	struct ss_config config = over_tcp();
	struct ss_server *server = made(&config);
	ck_assert_str_eq(ss_server_describe(server), "tcp > base");
	dispose(server);
	begin();
	config.mixins[0].layer = &a;
	config.mixins[1].layer = &ss_threading_mixin;
	config.mixins[2].layer = &ss_trace_mixin;
	config.log_level = SS_NONE;
	server = made(&config);
	ck_assert_str_eq(ss_server_describe(server),
			 "a > threading > trace > tcp > base");
	ck_assert(ss_server_flags(server) & SS_LAYER_THREADS);
	ck_assert(ss_server_flags(server) & SS_LAYER_STREAM);
	ck_assert(!(ss_server_flags(server) & SS_LAYER_UNIX));
	dispose(server);
}
END_TEST

/* However long they are. */
START_TEST(layers_describe_long_names)
{
	stack_nothing();
	char name[200];
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	struct ss_layer one = { .name = name }, two = { .name = name };
	struct ss_config config = in_memory();
	config.mixins[0].layer = &one;
	config.mixins[1].layer = &two;
	struct ss_server *server = made(&config);
	char all[3 * sizeof(name)];
	snprintf(all, sizeof(all), "%s > %s > memory > base", name, name);
	ck_assert_str_eq(ss_server_describe(server), all);
	dispose(server);
}
END_TEST

/* ---- another handler, user pointers ---------------------------------------*/

static int mark; /* its address is what users carry */
static atomic_int calm, wild, ended;

static int calm_handle(struct ss_request *req)
{
	ck_assert_ptr_eq(ss_request_user(req), &mark);
	ck_assert(whole(ss_state(req), 8, 0));
	ck_assert_str_eq(ss_request_handler(req)->name, "calm");
	memset(ss_state(req), 'c', 8);
	atomic_fetch_add(&calm, 1);
	return 0;
}

static int wild_handle(struct ss_request *req)
{
	ck_assert_ptr_eq(ss_request_user(req), &mark);
	ck_assert(whole(ss_state(req), 4096, 0));
	memset(ss_state(req), 'w', 4096);
	atomic_fetch_add(&wild, 1);
	ss_request_set_user(req, &wild);
	return 0;
}

static const struct ss_handler calm_handler = { .name = "calm",
						.size = 8,
						.handle = calm_handle };
static const struct ss_handler wild_handler = { .name = "wild",
						.size = 4096,
						.handle = wild_handle };

static const struct ss_layer chooser;

static bool chosen(const struct ss_request *req)
{
	return ss_request_id(req) % 2;
}

static int choose_verify(struct ss_server *server, struct ss_request *req)
{
	ck_assert_ptr_eq(ss_server_user(server), &calm);
	ck_assert_ptr_null(ss_request_user(req));
	ss_request_set_user(req, &mark);
	return ss_super(server, &chooser)->verify_request(server, req);
}

static int choose_finish(struct ss_server *server, struct ss_request *req)
{
	static const struct ss_handler without = { .name = "without" };
	struct ss_handler newer = wild_handler;
	newer.struct_size = sizeof(newer) + 1;
	ck_assert_int_eq(ss_request_set_handler(req, &without), -EINVAL);
	ck_assert_int_eq(ss_request_set_handler(req, &newer), -EINVAL);
	ck_assert_str_eq(ss_request_handler(req)->name, "calm");
	if (chosen(req))
		ck_assert_int_eq(ss_request_set_handler(req, &wild_handler), 0);
	return ss_super(server, &chooser)->finish_request(server, req);
}

static void choose_end(struct ss_server *server, struct ss_request *req,
		       int status)
{
	ck_assert_int_eq(status, 0);
	ck_assert_ptr_eq(ss_request_user(req),
			 chosen(req) ? (void *)&wild : (void *)&mark);
	ck_assert_str_eq(ss_request_handler(req)->name,
			 chosen(req) ? "wild" : "calm");
	atomic_fetch_add(&ended, 1);
	ss_super(server, &chooser)->end_request(server, req, status);
}

static const struct ss_layer chooser = {
	.name = "chooser",
	.ops = { .verify_request = choose_verify,
		 .finish_request = choose_finish,
		 .end_request = choose_end },
};

/* Under trace too, whose own handler stands in for either. */
START_TEST(layers_finish_request_chooses_a_handler)
{
	struct ss_trace_options silent = { .kinds = SS_TRACE_WAITS };
	struct ss_config config = in_memory();
	config.handler = &calm_handler;
	config.user = &calm;
	struct ss_use *use = config.mixins;
	*use++ = (struct ss_use){ &chooser, NULL };
	if (_i & 1)
		*use++ = (struct ss_use){ &ss_threading_mixin, NULL };
	if (_i & 2)
		*use++ = (struct ss_use){ &ss_trace_mixin, &silent };
	struct ss_server *server = made(&config);
	for (int i = 0; i < 6; i++)
		serve_one(server);
	ck_assert_ptr_eq(ss_server_handler(server), &calm_handler);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(get(&calm), 3);
	ck_assert_int_eq(get(&wild), 3);
	ck_assert_int_eq(get(&ended), 6);
	dispose(server);
}
END_TEST

static int waited_ms;

static int wait_in_vain(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	int64_t began = ss_now(server);
	char byte;
	ck_assert_int_eq(ss_read(req, &byte, 1), -ETIMEDOUT);
	waited_ms = (int)(ss_now(server) - began);
	return 0;
}

static const struct ss_handler hasty = { .name = "hasty",
					 .handle = wait_in_vain,
					 .timeouts = { .io_ms = 20 } };
static const struct ss_handler patient = { .name = "patient",
					   .handle = wait_in_vain,
					   .timeouts = { .io_ms = 70 } };

static const struct ss_layer bounder;

static int bound_verify(struct ss_server *server, struct ss_request *req)
{
	const struct ss_timeouts *timeouts = ss_server_user(server);
	if (timeouts)
		ss_request_set_timeouts(req, timeouts);
	return ss_super(server, &bounder)->verify_request(server, req);
}

static int bound_finish(struct ss_server *server, struct ss_request *req)
{
	ck_assert_int_eq(ss_request_set_handler(req, &patient), 0);
	return ss_super(server, &bounder)->finish_request(server, req);
}

static const struct ss_layer bounder = {
	.name = "bounder",
	.ops = { .verify_request = bound_verify,
		 .finish_request = bound_finish },
};

static void expect_wait(const struct ss_timeouts *own, int ms)
{
	struct ss_trace_options silent = { .kinds = SS_TRACE_WAITS };
	struct ss_config config = in_memory();
	config.handler = &hasty;
	config.user = (void *)own;
	config.mixins[0].layer = &bounder;
	for (int traced = 0; traced < 2; traced++) {
		if (traced)
			config.mixins[1] =
				(struct ss_use){ &ss_trace_mixin, &silent };
		struct ss_server *server = made(&config);
		struct ss_memory_client *client;
		ck_assert_int_eq(ss_memory_connect(server, &client), 0);
		waited_ms = -1;
		ck_assert_int_eq(ss_server_turn(server, 0), 1);
		ck_assert_int_eq(waited_ms, ms);
		ss_memory_close(client);
		dispose(server);
	}
}

/* The chosen one's time-outs hold, under what the request itself was given. */
START_TEST(layers_the_chosen_handlers_timeouts)
{
	struct ss_timeouts own = { .io_ms = 50 };
	expect_wait(NULL, 70);
	expect_wait(&own, 50);
	own = (struct ss_timeouts){ .idle_ms = 30 };
	expect_wait(&own, 30);
	own = (struct ss_timeouts){ .io_ms = SS_NONE, .total_ms = 90 };
	expect_wait(&own, 90);
}
END_TEST

/* ---- what is counted comes back -------------------------------------------*/

enum {
	BURST = 8,
	IDS = 8192,
	GONE_EVERY = 7,
};

enum fate {
	FATE_OK,
	FATE_SETUP,
	FATE_HANDLE,
	FATE_FINISH,
	FATE_REFUSED,
	FATE_VERIFY,
	FATE_PROCESS,
	FATE_CANCEL,
	FATE_SEGV,
	FATE_ABORT,
	FATE_EXIT,
	FATES,
};

/* What one counting layer holds, in memory that children share. */
struct account {
	atomic_int requests; /* got, and not ended */
	atomic_int verified; /* the same of those it was asked about */
	atomic_int got, asked, ended;
};

struct ledger {
	struct account top, bottom;
	struct ss_stats stats; /* after close */
	atomic_int refused;    /* ended with -EBUSY */
	atomic_int wrong;      /* ended otherwise than their fate has it */
	int wrong_fate, wrong_status;
	atomic_int server; /* its process */
	bool in_children;  /* each request has a process */
	atomic_uchar ends[IDS];
};
static struct ledger *ledger;

static unsigned number_of(const struct ss_request *req)
{
	return (unsigned)(ss_request_id(req) & 0xffffffff);
}

static enum fate fate_of(const struct ss_request *req)
{
	return (enum fate)(number_of(req) % FATES);
}

/* ---- the counting layers --------------------------------------------------*/

struct counted {
	bool verified;
};

static const struct ss_layer top_counter, bottom_counter;

static int count_get(const struct ss_layer *mine, struct account *account,
		     struct ss_server *server, struct ss_listener *listener,
		     struct ss_request **req)
{
	int r = ss_super(server, mine)->get_request(server, listener, req);
	if (r >= 0) {
		atomic_fetch_add(&account->requests, 1);
		atomic_fetch_add(&account->got, 1);
	}
	return r;
}

static int count_verify(const struct ss_layer *mine, struct account *account,
			struct ss_server *server, struct ss_request *req)
{
	struct counted *counted = ss_request_layer_state(req, mine);
	counted->verified = true;
	atomic_fetch_add(&account->verified, 1);
	atomic_fetch_add(&account->asked, 1);
	return ss_super(server, mine)->verify_request(server, req);
}

static void count_end(const struct ss_layer *mine, struct account *account,
		      struct ss_server *server, struct ss_request *req,
		      int status)
{
	const struct counted *counted = ss_request_layer_state(req, mine);
	atomic_fetch_sub(&account->requests, 1);
	if (counted->verified)
		atomic_fetch_sub(&account->verified, 1);
	atomic_fetch_add(&account->ended, 1);
	ss_super(server, mine)->end_request(server, req, status);
}

static int top_get(struct ss_server *server, struct ss_listener *listener,
		   struct ss_request **req)
{
	return count_get(&top_counter, &ledger->top, server, listener, req);
}

static int top_verify(struct ss_server *server, struct ss_request *req)
{
	return count_verify(&top_counter, &ledger->top, server, req);
}

static void top_end(struct ss_server *server, struct ss_request *req,
		    int status)
{
	count_end(&top_counter, &ledger->top, server, req, status);
}

static int bottom_get(struct ss_server *server, struct ss_listener *listener,
		      struct ss_request **req)
{
	return count_get(&bottom_counter, &ledger->bottom, server, listener,
			 req);
}

static int bottom_verify(struct ss_server *server, struct ss_request *req)
{
	return count_verify(&bottom_counter, &ledger->bottom, server, req);
}

static void bottom_end(struct ss_server *server, struct ss_request *req,
		       int status)
{
	count_end(&bottom_counter, &ledger->bottom, server, req, status);
}

static const struct ss_layer top_counter = {
	.name = "top",
	.request_size = sizeof(struct counted),
	.ops = { .get_request = top_get,
		 .verify_request = top_verify,
		 .end_request = top_end },
};

static const struct ss_layer bottom_counter = {
	.name = "bottom",
	.request_size = sizeof(struct counted),
	.ops = { .get_request = bottom_get,
		 .verify_request = bottom_verify,
		 .end_request = bottom_end },
};

/* ---- the layer that sees to each request's fate ---------------------------*/

static const struct ss_layer destiny;

/* Half of those that are turned away are so before `bottom` is asked. */
static int destiny_verify(struct ss_server *server, struct ss_request *req)
{
	enum fate fate = fate_of(req);
	int r = fate == FATE_REFUSED ? 0 : fate == FATE_VERIFY ? -EPROTO : 1;
	if (r <= 0 && number_of(req) % 2)
		return r;
	int below = ss_super(server, &destiny)->verify_request(server, req);
	return below <= 0 ? below : r;
}

/* Where it runs elsewhere, it sleeps until it is cancelled. */
static int destiny_process(struct ss_server *server, struct ss_request *req)
{
	enum fate fate = fate_of(req);
	uint64_t id = ss_request_id(req);
	if (fate == FATE_PROCESS)
		return -ENOSPC;
	int r = ss_super(server, &destiny)->process_request(server, req);
	if (r == 0 && fate == FATE_CANCEL &&
	    (ss_server_flags(server) & SS_LAYER_DISPATCHES))
		ck_assert_int_eq(ss_cancel(server, id), 0);
	return r;
}

static int due(const struct ss_server *server, enum fate fate)
{
	static const int codes[FATES] = {
		[FATE_SETUP] = -EPROTO,	    [FATE_HANDLE] = -EPROTO,
		[FATE_FINISH] = -EPROTO,    [FATE_REFUSED] = -EACCES,
		[FATE_VERIFY] = -EPROTO,    [FATE_PROCESS] = -ENOSPC,
		[FATE_CANCEL] = -ECANCELED,
	};
	const unsigned forking = SS_LAYER_FORKS | SS_LAYER_DISPATCHES;
	bool child = (ss_server_flags(server) & forking) == forking &&
		     ledger->in_children;
	bool served = fate < FATE_REFUSED || fate > FATE_PROCESS;
	bool crashes = fate > FATE_CANCEL;
	if (child && served && (codes[fate] || crashes))
		return -ECHILD;
	return codes[fate];
}

static void destiny_end(struct ss_server *server, struct ss_request *req,
			int status)
{
	unsigned number = number_of(req);
	ck_assert_uint_lt(number, IDS);
	atomic_fetch_add(&ledger->ends[number], 1);
	if (status == -EBUSY) {
		atomic_fetch_add(&ledger->refused, 1);
	} else if (status != due(server, fate_of(req))) {
		atomic_fetch_add(&ledger->wrong, 1);
		ledger->wrong_fate = (int)fate_of(req);
		ledger->wrong_status = status;
	}
	ss_super(server, &destiny)->end_request(server, req, status);
}

static const struct ss_layer destiny = {
	.name = "destiny",
	.ops = { .verify_request = destiny_verify,
		 .process_request = destiny_process,
		 .end_request = destiny_end },
};

/* ---- the handler ----------------------------------------------------------*/

static void crash(enum fate fate)
{
	static const struct rlimit no_core = { 0, 0 };
	if (getpid() == get(&ledger->server) || !ledger->in_children)
		return;
	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGSEGV, SIG_DFL);
	if (fate == FATE_SEGV)
		raise(SIGSEGV);
	if (fate == FATE_ABORT)
		abort();
	if (fate == FATE_EXIT)
		_exit(3);
}

/* Cancels itself where nobody else runs. */
static int await_cancel(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	if (!(ss_server_flags(server) & SS_LAYER_DISPATCHES))
		ck_assert_int_eq(ss_cancel(server, ss_request_id(req)), 0);
	return ss_sleep(req, WAIT_MS);
}

static int fated_setup(struct ss_request *req)
{
	return fate_of(req) == FATE_SETUP ? -EPROTO : 0;
}

static int fated_handle(struct ss_request *req)
{
	enum fate fate = fate_of(req);
	if (fate == FATE_CANCEL)
		return await_cancel(req);
	char byte;
	if (ss_read(req, &byte, 1) == 1)
		ss_write(req, &byte, 1);
	if (fate >= FATE_SEGV)
		crash(fate);
	return fate == FATE_HANDLE ? -EPROTO : 0;
}

static int fated_finish(struct ss_request *req)
{
	return fate_of(req) == FATE_FINISH ? -EPROTO : 0;
}

static const struct ss_handler fated = {
	.name = "fated",
	.size = 16,
	.setup = fated_setup,
	.handle = fated_handle,
	.finish = fated_finish,
};

/* ---- the run --------------------------------------------------------------*/

struct policy {
	const char *name;
	int transport; /* of transports[] */
	int max_active;
	enum ss_full full;
	int queue_size;
};

static const struct policy policies[] = {
	{ "no cap, tcp", 0, 0, SS_FULL_WAIT, 0 },
	{ "wait, unix", 2, 3, SS_FULL_WAIT, 0 },
	{ "refuse, unix", 2, 2, SS_FULL_REFUSE, 0 },
	{ "queue, unix", 2, 3, SS_FULL_QUEUE, 4 },
	{ "no cap, unixgram", 3, 0, SS_FULL_WAIT, 0 },
	{ "queue, unixgram", 3, 3, SS_FULL_QUEUE, 4 },
};
enum { POLICIES = sizeof(policies) / sizeof(*policies) };

/* Of each policy under each model, so that all together make 10,000 requests.
 */
static int bursts(void)
{
	int of_all = POLICIES * model_count * BURST;
	return (10000 + of_all - 1) / of_all;
}

static int serve_and_sum(struct ss_server *server)
{
	atomic_store(&ledger->server, getpid());
	int r = ss_serve_forever(server);
	if (r == 0)
		r = ss_server_close(server);
	ss_server_stats(server, &ledger->stats);
	return r;
}

static struct ss_config counting(const struct model *model,
				 const struct policy *policy)
{
	/* What crashes in a worker takes others' ends with it. */
	ledger->in_children = !model_supervised(model);
	struct ss_config config =
		config_of(model, &transports[policy->transport], &fated);
	use_first(&config, &destiny, NULL);
	use_first(&config, &top_counter, NULL);
	use_last(&config, &bottom_counter, NULL);
	config.max_active = policy->max_active;
	config.full = policy->full;
	config.queue_size = policy->queue_size;
	config.refusal = "full\n";
	config.log_level = SS_NONE;
	return config;
}

/* All have connected, and are got if need be, before one speaks; every seventh
 * goes without a word. */
static void visit_in_burst(const char *url, bool stream, int first, int got)
{
	int fds[BURST];
	char bytes[16];
	for (int i = 0; i < BURST; i++)
		fds[i] = dial(url);
	eventually(get(&ledger->top.got) >= got);
	for (int i = 0; i < BURST; i++) {
		bool gone = stream && (first + i) % GONE_EVERY == 0;
		if (!gone)
			send(fds[i], "x", 1, MSG_NOSIGNAL);
		if (!gone && stream)
			continue;
		close(fds[i]);
		fds[i] = -1;
	}
	for (int i = 0; i < BURST; i++) {
		if (fds[i] < 0)
			continue;
		while (recv(fds[i], bytes, sizeof(bytes), 0) > 0)
			;
		close(fds[i]);
	}
}

static void check_account(const struct account *account, int requests)
{
	ck_assert_int_eq(get(&account->requests), 0);
	ck_assert_int_eq(get(&account->verified), 0);
	ck_assert_int_eq(get(&account->got), requests);
	ck_assert_int_eq(get(&account->ended), requests);
}

/* How many of the first n requests have this fate. */
static unsigned fated_so(enum fate fate, int n)
{
	unsigned count = 0;
	for (unsigned id = 1; id <= (unsigned)n; id++)
		count += id % FATES == (unsigned)fate;
	return count;
}

/* Sync has never more than one. */
static bool may_refuse(const struct policy *policy, const struct model *model)
{
	return policy->full == SS_FULL_REFUSE && !model_sync(model);
}

static void check_refusals(const struct policy *policy,
			   const struct model *model, int n)
{
	unsigned refused = (unsigned)get(&ledger->refused);
	/* Who is cancelled in a pool's list has given up waiting for a place.
	 */
	unsigned given_up =
		model_has(model, &ss_pool_mixin) ? fated_so(FATE_CANCEL, n) : 0;
	uint64_t full = ledger->stats.refused[SS_REFUSED_FULL];
	ck_assert_uint_ge(full, refused);
	ck_assert_uint_le(full, refused + given_up);
	ck_assert_int_eq(refused > 0, may_refuse(policy, model));
}

static void check_stats(const struct policy *policy, const struct model *model,
			int n)
{
	const struct ss_stats *stats = &ledger->stats;
	ck_assert_uint_eq(stats->accepted, (unsigned)n);
	ck_assert_uint_eq(stats->ended, (unsigned)n);
	ck_assert_uint_eq(stats->active, 0);
	ck_assert_uint_eq(stats->queued, 0);
	ck_assert_uint_eq(stats->refused[SS_REFUSED_VERIFY],
			  fated_so(FATE_REFUSED, n) + fated_so(FATE_VERIFY, n));
	ck_assert_uint_eq(stats->errors[SS_PHASE_VERIFY],
			  fated_so(FATE_VERIFY, n));
	check_refusals(policy, model, n);
	if (may_refuse(policy, model))
		return;
	ck_assert_uint_eq(stats->refused[SS_REFUSED_PROCESS],
			  fated_so(FATE_PROCESS, n));
	ck_assert_uint_eq(stats->errors[SS_PHASE_PROCESS],
			  fated_so(FATE_PROCESS, n));
	ck_assert_uint_eq(stats->errors[SS_PHASE_SETUP],
			  fated_so(FATE_SETUP, n));
	ck_assert_uint_eq(stats->errors[SS_PHASE_FINISH],
			  fated_so(FATE_FINISH, n));
}

static void check_ledger(const struct policy *policy, const struct model *model,
			 int n)
{
	check_account(&ledger->top, n);
	check_account(&ledger->bottom, n);
	ck_assert_int_eq(get(&ledger->top.asked), n);
	ck_assert_int_lt(get(&ledger->bottom.asked), n);
	for (int id = 0; id < IDS; id++)
		ck_assert_msg(atomic_load(&ledger->ends[id]) ==
				      (id >= 1 && id <= n),
			      "request %d of %d ended %d times", id, n,
			      atomic_load(&ledger->ends[id]));
	ck_assert_msg(get(&ledger->wrong) == 0,
		      "%s, %s: %d ended wrong, fate %d with %d", model->name,
		      policy->name, get(&ledger->wrong), ledger->wrong_fate,
		      ledger->wrong_status);
	check_stats(policy, model, n);
}

static void ledger_begin(void)
{
	ledger = ss_shared_alloc(sizeof(*ledger));
	ck_assert_ptr_nonnull(ledger);
}

START_TEST(layers_counts_come_back)
{
	const struct model *model = &models[_i / POLICIES];
	const struct policy *policy = &policies[_i % POLICIES];
	const struct transport *transport = &transports[policy->transport];
	int n = BURST * bursts();
	ledger_begin();
	struct ss_config config = counting(model, policy);
	struct node node;
	node_run(&node, &config, serve_and_sum);
	/* So that some of them find the server full. */
	bool refuses = may_refuse(policy, model);
	for (int i = 0; i < n; i += BURST)
		visit_in_burst(node.url, transport->stream, i,
			       refuses ? i + BURST : 0);
	eventually(get(&ledger->bottom.ended) == n);
	ck_assert_int_eq(node_stop(&node), 0);
	check_ledger(policy, model, n);
}
END_TEST

/* Silent clients, served, queued and waiting, when the server is stopped. */
START_TEST(layers_counts_come_back_after_a_forced_stop)
{
	enum { SILENT = 10 };
	const struct model *model = &models[_i / POLICIES];
	const struct policy *policy = &policies[_i % POLICIES];
	if (!transports[policy->transport].stream)
		return;
	ledger_begin();
	struct ss_config config = counting(model, policy);
	config.drain_ms = 50;
	struct node node;
	node_run(&node, &config, serve_and_sum);
	int fds[SILENT];
	for (int i = 0; i < SILENT; i++)
		fds[i] = dial(node.url);
	eventually(get(&ledger->top.got) > 0);
	ck_assert_int_eq(node_stop(&node), 0);
	int n = get(&ledger->top.got);
	ck_assert_int_ge(n, 1);
	ck_assert_int_le(n, SILENT);
	check_account(&ledger->top, n);
	check_account(&ledger->bottom, n);
	ck_assert_uint_eq(ledger->stats.accepted, (unsigned)n);
	ck_assert_uint_eq(ledger->stats.ended, (unsigned)n);
	ck_assert_uint_eq(ledger->stats.active, 0);
	ck_assert_uint_eq(ledger->stats.queued, 0);
	for (int i = 0; i < SILENT; i++)
		close(fds[i]);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_structure(Suite *suite)
{
	TCase *tables = suite_case(suite, "tables", NULL, NULL);
	tcase_add_test(tables, layers_null_inherits_everything);
	tcase_add_test(tables, layers_trace_overrides_every_operation);
	tcase_add_loop_test(tables, layers_one_operation_is_overridden, 0,
			    OPERATIONS);
	tcase_add_test(tables, layers_super_goes_left_to_right);
	tcase_add_test(tables, layers_on_both_sides_of_a_model);
	tcase_add_test(tables, layers_self_binds_late);

	TCase *state = suite_case(suite, "state", NULL, NULL);
	tcase_add_test(state, layers_have_state_for_each_server);
	tcase_add_loop_test(state, layers_have_state_for_each_request, 0, 2);
	tcase_add_test(state, layers_are_given_their_options);

	tcase_add_test(state, layers_know_a_requests_listener);
	tcase_add_test(state, layers_know_the_last_of_many_listeners);
	tcase_add_test(state, layers_find_a_channels_space_zeroed);

	TCase *life = suite_case(suite, "life", NULL, NULL);
	tcase_add_test(life, layers_init_upwards_fini_downwards);
	tcase_add_loop_test(life, layers_init_fails_on_the_way, 0, 3);
	tcase_add_loop_test(life, layers_give_their_reason, 0, 3);
	tcase_add_test(life, layers_fini_after_a_failed_bind);
	tcase_add_test(life, layers_after_fork_in_every_child);
}

static void add_refusals(Suite *suite)
{
	TCase *refusals = suite_case(suite, "refusals", NULL, NULL);
	tcase_add_test(refusals, layers_two_that_dispatch_are_refused);
	tcase_add_test(refusals,
		       layers_with_workers_in_the_wrong_place_are_refused);
	tcase_add_test(refusals, layers_in_the_wrong_place_are_refused);
	tcase_add_test(refusals, layers_start_threads_where_nobody_forks);
	tcase_add_test(refusals, layers_start_threads_in_workers);
	tcase_add_test(refusals, layers_whose_needs_are_not_met_are_refused);
	tcase_add_test(refusals, layers_handlers_that_are_refused);
	tcase_add_test(refusals,
		       layers_neither_transport_nor_address_is_refused);
	tcase_add_test(refusals, layers_too_many_are_refused);
	tcase_add_test(refusals, layers_negative_limits_are_refused);
	tcase_add_test(refusals, layers_config_of_a_newer_program);
	tcase_add_test(refusals, layers_config_of_an_older_program);
	tcase_add_test(refusals, layers_made_for_a_newer_library_are_refused);
	tcase_add_test(refusals, layers_stats_of_other_sizes);
}

Suite *t_layers(void)
{
	Suite *suite = suite_create("t_layers");
	add_structure(suite);
	add_refusals(suite);

	TCase *what = suite_case(suite, "what it is", NULL, NULL);
	tcase_add_test(what, layers_describe);
	tcase_add_test(what, layers_describe_long_names);
	tcase_add_loop_test(what, layers_finish_request_chooses_a_handler, 0,
			    4);
	tcase_add_test(what, layers_the_chosen_handlers_timeouts);

	TCase *counts = suite_case(suite, "counts", NULL, NULL);
	tcase_add_loop_test(counts, layers_counts_come_back, 0,
			    model_count * POLICIES);
	tcase_add_loop_test(counts, layers_counts_come_back_after_a_forced_stop,
			    0, model_count * POLICIES);
	return suite;
}
