// The half-filled accumulation windows of several ranks, in a checkpoint.
//
// Gradients in them are each rank's own, and so are their weights. All of them
// are saved: with as many ranks each goes on with its own, and with another
// number all go on with their mean.

#ifndef GRAPNEL_RUNNER_RANK_WINDOWS_H_
#define GRAPNEL_RUNNER_RANK_WINDOWS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"

namespace grapnel::optim::v1 {
class OptimWrapperState;
}  // namespace grapnel::optim::v1

namespace grapnel::runner::v1 {
class RankState;
class RunState;
}  // namespace grapnel::runner::v1

namespace grapnel {

// Sets `rank->windows` to what of `state` is a rank's own.
void SaveRankWindows(const optim::v1::OptimWrapperState& state,
                     runner::v1::RankState* rank);

// Gradients by rank as one section, "rank_0/<name>" and so on.
absl::StatusOr<TensorMap> JoinRankGradients(
    const std::vector<TensorMap>& gradients);

// Makes of `*optim`, which is rank 0's, and of `*gradients`, the section that
// was saved, what `rank` of `world_size` goes on with. Of `state`, as many
// ranks or others have saved theirs, or one process its own, or, in older
// checkpoints, the ranks their mean. Adds a line to `*warnings` where gradients
// aren't the rank's own. kDataLoss: what ranks have saved doesn't fit together.
absl::Status RestoreRankWindows(const runner::v1::RunState& state, int rank,
                                int world_size,
                                optim::v1::OptimWrapperState* optim,
                                TensorMap* gradients,
                                std::vector<std::string>* warnings);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RANK_WINDOWS_H_
