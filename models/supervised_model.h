// The usual model: outputs from inputs, and one loss between outputs and
// targets. A base for models in C++; for a torch::nn::Module see nn_model.h.

#ifndef GRAPNEL_MODELS_SUPERVISED_MODEL_H_
#define GRAPNEL_MODELS_SUPERVISED_MODEL_H_

#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/model.h"

namespace grapnel {

// Its one loss is logged as "loss". Thread-compatible.
class SupervisedModel : public Model {
 public:
  // (N, ...) outputs for a batch, in the current mode of training and autograd.
  virtual absl::StatusOr<at::Tensor> Forward(const Batch& batch) = 0;

  // kFailedPrecondition if there is no loss, kInvalidArgument if there are no
  // targets.
  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override;

  absl::Status ValStep(const Batch& batch, Predictions* predictions) override;

 protected:
  // `loss` may be null: the model then gives outputs and can't be trained.
  explicit SupervisedModel(std::unique_ptr<Loss> loss);

 private:
  absl::Status AddLoss(const at::Tensor& outputs, const Batch& batch,
                       LogVars* losses) const;

  const std::unique_ptr<Loss> loss_;
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_SUPERVISED_MODEL_H_
