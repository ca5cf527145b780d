#!/usr/bin/env bash
# Run by Bazel, in the folder of its inputs: install.sh --prefix DIR [--libtorch LIBTORCH]
exec python3 -B tools/install/install.py "$@"
