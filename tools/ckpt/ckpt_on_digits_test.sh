#!/usr/bin/env bash
# grapnel ckpt, command by command, on the checkpoints of a training of the digits.
set -euo pipefail

grapnel=$PWD/tools/grapnel
out=$TEST_TMPDIR/out
err=$TEST_TMPDIR/err
export OMP_NUM_THREADS=1
cp examples/digits/* "$TEST_TMPDIR"
cd "$TEST_TMPDIR"

fail() {
  echo "$@"
  cat "$out" "$err"
  exit 1
}

ckpt() { # EXIT_CODE ARG...
  local code=0
  "$grapnel" ckpt "${@:2}" >"$out" 2>"$err" || code=$?
  [ "$code" = "$1" ] || fail "ckpt ${*:2}: exit code $code, not $1"
}

has() { grep -qE -- "$1" "$out" || fail "no line with $1"; }
has_not() { ! grep -qE -- "$1" "$out" || fail "a line with $1"; }

json() { # EXIT_CODE EXPRESSION ARG...: of `j`, what the command prints
  ckpt "$1" "${@:3}" --json
  python3 - "$out" "$2" <<'EOF' || fail "${*:3}: not $2"
import json, sys
j = json.load(open(sys.argv[1]))
sys.exit(0 if eval(sys.argv[2]) else 1)
EOF
}

cat >>digits.textproto <<'EOF'
custom_hooks { config { [hooks/EMAHook] { momentum: 0.01 } } }
EOF
"$grapnel" train digits.textproto --work-dir w --cfg-options train_cfg.max_epochs=4 >"$out" 2>"$err" ||
  fail "train"

ckpt 0 ls w
has '^epoch_2 +2 +46 +20'
has '^epoch_4 +4 +92 +20.* last$'
has '^best_accuracy_top1_epoch_[0-9] .*best accuracy/top1'
json 0 'len(j["checkpoints"]) == 4 and all(c["bad"] is None for c in j["checkpoints"])' ls w
(cd w && ckpt 0 ls && has '^epoch_4 ')

ckpt 0 show w/epoch_4
has '^progress +epoch 4 of 4, iteration 92 of 92, 92 updates'
has '^ema +'
has '^model +'
has '^0\.weight +F32 +\(32, 1, 3, 3\) +1\.2 kB +model'
json 0 '[t["shape"] for t in j["tensors"] if t["name"] == "10.bias" and t["section"] == "ema"] == [[10]]' \
  show w/epoch_4
ckpt 0 show w/epoch_4 --config
cp "$out" shown.textproto
"$grapnel" config shown.textproto >"$out" 2>"$err" || fail "what show --config prints is no configuration"

ckpt 0 verify w
has '^w/epoch_4: ok, '
json 0 'j["ok"]' verify w/epoch_2 w/epoch_3
ckpt 0 diff w/epoch_4 w/epoch_4
has '^equal: '
ckpt 1 diff w/epoch_3 w/epoch_4
has '^model +0\.weight +max \|d\| 0?\.?[0-9.e-]+, [0-9]+ of 288 elements'
has "^progress +epoch +3 and 4"
ckpt 0 du w
has '^in all '

# Weights out, and what is made of them is the same model.
ckpt 0 export w/epoch_4 m.safetensors
ckpt 0 diff w/epoch_4 m.safetensors
ckpt 0 export w/epoch_4 m.pth
ckpt 0 export w/epoch_4 e.safetensors --average ema
ckpt 1 diff m.safetensors e.safetensors
ckpt 0 import m.safetensors zoo
ckpt 0 diff w/epoch_4 zoo --section model
for path in w/epoch_4 m.safetensors zoo; do
  "$grapnel" test digits.textproto --load-from "$path" >"of_$(basename "$path")" 2>"$err" || fail "test $path"
done
cmp of_m.safetensors of_zoo || fail "zoo: other metrics"
ckpt 2 export w/epoch_4 m.pth
grep -q 'm.pth: is there already' "$err" || fail "export over a file"

# A whole training, out and back.
ckpt 0 export w/epoch_4 training.pth --training
ckpt 0 import training.pth back --training digits.textproto
ckpt 0 diff w/epoch_4 back --section model
ckpt 0 diff w/epoch_4 back --section ema
"$grapnel" train digits.textproto --work-dir going_on --resume=back --cfg-options train_cfg.max_epochs=5 \
  >"$out" 2>"$err" || fail "train --resume=back"
[ -d going_on/epoch_5 ] || fail "no fifth epoch"

# The mean of one is that one, and of several a model as good.
ckpt 0 average -o one.safetensors w/epoch_4
ckpt 0 diff one.safetensors w/epoch_4
ckpt 0 average -o soup --weights 1,1,2 w/epoch_2 w/epoch_3 w/epoch_4
has '2 tensors without a mean, of w/epoch_4'
"$grapnel" test digits.textproto --load-from soup >"$out" 2>"$err" || fail "test soup"
has '"accuracy/top1": [89][0-9]\.'

# Damage is named, and passed over.
cp -r w damaged
python3 - damaged/epoch_4/optimizer.safetensors damaged/epoch_4/model.safetensors <<'EOF'
import sys
for path in sys.argv[1:]:
    data = bytearray(open(path, "rb").read())
    data[len(data) // 2] ^= 1
    data[-1] ^= 1
    open(path, "wb").write(data)
EOF
ckpt 4 verify damaged
[ "$(grep -c '^damaged/epoch_4: .*: tensor ".*": bytes differ' "$out")" = 4 ] || fail "not four damaged tensors"
has '^damaged/epoch_3: ok, '
ckpt 0 repair-last damaged
has 'last_checkpoint: was damaged/epoch_4, is damaged/epoch_3'
[ "$(cat damaged/last_checkpoint)" = epoch_3 ] || fail "last_checkpoint: $(cat damaged/last_checkpoint)"
ckpt 4 diff damaged/epoch_3 damaged/epoch_4

# What stays.
mkdir w/.tmp-epoch_5-0123abcd
echo 12345 >w/.tmp-epoch_5-0123abcd/model.safetensors
ckpt 0 pin w/epoch_2
ckpt 0 gc w --keep-last 1 --dry-run
has '^w/epoch_2 .*stays: pinned'
has '^w/epoch_3 .*would be deleted'
[ -d w/epoch_3 ] && [ -d w/.tmp-epoch_5-0123abcd ] || fail "gc --dry-run deleted something"
ckpt 0 gc w --keep-last 1
[ ! -d w/epoch_3 ] && [ ! -d w/.tmp-epoch_5-0123abcd ] && [ -d w/epoch_2 ] && [ -d w/epoch_4 ] ||
  fail "gc: $(ls -A w)"
ckpt 0 ls w
has '^epoch_2 .* pinned'
# The training goes on as if nothing had been.
"$grapnel" train digits.textproto --work-dir w --resume --cfg-options train_cfg.max_epochs=6 >"$out" 2>"$err" ||
  fail "train --resume"
[ -d w/epoch_2 ] && [ -d w/epoch_6 ] || fail "a pinned one is gone"

# Who holds the folder is named, and nothing is touched.
"$grapnel" train digits.textproto --work-dir w --resume --cfg-options train_cfg.max_epochs=100000 \
  >/dev/null 2>train.err &
training=$!
for _ in $(seq 600); do
  ! grep -q 'Epoch(train)' train.err || break
  sleep 0.1
done
ckpt 1 gc w --keep-last 1
grep -q "another run: host .*, process $training, started" "$err" || fail "gc beside a training"
ckpt 1 repair-last w
ckpt 0 ls w
kill "$training"
wait "$training" || true

# Help, typos, and an output that is full.
ckpt 0 --help
has '^  grapnel ckpt repair-last'
ckpt 0 gc --help
has '--dry-run'
ckpt 2 shwo w
grep -q 'did you mean "show"?' "$err" || fail "no suggestion"
ckpt 2 show w/epcoh_2
grep -q 'did you mean "epoch_2"?' "$err" || fail "no suggestion"
code=0
"$grapnel" ckpt ls w >/dev/full 2>"$err" || code=$?
[ "$code" = 1 ] || fail "a full output: exit code $code"
