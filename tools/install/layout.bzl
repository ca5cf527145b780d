"""install_layout: which files a prefix has, and where they come from.

The output has a line for each:

  bin/grapnel<TAB>tools/install/grapnel    a file, from one below the runfiles
  lib/libgrapnel.so<TAB>-><TAB>libgrapnel.so.0    a symbolic link
"""

_ProtosInfo = provider(doc = "ProtoInfos of libraries.", fields = ["infos"])

def _protos_impl(target, ctx):
    direct = [target[ProtoInfo]] if ProtoInfo in target else []
    deps = getattr(ctx.rule.attr, "deps", [])
    return [_ProtosInfo(infos = depset(
        direct,
        transitive = [dep[_ProtosInfo].infos for dep in deps if _ProtosInfo in dep],
    ))]

_protos = aspect(implementation = _protos_impl, attr_aspects = ["deps"])

def _below_package(file, label):
    """A file's path in the package of its target."""
    prefix = label.package + "/" if label.package else ""
    if not file.short_path.startswith(prefix):
        fail("%s is not in the package of %s" % (file.short_path, label))
    return file.short_path[len(prefix):]

def _imported(targets):
    """Import path to file, of ours that the targets are made of."""
    found = {}
    for target in targets:
        for info in target[_ProtosInfo].infos.to_list():
            for file in info.direct_sources:
                path = file.path[len(info.proto_source_root):].lstrip("/")
                if path.startswith("grapnel/"):
                    found[path] = file
    return found

def _add(files, path, file):
    if path in files:
        fail("%s would be both %s and %s" % (path, files[path].short_path, file.short_path))
    files[path] = file

def _install_layout_impl(ctx):
    files = {}
    for target, where in ctx.attr.files.items():
        for file in target.files.to_list():
            path = where
            if where in ("", ".") or where.endswith("/"):
                path = where.lstrip(".") + _below_package(file, target.label)
            _add(files, path, file)

    protos = _imported(ctx.attr.protos_of)
    for path in ctx.attr.protos_left_out:
        protos.pop(path)  # Fails if there is none.
    for path, file in protos.items():
        _add(files, "share/grapnel/proto/" + path, file)
    for path in ctx.attr.links:
        if path in files:
            fail("%s would be both %s and a link" % (path, files[path].short_path))

    lines = ["%s\t%s\n" % (path, file.short_path) for path, file in files.items()]
    lines += ["%s\t->\t%s\n" % (path, target) for path, target in ctx.attr.links.items()]
    ctx.actions.write(ctx.outputs.out, "".join(sorted(lines)))
    return [DefaultInfo(
        files = depset([ctx.outputs.out]),
        runfiles = ctx.runfiles(files = files.values() + [ctx.outputs.out]),
    )]

install_layout = rule(
    implementation = _install_layout_impl,
    doc = "Lists the files of a prefix, and has them in its runfiles.",
    attrs = {
        "files": attr.label_keyed_string_dict(
            doc = "Target to path in the prefix, or to a folder, \".\" or one that ends with " +
                  "\"/\", that its files lie in as they lie in their package.",
            allow_files = True,
        ),
        "links": attr.string_dict(doc = "Path in the prefix to what the symbolic link says."),
        "out": attr.output(mandatory = True),
        "protos_left_out": attr.string_list(doc = "Import paths."),
        "protos_of": attr.label_list(
            doc = "Libraries; the .proto files that they are made of lie in share/grapnel/proto.",
            aspects = [_protos],
        ),
    },
)
