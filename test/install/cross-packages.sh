#!/bin/sh
# Installs what `make check-cross` builds and runs with, on Debian and its kin.
set -u
. "$(dirname "$0")/apt.sh"

packages 'The cross checks are made with' \
	gcc clang musl-tools \
	gcc-i686-linux-gnu libc6-dev-i386-cross \
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
	gcc-arm-linux-gnueabihf libc6-dev-armhf-cross \
	gcc-s390x-linux-gnu libc6-dev-s390x-cross \
	qemu-user gdb-multiarch check pkg-config
