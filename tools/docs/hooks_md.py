#!/usr/bin/env python3
"""Prints docs/hooks.md: every hook with its options.

  hook_stages | hooks_md.py RUNNER_CONFIG_PROTO HOOK_PROTO...

What options mean is said once, in the comments of the protos; which slot a hook
has, in runner_config.proto; where it acts and when, by hook_stages.
"""

import re
import sys

HEAD = """# Hooks

Made from the hooks' protos: `./bazelw run //tools/docs:update_hooks_md` writes it anew.

A default hook is there as soon as its target is linked in, and is set in its slot of `default_hooks`, or left out with `off`,
where the hook's name is as good as the slot's. The others are named in `custom_hooks`:

    default_hooks { logger { interval: 50 } off: "timer" }
    custom_hooks { config { [hooks/EmptyCacheHook] { after_iter: true } } priority: "LOW" }

At each mount point hooks act in the order of their priorities, a smaller number first, and equals as they are listed in the config. The
loop with its mount points is drawn in [runner/stage.h](../runner/stage.h).
"""

PRIORITIES = {0: "HIGHEST", 10: "VERY_HIGH", 30: "HIGH", 40: "ABOVE_NORMAL", 50: "NORMAL", 60: "BELOW_NORMAL",
              70: "LOW", 90: "VERY_LOW", 100: "LOWEST"}


class Field:
    """An option, or a value of an enum (its type is then empty)."""

    def __init__(self, name, type_name, comment):
        self.name, self.type_name, self.comment = name, type_name, comment


class Block:
    """A message or an enum."""

    def __init__(self, kind, name, comment):
        self.kind, self.name, self.comment = kind, name, comment
        self.fields, self.blocks = [], []


_BLOCK = re.compile(r"(message|enum|oneof)\s+(\w+)\s*\{\s*(\})?")
_FIELD = re.compile(r"(?:(optional|repeated)\s+)?(map<[^>]*>|[\w.]+)\s+(\w+)\s*=\s*\d+\s*(?:\[[^]]*\])?;")
_VALUE = re.compile(r"(\w+)\s*=\s*\d+\s*;")
_SKIPPED = re.compile(r"(syntax|package|import|option|reserved)\b")


def _paragraphs(lines):
    """Lines of a comment to its paragraphs."""
    paragraphs = [[]]
    for line in lines:
        if line:
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    return [" ".join(p) for p in paragraphs if p]


def parse(text, path="proto"):
    """The messages of a proto file. ValueError, with the line, at what it doesn't know."""
    top = Block("file", path, [])
    open_blocks, comment = [top], []
    pending = ""  # A declaration that goes on in the next line.
    above = None  # The field in the line above, which may speak for this one.
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("//"):
            if not pending:
                comment.append(line[2:].strip())
            continue
        if not line:
            if not pending:
                comment, above = [], None  # It was about the file, or about nothing.
            continue
        code, _, trailing = line.partition(" // ")
        pending = (pending + " " + code.strip()).strip()
        if trailing:
            comment.append(trailing.strip())
        if pending[-1] not in ";{}":
            continue
        declaration, pending = pending, ""
        said, comment = _paragraphs(comment), []
        inside = open_blocks[-1]
        block = _BLOCK.fullmatch(declaration)
        field = _FIELD.fullmatch(declaration)
        value = _VALUE.fullmatch(declaration)
        if block:
            kind, name, closed = block.groups()
            made = Block(kind, name, said)
            if kind == "oneof":  # Its fields are the message's.
                made.fields = inside.fields
            else:
                inside.blocks.append(made)
            if not closed:
                open_blocks.append(made)
        elif declaration == "}":
            if len(open_blocks) == 1:
                raise ValueError(f"{path}:{number}: a }} too many")
            open_blocks.pop()
        elif inside.kind == "enum" and value:
            inside.fields.append(Field(value.group(1), "", said))
        elif field and inside.kind in ("message", "oneof"):
            label, type_name, name = field.groups()
            if inside.kind == "oneof":
                said.append(" ".join([f"One of `{inside.name}`."] + inside.comment))
            if not said and above:
                said = [f"See `{above.name}`."]
            above = Field(name, ("repeated " if label == "repeated" else "") + type_name, said)
            inside.fields.append(above)
        elif not _SKIPPED.match(declaration):
            raise ValueError(f"{path}:{number}: can't read \"{declaration}\"")
    if len(open_blocks) > 1 or pending:
        raise ValueError(f"{path}: ends inside a declaration")
    return top.blocks


def _cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")


def _table(block):
    lines = ["| option | type | meaning |", "|---|---|---|"]
    for field in block.fields:
        lines.append(f"| `{field.name}` | {_cell(field.type_name)} | {'<br>'.join(map(_cell, field.comment))} |")
    return lines


def _enum(block):
    return [f"* `{v.name}`" + (f": {_cell(' '.join(v.comment))}" if v.comment else "")
            for v in block.fields if not v.name.endswith("UNSPECIFIED")]


def _nested(block, prefix):
    lines = []
    for inner in block.blocks:
        lines += ["", f"{prefix}`{inner.name}`" + (f": {_cell(inner.comment[0])}" if inner.comment else ""), ""]
        lines += [_cell(p) for p in inner.comment[1:]]
        lines += _enum(inner) if inner.kind == "enum" else _table(inner)
        lines += _nested(inner, prefix)
    return lines


def slots(runner_config):
    """Config message's last name to the slot of default_hooks that it is set in."""
    defaults = [b for b in parse(runner_config, "runner_config.proto") if b.name == "DefaultHooksConfig"]
    names = {}
    for f in defaults[0].fields:
        if f.type_name.endswith("HookConfig"):
            # A second one is the hook's own name for it.
            names.setdefault(f.type_name.rpartition(".")[2], f.name)
    return names


def render(stage_lines, slot_of, messages):
    """The page. `messages`: config's last name to its Block."""
    hooks = []
    for line in stage_lines:
        config, name, target, priority, points = line.rstrip("\n").split("\t")
        hooks.append((config.rpartition(".")[2], name, target, int(priority), points.split()))
    hooks.sort(key=lambda hook: (hook[0] not in slot_of, hook[3], hook[1]))

    page = [HEAD, "| hook | target | in the config | priority |", "|---|---|---|---|"]
    for config, name, target, priority, _ in hooks:
        where = f"slot `{slot_of[config]}`" if config in slot_of else f"`[hooks/{config[:-len('Config')]}]`"
        number = f"{PRIORITIES[priority]} {priority}" if priority in PRIORITIES else str(priority)
        page.append(f"| [{name}](#{name}) | `{target}` | {where} | {number} |")
    for config, name, _, _, points in hooks:
        message = messages[config]
        page += ["", f"## {name}", ""]
        page += ["\n\n".join(_cell(p) for p in message.comment), ""]
        page += ["Acts at " + ", ".join(points) + "."]
        if message.fields:
            page += [""] + _table(message)
        page += _nested(message, "")
    return "\n".join(page) + "\n"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        slot_of = slots(file.read())
    messages = {}
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as file:
            messages.update((block.name, block) for block in parse(file.read(), path))
    sys.stdout.write(render(sys.stdin.readlines(), slot_of, messages))


if __name__ == "__main__":
    main()
