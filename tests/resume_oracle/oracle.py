"""What must happen in a run, and after a change between two runs.

Plain Python with nothing of Grapnel in it. Words, as in the rules: E epochs
done; q iterations done in the current one; I iterations done in all; n batches
per epoch now; r batches left of the epoch under way; M max_epochs. A run by
iteration is one epoch of passes; q is then the position in the pass. A function
names the rule that it is. "Decision" marks what the rules leave open.

A config is a dictionary, as random_plans.py draws it. State is what a
checkpoint holds, Folder a work_dir, Outcome what a run shows.
"""
import copy
import math

import schedules
import training


class State:
    """What a checkpoint holds. Copied whole at each save."""

    def __init__(self, weights):
        self.E = self.q = self.I = 0
        self.lengths = []        # Of the epochs (passes) done, as they were.
        self.end = 0             # q at the end of the epoch (pass) under way.
        self.given = 0           # Samples of it that were trained.
        self.passes = 0          # Before it, in a run by iteration.
        self.data = None         # data_facts() of the run that saved.
        self.changes = []        # Where lengths began, as the manifest has them.
        self.max_iters = 0
        self.weights = weights   # Of each parameter, a flat list.
        self.slots = {}          # Of each parameter, by name.
        self.groups = []         # Of parameters; the base group is [None].
        self.configured = {}     # Of each parameter, and of None, the base group.
        self.current = {}        # Likewise.
        self.schedules = []      # Resolved.
        self.plateaus = []       # One a schedule, of those with a monitor.
        self.moves = []          # Likewise: epochs after which a metric moved it.
        self.window_begin = 0
        self.window_size = 0
        self.gradients = None    # Of a half-filled window; None: empty.
        self.window_weight = 0.0
        self.updates = self.samples = 0
        self.losses = []         # The ring that means are taken of.
        self.ema = None
        self.kept = []           # Count towards max_keep_ckpts.
        self.best = None         # Score and name.
        self.pending = False     # A validation is due at this point.


class Folder:
    """A work_dir: its checkpoints, and the best one that a file beside them
    tells of."""

    def __init__(self):
        self.checkpoints = {}    # Name to (State, metrics).
        self.best = None
        self.last = None


class Outcome:
    """What a run shows."""

    def __init__(self):
        self.refused = None      # Or: names of checkpoints to name, the nearest.
        self.records = []        # Of iterations.
        self.validations = []
        self.saves = []          # Periodic and last ones, in order.
        self.published = {}      # Name without its digest to metrics.
        self.warnings = []       # Texts that one line of warning has all of.
        self.silent = []         # Texts that no line of warning has all of.
        self.unsure = False      # float32 could have decided otherwise.


# Data and lengths.


def batches_per_epoch(data):
    return batches_behind(data, 0)


def batches_behind(data, given):
    """R1: batches of what is left of an epoch, as of a whole one."""
    left = data["size"] - given
    if data["drop_last"]:
        return left // data["batch"]
    return -(-left // data["batch"])


def data_facts(config):
    """What the position in the data depends on."""
    d = config["data"]
    return {"size": d["size"], "batch": d["batch"], "infinite": d["infinite"],
            "n": batches_per_epoch(d)}


def batch_at(config, state, samples):
    """The samples of the next iteration: those behind the last one given. The
    order is that of the files."""
    d = config["data"]
    if d["infinite"]:
        return [samples[(state.given + i) % d["size"]] for i in range(d["batch"])]
    return samples[state.given:min(state.given + d["batch"], d["size"])]


def r1_at_border(by_epoch, state):
    """R1: where another dataset or order may come."""
    if by_epoch:
        return state.q in (0, state.end)
    return state.given == 0


def r1_refused(by_epoch, state, facts):
    """R1: batch size and drop_last may change anywhere."""
    return (any(facts[key] != state.data[key] for key in ("size", "infinite")) and
            not r1_at_border(by_epoch, state))


def r1_nearest(by_epoch, folder, state):
    """R1: the names of the checkpoints at a border that are nearest.

    Decision: nearest by iterations, before or after; any of those as near.
    """
    at = {name: abs(s.I - state.I) for name, (s, _) in folder.checkpoints.items()
          if r1_at_border(by_epoch, s)}
    return [name for name, far in at.items() if far == min(at.values())]


def r2_max_iters(by_epoch, maximum, E, r, I, n):
    """R2. Of a complete epoch r is 0."""
    return I + r + (maximum - E - 1) * n if by_epoch else maximum


def due(count, begin, interval, last):
    """Whether a validation is due, by epoch by E, by iteration by I (R5)."""
    return count >= begin and (count % interval == 0 or count == last)


def save_due(checkpoint, count, is_last):
    """R5: whether a periodic checkpoint is due; save_last at the run's end."""
    interval, begin = checkpoint["interval"], checkpoint["save_begin"]
    return (interval > 0 and count >= begin and (count - begin) % interval == 0
            or checkpoint["save_last"] and is_last)


# Settings of the optimizer.


def multipliers(config, name):
    """lr_mult and decay_mult of a parameter: the first rule that matches."""
    o = config["optim"]
    for rule in o["rules"]:
        if rule["pattern"] in name:
            return rule.get("lr_mult", 1.0), rule.get("decay_mult", 1.0)
    return o["bias_lr_mult"] if name.endswith("bias") else 1.0, 1.0


def configured_options(config, params):
    """4.1: of each parameter, and of the base group (None), the option values
    after lr_mult, decay_mult and auto_scale_lr."""
    o = config["optim"]
    base = {"lr": o["lr"], "weight_decay": o["weight_decay"]}
    if o["kind"] == "sgd":
        if o["momentum"]:
            base["momentum"] = o["momentum"]
    else:
        base.update(beta1=o["beta1"], beta2=o["beta2"], eps=1e-8)
    if config["auto_scale"]:
        base["lr"] *= config["data"]["batch"] / config["auto_scale"]
    out = {None: base}
    for name in params:
        lr_mult, decay_mult = multipliers(config, name)
        out[name] = dict(base, lr=base["lr"] * lr_mult,
                         weight_decay=base["weight_decay"] * decay_mult)
    return out


def groups_of(config, params):
    """Parameters with the same multipliers, in the order of their first; the
    base group is the last. Its rate is logged if there are others beside one."""
    groups = {}
    for name in params:
        groups.setdefault(multipliers(config, name), []).append(name)
    return list(groups.values()) + [[None]]


def settle_options(state, groups, configured, resolved, replay):
    """4.1 to 4.5 and R3: the current values after a resume.

    replay(option, base): that option's schedules from a base to their clocks'
    present values. Decision: a schedule that was added, or one of a list that
    was edited, is replayed from step 0 with the others of its option.
    """
    current = {name: {} for name in configured}
    for option in configured[None]:
        old = [schedules.settings(s) for s in state.schedules
               if s["param_name"] == option]
        new = [schedules.settings(s) for s in resolved if s["param_name"] == option]
        for group in groups:
            base = configured[group[0]][option]
            was = {state.configured.get(p, {}).get(option) for p in group}
            now = {state.current.get(p, {}).get(option) for p in group}
            keep = was == {base} and len(now) == 1  # 4.3
            if keep and (new == old or not new):
                value = now.pop()  # 4.2, 4.5: its bits stay.
            elif new:
                value = replay(option, base)  # 4.2, R3
            else:
                value = base  # 4.2, 4.5
            for p in group:
                current[p][option] = value
    return current


def settle_slots(config, slots):
    """4.4: slots no longer needed are dropped; others start fresh by not being
    there."""
    o = config["optim"]
    needed = ({"momentum_buffer"} if o["kind"] == "sgd" and o["momentum"] else
              set() if o["kind"] == "sgd" else
              {"step", "exp_avg", "exp_avg_sq"} |
              ({"max_exp_avg_sq"} if o["amsgrad"] else set()))
    return {p: {k: v for k, v in s.items() if k in needed}
            for p, s in slots.items()}


def r4_window_size(counts, window_begin, max_iters):
    """R4: updates of the window: accumulative_counts, or up to max_iters."""
    return min(counts, max_iters - window_begin)


# The run.


class Run:
    def __init__(self, config, samples, val_samples, folder):
        self.config, self.folder = config, folder
        self.samples, self.val_samples = samples, val_samples
        self.by_epoch = config["train"]["by_epoch"]
        self.maximum = config["train"]["max"]
        self.n = batches_per_epoch(config["data"])
        self.out = Outcome()
        self.iterations = 0  # Of this process.
        self.metrics, self.validated_at = {}, None
        self.complete = False  # R1: resumed where an epoch lacks its end alone.

    # Setup.

    def start(self, weights):
        """A fresh start."""
        s = self.s = State(copy.deepcopy(weights))
        s.data = data_facts(self.config)
        s.end = self.n
        s.changes = [(0, 0, self.n, 0, 0)]
        s.max_iters = r2_max_iters(self.by_epoch, self.maximum, 0, self.n, 0, self.n)
        self.resolve()
        s.schedules = self.resolved
        s.configured = configured_options(self.config, weights)
        s.groups = groups_of(self.config, weights)
        s.current = copy.deepcopy(s.configured)
        for option in s.configured[None]:
            for p in s.configured:
                s.current[p][option] = self.replay(option, s.configured[p][option])
        self.open_window()
        self.train()
        return self.out

    def resume(self, state, from_folder):
        """Go on from a checkpoint's state, with this config."""
        s = self.s = copy.deepcopy(state)
        facts = data_facts(self.config)
        if r1_refused(self.by_epoch, s, facts):
            self.out.refused = r1_nearest(self.by_epoch, from_folder, s)
            return self.out
        changed = self.share_out(facts)
        old_max_iters = s.max_iters
        s.max_iters = r2_max_iters(self.by_epoch, self.maximum, s.E, s.end - s.q,
                                   s.I, self.n)
        self.resolve()
        for x in self.resolved:
            # R3: a window of literal iterations keeps its state. One that begins
            # beyond the end has the warning of item 6 instead.
            if (x["clock"] == "iter" and x.get("literal_end") and changed and
                    x["begin"] < s.max_iters < x["end"] <= old_max_iters):
                self.out.warnings.append([str(x["end"]), "beyond", str(s.max_iters)])
        configured = configured_options(self.config, s.weights)
        s.groups = groups_of(self.config, s.weights)
        s.current = settle_options(s, s.groups, configured, self.resolved, self.replay)
        s.configured, s.schedules = configured, self.resolved
        s.slots = settle_slots(self.config, s.slots)
        self.go_on_with_window()
        if from_folder is not self.folder:
            # Checkpoints of another folder aren't rotated; the score is to beat.
            s.kept = []
            s.best = s.best and (s.best[0], "")
        else:
            # Those of before count, also if none were to be deleted then.
            there = {name: c.I for name, (c, _) in self.folder.checkpoints.items()
                     if not name.startswith("best_") and c.I <= s.I}
            s.kept = sorted(there, key=there.get)
            s.best = self.folder.best or s.best
        self.rotate()
        self.train()
        return self.out

    def share_out(self, facts):
        """R1: what is left of the epoch (pass), in batches of now. Whether that
        changed anything.

        Decision: an epoch whose batches were all given has none left, even where
        drop_last left samples that smaller batches would hold. drop_last that
        changes what is left alone, and no whole epoch, may have a warning.
        """
        s, old = self.s, self.s.data
        s.data = facts
        inside = not r1_at_border(self.by_epoch, s)
        r = batches_behind(self.config["data"], s.given) if inside else 0
        over = inside and r == 0
        # An infinite sampler's passes end inside batches.
        changed = facts != old or inside and not facts["infinite"] and (
            r != s.end - s.q)
        if facts != old:
            self.out.warnings.append(["train_dataloader"] + [
                "%d samples in %d batches of %d" % (x["size"], x["n"], x["batch"])
                for x in (old, facts)])
        elif not changed:
            self.out.silent.append(["train_dataloader"])
        if not changed:
            self.complete = self.by_epoch and s.q == s.end
            return False
        if s.q == 0:
            s.end = self.n
        elif inside:
            s.end = s.q + r
        # R1: the epoch is complete, what comes after it is still to be done.
        self.complete = self.by_epoch and s.q == s.end
        if over and not self.by_epoch:
            self.next_pass()
        if s.changes[-1][1] == s.I:
            s.changes.pop()
        begun = s.E + self.complete if self.by_epoch else s.passes
        s.changes.append((begun, s.I, self.n) + (
            (s.given, r) if inside and not over else (0, 0)))
        return True

    def resolve(self):
        """The schedules in steps, with the state of those with a monitor."""
        s = self.s
        self.resolved = [
            schedules.resolve(x, self.by_epoch, self.maximum, s.max_iters, self.n)
            for x in self.config["schedules"]]
        while len(s.plateaus) < len(self.resolved):
            s.plateaus.append({"best": None, "bad": 0, "cooldown": 0})
            s.moves.append([])

    def replay(self, option, base):
        """R3, to the clocks' present values: E, I, and S."""
        s = self.s
        chosen = [i for i, x in enumerate(self.resolved)
                  if x["param_name"] == option]
        # The epoch has its new length on the converted clock.
        q = (s.q, self.converted_clock() - len(s.lengths) * self.n)
        return schedules.replay([self.resolved[i] for i in chosen],
                                [s.moves[i] for i in chosen], base,
                                s.lengths, self.n, q, self.by_epoch)

    def converted_clock(self):
        """R3: S = E n + q, which in an epoch of two lengths is (E + 1) n - r.
        Decision: by iteration, E is passes done here, since a converted window
        is one of passes; an infinite sampler's are as if they never ended."""
        s = self.s
        if self.config["data"]["infinite"]:
            return s.q
        return (len(s.lengths) + 1) * self.n - (s.end - s.q)

    def open_window(self):
        s = self.s
        s.window_begin, s.gradients, s.window_weight = s.I, None, 0.0
        s.window_size = r4_window_size(self.config["optim"]["accum"], s.I,
                                       s.max_iters)

    def go_on_with_window(self):
        """R4: a half-filled window goes on: gradients times old / new size;
        SAMPLES by weights, so they stay."""
        s = self.s
        if s.gradients is None:
            return self.open_window()
        size = r4_window_size(self.config["optim"]["accum"], s.window_begin,
                              s.max_iters)
        if not self.config["optim"]["by_samples"] and size > 0:
            s.gradients = {k: [g * s.window_size / size for g in v]
                           for k, v in s.gradients.items()}
        s.window_size = size

    # The loop.

    def train(self):
        s = self.s
        if s.pending:
            self.validate()
        if self.by_epoch:
            if self.complete:
                self.after_epoch()
            while s.E < self.maximum:
                while s.q < s.end:
                    self.iteration()
                self.after_epoch()
        else:
            while s.I < s.max_iters:
                self.iteration()
                if s.pending:
                    self.validate()
        # R5: nothing left: exit 0, nothing rewritten.
        if self.config["checkpoint"].get("published") and self.iterations:
            self.publish()

    def publish(self):
        """5: copies of the last checkpoint (if save_last) and of the best, made
        when training has ended, so after their validations. The last one's are
        its own if that validation was of this point."""
        folder = self.folder
        if self.config["checkpoint"]["save_last"]:
            self.out.published[folder.last] = (
                self.metrics if self.validated_at == self.s.I else {})
        if self.s.best and self.s.best[1]:
            name = self.s.best[1]
            self.out.published[name] = folder.checkpoints[name][1]

    def iteration(self):
        s, config = self.s, self.config
        o = config["optim"]
        record = {"lr": s.current[s.groups[0][0]]["lr"]}
        if len(s.groups) > 2:
            record["base_lr"] = s.current[None]["lr"]
        batch = batch_at(config, s, self.samples)
        loss, grads, weight = training.loss_and_gradients(
            config["model"], s.weights, batch, config["loss"])
        s.q += 1
        s.I += 1
        s.given += len(batch)
        self.update(grads, weight)
        s.samples += len(batch)
        self.iterations += 1
        # 6: means of what is kept, until more came. The ring keeps 10 at least.
        s.losses = (s.losses + [loss])[-max(10, config["window"]):]
        mean = s.losses[-config["window"]:]
        record.update(loss_now=loss, loss=sum(mean) / len(mean), iter=s.I)
        if self.by_epoch:
            record["epoch"] = s.E + 1
        self.out.records.append(record)
        self.average()
        self.step_schedules({"iter": s.I, "converted": self.converted_clock()})
        if config["data"]["infinite"]:
            s.passes += s.given // config["data"]["size"]
            s.given %= config["data"]["size"]
        elif not self.by_epoch and s.q == s.end:
            self.next_pass()
        s.pending = (not self.by_epoch and self.validates(s.I))
        checkpoint = config["checkpoint"]
        if not checkpoint["by_epoch"] and save_due(checkpoint, s.I,
                                                   s.I == s.max_iters):
            self.save(s.I, "iter")

    def next_pass(self):
        s = self.s
        s.lengths.append(s.q)
        s.passes += 1
        s.q, s.given, s.end = 0, 0, self.n

    def update(self, grads, weight):
        """R4: one Update, and a step if it ends the window. inner_count is I."""
        s, o = self.s, self.config["optim"]
        by_weight = o["by_samples"] and o["accum"] > 1
        # ITERATIONS: the mean of means. SAMPLES: the sum, divided at the step.
        factor = weight if by_weight else 1 / s.window_size
        grads = {k: [g * factor for g in v] for k, v in grads.items()}
        if s.gradients is not None:
            grads = {k: [a + b for a, b in zip(v, s.gradients[k])]
                     for k, v in grads.items()}
        s.gradients = grads
        s.window_weight += weight
        if s.I < s.window_begin + s.window_size:
            return
        # 2: a window of weight 0 makes no step. Decision: under SAMPLES alone;
        # under ITERATIONS, upstream's, the step has gradients of 0.
        if not by_weight or s.window_weight > 0:
            if by_weight:
                grads = {k: [g / s.window_weight for g in v]
                         for k, v in grads.items()}
            if o["clip"]:
                grads = training.clip(grads, o["clip"])
            training.optimizer_step(o["kind"], s.weights, grads, s.slots, s.current,
                                    o.get("amsgrad"))
            s.updates += 1
        self.open_window()

    def average(self):
        s, config = self.s, self.config["ema"]
        if not config:
            return
        if s.ema is None:
            s.ema = {"steps": 0, "average": None}
        started = (s.E + 1 >= config["begin_epoch"] if config.get("begin_epoch")
                   else s.I >= config.get("begin_iter", 0))
        training.average(config, s.ema, s.weights, started)

    def step_schedules(self, clocks):
        """Steps those of the given clocks, in config order."""
        s = self.s
        for x in self.resolved:
            if x["clock"] in clocks and x["kind"] != "reduce_on_plateau":
                option = x["param_name"]
                for p, options in s.current.items():
                    options[option] = schedules.step(
                        x, clocks[x["clock"]], options[option],
                        s.configured[p][option])

    def after_epoch(self):
        """AfterTrainEpoch, the save and the validation."""
        s, checkpoint = self.s, self.config["checkpoint"]
        self.next_pass()
        s.E += 1
        self.step_schedules({"epoch": s.E})
        s.pending = self.validates(s.E)
        if checkpoint["by_epoch"] and save_due(checkpoint, s.E,
                                               s.I == s.max_iters):
            self.save(s.E, "epoch")
        if s.pending:
            self.validate()

    def validates(self, count):
        t = self.config["train"]
        return bool(self.config["val"]) and due(
            count, t["val_begin"], t["val_interval"],
            self.maximum if self.by_epoch else self.s.max_iters)

    # Validations and checkpoints.

    def validate(self):
        s = self.s
        weights = s.ema["average"] if self.config["ema"] else s.weights
        loss, accuracy, unsure = training.evaluate(
            self.config["model"], weights, self.val_samples, self.config["loss"])
        self.out.unsure |= unsure
        metrics = {"loss": loss, "accuracy/top1": accuracy}
        self.out.validations.append(
            dict(metrics, step=s.E if self.by_epoch else s.I))
        s.pending = False
        self.metrics, self.validated_at = metrics, s.I
        self.plateaus(metrics)
        self.save_best(metrics)

    def plateaus(self, metrics):
        """A schedule with a monitor acts after a validation. Its window counts
        epochs as they end."""
        s = self.s
        for i, x in enumerate(self.resolved):
            if x["kind"] != "reduce_on_plateau":
                continue
            if s.E < x["begin"] or x["end"] is not None and s.E >= x["end"]:
                continue
            p, value = s.plateaus[i], metrics[x["monitor"]]
            bound = None
            if p["best"] is not None:
                relative = x.get("threshold_rule", "rel") == "rel"
                sign = -1 if x.get("rule", "less") == "less" else 1
                th = x.get("threshold", 1e-4)
                bound = p["best"] * (1 + sign * th) if relative else p["best"] + sign * th
                better = sign * value > sign * bound
                self.near(value, bound, x["monitor"])
            else:
                better = not math.isnan(value)
            if better:
                p["best"], p["bad"] = value, 0
            else:
                p["bad"] += 1
            if p["cooldown"] > 0:
                p["cooldown"] -= 1
                p["bad"] = 0
            if p["bad"] > x.get("patience", 10):
                p["cooldown"], p["bad"] = x.get("cooldown", 0), 0
                moved = False
                for options in s.current.values():
                    new = schedules.plateau_move(x, options[x["param_name"]])
                    moved |= new != options[x["param_name"]]
                    options[x["param_name"]] = new
                if moved:
                    s.moves[i].append(s.E)

    def near(self, a, b, metric):
        """Notes a comparison that float32 could have decided otherwise."""
        if metric == "loss" and abs(a - b) < training.UNSURE * max(1, abs(b)):
            self.out.unsure = True

    def save_best(self, metrics):
        s, checkpoint = self.s, self.config["checkpoint"]
        metric = checkpoint["save_best"]
        if not metric:
            return
        value = metrics[metric]
        if s.best:
            self.near(value, s.best[0], metric)
            sign = 1 if metric == "accuracy/top1" else -1
            better = sign * value > sign * s.best[0]
        else:
            better = not math.isnan(value)
        if not better:
            return
        unit, count = ("epoch", s.E) if checkpoint["by_epoch"] else ("iter", s.I)
        name = "best_%s_%s_%d" % (metric.replace("/", "_"), unit, count)
        old, s.best = s.best, (value, name)
        # 5: saved after its validation: its own metrics.
        self.folder.checkpoints[name] = (copy.deepcopy(s), metrics)
        self.folder.best = s.best
        if old and old[1] and old[1] != name:
            self.folder.checkpoints.pop(old[1], None)

    def save(self, count, unit):
        s, folder = self.s, self.folder
        name = "%s_%d" % (unit, count)
        if self.config["checkpoint"]["keep"] > 0:
            if name in s.kept:
                s.kept.remove(name)
            s.kept.append(name)
        # 5: a checkpoint is saved before its validation: no metrics.
        folder.checkpoints[name] = (copy.deepcopy(s), {})
        folder.last = name
        self.out.saves.append({"name": name, "count": count, "unit": unit,
                               "I": s.I, "max_iters": s.max_iters,
                               "iterations": self.iterations})
        self.rotate()

    def rotate(self):
        keep = self.config["checkpoint"]["keep"]
        while 0 < keep < len(self.s.kept):
            self.folder.checkpoints.pop(self.s.kept.pop(0), None)
