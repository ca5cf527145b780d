"""Grapnel's .pth files in Python: torch.load by each of its ways, zipfile, modules."""

import collections
import math
import os
import subprocess
import sys
import time
import unittest
import zipfile

import slim_torch

TOOL = os.path.abspath(sys.argv.pop(1))
DIR = os.environ["TEST_TMPDIR"]
torch = slim_torch.load(TOOL)

WAYS = {
    "weights_only": {"weights_only": True},
    "mmap": {"weights_only": True, "mmap": True},
    "pickle": {"weights_only": False},
}


def write(command, *args):
    path = os.path.join(DIR, f"{command}.pth")
    subprocess.run([TOOL, command, path, *map(str, args)], check=True)
    return path


def raw(tensor):
    """Its elements' bytes, in order."""
    flat = tensor.contiguous().view(-1)
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def address(tensor):
    return tensor.untyped_storage().data_ptr()


class PthWriteTest(unittest.TestCase):

    def load(self, command, *args):
        """What was written, loaded in each way."""
        path = write(command, *args)
        with zipfile.ZipFile(path) as z:
            self.assertIsNone(z.testzip())
        for way, arguments in WAYS.items():
            with self.subTest(way):
                yield torch.load(path, **arguments)

    def test_values(self):
        for value in self.load("values"):
            self.assertEqual(list(value), ["ints", "floats", "strings", "constants", -5])
            self.assertEqual(value["ints"], [
                0, 255, 256, 65535, 65536, -1, 2**31 - 1, -2**31, 2**31, -2**31 - 1, 2**40,
                2**63 - 1, -2**63])
            floats = value["floats"]
            self.assertEqual(floats[:4], (1e-3, -0.0, math.inf, -math.inf))
            self.assertEqual(math.copysign(1, floats[1]), -1)
            self.assertTrue(math.isnan(floats[4]))
            self.assertEqual(floats[5], 5e-324)
            self.assertEqual(value["strings"], ["", "résumé ☃ 😀", "a\0b\n", "ints"])
            self.assertEqual(value["constants"], (None, True, False))
            ordered = value[-5]
            self.assertIs(type(ordered), collections.OrderedDict)
            self.assertEqual(list(ordered.items()),
                             [("z", {}), ("a", []), ("m", ()), ("o", collections.OrderedDict())])
            self.assertIs(type(ordered["z"]), dict)

    def test_dtypes(self):
        for value in self.load("dtypes"):
            self.assertEqual(len(value), 21)
            for name, (matrix, transposed) in value.items():
                with self.subTest(name):
                    dtype = getattr(torch, name)
                    size = 6 * dtype.itemsize
                    expected = bytes(i & 1 if name == "bool" else i for i in range(size))
                    self.assertEqual((matrix.dtype, tuple(matrix.shape), raw(matrix)),
                                     (dtype, (2, 3), expected))
                    self.assertEqual((transposed.dtype, transposed.stride()), (dtype, (1, 3)))
                    self.assertEqual(address(matrix), address(transposed))

    def test_layouts(self):
        base = torch.arange(24, dtype=torch.float32).view(4, 6)
        ints = torch.arange(1000, dtype=torch.int32)
        expected = {
            "base": base,
            "tied": base,
            "transposed": base.t(),
            "column": base[:, 2],
            "block": base[1:3, 2:5],
            "steps": base[:, ::2],
            "ints": base.view(torch.int32),
            "lone": ints[10:20],
            "lone steps": ints[::100],
            "expanded": torch.full((1,), 7.).expand(3, 4),
            "channels last": torch.arange(24.).view(1, 2, 3, 4).to(
                memory_format=torch.channels_last),
            "scalar": torch.tensor(2.5, dtype=torch.float64),
            "scalar of base": base[1, 1],
            "empty": torch.empty(0, 4, dtype=torch.float16),
            "empty of base": base[2:2],
            "requires grad": torch.ones(2),
            "conjugate": torch.full((2,), 1 - 2j),
        }
        shared = ["base", "tied", "transposed", "column", "block", "steps", "scalar of base",
                  "empty of base"]
        for value in self.load("layouts"):
            self.assertEqual(list(value), list(expected))
            for name, tensor in expected.items():
                with self.subTest(name):
                    self.assertTrue(torch.equal(value[name], tensor))
                    self.assertEqual(value[name].dtype, tensor.dtype)
                    if name != "lone steps":
                        self.assertEqual(value[name].stride(), tensor.stride())
                    self.assertEqual(value[name].is_contiguous(),
                                     name == "lone steps" or tensor.is_contiguous())
                    self.assertFalse(value[name].requires_grad)
            self.assertEqual({address(value[name]) for name in shared}, {address(value["base"])})
            self.assertEqual(value["lone"].untyped_storage().nbytes(), 40)
            self.assertEqual(value["lone steps"].untyped_storage().nbytes(), 40)

    def test_mapped_storage_is_aligned(self):
        for name, tensor in torch.load(write("layouts"), weights_only=True, mmap=True).items():
            self.assertEqual(address(tensor) % 64, 0, name)

    def test_module_loads_its_weights(self):
        for weights in self.load("weights"):
            self.assertIs(type(weights), collections.OrderedDict)
            module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3),
                                         torch.nn.Linear(3, 4))
            self.assertEqual(str(module.load_state_dict(weights)), "<All keys matched successfully>")
            self.assertEqual(list(weights), list(module.state_dict()))
            self.assertEqual(address(weights["0.weight"]), address(weights["2.weight"]))
            self.assertEqual(module[1].num_batches_tracked.item(), 6)
            self.assertTrue(torch.equal(module[2].weight, torch.arange(12.).view(3, 4).t()))
            self.assertTrue(torch.equal(module[2].bias, torch.arange(4.)))

    def test_saved_again_by_python(self):
        """What torch.save makes of ours is as ours: storages, strides, order."""
        path = write("layouts")
        again = os.path.join(DIR, "again.pth")
        value = torch.load(path, weights_only=True)
        del value["ints"]  # Python saves a storage with one dtype.
        torch.save(value, again)
        for name, tensor in torch.load(again, weights_only=True).items():
            self.assertEqual(tensor.stride(), value[name].stride(), name)
            self.assertTrue(torch.equal(tensor, value[name]), name)

    def test_more_entries_than_zip_counts(self):
        for value in self.load("many", 66000):
            self.assertEqual(len(value), 66000)
            self.assertEqual([t.item() for t in value[::6000]], list(range(0, 66000, 6000)))

    def test_large(self):
        gib = int(os.environ.get("GRAPNEL_PTH_GIB", "0"))
        start = time.monotonic()
        path = write("large", gib)
        print(f"{os.path.getsize(path)} bytes in {time.monotonic() - start:.1f} s", file=sys.stderr)
        try:
            for arguments in WAYS.values():
                value = torch.load(path, **arguments)
                self.assertEqual(value["large"].shape, (gib << 28,))
                if gib:
                    for part in value["large"].split(1 << 26):
                        self.assertEqual(part.min().item(), 1.5)
                        self.assertEqual(part.max().item(), 1.5)
                self.assertEqual(value["small"].item(), 7)
                del value
            start = time.monotonic()
            with zipfile.ZipFile(path) as z:
                self.assertIsNone(z.testzip())
            print(f"testzip {time.monotonic() - start:.1f} s", file=sys.stderr)
        finally:
            os.remove(path)


if __name__ == "__main__":
    unittest.main(verbosity=2)
