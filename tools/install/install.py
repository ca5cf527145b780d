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
from prefix import InstallError, Staging

_LAYOUT = "tools/install/layout.txt"
_LINKED = "capi/libgrapnel.so"


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="install", allow_abbrev=False,
        usage="install --prefix DIR [--libtorch bundle|link|PATH]",
        description="Writes Grapnel into a prefix, which may then be moved.")
    parser.add_argument(
        "--prefix", required=True, metavar="DIR", help="where to; made if it isn't there")
    parser.add_argument(
        "--libtorch", default="bundle", metavar="bundle|link|PATH",
        help="what lib/grapnel/torch is: \"bundle\", the default, copies what is needed of the "
             "LibTorch that Grapnel was built with; \"link\" is a link to it; PATH, with a \"/\" "
             "in it, one to another of the same version")
    options = parser.parse_args(arguments)
    if not options.prefix:
        parser.error("--prefix: is empty")
    if options.libtorch not in ("bundle", "link") and "/" not in options.libtorch:
        parser.error("--libtorch: must be bundle, link or a path with a \"/\", "
                     f"is \"{options.libtorch}\"")
    return options


def _stage(staging, layout):
    """Adds what the layout lists. Returns the programs and libraries among it that are loaded."""
    loaded = []
    with open(layout, encoding="utf-8") as lines:
        for line in lines:
            path, *source = line.rstrip("\n").split("\t")
            if source[0] == "->":
                staging.link(path, source[1])
                continue
            staging.add(path, source[0])
            if path.startswith("bin/") or ".so" in os.path.basename(path):
                loaded.append(source[0])
    return loaded


def install(prefix, choice, layout, linked):
    """Installs what `layout` lists, with the LibTorch that `linked` was linked with or another.

    Returns a line about LibTorch.
    """
    with Staging(prefix) as staging:
        loaded = _stage(staging, layout)
        if choice == "bundle":
            size = libtorch.bundle(staging, libtorch.built_with(linked), loaded)
            told = f"{size / 2**20:.0f} MiB of LibTorch's libraries"
        else:
            torch = libtorch.built_with(linked) if choice == "link" else os.path.abspath(choice)
            libtorch.link(staging, torch)
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
