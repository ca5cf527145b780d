#!/usr/bin/env bash
# Bazel's own Python rules need more than a Debian Bazel has without the network.
# What is read are the files of the checkout: they are no inputs of this test, see BUILD.
exec python3 -B "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/gpu_tests_test.py"
