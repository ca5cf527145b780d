"""Libraries of the Debian system under their upstream Bazel labels.

Their headers are in the compiler's own search path, so that a target here is
no more than its link options.
"""

# Targets of Abseil's packages. Every one links what it needs of Abseil's shared
# libraries: which of them define what is Abseil's affair.
_ABSL = {
    "algorithm": ["algorithm", "container"],
    "base": ["base", "config", "core_headers"],
    "cleanup": ["cleanup"],
    "container": ["btree", "fixed_array", "flat_hash_map", "flat_hash_set", "inlined_vector", "node_hash_map"],
    "functional": ["any_invocable", "bind_front", "function_ref"],
    "hash": ["hash"],
    "memory": ["memory"],
    "meta": ["type_traits"],
    "numeric": ["bits", "int128"],
    "random": ["random"],
    "status": ["status", "statusor"],
    "strings": ["cord", "str_format", "strings"],
    "synchronization": ["synchronization"],
    "time": ["time"],
    "types": ["any", "optional", "span", "variant"],
    "utility": ["utility"],
}

_LIBRARY = """
cc_library(
    name = "{name}",
    linkopts = {linkopts},
    visibility = ["//visibility:public"],
)
"""

def _library(name, linkopts):
    return _LIBRARY.format(name = name, linkopts = linkopts)

def _require(ctx, path, package, setup = "./bazelw setup"):
    if not ctx.path(path).exists:
        fail("%s is missing: install the Debian package %s, or run %s" % (path, package, setup))

def _system_absl_impl(ctx):
    _require(ctx, "/usr/include/absl/status/statusor.h", "libabsl-dev")
    found = ctx.execute(["sh", "-c", "ls /usr/lib/*/libabsl_*.so"])
    if found.return_code != 0:
        fail("no libabsl_*.so under /usr/lib: install the Debian package libabsl-dev")
    names = [
        path.rpartition("/lib")[2][:-len(".so")]
        for path in found.stdout.split("\n")
        if path
    ]
    linkopts = (["-Wl,--push-state,--as-needed"] +
                ["-l" + name for name in sorted(names)] +
                ["-Wl,--pop-state"])
    for package, targets in _ABSL.items():
        build = "".join([_library(target, linkopts) for target in targets])
        ctx.file("absl/%s/BUILD" % package, build)
    ctx.file("BUILD", "")

system_absl_repository = repository_rule(
    implementation = _system_absl_impl,
    local = True,
)

_WELL_KNOWN_PROTOS = {
    "any": [],
    "api": ["source_context", "type"],
    "descriptor": [],
    "duration": [],
    "empty": [],
    "field_mask": [],
    "source_context": [],
    "struct": [],
    "timestamp": [],
    "type": ["any", "source_context"],
    "wrappers": [],
}

_PROTOBUF = """
exports_files(["protoc"], visibility = ["//visibility:public"])

cc_library(
    name = "protobuf",
    linkopts = ["-lprotobuf"],
    visibility = ["//visibility:public"],
)

proto_lang_toolchain(
    name = "cc_toolchain",
    blacklisted_protos = {blacklisted},
    command_line = "--cpp_out=$(OUT)",
    runtime = ":protobuf",
    visibility = ["//visibility:public"],
)
"""

_WELL_KNOWN_PROTO = """
proto_library(
    name = "{name}_proto",
    srcs = ["google/protobuf/{name}.proto"],
    strip_import_prefix = "",
    visibility = ["//visibility:public"],
    deps = {deps},
)
"""

def _system_protobuf_impl(ctx):
    _require(ctx, "/usr/include/google/protobuf/message.h", "libprotobuf-dev")
    _require(ctx, "/usr/bin/protoc", "protobuf-compiler")
    ctx.symlink("/usr/bin/protoc", "protoc")
    build = _PROTOBUF.format(
        blacklisted = [":%s_proto" % name for name in _WELL_KNOWN_PROTOS],
    )
    for name, deps in _WELL_KNOWN_PROTOS.items():
        path = "google/protobuf/%s.proto" % name
        ctx.symlink("/usr/include/" + path, path)
        build += _WELL_KNOWN_PROTO.format(
            name = name,
            deps = [":%s_proto" % dep for dep in deps],
        )
    ctx.file("BUILD", build)

system_protobuf_repository = repository_rule(
    implementation = _system_protobuf_impl,
    local = True,
)

def _system_glog_impl(ctx):
    _require(ctx, "/usr/include/glog/logging.h", "libgoogle-glog-dev")
    ctx.file("BUILD", _library("glog", ["-lglog"]))

system_glog_repository = repository_rule(
    implementation = _system_glog_impl,
    local = True,
)

def _system_googletest_impl(ctx):
    _require(ctx, "/usr/include/gmock/gmock.h", "libgmock-dev")
    _require(ctx, "/usr/include/gtest/gtest.h", "libgtest-dev")
    ctx.file(
        "BUILD",
        _library("gtest", ["-lgmock", "-lgtest", "-lpthread"]) +
        _library("gtest_main", ["-lgmock_main", "-lgmock", "-lgtest", "-lpthread"]),
    )

system_googletest_repository = repository_rule(
    implementation = _system_googletest_impl,
    local = True,
)

# Target to (header that shows that it is there, Debian package, link options).
_LIBRARIES = {
    "libjpeg": ("jpeglib.h", "libjpeg62-turbo-dev", ["-ljpeg"]),
    "libpng": ("png.h", "libpng-dev", ["-lpng"]),
    "nlohmann_json": ("nlohmann/json.hpp", "nlohmann-json3-dev", []),
    "re2": ("re2/re2.h", "libre2-dev", ["-lre2"]),
    "xxhash": ("xxhash.h", "libxxhash-dev", ["-lxxhash"]),
    "zlib": ("zlib.h", "zlib1g-dev", ["-lz"]),
}

def _system_libraries_impl(ctx):
    build = ""
    for name, (header, package, linkopts) in _LIBRARIES.items():
        _require(ctx, "/usr/include/" + header, package)
        build += _library(name, linkopts)
    ctx.file("BUILD", build)

system_libraries_repository = repository_rule(
    implementation = _system_libraries_impl,
    local = True,
)

def _system_valgrind_impl(ctx):
    _require(ctx, "/usr/include/valgrind/callgrind.h", "valgrind", "./bazelw setup --all")
    ctx.file("BUILD", _library("headers", []))

system_valgrind_repository = repository_rule(
    implementation = _system_valgrind_impl,
    local = True,
)

_GLOO = """
cc_library(
    name = "headers",
    hdrs = glob(["include/gloo/**"]),
    includes = ["include"],
    visibility = ["//visibility:public"],
)
"""

def _system_gloo_impl(ctx):
    env = ctx.os.environ
    cache = (env.get("XDG_CACHE_HOME") or env.get("HOME", "") + "/.cache") + "/grapnel"
    for root in [cache + "/gloo/usr/include", "/usr/include"]:
        if ctx.path(root + "/gloo/context.h").exists:
            ctx.symlink(root + "/gloo", "include/gloo")
            ctx.file("BUILD", _GLOO)
            return
    _require(ctx, cache + "/gloo/usr/include/gloo/context.h", "libgloo-dev")

# Headers alone, for those of c10d, which name gloo's types: the library is in
# LibTorch. The package isn't installed, since it brings Infiniband's and more.
system_gloo_repository = repository_rule(
    implementation = _system_gloo_impl,
    environ = ["XDG_CACHE_HOME", "HOME"],
    local = True,
)
