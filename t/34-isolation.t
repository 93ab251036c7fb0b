#!/bin/sh
# Isolation is proven: whether the clone was used at all; what a hang was about; what
# a clone has of its template.
own_pg='log_statement = ddl'
. "${0%/*}/lib.sh"
use_postgres
as() { echo "$server/$2" | sed "s/postgres@/$1@/"; }
version=$(sql 'SHOW server_version_num')
sql 'CREATE DATABASE app'
app=$server/app
psql -Xq "$app" -c 'CREATE TABLE t (n int)'
sql 'CREATE ROLE creator LOGIN CREATEDB'
sql 'CREATE ROLE stranger LOGIN'
sql 'CREATE ROLE "odd ""role" LOGIN'
echo 'psql -XAtq "$DATABASE_URL" -c "SELECT 1"' | script t/test_own.sh
echo 'exec psql -XAtq "$OTHER_URL" -c "SELECT 1"' | script t/test_other.sh
OTHER_URL=$app
export OTHER_URL

for way in ${ways:-libpq}; do
	[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }
	if [ "$version" -ge 140000 ]; then
		run -v --db "$app" t/test_other.sh
		is "$way: a test that ignores its database passes" $status 0
		has "$way: but that is said" out '^warning: no test connected to its database; does the server read DATABASE_URL\?$'
		has "$way: and of the file" out 'nobody has connected to its database app_w0_[0-9a-z]{8}: does the server read DATABASE_URL\?'
		run --db "$app" t/test_other.sh
		lacks "$way: without -v only of the suite" out 'nobody has connected'
		run -d run --db "$app" --db-env 'A_URL B_URL' --db-unused=fail t
		is "$way: db-unused = fail: it fails" "$status $(grep -c 'FAIL\|ERROR' out)" '1 4'
		run -d run --db "$app" --db-unused=fail t
		has "$way: db-unused = fail: only the file that did not connect" out '^2 files: 1 passed, 1 '
		has "$way: with its cause" out 'nobody has connected to its database app_w0_.*\(prun.database\)'
		has "$way: results.jsonl says so" run/results.jsonl '"test_other.sh".*"database_used":"no"|t/test_other.sh.*"database_used":"no"'
		has "$way: and of the other one" run/results.jsonl 't/test_own.sh.*"database_used":"yes"'
		run -q --clean --db "$app"
		run --db "$app" t
		lacks "$way: where one file connects, nothing is said of its suite" out 'no test connected'

		# An app that has the template's URL in its code.
		cat <<-'END2' | script code/test_code.sh
		psql -XAtq "$DATABASE_URL" -c 'SELECT 1'
		PGAPPNAME='the app' psql -XAtq "$OTHER_URL" -c 'SELECT pg_sleep(60)' >/dev/null 2>&1 &
		until [ "$(psql -XAtq "$DATABASE_URL" -c "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the app'")" = 1 ]; do sleep 0.05; done
		END2
		run --leak=note -v --db "$app" code
		has "$way: a session on the template that began meanwhile is named" out \
			'a session on the template app began during the attempt: pid [0-9]+, user postgres, the app, 127[.]0[.]0[.]1$'
		run -v --db "$app" t/test_own.sh
		lacks "$way: one that did not is not" out 'on the template'
	else
		skip 'PostgreSQL before 14' "$way: whether a clone was used"
	fi

	# Two sessions that block each other, while another test waits as long.
	cat <<-'END2' | script hang/test_hang.sh
	psql -Xq "$DATABASE_URL" -c 'BEGIN; LOCK TABLE t' -c 'SELECT pg_sleep(60) AS holds_it' &
	until [ "$(psql -XAtq "$DATABASE_URL" -c "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'")" = 1 ]; do sleep 0.1; done
	psql -Xq "$DATABASE_URL" -c 'INSERT INTO t VALUES (42)'
	END2
	rm -rf run
	sql 'CREATE DATABASE hung TEMPLATE app'
	"$PRUN" -d run -t 4s --grace 1s --db "$server/hung" hang >/dev/null 2>&1 &

	# Somebody whom we may not end sits on the template.
	sql 'ALTER DATABASE app OWNER TO creator'
	psql -XAtq "$(as stranger app)" -c 'SELECT pg_sleep(60)' >/dev/null 2>&1 &
	await sh -c "[ \"\$(psql -XAtq '$PRUN_TEST_PG' -c \"SELECT count(*) FROM pg_stat_activity WHERE usename = 'stranger'\")\" = 1 ]"
	before=$(date +%s)
	run -v --db "$(as creator app)" t/test_own.sh
	is "$way: a session of another role, which may not be ended, gives status 3" $status 3
	has "$way: and is named" out 'there is a session on app: pid [0-9]+, user stranger'
	ok "$way: after one wait of five seconds" test $(($(date +%s) - before)) -lt 10
	sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'stranger'" >/dev/null
	wait
	has "$way: a time-out lists the sessions of the clone" run/0-test_hang.sh/test.log 'holds_it'
	has "$way: with what they wait for and who blocks them" run/0-test_hang.sh/test.log \
		'pid [0-9]+, user postgres, psql, 127[.]0[.]0[.]1, active, waits for Lock relation, blocked by [0-9]+, for 00:00:0'
	has "$way: and their queries" run/0-test_hang.sh/test.log 'INSERT INTO t VALUES \(42\)'
	sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'hung_w%'" >/dev/null
	run -q --clean --db "$server/hung"
	sql 'DROP DATABASE hung WITH (FORCE)'
	sql 'ALTER DATABASE app OWNER TO postgres'

	# Two checkouts with one template and different migrations.
	migrate() { echo "psql -Xq '$app' -c 'DROP TABLE IF EXISTS v1' -c 'DROP TABLE IF EXISTS v2' -c 'CREATE TABLE $1 (n int)'"; }
	echo 'touch up; until [ -e go ]; do sleep 0.05; done; psql -XAtq "$DATABASE_URL" -c "\\dt" >tables$PRUN_INDEX' | script two/test_1.sh
	cp two/test_1.sh two/test_2.sh
	rm -f up go tables*
	"$PRUN" -j1 --db "$app" --setup "$(migrate v1)" two >first.out 2>&1 &
	await test -e up
	run --db "$app" --setup "$(migrate v2)" t/test_own.sh
	is "$way: a second run with another setup passes" $status 0
	touch go
	wait $!
	is "$way: the first run's later clones are as its own setup left the template" \
		"$? $(grep -c v1 tables0) $(grep -c v1 tables1) $(databases)" '0 1 1 app '

	# How it is copied.
	if [ "$version" -ge 150000 ]; then
		for strategy in wal_log file_copy; do
			run --db "$app" --db-strategy $strategy t/test_own.sh
			has "$way: db-strategy = $strategy" "$PRUN_TEST_PGDATA/../log" "statement: CREATE DATABASE \"app_w0.*STRATEGY $strategy"
		done
	else
		skip 'PostgreSQL before 15' "$way: db-strategy"
	fi
	if [ "$version" -ge 180000 ]; then
		sql 'ALTER SYSTEM SET file_copy_method = clone'
		sql 'SELECT pg_reload_conf()' >/dev/null
		run --db "$app" t/test_own.sh
		is "$way: file_copy_method = clone is used by itself" "$status $(grep 'statement: CREATE DATABASE' \
			"$PRUN_TEST_PGDATA/../log" | tail -n 1 | grep -c 'STRATEGY file_copy')" '0 1'
		sql 'ALTER SYSTEM RESET file_copy_method'
	fi

	# What Django makes of a clone.
	echo 'for x in "" _gw0 _12; do psql -Xq "$DATABASE_URL" -c "CREATE DATABASE \"test_$PRUN_DB$x\""; done' | script dj/test_dj.sh
	sql 'CREATE DATABASE test_app'
	run --db "$app" dj
	is "$way: databases test_CLONE and test_CLONE_gwN go with the clone, others stay" "$status $(databases)" '0 app test_app '
	sql 'DROP DATABASE test_app'

	# The env file serves psql, whatever driver the URL is for.
	echo 'exit 1' | script env/test_env.sh
	for db in "$app" "postgresql+asyncpg://${app#*://}?ssl=false" "host=127.0.0.1 port=${server##*:} user=postgres dbname=app" \
		"postgresql:///app?host=127.0.0.1&port=${server##*:}&user=postgres" "jdbc:postgresql://127.0.0.1:${server##*:}/app?user=postgres" \
		"postgresql://postgres@$(echo "${PRUN_TEST_PGDATA%/data}" | sed 's,/,%2F,g'):${server##*:}/app" "postgresql://postgres@127.0.0.1:1,127.0.0.1:${server##*:}/app" \
		"postgres://postgres@127.0.0.1:${server##*:}/?dbname=app&sslmode=disable" "postgresql+psycopg://postgres@localhost:${server##*:}/app?ssl=false"; do
		rm -rf run
		run -d run --db "$db" --db-env DATABASE__URL env
		is "$way: . env; psql: $(echo "$db" | sed 's/[0-9]\{5\}/PORT/')" \
			"$(. run/0-test_env.sh/env; psql -XAtqc 'SELECT current_database() = '"'$PRUN_DB'")" t
	done
	rm -rf run
	run -d run --db "host=127.0.0.1 port=${server##*:} user=postgres password=a'b dbname = 'app'" env
	is "$way: a quote inside of a DSN's value belongs to it" "$(. run/0-test_env.sh/env; echo "$PGPASSWORD $PGUSER")" "a'b postgres"
	run -q --clean --db "$app"

	# What a clone has of its template.
	sql 'CREATE DATABASE "2024_app"'
	sql 'REVOKE CONNECT ON DATABASE "2024_app" FROM PUBLIC'
	sql 'GRANT CONNECT, TEMP ON DATABASE "2024_app" TO "odd ""role" WITH GRANT OPTION'
	sql "ALTER DATABASE \"2024_app\" SET search_path = ''"
	cat <<-'END2' | script set/test_set.sh
	psql -XAtq "$DATABASE_URL" -c "SELECT unnest(datacl)::text FROM pg_database WHERE datname = current_database() ORDER BY 1" -c 'SHOW search_path' >"out$PRUN_INDEX"
	END2
	run -v --db "$server/2024_app" set
	is "$way: a template whose name begins with a digit is cloned" "$status $(databases)" '0 2024_app app '
	is "$way: its privileges and an empty search_path are the clone's" "$(tr '\n' ' ' <out0)" \
		"$(sql "SELECT unnest(datacl)::text FROM pg_database WHERE datname = '2024_app' ORDER BY 1" | tr '\n' ' ')\"\" "
	lacks "$way: all of them" out 'not copied'
	sql 'DROP DATABASE "2024_app"'
done
unset PRUN_LIBPQ

# A file template behind a symlink.
mkdir real
echo original >real/app.db
ln -s real/app.db link.db
echo 'echo more >>"${PRUN_DB_URL#*:///}"' | script f/test_f.sh
run --db sqlite:///link.db f
is 'the file behind a symlink is cloned, not the link' "$status $(cat real/app.db)" '0 original'
echo hot >real/app.db-wal
run --db sqlite:///link.db f
is 'and a -wal is looked for beside the file' $status 3
finish
