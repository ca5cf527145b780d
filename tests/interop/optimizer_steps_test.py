"""Steps of optimizers: some here and some in Python, as if all were made by one.

    optimizer_steps_test.py TRAINING_PTH_TOOL

What torch.optim and ours have of each other's state, to the bit: three steps on
one side and three on the other, against six in Python.
"""

import functools
import os
import subprocess
import sys
import unittest

import numpy as np
from safetensors.numpy import load_file as load, save_file as save

import slim_mmengine

NAMES = ("a", "b", "c", "d")  # "a" and "c" are alike.
SHAPES = ((4, 3), (3,), (4, 3), (2,))
STEPS = 6
HALF = 3


class Kind:
    """An optimizer as ours is told of it, and how Python makes one.

    `late`: "d" has its first gradient on the other side, and so no state before.
    """

    def __init__(self, ours, name, groups=None, late=True, **options):
        self.ours, self.late = ours, late
        self._name, self._groups, self._options = name, groups, options

    def make(self, params, named=False, **changed):
        """Of params by name."""
        given = list(params.items()) if named else list(params.values())
        if self._groups is not None:
            given = [dict(options, params=[(name, params[name]) if named else params[name]
                                           for name in names])
                     for names, options in self._groups]
        return getattr(TORCH.optim, self._name)(given, **{**self._options, **changed})


# Those that a configuration makes are the fused ones, on both sides: the others
# round otherwise. Python's fused SGD fails at a late momentum.
KINDS = {
    "AdamW": Kind("optimizer { adamw { lr: 0.01 weight_decay: 0.1 } }", "AdamW",
                  lr=0.01, weight_decay=0.1, fused=True),
    "AdamWAmsgrad": Kind("optimizer { adamw { lr: 0.01 amsgrad: true maximize: true } }", "AdamW",
                         lr=0.01, amsgrad=True, maximize=True, fused=True),
    "Adam": Kind("optimizer { adam { lr: 0.01 beta1: 0.8 eps: 1e-6 weight_decay: 0.1 } }", "Adam",
                 lr=0.01, betas=(0.8, 0.999), eps=1e-6, weight_decay=0.1, fused=True),
    "AdamAmsgrad": Kind("optimizer { adam { lr: 0.01 beta1: 0.8 amsgrad: true } }", "Adam",
                        lr=0.01, betas=(0.8, 0.999), amsgrad=True, fused=True),
    "SGD": Kind("optimizer { sgd { lr: 0.05 weight_decay: 0.01 } }", "SGD",
                lr=0.05, weight_decay=0.01, fused=True),
    "SGDMomentum": Kind("optimizer { sgd { lr: 0.05 momentum: 0.9 dampening: 0.5 } }", "SGD",
                        late=False, lr=0.05, momentum=0.9, dampening=0.5, fused=True),
    "SGDNesterov": Kind(
        "optimizer { sgd { lr: 0.05 momentum: 0.9 nesterov: true weight_decay: 0.01 } }", "SGD",
        late=False, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True),
    "Groups": Kind(
        "optimizer { adamw { lr: 0.01 weight_decay: 0.1 } }"
        "paramwise_cfg { rules { pattern: '^b' lr_mult: 0.5 decay_mult: 0 }"
        "                rules { pattern: '^d' lr: 0.03 weight_decay: 0.2 beta1: 0.5 } }", "AdamW",
        groups=[("ac", {}), ("b", dict(lr=0.005, weight_decay=0.0)),
                ("d", dict(lr=0.03, weight_decay=0.2, betas=(0.5, 0.999)))],
        lr=0.01, weight_decay=0.1, fused=True),
    "SGDInCode": Kind("code: sgd", "SGD", lr=0.05, momentum=0.9, weight_decay=0.01),
    "RMSprop": Kind("code: rmsprop", "RMSprop",
                    lr=0.01, alpha=0.9, momentum=0.5, weight_decay=0.1),
    "Adagrad": Kind("code: adagrad", "Adagrad", lr=0.1, lr_decay=0.1, weight_decay=0.1),
}


class Steps(unittest.TestCase):
    def setUp(self):
        self.folder = os.path.join(os.environ["TEST_TMPDIR"], self.id())
        os.makedirs(self.folder)
        self.make_gradients(late=True)

    def make_gradients(self, late):
        random = np.random.default_rng(7)
        self.gradients = {
            f"{step}/{name}": random.standard_normal(shape).astype(np.float32)
            for step in range(STEPS) for name, shape in zip(NAMES, SHAPES)
            if not late or name != "d" or step > HALF}

    def tool(self, command, *args):
        save(self.gradients, f"{self.folder}/gradients.safetensors")
        ran = subprocess.run([TOOL, command, args[0], f"{self.folder}/gradients.safetensors",
                              *args[1:]], check=False, timeout=60, text=True,
                             env={**os.environ, "OMP_NUM_THREADS": "1"},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(ran.returncode, 0, ran.stdout)
        return ran.stdout

    def params(self):
        return {name: TORCH.nn.Parameter(TORCH.ones(shape)) for name, shape in zip(NAMES, SHAPES)}

    def take(self, saved, params):
        with TORCH.no_grad():
            for name, value in saved["model"].items():
                params[name].copy_(value)

    def assert_same(self, ours, theirs):
        for name, param in theirs.items():
            value = param.detach().numpy()
            self.assertEqual(ours[name].tobytes(), value.tobytes(),
                             f"{name}: {ours[name]}, and in Python {value}")

    def save_steps(self, path, optimizer, params):
        TORCH.save({"model": {name: param.detach() for name, param in params.items()},
                    "optimizer": optimizer.state_dict(), "steps": HALF}, path)


class OptimizersTest(Steps):
    def step(self, params, optimizer, first, last):
        for step in range(first, last):
            for name, param in params.items():
                gradient = self.gradients.get(f"{step}/{name}")
                param.grad = None if gradient is None else TORCH.from_numpy(gradient.copy())
            optimizer.step()

    def uninterrupted(self, kind):
        params = self.params()
        self.step(params, kind.make(params), 0, STEPS)
        return params

    def test_ours_go_on_in_python(self):
        for name, kind in KINDS.items():
            with self.subTest(name):
                self.make_gradients(kind.late)
                path = f"{self.folder}/{name}.pth"
                self.tool("save_steps", kind.ours, str(HALF), path)
                saved = TORCH.load(path, weights_only=True)
                params = self.params()
                # Options are the file's, and all that there are.
                optimizer = kind.make(params, lr=0.5)
                own = [set(group) for group in optimizer.state_dict()["param_groups"]]
                self.assertEqual(own, [set(group) for group in saved["optimizer"]["param_groups"]])
                optimizer.load_state_dict({key: saved["optimizer"][key]
                                           for key in ("state", "param_groups")})
                self.take(saved, params)
                self.step(params, optimizer, HALF, STEPS)
                self.assert_same({name: param.detach().numpy() for name, param in params.items()},
                                 self.uninterrupted(kind))

    def test_pythons_go_on_here(self):
        for name, kind in KINDS.items():
            for named in (False, True) if name in ("AdamW", "Groups") else (False,):
                with self.subTest(name, named=named):
                    self.make_gradients(kind.late)
                    params = self.params()
                    optimizer = kind.make(params, named)
                    self.step(params, optimizer, 0, HALF)
                    path = f"{self.folder}/{name}.{named}.pth"
                    self.save_steps(path, optimizer, params)
                    said = self.tool("go_on", kind.ours, path, f"{path}.out")
                    self.assertEqual(said, "")
                    self.assert_same(load(f"{path}.out"), self.uninterrupted(kind))

    def test_frozen_ones_are_there_or_not(self):
        """In Python "f" is frozen; here there is none of that name."""
        kind = KINDS["AdamW"]
        for of_all in (False, True):
            with self.subTest(of_all=of_all):
                frozen = TORCH.nn.Parameter(TORCH.ones(4, 3), requires_grad=False)
                params = {"f": frozen, **self.params()}
                optimizer = kind.make(params if of_all else
                                      {name: param for name, param in params.items()
                                       if param.requires_grad})
                self.step(params, optimizer, 0, HALF)
                path = f"{self.folder}/{of_all}.pth"
                self.save_steps(path, optimizer, params)
                self.assertEqual(self.tool("go_on", kind.ours, path, f"{path}.out"), "")
                self.assert_same(load(f"{path}.out"), self.uninterrupted(kind))

    def test_what_no_state_knows_is_said(self):
        for name, ours, said in (
                ("SGDNesterov", "optimizer { sgd { lr: 0.05 momentum: 0.9 } }",
                 "nesterov: is true in the file and false in the configuration"),
                ("AdamWAmsgrad", "optimizer { adamw { maximize: true } }",
                 "amsgrad: is true in the file and false in the configuration"),
                ("AdamWAmsgrad", "optimizer { adamw { amsgrad: true } }",
                 "maximize: is true in the file and false in the configuration"),
                ("SGDMomentum", "optimizer { sgd { lr: 0.05 } }",
                 "momentum: is 0.9 in the file and 0 in the configuration")):
            with self.subTest(name, ours=ours):
                params = self.params()
                optimizer = KINDS[name].make(params)
                self.step(params, optimizer, 0, HALF)
                path = f"{self.folder}/flags.pth"
                self.save_steps(path, optimizer, params)
                self.assertIn(said, self.tool("go_on", ours, path, f"{path}.out"))


class LossScaleTest(Steps):
    """Of an AmpOptimWrapper of MMEngine's, made on a CPU."""

    SCALE = dict(init_scale=1024.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=2)
    OURS = KINDS["AdamW"].ours + (
        "amp { dtype: FLOAT16 loss_scale { init_scale: 1024 growth_factor: 4"
        "      backoff_factor: 0.25 growth_interval: 2 } }")

    def setUp(self):
        super().setUp()
        # 1024, 1024 grows to 4096; 4096 goes to the other side, where it grows to
        # 16384; one step is left out, which leaves 4096, and one made.
        self.gradients["4/b"][1] = np.inf

    def wrapper(self, params):
        from mmengine.optim import AmpOptimWrapper
        return AmpOptimWrapper(optimizer=KINDS["AdamW"].make(params), loss_scale=self.SCALE)

    def step(self, params, wrapper, first, last):
        for step in range(first, last):
            wrapper.update_params(sum(
                (param * TORCH.from_numpy(self.gradients[f"{step}/{name}"])).sum()
                for name, param in params.items() if f"{step}/{name}" in self.gradients))

    def uninterrupted(self):
        params = self.params()
        wrapper = self.wrapper(params)
        self.step(params, wrapper, 0, STEPS)
        return params, wrapper.loss_scaler

    def test_ours_go_on_in_python(self):
        path = f"{self.folder}/ours.pth"
        self.tool("save_steps", self.OURS, str(HALF), path)
        saved = TORCH.load(path, weights_only=True)
        self.assertEqual(saved["optimizer"]["loss_scaler"], dict(
            scale=4096.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=2,
            _growth_tracker=1))
        params = self.params()
        wrapper = self.wrapper(params)
        wrapper.load_state_dict(saved["optimizer"])
        self.take(saved, params)
        self.step(params, wrapper, HALF, STEPS)
        theirs, scaler = self.uninterrupted()
        self.assert_same({name: param.detach().numpy() for name, param in params.items()}, theirs)
        self.assertEqual(wrapper.loss_scaler.state_dict(), scaler.state_dict())

    def test_pythons_go_on_here(self):
        params = self.params()
        wrapper = self.wrapper(params)
        self.step(params, wrapper, 0, HALF)
        path = f"{self.folder}/theirs.pth"
        self.save_steps(path, wrapper, params)
        self.assertEqual(self.tool("go_on", self.OURS, path, f"{path}.out"), "")
        theirs, scaler = self.uninterrupted()
        ours = load(f"{path}.out")
        self.assert_same(ours, theirs)
        self.assertEqual(scaler.get_scale(), 4096)
        self.assertEqual((ours["scale"], ours["good_steps"]), (scaler.get_scale(), 1))


if __name__ == "__main__":
    TOOL = os.path.abspath(sys.argv.pop(1))
    TORCH = slim_mmengine.load(TOOL)
    TORCH.set_num_threads(1)
    # It wants a GPU, for nothing that these tests do.
    from mmengine.optim.optimizer import amp_optimizer_wrapper
    amp_optimizer_wrapper.is_cuda_available = lambda: True
    amp_optimizer_wrapper.GradScaler = functools.partial(TORCH.amp.GradScaler, "cpu")
    unittest.main()
