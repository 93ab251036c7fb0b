#!/bin/sh
# A time-out keeps what was won: the runner gets a signal at which it writes its
# report, and 2 s to do so.
. "${0%/*}/lib.sh"

# status_of CASE: what the merged report says of a case.
status_of() {
	sed -n "s,.*<testcase name=\"$1\".*,&,p" out.xml |
		sed 's,.*<failure.*,failed,; s,.*<error.*type="\([a-z.]*\)".*,\1,; s,.*</testcase>.*,passed,' | tr '\n' ' '
}
# patiently COMMAND...: with a time-out that suffices for the first test to pass, however
# slow the machine is just now.
patiently() {
	for limit in 3 9 30; do
		"$@" -t $limit
		case "$(status_of a)$(status_of test_a)" in *passed*) return ;; esac
	done
}
told() {
	echo "trap 'echo told; exit 0' $1; : >started; while :; do sleep 0.05; done" | script t/test_int.sh
	run -t 0.5 --timeout-signal=$1 t
	has "timeout-signal = $1: it is a TIMEOUT whatever the test exits with" out 'TIMEOUT  t/test_int.sh'
	has "timeout-signal = $1: the log goes on behind the list of processes" out '^    \| told$'
}
for sig in INT TERM QUIT ABRT; do aside told $sig; done
deaf() {
	echo 'trap "" INT TERM; sleep 3300.1; sleep 3300.1' | script t/test_int.sh
	run -t 0.5 --grace=0.2 t
	has 'who takes no signal is killed' out 'TIMEOUT  t/test_int.sh'
	ok 'with all that it has started' await gone 'sleep 3300'
}
aside deaf

PYTHON=${PYTHON:-/usr/bin/python3}
export PYTHON
if "$PYTHON" -c 'import pytest' 2>/dev/null; then
	cat >test_hang.py <<-'END'
	import time
	def test_a(): pass
	def test_b(): assert 1 == 2
	def test_hang(): time.sleep(600)
	def test_never(): pass
	END
	of_pytest() {
		patiently run -o out.xml ../test_hang.py
		is 'pytest: what passed has passed' "$(status_of test_a)" 'passed '
		is 'pytest: what failed has failed' "$(status_of test_b)" 'failed '
		is 'pytest: what hung is the time-out' "$(status_of '\[timeout\]')" 'prun.timeout '
		has 'pytest: its report is counted' out 'TIMEOUT  .*test_hang.py  3 tests, 1 failed'
		has 'pytest: where it hung is shown' out 'test_hang.py:4: KeyboardInterrupt'
	}
	aside of_pytest
	# A shell ignores INT in what it starts with &.
	with_int_ignored() {
		patiently sh -c '"$@" >out 2>&1 & wait $!' sh "$PRUN" -o out.xml ../test_hang.py
		is 'pytest: so it is under prun &' "$(status_of test_a)$(status_of '\[timeout\]')" 'passed prun.timeout '
	}
	aside with_int_ignored
else
	skip 'no pytest' 'pytest: what passed has passed'
fi
if have bats; then
	of_bats() {
		printf '@test "a" { true; }\n@test "hang" { sleep 600; }\n' >hang.bats
		patiently run -o out.xml hang.bats
		is 'bats: what passed has passed' "$(status_of a)" 'passed '
		is 'bats: what hung is the time-out' "$(status_of '\[timeout\]')" 'prun.timeout '
	}
	aside of_bats
else
	skip 'no bats' 'bats: what passed has passed'
fi
if have node && node -e 'require("node:test")' 2>/dev/null; then
	of_node() {
		cat >hang.test.js <<-'END'
		const test = require('node:test');
		test('a', () => {});
		test('hang', async () => { await new Promise(r => setTimeout(r, 600000)); });
		END
		patiently run -o out.xml --test 'node --test --test-reporter=tap "$PRUN_TEST"' hang.test.js
		is 'node: what passed has passed' "$(status_of a)" 'passed '
		is 'node: what hung is the time-out' "$(status_of '\[timeout\]')" 'prun.timeout '
	}
	aside of_node
else
	skip 'no node:test' 'node: what passed has passed'
fi
collect
finish
