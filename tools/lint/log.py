#!/usr/bin/env python3
"""Nobody logs, checks or ends the process but as base/log.h says.

LibTorch's headers define LOG, VLOG, CHECK and DCHECK, as glog's do, and the
compiler doesn't say which of the two a line got. And a library never ends the
process that it is in, nor writes to its stdout.
"""

import re

import build_files
import tree

_BARE = re.compile(
    r"(?<!\w)((?:D|P)?CHECK(?:_[A-Z]+)*|(?:D|P|V|DV|SYS)?LOG(?:_[A-Z_]+)?)\s*\(")
_ENDS = re.compile(r"\bGRAPNEL_CHECK\s*\(|\bGRAPNEL_LOG\s*\(\s*FATAL\s*\)")
_EXITS = re.compile(
    r"(?<![\w.>:])(?:std::|::)?(?:abort|exit|_exit|_Exit|quick_exit|terminate)\s*\(")
_PRINTS = re.compile(
    r"\bstd::(?:cout|cerr|clog)\b|(?<![\w.>:])(?:std::)?(?:printf|puts|putchar|fprintf)\s*\(")


def _programs_and_tests(files):
    """Sources of what a library's user never links."""
    found = set()
    for target in build_files.all_targets(files):
        if target.attributes.get("testonly") or target.kind.endswith(("_test", "_binary")):
            found.update(target.files("srcs", "hdrs"))
    return found


def check(files):
    problems = []
    exempt = _programs_and_tests(files)
    for path in files.select(*tree.CPP):
        text = files.text(path)
        for number, included in tree.includes_of(text):
            if included.startswith("glog/") and path != "base/log.cc":
                problems.append(f"{path}:{number}: glog is for base/log.cc alone; include grapnel/base/log.h")
        for number, line in enumerate(tree.code_of(text).split("\n"), 1):
            where = f"{path}:{number}"
            if line.lstrip().startswith("#"):
                continue
            bare = _BARE.search(line)
            if bare:
                problems.append(f"{where}: {bare.group(1)} is LibTorch's or glog's; write GRAPNEL_{bare.group(1)}")
            if path in exempt or path.startswith(("base/log", "examples/", "tests/", "tools/")):
                continue
            if _ENDS.search(line):
                problems.append(f"{where}: a library doesn't end the process; write GRAPNEL_RET_CHECK or return a status")
            if _EXITS.search(line):
                problems.append(f"{where}: a library doesn't end the process; return a status")
            if _PRINTS.search(line):
                problems.append(f"{where}: a library doesn't print; log by GRAPNEL_LOG or return it")
    return problems


if __name__ == "__main__":
    tree.main(check)
