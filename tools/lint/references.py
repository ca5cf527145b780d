#!/usr/bin/env python3
"""A file that a comment or a page refers to is in the repository.

Looked at: links of Markdown, and words that look like a path from the root:
"docs/resume.md", "grapnel/io/env.h", "//runner/hook.h". Generated headers and
what is in testdata don't count.
"""

import posixpath
import re

import tree

_FOLDERS = ("base", "capi", "cuda", "data", "dist", "docs", "examples", "hooks", "io", "loggers", "models", "optim",
            "runner", "tests", "third_party", "tools")
_PATH = re.compile(r"(?<![\w./<$-])(?:grapnel/)?((?:" + "|".join(_FOLDERS) +
                   r")/[\w./-]*\w\.(?:bzl|cc|cu|h|json|md|proto|py|sh|textproto))\b(?!/)")
_PAGE = re.compile(r"(?<![\w./-])([a-z]\w*\.md)\b")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
# MMEngine's.
_THEIRS = {"tools/train.py", "tools/test.py"}
_COMMENT = re.compile(r"(?:^|\s)(?://|#) (.*)")


def _exists(files, path):
    return path in files.paths or any(p.startswith(path.rstrip("/") + "/") for p in files.paths)


def _links(files, path, line):
    folder = posixpath.dirname(path)
    for target in _LINK.findall(line):
        if "://" in target or target.startswith("mailto:"):
            continue
        if not _exists(files, posixpath.normpath(posixpath.join(folder, target))):
            yield target


def check(files):
    pages = {posixpath.basename(p) for p in files.paths if p.endswith(".md")}
    problems = []
    for path in files.paths:
        if path.startswith(("tools/lint/", tree.EXTERNAL)) or not path.endswith(
                (".md", ".bzl", ".cc", ".cu", ".h", ".proto", ".py", ".sh", "BUILD")):
            continue
        for number, line in enumerate(files.text(path).split("\n"), 1):
            missing = []
            if path.endswith(".md"):
                if not line.startswith("    "):  # Code.
                    missing += _links(files, path, line)
                text = _LINK.sub("", line)
            else:
                comment = _COMMENT.search(line)
                text = comment.group(1) if comment else ""
            for found in _PATH.findall(text):
                if not found.endswith(".pb.h") and found not in _THEIRS and not _exists(files, found):
                    missing.append(found)
            missing += [page for page in _PAGE.findall(text) if page not in pages]
            problems += [f"{path}:{number}: there is no {name}" for name in missing]
    return problems


if __name__ == "__main__":
    tree.main(check)
