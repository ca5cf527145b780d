// Options of an optimizer as they are configured, and what a run that goes on
// with another configuration makes of the saved ones.

#ifndef GRAPNEL_OPTIM_CONFIGURED_OPTIONS_H_
#define GRAPNEL_OPTIM_CONFIGURED_OPTIONS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/param_groups.h"

namespace grapnel::optim::v1 {
class OptimWrapperState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// The values that options have before any schedule or hook moves them: those of
// the configuration, with multipliers and scaling. Thread-compatible.
class ConfiguredOptions {
 public:
  // Of `optimizer` and of the base group's, which may be null, as they are now.
  // None of an optimizer that can't save its state.
  ConfiguredOptions(const Optimizer& optimizer, const Optimizer* base);

  // The rate was multiplied, in all groups.
  void ScaleLr(double factor);

  // Adds them to what the optimizers have saved.
  void Save(optim::v1::OptimWrapperState* state) const;

  // kInvalidArgument if `state` contradicts itself about the base group.
  absl::Status Check(const optim::v1::OptimWrapperState& state) const;

  // Gives each option its saved value or the configured one, as
  // OptimWrapper::LoadState says, and appends to `*options` and `*notes`.
  // `state`, which Check accepted, was loaded by the optimizers.
  void Restore(const optim::v1::OptimWrapperState& state, Optimizer& optimizer,
               Optimizer* base, RestoredOptions* options,
               std::vector<std::string>* notes) const;

 private:
  using Values = std::map<std::string, double>;

  std::vector<Values> groups_;  // In the optimizer's order.
  Values base_;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_CONFIGURED_OPTIONS_H_
