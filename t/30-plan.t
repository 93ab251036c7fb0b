#!/bin/sh
# What is run: suites, marks, what is found and what is not, the history.
. "${0%/*}/lib.sh"
# prun reads this file's own head, too: no mark stands here as it is.
me=prun

# listed ARGUMENTS...: the files of the plan with their locks, on a line.
listed() { run -n "$@"; sed -n 's/^\([a-z]*: \)*\(.*test.*\)$/\2/p' out | grep -v '^ ' | tr '\n' ';'; }

# ---- marks of pytest
mkdir py
mark() { # NAME LOCKS PYTHON
	printf '%b' "$3" >py/test_m.py
	is "$1" "$(listed py)" "py/test_m.py${2:+  $2};"
}
mark 'the second mark of a line counts' lock=serial 'pytestmark = [pytest.mark.e2e, pytest.mark.serial]\n'
mark 'so does mark without pytest before it' lock=serial 'from pytest import mark\n@mark.serial\ndef test_a(): pass\n'
mark 'a mark is a whole name' '' '@pytest.mark.serialize_me\n@bookmark.serial\n@x.mark.serial\ndef test_a(): pass\n'
mark 'a docstring is no mark' '' '"""Use pytest.mark.serial\nor not: pytest.mark.serial"""\n'
mark 'a comment is none, nor is one after code' '' 'x = 1  # pytest.mark.serial\n'
mark 'a quote in a string or a comment ends nothing' lock=serial "x = 'it\\\\'s \"\"\"'\n# don't\n@pytest.mark.serial\n"
mark "xdist's group is a lock" lock=db '@pytest.mark.xdist_group(name="db")\ndef test_a(): pass\n'
mark 'without name=, over lines, two of them' 'lock=a b  lock=c' "@pytest.mark.xdist_group(\n    'a b',\n)\n@mark.xdist_group(name = \"c\")\n"
mark 'a mark without a line end at the end' lock=serial 'pytestmark = pytest.mark.serial'
mark 'a string that does not end' '' '"""pytest.mark.serial'
printf '@pytest.mark.xdist_group(GROUP)\n' >py/test_m.py
run -n py
has 'a group whose name is not known is said' err 'py/test_m.py: the name of xdist_group is not a string'
cat >py/test_m.py <<'END'
import pytest
pytestmark = pytest.mark.xdist_group("all")
@pytest.mark.serial
@pytest.mark.parametrize("v", ["a::b", "c"])
async def test_a(v): pass
def test_b(): pass
@pytest.mark.xdist_group("cls")
class TestC:
    @pytest.mark.xdist_group(
        name="one")
    def test_d(self): pass
    def test_e(self): pass
END
is 'a mark of one test holds for its file' "$(listed py)" 'py/test_m.py  lock=all  lock=serial  lock=cls  lock=one;'
is 'and -n says so' "$(cat err)" \
	"$me: py/test_m.py: lock serial, a mark of test_a, holds for the whole file; with split = test it holds only for tests that have it
$me: py/test_m.py: lock one, a mark of test_d, holds for the whole file; with split = test it holds only for tests that have it"
run py --test true
is 'but a run does not' "$(cat err)" ''
is 'a test that is named has its own, those of its class and of the file' \
	"$(listed 'py/test_m.py::test_a[a::b]' py/test_m.py::test_b py/test_m.py::TestC::test_d py/test_m.py::TestC)" \
	'py/test_m.py::test_a[a::b]  lock=all  lock=serial  lock=cls;py/test_m.py::test_b  lock=all  lock=cls;py/test_m.py::TestC::test_d  lock=all  lock=cls  lock=one;py/test_m.py::TestC  lock=all  lock=serial  lock=cls  lock=one;'
is 'which is said of none' "$(cat err)" ''
cat >py/test_m.py <<END
# $me: nosuch=1
import os, time, pytest
def alone():
    os.mkdir("busy")
    time.sleep(0.3)
    os.rmdir("busy")
@pytest.mark.serial
def test_a(): alone()
@pytest.mark.serial
def test_b(): alone()
def test_c(): pass
END
PYTHON=${PYTHON:-/usr/bin/python3}
export PYTHON
if "$PYTHON" -c 'import pytest' 2>/dev/null; then
	run --split=test -j3 py
	is 'with split = test the tests with the mark exclude each other' "$status $(sed -n 's/^\(3 files: 3 passed\).*/\1/p' out)" '0 3 files: 3 passed'
	is 'an unknown mark of the file is said once' "$(grep -c 'unknown mark' err)" 1
else
	skip 'no pytest' 'with split = test the tests with the mark exclude each other' 'an unknown mark of the file is said once'
fi
rm -r py

# ---- marks of prun
printf '#!/bin/sh\n# prun: serial timeout=0.2s\nsleep 5\n' >test_m.sh
chmod +x test_m.sh
run test_m.sh
has 'a line may have more than one mark' out 'TIMEOUT  *test_m.sh'
is 'they all hold' "$(listed test_m.sh)" 'test_m.sh  lock=serial;'
printf '#!/bin/sh\n# prun: timout=5m\n' >test_m.sh
run -n test_m.sh
has 'an unknown mark is said, with its line' err '^prun: test_m.sh:2: unknown mark "timout=5m"'
printf '#!/bin/sh\n# prun: serial timout=5m\n' >test_m.sh
run -n test_m.sh
has 'also behind another one' err '^prun: test_m.sh:2: unknown mark "timout=5m"'
printf '#!/bin/sh\n# prun: serial because of the clock\n' >test_m.sh
run -n test_m.sh
is 'prose behind a mark is none' "$(cat err)" ''
printf '#!/bin/sh\n# prun: timeout=x\n' >test_m.sh
run -n test_m.sh
is 'a bad value has file and line' "$status $(cat err)" \
	'2 test_m.sh:2: timeout must be a duration like 90s or 5m, not "x"'
rm test_m.sh

# ---- nothing is said
run
is 'without a path it says what to type' "$status $(cat err)" \
	'2 prun: command line: no path given; try: prun .'
mkdir e2e
run
is 'which is what stands here' "$status $(cat err)" \
	'2 prun: command line: no path given; try: prun e2e'
rmdir e2e
echo 'jobs = 1' >prun.conf
run
is 'and what prun.conf could have' "$(cat err)" \
	'prun: command line: no path given, and files is not set in prun.conf; try: prun .'
rm prun.conf

# ---- suites in which there is nothing
echo 'exit 0' | script a/test_a.sh
mkdir empty
conf() { printf '%s\n' '[suite one]' 'files = a' '[suite two]' "$@" >prun.conf; }
conf 'files = empty'
run
is 'a suite without a test file runs the others and gives status 4' "$status $(grep -c '^\[1/1\] PASS' out)" '4 1'
has 'it is named' err '^prun: suite two: no test files found in empty$'
run --no-tests=pass
is 'or 0 if that is wanted' $status 0
run -n
is '-n says so, too' $status 4
run -s one
is 'a suite that was not chosen does not count' "$status $(cat err)" '0 '
run a/test_a.sh
is 'nor does one that the paths do not select' $status 0
conf 'files = nowhere'
run
is 'a path of a suite that is missing does not end everything' "$status $(grep -c '^\[1/1\] PASS' out)" '4 1'
has 'it is named as well' err '^prun: suite two: nowhere: No such file'
run a --exclude='a/*'
is 'a path of which all is excluded is an error that says so' "$status $(tail -n 1 err)" \
	'2 prun: a: is not in any suite, or exclude has all of it'
conf "files = a" "split = suite"
run -n
is 'split = suite without a command for it is refused' "$status $(cat err)" \
	'2 prun: suite two: split = suite needs test: no one command runs a/test_a.sh'
conf "files = empty" "split = suite"
run -n
has 'and without a test file, too' err 'suite two: no test files found in empty'
is 'with the status of no-tests' $status 4
mkdir -p go/pkg
: >go/pkg/a_test.go
conf 'files = go'
run
has 'where the tests of a directory are one unit, it is said how to run them' err \
	'^prun: go/pkg/a_test.go is skipped: set split = dir and test; see KINDS OF PROJECT in '
mkdir py py2
echo 'def test_a(): pass' >py/test_a.py
echo 'def test_a(): pass' >py2/test_b.py
conf "files = py" "split = suite"
run -n
has 'its default is what runs all of its files' out '^    .*-m pytest .*"\$PRUN_TEST"'
conf 'files = py py2' 'split = suite' 'test = echo $PRUN_TEST $*'
run -s two -d r
is 'all paths of a suite that runs as one are run' "$(cat r/0-py/test.log)" 'py py2'
run -s two -d r py2/test_b.py
is 'a path inside it selects that part' "$status $(cat r/0-test_b.py/test.log)" '0 py2/test_b.py'
run -s two -d r py py/test_a.py::test_a
is 'also beside the whole' "$(cat r/?-*/test.log | sort | tr '\n' ';')" 'py py2;py/test_a.py::test_a;'
conf 'files = py py2' 'split = suite' 'test = echo $PRUN_TEST'
run -n
has 'a command that would miss the second one is refused' err 'suite two: test must have "\$@"'
rm -r py py2 r

# ---- scripts that cannot be run
echo 'exit 0' >a/test-0000-x.sh
echo 'exit 0' >a/test-0001-x.sh
rm prun.conf
run a
is 'a script that is not executable is skipped where a walk finds it' "$status $(grep -c 'PASS  a/test_a.sh' out)" '0 1'
has 'which is said' err '^prun: a/test-0000-x.sh is skipped, and 1 more: not executable, and no test command is set$'
run a/test-0000-x.sh
is 'one that is named is an error' "$status $(grep -c 'no command to run it' err)" '2 1'
run --test 'sh "$PRUN_TEST"' a
has 'with a test command all are run' out '^3 files: 3 passed'
rm a/test-0*

# ---- names on the screen
esc=$(printf '\033')
printf '[suite a%s[2J]\nfiles = a\nlock = x%s[2J *\ntest = : %s[2J\n' "$esc" "$esc" "$esc" >prun.conf
run -n
is '-n prints no control character' "$(grep -c "$esc" out)" 0
printf 'exit 0\n' | script "$(printf 'a/test-c1\302\233x.sh')"
printf 'exit 0\n' | script "$(printf 'a/test-turned\342\200\256y.sh')"
run
is 'nor does a run one of eight bits, or one that turns the direction' \
	"$(grep -c 'test-c1.u009bx' out) $(grep -c 'test-turned.u202ey' out) $(LC_ALL=C grep -c "$(printf '\302\233\|\342\200\256')" out)" '2 2 0'
rm a/test-c1* a/test-turned*
rm prun.conf

# ---- the history
echo 'exit ${WANT:-0}' | script a/test_a.sh
WANT=1 run -q --history=hist a
run -q --history=hist a -- -k x
has 'a run with test arguments leaves the history alone' hist ' FAIL - a/test_a.sh$'
run -q --history=hist --test 'echo "<testsuite/>" >"$PRUN_JUNIT"; exit 5' a
has 'so does a file without tests' hist ' FAIL - a/test_a.sh$'
run --last-failed a
is 'without a history --last-failed says how to get one' "$status $(cat err)" \
	'2 prun: --last-failed: there is no history; set junit or history, and run once'
run --last-failed --history=none.yet a
is 'so it does before the first run' "$status $(cat err)" \
	'4 prun: --last-failed: none.yet has no results yet; run once without --last-failed'
run -q --history=hist a
run --last-failed --history=hist a
is 'and when all have passed' "$status $(cat err)" \
	'4 prun: --last-failed: the history has no file that did not pass'
echo 'test -e second && kill -TERM $(ps -o ppid= -p $PPID) && sleep 60; exit 1' | script b/test_b.sh
echo 'touch second; sleep 1' | script b/test_c.sh
rm -f second hist
run -j1 -r1 --history=hist b
has 'a file that failed and waited for its retry when the run was cancelled is in it' hist ' FAIL - b/test_b.sh$'
run -n empty
is '-n without a file gives status 4' "$status $(cat err)" '4 prun: files: no test files found in empty'
run -n --shuffle a
has '-n --shuffle prints the seed' out 'shuffle seed [0-9a-z]+$'

# ---- fail-fast
for i in 1 2 3 4; do echo 'exit 1' | script "x/test_$i.sh"; done
run -j1 --fail-fast=2 x
has '--fail-fast=2 stops after the second failing file' out '^4 files: 0 passed, 2 failed, 2 cancelled'
run -j1 -xr1 x
has '-x after the first, without retries' out '^4 files: 0 passed, 1 failed, 3 cancelled'
echo 'fail-fast = yes' >prun.conf
run -j1 x
has 'yes is 1' out 'prun: stopping after 1 failing file$'
rm prun.conf

# ---- directories of what is written
run -q -o build/deep/r.xml --history=cache/hist -d logs/run a
is 'missing directories are made' "$status $(ls build/deep/r.xml cache/hist logs/run/summary.json | wc -l | tr -d ' ')" '0 3'
echo x >file
rm -f ran
run -o file/r.xml --test 'touch ran' a
is 'what cannot be written is refused before anything runs' "$status $([ -e ran ] || echo no)" '2 no'
has 'which is said' err '^prun: -o: cannot'
run --ready-timeout=none --server 'sleep 0.3; touch up; exec sleep 60' --ready 'command test -e up' a
is 'a ready-timeout of none waits as long as it takes' $status 0
PYTEST_ADDOPTS=x run --unset '*PYTEST*' --server 'env >server.env; sleep 60' --ready none --test 'env >test.env' a
is 'unset hides variables from server and test' "$(cat server.env test.env | grep -c PYTEST)" 0

# A quoted glob, typed where the directory's own name looks like one.
echo 'exit 0' | script 'pages/[id]/test_page.sh'
: >pages/prun.conf
(cd 'pages/[id]' && "$PRUN" -nq 'test_*.sh') >out 2>err
is 'where the user stands is no glob' "$(cat out err)" test_page.sh

echo 'exit 0' | script order/a/test_x.sh
echo 'exit 0' | script order/a-b/test_x.sh
run -nq order
is 'names of directories are in the order of their bytes, too' "$(tr '\n' ' ' <out)" \
	'order/a-b/test_x.sh order/a/test_x.sh '
finish
