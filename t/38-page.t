#!/bin/sh
# The report as a page, the summary of a step on GitHub, and results.jsonl: what is
# in them, whatever names and messages tests have.
. "${0%/*}/lib.sh"

# Names and messages that would do something, if they could.
hostile='<script>alert(1)<'
mkdir -p "t/$hostile"
cat <<'X' | script "t/$hostile/test_\"a' onclick=x &amp; b.sh"
echo 'log </pre><script>alert(2)</script>'
: >"$PRUN_DIR/a b?#%41\"><img src=x>.png"
cat >"$PRUN_JUNIT" <<Y
<testsuite><testcase classname="c" name="&lt;img src=x onerror=alert(3)&gt;"><failure message="&lt;/summary&gt;&lt;script&gt;alert(4)&lt;/script&gt;&#10;second">&lt;/pre&gt;&lt;script&gt;alert(5)&lt;/script&gt;

# no heading, ![no image](http://example.org/x.png), \`no code\` | no cell
</failure></testcase><testcase classname="c" name="good"/></testsuite>
Y
exit 1
X
echo 'exit 0' | script t/test_pass.sh
echo '[ "$PRUN_ATTEMPT" = 2 ]' | script t/test_flaky.sh
echo 'exit 77' | script t/test_skip.sh
echo '# earlier' >step
GITHUB_ACTIONS=true GITHUB_STEP_SUMMARY=$dir/step "$PRUN" -r1 -d build/run --html build/page.html t >out 2>err
ok 'a run writes its page' test -s build/page.html
count() { grep -c -e "$1" "$2"; }
is 'with a row for each file, failures first, then flaky ones' \
	"$(sed -n 's/^<tr class="f \([A-Z]*\)" id=f[0-9]*>.*/\1/p' build/page.html | head -n 2 | tr '\n' ' ')$(count '^<tr class="f' build/page.html)" 'FAIL FLAKY 4'
has 'and the counts' build/page.html '<h1>1 passed, 1 flaky, 1 skipped, 1 failed</h1>'
has 'a failure has its message and text' build/page.html '^<details><summary>.*&lt;/summary&gt;.*alert\(4\).*</summary><pre>.*alert\(5\)'
has 'and the end of the log' build/page.html 'test.log</a></summary><pre>log &lt;/pre&gt;'
if have python3; then
	cat >page.py <<-'END'
	import html.parser, os, sys, urllib.parse
	ALLOWED = set("html meta title link style body h1 h2 h3 input label script svg a rect table tr th td b details summary pre div p".split())
	scripts, links = 0, 0
	class P(html.parser.HTMLParser):
	    def handle_starttag(self, tag, attrs):
	        global scripts, links
	        scripts += tag == "script"
	        if tag not in ALLOWED:
	            print("tag", tag)
	        for key, value in attrs:
	            if key.startswith("on") or key in ("src", "style"):
	                print("attribute", key, value)
	            if key == "href" and value != "data:," and not value.startswith("#"):
	                links += 1
	                path = os.path.join(os.path.dirname(sys.argv[1]), urllib.parse.unquote(value))
	                if ":" in value.split("/")[0] or value.startswith("/") or not os.path.exists(path):
	                    print("link", value)
	P().feed(open(sys.argv[1], encoding="utf-8").read())
	print(scripts, "scripts", links > int(sys.argv[2]))
	END
	is 'nothing in it is of a test, and its links lead to files' "$(python3 page.py build/page.html 2)" '1 scripts True'
	is 'nor in the summary of the step' "$(python3 page.py step -1)" '0 scripts True'
else
	skip 'no python3' 'nothing in it is of a test, and its links lead to files' 'nor in the summary of the step'
fi
lacks 'it needs nothing from elsewhere' build/page.html 'https?://[^e]|url\(|@import'
is 'the summary is appended' "$(head -n 1 step) $(count '<h3>prun: 1 passed' step)" '# earlier 1'
is 'and has no empty line at which Markdown would begin again' \
	"$(sed '1,/<h3>/d' step | grep -c '^[[:space:]]*$')" 0
echo 'echo why; exit 1' | script log/test_log.sh
GITHUB_ACTIONS=true "$PRUN" log >out 2>&1
is 'the end of a log is a group on GitHub' \
	"$(count '^::group::end of the test log$' out) $(count '^::endgroup::$' out)" '1 1'

echo 'exit 1' | script stop/test_a.sh
echo 'exit 0' | script stop/test_b.sh
run -x -j1 -o stop.xml stop
is 'a report names the directories that are there' "$(sed -n 's,.*"prun.dir" value="[^"]*/\([^"]*\)".*,\1,p' stop.xml)" '0-test_a.sh'

# Machines.
run --shard 1/2 -o one.xml t
run --shard 2/2 -o two.xml t
run --merge -o all.xml --html all.html one.xml two.xml
is 'a merge draws the workers of each machine' "$status $(count '^<svg' all.html) $(count '^<tr class' all.html)" '0 2 4'
is 'and names them' "$(sed -n 's,^<h2>.*shard \([12]/2\)\, .*,\1,p' all.html | tr '\n' ' ')" '1/2 2/2 '
echo '<testsuite name="plain"><testcase name="a"/><testcase name="b"><error message="m">t</error></testcase></testsuite>' >plain.xml
run --merge -o other.xml --html other.html plain.xml
is 'a report of another tool has rows, and no bars' "$(count '^<tr class="f FAIL".*plain' other.html) $(count '<svg' other.html)" '1 0'
run --merge -o mixed.xml --html mixed.html one.xml plain.xml two.xml
is 'between the files of runs as well' \
	"$(sed -n 's,^<tr class="f \([A-Z]*\).*<td>,\1 ,p' mixed.html | sort | tr '\n' ' ')" \
	"$( (echo FAIL plain; sed -n 's,^<tr class="f \([A-Z]*\).*<td>,\1 ,p' all.html) | sort | tr '\n' ' ')"
mkdir secret
echo swordfish >secret/a.log
sed "s,<properties>,&<property name=\"prun.dir\" value=\"$dir/secret\"/>," one.xml >evil.xml
run --merge --partial -o other.xml --html other.html evil.xml
lacks 'a report cannot have any directory shown' other.html 'swordfish|/secret'
"$PRUN" -o - --html no.html t/test_pass.sh >out 2>err
has 'a page needs a report in a file' err 'prun: a page needs a report in a file'

# Two thousand files, ten of them failed.
awk 'BEGIN {
	print "<testsuites>"
	for (i = 0; i < 2000; i++) {
		bad = i % 200 == 7
		printf "<testsuite name=\"n%d\"><properties><property name=\"prun.file\" value=\"tests/e2e/some/where/test_number_%d.py\"/>", i, i
		printf "<property name=\"prun.run\" value=\"r%d\"/><property name=\"prun.shard\" value=\"%d/8\"/><property name=\"prun.plan\" value=\"p\"/>", i % 8, i % 8 + 1
		printf "<property name=\"prun.result\" value=\"%s\"/><property name=\"prun.seconds\" value=\"%d.5\"/>", bad ? "FAIL" : "PASS", i % 9
		printf "<property name=\"prun.worker\" value=\"%d\"/><property name=\"prun.phases\" value=\"clone=%d.0 start=%d.1 test=%d.3 stop=%d.8 end=%d.9\"/></properties>", i % 4, i, i, i, i, i
		printf "<testcase name=\"t\" classname=\"c\">%s</testcase></testsuite>\n", bad ? "<failure message=\"m\">text</failure>" : ""
	}
	print "</testsuites>"
}' >big.xml
run --merge -o big-out.xml --html big.html big.xml
is 'two thousand files make a page of less than 2 MB' \
	"$status $([ "$(wc -c <big.html)" -lt 2000000 ] && echo small) $(count '^<tr class' big.html)" '0 small 2000'
sed 's/"PASS"/"FAIL"/; s,<testcase[^>]*></testcase>,<testcase name="t" classname="c"><failure message="m">text</failure></testcase>,' big.xml >red.xml
GITHUB_ACTIONS=true GITHUB_STEP_SUMMARY=$dir/red run --merge -o big-out.xml --html red.html red.xml
is 'if all have failed, too' "$([ "$(wc -c <red.html)" -lt 2000000 ] && echo small) $(count '^<tr class="f FAIL' red.html)" 'small 2000'
ok 'and the summary of the step ends before 900 KB' test "$(wc -c <red)" -lt 900000

# results.jsonl and summary.json.
if have python3; then
	cat >lines.py <<-'END'
	import json, sys
	TEXT = {"suite", "path", "file", "result", "cause", "message", "dir", "database", "database_used"}
	WHOLE = {"index", "copy", "attempt", "status", "tests", "failed", "skipped", "worker"}
	ORDER = ["clone", "start", "wait", "test", "stop", "end"]
	lines = [json.loads(line) for line in open(sys.argv[1] + "/results.jsonl", encoding="utf-8")]
	plan = lines[0]
	assert set(plan) == {"prun", "run", "plan", "shard", "shards", "audit", "base", "started", "files"}, plan
	for f in plan["files"]:
	    assert set(f) == {"index", "suite", "path", "copy", "file"}, f
	for r in lines[1:]:
	    for key, value in r.items():
	        kind = str if key in TEXT else int if key in WHOLE else float
	        if key == "logs":
	            assert all(isinstance(name, str) for name in value)
	        elif key == "phases":
	            times = [value[k] for k in ORDER if k in value]
	            assert times == sorted(times) and len(times) == len(value) > 1, value
	            assert abs(times[0] - r["start"]) < 1 and times[-1] - times[0] < r["seconds"] + 1, r
	        else:
	            assert key in TEXT | WHOLE | {"start", "seconds"} and isinstance(value, kind), key
	    assert r["file"] == plan["files"][r["index"]]["file"]
	summary = json.load(open(sys.argv[1] + "/summary.json"))
	words = "PASS FLAKY SKIP NONE FAIL TIMEOUT ERROR CANCEL".split()
	keys = {"files", "tests", "failed", "skipped", "restarts", "seconds", "test_seconds", *words}
	assert set(summary) == keys | {"run", "status", "suites"}, summary
	for s in summary["suites"]:
	    assert set(s) == keys | {"name"}, s
	    assert sum(s[w] for w in words) == s["files"]
	print(len(lines), summary["files"], summary["status"])
	END
	is 'results.jsonl and summary.json are what the man page says' "$(python3 lines.py build/run 2>&1)" '7 4 1'
	has 'an attempt names its logs' build/run/results.jsonl '"logs":\["test.log"\]'
else
	skip 'no python3' 'results.jsonl and summary.json are what the man page says' 'an attempt names its logs'
fi
finish
