#!/usr/bin/env bash
# Two ranks of a program in Go, and in Rust, come to the bits of `grapnel train`: what
# //tests/capi/runs:ranks_test asks of the one in C. And both tell an error of another rank
# from one of their own.
set -euo pipefail
. tests/bindings/programs.sh
. tests/capi/runs/ranks.sh
build_programs ranks

export OMP_NUM_THREADS=1
reference
for language in go rust; do
  check_ranks "$language" "${programs[$language]}"
  says "[rank 1] it is this rank's own"
  says "[rank 0] it is another rank's"
done
