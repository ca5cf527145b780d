"""The ABI of the C API: what grapnel.h makes of its callers' object files.

  abi.py check DIR HEADER    compares a header with what is recorded in DIR
  abi.py record DIR HEADER   records it: DIR/grapnel.abi, DIR/macros.txt

Functions, structs and enums are as abidw (libabigail) reads them from a library
that defines every function of the header; macros, which leave no trace in a
library, as the preprocessor lists them.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

ABI = "grapnel.abi"
MACROS = "macros.txt"

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DIRECTIVE = re.compile(r"^\s*#.*?(?<!\\)$", re.MULTILINE | re.DOTALL)
_DECLARATION = re.compile(r"\bGRAPNEL_API\b[^;{}]*;")

# Without --load-all-types, and -fno-eliminate-unused-debug-types below, nothing
# sees that an enum's value has changed: functions take an int32_t, and no type
# that one of them has leads to the enum.
_ABIDW = ["abidw", "--load-all-types", "--no-corpus-path", "--no-comp-dir-path", "--no-show-locs"]
_ABIDIFF = ["abidiff", "--non-reachable-types", "--harmless"]


def _run(command, **kwargs):
    if shutil.which(command[0]) is None:
        sys.exit(f"no {command[0]}: run ./bazelw setup --all")
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, **kwargs)


def _must(command, **kwargs):
    result = _run(command, **kwargs)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def definitions(header):
    """C that defines every function which the text of a header declares."""
    code = _DIRECTIVE.sub("", _COMMENT.sub(" ", header))
    functions = [declaration[:-1] + " { __builtin_trap(); }\n"
                 for declaration in _DECLARATION.findall(code)]
    return '#include "grapnel.h"\n' + "".join(functions)


def _macros(tmp):
    """What the header defines, and not what it includes."""
    source = os.path.join(tmp, "macros.c")
    defined = []
    for includes in ("#include <stddef.h>\n#include <stdint.h>\n", '#include "grapnel.h"\n'):
        with open(source, "w") as f:
            f.write(includes)
        defined.append(set(_must(["gcc", "-E", "-dM", source]).split("\n")))
    return sorted(line.rstrip() for line in defined[1] - defined[0])


def read(header, tmp):
    """The ABI of the text of a header, as (abidw's XML, lines of macros)."""
    with open(os.path.join(tmp, "grapnel.h"), "w") as f:
        f.write(header)
    with open(os.path.join(tmp, "grapnel.c"), "w") as f:
        f.write(definitions(header))
    _must(["gcc", "-std=gnu2x", "-w", "-g", "-fno-eliminate-unused-debug-types", "-shared", "-fPIC",
           "-Wl,-soname,libgrapnel.so.0", "grapnel.c", "-o", "grapnel.so"], cwd=tmp)
    _must(_ABIDW + ["--out-file", ABI, "grapnel.so"], cwd=tmp)
    with open(os.path.join(tmp, ABI)) as f:
        return f.read(), _macros(tmp)


def compare(folder, header):
    """What differs between the record in a folder and the text of a header, for people; "" if nothing."""
    with tempfile.TemporaryDirectory() as tmp:
        _, macros = read(header, tmp)
        abidiff = _run(_ABIDIFF + [os.path.join(folder, ABI), os.path.join(tmp, ABI)])
        if abidiff.returncode & 3:  # 1: it failed; 2: it didn't like its arguments.
            raise RuntimeError(f"abidiff: {abidiff.returncode}\n{abidiff.stdout}{abidiff.stderr}")
        # 4: something differs, if only that there is more; 8: it breaks callers.
        difference = abidiff.stdout if abidiff.returncode else ""
    with open(os.path.join(folder, MACROS)) as f:
        recorded = f.read().splitlines()
    difference += "".join(f"gone: {line}\n" for line in recorded if line not in macros)
    difference += "".join(f"new: {line}\n" for line in macros if line not in recorded)
    return difference


def record(folder, header):
    with tempfile.TemporaryDirectory() as tmp:
        abi, macros = read(header, tmp)
    for name, text in ((ABI, abi), (MACROS, "".join(line + "\n" for line in macros))):
        # The old one may be a link to Bazel's copy.
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)


def main():
    command, folder, path = sys.argv[1:]
    with open(path) as f:
        header = f.read()
    if command == "record":
        record(folder, header)
        return 0
    difference = compare(folder, header)
    if difference:
        print(difference + "the header isn't what capi/abi records: callers that exist may break. If the change "
              "only adds, or no version with it is out: ./bazelw run //capi/abi:record")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
