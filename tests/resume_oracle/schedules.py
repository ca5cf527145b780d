"""Parameter schedules: one step of each kind, and the replay of a list (R3).

Written from param_scheduler.proto and from the formulas of upstream's
documentation. Formulas go from a value to the next, so that schedules of one
option act on what the others left.
"""
import math

# Settings that count steps, and so are multiplied by n when converted.
IN_STEPS = ("begin", "end", "step_size", "milestones", "t_max", "periods",
            "total_steps", "warmup_steps", "decay_steps", "timescale")


def resolve(schedule, by_epoch, max_epochs, max_iters, n):
    """The schedule with its window in steps of its own clock: "epoch", "iter"
    or "converted". R3: an unset end is M, max_iters or M n."""
    s = dict(schedule)
    s.setdefault("by_epoch", True)
    s.setdefault("param_name", "lr")
    epochs = max_epochs if by_epoch else 1  # A run by iteration is one epoch.
    if s["kind"] == "reduce_on_plateau":
        s.update(clock="epoch", begin=s.get("begin", 0), end=s.get("end"))
        return s
    s["clock"] = ("converted" if s.pop("convert_to_iter_based", False) else
                  "epoch" if s["by_epoch"] else "iter")
    s["literal_end"] = "end" in s
    if s["clock"] == "converted":
        for key in IN_STEPS:
            if key in s:
                s[key] = ([x * n for x in s[key]]
                          if isinstance(s[key], list) else s[key] * n)
    s.setdefault("begin", 0)
    if "end" not in s:
        if s["kind"] == "one_cycle" and "total_steps" in s:
            s["end"] = s["begin"] + s["total_steps"]
        else:
            s["end"] = {"epoch": epochs, "iter": max_iters,
                        "converted": epochs * n}[s["clock"]]
    # 6: one that begins at or beyond the run's end does nothing: its window
    # is empty, or lies where no step goes.
    if s["kind"] == "cosine_annealing":
        s.setdefault("t_max", s["end"] - s["begin"])
    if s["kind"] == "one_cycle":
        s.setdefault("total_steps", s["end"] - s["begin"])
    return s


def settings(s):
    """What is compared to find out whether a schedule was changed: its settings
    in steps, however they were written."""
    return {k: v for k, v in s.items() if k != "literal_end"}


def step(s, g, v, b):
    """The value after the schedule's clock has come to g; v is the value
    before, b the base."""
    kind, t, last = s["kind"], g - s["begin"], s["end"] - s["begin"] - 1
    if kind == "linear":
        f0, f1 = s.get("start_factor", 1 / 3), s.get("end_factor", 1.0)
        if last == 0 and t == 1:
            # 6: a window of one step: the end factor from `end` on.
            return v * f1 / f0 if f0 else b * f1
    if t < 0 or t > last:
        return v
    if kind == "linear":
        if t == 0:
            return v * f0
        if f0 == 0 and t == 1:
            return b * f1 / last  # Nothing multiplies 0 up.
        return v * (1 + (f1 - f0) / (last * f0 + (t - 1) * (f1 - f0)))
    if kind == "constant":
        factor = s.get("factor", 1 / 3)
        if t == 0:
            v = v * factor if last else v  # A window of one step does nothing.
        elif t == last:
            v = v * (1.0 / factor) if factor else b  # 7
        return v
    if kind == "step":
        return v * s.get("gamma", 0.1) if t and t % s["step_size"] == 0 else v
    if kind == "multi_step":
        return v * s.get("gamma", 0.1) ** s["milestones"].count(t)
    if kind == "exponential":
        return v * s["gamma"] if t else v
    if kind == "cosine_annealing":
        return _cosine(t, s["t_max"], v, b, b, _floor(s, b))
    if kind == "cosine_restart":
        weights = s.get("restart_weights", [1.0] * len(s["periods"]))
        for period, weight in zip(s["periods"], weights):
            if t < period:
                if t == 0:
                    return b * weight
                return _cosine(t, period, v, b, b, _floor(s, b))
            t -= period
        return v
    if kind == "poly":
        m = s.get("eta_min", 0.0)
        if t == 0:
            return v
        return (v - m) * (1 - 1 / (last - t + 1)) ** s.get("power", 1.0) + m
    if kind == "one_cycle":
        return _one_cycle(s, t)
    # Parts of b, so from a value to the next by their quotient.
    part = {"warmup_stable_decay": _warmup_stable_decay,
            "inverse_sqrt": _inverse_sqrt}.get(kind)
    if part:
        return v * part(s, t, last + 1) / (part(s, t - 1, last + 1) if t else 1.0)
    raise ValueError(kind)


def _floor(s, b):
    return b * s["eta_min_ratio"] if "eta_min_ratio" in s else s.get("eta_min", 0.0)


def _cosine(t, period, v, b, top, m):
    if t == 0:
        return v
    if (t - 1 - period) % (2 * period) == 0:
        return v + (b - m) * (1 - math.cos(math.pi / period)) / 2
    return ((1 + math.cos(math.pi * t / period)) /
            (1 + math.cos(math.pi * (t - 1) / period)) * (v - m) + m)


def _one_cycle(s, t):
    total, pct, top = s["total_steps"], s.get("pct_start", 0.3), s["eta_max"]
    first = top / s.get("div_factor", 25.0)
    least = first / s.get("final_div_factor", 1e4)
    if s.get("three_phase"):
        phases = [(pct * total - 1, first, top), (2 * pct * total - 2, top, first),
                  (total - 1, first, least)]
    else:
        phases = [(pct * total - 1, first, top), (total - 1, top, least)]
    start = 0.0
    for i, (end, a, z) in enumerate(phases):
        if t <= end or i == len(phases) - 1:
            if end == start:
                return z  # No way there: it is there.
            x = (t - start) / (end - start)
            if s.get("anneal_strategy", "cos") == "linear":
                return a + x * (z - a)
            return z + (a - z) / 2 * (1 + math.cos(math.pi * x))
        start = end


def _warmup_stable_decay(s, t, length):
    if t < s["warmup_steps"]:
        return (t + 1) / s["warmup_steps"]
    x = (t - (length - s["decay_steps"])) / s["decay_steps"]
    if x <= 0:
        return 1.0
    least = s.get("min_ratio", 0.0)
    left = {"linear": 1 - x, "cosine": (1 + math.cos(math.pi * x)) / 2,
            "1-sqrt": 1 - math.sqrt(x)}[s.get("decay_type", "1-sqrt")]
    return least + (1 - least) * left


def _inverse_sqrt(s, t, _):
    warmup = s["warmup_steps"]  # >= 1.
    scale = s.get("timescale", warmup)
    if t < warmup:
        return (t + 1) / warmup
    return math.sqrt(scale / (scale + t - (warmup - 1)))


def plateau_move(s, v):
    new = max(v * s.get("factor", 0.1), s.get("min_value", 0.0))
    return new if v - new > s.get("eps", 1e-8) else v


def replay(schedules, moves, base, lengths, n, q, by_epoch):
    """R3: the value from the base to the clocks' present values.

    schedules: those of one option, resolved, in config order. moves: for each,
    the epochs after which a metric moved it. lengths: of the epochs done, as
    they were, in iterations. n: iterations an epoch has now, the length of all
    of them on the converted clock. q: iterations done of the epoch under way;
    or a pair, if that has other numbers of them on the two clocks. by_epoch: the
    epochs are the run's, and not passes of a run that is one epoch.
    """
    def run(i, g):
        return step(schedules[i], g, value, base)

    of = {c: [i for i, s in enumerate(schedules)
              if s["clock"] == c and s["kind"] != "reduce_on_plateau"]
          for c in ("epoch", "iter", "converted")}
    value = base
    for i, s in enumerate(schedules):
        if s["kind"] != "reduce_on_plateau":
            value = run(i, 0)
    q_iter, q_converted = q if isinstance(q, tuple) else (q, q)
    done_iter = done_converted = 0
    for e, (its, steps) in enumerate(
            [(length, n) for length in lengths] + [(q_iter, q_converted)]):
        # Within an epoch steps of both clocks alternate in config order.
        for j in range(max(its, steps)):
            for i, s in enumerate(schedules):
                if i in of["iter"] and j < its:
                    value = run(i, done_iter + j + 1)
                elif i in of["converted"] and j < steps:
                    value = run(i, done_converted + j + 1)
        done_iter += its
        done_converted += steps
        if e == len(lengths) or not by_epoch:
            continue
        for i in of["epoch"]:
            value = run(i, e + 1)
        for i, s in enumerate(schedules):
            # Metric-driven ones repeat the moves they made.
            if e + 1 in moves[i]:
                value = plateau_move(s, value)
    return value
