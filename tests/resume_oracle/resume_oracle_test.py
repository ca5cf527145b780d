"""Runs random plans and compares what Grapnel does with the oracle.

resume_oracle_test.py PROGRAM [--plans N] [--first SEED] [--work DIR] [--jobs N]
                      [--plan FILE.json] [--shrink] [--warnings]
                      [--ignore KIND,...] [--changes CHANGE,...] [--plain-loss]

Prints each disagreement with its plan; exits with 1 if there is one. --shrink
then looks for a smaller plan that fails likewise. A plan's files stay in
DIR/plan-SEED if it fails: config texts, commands, logs.
"""
import argparse
import concurrent.futures
import copy
import json
import math
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile

import config_text
import oracle
import random_plans
import training
import what_is_left

RATE = 1e-12     # Relative: float64 on both sides.
LOSS = 2e-4      # Relative: float32 against float64.
TIMEOUT = 120


class World:
    """The program, the data, and the weights that runs begin with."""

    def __init__(self, program, work):
        self.program = os.path.abspath(program)
        self.work = work
        self.initial = {}
        rng = random.Random(12345)
        pixels = [[rng.randrange(256) for _ in range(16)] for _ in range(96)]
        labels = [rng.randrange(3) for _ in range(96)]
        # Some of them alone, some as a block that a batch lies in.
        masked = [255 if i % 16 in (4, 5, 6, 7, 8, 11) else y
                  for i, y in enumerate(labels)]
        scaled = [[p / 255 for p in x] for x in pixels]
        self.images = {"train": pixels[:48], "val": pixels[48:]}
        self.labels = {("train", False): labels[:48], ("val", False): labels[48:],
                       ("train", True): masked[:48], ("val", True): masked[48:]}
        self.samples = {
            (kind, m): list(zip(scaled[:48] if kind == "train" else scaled[48:], y))
            for (kind, m), y in self.labels.items()}

    def oracle(self, config, folder):
        m = config["data"]["masked"]
        val = config["val"]
        return oracle.Run(config, self.samples["train", m],
                          self.samples["val", m][:val["size"]] if val else None, folder)

    def write_data(self, folder, config):
        m = config["data"]["masked"]
        sizes = [("train", config["data"]["size"])]
        if config["val"]:
            sizes.append(("val", config["val"]["size"]))
        for kind, n in sizes:
            images = os.path.join(folder, "%s-%d-x" % (kind, n))
            labels = os.path.join(folder, "%s-%d%s-y" % (kind, n, "-masked" if m else ""))
            with open(images, "wb") as f:
                f.write(bytes([0, 0, 8, 3]))
                f.write(b"".join(x.to_bytes(4, "big") for x in (n, 4, 4)))
                f.write(b"".join(bytes(x) for x in self.images[kind][:n]))
            with open(labels, "wb") as f:
                f.write(bytes([0, 0, 8, 1]) + n.to_bytes(4, "big"))
                f.write(bytes(self.labels[kind, m][:n]))

    def run(self, folder, args):
        command = [self.program, "train"] + args + ["--threads", "1"]
        with open(folder + "/commands", "a") as f:
            f.write(shlex.join(["$GRAPNEL"] + command[1:]) + "\n")
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False)
        return done.returncode, done.stdout.decode(errors="replace")

    def weights(self, config):
        """Those of a run of one iteration with a rate of 0."""
        key = config["model"], config["seed"]
        if key not in self.initial:
            c = copy.deepcopy(config)
            c.update(loss={}, val=None, auto_scale=None, schedules=[], ema=None,
                     train={"by_epoch": False, "max": 1},
                     data={"size": 4, "batch": 4, "masked": False, "infinite": False,
                           "drop_last": False},
                     optim={"kind": "sgd", "lr": 0.0, "weight_decay": 0.0,
                            "momentum": 0.0, "accum": 1, "by_samples": False,
                            "clip": None, "rules": [], "bias_lr_mult": 1.0},
                     checkpoint={"by_epoch": False, "interval": 1, "save_last": True,
                                 "save_begin": 0, "keep": -1, "save_best": None})
            folder = "%s/initial-%s-%d" % ((self.work,) + key)
            os.makedirs(folder)
            self.write_data(folder, c)
            with open(folder + "/c.textproto", "w") as f:
                f.write(config_text.render(c))
            code, log = self.run(folder, ["c.textproto", "--work-dir", "w"])
            if code:
                raise RuntimeError("a run of one iteration failed:\n" + log)
            found = what_is_left.tensors(folder + "/w/iter_1/model.safetensors")
            # In the model's order: the first group's rate is what is logged.
            self.initial[key] = {name + part: found[name + part]
                                 for name, _, _ in training.layers_of(key[0])
                                 for part in (".weight", ".bias")}
        return self.initial[key]


class Problems:
    ignored = ()  # Kinds that aren't looked for.

    def __init__(self):
        self.found = []

    def add(self, kind, text):
        # One of a kind is enough to know of.
        if kind not in self.ignored and all(k != kind for k, _ in self.found):
            self.found.append((kind, text))

    def equal(self, kind, what, is_, right):
        if is_ != right:
            self.add(kind, "%s: is %s, right is %s" % (what, is_, right))

    def close(self, kind, what, is_, right, relative, absolute):
        if is_ is None or math.isnan(right) != math.isnan(is_):
            self.add(kind, "%s: is %r, right is %r" % (what, is_, right))
        elif abs(is_ - right) > relative * max(abs(is_), abs(right)) + absolute:
            self.add(kind, "%s: is %r, right is %r" % (what, is_, right))


def compare_records(p, out, rows, by_epoch):
    p.equal("iterations", "iterations", [r["iter"] for r in rows],
            [r["iter"] for r in out.records])
    for is_, right in zip(rows, out.records):
        at = "at iter %d" % right["iter"]
        if by_epoch:
            p.equal("epochs", "epoch " + at, is_.get("epoch"), right["epoch"])
        p.equal("rates", "a base_lr " + at, "base_lr" in is_, "base_lr" in right)
        for key in ("lr", "base_lr"):
            if key in right and key in is_:
                p.close("rates", key + " " + at, is_[key], right[key], RATE, 1e-15)
        p.close("losses", "loss " + at, is_.get("loss_now"), right["loss_now"], LOSS, 2e-5)
        p.close("mean losses", "mean of losses " + at, is_["loss"], right["loss"],
                LOSS, 2e-5)


def compare_validations(p, out, rows):
    p.equal("validations", "validations at", [r["step"] for r in rows],
            [r["step"] for r in out.validations])
    for is_, right in zip(rows, out.validations):
        for key in ("loss", "accuracy/top1"):
            p.close("metrics", "%s of the validation at %d" % (key, right["step"]),
                    is_.get(key), right[key], LOSS, 2e-5)


def compare_metrics(p, at, m, metrics):
    p.equal("manifest metrics", "metrics" + at,
            sorted(k for k in m["metrics"] if k in ("loss", "accuracy/top1")),
            sorted(metrics))
    for key, value in metrics.items():
        if key in m["metrics"]:
            p.close("manifest metrics", key + at, m["metrics"][key], value, LOSS, 2e-5)


def compare_checkpoint(p, path, name, state, metrics, by_epoch):
    m = what_is_left.manifest(path)
    at = " in %s" % name
    p.equal("progress", "iter" + at, m["iter"], state.I)
    if by_epoch:
        p.equal("progress", "epoch and iteration in it" + at,
                (m["epoch"], m["iter_in_epoch"]), (state.E, state.q))
    else:
        p.equal("progress", "pass and samples of it" + at,
                (m["pass"], m["samples_in_pass"]), (state.passes, state.given))
    p.equal("progress", "epoch_lengths" + at, m["epoch_lengths"], state.changes)
    p.equal("progress", "max_iters" + at, m["max_iters"], state.max_iters)
    p.equal("progress", "validation_pending" + at, m["pending"], state.pending)
    p.equal("steps", "optimizer steps" + at, m["updates"], state.updates)
    p.equal("progress", "samples" + at, m["samples"], state.samples)
    compare_metrics(p, at, m, metrics)
    held = what_is_left.state(path)
    p.equal("progress", "inner_count" + at, held["inner_count"], state.I)
    for param, options in state.current.items():
        if param is None and len(state.groups) < 3:
            continue  # One group is the base group too.
        for option, value in options.items():
            is_ = held["options"].get(param, {}).get(option)
            what = "%s of %s%s" % (option, param or "the base group", at)
            if is_ is None:
                p.add("options", "%s: not there, right is %r" % (what, value))
            else:
                p.close("options", what, is_, value, RATE, 1e-15)
    for param, right in state.weights.items():
        is_ = what_is_left.tensors(path + "/model.safetensors").get(param)
        scale = max(abs(x) for x in right)
        for a, b in zip(is_ or [math.inf] * len(right), right):
            p.close("weights", "an element of %s%s" % (param, at), a, b, LOSS,
                    LOSS * scale + 1e-5)
    return held


def compare_run(p, before, work_dir, code, log, out, folder, by_epoch, verbose):
    """before: log folders, manifests of checkpoints, and published copies, that
    were there before it."""
    if out.refused is not None:
        p.equal("refusals", "exit code of a refused change", code, 4)
        if out.refused and not any(name in log for name in out.refused):
            named = sorted(n for n in what_is_left.checkpoints(work_dir) if n in log)
            p.add("names", "names %s, nearest at a border is %s" % (named, out.refused))
        return [], {}
    if code:
        last = [line for line in log.splitlines() if " - ERROR - " in line] or [log[-500:]]
        p.add("failures", "exit code %d: %s" % (code, last[-1]))
        return [], {}
    new = sorted(what_is_left.log_folders(work_dir) - before[0])
    rows, evaluations = what_is_left.records(new[0]) if new else ([], [])
    compare_records(p, out, rows, by_epoch)
    compare_validations(p, out, evaluations)
    p.equal("saves", "saves", what_is_left.saves(log),
            [(s["count"], s["unit"]) for s in out.saves])
    there = what_is_left.checkpoints(work_dir)
    p.equal("saves", "checkpoints there", sorted(there), sorted(folder.checkpoints))
    if folder.last:
        try:
            with open(work_dir + "/last_checkpoint") as f:
                p.equal("saves", "last_checkpoint", f.read().strip(), folder.last)
        except OSError:
            p.add("saves", "no last_checkpoint, right is " + folder.last)
    written = {s["name"]: s for s in out.saves}
    times = [r["time_now"] for r in rows]
    for name, (state, metrics) in folder.checkpoints.items():
        path = work_dir + "/" + name
        if name not in there:
            continue
        if name in before[1] and name not in written and not name.startswith("best_"):
            if what_is_left.manifest(path)["bytes"] != before[1][name]:
                p.add("saves", name + " is rewritten")
            continue
        held = compare_checkpoint(p, path, name, state, metrics, by_epoch)
        save = written.get(name)
        if save and save["iterations"]:
            mean = sum(times[:save["iterations"]]) / save["iterations"]
            p.close("eta", "eta in " + name, held["eta"],
                    (save["max_iters"] - save["I"]) * mean, 1e-6, 1e-9)
    copies = what_is_left.published(work_dir)
    new = copies - before[2]
    for name in out.published:  # One that was there before is the same again.
        if name not in {c[:-9] for c in copies}:
            p.add("published", "no copy of %s, there are %s" % (name, sorted(copies)))
    for name in sorted(new) if rows else ():
        if name[:-9] not in out.published:
            p.add("published", name + " is there and shouldn't be")
        compare_metrics(p, " in " + name, what_is_left.manifest(work_dir + "/" + name),
                        out.published.get(name[:-9], {}))
    lines = what_is_left.warnings(log)
    for words in out.warnings + out.silent:
        found = [line for line in lines
                 if all(w in line.split(" - WARNING - ")[1] for w in words)]
        p.equal("warnings", "lines of warning with %s" % words, len(found),
                0 if words in out.silent else 1)
    if verbose:
        for line in lines:
            print("  " + line)
    return rows, {}


def same_bits(p, parent, rows):
    """Where nothing that matters was changed, nothing moves by a bit."""
    for row in rows:
        old = parent.get(row["iter"])
        for key in ("lr", "base_lr", "loss_now"):
            if old and old.get(key) != row.get(key) and not (
                    old.get(key) != old.get(key)):
                p.add("bits", "%s at iter %d: is %r, was %r in the run it goes on with" %
                      (key, row["iter"], row.get(key), old.get(key)))


def run_plan(world, plan, work, verbose=False):
    """The problems of a plan, of its first run that has any."""
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    with open(work + "/plan.json", "w") as f:
        json.dump(plan, f, indent=1)
    runs = []  # Work dir, folder, records by iteration, checkpoints of its own.
    for k, step in enumerate([None] + plan["steps"]):
        config = step["config"] if step else plan["config"]
        world.write_data(work, config)
        text = "c%d.textproto" % k
        with open(work + "/" + text, "w") as f:
            f.write(config_text.render(config))
        parent = runs[step["of"]] if step else None
        same = step and step["same_dir"]
        name = parent[0] if same else "w%d" % k
        folder = parent[1] if same else oracle.Folder()
        args = [text, "--work-dir", name]
        if step:
            args.append("--resume=%s/%s" % (parent[0], step["from"]))
        work_dir = work + "/" + name
        before = (what_is_left.log_folders(work_dir),
                  {c: what_is_left.manifest(work_dir + "/" + c)["bytes"]
                   for c in what_is_left.checkpoints(work_dir)},
                  what_is_left.published(work_dir))
        code, log = world.run(work, args)
        with open(work + "/log%d" % k, "w") as f:
            f.write(log)
        old = dict(folder.checkpoints)
        run = world.oracle(config, folder)
        if step:
            state = parent[1].checkpoints[step["from"]][0]
            out = run.resume(state, parent[1])
        else:
            out = run.start(world.weights(config))
        p = Problems()
        if verbose:
            print("run %d: %s" % (k, step["change"] if step else "first"))
        rows, _ = compare_run(p, before, work_dir, code, log, out, folder,
                              config["train"]["by_epoch"], verbose)
        if step and step["change"] in random_plans.HARMLESS and (
                step["from"] in parent[3]):
            same_bits(p, parent[2], rows)
        if p.found:
            return [("run %d%s" % (k, ", resumed from %s, %s changed" % (
                step["from"], step["change"]) if step else ""), kind, text)
                for kind, text in p.found]
        # A refused run has no number: later ones go on from those before it.
        if out.refused is None:
            saved = {n for n, c in folder.checkpoints.items() if old.get(n) is not c}
            runs.append((name, folder, {r["iter"]: r for r in rows}, saved))
    shutil.rmtree(work)
    return []


def simpler(plan):
    """Plans with one thing less, for all of the runs."""
    if len(plan["steps"]) > 1:
        yield dict(plan, steps=plan["steps"][:-1])
    if not plan["steps"]:
        return

    def all_of(edit):
        q = copy.deepcopy(plan)
        for c in [q["config"]] + [s["config"] for s in q["steps"]]:
            try:
                edit(c)
            except (KeyError, IndexError):
                return None
        return q if q != plan else None

    def put(**values):
        return lambda c: c.update(values)

    def put_in(part, **values):
        return lambda c: c[part].update(values)

    edits = [put(ema=None), put(schedules=[]), put(auto_scale=None), put(loss={}),
             put_in("checkpoint", save_best=None), put_in("checkpoint", keep=-1),
             put_in("checkpoint", published=False),
             put_in("checkpoint", save_begin=0), put_in("checkpoint", save_last=True),
             put_in("optim", accum=1, by_samples=False), put_in("optim", by_samples=False),
             put_in("optim", clip=None), put_in("optim", rules=[]),
             put_in("optim", bias_lr_mult=1.0), put_in("optim", weight_decay=0.0),
             put_in("optim", kind="sgd", momentum=0.0), put_in("optim", momentum=0.0),
             put_in("data", drop_last=False), put_in("data", masked=False),
             put_in("data", workers=0), put_in("data", infinite=False),
             put(model="linear"), put(window=1), put_in("train", val_begin=1),
             put_in("train", val_interval=1)]
    edits += [lambda c, i=i: c["schedules"].pop(i) for i in range(3)]
    if not any(s["kind"] == "reduce_on_plateau" for s in plan["config"]["schedules"]):
        edits.append(lambda c: c.update(val=None) or c["checkpoint"].update(save_best=None))
    for i in range(3):
        for key in ("begin", "end", "param_name", "three_phase", "anneal_strategy"):
            edits.append(lambda c, i=i, key=key: c["schedules"][i].pop(key, None))
    for edit in edits:
        q = all_of(edit)
        if q:
            yield q
    for i, step in enumerate(plan["steps"]):
        if step["same_dir"]:
            q = copy.deepcopy(plan)
            q["steps"][i]["same_dir"] = False
            yield q


def shrink(world, plan, problems, work):
    """The smallest plan found where the same kind of thing is wrong."""
    kinds = {kind for _, kind, _ in problems}
    going_on = True
    while going_on:
        going_on = False
        for q in simpler(plan):
            try:
                found = run_plan(world, q, work)
            except (KeyError, IndexError, ZeroDivisionError):
                continue  # A checkpoint that isn't there any more.
            if kinds & {kind for _, kind, _ in found}:
                plan, problems, going_on = q, found, True
                break
    run_plan(world, plan, work)
    return plan, problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="?", default=os.environ.get("GRAPNEL"))
    parser.add_argument("--plans", type=int,
                        default=int(os.environ.get("RESUME_ORACLE_PLANS", 30)))
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--work", default=os.environ.get("TEST_TMPDIR"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--plan", help="a plan.json of a failure: only it")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--warnings", action="store_true")
    parser.add_argument("--ignore", default="", help="kinds of what may be wrong")
    parser.add_argument("--changes", help="only these, such as lr,batch")
    parser.add_argument("--plain-loss", action="store_true",
                        help="no class weights and no ignored targets")
    args = parser.parse_args()
    random_plans.PLAIN_LOSS = args.plain_loss
    if args.changes:
        random_plans.CHANGES = args.changes.split(",")
    Problems.ignored = tuple(args.ignore.split(","))
    work = os.path.abspath(args.work or tempfile.mkdtemp(prefix="resume_oracle"))
    os.makedirs(work, exist_ok=True)
    for old in os.listdir(work):
        if old.startswith("initial-"):
            shutil.rmtree(os.path.join(work, old))
    world = World(args.program, work)
    for model in ("linear", "mlp"):  # Before there are threads.
        for seed in (1, 2, 3):
            world.weights({"model": model, "seed": seed, "window": 10})
    if args.plan:
        with open(args.plan) as f:
            plans = [json.load(f)]
    else:
        plans = [random_plans.draw(seed, world)
                 for seed in range(args.first, args.first + args.plans)]

    def one(plan):
        folder = "%s/plan-%d" % (work, plan["seed"])
        problems = run_plan(world, plan, folder, args.warnings)
        if problems and args.shrink:
            small = shrink(world, plan, problems, folder + "-small")
            with open(folder + "-small/plan.json", "w") as f:
                json.dump(small[0], f, indent=1)
            return plan, problems, small
        return plan, problems, None

    failed, changes = 0, {}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for plan, problems, small in pool.map(one, plans):
            for step in plan["steps"]:
                changes[step["change"]] = changes.get(step["change"], 0) + 1
            if problems:
                failed += 1
                print("plan %d (%s/plan-%d):" % (plan["seed"], work, plan["seed"]))
                for where, kind, text in problems:
                    print("  %s: %s: %s" % (where, kind, text))
                if small:
                    print("  smaller:")
                    for where, kind, text in small[1]:
                        print("    %s: %s: %s" % (where, kind, text))
                sys.stdout.flush()
    print("%d plans, %d wrong; resumes with a change: %s" % (
        len(plans), failed, ", ".join("%s %d" % c for c in sorted(changes.items()))))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
