"""grapnel_cuda_library: .cu files, compiled by nvcc, in a library like any other.

Built with --config=cuda, and left out of wildcards without it: a target that depends
on one does so in a `select` on //tools/build_defs:cuda.

A .cu file sees the headers of its deps and CUDA's own, no others: the sandbox
has nothing else. Keep LibTorch's out of it, which cost nvcc 10 s a file; a
function that takes pointers, called from a .cc file, does.
"""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@rules_cc//cc:defs.bzl", "cc_library")

CudaArchitectures = provider(fields = ["names"])

def _cuda_architectures_impl(ctx):
    names = ctx.build_setting_value
    if not names:
        fail("%s: must name an architecture, such as sm_80" % ctx.label)
    for name in names:
        if not name.startswith("sm_") or not name[len("sm_"):].rstrip("af").isdigit():
            fail("%s: must be names such as sm_80, is %s" % (ctx.label, name))
    listed = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.write(listed, "".join([name + "\n" for name in names]))
    return [
        CudaArchitectures(names = names),
        # One name a line.
        DefaultInfo(
            files = depset([listed]),
            runfiles = ctx.runfiles(files = [listed]),
        ),
    ]

# The devices to compile for:
#   --//tools/build_defs:cuda_architectures=sm_80,sm_90
cuda_architectures = rule(
    implementation = _cuda_architectures_impl,
    build_setting = config.string_list(flag = True),
)

def _nvcc_arguments(ctx, cc_toolchain, source, object, context):
    args = ctx.actions.args()
    args.add("-c", source)
    args.add("-o", object)
    args.add("-std=c++17")
    args.add("-O3")
    args.add_all(["-G", "-g"] if ctx.var["COMPILATION_MODE"] == "dbg" else ["-DNDEBUG"])

    # Temporary files under names that don't change, which the object contains:
    # what is built again in the same place is the same.
    args.add("-objtemp")
    args.add("-ccbin", cc_toolchain.compiler_executable)

    names = ctx.attr._architectures[CudaArchitectures].names
    for name in names:
        virtual = name.replace("sm_", "compute_")
        code = name

        # Intermediate code for devices newer than all of these.
        if name == names[-1]:
            code = "[%s,%s]" % (name, virtual)
        args.add("-gencode=arch=%s,code=%s" % (virtual, code))

    copts = ctx.fragments.cpp.copts + ["-fPIC"] + ctx.attr.copts
    args.add_joined("-Xcompiler", copts, join_with = ",")
    if "-Werror" in copts:
        args.add("-Werror", "all-warnings")
        args.add("-Xptxas", "-Werror,-warn-spills,-warn-lmem-usage")

    args.add_all(context.defines, before_each = "-D")
    args.add_all(context.includes, before_each = "-I")
    args.add_all(context.quote_includes, before_each = "-I")
    args.add_all(context.system_includes, before_each = "-isystem")
    return args

def _cuda_objects_impl(ctx):
    cc_toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = cc_toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    deps = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps])
    context = deps.compilation_context

    objects = []
    for source in ctx.files.srcs:
        object = ctx.actions.declare_file("_cuda/%s/%s.o" % (ctx.label.name, source.basename))
        objects.append(object)
        ctx.actions.run(
            executable = ctx.executable._nvcc,
            arguments = [_nvcc_arguments(ctx, cc_toolchain, source, object, context)],
            inputs = depset([source], transitive = [context.headers, ctx.attr._toolkit.files, cc_toolchain.all_files]),
            outputs = [object],
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s for CUDA devices" % source.short_path,
            use_default_shell_env = True,
        )

    linking_context, linking_outputs = cc_common.create_linking_context_from_compilation_outputs(
        name = ctx.label.name,
        actions = ctx.actions,
        feature_configuration = features,
        cc_toolchain = cc_toolchain,
        compilation_outputs = cc_common.create_compilation_outputs(
            objects = depset(objects),
            pic_objects = depset(objects),
        ),
        linking_contexts = [deps.linking_context],
        disallow_dynamic_library = True,
    )
    library = linking_outputs.library_to_link
    archive = library.pic_static_library or library.static_library
    return [
        DefaultInfo(
            files = depset([archive]),
            # For a test that looks into it, not for programs.
            data_runfiles = ctx.runfiles(files = [archive]),
        ),
        CcInfo(compilation_context = context, linking_context = linking_context),
    ]

_cuda_objects = rule(
    implementation = _cuda_objects_impl,
    attrs = {
        "copts": attr.string_list(),
        "deps": attr.label_list(providers = [CcInfo]),
        "srcs": attr.label_list(allow_files = [".cu"]),
        "_architectures": attr.label(default = "//tools/build_defs:cuda_architectures"),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
        "_nvcc": attr.label(
            default = "@grapnel_cuda//:nvcc",
            allow_single_file = True,
            executable = True,
            cfg = "host",
        ),
        "_toolkit": attr.label(default = "@grapnel_cuda//:toolkit"),
    },
    fragments = ["cpp"],
    provides = [CcInfo],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

# What cc.bzl gives to gcc, which nvcc hands on.
_COPTS = [
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-sign-compare",
]

# For target_compatible_with of what needs CUDA.
ONLY_WITH_CUDA = select({
    str(Label("//tools/build_defs:cuda")): [],
    "//conditions:default": [str(Label("//tools/build_defs:has_cuda"))],
})

def grapnel_cuda_library(name, srcs, hdrs = [], deps = [], copts = [], testonly = None, visibility = None):
    """A library of .cu files, for cc targets to depend on.

    Args:
      name: the target.
      srcs: .cu files.
      hdrs: headers, included as "grapnel/<package>/<file>".
      deps: cc targets; of CUDA itself, "@grapnel_cuda//:headers".
      copts: more options for the host's compiler.
      testonly: as everywhere.
      visibility: as everywhere.
    """
    headers = name + "_headers"
    cc_library(
        name = headers,
        testonly = testonly,
        hdrs = hdrs,
        include_prefix = "grapnel/" + native.package_name(),
        strip_include_prefix = "",
        target_compatible_with = ONLY_WITH_CUDA,
        visibility = ["//visibility:private"],
        deps = deps,
    )
    _cuda_objects(
        name = name,
        testonly = testonly,
        srcs = srcs,
        copts = _COPTS + copts,
        target_compatible_with = ONLY_WITH_CUDA,
        visibility = visibility,
        deps = deps + [":" + headers],
    )
