"""Trainings go on in Python, and Python's here, as if they had not been moved.

    training_pth_test.py TRAINING_PTH_TOOL GRAPNEL

Whole trainings of an unpatched MMEngine and of Lightning: weights, averages and
optimizers' states to the bit, records to the order of a sum. Steps of optimizers
alone are optimizer_steps_test.py's.
"""

import glob
import os
import subprocess
import sys
import unittest

import numpy as np
from safetensors.numpy import load_file as load, save_file as save

import mmengine_training
import slim_torch
from lightning_training import CONFIG as LIGHTNING_CONFIG
from mmengine_digits import records_of, write_data

HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# It would let Python load what it must not need.
ENVIRONMENT.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)


def run(*command):
    ran = subprocess.run(command, env=ENVIRONMENT, timeout=120, check=False, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ran.returncode != 0:
        raise AssertionError(f"{' '.join(command)}:\n{ran.stdout}")
    return ran.stdout


def train(config, checkpoint=None):
    """Trains to the end, and returns the log."""
    with open(config) as f:
        if "model {" not in f.read():  # One in code.
            return run(TOOL, "train", config, *([checkpoint] if checkpoint else []))
    return run(GRAPNEL, "train", *([f"--resume={checkpoint}"] if checkpoint else []), config)


def folder_of(test):
    folder = os.path.join(os.environ["TEST_TMPDIR"], test.id())
    os.makedirs(folder)
    return folder


def write_weights(path):
    random = np.random.default_rng(1)

    def uniform(*shape):
        bound = shape[1] ** -0.5
        return random.uniform(-bound, bound, shape).astype(np.float32)

    save({"1.weight": uniform(32, 64), "2.weight": np.ones(32, np.float32),
          "2.bias": np.zeros(32, np.float32), "2.running_mean": np.zeros(32, np.float32),
          "2.running_var": np.ones(32, np.float32), "2.num_batches_tracked": np.array(0),
          "4.weight": uniform(10, 32), "4.bias": np.zeros(10, np.float32)}, path)


class TrainingTest(unittest.TestCase):
    def setUp(self):
        self.folder = folder_of(self)
        write_data(self.folder)
        write_weights(f"{self.folder}/weights.safetensors")
        os.mkdir(f"{self.folder}/imported")

    def assert_same(self, ours, theirs, what):
        """To the bit: they are the same kernels, in the same order."""
        self.assertEqual(sorted(ours), sorted(theirs), what)
        for name, value in theirs.items():
            difference = np.abs(ours[name].astype(np.float64) - value).max()
            self.assertTrue(ours[name].tobytes() == value.tobytes(),
                            f"{what}: {name} differs by up to {difference}")

    def go_on_here(self, config, file, name):
        """Imports the file as a checkpoint of that name, and trains to the end."""
        checkpoint = f"{self.folder}/imported/{name}"
        said = run(TOOL, "import", config, file, checkpoint)
        self.assertEqual(len(said.splitlines()), 1, said)  # About generators.
        log = train(config, checkpoint)
        # Nothing of it is replayed, dropped or new.
        self.assertNotIn("resume: ", log)


class MMEngineTest(TrainingTest):
    """Three epochs or 30 iterations on one side, the rest on the other."""

    def config(self, case, name, start="", also_write=False):
        config = f"{self.folder}/{name}.textproto"
        text = mmengine_training.CASES[case][0]
        if also_write:
            text = text.replace("checkpoint {", "checkpoint { also_write: 'pth'")
        with open(config, "w") as f:
            f.write(f'{text}\nwork_dir: "{name}"\n{start}\n')
        return config

    # Of the checkpoint in the middle, and of the last.
    NAMES = {"iters": ("iter_30", "iter_50"), "plateau": ("epoch_5", "epoch_7")}

    def assert_sections(self, ours, theirs):
        sections = glob.glob(f"{ours}/*.safetensors")
        self.assertGreaterEqual(len(sections), 2)
        for path in sections:
            name = os.path.basename(path)
            self.assert_same(load(path), load(f"{theirs}.{name}"), name)

    def assert_records(self, ours, theirs, full_windows):
        """`full_windows`: the first iteration whose window of 10 holds the same
        on both sides."""
        def numbers(records):
            kept = []
            for record in records:
                kept.append({name: value for name, value in record.items() if name in (
                    "epoch", "iter", "lr", "base_lr", "accuracy/top1", "step")})
                if "iter" in record and record["iter"] >= full_windows:
                    kept[-1].update({name: record[name] for name in ("loss", "grad_norm")
                                     if name in record})
            return kept

        ours, theirs = numbers(ours), numbers(theirs)
        self.assertEqual(len(ours), len(theirs))
        self.assertGreater(len(theirs), 4)
        for mine, other in zip(ours, theirs):
            self.assertEqual(sorted(mine), sorted(other))
            for name, value in other.items():
                # Means are sums of doubles in another order.
                self.assertAlmostEqual(mine[name], value, delta=1e-14 * abs(value),
                                       msg=f"{name} of {other}")

    def behind(self, records, middle):
        """Those that a run has behind that checkpoint."""
        unit, count = middle.split("_")
        done = int(count) * (13 if unit == "epoch" else 1)
        position = max(i for i, record in enumerate(records) if record.get("iter", done + 1) <= done)
        # Its own validation comes behind it.
        return records[position + (2 if "accuracy/top1" in records[position + 1] else 1):]

    def both_ways(self, case, start='load_from: "weights.safetensors"', also_write=False):
        middle, last = self.NAMES.get(case, ("epoch_3", "epoch_5"))
        log = train(self.config(case, "whole", start, also_write))
        # What Python has no place for is said once.
        self.assertEqual(log.count("also_write: "), int(also_write), log)
        exported = f"{self.folder}/{middle}.pth"
        run(TOOL, "export", f"{self.folder}/whole/{middle}", exported)
        saved = TORCH.load(exported, weights_only=True, mmap=True)
        self.assertIn("optimizer", saved)
        theirs = f"{self.folder}/theirs"
        run(sys.executable, f"{HERE}/mmengine_training.py", TOOL, self.folder, case, theirs,
            f"{self.folder}/from_ours={exported}")
        with self.subTest("to MMEngine"):
            self.assert_sections(f"{self.folder}/whole/{last}", f"{self.folder}/from_ours/{last}")
            # The first windows of 10 are of what MMEngine has seen.
            self.assert_records(self.behind(records_of(f"{self.folder}/whole"), middle),
                                records_of(f"{self.folder}/from_ours"),
                                {"epoch_3": 50, "epoch_5": 76, "iter_30": 40}[middle])
        with self.subTest("from MMEngine"):
            self.go_on_here(self.config(case, "from_theirs"), f"{theirs}/{middle}.pth", middle)
            self.assert_sections(f"{self.folder}/from_theirs/{last}", f"{theirs}/{last}")
            self.assert_records(records_of(f"{self.folder}/from_theirs"),
                                self.behind(records_of(theirs), middle), 0)

    def test_sgd(self):
        self.both_ways("sgd", also_write=True)
        # What the training has left is what an export makes.
        self.assert_equal_values(*(TORCH.load(path, weights_only=True) for path in (
            f"{self.folder}/whole/epoch_3.pth", f"{self.folder}/epoch_3.pth")))

    def assert_equal_values(self, one, other, where="file"):
        self.assertIs(type(one), type(other), where)
        if isinstance(one, (dict, list, tuple)):
            self.assertEqual(len(one), len(other), where)
            for key in one if isinstance(one, dict) else range(len(one)):
                self.assert_equal_values(one[key], other[key], f"{where}[{key!r}]")
        elif isinstance(one, TORCH.Tensor):
            self.assertTrue(TORCH.equal(one, other), where)
        else:
            self.assertEqual(one, other, where)

    def test_groups(self):
        self.both_ways("groups")

    def test_iters(self):
        self.both_ways("iters")

    def test_plateau(self):
        self.both_ways("plateau")
        rates = [record["lr"] for record in records_of(f"{self.folder}/theirs") if "lr" in record]
        self.assertAlmostEqual(rates[-1], max(rates) / 2)

    def script_frozen(self):
        nn = TORCH.nn
        net = nn.Sequential(*mmengine_training.layers(nn))
        net.load_state_dict({name: TORCH.from_numpy(value) for name, value in
                             load(f"{self.folder}/weights.safetensors").items()})
        net[1].weight.requires_grad_(False)
        TORCH.jit.script(net).save(f"{self.folder}/frozen.pt")

    def test_frozen(self):
        self.script_frozen()
        self.both_ways("frozen", start="")

    def test_frozen_groups(self):
        self.script_frozen()
        self.both_ways("frozen_groups", start="")

    def test_several_optimizers(self):
        self.both_ways("several", start="")


class LightningTest(TrainingTest):
    def test_goes_on_here(self):
        theirs = f"{self.folder}/theirs"
        run(sys.executable, f"{HERE}/lightning_training.py", TOOL, self.folder, theirs)
        config = f"{self.folder}/ours.textproto"
        with open(config, "w") as f:
            f.write(f'{LIGHTNING_CONFIG}\nwork_dir: "ours"\n')
        self.go_on_here(config, f"{theirs}/epoch=2.ckpt", "epoch_3")
        for section in ("model", "ema", "optimizer"):
            name = f"{section}.safetensors"
            self.assert_same(load(f"{self.folder}/ours/epoch_5/{name}"),
                             {tensor.removeprefix("net."): value
                              for tensor, value in load(f"{theirs}/{name}").items()}, name)


def load_tests(_, tests, __):
    """Those of this shard."""
    shards = int(os.environ.get("TEST_TOTAL_SHARDS", 1))
    return unittest.TestSuite([test for case in tests for test in case]
                              [int(os.environ.get("TEST_SHARD_INDEX", 0))::shards])


if __name__ == "__main__":
    TOOL, GRAPNEL = (os.path.abspath(sys.argv.pop(1)) for _ in range(2))
    TORCH = slim_torch.load(TOOL)
    slim_torch.leave_out_compiler(TORCH)
    TORCH.set_num_threads(1)
    unittest.main()
