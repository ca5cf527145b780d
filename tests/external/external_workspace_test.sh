#!/usr/bin/env bash
# Builds workspace/, which uses Grapnel as other projects do, and runs its tests,
# by a Bazel of its own that is gone when this ends.
#
#   external_workspace_test.sh PROGRAM   a program that LibTorch is linked with
set -euo pipefail

program=$1
# Of the checkout: its files are no inputs of this test, see BUILD.
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
workspace=$here/workspace
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set: run with --test_env=HOME}/.cache}/grapnel
libtorch_cpu=$(ldd "$program" | sed -n 's/.*libtorch_cpu\.so => \([^ ]*\) .*/\1/p')
if [ ! -e "$workspace/WORKSPACE" ] || [ -z "$libtorch_cpu" ]; then
  echo "not run by Bazel in the checkout: workspace $workspace, LibTorch $libtorch_cpu"
  exit 1
fi

environment=(
  "PATH=$PATH" "HOME=$HOME"
  "LIBTORCH=$(dirname "$(dirname "$libtorch_cpu")")"
  GRAPNEL_SETUP=off # This machine has been set up.
)
[ -z "${XDG_CACHE_HOME:-}" ] || environment+=("XDG_CACHE_HOME=$XDG_CACHE_HOME")
startup=(
  --batch # No server stays behind, whatever ends this.
  --output_user_root="$cache/external"
  --host_jvm_args=-Xmx1g
)
options=(
  # As in the outer workspace's .bazelrc, and for the same reasons. A consumer can
  # do without.
  --strategy=CppCompile=local
  --incompatible_strict_action_env
  --nosandbox_debug
  # No links in the checkout.
  --symlink_prefix=/
  --noshow_progress --color=no --curses=no --test_output=errors
)

# What Bazel keeps for ever: the output of checkouts that are gone, and old logs.
for mark in "$cache"/external/*/DO_NOT_BUILD_HERE; do
  if [ -e "$mark" ] && [ ! -d "$(cat "$mark")" ]; then
    chmod -R u+w "$(dirname "$mark")"
    rm -rf "$(dirname "$mark")"
  fi
done
find "$cache/external" -maxdepth 2 -name 'java.log.*' -mtime +1 -delete 2>/dev/null || true

cd "$workspace"
env -i "${environment[@]}" ../../../bazelw "${startup[@]}" test //... "${options[@]}"
