#!/bin/sh
# Templates that are files, directories, or made by commands; and what is kept.
. "${0%/*}/lib.sh"

echo 'cat "${PRUN_DB_URL#*:///}" >seen; echo more >>"${PRUN_DB_URL#*:///}"' | script t/test_a.sh
echo 'echo why; exit 1' | script t/test_b.sh
echo original >app.db
run --db sqlite:///app.db t/test_a.sh
is 'a file is copied' "$status $(cat seen)" '0 original'
is 'the template stays as it is' "$(cat app.db)" original
run -d run --db sqlite:///app.db t
ok 'the copy of what passed is gone' not sh -c 'ls run/0-test_a.sh/*.db'
ok 'that of what failed stays' sh -c 'ls run/1-test_b.sh/*.db'
has 'and is named' out 'database +sqlite:////.*/run/1-test_b.sh/app_w1_[0-9a-z]{8}.db$'
run -d twice -r1 --db sqlite:///app.db t
tr ' ' '\n' <out | sed -n 's,^sqlite://,,; /^\/.*\/twice\//p' | sort -u >paths
is 'after a retry it is named once, with all that is there to be read' "$(grep -c 'app_w.*\.db$' paths) $(grep -c log paths)" '1 1'
is 'and all that is named is there' "$(while read -r path; do [ -s "$path" ] || echo "$path"; done <paths)" ''
for side in wal journal; do
	echo hot >"app.db-$side"
	run --db sqlite:///app.db t/test_a.sh
	is "a hot -$side is refused" $status 3
	has 'with what to do' out "app.db-$side is not empty, so the database is open or was not closed; close it, or let setup close it"
	: >"app.db-$side"
	run --db sqlite:///app.db t/test_a.sh
	is "an empty -$side is none" $status 0
	rm "app.db-$side"
done
run --db sqlite:///nosuch.db t/test_a.sh
is 'a file that is not there gives status 3' $status 3
if have sqlite3; then
	rm app.db
	sqlite3 app.db 'PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1)' >/dev/null
	mkfifo hold
	sqlite3 app.db <hold >held 2>&1 &
	exec 9>hold
	echo 'BEGIN IMMEDIATE; INSERT INTO t VALUES (2); COMMIT; SELECT count(*) FROM t;' >&9
	await grep -q 2 held
	run --db sqlite:///app.db t/test_a.sh
	is 'a live WAL of SQLite is refused' $status 3
	exec 9>&-
	wait
	echo 'sqlite3 "${PRUN_DB_URL#*:///}" "SELECT count(*) FROM t" >seen' | script t/test_sql.sh
	run --db sqlite:///app.db t/test_sql.sh
	is 'once it is closed all rows are in the clone' "$status $(cat seen)" '0 2'
else
	skip 'no sqlite3' 'a live WAL of SQLite is refused' 'once it is closed all rows are in the clone'
fi
mkdir -p data/sub
echo deep >data/sub/file
echo 'cat "${PRUN_DB_URL#file:}/sub/file" >seen; rm -r "${PRUN_DB_URL#file:}/sub"' | script t/test_dir.sh
run --db file:data t/test_dir.sh
is 'so is a directory' "$status $(cat seen data/sub/file | tr '\n' ' ')" '0 deep deep '
rm t/test_sql.sh t/test_dir.sh 2>/dev/null

# Anything else: db-clone and db-drop.
cat <<'END' | script clone
echo "clone $PRUN_TEMPLATE_URL $PRUN_DB" >>calls
echo "some progress"
echo "mysql://app:hush@localhost/$PRUN_DB"
END
echo 'echo "drop $PRUN_DB $DATABASE_URL" >>calls' | script drop
echo 'echo "test $PRUN_DB_URL" >>calls; exit ${FAIL:-0}' | script c/test_c.sh
my='--db mysql://app:hush@localhost/shop --db-clone ./clone --db-drop ./drop'
# shellcheck disable=SC2086
run $my c
is 'db-clone prints the URL, db-drop drops' "$status $(sed 's/_w0_[0-9a-z]*/_W/g' calls | tr '\n' ';')" \
	'0 clone mysql://app:hush@localhost/shop shop_W;test mysql://app:hush@localhost/shop_W;drop shop_W mysql://app:hush@localhost/shop_W;'
rm calls
# shellcheck disable=SC2086
FAIL=1
export FAIL
run $my c
unset FAIL
lacks 'what failed is not dropped' calls '^drop'
lacks 'and no password is shown' out hush
# A clone that is dropped later than its attempt: a retry follows and passes.
echo 'if [ -e once ]; then exit 0; fi; : >once; exit 1' | script c/test_c.sh
echo 'echo "drop $PRUN_DB $PRUN_FILE" >>calls; exit 1' | script drop
rm -f calls once
# shellcheck disable=SC2086
run -r 1 --keep always $my c
rm -f once
# shellcheck disable=SC2086
run -v -r 1 --keep never $my c
has 'db-drop knows the file whose database it drops' calls '^drop shop_w0_.* c/test_c.sh$'
has 'a db-drop that fails is told' out 'db-drop: ./drop failed, see .*shop_w0_[0-9a-z]{8}(r2)? was not dropped'
echo 'exit 0' | script c/test_c.sh
# shellcheck disable=SC2086
run $my c
ok 'its log is still there, though all passed' test -e "$(sed -n 's/.*db-drop: .* see \(.*db.log\) .*/\1/p' out)"
echo 'echo "drop $PRUN_DB" >>calls' | script drop
# shellcheck disable=SC2086
"$PRUN" --clean $my >out 2>err
has 'and --clean tries again' out '^dropped shop_w0_'
echo 'echo "test $PRUN_DB_URL" >>calls; exit ${FAIL:-0}' | script c/test_c.sh
echo 'echo no room >&2; exit 1' | script clone
# shellcheck disable=SC2086
run $my c
is 'a db-clone that fails gives status 3' $status 3
has 'and says where to look' out 'db-clone: ./clone failed, see .*/db.log'
log=$(sed -n 's,.* see \(/.*/db.log\).*,\1,p' out | head -n 1)
ls -l "$log" >mode 2>&1
has 'which is for its owner alone: it may have a password' mode '^-rw-------'
echo ':' | script clone
# shellcheck disable=SC2086
run $my c
has 'one that prints nothing, too' out 'db-clone: ./clone printed no URL'
run --db mysql://localhost/shop c
is 'without db-clone such a URL is bad use' $status 2

# What db-clone has made and a run has kept: --clean drops it.
cat <<'END' | script clone
: >"made_$PRUN_DB"
echo "mysql://localhost/$PRUN_DB"
END
echo '[ ! -e stuck ] && rm "made_$PRUN_DB" && echo "gone: $PRUN_DB at $DATABASE_URL for $PRUN_TEMPLATE_URL" >>calls' | script drop
printf 'db = %s\ndb-clone = ./clone\ndb-drop = ./drop\n' mysql://app:hush@localhost/shop >prun.conf
echo 'exit 1' | script c/test_c.sh
made() { find . -name 'made_*' | wc -l | tr -d ' '; }
mkdir elsewhere
rm -rf prun-* && run c
is 'the clone of a test that failed stays' "$status $(made)" '1 1'
kept=$(sed -n 's/^kept: //p' out)
ok 'its URL is in no file but env' not grep -rl "^mysql" "$kept"
cp -R prun.conf clone drop c elsewhere
run -q elsewhere/c
run --clean -n
has '--clean -n lists it' out '^shop_w0_[0-9a-z]{8} \(of c/test_c.sh\)$'
has 'and the run directory' out "^$kept\$"
is 'of this project alone, and drops nothing' "$(grep -c "^$dir" out) $(made)" '1 2'
: >stuck
run --clean "$kept"
is '--clean RUNDIR: what cannot be dropped gives status 3' "$status $(made)" '3 2'
has 'and its run directory stays' out "^$kept stays, because"
(cd c && "$PRUN" -n --clean "../${kept##*/}") >out 2>err
has 'it is found from where the user stands' out '^shop_w0_[0-9a-z]{8} \(of c/test_c.sh\)$'
rm stuck
run --clean
is '--clean drops it with db-drop, and removes the run directory' \
	"$status $(made) $(test -e "$kept"; echo $?)" '0 1 1'
has 'db-drop has the environment of the attempt' calls \
	'^gone: (shop_w0_[0-9a-z]*) at mysql://localhost/shop_w0_[0-9a-z]* for mysql://app:hush@localhost/shop$'
echo ': >going; until [ -e go ]; do sleep 0.05; done' | script c/test_c.sh
"$PRUN" c >/dev/null 2>&1 &
await test -e going
run --clean
is '--clean leaves a run in progress alone' "$status $(made) $(ls -d prun-* | wc -l | tr -d ' ')" '0 2 2'
: >go
wait $!
is 'which ends well' $? 0
rm -rf prun.conf made_* prun-*

# keep
echo x >app.db
kept() { find run -name 'app_w*' | wc -l | tr -d ' '; }
for keep in failed:1 run:2 always:2 never:0; do
	rm -rf run
	run -q -d run --keep "${keep%:*}" --db sqlite:///app.db t/test_a.sh t/test_b.sh
	is "keep = ${keep%:*}: ${keep#*:} of one that passed and one that failed" "$(kept)" "${keep#*:}"
done
for keep in failed:0 run:0 always:1 never:0; do
	rm -rf run
	run -q -d run --keep "${keep%:*}" --db sqlite:///app.db t/test_a.sh
	is "keep = ${keep%:*}: ${keep#*:} of one that passed" "$(kept)" "${keep#*:}"
done

rm -rf run
echo '[ "$PRUN_ATTEMPT" = 2 ]' | script again/test_r.sh
run -q -d run -r 1 --keep always --db sqlite:///app.db again
is 'keep = always: each attempt of a file that was retried keeps its clone' "$status $(kept)" '0 2'
PRUN_DB=outer PRUN_DB_URL=outer "$PRUN" --test '[ -z "${PRUN_DB-}${PRUN_DB_URL-}" ]' again >out 2>&1
is 'without a database an attempt has none of an outer run' $? 0

# Only what is ours is taken, or removed.
mkdir -p ml/sub
echo '{"loss":1}' >ml/results.jsonl
echo precious >ml/sub/x
run -d ml t/test_a.sh
is 'a directory with a results.jsonl of another make is refused as run directory' "$status $(cat ml/sub/x)" '2 precious'
echo 'jobs = 1' >prun.conf
run --clean
is '--clean with nothing to do gives status 0' "$status $(cat err)" '0 '
rm prun.conf
run --clean ml
is 'and by --clean' "$status $(cat ml/sub/x)" '2 precious'
mkdir mine
inode=$(ls -di mine)
echo 'exit 0' | script ok/test_ok.sh
run -d mine ok
run -d mine ok
is 'a run directory is emptied, not replaced: it may be a mount point' "$status $(ls -di mine)" "0 $inode"
mkdir no
run -o no --history=hist t/test_a.sh
is 'a report that cannot be written gives status 3' $status 3
ok 'and the run directory stays, to make it of' test -e "$(sed -n 's/^kept: //p' out)/results.jsonl"
echo 'touch second; sleep 300' | script u/test_2.sh
echo 'exit 1' | script u/test_1.sh
exec "$PRUN" -j1 u >out 2>&1 &
await test -e second
kill -TERM $!
wait $!
ok 'what failed before the run was cancelled can be looked at' test -e "$(sed -n 's/^ *test log *//p' out)"

# --reopen, where it cannot.
run -q -d run --db sqlite:///app.db t/test_b.sh
run --db sqlite:///app.db --reopen run/0-test_b.sh
is '--reopen in a suite without a server tells where the database is' "$status $(grep -c '^database *sqlite:' out)" '0 1'
run --db sqlite:///app.db --retries 1 --server 'sleep 0.2' --ready none --reopen run/0-test_b.sh
has 'a server that dies ends it, whatever retries says' out 'the server died: exit status 0'
is 'with status 1' $status 1
rm -r run
run -q -d run --db sqlite:///nosuch.db t/test_b.sh
run --db sqlite:///nosuch.db --reopen run/0-test_b.sh
has 'where there never was a database it is gone' out 'its database nosuch_w0_[0-9a-z]* is gone'
finish
