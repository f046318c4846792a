/*
 * Every system call, allocation, thread call and random number of the library,
 * one line each, under the name sys_CALL.  The release library calls directly;
 * the test variants (SS_SYS_TABLE) go through a table in which a test can
 * replace any of them.  What makes descriptors sets close-on-exec, and never
 * lands on 0-2: a program may have closed those, and what it prints must not
 * reach a client.
 *
 * They answer as the call does; callers test against -1 and convert at once.
 * (pthread functions return their error.)
 */
#ifndef SS_LIB_SYS_H
#define SS_LIB_SYS_H

#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__) && !defined(SS_PORTABLE)
#define SS_LINUX 1
#include <sys/epoll.h>
#include <sys/sendfile.h>
#endif

/* The thread sanitizer, gcc's or clang's. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define SYS_TSAN 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define SYS_TSAN 1
#endif

_Static_assert(sizeof(off_t) == 8, "compile with -D_FILE_OFFSET_BITS=64");

/* Not a part of its only caller, which is called far more often, and would
 * save registers for it each time. */
#define APART __attribute__((noinline))

/* Linux alone tells of a half-close so; POSIX does not have it. */
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* A datagram's place, and how long it is: Linux's struct mmsghdr. */
struct sys_packet {
	struct msghdr msg;
	unsigned size;
};

/* Calls that answer with a descriptor. */
#define SYS_DESCRIPTORS(X)                                                     \
	X(socket, (int family, int type, int protocol),                        \
	  (family, type, protocol))                                            \
	X(accept, (int fd, struct sockaddr *sa, socklen_t *len, int flags),    \
	  (fd, sa, len, flags))                                                \
	X(open, (const char *path, int flags, mode_t mode),                    \
	  (path, flags, mode))                                                 \
	X(dup, (int fd), (fd))                                                 \
	X(dup_above, (int fd, int least), (fd, least))                         \
	X(epoll_create, (void), ())                                            \
	X(pidfd_open, (pid_t pid), (pid))

/* Calls whose own wrapper in sys.c is more than the call. */
#define SYS_WRAPPED(X)                                                         \
	X(int, pipe, (int fds[2]), (fds))                                      \
	X(ssize_t, send_file, (int to, int from, off_t *offset, size_t n),     \
	  (to, from, offset, n))                                               \
	X(int, recv_packets, (int fd, struct sys_packet *packets, int n),      \
	  (fd, packets, n))                                                    \
	X(int, send_packets, (int fd, struct sys_packet *packets, int n),      \
	  (fd, packets, n))                                                    \
	X(int, nonblock, (int fd), (fd))                                       \
	X(int, cloexec, (int fd), (fd))                                        \
	X(int, close_range, (int first, int last), (first, last))              \
	X(int64_t, now_ms, (void), ())                                         \
	X(int64_t, now_us, (void), ())                                         \
	X(int64_t, wall_ms, (void), ())                                        \
	X(int, replace, (int from, int to), (from, to))                        \
	X(int, no_new_privs, (void), ())                                       \
	X(int, processors, (void), ())                                         \
	X(bool, alone, (void), ())

/* Calls that are called as they are. */
#define SYS_PLAIN(X)                                                           \
	X(int, bind, (int fd, const struct sockaddr *sa, socklen_t len),       \
	  (fd, sa, len))                                                       \
	X(int, listen, (int fd, int backlog), (fd, backlog))                   \
	X(int, connect, (int fd, const struct sockaddr *sa, socklen_t len),    \
	  (fd, sa, len))                                                       \
	X(int, getsockname, (int fd, struct sockaddr *sa, socklen_t *len),     \
	  (fd, sa, len))                                                       \
	X(int, getpeername, (int fd, struct sockaddr *sa, socklen_t *len),     \
	  (fd, sa, len))                                                       \
	X(int, setsockopt,                                                     \
	  (int fd, int level, int name, const void *value, socklen_t len),     \
	  (fd, level, name, value, len))                                       \
	X(int, getsockopt,                                                     \
	  (int fd, int level, int name, void *value, socklen_t *len),          \
	  (fd, level, name, value, len))                                       \
	X(int, shutdown, (int fd, int how), (fd, how))                         \
	X(int, close, (int fd), (fd))                                          \
	X(ssize_t, recv, (int fd, void *buf, size_t n, int flags),             \
	  (fd, buf, n, flags))                                                 \
	X(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags),           \
	  (fd, msg, flags))                                                    \
	X(ssize_t, send, (int fd, const void *buf, size_t n, int flags),       \
	  (fd, buf, n, flags))                                                 \
	X(ssize_t, sendto,                                                     \
	  (int fd, const void *buf, size_t n, int flags,                       \
	   const struct sockaddr *sa, socklen_t len),                          \
	  (fd, buf, n, flags, sa, len))                                        \
	X(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags),     \
	  (fd, msg, flags))                                                    \
	X(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n))          \
	X(ssize_t, pread, (int fd, void *buf, size_t n, off_t offset),         \
	  (fd, buf, n, offset))                                                \
	X(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n))   \
	X(ssize_t, writev, (int fd, const struct iovec *iov, int count),       \
	  (fd, iov, count))                                                    \
	X(int, poll, (struct pollfd * fds, nfds_t n, int ms), (fds, n, ms))    \
	X(uid_t, getuid, (void), ())                                           \
	X(uid_t, geteuid, (void), ())                                          \
	X(gid_t, getgid, (void), ())                                           \
	X(gid_t, getegid, (void), ())                                          \
	X(int, setgroups, (size_t n, const gid_t *groups), (n, groups))        \
	X(int, setgid, (gid_t gid), (gid))                                     \
	X(int, setuid, (uid_t uid), (uid))                                     \
	X(int, chroot, (const char *path), (path))                             \
	X(int, chdir, (const char *path), (path))                              \
	X(int, dup2, (int from, int to), (from, to))                           \
	X(int, unsetenv, (const char *name), (name))                           \
	X(int, unlink, (const char *path), (path))                             \
	X(int, lstat, (const char *path, struct stat *st), (path, st))         \
	X(int, fstat, (int fd, struct stat *st), (fd, st))                     \
	X(pid_t, getpid, (void), ())                                           \
	X(int, flock, (int fd, int operation), (fd, operation))                \
	X(int, chmod, (const char *path, mode_t mode), (path, mode))           \
	X(int, chown, (const char *path, uid_t uid, gid_t gid),                \
	  (path, uid, gid))                                                    \
	X(void *, mmap,                                                        \
	  (void *at, size_t n, int prot, int flags, int fd, off_t offset),     \
	  (at, n, prot, flags, fd, offset))                                    \
	X(int, munmap, (void *memory, size_t n), (memory, n))                  \
	X(int, mprotect, (void *memory, size_t n, int prot),                   \
	  (memory, n, prot))                                                   \
	X(int, madvise, (void *memory, size_t n, int advice),                  \
	  (memory, n, advice))                                                 \
	X(pid_t, fork, (void), ())                                             \
	X(int, execve,                                                         \
	  (const char *path, char *const *argv, char *const *env),             \
	  (path, argv, env))                                                   \
	X(pid_t, waitpid, (pid_t pid, int *status, int options),               \
	  (pid, status, options))                                              \
	X(int, kill, (pid_t pid, int signal), (pid, signal))                   \
	X(void *, malloc, (size_t n), (n))                                     \
	X(void *, calloc, (size_t n, size_t size), (n, size))                  \
	X(void *, realloc, (void *memory, size_t n), (memory, n))              \
	X(void *, aligned_alloc, (size_t alignment, size_t n), (alignment, n)) \
	X(int, getaddrinfo,                                                    \
	  (const char *host, const char *service,                              \
	   const struct addrinfo *hints, struct addrinfo **result),            \
	  (host, service, hints, result))                                      \
	X(int, pthread_create,                                                 \
	  (pthread_t * thread, const pthread_attr_t *attr,                     \
	   void *(*run)(void *), void *arg),                                   \
	  (thread, attr, run, arg))                                            \
	X(int, pthread_detach, (pthread_t thread), (thread))                   \
	X(int, pthread_join, (pthread_t thread, void **result),                \
	  (thread, result))                                                    \
	X(int, pthread_mutex_init,                                             \
	  (pthread_mutex_t * mutex, const pthread_mutexattr_t *attr),          \
	  (mutex, attr))                                                       \
	X(int, pthread_cond_init,                                              \
	  (pthread_cond_t * cond, const pthread_condattr_t *attr),             \
	  (cond, attr))                                                        \
	X(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old), \
	  (how, set, old))                                                     \
	X(int, sigaction,                                                      \
	  (int signal, const struct sigaction *action, struct sigaction *old), \
	  (signal, action, old))                                               \
	X(int, sigaltstack, (const stack_t *stack, stack_t *old),              \
	  (stack, old))                                                        \
	X(int, sigpending, (sigset_t * set), (set))                            \
	X(int, sigtimedwait,                                                   \
	  (const sigset_t *set, siginfo_t *info,                               \
	   const struct timespec *timeout),                                    \
	  (set, info, timeout))

/* Linux alone. */
#ifdef SS_LINUX
#define SYS_LINUX(X)                                                           \
	X(int, epoll_ctl,                                                      \
	  (int epfd, int op, int fd, struct epoll_event *event),               \
	  (epfd, op, fd, event))                                               \
	X(int, epoll_wait,                                                     \
	  (int epfd, struct epoll_event *events, int n, int ms),               \
	  (epfd, events, n, ms))
#else
#define SYS_LINUX(X)
#endif

/* What sys.c makes of the first two lists, whatever the variant. */
#define SYS_DECLARE_FD(name, params, args) int sys_do_##name params;
#define SYS_DECLARE(type, name, params, args) type sys_do_##name params;
SYS_DESCRIPTORS(SYS_DECLARE_FD)
SYS_WRAPPED(SYS_DECLARE)
#undef SYS_DECLARE_FD
#undef SYS_DECLARE

#ifdef SS_SYS_TABLE
#define SYS_MEMBER_FD(name, params, args) int(*name) params;
#define SYS_MEMBER(type, name, params, args) type(*name) params;
struct sys_table {
	SYS_DESCRIPTORS(SYS_MEMBER_FD)
	SYS_WRAPPED(SYS_MEMBER)
	SYS_PLAIN(SYS_MEMBER)
	SYS_LINUX(SYS_MEMBER)
	void (*free)(void *memory); /* for who counts what is taken */
};
#undef SYS_MEMBER_FD
#undef SYS_MEMBER
/* Tests write it before they start threads. */
extern struct sys_table sys_table;
#define SYS_FD(name, params, args)                                             \
	static inline int sys_##name params                                    \
	{                                                                      \
		return sys_table.name args;                                    \
	}
#define SYS_CALL(type, name, params, args)                                     \
	static inline type sys_##name params                                   \
	{                                                                      \
		return sys_table.name args;                                    \
	}
SYS_WRAPPED(SYS_CALL)
#else
#define SYS_FD(name, params, args)                                             \
	static inline int sys_##name params                                    \
	{                                                                      \
		return sys_do_##name args;                                     \
	}
#define SYS_CALL(type, name, params, args)                                     \
	static inline type sys_##name params                                   \
	{                                                                      \
		return sys_do_##name args;                                     \
	}
SYS_WRAPPED(SYS_CALL)
#undef SYS_CALL
#define SYS_CALL(type, name, params, args)                                     \
	static inline type sys_##name params                                   \
	{                                                                      \
		return name args;                                              \
	}
#endif
SYS_DESCRIPTORS(SYS_FD)
SYS_PLAIN(SYS_CALL)
SYS_LINUX(SYS_CALL)
#undef SYS_FD
#undef SYS_CALL

/* Gives back; cannot fail. */
static inline void sys_free(void *memory)
{
#ifdef SS_SYS_TABLE
	sys_table.free(memory);
#else
	free(memory);
#endif
}

/* A byte into a pipe, for who watches its other end; full, it is readable
 * already.  Async-signal-safe; errno stays. */
void sys_ring(int fd);

/* What stdio has not written yet, of every stream, is written: before a fork,
 * as the child would have it too, and where a child ends. */
void sys_flush(void);
/* A child's end: no handlers of the parent's run. */
_Noreturn void sys_exit(int status);

/* write(2) and the like raise SIGPIPE; around them, blocked and taken back. */
struct sys_sigpipe {
	sigset_t old;
	int was_pending; /* -1: it was blocked, leave it */
};
void sys_sigpipe_block(struct sys_sigpipe *saved);
void sys_sigpipe_restore(const struct sys_sigpipe *saved);

#endif
