#!/bin/sh
# pytest, the real one: arguments, reports, exit statuses.
. "${0%/*}/lib.sh"
PYTHON=${PYTHON:-/usr/bin/python3}
"$PYTHON" -m pytest --version >/dev/null 2>&1 || PYTHON=python3
"$PYTHON" -m pytest --version >/dev/null 2>&1 || skip_all 'no pytest'
export PYTHON

mkdir t
cat >t/test_one.py <<'END'
import pytest
def test_good(): pass
def test_bad(): assert 1 == 2, "one is <not> two"
@pytest.mark.skip(reason="not today")
def test_skipped(): pass
END
cat >t/test_two.py <<'END'
import time
def test_slow():
    time.sleep(0.5)
def test_quick(): pass
END
cat >t/test_three.py <<'END'
def test_quick(): pass
END
cat >t/test_exit.py <<'END'
import os
def test_exit(): os._exit(0)
END

run -j4 t -o all.xml -d all.d
is 'a failing test fails the run' $status 1
has 'tests are counted' out 'FAIL  t/test_one.py  3 tests, 1 failed, 1 skipped'
has 'the failing test is named as pytest does, with its line and message' out \
	'^    t/test_one.py::test_bad \(t/test_one.py:3\): AssertionError: one is <not> two'
has 'the only one is what is run again' out "^    again .* -d all.d t/test_one.py::test_bad$"
has 'so are its counts in the table' out '^t/test_one.py +FAIL +3 '
has 'a test that calls _exit(0) is not green' out 'ERROR  t/test_exit.py'
has 'for it wrote no report' out 'no report was written to PRUN_JUNIT'
has 'the totals are right' all.xml '<testsuites name="prun" tests="7" failures="1" errors="1" skipped="1" time='
is 'suites are in plan order, whoever ended first' "$(grep -o 'name="prun.file" value="[^"]*' all.xml)" \
	'name="prun.file" value="t/test_exit.py
name="prun.file" value="t/test_one.py
name="prun.file" value="t/test_three.py
name="prun.file" value="t/test_two.py'
has 'a file without a report has its entry' all.xml '<testcase name="\[report\]" classname="t/test_exit.py"'
has 'texts are escaped' all.xml 'one is &lt;not&gt; two'
if have xmllint; then
	ok 'it is well-formed' xmllint --noout all.xml
else
	skip 'no xmllint' 'it is well-formed'
fi

mkdir broken
printf 'import no_such_module\n' >broken/test_import.py
cat >broken/test_setup.py <<'END'
import pytest
@pytest.fixture
def door():
    raise RuntimeError("the door is closed")
def test_house(door): pass
END
run broken
has 'a file that pytest cannot collect is told with the reason' out \
	"^    .*: ModuleNotFoundError: No module named 'no_such_module'"
has 'so is a fixture that fails' out '^    .*test_house.*: RuntimeError: the door is closed'

run t/test_three.py -- --junitxml=mine.xml --junitxml mine.xml --junit-xml=mine.xml --junit-xml mine.xml -q
is '--junitxml and --junit-xml are dropped, in both forms' "$status $(ls mine.xml 2>/dev/null)" '0 '
is 'with a notice each' "$(grep -c "is ignored: each attempt writes its own report" err)" 4
run -j2 t -d k.d -- -v -k quick
is '-k reaches it; nothing selected is no failure' $status 0
has 'but NONE' out '^t/test_one.py +NONE +0 '
has 'and what was selected ran' out '^t/test_two.py +PASS +1 '
has '-v reaches it' k.d/3-test_two.py/test.log 'test_two.py::test_quick PASSED'
run t/test_two.py t/test_three.py -- -k nothing_at_all
is 'all NONE is a pass' $status 0
is 'with a warning as its last line' "$(tail -n 1 out)" \
	'warning: no file had any tests; check the test arguments'
run t/test_three.py --test 'echo "<testsuites/>" >"$PRUN_JUNIT"'
has 'a report without tests is NONE, whoever calls that a success' out '^t/test_three.py +NONE +0 '
run t/test_one.py::test_good
has 'FILE::NODE runs one test' out '^t/test_one.py::test_good +PASS +1 '
run t/test_skip.py 2>/dev/null ||:
printf 'import pytest\npytestmark = pytest.mark.skip("no")\ndef test_a(): pass\n' >t/test_skip.py
run t/test_skip.py
has 'every test skipped is SKIP' out '^t/test_skip.py +SKIP +1 '
run -j1 t/test_one.py --test '"$PYTHON" -m pytest "$PRUN_TEST" "$@"; exit 0' --keep=never
has 'without PRUN_JUNIT in the command the exit status decides' out '^t/test_one.py +PASS'
run t/test_one.py --test '"$PYTHON" -m pytest "$PRUN_TEST" --junitxml="$PRUN_JUNIT" "$@"; exit 0'
has 'failures in the report beat exit status 0' out 'exit status 0, but its report has failures'
is 'and fail' $status 1

# What is shown can be pasted: ids of every character, from anywhere.
mkdir -p ids/sub
cat >ids/sub/test_ids.py <<'END'
import os
import pytest
values = ["a b", "x::y]b[c", "[1]", "é/'\"$`*?", "-x", "a\tb日本\\b", "", "x:1: y"]
only = os.path.basename(__file__)[5:-3]
class TestX:
    class TestY:
        @pytest.mark.parametrize("v", values)
        def test_v(self, v):
            helper(only == "ids" or values[int(only)] == v)
def helper(fails):
    assert not fails
END
run -d ids.d ids
is 'each of several failing tests is named so' \
	"$(grep -c '^    ids/sub/test_ids.py::TestX::TestY::test_v\[.*\] (ids/sub/test_ids.py:11): ' out)" 8
has 'and their file is run again' out '^    again .* ids/sub/test_ids.py$'
for i in 0 1 2 3 4 5 6 7; do
	cp ids/sub/test_ids.py ids/sub/test_$i.py
done
rm ids/sub/test_ids.py
: >prun.conf
(cd ids && "$PRUN" -j2 sub >../out)
has 'names are relative to the user' out \
	'^    sub/test_0.py::TestX::TestY::test_v\[a b\] \(sub/test_0.py:11\): '
(cd ids && eval "'$PRUN' -j2 -q $(sed -n 's/^    again .* -j2 //p' ../out | tr '\n' ' ')" >../again)
is 'again runs the one test that failed, whatever its id' \
	"$(grep -c '  1 test, 1 failed' again) $(grep '^8 files: 0 passed, 8 failed' again | wc -l | tr -d ' ')" '8 1'
rm ids/sub/test_[1-7].py prun.conf
mkdir work && mv ids work/root && : >work/root/pytest.ini
run work/root/sub/test_0.py
has "pytest's own root may be below" out '^    work/root/sub/test_0.py::TestX::TestY::test_v\[a'
printf '%s\n' 'cat <<X >"$PRUN_JUNIT"' '<testsuite>' \
	'<testcase classname="sub.test_0" name="n" file="src/a.js" line="7"><failure message="m"/></testcase>' \
	'</testsuite>' X | script tool
run work/root/sub/test_0.py --test ./tool
has 'what another tool runs has its name, and the line of its report' out '^    sub.test_0 n \(src/a.js:7\): m$'
has 'and is run again as a file' out '^    again .* work/root/sub/test_0.py$'
(cd work && GITHUB_ACTIONS=true GITHUB_WORKSPACE=$dir "$PRUN" root/sub/test_0.py >../out 2>&1)
has 'annotations name the file from the workspace, with its line' out \
	'^::error file=work/root/sub/test_0.py,line=11,title=test_v\['
(cd work && GITHUB_ACTIONS=true GITHUB_WORKSPACE=$dir/wor "$PRUN" root/sub/test_0.py >../out 2>&1)
has 'unless it is elsewhere' out '^::error file=root/sub/test_0.py,'
rm -rf work

# Tests of other kinds are no surprise.
mkdir other
: >other/cart.test.js
run other
is 'a directory of tests without a command has none' $status 4
has 'which says what was seen, and what to do' err \
	'^prun: other/cart.test.js is skipped: there is no playwright.config.* here, and other runners need test; see KINDS'
run other/cart.test.js
is 'a named one likewise' "$status $(grep -c 'other runners need test' err)" '2 1'
run --test 'cat "$PRUN_TEST"' other/cart.test.js
is 'with a command it runs' $status 0
run --test 'echo "$PRUN_TEST" >>lines' other/cart.test.js:12 other/cart.test.js:7
is 'FILE:LINE runs the command with the line' "$(sort lines | tr '\n' ' ')" \
	'other/cart.test.js:12 other/cart.test.js:7 '

# Side by side: about the slowest, not the sum.
for i in 1 2 3 4; do echo 'sleep 1' | script "side/test_$i.sh"; done
run -j max side
is 'with -j max all run at once' "$status $(sed -n 2p out)" '0 4 files, 4 at once'
has 'so the wall clock is about the slowest' /dev/stdin '^yes$' <<END
$(sed -n 's/^4 files: 4 passed *\([0-9.]*\)s (\([0-9.]*\)s of tests)$/\1 \2/p' out |
	awk '{ print ($1 < $2 / 2 ? "yes" : "no: " $0) }')
END
finish
