#!/usr/bin/env python3
"""No file knows the machine that it was written on, or where packages come from.

Packages come in by name through their ordinary clients, which know their own
servers; a path of one machine means nothing on another.
"""

import re

import tree

_HOSTS = ["pypi.org", "pythonhosted.org", "proxy.golang.org", "sum.golang.org", "static.crates.io",
          "index.crates.io", "registry.npmjs.org", "deb.debian.org", "archive.ubuntu.com",
          "repo.maven.apache.org", "repo1.maven.org", "mirror.bazel.build", "download.pytorch.org",
          "conda.anaconda.org", "ghcr.io", "docker.io",
          "packages.example"]  # Nobody's: for lint_test.
_HOST = re.compile(r"(?<![\w.-])(?:[\w-]+\.)*(?:" + "|".join(map(re.escape, _HOSTS)) + r")(?![\w-])")
_INDEX = re.compile(r"--(?:extra-)?index-url|--trusted-host|\bGOPROXY=(?!off(?![\w,|]))|\bPIP_INDEX_URL\b")
_LOCAL = re.compile(r"(?<![\w.$}/~-])/(?:work|root)/[\w.]")


def check(files):
    problems = []
    for path in files.paths:
        if path.startswith("tools/lint/"):  # Which has to name them.
            continue
        text = files.text(path)
        if "\0" in text:
            continue
        for number, line in enumerate(text.split("\n"), 1):
            for pattern, what in ((_HOST, "a package server"), (_INDEX, "a package server"),
                                  (_LOCAL, "a path of one machine")):
                match = pattern.search(line)
                if match:
                    problems.append(f"{path}:{number}: \"{match.group(0)}\" is {what}")
    return problems


if __name__ == "__main__":
    tree.main(check)
