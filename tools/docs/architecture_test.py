#!/usr/bin/env python3
"""docs/architecture.md is true: checks it against the code, and tests the check.

A way in it is a heading, "## The way of a batch: 12 calls, 4 deep", and a list:

  1. `Loop::Run` (runner/loop.cc): one step after another
     1. `Step` (runner/step.cc): ...
     2. `Hook::After` (hooks/hook.cc), by `kAfter`: ...

Each function is defined in its file. Those that are indented under another are
called by its body, in this order: by name, or where that isn't possible by what
stands in the body instead. Who calls those that aren't indented, it doesn't say.
"""

import os
import re
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "lint"))
import floors
import tree

_WAY = re.compile(r"## The way of .*: (\d+) calls, (\d+) deep")
_STEP = re.compile(r"( *)(\d+)\. `([\w:]+)` \(([\w./]+)\)(?:, by `([^`]+)`)?: \S")
_NUMBERED = re.compile(r" *\d+\. ")
_NAMED = re.compile(r"`([\w:]+)` \((\w[\w/]*\.(?:h|cc|cu))\)")
_INDENT = 3
_CLOSING = {"(": ")", "{": "}"}
# What may stand between a function's parameters and its body.
_QUALIFIERS = re.compile(r"\s*(?:(?:const|override|final|noexcept)\b\s*|\w+\([^()]*\)\s*)*\{")


class Step:
    def __init__(self, line, name, path, by):
        self.line, self.name, self.path = line, name, path
        self.call = re.compile(re.escape(by) if by else rf"(?<!\w){name.rpartition('::')[2]}\s*(?:<[^<>;]*>)?\s*\(")
        self.called = []  # The steps under it.


def _end(code, begin):
    """The end of what the bracket at `begin` opens."""
    opening, depth = code[begin], 0
    for match in re.finditer(f"[{opening}{_CLOSING[opening]}]", code[begin:]):
        depth += 1 if match.group() == opening else -1
        if depth == 0:
            return begin + match.end()
    return len(code)


def bodies(code, name):
    """The bodies of the functions of that name: "Function", "Class::Function" or "namespace::Function"."""
    scope, _, last = name.rpartition("::")
    places = [(0, len(code), re.escape(name))]
    for match in re.finditer(rf"\b(?:class|struct|namespace)\s+{scope}\b[^;{{}}()]*\{{", code) if scope else ():
        places.append((match.end(), _end(code, match.end() - 1), last))
    found = []
    for begin, end, spelled in places:
        for match in re.compile(rf"(?<![\w:.>~]){spelled}\s*\(").finditer(code, begin, end):
            behind = _QUALIFIERS.match(code, _end(code, match.end() - 1))
            if behind:
                found.append(code[behind.end():_end(code, behind.end() - 1)])
    return found


def _check_calls(step, body):
    problems, place, before = [], 0, None
    for called in step.called:
        match = called.call.search(body, place)
        if match:
            place, before = match.end(), called
        elif called.call.search(body):
            problems.append((called.line, f"{step.name} calls {called.name} before {before.name}"))
        else:
            problems.append((called.line, f"{step.name} doesn't call {called.name}"))
    return problems


class Document:
    """What a document says, and (line, problem) of what can't be read in it."""

    def __init__(self, text):
        self.ways = []  # [line, [calls, deep] as it says, [calls, deep] as it is]
        self.steps = []
        self.names = []  # (line, name, path): in the text around the ways.
        self.problems = []
        self._lists = [[]]  # Those that the next step may be added to, by their depth.
        for number, line in enumerate(text.split("\n"), 1):
            self._read(number, line)

    def _read(self, number, line):
        way, step = _WAY.fullmatch(line), _STEP.match(line)
        if line.startswith("#"):
            self._lists = [[]]
        if way:
            self.ways.append([number, [int(n) for n in way.groups()], [0, 0]])
        elif step and self.ways:
            self._add(Step(number, *step.groups()[2:]), len(step.group(1)), int(step.group(2)))
        elif line.startswith("## The way") or _NUMBERED.match(line):
            self.problems.append((number, f"can't read \"{line.strip()}\""))
        else:
            self.names += [(number, *named) for named in _NAMED.findall(line)]

    def _add(self, step, indent, ordinal):
        depth = indent // _INDENT
        self.steps.append(step)
        counted = self.ways[-1][2]
        counted[:] = counted[0] + 1, max(counted[1], depth + 1)
        if indent % _INDENT or depth >= len(self._lists):
            self.problems.append((step.line, "is indented wrong"))
            return
        siblings = self._lists[depth]
        siblings.append(step)
        if ordinal != len(siblings):
            self.problems.append((step.line, f"is number {len(siblings)}"))
        self._lists[depth + 1:] = [step.called]


def check(text, read):
    """What is wrong, in lines "12: ...". `read`: a path's code, None if there is no such file."""
    document = Document(text)
    problems = list(document.problems)
    for line, said, counted in document.ways:
        if said != counted:
            problems.append((line, f"there are {counted[0]} calls, {counted[1]} deep"))
    for line, name, path in document.names:
        code = read(path) or ""
        if not bodies(code, name) and not re.search(rf"\b(?:class|struct)\s+{name}\b", code):
            problems.append((line, f"{path} doesn't define {name}"))
    for step in document.steps:
        found = bodies(read(step.path) or "", step.name)
        if found:  # Of overloads the one that is meant.
            problems += min((_check_calls(step, body) for body in found), key=len)
        else:
            problems.append((step.line, f"{step.path} doesn't define {step.name}"))
    return [f"{line}: {problem}" for line, problem in sorted(problems)]


def read_checkout(path):
    try:
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            return tree.code_of(file.read())
    except OSError:
        return None


class DocumentTest(unittest.TestCase):

    def setUp(self):
        with open(os.path.join(ROOT, "docs", "architecture.md"), encoding="utf-8") as file:
            self.document = file.read()

    def test_says_what_the_code_does(self):
        problems = check(self.document, read_checkout)
        self.assertFalse(problems, "".join(f"\ndocs/architecture.md:{problem}" for problem in problems))

    def test_has_the_floors_of_the_linter(self):
        self.assertIn("third_party < " + " < ".join(", ".join(group) for group in floors.FLOORS) + "\n", self.document)


LOOP = """
// Stop() is called elsewhere.
Status Loop::Run(int n) {
  if (!Ready()) { return Fail("Stop("); }
  RETURN_IF_ERROR(hooks.Call(kBefore, [&] { return list.Next<int>(n); }));
  return Step(n);
}

namespace inner {
template <typename T>
class List {
  T Next(int n) const GUARDED_BY(mutex_) { return n; }
};
Status Step(int n);
}  // namespace inner
"""
STEP = "Status Step(int n) { return Ok(n); }  Status Before() { return Step(1); }"
DOCUMENT = """
`Before` (step.cc) is called by `List` (loop.cc), says the text.

## The way of a test: 4 calls, 2 deep

1. `Loop::Run` (loop.cc): runs
   1. `Before` (step.cc), by `kBefore`: comes first
   2. `List::Next` (loop.cc): the next
      one of all
   3. `Step` (step.cc): the last
"""


class CheckTest(unittest.TestCase):

    def problems(self, change="", to=""):
        """With `change` in code or document."""
        loop, step, document = (text.replace(change, to) if change else text for text in (LOOP, STEP, DOCUMENT))
        code = {"loop.cc": tree.code_of(loop), "step.cc": tree.code_of(step)}
        return check(document, code.get)

    def test_true_document(self):
        self.assertEqual(self.problems(), [])

    def test_planted_mistakes(self):
        for change, to, problem in [
                # In the code.
                ("Loop::Run(int", "Loop::Go(int", "6: loop.cc doesn't define Loop::Run"),
                ("return Step(n)", "return NextStep(n)", "10: Loop::Run doesn't call Step"),
                ("return Step(n)", "// Step(n)", "10: Loop::Run doesn't call Step"),
                ("list.Next<int>(n)", "Ok()", "8: Loop::Run doesn't call List::Next"),
                ("hooks.Call(kBefore", "hooks.Call(kAfter", "7: Loop::Run doesn't call Before"),
                ("T Next(int n)", "T Other(int n)", "8: loop.cc doesn't define List::Next"),
                ("{ return n; }\n};", ";\n};", "8: loop.cc doesn't define List::Next"),
                ("Status Before() {", "Status Behind() {", "7: step.cc doesn't define Before"),
                # In the document.
                ("4 calls", "5 calls", "4: there are 4 calls, 2 deep"),
                ("2 deep", "3 deep", "4: there are 4 calls, 2 deep"),
                (": 4 calls, 2 deep", "", "4: can't read \"## The way of a test\""),
                ("(step.cc): the last", "(gone.cc): the last", "10: gone.cc doesn't define Step"),
                ("3. `Step`", "3. Step", "10: can't read \"3. Step (step.cc): the last\""),
                ("3. `Step`", "4. `Step`", "10: is number 3"),
                ("3. `Step`", " 3. `Step`", "10: is indented wrong"),
                ("3. `Step`", "      1. `Step`", "10: is indented wrong"),
                ("`List::Next` (loop.cc)", "`Step` (step.cc)", "10: Loop::Run calls Step before Step"),
                ("`List` (loop.cc),", "`Lost` (loop.cc),", "2: loop.cc doesn't define Lost")]:
            with self.subTest(change=change, to=to):
                self.assertIn(problem, self.problems(change, to))


if __name__ == "__main__":
    unittest.main()
