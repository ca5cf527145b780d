#!/usr/bin/env bash
# What is in a prefix, and what must not be: the machine that it was built on.
#
#   contents_test.sh RECORD_OF_THE_ABI REGISTERED_CONFIGS PROTOC
set -euo pipefail
. tools/install/testing/prefix.sh

record=$1
registered_configs=$2
protoc=$3
prefix=$TEST_TMPDIR/prefix
failed=0
fail() {
  echo "$@"
  failed=1
}

install_prefix "$prefix"
torch=$(readlink "$prefix/lib/grapnel/torch")

# Neither LibTorch's folder, nor Bazel's, nor the user's. A link says where LibTorch is,
# and grep follows none.
[ -e "$torch/lib/libtorch_cpu.so" ] || fail "lib/grapnel/torch is no link to a LibTorch"
for where in "$torch" bazel-out execroot "$HOME" "$TEST_SRCDIR" "$TEST_TMPDIR"; do
  [ "$where" != / ] || continue
  found=$(grep -rlF -e "$where" "$prefix") && fail "\"$where\" is in" $found
done

# What is loaded looks in the prefix only.
for file in bin/grapnel lib/libgrapnel.so.0; do
  path=$(readelf -d "$prefix/$file" | sed -n 's/.*(R.*PATH).*\[\(.*\)\]/\1/p')
  for folder in ${path//:/ }; do
    case $folder in
      '$ORIGIN/'*) ;;
      *) fail "$file looks in $folder" ;;
    esac
  done
  [ -n "$path" ] || fail "$file has no RUNPATH"
  missing=$(outside "$prefix" ldd "$prefix/$file" | grep 'not found') && fail "$file:" $missing
done

# The program needs of a system what the library needs.
needed() {
  readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort
}
diff <(needed "$prefix/lib/libgrapnel.so.0") <(needed "$prefix/bin/grapnel") ||
  fail "libgrapnel.so (<) and grapnel (>) need different libraries"
exported=$(nm -D --defined-only "$prefix/bin/grapnel" | grep -E 'grapnel|google|absl') &&
  fail "grapnel shows" $exported

# The archive has the functions of the header, for others to see, and nothing else.
diff <(sed -n "s/.*<elf-symbol name='\([^']*\)'.*/\1/p" "$record" | sort) \
  <(nm --extern-only --defined-only "$prefix/lib/libgrapnel.a" |
    sed -n 's/^[0-9a-f]* . //p' | sort) ||
  fail "recorded (<) and in libgrapnel.a (>)"

# The .proto files are whole: they compile alone, and have whatever a config may name.
(cd "$prefix/share/grapnel/proto" && find grapnel -name '*.proto') >"$TEST_TMPDIR/protos"
"$protoc" -I "$prefix/share/grapnel/proto" --include_imports \
  --descriptor_set_out="$TEST_TMPDIR/protos.pb" $(cat "$TEST_TMPDIR/protos") || fail "protoc"
"$registered_configs" >"$TEST_TMPDIR/registered"
[ "$(wc -l <"$TEST_TMPDIR/registered")" -gt 20 ] || fail "too few configs are registered"
while read -r name; do
  package=${name%.*}
  grep -lrx "package $package;" "$prefix/share/grapnel/proto" |
    xargs -r grep -qx "message ${name##*.} {.*" || fail "no .proto has $name"
done <"$TEST_TMPDIR/registered"

# Links of its pages lead to what is there. (That this finds one that doesn't, too.)
[ -z "$(python3 -B tools/install/dead_links.py "$prefix")" ] ||
  fail "dead links:" "$(python3 -B tools/install/dead_links.py "$prefix")"
mkdir -p "$TEST_TMPDIR/pages"
printf 'See [a](a.md#b), `[c](c.md)` and [d](../d.md).\n\n    [e](e.md)\n' >"$TEST_TMPDIR/pages/a.md"
[ "$(python3 -B tools/install/dead_links.py "$TEST_TMPDIR/pages")" = "a.md: ../d.md" ] ||
  fail "dead_links.py finds" "$(python3 -B tools/install/dead_links.py "$TEST_TMPDIR/pages")"
for page in capi capi_reference go hooks install rust; do
  [ -s "$prefix/share/doc/grapnel/$page.md" ] || fail "no $page.md"
done

# Everybody may read it, whatever the umask was.
(umask 077 && install_prefix "$TEST_TMPDIR/private")
closed=$(find "$TEST_TMPDIR/private" ! -type l ! -perm -a+r) && [ -z "$closed" ] ||
  fail "not for everybody:" $closed

# Options, and a folder that starts where the user is.
BUILD_WORKING_DIRECTORY=$TEST_TMPDIR install_prefix relative "$torch"
[ -x "$TEST_TMPDIR/relative/bin/grapnel" ] || fail "--prefix relative went elsewhere"
[ "$(readlink "$TEST_TMPDIR/relative/lib/grapnel/torch")" = "$torch" ] || fail "--libtorch PATH"

exit $failed
