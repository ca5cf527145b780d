"""`grapnel launch` and MMEngine's Runner, 2 and 4 processes each, train the same.

From the same weights and over the same shards, whose sizes differ: records,
metrics, learning rates, what each rank evaluates, files and what is in them.
Where ours differs on purpose it says so by the ids of docs/from_mmengine.md.
"""

import glob
import os
import re
import subprocess
import sys
import unittest

import numpy as np
from safetensors.numpy import load_file as load, save_file as save

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "interop"))
from mmengine_digits import records_of, write_data

# As the cases of mmengine_rank.py.
COMMON = """
load_from: "weights.safetensors"
model {
  sequential {
    layers { conv2d { out_channels: 8 kernel_size: 3 padding: 1 bias: false } }
    layers { batch_norm2d {} }
    layers { relu {} }
    layers { max_pool2d { kernel_size: 2 } }
    layers { conv2d { out_channels: 16 kernel_size: 3 padding: 1 bias: false } }
    layers { batch_norm2d {} }
    layers { relu {} }
    layers { max_pool2d { kernel_size: 2 } }
    layers { flatten {} }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
val_evaluator { accuracy { topk: [1, 3] } }
randomness { seed: 3 }
custom_hooks { config { [hooks/SyncBuffersHook] {} } }
"""
CASES = {
    # The last batch is short. Shards are filled up, with samples that count once.
    "epochs": """
train_dataloader {
  batch_size: 16
  sampler { shuffle: true }
  dataset { idx { images: "small-images" labels: "small-labels" scale: 0.0625 } }
}
val_dataloader {
  batch_size: 11
  dataset { idx { images: "val-images" labels: "val-labels" scale: 0.0625 } }
}
train_cfg { max_epochs: 4 }
optim_wrapper {
  optimizer { sgd { lr: 0.05 momentum: 0.9 weight_decay: 1e-4 } }
  clip_grad { max_norm: 1 }
}
param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 5 } }
param_scheduler { multi_step { milestones: [2, 3] gamma: 0.3 } }
param_scheduler { cosine_annealing { eta_min: 0.5 param_name: "momentum" } }
default_hooks {
  checkpoint { interval: 1 max_keep_ckpts: 2 save_best: "accuracy/top1" rule: "greater" }
  logger { interval: 3 }
}
""",
    # Some ranks have fewer samples to validate, and batches. Validations make
    # buffers one in the middle of the training.
    "iters": """
train_dataloader {
  batch_size: 16
  sampler { type: INFINITE shuffle: true }
  dataset { idx { images: "all-images" labels: "all-labels" scale: 0.0625 } }
}
val_dataloader {
  batch_size: 11
  sampler { round_up: false }
  dataset { idx { images: "val-images" labels: "val-labels" scale: 0.0625 } }
}
train_cfg { by_epoch: false max_iters: 20 val_interval: 6 }
optim_wrapper {
  optimizer { adamw { lr: 2e-3 weight_decay: 0.05 } }
  accumulative_counts: 2
}
auto_scale_lr { enable: true base_batch_size: 16 }
param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 6 } }
param_scheduler { cosine_annealing { by_epoch: false begin: 6 t_max: 14 eta_min: 1e-4 } }
default_hooks {
  checkpoint {
    by_epoch: false interval: 6 max_keep_ckpts: 2
    save_best: ["accuracy/top3", "val_loss"] rule: ["greater", "less"]
  }
  logger { interval: 7 }
}
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
""",
}
CHECKPOINTS = {
    "epochs": {"epoch_3", "epoch_4", "best_accuracy_top1"},
    "iters": {"iter_18", "iter_20", "best_accuracy_top3", "best_val_loss"},
}
BUFFERS = [f"{norm}.{name}" for norm in ("1", "5")
           for name in ("running_mean", "running_var", "num_batches_tracked")]
TIMES = ("time", "data_time", "memory")


def write_weights(path):
    random = np.random.default_rng(1)

    def uniform(*shape):
        bound = np.prod(shape[1:]) ** -0.5
        return random.uniform(-bound, bound, shape).astype(np.float32)

    # No bias before a norm: its gradient is rounding alone, which AdamW blows up.
    state = {"0.weight": uniform(8, 1, 3, 3), "4.weight": uniform(16, 8, 3, 3),
             "9.weight": uniform(10, 64), "9.bias": np.zeros(10, np.float32)}
    for name, channels in (("1", 8), ("5", 16)):
        for tensor, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            state[f"{name}.{tensor}"] = np.full(channels, value, np.float32)
        state[f"{name}.num_batches_tracked"] = np.array(0)
    save(state, path)


def run_theirs(folder, world_size, environment):
    ranks = []
    try:
        for rank in range(world_size):
            with open(f"{folder}/rank_{rank}.log", "w") as log:
                # Ranks collect results in a folder under the current one.
                ranks.append(subprocess.Popen(
                    [sys.executable, f"{HERE}/mmengine_rank.py", PROGRAM, folder, str(rank),
                     str(world_size)], cwd=folder, env=environment, stdout=log,
                    stderr=subprocess.STDOUT))
        codes = [rank.wait(timeout=120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, code in enumerate(codes):
        with open(f"{folder}/rank_{rank}.log") as log:
            if code != 0:
                print(f"rank {rank} of MMEngine's run ended with {code}:", log.read(), sep="\n")
    if any(codes):
        raise AssertionError("MMEngine's run failed")


def run_ours(folder, world_size, case, environment):
    config = f"{folder}/{case}.textproto"
    with open(config, "w") as f:
        f.write(COMMON + CASES[case] + f"""
custom_hooks {{ config {{ [hooks/StateDumpHook] {{ dir: "{case}/ours.dump" }} }} }}
work_dir: "{case}/ours"
""")
    ran = subprocess.run([PROGRAM, "launch", "--nproc-per-node", str(world_size), "--", "train",
                          config], env=environment, timeout=120, check=False,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode != 0:
        raise AssertionError(f"grapnel's run failed:\n{ran.stdout}")


def files_of(work_dir):
    """Relative paths, with T for the run's time; checkpoints as directories."""
    found = set()
    for folder, dirs, files in os.walk(work_dir):
        checkpoints = [name for name in dirs if re.match(r"epoch_|iter_|best_", name)]
        dirs[:] = set(dirs) - set(checkpoints)
        found |= {os.path.relpath(f"{folder}/{name}", work_dir) for name in [*files, *checkpoints]}
    return {re.sub(r"\d{8}_\d{6}", "T", name) for name in found}


def numbers(record):
    return {name: value for name, value in record.items() if name not in TIMES}


class MMEngineRanksTest(unittest.TestCase):
    maxDiff = None

    def compare(self, world_size):
        folder = os.path.join(os.environ["TEST_TMPDIR"], str(world_size))
        for case in CASES:
            for side in ("theirs", "ours"):
                os.makedirs(f"{folder}/{case}/{side}.dump")
        write_data(folder)
        write_weights(f"{folder}/weights.safetensors")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run_theirs(folder, world_size, environment)
        for case in CASES:
            run_ours(folder, world_size, case, environment)
            for compare in (self.compare_files, self.compare_records, self.compare_ranks,
                            self.compare_checkpoints):
                with self.subTest(case=case, by=compare.__name__):
                    compare(f"{folder}/{case}", case, world_size)

    def compare_files(self, folder, case, _):
        ours, theirs = files_of(f"{folder}/ours"), files_of(f"{folder}/theirs")
        # Configs are text protos, not Python; a lock; c4: the best are in a file.
        ours -= {f"{case}.textproto", "T/vis_data/config.textproto", ".lock", "best_checkpoints"}
        theirs -= {"T.py", "T/vis_data/config.py"}
        self.assertEqual(ours, {name.removesuffix(".pth") for name in theirs})
        kept = {re.sub(r"^(best_.*)_(epoch|iter)_\d+$", r"\1", name) for name in ours}
        self.assertLessEqual(CHECKPOINTS[case], kept)
        with open(f"{folder}/ours/last_checkpoint") as f:
            last = f.read()
        with open(f"{folder}/theirs/last_checkpoint") as f:
            self.assertEqual(f"{folder}/theirs/{last}.pth", f.read())

    def compare_records(self, folder, case, _):
        ours = [numbers(record) for record in records_of(f"{folder}/ours")]
        theirs = [numbers(record) for record in records_of(f"{folder}/theirs")]
        val_losses = []
        for record in ours:
            if "val_loss" not in record:
                continue
            # The one loss of the sum val_loss is a number of its own in ours.
            self.assertEqual(record.pop("loss"), record["val_loss"])
            # c17: theirs is the mean of the validations so far, of up to 10.
            val_losses.append(record["val_loss"])
            record["val_loss"] = float(np.mean(val_losses))
        if case == "iters":
            # c22: the last iteration is logged.
            last, = [record for record in ours if record.get("iter") == 20]
            self.assertEqual(sorted(last), ["iter", "loss", "lr", "step"])
            ours.remove(last)
        self.assertEqual(len(ours), len(theirs))
        for ours_one, theirs_one in zip(ours, theirs):
            self.assertEqual(list(ours_one), list(theirs_one))
            for name, value in theirs_one.items():
                # Of float32 means of a batch, where theirs has each sample's loss;
                # other numbers are sums of doubles in another order.
                tolerance = 3e-7 if name == "val_loss" else 1e-14
                self.assertAlmostEqual(ours_one[name], value, delta=tolerance * abs(value),
                                       msg=f"{name} of {theirs_one}")
        # Something was learned.
        self.assertLess(val_losses[-1], 0.95 * val_losses[0])

    def compare_ranks(self, folder, _, world_size):
        names = sorted(os.listdir(f"{folder}/theirs.dump"))
        names = [name for name in names if ".rank" in name]
        self.assertEqual(names, sorted(os.listdir(f"{folder}/ours.dump")))
        self.assertEqual(len(names), 4 * world_size)
        states = []
        for name in names:
            self.assert_same(load(f"{folder}/ours.dump/{name}"),
                             load(f"{folder}/theirs.dump/{name}"), name)
            with open(f"{folder}/ours.dump/{name}", "rb") as f:
                states.append(f.read())
        # All ranks evaluate one state, buffers too, and each time another one.
        self.assertEqual(len(set(states)), 4)

    def compare_checkpoints(self, folder, *_):
        for path in glob.glob(f"{folder}/ours/*/*.safetensors"):
            name, section = path.split("/")[-2:]
            section = section.removesuffix(".safetensors")
            if section == "rank_buffers":
                continue  # Theirs has the first rank's alone.
            if name.startswith("best_") and section == "optimizer":
                continue  # c5: theirs leaves it out.
            theirs = load(f"{folder}/theirs.dump/{name}.{section}.safetensors")
            if name.startswith("best_") and section == "ema":
                # Ours has the buffers that the average was evaluated with, theirs
                # the first rank's from before SyncBuffers.
                model = load(f"{folder}/theirs.dump/{name}.model.safetensors")
                theirs.update({buffer: model[buffer] for buffer in BUFFERS})
            self.assert_same(load(path), theirs, f"{name}, {section}")

    def assert_same(self, ours, theirs, what):
        """To the bit: they are the same kernels, in the same order."""
        self.assertEqual({name: (value.dtype, value.shape) for name, value in ours.items()},
                         {name: (value.dtype, value.shape) for name, value in theirs.items()})
        for name, value in theirs.items():
            difference = np.abs(ours[name].astype(np.float64) - value).max()
            self.assertTrue(ours[name].tobytes() == value.tobytes(),
                            f"{what}: {name} differs by up to {difference}")

    def test_two_ranks(self):
        self.compare(2)

    def test_four_ranks(self):
        self.compare(4)


if __name__ == "__main__":
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
