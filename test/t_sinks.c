/*
 * Sinks for logs: what their lines look like to who reads them (json of Python,
 * rsyslogd, journald's convention), and that what does not arrive is said.
 */
#include "program.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>

Suite *t_sinks(void);

static struct ended got;

static const char *in_scratch(const char *name)
{
	static char paths[4][SS_ADDRESS_TEXT];
	static int number;
	char *path = paths[number++ % 4];
	snprintf(path, sizeof(*paths), "%s/%s", scratch(), name);
	return path;
}

/* ---- who listens ----------------------------------------------------------*/

/* A named pipe, as a file or as standard error, or syslog's socket. */
enum ear_kind { JSON_FIFO, SYSLOG, JSON_STDERR, JOURNAL, PLAIN, DEFAULT };
#ifdef SS_LINUX
enum { EARS = DEFAULT + 1 };
#else
enum { EARS = SYSLOG + 1 }; /* threads may wait for a pipe's room there */
#endif

static const enum ss_log_to ear_to[] = {
	SS_LOG_TO_JSON,	   SS_LOG_TO_SYSLOG, SS_LOG_TO_JSON,
	SS_LOG_TO_JOURNAL, SS_LOG_TO_STDERR, SS_LOG_TO_STDERR,
};

struct ear {
	enum ear_kind kind;
	const char *path;
	int fd;
	int saved; /* standard error meanwhile; -1 */
	struct ss_log_sink *sink;
	int delivered, reported;
	char last[4096]; /* the last line */
};

static int bound_syslog(const char *path, int type)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	unlink(path);
	int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void ear_attend(struct ear *ear)
{
	if (ear->kind == SYSLOG)
		ear->fd = bound_syslog(ear->path, SOCK_DGRAM);
	else
		ear->fd = open(ear->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ck_assert_int_ge(ear->fd, 0);
}

static void ear_turn_away(struct ear *ear)
{
	close(ear->fd);
	if (ear->kind == SYSLOG)
		unlink(ear->path);
}

static struct ss_log_sink *made_sink(const struct ss_log_options *options)
{
	struct ss_log_sink *sink;
	struct ss_diag why;
	ck_assert_msg(ss_log_sink_new(&sink, options, &why) == 0, "%s",
		      why.text);
	return sink;
}

static void ear_open(struct ear *ear, enum ear_kind kind)
{
	*ear = (struct ear){ .kind = kind, .saved = -1 };
	ear->path = in_scratch("ear");
	if (kind != SYSLOG)
		ck_assert_int_eq(mkfifo(ear->path, 0600), 0);
	ear_attend(ear);
	if (kind >= JSON_STDERR) {
		int fd = open(ear->path, O_WRONLY | O_CLOEXEC);
		ear->saved = fcntl(2, F_DUPFD_CLOEXEC, 3);
		ck_assert_int_eq(dup2(fd, 2), 2);
		close(fd);
	}
	struct ss_log_options options = { .to = ear_to[kind] };
	if (kind < JSON_STDERR)
		options.path = ear->path;
	ear->sink = made_sink(&options);
}

static void ear_close(struct ear *ear)
{
	ss_log_sink_free(ear->sink);
	if (ear->saved >= 0) {
		ck_assert_int_eq(dup2(ear->saved, 2), 2);
		close(ear->saved);
	}
	ear_turn_away(ear);
}

/* It gets nothing more until it listens again; the empty lines are ours. */
static void ear_fill(const struct ear *ear)
{
	char newlines[4096];
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd;
	if (ear->kind != SYSLOG) {
		fd = open(ear->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	} else {
		snprintf(un.sun_path, sizeof(un.sun_path), "%s", ear->path);
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		ck_assert_int_eq(
			connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	}
	ck_assert_int_ge(fd, 0);
	memset(newlines, '\n', sizeof(newlines));
	for (size_t n = sizeof(newlines); n > 0; n /= 4096)
		while (write(fd, newlines, n) > 0)
			;
	ck_assert_int_eq(errno, EAGAIN);
	close(fd);
}

static void hear_line(struct ear *ear, const char *line, size_t n)
{
	int lines;
	const char *note = NULL;
	if (n == 0)
		return;
	ck_assert_uint_lt(n, sizeof(ear->last));
	memcpy(ear->last, line, n);
	ear->last[n] = '\0';
	bool json = ear_to[ear->kind] == SS_LOG_TO_JSON;
	if (json)
		note = strstr(ear->last, ",\"msg\":\"");
	else
		note = strstr(ear->last, ": ");
	ck_assert_msg(note && (!json || (*line == '{' && line[n - 1] == '}')),
		      "no whole line: %s", ear->last);
	if (!strstr(ear->last, " dropped")) {
		ear->delivered++;
		return;
	}
	note += strcspn(note, "0123456789");
	ck_assert_int_eq(sscanf(note, "%d line", &lines), 1);
	ear->reported += lines;
}

/* What there is. */
static void hear(struct ear *ear)
{
	static char bytes[1 << 17];
	size_t have_bytes = 0;
	ssize_t n;
	struct pollfd fd = { .fd = ear->fd, .events = POLLIN };
	while (poll(&fd, 1, 0) == 1 && (fd.revents & POLLIN) &&
	       (n = read(ear->fd, bytes + have_bytes,
			 sizeof(bytes) - have_bytes)) >= 0) {
		have_bytes += (size_t)n;
		const char *at = bytes, *end = bytes + have_bytes, *newline;
		while ((newline = memchr(at, '\n', (size_t)(end - at)))) {
			hear_line(ear, at, (size_t)(newline - at));
			at = newline + 1;
		}
		if (ear->kind == SYSLOG) {
			hear_line(ear, at, (size_t)(end - at));
			at = end;
		}
		have_bytes = (size_t)(end - at);
		memmove(bytes, at, have_bytes);
	}
	ck_assert_msg(have_bytes == 0, "part of a line: %.*s", (int)have_bytes,
		      bytes);
}

static void say(struct ear *ear, const char *text)
{
	ss_log_sink_write(ear->sink, SS_LOG_WARNING, NULL, 0, text);
}

/* One more line, now that there is room: everything is accounted for. */
static void adds_up(struct ear *ear, int written)
{
	hear(ear);
	say(ear, "the end");
	hear(ear);
	ck_assert_ptr_nonnull(strstr(ear->last, "the end"));
	ck_assert_int_eq(ear->reported, (int)ss_log_sink_dropped(ear->sink));
	ck_assert_int_eq(ear->delivered + ear->reported, written + 1);
}

/* ---- options --------------------------------------------------------------*/

#define LONG_49 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LONG_108 LONG_49 "/" LONG_49 "/aaaaaaaa"

static const struct bad {
	struct ss_log_options options;
	const char *part;
} bad[] = {
	{ { .to = (enum ss_log_to) - 1 }, "to: is -1" },
	{ { .to = SS_LOG_TO_JSON + 1 }, "to: is 5" },
	{ { .facility = 0x10000 }, "facility" },
	{ { .facility = LOG_DAEMON | LOG_ERR }, "facility" },
	{ { .facility = -8 }, "facility" },
	{ { .ident = "" }, "name" },
	{ { .ident = "two words" }, "two words" },
	{ { .ident = "a[1]" }, "a[1]" },
	{ { .ident = "a]" }, "name" },
	{ { .ident = "a:" }, "a:" },
	{ { .ident = "a\n" }, "name" },
	{ { .ident = "\303\274" }, "name" },
	{ { .ident = LONG_49 }, "name" },
	{ { .path = "/tmp/x" }, "no path" },
	{ { .to = SS_LOG_TO_PLAIN, .path = "/tmp/x" }, "no path" },
	{ { .to = SS_LOG_TO_JOURNAL, .path = "/tmp/x" }, "no path" },
	{ { .to = SS_LOG_TO_JSON, .path = "" }, "absolute" },
	{ { .to = SS_LOG_TO_JSON, .path = "log" }, "absolute" },
	{ { .to = SS_LOG_TO_SYSLOG, .path = "log" }, "absolute" },
	{ { .to = SS_LOG_TO_SYSLOG, .path = "/" LONG_108 }, "too long" },
};

static void refused_sink(const struct ss_log_options *options, int code,
			 const char *part)
{
	struct ss_log_sink *sink = (void *)1;
	struct ss_diag why;
	int descriptors = open_descriptors();
	ck_assert_int_eq(ss_log_sink_new(&sink, options, &why), code);
	ck_assert_ptr_null(sink);
	ck_assert_int_eq(why.code, code);
	ck_assert_msg(strstr(why.text, part) != NULL, "\"%s\" lacks \"%s\"",
		      why.text, part);
	ck_assert_int_eq(ss_log_sink_new(&sink, options, NULL), code);
	ck_assert_int_eq(open_descriptors(), descriptors);
}

static char asked_for[108];

static int note_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)sa;
	(void)fd, (void)len;
	snprintf(asked_for, sizeof(asked_for), "%s", un->sun_path);
	errno = ENOENT;
	return -1;
}

START_TEST(sink_knows_where_syslog_is)
{
	const struct sys_table real = sys_table;
	const struct ss_log_options options = { .to = SS_LOG_TO_SYSLOG };
	struct ss_log_sink *sink;
	struct ss_diag why;
	sys_table.connect = note_connect;
	int r = ss_log_sink_new(&sink, &options, &why);
	sys_table = real;
	ck_assert_str_eq(asked_for, "/dev/log");
	if (r == 0)
		ss_log_sink_free(sink);
}
END_TEST

START_TEST(sink_refuses_options_that_make_no_sense)
{
	refused_sink(&bad[_i].options, -EINVAL, bad[_i].part);
}
END_TEST

START_TEST(sink_knows_options_of_other_libraries)
{
	struct {
		struct ss_log_options options;
		int more;
	} newer = { .more = 0 };
	struct ss_log_sink *sink;
	struct ss_diag why;
	ck_assert_int_eq(ss_log_sink_new_sized(&sink, &newer.options,
					       sizeof(newer), &why),
			 0);
	ss_log_sink_free(sink);
	newer.more = 1;
	ck_assert_int_eq(ss_log_sink_new_sized(&sink, &newer.options,
					       sizeof(newer), &why),
			 -E2BIG);
	ck_assert_ptr_null(sink);
	ck_assert_int_eq(ss_log_sink_new(&sink, NULL, &why), 0);
	ck_assert_int_eq(why.code, 0);
	ck_assert_uint_eq(ss_log_sink_dropped(sink), 0);
	ck_assert_int_eq(ss_log_sink_reopen(sink), 0);
	ss_log_sink_free(sink);
	ss_log_sink_free(NULL);
}
END_TEST

START_TEST(sink_says_what_it_cannot_open)
{
	struct ss_log_options options = { .to = SS_LOG_TO_JSON };
	options.path = in_scratch("none/log");
	refused_sink(&options, -ENOENT, options.path);
	options.path = scratch();
	refused_sink(&options, -EISDIR, options.path);
	options.path = in_scratch("fifo");
	ck_assert_int_eq(mkfifo(options.path, 0600), 0);
	refused_sink(&options, -ENXIO, options.path);
	options.to = SS_LOG_TO_SYSLOG;
	options.path = in_scratch("stream");
	int fd = bound_syslog(options.path, SOCK_STREAM);
	ck_assert_int_eq(listen(fd, 1), 0);
	refused_sink(&options, -EPROTOTYPE, options.path);
	close(fd);
}
END_TEST

static int fail_at, allocations;
static void *(*real_calloc)(size_t n, size_t size);
static void *(*real_malloc)(size_t n);
static void *(*real_mmap)(void *at, size_t n, int prot, int flags, int fd,
			  off_t offset);

static bool fails(void)
{
	return allocations++ == fail_at;
}

static void *failing_calloc(size_t n, size_t size)
{
	return fails() ? NULL : real_calloc(n, size);
}

static void *failing_malloc(size_t n)
{
	return fails() ? NULL : real_malloc(n);
}

static void *failing_mmap(void *at, size_t n, int prot, int flags, int fd,
			  off_t offset)
{
	if (!fails())
		return real_mmap(at, n, prot, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}

START_TEST(sink_survives_a_lack_of_memory)
{
	const struct ss_log_options options = { .to = SS_LOG_TO_JSON,
						.path = in_scratch("log"),
						.ident = "x" };
	struct ss_log_sink *sink;
	struct ss_diag why;
	struct sys_table real = sys_table;
	int r = -ENOMEM;
	real_calloc = real.calloc;
	real_malloc = real.malloc;
	real_mmap = real.mmap;
	sys_table.calloc = failing_calloc;
	sys_table.malloc = failing_malloc;
	sys_table.mmap = failing_mmap;
	int descriptors = open_descriptors();
	for (fail_at = 0; r == -ENOMEM; fail_at++) {
		allocations = 0;
		ck_assert_int_eq(open_descriptors(), descriptors);
		r = ss_log_sink_new(&sink, &options, &why);
	}
	sys_table = real;
	ck_assert_int_eq(r, 0);
	ck_assert_int_eq(fail_at, 5); /* itself, tally, path, ident */
	ss_log_sink_free(sink);
	ck_assert_int_eq(open_descriptors(), descriptors);
}
END_TEST

/* ---- forms ----------------------------------------------------------------*/

static void set_journal(const char *fmt, unsigned long dev, unsigned long ino)
{
	char text[80];
	snprintf(text, sizeof(text), fmt, dev, ino);
	setenv("JOURNAL_STREAM", text, 1);
}

static const char *line_of(struct ear *ear, enum ss_log_to to)
{
	const struct ss_log_options options = { .to = to, .ident = "me" };
	struct ss_log_sink *sink = made_sink(&options);
	ss_log_sink_write(sink, SS_LOG_WARNING, NULL, 7, "x");
	ss_log_sink_free(sink);
	hear(ear);
	return ear->last;
}

START_TEST(sink_marks_lines_for_journald)
{
	static const char *const others[] = { "",	   "%lu",
					      "%lu:",	   ":%lu",
					      "%lu:%lux",  "x%lu:%lu",
					      "%lu:0%lu0", "0%lu1:%lu" };
	struct ear ear;
	struct stat st;
	ear_open(&ear, PLAIN);
	ck_assert_int_eq(fstat(2, &st), 0);
	unsigned long dev = st.st_dev, ino = st.st_ino;
	unsetenv("JOURNAL_STREAM");
	ck_assert_str_eq(line_of(&ear, SS_LOG_TO_STDERR), "me: warning: #7 x");
	ck_assert_str_eq(line_of(&ear, SS_LOG_TO_JOURNAL),
			 "<4>me: warning: #7 x");
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
		set_journal(others[i], dev, ino);
		ck_assert_str_eq(line_of(&ear, SS_LOG_TO_STDERR),
				 "me: warning: #7 x");
	}
	set_journal("%lu:%lu", dev, ino);
	ck_assert_str_eq(line_of(&ear, SS_LOG_TO_STDERR),
			 "<4>me: warning: #7 x");
	ck_assert_str_eq(line_of(&ear, SS_LOG_TO_PLAIN), "me: warning: #7 x");
	ear_close(&ear);
}
END_TEST

static int nothing(struct ss_request *req)
{
	(void)req;
	return 0;
}

static const struct ss_handler idle_handler = { .handle = nothing };

/* A server that nobody serves, without a listener: it is there to log. */
static struct ss_server *quiet_server(struct ss_log_sink *sink)
{
	struct ss_config config = { .transport = &ss_memory_server,
				    .handler = &idle_handler,
				    .log_level = SS_LOG_DEBUG,
				    .no_bind = true };
	if (sink) {
		config.log = ss_log_sink_write;
		config.log_arg = sink;
	}
	return made(&config);
}

/* A server's own log does so too, as long as it is that stream. */
START_TEST(sink_of_a_server_marks_lines_for_journald)
{
	static const char *const lines[] = { "<3>socketserver: error: #9 x",
					     "<4>socketserver: warning: #9 x",
					     "<6>socketserver: info: #9 x",
					     "<7>socketserver: debug: #9 x" };
	struct ear ear;
	struct stat st;
	ear_open(&ear, DEFAULT);
	ck_assert_int_eq(fstat(2, &st), 0);
	set_journal("%lu:%lu", st.st_dev, st.st_ino);
	struct ss_server *server = quiet_server(NULL);
	for (int level = SS_LOG_ERROR; level <= SS_LOG_DEBUG; level++) {
		ss_log(server, level, 9, "x");
		hear(&ear);
		ck_assert_str_eq(ear.last, lines[level - SS_LOG_ERROR]);
	}
	int fds[2];
	char line[100] = "";
	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(dup2(fds[1], 2), 2);
	ss_log(server, SS_LOG_ERROR, 0, "x");
	ck_assert_int_gt(read(fds[0], line, sizeof(line) - 1), 0);
	ck_assert_str_eq(line, "socketserver: error: x\n");
	ck_assert_int_eq(ss_server_free(server), 0);
	ear_close(&ear);
}
END_TEST

START_TEST(sink_speaks_as_syslog_does)
{
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO,
					  LOG_DEBUG };
	char expected[200];
	struct ear ear;
	ear_open(&ear, SYSLOG);
	const struct ss_log_options options = { .to = SS_LOG_TO_SYSLOG,
						.path = ear.path,
						.ident = "me",
						.facility = LOG_LOCAL3 };
	struct ss_log_sink *sink = made_sink(&options);
	for (int level = SS_LOG_ERROR; level <= SS_LOG_DEBUG; level++) {
		ss_log_sink_write(sink, level, NULL, 12, "a\nb");
		hear(&ear);
		snprintf(expected, sizeof(expected), "<%d>me[%d]: #12 a?b",
			 LOG_LOCAL3 | priorities[level - SS_LOG_ERROR],
			 (int)getpid());
		ck_assert_str_eq(ear.last, expected);
	}
	ss_log_sink_free(sink);
	say(&ear, "hello");
	hear(&ear);
	snprintf(expected, sizeof(expected), "<%d>socketserver[%d]: hello",
		 LOG_DAEMON | LOG_WARNING, (int)getpid());
	ck_assert_str_eq(ear.last, expected);
	ear_close(&ear);
}
END_TEST

static int64_t wall;

static int64_t given_wall(void)
{
	return wall;
}

START_TEST(sink_tells_a_servers_name_in_json)
{
	struct ear ear;
	char expected[400], url[SS_ADDRESS_TEXT];
	ear_open(&ear, JSON_FIFO);
	struct ss_config config =
		config_of(&models[0], &transports[0], &idle_handler);
	config.log = ss_log_sink_write;
	config.log_arg = ear.sink;
	struct ss_server *server = made(&config);
	struct ss_server *quiet = quiet_server(ear.sink);
	struct sys_table real = sys_table;
	sys_table.wall_ms = given_wall;
	wall = 1763775600123;
	ss_log(server, SS_LOG_ERROR, 18446744073709551615U, "a \"%s\"", "\\");
	hear(&ear);
	snprintf(expected, sizeof(expected),
		 "{\"time\":\"2025-11-22T01:40:00.123Z\",\"level\":\"error\","
		 "\"ident\":\"socketserver\",\"pid\":%d,"
		 "\"id\":18446744073709551615,\"server\":\"%s\","
		 "\"msg\":\"a \\\"\\\\\\\"\"}",
		 (int)getpid(), ss_server_url(server, 0, url, sizeof(url)));
	ck_assert_str_eq(ear.last, expected);
	ss_log(quiet, SS_LOG_DEBUG, 0, "%s", "");
	hear(&ear);
	snprintf(expected, sizeof(expected),
		 "{\"time\":\"2025-11-22T01:40:00.123Z\",\"level\":\"debug\","
		 "\"ident\":\"socketserver\",\"pid\":%d,"
		 "\"server\":\"%s\",\"msg\":\"\"}",
		 (int)getpid(), ss_server_describe(quiet));
	ck_assert_str_eq(ear.last, expected);
	sys_table = real;
	ck_assert_int_eq(ss_server_free(server), 0);
	ck_assert_int_eq(ss_server_free(quiet), 0);
	ear_close(&ear);
}
END_TEST

/* One that is long, and full of what has to be escaped; and so is the ident. */
START_TEST(sink_has_room_for_any_servers_name)
{
	struct ear ear;
	char address[SS_ADDRESS_TEXT] = "unix:", ident[49] = "", end[40];
	ear_open(&ear, JSON_FIFO);
	ss_log_sink_free(ear.sink);
	memset(ident, '"', sizeof(ident) - 1);
	const struct ss_log_options options = { .to = SS_LOG_TO_JSON,
						.path = ear.path,
						.ident = ident };
	ear.sink = made_sink(&options);
	strcat(address, in_scratch(""));
	memset(address + strlen(address), 1, 5 + 107 - strlen(address));
	struct ss_config config =
		config_of(&models[0], &transports[2], &idle_handler);
	config.addresses[0] = address;
	config.log = ss_log_sink_write;
	config.log_arg = ear.sink;
	struct ss_server *server = made(&config);
	ear_fill(&ear);
	ss_log(server, SS_LOG_ERROR, UINT64_MAX, "%s", "");
	hear(&ear);
	ss_log(server, SS_LOG_ERROR, UINT64_MAX, "%s", "there is room");
	hear(&ear);
	ck_assert_int_eq(ear.reported, 1);
	snprintf(end, sizeof(end), "\",\"msg\":\"there is room\"}");
	ck_assert_str_eq(ear.last + strlen(ear.last) - strlen(end), end);
	ck_assert_int_eq(ss_server_free(server), 0);
	ear_close(&ear);
}
END_TEST

/* Every few days of three centuries, as the C library has them. */
START_TEST(sink_tells_the_date)
{
	struct ear ear;
	char expected[64];
	struct sys_table real = sys_table;
	ear_open(&ear, JSON_FIFO);
	sys_table.wall_ms = given_wall;
	for (wall = -1; wall < 300LL * 366 * 86400000;
	     wall += 86400000LL * 7 + 3723004) {
		time_t s = wall < 0 ? 0 : (time_t)(wall / 1000);
		struct tm tm;
		gmtime_r(&s, &tm);
		strftime(expected, sizeof(expected),
			 "{\"time\":\"%Y-%m-%dT%H:%M:%S.", &tm);
		say(&ear, "x");
		hear(&ear);
		ck_assert_mem_eq(ear.last, expected, strlen(expected));
		snprintf(expected, sizeof(expected), ".%03dZ\",\"",
			 wall < 0 ? 0 : (int)(wall % 1000));
		ck_assert_ptr_nonnull(strstr(ear.last, expected));
	}
	sys_table = real;
	say(&ear, "x");
	hear(&ear);
	/* time(2)'s clock lags a few milliseconds behind. */
	time_t now = time(NULL) + 1, then = now - 60;
	char earliest[64];
	strftime(earliest, sizeof(earliest), "{\"time\":\"%Y-%m-%dT%H:%M:%S",
		 gmtime(&then));
	strftime(expected, sizeof(expected),
		 "{\"time\":\"%Y-%m-%dT%H:%M:%S.999", gmtime(&now));
	ck_assert_int_ge(strcmp(ear.last, earliest), 0);
	ck_assert_int_le(strncmp(ear.last, expected, strlen(expected)), 0);
	ear_close(&ear);
}
END_TEST

/* ---- JSON, whatever clients send ------------------------------------------*/

/* The lines of argv[1] against the texts of argv[2], which are in hex. */
static const char checker[] =
	"import json, re, sys\n"
	"lines = open(sys.argv[1], 'rb').read().split(b'\\n')\n"
	"texts = open(sys.argv[2]).read().split('\\n')\n"
	"assert lines.pop() == b'' and texts.pop() == ''\n"
	"assert len(lines) == len(texts), (len(lines), len(texts))\n"
	"def squeeze(text):\n"
	"    return re.sub('\\ufffd+', '\\ufffd', text)\n"
	"for line, text in zip(lines, texts):\n"
	"    assert len(line) < 2048\n"
	"    got = json.loads(line.decode('utf-8', 'strict'))\n"
	"    assert list(got) == ['time', 'level', 'ident', 'pid', 'msg'], "
	"got\n"
	"    msg = squeeze(got['msg'])\n"
	"    text = squeeze(bytes.fromhex(text).decode('utf-8', 'replace'))\n"
	"    assert text.startswith(msg), (msg, text)\n"
	"    assert msg == text or len(line) > 2030, (msg, text)\n"
	"print(len(lines))\n";

struct corpus {
	FILE *texts;
	struct ss_log_sink *sink;
	int count;
};

static void put_text(struct corpus *corpus, const char *text)
{
	ss_log_sink_write(corpus->sink, SS_LOG_ERROR, NULL, 0, text);
	for (; *text; text++)
		fprintf(corpus->texts, "%02x", (unsigned char)*text);
	fputc('\n', corpus->texts);
	corpus->count++;
}

/* All pairs of bytes, and what comes near to characters of three and four. */
static void put_systematic(struct corpus *corpus)
{
	static const char *const heads[] = { "",	 "\340", "\341",
					     "\355",	 "\357", "\360",
					     "\360\220", "\364", "\364\217" };
	for (size_t h = 0; h < sizeof(heads) / sizeof(*heads); h++)
		for (int a = h ? 0x7e : 1; a < (h ? 0xc2 : 0x100); a++) {
			char text[320];
			size_t n = 0;
			for (int b = 1; b < 256; b += h ? 9 : 1) {
				n += (size_t)snprintf(
					text + n, sizeof(text) - n, "%s%c%c ",
					heads[h], a, b);
				if (n < 300)
					continue;
				put_text(corpus, text);
				n = 0;
			}
			put_text(corpus, text);
		}
}

static void put_random(struct corpus *corpus, unsigned seed)
{
	static const char *const parts[] = {
		"\"",	    "\\",	    "\n",
		"\303\274", "\342\202\254", "\360\237\230\200",
		"x"
	};
	for (int i = 0; i < 500; i++) {
		char text[1024];
		size_t n = 0, size = (size_t)rand_r(&seed) % 1000;
		bool mostly_good = rand_r(&seed) % 2;
		while (n < size)
			if (mostly_good && rand_r(&seed) % 8)
				n += (size_t)snprintf(text + n,
						      sizeof(text) - n, "%s",
						      parts[rand_r(&seed) % 7]);
			else
				text[n++] = (char)(1 + rand_r(&seed) % 255);
		text[n] = '\0';
		put_text(corpus, text);
	}
}

START_TEST(sink_writes_json_that_python_reads)
{
	if (missing("python3"))
		return;
	const struct ss_log_options options = { .to = SS_LOG_TO_JSON,
						.path = in_scratch("log") };
	const char *texts = in_scratch("texts");
	unsigned seed = (unsigned)time(NULL);
	struct corpus corpus = { .texts = fopen(texts, "w"),
				 .sink = made_sink(&options) };
	put_systematic(&corpus);
	put_random(&corpus, seed);
	ck_assert_int_eq(fclose(corpus.texts), 0);
	ss_log_sink_free(corpus.sink);
	program_run(&got, "",
		    ARGV("python3", "-c", checker, options.path, texts));
	ck_assert_msg(got.status == 0, "seed %u: %s", seed, got.err);
	ck_assert_int_eq(strtol(got.out, NULL, 10), corpus.count);
}
END_TEST

/* ---- what does not fit ----------------------------------------------------*/

enum { MANY = 100 };

START_TEST(sink_says_how_many_lines_were_dropped)
{
	struct ear ear;
	struct ss_stats stats;
	char said[40];
	ear_open(&ear, _i);
	struct ss_server *server = quiet_server(ear.sink);
	int written = 0;
	for (int round = 0; round < 3; round++) {
		int before = ear.reported, count = round == 1 ? 1 : MANY;
		ear_fill(&ear);
		for (int i = 0; i < count; i++)
			ss_log(server, SS_LOG_ERROR, 7, "nobody hears this");
		hear(&ear);
		ck_assert_int_eq(ear.reported, before);
		ss_log(server, SS_LOG_ERROR, 7, "there is room");
		hear(&ear);
		ck_assert_int_eq(ear.reported, before + count);
		ck_assert_ptr_nonnull(strstr(ear.last, "there is room"));
		written += count + 1;
	}
	ss_server_stats(server, &stats);
	ck_assert_uint_eq(stats.log_dropped, 2 * MANY + 1);
	ck_assert_uint_eq(ss_log_sink_dropped(ear.sink), 2 * MANY + 1);
	adds_up(&ear, written);
	/* At its end, if there is room. */
	ear_fill(&ear);
	say(&ear, "nobody hears this");
	hear(&ear);
	ss_log_sink_free(ear.sink);
	ear.sink = NULL;
	hear(&ear);
	snprintf(said, sizeof(said), "1 line was dropped");
	ck_assert_ptr_nonnull(strstr(ear.last, said));
	ck_assert_int_eq(ss_server_free(server), 0);
	ear_close(&ear);
}
END_TEST

/* With SIGPIPE as it is by default. */
START_TEST(sink_finds_its_reader_again)
{
	struct ear ear;
	signal(SIGPIPE, SIG_DFL);
	ear_open(&ear, _i);
	for (int round = 0; round < 3; round++) {
		ear_turn_away(&ear);
		for (int i = 0; i < MANY; i++)
			say(&ear, "nobody hears this");
		ear_attend(&ear);
		say(&ear, "hello");
		hear(&ear);
		ck_assert_int_eq(ear.reported, (round + 1) * MANY);
		ck_assert_ptr_nonnull(strstr(ear.last, "hello"));
	}
	adds_up(&ear, 3 * (MANY + 1));
	ear_close(&ear);
}
END_TEST

/* The daemon may come later than who logs. */
START_TEST(sink_waits_for_no_syslog_daemon)
{
	struct ear ear = { .kind = SYSLOG, .path = in_scratch("ear") };
	const struct ss_log_options options = { .to = SS_LOG_TO_SYSLOG,
						.path = ear.path };
	if (_i)
		close(bound_syslog(ear.path, SOCK_DGRAM));
	ear.sink = made_sink(&options);
	ear.saved = -1;
	say(&ear, "nobody hears this");
	ck_assert_int_eq(ss_log_sink_reopen(ear.sink),
			 _i ? -ECONNREFUSED : -ENOENT);
	ear_attend(&ear);
	adds_up(&ear, 1);
	ear_close(&ear);
}
END_TEST

/* Beyond the new root there is no path, but what is connected is. */
START_TEST(sink_is_connected_before_chroot)
{
	if (geteuid() != 0) {
		printf("skipped: the tests do not run as root\n");
		return;
	}
	struct ear ear;
	char inner[SS_ADDRESS_TEXT];
	int back = open("/", O_RDONLY | O_CLOEXEC);
	ear_open(&ear, SYSLOG);
	snprintf(inner, sizeof(inner), "%s/new", scratch());
	ck_assert_int_eq(mkdir(inner, 0700), 0);
	ck_assert_int_eq(chroot(inner), 0);
	say(&ear, "connected");
	hear(&ear);
	ck_assert_ptr_nonnull(strstr(ear.last, "connected"));
	ear_turn_away(&ear);
	say(&ear, "nobody hears this");
	/* There the daemon has a socket too, after its restart. */
	ck_assert_int_eq(mkdir("/tmp", 0700), 0);
	ck_assert_int_eq(mkdir(scratch(), 0700), 0);
	ear_attend(&ear);
	adds_up(&ear, 2);
	ck_assert_int_eq(ear.reported, 1);
	ear_close(&ear);
	ck_assert_int_eq(rmdir(scratch()) || rmdir("/tmp"), 0);
	ck_assert_int_eq(fchdir(back) || chroot("."), 0);
	close(back);
	ck_assert_int_eq(rmdir(inner), 0);
}
END_TEST

/* No file of this process grows beyond it: check's neither, to which every
 * ck_assert writes. */
static void limit_files(rlim_t size)
{
	struct rlimit limit;
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = size;
	setrlimit(RLIMIT_FSIZE, &limit);
}

/* The last space that there is takes a part of a line. */
START_TEST(sink_ends_a_line_that_a_full_disk_has_cut)
{
	struct ear ear = { .kind = JSON_FIFO,
			   .path = in_scratch("log"),
			   .saved = -1 };
	const struct ss_log_options options = { .to = SS_LOG_TO_JSON,
						.path = ear.path };
	char text[4096] = "";
	ear.sink = made_sink(&options);
	signal(SIGXFSZ, SIG_IGN);
	limit_files(150);
	for (int i = 0; i < 3; i++)
		say(&ear, "three lines, one of them whole");
	limit_files(RLIM_INFINITY);
	ck_assert_uint_eq(ss_log_sink_dropped(ear.sink), 2);
	say(&ear, "there is room");
	int fd = open(ear.path, O_RDONLY);
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 150);
	close(fd);
	ck_assert_int_eq(text[149] != '\n' && text[150] == '\n', 1);
	ck_assert_ptr_nonnull(strstr(text + 151, "\"2 lines were dropped\"}\n"
						 "{\"time\""));
	ck_assert_ptr_nonnull(strstr(text + 151, "\"there is room\"}\n"));
	ss_log_sink_free(ear.sink);
}
END_TEST

/* ---- while serving --------------------------------------------------------*/

enum { ROUNDS = 20, LINES = 10, AT_ONCE = 4 };

static atomic_int *written;

/* At level error alone: what a busy machine has the library say is less. */
static int chatty(struct ss_request *req)
{
	char buf[64];
	ssize_t n = ss_read(req, buf, sizeof(buf));
	int lines = n > 0 ? *buf == 'h' ? LINES : 1 : 0;
	atomic_fetch_add(written, lines);
	for (int i = 0; i < lines; i++)
		ss_logf(req, SS_LOG_ERROR, "%.*s, line %d of them all%100s",
			(int)n, buf, i, "");
	if (n > 0)
		n = ss_write(req, buf, (size_t)n);
	return n > 0 ? SS_AGAIN : (int)n;
}

static void chat(const struct node *node, const struct model *model,
		 struct ear *ear, bool listens)
{
	int fds[AT_ONCE], n = model->at_once == 1 ? 1 : AT_ONCE;
	for (int i = 0; i < n; i++)
		fds[i] = dial(node->url);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < n; i++)
			send_text(fds[i], "hello");
		for (int i = 0; i < n; i++)
			expect_text(fds[i], "hello");
		if (listens && round % 4 == 3)
			hear(ear);
	}
	for (int i = 0; i < n; i++)
		close(fds[i]);
}

/* One that is full and now and then heard; one that is gone until the end. */
START_TEST(sink_that_is_slow_or_broken_keeps_nobody)
{
	static const struct ss_handler handler = { .handle = chatty };
	const struct model *model = &models[_i % model_count];
	enum ear_kind kind = (enum ear_kind)(_i / model_count / 2);
	bool broken = _i / model_count % 2;
	struct ear ear;
	struct node node;
	ear_open(&ear, kind);
	written = ss_shared_alloc(sizeof(*written));
	struct ss_config config = config_of(model, &transports[0], &handler);
	config.log_level = SS_LOG_ERROR;
	config.log = kind == DEFAULT ? NULL : ss_log_sink_write;
	config.log_arg = ear.sink;
	if (broken)
		ear_turn_away(&ear); /* who serves has no reading end then */
	else
		ear_fill(&ear);
	node_start(&node, &config);
	chat(&node, model, &ear, !broken);
	if (broken)
		ear_attend(&ear);
	hear(&ear);
	echo_once(node.url, "one more");
	ck_assert_int_eq(node_stop(&node), 0);
	hear(&ear);
	ck_assert_int_gt(ear.reported, 0);
	ck_assert_int_eq(ear.delivered + ear.reported, atomic_load(written));
	if (kind != DEFAULT)
		ck_assert_int_eq(ear.reported,
				 (int)ss_log_sink_dropped(ear.sink));
	ear_close(&ear);
}
END_TEST

/* ---- files that are rotated -----------------------------------------------*/

static int lines_of(const char *path, const char *part)
{
	char line[4096];
	int n = 0;
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		n += strstr(line, part) && line[strlen(line) - 1] == '\n';
	if (file)
		fclose(file);
	return n;
}

START_TEST(sink_opens_a_rotated_file_anew)
{
	struct ear ear = { .saved = -1 };
	struct stat st;
	const char *path = in_scratch("log"), *old = in_scratch("log.1");
	const struct ss_log_options options = { .to = SS_LOG_TO_JSON,
						.path = path };
	umask(022);
	ear.sink = made_sink(&options);
	int descriptors = open_descriptors();
	say(&ear, "one");
	ck_assert_int_eq(rename(path, old), 0);
	say(&ear, "two");
	ck_assert_int_eq(lines_of(old, "two"), 1);
	ck_assert_int_eq(ss_log_sink_reopen(ear.sink), 0);
	say(&ear, "three");
	ck_assert_int_eq(lines_of(old, ""), 2);
	ck_assert_int_eq(lines_of(path, "three"), 1);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0640);
	/* Appended to. */
	ck_assert_int_eq(ss_log_sink_reopen(ear.sink), 0);
	say(&ear, "four");
	ck_assert_int_eq(lines_of(path, ""), 2);
	ck_assert_int_eq(truncate(path, 0), 0);
	say(&ear, "five");
	ck_assert_int_eq(lines_of(path, ""), 1);
	/* Where it cannot be opened it stays. */
	ck_assert_int_eq(unlink(path) || mkdir(path, 0700), 0);
	ck_assert_int_eq(ss_log_sink_reopen(ear.sink), -EISDIR);
	say(&ear, "six");
	ck_assert_uint_eq(ss_log_sink_dropped(ear.sink), 0);
	ck_assert_int_eq(open_descriptors(), descriptors);
	ck_assert_int_eq(rmdir(path), 0);
	ss_log_sink_free(ear.sink);
	ck_assert_int_eq(open_descriptors(), descriptors - 1);
}
END_TEST

START_TEST(sink_is_close_on_exec)
{
	const struct ss_log_options options = { .to = SS_LOG_TO_JSON,
						.path = in_scratch("log") };
	struct ss_log_sink *sink = made_sink(&options);
	ck_assert_int_eq(ss_log_sink_reopen(sink), 0);
	program_run(&got, "", ARGV("sh", "-c", "ls -l /proc/self/fd"));
	ck_assert_ptr_null(strstr(got.out, options.path));
	ss_log_sink_free(sink);
}
END_TEST

static struct ss_log_sink *rotated;
static atomic_bool rotating;

static void *log_meanwhile(void *arg)
{
	int *count = arg;
	for (*count = 0; *count < 100 || atomic_load(&rotating); ++*count)
		ss_log_sink_write(rotated, SS_LOG_INFO, NULL, 1, "x");
	return NULL;
}

/* Threads write while it happens, and no line is lost or cut. */
START_TEST(sink_loses_nothing_while_it_is_rotated)
{
	enum { WRITERS = 4, TIMES = 20 };
	pthread_t thread[WRITERS];
	int counts[WRITERS], lines = 0, sum = 0;
	char path[SS_ADDRESS_TEXT], old[SS_ADDRESS_TEXT + 12];
	snprintf(path, sizeof(path), "%s", in_scratch("log"));
	const struct ss_log_options options = { .to = SS_LOG_TO_JSON,
						.path = path };
	rotated = made_sink(&options);
	atomic_store(&rotating, true);
	for (int i = 0; i < WRITERS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, log_meanwhile,
						&counts[i]),
				 0);
	for (int i = 0; i < TIMES; i++) {
		snprintf(old, sizeof(old), "%s.%d", path, i);
		eventually(lines_of(path, "x") > 0);
		ck_assert_int_eq(rename(path, old), 0);
		ck_assert_int_eq(ss_log_sink_reopen(rotated), 0);
	}
	atomic_store(&rotating, false);
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(thread[i], NULL);
		sum += counts[i];
	}
	for (int i = 0; i < TIMES; i++) {
		snprintf(old, sizeof(old), "%s.%d", path, i);
		lines += lines_of(old, "\"msg\":\"x\"}\n");
	}
	lines += lines_of(path, "\"msg\":\"x\"}\n");
	ck_assert_int_eq(lines, sum);
	ss_log_sink_free(rotated);
}
END_TEST

/* ---- programs -------------------------------------------------------------*/

static void quit(struct program *server)
{
	program_stop(server, SIGTERM, &got);
	ck_assert_str_eq(got.err, "");
	ck_assert_int_eq(got.status, 0);
}

/* SIGHUP reaches workers too: by new ones. */
START_TEST(sink_of_the_echo_server_is_rotated)
{
	char to[SS_ADDRESS_TEXT + 8];
	const char *path = in_scratch("log"), *old = in_scratch("log.1");
	struct program server = { 0 };
	snprintf(to, sizeof(to), "json:%s", path);
	program_start(&server, ARGV(demo("echo_server"), "-m", models[_i].name,
				    "-v", "--log-to", to, "127.0.0.1:0"));
	char url[SS_ADDRESS_TEXT];
	snprintf(url, sizeof(url), "%s", program_listening(&server));
	echo_once(url, "hello");
	eventually(lines_of(path, "end, status 0") > 0);
	ck_assert_int_gt(lines_of(path, "\"ident\":\"echo_server\""), 0);
	ck_assert_int_gt(lines_of(path, url), 0);
	ck_assert_int_eq(rename(path, old), 0);
	kill(server.pid, SIGHUP);
	eventually(access(path, F_OK) == 0);
	/* An old worker may take who comes now. */
	eventually((echo_once(url, "hello"), lines_of(path, "bytes out") > 0));
	quit(&server);
}
END_TEST

START_TEST(sink_of_the_echo_server_is_journald)
{
	char command[2048], text[4096] = "";
	const char *path = in_scratch("err");
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	struct program server = { .err_to = path };
	snprintf(command, sizeof(command),
		 "JOURNAL_STREAM=$(stat -L -c %%d:%%i /proc/$$/fd/2) "
		 "exec %s -v %s 127.0.0.1:0",
		 demo("echo_server"), _i ? "--log-to stderr" : "");
	program_start(&server, ARGV("sh", "-c", command));
	echo_once(program_listening(&server), "hello");
	program_stop(&server, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
	int fd = open(path, O_RDONLY);
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
	close(fd);
	ck_assert_ptr_eq(strstr(text, _i ? "<6>echo_server: info: #1 request"
					 : "<6>socketserver: info: #1 request"),
			 text);
}
END_TEST

START_TEST(sink_of_the_echo_server_is_checked)
{
	static const struct {
		const char *to;
		int status;
		const char *why;
	} wrong[] = {
		{ "", 2, "expected stderr" },
		{ "file", 2, "expected stderr" },
		{ "jso", 2, "expected stderr" },
		{ "json:", 2, "expected stderr" },
		{ "json:log", 2, "expected stderr" },
		{ "stderr:/tmp/x", 2, "expected stderr" },
		{ "json:/none/log", 1, "No such file" },
		{ "json:/", 1, "Is a directory" },
	};
	program_run(&got, "",
		    ARGV(demo("echo_server"), "--log-to", wrong[_i].to,
			 "127.0.0.1:0"));
	ck_assert_int_eq(got.status, wrong[_i].status);
	ck_assert_str_eq(got.out, "");
	ck_assert_ptr_nonnull(strstr(got.err, wrong[_i].why));
	ck_assert_ptr_eq(strchr(got.err, '\n'), got.err + strlen(got.err) - 1);
}
END_TEST

/* ---- a real daemon --------------------------------------------------------*/

static const char *rsyslogd(void)
{
	return have("rsyslogd") ? "rsyslogd" : "/usr/sbin/rsyslogd";
}

static void rsyslog_configure(const char *path, const char *socket)
{
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fprintf(file,
		"module(load=\"imuxsock\" SysSock.Use=\"off\")\n"
		"input(type=\"imuxsock\" Socket=\"%s\" "
		"RateLimit.Interval=\"0\")\n"
		"template(name=\"t\" type=\"string\" string=\"%%syslogfacility-"
		"text%%.%%syslogseverity-text%% %%app-name%% %%procid%% "
		"%%msg%%\\n\")\n"
		"*.* action(type=\"omfile\" file=\"%s\" template=\"t\" "
		"asyncWriting=\"off\")\n",
		socket, in_scratch("messages"));
	ck_assert_int_eq(fclose(file), 0);
}

static void rsyslog_start(struct program *program, const char *socket)
{
	*program = (struct program){ 0 };
	program_start(program, ARGV(rsyslogd(), "-n", "-iNONE", "-f",
				    in_scratch("rsyslog.conf")));
	eventually(access(socket, F_OK) == 0);
}

START_TEST(sink_is_read_by_rsyslog)
{
	if (access(rsyslogd(), X_OK) != 0 && missing("rsyslogd"))
		return;
	char line[200], messages[SS_ADDRESS_TEXT], socket[SS_ADDRESS_TEXT];
	struct program daemon;
	snprintf(socket, sizeof(socket), "%s", in_scratch("ear"));
	snprintf(messages, sizeof(messages), "%s", in_scratch("messages"));
	rsyslog_configure(in_scratch("rsyslog.conf"), socket);
	rsyslog_start(&daemon, socket);
	const struct ss_log_options options = { .to = SS_LOG_TO_SYSLOG,
						.path = socket,
						.ident = "me",
						.facility = LOG_LOCAL3 };
	struct ss_log_sink *sink = made_sink(&options);
	ss_log_sink_write(sink, SS_LOG_WARNING, NULL, 7, "x: %s y\n z");
	snprintf(line, sizeof(line), "local3.warning me %d  #7 x: %%s y? z\n",
		 (int)getpid());
	eventually(lines_of(messages, line) == 1);
	program_stop(&daemon, SIGTERM, &got);
	ck_assert_int_eq(got.status, 0);
	unlink(socket);
	ss_log_sink_write(sink, SS_LOG_ERROR, NULL, 0, "nobody is there");
	ck_assert_uint_eq(ss_log_sink_dropped(sink), 1);
	rsyslog_start(&daemon, socket);
	eventually((ss_log_sink_write(sink, SS_LOG_ERROR, NULL, 0, "again"),
		    lines_of(messages, "again\n") > 0));
	ck_assert_int_eq(lines_of(messages, "local3.warning me"), 2);
	ck_assert_int_eq(lines_of(messages, " dropped\n"), 1);
	program_stop(&daemon, SIGTERM, &got);
	ss_log_sink_free(sink);
}
END_TEST

/* ---- the suite ------------------------------------------------------------*/

static void add_forms(Suite *suite)
{
	TCase *tcase = suite_case(suite, "forms", NULL, NULL);
	tcase_add_test(tcase, sink_marks_lines_for_journald);
	tcase_add_test(tcase, sink_of_a_server_marks_lines_for_journald);
	tcase_add_test(tcase, sink_speaks_as_syslog_does);
	tcase_add_test(tcase, sink_tells_a_servers_name_in_json);
	tcase_add_test(tcase, sink_has_room_for_any_servers_name);
	tcase_add_test(tcase, sink_tells_the_date);
	tcase_add_test(tcase, sink_writes_json_that_python_reads);
}

static void add_drops(Suite *suite)
{
	TCase *tcase = suite_case(suite, "what does not fit", NULL, NULL);
	tcase_add_loop_test(tcase, sink_says_how_many_lines_were_dropped, 0,
			    PLAIN + 1);
	tcase_add_loop_test(tcase, sink_finds_its_reader_again, 0, PLAIN + 1);
	tcase_add_loop_test(tcase, sink_waits_for_no_syslog_daemon, 0, 2);
	tcase_add_test(tcase, sink_is_connected_before_chroot);
	tcase_add_test(tcase, sink_ends_a_line_that_a_full_disk_has_cut);
	tcase_add_loop_test(tcase, sink_that_is_slow_or_broken_keeps_nobody, 0,
			    EARS * 2 * model_count);
}

static void add_programs(Suite *suite)
{
	TCase *tcase = suite_case(suite, "programs", NULL, NULL);
	tcase_add_loop_test(tcase, sink_of_the_echo_server_is_rotated, 0,
			    plain_count);
	tcase_add_loop_test(tcase, sink_of_the_echo_server_is_journald, 0, 2);
	tcase_add_loop_test(tcase, sink_of_the_echo_server_is_checked, 0, 8);
	tcase_add_test(tcase, sink_is_read_by_rsyslog);
}

Suite *t_sinks(void)
{
	Suite *suite = suite_create("t_sinks");
	TCase *tcase = suite_case(suite, "options", NULL, NULL);
	tcase_add_loop_test(tcase, sink_refuses_options_that_make_no_sense, 0,
			    sizeof(bad) / sizeof(*bad));
	tcase_add_test(tcase, sink_knows_where_syslog_is);
	tcase_add_test(tcase, sink_knows_options_of_other_libraries);
	tcase_add_test(tcase, sink_says_what_it_cannot_open);
	tcase_add_test(tcase, sink_survives_a_lack_of_memory);
	add_forms(suite);
	add_drops(suite);
	tcase = suite_case(suite, "files", NULL, NULL);
	tcase_add_test(tcase, sink_opens_a_rotated_file_anew);
	tcase_add_test(tcase, sink_is_close_on_exec);
	tcase_add_test(tcase, sink_loses_nothing_while_it_is_rotated);
	add_programs(suite);
	return suite;
}
