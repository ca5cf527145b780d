#include <cmath>
#include <cstdint>
#include <memory>

#include "absl/memory/memory.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "averaging/polynomial_average.pb.h"
#include "grapnel/optim/averaging/averaging_strategy.h"

namespace acme {

// O. Shamir and T. Zhang, "Stochastic Gradient Descent for Non-smooth
// Optimization", 2013.
class PolynomialAverage final : public grapnel::AveragingStrategy {
 public:
  using Config = PolynomialAverageConfig;

  static absl::StatusOr<std::unique_ptr<PolynomialAverage>> Create(
      const Config& config) {
    if (!(std::isfinite(config.eta()) && config.eta() >= 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("eta: must be finite and >= 0, is ", config.eta()));
    }
    return absl::WrapUnique(new PolynomialAverage(config.eta()));
  }

  grapnel::Mixture MixtureAt(int64_t steps, int64_t interval) const override {
    const double k = static_cast<double>(steps / interval);
    return {(eta_ + 1) / (k + 1 + eta_)};
  }

 private:
  explicit PolynomialAverage(double eta) : eta_(eta) {}

  const double eta_;
};

GRAPNEL_REGISTER(grapnel::AveragingStrategyRegistry, PolynomialAverage);

}  // namespace acme
