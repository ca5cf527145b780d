"""What a run left, read with Python's own library: the wire format of
protobuf, safetensors, JSON records and log lines."""
import glob
import json
import os
import re
import struct


def fields(data):
    """Number and value of each field of a serialized message."""
    i = 0

    def varint():
        nonlocal i
        value = shift = 0
        while True:
            byte = data[i]
            value |= (byte & 127) << shift
            shift += 7
            i += 1
            if byte < 128:
                return value

    while i < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield number, data[i:i + size]
        i += size


def double(data):
    return struct.unpack("<d", data)[0] if data else 0.0


def options(entries):
    """A map<string, double>, from its entries."""
    found = (dict(fields(e)) for e in entries)
    return {e[1].decode(): double(e.get(2)) for e in found}


def values(data, number):
    return [v for k, v in fields(data) if k == number]


def manifest(path):
    """Progress and metrics of a checkpoint."""
    with open(path + "/manifest.pb", "rb") as f:
        body = f.read()[28:]
    progress = dict(fields(values(body, 15)[0]))
    lengths = [dict(fields(v)) for v in values(values(body, 15)[0], 11)]
    return {"epoch": progress.get(1, 0), "iter": progress.get(2, 0),
            "iter_in_epoch": progress.get(3, 0), "updates": progress.get(4, 0),
            "samples": progress.get(5, 0), "max_iters": progress.get(7, 0),
            "pending": bool(progress.get(8, 0)),
            "pass": progress.get(9, 0), "samples_in_pass": progress.get(10, 0),
            "epoch_lengths": [tuple(x.get(i, 0) for i in range(1, 6))
                              for x in lengths],
            "metrics": options(values(body, 17)), "bytes": body}


def state(path):
    """The optimizer's options by parameter (None: the base group's), its
    inner_count, and the estimated seconds left."""
    with open(path + "/state.pb", "rb") as f:
        data = f.read()
    wrapper = values(data, 4)[0]
    by_name = {None: options(values(wrapper, 3))}
    for group in values(values(wrapper, 1)[0], 2):
        for name in values(group, 1):
            by_name[name.decode()] = options(values(group, 2))
    eta = None
    for hub in values(data, 6):
        for entry in values(hub, 2):
            entry = dict(fields(entry))
            if entry[1] == b"eta":
                eta = double(dict(fields(entry.get(2, b""))).get(2))
    inner_count = (values(wrapper, 2) or [0])[0]
    return {"options": by_name, "inner_count": inner_count, "eta": eta}


def tensors(path):
    """Of a safetensors file, float32 tensors as lists."""
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__" and t["dtype"] == "F32":
            a, b = t["data_offsets"]
            out[name] = list(struct.unpack("<%df" % ((b - a) // 4),
                                           data[8 + n + a:8 + n + b]))
    return out


def checkpoints(work_dir):
    """Names of those that a run can resume from."""
    return {name for name in _with_manifest(work_dir) if not _PUBLISHED.search(name)}


def published(work_dir):
    """Names of copies made to be passed on, with a digest at their end."""
    return {name for name in _with_manifest(work_dir) if _PUBLISHED.search(name)}


_PUBLISHED = re.compile("-[0-9a-f]{8}$")


def _with_manifest(work_dir):
    return {os.path.basename(os.path.dirname(p))
            for p in glob.glob(work_dir + "/*/manifest.pb")}


def log_folders(work_dir):
    return set(glob.glob(work_dir + "/*/vis_data"))


def records(folder):
    path = folder + "/scalars.json"
    if not os.path.exists(path):
        return [], []
    with open(path) as f:
        rows = [json.loads(line) for line in f]
    return [r for r in rows if "iter" in r], [r for r in rows if "iter" not in r]


def saves(log):
    return [(int(n), {"epochs": "epoch", "iterations": "iter"}[unit]) for n, unit in
            re.findall(r"Saving checkpoint at (\d+) (epochs|iterations)", log)]


def warnings(log):
    return [line for line in log.splitlines() if " - WARNING - " in line]
