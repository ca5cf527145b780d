"""Grapnel's safetensors files in Python's safetensors, and the other way round."""

import os
import subprocess
import sys
import unittest

import numpy as np
import safetensors
import safetensors.numpy

TOOL = os.path.abspath(sys.argv.pop(1))
DIR = os.environ["TEST_TMPDIR"]

# Dtypes that numpy has, and the bytes of 0, 1, ... 5 of those that it hasn't.
NUMPY = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
RAW = {
    "BF16": "0000803f004040408040a040",
    "F8_E4M3": "00384044484a",
    "F8_E5M2": "003c40424445",
}


def run(*args):
    return subprocess.run([TOOL, *args], check=True, stdout=subprocess.PIPE).stdout


class GrapnelToPythonTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.path = os.path.join(DIR, "grapnel.safetensors")
        run("write", cls.path)
        with open(cls.path, "rb") as f:
            cls.bytes = f.read()
        cls.tensors = dict(safetensors.deserialize(cls.bytes))

    def test_dtypes_shapes_and_values(self):
        for dtype, numpy_dtype in NUMPY.items():
            with self.subTest(dtype):
                tensor = self.tensors["values/" + dtype]
                self.assertEqual(tensor["dtype"], dtype)
                self.assertEqual(tensor["shape"], [2, 3])
                values = np.frombuffer(bytes(tensor["data"]), numpy_dtype)
                np.testing.assert_array_equal(values, np.arange(6).astype(numpy_dtype))
        for dtype, data in RAW.items():
            with self.subTest(dtype):
                tensor = self.tensors["values/" + dtype]
                self.assertEqual(tensor["dtype"], dtype)
                self.assertEqual(tensor["shape"], [2, 3])
                self.assertEqual(bytes(tensor["data"]).hex(), data)

    def test_layouts(self):
        matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
        # `values/BF16` and the like are beyond numpy: one tensor at a time.
        with safetensors.safe_open(self.path, framework="np") as f:
            self.assertEqual(f.metadata(), {"format": "pt"})
            self.assertEqual(len(f.keys()), 15 + 4)
            np.testing.assert_array_equal(f.get_tensor("transposed"), matrix.T)
            np.testing.assert_array_equal(f.get_tensor('a"\\é'), matrix)
            scalar = f.get_tensor("scalar")
            self.assertEqual((scalar.shape, scalar.item()), ((), 5.0))
            empty = f.get_tensor("empty")
            self.assertEqual((empty.shape, empty.dtype), ((0, 4), np.float64))

    def test_data_is_aligned(self):
        header = int.from_bytes(self.bytes[:8], "little")
        self.assertEqual((8 + header) % 64, 0)


class PythonToGrapnelTest(unittest.TestCase):

    def dump(self, path):
        lines = run("dump", path).decode().splitlines()
        return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}

    def test_numpy_file(self):
        path = os.path.join(DIR, "python.safetensors")
        tensors = {d: np.arange(6).astype(t).reshape(3, 2) for d, t in NUMPY.items()}
        tensors["scalar"] = np.float32(2.5).reshape(())
        tensors["empty"] = np.zeros((2, 0), np.int16)
        tensors["é中😀"] = np.ones(1, np.float64)
        safetensors.numpy.save_file(tensors, path, metadata={"by": 'py"thon\n'})
        dumped = self.dump(path)
        self.assertEqual(len(dumped), len(tensors))
        for name, tensor in tensors.items():
            dtype = {"scalar": "F32", "empty": "I16", "é中😀": "F64"}.get(name, name)
            shape = ",".join(map(str, tensor.shape))
            self.assertEqual(dumped[name], f"{dtype} [{shape}] {tensor.tobytes().hex()}")

    def test_dtypes_that_numpy_has_not(self):
        path = os.path.join(DIR, "raw.safetensors")
        names = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
        data = {
            dtype: {"dtype": names[dtype], "shape": [6], "data": bytes.fromhex(raw)}
            for dtype, raw in RAW.items()
        }
        with open(path, "wb") as f:
            f.write(safetensors.serialize(data))
        dumped = self.dump(path)
        for dtype, raw in RAW.items():
            self.assertEqual(dumped[dtype], f"{dtype} [6] {raw}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
