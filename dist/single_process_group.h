// The group of a process that trains alone.

#ifndef GRAPNEL_DIST_SINGLE_PROCESS_GROUP_H_
#define GRAPNEL_DIST_SINGLE_PROCESS_GROUP_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

// One rank: every collective is done at once. Safe to use from many threads.
class SingleProcessGroup final : public ProcessGroup {
 public:
  int rank() const override { return 0; }
  int world_size() const override { return 1; }
  int local_rank() const override { return 0; }
  std::string description() const override { return "one process"; }
  absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) override;
  absl::Status Broadcast(const at::Tensor& tensor, int root) override;
  absl::StatusOr<std::vector<std::string>> AllGather(
      absl::string_view bytes) override;
  absl::Status Barrier() override { return absl::OkStatus(); }
  void ReportFailure(const absl::Status&) override {}
  absl::Status FirstFailure() override { return absl::OkStatus(); }
};

}  // namespace grapnel

#endif  // GRAPNEL_DIST_SINGLE_PROCESS_GROUP_H_
