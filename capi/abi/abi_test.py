"""grapnel.h is what is recorded, and a change of any kind to it is found.

  abi_test.py HEADER   the record lies beside this file
"""

import os
import re
import sys
import tempfile
import unittest

import abi

_HERE = os.path.dirname(os.path.abspath(__file__))

# What is changed, a place in the header, what it becomes, and what the report has
# to name.
_CHANGES = [
    ("an enum's value", r"GRAPNEL_NOT_FOUND = 5", "GRAPNEL_NOT_FOUND = 25", "GRAPNEL_NOT_FOUND"),
    ("two values swapped", r"GRAPNEL_TEXT = 2, GRAPNEL_JSON = 3", "GRAPNEL_TEXT = 3, GRAPNEL_JSON = 2",
     "GRAPNEL_TEXT"),
    ("a value more", r"GRAPNEL_UNAUTHENTICATED = 16", r"\g<0>, GRAPNEL_LATE = 17", "GRAPNEL_LATE"),
    ("a value's name", r"\bGRAPNEL_STOP_NOW\b", "GRAPNEL_STOP_AT_ONCE", "GRAPNEL_STOP_AT_ONCE"),
    ("a type of numbers", r"typedef int32_t grapnel_dtype;", "typedef int64_t grapnel_dtype;", "grapnel_dtype"),
    ("a field's type", r"(typedef struct grapnel_bytes \{.*?)size_t size;", r"\g<1>uint32_t size;", "size"),
    ("a field more", r"(typedef struct grapnel_bytes \{.*?size_t size;)", r"\g<1> size_t capacity;", "capacity"),
    ("fields in another order",
     r"(grapnel_status\* \(\*reset\)\(void\* user_data\);)(.*?)(void \(\*destroy\)\(void\* user_data\);)",
     r"\g<3>\g<2>\g<1>", "reset"),
    ("a parameter's type", r"(grapnel_safetensors_read\(\s*const char\* path,\s*)size_t", r"\g<1>int32_t",
     "grapnel_safetensors_read"),
    ("a parameter less", r"(grapnel_runner_step\(\s*grapnel_runner\* runner),\s*int32_t\* more", r"\g<1>",
     "grapnel_runner_step"),
    ("a parameter's const", r"(grapnel_checkpoint_list\(\s*)const char\*", r"\g<1>char*", "grapnel_checkpoint_list"),
    ("a callback's parameter", r"(typedef void \(\*grapnel_log_callback\)\(void\* user_data,\s*)grapnel_severity",
     r"\g<1>int64_t", "grapnel_log_callback"),
    ("what is returned", r"int64_t(\s+grapnel_live_objects\(void\))", r"int32_t\g<1>", "grapnel_live_objects"),
    ("a function less", r"GRAPNEL_API int64_t\s+grapnel_live_objects\(void\);", "", "grapnel_live_objects"),
    ("a function more", r"GRAPNEL_API int64_t\s+grapnel_live_objects\(void\);",
     r"\g<0> GRAPNEL_API int64_t grapnel_dead_objects(void);", "grapnel_dead_objects"),
    ("a macro's value", r"#define GRAPNEL_VERSION_MINOR \d+", "#define GRAPNEL_VERSION_MINOR 99",
     "GRAPNEL_VERSION_MINOR 99"),
    ("a macro less", r"#define GRAPNEL_VERSION_MAJOR \d+\n", "", "gone: #define GRAPNEL_VERSION_MAJOR"),
    ("a macro more", r"#define GRAPNEL_VERSION_MAJOR \d+\n", r"\g<0>#define GRAPNEL_LEVEL 3\n",
     "new: #define GRAPNEL_LEVEL 3"),
]

# What no object file can tell.
_NO_CHANGES = [
    ("a comment", r"/\* [^*]* \*/", "/* Another one. */"),
    ("a parameter's name", r"(grapnel_checkpoint_list\(\s*const char\*) dir\b", r"\g<1> folder"),
    ("lines and spaces", r"GRAPNEL_API int64_t\s+grapnel_live_objects\(void\);",
     "GRAPNEL_API\n    int64_t\n    grapnel_live_objects ( void ) ;"),
]


class AbiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(cls.header_path) as f:
            cls.header = f.read()

    def changed(self, pattern, replacement):
        text, count = re.subn(pattern, replacement, self.header, count=1, flags=re.DOTALL)
        self.assertEqual(count, 1, "not in the header: " + pattern)
        self.assertNotEqual(text, self.header)
        return text

    def test_the_header_is_as_recorded(self):
        difference = abi.compare(_HERE, self.header)
        self.assertEqual(difference, "", difference + "\nIf the change only adds, or no version with it is out: "
                         "./bazelw run //capi/abi:record")

    def test_every_change_is_found(self):
        # Against a record of the header as it is, so that this holds while the
        # other doesn't.
        with tempfile.TemporaryDirectory() as folder:
            abi.record(folder, self.header)
            self.assertEqual(abi.compare(folder, self.header), "")
            for what, pattern, replacement, named in _CHANGES:
                with self.subTest(what):
                    self.assertIn(named, abi.compare(folder, self.changed(pattern, replacement)))
            for what, pattern, replacement in _NO_CHANGES:
                with self.subTest(what):
                    self.assertEqual(abi.compare(folder, self.changed(pattern, replacement)), "")

    def test_every_function_is_in_the_record(self):
        with open(os.path.join(_HERE, abi.ABI)) as f:
            recorded = set(re.findall(r"<elf-symbol name='(\w+)'", f.read()))
        declared = set(re.findall(r"\b(grapnel_\w+) ?\(", abi.definitions(self.header).replace("\n", " ")))
        self.assertGreater(len(recorded), 100)
        self.assertEqual(recorded, declared)


if __name__ == "__main__":
    AbiTest.header_path = sys.argv.pop(1)
    unittest.main()
