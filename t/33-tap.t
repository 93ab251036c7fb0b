#!/bin/sh
# TAP read strictly: what no harness would let pass fails, what is no TAP does not;
# and a table of logs beside Perl's TAP::Parser and npm's tap-parser.
. "${0%/*}/lib.sh"

# tap NAME: prun's verdict of a test that prints NAME.log and exits with 0; the cases
# of its report stand in cases, a line each: name, result.
tap() {
	echo "cat '$dir/$1.log'" | script "t/test_$1"
	run -d run -o r.xml "t/test_$1"
	sed -n 's/^  <testcase name="\([^"]*\)" [^>]*>\(<\([a-z]*\)\)\{0,1\}.*/\1 \3/p' r.xml |
		sed 's|/testcase||; s/ $//' >cases
}
lines() { printf '%s\n' "$@"; }

# Directives.
lines 1..3 'not ok 1 - renders /#todos page' 'not ok 2 - opens #todos' 'not ok 3 a#skip' >mark.log
tap mark
is 'a # inside a word, or before one, is no directive' "$status $(grep -c failure cases)" '1 3'
lines 1..4 'not ok 1 - a # TODO why' 'ok 2 #skip' 'ok 3 - c # SKIPPED: later' 'ok 4 - d # todo' >directives.log
tap directives
is 'directives are read in any case, with or without a reason' "$status $(cat cases)" '0 a system
test 2 skipped
c skipped
d system'
has "a failing TODO's reason can be read" r.xml '<system-out>TODO why'
lines 1..1 'not ok 1 - a # SKIP it' >notok.log
tap notok
is '"not ok" passes with a TODO only' "$status" 1

# Names and times.
lines 1..6 'ok 1 - --verbose prints' 'ok 2 --quiet' 'ok 3 - a \# b \\ c' 'ok 4 - timed # time=12.34ms' 'ok 5 spent in 24ms' 'ok 6 - whole # time=2000ms' >names.log
tap names
is 'names lose one dash, escapes and times' "$(cat cases)" '--verbose prints
--quiet
a # b \ c
timed
spent
whole'
is 'the times are those of the cases' "$(grep -o 'testcase .* time="[0-9.]*"' r.xml | sed 's/.*time=//' | tr '\n' ' ')" \
	'"0.000000" "0.000000" "0.000000" "0.012340" "0.024000" "2.000000" '
printf '%s\n' 'sleep 0.3; echo 1..1; echo ok 1' | script t/test_slow
run -q -o r.xml t/test_slow
has 'where no case has a time the suite has that of the test' r.xml '<testsuite .* time="0\.[3-9][0-9]*"'

# What is TAP, and what is not.
lines 1..5 'done' >plan.log
tap plan
is 'a plan without results is no TAP' "$status $(cat cases)" '0 [exit]'
lines 'TAP version 14' 1..5 >version.log
tap version
is 'with a version line it is' "$status $(cat cases)" '1 [plan] error'
lines '=== RUN TestSplit' '1..2' '--- PASS: TestSplit' 'ok  	example.org/split	0.002s' >go.log
tap go
is "nor is Go's log, whatever its tests print" "$status" 0
printf '\357\273\277TAP version 13\n1..1\nnot ok 1\n' >bom.log
tap bom
is 'a byte order mark hides nothing' "$status" 1
lines 'ok 1 - a' 'ok 2 - b' >unplanned.log
tap unplanned
is 'results from 1 without a plan are TAP without a plan' "$status $(grep -c 'there is no plan' r.xml)" '1 1'
printf '1..1\nnot ok 1 - a\n#\n#\tcd sub && make\n' >tabs.log
tap tabs
has "the message of git's tests is their whole command" out '^    t/test_tabs a: cd sub && make$'
printf 'ok 1 - a\nmissing.sh: not found\n' >ended.log
tap ended
has 'where a test ended before its plan, the end of its log is shown' out '^    \| missing.sh: not found$'
lines 1..2 'ok 1 - a' 'not ok 2 - b' >both.log
tap both
lacks 'but not where one failed' out '^    \| '
lines 1..3 'ok 1' 'ok 1' 'ok 3' >twice.log
tap twice
is 'a number that is there twice is an error' "$status $(grep -c 'number is there twice' r.xml)" '1 1'
lines 1..2 'ok 1' 'ok 7' >beyond.log
tap beyond
is 'so is one beyond the plan' "$status $(grep -c 'test 7 is beyond the plan' r.xml)" '1 1'
lines 1..2 'ok 1' '1..9' 'ok 2' >noise.log
tap noise
is 'a plan among results is output' "$status" 0
lines 1..2 'ok 1' 'ok 2' 1..1 'ok 1' >two.log
tap two
is 'two programs may speak after each other' "$status $(grep -c '' cases)" '0 3'
lines 1..2 'ok 1' 'ok 2' 1..3 'ok 1' >second.log
tap second
is 'and the second one is held to its plan' "$status" 1

# Text.
cat >yaml.log <<'X'
1..2
not ok 1 - a
  ---
  message: "boom"
  duration_ms: 3.5
  data: |
    ...
    ok 2 - not a result
  ...
not ok 2 - b
  ---
  error: |-
    expected 1
not ok 3 - beyond
X
tap yaml
has 'a YAML block gives message and time' r.xml 'name="a" .* time="0.003500".*><failure message="boom">'
has 'its message may stand in the next line' r.xml '<failure message="expected 1">'
is 'it ends where its lines are indented less' "$(cat cases)" 'a failure
b failure
beyond failure
[plan] error'
lines 1..1 'not ok 1 - letters' "#   Failed test 'letters'" '#   at some.t line 4.' >diag.log
tap diag
has 'without YAML the first diagnostic is the message' r.xml "<failure message=\"Failed test 'letters'\">"
# Limits.
awk 'BEGIN { print "1..1000"; for (i = 1; i <= 1000; i++) { printf "ok"; for (k = 0; k < 5000; k++) printf " #a"; print "" } }' >marks.log
(ulimit -v 150000; tap marks)
is 'a line of 5,000 marks costs as much as any other' "$(grep -c '' cases)" 1000
awk 'BEGIN { print "TAP version 13"; for (i = 1; i <= 3000000; i++) print "ok" }' >endless.log
tap endless
has 'a log of too much TAP is an error' r.xml 'too much TAP'

# The table: each log as it is, as exit status 0 would leave it; prun, Perl, npm.
perl=no npm=no
perl -MTAP::Parser -e 1 2>/dev/null && perl=yes
NODE_PATH=${PRUN_TEST_NPM:-$top/t/npm}/node_modules
export NODE_PATH
node -e 'require("tap-parser")' 2>/dev/null && npm=yes
cat >perl.pl <<'X'
use TAP::Parser;
local $/; open my $f, '<', shift; my $p = TAP::Parser->new({ tap => <$f> });
$p->run; print $p->has_problems ? "fail" : "pass";
X
cat >npm.js <<'X'
const { Parser } = require('tap-parser')
const parser = new Parser(result => process.stdout.write(result.ok ? 'pass' : 'fail'))
require('fs').createReadStream(process.argv[2]).pipe(parser)
X
cp "$top"/t/tap/*.tap .
if have bats; then
	lines '@test "sum" { [ $((1 + 1)) = 2 ]; }' '@test "bad" { false; }' '@test "out" { skip "not today"; }' >a.bats
	bats --tap a.bats >bats.tap
fi
if node --test --test-reporter=tap --help >/dev/null 2>&1; then
	lines "const { describe, it } = require('node:test')" "describe('list', () => { it('grows', () => {}); it('later', { todo: true }, () => { throw Error('x') }) })" >a.js
	node --test-reporter=tap a.js >node.tap
fi
if perl -MTest::More -e 1 2>/dev/null; then
	lines 'use Test::More; ok 1; subtest s => sub { plan tests => 1; ok 1, "in" }; TODO: { local $TODO = "later"; ok 0, "not yet" } done_testing;' >a.pl
	perl a.pl >more.tap 2>/dev/null
fi
for log in *.tap; do
	cp "$log" "${log%.tap}.log"
	tap "${log%.tap}"
	case $status in 0) ours=pass ;; *) ours=fail ;; esac
	theirs=-
	[ $perl = no ] || theirs=$(perl perl.pl "$log")
	other=-
	[ $npm = no ] || other=$(node npm.js "$log")
	echo "${log%.tap} $ours $theirs $other"
done >table
# Where they judge otherwise than prun, each with its reason in t/tap/DIFFERENCES.
grep -v '^#' "$top/t/tap/DIFFERENCES" | while read -r log ours theirs other reason; do
	[ $perl = yes ] || theirs=-
	[ $npm = yes ] || other=-
	echo "$log $ours $theirs $other"
done >wanted
awk '($3 != "-" && $3 != $2) || ($4 != "-" && $4 != $2)' table >got
awk '($3 != "-" && $3 != $2) || ($4 != "-" && $4 != $2)' wanted | sort >wanted.sorted
is "prun, Perl's TAP::Parser and npm's tap-parser judge alike but where a reason is known" "$(sort got)" "$(cat wanted.sorted)"
[ $perl$npm != nono ] || skip 'neither TAP::Parser nor tap-parser' 'they were asked'
finish
