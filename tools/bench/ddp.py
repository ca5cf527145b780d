"""What an iteration of two ranks costs, over that of Python's DistributedDataParallel.

  ./bazelw run //tools/bench:ddp -- [--blocks N] [--iterations N]

Two processes of a thread each, with the environment that torchrun gives them, which take
turns: a loop by hand in Python, one in C++ (ddp_rank.cc), and the runner with its default
hooks. Those in C++ draw their batches from a loader, Python's goes on with one batch. A
ratio is the median over the blocks of the slower rank's time; that of the processors' time,
of both ranks, holds where the machine does something else too.

Then how long runs of 1, 2, 4 and 8 ranks take to start, until the end of their first
iteration, and to end.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import types

_RANK = "tools/bench/ddp_rank"
_GOAL_OVER_PYTHON = 0.8
_GOAL_OVER_BARE = 1.02


def python_rank(model):
    """The same as ddp_rank.cc, by Python's torch."""
    sys.path.insert(0, os.path.abspath("tests/interop"))
    import slim_torch
    torch = slim_torch.load(_RANK)
    # DistributedDataParallel asks torch.compile's module whether it is in use;
    # the module itself needs packages that the wheel doesn't bring.
    dynamo = types.ModuleType("torch._dynamo")
    dynamo.utils = types.SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer")
    dynamo.trace_rules = types.SimpleNamespace(clear_lru_cache=lambda: None)
    dynamo.disable = lambda function, *args, **kwargs: function
    dynamo.graph_break = lambda *args, **kwargs: None
    sys.modules["torch._dynamo"] = torch._dynamo = dynamo
    import torch.distributed
    nn = torch.nn
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    if model == "conv":
        net = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Flatten(), nn.Linear(64 * 7 * 7, 10))
    else:
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    ddp = nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x, y = torch.randn(32, 1, 28, 28), torch.randint(10, (32,))
    for line in sys.stdin:
        iterations = int(line)
        torch.distributed.barrier()
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(iterations):
            optimizer.zero_grad()
            nn.functional.cross_entropy(ddp(x), y).backward()
            optimizer.step()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"{seconds / iterations * 1e9:.0f} {cpu / iterations * 1e9:.0f}", flush=True)
    torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Ranks:
    def __init__(self, name, command, world_size=2):
        self.name = name
        self.times, self.cpu = [], []
        port = free_port()
        self._ranks = []
        for rank in range(world_size):
            env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
                   "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                   "OMP_NUM_THREADS": "1"}
            self._ranks.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE,
                                                stdout=subprocess.PIPE, text=True))

    def block(self, iterations):
        for rank in self._ranks:
            rank.stdin.write(f"{iterations}\n")
            rank.stdin.flush()
        lines = [rank.stdout.readline() for rank in self._ranks]
        if "" in lines:
            sys.exit(f"{self.name}: a rank has ended")
        values = [list(map(float, line.split())) for line in lines]
        return max(time for time, _ in values), sum(cpu for _, cpu in values)

    def close(self):
        for rank in self._ranks:
            rank.stdin.close()
        for rank in self._ranks:
            rank.wait(timeout=60)


def ratio(times, reference):
    return statistics.median(a / b for a, b in zip(times, reference))


def main():
    parser = argparse.ArgumentParser(prog="ddp", allow_abbrev=False)
    parser.add_argument("--blocks", type=int, default=31, help="of each program")
    parser.add_argument("--iterations", type=int, default=100, help="of a block; a tenth for the conv net")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grapnel_ddp_") as folder:
        for model, iterations in [("mlp", options.iterations), ("conv", max(1, options.iterations // 10))]:
            measure(model, iterations, options.blocks, os.path.join(folder, model))
        print("a run of the MLP, seconds to start and to end")
        for world_size in [1, 2, 4, 8]:
            start, end = life(world_size, os.path.join(folder, str(world_size)))
            print(f"  {world_size} ranks   {start:6.2f}   {end:6.2f}")


def measure(model, iterations, blocks, work_dir):
    def start(name, command):
        ranks = Ranks(name, command)
        ranks.block(iterations)  # Warms up. Before the next one looks for a port.
        return ranks

    python, bare, again, runner = programs = [
        start("Python's DistributedDataParallel",
              [sys.executable, "-B", "-W", "ignore", os.path.abspath(__file__), "--rank", model]),
        start("C++, the reducer", [_RANK, model, "bare"]),
        start("C++, the reducer, again", [_RANK, model, "bare"]),
        start("the runner", [_RANK, model, "runner", work_dir])]
    for _ in range(blocks):
        for program in programs:
            elapsed, cpu = program.block(iterations)
            program.times.append(elapsed)
            program.cpu.append(cpu)
    print(f"an iteration of {model}, two ranks, batch 32: {blocks} blocks of {iterations}")
    for program in programs:
        print(f"  {program.name:34} {statistics.median(program.times) / 1000:9.1f} us"
              f"   {ratio(program.times, python.times):.3f}"
              f"   of the processors' {ratio(program.cpu, python.cpu):.3f}")
        program.close()
    print(f"  the runner over Python             {ratio(runner.times, python.times):.3f}"
          f"   (at most {_GOAL_OVER_PYTHON})")
    print(f"  the runner over the reducer's loop {ratio(runner.times, bare.times):.3f}"
          f"   (at most {_GOAL_OVER_BARE})   of the processors' {ratio(runner.cpu, bare.cpu):.3f}")
    a_a = ratio(again.times, bare.times)
    print(f"  A/A {a_a:.3f}   of the processors' {ratio(again.cpu, bare.cpu):.3f}")
    if not 0.98 <= a_a <= 1.02:
        print("  The same over itself is not near 1: the machine was disturbed, run it again.")


def life(world_size, work_dir):
    """Seconds from the start of the processes to their first iteration's end, and to their own."""
    began = time.perf_counter()
    ranks = Ranks("the runner", [_RANK, "mlp", "runner", work_dir], world_size)
    ranks.block(1)
    started = time.perf_counter()
    ranks.close()
    return started - began, time.perf_counter() - started


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        python_rank(sys.argv[2])
    else:
        main()
