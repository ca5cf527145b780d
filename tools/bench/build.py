#!/usr/bin/env python3
"""What a build costs: the compiler's user CPU seconds, file by file.

    ./bazelw run //tools/bench:build -- [OPTION ...] [TARGET ...]

Takes every C++ compilation behind the targets from Bazel's action graph, does
each again into nothing, and adds up. Machines differ and are noisy, so all is in
U: the user seconds of a file that only includes torch/torch.h, with the same
flags and without the prelude, on the same machine, taken before, between and
after the others.

Without targets: all files of //tools:grapnel, and of the others of //... every
tenth, from which the sum is estimated. Without the prelude:
--flags=--no//tools/build_defs:prelude

Builds the targets first, for their generated headers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

# Set by `bazel run`.
ROOT = os.environ.get("BUILD_WORKSPACE_DIRECTORY") or os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TORCH_API = "external/libtorch/include/torch/csrc/api/include"


def bazel(*args):
    done = subprocess.run(["./bazelw", *args], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr + "./bazelw %s failed" % " ".join(args))
    return done.stdout


def compilations(targets, flags):
    """Source to arguments of each compilation, once for each source."""
    query = 'mnemonic("CppCompile|CppPrecompile", deps(set(%s)))' % " ".join(targets)
    # Generated code is compiled by an aspect.
    graph = json.loads(bazel("aquery", *flags, "--include_aspects", "--output=jsonproto", query))
    found = {}
    for action in graph["actions"]:
        arguments = action["arguments"]
        if "-c" not in arguments:
            continue
        source = arguments[arguments.index("-c") + 1]
        found.setdefault(source, arguments)
    return dict(sorted(found.items()))


def kind(source):
    if source.endswith(".pb.cc"):
        return "from .proto files"
    return "preludes" if source.endswith(".h") else "sources"


def sampled(found, every):
    """Every Nth source of each kind, at least one; the preludes whole."""
    for what in sorted({kind(source) for source in found}):
        of_kind = [source for source in found if kind(source) == what]
        yield from of_kind if what == "preludes" else of_kind[::every]


def replaced(arguments, **values):
    """The arguments with other values for options that have one; None drops both."""
    command, rest = [], iter(arguments)
    for argument in rest:
        option = argument[1:].replace("-", "_")
        if argument.startswith("-") and option in values:
            next(rest)
            if values[option] is not None:
                command += [argument, values[option]]
        else:
            command.append(argument)
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


def compile_time(arguments, directory):
    # gcc seeks in what it precompiles, and so not into /dev/null.
    with tempfile.NamedTemporaryFile() as out:
        return user_seconds(replaced(arguments, o=out.name, MF="/dev/null"), directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--files", type=int, default=30, help="the most expensive to print")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sample", type=int, default=0,
                        help="every Nth file alone; without targets, of those not in //tools:grapnel")
    parser.add_argument("--flags", default="", help="of the build, as --config=asan")
    args = parser.parse_args()
    flags = args.flags.split()
    directory = bazel("info", "execution_root").strip()
    if args.targets:
        groups = [(" ".join(args.targets), compilations(args.targets, flags), args.sample or 1)]
    else:
        program = compilations(["//tools:grapnel"], flags)
        others = {s: a for s, a in compilations(["//..."], flags).items() if s not in program}
        groups = [("//tools:grapnel", program, 1), ("the rest of //...", others, args.sample or 10)]
    # Last, since it leaves there what these targets need and nothing else.
    bazel("build", *flags, *(args.targets or ["//..."]))
    chosen = [(group, source, found[source]) for group, (_, found, every) in enumerate(groups)
              for source in sampled(found, every)]
    if not chosen:
        sys.exit("no C++ is compiled for " + " ".join(args.targets))

    with tempfile.NamedTemporaryFile("w", suffix=".cc") as unit:
        unit.write('#include "torch/torch.h"\n')
        unit.flush()
        # One that sees all of LibTorch has the most include paths.
        model = max((a for _, s, a in chosen if kind(s) != "preludes"), key=len)
        one_unit = replaced(model, c=unit.name, include=None) + ["-isystem", TORCH_API]
        units = [compile_time(one_unit, directory)]

        def measure(choice):
            group, source, arguments = choice
            return group, source, compile_time(arguments, directory)

        costs = []
        with ThreadPoolExecutor(args.jobs) as pool:
            for n, cost in enumerate(pool.map(measure, chosen)):
                costs.append(cost)
                if n % 20 == 0:
                    print("%d of %d files" % (n, len(chosen)), file=sys.stderr, flush=True)
                if n == len(chosen) // 2:
                    units.append(compile_time(one_unit, directory))
        units.append(compile_time(one_unit, directory))

    u = statistics.median(units)
    costs.sort(key=lambda cost: -cost[2])
    print("U: %.1f s (%s)" % (u, ", ".join("%.1f" % x for x in units)))
    for _, source, seconds in costs[:args.files]:
        print("%6.3f U  %s" % (seconds / u, source))
    for group, (name, found, every) in enumerate(groups):
        print(name + (", from every %dth file" % every if every > 1 else ""))
        sums = {}
        for what in {kind(source) for source in found}:
            taken = [seconds for of, source, seconds in costs if of == group and kind(source) == what]
            number = sum(1 for source in found if kind(source) == what)
            sums[what] = sum(taken) / u * number / len(taken)
        for what, cost in sorted(sums.items(), key=lambda s: -s[1]):
            print("%6.1f U  %s, %d files" % (cost, what, sum(1 for s in found if kind(s) == what)))
        print("%6.1f U  in all" % sum(sums.values()))


if __name__ == "__main__":
    main()
