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
while [ $((i += 1)) -le 16 ]; do echo 'sleep 0.1' | script "t/test_$i.sh"; done

for way in ${ways:-libpq}; do
	[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }
	await idle
	run -j8 --db "$url" t
	is "$way: 53300: with six connections all files pass at -j8" \
		"$status $(grep -o '^16 files: 16 passed' out) $(databases)" '0 16 files: 16 passed app '
	has 'fewer at once, which is said' out '^prun: the database server has no connection left: 3 at once'
	sql 'ALTER ROLE app CONNECTION LIMIT 0'
	await idle
	run -j4 --db "$url" t/test_1.sh t/test_2.sh
	is '53300: where there is none at all the run fails' "$status" 3
	has 'and says why' out 'too many connections for role "app"; raise max_connections, or lower jobs'
	sql 'ALTER ROLE app CONNECTION LIMIT -1'
done
unset PRUN_LIBPQ

finish
