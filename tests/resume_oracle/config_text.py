"""A config as the program reads it: RunnerConfig in text."""


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(text(v) for v in value) + "]"
    if isinstance(value, str):
        return '"%s"' % value
    return repr(value)


def message(fields):
    return "{ " + "".join("%s: %s " % (k, text(v)) for k, v in fields.items()) + "}"


def dataset(kind, size, masked):
    labels = "%s-%d%s-y" % (kind, size, "-masked" if masked else "")
    return 'dataset { idx { images: "%s-%d-x" labels: "%s" } }' % (kind, size, labels)


def render(c):
    data, optim, train, checkpoint = c["data"], c["optim"], c["train"], c["checkpoint"]
    layers = {"linear": ["flatten {}", "linear { out_features: 3 }"],
              "mlp": ["flatten {}", 'linear { out_features: 5 } name: "body"', "relu {}",
                      'linear { out_features: 3 } name: "head"']}[c["model"]]
    out = ["model { sequential {"]
    out += ["  layers { %s }" % layer for layer in layers]
    out += ["  loss { cross_entropy %s }" % message(c["loss"]), "} }"]
    more = ""
    if data["infinite"]:
        more = "sampler { type: INFINITE } "
    elif data["drop_last"]:
        more = "drop_last: true "
    out.append("train_dataloader { batch_size: %d num_workers: %d %s%s }" % (
        data["batch"], data.get("workers", 0), more,
        dataset("train", data["size"], data.get("masked"))))
    if c["val"]:
        out.append("val_dataloader { batch_size: %d %s }" % (
            c["val"]["batch"], dataset("val", c["val"]["size"], data.get("masked"))))
        out.append("val_evaluator { accuracy {} }")
    limits = ("max_epochs: %d" if train["by_epoch"] else
              "by_epoch: false max_iters: %d") % train["max"]
    if c["val"]:
        limits += " val_begin: %d val_interval: %d" % (train["val_begin"],
                                                       train["val_interval"])
    out.append("train_cfg { %s }" % limits)
    keys = {"sgd": ("lr", "weight_decay", "momentum")}.get(
        optim["kind"], ("lr", "weight_decay", "beta1", "beta2", "amsgrad"))
    wrapper = "optimizer { %s %s }" % (optim["kind"],
                                       message({k: optim[k] for k in keys}))
    wrapper += " accumulative_counts: %d" % optim["accum"]
    if optim["by_samples"]:
        wrapper += " accumulate_by: SAMPLES"
    if optim["clip"]:
        wrapper += " clip_grad { max_norm: %r }" % optim["clip"]
    paramwise = "".join(" rules " + message(r) for r in optim["rules"])
    if optim["bias_lr_mult"] != 1:
        paramwise += " bias_lr_mult: %r" % optim["bias_lr_mult"]
    if paramwise:
        wrapper += " paramwise_cfg {%s }" % paramwise
    out.append("optim_wrapper { %s }" % wrapper)
    for s in c["schedules"]:
        out.append("param_scheduler { %s %s }" % (
            s["kind"], message({k: v for k, v in s.items() if k != "kind"})))
    if c["auto_scale"]:
        out.append("auto_scale_lr { enable: true base_batch_size: %d }" % c["auto_scale"])
    saved = {"by_epoch": checkpoint["by_epoch"], "interval": checkpoint["interval"],
             "save_last": checkpoint["save_last"], "save_begin": checkpoint["save_begin"],
             "max_keep_ckpts": checkpoint["keep"]}
    if checkpoint.get("published"):
        saved["published_keys"] = ["model", "metrics"]
    if checkpoint["save_best"]:
        saved["save_best"] = checkpoint["save_best"]
        saved["rule"] = "less" if checkpoint["save_best"] == "loss" else "greater"
    out.append("default_hooks { checkpoint %s logger { interval: 1 } }" % message(saved))
    if c["ema"]:
        e = dict(c["ema"])
        kind = e.pop("type")
        inner = {k: e.pop(k) for k in ("momentum", "gamma") if k in e}
        out.append("custom_hooks { config { [hooks/EMAHook] { ema_type { %s %s } %s } } }" % (
            kind, message(inner), message(e)[2:-1]))
    now = 'custom_cfg { data_src: "%s" log_name: "%s_now" method_name: "current" }'
    out.append("log_processor { window_size: %d %s %s }" % (
        c["window"], now % ("loss", "loss"), now % ("time", "time")))
    out.append("randomness { seed: %d }" % c["seed"])
    return "\n".join(out) + "\n"
