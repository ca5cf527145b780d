#!/usr/bin/env bash
# bindings/go as its users and its authors have it: formatted, without a finding of vet
# and staticcheck, its generated code that of the .proto files, its tests and examples
# good, also with the race detector.
set -euo pipefail
. tests/bindings/languages.sh
copy_sources bindings/go examples/digits
install_prefix "$prefix"

run() { # WHAT COMMAND...
  echo "== $1"
  in_go "${@:2}" || fail "$1: see above"
}

unformatted=$(in_go bindings/go gofmt -l .)
[ -z "$unformatted" ] || fail "run gofmt -w on" $unformatted
run vet bindings/go go vet ./...
in_go bindings/go/tools go build -o "$TEST_TMPDIR/staticcheck" honnef.co/go/tools/cmd/staticcheck
run staticcheck bindings/go "$TEST_TMPDIR/staticcheck" ./...

mkdir -p "$TEST_TMPDIR/generated"
rm -f "$TEST_TMPDIR"/generated/*
run generate.sh bindings/go ./generate.sh "$prefix/share/grapnel/proto" "$TEST_TMPDIR/generated"
diff -r bindings/go/grapnelpb "$TEST_TMPDIR/generated" ||
  fail "grapnelpb is not that of the .proto files: run bindings/go/generate.sh"

digits=GRAPNEL_DIGITS_DIR=$sources/examples/digits
run "the tests" bindings/go "$digits" go test -count=1 ./...
run "the tests with the race detector" bindings/go "$digits" go test -count=1 -race ./...
