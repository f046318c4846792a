/* The system calls that need more than their name. */
#include "sys.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#ifdef SS_LINUX
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif
#ifdef __GLIBC__
#define GLIBC_HAS(major, minor) __GLIBC_PREREQ(major, minor)
#else
#define GLIBC_HAS(major, minor) 0
#endif
#if GLIBC_HAS(2, 32)
#include <sys/single_threaded.h>
#endif
#ifdef SS_COVERAGE
extern void __gcov_dump(void);
#endif

#ifdef SYS_TSAN
/*
 * The thread sanitizer makes the room in which it keeps a thread's signals at
 * the first call of the thread that could wait; gcc 12's loses a signal that
 * comes while it does.  So here is one before there are handlers.  (Threads of
 * the library's own block all signals.)
 */
__attribute__((constructor)) static void wait_once(void)
{
	poll(NULL, 0, 0);
}
#endif

/* A descriptor above 2 in place of this one. */
static int high(int fd)
{
	if (fd == -1 || fd > 2)
		return fd;
	int up = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	int error = errno;
	close(fd);
	errno = error;
	return up;
}

#ifndef SS_LINUX
static int set_flags(int fd, int nonblocking)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags != -1 && fcntl(fd, F_SETFD, FD_CLOEXEC) != -1 &&
	    fcntl(fd, F_SETFL,
		  nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) != -1)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}
#endif

int sys_do_socket(int family, int type, int protocol)
{
	return high(socket(family, type | SOCK_CLOEXEC, protocol));
}

/* accept4(2); flags: SOCK_NONBLOCK or 0. */
int sys_do_accept(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
#ifdef SS_LINUX
	return high(accept4(fd, sa, len, flags | SOCK_CLOEXEC));
#else
	fd = high(accept(fd, sa, len));
	return fd == -1 ? -1 : set_flags(fd, flags & SOCK_NONBLOCK);
#endif
}

int sys_do_open(const char *path, int flags, mode_t mode)
{
	return high(open(path, flags | O_CLOEXEC, mode));
}

int sys_do_dup(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

int sys_do_dup_above(int fd, int least)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, least);
}

int sys_do_epoll_create(void)
{
#ifdef SS_LINUX
	return high(epoll_create1(EPOLL_CLOEXEC));
#else
	errno = ENOSYS;
	return -1;
#endif
}

/* Readable when that child has ended.  Linux 5.3; ENOSYS elsewhere. */
int sys_do_pidfd_open(pid_t pid)
{
#if defined(SS_LINUX) && defined(SYS_pidfd_open)
	return high((int)syscall(SYS_pidfd_open, pid, 0));
#else
	(void)pid;
	errno = ENOSYS;
	return -1;
#endif
}

/* Both ends do not block. */
int sys_do_pipe(int fds[2])
{
#ifdef SS_LINUX
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) == -1)
		return -1;
	fds[0] = high(fds[0]);
	fds[1] = high(fds[1]);
#else
	if (pipe(fds) == -1)
		return -1;
	for (int i = 0; i < 2; i++)
		if ((fds[i] = high(fds[i])) != -1)
			fds[i] = set_flags(fds[i], 1);
#endif
	if (fds[0] != -1 && fds[1] != -1)
		return 0;
	int error = errno;
	for (int i = 0; i < 2; i++)
		if (fds[i] != -1)
			close(fds[i]);
	errno = error;
	return -1;
}

/* sendfile(2) as Linux has it; ENOSYS elsewhere, and who called copies. */
ssize_t sys_do_send_file(int to, int from, off_t *offset, size_t n)
{
#ifdef SS_LINUX
	return sendfile(to, from, offset, n);
#else
	(void)to, (void)from, (void)offset, (void)n;
	errno = ENOSYS;
	return -1;
#endif
}

#ifdef SS_LINUX
_Static_assert(sizeof(struct sys_packet) == sizeof(struct mmsghdr),
	       "they are one");
#endif

/* Datagrams that are there, at most n; elsewhere than on Linux one. */
int sys_do_recv_packets(int fd, struct sys_packet *packets, int n)
{
#ifdef SS_LINUX
	return recvmmsg(fd, (struct mmsghdr *)packets, (unsigned)n,
			MSG_DONTWAIT, NULL);
#else
	(void)n;
	ssize_t size = recvmsg(fd, &packets->msg, MSG_DONTWAIT);
	packets->size = (unsigned)size;
	return size == -1 ? -1 : 1;
#endif
}

/* How many of them went; the same. */
int sys_do_send_packets(int fd, struct sys_packet *packets, int n)
{
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#ifdef SS_LINUX
	return sendmmsg(fd, (struct mmsghdr *)packets, (unsigned)n, flags);
#else
	(void)n;
	return sendmsg(fd, &packets->msg, flags) == -1 ? -1 : 1;
#endif
}

/* Sets O_NONBLOCK. */
int sys_do_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags == -1 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* Sets FD_CLOEXEC. */
int sys_do_cloexec(int fd)
{
	return fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* All of them, or none and -1.  Linux 5.9, glibc 2.34; ENOSYS elsewhere. */
int sys_do_close_range(int first, int last)
{
#if defined(SS_LINUX) && GLIBC_HAS(2, 34)
	return close_range((unsigned)first, (unsigned)last, 0);
#else
	(void)first, (void)last;
	errno = ENOSYS;
	return -1;
#endif
}

int64_t sys_do_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t sys_do_now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Since 1970: for people to read, nothing is measured by it. */
int64_t sys_do_wall_ms(void)
{
	struct timespec wall;
	clock_gettime(CLOCK_REALTIME, &wall);
	return (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000;
}

/* dup2(2), close-on-exec; on Linux at once. */
int sys_do_replace(int from, int to)
{
#ifdef SS_LINUX
	return dup3(from, to, O_CLOEXEC);
#else
	if (dup2(from, to) == -1)
		return -1;
	return fcntl(to, F_SETFD, FD_CLOEXEC) == -1 ? -1 : to;
#endif
}

/* prctl(2); ENOSYS elsewhere. */
int sys_do_no_new_privs(void)
{
#ifdef SS_LINUX
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#else
	errno = ENOSYS;
	return -1;
#endif
}

/* Those that this thread may run on; at least 1. */
int sys_do_processors(void)
{
#ifdef SS_LINUX
	cpu_set_t set;
	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		return CPU_COUNT(&set);
#endif
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : n > INT_MAX ? INT_MAX : (int)n;
}

/* Whether there is no other thread; false where that is not known. */
bool sys_do_alone(void)
{
#if GLIBC_HAS(2, 32)
	return __libc_single_threaded;
#else
	return false;
#endif
}

/*
 * glibc's list of open streams is part of its ABI, and so is what putc(3) was
 * once a macro over.  It is seen from position-independent code alone: others
 * would have a copy of its head, which does not change.
 */
#if GLIBC_HAS(2, 32) && defined(__PIC__) && !defined(__PIE__)
extern FILE *_IO_list_all __attribute__((weak));

static bool all_written(void)
{
	if (!&_IO_list_all || !sys_alone())
		return false;
	for (FILE *stream = _IO_list_all; stream; stream = stream->_chain)
		if (stream->_IO_write_ptr > stream->_IO_write_base ||
		    stream->_mode > 0) /* wide: it has buffers of its own */
			return false;
	return true;
}
#else
static bool all_written(void)
{
	return false;
}
#endif

/* fflush(3) would write to locks, on pages that a fork makes dear. */
void sys_flush(void)
{
	if (!all_written())
		fflush(NULL);
}

void sys_exit(int status)
{
#ifdef SS_COVERAGE
	__gcov_dump();
#endif
	_exit(status);
}

void sys_ring(int fd)
{
	int error = errno;
	while (sys_write(fd, "", 1) == -1 && errno == EINTR)
		;
	errno = error;
}

void sys_sigpipe_block(struct sys_sigpipe *saved)
{
	sigset_t pipe_only;
	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	sys_pthread_sigmask(SIG_BLOCK, &pipe_only, &saved->old);
	saved->was_pending = -1;
	if (sigismember(&saved->old, SIGPIPE) == 1)
		return;
	sigset_t pending;
	saved->was_pending = sys_sigpending(&pending) != -1 &&
			     sigismember(&pending, SIGPIPE) == 1;
}

void sys_sigpipe_restore(const struct sys_sigpipe *saved)
{
	if (saved->was_pending == -1)
		return;
	int error = errno;
	sigset_t pipe_only;
	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	static const struct timespec at_once;
	while (!saved->was_pending &&
	       sys_sigtimedwait(&pipe_only, NULL, &at_once) == -1 &&
	       errno == EINTR)
		;
	sys_pthread_sigmask(SIG_SETMASK, &saved->old, NULL);
	errno = error;
}

#ifdef SS_SYS_TABLE
#define SYS_ENTRY_DO_FD(name, params, args) .name = sys_do_##name,
#define SYS_ENTRY_DO(type, name, params, args) .name = sys_do_##name,
#define SYS_ENTRY(type, name, params, args) .name = name,
/* clang-format off */
struct sys_table sys_table = {
	SYS_DESCRIPTORS(SYS_ENTRY_DO_FD)
	SYS_WRAPPED(SYS_ENTRY_DO)
	SYS_PLAIN(SYS_ENTRY)
	SYS_LINUX(SYS_ENTRY)
	.free = free,
};
/* clang-format on */
#endif
