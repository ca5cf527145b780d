#include "grapnel/dist/single_process_group.h"

#include "grapnel/base/status_macros.h"
#include "grapnel/dist/check_collective.h"

namespace grapnel {

absl::Status SingleProcessGroup::AllReduce(const at::Tensor& tensor, ReduceOp) {
  return CheckCollectiveTensor(tensor);
}

absl::Status SingleProcessGroup::Broadcast(const at::Tensor& tensor, int root) {
  GRAPNEL_RETURN_IF_ERROR(CheckRoot(root, world_size()));
  return CheckCollectiveTensor(tensor);
}

absl::StatusOr<std::vector<std::string>> SingleProcessGroup::AllGather(
    absl::string_view bytes) {
  return std::vector<std::string>{std::string(bytes)};
}

}  // namespace grapnel
