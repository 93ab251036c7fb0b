#!/bin/sh
# prun --merge for teams: platforms by name, reruns, the history of all shards,
# and XML that is no report.
. "${0%/*}/lib.sh"

for i in 1 2 3 4; do
	printf '%s\n' "sleep 0.$i" "[ \"\$PLATFORM\" != mac ] || [ $i != 3 ]" | script "t/test_$i.sh"
done
for platform in linux mac; do
	for i in 1 2; do
		PLATFORM=$platform "$PRUN" -q -j4 --keep=never --history=none --shard $i/2 -o $platform-$i.xml t >/dev/null 2>&1
	done
done

# A matrix: two platforms of two shards each, one red.
run --merge --strict -o all.xml linux-1.xml linux-2.xml mac-1.xml mac-2.xml
is 'two platforms with the same shards are refused without names' "$status $(test -e all.xml || echo none)" '3 none'
has 'both inputs are named, and what to give' err '^prun: shard 1/2 is there twice, in linux-1.xml and in mac-1.xml: name the inputs \(NAME=PATH\).*--rerun'
run --merge --partial -o all.xml linux-1.xml linux-2.xml mac-1.xml mac-2.xml
is '--partial does not count them twice either' $status 3
run --merge --strict -o all.xml linux=linux-1.xml linux=linux-2.xml mac=mac-1.xml mac=mac-2.xml
is 'with names they are merged, and the red one is red' $status 1
has 'by its name' all.xml '<testsuite name="mac/t/test_3.sh" .*failures="1"'
has 'while the other passed' all.xml '<testsuite name="linux/t/test_3.sh" .*failures="0"'
is 'all files of both are there' "$(grep -c 'name="prun.file"' all.xml)" 8
run --merge -o all.xml linux=linux-1.xml linux=linux-2.xml mac=mac-1.xml
is 'shards are counted per name' "$status $(grep -c '^prun: mac: shard 2/2 is missing' err)" '3 1'
run --merge -o named.xml linux=linux-1.xml linux=linux-2.xml mac=mac-1.xml mac=mac-2.xml
run --merge -o again.xml named.xml
is 'what was merged by name can be merged again' "$status $(grep -c 'name="prun.file"' again.xml)" '0 8'
mkdir x=y
cp linux-1.xml linux-2.xml x=y
run --merge -o path.xml x=y
is 'a path that is there is a path, whatever is in its name' "$status $(grep -c '<testsuite name="x/' path.xml)" '0 0'

# The history.
is 'the merge writes the history of all shards' "$(awk '{ print $2, $3, $4 }' named.xml.history)" 'PASS - t/test_1.sh
PASS - t/test_2.sh
FAIL - t/test_3.sh
PASS - t/test_4.sh'
cp named.xml.history h
run -n --history=h --shard 1/2 t
has 'from which the next shards start' out 't/test_4.sh  0\.[4-9]s'
echo '<testsuite name="s"><testcase name="a"/></testsuite>' >plain.xml
run --merge -o plain-out.xml plain.xml
ok 'reports of nobody make no history' test ! -e plain-out.xml.history
echo 'exit 1' | script x/test_1.sh
echo 'exit 0' | script x/test_2.sh
run -q -j1 -x -o part.xml --history=none x
run --merge -o part-out.xml part.xml
is 'what had not ended is not in the history' \
	"$(awk '{ print $2, $4 }' part-out.xml.history)" 'FAIL x/test_1.sh'

# A rerun.
sleep 1.1           # the times of the runs are in seconds
"$PRUN" -q --keep=never -o rerun.xml --history=none t/test_3.sh >/dev/null 2>&1
run --merge --strict -o all.xml mac-1.xml mac-2.xml rerun.xml
is 'a file that is there twice is refused' "$status $(grep -c 't/test_3.sh is there twice, in mac-.*.xml and in rerun.xml' err)" '3 1'
run --merge --strict --rerun -o all.xml mac-1.xml mac-2.xml rerun.xml
is 'with --rerun the later run counts' "$status $(grep -c '<testcase' all.xml) $(grep -c '<failure' all.xml)" '0 4 0'
run --merge --strict --rerun -o all.xml rerun.xml mac-2.xml mac-1.xml
is 'in whatever order they are named' "$status $(grep -c '<testcase' all.xml)" '0 4'
echo '<testsuite name="other"><testcase name="red"><failure/></testcase></testsuite>' >other.xml
run --merge -o both.xml mac-1.xml mac-2.xml other.xml
run --merge --strict --rerun -o all.xml both.xml rerun.xml
is 'a report behind the replaced file is not replaced with it' "$status $(grep -c 'testcase name="red"' all.xml)" '1 1'
"$PRUN" -q -j4 -d mac -o ignored.xml t >/dev/null 2>&1
sleep 1.1
PLATFORM=mac "$PRUN" -q -j4 --history=none -d first t >/dev/null 2>&1
run --merge --strict --rerun -o all.xml first rerun.xml
is 'a run directory may be rerun, too' "$status" 1
sleep 1.1
"$PRUN" -q --keep=always --history=none -d second t/test_3.sh >/dev/null 2>&1
run --merge --strict --rerun -o all.xml first second
is 'and be the rerun' "$status $(grep -c '<testcase' all.xml)" '0 4'
printf '[suite a]\nfiles = t/test_1.sh\n[suite b]\nfiles = t/test_1.sh\n' >suites.conf
run -q -f suites.conf -o suites.xml --history=none
run --merge -o all.xml suites.xml
is 'a file of two suites is there once in each' "$status $(grep -o 'prun.suite" value="[ab]"' all.xml | tr '\n' ' ')" '0 prun.suite" value="a" prun.suite" value="b" '
has 'each file says when its run began' suites.xml 'name="prun.started" value="20[0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z"'

# What is no report.
mkdir -p foreign/site
cp plain.xml foreign/TEST-a.XML
echo '<?xml version="1.0"?><coverage line-rate="0.5"><packages><package name="a"/></packages></coverage>' >foreign/site/coverage.xml
echo "<report name='$(printf %0900d 0)'><group/></report>" >foreign/jacoco.xml
echo '<failsafe-summary result="null"><completed>3</completed></failsafe-summary>' >foreign/failsafe-summary.xml
echo '<!DOCTYPE html><html><body>502 Bad Gateway</body></html>' >foreign/page.xml
echo '<coverage><packages>' >foreign/broken.xml
run --merge -o all.xml foreign
is 'other XML in a directory is skipped, with a line' "$(grep -c 'is XML, but not a test report; skipped' err)" 3
has 'a page of HTML is an error' all.xml 'message="the report foreign/page.xml has no testsuite element'
has 'so is what is cut' all.xml 'message="the report foreign/broken.xml has no testsuite element'
is 'and .XML is seen' "$(grep -c 'testcase name="a"' all.xml)" 1
mkdir odd
echo '<a><property name="prun.file" value="x"/></a>' >odd/1.xml
cp odd/1.xml odd/2.xml
cp plain.xml odd/3.xml
run --merge -o all.xml odd
is 'what other XML says of files is not heeded' "$status $(grep -c 'testcase name="a"' all.xml)" '0 1'
sed 's,value="1/2",value="1/2147483647",' linux-1.xml >huge.xml
run --merge -o all.xml huge.xml
is 'a number of shards that cannot be is refused' $status 3
run --merge -o all.xml foreign/site/coverage.xml
has 'if it is named it is an error' all.xml 'coverage.xml has no testsuite element'
echo 'junit = last.xml' >prun.conf
echo last >last.xml
run --merge plain.xml
is 'the report that prun.conf names is never merged over' "$status $(cat last.xml)" '2 last'
finish
