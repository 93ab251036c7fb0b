#!/bin/sh
# Passwords in database URLs: of every printable character, right and wrong, in URLs
# and DSNs, through libpq and psql.  They are never shown.
. "${0%/*}/lib.sh"
have psql || skip_all 'no psql'
[ "${PRUN_TEST_PGDATA-}" ] || skip_all 'no PostgreSQL of our own (t/with-pg starts one)'
at=${PRUN_TEST_PG##*@}
at=${at%/postgres}
template=secret_$$
trap 'cd /; sql "DROP DATABASE IF EXISTS $template" >/dev/null; rm -rf "$dir"' EXIT
sql "CREATE DATABASE $template"
sql "SET password_encryption = 'scram-sha-256'; CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'x'" 2>/dev/null
echo 'ps -A -o args >>ps.out; exit 1' | script t/test_a.sh

# shown WHERE...: whether the password is.  Each has S3 and kr3t around a character.
shown() { grep -rEl -e 'kr3t' "$@" 2>/dev/null | grep -v '/env$'; }
# try URL: a run with this database; where it was shown goes to $leaks.
try() {
	rm -rf run ps.out
	run -v -d run --db "$1" --setup 'ps -A -o args >>ps.out' t/test_a.sh
	grep -v -e '--db' ps.out >ps.others 2>/dev/null
	[ -z "$(shown out err run ps.others)" ] || leaks="$leaks [$1: $(shown out err run ps.others | tr '\n' ' ')]"
	env=run/0-test_a.sh/env
	[ ! -e $env ] || [ "$(ls -l $env | cut -c1-10)" = -rw------- ] || leaks="$leaks [$env]"
	for db in $(sed -n "s/^ *database .*\/\(${template}_w[^ ?]*\).*/\1/p" out); do sql "DROP DATABASE $db"; done
}
set_password() { # in a file, for psql would show it to ps
	printf "ALTER ROLE locked PASSWORD E'%s';\n" "$(printf %s "$1" | sed "s/[\\\\']/\\\\&/g")" >alter
	psql -Xq "$PRUN_TEST_PG" -f alter
	rm alter
}
set -f # * is one of them
printable=$(awk 'BEGIN { for (i = 33; i < 127; i++) printf "%c\n", i }')
all=$(echo "$printable" | tr -d '\n')
for way in ${ways:-libpq}; do
	[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }
	leaks=
	# Letters and digits are all alike.
	for c in $(echo "$printable" | grep -v '[A-Zb-z1-9]'); do
		try "postgresql://locked:S3${c}kr3t@$at/$template"
	done
	is "$way: a wrong password of any character is never shown" "$leaks" ''
	leaks=
	set_password "S3${all}kr3t"
	try "postgresql://locked:S3$(printf %s "$all" | od -An -tx1 | tr -d '\n' | tr ' ' %)kr3t@$at/$template"
	is "$way: nor is a right one, encoded" "$leaks" ''
	has "$way: which is understood" out '^1 file: 0 passed, 1 failed'
	try "host=${at%:*} port=${at#*:} user=locked password='S3$(printf %s "$all" | sed "s/[\\\\']/\\\\&/g")kr3t' dbname=$template"
	is "$way: nor in a DSN" "$leaks" ''
	has "$way: where it is understood, too" out '^1 file: 0 passed, 1 failed'
	leaks=
	for db in "postgresql://u:a@S3kr3t@$at/x" "postgresql://u:a/S3kr3t@$at/x" "postgresql://u:1/S3kr3t@$at/x" \
		"postgresql://u:a?S3kr3t@$at/x@y" "mysql://u:S3kr3t@h/x" "mysql://u:a@S3kr3t@h/x" "mysql://u:a/S3kr3t@h/x" \
		"host=h password=x://S3kr3t" "host=h password=x S3kr3t" "host=h password='x S3kr3t" \
		"host=h password='x'S3kr3t" "host=h password = 'S3kr3t' port=x" \
		"postgresql://u:S3kr3t%Pw@$at/x" "postgresql://u:S3kr3t@[127.0.0.1]x/x" "postgresql://u:S3kr3t@[127.0.0.1/x" \
		"postgresql://u@$at/x?password=S3kr3t%zz" "postgresql://u@$at/x?sslpassword=S3kr3t" \
		"postgresql://$at/x?password=S3kr3t&user=u" "prisma+postgres://u:S3kr3t@h/x" "sqlite:///S3.db?x=1&password=S3kr3t" \
		"postgresql+asyncpg://u:S3kr3t@$at:x/x" "jdbc:postgresql://$at/x?user=u&password=S3kr3t" \
		"sqlite+pysqlcipher://:S3kr3t@/:memory:"; do
		try "$db"
		[ $status -ge 1 ] || leaks="$leaks [$db: $status]"
	done
	is "$way: nor where prun, libpq or psql cannot read the URL" "$leaks" ''
	leaks=
	for db in "postgresql://u:S3kr3t%Pw@$at/x" "postgresql://u:a@S3kr3t@$at/x"; do
		rm -rf run
		run -d run --db "postgresql://postgres@$at/$template" --db-admin "$db" t/test_a.sh
		leaks="$leaks$(shown out err run)"
	done
	is "$way: nor in db-admin" "$leaks" ''
	set_password S3kr3t
	PGPASSWORD=S3kr3tX "$PRUN" -v -d run2 --db "postgresql://locked@$at/$template" t/test_a.sh >out 2>err
	is "$way: nor one of PGPASSWORD" "$(shown out err run2)" ''
done
finish
