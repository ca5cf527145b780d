"""LibTorch in a prefix: lib/grapnel/torch, a copy of what runs or a link to a whole one.

A wheel's libraries look for NVIDIA's in ../../nvidia, so a copy has those beside it, in
lib/grapnel/nvidia.
"""

import csv
import glob
import os
import re

import elf
from prefix import OWN_FOLDERS, InstallError

_PLACE = "lib/grapnel"
_CPU = "lib/libtorch_cpu.so"
_LIBRARIES = [_CPU, "lib/libc10.so"]
# Loads others by name when it runs, cuBLAS and cuDNN among them.
_CUDA = "libtorch_cuda.so"
# Where a version is told, the first that is there: in a LibTorch of today, in an older one, in
# one that came without headers. ./bazelw reads the same headers.
_DEFINED = re.compile(r"^#define TORCH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", re.MULTILINE)
_ASSIGNED = re.compile(r"^__version__ = '(\d+)\.(\d+)\.(\d+)", re.MULTILINE)
_VERSIONS = [
    ("include/torch/headeronly/version.h", _DEFINED),
    ("include/torch/csrc/api/include/torch/version.h", _DEFINED),
    ("version.py", _ASSIGNED),
]
_MOST_LINKS = 40  # As the kernel follows.


def built_with(library):
    """The LibTorch that a library of Bazel's was linked with: a folder with lib/ in it."""
    for folder in elf.DynamicFile(library).runpath():
        torch = os.path.dirname(folder)
        if os.path.isabs(folder) and os.path.exists(os.path.join(torch, _CPU)):
            return torch
    raise InstallError(f"{library}: the LibTorch that it was linked with isn't there any more")


def _version_file(torch):
    """What tells its version, and the pattern of the numbers in it; (None, None) if nothing does."""
    for name, pattern in _VERSIONS:
        if os.path.exists(os.path.join(torch, name)):
            return name, pattern
    return None, None


def version(torch):
    """Its version as ["2", "11", "0"]; an empty list if nothing tells it."""
    name, pattern = _version_file(torch)
    if name is None:
        return []
    with open(os.path.join(torch, name), encoding="utf-8", errors="replace") as file:
        return [number for found in pattern.finditer(file.read()) for number in found.groups()]


def _way(path):
    """All places by which the system comes to `path`: folders, and links in them."""
    place, links = "/", 0
    left = os.path.abspath(path).split("/")
    while left:
        name = left.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            place = os.path.dirname(place)
            continue
        place = os.path.join(place, name)
        yield place
        if os.path.islink(place) and links < _MOST_LINKS:
            links += 1
            target = os.readlink(place)
            left = target.split("/") + left
            place = "/" if os.path.isabs(target) else os.path.dirname(place)


def check(torch, prefix, linked):
    """Raises unless a prefix may have a link to `torch`, or a copy of it.

    It must be there when the prefix is written, and be of the version of the LibTorch that
    `linked` was linked with.
    """
    for name in _LIBRARIES:
        path = os.path.join(torch, name)
        if not os.path.exists(path):
            raise InstallError(f"--libtorch: {torch} has no {name}")
        if not elf.is_elf(path):
            raise InstallError(f"--libtorch: {path}: is no 64-bit ELF file")
    ways = {place for name in _LIBRARIES for place in _way(os.path.join(torch, name))}
    for folder in OWN_FOLDERS:
        above, name = os.path.split(os.path.join(prefix, folder))
        own = os.path.join(os.path.realpath(above), name)
        if own in ways:
            raise InstallError(f"--libtorch: {torch} is in {own}, which is replaced: "
                               "name a LibTorch outside")
    numbers, wanted = version(torch), version(built_with(linked))
    if not numbers or numbers[:2] != wanted[:2]:
        told, ours = (".".join(of) or "unknown" for of in (numbers, wanted))
        raise InstallError(f"--libtorch: {torch} is version {told}, Grapnel is built with {ours}")


def link(staging, torch, linked):
    check(torch, staging.prefix, linked)
    staging.link(f"{_PLACE}/torch", torch)


def _find(name, torch, needs):
    """Where `needs`, one of LibTorch's or None, finds the library `name`; None: in the system."""
    folders = [os.path.join(torch, "lib")]
    if needs:
        origin = os.path.dirname(needs)
        folders += [folder.replace("$ORIGIN", origin)
                    for folder in elf.DynamicFile(needs).runpath()]
    around = os.path.join(os.path.dirname(torch), "")  # Ends with one "/", also as the root.
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


def bundle(staging, linked, programs):
    """Copies what `programs` need of the LibTorch that `linked` was linked with.

    Its licences come along. Returns how many bytes the libraries have.
    """
    torch = os.path.abspath(built_with(linked))
    check(torch, staging.prefix, linked)
    paths = needed_of(torch, programs)
    if any(os.path.basename(path) == _CUDA for path in paths):
        raise InstallError("--libtorch bundle: a LibTorch that computes by CUDA loads libraries by "
                           "name, which aren't known here: use --libtorch link")
    if os.path.join(torch, _CPU) not in paths:
        raise InstallError(f"--libtorch bundle: nothing that is installed needs {torch}/{_CPU}")
    around = os.path.dirname(torch)
    for path in paths:
        # Whatever it is called there, it is called torch.
        inside = path.startswith(os.path.join(torch, ""))
        relative = os.path.relpath(path, torch if inside else around)
        staging.add(f"{_PLACE}/torch/{relative}" if inside else f"{_PLACE}/{relative}", path)
    # So that another prefix may have a link to this copy.
    told, _ = _version_file(torch)
    staging.add(f"{_PLACE}/torch/{told}", os.path.join(torch, told))
    files = {os.path.relpath(path, around) for path in paths}
    for wheel, licences in _licences(around, files).items():
        for path in licences:
            staging.add(f"share/doc/grapnel/{wheel}/{os.path.basename(path)}", path)
    return sum(os.path.getsize(path) for path in paths)
