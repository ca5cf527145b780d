#include "grapnel/optim/averaging/averaging_strategies.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/averaging/averaging.pb.h"
#include "grapnel/optim/averaging/averaging_strategy.h"

namespace grapnel {
namespace {

constexpr double kDefaultAverageMomentum = 0.0002;

// The weight of new values that a config asks for by `momentum` or by `decay`,
// its complement. kInvalidArgument, naming the field, if both are set or one is
// not in (0, 1).
template <typename Config>
absl::StatusOr<double> AverageMomentum(const Config& config) {
  constexpr char kRange[] = "> 0 and < 1";
  double momentum =
      config.has_momentum() ? config.momentum() : kDefaultAverageMomentum;
  if (config.has_decay()) {
    const double decay = config.decay();
    if (config.has_momentum()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decay: is ", decay, " and momentum ", momentum,
          ": one is 1 minus the other, and at most one may be set"));
    }
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(decay > 0 && decay < 1, "decay", kRange, decay));
    momentum = 1 - decay;
  }
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(momentum > 0 && momentum < 1, "momentum", kRange, momentum));
  return momentum;
}

// See AveragingStrategy::warnings: of a momentum above 0.5.
std::vector<std::string> AverageMomentumWarnings(double momentum) {
  if (momentum <= 0.5) return {};
  return {absl::StrCat("momentum: is ", momentum,
                       ", the weight of the new value, and so hardly an "
                       "average; for a decay of ",
                       momentum, " set decay")};
}

class ExponentialMovingAverage final : public AveragingStrategy {
 public:
  using Config = optim::v1::ExponentialMovingAverageConfig;

  static absl::StatusOr<std::unique_ptr<ExponentialMovingAverage>> Create(
      const Config& config) {
    GRAPNEL_ASSIGN_OR_RETURN(const double momentum, AverageMomentum(config));
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

class MomentumAnnealingEma final : public AveragingStrategy {
 public:
  using Config = optim::v1::MomentumAnnealingEmaConfig;

  static absl::StatusOr<std::unique_ptr<MomentumAnnealingEma>> Create(
      const Config& config) {
    GRAPNEL_ASSIGN_OR_RETURN(const double momentum, AverageMomentum(config));
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

absl::StatusOr<std::unique_ptr<AveragingStrategy>> EMAStrategy(
    double momentum) {
  optim::v1::ExponentialMovingAverageConfig config;
  config.set_momentum(momentum);
  return ExponentialMovingAverage::Create(config);
}

absl::StatusOr<std::unique_ptr<AveragingStrategy>> MomentumAnnealingEMAStrategy(
    double momentum, double gamma) {
  optim::v1::MomentumAnnealingEmaConfig config;
  config.set_momentum(momentum);
  config.set_gamma(gamma);
  return MomentumAnnealingEma::Create(config);
}

absl::StatusOr<std::unique_ptr<AveragingStrategy>> SWAStrategy() {
  return StochasticWeightAverage::Create({});
}

}  // namespace grapnel
