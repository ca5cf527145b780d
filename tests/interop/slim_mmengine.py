"""MMEngine, with the torch of slim_torch and without what a training never calls:
OpenCV and matplotlib.
"""

import sys
import types

import slim_torch


def load(program):
    """Imports torch as slim_torch does, and then MMEngine. Returns torch."""
    torch = slim_torch.load(program)
    slim_torch.leave_out_compiler(torch)
    slim_torch.leave_out_fsdp()
    opencv = types.ModuleType("cv2")
    opencv.__version__ = "none"
    opencv.setNumThreads = lambda count: None
    sys.modules["cv2"] = opencv
    from mmengine.visualization import Visualizer
    # Records need no figure, which would be matplotlib's.
    figure = types.SimpleNamespace(get_dpi=lambda: 100)
    Visualizer._initialize_fig = lambda self, config: (None, figure, None)
    return torch
