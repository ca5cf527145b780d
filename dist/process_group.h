// Processes that train one model together.
//
// The interface that hooks, optimizer wrappers and metrics see. A process alone
// has a SingleProcessGroup, one of many what JoinProcessGroup gives
// (c10d_process_group.h); tests of many run ranks as threads
// (fake_process_group.h).

#ifndef GRAPNEL_DIST_PROCESS_GROUP_H_
#define GRAPNEL_DIST_PROCESS_GROUP_H_

#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// How values of several ranks become one.
enum class ReduceOp { kSum, kMin, kMax };

// One rank's end of a group. Every collective is called by all ranks, in the
// same order and with tensors of the same shape, dtype and kind of device; it
// returns when the result is there or, for a device, when what is launched
// after it sees it.
//
// Besides what is said below a collective fails with
//   kInvalidArgument   its arguments are wrong, and nothing was sent
//   kDeadlineExceeded  a rank didn't come within the group's timeout
//   kUnavailable       a rank has ended, or ended its part (ReportFailure)
// and if a rank has reported a failure, its number and message are in the
// error's, whatever the code. Not all ranks need see the same code: of those
// that wait for each other one may see the deadline first, and the others that
// it ended.
//
// A collective that fails otherwise than by its arguments leaves tensors in an
// unknown state and the group unusable: ranks can't know how far the others
// came. Thread-compatible.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  virtual int rank() const = 0;        // 0..world_size() - 1
  virtual int world_size() const = 0;  // >= 1

  // The rank among those of its machine: 0, 1, ...
  virtual int local_rank() const = 0;

  // For logs: "gloo, rank 1 of 4".
  virtual std::string description() const = 0;

  // `tensor`: dense, any dtype that the backend reduces; all have float32,
  // float64 and int64. It becomes the reduction over all ranks, of the same
  // bits on each. Integer sums wrap round.
  virtual absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) = 0;

  // `tensor`: dense, any dtype; it becomes what it is on rank `root`.
  // kInvalidArgument if there is no such rank.
  virtual absl::Status Broadcast(const at::Tensor& tensor, int root) = 0;

  // Every rank's bytes, by rank, on every rank. Lengths may differ, and may be
  // 0. All of it is in memory on each rank, rounded up to the longest.
  virtual absl::StatusOr<std::vector<std::string>> AllGather(
      absl::string_view bytes) = 0;

  // Returns once every rank has called it.
  virtual absl::Status Barrier() = 0;

  // This rank's part ends here, because of `failure`, which is not OK: what the
  // others call, or wait in, fails with its message. No collective: call it
  // where the failure is found. Only a group's first counts, later ones do
  // nothing, so that what follows from another rank's failure may be reported
  // too. Safe to call while another thread is in a collective. A process alone
  // has nobody to tell: there it does nothing.
  virtual void ReportFailure(const absl::Status& failure) = 0;

  // What was reported first, by any rank: its code, and "rank 2: " in front of
  // its message. OK if nothing was, or if it can't be known any more. No
  // collective, and for a group of many processes a round trip of its own.
  virtual absl::Status FirstFailure() = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_DIST_PROCESS_GROUP_H_
