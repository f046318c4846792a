# shellcheck shell=sh
# What every check shares; sourced from the top directory by test/lint/NAME.sh,
# which says with `bad` what is wrong and ends with `finish`.
#
# From `make lint`: CC, CXX; build/debug and build/release are built.

set -u
CC=${CC:-cc} CXX=${CXX:-c++}
check=$(basename "$0" .sh)
# shellcheck disable=SC2034 # the checks use them
debug=build/debug release=build/release
tmp=build/lint/$check
rm -rf "$tmp"
mkdir -p "$tmp"

have() {
	command -v "${1%% *}" >/dev/null 2>&1
}

# A file, since most of what finds something wrong is the end of a pipeline.
bad() {
	printf '%s: %s\n' "$check" "$*"
	: >"$tmp/wrong"
}

# bad_lines TEXT: each line of standard input is wrong, after TEXT.
bad_lines() {
	while IFS= read -r line; do
		bad "$1$line"
	done
}

# skipped WHAT: a part of the check cannot be made here.  In CI all must be.
skipped() {
	echo "skipped: $1 ($check)"
	[ "${CI:-}" != true ] || : >"$tmp/wrong"
}

# need TOOL: without it the whole check is skipped.
need() {
	have "$1" && return
	skipped "$1 is not installed"
	[ ! -e "$tmp/wrong" ]
	exit
}

finish() {
	[ ! -e "$tmp/wrong" ] || exit 1
	echo "ok $check"
	exit 0
}

# parallel COMMAND...: for each file of standard input, one at a time on each
# processor; the command gets it as its last argument.
parallel() {
	xargs -n 1 -P "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)" "$@"
}

# in_tree NAME...: files of the tree with such names (patterns of find).
in_tree() {
	first=$1
	shift
	set -- -name "$first" "$@"
	find . \( -name .git -o -path ./build \) -prune -o -type f \
		\( "$@" \) -print | sed 's|^\./||' | sort
}

# package_of FILE: what a demo of another library's loop is made with.
package_of() {
	sed -n "s/^PACKAGE_$(basename "$1" .c) := //p" Makefile
}

# lacked_by FILE: that, if it is not here.
lacked_by() {
	package=$(package_of "$1")
	[ -z "$package" ] || pkg-config --exists "$package" 2>/dev/null ||
		echo "$package"
}

# objects VARIANT-DIRECTORY: those of the library.
objects() {
	tr ' ' '\n' <"$1/libsocketserver.list"
}

# code FILE: without its comments, lines numbered "FILE:N:".
code() {
	awk '{
		line = $0
		out = ""
		while (line != "") {
			if (inside) {
				end = index(line, "*/")
				if (!end)
					break
				line = substr(line, end + 2)
				inside = 0
			} else {
				begin = index(line, "/*")
				if (!begin) {
					out = out line
					break
				}
				out = out substr(line, 1, begin - 1) " "
				line = substr(line, begin + 2)
				inside = 1
			}
		}
		print FILENAME ":" FNR ":" out
	}' "$1"
}

# declared_with PATTERN: what the headers declare after it, name by name.
declared_with() {
	for header in include/socketserver/*.h; do
		echo "#include <socketserver/${header##*/}>"
	done | $CC -std=c11 -D_GNU_SOURCE -Iinclude -E -P - |
		tr '\n' ' ' | tr ';{}' '[\n*]' | sed -n "s/.*$1//p" |
		sed 's/__attribute__.*//; s/(.*//; s/[[:space:]]*$//
			s/.*[^A-Za-z0-9_]//' | sort -u
}

# What is SS_API; what is defined in the headers themselves; and what is in
# libsocketserver-test.a alone.
exported_names() {
	declared_with 'visibility("default")))'
}
inline_names() {
	declared_with 'static inline' | grep '^ss_'
}
testing_names() {
	code include/socketserver/fault.h | grep -o 'ss_fault_[a-z_]*(' |
		tr -d '(' | sort -u
}
