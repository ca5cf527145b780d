# Go and Rust in a sh_test, offline. With //tests/bindings:languages among the deps, and
# "interop" and "block-network" as tags:
#
#   . tests/bindings/languages.sh
#   copy_sources bindings/go            # To $sources/bindings/go.
#   install_prefix "$prefix"
#   in_go bindings/go go test ./...
#   in_rust bindings/rust cargo test
#   in_go_and_rust . bash go_and_cargo.sh
#
# The tools, and what is depended on, are those of ./bazelw setup --all.
. tools/install/testing/prefix.sh

fail() {
  echo "$@"
  exit 1
}

cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set: run with --test_env=HOME}/.cache}/grapnel
tools=$(cat "$cache/tools/path") || fail "no Go and Rust in $cache/tools: run ./bazelw setup --all"

# Always the same folders for one test, as Bazel's sandboxes are not: for cargo they are
# part of what a crate is, so that what was compiled serves the next time, and Go doesn't
# look whether pkg-config says something else than last time. One at a time.
kept=$cache/cargo/tests/$(tr -c 'a-z0-9_\n' _ <<<"$TEST_TARGET")
sources=$kept/sources
prefix=$kept/prefix
home=$kept/home
# Of this test alone: for cargo two workspaces of one layout are the same, and a test that
# builds would take away what another one is just using.
target=$kept/target
mkdir -p "$kept"
exec 8>"$kept.lock"
flock 8
rm -rf "$home" "$prefix"
mkdir -p "$sources" "$home" "$target"

# Copies folders out of the runfiles, whose files are links.
copy_sources() { # FOLDER...
  local folder
  for folder; do
    rm -rf "$sources/$folder"
    mkdir -p "$sources/$folder"
    # With their times, by which cargo sees what has changed.
    cp -RL --preserve=timestamps "$folder/." "$sources/$folder"
    chmod -R u+w "$sources/$folder"
  done
}

# Makes a folder of the sources one in which pages of docs can be followed: without Bazel,
# ./bazelw run //tools/install installs what this test has.
checkout_of_installer() { # FOLDER
  rm -rf "$sources/$1"
  mkdir -p "$sources/$1"
  cat >"$sources/$1/bazelw" <<END
#!/bin/sh
[ "\$1 \$2 \$3 \$4 \$#" = "run //tools/install -- --prefix 5" ] || exit 2
cd "$PWD" && exec tools/install/install --prefix "\$5" --libtorch link
END
  chmod +x "$sources/$1/bazelw"
}

# Runs a command in a folder of the sources, or an absolute one, with Go.
in_go() { # FOLDER [NAME=VALUE...] COMMAND...
  local folder=$1
  shift
  (
    cd "$sources"
    cd "$folder"
    exec env -i PATH="$tools:/usr/local/bin:/usr/bin:/bin" HOME="$home" TMPDIR="$TEST_TMPDIR" \
      LC_ALL=C.UTF-8 OMP_NUM_THREADS=1 PKG_CONFIG_PATH="$prefix/lib/pkgconfig" \
      GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-buildvcs=false GOPATH="$cache/go" \
      GOMODCACHE="$cache/go/mod" GOCACHE="$cache/go/build" "$@"
  )
}

# The same with Go and Rust.
in_go_and_rust() { # FOLDER [NAME=VALUE...] COMMAND...
  in_go "$1" CARGO_HOME="$cache/cargo" CARGO_TARGET_DIR="$target" CARGO_NET_OFFLINE=true "${@:2}"
}

# The same with Rust.
in_rust() { # FOLDER [NAME=VALUE...] COMMAND...
  local folder=$1
  shift
  (
    cd "$sources"
    cd "$folder"
    exec env -i PATH="$tools:/usr/local/bin:/usr/bin:/bin" HOME="$home" TMPDIR="$TEST_TMPDIR" \
      LC_ALL=C.UTF-8 OMP_NUM_THREADS=1 GRAPNEL_PREFIX="$prefix" \
      CARGO_HOME="$cache/cargo" CARGO_TARGET_DIR="$target" CARGO_NET_OFFLINE=true "$@"
  )
}
