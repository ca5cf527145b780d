"""@grapnel_cuda: the CUDA toolkit of --config=cuda.

Taken from CUDA_HOME, a folder with bin/nvcc and include/, else from the wheels
that `./bazelw COMMAND --config=cuda` installs.

  @grapnel_cuda//:nvcc       the compiler; it needs @grapnel_cuda//:toolkit
  @grapnel_cuda//:headers    CUDA's headers, for code that gcc compiles
  @grapnel_cuda//:cuobjdump  shows what is in an object file

Where there is no toolkit the targets load, for what only looks at BUILD files,
and building one of them says what is missing. To link with CUDA's libraries is
LibTorch's affair: they have to be those that it is linked with.
"""

_BUILD = """
package(default_visibility = ["//visibility:public"])

exports_files(["bin/nvcc", "bin/cuobjdump"])

alias(
    name = "nvcc",
    actual = "bin/nvcc",
)

# All that nvcc starts or reads.
filegroup(
    name = "toolkit",
    srcs = glob(
        ["bin/**", "nvvm/**", "include/**"],
        # Of a whole toolkit: other programs, some of them large.
        exclude = ["bin/cuda-gdb*", "bin/compute-sanitizer*", "bin/nsight*", "bin/nsys*", "bin/ncu*"],
    ),
)

# include/cccl: since CUDA 13, what cuda_fp16.h includes.
cc_library(
    name = "headers",
    hdrs = glob(["include/*.h", "include/*.hpp", "include/crt/**", "include/nv/**", "include/cccl/nv/**"]),
    includes = ["include", "include/cccl"],
)

alias(
    name = "cuobjdump",
    actual = "bin/cuobjdump",
)
"""

_MISSING_BUILD = """
package(default_visibility = ["//visibility:public"])

genrule(
    name = "missing",
    outs = ["nvcc", "cuobjdump", "missing.h"],
    cmd = "echo {message} >&2; exit 1",
)

filegroup(name = "toolkit")

cc_library(
    name = "headers",
    hdrs = ["missing.h"],
)
"""

def _toolkit_impl(ctx):
    env = ctx.os.environ
    home = env.get("CUDA_HOME")
    if not home:
        cache = env.get("XDG_CACHE_HOME") or env.get("HOME", "") + "/.cache"
        home = cache + "/grapnel/cuda-13.0/nvidia/cu13"
    for name in ["bin/nvcc", "include/cuda_runtime.h"]:
        if not ctx.path(home + "/" + name).exists:
            message = ("no CUDA toolkit: %s has no %s; build by ./bazelw COMMAND --config=cuda, " +
                       "which installs one, or set CUDA_HOME to yours") % (home, name)
            ctx.file("BUILD", _MISSING_BUILD.format(message = "'%s'" % message.replace("'", "")))
            return

    # Everything that nvcc looks for lies beside it.
    for name in ["bin", "include", "nvvm"]:
        if ctx.path(home + "/" + name).exists:
            ctx.symlink(home + "/" + name, name)
    ctx.file("BUILD", _BUILD)

cuda_toolkit_repository = repository_rule(
    implementation = _toolkit_impl,
    environ = ["CUDA_HOME", "XDG_CACHE_HOME", "HOME"],
    local = True,
)
