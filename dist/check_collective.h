// What every process group refuses.

#ifndef GRAPNEL_DIST_CHECK_COLLECTIVE_H_
#define GRAPNEL_DIST_CHECK_COLLECTIVE_H_

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace grapnel {

// kInvalidArgument unless `tensor` is defined and its elements lie in memory in
// their order, without gaps, as backends need it.
inline absl::Status CheckCollectiveTensor(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return absl::InvalidArgumentError("tensor: is undefined");
  }
  if (!tensor.is_contiguous()) {
    return absl::InvalidArgumentError("tensor: must be contiguous");
  }
  return absl::OkStatus();
}

// kInvalidArgument unless `root` is a rank.
inline absl::Status CheckRoot(int root, int world_size) {
  if (root >= 0 && root < world_size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("root: must be in 0..", world_size - 1, ", is ", root));
}

}  // namespace grapnel

#endif  // GRAPNEL_DIST_CHECK_COLLECTIVE_H_
