/*
 * Lines of the log on their way: to standard error, a file, or the syslog
 * daemon.  Nothing here waits, kills, or is lost without being counted; and
 * what was lost is said by the next line that fits.
 */
#include "sink.h"

#include <errno.h>
#include <string.h>

/* ---- standard error -------------------------------------------------------*/

/* As systemd.exec(5) has it: "8:1234", the device and inode of its stream. */
static void find_journal(struct sink *sink)
{
	const char *text = getenv("JOURNAL_STREAM");
	char *end;
	if (!text)
		return;
	errno = 0;
	unsigned long long dev = strtoull(text, &end, 10);
	if (end == text || *end != ':')
		return;
	text = end + 1;
	unsigned long long ino = strtoull(text, &end, 10);
	if (end == text || *end || errno)
		return;
	sink->journal_dev = (dev_t)dev;
	sink->journal_ino = (ino_t)ino;
}

/*
 * A program may have none.  Then a client's socket can be descriptor 2 for a
 * moment, until it is moved up, and a line written in that moment would reach
 * the client: so who had none at the start gets no line, and of sockets only
 * the one that was there then, since it may have been closed later.
 */
void sink_init(struct sink *sink)
{
	struct stat st;
	sink->fd = -1;
	sink->ident = "socketserver";
	sink->no_stderr = sys_fstat(STDERR_FILENO, &st) == -1;
	if (!sink->no_stderr && S_ISSOCK(st.st_mode))
		sink->stderr_socket = st.st_ino;
	find_journal(sink);
}

/* Is there a standard error, and is it the program's? */
static bool may_write(const struct sink *sink, struct stat *st)
{
	return !sink->no_stderr && sys_fstat(STDERR_FILENO, st) == 0 &&
	       (!S_ISSOCK(st->st_mode) || st->st_ino == sink->stderr_socket);
}

/*
 * Its O_NONBLOCK is the program's to set, not ours.  Hence a description of
 * our own, without which a terminal that has room for a byte blocks the rest
 * of the line, and a pipe's last room may be taken since it was asked.  A
 * file's would write elsewhere.  -1: so it must go.
 */
static int reopen_stderr(const struct stat *st)
{
#ifdef SS_LINUX
	if (S_ISFIFO(st->st_mode) || S_ISCHR(st->st_mode))
		return sys_open("/proc/self/fd/2",
				O_WRONLY | O_NONBLOCK | O_NOCTTY, 0);
#else
	(void)st;
#endif
	return -1;
}

static ssize_t write_quietly(int fd, const char *bytes, size_t n)
{
	struct sys_sigpipe saved;
	sys_sigpipe_block(&saved);
	ssize_t r = sys_write(fd, bytes, n);
	sys_sigpipe_restore(&saved);
	return r;
}

/* A pipe that is writable takes what PIPE_BUF holds (pipe(7)). */
static ssize_t write_stderr(const struct stat *st, const char *bytes, size_t n)
{
	struct pollfd err = { .fd = STDERR_FILENO, .events = POLLOUT };
	if (S_ISSOCK(st->st_mode))
		return sys_send(STDERR_FILENO, bytes, n,
				MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sys_poll(&err, 1, 0) != 1 || !(err.revents & POLLOUT))
		return -1;
	int own = reopen_stderr(st);
	ssize_t r = write_quietly(own >= 0 ? own : STDERR_FILENO, bytes, n);
	if (own >= 0)
		sys_close(own);
	return r;
}

/* ---- the syslog daemon ----------------------------------------------------*/

/* By its path, whatever it was connected to: after the daemon's restart. */
int sink_connect(const struct sink *sink)
{
	const struct ss_address *to = sink->daemon;
	return sys_connect(sink->fd, &to->u.sa, to->len) == -1 ? -errno : 0;
}

/* A datagram.  The processes share the socket: who connects does so for all. */
static bool send_line(const struct sink *sink, const char *line, size_t n)
{
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	if (sys_send(sink->fd, line, n, flags) != -1)
		return true;
	if (errno != ECONNREFUSED && errno != ENOTCONN && errno != ECONNRESET)
		return false;
	return sink_connect(sink) == 0 &&
	       sys_send(sink->fd, line, n, flags) != -1;
}

/* ---- a line, and before it what was dropped -------------------------------*/

/* [0, note): what was dropped, and before it the end of a line that has none;
 * [note, n): the line. */
struct parcel {
	struct stat st; /* of standard error */
	size_t note, n;
	char *bytes;
};

/* How many bytes went. */
static size_t deliver(const struct sink *sink, const struct parcel *parcel)
{
	const char *bytes = parcel->bytes;
	size_t note = parcel->note, n = parcel->n;
	ssize_t r;
	if (sink->to == SS_LOG_TO_SYSLOG) {
		if (note && !send_line(sink, bytes, note))
			return 0;
		return note == n || send_line(sink, bytes + note, n - note)
			       ? n
			       : note;
	}
	if (sink->fd >= 0)
		r = write_quietly(sink->fd, bytes, n);
	else
		r = write_stderr(&parcel->st, bytes, n);
	return r > 0 ? (size_t)r : 0;
}

static bool marked(const struct sink *sink, const struct stat *st)
{
	return sink->to == SS_LOG_TO_JOURNAL ||
	       (sink->to == SS_LOG_TO_STDERR && sink->journal_ino &&
		st->st_dev == sink->journal_dev &&
		st->st_ino == sink->journal_ino);
}

static void add_note(struct parcel *parcel, const struct sink *sink,
		     const struct told *told, uint64_t untold)
{
	char text[64];
	snprintf(text, sizeof(text), "%llu line%s dropped",
		 (unsigned long long)untold, untold == 1 ? " was" : "s were");
	const struct told note = { .level = SS_LOG_WARNING,
				   .server = told ? told->server : NULL,
				   .text = text };
	size_t size = sink->to == SS_LOG_TO_JSON ? NOTE_JSON : NOTE_PLAIN;
	parcel->n += line_make(parcel->bytes + parcel->n, size, sink,
			       marked(sink, &parcel->st), &note);
}

static void add_line(struct parcel *parcel, const struct sink *sink,
		     const struct told *told)
{
	size_t size = sink->to == SS_LOG_TO_JSON ? LINE_JSON : LINE_PLAIN;
	parcel->n += line_make(parcel->bytes + parcel->n, size, sink,
			       marked(sink, &parcel->st), told);
}

/* Of what others drop meanwhile the next tells. */
static bool write_in(char *bytes, const struct sink *sink, struct tally *tally,
		     const struct told *told)
{
	struct parcel parcel = { .bytes = bytes };
	if (sink->fd < 0 && !may_write(sink, &parcel.st))
		return false;
	uint64_t untold = 0;
	if (atomic_load(&tally->untold))
		untold = atomic_exchange(&tally->untold, 0);
	bool torn = atomic_load(&tally->torn) &&
		    atomic_exchange(&tally->torn, false);
	if (torn)
		parcel.bytes[parcel.n++] = '\n';
	if (untold)
		add_note(&parcel, sink, told, untold);
	parcel.note = parcel.n;
	if (told)
		add_line(&parcel, sink, told);
	size_t went = deliver(sink, &parcel);
	if (untold && went < parcel.note)
		atomic_fetch_add(&tally->untold, untold);
	if (went ? went != parcel.n && went != parcel.note : torn)
		atomic_store(&tally->torn, true);
	return went == parcel.n;
}

/* Apart: a fiber's stack, once touched, is kept while it waits. */
APART static bool write_json(const struct sink *sink, struct tally *tally,
			     const struct told *told)
{
	char bytes[1 + NOTE_JSON + LINE_JSON];
	return write_in(bytes, sink, tally, told);
}

APART static bool write_plain(const struct sink *sink, struct tally *tally,
			      const struct told *told)
{
	char bytes[1 + NOTE_PLAIN + LINE_PLAIN];
	return write_in(bytes, sink, tally, told);
}

/* told NULL: the note alone. */
static bool try_write(const struct sink *sink, struct tally *tally,
		      const struct told *told)
{
	return sink->to == SS_LOG_TO_JSON ? write_json(sink, tally, told)
					  : write_plain(sink, tally, told);
}

bool sink_write(const struct sink *sink, struct tally *tally,
		const struct told *told)
{
	if (try_write(sink, tally, told))
		return true;
	atomic_fetch_add(&tally->dropped, 1);
	atomic_fetch_add(&tally->untold, 1);
	return false;
}

void sink_settle(const struct sink *sink, struct tally *tally)
{
	if (atomic_load(&tally->untold))
		try_write(sink, tally, NULL);
}
