// torch.optim.AdamW.

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/foreach_ops.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/adam_rule.h"
#include "grapnel/optim/optimizers/fused_optimizer.h"

namespace grapnel {
namespace {

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
