"""The machine that the folder was brought to: what it must have, and how programs run there.

The programs bring what they need but glibc, libstdc++ and what comes with torch. They are
linked without libtorch_cuda.so, which nothing refers to: it registers itself when it is
loaded, so it is preloaded, and finds its own neighbours. LibTorch and CUDA's runtime are
found by LD_LIBRARY_PATH.
"""

import glob
import importlib.util
import json
import os
import platform
import re
import runpy
import signal
import subprocess
import sys
import time


# They end the whole check.
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Failed(Exception):
    """A command, or what it printed, isn't as it has to be. The message is for the table."""


def version(text):
    """"2.34" as something to compare."""
    return tuple(int(part) for part in text.split("."))


def highest(data, name):
    """The highest version of `name` among the bytes of a library, or None."""
    found = re.findall(rb"\b%s_(\d+(?:\.\d+)+)\b" % name.encode(), data)
    return max((v.decode() for v in found), key=version, default=None)


def last_lines(text, count=6):
    return "\n".join(text.strip().splitlines()[-count:])


class Folder:
    """What pack.py wrote."""

    def __init__(self, path):
        self.path = path
        with open(os.path.join(path, "manifest.json"), encoding="utf-8") as f:
            self.manifest = json.load(f)
        self.lib = os.path.join(path, "lib")
        self.runfiles = os.path.join(path, "runfiles")
        self.workspace = os.path.join(self.runfiles, "grapnel")

    def program(self, path):
        return os.path.join(self.workspace, path)


def torch_folder():
    """Of the torch that this Python imports, which may be one that can't be; None if it has none."""
    spec = importlib.util.find_spec("torch")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return folders[0] if folders else None


def torch_version(folder):
    return str(runpy.run_path(os.path.join(folder, "version.py"))["__version__"])


class Host:
    """Runs the folder's programs. `scratch` is where they may write."""

    def __init__(self, folder, device, scratch, deadline):
        self.folder = folder
        self.device = device
        self.scratch = scratch
        self.deadline = deadline
        self.torch = torch_folder()
        self.preload = None
        self.notes = []
        self._started = []

    # ------------------------------------------------------------- what it must have

    def problems(self):
        """What the machine lacks, a sentence each."""
        manifest = self.folder.manifest
        found = []
        if sys.platform != "linux" or platform.machine() != manifest["machine"]:
            return [f"this is {sys.platform} on {platform.machine()}: the programs are for linux on "
                    f"{manifest['machine']}"]
        libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
        name, _, has = (libc or "").partition(" ")
        if name != "glibc":
            return [f"the C library is {libc or 'not glibc'}: glibc {manifest['glibc']} or newer is needed"]
        if version(has) < version(manifest["glibc"]):
            # Nothing else can be asked: no program would start.
            return [f"glibc is {has}: {manifest['glibc']} or newer is needed"]
        if self.torch is None:
            return [f"{sys.executable} has no torch: install torch=={manifest['torch']}, or set PYTHON "
                    "to the one that has it"]
        torch = torch_version(self.torch)
        if torch != manifest["torch"]:
            found.append(f"torch is {torch}, in {self.torch}: the programs are built with {manifest['torch']}")
        if self.device != "cpu" and not manifest["cuda"]:
            found.append("the programs are built without --config=cuda: there is --device cpu alone")
        return found or self._missing_libraries()

    def _missing_libraries(self):
        """By the loader itself, which says for a program where each library is."""
        listed = subprocess.run(
            [self.folder.program("tools/gpu_check/bench")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**self.env(), "LD_TRACE_LOADED_OBJECTS": "1"}, check=False).stdout.decode()
        where = dict(re.findall(r"^\s*(\S+) => (/\S+)", listed, re.MULTILINE))
        needed = self.folder.manifest["glibcxx"]
        if "libstdc++.so.6" in where:
            with open(where["libstdc++.so.6"], "rb") as f:
                has = highest(f.read(), "GLIBCXX")
            if has is None or version(has) < version(needed):
                return [f"{where['libstdc++.so.6']} has GLIBCXX_{has}: GLIBCXX_{needed} is needed, as gcc 12's "
                        "or a newer libstdc++ has"]
        missing = re.findall(r"^\s*(\S+) => not found", listed, re.MULTILINE)
        found = [f"{name} is missing" for name in missing]
        return found + [line.strip() for line in listed.splitlines() if "version `" in line]

    def find_device(self):
        """Sees if LibTorch's CUDA library can be loaded, and which device there is: its name.

        Failed if that is none, or if it is one that the library would be needed for.
        """
        library = os.path.join(self.torch, "lib", "libtorch_cuda.so")
        if self.folder.manifest["cuda"]:
            self.preload = library
            try:
                if not self._ask_device("cpu")["torch_cuda"]:
                    raise Failed(f"{library} isn't loaded, though it is preloaded")
                self.notes.append(f"libtorch_cuda.so is loaded, from {os.path.dirname(library)}")
            except Failed as e:
                self.preload = None
                if self.device != "cpu":
                    raise Failed(f"libtorch_cuda.so can't be loaded: {e}") from e
                self.notes.append(f"libtorch_cuda.so is not loaded: {e}")
        return self._ask_device(self.device)["device"]

    def _ask_device(self, name):
        output = self.output([self.folder.program("tools/gpu_check/bench"), "device", name], 60)
        # The loader's warnings stand above it.
        return json.loads(last_lines(output, 1))

    # --------------------------------------------------------------------- programs

    def _folder_of_scratch(self, name):
        path = os.path.join(self.scratch, name)
        os.makedirs(path, exist_ok=True)
        return path

    def scratch_env(self):
        """For every program: what it leaves lies in `scratch`."""
        return {**os.environ, "TMPDIR": self._folder_of_scratch("tmp"),
                "CUDA_CACHE_PATH": self._folder_of_scratch("cuda_cache"), "PYTHONDONTWRITEBYTECODE": "1"}

    def env(self):
        """For the folder's programs."""
        lib = os.path.join(self.torch, "lib")
        runtime = sorted(glob.glob(os.path.join(self.torch, "..", "nvidia", "*", "lib", "libcudart.so.*")))
        path = [self.folder.lib, lib] + [os.path.dirname(f) for f in runtime[:1]]
        if os.environ.get("LD_LIBRARY_PATH"):
            path.append(os.environ["LD_LIBRARY_PATH"])
        env = {**self.scratch_env(), "HOME": self._folder_of_scratch("home"), "LD_LIBRARY_PATH": ":".join(path)}
        env.pop("LD_PRELOAD", None)
        if self.preload:
            env["LD_PRELOAD"] = self.preload
        return env

    def time_left(self, limit):
        left = min(limit, self.deadline - time.monotonic())
        if left <= 0:
            raise Failed("not done: the time was over")
        return left

    def start(self, command, env=None, **popen):
        """A process of its own group, which `stop` ends as a whole, and `close` at the latest."""
        # An exception of a signal's, raised while Popen waits for the program, would leave one that nobody knows.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            process = subprocess.Popen(
                command, env=env or self.env(), start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before), **popen)
            self._started.append(process)
        except OSError as e:
            raise Failed(f"{e.filename}: {e.strerror}") from e
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    def close(self):
        """Ends what an exception left behind."""
        for process in self._started:
            if process.returncode is None:
                self.stop(process)

    @staticmethod
    def stop(process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def run(self, command, limit, env=None, cwd=None):
        """(exit status, output and errors). Failed if it takes longer than `limit` seconds."""
        limit = self.time_left(limit)
        process = self.start(command, env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
        try:
            output, _ = process.communicate(timeout=limit)
            return process.returncode, output.decode(errors="replace")
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{os.path.basename(command[0])}: not done within {limit:.0f} s") from e
        finally:
            self.stop(process)

    def output(self, command, limit, env=None, cwd=None):
        """What a command prints. Failed, with the end of it, unless it succeeds."""
        status, output = self.run(command, limit, env, cwd)
        if status != 0:
            raise Failed(f"{os.path.basename(command[0])} ended with {status}: {last_lines(output)}")
        return output
