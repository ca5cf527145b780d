// What files that see LibTorch include most. See prelude.bzl.
#ifndef GRAPNEL_TOOLS_BUILD_DEFS_TENSOR_PRELUDE_H_
#define GRAPNEL_TOOLS_BUILD_DEFS_TENSOR_PRELUDE_H_

#include <sstream>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_map.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/map_field.h"
#include "tools/build_defs/base_prelude.h"

#endif  // GRAPNEL_TOOLS_BUILD_DEFS_TENSOR_PRELUDE_H_
