"""What it takes to load 0.5 GB of weights, every byte verified, over Python's libraries.

  ./bazelw run //tools/bench:load -- [--blocks N] [--cold] [--write]

Ours check as they read: of a .pth the CRCs in it, of a safetensors file a digest. Python's
libraries check nothing, so that a pass of a checksum, or of a sum, is theirs too. The
programs take turns, a load each, and wait meanwhile: what disturbs the machine for a while
disturbs all. A ratio is the median over the blocks; that of the processors' time holds where
the machine does something else too. The memory is the most that a process
had (VmHWM), less what it had before its first load. The .pth is one that torch.save wrote.
--cold drops the files from the cache before each load. --write measures how long ours take
to write the two, until they are on the disk, and writes what Python's do besides.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

_PROGRAM = "tools/bench/load_program"
_GOAL = 1.15


def python(way, path):
    """Loads once for each line of stdin."""
    sys.path.insert(0, os.path.abspath("tests/interop"))
    import ctypes
    import time
    import zlib
    import slim_torch
    torch = slim_torch.load(_PROGRAM)
    import safetensors.torch
    torch.set_num_threads(1)

    def crc32(tensors):
        for tensor in tensors.values():
            data = (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())
            zlib.crc32(data)

    def add(tensors):
        for tensor in tensors.values():
            tensor.sum()

    if way == "save":
        torch.save(torch.load(path + "/model.pth"), path + "/python.pth")
        return
    if way == "write":
        tensors = torch.load(path + "/model.pth")
    print("ready", flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        if way == "write":
            torch.save(tensors, path + "/written.pth")
            with open(path + "/written.pth", "rb") as f:
                os.fsync(f.fileno())
        elif way == "pth":
            crc32(torch.load(path, mmap=True))
        elif way == "safetensors":
            crc32(safetensors.torch.load_file(path))
        else:
            add(safetensors.torch.load_file(path))
        print(f"{time.perf_counter() - start:.6f} {time.process_time() - cpu:.6f}", flush=True)


class Program:
    def __init__(self, name, command):
        self.name, self.times, self.cpu = name, [], []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()  # It has loaded its libraries.
        self._before = self._peak()

    def _line(self):
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: has ended, with {self._process.wait()}")
        return line

    def _peak(self):
        with open(f"/proc/{self._process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) * 1024

    def block(self):
        """Seconds, and seconds of processors."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return map(float, self._line().split())

    def memory(self):
        return self._peak() - self._before

    def close(self):
        self._process.stdin.close()
        if self._process.wait() != 0:
            sys.exit(f"{self.name} ended with {self._process.returncode}")


def ratio(times, reference):
    return statistics.median(a / b for a, b in zip(times, reference))


def drop_from_cache(path):
    with open(path, "rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def take_turns(title, blocks, programs, before_block=lambda: None):
    """The first two are one thing, by which the others are measured."""
    for program in programs:
        before_block()
        program.block()  # Warms up.
    for _ in range(blocks):
        for program in programs:
            before_block()
            elapsed, cpu = program.block()
            program.times.append(elapsed)
            program.cpu.append(cpu)
    print(title)
    for program in programs:
        print(f"  {program.name:39} {statistics.median(program.times) * 1e3:7.1f} ms"
              f"   {ratio(program.times, programs[0].times):.3f}"
              f"   of the processors' {ratio(program.cpu, programs[0].cpu):.3f}"
              f"   {program.memory() / 1e6:5.0f} MB")
        program.close()
    a_a = ratio(programs[1].times, programs[0].times)
    if not 0.95 <= a_a <= 1.05:
        print(f"  A/A {a_a:.3f}: the machine was disturbed, run it again.")


def main():
    parser = argparse.ArgumentParser(prog="load", allow_abbrev=False)
    parser.add_argument("--blocks", type=int, default=15, help="of each program")
    parser.add_argument("--cold", action="store_true", help="from the disk")
    parser.add_argument("--write", action="store_true", help="measure writing too")
    options = parser.parse_args()
    if options.blocks < 1:
        parser.error(f"--blocks: must be >= 1, is {options.blocks}")
    with tempfile.TemporaryDirectory(prefix="grapnel_load_", dir=os.environ.get("TEST_TMPDIR")) as folder:
        measure(folder, options)


def measure(folder, options):
    def ours(name, command, path):
        return Program(name, [_PROGRAM, command, path])

    def theirs(name, way, path):
        return Program(name, python_command(way, path))

    def python_command(way, path):
        return [sys.executable, "-B", "-W", "ignore", os.path.abspath(__file__), "--python", way, path]

    subprocess.run([_PROGRAM, "make", folder], check=True)
    subprocess.run(python_command("save", folder), check=True)
    pth, safetensors = folder + "/python.pth", folder + "/model.safetensors"

    def before_block():
        if options.cold:
            drop_from_cache(pth)
            drop_from_cache(safetensors)

    state = "cold" if options.cold else "warm"
    take_turns(f"a .pth of {os.path.getsize(pth) / 1e6:.0f} MB, {state}, {options.blocks} blocks", options.blocks, [
        theirs("torch.load(mmap=True), zlib.crc32", "pth", pth),
        theirs("torch.load(mmap=True), zlib.crc32", "pth", pth),
        ours(f"PthFile::Read   (at most {_GOAL})", "pth", pth),
    ], before_block)
    take_turns(f"a safetensors file of the same, {state}, {options.blocks} blocks", options.blocks, [
        theirs("safetensors.torch.load_file, zlib.crc32", "safetensors", safetensors),
        theirs("safetensors.torch.load_file, zlib.crc32", "safetensors", safetensors),
        theirs("safetensors.torch.load_file, sum", "sum", safetensors),
        ours(f"ReadSafetensors   (at most {_GOAL})", "safetensors", safetensors),
    ], before_block)
    if options.write:
        take_turns(f"writing them, {options.blocks} blocks", options.blocks, [
            ours("WriteSafetensors", "write_safetensors", folder),
            ours("WriteSafetensors", "write_safetensors", folder),
            ours("WritePthWeights", "write_pth", folder),
            theirs("torch.save, fsync", "write", folder),
        ])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--python"]:
        python(*sys.argv[2:])
    else:
        main()
