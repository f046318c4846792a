#!/bin/sh
# The shared library exports exactly what the headers declare SS_API, all of it
# ss_*; the one for tests has the rest of them; and the release library keeps no
# mutable globals but those that stand, with a reason, in globals.allow.
. "$(dirname "$0")/common.sh"
need nm

exported_names >"$tmp/declared"
[ -s "$tmp/declared" ] || bad 'cannot read SS_API from the headers'
nm -D --defined-only "$release/libsocketserver.so" |
	awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u \
	>"$tmp/exported"

comm -23 "$tmp/declared" "$tmp/exported" |
	bad_lines 'declared SS_API but not exported: '
comm -13 "$tmp/declared" "$tmp/exported" |
	bad_lines 'exported but in no header: '
grep -v '^ss_' "$tmp/declared" | bad_lines 'does not begin with ss_: '

testing_names >"$tmp/testing"
[ -s "$tmp/testing" ] || bad 'cannot read fault.h'
nm --defined-only "$release/libsocketserver-test.a" |
	awk '$2 == "T" && $3 ~ /^ss_/ { print $3 }' | sort -u >"$tmp/tested"
comm -23 "$tmp/testing" "$tmp/tested" |
	bad_lines 'declared, but not in libsocketserver-test.a: '
comm -12 "$tmp/testing" "$tmp/exported" | bad_lines 'not for tests alone: '
sort -u "$tmp/testing" "$tmp/declared" | comm -13 - "$tmp/tested" |
	grep '^ss_fault' | bad_lines 'in libsocketserver-test.a, but in no header: '

# Constant tables of addresses are data that the loader makes read-only.
for object in $(objects "$release"); do
	nm -f sysv "$object" | awk -F '|' -v file="${object#*/obj/}" '
		{ gsub(/ /, "") }
		$3 ~ /^[BbDdCGgSs]$/ && $7 !~ /^\.data\.rel\.ro/ {
			sub(/\.[0-9]+$/, "", $1)
			print $1, file
		}'
done | sort -u >"$tmp/globals"
grep -v '^#' test/lint/globals.allow | awk 'NF == 1' |
	bad_lines 'globals.allow gives no reason for: '
awk '!/^#/ && NF { print $1 }' test/lint/globals.allow | sort -u >"$tmp/allow"
join -v 2 "$tmp/allow" "$tmp/globals" | bad_lines 'a mutable global: '
join -v 1 "$tmp/allow" "$tmp/globals" | bad_lines 'allowed, but not there: '

finish
