#!/bin/sh
# Python: the benchmark, by pyflakes, and its own arithmetic by its self-test.
. "$(dirname "$0")/common.sh"
need python3

if have pyflakes3; then
	in_tree '*.py' | xargs pyflakes3 2>&1 | bad_lines ''
else
	skipped 'pyflakes3 is not installed'
fi
python3 -B test/bench/selftest.py >"$tmp/log" 2>&1 ||
	bad_lines '' <"$tmp/log"

finish
