#!/usr/bin/env bash
# Trainings from Go and from Rust, with a dataset of callbacks and a hook that has a
# state, killed at random: what //tests/capi/runs:kill_test asks of the one in C. And
# nobody disturbed, all three come to the same bytes.
set -euo pipefail
. tests/bindings/programs.sh
build_programs killed

for language in c go rust; do
  OMP_NUM_THREADS=1 "${programs[$language]}" "$TEST_TMPDIR/$language.alone" 200 "$TEST_TMPDIR/$language.outcome" ||
    fail "$language failed"
  cmp "$TEST_TMPDIR/c.outcome" "$TEST_TMPDIR/$language.outcome" || fail "$language comes to another end than C"
done

for language in go rust; do
  echo "== $language"
  mkdir -p "$TEST_TMPDIR/$language"
  TEST_TMPDIR=$TEST_TMPDIR/$language GRAPNEL_PROGRAM=${programs[$language]} tests/capi/runs/kill_test ||
    fail "$language: see above"
done
