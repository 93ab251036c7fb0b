#!/bin/sh
# Database URLs: in, what the app gets, what libpq or psql gets.
. "${0%/*}/lib.sh"

# shellcheck disable=SC2046
ok 'the program that asks url.c is built' ${CC:-cc} -std=c99 -o urls "$top/t/urls.c" \
	$(ls "$top"/*.c | grep -v '/prun\.c') ${LDLIBS-}
# Relative files are looked for.
: >r.db
: >d.db
while IFS='	' read -r number in want; do
	is "$number: $in" "$(printf '%s\n' "$in" | ./urls)" "$want"
done <<'END'
1	postgres://u:p@h:5432/a	postgres://u:p@h:5432/N | postgresql://u:p@h:5432/P
2	postgresql://h	postgresql://h/N | postgresql://h/P
3	postgresql:///	postgresql:///N | postgresql:///P
4	postgresql:///a?host=/tmp	postgresql:///N?host=/tmp | postgresql:///P?host=/tmp
5	postgresql://%2Fvar%2Frun%2Fpg/a	postgresql://%2Fvar%2Frun%2Fpg/N | postgresql://%2Fvar%2Frun%2Fpg/P
6	postgresql://h?sslmode=disable	postgresql://h/N?sslmode=disable | postgresql://h/P?sslmode=disable
7	postgresql://h/a?dbname=b	postgresql://h/N?dbname=N | postgresql://h/P
8	postgresql:///?dbname=a&host=/tmp	postgresql:///?dbname=N&host=/tmp | postgresql:///P?host=/tmp
9	postgresql://h1:1,h2:2/a?target_session_attrs=any	postgresql://h1:1,h2:2/N?target_session_attrs=any | postgresql://h1:1,h2:2/P?target_session_attrs=any
10	postgresql://[::1]:5432/a	postgresql://[::1]:5432/N | postgresql://[::1]:5432/P
11	postgresql://[fe80::1%25eth0]/a	postgresql://[fe80::1%25eth0]/N | postgresql://[fe80::1%25eth0]/P
12	postgresql://u:p%40s@h/my%20db	postgresql://u:p%40s@h/N | postgresql://u:p%40s@h/P
13	postgresql://u:p?x#y@h/a	postgresql://u:p?x#y@h/N | postgresql://u:p?x#y@h/P
14	postgresql://u:p@s@h/a	refused: has two @ before the host; write @ as %40 in the password
15	postgresql://h/a#f	postgresql://h/N | postgresql://h/P
15	postgresql://h/a/b	postgresql://h/N | postgresql://h/P
16	postgresql+asyncpg://h/a?ssl=require	postgresql+asyncpg://h/N?ssl=require | postgresql://h/P?sslmode=require
17	postgresql://h/a?schema=x&connection_limit=5	postgresql://h/N?schema=x&connection_limit=5 | postgresql://h/P
18	postgresql://h/a?pgbouncer=true	postgresql://h/N?pgbouncer=true | postgresql://h/P
19	jdbc:postgresql://h/a?user=u&currentSchema=x	jdbc:postgresql://h/N?user=u&currentSchema=x | postgresql://h/P?user=u
20	postgis://h/a	postgis://h/N | postgresql://h/P
20	pgsql://h/a	pgsql://h/N | postgresql://h/P
20	ecto://h/a	ecto://h/N | postgresql://h/P
21	postgresql://h/a?ssl=true	postgresql://h/N?ssl=true | postgresql://h/P?sslmode=require
21	postgresql://h/a?ssl=TRUE	postgresql://h/N?ssl=TRUE | postgresql://h/P?sslmode=require
22	postgresql://h/a?sslmode=no-verify	postgresql://h/N?sslmode=no-verify | postgresql://h/P?sslmode=require
23	postgresql://h/a?&sslmode=require	postgresql://h/N?&sslmode=require | postgresql://h/P?sslmode=require
24	host=h dbname='my db'	host=h dbname=N | host=h dbname=P
25	host=h user=u	host=h user=u dbname=N | host=h user=u dbname=P
26	prisma+postgres://localhost:51213/?api_key=x	refused: is the URL of Prisma's proxy; use the database's own URL
27	sqlite:///r.db	sqlite:////abs/N.db
27	sqlite+aiosqlite:///r.db	sqlite+aiosqlite:////abs/N.db
28	sqlite://r.db?mode=rwc	sqlite:////abs/N.db?mode=rwc
29	file:./d.db	file:/abs/N.db
29	jdbc:sqlite:d.db	jdbc:sqlite:/abs/N.db
30	sqlite://	refused: does not name a file to copy
30	sqlite:///:memory:	refused: does not name a file to copy
30	sqlite::memory:	refused: does not name a file to copy
END
finish
