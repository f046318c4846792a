#!/bin/sh
# Every public header compiles alone, as C11 and as C++20, with and without
# _GNU_SOURCE, twice in one file, and beside the headers that own other SS_ and
# ss_ names.
. "$(dirname "$0")/common.sh"

strict='-Wall -Wextra -Wpedantic -Wshadow -Werror -Iinclude -fsyntax-only'

# compiles WHAT COMMAND...: the program of standard input does.
compiles() {
	what=$1
	shift
	"$@" - >"$tmp/log" 2>&1 || bad "$what: $(head -20 "$tmp/log")"
}

c_compilers=
cxx_compilers=
for cc in "$CC" gcc clang; do
	have "$cc" && case " $c_compilers " in
	*" $cc "*) ;;
	*) c_compilers="$c_compilers $cc" ;;
	esac
done
for cxx in "$CXX" g++ clang++; do
	have "$cxx" && case " $cxx_compilers " in
	*" $cxx "*) ;;
	*) cxx_compilers="$cxx_compilers $cxx" ;;
	esac
done
[ -n "$cxx_compilers" ] || skipped 'a C++ compiler is not installed'

others='#include <signal.h>
#include <linux/net.h>'
ss='#include <ss/ss.h>'
has_ss=no
echo "$ss" | $CC -fsyntax-only -x c - 2>/dev/null && has_ss=yes
[ $has_ss = yes ] || skipped 'ss/ss.h (ss-dev) is not installed'

for header in include/socketserver/*.h; do
	name=socketserver/${header##*/}
	include="#include <$name>"
	for cc in $c_compilers; do
		# shellcheck disable=SC2086
		for mode in '-std=c11' '-std=c11 -D_GNU_SOURCE' \
			'-std=c11 -D_POSIX_C_SOURCE=200809L' '-std=gnu17'; do
			c="$cc $mode $strict -Wstrict-prototypes -x c"
			echo "$include" | compiles "$name: $cc $mode" $c
		done
		c="$cc -std=gnu11 $strict -x c"
		# shellcheck disable=SC2086
		{
			printf '%s\n%s\n' "$include" "$include" |
				compiles "$name: twice, $cc" $c
			printf '%s\n' "$others" "$include" |
				compiles "$name: after signal.h, $cc" $c
			printf '%s\n' "$include" "$others" |
				compiles "$name: before signal.h, $cc" $c
		}
		[ $has_ss = yes ] || continue
		# shellcheck disable=SC2086
		{
			printf '%s\n' "$ss" "$include" |
				compiles "$name: after ss/ss.h, $cc" $c
			printf '%s\n' "$include" "$ss" |
				compiles "$name: before ss/ss.h, $cc" $c
		}
	done
	for cxx in $cxx_compilers; do
		# shellcheck disable=SC2086
		{
			c="$cxx -std=c++20 $strict -x c++"
			echo "$include" | compiles "$name: $cxx" $c
			printf '%s\n' "$others" "$include" |
				compiles "$name: after signal.h, $cxx" $c
		}
	done
done

finish
