"""What each test that failed in a run of nextest printed last, from its JUnit file. A second try's failure is the same again."""

import sys
import xml.etree.ElementTree as ElementTree

LINES = 25

for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
    for failed in (part for part in case if part.tag in {"failure", "error", "flakyFailure"}):
        said = failed.findtext("system-err") or case.findtext("system-err") or failed.text or ""
        before_backtrace = said.partition("\nstack backtrace:")[0].strip().splitlines()
        print(f"\n== {case.get('classname')} {case.get('name')}: {failed.get('type')}")
        print("\n".join(before_backtrace[-LINES:]))
