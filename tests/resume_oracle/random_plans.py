"""Random plans: a config, and one or two resumes with one thing changed.

A plan is {"config": ..., "steps": [...]}, plain JSON. A step resumes from the
checkpoint "from" of run number "of" (0 is the first), in that run's folder if
"same_dir", with "config" in place of the old one; "change" says what is new.
"""
import copy
import random

import oracle

CHANGES = ["none", "batch", "batch", "batch", "size", "size", "drop_last", "drop_last",
           "max", "max", "lr", "lr", "weight_decay", "slots", "lr_mult", "auto_scale",
           "schedule", "schedule", "window", "keep", "workers"]
# Nothing of these moves a rate or a loss.
HARMLESS = ("none", "window", "keep", "workers")

IN_THE_DATA = ("batch", "size", "drop_last")

PLAIN_LOSS = False  # Neither class weights nor ignored targets.


def number(rng, a, b):
    return float("%.3g" % rng.uniform(a, b))


def draw_config(rng):
    by_epoch = rng.random() < 0.65
    model = rng.choice(["linear", "mlp"])
    loss = {}
    if rng.random() < 0.3:
        loss["class_weight"] = [number(rng, 0.2, 2) for _ in range(3)]
    masked = rng.random() < 0.15
    if masked:
        loss["ignore_index"] = 255
    elif rng.random() < 0.15:
        loss["ignore_index"] = 2
    if PLAIN_LOSS:
        masked, loss = False, {}
    data = {"size": rng.randint(8, 30), "batch": rng.randint(2, 9), "masked": masked,
            "infinite": not by_epoch and rng.random() < 0.3,
            "drop_last": False, "workers": rng.choice([0, 0, 1])}
    data["drop_last"] = not data["infinite"] and rng.random() < 0.15
    data["batch"] = min(data["batch"], data["size"] // 2)
    if data["infinite"]:  # A pass ends with a batch now and then.
        data["size"] = rng.choice([4, 6, 8, 9, 10]) * data["batch"] // 2
    n = oracle.batches_per_epoch(data)
    val = None
    if rng.random() < 0.7:
        val = {"size": rng.randint(5, 20), "batch": rng.randint(2, 9)}
    maximum = rng.randint(3, 6) if by_epoch else rng.randint(10, 30)
    train = {"by_epoch": by_epoch, "max": maximum,
             "val_begin": rng.randint(1, 2) if by_epoch else rng.randint(1, 6),
             "val_interval": rng.randint(1, 3) if by_epoch else rng.randint(2, 8)}
    optim = draw_optim(rng, model)
    config = {"model": model, "seed": rng.randint(1, 3), "loss": loss, "data": data,
              "val": val, "train": train, "optim": optim, "auto_scale": None,
              "schedules": []}
    if rng.random() < 0.2:
        config["auto_scale"] = rng.choice([2, 4, 8])
    config["schedules"] = draw_schedules(rng, config, n)
    if any(s["kind"] == "reduce_on_plateau" for s in config["schedules"]):
        train.update(max=rng.randint(4, 6), val_begin=1, val_interval=1)
    ckpt_by_epoch = by_epoch and rng.random() < 0.55
    config["checkpoint"] = {
        "by_epoch": ckpt_by_epoch,
        "interval": rng.choice([1, 1, 1, 2]) if ckpt_by_epoch else rng.randint(1, 7),
        "save_last": rng.random() < 0.85, "save_begin": 0, "keep": -1,
        "save_best": None, "published": rng.random() < 0.15}
    if not ckpt_by_epoch and rng.random() < (0.7 if data["infinite"] else 0.25):
        config["checkpoint"]["interval"] = n
    if rng.random() < 0.2:
        config["checkpoint"]["save_begin"] = rng.randint(1, 3)
    if rng.random() < 0.3:
        config["checkpoint"]["keep"] = rng.randint(1, 4)
    if val and rng.random() < 0.4:
        config["checkpoint"]["save_best"] = rng.choice(["loss", "accuracy/top1"])
    if rng.random() < 0.12:  # So that half-filled windows are saved.
        optim["accum"] = rng.randint(4, 6)
        config["checkpoint"].update(by_epoch=False, interval=1, save_begin=0, keep=-1)
    elif rng.random() < 0.2:  # Also of the inside of epochs.
        config["checkpoint"].update(by_epoch=False, interval=1, save_begin=0)
    config["window"] = rng.choice([1, 2, 3, 5, 10, 12, 15])
    config["ema"] = draw_ema(rng, config) if rng.random() < 0.3 else None
    return config


def draw_optim(rng, model):
    kind = rng.choice(["sgd", "sgd", "adamw", "adam"])
    optim = {"kind": kind, "accum": 1, "by_samples": False, "clip": None, "rules": [],
             "bias_lr_mult": 1.0, "weight_decay": rng.choice([0.0, 0.0, 0.01, 0.1])}
    if kind == "sgd":
        optim["lr"] = number(rng, 0.05, 0.5)
        optim["momentum"] = rng.choice([0.0, 0.0, 0.5, 0.9])
    else:
        optim.update(lr=number(rng, 0.001, 0.03), beta1=rng.choice([0.9, 0.8]),
                     beta2=rng.choice([0.999, 0.9]), amsgrad=rng.random() < 0.3)
    if rng.random() < 0.6:
        optim["accum"] = rng.randint(2, 5)
        optim["by_samples"] = rng.random() < 0.4
    if rng.random() < 0.15:
        optim["clip"] = number(rng, 0.1, 1)
    if rng.random() < 0.35:
        optim["rules"] = draw_rules(rng, model)
    if rng.random() < 0.15:
        optim["bias_lr_mult"] = 2.0
    return optim


def draw_rules(rng, model):
    pattern = rng.choice(["body", "head"] if model == "mlp" else ["weight", "bias"])
    rule = {"pattern": pattern, "lr_mult": rng.choice([0.0, 0.1, 0.5, 1.0, 2.0])}
    if rng.random() < 0.3:
        rule["decay_mult"] = 0.5
    return [rule]


def draw_ema(rng, config):
    kind = rng.choice(["exponential_moving_average", "stochastic_weight_average",
                       "momentum_annealing_ema"])
    ema = {"type": kind, "interval": rng.choice([1, 1, 2, 3])}
    if kind != "stochastic_weight_average":
        ema["momentum"] = number(rng, 0.05, 0.4)
    if kind == "momentum_annealing_ema":
        ema["gamma"] = number(rng, 2, 20)
    if rng.random() < 0.3:
        ema["begin_iter"] = rng.randint(2, 8)
    elif config["train"]["by_epoch"] and rng.random() < 0.3:
        ema["begin_epoch"] = 2
    return ema


def draw_schedules(rng, config, n):
    found = [draw_schedule(rng, config, n, "lr")
             for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3]))]
    if rng.random() < 0.1:
        found = [draw_lonely(rng, config, n)]
    optim = config["optim"]
    if rng.random() < 0.12 and optim["weight_decay"]:
        found.append(draw_schedule(rng, config, n, "weight_decay"))
    elif rng.random() < 0.12 and optim.get("momentum"):
        found.append(draw_schedule(rng, config, n, "momentum"))
    if config["val"] and config["train"]["by_epoch"] and rng.random() < 0.25:
        monitor = rng.choice(["loss", "accuracy/top1"])
        found.append({"kind": "reduce_on_plateau", "monitor": monitor,
                      "rule": "less" if monitor == "loss" else "greater",
                      "factor": number(rng, 0.2, 0.8), "patience": rng.choice([0, 0, 1]),
                      "threshold": number(rng, 0.0001, 0.2),
                      "cooldown": rng.choice([0, 0, 1])})
    return found


def draw_schedule(rng, config, n, option):
    by_epoch, maximum = config["train"]["by_epoch"], config["train"]["max"]
    clock = (rng.choice(["epoch", "iter", "converted"]) if by_epoch else
             "iter" if config["data"]["infinite"] or rng.random() < 0.92 else
             rng.choice(["epoch", "converted"]))
    length = (maximum if by_epoch and clock != "iter" else
              maximum * n if by_epoch else maximum if clock == "iter" else 1)
    kinds = ["linear", "linear", "cosine_annealing", "constant", "step", "multi_step",
             "exponential", "poly", "cosine_restart"]
    if option == "lr" and not config["auto_scale"] and length >= 2:
        kinds.append("one_cycle")
    s = {"kind": rng.choice(kinds)}
    if clock == "iter":
        s["by_epoch"] = False
    elif clock == "converted":
        s["convert_to_iter_based"] = True
    if option != "lr":
        s["param_name"] = option
    if rng.random() < 0.35:
        s["begin"] = rng.randint(0, max(0, length - 1))
        if rng.random() < 0.1:
            s["begin"] = length + rng.randint(0, 2)  # Does nothing (item 6).
    begin = s.get("begin", 0)
    if rng.random() < 0.5:
        s["end"] = begin + rng.randint(1, max(1, length - begin + 1))
        if rng.random() < 0.1:
            s["end"] = begin + 1
    elif clock == "iter" and by_epoch and rng.random() < 0.5:
        s["end"] = max(begin + 1, length - rng.randint(0, 3))
    span = s.get("end", length) - begin
    steps = lambda: rng.randint(1, max(1, length))
    kind = s["kind"]
    if kind == "linear":
        ends = [number(rng, 0.05, 1), 1.0]
        if rng.random() < 0.5:
            ends.reverse()
        if rng.random() < 0.3:
            ends[ends.index(min(ends))] = 0.0
        s["start_factor"], s["end_factor"] = ends
        if option == "momentum":
            s["start_factor"], s["end_factor"] = 0.5, 1.0
    elif kind == "cosine_annealing":
        if rng.random() < 0.5:
            s["t_max"] = steps()
        if rng.random() < 0.7:
            s.update(rng.choice([{"eta_min": 0.01}, {"eta_min_ratio": 0.1}]))
    elif kind == "constant":
        s["factor"] = rng.choice([0.1, 0.25, 0.9, number(rng, 0.1, 1)])
    elif kind == "step":
        s.update(step_size=max(1, steps() // 2), gamma=rng.choice([0.1, 0.5, 0.9]))
    elif kind == "multi_step":
        s.update(milestones=sorted(rng.randint(0, length)
                                   for _ in range(rng.randint(1, 3))),
                 gamma=rng.choice([0.1, 0.5]))
    elif kind == "exponential":
        s["gamma"] = number(rng, 0.8, 0.99)
    elif kind == "poly":
        s.update(eta_min=rng.choice([0.0, 0.001]), power=rng.choice([0.9, 1.0, 2.0]))
    elif kind == "cosine_restart":
        periods = [max(1, steps() // 2) for _ in range(rng.randint(1, 3))]
        s.update(periods=periods,
                 restart_weights=[rng.choice([1.0, 0.5, 0.7]) for _ in periods])
        s.update(rng.choice([{"eta_min": 0.01}, {"eta_min_ratio": 0.1}]))
    elif kind == "one_cycle":
        s["eta_max"] = config["optim"]["lr"]
        s["anneal_strategy"] = rng.choice(["cos", "linear"])
        if rng.random() < 0.2:
            s["three_phase"] = True
        if span < 1:
            s.pop("begin", None)
    return s


def draw_lonely(rng, config, n):
    """One of the two kinds that are drawn without another but a plateau."""
    while True:
        s = draw_schedule(rng, config, n, "lr")
        if s["kind"] != "exponential":
            continue
        del s["gamma"]
        by_epoch, maximum = config["train"]["by_epoch"], config["train"]["max"]
        length = (maximum * n if by_epoch and not s.get("by_epoch", True) else
                  maximum if by_epoch or not s.get("by_epoch", True) else 1)
        span = s.get("end", length) - s.get("begin", 0)
        if rng.random() < 0.5:
            s.update(kind="inverse_sqrt", warmup_steps=rng.randint(1, max(1, length // 2)))
            if rng.random() < 0.5:
                s["timescale"] = rng.randint(1, length)
        elif span >= 2:
            decay = rng.randint(1, span - 1)
            # Its window must hold its parts, whatever the run's length becomes.
            s.update(kind="warmup_stable_decay", decay_steps=decay,
                     end=s.get("begin", 0) + span,
                     warmup_steps=rng.randint(0, span - decay),
                     min_ratio=rng.choice([0.0, 0.1]),
                     decay_type=rng.choice(["linear", "cosine", "1-sqrt"]))
        else:
            continue
        return s


def draw_change(rng, kind, config):
    """The changed config, or None if it can't be changed so."""
    c = copy.deepcopy(config)
    data, optim, train = c["data"], c["optim"], c["train"]
    if kind == "batch":
        data["batch"] = rng.randint(1, data["size"])
    elif kind == "size":
        data["size"] = rng.randint(max(6, data["batch"]), 36)
    elif kind == "drop_last":
        if data["infinite"]:
            return None
        data["drop_last"] = not data["drop_last"]
        # May change what is left of an epoch and no whole one.
        if (oracle.batches_per_epoch(data) == oracle.batches_per_epoch(config["data"])
                and rng.random() < 0.5):
            return None
    elif kind == "max":
        train["max"] = max(1, train["max"] + rng.randint(-2, 3) *
                           (1 if train["by_epoch"] else 4))
    elif kind == "lr":
        optim["lr"] = float("%.3g" % (optim["lr"] * rng.choice([0.1, 0.5, 2])))
    elif kind == "weight_decay":
        optim["weight_decay"] = rng.choice([0.0, 0.02, 0.1])
        if any(s.get("param_name") == "weight_decay" for s in c["schedules"]):
            optim["weight_decay"] = optim["weight_decay"] or 0.05
    elif kind == "slots":
        if optim["kind"] == "sgd":
            if any(s.get("param_name") == "momentum" for s in c["schedules"]):
                optim["momentum"] = number(rng, 0.5, 0.9)
            else:
                optim["momentum"] = rng.choice([0.0, 0.8, 0.9]) if optim["momentum"] else 0.9
        elif rng.random() < 0.7:
            optim["amsgrad"] = not optim["amsgrad"]
        else:
            optim["beta1"] = rng.choice([0.5, 0.7, 0.85])
    elif kind == "lr_mult":
        if rng.random() < 0.5 and optim["rules"]:
            optim["rules"][0]["lr_mult"] = rng.choice([0.0, 0.3, 1.0, 3.0])
        else:
            optim["rules"] = draw_rules(rng, c["model"])
    elif kind == "auto_scale":
        if any(s["kind"] == "one_cycle" for s in c["schedules"]):
            return None
        c["auto_scale"] = rng.choice([None, 2, 4, 6, 16])
    elif kind == "schedule":
        edit_schedules(rng, c)
    elif kind == "window":
        c["window"] = rng.choice([1, 4, 8, 20, 25, 30])
    elif kind == "keep":
        c["checkpoint"]["keep"] = rng.choice([-1, 1, 2, 3, 5])
    elif kind == "workers":
        data["workers"] = 2 - data["workers"]
    if data["drop_last"] and data["batch"] > data["size"]:
        return None
    if kind != "none" and c == config:
        return None
    return c


def edit_schedules(rng, c):
    n = oracle.batches_per_epoch(c["data"])
    found = c["schedules"]
    plateau = any(s["kind"] == "reduce_on_plateau" for s in found)
    what = rng.choice(["number", "number", "add", "remove", "clear", "replace"])
    if any(s["kind"] in ("inverse_sqrt", "warmup_stable_decay") for s in found):
        what = rng.choice(["number", "clear"])
    if plateau or not found:
        what = "add" if rng.random() < 0.5 or not found else "number"
    if what == "number":
        s = rng.choice(found)
        names = {"gamma": [0.3, 0.7], "start_factor": [0.2, 0.6], "factor": [0.3, 0.7],
                 "end_factor": [0.4, 0.8], "power": [0.5, 1.5], "step_size": [1, 3],
                 "eta_max": [0.02, 0.2], "t_max": [3, 7], "eta_min": [0.002, 0.02],
                 "eta_min_ratio": [0.05, 0.2], "min_ratio": [0.2, 0.3],
                 "timescale": [2, 5], "end": [s.get("begin", 0) + 2,
                                                        s.get("begin", 0) + 5]}
        if s["kind"] != "reduce_on_plateau":
            key = rng.choice([k for k in names if k in s] or ["end"])
            if s["kind"] != "warmup_stable_decay" or key != "end":
                s[key] = rng.choice(names[key])
    elif what == "add":
        found.append(draw_schedule(rng, c, n, "lr"))
    elif what == "remove":
        found.pop(rng.randrange(len(found)))
    elif what == "clear":
        found.clear()
    else:
        found[rng.randrange(len(found))] = draw_schedule(rng, c, n, "lr")


def draw(seed, world):
    """The plan of a seed. world: initial weights, and samples, by config."""
    for attempt in range(1000):
        rng = random.Random("%d/%d" % (seed, attempt))
        plan = {"seed": seed, "config": draw_config(rng), "steps": []}
        if draw_steps(rng, plan, world):
            return plan
    raise RuntimeError("seed %d gives no plan" % seed)


def draw_steps(rng, plan, world):
    folder = oracle.Folder()
    run = world.oracle(plan["config"], folder)
    if run.start(world.weights(plan["config"])).unsure or not folder.checkpoints:
        return False
    of, config, tries = 0, plan["config"], 0
    wanted = 2 if rng.random() < 0.6 else 1
    while len(plan["steps"]) < wanted:
        tries += 1
        if tries > 100:
            return False
        kind = rng.choice(CHANGES)
        if plan["steps"] and plan["steps"][0]["change"] in IN_THE_DATA and rng.random() < 0.4:
            kind = rng.choice([k for k in IN_THE_DATA if k in CHANGES] or CHANGES)
        if plan["steps"] and plan["steps"][0]["change"] == "slots" and rng.random() < 0.7:
            kind = "slots"
        cut = [k for k, (s, _) in folder.checkpoints.items()
               if s.gradients is not None and s.window_size < config["optim"]["accum"]]
        if cut and rng.random() < 0.3:
            kind = "max" if "max" in CHANGES else kind
        changed = draw_change(rng, kind, config)
        if changed is None:
            continue
        names = sorted(folder.checkpoints)
        left = [k for k in names
                if folder.checkpoints[k][0].I < folder.checkpoints[k][0].max_iters]
        if left and kind != "max" and rng.random() < 0.85:
            names = left
        name = rng.choice(names)
        border = {k for k in names if oracle.r1_at_border(
            config["train"]["by_epoch"], folder.checkpoints[k][0])}
        # Mostly where the change is allowed, and where more comes of it.
        liked = ([k for k in names if k in border] if kind == "size" else
                 [k for k in names if k not in border])
        if kind in IN_THE_DATA and liked and rng.random() < 0.8:
            name = rng.choice(liked)
        # Rarely come across: an epoch that was shared out before, a ring that is
        # too short, a half-filled window that the run's end cut, slots that come
        # back, a metric's moves.
        states = {k: folder.checkpoints[k][0] for k in names}
        shared = [k for k in liked if states[k].end != states[k].data["n"]]
        if kind in IN_THE_DATA and shared and rng.random() < 0.7:
            name = rng.choice(shared)
        if kind == "window" and rng.random() < 0.8:
            name = sorted(names, key=lambda k: states[k].I)[-2:][0]
        if kind in ("max", "batch") and cut and rng.random() < 0.7:
            name = rng.choice(cut)
        moved = [k for k, s in states.items() if any(s.moves)]
        if kind in ("max", "lr", "lr_mult") and moved and rng.random() < 0.7:
            name = rng.choice(moved)
        same = rng.random() < 0.25
        target = copy.deepcopy(folder) if same else oracle.Folder()
        run = world.oracle(changed, target)
        out = run.resume(folder.checkpoints[name][0], target if same else folder)
        if out.unsure:
            continue
        if not out.refused and not out.records and rng.random() < 0.85:
            continue  # Little is seen where nothing is left.
        plan["steps"].append({"of": of, "from": name, "same_dir": same,
                              "change": kind, "config": changed})
        if out.refused is not None:
            continue
        if not target.checkpoints:
            break
        of, config, folder = len(plan["steps"]), changed, target
    return True
