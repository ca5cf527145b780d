#!/usr/bin/env bash
# A prefix with LibTorch in it needs no other.
set -euo pipefail
. tools/install/testing/prefix.sh

prefix=$TEST_TMPDIR/prefix
fail() {
  echo "$@"
  exit 1
}

# Over a link: the copy takes its place, and LibTorch itself isn't touched.
install_prefix "$prefix"
torch=$(readlink "$prefix/lib/grapnel/torch")
before=$(stat -c '%i %s %Y' "$torch"/lib/*)
install_prefix "$prefix" bundle
[ "$before" = "$(stat -c '%i %s %Y' "$torch"/lib/*)" ] || fail "LibTorch was changed"

links=$(find "$prefix" -type l)
[ "$links" = "$prefix/lib/libgrapnel.so" ] || fail "links:" $links
ls "$prefix"/share/doc/grapnel/torch-*/LICENSE >/dev/null || fail "no licence of LibTorch"

# Every library that comes to be loaded is the prefix's or the system's.
mkdir -p "$TEST_TMPDIR/outside"
cp tools/install/testing/fit_line.c "$TEST_TMPDIR/outside"
for module in grapnel grapnel-static; do
  flags=$(outside "$prefix" pkg-config --cflags --libs "$module")
  # shellcheck disable=SC2086
  outside "$prefix" cc fit_line.c $flags -o "$module"
  outside "$prefix" LD_DEBUG=files "./$module" "$module.work_dir" 2>"$TEST_TMPDIR/loaded"
  grep -oE 'calling init: .*' "$TEST_TMPDIR/loaded" | sed 's/calling init: //' |
    xargs realpath | sort -u >"$TEST_TMPDIR/paths"
  grep -q "^$(realpath "$prefix")/lib/grapnel/torch/lib/libtorch_cpu.so$" "$TEST_TMPDIR/paths" ||
    fail "$module loaded no LibTorch:" $(cat "$TEST_TMPDIR/paths")
  others=$(grep -vE "^(/usr)?/lib(64)?/|^$(realpath "$prefix")/" "$TEST_TMPDIR/paths") &&
    fail "$module loaded $others"
done
exit 0
