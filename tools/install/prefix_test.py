"""Tests of what writes a prefix, with small files in place of Grapnel's."""

import os
import shutil
import signal
import tempfile
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
        self.assertFalse(os.path.exists(self.prefix))

    def test_leaves_no_folder_that_it_made_unless_somebody_uses_it(self):
        self.prefix = os.path.join(self.dir, "opt/new/prefix")
        self.write("opt/theirs")
        with prefix.Staging(self.prefix) as staging:
            self.stage(staging, NEW)
        self.assertEqual(os.listdir(os.path.join(self.dir, "opt")), ["theirs"])
        with prefix.Staging(self.prefix) as staging:
            self.write("opt/new/prefix/theirs", "kept")
        self.assertEqual(self.installed(), {"theirs": "kept"})

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

    def test_knows_what_is_loaded_by_its_place(self):
        for path in ("bin/grapnel", "lib/libgrapnel.so", "lib/libgrapnel.so.0",
                     "lib/grapnel/nvidia/lib/libcudart.so.13"):
            self.assertTrue(prefix.is_loaded(path), path)
        for path in ("share/grapnel/go/x.so", "share/doc/grapnel/a.so.md", "lib/x.sock",
                     "lib/libgrapnel.a", "lib/cmake/Grapnel/a.source", "include/grapnel/x.so"):
            self.assertFalse(prefix.is_loaded(path), path)

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
            except prefix.InstallError:
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

    def test_one_whose_rename_fails_once_puts_back_what_was_there(self):
        rename = os.rename
        fails = 0
        while True:
            shutil.rmtree(self.prefix, ignore_errors=True)
            self.install(OLD)
            self.write("prefix/lib/libgrapnel.so.0", "old too")
            before = self.installed()
            left = fails

            def rename_but_once(*arguments):
                nonlocal left
                left -= 1
                if left == -1:
                    raise OSError(18, "Invalid cross-device link", *arguments)
                rename(*arguments)

            try:
                with mock.patch("os.rename", rename_but_once):
                    self.install({**NEW, "share/doc/grapnel/new.md": "new"})
                break
            except prefix.InstallError as e:
                unit = str(e).replace(": Invalid cross-device link", "")
                self.assertIn(os.path.relpath(unit, self.prefix),
                              prefix.OWN_FOLDERS + prefix.OWN_FILES + prefix.DISCOVERY)
            self.assertEqual(self.installed(), before, fails)
            self.assertEqual(os.listdir(os.path.join(self.prefix, "share")), ["grapnel"])
            fails += 1
        self.assertGreater(fails, 12)
        self.assertEqual(self.installed(), {**NEW, "share/doc/grapnel/new.md": "new"})

    def test_says_what_it_cannot_put_back(self):
        self.install(OLD)
        rename = os.rename

        def no_bin(start, end):
            if start.endswith("include/grapnel") or end.endswith("prefix/bin/grapnel"):
                raise OSError(5, "Input/output error", start)
            rename(start, end)

        with mock.patch("os.rename", no_bin), self.assertRaisesRegex(
                prefix.InstallError,
                "^.*/prefix/bin/grapnel: Input/output error; bin/grapnel could not be put back"):
            self.install(NEW)
        self.assertFalse([path for path in self.installed() if _finds(path)])
        self.assertEqual(self.installed()["lib/libgrapnel.so.0"], "old")

    def test_refuses_a_folder_on_another_file_system(self):
        if os.stat("/dev/shm").st_dev == os.stat(self.dir).st_dev:
            self.skipTest("there is one file system")
        elsewhere = tempfile.mkdtemp(dir="/dev/shm")
        self.addCleanup(shutil.rmtree, elsewhere)
        os.mkdir(self.prefix)
        os.symlink(elsewhere, os.path.join(self.prefix, "lib"))
        with self.assertRaisesRegex(prefix.InstallError, "lib: is on another file system than .*"
                                    "lib/cmake/Grapnel can't be moved there"):
            self.install(NEW)
        self.assertEqual(self.installed(), {})
        self.assertEqual(os.listdir(elsewhere), [])

    def test_refuses_to_replace_what_something_is_mounted_in(self):
        self.install(OLD)
        torch = os.path.join(os.path.realpath(self.prefix), "lib/grapnel/torch")
        for mount in (torch, os.path.dirname(torch)):
            with mock.patch("prefix._mounts", return_value=["/", mount]), \
                    self.assertRaisesRegex(prefix.InstallError, f"^{mount}: something is mounted"):
                self.install(NEW)
            self.assertEqual(self.installed(), OLD)
        with mock.patch("prefix._mounts", return_value=["/", os.path.dirname(self.prefix)]):
            self.install(NEW)
        self.assertIn("/", prefix._mounts())

    def test_names_a_file_by_where_it_will_be(self):
        def full(*_):
            raise OSError(28, "No space left on device", "/internal")

        with mock.patch("shutil.copyfile", full), prefix.Staging(self.prefix) as staging, \
                self.assertRaisesRegex(prefix.InstallError,
                                       f"^{self.prefix}/bin/grapnel: No space left on device$"):
            self.stage(staging, {"bin/grapnel": "new"})
        with prefix.Staging(self.prefix) as staging, self.assertRaisesRegex(OSError, "/none"):
            staging.add("bin/grapnel", self.dir + "/none")

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
                              ("prefix/bin/grapnel/x", "grapnel: is in the way, it is a folder"),
                              ("prefix/lib/libgrapnel.a/x", "el.a: is in the way, it is a fold")):
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
