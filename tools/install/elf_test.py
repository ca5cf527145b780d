"""Tests of elf.py, and of relocatable.py by it, with libraries that the compiler makes."""

import os
import subprocess
import unittest

import elf
import relocatable
import scratch


class DynamicFileTest(scratch.TestCase):
    def test_reads_what_a_library_needs_and_where_it_looks(self):
        paths = [self.link(f"lib{name}.so", f"int {name};", f"-Wl,-soname,lib{name}.so.0")
                 for name in "cba"]
        file = elf.DynamicFile(self.link(
            "libx.so", "int x;", "-Wl,--no-as-needed,-rpath,$ORIGIN/a:/b", "-nostdlib", *paths))
        self.assertEqual(file.runpath(), ["$ORIGIN/a", "/b"])
        self.assertEqual(file.needed(), ["libc.so.0", "libb.so.0", "liba.so.0"])

    def test_puts_the_folder_in_the_prefix_in_the_place_of_libtorchs(self):
        for flag in ("--enable-new-dtags", "--disable-new-dtags"):
            path = self.link("libx.so", "int x(void) { return 1; }",
                             f"-Wl,{flag},-rpath,$ORIGIN/lib:/secret/t:/secret/t/../n:/secret/c")
            size = os.path.getsize(path)
            relocatable.make_relocatable(path)
            self.assertEqual(elf.DynamicFile(path).runpath(), ["$ORIGIN/lib", "$ORIGIN/lib/../n"])
            self.assertEqual(os.path.getsize(path), size)
            with open(path, "rb") as file:
                self.assertNotIn(b"secret", file.read())
            read = subprocess.run(["readelf", "-d", path], check=True, capture_output=True).stdout
            self.assertIn(b"[$ORIGIN/lib:$ORIGIN/lib/../n]", read)

    def test_refuses_a_runpath_that_it_cannot_change(self):
        for flags in ([], ["-Wl,-rpath,/a:/b"], ["-Wl,-rpath,$ORIGIN/a"]):
            path = self.link("libx.so", "int x(void) { return 1; }", *flags)
            with self.assertRaisesRegex(elf.ElfError, "isn't a folder in .ORIGIN and LibTorch's"):
                relocatable.make_relocatable(path)
        without = self.link("libx.so", "int x(void) { return 1; }")
        with self.assertRaisesRegex(elf.ElfError, "has no RUNPATH"):
            elf.DynamicFile(without).shorten_runpath(["/a"])
        short = elf.DynamicFile(self.link("liby.so", "int y(void) { return 1; }", "-Wl,-rpath,/a"))
        with self.assertRaisesRegex(elf.ElfError, "RUNPATH has 2 bytes, 3 are needed"):
            short.shorten_runpath(["/bb"])

    def test_refuses_a_runpath_whose_end_is_a_name(self):
        path = self.link("libx.so", "int lib(void) { return 1; }", "-Wl,-rpath,$ORIGIN/a:/b/lib")
        with self.assertRaisesRegex(elf.ElfError, 'also the name "lib"'):
            relocatable.make_relocatable(path)

    def test_refuses_what_is_no_such_file(self):
        with self.assertRaisesRegex(elf.ElfError, "is no 64-bit"):
            elf.DynamicFile(self.write("x.so", "text"))
        whole = self.link("libx.so", "int x(void) { return 1; }")
        with open(whole, "rb") as file:
            start = file.read(60)
        with open(whole, "wb") as file:
            file.write(start)
        with self.assertRaises(elf.ElfError):
            elf.DynamicFile(whole)


if __name__ == "__main__":
    unittest.main()
