#!/usr/bin/env python3
"""Writes tests/golden/README.md from what the last `bazel test //...` noted.

  tools/golden/table.py           write it
  tools/golden/table.py --check   fail if it isn't what would be written, or if
                                  a case was not run

Tests note each golden case that holds in their log (golden_report.h). A test
that failed counts for nothing, and neither does a log that was left by one that
is no longer there.
"""

import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
# Sections that explain the file and assert nothing.
PROSE = {"meta", "rule", "source_rule"}

HEADER = """\
# Golden tables

What MMEngine 0.10.7 does, to the number: made by running it on torch 2.11.0, as
each file's `meta` says. The tests of the parts read these files, and note each
case that they ran. This page is generated from that: after `./bazelw test
//...`, by `tools/golden/table.py`.

A stated difference is one that we chose: the test asserts what ours is, and
[docs/from_mmengine.md](../../docs/from_mmengine.md) says why, by the same ids.

"""


def cases(data):
    """The names of a golden file's cases: "<section>/<case>", "<section>"."""
    names = []
    for section, content in data.items():
        if section in PROSE:
            continue
        if not isinstance(content, list):
            names.append(section)
            continue
        for i, item in enumerate(content):
            name = item.get("name", i) if isinstance(item, dict) else i
            names.append(f"{section}/{name}")
    return names


def passed(log):
    """Whether the test whose log this is has passed."""
    try:
        suites = xml.etree.ElementTree.parse(log.with_name("test.xml")).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return False
    return all(
        int(suite.get(what) or 0) == 0
        for suite in suites.iter("testsuite")
        for what in ("failures", "errors")
    )


def test_logs():
    """The log of each test of //...; Bazel leaves those of former ones behind."""
    query = ["./bazelw", "query", "--noshow_progress", "tests(//...)"]
    done = subprocess.run(query, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for label in done.stdout.split():
        log = ROOT / "bazel-testlogs" / label.lstrip("/").replace(":", "/") / "test.log"
        if log.exists():
            yield log


def noted(logs):
    """{(file, case): difference} over all these logs."""
    notes = {}
    for log in sorted(logs):
        lines = [
            line.split("\t")[1:]
            for line in log.read_text(errors="replace").splitlines()
            if line.startswith("[golden]\t")
        ]
        if not lines or not passed(log):
            continue
        for file, case, difference in lines:
            # Of two tests of one case the one that differs has more to say.
            notes[file, case] = notes.get((file, case)) or difference
    return notes


def table(notes):
    """The page's text, and a line for each problem."""
    rows, differences, problems = [], [], []
    total = [0, 0, 0, 0]
    known = set()
    for path in sorted(GOLDEN.glob("*.json")):
        same, stated, missing = [], [], []
        for case in cases(json.loads(path.read_text())):
            section = case.split("/")[0] + "/*"
            key = next(
                (k for k in (case, section) if (path.name, k) in notes), None
            )
            known.update({(path.name, case), (path.name, section)})
            if key is None:
                missing.append(case)
            elif notes[path.name, key]:
                stated.append((case, notes[path.name, key]))
            else:
                same.append(case)
        counts = [len(same) + len(stated) + len(missing)]
        counts += [len(same), len(stated), len(missing)]
        total = [a + b for a, b in zip(total, counts)]
        rows.append((path.name, counts))
        differences += [(path.name, *item) for item in stated]
        problems += [f"{path.name}: not run: {case}" for case in missing]
    problems += [
        f"{file}: noted, but there is no such case: {case}"
        for file, case in sorted(notes)
        if (file, case) not in known
    ]

    lines = ["| file | cases | the same | with a stated difference | not run |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, counts in rows + [("all", total)]:
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    lines += ["", "## Stated differences", "", "| file | case | ours |"]
    lines.append("|---|---|---|")
    for file, case, difference in differences:
        lines.append(f"| {file} | {case} | {difference} |")
    return HEADER + "\n".join(lines) + "\n", problems


def main(argv):
    if argv not in ([], ["--check"]):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    text, problems = table(noted(test_logs()))
    for problem in problems:
        print(f"table.py: {problem}", file=sys.stderr)
    page = GOLDEN / "README.md"
    if argv:
        if page.exists() and page.read_text() == text:
            return 1 if problems else 0
        print(
            "table.py: tests/golden/README.md is old: run the tests, then "
            "tools/golden/table.py",
            file=sys.stderr,
        )
        return 1
    page.write_text(text)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
