/*
 * What a process is given when it is started: the environment of systemd,
 * tcpserver, of a restart and of a service manager.  The input: what the
 * descriptors are, and lines NAME=VALUE.  No descriptor is touched.
 */
#include "fuzz.h"

#include <netdb.h>
#include <sys/stat.h>

#include "../../lib/start.h"

enum {
	FIRST = 3,
	GIVEN_MAX = 1024,
	PID = 4711,
	OPENED = 2000, /* descriptors from here on are ours */
	DESCRIPTORS = 2016
};

/* Bits of the first byte. */
enum {
	STDIN = 1,
	CONNECTED = 2,	/* what is given is a connection */
	ELSEWHERE = 4,	/* 1 is not what 0 is */
	CLOSED = 8,	/* the last of those that are listed is not there */
	UNHEARD = 16,	/* the service manager is not there */
	NO_SOCKET = 32, /* what is given is none */
};

static uint8_t flags;
static int last_listed, opened;
static int closed[DESCRIPTORS];

/* ---- a system that has what the input says --------------------------------*/

static pid_t fake_getpid(void)
{
	return PID;
}

static int fake_open(void)
{
	must(OPENED + opened < DESCRIPTORS, "too many are opened");
	return OPENED + opened++;
}

static int fake_dup(int fd)
{
	(void)fd;
	return fake_open();
}

static int fake_open_file(const char *path, int how, mode_t mode)
{
	(void)path, (void)how, (void)mode;
	return fake_open();
}

static int fake_socket(int family, int type, int protocol)
{
	(void)family, (void)type, (void)protocol;
	return fake_open();
}

static int fake_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	(void)fd;
	must(sa->sa_family == AF_UNIX && len > sizeof(sa_family_t) + 1 &&
		     len <= sizeof(struct sockaddr_un),
	     "%u bytes of an address", (unsigned)len);
	errno = ECONNREFUSED;
	return flags & UNHEARD ? -1 : 0;
}

static int fake_close(int fd)
{
	must(fd >= 0 && fd < DESCRIPTORS, "closes %d", fd);
	must(!closed[fd]++, "closes %d twice", fd);
	return 0;
}

static int fake_cloexec(int fd)
{
	errno = EBADF;
	return flags & CLOSED && fd >= last_listed ? -1 : 0;
}

static int fake_dup2(int from, int to)
{
	(void)from;
	return to;
}

static int fake_fstat(int fd, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = flags & ELSEWHERE && fd == 1 ? 2 : 1;
	return 0;
}

static int fake_getsockopt(int fd, int level, int name, void *value,
			   socklen_t *len)
{
	(void)fd, (void)level, (void)len;
	errno = ENOTSOCK;
	*(int *)value = name == SO_TYPE ? SOCK_STREAM : !(flags & CONNECTED);
	return flags & NO_SOCKET ? -1 : 0;
}

static int fake_setsockopt(int fd, int level, int name, const void *value,
			   socklen_t len)
{
	(void)fd, (void)level, (void)name, (void)value, (void)len;
	return 0;
}

/* Listeners are at ports from 8000 on. */
static int fake_getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	in.sin_port = htons((uint16_t)(8000 + fd));
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	memcpy(sa, &in, sizeof(in));
	*len = sizeof(in);
	return 0;
}

static int fake_getpeername(int fd, struct sockaddr *sa, socklen_t *len)
{
	errno = ENOTCONN;
	return flags & CONNECTED ? fake_getsockname(fd, sa, len) : -1;
}

static void pretend(void)
{
	sys_table.getpid = fake_getpid;
	sys_table.dup = fake_dup;
	sys_table.open = fake_open_file;
	sys_table.socket = fake_socket;
	sys_table.connect = fake_connect;
	sys_table.close = fake_close;
	sys_table.cloexec = fake_cloexec;
	sys_table.dup2 = fake_dup2;
	sys_table.fstat = fake_fstat;
	sys_table.getsockopt = fake_getsockopt;
	sys_table.setsockopt = fake_setsockopt;
	sys_table.getsockname = fake_getsockname;
	sys_table.getpeername = fake_getpeername;
	opened = 0;
	memset(closed, 0, sizeof(closed));
}

/* ---- the environment ------------------------------------------------------*/

static const char *const names[] = {
	"LISTEN_PID",	 "LISTEN_FDS",	  "LISTEN_FDNAMES", "SS_RESTARTED",
	"NOTIFY_SOCKET", "WATCHDOG_PID",  "WATCHDOG_USEC",  "PROTO",
	"TCPREMOTEIP",	 "TCPREMOTEPORT", "TCPLOCALIP",	    "TCPLOCALPORT",
	"ADOPT",
};
enum { NAMES = sizeof(names) / sizeof(*names) };

static void clear_environment(void)
{
	for (int i = 0; i < NAMES; i++)
		unsetenv(names[i]);
}

static void set_environment(struct input in)
{
	clear_environment();
	while (in.left) {
		char *line = exact_text(take_until(&in, '\n'));
		char *value = strchr(line, '=');
		for (int i = 0; value && i < NAMES; i++)
			if (!strncmp(line, names[i], strlen(names[i])) &&
			    line + strlen(names[i]) == value)
				setenv(names[i], value + 1, 1);
		free(line);
	}
}

/* What it should be: digits alone; -1: it is none, or beyond a million. */
static long number(const char *text)
{
	long value = 0;
	if (!text || !*text)
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		value = value * 10 + (*text - '0');
		if (value > 1000000)
			return -1;
	}
	return value;
}

/* How many are listed for us; -1: nonsense. */
static long listed(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	if (flags & STDIN || !fds || number(pid) != PID)
		return 0;
	long count = number(fds);
	return count > GIVEN_MAX ? -1 : count;
}

/* PIPE [LISTENER[r][p]...], in one way alone. */
static bool restarted_well(const char *text, long count)
{
	char *copy = strdup(text), *rest = copy;
	bool well = true, first = true;
	must(copy, "no memory");
	while (well && rest) {
		char *word = strsep(&rest, " ");
		size_t n = strlen(word);
		while (!first && n && strchr("rp", word[n - 1]))
			word[--n] = '\0';
		long fd = number(word);
		well = first ? fd == FIRST + count
			     : fd >= FIRST && fd < FIRST + count;
		first = false;
	}
	free(copy);
	return well;
}

/* ---- what came of it ------------------------------------------------------*/

static void must_be_named(const struct given *given, int i)
{
	const char *all = getenv("ALL_NAMES");
	for (; all && i; i--) {
		all = strchr(all, ':');
		all = all ? all + 1 : NULL;
	}
	size_t n = all ? strcspn(all, ":") : 0;
	if (n >= START_NAME)
		n = START_NAME - 1;
	must(strlen(given->name) == n && (!n || !strncmp(given->name, all, n)),
	     "it is named '%s'", given->name);
}

static void must_be_given(const struct ss_start *start, long count)
{
	bool one = start->connection >= 0;
	must(start->count == count - one, "%d are given, not %ld", start->count,
	     count);
	for (int i = 0; i < start->count; i++) {
		const struct given *given = &start->given[i];
		char address[32];
		snprintf(address, sizeof(address), "fd:%d", given->fd);
		must(!strcmp(address, given->address), "'%s'", given->address);
		must(flags & STDIN || given->fd == FIRST + i, "%d is %d", i,
		     given->fd);
		if (!(flags & STDIN))
			must_be_named(given, i);
	}
	for (int i = 0; i < 4 && !(flags & STDIN); i++)
		must(!getenv(names[i]), "%s is left", names[i]);
}

static void must_be_address(const struct ss_address *address, const char *ip,
			    const char *port)
{
	const char *host = getenv(ip), *service = getenv(port);
	char text[SS_ADDRESS_TEXT];
	if (!host || !service || !getenv("PROTO")) {
		must(!address->len, "an address that nobody gave");
		return;
	}
	must(ss_address_port(address) == number(service), "%s is '%s', not %d",
	     port, service, ss_address_port(address));
	ss_address_host(address, text, sizeof(text));
	must(address->u.sa.sa_family != AF_INET || strchr(host, ':') ||
		     !strcmp(text, host),
	     "%s is '%s', not %s", ip, host, text);
}

/* Each listener once, and nothing else. */
static void must_adopt(struct ss_start *start)
{
	struct ss_config config = { .addresses = { "127.0.0.1:8004",
						   "tcp://127.0.0.1:8003" } };
	struct ss_diag why = { .code = 0 };
	bool seen[DESCRIPTORS] = { false };
	int r = ss_start_adopt(start, getenv("ADOPT"), &config, &why), fds = 0;
	must(r >= 0 || (why.code == r && *why.text), "%d", r);
	for (int i = 0; i < SS_ADDRESSES_MAX && config.addresses[i]; i++) {
		int fd;
		if (sscanf(config.addresses[i], "fd:%d", &fd) != 1)
			continue;
		must(fd >= 0 && fd < DESCRIPTORS && !seen[fd], "fd:%d", fd);
		seen[fd] = true;
		fds++;
	}
	must(r < 0 || r == fds || start->connection >= 0,
	     "%d are adopted, and there are %d", r, fds);
	if (start->connection < 0 && r >= 0)
		must(ss_start_left(start, &why) == start->count - r,
		     "%d are left of %d", ss_start_left(start, &why),
		     start->count);
}

/* What is open in the end was adopted. */
static void must_close(struct ss_start *start, long count)
{
	bool taken[DESCRIPTORS] = { false };
	for (int i = 0; i < start->count; i++)
		taken[start->given[i].fd] = start->given[i].taken;
	bool pipe = start->ready_fd >= 0;
	ss_start_free(start);
	for (int i = 0; i < opened; i++)
		must(closed[OPENED + i] || taken[OPENED + i], "%d stays open",
		     OPENED + i);
	for (int fd = FIRST; !(flags & STDIN) && fd < OPENED; fd++) {
		bool ours = fd < FIRST + count + pipe && !taken[fd];
		must(closed[fd] == ours, "%d: closed %d times", fd, closed[fd]);
	}
}

static bool may_succeed(long count)
{
	const char *restarted = getenv("SS_RESTARTED");
	if (flags & STDIN)
		return !(flags & NO_SOCKET);
	if (count < 0 || (flags & CLOSED && count > 0))
		return false;
	return !restarted || !count || restarted_well(restarted, count);
}

FUZZ_TARGET(start)(const uint8_t *data, size_t n)
{
	struct input in = { data, n };
	struct sys_table saved = sys_table;
	struct ss_start *start;
	struct ss_diag why;
	flags = take_byte(&in);
	set_environment(in);
	long count = listed();
	last_listed = FIRST + (int)count - 1;
	bool well = may_succeed(count);
	bool restart_refused = count == 0 && getenv("SS_RESTARTED");
	if (getenv("LISTEN_FDNAMES"))
		setenv("ALL_NAMES", getenv("LISTEN_FDNAMES"), 1);
	else
		unsetenv("ALL_NAMES");
	pretend();
	int r = ss_start_new(
		&start, flags & STDIN ? SS_START_STDIN : SS_START_AUTO, &why);
	must(r == 0 || (!start && why.code == r && *why.text), "%d", r);
	must(r != 0 || well, "it is nonsense, and is taken");
	must(r == 0 || !well || flags & STDIN || restart_refused,
	     "it is refused: %s", why.text);
	if (r == 0) {
		must_be_given(start, flags & STDIN ? 1 : count);
		must(start->notify_fd < 0 || start->watchdog_ms >= 0,
		     "a watchdog of %d ms", start->watchdog_ms);
		if (start->connection >= 0 && flags & STDIN) {
			must_be_address(&start->peer, "TCPREMOTEIP",
					"TCPREMOTEPORT");
			must_be_address(&start->local, "TCPLOCALIP",
					"TCPLOCALPORT");
		}
		must_adopt(start);
		must_close(start, count);
	}
	for (int i = 0; r < 0 && i < opened; i++)
		must(closed[OPENED + i], "%d stays open", OPENED + i);
	sys_table = saved;
	clear_environment();
	return 0;
}
