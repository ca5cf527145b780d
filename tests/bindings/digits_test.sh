#!/usr/bin/env bash
# The digits, trained from C, Go and Rust, at once, by steps and resumed: the same
# weights and metrics to the bit, and the same trace of a hook that is written in each.
# (From C++ and C: //tests/capi/runs:digits_test.)
set -euo pipefail
. tests/bindings/programs.sh
build_programs digits

trained=0
train() { # NAME STEPS RESUME
  local name=$1 steps=$2 resume=$3 language part
  mkdir -p "$TEST_TMPDIR/$name"
  for language in c go rust; do
    OMP_NUM_THREADS=1 "${programs[$language]}" examples/digits "$TEST_TMPDIR/$name/$language" \
      "$steps" "$resume" "$TEST_TMPDIR/$name/$language" || fail "$name: $language failed"
  done
  for part in trace weights metrics; do
    [ -s "$TEST_TMPDIR/$name/c.$part" ] || fail "$name: c.$part: nothing"
    for language in go rust; do
      cmp "$TEST_TMPDIR/$name/c.$part" "$TEST_TMPDIR/$name/$language.$part" ||
        fail "$name: $part of $language is another one"
    done
  done
  trained=$((trained + 1))
}

train at_once 0 0
train by_steps -1 0
train steps_and_the_rest 7 0
train resumed 30 1
cmp "$TEST_TMPDIR/at_once/c.weights" "$TEST_TMPDIR/resumed/c.weights"
echo "$trained trainings by each of ${!programs[*]}: $(wc -l <"$TEST_TMPDIR/at_once/c.trace") lines of trace, the same"
