#!/usr/bin/env python3
"""A header's example is tested: tests/header_examples/BUILD lists the header.

What an example is tools/docs/header_examples.py says, which fails for a header
that is listed and has none.
"""

import re

import build_files
import tree

_TESTS = "tests/header_examples"
_EXAMPLE = re.compile(r"^ *// Example:$", re.MULTILINE)


def check(files):
    tested = set()
    for target in build_files.targets_of(files, _TESTS):
        if target.kind == "genrule":
            tested.update(target.attributes["srcs"])
    problems = []
    for path in files.select(".h"):
        label = "//{0}:{2}".format(*path.rpartition("/"))
        if _EXAMPLE.search(files.text(path)) and label not in tested:
            problems.append(f"{path}: has an example, and isn't listed in {_TESTS}/BUILD")
    return problems


if __name__ == "__main__":
    tree.main(check)
