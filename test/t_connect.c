/*
 * Connecting out: by a client program, without a request, and by handlers of
 * every model; who answers, who does not, and what is left of it.
 */
#include "faults.h"
#include "support.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

static struct sys_table real;

/* ---- those who are called -------------------------------------------------*/

/* A listener of the test's own. */
struct ear {
	int fd;
	char url[SS_ADDRESS_TEXT];
};

enum { DEAF = -1 };

/* With that backlog it does not listen: who connects is refused. */
static struct ear open_ear(const char *text, int backlog)
{
	struct ear ear;
	struct ss_endpoint at;
	struct ss_diag why;
	ck_assert_int_ge(ss_resolve(text, SS_SCHEME_ANY, &at, 1, &why), 1);
	bool dgram =
		at.scheme == SS_SCHEME_UDP || at.scheme == SS_SCHEME_UNIXGRAM;
	ear.fd = socket(at.address.u.sa.sa_family,
			(dgram ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(ear.fd, &at.address.u.sa, at.address.len), 0);
	if (!dgram && backlog != DEAF)
		ck_assert_int_eq(listen(ear.fd, backlog), 0);
	at.address.len = sizeof(at.address.u);
	ck_assert_int_eq(getsockname(ear.fd, &at.address.u.sa, &at.address.len),
			 0);
	ss_url_format(at.scheme, &at.address, ear.url, sizeof(ear.url));
	return ear;
}

static const char *fresh_path(const char *scheme)
{
	static char text[2][SS_ADDRESS_TEXT];
	static int number;
	number++;
	snprintf(text[number % 2], sizeof(*text), "%s:%s/c%d", scheme,
		 scratch(), number);
	return text[number % 2];
}

/* Its client, within WAIT_MS. */
static int accept_at(const struct ear *ear)
{
	struct pollfd fd = { .fd = ear->fd, .events = POLLIN };
	ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
	int client = accept4(ear->fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(client, 0);
	return client;
}

/* Nobody else gets its port before the test's end. */
static struct ear dead = { .fd = -1 };

static const char *dead_url(void)
{
	dead = open_ear("tcp://127.0.0.1:0", DEAF);
	return dead.url;
}

static void bury(void)
{
	if (dead.fd != -1)
		close(dead.fd);
	dead.fd = -1;
}

static void set_up(void)
{
	real = sys_table;
}

static void tear_down(void)
{
	sys_table = real;
	bury();
}

/* A listener whose backlog is full: who connects gets no answer. */
enum { STUFFED = 8 };
struct hole {
	struct ear ear;
	int fds[STUFFED];
	int count;
};

static struct hole dig_hole(const char *text)
{
	struct hole hole = { .ear = open_ear(text, 0) };
	struct ss_endpoint at;
	struct ss_diag why;
	ss_resolve(hole.ear.url, SS_SCHEME_ANY, &at, 1, &why);
	for (bool full = false; !full;) {
		ck_assert_int_lt(hole.count, STUFFED);
		int fd = socket(at.address.u.sa.sa_family,
				SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		int r = connect(fd, &at.address.u.sa, at.address.len);
		struct pollfd ready = { .fd = fd, .events = POLLOUT };
		full = (r == -1 && errno == EAGAIN) || poll(&ready, 1, 50) == 0;
		hole.fds[hole.count++] = fd;
	}
	return hole;
}

static void close_hole(const struct hole *hole)
{
	for (int i = 0; i < hole->count; i++)
		close(hole->fds[i]);
	close(hole->ear.fd);
}

static const char *const kinds[] = { "tcp://127.0.0.1:0", "unix" };
enum { KINDS = 2 };

static const char *fresh_of(int kind)
{
	return kind == 0 ? kinds[0] : fresh_path(kinds[kind]);
}

/* ---- names ----------------------------------------------------------------*/

/* several.test, at this one's port. */
static const char *named(const char *url, const char *const *addresses)
{
	static char text[SS_ADDRESS_TEXT];
	sys_table.getaddrinfo = several_getaddrinfo;
	several_addresses = addresses;
	snprintf(text, sizeof(text), "tcp://several.test%s", strrchr(url, ':'));
	return text;
}

/* ---- calling, as a client program -----------------------------------------*/

static int call(const char *address, const struct ss_connect_options *options)
{
	struct ss_diag why = { .code = 1, .text = "stale" };
	int fd = ss_connect(NULL, address, options, &why);
	ck_assert_msg(fd >= 0, "%s: %d, %s", address, fd, why.text);
	ck_assert_int_eq(why.code, 0);
	ck_assert_str_eq(why.text, "");
	return fd;
}

static void expect_failure(const char *address,
			   const struct ss_connect_options *options, int code,
			   const char *text)
{
	struct ss_diag why = { 0 };
	int descriptors = open_descriptors();
	ck_assert_int_eq(ss_connect(NULL, address, options, &why), code);
	ck_assert_int_eq(why.code, code);
	ck_assert_msg(strstr(why.text, text), "\"%s\" lacks \"%s\"", why.text,
		      text);
	ck_assert_int_eq(open_descriptors(), descriptors);
	ck_assert_int_eq(ss_connect(NULL, address, options, NULL), code);
}

START_TEST(connects_to_a_stream)
{
	struct ear ear = open_ear(fresh_of(_i), 5);
	int fd = call(ear.url, NULL), other = accept_at(&ear);
	ck_assert_int_ne(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	send_text(fd, "there");
	expect_text(other, "there");
	close(fd);
	close(other);
	close(ear.fd);
}
END_TEST

START_TEST(connects_above_the_standard_descriptors)
{
	struct ear ear = open_ear(kinds[0], 5);
	close(0);
	int fd = call(ear.url, NULL);
	ck_assert_int_gt(fd, 2);
	close(fd);
	close(ear.fd);
}
END_TEST

START_TEST(connects_datagram_sockets)
{
	static const char *const schemes[] = { "udp://127.0.0.1:0",
					       "unixgram" };
	struct ear ear = open_ear(_i ? fresh_path(schemes[1]) : schemes[0], 0);
	int fd = call(ear.url, NULL);
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	char buf[16];
	send_text(fd, "question");
	ck_assert_int_eq(recvfrom(ear.fd, buf, sizeof(buf), 0,
				  (struct sockaddr *)&from, &len),
			 8);
	ck_assert_int_eq(
		sendto(ear.fd, "answer", 6, 0, (struct sockaddr *)&from, len),
		6);
	ck_assert_int_eq(recv_within(fd, buf, sizeof(buf), WAIT_MS), 6);
	close(fd);
	close(ear.fd);
}
END_TEST

START_TEST(who_is_not_there_is_named)
{
	const char *url = dead_url();
	char text[SS_ADDRESS_TEXT + 64];
	snprintf(text, sizeof(text), "%s: connect: Connection refused", url);
	expect_failure(url, NULL, -ECONNREFUSED, text);
	url = fresh_path("unix");
	snprintf(text, sizeof(text), "%s: connect: No such file", url);
	expect_failure(url, NULL, -ENOENT, text);
}
END_TEST

START_TEST(bad_addresses_are_refused)
{
	expect_failure("nonsense", NULL, -EINVAL, "nonsense: no port");
	expect_failure("memory:x\n", NULL, -EINVAL, "memory:x\\x0a: not an");
	expect_failure("fd:0", NULL, -EINVAL, "not an address to connect to");
	expect_failure("", NULL, -EINVAL, "\"\"");
	struct ss_connect_options later = { .struct_size = 4096 };
	expect_failure("127.0.0.1:1", &later, -EINVAL, "later version");
}
END_TEST

/* ---- options --------------------------------------------------------------*/

static void expect_source(const struct ear *ear, const char *source,
			  const char *host)
{
	struct ss_connect_options options = { .source = source };
	struct ss_address peer = { .len = sizeof(peer.u) };
	char text[SS_ADDRESS_TEXT];
	int fd = call(ear->url, &options), other = accept_at(ear);
	ck_assert_int_eq(getpeername(other, &peer.u.sa, &peer.len), 0);
	ck_assert_str_eq(ss_address_host(&peer, text, sizeof(text)), host);
	close(fd);
	close(other);
}

START_TEST(connects_from_a_source)
{
	struct ear ear = open_ear(kinds[0], 5), port = open_ear(kinds[0], 5);
	char text[SS_ADDRESS_TEXT];
	expect_source(&ear, "127.0.0.2", "127.0.0.2");
	expect_source(&ear, "tcp://127.0.0.3", "127.0.0.3");
	expect_source(&ear, "127.0.0.4:0", "127.0.0.4");
	/* A port that is free for another host. */
	snprintf(text, sizeof(text), "127.0.0.5%s", strrchr(port.url, ':'));
	expect_source(&ear, text, "127.0.0.5");
	close(ear.fd);
	close(port.fd);
	const char *source = fresh_path("unix");
	ear = open_ear(fresh_path("unix"), 5);
	expect_source(&ear, source, source + strlen("unix:"));
	close(ear.fd);
}
END_TEST

static void expect_no_source(const char *source, int code, const char *text)
{
	struct ear ear = open_ear(kinds[0], 5);
	struct ss_connect_options options = { .source = source };
	expect_failure(ear.url, &options, code, text);
	close(ear.fd);
}

START_TEST(sources_that_cannot_be_are_refused)
{
	static char endless[1000];
	memset(endless, 'x', sizeof(endless) - 1);
	expect_no_source("[::1]", -EAFNOSUPPORT, "bind: Address family");
	expect_no_source("192.0.2.77", -EADDRNOTAVAIL, "bind: Cannot assign");
	expect_no_source("127.0.0.1:1\n", -EINVAL, "127.0.0.1:1\\x0a: port");
	expect_no_source("unix:/tmp/x", -EINVAL, "unix:/tmp/x");
	expect_no_source("udp://127.0.0.1:0", -EINVAL, "udp://127.0.0.1:0");
	expect_no_source("fd:0", -EINVAL, "fd:0");
	expect_no_source(endless, -ENAMETOOLONG, "too long");
}
END_TEST

static int count_prepared(void *arg, int fd)
{
	int *count = arg, on = 1;
	++*count;
	return setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static int fail_to_prepare(void *arg, int fd)
{
	(void)arg, (void)fd;
	return -EPERM;
}

static int option_of(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);
	ck_assert_int_eq(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

START_TEST(sockets_are_prepared)
{
	int count = 0;
	struct ear ear = open_ear(kinds[0], 5);
	struct ss_connect_options options = { .prepare = count_prepared,
					      .arg = &count,
					      .disable_nagle_algorithm = true };
	int fd = call(ear.url, &options);
	ck_assert_int_eq(count, 1);
	ck_assert_int_eq(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	ck_assert_int_eq(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	close(fd);
	fd = call(ear.url, NULL);
	ck_assert_int_eq(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 0);
	close(fd);
	options.prepare = fail_to_prepare;
	expect_failure(ear.url, &options, -EPERM, "prepare: Operation not");
	close(ear.fd);
}
END_TEST

/* ---- several addresses ----------------------------------------------------*/

/* Those that refuse cost no delay. */
START_TEST(names_are_tried_until_one_answers)
{
	static const char *const list[] = { "::1",	 "127.0.0.9",
					    "127.0.0.8", "127.0.0.7",
					    "127.0.0.1", NULL };
	struct ear ear = open_ear(kinds[0], 5);
	const char *url = named(ear.url, list);
	slow_clock_install();
	slow_clock_begin();
	int64_t begun = clock_ms();
	int fd = call(url, NULL);
	ck_assert_int_lt(clock_ms() - begun, WAIT_MS);
	slow_clock_end();
	close(fd);
	close(ear.fd);
}
END_TEST

START_TEST(names_are_not_held_up_by_who_does_not_answer)
{
	static const char *const list[] = { "127.0.0.2", "127.0.0.1", NULL };
	struct ear ear = open_ear(kinds[0], 5);
	char silent[SS_ADDRESS_TEXT];
	snprintf(silent, sizeof(silent), "tcp://127.0.0.2%s",
		 strrchr(ear.url, ':'));
	struct hole hole = dig_hole(silent);
	int descriptors = open_descriptors();
	int64_t begun = clock_ms();
	int fd = call(named(ear.url, list), NULL);
	ck_assert_int_ge(clock_ms() - begun, 249);
	ck_assert_int_lt(clock_ms() - begun, SOON_MS);
	ck_assert_int_eq(open_descriptors(), descriptors + 1);
	int other = accept_at(&ear);
	close(fd);
	close(other);
	close_hole(&hole);
	close(ear.fd);
}
END_TEST

/* Nor does one who refuses hold up the next while another is silent. */
START_TEST(names_are_not_held_up_by_who_refuses)
{
	static const char *const list[] = { "127.0.0.2", "127.0.0.9",
					    "127.0.0.8", "127.0.0.7",
					    "127.0.0.1", NULL };
	struct ear ear = open_ear(kinds[0], 5);
	char silent[SS_ADDRESS_TEXT];
	snprintf(silent, sizeof(silent), "tcp://127.0.0.2%s",
		 strrchr(ear.url, ':'));
	struct hole hole = dig_hole(silent);
	const char *url = named(ear.url, list);
	slow_clock_install();
	slow_clock_begin();
	int64_t begun = clock_ms();
	int fd = call(url, NULL);
	ck_assert_int_lt(clock_ms() - begun, WAIT_MS);
	slow_clock_end();
	close(fd);
	close_hole(&hole);
	close(ear.fd);
}
END_TEST

/* Let to answer after all, while the second one is silent too. */
START_TEST(names_may_be_answered_by_the_first_after_all)
{
	static const char *const list[] = { "127.0.0.2", "127.0.0.3", NULL };
	struct ear port = open_ear(kinds[0], 5);
	char text[2][SS_ADDRESS_TEXT];
	struct hole holes[2];
	for (int i = 0; i < 2; i++) {
		snprintf(text[i], sizeof(*text), "tcp://%s%s", list[i],
			 strrchr(port.url, ':'));
		holes[i] = dig_hole(text[i]);
	}
	const char *url = named(port.url, list);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		pause_ms(500);
		for (int i = 0; i < holes[0].count; i++)
			accept(holes[0].ear.fd, NULL, NULL);
		pause_ms(WAIT_MS);
		_exit(0);
	}
	struct ss_address peer = { .len = sizeof(peer.u) };
	char host[SS_ADDRESS_TEXT];
	int fd = call(url, NULL);
	ck_assert_int_eq(getpeername(fd, &peer.u.sa, &peer.len), 0);
	ck_assert_str_eq(ss_address_host(&peer, host, sizeof(host)),
			 "127.0.0.2");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(fd);
	close_hole(&holes[0]);
	close_hole(&holes[1]);
	close(port.fd);
}
END_TEST

/* Two answers that come while nobody looks. */
static int knocks;

static int slow_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	if (sa->sa_family != AF_INET)
		return real.connect(fd, sa, len);
	knocks++;
	if (real.connect(fd, sa, len) == 0)
		errno = EINPROGRESS;
	return -1;
}

static int late_poll(struct pollfd *fds, nfds_t count, int ms)
{
	if (knocks == 2)
		return real.poll(fds, count, ms);
	return real.poll(NULL, 0, ms);
}

/* One of them is taken, and the other is let go. */
START_TEST(names_may_be_answered_by_two_at_once)
{
	static const char *const list[] = { "127.0.0.2", "127.0.0.1", NULL };
	struct ear first = open_ear(kinds[0], 5);
	char text[SS_ADDRESS_TEXT], byte;
	snprintf(text, sizeof(text), "tcp://127.0.0.2%s",
		 strrchr(first.url, ':'));
	struct ear second = open_ear(text, 5);
	const char *url = named(first.url, list);
	int descriptors = open_descriptors();
	sys_table.connect = slow_connect;
	sys_table.poll = late_poll;
	int fd = call(url, NULL);
	ck_assert_int_eq(open_descriptors(), descriptors + 1);
	int ends[2] = { accept_at(&first), accept_at(&second) };
	send_text(fd, "x");
	int alive = 0;
	for (int i = 0; i < 2; i++) {
		ssize_t n = recv_within(ends[i], &byte, 1, WAIT_MS);
		ck_assert_int_ge(n, 0);
		alive += (int)n;
		close(ends[i]);
	}
	ck_assert_int_eq(alive, 1);
	close(fd);
	close(first.fd);
	close(second.fd);
}
END_TEST

static int unreachable(int fd, const struct sockaddr *sa, socklen_t len)
{
	if (!elsewhere(sa))
		return real.connect(fd, sa, len);
	errno = ENETUNREACH;
	return -1;
}

START_TEST(names_of_which_none_answers_tell_the_most)
{
	static const char *const list[] = { "127.0.0.66", "127.0.0.1",
					    "127.0.0.67", NULL };
	static const char *const none[] = { "127.0.0.66", NULL };
	const char *url = dead_url();
	char text[2 * SS_ADDRESS_TEXT + 80];
	sys_table.connect = unreachable;
	const char *name = named(url, list);
	snprintf(text, sizeof(text), "%s: %s: connect: Connection refused",
		 name, url);
	expect_failure(name, NULL, -ECONNREFUSED, text);
	expect_failure(named(url, none), NULL, -ENETUNREACH, "127.0.0.66");
	sys_table.getaddrinfo = real.getaddrinfo;
	expect_failure("tcp://no-such-host.invalid:1", NULL,
		       ss_resolve("tcp://no-such-host.invalid:1", SS_SCHEME_ANY,
				  NULL, 0, NULL),
		       "no-such-host.invalid");
}
END_TEST

/* ---- time -----------------------------------------------------------------*/

START_TEST(nobody_is_waited_for_beyond_the_timeout)
{
	struct hole hole = dig_hole(fresh_of(_i));
	struct ss_connect_options options = { .timeout_ms = 150 };
	struct ss_diag why;
	int descriptors = open_descriptors();
	int64_t begun = clock_ms();
	ck_assert_int_eq(ss_connect(NULL, hole.ear.url, &options, &why),
			 -ETIMEDOUT);
	ck_assert_int_ge(clock_ms() - begun, 149);
	ck_assert_int_lt(clock_ms() - begun, SOON_MS);
	ck_assert_ptr_nonnull(strstr(why.text, hole.ear.url));
	ck_assert_ptr_nonnull(strstr(why.text, "timed out"));
	ck_assert_int_eq(open_descriptors(), descriptors);
	close_hole(&hole);
}
END_TEST

/* The kernel of a Unix socket does not tell when there is room again. */
START_TEST(full_backlogs_are_tried_again)
{
	struct hole hole = dig_hole(fresh_of(1));
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		pause_ms(200);
		close(accept(hole.ear.fd, NULL, NULL));
		_exit(0);
	}
	struct ss_connect_options options = { .timeout_ms = SS_NONE };
	int64_t begun = clock_ms();
	int fd = call(hole.ear.url, &options);
	ck_assert_int_ge(clock_ms() - begun, 100);
	ck_assert_int_lt(clock_ms() - begun, SOON_MS);
	waitpid(pid, NULL, 0);
	close(fd);
	close_hole(&hole);
}
END_TEST

static void interrupt(int signal)
{
	(void)signal;
}

/* Neither connect(2) nor poll(2) is undone by a signal. */
START_TEST(interruptions_change_nothing)
{
	struct hole hole = dig_hole(kinds[0]);
	struct ss_connect_options options = { .timeout_ms = 300 };
	struct sigaction action = { .sa_handler = interrupt };
	struct itimerval often = { { 0, 5000 }, { 0, 5000 } }, never = { 0 };
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	int64_t begun = clock_ms();
	int r = ss_connect(NULL, hole.ear.url, &options, NULL);
	setitimer(ITIMER_REAL, &never, NULL);
	ck_assert_int_eq(r, -ETIMEDOUT);
	ck_assert_int_ge(clock_ms() - begun, 299);
	close_hole(&hole);
}
END_TEST

static int interrupted_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	int r = real.connect(fd, sa, len);
	if (r == -1 && errno == EINPROGRESS)
		errno = EINTR;
	return r;
}

START_TEST(interrupted_connects_go_on)
{
	struct ear ear = open_ear(kinds[0], 5);
	sys_table.connect = interrupted_connect;
	int fd = call(ear.url, NULL);
	close(fd);
	close(ear.fd);
}
END_TEST

/* Its own port is its source: TCP would make it a connection to itself. */
START_TEST(nobody_connects_to_himself)
{
	const char *url = dead_url();
	bury();
	struct ss_connect_options options = { .source = url };
	struct ss_diag why;
	ck_assert_int_eq(ss_connect(NULL, url, &options, &why), -ECONNREFUSED);
	ck_assert_ptr_nonnull(strstr(why.text, url));
}
END_TEST

/* ---- what may fail --------------------------------------------------------*/

static int fail_socket(int family, int type, int protocol)
{
	return fails("socket", EMFILE) ? -1
				       : real.socket(family, type, protocol);
}

static int fail_setsockopt(int fd, int level, int name, const void *value,
			   socklen_t len)
{
	/* What only saves ports may fail. */
	if (level == IPPROTO_IP)
		return real.setsockopt(fd, level, name, value, len);
	return fails("setsockopt", ENOPROTOOPT)
		       ? -1
		       : real.setsockopt(fd, level, name, value, len);
}

static int fail_getpeername(int fd, struct sockaddr *sa, socklen_t *len)
{
	return fails("getpeername", ENOTCONN) ? -1
					      : real.getpeername(fd, sa, len);
}

static int fail_bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	return fails("bind", EADDRINUSE) ? -1 : real.bind(fd, sa, len);
}

static int fail_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	return fails("connect", ENETUNREACH) ? -1 : real.connect(fd, sa, len);
}

static int fail_poll(struct pollfd *fds, nfds_t n, int ms)
{
	return fails("poll", ENOMEM) ? -1 : real.poll(fds, n, ms);
}

static void install_faults(void)
{
	sys_table.socket = fail_socket;
	sys_table.setsockopt = fail_setsockopt;
	sys_table.getsockopt = fail_getsockopt;
	sys_table.getsockname = fail_getsockname;
	sys_table.getpeername = fail_getpeername;
	sys_table.bind = fail_bind;
	sys_table.connect = fail_connect;
	sys_table.poll = fail_poll;
	sys_table.pipe = fail_pipe;
	fail_memory();
}

/* Every call fails in turn: then it fails, says why, and leaves nothing. */
START_TEST(failures_leave_nothing)
{
	struct ear ear = open_ear(kinds[0], 50);
	struct ss_connect_options options = { .source = "127.0.0.1",
					      .disable_nagle_algorithm = true };
	install_faults();
	int n = 0;
	do {
		struct ss_diag why = { 0 };
		int descriptors = open_descriptors();
		fault.what = NULL;
		fault.left = ++n;
		int fd = ss_connect(NULL, ear.url, &options, &why);
		fault.left = 0;
		ck_assert_msg((fd < 0) == (fault.what != NULL), "%d: %s", n,
			      fault.what);
		if (fd < 0)
			ck_assert_msg(why.code == fd && why.text[0], "%s: %s",
				      fault.what, why.text);
		else
			close(fd);
		ck_assert_msg(open_descriptors() == descriptors, "%s",
			      fault.what);
	} while (fault.what);
	ck_assert_int_gt(n, 7);
	close(ear.fd);
}
END_TEST

/* Some are lost with the descriptors that there are not; one is enough. */
START_TEST(names_need_one_descriptor)
{
	static const char *const list[] = { "127.0.0.2", "127.0.0.1", NULL };
	struct ear ear = open_ear(kinds[0], 5);
	const char *url = named(ear.url, list);
	install_faults();
	sys_table.malloc = real.malloc;
	sys_table.calloc = real.calloc;
	fault.left = 1;
	int fd = call(url, NULL);
	ck_assert_str_eq(fault.what, "socket");
	close(fd);
	close(ear.fd);
}
END_TEST

/* ---- by handlers ----------------------------------------------------------*/

static char target[SS_ADDRESS_TEXT];
static struct ss_connect_options target_options;

/* Tells its client what came of it. */
static int tells_result(struct ss_request *req)
{
	struct ss_diag why;
	int64_t begun = clock_ms();
	int fd = ss_connect(req, target, &target_options, &why);
	if (fd < 0)
		return ss_printf(req, "%s, %s\n", strerror(-fd),
				 clock_ms() - begun > SOON_MS ? "late"
							      : "in time") < 0
			       ? -EIO
			       : 0;
	ck_assert_int_eq(send(fd, "from a handler", 14, 0), 14);
	close(fd);
	return ss_printf(req, "connected\n") < 0 ? -EIO : 0;
}

static const struct ss_handler telling = { .name = "telling",
					   .handle = tells_result,
					   .speaks_first = true };

static struct ss_config config_for(int model)
{
	struct ss_config config =
		config_of(&models[model], &transports[0], &telling);
	config.log_level = SS_NONE;
	return config;
}

START_TEST(handlers_connect)
{
	int model = _i / KINDS;
	struct ear ear = open_ear(fresh_of(_i % KINDS), 50);
	struct ss_config config = config_for(model);
	struct node node;
	snprintf(target, sizeof(target), "%s", ear.url);
	node_start(&node, &config);
	for (int i = 0; i < 5; i++) {
		int fd = dial(node.url), other = accept_at(&ear);
		expect_text(other, "from a handler");
		expect_end(other);
		expect_text(fd, "connected\n");
		close(fd);
		close(other);
	}
	ck_assert_int_eq(node_stop(&node), 0);
	close(ear.fd);
}
END_TEST

/* While the resolver takes its time. */
static int lookup_ms;

static int slow_getaddrinfo(const char *host, const char *service,
			    const struct addrinfo *hints,
			    struct addrinfo **result)
{
	if (!(hints->ai_flags & AI_NUMERICHOST))
		pause_ms(lookup_ms);
	return several_getaddrinfo(host, service, hints, result);
}

START_TEST(handlers_look_names_up)
{
	static const char *const list[] = { "127.0.0.2", "127.0.0.1", NULL };
	struct ear ear = open_ear(kinds[0], 50);
	struct ss_config config = config_for(_i);
	struct ss_fiber_options one = { .loops = 1 };
	struct node node;
	bool alone = model_sync(&models[_i]);
	lookup_ms = alone ? 50 : 700;
	for (struct ss_use *use = config.mixins; use->layer; use++)
		if (use->layer == &ss_fiber_mixin)
			use->options = &one;
	snprintf(target, sizeof(target), "%s", named(ear.url, list));
	sys_table.getaddrinfo = slow_getaddrinfo;
	node_start(&node, &config);
	sys_table = real;
	enum { CLIENTS = 4 };
	int fds[CLIENTS];
	int64_t begun = clock_ms();
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = dial(node.url);
	for (int i = 0; i < CLIENTS; i++)
		expect_text(fds[i], "connected\n");
	/* Where many share a thread nobody waits for another's name. */
	if (!alone)
		ck_assert_int_lt(clock_ms() - begun, (CLIENTS - 1) * lookup_ms);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	ck_assert_int_eq(node_stop(&node), 0);
	close(ear.fd);
}
END_TEST

START_TEST(handlers_are_told_what_failed)
{
	struct ss_config config = config_for(_i);
	struct node node;
	snprintf(target, sizeof(target), "%s", dead_url());
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, "Connection refused, in time\n");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
}
END_TEST

START_TEST(handlers_wait_until_the_timeout)
{
	int model = _i / KINDS;
	struct hole hole = dig_hole(fresh_of(_i % KINDS));
	struct ss_config config = config_for(model);
	struct node node;
	snprintf(target, sizeof(target), "%s", hole.ear.url);
	target_options.timeout_ms = 200;
	node_start(&node, &config);
	int fd = dial(node.url);
	expect_text(fd, "Connection timed out, in time\n");
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	close_hole(&hole);
}
END_TEST

/* After its own total nothing more can be said. */
START_TEST(handlers_wait_no_longer_than_they_may)
{
	struct hole hole = dig_hole(fresh_of(_i % KINDS));
	struct ss_config config = config_for(_i / KINDS);
	struct node node;
	snprintf(target, sizeof(target), "%s", hole.ear.url);
	target_options.timeout_ms = SS_NONE;
	config.timeouts.total_ms = 300;
	node_start(&node, &config);
	int64_t begun = clock_ms();
	int fd = dial(node.url);
	expect_end(fd);
	ck_assert_int_ge(clock_ms() - begun, 250);
	ck_assert_int_lt(clock_ms() - begun, SOON_MS);
	close(fd);
	ck_assert_int_eq(node_stop(&node), 0);
	close_hole(&hole);
}
END_TEST

START_TEST(handlers_that_connect_end_with_the_server)
{
	struct hole hole = dig_hole(fresh_of(_i % KINDS));
	struct ss_config config = config_for(_i / KINDS);
	struct node node;
	snprintf(target, sizeof(target), "%s", hole.ear.url);
	target_options.timeout_ms = SS_NONE;
	config.drain_ms = 200;
	node_start(&node, &config);
	int fd = dial(node.url);
	pause_ms(100);
	int64_t begun = clock_ms();
	ck_assert_int_eq(node_stop(&node), 0);
	ck_assert_int_lt(clock_ms() - begun, SOON_MS);
	close(fd);
	close_hole(&hole);
}
END_TEST

static atomic_int result;
static _Atomic uint64_t calling;

static int notes_result(struct ss_request *req)
{
	atomic_store(&calling, ss_request_id(req));
	atomic_store(&result, ss_connect(req, target, &target_options, NULL));
	return 0;
}

static const struct ss_handler noting = { .handle = notes_result,
					  .speaks_first = true };

/* By ss_cancel, and by ss_wake. */
START_TEST(handlers_that_connect_are_cancelled)
{
	const struct model *model = &models[_i / 2];
	bool cancel = _i % 2;
	struct hole hole = dig_hole(kinds[0]);
	struct ss_config config = config_of(model, &transports[0], &noting);
	struct served served;
	snprintf(target, sizeof(target), "%s", hole.ear.url);
	target_options.timeout_ms = SS_NONE;
	config.log_level = SS_NONE;
	served_start(&served, &config);
	int fd = dial(served.url);
	eventually(atomic_load(&calling));
	pause_ms(50);
	uint64_t id = atomic_load(&calling);
	ck_assert_int_eq(cancel ? ss_cancel(served.server, id)
				: ss_wake(served.server, id),
			 0);
	eventually(atomic_load(&result));
	ck_assert_int_eq(atomic_load(&result), cancel ? -ECANCELED : -EINTR);
	close(fd);
	served_stop(&served);
	close_hole(&hole);
}
END_TEST

Suite *t_connect(void)
{
	Suite *suite = suite_create("t_connect");
	TCase *tcase = suite_case(suite, "clients", set_up, tear_down);
	tcase_add_loop_test(tcase, connects_to_a_stream, 0, KINDS);
	tcase_add_test(tcase, connects_above_the_standard_descriptors);
	tcase_add_loop_test(tcase, connects_datagram_sockets, 0, 2);
	tcase_add_test(tcase, who_is_not_there_is_named);
	tcase_add_test(tcase, bad_addresses_are_refused);
	tcase_add_test(tcase, connects_from_a_source);
	tcase_add_test(tcase, sources_that_cannot_be_are_refused);
	tcase_add_test(tcase, sockets_are_prepared);
	tcase_add_test(tcase, names_are_tried_until_one_answers);
	tcase_add_test(tcase, names_are_not_held_up_by_who_does_not_answer);
	tcase_add_test(tcase, names_are_not_held_up_by_who_refuses);
	tcase_add_test(tcase, names_may_be_answered_by_the_first_after_all);
	tcase_add_test(tcase, names_may_be_answered_by_two_at_once);
	tcase_add_test(tcase, names_of_which_none_answers_tell_the_most);
	tcase_add_loop_test(tcase, nobody_is_waited_for_beyond_the_timeout, 0,
			    KINDS);
	tcase_add_test(tcase, full_backlogs_are_tried_again);
	tcase_add_test(tcase, interruptions_change_nothing);
	tcase_add_test(tcase, interrupted_connects_go_on);
	tcase_add_test(tcase, nobody_connects_to_himself);
	tcase_add_test(tcase, failures_leave_nothing);
	tcase_add_test(tcase, names_need_one_descriptor);
	tcase = suite_case(suite, "handlers", set_up, tear_down);
	tcase_add_loop_test(tcase, handlers_connect, 0, model_count * KINDS);
	tcase_add_loop_test(tcase, handlers_look_names_up, 0, model_count);
	tcase_add_loop_test(tcase, handlers_are_told_what_failed, 0,
			    model_count);
	tcase_add_loop_test(tcase, handlers_wait_until_the_timeout, 0,
			    model_count * KINDS);
	tcase_add_loop_test(tcase, handlers_wait_no_longer_than_they_may, 0,
			    model_count * KINDS);
	tcase_add_loop_test(tcase, handlers_that_connect_end_with_the_server, 0,
			    model_count * KINDS);
	for (int i = 0; i < model_count; i++)
		if (!model_has(&models[i], &ss_forking_mixin) &&
		    !model_supervised(&models[i]))
			tcase_add_loop_test(tcase,
					    handlers_that_connect_are_cancelled,
					    2 * i, 2 * i + 2);
	return suite;
}
