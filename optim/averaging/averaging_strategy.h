// Which weight new values have in an average.

#ifndef GRAPNEL_OPTIM_AVERAGING_AVERAGING_STRATEGY_H_
#define GRAPNEL_OPTIM_AVERAGING_AVERAGING_STRATEGY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grapnel/base/registry.h"
#include "grapnel/optim/averaging/mixture.h"

namespace grapnel {

// The rule of an averaged model. Has no state: what it says depends on how many
// updates were done alone, and so a resumed run needs nothing of it.
//
// To add one: derive from it, register it with GRAPNEL_REGISTER and name its
// config in AveragingStrategyConfig.custom; averaging_strategies.cc is
// the file to imitate. Safe to use from many threads.
class AveragingStrategy {
 public:
  virtual ~AveragingStrategy() = default;

  // What the averaging update does that comes after `steps` updates, steps >= 1
  // and a multiple of `interval`, the number of updates from one averaging to
  // the next. Update 0 is a copy, and no strategy is asked.
  virtual Mixture MixtureAt(int64_t steps, int64_t interval) const = 0;

  // What a user should know about its options, a line each, for the run's log:
  // "momentum: is 0.9, ...".
  virtual std::vector<std::string> warnings() const { return {}; }
};

struct AveragingStrategyTraits {
  using Product = std::unique_ptr<AveragingStrategy>;
  static constexpr char kWhat[] = "averaging strategy";
};
using AveragingStrategyRegistry = Registry<AveragingStrategyTraits>;

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_AVERAGING_AVERAGING_STRATEGY_H_
