// What files of ours include most, LibTorch apart. See prelude.bzl.
#ifndef GRAPNEL_TOOLS_BUILD_DEFS_BASE_PRELUDE_H_
#define GRAPNEL_TOOLS_BUILD_DEFS_BASE_PRELUDE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/message.h"

#endif  // GRAPNEL_TOOLS_BUILD_DEFS_BASE_PRELUDE_H_
