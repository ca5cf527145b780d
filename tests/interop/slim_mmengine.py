"""MMEngine, with the torch of slim_torch and without what a training never calls:
OpenCV, matplotlib, and a part of torch that wants packages of its own.
"""

import importlib.abc
import importlib.machinery
import sys
import types

import slim_torch

_NEVER_CALLED = "torch.distributed.fsdp"


class _StandIn(types.ModuleType):
    """Has a class of any name that is asked for."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, type(name, (), {}))
        return getattr(self, name)


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path, target=None):
        if fullname == _NEVER_CALLED or fullname.startswith(f"{_NEVER_CALLED}."):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        pass


def load(program):
    """Imports torch as slim_torch does, and then MMEngine. Returns torch."""
    torch = slim_torch.load(program)
    slim_torch.leave_out_compiler(torch)
    sys.meta_path.insert(0, _StandIns())
    opencv = types.ModuleType("cv2")
    opencv.__version__ = "none"
    opencv.setNumThreads = lambda count: None
    sys.modules["cv2"] = opencv
    from mmengine.visualization import Visualizer
    # Records need no figure, which would be matplotlib's.
    figure = types.SimpleNamespace(get_dpi=lambda: 100)
    Visualizer._initialize_fig = lambda self, config: (None, figure, None)
    return torch
