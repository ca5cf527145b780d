# Sourced by tests of ranks: ranks.c and its twins in other languages, as two processes.

config=examples/digits_ddp/digits_ddp.textproto
err=$TEST_TMPDIR/err

fail() {
  echo "$@"
  [ ! -e "$err" ] || cat "$err"
  exit 1
}

says() { # TEXT
  grep -qF "$1" "$err" || fail "it doesn't say: $1"
}

launch() { tools/grapnel launch --nproc-per-node 2 "$@" 2>"$err"; }

# The same with nobody who stops a rank, before it has spoken, when the other one has failed.
# Of rank 0 the exit code.
without_launcher() { # PROGRAM ARGUMENT...
  local port rank code=0 holder hold pids=()
  # Nobody else gets the port while the holder has it, which ends with this script at the latest.
  coproc exec python3 -c 'if True:
    import socket, sys
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1], flush=True)
    sys.stdin.read()'
  holder=$COPROC_PID hold=${COPROC[1]}
  read -r port <&"${COPROC[0]}"
  for rank in 0 1; do
    RANK=$rank LOCAL_RANK=$rank WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
      "$@" 2>"$err.$rank" &
    pids+=($!)
  done
  wait "${pids[0]}" || code=$?
  wait "${pids[1]}" || true
  exec {hold}>&-
  wait "$holder"
  for rank in 0 1; do sed "s/^/[rank $rank] /" "$err.$rank"; done >"$err"
  return $code
}

# Trains by the command line, to $TEST_TMPDIR/reference.
reference() {
  launch -- train "$config" --work-dir "$TEST_TMPDIR/reference" --cfg-options train_cfg.max_epochs=4 ||
    fail "grapnel train fails"
}

check_ranks() { # NAME PROGRAM
  local name=$1 program=$2 out=$TEST_TMPDIR/$1 rank file epoch master
  launch --program "$program" -- "$config" "$out" "$out" -1 || fail "$name fails"
  for rank in 0 1; do
    master=$((1 - rank))
    diff - "$out.$rank.trace" < <(
      for epoch in 1 2 3 4; do
        echo "epoch $epoch: rank $rank of 2, master $master"
        [ $((epoch % 2)) = 1 ] || echo "runner: rank $rank of 2, local $rank, master $master"
      done
    ) || fail "$name: rank $rank has another place"
  done
  cmp "$out.0.weights" "$out.1.weights" || fail "$name: the ranks have different weights"
  for file in model optimizer; do
    cmp "$TEST_TMPDIR/reference/epoch_4/$file.safetensors" "$out/epoch_4/$file.safetensors" ||
      fail "$name: another $file than that of grapnel train"
  done
  # A start of its own for each of the two runners, and not for each rank.
  [ "$(find "$out" -name '*.log' | wc -l)" = 2 ] || fail "$name: not two logs"

  # What the hook of rank 1 fails with, both say.
  ! without_launcher "$program" "$config" "$out.failed" "$out.failed" 1 || fail "$name: no error"
  grep -q '^\[rank 1\] .*hook "place": AfterTrainEpoch: planted' "$err" || fail "$name: rank 1 says no error"
  grep -q '^\[rank 0\] .*rank 1: hook "place": AfterTrainEpoch: planted' "$err" || fail "$name: rank 0 doesn't say it"
  [ -e "$out.failed/epoch_2" ] && [ ! -e "$out.failed/epoch_4" ] || fail "$name: another end"
}
