#!/bin/sh
# A server for each file: its port, its environment, its readiness, its death.
. "${0%/*}/lib.sh"
[ -x "$APP" ] || skip_all 'no demo app (make t/demo/app)'

printf 'one\n' >data
cat >prun.conf <<END
files = t
server = $APP \$PRUN_PORT data
url-env = APP_URL OTHER_URL
port-env = APP_PORT
END
for i in 1 2 3 4; do
	printf '"%s" GET "$APP_URL/count" && [ "$PRUN_URL" = "$OTHER_URL" ] && echo "$APP_PORT" >>"$PORTS"\nwhile [ "$(wc -l <"$PORTS")" -lt "$HOW" ]; do sleep 0.02; done\n' "$HTTP" |
		script t/test_$i.sh
done
PORTS=$dir/ports HOW=4
export PORTS HOW
: >ports
run -j4
is 'four files at once each reach their server' $status 0
is 'and each has a port of its own' "$(sort -u ports | wc -l | tr -d ' ')" 4
ok 'no server is left' gone "$APP.*data"
: >ports
HOW=1 run -j2
is 'two at once' $status 0
is 'each file has a server of its own' "$(wc -l <ports | tr -d ' ')" 4

# The server's environment, session and log.
cat <<END | script serve.sh
env >"\$PRUN_DIR/../server.env"
ps -o pid=,sid=,pgid= -p \$\$ >"\$PRUN_DIR/../ids"
echo "hello from the server"
exec "$APP" "\$PRUN_PORT" data
END
echo 'env >"$PRUN_DIR/../test.env"; exit 1' | script look/test_look.sh
cat >none.conf </dev/null
PYTEST_X=1 KEEP_ME=1 run -f none.conf -d look.d --server ./serve.sh --unset '*PYTEST* NOPE' look
is 'a failing test beside a good server is a FAIL' "$(grep -c 'FAIL  look/test_look.sh' out)" 1
lacks 'unset hides variables from the server' look.d/server.env '^PYTEST_X'
lacks 'and from the test' look.d/test.env '^PYTEST_X'
has 'but no others' look.d/test.env '^KEEP_ME=1'
has 'the server has PRUN_PORT' look.d/server.env '^PRUN_PORT=[0-9]+'
has 'the server logs to a file of its own' look.d/0-test_look.sh/server.log 'hello from the server'
has 'whose path is shown' out 'server log +/.*/server.log'
read -r pid sid pgid <look.d/ids
is 'the server leads a session of its own' "$pid $pid" "$sid $pgid"

# Servers that cannot start.
echo 'exit 0' | script two/test_a.sh
echo 'exit 0' | script two/test_b.sh
echo 'echo "cannot find the flux capacitor"; exit 3' | script dies.sh
run -f none.conf -j1 --server ./dies.sh two
is 'a server that cannot start gives status 3' $status 3
has 'the file is an ERROR' out 'ERROR  two/test_a.sh'
has 'the message says how it ended' out 'the server died before it was ready: exit status 3'
has 'and that it was tried once more' out 'tried once more'
has 'its last lines are shown' out '\| cannot find the flux capacitor'
has 'its log is named' out 'server log +/.*/0-test_a.sh/server.log'
has 'by default the other files are cancelled' out '^two/test_b.sh +CANCEL'
run -f none.conf -j1 --server ./dies.sh --server-failure=continue two
is 'with server-failure = continue the others run' \
	"$status $(grep -c '^two/test_.* ERROR ' out)" '1 2'
run -f none.conf --server 'sleep 1000.5' --ready-timeout=0.3s two
has 'one that does not answer is not ready' out 'not ready after 0.3s \(ready-timeout\): nothing listens on port'
is 'that is status 3, too' $status 3
ok 'and it is gone' gone 'sleep 1000[.]5'
run -f none.conf --server 'no-such-command; exit' two
has 'the shell speaks for itself' out '\| sh: .*no-such-command'
run -f none.conf --server "(sleep 0.5; exec $APP \$PRUN_PORT data) &" two
has 'one that goes to the background is told to stay' out 'exit status 0: it must stay in the foreground'
lacks 'nor is it tried twice' out 'tried'
run -f none.conf --server ./no-such-server two
has 'one that is not there is named' out 'cannot run ./no-such-server: command not found'

# Death in mid-test ends the test at once.
cat <<END | script mid.sh
"$APP" "\$PRUN_PORT" data &
app=\$!
trap 'kill \$app' TERM
until [ -e die ]; do sleep 0.02; done
echo "out of cheese"
kill \$app
exit 9
END
echo ': >die; exec sleep 1000.25' | script mid/test_mid.sh
echo 'exit 0' | script mid/test_other.sh
run -f none.conf -j1 -t 60 --server ./mid.sh mid/test_mid.sh
is 'a server that dies in mid-test makes an ERROR' "$status $(grep -c 'ERROR  mid/test_mid.sh' out)" '1 1'
has 'that says so' out 'the server died during the test: exit status 9'
has 'with the tail of its log' out '\| out of cheese'
ok 'and the test is ended with it' gone 'sleep 1000[.]25'

# Readiness in its forms.
echo 'exit 0' | script r/test_r.sh
cat <<END | script late.sh
sleep 0.3
echo "now listening"
exec "$APP" "\$PRUN_PORT" data
END
ready() {
	name=$1
	shift
	run -f none.conf --keep=never "$@" r
	is "$name" $status 0
}
ready 'tcp waits for a late server' --server ./late.sh
ready 'http wants 2xx' --server ./late.sh --ready='http /items'
run -f none.conf --keep=never --server ./late.sh --ready='http /nowhere' --ready-timeout=1s r
has '404 is not ready, which is told' out 'GET /nowhere on port [0-9]+ answers HTTP/1.0 404'
ready 'log waits for a line' --server ./late.sh --ready='log ^now listening$'
# The first to start dies at once; its child says that it is ready when it is being stopped.
cat <<END | script twice.sh
if ! [ -e first ]; then
	: >first
	sh -c 'trap "" TERM; : >deaf; sleep 0.3; echo now listening' &
	until [ -e deaf ]; do sleep 0.02; done
	exit 1
fi
sleep 0.3
: >second
echo now listening
exec "$APP" "\$PRUN_PORT" data
END
echo 'test -e second' | script r2/test_r2.sh
run -f none.conf --server ./twice.sh --ready='log ^now listening$' r2
is 'a line of a server that has died does not make the next one ready' $status 0
ready 'command waits for success' --server ./late.sh --ready="command \"$HTTP\" GET \$PRUN_URL/count"
printf 'sleep 0.1; echo >&"$PRUN_READY_FD"; exec "%s" "$PRUN_PORT" data\n' "$APP" | script fd.sh
ready 'fd waits for a newline' --server ./fd.sh --ready=fd
ready 'none does not wait' --server 'sleep 1000.75' --ready=none
ok 'and the server ends with the attempt' gone 'sleep 1000[.]75'
if have python3; then
	cat >where.py <<-'END'
	import http.server, os, socket, sys, time
	where, reuse = sys.argv[1], sys.argv[2] == "reuse"
	class Server(http.server.ThreadingHTTPServer):
	    address_family = socket.AF_INET6 if ":" in where else socket.AF_INET
	    allow_reuse_address = reuse
	class Handler(http.server.SimpleHTTPRequestHandler):
	    wbufsize = 9999      # an answer comes whole
	    def do_GET(self):
	        time.sleep(float(os.environ.get("SLOW", 0)))
	        super().do_GET()
	Server((where, int(os.environ["PRUN_PORT"])), Handler).serve_forever()
	END
	for limit in 2 20; do           # however slow the machine is just now
		run -f none.conf --keep=never --server 'python3 where.py 127.0.0.1 reuse' \
			--ready='http /nowhere' --ready-timeout=$limit r
		! grep -q 'answers HTTP' out || break
	done
	has 'a wrong answer is told with its text' out 'answers HTTP/1.0 404 File not found: <!DOCTYPE HTML> '
	for limit in 2 20; do
		SLOW=0.4 run -f none.conf --keep=never --server 'python3 where.py 127.0.0.1 reuse' \
			--ready='http /nowhere' --ready-timeout=$limit r
		! grep -q 'answers HTTP' out || break
	done
	has 'also when time is up while the next one is waited for' out 'answers HTTP/1.0 404'
	ready 'a server on 127.0.0.1 only' --server 'python3 where.py 127.0.0.1 reuse'
	ready 'a server on all of IPv4' --server 'python3 where.py 0.0.0.0 reuse'
	if python3 -c 'import socket; socket.socket(socket.AF_INET6).bind(("::1", 0))' 2>/dev/null; then
		ready 'a server on ::1 only' --server 'python3 where.py ::1 reuse'
		ready 'a server on both' --server 'python3 where.py :: reuse'
	else
		skip 'no IPv6' 'a server on ::1 only' 'a server on both'
	fi
	ready 'a server without SO_REUSEADDR gets a second try' --server 'python3 where.py 127.0.0.1 no'
	has 'and is told of' out 'does it set SO_REUSEADDR\?'
else
	skip 'no python3' 'a wrong answer is told with its text' 'also when time is up while the next one is waited for' 'a server on 127.0.0.1 only' 'a server on all of IPv4' \
		'a server on ::1 only' 'a server on both' \
		'a server without SO_REUSEADDR gets a second try' 'and is told of'
fi

# after
run -f none.conf -d after.d --after 'echo "after $PRUN_INDEX $PRUN_FILE" >>after.out' two
is 'after runs after every attempt' "$(sort after.out)" 'after 0 two/test_a.sh
after 1 two/test_b.sh'
# What only the shell can do, without a character that says so.
run -f none.conf --server 'exec sleep 5000.9' --ready none --test 'exit 0' two
is 'a command may be a builtin of the shell' $status 0
finish
