"""gpu_tests: the tests that need a device, for a machine that has no Bazel.

The output has a line for each: its label, its program, and the files that it reads, below
the runfiles.

  //cuda:multi_tensor_lerp_test<TAB>cuda/multi_tensor_lerp_test
"""

_TestInfo = provider(
    doc = "How a test is run.",
    fields = ["args", "env", "kind", "tags"],
)

def _test_impl(target, ctx):
    return [_TestInfo(
        args = getattr(ctx.rule.attr, "args", []),
        env = getattr(ctx.rule.attr, "env", {}),
        kind = ctx.rule.kind,
        tags = ctx.rule.attr.tags,
    )]

_test = aspect(implementation = _test_impl)

def _gpu_tests_impl(ctx):
    lines = []
    runfiles = ctx.runfiles(files = [ctx.outputs.out])
    for test in ctx.attr.tests:
        info = test[_TestInfo]
        if info.kind != "cc_test":
            fail("%s: must be a cc_test, is a %s" % (test.label, info.kind))
        if info.args or info.env:
            fail("%s: would be run without its args and env" % test.label)
        if "gpu" not in info.tags:
            fail("%s: has no tag \"gpu\"" % test.label)
        program = test[DefaultInfo].files_to_run.executable
        needed = test[DefaultInfo].default_runfiles
        data = [f.short_path for f in needed.files.to_list() if f != program]
        lines.append("\t".join([str(test.label), program.short_path] + data) + "\n")
        runfiles = runfiles.merge(needed)
    ctx.actions.write(ctx.outputs.out, "".join(lines))
    return [DefaultInfo(files = depset([ctx.outputs.out]), runfiles = runfiles)]

gpu_tests = rule(
    implementation = _gpu_tests_impl,
    doc = "Lists tests of the tag \"gpu\", and has them in its runfiles.",
    attrs = {
        "out": attr.output(mandatory = True),
        "tests": attr.label_list(aspects = [_test]),
    },
)
