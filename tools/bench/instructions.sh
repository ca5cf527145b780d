#!/usr/bin/env bash
exec python3 -B tools/bench/instructions.py --program tools/bench/instructions_program "$@"
