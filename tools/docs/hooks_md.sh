#!/usr/bin/env bash
# Writes docs/hooks.md into the checkout, or with --check says if it is old.
# Run by Bazel, in the folder of its inputs: hooks_md.sh PROTOC [--check]
set -euo pipefail

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
"$1" -Igrapnel=. --include_source_info --include_imports --descriptor_set_out="$made/set" hooks/*/*_hook.proto
tools/docs/hooks_md "$made/set" >"$made/hooks.md"

if [ "${2-}" != --check ]; then
  cp "$made/hooks.md" "$BUILD_WORKSPACE_DIRECTORY/docs/hooks.md"
  echo "wrote docs/hooks.md"
elif ! diff -u docs/hooks.md "$made/hooks.md"; then
  echo "docs/hooks.md isn't what the protos say. Write it again: ./bazelw run //tools/docs:update_hooks_md"
  exit 1
fi
