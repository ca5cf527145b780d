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
        self.write_version("site/torch/include/torch/headeronly/version.h", 2, 11, 0)
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

    def write_version(self, path, *numbers):
        names = ("MAJOR", "MINOR", "PATCH")
        self.write(path, "".join(f"#define TORCH_VERSION_{name} {number}\n"
                                 for name, number in zip(names, numbers)))

    def copy_torch(self, name):
        """A LibTorch like that of the build, with only the libraries."""
        torch = os.path.join(self.dir, name)
        shutil.copytree(os.path.join(self.torch, "lib"), os.path.join(torch, "lib"))
        return torch

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
            "lib/grapnel/torch/include/torch/headeronly/version.h",
            "lib/grapnel/torch/lib/libc10.so",
            "lib/grapnel/torch/lib/libtorch_cpu.so",
            "lib/libgrapnel.so",
            "lib/libgrapnel.so.0",
            "share/doc/grapnel/torch-2.11.0/LICENSE",
        ])
        self.assertIn(f"installed into {self.prefix}", out)
        other = os.path.join(self.dir, "other")
        result, out = self.run_main("--prefix", other, "--libtorch",
                                    os.path.join(self.prefix, "lib/grapnel/torch"))
        self.assertEqual(result, 0, out)

    def test_a_libtorch_of_another_name_is_still_called_torch(self):
        os.rename(self.torch, self.torch + "-cpu")
        linked = self.link("relinked.so", "int grapnel;", "-Wl,--no-as-needed",
                           f"-Wl,-rpath,{self.torch}-cpu/lib",
                           f"{self.torch}-cpu/lib/libtorch_cpu.so")
        with prefix.Staging(self.prefix) as staging:
            libtorch.bundle(staging, linked, [linked])
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

    def test_finds_what_is_beside_a_libtorch_at_the_root(self):
        with mock.patch("os.path.exists", lambda path: path == "/torch/lib/libc10.so"):
            self.assertEqual(libtorch._find("libc10.so", "/torch", None), "/torch/lib/libc10.so")
            self.assertIsNone(libtorch._find("libz.so", "/torch", None))

    def test_refuses_to_bundle_nothing(self):
        with prefix.Staging(self.prefix) as staging, \
                self.assertRaisesRegex(prefix.InstallError, "nothing that is installed needs .*cpu"):
            libtorch.bundle(staging, self.linked, [self.link("alone.so", "int alone;")])

    def test_refuses_a_libtorch_of_another_version(self):
        torch = self.copy_torch("other")
        ours = "Grapnel is built with 2.11.0"
        result, _ = self.run_main("--prefix", self.prefix, "--libtorch", torch)
        self.assertEqual(result, f"install: --libtorch: {torch} is version unknown, {ours}")
        # The newest place of three counts.
        for path, version, good in (
                ("version.py", (1, 13, 1), False), ("version.py", (2, 11, 1), True),
                ("include/torch/csrc/api/include/torch/version.h", (2, 1, 1), False),
                ("include/torch/csrc/api/include/torch/version.h", (2, 11, 0), True),
                ("include/torch/headeronly/version.h", (3, 11, 0), False),
                ("include/torch/headeronly/version.h", (2, 11, 7), True)):
            numbers = ".".join(map(str, version))
            if path == "version.py":
                self.write("other/version.py",
                           f"x = 1\n__version__ = '{numbers}+cpu'\ny = '9.9.9'\n")
            else:
                self.write_version("other/" + path, *version)
            with self.subTest(path=path, version=version):
                result, _ = self.run_main("--prefix", self.prefix, "--libtorch", torch)
                self.assertEqual(result, 0 if good else
                                 f"install: --libtorch: {torch} is version {numbers}, {ours}")

    def test_refuses_a_libtorch_that_is_none(self):
        for name in ("libc10.so", "libtorch_cpu.so"):
            torch = self.copy_torch(name)
            library = self.write(f"{name}/lib/{name}", "text")
            result, _ = self.run_main("--prefix", self.prefix, "--libtorch", torch)
            self.assertEqual(result, f"install: --libtorch: {library}: is no 64-bit ELF file")
            os.remove(library)
            result, _ = self.run_main("--prefix", self.prefix, "--libtorch", torch)
            self.assertEqual(result, f"install: --libtorch: {torch} has no lib/{name}")
        self.assertFalse(os.path.exists(self.prefix))

    def test_refuses_a_libtorch_in_what_is_replaced(self):
        within = os.path.join(self.prefix, "lib/grapnel/torch")
        shutil.copytree(self.torch, within)
        os.symlink(within, os.path.join(self.dir, "link"))
        os.symlink("link", os.path.join(self.dir, "link_to_link"))
        os.symlink(self.prefix, os.path.join(self.dir, "same"))
        os.mkdir(os.path.join(self.dir, "parts"))
        os.symlink(within + "/lib", os.path.join(self.dir, "parts/lib"))
        for path in (within, within + "/../torch", self.dir + "/link", self.dir + "/link_to_link",
                     self.dir + "/same/lib/grapnel/torch", self.dir + "/parts"):
            for where in (self.prefix, self.dir + "/same"):
                with self.subTest(path=path, where=where):
                    result, _ = self.run_main("--prefix", where, "--libtorch", path)
                    self.assertRegex(result, "--libtorch: .* is in .*/lib/grapnel, which is rep")
        self.assertTrue(os.path.exists(within + "/lib/libc10.so"))

        # A link that the prefix has would say itself.
        shutil.rmtree(within)
        os.symlink(self.torch, within)
        result, _ = self.run_main("--prefix", self.prefix, "--libtorch", self.dir + "/link")
        self.assertIn(f"is in {self.prefix}/lib/grapnel", result)
        self.assertEqual(os.readlink(within), self.torch)
        # Outside of what is replaced, any place is good.
        beside = os.path.join(self.prefix, "lib/torch")
        os.symlink(self.torch, beside)
        result, out = self.run_main("--prefix", self.prefix, "--libtorch", beside)
        self.assertEqual(result, 0, out)
        self.assertEqual(os.readlink(within), beside)

    def test_links_of_pages_lead_to_what_is_installed(self):
        page = self.write("page.md", "See [the header](grapnel.h#part), [gone](no/gone.h) and "
                                     "[a site](https://x.example).\n")
        with open(self.layout, "a", encoding="utf-8") as lines:
            lines.write(f"share/doc/grapnel/page.md\t{page}\n")
        result, out = self.run_main("--prefix", self.prefix)
        self.assertEqual(result, 0, out)
        with open(self.prefix + "/share/doc/grapnel/page.md", encoding="utf-8") as file:
            self.assertEqual(file.read(), "See [the header](../../../include/grapnel/grapnel.h#part"
                                          "), gone and [a site](https://x.example).\n")

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
                                   (("--prefix", self.prefix, "--prefix=x"), "--prefix: is given"),
                                   (("--prefix", self.prefix, "--libtorch=link", "--libtorch=link"),
                                    "--libtorch: is given twice"),
                                   (("--prefix=~/x",), "give --prefix ~/x, without"),
                                   (("--prefix", self.prefix, "--libtorch=~u/t"), "rch ~u/t, wi"),
                                   (("--prefix", self.prefix, "more"), "more")):
            with self.subTest(arguments):
                result, out = self.run_main(*arguments)
                self.assertEqual(result, 2)
                self.assertIn(message, out)
        self.assertFalse(os.path.exists(self.prefix))

    def test_says_when_there_is_no_libtorch(self):
        result, _ = self.run_main("--prefix", self.prefix, "--libtorch", self.dir + "/none")
        self.assertEqual(result, f"install: --libtorch: {self.dir}/none has no lib/libtorch_cpu.so")
        self.assertFalse(os.path.exists(self.prefix))
        shutil.rmtree(self.torch)
        result, _ = self.run_main("--prefix", self.prefix)
        self.assertIn("the LibTorch that it was linked with isn't there any more", result)
        self.assertFalse(os.path.exists(self.prefix))

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
        self.assertRegex(result, f"^install: {self.prefix}/lib/libgrapnel.so.0: File too large$")
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
            self.assertFalse(os.path.exists(self.prefix))


if __name__ == "__main__":
    unittest.main()
