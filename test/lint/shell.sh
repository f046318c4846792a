#!/bin/sh
# Every shell script, by its name or its first line.
. "$(dirname "$0")/common.sh"
need shellcheck

{
	in_tree '*.sh'
	in_tree '*' | grep -v '\.' | while read -r file; do
		head -n 1 "$file" | grep -q '^#!.*sh$' && echo "$file"
	done
	echo .ci/run
} | sort -u | xargs shellcheck --external-sources --source-path=SCRIPTDIR ||
	bad 'shellcheck has something to say'

finish
