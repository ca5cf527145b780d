"""Packs, and runs what was packed: on the CPU, with the small wheel that it was built with.

That has no libraries of CUDA but the runtime: see tests/interop/slim_torch.py, which each
Python gets to import torch by. What `run` does with the whole wheel, README.md says how to see.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import unittest

TMPDIR = os.environ["TEST_TMPDIR"]
CUDA = sys.argv[1:] == ["--cuda"]
FOLDER = os.path.join(TMPDIR, "folder")
OUT = os.path.join(TMPDIR, "out")
SITE = os.path.join(TMPDIR, "site")
TESTS = ["//cuda:multi_tensor_lerp_test", "//optim/averaging:lerp_kernel_cuda_test", "//tests/device:cuda_test"]

TORCH = os.path.dirname(re.search(
    r"libtorch_cpu\.so => (\S+)/lib/", subprocess.run(
        ["ldd", "tools/grapnel"], stdout=subprocess.PIPE, text=True, check=True).stdout).group(1))

# Python reads it before anything else. Only the loops import torch.
SITECUSTOMIZE = f"""
import sys
if any("pytorch_loops" in argument for argument in sys.orig_argv):
    sys.path.insert(0, {os.path.abspath("tests/interop")!r})
    import slim_torch
    torch = slim_torch.load({os.path.abspath("tools/grapnel")!r})

    # What torch.optim asks torch.compile for, which needs packages that aren't here.
    class NoDynamo:
        @staticmethod
        def disable(function, *_, **__):
            return function
        @staticmethod
        def graph_break():
            pass
    torch._dynamo = sys.modules["torch._dynamo"] = NoDynamo
else:
    sys.path.append({TORCH!r})
"""


def pack(*arguments):
    return subprocess.run([sys.executable, "-B", "tools/gpu_check/pack.py", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "tools/install"},
                          check=False)


def files_of(folder):
    return sorted(os.path.join(base, name) for base, _, names in os.walk(folder) for name in names)


def start(*arguments, site=SITE):
    return subprocess.Popen([os.path.join(FOLDER, "run"), "--device", "cpu", "--out", OUT, *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TMPDIR,
                            env={**os.environ, "PYTHON": sys.executable,
                                 "PYTHONPATH": f"{site}:{os.environ['PYTHONPATH']}"})


def run(*arguments, site=SITE):
    process = start(*arguments, site=site)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def processes():
    """Those of the folder's programs."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/exe").startswith(FOLDER):
                found.append(name)
        except OSError:
            pass  # It has ended, or is another's.
    return found


def rows():
    with open(os.path.join(OUT, "table.json"), encoding="utf-8") as f:
        return {row["name"]: row for row in json.load(f)["rows"]}


class PackedTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        os.makedirs(SITE)
        with open(os.path.join(SITE, "sitecustomize.py"), "w", encoding="utf-8") as f:
            f.write(SITECUSTOMIZE)
        packed = pack(*(["--cuda"] if CUDA else []), FOLDER)
        assert packed.returncode == 0, packed.stderr
        cls.said = packed.stdout
        with open(os.path.join(FOLDER, "manifest.json"), encoding="utf-8") as f:
            cls.manifest = json.load(f)

    def change_manifest(self, **fields):
        """Until the end of the test."""
        def write(manifest):
            with open(os.path.join(FOLDER, "manifest.json"), "w", encoding="utf-8") as f:
                json.dump(manifest, f)
        self.addCleanup(write, self.manifest)
        write({**self.manifest, **fields})

    def refused(self, *arguments, **options):
        """What a run says that can't begin."""
        result = run(*arguments, **options)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stdout, "")
        return result.stderr

    # ------------------------------------------------------------------------ folder

    def test_the_folder_is_below_60_mb_and_has_what_the_machine_may_lack(self):
        size = sum(os.path.getsize(path) for path in files_of(FOLDER))
        self.assertLess(size, 60_000_000)
        self.assertIn(f"{FOLDER}: {size / 1e6:.1f} MB, ", self.said)
        libraries = [name.partition(".so")[0] for name in os.listdir(os.path.join(FOLDER, "lib"))]
        for library in ["libabsl_status", "libglog", "libprotobuf", "libunwind"]:
            self.assertIn(library, libraries)
        for library in ["libc", "libm", "libgomp", "libstdc++", "libc10", "libtorch_cpu", "libcudart"]:
            self.assertNotIn(library, libraries)

    def test_the_folder_names_no_folder_of_this_machine(self):
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ["HOME"], ".cache"), "")
        for path in files_of(FOLDER):
            with open(path, "rb") as f:
                self.assertFalse(cache.encode() in f.read(), path)

    def test_what_others_wrote_is_not_packed_over(self):
        mine = os.path.join(TMPDIR, "mine")
        os.makedirs(mine)
        with open(os.path.join(mine, "file"), "w", encoding="utf-8"):
            pass
        result = pack(mine)
        self.assertEqual((result.returncode, result.stderr), (1, f"pack: {mine}: is there, and no folder of pack's\n"))
        self.assertEqual(os.listdir(mine), ["file"])

    def test_a_folder_is_packed_anew(self):
        again = os.path.join(TMPDIR, "again")
        self.assertEqual(pack(again).returncode, 0)
        with open(os.path.join(again, "left_over"), "w", encoding="utf-8"):
            pass
        self.assertEqual(pack(again).returncode, 0)
        self.assertNotIn("left_over", os.listdir(again))

    # --------------------------------------------------------------------------- run

    def test_the_table_has_every_row(self):
        before = files_of(FOLDER), {*os.listdir(TMPDIR), "out"}
        result = run("--quick")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        found = rows()
        self.assertEqual(list(found), [
            TESTS[0], "//models:functional_test", TESTS[1], "//tests/capi:dlpack_test", TESTS[2], "host copies, iteration", "kill and resume", "iteration of mlp",
            "iteration of digits", "copy on the device", "EMA, 434 tensors", "EMA, 1000 of 64", "fused AdamW"])
        for name in [*TESTS, "host copies, iteration"]:
            self.assertEqual(found[name]["status"], "no device", name)
        self.assertEqual(found["host copies, iteration"]["text"], "10 iterations were traced")
        for name in ["//tests/capi:dlpack_test", "kill and resume"]:
            self.assertEqual(found[name]["status"], "ok", found[name]["text"])
        self.assertRegex(found["kill and resume"]["text"], "killed after epoch [23] of 4: all weights are those")
        for name in list(found)[7:]:
            self.assertIn(found[name]["status"], ["ok", "no result"], name)
            self.assertRegex(found[name]["text"], r"[1-9][0-9.]* us.*\(A/A \d+\.\d+\)$")
        for name in ["iteration of mlp", "iteration of digits"]:
            self.assertRegex(found[name]["text"], "ours [1-9].* PyTorch's loop [1-9]")
        self.assertRegex(result.stdout, "^gpu_check: cpu, torch 2.11.0")
        self.assertRegex(result.stdout, r"13 rows, 0 failed, in \d+ s\n$")
        # It can be started again, and has left nothing else.
        self.assertEqual((files_of(FOLDER), {*os.listdir(TMPDIR)}), before)
        self.assertEqual(sorted(os.listdir(OUT)), ["gpu_check_output", "table.json", "table.txt"])
        with open(os.path.join(OUT, "table.txt"), encoding="utf-8") as f:
            self.assertEqual(f.read(), result.stdout)

    def test_a_test_that_fails_is_named(self):
        program = os.path.join(FOLDER, "runfiles", "grapnel", "cuda", "multi_tensor_lerp_test")
        kept = os.path.join(TMPDIR, "kept")
        os.rename(program, kept)
        self.addCleanup(os.rename, kept, program)
        for said, script in [
                ("ended with 7 and no report: it broke", "echo it broke; exit 7"),
                ("Kernel.IsRight", 'echo \'{"testsuites": [{"name": "Kernel", "testsuite": [{"name": "IsRight", '
                 '"result": "COMPLETED", "failures": [{"failure": "no"}]}]}]}\' >"${GTEST_OUTPUT#json:}"; exit 1'),
                # It fails when all its tests have passed.
                ("ended with 9: it leaks", 'echo \'{"testsuites": [{"name": "Kernel", "testsuite": [{"name": '
                 '"IsRight", "result": "COMPLETED"}]}]}\' >"${GTEST_OUTPUT#json:}"; echo it leaks; exit 9')]:
            with self.subTest(said):
                with open(program, "w", encoding="utf-8") as f:
                    f.write("#!/bin/sh\n" + script + "\n")
                os.chmod(program, stat.S_IRWXU)
                result = run("--only", "tests")
                self.assertEqual(result.returncode, 1, result.stderr)
                row = rows()[TESTS[0]]
                self.assertEqual((row["status"], row["text"]), ("FAILED", said))
                self.assertEqual(rows()[TESTS[1]]["status"], "no device")
                self.assertIn("5 rows, 1 failed", result.stdout)

    def test_what_is_ended_leaves_no_process_and_no_file(self):
        process = start("--only", "iterations,memory")
        while "iterations ..." not in process.stderr.readline():
            pass
        while not processes():
            time.sleep(0.01)
        process.terminate()
        _, errors = process.communicate()
        self.assertEqual((process.returncode, errors), (2, "gpu_check: ended by SIGTERM\n"))
        self.assertEqual(processes(), [])
        self.assertEqual(os.listdir(OUT), ["gpu_check_output"])

    def test_what_the_machine_lacks_is_named(self):
        self.change_manifest(glibc="9.1")
        self.assertRegex(self.refused(), r"gpu_check: glibc is 2\.\d+: 9\.1 or newer is needed\n")
        self.change_manifest(glibcxx="3.4.999")
        self.assertRegex(self.refused(), r"libstdc\+\+\.so\.6 has GLIBCXX_3\.4\.\d+: GLIBCXX_3\.4\.999 is needed")
        self.change_manifest(machine="riscv64")
        self.assertRegex(self.refused(), r"this is linux on x86_64: the programs are for linux on riscv64\n")

    def test_a_library_that_is_missing_is_named(self):
        path = os.path.join(FOLDER, "runfiles", "grapnel", "tools", "gpu_check", "bench")
        with open(path, "rb") as f:
            program = f.read()

        def write(content):
            with open(path, "wb") as f:
                f.write(content)
        self.addCleanup(write, program)
        # This machine has all that it needs, so it is made to need another one.
        write(program.replace(b"\0libglog.so.1\0", b"\0libgone.so.1\0"))
        self.assertEqual(self.refused(), "gpu_check: libgone.so.1 is missing\n")

    def test_another_torch_or_none_is_named(self):
        for content, said in [("__version__ = '2.10.0+cu130'\n", "torch is 2.10.0+cu130, in "),
                              ("__version__ = '2.11.0+cpu'\n", "torch is 2.11.0+cpu, in ")]:
            site = os.path.join(TMPDIR, "other")
            os.makedirs(os.path.join(site, "torch"))
            self.addCleanup(shutil.rmtree, site, ignore_errors=True)
            for name, text in [("__init__.py", "raise ImportError"), ("version.py", content)]:
                with open(os.path.join(site, "torch", name), "w", encoding="utf-8") as f:
                    f.write(text)
            refusal = self.refused(site=site)
            self.assertIn(said, refusal)
            self.assertIn(": the programs are built with 2.11.0", refusal)
            shutil.rmtree(site)
        empty = os.path.join(TMPDIR, "empty")
        os.makedirs(empty)
        self.assertRegex(self.refused(site=empty), "has no torch: install torch==2.11.0")

    def test_a_device_that_is_not_there_is_named(self):
        said = self.refused("--device", "cuda")
        self.assertRegex(said, "libtorch_cuda.so can't be loaded: .*: cannot open shared object file" if CUDA
                         else "the programs are built without --config=cuda")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
