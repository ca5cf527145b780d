// Checks of what goes into losses and metrics. They read no values, so that
// they wait for no device.

#ifndef GRAPNEL_MODELS_LOSSES_TARGET_CHECKS_H_
#define GRAPNEL_MODELS_LOSSES_TARGET_CHECKS_H_

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// kInvalidArgument, with the type, unless `tensor` is of a floating type.
absl::Status CheckFloating(absl::string_view what, const at::Tensor& tensor);

// kInvalidArgument, with both shapes, unless they are the same.
absl::Status CheckSameShape(const at::Tensor& outputs,
                            const at::Tensor& targets);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LOSSES_TARGET_CHECKS_H_
