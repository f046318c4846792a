#!/bin/sh
# All C is laid out as .clang-format has it: `make format` does it.
. "$(dirname "$0")/common.sh"
need clang-format

in_tree '*.[ch]' | parallel clang-format --dry-run -Werror >"$tmp/log" 2>&1 || {
	if grep -q ': error:' "$tmp/log"; then
		sed -n 's/^\([^ :]*:[0-9]*\):[0-9]*: error: .*/\1/p' "$tmp/log" |
			sort -t : -k 1,1 -k 2,2n -u | bad_lines 'make format: '
	else
		bad_lines '' <"$tmp/log"
	fi
	bad "by $(clang-format --version)"
}

finish
