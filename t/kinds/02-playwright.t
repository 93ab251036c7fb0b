#!/bin/sh
# Playwright: which tests run, existing configurations, what a test leaves.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"
npm @playwright/test
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
	skip_all 'no chromium'
CHROMIUM=$chromium
export CHROMIUM
unset CI

cat >playwright.config.js <<'END'
module.exports = { testDir: 'tests' };
END
spec() {
	mkdir -p "${1%/*}"
	cat >"$1"
}
spec tests/cart.spec.js <<'END'
const { test } = require('@playwright/test');
test('adds (one)', async () => {});
test.describe('group', () => {
	test('adds', async () => {});
	test('adds twice', async () => {});
});
END
for name in shopping-cart '[art]' Cart "it's \$HOME+\\x (ü)"; do
	cp tests/cart.spec.js "tests/$name.spec.js"
done
cp tests/cart.spec.js tests/cart.test.mjs
sed -i.bak "1s/.*/import { test } from '@playwright\/test';/" tests/cart.test.mjs

# cases REPORT: how often each case is there
cases() { sed -n 's/.*<testcase name="\([^"]*\)" classname="\([^"]*\)".*/\2 \1/p' "$1"; }
run tests -o all.xml
is 'every name of a file is found, and is run' "$status $(tail -n 2 out | head -n 1 | cut -d ' ' -f 1-4)" \
	'0 6 files: 6 passed'
is 'and runs that file alone' "$(cases all.xml | sort | uniq -c | awk '$1 != 1')" ''
is 'with all of its tests' "$(cases all.xml | grep -c adds)" 18
run 'tests/[art].spec.js' -o one.xml
is 'a name that is a glob, too, is the file' "$(cases one.xml | cut -d ' ' -f 1 | sort -u)" \
	'[art].spec.js'
run 'tests/cart.spec.js::adds (one)' 'tests/cart.spec.js::group adds' \
	'tests/[art].spec.js::group › adds twice' tests/Cart.spec.js:4 -o one.xml
is 'FILE::TITLE and FILE:LINE select' "$status $(cases one.xml | LC_ALL=C sort | tr '\n' ,)" \
	'0 Cart.spec.js group › adds,[art].spec.js group › adds twice,cart.spec.js adds (one),cart.spec.js group › adds,cart.spec.js group › adds twice,'
run tests/cart.spec.js -- -g nothing
is 'a -g that matches nothing is NONE' "$status $(grep -c '^tests/.* NONE ' out)" '0 1'
has 'which is said' out '^warning: no file had any tests'
echo 'const { test } = require(' >tests/broken.spec.js
run tests/broken.spec.js
has 'a file that cannot be loaded fails' out '^tests/broken.spec.js +FAIL'

# An existing configuration starts a server of its own and knows its address.
cat >app.js <<'END'
require('http').createServer((req, res) => {
	res.setHeader('content-type', 'text/html');
	res.end(`<h1>port ${process.env.PORT}</h1>`);
}).listen(process.env.PORT, 'localhost');
END
spec e2e/home.spec.js <<'END'
const { test, expect } = require('@playwright/test');
test('home', async ({ page }) => {
	await page.goto('/');
	await expect(page.locator('h1')).toHaveText('port ' + process.env.PRUN_PORT);
});
END
cat >prun.conf <<'END'
server = node app.js
port-env = PORT
END
cat >playwright.config.js <<'END'
module.exports = {
	testDir: 'e2e',
	use: {
		baseURL: 'http://localhost:3000',
	},
	webServer: { command: 'node app.js', port: 3000, reuseExistingServer: true },
};
END
run -n e2e
has 'a configuration that has a server of its own is warned of' err \
	'^prun: playwright.config.js has a webServer or baseURL without PRUN_URL'
cat >playwright.config.js <<'END'
module.exports = {
	testDir: 'e2e',
	use: {
		baseURL: process.env.PRUN_URL || 'http://localhost:3000',
		launchOptions: { executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] },
		screenshot: 'only-on-failure',
		trace: 'retain-on-failure',
	},
	webServer: process.env.PRUN_URL ? undefined : {
		command: 'PORT=3000 node app.js', url: 'http://localhost:3000',
	},
};
END
run e2e
is 'with PRUN_URL in it, it is not' "$(cat err)" ''
has 'and the tests use the server of their file' out '^e2e/home.spec.js +PASS +1 '
sed -i.bak '/baseURL/d; /webServer/,/^	}/d' playwright.config.js
run e2e
has 'without baseURL it needs nothing' out '^e2e/home.spec.js +PASS +1 '

# What a failing test leaves.
cat >e2e/bad.spec.js <<'END'
const { test, expect } = require('@playwright/test');
test('bad', async ({ page }) => {
	await page.goto('/');
	await expect(page.locator('h1')).toHaveText('nothing', { timeout: 100 });
});
END
mkdir out.d
run e2e -d out.d/run -o out.d/report.xml --env 'PLAYWRIGHT_BLOB_OUTPUT_FILE=blob/$PRUN_INDEX.zip' \
	-- --reporter=junit,blob
is 'a failing test fails' $status 1
is 'the screen names what it left' "$(sed -n 's/^    left  *//p' out)" \
	"$dir/out.d/run/0-bad.spec.js/test-results"
ok 'its trace is kept' test -e out.d/run/0-bad.spec.js/test-results/*/trace.zip
ok 'and its screenshot' test -e out.d/run/0-bad.spec.js/test-results/*/test-failed-1.png
attachment=$(sed -n 's/.*\[\[ATTACHMENT|\(.*\)\]\].*/\1/p' out.d/report.xml | head -n 1)
ok 'the report names them as they are found from here' test -s "./$attachment"
is 'blob reports are written beside ours' "$(echo blob/*)" 'blob/0.zip blob/1.zip'
PLAYWRIGHT_HTML_OPEN=never node_modules/.bin/playwright merge-reports --reporter=html,line blob \
	>merged 2>&1
has 'and are merged to one' merged '^  1 passed'
ok 'in HTML' test -s playwright-report/index.html
finish
