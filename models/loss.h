// Losses: an open set. models/losses/cross_entropy_loss.cc is the file to
// imitate.
//
// N samples, C classes.

#ifndef GRAPNEL_MODELS_LOSS_H_
#define GRAPNEL_MODELS_LOSS_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "grapnel/base/registry.h"
#include "grapnel/data/sample.h"

namespace grapnel {

// Thread-compatible.
class Loss {
 public:
  virtual ~Loss() = default;

  // The mean loss over the batch, a floating scalar that autograd knows.
  // outputs: (N, ...), floating, the model's. Where nothing counts: 0, with
  // gradients of 0. kInvalidArgument, with both shapes, if outputs and targets
  // don't fit.
  virtual absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                             const Batch& batch) const = 0;

  // What the mean was divided by, so that means of batches make that of all of
  // them: a float64 scalar, finite, >= 0; 0 where nothing counts. On the CPU if
  // it is known there, else on the outputs' device, and not waited for. Asked
  // for after Compute gave a value for the same arguments, in evaluations and
  // with accumulate_by: SAMPLES only. Default: the number of samples.
  virtual absl::StatusOr<at::Tensor> Weight(const at::Tensor& outputs,
                                            const Batch& batch) const;

  // Targets of this value don't count; metrics take it over. Default: all do.
  virtual std::optional<int64_t> ignore_index() const { return std::nullopt; }
};

struct LossTraits {
  using Product = std::unique_ptr<Loss>;
  static constexpr char kWhat[] = "loss";
};
using LossRegistry = Registry<LossTraits>;

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LOSS_H_
