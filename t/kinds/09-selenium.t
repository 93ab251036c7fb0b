#!/bin/sh
# Selenium under pytest: a browser of its own for each file, all of it gone at the end.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"
python pytest selenium
have chromedriver || skip_all 'no chromedriver'
CHROMIUM=$(command -v chromium || command -v chromium-browser) || skip_all 'no chromium'
export CHROMIUM

mkdir tests
cat >app.py <<'END'
import http.server, sys
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<title>port " + sys.argv[1].encode() + b"</title>")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
END
cat >tests/conftest.py <<'END'
import os, pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

@pytest.fixture(scope="session")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ["CHROMIUM"]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    yield driver
    if "KEEP" not in os.environ:
        driver.quit()
END
for i in 1 2; do
	cat >tests/test_$i.py <<-'END'
	import os
	def test_title(browser):
	    browser.get(os.environ["E2E_BASE_URL"])
	    assert browser.title == "port " + os.environ["PRUN_PORT"]
	END
done
sed -i.bak "s,/usr/bin/chromedriver,$(command -v chromedriver)," tests/conftest.py
cat >prun.conf <<'END'
server = python3 app.py $PRUN_PORT
url-env = E2E_BASE_URL
END
run -j2 tests
is 'each file has its browser' "$status" 0
[ "$status" = 0 ] || cat prun-*/0*/test.log
KEEP=1
export KEEP
run tests/test_1.py
ok 'one that a test forgets is gone' gone "$dir.*chrom|chrom.*$dir"
finish
