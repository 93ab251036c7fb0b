#!/bin/sh
# repeat = N: the copies of a file.
. "${0%/*}/lib.sh"

# copy 2 of three fails in one test, copy 3 in another.
cat <<'END' | script t/test_a.sh
echo "$PRUN_REPEAT $PRUN_INDEX $PRUN_PORT ${PRUN_DB_URL##*/} $PRUN_DIR" >>seen
r() { echo "<testcase name='$1'>$([ "$PRUN_REPEAT" = "$2" ] && echo "<failure message='copy $2'/>")</testcase>"; }
{ echo '<testsuite name="s">'; r one 2; r two 3; r three 9; echo '</testsuite>'; } >"$PRUN_JUNIT"
case $PRUN_REPEAT in 2 | 3) exit 1 ;; esac
END
echo 'exit 0' | script t/test_b.sh
echo data >app.db
run -n --repeat=3 t/test_b.sh
is '-n shows the copies' "$(grep -c '^t/test_b.sh ([123]/3)$' out)" 3
run -j8 --repeat=3 --db sqlite:///app.db -d run -o r.xml --history=h t
is 'a copy that fails fails the run' $status 1
for field in 1 2 3 4 5; do
	cut -d ' ' -f $field seen | sort -u | wc -l
done >distinct
is 'each copy has its number, index, port, clone and directory' "$(tr -d ' \n' <distinct)" 33333
is 'each is shown by its number' "$(grep -c '^t/test_[ab].sh ([123]/3) ' out)" 6
is 'and how many failed, with each message' "$(sed -n '/ failed [0-9]* of/p; /^ *[0-9]* x /p' out)" \
	't/test_a.sh failed 2 of 3
    1 x copy 2
    1 x copy 3'
is 'the report has each test once' "$(grep -o '<testcase name="[a-z]*"' r.xml | sort | tr '\n' ' ')" \
	'<testcase name="one" <testcase name="three" <testcase name="two" '
has 'failed if any copy failed' r.xml '^<testsuites name="prun" tests="4" failures="2" '
lacks 'and never flaky' r.xml 'flaky'
ok 'there is no history of them' test ! -e h
run --merge -o again.xml run
is 'a run directory is merged in the same way' "$status $(grep -c '<testcase' again.xml) $(grep -c '<failure' again.xml)" '0 4 2'
sed 's/"copy":1,/"copy":2,/' run/results.jsonl >damaged
mv damaged run/results.jsonl
run --merge -o again.xml run
is 'second copies without a first one are files that are there twice' "$status $(grep -c 'is there twice' err)" '3 2'

echo 'exit 1' | script t/test_b.sh
run --repeat=2 -r 2 t/test_b.sh
echo 'case $PRUN_REPEAT in 2 | 4) exit 1 ;; 3) exit 2 ;; esac' | script u/test_u.sh
run -j1 --repeat=5 u
is 'copies that failed alike are counted together' "$(sed -n '/ failed [0-9]* of/p; /^ *[0-9]* x /p' out) $(grep -c 'as before' out)" \
	'u/test_u.sh failed 3 of 5
    2 x exit status 1
    1 x exit status 2 1'
run --repeat=2 -r 2 t/test_b.sh
is 'copies that failed alike are told of once' "$(grep -c 'FAIL.* as before$' out) $(grep -c 'again  ' out)" '1 1'
has 'there are no retries' out '^t/test_b.sh \(2/2\) +FAIL'
echo 'mkdir held && sleep 0.2 && rmdir held' | script t/test_b.sh
run -j4 --repeat=4 --serial 't/*' t/test_b.sh
is 'locks hold between copies' $status 0
run -j1 --repeat=1 t/test_b.sh
lacks 'one copy is none' out '\(1/1\)'
for other in --shard=1/2 --audit -i --last-failed; do
	run --repeat=2 $other t/test_b.sh
	is "it does not go with $other" "$status $(grep -c '^prun: --repeat: ' err)" '2 1'
done
run --repeat=0 t
is 'none at all is bad use' $status 2
finish
