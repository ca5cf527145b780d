#!/usr/bin/env bash
# docs/go.md and examples/go_service/README.md as their reader has them: files are written
# and commands run, in their order, by one shell, on what docs/go.md installs.
set -euo pipefail
. tests/bindings/languages.sh
copy_sources bindings/go examples/digits examples/go_service
checkout_of_installer checkout

# GOSUMDB: nobody can be asked, and the modules are those of the checked go.sum.
follow() { # PAGE FOLDER
  python3 -B tests/bindings/page.py "$1" "$TEST_TMPDIR/page.log" |
    sed 's/LOAD_SECONDS=120/LOAD_SECONDS=2/' >"$TEST_TMPDIR/page.sh"
  in_go "$2" GOSUMDB=off bash "$TEST_TMPDIR/page.sh" || fail "$1: see above"
}

follow docs/go.md checkout
unformatted=$(in_go checkout gofmt -l "$home/first")
[ -z "$unformatted" ] || fail "docs/go.md: not as gofmt writes it:" $unformatted
follow examples/go_service/README.md examples/go_service
