#include "grapnel/models/losses/target_checks.h"

#include "absl/strings/str_cat.h"
#include "grapnel/models/shape.h"

namespace grapnel {

absl::Status CheckFloating(absl::string_view what, const at::Tensor& tensor) {
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

absl::Status CheckSameShape(const at::Tensor& outputs,
                            const at::Tensor& targets) {
  if (outputs.sizes() == targets.sizes()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("outputs ", ShapeString(outputs.sizes()), " and targets ",
                   ShapeString(targets.sizes()), " must be of one shape"));
}

}  // namespace grapnel
