#!/bin/sh
# The main job: each pytest file with a PostgreSQL clone, a port and a server
# of its own.  Here it is done through libpq; t/26-postgres-psql.t reads this file
# and does the same through psql.
. "${0%/*}/lib.sh"
PYTHON=${PYTHON:-/usr/bin/python3}
have psql || skip_all 'no psql'
[ -n "$PRUN_TEST_PG" ] || skip_all 'no PostgreSQL (t/with-pg starts one)'
"$PYTHON" -m pytest --version >/dev/null 2>&1 || PYTHON=python3
"$PYTHON" -m pytest --version >/dev/null 2>&1 || skip_all 'no pytest'
export PYTHON

base=app_$(basename "$dir" | tr 'A-Z.' 'a-z_')
sql "CREATE DATABASE $base"
url=${PRUN_TEST_PG%/postgres}/$base
trap 'cd /; drop_all; rm -rf "$dir"' EXIT
databases() { sql "SELECT datname FROM pg_database WHERE datname LIKE '$base%' ORDER BY 1"; }
drop_all() { for db in $(databases); do sql "DROP DATABASE IF EXISTS $db WITH (FORCE)"; done; }

cat >app.py <<'END'
# The app: counts its visitors in the database.
import http.server, os, subprocess, sys
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        n = subprocess.check_output(["psql", "-XAtq", os.environ["DATABASE__URL"], "-c",
            "INSERT INTO visits VALUES ('%s') RETURNING (SELECT count(*) FROM visits)" % self.path])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(n.strip() + b" " + os.environ.get("SECRET_TOKEN", "none").encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
END
mkdir -p tests/e2e
for i in 1 2 3; do
	cat >tests/e2e/test_$i.py <<-END
	import os, urllib.request
	def get(path):
	    return urllib.request.urlopen(os.environ["E2E_BASE_URL"] + path).read().decode()
	def test_counts_from_the_template_on():
	    assert get("/$i") == "1 none"      # the template has one visit
	    assert get("/$i") == "2 none"
	def test_url():
	    assert os.environ["DATABASE__URL"] == os.environ["PRUN_DB_URL"]
	    assert os.environ["PRUN_DB"] in os.environ["PRUN_DB_URL"]
	def test_three_is_bad():
	    assert $i != 3
	END
done
cat >setup.sh <<'END'
echo "setup $PRUN_DB_URL" >>setup.out
psql -Xq "$DATABASE__URL" -c 'CREATE TABLE IF NOT EXISTS visits (path text)' \
	-c 'TRUNCATE visits' -c "INSERT INTO visits VALUES ('template')"
END
cat >prun.conf <<END
jobs = 3
junit = build/report.xml
setup = sh setup.sh
db = $url
db-env = DATABASE__URL
server = $PYTHON app.py \$PRUN_PORT
url-env = E2E_BASE_URL
unset = SECRET_*
END
mkdir build
SECRET_TOKEN=hush
export SECRET_TOKEN

for way in ${ways:-libpq}; do
	if [ $way = psql ]; then
		PRUN_LIBPQ=none
		export PRUN_LIBPQ
	fi
	rm -f setup.out
	run tests/e2e
	is "$way: one failing file fails the run" $status 1
	has 'all files ran' out '^3 files: 2 passed, 1 failed'
	is 'setup ran once' "$(cat setup.out)" "setup $url"
	clone=$(databases | grep "^${base}_w2_")
	is 'passed clones are dropped, the failed one stays' "$(databases | tr '\n' ' ')" "$base $clone "
	has 'its URL is printed' out "database +${PRUN_TEST_PG%/postgres}/$clone$"
	is 'what the test did is in it' "$(psql -XAtq "${PRUN_TEST_PG%/postgres}/$clone" -c \
		"SELECT string_agg(path, ' ') FROM visits")" 'template /3 /3'
	has 'and marked as kept' /dev/stdin 'prun keep [0-9TZ:-]+ tests/e2e/test_3.py' <<-END
	$(sql "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '$clone'")
	END
	env=$(sed -n 's/^ *environment //p' out)
	has 'the environment can be sourced' /dev/stdin "$clone" <<-END
	$(. $env; echo "$DATABASE__URL")
	END
	ok 'no server is left' gone "app.py"
	run tests/e2e/test_1.py -j max
	is 'a passing run' $status 0
	is 'leaves the kept one alone' "$(databases | tr '\n' ' ')" "$base $clone "
	sql "DROP DATABASE $clone"
	run --keep=never tests/e2e
	is 'keep = never keeps none' "$(databases)" "$base"

	# Someone sits on the template.
	psql -XAtq "$url" -c 'SELECT pg_sleep(60)' >/dev/null 2>&1 &
	sitter=$!
	sits() { [ "$(sql "SELECT 1 FROM pg_stat_activity WHERE datname = '$base'")" ]; }
	await sits
	run tests/e2e/test_1.py -v
	is 'a session on the template is ended' $status 0
	has 'and named' out "ended a session on $base: pid [0-9]+, user postgres, psql"
	wait $sitter

	# No database to clone, none to ask.
	run --db "$url-nope" --setup none tests/e2e/test_1.py
	is 'a template that does not exist gives status 3' $status 3
	has 'and is told as that' out "database \"$base-nope\" does not exist; create it"
	run --db postgresql://postgres@127.0.0.1:1/x --setup none tests/e2e/test_1.py
	is 'so does a server that is not there' $status 3
	has 'with the reason' out '[Cc]onnection refused'
	run --setup 'echo the migration broke; exit 4' tests/e2e
	is 'a setup that fails gives status 3' $status 3
	has 'with its output' out 'the migration broke'
	has 'and what it was' out 'setup failed: exit status 4; see /.*/setup.log'
	has 'nothing ran' out '^3 files: 0 passed, 3 cancelled'

	# Cancelled and killed.
	rm -f started
	"$PRUN" --test ': >started; exec sleep 3000.1' tests/e2e/test_1.py tests/e2e/test_2.py >out 2>&1 &
	pid=$!
	await test -e started
	kill -TERM $pid
	wait $pid
	is 'a cancelled run leaves no clone' "$(databases)" "$base"
	rm -f started
	"$PRUN" --test ': >started; exec sleep 3000.1' tests/e2e/test_1.py tests/e2e/test_2.py >out 2>&1 &
	pid=$!
	await test -e started
	kill -9 $pid
	wait $pid 2>/dev/null
	only_template() { [ "$(databases)" = "$base" ]; }
	ok 'nor does one that was killed' await only_template
	ok 'and its processes are gone' await gone 'sleep 3000[.]1'
	# prun and all its workers at once: nobody is left to drop the clones.
	rm -f started
	"$PRUN" --server none --test ': >started; exec sleep 3000.2' tests/e2e/test_1.py tests/e2e/test_2.py >out 2>&1 &
	pid=$!
	await test -e started
	kill -9 $pid $(ps -A -o pid= -o ppid= | awk -v p=$pid '$2 == p { print $1 }')
	wait $pid 2>/dev/null
	ok 'a clone is left when prun and all workers are killed' test "$(databases)" != "$base"
	idle() { [ -z "$(sql "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid()
		AND (application_name IN ('prun', 'psql') OR datname LIKE '${base}_w%')")" ]; }
	await idle              # the server has noticed
	ok 'the leaders of its sessions died with the workers' gone 'sleep 3000[.]2'
	run --db none --setup none --server none --test 'echo "$PRUN_RUN" >dead' tests/e2e/test_1.py
	dead=$(cat dead)
	sql "CREATE DATABASE ${base}_w0_$dead"
	sql "CREATE DATABASE ${base}_w1_$dead"
	sql "COMMENT ON DATABASE ${base}_w1_$dead IS 'prun keep now x'"
	sql "CREATE DATABASE ${base}_mine"
	run --server none --test true tests/e2e/test_1.py
	is 'what dead runs have left is swept by the next one, nothing else' "$(databases | tr '\n' ' ')" \
		"$base ${base}_mine ${base}_w1_$dead "
	sql "DROP DATABASE ${base}_mine"
	sql "DROP DATABASE ${base}_w1_$dead"

	# A server that cannot start: no clone of any file is left.
	run --server 'exit 3' tests/e2e
	is 'a server that cannot start leaves no clone' "$status $(databases)" "3 $base"
	[ $way = libpq ] && run tests/e2e/test_1.py --keep=always &&
		sql "DROP DATABASE $(databases | grep "^${base}_w0_")"
done

# Passwords.
unset PRUN_LIBPQ
masked=$(echo "$url" | sed 's/postgres@/postgres:s3kr3t@/')
for way in ${ways:-libpq}; do
	[ $way = libpq ] || { PRUN_LIBPQ=none; export PRUN_LIBPQ; }
	rm -rf build/report.xml* secret.d
	run -d secret.d --db "$masked" --setup 'ps -A -o args >ps.out' --server none \
		--test 'ps -A -o args >>ps.out; exit 1' tests/e2e/test_1.py
	lacks 'a password is in no arguments' ps.out '^[^-]*psql.*s3kr3t'
	lacks 'nor on the screen' out 's3kr3t'
	has 'where it is masked' out 'postgres:\*\*\*@'
	ok 'nor in a report' not grep -r s3kr3t build secret.d/results.jsonl secret.d/report.xml
	has 'the env file has it' secret.d/0-test_1.py/env 's3kr3t'
	for db in $(databases | grep "^${base}_w"); do sql "DROP DATABASE $db"; done
done
finish
