# Sourced by the tests here: programs of one name, in C (tests/capi/runs), in Go
# (bindings/go/internal/trials) and in Rust (bindings/rust/trials), that do the same.
. tests/bindings/languages.sh

declare -A programs

# Sets programs[c], programs[go] and programs[rust]; the one in C if it is there.
build_programs() { # NAME
  local built=$TEST_TMPDIR/bin/$1
  mkdir -p "$built"
  copy_sources bindings/go bindings/rust
  install_prefix "$prefix"
  in_go bindings/go go build -o "$built/go" "./internal/trials/$1"
  in_rust bindings/rust/trials cargo build --quiet --locked --release --bin "$1"
  cp "$target/release/$1" "$built/rust.program"
  # cargo sets no path to the library in a program.
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$prefix/lib" "$built/rust.program" >"$built/rust"
  chmod +x "$built/rust"
  programs=([go]="$built/go" [rust]="$built/rust")
  [ ! -x "tests/capi/runs/$1" ] || programs[c]=tests/capi/runs/$1
}
