"""What an iteration of the MLP costs from each language, over the loop by hand in C++.

  ./bazelw run //tools/bench:languages -- [--blocks N] [--program NAME=COMMAND ...]

The programs take turns, a block of iterations each, and wait meanwhile: what disturbs the
machine for a while disturbs all. A ratio is the median over the blocks. Those of the house
are in C++; others, in Go, Rust, or with another library, are built by hand and named by
--program. Each reads a number of iterations from a line of stdin, does them, and prints the
nanoseconds that one took.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import sys

_MLP = "tools/bench/mlp"
_ITERATIONS = 400


class Program:
    def __init__(self, name, command, folder=None):
        self.name = name
        try:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as e:
            sys.exit(f"{name}: {e.filename}: {e.strerror}")
        self.times = []

    def block(self, iterations):
        try:
            self._process.stdin.write(f"{iterations}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # What it has printed before is read all the same.
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: has ended, with {self._process.wait()}")
        return float(line)

    def close(self):
        self._process.stdin.close()
        if self._process.wait() != 0:
            sys.exit(f"{self.name} ended with {self._process.returncode}")


def ratio(times, reference):
    return statistics.median(a / b for a, b in zip(times, reference))


def main():
    parser = argparse.ArgumentParser(prog="languages", allow_abbrev=False)
    parser.add_argument("--blocks", type=int, default=101, help="of each program")
    parser.add_argument("--program", action="append", default=[], metavar="NAME=COMMAND")
    options = parser.parse_args()
    if options.blocks < 1:
        parser.error(f"--blocks: must be >= 1, is {options.blocks}")
    programs = [Program("C++, by hand", [_MLP, "fused"]),
                Program("C++, by hand, again", [_MLP, "fused"]),
                Program("C++, by hand, LibTorch's SGD", [_MLP, "libtorch"]),
                Program("C++, Runner::Step", [_MLP, "runner"])]
    for program in options.program:
        name, _, command = program.partition("=")
        if not name or not command:
            parser.error(f"--program: must be NAME=COMMAND, is \"{program}\"")
        # A relative command is one from where the user is.
        programs.append(Program(name, shlex.split(command), os.environ.get("BUILD_WORKING_DIRECTORY")))
    for program in programs:
        program.block(_ITERATIONS)  # Warms up.
    for _ in range(options.blocks):
        for program in programs:
            program.times.append(program.block(_ITERATIONS))
    reference, again = programs[0].times, programs[1].times
    print(f"an iteration of the MLP 784-128-10, batch 32: {options.blocks} blocks of {_ITERATIONS}")
    for program in programs:
        print(f"  {program.name:32} {statistics.median(program.times):9.0f} ns"
              f"   {ratio(program.times, reference):.4f}")
        program.close()
    if not 0.98 <= ratio(again, reference) <= 1.02:
        print("  The loop by hand over itself is not near 1: this is no result.")


if __name__ == "__main__":
    main()
