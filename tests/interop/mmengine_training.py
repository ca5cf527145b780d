"""Trainings of MMEngine's Runner for training_pth_test.py, of one process.

    mmengine_training.py PROGRAM FOLDER CASE WORK_DIR[=CHECKPOINT]...

trains CASES[CASE] on the IDX files of FOLDER, for each WORK_DIR, from
FOLDER/weights.safetensors or going on from a checkpoint, as anybody does:
resume=True, load_from=CHECKPOINT. Beside each checkpoint that it saves it writes
what ours has of it, by our names: WORK_DIR/<unit>_<n>.<section>.safetensors.
"""

import os
import sys

import safetensors.numpy

import slim_mmengine
from mmengine_digits import SEED, loader, make_model, register_top_k, save_sections
VALIDATION = """
val_dataloader {
  batch_size: 11
  dataset { idx { images: "val-images" labels: "val-labels" scale: 0.0625 } }
}
val_evaluator { accuracy { topk: 1 } }
randomness { seed: 3 }
"""
MODEL = VALIDATION + """
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
"""
# The same, with its first layer frozen.
FROZEN = VALIDATION + """
model { torch_script { path: "frozen.pt" loss { cross_entropy {} } } }
"""
BY_EPOCH = """
train_dataloader {
  batch_size: 16
  sampler { shuffle: true }
  dataset { idx { images: "small-images" labels: "small-labels" scale: 0.0625 } }
}
"""
EPOCHS = BY_EPOCH + """
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
    # What the two have learned of metrics goes on: the one is about to reduce the
    # rate, the other has just reduced the momentum, and rests. A validation right
    # behind the checkpoint would be missed: who resumes makes none.
    "plateau": (MODEL + BY_EPOCH + """
train_cfg { max_epochs: 7 val_interval: 2 }
default_hooks { checkpoint { interval: 1 } logger { interval: 5 } }
optim_wrapper { optimizer { sgd { lr: 0.05 momentum: 0.9 } } }
param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 20 } }
param_scheduler {
  reduce_on_plateau { monitor: "accuracy/top1" rule: "greater" factor: 0.5 patience: 1
                      threshold: 50 threshold_rule: "abs" min_value: 0.001 }
}
param_scheduler {
  reduce_on_plateau { monitor: "accuracy/top1" rule: "greater" factor: 0.7 patience: 0
                      threshold: 9 cooldown: 1 param_name: "momentum" }
}
""", dict(
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9, fused=True)),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=20),
            dict(type="ReduceOnPlateauLR", monitor="accuracy/top1", rule="greater", factor=0.5,
                 patience=1, threshold=50, threshold_rule="abs", min_value=0.001),
            dict(type="ReduceOnPlateauMomentum", monitor="accuracy/top1", rule="greater",
                 factor=0.7, patience=0, threshold=9, cooldown=1),
        ],
        train_cfg=dict(by_epoch=True, max_epochs=7, val_interval=2),
        custom_hooks=[])),
    # MMEngine's optimizer has the frozen one too.
    "frozen": (FROZEN + EPOCHS + """
optim_wrapper { optimizer { sgd { lr: 0.05 momentum: 0.9 weight_decay: 0.01 } } }
param_scheduler {
  one_cycle { eta_max: 0.1 total_steps: 65 pct_start: 0.4 by_epoch: false three_phase: true }
}
""", dict(
        frozen=True,
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=0.01, fused=True)),
        param_scheduler=[
            dict(type="OneCycleLR", eta_max=0.1, total_steps=65, pct_start=0.4, by_epoch=False,
                 three_phase=True)],
        custom_hooks=[])),
    # It hasn't.
    "frozen_groups": (FROZEN + BY_EPOCH + """
train_cfg { max_epochs: 5 val_interval: 2 }
default_hooks { checkpoint { interval: 1 } logger { interval: 5 } }
optim_wrapper {
  optimizer { adam { lr: 2e-3 weight_decay: 0.05 amsgrad: true } }
  paramwise_cfg { rules { pattern: "^4\\\\." lr_mult: 0.1 decay_mult: 0 } }
}
param_scheduler { exponential { gamma: 0.7 } }
param_scheduler { reduce_on_plateau { monitor: "accuracy/top1" patience: 0 } }
""", dict(
        frozen=True,
        optim_wrapper=dict(
            optimizer=dict(type="Adam", lr=2e-3, weight_decay=0.05, amsgrad=True, fused=True),
            paramwise_cfg=dict(custom_keys={"4.": dict(lr_mult=0.1, decay_mult=0)})),
        param_scheduler=[
            dict(type="ExponentialLR", gamma=0.7, by_epoch=True),
            dict(type="ReduceOnPlateauLR", monitor="accuracy/top1", patience=0)],
        train_cfg=dict(by_epoch=True, max_epochs=5, val_interval=2),
        custom_hooks=[])),
    # Of a model in code: TwoParts of training_pth_tool.cc.
    "several": (VALIDATION + EPOCHS + """
optim_wrapper {
  optimizers {
    name: "body" pattern: "^body" optimizer { sgd { lr: 0.05 momentum: 0.9 } }
    clip_grad { max_norm: 0.5 }
    param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 20 } }
    param_scheduler { multi_step { milestones: [2, 4] gamma: 0.3 } }
  }
  optimizers {
    name: "probe" pattern: "^probe" optimizer { adamw { lr: 2e-3 weight_decay: 0.05 } }
    param_scheduler { cosine_annealing { eta_min: 1e-4 } }
  }
}
""", dict(
        optim_wrapper=dict(
            body=dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9, fused=True),
                      clip_grad=dict(max_norm=0.5)),
            probe=dict(optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True))),
        param_scheduler=dict(
            body=[dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=20),
                  dict(type="MultiStepLR", milestones=[2, 4], gamma=0.3, by_epoch=True)],
            probe=[dict(type="CosineAnnealingLR", eta_min=1e-4, by_epoch=True)]),
        custom_hooks=[])),
}


def layers(nn):
    return [nn.Flatten(), nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Linear(32, 10)]


def make_two_parts(torch):
    from mmengine.model import BaseModel
    nn = torch.nn

    class TwoParts(BaseModel):
        def __init__(self):
            super().__init__()
            self.body, self.probe = nn.Linear(64, 10), nn.Linear(10, 10, bias=False)

        def forward(self, images, labels, mode):
            return [(self.probe(self.body(images.flatten(1))), labels)]

        def train_step(self, data, optim_wrapper):
            images, labels = data
            said = self.body(images.flatten(1))
            body_loss = nn.functional.cross_entropy(said, labels)
            probe_loss = nn.functional.cross_entropy(self.probe(said.detach()), labels)
            optim_wrapper["body"].update_params(body_loss)
            optim_wrapper["probe"].update_params(probe_loss)
            return dict(body_loss=body_loss.detach(), probe_loss=probe_loss.detach())

    net = TwoParts()
    for param in net.parameters():
        nn.init.zeros_(param)
    return net


def make_optimizers(model, config):
    """The configuration's optimizers, each of the part of the model by its name."""
    from mmengine.optim import OptimWrapperDict, build_optim_wrapper
    return OptimWrapperDict(**{name: build_optim_wrapper(getattr(model, name), dict(one))
                               for name, one in config.items()})


def register():
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS
    register_top_k()

    @HOOKS.register_module()
    class SectionsOf(Hook):
        priority = "LOWEST"

        def before_save_checkpoint(self, runner, checkpoint):
            named = dict(runner.model.named_parameters())
            optimizer = checkpoint["optimizer"]
            if "param_groups" not in optimizer:
                parameters = {part: [name for name in named if name.startswith(f"{part}.")]
                              for part in optimizer}
            elif len(optimizer["param_groups"]) == 1:
                parameters = list(named)
            else:  # Of paramwise_cfg.
                parameters = [name for name, param in named.items() if param.requires_grad]
            unit = "epoch" if runner.train_loop.__class__.__name__.startswith("Epoch") else "iter"
            save_sections(checkpoint, parameters,
                          f"{runner.work_dir}/{unit}_{checkpoint['meta'][unit]}")


def train(torch, folder, case, work_dir, checkpoint):
    from mmengine.runner import Runner
    config = CASES[case][1]
    by_epoch = config.get("train_cfg", dict(by_epoch=True))["by_epoch"]
    optim_wrapper = config["optim_wrapper"]
    if "optimizer" in optim_wrapper:
        model = make_model(torch, layers(torch.nn),
                           safetensors.numpy.load_file(f"{folder}/weights.safetensors"))
        if config.get("frozen"):
            getattr(model, "1").weight.requires_grad_(False)
    else:
        model = make_two_parts(torch)
        optim_wrapper = make_optimizers(model, optim_wrapper)
    Runner(
        model=model,
        work_dir=work_dir,
        experiment_name=os.path.basename(work_dir),
        train_dataloader=loader(
            torch, f"{folder}/{'small' if by_epoch else 'all'}",
            config.get("sampler", dict(type="DefaultSampler", shuffle=True)), 16),
        val_dataloader=loader(torch, f"{folder}/val", dict(type="DefaultSampler", shuffle=False),
                              11),
        train_cfg=config.get("train_cfg", dict(by_epoch=True, max_epochs=5, val_interval=1)),
        val_cfg=dict(),
        val_evaluator=[dict(type="TopK")],
        optim_wrapper=optim_wrapper,
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
    program, folder, case = sys.argv[1:4]
    torch = slim_mmengine.load(program)
    torch.set_num_threads(1)
    register()
    for training in sys.argv[4:]:
        work_dir, _, checkpoint = training.partition("=")
        train(torch, folder, case, work_dir, checkpoint or None)
    sys.stdout.flush()
    # Threads of torch's that are left abort the interpreter's exit, now and then.
    os._exit(0)


if __name__ == "__main__":
    main()
