"""Links of pages that are shipped: in a prefix files lie elsewhere, and many aren't there."""

import os
import re

# A span of code, or a link: its text and what it says.
_SPAN = re.compile(r"`[^`]*`|\[([^\]]*)\]\(([^)\s]*)\)")


def relinked(text, source, shipped):
    """The page `source` with links to where files are in the prefix.

    `shipped` has each file's path in the prefix by its path in the checkout. A link to a file that
    isn't there becomes its text.
    """
    place = os.path.dirname(shipped[source])

    def replace(span):
        if span.group(2) is None:
            return span.group()
        name, fragment, part = span.group(2).partition("#")
        if not name or "://" in name:
            return span.group()
        target = shipped.get(os.path.normpath(os.path.join(os.path.dirname(source), name)))
        if target is None:
            return span.group(1)
        return f"[{span.group(1)}]({os.path.relpath(target, place)}{fragment}{part})"

    # Indented lines are code.
    return "\n".join(line if line.startswith("    ") else _SPAN.sub(replace, line)
                     for line in text.split("\n"))
