#!/bin/sh
# Ports: nobody else's, whoever else opens and closes them.
. "${0%/*}/lib.sh"
[ -x "$APP" ] || skip_all 'no demo app (make t/demo/app)'

cat >binder.c <<'END'
/* opens and closes ports without pause, until its parent has gone */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void)
{
	struct sockaddr_in a;
	socklen_t len;
	int s, c, parent = getppid();
	while (getppid() == parent) {
		memset(&a, 0, sizeof(a));
		a.sin_family = AF_INET;
		a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		s = socket(AF_INET, SOCK_STREAM, 0);
		len = sizeof(a);
		if (bind(s, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(s, 1) == 0
		&& getsockname(s, (struct sockaddr *)&a, &len) == 0) {
			c = socket(AF_INET, SOCK_STREAM, 0);
			connect(c, (struct sockaddr *)&a, len);
			close(c);
		}
		close(s);
	}
	return 0;
}
END
cc -o binder binder.c || exit 3
mkdir t
# Each server tells its own nonce, which its test compares.
cat >server.sh <<END
echo "nonce \$PRUN_RUN \$PRUN_INDEX" >"\$PRUN_DIR/data"
exec "$APP" "\$PRUN_PORT" "\$PRUN_DIR/data"
END
echo "[ \"\$(\"$HTTP\" GET \"\$PRUN_URL/items\")\" = \"nonce \$PRUN_RUN \$PRUN_INDEX\" ]" | script one.sh
for i in $(awk 'BEGIN { for (i = 0; i < 100; i++) print 1000 + i }'); do ln one.sh "t/test_$i.sh"; done
: >binders
./binder & echo $! >>binders
./binder & echo $! >>binders
"$PRUN" -j16 --server 'sh server.sh' t -q >two.out 2>&1 &
second=$!
run -j16 --server 'sh server.sh' t
is 'a hundred files with servers at -j16, beside another run and two that open and close ports' \
	"$status $(grep -c '100 files: 100 passed' out)" '0 1'
lacks 'no port was lost' out 'was taken'
wait $second
is 'nor did the other run suffer' $? 0
for pid in $(cat binders); do kill "$pid"; done
wait 2>/dev/null

# A port that is taken between choosing and binding is noticed.
if have python3; then
	cat >steal-once.py <<-'END'
	# The first time, takes the port for somebody else and fails to bind it.
	import os, socket, sys, time
	if not os.path.exists("stolen"):
	    open("stolen", "w").close()
	    s = socket.socket()
	    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	    s.bind(("127.0.0.1", int(os.environ["PRUN_PORT"])))
	    s.listen(1)
	    if os.fork() == 0:
	        os.setsid()
	        time.sleep(60)
	    time.sleep(0.3)     # or its session ends with us
	    os._exit(1)
	os.execlp("sh", "sh", "server.sh")
	END
	run --server 'python3 steal-once.py' --ready='http /items' t/test_1000.sh
	is 'a lost port: the attempt goes on with another' $status 0
	has 'and says so' out 'port [0-9]+ was taken by another process; tried another'

	# Nobody takes its own call for an answer.
	cat >bait.py <<-'END'
	import time
	time.sleep(0.5)
	END
	run --server 'python3 bait.py' --ready-timeout=5 --server-failure=continue t/test_1000.sh
	has 'an unheld port that nobody serves never answers' out 'the server died before it was ready'
	cat >backlog.py <<-'END'
	# Listens with no room, and never accepts.
	import os, socket, time
	s = socket.socket()
	s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	s.bind(("127.0.0.1", int(os.environ["PRUN_PORT"])))
	s.listen(0)
	time.sleep(60)
	END
	echo 'exit 0' | script n/test_n.sh
	run --server 'python3 backlog.py' n
	is 'a server that never accepts is ready for tcp' $status 0
	for limit in 2 20; do           # however slow the machine is just now
		run --server 'python3 backlog.py' --ready='http /' --ready-timeout=$limit n
		grep -q 'nothing listens' out || break
	done
	has 'and never for http' out 'it does not answer GET / on port'
else
	skip 'no python3' 'a lost port: the attempt goes on with another' 'and says so' \
		'an unheld port that nobody serves never answers' \
		'a server that never accepts is ready for tcp' 'and never for http'
fi
finish
