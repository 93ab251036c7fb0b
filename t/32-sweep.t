#!/bin/sh
# Living and dead: no run drops the clone of another run that is alive, whatever
# becomes of its lock; what dead ones left is dropped.
if [ ! "${OWN_PG-}" ]; then
	OWN_PG=yes
	export OWN_PG
	unset PRUN_TEST_PG
	exec "${0%/*}/with-pg" "$0"
fi
. "${0%/*}/lib.sh"
have psql || skip_all 'no psql'
[ "${PRUN_TEST_PG-}" ] || skip_all 'no PostgreSQL (t/with-pg starts one)'
sql() { psql -XAtq "$PRUN_TEST_PG" -c "$1"; }
server=${PRUN_TEST_PG%/postgres}
databases() { sql "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1" | tr '\n' ' '; }
count() { databases | wc -w | tr -d ' '; }
port=${PRUN_TEST_PG##*:}
port=${port%/*}
ctl() { (
	cd / || exit
	set -- pg_ctl -D "$PRUN_TEST_PGDATA" -w -o "-p $port" -l "$PRUN_TEST_PGDATA/../log" "$@"
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid postgres --regid postgres --clear-groups "$@"
	else
		"$@"
	fi
) >/dev/null 2>&1; }
sql 'CREATE DATABASE app'
sql 'CREATE ROLE idler LOGIN SUPERUSER'
[ "$(sql 'SHOW server_version_num')" -lt 140000 ] || sql "ALTER ROLE idler SET idle_session_timeout = '500ms'"
sql "ALTER ROLE idler SET statement_timeout = '50ms'"
sql "ALTER ROLE idler SET lock_timeout = '10ms'"
idler=$(echo "$server/app" | sed 's/postgres@/idler@/')
echo 'exit 0' | script t/test_a.sh
cat <<'END2' | script t/test_wait.sh
touch "up$PRUN_INDEX"
until [ -e go ]; do sleep 0.05; done
psql -XAtq "$PRUN_DB_URL" -c 'SELECT 1' >"seen$PRUN_INDEX"
END2
locked() { [ "$(sql "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1886549358")" -ge "${1:-1}" ]; }

for way in ${ways:-libpq psql}; do
	[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }
	# The role's settings would end the session that holds the lock.
	rm -f up0 go seen0
	"$PRUN" -v --db "$idler" t/test_wait.sh >first.out 2>&1 &
	await test -e up0
	sleep 1 # more than the role's idle_session_timeout
	ok "$way: a role's idle_session_timeout does not end the session with the lock" locked
	run -v --db "$idler" t/test_a.sh
	is "$way: a second run passes and leaves the first one's clone alone" "$status $(count)" '0 2'
	touch go
	wait $!
	is "$way: the first one passes" "$? $(cat seen0) $(databases)" '0 1 app '

	# The server dies: the session with the lock is gone, and comes back by itself.
	rm -f up0 go seen0
	"$PRUN" -v --db "$server/app" t/test_wait.sh >first.out 2>&1 &
	await test -e up0
	ctl -m immediate restart
	run -v --db "$server/app" t/test_a.sh
	is "$way: after a crash of the server a second run passes, and drops nothing of the first" "$status $(count)" '0 2'
	ok "$way: the first one has its lock again" locked
	touch go
	wait $!
	is "$way: and passes" "$? $(cat seen0) $(databases)" '0 1 app '

	# Killed, prun and its workers: nobody is left to drop the clone.
	rm -f up0 go
	"$PRUN" --db "$server/app" t/test_wait.sh >first.out 2>&1 &
	await test -e up0
	kill -9 $! $(ps -A -o pid= -o ppid= | awk -v p=$! '$2 == p { print $1 }')
	wait $! 2>/dev/null
	await not locked
	touch go
	is "$way: a run that is killed with all its workers leaves its clone" "$(count)" 2
	run --db "$server/app" t/test_a.sh
	is "$way: the next run drops it" "$status $(databases)" '0 app '
	has "$way: but not at once, and says why" out '^prun: waiting 5s before dropping databases'
	has "$way: and names it" out '^prun: dropped app_w0_[0-9a-z]{8} \(left by a dead run'
	run --db "$server/app" t/test_a.sh
	lacks "$way: a run that finds none does not wait" out 'waiting 5s'
done
finish
