"""A folder for a test of this package, and what is written into it."""

import os
import shutil
import subprocess
import tempfile
import unittest


class TestCase(unittest.TestCase):
    """Has a folder `dir`, and in it the name of a prefix that isn't there yet."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.prefix = os.path.join(self.dir, "prefix")

    def write(self, path, text=""):
        path = os.path.join(self.dir, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def link(self, name, source, *flags):
        """Makes a shared library of a text in C."""
        source = self.write("source.c", source)
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        subprocess.run(["cc", "-shared", "-fPIC", source, "-o", path, *flags], check=True)
        return path
