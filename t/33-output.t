#!/bin/sh
# What prun prints when standard output is slow, full, closed or hostile.
. "${0%/*}/lib.sh"

# Twelve failing tests whose logs end in more text than a pipe holds.
i=0
while [ $((i += 1)) -le 12 ]; do
	script "f/test_$(printf %02d $i).sh" <<-END
	j=0
	while [ \$((j += 1)) -le 15 ]; do printf '%0499d\n' \$j; done
	: >done.$i
	exit 1
	END
done
ended() { [ "$(ls done.* 2>/dev/null | wc -l)" -eq 12 ]; }

# reader COMMAND...: starts it with a reader that waits for a line in go.
reader() {
	rm -f done.* got pid go status read
	mkfifo go
	{ sh -c 'echo $$ >pid; exec "$@" 2>err' sh "$@"; echo $? >status; } |
		{ read -r line <go; cat >got; : >read; } &
	await test -s pid
}

reader "$PRUN" -j2 -d run f f
ok 'a reader that stops does not stop the tests' await ended
echo go >go
wait
is 'once it reads again it gets everything' "$(grep -c '^\[.*FAIL' got) $(tail -n 1 got) $(cat status)" \
	"12 report: $dir/run/report.xml 1"

reader "$PRUN" -j2 -d run f
await ended
kill -TERM "$(cat pid)"
ok 'TERM ends a run whose reader has stopped' await test -s status
has 'and the report is written' run/report.xml '</testsuites>'
echo go >go
wait

if have python3; then
	cat >slow.py <<-'END'
	import os, pty, sys
	# A terminal that shows nothing until there is a file "go".
	import time
	pid, fd = pty.fork()
	if pid == 0:
	    os.execvp(sys.argv[1], sys.argv[1:])
	open('pid', 'w').write(str(pid) + '\n')
	for i in range(400):
	    if os.path.exists('go'):
	        break
	    time.sleep(0.05)
	out = open('got', 'wb')
	try:
	    while True:
	        data = os.read(fd, 4096)
	        if not data:
	            break
	        out.write(data)
	except OSError:
	    pass
	out.close()
	open('status', 'w').write(str(os.waitpid(pid, 0)[1]) + '\n')
	END
	rm -f done.* got pid go status
	TERM=xterm python3 slow.py "$PRUN" -j2 f &
	ok 'nor does a terminal that takes nothing' await ended
	: >go
	wait
	is 'which then shows everything' "$(grep -c 'FAIL.* f/test' got)" 12
	rm -f done.* got pid go status
	TERM=xterm python3 slow.py "$PRUN" -j2 f &
	await ended
	kill -TERM "$(cat pid)"
	dead() { [ "$(ps -o stat= -p "$(cat pid)" | cut -c 1)" = Z ]; }
	ok 'and TERM ends that run' await dead
	: >go
	wait
else
	skip 'no python3' 'nor does a terminal that takes nothing' 'and TERM ends that run'
fi

if have tmux; then
	tmux="tmux -L prun-out$$ -f /dev/null"
	trap '$tmux kill-server 2>/dev/null; cd /; rm -rf "$dir"' EXIT
	rm -f done.*
	echo ': >begun; while [ ! -e go-on ]; do sleep 0.05; done' | script a/test_a.sh
	echo ': >stopped-screen' | script a/test_b.sh
	$tmux new-session -d -x 60 -y 20 "cd '$dir' && env PS1='$ ' sh"
	rm -f begun go-on
	$tmux send-keys "'$PRUN' -j1 a" Enter
	await test -e begun
	$tmux send-keys C-s
	sleep 0.3               # the terminal has to take it before the test ends
	: >go-on
	ok '^S stops the screen, not the tests' await test -e stopped-screen
	screen() { $tmux capture-pane -p | grep -Eq -e "$1"; }
	$tmux send-keys C-q
	ok '^Q shows what has come meanwhile' await screen '^2 files: 2 passed'
	$tmux kill-server
else
	skip 'no tmux' '^S stops the screen, not the tests' '^Q shows what has come meanwhile'
fi

echo 'exit 0' | script ok/test_ok.sh
if [ -w /dev/full ]; then
	"$PRUN" -d run ok >/dev/full 2>err
	is 'standard output on a full disk gives status 3' $? 3
	has 'with a line that says so' err '^prun: standard output: No space left'
	has 'and the tests have run' run/report.xml 'tests="1" failures="0"'
	"$PRUN" -n ok >/dev/full 2>err
	is 'so it does for -n' "$? $(grep -c 'standard output: No space left' err)" '3 1'
else
	skip 'no /dev/full' 'standard output on a full disk gives status 3'
fi
{ await test -e closed; "$PRUN" -n ok 2>err; echo $? >status; } | { exec 0<&-; : >closed; }
is 'a reader that is gone is SIGPIPE, as for any program' "$(cat status err)" 141
finish
