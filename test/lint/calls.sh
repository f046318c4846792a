#!/bin/sh
# System calls, allocations, thread calls and random numbers are made in
# lib/sys.c alone.  In the debug variant every wrapper of sys.h goes through the
# table, so that no other object may refer to such a function.
#
# Functions that no one should call are refused by name: in the library those
# that print, exit, wait on their own, touch signals' dispositions or keep
# hidden state; and the unsafe ones everywhere.
. "$(dirname "$0")/common.sh"
need nm

# Those that sys.h wraps under another name, or does not offer at all.
related='_exit _Exit accept4 aligned_alloc arc4random arc4random_buf asprintf
	clock_gettime clock_nanosleep close_range creat dup2 dup3 epoll_create1
	epoll_pwait epoll_pwait2 eventfd fcntl fdopen fopen getentropy getrandom
	gettimeofday ioctl kevent kqueue lseek memalign memfd_create nanosleep
	open_memstream openat pause pipe2 posix_memalign ppoll preadv pselect
	pthread_cancel pthread_detach pthread_kill pwrite pwritev random readv
	reallocarray recvfrom recvmmsg sendfile sendmmsg sendto sigprocmask
	sigsuspend sigwait sigwaitinfo socketpair splice strdup strndup syscall
	time timerfd_create vasprintf vfork wait wait3 wait4 waitid writev'

unsafe='strcpy strcat stpcpy sprintf vsprintf gets atoi atol atoll atof strtok
	alloca mktemp tmpnam'

banned='abort alarm asctime at_quick_exit atexit bsd_signal ctime daemon drand48
	err errx exit fork fprintf fputs gethostbyname getservbyname gmtime
	inet_addr inet_ntoa localtime perror popen printf putc putchar puts
	quick_exit raise rand select setenv setitimer setlocale sigaction
	siginterrupt signal sleep srand srandom stderr stdout sysv_signal
	system ualarm unsetenv usleep vfork vfprintf vprintf warn warnx'

# The names as sys.h has them.
cat >"$tmp/names.c" <<'C'
#include "sys.h"
#define NAME_FD(name, params, args) SYS_NAME name;
#define NAME(type, name, params, args) SYS_NAME name;
SYS_DESCRIPTORS(NAME_FD)
SYS_WRAPPED(NAME)
SYS_PLAIN(NAME)
SYS_LINUX(NAME)
C
$CC -std=c11 -D_GNU_SOURCE -Ilib -E -P "$tmp/names.c" | tr ';' '\n' |
	sed -n 's/.*SYS_NAME \([a-z0-9_]*\).*/\1/p' | sort -u >"$tmp/sys"
[ "$(wc -l <"$tmp/sys")" -ge 40 ] || bad 'cannot read the lists of lib/sys.h'

# words LIST: one a line.
words() {
	# shellcheck disable=SC2086
	printf '%s\n' $1 | sort -u
}
words "$(cat "$tmp/sys") $related" >"$tmp/calls"
words "$unsafe" >"$tmp/unsafe"
words "$unsafe $banned" >"$tmp/banned"
comm -23 "$tmp/banned" "$tmp/calls" >"$tmp/banned_lib"
comm -23 "$tmp/banned" "$tmp/sys" >"$tmp/banned_sys"

# What an object leaves to others; what the compiler and the C library make of
# a name (fortified, large-file and versioned forms) is brought back to it.
undefined() {
	nm -u "$1" | awk '{ print $NF }' | sed 's/@.*//; s/^__isoc[0-9]*_//
		s/^__\(.*\)_chk$/\1/; s/^__\(.*\)_2$/\1/; s/^\(.*[^0-9]\)64$/\1/
		s/^__sysv_signal$/signal/' | sort -u
}

# refuse OBJECT LIST WHY
refuse() {
	file=${1#*/obj/}
	undefined "$1" | comm -12 - "$2" | sed "s|^|${file%.o}.c: $3 |"
}

for object in $(objects "$debug"); do
	case $object in
	*/lib/sys.o) refuse "$object" "$tmp/banned_sys" 'must not use' ;;
	*)
		refuse "$object" "$tmp/calls" 'calls past sys.h:'
		refuse "$object" "$tmp/banned_lib" 'must not use'
		;;
	esac
done | bad_lines ''
for file in handlers/*.c demos/*.c; do
	case $file in *'*'*) continue ;; esac
	lacked=$(lacked_by "$file")
	if [ -n "$lacked" ]; then
		skipped "$file: $lacked is not installed" >&2
	else
		refuse "$debug/obj/${file%.c}.o" "$tmp/unsafe" 'must not use'
	fi
done | bad_lines ''

# Those that the compiler makes something else of, or that sys.h leaves too.
# shellcheck disable=SC2086
spelled="[^A-Za-z0-9_>.]($(echo $unsafe | tr ' ' '|')) *\\("
for file in lib/*.[ch] lib/*/*.[ch] handlers/*.[ch] demos/*.[ch]; do
	[ ! -e "$file" ] || code "$file" | grep -E "$spelled"
done | bad_lines 'must not use: '
for file in lib/*.[ch] lib/*/*.[ch]; do
	case $file in *'*'* | lib/sys.[ch]) continue ;; esac
	code "$file" | grep -E '[^A-Za-z0-9_>.]free *\('
done | bad_lines 'past sys.h: '

# The rule itself: lib/sys.o is where the calls are.
undefined "$debug/obj/lib/sys.o" | grep -qx socket ||
	bad 'does not see the calls of lib/sys.c'

finish
