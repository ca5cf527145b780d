"""Checks Grapnel on a machine's device, by the programs beside it, and prints one table.

Run by `run`. Exit status: 0 if nothing failed, 1 if something did, 2 if the machine or the
command line isn't as it has to be. A goal that is missed is no failure; the table says so.
"""

import argparse
import json
import os
import re
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import time

import host
from host import Failed

SECONDS = 450  # In all, so that it ends within 8 minutes.

OK, FAILED, NO_DEVICE, NO_RESULT, MISSED = "ok", "FAILED", "no device", "no result", "goal missed"

_MARK = "gpu_check_output"  # In the folder of the output, which is then ours to empty.
_EMA_GOAL = 1.2             # Times as fast as _foreach_lerp_, or our kernel goes.

# Rows.
_COPIES, _RESUME = "host copies, iteration", "kill and resume"


class Ended(Exception):
    """A signal asked for it."""


class Row:
    def __init__(self, name, status, text):
        self.name = name
        self.status = status
        self.text = text


def is_result(a_a):
    """As tools/bench/measure.h: whether the machine did nothing else meanwhile."""
    return 0.98 <= a_a <= 1.02


# ------------------------------------------------------------------------------- tests

def count_cases(report):
    """(passed, skipped, names of those that failed) in a report of GoogleTest's."""
    passed, skipped, failed = 0, 0, []
    for suite in report["testsuites"]:
        for case in suite["testsuite"]:
            if case.get("failures"):
                failed.append(f"{suite['name']}.{case['name']}")
            elif case["result"] == "SKIPPED":
                skipped += 1
            elif case["result"] == "COMPLETED":
                passed += 1
    return passed, skipped, failed


def row_of_test(name, on_cpu, report):
    passed, skipped, failed = count_cases(report)
    if failed:
        return Row(name, FAILED, ", ".join(failed))
    if not passed + skipped:
        return Row(name, FAILED, "has no test in it")
    if skipped and on_cpu:
        return Row(name, NO_DEVICE, f"{passed} passed, {skipped} need one")
    if not passed:
        return Row(name, FAILED, f"all {skipped} were skipped, and there is a device")
    return Row(name, OK, f"{passed} passed" + (f", {skipped} skipped" if skipped else ""))


def run_test(machine, test):
    temporary = os.path.join(machine.scratch, "test_tmpdir")
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    report = os.path.join(machine.scratch, "test.json")
    if os.path.exists(report):
        os.remove(report)
    env = {**machine.env(), "TEST_TMPDIR": temporary, "TEST_SRCDIR": machine.folder.runfiles,
           "TEST_WORKSPACE": "grapnel", "GTEST_OUTPUT": f"json:{report}"}
    status, output = machine.run([machine.folder.program(test["program"])], 120, env,
                                 machine.folder.workspace)
    try:
        with open(report, encoding="utf-8") as f:
            row = row_of_test(test["label"], machine.device == "cpu", json.load(f))
    except (OSError, ValueError) as e:
        raise Failed(f"ended with {status} and no report: {host.last_lines(output)}") from e
    if status != 0 and row.status != FAILED:
        raise Failed(f"ended with {status}: {host.last_lines(output)}")
    return row


def check_tests(machine, quick):
    for test in machine.folder.manifest["tests"]:
        try:
            yield run_test(machine, test)
        except Failed as e:
            yield Row(test["label"], FAILED, str(e))


# -------------------------------------------------------------------------- iterations

def write_idx(path, shape, data):
    with open(path, "wb") as f:
        f.write(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data)


def folder_of_model(machine, model):
    """A folder with its config, and its data as `images` and `labels`."""
    folder = os.path.join(machine.scratch, model)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    shutil.copy(machine.folder.program(f"tools/gpu_check/{model}.textproto"), folder)
    if model == "digits":
        for name, source in [("images", "train-images-idx3-ubyte"), ("labels", "train-labels-idx1-ubyte")]:
            shutil.copy(machine.folder.program(f"examples/digits/{source}"), os.path.join(folder, name))
    else:
        # Any numbers: bytes that look random, and labels that go with nothing.
        count = 2048
        write_idx(os.path.join(folder, "images"), (count, 28, 28),
                  bytes((i * i * 7 + i // 3) % 251 for i in range(count * 28 * 28)))
        write_idx(os.path.join(folder, "labels"), (count,), bytes(i * 7 % 10 for i in range(count)))
    return folder


class Loop:
    """A program that does iterations when it is told to, and waits meanwhile."""

    def __init__(self, machine, name, command, env):
        self.machine = machine
        self.name = name
        self.times = []
        self._errors = os.path.join(machine.scratch, "loop.log")
        with open(self._errors, "wb") as errors:
            self._process = machine.start(command, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          stderr=errors, text=True)

    def read(self, limit=120):
        """A line. Failed if there is none within `limit` seconds."""
        limit = self.machine.time_left(limit)
        # It prints one for each that it reads, so none waits in a buffer.
        if not select.select([self._process.stdout], [], [], limit)[0]:
            raise Failed(f"{self.name}: no answer within {limit:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            with open(self._errors, encoding="utf-8", errors="replace") as f:
                raise Failed(f"{self.name}: ended with {self._process.wait()}: {host.last_lines(f.read())}")
        return line

    def ask(self, iterations):
        try:
            self._process.stdin.write(f"{iterations}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # What it printed before is read all the same.

    def block(self, iterations):
        """Seconds of an iteration."""
        self.ask(iterations)
        return float(self.read())

    def close(self):
        self.machine.stop(self._process)
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass


def compare_loops(machine, model, quick):
    folder = folder_of_model(machine, model)
    ours = theirs = None
    try:
        ours = Loop(machine, "ours", [machine.folder.program("tools/gpu_check/bench"), "iterations",
                                      machine.device, os.path.join(folder, f"{model}.textproto")], machine.env())
        theirs = Loop(machine, "PyTorch's", [
            sys.executable, os.path.join(machine.folder.path, "python", "pytorch_loops.py"), model, machine.device,
            folder], machine.scratch_env())
        models = [json.loads(loop.read()) for loop in (ours, theirs)]
        if models[0] != models[1]:
            raise Failed(f"the models differ: ours {models[0]}, PyTorch's {models[1]}")
        again = []
        warm_up = 5 if quick else 50
        slowest = max(ours.block(warm_up), theirs.block(warm_up))
        iterations = int(min(400, max(5, (0.05 if quick else 0.15) / slowest)))
        for _ in range(11 if quick else 41):
            ours.times.append(ours.block(iterations))
            theirs.times.append(theirs.block(iterations))
            again.append(ours.block(iterations))
    finally:
        for loop in (ours, theirs):
            if loop is not None:
                loop.close()
    return row_of_loops(model, ours.times, theirs.times, again)


def row_of_loops(model, ours, theirs, again):
    def ratio(a, b):
        return statistics.median(x / y for x, y in zip(a, b))
    a_a = ratio(again, ours)
    text = (f"ours {statistics.median(ours) * 1e6:.0f} us, PyTorch's loop {statistics.median(theirs) * 1e6:.0f} us: "
            f"{ratio(ours, theirs):.3f} of it (A/A {a_a:.3f})")
    if not is_result(a_a):
        return Row(f"iteration of {model}", NO_RESULT, text)
    return Row(f"iteration of {model}", OK, text)


def check_iterations(machine, quick):
    for model in ["mlp", "digits"]:
        try:
            yield compare_loops(machine, model, quick)
        except Failed as e:
            yield Row(f"iteration of {model}", FAILED, str(e))


# ------------------------------------------------------------------------------ memory

def rows_of_memory(measured, on_cpu):
    """`measured`: what bench printed, by name."""
    copy = measured["copy"]["bytes"] / measured["copy"]["seconds"]
    rows = []
    for name, title in [("copy", "copy on the device"), ("ema_large", "EMA, 434 tensors"),
                        ("ema_small", "EMA, 1000 of 64"), ("adamw", "fused AdamW")]:
        m = measured[name]
        rate = m["bytes"] / m["seconds"]
        text = f"{m['seconds'] * 1e6:.1f} us, {rate / 1e9:.1f} GB/s"
        if name != "copy":
            text += f", {rate / copy:.2f} of the copy's"
        status = OK
        if "other_seconds" in m:
            faster = m["other_over_ours"]
            text += f"; _foreach_lerp_ {m['other_seconds'] * 1e6:.1f} us: ours is {faster:.2f} times as fast"
            if faster < _EMA_GOAL and not on_cpu:
                status = MISSED
                text += f", and has to be {_EMA_GOAL}"
        text += f" (A/A {m['a_a']:.3f})"
        rows.append(Row(title, status if is_result(m["a_a"]) else NO_RESULT, text))
    return rows


def check_memory(machine, quick):
    size = 0.02 if quick else 0.2 if machine.device == "cpu" else 1
    output = machine.output([machine.folder.program("tools/gpu_check/bench"), "memory", machine.device, str(size)], 120)
    try:
        measured = {line["name"]: line for line in map(json.loads, output.splitlines())}
        yield from rows_of_memory(measured, machine.device == "cpu")
    except (KeyError, ValueError) as e:
        raise Failed(f"bench memory: {host.last_lines(output)}") from e


# -------------------------------------------------------------------------- host copies

def count_copies(trace):
    """(steps, copies to the host, copies to the device), of a trace of the profiler hook's."""
    events = trace["traceEvents"]
    steps = [e for e in events if e.get("ph") == "X" and str(e.get("name")).startswith("ProfilerStep#")
             and e.get("cat") != "gpu_user_annotation"]
    copies = [e["name"] for e in events if e.get("cat") == "gpu_memcpy"]
    return (len(steps), sum("DtoH" in name for name in copies), sum("HtoD" in name for name in copies))


def row_of_copies(on_cpu, steps, to_host, to_device):
    if on_cpu:
        return Row(_COPIES, NO_DEVICE, f"{steps} iterations were traced")
    text = f"{to_host / steps:.2f} to the host, {to_device / steps:.2f} to the device, over {steps} iterations"
    # A batch is two tensors; where the trace begins and ends one may be ahead.
    if to_host or abs(to_device - 2 * steps) > 2:
        return Row(_COPIES, MISSED, text + ": has to be 0 and 2")
    return Row(_COPIES, OK, text)


def check_copies(machine, quick):
    folder = folder_of_model(machine, "digits")
    config = os.path.join(folder, "copies.textproto")
    trace = os.path.join(folder, "trace.json")
    active = 10 if quick else 40
    on_cpu = machine.device == "cpu"
    with open(os.path.join(folder, "digits.textproto"), encoding="utf-8") as f:
        text = f.read()
    with open(config, "w", encoding="utf-8") as f:
        f.write(text + f"""
custom_hooks {{
  config {{
    [hooks/ProfilerHook] {{
      by_epoch: false
      profile_times: {active + 10}
      schedule {{ wait: 5 warmup: 5 active: {active} repeat: 1 }}
      activity_with_cuda: {"false" if on_cpu else "true"}
      json_trace_path: {json.dumps(trace)}
    }}
  }}
}}
""")
    output = machine.output([machine.folder.program("tools/grapnel"), "train", config, "--device", machine.device,
                             "--cfg-options", f"train_cfg.max_iters={active + 20}"], 90)
    try:
        with open(trace, encoding="utf-8") as f:
            steps, to_host, to_device = count_copies(json.load(f))
    except (OSError, ValueError, KeyError) as e:
        raise Failed(f"the profiler left no trace: {host.last_lines(output)}") from e
    if steps != active:
        raise Failed(f"the trace has {steps} iterations, not {active}")
    yield row_of_copies(on_cpu, steps, to_host, to_device)


# ------------------------------------------------------------------------------- resume

def tensors_of(path):
    """Name to (dtype, shape, bytes) of a .safetensors file."""
    with open(path, "rb") as f:
        data = f.read()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        found[name] = (tensor["dtype"], tensor["shape"], data[8 + length + begin:8 + length + end])
    return found


def difference(a, b):
    """What differs first between two files' tensors, or None."""
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            return name
    return None


class DigitsRun:
    """examples/digits, on the device, with LibTorch's deterministic operators alone."""

    def __init__(self, machine, name, epochs):
        self.machine = machine
        self.epochs = epochs
        self.work_dir = os.path.join(machine.scratch, "resume", name)
        shutil.rmtree(self.work_dir, ignore_errors=True)
        self.command = [
            machine.folder.program("tools/grapnel"), "train",
            machine.folder.program("examples/digits/digits.textproto"), "--work-dir", self.work_dir, "--threads", "1",
            "--device", machine.device, "--cfg-options", f"train_cfg.max_epochs={epochs}",
            "randomness.deterministic=true"]
        # Without it cuBLAS has no deterministic products.
        self.env = {**machine.env(), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

    def finish(self, *flags):
        return self.machine.output(self.command + list(flags), 120, self.env)

    def epoch(self):
        """Of its newest checkpoint; 0 before the first."""
        names = os.listdir(self.work_dir) if os.path.isdir(self.work_dir) else []
        return max((int(m.group(1)) for m in (re.fullmatch(r"epoch_(\d+)", name) for name in names) if m), default=0)

    def kill_after(self, epoch, share):
        """Starts it, and sends it a SIGKILL when that `share` of the next epoch should be done.

        On a busy machine it may have come to its end before.
        """
        log = os.path.join(self.machine.scratch, "killed.log")
        with open(log, "wb") as output:
            process = self.machine.start(self.command, self.env, stdout=output, stderr=output)
        try:
            seen = {0: time.monotonic()}
            while self.epoch() < epoch and process.poll() is None:
                seen.setdefault(self.epoch(), time.monotonic())
                self.machine.time_left(1)
                time.sleep(0.002)
            now = time.monotonic()
            time.sleep((now - seen.get(epoch - 1, now)) * share)
        finally:
            self.machine.stop(process)
        if process.returncode not in (0, -signal.SIGKILL):
            with open(log, encoding="utf-8", errors="replace") as f:
                raise Failed(f"ended with {process.returncode} before it could be killed: {host.last_lines(f.read())}")

    def weights(self):
        return tensors_of(os.path.join(self.work_dir, f"epoch_{self.epochs}", "model.safetensors"))


def check_resume(machine, quick):
    epochs, killed_after = (4, 2) if quick else (20, 7)
    whole = DigitsRun(machine, "whole", epochs)
    whole.finish()
    for share in (0.5, 0.2, 0):
        killed = DigitsRun(machine, "killed", epochs)
        killed.kill_after(killed_after, share)
        epoch = killed.epoch()
        if epoch < epochs:
            break
    else:
        raise Failed(f"epoch {epoch} of {epochs} was always saved before the run was killed: there was nothing left "
                     "to resume")
    output = killed.finish("--resume")
    if not re.search(rf"\bresumed epoch: {epoch}, ", output):
        raise Failed(f"didn't resume after epoch {epoch}: {host.last_lines(output)}")
    differs = difference(whole.weights(), killed.weights())
    if differs is None:
        yield Row(_RESUME, OK, f"killed after epoch {epoch} of {epochs}: all weights are those of an "
                                         "undisturbed run")
        return
    # Whose fault it is.
    again = DigitsRun(machine, "again", epochs)
    again.finish()
    alone = "; so do two undisturbed runs" if difference(whole.weights(), again.weights()) else ""
    raise Failed(f"killed after epoch {epoch} of {epochs}: \"{differs}\" differs from an undisturbed run's{alone}")


# --------------------------------------------------------------------------------- all

# In the order of what must not be missing if the time is over; with what a row is called if
# a step breaks.
STEPS = {
    "tests": ("tests", check_tests),
    "copies": (_COPIES, check_copies),
    "resume": (_RESUME, check_resume),
    "iterations": ("iterations", check_iterations),
    "memory": ("memory", check_memory),
}


def table(rows):
    names = max(len(row.name) for row in rows)
    statuses = max(len(row.status) for row in rows)
    indent = "\n" + " " * (names + statuses + 6)
    return "".join(f"  {row.name:{names}}  {row.status:{statuses}}  {row.text.strip().replace(chr(10), indent)}\n"
                   for row in rows)


def prepare_output(path):
    """An empty folder, with one for what is in between."""
    mark = os.path.join(path, _MARK)
    if os.path.isdir(path) and os.listdir(path) and not os.path.exists(mark):
        raise Failed(f"--out: {path} is there, and no output of this program")
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    with open(mark, "w", encoding="utf-8"):
        pass
    scratch = os.path.join(path, "scratch")
    os.makedirs(scratch)
    return scratch


def name_of_device(machine, device):
    """What PyTorch calls it, which so has to find it too; "" for the CPU."""
    if device == "cpu":
        return ""
    script = "import sys, torch; print(torch.cuda.get_device_name(sys.argv[1]))"
    # Warnings may stand above it.
    return host.last_lines(machine.output([sys.executable, "-c", script, device], 60, machine.scratch_env()), 1)


def run_steps(machine, steps, quick):
    rows = []
    for name in steps:
        title, function = STEPS[name]
        print(f"gpu_check: {name} ...", file=sys.stderr, flush=True)
        begin = time.monotonic()
        try:
            machine.time_left(1)
            for row in function(machine, quick):
                rows.append(row)
        except (Failed, OSError) as e:
            rows.append(Row(title, FAILED, str(e)))
        print(f"gpu_check: {name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return rows


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="run", allow_abbrev=False)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu; cuda if not given")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter: shows that all works, measures nothing")
    parser.add_argument("--only", metavar="STEP,...", help="of " + ", ".join(STEPS))
    parser.add_argument("--out", metavar="DIR", default="gpu_check_output", help="emptied first; gpu_check_output if not given")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", options.device):
        parser.error(f"--device: must be cuda, cuda:N or cpu, is \"{options.device}\"")
    steps = options.only.split(",") if options.only else list(STEPS)
    for step in steps:
        if step not in STEPS:
            parser.error(f"--only: there is no step \"{step}\", but {', '.join(STEPS)}")
    options.steps = steps
    return options


def run(options):
    begin = time.monotonic()
    folder = host.Folder(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    out = os.path.abspath(options.out)
    scratch = prepare_output(out)
    machine = host.Host(folder, options.device, scratch, begin + SECONDS)
    try:
        problems = machine.problems()
        if problems:
            raise Failed("\n".join(problems))
        device = machine.find_device()
        head = ", ".join(filter(None, [
            device, name_of_device(machine, device), f"torch {folder.manifest['torch']}",
            os.confstr("CS_GNU_LIBC_VERSION"), "quick: figures mean nothing" if options.quick else ""]))
        rows = run_steps(machine, options.steps, options.quick)
    finally:
        machine.close()
        shutil.rmtree(scratch, ignore_errors=True)
    failed = sum(row.status == FAILED for row in rows)
    text = (f"gpu_check: {head}\n" + "".join(f"  {note}\n" for note in machine.notes) + table(rows)
            + f"{len(rows)} rows, {failed} failed, in {time.monotonic() - begin:.0f} s\n")
    with open(os.path.join(out, "table.txt"), "w", encoding="utf-8") as f:
        f.write(text)
    with open(os.path.join(out, "table.json"), "w", encoding="utf-8") as f:
        json.dump({"device": device, "rows": [vars(row) for row in rows]}, f, indent=2)
    print(text, end="", flush=True)
    return 1 if failed else 0


def main():
    options = parse_arguments(sys.argv[1:])

    def end(number, _):
        # Another one would cut short what this one lets be cleaned up.
        for ignored in host.ENDING_SIGNALS:
            signal.signal(ignored, signal.SIG_IGN)
        raise Ended(f"ended by {signal.Signals(number).name}")
    for number in host.ENDING_SIGNALS:
        signal.signal(number, end)
    try:
        return run(options)
    except (Failed, Ended, OSError) as e:
        print("gpu_check: " + str(e).replace("\n", "\ngpu_check: "), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
