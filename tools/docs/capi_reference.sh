#!/usr/bin/env bash
# Writes docs/capi_reference.md into the checkout, or with --check says if it is old.
# Run by Bazel, in the folder of its inputs: capi_reference.sh [--check]
set -euo pipefail

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -B tools/docs/capi_reference.py capi/include/grapnel/grapnel.h >"$made/capi_reference.md"

if [ "${1-}" != --check ]; then
  cp "$made/capi_reference.md" "$BUILD_WORKSPACE_DIRECTORY/docs/capi_reference.md"
  echo "wrote docs/capi_reference.md"
elif ! diff -u docs/capi_reference.md "$made/capi_reference.md"; then
  echo "docs/capi_reference.md isn't what grapnel.h says. Write it again:" \
    "./bazelw run //tools/docs:update_capi_reference"
  exit 1
fi
