#!/bin/sh
# An example of ss_probes(7) as it is printed there, with an echo server: prints
# it what the page says?  t_probes runs it: run.sh bpftrace|perf|gdb DIR, where
# DIR has the echo server.  Where that tool may not trace it says so.
set -eu

tool=$1
demos=$2
page=$(cd "$(dirname "$0")/../../include/socketserver" && pwd)/ss_probes.7
tmp=$(mktemp -d)
server='' tracer='' probes=''
export LC_ALL=C HOME="$tmp"
tracefs=/sys/kernel/tracing

leave() {
	for pid in $tracer $server; do
		kill -KILL "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	[ -z "$probes" ] || perf probe -q -d 'sdt_socketserver:*' || :
	rm -rf "$tmp"
}
trap leave EXIT
trap 'exit 1' HUP INT TERM

skip() {
	echo "skipped: $tool: $*"
	exit 0
}

die() {
	cat "$tmp/seen" >&2
	echo "$tool: $*" >&2
	exit 1
}

# soon TENTHS COMMAND...: until it is so.
soon() {
	left=$1
	shift
	until "$@"; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || return 1
		sleep 0.1
	done
}

# The page's, with the program and the process in the places of its own.
example() {
	awk -v start="$tool " '
		/^\.Bd -literal/ { block = ""; inside = 1; next }
		/^\.Ed/ && index(block, start) == 1 { printf "%s", block }
		/^\.Ed/ { inside = 0 }
		inside { block = block $0 "\n" }' "$page" |
		sed "s|\\\\e|\\\\|g; s|/usr/local/lib/libsocketserver.so|$program|
			s/-p PID/-p $server/" >"$tmp/example"
	[ -s "$tmp/example" ] || die "the page has no example"
}

program=$demos/echo_server
: >"$tmp/seen"
: >"$tmp/server"
mkfifo "$tmp/silence"
exec 9<>"$tmp/silence"
"$program" --loop --timeout 0.2 127.0.0.1:0 >"$tmp/server" 9<&- &
server=$!
listens() {
	url=$(sed -n 's/^listening on \([^ ]*\) .*/\1/p' "$tmp/server")
	[ -n "$url" ]
}
soon 100 listens || die "no server"

# A client who says nothing, until the server's time-out: an error.
silent() {
	"$demos/echo_client" "$url" <&9 >"$tmp/client" 2>&1 || :
}

# seen COUNT TEXT: after an error it has printed so many such lines.
seen() {
	silent
	[ "$(grep -c "$2" "$tmp/seen")" -ge "$1" ]
}

# ends COMMAND...: what traces, by its pid.
ends() {
	"$@"
	wait "$tracer" || :
	tracer=''
}

with_bpftrace() {
	bpftrace -e 'BEGIN { exit() }' >"$tmp/may" 2>&1 ||
		skip "$(tail -n 1 "$tmp/may")"
	sed -i '1s/^/exec /' "$tmp/example"
	sh "$tmp/example" >"$tmp/seen" 2>&1 9<&- &
	tracer=$!
	soon 100 seen 3 '^[1-9][0-9]*: Connection timed out$' || die 'no errors'
	ends kill -INT "$tracer"
	grep -q '^@us: *$' "$tmp/seen" || die 'no histogram'
	handled=$(awk '/^\[.*\|@/ { n += $(NF - 1) } END { print n + 0 }' \
		"$tmp/seen")
	[ "$handled" -ge 2 ] || die "$handled were handled"
}

# How often the kernel has seen a client accepted: while somebody traces.
accepted() {
	awk '$2 == "accept" { n = $3 } END { print n + 0 }' \
		"$tracefs/uprobe_profile"
}

traced() {
	silent
	[ "$(accepted)" -gt "$before" ]
}

has() {
	grep -q "echo_server.* sdt_socketserver:$1: .*arg2=[1-9]" "$tmp/seen"
}

# records COMMAND: until it is told to end; what was passed before all was in its
# place it does not have.
records() {
	before=$(accepted)
	sh -c "exec $1" >"$tmp/seen" 2>&1 8<&- 9<&- &
	tracer=$!
	soon 100 traced || die 'nothing is traced'
	silent
	ends kill -INT "$tracer"
	perf script >"$tmp/seen" 2>&1
	has accept && has close
}

# Its probes are the machine's, and there once: somebody else's are let be, and
# what a test has left that was killed is not.
with_perf() {
	[ -w "$tracefs/uprobe_events" ] || skip 'it may not set probes'
	exec 8<"$tracefs/uprobe_events"
	flock -w 10 8 || skip 'others trace'
	! grep ':sdt_socketserver/' "$tracefs/uprobe_events" |
		grep -vq '/demos/echo_server:' ||
		skip "its probes are set: perf probe -d 'sdt_socketserver:*'"
	probes=yes
	perf probe -q -d 'sdt_socketserver:*' >"$tmp/seen" 2>&1 || :
	cd "$tmp"
	while read -r command; do
		case $command in
		*record*)
			for _ in 1 2 3 4 5; do
				records "$command" && break
			done
			;;
		*)
			sh -c "$command" >"$tmp/seen" 2>&1 8<&- 9<&- </dev/null ||
				die "$command"
			;;
		esac
	done <"$tmp/example"
	has accept || die 'it has no accept'
	has close || die 'it has no close'
}

with_gdb() {
	sed -n 's/^(gdb) //p' "$tmp/example" >"$tmp/script"
	command=$(sed -n 1p "$tmp/example")
	sh -c "exec $command -nx -batch -x $tmp/script" >"$tmp/seen" 2>&1 \
		9<&- </dev/null &
	tracer=$!
	soon 100 seen 1 '"Connection timed out"\|ptrace: ' || die 'no error'
	! grep -q 'ptrace: ' "$tmp/seen" || skip 'it may not trace'
	ends
	grep -q 'socketserver *accept *0x' "$tmp/seen" || die 'no list of probes'
}

example
"with_$tool"
