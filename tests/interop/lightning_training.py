"""A training of Lightning's Trainer for training_pth_test.py.

    lightning_training.py PROGRAM FOLDER WORK_DIR

trains 5 epochs on the IDX files of FOLDER, not shuffled, with an average. After
each it saves WORK_DIR/epoch=<n>.ckpt, n counted from 0, and at the end what ours
has of it, by the names there: WORK_DIR/<section>.safetensors.
"""

import os
import sys

import numpy as np
import safetensors.numpy

import slim_torch
from mmengine_digits import Digits

CONFIG = """
model {
  sequential {
    layers { flatten {} }
    layers { linear { out_features: 32 } }
    layers { relu {} }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
train_dataloader {
  batch_size: 16
  dataset { idx { images: "small-images" labels: "small-labels" scale: 0.0625 } }
}
train_cfg { max_epochs: 5 }
optim_wrapper { optimizer { adamw { lr: 2e-3 weight_decay: 0.05 } } }
param_scheduler { linear { start_factor: 0.1 end: 51 by_epoch: false } }
param_scheduler { multi_step { milestones: [2, 4] gamma: 0.5 } }
param_scheduler { exponential { gamma: 0.9 } }
default_hooks { checkpoint { interval: 1 } }
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
load_options { rename { pattern: "^net\\\\." } }
"""


def save(state, path):
    safetensors.numpy.save_file({name: np.array(value.numpy(), order="C")
                                 for name, value in state.items()}, path)


def main():
    program, folder, work_dir = sys.argv[1:]
    torch = slim_torch.load(program)
    slim_torch.leave_out_compiler(torch)
    torch._dynamo.OptimizedModule = type("OptimizedModule", (), {})
    torch.set_num_threads(1)
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
    nn = torch.nn

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
            lr = torch.optim.lr_scheduler
            return [optimizer], [
                dict(scheduler=lr.LinearLR(optimizer, 0.1, total_iters=50), interval="step"),
                lr.MultiStepLR(optimizer, [2, 4], gamma=0.5), lr.ExponentialLR(optimizer, 0.9)]

    saves = ModelCheckpoint(dirpath=work_dir, filename="{epoch}", save_top_k=-1)
    average = WeightAveraging(avg_fn=lambda averaged, value, _: averaged.lerp(value, 0.1))
    trainer = pl.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[average, saves])
    trainer.fit(Net(), torch.utils.data.DataLoader(Digits(torch, f"{folder}/small"), batch_size=16))
    last = torch.load(f"{work_dir}/epoch=4.ckpt", weights_only=False)
    names = list(last["state_dict"])
    save(last["current_model_state"], f"{work_dir}/model.safetensors")
    save(last["state_dict"], f"{work_dir}/ema.safetensors")
    save({f"{names[i]}/{slot}": value
          for i, slots in last["optimizer_states"][0]["state"].items()
          for slot, value in slots.items()}, f"{work_dir}/optimizer.safetensors")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
