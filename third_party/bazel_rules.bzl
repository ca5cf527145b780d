"""The repositories that Bazel 4.2.3 itself asks for, without a download."""

_NATIVE_CC = """
cc_library = native.cc_library
cc_binary = native.cc_binary
cc_test = native.cc_test
cc_import = native.cc_import
cc_proto_library = native.cc_proto_library
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
cc_libc_top_alias = native.cc_libc_top_alias
cc_toolchain_alias = native.cc_toolchain_alias
fdo_prefetch_hints = native.fdo_prefetch_hints
fdo_profile = native.fdo_profile
objc_library = native.objc_library
objc_import = native.objc_import
"""

def _native_rules_cc_impl(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"rules_cc\")\n")
    ctx.file("BUILD", "")
    ctx.file("cc/BUILD", "")
    ctx.file("cc/defs.bzl", _NATIVE_CC)

# Debian's rules_cc needs a newer Bazel than Debian's Bazel; the native rules
# under its names are all that we use.
native_rules_cc_repository = repository_rule(
    implementation = _native_rules_cc_impl,
)

def _system_rules_java_impl(ctx):
    root = ctx.path("/usr/share/bazel/rules/java")
    if not root.exists:
        fail("/usr/share/bazel/rules/java is missing: install the Debian " +
             "package bazel-rules-java, or run ./bazelw setup")
    ctx.symlink(root.get_child("java"), "java")
    ctx.file("WORKSPACE", "workspace(name = \"rules_java\")\n")
    ctx.file("BUILD", "")

system_rules_java_repository = repository_rule(
    implementation = _system_rules_java_impl,
    local = True,
)

def _no_coverage_tools_impl(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"remote_coverage_tools\")\n")
    ctx.file("BUILD", """
filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)
""")

# Every test depends on it, used or not.
no_coverage_tools_repository = repository_rule(
    implementation = _no_coverage_tools_impl,
)
