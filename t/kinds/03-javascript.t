#!/bin/sh
# node --test, jest, vitest, mocha: the smallest prun.conf of each.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"
npm jest jest-junit vitest mocha
unset CI
echo '{ "name": "kinds" }' >package.json

# files DIRECTORY SUFFIX: two that pass and one that fails; standard input is their
# beginning.
files() {
	mkdir -p "$1/deep"
	cat >"$1/good$2"
	cp "$1/good$2" "$1/deep/[id]$2"
	echo "test('good', () => {});" | tee -a "$1/deep/[id]$2" >>"$1/good$2"
	cp "$1/good$2" "$1/bad$2"
	echo "test('bad', () => { throw new Error('this is bad'); });" >>"$1/bad$2"
	echo "test.skip('skipped', () => {});" >>"$1/bad$2"
}
# told KIND SUFFIX: what a run of them tells
told() {
	is "$1: a failing file fails the run" $status 1
	has "its tests are counted" out "^$1/bad$2 +FAIL +3 "
	has 'and named' out 'bad.*: .*this is bad'
	has 'the others pass' out "^$1/good$2 +PASS +1 "
	has 'those in subdirectories, and of any name, too' out "^$1/deep/\[id\]$2 +PASS +1 "
}

echo "import test from 'node:test';" | files node .test.mjs
cat >prun.conf <<'END'
test = node --test --test-reporter=junit --test-reporter-destination="$PRUN_JUNIT" "$@" "$PRUN_TEST"
END
run node
told node .test.mjs
run node --test 'node --test --test-reporter=tap "$PRUN_TEST"'
has 'so are those of its TAP' out '^node/bad.test.mjs +FAIL +3 '

: | files jest .test.js
cat >prun.conf <<'END'
test = JEST_JUNIT_OUTPUT_FILE="$PRUN_JUNIT" npx --no-install jest
  --reporters=default --reporters=jest-junit
  --maxWorkers=$PRUN_CPUS --runTestsByPath "$@" "$PRUN_TEST"
END
run jest
told jest .test.js
run jest/good.test.js -- -t nothing
has 'a -t that matches nothing skips' out '^jest/good.test.js +SKIP'

echo "import { test } from 'vitest';" | files vitest .test.ts
cat >prun.conf <<'END'
test = npx --no-install vitest run --reporter=junit --outputFile="$PRUN_JUNIT" "$@" "$PRUN_TEST"
END
run vitest
told vitest .test.ts
run vitest/bad.test.ts:2
has 'vitest: FILE:LINE runs one test' out '^vitest/bad.test.ts:2 +PASS'

: | files mocha .spec.js
sed -i.bak 's/^test(/it(/; s/^test\.skip/it.skip/' mocha/*.js mocha/deep/*.js
cat >prun.conf <<'END'
test = npx --no-install mocha --reporter xunit --reporter-option output="$PRUN_JUNIT" "$@"
  "$PRUN_TEST"
END
run mocha
told mocha .spec.js
run mocha/good.spec.js -- -g nothing
has 'a -g that matches nothing is NONE' out '^mocha/good.spec.js +NONE'
finish
