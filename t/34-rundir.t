#!/bin/sh
# The run directory: whose it is, what is emptied, what survives a kill.
. "${0%/*}/lib.sh"

echo 'exit 0' | script t/test_a.sh
echo 'echo leaked >"$PRUN_DIR/file"; exit 1' | script t/test_b.sh

run t/test_b.sh
fresh=$(sed -n 's/^kept: //p' out)
is 'a fresh run directory is for its owner only' "$(ls -ld "$fresh" | cut -c 1-10)" drwx------
run -d r t
is 'a named one, too' "$status $(ls -ld r | cut -c 1-10)" '1 drwx------'
lacks 'a run names its directory for its report without a warning' err .

# Killed while it empties the directory.
mkdir empty
: >empty/results.jsonl
run -d empty t/test_a.sh
is 'a directory with an empty results.jsonl alone is ours' $status 0
mkdir foreign
: >foreign/results.jsonl
echo precious >foreign/data
run -d foreign t/test_a.sh
is 'one with other files beside it is not' "$status $(cat foreign/data)" '2 precious'
if [ "$(id -u)" = 0 ] && mkdir r/mount && mount -t tmpfs none r/mount 2>/dev/null; then
	run -d r t/test_a.sh
	is 'a directory that cannot be emptied gives status 3' $status 3
	has 'which names the reason' err 'r/mount: '
	run -d r t/test_a.sh
	is 'and stays a run directory' $status 3
	umount r/mount
	run -d r t/test_a.sh
	is 'for the next run' $status 0
else
	skip 'cannot mount' 'a directory that cannot be emptied gives status 3' 'for the next run'
fi

# A report and a history inside of it.
run -d in -o in/report.xml t
run -d in -o in/report.xml t
is 'a report may be in the run directory' "$status $(cat err)" '1 '
is 'and its history lives on' "$(wc -l <in/report.xml.history | tr -d ' ')" 2
echo 0.5 PASS '' old/test_z.sh >deep.history
mkdir -p in/sub
cp in/report.xml.history in/sub/history
run -d in --history=in/sub/history t/test_a.sh
has 'so does one further down' in/sub/history 't/test_b.sh'
ok 'what else earlier runs left goes' not test -e in/1-test_b.sh

# Directories for reports are made, or refused before anything runs.
run -o new/sub/r.xml --history=other/h t/test_a.sh
is 'missing directories for report and history are made' "$status $(ls new/sub/r.xml other/h | tr '\n' ' ')" \
	'0 new/sub/r.xml other/h '
run --merge -o newer/r.xml new/sub/r.xml
is 'by --merge, too' "$status $(ls newer | head -n 1)" '0 r.xml'
: >plain
echo ': >ran' | script t/test_c.sh
run -o plain/r.xml t/test_c.sh
is 'one that cannot be made gives status 2, before anything runs' "$status $(ls ran 2>/dev/null)" '2 '
has 'and is named' err '^prun: -o: cannot write plain.r.xml: Not a dir'

run -d fresh -o fresh/sub/r.xml t/test_a.sh
# shellcheck disable=SC2012
is 'a run directory in which the report lies is its owner'"'"'s alone' "$(ls -ld fresh | cut -c1-10)" 'drwx------'

# Special files.
mkdir fifo
mkfifo fifo/results.jsonl
timeout -s KILL 10 "$PRUN" -d fifo t/test_a.sh >out 2>err
is 'a FIFO as results.jsonl does not hang a run' $? 2
timeout -s KILL 10 "$PRUN" --clean fifo >out 2>err
is 'nor --clean' $? 2
timeout -s KILL 10 "$PRUN" --merge -o merged.xml fifo >out 2>err
is 'nor --merge' "$? $(grep -c 'fifo: no reports' err)" '0 1'
echo 'rm "$PRUN_DIR/test.log"; mkfifo "$PRUN_DIR/test.log"; exit 1' | script s/test_fifo.sh
timeout -s KILL 20 "$PRUN" -d sp s >out 2>err
is 'nor does a FIFO as test.log' $? 1

(ulimit -f 1; "$PRUN" t -o big.xml >out 2>err)
is 'a limit on file sizes gives status 3' $? 3
has 'with a line that says so' err 'File too large'
# shellcheck disable=SC2016
echo 'sh -c '"'"'head -c 100000 /dev/zero >"$PRUN_DIR/big"; echo $?'"'"' | grep -qx 153' | script x/test_x.sh
(ulimit -f 40; "$PRUN" x >out 2>err)
is 'tests have the signal for it at its default' $? 0

# What looks like a run directory of ours and is none.
(cd t && TMPDIR=$dir "$PRUN" -q --keep=always test_a.sh) >out 2>err
for run in "$dir"/prun-????????; do
	mv "$run/results.jsonl" "$run/other" && ln -s other "$run/results.jsonl"
done
(cd t && TMPDIR=$dir "$PRUN" --clean -n) >out 2>err
is '--clean passes over it' "$(cat out)" ''
lacks 'without a word' err 'is not a run directory'

# Other users.
if [ "$(id -u)" = 0 ] && have setpriv; then
	mkdir theirs
	chown 12345 theirs
	run -d theirs t/test_a.sh
	is "another user's directory is refused" "$status $(grep -c 'theirs: belongs to another user' err)" '2 1'
	run -q -d r t/test_b.sh
	run --reopen r/0-test_b.sh t
	cp -R r/0-test_b.sh copy
	chown 12345 copy
	run --reopen copy
	is 'so it is by --reopen' "$status $(grep -c 'copy: belongs to another user' err)" '2 1'
else
	skip 'not root' "another user's directory is refused" 'so it is by --reopen'
fi
finish
