// Losses: an open set. models/losses/cross_entropy_loss.cc is the file to
// imitate.
//
// N samples, C classes.

#ifndef GRAPNEL_MODELS_LOSS_H_
#define GRAPNEL_MODELS_LOSS_H_

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
  // outputs: (N, ...), floating, the model's. kInvalidArgument, with both
  // shapes, if outputs and targets don't fit.
  virtual absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                             const Batch& batch) const = 0;
};

struct LossTraits {
  using Product = Loss;
  static constexpr char kWhat[] = "loss";
};
using LossRegistry = Registry<LossTraits>;

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LOSS_H_
