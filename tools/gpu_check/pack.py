"""Writes one folder that checks Grapnel where there is a device and no Bazel: see README.md.

  pack.py [--cuda] DIR

Run by Bazel in the folder of its inputs, of which DIR gets a copy: programs and tests, without
symbols and without the folders of this machine, the files that they read, and the libraries
that they need of this machine's. Left out are libc, libm, libgomp, libstdc++, LibTorch's and
CUDA's, which the other machine has to have.
"""

import argparse
import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tempfile

import elf

LIMIT_BYTES = 60_000_000
# The oldest glibc that the folder may ask for.
GLIBC = "2.34"

PROGRAMS = ["tools/gpu_check/bench", "tools/grapnel"]
PYTHON = ["check.py", "host.py", "pytorch_loops.py"]
DATA = ["examples/digits", "tools/gpu_check/digits.textproto", "tools/gpu_check/mlp.textproto"]

# glibc's, gcc's, LibTorch's, CUDA's.
_LEFT_OUT = re.compile(
    r"(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv)"
    r"|lib(gcc_s|gomp|stdc\+\+)"
    r"|lib(torch\w*|c10\w*|shm)"
    r"|lib(cu(blas|da|dnn|fft|file|pti|rand|solver|sparse)\w*|nv\w+|nccl))\.so\b.*")


class PackError(Exception):
    pass


def _output(*command):
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout.decode()
    except subprocess.CalledProcessError as e:
        raise PackError(f"{' '.join(command)}: {e.stderr.decode().strip()}") from e


def libraries_of(listed):
    """What ldd printed, as name to path, "" where it found none."""
    found = {}
    for line in listed.splitlines():
        name, arrow, where = line.strip().partition(" => ")
        if arrow:
            found[name] = "" if where.startswith("not found") else where.rpartition(" (")[0]
    return found


def is_left_out(name):
    return _LEFT_OUT.fullmatch(name) is not None


def required_versions(listed):
    """Of what readelf --version-info printed: "GLIBC" and the like to the highest one needed."""
    needs = listed.partition("Version needs section")[2]
    found = {}
    for name, version in re.findall(r"\bName: ([A-Z]+)_(\d+(?:\.\d+)+)\b", needs):
        version = tuple(map(int, version.split(".")))
        found[name] = max(found.get(name, version), version)
    return found


def _text(version):
    return ".".join(map(str, version))


def _copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    # What lies in the runfiles is a link, and without write permission.
    shutil.copyfile(os.path.realpath(source), target)
    shutil.copymode(os.path.realpath(source), target)
    os.chmod(target, os.stat(target).st_mode | 0o200)


def _files_below(folder):
    for base, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            yield os.path.join(base, name)


class Pack:
    def __init__(self, folder, cuda):
        self.folder = folder
        self.cuda = cuda
        self.tests = []
        self.libraries = {}  # Name to path.
        self.torch = None
        self.versions = {}

    def write(self):
        self._add_data(DATA)
        with open("tools/gpu_check/gpu_tests.txt", encoding="utf-8") as f:
            for line in f:
                label, program, *data = line.rstrip("\n").split("\t")
                self.tests.append({"label": label, "program": program})
                self._add_data(data)
        for path in PROGRAMS + [test["program"] for test in self.tests]:
            self._add_program(path)
        for name, path in sorted(self.libraries.items()):
            target = os.path.join(self.folder, "lib", name)
            _copy(path, target)
            self._note_versions(target)
        for name in PYTHON:
            _copy(f"tools/gpu_check/{name}", os.path.join(self.folder, "python", name))
        for name in ["README.md", "run"]:
            _copy(f"tools/gpu_check/{name}", os.path.join(self.folder, name))
        if self.versions.get("GLIBC", (0,)) > tuple(map(int, GLIBC.split("."))):
            raise PackError(f"what is linked here needs glibc {_text(self.versions['GLIBC'])}, and may need {GLIBC}")
        self._write_manifest()
        size = sum(os.path.getsize(path) for path in _files_below(self.folder))
        if size >= LIMIT_BYTES:
            raise PackError(f"the folder would have {size / 1e6:.1f} MB, and may have {LIMIT_BYTES / 1e6:.0f}")
        return size

    def _add_program(self, path):
        for name, where in libraries_of(_output("ldd", path)).items():
            if name == "libtorch_cpu.so":
                self.torch = os.path.dirname(os.path.dirname(where))
            if is_left_out(name):
                continue
            if not where:
                raise PackError(f"{path} needs {name}, which is not found here")
            self.libraries[name] = where
        target = self._in_workspace(path)
        _copy(path, target)
        _output("strip", "--strip-unneeded", target)
        file = elf.DynamicFile(target)
        file.shorten_runpath(["$ORIGIN/" + os.path.relpath(os.path.join(self.folder, "lib"), os.path.dirname(target))])
        file.write()
        self._note_versions(target)

    def _in_workspace(self, path):
        return os.path.join(self.folder, "runfiles", "grapnel", path)

    def _note_versions(self, path):
        for name, version in required_versions(_output("readelf", "--version-info", "--wide", path)).items():
            self.versions[name] = max(self.versions.get(name, version), version)

    def _add_data(self, paths):
        for path in paths:
            if path.startswith("../"):
                raise PackError(f"{path}: lies in another repository")
            if not os.path.exists(path):
                raise PackError(f"{path} is missing")
            for file in _files_below(path) if os.path.isdir(path) else [path]:
                _copy(file, self._in_workspace(file))

    def _torch_version(self):
        path = os.path.join(self.torch, "version.py")
        if os.path.exists(path):
            return str(runpy.run_path(path)["__version__"])
        with open(os.path.join(self.torch, "build-version"), encoding="utf-8") as f:
            return f.read().strip()

    def _write_manifest(self):
        manifest = {
            "cuda": self.cuda,
            "glibc": _text(self.versions["GLIBC"]),
            "glibcxx": _text(self.versions["GLIBCXX"]),
            "machine": platform.machine(),
            "tests": self.tests,
            "torch": self._torch_version(),
        }
        with open(os.path.join(self.folder, "manifest.json"), "w", encoding="utf-8") as f:
            json.dump(manifest, f, indent=2)
            f.write("\n")


def main():
    parser = argparse.ArgumentParser(prog="pack", allow_abbrev=False)
    parser.add_argument("--cuda", action="store_true", help="what is packed was built with --config=cuda")
    parser.add_argument("folder", metavar="DIR", help="is written anew, if pack has written it before")
    options = parser.parse_args()
    # A relative one is from where the user is.
    folder = os.path.abspath(os.path.join(os.environ.get("BUILD_WORKING_DIRECTORY", ""), options.folder))
    if os.path.exists(folder) and not os.path.exists(os.path.join(folder, "manifest.json")) and (
            not os.path.isdir(folder) or os.listdir(folder)):
        raise PackError(f"{folder}: is there, and no folder of pack's")
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    # Beside it, so that what is there is whole or isn't there.
    with tempfile.TemporaryDirectory(prefix=os.path.basename(folder) + ".", dir=os.path.dirname(folder)) as new:
        pack = Pack(os.path.join(new, "pack"), options.cuda)
        size = pack.write()
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(pack.folder, folder)
    print(f"{folder}: {size / 1e6:.1f} MB, {len(pack.tests)} tests, {len(pack.libraries)} libraries, "
          f"for torch {pack._torch_version()} and glibc {_text(pack.versions['GLIBC'])}")


if __name__ == "__main__":
    try:
        main()
    except (PackError, elf.ElfError, OSError) as e:
        sys.exit(f"pack: {e}")
