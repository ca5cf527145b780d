"""Tests of what writes a prefix, with small files in place of Grapnel's."""

import os
import shutil
import signal
import unittest
from unittest import mock

import prefix
import scratch

# Path in the prefix to what is in it.
OLD = {
    "bin/grapnel": "old",
    "include/grapnel/grapnel.h": "old",
    "include/grapnel/gone.h": "old",
    "lib/cmake/Grapnel/GrapnelConfig.cmake": "old",
    "lib/grapnel/torch/lib/libc10.so": "old",
    "lib/libgrapnel.a": "old",
    "lib/libgrapnel.so.0": "old",
    "lib/pkgconfig/grapnel-static.pc": "old",
    "lib/pkgconfig/grapnel.pc": "old",
    "share/grapnel/proto/grapnel/base.proto": "old",
}
# Without some of the files and folders.
NEW = {path: "new" for path in OLD
       if not path.endswith(("gone.h", ".a", "-static.pc", ".proto"))}


def _finds(path):
    """Whether others find the library by it."""
    return path.startswith(("lib/cmake/", "lib/pkgconfig/"))


class StagingTest(scratch.TestCase):
    def stage(self, staging, files):
        for path, text in files.items():
            staging.add(path, self.write("source", text))

    def install(self, files):
        with prefix.Staging(self.prefix) as staging:
            self.stage(staging, files)
            staging.publish()

    def installed(self):
        """Path to text of all files in the prefix."""
        found = {}
        for folder, _, names in os.walk(self.prefix):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8") as file:
                    found[os.path.relpath(path, self.prefix)] = file.read()
        return found

    def test_nothing_is_there_before_it_is_published(self):
        with prefix.Staging(self.prefix) as staging:
            self.stage(staging, NEW)
            self.assertEqual([name for name in os.listdir(self.prefix) if name[0] != "."], [])
        self.assertEqual(os.listdir(self.prefix), [])

    def test_publishes_files_with_their_modes_and_links(self):
        with prefix.Staging(self.prefix) as staging:
            self.stage(staging, NEW)
            staging.link("lib/libgrapnel.so", "libgrapnel.so.0")
            staging.publish()
        self.assertEqual(self.installed(), {**NEW, "lib/libgrapnel.so": "new"})
        link = os.path.join(self.prefix, "lib/libgrapnel.so")
        self.assertEqual(os.readlink(link), "libgrapnel.so.0")
        for path, mode in (("bin/grapnel", 0o755), ("lib/libgrapnel.so.0", 0o755),
                           ("include/grapnel/grapnel.h", 0o644), ("include/grapnel", 0o755)):
            self.assertEqual(os.stat(os.path.join(self.prefix, path)).st_mode & 0o777, mode, path)

    def test_takes_the_place_of_an_older_one_and_of_nothing_else(self):
        self.install(OLD)
        self.write("prefix/bin/other", "kept")
        self.write("prefix/lib/pkgconfig/other.pc", "kept")
        self.install(NEW)
        self.assertEqual(self.installed(),
                         {**NEW, "bin/other": "kept", "lib/pkgconfig/other.pc": "kept"})

    def test_a_link_and_a_folder_take_each_others_place(self):
        elsewhere = self.write("elsewhere/lib/libc10.so", "theirs")
        for _ in range(2):
            self.install(OLD)
            with prefix.Staging(self.prefix) as staging:
                staging.link("lib/grapnel/torch", os.path.join(self.dir, "elsewhere"))
                staging.publish()
            self.assertTrue(os.path.islink(os.path.join(self.prefix, "lib/grapnel/torch")))
        with open(elsewhere, encoding="utf-8") as file:
            self.assertEqual(file.read(), "theirs")

    def test_one_that_ends_at_any_rename_is_not_found_and_can_be_repeated(self):
        rename = os.rename
        ends = 0
        while True:
            shutil.rmtree(self.prefix, ignore_errors=True)
            self.install(OLD)
            left = ends

            def rename_until(*arguments):
                nonlocal left
                if left == 0:
                    raise OSError(28, "No space left on device", arguments[1])
                left -= 1
                rename(*arguments)

            try:
                with mock.patch("os.rename", rename_until):
                    self.install(NEW)
                break
            except OSError:
                pass
            there = self.installed()
            rest = {path: text for path, text in there.items() if not _finds(path)}
            for text in (there[path] for path in there if _finds(path)):
                whole = OLD if text == "old" else NEW
                self.assertEqual(
                    rest, {path: text for path, text in whole.items() if not _finds(path)}, ends)
            self.assertFalse([name for name in os.listdir(self.prefix) if name.startswith(".")])
            self.install(NEW)
            self.assertEqual(self.installed(), NEW, ends)
            ends += 1
        self.assertGreater(ends, 8)
        self.assertEqual(self.installed(), NEW)

    def test_removes_what_a_killed_one_left(self):
        child = os.fork()
        if child == 0:
            with prefix.Staging(self.prefix) as staging:
                self.stage(staging, NEW)
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        self.assertEqual(len(os.listdir(self.prefix)), 1)
        self.install(NEW)
        self.assertEqual(self.installed(), NEW)

    def test_only_one_at_a_time(self):
        with prefix.Staging(self.prefix) as staging:
            self.stage(staging, NEW)
            with self.assertRaisesRegex(prefix.InstallError, "somebody else is installing"):
                self.install(OLD)
            staging.publish()
        self.assertEqual(self.installed(), NEW)

    def test_says_what_is_in_the_way_and_changes_nothing(self):
        for path, message in (("prefix", "prefix: is not a folder"),
                              ("prefix/lib", "lib: is in the way, it is not a folder"),
                              ("prefix/include/grapnel", "grapnel: is in the way, it is not a fol"),
                              ("prefix/bin/grapnel/x", "grapnel: is in the way, it is a folder")):
            with self.subTest(path):
                file = self.write(path, "theirs")
                with self.assertRaisesRegex(prefix.InstallError, message):
                    self.install(NEW)
                with open(file, encoding="utf-8") as text:
                    self.assertEqual(text.read(), "theirs")
                if path != "prefix":
                    self.assertEqual(list(self.installed().values()), ["theirs"])
                    shutil.rmtree(self.prefix)
                else:
                    os.remove(file)


if __name__ == "__main__":
    unittest.main()
