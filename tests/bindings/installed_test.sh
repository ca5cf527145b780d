#!/usr/bin/env bash
# docs/install.md as its reader has it, outside the repository: what the prefix ships builds
# programs in C, by CMake, in Go and in Rust, and its last commands remove all of it. The
# module and the crates are whole: all that is in them compiles.
set -euo pipefail
. tests/bindings/languages.sh

page=docs/install.md
checkout_of_installer checkout

# GOSUMDB: nobody can be asked, and the modules are those of the checked go.sum.
as_reader() { # FOLDER [NAME=VALUE...] COMMAND...
  in_go_and_rust "$1" GOSUMDB=off PKG_CONFIG_PATH= "${@:2}"
}

python3 -B tests/bindings/page.py "$page" "$TEST_TMPDIR/page.log" >"$TEST_TMPDIR/page.sh"
for command in ./first build/first 'go run' 'cargo run'; do
  grep -qF -- "$command" "$TEST_TMPDIR/page.sh" || fail "$page has no $command"
done
as_reader checkout bash "$TEST_TMPDIR/page.sh" || fail "$page: see above"
left=$(find "$home/grapnel" ! -type d)
[ -z "$left" ] || fail "$page: its last commands leave" $left

# What is shipped is whole, also in a prefix whose name has a space.
spaced="$home/a prefix"
install_prefix "$spaced"
use() { # FOLDER COMMAND...
  echo "== ${*:2}"
  as_reader "$1" PKG_CONFIG_PATH="$spaced/lib/pkgconfig" "${@:2}" >"$TEST_TMPDIR/log" 2>&1 ||
    fail "$(cat "$TEST_TMPDIR/log")" "${*:2}: see above"
}
use "$spaced/share/grapnel/go" go vet -mod=readonly ./...
use "$spaced/share/grapnel/rust" cargo metadata --locked --format-version 1
use "$spaced/share/grapnel/rust" \
  cargo test --quiet --locked --no-run --workspace --features ndarray
use "$home/first_go" go mod edit -replace=grapnel.dev/grapnel="$spaced/share/grapnel/go"
use "$home/first_go" go run .
use "$home/first_rust" cargo add --quiet grapnel --path "$spaced/share/grapnel/rust/grapnel"
use "$home/first_rust" cargo run --quiet
