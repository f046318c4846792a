#!/bin/sh
# Installs what `make check-cross` builds and runs with, on Debian and its kin.
# shellcheck disable=SC2086 # split into words
set -u

packages='gcc clang musl-tools
	gcc-i686-linux-gnu libc6-dev-i386-cross
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross
	gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
	gcc-s390x-linux-gnu libc6-dev-s390x-cross
	qemu-user gdb-multiarch check pkg-config'

command -v apt-get >/dev/null 2>&1 || {
	echo 'The cross checks are made with these packages of Debian; please' \
		"install their like:" $packages >&2
	exit 1
}
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
export DEBIAN_FRONTEND=noninteractive
install() {
	$as_root apt-get install -y --no-install-recommends $packages
}
# A fresh machine may not have its package lists yet.
install || { $as_root apt-get update && install; }
