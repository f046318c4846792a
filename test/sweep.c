/* Calls that fail one after another. */
#include "sweep.h"

struct sweep *sweep;
static struct sys_table real;

/* ---- what can fail, and how -----------------------------------------------*/

#define NUMBER_FD(name, params, args) CALL_##name,
#define NUMBER(type, name, params, args) CALL_##name,
/* clang-format off */
enum call {
	CALL_none,
	SYS_DESCRIPTORS(NUMBER_FD)
	SYS_WRAPPED(NUMBER)
	SYS_PLAIN(NUMBER)
	SYS_LINUX(NUMBER)
	CALLS
};
#define NAME_FD(name, params, args) #name,
#define NAME(type, name, params, args) #name,
static const char *const names[] = {
	"none",
	SYS_DESCRIPTORS(NAME_FD)
	SYS_WRAPPED(NAME)
	SYS_PLAIN(NAME)
	SYS_LINUX(NAME)
};
/* clang-format on */

enum { WAYS = 5 };

/* Those that are not here cannot fail where the library calls them, or are
 * asked only whether they do. */
static const int ways[CALLS][WAYS] = {
	[CALL_socket] = { EMFILE, ENOBUFS },
	[CALL_accept] = { EMFILE, ECONNABORTED, ENOMEM, EINTR, EPROTO },
	[CALL_open] = { EMFILE, EACCES },
	[CALL_dup] = { EMFILE },
	[CALL_dup_above] = { EMFILE },
	[CALL_pidfd_open] = { ENOSYS, EMFILE },
	[CALL_pipe] = { EMFILE },
	[CALL_send_file] = { EINTR, EINVAL, ENOMEM },
	[CALL_recv_packets] = { EINTR, ENOMEM },
	[CALL_send_packets] = { EINTR, ENOBUFS, EPERM },
	[CALL_close_range] = { ENOSYS },
	[CALL_bind] = { EADDRINUSE, EACCES },
	[CALL_listen] = { EADDRINUSE },
	[CALL_getsockname] = { ENOBUFS },
	[CALL_setsockopt] = { ENOPROTOOPT, ENOMEM },
	[CALL_getsockopt] = { ENOPROTOOPT },
	[CALL_shutdown] = { ENOTCONN },
	[CALL_close] = { EINTR, EIO },
	[CALL_recv] = { EINTR, ECONNRESET, ENOMEM },
	[CALL_recvmsg] = { EINTR, ECONNRESET, ENOMEM },
	[CALL_send] = { EINTR, EPIPE, ENOBUFS },
	[CALL_sendto] = { EINTR, ENOBUFS, EPERM },
	[CALL_sendmsg] = { EINTR, EPIPE, ENOBUFS },
	[CALL_read] = { EINTR },
	[CALL_write] = { EINTR },
	[CALL_poll] = { EINTR, ENOMEM },
	[CALL_unlink] = { EACCES },
	[CALL_lstat] = { EACCES },
	[CALL_fstat] = { EIO },
	[CALL_flock] = { EINTR, ENOLCK },
	[CALL_chmod] = { EPERM },
	[CALL_mmap] = { ENOMEM },
	[CALL_mprotect] = { ENOMEM },
	[CALL_madvise] = { EINVAL, ENOMEM },
	[CALL_fork] = { EAGAIN },
	[CALL_waitpid] = { EINTR },
	[CALL_malloc] = { ENOMEM },
	[CALL_calloc] = { ENOMEM },
	[CALL_realloc] = { ENOMEM },
	[CALL_aligned_alloc] = { ENOMEM },
	[CALL_getaddrinfo] = { ENOMEM },
	[CALL_pthread_create] = { EAGAIN },
	[CALL_sigaltstack] = { ENOMEM },
#ifdef SS_LINUX
	[CALL_epoll_create] = { EMFILE },
	[CALL_epoll_ctl] = { ENOSPC, ENOMEM },
	[CALL_epoll_wait] = { EINTR },
#endif
};

/* Where others last, the library tries for as long, as it has been told to; or
 * has nothing left to wait by. */
static bool lasts(enum call call, int code)
{
	return call != CALL_poll && code != EINTR && code != ECONNABORTED &&
	       code != EPROTO && code != ENOTCONN;
}

/* That way of a call to fail, of those that there are in this sweep; 0: none */
static int code_of(enum call call, int way, bool lasting)
{
	for (int i = 0; i < WAYS && ways[call][i]; i++)
		if ((!lasting || lasts(call, ways[call][i])) && way-- == 0)
			return ways[call][i];
	return 0;
}

static bool first_strike(enum call call)
{
	int code = code_of(call, sweep->way, sweep->lasting);
	atomic_store(&sweep->code, code);
	atomic_store(&sweep->call, (int)call);
	return code != 0;
}

static bool strikes(enum call call)
{
	if (!ways[call][0] || !atomic_load(&sweep->armed) ||
	    getpid() == sweep->spared)
		return false;
	int n = atomic_fetch_add(&sweep->count, 1) + 1;
	bool strike = n == sweep->at ? first_strike(call)
				     : sweep->lasting && n > sweep->at &&
					       atomic_load(&sweep->call) ==
						       (int)call &&
					       atomic_load(&sweep->code) != 0;
	if (strike)
		errno = atomic_load(&sweep->code);
	return strike;
}

/* What the call answers then. */
static intptr_t answer(enum call call)
{
	switch (call) {
	case CALL_malloc:
	case CALL_calloc:
	case CALL_realloc:
	case CALL_aligned_alloc:
		return 0;
	case CALL_getaddrinfo:
		return EAI_MEMORY;
	case CALL_pthread_create:
		return errno;
	default:
		return -1; /* MAP_FAILED, too */
	}
}

/* ---- in the table's place -------------------------------------------------*/

#define STAND_IN(type, name, params, args)                                     \
	static type tap_##name params                                          \
	{                                                                      \
		if (strikes(CALL_##name))                                      \
			return (type)answer(CALL_##name);                      \
		return real.name args;                                         \
	}
#define STAND_IN_FD(name, params, args) STAND_IN(int, name, params, args)
SYS_DESCRIPTORS(STAND_IN_FD)
SYS_WRAPPED(STAND_IN)
SYS_PLAIN(STAND_IN)

/* The descriptor is gone all the same (close(2)). */
static int tap_close_after(int fd)
{
	int r = real.close(fd);
	return strikes(CALL_close) ? -1 : r;
}

#ifdef SS_LINUX
/* What is there can be changed and taken away. */
static int tap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && strikes(CALL_epoll_ctl))
		return -1;
	return real.epoll_ctl(epfd, op, fd, event);
}

STAND_IN(int, epoll_wait, (int epfd, struct epoll_event *events, int n, int ms),
	 (epfd, events, n, ms))
#endif

#define ENTRY_FD(name, params, args) .name = tap_##name,
#define ENTRY(type, name, params, args) .name = tap_##name,

void sweep_install(void)
{
	real = sys_table;
	sweep = ss_shared_alloc(sizeof(*sweep));
	ck_assert_ptr_nonnull(sweep);
	/* clang-format off */
	sys_table = (struct sys_table){
		SYS_DESCRIPTORS(ENTRY_FD)
		SYS_WRAPPED(ENTRY)
		SYS_PLAIN(ENTRY)
		SYS_LINUX(ENTRY)
	};
	/* clang-format on */
	sys_table.close = tap_close_after;
}

/* ---- one after another ----------------------------------------------------*/

const char *sweep_tell(void)
{
	static char text[160];
	snprintf(text, sizeof(text), "call %d, %s: %s%s", sweep->at,
		 names[atomic_load(&sweep->call)],
		 strerror(atomic_load(&sweep->code)),
		 sweep->lasting ? ", from then on" : "");
	return text;
}

/* Every way of the call to fail; false: there was no such call. */
static bool fail_at(int at, bool lasting, void (*scenario)(void *arg),
		    void *arg, int *faults)
{
	int way = 0;
	do {
		memset(sweep, 0, sizeof(*sweep));
		sweep->at = at;
		sweep->way = way;
		sweep->lasting = lasting;
		sweep->spared = getpid();
		scenario(arg);
		if (!atomic_load(&sweep->call))
			return false;
		*faults += atomic_load(&sweep->code) != 0;
	} while (code_of((enum call)atomic_load(&sweep->call), ++way, lasting));
	return true;
}

int sweep_all(void (*scenario)(void *arg), void *arg, int first, int stride)
{
	int faults = 0;
	for (int lasting = 0; lasting <= 1; lasting++)
		for (int at = first;
		     fail_at(at, lasting, scenario, arg, &faults);)
			at += stride;
	return faults;
}
