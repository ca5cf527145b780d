#!/usr/bin/env python3
"""Prints a test of each header's example, for //tests/header_examples: header_examples.py HEADER...

An example is the body of a function that returns absl::Status, in a comment:

  // Example:
  //
  //   GRAPNEL_RETURN_IF_ERROR(Open("here"));
  //   ...

It ends where the comment ends, or goes on beside the margin. A compiler and a
test that fails name the line of the header.
"""

import re
import sys

_BEGIN = re.compile(r"( *//) Example:")

_TEST = """\
#line {line} "{path}"
TEST_F(HeaderExamplesTest, {name}) {{ const auto example = []() -> absl::Status {{
{code}
return absl::OkStatus(); }}; EXPECT_THAT(example(), IsOk()); }}
"""


class NoExample(Exception):
    pass


def example_of(path, text):
    """The line of its first statement, and its lines, without the comment's margin."""
    lines = text.split("\n")
    begins = [i for i, line in enumerate(lines) if _BEGIN.fullmatch(line)]
    if len(begins) != 1:
        raise NoExample(f"{path}: must have one comment \"Example:\", has {len(begins)}")
    margin = _BEGIN.fullmatch(lines[begins[0]]).group(1)
    first = begins[0] + 1
    code = []
    for line in lines[first:]:
        if line != margin and not line.startswith(margin + "   "):
            break
        code.append(line[len(margin) + 3:])
    while code and not code[0]:
        code.pop(0)
        first += 1
    while code and not code[-1]:
        code.pop()
    if not code:
        raise NoExample(f"{path}:{begins[0] + 1}: the example is empty")
    return first + 1, code


def test_of(path, text):
    """The example of the header at `path` as a test."""
    line, code = example_of(path, text)
    name = "".join(part.capitalize() for part in re.split(r"\W|_", path[:-len(".h")]))
    return _TEST.format(line=line - 1, path=path, name=name, code="\n".join(code))


def main(paths):
    try:
        for path in paths:
            with open(path, encoding="utf-8") as header:
                print(test_of(path, header.read()))
    except NoExample as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main(sys.argv[1:])
