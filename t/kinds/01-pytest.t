#!/bin/sh
# pytest: its cache, xdist, coverage of the tests and of the server.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"
python pytest xdist pytest_cov coverage

# psycopg's conftest.py keeps such a flag.
mkdir cache
cat >cache/conftest.py <<'END'
import os, pytest
@pytest.fixture
def first(cache):
    mine = os.environ["PRUN_FILE"]
    assert cache.get("first/file", mine) == mine
    cache.set("first/file", mine)
END
for i in 1 2 3 4; do
	echo 'def test_cache(first): pass' >cache/test_$i.py
done
run -j2 cache
is 'each file has a cache of its own' "$status" 0
ok 'and leaves none behind' not test -e .pytest_cache
run cache/test_1.py -- -o cache_dir=mine
ok 'unless a cache is asked for' test -d mine

mkdir xdist
cat >xdist/conftest.py <<'END'
import os, pytest
@pytest.fixture(scope="session")
def worker_id():
    return "gw" + os.environ["PRUN_WORKER"]
END
for i in 1 2; do
	cat >xdist/test_$i.py <<-'END'
	import os
	from pathlib import Path
	def test_worker(worker_id):
	    assert os.environ["PYTEST_XDIST_WORKER"] == worker_id
	    Path(worker_id + ".lock").touch(exist_ok=False)
	    while not (Path("gw0.lock").exists() and Path("gw1.lock").exists()):
	        pass
	END
done
run -t 30s -j2 --env 'PYTEST_XDIST_WORKER=gw$PRUN_WORKER' xdist
is 'fixtures made for xdist can name things by PRUN_WORKER' "$status $(echo gw*)" \
	'0 gw0.lock gw1.lock'

mkdir inner
cat >inner/test_inner.py <<'END'
import os, pytest
@pytest.mark.parametrize("n", range(4))
def test_inner(n):
    assert os.environ["PYTEST_XDIST_WORKER_COUNT"] == os.environ["PRUN_CPUS"]
END
cat >prun.conf <<'END'
test = python3 -m pytest -n $PRUN_CPUS "$PRUN_TEST" --junitxml="$PRUN_JUNIT" "$@"
END
run inner
has 'inside a file xdist can use PRUN_CPUS' out '^inner/test_inner.py +PASS +4 '

# Coverage.  The server ends by itself when it is told to.
cat >app.py <<'END'
import http.server, signal, sys

class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(cart() if self.path == "/cart" else search())

def cart():
    return b"cart"

def search():
    return b"search"

def unit():
    return b"unit"

def never():
    return b"never"

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
END
cat >.coveragerc <<'END'
[run]
parallel = true
data_file = build/.coverage
source = .
omit = tests/*
END
mkdir tests build
for i in cart search; do
	cat >tests/test_$i.py <<-END
	import os, urllib.request, app
	def test_$i():
	    assert urllib.request.urlopen(os.environ["PRUN_URL"] + "/$i").read() == b"$i"
	def test_unit():
	    assert app.unit() == b"unit"
	END
done
# Only the line of never() is missing.
covered() {
	# shellcheck disable=SC2086
	python3 -m coverage combine $1 >combined 2>&1
	is "$2" "$(python3 -m coverage report -m | awk '$1 == "app.py" { print $5 }')" \
		"$(awk '/b"never"/ { print NR }' app.py)"
	rm -f build/.coverage*
}
PYTHONPATH=.
export PYTHONPATH
cat >prun.conf <<'END'
server = python3 -m coverage run app.py $PRUN_PORT
test = python3 -m coverage run -m pytest "$PRUN_TEST" --junitxml="$PRUN_JUNIT" "$@"
END
run -j2 tests
is 'under coverage, files pass' $status 0
covered '' 'what test and server covered is combined'
cat >prun.conf <<'END'
server = python3 -m coverage run app.py $PRUN_PORT
env = COVERAGE_FILE=build/.coverage.$PRUN_INDEX-$PRUN_ATTEMPT
END
run -j2 tests -- --cov --cov-report=
is 'with pytest-cov, too' $status 0
covered build 'and combined'
finish
