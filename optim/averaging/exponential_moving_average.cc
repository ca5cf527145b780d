#include <memory>
#include <string>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/averaging/averaging.pb.h"
#include "grapnel/optim/averaging/averaging_strategy.h"
#include "grapnel/optim/averaging/momentum.h"

namespace grapnel {
namespace {

class ExponentialMovingAverage final : public AveragingStrategy {
 public:
  using Config = optim::v1::ExponentialMovingAverageConfig;

  static absl::StatusOr<std::unique_ptr<ExponentialMovingAverage>> Create(
      const Config& config) {
    GRAPNEL_ASSIGN_OR_RETURN(const double momentum, AverageMomentumOf(config));
    return absl::WrapUnique(new ExponentialMovingAverage(momentum));
  }

  Mixture MixtureAt(int64_t, int64_t) const override { return {momentum_}; }

  std::vector<std::string> warnings() const override {
    return AverageMomentumWarnings(momentum_);
  }

 private:
  explicit ExponentialMovingAverage(double momentum) : momentum_(momentum) {}

  const double momentum_;
};

GRAPNEL_REGISTER(AveragingStrategyRegistry, ExponentialMovingAverage);

}  // namespace
}  // namespace grapnel
