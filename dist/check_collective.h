// What every process group refuses.

#ifndef GRAPNEL_DIST_CHECK_COLLECTIVE_H_
#define GRAPNEL_DIST_CHECK_COLLECTIVE_H_

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"

namespace grapnel {

// kInvalidArgument unless `tensor` is defined and its elements lie in memory in
// their order, without gaps, as backends need it.
absl::Status CheckCollectiveTensor(const at::Tensor& tensor);

// kInvalidArgument unless `root` is a rank.
absl::Status CheckRoot(int root, int world_size);

}  // namespace grapnel

#endif  // GRAPNEL_DIST_CHECK_COLLECTIVE_H_
