"""Every test of tag "gpu" goes into the folder that pack writes."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lint"))

import build_files
import tree


class GpuTestsTest(unittest.TestCase):

    def test_all_that_have_the_tag_are_packed(self):
        targets = build_files.all_targets(tree.Tree.of_repository())
        tagged = {t.label for t in targets if "gpu" in (t.attributes.get("tags") or [])}
        (packed,) = [t for t in targets if t.label == "//tools/gpu_check:gpu_tests"]
        listed = {build_files.normalize(label, packed.package) for label in packed.attributes["tests"]}
        self.assertIn("//cuda:multi_tensor_lerp_test", tagged)
        self.assertEqual(tagged, listed, "_GPU_TESTS in tools/gpu_check/BUILD lists other tests than have the tag")


if __name__ == "__main__":
    unittest.main()
