#!/usr/bin/env python3
"""Examples are found where they are, and a header without one is named."""

import unittest

import header_examples

HEADER = """\
// What it is.
//
// Example:
//
//   if (Open("here")) {
//     Close();
//   }
//
//   Close();  // Again.
//
// What else there is.
//
//   NoExample();
"""


class HeaderExamplesTest(unittest.TestCase):

    def assertRefused(self, text, problem):
        with self.assertRaisesRegex(header_examples.NoExample, problem):
            header_examples.example_of("io/x.h", text)

    def test_ends_beside_the_margin(self):
        self.assertEqual(header_examples.example_of("io/x.h", HEADER), (
            5, ['if (Open("here")) {', "  Close();", "}", "", "Close();  // Again."]))

    def test_ends_with_the_comment(self):
        text = "class X {\n  // Example:\n  //   Open();\n  void Open();\n"
        self.assertEqual(header_examples.example_of("io/x.h", text), (3, ["Open();"]))

    def test_a_test_names_the_lines_of_the_header(self):
        test = header_examples.test_of("io/new_file.h", HEADER).split("\n")
        self.assertEqual(test[0], '#line 4 "io/new_file.h"')
        self.assertIn("TEST_F(HeaderExamplesTest, IoNewFile)", test[1])
        self.assertEqual(test[2], 'if (Open("here")) {')

    def test_headers_without_an_example(self):
        self.assertRefused("// What it is.\nint x;\n", 'io/x.h: must have one comment "Example:", has 0')
        self.assertRefused(HEADER + HEADER, "has 2")
        self.assertRefused("int x;\n// Example:\n//\n// See x.cc.\n", "io/x.h:2: the example is empty")


if __name__ == "__main__":
    unittest.main()
