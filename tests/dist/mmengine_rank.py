"""One of the processes of mmengine_ranks_test.py that train by MMEngine's Runner.

    mmengine_rank.py PROGRAM DIR RANK WORLD_SIZE

trains each of CASES in DIR/<case>/theirs, from DIR/weights.safetensors and on the
IDX files of DIR. Writes what each validation evaluates to
DIR/<case>/theirs.dump/iter_<n>.rank<rank>.safetensors and, on rank 0, the sections
that ours has of checkpoints to theirs.dump/<name>.<section>.safetensors.
"""

import datetime
import glob
import os
import sys

import numpy as np
import safetensors.numpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
import slim_mmengine
from mmengine_digits import SEED, loader, make_model, register_top_k, save, save_sections


# Optimizers are the fused ones, as ours are: the others round otherwise.
def epochs_case():
    return dict(
        train=dict(sampler=dict(type="DefaultSampler", shuffle=True), prefix="small"),
        val=dict(sampler=dict(type="DefaultSampler", shuffle=False)),
        train_cfg=dict(by_epoch=True, max_epochs=4, val_interval=1),
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True),
            clip_grad=dict(max_norm=1.0)),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=5),
            dict(type="MultiStepLR", milestones=[2, 3], gamma=0.3, by_epoch=True),
            dict(type="CosineAnnealingMomentum", eta_min=0.5, by_epoch=True),
        ],
        checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2,
                        save_best="accuracy/top1", rule="greater"),
        logger=dict(type="LoggerHook", interval=3),
        log_processor=dict(by_epoch=True),
        custom_hooks=[])


def iters_case():
    return dict(
        train=dict(sampler=dict(type="InfiniteSampler", shuffle=True), prefix="all"),
        val=dict(sampler=dict(type="DefaultSampler", shuffle=False, round_up=False)),
        train_cfg=dict(by_epoch=False, max_iters=20, val_interval=6),
        optim_wrapper=dict(
            optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True),
            accumulative_counts=2),
        auto_scale_lr=dict(enable=True, base_batch_size=16),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=6),
            dict(type="CosineAnnealingLR", by_epoch=False, begin=6, T_max=14, eta_min=1e-4),
        ],
        checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=6, max_keep_ckpts=2,
                        save_best=["accuracy/top3", "val_loss"], rule=["greater", "less"]),
        # c21: metrics of an iteration-based run have the iteration as step.
        logger=dict(type="LoggerHook", interval=7, log_metric_by_epoch=False),
        log_processor=dict(by_epoch=False),
        custom_hooks=[dict(type="EMAHook", momentum=0.1)])


CASES = {"epochs": epochs_case, "iters": iters_case}


def layers(nn):
    return [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64, 10)]


def register(torch):
    from mmengine.evaluator import BaseMetric
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS, METRICS
    register_top_k()

    @METRICS.register_module()
    class MeanLoss(BaseMetric):
        """What ours logs of a validation by itself."""

        def process(self, data_batch, data_samples):
            for out, labels in data_samples:
                self.results += torch.nn.functional.cross_entropy(
                    out, labels, reduction="none").double().tolist()

        def compute_metrics(self, results):
            return {"val_loss": float(np.mean(results))}

    @HOOKS.register_module()
    class StateDump(Hook):
        priority = "LOWEST"

        def __init__(self, folder, rank, unit):
            self._folder, self._rank, self._unit = folder, rank, unit

        def before_val_epoch(self, runner):
            save(runner.model.module.state_dict(),
                 f"{self._folder}/iter_{runner.iter}.rank{self._rank}.safetensors")

        def before_save_checkpoint(self, runner, checkpoint):
            # As first written. c4: behind a new best theirs writes it again, with
            # the buffers that were made one for the validation.
            prefix = f"{self._folder}/{self._unit}_{checkpoint['meta'][self._unit]}"
            if not os.path.exists(f"{prefix}.model.safetensors"):
                save_sections(checkpoint, parameters_of(runner), prefix)


def parameters_of(runner):
    return [name for name, _ in runner.model.module.named_parameters()]


def train(torch, case, folder, weights, rank):
    from mmengine.runner import Runner
    config = CASES[case]()
    dump = f"{folder}/{case}/theirs.dump"
    unit = "epoch" if config["train_cfg"]["by_epoch"] else "iter"
    runner = Runner(
        model=make_model(torch, layers(torch.nn), weights),
        work_dir=f"{folder}/{case}/theirs",
        experiment_name=case,
        train_dataloader=loader(torch, f"{folder}/{config['train']['prefix']}",
                                config["train"]["sampler"], 16),
        val_dataloader=loader(torch, f"{folder}/val", config["val"]["sampler"], 11),
        train_cfg=config["train_cfg"],
        val_cfg=dict(),
        val_evaluator=[dict(type="TopK"), dict(type="MeanLoss")],
        optim_wrapper=config["optim_wrapper"],
        param_scheduler=config["param_scheduler"],
        auto_scale_lr=config.get("auto_scale_lr"),
        default_hooks=dict(checkpoint=config["checkpoint"], logger=config["logger"]),
        custom_hooks=[*config["custom_hooks"], dict(type="SyncBuffersHook"),
                      dict(type="StateDump", folder=dump, rank=rank, unit=unit)],
        log_processor=config["log_processor"],
        launcher="pytorch",
        randomness=dict(seed=SEED),
        # Its own would have device_ids, which are refused on a CPU.
        cfg=dict(model_wrapper_cfg=dict(
            type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False,
            find_unused_parameters=False)))
    runner.train()
    if rank == 0:
        for path in glob.glob(f"{runner.work_dir}/best_*.pth"):
            prefix = f"{dump}/{os.path.basename(path)[:-len('.pth')]}"
            save_sections(torch.load(path, weights_only=False), parameters_of(runner), prefix)


def main():
    program, folder, rank, world_size = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
    torch = slim_mmengine.load(program)
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    # The one that MMEngine would make takes the rank's GPU.
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size,
        timeout=datetime.timedelta(seconds=60))
    register(torch)
    weights = safetensors.numpy.load_file(f"{folder}/weights.safetensors")
    for case in CASES:
        train(torch, case, folder, weights, rank)
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    # Threads of torch's that are left abort the interpreter's exit, now and then.
    os._exit(0)


main()
