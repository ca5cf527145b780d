"""The loops that PyTorch's users write, of the models of mlp.textproto and digits.textproto.

  pytorch_loops.py MODEL DEVICE FOLDER

FOLDER has the files `images` and `labels`, which our program reads too. Prints how many
parameters the model has; then reads a number of iterations from a line of stdin, does them,
and prints the seconds that one took. As fast as such a loop is: all numbers are floats in
memory, a batch is one indexing, pinned and copied without a wait, and the optimizer is fused.
"""

import json
import struct
import sys
import time

import torch
from torch import nn


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def digits():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 2 * 2, 10))


# Name: the model, its batch's size, what pixels are multiplied by, the optimizer.
MODELS = {
    "mlp": (mlp, 32, 1 / 255, lambda p: torch.optim.SGD(p, lr=0.01, fused=True)),
    "digits": (digits, 64, 1 / 16, lambda p: torch.optim.AdamW(p, lr=0.002, weight_decay=0.05, fused=True)),
}


def read_idx(path):
    with open(path, "rb") as f:
        data = f.read()
    rank = data[3]
    shape = struct.unpack_from(f">{rank}I", data, 4)
    return torch.frombuffer(bytearray(data[4 + 4 * rank:]), dtype=torch.uint8).reshape(shape)


def batches(images, labels, size, device):
    on_cpu = device.type == "cpu"
    while True:
        order = torch.randperm(len(images))
        for start in range(0, len(images) - size + 1, size):
            chosen = order[start:start + size]
            batch = images[chosen], labels[chosen]
            yield batch if on_cpu else [t.pin_memory().to(device, non_blocking=True) for t in batch]


def main():
    name, device_name, folder = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(device_name)
    new_model, size, scale, new_optimizer = MODELS[name]
    model = new_model().to(device)
    optimizer = new_optimizer(model.parameters())
    images = read_idx(f"{folder}/images").unsqueeze(1).float() * scale
    data = batches(images, read_idx(f"{folder}/labels").long(), size, device)

    def iterate():
        inputs, targets = next(data)
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def synchronize():
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    iterate()
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters())}), flush=True)
    for line in sys.stdin:
        iterations = int(line)
        synchronize()
        begin = time.perf_counter()
        for _ in range(iterations):
            iterate()
        synchronize()
        print((time.perf_counter() - begin) / iterations, flush=True)


if __name__ == "__main__":
    main()
