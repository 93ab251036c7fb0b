#!/bin/sh
# TAP in a test's log: of bats, Perl, git's shell tests, node; subtests and plans.
. "${0%/*}/lib.sh"

# tap NAME: runs t/test_NAME; the cases of its report then stand in cases, a line each:
# name, and result if it did not pass (a TODO that passed or may fail has text).
tap() {
	run -q -d run -o r.xml "t/test_$1"
	sed -n 's/^  <testcase name="\([^"]*\)" [^>]*>\(<\([a-z]*\)\)\{0,1\}.*/\1 \3/p' r.xml |
		sed 's|/testcase||; s/ system$//; s/ $//' >cases
}

cat <<'X' | script t/test_subtests
cat <<'END'
TAP version 14
1..5
# Subtest: numbers
    1..2
    ok 1 - one
    not ok 2 - two
      ---
      message: "ok 3 - not a result"
      ...
not ok 1 - numbers
    # Subtest: outer
        # Subtest: inner
        ok 1 - deep # SKIP no shovel
        1..1
    ok 1 - inner
    ok 2 - shallow
    1..2
ok 2 - outer
    1..3
    ok 1 - a
    ok 2 - b
not ok 3 - short
    not ok 1 - known
    1..1
not ok 4 - todo # TODO later
ok 5 - last
END
exit 1
X
tap subtests
is 'subtests are named parent/child and stand for their parent' "$(cat cases)" 'numbers/one
numbers/two failure
outer/inner/deep skipped
outer/shallow
short/a
short/b
short/[plan] error
todo/known
last'
has 'YAML is the text of its failure' r.xml 'message: &quot;ok 3|message: "ok 3 - not a result"'

cat <<'X' | script t/test_plans
echo 1..3
echo ok
echo not ok
echo some output
echo '    ok is what this program likes to say'
exit 1
X
tap plans
is 'tests without names have numbers, missing ones are an error' "$(cat cases)" 'test 1
test 2 failure
[plan] error'
has 'which says how many' r.xml 'message="3 tests were planned, 2 were run"'
printf '%s\n' 'echo 1..1' 'echo ok 1' 'echo ok 2' | script t/test_surplus
tap surplus
is 'so are surplus ones' "$(cat cases) $status" 'test 1
test 2
[plan] error 1'
printf '%s\n' 'echo 1..3' 'echo ok 1 - a' 'echo Bail out! no server' 'exit 255' | script t/test_bail
tap bail
is 'Bail out! is an error' "$(cat cases)" 'a
[plan] error'
has 'with its reason' r.xml '<error message="Bail out! no server"'
echo 'echo "1..0 # SKIP no database"' | script t/test_skip
tap skip
is 'a plan of none is a skip' "$(cat cases) $(grep -c 'skipped message="no database"' r.xml)" '[plan] skipped 1'
printf '%s\n' 'echo no plan here' 'echo ok' | script t/test_none
tap none
is 'without plan or version it is no TAP' "$(cat cases)" '[exit]'

echo 'echo "1..5 of 20 rows copied"' | script t/test_rows
tap rows
is 'nor with what only begins like a plan' "$status $(cat cases)" '0 [exit]'

# As git's own tests print it.
cat <<'X' | script t/test_git
cat <<'END'
ok 1 - setup
ok 2 # skip needs symlinks (missing SYMLINKS)
not ok 3 - diff --stat
#	
#		git diff --stat >actual &&
#		test_cmp expect actual
#	
not ok 4 - a bug # TODO known breakage
ok 5 - another bug # TODO known breakage vanished; please update test(s)
# 1 known breakage(s) vanished; please update test(s)
# failed 1 among remaining 3 test(s)
1..5
END
exit 1
X
tap git
is "git's" "$(cat cases)" 'setup
test 2 skipped
diff --stat failure
a bug
another bug'
has 'the failed command is its text' r.xml '^#		test_cmp expect actual$'

if have bats; then
	mkdir b
	cat >b/some.bats <<'X'
@test "addition" { [ $((1 + 1)) = 2 ]; }
@test "this fails" { echo seen; false; }
@test "left out" { skip "not today"; }
X
	run -q -o r.xml b
	is 'bats: all of its tests' "$(grep -o '<testcase name="[^"]*"' r.xml | tr '\n' ' ')" \
		'<testcase name="addition" <testcase name="this fails" <testcase name="left out" '
	has 'with what the failed one said' r.xml '^# seen$'
	has 'and why one was skipped' r.xml '<skipped message="not today"'
else
	skip 'no bats' 'bats: all of its tests' 'with what the failed one said' 'and why one was skipped'
fi

if perl -MTest::More -e 1 2>/dev/null; then
	mkdir p
	cat >p/some.t <<'X'
#!/usr/bin/env perl
use strict; use warnings; use Test::More;
ok 1, 'fine';
subtest 'parts' => sub { plan tests => 2; is 1 + 1, 2, 'sum'; is 'a', 'b', 'letters'; };
subtest 'all left out' => sub { plan skip_all => 'no reason'; };
TODO: { local $TODO = 'later'; ok 0, 'not yet'; }
SKIP: { skip 'no net', 1; }
done_testing;
X
	chmod +x p/some.t
	run -q -o r.xml p
	is "Perl's" "$(sed -n 's/^  <testcase name="\([^"]*\)" [^>]*>\(<\([a-z]*\)\)\{0,1\}.*/\1 \3/p' r.xml | sed 's|/testcase||; s/ system$//; s/ $//')" 'fine
parts/sum
parts/letters failure
all left out skipped
not yet
test 5 skipped'
	has 'with the diagnostics' r.xml "expected: 'b'"
else
	skip 'no Test::More' "Perl's" 'with the diagnostics'
fi

if node --test --test-reporter=tap --help >/dev/null 2>&1; then
	mkdir n
	cat >n/some.js <<'X'
const { describe, it } = require('node:test'), assert = require('node:assert')
describe('list', () => {
	it('grows', () => assert.equal([1].length, 1))
	it('shrinks', () => assert.equal([].length, 1))
})
X
	run -q -o r.xml --test 'node --test-reporter=tap "$PRUN_TEST"' n/some.js
	has "node's" r.xml '<testcase name="list/grows"'
	has 'with the YAML block as text' r.xml "^ *code: 'ERR_ASSERTION'"
else
	skip 'no node with a TAP reporter' "node's" 'with the YAML block as text'
fi
finish
