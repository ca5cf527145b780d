#!/usr/bin/env bash
# Run by Bazel, in the folder of its inputs: pack.sh [--cuda] DIR
set -euo pipefail

if [ "${1:-}" != --cuda ]; then
  cd "${BUILD_WORKING_DIRECTORY:?run it by ./bazelw run //tools/gpu_check:pack}"
  exec "$BUILD_WORKSPACE_DIRECTORY/bazelw" run --config=cuda //tools/gpu_check:pack -- "$@"
fi
shift
PYTHONPATH=tools/install exec python3 -B tools/gpu_check/pack.py --cuda "$@"
