#!/usr/bin/env bash
# A long training from Go and from Rust, with a dataset, a hook and a metric of theirs:
# memory doesn't grow after the first tenth, threads after 100 steps and over 16 runners
# more; nothing is alive at the end. As in //tests/capi/runs:soak_test for C.
set -euo pipefail
. tests/bindings/programs.sh
build_programs soak

for language in go rust; do
  OMP_NUM_THREADS=1 TMPDIR=$TEST_TMPDIR "${programs[$language]}" "${GRAPNEL_SOAK_ITERS:-5000}" \
    >"$TEST_TMPDIR/$language.json" || fail "$language failed"
  echo "$language: $(cat "$TEST_TMPDIR/$language.json")"
  python3 - "$TEST_TMPDIR/$language.json" <<'PY' || fail "$language: see above"
import json, sys
it = json.load(open(sys.argv[1]))
growth = it["resident_bytes_at_end"] / it["resident_bytes_after_tenth"]
# A short run hasn't yet met all that it will.
most = 1.01 if it["steps"] >= 100000 else 1.05
wrong = [what for what, holds in {
    f"memory grew by {growth:.4f}": growth < most,
    "more threads at the end than after 100 steps": it["threads_at_end"] <= it["threads_after_100"],
    "more threads after 16 runners": it["threads_after_16_runners"] <= it["threads_before_16_runners"],
    "more goroutines": it.get("goroutines_after", 0) <= it.get("goroutines_before", 0),
    "something is alive": it["live_objects_at_end"] == 0,
}.items() if not holds]
sys.exit("; ".join(wrong) or None)
PY
done
