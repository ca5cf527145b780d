#!/usr/bin/env python3
"""Instructions of an iteration, counted by valgrind and held against a record.

  ./bazelw run //tools/bench:instructions                    print them
  ./bazelw run //tools/bench:instructions -- --check         fail if one grew
  ./bazelw run //tools/bench:instructions -- --record --reason "WHY"

Seconds move by more than a change does, and differ between machines; the count of
a program's instructions doesn't. --check fails where a figure is more than 2 %
above the record, tools/bench/instructions.json. If that has to be, --record
writes the new figures there, and why. A figure that fell by as much should be
recorded too, or what was won may be lost unseen.

A figure is of one iteration, on the thread that trains; "hook/..." is what that
hook adds to a runner without hooks, and "empty/..." what is added to a loop by
hand. See instructions.cc for what each is.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

RECORD = "tools/bench/instructions.json"
HOW = './bazelw run //tools/bench:instructions -- --record --reason "WHY"'

ALLOWED = 0.02
# What counts vary by from run to run, and what rounding to whole ones does.
NOISE = 0.001
ROUNDING = 1


# ------------------------------------------------------------------- counting

def read_output(text):
    """What the program printed: its tools, and {name: (iterations, base)}."""
    tools, runs = {}, {}
    for line in text.splitlines():
        fields = line.split("\t")
        if fields[0] == "tool":
            tools[fields[1]] = fields[2]
        elif fields[0] == "run":
            runs[fields[1]] = (int(fields[2]), None if fields[3] == "-" else fields[3])
    return tools, runs


def read_dumps(folder):
    """{name: instructions} of the dumps that the program asked for."""
    totals = {}
    for name in os.listdir(folder):
        # Of the first thread. When the log's thread runs is chance.
        if not re.fullmatch(r"dump\.\d+-01", name):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            text = f.read()
        trigger = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
        if trigger and total:
            totals[trigger.group(1)] = int(total.group(1))
    return totals


def figures_of(runs, totals):
    """{name: instructions of an iteration}, less those of its base."""
    missing = sorted(set(runs) - set(totals))
    if missing:
        raise ValueError("valgrind left no count of " + ", ".join(missing))
    each = {name: totals[name] / iterations for name, (iterations, _) in runs.items()}
    return {name: each[name] - (each[base] if base else 0) for name, (_, base) in runs.items()}


def measure(program):
    """The figures of this build, and the tools that they depend on."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("valgrind is missing: install it, or run ./bazelw setup --all")
    version = subprocess.run([valgrind, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    with tempfile.TemporaryDirectory(prefix="grapnel_instructions_") as folder:
        # Nothing of the user's: variables change what LibTorch does, and their
        # and the checkout's length where things lie. Which CPU this is doesn't
        # matter: valgrind shows a program the same one, with AVX2 if this one
        # has it.
        os.symlink(os.path.abspath(program), os.path.join(folder, "program"))
        result = subprocess.run(
            [valgrind, "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no",
             "--separate-threads=yes", "--callgrind-out-file=dump", "./program", "work"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"LC_ALL": "C", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TZ": "UTC"})
        if result.returncode != 0:
            sys.exit(f"{result.stdout}{result.stderr}\nthe program failed under valgrind")
        tools, runs = read_output(result.stdout)
        tools["valgrind"] = version.strip().rpartition("-")[2]
        tools["machine"] = platform.machine()
        return figures_of(runs, read_dumps(folder)), tools


# ------------------------------------------------------------------ comparing

def compare(recorded, now):
    """[(name, recorded or None, now or None, what is to say or "")]."""
    rows = []
    for name in list(now) + [name for name in recorded if name not in now]:
        old, new = recorded.get(name), now.get(name)
        if old is None:
            verdict = "not in the record"
        elif new is None:
            verdict = "no longer measured"
        elif new > old * (1 + ALLOWED) + ROUNDING:
            verdict = "GREW"
        elif new < old * (1 - ALLOWED) - ROUNDING:
            verdict = "fell: record it"
        else:
            verdict = ""
        rows.append((name, old, new, verdict))
    return rows


def failures(rows):
    """A line for each row that fails a check."""
    return [f"{name}: {verdict}" + (f", from {old} to {new:.0f} instructions" if verdict == "GREW" else "")
            for name, old, new, verdict in rows
            if verdict and not verdict.startswith("fell")]


def other_tools(recorded, now):
    """A line for each tool that isn't the record's."""
    return [f"{tool}: the record's is {recorded.get(tool, 'none')}, here it is {now.get(tool, 'none')}"
            for tool in sorted(set(recorded) | set(now))
            if recorded.get(tool) != now.get(tool)]


def table(rows):
    lines = [f"{'':22} {'recorded':>10} {'now':>10} {'ratio':>8}"]
    for name, old, new, verdict in rows:
        ratio = f"{round(new) / old:.4f}" if old and new is not None else ""
        lines.append(" ".join([
            f"{name:22}", f"{'' if old is None else old:>10}",
            f"{'' if new is None else format(new, '.0f'):>10}", f"{ratio:>8}", verdict]).rstrip())
    return "\n".join(lines)


def new_record(record, figures, tools, reason):
    """The record with these figures, and a line for each change.

    What moved no more than it does by itself stays as it is.
    """
    if record is None:
        return {"tools": tools, "figures": {name: round(new) for name, new in figures.items()},
                "changes": ["all: " + reason]}
    changes = [f"{line}: {reason}" for line in other_tools(record["tools"], tools)]
    kept = {}
    for name, old, new, _ in compare(record["figures"], figures):
        if new is None:
            changes.append(f"{name}: {old} -> none: {reason}")
            continue
        kept[name] = round(new)
        if old is not None and abs(new - old) <= max(old * NOISE, ROUNDING):
            kept[name] = old
        if kept[name] != old:
            changes.append(f"{name}: {'none' if old is None else old} -> {kept[name]}: {reason}")
    return {"tools": tools, "figures": kept, "changes": record["changes"] + changes}


# -----------------------------------------------------------------------------

def check(rows, others, allow_other_tools):
    """Says what is wrong, and returns the exit code."""
    if others and not allow_other_tools:
        # An error: a check that passes because it can't compare would pass for
        # ever once CI's compiler is another one. Who has other tools at hand and
        # knows it says so.
        print("the record can't be compared with: it was made with other tools. Record again:\n  "
              + HOW + "\nor pass --allow-other-tools")
        return 1
    wrong = [] if others else failures(rows)
    for line in wrong:
        print(line)
    if wrong:
        print(f"If this has to be, record it with the reason:\n  {HOW}")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help="exit code 1 if a figure grew by more than 2 %%")
    parser.add_argument("--allow-other-tools", action="store_true",
                        help="let a check pass where compiler or libraries aren't the record's")
    parser.add_argument("--record", action="store_true", help="write what is measured into the record")
    parser.add_argument("--reason", default="", help="why the record changes; with --record")
    args = parser.parse_args()
    if args.record != bool(args.reason.strip()):
        parser.error("--record needs a --reason, and the other way round")
    if args.record and args.check:
        parser.error("--check and --record exclude each other")

    path = os.path.join(os.environ["BUILD_WORKSPACE_DIRECTORY"], RECORD)
    record = None
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            record = json.load(f)
    figures, tools = measure(args.program)
    rows = compare(record["figures"] if record else {}, figures)
    others = other_tools(record["tools"], tools) if record else []
    print(table(rows))
    for line in others:
        print(line)
    if args.record:
        with open(path, "w", encoding="utf-8") as f:
            json.dump(new_record(record, figures, tools, args.reason.strip()), f, indent=2)
            f.write("\n")
        print("wrote " + RECORD)
    return check(rows, others, args.allow_other_tools) if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
