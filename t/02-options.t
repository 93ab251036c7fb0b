#!/bin/sh
# Options: from the command line, PRUNFLAGS and prun.conf, out of one table.
. "${0%/*}/lib.sh"

echo 'echo "run $PRUN_FILE $X" >>"$LOG"; exit ${WANT:-0}' | script t/test_a.sh
echo 'echo "run $PRUN_FILE $X" >>"$LOG"; exit ${WANT:-0}' | script t/test_b.sh
LOG=$dir/log
export LOG

# bad NAME ERE ARGUMENTS...: status 2, one line, on standard error alone.
bad() {
	name=$1 ere=$2
	shift 2
	run "$@"
	if [ $status = 2 ] && [ ! -s out ] && [ "$(wc -l <err)" -eq 1 ]; then
		has "$name" err "$ere"
	else
		is "$name (status 2, one line)" "$status $(cat out err)" '2'
	fi
}
bad 'an unknown option is named, with the nearest' 'unknown option "--jbs" \(--jobs\?\)' --jbs=3 t
bad 'so is an unknown letter' "unknown option" -Z t
bad 'a number that is none' 'jobs must be a whole number' -j x t
bad 'no jobs at all' 'jobs must be a whole number above 0' -j 0 t
for option in ports db-env url-env port-env; do
	bad "$option: what no variable can be called" "$option must be names of variables" --$option 'A 1X' t
	bad "$option: nor what is prun's" "$option must be names of variables" --$option=PRUN_DIR t
done
bad 'a variable without a name' 'env must be NAME=VALUE, not "=x"' --env =x t
bad 'a fraction of a job' 'jobs must be a whole number' -j 1.5 t
bad 'a duration that is none' 'timeout must be a duration like 90s' -t 5x t
bad 'a duration beyond all time' 'timeout must be a duration' -t 9000000000000h t
bad 'a grace without an end' 'grace must be a duration like 90s or 5m, not "none"' --grace=none t
bad 'a word that is not one of the choices' 'keep must be one of: failed, run, always, never' --keep=some t
bad 'a flag that is neither yes nor no' 'quiet must be yes or no' --quiet=maybe t
bad 'a number of failures that is none' 'fail-fast must be a whole number' --fail-fast=maybe t
bad 'an option without its value' 'needs a value' t -j
bad 'a directory that is not there' '-C: /no/such: No such file' -C /no/such t
bad 'a configuration that is not there' '/no/such.conf: No such file' -f /no/such.conf t
bad 'a readiness that is none' 'ready = http: http needs a path' --ready=http t
bad 'a URL of no known kind' 'db = mysql://h/x is a kind of database that prun cannot clone' --db=mysql://h/x t
bad 'a run directory that is not ours' 'is not a run directory' -d t t
bad 'a suite that is not there' 'unknown suite "x"' -s x t
PRUNFLAGS='--jbs 3' bad 'PRUNFLAGS is checked likewise' 'PRUNFLAGS: unknown option' t
PRUNFLAGS='t/test_a.sh' bad 'and takes options only' 'PRUNFLAGS: "t/test_a.sh" is not an option' t

conf() { name=$1 ere=$2; cat >prun.conf; bad "$name" "$ere" t; rm prun.conf; }
conf 'an unknown key has file, line and the nearest key' '^prun.conf:2: unknown key "job" \(jobs\?\)$' <<'END'
# one
job = 4
END
conf 'a bad value has file and line' '^prun.conf:1: jobs must be a whole number' <<'END'
jobs = many
END
conf 'a key given twice' '^prun.conf:3: jobs is already set at prun.conf:1$' <<'END'
jobs = 1

jobs = 2
END
conf 'no equals sign' '^prun.conf:1: expected key = value' <<'END'
jobs
END
conf 'a key without a value' '^prun.conf:1: db has no value' <<'END'
db =
END
conf 'a continuation of nothing' '^prun.conf:1: continuation line without a key' <<'END'
  jobs = 3
END
conf 'a key that is for the command line' '^prun.conf:1: chdir can only be given on the command line' <<'END'
chdir = /
END
conf 'a key in the wrong place' '^prun.conf:3: jobs must be set before the first suite' <<'END'
[suite a]
files = t
jobs = 3
END
conf 'a suite twice' '^prun.conf:3: duplicate suite "a", first defined at prun.conf:1' <<'END'
[suite a]
files = t
[suite a]
END

printf 'test = a\000b\njobs = 1\n' >prun.conf
bad 'a NUL byte has file and line' '^prun.conf:1: contains a NUL byte' t
printf '\0' >prun.conf
bad 'so has one at the beginning' '^prun.conf:1: contains a NUL byte' t
printf '\357\273\277jobs = 0\n' >prun.conf
bad 'a byte order mark belongs to no key' '^prun.conf:1: jobs must be' t
rm prun.conf
mkfifo fifo.conf
bad 'a FIFO is not waited for' '^prun: fifo.conf: not a regular file' -f fifo.conf t
rm fifo.conf

# The nearest wins.
run_x() { rm -f log; run "$@"; sort log; }
printf 'env = X=file\nfiles = t\njobs = 1\n' >prun.conf
is 'prun.conf is read' "$(run_x)" "run t/test_a.sh file
run t/test_b.sh file"
is 'PRUNFLAGS is nearer' "$(PRUNFLAGS='--env X=flags' run_x | tail -n 1)" 'run t/test_b.sh flags'
is 'the command line is nearest' "$(PRUNFLAGS='--env X=flags' run_x --env=X=line | tail -n 1)" \
	'run t/test_b.sh line'
run
has 'jobs comes from the file' out '^2 files, 1 at once'
run -j2
has 'and -j2 overrides it' out '^2 files, 2 at once'
run -jmax
has '-jmax is all at once' out '^2 files, 2 at once'
is 'a path selects within files' "$(run_x t/test_a.sh -j2)" 'run t/test_a.sh file'
printf '# comment\n  # another\nenv = X=a\n  b\n\n\tc # no comment\nfiles = none\nexclude = *_b.sh\n' >other.conf
is '-f names another file; lines continue, # inside is text' "$(run_x -f other.conf t)" \
	'run t/test_a.sh a b c # no comment'
mkdir sub
printf 'env = X=sub\nfiles = .\n' >sub/prun.conf
cp t/test_a.sh sub
is '-C changes the directory first' "$(run_x -C sub)" 'run test_a.sh sub'
rm -r sub prun.conf

printf '[suite one]\nfiles = t/test_a.sh\nenv = X=1\n[suite two]\nfiles = t/test_b.sh\nenv = X=2\n' >prun.conf
is 'each suite has its own keys' "$(run_x)" "run t/test_a.sh 1
run t/test_b.sh 2"
has 'and a line at the end' out '^suite two: 1 passed   [0-9.]+s$'
is '-s chooses suites' "$(run_x -s two)" 'run t/test_b.sh 2'
is 'a path selects within suites' "$(run_x t/test_a.sh)" 'run t/test_a.sh 1'
echo 'exit 0' | script other/test_c.sh
bad 'a path that is in no suite' 'other: is not in any suite' other
rm prun.conf

run -n t
is '-n succeeds' $status 0
has '-n lists the files' out '^t/test_a.sh$'
run -n --test 'echo "$PRUN_TEST"' t
is '-n prints a command once' "$(grep -c '^    echo "$PRUN_TEST"$' out)" 1
is '-n runs nothing' "$(rm -f log; run -n t; cat log 2>/dev/null)" ''
run -h
is '-h succeeds' $status 0
is '-h has the groups of the man page' "$(sed -n 's/^\([A-Z].*\):$/\1/p' out)" \
	"$(sed -n '/^.Sh OPTIONS/,/^.Sh CONF/s/^.Ss //p' "$top/prun.1")"
for o in jobs config chdir junit run-dir fail-fast timeout list quiet verbose keep server db; do
	has "-h knows --$o" out "--$o"
done
run -V
has '-V prints the version' out '^prun [0-9]+\.[0-9]+\.[0-9]+$'
run -q t
is '-q prints the counts only' "$(grep -c . out)" 1
WANT=3 run -q t --keep=never
has '-q prints failures' out 'FAIL  t/test_a.sh'
run -o r.xml -d here t
ok 'a named run directory stays' test -f here/results.jsonl
ok '-o writes the report' test -s r.xml
ok 'and the history beside it' test -s r.xml.history
run -d here t
is 'a run directory of ours is taken again' $status 0
mkdir -p made
run -d made t
is 'so is an empty one' $status 0
mkdir -p theirs/src
echo x >theirs/src/file
bad 'one that holds a single directory of the user is not' 'is not a run directory' -d theirs t
ok 'and it stays as it was' test -s theirs/src/file
run -v -j2 t
is '-v is taken' $status 0
run --keep=always t
ok '--keep=always keeps the run directory' test -d "$(sed -n 's/^kept: //p' out)"
WANT=1 run --keep=never t
lacks '--keep=never keeps nothing' out '^kept:'
finish
