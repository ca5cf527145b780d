"""Weights that Python's programs save, read by `load_from`'s door: tensors are those
of torch.load, byte for byte, and an evaluation gives MMEngine's numbers.

    weights_test.py WEIGHTS_TOOL GRAPNEL
"""

import collections
import io
import json
import os
import subprocess
import sys
import unittest

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import slim_mmengine

TOOL, GRAPNEL = (os.path.abspath(sys.argv.pop(1)) for _ in range(2))
DIR = os.environ["TEST_TMPDIR"]
# MMEngine can't load what it saves without.
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
torch = slim_mmengine.load(TOOL)
import lightning.pytorch as pl
import safetensors.torch
from lightning.pytorch.callbacks import WeightAveraging
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import METRICS
from mmengine.runner import Runner
from torch import nn
from torch.optim.swa_utils import AveragedModel

torch.set_num_threads(1)

# As LibTorch calls them.
DTYPES = {
    torch.bool: "Bool", torch.uint8: "Byte", torch.int8: "Char",
    torch.int16: "Short", torch.int32: "Int", torch.int64: "Long",
    torch.uint16: "UInt16", torch.uint32: "UInt32", torch.uint64: "UInt64",
    torch.float16: "Half", torch.float32: "Float", torch.float64: "Double",
    torch.bfloat16: "BFloat16",
    torch.float8_e4m3fn: "Float8_e4m3fn", torch.float8_e5m2: "Float8_e5m2",
    torch.complex64: "ComplexFloat", torch.complex128: "ComplexDouble",
}


def described(tensor):
    """A tensor as weights_tool prints it."""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    shape = ",".join(map(str, tensor.shape))
    return f"{DTYPES[tensor.dtype]}\t[{shape}]\t{data.hex()}"


def run(*command, ok=True):
    result = subprocess.run(command, cwd=DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)
    if ok and result.returncode != 0:
        raise AssertionError(f"{command}: {result.stderr}")
    return result


def sections(path):
    """Section to name to tensor, described, of what is at `path`."""
    found = {}
    for line in run(TOOL, path).stdout.splitlines():
        section, name, tensor = line.split("\t", 2)
        found.setdefault(section, {})[name] = tensor
    return found


def strange_tensors():
    torch.manual_seed(1)
    base = torch.arange(24, dtype=torch.float32)
    state = collections.OrderedDict(
        (f"dtypes.{name}", torch.arange(6).to(dtype).reshape(2, 3))
        for dtype, name in DTYPES.items())
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.empty(0, 4)
    state["transposed"] = base.reshape(4, 6).t()
    state["channels_last"] = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state["expanded"] = torch.tensor([1.0, 2.0]).expand(3, 2)
    state["view"] = base[4:10:2]
    state["parameter"] = nn.Parameter(torch.rand(3))
    state["é中😀"] = torch.ones(1)
    return state


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


class WeightsTest(unittest.TestCase):
    maxDiff = None

    def expect(self, path, state, averaged=False):
        found = sections(path)
        want = {name: described(tensor) for name, tensor in state.items()}
        self.assertEqual(found["model"], want)
        self.assertEqual(found.get("ema"), want if averaged else None)

    def save(self, name, value, **options):
        path = os.path.join(DIR, name)
        torch.save(value, path, **options)
        return path


class TorchTest(WeightsTest):
    def test_tensors_of_every_kind(self):
        state = strange_tensors()
        self.expect(self.save("strange.pth", state), state)
        legacy = collections.OrderedDict(
            (name, tensor) for name, tensor in state.items()
            # What the old format has no storage for.
            if tensor.dtype not in (torch.uint16, torch.uint32, torch.uint64,
                                    torch.float8_e4m3fn, torch.float8_e5m2))
        self.expect(self.save("legacy.pth", legacy, _use_new_zipfile_serialization=False), legacy)

    def test_layouts(self):
        net = Net()
        state = net.state_dict()
        optimizer = torch.optim.AdamW(net.parameters())
        self.expect(self.save("bare.ckpt", state), state)
        self.expect(self.save("hub.bin", {"model": state, "optimizer": optimizer.state_dict(),
                                          "epoch": 3, "args": collections.Counter(a=1)}), state)
        self.expect(self.save("tutorial.tar", {"epoch": 3, "model_state_dict": state}), state)
        self.expect(self.save("parallel.pt", nn.DataParallel(net).state_dict()), state)
        average = AveragedModel(net, use_buffers=True)
        average.update_parameters(net)
        net.conv.weight.data.mul_(3)
        average.update_parameters(net)
        self.expect(self.save("average.pt", average.state_dict()), average.module.state_dict(),
                    averaged=True)

    def test_a_module_is_not_made(self):
        result = run(TOOL, self.save("module.pt", Net()), ok=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("__main__.Net", result.stderr)
        self.assertIn("save its state_dict()", result.stderr)

    def test_safetensors_and_both_sharded_layouts(self):
        state = {name: tensor.clone().contiguous() for name, tensor in strange_tensors().items()
                 if not tensor.is_complex()}
        safetensors.torch.save_file(state, os.path.join(DIR, "one.safetensors"))
        self.expect(os.path.join(DIR, "one.safetensors"), state)

        names = list(state)
        parts = {"00001-of-00002": names[::2], "00002-of-00002": names[1::2]}
        # A module's own state is a tensor where the format has no others.
        for base, ending, save, extra in (
                ("model", "safetensors", safetensors.torch.save_file, torch.ones(3, dtype=torch.uint8)),
                ("pytorch_model", "bin", torch.save, io.BytesIO(b"state"))):
            folder = os.path.join(DIR, f"hub-{ending}")
            os.mkdir(folder)
            with open(f"{folder}/config.json", "w") as f:
                json.dump({"architectures": ["Net"]}, f)
            weight_map = {}
            for part, inside in parts.items():
                shard = f"{base}-{part}.{ending}"
                tensors = {name: state[name] for name in inside}
                tensors[f"{part}._extra_state"] = extra
                save(tensors, f"{folder}/{shard}")
                weight_map.update({name: shard for name in tensors})
            with open(f"{folder}/{base}.{ending}.index.json", "w") as f:
                json.dump({"metadata": {"total_size": 1.0}, "weight_map": weight_map}, f, indent=2)
            self.expect(folder, state)
            self.expect(f"{folder}/{base}.{ending}.index.json", state)


class LightningTest(WeightsTest):
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.net = nn.Linear(2, 1)

        def training_step(self, batch, i):
            x, y = batch
            return ((self.net(x) - y) ** 2).mean()

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def train(self, name, **options):
        data = torch.utils.data.TensorDataset(torch.rand(8, 2), torch.rand(8, 1))
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=f"{DIR}/{name}", **options)
        trainer.fit(self.Module(), torch.utils.data.DataLoader(data, batch_size=4))
        (path,) = (os.path.join(folder, file) for folder, _, files in os.walk(f"{DIR}/{name}")
                   for file in files if file.endswith(".ckpt"))
        return path, torch.load(path, weights_only=False)

    def test_checkpoint(self):
        path, saved = self.train("lightning")
        self.assertIn("pytorch-lightning_version", saved)
        self.expect(path, saved["state_dict"])

    def test_average(self):
        path, saved = self.train("lightning_average", callbacks=[WeightAveraging()])
        self.assertFalse(torch.equal(saved["state_dict"]["net.weight"],
                                     saved["current_model_state"]["net.weight"]))
        self.expect(path, saved["state_dict"], averaged=True)


IMAGES, LABELS = 24, 3
CONFIG = """
model {
  sequential {
    layers { flatten {} }
    layers { linear { out_features: 3 } }
    loss { cross_entropy {} }
  }
}
train_dataloader {
  batch_size: 8
  dataset { idx { images: "images" labels: "labels" scale: 0.0625 } }
}
test_dataloader {
  batch_size: 8
  dataset { idx { images: "images" labels: "labels" scale: 0.0625 } }
}
test_evaluator { accuracy {} }
train_cfg { max_epochs: 1 }
optim_wrapper { optimizer { sgd { lr: 0 } } }
default_hooks { checkpoint { interval: 1 } }
"""
EMA = "custom_hooks { config { [hooks/EMAHook] {} } }\n"


class Digits:
    """Images of noise."""

    def __init__(self):
        rng = np.random.default_rng(4)
        self.images = rng.integers(0, 17, (IMAGES, 4, 4), np.uint8)
        self.labels = rng.integers(0, LABELS, IMAGES, np.uint8)

    def __len__(self):
        return IMAGES

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i].astype(np.float32) / 16)
        return image.unsqueeze(0), int(self.labels[i])

    def write(self):
        for name, array in (("images", self.images), ("labels", self.labels)):
            with open(f"{DIR}/{name}", "wb") as f:
                f.write(bytes([0, 0, 8, array.ndim]))
                f.write(np.array(array.shape, ">u4").tobytes() + array.tobytes())


class Classifier(BaseModel):
    """With the names of the Sequential of CONFIG."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.add_module("1", nn.Linear(16, LABELS))

    def forward(self, images, labels, mode):
        x = getattr(self, "1")(images.flatten(1))
        if mode == "loss":
            return dict(loss=nn.functional.cross_entropy(x, labels))
        return [(x, labels)]


@METRICS.register_module()
class TopAndLoss(BaseMetric):
    def process(self, data_batch, data_samples):
        for out, labels in data_samples:
            losses = nn.functional.cross_entropy(out, labels, reduction="none")
            self.results += zip((out.argmax(1) == labels).tolist(), losses.double().tolist())

    def compute_metrics(self, results):
        top, loss = np.array(results).mean(0)
        return {"accuracy/top1": float(top) * 100, "test_loss": float(loss)}


def loader():
    return dict(batch_size=8, num_workers=0, dataset=Digits(),
                sampler=dict(type="DefaultSampler", shuffle=False),
                collate_fn=dict(type="default_collate"))


class MMEngineTest(WeightsTest):
    """A training of 3 iterations with an average, and what is done with its file."""

    @classmethod
    def setUpClass(cls):
        Digits().write()
        for name, text in (("net", CONFIG), ("ema", CONFIG + EMA)):
            with open(f"{DIR}/{name}.textproto", "w") as f:
                f.write(text)
        runner = Runner(
            model=Classifier(), work_dir=f"{DIR}/mm", train_dataloader=loader(),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.5)),
            param_scheduler=dict(type="MultiStepLR", milestones=[1]),
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
            custom_hooks=[dict(type="EMAHook", momentum=0.3)])
        runner.train()
        cls.path = f"{DIR}/mm/epoch_1.pth"

    def test_weights_are_the_averaged_ones(self):
        saved = torch.load(self.path, weights_only=False)
        raw = saved["ema_state_dict"]["module.1.weight"]
        self.assertFalse(torch.equal(saved["state_dict"]["1.weight"], raw))
        self.expect(self.path, saved["state_dict"], averaged=True)

    def test_an_evaluation_gives_mmengines_numbers(self):
        for name, hooks in (("net", []), ("ema", [dict(type="EMAHook")])):
            with self.subTest(name):
                runner = Runner(
                    model=Classifier(), work_dir=f"{DIR}/mm_{name}", test_dataloader=loader(),
                    test_cfg=dict(), test_evaluator=dict(type="TopAndLoss"), custom_hooks=hooks,
                    load_from=self.path)
                theirs = runner.test()
                result = run(GRAPNEL, "test", f"{name}.textproto", f"--load-from={self.path}",
                             f"--work-dir=ours_{name}")
                self.assertNotIn("WARNING", result.stderr)
                ours = json.loads(result.stdout)
                self.assertEqual(ours["accuracy/top1"], theirs["accuracy/top1"])
                self.assertAlmostEqual(ours["test_loss"], theirs["test_loss"], places=6)

    def test_a_training_begins_with_them(self):
        run(GRAPNEL, "train", "net.textproto", f"--load-from={self.path}", "--work-dir=begun")
        state = torch.load(self.path, weights_only=False)["state_dict"]
        self.expect(f"{DIR}/begun/epoch_1", state)  # lr is 0.

    def test_an_export_is_of_them(self):
        images = torch.stack([image for image, _ in Digits()])
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, LABELS))
        torch.jit.trace(net, images).save(f"{DIR}/script.pt")
        before, after = CONFIG.index("  sequential"), CONFIG.index("train_dataloader")
        with open(f"{DIR}/script.textproto", "w") as f:
            f.write(CONFIG[:before] + '  torch_script { path: "script.pt" loss { cross_entropy {} } }'
                    "\n}\n" + CONFIG[after:])
        run(GRAPNEL, "export", "script.textproto", f"--load-from={self.path}", "--output=net.pt",
            "--work-dir=exported")
        net.load_state_dict(torch.load(self.path, weights_only=False)["state_dict"])
        torch.testing.assert_close(torch.jit.load(f"{DIR}/net.pt")(images), net(images))

    def test_names_are_left_out_and_changed(self):
        saved = torch.load(self.path, weights_only=False)["state_dict"]
        path = self.save("renamed.pth", {"state_dict": {"head.weight": saved["1.weight"],
                                                        "1.bias": saved["1.bias"]}})
        with open(f"{DIR}/renamed.textproto", "w") as f:
            f.write(CONFIG + f'load_from: "{path}"\nload_options {{ exclude: "bias$" '
                    'rename { pattern: "^head" replacement: "1" } strict: false }\n')
        result = run(GRAPNEL, "train", "renamed.textproto", "--work-dir=renamed")
        self.assertIn("missing: 1.bias", result.stderr)
        self.assertEqual(sections(f"{DIR}/renamed/epoch_1")["model"]["1.weight"],
                         described(saved["1.weight"]))
        result = run(GRAPNEL, "test", "net.textproto", f"--load-from={path}",
                     "--work-dir=strict", ok=False)
        self.assertEqual(result.returncode, 4)
        self.assertIn("missing: 1 (1.weight); unexpected: 1 (head.weight)", result.stderr)

    def test_a_run_does_not_go_on_from_it(self):
        result = run(GRAPNEL, "train", "net.textproto", f"--resume={self.path}",
                     "--work-dir=resumed", ok=False)
        self.assertEqual(result.returncode, 4)
        self.assertIn("grapnel ckpt import", result.stderr)


if __name__ == "__main__":
    sys.stdout.flush()
    program = unittest.main(verbosity=2, exit=False)
    sys.stderr.flush()
    # Threads of torch's that are left abort the interpreter's exit, now and then.
    os._exit(not program.result.wasSuccessful())
