#!/bin/sh
# Services and ports: a stack of several processes for each file.
. "${0%/*}/lib.sh"
[ -x "$APP" ] || skip_all 'no demo app (make t/demo/app)'

printf 'one\n' >data
cat <<'END' | script worker.sh
until [ -e "$PRUN_DIR/stop.$1" ]; do sleep 0.05; done
echo "worker $1 gives up"
exit 7
END
cat >prun.conf <<END
ports = STORE_PORT QUEUE_PORT
service = store $APP \$STORE_PORT data
  >>"\$PRUN_DIR/order" 2>&1; echo store >>"\$PRUN_DIR/order"
service = jobs exec ./worker.sh \$STORE_PORT
service = queue@QUEUE_PORT $APP "\${QUEUE_PORT}" data
server = $APP \$PRUN_PORT data
ready = http /items
grace = 2s
END
cat <<END | script t/test_stack.sh
for port in \$STORE_PORT \$QUEUE_PORT \$PRUN_PORT; do
	"$HTTP" GET "http://localhost:\$port/count" || exit 1
	echo \$port >>"\$PORTS"
done
for log in store jobs queue server; do [ -e "\$PRUN_DIR/\$log.log" ] || exit 2; done
END
for i in 1 2 3 4 5 6 7; do cp t/test_stack.sh t/test_$i.sh; done
PORTS=$dir/ports
export PORTS
run -j8 t
is 'eight files at once, each with a store, a worker, a queue and a server' \
	"$status $(grep -c PASS out)" '0 16'
is 'each on ports of its own' "$(sort -u ports | wc -l | tr -d ' ')" 24
ok 'nothing of it is left' gone "$APP|worker.sh"

# Death, by name, with the end of its log.
echo ': >"$PRUN_DIR/stop.$STORE_PORT"; exec sleep 3400.1' | script die/test_die.sh
run -d die.d die
has "the test's status is that of its end" die.d/results.jsonl '"status":-15,'
has 'a worker that dies in mid-test is told by name' out 'service jobs died during the test: exit status 7 \(prun.server-died\)'
has "with its log's end" out '\| worker [0-9]+ gives up'
has 'and where it is' out '^    jobs log  */.*/jobs.log$'
has 'so are the other logs' out '^    queue log  */.*/queue.log$'
ok 'and the others are gone' gone "$APP|worker.sh|sleep 3400"
echo 'echo "no broker"; exit 3' | script dies.sh
run --service 'broken ./dies.sh' t/test_1.sh
has 'one that dies at once is told by name' out 'service broken died before it was ready: exit status 3'
has 'it is tried once more, and nobody asks about a port' out 'service broken died at once; tried once more$'
has 'with the end of its log, too' out '\| no broker'
is 'that is status 3' $status 3
run --service 'store sleep 3400.2' --service 'mute@STORE_PORT sleep 3400.3' --ready-timeout=0.3s t/test_1.sh
has 'one that does not listen is told by name' out 'service mute is not ready after 0.3s \(ready-timeout\): nothing listens on port'
ok 'and what was started before it is gone' gone 'sleep 3400'
run --ports 'A A_B' --service "a $APP \$A_B data" --service "b $APP \${A} data" --server none t/test_1.sh
has 'a service is awaited on the port that its command names' out 'FAIL  t/test_1.sh'

# Stopped in reverse.
cat <<'END' | script traps.sh
trap 'echo "$1" >>"$STOPS"; exit 0' TERM
echo "$1" >>"$STARTS"
while :; do sleep 0.02; done
END
echo 'until [ "$(wc -l <"$STARTS")" -ge 3 ]; do sleep 0.02; done' | script r/test_r.sh
STOPS=$dir/stops STARTS=$dir/starts
export STOPS STARTS
: >starts
run --service 'a ./traps.sh a' --service 'b ./traps.sh b' --server './traps.sh server' --ready none r
is 'they are stopped in reverse' "$status $(tr '\n' ' ' <stops)" '0 server b a '

# What it must look like.
for bad in 'Upper x' 'test x' 'a' 'a@NOPE x' '@A x'; do
	run --service "$bad" t
	is "service = $bad is bad usage" "$status $(grep -c 'service =' err)" '2 1'
done
run --service 'a x' --service 'a y' t
has 'so is one that is there twice' err 'service = a is there twice'

# A real one: a store, a worker that waits for jobs in it, and a web server.
if have redis-server && have redis-cli; then
	cat <<-'END' | script real/test_1.sh
	redis() { redis-cli -p "$REDIS_PORT" "$@"; }
	[ "$(redis incr "$PRUN_FILE")" = 1 ] && [ "$(redis dbsize)" = 1 ] || exit 1
	"$HTTP" GET "$PRUN_URL/count" || exit 2
	redis rpush jobs "$PRUN_FILE"
	[ "$(redis blpop done 10 | tail -n 1)" = "did $PRUN_FILE" ] || exit 3
	END
	for i in 2 3 4 5 6 7 8; do cp real/test_1.sh real/test_$i.sh; done
	cat <<-'END' | script jobs.sh
	job=$(redis-cli -p "$1" blpop jobs 0 | tail -n 1)
	redis-cli -p "$1" rpush done "did $job"
	exec sleep 3400.4
	END
	HTTP=$HTTP
	export HTTP
	run -j8 -d real.d --keep always --ports REDIS_PORT --server "$APP \$PRUN_PORT data" --service \
		'redis cd "$PRUN_DIR" && exec redis-server --port $REDIS_PORT --save "" --logfile ""' \
		--service 'jobs exec ./jobs.sh ${REDIS_PORT}' real
	is 'eight files at once, each with Redis, a worker and a web server' "$status $(grep -c PASS out)" '0 16'
	ok 'none is left' gone 'redis-server|jobs.sh|sleep 3400'
	for log in redis jobs server test; do
		is "results.jsonl names the $log log of each attempt" "$(grep -c "\"logs\":.*$log.log" real.d/results.jsonl)" 8
	done
else
	skip 'no redis' 'eight files at once, each with Redis, a worker and a web server' 'none is left'
fi

# However a run ends, and whatever it is for.
echo '[ $PRUN_ATTEMPT = 2 ]' | script again/test_1.sh
UP=$dir/up
export UP
run -r 1 again
is 'a retry has a stack of its own' "$status $(grep -c FLAKY out)" '0 2'
run --audit=1 -j2 again/test_1.sh t/test_1.sh
has 'an audit, too' out '^1 safe, 0 unsafe, 1 broken$'
run -x again t
has '-x ends the stacks of all' out 'stopping after 1 failing file'
ok 'and nothing is left' gone "$APP|worker.sh"
run -i t/test_1.sh
is 'one file with -i has its stack' $status 0
echo 'trap "exit 3" TERM; sleep 3400.5 & : >"$UP"; wait' | script hang/test_1.sh
for sig in TERM KILL; do
	rm -f up
	"$PRUN" -d hang.d hang >out 2>err &
	await test -e up
	kill -$sig $!
	wait $! 2>/dev/null
	[ $sig = KILL ] || has 'what the test exits with then is told' hang.d/results.jsonl '"result":"CANCEL".*"status":3,'
	ok "$sig leaves nothing of a stack" await gone "$APP|worker.sh|sleep 3400"
done

# --reopen starts them, too.
echo 'exit 1' | script t/test_1.sh
run t/test_1.sh
attempt=$(dirname "$(sed -n 's/^ *test log  *//p' out)")
"$PRUN" --reopen "$attempt" >reopened 2>&1 &
await grep -q '^.C stops it' reopened
. "$attempt/env"
ok '--reopen starts the services' "$HTTP" GET "http://localhost:$QUEUE_PORT/count"
kill -TERM $!
wait $!
ok 'and ends them' gone "$APP|worker.sh"
finish
