#!/usr/bin/env bash
exec tests/interop/python_test.sh tools/bench/load.py "$@"
