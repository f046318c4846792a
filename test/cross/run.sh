#!/bin/sh
# run.sh [TARGET...]: builds and tests for other machines, C libraries and
# compilers, all by default; `make check-cross` runs it.  Each target has a
# directory below build/cross, in which `log` tells all.  What cannot be done
# for lack of a tool is skipped by its name; in CI (CI=true) that fails.  With
# SUITE only these suites are run.
# shellcheck disable=SC2086 # commands and flags are split into words
set -u
cd "$(dirname "$0")/../.." || exit 1
. test/cross/targets.sh

MAKE=${MAKE:-make}
# The descriptors of make's job server have not come along.
MAKEFLAGS=$(echo "${MAKEFLAGS:-}" |
	sed 's/ --jobserver-[^ ]*//g; s/ -j[0-9]*//g')
export MAKEFLAGS
only=${SUITE:-}
unset VARIANT BUILD PORTABLE TABLE SUITE CFLAGS CPPFLAGS LDFLAGS CC
at_a_time=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

have() {
	command -v "$1" >/dev/null 2>&1
}

# built VARIANT TARGET... [VARIABLE=...]: as the target's description has it.
built() {
	variant=$1
	shift
	$MAKE --no-print-directory -j"$at_a_time" WERROR=1 \
		CC="$cc" CXX="$cxx" \
		VARIANT="$variant" BUILD="$place/$variant" \
		CFLAGS="$cflags $(eval "echo \${optimise_$variant}")" \
		CPPFLAGS="$cppflags" LDFLAGS="$ldflags" \
		LDLIBS="${lent:+$PWD/$place/lent.o}" PORTABLE="$portable" \
		PKG_CONFIG="${foreign:+$PWD/$place/}pkg-config" "$@"
}
# shellcheck disable=SC2034 # by eval
optimise_release='-O2 -g' optimise_debug='-Og -g'

# Programs of the other machine by the names that tests start them by.  They
# find themselves by their first argument.
wrap() {
	for source in demos/*.c test/peers/*.c; do
		program=${source%.c}
		mkdir -p "$place/emulated/${program%/*}"
		# shellcheck disable=SC2016 # the wrapper's own
		printf '#!/bin/sh\nexec %s -0 "$0" %s "$@"\n' "$emulator" \
			"$PWD/$place/debug/$program" \
			>"$place/emulated/$program"
		chmod +x "$place/emulated/$program"
	done
	mkdir -p "$place/emulated/bin"
	printf '#!/bin/sh\nEMULATOR="%s" ROOT="%s" exec %s "$@"\n' \
		"$emulator" "${emulator##* }" "$PWD/test/cross/gdb.sh" \
		>"$place/emulated/bin/gdb"
	chmod +x "$place/emulated/bin/gdb"
}

# What is linked with every program; make does not know of it.
lend() {
	[ -z "$(find "$place" -name lent.o -newer "test/cross/$lent.c")" ] ||
		return 0
	rm -rf "$place/debug" "$place/release"
	$cc -c -o "$place/lent.o" "test/cross/$lent.c"
}

# Packages of this machine are none of the target's: but for check, its own.
prepare() {
	mkdir -p "$place"
	[ -n "$foreign" ] || return 0
	cat >"$place/pkg-config" <<-END
		#!/bin/sh
		PKG_CONFIG_LIBDIR='$PWD/$place/check/lib/pkgconfig' \\
			exec pkg-config "\$@"
	END
	chmod +x "$place/pkg-config"
	[ -e "$place/check/lib/libcheck.a" ] ||
		test/cross/check.sh "$place/check" "$cc" || return
	[ -z "$emulator" ] || wrap
	[ -z "$lent" ] || lend
}

tested() {
	PATH="${emulator:+$PWD/$place/emulated/bin:}$PATH" LDD=$ldd built debug EMULATOR="$emulator" \
		EMULATED="${emulator:+$PWD/$place/emulated}" \
		SUITE="${only:-$suites}" ${stretch:+CK_TIMEOUT_MULTIPLIER=$stretch} \
		TABLE=1 run-tests
}

# The rules of make have it done only as far as it is not done yet.
carry_out() {
	prepare && built release TABLE= all && tested
}

# Sets `lacking`: the first tool that is not here.
look_for() {
	lacking=
	for tool in ${cc%% *} ${emulator%% *} $needs pkg-config; do
		have "$tool" || lacking="${lacking:-$tool}"
	done
}

one() {
	describe "$1"
	cxx=$(echo "$cc" | sed 's/clang$/clang++/; s/gcc$/g++/')
	place=build/cross/$1
	look_for
	[ -z "$lacking" ] || {
		tell "$1" "skipped: $lacking is not installed"
		[ "${CI:-}" != true ] || failed="$failed $1"
		return
	}
	begin=$(date +%s)
	mkdir -p "$place"
	if carry_out >"$place/log" 2>&1; then
		tell "$1" "$what: $(counted), $(($(date +%s) - begin)) s"
	else
		tail -n 30 "$place/log"
		failed="$failed $1"
		tell "$1" "$what: FAILED, see $place/log"
	fi
}

# As check sums it up: of all suites or, where it is one, of that.
counted() {
	grep '^[0-9]*%: Checks: ' "$place/log" | tail -n 1
}

tell() {
	line=$(printf '%-14s %s' "$1" "$2")
	echo "$line"
	summary="$summary$line
"
}

summary='' failed=''
[ $# -gt 0 ] || set -- $all
for name; do
	one "$name"
done
printf '\nAll targets:\n%s' "$summary"
[ -z "$failed" ] || {
	echo "cross: wrong:$failed"
	exit 1
}
