// Checks of what goes into losses and metrics. They read no values, so that
// they wait for no device.

#ifndef GRAPNEL_MODELS_LOSSES_TARGET_CHECKS_H_
#define GRAPNEL_MODELS_LOSSES_TARGET_CHECKS_H_

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/models/shape.h"

namespace grapnel {

// kInvalidArgument, with the type, unless `tensor` is of a floating type.
inline absl::Status CheckFloating(absl::string_view what,
                                  const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": must be floating, are undefined"));
  }
  if (!at::isFloatingType(tensor.scalar_type())) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, ": must be floating, are ", c10::toString(tensor.scalar_type())));
  }
  return absl::OkStatus();
}

// kInvalidArgument, with both shapes, unless they are the same.
inline absl::Status CheckSameShape(const at::Tensor& outputs,
                                   const at::Tensor& targets) {
  if (outputs.sizes() == targets.sizes()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("outputs ", ShapeString(outputs.sizes()), " and targets ",
                   ShapeString(targets.sizes()), " must be of one shape"));
}

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LOSSES_TARGET_CHECKS_H_
