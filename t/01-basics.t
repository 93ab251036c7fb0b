#!/bin/sh
# Finding files, running them, saying what came of it.
. "${0%/*}/lib.sh"

for i in 1 2 3; do echo "exit 0" | script "e2e/test_$i.sh"; done
echo 'echo "wrong: 2"; exit 1' | script e2e/sub/test_bad.sh
echo 'exit 77' | script e2e/sub/test-skip.sh
echo 'exit 0' | script e2e/test_tool
echo 'exit 0' >e2e/test_notes.txt
echo 'exit 0' | script e2e/.hidden/test_h.sh
echo 'exit 0' | script e2e/node_modules/test_n.sh
echo 'exit 0' | script e2e/helper.sh

run -j2 e2e
is 'a failing file gives status 1' $status 1
has 'it says how many files there are, and how many run at once' out '^6 files, 2 at once$'
has 'a failure is shown with its file' out '^\[[1-6]/6\] FAIL  e2e/sub/test_bad.sh  [0-9.]+s$'
has 'the end of its log is shown' out 'wrong: 2'
has 'the path of its log is shown' out 'test log +/.*/test.log$'
has 'it says how to run it again' out 'again +[^ ]*prun[^ ]* -j2 e2e/sub/test_bad.sh$'
has 'exit status 77 is a skip' out '^\[[1-6]/6\] SKIP  e2e/sub/test-skip.sh'
has 'the table has a line for each file' out '^e2e/test_tool +PASS +- +[0-9.]+s$'
has 'the last lines count by result, wall clock and sum' out \
	'^6 files: 4 passed, 1 skipped, 1 failed   [0-9]+\.[0-9]s \([0-9]+\.[0-9]s of tests\)$'
lacks 'what only looks like a test is not run' out 'helper|hidden|node_modules|notes'
is 'files are in the order of their bytes' \
	"$(sed -n '/^File /,/^$/s/^\(e2e[^ ]*\) .*/\1/p' out | tr '\n' ' ')" \
	'e2e/sub/test-skip.sh e2e/sub/test_bad.sh e2e/test_1.sh e2e/test_2.sh e2e/test_3.sh e2e/test_tool '
kept=$(sed -n 's/^kept: //p' out)
ok 'the run directory stays after a failure' test -f "$kept/report.xml"
has 'results.jsonl begins with the plan' "$kept/results.jsonl" '^\{"prun":.*"file":"e2e/test_tool"'
has 'and has a line for each attempt' "$kept/results.jsonl" \
	'"file":"e2e/sub/test_bad.sh","attempt":1,"start":[0-9.]+,"result":"FAIL","cause":"prun.exit"'
has 'summary.json counts' "$kept/summary.json" '"files":6,"PASS":4.*"FAIL":1'
mkdir sums
cat <<'END' | script sums/a/test_tap.sh
printf '1..3\nok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP not here\n'; exit 1
END
echo 'kill -9 $PPID; sleep 1' | script sums/b/test_dies.sh
printf '[suite one]\nfiles = sums/a\n[suite two]\nfiles = sums/b\n' >sums.conf
run -f sums.conf -d sums.d
one='"tests":3,"failed":1,"skipped":1,"restarts"'
has 'tests, failed and skipped ones and restarts, of the run' sums.d/summary.json "^[^[]*$one:1,"
has 'and of each suite' sums.d/summary.json \
	"\\[\{\"name\":\"one\",\"files\":1,.*$one:0,.*\{\"name\":\"two\",\"files\":1,.*\"restarts\":1,"
has 'an attempt leaves its environment' "$kept/1-test_bad.sh/env" "^export PRUN_INDEX='1'$"
is 'which only its owner may read' "$(ls -l "$kept/1-test_bad.sh/env" | cut -c1-10)" '-rw-------'

rm -rf prun-*
run e2e/test_1.sh e2e/test_2.sh e2e/test_1.sh
is 'passing files give status 0' $status 0
has 'a file that is named twice runs once' out '^2 files: 2 passed'
is 'nothing is left of a run that passed' "$(ls -d prun-* 2>/dev/null)" ''
is 'and it says nothing on standard error' "$(cat err)" ''

run e2e/test_9.sh
is 'a path that does not exist gives status 2' $status 2
is 'in one line that names it' "$(cat err)" 'prun: e2e/test_9.sh: No such file or directory'
mkdir empty
run empty
is 'no files at all give status 4' $status 4
run --no-tests=pass empty
is 'or 0 if that is wanted' $status 0
run
is 'no path and no prun.conf give status 2' $status 2

# Names that shells and logs trip over.
odd="odd/test_ sp'ace \$x \"q\".sh"
echo 'test -f "$PRUN_FILE" && echo "$PRUN_DIR" | grep -q "/[0-9]*-test_"' | script "$odd"
nl='odd/test_new
line.sh'
echo 'test -f "$PRUN_FILE"' | script "$nl"
echo 'exit 0' | script "odd/test_$(printf '\377').sh"
echo 'exit 0' | script odd/-x.sh
run odd ./odd/-x.sh -o odd.xml
is 'names with blanks, quotes, newlines and wild bytes run' $status 0
has 'a newline in a name is no new line on the screen' out 'odd/test_new\\x0aline.sh'
echo 'exit 1' | script "odd/test it's.sh"
run "odd/test it's.sh"
has 'how to run it again can be pasted into a shell' out "again +[^ ]*prun[^ ]* 'odd/test it'\\\\''s.sh'\$"
rm -f "odd/test it's.sh"
if have xmllint; then
	ok 'and the report is well-formed all the same' xmllint --noout odd.xml
else
	skip 'no xmllint' 'and the report is well-formed all the same'
fi

# Environment.
cat <<'END' | script env/test_env.sh
env | sort >"$OUT"
pwd >>"$OUT"
[ -d "$TMPDIR" ] && [ -d "$PRUN_DIR" ] || exit 1
case $TMPDIR in "$PRUN_DIR"*) exit 1 ;; esac
echo "arguments: $*" >>"$OUT"
ls -l /proc/self/fd >>"$OUT" 2>/dev/null
exit 0
END
OUT=$dir/env.out run --env 'HELLO=a $PRUN_INDEX ${PRUN_WORKER}b $x' env -- one 'two three'
is 'a test that looks at its environment passes' $status 0
for name in RUN= SUITE= FILE=env/test_env.sh TEST=env/test_env.sh INDEX=0 WORKER=0 ATTEMPT=1 \
	PORT= URL=http://localhost: DIR=/ JUNIT=/ CPUS=; do
	has "a test gets PRUN_${name%%=*}" env.out "^PRUN_$name"
done
has 'env sets variables, and expands ours' env.out '^HELLO=a 0 0b \$x$'
has 'the test runs in the current directory' env.out "^$dir$"
has 'arguments after -- reach it' env.out '^arguments: one two three$'
if [ -n "$PRUN_VALGRIND" ]; then
	:       # has descriptors of its own
elif [ -d /proc/self/fd ]; then
	exec 7</dev/null
	OUT=$dir/env.out run env
	exec 7<&-
	is 'it has no descriptors but 0, 1 and 2' "$(grep -c -e ' -> ' env.out)" 4 # and ls its own
else
	skip 'no /proc' 'it has no descriptors but 0, 1 and 2'
fi

# The causes that a test alone can give.
echo 'kill -SEGV $$' | script cause/test_segv.sh
echo 'exit 5' | script cause/test_five.sh
printf '#!/no/such/shell\n' >cause/test_interp.sh
: >cause/test_enoexec.sh
chmod +x cause/*.sh
run cause
is 'they all fail' $status 1
has 'a signal is named' out 'killed by signal 11 \(.*[Ss]egmentation'
[ -n "$PRUN_VALGRIND" ] || # whose exec answers otherwise
	has 'a missing interpreter is told as that' out 'test_interp.sh: the interpreter in its first line'
has 'so is a file that is no program' out 'test_enoexec.sh: neither a program nor a script'
has 'what could not be run is an ERROR' out 'ERROR  cause/test_enoexec.sh'
has 'exit status 5 without a report is a failure' out 'FAIL  cause/test_five.sh'
rm -rf prun-*
run --test 'no-such-command "$PRUN_TEST"' e2e/test_1.sh
has 'a command that the shell does not find is an ERROR' out 'ERROR  e2e/test_1.sh'
has 'with the shell'"'"'s reason' out 'exit status 127: .*no-such-command'
run --test 'true "$PRUN_JUNIT"' e2e/test_1.sh
has 'no report, though the command names it, is an ERROR' out 'no report was written to PRUN_JUNIT'
finish
