"""LibTorch in a prefix: lib/grapnel/torch, a copy of what runs or a link to a whole one.

A wheel's libraries look for NVIDIA's in ../../nvidia, so a copy has those beside it, in
lib/grapnel/nvidia.
"""

import csv
import glob
import os

import elf
from prefix import InstallError

_PLACE = "lib/grapnel"
_LIBRARY = "lib/libtorch_cpu.so"
# Loads others by name when it runs, cuBLAS and cuDNN among them.
_CUDA = "libtorch_cuda.so"


def built_with(library):
    """The LibTorch that a library of Bazel's was linked with: a folder with lib/ in it."""
    for folder in elf.DynamicFile(library).runpath():
        torch = os.path.dirname(folder)
        if os.path.isabs(folder) and os.path.exists(os.path.join(torch, _LIBRARY)):
            return torch
    raise InstallError(f"{library}: the LibTorch that it was linked with isn't there any more")


def check(torch):
    if not os.path.exists(os.path.join(torch, _LIBRARY)):
        raise InstallError(f"--libtorch: {torch} has no {_LIBRARY}")


def link(staging, torch):
    check(torch)
    staging.link(f"{_PLACE}/torch", torch)


def _find(name, torch, needs):
    """Where `needs`, one of LibTorch's or None, finds the library `name`; None: in the system."""
    folders = [os.path.join(torch, "lib")]
    if needs:
        origin = os.path.dirname(needs)
        folders += [folder.replace("$ORIGIN", origin)
                    for folder in elf.DynamicFile(needs).runpath()]
    around = os.path.dirname(torch) + "/"
    for folder in folders:
        path = os.path.normpath(os.path.join(folder, name))
        if path.startswith(around) and os.path.exists(path):
            return path
    return None


def needed_of(torch, programs):
    """What `programs` need of LibTorch and of what lies beside it, by all ways: absolute paths."""
    found = []
    waiting = [(name, None) for program in programs for name in elf.DynamicFile(program).needed()]
    while waiting:
        name, needs = waiting.pop()
        path = _find(name, torch, needs)
        if path and path not in found:
            found.append(path)
            waiting += [(name, path) for name in elf.DynamicFile(path).needed()]
    return sorted(found)


def _licences(around, files):
    """Licences of the wheels that `files`, relative to `around`, are of: name to their paths."""
    found = {}
    for record in glob.glob(os.path.join(glob.escape(around), "*.dist-info", "RECORD")):
        with open(record, encoding="utf-8", newline="") as file:
            if files.isdisjoint(row[0] for row in csv.reader(file) if row):
                continue
        folder = os.path.dirname(record)
        name = os.path.basename(folder)[:-len(".dist-info")]
        licences = os.path.join(glob.escape(folder), "licenses", "**")
        found[name] = [path for path in glob.glob(licences, recursive=True) if os.path.isfile(path)]
    return found


def bundle(staging, torch, programs):
    """Copies what `programs` need, and its licences. Returns how many bytes that are."""
    check(torch)
    torch = os.path.abspath(torch)
    around = os.path.dirname(torch)
    paths = needed_of(torch, programs)
    if any(os.path.basename(path) == _CUDA for path in paths):
        raise InstallError("--libtorch bundle: a LibTorch that computes by CUDA loads libraries by "
                           "name, which aren't known here: use --libtorch link")
    files = {os.path.relpath(path, around): path for path in paths}
    name = os.path.basename(torch)
    for relative, path in files.items():
        if relative.startswith(name + "/"):
            relative = "torch" + relative[len(name):]
        staging.add(f"{_PLACE}/{relative}", path)
    for wheel, licences in _licences(around, set(files)).items():
        for path in licences:
            staging.add(f"share/doc/grapnel/{wheel}/{os.path.basename(path)}", path)
    return sum(os.path.getsize(path) for path in paths)
