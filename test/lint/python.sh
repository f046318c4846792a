#!/bin/sh
# Python, by pyflakes; the arithmetic of the benchmark and of the soak test by
# their self-tests.
. "$(dirname "$0")/common.sh"
need python3

if have pyflakes3; then
	in_tree '*.py' | xargs pyflakes3 2>&1 | bad_lines ''
else
	skipped 'pyflakes3 is not installed'
fi
for selftest in test/bench/selftest.py test/soak/slopes.py; do
	python3 -B "$selftest" >"$tmp/log" 2>&1 || bad_lines '' <"$tmp/log"
done

finish
