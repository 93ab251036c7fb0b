#!/bin/sh
# prun --audit: which files may run side by side.
. "${0%/*}/lib.sh"

# What collides: a lock directory, a shared file, a fixed port, a row.
by_lock() {
cat <<'END' | script lock/test_a.sh
mkdir held || exit 1
sleep 0.2
rmdir held
END
cp lock/test_a.sh lock/test_b.sh
echo 'sleep 0.1' | script lock/test_c.sh
echo 'exit 9' | script lock/test_d.sh
run --audit=3 -j4 lock
is 'unsafe files give status 1' $status 1
has 'they are counted' out '^[0-9] safe, [12] unsafe, 1 broken$'
has 'and named, with how often' out '^unsafe: lock/test_[ab].sh  passed alone, failed in [1-3] of 3 rounds beside others$'
has 'and with whom' out '^    beside it whenever it failed, and never when both passed: .*lock/test_[ab].sh'
lacks 'a file that fails alone is not' out '^unsafe: lock/test_d'
has 'it is broken' out '^broken: lock/test_d.sh  fails alone$'
has 'there is a line to paste' out '^lock = audit-1 lock/test_a.sh lock/test_b.sh'
kept=$(sed -n 's/^kept: //p' out)
has 'the evidence is in the run directory' "$kept/audit.txt" '^unsafe: lock/test_'
has 'with every attempt' "$kept/results.jsonl" '"file":"lock/test_a.sh","attempt":4,'
rm -rf "$kept" held
rm lock/test_d.sh
sed -n '/^lock = /p' out >prun.conf
lacks 'a file that failed is run again without an audit' out '^    again .*--audit'
run --audit=3 -j4 lock
is 'with the line pasted they are safe' "$status $(grep ' safe' out)" '0 3 safe, 0 unsafe, 0 broken'
has 'each was run alone and three times in company' out 'test_a.sh  attempt 4 '
rm prun.conf
}
aside by_lock

# A shared file: one destroys what the other needs, and never fails itself.
by_file() {
cat <<'END' | script file/test_victim.sh
echo mine >shared
for i in 1 2 3 4; do sleep 0.1; [ "$(cat shared)" = mine ] || exit 1; done
END
cat <<'END' | script file/test_culprit.sh
for i in 1 2 3 4; do echo yours >shared; sleep 0.1; done
END
for i in 1 2 3; do echo 'sleep 0.2' | script "file/test_fine$i.sh"; done
run --audit=6 -j3 file
has 'who is hurt is unsafe' out '^unsafe: file/test_victim.sh '
has 'who hurts is named' out '^    beside it whenever it failed, .*: (.* )?file/test_culprit.sh'
has 'both are in the lock' out '^lock = audit-1 file/test_culprit.sh .*file/test_victim.sh'
lacks 'nobody else is unsafe' out '^unsafe: file/test_[fc]'
}
aside by_file

# A fixed port.
by_port() {
if have python3; then
	cat <<'END' | script port/test_1.sh
exec python3 -c '
import socket, time
s = socket.socket()
s.bind(("127.0.0.1", int(open("port.txt").read())))
s.listen()
time.sleep(0.5)
'
END
	cp port/test_1.sh port/test_2.sh
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' >port.txt
	run --audit=2 -j2 port
	is 'a fixed port is found' "$status $(sed -n 's/^lock = //p' out)" '1 audit-1 port/test_1.sh port/test_2.sh'
else
	skip 'no python3' 'a fixed port is found'
fi
}
aside by_port

# A row in a database that the files share.
by_row() {
if [ "${PRUN_TEST_PG-}" ] && have psql; then
	db=audit_$$
	psql -Xqd "$PRUN_TEST_PG" -c "CREATE DATABASE $db" && psql -Xqd "${PRUN_TEST_PG%/*}/$db" \
		-c 'CREATE TABLE stock (n int)' -c 'INSERT INTO stock VALUES (1)'
	cat <<END | script row/test_1.sh
sql() { psql -XAtqd '${PRUN_TEST_PG%/*}/$db' -c "\$1"; }
sql 'UPDATE stock SET n = 1'
[ "\$(sql 'UPDATE stock SET n = n - 1 RETURNING n')" = 0 ] || exit 1
sleep 0.3
[ "\$(sql 'SELECT n FROM stock')" = 0 ] || exit 1
END
	sed 's/n - 1/n - 2/; s/= 0/= -1/' row/test_1.sh >row/test_2.sh
	chmod +x row/test_2.sh
	run --audit=3 -j2 row
	is 'a shared row is found' "$status $(sed -n 's/^lock = //p' out)" '1 audit-1 row/test_1.sh row/test_2.sh'
	psql -Xqd "$PRUN_TEST_PG" -c "DROP DATABASE $db"
else
	skip 'no PostgreSQL' 'a shared row is found'
fi
}
aside by_row

for i in 1 2 3; do echo 'sleep 0.2' | script "file/test_fine$i.sh"; done
run --audit=2 -j2 --setup false -d notrun file
has 'what was not run is not safe' out '^0 safe, 0 unsafe, 0 broken, 3 not finished$'
run --audit -j1 file
is 'with one at once nothing can be found out' $status 2
run --audit=2 -j2 -o audit.xml file/test_fine1.sh file/test_fine2.sh
lacks 'its rounds are no retries in the report' audit.xml flaky
run --audit=2 -j2 --shuffle=7 file/test_fine1.sh file/test_fine2.sh
is 'safe files give status 0' $status 0
has 'which is said' out '^2 safe, 0 unsafe, 0 broken$'
echo 'exit 1' | script file/test_broken.sh
run -x --audit=1 -j2 file/test_fine1.sh file/test_fine2.sh file/test_broken.sh
has 'it does not end at the first failure' out '^2 safe, 0 unsafe, 1 broken$'
collect
finish
