// Processes that train one model together.
//
// The interface that hooks, optimizer wrappers and metrics see. A process alone
// has a SingleProcessGroup; tests of many run ranks as threads
// (fake_process_group.h).

#ifndef GRAPNEL_DIST_PROCESS_GROUP_H_
#define GRAPNEL_DIST_PROCESS_GROUP_H_

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"

namespace grapnel {

// How values of several ranks become one.
enum class ReduceOp { kSum, kMin, kMax };

// One rank's end of a group. Every collective is called by all ranks, in the
// same order and with tensors of the same shape, dtype and kind of device; it
// returns when the result is there or, for a device, when what is launched
// after it sees it.
//
// A collective that fails leaves tensors in an unknown state and the group
// unusable: ranks can't know how far the others came. Thread-compatible.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  virtual int rank() const = 0;        // 0..world_size() - 1
  virtual int world_size() const = 0;  // >= 1

  // `tensor`: dense, any dtype that the backend reduces; all have float32,
  // float64 and int64. It becomes the reduction over all ranks, of the same
  // bits on each. Integer sums wrap round.
  virtual absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) = 0;

  // `tensor`: dense, any dtype; it becomes what it is on rank `root`.
  // kInvalidArgument if there is no such rank.
  virtual absl::Status Broadcast(const at::Tensor& tensor, int root) = 0;

  // Returns once every rank has called it.
  virtual absl::Status Barrier() = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_DIST_PROCESS_GROUP_H_
