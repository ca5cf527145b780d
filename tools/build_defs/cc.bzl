"""cc_library, cc_test and cc_binary with the house flags, and grapnel_hook.

The macros take what the native rules take and hide nothing else. They put a
package's headers under "grapnel/<package>/", so that a consumer's own
base/status_macros.h and ours can meet in one program.
"""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")
load("//tools/build_defs:prelude.bzl", "prelude_copts", "prelude_deps")

_COPTS = [
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    # What LibTorch's and protobuf's headers do inside our files is theirs.
    "-Wno-sign-compare",
]

def _compile_alone(name, hdrs):
    """<name>_alone compiles each header of a library that has no source of its own.

    The others' sources include them first. Built by `.ci/run`, without the
    prelude.
    """
    native.genrule(
        name = name + "_alone_srcs",
        testonly = True,
        outs = [hdr[:-len(".h")] + "_alone.cc" for hdr in hdrs],
        cmd = "; ".join([
            "echo '#include \"grapnel/%s/%s\"' > $(RULEDIR)/%s_alone.cc" %
            (native.package_name(), hdr, hdr[:-len(".h")])
            for hdr in hdrs
        ]),
        tags = ["manual"],
    )
    cc_library(
        name = name + "_alone",
        testonly = True,
        srcs = [name + "_alone_srcs"],
        copts = _COPTS,
        linkstatic = True,
        tags = ["manual"],
        deps = [":" + name],
    )

def grapnel_cc_library(name, copts = [], deps = [], **kwargs):
    hdrs = kwargs.get("hdrs", [])
    hdrs = [hdr for hdr in hdrs if hdr.endswith(".h")] if type(hdrs) == "list" else []
    if hdrs and not kwargs.get("srcs"):
        _compile_alone(name, hdrs)
    cc_library(
        name = name,
        copts = _COPTS + prelude_copts(copts) + copts,
        deps = deps + prelude_deps(deps),
        include_prefix = "grapnel/" + native.package_name(),
        strip_include_prefix = "",
        # Static libraries are what we ship; without this each is linked into
        # a shared one as well.
        linkstatic = True,
        **kwargs
    )

def grapnel_cc_test(name, size = "small", copts = [], deps = [], **kwargs):
    cc_test(
        name = name,
        size = size,
        copts = _COPTS + prelude_copts(copts) + copts,
        deps = deps + prelude_deps(deps),
        # As shipped binaries are. A test linked with shared libraries keeps
        # every object file, and so passes when a hook lacks alwayslink.
        linkstatic = True,
        **kwargs
    )

def grapnel_c_test(name, size = "small", **kwargs):
    """A test in C, of the C API as its callers see it."""
    cc_test(
        name = name,
        size = size,
        copts = [
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
        ],
        linkstatic = True,
        **kwargs
    )

def grapnel_cc_binary(name, copts = [], deps = [], **kwargs):
    cc_binary(
        name = name,
        copts = _COPTS + prelude_copts(copts) + copts,
        deps = deps + prelude_deps(deps),
        linkstatic = True,
        **kwargs
    )

def grapnel_registered(name, **kwargs):
    """A library with objects that register themselves (GRAPNEL_REGISTER_...).

    Nothing refers to its object files but their own static initializers, so
    the linker would drop them.
    """
    grapnel_cc_library(
        name = name,
        alwayslink = True,
        **kwargs
    )

def grapnel_hook(name, visibility = ["//visibility:public"], **kwargs):
    """A hook that registers itself with GRAPNEL_REGISTER_HOOK."""
    grapnel_registered(
        name = name,
        visibility = visibility,
        **kwargs
    )
