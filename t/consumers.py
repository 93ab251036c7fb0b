"""consumers.py MERGED [SOURCE...]: reads a merged report as those do who will get it;
prints what any of them would take amiss, nothing when all is well.  SOURCEs are the
reports that were merged: their cases must all be there.  Without arguments it does
this for each line of standard input: MERGED, a tab, SOURCE.
consumers.py --show MERGED: what the pages of GitLab, Jenkins and Azure show of each
test that failed, as their documentation has it."""
from collections import Counter
import sys
import xml.etree.ElementTree as ET

from junitparser import JUnitXml

SIX = {"failure", "rerunFailure", "flakyFailure", "skipped", "error", "rerunError", "flakyError"}
COUNTS = ("tests", "failures", "errors", "skipped")


def verdict(case):
    tags = {child.tag.split("}")[-1] for child in case}
    if "failure" in tags:
        return "failures"
    if "error" in tags:
        return "errors"
    off = case.get("status") in ("disabled", "notrun") or case.get("result") == "suppressed"
    return "skipped" if "skipped" in tags or off else "passed"


def count(cases):
    n = dict.fromkeys(COUNTS + ("passed",), 0)
    for case in cases:
        n["tests"] += 1
        n[verdict(case)] += 1
    return [n[k] for k in COUNTS]


def check(path):
    root = ET.parse(path).getroot()
    stated = [int(root.get(k)) for k in COUNTS]
    if stated != count(root.iter("testcase")):
        yield f"testsuites says {stated}, has {count(root.iter('testcase'))}"
    # dorny/test-reporter, Allure: suites below suites are not looked at
    if root.tag != "testsuites" or any(s.find("testsuite") is not None for s in root):
        yield "more than one level"
    for number, suite in enumerate(root):
        cases = suite.findall("testcase")
        if [int(suite.get(k)) for k in COUNTS] != count(cases):
            yield f"suite {suite.get('name')} is not counted right"
        # Jenkins merges suites of one name that have no id
        if suite.get("id") != str(number) or not suite.get("name"):
            yield f"suite {number} has no name or a wrong id"
        for case in cases:
            name = f"{case.get('classname')} {case.get('name')}"
            if not case.get("name") or not case.get("classname"):
                yield "a case without name or classname"
            # GitLab: one of each, or the whole report is refused
            for tag in ("system-out", "system-err"):
                if len(case.findall(tag)) > 1:
                    yield f"{name}: two {tag}"
            for result in case:
                if result.tag in ("failure", "error") and not (result.text or "").strip():
                    yield f"{name}: no text in its {result.tag}"
                elif result.tag in ("failure", "error"):
                    # as a parser normalises an attribute
                    message = " ".join((result.get("message") or "").split())
                    if not " ".join(result.text.split()).startswith(message):
                        yield f"{name}: the text of its {result.tag} does not begin with its message"
                if result.tag in SIX and result.get("type") in ("yaml", "symbol", "array", "file"):
                    yield f"{name}: a type that GitLab takes for something else"
            if "e" in case.get("time") or float(case.get("time")) < 0:
                yield f"{name}: time {case.get('time')}"
    report = JUnitXml.fromfile(path)
    if [report.tests, report.failures, report.errors, report.skipped] != stated:
        yield "junitparser reads other totals"
    if sum(1 for suite in report for _ in suite) != stated[0]:
        yield "junitparser sees another number of cases"


def carried(root):
    """What a report tells beside its cases, and the dialect can carry."""
    have = []
    for suite in root.iter("testsuite"):
        if suite.find("testcase") is not None:
            have += [(k, suite.get(k)) for k in ("timestamp", "hostname") if suite.get(k)]
            have += [(p.get("name"), p.get("value") or p.text) for p in suite.findall("properties/property")]
    for case in root.iter("testcase"):
        have += [(k, v) for k, v in case.items() if k not in ("name", "classname", "time", "type")]
        have += [(p.get("name"), p.get("value") or p.text) for p in case.findall("properties/property")]
        have += [(r.tag, r.get("message")) for r in case if r.tag in SIX - {"skipped"}]
    # A parser makes blanks of newlines in attributes; the report keeps them.
    return Counter((k, " ".join((v or "").split())) for k, v in have if k)


def compare(path, sources):
    want, left, told = [0, 0, 0, 0], len(sources) == 0, Counter()
    for source in sources:
        try:
            root = ET.parse(source).getroot()
        except (ET.ParseError, ValueError):     # ill-formed, or in Shift-JIS
            left += 1
            continue
        if "<!ATTLIST" in open(source, errors="replace").read():    # has defaults
            left += 1
        if root.tag.split("}")[-1] not in ("testsuites", "testsuite"):
            left += 1
            continue
        for element in root.iter():
            element.tag = element.tag.split("}")[-1]
        told += carried(root)
        got = count(root.iter("testcase"))
        for suite in root.iter("testsuite"):        # the suites' own troubles
            for tag, k in (("failure", 1), ("error", 2)):
                n = len(suite.findall(tag))
                got[0] += n
                got[k] += n
        want = [a + b for a, b in zip(want, got)]
    have = [int(ET.parse(path).getroot().get(k)) for k in COUNTS]
    if not left and have != want:
        yield f"{' '.join(sources)}: merged {have}, there are {want}"
    lost = told - carried(ET.parse(path).getroot())
    if not left and lost:
        yield f"{' '.join(sources)}: lost {list(lost)[:3]}"


def tell(merged, sources, before=""):
    for line in list(check(merged)) + list(compare(merged, sources)):
        print(before + line)


def show(path):
    for case in ET.parse(path).getroot().iter("testcase"):
        bad = case.find("failure")
        bad = case.find("error") if bad is None else bad
        if bad is None:
            continue
        name, cls, text = case.get("name"), case.get("classname"), bad.text.strip().split("\n")
        # docs.gitlab.com, unit test reports: the element's text is the output
        print("gitlab:", cls, name, case.get("file"), text[0], sep=" | ")
        # plugins.jenkins.io/junit: packages, classes; details from message, stack from text
        print("jenkins:", cls.rpartition(".")[0] or "(root)", cls.rpartition(".")[2], name,
              " ".join(bad.get("message").split()), len(text) > 1, sep=" | ")
        # learn.microsoft.com, PublishTestResults: title, error message, stack trace, console
        out = case.findtext("system-out") or ""
        print("azure:", name, " ".join(bad.get("message").split()), len(text) > 1,
              [line[13:-2] for line in out.split("\n") if line.startswith("[[ATTACHMENT|")], sep=" | ")


if sys.argv[1:2] == ["--show"]:
    show(sys.argv[2])
elif len(sys.argv) > 1:
    tell(sys.argv[1], sys.argv[2:])
else:
    for pair in sys.stdin:
        merged, source = pair.rstrip("\n").split("\t")
        tell(merged, [source], f"{source}: ")
