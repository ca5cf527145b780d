// The group of a process that trains alone.

#ifndef GRAPNEL_DIST_SINGLE_PROCESS_GROUP_H_
#define GRAPNEL_DIST_SINGLE_PROCESS_GROUP_H_

#include "grapnel/dist/process_group.h"

namespace grapnel {

// One rank: every collective is done at once. Safe to use from many threads.
class SingleProcessGroup final : public ProcessGroup {
 public:
  int rank() const override { return 0; }
  int world_size() const override { return 1; }
  absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) override;
  absl::Status Broadcast(const at::Tensor& tensor, int root) override;
  absl::Status Barrier() override { return absl::OkStatus(); }
};

}  // namespace grapnel

#endif  // GRAPNEL_DIST_SINGLE_PROCESS_GROUP_H_
