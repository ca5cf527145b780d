#!/usr/bin/env python3
"""Dependencies point one way: each floor's queries print nothing.

  third_party < base < io < cuda, data, dist, loggers < optim < models < runner < hooks < capi

The rule is about code that ships: tests may look anywhere, and a config proto
is no code.
"""

import os
import subprocess
import sys

# Floors from below. Those in one group don't know each other.
FLOORS = [["base"], ["io"], ["cuda", "data", "dist", "loggers"], ["optim"], ["models"], ["runner"], ["hooks"],
          ["capi"]]
# Above all floors: programs, and what they are made of.
PROGRAMS = ["examples", "tests", "tools"]


def code(packages):
    return f'kind("cc_library rule", {packages}) except attr("testonly", "1", {packages})'


def floor_queries(packages):
    """(what is forbidden, query that must print nothing). `packages`: those there are."""
    queries = []
    for i, group in enumerate(FLOORS):
        above = [f for later in FLOORS[i + 1:] for f in later]
        for floor in group:
            beside = [f for f in group if f != floor]
            forbidden = [f for f in beside + above + PROGRAMS if f in packages]
            if floor not in packages or not forbidden:
                continue
            others = " + ".join(f"//{f}/..." for f in forbidden)
            queries.append((f"{floor} uses nothing of {', '.join(forbidden)}",
                            f'kind("cc_library rule", deps({code(f"//{floor}/...")})) intersect ({others})'))
    return queries


def hook_queries(hooks):
    return [(f"{hook} uses no other hook and not the runner",
             f'kind("cc_library rule", deps({code(f"//{hook}/...")})) intersect '
             f"((//hooks/... except //{hook}/...) + //runner:runner)")
            for hook in hooks]


def run_query(root, query):
    result = subprocess.run(["./bazelw", "query", "--noshow_progress", "--keep_going=false", query],
                            cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if result.returncode != 0:
        return ["bazel query failed: " + result.stderr.decode().strip()]
    return result.stdout.decode().split()


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def has_build(path):
        return any(name == "BUILD" for _, _, names in os.walk(os.path.join(root, path)) for name in names)
    packages = [p for p in sum(FLOORS, []) + PROGRAMS if has_build(p)]
    hooks = sorted(f"hooks/{name}" for name in os.listdir(os.path.join(root, "hooks"))
                   if os.path.isfile(os.path.join(root, "hooks", name, "BUILD")))
    failed = False
    for rule, query in floor_queries(packages) + hook_queries(hooks):
        for line in run_query(root, query):
            print(f"{rule}: {line}")
            failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
