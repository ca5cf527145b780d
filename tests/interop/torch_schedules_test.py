"""Schedules of torch.optim.lr_scheduler go on here.

    torch_schedules_test.py TRAINING_PTH_TOOL

A loop as anybody writes one trains in Python, with each schedule, and saves in
the middle; the rest is trained here. Weights are compared to the bit.
"""

import os
import subprocess
import sys
import unittest

import numpy as np
from safetensors.numpy import load_file as load

import slim_torch
from mmengine_digits import Digits, records_of, write_data

EPOCHS = 5
SAVED = 3
BATCHES = 13
CONFIG = """
model {
  sequential {
    layers { flatten {} }
    layers { linear { out_features: 32 } }
    layers { relu {} }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
train_dataloader {
  batch_size: 16
  dataset { idx { images: "small-images" labels: "small-labels" scale: 0.0625 } }
}
val_dataloader {
  batch_size: 89
  dataset { idx { images: "val-images" labels: "val-labels" scale: 0.0625 } }
}
val_evaluator { accuracy {} }
train_cfg { max_epochs: 5 }
default_hooks { checkpoint { interval: 1 } }
optim_wrapper {
  optimizer { sgd { lr: 0.05 momentum: 0.9 } }
  paramwise_cfg { rules { pattern: "bias$" lr_mult: 2 decay_mult: 0 } }
}
"""


class Schedule:
    """`make`: the one of an optimizer, or a list of them; `by_iter` tells which
    step with each batch. `said`: what the import says of it, which then is
    replayed."""

    def __init__(self, ours, make, by_iter=False, said=None, bits=True):
        self.ours, self.by_iter, self.said, self.bits = ours, by_iter, said, bits
        self.make = make


REPLAYED = "the file has none of the kind"


def schedules(torch):
    lr = torch.optim.lr_scheduler

    def warm_up_and_cosine(optimizer):
        return lr.SequentialLR(optimizer, [lr.LinearLR(optimizer, 0.1, total_iters=2),
                                           lr.CosineAnnealingLR(optimizer, 3)], [2])

    return {
        "StepLR": Schedule("step { step_size: 2 gamma: 0.3 }", lambda o: lr.StepLR(o, 2, 0.3)),
        "MultiStepLR": Schedule("multi_step { milestones: [2, 4, 4] gamma: 0.5 }",
                                lambda o: lr.MultiStepLR(o, [4, 2, 4], 0.5)),
        "ConstantLR": Schedule("constant { factor: 0.2 end: 5 }",
                               lambda o: lr.ConstantLR(o, 0.2, total_iters=4)),
        "LinearLR": Schedule("linear { start_factor: 0.1 end: 51 by_epoch: false }",
                             lambda o: lr.LinearLR(o, 0.1, total_iters=50), by_iter=True),
        # It has ended before the file was made.
        "LinearLRDone": Schedule("linear { start_factor: 0.1 end: 3 }",
                                 lambda o: lr.LinearLR(o, 0.1, total_iters=2)),
        "ExponentialLR": Schedule("exponential { gamma: 0.7 }",
                                  lambda o: lr.ExponentialLR(o, 0.7)),
        "CosineAnnealingLR": Schedule("cosine_annealing { eta_min: 0.01 }",
                                      lambda o: lr.CosineAnnealingLR(o, 5, 0.01)),
        # Down and up again.
        "CosineAnnealingLRByIter": Schedule(
            "cosine_annealing { t_max: 20 by_epoch: false }",
            lambda o: lr.CosineAnnealingLR(o, 20), by_iter=True),
        "PolynomialLR": Schedule("poly { power: 0.9 end: 6 }",
                                 lambda o: lr.PolynomialLR(o, 5, 0.9), bits=False),
        # About to reduce it, and resting.
        "ReduceLROnPlateau": Schedule(
            "reduce_on_plateau { monitor: 'accuracy/top1' rule: 'greater' factor: 0.5 patience: 2"
            " threshold: 90 threshold_rule: 'abs' min_value: 0.001 }",
            lambda o: lr.ReduceLROnPlateau(o, "max", 0.5, 2, 90, "abs", min_lr=0.001)),
        "ReduceLROnPlateauCooldown": Schedule(
            "reduce_on_plateau { monitor: 'accuracy/top1' rule: 'greater' factor: 0.5 patience: 0"
            " threshold: 9 cooldown: 2 }",
            lambda o: lr.ReduceLROnPlateau(o, "max", 0.5, 0, 9, cooldown=2)),
        # Its settings are the optimizer's, in Python.
        "OneCycleLR": Schedule(
            "one_cycle { eta_max: 0.1 pct_start: 0.4 by_epoch: false }",
            lambda o: lr.OneCycleLR(o, 0.1, 65, pct_start=0.4, cycle_momentum=False), by_iter=True,
            said=[REPLAYED]),
        # What a function was can't be known; this one is the same schedule.
        "LambdaLR": Schedule("exponential { gamma: 0.7 }",
                             lambda o: lr.LambdaLR(o, lambda epoch: 0.7 ** epoch),
                             said=[REPLAYED], bits=False),
        "SequentialLR": Schedule(
            "linear { start_factor: 0.1 end: 3 }\\ncosine_annealing { begin: 2 t_max: 3 }",
            warm_up_and_cosine, said=[REPLAYED], bits=False),
    }


class TorchSchedulesTest(unittest.TestCase):
    def setUp(self):
        self.folder = os.path.join(os.environ["TEST_TMPDIR"], self.id())
        os.makedirs(self.folder)
        write_data(self.folder)
        self.train, self.val = (
            next(iter(TORCH.utils.data.DataLoader(data, batch_size=len(data))))
            for data in (Digits(TORCH, f"{self.folder}/small"), Digits(TORCH, f"{self.folder}/val")))

    def theirs(self, schedule, path):
        """Trains, and returns the last weights and the rate of each epoch."""
        nn = TORCH.nn
        TORCH.manual_seed(3)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        params = dict(net.named_parameters())
        optimizer = TORCH.optim.SGD(
            [dict(params=[param for name, param in params.items() if "weight" in name]),
             dict(params=[param for name, param in params.items() if "bias" in name], lr=0.1)],
            lr=0.05, momentum=0.9, fused=True)
        scheduler = schedule.make(optimizer)
        rates = []
        for epoch in range(EPOCHS):
            for images, labels in zip(self.train[0].split(16), self.train[1].split(16)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images), labels).backward()
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                if schedule.by_iter:
                    scheduler.step()
            if isinstance(scheduler, TORCH.optim.lr_scheduler.ReduceLROnPlateau):
                with TORCH.no_grad():
                    right = net(self.val[0]).argmax(1) == self.val[1]
                scheduler.step(right.double().mean() * 100)
            elif not schedule.by_iter:
                scheduler.step()
            if epoch + 1 == SAVED:
                TORCH.save(dict(model=net.state_dict(), optimizer=optimizer.state_dict(),
                                scheduler=scheduler.state_dict(), epoch=epoch + 1,
                                iter=len(rates)), path)
        return {name: value.numpy() for name, value in net.state_dict().items()}, rates

    def tool(self, *args):
        ran = subprocess.run([TOOL, *args], check=False, timeout=60, text=True,
                             env={**os.environ, "OMP_NUM_THREADS": "1"},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(ran.returncode, 0, ran.stdout)
        return ran.stdout

    def ours(self, name, schedule, path):
        """Goes on; returns what was said, the last weights and the rate of each
        epoch."""
        config = f"{self.folder}/{name}.textproto"
        with open(config, "w") as f:
            f.write(CONFIG + f'work_dir: "{name}"\n')
            f.writelines(f"param_scheduler {{ {one} }}\n" for one in schedule.ours.split("\\n"))
        checkpoint = f"{self.folder}/{name}.imported/epoch_{SAVED}"
        os.mkdir(os.path.dirname(checkpoint))
        said = self.tool("import", config, path, checkpoint).splitlines()
        log = self.tool("train", config, checkpoint)
        if schedule.said is None:
            # Nothing of it is replayed, dropped or new.
            self.assertNotIn("resume: ", log)
        rates = [record["lr"] for record in records_of(f"{self.folder}/{name}") if "lr" in record]
        return said, load(f"{self.folder}/{name}/epoch_{EPOCHS}/model.safetensors"), rates

    def test_go_on_here(self):
        for name, schedule in schedules(TORCH).items():
            with self.subTest(name):
                path = f"{self.folder}/{name}.pth"
                theirs, their_rates = self.theirs(schedule, path)
                said, ours, rates = self.ours(name, schedule, path)
                self.assertEqual(len(said), 1 + len(schedule.said or []), said)
                for line, part in zip(said, schedule.said or []):
                    self.assertIn(part, line)
                # Those of the tenth iteration of each epoch.
                behind = [their_rates[epoch * BATCHES + 9] for epoch in range(SAVED, EPOCHS)]
                for mine, other in zip(rates, behind, strict=True):
                    self.assertAlmostEqual(mine, other, delta=1e-14)
                for tensor, value in theirs.items():
                    if schedule.bits:
                        self.assertEqual(ours[tensor].tobytes(), value.tobytes(), tensor)
                    else:  # Formulas that are the same, and round otherwise.
                        np.testing.assert_allclose(ours[tensor], value, rtol=1e-4, atol=1e-5)

    def one(self, make, ours="step { step_size: 2 }", by_iter=False):
        """What an import says, but for what it always does."""
        schedule = Schedule(ours, make, by_iter=by_iter, said=[])
        self.theirs(schedule, f"{self.folder}/one.pth")
        said, _, _ = self.ours("one", schedule, f"{self.folder}/one.pth")
        return said[:-1]

    def test_a_momentum_that_moved_too_is_said(self):
        said = self.one(lambda o: TORCH.optim.lr_scheduler.OneCycleLR(o, 0.1, 65), by_iter=True,
                        ours="one_cycle { eta_max: 0.1 by_epoch: false }")
        self.assertEqual(len(said), 2)
        self.assertIn("moved the momentum too (cycle_momentum)", said[0])
        self.assertIn(REPLAYED, said[1])


if __name__ == "__main__":
    TOOL = os.path.abspath(sys.argv.pop(1))
    TORCH = slim_torch.load(TOOL)
    slim_torch.leave_out_compiler(TORCH)
    TORCH.set_num_threads(1)
    unittest.main()
