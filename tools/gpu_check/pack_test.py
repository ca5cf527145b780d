import unittest

import pack


class LibrariesTest(unittest.TestCase):

    def test_those_of_the_system_are_found_where_ldd_says(self):
        listed = ("\tlinux-vdso.so.1 (0x00007ffd)\n"
                  "\tlibglog.so.1 => /lib/x86_64-linux-gnu/libglog.so.1 (0x00007f3a)\n"
                  "\tlibcublas.so.13 => not found\n"
                  "\t/lib64/ld-linux-x86-64.so.2 (0x00007f3b)\n")
        self.assertEqual(pack.libraries_of(listed), {"libglog.so.1": "/lib/x86_64-linux-gnu/libglog.so.1",
                                                     "libcublas.so.13": ""})

    def test_what_the_other_machine_has_is_left_out(self):
        for name in ["libc.so.6", "libm.so.6", "libgomp.so.1", "libstdc++.so.6", "libgcc_s.so.1", "libdl.so.2",
                     "ld-linux-x86-64.so.2", "libtorch_cpu.so", "libtorch_cuda.so", "libc10.so", "libc10_cuda.so",
                     "libcudart.so.13", "libcudnn.so.9", "libcupti.so.13", "libcusparseLt.so.0", "libcublasLt.so.13",
                     "libcuda.so.1", "libnvJitLink.so.13", "libnvshmem_host.so.3", "libnccl.so.2"]:
            with self.subTest(name):
                self.assertTrue(pack.is_left_out(name))

    def test_all_else_is_packed(self):
        for name in ["libprotobuf.so.32", "libglog.so.1", "libgflags.so.2.2", "libunwind.so.8", "liblzma.so.5",
                     "libabsl_cord.so.20220623", "libz.so.1", "libpng16.so.16", "libcurl.so.4", "libcrypto.so.3",
                     "libmvec.so.1"]:
            with self.subTest(name):
                self.assertFalse(pack.is_left_out(name))


class VersionsTest(unittest.TestCase):

    LISTED = """
Version definition section '.gnu.version_d' contains 1 entry:
  000000: Rev: 1  Flags: none  Index: 2  Cnt: 1  Name: GLIBC_2.99

Version needs section '.gnu.version_r' contains 2 entries:
 Addr: 0x00000000000014d8  Offset: 0x000014d8  Link: 6 (.dynstr)
  000000: Version: 1  File: libc.so.6  Cnt: 3
  0x0010:   Name: GLIBC_2.34  Flags: none  Version: 12
  0x0020:   Name: GLIBC_2.4  Flags: none  Version: 11
  0x0030:   Name: GLIBC_2.2.5  Flags: none  Version: 5
  0x0040: Version: 1  File: libstdc++.so.6  Cnt: 2
  0x0050:   Name: GLIBCXX_3.4.9  Flags: none  Version: 3
  0x0060:   Name: GLIBCXX_3.4.30  Flags: none  Version: 4
  0x0070:   Name: CXXABI_1.3  Flags: none  Version: 2
"""

    def test_the_highest_of_each_that_is_needed(self):
        self.assertEqual(pack.required_versions(self.LISTED),
                         {"GLIBC": (2, 34), "GLIBCXX": (3, 4, 30), "CXXABI": (1, 3)})

    def test_a_file_that_needs_none(self):
        self.assertEqual(pack.required_versions("\nNo version information found in this file.\n"), {})


if __name__ == "__main__":
    unittest.main()
