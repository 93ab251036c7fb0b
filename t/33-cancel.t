#!/bin/sh
# A CREATE DATABASE that is no longer wanted: cancelled, its worker killed, its server
# frozen, its psql stopped.
own_pg='#'
. "${0%/*}/lib.sh"
use_postgres
sql 'CREATE DATABASE app'
app=$server/app
echo 'touch up; exec sleep 3000.4' | script t/test_a.sh

creating() { [ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'CREATE DATABASE%'")" = "${1:-1}" ]; }
# A session on the template, so that CREATE waits for it, five seconds at most.
sit() {
	psql -XAtq "$app" -c 'SELECT pg_sleep(60)' >/dev/null 2>&1 &
	sitter=$!
	await sitting
}
sitting() { [ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND query LIKE '%sleep%'")" = 1 ]; }
leave() {
	sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app'" >/dev/null
	wait $sitter 2>/dev/null
}
# begin: a run whose CREATE waits; its number is $run
begin() {
	rm -f up
	sit
	"$PRUN" -v --grace=0.2 --db "$app" --db-terminate=no "$@" t/test_a.sh >out 2>err &
	run=$!
	await creating
}
workers() { ps -A -o pid= -o ppid= | awk -v p=$run '$2 == p { print $1 }'; }
frozen() { echo "$postmaster"; ps -A -o pid= -o ppid= | awk -v p="$postmaster" '$2 == p { print $1 }'; }

for way in ${ways:-libpq}; do
	[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }
	begin
	kill -TERM $run
	leave                   # now CREATE could go on
	wait $run 2>/dev/null
	await creating 0
	is "$way: a CREATE that is cancelled leaves no clone" "$(databases)" 'app '

	begin
	kill -9 $(workers)
	leave
	wait $run
	await creating 0
	is "$way: nor does one whose worker is killed" "$? $(databases)" '0 app '
	has "$way: its file is in error" out 'prun.worker-died'

	begin
	postmaster=$(head -n 1 "$PRUN_TEST_PGDATA/postmaster.pid")
	# shellcheck disable=SC2046
	kill -STOP $(frozen)
	before=$(date +%s)
	kill -TERM $run
	wait $run 2>/dev/null
	ok "$way: a frozen server does not hold up the end of a run" test $(($(date +%s) - before)) -le 8
	# shellcheck disable=SC2046
	kill -CONT $(frozen)
	leave
	await creating 0
	for db in $(databases); do [ "$db" = app ] || sql "DROP DATABASE $db"; done
done

# psql hangs (it may be held by a debugger).
PRUN_LIBPQ=none
export PRUN_LIBPQ
rm -f up
"$PRUN" -v --grace=0.2 --db "$app" t/test_a.sh >out 2>err &
run=$!
await test -e up
psql=$(ps -A -o pid= -o ppid= -o args= | awk -v w="$(workers)" '$2 == w && /psql/ { print $1 }')
kill -STOP $psql
kill -TERM $run
wait $run
is 'a psql that does not end is killed' "$? $(ps -p "${psql:-1}" -o pid=)" '143 '
lacks 'and no worker dies of it' out 'worker died|worker-died'
finish
