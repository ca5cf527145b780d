// Data-parallel training by LibTorch's own Reducer, the one behind Python's
// DistributedDataParallel.

#ifndef GRAPNEL_DIST_DDP_DDP_REDUCER_H_
#define GRAPNEL_DIST_DDP_DDP_REDUCER_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

// Named as DistributedDataParallel's arguments. The same on all ranks.
struct DdpOptions {
  // Lets parameters have no gradient in an iteration: those that the loss isn't
  // computed from on any rank keep what they have, undefined after a step was
  // made; of the others the ranks that don't use them count as zero. Costs a
  // walk through the graph and a small collective each iteration.
  bool find_unused_parameters = false;

  // Promises that every averaged backward pass uses the same parameters, each
  // as often as in the first one. Those that are never used are allowed without
  // find_unused_parameters. The first one doesn't overlap with communication.
  bool static_graph = false;

  // Before the first forward pass, and then before the first one after each
  // iteration whose gradients were averaged, the buffers become rank 0's. In
  // MMEngine's runs they don't, in DistributedDataParallel's they do.
  bool broadcast_buffers = false;

  // MiB of gradients that are sent as one; finite and > 0. Unset: 25, and 1 for
  // those that are ready first.
  std::optional<double> bucket_cap_mb;

  // What gradients are sent in, halving what is sent and rounding them.
  enum class Compression { kNone, kFloat16, kBFloat16 };
  Compression compression = Compression::kNone;
};

// A reducer of the gradients of `params` that require one. A collective: first
// the ranks compare names, shapes, strides and dtypes of all tensors, which of
// them require gradients, and the options; kFailedPrecondition on every rank,
// naming the first that differs. Then parameters and buffers become rank 0's.
//
// Gradients have the bits that DistributedDataParallel gives with
// gradient_as_bucket_view. One that a backward pass averaged is a view into the
// memory of a bucket, with the parameter's strides, which the next averaged
// backward pass writes to: copy what has to outlive it. Of gradients that are
// undefined or elsewhere in memory before an averaged backward pass the values
// go into the buckets, and the gradients become views; so one set of gradients
// is held all the time, and in accumulation windows a second one.
// AverageGradients copies them into a bucket and back, one bucket after the
// other, and asks all ranks first which they have. On two ranks that gives a
// backward pass's bits; on more the ranks may be added up in another order.
//
// `group`: what JoinProcessGroup gave for several processes; outlives the
// reducer. kInvalidArgument for another one. `params`, `buffers`: with unique
// names, all on one device, where they stay as long as the reducer lives. A
// tensor that is there twice counts once. A parameter that two reducers have is
// averaged by both. kInvalidArgument also if no parameter requires a gradient,
// and for an option, which it names.
absl::StatusOr<std::unique_ptr<GradientReducer>> CreateDdpReducer(
    ProcessGroup& group, const std::vector<NamedTensor>& params,
    const std::vector<NamedTensor>& buffers, const DdpOptions& options);

}  // namespace grapnel

#endif  // GRAPNEL_DIST_DDP_DDP_REDUCER_H_
