#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/averaging/averaging.pb.h"
#include "grapnel/optim/averaging/averaging_strategy.h"
#include "grapnel/optim/averaging/momentum.h"

namespace grapnel {
namespace {

class MomentumAnnealingEma final : public AveragingStrategy {
 public:
  using Config = optim::v1::MomentumAnnealingEmaConfig;

  static absl::StatusOr<std::unique_ptr<MomentumAnnealingEma>> Create(
      const Config& config) {
    GRAPNEL_ASSIGN_OR_RETURN(const double momentum, AverageMomentumOf(config));
    const double gamma = config.has_gamma() ? config.gamma() : 100;
    GRAPNEL_RETURN_IF_ERROR(CheckField(std::isfinite(gamma) && gamma > 0,
                                       "gamma", "finite and > 0", gamma));
    return absl::WrapUnique(new MomentumAnnealingEma(momentum, gamma));
  }

  Mixture MixtureAt(int64_t steps, int64_t) const override {
    return {
        std::max(momentum_, gamma_ / (gamma_ + static_cast<double>(steps)))};
  }

  std::vector<std::string> warnings() const override {
    return AverageMomentumWarnings(momentum_);
  }

 private:
  MomentumAnnealingEma(double momentum, double gamma)
      : momentum_(momentum), gamma_(gamma) {}

  const double momentum_, gamma_;
};

GRAPNEL_REGISTER(AveragingStrategyRegistry, MomentumAnnealingEma);

}  // namespace
}  // namespace grapnel
