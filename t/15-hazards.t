#!/bin/sh
# Reports with one hazard each (t/junit) are read for what they say; EXPECTED
# has cases, failures, errors, skipped and the sum of the cases' times.
. "${0%/*}/lib.sh"

cat <<'END' | script h/test_h.sh
cp "$HAZARD" "$PRUN_JUNIT"
END
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
while read -r name cases failures errors skipped time; do
	HAZARD=$top/t/junit/$name.xml
	[ -e "$HAZARD" ] || HAZARD=$name.xml
	export HAZARD
	run -q --keep=never -o "$name.out" h
	is "$name" "$(sed -n 's/^ <testsuite .* tests="\([0-9]*\)" failures="\([0-9]*\)" errors="\([0-9]*\)" skipped="\([0-9]*\)" time=.*/\1 \2 \3 \4 0/p
			s/^  <testcase .* time="\([0-9.]*\)".*/0 0 0 0 \1/p' "$name.out" |
		awk '{ t += $1; f += $2; e += $3; s += $4; m += $5 } END { printf "%d %d %d %d %.3f", t, f, e, s, m }')" \
		"$cases $failures $errors $skipped $time"
done <all
ok 'a text of 12 MB is cut' test "$(wc -c <a10_huge_attr_12MB.out)" -lt 3000000
if have xmllint; then
	ok 'all that was written is well-formed' xmllint --noout ./*.out
else
	skip 'no xmllint' 'all that was written is well-formed'
fi
finish
