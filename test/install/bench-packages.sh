#!/bin/sh
# Installs what the benchmark compares with, on Debian and its kin.
# shellcheck disable=SC2086 # split into words
set -u

packages='g++ pkg-config python3 libevent-dev libuv1-dev libglib2.0-dev
	libboost-dev'

command -v apt-get >/dev/null 2>&1 || {
	echo "The benchmark compares with what these packages of Debian have;" \
		"please install their like:" $packages >&2
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
