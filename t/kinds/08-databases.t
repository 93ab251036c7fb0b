#!/bin/sh
# Databases that are not one PostgreSQL template: several, MariaDB, Redis, SQLite in use.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"

# Two PostgreSQL databases for one app.
if have createdb && [ "${PRUN_TEST_PG-}" ]; then
	postgres
	export PGHOST=127.0.0.1 PGUSER=postgres
	PGPORT=${PRUN_TEST_PG##*:}
	PGPORT=${PGPORT%/*}
	export PGPORT
	sql "CREATE DATABASE ${name}_stats"
	psql -Xq "$server/${name}_stats" -c 'CREATE TABLE hits (n int)'
	for i in 1 2 3; do
		script "several/test_$i.sh" <<-'END'
		psql -Xq -d "$STATS_DB" -c 'INSERT INTO hits VALUES (1)'
		[ "$(psql -XAtq -d "$STATS_DB" -c 'SELECT count(*) FROM hits')" = 1 ] &&
		psql -Xq "$DATABASE_URL" -c 'CREATE TABLE mine (n int)'
		END
	done
	cat >prun.conf <<-END
	db = $url
	env = STATS_DB=${name}_stats_w\${PRUN_INDEX}a\${PRUN_ATTEMPT}_\$PRUN_RUN
	server = createdb -T ${name}_stats "\$STATS_DB" && exec sleep 60
	ready = command psql -Xq -d "\$STATS_DB" -c ''
	after = dropdb --if-exists --force "\$STATS_DB"
	END
	run -j2 several
	is 'an app with two databases: both are cloned' "$status" 0
	is 'and both dropped' "$(databases | tr '\n' ' ')" "$name ${name}_stats "
	script several/test_2.sh <<-'END'
	psql -Xq -d "$STATS_DB" -c 'INSERT INTO hits VALUES (1)'
	exit $((PRUN_ATTEMPT < 2))
	END
	run -j2 --retries 1 --keep=never several
	is 'retries have their own' "$status $(databases | tr '\n' ' ')" "0 $name ${name}_stats "
else
	skip 'no PostgreSQL' 'an app with two databases: both are cloned' 'and both dropped' \
		'retries have their own'
fi

# MariaDB.  Its own server, here on a socket only.
if have mariadbd && have mariadb-install-db && have mariadb-dump; then
	HOME=$dir
	export HOME
	printf '[client]\nsocket = %s\nuser = root\n' "$dir/my.sock" >.my.cnf
	mariadb-install-db --no-defaults --datadir="$dir/my" --user="$(id -un)" \
		--auth-root-authentication-method=normal >install.log 2>&1
	mariadbd --no-defaults --datadir="$dir/my" --user="$(id -un)" --skip-networking \
		--socket="$dir/my.sock" >my.log 2>&1 &
	mariadbd=$!
	trap 'kill $mariadbd; wait $mariadbd; cd /; [ -z "${name-}" ] || drop_all; rm -rf "$dir"' EXIT
	await mariadb-admin ping
	mariadb -e "CREATE DATABASE shop; USE shop; CREATE TABLE t (n int);
		INSERT INTO t VALUES (1); CREATE PROCEDURE one() SELECT 1;
		CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.n = NEW.n + 1"
	for i in 1 2 3; do
		script "maria/test_$i.sh" <<-'END'
		set -e
		db=${DATABASE_URL##*/}
		mariadb "$db" -e 'INSERT INTO t VALUES (1)'
		[ "$(mariadb -N "$db" -e 'SELECT sum(n) FROM t; CALL one()' | tr '\n' ' ')" = '3 1 ' ]
		END
	done
	cat >prun.conf <<-'END'
	db = mysql://root@localhost/shop
	setup = mariadb-dump --single-transaction --routines --triggers --events
	  shop >shop.sql
	db-clone = mariadb-admin create $PRUN_DB
	  && mariadb $PRUN_DB <shop.sql
	  && echo mysql://root@localhost/$PRUN_DB
	db-drop = mariadb-admin -f drop $PRUN_DB
	END
	run -j2 maria
	is 'MariaDB: each file has its clone, with procedures and triggers' "$status" 0
	[ "$status" = 0 ] || cat out err my.log prun-*/*/*.log
	is 'which is dropped' "$(mariadb -N -e "SHOW DATABASES LIKE 'shop%'")" shop
	sed -i.bak 's/^  shop >/  shup >/' prun.conf
	run -j2 maria
	is 'a dump that fails ends the run' "$status" 3
else
	skip 'no MariaDB' 'MariaDB: each file has its clone, with procedures and triggers' \
		'which is dropped' 'a dump that fails ends the run'
fi

# Redis: a logical database a worker, emptied before each file.
if have redis-server; then
	redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' >redis.log 2>&1 &
	redis=$!
	trap 'kill $redis ${mariadbd-}; wait; cd /; [ -z "${name-}" ] || drop_all; rm -rf "$dir"' EXIT
	REDIS_SOCKET=$dir/redis.sock
	export REDIS_SOCKET
	await redis-cli -s "$REDIS_SOCKET" ping
	for i in 1 2 3 4; do
		script "redis/test_$i.sh" <<-'END'
		set -e
		r() { redis-cli -s "$REDIS_SOCKET" -n "${REDIS_URL##*/}" "$@"; }
		[ "$(r incr hits)" = 1 ]
		END
	done
	cat >prun.conf <<-'END'
	jobs = 2
	env = REDIS_URL=redis://localhost/$PRUN_WORKER
	server = redis-cli -s "$REDIS_SOCKET" -n $PRUN_WORKER flushdb && exec sleep 60
	ready = log OK
	END
	run redis
	is 'Redis: each file has an empty database' "$status" 0
else
	skip 'no Redis' 'Redis: each file has an empty database'
fi

# SQLite that is in use cannot be copied as a file.
if have sqlite3; then
	mkfifo hold
	sqlite3 app.db 'PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1)' >wal.log
	sqlite3 app.db <hold >open.log &
	exec 3>hold
	echo 'INSERT INTO t VALUES (2); SELECT "in";' >&3
	await grep in open.log
	script lite/test_1.sh <<-'END'
	file=${DATABASE_URL#sqlite:///}
	[ "$(sqlite3 "$file" 'INSERT INTO t VALUES (3); SELECT sum(n) FROM t')" = 6 ]
	END
	cp lite/test_1.sh lite/test_2.sh
	echo 'db = sqlite:///app.db' >prun.conf
	run lite
	is 'SQLite in use is refused' $status 3
	cat >prun.conf <<-'END'
	db = sqlite:///app.db
	db-clone = sqlite3 app.db "vacuum into '$PRUN_DB.db'" && echo sqlite:///$PRUN_DB.db
	db-drop = rm -f $PRUN_DB.db
	END
	run lite
	is 'vacuum into makes a clone of it' "$status" 0
	is 'which is removed' "$(ls ./*.db)" ./app.db
	exec 3>&-
else
	skip 'no sqlite3' 'SQLite in use is refused' 'vacuum into makes a clone of it' \
		'which is removed'
fi
finish
