#!/usr/bin/env bash
# run_verify_resume.sh PROGRAM CONFIG ARG...: what grapnel_verify_resume_test
# runs. Both are paths in the runfiles, as $(rootpath) has them.
set -euo pipefail

paths=()
for path in "$1" "$2"; do
  # Of another repository, where Bazel lays out runfiles in one way only.
  [ -e "$path" ] || path=../${path#external/}
  paths+=("$path")
done
exec "./${paths[0]}" verify-resume "${paths[1]}" --work-dir "${TEST_TMPDIR:?}" "${@:3}"
