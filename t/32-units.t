#!/bin/sh
# Units other than a file: a directory, a test.
. "${0%/*}/lib.sh"
unset PYTEST_ADDOPTS
LOG=$dir/log
export LOG
logged() { sort log | tr '\n' ';'; rm -f log; }

# ---- split = dir
mkdir -p go/a/deep go/b go/none rust/x
for i in go/a go/a/deep go/b; do echo 'package x' >$i/x_test.go; done
echo 'package x' >go/none/x.go
echo '[package]' >rust/x/Cargo.toml
echo 'exit 0' | script sh/test_1.sh
echo 'exit 0' | script sh/test_2.sh
printf '%s\n' '[suite a]' 'files = go rust sh' 'split = dir' 'test = echo $PRUN_TEST >>"$LOG"' >prun.conf
run -j1
is 'split = dir: each directory that holds a test is a unit' "$status $(logged)" '0 go/a;go/a/deep;go/b;rust/x;sh;'
has 'its name is the directory' out '^go/a/deep +PASS'
run go/a/x_test.go
is 'a file in it selects it, and no other' "$status $(logged)" '0 go/a;'
run go/a
is 'a directory selects those below, too' "$(logged)" 'go/a;go/a/deep;'
(cd go/a/deep && "$PRUN" x_test.go >/dev/null 2>&1)
is 'also from inside of it' "$(logged)" 'go/a/deep;'
run go/none/x.go
is 'what is in no unit is in no suite' "$status $(cat err)" '2 prun: go/none/x.go: is not in any suite'
printf '%s\n' 'split = dir' >prun.conf
run -n go
is 'it needs a command' "$status $(cat err)" '2 prun: files: split = dir needs test, a command that runs the directory $PRUN_TEST'
run --test 'echo $PRUN_TEST >>"$LOG"' go/b/x_test.go
is 'without suites a file is its directory' "$(logged)" 'go/b;'
rm -r go rust sh prun.conf

# ---- split = test, with a collect of one's own
mkdir l
for i in a b; do printf 'one\ntwo words\n[x]::y\n' >l/$i.txt; done
echo '# prun: lock=x' >>l/b.txt
cat <<'END2' >prun.conf
files = l/a.txt l/b.txt
split = test
history = hist
setup = touch done
env = GREETING=hello
db = file:template
test = echo "$PRUN_TEST $PRUN_FILE" >>"$LOG"; case $PRUN_TEST in *two*) exit 1 ;; esac
collect = test -e done && echo "$PRUN_DB_URL $GREETING $PRUN_PORT $#" >asked && for f; do
  grep -v prun "$f" | sed "s,^,some/where/$f::,"; done; echo noise; echo nothing::here
END2
echo data >template
run
is 'split = test: each test is a unit, asked for after the setup' "$status $(logged)" \
	'1 l/a.txt::[x]::y l/a.txt;l/a.txt::one l/a.txt;l/a.txt::two words l/a.txt;l/b.txt::[x]::y l/b.txt;l/b.txt::one l/b.txt;l/b.txt::two words l/b.txt;'
has 'collect gets the template, env, a port and all files' asked '^file:template hello [0-9]+ 2$'
has 'the history knows each test' hist ' FAIL - l/a.txt::two words$'
run --last-failed
is 'so --last-failed runs tests' "$(logged)" 'l/a.txt::two words l/a.txt;l/b.txt::two words l/b.txt;'
run -n --last-failed
is '-n --last-failed knows no tests, so it has their files' "$status $(grep -c '^l/[ab].txt' out)" '0 2'
run --shard 1/2
logged >one
run --shard 2/2
logged >two
is 'shards share out tests' "$(cat one two | tr ';' '\n' | sort | uniq -c | awk '$1 != 1 || !NF' | wc -l | tr -d ' ') $(cat one two | tr ';' '\n' | grep -c .)" '0 6'
rm -f asked
run 'l/a.txt::one'
ok 'nothing is asked where' not test -e asked
is 'a test is named' "$status $(logged)" '0 l/a.txt::one l/a.txt;'
run l/b.txt
is 'a path selects the files that are asked' "$(logged)" \
	'l/b.txt::[x]::y l/b.txt;l/b.txt::one l/b.txt;l/b.txt::two words l/b.txt;'
run -n
has '-n asks nothing, and says so' err 'split = test: the tests of a file are asked for when it is run'
run --collect 'echo l/a.txt::one'
is 'a file without tests runs whole' "$(logged)" 'l/a.txt::one l/a.txt;l/b.txt l/b.txt;'
has 'which is said' err '^prun: files: collect named no tests of 1 file, which run whole$'
run --collect 'echo l/a.txt::one; echo broken; exit 3'
is 'so does every file where collect fails' "$(logged)" 'l/a.txt l/a.txt;l/b.txt l/b.txt;'
has 'with its status' out '^prun: files: collect failed: exit status 3, so whole files are run$'
has 'and its last lines' out '^prun: collect: broken$'
"$PRUN" --collect 'touch asking; sleep 99; :' >out 2>err &
pid=$!
await test -e asking
kill -TERM $pid
wait $pid
is 'a signal ends a collect' "$? $(alive 'sleep 99')" '143 '
lacks 'and what it had no time to name is not missed' err 'named no tests'
run --setup false
is 'a setup that fails ends the run' $status 3
run --collect none
is 'split = test needs a collect that is known' "$status $(grep -c 'split = test needs collect' err)" '2 1'
rm -r l prun.conf hist

# ---- with pytest
PYTHON=${PYTHON:-/usr/bin/python3}
export PYTHON
if "$PYTHON" -c 'import pytest' 2>/dev/null; then
	mkdir -p p/tests
	printf '[pytest]\naddopts = -q\n' >p/pytest.ini
	cat >p/tests/conftest.py <<'END2'
import os
assert os.environ["E2E_BASE_URL"].startswith("http://")
END2
	cat >p/tests/test_a.py <<'END2'
import pytest
class TestX:
    @pytest.mark.parametrize("v", ["a b", "x::y", "é/'\"$`", "[1]"])
    def test_v(self, v): pass
def test_one(): pass
@pytest.mark.serial
def test_two(): assert 0
END2
	echo 'def test_three(): pass' >p/tests/test_b.py
	printf '%s\n' 'files = tests' 'split = test' 'url-env = E2E_BASE_URL' 'env = E2E_BASE_URL=http://x' >p/prun.conf
	(cd p/tests && "$PRUN" -o ../r.xml . >"$dir/out" 2>"$dir/err")
	is 'pytest is asked by default, with -q in addopts, from a subdirectory' "$? $(sed -n 's/^\([0-9]* files: .*ed\) .*/\1/p' out)" \
		'1 7 files: 6 passed, 1 failed'
	has 'an id is kept byte for byte' out "^tests/test_a.py::TestX::test_v\[\\\\xe9/'\"\\\$\`\] +PASS|^tests/test_a.py::TestX::test_v\[.*'\"\\\$\`\]"
	has 'each test runs alone' p/r.xml '^<testsuites name="prun" tests="7" '
	has 'again names the test' out ' test_a.py::test_two$'
	echo 'import nothing' >p/tests/test_b.py
	run -f p/prun.conf -n p/tests
	is '-f: names are relative to the current directory' "$(sed -n 's/^\(p.tests.test_..py\).*/\1/p' out | tr '\n' ' ')" 'p/tests/test_a.py p/tests/test_b.py '
	run p/tests
	has 'a file that cannot be collected is told' out 'collect failed: exit status 2'
	has 'and files run whole' out '^2 files: 0 passed, 2 failed'
else
	skip 'no pytest' 'pytest is asked by default, with -q in addopts, from a subdirectory' \
		'an id is kept byte for byte' 'each test runs alone' 'again names the test' \
		'-f: names are relative to the current directory' \
		'a file that cannot be collected is told' 'and files run whole'
fi
finish
