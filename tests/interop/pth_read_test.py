"""Files that Python's torch and MMEngine save, read by io/pth."""

import collections
import json
import os
import random
import subprocess
import sys
import unittest
import zipfile
import zlib

import numpy as np

import slim_mmengine

TOOL = os.path.abspath(sys.argv.pop(1))
DIR = os.environ["TEST_TMPDIR"]
torch = slim_mmengine.load(TOOL)

DTYPES = {
    torch.float32: "Float", torch.float64: "Double", torch.float16: "Half",
    torch.bfloat16: "BFloat16", torch.int64: "Long", torch.int32: "Int", torch.int16: "Short",
    torch.int8: "Char", torch.uint8: "Byte", torch.bool: "Bool",
    torch.uint16: "UInt16", torch.uint32: "UInt32", torch.uint64: "UInt64",
    torch.complex32: "ComplexHalf", torch.complex64: "ComplexFloat",
    torch.complex128: "ComplexDouble",
    torch.float8_e4m3fn: "Float8_e4m3fn", torch.float8_e4m3fnuz: "Float8_e4m3fnuz",
    torch.float8_e5m2: "Float8_e5m2", torch.float8_e5m2fnuz: "Float8_e5m2fnuz",
    torch.float8_e8m0fnu: "Float8_e8m0fnu",
}


def raw_bytes(tensor):
    """Of its elements in order. numpy has few of the dtypes: as bytes, then."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if plain.numel() == 0:
        return b""
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


class Expected:
    """What pth_tool prints of a value."""

    def __init__(self):
        self._storages = {}

    def of(self, value):
        if value is None:
            return ["none", "NoneType"]
        if isinstance(value, torch.Tensor):
            return ["tensor", "torch.Tensor", self._tensor(value)]
        if isinstance(value, bool):
            return ["bool", "bool", value]
        if isinstance(value, int):
            if -2**63 <= value < 2**63:
                return ["int", "int", value]
            size = value.bit_length() // 8 + 1
            return ["bigint", "int", value.to_bytes(size, "little", signed=True).hex()]
        if isinstance(value, float):
            return ["float", "float", value]
        if isinstance(value, complex):
            return ["complex", "complex", [value.real, value.imag]]
        if isinstance(value, str):
            return ["string", "str", value]
        if isinstance(value, (bytes, bytearray)):
            return ["bytes", type(value).__name__, value.hex()]
        if isinstance(value, torch.Size):
            return ["tuple", "torch.Size", [self.of(item) for item in value]]
        if isinstance(value, (tuple, list)):
            name = type(value).__name__
            return [name, name, [self.of(item) for item in value]]
        if isinstance(value, (set, frozenset)):
            return ["set", type(value).__name__, [self.of(item) for item in value]]
        if isinstance(value, dict):
            name = type(value).__name__
            if name != "dict":
                name = "collections." + name
            return ["dict", name, [[self.of(k), self.of(v)] for k, v in value.items()]]
        if isinstance(value, torch.dtype):
            return ["dtype", "torch.dtype", str(value)[len("torch."):]]
        if isinstance(value, torch.device):
            return ["device", "torch.device", str(value)]
        if isinstance(value, torch.layout):
            return ["string", "torch.layout", str(value)]
        raise TypeError(type(value))

    def _tensor(self, tensor):
        storage = self._storages.setdefault(tensor.untyped_storage()._cdata, len(self._storages))
        return {
            "dtype": DTYPES[tensor.dtype],
            "size": list(tensor.size()),
            "stride": list(tensor.stride()),
            "offset": tensor.storage_offset(),
            "storage": storage,
            "conj": tensor.is_conj(),
            "neg": tensor.is_neg(),
            "crc": zlib.crc32(raw_bytes(tensor)),
        }


def parse_floats(value):
    """Floats are printed as C does, in hexadecimal."""
    if isinstance(value, list) and value[:1] == ["float"]:
        return [*value[:2], float.fromhex(value[2])]
    if isinstance(value, list) and value[:1] == ["complex"]:
        return [*value[:2], [float.fromhex(part) for part in value[2]]]
    if isinstance(value, list):
        return [parse_floats(item) for item in value]
    return value


def run(path, *flags):
    return subprocess.run([TOOL, *flags, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class ReadTestCase(unittest.TestCase):
    maxDiff = None

    def read(self, path, *flags):
        result = run(path, *flags)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        printed = json.loads(result.stdout.decode().splitlines()[0])
        return parse_floats(printed["root"]), printed["verified"]

    def error(self, path, *flags):
        result = run(path, *flags)
        self.assertEqual(result.returncode, 1)
        return result.stderr.decode()

    def save(self, name, value, **kwargs):
        path = os.path.join(DIR, name)
        torch.save(value, path, **kwargs)
        return path


class TorchTest(ReadTestCase):

    def check(self, name, value):
        """Saved in both forms, `value` is read as Python has it."""
        expected = Expected().of(value)
        zip_path = self.save(f"{name}.pth", value)
        self.assertEqual(self.read(zip_path), (expected, True))
        legacy_path = self.save(f"{name}.legacy.pth", value, _use_new_zipfile_serialization=False)
        self.assertEqual(self.read(legacy_path), (expected, False))

    def test_state_dict_with_tied_weights(self):
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4),
                                     torch.nn.Linear(3, 4))
        module[2].weight = module[0].weight
        state = module.state_dict()
        self.assertIsInstance(state, collections.OrderedDict)
        self.check("state_dict", state)
        root, _ = self.read(os.path.join(DIR, "state_dict.pth"))
        storages = {key[2]: value[2]["storage"] for key, value in root[2]}
        self.assertEqual(storages["0.weight"], storages["2.weight"])
        self.assertNotEqual(storages["0.weight"], storages["0.bias"])

    def test_dtypes(self):
        values = {}
        for dtype in DTYPES:
            data = torch.arange(48, dtype=torch.uint8)
            if dtype == torch.bool:
                data = data % 2
            values[str(dtype)] = data.view(dtype)
        self.check("dtypes", values)

    def test_shapes_and_layouts(self):
        base = torch.arange(24, dtype=torch.float32).view(2, 3, 4)
        self.check("shapes", {
            "base": base,
            "scalar": torch.tensor(2.5),
            "empty": torch.empty(0, 4, dtype=torch.float64),
            "empty view at the end": base.view(-1)[24:],
            "transposed": base.transpose(0, 2),
            "step": base[:, ::2, 1],
            "expanded": torch.ones(1, 3).expand(5, 3),
            "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
            "negated": torch.randn(3, dtype=torch.complex64).conj().imag,
            "parameter": torch.nn.Parameter(torch.randn(2)),
            "buffer": torch.nn.Buffer(torch.randn(2)),
            "bytes of float8": torch.arange(8, dtype=torch.uint8).view(torch.float8_e5m2)[2:],
        })

    def test_values(self):
        attributed = torch.ones(2)
        attributed.note = "kept by nobody"
        self.check("values", {
            "ints": [0, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -2**31, 1234567890123,
                     2**63 - 1, -2**63, 2**63, 2**70, -2**70, 2**3000],
            "floats": [0.1, -0.0, float("inf"), float("-inf"), 1e-320],
            "keys": {1: "a", True: "b", 2.5: "c", None: "d", (1, "x", (None,)): "e", b"k": "f"},
            "text": ["", "é中😀", "a\0b\n"],
            "bytes": [b"", b"ascii", bytes(range(256)), bytearray(b"\xff\x00")],
            "sets": [set(), {1}, frozenset({"a"})],
            "complex": 1 - 2j,
            "types": [torch.float8_e4m3fn, torch.device("cuda", 1), torch.device("cpu"),
                      torch.strided, torch.Size([2, 0])],
            "counter": collections.Counter("abca"),
            "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
            "none": None,
            "shared": [attributed, attributed],
            "random": [torch.get_rng_state(), random.Random(1).getstate()],
        })

    def test_optimizers_and_schedulers(self):
        for name, make in {
                "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
                "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        }.items():
            with self.subTest(name):
                parameters = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
                optimizer = make(parameters)
                scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
                sum(p.sum() for p in parameters).backward()
                optimizer.step()
                scheduler.step()
                self.check(name, {"optimizer": optimizer.state_dict(),
                                  "scheduler": scheduler.state_dict()})

    def test_many_values(self):
        self.check("many", {f"layer.{i}": [torch.full((2,), i), i, str(i)] for i in range(2000)})

    def test_file_without_crcs(self):
        state = {"w": torch.randn(3)}
        torch.serialization.set_crc32_options(False)
        try:
            path = self.save("nocrc.pth", state)
        finally:
            torch.serialization.set_crc32_options(True)
        self.assertEqual(self.read(path), (Expected().of(state), False))

    def test_flipped_bit_names_the_tensor(self):
        path = self.save("flipped.pth", {"model": {"w": torch.full((3,), 0.1)}})
        with open(path, "rb") as f:
            data = bytearray(f.read())
        data[data.find(torch.tensor(0.1).numpy().tobytes())] ^= 1
        with open(path, "wb") as f:
            f.write(data)
        self.assertIn('flipped.pth: data/0, which holds "model.w": is damaged', self.error(path))
        torch.load(path)  # Says nothing.

    def test_other_protocols_are_refused(self):
        for protocol in (3, 4, 5):
            for new in (True, False):
                path = self.save("protocol.pth", {"w": torch.ones(1)}, pickle_protocol=protocol,
                                 _use_new_zipfile_serialization=new)
                self.assertIn(f"pickle protocol {protocol}, must be 2", self.error(path))

    def test_what_is_no_view_of_a_storage_is_refused(self):
        quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
        for name, tensor in {
                "a sparse tensor": torch.eye(3).to_sparse(),
                "a meta tensor": torch.empty(2, device="meta"),
                "a quantized tensor": quantized,
        }.items():
            path = self.save("unread.pth", {"w": tensor})
            self.assertIn(name, self.error(path))
            root, _ = self.read(path, "--foreign")
            self.assertEqual(root[2][0][1][0], "opaque")

    def test_whole_module_is_inert(self):
        module = torch.nn.Linear(2, 3)
        path = self.save("module.pth", module)
        self.assertIn('"torch.nn.modules.linear.Linear" is not a type that a checkpoint may hold: '
                      "a whole module was saved, not its state_dict", self.error(path))
        root, verified = self.read(path, "--foreign")
        self.assertTrue(verified)
        self.assertEqual(root[:2], ["opaque", "torch.nn.modules.linear.Linear"])
        state = {key[2]: value for key, value in root[2][1][2]}
        parameters = {key[2]: value for key, value in state["_parameters"][2]}
        self.assertEqual(parameters["weight"][2]["crc"], zlib.crc32(raw_bytes(module.weight)))

    def test_numpy_is_inert(self):
        array = np.arange(500, dtype=np.float64) / 7
        path = self.save("numpy.pth", {"array": array, "scalar": np.float32(1.5)})
        self.assertIn("numpy", self.error(path))
        root, _ = self.read(path, "--foreign")
        values = {key[2]: value for key, value in root[2]}
        self.assertIn("_reconstruct", values["array"][1])
        _, shape, dtype, fortran, data = values["array"][2][1][2]
        self.assertEqual(shape[2], [["int", "int", 500]])
        self.assertEqual(dtype[1], "numpy.dtype")
        self.assertEqual(dtype[2][0][2][0], ["string", "str", "f8"])
        self.assertEqual(fortran, ["bool", "bool", False])
        self.assertEqual(data, ["bytes", "bytes", array.tobytes().hex()])
        self.assertEqual(values["scalar"][2][0][2][1],
                         ["bytes", "bytes", np.float32(1.5).tobytes().hex()])

    def test_memory_is_bounded(self):
        def check(path):
            needed = int(run(path, "--quiet").stdout.split()[0]) * 1024
            self.assertLess(needed, (64 << 20) + 1.1 * os.path.getsize(path))

        check(self.save("large.pth", [torch.zeros(16 << 20), torch.zeros(1 << 20)]))
        check(self.save("large.legacy.pth", [torch.zeros(16 << 20)],
                        _use_new_zipfile_serialization=False))
        path = os.path.join(DIR, "wide.pth")
        for opcode in (b"N", b"]", b"(", b"]Na"):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
                file.writestr("a/data.pkl", b"\x80\x02" + opcode * (20 << 20))
                file.writestr("a/version", "3\n")
            check(path)
        # A damaged storage, whose tensor is searched for among many values with a long name.
        with open(path, "wb") as f:
            torch.save({"x" * 100_000: [None] * 10_000, "w": torch.full((3,), 0.1)}, f)
        with open(path, "rb+") as f:
            f.seek(f.read().find(torch.tensor(0.1).numpy().tobytes()))
            f.write(b"?")
        self.assertIn('which holds "w": is damaged', self.error(path))
        check(path)

    def test_torchscript_is_refused(self):
        path = os.path.join(DIR, "script.pt")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
        self.assertIn("is a TorchScript archive", self.error(path))


def train_by_mmengine(work_dir):
    """A training of two epochs; returns the path of its last checkpoint."""
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Net(BaseModel):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 2)

        def forward(self, x, mode):
            return {"loss": self.fc(x).square().mean()}

    samples = list(torch.randn(12, 4, generator=torch.Generator().manual_seed(1)))
    Runner(
        model=Net(), work_dir=work_dir,
        train_dataloader=dict(batch_size=4, num_workers=0, dataset=samples,
                              sampler=dict(type="DefaultSampler", shuffle=True),
                              collate_fn=lambda batch: {"x": torch.stack(batch)}),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-2)),
        param_scheduler=dict(type="MultiStepLR", milestones=[1], gamma=0.5),
        custom_hooks=[dict(type="EMAHook", momentum=0.1)],
        default_hooks=dict(logger=dict(type="LoggerHook", interval=1)),
        randomness=dict(seed=1), log_level="ERROR").train()
    return os.path.join(work_dir, "epoch_2.pth")


class MMEngineTest(ReadTestCase):

    def test_checkpoint_of_a_training(self):
        path = train_by_mmengine(os.path.join(DIR, "mmengine"))
        self.assertIn("is not a type that a checkpoint may hold", self.error(path))
        root, verified = self.read(path, "--foreign")
        self.assertTrue(verified)
        ours = {key[2]: value for key, value in root[2]}
        theirs = torch.load(path, weights_only=False)
        self.assertEqual(list(ours), list(theirs))
        for section in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
            with self.subTest(section):
                # Storages are numbered in each section alone.
                self.assertEqual(without_storages(ours[section]),
                                 without_storages(Expected().of(theirs[section])))
        hub = {key[2]: value for key, value in ours["message_hub"][2]}
        scalars = {key[2]: value for key, value in hub["log_scalars"][2]}
        for name, buffer in theirs["message_hub"]["log_scalars"].items():
            with self.subTest(name):
                self.assertEqual(scalars[name][1], "mmengine.logging.history_buffer.HistoryBuffer")
                state = {key[2]: value for key, value in scalars[name][2][1][2]}
                array = state["_log_history"]
                dtype = array[2][1][2][2][2][0][2][0][2]
                values = np.frombuffer(bytes.fromhex(array[2][1][2][4][2]), dtype)
                np.testing.assert_array_equal(values, buffer.data[0])


def without_storages(value):
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key != "storage"}
    if isinstance(value, list):
        return [without_storages(item) for item in value]
    return value


if __name__ == "__main__":
    unittest.main(verbosity=2)
