// Which parameters have rates of their own.

#ifndef GRAPNEL_OPTIM_PARAMWISE_H_
#define GRAPNEL_OPTIM_PARAMWISE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optimizer.h"

namespace grapnel::optim::v1 {
class ParamwiseConfig;
}  // namespace grapnel::optim::v1

namespace grapnel {

struct ParamwiseGroup {
  ParamGroup group;
  // In place of the configured values, by name; and the rule, by its index, of
  // the group's first parameter that says so.
  std::map<std::string, double> options;
  int rule = -1;
};

// The groups of `params`, in the order of their first parameters: those with
// the same multipliers and options are one group. Parameters that don't require
// a gradient are in none, but count as matched by a rule, which may be about a
// part that is frozen for now. kInvalidArgument, by field, for a bad config, a
// rule that matches nothing, and if there is nothing to optimize.
absl::StatusOr<std::vector<ParamwiseGroup>> MakeParamGroups(
    const optim::v1::ParamwiseConfig& config,
    const std::vector<NamedTensor>& params);

// Gives the optimizer, which was made of `groups`, their options.
// kInvalidArgument, naming rule and option, if it has no such option.
absl::Status SetParamwiseOptions(const std::vector<ParamwiseGroup>& groups,
                                 Optimizer& optimizer);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_PARAMWISE_H_
