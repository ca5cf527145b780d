#include "grapnel/models/supervised_model.h"

#include <utility>

#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {

SupervisedModel::SupervisedModel(std::unique_ptr<Loss> loss)
    : loss_(std::move(loss)) {}

absl::Status SupervisedModel::ComputeLosses(const Batch& batch,
                                            LogVars* losses) {
  if (loss_ == nullptr) {
    return absl::FailedPreconditionError("loss: must be set to train");
  }
  if (!batch.targets.defined()) {
    return absl::InvalidArgumentError(
        "the batch has no targets to compute a loss with");
  }
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor outputs, Forward(batch));
  return AddLoss(outputs, batch, losses);
}

absl::Status SupervisedModel::ValStep(const Batch& batch,
                                      Predictions* predictions) {
  const c10::AutoGradMode no_grad(false);
  predictions->losses.Clear();
  predictions->ignore_index.reset();
  GRAPNEL_ASSIGN_OR_RETURN(predictions->outputs, Forward(batch));
  if (loss_ == nullptr || !batch.targets.defined()) return absl::OkStatus();
  predictions->ignore_index = loss_->ignore_index();
  return AddLoss(predictions->outputs, batch, &predictions->losses);
}

absl::Status SupervisedModel::AddLoss(const at::Tensor& outputs,
                                      const Batch& batch,
                                      LogVars* losses) const {
  GRAPNEL_ASSIGN_OR_RETURN(at::Tensor loss, loss_->Compute(outputs, batch));
  at::Tensor weight;
  if (losses->wants_weights()) {
    GRAPNEL_ASSIGN_OR_RETURN(weight, loss_->Weight(outputs, batch));
  }
  losses->Add("loss", std::move(loss), std::move(weight));
  return absl::OkStatus();
}

}  // namespace grapnel
