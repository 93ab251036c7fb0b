#!/bin/sh
# Reports with one hazard each (t/junit) are read for what they say; EXPECTED
# has cases, failures, errors, skipped and the sum of the cases' times.
. "${0%/*}/lib.sh"

# The two largest are made here.
awk 'BEGIN {
	for (i = 0; i < 20000; i++) printf "<testsuite name=\"s\">"
	printf "<testcase classname=\"c\" name=\"n\" time=\"0.5\"/>"
	for (i = 0; i < 20000; i++) printf "</testsuite>"
}' >s10_deep_20000.xml
{
	printf '<testsuite><testcase classname="c" name="n" time="0.5"><failure message="'
	head -c 12000000 /dev/zero | tr '\0' A
	printf '">t</failure></testcase></testsuite>'
} >a10_huge_attr_12MB.xml
hazards() {
	cat "$top/t/junit/EXPECTED"
	echo 's10_deep_20000 1 0 0 0 0.500'
	echo 'a10_huge_attr_12MB 1 1 0 0 0.500'
}
hazards >all
mkdir h
while read -r name rest; do
	report=$top/t/junit/$name.xml
	[ -e "$report" ] || report=$PWD/$name.xml
	printf '#!/bin/sh\ncp "%s" "$PRUN_JUNIT"\n' "$report" >"h/test_$name.sh"
done <all
chmod +x h/*
run -q --keep=never -o out.xml h
# A file's first suite names it, behind its counts.
awk -F'"' '
	function add() { c[name] += s[1]; f[name] += s[2]; e[name] += s[3]; k[name] += s[4]; split("", s) }
	/^ <testsuite / { add(); match($0, / tests="/); split(substr($0, RSTART), n, "\""); s[1] = n[2]; s[2] = n[4]; s[3] = n[6]; s[4] = n[8] }
	/^   <property name="prun.file" / { name = $4; gsub(/^h\/test_|\.sh$/, "", name) }
	/^  <testcase / { match($0, / time="/); split(substr($0, RSTART), n, "\""); m[name] += n[2] }
	END { add(); for (name in c) printf "%s %d %d %d %d %.3f\n", name, c[name], f[name], e[name], k[name], m[name] }' out.xml >got
while read -r name wanted; do
	is "$name" "$(sed -n "s/^$name //p" got)" "$wanted"
done <all
ok 'a text of 12 MB is cut' test "$(wc -c <out.xml)" -lt 3000000
# Text is read in pieces, which end with a character and a reference: at 4096 at first.
for n in 28 29 30 31 32 33 34 35 36; do
	awk -v n="$n" 'BEGIN {
		printf "<testsuite><testcase name=\"%d\"><failure>", n
		for (i = 44; i < 4096 - n - 2; i++)
			printf "x"
		printf "\303\251&amp;"
		for (i = 0; i < 100; i++)
			printf "y"
		printf "</failure></testcase></testsuite>\n"
	}' >pieces.$n.xml
done
"$PRUN" --merge -q -o pieces.xml pieces.*.xml &
pid=$!
for i in 1 2 3 4 5 6 7 8 9 10; do
	[ -e pieces.xml ] || sleep 0.5
done
kill -9 $pid 2>/dev/null
wait $pid
is 'a reference behind a letter may stand anywhere' "$(grep -c 'xé&amp;y' pieces.xml)" 9
# What is read last, at 4096, is one byte of UTF-16.
head='<testsuites><testsuite name="s"><testcase '
{
	printf '\377\376'
	printf '%s%0*d\n' "$head" $((2047 - ${#head})) 0 | fold -w1 | tr '\n' '\0'
	printf x
} >odd.xml
run --merge -o odd.out odd.xml
is 'UTF-16 that ends in the middle of a character is a broken report' \
	"$status $(grep -c 'ends in the middle of a tag' odd.out)" '0 1'
if have xmllint; then
	ok 'what was written is well-formed' xmllint --noout out.xml
else
	skip 'no xmllint' 'what was written is well-formed'
fi
finish
