// Losses between outputs and targets of one shape, averaged over all elements.

#include <cmath>
#include <memory>

#include "ATen/core/Reduction.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "grapnel/models/losses/target_checks.h"

namespace grapnel {
namespace {

at::Tensor Mse(const at::Tensor& outputs, const at::Tensor& targets) {
  return functional::mse_loss(outputs, targets, at::Reduction::Mean);
}

at::Tensor L1(const at::Tensor& outputs, const at::Tensor& targets) {
  return functional::l1_loss(outputs, targets, at::Reduction::Mean);
}

at::Tensor BceWithLogits(const at::Tensor& outputs, const at::Tensor& targets) {
  return functional::binary_cross_entropy_with_logits(outputs, targets, {}, {},
                                                      at::Reduction::Mean);
}

// Checks what it gets; Evaluate is the formula.
class ElementwiseLoss : public Loss {
 public:
  absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                     const Batch& batch) const final {
    GRAPNEL_RETURN_IF_ERROR(CheckFloating("outputs", outputs));
    GRAPNEL_RETURN_IF_ERROR(CheckFloating("targets", batch.targets));
    GRAPNEL_RETURN_IF_ERROR(CheckSameShape(outputs, batch.targets));
    at::Tensor loss;
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      loss = Evaluate(outputs, batch.targets);
      return absl::OkStatus();
    }));
    return loss;
  }

  absl::StatusOr<at::Tensor> Weight(const at::Tensor& outputs,
                                    const Batch& /*batch*/) const final {
    return ops::scalar_tensor(outputs.numel(), at::kDouble);
  }

 private:
  // May throw.
  virtual at::Tensor Evaluate(const at::Tensor& outputs,
                              const at::Tensor& targets) const = 0;
};

// A loss without options.
template <typename ConfigT,
          at::Tensor (*kFunction)(const at::Tensor&, const at::Tensor&)>
class PlainLoss : public ElementwiseLoss {
 public:
  using Config = ConfigT;

  static absl::StatusOr<std::unique_ptr<Loss>> Create(
      const Config& /*config*/) {
    return std::make_unique<PlainLoss>();
  }

 private:
  at::Tensor Evaluate(const at::Tensor& outputs,
                      const at::Tensor& targets) const override {
    return kFunction(outputs, targets);
  }
};

using MseLoss = PlainLoss<models::v1::MseLossConfig, &Mse>;
using L1Loss = PlainLoss<models::v1::L1LossConfig, &L1>;
using BceWithLogitsLoss =
    PlainLoss<models::v1::BceWithLogitsLossConfig, &BceWithLogits>;

class SmoothL1Loss : public ElementwiseLoss {
 public:
  using Config = models::v1::SmoothL1LossConfig;

  static absl::StatusOr<std::unique_ptr<Loss>> Create(const Config& config) {
    const double beta = config.has_beta() ? config.beta() : 1;
    GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(beta) && beta > 0, "beta",
                                       "finite and > 0", beta));
    return std::make_unique<SmoothL1Loss>(beta);
  }

  explicit SmoothL1Loss(double beta) : beta_(beta) {}

 private:
  at::Tensor Evaluate(const at::Tensor& outputs,
                      const at::Tensor& targets) const override {
    return functional::smooth_l1_loss(outputs, targets, at::Reduction::Mean,
                                      beta_);
  }

  const double beta_;
};

GRAPNEL_REGISTER(LossRegistry, MseLoss);
GRAPNEL_REGISTER(LossRegistry, L1Loss);
GRAPNEL_REGISTER(LossRegistry, SmoothL1Loss);
GRAPNEL_REGISTER(LossRegistry, BceWithLogitsLoss);

}  // namespace
}  // namespace grapnel
