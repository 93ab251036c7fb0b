#!/bin/sh
# Databases behind a pooler, and from a static binary.
. "${0%/*}/lib.sh"
have psql || skip_all 'no psql'
[ "${PRUN_TEST_PGDATA-}" ] || skip_all 'no PostgreSQL of our own (t/with-pg starts one)'

app=pooled_$$
databases() { sql "SELECT replace(datname, '$app', 'app') FROM pg_database WHERE datname LIKE '$app%' ORDER BY 1" | tr '\n' ' '; }
sql "CREATE ROLE $app LOGIN CREATEDB"
sql "CREATE DATABASE $app OWNER $app"
direct=$(echo "${PRUN_TEST_PG%/postgres}/$app" | sed "s/postgres@/$app@/")
port=${PRUN_TEST_PG##*:}
port=${port%/*}
echo 'exit 0' | script t/test_a.sh

if have pgbouncer; then
	room=${PRUN_TEST_PGDATA%/data}/$app   # where its user may go
	mkdir "$room"
	# Other poolers may be tried on this machine at the same time: is it ours that answers?
	ours() { kill -0 "$bouncer" && [ "$(psql -XAtq "$pooled" -c 'SHOW port')" = "$port" ]; }
	tries=0
	while [ $((tries += 1)) -le 9 ]; do
		pool=$("$top/t/port")
		pooled=postgresql://$app@127.0.0.1:$pool/$app
		cat >"$room/ini" <<-END
		[databases]
		* = host=127.0.0.1 port=$port user=$app
		[pgbouncer]
		listen_addr = 127.0.0.1
		listen_port = $pool
		unix_socket_dir =
		auth_type = any
		pool_mode = transaction
		default_pool_size = 1
		logfile = $room/log
		pidfile = $room/pid
		ignore_startup_parameters = extra_float_digits
		END
		chmod -R a+rwX "$room"
		if [ "$(id -u)" = 0 ]; then
			setpriv --reuid postgres --regid postgres --clear-groups pgbouncer -q "$room/ini" &
		else
			pgbouncer -q "$room/ini" &
		fi
		bouncer=$!
		await ours && break
		kill "$bouncer"
		wait "$bouncer"
	done
	cat <<-'END' | script pooled/test_1.sh
	psql -XAtq "$DATABASE_URL" -c 'CREATE TABLE t (n int)' -c 'SELECT current_database()' >db
	END
	cp pooled/test_1.sh pooled/test_2.sh
	run -j2 --db "$pooled" --db-admin "$direct" --db-unused=fail pooled
	is 'behind a pooler, with db-admin around it, all is well, and that the clones were used is known' "$status $(databases)" '0 app '
	has 'the test has the clone through the pooler' db "^${app}_w[01]_[0-9a-z]{8}\$"
	run -j1 --db "$pooled" t/test_a.sh
	is 'without db-admin it is refused' "$status $(grep -c 'goes through a pooler.*set db-admin to the URL' out)" '3 1'
	PRUN_LIBPQ=none "$PRUN" -j1 --db "$pooled?pgbouncer=true" t/test_a.sh >out 2>&1
	has 'through psql, which cannot tell, pgbouncer=true is warned of' out 'set db-admin to the server'
	kill $bouncer
	wait $bouncer
else
	skip 'no pgbouncer' 'behind a pooler, with db-admin around it, all is well, and that the clones were used is known' \
		'the test has the clone through the pooler' 'without db-admin it is refused' \
		'through psql, which cannot tell, pgbouncer=true is warned of'
fi

if have musl-gcc && musl-gcc -static -O0 -o prun-static "$top"/*.c 2>/dev/null; then
	./prun-static -j2 --db "$direct" t/test_a.sh >out 2>&1
	is 'a static musl binary uses psql' "$? $(databases)" '0 app '
else
	skip 'no musl-gcc' 'a static musl binary uses psql'
fi
for db in $(sql "SELECT datname FROM pg_database WHERE datname LIKE '$app%'"); do
	sql "DROP DATABASE $db"
done
sql "DROP ROLE $app"
finish
