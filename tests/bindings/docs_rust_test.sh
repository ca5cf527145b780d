#!/usr/bin/env bash
# docs/rust.md as its reader has it: its files are written and its commands run, in their
# order, by one shell, and print what the page says.
set -euo pipefail
. tests/bindings/languages.sh

page=docs/rust.md
checkout=checkout
checkout_of_installer "$checkout"

python3 -B tests/bindings/page.py "$page" "$TEST_TMPDIR/page.log" >"$TEST_TMPDIR/page.sh"
checks=$(grep -c '^grep ' "$TEST_TMPDIR/page.sh") || fail "$page prints nothing"

# Programs lie where the page says, which is where other tests have compiled what they
# depend on.
sed -i "s|^cd first\$|& \&\& ln -s '$target' target|" "$TEST_TMPDIR/page.sh"
in_rust "$checkout" env -u CARGO_TARGET_DIR -u GRAPNEL_PREFIX -u PKG_CONFIG_PATH bash "$TEST_TMPDIR/page.sh" ||
  fail "$page: see above"

# Without GRAPNEL_PREFIX it is found by pkg-config.
in_rust "$checkout" PKG_CONFIG_PATH="$home/grapnel/lib/pkgconfig" \
  env -u GRAPNEL_PREFIX cargo build --quiet --manifest-path "$home/first/Cargo.toml" ||
  fail "$page: pkg-config doesn't help"
echo "$checks lines printed as $page says"
