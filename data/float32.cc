#include "grapnel/data/float32.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"

namespace grapnel {

absl::Status CheckFloat32(absl::string_view field, double value) {
  // Not by a cast: what is out of range has none.
  if (!(std::abs(value) <= std::numeric_limits<float>::max())) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": must be finite in float32, is ", value));
  }
  if (value != 0 && static_cast<float>(value) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": must not become 0 in float32, is ", value));
  }
  return absl::OkStatus();
}

}  // namespace grapnel
