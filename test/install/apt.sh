# shellcheck shell=sh
# packages WHY NAME...: installs these on Debian and its kin, or says which they
# are.  Sourced.

packages() {
	why=$1
	shift
	command -v apt-get >/dev/null 2>&1 || {
		echo "$why these packages of Debian; please install their" \
			"like: $*" >&2
		exit 1
	}
	as_root=
	[ "$(id -u)" = 0 ] || as_root=sudo
	export DEBIAN_FRONTEND=noninteractive
	# A fresh machine may not have its package lists yet.
	$as_root apt-get install -y --no-install-recommends "$@" || {
		$as_root apt-get update &&
			$as_root apt-get install -y --no-install-recommends "$@"
	}
}
