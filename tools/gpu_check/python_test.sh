#!/usr/bin/env bash
# Bazel's own Python rules need more than a Debian Bazel has without the network.
PYTHONPATH=tools/install exec python3 -B "tools/gpu_check/$1"
