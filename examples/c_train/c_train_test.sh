#!/usr/bin/env bash
# The program trains, says what is wrong in the way of a command, and goes on
# after it was stopped.
set -euo pipefail

out=$TEST_TMPDIR/out
err=$TEST_TMPDIR/err
data=examples/digits

fail() {
  echo "$1"
  cat "$out" "$err"
  exit 1
}

# Runs the program, which has to end so.
run() { # EXIT_CODE ARGUMENT...
  local expected=$1 code=0
  shift
  examples/c_train/train "$@" >"$out" 2>"$err" || code=$?
  [ "$code" = "$expected" ] || fail "exit code $code and not $expected: train $*"
}

train() { # EXIT_CODE WORK_DIR ARGUMENT...
  run "$1" examples/c_train/c_train.textproto "$data" work_dir="$TEST_TMPDIR/$2" "${@:3}"
}

says() { # MESSAGE
  grep -qF "$1" "$err" || fail "it doesn't say: $1"
}

# More than nine of ten digits by writers that it has never seen.
train 0 whole
[ "$(grep -c '^epoch ' "$out")" = 8 ] || fail "not a line for each epoch"
awk '$1 == "accuracy" && $2 > 90 { good = 1 } END { exit !good }' "$out" || fail "not accurate enough"
cp "$out" "$TEST_TMPDIR/whole.out"

# What was trained in two parts is the same. The second one begins with the
# validation that the checkpoint was saved before.
train 0 parts train_cfg.max_epochs=3
train 0 parts --resume
diff "$out" <(sed -n '3,$p' "$TEST_TMPDIR/whole.out") || fail "the parts differ from the whole"

# A signal stops it; it is saved, and goes on where it was.
examples/c_train/train examples/c_train/c_train.textproto "$data" work_dir="$TEST_TMPDIR/stopped" \
  train_cfg.max_epochs=100000 >"$out" 2>"$err" &
pid=$!
for ((i = 0; i < 600; ++i)); do
  ! grep -q '^epoch 2 ' "$out" || break
  sleep 0.1
done
kill -TERM "$pid" || fail "it ended by itself"
code=0
wait "$pid" || code=$?
[ "$code" = 143 ] || fail "exit code $code after SIGTERM"
says "train: stopped; --resume goes on"
last=$(awk '/^epoch / { n = $2 } END { print n }' "$out")
train 0 stopped --resume train_cfg.max_epochs=$((last + 2))
first=$(awk '/^epoch / { print $2; exit }' "$out")
[ "$first" = $((last + 1)) ] || fail "it went on with epoch $first after $last"
grep -q "^epoch $((last + 2)) of $((last + 2)):" "$out" || fail "it didn't go on to the end"

# What is wrong with the command line, config or data.
run 2
says "usage: train CONFIG DATA_DIR"
run 2 no/such.textproto "$data"
says "train: no/such.textproto: cannot open"
run 2 examples/c_train/c_train.textproto no/such
says "train: no/such/train-images-idx3-ubyte: No such file or directory"
train 2 bad train_cfg.max_epoch=3
says 'did you mean "max_epochs"?'
train 2 bad --no-such-flag
says "is not of the form path=value"

# And with the run itself.
train 1 bad model.sequential.layers.7.linear.out_features=5
says "train: training iteration 1: "
