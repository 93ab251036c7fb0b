#!/bin/sh
# However a run ends, nothing outlives it.
. "${0%/*}/lib.sh"

# What left its session is not found by a prun that cannot be told of its children (qemu).
end_stray() { gone 'sleep 2000[.](21|35)' >/dev/null || kill "$(cat stray)" 2>/dev/null; }

echo 'exit 0' | script good/test_good.sh

# Fail-fast.
echo 'while ! [ -e busy ]; do sleep 0.02; done; exit 1' | script x/test_1.sh
echo ': >busy; exec sleep 2000.1' | script x/test_2.sh
echo 'exit 0' | script x/test_3.sh
run -j2 -x x
is 'fail-fast gives status 1' $status 1
has 'the running file is cancelled' out '^x/test_2.sh +CANCEL'
has 'which is told at once' out '^\[[0-9]/3\] CANCEL +x/test_2.sh'
has 'so is the one that never ran' out '^x/test_3.sh +CANCEL'
lacks 'which has no line but that' out '^\[.*test_3'
has 'and they are counted' out '^3 files: 0 passed, 1 failed, 2 cancelled'
ok 'nothing of it is left' gone 'sleep 2000[.]1'
rm -f busy
echo 'exit 0' | script x/test_2.sh
: >busy
run -j2 x
has 'without it the others finish' out '^3 files: 2 passed, 1 failed'

# Time-out.
cat <<'END' | script slow/test_slow.sh
trap '' TERM
sleep 2000.2 & sleep 2000.2 &
while :; do sleep 0.1; done
END
run -t 0.5 --grace=0.3 slow good -d slow.d
is 'a time-out gives status 1' $status 1
has 'it is a result of its own' out 'TIMEOUT  slow/test_slow.sh'
has 'with its reason' out 'timed out after 0.5s'
if have ps; then
	has 'the processes as they stood are in the log' slow.d/0-test_slow.sh/test.log 'sleep 2000[.]2'
fi
has 'the other file is none the worse' out '^good/test_good.sh +PASS'
ok 'who ignores TERM is killed, children included' gone 'sleep 2000[.]2'

# macOS takes -g for a group, the BSDs have none.
echo 'case " $* " in *" -g "*) exit 1 ;; esac; exec '"$(command -v ps)"' "$@"' | script bin/ps
cat <<'END' | script slow2/test_slow.sh
setsid sh -c 'sleep 2000.21 & echo $! >stray; wait' &
until ps -A -o args | grep -v grep | grep -q '^sleep 2000[.]21'; do sleep 0.02; done
sleep 2000.22
END
PATH=$dir/bin:$PATH run -t 1 --grace=0.3 slow2 -d slow2.d
end_stray
if have ps && have setsid; then
	has 'also with a ps that knows no -g' slow2.d/0-test_slow.sh/test.log 'sleep 2000[.]22'
	has 'and those that left its session' slow2.d/0-test_slow.sh/test.log 'sleep 2000[.]21'
fi

# What a test leaves behind.
echo 'sleep 2000.3 & exit 0' | script leak/test_leak.sh
run leak
is 'a leak passes by default' $status 0
if [ -r "/proc/$$/task/$$/children" ]; then
	has 'and is named' out 'left running by the test, stopped: [0-9]+ sleep 2000.3'
	run --leak=fail leak
	has 'leak = fail makes it a failure' out 'FAIL  leak/test_leak.sh'
	echo 'sleep 0.05 & exit 0' | script leak/test_leak.sh
	run --leak=fail leak
	is 'what ends by itself in time is not named' "$(grep -c -e FAIL -e 'left running' out)" \
		$((status * 4))
	# The shell in the middle ends, so that nobody but prun can know of the sleep.
	echo 'setsid sh -c "setsid sleep 2000.35 & echo \$! >stray; exit 0"
	until ps -A -o args | grep -v grep | grep -q "^sleep 2000[.]35"; do sleep 0.05; done' | script daemon/test_d.sh
	run daemon
	end_stray
	has 'a daemon that leaves its session is killed and named' out 'had left its session, killed: [0-9]+ .*sleep 2000.35'
fi
ok 'it is stopped' gone 'sleep 2000[.]3'

# Who was orphaned and dies is no zombie for as long as the test runs.
cat <<'END' | script orphan/test_orphan.sh
sh -c 'sleep 2000.36 & echo $! >orphan.pid'
kill "$(cat orphan.pid)"
n=0
while kill -0 "$(cat orphan.pid)" 2>/dev/null; do
	[ $((n += 1)) -lt 100 ] || exit 1
	sleep 0.02
done
END
run orphan
is 'a daemon that a test has killed is gone' $status 0

# A log that grows and grows.
echo 'while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done' | script big/test_big.sh
run --log-limit=1M big
has 'output beyond log-limit ends a test' out 'FAIL  big/test_big.sh'
has 'and is told as that' out 'wrote more than 1048576 bytes'

# Cancelled by a signal: prun dies of it, its report written.
echo 'trap "" TERM; : >"$STARTED"; sleep 2000.4; sleep 2000.4' | script sig/test_1.sh
echo 'exit 0' | script sig/test_2.sh
STARTED=$dir/started
export STARTED
cancel() {
	sig=$1
	rm -f started sig.xml
	# A shell ignores INT and QUIT in what it puts in the background, nohup HUP.
	"${PERL:-perl}" -e '$SIG{INT} = $SIG{QUIT} = $SIG{HUP} = "DEFAULT"; exec @ARGV' "$PRUN" -j1 -o sig.xml \
		--after 'echo after >>after.out' sig >out 2>err &
	pid=$!
	await test -e started
	kill -"$sig" $pid
	[ $# -lt 2 ] || { sleep 0.2; kill -"$sig" $pid; }
	wait $pid
	status=$?
}
if have perl; then
	rm -f after.out
	for sig in INT QUIT TERM HUP; do
		cancel $sig
		is "after $sig it dies of $sig" "$(kill -l $status)" $sig
		has 'it says that it stops' out 'stopping; once more kills at once'
		has 'the files are cancelled' out '^2 files: 0 passed, 2 cancelled'
		has 'the report is written' sig.xml 'prun.cancelled'
		ok 'nothing is left' gone 'sleep 2000[.]4'
	done
	is 'after runs for what was cancelled, too' "$(sort -u after.out)" after
	took() { sed -n 's/^2 files: 0 passed, 2 cancelled *\([0-9.]*\)s.*/\1/p' out; }
	once=$(took)
	cancel INT twice
	ok 'the second signal kills at once, the first one waits' \
		awk -v once="$once" -v twice="$(took)" 'BEGIN { exit !(twice < once) }'
	ok 'and leaves nothing' gone 'sleep 2000[.]4'
else
	skip 'no perl' 'it dies of the signal'
fi

# However it was started.
echo 'kill -INT $$; exit 0' | script int/test_int.sh
echo 'kill -QUIT $$; exit 0' | script int/test_quit.sh
echo 'kill -HUP $$; exit 0' | script hup/test_hup.sh
(trap '' INT QUIT; exec "$PRUN" int) >out 2>err
is 'tests have INT and QUIT, also where prun ignores them' \
	"$(grep -Ec 'killed by signal [23] ' out)" 2
(trap '' HUP; exec "$PRUN" hup) >out 2>err
is 'under nohup tests are deaf to HUP, too' $? 0
echo 'sleep 0.5' | script slowly/test_1.sh
if env --block-signal=CHLD true 2>/dev/null; then
	timeout -s KILL 20 env --block-signal=CHLD,TERM \
		"$PRUN" --setup "sleep 0.3" slowly >out 2>err
	is 'signals that were blocked at the start hang nothing' $? 0
else
	skip 'no env --block-signal' 'signals that were blocked at the start hang nothing'
fi

# Before there is a run, and where there is none, signals end prun as they end any program.
mkfifo full
exec 5<>full
for i in 1 2 3 4 5 6 7 8 9 a b c; do for j in 0 1 2 3 4 5 6 7 8 9; do for k in 0 1 2 3 4 5 6 7 8 9; do
	echo "long/$i$j$k-and-a-name-that-fills-the-pipe-soon-enough/test_1.sh"
done; done; done >names
xargs -n 100 dirname <names | xargs mkdir -p
while read -r name; do ln good/test_good.sh "$name"; done <names
"$PRUN" -n long >full 5>&- &
pid=$!
dd bs=1 count=1 <&5 >/dev/null 2>&1      # it has begun to write, and will not end
kill -TERM $pid
ended() { ! ps -o stat= -p $pid | grep -qv Z; }
ok 'TERM ends prun -n whose reader has stopped' await ended
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
exec 5>&-

# No signal is lost between two looks.
# shellcheck disable=SC2046
if ${CC:-cc} -std=c99 -o caught "$top/t/caught.c" $(rooms) ${LDLIBS-}; then
	ok 'each of 20,000 signals is told of' ./caught 20000
fi

# prun itself is killed.
for i in 1 2; do
	rm -f started
	"$PRUN" -j2 --grace=30 sig >out 2>&1 &
	pid=$!
	await test -e started
	kill -9 $pid
	wait $pid 2>/dev/null
	ok "kill -9 of prun leaves nothing, try $i" await gone 'sleep 2000[.]4'
done

# It is killed while it, or its workers, are stopped.
is_stopped() { ! ps -o stat= -p "$1" | grep -qv T; }
# Whoever inherits an orphan may leave it a zombie for a while.
is_dead() { ! ps -o stat= -p "$1" | grep -qv Z; }
children_of() { ps -A -o pid= -o ppid= | awk -v p="$1" '$2 == p { print $1 }'; }
for what in prun workers; do
	rm -f started
	"$PRUN" -j2 --grace=30 sig >out 2>&1 &
	pid=$!
	await test -e started
	workers=$(children_of $pid)
	case $what in
	prun) kill -TSTP $pid && await is_stopped $pid ;;
	# shellcheck disable=SC2086
	workers) kill -STOP $workers && for w in $workers; do await is_stopped "$w"; done ;;
	esac
	kill -9 $pid
	wait $pid 2>/dev/null
	if [ "$(uname)" = Linux ]; then
		ok "kill -9 of prun leaves nothing where $what had been stopped" await gone 'sleep 2000[.]4'
		for w in $workers; do await is_dead "$w" || echo "$w"; done >workers.left
		is 'nor a worker' "$(cat workers.left)" ''
	else
		skip 'only Linux wakes them' "kill -9 of prun leaves nothing where $what had been stopped"
		# shellcheck disable=SC2086
		kill -CONT $workers 2>/dev/null
	fi
done

# A worker is killed.
echo 'kill -9 $(ps -o ppid= -p $$); sleep 2000.5' | script worker/test_1.sh
echo 'exit 0' | script worker/test_2.sh
run -j1 worker -d worker.d
is 'the death of a worker costs one file' "$(grep -c '^worker/test_2.sh *PASS' out)" 1
has 'which is an ERROR' out '^worker/test_1.sh +ERROR'
has 'that says why' out 'the worker died: killed by signal 9'
has 'and has its cause in the results' worker.d/results.jsonl '"cause":"prun.worker-died"'
ok 'its test is gone' gone 'sleep 2000[.]5'
for i in 2 3 4 5 6; do cp worker/test_1.sh worker/test_$i.sh; done
run -j1 worker
is 'too many deaths end the run with status 3' $status 3
has 'and it says so' out 'too many workers died'

# Nobody reads us.
echo 'sleep 0.2' | script many/test_1.sh
for i in 2 3 4 5 6 7 8; do cp many/test_1.sh many/test_$i.sh; done
("$PRUN" -j1 many; echo $? >pipe.status) 2>err | head -n 1 >/dev/null
is 'prun | head -n 1 ends by SIGPIPE' "$(kill -l "$(cat pipe.status)")" PIPE

# A shell that has a job of its own becomes prun.
sh -c 'sleep 2000.6 >/dev/null 2>&1 & echo $! >job; exec "$@"' sh "$PRUN" -q -j8 many >out 2>err &
pid=$!
ok 'prun does not wait for a job of the shell that it was' await is_dead $pid
kill "$(cat job)"
wait $pid
is 'and ends as it would' $? 0
finish
