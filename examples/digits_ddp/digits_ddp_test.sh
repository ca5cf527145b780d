#!/usr/bin/env bash
# Two processes learn the digits as well as one does, and a run with a process that was
# killed comes to the same weights, to the bit; from `grapnel launch -- train` and from a
# program of one's own.
set -euo pipefail

config=examples/digits_ddp/digits_ddp.textproto
out=$TEST_TMPDIR/out
err=$TEST_TMPDIR/err
export OMP_NUM_THREADS=1

fail() {
  echo "$@"
  cat "$out" "$err"
  exit 1
}

grapnel() { tools/grapnel "$@" >"$out" 2>"$err"; }

last_accuracy() { # WORK_DIR
  cat "$1"/*/vis_data/scalars.json | grep -o '"accuracy/top1": [0-9.]*' | tail -1 | cut -d' ' -f2
}

same_end() { # WORK_DIR WORK_DIR
  local file
  for file in model optimizer; do
    cmp "$1/epoch_20/$file.safetensors" "$2/epoch_20/$file.safetensors" || fail "$2: another $file than $1's"
  done
}

# The process that is rank 1 of what has this mark.
rank_1() { # MARK
  local environ
  for environ in /proc/[0-9]*/environ; do
    ! (tr '\0' '\n' <"$environ" | grep -cxE "RANK=1|MARK=$1" | grep -qx 2) 2>/dev/null ||
      basename "$(dirname "$environ")"
  done
}

# Kills rank 1 of a command that has got that far, and sets `code` to the command's.
kill_rank_1() { # WORK_DIR COMMAND...
  local pid mark=$1 pids="" end=$((SECONDS + 120))
  MARK=$mark "${@:2}" >"$out" 2>"$err" &
  pid=$!
  # Looked for before: that takes long enough for a run to end.
  while [ -z "$pids" ] && [ "$SECONDS" -lt "$end" ]; do
    sleep 0.05
    pids=$(rank_1 "$mark")
  done
  [ "$(wc -w <<<"$pids")" = 1 ] || fail "not one process to kill, but: $pids"
  # The newest: older ones are deleted.
  until grep -qE 'epoch_([3-9]|1[0-9])$' "$mark/last_checkpoint" 2>/dev/null; do
    [ "$SECONDS" -lt "$end" ] || fail "no epoch_3 after 120 s"
    sleep 0.05
  done
  kill -KILL "$pids"
  code=0
  wait "$pid" || code=$?
}

says() { # MESSAGE
  grep -qF "$1" "$err" || fail "it doesn't say: $1"
}

# ------------------------------------------------------------------ one and two

one=$TEST_TMPDIR/one
two=$TEST_TMPDIR/two
grapnel train examples/digits/digits.textproto --work-dir "$one" || fail "one process fails"
grapnel launch --nproc-per-node 2 -- train "$config" --work-dir "$two" || fail "two fail"
awk -v one="$(last_accuracy "$one")" -v two="$(last_accuracy "$two")" \
  'BEGIN { print "accuracy: " one " of one, " two " of two"; exit !(two > 96 && two > one - 1.5) }' ||
  fail "two processes learn less than one"

# What one process writes, two write once: but for the name of the best epoch.
files() { # WORK_DIR
  (cd "$1" && find . -type f | sed -E 's/[0-9]{8}_[0-9]{6}/TIME/g; s/(best_[a-z0-9_]*_)epoch_[0-9]+/\1EPOCH/' |
    sed 's/digits_ddp/digits/' | sort)
}
diff <(files "$one") <(files "$two") || fail "the files differ"
[ "$(grep -c 'Epoch(val)' "$two"/*/*.log)" = 20 ] || fail "not a line for each validation"

# ------------------------------------------------- killed, and gone on from by hand

killed=$TEST_TMPDIR/killed
kill_rank_1 "$killed" tools/grapnel launch --nproc-per-node 2 -- train "$config" --work-dir "$killed"
[ "$code" = 137 ] || fail "exit code $code and not 137"
says "rank 1 was killed by signal 9"
says "rank 1 ended without a message"
[ ! -e "$killed/epoch_20" ] || fail "it was killed too late"
grapnel launch --nproc-per-node 2 -- train "$config" --work-dir "$killed" --resume || fail "no resume"
says "resumed epoch"
same_end "$two" "$killed"

# ------------------------------------------- a program of one's own, started again

program=$TEST_TMPDIR/program
kill_rank_1 "$program" tools/grapnel launch --nproc-per-node 2 --max-restarts 1 \
  --program examples/digits_ddp/train -- "$program"
[ "$code" = 0 ] || fail "exit code $code"
says "restart 1 of 1"
says "resumed epoch"
[ "$(cat "$out")" = "$(printf 'accuracy %.6g' "$(last_accuracy "$two")")" ] || fail "not that accuracy"
! grep -q 'rank 1\] accuracy' "$err" || fail "both print it"
same_end "$two" "$program"

# Alone it is one process.
examples/digits_ddp/train "$TEST_TMPDIR/alone" train_cfg.max_epochs=1 >"$out" 2>"$err" || fail "alone it fails"
grep -q '^accuracy ' "$out" || fail "no accuracy"

# What is wrong with a rank's place is said by its name.
! RANK=0 examples/digits_ddp/train "$TEST_TMPDIR/bad" launcher=torchrun >"$out" 2>"$err" || fail "it trains"
says "launcher: WORLD_SIZE"
