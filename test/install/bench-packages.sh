#!/bin/sh
# Installs what the benchmark compares with, on Debian and its kin.
set -u
. "$(dirname "$0")/apt.sh"

packages 'The benchmark compares with what is in' \
	g++ pkg-config python3 libevent-dev libuv1-dev libglib2.0-dev \
	libboost-dev
