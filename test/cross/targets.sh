# shellcheck shell=sh
# shellcheck disable=SC2034 # run.sh uses what is set here
# The targets of check-cross, sourced by run.sh.

all='strict strict-clang musl i686 ucontext musl-poll aarch64 armhf s390x'

# Those of programs that a test starts run too, but for make, gdb and systemd's.
emulated_suites='t_smoke t_context t_fiber t_address t_conformance'

# describe TARGET: what it is, its compiler and flags, whether they are for
# another machine or C library, the tools it needs, what runs its programs if not
# this machine, what is linked with them, by how much its tests' time is
# stretched, and its suites (none: all).
describe() {
	cc='' cflags='' cppflags='' ldflags='' emulator='' portable=''
	suites='' stretch='' needs=''
	foreign='' lent='' ldd=ldd
	case $1 in
	strict | strict-clang)
		what='ISO C11 and nothing else'
		cc=gcc
		[ "$1" = strict ] || cc=clang
		cflags='-pedantic-errors'
		suites=t_smoke ;;
	musl | musl-poll)
		what='the C library musl'
		cc=musl-gcc foreign=1 lent=words
		ldd="/lib/ld-musl-$(uname -m).so.1 --list"
		[ "$1" = musl ] || {
			what='poll(2) and musl'
			portable=1 suites='t_smoke t_conformance t_fiber'
		} ;;
	ucontext)
		what='fibers by ucontext(3)'
		cc=gcc cppflags=-DSS_UCONTEXT
		suites='t_smoke t_context t_fiber' ;;
	i686)
		what='32 bits'
		cc=i686-linux-gnu-gcc foreign=1
		root=/usr/i686-linux-gnu/lib
		ldflags="-Wl,--dynamic-linker,$root/ld-linux.so.2"
		ldflags="$ldflags -Wl,-rpath,$root" ;;
	aarch64)
		what='64-bit ARM'
		emulate aarch64 aarch64-linux-gnu
		needs=gdb-multiarch ;;
	armhf)
		what='32-bit ARM'
		emulate arm arm-linux-gnueabihf ;;
	s390x)
		what='big-endian, s390x'
		emulate s390x s390x-linux-gnu ;;
	*)
		echo "cross: no target $1; there are: $all" >&2
		exit 2 ;;
	esac
}

# emulate MACHINE TRIPLET
emulate() {
	cc=$2-gcc foreign=1 lent=qemu emulator="qemu-$1 -L /usr/$2"
	suites=$emulated_suites stretch=20
}
