#!/usr/bin/env python3
"""What is precompiled is the same bytes each time."""

import os
import subprocess
import sys
import tempfile
import unittest

import precompile

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "precompile.py")


def precompiled(folder, environment):
    """The .gch of a header that brings much of the standard library."""
    os.makedirs(folder)
    with open(os.path.join(folder, "header.h"), "w", encoding="utf-8") as f:
        f.write("#include <map>\n#include <string>\n")
    subprocess.run(
        [sys.executable, SCRIPT, "gcc", "-O2", "-std=c++17", "-x", "c++-header",
         "-frandom-seed=header", "-c", "header.h", "-o", "header.gch"],
        cwd=folder, check=True, env=dict(os.environ, **environment))
    with open(os.path.join(folder, "header.gch"), "rb") as f:
        return f.read()


class PrecompileTest(unittest.TestCase):

    def test_bytes_repeat_in_another_environment(self):
        version = subprocess.run(["gcc", "-dumpversion"], stdout=subprocess.PIPE, text=True).stdout
        fixed = subprocess.run(["setarch", "-R", "true"], stderr=subprocess.DEVNULL).returncode == 0
        if version.split(".")[0].strip() != "12" or not fixed:
            self.skipTest("the bytes don't repeat here, and precompile.py says so")
        with tempfile.TemporaryDirectory() as top:
            first = precompiled(os.path.join(top, "first"), {})
            second = precompiled(os.path.join(top, "other"), {"MORE": "x" * 5000})
        self.assertGreater(len(first), 1 << 20)
        self.assertTrue(first == second, "the bytes differ")

    def test_padding_is_zeroed_in_rows_of_records_alone(self):
        record = bytes(range(1, 13)) + b"junk" + bytes(8)
        cleaned = record[:12] + bytes(12)
        before, after = b"\x07" * 5000, b"\x09" * 5000
        self.assertEqual(precompile.without_padding(before + record * 2000 + after),
                         before + cleaned * 2000 + after)

    def test_few_records_and_other_data_stay(self):
        record = bytes(range(1, 13)) + b"junk" + bytes(8)
        for data in (record * 500, os.urandom(1 << 16), b"text " * 4000, bytes(1 << 16)):
            self.assertEqual(bytes(precompile.without_padding(data)), data)


if __name__ == "__main__":
    unittest.main()
