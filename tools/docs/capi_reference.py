#!/usr/bin/env python3
"""Prints docs/capi_reference.md, made from the C API's header: capi_reference.py HEADER

The header is C as clang-format leaves it: a comment that holds for all of it,
then sections.

  /* ---- Tensors ----------------------------------------------------------- */

  /* What it is. */
  typedef struct grapnel_tensor grapnel_tensor;

  GRAPNEL_API void grapnel_tensor_destroy(grapnel_tensor* tensor);

  /* What both do. */
  GRAPNEL_API int32_t grapnel_tensor_rank(const grapnel_tensor* tensor);
  GRAPNEL_API int64_t grapnel_tensor_numel(const grapnel_tensor* tensor);

A comment is of the declarations below it, up to a blank line; a type's is also
of what stands next behind that line, if it is named after the type. A function
that has none is an error.
"""

import re
import sys
import textwrap

_WIDTH = 110
_CODE_WIDTH = 80

_PIECE = re.compile(
    r"""/\*\ ----\ (?P<title>[^\n]+?)\ -+\ \*/\n
      | (?P<comment>/\*.*?\*/\n)
      | (?P<blank>\n)
      | \#ifdef\ __cplusplus\n.*?\#endif\n
      | \#(?!define)[^\n]*\n
      | (?P<declaration>
            \#define[^\n]*\n
          | [^\n]*\{\n.*?\n\}[^\n]*\n
          | [^;]*;[^\n]*\n)
    """, re.VERBOSE | re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_MACROS = re.compile(r"\bGRAPNEL_(?:API|MUST_USE)\s+")
_TYPE = re.compile(r"typedef [^;{]*?\(\*(\w+)\)\(|typedef struct (\w+) \{|typedef [\w ]+ (\w+);")
_FUNCTION = re.compile(r"\b(grapnel_\w+)\(")

# What is code in the text of a comment, quoted or not.
_CODE = re.compile(
    r"(`[^`]*`|(?<![\w*])\*\w+|\bGRAPNEL_\w+|\bgrapnel(?:\.\w+)+|\bgrapnel_\w+\**|\bconst \w+\*)")
_SPECIAL = re.compile(r"\*|<(?=[\w/!])")
# A space behind which there would be a bullet, if a line began there.
_BEFORE_BULLET = re.compile(r" (?=(?:[-+*#>]|\d+\.) )")

_HEAD = """\
# Reference of the C API

Made from [grapnel/grapnel.h](../capi/include/grapnel/grapnel.h): `./bazelw run //tools/docs:update_capi_reference`
writes it again. `GRAPNEL_API` and `GRAPNEL_MUST_USE` are left out. How to use it is told in [capi.md](capi.md).
"""


class Undocumented(Exception):
    pass


class Group:
    """Declarations, and the paragraphs of the comment that they share."""

    def __init__(self, comment=()):
        self.comment = comment
        self.declarations = []  # "" for a blank line between two.
        self.types = []
        self.functions = []  # (line, name)

    def add(self, line, declaration):
        code = _COMMENT.sub("", declaration)
        named = _TYPE.match(code)
        function = _FUNCTION.search(code)
        if named:
            self.types.append(next(filter(None, named.groups())))
        elif function and not code.startswith("#"):
            self.functions.append((line, function.group(1)))
            declaration = _folded(_MACROS.sub("", declaration))
        self.declarations.append(declaration)

    def append(self, other):
        self.declarations += ["", *other.declarations]
        self.types += other.types
        self.functions += other.functions

    def is_of_types_in(self, other):
        return not other.functions and any(
            name.startswith(of + "_") for _, name in self.functions for of in other.types)

    @property
    def names(self):
        return self.types + [name for _, name in self.functions]

    @property
    def title(self):
        return ", ".join(self.names)


def _folded(function):
    """In one line, or its arguments in as few as they fill."""
    line = re.sub(r"\(\s+", "(", " ".join(function.split()))
    if len(line) <= _CODE_WIDTH:
        return line
    head, _, arguments = line.partition("(")
    glued = arguments.replace(" ", "\0").replace(",\0", ", ")
    filled = textwrap.fill(glued, _CODE_WIDTH, initial_indent="    ", subsequent_indent="    ",
                           break_long_words=False, break_on_hyphens=False)
    return f"{head}(\n{filled}".replace("\0", " ")


def _paragraphs(comment):
    lines = [re.sub(r"^\s*\*? *", "", line).rstrip()
             for line in comment.strip()[len("/*"):-len("*/")].strip().split("\n")]
    text = re.sub(r"(?<=\w-)\n", "", "\n".join(lines))  # A word that is cut at its hyphen.
    return [paragraph.replace("\n", " ") for paragraph in re.split(r"\n\n+", text)]


def parse(text, path):
    """The head's paragraphs, and (title, groups) of each section."""
    head, sections = None, []
    group = None  # That what comes next belongs to.
    for piece in _PIECE.finditer(text):
        if piece["title"]:
            sections.append((piece["title"], []))
            group = None
        elif piece["comment"] and head is None:
            head = _paragraphs(piece["comment"])
        elif not sections:
            continue
        elif piece["blank"]:
            group = None
        elif piece["comment"]:
            group = Group(_paragraphs(piece["comment"]))
            sections[-1][1].append(group)
        elif piece["declaration"]:
            line = text.count("\n", 0, piece.start()) + 1
            new = group is None
            group = group or Group()
            group.add(line, piece["declaration"].rstrip("\n"))
            groups = sections[-1][1]
            if new and groups and group.is_of_types_in(groups[-1]):
                groups[-1].append(group)
                group = groups[-1]
            elif new:
                groups.append(group)
    problems = [f"{path}:{line}: {name}: must have a comment, or share that of its neighbours above"
                for _, groups in sections for group in groups if not group.comment
                for line, name in group.functions]
    if problems:
        raise Undocumented("\n".join(problems))
    return head, sections


def _anchor(heading):
    """As GitHub's."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _prose(text, anchors, here=None):
    """A paragraph as Markdown; what it names has links, unless it is `here`."""

    def code(found):
        quoted = f"`{found.strip('`')}`"
        anchor = anchors.get(found.strip("`*"))
        return quoted if anchor in (None, here) else f"[{quoted}](#{anchor})"

    parts = _CODE.split(text)  # Every second one is code.
    return "".join(code(part) if i % 2 else _SPECIAL.sub(r"\\\g<0>", part) for i, part in enumerate(parts))


def _filled(text):
    number = re.match(r"\d+\. ", text)
    glued = _BEFORE_BULLET.sub("\0", text[number.end():] if number else text)
    return textwrap.fill(glued, _WIDTH, initial_indent=number.group() if number else "",
                         subsequent_indent=" " * len(number.group()) if number else "",
                         break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def page(text, path):
    head, sections = parse(text, path)
    anchors = {name: _anchor(group.title) for _, groups in sections for group in groups for name in group.names}
    blocks = [_HEAD.rstrip("\n")]
    blocks.append("\n".join(f"{number}. [{title}](#{_anchor(title)})"
                            for number, (title, _) in enumerate(sections, 1)))
    blocks += [_filled(_prose(paragraph, anchors)) for paragraph in head]
    for title, groups in sections:
        blocks.append(f"## {title}")
        for group in groups:
            if group.names:
                blocks.append(f"### {group.title}")
            blocks.append("\n".join(["```c", *group.declarations, "```"]))
            blocks += [_filled(_prose(paragraph, anchors, _anchor(group.title))) for paragraph in group.comment]
    return "\n\n".join(blocks) + "\n"


def main(path):
    try:
        with open(path, encoding="utf-8") as header:
            sys.stdout.write(page(header.read(), path))
    except Undocumented as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: capi_reference.py HEADER")
    main(sys.argv[1])
