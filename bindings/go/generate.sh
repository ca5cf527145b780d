#!/bin/sh
# Generates package grapnelpb:
#
#   generate.sh PROTO_DIR OUT_DIR
#
# PROTO_DIR is the folder that holds grapnel/runner/runner_config.proto: of an
# installation, share/grapnel/proto. OUT_DIR gets the .pb.go files, and must be
# there. Needs protoc and go. protoc-gen-go is of the module that go.mod names for
# what it generates, and so of the same version.
set -eu

if [ $# -ne 2 ] || [ ! -d "$1" ] || [ ! -d "$2" ]; then
  echo "usage: generate.sh PROTO_DIR OUT_DIR" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
protos=$(cd "$1" && pwd)
out=$(cd "$2" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

(cd "$here" &&
  go build -o "$scratch/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go)

# The rest are files that people read, as TensorBoard's, or tests.
files=$(cd "$protos" && find grapnel -name '*.proto' \
  ! -path grapnel/hooks/conformance.proto \
  ! -path grapnel/loggers/tensorboard_event.proto \
  ! -path grapnel/loggers/wandb_record.proto | LC_ALL=C sort)

# One Go package for all: the files name none, as they are not Go's alone.
package='grapnel.dev/grapnel/grapnelpb'
mapping=$(for file in $files; do printf ',M%s=%s' "$file" "$package"; done)

# shellcheck disable=SC2086 # One argument for each file.
protoc --plugin="$scratch/protoc-gen-go" -I "$protos" \
  --go_out="$out" --go_opt="module=$package$mapping" $files
