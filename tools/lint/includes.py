#!/usr/bin/env python3
"""A target's deps are what its files include: no fewer and no more.

gcc has no layering_check, so a file can include anything that its dependencies'
dependencies let it, and breaks when one of those is tidied. Also: every source
is in a target and includes its own header first, no file includes another twice,
a public header doesn't bring LibTorch's large ones, and few files include the
headers of its operators.
"""

import posixpath
import re

import build_files
import tree

_ABSL = "@com_google_absl//absl/"
_GTEST = ("@com_google_googletest//:gtest_main", "@com_google_googletest//:gtest")
_TENSOR = ("@libtorch//:tensor", "@libtorch//:libtorch")

# Headers of Abseil whose target isn't the last folder's.
_ABSL_TARGETS = {
    "base": "base:core_headers base:base base:config",
    "strings/cord.h": "strings:cord",
    "strings/str_format.h": "strings:str_format",
    "status/statusor.h": "status:statusor",
    "memory/memory.h": "memory:memory",
    "meta/type_traits.h": "meta:type_traits",
}
# Packages of Abseil with a target for every header.
_ABSL_BY_HEADER = ("algorithm", "cleanup", "container", "functional", "numeric", "types", "utility")

# Beginning of an include to the labels that provide it: the first that fits.
_THIRD_PARTY = [
    ("google/protobuf/", ["@com_google_protobuf//:protobuf"]),
    ("gtest/", _GTEST),
    ("gmock/", _GTEST),
    ("glog/", ["@com_github_google_glog//:glog"]),
    ("torch/headeronly/", _TENSOR),
    ("torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp", ["@libtorch//:nccl"]),
    ("torch/", ["@libtorch//:libtorch"]),
    ("caffe2/", ["@libtorch//:libtorch"]),
    ("ATen/", _TENSOR),
    ("c10/", _TENSOR),
    ("re2/", ["@grapnel_system//:re2"]),
    ("xxhash.h", ["@grapnel_system//:xxhash"]),
    ("zlib.h", ["@grapnel_system//:zlib"]),
    ("png.h", ["@grapnel_system//:libpng"]),
    ("jpeglib.h", ["@grapnel_system//:libjpeg"]),
    ("jerror.h", ["@grapnel_system//:libjpeg"]),
    ("nlohmann/", ["@grapnel_system//:nlohmann_json"]),
    ("benchmark/", ["@grapnel_system//:benchmark"]),
    ("cuda_", ["@grapnel_cuda//:headers"]),
    ("valgrind/", ["@grapnel_valgrind//:headers"]),
    ("gloo/", ["@grapnel_gloo//:headers"]),
]

# What a public header may include of LibTorch: ATen/core/Tensor.h costs 1.6 s,
# torch/torch.h 13.5 s a file.
_CHEAP = {
    "ATen/core/Generator.h",  # Part of it.
    "ATen/core/Tensor.h",
    "c10/core/Device.h",
    "c10/core/GradMode.h",
    "c10/core/ScalarType.h",
}
# Where LibTorch's ATen/ops/*.h may be included: a file that has one costs 2.4
# times what it would with ATen/core/Tensor.h alone.
_OPS = {
    "base/tensor_ops.cc",
    "models/functional.cc",
    "optim/foreach_ops.cc",
}
# Programs as a user would write them.
_OPS_FOLDERS = ("examples/", "tests/external", "tests/linking/")
# These bring nothing with them.
_CHEAP_OPS = {"ATen/ops/from_blob.h"}

# A public header to what else it includes, and why.
_EXCEPTIONS = {
}


def _absl_labels(included):
    path = included[len("absl/"):]
    package, _, header = path.partition("/")
    names = _ABSL_TARGETS.get(path) or _ABSL_TARGETS.get(package)
    if names is None:
        target = header[:-len(".h")] if package in _ABSL_BY_HEADER else package
        names = f"{package}:{target}"
    return [_ABSL + name for name in names.split()]


def _third_party_labels(included):
    if included.startswith("absl/"):
        return _absl_labels(included)
    for beginning, labels in _THIRD_PARTY:
        if included.startswith(beginning):
            return labels
    return None


def _include_path(target, path):
    stripped = target.attributes.get("strip_include_prefix")
    if stripped:
        return posixpath.relpath(path, posixpath.join(target.package, stripped))
    return "grapnel/" + path


def _providers(targets):
    """Include path of ours to the label whose header it is."""
    providers = {}
    for target in targets:
        for path in target.files("hdrs", "textual_hdrs"):
            providers[_include_path(target, path)] = target.label
        if target.kind == "grapnel_proto_library":
            for path in target.files("srcs"):
                stem = target.label[:-len("_proto")]
                providers["grapnel/" + path[:-len(".proto")] + ".pb.h"] = stem + "_cc_proto"
                providers["grapnel/" + path] = target.label
    return providers


def _check_cpp(files, target, sources, providers, by_label):
    problems = []
    used = set()
    for path in sources:
        for number, included in tree.includes_of(files.text(path)):
            if included.startswith("grapnel/"):
                label = providers.get(included)
                labels = None if label is None else [label]
                if labels is None:
                    problems.append(f"{path}:{number}: no target has \"{included}\" among its hdrs")
                    continue
            else:
                labels = _third_party_labels(included)
            if labels is None or target.label in labels:
                continue
            provided = [l for l in labels if l in target.deps]
            used.update(provided)
            if not provided:
                problems.append(f"{path}:{number}: \"{included}\" needs {labels[0]} in the deps of {target.label}")
    for dep in target.deps:
        other = by_label.get(dep)
        links_only = other is not None and (other.registers or not other.attributes.get("hdrs"))
        if dep in used or links_only or dep == _GTEST[0]:
            continue
        problems.append(f"{target.where}: {target.label} includes nothing of {dep}")
    return problems


def _check_proto(files, target, providers):
    problems = []
    used = set()
    for path in target.files("srcs"):
        for number, line in enumerate(files.text(path).split("\n"), 1):
            match = re.match(r'import (?:public )?"([^"]+)";', line)
            if not match:
                continue
            imported = match.group(1)
            if imported.startswith("google/protobuf/"):
                label = f"@com_google_protobuf//:{posixpath.basename(imported)[:-len('.proto')]}_proto"
            else:
                label = providers.get(imported)
            used.add(label)
            if label != target.label and label not in target.deps:
                problems.append(f"{path}:{number}: \"{imported}\" needs {label} in the deps of {target.label}")
    for dep in target.deps:
        if dep not in used:
            problems.append(f"{target.where}: {target.label} imports nothing of {dep}")
    return problems


def _check_public_headers(files, target):
    problems = []
    if "//visibility:public" not in target.attributes["visibility"] or target.attributes.get("testonly"):
        return problems
    for path in target.files("hdrs"):
        allowed = _CHEAP | set(_EXCEPTIONS.get(path, ()))
        for number, included in tree.includes_of(files.text(path)):
            if included.startswith(("ATen/", "c10/", "torch/", "caffe2/")) and included not in allowed:
                problems.append(f"{path}:{number}: a public header doesn't include \"{included}\"; "
                                "forward-declare, or move it to the .cc")
    return problems


def _check_first(files, target):
    """A header that its source includes first compiles alone; without a source, see cc.bzl."""
    problems = []
    sources = set(target.files("srcs"))
    for header in target.files("hdrs"):
        source = header[:-len(".h")] + ".cc"
        if not header.endswith(".h") or source not in sources or source not in files.paths:
            continue
        includes = list(tree.includes_of(files.text(source)))
        if not includes or includes[0][1] != "grapnel/" + header:
            problems.append(f"{source}: must include \"grapnel/{header}\" first")
    return problems


def _check_once(files):
    problems = []
    for path in files.select(*tree.CPP):
        first = {}
        for number, included in tree.includes_of(files.text(path)):
            if first.setdefault(included, number) != number:
                problems.append(f"{path}:{number}: \"{included}\" is included in line {first[included]} already")
    return problems


def _check_ops(files):
    problems = []
    for path in files.select(*tree.CPP):
        if path in _OPS or path.startswith(_OPS_FOLDERS):
            continue
        for number, included in tree.includes_of(files.text(path)):
            if (included.startswith("ATen/ops/") and not included.endswith("_ops.h")
                    and included not in _CHEAP_OPS):
                problems.append(f"{path}:{number}: \"{included}\" is expensive to compile; call it through "
                                f"{', '.join(sorted(p[:-len('.cc')] + '.h' for p in _OPS))}, "
                                "a member of Tensor, or its _ops.h")
    return problems


def check(files):
    targets = build_files.all_targets(files)
    by_label = {target.label: target for target in targets}
    providers = _providers(targets)
    problems = []
    owned = set()
    for target in targets:
        owned.update(target.files("srcs", "hdrs", "textual_hdrs"))
        if target.kind == "grapnel_proto_library":
            problems += _check_proto(files, target, providers)
            continue
        if target.kind == "filegroup" and (
                target.package.startswith("bindings/") or target.attributes.get("testonly")):
            continue  # Not Bazel's to compile: cgo's, or what a test does as a user would.
        sources = [p for p in target.files("srcs", "hdrs", "textual_hdrs")
                   if p.endswith(tree.CPP) and p in files.paths]
        if sources:
            problems += _check_cpp(files, target, sources, providers, by_label)
            problems += _check_public_headers(files, target)
            problems += _check_first(files, target)
    for path in files.select(".proto", *tree.CPP):
        if path not in owned:
            problems.append(f"{path}: is in no target")
    return problems + _check_once(files) + _check_ops(files)


if __name__ == "__main__":
    tree.main(check)
