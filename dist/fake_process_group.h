// Many ranks in one process, for tests: each is a thread.

#ifndef GRAPNEL_DIST_FAKE_PROCESS_GROUP_H_
#define GRAPNEL_DIST_FAKE_PROCESS_GROUP_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

// The ends of one group of `world_size` ranks, by rank; tensors are on the CPU.
// Ranks that call different collectives, or with different tensors, all get
// kInvalidArgument; those that wait longer than `timeout` for another one,
// kDeadlineExceeded. All are on one machine, by local_rank(). Each end is for
// one thread at a time.
std::vector<std::unique_ptr<ProcessGroup>> CreateFakeProcessGroups(
    int world_size, absl::Duration timeout = absl::Seconds(60));

// Calls `body` for every rank of such a group, each in a thread of its own, and
// returns what they returned, by rank.
std::vector<absl::Status> RunRanks(
    int world_size, const std::function<absl::Status(ProcessGroup&)>& body,
    absl::Duration timeout = absl::Seconds(60));

}  // namespace grapnel

#endif  // GRAPNEL_DIST_FAKE_PROCESS_GROUP_H_
