#!/usr/bin/env bash
# bindings/rust as its users and its authors have it: formatted, without a finding of
# clippy and of rustdoc, its generated code that of the .proto files, its tests and
# examples good.
set -euo pipefail
. tests/bindings/languages.sh
copy_sources bindings/rust examples/digits
install_prefix "$prefix"

run() { # WHAT COMMAND...
  echo "== $1"
  in_rust "${@:2}" || fail "$1: see above"
}

# trials, which isn't shipped, is a workspace of its own.
features=ndarray
run rustfmt bindings/rust cargo fmt --all --check
run "rustfmt in trials" bindings/rust/trials cargo fmt --check
run clippy bindings/rust \
  cargo clippy --quiet --locked --workspace --all-targets --features "$features" -- -D warnings
run "clippy in trials" bindings/rust/trials cargo clippy --quiet --locked --all-targets -- -D warnings
run rustdoc bindings/rust RUSTDOCFLAGS=-Dwarnings \
  cargo doc --quiet --locked --no-deps --workspace --features "$features"

mkdir -p "$TEST_TMPDIR/generated"
rm -f "$TEST_TMPDIR"/generated/*
run generate.sh bindings/rust ./generate.sh "$prefix/share/grapnel/proto" "$TEST_TMPDIR/generated"
diff -r bindings/rust/grapnel/src/pb "$TEST_TMPDIR/generated" ||
  fail "grapnel/src/pb is not that of the .proto files: run bindings/rust/generate.sh"

digits=GRAPNEL_DIGITS_DIR=$sources/examples/digits
run "the tests" bindings/rust "$digits" cargo test --quiet --locked --workspace --features "$features"
run "the tests of trials" bindings/rust/trials "$digits" cargo test --quiet --locked
