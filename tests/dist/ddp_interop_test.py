"""The reducer's gradients have the bits of Python's DistributedDataParallel.

The same weights and batches, in threads of ddp_tool and in processes of torch.
"""

import contextlib
import datetime
import os
import subprocess
import sys
import unittest

import numpy as np
import safetensors.numpy

PYTHON_RANK = "--rank"
ITERATIONS = 6
RATE = 0.1

# What the cases differ in; as in ddp_tool.cc.
CASES = {
    "plain": {},
    "buckets": {"bucket_cap_mb": 0.001},
    "accumulate": {},
    "zeroed": {},
    "unused": {"find_unused_parameters": True},
    "unused_accumulate": {"find_unused_parameters": True},
    "fp16": {},
    "bf16": {},
    "static": {"static_graph": True},
    "buffers": {"broadcast_buffers": True},
}
ACCUMULATE = ("accumulate", "unused_accumulate", "buffers")
TWO_HEADS = ("unused", "unused_accumulate")


def shapes():
    return {
        "conv.weight": (4, 1, 3, 3), "conv.bias": (4,), "norm.weight": (4,), "norm.bias": (4,),
        "head.weight": (10, 256), "head.bias": (10,), "other.weight": (10, 256), "other.bias": (10,),
    }


def write_input(folder, world_size):
    random = np.random.default_rng(1)
    tensors = {name: (random.standard_normal(shape) * 0.1).astype(np.float32)
               for name, shape in shapes().items()}
    tensors["norm.running_mean"] = np.zeros(4, np.float32)
    tensors["norm.running_var"] = np.ones(4, np.float32)
    for rank in range(world_size):
        for i in range(ITERATIONS):
            tensors[f"x{rank}.{i}"] = random.standard_normal((7, 1, 8, 8)).astype(np.float32)
            tensors[f"y{rank}.{i}"] = random.integers(0, 10, 7)
    safetensors.numpy.save_file(tensors, f"{folder}/in.safetensors")


def run_rank(tool, folder, rank, world_size, cases):
    """One process of Python's DistributedDataParallel, for all of `cases`."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
    import slim_torch
    torch = slim_torch.load(tool)
    slim_torch.leave_out_compiler(torch)
    import torch.distributed
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size,
        timeout=datetime.timedelta(seconds=60))
    for case in cases:
        train(torch, case, folder, rank)
    torch.distributed.destroy_process_group()


def train(torch, case, folder, rank):
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
    given = safetensors.numpy.load_file(f"{folder}/in.safetensors")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(4)
            self.head = torch.nn.Linear(256, 10)
            self.other = torch.nn.Linear(256, 10)

        def forward(self, x, heads):
            h = torch.relu(self.norm(self.conv(x))).flatten(1)
            outs = [getattr(self, name)(h) for name in heads]
            return outs[0] if len(outs) == 1 else outs[0] + outs[1]

    net = Net()
    # The reducer is given no such buffer.
    net.norm.num_batches_tracked = None
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            tensor.copy_(torch.from_numpy(given[name]))
    options = {"broadcast_buffers": False, **CASES[case]}
    ddp = torch.nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True, **options)
    if case in ("fp16", "bf16"):
        ddp.register_comm_hook(None, getattr(default_hooks, f"{case}_compress_hook"))
    results = {}
    for i in range(ITERATIONS):
        sync = case not in ACCUMULATE or i % 2 == 1
        heads = ["head", "other"]
        if case in TWO_HEADS:
            heads = [heads[i % 2]]
        with contextlib.nullcontext() if sync else ddp.no_sync():
            out = ddp(torch.from_numpy(given[f"x{rank}.{i}"]), heads)
            loss = torch.nn.functional.cross_entropy(out, torch.from_numpy(given[f"y{rank}.{i}"]))
            if case in ACCUMULATE:
                loss = loss / 2
            loss.backward()
        with torch.no_grad():
            for name, param in net.named_parameters():
                if param.grad is not None:
                    results[f"{i}/{name}"] = param.grad.numpy().copy()
            for name, buffer in net.named_buffers():
                results[f"{i}/{name}"] = buffer.numpy().copy()
            if sync:
                for param in net.parameters():
                    if param.grad is None:
                        continue
                    param.add_(param.grad, alpha=-RATE)
                    if case == "zeroed":
                        param.grad.zero_()
                    else:
                        param.grad = None
    safetensors.numpy.save_file(results, f"{folder}/{case}.py{rank}.safetensors")


class DdpTest(unittest.TestCase):
    def compare(self, world_size, cases):
        folder = os.path.join(os.environ["TEST_TMPDIR"], str(world_size))
        os.makedirs(folder)
        write_input(folder, world_size)
        # A thread each, as torchrun has it.
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        ranks = [subprocess.Popen([sys.executable, os.path.abspath(__file__), PYTHON_RANK, TOOL, folder,
                                   str(rank), str(world_size), *cases], env=env)
                 for rank in range(world_size)]
        try:
            self.assertEqual([rank.wait(timeout=120) for rank in ranks], [0] * world_size)
        finally:
            for rank in ranks:
                rank.kill()
        for case in cases:
            with self.subTest(case=case):
                subprocess.run([TOOL, case, str(world_size), folder], check=True, env=env)
                self.compare_case(f"{folder}/{case}.", world_size)

    def compare_case(self, prefix, world_size):
        values = set()
        for rank in range(world_size):
            ours = safetensors.numpy.load_file(f"{prefix}cpp{rank}.safetensors")
            theirs = safetensors.numpy.load_file(f"{prefix}py{rank}.safetensors")
            self.assertEqual(sorted(ours), sorted(theirs))
            for name in theirs:
                self.assertEqual(ours[name].tobytes(), theirs[name].tobytes(), f"{name} of rank {rank}")
                values.add(ours[name].tobytes())
        # Something was trained.
        self.assertGreater(len(values), 3 * ITERATIONS)

    def test_two_ranks(self):
        self.compare(2, list(CASES))

    # Where the order of a sum and a division by 3 matter.
    def test_three_ranks(self):
        self.compare(3, ["plain", "buckets", "zeroed", "bf16"])


if __name__ == "__main__":
    if sys.argv[1] == PYTHON_RANK:
        run_rank(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
        sys.exit()
    TOOL = os.path.abspath(sys.argv.pop(1))
    unittest.main()
