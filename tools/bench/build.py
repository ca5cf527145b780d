#!/usr/bin/env python3
"""What a build costs: the compiler's user CPU seconds, file by file.

    tools/bench/build.py [--files N] [--jobs N] [--sample N] [TARGET ...]

Takes every C++ compilation behind the targets, default //tools:grapnel, from
Bazel's action graph, does each again into nothing, and adds up. Machines differ
and are noisy, so all is in U: the user seconds of a file that only includes
torch/torch.h, with the same flags, on the same machine, taken before, amid and
after the others.

The targets must have been built, for their generated headers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TORCH_API = "external/libtorch/include/torch/csrc/api/include"


def bazel(*args):
    return subprocess.run(
        ["./bazelw", *args], cwd=ROOT, check=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True).stdout


def compilations(targets, flags):
    """(source, arguments) of each compilation, once for each source."""
    query = 'mnemonic("CppCompile", deps(set(%s)))' % " ".join(targets)
    graph = json.loads(bazel("aquery", *flags, "--output=jsonproto", query))
    found = {}
    for action in graph["actions"]:
        arguments = action["arguments"]
        if "-c" not in arguments:
            continue
        source = arguments[arguments.index("-c") + 1]
        found.setdefault(source, arguments)
    return sorted(found.items())


def into_nothing(arguments, source=None):
    """The command that compiles and keeps nothing."""
    command, i = [], 0
    while i < len(arguments):
        if arguments[i] in ("-o", "-MF"):
            command += [arguments[i], "/dev/null"]
            i += 2
        elif arguments[i] == "-c" and source:
            command += ["-c", source]
            i += 2
        else:
            command.append(arguments[i])
            i += 1
    return command


def user_seconds(command, directory):
    process = subprocess.Popen(
        command, cwd=directory, stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]})
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit("%s\n%s" % (" ".join(command), errors.decode()))
    return usage.ru_utime


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", default=["//tools:grapnel"])
    parser.add_argument("--files", type=int, default=30, help="the dearest to print")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sample", type=int, default=1, help="every Nth file alone")
    parser.add_argument("--flags", default="", help="of the build, as --config=asan")
    args = parser.parse_args()
    directory = bazel("info", "execution_root").strip()
    sources = compilations(args.targets, args.flags.split())[::args.sample]
    if not sources:
        sys.exit("no C++ is compiled for " + " ".join(args.targets))

    with tempfile.NamedTemporaryFile("w", suffix=".cc") as unit:
        unit.write('#include "torch/torch.h"\n')
        unit.flush()
        # One that sees all of LibTorch has the most include paths.
        model = max((a for _, a in sources), key=len)
        one_unit = into_nothing(model, unit.name) + ["-isystem", TORCH_API]
        units = [user_seconds(one_unit, directory)]

        def measure(source):
            return source[0], user_seconds(into_nothing(source[1]), directory)

        costs = []
        with ThreadPoolExecutor(args.jobs) as pool:
            for n, cost in enumerate(pool.map(measure, sources)):
                costs.append(cost)
                if n == len(sources) // 2:
                    units.append(user_seconds(one_unit, directory))
        units.append(user_seconds(one_unit, directory))

    u = statistics.median(units)
    costs.sort(key=lambda cost: -cost[1])
    print("U: %.1f s (%s)" % (u, ", ".join("%.1f" % x for x in units)))
    for source, seconds in costs[:args.files]:
        print("%6.3f U  %s" % (seconds / u, source))
    print("%6.1f U  in all, %d files: %s" % (
        sum(seconds for _, seconds in costs) / u, len(costs), " ".join(args.targets)))


if __name__ == "__main__":
    main()
