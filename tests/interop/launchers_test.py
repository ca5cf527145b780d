"""Ranks in C++ under launchers that aren't ours: torchrun, mpirun or srun.

Usage: launchers_test.py PROGRAM LAUNCHER, with //dist:rank_program.
"""

import os
import re
import subprocess
import sys


def _torchrun(program, count, restarts):
    torchrun = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torchrun.py")
    return [sys.executable, torchrun, program, "--nproc-per-node", str(count),
            "--no-python", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
            "--max-restarts", str(restarts), program]


def _mpirun(program, count, _):
    root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    return ["mpirun", "--oversubscribe", *root, "-n", str(count), program]


def _srun(program, count, _):
    return ["srun", "--overcommit", "-n", str(count), program]


_LAUNCHERS = {"torchrun": _torchrun, "mpi": _mpirun, "slurm": _srun}


def _run(command, *arguments):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.run([*command, *arguments], env=environment, timeout=120, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _check(condition, said, output):
    if not condition:
        sys.exit(f"{said}; the output:\n{output}")


def main():
    program, name = os.path.abspath(sys.argv[1]), sys.argv[2]
    launcher = _LAUNCHERS[name]

    ran = _run(launcher(program, 4, 0), "collect", "60", "60")
    _check(ran.returncode == 0, f"it ended with {ran.returncode}", ran.stdout)
    for rank in range(4):
        line = f"gloo, rank {rank} of 4, {name}, local rank {rank}"
        _check(ran.stdout.count(line) == 1, f"not once: {line}", ran.stdout)
    _check(ran.stdout.count("sum 10 gathered a,bb,ccc,dddd") == 4, "not all ranks got all",
           ran.stdout)

    # One rank fails, twice where the launcher starts all again.
    attempts = 2 if name == "torchrun" else 1
    ran = _run(launcher(program, 2, attempts - 1), "report", "60", "20")
    _check(ran.returncode != 0, "a rank failed, and the launcher didn't", ran.stdout)
    joined = re.findall(r"gloo, rank 0 of 2", ran.stdout)
    _check(len(joined) == attempts, f"{len(joined)} attempts, not {attempts}", ran.stdout)
    told = ran.stdout.count("first failure: DATA_LOSS: rank 1: digits is cut short")
    _check(told >= attempts, "rank 1's message isn't told", ran.stdout)


main()
