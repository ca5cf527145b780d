"""Tests of the command, with small files in place of Grapnel's and LibTorch's."""

import contextlib
import io
import os
import resource
import shutil
import signal
import unittest
from unittest import mock

import install
import libtorch
import prefix
import scratch


class InstallTest(scratch.TestCase):
    """By the command line, with a LibTorch of four small libraries."""

    def setUp(self):
        super().setUp()
        site = os.path.join(self.dir, "site")
        torch = os.path.join(site, "torch/lib")
        nvidia = os.path.join(site, "nvidia/cu13/lib")
        rpath = "-Wl,--no-as-needed,-rpath,$ORIGIN:$ORIGIN/../../nvidia/cu13/lib"
        self.link("site/nvidia/cu13/lib/libcudart.so.13", "int cudart;",
                  "-Wl,-soname,libcudart.so.13")
        self.link("site/torch/lib/libc10.so", "int c10;", "-Wl,-soname,libc10.so")
        self.link("site/torch/lib/libtorch_cpu.so", "int cpu;", "-Wl,-soname,libtorch_cpu.so",
                  rpath, f"{nvidia}/libcudart.so.13", f"{torch}/libc10.so")
        self.link("site/torch/lib/libtorch_python.so", "int python;")
        self.write("site/torch-2.11.0.dist-info/RECORD", "torch/lib/libc10.so,sha256=x,1\n")
        self.write("site/torch-2.11.0.dist-info/licenses/LICENSE", "torch's")
        self.write("site/other-1.dist-info/RECORD", "other/other.py,,\n")
        self.write("site/other-1.dist-info/licenses/LICENSE", "another's")
        self.linked = self.link("linked.so", "int grapnel;", "-Wl,--no-as-needed",
                                f"-Wl,-rpath,$ORIGIN/grapnel/torch/lib:{torch}",
                                f"{torch}/libtorch_cpu.so")
        header = self.write("grapnel.h", "the header")
        self.layout = self.write("layout.txt", "".join([
            f"include/grapnel/grapnel.h\t{header}\n",
            "lib/libgrapnel.so\t->\tlibgrapnel.so.0\n",
            f"lib/libgrapnel.so.0\t{self.linked}\n"]))
        self.torch = os.path.join(site, "torch")

    def run_main(self, *arguments):
        """Exit code, or the message that Python ends with, and what was printed."""
        out = io.StringIO()
        with mock.patch.multiple(install, _LAYOUT=self.layout, _LINKED=self.linked), \
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), \
                mock.patch("signal.signal"):
            try:
                result = install.main(list(arguments))
            except SystemExit as e:
                result = e.code
        return result, out.getvalue()

    def files(self):
        """Paths of all in the prefix but folders."""
        paths = (os.path.join(folder, name) for folder, folders, names in os.walk(self.prefix)
                 for name in folders + names)
        return sorted(os.path.relpath(path, self.prefix) for path in paths
                      if os.path.islink(path) or not os.path.isdir(path))

    def test_bundles_what_is_needed_with_its_licences(self):
        result, out = self.run_main("--prefix", self.prefix)
        self.assertEqual(result, 0, out)
        self.assertEqual(self.files(), [
            "include/grapnel/grapnel.h",
            "lib/grapnel/nvidia/cu13/lib/libcudart.so.13",
            "lib/grapnel/torch/lib/libc10.so",
            "lib/grapnel/torch/lib/libtorch_cpu.so",
            "lib/libgrapnel.so",
            "lib/libgrapnel.so.0",
            "share/doc/grapnel/torch-2.11.0/LICENSE",
        ])
        self.assertIn(f"installed into {self.prefix}", out)

    def test_a_libtorch_of_another_name_is_still_called_torch(self):
        os.rename(self.torch, self.torch + "-cpu")
        with prefix.Staging(self.prefix) as staging:
            libtorch.bundle(staging, self.torch + "-cpu", [self.linked])
            staging.publish()
        self.assertIn("lib/grapnel/torch/lib/libc10.so", self.files())

    def test_links_to_the_libtorch_of_the_build_or_to_another(self):
        for choice in ("link", self.torch):
            result, out = self.run_main("--prefix", self.prefix, "--libtorch", choice)
            self.assertEqual(result, 0, out)
            link = os.path.join(self.prefix, "lib/grapnel/torch")
            self.assertEqual(os.readlink(link), self.torch)
            self.assertIn(f"a link to the LibTorch {self.torch}", out)
            self.assertNotIn("share/doc/grapnel/torch-2.11.0/LICENSE", self.files())

    def test_refuses_to_bundle_cuda(self):
        torch = os.path.join(self.torch, "lib")
        self.link("site/torch/lib/libtorch_cuda.so", "int cuda;", "-Wl,-soname,libtorch_cuda.so")
        self.link("linked.so", "int grapnel;", "-Wl,--no-as-needed", f"-Wl,-rpath,{torch}",
                  f"{torch}/libtorch_cuda.so")
        result, _ = self.run_main("--prefix", self.prefix)
        self.assertIn("use --libtorch link", result)
        self.assertEqual(self.files(), [])

    def test_says_what_is_wrong_with_the_command_line(self):
        for arguments, message in (((), "the following arguments are required: --prefix"),
                                   (("--prefix", ""), "--prefix: is empty"),
                                   (("--prefix", self.prefix, "--libtorch", "copy"), 'is "copy"'),
                                   (("--pref", self.prefix), "--prefix"),
                                   (("--prefix", self.prefix, "more"), "more")):
            with self.subTest(arguments):
                result, out = self.run_main(*arguments)
                self.assertEqual(result, 2)
                self.assertIn(message, out)
        self.assertFalse(os.path.exists(self.prefix))

    def test_says_when_there_is_no_libtorch(self):
        result, _ = self.run_main("--prefix", self.prefix, "--libtorch", self.dir + "/none")
        self.assertEqual(result, f"install: --libtorch: {self.dir}/none has no lib/libtorch_cpu.so")
        shutil.rmtree(self.torch)
        result, _ = self.run_main("--prefix", self.prefix)
        self.assertIn("the LibTorch that it was linked with isn't there any more", result)
        self.assertEqual(self.files(), [])

    def test_says_that_a_prefix_cannot_be_written(self):
        result, _ = self.run_main("--prefix", "/proc/grapnel")
        self.assertRegex(result, "^install: /proc/grapnel: ")
        os.makedirs(os.path.join(self.prefix, "lib"))
        # For root everything is writable.
        with mock.patch("os.access", lambda path, _: not path.endswith("/lib")):
            result, _ = self.run_main("--prefix", self.prefix)
        self.assertEqual(result, f"install: {self.prefix}/lib: Permission denied")
        self.assertEqual(self.files(), [])

    def test_a_full_disk_leaves_the_prefix_as_it_was(self):
        self.run_main("--prefix", self.prefix, "--libtorch", "link")
        before = self.files()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            result, _ = self.run_main("--prefix", self.prefix)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertRegex(result, r"^install: .*libgrapnel\.so\.0: File too large$")
        self.assertEqual(self.files(), before)

    def test_a_signal_leaves_the_prefix_as_it_was(self):
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            child = os.fork()
            if child == 0:
                with mock.patch("shutil.copyfile", lambda *_: os.kill(os.getpid(), number)), \
                        mock.patch.multiple(install, _LAYOUT=self.layout, _LINKED=self.linked):
                    try:
                        os._exit(install.main(["--prefix", self.prefix]))
                    except SystemExit as e:
                        os._exit(e.code)
            _, status = os.waitpid(child, 0)
            self.assertEqual(os.waitstatus_to_exitcode(status), code)
            self.assertEqual(os.listdir(self.prefix), [])


if __name__ == "__main__":
    unittest.main()
