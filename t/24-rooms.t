#!/bin/sh
# The house: rooms call only rooms below them, in the order of the sections of prun.h,
# and all of it stays small.
. "${0%/*}/lib.sh"
have nm || skip_all 'no nm'

# The order of the rooms, prun.c on top of them.
{
	echo prun
	sed -n 's,^/\* ---- \([a-z]*\)\.c: .*,\1,p' "$top/prun.h" | grep -vx prun
} >rooms
(cd "$top" && ls ./*.c) | sed 's,^\./,,; s,\.c$,,' | sort >files
is 'each C file has its section in prun.h, and each section its file' \
	"$(sort rooms | tr '\n' ' ')" "$(tr '\n' ' ' <files)"

# nm -P: a name, its kind (U: used only), and what differs by system.
: >objects.err
while read -r room; do
	object=$(find "$top/$room.o" -newer "$top/$room.c" -newer "$top/prun.h" 2>/dev/null)
	if [ ! "$object" ]; then        # make has not made it
		object=$room.o
		${CC:-cc} -std=c99 -c -o "$object" "$top/$room.c" >>objects.err 2>&1 || continue
	fi
	nm -P -g "$object" 2>>objects.err | sed "s,^,$room ,"
done <files >names
is 'each room compiles on its own' "$(cat objects.err)" ''
ok 'and has names for nm' test -s names
awk '
	FILENAME == "rooms" { at[$1] = ++n; next }
	$3 ~ /^[A-TV-Z]$/ && $3 != "W" { home[$2] = $1 }
	$3 == "U" { uses[$1, $2] = 1 }
	END {
		for (use in uses) {
			split(use, part, SUBSEP)
			room = part[1]; name = part[2]
			if (name in home && at[home[name]] <= at[room])
				print room ".c calls " name ", which is above it in " home[name] ".c"
		}
	}' rooms names | sort >upwards
is 'no call runs upwards' "$(cat upwards)" ''

# What prun.h says, without its comments; macOS writes _ before each name.
sed 's,/\*.*\*/,,; /\/\*/,/\*\//d' "$top/prun.h" | tr -cs 'A-Za-z0-9_' '\n' | sort -u >declared
awk '
	FILENAME == "declared" { known[$1] = 1; next }
	$2 == "main" || $2 == "_main" { next }
	$3 ~ /^[A-TV-Z]$/ && $3 != "W" {
		bare = substr($2, 2)
		if (!($2 in known) && !(bare in known))
			print $1 ".c: " $2
	}' declared names >undeclared
is 'what prun.h does not declare is static' "$(cat undeclared)" ''

ok 'there are at most twelve C files' test "$(wc -l <files)" -le 12
(cd "$top" && wc -l ./*.c) | awk '$2 != "total" && $1 > 1300' >large
is 'none has more than 1300 lines' "$(cat large)" ''
ok 'all have 11500 at most' test "$(cat "$top"/*.c "$top"/*.h | wc -l)" -le 11500
# A comment of its own lines is prose.
for file in "$top"/*.[ch]; do
	expand "$file" | awk -v file="${file##*/}" '
		/^ *\/\*/ { prose = 1 }
		length > (prose ? 80 : 96) { print file ":" NR ": " length }
		/\*\// { prose = 0 }'
done >wide
is 'code has 96 columns at most, prose 80' "$(cat wide)" ''
finish
