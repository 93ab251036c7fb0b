#!/bin/sh
# What can go wrong with databases; --clean and --reopen.  Here it is tried through
# libpq; t/25-databases-psql.t reads this file and does the same through psql.
# The server is the test's own: it has few prepared transactions.
own_pg='max_prepared_transactions = 5'
. "${0%/*}/lib.sh"
use_postgres

# with VARIABLE=VALUE... -- ARGUMENTS...: run, with these in the environment
with() {
	given=
	while [ "$1" != -- ]; do
		given="$given $1"
		shift
	done
	shift
	# shellcheck disable=SC2086
	env $given "$PRUN" "$@" >out 2>err </dev/null
	status=$?
}
sql 'CREATE DATABASE app'
psql -Xq "$server/app" -c 'CREATE TABLE t (n int)'
app=$server/app
echo 'exit 0' | script t/test_a.sh
echo 'exit 1' | script t/test_b.sh
as() { echo "$app" | sed "s/postgres@/$1@/"; }
sql "CREATE ROLE creator LOGIN CREATEDB"
sql "CREATE ROLE nobody LOGIN"
# before 14 passwords are stored otherwise
sql "SET password_encryption = 'scram-sha-256'; CREATE ROLE locked LOGIN CREATEDB SUPERUSER PASSWORD 's3kr3t'"

# begin NAME ARGUMENTS...: prun in the background; its output in NAME.out, then its
# status in NAME.status.  What waits five seconds for PostgreSQL does it side by side.
begin() { (
	name=$1
	shift
	"$PRUN" "$@" >"$name.out" 2>&1 </dev/null
	echo $? >"$name.status"
) & }
# sit DATABASE STATEMENT: a session on a database.
sit() {
	psql -XAtq "$server/$1" -c "$2" >/dev/null 2>&1 &
	await sits "$1"
}
sits() { [ "$(sql "SELECT 1 FROM pg_stat_activity WHERE datname = '$1'")" ]; }

for way in ${ways:-libpq}; do
	[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }

	# What takes PostgreSQL five seconds each: a superuser sits in the clone, whom
	# creator may not end; a session on the template with db-terminate = no; a prepared
	# transaction in the template.
	for db in sat held prepared; do sql "CREATE DATABASE $db TEMPLATE app"; done
	sql 'ALTER DATABASE sat OWNER TO creator'
	cat <<-END | script t/test_sit.sh
	url=\$(echo "\$PRUN_DB_URL" | sed 's/creator@/postgres@/')
	touch sit; echo "\$url" >sit; until [ -e sitting ]; do sleep 0.05; done
	END
	rm -f sit sitting ./*.status
	(await test -s sit && exec psql -XAtq "$(cat sit)" -c "\\! touch $dir/sitting" -c 'SELECT pg_sleep(30)' >/dev/null 2>&1) &
	begin sat -v --db "$(as creator | sed 's/app$/sat/')" t/test_sit.sh
	sit held 'SELECT pg_sleep(30)'
	begin held --db "$server/held" --db-terminate=no t/test_a.sh
	psql -Xq "$server/prepared" -c "BEGIN; PREPARE TRANSACTION 'nothing'"
	psql -Xq "$server/prepared" -c "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'in_template'"
	begin prepared --db "$server/prepared" t/test_a.sh
	await test -e sitting
	for db in sat held prepared; do await test -s $db.status; done
	sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'sat_w%' OR datname = 'held'" >/dev/null
	wait
	has "$way: 42501: a session that may not be ended leaves the clone, and that is said" sat.out \
		'cannot drop database.*(sat_w0_[0-9a-z]{8} was not dropped)'
	run --clean --db "$(as creator | sed 's/app$/sat/')"
	has 'it can be dropped later' out '^dropped sat_w0_[0-9a-z]{8} \(left by a dead run, '
	is '55006: with db-terminate=no a session on the template gives status 3' "$(cat held.status)" 3
	has 'which is named' held.out 'there is a session on held: pid [0-9]*, user postgres, psql'
	is '55006: a prepared transaction in the template gives status 3' "$(cat prepared.status)" 3
	has 'and is told' prepared.out 'prepared transaction'
	psql -Xq "$server/prepared" -c "ROLLBACK PREPARED 'in_template'"
	psql -Xq "$server/prepared" -c "ROLLBACK PREPARED 'nothing'" 2>/dev/null
	for db in sat held prepared; do sql "DROP DATABASE $db"; done

	# 42501, in its kinds.
	run --db "$(as nobody)" t/test_a.sh
	is "$way: 42501: a role without CREATEDB gives status 3" $status 3
	has 'in one clear line' out 'cannot clone database app: permission denied to create database; the role needs CREATEDB'
	run --db "$(as creator)" t/test_a.sh
	is '42501: so does one that does not own the template' $status 3
	has 'which is told' out 'permission denied to copy database "app"; the role needs CREATEDB and must own the template'
	sql 'ALTER DATABASE app IS_TEMPLATE true'
	run --db "$(as creator)" t/test_a.sh
	is '42501: the owner cannot be kept by who is not a member: the clone is ours' "$status $(databases)" '0 '
	has 'and that is said' out 'not copied from the template: ALTER DATABASE .* OWNER TO postgres: must be (member of role|able to SET ROLE) "postgres"'
	sql 'ALTER DATABASE app IS_TEMPLATE false'
	sql 'ALTER DATABASE app OWNER TO creator'
	sql 'ALTER DATABASE app OWNER TO postgres'

	# 28P01 and the ways to give a password.
	locked=$(as locked)
	run --db "$locked" t/test_a.sh
	is '28P01: without its password status 3' $status 3
	has 'and the reason' out 'password'
	with PGPASSWORD=s3kr3t -- --db "$locked" t/test_a.sh
	is 'PGPASSWORD is heeded' $status 0
	echo "127.0.0.1:*:*:locked:s3kr3t" >pass
	chmod 600 pass
	with PGPASSFILE="$dir/pass" -- --db "$locked" t/test_a.sh
	is 'so is .pgpass' $status 0
	port=${server##*:}
	printf '[mine]\nhost=127.0.0.1\nport=%s\nuser=postgres\n' "$port" >service
	with PGSERVICEFILE="$dir/service" PGSERVICE=mine -- --db postgresql:///app t/test_a.sh
	is 'and PGSERVICE' $status 0
	with PGHOST=127.0.0.1 PGPORT="$port" PGUSER=postgres -- --db postgresql:///app t/test_a.sh
	is 'and PGHOST, PGPORT, PGUSER' $status 0
	with PGDATABASE=app PGHOST=127.0.0.1 PGPORT="$port" PGUSER=postgres -- \
		--db postgresql:// --keep=always t/test_a.sh
	has 'and PGDATABASE, for the template' /dev/stdin 'app app_w0_[0-9a-z]{8} $' <<-END
	$(databases)
	END
	sql "DROP DATABASE $(databases | grep -o 'app_w0[^ ]*')"
	has 'a wrong password is told as that' /dev/stdin 'password authentication failed' <<-END
	$(PGPASSWORD=wrong "$PRUN" --db "$locked" t/test_a.sh)
	END

	# 55006, in its kinds.
	(while [ ! -e enough ]; do psql -XAtq "$app" -c 'SELECT pg_sleep(0.2)' >/dev/null 2>&1; done) &
	(while [ ! -e enough ]; do psql -XAtq "$app" -c 'SELECT pg_sleep(0.1)' >/dev/null 2>&1; done) &
	run --db "$app" t/test_a.sh
	touch enough
	wait
	rm enough
	is '55006: clients that reconnect all the time are outlasted' $status 0
	# A signal while CREATE waits.
	sit app 'SELECT pg_sleep(20)'
	"$PRUN" --db "$app" --db-terminate=no t/test_a.sh >out 2>err &
	await sh -c "psql -XAtq '$PRUN_TEST_PG' -c \"SELECT query FROM pg_stat_activity\" | grep -q '^CREATE DATABASE'"
	before=$(date +%s)
	kill -TERM $!
	wait $! 2>/dev/null
	# by itself it would go on for five seconds
	ok 'a signal ends a CREATE that waits' test $(($(date +%s) - before)) -lt 4
	is 'and nothing is left' "$(databases)" 'app '
	sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app'" >/dev/null
	wait
	echo 'psql -Xq "$PRUN_DB_URL" <<-X
		BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '"'in_clone'"';
	X' | script t/test_prep.sh
	run -v --db "$app" t/test_prep.sh
	is '55006: one in the clone does not fail the test' $status 0
	has 'the clone is left, and that is said' out 'is being used by prepared transactions|prepared transaction.* was not dropped'
	clone=$(databases | grep -o 'app_w0[^ ]*')
	psql -Xq "$server/$clone" -c "ROLLBACK PREPARED 'in_clone'"
	sql "DROP DATABASE $clone"

	# 42P04, 42809, 55000, XX000.
	run --db "$app" --setup "psql -Xq '$PRUN_TEST_PG' -c \"CREATE DATABASE app_w0_\$PRUN_RUN\"" t/test_a.sh
	is '42P04: a clone that is there already is made anew' "$status $(databases)" '0 app '
	echo 'psql -Xq "$PRUN_DB_URL" -c "ALTER DATABASE $PRUN_DB IS_TEMPLATE true"' | script t/test_mark.sh
	run --db "$app" t/test_mark.sh
	is '42809: a clone that was made a template is dropped' "$status $(databases)" '0 app '
	run --test 'echo "$PRUN_RUN" >dead' t/test_a.sh
	dead=$(cat dead)        # the id of a run that is over
	sql 'CREATE DATABASE app_w0_zz0zz0zz'
	sql 'CREATE DATABASE app_w12_backup'
	sql "CREATE DATABASE app_w0_$dead"
	sql 'CREATE DATABASE app_w0_zz0zz'
	sql "CREATE DATABASE xapp_w0_$dead"
	sql "CREATE DATABASE app_w1_$dead"
	sql "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'app_w1_$dead'"
	run --db "$app" t/test_a.sh
	is '55000: leftovers are swept, an invalid one too; databases of other names, and names without a valid id, are not touched' \
		"$status $(databases)" "0 app app_w0_zz0zz app_w0_zz0zz0zz app_w12_backup xapp_w0_$dead "
	sql 'DROP DATABASE app_w0_zz0zz'
	sql 'DROP DATABASE app_w0_zz0zz0zz'
	sql 'DROP DATABASE app_w12_backup'
	sql "DROP DATABASE xapp_w0_$dead"
	[ "$(databases)" = 'app ' ] || for db in $(databases | tr ' ' '\n' | grep app_w); do sql "DROP DATABASE $db"; done
	if [ "$(sql 'SHOW server_version_num')" -ge 150000 ]; then
		sql "UPDATE pg_database SET datcollversion = '0.1' WHERE datname = 'app'"
		run --db "$app" t/test_a.sh
		is 'XX000: a collation version that does not match gives status 3' $status 3
		has 'and what to do' out 'collation version.*REFRESH COLLATION VERSION'
		sql "UPDATE pg_database SET datcollversion = NULL WHERE datname = 'app'"
	fi

	# The template's name, its settings; noise in the user's psql.
	sql 'CREATE DATABASE "we""ird %db"'
	sql 'ALTER DATABASE "we""ird %db" SET search_path = mine, public'
	echo 'psql -XAtq "$PRUN_DB_URL" -c "SHOW search_path" >path; psql -XAtq "$PRUN_DB_URL" -c "CREATE TABLE x (n int)"' | script t/test_path.sh
	run --db "$server/we%22ird%20%25db" t/test_path.sh
	is 'a template may have any name' $status 0
	is 'its settings reach the clone' "$(cat path)" 'mine, public'
	sql 'DROP DATABASE "we""ird %db"'
	printf '\\timing on\n\\set VERBOSITY terse\n\\pset border 2\n' >psqlrc
	with PSQLRC="$dir/psqlrc" -- --db "$app" t/test_a.sh
	is 'a .psqlrc does not matter' $status 0
	sql 'CREATE ROLE owner LOGIN CREATEDB'
	sql 'CREATE DATABASE owned OWNER owner'
	run --db "$(echo "$server/owned" | sed 's/postgres@/owner@/')" t/test_path.sh
	is "the app's role creates in public" $status 0
	sql 'DROP DATABASE owned'
	sql 'DROP ROLE owner'

	# Two runs at once.
	echo 'touch "two$PRUN_INDEX"; until [ -e go ]; do sleep 0.05; done' | script t/test_wait.sh
	rm -f two0 go
	"$PRUN" -q --db "$app" t/test_wait.sh >first.out 2>&1 &
	await test -e two0
	run --db "$app" t/test_b.sh
	kept=$(sed -n 's/^ *database .*\/\(app_w[^ ]*\)$/\1/p' out)
	is 'a second run does not sweep the first one' "$(databases | wc -w)" 3
	if [ "$(sql "SHOW max_prepared_transactions")" -gt 0 ]; then
		psql -Xq "$server/$kept" -c "BEGIN; CREATE TABLE y (n int); PREPARE TRANSACTION 'in_kept'"
		run --clean --db "$app"
		is '--clean: a database that cannot be dropped gives status 3' $status 3
		has 'and is named with the reason' out "cannot drop $kept .*prepared transaction"
		psql -Xq "$server/$kept" -c "ROLLBACK PREPARED 'in_kept'"
	fi
	run --clean --db "$app" -n
	has '--clean -n lists what was kept, with file, size, age' out "^$kept \(kept for t/test_b.sh, [0-9]+ (MB|kB), 00:0[0-9]:00 old\)$"
	has 'and says what is in use' out 'not dropped, (its run is in progress|it is in use)'
	is 'and drops nothing' "$(databases | wc -w)" 3
	run --clean --db "$app"
	is '--clean drops the kept one, not that of a run under way' "$status $(databases | wc -w)" '0 2'
	has 'and says so' out "^dropped $kept "
	touch go
	wait $!
	is 'which ends well' "$? $(databases)" '0 app '
	rm -f two0 go
	"$PRUN" -q --db "$app" --setup 'touch two0; until [ -e go ]; do sleep 0.05; done' t/test_a.sh >/dev/null 2>&1 &
	first=$!
	await test -e two0
	: >out
	"$PRUN" --db "$app" t/test_a.sh >>out 2>&1 &
	ok 'while another run has its setup, clones wait and say so' await grep '^prun: waiting for the setup of another run' out
	touch go
	wait $!
	is 'and are made' $? 0
	wait $first

	# keep = run: all stay as soon as one failed, none if all passed.
	run -q --db "$app" --keep run t/test_a.sh t/test_b.sh
	is 'keep = run: both clones stay when one of the files failed' "$(databases | sed 's/_[0-9a-z]\{8\} / /g')" 'app app_w0 app_w1 '
	is 'their env files are for their owner alone' "$(ls -l "$(sed -n 's/^kept: //p' out)"/*/env | cut -c1-10 | sort -u)" '-rw-------'
	run -q --clean --db "$app"
	run -q --db "$app" --keep run t/test_a.sh
	is 'and none when all passed' "$status $(databases)" '0 app '

	# Look at what failed, and go on.
	if have python3; then
		run --db "$app" --server 'python3 -m http.server $PRUN_PORT' --ready 'http /' t/test_b.sh
		: >reopened
		attempt=$(dirname "$(sed -n 's/^ *environment //p' out)")
		"$PRUN" --db "$app" --server 'python3 -m http.server $PRUN_PORT' --ready 'http /' --reopen "$attempt" >>reopened 2>&1 &
		await grep -q '^.C stops it' reopened
		has '--reopen starts the server again, on the kept database' reopened "^database +$server/app_w0_"
		. "$attempt/env"
		ok 'it answers at its URL' psql -XAtq "$DATABASE_URL" -c 'SELECT 1'
		ok 'and so does the server' python3 -c "import urllib.request; urllib.request.urlopen('$PRUN_URL')"
		unset PRUN_DB PRUN_DB_URL DATABASE_URL PRUN_URL PRUN_PORT PRUN_INDEX PRUN_RUN PRUN_SUITE PRUN_FILE PRUN_TEST \
			PRUN_WORKER PRUN_ATTEMPT PRUN_DIR PRUN_JUNIT PRUN_CPUS
		TMPDIR=$dir
		kill -TERM $!
		wait $!
		is 'a signal ends it well' $? 0
		ok 'with the server' gone 'http.server'
		run --clean --db "$app" "$(dirname "$attempt")"
		is '--clean removes a run directory, too' "$status $([ -e "$attempt" ] || echo gone) $(databases)" '0 gone app '
		mkdir -p "$attempt"
		printf "export PRUN_TEST='t/test_b.sh'\nexport PRUN_SUITE=''\nexport PRUN_DB='app_w0_nosuch'\nexport PRUN_DB_URL='$server/app_w0_nosuch'\n" >"$attempt/env"
		run --db "$app" --server 'exit 1' --reopen "$attempt"
		has '--reopen says when the database is gone' out 'its database app_w0_nosuch is gone'
		is 'with status 1' $status 1
	else
		skip 'no python3' '--reopen'
	fi
	run --clean
	is '--clean without a template is bad use' $status 2
	run --clean --db "$app" t
	is 'so is what is no run directory' "$status $([ -d t ] && echo there)" '2 there'

	# The server hangs when the run is cancelled: CI gives ten seconds in all.
	rm -f two0 go
	"$PRUN" -v --db "$app" t/test_wait.sh >out 2>&1 &
	await test -e two0
	postmaster=$(head -n 1 "$PRUN_TEST_PGDATA/postmaster.pid")
	backends=$(ps -A -o pid= -o ppid= | awk -v p="$postmaster" '$2 == p { print $1 }')
	# shellcheck disable=SC2086
	kill -STOP "$postmaster" $backends
	before=$(date +%s)
	kill -TERM $!
	wait $! 2>/dev/null
	ok 'a server that hangs does not hold up the end' test $(($(date +%s) - before)) -le 10
	# shellcheck disable=SC2086
	kill -CONT "$postmaster" $backends
	has 'and what is left is said' out 'its database app_w0_[0-9a-z]* may be left'
	await_idle() { [ -z "$(sql "SELECT 1 FROM pg_stat_activity WHERE application_name IN ('prun', 'psql') AND pid <> pg_backend_pid()")" ]; }
	await await_idle
	run --clean --db "$app"
	is 'and can be dropped' "$status $(databases)" '0 app '

	# The server is restarted in mid-run.
	rm -f two0 go
	"$PRUN" -v --db "$app" t/test_wait.sh t/test_a.sh -j1 >out 2>&1 &
	await test -e two0 || await test -e two1
	ctl() { if [ "$(id -u)" = 0 ]; then setpriv --reuid postgres --regid postgres --clear-groups "$@"; else "$@"; fi; }
	(cd / && ctl pg_ctl -D "$PRUN_TEST_PGDATA" -m fast -w restart -o "-p $port" -l "$PRUN_TEST_PGDATA/../log" >/dev/null 2>&1)
	touch go
	wait $!
	is '57P01: a restart of the server in mid-run is survived' "$? $(databases)" '0 app '
done
finish
