#!/bin/sh
# Job control and terminals: stopped, continued, closed, drawn upon.
. "${0%/*}/lib.sh"

stopped() { [ -n "$(ps -A -o stat= -o args= | grep '^T.*[s]leep 5000')" ]; }
cat <<'END' | script t/test_pause.sh
: >started
until [ -e go ]; do sh -c 'sleep 0.1; : 5000'; done
sh -c 'sleep 0.5000'
END
"$PRUN" -t 3 t >out 2>err </dev/null &
pid=$!
await test -e started
kill -TSTP $pid
is_stopped() { ps -o stat= -p $pid | grep -q T; }
ok 'TSTP stops prun' await is_stopped
stands() { ps -A -o stat= -o args= | grep '^T' | grep -q '[t]/test_pause.sh'; }
ok 'and its tests' await stands
: >go
sleep 3.5                       # longer than the time-out
kill -CONT $pid
wait $pid
is 'a pause does not count against the time-out' $? 0
has 'nor does the run notice' out 'PASS  t/test_pause.sh'

if have tmux; then
	tmux="tmux -L prun$$ -f /dev/null"
	trap '$tmux kill-server 2>/dev/null; cd /; rm -rf "$dir"' EXIT
	echo ': >on-terminal; exec sleep 5000.1' | script s/test_a.sh
	echo 'exit 1' | script s/test_b.sh
	$tmux new-session -d -x 60 -y 20 "cd '$dir' && env PS1='$ ' sh"
	$tmux send-keys "'$PRUN' -j2 s" Enter
	ok 'it runs on a terminal' await test -e on-terminal
	screen() { $tmux capture-pane -p | grep -Eq -e "$1"; }
	ok 'finished files scroll up' await screen 'FAIL  s/test_b.sh'
	ok 'below them is a line for each worker' await screen '^  test +s/test_a.sh  [0-9]+s'
	$tmux send-keys C-z
	ok '^Z stops it' await stopped
	ok 'and the shell says so' await screen '[Ss]topped'
	$tmux send-keys 'fg' Enter
	not_stopped() { ! stopped; }
	ok 'fg goes on' await not_stopped
	$tmux send-keys C-c
	ok '^C ends it' await screen '2 files: 0 passed, 1 failed, 1 cancelled'
	ok 'and leaves nothing' gone 'sleep 5000[.]1'
	cat <<-'X' | script i/test_ask.sh
	trap 'echo interrupted; exit 3' INT
	printf 'your name? '; read -r name; echo "hello $name"
	echo waiting; while :; do sleep 0.1; done
	X
	$tmux send-keys clear Enter
	$tmux send-keys "'$PRUN' -i --server 'sleep 5000.2' --ready none i" Enter
	ok '-i: the test asks on the terminal' await screen 'your name\?'
	$tmux send-keys 'world' Enter
	ok 'and is answered' await screen '^hello world'
	$tmux send-keys C-c
	ok '^C is for the test' await screen '^(\^C)?interrupted'
	ok 'which ends as it likes' await screen '1 file: 0 passed, 1 failed'
	ok 'and the server is stopped' await gone 'sleep 5000[.]2'
	$tmux send-keys 'echo shell is $((6 * 7))' Enter
	ok 'the shell has its terminal again' await screen '^shell is 42'
	# The debugger reads the terminal, and so does ^C: only it is interrupted.
	PYTHON=${PYTHON:-/usr/bin/python3}
	"$PYTHON" -m pytest --version >/dev/null 2>&1 || PYTHON=python3
	if "$PYTHON" -m pytest --version >/dev/null 2>&1; then
		mkdir pdb
		printf 'def test_pdb():\n    breakpoint()\n    assert True\n' >pdb/test_pdb.py
		$tmux send-keys clear Enter
		$tmux send-keys "PYTHON='$PYTHON' '$PRUN' -i pdb; echo status is \$?" Enter
		ok '-i: a breakpoint of pytest has the terminal' await screen '^\(Pdb\)'
		$tmux send-keys C-c
		ok '^C at its prompt gives another one' await screen '^\(Pdb\) .*\^C|KeyboardInterrupt'
		$tmux send-keys c Enter
		ok 'and the test goes on and passes' await screen '^1 file: 1 passed'
		ok 'with status 0' await screen '^status is 0'
	else
		skip 'no pytest' '-i: a breakpoint of pytest has the terminal'
	fi
	rm -f on-terminal
	$tmux send-keys "'$PRUN' -j2 s" Enter
	await test -e on-terminal
	$tmux kill-server
	ok 'a terminal that is closed ends it, too' await gone 'sleep 5000[.]1'
	ok 'and no prun is left' await gone "$PRUN -j2 s"
	NO_COLOR=1 TERM=xterm run s/test_b.sh
	lacks 'no escapes go into a file' out "$(printf '\033')"
	# What is drawn below the finished files.
	i=0
	while [ $((i += 1)) -le 6 ]; do
		printf 'exec sleep 5000.%s3\n' $i | script "d/test_with_a_name_longer_than_the_terminal_is_wide_$i.sh"
		echo "40.000 PASS - d/test_with_a_name_longer_than_the_terminal_is_wide_$i.sh"
	done >known
	echo 'exit 1' | script d/test_0.sh
	echo '0.100 PASS - d/test_0.sh' >>known
	$tmux new-session -d -x 60 -y 20 "cd '$dir' && env PS1='$ ' sh"
	$tmux send-keys "'$PRUN' -j7 --history=known d" Enter
	ok 'a line counts files and failures, and tells the time left that the history knows' \
		await screen '^  1/7 files, 1 failed, [0-9]+s, about [0-9]+s left'
	lines() { $tmux capture-pane -p | grep -c '^  test '; }
	is 'each worker has one line, however long the name' "$(lines)" 6
	$tmux resize-window -x 40 -y 8
	few() { [ "$(lines)" -le 5 ] && [ "$(lines)" -gt 2 ] && screen '^  1/7 files'; }
	ok 'on a low screen there are fewer of them' await few
	$tmux resize-window -x 70 -y 20
	many() { [ "$($tmux capture-pane -p | grep -o '^  test .*wide_[1-6].sh' | sort -u | wc -l)" -eq 6 ]; }
	ok 'and all again when it grows' await many
	shell=$($tmux display-message -p '#{pane_pid}')
	kill -KILL "$(ps -A -o pid= -o ppid= | awk -v shell="$shell" '$2 == shell { print $1 }')"
	ok 'when prun is killed the shell goes on below them' await screen '^(sh: .*)?\[?.*Killed|^\$ '
	ok 'and the tests have ended' await gone 'sleep 5000[.][1-6]3'
	$tmux kill-server
else
	skip 'no tmux' 'it runs on a terminal' '^Z stops it' '^C ends it' 'a terminal that is closed ends it, too'
fi
echo 'read -r line; echo "got $line"' | script p/test_read.sh
echo typed | "$PRUN" -i p >out 2>&1
has '-i without a terminal has the standard input' out '^got typed'
run -i s
is '-i needs exactly one file' "$status $(grep -c 'needs exactly one file, got 2' err)" '2 1'
echo 'exit 1' | script p/test_read.sh
run -i -r 2 p
is '-i is one attempt' "$status $(grep -c 'FAIL  p/test_read' out)" '1 1'
finish
