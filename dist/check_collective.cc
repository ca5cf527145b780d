#include "grapnel/dist/check_collective.h"

#include "absl/strings/str_cat.h"

namespace grapnel {

absl::Status CheckCollectiveTensor(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return absl::InvalidArgumentError("tensor: is undefined");
  }
  if (!tensor.is_contiguous()) {
    return absl::InvalidArgumentError("tensor: must be contiguous");
  }
  return absl::OkStatus();
}

absl::Status CheckRoot(int root, int world_size) {
  if (root >= 0 && root < world_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("root: must be in 0..", world_size - 1, ", is ", root));
}

}  // namespace grapnel
