#!/usr/bin/env bash
# Bazel's own Python rules need more than a Debian Bazel has without the network.
exec python3 -B "tools/install/$1"
