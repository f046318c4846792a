/*
 * Whatever fails, fails for as little as it must: every call of the library
 * that can fail, fails in turn, from the making of a server to its end, in
 * every model and transport.  After each there is an error that says why, or a
 * server that serves the next client; and nothing is left (PROMISES 1, 2, 8).
 */
#include "support.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <socketserver/fault.h>

#include "handlers.h"

#ifdef __SANITIZE_ADDRESS__
#define HAS_LEAK_CHECK 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_LEAK_CHECK 1
#endif
#endif
#ifdef HAS_LEAK_CHECK
#include <sanitizer/lsan_interface.h>
#endif

enum { LINES_MAX = 40, FAULT_MS = 20, SOME = 11 };

/* What a server's process says of itself as it ends. */
enum verdict {
	GOOD,
	NO_SERVER, /* and why */
	NO_REASON,
	LEFT, /* and what */
	LEFT_MEMORY,
	NOT_SERVED,
	NOT_FREED,
	ABANDONED,
	VERDICTS
};
static const char *const verdicts[VERDICTS] = {
	"good",
	"no server",
	"no server, and no reason",
	"something is left",
	"memory is left",
	"ss_serve_forever failed",
	"ss_server_free failed",
	"requests were abandoned",
};

/* What a client says, and how the answer begins. */
struct speech {
	const struct ss_handler *handler;
	void *user;
	const char *say, *answer;
	const char *excuse; /* the same where a call has failed; or NULL */
};

struct scene {
	const struct model *model;
	const struct transport *transport;
	bool guarded;	 /* by all guards that there are */
	bool at_the_end; /* the faults are those of its stopping */
	struct speech speech;
};

/* Of a run, in shared memory. */
static struct {
	atomic_int lines; /* of the log */
	struct ss_diag left;
} * told;

static void count_line(void *arg, int level, struct ss_server *server,
		       uint64_t id, const char *text)
{
	(void)arg, (void)level, (void)server, (void)id, (void)text;
	atomic_fetch_add(&told->lines, 1);
}

static int echo(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler echoing = { .name = "echoing", .handle = echo };

/* ---- the server's process -------------------------------------------------*/

static struct ss_server *living;

static void on_term(int signal)
{
	(void)signal;
	ss_shutdown(living);
}

static enum verdict left(const struct ss_fault_state *before)
{
	if (ss_fault_left(before, &told->left) < 0)
		return LEFT;
#ifdef HAS_LEAK_CHECK
	if (__lsan_do_recoverable_leak_check())
		return LEFT_MEMORY;
#endif
	return GOOD;
}

static enum verdict refused_well(int r, const struct ss_diag *why,
				 const struct ss_fault_state *before)
{
	ss_fault_disarm();
	enum verdict verdict = left(before);
	if (verdict != GOOD)
		return verdict;
	return living == NULL && why->code == r && why->text[0] ? NO_SERVER
								: NO_REASON;
}

static enum verdict live(const struct scene *scene,
			 const struct ss_config *config, int to)
{
	struct ss_fault_state before;
	char url[SS_ADDRESS_TEXT];
	struct ss_diag why = { 0 };
	ss_fault_look(&before);
	if (!scene->at_the_end)
		ss_fault_arm();
	int r = ss_server_new(&living, config, &why);
	if (r < 0)
		return refused_well(r, &why, &before);
	signal(SIGTERM, on_term);
	ss_server_url(living, 0, url, sizeof(url));
	dprintf(to, "%s\n", url);
	r = ss_serve_forever(living);
	int abandoned = ss_server_close(living);
	signal(SIGTERM, SIG_IGN);
	int freed = ss_server_free(living);
	ss_fault_disarm();
	if (r < 0)
		return NOT_SERVED;
	if (abandoned != 0)
		return ABANDONED;
	return freed < 0 ? NOT_FREED : left(&before);
}

/* ---- its clients ----------------------------------------------------------*/

static void says(int fd, const struct speech *speech)
{
	(void)!send(fd, speech->say, strlen(speech->say), MSG_NOSIGNAL);
}

/* All of it that is to come, or less where it was cut short. */
static bool hears(int fd, const struct speech *speech, int ms)
{
	char got[64] = "";
	size_t n = 0, length = strlen(speech->answer);
	ssize_t r = 1;
	while (r > 0 && n < length) {
		r = recv_within(fd, got + n, sizeof(got) - 1 - n, ms);
		if (r > 0)
			n += (size_t)r;
	}
	/* What shows something goes on beyond that, an echo does not. */
	size_t said = n > length && speech->user ? length : n;
	bool right = said <= length && !memcmp(got, speech->answer, said);
	bool excused = speech->excuse && ss_fault_struck(NULL) &&
		       strncmp(got, speech->excuse, said) == 0;
	ck_assert_msg(right || excused, "%s: \"%s\"", ss_fault_tell(), got);
	return right && said == length;
}

/* Who came while it failed is served, or sent away; a datagram may be lost. */
static void meet_fault(const char *url, const struct scene *scene)
{
	int fd = try_dial(url);
	if (fd < 0)
		return;
	says(fd, &scene->speech);
	struct pollfd answer = { .fd = fd, .events = POLLIN };
	poll(&answer, 1, FAULT_MS);
	ss_fault_disarm();
	if (scene->transport->stream)
		ck_assert_msg(poll(&answer, 1, WAIT_MS) == 1,
			      "%s: its client waits for ever", ss_fault_tell());
	hears(fd, &scene->speech, 0);
	close(fd);
}

/* When it is over, all is as if it had not been. */
static void meet_no_fault(const char *url, const struct scene *scene)
{
	ss_fault_disarm();
	int fd = try_dial(url);
	ck_assert_msg(fd >= 0, "%s: nobody listens then", ss_fault_tell());
	says(fd, &scene->speech);
	ck_assert_msg(hears(fd, &scene->speech, WAIT_MS),
		      "%s: the next is not served", ss_fault_tell());
	close(fd);
}

/* ---- a run ----------------------------------------------------------------*/

/* Its URL; false: it has ended. */
static bool started(int from, char *url, size_t size)
{
	size_t n = 0;
	while (n < size - 1 && read(from, url + n, 1) == 1 && url[n] != '\n')
		n++;
	url[n] = '\0';
	return n > 0;
}

static enum verdict verdict_of(pid_t pid)
{
	int status = 0;
	int64_t until = clock_ms() + 3 * WAIT_MS;
	pid_t ended;
	while ((ended = waitpid(pid, &status, WNOHANG)) == 0 &&
	       clock_ms() < until)
		pause_ms(1);
	if (ended == 0) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) < VERDICTS,
		      "%s: %s, status %#x", ss_fault_tell(),
		      ended ? "it died" : "it does not end", (unsigned)status);
	return (enum verdict)WEXITSTATUS(status);
}

static void meet_its_end(const char *url, pid_t pid, const struct scene *scene)
{
	int fd = try_dial(url);
	ck_assert_int_ge(fd, 0);
	says(fd, &scene->speech);
	ck_assert(hears(fd, &scene->speech, WAIT_MS));
	ss_fault_arm();
	kill(pid, SIGTERM);
	struct pollfd end = { .fd = fd, .events = POLLIN };
	if (scene->transport->stream)
		ck_assert_msg(poll(&end, 1, WAIT_MS) == 1,
			      "%s: its client was forgotten", ss_fault_tell());
	close(fd);
}

static void meet(const struct scene *scene, const char *url, pid_t pid)
{
	if (scene->at_the_end) {
		meet_its_end(url, pid, scene);
		return;
	}
	meet_fault(url, scene);
	meet_no_fault(url, scene);
	kill(pid, SIGTERM);
}

/* Every client passes, and each guard has to do. */
static void guard(struct ss_config *config)
{
	static const struct ss_proxy_options proxy = { .trusted = "127.0.0.0/8",
						       .optional = true };
	static const struct ss_access_options access = {
		.allow = "127.0.0.0/8",
	};
	static const struct ss_limits_options limits = { .max_per_source = 100,
							 .rate = 10000 };
	use_first(config, &ss_limits_mixin, &limits);
	use_first(config, &ss_access_mixin, &access);
	use_first(config, &ss_metrics_mixin, NULL);
	use_first(config, &ss_proxy_mixin, &proxy);
}

static int run_scene(void *arg, struct ss_diag *why)
{
	(void)why;
	const struct scene *scene = arg;
	struct ss_config config = config_of(scene->model, scene->transport,
					    scene->speech.handler);
	config.user = scene->speech.user;
	if (scene->guarded)
		guard(&config);
	config.log = count_line;
	config.log_level = SS_LOG_INFO;
	config.drain_ms = 1000;
	atomic_store(&told->lines, 0);
	told->left.text[0] = '\0';
	int fds[2];
	char url[SS_ADDRESS_TEXT];
	ck_assert_int_eq(pipe(fds), 0);
	pid_t pid = fork();
	ck_assert_int_ne(pid, -1);
	if (pid == 0) {
		close(fds[0]);
		exit(live(scene, &config, fds[1]));
	}
	close(fds[1]);
	bool lives = started(fds[0], url, sizeof(url));
	if (lives)
		meet(scene, url, pid);
	enum verdict verdict = verdict_of(pid);
	ck_assert_msg(verdict == (lives ? GOOD : NO_SERVER), "%s: %s %s",
		      ss_fault_tell(), verdicts[verdict], told->left.text);
	ck_assert_msg(atomic_load(&told->lines) <= LINES_MAX,
		      "%s: %d lines of log", ss_fault_tell(),
		      atomic_load(&told->lines));
	close(fds[0]);
	return 0;
}

static struct scene scene_of(int which)
{
	return (struct scene){
		.speech = { &echoing, NULL, "x", "x", NULL },
		.model = &models[which / transport_count],
		.transport = &transports[which % transport_count],
	};
}

/* All calls, or some that are others in each scene. */
static void sweep_scene(struct scene *scene, int which)
{
	int stride = rounds(1) > 1 ? 1 : SOME;
	const struct ss_fault_options options = {
		.first = 1 + which % stride,
		.stride = stride,
		.unarmed = true,
		.elsewhere = true,
	};
	struct ss_diag why;
	told = ss_shared_alloc(sizeof(*told));
	ck_assert_ptr_nonnull(told);
	int faults = ss_fault_sweep(&options, run_scene, scene, &why);
	ck_assert_msg(faults > 0, "%s", why.text);
}

START_TEST(servers_bear_every_fault)
{
	struct scene scene = scene_of(_i);
	sweep_scene(&scene, _i);
}
END_TEST

START_TEST(servers_end_whatever_fails)
{
	struct scene scene = scene_of(_i);
	scene.at_the_end = true;
	sweep_scene(&scene, _i);
}
END_TEST

/* TCP: the one that every guard is for. */
START_TEST(guards_bear_every_fault)
{
	struct scene scene = scene_of(_i * transport_count);
	scene.guarded = true;
	sweep_scene(&scene, _i);
}
END_TEST

/* And each has work: clients that the balancer brings, who are counted by
 * their own address. */
START_TEST(a_balancers_clients_bear_every_fault)
{
	struct scene scene = scene_of(_i * transport_count);
	scene.guarded = true;
	scene.speech.say = "PROXY TCP4 127.0.0.9 127.0.0.1 1000 7\r\nx";
	sweep_scene(&scene, _i);
}
END_TEST

static struct ss_control control = { .servers = &living, .count = 1 };
static struct ss_metrics_page page = { .servers = &living, .count = 1 };
static const struct speech speeches[] = {
	{ &ss_control_handler, &control, "list\n", "SERVER ID ",
	  "error: only" },
	{ &ss_control_handler, &control, "stats\n", "0 accepted ",
	  "error: only" },
	{ &ss_metrics_handler, &page, "GET /metrics HTTP/1.0\r\n\r\n",
	  "HTTP/1.1 200 OK", NULL },
	{ &ss_metrics_handler, &page, "GET / HTTP/1.0\r\n\r\n",
	  "HTTP/1.1 200 OK", NULL },
};
enum { SPEECHES = sizeof(speeches) / sizeof(*speeches) };

/* Over a Unix socket, on one loop, as a program has them. */
START_TEST(what_shows_and_controls_bears_every_fault)
{
	struct scene scene = {
		.model = &models[model_count - 1],
		.transport = &transports[2],
		.speech = speeches[_i],
	};
	sweep_scene(&scene, _i);
}
END_TEST

Suite *t_faults(void)
{
	Suite *suite = suite_create("t_faults");
	int scenes = model_count * transport_count;
	TCase *faults = suite_case(suite, "faults", NULL, NULL);
	tcase_set_timeout(faults, 600);
	tcase_add_loop_test(faults, servers_bear_every_fault, 0, scenes);
	tcase_add_loop_test(faults, servers_end_whatever_fails, 0, scenes);
	tcase_add_loop_test(faults, guards_bear_every_fault, 0, model_count);
	TCase *daemons = suite_case(suite, "daemons", NULL, NULL);
	tcase_set_timeout(daemons, 600);
	tcase_add_loop_test(daemons, a_balancers_clients_bear_every_fault, 0,
			    model_count);
	tcase_add_loop_test(daemons, what_shows_and_controls_bears_every_fault,
			    0, SPEECHES);
	return suite;
}
