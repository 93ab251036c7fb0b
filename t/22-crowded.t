#!/bin/sh
# A server with few connections: fewer files at once.
own_pg='max_connections = 6
max_wal_senders = 0'
. "${0%/*}/lib.sh"
use_postgres
idle() { [ -z "$(sql "SELECT 1 FROM pg_stat_activity WHERE usename = 'app'")" ]; }
sql 'CREATE ROLE app LOGIN CREATEDB'
sql 'CREATE DATABASE app OWNER app'
url=$(echo "${PRUN_TEST_PG%/postgres}/app" | sed 's/postgres@/app@/')
i=0
while [ $((i += 1)) -le 16 ]; do echo 'sleep 0.1; echo "$PRUN_WORKER" >>workers' | script "t/test_$i.sh"; done

for way in ${ways:-libpq}; do
	[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }
	await idle
	run -j8 --db "$url" t
	is "$way: 53300: with six connections all files pass at -j8" \
		"$status $(grep -o '^16 files: 16 passed' out) $(databases)" '0 16 files: 16 passed app '
	has 'fewer at once, which is said' out '^prun: the database server has no connection left: 3 at once'
	await idle
	run -j2 --ahead 6 --db "$url" t
	is "$way: so they do with stacks ahead" "$status $(grep -o '^16 files: 16 passed' out) $(databases)" \
		'0 16 files: 16 passed app '
	lacks 'of which there are fewer, without a word' out 'connection left'
	sql 'ALTER ROLE app CONNECTION LIMIT 0'
	await idle
	run -j4 --db "$url" t/test_1.sh t/test_2.sh
	is '53300: where there is none at all the run fails' "$status" 3
	has 'and says why' out 'too many connections for role "app"; raise max_connections, or lower jobs'
	sql 'ALTER ROLE app CONNECTION LIMIT -1'
done
unset PRUN_LIBPQ

# most OPTIONS...: the highest worker that auto has made.
most() {
	rm -f workers
	run -j3 --ahead auto --server 'sleep 0.3; echo up; exec sleep 60' --ready 'log ^up' "$@" t
	sort -n workers | tail -n 1
}
ok 'auto grows while stacks are waited for' test "$(most)" -gt 3
await idle
is "and stops at 70% of the server's connections" "$(most --db "$server/app")" 3

finish
