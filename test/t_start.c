/*
 * Starting (PROMISES 17): one call resolves, binds and listens, or returns one
 * error that names the address and the reason, and leaves nothing behind,
 * whichever step of it fails.  The same torture for a request that is served:
 * whichever step fails, it costs at most that client.
 *
 * As SQLite and curl do it: the N-th fallible call fails, N = 1, 2, ... until
 * a run needs no fault.
 */
#include "support.h"

#include <poll.h>
#include <sys/stat.h>

Suite *t_start(void);

/* ---- calls that can be made to fail ---------------------------------------*/

#define SYS_EVERY(X) SYS_WRAPPED(X) SYS_PLAIN(X) SYS_LINUX(X)

#define NUMBER_FD(name, params, args) CALL_##name,
#define NUMBER(type, name, params, args) CALL_##name,
enum call { SYS_DESCRIPTORS(NUMBER_FD) SYS_EVERY(NUMBER) CALLS };
#undef NUMBER_FD
#undef NUMBER

enum { FLAVOURS = 3 };

/* What each may plausibly answer; without an entry it does not fail. */
static const struct faults {
	int error[FLAVOURS]; /* 0: as the first */
	bool tolerated;	     /* the server may come up without it */
} faults[CALLS] = {
	[CALL_socket] = { .error = { EMFILE, ENOBUFS, EACCES } },
	[CALL_accept] = { .error = { EMFILE, ECONNABORTED, ENOMEM } },
	[CALL_open] = { .error = { EMFILE, EACCES, EINTR }, .tolerated = true },
	[CALL_dup] = { .error = { EMFILE } },
	[CALL_epoll_create] = { .error = { EMFILE, ENFILE, ENOMEM } },
	[CALL_pidfd_open] = { .error = { EMFILE, ENOSYS, ENOMEM },
			      .tolerated = true },
	[CALL_pipe] = { .error = { EMFILE, ENFILE, EMFILE } },
	[CALL_send_file] = { .error = { EIO, ECONNRESET, EINTR } },
	[CALL_nonblock] = { .error = { EBADF } },
	[CALL_cloexec] = { .error = { EBADF } },
	[CALL_close_range] = { .error = { ENOSYS, EPERM } },
	[CALL_bind] = { .error = { EADDRINUSE, EACCES, ENOMEM } },
	[CALL_listen] = { .error = { EADDRINUSE, ENOBUFS, EOPNOTSUPP } },
	[CALL_connect] = { .error = { EACCES, EAGAIN, EINTR } },
	[CALL_getsockname] = { .error = { ENOBUFS } },
	[CALL_getpeername] = { .error = { ENOTCONN, ENOBUFS } },
	[CALL_setsockopt] = { .error = { ENOMEM, ENOPROTOOPT, EPERM } },
	[CALL_getsockopt] = { .error = { ENOBUFS } },
	[CALL_shutdown] = { .error = { ENOTCONN } },
	[CALL_recv] = { .error = { ECONNRESET, EINTR, ENOMEM } },
	[CALL_recvmsg] = { .error = { ENOMEM, EINTR, ECONNREFUSED } },
	[CALL_send] = { .error = { EPIPE, EINTR, ENOBUFS } },
	[CALL_sendmsg] = { .error = { ENOBUFS, EINTR, EPERM } },
	[CALL_read] = { .error = { EIO, EINTR }, .tolerated = true },
	[CALL_pread] = { .error = { EIO, EINTR } },
	[CALL_poll] = { .error = { EINTR } },
	[CALL_unlink] = { .error = { EACCES, EROFS, EBUSY } },
	[CALL_lstat] = { .error = { EACCES, EIO, ENOMEM } },
	[CALL_flock] = { .error = { ENOLCK, EINTR } },
	[CALL_chmod] = { .error = { EPERM, EROFS, EIO } },
	[CALL_chown] = { .error = { EPERM, EROFS, EIO } },
	[CALL_mmap] = { .error = { ENOMEM } },
	[CALL_fork] = { .error = { EAGAIN, ENOMEM } },
	[CALL_waitpid] = { .error = { EINTR } },
	[CALL_malloc] = { .error = { ENOMEM } },
	[CALL_calloc] = { .error = { ENOMEM } },
	[CALL_aligned_alloc] = { .error = { ENOMEM } },
	[CALL_realloc] = { .error = { ENOMEM } },
	[CALL_getaddrinfo] = { .error = { ENOMEM, EAGAIN } },
	[CALL_pthread_create] = { .error = { EAGAIN, EPERM } },
#ifdef SS_LINUX
	[CALL_epoll_ctl] = { .error = { ENOMEM, ENOSPC }, .tolerated = true },
	[CALL_epoll_wait] = { .error = { EINTR } },
#endif
};

static const char *name_of(enum call call)
{
#define NAME_FD(name, params, args) #name,
#define NAME(type, name, params, args) #name,
	static const char *const names[] = { SYS_DESCRIPTORS(NAME_FD)
						     SYS_EVERY(NAME) };
#undef NAME_FD
#undef NAME
	return names[call];
}

/* In shared memory: forked children count and fail too. */
struct torture {
	atomic_int number;  /* the call that is to fail, from 1 on; 0: none */
	atomic_bool onward; /* and all that come after it */
	atomic_int flavour;
	atomic_int count;		  /* calls since the fault was set */
	atomic_int hit;			  /* which one failed; -1: none yet */
	atomic_int error;		  /* with this */
	atomic_bool binding, hit_binding; /* in server_bind or _activate */
	pid_t home;
	atomic_int maps; /* mmap less munmap, there: others leave it all */
};
static struct torture *torture;
static struct sys_table real;

static void set_fault(int number, int flavour, bool onward)
{
	atomic_store(&torture->flavour, flavour);
	atomic_store(&torture->onward, onward);
	atomic_store(&torture->count, 0);
	atomic_store(&torture->hit, -1);
	atomic_store(&torture->number, number);
}

static void no_fault(void)
{
	atomic_store(&torture->number, 0);
}

static int plausible(enum call call)
{
	const int *errors = faults[call].error;
	int error = errors[atomic_load(&torture->flavour)];
	return error ? error : errors[0];
}

/* 0, or what this call is to fail with. */
static int strike(enum call call)
{
	int number = atomic_load(&torture->number);
	if (!number || !faults[call].error[0])
		return 0;
	int count = atomic_fetch_add(&torture->count, 1) + 1;
	if (count < number ||
	    (count > number && !atomic_load(&torture->onward)))
		return 0;
	int error = plausible(call), none = -1;
	if (atomic_compare_exchange_strong(&torture->hit, &none, (int)call)) {
		atomic_store(&torture->error, error);
		atomic_store(&torture->hit_binding,
			     atomic_load(&torture->binding));
	}
	errno = error;
	return error;
}

/* -1 and errno, but for those that have their own way to say it. */
static intptr_t failed(enum call call, int error)
{
	switch (call) {
	case CALL_malloc:
	case CALL_calloc:
	case CALL_realloc:
	case CALL_aligned_alloc:
		return 0;
	case CALL_getaddrinfo:
		return error == ENOMEM ? EAI_MEMORY : EAI_AGAIN;
	case CALL_pthread_create:
		return error;
	default:
		return -1;
	}
}

#define TORN_FD(name, params, args) TORN(int, name, params, args)
#define TORN(type, name, params, args)                                         \
	static type torn_##name params                                         \
	{                                                                      \
		int error_ = strike(CALL_##name);                              \
		if (error_)                                                    \
			return (type)failed(CALL_##name, error_);              \
		return real.name args;                                         \
	}
SYS_DESCRIPTORS(TORN_FD)
SYS_EVERY(TORN)
#undef TORN_FD
#undef TORN

static void *counting_mmap(void *at, size_t n, int prot, int flags, int fd,
			   off_t offset)
{
	void *memory = torn_mmap(at, n, prot, flags, fd, offset);
	if (memory != MAP_FAILED && getpid() == torture->home)
		atomic_fetch_add(&torture->maps, 1);
	return memory;
}

static int counting_munmap(void *memory, size_t n)
{
	if (getpid() == torture->home)
		atomic_fetch_sub(&torture->maps, 1);
	return real.munmap(memory, n);
}

#ifdef SS_LINUX
/* Removing needs nothing that could be lacking. */
static int adding_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	return op == EPOLL_CTL_DEL ? real.epoll_ctl(epfd, op, fd, event)
				   : torn_epoll_ctl(epfd, op, fd, event);
}
#endif

static void install(void)
{
	if (torture)
		return; /* check does not fork: CK_FORK=no */
	torture = ss_shared_alloc(sizeof(*torture));
	ck_assert_ptr_nonnull(torture);
	torture->home = getpid();
	real = sys_table;
#define INSTALL_FD(name, params, args) sys_table.name = torn_##name;
#define INSTALL(type, name, params, args) sys_table.name = torn_##name;
	SYS_DESCRIPTORS(INSTALL_FD)
	SYS_EVERY(INSTALL)
#undef INSTALL_FD
#undef INSTALL
	sys_table.mmap = counting_mmap;
	sys_table.munmap = counting_munmap;
#ifdef SS_LINUX
	sys_table.epoll_ctl = adding_epoll_ctl;
#endif
}

/* For messages: which call failed, and how. */
static const char *what(const char *scenario, int number)
{
	static char text[200];
	int hit = atomic_load(&torture->hit);
	snprintf(text, sizeof(text), "%s, call %d (%s%s), %s", scenario, number,
		 hit < 0 ? "none" : name_of((enum call)hit),
		 atomic_load(&torture->onward) ? " and onward" : "",
		 hit < 0 ? "" : strerror(atomic_load(&torture->error)));
	return text;
}

/* ---- a layer that knows where it is ---------------------------------------*/

static const struct ss_layer aware;

static int aware_bind(struct ss_server *server)
{
	atomic_store(&torture->binding, true);
	int r = ss_super(server, &aware)->server_bind(server);
	atomic_store(&torture->binding, false);
	return r;
}

static int aware_activate(struct ss_server *server)
{
	atomic_store(&torture->binding, true);
	int r = ss_super(server, &aware)->server_activate(server);
	atomic_store(&torture->binding, false);
	return r;
}

static const struct ss_layer aware = {
	.name = "aware",
	.server_size = 100,
	.request_size = 100,
	.ops.server_bind = aware_bind,
	.ops.server_activate = aware_activate,
};

/* ---- scenarios ------------------------------------------------------------*/

static int echo(struct ss_request *req)
{
	char buf[100];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static const struct ss_handler echo_handler = { .handle = echo };
static const struct ss_handler prompt_handler = {
	.handle = echo,
	.disable_nagle_algorithm = true,
};

static void quiet(void *arg, int level, struct ss_server *server, uint64_t id,
		  const char *text)
{
	(void)arg, (void)level, (void)server, (void)id, (void)text;
}

/* A server to be made; `address` is what its errors must name. */
struct scenario {
	const char *name;
	const char *address; /* "%s": scratch() */
	const char *more;    /* a second one */
	bool stale;	     /* a dead server's file is in the way */
	bool adopted;	     /* a listening socket at that descriptor */
	bool everywhere;     /* a wildcard */
	struct ss_socket_options options;
	bool prompt, timed, threading, forking;
};

static const struct scenario scenarios[] = {
	{ .name = "tcp", .address = "tcp://127.0.0.1:0" },
	{ .name = "tcp, all",
	  .address = "tcp://127.0.0.1:0",
	  .prompt = true,
	  .timed = true,
	  .threading = true,
	  .options = { .reuse_port = true, .request_queue_size = 100000 } },
	{ .name = "tcp, two addresses",
	  .address = "tcp://127.0.0.1:0",
	  .more = "tcp://127.0.0.2:0",
	  .forking = true },
	{ .name = "tcp, every interface",
	  .address = "tcp://:0",
	  .everywhere = true },
	{ .name = "udp", .address = "udp://127.0.0.1:0" },
	{ .name = "udp, every interface",
	  .address = "udp://:0",
	  .everywhere = true,
	  .threading = true },
	{ .name = "udp, IPv4",
	  .address = "udp://0.0.0.0:0",
	  .everywhere = true,
	  .forking = true },
	{ .name = "unix", .address = "unix:%s/a" },
	{ .name = "unix, stale",
	  .address = "unix:%s/a",
	  .stale = true,
	  .threading = true },
	{ .name = "unix, mode and owner",
	  .address = "unix:%s/a",
	  .options = { .set_mode = true,
		       .mode = 0600,
		       .set_uid = true,
		       .set_gid = true } },
	{ .name = "unix, abstract", .address = "unix:@ss-start" },
	{ .name = "unix, two", .address = "unix:%s/a", .more = "unix:%s/b" },
	{ .name = "unixgram", .address = "unixgram:%s/a" },
	{ .name = "unixgram, stale",
	  .address = "unixgram:%s/a",
	  .stale = true,
	  .forking = true },
	{ .name = "adopted", .address = "fd:9", .adopted = true },
	{ .name = "adopted at 0", .address = "fd:0", .adopted = true },
};

enum { SCENARIOS = sizeof(scenarios) / sizeof(*scenarios) };

static const char *in_scratch(const char *text)
{
	static char result[2][100];
	static int turn;
	if (!text)
		return NULL;
	const char *at = strstr(text, "%s");
	char *to = result[turn++ % 2];
	if (at)
		snprintf(to, sizeof(*result), "%.*s%s%s", (int)(at - text),
			 text, scratch(), at + 2);
	else
		snprintf(to, sizeof(*result), "%s", text);
	return to;
}

static struct ss_config config_for(const struct scenario *scenario)
{
	static struct ss_socket_options options;
	options = scenario->options;
	options.uid = geteuid();
	options.gid = getegid();
	struct ss_config config = {
		.addresses = { in_scratch(scenario->address),
			       in_scratch(scenario->more) },
		.mixins = { { &aware, NULL },
			    { scenario->threading ? &ss_threading_mixin
			      : scenario->forking ? &ss_forking_mixin
						  : NULL,
			      NULL } },
		.handler = scenario->prompt ? &prompt_handler : &echo_handler,
		.refusal = "no\n",
		.transport_options = &options,
		.log = quiet,
	};
	if (scenario->timed)
		config.timeouts.io_ms = WAIT_MS;
	return config;
}

static void bind_unix(const char *path, int type)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	int fd = socket(AF_UNIX, type, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
}

/* What is there before it starts. */
static void set_scene(const struct scenario *scenario)
{
	const char *address = in_scratch(scenario->address);
	if (scenario->stale && access(strchr(address, '/'), F_OK) != 0)
		bind_unix(strchr(address, '/'),
			  address[4] == ':' ? SOCK_STREAM : SOCK_DGRAM);
	if (!scenario->adopted)
		return;
	struct sockaddr_in loopback = { .sin_family = AF_INET };
	loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(
		bind(fd, (struct sockaddr *)&loopback, sizeof(loopback)), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	int place = (int)strtol(address + 3, NULL, 10);
	if (fd != place) {
		ck_assert_int_eq(dup2(fd, place), place);
		close(fd);
	}
}

static bool readable(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	return poll(&pollfd, 1, 0) == 1;
}

/* It answers a client; without a thread, so that who fails is plain.  Who
 * looked whether it is alive may have come first. */
static void serves(struct ss_server *server)
{
	char url[SS_ADDRESS_TEXT];
	int fd = dial(ss_server_url(server, 0, url, sizeof(url)));
	send_text(fd, "hello");
	int type = ss_server_socket_type(server);
	if (type == SOCK_STREAM)
		shutdown(fd, SHUT_WR);
	int64_t until = ss_now(server) + WAIT_MS;
	while (!readable(fd) && ss_now(server) < until)
		ck_assert_int_ge(ss_server_turn(server, ss_now(server) + 1), 0);
	expect_text(fd, "hello");
	if (type == SOCK_STREAM)
		expect_end(fd);
	close(fd);
}

static void starts_and_serves(const struct scenario *scenario)
{
	set_scene(scenario);
	struct ss_config config = config_for(scenario);
	struct ss_server *server = made(&config);
	if (scenario->options.request_queue_size == 0 ||
	    ss_server_socket_type(server) == SOCK_STREAM)
		serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
}

/* ---- one call, or nothing -------------------------------------------------*/

/* Codes that are answered in other words. */
static bool right_code(const struct scenario *scenario, int code)
{
	enum call hit = (enum call)atomic_load(&torture->hit);
	if (hit == CALL_connect) /* so it may be alive */
		return code == -EADDRINUSE;
	if (scenario->adopted && code == -EINVAL) /* not such a socket */
		return hit == CALL_getsockopt || hit == CALL_getsockname;
	return code == -atomic_load(&torture->error);
}

/* An address is named as it was given, or as it is: with its real port, and
 * every interface as one or the other. */
static bool names(const char *text, const char *address)
{
	if (!address)
		return false;
	const char *all = strstr(address, "//:0");
	if (all)
		return strstr(text, "//[::]:") || strstr(text, "//0.0.0.0:") ||
		       strstr(text, address);
	char start[SS_ADDRESS_TEXT];
	snprintf(start, sizeof(start), "%s", address);
	if (address[0] == 't' || strncmp(address, "udp", 3) == 0)
		*strrchr(start, ':') = '\0';
	return strstr(text, start);
}

static void check_words(const struct scenario *scenario,
			const struct ss_diag *why, const char *context)
{
	const char *reason = strerror(-why->code);
	ck_assert_msg(why->text[0] && !strchr(why->text, '\n'), "%s: \"%s\"",
		      context, why->text);
	if (atomic_load(&torture->onward))
		return; /* what failed first need not be what mattered */
	if (!atomic_load(&torture->hit_binding) &&
	    atomic_load(&torture->hit) != CALL_getaddrinfo) {
		ck_assert_msg(strstr(why->text, reason) || scenario->adopted,
			      "%s: \"%s\"", context, why->text);
		return;
	}
	bool named = names(why->text, in_scratch(scenario->address)) ||
		     names(why->text, in_scratch(scenario->more));
	ck_assert_msg(named, "%s: \"%s\" names no address", context, why->text);
	bool said = strstr(why->text, reason) ||
		    strstr(why->text, "another server") ||
		    strstr(why->text, "Memory allocation failure") ||
		    strstr(why->text, "Temporary failure in name resolution") ||
		    scenario->adopted;
	ck_assert_msg(said, "%s: \"%s\" does not say %s", context, why->text,
		      reason);
}

/* Sockets that lie in scratch(); locks are let lie. */
static int sockets_left(void)
{
	char path[100];
	struct stat st;
	int n = 0;
	for (const char *name = "ab"; *name; name++) {
		snprintf(path, sizeof(path), "%s/%c", scratch(), *name);
		n += lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
	}
	return n;
}

struct before {
	int descriptors, maps, sockets;
	int threads; /* /proc shows them a moment longer than join does */
};

static struct before look(void)
{
	return (struct before){
		.descriptors = open_descriptors(),
		.maps = atomic_load(&torture->maps),
		.sockets = sockets_left(),
		.threads = threads(),
	};
}

/* An adopted descriptor may be closed, a stale file gone; and where unlink
 * fails for ever, nobody can help. */
static void nothing_is_left(const struct before *before, const char *context)
{
	struct before after = look();
	ck_assert_msg(after.descriptors <= before->descriptors &&
			      after.descriptors >= before->descriptors - 1,
		      "%s: %d descriptors, before it %d", context,
		      after.descriptors, before->descriptors);
	ck_assert_msg(after.maps == before->maps, "%s: %d mappings left",
		      context, after.maps - before->maps);
	/* One that was joined may be listed for a moment more. */
	for (int64_t until = clock_ms() + WAIT_MS;
	     after.threads > before->threads && clock_ms() < until;
	     after = look())
		pause_ms(1);
	eventually(threads() <= before->threads);
	ck_assert_msg(after.sockets <= before->sockets ||
			      atomic_load(&torture->onward),
		      "%s: a socket is left", context);
}

/* Whether the fault was met at all. */
static bool start_with_fault(const struct scenario *scenario, int number,
			     int flavour, bool onward)
{
	set_scene(scenario);
	struct ss_config config = config_for(scenario);
	struct before before = look();
	struct ss_server *server = (struct ss_server *)&config;
	struct ss_diag why = { .code = 1 };
	atomic_store(&torture->binding, false);
	set_fault(number, flavour, onward);
	int r = ss_server_new(&server, &config, &why);
	no_fault();
	const char *context = what(scenario->name, number);
	int hit = atomic_load(&torture->hit);
	ck_assert_int_eq(why.code, r);
	if (r == 0) {
		ck_assert_msg(
			hit < 0 || faults[hit].tolerated || scenario->timed ||
				strcmp(name_of((enum call)hit), "flock") == 0,
			"%s: it was not noticed", context);
		serves(server);
		ck_assert_int_eq(ss_server_free(server), 0);
	} else {
		ck_assert_ptr_null(server);
		ck_assert_msg(hit >= 0, "%s: %s", context, why.text);
		ck_assert_msg(onward || right_code(scenario, r),
			      "%s: code %d, \"%s\"", context, r, why.text);
		check_words(scenario, &why, context);
	}
	nothing_is_left(&before, context);
	return hit >= 0;
}

START_TEST(start_fails_at_any_step_and_leaves_nothing)
{
	const struct scenario *scenario = &scenarios[_i / (2 * FLAVOURS)];
	if (scenario->everywhere && exposed())
		return;
	int flavour = _i % FLAVOURS;
	bool onward = _i / FLAVOURS % 2;
	if (onward && flavour == 1) /* EINTR is not for ever */
		return;
	install();
	starts_and_serves(scenario); /* libc's first time */
	int number = 1;
	while (start_with_fault(scenario, number, flavour, onward)) {
		starts_and_serves(scenario);
		number++;
	}
	ck_assert_msg(number > 15, "%s: only %d calls", scenario->name, number);
}
END_TEST

/* Nothing but the listeners' end may be lost where closing is disturbed. */
START_TEST(start_can_be_undone_whatever_fails)
{
	const struct scenario *scenario = &scenarios[_i];
	if (scenario->everywhere && exposed())
		return;
	install();
	starts_and_serves(scenario);
	for (int number = 1, hit = 0; hit >= 0; number++) {
		set_scene(scenario);
		struct before before = look();
		struct ss_config config = config_for(scenario);
		struct ss_server *server = made(&config);
		set_fault(number, number % FLAVOURS, false);
		int r = ss_server_free(server);
		no_fault();
		const char *context = what(scenario->name, number);
		ck_assert_msg(r == 0, "%s: %d", context, r);
		before.sockets += 2; /* unlink may be what failed */
		nothing_is_left(&before, context);
		starts_and_serves(scenario);
		hit = atomic_load(&torture->hit);
	}
}
END_TEST

/* In two steps, as bind_and_activate = False. */
START_TEST(start_in_two_steps_fails_cleanly_too)
{
	const struct scenario *scenario = &scenarios[_i];
	if (scenario->everywhere && exposed())
		return;
	install();
	starts_and_serves(scenario);
	for (int number = 1, hit = 0; hit >= 0; number++) {
		set_scene(scenario);
		struct before before = look();
		struct ss_config config = config_for(scenario);
		config.no_bind = true;
		struct ss_server *server = made(&config);
		struct ss_diag why = { 0 };
		set_fault(number, 0, false);
		int r = ss_server_bind(server, &why);
		if (r == 0)
			r = ss_server_activate(server, &why);
		no_fault();
		const char *context = what(scenario->name, number);
		ck_assert_int_eq(why.code, r);
		if (r < 0)
			check_words(scenario, &why, context);
		else
			serves(server);
		ck_assert_int_eq(ss_server_free(server), 0);
		nothing_is_left(&before, context);
		hit = atomic_load(&torture->hit);
	}
}
END_TEST

/* ---- without faults -------------------------------------------------------*/

static void refused_at(const char *address, int code, const char *part)
{
	struct ss_config config = { .addresses = { address },
				    .handler = &echo_handler };
	refused(&config, code, address);
	refused(&config, code, part);
	/* Who does not want to know need not. */
	struct ss_server *server = (struct ss_server *)&config;
	ck_assert_int_eq(ss_server_new(&server, &config, NULL), code);
	ck_assert_ptr_null(server);
}

START_TEST(start_refuses_with_address_and_reason)
{
	refused_at("tcp://127.0.0.1:80x", -EINVAL, "port \"80x\"");
	refused_at("tcp://127.0.0.1:70000", -EINVAL, "not in 0..65535");
	refused_at("tcp://127.0.0.1:", -EINVAL, "port \"\"");
	refused_at("127.0.0.1:no-such-service", -ENOENT, "no-such-service");
	refused_at("tcp://192.0.2.1:0", -EADDRNOTAVAIL, "Cannot assign");
	refused_at("udp://192.0.2.1:0", -EADDRNOTAVAIL, "Cannot assign");
	refused_at("unix:/nonexistent/x", -ENOENT, "No such file");
	refused_at("unixgram:/nonexistent/x", -ENOENT, "No such file");
	refused_at("unix:/proc/x", -ENOENT, "No such file");
	refused_at("fd:77", -EINVAL, "Bad file descriptor");
	refused_at("unix:", -EINVAL, "the path is empty");
	struct ss_config none = { .handler = &echo_handler };
	refused(&none, -EINVAL, "address");
	none.addresses[0] = "";
	refused(&none, -EINVAL, "\"\"");
}
END_TEST

/* A living server is named, and goes on. */
START_TEST(start_refuses_an_address_in_use)
{
	const struct transport *transport = &transports[_i];
	struct ss_config config =
		config_of(&models[0], transport, &echo_handler);
	struct ss_server *server = made(&config);
	char url[SS_ADDRESS_TEXT];
	ss_server_url(server, 0, url, sizeof(url));
	refused_at(url, -EADDRINUSE,
		   transport->layer->flags & SS_LAYER_UNIX
			   ? "another server"
			   : "Address already in use");
	serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
	config.addresses[0] = url;
	server = made(&config);
	serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* By the time it returns clients may connect, and it has its real address. */
START_TEST(start_means_that_clients_may_connect)
{
	const struct transport *transport = &transports[_i];
	struct ss_config config =
		config_of(&models[0], transport, &echo_handler);
	struct ss_diag why = { .code = 1, .text = "old" };
	struct ss_server *server;
	ck_assert_int_eq(ss_server_new(&server, &config, &why), 0);
	ck_assert_int_eq(why.code, 0);
	ck_assert_str_eq(why.text, "");
	struct ss_address address;
	ck_assert_int_eq(ss_server_address(server, 0, &address), 0);
	ck_assert_int_ne(ss_address_port(&address), 0);
	serves(server);
	ck_assert_int_eq(ss_server_free(server), 0);
}
END_TEST

/* ---- a request ------------------------------------------------------------*/

enum { BUSY_STATE = 500 };

/*
 * A handler that needs much: state, buffers, a long text, a file, a pipe to
 * sleep on, its own address.
 */
static int busy_handle(struct ss_request *req)
{
	char line[100];
	memset(ss_state(req), 1, BUSY_STATE);
	ssize_t n = ss_read_line(req, line, sizeof(line));
	if (n <= 0)
		return (int)n;
	struct ss_address own;
	int r = ss_sleep(req, 1);
	if (r >= 0)
		r = ss_request_local(req, &own);
	if (r >= 0)
		n = ss_printf(req, "%s%0600d\n", line, 1);
	if (r >= 0 && n >= 0 && !ss_request_dgram(req)) {
		int fd = *(int *)ss_server_user(ss_request_server(req));
		n = ss_sendfile(req, fd, 0, 7);
	}
	return r < 0 ? r : n < 0 ? (int)n : SS_AGAIN;
}

static const struct ss_handler busy = {
	.handle = busy_handle,
	.size = BUSY_STATE,
	.wbufsize = SS_NONE,
};

static int file_of_seven_bytes(void)
{
	char path[100];
	snprintf(path, sizeof(path), "%s/file", scratch());
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, "a file\n", 7), 7);
	return fd;
}

static uint64_t stat_of(struct ss_server *server, bool ended)
{
	struct ss_stats stats;
	ss_server_stats(server, &stats);
	return ended ? stats.ended : stats.accepted;
}

/* Without a call that could be made to fail; a Unix client has a name. */
static int dial_plainly(const struct served *served, bool stream)
{
	struct ss_address to;
	sa_family_t unnamed = AF_UNIX;
	ck_assert_int_eq(ss_server_address(served->server, 0, &to), 0);
	int family = to.u.sa.sa_family;
	int fd = socket(family, stream ? SOCK_STREAM : SOCK_DGRAM, 0);
	if (family == AF_UNIX)
		ck_assert_int_eq(
			bind(fd, (struct sockaddr *)&unnamed, sizeof(unnamed)),
			0);
	ck_assert_int_eq(connect(fd, &to.u.sa, to.len), 0);
	return fd;
}

/* Nothing failed, or nothing that who tries again would notice. */
static bool unharmed(void)
{
	return atomic_load(&torture->hit) < 0 ||
	       atomic_load(&torture->error) == EINTR;
}

/* A stream's answer or none, but its end; who has seen it was accepted. */
static size_t until_end(int fd)
{
	char reply[2000];
	size_t total = 0;
	ssize_t n;
	shutdown(fd, SHUT_WR);
	while ((n = recv_within(fd, reply, sizeof(reply), WAIT_MS)) > 0)
		total += (size_t)n;
	ck_assert_msg(n == 0 || n == -ECONNRESET, "no end: %s",
		      strerror((int)-n));
	return total;
}

/* A datagram's answer, unless the fault has met it. */
static size_t until_lost(int fd)
{
	char reply[2000];
	int64_t until = clock_ms() + WAIT_MS;
	ssize_t n;
	do
		n = recv_within(fd, reply, sizeof(reply), 2);
	while (n < 0 && clock_ms() < until && unharmed());
	return n < 0 ? 0 : (size_t)n;
}

/* Answer, end or silence: whatever the fault makes of it. */
static void any_exchange(struct served *served, bool stream)
{
	size_t whole = strlen("hello\n") + 601 + (stream ? 7 : 0);
	int fd = dial_plainly(served, stream);
	send(fd, "hello\n", 6, MSG_NOSIGNAL);
	size_t n = stream ? until_end(fd) : until_lost(fd);
	ck_assert_msg(n == whole || !unharmed(), "%zu bytes of %zu: %s", n,
		      whole, what("request", atomic_load(&torture->number)));
	close(fd);
	eventually(stat_of(served->server, true) ==
		   stat_of(served->server, false));
}

static void good_exchange(const struct served *served, bool stream)
{
	char expected[700];
	snprintf(expected, sizeof(expected), "hello\n%0600d\n%s", 1,
		 stream ? "a file\n" : "");
	int fd = dial(served->url);
	send_text(fd, "hello\n");
	if (stream)
		shutdown(fd, SHUT_WR);
	expect_text(fd, expected);
	if (stream)
		expect_end(fd);
	close(fd);
}

/* Its end would interrupt our own recv. */
static void block_sigchld(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	ck_assert_int_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
}

static void torture_requests(struct served *served, bool stream, int flavour,
			     const char *name)
{
	int number = 1;
	for (int hit = 0; hit >= 0; number++) {
		set_fault(number, flavour, false);
		any_exchange(served, stream);
		no_fault();
		hit = atomic_load(&torture->hit);
		good_exchange(served, stream);
	}
	ck_assert_msg(number > 4, "%s: only %d calls", name, number);
}

/* Each time a new server's first: later ones find memory that it has kept. */
static int torture_first(const struct ss_config *config, bool stream,
			 int flavour, int number)
{
	struct before before = look();
	struct served served;
	served_start(&served, config);
	set_fault(number, flavour, false);
	any_exchange(&served, stream);
	no_fault();
	int hit = atomic_load(&torture->hit);
	good_exchange(&served, stream);
	served_stop(&served);
	nothing_is_left(&before, what("first request", number));
	return hit;
}

START_TEST(request_costs_at_most_its_client_whatever_fails)
{
	int flavour = _i % FLAVOURS;
	const struct model *model = &models[_i / FLAVOURS / transport_count];
	const struct transport *transport =
		&transports[_i / FLAVOURS % transport_count];
	if (model_has(model, &ss_forking_mixin) && flavour == 2)
		return; /* a second's worth of forks, and nothing new */
	install();
	block_sigchld();
	begin_threads();
	int file = file_of_seven_bytes();
	struct ss_config config = config_of(model, transport, &busy);
	/* No thread is at hand: each request needs one made. */
	static const struct ss_threading_options none = { .max_idle = SS_NONE };
	use_options(&config, &ss_threading_mixin, &none);
	config.user = &file;
	config.timeouts.io_ms = WAIT_MS;
	config.log = quiet;
	struct before before = look();
	struct served served;
	served_start(&served, &config);
	good_exchange(&served, transport->stream);
	torture_requests(&served, transport->stream, flavour, model->name);
	served_stop(&served);
	nothing_is_left(&before, model->name);
	ck_assert_int_eq(children(), 0);
	close(file);
}
END_TEST

START_TEST(first_request_costs_at_most_its_client_whatever_fails)
{
	const struct transport *transport = &transports[_i / FLAVOURS];
	install();
	block_sigchld();
	begin_threads();
	int file = file_of_seven_bytes();
	struct ss_config config = config_of(&models[0], transport, &busy);
	config.user = &file;
	config.timeouts.io_ms = WAIT_MS;
	config.log = quiet;
	int number = 1;
	while (torture_first(&config, transport->stream, _i % FLAVOURS,
			     number) >= 0)
		number++;
	ck_assert_int_gt(number, 6);
	close(file);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

Suite *t_start(void)
{
	Suite *suite = suite_create("t_start");
	TCase *tcase = tcase_create("start");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase, start_means_that_clients_may_connect, 0,
			    transport_count);
	tcase_add_test(tcase, start_refuses_with_address_and_reason);
	tcase_add_loop_test(tcase, start_refuses_an_address_in_use, 0,
			    transport_count);
	tcase_add_loop_test(tcase, start_fails_at_any_step_and_leaves_nothing,
			    0, SCENARIOS * 2 * FLAVOURS);
	tcase_add_loop_test(tcase, start_can_be_undone_whatever_fails, 0,
			    SCENARIOS);
	tcase_add_loop_test(tcase, start_in_two_steps_fails_cleanly_too, 0,
			    SCENARIOS);
	tcase = tcase_create("request");
	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase,
			    request_costs_at_most_its_client_whatever_fails, 0,
			    model_count * transport_count * FLAVOURS);
	tcase_add_loop_test(
		tcase, first_request_costs_at_most_its_client_whatever_fails, 0,
		transport_count * FLAVOURS);
	return suite;
}
