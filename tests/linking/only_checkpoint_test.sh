#!/usr/bin/env bash
# A program that depends on //hooks/checkpoint alone has no other hook in it: by
# what is registered, and by what the linker put there.
set -euo pipefail

program=tests/linking/only_checkpoint

registered=$("$program")
[ "$registered" = grapnel.hooks.v1.CheckpointHookConfig ] || {
  echo "registered: $registered"
  exit 1
}

symbols=$(nm -C "$program")
grep -q 'grapnel::CheckpointHook::AfterTrainEpoch' <<<"$symbols" || {
  echo "nm doesn't show the hook that should be there"
  exit 1
}
if grep -E 'grapnel::(RuntimeInfo|IterTimer|DistSamplerSeed|Logger|ParamScheduler)Hook' <<<"$symbols"; then
  echo "other hooks are linked in"
  exit 1
fi
