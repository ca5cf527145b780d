#!/usr/bin/env bash
# The example as its author and its readers have it: formatted, without a finding of
# clippy, its tests good, and the README's commands work.
set -euo pipefail
. tests/bindings/languages.sh
copy_sources bindings/rust examples/digits examples/rust_train
install_prefix "$prefix"

run() { # WHAT COMMAND...
  echo "== $1"
  in_rust examples/rust_train "${@:2}" || fail "$1: see above"
}

run rustfmt cargo fmt --check
run clippy cargo clippy --quiet --locked --all-targets -- -D warnings
run "the tests" cargo test --quiet --locked

# At home, ~/grapnel is the prefix; programs go where cargo puts them unless told.
out=$TEST_TMPDIR/readme.out
ln -sfn "$prefix" "$home/grapnel"
ln -sfn "$target" "$sources/examples/rust_train/target"
sed -n 's/^    //p' "$sources/examples/rust_train/README.md" >"$TEST_TMPDIR/readme.sh"
echo "== README.md"
in_rust examples/rust_train \
  bash -euo pipefail "$TEST_TMPDIR/readme.sh" >"$out" 2>&1 ||
  fail "$(cat "$out")" "README.md: see above"
for pattern in '^accuracy 9' 'resumed epoch: 8, ' '^usage: rust_train'; do
  grep -q "$pattern" "$out" || fail "README.md: its commands don't print $pattern"
done
