// Buffers in which the ranks of a run differ, such as batch norm's running
// statistics where nothing makes them one, in a checkpoint:
//
//   section "rank_buffers"  "<rank>/<buffer>", of each rank but the first whose
//                           buffer isn't the first one's, bit for bit

#ifndef GRAPNEL_RUNNER_RANK_BUFFERS_H_
#define GRAPNEL_RUNNER_RANK_BUFFERS_H_

#include <vector>

#include "absl/status/status.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/io/checkpoint.h"

namespace grapnel {

// Adds the section, on the CPU, on rank 0, which writes it; none where ranks
// don't differ. A collective: with one rank it does nothing. Costs a digest of
// each buffer; those that differ are sent and held as GatherTensors does.
absl::Status AddRankBuffers(ProcessGroup& group,
                            const std::vector<NamedTensor>& buffers,
                            io::CheckpointContents* contents);

// Copies this rank's buffers of the section into `buffers`, which have the
// first one's. Does nothing if the checkpoint is of another number of ranks: no
// rank is then the one that it was. kInvalidArgument for a tensor that isn't
// among the buffers or has another shape.
absl::Status LoadRankBuffers(const io::CheckpointContents& contents,
                             const ProcessGroup& group,
                             const std::vector<NamedTensor>& buffers);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RANK_BUFFERS_H_
