#!/usr/bin/env bash
# Records the ABI of grapnel.h in the checkout, by `bazel run //capi/abi:record`.
set -euo pipefail
checkout=${BUILD_WORKSPACE_DIRECTORY:?run by Bazel}
exec python3 -B capi/abi/abi.py record "$checkout/capi/abi" "$checkout/capi/include/grapnel/grapnel.h"
