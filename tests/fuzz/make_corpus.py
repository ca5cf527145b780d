#!/usr/bin/env python3
"""Writes the corpora of the fuzz targets: small files, good and bad, of each format.

    ./bazelw build //tests/fuzz:idx_fuzz
    tests/interop/python_test.sh tests/fuzz/make_corpus.py bazel-bin/tests/fuzz/idx_fuzz

Any program of ours does: it tells which LibTorch's Python to import. What comes out
is the same each time; with --check, nothing is written, and a corpus that is anything
else is named. Files whose names begin with "bad_" have to be refused.
"""

import argparse
import collections
import ctypes
import io
import json
import os
import pathlib
import shutil
import struct
import sys
import unittest.mock
import zipfile

_HERE = os.path.dirname(os.path.abspath(__file__))
_CORPUS = os.path.join(_HERE, "corpus")
sys.path.insert(0, os.path.join(os.path.dirname(_HERE), "interop"))

import slim_torch  # noqa: E402


_made = {}  # By their paths below corpus/.


def write(target, name, content):
    _made[f"{target}/{name}"] = content.encode() if isinstance(content, str) else content


# ----------------------------------------------------------------------
# IDX


def idx(dims, elements, kind=8):
    return struct.pack(">BBBB", 0, 0, kind, len(dims)) + struct.pack(f">{len(dims)}I", *dims) + elements


def write_idx():
    write("idx", "images", idx([3, 2, 4], bytes(range(24))))
    write("idx", "images_with_channels", idx([2, 3, 2, 2], bytes(range(24))))
    write("idx", "labels", idx([5], bytes([0, 1, 9, 128, 255])))
    write("idx", "one_pixel", idx([1, 1, 1], b"\x07"))
    write("idx", "bad_gzip", b"\x1f\x8b\x08" + bytes(20))
    write("idx", "bad_floats", idx([1, 1, 1], bytes(4), kind=13))
    write("idx", "bad_overflow", idx([1 << 31, 1 << 31, 4], b""))
    write("idx", "bad_short", idx([3, 2, 4], bytes(23)))


# ----------------------------------------------------------------------
# safetensors


def safetensors(header, data=b""):
    text = header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))
    text = text.encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_safetensors():
    sizes = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
             "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
    header, end = {}, 0
    for dtype, size in sizes.items():
        header[f"layer.{dtype}"] = entry(dtype, [2, 1], end, end + 2 * size)
        end += 2 * size
    write("safetensors", "every_dtype", safetensors(header, b"\x01" * end))
    write("safetensors", "no_tensors", safetensors({}))
    write("safetensors", "metadata", safetensors(
        '{"__metadata__":{"format":"pt","k":"\\u00e9\\ud83d\\ude00"},'
        '"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}   ', b"\x01\x02"))
    write("safetensors", "empty_and_scalar", safetensors(
        {"e": entry("F32", [0, 3], 0, 0), "s": entry("I64", [], 0, 8)}, bytes(8)))
    write("safetensors", "bad_overlap", safetensors(
        {"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, bytes(3)))
    write("safetensors", "bad_hole", safetensors(
        {"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 3, 5)}, bytes(5)))
    write("safetensors", "bad_overflow", safetensors(
        {"a": entry("F64", [1 << 61, 0], 0, 0)}))
    write("safetensors", "bad_rank", safetensors({"a": entry("U8", [1] * 65, 0, 1)}, b"x"))
    write("safetensors", "bad_nesting", safetensors('{"a":' + "[" * 300))
    write("safetensors", "bad_length", struct.pack("<Q", 1 << 63) + b"{}")


# ----------------------------------------------------------------------
# manifest.pb


def varint(number):
    out = bytearray()
    while True:
        out.append(number & 127 | (128 if number > 127 else 0))
        number >>= 7
        if not number:
            return bytes(out)


def field(number, value):
    """Of protobuf: an int as a varint, a float as 64 bits, bytes and strings as they are."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def frame(body):
    xxhash = ctypes.CDLL("libxxhash.so.0")
    xxhash.XXH3_64bits.restype = ctypes.c_uint64
    digest = xxhash.XXH3_64bits(body, ctypes.c_size_t(len(body)))
    return b"GRPNLCK1" + struct.pack("<IQQ", 1, len(body), digest) + body


def write_manifest():
    least = (field(1, 1) + field(3, "epoch_2") + field(4, bytes(range(16))) + field(12, 1) +
             field(13, field(1, "model.safetensors") + field(2, 100) + field(3, bytes(16))))
    tensor = (field(1, "fc.weight") + field(3, "F32") + field(4, varint(2) + varint(3)) +
              field(5, 64) + field(6, 24) + varint(7 << 3 | 1) + bytes(8))
    length = field(1, 1) + field(2, 45) + field(3, 45) + field(4, 64) + field(5, 7)
    progress = b"".join(field(i, i) for i in range(1, 11)) + field(11, length) + field(12, 1)
    everything = (least + field(2, "epoch_parts") + field(2, "rank_windows") + field(5, bytes(16)) +
                  field(6, bytes(16)) + field(7, 1 << 60) + field(8, "grapnel 0.1.0") +
                  field(9, "2.11.0") + field(10, "AVX512") + field(11, 2) + field(14, tensor) +
                  field(15, progress) + field(16, 'work_dir: "w"') +
                  field(17, field(1, "accuracy/top1") + field(2, 97.5)) + field(18, 1) +
                  field(19, varint(1) + varint(28)) + field(20, "averaged") + field(21, "cuda"))
    write("manifest", "least", frame(least))
    write("manifest", "every_field", frame(everything))
    write("manifest", "unknown_fields", frame(least + field(1000, 7) + field(1001, b"x")))
    write("manifest", "metric_of_nan", frame(least + field(17, field(1, "loss") + field(2, float("nan")))))
    write("manifest", "bad_digest", frame(least)[:-1] + b"?")
    write("manifest", "bad_path", frame(least.replace(b"model.safetensors", b"../../safetensors")))
    write("manifest", "bad_feature", frame(least + field(2, "from_the_future")))
    write("manifest", "bad_tensor", frame(least + field(14, tensor.replace(field(6, 24), field(6, 90)))))
    write("manifest", "bad_nesting", frame(least + b"\x0b" * 200))


# ----------------------------------------------------------------------
# a run's configuration


_DIGITS = r"""# The digits.
work_dir: "work_dirs/digits"
model {
  sequential {
    layers { conv2d { out_channels: 32 kernel_size: 3 padding: 1 } }
    layers { batch_norm2d {} }
    layers { dropout { p: 0.3 } }
    loss { cross_entropy {} }
  }
}
train_dataloader {
  batch_size: 64
  sampler { shuffle: true type: INFINITE }
  dataset { idx { images: "train-images" labels: "train-labels" scale: 0.0625 } }
}
train_cfg { by_epoch: true max_epochs: 20 val_interval: 1 }
optim_wrapper { optimizer { adamw { lr: 2e-3 weight_decay: 0.05 } } clip_grad { max_norm: 2 norm_type: inf } }
param_scheduler: [ { linear { start_factor: 0.1 by_epoch: false end: 45 } }, { cosine_annealing < t_max: 19 > } ]
default_hooks { off: "timer" priority { key: "logger" value: "LOW" } }
randomness { seed: 0 }
"""

_ANY = r"""custom_hooks {
  config {
    [hooks/ShadowHook] {
      momentum: -1.5e-3 mode: COSINE names: "h\303\251" names: 'a' "b"
      limits: [ { low: 1 }, { high: 0x7f } ]
      limit_by_name { key: "b" value { high: 2 } }
      weights { key: -7 value: nan }
      blob: "\xff\000" values: [ 1, 2.5, -inf, 1e308 ]
      inner { [type.googleapis.com/grapnel.runner.config_file_test.v1.ShadowHookConfig] { files: "x" } }
    }
  }
  priority: "NORMAL"
}
"""


def write_textproto():
    write("textproto", "digits", _DIGITS)
    write("textproto", "any", _ANY)
    write("textproto", "any_by_url",
          'custom_hooks { config { type_url: "t/grapnel.runner.config_file_test.v1.ShadowHookConfig" '
          'value: "\\t\\000\\000\\000\\000\\000\\000\\340?" } }')
    write("textproto", "json", '{"work_dir": "w", "trainCfg": {"max_epochs": "3"}, "paramScheduler": '
                               '[{"linear": {"end": 5}}], "default_hooks": {"priority": {"logger": "9"}}}')
    write("textproto", "bad_field", "optim_wrapper {\n optimizer { sgd {\n  momentun: 0.9\n } } }")
    write("textproto", "bad_type", "custom_hooks { config { [hooks/ShadwHook] {} } }")
    write("textproto", "bad_nesting", "model { sequential { " + "layers { sequential { " * 120)
    write("textproto", "bad_key_twice",
          "default_hooks { priority { key: 'a' value: '1' } priority { key: 'a' value: '2' } }")
    write("textproto", "bad_utf8", b"work_dir: '\xff'")
    write("textproto", "bad_json", '{"randomness": {"seed": NaN}}')
    write("textproto", "bad_empty", "# nothing\n")


# ----------------------------------------------------------------------
# torch.save


def saved(torch, value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def legacy(torch, value):
    """As torch saved before 1.6. Storages are named by their addresses there: by numbers here."""
    addresses = []

    def number(storage):
        if storage.data_ptr() not in addresses:
            addresses.append(storage.data_ptr())
        return addresses.index(storage.data_ptr())

    with unittest.mock.patch.object(torch.UntypedStorage, "_cdata", property(number)):
        return saved(torch, value, _use_new_zipfile_serialization=False)


def plain(torch):
    return {"meta": {"epoch": 2, "iter": 90, "big": 1 << 70, "lr": 1e-3, "none": None, "ok": True},
            "list": [1, -2, 70000, (1, 2, 3, 4), ()], "set": {1}, "bytes": b"\x00\xff", "text": "h\u00e9",
            "size": torch.Size([2, 3]), "dtype": torch.float16, "device": torch.device("cuda:1")}


# Pickles by hand, for what torch.save doesn't write.


def text(value):
    value = value.encode()
    return b"X" + struct.pack("<I", len(value)) + value


def integer(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def integers(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def view(offset, sizes, strides, count=16, storage="FloatStorage", key="0"):
    """A tensor of one of the storages that pickle_fuzz has."""
    return (b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\n" + storage.encode() +
            b"\n" + text(key) + text("cpu") + integer(count) + b"tQ" + integer(offset) + integers(sizes) +
            integers(strides) + b"\x89ccollections\nOrderedDict\n)RtR")


def pickled(value):
    return b"\x80\x02" + value + b"."


def archive(pickle, records=(), count_less=0, damaged=b""):
    """A ZIP file of torch.save; without the last `count_less` records by its count, and with a
    changed byte where `damaged` begins."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, data in (("data.pkl", pickle), ("version", "3\n"), *records):
            file.writestr(zipfile.ZipInfo("archive/" + name), data)
    content = bytearray(buffer.getvalue())
    end = content.rfind(b"PK\x05\x06")
    count = struct.unpack_from("<H", content, end + 10)[0] - count_less
    struct.pack_into("<HH", content, end + 8, count, count)
    if damaged:
        content[content.find(damaged)] ^= 1
    return bytes(content)


def write_bad_pth():
    tensor = pickled(view(0, [1], [1], count=1))
    bools = pickled(view(0, [4], [1], count=4, storage="BoolStorage"))
    data = ("data/0", b"DATA")
    write("pth", "bools_in_part", archive(
        pickled(view(0, [2], [1], count=4, storage="BoolStorage")), [("data/0", b"\0\1\7\7")]))
    for name, content in {
            "crc": archive(tensor, [data], damaged=b"DATA"),
            "crc_of_a_name": archive(pickled(b"N"), [("\x1b[2Jzz\n", b"DATA")], damaged=b"DATA"),
            "crc_behind_a_name": archive(
                pickled(b"}(" + text("x" * 300) + b"](" + b"N" * 100 + b"e" + text("w") + tensor[2:-1] + b"u"),
                [data], damaged=b"DATA"),
            "bool": archive(bools, [("data/0", b"\0\1\2\0")]),
            "hidden": archive(tensor, [data, ("hidden", b"")], count_less=1),
            "missing": archive(tensor),
            "size": archive(tensor, [("data/0", b"DAT")]),
            "twice": archive(tensor, [data, ("data/1", b"")]).replace(b"data/1", b"data/0"),
            "method_in_front": archive(tensor, [data]).replace(
                b"PK\x03\x04\x14\0\0\0\0", b"PK\x03\x04\x14\0\0\0\x08"),
            "torchscript": archive(tensor, [data, ("constants.pkl", b")")]),
            "big_endian": archive(tensor, [data, ("byteorder", b"big")]),
            "cut": archive(tensor, [data])[:-1],
            "legacy_magic_alone": b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            "tar": b"sys_info".ljust(512, b"\0"),
    }.items():
        write("pth", "bad_" + name, content)


def write_bad_pickle():
    high = (1 << 63) - 1
    nan = b"G" + struct.pack(">d", float("nan"))
    write("pickle", "numbers_as_keys", pickled(
        b"}(" + nan + b"N" + nan + b"N" + integer((1 << 53) + 1) + b"NG" + struct.pack(">d", 2.0**53) + b"Nu"))
    for name, value in {
            "end_of_storage": view(0, [17], [1]),
            "offset": view(-1, [1], [1]),
            "offset_of_nothing": view(17, [0], [1]),
            "stride": view(15, [16], [-1]),
            "far_stride": view(0, [2] * 60, [high] * 60),
            "rank": view(0, [2, 2], [1]),
            "dimensions": view(0, [1] * 65, [1] * 65),
            "sizes": view(0, [0, 1 << 62, 4], [0, 0, 0]),
            "unfolded": view(0, [1 << 20, 1 << 20], [0, 0]),
            "key": view(0, [1], [1], key="../0"),
            "elements": view(0, [1], [1], count=1 << 40),
            "call": b"cposix\nsystem\n" + text("id") + b"\x85R",
            "called_value": b"})R",
            "cycle": b"]q\0h\0a",
            "levels": b"]" * 101 + b"N" + b"a" * 101,
            "doubling": b"N" + b"".join(bytes([ord("q"), i, ord("h"), i, 0x86]) for i in range(30)),
            "key_of_a_dict": b"}}Ns",
            "layout": (b"](ctorch.serialization\n_get_layout\n" + text("\u00e9" * 100) +
                       b"q\0\x85Rc_codecs\nencode\nh\0" + text("latin1") + b"\x86Re"),
            "spent_text": b"](" + text("\u00e9" * 100) + b"q\0c_codecs\nencode\nh\0" + text("latin1") + b"\x86Re",
            "memo": b"h\x05",
            "no_value": b"",
            "behind": b"N.N",
    }.items():
        write("pickle", "bad_" + name, pickled(value))
    write("pickle", "bad_protocol", b"\x80\x04N.")
    write("pickle", "bad_cut", b"\x80\x02](K")


def write_pth(torch):
    base = torch.arange(6, dtype=torch.float32)
    shared = {"a": base[:3], "b": base[2:], "t": base.view(2, 3).t()}
    dtypes = {str(dtype): torch.ones(2, dtype=dtype) for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
        torch.bfloat16, torch.float32, torch.float64, torch.complex64)}
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    contents = {
        "tensor": base,
        "shared": shared,
        "dtypes": dtypes,
        "state_dict": model.state_dict(),
        "plain": plain(torch),
        "empty_and_scalar": [torch.zeros(0, 3), torch.tensor(7)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    for name, value in contents.items():
        write("pth", name, saved(torch, value))
    for name in "tensor", "shared", "state_dict", "plain":
        write("pth", "legacy_" + name, legacy(torch, contents[name]))


def write_pickle(torch):
    """What the storages of 64 bytes that the target has fit to."""
    base = torch.arange(16, dtype=torch.float32)
    contents = {
        "tensors": {"a": base, "part": base[3:7], "t": base.view(2, 8).t(), "scalar": base[5],
                    "p": torch.nn.Parameter(torch.ones(4, 4))},
        "dtypes": [torch.ones(64 // dtype.itemsize, dtype=dtype) for dtype in (
            torch.bool, torch.int16, torch.float16, torch.bfloat16, torch.float64, torch.complex64,
            torch.float8_e4m3fn, torch.uint64)],
        "plain": plain(torch),
        "ordered": collections.OrderedDict([("a", 1), ((2, None), [b"x"])]),
        "bad_foreign": argparse.Namespace(lr=0.1, names=["a"]),
    }
    for name, value in contents.items():
        with zipfile.ZipFile(io.BytesIO(saved(torch, value))) as archive:
            write("pickle", name, archive.read("archive/data.pkl"))


# ----------------------------------------------------------------------
# model.safetensors.index.json


def write_index():
    both = {"a": "1.safetensors", "c": "2.safetensors", "b": "1.safetensors"}
    write("index", "both", json.dumps({"metadata": {"total_size": 0}, "weight_map": both}, indent=2))
    write("index", "elsewhere", json.dumps({"weight_map": {"x": "model-00001-of-00001.safetensors"}}))
    write("index", "no_tensors", '{"weight_map":{},"more":[1,{"a":[null,true,-1.5e3]}]}')
    write("index", "bad_path", '{"weight_map":{"a":"../1.safetensors"}}')
    write("index", "bad_twice", '{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}')
    write("index", "bad_nesting", '{"x":' + "[" * 200)
    write("index", "bad_no_map", '{"metadata":{}}')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch = slim_torch.load(args.program)
    torch.manual_seed(0)
    write_idx()
    write_safetensors()
    write_manifest()
    write_textproto()
    write_pth(torch)
    write_pickle(torch)
    write_bad_pth()
    write_bad_pickle()
    write_index()
    if args.check:
        there = {str(path.relative_to(_CORPUS)): path.read_bytes() for path in pathlib.Path(_CORPUS).glob("*/*")}
        others = [path for path in sorted(_made.keys() | there.keys()) if _made.get(path) != there.get(path)]
        sys.exit(f"not what is made: {', '.join(others)}" if others else 0)
    shutil.rmtree(_CORPUS, ignore_errors=True)
    for path, content in _made.items():
        os.makedirs(os.path.dirname(f"{_CORPUS}/{path}"), exist_ok=True)
        with open(f"{_CORPUS}/{path}", "wb") as f:
            f.write(content)
    print(f"{sum(map(len, _made.values()))} bytes")


if __name__ == "__main__":
    main()
