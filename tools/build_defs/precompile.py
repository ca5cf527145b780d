#!/usr/bin/env python3
"""Runs gcc's command, the arguments, that makes a .gch: the same bytes each time.

A .gch is a copy of the compiler's memory, laid out by the addresses of what was
in it. So addresses aren't randomized, and the environment, which shifts them, is
the same, with the current folder under a name that fits any, and so is which
folders of the search path there are. What still differs is padding, in the table
of source ranges: what lay on the stack before, such as the stack protector's
random number. It is never read, and becomes zero: of gcc 12 alone, whose layout is
known here.

With another gcc, and where addresses can't be fixed, as in some containers, the
bytes differ, and it says so; and they do in folders whose paths differ much in
length, as those of two users may. Then a .gch that is made again, not taken from
the cache, has all that depends on it compiled again.
"""

import os
import re
import shutil
import subprocess
import sys

# libcpp's location_adhoc_data: three locations of 4 bytes, the padding, and a
# pointer that is null outside functions. Nothing else has a thousand of these in
# a row.
RECORD = 24
ROW = re.compile(rb"(?:(?!\0{4}).{16}\0{8}){1000,}", re.DOTALL)


def without_padding(data):
    data = bytearray(data)
    end = 0
    for probe in range(0, len(data), 4096):
        for start in range(max(probe, end), probe + RECORD, 4):
            row = ROW.match(data, start)
            if not row:
                continue
            first, end = row.span()
            while data[first - RECORD:first - RECORD + 4] != bytes(4) and data[first - 8:first] == bytes(8):
                first -= RECORD
            for i in range(first + 12, first + 16):
                data[i:end:RECORD] = bytes((end - first) // RECORD)
    return data


def main():
    command = sys.argv[1:]
    version = subprocess.run([command[0], "-dumpversion"], stdout=subprocess.PIPE, text=True).stdout
    layout_known = version.split(".")[0].strip() == "12"
    fixed = ["setarch", "-R"]
    addresses_fixed = bool(shutil.which("setarch")) and subprocess.run(
        fixed + ["true"], stderr=subprocess.DEVNULL).returncode == 0
    if addresses_fixed:
        command = fixed + command
    if not layout_known or not addresses_fixed:
        print("precompile.py: the bytes won't repeat: %s" % (
            "setarch -R fails" if layout_known else "gcc is " + version.strip()), file=sys.stderr)
    for option, folder in zip(command, command[1:]):
        # Other builds make some of them.
        if option in ("-iquote", "-isystem") and folder.startswith("bazel-out/"):
            os.makedirs(folder, exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "PWD": "/proc/self/cwd"}
    status = subprocess.run(command, env=environment).returncode
    if status != 0:
        sys.exit(status)
    if not layout_known:
        return
    path = command[command.index("-o") + 1]
    with open(path, "rb") as f:
        data = f.read()
    with open(path, "wb") as f:
        f.write(without_padding(data))


if __name__ == "__main__":
    main()
