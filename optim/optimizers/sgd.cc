// torch.optim.SGD.

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/foreach_ops.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/fused_optimizer.h"

namespace grapnel {
namespace {

struct Sgd {
  using Config = optim::v1::SgdConfig;
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(
      const Config& config, std::vector<ParamGroup> groups);
};

enum Option { kLr, kWeightDecay, kMomentum, kDampening };

absl::StatusOr<std::unique_ptr<Optimizer>> Sgd::Create(
    const Config& config, std::vector<ParamGroup> groups) {
  const double lr = config.has_lr() ? config.lr() : 0.001;
  const double momentum = config.momentum();
  const double dampening = config.dampening();
  const double weight_decay = config.weight_decay();
  const bool nesterov = config.nesterov();
  const bool maximize = config.maximize();
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(std::isfinite(lr) && lr >= 0, "lr", "finite and >= 0", lr));
  GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(momentum) && momentum >= 0,
                                     "momentum", "finite and >= 0", momentum));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(std::isfinite(dampening), "dampening", "finite", dampening));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(std::isfinite(weight_decay) && weight_decay >= 0,
                 "weight_decay", "finite and >= 0", weight_decay));
  if (nesterov && (momentum == 0 || dampening != 0)) {
    return absl::InvalidArgumentError(
        "nesterov: needs momentum > 0 and dampening 0");
  }

  FusedRule rule;
  rule.type = "SGD";
  rule.options = {{"lr", lr}, {"weight_decay", weight_decay}};
  if (momentum > 0) {
    rule.options.push_back({"momentum", momentum});
    rule.options.push_back({"dampening", dampening});
    rule.slots = {"momentum_buffer"};
  }
  rule.first_step_differs = [](const std::vector<double>& options) {
    return options.size() > kDampening && options[kMomentum] != 0 &&
           options[kDampening] != 0;
  };
  rule.apply = [nesterov, maximize](const std::vector<double>& options,
                                    FusedBatch& batch) {
    // Decided again in every step: a schedule may have brought it to 0, and the
    // kernel wants no buffers then.
    const double momentum = batch.slots.empty() ? 0 : options[kMomentum];
    batch.slots_used = momentum != 0;
    ops::fused_sgd_(
        batch.params, batch.grads,
        batch.slots_used ? at::TensorList(batch.slots[0]) : at::TensorList(),
        options[kWeightDecay], momentum, options[kLr],
        batch.slots_used ? options[kDampening] : 0,
        nesterov && batch.slots_used, maximize, batch.first_step, std::nullopt,
        OverflowOf(batch));
  };
  return MakeFusedOptimizer(std::move(rule), std::move(groups));
}

GRAPNEL_REGISTER(OptimizerRegistry, Sgd);

}  // namespace
}  // namespace grapnel
