"""What the table says of what was seen on a machine with a GPU: there is none here."""

import json
import os
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from unittest import mock

import check
import host


def case(name, result="COMPLETED", failures=None):
    return {"name": name, "result": result, **({"failures": failures} if failures else {})}


def report(*cases):
    return {"testsuites": [{"name": "Suite", "testsuite": list(cases)}]}


class TestRowTest(unittest.TestCase):

    CASES = [
        # On a CPU, cases, status, text
        (False, [case("A"), case("B")], check.OK, "2 passed"),
        (False, [case("A"), case("B", "SKIPPED")], check.OK, "1 passed, 1 skipped"),
        (False, [case("A", "SKIPPED"), case("B", "SKIPPED")], check.FAILED, "all 2 were skipped, and there is a device"),
        (False, [case("A"), case("B", failures=[{"failure": "x"}])], check.FAILED, "Suite.B"),
        (False, [], check.FAILED, "has no test in it"),
        (True, [case("A"), case("B", "SKIPPED")], check.NO_DEVICE, "1 passed, 1 need one"),
        (True, [case("A", "SKIPPED")], check.NO_DEVICE, "0 passed, 1 need one"),
        (True, [case("A")], check.OK, "1 passed"),
        (True, [case("A", failures=[{"failure": "x"}]), case("B", "SKIPPED")], check.FAILED, "Suite.A"),
    ]

    def test_rows(self):
        for on_cpu, cases, status, text in self.CASES:
            with self.subTest(text, on_cpu=on_cpu):
                row = check.row_of_test("//a:b", on_cpu, report(*cases))
                self.assertEqual((row.status, row.text), (status, text))


class CopiesTest(unittest.TestCase):

    @staticmethod
    def trace(steps, copies):
        events = [{"ph": "X", "cat": "user_annotation", "name": f"ProfilerStep#{i}"} for i in range(steps)]
        events += [{"ph": "X", "cat": "gpu_user_annotation", "name": f"ProfilerStep#{i}"} for i in range(steps)]
        events += [{"ph": "X", "cat": "gpu_memcpy", "name": name} for name in copies]
        events += [{"ph": "X", "cat": "cuda_runtime", "name": "cudaMemcpyAsync"}, {"ph": "M", "name": "process_name"}]
        return {"traceEvents": events}

    def test_are_counted_by_direction(self):
        copies = (["Memcpy HtoD (Pinned -> Device)"] * 3 + ["Memcpy DtoH (Device -> Pageable)"] * 2
                  + ["Memcpy DtoD (Device -> Device)"])
        self.assertEqual(check.count_copies(self.trace(4, copies)), (4, 2, 3))

    def test_rows(self):
        for to_host, to_device, status in [(0, 20, check.OK), (0, 22, check.OK), (0, 18, check.OK),
                                           (1, 20, check.MISSED), (0, 30, check.MISSED), (0, 0, check.MISSED)]:
            with self.subTest(to_host=to_host, to_device=to_device):
                self.assertEqual(check.row_of_copies(False, 10, to_host, to_device).status, status)
        self.assertEqual(check.row_of_copies(True, 10, 0, 0).status, check.NO_DEVICE)


class SignalTest(unittest.TestCase):

    def setUp(self):
        self.machine = host.Host(None, "cpu", None, time.monotonic() + 60)
        self.addCleanup(self.machine.close)
        # Not by env(), which is of a folder.
        self.start = lambda: self.machine.start(["sleep", "60"], dict(os.environ))

    def test_one_that_comes_while_a_program_starts_leaves_none_behind(self):
        started = []

        def start_and_signal(*arguments, **options):
            started.append(popen(*arguments, **options))
            os.kill(os.getpid(), signal.SIGTERM)
            return started[0]

        def end(*_):
            raise check.Ended
        popen = subprocess.Popen
        self.addCleanup(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, end))
        with mock.patch("subprocess.Popen", start_and_signal), self.assertRaises(check.Ended):
            self.start()
        self.machine.close()
        self.assertEqual(started[0].returncode, -signal.SIGKILL)

    def test_programs_get_them(self):
        process = self.start()
        with open(f"/proc/{process.pid}/status", encoding="utf-8") as f:
            self.assertRegex(f.read(), r"SigBlk:\s0{16}\n")


class LoopsTest(unittest.TestCase):

    def test_a_ratio_is_of_turns_side_by_side(self):
        row = check.row_of_loops("mlp", [1e-3, 2e-3, 4e-3], [2e-3, 4e-3, 8e-3], [1e-3, 2e-3, 4e-3])
        self.assertEqual((row.name, row.status), ("iteration of mlp", check.OK))
        self.assertEqual(row.text, "ours 2000 us, PyTorch's loop 4000 us: 0.500 of it (A/A 1.000)")

    def test_a_busy_machine_gives_no_result(self):
        row = check.row_of_loops("mlp", [1e-3] * 3, [1e-3] * 3, [1.03e-3] * 3)
        self.assertEqual(row.status, check.NO_RESULT)


class MemoryTest(unittest.TestCase):

    @staticmethod
    def measured(faster=2.0, a_a=1.0):
        ema = {"seconds": 1e-3, "bytes": 3e9, "a_a": a_a, "other_seconds": faster * 1e-3, "other_over_ours": faster}
        plain = {"seconds": 1e-3, "bytes": 4e9, "a_a": 1.0}
        return {"copy": plain, "ema_large": ema, "ema_small": ema, "adamw": plain}

    def statuses(self, on_cpu, **measured):
        return [row.status for row in check.rows_of_memory(self.measured(**measured), on_cpu)]

    def test_says_what_part_of_a_copy_a_kernel_reaches(self):
        copy, ema = check.rows_of_memory(self.measured(), False)[:2]
        self.assertEqual(copy.text, "1000.0 us, 4000.0 GB/s (A/A 1.000)")
        self.assertEqual(ema.text, "1000.0 us, 3000.0 GB/s, 0.75 of the copy's; _foreach_lerp_ 2000.0 us: ours is "
                                   "2.00 times as fast (A/A 1.000)")

    def test_our_average_has_to_be_faster_on_a_device(self):
        self.assertEqual(self.statuses(False, faster=1.3), [check.OK] * 4)
        self.assertEqual(self.statuses(False, faster=1.1), [check.OK, check.MISSED, check.MISSED, check.OK])
        self.assertEqual(self.statuses(True, faster=1.1), [check.OK] * 4)

    def test_a_busy_machine_gives_no_result(self):
        self.assertEqual(self.statuses(False, faster=1.1, a_a=0.97), [check.OK, check.NO_RESULT, check.NO_RESULT, check.OK])


class WeightsTest(unittest.TestCase):

    @staticmethod
    def write(path, tensors):
        header, data = {"__metadata__": {"format": "pt"}}, b""
        for name, content in tensors.items():
            header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": [len(data), len(data) + len(content)]}
            data += content
        text = json.dumps(header).encode()
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text + data)

    def test_the_first_tensor_that_differs_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            def tensors(**content):
                path = os.path.join(folder, "x.safetensors")
                self.write(path, content)
                return check.tensors_of(path)
            a = tensors(bias=b"12", weight=b"3456")
            self.assertEqual(a["weight"], ("U8", [4], b"3456"))
            self.assertIsNone(check.difference(a, tensors(weight=b"3456", bias=b"12")))
            self.assertEqual(check.difference(a, tensors(bias=b"12", weight=b"3457")), "weight")
            self.assertEqual(check.difference(a, tensors(weight=b"3456")), "bias")
            self.assertEqual(check.difference(tensors(weight=b"3456"), a), "bias")


class HostTest(unittest.TestCase):

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.path = temporary.name
        with open(os.path.join(self.path, "manifest.json"), "w", encoding="utf-8") as f:
            json.dump({}, f)
        self.host = host.Host(host.Folder(self.path), "cpu", self.path, time.monotonic() + 60)

    def test_versions_are_numbers(self):
        data = b"\0GLIBCXX_3.4.9\0GLIBCXX_3.4.30\0GLIBCXX_DEBUG\0GLIBCXX_3.4\0CXXABI_1.3.13\0"
        self.assertEqual(host.highest(data, "GLIBCXX"), "3.4.30")
        self.assertIsNone(host.highest(b"nothing", "GLIBCXX"))
        self.assertLess(host.version("2.9"), host.version("2.34"))

    def test_a_program_that_takes_too_long_ends_with_its_children(self):
        pids = os.path.join(self.path, "pid")
        script = f"sleep 60 & echo $! > {pids}; wait"
        with self.assertRaisesRegex(host.Failed, "sh: not done within 3 s"):
            self.host.run(["sh", "-c", script], 3, env=dict(os.environ))
        with open(pids, encoding="utf-8") as f:
            pid = int(f.read())
        for _ in range(3000):
            # A zombie until somebody waits for it.
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                    if f.read().rpartition(") ")[2].startswith("Z"):
                        return
                time.sleep(0.01)
            except FileNotFoundError:
                return
        self.fail("the child of a program that was ended is still there")

    def test_a_program_that_fails_is_quoted(self):
        with self.assertRaisesRegex(host.Failed, "sh ended with 3: it broke"):
            self.host.output(["sh", "-c", "echo it broke >&2; exit 3"], 10, env=dict(os.environ))

    def test_nothing_starts_when_the_time_is_over(self):
        self.host.deadline = time.monotonic() - 1
        with self.assertRaisesRegex(host.Failed, "the time was over"):
            self.host.run(["true"], 10, env=dict(os.environ))


    def test_a_loop_that_hangs_is_given_up(self):
        for script, said in [("read n; sleep 60", "it: no answer within 0 s"),
                             ("read n; echo it broke >&2; exit 3", "it: ended with 3: it broke")]:
            with self.subTest(script):
                loop = check.Loop(self.host, "it", ["sh", "-c", script], dict(os.environ))
                self.addCleanup(loop.close)
                with self.assertRaisesRegex(host.Failed, said):
                    loop.ask(5)
                    loop.read(0.3 if "sleep" in script else 30)


class StepsTest(unittest.TestCase):

    def test_a_step_that_fails_is_a_row_and_the_others_follow(self):
        def breaks(machine, quick):
            yield check.Row("first", check.OK, "")
            raise host.Failed("broke")

        def works(machine, quick):
            yield check.Row("second", check.OK, "")

        class Machine:
            def time_left(self, limit):
                return limit
        self.addCleanup(check.STEPS.update, dict(check.STEPS))
        check.STEPS.update(tests=("the tests", breaks), resume=("resume", works))
        rows = check.run_steps(Machine(), ["tests", "resume"], True)
        self.assertEqual([(row.name, row.status, row.text) for row in rows],
                         [("first", check.OK, ""), ("the tests", check.FAILED, "broke"), ("second", check.OK, "")])

    def test_output_of_others_is_left_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "out")
            scratch = check.prepare_output(path)
            with open(os.path.join(scratch, "old"), "w", encoding="utf-8"):
                pass
            check.prepare_output(path)
            self.assertEqual(os.listdir(scratch), [])
            with self.assertRaisesRegex(host.Failed, "no output of this program"):
                with open(os.path.join(folder, "mine"), "w", encoding="utf-8"):
                    pass
                check.prepare_output(folder)
            self.assertIn("mine", os.listdir(folder))

    def test_bad_arguments_are_named(self):
        for arguments in [["--device", "gpu"], ["--device", "cuda:"], ["--only", "tests,nothing"], ["--quickly"]]:
            with self.subTest(arguments), self.assertRaises(SystemExit) as caught:
                check.parse_arguments(arguments)
            self.assertEqual(caught.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
