/*
 * The golden traces of the contract: which operations run for a request, in
 * which order and where, for every outcome, under every model, over every
 * transport, seen from above the model's mixin and from below it.
 */
#include "support.h"

#include <stddef.h>
#include <sys/wait.h>

Suite *t_traces(void);

/* So that a failing assertion shows the name alone. */
static int get(const atomic_int *n)
{
	return atomic_load(n);
}

/* ---- what is seen ---------------------------------------------------------*/

/* In shared memory: children write here too. */
struct seen {
	atomic_int pid, tid;		/* of who made the server */
	atomic_int ends;		/* end_requests */
	atomic_int status;		/* of the last one */
	atomic_int errors, code, phase; /* handle_error's */
	atomic_int exits, exit_status;	/* as waitpid(2) had it */
	atomic_int most;		/* children at a time */
	atomic_int logged;		/* lines */
};
static struct seen *seen;
static struct tape *tape;
static struct tape *logged;

static void begin(void)
{
	if (!seen) {
		seen = ss_shared_alloc(sizeof(*seen));
		ck_assert_ptr_nonnull(seen);
		tape = tape_new();
		logged = tape_new();
	}
	memset(seen, 0, sizeof(*seen));
	memset(tape, 0, sizeof(*tape));
	memset(logged, 0, sizeof(*logged));
}

/* P: who made the server; T: another thread; C: another process; W: another
 * thread of that one. */
static char place(void)
{
	int pid = 0;
	if (atomic_compare_exchange_strong(&seen->pid, &pid, getpid()))
		atomic_store(&seen->tid, gettid());
	if (pid && pid != getpid())
		return gettid() == getpid() ? 'C' : 'W';
	return get(&seen->tid) == gettid() ? 'P' : 'T';
}

/* "P1 get_request": the first request; "P0 ...": the server. */
static void tell(void *arg, struct ss_server *server, uint64_t id,
		 const char *operation)
{
	(void)server;
	char where = place();
	tape_note(arg, "%c%u %s", where, (unsigned)(id & 0xffff), operation);
}

static void note_log(void *arg, int level, struct ss_server *server,
		     uint64_t id, const char *text)
{
	(void)server;
	if (log_of_a_busy_machine(text))
		return;
	tape_note(arg, "%d %u %.50s", level, (unsigned)(id & 0xffff), text);
	atomic_fetch_add(&seen->logged, 1);
}

enum { ANY = -1 };

/* What was told in one place (0: any), of one request, as "a b c". */
static const char *told(char where, int id)
{
	static char text[TAPE_LINES * 24];
	size_t used = 0;
	text[0] = '\0';
	int lines = get(&tape->count);
	for (int i = 0; i < lines && i < TAPE_LINES; i++) {
		char by;
		int of;
		char operation[TAPE_TEXT];
		ck_assert(atomic_load(&tape->line[i].whole));
		ck_assert_int_eq(sscanf(tape->line[i].text, "%c%d %s", &by, &of,
					operation),
				 3);
		if ((where && by != where) || (id != ANY && of != id))
			continue;
		used += (size_t)snprintf(text + used, sizeof(text) - used,
					 "%s%s", used ? " " : "", operation);
	}
	return text;
}

/* "a b b b c" as "a b c": how often the loop turned is its own affair. */
static const char *once(const char *text)
{
	static char result[4096];
	char copy[4096], last[TAPE_TEXT] = "", *rest = NULL;
	size_t used = 0;
	result[0] = '\0';
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, " ", &rest); word;
	     word = strtok_r(NULL, " ", &rest)) {
		if (strcmp(word, last) != 0)
			used += (size_t)snprintf(result + used,
						 sizeof(result) - used, "%s%s",
						 used ? " " : "", word);
		snprintf(last, sizeof(last), "%s", word);
	}
	return result;
}

static bool log_has(const char *text)
{
	for (int i = 0; i < get(&logged->count); i++)
		if (strstr(logged->line[i].text, text))
			return true;
	return false;
}

/* ---- outcomes -------------------------------------------------------------*/

enum { SURE = 1 }; /* what verify_request says of whom it lets in */

struct outcome {
	const char *name;
	int setup, handle, finish; /* what the handler's steps return */
	int verify;		   /* what these two do */
	int process;
	bool no_runner;	    /* fork(2), pthread_create(3) fail */
	const char *served; /* from finish_request on; NULL: never so far */
	const char *turned_away;
	int status; /* of its end; forking: -ECHILD where it was served */
	int code;   /* what handle_error gets */
	enum ss_phase phase;
	const char *line; /* in the log */
};

static const struct outcome outcomes[] = {
	{ .name = "ok",
	  .verify = SURE,
	  .served = "finish_request setup handle finish "
		    "shutdown_request close_request" },
	{ .name = "setup fails",
	  .verify = SURE,
	  .setup = -EPROTO,
	  .served = "finish_request setup handle_error "
		    "shutdown_request close_request",
	  .status = -EPROTO,
	  .code = -EPROTO,
	  .phase = SS_PHASE_SETUP,
	  .line = "setup: because" },
	{ .name = "handle fails",
	  .verify = SURE,
	  .handle = -EPROTO,
	  .served = "finish_request setup handle finish handle_error "
		    "shutdown_request close_request",
	  .status = -EPROTO,
	  .code = -EPROTO,
	  .phase = SS_PHASE_HANDLE,
	  .line = "handle: because" },
	{ .name = "finish fails",
	  .verify = SURE,
	  .finish = -EBADMSG,
	  .served = "finish_request setup handle finish handle_error "
		    "shutdown_request close_request",
	  .status = -EBADMSG,
	  .code = -EBADMSG,
	  .phase = SS_PHASE_FINISH,
	  .line = "finish: because" },
	{ .name = "handle and finish fail",
	  .verify = SURE,
	  .handle = -EPROTO,
	  .finish = -EBADMSG,
	  .served = "finish_request setup handle finish handle_error "
		    "shutdown_request close_request",
	  .status = -EPROTO,
	  .code = -EPROTO,
	  .phase = SS_PHASE_HANDLE },
	{ .name = "handle returns nonsense",
	  .verify = SURE,
	  .handle = 7,
	  .served = "finish_request setup handle finish handle_error "
		    "shutdown_request close_request",
	  .status = -EINVAL,
	  .code = -EINVAL,
	  .phase = SS_PHASE_HANDLE,
	  .line = "handle: handle" },
	{ .name = "verify says no",
	  .turned_away = "shutdown_request close_request",
	  .status = -EACCES },
	{ .name = "verify fails",
	  .verify = -EPROTO,
	  .turned_away = "handle_error shutdown_request close_request",
	  .status = -EPROTO,
	  .code = -EPROTO,
	  .phase = SS_PHASE_VERIFY,
	  .line = "verify_request: because" },
	{ .name = "process_request fails",
	  .verify = SURE,
	  .process = -ENOSPC,
	  .turned_away = "handle_error shutdown_request close_request",
	  .status = -ENOSPC,
	  .code = -ENOSPC,
	  .phase = SS_PHASE_PROCESS,
	  .line = "process_request: because" },
	{ .name = "no thread, no process",
	  .verify = SURE,
	  .no_runner = true,
	  .turned_away = "handle_error shutdown_request close_request",
	  .status = -EAGAIN,
	  .code = -EAGAIN,
	  .phase = SS_PHASE_PROCESS,
	  .line = "process_request: Resource" },
};
enum { OUTCOMES = sizeof(outcomes) / sizeof(*outcomes) };

static int turn_out(struct ss_request *req, int code)
{
	return code < 0 ? ss_fail(req, code, "because") : code;
}

static const struct outcome *outcome_of(struct ss_request *req)
{
	return ss_server_user(ss_request_server(req));
}

static int told_setup(struct ss_request *req)
{
	return turn_out(req, outcome_of(req)->setup);
}

static int told_handle(struct ss_request *req)
{
	char buf[16];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	ck_assert_int_eq(n, 1);
	return turn_out(req, outcome_of(req)->handle);
}

static int told_finish(struct ss_request *req)
{
	return turn_out(req, outcome_of(req)->finish);
}

static const struct ss_handler as_told = {
	.name = "as told",
	.setup = told_setup,
	.handle = told_handle,
	.finish = told_finish,
};

/* ---- a layer that sees to the outcome, and notes it -----------------------*/

static const struct ss_layer judge;

static int judge_verify(struct ss_server *server, struct ss_request *req)
{
	int r = ss_super(server, &judge)->verify_request(server, req);
	ck_assert_int_gt(r, 0);
	return turn_out(req, outcome_of(req)->verify);
}

static int judge_process(struct ss_server *server, struct ss_request *req)
{
	int r = turn_out(req, outcome_of(req)->process);
	return r ? r : ss_super(server, &judge)->process_request(server, req);
}

static void judge_error(struct ss_server *server, struct ss_request *req,
			const struct ss_error *error)
{
	atomic_store(&seen->code, error->code);
	atomic_store(&seen->phase, error->phase);
	atomic_fetch_add(&seen->errors, 1);
	ss_super(server, &judge)->handle_error(server, req, error);
}

static void judge_end(struct ss_server *server, struct ss_request *req,
		      int status)
{
	ss_super(server, &judge)->end_request(server, req, status);
	atomic_store(&seen->status, status);
	atomic_fetch_add(&seen->ends, 1);
}

static const struct ss_layer judge = {
	.name = "judge",
	.ops = {
		.verify_request = judge_verify,
		.process_request = judge_process,
		.handle_error = judge_error,
		.end_request = judge_end,
	},
};

/* ---- calls that fail or are noted -----------------------------------------*/

static pid_t no_fork(void)
{
	errno = EAGAIN;
	return -1;
}

static int no_thread(pthread_t *thread, const pthread_attr_t *attr,
		     void *(*run)(void *), void *arg)
{
	(void)thread, (void)attr, (void)run, (void)arg;
	return EAGAIN;
}

static pid_t noting_waitpid(pid_t pid, int *status, int options)
{
	pid_t r = waitpid(pid, status, options);
	if (r > 0) {
		atomic_store(&seen->exit_status, *status);
		atomic_fetch_add(&seen->exits, 1);
	}
	return r;
}

/* The first one is asked whether there are any. */
static int one_pidfd(pid_t pid)
{
	static int calls;
	if (calls++ == 0)
		return sys_do_pidfd_open(pid);
	errno = EMFILE;
	return -1;
}

/* ---- one scene: model, transport, outcome, place of the trace -------------*/

static const struct transport memories[] = {
	{ "memory", &ss_memory_server, true },
	{ "memory-datagram", &ss_memory_datagram_server, false },
};

struct scene {
	const struct model *model;
	const struct transport *transport;
	const struct outcome *outcome;
	bool above;
};

/* In which all goes well, and every layer is told of. */
static struct scene good_scene(const struct model *model,
			       const struct transport *transport)
{
	return (struct scene){ .model = model,
			       .transport = transport,
			       .outcome = &outcomes[0],
			       .above = true };
}

static bool forks(const struct scene *scene)
{
	return model_has(scene->model, &ss_forking_mixin);
}

/* Its process, and another thread there. */
static char loop_of(const struct scene *scene)
{
	return model_supervised(scene->model) ? 'C' : 'P';
}

static char thread_of(const struct scene *scene)
{
	return model_supervised(scene->model) ? 'W' : 'T';
}

/* Parent, thread or child: where its requests run. */
static char where_run(const struct scene *scene)
{
	if (forks(scene))
		return 'C';
	bool on_loop = on_serving_thread(scene->model, scene->transport);
	return on_loop ? loop_of(scene) : thread_of(scene);
}

static const struct ss_trace_options tracing = {
	.kinds = SS_TRACE_SERVER | SS_TRACE_REQUEST,
	.tell = tell,
};

static struct ss_config config_with(const struct scene *scene,
				    const struct ss_trace_options *options)
{
	struct ss_config config = {
		.transport = scene->transport->layer,
		.handler = &as_told,
		.user = (void *)scene->outcome,
		.log = note_log,
		.log_arg = logged,
	};
	if (config.transport->flags & SS_LAYER_SOCKET)
		config.addresses[0] = fresh_address(scene->transport);
	if (scene->above)
		use_last(&config, &ss_trace_mixin, options);
	use_last(&config, &judge, NULL);
	use_model(&config, scene->model);
	if (!scene->above)
		use_last(&config, &ss_trace_mixin, options);
	return config;
}

static struct ss_config config_for(const struct scene *scene)
{
	static struct ss_trace_options options;
	options = tracing;
	options.arg = tape;
	return config_with(scene, &options);
}

/* A client of any outcome: says a byte, hears until the end. */
static void visit(const char *url, const struct scene *scene)
{
	int fd = dial(url);
	send(fd, "x", 1, MSG_NOSIGNAL);
	if (!scene->outcome->code && scene->outcome->served)
		expect_text(fd, "x");
	char byte;
	while (scene->transport->stream && recv(fd, &byte, 1, 0) > 0)
		;
	close(fd);
}

static void play_on_node(const struct scene *scene)
{
	struct ss_config config = config_for(scene);
	struct node node;
	node_start(&node, &config);
	visit(node.url, scene);
	eventually(get(&seen->ends) == 1);
	ck_assert_int_eq(node_stop(&node), 0);
}

static void play_in_memory(const struct scene *scene)
{
	struct ss_config config = config_for(scene);
	struct ss_server *server = made(&config);
	struct ss_memory_client *client;
	ck_assert_int_eq(ss_memory_connect(server, &client), 0);
	ck_assert_int_eq(ss_memory_send(client, "x", 1), 1);
	eventually(ss_server_turn(server, 0) >= 0 && get(&seen->ends) == 1);
	if (!scene->outcome->code && scene->outcome->served) {
		char byte = 0;
		ck_assert_int_eq(ss_memory_recv(client, &byte, 1), 1);
		ck_assert_int_eq(byte, 'x');
	}
	ss_memory_close(client);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
}

static void expect_told(const struct scene *scene, char where,
			const char *expected)
{
	const char *got = told(where, 1);
	ck_assert_msg(strcmp(got, expected) == 0,
		      "%s, %s, %s, trace %s: %c told\n  %s\ninstead of\n  %s",
		      scene->model->name, scene->transport->name,
		      scene->outcome->name, scene->above ? "above" : "below",
		      where, got, expected);
}

/* A dispatching mixin and the judge end process_request's chain above it. */
static bool sees_process(const struct scene *scene)
{
	const struct outcome *o = scene->outcome;
	if (o->verify <= 0)
		return false;
	return scene->above || (model_sync(scene->model) && !o->process);
}

static void check_trace(const struct scene *scene)
{
	const struct outcome *o = scene->outcome;
	char p[1100] = "get_request verify_request", t[512] = "", c[512] = "";
	if (sees_process(scene))
		strcat(p, " process_request");
	if (o->turned_away)
		snprintf(p + strlen(p), 256, " %s end_request", o->turned_away);
	else if (on_serving_thread(scene->model, scene->transport))
		snprintf(p + strlen(p), 256, " %s end_request", o->served);
	else if (!forks(scene))
		snprintf(t, sizeof(t), "%s end_request", o->served);
	if (!o->turned_away && forks(scene)) {
		strcat(p, " close_request end_request");
		snprintf(c, sizeof(c), "%s", o->served);
	}
	expect_told(scene, loop_of(scene), p);
	expect_told(scene, thread_of(scene), t);
	expect_told(scene, model_supervised(scene->model) ? 'P' : 'C', c);
}

static void check_rest(const struct scene *scene)
{
	const struct outcome *o = scene->outcome;
	bool child = forks(scene) && o->served;
	int status = child && o->status ? -ECHILD : o->status;
	ck_assert_int_eq(get(&seen->status), status);
	ck_assert_int_eq(get(&seen->errors), o->code != 0);
	ck_assert_int_eq(get(&seen->code), o->code);
	ck_assert_int_eq(get(&seen->phase), (int)o->phase);
	if (!model_supervised(scene->model))
		ck_assert_int_eq(get(&seen->exits), child);
	if (child) {
		int exited = get(&seen->exit_status);
		ck_assert(WIFEXITED(exited));
		ck_assert_int_eq(WEXITSTATUS(exited), o->status ? 1 : 0);
	}
	ck_assert_int_eq(get(&seen->logged), o->code != 0);
	if (o->line)
		ck_assert_msg(log_has(o->line), "%s: %s", o->name,
			      tape_text(logged));
}

static void play(const struct scene *scene)
{
	/* Those that serve are there before. */
	if (scene->outcome->no_runner &&
	    (model_has(scene->model, &ss_pool_mixin) ||
	     model_has(scene->model, &ss_fiber_mixin) ||
	     model_sync(scene->model)))
		return;
	begin();
	sys_table.waitpid = noting_waitpid;
	bool supervised = model_supervised(scene->model);
	sys_table.fork =
		scene->outcome->no_runner && !supervised ? no_fork : fork;
	sys_table.pthread_create =
		scene->outcome->no_runner ? no_thread : pthread_create;
	if (scene->transport->layer->flags & SS_LAYER_SOCKET)
		play_on_node(scene);
	else
		play_in_memory(scene);
	check_trace(scene);
	check_rest(scene);
}

static void play_all(struct scene *scene)
{
	for (int i = 0; i < 2 * OUTCOMES; i++) {
		scene->outcome = &outcomes[i / 2];
		scene->above = i % 2;
		play(scene);
	}
}

START_TEST(traces_golden)
{
	struct scene scene = { .model = &models[_i / transport_count],
			       .transport = &transports[_i % transport_count] };
	play_all(&scene);
}
END_TEST

static bool runs_in_memory(const struct model *model)
{
	for (const struct ss_use *use = model->mixins; use->layer; use++)
		if (use->layer->flags & SS_NEEDS_SOCKET)
			return false;
	return true;
}

START_TEST(traces_golden_in_memory)
{
	struct scene scene = { .model = &models[_i / 2],
			       .transport = &memories[_i % 2] };
	if (runs_in_memory(scene.model))
		play_all(&scene);
}
END_TEST

/* ---- SS_AGAIN -------------------------------------------------------------*/

static int again(struct ss_request *req)
{
	char byte;
	ssize_t n = ss_read(req, &byte, 1);
	if (n > 0)
		n = ss_write(req, &byte, 1);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler again_handler = { .name = "again",
						 .handle = again };

/* handle once for each message, and once for the end; the rest once. */
START_TEST(traces_again_tells_handle_again)
{
	struct scene scene = good_scene(&models[_i], &transports[0]);
	begin();
	struct ss_config config = config_for(&scene);
	config.handler = &again_handler;
	struct node node;
	node_start(&node, &config);
	int fd = dial(node.url);
	for (int i = 0; i < 3; i++) {
		send_text(fd, "x");
		expect_text(fd, "x");
	}
	shutdown(fd, SHUT_WR);
	expect_end(fd);
	close(fd);
	eventually(get(&seen->ends) == 1);
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_ptr_nonnull(strstr(told(where_run(&scene), 1),
				     "finish_request setup handle handle "
				     "handle handle finish shutdown_request "
				     "close_request"));
}
END_TEST

/* ---- several at once ------------------------------------------------------*/

/* Each has its own trace, however they mix. */
START_TEST(traces_of_many_requests_are_each_whole)
{
	enum { MANY = 40 };
	struct scene scene = good_scene(&models[_i], &transports[0]);
	begin();
	struct ss_config config = config_for(&scene);
	struct node node;
	node_start(&node, &config);
	int fds[MANY];
	for (int i = 0; i < MANY; i++)
		fds[i] = dial(node.url);
	for (int i = MANY; i-- > 0;)
		send_text(fds[i], "x");
	for (int i = 0; i < MANY; i++) {
		expect_text(fds[i], "x");
		expect_end(fds[i]);
		close(fds[i]);
	}
	eventually(get(&seen->ends) == MANY);
	ck_assert_int_eq(node_stop(&node), 0);
	char where = where_run(&scene), whole[256];
	snprintf(whole, sizeof(whole),
		 "%sfinish_request setup handle finish shutdown_request "
		 "close_request%s",
		 where == loop_of(&scene)
			 ? "get_request verify_request process_request "
			 : "",
		 forks(&scene) ? "" : " end_request");
	for (int id = 1; id <= MANY; id++)
		ck_assert_str_eq(told(where, id), whole);
}
END_TEST

/* ---- the server's own operations ------------------------------------------*/

/* In this process, without a thread. */
static struct ss_server *stage(struct scene *scene, struct ss_config *config)
{
	begin();
	scene->outcome = &outcomes[0];
	scene->above = true;
	*config = config_for(scene);
	return made(config);
}

static void url_of(struct ss_server *server, char url[SS_ADDRESS_TEXT])
{
	ck_assert_ptr_nonnull(ss_server_url(server, 0, url, SS_ADDRESS_TEXT));
}

static int last_words(struct ss_request *req)
{
	ss_shutdown(ss_request_server(req));
	return told_handle(req);
}

static const struct ss_handler last_handler = { .name = "last words",
						.handle = last_words };

/* Streams are no longer listened to while what is served is waited for; a
 * datagram's reply leaves through the listener. */
START_TEST(traces_server_from_bind_to_close)
{
	struct scene scene = good_scene(&models[0], &transports[_i]);
	begin();
	struct ss_config config = config_for(&scene);
	config.handler = &last_handler;
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT];
	url_of(server, url);
	int fd = dial(url);
	send_text(fd, "x");
	ck_assert_int_eq(ss_serve_forever(server), 0);
	expect_text(fd, "x");
	close(fd);
	ck_assert_str_eq(told(0, ANY),
			 "server_bind server_activate serve_forever "
			 "get_request verify_request process_request "
			 "finish_request setup handle finish shutdown_request "
			 "close_request end_request service_actions");
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_str_eq(told(0, 0),
			 scene.transport->stream
				 ? "server_bind server_activate serve_forever "
				   "service_actions server_close "
				   "listener_close service_actions"
				 : "server_bind server_activate serve_forever "
				   "service_actions server_close "
				   "service_actions listener_close");
}
END_TEST

/* An idle server makes no turn; one that was shut down serves again. */
START_TEST(traces_serve_forever_twice)
{
	struct scene scene = { .model = &models[_i],
			       .transport = &transports[0] };
	struct ss_config config;
	struct ss_server *server = stage(&scene, &config);
	for (int i = 0; i < 2; i++) {
		ss_shutdown(server);
		ck_assert_int_eq(ss_serve_forever(server), 0);
	}
	ck_assert_str_eq(told('P', 0), "server_bind server_activate "
				       "serve_forever serve_forever");
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_str_eq(once(told('P', 0)),
			 "server_bind server_activate serve_forever "
			 "server_close listener_close service_actions");
}
END_TEST

START_TEST(traces_service_actions_once_a_turn)
{
	if (model_supervised(&models[_i]))
		return;
	struct scene scene = { .model = &models[_i],
			       .transport = &transports[0] };
	struct ss_config config;
	struct ss_server *server = stage(&scene, &config);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(ss_server_turn(server, 0), 0);
	ck_assert_str_eq(told(0, ANY), "server_bind server_activate "
				       "service_actions service_actions "
				       "service_actions");
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(traces_bind_and_activate_by_the_caller)
{
	struct scene scene = good_scene(&models[0], &transports[_i]);
	begin();
	struct ss_config config = config_for(&scene);
	config.no_bind = true;
	struct ss_server *server = made(&config);
	ck_assert_str_eq(told(0, ANY), "");
	ck_assert_int_eq(ss_server_activate(server, NULL), -EBADF);
	ck_assert_str_eq(told(0, ANY), "");
	ck_assert_int_eq(ss_server_bind(server, NULL), 0);
	ck_assert_str_eq(told(0, ANY), "server_bind");
	ck_assert_int_eq(ss_server_bind(server, NULL), -EINVAL);
	ck_assert_int_eq(ss_server_activate(server, NULL), 0);
	ck_assert_int_eq(ss_server_activate(server, NULL), -EBADF);
	ck_assert_str_eq(told(0, ANY), "server_bind server_activate");
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Never activated, or not even bound: closed all the same. */
START_TEST(traces_closed_before_it_served)
{
	struct scene scene = good_scene(&models[_i], &transports[0]);
	begin();
	struct ss_config config = config_for(&scene);
	config.no_bind = true;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_str_eq(told(0, ANY), "server_close service_actions");
	begin();
	server = made(&config);
	ck_assert_int_eq(ss_server_bind(server, NULL), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_str_eq(told(0, ANY), "server_bind server_close "
				       "listener_close service_actions");
}
END_TEST

/* One was bound already when the other one could not be. */
START_TEST(traces_a_failed_bind_closes_its_listeners)
{
	struct scene scene = { .model = &models[0],
			       .transport = &transports[0] };
	struct ss_config config;
	struct ss_server *first = stage(&scene, &config);
	char taken[SS_ADDRESS_TEXT];
	url_of(first, taken);
	begin();
	config.addresses[0] = "127.0.0.1:0";
	config.addresses[1] = taken;
	refused(&config, -EADDRINUSE, taken);
	ck_assert_str_eq(told(0, ANY), "server_bind listener_close");
	ck_assert_int_eq(ss_server_free(first), 0);
}
END_TEST

START_TEST(traces_every_listener_is_closed_once)
{
	struct scene scene = good_scene(&models[0], &transports[_i]);
	begin();
	char addresses[3][SS_ADDRESS_TEXT];
	struct ss_config config = config_for(&scene);
	for (int i = 0; i < 3; i++) {
		snprintf(addresses[i], sizeof(addresses[i]), "%s",
			 fresh_address(scene.transport));
		config.addresses[i] = addresses[i];
	}
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_server_listeners(server), 3);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_close(server), 0);
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_str_eq(told(0, ANY),
			 scene.transport->stream
				 ? "server_bind server_activate server_close "
				   "listener_close listener_close "
				   "listener_close service_actions"
				 : "server_bind server_activate server_close "
				   "service_actions listener_close "
				   "listener_close listener_close");
}
END_TEST

static int close_inside(struct ss_request *req)
{
	struct ss_server *server = ss_request_server(req);
	ck_assert_int_eq(ss_server_close(server), -EDEADLK);
	ck_assert_int_eq(ss_server_free(server), -EDEADLK);
	ck_assert_int_eq(ss_serve_forever(server), -EDEADLK);
	ck_assert_int_eq(ss_handle_request(server), -EDEADLK);
	ck_assert_int_eq(ss_server_turn(server, 0), -EDEADLK);
	ck_assert_int_eq(ss_shutdown_wait(server, ss_now(server)), -EDEADLK);
	return told_handle(req);
}

static const struct ss_handler close_handler = { .name = "close",
						 .handle = close_inside };

/* Refused from inside, and so not told either. */
START_TEST(traces_no_close_from_a_handler)
{
	struct scene scene = good_scene(&models[_i], &transports[0]);
	begin();
	struct ss_config config = config_for(&scene);
	config.handler = &close_handler;
	struct node node;
	node_start(&node, &config);
	visit(node.url, &scene);
	eventually(get(&seen->ends) == 1);
	ck_assert_int_eq(get(&seen->status), 0);
	ck_assert_int_eq(node_stop(&node), 0);
	/* A supervisor has nothing to wake for. */
	ck_assert_str_eq(once(told('P', 0)),
			 model_supervised(scene.model)
				 ? "server_bind server_activate serve_forever "
				   "server_close listener_close service_actions"
				 : "server_bind server_activate serve_forever "
				   "service_actions server_close "
				   "listener_close service_actions");
}
END_TEST

/* ---- handle_request -------------------------------------------------------*/

START_TEST(traces_handle_request)
{
	if (model_supervised(&models[_i / transport_count]))
		return;
	struct scene scene = { .model = &models[_i / transport_count],
			       .transport = &transports[_i % transport_count] };
	struct ss_config config;
	struct ss_server *server = stage(&scene, &config);
	char url[SS_ADDRESS_TEXT];
	url_of(server, url);
	int fd = dial(url);
	send_text(fd, "x");
	ck_assert_int_eq(ss_handle_request(server), 1);
	expect_text(fd, "x");
	close(fd);
	eventually(get(&seen->ends) == 1);
	ck_assert_str_eq(told('P', 0), "server_bind server_activate");
	check_trace(&scene);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

START_TEST(traces_handle_request_times_out)
{
	if (model_supervised(&models[_i / transport_count]))
		return;
	struct scene scene = good_scene(&models[_i / transport_count],
					&transports[_i % transport_count]);
	begin();
	struct ss_config config = config_for(&scene);
	config.timeout_ms = 20;
	struct ss_server *server = made(&config);
	int64_t began = clock_ms();
	ck_assert_int_eq(ss_handle_request(server), 0);
	ck_assert_int_ge(clock_ms() - began, 20);
	ck_assert_int_eq(ss_handle_request(server), 0);
	ss_shutdown(server);
	ck_assert_int_eq(ss_handle_request(server), -ECANCELED);
	ck_assert_str_eq(told(0, ANY), "server_bind server_activate "
				       "handle_timeout handle_timeout");
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* Where time stands still too. */
START_TEST(traces_handle_request_times_out_in_memory)
{
	struct scene scene = good_scene(&models[_i / 2], &memories[_i % 2]);
	if (!runs_in_memory(scene.model))
		return;
	begin();
	struct ss_config config = config_for(&scene);
	config.timeout_ms = 20;
	struct ss_server *server = made(&config);
	ck_assert_int_eq(ss_handle_request(server), 0);
	ck_assert_str_eq(told(0, ANY), "server_bind server_activate "
				       "handle_timeout");
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

enum { VISITS = 3 };

/* Leaves it to be reaped by who forked it. */
static void await_child(void)
{
	siginfo_t info;
	ck_assert_int_eq(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
	if (children() > get(&seen->most))
		atomic_store(&seen->most, children());
}

static int by_handle_request(struct ss_server *server)
{
	for (int i = 0; i < VISITS; i++) {
		await_client(server);
		ck_assert_int_eq(ss_handle_request(server), 1);
		await_child();
		ck_assert_int_eq(get(&seen->ends), i);
	}
	ck_assert_int_eq(ss_handle_request(server), 0);
	ck_assert_int_eq(get(&seen->ends), VISITS);
	ck_assert_int_eq(children(), 0);
	return 0;
}

static void call_handle_request_only(void)
{
	struct scene scene = good_scene(&models[2], &transports[0]);
	struct ss_config config = config_for(&scene);
	config.timeout_ms = 50;
	struct node node;
	node_run(&node, &config, by_handle_request);
	for (int i = 0; i < VISITS; i++)
		visit(node.url, &scene);
	ck_assert_int_eq(node_wait(&node), 0);
	ck_assert_int_eq(get(&seen->most), 1);
}

/* Each call reaps the child of the one before it. */
START_TEST(traces_handle_request_alone_reaps)
{
	begin();
	call_handle_request_only();
	static const char one[] = "get_request verify_request process_request "
				  "close_request end_request";
	char expected[512];
	snprintf(expected, sizeof(expected),
		 "server_bind server_activate %s %s %s handle_timeout "
		 "server_close listener_close service_actions",
		 one, one, one);
	ck_assert_str_eq(told('P', ANY), expected);
	for (int id = 1; id <= VISITS; id++)
		ck_assert_str_eq(told('C', id),
				 "finish_request setup handle finish "
				 "shutdown_request close_request");
}
END_TEST

/* Those that no descriptor could be had for are not forgotten. */
START_TEST(traces_handle_request_alone_reaps_the_unwatched)
{
	begin();
	sys_table.pidfd_open = one_pidfd;
	call_handle_request_only();
	for (int id = 1; id <= VISITS; id++)
		ck_assert_str_eq(told('P', id),
				 "get_request verify_request process_request "
				 "close_request end_request");
}
END_TEST

/* ---- what trace tells, and to whom ----------------------------------------*/

static void serve_one(const struct ss_trace_options *options, int log_level)
{
	struct scene scene = good_scene(&models[0], &transports[0]);
	struct ss_config config = config_with(&scene, options);
	config.log_level = log_level;
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT];
	url_of(server, url);
	int fd = dial(url);
	send_text(fd, "x");
	ck_assert_int_eq(ss_server_turn(server, SS_NONE), 1);
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
}

START_TEST(traces_only_the_kinds_asked_for)
{
	begin();
	struct ss_trace_options options = { .tell = tell, .arg = tape };
	options.kinds = SS_TRACE_SERVER;
	serve_one(&options, 0);
	ck_assert_str_eq(once(told(0, ANY)),
			 "server_bind server_activate service_actions "
			 "server_close listener_close service_actions");
	begin();
	options.kinds = SS_TRACE_REQUEST;
	serve_one(&options, 0);
	ck_assert_str_eq(told(0, ANY),
			 "get_request verify_request process_request "
			 "finish_request setup handle finish shutdown_request "
			 "close_request end_request");
	begin();
	options.kinds = SS_TRACE_WAITS;
	serve_one(&options, 0);
	ck_assert_str_eq(once(told(0, 1)), "");
	ck_assert_ptr_nonnull(strstr(told(0, 0), "now"));
	ck_assert_ptr_nonnull(strstr(told(0, 0), "forget"));
	ck_assert_ptr_null(strstr(told(0, 0), "server"));
}
END_TEST

static int add_one(void *arg)
{
	return ++*(int *)arg;
}

static int offload_once(struct ss_request *req)
{
	int number = 7;
	return ss_offload(req, add_one, &number) == 8 ? 0 : -EPROTO;
}

static const struct ss_handler offloading = { .name = "offloading",
					      .handle = offload_once,
					      .speaks_first = true };

START_TEST(traces_calls_that_are_offloaded)
{
	begin();
	struct ss_trace_options options = { .tell = tell,
					    .arg = tape,
					    .kinds = SS_TRACE_WAITS |
						     SS_TRACE_REQUEST };
	struct ss_config config = { .addresses = { fresh_address(
					    &transports[0]) },
				    .handler = &offloading };
	char url[SS_ADDRESS_TEXT];
	use_model(&config, &models[_i]);
	use_first(&config, &ss_trace_mixin, &options);
	if (model_supervised(&models[_i]) ||
	    model_has(&models[_i], &ss_forking_mixin))
		return;
	struct ss_server *server = made(&config);
	url_of(server, url);
	int fd = dial(url);
	ck_assert_int_eq(ss_handle_request(server), 1);
	expect_end(fd);
	close(fd);
	ck_assert_int_eq(ss_server_free(server), 0);
	const char *all = told(0, 1);
	const char *handle = strstr(all, "handle ");
	ck_assert_msg(handle && strstr(handle, "offload ") &&
			      strstr(strstr(handle, "offload "), "finish "),
		      "%s", all);
}
END_TEST

/* Where serve_forever is not called. */
START_TEST(traces_turns_beside_other_servers)
{
	begin();
	struct ss_trace_options options = { .tell = tell,
					    .arg = tape,
					    .kinds = SS_TRACE_SERVER };
	struct ss_config config = { .addresses = { fresh_address(
					    &transports[0]) },
				    .handler = &offloading };
	struct ss_server *servers[2];
	servers[1] = made(&config);
	use_first(&config, &ss_trace_mixin, &options);
	servers[0] = made(&config);
	ss_shutdown(servers[0]);
	ss_shutdown(servers[1]);
	ck_assert_int_eq(ss_serve(servers, 2), 0);
	ck_assert_int_eq(ss_server_free(servers[0]), 0);
	ck_assert_int_eq(ss_server_free(servers[1]), 0);
	ck_assert_str_eq(once(told(0, ANY)),
			 "server_bind server_activate serve_turn "
			 "server_close listener_close service_actions");
}
END_TEST

/* By default the log, at the level of debugging, under the request's id. */
START_TEST(traces_to_the_log)
{
	begin();
	serve_one(NULL, SS_LOG_DEBUG);
	ck_assert_int_eq(tape_find(logged, "4 0 server_bind"), 0);
	ck_assert_int_eq(tape_find(logged, "4 0 server_activate"), 1);
	ck_assert_int_eq(tape_find(logged, "4 1 get_request"), 2);
	ck_assert_int_ge(tape_find(logged, "4 1 end_request"), 3);
	begin();
	serve_one(NULL, 0);
	ck_assert_int_eq(get(&seen->logged), 0);
}
END_TEST

Suite *t_traces(void)
{
	Suite *suite = suite_create("t_traces");
	TCase *golden = tcase_create("golden");
	suite_add_tcase(suite, golden);
	tcase_set_timeout(golden, 30);
	tcase_add_loop_test(golden, traces_golden, 0,
			    model_count * transport_count);
	tcase_add_loop_test(golden, traces_golden_in_memory, 0,
			    2 * model_count);
	tcase_add_loop_test(golden, traces_again_tells_handle_again, 0,
			    model_count);
	tcase_add_loop_test(golden, traces_of_many_requests_are_each_whole, 0,
			    model_count);

	TCase *server = tcase_create("server");
	suite_add_tcase(suite, server);
	tcase_set_timeout(server, 20);
	tcase_add_loop_test(server, traces_server_from_bind_to_close, 0,
			    transport_count);
	tcase_add_loop_test(server, traces_serve_forever_twice, 0, model_count);
	tcase_add_loop_test(server, traces_service_actions_once_a_turn, 0,
			    model_count);
	tcase_add_loop_test(server, traces_bind_and_activate_by_the_caller, 0,
			    transport_count);
	tcase_add_loop_test(server, traces_closed_before_it_served, 0,
			    model_count);
	tcase_add_test(server, traces_a_failed_bind_closes_its_listeners);
	tcase_add_loop_test(server, traces_every_listener_is_closed_once, 0,
			    transport_count);
	tcase_add_loop_test(server, traces_no_close_from_a_handler, 0,
			    model_count);

	TCase *handle = tcase_create("handle_request");
	suite_add_tcase(suite, handle);
	tcase_set_timeout(handle, 20);
	tcase_add_loop_test(handle, traces_handle_request, 0,
			    2 * transport_count);
	tcase_add_loop_test(handle, traces_handle_request_times_out, 0,
			    model_count * transport_count);
	tcase_add_loop_test(handle, traces_handle_request_times_out_in_memory,
			    0, 2 * model_count);
	tcase_add_test(handle, traces_handle_request_alone_reaps);
	tcase_add_test(handle, traces_handle_request_alone_reaps_the_unwatched);

	TCase *kinds = tcase_create("kinds");
	suite_add_tcase(suite, kinds);
	tcase_set_timeout(kinds, 20);
	tcase_add_loop_test(kinds, traces_calls_that_are_offloaded, 0,
			    model_count);
	tcase_add_test(kinds, traces_turns_beside_other_servers);
	tcase_add_test(kinds, traces_only_the_kinds_asked_for);
	tcase_add_test(kinds, traces_to_the_log);
	return suite;
}
