#!/bin/sh
# Order, locks, history and shards.
. "${0%/*}/lib.sh"

# ---- locks: forty files with random ones, for three seeds
# Each file says when it begins and ends; lines are appended whole.
for seed in 1 2 3; do
	rm -rf l log
	mkdir l
	awk -v seed=$seed 'BEGIN {
		srand(seed)
		for (i = 0; i < 40; i++) {
			file = sprintf("l/test_%02d.sh", i); locks = ""
			for (k = 0; k < 2; k++)
				if (rand() < 0.4) locks = locks " " substr("abcd", 1 + int(rand() * 4), 1)
			if (rand() < 0.1) locks = locks " serial"
			if (rand() < 0.05) locks = locks " alone"
			print "#!/bin/sh" >file
			n = split(locks, l, " ")
			for (k = 1; k <= n; k++)
				print "# prun: " (l[k] == "alone" || l[k] == "serial" ? l[k] : "lock=" l[k]) >file
			printf "echo begin %02d >>log; sleep 0.%02d; echo end %02d >>log\n", i, 2 + rand() * 15, i >file
			close(file)
			printf "%02d%s\n", i, locks
		}
	}' >locks
	chmod +x l/*
	run -q -j4 -d run l
	is "seed $seed: all run, none starves" "$status $(grep -c begin log)" '0 40'
	is "seed $seed: no two holders of a lock overlap" "$(awk '
		FILENAME == "locks" { for (i = 2; i <= NF; i++) has[$1, $i] = 1; for (i = 2; i <= NF; i++) all[$i] = 1; next }
		$1 == "begin" {
			for (f in running) {
				for (l in all) if (((f, l) in has) && (($2, l) in has)) print f, $2, l
				if (((f, "alone") in has) || (($2, "alone") in has)) print f, $2, "alone"
			}
			running[$2] = 1
		}
		$1 == "end" { delete running[$2] }' locks log)" ''
	# Where a worker was idle for half a second, nothing could have run.
	sed -n 's/.*"file":"l.test_\(..\).sh".*"start":\([0-9.]*\).*"seconds":\([0-9.]*\).*/\1 \2 \3/p' run/results.jsonl >times
	is "seed $seed: no worker idles while an unlocked file waits" "$(awk '
		FILENAME == "locks" { for (i = 2; i <= NF; i++) has[$1, $i] = 1; for (i = 2; i <= NF; i++) all[$i] = 1; next }
		{ begin[$1] = $2; end[$1] = $2 + $3; last = end[$1] > last ? end[$1] : last }
		END {
			for (t = 0; t < last; t += 0.01) {
				n = alone = 0
				for (l in all) held[l] = 0
				for (f in begin) if (begin[f] <= t && t < end[f]) {
					n++
					for (l in all) if ((f, l) in has) held[l] = 1
				}
				can = ""
				for (f in begin) if (begin[f] > t && n < 4 && !held["alone"]) {
					ok = !(((f, "alone") in has) && n)
					for (l in all) if (((f, l) in has) && held[l]) ok = 0
					if (ok) can = f
				}
				idle = can == "" ? 0 : idle + 0.01
				if (idle > 0.5) { print can " waited at " t; exit }
			}
		}' locks times)" ''
done

# ---- marks of pytest
mkdir py
printf 'import pytest\n@pytest.mark.serial\ndef test_a(): pass\n' >py/test_a.py
printf 'import pytest\npytestmark = [pytest.mark.parallel_unsafe]\n' >py/test_b.py
printf 'import pytest\n# @pytest.mark.serial would be slow\n' >py/test_c.py
run -n py
is "pytest's marks put files into the serial group, comments do not" "$(sed -n 's/^py.//p' out | tr '\n' ';')" \
	'test_a.py  lock=serial;test_b.py  lock=serial;test_c.py;'

# ---- history
for i in 1 2 3 4 5; do echo 'exit 0' | script "h/test_$i.sh"; done
printf '%s\n' '1.000 PASS - h/test_1.sh' '3.000 FAIL - h/test_2.sh' '9.000 PASS - h/test_4.sh' '7.000 PASS - gone.sh' >hist
plan() { sed -n 's|^[a-z]*/test_\(.\).*|\1|p' out | tr '\n' ' '; }
run -n --history=hist h
is 'the longest is first, what is unknown counts as the median' "$(plan)" '4 2 3 5 1 '
has 'the plan says what is expected' out '^h/test_4.sh  9.0s$'
run -q --history=hist h/test_1.sh h/test_5.sh
is 'a partial run updates its files and keeps the rest' "$(cut -d' ' -f2- hist | sort | tr '\n' ';')" \
	'FAIL - h/test_2.sh;PASS - gone.sh;PASS - h/test_1.sh;PASS - h/test_4.sh;PASS - h/test_5.sh;'
run -n --history=hist --last-failed h
is '--last-failed: what did not pass, and is known' "$(plan)" '2 '
mkdir blank
echo 'exit 1' | script 'blank/test_a PASS b.sh'
run --history=bhist blank
sort bhist bhist >twice
cp twice bhist
run --history=bhist --last-failed blank
has 'whatever a file is called' out '^1 file: 0 passed, 1 failed'
is 'lines that are there twice become one' "$(wc -l <bhist | tr -d ' ')" 1
cp hist before
run -q --history=hist --shard 1/2 h
ok 'a shard only reads it' cmp hist before
run -q --history=hist -j1 --shuffle=7 h
run -n --history=hist --shuffle=7 h
cp out first
run -n --history=hist --shuffle=7 h
ok '--shuffle: the same order for the same seed' cmp out first
run --history=hist --shuffle h
has 'without one, a seed is chosen and printed' out ', shuffle seed [0-9a-z]{8}$'

# ---- makespan: 200 files with a long tail
mkdir m
awk 'BEGIN {
	srand(5)
	for (i = 0; i < 200; i++) {
		file = sprintf("m/test_%03d.sh", i); print "#!/bin/sh" >file; close(file)
		s = 0.2 / (1 - rand()) ^ 0.8
		printf "%.3f PASS - %s\n", (s > 40 ? 40 : s), file
	}
}' >mhist
chmod +x m/*
run -n --history=mhist -j8 m
is 'with 200 files the makespan is within 5 % of the bound' "$(awk '
	FILENAME == "mhist" { sec[$4] = $1; sum += $1; longest = $1 > longest ? $1 : longest; next }
	/^m/ && $1 in sec {
		least = 0
		for (k = 1; k < 8; k++) if (load[k] < load[least]) least = k
		load[least] += sec[$1]
		end = load[least] > end ? load[least] : end
	}
	END {
		bound = sum / 8 > longest ? sum / 8 : longest
		if (end > bound * 1.05) print end, bound
	}' mhist out)" ''

# ---- suites
cat >prun.conf <<'END'
history = shist
[suite one]
files = h/test_1.sh h/test_2.sh
[suite two]
files = h/test_3.sh h/test_4.sh
END
printf '%s\n' '1 PASS one h/test_1.sh' '2 PASS one h/test_2.sh' '8 PASS two h/test_3.sh' '9 PASS two h/test_4.sh' >shist
run -n -j1
is 'with -j1 suites run one after the other' "$(sed -n 's|^\([a-z]*\): .*test_\(.\).*|\1\2|p' out | tr '\n' ' ')" 'one2 one1 two4 two3 '
run -n -j2
is 'else together, longest first' "$(sed -n 's|^\([a-z]*\): .*test_\(.\).*|\1\2|p' out | tr '\n' ' ')" 'two4 two3 one2 one1 '
echo 'sleep 0.5; exit 1' | script h/test_1.sh
run -j4
has 'each suite has a line with its own duration' out '^suite one: 1 passed, 1 failed   0\.[5-9]s$'
has 'whatever another one does' out '^suite two: 2 passed   0\.[0-4]s$'
has 'and the sum stands beside the wall clock' out '^4 files: 3 passed, 1 failed   [0-9.]*s \([0-9.]*s of tests\)$'
# A suite without a file to run has no setup done.
cat >other.conf <<'END'
[suite one]
files = h/test_1.sh
setup = touch setup-of-one; false
[suite two]
files = h/test_3.sh
END
run -f other.conf h/test_3.sh
is 'the setup of a suite that has nothing to run is left out' "$status $([ -e setup-of-one ] || echo none)" '0 none'
printf '[suite e one]\nfiles = h\n' >other.conf
run -n -f other.conf
is 'the name of a suite is one word' "$status $(grep -c "other.conf:1: a suite's name must be one word" err)" '2 1'
printf 'db = mysql://h/x\n[suite a]\nfiles = h\ndb-clone = echo x\n' >other.conf
run -n -f other.conf
is 'a suite may have the db-clone for a db above it' $status 0
run --workers 0 h/test_3.sh
is 'workers = 0 is bad use' $status 2
plan_of() { run -n "$@"; sed -n 's|^[a-z]*: \(h[^ ]*\).*|\1|p' out | sort | tr '\n' ' '; }
is 'paths select within suites: several nodes of a file' "$(plan_of h/test_1.sh::x h/test_1.sh::y)" 'h/test_1.sh::x h/test_1.sh::y '
is 'a file beside a node of it' "$(plan_of h/test_1.sh h/test_1.sh::y)" 'h/test_1.sh h/test_1.sh::y '
is 'with ./ before it' "$(plan_of ./h/test_1.sh::y ./h/test_2.sh)$(plan_of ./ | wc -w)" 'h/test_1.sh::y h/test_2.sh 4'
is 'globs' "$(plan_of 'h/*_[14].sh')" 'h/test_1.sh h/test_4.sh '
run -n h::x
is 'but not a node of a directory' $status 2
rm prun.conf

# ---- shards
# shards N: what they get, a line each: shard and file; sizes: their sums by the history
shards() {
	i=0
	while [ $((i += 1)) -le "$1" ]; do
		run -n --history=shist --shard "$i/$1" s
		sed -n "s|^s/\([a-z_0-9]*.sh\).*|$i \1|p" out
	done
}
bad=
for seed in 1 2 3 4 5 6 7 8 9 10 11 12; do
	rm -rf s
	mkdir s
	n=$((seed % 4 + 5)) shards=$((seed % 2 + 2))
	awk -v seed=$seed -v n=$n 'BEGIN {
		srand(seed)
		for (i = 0; i < n; i++) {
			file = "s/test_" i ".sh"; print "#!/bin/sh" >file; close(file)
			printf "%.3f PASS - %s\n", 1 + int(rand() * 20), file
		}
	}' >shist
	chmod +x s/*
	shards $shards >dealt
	# Each file once; the fullest shard no fuller than dealing longest first allows:
	# 4/3 - 1/(3 * shards) of the best split.
	bad=$bad$(awk -v n=$n -v shards=$shards '
		FILENAME == "shist" { sub("s/", "", $4); w[m++] = sec[$4] = $1; next }
		{ seen[$2]++; load[$1] += sec[$2] }
		END {
			for (f in sec) if (seen[f] != 1) print f " is in " seen[f] + 0
			for (i = 1; i <= shards; i++) most = load[i] > most ? load[i] : most
			best = 1e9
			for (c = 0; c < shards ^ m; c++) {
				for (i = 0; i < shards; i++) l[i] = 0
				x = c; top = 0
				for (i = 0; i < m; i++) { k = x % shards; l[k] += w[i]; x = int(x / shards); if (l[k] > top) top = l[k] }
				best = top < best ? top : best
			}
			if (most > best * (4 - 1 / shards) / 3) print "most " most " best " best
		}' shist dealt)
done
is 'shards are disjoint, complete, and as even as longest first makes few files' "$bad" ''
cp mhist shist
rm -rf s
mv m s
sed 's| m/| s/|' mhist >shist
shards 7 >dealt
is 'with 200 files they are within 10 % of the best split' "$(awk '
	FILENAME == "shist" { sub("s/", "", $4); sec[$4] = $1; sum += $1; longest = $1 > longest ? $1 : longest; next }
	{ load[$1] += sec[$2]; n++ }
	END {
		bound = sum / 7 > longest ? sum / 7 : longest
		for (i = 1; i <= 7; i++) if (load[i] > bound * 1.1) print i, load[i], bound
		if (n != 200) print n
	}' shist dealt)" ''
mkdir -p other/place
cp -R s shist other/place
(cd other/place && dir=$PWD && shards 7) >there
ok 'another machine deals the same' cmp dealt there
rm -f shist
shards 7 >dealt
is 'without a history they are dealt by position' "$(cut -d' ' -f1 dealt | uniq -c | awk '{ printf "%s ", $1 }')" '29 29 29 29 28 28 28 '

auto() { # WHAT SHARD VARIABLE...
	what=$1 want=$2
	shift 2
	env "$@" "$PRUN" -n --shard auto s >out 2>err
	has "auto: $what" out "; shard $want of 200 files"
}
auto 'TEST_SHARD_INDEX from 0' 3/4 TEST_SHARD_INDEX=2 TEST_TOTAL_SHARDS=4 TEST_SHARD_STATUS_FILE="$dir/touched"
ok 'and its status file is touched' test -e touched
auto 'GitLab, from 1' 2/4 CI_NODE_INDEX=2 CI_NODE_TOTAL=4
auto 'CircleCI, from 0' 3/4 CIRCLE_NODE_INDEX=2 CIRCLE_NODE_TOTAL=4
auto 'Buildkite, from 0' 1/4 BUILDKITE_PARALLEL_JOB=0 BUILDKITE_PARALLEL_JOB_COUNT=4
auto 'a Slurm array' 2/4 SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_STEP=1
auto 'that begins and steps as it likes' 3/4 SLURM_ARRAY_TASK_ID=20 SLURM_ARRAY_TASK_MIN=10 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_STEP=5
run_as() { env "$@" "$PRUN" -n --shard auto s >out 2>err; status=$?; }
run_as SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_MAX=3 SLURM_ARRAY_TASK_COUNT=1 SLURM_ARRAY_TASK_STEP=1
is 'one task of a Slurm array does not run all files' "$status $(grep -c 'auto needs PRUN_SHARDS' err)" '2 1'
run_as SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=7 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_STEP=1
is 'nor do some of them take the places of others' "$status $(grep -c 'auto needs PRUN_SHARDS' err)" '2 1'
auto 'a part of a Slurm array with PRUN_SHARDS' 3/8 PRUN_SHARDS=8 SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=7 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_STEP=1
auto 'Bitbucket, from 0' 1/4 BITBUCKET_PARALLEL_STEP=0 BITBUCKET_PARALLEL_STEP_COUNT=4
auto 'Azure, from 1' 4/4 SYSTEM_JOBPOSITIONINPHASE=4 SYSTEM_TOTALJOBSINPHASE=4
auto 'Semaphore, from 1' 2/4 SEMAPHORE_JOB_INDEX=2 SEMAPHORE_JOB_COUNT=4
auto 'Cloud Run, from 0' 3/4 CLOUD_RUN_TASK_INDEX=2 CLOUD_RUN_TASK_COUNT=4
auto 'AWS Batch, from 0' 4/4 AWS_BATCH_JOB_ARRAY_INDEX=3 AWS_BATCH_JOB_ARRAY_SIZE=4
auto 'an indexed Job of Kubernetes' 4/4 JOB_COMPLETION_INDEX=3 PRUN_SHARDS=4
auto 'what is not whole is passed over' 4/4 CI_NODE_INDEX=2 JOB_COMPLETION_INDEX=3 PRUN_SHARDS=4
run -n --shard auto s
is 'auto without any is bad use' "$status $(grep -c 'auto found no shard' err)" '2 1'
for bad in 0/3 4/3 3 a/b 1/ /2 1/2/3; do
	run -n --shard $bad s
	is "so is $bad" $status 2
done

# plan = HASH
run -n --shard 1/4 s
plan=$(sed -n 's/.*, plan //p' out)
run -n --shard 2/4 --plan "$plan" s
is 'all shards have the same plan, which -n prints' $status 0
printf '%s PASS - %s\n' 9.000 s/test_001.sh 1.000 s/test_002.sh >other.hist
run --shard 2/4 --plan "$plan" --history=other.hist --test 'touch ran' s
is 'a shard whose history is another is refused before it runs' "$status $(ls ran 2>/dev/null)" '2 '
has 'with both plans' err "^prun: --plan: is $plan, but here it is [0-9a-f]{8}: other files, another history"

if have parallel; then
	rm -rf s/test_??[1-9].sh
	ok 'GNU parallel runs the shards' parallel -j3 "$PRUN" -q --shard '{}/3' -o 's{}.xml' s ::: 1 2 3
	run --merge -o all.xml s1.xml s2.xml s3.xml
	has 'and all files are in the merged report' all.xml '^<testsuites name="prun" tests="20" '
	echo 'setup = echo once >>setups' >prun.conf
	"$PRUN" -q --shard 1/3 -o s1.xml s >/dev/null
	parallel -j2 "$PRUN" -q --setup=none --shard '{}/3' -o 's{}.xml' s ::: 2 3 >/dev/null
	run --merge -o all.xml s1.xml s2.xml s3.xml
	is 'the setup of the first one is enough' "$status $(cat setups)" '0 once'
	rm prun.conf
else
	skip 'no GNU parallel' 'GNU parallel runs the shards' 'and all files are in the merged report' 'the setup of the first one is enough'
fi

# ---- nested parallelism
PYTHON=${PYTHON:-/usr/bin/python3}
if "$PYTHON" -c 'import xdist' 2>/dev/null; then
	unset PYTEST_DISABLE_PLUGIN_AUTOLOAD
	mkdir x
	for i in 1 2 3 4; do
		cat >x/test_$i.py <<'END'
import os, time, pytest
@pytest.mark.parametrize("n", range(8))
def test(n):
    open(os.path.join(os.environ["LIVE"], f"{os.environ['PRUN_INDEX']}-{os.environ['PYTEST_XDIST_WORKER']}"), "w")
    time.sleep(0.05)
END
	done
	mkdir live
	LIVE=$dir/live "$PRUN" -j4 --test "$PYTHON"' -m pytest -n $PRUN_CPUS "$PRUN_TEST" --junitxml="$PRUN_JUNIT"' x >out 2>&1
	is 'pytest -n $PRUN_CPUS passes in four files at once' "$?" 0
	cpus=$(getconf _NPROCESSORS_ONLN)
	[ "$cpus" -gt 4 ] && most=$cpus || most=4
	ok 'and there are no more processes than the machine has CPUs' test "$(find live -type f | wc -l)" -le "$most"
else
	skip 'no pytest-xdist' 'pytest -n $PRUN_CPUS passes in four files at once' \
		'and there are no more processes than the machine has CPUs'
fi
echo 'echo $PRUN_CPUS' | script cpus/test_1.sh
run -q -j1 -d run cpus
is 'one file at once has all CPUs' "$(cat run/0-test_1.sh/test.log)" "$(getconf _NPROCESSORS_ONLN)"
finish
