"""@libtorch: the LibTorch inside a torch wheel, installed or unpacked.

  @libtorch//:tensor    ATen and c10: tensors, their operators and methods, grad
                        mode; what most code needs
  @libtorch//:libtorch  all of it: also torch::autograd, torch::nn, torch::jit

  @libtorch//:nccl      with --config=cuda of a LibTorch that has NCCL and its
                        headers: those, and GRAPNEL_NCCL; else nothing

The first two link the same two shared libraries; they differ in how many headers a
compilation may see (and Bazel has to check). With --config=cuda they link
LibTorch's CUDA libraries too.
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
] + select({{
    ":cuda": {cuda_linkopts},
    "//conditions:default": [],
}})

config_setting(
    name = "cuda",
    define_values = {{"grapnel_cuda": "on"}},
)

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

cc_library(
    name = "nccl",
    visibility = ["//visibility:public"],
    deps = select({{
        ":cuda": {nccl},
        "//conditions:default": [],
    }}),
)

# What c10d's headers of it include.
cc_library(
    name = "nccl_headers",
    hdrs = glob(["nccl/*.h", "nccl_cuda/**"]),
    defines = [
        "GRAPNEL_NCCL",
        "USE_C10D_NCCL",
    ],
    includes = ["nccl", "nccl_cuda"],
    deps = ["@grapnel_cuda//:headers"],
)
"""

def _neighbours(ctx, library):
    """What the dynamic linker finds for each library that this one needs: name to path, or ""."""
    listed = ctx.execute(["ldd", library])
    found = {}
    for line in listed.stdout.split("\n"):
        name, arrow, where = line.strip().partition(" => ")
        if arrow:
            found[name] = "" if where.startswith("not found") else where.rpartition(" (")[0]
    return found

# c10_cuda (streams, the current device, the allocator) and CUDA's runtime make do
# with the two small libraries of the CPU wheels: what calls kernels of its own
# links with them, loads, and finds no device.
#
# Tensors on a device are libtorch_cuda.so's, which needs cuBLAS, cuDNN, NCCL and
# more: 3 GB that those wheels leave out. Linked with it, no program would start.
# So it is linked where the LibTorch at hand has what it needs. Nothing refers to
# its symbols: it registers itself when it is loaded.
def _cuda_linkopts(ctx, lib):
    c10_cuda = lib + "/libc10_cuda.so"
    torch_cuda = lib + "/libtorch_cuda.so"
    if not ctx.path(c10_cuda).exists:
        return []  # bazelw says so; else the linker misses c10_cuda's symbols.
    linkopts = ["-lc10_cuda"]
    for name, path in _neighbours(ctx, c10_cuda).items():
        if name.startswith("libcudart") and path:
            # The one that LibTorch has: two runtimes in a process don't share
            # their state.
            linkopts += [path, "-Wl,-rpath," + path.rpartition("/")[0]]
    if ctx.path(torch_cuda).exists:
        neighbours = _neighbours(ctx, torch_cuda)
        if neighbours and "" not in neighbours.values():
            linkopts += ["-Wl,--push-state,--no-as-needed", "-ltorch_cuda", "-Wl,--pop-state"]
    return linkopts

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
    lib = root + "/lib"
    cuda_linkopts = _cuda_linkopts(ctx, lib)

    # Headers beside torch in a pip's folder: NCCL's, and those of the parts of CUDA
    # that a small toolkit lacks. The code is behind libtorch_cuda.so.
    beside = ctx.path(root).dirname.get_child("nvidia")
    nccl = beside.get_child("nccl").get_child("include")
    cuda = beside.get_child("cu13").get_child("include")
    has_nccl = "-ltorch_cuda" in cuda_linkopts and nccl.get_child("nccl.h").exists
    if has_nccl:
        ctx.symlink(nccl, "nccl")
        if cuda.exists:
            ctx.symlink(cuda, "nccl_cuda")
    ctx.file("BUILD", _BUILD.format(
        lib = lib,
        cuda_linkopts = cuda_linkopts,
        nccl = [":nccl_headers"] if has_nccl else [],
    ))

libtorch_repository = repository_rule(
    implementation = _libtorch_impl,
    environ = ["LIBTORCH", "XDG_CACHE_HOME", "HOME"],
    local = True,
)
