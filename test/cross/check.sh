#!/bin/sh
# check.sh PLACE COMPILER: builds the library check, with which the tests are
# written, from Debian's source by that compiler, and installs it in PLACE.
# The source is fetched once, to build/cross/source, by lists of packages that
# are none of the system's; check.sh alone does no more than that.
# shellcheck disable=SC2086 # options are split into words
set -eu

place=${1-} compiler=${2-}
source=build/cross/source

die() {
	echo "check: $*" >&2
	exit 1
}

fetch() {
	lists=$(mktemp -d)
	trap 'rm -rf "$lists"' EXIT
	trap 'exit 1' HUP INT TERM
	mkdir -p "$lists/lists/partial"
	signed=/usr/share/keyrings/debian-archive-keyring.gpg
	apt-get indextargets --format \
		"deb-src [signed-by=$signed] \$(REPO_URI) \$(RELEASE) main" \
		'Created-By: Packages' 'Origin: Debian' |
		sort -u >"$lists/sources.list"
	[ -s "$lists/sources.list" ] || die "no source of Debian's is known"
	options="-q -o Dir::Etc::sourcelist=$lists/sources.list
		-o Dir::Etc::sourceparts=/dev/null
		-o Dir::State::lists=$lists/lists -o Acquire::Retries=3
		-o APT::Sandbox::User=$(id -un)
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
	apt-get $options update
	(cd "$lists" && apt-get $options source --download-only check)
	mkdir -p "$source"
	tar -x -C "$source" --strip-components=1 -f "$lists"/check_*.orig.tar.*
	: >"$source/whole"
}

[ -e "$source/whole" ] || fetch
[ -n "$place" ] || exit 0
source=$PWD/$source
mkdir -p "$place/build"
place=$PWD/$place
cd "$place/build"
"$source/configure" -q --prefix="$place" --host="$($compiler -dumpmachine)" \
	CC="$compiler" CFLAGS=-O2 --disable-shared \
	--disable-subunit --disable-build-docs --disable-dependency-tracking
make -s -C lib
make -s -C src install
cp check_stdint.h "$place/include"
mkdir -p "$place/lib/pkgconfig"
sed 's/-lcheck/& -lm -lrt/' check.pc >"$place/lib/pkgconfig/check.pc"
