"""What the BUILD files say.

A BUILD file is Python syntax: it is run with every rule replaced by a function
that writes down how it was called.
"""

import ast
import builtins
import posixpath
import re


class Target:
    def __init__(self, kind, package, attributes, line):
        self.kind = kind
        self.package = package
        self.attributes = attributes
        self.line = line

    @property
    def name(self):
        return self.attributes["name"]

    @property
    def label(self):
        return f"//{self.package}:{self.name}"

    @property
    def where(self):
        return f"{posixpath.join(self.package, 'BUILD')}:{self.line}"

    def files(self, *attributes):
        """Paths of the sources that lie in this package."""
        found = []
        for attribute in attributes:
            for name in self.attributes.get(attribute) or []:
                name = name[1:] if name.startswith(":") else name
                if not name.startswith(("//", "@")):
                    found.append(posixpath.join(self.package, name))
        return found

    @property
    def deps(self):
        return [normalize(d, self.package) for d in self.attributes.get("deps") or []]

    @property
    def registers(self):
        """Linked for what its objects do by themselves, included or not."""
        return self.kind in ("grapnel_registered", "grapnel_hook") or self.attributes.get("alwayslink", False)


def normalize(label, package):
    """:x, x, //a/b and @r//a/b in full."""
    repository = ""
    if label.startswith("@"):
        repository, slashes, label = label.partition("//")
        label = "//" + label if slashes else "//:" + repository[1:]
    if not label.startswith("//"):
        label = f"//{package}:{label.lstrip(':')}"
    if ":" not in label:
        label = f"{label}:{label.rpartition('/')[2]}"
    return repository + label


def _matches(name, patterns):
    """Whether one of Bazel's patterns is that of a path below the package."""
    for pattern in patterns:
        parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
        wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
        if re.fullmatch("".join(wild.get(part) or re.escape(part) for part in parts), name):
            return True
    return False


def _glob(files, package):
    prefix = package + "/" if package else ""
    nested = [p[len(prefix):-len("BUILD")] for p in files.paths
              if p.startswith(prefix) and p.endswith("/BUILD") and p != prefix + "BUILD"]

    def glob(include, exclude=(), **_):
        found = []
        for path in files.paths:
            name = path[len(prefix):]
            if not path.startswith(prefix) or name.startswith(tuple(nested)):
                continue
            if _matches(name, include) and not _matches(name, exclude):
                found.append(name)
        return found
    return glob


def _select(branches, **_):
    values = []
    for value in branches.values():
        values += value
    return values


def targets_of(files, package):
    """The targets of one BUILD file, and its package(default_visibility)."""
    path = posixpath.join(package, "BUILD")
    module = ast.parse(files.text(path), path)
    targets = []
    default_visibility = []
    call_lines = [0]

    def recorder(kind):
        def record(*args, **attributes):
            if kind == "package":
                default_visibility[:] = attributes.get("default_visibility") or []
            elif "name" in attributes:
                targets.append(Target(kind, package, attributes, call_lines[0]))
        return record

    names = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    scope = {name: recorder(name) for name in names if not hasattr(builtins, name)}
    scope.update(glob=_glob(files, package), select=_select)
    for statement in module.body:
        call_lines[0] = statement.lineno
        exec(compile(ast.Module([statement], []), path, "exec"), scope)
    for target in targets:
        target.attributes.setdefault("visibility", default_visibility)
    return targets


def all_targets(files):
    targets = []
    for path in files.select("BUILD"):
        if posixpath.basename(path) == "BUILD":
            targets += targets_of(files, posixpath.dirname(path))
    return targets
