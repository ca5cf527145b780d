// The processes of a run, as its configuration says who started them.

#ifndef GRAPNEL_RUNNER_LAUNCHER_H_
#define GRAPNEL_RUNNER_LAUNCHER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/process_group.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

using MakeGradientReducer =
    std::function<absl::StatusOr<std::unique_ptr<GradientReducer>>(
        ProcessGroup& group, const std::vector<NamedTensor>& params,
        const std::vector<NamedTensor>& buffers)>;

struct JoinedRanks {
  std::unique_ptr<ProcessGroup> group;
  MakeGradientReducer make_gradient_reducer;
};

// Joins the processes of RunnerConfig.launcher, with RunnerConfig.distributed
// and .device. Returns when all of them have called it, or with kCancelled once
// `interrupt`, which may be null, isn't 0. Errors name the field. Where one of
// several calls failed on some ranks alone, they don't find each other any more
// in the calls after it.
using JoinRanks = absl::StatusOr<JoinedRanks> (*)(
    const runner::v1::RunnerConfig& config, const std::atomic<int>* interrupt);

// What //runner:launchers, linked in, registers; null if it isn't. Of c10d,
// which who trains in one process needn't link.
void RegisterJoinRanks(JoinRanks join);
JoinRanks RegisteredJoinRanks();

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_LAUNCHER_H_
