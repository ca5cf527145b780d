"""localized_archive: C functions and all that they are made of, in one archive.

It is to a static link what a version script is to a shared library: whatever the
program has of its own, another protobuf for example, doesn't meet what is inside.
"""

# Symbols that a process has once (nm's "u") are what objcopy doesn't make local, so
# they become weak before. Archives are whole where they are alwayslink, as in any
# link; the order is Bazel's.
_COMMAND = """
set -euo pipefail
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
ld.bfd -r --force-group-allocation -o "$parts/all.o" "@$1"
nm --defined-only "$parts/all.o" | awk '$2 == "u" { print $3 }' >"$parts/unique"
objcopy --weaken-symbols="$parts/unique" "$parts/all.o"
objcopy --wildcard --keep-global-symbol="$2" "$parts/all.o"
strip --strip-unneeded -o "$parts/$3.o" "$parts/all.o"
ar -rcsD "$4" "$parts/$3.o"
"""

def _localized_archive_impl(ctx):
    inputs = []
    link = ctx.actions.args()
    for dep in ctx.attr.deps:
        for linker_input in dep[CcInfo].linking_context.linker_inputs.to_list():
            for library in linker_input.libraries:
                archive = library.pic_static_library or library.static_library
                if not archive:
                    fail("%s: %s has no archive" % (dep.label, library))
                inputs.append(archive)
                if library.alwayslink:
                    link.add_all(["--whole-archive", archive, "--no-whole-archive"])
                else:
                    link.add(archive)
    parameters = ctx.actions.declare_file(ctx.label.name + ".params")
    link.set_param_file_format("multiline")
    ctx.actions.write(parameters, link)
    ctx.actions.run_shell(
        outputs = [ctx.outputs.out],
        inputs = inputs + [parameters],
        command = _COMMAND,
        arguments = [parameters.path, ctx.attr.keep, ctx.label.name, ctx.outputs.out.path],
        mnemonic = "LocalizedArchive",
        progress_message = "Merging into " + ctx.outputs.out.short_path,
    )
    return [DefaultInfo(files = depset([ctx.outputs.out]))]

localized_archive = rule(
    implementation = _localized_archive_impl,
    doc = "An archive with one object: all of deps, with one kind of symbol to be seen.",
    attrs = {
        "deps": attr.label_list(doc = "Whose objects.", mandatory = True, providers = [CcInfo]),
        "keep": attr.string(doc = "A pattern: the symbols that stay global.", mandatory = True),
        "out": attr.output(doc = "The archive's file.", mandatory = True),
    },
)
