"""The oracle gives the numbers of the rules' own examples."""
import copy
import unittest

import oracle

BASE = {
    "model": "linear", "seed": 3, "loss": {},
    "data": {"size": 24, "batch": 4, "drop_last": False, "infinite": False},
    "val": None,
    "train": {"by_epoch": True, "max": 4, "val_begin": 1, "val_interval": 1},
    "optim": {"kind": "sgd", "lr": 0.5, "weight_decay": 0.0, "momentum": 0.0,
              "accum": 1, "by_samples": False, "clip": None, "rules": [],
              "bias_lr_mult": 1.0},
    "auto_scale": None, "schedules": [],
    "checkpoint": {"by_epoch": True, "interval": 1, "save_last": True,
                   "save_begin": 0, "keep": -1, "save_best": None},
    "window": 10, "ema": None,
}
LINEAR = {"kind": "linear", "start_factor": 1.0, "end_factor": 0.0}
CONVERTED = dict(LINEAR, convert_to_iter_based=True)
BY_ITER = dict(LINEAR, by_epoch=False)
WEIGHTS = {"linear": {"1.weight": [0.01] * 48, "1.bias": [0.0] * 3},
           "mlp": {"body.weight": [0.01] * 80, "body.bias": [0.0] * 5,
                   "head.weight": [0.01] * 15, "head.bias": [0.0] * 3}}
SAMPLES = [([((i * 7 + j) % 11) / 11 for j in range(16)], i % 3) for i in range(64)]


def edited(config, *changes):
    config = copy.deepcopy(config)
    for path, value in changes:
        at = config
        *parents, last = path.split(".")
        for key in parents:
            at = at[key]
        at[last] = value
    return config


def run(config, folder=None, resume=None):
    folder = folder or oracle.Folder()
    r = oracle.Run(config, SAMPLES, SAMPLES[:9], folder)
    if resume:
        out = r.resume(resume[0].checkpoints[resume[1]][0], resume[0])
    else:
        out = r.start(WEIGHTS[config["model"]])
    out.folder, out.state = folder, r.s
    return out


def rates(out, digits=4):
    return [round(r["lr"], digits) for r in out.records]


class ExamplesTest(unittest.TestCase):

    def resumed(self, config, name, *changes):
        first = run(config)
        return run(edited(config, *changes), resume=(first.folder, name))

    def check(self, out, I, max_iters, expected):
        self.assertEqual(out.records[0]["iter"], I + 1)
        self.assertEqual(out.state.max_iters, max_iters)
        self.assertEqual(rates(out)[:len(expected)], expected)

    def test_converted_shorter(self):
        config = edited(BASE, ("schedules", [CONVERTED]))
        out = self.resumed(config, "epoch_2", ("data.batch", 8))
        self.check(out, 12, 18, [0.2273, 0.1818, 0.1364, 0.0909, 0.0455, 0])

    def test_converted_longer(self):
        config = edited(BASE, ("schedules", [CONVERTED]))
        out = self.resumed(config, "epoch_2", ("data.batch", 2))
        self.check(out, 12, 36, [0.2447, 0.2340])
        self.assertEqual(rates(out)[-2:], [0.0106, 0])

    def test_converted_more_samples(self):
        config = edited(BASE, ("schedules", [CONVERTED]), ("data.size", 40))
        out = self.resumed(config, "epoch_2", ("data.size", 52))
        self.check(out, 20, 46, [0.2451, 0.2353])
        self.assertEqual(rates(out)[-1], 0)

    def test_by_iteration(self):
        config = edited(BASE, ("schedules", [BY_ITER]))
        out = self.resumed(config, "epoch_2", ("data.batch", 8))
        self.check(out, 12, 18, [0.1471, 0.1176, 0.0882, 0.0588, 0.0294, 0])

    def test_by_iteration_with_an_end(self):
        config = edited(BASE, ("schedules", [dict(BY_ITER, end=24)]))
        out = self.resumed(config, "epoch_2", ("data.batch", 8))
        self.check(out, 12, 18, [0.2391, 0.2174, 0.1957, 0.1739, 0.1522, 0.1304])
        self.assertIn(["24", "beyond", "18"], out.warnings)

    def test_accumulation(self):
        config = edited(BASE, ("optim.accum", 4))
        out = self.resumed(config, "epoch_2", ("data.batch", 24))
        self.assertEqual((out.state.max_iters, out.state.I), (14, 14))
        self.assertEqual(out.state.updates, 3 + 1)

    def test_accumulation_goes_on(self):
        config = edited(BASE, ("optim.accum", 4), ("data.size", 15), ("data.batch", 3),
                        ("checkpoint.by_epoch", False), ("checkpoint.interval", 5))
        first = run(config)
        self.assertEqual(list(first.folder.checkpoints)[1], "iter_10")
        state = first.folder.checkpoints["iter_10"][0]
        self.assertEqual((state.window_begin, state.window_size, state.updates),
                         (8, 4, 2))
        folder = oracle.Folder()
        folder.checkpoints.update((k, v) for k, v in first.folder.checkpoints.items()
                                  if k in ("iter_5", "iter_10"))
        changed = edited(config, ("data.batch", 5),
                         ("checkpoint.interval", 1))
        out = run(changed, resume=(folder, "iter_10"))
        steps = {s["I"]: out.folder.checkpoints[s["name"]][0].updates
                 for s in out.saves}
        self.assertEqual(steps, {11: 2, 12: 3, 13: 3, 14: 3, 15: 3, 16: 4})
        out = run(edited(config, ("data.batch", 5)), folder, (folder, "iter_10"))
        self.assertEqual(list(folder.checkpoints),
                         ["iter_5", "iter_10", "iter_15", "iter_16"])

    def test_there_and_back(self):
        config = edited(BASE, ("schedules", [CONVERTED]))
        first = run(config)
        second = run(edited(config, ("data.batch", 8)),
                     resume=(first.folder, "epoch_2"))
        out = run(config, resume=(second.folder, "epoch_3"))
        self.check(out, 15, 21, [round(0.5 * (1 - 18 / 23), 4)])
        self.assertEqual(rates(out)[-1], 0)

    def test_at_an_epochs_last_iteration(self):
        config = edited(BASE, ("schedules", [CONVERTED]),
                        ("checkpoint.by_epoch", False), ("checkpoint.interval", 6))
        out = self.resumed(config, "iter_12", ("data.batch", 8))
        self.check(out, 12, 18, [0.2273, 0.1818, 0.1364, 0.0909, 0.0455, 0])

    def test_refused(self):
        config = edited(BASE, ("checkpoint.by_epoch", False),
                        ("checkpoint.interval", 4))
        out = self.resumed(config, "iter_8", ("data.size", 32))
        self.assertEqual(out.refused, ["iter_12"])

    def inside(self, *changes):
        """A run that is resumed 2 batches of 4 behind the border at 6."""
        config = edited(BASE, ("schedules", [CONVERTED]),
                        ("checkpoint.by_epoch", False), ("checkpoint.interval", 4))
        out = self.resumed(config, "iter_8", *changes)
        self.assertIsNone(out.refused)
        return out

    def test_larger_batches_inside_an_epoch(self):
        """16 samples are left: 2 batches of 8; the clock is at 2 * 3 - 2 of 12."""
        out = self.inside(("data.batch", 8))
        self.check(out, 8, 16, [round(0.5 * (1 - k / 11), 4) for k in range(4, 12)])
        self.assertEqual([r["epoch"] for r in out.records], [2] * 2 + [3] * 3 + [4] * 3)
        self.assertEqual(out.state.samples, 4 * 24)
        self.assertEqual(out.state.changes, [(0, 0, 6, 0, 0), (1, 8, 3, 8, 2)])

    def test_smaller_batches_inside_an_epoch(self):
        """Their last one is what is there: 16 in 5 of 3 and one of 1."""
        out = self.inside(("data.batch", 3))
        self.check(out, 8, 30, [round(0.5 * (1 - 10 / 31), 4)])
        self.assertEqual(out.state.lengths, [6, 2 + 6, 8, 8])
        self.assertEqual(out.state.samples, 4 * 24)

    def test_drop_last_inside_an_epoch(self):
        """16 samples in batches of 10, the last 6 of them never; later 4."""
        out = self.inside(("data.batch", 10), ("data.drop_last", True))
        self.check(out, 8, 13, [round(0.5 * (1 - 3 / 7), 4)])
        self.assertEqual(out.state.samples, 24 + 8 + 10 + 2 * 20)

    def test_nothing_is_left_of_an_epoch(self):
        """No batch of 20: the epoch of 2 is over, and the first thing done is
        its end."""
        out = self.inside(("data.batch", 20), ("data.drop_last", True))
        self.check(out, 8, 10, [round(0.5 * (1 - 2 / 3), 4), 0])
        self.assertEqual([r["epoch"] for r in out.records], [3, 4])
        self.assertEqual(out.state.lengths, [6, 2, 1, 1])
        self.assertEqual(out.state.changes[1:], [(2, 8, 1, 0, 0)])

    def test_twice_inside_an_epoch(self):
        config = edited(BASE, ("checkpoint.by_epoch", False), ("checkpoint.interval", 1))
        first = run(config)
        second = run(edited(config, ("data.batch", 6)), resume=(first.folder, "iter_8"))
        out = run(edited(config, ("data.batch", 2)), resume=(second.folder, "iter_9"))
        # 8, 6 and 5 times 2; then epochs of 12.
        self.assertEqual(out.state.lengths, [6, 2 + 1 + 5, 12, 12])
        self.assertEqual(out.state.changes,
                         [(0, 0, 6, 0, 0), (1, 8, 4, 8, 3), (1, 9, 12, 14, 5)])

    def test_an_infinite_samplers_pass_goes_on(self):
        config = edited(BASE, ("data.infinite", True), ("data.size", 10),
                        ("train", {"by_epoch": False, "max": 6}),
                        ("checkpoint.by_epoch", False), ("checkpoint.interval", 1))
        first = run(config)
        r = oracle.Run(edited(config, ("data.batch", 3)), list(range(10)), [],
                       oracle.Folder())
        state = first.folder.checkpoints["iter_4"][0]
        self.assertEqual((state.passes, state.given), (1, 6))
        self.assertEqual(oracle.batch_at(r.config, state, r.samples), [6, 7, 8])
        state.given = 9
        self.assertEqual(oracle.batch_at(r.config, state, r.samples), [9, 0, 1])

    def test_lr_without_a_schedule(self):
        out = self.resumed(edited(BASE, ("optim.lr", 0.1)), "epoch_2", ("optim.lr", 0.01))
        self.assertEqual(rates(out), [0.01] * 12)

    def test_lr_with_a_cosine(self):
        cosine = {"kind": "cosine_annealing", "t_max": 4, "eta_min": 0.02}
        config = edited(BASE, ("optim.lr", 0.1), ("schedules", [cosine]))
        out = self.resumed(config, "epoch_2", ("optim.lr", 0.05))
        self.assertEqual(rates(out)[::6], [0.035, 0.0244])

    def test_lr_with_steps(self):
        step = {"kind": "step", "step_size": 2, "gamma": 0.1}
        config = edited(BASE, ("optim.lr", 0.1), ("schedules", [step]))
        out = self.resumed(config, "epoch_2", ("optim.lr", 0.05))
        self.assertEqual(rates(out)[0], 0.005)

    def test_lr_mult(self):
        rules = [{"pattern": "body", "lr_mult": 0.0}]
        config = edited(BASE, ("model", "mlp"), ("schedules", [CONVERTED]),
                        ("optim.rules", rules))
        first = run(config)
        out = run(edited(config, ("optim.rules", [{"pattern": "body", "lr_mult": 1.0}])),
                  resume=(first.folder, "epoch_2"))
        state = first.folder.checkpoints["epoch_2"][0]
        self.assertEqual(state.current["body.bias"]["lr"], 0)
        self.assertAlmostEqual(out.records[0]["lr"], 0.5 * 11 / 23, 12)
        self.assertEqual(out.records[0]["lr"], state.current["head.bias"]["lr"])

    def test_auto_scale_lr(self):
        config = edited(BASE, ("schedules", [CONVERTED]), ("auto_scale", 4))
        out = self.resumed(config, "epoch_2", ("data.batch", 8))
        self.check(out, 12, 18, [0.4545, 0.3636])
        self.assertEqual(out.state.configured[None]["lr"], 1.0)
        self.assertEqual(rates(out)[-1], 0)

    def test_linear_over_one_step(self):
        config = edited(BASE, ("schedules", [{"kind": "linear", "start_factor": 0.1,
                                              "end": 1}]))
        self.assertEqual(rates(run(config))[::6], [0.05, 0.5, 0.5, 0.5])

    def test_constant_restores(self):
        config = edited(BASE, ("optim.lr", 0.1),
                        ("schedules", [{"kind": "constant", "factor": 0.9, "end": 2}]))
        self.assertEqual(run(config).records[6]["lr"], 0.10000000000000002)

    def test_converted_in_a_run_by_iteration(self):
        """Its window is a pass; the epochs of its clock are passes."""
        config = edited(BASE, ("train", {"by_epoch": False, "max": 30}),
                        ("schedules", [dict(CONVERTED, end=4)]),
                        ("checkpoint.by_epoch", False), ("checkpoint.interval", 6))
        out = self.resumed(config, "iter_12", ("data.batch", 8))
        self.check(out, 12, 30, [0.2273, 0.1818, 0.1364, 0.0909, 0.0455, 0, 0])

    def test_begin_beyond_the_end(self):
        config = edited(BASE, ("schedules", [dict(LINEAR, begin=4),
                                             {"kind": "exponential", "gamma": 0.5,
                                              "begin": 30, "by_epoch": False}]))
        self.assertEqual(rates(run(config)), [0.5] * 24)

    def test_means_by_weight(self):
        """SAMPLES with weights is the one big batch that holds them all."""
        loss = {"class_weight": [0.2, 1.0, 3.0], "ignore_index": 1}
        big = edited(BASE, ("loss", loss), ("data.batch", 12))
        small = edited(big, ("data.batch", 4), ("optim.accum", 3),
                       ("optim.by_samples", True))
        a, b = run(big).state.weights, run(small).state.weights
        for name in a:
            for x, y in zip(a[name], b[name]):
                self.assertAlmostEqual(x, y, 12)

    def test_window_of_ignored_targets(self):
        config = edited(BASE, ("loss", {"ignore_index": 255}), ("optim.accum", 2),
                        ("optim.by_samples", True), ("train.max", 1))
        ignored = [(x, 255 if 8 <= i < 16 else y) for i, (x, y) in enumerate(SAMPLES)]
        r = oracle.Run(config, ignored, SAMPLES[:9], oracle.Folder())
        out = r.start(WEIGHTS["linear"])
        self.assertEqual([x["loss_now"] for x in out.records][2:4], [0, 0])
        self.assertEqual(r.s.updates, 2)

    def test_window_size_grows(self):
        config = edited(BASE, ("window", 3))
        first = run(config)
        out = run(edited(config, ("window", 30)), resume=(first.folder, "epoch_3"))
        kept = [r["loss_now"] for r in first.records[8:19]]  # 10 and a new one.
        self.assertAlmostEqual(out.records[0]["loss"], sum(kept) / 11, 12)

    def test_unchanged(self):
        """A resume that changes nothing is the run that wasn't interrupted."""
        config = edited(BASE, ("model", "mlp"), ("optim.accum", 4),
                        ("optim.momentum", 0.9), ("checkpoint.by_epoch", False),
                        ("checkpoint.interval", 1), ("val", {"size": 9}),
                        ("schedules", [CONVERTED, {"kind": "poly"}]),
                        ("ema", {"type": "exponential_moving_average",
                                 "momentum": 0.2}))
        whole = run(config)
        for name in list(whole.folder.checkpoints):
            out = run(config, resume=(whole.folder, name))
            self.assertEqual(out.records, whole.records[int(name[5:]):])
            self.assertEqual(out.state.weights, whole.state.weights)
            self.assertEqual(out.validations,
                             whole.validations[-len(out.validations):]
                             if out.validations else [])


if __name__ == "__main__":
    unittest.main()
