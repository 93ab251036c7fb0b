#!/bin/sh
# What reports mean: declared failures, skips, times, texts, limits, odd files.
. "${0%/*}/lib.sh"

# merge FILE.xml: into out.xml; cases stand in cases, a line each: name, result.
merge() {
	run --merge --strict -o out.xml "$@"
	sed -n 's/^  <testcase name="\([^"]*\)" [^>]*>\(<\([a-zA-Z]*\)\)\{0,1\}.*/\1 \3/p' out.xml |
		sed 's|/testcase||; s/ $//' >cases
}

# A failure never turns green.
cat >karma.xml <<'X'
<testsuite name="Chrome" tests="6" failures="2" errors="0"><testcase classname="c" name="a"/></testsuite>
X
merge karma.xml
is 'failures that a suite declares and no case has are an error' "$status $(cat cases)" '1 a
[suite error] error'
has 'which says how many' out.xml 'message="2 failures or errors are declared, and no case failed"'
cat >nested.xml <<'X'
<testsuites failures="1" errors="1"><testsuite name="o" errors="1"><testsuite name="i" errors="1"><testcase name="a"/></testsuite>
<testsuite name="k" failures="3"><testcase name="b"><failure/></testcase></testsuite></testsuite></testsuites>
X
merge nested.xml
is 'it stands in the innermost suite, once' "$(cat cases)" 'a
[suite error] error
b failure'
echo '<testsuites name="r" tests="1" errors="1"></testsuites>' >root.xml
merge root.xml
is 'in the root only if there is no suite' "$status $(cat cases)" '1 [suite error] error'
cat >counts.xml <<'X'
<testsuite name="s" tests="9" failures="7"><testcase name="a"><failure/></testcase></testsuite>
X
merge counts.xml
is 'other numbers mean nothing' "$(cat cases)" 'a failure'
echo 'echo "<testsuite name=\"s\" failures=\"1\"/>" >"$PRUN_JUNIT"' | script t/test_load.sh
run -q -o r.xml t/test_load.sh
is 'a test whose report declares failures fails' $status 1
echo 'echo "<testsuite name=\"s\" file=\"\"><testcase name=\"a\" file=\"\"/></testsuite>" >"$PRUN_JUNIT"' |
	script t/test_empty.sh
run -q -o r.xml t/test_empty.sh
is 'a case whose file is empty has that of its test, once' "$(grep -c 'file=.*file=' r.xml; grep -c 'testcase .*file="t/test_empty.sh"' r.xml)" '0
1'

# A skip is never red.
cat >todo.xml <<'X'
<testsuite name="s" failures="1"><testcase name="a"><skipped type="todo" message="later"/><failure message="known">at 3</failure></testcase>
<testcase name="b"><skipped type="skipped"/><failure message="real"/></testcase></testsuite>
X
merge todo.xml
is 'a todo that fails is skipped, any other skip that fails is a failure' "$(cat cases)" 'a skipped
b failure'
has 'and the known failure can be read' out.xml '<system-out>known'
echo '<testsuite name="s" failures="1"><testcase name="a"><skipped type="todo"/><failure/></testcase></testsuite>' >todo.xml
merge todo.xml
is 'and is none that is missing' "$status $(cat cases)" '0 a skipped'

# Texts.
printf '<testsuite name="s"><testcase name="a"><failure message="boom">\n \t\n</failure></testcase><testcase name="b"><failure message=""> </failure></testcase></testsuite>' >blank.xml
merge blank.xml
has 'a blank text is none: the message stands for it' out.xml '<failure message="boom">boom</failure>'
has 'or a word' out.xml '<failure message="">failure</failure>'
cat <<'X' | script t/test_message.sh
printf '<testsuite name="s"><testcase name="n"><failure message="">\nfirst\tline\nsecond</failure></testcase></testsuite>' >"$PRUN_JUNIT"
X
run t/test_message.sh
has 'an empty message shows the first line of the text' out '^    .*n: first.line$'
lacks 'and a tab as a blank' out 'x09'
printf '%s\n' 'printf "one\ttwo\n"; exit 1' | script t/test_tab.sh
run -o tab.xml t/test_tab.sh
is 'a tab in a log is a tab on the screen and in the report' "$(grep -c "^    | one	two" out) $(grep -c '^one	two' tab.xml)" '1 1'
cat >nextest.xml <<'X'
<testsuite name="s"><testcase name="a"><flakyFailure message="m">panicked at lib.rs<stackTrace>frame 1</stackTrace><system-err>E</system-err></flakyFailure></testcase></testsuite>
X
merge nextest.xml
is 'text beside a stack trace stays' "$(tr '\n' ' ' <out.xml | grep -o '<flakyFailure.*</flakyFailure>')" \
	'<flakyFailure message="m"><stackTrace>panicked at lib.rs frame 1</stackTrace><system-err>E</system-err></flakyFailure>'

# Where and when suites ran.
cat >where.xml <<'X'
<testsuites><testsuite name="Root Suite" file="cypress/e2e/a.cy.js" timestamp="2026-01-02T03:04:05" tests="0"></testsuite>
<testsuite name="out" file="tests/OutTest.php" hostname="h"><testsuite name="in" hostname="i"><testcase name="a"/></testsuite></testsuite></testsuites>
X
merge where.xml
has 'a suite without cases keeps its file and time' out.xml '<testsuite name="Root Suite" .*tests="0".* file="cypress/e2e/a.cy.js" timestamp="2026-01-02T03:04:05"'
has 'a nested suite has those of the outer one, unless it says so' out.xml '<testsuite name="out/in" .* hostname="i" file="tests/OutTest.php">'
lacks 'and no suite is made for the outer one' out.xml '<testsuite name="out" '
cat >cypress.xml <<'X'
<testsuites><testsuite name="Root Suite" file="a.cy.js" tests="0"/><testsuite name="login" file="own.js"><testcase name="a"/></testsuite>
<testsuite name="logout"><testsuite name="deep"><testcase name="b"/></testsuite></testsuite>
<testsuite name="Root Suite" file="b.cy.js"/><testsuite name="cart"><testcase name="c"/></testsuite></testsuites>
X
merge cypress.xml
is "Cypress: the file of a suite without cases is that of the ones after it" "$(sed -n 's/^ <testsuite name="\([^"]*\)".* file="\([^"]*\)".*/\1 \2/p' out.xml | tr '\n' ' ')" \
	'Root Suite a.cy.js login own.js logout/deep a.cy.js Root Suite b.cy.js cart b.cy.js '
merge cypress.xml counts.xml
lacks 'but not of those of another report' out.xml '<testsuite name="s" .* file='

# Where a test failed, for those who annotate.
cat <<'X' | script t/test_place.sh
cat <<'END'
1..6
not ok 1 - yaml
  ---
  at: run (/src/t/test_place.sh:31:5)
  ...
not ok 2 - perl
#   at t/test_place.sh line 32.
not ok 3 - bats
# (in test file t/test_place.sh, line 33)
not ok 4 - trace
#  t/test_place.sh:99
t/test_place.sh:34: error
not ok 5 - node-tap
  ---
  at:
    fileName: t/test_place.sh
    lineNumber: 35
    columnNumber: 3
  ...
not ok 6 - tap
  ---
  at:
    line: 36
    column: 3
    file: "t/test_place.sh"
  ...
END
exit 1
X
GITHUB_ACTIONS=true "$PRUN" t/test_place.sh >out 2>err
is 'the place of a failure is found in its text: YAML, Perl, bats, a trace, YAML by keys' "$(sed -n 's/^::error file=\([^,]*\),line=\([0-9]*\).*/\1 \2/p' out | tr '\n' ' ')" \
	't/test_place.sh 31 t/test_place.sh 32 t/test_place.sh 33 t/test_place.sh 34 t/test_place.sh 35 t/test_place.sh 36 '

# The copies of --repeat are one file: each test once.
cat <<'X' | script t/test_copies.sh
n=0
until mkdir "$tries/$((n += 1))" 2>/dev/null; do :; done
bad() { [ $n != "$1" ] || echo "<failure message='copy $n'/>"; }
[ $n != 3 ] || { echo "copy $n says nothing"; exit 3; }
{
	echo '<testsuite name="s"><testcase name="good"/>'
	echo "<testcase name='once'>$(bad 2)</testcase>"
	echo "<testcase name='twice'>$(bad 2; bad 4)</testcase>"
	echo "<testcase name='other'>$(bad 4)</testcase></testsuite>"
} >"$PRUN_JUNIT"
[ $((n % 2)) = 1 ]
X
mkdir tries
tries=$PWD/tries
export tries
run -j1 --repeat=5 -o copies.xml t/test_copies.sh
is 'a repeated file that failed once fails' $status 1
is 'and its report has each test once, failed if any copy failed' "$(sed -n 's/^  <testcase name="\([^"]*\)" [^>]*>\(<\([a-zA-Z]*\)\)\{0,1\}.*/\1 \3/p' copies.xml | sed 's|/testcase||; s/ $//' | sort)" '[exit] failure
good
once failure
other failure
twice failure'
has 'what failed twice has the second as a rerun' copies.xml '^<rerunFailure message="copy 4"'
lacks 'and nothing is flaky' copies.xml 'flaky'
is 'a copy that failed without a report has the end of its own log' "$(grep -c '^copy 3 says nothing' copies.xml)" 1
# A failure that took the place of a case that passed, then the next file's.
echo 'case $PRUN_REPEAT in 2) exit 1 ;; 3) kill -SEGV $$ ;; esac' | script r/test_a.sh
cat <<'X' | script r/test_b.sh
bad() { [ "$PRUN_REPEAT" != "$1" ] || echo '<failure/>'; }
echo "<testsuite name='s'><testcase name='first'>$(bad 3)</testcase><testcase name='last'>$(bad 2)</testcase></testsuite>" >"$PRUN_JUNIT"
[ "$PRUN_REPEAT" = 1 ]
X
run -j1 --repeat=3 -o next.xml r
is 'nor does one file lose the failure of another' "$(sed -n 's/^  <testcase name="\([^"]*\)" [^>]*>\(<\([a-zA-Z]*\)\)\{0,1\}.*/\1 \3/p' next.xml | sort | tr '\n' ' ')" \
	'[exit] failure [signal] error first failure last failure '

# Times.
n=0
for time in 1,134.193 1.134,193 0,288 1,234,567 00:01:02.5 250ms 1e-5 0.5s NaN 1:00; do
	echo "<testcase name='$time' time='$time'/>"
done >times
{ echo '<testsuite name="s">'; cat times; echo '</testsuite>'; } >times.xml
merge times.xml
is 'times are read however they are written' "$(sed -n 's/.*<testcase .* time="\([0-9.]*\)".*/\1/p' out.xml | tr '\n' ' ')" \
	'1134.193000 1134.193000 0.288000 1234567.000000 62.500000 0.250000 0.000010 0.500000 0.000000 60.000000 '
cat >own.xml <<'X'
<testsuites><testsuite name="a" time="5.5"><testcase name="x" time="1"/></testsuite><testsuite name="b" time="0"><testcase name="y" time="2"/></testsuite>
<testsuite name="c" time="9"><testsuite name="d"><testcase name="z" time="0.5"/></testsuite></testsuite></testsuites>
X
merge own.xml
is "a suite's own time is kept, a parent's only with its own cases" "$(sed -n 's/.*<testsuite[s ].* time="\([0-9.]*\)".*/\1/p' out.xml | tr '\n' ' ')" \
	'8.000 5.500 2.000 0.500 '

# A report that a time-out cut.
cat <<'X' | script t/test_hangs.sh
printf '<testsuite name="s"><testcase classname="c" name="fine"/><testcase><failure/></testcase><testcase/></testsuite>' >"$PRUN_JUNIT"
echo it waits for godot
sleep 300
X
run -q -t 0.3s -o hangs.xml t/test_hangs.sh
has 'a case that hung has the end of the log' hangs.xml '^it waits for godot'
is 'after a time-out a case without a name is the one that hung' "$(sed -n 's/^  <testcase name="\([^"]*\)".*/\1/p' hangs.xml | tr '\n' ' ')$(grep -c '<error message="[^"]*0.3s" type="prun.timeout"' hangs.xml)" 'fine [timeout] [timeout] 1'
echo 'printf "<testsuite name=\"s\"><testcase name=\"half\">" >"$PRUN_JUNIT"; sleep 300' | script t/test_cut.sh
run -q -t 0.3s -o cut.xml t/test_cut.sh
is 'a report that it cut is no second error' "$(grep -c '<testcase' cut.xml) $(grep -c 'name="half".*type="prun.timeout"' cut.xml)" '1 1'

# Limits.
big() { head -c "$1" /dev/zero | tr '\0' "${2:-A}"; }
{ echo '<testsuite name="s"><testcase name="a"><system-out>first line'; big 100000 x; echo; echo 'last line</system-out></testcase></testsuite>'; } >long.xml
run --merge --report-limit=1000 -o out.xml long.xml
has 'what is cut of a text is its middle' out.xml '^\[prun: [0-9]+ bytes cut, see report-limit\]$'
is 'its first and last lines stay' "$(grep -c -e '<system-out>first line' -e '^last line' out.xml) $(test "$(wc -c <out.xml)" -lt 2500 && echo short)" '2 short'
printf '%s\n' 'echo "<testsuite name=\"s\"><testcase name=\"a\"><system-out>$(head -c 3000000 /dev/zero | tr "\0" A)</system-out></testcase></testsuite>" >"$PRUN_JUNIT"' | script t/test_whole.sh
run -q --report-limit=none -o whole.xml t/test_whole.sh
is '--report-limit=none cuts nothing' "$status $(test "$(wc -c <whole.xml)" -gt 3000000 && echo whole)" '0 whole'
# Nothing that one test writes may take the report of all: 300 elements of half of
# report-limit each.
big 100000 >half
HALF=$PWD/half
export HALF
many() {        # many NAME BEFORE AFTER HEAD TAIL
	{
		echo "awk -v before='$2' -v after='$3' 'BEGIN { getline half <ENVIRON[\"HALF\"]"
		echo "	print \"<testsuite name='\\''s'\\''>\"; print \"$4\""
		echo "	while (++n <= 300) print before half after"
		echo "	print \"$5</testsuite>\" }' >\"\$PRUN_JUNIT\""
	} | script "big/test_$1.sh"
}
many failures "<failure message=\"m\">" '</failure>' "<testcase name=\\\"n\\\">" '</testcase>'
many messages '<failure message="' '"/>' '<testcase>' '</testcase>'
many properties '<property name="n" value="' '"/>' '<properties>' '</properties><testcase/>'
many outputs '<system-out>' '</system-out>' '<testcase/>'
many types '<failure type="' '"/>' '<testcase>' '</testcase>'
echo 'exit 0' | script big/test_fine.sh
[ -n "${PRUN_ASAN-}" ] || ulimit=60000          # which needs terabytes
(ulimit -v ${ulimit-unlimited}; "$PRUN" -q -j1 --report-limit=200000 --keep=never -o big.xml big >out 2>err)
is 'a run whose reports have 30 MB each has its report' "$? $(grep -c 'out of memory' err)" '1 0'
cut -c1-200 big.xml >big.cut
has 'with all the others' big.cut 'prun.file" value="big/test_fine.sh"'
is 'what a case or suite had no room for is told' "$(tr 'A' '\n' <big.xml | grep -c 'elements left out, see report-limit')" 5
ok 'and the report is not that long' test "$(wc -c <big.xml)" -lt 8000000
{ printf '<testsuite name="s"><testcase name="a"'; i=0; while [ $((i += 1)) -le 60000 ]; do printf ' a%d="v"' $i; done; echo '/></testsuite>'; } >attributes.xml
merge attributes.xml
has '60,000 attributes in a tag are an error' err 'has a tag with too many attributes'

# Files that are none.
echo 'ln -s /dev/zero "$PRUN_JUNIT"' | script odd/test_zero.sh
echo 'mkfifo "$PRUN_JUNIT"' | script odd/test_fifo.sh
echo 'mkdir "$PRUN_JUNIT"; mkfifo "$PRUN_JUNIT/a.xml"; ln -s /dev/zero "$PRUN_JUNIT/b.xml"' | script odd/test_directory.sh
echo 'truncate -s 100G "$PRUN_JUNIT" 2>/dev/null || dd if=/dev/zero of="$PRUN_JUNIT" bs=1 count=1 seek=100000000000' | script odd/test_sparse.sh
run -q -j4 -o odd.xml odd
is 'a report that is a device, a pipe or too long is an error' "$status $(grep -c '<error message="the report .*/junit.xml' odd.xml)" '1 5'
has 'and says why' odd.xml 'cannot be read: Invalid argument'
has 'or how long it may be' odd.xml 'is too long, see report-limit'
finish
