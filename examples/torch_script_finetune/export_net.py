#!/usr/bin/env python3
"""Makes net.pt: a network that was pretrained in Python, as TorchScript.

    python3 export_net.py ../digits net.pt

It has seen 200 of the 1,437 digits. Needs torch, and nothing else.
"""

import sys

import torch
from torch import nn


class Net(nn.Module):
    """(N, 1, 8, 8) pixels in 0..1 to (N, 10) logits."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(128, 10)

    def forward(self, x):
        return self.classifier(self.dropout(self.features(x).flatten(1)))


def read_idx(path):
    """The unsigned bytes of a file of the MNIST format."""
    with open(path, "rb") as f:
        data = f.read()
    shape = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    return torch.frombuffer(bytearray(data[4 + 4 * len(shape):]), dtype=torch.uint8).view(shape)


def pretrain(net, images, labels):
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003)
    for _ in range(10):
        for batch in torch.randperm(len(labels)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()


def main(digits, output):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = Net()
    images = read_idx(f"{digits}/train-images-idx3-ubyte")[:200, None] / 16
    pretrain(net, images, read_idx(f"{digits}/train-labels-idx1-ubyte")[:200].long())
    # In training mode, and not frozen: it goes on learning.
    torch.jit.script(net).save(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
