"""Trainings of several ranks that a test disturbs: their processes, what they
said, and what they left."""

import glob
import json
import os
import signal
import struct
import subprocess
import sys
import time

_TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(_TESTS, "resume_oracle"))
from what_is_left import fields  # noqa: E402

TORCHRUN = os.path.join(_TESTS, "interop", "torchrun.py")

SAMPLES = 96

# An epoch of 6 iterations on 2 ranks; dropout draws from each rank's generator.
CONFIG = """
model { sequential {
  layers { flatten {} }
  layers { linear { out_features: 1024 } }
  layers { relu {} }
  layers { dropout { p: 0.2 } }
  layers { linear { out_features: 3 } }
  loss { cross_entropy {} }
} }
train_dataloader {
  batch_size: 8
  sampler { shuffle: true }
  dataset { idx { images: "images" labels: "labels" } }
}
val_dataloader {
  batch_size: 8
  dataset { idx { images: "images" labels: "labels" } }
}
val_evaluator { accuracy {} }
train_cfg { max_epochs: 40 }
optim_wrapper {
  optimizer { adamw { lr: 0.001 } }
  clip_grad { max_norm: 1 }
}
param_scheduler { cosine_annealing { by_epoch: true end: 40 } }
default_hooks {
  checkpoint { interval: 1 max_keep_ckpts: 2 save_best: "accuracy/top1" }
  logger { interval: 2 }
}
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
randomness { seed: 3 diff_rank_seed: true }
launcher: "auto"
distributed { timeout_seconds: 30 join_timeout_seconds: 30 }
"""


def write_inputs(folder, config=CONFIG):
    """A config and its data, in a folder that is made."""
    os.makedirs(folder)
    pixels = bytes((37 * i * i + 11 * i) % 256 for i in range(16 * SAMPLES))
    with open(f"{folder}/images", "wb") as f:
        f.write(struct.pack(">IIII", 0x803, SAMPLES, 4, 4) + pixels)
    with open(f"{folder}/labels", "wb") as f:
        f.write(struct.pack(">II", 0x801, SAMPLES) + bytes(i * i % 3 for i in range(SAMPLES)))
    with open(f"{folder}/net.textproto", "w") as f:
        f.write(config)


def wait_for(what, seconds, pause=0.002):
    """What `what` returns, once it is true; whatever it is after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found or time.monotonic() > end:
            return found
        time.sleep(pause)


def processes(mark):
    """Those that were started with MARK=mark, and theirs: pid to environment."""
    found = {}
    wanted = f"MARK={mark}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                variables = f.read().split(b"\0")
        except OSError:
            continue
        if wanted in variables:
            found[int(pid)] = dict(v.decode(errors="replace").split("=", 1)
                                   for v in variables if b"=" in v)
    return found


def end_by_exit():
    """A test that takes too long ends as any other: nothing stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it was told to end"))


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


class Job:
    """A launcher, or a rank without one, and all that it starts."""

    def __init__(self, command, folder, name, environment=None):
        self.mark = f"{folder}/{name}"
        self.log = f"{folder}/{name}.log"
        variables = dict(os.environ, MARK=self.mark, OMP_NUM_THREADS="1")
        for variable in ("BUILD_WORKING_DIRECTORY", "RANK", "WORLD_SIZE"):
            variables.pop(variable, None)
        variables.update(environment or {})
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, env=variables, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT)
        self.began = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Whatever came of it, nothing stays. A stopped process dies by SIGKILL.
        if self.process.poll() is None:
            send(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pid in processes(self.mark):
            send(pid, signal.SIGKILL)

    def output(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def wait_for_line(self, text, seconds=60):
        wait_for(lambda: text in self.output() or self.process.poll() is not None, seconds)
        if text not in self.output():
            raise AssertionError(f"never said: {text}\n{self.output()}")

    def ranks(self, attempt=None):
        """Rank to pid, of those that run now, of any attempt or of this one."""
        return {int(e["RANK"]): pid for pid, e in processes(self.mark).items() if "RANK" in e
                and attempt in (None, int(e.get("TORCHELASTIC_RESTART_COUNT", 0)))}

    def wait(self, seconds):
        """Its exit code, 128 + N for a signal, and how long it took from now;
        no code if it isn't done in time."""
        begin = time.monotonic()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None, seconds
        return (128 - code if code < 0 else code), time.monotonic() - begin

    def left_behind(self, seconds=30):
        """Processes that are still there after a while."""
        wait_for(lambda: not processes(self.mark), seconds, pause=0.02)
        return processes(self.mark)


def train(program, folder, *more):
    return [program, "train", f"{folder}/net.textproto", f"--work-dir={folder}/w",
            "--threads=1", *more]


def launch(program, folder, ranks, restarts, *more):
    return [program, "launch", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}",
            "--grace=20s", "--", *train(program, folder, *more)[1:]]


def torchrun(program, folder, ranks, restarts, *more):
    return [sys.executable, TORCHRUN, program, f"--nproc-per-node={ranks}", "--no-python",
            "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--monitor-interval=0.1",
            f"--max-restarts={restarts}", *train(program, folder, *more)]


# ------------------------------------------------------------ what is left

def _without_times(hub):
    """Of a MessageHubState, all but what the clock gave and the run's name; and
    but "epoch" and "iter", which are of the last iteration's begin, or of where
    training began again if that was between it and a validation."""
    kept = []
    for number, value in fields(hub):
        name = next((v for n, v in fields(value) if n == 1), b"")
        if number == 1 and name.endswith(b"time"):
            # Values and sums of a history; how many there are counts.
            value = [(n, len(v) if isinstance(v, bytes) else v) for n, v in fields(value)]
        if number == 2 and name in (b"eta", b"experiment_name", b"epoch", b"iter"):
            value = name
        kept.append((number, value))
    return sorted(kept, key=repr)


def _in_any_order(data):
    """A serialized message, whatever order the entries of its maps have."""
    try:
        found = list(fields(data))
    except IndexError:
        return data  # No message.
    return sorted(((n, _in_any_order(v) if isinstance(v, bytes) else v) for n, v in found),
                  key=repr)


def _state(path):
    """Fields of a RunState; 4 has the optimizer's, 6 is the hub, 8 has ranks."""
    scrub = {4: _in_any_order, 6: _without_times}
    return [(number, scrub.get(number, bytes)(value) if isinstance(value, bytes) else value)
            for number, value in fields(_bytes(path))]


def _bytes(path):
    with open(path, "rb") as f:
        return f.read()


def _progress(path):
    """Of a manifest, behind its frame."""
    return [value for number, value in fields(_bytes(path)[28:]) if number == 15]


def checkpoints(work_dir):
    return {os.path.basename(os.path.dirname(p))
            for p in glob.glob(f"{work_dir}/*/manifest.pb")}


def _records(work_dir):
    """The records of all attempts, in their order: of those that were made
    twice, the last."""
    kept = {}
    for path in sorted(glob.glob(f"{work_dir}/*/vis_data/scalars.json")):
        for line in _bytes(path).decode().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # Cut by a kill; it was written again.
            record = json.loads(line)
            for name in ("time", "data_time", "eta", "memory"):
                record.pop(name, None)
            kept["iter" in record, record["step"]] = record
    return kept


def outcome(work_dir):
    """All that has to be the same, whatever happened on the way."""
    found = {"checkpoints": checkpoints(work_dir), "records": _records(work_dir)}
    for name in found["checkpoints"]:
        folder = f"{work_dir}/{name}"
        found[f"{name}: progress"] = _progress(f"{folder}/manifest.pb")
        found[f"{name}: state"] = _state(f"{folder}/state.pb")
        for path in glob.glob(f"{folder}/*.safetensors"):
            found[f"{name}: {os.path.basename(path)}"] = _bytes(path)
    found["hidden"] = {os.path.basename(p) for p in glob.glob(f"{work_dir}/.*")}
    return found


def differences(a, b):
    """Names of what isn't the same in two outcomes."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
