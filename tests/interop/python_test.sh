#!/usr/bin/env bash
# Runs a Python test with the wheels of third_party/requirements-interop.txt.
# Without them it fails: a test that is skipped proves nothing.
set -euo pipefail

export PATH=/usr/local/bin:/usr/bin:/bin
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set: run with --test_env=HOME}/.cache}
wheels=$cache/grapnel/interop-4
for package in lightning mmengine numpy safetensors tensorboard wandb; do
  if [ ! -d "$wheels/$package" ]; then
    echo "no $package in $wheels: run ./bazelw setup --all" >&2
    exit 1
  fi
done
if ! python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  echo "python3 is $(python3 --version 2>&1); the wheels are for 3.11" >&2
  exit 1
fi
export PYTHONPATH=$wheels
export PYTHONDONTWRITEBYTECODE=1
exec python3 "$@"
