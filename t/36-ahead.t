#!/bin/sh
# ahead: stacks are made ready while other tests run.
. "${0%/*}/lib.sh"

# A server says in a file that it is up; which one dies, and when, is said in $DIES.
cat <<'END' | script files/server.sh
: >"up.$PRUN_INDEX.$PRUN_ATTEMPT"
echo ready
case $DIES in
"$PRUN_INDEX once") mkdir died 2>/dev/null && sleep 0.3 && exit 3 ;;
"$PRUN_INDEX twice") mkdir died 2>/dev/null || mkdir again; sleep 0.3; exit 3 ;;
esac
exec sleep 3600.1
END
DIES=
export DIES
printf 'server = ./server.sh\nready = log ^ready\n' >files/prun.conf
# What a test does until all these are there.
cat >files/awaits <<'END'
for f; do
	i=0
	until [ -e "$f" ]; do [ $((i += 1)) -lt 200 ] || exit 1; sleep 0.05; done
done
END
files=$dir/files
fresh() { rm -rf t up.* died again ran.*; cp -R "$files/." .; }
results() { sed -n 's/^\[[ 0-9]*\/[0-9]*\] \([A-Z]*\)  *\(t\/[^ ]*\).*/\2 \1/p' out | sort | tr '\n' ' '; }

begins() {
fresh
echo '. ./awaits up.1.1 up.2.1' | script t/test_0.sh
for i in 1 2 3 4 5 6 7; do echo 'exit 0' | script t/test_$i.sh; done
run -j1 --ahead 2 t
is 'stacks are ready before a place is free' "$status $(grep -c '\] PASS' out)" '0 8'
fresh
echo '. ./awaits up.1.1' | script t/test_0.sh
echo 'exit 0' | script t/test_1.sh
run -j1 --ahead auto t
is 'with auto one is, from the start' "$status $(results)" '0 t/test_0.sh PASS t/test_1.sh PASS '
}
aside begins

counts() {
fresh
for i in 0 1 2 3 4 5 6 7; do
	script t/test_$i.sh <<'END'
: >"ran.$PRUN_INDEX"
echo "$PRUN_WORKER" >>up.workers
set -- ran.*
[ $# -le 2 ] || exit 1
sleep 0.1
rm "ran.$PRUN_INDEX"
END
done
run -j2 --ahead 3 t
is 'there are never more than jobs tests at once' "$status $(grep -c '\] PASS ' out)" '0 8'
is 'but as many workers as stacks' "$(sort -u up.workers | tail -n 1)" 4
rm -f up.workers
run -j2 --ahead 2 --audit=1 t
is 'an audit has none ahead' "$(sort -u up.workers | tail -n 1)" 1
}
aside counts

waits() {
fresh
echo '. ./awaits up.1.1; exit 1' | script t/test_0.sh
echo ': >ran.1' | script t/test_1.sh
run -j1 --ahead 1 -x -d r t
is 'one that is cancelled while it waits is CANCEL' "$(results)" 't/test_0.sh FAIL t/test_1.sh CANCEL '
ok 'and was not tested' test ! -e ran.1
ok 'its stack is gone' gone 'sleep 3600'
fresh
echo '. ./awaits up.1.1; : >up.both; sleep 3600.2' | script t/test_0.sh
echo ': >ran.1' | script t/test_1.sh
"$PRUN" -j1 --ahead 1 t >out 2>err &
await test -e up.both
kill -TERM $!
wait $!
is 'so is one that a signal ends' "$(results)" 't/test_0.sh CANCEL t/test_1.sh CANCEL '
rm up.*
"$PRUN" -j1 --ahead 1 t >out 2>err &
await test -e up.both
kill -9 $!
wait $! 2>/dev/null
ok 'kill -9 leaves nothing while stacks wait' await gone 'sleep 3600|server.sh'
}
aside waits

dies() {
fresh
echo '. ./awaits died; i=0; until [ $i = 12 ]; do sleep 0.1; i=$((i + 1)); done' | script t/test_0.sh
echo 'exit 0' | script t/test_1.sh
DIES='1 once' run -v -j1 --ahead 1 t
is 'a stack that dies while it waits is started again' "$status $(results)" '0 t/test_0.sh PASS t/test_1.sh PASS '
has 'which is told' out 'the server died before the test began: exit status 3; started again'
fresh
echo '. ./awaits again; sleep 0.8' | script t/test_0.sh
echo ': >ran.1' | script t/test_1.sh
echo 'exit 0' | script t/test_2.sh
DIES='1 twice' run -j1 --ahead 1 t
is 'but once, and the run goes on' "$status $(results)" '1 t/test_0.sh PASS t/test_1.sh ERROR t/test_2.sh PASS '
has 'it is told by name' out 'the server died before the test began: exit status 3 \(prun.server-died\)'
}
aside dies

durations() {
fresh
printf '# prun: timeout=20s\n. ./awaits up.1.1\nsleep 1.5\n' | script t/test_0.sh
echo 'exit 0' | script t/test_1.sh
run -j1 --ahead 1 -t 1 -d r t
is 'waiting counts for no time-out' "$status $(results)" '0 t/test_0.sh PASS t/test_1.sh PASS '
has 'and in no duration' r/results.jsonl '"file":"t/test_1.sh",.*"seconds":0\.'
}
aside durations

# Nothing ahead: the first test says whether the second one has a stack.
alone() {
	name=$1
	shift
	fresh
	echo 'sleep 0.3; [ ! -e up.1.1 ]' | script t/test_0.sh
	echo 'exit 0' | script t/test_1.sh
	run -j1 "$@" t
	is "$name" "$status $(grep -c '\] PASS ' out)" '0 2'
}
aside alone 'without ahead none is ready'
aside alone 'beside a file that runs alone none is' --ahead 2 --alone t/test_0.sh
aside alone 'nor one that waits for a lock' --ahead 2 --serial 't/*'
aside alone 'nor more than workers' --ahead 2 --workers 1
aside alone 'PRUN_WORKER in env makes auto 0' --ahead auto --env 'REDIS=redis://localhost/$PRUN_WORKER'
aside alone 'and in a command' --ahead auto --server './server.sh $PRUN_WORKER'
aside alone 'so does a suite without server and database' --ahead auto --server none
retries() {
fresh
for i in 0 1; do echo '[ $PRUN_ATTEMPT = 2 ] && sleep 0.3 && { [ $PRUN_INDEX = 1 ] || [ ! -e up.1.2 ]; }' | script t/test_$i.sh; done
run -j1 --ahead 2 -r 1 t
is 'beside a retry none is' "$status $(grep -c 'flaky' out)" '0 1'
}
aside retries

run -n --ahead all t
is 'neither a number nor auto is refused' "$status $(grep -c 'ahead must be a whole number, not "all"' err)" '2 1'
collect
finish
