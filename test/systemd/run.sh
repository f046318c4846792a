#!/bin/sh
# Boots a systemd of our own, in namespaces where it can reach nothing else, and
# has it run the units of demos/systemd: start, reload, activation, watchdog, and
# what journald makes of their lines.  t_systemd runs it, as root, with the echo
# server's directory: run.sh DIR.
# Ends in 77 where systemd does not boot.
# shellcheck disable=SC2016 # what sh runs in there
set -eu

demos=$1
units=$(cd "$(dirname "$0")/../../demos/systemd" && pwd)
tmp=$(mktemp -d)
group=libsocketserver-test-$$
systemd=''

# soon TENTHS COMMAND...: until it is so.
soon() {
	left=$1
	shift
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || return 1
		sleep 0.1
	done
}

# Of control groups systemd sees version 2 alone, whatever is mounted here: it
# takes a group of ours for the root.
mkdir "$tmp/cgroup"
in_cgroups="mount -t cgroup2 none $tmp/cgroup && cd $tmp/cgroup"

remove_group() {
	unshare --mount sh -c "$in_cgroups && [ ! -d $group ] ||
		find $group -depth -type d -exec rmdir {} +"
}

leave() {
	[ -z "$systemd" ] || kill -KILL "$systemd" 2>/dev/null || :
	[ -z "$systemd" ] || wait "$systemd" 2>/dev/null || :
	soon 50 remove_group || :
	rm -rf "$tmp"
}
trap leave EXIT
trap 'exit 1' HUP INT TERM

# Targets that units need by default; and echo_server where they look for it.
mkdir "$tmp/units"
cp "$units"/* "$tmp/units"
for target in sysinit basic shutdown network sockets multi-user; do
	printf '[Unit]\nDefaultDependencies=no\n' >"$tmp/units/$target.target"
done
sed -i 's|/usr/local/bin|/run/bin|' "$tmp"/units/*.service
for unit in "$tmp"/units/*.service; do
	mkdir "$unit.d"
	printf '[Service]\nWatchdogSec=5\n' >"$unit.d/soon.conf"
done

# journald as it is installed; but in memory, and without what it might take from
# the kernel, or put into the machine's /dev: a unit's own has its log.
journal=''
if [ -e /lib/systemd/system/systemd-journald.service ] &&
	[ -e /etc/machine-id ]; then
	journal=yes
	for unit in .service .socket -dev-log.socket; do
		sed '/^Symlinks=/d; s/ systemd-journald-audit.socket//' \
			"/lib/systemd/system/systemd-journald$unit" \
			>"$tmp/units/systemd-journald$unit"
	done
	mkdir "$tmp/units/systemd-journald.service.d"
	printf '[Service]\nEnvironment=SYSTEMD_LOG_TARGET=null\n' \
		>"$tmp/units/systemd-journald.service.d/apart.conf"
fi
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\n' \
	>"$tmp/journald.conf"

# sh -c BOOT TMP DEMOS GROUP: becomes systemd.
boot='
mkdir $3
echo 0 >$3/cgroup.procs
cd /
exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup --ipc \
	--uts --net sh -e -c "
		mount -t cgroup2 none /sys/fs/cgroup
		mount -t tmpfs -o mode=755 tmpfs /run
		mkdir -p /run/systemd/system /run/systemd/journald.conf.d \
			/run/bin
		cp -r $1/units/. /run/systemd/system
		cp $1/journald.conf /run/systemd/journald.conf.d
		cp $2/echo_server $2/echo_client $2/ssctl /run/bin
		mount -t tmpfs tmpfs /tmp
		mount -t tmpfs tmpfs /var/tmp
		mount -o remount,bind,ro /
		exec env container=test SYSTEMD_UNIT_PATH=/run/systemd/system \
			/lib/systemd/systemd --system --unit=basic.target"'
unshare --mount sh -e -c "$in_cgroups; $boot" boot "$tmp" "$demos" "$group" \
	>"$tmp/log" 2>&1 &
systemd=$!

# The first process in there.
init() {
	kill -0 "$systemd" || exit 77
	pid=$(cut -d ' ' -f 1 "/proc/$systemd/task/$systemd/children")
	[ -n "$pid" ]
}
inside() {
	nsenter -t "$pid" -a "$@"
}
up() {
	init && inside systemctl list-units
}
soon 100 up || {
	cat "$tmp/log"
	exit 77
}
trap 'inside systemctl --no-pager status "echo*" || :; leave' EXIT

die() {
	echo "systemd: $*" >&2
	exit 1
}

# is UNIT PROPERTY VALUE
is() {
	[ "$(inside systemctl show "$1" -p "$2" --value)" = "$3" ]
}

# echoes COUNT: so many clients are served.
echoes() {
	for _ in $(seq "$1"); do
		[ "$(echo hello |
			inside /run/bin/echo_client tcp://127.0.0.1:7777)" = \
			hello ] || die 'no echo'
	done
}

# reloads UNIT: another process has taken over, which systemd knows.
reloads() {
	old=$(inside systemctl show "$1" -p MainPID --value)
	inside systemctl reload "$1"
	soon 100 inside sh -c "! kill -0 $old"
	is "$1" ActiveState active || die "$1 is not active after its reload"
	is "$1" MainPID "$old" && die "$1 is still the same process"
	echoes 3
}

# stops UNIT...: well.
stops() {
	inside systemctl stop "$@"
	for unit; do
		is "$unit" Result success || die "$unit did not end well"
		is "$unit" ActiveState inactive || die "$unit did not end"
	done
}

inside systemctl start echo.service
echoes 3
status=$(inside systemctl show echo.service -p StatusText --value)
case $status in
"serving tcp://127.0.0.1:7777 "*) ;;
*) die "its status is '$status'" ;;
esac
inside /run/bin/ssctl -s /run/echo/control stats >/dev/null || die 'no control'
main=$(inside systemctl show echo.service -p MainPID --value)
[ "$(inside stat -c %u "/proc/$main")" != 0 ] || die 'it is root'
reloads echo.service
reloads echo.service
# Longer than the watchdog's time: it is fed, by the new process.
sleep 6
is echo.service NRestarts 0 || die 'its watchdog was not fed'
main=$(inside systemctl show echo.service -p MainPID --value)
inside kill -STOP "$main"
soon 100 is echo.service NRestarts 1 || die 'a stopped one is not replaced'
soon 100 is echo.service ActiveState active
echoes 1
stops echo.service

inside systemctl start echo-activated.socket
is echo-activated.service ActiveState inactive || die 'it runs without a client'
echoes 3
is echo-activated.service ActiveState active || die 'it was not started'
reloads echo-activated.service
reloads echo-activated.service
main=$(inside systemctl show echo-activated.service -p MainPID --value)
inside cat "/proc/$main/environ" | tr '\0' '\n' |
	grep -qx 'LISTEN_FDNAMES=echo' || die 'its socket has lost its name'
stops echo-activated.socket echo-activated.service

# logged PRIORITY TEXT PID: journald has such a line of that process.
logged() {
	inside journalctl -D /run/log/journal -q -o cat PRIORITY="$1" \
		_PID="$3" _TRANSPORT="$transport" _SYSTEMD_UNIT=echo.service \
		SYSLOG_IDENTIFIER=echo_server SYSLOG_FACILITY=3 >"$tmp/lines"
	grep -q "^$begins$2" "$tmp/lines"
}

# arrives PRIORITY TEXT PID: soon.
arrives() {
	soon 100 logged "$@" && return
	inside journalctl -D /run/log/journal -q -n 50 _SYSTEMD_UNIT=echo.service
	die "no line '$2' of priority $1 by $transport"
}

# logs OPTION...: the unit's lines arrive as what they are, of its supervisor and
# its worker, once another process has taken over.
logs() {
	printf '[Service]\nExecStart=\nExecStart=%s %s %s\n' \
		'/run/bin/echo_server -m prefork --workers 1 --trace -v' \
		"$*" tcp://127.0.0.1:7777 | inside sh -c '
		cat >/run/systemd/system/echo.service.d/log.conf
		systemctl daemon-reload'
	inside systemctl start echo.service
	reloads echo.service
	main=$(inside systemctl show echo.service -p MainPID --value)
	worker=$(inside cat "/proc/$main/task/$main/children")
	worker=${worker% }
	arrives 7 '#[0-9]* get_request' "$worker"
	arrives 6 '#[0-9]* request from 127.0.0.1:' "$worker"
	inside kill -KILL "$worker"
	arrives 4 "worker 1, process $worker, was killed by signal 9" "$main"
	inside mv /run/bin/echo_server /run/bin/gone
	inside systemctl reload echo.service
	arrives 3 'restart: process [0-9]* cannot execute' "$main"
	inside mv /run/bin/gone /run/bin/echo_server
	stops echo.service
}

if [ -n "$journal" ] && inside systemctl start systemd-journald.service; then
	transport=stdout
	begins='socketserver: [a-z]*: '
	logs
	begins='echo_server: [a-z]*: '
	logs --log-to journal
	transport=syslog
	begins=''
	logs --log-to syslog
else
	echo 'skipped: journald is not here'
fi
trap leave EXIT
