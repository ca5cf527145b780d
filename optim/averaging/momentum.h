#ifndef GRAPNEL_OPTIM_AVERAGING_MOMENTUM_H_
#define GRAPNEL_OPTIM_AVERAGING_MOMENTUM_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace grapnel {

inline constexpr double kDefaultAverageMomentum = 0.0002;

// The weight of new values that a config asks for by `momentum` or by `decay`,
// its complement. kInvalidArgument, naming the field, if both are set or one is
// not in (0, 1).
absl::StatusOr<double> AverageMomentum(std::optional<double> momentum,
                                       std::optional<double> decay);

// The same of a config with these two fields.
template <typename Config>
absl::StatusOr<double> AverageMomentumOf(const Config& config) {
  std::optional<double> momentum, decay;
  if (config.has_momentum()) momentum = config.momentum();
  if (config.has_decay()) decay = config.decay();
  return AverageMomentum(momentum, decay);
}

// See AveragingStrategy::warnings: of a momentum above 0.5.
std::vector<std::string> AverageMomentumWarnings(double momentum);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_AVERAGING_MOMENTUM_H_
