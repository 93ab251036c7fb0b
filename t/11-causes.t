#!/bin/sh
# Every cause can be had, and is told on the screen, in the report and in
# results.jsonl.
. "${0%/*}/lib.sh"
[ -x "$APP" ] || skip_all 'no demo app (make t/demo/app)'
: >data
serve="$APP \$PRUN_PORT data"

# cause SCRIPT CAUSE RESULT MESSAGE [OPTIONS...]
cause() {
	cause=$2 result=$3 message=$4
	rm -rf c c.d
	printf "%s\n" "$1" | script c/test_c.sh
	shift 4
	run -d c.d -o c.xml "$@" c
	has "$cause: result $result" out "$result  c/test_c.sh"
	has "$cause: on the screen" out "^    $message.* \\($cause\\)\$"
	has "$cause: in the report" c.xml "type=\"$cause\""
	has "$cause: in results.jsonl" c.d/results.jsonl "\"result\":\"$result\",\"cause\":\"$cause\""
	lacks "$cause: no empty message" c.d/results.jsonl '"message":""'
}
cause 'exit 3' prun.exit FAIL 'exit status 3'
cause 'kill -9 $$' prun.signal FAIL 'killed by signal 9 \(Killed\)'
cause 'kill -SEGV $$' prun.signal FAIL 'killed by signal 11 \(Segmentation fault.*\)' \
	--test 'sh "$PRUN_TEST"; exit $?'
cause 'sleep 60' prun.timeout TIMEOUT 'timed out after 0.3s' -t 300ms
cause 'cat /dev/zero' prun.output-limit FAIL 'wrote more than 100000 bytes' --log-limit=100000
cause 'kill $(ps -A -o pid= -o args= | sed -n "s,^ *\([0-9]*\) .*app $PRUN_PORT .*,\1,p"); sleep 60' prun.server-died ERROR 'the server died during the test: (killed by signal 15|exit status 143)' --server "$serve"
cause 'exit 0' prun.server-not-ready ERROR 'the server is not ready after 0.2s' \
	--server 'sleep 60' --ready-timeout=0.2s
cat >steal.py <<'END'
# Takes the port from under the server, and stays.
import os, socket, sys, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(os.environ["PRUN_PORT"])))
s.listen(1)
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
END
if have python3; then
	cause 'exit 0' prun.port ERROR 'port [0-9]+ was taken by another process' \
		--server 'exec >steal.log 2>&1; python3 steal.py; exit 1' --ready='log never'
	has 'three other ports are tried' out 'was taken by another process; tried another'
	is 'three, no more' "$(grep -c 'tried another' out)" 3
else
	skip 'no python3' 'prun.port: result ERROR'
fi
cause 'exit 0' prun.database ERROR 'cannot clone ./nothing: No such file' --db file:./nothing
printf 'not a program' >junk
chmod +x junk
cause 'exit 0' prun.spawn ERROR 'cannot run ./junk: neither a program nor a script' --test ./junk
cause 'exit 0' prun.spawn ERROR 'exit status 127: .*nosuch' --test 'nosuch "$PRUN_TEST"'
: >plain
cause 'exit 0' prun.spawn ERROR 'cannot run ./plain: not executable' --test ./plain
cause 'exit 0' prun.spawn ERROR 'cannot run ./gone: command not found' --test ./gone
cause 'kill -9 $PPID; sleep 60' prun.worker-died ERROR 'the worker died: killed by signal 9'
cause 'exit 0 # $PRUN_JUNIT' prun.report ERROR 'exit status 0, but no report was written' \
	--test 'sh "$PRUN_TEST" "$PRUN_JUNIT"'
cause 'echo "<testsuite><testcase" >"$PRUN_JUNIT"' prun.report ERROR 'the report .*/junit.xml ends in the middle of a tag'
cause 'sleep 60 &' prun.leak FAIL 'processes were left running' --leak=fail
cause 'kill -TERM $(ps -o ppid= -p $PPID); sleep 60' prun.cancelled CANCEL 'cancelled' -v

# A core dump is noted, where this machine makes one.
cat <<'END' | script core/test_core.sh
ulimit -c unlimited
cd "$PRUN_DIR"
exec perl -e 'kill "SEGV", $$; sleep 5'
END
run core
if have perl && (ulimit -c unlimited; cd "$dir" && perl -e 'kill "SEGV", $$; sleep 5') 2>&1 | grep -q dumped ||
	grep -q 'core dumped' out; then
	has 'a core dump is noted' out 'killed by signal 11 .*, core dumped'
else
	has 'without a core nothing is said of one' out 'killed by signal 11 \([^,]*\) \(prun'
fi
finish
