#!/bin/sh
# Before prun may run its own tests: does it report a failing, a passing and
# a missing test as what they are?  Plain checks, no framework.

top=$(cd "${0%/*}/.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/first.XXXXXX") || exit 3
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 3
unset PRUNFLAGS GITHUB_ACTIONS
die() {
	echo "first.sh: $*; prun is not fit to test itself" >&2
	cat out >&2
	exit 1
}

printf '#!/bin/sh\nexit 0\n' >test_good.sh
printf '#!/bin/sh\necho broken >&2\nexit 1\n' >test_bad.sh
chmod +x test_good.sh test_bad.sh

"$top/prun" test_good.sh >out 2>&1 || die "a passing test gives status $?"
grep -q '^\[1/1\] PASS  test_good.sh' out || die "a passing test is not called PASS"
"$top/prun" --keep=never test_good.sh test_bad.sh >out 2>&1
[ $? = 1 ] || die "a failing test does not give status 1"
grep -q 'FAIL  test_bad.sh' out || die "a failing test is not called FAIL"
grep -q '2 files: 1 passed, 1 failed' out || die "the counts are wrong"
"$top/prun" test_missing.sh >out 2>&1
[ $? = 2 ] || die "a missing test does not give status 2"
grep -q 'test_missing.sh' out || die "a missing test is not named"
exit 0
