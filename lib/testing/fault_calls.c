/* Stand-ins for the library's calls. */
#include "fault_calls.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static struct sys_table real; /* what was there before */
static atomic_long bytes;

/* ---- what can fail, and how -----------------------------------------------*/

#define NAME_FD(name, params, args) #name,
#define NAME(type, name, params, args) #name,
/* clang-format off */
static const char *const names[] = {
	"no call",
	SYS_DESCRIPTORS(NAME_FD)
	SYS_WRAPPED(NAME)
	SYS_PLAIN(NAME)
	SYS_LINUX(NAME)
};
/* clang-format on */
#undef NAME_FD
#undef NAME

const char *call_name(enum call call)
{
	return names[call];
}

enum call call_named(const char *text, size_t n)
{
	for (int call = CALL_none + 1; call < CALLS; call++)
		if (strlen(names[call]) == n && !memcmp(names[call], text, n))
			return (enum call)call;
	return CALL_none;
}

enum { WAYS = 5 };

/* Those that are not here cannot fail where the library calls them, or are
 * asked only whether they do. */
static const int ways[CALLS][WAYS] = {
	[CALL_socket] = { EMFILE, ENOBUFS, EACCES },
	[CALL_accept] = { EMFILE, ECONNABORTED, ENOMEM, EINTR, EPROTO },
	[CALL_open] = { EMFILE, EACCES, EINTR },
	[CALL_dup] = { EMFILE },
	[CALL_dup_above] = { EMFILE },
	[CALL_epoll_create] = { EMFILE, ENFILE, ENOMEM },
	[CALL_pidfd_open] = { ENOSYS, EMFILE, ENOMEM },
	[CALL_pipe] = { EMFILE, ENFILE },
	[CALL_send_file] = { EINTR, EINVAL, ENOMEM, EIO, ECONNRESET },
	[CALL_recv_packets] = { EINTR, ENOMEM },
	[CALL_send_packets] = { EINTR, ENOBUFS, EPERM },
	[CALL_nonblock] = { EBADF },
	[CALL_cloexec] = { EBADF },
	[CALL_close_range] = { ENOSYS, EPERM },
	[CALL_replace] = { EBUSY, EINTR },
	[CALL_no_new_privs] = { EINVAL },
	[CALL_bind] = { EADDRINUSE, EACCES, ENOMEM },
	[CALL_listen] = { EADDRINUSE, ENOBUFS, EOPNOTSUPP },
	[CALL_connect] = { EACCES, EAGAIN, EINTR },
	[CALL_getsockname] = { ENOBUFS },
	[CALL_getpeername] = { ENOTCONN, ENOBUFS },
	[CALL_setsockopt] = { ENOPROTOOPT, ENOMEM, EPERM },
	[CALL_getsockopt] = { ENOPROTOOPT, ENOBUFS },
	[CALL_shutdown] = { ENOTCONN },
	[CALL_close] = { EINTR, EIO },
	[CALL_recv] = { EINTR, ECONNRESET, ENOMEM },
	[CALL_recvmsg] = { EINTR, ECONNRESET, ENOMEM, ECONNREFUSED },
	[CALL_send] = { EINTR, EPIPE, ENOBUFS },
	[CALL_sendto] = { EINTR, ENOBUFS, EPERM },
	[CALL_sendmsg] = { EINTR, EPIPE, ENOBUFS, EPERM },
	[CALL_read] = { EINTR, EIO },
	[CALL_pread] = { EINTR, EIO },
	[CALL_write] = { EINTR },
	[CALL_poll] = { EINTR, ENOMEM },
	[CALL_setgroups] = { EPERM },
	[CALL_setgid] = { EPERM },
	[CALL_setuid] = { EPERM, EAGAIN },
	[CALL_chroot] = { EPERM },
	[CALL_chdir] = { EACCES },
	[CALL_dup2] = { EBUSY, EINTR },
	[CALL_unlink] = { EACCES, EROFS, EBUSY },
	[CALL_lstat] = { EACCES, EIO, ENOMEM },
	[CALL_fstat] = { EIO },
	[CALL_flock] = { EINTR, ENOLCK },
	[CALL_chmod] = { EPERM, EROFS, EIO },
	[CALL_chown] = { EPERM, EROFS, EIO },
	[CALL_mmap] = { ENOMEM },
	[CALL_mprotect] = { ENOMEM },
	[CALL_madvise] = { EINVAL, ENOMEM },
	[CALL_fork] = { EAGAIN, ENOMEM },
	[CALL_execve] = { ENOENT, ENOMEM },
	[CALL_waitpid] = { EINTR },
	[CALL_malloc] = { ENOMEM },
	[CALL_calloc] = { ENOMEM },
	[CALL_realloc] = { ENOMEM },
	[CALL_aligned_alloc] = { ENOMEM },
	[CALL_getaddrinfo] = { ENOMEM, EAGAIN },
	[CALL_pthread_create] = { EAGAIN, EPERM },
	[CALL_pthread_mutex_init] = { EAGAIN, ENOMEM },
	[CALL_pthread_cond_init] = { EAGAIN, ENOMEM },
	[CALL_sigaltstack] = { ENOMEM },
#ifdef SS_LINUX
	[CALL_epoll_ctl] = { ENOSPC, ENOMEM },
	[CALL_epoll_wait] = { EINTR },
#endif
};

/* Where others last, the library tries for as long, as it has been told to; or
 * has nothing left to wait by. */
bool call_lasts(enum call call, int error)
{
	return call != CALL_poll && error != EINTR && error != ECONNABORTED &&
	       error != EPROTO && error != ENOTCONN;
}

int call_error(enum call call, int way, bool lasting)
{
	for (int i = 0; i < WAYS && ways[call][i]; i++)
		if ((!lasting || call_lasts(call, ways[call][i])) && way-- == 0)
			return ways[call][i];
	return 0;
}

/* What the call answers then: -1, but for those that have a way of their own.
 */
static intptr_t answer(enum call call)
{
	switch (call) {
	case CALL_malloc:
	case CALL_calloc:
	case CALL_realloc:
	case CALL_aligned_alloc:
		return 0;
	case CALL_getaddrinfo:
		return errno == EAGAIN ? EAI_AGAIN : EAI_MEMORY;
	case CALL_pthread_create:
	case CALL_pthread_mutex_init:
	case CALL_pthread_cond_init:
		return errno;
	default:
		return -1; /* MAP_FAILED, too */
	}
}

/* ---- in the table's place -------------------------------------------------*/

#define STAND_IN(type, name, params, args)                                     \
	static type tap_##name params                                          \
	{                                                                      \
		if (faults_strike(CALL_##name))                                \
			return (type)answer(CALL_##name);                      \
		return real.name args;                                         \
	}
#define STAND_IN_FD(name, params, args) STAND_IN(int, name, params, args)
SYS_DESCRIPTORS(STAND_IN_FD)
SYS_WRAPPED(STAND_IN)
SYS_PLAIN(STAND_IN)
SYS_LINUX(STAND_IN)
#undef STAND_IN_FD
#undef STAND_IN

/* The descriptor is gone all the same (close(2)). */
static int tap_close_after(int fd)
{
	int r = real.close(fd);
	return faults_strike(CALL_close) ? -1 : r;
}

#ifdef SS_LINUX
/* What is there can be changed and taken away. */
static int tap_epoll_add(int epfd, int op, int fd, struct epoll_event *event)
{
	return op == EPOLL_CTL_ADD ? tap_epoll_ctl(epfd, op, fd, event)
				   : real.epoll_ctl(epfd, op, fd, event);
}
#endif

/* ---- memory ---------------------------------------------------------------*/

/* Where that is not known, blocks are counted. */
static long size_of(void *memory)
{
#ifdef __GLIBC__
	return (long)malloc_usable_size(memory);
#else
	return memory != NULL;
#endif
}

static void *had(void *memory)
{
	atomic_fetch_add(&bytes, size_of(memory));
	return memory;
}

static void *count_malloc(size_t n)
{
	return had(tap_malloc(n));
}

static void *count_calloc(size_t n, size_t size)
{
	return had(tap_calloc(n, size));
}

static void *count_aligned_alloc(size_t alignment, size_t n)
{
	return had(tap_aligned_alloc(alignment, n));
}

static void *count_realloc(void *memory, size_t n)
{
	long before = size_of(memory);
	void *moved = tap_realloc(memory, n);
	if (moved)
		atomic_fetch_add(&bytes, size_of(moved) - before);
	return moved;
}

static void count_free(void *memory)
{
	atomic_fetch_sub(&bytes, size_of(memory));
	real.free(memory);
}

static void *count_mmap(void *at, size_t n, int prot, int flags, int fd,
			off_t offset)
{
	void *memory = tap_mmap(at, n, prot, flags, fd, offset);
	if (memory != MAP_FAILED)
		atomic_fetch_add(&bytes, (long)n);
	return memory;
}

static int count_munmap(void *memory, size_t n)
{
	atomic_fetch_sub(&bytes, (long)n);
	return real.munmap(memory, n);
}

long calls_bytes(void)
{
	return atomic_load(&bytes);
}

/* ---- installing -----------------------------------------------------------*/

#define ENTRY_FD(name, params, args) .name = tap_##name,
#define ENTRY(type, name, params, args) .name = tap_##name,

void calls_install(void)
{
	static bool installed;
	if (installed)
		return;
	installed = true;
	real = sys_table;
	/* clang-format off */
	sys_table = (struct sys_table){
		SYS_DESCRIPTORS(ENTRY_FD)
		SYS_WRAPPED(ENTRY)
		SYS_PLAIN(ENTRY)
		SYS_LINUX(ENTRY)
	};
	/* clang-format on */
	sys_table.close = tap_close_after;
	sys_table.malloc = count_malloc;
	sys_table.calloc = count_calloc;
	sys_table.aligned_alloc = count_aligned_alloc;
	sys_table.realloc = count_realloc;
	sys_table.free = count_free;
	sys_table.mmap = count_mmap;
	sys_table.munmap = count_munmap;
#ifdef SS_LINUX
	sys_table.epoll_ctl = tap_epoll_add;
#endif
}
