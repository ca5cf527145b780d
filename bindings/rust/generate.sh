#!/bin/sh
# Makes grapnel/src/pb anew: generate.sh PROTO_DIR OUT_DIR
#
# PROTO_DIR is an installation's share/grapnel/proto, OUT_DIR an existing folder. The generator's
# dependencies are in generator/Cargo.lock, and none of them are users'. CI calls it with an empty
# OUT_DIR and compares.
set -eu
if [ "$#" -ne 2 ]; then
  echo "usage: generate.sh PROTO_DIR OUT_DIR" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
exec cargo run --quiet --locked ${CARGO_NET_OFFLINE:+--offline} \
  --manifest-path "$here/generator/Cargo.toml" -- "$1" "$2"
