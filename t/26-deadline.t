#!/bin/sh
# A signal ends the run, whatever the workers are doing: when the deadline
# comes, 2 s and the grace after the signal, they are killed.
. "${0%/*}/lib.sh"

files=$dir/files
mkdir "$files"

# stops NAME OPTIONS...: prun is started, told to stop once the file started is
# there, and gone within the deadline and some seconds for a slow machine.
stops() {
	what=$1
	shift
	started=$PWD/started
	export started
	cp -R "$files/." .
	"$PRUN" -d run.d -o out.xml --grace=0.2 "$@" >out 2>err </dev/null &
	pid=$!
	await test -e started
	[ -z "$meanwhile" ] || $meanwhile
	begin=$(date +%s)
	kill -TERM $pid
	(for i in 1 2 3 4 5 6; do sleep 5; kill -0 $pid || exit; done; kill -KILL $pid) 2>/dev/null &
	watch=$!
	wait $pid
	status=$?
	kill $watch 2>/dev/null
	took=$(($(date +%s) - begin))
	is "$what: TERM ends prun" "$(kill -l $status)" TERM
	ok "$what: by its deadline" test $took -le 5
	has "$what: the report is written" out.xml '<testsuites'
	ok "$what: nothing is left" await gone 'sleep 2600'
}
meanwhile=
echo 'exit 0' | script files/good/test_good.sh
hanging_after() {
	stops 'after that hangs' --after 'trap "" TERM; : >"$started"; sleep 2600.1; sleep 2600.1' good
	has 'a file whose end was cut off is CANCEL' out '^1 file: 0 passed, 1 cancelled'
	has 'with the reason in the report' out.xml 'did not stop in time and was killed'
}
aside hanging_after
aside stops 'setup that hangs' --setup 'trap "" TERM; : >"$started"; sleep 2600.2; sleep 2600.2' good
aside stops 'db-clone that hangs' --db x://y --db-clone 'trap "" TERM; : >"$started"; sleep 2600.3; sleep 2600.3' good
aside stops 'db-drop that hangs' --db x://y --db-clone 'echo x://z' \
	--db-drop 'trap "" TERM; : >"$started"; sleep 2600.4; sleep 2600.4' good

# Files that are none.
cat <<'END' | script files/fifo/test_fifo.sh
rm "$PRUN_DIR/test.log"
mkfifo "$PRUN_DIR/test.log"
: >"$started"
exec sleep 2600.5
END
fifo() {
	stops 'a FIFO for a log' fifo
	run -t 0.3 --grace=0.2 fifo
	has 'a time-out with a FIFO for a log is one, too' out 'TIMEOUT  fifo/test_fifo.sh'
}
aside fifo
echo 'ln -s /dev/zero "$PRUN_JUNIT"; : >"$started"; sleep 0.3; exit 0' | script files/zero/test_zero.sh
aside stops '/dev/zero for a report' zero
# Sparse: 16 GB that take no room, where the file system can.
cat <<'END' | script files/huge/test_huge.sh
printf '<testsuite><testcase name="a"><system-out>' >"$PRUN_JUNIT"
dd if=/dev/null of="$PRUN_JUNIT" bs=1048576 seek=16384 2>/dev/null
: >"$started"
END
if (dd if=/dev/null of=sparse bs=1048576 seek=16384 && [ "$(du -k sparse | cut -f1)" -lt 1000 ]) 2>/dev/null
then
	rm -f sparse
	aside stops 'a parser in a huge report' huge
else
	rm -f sparse
	skip 'no sparse files' 'a parser in a huge report: TERM ends prun'
fi

# A worker that is stopped reads no orders.
echo 'kill -STOP $PPID; : >"$started"; exec sleep 2600.6' | script files/stopped/test_stopped.sh
aside stops 'a stopped worker' stopped

# Two signals.
twice() {
	"$PRUN" --after ': >started; sleep 2600.7' "$files/good" >out 2>err </dev/null &
	pid=$!
	await test -e started
	begin=$(date +%s)
	kill -TERM $pid
	await grep -q 'once more kills at once' out
	kill -TERM $pid
	wait $pid
	is 'a second signal: prun dies of it' "$(kill -l $?)" TERM
	ok 'a second signal: within a second' test $(($(date +%s) - begin)) -le 3
	ok 'a second signal: nothing is left' await gone 'sleep 2600'
}
aside twice

# A database server that answers nothing any more.
if [ "${PRUN_TEST_PG-}" ] && have psql; then
	template=${PRUN_TEST_PG%/*}/frozen
	psql -Xqd "$PRUN_TEST_PG" -c 'CREATE DATABASE frozen'
	server=$(head -n 1 "$PRUN_TEST_PGDATA/postmaster.pid")
	processes() { ps -A -o pid= -o ppid= | awk -v s="$server" '$1 == s || $2 == s { print $1 }'; }
	freeze() { frozen=$(processes); kill -STOP $frozen; }
	echo ': >"$started"; until [ -e go ]; do sleep 0.05; done' | script files/db/test_db.sh
	meanwhile=freeze
	stops 'a frozen database' --db "$template" db
	kill -CONT $frozen
	kill -CONT $(processes)
	meanwhile=
else
	skip 'no PostgreSQL' 'a frozen database: TERM ends prun'
fi
collect
finish
