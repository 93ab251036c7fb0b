#!/bin/sh
# Where prun.conf is found, and what is relative to what.
. "${0%/*}/lib.sh"

# A project: base/prun.conf, tests in base/tests/e2e; the user stands anywhere.
mkdir base base/.git
cd base || exit 3
echo 'echo "$PRUN_FILE in $(pwd) $PWD" >>"$LOG"; exit ${WANT:-0}' | script tests/e2e/test_a.sh
cp tests/e2e/test_a.sh tests/e2e/test_b.sh
printf '%s\n' 'files = tests' 'jobs = 1' >prun.conf
LOG=$dir/log
export LOG
base=$dir/base

# ran WHERE ARGUMENTS...: what ran, standing in WHERE: names; where, if not in the base.
ran() {
	rm -f "$LOG"
	here=$PWD
	cd "$1" || exit 3
	shift
	"$PRUN" "$@" >"$dir/out" 2>"$dir/err" </dev/null
	status=$?
	cd "$here" || exit 3
	sort "$LOG" 2>/dev/null | sed "s|tests/e2e/test_||; s| in $base $base\$||" | tr '\n' ' '
}
is 'from the root a path is relative to it' "$(ran . tests/e2e/test_a.sh)" 'a.sh '
is 'from a subdirectory the file above is found, and commands run in its directory' "$(ran tests/e2e test_a.sh)" 'a.sh '
ran tests/e2e test_a.sh >/dev/null
has 'the first line says which one is in use' ../out "^config: $base/prun.conf$"
is 'without paths everything runs, wherever the user stands' "$(ran tests/e2e)" 'a.sh b.sh '
is 'from elsewhere, the file is searched from the path on' "$(ran .. base/tests/e2e/test_b.sh)" 'b.sh '
is 'and from its directory, without the node' "$(ran .. base/tests/e2e/test_b.sh::x)" 'b.sh '
is 'and without the glob' "$(ran .. 'base/tests/e2e/*_b.sh')" 'b.sh '
is 'an absolute path is the same file' "$(ran tests "$base/tests/e2e/test_a.sh")" 'a.sh '
is 'so is one with ..' "$(ran tests/e2e ../../tests/e2e/test_a.sh)" 'a.sh '
is 'and .. alone' "$(ran tests/e2e ..)" 'a.sh b.sh '
is 'and .' "$(ran tests/e2e .)" 'a.sh b.sh '
is 'a glob is relative to where the user stands' "$(ran tests/e2e 'test_*')" 'a.sh b.sh '
ln -s tests/e2e link
is 'a directory that is a link leads to the same file, from the root' "$(ran / "$base/link/test_a.sh")" 'a.sh '
ln -s "$base" ../alias
is 'so does a link to the project' "$(ran .. alias/tests/e2e/test_a.sh)" 'a.sh '
is 'and standing in it' "$(ran ../alias/tests e2e/test_a.sh)" 'a.sh '
is '-C is where the user stands' "$(ran / -C "$base/tests" e2e/test_a.sh)" 'a.sh '
is 'with -f it is the current directory that is the base' \
	"$(ran tests -f ../prun.conf e2e/test_a.sh)" "e2e/test_a.sh in $base/tests $base/tests "
is 'PRUNFLAGS is relative to where the user stands' \
	"$(PRUNFLAGS='-o here.xml' ran tests/e2e test_a.sh)$(ls tests/e2e/here.xml)" 'a.sh tests/e2e/here.xml'
ran tests -o out/r.xml --history h -d run e2e/test_a.sh >/dev/null
is 'so are -o, --history and -d' "$(cd tests && ls -d out/r.xml h run/report.xml | tr '\n' ' ')" 'h out/r.xml run/report.xml '
ran tests --merge -o m.xml run >/dev/null
is 'and what --merge reads and writes' "$status $(ls tests/m.xml)" '0 tests/m.xml'
(cd tests && "$PRUN" -n --clean run) >../out 2>../err
has 'and what --clean removes' ../out "run$"
rm -rf tests/h tests/out tests/run tests/m.xml tests/e2e/here.xml
printf '%s\n' 'files = tests' 'junit = build/r.xml' >prun.conf
ran tests/e2e test_a.sh >/dev/null
ok 'those in the file are relative to the file' test -s build/r.xml
has 'the report has names from there' build/r.xml 'prun.file" value="tests/e2e/test_a.sh"'
has 'and so has the history' build/r.xml.history ' tests/e2e/test_a.sh$'
mkdir t
is 'TMPDIR is relative to where the user stands' "$(TMPDIR=../t ran tests -d "$dir/d" e2e/test_a.sh; TMPDIR=../t ran tests --keep=always e2e/test_a.sh >/dev/null; ls -d t/prun-* | wc -l | tr -d ' ')" 'a.sh 1'

# ---- names for the user
"$PRUN" -C tests -nq >../out
is '-nq prints names relative to where the user stands' "$(tr '\n' ' ' <../out)" 'e2e/test_a.sh e2e/test_b.sh '
mkdir -p other/deep
"$PRUN" -C other/deep -nq ../../tests/e2e/test_a.sh >../out
is 'also upwards' "$(cat ../out)" '../../tests/e2e/test_a.sh'
again() { sed -n 's/^    again  *//p' "$dir/out"; }
WANT=1 ran tests -j2 --keep=never --env 'X=a b' e2e/test_a.sh -- -k 'x y' >/dev/null
is 'again is the whole command line, quoted' "$(again)" "$PRUN -j2 --keep=never --env 'X=a b' e2e/test_a.sh -- -k 'x y'"
line=$(again)
(cd tests && eval "$line") >../out 2>&1
has 'that runs the file again from where it was typed' ../out '^1 file: 1 passed'
WANT=1 ran tests --keep never --shard 1/2 --last-failed=no -x e2e/test_a.sh e2e/test_b.sh >/dev/null
is 'without what would leave the file out' "$(again)" "$PRUN --keep never -x e2e/test_a.sh"
WANT=1 ran . --keep=never --suite= '' >/dev/null
is 'an empty path is no path' $status 2
WANT=1 ran . -x --keep=never -j1 >/dev/null
is 'where no path was typed the file comes last' "$(again)" "$PRUN -x --keep=never -j1 tests/e2e/test_a.sh"

# ---- outside of the base
echo 'exit 0' | script ../else/test_e.sh
ran . ../else/test_e.sh >/dev/null
is 'a file outside runs under its own absolute name' "$status $(grep -c "PASS  $dir/else/test_e.sh" ../out)" '0 1'
ran . tests/e2e ../else/test_e.sh --shard 1/2 >/dev/null
is 'but not with shards' "$status $(cat ../err)" "2 prun: ../else/test_e.sh: is outside of $base; a shard's files must be below it"
printf '%s\n' '[suite a]' "files = $base/tests" >prun.conf
is 'absolute paths of a suite are names as well' "$(ran tests e2e/test_a.sh)" 'a.sh '
ran . tests ../else/test_e.sh >/dev/null
is 'nor with suites' "$status $(cat ../err)" "2 prun: ../else/test_e.sh: is outside of $base, where the suites are"

# ---- which file
rm prun.conf
printf '%s\n' 'files = .' 'env = X=above' >../prun.conf
ran tests e2e/test_a.sh >/dev/null
has 'above the first directory that holds .git none is searched for' ../out '^config: none$'
rmdir .git
ran tests e2e/test_a.sh >/dev/null
has 'without one it goes on upwards' ../out "^config: $dir/prun.conf$"
printf '%s\n' 'files = .' >prun.conf
ran tests/e2e test_a.sh >/dev/null
has 'the nearest one is taken' ../out "^config: $base/prun.conf$"
mkdir -p a/t b/t
for i in a b; do
	echo 'files = t' >$i/prun.conf
	echo 'echo "$PRUN_FILE in $(pwd) $PWD" >>"$LOG"' | script $i/t/test_$i.sh
done
is 'of two projects each path has its own' "$(ran . a/t; ran . b/t)" "t/test_a.sh in $base/a $base/a t/test_b.sh in $base/b $base/b "
is 'of paths in both the first one says' "$(ran . a/t b/t)" "$base/b/t/test_b.sh in $base/a $base/a t/test_a.sh in $base/a $base/a "
printf 'job = 1\n' >prun.conf
ran tests >/dev/null
is 'its mistakes are told with its path' "$(cat ../err)" "$base/prun.conf:1: unknown key \"job\" (jobs?)"
printf 'files = tests\n' >prun.conf

# ---- whose file
if [ "$(id -u)" = 0 ] && chown 12345 prun.conf 2>/dev/null; then
	ran tests >/dev/null
	has "a stranger's file is skipped" ../err "^prun: $base/prun.conf is skipped: it belongs to user 12345; use -f to read it$"
	has 'and the search goes on' ../out "^config: $dir/prun.conf$"
	chown 12345 tests
	is "but not root's in a container, on a user's files" "$(ran tests)" 'a.sh b.sh '
	chown 0 tests prun.conf
	mv prun.conf real.conf
	ln -s real.conf prun.conf
	chown -h 12345 prun.conf
	ran . tests >/dev/null
	has "nor is a stranger's link followed" ../err 'is skipped: it belongs to user 12345'
else
	skip 'not root' "a stranger's file is skipped" 'and the search goes on' \
		"but not root's in a container, on a user's files" "nor is a stranger's link followed"
fi
finish
