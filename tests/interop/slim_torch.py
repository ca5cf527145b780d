"""Python's torch from the wheel that our programs are linked with.

That wheel wants CUDA's libraries, 3 GB that bazelw leaves out. On the CPU none
of them is ever called: for each that is missing an empty library of its name
does, made by every process for itself.
"""

import ctypes
import glob
import importlib.abc
import importlib.machinery
import os
import re
import subprocess
import sys
import tempfile
import types


def _output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()


def _missing_libraries(lib):
    """Those that torch's Python module needs and the loader doesn't find."""
    listed = _output("ldd", f"{lib}/libtorch_python.so", f"{lib}/libtorch_global_deps.so")
    return sorted(set(re.findall(r"^\s*(\S+) => not found", listed, re.MULTILINE)))


def _versions(lib):
    """Name of a library to the symbol versions that torch's libraries want of it."""
    wanted = {}
    for path in glob.glob(f"{lib}/*.so"):
        library = None
        for line in _output("readelf", "--version-info", "--wide", path).splitlines():
            match = re.search(r"\bFile: (\S+)", line)
            library = match.group(1) if match else library
            match = re.search(r"\bName: (\S+)", line)
            if match and library:
                wanted.setdefault(library, set()).add(match.group(1))
    return wanted


def _stand_in(name, versions, folder):
    script = os.path.join(folder, name + ".versions")
    with open(script, "w") as f:
        f.writelines(f"{version} {{}};\n" for version in sorted(versions))
    path = os.path.join(folder, name)
    subprocess.run(["gcc", "-shared", "-nostdlib", "-x", "c", os.devnull, "-o", path,
                    f"-Wl,-soname,{name}", f"-Wl,--version-script={script}"], check=True)
    return path


def load(program):
    """Imports torch: the one whose libtorch_cpu.so `program` is linked with."""
    lib = os.path.dirname(re.search(r"libtorch_cpu\.so => (\S+)", _output("ldd", program)).group(1))
    package = os.path.dirname(lib)
    if not os.path.exists(f"{package}/__init__.py"):
        sys.exit(f"{package} is a LibTorch without Python: unset LIBTORCH, or set it to that of a wheel")
    sys.path.insert(0, os.path.dirname(package))
    versions = _versions(lib)
    with tempfile.TemporaryDirectory() as folder:
        # The loader takes a library that is there already, by its name.
        for name in _missing_libraries(lib):
            ctypes.CDLL(_stand_in(name, versions.get(name, {"none"}), folder), ctypes.RTLD_GLOBAL)
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)  # What isn't called needn't be there.
    import torch
    sys.setdlopenflags(flags)
    return torch


def leave_out_compiler(torch):
    """For training: torch asks torch.compile's module whether it is in use; the
    module itself needs packages that the wheel doesn't bring."""
    dynamo = types.ModuleType("torch._dynamo")
    dynamo.utils = types.SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer")
    dynamo.trace_rules = types.SimpleNamespace(clear_lru_cache=lambda: None)
    dynamo.disable = lambda function, *args, **kwargs: function
    dynamo.graph_break = lambda: None
    dynamo.OptimizedModule = type("OptimizedModule", (torch.nn.Module,), {})
    sys.modules["torch._dynamo"] = torch._dynamo = dynamo


_FSDP = "torch.distributed.fsdp"


class _StandIn(types.ModuleType):
    """Has a class of any name that is asked for."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, type(name, (), {}))
        return getattr(self, name)


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path, target=None):
        if fullname == _FSDP or fullname.startswith(f"{_FSDP}."):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        pass


def leave_out_fsdp():
    """A part of torch that no training here calls, and that wants packages of its
    own."""
    sys.meta_path.insert(0, _StandIns())
