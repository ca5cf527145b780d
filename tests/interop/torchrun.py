"""torchrun of the wheel that a program is linked with.

Usage: torchrun.py PROGRAM ARGUMENT...
"""

import sys

import slim_torch

slim_torch.load(sys.argv[1])
from torch.distributed import run  # noqa: E402

run.main(sys.argv[2:])
