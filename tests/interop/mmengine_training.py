"""A training of MMEngine's Runner for training_pth_test.py, of one process.

    mmengine_training.py PROGRAM FOLDER CASE WORK_DIR [CHECKPOINT]

trains CASES[CASE] on the IDX files of FOLDER, from FOLDER/weights.safetensors or
going on from a checkpoint, as anybody does: resume=True, load_from=CHECKPOINT.
Beside each checkpoint that it saves it writes what ours has of it, by our names:
WORK_DIR/<unit>_<n>.<section>.safetensors.
"""

import os
import sys

import numpy as np
import safetensors.numpy

import slim_mmengine

SEED = 3
MODEL = """
model {
  sequential {
    layers { flatten {} }
    layers { linear { out_features: 32 bias: false } }
    layers { batch_norm1d {} }
    layers { relu {} }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
val_dataloader {
  batch_size: 11
  dataset { idx { images: "val-images" labels: "val-labels" scale: 0.0625 } }
}
val_evaluator { accuracy { topk: 1 } }
randomness { seed: 3 }
"""
EPOCHS = """
train_dataloader {
  batch_size: 16
  sampler { shuffle: true }
  dataset { idx { images: "small-images" labels: "small-labels" scale: 0.0625 } }
}
train_cfg { max_epochs: 5 }
default_hooks { checkpoint { interval: 1 } logger { interval: 5 } }
"""
# Each as a configuration of ours and as MMEngine's. Optimizers are the fused ones,
# as ours are: the others round otherwise.
CASES = {
    "sgd": (MODEL + EPOCHS + """
optim_wrapper {
  optimizer { sgd { lr: 0.05 momentum: 0.9 weight_decay: 1e-4 nesterov: true } }
  clip_grad { max_norm: 1 }
}
param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 20 } }
param_scheduler { multi_step { milestones: [2, 4] gamma: 0.3 } }
param_scheduler { cosine_annealing { eta_min: 0.5 param_name: "momentum" } }
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
""", dict(
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True,
                           fused=True),
            clip_grad=dict(max_norm=1.0)),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=20),
            dict(type="MultiStepLR", milestones=[2, 4], gamma=0.3, by_epoch=True),
            dict(type="CosineAnnealingMomentum", eta_min=0.5, by_epoch=True),
        ],
        custom_hooks=[dict(type="EMAHook", momentum=0.1)])),
    # Two groups here, one for each parameter there; betas that are scheduled.
    "groups": (MODEL + EPOCHS + """
optim_wrapper {
  optimizer { adamw { lr: 2e-3 weight_decay: 0.05 } }
  paramwise_cfg { rules { pattern: "^4\\\\." lr_mult: 0.1 decay_mult: 0 } }
}
param_scheduler { step { step_size: 2 gamma: 0.5 } }
param_scheduler { linear { start_factor: 0.5 param_name: "momentum" end: 4 } }
""", dict(
        optim_wrapper=dict(
            optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True),
            paramwise_cfg=dict(custom_keys={"4.": dict(lr_mult=0.1, decay_mult=0)})),
        param_scheduler=[
            dict(type="StepLR", step_size=2, gamma=0.5, by_epoch=True),
            dict(type="LinearMomentum", start_factor=0.5, by_epoch=True, begin=0, end=4),
        ],
        custom_hooks=[])),
    "iters": (MODEL + """
train_dataloader {
  batch_size: 16
  sampler { type: INFINITE shuffle: true }
  dataset { idx { images: "all-images" labels: "all-labels" scale: 0.0625 } }
}
train_cfg { by_epoch: false max_iters: 50 val_interval: 10 }
optim_wrapper { optimizer { adamw { lr: 2e-3 weight_decay: 0.05 } } }
param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 6 } }
param_scheduler { cosine_annealing { by_epoch: false begin: 6 t_max: 44 eta_min: 1e-4 } }
default_hooks { checkpoint { by_epoch: false interval: 10 } logger { interval: 5 } }
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
""", dict(
        optim_wrapper=dict(
            optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True)),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=6),
            dict(type="CosineAnnealingLR", by_epoch=False, begin=6, T_max=44, eta_min=1e-4),
        ],
        train_cfg=dict(by_epoch=False, max_iters=50, val_interval=10),
        sampler=dict(type="InfiniteSampler", shuffle=True),
        custom_hooks=[dict(type="EMAHook", momentum=0.1)])),
}


def read_idx(path):
    with open(path, "rb") as f:
        data = f.read()
    dims = data[3]
    shape = np.frombuffer(data, ">u4", dims, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


class Digits:
    def __init__(self, torch, prefix):
        images = read_idx(f"{prefix}-images").astype(np.float32) / 16
        self._images = torch.from_numpy(images).unsqueeze(1)
        self._labels = torch.from_numpy(read_idx(f"{prefix}-labels").astype(np.int64))

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, i):
        return self._images[i], self._labels[i]


def make_model(torch, weights):
    from mmengine.model import BaseModel
    nn = torch.nn

    class Net(BaseModel):
        """Layers and names of the Sequential that ours is configured to be."""

        def __init__(self):
            super().__init__()
            for name, layer in enumerate([
                    nn.Flatten(), nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
                    nn.Linear(32, 10)]):
                self.add_module(str(name), layer)

        def forward(self, images, labels, mode):
            x = images
            for name in range(5):
                x = getattr(self, str(name))(x)
            if mode == "loss":
                return dict(loss=nn.functional.cross_entropy(x, labels))
            return [(x, labels)]

    net = Net()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return net


def register(torch):
    from mmengine.evaluator import BaseMetric
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS, METRICS

    @METRICS.register_module()
    class Top1(BaseMetric):
        default_prefix = "accuracy"

        def process(self, data_batch, data_samples):
            for out, labels in data_samples:
                self.results += (out.argmax(1) == labels).tolist()

        def compute_metrics(self, results):
            return {"top1": float(np.mean(results) * 100)}

    @HOOKS.register_module()
    class SectionsOf(Hook):
        priority = "LOWEST"

        def before_save_checkpoint(self, runner, checkpoint):
            unit = "epoch" if runner.train_loop.__class__.__name__.startswith("Epoch") else "iter"
            save_sections(checkpoint, runner,
                          f"{runner.work_dir}/{unit}_{checkpoint['meta'][unit]}")


def save_sections(checkpoint, runner, prefix):
    model, averaged = checkpoint["state_dict"], checkpoint.get("ema_state_dict")
    sections = {"model": model}
    if averaged is not None:
        # Theirs exchanges the two.
        raw = {name[len("module."):]: value for name, value in averaged.items() if name != "steps"}
        sections = {"model": raw, "ema": model}
    names = [name for name, _ in runner.model.named_parameters()]
    sections["optimizer"] = {
        f"{names[i]}/{slot}": value
        for i, slots in checkpoint["optimizer"]["state"].items() for slot, value in slots.items()}
    for section, state in sections.items():
        safetensors.numpy.save_file({name: np.array(value.numpy(), order="C")
                                     for name, value in state.items()},
                                    f"{prefix}.{section}.safetensors")


def train(torch, folder, case, work_dir, checkpoint):
    from mmengine.runner import Runner
    config = CASES[case][1]
    by_epoch = "train_cfg" not in config

    def loader(sampler, batch_size, prefix):
        return dict(batch_size=batch_size, num_workers=0, sampler=sampler,
                    dataset=Digits(torch, f"{folder}/{prefix}"),
                    collate_fn=dict(type="default_collate"))

    Runner(
        model=make_model(torch, safetensors.numpy.load_file(f"{folder}/weights.safetensors")),
        work_dir=work_dir,
        experiment_name=case,
        train_dataloader=loader(config.get("sampler", dict(type="DefaultSampler", shuffle=True)),
                                16, "small" if by_epoch else "all"),
        val_dataloader=loader(dict(type="DefaultSampler", shuffle=False), 11, "val"),
        train_cfg=config.get("train_cfg", dict(by_epoch=True, max_epochs=5, val_interval=1)),
        val_cfg=dict(),
        val_evaluator=[dict(type="Top1")],
        optim_wrapper=config["optim_wrapper"],
        param_scheduler=config["param_scheduler"],
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", by_epoch=by_epoch,
                            interval=1 if by_epoch else 10),
            # c21: metrics of an iteration-based run have the iteration as step.
            logger=dict(type="LoggerHook", interval=5, log_metric_by_epoch=by_epoch)),
        custom_hooks=[*config["custom_hooks"], dict(type="SectionsOf")],
        log_processor=dict(by_epoch=by_epoch),
        load_from=checkpoint,
        resume=checkpoint is not None,
        randomness=dict(seed=SEED)).train()


def main():
    program, folder, case, work_dir = sys.argv[1:5]
    torch = slim_mmengine.load(program)
    torch.set_num_threads(1)
    register(torch)
    train(torch, folder, case, work_dir, sys.argv[5] if len(sys.argv) > 5 else None)
    sys.stdout.flush()
    # Threads of torch's that are left abort the interpreter's exit, now and then.
    os._exit(0)


if __name__ == "__main__":
    main()
