#!/bin/sh
# The merged report: order, totals, text, and TAP where there is no XML.
. "${0%/*}/lib.sh"

report() { echo "cat >\"\$PRUN_JUNIT\" <<'END'
$(cat)
END
sleep ${1:-0}; exit ${2:-0}"; }
report 0.3 <<'X' | script t/test_1.sh
<testsuite name="one" tests="99"><properties><property name="k" value="v"/></properties>
<testcase classname="c" name="a" time="1.5"/><testcase classname="c" name="b" time="0,25"><skipped/></testcase>
<system-out>said &lt;this&gt;</system-out></testsuite>
X
report 0 1 <<'X' | script t/test_2.sh
<testsuites><testsuite name="outer"><testsuite name="inner"><testcase name="n"><failure message="boom" type="T">at line 3</failure>
<system-out>x</system-out><system-out>y</system-out></testcase></testsuite></testsuite></testsuites>
X
report 0 3 <<'X' | script t/test_3.sh
<testsuite name="three"><testcase classname="c" name="fine"/></testsuite>
X
echo 'echo "<testsuite><testcase name=\"cut" >"$PRUN_JUNIT"' | script t/test_4.sh
echo 'echo no report' | script t/test_5.sh
cat <<'X' | script t/test_6.sh
mkdir "$PRUN_JUNIT"
for i in 1 2; do echo "<testsuite name='d$i'><testcase name='t$i'/></testsuite>" >"$PRUN_JUNIT/$i.xml"; done
X
cat <<'X' | script t/test_7.sh
echo "TAP version 13"
echo "ok 1 - first"
echo "not ok 2 - second"
echo "# because"
echo "ok 3 - third # SKIP no reason"
echo "not ok 4 - fourth # TODO later"
echo "1..4"
exit 1
X
run -j7 t -o r.xml
is 'failures fail the run' $status 1
has 'totals are counted anew' r.xml '^<testsuites name="prun" tests="13" failures="3" errors="1" skipped="2" '
is 'suites are in plan order, with ids' "$(grep -o '<testsuite name="[^"]*" id="[0-9]*"' r.xml | tr '\n' ' ')" \
	'<testsuite name="one" id="0" <testsuite name="outer/inner" id="1" <testsuite name="three" id="2" <testsuite name="t/test_3.sh" id="3" <testsuite name="t/test_4.sh" id="4" <testsuite name="t/test_5.sh" id="5" <testsuite name="d1" id="6" <testsuite name="d2" id="7" <testsuite name="t/test_7.sh" id="8" '
has 'properties stay' r.xml '<property name="k" value="v"/>'
has 'a suite has its own totals' r.xml 'name="one" id="0" tests="2" failures="0" errors="0" skipped="1" time="1.750"'
has 'its output stays' r.xml '<system-out>said &lt;this&gt;</system-out>'
has 'a failure'"'"'s text begins with its message' r.xml 'type="T">boom$'
is 'two outputs of a case become one' "$(grep -c '^y</system-out>' r.xml)" 1
has 'a clean report of a failing test gets a case [exit]' r.xml '<testcase name="\[exit\]" classname="t/test_3.sh"'
has 'a broken report gets a case [report]' r.xml '<testcase name="\[report\]" classname="t/test_4.sh"'
has 'that says where it broke' r.xml 'message="the report .* ends in the middle of a tag \(byte'
has 'and makes an ERROR' out '^t/test_4.sh +ERROR'
has 'no report at all has an entry' r.xml '<testcase name="\[exit\]" classname="t/test_5.sh"'
has 'a directory of reports is read' out '^t/test_6.sh +PASS +2 '
has 'TAP in the log is a report' out '^t/test_7.sh +FAIL +4 '
has 'with what follows a failure' r.xml '^# because'
if have xmllint; then ok 'it is well-formed' xmllint --noout r.xml; else skip 'no xmllint' 'it is well-formed'; fi

echo 'sleep 300' | script slow/test_slow.sh
run -q -r1 -t 0.3s -o slow.xml slow
is 'what timed out twice is one case, with a rerun' "$(grep -c '<testcase' slow.xml) $(grep -c '<rerunError message="attempt 2 failed" type="prun.timeout"' slow.xml)" '1 1'

cat <<'X' | script again/test_again.sh
case $PRUN_ATTEMPT in
1) echo '<testsuite name="s"><testcase classname="c" name="n" time="1.5"><failure message="boom"/><system-out>OUT1</system-out></testcase></testsuite>' >"$PRUN_JUNIT"; exit 1 ;;
*) echo '<testsuite name="s"><testcase classname="c" name="n" time="0.5"/></testsuite>' >"$PRUN_JUNIT" ;;
esac
X
run -q -r1 -o again.xml again
has 'an earlier failure has its text, time and output' again.xml \
	'<flakyFailure message="boom" time="1.500"><stackTrace>boom</stackTrace><system-out>OUT1</system-out></flakyFailure>'
sed 's/message="boom"/message="boom" time="9"/' again/test_again.sh >timed
script timed2/test_timed.sh <timed
run -q -r1 -o timed.xml timed2
is 'a failure that has a time of its own keeps it' "$(grep -o '<flakyFailure [^>]*>' timed.xml)" '<flakyFailure message="boom" time="9">'
GITHUB_ACTIONS=true "$PRUN" -r1 again >out
lacks 'what passes in a retry is not annotated' out '^::error'
cat <<'X' | script cut/test_cut.sh
[ "$PRUN_ATTEMPT" = 1 ] || { touch second; sleep 300; }
echo '<testsuite name="s"><testcase classname="c" name="n"><failure message="boom"/></testcase></testsuite>' >"$PRUN_JUNIT"; exit 1
X
exec "$PRUN" -q -r1 -o cut.xml cut >out 2>&1 &
await test -e second
kill -TERM $!
wait $! 2>/dev/null
has 'a retry that was cut short is no second failure' cut.xml '^<testsuites name="prun" tests="1" failures="1" errors="0"'
run -q --history=gh -o - again
ok 'a report on standard output has no history beside it' not test -e ./-.history
# Written aside: the old one stays until the new one is whole.
mkdir ro
echo old >ro/r.xml
if [ "$(id -u)" != 0 ]; then
	chmod 555 ro
	run t/test_5.sh -o ro/r.xml
	chmod 755 ro
	is 'a report that cannot be written gives status 3' $status 3
	is 'and leaves the old one alone' "$(cat ro/r.xml)" old
else
	mkdir dir.xml
	run t/test_5.sh -o dir.xml
	is 'a report that cannot be written gives status 3' $status 3
	has 'and is named' err 'dir.xml cannot be written'
fi
run t/test_5.sh -o ro/r.xml
is 'nothing but the report and the history stands there' "$(ls ro | tr '\n' ' ')" 'r.xml r.xml.history '

# Retries.
echo '[ "$PRUN_ATTEMPT" = 2 ] && exit 0; echo "attempt $PRUN_ATTEMPT"; exit 1' | script f/test_flaky.sh
echo 'exit 1' | script f/test_bad.sh
run -r2 f -o f.xml
is 'what fails three times fails' $status 1
has 'what passes alone is FLAKY' out '^f/test_flaky.sh +FLAKY'
has 'its earlier failure is in its case' f.xml '<flakyFailure message="attempt 1 failed"'
has 'reruns that failed are in theirs' f.xml '<rerunFailure message="attempt 2 failed"'
run -r1 f/test_flaky.sh
is 'FLAKY passes' $status 0
run -r1 --flaky=fail f/test_flaky.sh
is 'unless flaky = fail' $status 1
finish
