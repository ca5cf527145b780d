#include <memory>

#include "absl/status/statusor.h"
#include "grapnel/optim/averaging/averaging.pb.h"
#include "grapnel/optim/averaging/averaging_strategy.h"

namespace grapnel {
namespace {

class StochasticWeightAverage final : public AveragingStrategy {
 public:
  using Config = optim::v1::StochasticWeightAverageConfig;

  static absl::StatusOr<std::unique_ptr<StochasticWeightAverage>> Create(
      const Config&) {
    return std::make_unique<StochasticWeightAverage>();
  }

  // With this the n + 1 values that were averaged have the same weight.
  Mixture MixtureAt(int64_t steps, int64_t interval) const override {
    const auto averaged = static_cast<double>(steps / interval);
    return {1 / (averaged + 1), Mixture::Form::kAdd};
  }
};

GRAPNEL_REGISTER(AveragingStrategyRegistry, StochasticWeightAverage);

}  // namespace
}  // namespace grapnel
