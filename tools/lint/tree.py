"""The files that the linters look at, and what is in them."""

import os
import re
import subprocess
import sys

CPP = (".h", ".c", ".cc", ".cu")

# A workspace of its own, which plays a consumer.
EXTERNAL = "tests/external/workspace/"


class Tree:
    """Files by their path below the root of the repository."""

    def __init__(self, root, paths):
        self.root = root
        self.paths = sorted(paths)

    @classmethod
    def of_repository(cls):
        """What git tracks, and what it would if it were added."""
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root, check=True, stdout=subprocess.PIPE).stdout.decode()
        paths = [p for p in set(listed.split("\0")) if p and os.path.isfile(os.path.join(root, p))]
        return cls(root, paths)

    def text(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as f:
            return f.read()

    def select(self, *suffixes):
        """Paths of ours with these endings."""
        return [p for p in self.paths if p.endswith(suffixes) and not p.startswith(EXTERNAL)]


_CPP_TOKEN = re.compile(
    r"""//[^\n]*
      | /\*.*?\*/
      | R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)"
      | "(?:\\.|[^"\\\n])*"
      | '(?:\\.|[^'\\\n])+'
    """, re.VERBOSE | re.DOTALL)


def code_of(text):
    """C++ without its comments and the content of its strings, line by line.

    Includes stay as they are.
    """
    def blank(match):
        token = match.group(0)
        if token[0] == '"':
            line_start = text.rfind("\n", 0, match.start()) + 1
            if re.match(r"\s*#\s*include\b", text[line_start:match.start()]):
                return token
        # 1'000'000 is a number.
        if token[0] == "'" and match.start() > 0 and text[match.start() - 1].isalnum():
            return token
        return ("\"\"" if token[0] in "\"R" else " ") + "\n" * token.count("\n")
    return _CPP_TOKEN.sub(blank, text)


def includes_of(text):
    """(line number, what is included), of "..." and <...> alike."""
    found = []
    for number, line in enumerate(code_of(text).split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if match:
            found.append((number, match.group(1)))
    return found


def main(check):
    """Runs `check` on the repository and ends the program."""
    problems = check(Tree.of_repository())
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)
