// Which parameters have rates of their own.

#ifndef GRAPNEL_OPTIM_PARAMWISE_H_
#define GRAPNEL_OPTIM_PARAMWISE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"

namespace grapnel {

// The groups of `params`, in the order of their first parameters: those with
// the same multipliers are one group. Parameters that don't require a gradient
// are in none, but count as matched by a rule, which may be about a part that
// is frozen for now. kInvalidArgument, by field, for a bad config, a rule that
// matches nothing, and if there is nothing to optimize.
absl::StatusOr<std::vector<ParamGroup>> MakeParamGroups(
    const optim::v1::ParamwiseConfig& config,
    const std::vector<NamedTensor>& params);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_PARAMWISE_H_
