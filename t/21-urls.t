#!/bin/sh
# Database URLs: in, what the app gets, what libpq or psql gets: always a DSN.
. "${0%/*}/lib.sh"

# shellcheck disable=SC2046
ok 'the program that asks url.c is built' ${CC:-cc} -std=c99 -o urls "$top/t/urls.c" \
	$(rooms) ${LDLIBS-}
# Relative files are looked for.
: >r.db
: >d.db
while IFS='	' read -r number in want; do
	is "$number: $in" "$(printf '%s\n' "$in" | ./urls)" "$want"
done <<'END'
1	postgres://u:p@h:5432/a	postgres://u:p@h:5432/N | user='u' password='p' host='h' port='5432' dbname='P'
2	postgresql://h	postgresql://h/N | host='h' dbname='P'
3	postgresql:///	postgresql:///N | dbname='P'
4	postgresql:///a?host=/tmp	postgresql:///N?host=/tmp | host='/tmp' dbname='P'
5	postgresql://%2Fvar%2Frun%2Fpg/a	postgresql://%2Fvar%2Frun%2Fpg/N | host='/var/run/pg' dbname='P'
6	postgresql://h?sslmode=disable	postgresql://h/N?sslmode=disable | host='h' sslmode='disable' dbname='P'
7	postgresql://h/a?dbname=b	postgresql://h/N?dbname=N | host='h' dbname='P'
8	postgresql:///?dbname=a&host=/tmp	postgresql:///?dbname=N&host=/tmp | host='/tmp' dbname='P'
9	postgresql://h1:1,h2:2/a?target_session_attrs=any	postgresql://h1:1,h2:2/N?target_session_attrs=any | host='h1,h2' port='1,2' target_session_attrs='any' dbname='P'
10	postgresql://[::1]:5432/a	postgresql://[::1]:5432/N | host='::1' port='5432' dbname='P'
11	postgresql://[fe80::1%25eth0]/a	postgresql://[fe80::1%25eth0]/N | host='fe80::1%eth0' dbname='P'
12	postgresql://u:p%40s@h/my%20db	postgresql://u:p%40s@h/N | user='u' password='p@s' host='h' dbname='P'
13	postgresql://u:p?x#y@h/a	postgresql://u:p?x#y@h/N | user='u' password='p?x#y' host='h' dbname='P'
14	postgresql://u:p@s@h/a	refused: has an @ or / in its password; write %40 or %2F
15	postgresql://h/a#f	postgresql://h/N | host='h' dbname='P'
15	postgresql://h/a/b	postgresql://h/N | host='h' dbname='P'
16	postgresql+asyncpg://h/a?ssl=require	postgresql+asyncpg://h/N?ssl=require | host='h' sslmode='require' dbname='P'
17	postgresql://h/a?schema=x&connection_limit=5	postgresql://h/N?schema=x&connection_limit=5 | host='h' dbname='P'
18	postgresql://h/a?pgbouncer=true	postgresql://h/N?pgbouncer=true | host='h' dbname='P'
19	jdbc:postgresql://h/a?user=u&currentSchema=x	jdbc:postgresql://h/N?user=u&currentSchema=x | host='h' user='u' dbname='P'
20	postgis://h/a	postgis://h/N | host='h' dbname='P'
20	pgsql://h/a	pgsql://h/N | host='h' dbname='P'
20	ecto://h/a	ecto://h/N | host='h' dbname='P'
21	postgresql://h/a?ssl=true	postgresql://h/N?ssl=true | host='h' sslmode='require' dbname='P'
21	postgresql://h/a?ssl=TRUE	postgresql://h/N?ssl=TRUE | host='h' sslmode='require' dbname='P'
22	postgresql://h/a?sslmode=no-verify	postgresql://h/N?sslmode=no-verify | host='h' sslmode='require' dbname='P'
23	postgresql://h/a?&sslmode=require	postgresql://h/N?&sslmode=require | host='h' sslmode='require' dbname='P'
24	host=h dbname='my db'	host=h dbname=N | host='h' dbname='P'
25	host=h user=u	host=h user=u dbname=N | host='h' user='u' dbname='P'
26	prisma+postgres://localhost:51213/?api_key=x	refused: is the URL of Prisma's proxy; use the database's own URL
27	sqlite:///r.db	sqlite:////abs/N.db
27	sqlite+aiosqlite:///r.db	sqlite+aiosqlite:////abs/N.db
28	sqlite://r.db?mode=rwc	sqlite:////abs/N.db?mode=rwc
29	file:./d.db	file:/abs/N.db
29	jdbc:sqlite:d.db	jdbc:sqlite:/abs/N.db
30	sqlite://	refused: does not name a file to copy
30	sqlite:///:memory:	refused: does not name a file to copy
30	sqlite::memory:	refused: does not name a file to copy
31	sqlite	refused: is a kind of database that prun cannot clone; set db-clone and db-drop
END
finish
