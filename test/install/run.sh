#!/bin/sh
# Installs into a temporary place, builds a C and a C++20 program against what
# is there, by pkg-config, shared and static, runs them, and uninstalls.
# t_install runs it: MAKE (with its MAKEFLAGS), CC, CXX, PKG_CONFIG, FLAGS (the
# variant's instruments), LDD (what tells of a program's libraries).
# shellcheck disable=SC2086 # commands and flags are split into words
set -eu

MAKE=${MAKE:-make} CC=${CC:-cc} CXX=${CXX:-c++}
PKG_CONFIG=${PKG_CONFIG:-pkg-config} FLAGS=${FLAGS:-}
# The descriptors of make's job server have not come along.
MAKEFLAGS=$(echo "${MAKEFLAGS:-}" |
	sed 's/ --jobserver-[^ ]*//g; s/ -j[0-9]*//g')
export MAKEFLAGS
unset DESTDIR PREFIX BINDIR LIBDIR INCLUDEDIR MANDIR
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

die() {
	echo "install: $*" >&2
	exit 1
}

quietly() {
	"$@" >"$tmp/log" 2>&1 || {
		cat "$tmp/log" >&2
		die "failed: $*"
	}
}

# place PREFIX [DESTDIR]: the variables of an installation there.
make_at() {
	target=$1 prefix=$2 destdir=${3-}
	quietly $MAKE --no-print-directory "$target" PREFIX="$prefix" \
		DESTDIR="$destdir" BINDIR="$prefix/bin" LIBDIR="$prefix/lib" \
		INCLUDEDIR="$prefix/include" MANDIR="$prefix/share/man"
}

files_below() {
	(cd "$1" && find . ! -type d | sort)
}

# program NAME COMPILER... : builds it as told and runs it.
program() {
	name=$1
	shift
	# There, for what coverage writes beside a program.
	(cd "$tmp" && quietly "$@" -o "$name")
	LD_LIBRARY_PATH=$tmp/usr/lib "$tmp/$name" >"$tmp/out" \
		2>"$tmp/log" || {
		cat "$tmp/out" "$tmp/log" >&2
		die "$name failed"
	}
	[ "$(cat "$tmp/out")" = "ok $version" ] ||
		die "$name said: $(cat "$tmp/out")"
}

make_at install "$tmp/usr"
make_at install /usr "$tmp/staged"
files_below "$tmp/usr" >"$tmp/here"
files_below "$tmp/staged/usr" >"$tmp/there"
cmp -s "$tmp/here" "$tmp/there" ||
	die "with DESTDIR other files: $(diff "$tmp/here" "$tmp/there")"
grep -q "$tmp" "$tmp/staged/usr/lib/pkgconfig/socketserver.pc" &&
	die 'DESTDIR got into socketserver.pc'
[ -e "$tmp/usr/lib/pkgconfig/socketserver-test.pc" ] ||
	die 'no socketserver-test.pc'

"$tmp/usr/bin/ssctl" -h | grep -q '^usage: ssctl' || die 'no ssctl'
[ -e "$tmp/usr/share/man/man1/ssctl.1" ] || die 'no ssctl.1'
"$tmp/usr/bin/ss-replay" --help | grep -q '^usage: ss-replay' ||
	die 'no ss-replay'
[ -e "$tmp/usr/share/man/man1/ss-replay.1" ] || die 'no ss-replay.1'

export PKG_CONFIG_PATH="$tmp/usr/lib/pkgconfig"
version=$("$PKG_CONFIG" --modversion socketserver)
cflags=$("$PKG_CONFIG" --cflags socketserver)
shared=$("$PKG_CONFIG" --libs socketserver)
static=$("$PKG_CONFIG" --static --libs socketserver |
	sed 's/-lsocketserver/-l:libsocketserver.a/')
strict='-Wall -Wextra -Wpedantic -Werror'

c="$CC -std=c11 $strict $FLAGS $cflags $here/program.c"
program c_shared $c $shared
program c_static $c $static

# As the pages on testing have it.
tested=$("$PKG_CONFIG" --cflags --libs socketserver-test)
for page in man3/ss_fault.3 man7/ss_testing.7; do
	name=$(basename "$page" | tr . _)
	awk '/^\.Sh / { here = $2 == "EXAMPLES" } /^\.Ed/ { inside = 0 } inside
		here && /^\.Bd -literal$/ { inside = 1 }' \
		"$tmp/usr/share/man/$page" | sed 's/\\e/\\/g' >"$tmp/$name.c"
	(cd "$tmp" && quietly $CC -std=gnu11 $strict $FLAGS "$name.c" \
		-o "$name" $tested)
	"$tmp/$name" >"$tmp/out" 2>"$tmp/log" || {
		cat "$tmp/log" >&2
		die "the example of $page failed"
	}
	grep -Eqx '[1-9][0-9]+ faults, and none did harm|ok' "$tmp/out" ||
		die "the example of $page said: $(cat "$tmp/out")"
done

if command -v "${CXX%% *}" >/dev/null 2>&1; then
	# g++ takes what designated initialisers leave out for an oversight.
	cxx="$CXX -std=c++20 $strict -Wno-missing-field-initializers $FLAGS"
	cxx="$cxx $cflags $here/program.cc"
	program cxx_shared $cxx $shared
	program cxx_static $cxx $static
else
	echo "install: skipped: C++, $CXX is not installed"
fi

# The shared ones must really have used the library.
for name in c_shared cxx_shared; do
	[ ! -e "$tmp/$name" ] || LD_LIBRARY_PATH=$tmp/usr/lib \
		${LDD:-ldd} "$tmp/$name" | grep -q "$tmp/usr/lib/libsocketserver.so" ||
		die "$name is not linked with the shared library"
done

make_at uninstall "$tmp/usr"
make_at uninstall /usr "$tmp/staged"
left=$(files_below "$tmp/usr" && files_below "$tmp/staged")
[ -z "$left" ] || die "left by uninstall: $left"
[ ! -d "$tmp/usr/include/socketserver" ] || die 'left: include/socketserver'
