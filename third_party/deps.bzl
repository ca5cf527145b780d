"""grapnel_deps(): every external repository that Grapnel's targets name.

Call it from WORKSPACE. What the calling project has defined already, under
the same name, is left alone: the labels are the upstream ones, so that a built
Abseil or protobuf can stand in for the system's.
"""

load("@bazel_tools//tools/build_defs/repo:utils.bzl", "maybe")
load("//third_party:bazel_rules.bzl", "native_rules_cc_repository", "no_coverage_tools_repository", "system_rules_java_repository")
load("//third_party:cuda.bzl", "cuda_toolkit_repository")
load("//third_party:hidden.bzl", "hidden_libraries_repository", "other_protobuf_repository")
load("//third_party:libtorch.bzl", "libtorch_repository")
load("//third_party:system.bzl", "system_absl_repository", "system_glog_repository", "system_gloo_repository", "system_googletest_repository", "system_libraries_repository", "system_protobuf_repository", "system_valgrind_repository")

def grapnel_deps():
    """Defines Grapnel's external repositories. Downloads nothing."""

    # What Bazel 4.2.3 looks for by itself and would otherwise download.
    maybe(native_rules_cc_repository, name = "rules_cc")
    maybe(system_rules_java_repository, name = "rules_java")
    maybe(no_coverage_tools_repository, name = "remote_coverage_tools")

    maybe(libtorch_repository, name = "libtorch")
    maybe(system_absl_repository, name = "com_google_absl")
    maybe(system_protobuf_repository, name = "com_google_protobuf")
    maybe(system_glog_repository, name = "com_github_google_glog")
    maybe(system_googletest_repository, name = "com_google_googletest")

    # Looked at by //dist:c10d_process_group alone.
    maybe(system_gloo_repository, name = "grapnel_gloo")

    # Looked at by //capi:libgrapnel.so alone.
    maybe(hidden_libraries_repository, name = "grapnel_hidden")

    # Looked at by //tests/capi/shared alone.
    maybe(other_protobuf_repository, name = "grapnel_other_protobuf")

    # Looked at by --config=cuda alone.
    maybe(cuda_toolkit_repository, name = "grapnel_cuda")

    # Looked at by //tools/bench:instructions alone.
    maybe(system_valgrind_repository, name = "grapnel_valgrind")

    # Libraries with no upstream Bazel name: libpng, libjpeg, re2, xxhash,
    # nlohmann_json.
    maybe(system_libraries_repository, name = "grapnel_system")
