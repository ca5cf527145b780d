"""layout_failure_test: a target that must not be analysed, and what it says then."""

def _layout_failure_test_impl(ctx):
    said = []
    if AnalysisFailureInfo in ctx.attr.target[0]:
        causes = ctx.attr.target[0][AnalysisFailureInfo].causes.to_list()
        said = [cause.message for cause in causes]
    passed = len([message for message in said if ctx.attr.message in message]) > 0
    return [AnalysisTestResultInfo(
        success = passed,
        message = "wanted \"%s\", got %s" % (ctx.attr.message, said),
    )]

layout_failure_test = rule(
    implementation = _layout_failure_test_impl,
    analysis_test = True,
    attrs = {
        "message": attr.string(doc = "Part of what the target fails with.", mandatory = True),
        "target": attr.label(
            cfg = analysis_test_transition(
                settings = {"//command_line_option:allow_analysis_failures": "True"},
            ),
            mandatory = True,
        ),
    },
)
