#!/usr/bin/env bash
# The driver finds faults, says what they are and leaves the input behind.
set -uo pipefail

program=$1
failed=0

# Runs the target with planted faults on inputs made from "seed", or what $corpus has,
# and the word; the driver has to end with the status, say the message and, if it
# names a file, leave one there that holds the word.
expect() { # STATUS WORD MESSAGE FILE
  local folder status=0
  folder=$(mktemp -d "$TEST_TMPDIR/XXXXXX")
  mkdir "$folder/corpus"
  echo "${corpus_content:-seed}" >"$folder/corpus/${corpus_name:-seed}"
  echo "word=\"$2\"" >"$folder/words.dict"
  TEST_UNDECLARED_OUTPUTS_DIR=$folder GRAPNEL_FUZZ_INPUTS=500 "$program" \
    --corpus="$folder/corpus" --dictionary="$folder/words.dict" >"$folder/log" 2>&1 || status=$?
  if [ $((status != 0)) != "$1" ] || ! grep -q "$3" "$folder/log" ||
    { [ -n "$4" ] && ! grep -q "$2" "$folder/$4"; }; then
    echo "FAILED: $2: status $status, wanted \"$3\" and $4:"
    cat "$folder/log"
    ls "$folder"
    failed=1
  fi
}

expect 0 harmless "500 inputs and 1 of the corpus" ""
[ -z "$(find "$TEST_TMPDIR" -name '*.input')" ] || { echo "FAILED: an input is left"; failed=1; }
# Nobody says what an input takes without AddressSanitizer.
if grep -q "an input took at most" "$TEST_TMPDIR"/*/log; then
  expect 0 MUCH "an input took at most 2097" ""
  expect 1 TOO "an input takes more than 3145728 bytes" planted_fault.input
fi
expect 1 CRASH "planted_fault.input" planted_fault.input
expect 1 INTERNAL "INTERNAL: ours" planted_fault.input
expect 1 SLOW "an input took" planted_fault.slow
expect 1 GROW "memory grew by" planted_fault.memory
corpus_content=REFUSE expect 1 x "seed: was refused" ""
corpus_name=bad_seed expect 1 x "bad_seed: was accepted" ""
exit $failed
