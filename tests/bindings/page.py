#!/usr/bin/env python3
"""Makes a shell script of a page of docs: its files are written, its commands run.

    page.py docs/rust.md LOG >script.sh

What an indented block is, the paragraph in front says, by how it ends:

    In `src/main.rs`:     the contents of that file
    `cargo run` prints    lines that this command prints
    anything else         commands; one that ends with "  # Prints X" prints X

All of it is for one shell. LOG gets what the newest commands have printed. Of what fails,
the script says which line of the page it is.
"""

import re
import shlex
import sys

_FILE = re.compile(r"`(\w[\w/-]*\.\w+)`:$")
_PRINTS = re.compile(r"`([^`]+)` prints$")
_PRINTS_LINE = re.compile(r"^(.*?)  # Prints (.*)$")


def blocks(lines):
    """(number of the first line, paragraph in front, lines) of each indented block."""
    paragraph, block, first = [], [], 0
    previous = ""
    for number, line in enumerate(lines + ["end"], 1):
        if line.startswith("    ") or block and not line:
            first = first if block else number
            block.append(line[4:])
        else:
            if block:
                yield first, " ".join(paragraph), "\n".join(block).rstrip("\n").split("\n")
                paragraph, block = [], []
            if line:
                paragraph = paragraph + [line] if previous else [line]
        previous = line


def _checked(command):
    found = _PRINTS_LINE.match(command)
    if not found:
        return [command]
    command, text = found.groups()
    return [f"output=$({command})", "echo \"$output\"", f"[ \"$output\" = {shlex.quote(text)} ]"]


def _run(commands):
    checked = [line for command in commands for line in _checked(command)]
    return ["echo \"== $where\"", "{", *checked, "} >\"$log\" 2>&1"]


def script(page, lines, log):
    made = [
        "set -euo pipefail",
        f"log={shlex.quote(log)}",
        "exec 3>&1",
        "trap '[ $? = 0 ] || { cat \"$log\"; echo \"$where: failed\"; } >&3; "
        "kill $(jobs -p) 2>/dev/null || true' EXIT",
    ]
    for number, paragraph, block in blocks(lines):
        made.append(f"where={shlex.quote(f'{page}:{number}')}")
        file, prints = _FILE.search(paragraph), _PRINTS.search(paragraph)
        if file:
            path = shlex.quote(file.group(1))
            made.append(f"mkdir -p \"$(dirname {path})\"")
            made.append(f"printf '%s\\n' {shlex.quote(chr(10).join(block))} >{path}")
        elif prints:
            made += _run([prints.group(1)])
            made += [f"grep -qxF -- {shlex.quote(line)} \"$log\"" for line in block]
        else:
            made += _run(block)
    return made


def main():
    page, log = sys.argv[1:]
    with open(page, encoding="utf-8") as file:
        print("\n".join(script(page, file.read().split("\n"), log)))


if __name__ == "__main__":
    main()
