#!/usr/bin/env python3
"""C++ is as clang-format leaves it, BUILD files are as buildifier does."""

import os
import re
import shutil
import subprocess

import tree


def _buildifier():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    installed = os.path.join(cache, "grapnel", "bin", "buildifier")
    return installed if os.access(installed, os.X_OK) else shutil.which("buildifier")


def _run(files, tool, *arguments):
    result = subprocess.run([tool, *arguments], cwd=files.root, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    return result.returncode, result.stdout.decode()


def _check_cpp(files, paths):
    tool = shutil.which("clang-format")
    if tool is None:
        return ["clang-format is missing: run ./bazelw setup --all"]
    code, output = _run(files, tool, "--dry-run", "-Werror", *paths)
    bad = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error:", output, re.MULTILINE)))
    if code != 0 and not bad:
        return [output.strip()]
    return [f"{path}: run clang-format -i on it" for path in bad]


def _check_build(files, paths):
    tool = _buildifier()
    if tool is None:
        return ["buildifier is missing: run ./bazelw setup --all"]
    code, output = _run(files, tool, "-mode=check", *paths)
    return [f"{line}: run buildifier on it" for line in output.strip().split("\n")] if code != 0 else []


def check(files):
    problems = []
    cpp = files.select(*tree.CPP)
    if cpp:
        problems += _check_cpp(files, cpp)
    build = [p for p in files.paths
             if os.path.basename(p) in ("BUILD", "WORKSPACE") or p.endswith(".bzl")]
    if build:
        problems += _check_build(files, build)
    return problems


if __name__ == "__main__":
    tree.main(check)
