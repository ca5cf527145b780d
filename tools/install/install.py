"""Writes Grapnel into a prefix: program, header, libraries, and what others find them by.

Run by install.sh in Bazel's folder of inputs, by `./bazelw run //tools/install -- ...`.
docs/install.md tells what comes out.
"""

import argparse
import os
import signal
import sys

import elf
import libtorch
import pages
from prefix import InstallError, Staging, is_loaded

_LAYOUT = "tools/install/layout.txt"
_LINKED = "capi/libgrapnel.so"


class _Once(argparse.Action):
    """Stores the value of an option that may be given once."""

    def __call__(self, parser, namespace, value, option_string=None):
        given = namespace.__dict__.setdefault("_given", set())
        if self.dest in given:
            parser.error(f"{option_string}: is given twice")
        given.add(self.dest)
        setattr(namespace, self.dest, value)


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="install", allow_abbrev=False,
        usage="install --prefix DIR [--libtorch bundle|link|PATH]",
        description="Writes Grapnel into a prefix, which may then be moved.")
    parser.add_argument(
        "--prefix", required=True, metavar="DIR", action=_Once,
        help="where to; made if it isn't there")
    parser.add_argument(
        "--libtorch", default="bundle", metavar="bundle|link|PATH", action=_Once,
        help="what lib/grapnel/torch is: \"bundle\", the default, copies what is needed of the "
             "LibTorch that Grapnel was built with; \"link\" is a link to it; PATH, with a \"/\" "
             "in it, one to another of the same version")
    options = parser.parse_args(arguments)
    if not options.prefix:
        parser.error("--prefix: is empty")
    for name in ("prefix", "libtorch"):
        value = getattr(options, name)
        if value.startswith("~"):
            parser.error(f"--{name}: no shell has replaced the \"~\": "
                         f"give --{name} {value}, without \"=\" and quotes")
    if options.libtorch not in ("bundle", "link") and "/" not in options.libtorch:
        parser.error("--libtorch: must be bundle, link or a path with a \"/\", "
                     f"is \"{options.libtorch}\"")
    return options


def _stage(staging, layout):
    """Adds what the layout lists. Returns the programs and libraries among it that are loaded."""
    with open(layout, encoding="utf-8") as lines:
        listed = [line.rstrip("\n").split("\t") for line in lines]
    sources = {line[1]: line[0] for line in listed if line[1] != "->"}
    for path, source, *target in listed:
        if source == "->":
            staging.link(path, *target)
        elif path.endswith(".md"):
            with open(source, encoding="utf-8") as page:
                staging.write(path, pages.relinked(page.read(), source, sources))
        else:
            staging.add(path, source)
    return [source for path, source, *_ in listed if source != "->" and is_loaded(path)]


def install(prefix, choice, layout, linked):
    """Installs what `layout` lists, with the LibTorch that `linked` was linked with or another.

    Returns a line about LibTorch.
    """
    with Staging(prefix) as staging:
        loaded = _stage(staging, layout)
        if choice == "bundle":
            size = libtorch.bundle(staging, linked, loaded)
            told = f"{size / 2**20:.0f} MiB of LibTorch's libraries"
        else:
            torch = libtorch.built_with(linked) if choice == "link" else os.path.abspath(choice)
            libtorch.link(staging, torch, linked)
            told = f"a link to the LibTorch {torch}"
        staging.publish()
    return told


def _from_where_the_user_is(path):
    return os.path.join(os.environ.get("BUILD_WORKING_DIRECTORY", ""), path)


def main(arguments):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = _parse(arguments)
    prefix = os.path.abspath(_from_where_the_user_is(options.prefix))
    choice = options.libtorch
    if "/" in choice:
        choice = _from_where_the_user_is(choice)
    try:
        told = install(prefix, choice, _LAYOUT, _LINKED)
    except (InstallError, elf.ElfError) as e:
        return f"install: {e}"
    except OSError as e:
        return f"install: {e.filename2 or e.filename or prefix}: {e.strerror}"
    except KeyboardInterrupt:
        print("install: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"installed into {prefix}, with {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
