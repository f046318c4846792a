#!/bin/sh
# Who may include whom:
#
#	include/socketserver	<socketserver/...>, system headers
#	handlers, demos		the same, "handlers.h", a "..." of the own
#				directory
#	lib/*/			the same without handlers.h, ../sys.h, ../thread.h,
#				../diag.h, what fiber/ offers; never internal.h
#	lib			the same, "..." of lib
#
# and what stands at the top of the tree.
. "$(dirname "$0")/common.sh"

# A system header is <...> that does not lead back into the tree.
for file in $(in_tree '*.[chS]'); do
	dir=${file%/*}
	case $dir in test*) continue ;; esac
	code "$file" | tr -d ' \t' | grep '^[^:]*:[0-9]*:#include' |
		sed 's/:#include/ /' | while read -r where what; do
		name=$(echo "$what" | tr -d '<>"')
		allowed=no
		case $what in
		'<socketserver/'*) allowed=yes ;;
		'<'*..*) ;;
		'<'*)
			[ -e "lib/$name" ] || [ -e "include/$name" ] ||
				[ -e "handlers/$name" ] || allowed=yes
			;;
		*internal.h*)
			[ "$dir" = lib ] && [ "$name" = internal.h ] &&
				allowed=yes
			;;
		'"handlers.h"')
			case $dir in handlers | demos) allowed=yes ;; esac
			;;
		'"sys.h"' | '"thread.h"' | '"diag.h"' | \
			'"../sys.h"' | '"../thread.h"' | '"../diag.h"')
			case $dir/$name in
			lib/sys.h | lib/thread.h | lib/diag.h) allowed=yes ;;
			lib/*/../*.h) allowed=yes ;;
			esac
			;;
		'"fiber/'* | '"../fiber/'*)
			case $dir in
			lib/mixin | lib/fiber | lib/testing) allowed=yes ;;
			esac
			;;
		'"'*/*) ;;
		*)
			case $dir in
			include/*) ;;
			*) [ -e "$dir/$name" ] && allowed=yes ;;
			esac
			;;
		esac
		[ $allowed = yes ] || echo "$where: must not include $what"
	done
done | bad_lines ''

for entry in *; do
	case $entry in
	Makefile | README.md | LICENSE) ;;
	include | lib | handlers | demos | test | build) ;;
	*) bad "$entry does not belong at the top of the tree" ;;
	esac
done

finish
