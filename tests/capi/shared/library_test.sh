#!/usr/bin/env bash
# What libgrapnel.so shows of itself, and what it asks for.
#
#   library_test.sh LIBRARY RECORD
set -euo pipefail

library=$1
record=$2
failed=0
fail() {
  echo "$@"
  failed=1
}

# Every function that the record has, which is the header's, and nothing else: no
# class of ours, of protobuf's, or of the standard library's that another one in the
# process would be merged with (u, V and W in nm's letters).
exported=$(nm -D --defined-only "$library" | sed 's/^[0-9a-f]* //' | sort)
recorded=$(sed -n "s/.*<elf-symbol name='\([^']*\)'.*/T \1/p" "$record" | sort)
[ -n "$recorded" ] || fail "no functions in $record"
difference=$(diff <(echo "$recorded") <(echo "$exported")) ||
  fail "recorded (<) and exported (>):" "$difference"

dynamic=$(readelf -d "$library")
grep -q 'SONAME.*\[libgrapnel\.so\.0\]' <<<"$dynamic" || fail "no SONAME libgrapnel.so.0"
grep -q 'FLAGS_1.*NODELETE' <<<"$dynamic" || fail "no NODELETE"

# LibTorch, the system's own, and small C libraries with stable interfaces. No
# protobuf, Abseil, glog or gflags.
needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic")
for name in $needed; do
  case $name in
    libtorch_cpu.so | libc10.so | libc10_cuda.so | libcudart.so.* | libtorch_cuda.so) ;;
    libstdc++.so.6 | libm.so.6 | libc.so.6 | libgcc_s.so.1 | ld-linux-*.so.* | libgomp.so.1) ;;
    libpng16.so.16 | libjpeg.so.62 | libz.so.1 | libxxhash.so.0 | libre2.so.9) ;;
    libasan.so.* | libubsan.so.* | libtsan.so.*) ;; # --config=asan and the like
    *) fail "needs $name" ;;
  esac
done
grep -q libtorch_cpu.so <<<"$needed" || fail "doesn't need libtorch_cpu.so"

# How it finds LibTorch.
grep -q 'R.*PATH.*\[[^]]*/lib' <<<"$dynamic" || fail "no RUNPATH"

echo "$(wc -l <<<"$exported") functions, $(stat -L -c %s "$library") bytes, needs" $needed
exit $failed
