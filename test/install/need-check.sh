#!/bin/sh
# Sees to it that the tests can be built: check and pkg-config.  Installs them
# by the system's package manager where they are missing; where that cannot be,
# says what to type.
# shellcheck disable=SC2086 # commands are split into words
set -u

PKG_CONFIG=${PKG_CONFIG:-pkg-config}
have() {
	command -v "$1" >/dev/null 2>&1
}
ready() {
	have "$PKG_CONFIG" && "$PKG_CONFIG" --exists check
}

ready && exit 0

if have apt-get; then
	command='apt-get install -y check pkg-config'
elif have dnf; then
	command='dnf install -y check-devel pkgconf-pkg-config'
elif have apk; then
	command='apk add check-dev pkgconf'
elif have pacman; then
	command='pacman -S --noconfirm check pkgconf'
elif have zypper; then
	command='zypper --non-interactive install check-devel pkg-config'
elif have brew; then
	command='brew install check pkg-config'
else
	echo 'The tests need check (https://libcheck.github.io/check) and' \
		'pkg-config; install them and try again.' >&2
	exit 1
fi

as_root=
case $command in
brew*) ;;
*)
	if [ "$(id -u)" != 0 ]; then
		as_root=sudo
	fi
	;;
esac
typed="${as_root:+$as_root }$command"

give_up() {
	echo "The tests need check and pkg-config.  Please type: $typed" >&2
	exit 1
}

# sudo may ask for a password only where somebody can answer.
if [ -n "$as_root" ]; then
	have sudo || {
		typed="su -c '$command'"
		give_up
	}
	[ -t 0 ] || as_root='sudo -n'
fi

echo "The tests need check and pkg-config; installing them: $typed" >&2
case $command in
apt-get*)
	# A fresh machine may not have its package lists yet.
	export DEBIAN_FRONTEND=noninteractive
	$as_root $command >&2 || {
		$as_root apt-get update >&2 && $as_root $command >&2
	} || give_up
	;;
*)
	$as_root $command >&2 || give_up
	;;
esac
ready || give_up
