// Numbers of a config that are used as float32.

#ifndef GRAPNEL_DATA_FLOAT32_H_
#define GRAPNEL_DATA_FLOAT32_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// OK if `value` is finite in float32 and, unless it is 0, not 0 there. Else
// kInvalidArgument, which names the field.
absl::Status CheckFloat32(absl::string_view field, double value);

}  // namespace grapnel

#endif  // GRAPNEL_DATA_FLOAT32_H_
