#!/usr/bin/env bash
# The service as its authors have it: formatted, without a finding of vet and
# staticcheck, its tests good, also with the race detector; they start the real
# program. (README.md's commands: //tests/bindings:docs_test.)
set -euo pipefail
. tests/bindings/languages.sh
copy_sources bindings/go examples/digits examples/go_service
install_prefix "$prefix"

run() { # WHAT COMMAND...
  echo "== $1"
  in_go "${@:2}" || fail "$1: see above"
}

service=examples/go_service
unformatted=$(in_go $service gofmt -l .)
[ -z "$unformatted" ] || fail "run gofmt -w on" $unformatted
run vet $service go vet ./...
in_go bindings/go/tools go build -o "$TEST_TMPDIR/staticcheck" honnef.co/go/tools/cmd/staticcheck
run staticcheck $service "$TEST_TMPDIR/staticcheck" ./...

load=GRAPNEL_LOAD_SECONDS=${GRAPNEL_LOAD_SECONDS:-5}
run "the tests" $service "$load" go test -count=1 -v ./...
run "the tests with the race detector" $service go test -count=1 -race ./...
