#!/usr/bin/env python3
"""A header's guard is named after its path, and closed with its name.

That of the C API's is named after what its users include.
"""

import re

import tree

# Of headers in C.
_INCLUDE = "capi/include/grapnel/"


def guard_of(path):
    path = path[len(_INCLUDE):] if path.startswith(_INCLUDE) else path
    return "GRAPNEL_" + re.sub(r"[^A-Z0-9]", "_", path.upper()) + "_"


def check(files):
    problems = []
    for path in files.select(".h"):
        guard = guard_of(path)
        text = files.text(path)
        end = f"#endif /* {guard} */" if path.startswith(_INCLUDE) else f"#endif  // {guard}"
        directives = [l for l in tree.code_of(text).split("\n") if l.startswith("#")]
        if directives[:2] != [f"#ifndef {guard}", f"#define {guard}"]:
            problems.append(f"{path}: must begin with #ifndef and #define {guard}")
        elif not text.rstrip().endswith(end):
            problems.append(f"{path}: must end with {end}")
    return problems


if __name__ == "__main__":
    tree.main(check)
