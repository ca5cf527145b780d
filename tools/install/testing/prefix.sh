# A prefix for a test, and what a user has who knows nothing of Bazel. For sh_tests, with
# //tools/install/testing:prefix as data:
#
#   . tools/install/testing/prefix.sh
#   install_prefix "$TEST_TMPDIR/prefix"
#   outside "$TEST_TMPDIR/prefix" GOFLAGS=-mod=mod go run ./fit_line

# Installs into a folder. A link to LibTorch takes half a second, a copy ten.
install_prefix() { # DIR [LIBTORCH]
  tools/install/install --prefix "$1" --libtorch "${2:-link}" >"$TEST_TMPDIR/install.log" || {
    echo "no prefix for the test"
    exit 1
  }
}

# Runs a command in $TEST_TMPDIR/outside, with an environment of its own: of Bazel's
# nothing, and of the prefix what pkg-config and CMake look for it by.
outside() { # PREFIX [NAME=VALUE...] COMMAND...
  local prefix=$1
  shift
  mkdir -p "$TEST_TMPDIR/outside"
  (
    cd "$TEST_TMPDIR/outside"
    exec env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$TEST_TMPDIR/outside" \
      TMPDIR="$TEST_TMPDIR" LC_ALL=C.UTF-8 OMP_NUM_THREADS=1 \
      PKG_CONFIG_PATH="$prefix/lib/pkgconfig" CMAKE_PREFIX_PATH="$prefix" "$@"
  )
}
