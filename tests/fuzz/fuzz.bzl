"""grapnel_fuzz_test: a fuzz target with the driver, as a test."""

load("//tools/build_defs:cc.bzl", "grapnel_cc_test")

def grapnel_fuzz_test(name, srcs, deps):
    """Runs a target on inputs made from corpus/<name> and <name>.dict.

    Args:
      name: ends in "_fuzz".
      srcs: with LLVMFuzzerTestOneInput, and the mutator if there is one.
      deps: of srcs.
    """
    corpus = "corpus/" + name[:-len("_fuzz")]
    dictionary = name[:-len("_fuzz")] + ".dict"
    grapnel_cc_test(
        name = name,
        size = "medium",
        srcs = srcs,
        args = [
            "--corpus=%s/%s" % (native.package_name(), corpus),
            "--dictionary=%s/%s" % (native.package_name(), dictionary),
        ],
        data = native.glob([corpus + "/**"]) + [dictionary],
        tags = ["long"],
        deps = deps + [":driver"],
    )
