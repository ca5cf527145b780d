"""Prints the relative links of the pages in a folder that lead nowhere, or out of it.

  dead_links.py FOLDER
"""

import os
import re
import sys

_LINK = re.compile(r"`[^`\n]*`|\]\(([^)\s]*)\)")


def dead_links(root):
    root = os.path.realpath(root)
    for folder, _, names in os.walk(root):
        for name in names:
            if not name.endswith(".md"):
                continue
            with open(os.path.join(folder, name), encoding="utf-8") as page:
                text = "\n".join(line for line in page if not line.startswith("    "))
            for link in _LINK.findall(text):
                path = link.partition("#")[0]
                if not path or "://" in path:
                    continue
                target = os.path.normpath(os.path.join(folder, path))
                if not target.startswith(root + os.sep) or not os.path.exists(target):
                    yield f"{os.path.relpath(os.path.join(folder, name), root)}: {link}"


if __name__ == "__main__":
    print("\n".join(dead_links(sys.argv[1])))
