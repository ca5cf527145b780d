#include "grapnel/models/layers/config_checks.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/models/shape.h"

namespace grapnel {

absl::Status CheckAtLeast(absl::string_view field, int64_t value, int64_t min) {
  return CheckField(value >= min, field, absl::StrCat(">= ", min), value);
}

absl::Status CheckRequired(absl::string_view field, bool is_set,
                           int64_t value) {
  if (!is_set) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": must be set"));
  }
  return CheckAtLeast(field, value, 1);
}

absl::Status CheckPositive(absl::string_view field, double value) {
  return CheckField(value > 0 && std::isfinite(value), field, "finite and > 0",
                    value);
}

absl::Status CheckFraction(absl::string_view field, double value) {
  return CheckField(value >= 0 && value <= 1, field, "in [0, 1]", value);
}

absl::StatusOr<std::vector<int64_t>> ReadPair(
    absl::string_view field,
    const google::protobuf::RepeatedField<int64_t>& values, int64_t min,
    std::optional<int64_t> otherwise) {
  if (values.size() > 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": must be one number or two, are ", values.size()));
  }
  if (values.empty()) {
    if (otherwise) return std::vector<int64_t>(2, *otherwise);
    return absl::InvalidArgumentError(absl::StrCat(field, ": must be set"));
  }
  for (const int64_t value : values) {
    GRAPNEL_RETURN_IF_ERROR(CheckAtLeast(field, value, min));
  }
  return std::vector<int64_t>{values[0], values[values.size() - 1]};
}

absl::Status CheckInputDims(const std::vector<int64_t>& input_shape,
                            size_t min_dims, size_t max_dims,
                            absl::string_view wanted) {
  if (input_shape.size() >= min_dims && input_shape.size() <= max_dims) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("takes ", wanted, ": input is ", ShapeString(input_shape)));
}

}  // namespace grapnel
