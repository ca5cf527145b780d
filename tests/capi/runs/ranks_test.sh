#!/usr/bin/env bash
# Two ranks of a program by the C API come to the weights, to the bit, of two of
# `grapnel train`, know their places, and end with the error of one of them.
set -euo pipefail
. tests/capi/runs/ranks.sh

export OMP_NUM_THREADS=1
reference
check_ranks c tests/capi/runs/ranks

# Not started by a launcher, "auto" is one process; what another one lacks is named.
tests/capi/runs/ranks "$config" "$TEST_TMPDIR/alone" "$TEST_TMPDIR/alone" -1 || fail "alone it fails"
grep -qx 'runner: rank 0 of 1, local 0, master 1' "$TEST_TMPDIR/alone.0.trace" || fail "not alone"
sed 's/"auto"/"torchrun"/; s|"../digits|"'"$PWD"'/examples/digits|' "$config" >"$TEST_TMPDIR/torchrun.textproto"
! tests/capi/runs/ranks "$TEST_TMPDIR/torchrun.textproto" "$TEST_TMPDIR/bad" "$TEST_TMPDIR/bad" -1 2>"$err" ||
  fail "it trains without a launcher"
says "ranks: launcher: WORLD_SIZE: is missing"
[ ! -e "$TEST_TMPDIR/bad" ] || fail "it leaves a work_dir"
