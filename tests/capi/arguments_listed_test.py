"""No function of grapnel.h is left out where bad arguments are tried."""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = ROOT / "capi" / "include" / "grapnel" / "grapnel.h"
TESTS = (
    ROOT / "tests" / "capi" / "bad_arguments_test.c",
    ROOT / "tests" / "capi" / "runs" / "arguments_test.cc",
)
# They take nothing that could be bad.
WITHOUT = {"grapnel_version", "grapnel_build_info"}


def functions():
    code = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    declarations = re.findall(r"GRAPNEL_API[^;]*?\b(grapnel_\w+)\(", code)
    return set(declarations)


class ArgumentsListedTest(unittest.TestCase):

    def test_each_function_is_given_bad_arguments(self):
        self.assertGreater(len(functions()), 100)
        tried = "".join(path.read_text() for path in TESTS)
        missing = [name for name in functions() - WITHOUT if not re.search(rf"\b{name}\(", tried)]
        self.assertEqual(sorted(missing), [])


if __name__ == "__main__":
    sys.exit(unittest.main())
