#!/bin/sh
# clang-tidy, by .clang-tidy, over all that is compiled for users; one file a
# process, since the analyzer's va_list check carries over from file to file.
. "$(dirname "$0")/common.sh"
need clang-tidy

cat >"$tmp/one" <<'E1'
#!/bin/sh
# A log of its own, so that what is written at once does not mix.
log=build/lint/tidy/$(echo "$1" | tr / _).log
package=$(sed -n "s/^PACKAGE_$(basename "$1" .c) := //p" Makefile)
case $1 in
lib/testing/fault*) table=-DSS_SYS_TABLE ;;
*) table= ;;
esac
# shellcheck disable=SC2046,SC2086
clang-tidy --quiet "$1" -- -std=c11 -D_GNU_SOURCE $table -Iinclude \
	-iquote lib -iquote handlers $([ -z "$package" ] || pkg-config --cflags "$package" |
		sed 's/-I/-isystem /g') >"$log" 2>&1
E1
chmod +x "$tmp/one"
find lib handlers demos -name '*.c' | sort | while read -r file; do
	lacked=$(lacked_by "$file")
	if [ -n "$lacked" ]; then
		skipped "$file: $lacked is not installed" >&2
	else
		echo "$file"
	fi
done | parallel "$tmp/one" || {
	cat "$tmp"/*.log | grep -v -e '^[0-9]* warnings* ' -e '^Suppressed ' \
		-e '^Use -header-filter' | bad_lines ''
	bad 'clang-tidy has something to say'
}

finish
