#!/usr/bin/env bash
# The hook lets a good run pass and stops one that diverges, by its name.
set -euo pipefail

run() { # LEARNING_RATE
  examples/custom_hook/grapnel_with_check_loss train \
    examples/digits/digits.textproto --work-dir "$TEST_TMPDIR/run" \
    --cfg-options train_cfg.max_epochs=2 "optim_wrapper.optimizer={sgd {lr: $1}}" \
    'custom_hooks.0.config={[hooks/CheckLossHook] { interval: 5 }}' 2>&1
}

run 0.01 >/dev/null || {
  echo "a good run was stopped"
  exit 1
}
if output=$(run 1e30); then
  echo "a run that diverges was not stopped"
  exit 1
fi
grep -q 'hook "check_loss": AfterTrainIter: loss is not finite' <<<"$output" || {
  echo "$output"
  exit 1
}
