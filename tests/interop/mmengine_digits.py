"""Trainings of MMEngine's on the digits of examples/digits, whose checkpoints are
compared with ours: what several tests have in common.

Nothing here imports torch or MMEngine by itself.
"""

import glob
import json
import os

import numpy as np
import safetensors.numpy

_DIGITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "digits")
SEED = 3


def write_idx(folder, kind, name, count=None):
    """The first `count` digits of `kind` as `name`-images and `name`-labels."""
    for what, dims in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
        with open(f"{_DIGITS}/{kind}-{what}", "rb") as f:
            data = f.read()
        shape = np.frombuffer(data, ">u4", dims, 4).copy()
        shape[0] = count or shape[0]
        head = data[:4] + shape.tobytes()
        with open(f"{folder}/{name}-{what.split('-')[0]}", "wb") as f:
            f.write(head + data[len(head):len(head) + int(shape.prod())])


def write_data(folder):
    """What trainings read there. Batches and shards of "small" and "val" don't
    come out even."""
    write_idx(folder, "train", "small", 203)
    write_idx(folder, "train", "all")
    write_idx(folder, "test", "val", 89)


def read_idx(path):
    with open(path, "rb") as f:
        data = f.read()
    dims = data[3]
    shape = np.frombuffer(data, ">u4", dims, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def records_of(work_dir):
    """Of the one run there, of ours or of MMEngine's."""
    path, = glob.glob(f"{work_dir}/*/vis_data/scalars.json")
    with open(path) as f:
        return [json.loads(line) for line in f]


class Digits:
    def __init__(self, torch, prefix):
        images = read_idx(f"{prefix}-images").astype(np.float32) / 16
        self._images = torch.from_numpy(images).unsqueeze(1)
        self._labels = torch.from_numpy(read_idx(f"{prefix}-labels").astype(np.int64))

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, i):
        return self._images[i], self._labels[i]


def loader(torch, path, sampler, batch_size):
    return dict(batch_size=batch_size, num_workers=0, sampler=sampler,
                dataset=Digits(torch, path), collate_fn=dict(type="default_collate"))


def make_model(torch, layers, weights):
    """Layers and names of the Sequential that ours is configured to be."""
    from mmengine.model import BaseModel

    class Net(BaseModel):
        def __init__(self):
            super().__init__()
            for name, layer in enumerate(layers):
                self.add_module(str(name), layer)

        def forward(self, images, labels, mode):
            x = images
            for name in range(len(layers)):
                x = getattr(self, str(name))(x)
            if mode == "loss":
                return dict(loss=torch.nn.functional.cross_entropy(x, labels))
            return [(x, labels)]

    net = Net()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return net


def register_top_k():
    from mmengine.evaluator import BaseMetric
    from mmengine.registry import METRICS

    @METRICS.register_module()
    class TopK(BaseMetric):
        default_prefix = "accuracy"

        def process(self, data_batch, data_samples):
            for out, labels in data_samples:
                places = (out > out.gather(1, labels[:, None])).sum(1)
                self.results += places.tolist()

        def compute_metrics(self, results):
            places = np.array(results)
            return {f"top{k}": float((places < k).mean() * 100) for k in (1, 3)}


def save(state, path):
    safetensors.numpy.save_file({name: np.array(value.numpy(), order="C")
                                 for name, value in state.items()}, path)


def save_sections(checkpoint, parameters, prefix):
    """What a .pth file holds, in our sections and by our names.

    `parameters`: the names of the optimizer's, in its order; of several
    optimizers by theirs.
    """
    model, averaged = checkpoint["state_dict"], checkpoint.get("ema_state_dict")
    sections = {"model": model}
    if averaged is not None:
        # c11: theirs exchanges the two.
        raw = {name[len("module."):]: value for name, value in averaged.items() if name != "steps"}
        sections = {"model": raw, "ema": model}
    if "optimizer" in checkpoint:
        if not isinstance(parameters, dict):
            parameters = {"": parameters}
        sections["optimizer"] = {}
        for optimizer, names in parameters.items():
            state = checkpoint["optimizer"]
            if optimizer:
                state = state[optimizer]
                names = [f"{optimizer}/{name}" for name in names]
            sections["optimizer"].update(
                {f"{names[i]}/{slot}": value for i, slots in state["state"].items()
                 for slot, value in slots.items()})
    for section, state in sections.items():
        save(state, f"{prefix}.{section}.safetensors")
