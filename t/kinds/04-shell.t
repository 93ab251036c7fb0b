#!/bin/sh
# bats, TAP of Perl, tests in the style of git's own.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"

if have bats; then
	mkdir bats
	cat >bats/cart.bats <<-'END'
	setup() { cart=$BATS_TEST_TMPDIR/cart; : >"$cart"; }
	@test "adds" { echo apple >>"$cart"; [ "$(cat "$cart")" = apple ]; }
	@test "is bad" { [ "$(cat "$cart")" = apple ]; }
	@test "is skipped" { skip 'not today'; }
	END
	run bats
	has 'bats: files are found, and their tests counted' out \
		'^bats/cart.bats +FAIL +3 '
	has 'and named' out 'is bad'
	run bats -- --filter adds
	has 'its arguments reach it' out '^bats/cart.bats +PASS +1 '
else
	skip 'no bats' 'bats: files are found, and their tests counted' 'and named' \
		'its arguments reach it'
fi

if perl -MTest::More -e 1 2>/dev/null; then
	mkdir -p t lib
	echo 'package Cart; sub add { $_[0] + 1 } 1' >lib/Cart.pm
	cat >t/cart.t <<-'END'
	use strict;
	use warnings;
	use Test::More tests => 3;
	use Cart;
	is Cart::add(1), 2, 'adds';
	is Cart::add(1), 3, 'is bad';
	subtest group => sub { plan tests => 2; ok 1, 'first'; ok 1, 'second' };
	END
	echo 'use Test::More skip_all => "not today";' >t/skipped.t
	cat >prun.conf <<-'END'
	files = t
	test = perl -Ilib "$PRUN_TEST" "$@"
	END
	run
	has 'Perl: TAP is counted, subtests too' out '^t/cart.t +FAIL +4 '
	has 'a failing test is named' out 'is bad'
	has 'skip_all skips' out '^t/skipped.t +SKIP'
	rm prun.conf
else
	skip 'no Test::More' 'Perl: TAP is counted, subtests too' 'a failing test is named' \
		'skip_all skips'
fi

# git's test-lib.sh wants to be run in its directory, and makes a trash directory there;
# sharness is made of it.
sharness=/usr/share/sharness
if [ -r $sharness/sharness.sh ] && have git; then
	mkdir git
	cat >git/t0001-add.sh <<-END
	#!/bin/sh
	test_description='adds'
	. $sharness/sharness.sh
	test_expect_success 'an empty repository' 'git init . && ls -a && git status'
	test_expect_failure 'a known breakage' 'false'
	test_expect_success 'is bad' 'false'
	test_done
	END
	sed '/is bad/d' git/t0001-add.sh >git/t0002-log.sh
	cat >prun.conf <<-'END'
	files = git/t[0-9]*.sh
	test = cd "${PRUN_TEST%/*}" && sh "./${PRUN_TEST##*/}" --root="$PRUN_DIR" "$@"
	END
	run
	has 'in the style of git: tests are counted' out '^git/t0001-add.sh +FAIL +3 '
	has 'and a known breakage is none' out '^git/t0002-log.sh +PASS +2 '
	ok 'no trash is left in the tree' not ls -d git/trash*
	has 'the repository of a test that failed is named' out '^    left .*/trash directory\.t0001-add'
	run -- --verbose
	has 'arguments reach them' out '^git/t0001-add.sh +FAIL +3 '
else
	skip 'no sharness or no git' 'in the style of git: tests are counted' \
		'and a known breakage is none' 'no trash is left in the tree' \
		'the repository of a test that failed is named' 'arguments reach them'
fi
finish
