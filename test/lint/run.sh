#!/bin/sh
# run.sh [CHECK...]: runs the checks, all of them by default, from the quickest
# on; goes on after one that fails.  Each prints "ok CHECK", or what is wrong.
set -u
cd "$(dirname "$0")/../.." || exit 1
[ $# -gt 0 ] || set -- layering calls exports headers format man shell python \
	cppcheck tidy

failed=
for check; do
	"test/lint/$check.sh" || failed="$failed $check"
done
[ -z "$failed" ] || {
	echo "lint: wrong:$failed"
	exit 1
}
