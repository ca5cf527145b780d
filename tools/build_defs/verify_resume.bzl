"""grapnel_verify_resume_test: a configuration resumes exactly."""

def grapnel_verify_resume_test(
        name,
        config,
        grapnel = None,
        data = [],
        args = [],
        **kwargs):
    """Runs `grapnel verify-resume CONFIG`, which docs/verify_resume.md describes.

    Args:
      name: of the test.
      config: a label, of the configuration file.
      grapnel: a label, of a program whose main() is //tools:grapnel_main's, with
        what the configuration names linked in. Default: //tools:grapnel.
      data: what the configuration reads, beside it as it is in the source tree.
      args: more flags: ["--kills=10", "--iters=200"].
      **kwargs: what else a test takes: size, tags, ...
    """
    if grapnel == None:
        grapnel = Label("//tools:grapnel")
    native.sh_test(
        name = name,
        srcs = [Label("//tools/verify_resume:run_verify_resume.sh")],
        args = [
            "$(rootpath %s)" % grapnel,
            "$(rootpath %s)" % config,
        ] + args,
        data = [config, grapnel] + data,
        **kwargs
    )
