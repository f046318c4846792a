#!/bin/sh
# cppcheck over all that is compiled for users, and the tests' programs.
. "$(dirname "$0")/common.sh"
need cppcheck

dirs=
for dir in lib handlers demos test/bench test/peers; do
	# shellcheck disable=SC2144
	[ -z "$(find "$dir" -name '*.c' 2>/dev/null)" ] || dirs="$dirs $dir"
done
mkdir -p "$tmp/cache"
# shellcheck disable=SC2086
cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 \
	--enable=warning,performance,portability --library=posix,gnu \
	--suppress=missingIncludeSystem --suppress=unmatchedSuppression \
	--template='{file}:{line}: {severity}: {message} [{id}]' \
	-D__linux__=1 -D__x86_64__=1 -D__GNUC__=12 -D_GNU_SOURCE=1 \
	-Iinclude -Ilib -Ihandlers \
	-j "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)" \
	$dirs >"$tmp/log" 2>&1 || bad_lines '' <"$tmp/log"

finish
