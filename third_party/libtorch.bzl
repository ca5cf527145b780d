"""@libtorch: the LibTorch inside a torch wheel, installed or unpacked.

  @libtorch//:tensor    ATen and c10: tensors, their operators and methods, grad
                        mode; what most code needs
  @libtorch//:libtorch  all of it: also torch::autograd, torch::nn, torch::jit

Both link the same two shared libraries; they differ in how many headers a
compilation may see (and Bazel has to check).
"""

# What of LibTorch's include folder is LibTorch. The wheel also ships protobuf
# 3.13's headers (google/), fmt and pybind11, which would shadow the system's.
_INCLUDES = ["ATen", "c10", "torch", "caffe2"]

_BUILD = """
# Not -ltorch: it pulls in libtorch_cuda.so, which a machine without CUDA's
# libraries can't load. The two find their own neighbours by $ORIGIN.
_LINKOPTS = [
    "-L{lib}",
    "-Wl,-rpath,{lib}",
    "-ltorch_cpu",
    "-lc10",
]

cc_library(
    name = "tensor",
    hdrs = glob(["include/ATen/**", "include/c10/**", "include/torch/headeronly/**"]),
    includes = ["include"],
    linkopts = _LINKOPTS,
    visibility = ["//visibility:public"],
)

cc_library(
    name = "libtorch",
    hdrs = glob(["include/torch/**", "include/caffe2/**"]),
    includes = ["include", "include/torch/csrc/api/include"],
    visibility = ["//visibility:public"],
    deps = [":tensor"],
)
"""

def _libtorch_impl(ctx):
    env = ctx.os.environ
    root = env.get("LIBTORCH")
    if not root:
        cache = env.get("XDG_CACHE_HOME") or env.get("HOME", "") + "/.cache"
        root = cache + "/grapnel/libtorch-2.11.0/torch"
    if not ctx.path(root + "/include/ATen/core/Tensor.h").exists:
        fail(("no LibTorch at %s: run ./bazelw setup, or set LIBTORCH to a " +
              "folder that holds its include/ and lib/") % root)
    for name in _INCLUDES:
        ctx.symlink(root + "/include/" + name, "include/" + name)
    ctx.file("BUILD", _BUILD.format(lib = root + "/lib"))

libtorch_repository = repository_rule(
    implementation = _libtorch_impl,
    environ = ["LIBTORCH", "XDG_CACHE_HOME", "HOME"],
    local = True,
)
