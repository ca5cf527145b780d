"""Makes a program or library find its own at places that start with $ORIGIN only.

  relocatable.py FILE

Bazel's links have the absolute folder of LibTorch in them, as what is built is run where
it was built. In front of it RUNPATH has the folder in a prefix, by a linkopt. Here that
takes the place of the other, also where the other is the beginning of a longer path. It
is done in place: nothing moves in the file.
"""

import sys

import elf


def make_relocatable(path):
    file = elf.DynamicFile(path)
    folders = file.runpath()
    if len(folders) < 2 or not folders[0].startswith("$ORIGIN/"):
        raise elf.ElfError(f"{path}: RUNPATH isn't a folder in $ORIGIN and LibTorch's: {folders}")
    in_prefix, torch, *others = folders
    # CUDA's runtime: <LibTorch's folder>/../../nvidia/...
    others = [in_prefix + folder[len(torch):] for folder in others if folder.startswith(torch + "/")]
    file.shorten_runpath([in_prefix, *others])
    file.write()


if __name__ == "__main__":
    try:
        make_relocatable(sys.argv[1])
    except elf.ElfError as e:
        sys.exit(f"relocatable: {e}")
