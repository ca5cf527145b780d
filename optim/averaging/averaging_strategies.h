// Our ways to average, without a config: averaging.proto says what each does
// and what its options may be. kInvalidArgument, naming the option, for others.

#ifndef GRAPNEL_OPTIM_AVERAGING_AVERAGING_STRATEGIES_H_
#define GRAPNEL_OPTIM_AVERAGING_AVERAGING_STRATEGIES_H_

#include <memory>

#include "absl/status/statusor.h"
#include "grapnel/optim/averaging/averaging_strategy.h"

namespace grapnel {

absl::StatusOr<std::unique_ptr<AveragingStrategy>> EMAStrategy(double momentum);
absl::StatusOr<std::unique_ptr<AveragingStrategy>> MomentumAnnealingEMAStrategy(
    double momentum, double gamma);
absl::StatusOr<std::unique_ptr<AveragingStrategy>> SWAStrategy();

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_AVERAGING_AVERAGING_STRATEGIES_H_
