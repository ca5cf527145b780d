"""Trainings go on in Python, and Python's here, as if they had not been moved.

    training_pth_test.py TRAINING_PTH_TOOL GRAPNEL

Steps of optimizers, against torch.optim's fused kernels, and whole trainings of
an unpatched MMEngine and of Lightning: weights, averages and the optimizer's
state to the bit, records to the order of a sum.
"""

import glob
import json
import os
import subprocess
import sys
import unittest

import numpy as np
from safetensors.numpy import load_file as load, save_file as save

import mmengine_training
import slim_torch
from lightning_training import CONFIG as LIGHTNING_CONFIG

HERE = os.path.dirname(os.path.abspath(__file__))
DIGITS = os.path.join(HERE, "..", "..", "examples", "digits")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# It would let Python load what it must not need.
ENVIRONMENT.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)


def run(*command):
    ran = subprocess.run(command, env=ENVIRONMENT, timeout=120, check=False, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ran.returncode != 0:
        raise AssertionError(f"{' '.join(command)}:\n{ran.stdout}")
    return ran.stdout


def folder_of(test):
    folder = os.path.join(os.environ["TEST_TMPDIR"], test.id())
    os.makedirs(folder)
    return folder


OPTIMIZERS = {
    "AdamW": ("optimizer { adamw { lr: 0.01 weight_decay: 0.1 } }",
              dict(lr=0.01, weight_decay=0.1)),
    "Adam": ("optimizer { adam { lr: 0.01 beta1: 0.8 amsgrad: true } }",
             dict(lr=0.01, betas=(0.8, 0.999), amsgrad=True)),
    "SGD": ("optimizer { sgd { lr: 0.05 momentum: 0.9 nesterov: true weight_decay: 0.01 } }",
            dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)),
}


class StepsTest(unittest.TestCase):
    """Three steps on one side, three on the other, against six on one."""

    NAMES = ("a", "b", "c")  # "a" and "c" are alike.
    SHAPES = ((4, 3), (3,), (4, 3))
    STEPS = 6
    HALF = 3

    def setUp(self):
        self.folder = folder_of(self)
        random = np.random.default_rng(7)
        self.gradients = {
            f"{step}/{name}": random.standard_normal(shape).astype(np.float32)
            for step in range(self.STEPS) for name, shape in zip(self.NAMES, self.SHAPES)}
        save(self.gradients, f"{self.folder}/gradients.safetensors")

    def optimizer(self, kind, named=False):
        self.params = {name: TORCH.nn.Parameter(TORCH.ones(shape))
                       for name, shape in zip(self.NAMES, self.SHAPES)}
        return getattr(TORCH.optim, kind)(
            list(self.params.items()) if named else list(self.params.values()), fused=True,
            **OPTIMIZERS[kind][1])

    def step(self, optimizer, first, last):
        for step in range(first, last):
            for name, param in self.params.items():
                param.grad = TORCH.from_numpy(self.gradients[f"{step}/{name}"].copy())
            optimizer.step()

    def uninterrupted(self, kind):
        self.step(self.optimizer(kind), 0, self.STEPS)
        return {name: param.detach().numpy() for name, param in self.params.items()}

    def assert_same(self, ours, theirs):
        for name in self.NAMES:
            self.assertEqual(ours[name].tobytes(), theirs[name].tobytes(), name)

    def test_ours_go_on_in_python(self):
        for kind, (config, _) in OPTIMIZERS.items():
            with self.subTest(kind):
                path = f"{self.folder}/{kind}.pth"
                run(TOOL, "save_steps", config, f"{self.folder}/gradients.safetensors",
                    str(self.HALF), path)
                theirs = self.uninterrupted(kind)
                saved = TORCH.load(path, weights_only=True)
                optimizer = self.optimizer(kind)
                own = set(optimizer.state_dict()["param_groups"][0])
                optimizer.load_state_dict(saved["optimizer"])
                self.assertEqual(own, set(saved["optimizer"]["param_groups"][0]))
                with TORCH.no_grad():
                    for name, value in saved["model"].items():
                        self.params[name].copy_(value)
                self.step(optimizer, self.HALF, self.STEPS)
                self.assert_same({name: param.detach().numpy()
                                  for name, param in self.params.items()}, theirs)

    def go_on(self, kind, named):
        theirs = self.uninterrupted(kind)
        optimizer = self.optimizer(kind, named)
        self.step(optimizer, 0, self.HALF)
        path = f"{self.folder}/{kind}.{named}.pth"
        TORCH.save({"model": {name: param.detach() for name, param in self.params.items()},
                    "optimizer": optimizer.state_dict(), "steps": self.HALF}, path)
        run(TOOL, "go_on", OPTIMIZERS[kind][0], f"{self.folder}/gradients.safetensors", path,
            f"{path}.out")
        self.assert_same(load(f"{path}.out"), theirs)

    def test_pythons_go_on_here(self):
        for kind in OPTIMIZERS:
            for named in (False, True):
                with self.subTest(kind, named=named):
                    self.go_on(kind, named)


def write_idx(folder, kind, name, count=None):
    """The first `count` digits of `kind` as `name`-images and `name`-labels."""
    for what, dims in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
        with open(f"{DIGITS}/{kind}-{what}", "rb") as f:
            data = f.read()
        shape = np.frombuffer(data, ">u4", dims, 4).copy()
        shape[0] = count or shape[0]
        head = data[:4] + shape.tobytes()
        with open(f"{folder}/{name}-{what.split('-')[0]}", "wb") as f:
            f.write(head + data[len(head):len(head) + int(shape.prod())])


def write_weights(path):
    random = np.random.default_rng(1)

    def uniform(*shape):
        bound = shape[1] ** -0.5
        return random.uniform(-bound, bound, shape).astype(np.float32)

    save({"1.weight": uniform(32, 64), "2.weight": np.ones(32, np.float32),
          "2.bias": np.zeros(32, np.float32), "2.running_mean": np.zeros(32, np.float32),
          "2.running_var": np.ones(32, np.float32), "2.num_batches_tracked": np.array(0),
          "4.weight": uniform(10, 32), "4.bias": np.zeros(10, np.float32)}, path)


def records_of(work_dir):
    path, = glob.glob(f"{work_dir}/*/vis_data/scalars.json")
    with open(path) as f:
        return [json.loads(line) for line in f]


class TrainingTest(unittest.TestCase):
    def setUp(self):
        self.folder = folder_of(self)
        write_idx(self.folder, "train", "small", 203)
        write_idx(self.folder, "train", "all")
        write_idx(self.folder, "test", "val", 89)
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
        log = run(GRAPNEL, "train", f"--resume={checkpoint}", config)
        # Nothing of it is replayed, dropped or new.
        self.assertNotIn("resume: ", log)


class MMEngineTest(TrainingTest):
    """Three epochs or 30 iterations on one side, the rest on the other."""

    def ours(self, case, also_write=False):
        config = f"{self.folder}/ours.textproto"
        text = mmengine_training.CASES[case][0]
        if also_write:
            text = text.replace("checkpoint {", "checkpoint { also_write: 'pth'")
        with open(config, "w") as f:
            f.write(f'{text}\nwork_dir: "ours"\n')
        return config

    def theirs(self, case, work_dir, checkpoint=None):
        run(sys.executable, f"{HERE}/mmengine_training.py", TOOL, self.folder, case, work_dir,
            *([checkpoint] if checkpoint else []))

    def names(self, case):
        """Of the checkpoint in the middle, and of the last."""
        return ("iter_30", "iter_50") if case == "iters" else ("epoch_3", "epoch_5")

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

    def behind(self, records, case):
        """Those that a run has behind the checkpoint in the middle."""
        done = 30 if case == "iters" else 39
        position = max(i for i, record in enumerate(records) if record.get("iter", done + 1) <= done)
        # Its own validation comes behind it.
        return records[position + 2:]

    def from_mmengine(self, case):
        middle, last = self.names(case)
        self.theirs(case, f"{self.folder}/theirs")
        self.go_on_here(self.ours(case), f"{self.folder}/theirs/{middle}.pth", middle)
        self.assert_sections(f"{self.folder}/ours/{last}", f"{self.folder}/theirs/{last}")
        self.assert_records(records_of(f"{self.folder}/ours"),
                            self.behind(records_of(f"{self.folder}/theirs"), case), 0)

    def to_mmengine(self, case, also_write=False):
        """`also_write`: the file is the one that the training has left."""
        middle, last = self.names(case)
        log = run(GRAPNEL, "train", "--load-from", f"{self.folder}/weights.safetensors",
                  self.ours(case, also_write))
        path = f"{self.folder}/ours/{middle}.pth"
        self.assertEqual(os.path.exists(path), also_write)
        if not also_write:
            run(TOOL, "export", f"{self.folder}/ours/{middle}", path)
        # What Python has no place for is said once.
        self.assertEqual(log.count("also_write: "), int(also_write), log)
        saved = TORCH.load(path, weights_only=True, mmap=True)
        self.assertIn("optimizer", saved)
        self.theirs(case, f"{self.folder}/theirs", path)
        self.assert_sections(f"{self.folder}/ours/{last}", f"{self.folder}/theirs/{last}")
        self.assert_records(self.behind(records_of(f"{self.folder}/ours"), case),
                            records_of(f"{self.folder}/theirs"),
                            40 if case == "iters" else 50)

    def test_sgd_from_mmengine(self):
        self.from_mmengine("sgd")

    def test_sgd_to_mmengine(self):
        self.to_mmengine("sgd")

    def test_what_a_training_leaves_to_mmengine(self):
        self.to_mmengine("sgd", also_write=True)

    def test_groups_from_mmengine(self):
        self.from_mmengine("groups")

    def test_groups_to_mmengine(self):
        self.to_mmengine("groups")

    def test_iters_from_mmengine(self):
        self.from_mmengine("iters")

    def test_iters_to_mmengine(self):
        self.to_mmengine("iters")


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


if __name__ == "__main__":
    TOOL, GRAPNEL = (os.path.abspath(sys.argv.pop(1)) for _ in range(2))
    TORCH = slim_torch.load(TOOL)
    slim_torch.leave_out_compiler(TORCH)
    TORCH.set_num_threads(1)
    unittest.main()
