"""grapnel_proto_library: a .proto and its C++ code, under the grapnel/ path."""

load("@rules_cc//cc:defs.bzl", "cc_proto_library")

def grapnel_proto_library(name, srcs, deps = [], testonly = None, visibility = None):
    """proto_library `name` and cc_proto_library, named as ours are.

    Args:
      name: ends in "_proto"; the C++ library is called "..._cc_proto".
      srcs: the .proto files. Imported, and included, as
        "grapnel/<package>/<file>".
      deps: proto_library targets.
      testonly: of both.
      visibility: of both.
    """
    if not name.endswith("_proto"):
        fail("name: must end in _proto, is " + name)
    native.proto_library(
        name = name,
        testonly = testonly,
        srcs = srcs,
        import_prefix = "grapnel/" + native.package_name(),
        strip_import_prefix = "",
        visibility = visibility,
        deps = deps,
    )
    cc_proto_library(
        name = name[:-len("_proto")] + "_cc_proto",
        testonly = testonly,
        visibility = visibility,
        deps = [":" + name],
    )
