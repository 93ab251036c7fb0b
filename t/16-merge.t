#!/bin/sh
# prun --merge: reports, directories, run directories, shards; and who reads the result.
. "${0%/*}/lib.sh"

mkdir -p in/deep/er
suite() { echo "<testsuite name='$1'><testcase classname='c' name='$1'>$2</testcase></testsuite>"; }
suite a >in/a.xml
suite b '<failure message="no">at 3</failure>' >in/deep/er/b.xml
echo 'no report' >in/deep/notes.txt

run --merge -o out.xml in
is 'a directory is merged, whatever its depth' $status 0
has 'and the totals are printed' out '^out.xml: 2 tests from 2 reports, 1 failed, 0 with errors, 0 skipped$'
has 'they stand in the report' out.xml '^<testsuites name="prun" tests="2" failures="1" errors="0" skipped="0"'
run --merge --strict -o out.xml in
is '--strict: failures give status 1' $status 1
run --merge --strict -o out.xml in/a.xml
is 'none give 0' $status 0
run --merge -o in/all.xml in
run --merge -o in/all.xml in
has 'the report of an earlier merge is not merged' in/all.xml '^<testsuites name="prun" tests="2" '
rm in/all.xml
run --merge -o - in
has '- is standard output' out '^<testsuites name="prun" tests="2" '
lacks 'and nothing else is printed there' out '^prun|tests of'
run --merge -o - in/a.xml >/dev/null
"$PRUN" --merge -o - in | cat >piped
has 'a pipe will do' piped '^</testsuites>'

printf '<testsuite name="x"><testcase name="half">' >in/cut.xml
run --merge -o out.xml in nowhere.xml
is 'bad input does not stop the rest' $status 0
has 'it is reported' err 'in/cut.xml ends too early'
has 'so is what is missing' err 'nowhere.xml cannot be read: No such file'
has 'and both are in the report' out.xml 'tests="5" failures="1" errors="3"'
mkdir none
run --merge -o out.xml in/a.xml none
has 'a directory without a report is, too' err '^prun: none: no reports found'
rm in/cut.xml
for bad in '--merge in' '--merge -o x.xml' '--merge -o x.xml --nosuch in'; do
	# shellcheck disable=SC2086
	run $bad
	is "prun $bad is bad use" $status 2
done
mkdir no
run --merge -o no in
is 'a report that cannot be written gives status 3' $status 3
has 'and says so' err 'no cannot be written.*: Is a directory'
# A full disk, or as good: no file may grow beyond 512 bytes (25 is XFSZ).
echo old >limited.xml
(trap '' 25; ulimit -f 1; "$PRUN" --merge -o limited.xml in/a.xml in/a.xml in/a.xml in/a.xml >out 2>err)
is 'a full disk gives status 3' $? 3
has 'and is told' err 'limited.xml cannot be written, the previous file is unchanged: File too large'
is 'and the old report is untouched, with nothing beside it' "$(cat limited.xml) $(ls limited.xml*)" 'old limited.xml'

# Run directories.
echo 'exit 0' | script t/test_a.sh
echo 'exit 1' | script t/test_b.sh
run -j2 -d whole -o first.xml t
run --merge -o again.xml whole
times='s/ time="[0-9.]*"//; s/ *>$/>/'
is 'the report of a run directory is that of its run' "$(sed "$times" again.xml)" "$(sed "$times" first.xml)"
run --merge -o both.xml whole in
has 'it goes with reports' both.xml '^<testsuites name="prun" tests="4" failures="2" '
mkdir artifacts
cp -R whole artifacts/one
cp -R in artifacts/two
run --merge -o both.xml artifacts
has 'both are found in a directory' both.xml '^<testsuites name="prun" tests="4" failures="2" '
odd=$(printf 't/test_\351.sh')
echo "echo \"<testsuite><testcase name='odd'/></testsuite>\" >\"\$PRUN_JUNIT\"" | script "$odd"
run -q -d bytes "$odd"
run --merge -o bytes.xml bytes
has 'a file whose name is no UTF-8 keeps its report' bytes.xml '<testcase name="odd"'
rm "$odd"
echo 'echo waiting; touch started; sleep 300' | script t/test_c.sh
"$PRUN" -j3 -d killed t >/dev/null 2>&1 &
for file in a b; do await grep -q "\"file\":\"t/test_$file.sh\",\"attempt\":1" killed/results.jsonl; done
await test -e started
kill -9 $!
wait 2>/dev/null
run --merge -o killed.xml killed
is 'a killed run is recovered' $status 0
has 'with what had ended' killed.xml '<testcase name="\[exit\]" classname="t/test_b.sh".*type="prun.exit"'
has 'and what had not' killed.xml '<testcase name="\[cancelled\]" classname="t/test_c.sh".*type="prun.cancelled"'
has 'with the end of its log' killed.xml '^waiting'
printf '{"index":0,"attem' >>killed/results.jsonl
run --merge -o killed.xml killed
has 'a torn line does no harm' killed.xml '^<testsuites name="prun" tests="3" failures="1" errors="1" '
rm t/test_c.sh

# Shards.
for i in 1 2 3 4 5; do echo 'exit 0' | script "s/test_$i.sh"; done
for i in 1 2 3; do run --shard $i/3 -o "s$i.xml" s; done
run --merge -o all.xml s1.xml s2.xml s3.xml
is 'whole shards are merged' $status 0
has 'with all their files' all.xml '^<testsuites name="prun" tests="5" '
echo old >refused.xml
run --merge -o refused.xml s1.xml s3.xml
is 'without one of them nothing is' $status 3
has 'and it is named' err '^prun: shard 2/3 is missing'
is 'and the old report stands' "$(cat refused.xml)" old
run --merge -o refused.xml s1.xml s2.xml s3.xml s2.xml
is 'nor when one is there twice' "$status $(cat refused.xml)" '3 old'
has 'which is named' err '^prun: shard 2/3 is there twice'
run --merge --partial -o partial.xml s1.xml s3.xml
is '--partial merges what there is' $status 0
has 'and says what is missing' err '^prun: shard 2/3 is missing'
echo 'exit 0' | script s/test_6.sh
run --shard 2/3 -o s2.xml s
run --merge -o refused.xml s1.xml s2.xml s3.xml
is 'a shard of another plan is refused' "$status $(cat refused.xml)" '3 old'
has 'and both are named' err 'shard 2/3 of plan [0-9a-f]{8} \(s2.xml\) does not go with shard 1/3 of plan'
rm s/test_6.sh
run --shard 2/3 -o s2.xml -d shard2 s
run --merge -o all.xml s1.xml shard2 s3.xml
has 'a shard may be a run directory' all.xml '^<testsuites name="prun" tests="5" '
run --merge -o more.xml all.xml in
has 'what was merged can be merged again' more.xml '^<testsuites name="prun" tests="7" '
run --shard 9/9 -o empty.xml s
is 'an empty shard passes' $status 0
has 'and has a report' empty.xml '^<testsuites name="prun" tests="0" '
for i in 1 2 3 4 5 6 7 8; do run --shard $i/9 -o "e$i.xml" s; done
run --merge -o all.xml e?.xml empty.xml
has 'which is not missed' all.xml '^<testsuites name="prun" tests="5" '
run --merge -o refused.xml e?.xml
has 'unless it is missing' err '^prun: shard 9/9 is missing'

mkdir -p twice/a twice/b twice/c
cp s1.xml twice/a/r.xml
cp s1.xml twice/b/r.xml
run --shard 2/2 -o twice/c/r.xml s
run --shard 1/2 -o twice/a/r.xml s
cp twice/a/r.xml twice/b/r.xml
run --merge -o refused.xml twice
is 'a double shard is seen in a directory, too' "$status $(grep -c 'shard 1/2 is there twice' err)" '3 1'

# What is no regular file stays what it is.
mkfifo pipe
cat pipe >piped &
run --merge -o pipe in
wait $!
ok 'a report into a pipe leaves it a pipe' test -p pipe
has 'and comes out of it' piped '^</testsuites>'
mkdir odd
mkfifo odd/f.xml
run --merge -o out.xml odd in
is 'a pipe for a report is not waited for' "$status $(grep -c 'odd/f.xml cannot be read' err)" '0 1'
printf '%s\n' 'mkfifo "$PRUN_JUNIT"' | script odd/test_fifo.sh
run -q --test '"$PRUN_FILE"; : $PRUN_JUNIT' odd/test_fifo.sh
has 'neither is one of a test' out '^\[1/1\] ERROR  odd/test_fifo.sh'

# Playwright's attachments are relative to its report.
mkdir -p pw/results
echo '<testsuite name="p"><testcase name="n"><system-out>[[ATTACHMENT|results/shot.png]]
</system-out></testcase></testsuite>' >pw/junit.xml
run --merge -o out.xml pw
has 'attachments become relative to the current directory' out.xml '\[\[ATTACHMENT\|pw/results/shot.png\]\]$'

# Who reads it.
names='consumers find nothing amiss; each report has the cases that it had
all reports together are read as well
GitLab, Jenkins and Azure show which test failed, and why
a file that died without a report is shown like a test
xmllint finds the whole well-formed'
python=
for p in python3 /usr/bin/python3; do
	[ "$python" ] || ! $p -c 'import junitparser' 2>/dev/null || python=$p
done
if [ ! "$python" ] || ! have xmllint; then
	echo "$names" >list
	while read -r name; do skip 'no junitparser or xmllint' "$name"; done <list
	finish
fi
corpus=${PRUN_TEST_CORPUS-}     # a directory with more reports, if there is one
# shellcheck disable=SC2086
find "$top/t/junit" $corpus -name '*.xml' | sort >list
n=0
while read -r file; do
	one=one$((n += 1)).xml
	run --merge -o $one "$file"
	[ $status = 0 ] || echo "$file: status $status" >>amiss
	printf '%s\t%s\n' $one "$file" >>pairs
done <list
$python "$top/t/consumers.py" <pairs >>amiss 2>&1
is 'consumers find nothing amiss; each report has the cases that it had' "$(cat amiss)" ''
# shellcheck disable=SC2046
run --merge -o all.xml $(cat list)
is 'all reports together are read as well' "$($python "$top/t/consumers.py" all.xml 2>&1)" ''
cat <<'END' | script views/test_shop.sh
cat >"$PRUN_JUNIT" <<X
<testsuite name="pytest"><testcase classname="tests.e2e.test_shop.TestCart" name="test_total[&lt;5&gt;]"><failure message="assert 5 == 6&#10;  - 5">trace
of it</failure><system-out>[[ATTACHMENT|shots/cart.png]]
</system-out></testcase></testsuite>
X
exit 1
END
echo 'kill -9 $$' | script views/test_died.sh
run -d shop -o shop.xml views
$python "$top/t/consumers.py" --show shop.xml >shown
is 'GitLab, Jenkins and Azure show which test failed, and why' "$(grep total shown)" \
	"gitlab: | tests.e2e.test_shop.TestCart | test_total[<5>] | views/test_shop.sh | assert 5 == 6
jenkins: | tests.e2e.test_shop | TestCart | test_total[<5>] | assert 5 == 6 - 5 | True
azure: | test_total[<5>] | assert 5 == 6 - 5 | True | ['shop/1-test_shop.sh/shots/cart.png']"
is 'a file that died without a report is shown like a test' "$(grep -c ' | killed by signal 9' shown)" 3
ok 'xmllint finds the whole well-formed' xmllint --noout --huge all.xml
finish
