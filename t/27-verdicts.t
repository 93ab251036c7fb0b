#!/bin/sh
# Verdicts that can be trusted, and evidence that is still there when prun ends.
. "${0%/*}/lib.sh"

# A database that is a directory, so that this file needs no server.
mkdir clones
cat >dirs.conf <<'END'
db = dir://x
db-clone = mkdir "clones/$PRUN_DB" && echo "dir://$PRUN_DB"
db-drop = rmdir "clones/$PRUN_DB"
END
# as x_w0_ for a first attempt, x_w0_r2 for a second
clones() { ls clones | sed "s/_$(sed -n 's/^kept: .*prun-//p' out)/_/" | tr '\n' ' '; }
named() { sed -n 's/^    database  *//p; s/^database of .*: //p' out | sort -u; }
fresh() { rm -rf clones out.* prun-*; mkdir clones; rm -f ./*.seen; }

# What was printed is still there when prun ends.
# there NAME: every absolute path and every database that out names.
there() {
	gone=
	for path in $(grep -Eo "$dir/[^ ,;:)]+" out); do [ -e "$path" ] || gone="$gone $path"; done
	for name in $(named); do [ -d "clones/$name" ] || gone="$gone $name"; done
	is "$1: all that it names is there" "$gone" ''
}
echo '[ -e flaky.seen ] || { : >flaky.seen; exit 1; }' | script t/test_flaky.sh
echo 'exit 1' | script t/test_bad.sh
echo 'exit 0' | script t/test_good.sh
fresh
run -f dirs.conf -r 1 t/test_flaky.sh
is 'a flaky file passes' "$status $(grep -c FLAKY out)" '0 2'
is "its failed attempt's clone stays" "$(clones)" 'x_w0_ '
is 'and is named' "$(named)" "$(ls clones)"
ok 'so does its log' test -e "$(sed -n 's/^ *test log  *//p' out)"
there 'flaky'
fresh
run -f dirs.conf -r 2 t/test_bad.sh t/test_good.sh
is "of three failed attempts the last one's clone stays" "$(clones)" 'x_w0_r3 '
is 'and only that is named' "$(named)" "$(ls clones)"
there 'three failures'
fresh
run -f dirs.conf --keep=run t/test_bad.sh t/test_good.sh
is 'keep = run: both stay' "$(clones)" 'x_w0_ x_w1_ '
is 'keep = run: both are named' "$(named)" "$(ls clones)"
has "the passed file's is listed at the end" out '^database of t/test_good.sh: x_w1_'
there 'keep = run'
fresh
run -f dirs.conf --keep=run t/test_good.sh
is 'keep = run: none stays where none failed' "$(clones)$(named)" ''
fresh
run -f dirs.conf --keep=always -r 1 t/test_flaky.sh
is 'keep = always: both attempts stay' "$(clones)" 'x_w0_ x_w0_r2 '
there 'keep = always'
fresh
run -f dirs.conf --keep=never -r 1 t/test_bad.sh t/test_flaky.sh
is 'keep = never: none stays' "$(clones)$(named)" ''
there 'keep = never'
fresh
echo 'n=$(ls n.* 2>/dev/null | wc -l); : >n.$$; [ $n -lt 1 ]' | script audit/test_1.sh
echo 'exit 0' | script audit/test_2.sh
run -f dirs.conf --audit=3 -j2 audit
is "audit: the first failure's clone stays" "$(clones)" 'x_w0_r2 '
is 'audit: and only that is named' "$(named)" "$(ls clones)"
there 'audit'
fresh
run -f dirs.conf --after 'echo "no such container"; exit 3' t/test_good.sh
has 'after: what it said is told, not where' out "after's last line: no such container"
there 'after'

# A file that failed and waited for its retry when the run was cancelled has
# failed, as the history knows.
fresh
echo ': >"$PRUN_SUITE.begun"; exit 1' | script wait/test_1.sh
echo 'until [ -e .begun ]; do sleep 0.02; done; sleep 0.3; kill -TERM $(ps -o ppid= -p $PPID); sleep 60' |
	script wait/test_2.sh
run -f dirs.conf -j2 -r 1 -o out.xml --history h wait
has 'the history knows of a failure whose retry was cancelled' h ' FAIL .*wait/test_1.sh'
has 'so does the last line' out '^2 files: 0 passed, 1 failed, 1 cancelled'
there 'cancelled'

# A segmentation fault under sh -c is a signal.
echo 'kill -SEGV $$' | script t/test_segv.sh
run --test 'sh "$PRUN_TEST"; exit $?' t/test_segv.sh
has "the shell's status of a signal is that signal" out 'killed by signal 11 .*\(prun.signal\)'
run --test 'exit 255' t/test_good.sh
has 'but 255 is a status' out 'exit status 255 \(prun.exit\)'

# A worker that dies, wherever.
run --setup 'kill -9 $PPID; sleep 2700.1' t/test_good.sh
is 'a worker that dies in setup: status 3' $status 3
has 'is told' out 'worker 0 died: killed by signal 9'
has 'and the file did not run' out '^1 file: 0 passed, 1 cancelled'
dies() {
	what=$1
	shift
	fresh
	run -f dirs.conf -j1 "$@" t/test_good.sh
	is "a worker that dies in $what: the file is an ERROR" \
		"$status $(grep -c 'ERROR  t/test_good' out)" '1 1'
	has "a worker that dies in $what: is told why" out 'the worker died: killed by signal 9 \(Killed\) \(prun.worker-died\)'
	is "a worker that dies in $what: the clone is dropped" "$(clones)" ''
	ok "a worker that dies in $what: nothing is left" await gone 'sleep 2700'
}
dies 'db-clone' --db-clone 'mkdir "clones/$PRUN_DB"; kill -9 $PPID; sleep 2700.2'
dies 'server' --server 'kill -9 $PPID; sleep 2700.3'
dies 'test' --test 'kill -9 $PPID; sleep 2700.4'
dies 'stop' --server 'trap "kill -9 $PPID" TERM; sleep 2700.5 & wait; wait' --ready none --test 'sleep 0.3'
dies 'after' --after 'kill -9 $PPID; sleep 2700.6'

# The default command needs pytest, which is asked for once, before any clone.
echo 'exit 1' | script no-pytest
echo 'echo "$PWD $PRUN_FILE" >>ran' | script pytest
mkdir py
: >py/test_1.py
: >py/test_2.py
PYTHON=./no-pytest run -f dirs.conf -j2 -r 2 --db-clone ': >cloned; echo x' py
is 'no pytest: status 3' "$status $(ls cloned 2>&1 | grep -c '^cloned')" '3 0'
has 'no pytest: that is said, and what to do' out \
	'^prun: no pytest for .PYTHON [(]default: python3[)]: install it, set PYTHON to .*, or set test$'
is 'no pytest: once' "$(grep -c pytest out)" 1
run -f dirs.conf -j2 --env 'PYTHON=./no-pytest' py
is 'no pytest: env is asked for it' $status 3
PYTHON=./pytest run -j2 py
is 'with one it runs' "$(grep -c py/test_ ran)" 2
PYTHON=./no-pytest run --test 'true' py
is 'nobody asks where test = says how' $status 0
run -n py
has 'the shell makes way for pytest, or ^C would end it' out '^    exec "'
mkdir -p node_modules/.bin spec
echo 'echo "<testsuite><testcase name=\"x\"/></testsuite>" >"$PRUN_JUNIT"; ps -o args= -p $PPID >parent' |
	script node_modules/.bin/playwright
: >playwright.config.js
: >spec/x.spec.js
run spec
has 'so it does for Playwright' parent .
lacks 'whose parent is no shell' parent 'sh -c'
rm -rf node_modules playwright.config.js

# Exit status 5 is pytest's for no tests; of skipped modules its report has cases.
echo 'echo "<testsuite><testcase name=\"m\"><skipped/></testcase></testsuite>" >"$PRUN_JUNIT"; exit 5' |
	script five/test_skipped.sh
echo 'echo "<testsuite/>" >"$PRUN_JUNIT"; exit 5' | script five/test_none.sh
echo 'echo "<testsuite/>" >"$PRUN_JUNIT"' | script five/test_empty.sh
run five
is 'a module that is skipped as a whole is SKIP' "$(sed -n 's,^five/test_skipped.sh *\([A-Z]*\) .*,\1,p' out)" SKIP
is 'a report without tests is NONE, with 5 or 0' "$(grep -c '^five/test_[en][a-z]*.sh *NONE' out)" 2
run --test 'exit 5 # pytest' t/test_good.sh
has '5 without a report: how to have one' out 'exit status 5; .*--junitxml="\$PRUN_JUNIT"'

# A server that ends during the test is server-died, unless it may.
echo 'until [ -e stop ]; do sleep 0.02; done; exit $(cat stop)' | script ends.sh
echo 'echo ${STATUS-0} >stop.new; mv stop.new stop; sleep 0.5' | script ends/test_ends.sh
ends() { rm -f stop; run --server ./ends.sh --ready none "$@" ends; }
ends
has 'a server that ends during the test is dead' out 'exit status 0 \(prun.server-died\)'
ends --server-exit=pass
is 'server-exit = pass: it may end with status 0' "$status $(grep -c PASS out)" '0 2'
STATUS=3 ends --server-exit=pass
is 'but with no other' "$(grep -c 'exit status 3 (prun.server-died)' out)" 1

# A cancel while the settings of the template are copied: what was not tested
# has not passed.
if [ "${PRUN_TEST_PG-}" ] && have psql; then
	psql -Xqd "$PRUN_TEST_PG" -c 'CREATE DATABASE many' >/dev/null
	i=0
	while [ $((i += 1)) -le 400 ]; do echo "ALTER DATABASE many SET my.v$i = '$i';"; done |
		psql -Xqd "$PRUN_TEST_PG"
	echo 'sleep 60' | script long/test_long.sh
	passed=
	for try in 1 2 3; do
		rm -f h
		"$PRUN" --history h --db "${PRUN_TEST_PG%/*}/many" long >out 2>&1 &
		pid=$!
		await sh -c "psql -XAtd '$PRUN_TEST_PG' -c 'SELECT datname FROM pg_database' | grep -q ^many_"
		kill -TERM $pid
		wait $pid
		grep -q 'CANCEL  long/test_long' out || passed="$passed $try"
		! grep PASS h 2>/dev/null || passed="$passed $try"
	done
	is 'a file that was cancelled while it was cloned is CANCEL' "$passed" ''
else
	skip 'no PostgreSQL' 'a file that was cancelled while it was cloned is CANCEL'
fi

# A server that is not there is not tried twice.
run --server 'nosuch-server --port $PRUN_PORT' t/test_good.sh
is 'a server of which the shell knows nothing: status 3' $status 3
lacks 'it is tried once' out 'tried once more'
run -d shell.d --server 'nosuch-server; exit 127' t/test_good.sh
has 'what the shell says of it is not said in the name of prun' shell.d/0-test_good.sh/server.log '^(/bin/)?sh: .*nosuch-server'
finish
