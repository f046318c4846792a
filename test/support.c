/* What the suites share; support.h says what it promises. */
#include "support.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <malloc.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>

#ifdef SYS_TSAN
/*
 * Where standard error is closed while the server runs, what is accepted can be
 * descriptor 2 for a moment, when the log looks whether that is still the
 * program's (lib/log.c): this one use of a number by two is meant.
 */
__attribute__((visibility("default"))) const char *
__tsan_default_suppressions(void)
{
	return "race:may_write\n";
}
#endif

int rounds(int quick)
{
	return getenv("SS_LONG") ? 50 * quick : quick;
}

TCase *suite_case(Suite *suite, const char *name, void (*set_up)(void),
		  void (*tear_down)(void))
{
	TCase *tcase = tcase_create(name);
	suite_add_tcase(suite, tcase);
	if (set_up || tear_down)
		tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_set_timeout(tcase, 20);
	return tcase;
}

static void *nothing(void *arg)
{
	return arg;
}

void begin_threads(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, nothing, NULL) == 0)
		pthread_join(thread, NULL);
}

/* ---- every model, every transport -----------------------------------------*/

/* With one worker a client finds what the one before it left, as elsewhere;
 * t_prefork has more. */
static const struct ss_prefork_options one = { .workers = 1 };
static const struct ss_fiber_options one_loop = { .loops = 1 };

const struct model models[] = {
	{ "sync", { { NULL, NULL } }, 1 },
	{ "threading", { { &ss_threading_mixin, NULL } }, 0 },
	{ "forking", { { &ss_forking_mixin, NULL } }, 0 },
	{ "pool", { { &ss_pool_mixin, NULL } }, 8 },
	{ "fiber", { { &ss_fiber_mixin, NULL } }, 0 },
	{ "prefork", { { &ss_prefork_mixin, &one } }, 1 },
	{ "prefork:threading",
	  { { &ss_prefork_mixin, &one }, { &ss_threading_mixin, NULL } },
	  0 },
	{ "prefork:pool",
	  { { &ss_prefork_mixin, &one }, { &ss_pool_mixin, NULL } },
	  8 },
	{ "prefork:fiber",
	  { { &ss_prefork_mixin, &one }, { &ss_fiber_mixin, NULL } },
	  0 },
	{ "fiber, one loop", { { &ss_fiber_mixin, &one_loop } }, 0 },
};
const int model_count = sizeof(models) / sizeof(*models);
const int plain_count = sizeof(models) / sizeof(*models) - 1;

bool model_sync(const struct model *model)
{
	for (const struct ss_use *use = model->mixins; use->layer; use++)
		if (use->layer->flags & SS_LAYER_DISPATCHES)
			return false;
	return true;
}

bool model_has(const struct model *model, const struct ss_layer *mixin)
{
	for (const struct ss_use *use = model->mixins; use->layer; use++)
		if (use->layer == mixin)
			return true;
	return false;
}

bool model_supervised(const struct model *model)
{
	return model_has(model, &ss_prefork_mixin);
}

const char *model_described(const struct model *model,
			    const struct transport *transport)
{
	static char text[200];
	size_t used = (size_t)snprintf(text, sizeof(text), "%s",
				       stack_described(transport->layer));
	for (const struct ss_use *use = model->mixins; use->layer; use++)
		used += (size_t)snprintf(text + used, sizeof(text) - used,
					 "%s > ", use->layer->name);
	snprintf(text + used, sizeof(text) - used, "%s > base",
		 transport->layer->name);
	return text;
}

void use_first(struct ss_config *config, const struct ss_layer *layer,
	       const void *options)
{
	memmove(config->mixins + 1, config->mixins,
		(SS_MIXINS_MAX - 1) * sizeof(*config->mixins));
	config->mixins[0] = (struct ss_use){ layer, options };
}

void use_last(struct ss_config *config, const struct ss_layer *layer,
	      const void *options)
{
	struct ss_use *at = config->mixins;
	while (at->layer)
		at++;
	*at = (struct ss_use){ layer, options };
}

void use_options(struct ss_config *config, const struct ss_layer *layer,
		 const void *options)
{
	for (struct ss_use *use = config->mixins; use->layer; use++)
		if (use->layer == layer)
			use->options = options;
}

void use_model(struct ss_config *config, const struct model *model)
{
	for (const struct ss_use *use = model->mixins; use->layer; use++)
		use_last(config, use->layer, use->options);
}

const struct transport transports[] = {
	{ "tcp", &ss_tcp_server, true },
	{ "udp", &ss_udp_server, false },
	{ "unix", &ss_unix_stream_server, true },
	{ "unixgram", &ss_unix_datagram_server, false },
};
const int transport_count = sizeof(transports) / sizeof(*transports);

static char scratch_dir[64];
static pid_t scratch_owner;

static void remove_scratch(void)
{
	if (getpid() != scratch_owner)
		return;
	DIR *dir = opendir(scratch_dir);
	struct dirent *entry;
	while (dir && (entry = readdir(dir))) {
		char path[sizeof(scratch_dir) + sizeof(entry->d_name) + 1];
		snprintf(path, sizeof(path), "%s/%s", scratch_dir,
			 entry->d_name);
		if (entry->d_name[0] != '.')
			unlink(path);
	}
	if (dir)
		closedir(dir);
	rmdir(scratch_dir);
}

const char *scratch(void)
{
	if (scratch_owner != getpid()) {
		snprintf(scratch_dir, sizeof(scratch_dir), "/tmp/ss-XXXXXX");
		ck_assert_ptr_nonnull(mkdtemp(scratch_dir));
		scratch_owner = getpid();
		atexit(remove_scratch);
	}
	return scratch_dir;
}

/* Of this process alone: a port that it gives back is given to nobody else
 * meanwhile, where suites share a network. */
static const char *own_host(void)
{
	static char text[INET_ADDRSTRLEN];
	unsigned pid = (unsigned)getpid();
	snprintf(text, sizeof(text), "127.%u.%u.%u", 1 + (pid >> 16 & 0x7f),
		 pid >> 8 & 0xff, pid & 0xff);
	return text;
}

const char *fresh_address(const struct transport *transport)
{
	static char text[SS_ADDRESS_TEXT];
	static int number;
	if (transport->layer->flags & SS_LAYER_UNIX)
		snprintf(text, sizeof(text), "%s:%s/s%d", transport->name,
			 scratch(), number++);
	else
		snprintf(text, sizeof(text), "%s://%s:0", transport->name,
			 own_host());
	return text;
}

bool on_serving_thread(const struct model *model,
		       const struct transport *transport)
{
	if (!model_has(model, &ss_fiber_mixin))
		return model_sync(model);
	if (model_supervised(model) || sys_processors() == 1)
		return true;
	return model->mixins[0].options ||
	       !(transport->layer->flags & SS_LAYER_SOCKET);
}

struct ss_config config_of(const struct model *model,
			   const struct transport *transport,
			   const struct ss_handler *handler)
{
	struct ss_config config = {
		.addresses = { fresh_address(transport) },
		.transport = transport->layer,
		.handler = handler,
	};
	use_model(&config, model);
	return config;
}

/* ---- a server in a process of its own -------------------------------------*/

static struct ss_server *node_server;

static void on_term(int signal)
{
	(void)signal;
	ss_shutdown(node_server);
}

static void tell_url(struct ss_server *server, int to)
{
	char line[SS_ADDRESS_TEXT];
	if (!ss_server_url(server, 0, line, sizeof(line) - 1))
		line[0] = '\0';
	strncat(line, "\n", sizeof(line) - strlen(line) - 1);
	ck_assert_int_eq(write(to, line, strlen(line)), (ssize_t)strlen(line));
}

/* A thread that was joined may be listed for a moment more; the thread
 * sanitizer has one of its own once there was any. */
bool threads_back(int running)
{
#ifdef SYS_TSAN
	running++;
#endif
	int64_t until = clock_ms() + 1000;
	while (threads() > running && clock_ms() < until)
		pause_ms(1);
	return threads() <= running;
}

static _Noreturn void live(const struct ss_config *config, int to,
			   int (*body)(struct ss_server *))
{
	int descriptors = open_descriptors(), running = threads();
	struct ss_diag why;
	if (ss_server_new(&node_server, config, &why) < 0) {
		fprintf(stderr, "a test's server: %s\n", why.text);
		_exit(2);
	}
	struct sigaction action = { .sa_handler = on_term };
	sigaction(SIGTERM, &action, NULL);
	tell_url(node_server, to);
	int r = body(node_server);
	int abandoned = ss_server_close(node_server);
	if (abandoned != 0)
		_exit(4);
	/* A signal that comes late finds no server. */
	signal(SIGTERM, SIG_IGN);
	int freed = ss_server_free(node_server);
	bool back = open_descriptors() == descriptors &&
		    threads_back(running) && children() == 0;
	if (r < 0 || freed < 0)
		fprintf(stderr, "a test's server: %d, %d\n", r, freed);
	exit(r < 0 || freed < 0 ? 5 : back ? 0 : 3);
}

static void read_url(struct node *node)
{
	size_t n = 0;
	while (n < sizeof(node->url) - 1) {
		struct pollfd fd = { .fd = node->lines, .events = POLLIN };
		ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
		ssize_t r = read(node->lines, node->url + n, 1);
		ck_assert_msg(r == 1, "the server did not start");
		if (node->url[n] == '\n')
			break;
		n++;
	}
	node->url[n] = '\0';
}

void node_run(struct node *node, const struct ss_config *config,
	      int (*body)(struct ss_server *server))
{
	int fds[2];
	ck_assert_int_eq(pipe(fds), 0);
	fflush(NULL);
	node->pid = fork();
	ck_assert_int_ne(node->pid, -1);
	if (node->pid == 0) {
		close(fds[0]);
		live(config, fds[1], body);
	}
	close(fds[1]);
	node->lines = fds[0];
	read_url(node);
}

void node_start(struct node *node, const struct ss_config *config)
{
	node_run(node, config, ss_serve_forever);
}

/* Its own drain deadline is 10 s; a test that needs more is wrong. */
int node_wait(struct node *node)
{
	int status = 0;
	int64_t until = clock_ms() + 3 * WAIT_MS;
	pid_t pid;
	while ((pid = waitpid(node->pid, &status, WNOHANG)) == 0 &&
	       clock_ms() < until)
		pause_ms(2);
	if (pid == 0) {
		kill(node->pid, SIGKILL);
		waitpid(node->pid, &status, 0);
		ck_abort_msg("the server did not end");
	}
	close(node->lines);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status)
				   : WEXITSTATUS(status);
}

int node_stop(struct node *node)
{
	kill(node->pid, SIGTERM);
	return node_wait(node);
}

/* ---- a server in a thread of this process ---------------------------------*/

struct ss_server *made(const struct ss_config *config)
{
	struct ss_server *server;
	struct ss_diag why;
	int r = ss_server_new(&server, config, &why);
	ck_assert_msg(r == 0, "ss_server_new: %d, %s", r, why.text);
	ck_assert_ptr_nonnull(server);
	return server;
}

void refused(const struct ss_config *config, int code, const char *part)
{
	struct ss_server *server = (struct ss_server *)&code;
	struct ss_diag why;
	int descriptors = open_descriptors();
	int r = ss_server_new(&server, config, &why);
	ck_assert_int_eq(r, code);
	ck_assert_int_eq(why.code, code);
	ck_assert_ptr_null(server);
	ck_assert_msg(strstr(why.text, part) != NULL, "\"%s\" lacks \"%s\"",
		      why.text, part);
	ck_assert_int_eq(open_descriptors(), descriptors);
}

static void *serve(void *arg)
{
	struct served *served = arg;
	served->result = ss_serve_forever(served->server);
	return NULL;
}

void *serve_one_request(void *arg)
{
	struct served *served = arg;
	while ((served->result = ss_handle_request(served->server)) == -EBUSY)
		pause_ms(1);
	return NULL;
}

void await_client(struct ss_server *server)
{
	struct pollfd fd = { .fd = ss_server_fileno(server, 0),
			     .events = POLLIN };
	while (poll(&fd, 1, WAIT_MS) == -1 && errno == EINTR)
		;
}

void served_start(struct served *served, const struct ss_config *config)
{
	served->server = made(config);
	if (!ss_server_url(served->server, 0, served->url, sizeof(served->url)))
		served->url[0] = '\0';
	ck_assert_int_eq(pthread_create(&served->thread, NULL, serve, served),
			 0);
}

void served_stop(struct served *served)
{
	ss_shutdown(served->server);
	ck_assert_int_eq(pthread_join(served->thread, NULL), 0);
	ck_assert_int_eq(served->result, 0);
	ck_assert_int_eq(ss_server_close(served->server), 0);
	ck_assert_int_eq(ss_server_free(served->server), 0);
}

/* ---- clients --------------------------------------------------------------*/

static int type_of(const struct ss_endpoint *endpoint)
{
	return endpoint->scheme == SS_SCHEME_UDP ||
			       endpoint->scheme == SS_SCHEME_UNIXGRAM
		       ? SOCK_DGRAM
		       : SOCK_STREAM;
}

bool exposed(void)
{
	struct ifaddrs *all = NULL;
	bool outside = getifaddrs(&all) == -1;
	for (const struct ifaddrs *each = all; each; each = each->ifa_next)
		outside |= (each->ifa_flags & IFF_UP) &&
			   !(each->ifa_flags & IFF_LOOPBACK);
	freeifaddrs(all);
	return outside;
}

/* As a balancer does, of the addresses that the connection has anyway. */
static void send_header(int fd)
{
	struct sockaddr_in from, to;
	socklen_t len = sizeof(from);
	char source[INET_ADDRSTRLEN], line[108] = "PROXY UNKNOWN\r\n";
	getsockname(fd, (struct sockaddr *)&from, &len);
	len = sizeof(to);
	getpeername(fd, (struct sockaddr *)&to, &len);
	if (from.sin_family == AF_INET) {
		inet_ntop(AF_INET, &from.sin_addr, source, sizeof(source));
		int n = snprintf(line, sizeof(line), "PROXY TCP4 %s ", source);
		inet_ntop(AF_INET, &to.sin_addr, source, sizeof(source));
		snprintf(line + n, sizeof(line) - (size_t)n, "%s %d %d\r\n",
			 source, ntohs(from.sin_port), ntohs(to.sin_port));
	}
	send(fd, line, strlen(line), MSG_NOSIGNAL);
}

int try_dial(const char *url)
{
	struct ss_endpoint to;
	struct ss_diag why;
	ck_assert_msg(ss_resolve(url, SS_SCHEME_ANY, &to, 1, &why) >= 1, "%s",
		      why.text);
	int fd = socket(to.address.u.sa.sa_family, type_of(&to) | SOCK_CLOEXEC,
			0);
	ck_assert_int_ge(fd, 0);
	/* Autobind gives it an abstract name (unix(7)). */
	sa_family_t unnamed = AF_UNIX;
	if (to.scheme == SS_SCHEME_UNIXGRAM)
		ck_assert_int_eq(
			bind(fd, (struct sockaddr *)&unnamed, sizeof(unnamed)),
			0);
	struct timeval patience = { .tv_sec = WAIT_MS / 1000 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, &to.address.u.sa, to.address.len) == 0) {
		if (stack_has(&ss_proxy_mixin) && type_of(&to) == SOCK_STREAM)
			send_header(fd);
		return fd;
	}
	int error = errno;
	close(fd);
	return -error;
}

int dial(const char *url)
{
	int fd = try_dial(url);
	ck_assert_msg(fd >= 0, "connect to %s: %s", url, strerror(-fd));
	return fd;
}

void send_bytes(int fd, const void *data, size_t n)
{
	size_t sent = 0;
	do {
		ssize_t r = send(fd, (const char *)data + sent, n - sent,
				 MSG_NOSIGNAL);
		ck_assert_msg(r >= 0, "send: %s", strerror(errno));
		sent += (size_t)r;
	} while (sent < n);
}

void send_text(int fd, const char *text)
{
	send_bytes(fd, text, strlen(text));
}

void expect_bytes(int fd, void *buf, size_t n)
{
	size_t got = 0;
	while (got < n) {
		ssize_t r = recv(fd, (char *)buf + got, n - got, 0);
		ck_assert_msg(r > 0, "after %zu of %zu bytes: %s", got, n,
			      r ? strerror(errno) : "end of file");
		got += (size_t)r;
	}
}

void expect_text(int fd, const char *text)
{
	char got[8192];
	size_t n = strlen(text);
	ck_assert_uint_lt(n, sizeof(got));
	expect_bytes(fd, got, n);
	got[n] = '\0';
	ck_assert_str_eq(got, text);
}

ssize_t recv_within(int fd, void *buf, size_t n, int ms)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	if (poll(&pollfd, 1, ms) != 1)
		return -EAGAIN;
	ssize_t r = recv(fd, buf, n, 0);
	return r == -1 ? -errno : r;
}

void expect_end(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
	bool dgram = type == SOCK_DGRAM;
	char byte;
	ssize_t r = recv_within(fd, &byte, 1, dgram ? 100 : WAIT_MS);
	ck_assert_int_eq(r, dgram ? -EAGAIN : 0);
}

void echo_once(const char *url, const char *text)
{
	int fd = dial(url);
	send_text(fd, text);
	expect_text(fd, text);
	close(fd);
}

/* ---- a tape in shared memory ----------------------------------------------*/

struct tape *tape_new(void)
{
	struct tape *tape = ss_shared_alloc(sizeof(*tape));
	ck_assert_ptr_nonnull(tape);
	return tape;
}

void tape_note(struct tape *tape, const char *fmt, ...)
{
	int at = atomic_fetch_add(&tape->count, 1);
	if (at >= TAPE_LINES)
		return;
	va_list args;
	va_start(args, fmt);
	vsnprintf(tape->line[at].text, TAPE_TEXT, fmt, args);
	va_end(args);
	tape->line[at].pid = getpid();
	atomic_store(&tape->line[at].whole, true);
}

void tape_tell(void *tape, struct ss_server *server, uint64_t id,
	       const char *operation)
{
	(void)server, (void)id;
	tape_note(tape, "%s", operation);
}

/* A writer that was killed leaves a line that never becomes whole. */
static bool whole(struct tape *tape, int line)
{
	return line < TAPE_LINES && atomic_load(&tape->line[line].whole);
}

static int begun_lines(struct tape *tape)
{
	int n = atomic_load(&tape->count);
	return n < TAPE_LINES ? n : TAPE_LINES;
}

static int whole_lines(struct tape *tape)
{
	int n = 0;
	for (int i = 0; i < begun_lines(tape); i++)
		n += whole(tape, i);
	return n;
}

void tape_wait(struct tape *tape, int lines)
{
	int64_t until = clock_ms() + WAIT_MS;
	while (whole_lines(tape) < lines && clock_ms() < until)
		pause_ms(2);
	ck_assert_msg(whole_lines(tape) >= lines, "%d lines of %d: %s",
		      whole_lines(tape), lines, tape_text(tape));
}

const char *tape_text_of(struct tape *tape, pid_t pid)
{
	static char text[TAPE_LINES * 16];
	size_t used = 0;
	text[0] = '\0';
	for (int i = 0; i < begun_lines(tape); i++) {
		if (!whole(tape, i))
			continue;
		pid_t by = tape->line[i].pid;
		if ((pid > 0 && by != pid) || (pid < 0 && by == -pid))
			continue;
		size_t room = sizeof(text) - used;
		int n = snprintf(text + used, room, "%s%s", used ? " " : "",
				 tape->line[i].text);
		if (n < 0 || (size_t)n >= room)
			break;
		used += (size_t)n;
	}
	return text;
}

const char *tape_text(struct tape *tape)
{
	return tape_text_of(tape, 0);
}

int tape_find(struct tape *tape, const char *text)
{
	for (int i = 0; i < begun_lines(tape); i++)
		if (whole(tape, i) && !strcmp(tape->line[i].text, text))
			return i;
	return -1;
}

/* ---- what must come back --------------------------------------------------*/

static int entries(const char *path)
{
	DIR *dir = opendir(path);
	if (!dir)
		return -1;
	int n = 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

int open_descriptors(void)
{
	return entries("/proc/self/fd");
}

int threads(void)
{
	return entries("/proc/self/task");
}

#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 33)
#define HEAP_IN_USE
#endif
#endif

size_t heap_in_use(void)
{
#ifdef HEAP_IN_USE
	struct mallinfo2 info = mallinfo2();
	return info.uordblks + info.hblkhd;
#else
	return 0;
#endif
}

static int listed_children(const char *path)
{
	char text[4096] = "";
	FILE *file = fopen(path, "r");
	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);
	int n = 0;
	for (const char *c = text; *c; c++)
		n += *c == ' ';
	return n;
}

int children(void)
{
	return listed_children("/proc/thread-self/children");
}

int children_of(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid,
		 (int)pid);
	return listed_children(path);
}

int64_t clock_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void pause_ms(int ms)
{
	struct timespec pause = { .tv_sec = ms / 1000,
				  .tv_nsec = (long)(ms % 1000) * 1000000 };
	nanosleep(&pause, NULL);
}

static atomic_llong *slow_since; /* 0: it goes as it should */
static int64_t (*real_now_ms)(void);

static int64_t slow_now_ms(void)
{
	enum { SLOWER = 10 };
	int64_t at = real_now_ms(), since = atomic_load(slow_since);
	return since ? since + (at - since) / SLOWER : at;
}

void slow_clock_install(void)
{
	slow_since = ss_shared_alloc(sizeof(*slow_since));
	ck_assert_ptr_nonnull(slow_since);
	real_now_ms = sys_table.now_ms;
	sys_table.now_ms = slow_now_ms;
}

void slow_clock_begin(void)
{
	atomic_store(slow_since, real_now_ms());
}

void slow_clock_end(void)
{
	atomic_store(slow_since, 0);
}

bool log_of_a_busy_machine(const char *text)
{
	return strstr(text, "kept its loop") != NULL;
}

bool have(const char *program)
{
	char command[128];
	snprintf(command, sizeof(command), "command -v %s >/dev/null 2>&1",
		 program);
	return system(command) == 0;
}

bool missing(const char *program)
{
	if (have(program))
		return false;
	printf("skipped: %s is not here\n", program);
	return true;
}
