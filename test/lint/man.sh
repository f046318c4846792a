#!/bin/sh
# Man pages: mandoc has nothing to say, every public name is on one of them,
# and every function that they name exists.
#
# Examples are programs: a literal block (.Bd -literal) that has an #include
# line is a whole file and compiles, without warnings, as the reader sees it;
# a block without one is a fragment, and is only read.  README.md's ```c blocks
# keep to the same rule, and one of them is demos/hello.c, verbatim.  An example
# of a fuzz target is test/fuzz/example.c, which the tests run.
. "$(dirname "$0")/common.sh"

pages=$(in_tree '*.[1-8]')
[ -n "$pages" ] || bad 'there are no man pages'

# What ends in _sized is the other half of an inline function; that one counts.
{
	exported_names
	inline_names
	testing_names
} | sort -u >"$tmp/known"
grep -v '_sized$' "$tmp/known" >"$tmp/public"

# named MACROS: the words on the lines of the pages that have such a macro.
named() {
	# shellcheck disable=SC2086
	cat /dev/null $pages | grep -E "^\.(.* )?($1)( |\$)" |
		tr -cs 'A-Za-z0-9_' '[\n*]' | sort -u
}
named 'Fn|Fo|Nm|Va|Vt' | comm -23 "$tmp/public" - | bad_lines 'on no page: '

# The first word behind Fn and Fo is a function's name.
# shellcheck disable=SC2086
cat /dev/null $pages | grep -Eo '^\.(.* )?F[no] "?ss_[a-z0-9_]+' |
	sed 's/.*[ "]//' | sort -u | comm -23 - "$tmp/known" |
	bad_lines 'no such function: '

# Each static probe, and no other, is on its page.
cat lib/*.c lib/*/*.c | grep -Eo 'PROBE\([0-9], [a-z_]+' | sed 's/.* //' |
	sort -u >"$tmp/probes"
[ -s "$tmp/probes" ] || bad 'cannot read the probes of lib'
sed -n 's/^\.It Fn \([a-z_]*\) .*/\1/p' include/socketserver/ss_probes.7 |
	sort -u >"$tmp/told"
comm -23 "$tmp/probes" "$tmp/told" | bad_lines 'not in ss_probes(7): '
comm -13 "$tmp/probes" "$tmp/told" | bad_lines 'no such probe: '

# compiles FILE WHAT: as a reader's own program.
compiles() {
	grep -q '^[[:space:]]*#[[:space:]]*include' "$1" || return
	$CC -std=gnu11 -Wall -Wextra -Werror -Wno-unused-function \
		-Wno-unused-variable -Iinclude -iquote handlers \
		-fsyntax-only "$1" >"$tmp/log" 2>&1 ||
		bad "$2: $(head -20 "$tmp/log")"
}

# as_read FILE: a block in mdoc as mandoc shows it.
as_read() {
	{
		printf '.Dd January 1, 2020\n.Dt X 3\n.Os\n.Sh EXAMPLES\n'
		cat "$1"
	} | mandoc -T ascii -I os=x | sed "s/.$(printf '\b')//g" |
		awk 'show; /^EXAMPLES$/ { show = 1 }' | sed '$d'
}

# is_the_target FILE: or it is none at all; blanks do not count.
is_the_target() {
	grep -q LLVMFuzzerTestOneInput "$1" || return 0
	[ "$(tr -d ' \t\n' <"$1")" = "$(sed -n '/^#include/,$p' \
		test/fuzz/example.c | tr -d ' \t\n')" ]
}

if have mandoc; then
	for page in $pages; do
		mandoc -T lint -W warning "$page" | bad_lines ''
		rm -f "$tmp"/block.*
		awk -v to="$tmp/block." '
			/^\.Bd .*-literal/ { inside = 1; n++ }
			inside { print >(to n) }
			/^\.Ed/ { inside = 0 }' "$page"
		for block in "$tmp"/block.*; do
			[ -e "$block" ] || continue
			as_read "$block" >"$tmp/example.c"
			compiles "$tmp/example.c" "$page, example"
			is_the_target "$tmp/example.c" ||
				bad "$page: it is not test/fuzz/example.c"
		done
	done
else
	skipped 'mandoc is not installed'
fi

if [ -e README.md ]; then
	rm -f "$tmp"/block.*
	awk -v to="$tmp/block." '
		/^```/ { inside = !inside && /^```c$/; n += inside; next }
		inside { print >(to n ".c") }' README.md
	found=no
	for block in "$tmp"/block.*; do
		[ -e "$block" ] || continue
		compiles "$block" README.md
		cmp -s "$block" demos/hello.c && found=yes
	done
	[ $found = yes ] || bad 'README.md does not have demos/hello.c verbatim'
else
	bad 'there is no README.md'
fi

finish
