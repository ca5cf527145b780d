// Checks that the configs of several layers need.

#ifndef GRAPNEL_MODELS_LAYERS_CONFIG_CHECKS_H_
#define GRAPNEL_MODELS_LAYERS_CONFIG_CHECKS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"

namespace grapnel {

// kInvalidArgument unless value >= min: "stride: must be >= 1, is 0".
absl::Status CheckAtLeast(absl::string_view field, int64_t value, int64_t min);

// The same for a field that must be set.
absl::Status CheckRequired(absl::string_view field, bool is_set, int64_t value);

// kInvalidArgument unless `value` is finite and > 0.
absl::Status CheckPositive(absl::string_view field, double value);

// kInvalidArgument unless `value` is in [0, 1].
absl::Status CheckFraction(absl::string_view field, double value);

// Height and width from one number for both, or two, each >= min. None:
// `otherwise` for both, or an error if that isn't given.
absl::StatusOr<std::vector<int64_t>> ReadPair(
    absl::string_view field,
    const google::protobuf::RepeatedField<int64_t>& values, int64_t min,
    std::optional<int64_t> otherwise);

// kInvalidArgument unless the sample has one of the numbers of dimensions, from
// min_dims to max_dims. `wanted`: "(C, H, W)".
absl::Status CheckInputDims(const std::vector<int64_t>& input_shape,
                            size_t min_dims, size_t max_dims,
                            absl::string_view wanted);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LAYERS_CONFIG_CHECKS_H_
