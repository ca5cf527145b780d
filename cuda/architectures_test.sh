#!/usr/bin/env bash
# architectures_test.sh CUOBJDUMP ARCHITECTURES LIBRARY...
#
# Looks into each library: machine code for all architectures of the list, which
# is one a line, and intermediate code for the last of them.
set -euo pipefail

cuobjdump=$1
architectures=$2
shift 2

failed=0
for library in "$@"; do
  found=$("$cuobjdump" --list-elf --list-ptx "$library")
  expected=$(sed 's/$/.cubin/' "$architectures")$'\n'$(tail -n 1 "$architectures").ptx
  for code in $expected; do
    if ! grep -qF ".$code" <<<"$found"; then
      echo "$library has no $code; it has:"
      echo "$found"
      failed=1
    fi
  done
done
exit $failed
