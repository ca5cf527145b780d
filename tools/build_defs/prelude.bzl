"""prelude: headers that most files include, compiled once (a .gch of gcc).

On in our own builds (.bazelrc), off by default: a consumer never sees it, and
`.ci/run` builds once without it, since a file that forgets an include finds it
in the prelude.

Every file is compiled with `-include grapnel_prelude.h`, and takes the first on
its path: a target that sees LibTorch, by its own deps or through others, has
:tensor_prelude's folder by -I, and all have :base_prelude's by -isystem, which
comes later. Loading one costs 0.03 s, but gcc instantiates what templates its
headers use again in every file: 0.15 s for the small one, 0.4 s for the other.

A prelude brings no headers of its own to the targets that use it: what may be
included is what a target's deps allow, with it and without.
"""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")
load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

_NAME = "grapnel_prelude.h"

def _bool_flag_impl(_ctx):
    return []

# --//tools/build_defs:prelude
bool_flag = rule(
    implementation = _bool_flag_impl,
    build_setting = config.bool(flag = True),
)

def _prelude_impl(ctx):
    cc_toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = cc_toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    deps = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps])
    context = deps.compilation_context

    # gcc looks for the one beside the other, and takes the header itself if the
    # compiled one doesn't fit.
    folder = "_prelude/%s/" % ctx.label.name
    header = ctx.actions.declare_file(folder + _NAME)
    compiled = ctx.actions.declare_file(folder + _NAME + ".gch")
    source = ctx.files.hdrs[0]
    ours = ctx.files.hdrs + ctx.files.textual_hdrs
    ctx.actions.symlink(output = header, target_file = source)

    # What cc_library does for a file, or gcc wouldn't take it.
    cpp = ctx.fragments.cpp
    variables = cc_common.create_compile_variables(
        feature_configuration = features,
        cc_toolchain = cc_toolchain,
        source_file = source.path,
        output_file = compiled.path,
        user_compile_flags = cpp.copts + cpp.cxxopts + [
            "-x",
            "c++-header",
            "-frandom-seed=" + _NAME,
            # Kept in the .gch: what -fpch-deps lists.
            "-MD",
            "-MF",
            "/dev/null",
        ],
        include_directories = context.includes,
        quote_include_directories = depset(["."], transitive = [context.quote_includes]),
        system_include_directories = context.system_includes,
        preprocessor_defines = context.defines,
        use_pic = True,
    )
    arguments = cc_common.get_memory_inefficient_command_line(
        feature_configuration = features,
        action_name = ACTION_NAMES.cpp_compile,
        variables = variables,
    )
    ctx.actions.run(
        executable = ctx.executable._precompile,
        arguments = [cc_toolchain.compiler_executable] + arguments,
        inputs = depset(ours, transitive = [context.headers, cc_toolchain.all_files]),
        outputs = [compiled],
        mnemonic = "CppPrecompile",
        progress_message = "Precompiling %s" % source.short_path,
        # As .bazelrc has it for CppCompile. Nothing checks what this one includes:
        # hdrs and deps are to name all of it.
        execution_requirements = {"no-sandbox": ""},
        env = cc_common.get_environment_variables(
            feature_configuration = features,
            action_name = ACTION_NAMES.cpp_compile,
            variables = variables,
        ),
        use_default_shell_env = True,
    )

    found = depset([header.dirname])
    return [
        DefaultInfo(files = depset([compiled])),
        CcInfo(compilation_context = cc_common.create_compilation_context(
            headers = depset([header, compiled] + ours),
            includes = found if ctx.attr.first else None,
            system_includes = None if ctx.attr.first else found,
        )),
    ]

prelude = rule(
    implementation = _prelude_impl,
    attrs = {
        "deps": attr.label_list(providers = [CcInfo]),
        # Found before the others.
        "first": attr.bool(),
        # The one that is compiled, and what it includes of ours.
        "hdrs": attr.label_list(allow_files = [".h"], mandatory = True),
        "textual_hdrs": attr.label_list(allow_files = [".h"]),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
        "_precompile": attr.label(
            default = "//tools/build_defs:precompile.py",
            allow_single_file = True,
            executable = True,
            cfg = "host",
        ),
    },
    fragments = ["cpp"],
    provides = [CcInfo],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def _if_on(values):
    return select({
        str(Label("//tools/build_defs:with_prelude")): values,
        "//conditions:default": [],
    })

def prelude_copts(copts):
    """What a cc target has as copts besides its own."""
    if "-fopenmp" in str(copts):
        return []  # It defines a macro that the prelude's headers look at.
    return _if_on([
        "-include",
        _NAME,
        # What is in the prelude is among what the file depends on.
        "-fpch-deps",
        # One that doesn't fit costs time and breaks nothing: after an update of
        # gcc the disk cache still has the old one's.
        "-Winvalid-pch",
        "-Wno-error=invalid-pch",
    ])

def prelude_deps(deps):
    """What a cc target has as deps besides its own, for the prelude that fits them."""
    names = ["//tools/build_defs:base_prelude"]
    if "@libtorch" in str(deps):
        names.append("//tools/build_defs:tensor_prelude")
    return _if_on([str(Label(name)) for name in names])
