#!/usr/bin/env python3
"""A header's guard is named after its path, and closed with its name."""

import re

import tree


def guard_of(path):
    return "GRAPNEL_" + re.sub(r"[^A-Z0-9]", "_", path.upper()) + "_"


def check(files):
    problems = []
    for path in files.select(".h"):
        guard = guard_of(path)
        text = files.text(path)
        directives = [l for l in tree.code_of(text).split("\n") if l.startswith("#")]
        if directives[:2] != [f"#ifndef {guard}", f"#define {guard}"]:
            problems.append(f"{path}: must begin with #ifndef and #define {guard}")
        elif not text.rstrip().endswith(f"#endif  // {guard}"):
            problems.append(f"{path}: must end with #endif  // {guard}")
    return problems


if __name__ == "__main__":
    tree.main(check)
