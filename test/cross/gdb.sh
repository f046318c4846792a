#!/bin/sh
# In the place of gdb where programs are emulated: EMULATOR runs what gdb would
# `run`, and gdb-multiarch is its remote debugger.  The last argument is the
# program, as wrapped by run.sh; ROOT is where the other machine's libraries
# are.
# shellcheck disable=SC2086 # the emulator is split into words
set -u

for last; do :; done
stub=$(mktemp -d) pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$stub"' EXIT

real() {
	echo "$1" | sed 's|/emulated/|/debug/|'
}

set -- "$@" ''
while [ -n "$1" ]; do
	word=$1
	shift
	case $word in
	run)
		$EMULATOR -g "$stub/stub" "$(real "$last")" >/dev/null &
		pid=$!
		while [ ! -S "$stub/stub" ]; do
			sleep 0.01
		done
		set -- "$@" "target remote $stub/stub" -ex continue ;;
	*)
		set -- "$@" "$(real "$word")" ;;
	esac
done
shift
gdb-multiarch -iex "set sysroot $ROOT" "$@"
