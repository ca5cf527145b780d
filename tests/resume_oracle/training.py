"""The arithmetic of training, in double precision and plain Python: models of
linear layers and relu, cross-entropy as a weighted mean, SGD, Adam and AdamW,
averages of weights."""
import math

# A decision that float32 could have taken the other way.
UNSURE = 2e-5


def layers_of(model):
    """Names and sizes (outputs, inputs) of the linear layers."""
    return {"linear": [("1", 3, 16)],
            "mlp": [("body", 5, 16), ("head", 3, 5)]}[model]


def forward(model, w, x):
    """Inputs of every linear layer, and the logits."""
    inputs = []
    for k, (name, outs, ins) in enumerate(layers_of(model)):
        if k:
            x = [a if a > 0 else 0.0 for a in x]
        inputs.append(x)
        weight, bias = w[name + ".weight"], w[name + ".bias"]
        x = [sum(p * q for p, q in zip(weight[o * ins:(o + 1) * ins], x)) + bias[o]
             for o in range(outs)]
    return inputs, x


def softmax(z):
    top = max(z)
    e = [math.exp(a - top) for a in z]
    total = sum(e)
    return [a / total for a in e], top + math.log(total)


def weight_of(loss, target):
    """Item 2: a target's share of the loss's divisor."""
    if target == loss.get("ignore_index", -100):
        return 0.0
    return loss["class_weight"][target] if "class_weight" in loss else 1.0


def loss_and_gradients(model, w, batch, loss):
    """The mean over the counted targets, its gradients, and what it was divided
    by. A batch of weight 0 adds 0, never NaN (item 2)."""
    total = sum(weight_of(loss, y) for _, y in batch)
    grads = {k: [0.0] * len(v) for k, v in w.items()}
    value = 0.0
    shape = layers_of(model)
    for x, y in batch:
        share = weight_of(loss, y)
        if not share:
            continue
        share /= total
        inputs, z = forward(model, w, x)
        p, norm = softmax(z)
        value += share * (norm - z[y])
        back = [share * (a - (c == y)) for c, a in enumerate(p)]
        for k in reversed(range(len(shape))):
            name, outs, ins = shape[k]
            gw, gb = grads[name + ".weight"], grads[name + ".bias"]
            for o in range(outs):
                gb[o] += back[o]
                for i in range(ins):
                    gw[o * ins + i] += back[o] * inputs[k][i]
            if k:
                weight = w[name + ".weight"]
                back = [sum(back[o] * weight[o * ins + i] for o in range(outs))
                        if inputs[k][i] > 0 else 0.0 for i in range(ins)]
    return value, grads, total


def evaluate(model, w, samples, loss):
    """Loss and accuracy of a validation (item 2): sums over samples, whatever
    the batches were; and whether a prediction was a near tie."""
    total = value = 0.0
    hits = counted = 0
    unsure = False
    for x, y in samples:
        _, z = forward(model, w, x)
        share = weight_of(loss, y)
        if share:
            value += share * (softmax(z)[1] - z[y])
            total += share
        # A metric leaves out what the loss ignores; class weights don't count.
        if y != loss.get("ignore_index", -100):
            counted += 1
            hits += z[y] == max(z)
            best = sorted(z)[-2:]
            unsure |= best[1] - best[0] < UNSURE
    return (value / total if total else math.nan,
            100.0 * hits / counted if counted else math.nan, unsure)


def clip(grads, max_norm):
    norm = math.sqrt(sum(g * g for v in grads.values() for g in v))
    scale = min(1.0, max_norm / (norm + 1e-6))
    return {k: [g * scale for g in v] for k, v in grads.items()}


def optimizer_step(kind, w, grads, slots, options, amsgrad):
    """One step. options: of each parameter, the current values."""
    for name, p in w.items():
        o, g = options[name], grads[name]
        slot = slots.setdefault(name, {})
        lr, decay = o["lr"], o["weight_decay"]
        if kind == "sgd":
            g = [a + decay * b for a, b in zip(g, p)]
            if o.get("momentum"):
                if "momentum_buffer" in slot:
                    g = [o["momentum"] * a + b
                         for a, b in zip(slot["momentum_buffer"], g)]
                slot["momentum_buffer"] = g
            w[name] = [a - lr * b for a, b in zip(p, g)]
            continue
        if kind == "adamw":
            p = [a * (1 - lr * decay) for a in p]
        else:
            g = [a + decay * b for a, b in zip(g, p)]
        b1, b2 = o["beta1"], o["beta2"]
        slot["step"] = t = slot.get("step", 0) + 1
        zero = [0.0] * len(p)
        m = slot["exp_avg"] = [b1 * a + (1 - b1) * b
                               for a, b in zip(slot.get("exp_avg", zero), g)]
        v = slot["exp_avg_sq"] = [b2 * a + (1 - b2) * b * b
                                  for a, b in zip(slot.get("exp_avg_sq", zero), g)]
        if amsgrad:
            v = slot["max_exp_avg_sq"] = [
                max(a, b) for a, b in zip(slot.get("max_exp_avg_sq", zero), v)]
        c1, c2 = 1 - b1 ** t, math.sqrt(1 - b2 ** t)
        w[name] = [a - lr / c1 * b / (math.sqrt(c) / c2 + o["eps"])
                   for a, b, c in zip(p, m, v)]


def average(config, ema, w, started):
    """One iteration of an average of weights. ema: {"steps", "average"}."""
    if not started:
        ema["average"] = {k: list(v) for k, v in w.items()}
        return
    k, interval = ema["steps"], config.get("interval", 1)
    ema["steps"] += 1
    if k == 0:
        ema["average"] = {name: list(v) for name, v in w.items()}
    elif k % interval == 0:
        momentum = config.get("momentum", 0.0002)
        if config["type"] == "stochastic_weight_average":
            momentum = 1 / (k // interval + 1)
        elif config["type"] == "momentum_annealing_ema":
            gamma = config.get("gamma", 100.0)
            momentum = max(momentum, gamma / (gamma + k))
        for name, v in w.items():
            ema["average"][name] = [(1 - momentum) * a + momentum * b
                                    for a, b in zip(ema["average"][name], v)]
