// Gradients of many processes, averaged while they are computed.
//
// The interface that optim/ sees; dist/ddp has the one over LibTorch's Reducer.

#ifndef GRAPNEL_DIST_GRADIENT_REDUCER_H_
#define GRAPNEL_DIST_GRADIENT_REDUCER_H_

#include <cstdint>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/types/span.h"

namespace grapnel {

// Makes the gradients that a backward pass leaves in the parameters those of
// the mean of all ranks' losses. Around each iteration:
//
//   GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(sync));
//   const at::Tensor loss = ...;
//   GRAPNEL_RETURN_IF_ERROR(reducer->BeginBackward(loss));
//   const absl::Status backward = CatchAsStatus([&] {
//     loss.backward();
//     return absl::OkStatus();
//   });
//   GRAPNEL_RETURN_IF_ERROR(backward.ok()
//                               ? reducer->EndBackward()
//                               : reducer->EndFailedBackward(backward));
//
// All ranks do the same iterations with the same `sync`, and each goes backward
// in those with it: what one leaves out the others wait for. In an iteration
// without it gradients add up in the parameters, each rank's own; the next one
// with it averages their sum. They may be set by hand meanwhile, and dropped
// (made undefined) or set to zero after a step.
//
// Gradients that no such backward pass has left are averaged by
// AverageGradients instead, on all ranks.
//
// After an error, of backward(), where those of the collectives come out, or of
// this, gradients are in an unknown state, and every later call fails.
// Thread-compatible.
class GradientReducer {
 public:
  virtual ~GradientReducer() = default;

  // Before the first forward pass of an iteration. `sync`: whether gradients
  // are averaged in its backward pass. kFailedPrecondition if the backward pass
  // before it was begun and not ended.
  virtual absl::Status BeginForward(bool sync) = 0;

  // `loss`: what goes backward next, which has all of the iteration's graph.
  // Not copied, and kept until EndBackward. kFailedPrecondition without a
  // BeginForward before it.
  virtual absl::Status BeginBackward(const at::Tensor& loss) = 0;

  // When it is back. If gradients were averaged, they are there, or, on a
  // device, for what is launched after this. kFailedPrecondition, naming them,
  // if parameters got no gradient and that isn't allowed: the others' ranks
  // wait for those until their timeout.
  virtual absl::Status EndBackward() = 0;

  // Instead of EndBackward, when backward() failed. `failure`: its error. The
  // model's own is returned as it is; that of a collective with what is known
  // of it: another rank's message, if that one failed first.
  virtual absl::Status EndFailedBackward(const absl::Status& failure) = 0;

  // In an iteration with `sync`, in place of BeginBackward to EndBackward: the
  // gradients that are in the parameters, of whatever, become their means over
  // the ranks, where they are. One that is undefined on all ranks stays so.
  //
  // `counts`: false if this rank has no part in the mean: what it has no
  // gradient for is zero. One that counts must have those that another rank
  // has, unless parameters may be unused: kFailedPrecondition on every rank,
  // naming the first of them, if not. kFailedPrecondition without a
  // BeginForward(true) before it.
  virtual absl::Status AverageGradients(bool counts) = 0;

  // Each of `numbers` becomes its mean over the ranks, of the same bits on
  // each. On the host: waits for the other ranks, and for no device. Between
  // BeginForward(true) and what averages the gradients.
  virtual absl::Status AverageNumbers(absl::Span<double> numbers) = 0;

  // In which order the gradients are sent, by the numbers of their parameters:
  // on three ranks and more sums depend on it, as floating-point additions do.
  // Empty until it is known, or if it is always the same.
  virtual std::vector<int64_t> order() const = 0;

  // Sends them so from now on, as the reducer that `order` is of would have. A
  // collective, before the first BeginForward; all ranks give the same. One
  // that isn't of these parameters, and an empty one, changes nothing.
  virtual absl::Status SetOrder(const std::vector<int64_t>& order) = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_DIST_GRADIENT_REDUCER_H_
