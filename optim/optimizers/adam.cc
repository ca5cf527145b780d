// torch.optim.Adam and AdamW: all in common but the kernel and one default.

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/foreach_ops.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/fused_optimizer.h"

namespace grapnel {
namespace {

using AdamKernel = void (*)(at::TensorList, at::TensorList, at::TensorList,
                            at::TensorList, at::TensorList, at::TensorList,
                            double, double, double, double, double, bool, bool,
                            const std::optional<at::Tensor>&,
                            const std::optional<at::Tensor>&);

// The rule of `config`, an AdamConfig or an AdamWConfig, without regard to
// which.
template <typename Config>
absl::StatusOr<FusedRule> MakeAdamRule(std::string type, const Config& config,
                                       double default_weight_decay,
                                       AdamKernel kernel) {
  const double lr = config.has_lr() ? config.lr() : 0.001;
  const double beta1 = config.has_beta1() ? config.beta1() : 0.9;
  const double beta2 = config.has_beta2() ? config.beta2() : 0.999;
  const double eps = config.has_eps() ? config.eps() : 1e-8;
  const double weight_decay =
      config.has_weight_decay() ? config.weight_decay() : default_weight_decay;
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(std::isfinite(lr) && lr >= 0, "lr", "finite and >= 0", lr));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(beta1 >= 0 && beta1 < 1, "beta1", "in [0, 1)", beta1));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(beta2 >= 0 && beta2 < 1, "beta2", "in [0, 1)", beta2));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(std::isfinite(eps) && eps > 0, "eps", "finite and > 0", eps));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(std::isfinite(weight_decay) && weight_decay >= 0,
                 "weight_decay", "finite and >= 0", weight_decay));
  const bool amsgrad = config.amsgrad();
  const bool maximize = config.maximize();

  FusedRule rule;
  rule.type = std::move(type);
  rule.options = {{"lr", lr},
                  {"beta1", beta1},
                  {"beta2", beta2},
                  {"weight_decay", weight_decay},
                  {"eps", eps}};
  rule.slots = {"exp_avg", "exp_avg_sq"};
  if (amsgrad) rule.slots.push_back("max_exp_avg_sq");
  rule.counts_steps = true;
  rule.apply = [kernel, amsgrad, maximize](const std::vector<double>& options,
                                           FusedBatch& batch) {
    kernel(batch.params, batch.grads, batch.slots[0], batch.slots[1],
           amsgrad ? at::TensorList(batch.slots[2]) : at::TensorList(),
           batch.steps, options[0], options[1], options[2], options[3],
           options[4], amsgrad, maximize, std::nullopt, OverflowOf(batch));
  };
  return rule;
}

struct Adam {
  using Config = optim::v1::AdamConfig;
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(
      const Config& config, std::vector<ParamGroup> groups) {
    GRAPNEL_ASSIGN_OR_RETURN(
        FusedRule rule,
        MakeAdamRule("Adam", config, /*default_weight_decay=*/0,
                     static_cast<AdamKernel>(&ops::fused_adam_)));
    return MakeFusedOptimizer(std::move(rule), std::move(groups));
  }
};

GRAPNEL_REGISTER(OptimizerRegistry, Adam);

struct AdamW {
  using Config = optim::v1::AdamWConfig;
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(
      const Config& config, std::vector<ParamGroup> groups) {
    GRAPNEL_ASSIGN_OR_RETURN(
        FusedRule rule,
        MakeAdamRule("AdamW", config, /*default_weight_decay=*/0.01,
                     static_cast<AdamKernel>(&ops::fused_adamw_)));
    return MakeFusedOptimizer(std::move(rule), std::move(groups));
  }
};

GRAPNEL_REGISTER(OptimizerRegistry, AdamW);

}  // namespace
}  // namespace grapnel
