#!/usr/bin/env bash
# Writes docs/hooks.md into the checkout, or with --check says if it is old.
# Run by Bazel, in the folder of its inputs.
set -euo pipefail

new=$(mktemp)
trap 'rm -f "$new"' EXIT
tools/docs/hook_stages |
  python3 -B tools/docs/hooks_md.py runner/runner_config.proto hooks/*/*_hook.proto >"$new"

if [ "${1-}" != --check ]; then
  cp "$new" "$BUILD_WORKSPACE_DIRECTORY/docs/hooks.md"
  echo "wrote docs/hooks.md"
elif ! diff -u docs/hooks.md "$new"; then
  echo "docs/hooks.md isn't what the protos say. Write it anew: ./bazelw run //tools/docs:update_hooks_md"
  exit 1
fi
