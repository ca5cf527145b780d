// What the ranks of a run tell each other, so that they do the same.
//
// Each function is a collective: all ranks call it, in the same order. With one
// rank they do nothing.

#ifndef GRAPNEL_RUNNER_RANK_AGREEMENT_H_
#define GRAPNEL_RUNNER_RANK_AGREEMENT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/io/checkpoint.h"

namespace grapnel {

// The rank that writes files and logs, and whose word counts.
inline bool IsMaster(const ProcessGroup& group) { return group.rank() == 0; }

// OK if it is on all ranks. Else each rank has an error: its own or, if it has
// none, that of the first rank that has one, with "rank 1: " in front.
absl::Status AgreeOnStatus(ProcessGroup& group, const absl::Status& own);

// What rank 0 gives, on every rank.
absl::StatusOr<std::string> FromMaster(ProcessGroup& group,
                                       const std::string& bytes);

// Every rank's bytes, by rank, if `own` is OK on all; else as AgreeOnStatus.
absl::StatusOr<std::vector<std::string>> GatherIfOk(ProcessGroup& group,
                                                    const absl::Status& own,
                                                    absl::string_view bytes);

// Rank 0's contents, on every rank; tensors on the CPU. So a folder that only
// rank 0 sees is enough. The others' `*contents` are replaced.
absl::Status ShareContents(ProcessGroup& group,
                           io::CheckpointContents* contents);

// Every rank's tensors, by rank, on rank 0; on the others, nothing. Names and
// shapes may differ. Rank 0's own are not copied, those of other ranks come to
// the CPU; on each other rank that takes a copy there of its own, if they
// aren't there, and room for the largest of all. What one rank fails with
// before anything is sent, all do.
absl::StatusOr<std::vector<TensorMap>> GatherTensors(ProcessGroup& group,
                                                     const TensorMap& own);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RANK_AGREEMENT_H_
