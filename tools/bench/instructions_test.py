#!/usr/bin/env python3
"""Tests of instructions.py."""

import contextlib
import io
import os
import tempfile
import unittest

import instructions

TOOLS = {"compiler": "gcc 12.2.0", "valgrind": "3.19.0"}


def check(recorded, now, others=(), allow_other_tools=False):
    """(exit code, what was printed)."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = instructions.check(instructions.compare(recorded, now), others, allow_other_tools)
    return code, out.getvalue()


class CountTest(unittest.TestCase):

    def test_a_figure_is_of_one_iteration_and_less_its_base(self):
        tools, runs = instructions.read_output(
            "tool\tcompiler\tgcc 12.2.0\nsomething else\n"
            "run\tempty/runner\t10\t-\nrun\thook/ema\t100\tempty/runner\n")
        self.assertEqual(tools, {"compiler": "gcc 12.2.0"})
        self.assertEqual(instructions.figures_of(runs, {"empty/runner": 5000, "hook/ema": 84100}),
                         {"empty/runner": 500.0, "hook/ema": 341.0})

    def test_a_run_without_a_count_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "no count of hook/ema"):
            instructions.figures_of({"hook/ema": (100, None)}, {})

    def test_counts_are_of_the_first_thread_and_by_their_names(self):
        dump = "version: 1\ndesc: Trigger: Client Request: %s\nevents: Ir\n1 2\ntotals: %d\n"
        with tempfile.TemporaryDirectory() as folder:
            for name, text in [("dump.1-01", dump % ("mlp/runner", 70)), ("dump.1-02", dump % ("mlp/runner", 9)),
                               ("dump.12-01", dump % ("hook/ema", 80)),
                               ("dump-01", "desc: Trigger: Program termination\ntotals: 5\n")]:
                with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                    f.write(text)
            self.assertEqual(instructions.read_dumps(folder), {"mlp/runner": 70, "hook/ema": 80})


class CheckTest(unittest.TestCase):

    def test_growth_above_two_percent_fails_and_is_named(self):
        code, said = check({"mlp/runner": 10000, "hook/ema": 1000}, {"mlp/runner": 10199.0, "hook/ema": 1022.0})
        self.assertEqual(code, 1)
        self.assertIn("hook/ema: GREW, from 1000 to 1022 instructions\n", said)
        self.assertIn('--record --reason "WHY"', said)
        self.assertNotIn("mlp/runner", said)

    def test_what_stays_or_falls_passes(self):
        for now in (10000.0, 10200.0, 9000.0, 0.0):
            self.assertEqual(check({"mlp/runner": 10000}, {"mlp/runner": now}), (0, ""), now)

    def test_a_fall_is_told(self):
        rows = instructions.compare({"mlp/runner": 10000}, {"mlp/runner": 9700.0})
        self.assertIn("0.9700 fell: record it", instructions.table(rows))

    def test_what_costs_nothing_must_go_on_doing_so(self):
        self.assertEqual(check({"hook/idle": 0}, {"hook/idle": 0.02})[0], 0)
        self.assertEqual(check({"hook/idle": 0}, {"hook/idle": 5.0})[0], 1)

    def test_record_and_run_have_the_same_figures(self):
        code, said = check({"hook/old": 5}, {"hook/new": 5.0})
        self.assertEqual(code, 1)
        self.assertIn("hook/new: not in the record\nhook/old: no longer measured\n", said)

    def test_with_other_tools_nothing_is_compared(self):
        others = instructions.other_tools(TOOLS, {"compiler": "gcc 13.1.0", "valgrind": "3.19.0"})
        self.assertEqual(others, ["compiler: the record's is gcc 12.2.0, here it is gcc 13.1.0"])
        code, said = check({"hook/ema": 100}, {"hook/ema": 100.0}, others)
        self.assertEqual(code, 1)
        self.assertIn("--allow-other-tools", said)
        self.assertEqual(check({"hook/ema": 100}, {"hook/ema": 200.0}, others, True), (0, ""))


class RecordTest(unittest.TestCase):

    def test_each_change_is_a_line_with_its_reason(self):
        record = instructions.new_record(None, {"a": 10000.2, "b": 500.0, "gone": 7.0}, TOOLS, "the first")
        self.assertEqual(record, {"tools": TOOLS, "figures": {"a": 10000, "b": 500, "gone": 7},
                                  "changes": ["all: the first"]})
        # a moves by less than it does from run to run.
        record = instructions.new_record(record, {"a": 10009.0, "b": 505.0, "new": 3.0}, TOOLS, "b does more")
        self.assertEqual(record["figures"], {"a": 10000, "b": 505, "new": 3})
        self.assertEqual(record["changes"], ["all: the first", "b: 500 -> 505: b does more",
                                             "new: none -> 3: b does more", "gone: 7 -> none: b does more"])


if __name__ == "__main__":
    unittest.main()
