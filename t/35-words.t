#!/bin/sh
# What a run says: how to run a file again, which file limits it, and whose
# words are not taken for prun's.
. "${0%/*}/lib.sh"

mkdir -p sub/t
echo 'exit 1' | script 'sub/t/test_a b.sh'
printf '[suite one]\nfiles = t\n[suite two]\nfiles = t\n' >sub/two.conf
ln -s "$PRUN" prun
./prun -C sub -f two.conf -s two -d r t -- --x 'a b' '' >out 2>err
has 'the line to run it again is complete' out \
	"^ +again +./prun -C sub -f two.conf -s two -d r 't/test_a b.sh' -- --x 'a b' ''\$"
./prun -C sub -f two.conf t >out 2>err
has 'suites are named where there are several' out 'FAIL +two: t/test_a b.sh'
sh -c "$(sed -n 's/^ *again *\(.*-s two\)/\1/p' out)" >again 2>&1
is 'and the line runs that one alone' "$(grep -c '^\[1/1\] FAIL ' again)" 1

# Which file limits the run.
i=0
while [ $((i += 1)) -le 5 ]; do echo 'sleep 2.2' | script "same/test_$i.sh"; done
run -j max same
lacks 'equal files side by side do not limit the run' out 'limits the run'
cp -R same slow
echo 'sleep 2.4' | script slow/test_1.sh
i=1
while [ $((i += 1)) -le 5 ]; do echo 'sleep 0.9' | script "slow/test_$i.sh"; done
run -j max slow
has 'one much slower than all others does' out 'the slowest file limits the run: slow/test_1.sh'
echo ': >../begun; sleep 60' | script cut/test_1.sh
echo 'sleep 0.3' | script cut/test_2.sh
echo 'sleep 1; : >begun; sleep 60' | script cut/test_1.sh
echo 'sleep 0.9' | script cut/test_3.sh
"$PRUN" -j max -d cut.d cut >out 2>err &
await test -e begun
sleep 1.2                       # a run of less than two seconds says nothing
kill -TERM $!
wait $!
lacks 'nor does one in a run that was cancelled' out 'limits the run'
has 'summary.json has the status that the shell sees of a signal' cut.d/summary.json '"status":143,'

# USR1 and -q.
rm -f begun go
echo ': >begun; while [ ! -e go ]; do sleep 0.05; done' | script u/test_u.sh
"$PRUN" -q u >out 2>err &
await test -e begun
kill -USR1 $!
ok 'USR1 prints what runs, with -q too' await grep -q '^running: test    u/test_u.sh' out
: >go
wait

# An audit is not a run with retries.
cat <<'END' | script a/test_1.sh
mkdir lock 2>/dev/null || { echo busy >&2; exit 1; }
sleep 0.3; rmdir lock
END
cp a/test_1.sh a/test_2.sh
run --audit=2 -j2 -d audit -o first.xml a
run --merge -o merged.xml audit
suites() { sed -n 's/^<testsuite name="\([^"]*\)" .*tests="\([0-9]*\)" failures="\([0-9]*\)" errors="\([0-9]*\)".*/\1 \2 \3 \4/p' "$1"; }
is 'an audit that is merged again has no retries' "$(suites merged.xml)$(grep -c 'rerun\|flaky' merged.xml)" "$(suites first.xml)0"

# A run directory of who knows whom.
echo 'exit 0' | script ok/test_ok.sh
run -d theirs ok
printf 'secret\nnot ok 1 - leaked\n1..1\n' >secret.log
cp -R theirs evil
rm evil/0-test_ok.sh/test.log
ln -s "$dir/secret.log" evil/0-test_ok.sh/test.log
run --merge -o m.xml evil
lacks 'a link in a foreign run directory is not followed' m.xml leaked
has 'which is told' err 'test.log is not in its run directory'
echo 'exit 1' | script bad/test_bad.sh
run -d badly bad
printf '! leaked\n' >secret.notes
rm badly/0-test_bad.sh/notes
ln -s "$dir/secret.notes" badly/0-test_bad.sh/notes
run --merge -o m.xml badly
lacks 'not for the cause either' m.xml leaked
mkdir outer
cp -R theirs outer/evil
sed 's/"dir":"[^"]*"/"dir":".."/' theirs/results.jsonl >outer/evil/results.jsonl
echo '<testsuite><testcase name="leaked"/></testsuite>' >outer/junit.xml
run --merge -o m.xml outer/evil
lacks 'nor is a directory above it' m.xml leaked

# Workflow commands of GitHub, injected.
mkdir -p "g/::error ::d"
cat <<'END' | script "g/::error ::d/test_x.sh"
echo '::error file=x::injected'
echo '##[error]injected'
echo "::stop-commands::$PRUN_RUN"
cat >"$PRUN_JUNIT" <<X
<testsuite><testcase classname="::error ::c" name="::warning::n&#27;[31m"><failure message="::set-output name=x::%0Aboom"/></testcase></testsuite>
X
exit 1
END
GITHUB_ACTIONS=true "$PRUN" -r1 g >out 2>err
# The runner takes commands unless they are stopped by a word that only it and prun know.
cat >runner.awk <<'END'
{ line = $0; sub(/^[ \t]+/, "", line) }
stopped != "" { if (line == "::" stopped "::") stopped = ""; next }
line ~ /^::stop-commands::/ { stopped = substr(line, 18); next }
line ~ /^::|##\[/ { print line }
END
is 'GitHub sees the annotations of prun, and no command of a test' "$(awk -f runner.awk out)" \
	'::error file=g/%3A%3Aerror %3A%3Ad/test_x.sh,title=%3A%3Awarning%3A%3An::::set-output name=x::%250Aboom'
is 'and commands work again for the next step' "$(awk '/^::stop-commands::/ { w = substr($0, 18) } $0 == "::" w "::" { w = "" } END { print w }' out)" ''
cat <<'END' | script many/test_m.sh
{
	echo '<testsuite>'
	i=0
	while [ $((i += 1)) -le 15 ]; do echo "<testcase name='n$i'><failure message='m'/></testcase>"; done
	echo '</testsuite>'
} >"$PRUN_JUNIT"
exit 1
END
GITHUB_ACTIONS=true "$PRUN" many >out 2>err
is 'ten annotations at most' "$(grep -c '^::error' out)" 10
esc=$(printf '\033')
lacks 'no escape of a test reaches the screen' out "$esc"

echo 'exit 3' | script bare/test_b.sh
GITHUB_ACTIONS=true "$PRUN" -r1 bare >out 2>err
is 'a file that fails without a report is annotated, too' "$(grep '^::error' out)" \
	'::error file=bare/test_b.sh,title=prun.exit::exit status 3'

# What a database server says is foreign, too.
if have perl && have psql; then
	cat <<'END' >server.pl
use IO::Socket::INET;
$server = IO::Socket::INET->new(Listen => 9, LocalAddr => "127.0.0.1", LocalPort => 0) or die;
open $f, ">", "port.new"; print $f $server->sockport, "\n"; close $f; rename "port.new", "port";
while ($c = $server->accept) {
	sysread $c, $asked, 9000;
	$m = "SFATAL\0VFATAL\0C3D000\0Mno database\n::error file=a::injected\e[2J\xe2\x80\xae\0"
		. "Dgone\r\n::warning::injected too\xc2\x9b2J\0Hsay\n::error::this\0\0";
	print $c "E", pack("N", 4 + length $m), $m;
	close $c;
}
END
	perl server.pl &
	server=$!
	await test -s port
	for way in libpq psql; do
		[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }
		GITHUB_ACTIONS=true "$PRUN" --keep=never bare \
			--db "postgresql://u@127.0.0.1:$(cat port)/x?sslmode=disable&gssencmode=disable" >out 2>err
		is "$way: a server that refuses ends the run" $? 3
		has "$way: its reason is shown" out '^prun: the database server: .*no database'
		lacks "$way: on one line, and without what a terminal or GitHub would obey" out \
			"$esc|$(printf '\r|\302\233|\342\200\256')|^ *::(error|warning)"
	done
	unset PRUN_LIBPQ
	kill $server
else
	skip 'no perl or no psql' 'a server that refuses ends the run'
fi

# What a failing test left is named.
cat <<'END' | script left/test_l.sh
mkdir "$PRUN_DIR/test-results"
for name in core.7 .hidden $MANY "$(printf 'a\033[2J')"; do : >"$PRUN_DIR/$name"; done
exit 1
END
left() { sed -n "s,^    left  *$1,,p; s,^    and ,&,p" out | tr '\n' '|'; }
run -d left.d --service 'cache sleep 60' left
is 'under a failure is what the test left, but not what prun wrote' \
	"$(left "$dir/left.d/0-test_l.sh/")" 'a\x1b[2J|core.7|test-results|'
run -d many.d --env 'MANY=1 2 3 4' left
is 'five of it, and how many more' "$(left "$dir/many.d/0-test_l.sh/")" '1|2|3|4|a\x1b[2J|    and 2 more|'
run --keep=never left
lacks 'nothing is named that is removed with the run directory' out '^    (left|and) '
finish
