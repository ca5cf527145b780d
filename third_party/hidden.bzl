"""Libraries of the system compiled from source, to be hidden in a shared one.

@grapnel_hidden//:hidden is Debian's protobuf, Abseil, glog and gflags in the
versions that are installed, whose static libraries are not position-independent.
What was compiled with the headers of /usr/include links with it: they are the
same. It stands before the system's in a link, and what is found in it is not
looked for there: with --as-needed those drop out.

@grapnel_other_protobuf//:protobuf is one of another version, with its own headers,
for a test's host. It comes by `./bazelw setup --all` and `./bazelw test`; without it
the target is the system's, so that all builds, and the test sees its version.
"""

_PACKAGE = """
package(default_visibility = ["//visibility:public"])

_COPTS = [
    "-std=c++17",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
    "-w",  # Theirs.
]
"""

_PROTOBUF = """
cc_library(
    name = "protobuf",
    srcs = {srcs},
    hdrs = glob(["protobuf/google/protobuf/**/*.h", "protobuf/google/protobuf/**/*.inc"]),
    copts = _COPTS,
    includes = ["protobuf"],
    linkopts = ["-pthread"],
    linkstatic = True,
    local_defines = ["HAVE_PTHREAD"],
)
"""

_OTHERS = """
# In the order of a link: what comes first uses what comes later.
cc_library(
    name = "hidden",
    deps = [
        ":protobuf",
        ":glog",
        ":absl",
    ],
)

cc_library(
    name = "absl",
    srcs = glob(
        ["abseil/absl/**/*.cc"],
        exclude = [
            "abseil/absl/flags/**",
            "abseil/absl/**/*benchmark*",
            "abseil/absl/**/*gentables*",
            "abseil/absl/**/*test*",
            # With options of their own, or for tests.
            "abseil/absl/base/internal/scoped_set_env.cc",
            "abseil/absl/hash/internal/print_hash_of.cc",
            "abseil/absl/random/internal/randen_hwaes.cc",
        ],
    ),
    hdrs = glob(["abseil/absl/**/*.h", "abseil/absl/**/*.inc"]),
    copts = _COPTS,
    includes = ["abseil"],
    linkstatic = True,
    deps = [":randen_hwaes"],
)

# Which of its files may use AES instructions is looked up when it runs.
cc_library(
    name = "randen_hwaes",
    srcs = ["abseil/absl/random/internal/randen_hwaes.cc"],
    hdrs = glob(["abseil/absl/**/*.h", "abseil/absl/**/*.inc"]),
    copts = _COPTS + {aes_copts},
    includes = ["abseil"],
    linkstatic = True,
)

cc_library(
    name = "glog",
    srcs = ["glog/" + name for name in [
        "demangle.cc",
        "logging.cc",
        "raw_logging.cc",
        "signalhandler.cc",
        "symbolize.cc",
        "utilities.cc",
        "vlog_is_on.cc",
    ]] + glob(["glog/*.h", "glog/base/*.h"]),
    hdrs = ["glog_config/config.h"],
    copts = _COPTS,
    includes = ["glog", "glog_config"],
    linkstatic = True,
    deps = [":gflags"],
)

cc_library(
    name = "gflags",
    srcs = [
        "gflags/config.h",
        "gflags/gflags.cc",
        "gflags/gflags_completions.cc",
        "gflags/gflags_reporting.cc",
        "gflags/mutex.h",
        "gflags/util.h",
    ],
    copts = _COPTS,
    linkstatic = True,
    local_defines = [
        "GFLAGS_BAZEL_BUILD",  # No defines.h: here they are.
        "HAVE_FNMATCH_H",
        "HAVE_INTTYPES_H",
        "HAVE_PTHREAD",
        "HAVE_RWLOCK",
        "HAVE_STDINT_H",
        "HAVE_STRTOLL",
        "HAVE_STRTOQ",
        "HAVE_SYS_STAT_H",
        "HAVE_SYS_TYPES_H",
        "HAVE_UNISTD_H",
    ],
)
"""

# As Debian's, but that a stack is unwound by libgcc, not by libunwind: one library
# less to depend on.
_GLOG_CONFIG = "\n".join(["#define " + line for line in [
    "GOOGLE_NAMESPACE google",
    "GLOG_THREAD_LOCAL_STORAGE __thread",
    "HAVE_ALIGNED_STORAGE 1",
    "HAVE_CXX11_ATOMIC 1",
    "HAVE_CXX11_CHRONO 1",
    "HAVE_CXX11_NULLPTR_T 1",
    "HAVE_DLADDR",
    "HAVE_DLFCN_H",
    "HAVE_EXECINFO_H",
    "HAVE_FCNTL",
    "HAVE_GLOB_H",
    "HAVE_LIB_GFLAGS",
    "HAVE_LOCALTIME_R",
    "HAVE_PREAD",
    "HAVE_PTHREAD",
    "HAVE_PWD_H",
    "HAVE_PWRITE",
    "HAVE_RWLOCK",
    "HAVE_SIGACTION",
    "HAVE_SIGALTSTACK",
    "HAVE_SYMBOLIZE",
    "HAVE_SYSCALL_H",
    "HAVE_SYSLOG_H",
    "HAVE_SYS_SYSCALL_H",
    "HAVE_SYS_TIME_H",
    "HAVE_SYS_UTSNAME_H",
    "HAVE_SYS_WAIT_H",
    "HAVE_UCONTEXT_H",
    "HAVE_UNISTD_H",
    "HAVE_UNWIND_H",
    "HAVE_USING_OPERATOR",
    "HAVE__UNWIND_BACKTRACE",
    "HAVE___ATTRIBUTE__",
    "HAVE___BUILTIN_EXPECT 1",
    "HAVE___SYNC_VAL_COMPARE_AND_SWAP",
    "SIZEOF_VOID_P 8",
    "STL_NAMESPACE std",
    "_END_GOOGLE_NAMESPACE_ }",
    "_START_GOOGLE_NAMESPACE_ namespace google {",
]]) + "\n"

def _cache(ctx):
    env = ctx.os.environ
    return (env.get("XDG_CACHE_HOME") or env.get("HOME", "") + "/.cache") + "/grapnel"

def _protobuf(ctx, root):
    """Links what lies in the folder `root`, and gives what a BUILD file says of it."""
    ctx.symlink(root + "/src/google", "protobuf/google")
    srcs = {}
    for name in ["libprotobuf", "libprotobuf-lite"]:
        for line in ctx.read("%s/cmake/%s.cmake" % (root, name)).split("\n"):
            path = line.strip().partition("/src/")[2]
            if path.endswith(".cc") and not path.endswith("/gzip_stream.cc"):
                srcs["protobuf/" + path] = True
    return _PROTOBUF.format(srcs = sorted(srcs))

def _hidden_impl(ctx):
    # Source package to what is looked for in it.
    roots = {
        "abseil": "absl",
        "gflags": "src",
        "google-glog": "src",
        "protobuf": "src/google",
    }
    installed = ctx.execute([
        "dpkg-query",
        "--show",
        "--showformat=${source:Package} ${source:Version}\n",
        "libabsl-dev",
        "libgflags-dev",
        "libgoogle-glog-dev",
        "libprotobuf-dev",
    ])
    if installed.return_code != 0:
        fail("no Debian packages that libgrapnel.so could hide: " + installed.stderr)
    for line in installed.stdout.strip().split("\n"):
        name, _, version = line.partition(" ")
        root = "%s/sources/%s_%s" % (_cache(ctx), name, version)
        if not ctx.path(root + "/" + roots[name]).exists:
            fail("no source of Debian's %s %s in %s: run ./bazelw setup" % (name, version, root))
        roots[name] = root

    ctx.symlink(roots["abseil"] + "/absl", "abseil/absl")
    ctx.symlink(roots["gflags"] + "/src", "gflags")
    ctx.symlink(roots["google-glog"] + "/src", "glog")
    ctx.file("glog_config/config.h", _GLOG_CONFIG)
    x86 = ctx.execute(["uname", "-m"]).stdout.strip() == "x86_64"
    ctx.file("BUILD", _PACKAGE + _protobuf(ctx, roots["protobuf"]) + _OTHERS.format(
        aes_copts = ["-maes", "-msse4.1"] if x86 else [],
    ))

hidden_libraries_repository = repository_rule(
    implementation = _hidden_impl,
    environ = ["XDG_CACHE_HOME", "HOME"],
    local = True,
)

_SYSTEM_PROTOBUF = """
cc_library(
    name = "protobuf",
    linkopts = ["-lprotobuf"],
)
"""

def _other_protobuf_impl(ctx):
    root = ctx.os.environ.get("GRAPNEL_OTHER_PROTOBUF") or _cache(ctx) + "/protobuf-21.5"
    found = ctx.path(root + "/src/google/protobuf").exists
    ctx.file("BUILD", _PACKAGE + (_protobuf(ctx, root) if found else _SYSTEM_PROTOBUF))

# GRAPNEL_OTHER_PROTOBUF is bazelw's, which says by it that there is one now.
other_protobuf_repository = repository_rule(
    implementation = _other_protobuf_impl,
    environ = ["GRAPNEL_OTHER_PROTOBUF", "XDG_CACHE_HOME", "HOME"],
    local = True,
)
