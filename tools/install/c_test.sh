#!/usr/bin/env bash
# A program in C builds and trains on a prefix: by pkg-config and by CMake, with either
# library, also after the prefix was moved.
set -euo pipefail
. tools/install/testing/prefix.sh

prefix=$TEST_TMPDIR/prefix
source=$TEST_TMPDIR/outside/source

fail() {
  echo "$@"
  exit 1
}

# The program at PATH trains, with libgrapnel.so if it is to be, or else without.
trains() { # PATH yes|no
  local needed
  rm -rf "$TEST_TMPDIR/outside/work_dir"
  outside "$prefix" "$1" work_dir || fail "$1 failed"
  needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  case $2-$needed in
    yes-*libgrapnel.so.0* | no-*libtorch_cpu.so*) ;;
    *) fail "$1 needs" $needed ;;
  esac
  [ "$2" = yes ] || ! grep -q libgrapnel <<<"$needed" || fail "$1 needs libgrapnel"
}

# Compiles with what pkg-config says.
compiles() { # PROGRAM PKG_CONFIG_ARGUMENT...
  local flags
  flags=$(outside "$prefix" pkg-config --cflags --libs "${@:2}") || fail "pkg-config ${*:2}"
  # What has a space in it, pkg-config writes for a shell.
  eval "outside \"\$prefix\" cc -Wall -Wextra -Werror \"\$source/fit_line.c\" $flags -o \"\$1\"" ||
    fail "cc with $flags"
}

by_pkg_config() {
  compiles shared grapnel
  trains "$TEST_TMPDIR/outside/shared" yes
  compiles static grapnel-static
  trains "$TEST_TMPDIR/outside/static" no
}

by_cmake() {
  local build=$TEST_TMPDIR/outside/build
  rm -rf "$build"
  outside "$prefix" cmake -S "$source" -B "$build" >"$TEST_TMPDIR/log" 2>&1 &&
    outside "$prefix" cmake --build "$build" >>"$TEST_TMPDIR/log" 2>&1 ||
    fail "$(cat "$TEST_TMPDIR/log")"
  trains "$build/fit_line" yes
  trains "$build/fit_line_static" no
}

# CMake takes, or doesn't take, the prefix for a version.
finds() { # yes|no VERSION...
  local found=no
  printf '%s\n' 'cmake_minimum_required(VERSION 3.19)' 'project(finds LANGUAGES C)' \
    "find_package(Grapnel ${*:2} REQUIRED)" >"$TEST_TMPDIR/outside/finds/CMakeLists.txt"
  ! outside "$prefix" cmake -S finds -B finds/build >"$TEST_TMPDIR/log" 2>&1 || found=yes
  [ "$found" = "$1" ] || fail "found Grapnel ${*:2}: $found" "$(cat "$TEST_TMPDIR/log")"
}

mkdir -p "$source" "$TEST_TMPDIR/outside/finds"
cp tools/install/testing/fit_line.c tools/install/testing/cmake/CMakeLists.txt "$source"
install_prefix "$prefix"
by_pkg_config
by_cmake

finds yes
finds yes 0.1 EXACT
finds yes 0.0
finds yes 0.1...1.0
finds yes 0...0.1
finds no 0.0 EXACT
finds no 0.2
finds no 1.0
finds no 1.0...2.0
finds no 0...\<0.1
finds no 0.1 REQUIRED COMPONENTS gpu

# Elsewhere it is as good, also with a space in its name. What was linked with it looks for it where it was.
mv "$prefix" "$prefix moved"
! outside "$prefix" ./shared work_dir 2>"$TEST_TMPDIR/log" || fail "it needs no prefix"
grep -q 'libgrapnel.so.0: cannot open' "$TEST_TMPDIR/log" || fail "$(cat "$TEST_TMPDIR/log")"
prefix="$prefix moved"
by_pkg_config
by_cmake
version=$("$prefix/bin/grapnel" --version)
[[ $version == "grapnel 0."* ]] || fail "grapnel --version: $version"

# Where the archive is alone, pkg-config's own way to a static link is enough.
rm "$prefix"/lib/libgrapnel.so*
compiles alone --static grapnel
trains "$TEST_TMPDIR/outside/alone" no

# A prefix that isn't whole is not found, and CMake says what is missing.
finds no
tr -s '\n ' ' ' <"$TEST_TMPDIR/log" | grep -q 'libgrapnel.so.0 is missing' ||
  fail "$(cat "$TEST_TMPDIR/log")"
